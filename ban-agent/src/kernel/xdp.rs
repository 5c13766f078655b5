//! The program on the interfaces: start, swap, stop. Dropping [`Xdp`] leaves everything in force.

use std::{io, os::fd::OwnedFd, path::PathBuf, time::Duration};

use aya::maps::{MapData, RingBuf};
use ban_common::{Event, SLOTS, Verdict};

use super::{
    Dropped, Enforcer, Held, Hits, Mode, Verdicts,
    clock::JiffyClock,
    error::Error,
    hold::Hold,
    interface::{self, Interface},
    link::{Link, Place, program_by_id},
    load::Loaded,
    maps::Maps,
    pins::{Ahead, Pinned},
    resize::resize,
};
use crate::{clock::Now, ledger::Op, net::IpNet};

/// `enum xdp_action`, include/uapi/linux/bpf.h.
const XDP_DROP: u32 = 1;

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names; empty: those that hold the default route.
    pub interfaces: Vec<String>,
    /// Where in the stack.
    pub mode: Mode,
    /// The pin folder, on bpffs.
    pub pins: PathBuf,
    /// Size of the ban maps, per family.
    pub max_bans: u32,
    /// Count, and pass.
    pub dry_run: bool,
    /// Take the place of another XDP program.
    pub replace: bool,
    /// One event for about so many drops; 0: none.
    pub sample_every: u32,
    /// How firmly the program sits.
    pub hold: Hold,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            interfaces: Vec::new(),
            mode: Mode::Auto,
            pins: PathBuf::from("/sys/fs/bpf/ban-agent"),
            max_bans: ban_common::DEFAULT_BANS,
            dry_run: false,
            replace: false,
            sample_every: 1_024,
            hold: Hold::Pinned,
        }
    }
}

/// An interface that runs the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its index; 0 while it is gone.
    pub ifindex: u32,
    /// Where the program runs; `None`: nowhere ([`Hold::Off`]).
    pub place: Option<Place>,
    /// Which counters are its own.
    pub(super) slot: u32,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

#[cfg(test)]
impl Attached {
    /// One that is nowhere but in a test.
    pub(crate) fn double(name: &str, ifindex: u32, place: Option<Place>) -> Attached {
        Attached { name: name.into(), ifindex, place, slot: 0, warnings: Vec::new() }
    }
}

/// The kernel side of a running agent.
#[derive(Debug)]
pub struct Xdp {
    pub(super) options: Options,
    pub(super) pins: Pinned,
    pub(super) maps: Maps,
    pub(super) attached: Vec<Attached>,
    /// A copy of the program for test runs, then one for each of `attached`.
    pub(super) programs: Vec<Loaded>,
    /// By interface, what is not pinned and goes with this process ([`Hold::Held`]).
    pub(super) held: Vec<(String, Link)>,
}

/// How to take back what was done to one interface.
pub(super) enum Undo {
    /// The link is new.
    Created(Link, PathBuf),
    /// The link ran this program before.
    Swapped(Link, Option<OwnedFd>),
}

impl Undo {
    fn run(self) {
        let result = match self {
            Undo::Created(link, pin) => std::fs::remove_file(pin).and_then(|()| link.detach()),
            Undo::Swapped(link, Some(program)) => link.update(program),
            Undo::Swapped(_, None) => Ok(()),
        };
        if let Err(error) = result {
            log::error!("cannot take back an attachment: {error}");
        }
    }
}

impl Xdp {
    /// Loads the program over the pinned maps and puts it on the interfaces; where an earlier
    /// agent's program runs, it is swapped without a gap.
    ///
    /// # Errors
    /// If anything fails; then everything is as it was before.
    pub fn start(options: Options) -> Result<Xdp, Error> {
        let interfaces = resolve(&options.interfaces)?;
        Xdp::start_on(options, interfaces)
    }

    /// As [`Xdp::start`], on no interface: for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// If anything fails; then everything is as it was before.
    pub fn load(options: Options) -> Result<Xdp, Error> {
        Xdp::start_on(options, Vec::new())
    }

    fn start_on(options: Options, interfaces: Vec<(Interface, Vec<String>)>) -> Result<Xdp, Error> {
        let pins = Pinned::open(&options.pins)?;
        match Xdp::attach_all(&options, &pins, interfaces) {
            Ok((maps, attached, programs)) => {
                let mut xdp = Xdp { options, pins, maps, attached, programs, held: Vec::new() };
                xdp.release_others()?;
                if xdp.options.hold == Hold::Held {
                    xdp.unpin()?;
                }
                Ok(xdp)
            }
            Err(error) => {
                if let Err(left) = pins.undo() {
                    log::warn!("pins are left over: {left}");
                }
                Err(error)
            }
        }
    }

    fn attach_all(
        options: &Options,
        pins: &Pinned,
        interfaces: Vec<(Interface, Vec<String>)>,
    ) -> Result<(Maps, Vec<Attached>, Vec<Loaded>), Error> {
        pins.check_versions()?;
        let folder = pins.maps();
        let late = resize(&folder, options.max_bans)?;
        if late.is_some() {
            log::info!("the ban maps now hold {} bans per family", options.max_bans);
        }
        let mut first = Loaded::new(folder.as_path(), options.max_bans, 0)?;
        let clock = JiffyClock::measure(first.clock()?)?;
        let mut maps = Maps::new(&first, clock)?;
        maps.controls.dry_run(options.dry_run);
        maps.controls.sample(options.sample_every);
        let alive = |index| interfaces.iter().any(|(found, _)| found.index == index);
        let mut programs = vec![first];
        let mut slots = Vec::new();
        for (interface, _) in &interfaces {
            let too_many = || Error::TooManyInterfaces { count: interfaces.len(), limit: SLOTS };
            let slot = maps.controls.slot(interface.index, alive).ok_or_else(too_many)?;
            let mut program = Loaded::new(folder.as_path(), options.max_bans, slot)?;
            program.program()?;
            programs.push(program);
            slots.push(slot);
        }
        let mut attached = Vec::new();
        let mut undo = Vec::new();
        for (((interface, warnings), program), slot) in
            interfaces.into_iter().zip(programs.iter_mut().skip(1)).zip(slots)
        {
            let missing = interface.index > LARGEST_INDEX;
            let mut on = Attached {
                name: interface.name.clone(),
                ifindex: if missing { 0 } else { interface.index },
                place: None,
                slot,
                warnings,
            };
            if options.hold == Hold::Off || missing {
                attached.push(on);
                continue;
            }
            match attach(options, pins, &interface, program) {
                Ok((place, warning, step)) => {
                    undo.push(step);
                    on.place = Some(place);
                    on.warnings.extend(warning);
                    attached.push(on);
                }
                Err(error) => {
                    undo.into_iter().rev().for_each(Undo::run);
                    return Err(error);
                }
            }
        }
        if let Some(late) = late {
            late.carry(&mut maps);
        }
        Ok((maps, attached, programs))
    }

    /// Looks at the interfaces again: where one has come back (a new device of the same name), the
    /// program is put on it. What has changed, for the log. To be called when rtnetlink reports a
    /// link.
    ///
    /// # Errors
    /// If the kernel does not answer, or refuses the program.
    pub fn check_interfaces(&mut self) -> Result<Vec<String>, Error> {
        if self.options.hold == Hold::Off {
            return Ok(Vec::new());
        }
        let all = interface::list()?;
        let mut changes = Vec::new();
        for (attached, program) in self.attached.iter_mut().zip(self.programs.iter_mut().skip(1)) {
            let now = all.iter().find(|interface| interface.name == attached.name);
            match now {
                Some(interface) if interface.index == attached.ifindex => {}
                Some(interface) => {
                    let (place, warning, _) =
                        attach(&self.options, &self.pins, interface, program)?;
                    attached.ifindex = interface.index;
                    attached.place = Some(place);
                    attached.warnings = warning.into_iter().collect();
                    changes.push(format!("{} has come back and is protected", attached.name));
                }
                None if attached.ifindex != 0 => {
                    attached.ifindex = 0;
                    attached.warnings = vec![format!("{} is gone", attached.name)];
                    changes.push(format!("{} is gone", attached.name));
                }
                None => {}
            }
        }
        if self.options.hold == Hold::Held {
            self.unpin()?;
        }
        Ok(changes)
    }

    /// Takes the program off interfaces that an earlier agent protected and we do not.
    fn release_others(&self) -> Result<(), Error> {
        for name in self.pins.linked()? {
            let ours = |on: &Attached| on.name == name && on.place.is_some();
            if self.attached.iter().any(ours) {
                continue;
            }
            let pin = self.pins.link(&name);
            let failed = |e| Error::call("detach", name.clone(), e);
            if let Some(link) = Link::open(&pin).map_err(failed)? {
                // Fails only where the interface itself is gone.
                drop(link.detach());
            }
            std::fs::remove_file(&pin).map_err(failed)?;
            log::info!("released {name}, which is not configured any more");
        }
        Ok(())
    }

    /// Takes the program off all interfaces and removes every pin: nothing is enforced any more.
    ///
    /// # Errors
    /// The first failure.
    pub fn detach(self) -> Result<Vec<String>, Error> {
        let Xdp { pins, maps, programs, held, .. } = self;
        drop(maps);
        drop(programs);
        let mut names: Vec<String> = held.iter().map(|(name, _)| name.clone()).collect();
        // not pinned: they go with their descriptors
        drop(held);
        names.extend(pins.remove()?);
        names.sort();
        Ok(names)
    }

    /// The interfaces, with mode and warnings.
    #[must_use]
    pub fn interfaces(&self) -> &[Attached] {
        &self.attached
    }

    /// The note that the maps know more than the state file does.
    #[must_use]
    pub fn ahead(&self) -> Ahead {
        self.pins.ahead()
    }

    /// Counters of all interfaces together.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn verdicts(&self) -> Result<Verdicts, Error> {
        self.maps.verdicts(None)
    }

    /// Counters of one interface.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn verdicts_of(&self, attached: &Attached) -> Result<Verdicts, Error> {
        self.maps.verdicts(Some(attached.slot))
    }

    /// Count without dropping, or drop.
    pub fn set_dry_run(&self, on: bool) {
        self.maps.controls.dry_run(on);
    }

    /// Whether it only counts.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.maps.controls.is_dry_run()
    }

    /// One event for about `every` drops; 0: none.
    pub fn set_sampling(&self, every: u32) {
        self.maps.controls.sample(every);
    }

    /// How many bans fit, per family.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.maps.capacity()
    }

    /// How it was started.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How deadlines are converted.
    #[must_use]
    pub fn clock(&self) -> JiffyClock {
        self.maps.clock
    }

    /// Writes all deadlines again if the machine slept, and puts fresh programs on the interfaces.
    /// Cheap if it did not.
    ///
    /// # Errors
    /// If the kernel refuses; the next call tries again.
    pub fn check_clock(&mut self) -> Result<bool, Error> {
        if !self.maps.clock.shifted() {
            return Ok(false);
        }
        let Some(program) = self.programs.first_mut() else { return Ok(false) };
        let clock = JiffyClock::measure(program.clock()?)?;
        self.renew()?;
        self.maps.set_clock(clock)?;
        Ok(true)
    }

    /// Swaps new copies of the program in. A driver may have lost the one that it had (virtio_net
    /// does, in a suspend), while the kernel believes it there, and would take the same one again
    /// for no change.
    fn renew(&mut self) -> Result<(), Error> {
        let folder = self.pins.maps();
        for (at, on) in self.attached.iter().enumerate() {
            let mut program = Loaded::new(&folder, self.options.max_bans, on.slot)?;
            self.swap(on, &mut program)?;
            if let Some(old) = self.programs.get_mut(at + 1) {
                *old = program;
            }
        }
        Ok(())
    }

    /// Runs the program over `frame`, `repeat` times, without any interface. Its verdict, and
    /// the time for one run.
    ///
    /// # Errors
    /// If the kernel refuses, as it does a frame shorter than an Ethernet header.
    pub fn judge(&mut self, frame: &[u8], repeat: u32) -> Result<(Verdict, Duration), Error> {
        let before = self.maps.verdicts(Some(0))?;
        let Some(program) = self.programs.first_mut() else {
            return Err(Error::Missing { name: "ban_agent" });
        };
        let (action, time) = program.run(frame, repeat)?;
        let after = self.maps.verdicts(Some(0))?;
        let counted = after.counts.iter().zip(&before.counts);
        let verdict = counted
            .filter(|((_, after), (_, before))| after.packets > before.packets)
            .map(|((verdict, _), _)| *verdict)
            .next();
        match verdict {
            Some(verdict) if (action == XDP_DROP) == (verdict == Verdict::Drop) => {
                Ok((verdict, time))
            }
            _ => Err(Error::Judgement { action, counted: verdict }),
        }
    }

    /// The sampled drops; once.
    ///
    /// # Errors
    /// If the ring cannot be mapped.
    pub fn events(&self) -> Result<Events, Error> {
        let failed = |source| Error::Map { name: "events", source: Box::new(source) };
        let map = MapData::from_pin(self.pins.maps().join("events")).map_err(failed)?;
        let ring = RingBuf::try_from(aya::maps::Map::RingBuf(map)).map_err(failed)?;
        Ok(Events { ring })
    }

    /// The program's own rare log lines, for the `log` crate: flush it now and then.
    #[must_use]
    pub fn logger(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        let program = self.programs.first_mut()?;
        aya_log::EbpfLogger::init(&mut program.ebpf).ok()
    }
}

impl Enforcer for Xdp {
    fn apply(&mut self, ops: &[Op], now: Now) -> anyhow::Result<()> {
        self.check_clock()?;
        Ok(self.maps.apply(ops, now)?)
    }

    fn hits(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Hits>> {
        Ok(self.maps.hits(prefixes)?)
    }

    fn each_held(&mut self, visit: &mut dyn FnMut(Held)) -> anyhow::Result<()> {
        Ok(self.maps.each_held(Now::read(), visit)?)
    }

    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()> {
        Ok(self.maps.allow(prefixes)?)
    }
}

/// Sampled drops, as they come. The descriptor is readable when there are some.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Iterator for Events {
    type Item = Dropped;

    /// The next one, if there is one now.
    fn next(&mut self) -> Option<Dropped> {
        let item = self.ring.next()?;
        let bytes: &[u8; size_of::<Event>()] = item.first_chunk()?;
        // SAFETY: Event is repr(C), integers only, without padding (asserted where it is
        // defined); the array has its size, and transmute_copy reads unaligned.
        let event: Event = unsafe { std::mem::transmute_copy(bytes) };
        Some(event.into())
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl std::os::fd::AsRawFd for Events {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.ring.as_raw_fd()
    }
}

impl From<Event> for Dropped {
    fn from(event: Event) -> Dropped {
        let address = if event.family == 6 {
            event.address.into()
        } else {
            let [a, b, c, d, ..] = event.address;
            [a, b, c, d].into()
        };
        let target = u8::try_from(event.protocol).ok().zip(u16::try_from(event.port).ok());
        Dropped {
            address,
            ifindex: event.ifindex,
            length: event.length,
            target: target.filter(|(protocol, _)| *protocol != 0),
            dry_run: event.verdict == Verdict::DryRun as u32,
        }
    }
}

/// The kernel's indexes are positive `int`s; what is above stands for an interface that is not
/// there.
const LARGEST_INDEX: u32 = i32::MAX.cast_unsigned();

/// The interfaces behind the configured names, each once, with what the operator should know. One
/// that is not there has an index above [`LARGEST_INDEX`]: it stops no other, and is protected once
/// it comes.
fn resolve(names: &[String]) -> Result<Vec<(Interface, Vec<String>)>, Error> {
    let all = interface::list()?;
    let defaults = if names.is_empty() { interface::default_route() } else { Vec::new() };
    let names = if names.is_empty() { &defaults } else { names };
    if names.is_empty() {
        return Err(Error::NoDefaultRoute);
    }
    let mut found: Vec<(Interface, Vec<String>)> = Vec::new();
    for name in names {
        let missing = || Error::NoInterface {
            name: name.clone(),
            known: all.iter().map(|interface| interface.name.clone()).collect(),
        };
        let Some(mut interface) = all.iter().find(|other| other.name == *name) else {
            let error = missing();
            if !names.iter().any(|name| all.iter().any(|other| other.name == *name)) {
                return Err(error);
            }
            log::error!("{error}: it is protected once it is there");
            let index = u32::MAX - u32::try_from(found.len()).unwrap_or(0);
            let warning = format!("{name} is not there: nothing that arrives by it is dropped");
            found.push((
                Interface { name: name.clone(), index, ..Interface::default() },
                vec![warning],
            ));
            continue;
        };
        let mut warnings = Vec::new();
        while interface.kind == "vlan"
            && let Some(parent) = all.iter().find(|other| other.index == interface.lower)
        {
            warnings.push(format!(
                "{} is a VLAN of {}: protecting {}, tagged frames included, before they are \
                 sorted to their VLANs",
                interface.name, parent.name, parent.name
            ));
            interface = parent;
        }
        warnings.extend(port_warning(interface, &all));
        if let Some((_, known)) = found.iter_mut().find(|(other, _)| other.index == interface.index)
        {
            known.extend(warnings);
        } else {
            found.push((interface.clone(), warnings));
        }
    }
    Ok(found)
}

/// What it means to protect the port of a bond or bridge and not the whole.
fn port_warning(port: &Interface, all: &[Interface]) -> Option<String> {
    let whole = all.iter().find(|other| port.master != 0 && other.index == port.master)?;
    let (port, whole, kind) = (&port.name, &whole.name, &whole.kind);
    let meaning = match kind.as_str() {
        "bond" => format!(
            "packets that arrive by its other ports pass; name {whole} instead, which protects \
             all of them"
        ),
        "bridge" => format!(
            "bans hold for all that arrives by {port}, also for what {whole} forwards; packets \
             that arrive by its other ports pass"
        ),
        _ => return None,
    };
    Some(format!("{port} is a port of the {kind} {whole}: {meaning}"))
}

/// Puts the program on one interface. The place, a warning, and how to take it back.
pub(super) fn attach(
    options: &Options,
    pins: &Pinned,
    interface: &Interface,
    loaded: &mut Loaded,
) -> Result<(Place, Option<String>, Undo), Error> {
    let pin = pins.link(&interface.name);
    let failed = |call| {
        let name = interface.name.clone();
        move |e| Error::call(call, name, e)
    };
    let program = loaded
        .program()?
        .fd()
        .map_err(|source| Error::Program { what: "use the program", source: Box::new(source) })?;
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
            let place = if interface.generic { Place::Generic } else { Place::Native };
            return Ok((place, warning, Undo::Swapped(link, old)));
        }
        // Its interface is gone and this one only has the same name, or the mode has changed.
        drop(link.detach());
        std::fs::remove_file(&pin).map_err(failed("unpin"))?;
    }
    if options.replace {
        evict(interface)?;
    }
    let (link, warning) = create(options.mode, interface, program)?;
    let place = if warning.is_none() && options.mode != Mode::Generic {
        Place::Native
    } else {
        Place::Generic
    };
    link.pin(&pin).map_err(failed("pin the link"))?;
    Ok((place, warning, Undo::Created(link, pin)))
}

/// Whether what runs is what is asked for.
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
    use std::os::fd::AsFd as _;
    let attach = |place| Link::create(program.as_fd(), interface.index, place);
    let busy = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EEXIST));
    let denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
    let first = if mode == Mode::Generic { Place::Generic } else { Place::Native };
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
        Mode::Auto => attach(Place::Generic)
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

/// The program that holds the slot, for people.
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
