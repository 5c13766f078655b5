//! Puts the program on one interface, and takes it back. Knows nothing of the others.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    Mode,
    error::Error,
    interface::{self, Interface},
    link::{self, Link, XdpMode, program_by_id},
    load::Loaded,
    pins::Pinned,
    xdp::Options,
};

/// How to take back what was done to one interface.
pub(super) enum Undo {
    /// The link is new.
    Created(Link, PathBuf),
    /// The link ran this program before.
    Swapped(Link, Option<OwnedFd>),
}

/// What [`attach`] did.
pub(super) struct Done {
    /// Where the program runs now.
    pub(super) mode: XdpMode,
    /// What the operator should know.
    pub(super) warning: Option<String>,
    /// How to take it back. A new link is not pinned yet.
    pub(super) undo: Undo,
}

impl Undo {
    /// The link, which stays.
    pub(super) fn into_link(self) -> Link {
        match self {
            Undo::Created(link, _) | Undo::Swapped(link, _) => link,
        }
    }

    /// Pins what is new.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn pin(&self) -> Result<(), Error> {
        match self {
            Undo::Swapped(..) => Ok(()),
            Undo::Created(link, pin) => {
                link.pin(pin).map_err(|e| Error::call("pin the link", pin.display().to_string(), e))
            }
        }
    }

    /// Takes it back.
    pub(super) fn run(self) {
        let result = match self {
            Undo::Created(link, pin) => {
                // not there if it was not pinned yet
                let _ = std::fs::remove_file(pin);
                link.detach()
            }
            Undo::Swapped(link, Some(program)) => link.update(program),
            Undo::Swapped(_, None) => Ok(()),
        };
        if let Err(error) = result {
            log::error!("cannot take back an attachment: {error}");
        }
    }
}

/// Puts the program on one interface.
///
/// # Errors
/// If the kernel refuses it, or its frames cannot be read; then nothing has changed.
pub(super) fn attach(
    options: &Options,
    pins: &Pinned,
    interface: &Interface,
    loaded: &mut Loaded,
) -> Result<Done, Error> {
    let framing = interface.framing().ok_or_else(|| Error::LinkType {
        interface: interface.name.clone(),
        link_type: interface.link_type,
    })?;
    loaded.frame(framing);
    let pin = pins.link(&interface.name);
    adopt_former(pins, interface, &pin);
    let failed = |call| {
        let name = interface.name.clone();
        move |e| Error::call(call, name, e)
    };
    let program = loaded.descriptor()?;
    if let Some(link) = Link::open(&pin).map_err(failed("open the pinned link"))? {
        let info = link.info().map_err(failed("read the pinned link"))?;
        if info.ifindex == interface.index && fits(options.mode, interface) {
            // Held open: unlike this the program would be gone once it is swapped out.
            // Without CAP_SYS_ADMIN it cannot be, and a failed start leaves the new program.
            let old = match program_by_id(info.program) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
                old => Some(old.map_err(failed("open the old program of"))?),
            };
            link.update(program).map_err(failed("swap the program"))?;
            let warning = interface.generic.then(|| generic_warning(interface, None));
            let mode = if interface.generic { XdpMode::Generic } else { XdpMode::Native };
            return Ok(Done { mode, warning, undo: Undo::Swapped(link, old) });
        }
        // Its interface is gone and this one only has the same name, or the mode has changed.
        drop(link.detach());
        std::fs::remove_file(&pin).map_err(failed("unpin"))?;
    }
    if options.replace {
        evict(interface)?;
    }
    let (link, warning) = create(options.mode, interface, program)?;
    let mode = if warning.is_none() && options.mode != Mode::Generic {
        XdpMode::Native
    } else {
        XdpMode::Generic
    };
    Ok(Done { mode, warning, undo: Undo::Created(link, pin) })
}

/// Renames the pin that an earlier agent made for this interface.
fn adopt_former(pins: &Pinned, interface: &Interface, pin: &Path) {
    let Some(former) = link::former_pin_name(&interface.name) else { return };
    let former = pins.links().join(former);
    let its_own = |link: &Link| link.info().is_ok_and(|info| info.ifindex == interface.index);
    if !pin.exists()
        && Link::open(&former).ok().flatten().as_ref().is_some_and(its_own)
        && let Err(error) = std::fs::rename(&former, pin)
    {
        log::warn!("cannot rename {}: {error}", former.display());
    }
}

/// Returns whether what runs is what is asked for.
fn fits(mode: Mode, interface: &Interface) -> bool {
    match mode {
        Mode::Auto => true,
        Mode::Native => !interface.generic,
        Mode::Generic => interface.generic,
    }
}

fn create(
    mode: Mode,
    interface: &Interface,
    program: &aya::programs::ProgramFd,
) -> Result<(Link, Option<String>), Error> {
    let attach = |mode| Link::create(program.as_fd(), interface.index, mode);
    let busy = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EEXIST));
    let denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
    let first = if mode == Mode::Generic { XdpMode::Generic } else { XdpMode::Native };
    let error = match attach(first) {
        Ok(link) => return Ok((link, None)),
        Err(error) => error,
    };
    if busy(&error) {
        return Err(Error::SlotTaken {
            interface: interface.name.clone(),
            owner: owner(interface),
        });
    }
    if denied(&error) {
        return Err(Error::Permission { what: "attach to a network interface" });
    }
    match mode {
        Mode::Native => Err(Error::NoNative { interface: interface.name.clone(), source: error }),
        Mode::Generic => Err(Error::call("attach", interface.name.clone(), error)),
        Mode::Auto => attach(XdpMode::Generic)
            .map(|link| (link, Some(generic_warning(interface, Some(&error)))))
            .map_err(|e| Error::call("attach", interface.name.clone(), e)),
    }
}

fn generic_warning(interface: &Interface, error: Option<&io::Error>) -> String {
    let why = error.map_or_else(String::new, |e| format!(" ({e})"));
    format!(
        "{} has no native XDP{why}: running in generic mode, which costs more than twice as much \
         per packet",
        interface.name
    )
}

/// Returns the program that holds the slot, for people.
fn owner(interface: &Interface) -> String {
    let id = interface.program;
    let name = aya::programs::loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    match name {
        Some(name) if !name.is_empty() => format!("'{name}' (id {id})"),
        _ => format!("with id {id}"),
    }
}

/// Takes another's program off the interface.
fn evict(interface: &Interface) -> Result<(), Error> {
    if interface.program == 0 {
        return Ok(());
    }
    let failed = |e| Error::call("remove the XDP program of", interface.name.clone(), e);
    // By its program too: another network namespace has its own interface of that index.
    let (ifindex, program) = (interface.index, interface.program);
    for link in Link::all().map_err(failed)? {
        if link.info().is_ok_and(|info| info.ifindex == ifindex && info.program == program) {
            return link.detach().map_err(failed);
        }
    }
    interface::clear(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_if_it_runs_where_it_is_asked_to() {
        for (mode, native, generic) in
            [(Mode::Auto, true, true), (Mode::Native, true, false), (Mode::Generic, false, true)]
        {
            let interface = |generic| Interface { generic, ..Interface::default() };
            assert_eq!(fits(mode, &interface(false)), native, "{mode:?}");
            assert_eq!(fits(mode, &interface(true)), generic, "{mode:?}");
        }
    }

    #[test]
    fn generic_mode_is_warned_of_with_what_the_driver_said() {
        let interface = Interface { name: "eth0".into(), ..Interface::default() };
        let error = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        let warning = generic_warning(&interface, Some(&error));
        assert!(
            warning.starts_with("eth0 has no native XDP (Operation not supported"),
            "{warning}"
        );
        assert!(generic_warning(&interface, None).starts_with("eth0 has no native XDP:"));
    }
}
