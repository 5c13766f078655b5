//! One interface: what is shown of it, the program that was loaded for it, and the link that ties the
//! two together. Knows nothing of the others, nor of pins.

use std::io;

use super::{
    error::Error,
    guard::Backoff,
    interface::{Framing, Interface},
    link::{Link, XdpMode},
    load::Loaded,
};

/// An interface that runs the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its index; 0 while it is gone.
    pub ifindex: u32,
    /// Where the program runs; `None`: nowhere ([`super::Lifetime::Detached`]).
    pub mode: Option<XdpMode>,
    /// Which counters are its own.
    pub(super) slot: u32,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Why nothing is dropped there, if that is so and should not be.
    pub trouble: Option<String>,
    pub(super) framing: Framing,
    pub(super) backoff: Backoff,
}

impl Attached {
    /// Not attached yet, or not there.
    pub(super) fn missing(name: String, slot: u32) -> Attached {
        Attached {
            name,
            ifindex: 0,
            mode: None,
            slot,
            warnings: Vec::new(),
            trouble: None,
            framing: Framing::Ethernet,
            backoff: Backoff::default(),
        }
    }

    /// The program runs there now.
    pub(super) fn put(&mut self, interface: &Interface, mode: XdpMode, warning: Option<String>) {
        self.ifindex = interface.index;
        self.mode = Some(mode);
        self.framing = interface.framing().unwrap_or_default();
        self.warnings = Vec::from_iter(warning);
        self.trouble = None;
    }
}

#[cfg(test)]
impl Attached {
    /// Returns one that is nowhere but in a test.
    pub(crate) fn double(name: &str, ifindex: u32, mode: Option<XdpMode>) -> Attached {
        Attached { ifindex, mode, ..Attached::missing(name.into(), 0) }
    }
}

/// The program on one interface.
#[derive(Debug)]
pub(super) struct Attachment {
    /// The interface, as it is shown.
    pub(super) interface: Attached,
    /// The program that is to run there.
    pub(super) program: Loaded,
    /// What ties it to the interface; `None`: nothing does. It is pinned as well, unless it is to go
    /// with this process ([`super::Lifetime::Process`]).
    pub(super) link: Option<Link>,
}

impl Attachment {
    /// Returns a program for an interface that it does not run on yet.
    pub(super) fn loose(interface: Attached, program: Loaded) -> Attachment {
        Attachment { interface, program, link: None }
    }

    /// Returns whether the interface runs our program by our link.
    pub(super) fn sits(&mut self) -> bool {
        let info = self.link.as_ref().and_then(|link| link.info().ok());
        info.is_some_and(|info| {
            info.ifindex == self.interface.ifindex
                && self.program.id().is_ok_and(|id| id == info.program)
        })
    }

    /// Returns our link, if it is still one to this interface.
    pub(super) fn alive(&self, interface: &Interface) -> Option<&Link> {
        let link = self.link.as_ref()?;
        link.info().is_ok_and(|info| info.ifindex == interface.index).then_some(link)
    }

    /// Puts `program` in the place of the one that runs; it does not become ours by that.
    ///
    /// # Errors
    /// If the kernel refuses, or there is no link though the program is said to run.
    pub(super) fn run(&self, program: &mut Loaded) -> Result<(), Error> {
        swap(&self.interface, self.link.as_ref(), program)
    }

    /// Puts our own program back.
    ///
    /// # Errors
    /// As [`Attachment::run`].
    pub(super) fn run_own(&mut self) -> Result<(), Error> {
        swap(&self.interface, self.link.as_ref(), &mut self.program)
    }
}

fn swap(on: &Attached, link: Option<&Link>, program: &mut Loaded) -> Result<(), Error> {
    if on.mode.is_none() || on.ifindex == 0 {
        return Ok(());
    }
    let failed = |e| Error::call("swap the program", on.name.clone(), e);
    let program = program.descriptor()?;
    let link = link.ok_or(io::ErrorKind::NotFound.into()).map_err(failed)?;
    link.update(program).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_is_over_once_the_program_runs() {
        let mut on = Attached::missing("edge0".into(), 3);
        on.trouble = Some("busy".into());
        on.warnings = vec!["edge0 is gone".into()];
        let interface = Interface { index: 7, link_type: 0xfffe, ..Interface::default() };
        on.put(&interface, XdpMode::Generic, Some("generic".into()));
        assert_eq!((on.ifindex, on.mode, on.slot), (7, Some(XdpMode::Generic), 3));
        assert_eq!((on.trouble, on.warnings), (None, vec!["generic".to_owned()]));
        assert_eq!(on.framing, Framing::Bare);
    }
}
