//! The program on the interfaces: start, swap, stop. Dropping [`Xdp`] leaves everything in force.

use std::{path::PathBuf, time::Duration};

use aya::maps::{MapData, RingBuf};
use ban_common::{Event, SLOTS, Verdict};

use super::{
    Dropped, Enforcer, Held, Hits, Mode, Verdicts,
    attach::{Undo, attach},
    clock::JiffyClock,
    entry::{Choice, Scene},
    error::Error,
    guard::{Backoff, Guard},
    hold::Hold,
    interface::{Framing, Interface},
    link::{Link, Place},
    load::Loaded,
    maps::Maps,
    pins::{Ahead, Pinned},
    resize::resize,
    tables::Sweep,
};
use crate::{
    clock::Now,
    ledger::{Enforced, Op},
    net::IpNet,
};

/// `enum xdp_action`, include/uapi/linux/bpf.h.
const XDP_DROP: u32 = 1;

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names; empty: all by which the outside reaches this host.
    pub interfaces: Vec<String>,
    /// Names of those that nobody is to protect, nor to miss.
    pub unprotected: Vec<String>,
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
            unprotected: Vec::new(),
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
            place: None,
            slot,
            warnings: Vec::new(),
            trouble: None,
            framing: Framing::Ethernet,
            backoff: Backoff::default(),
        }
    }

    /// The program runs there now.
    pub(super) fn put(&mut self, interface: &Interface, place: Place, warning: Option<String>) {
        self.ifindex = interface.index;
        self.place = Some(place);
        self.framing = interface.framing().unwrap_or_default();
        self.warnings = Vec::from_iter(warning);
        self.trouble = None;
    }
}

#[cfg(test)]
impl Attached {
    /// One that is nowhere but in a test.
    pub(crate) fn double(name: &str, ifindex: u32, place: Option<Place>) -> Attached {
        Attached { ifindex, place, ..Attached::missing(name.into(), 0) }
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
    /// By interface, what ties the program to it. Pinned as well, unless it is to go with this
    /// process ([`Hold::Held`]).
    pub(super) links: Vec<(String, Link)>,
    pub(super) guard: Guard,
}

/// What is to be protected at the start.
#[derive(Default)]
struct Chosen {
    found: Vec<Choice>,
    /// Named, and not there.
    missing: Vec<String>,
    /// None was named: what cannot be protected does not stop the others.
    lenient: bool,
}

/// What a start has attached.
struct Started {
    maps: Maps,
    attached: Vec<Attached>,
    programs: Vec<Loaded>,
    links: Vec<(String, Link)>,
}

impl Xdp {
    /// Loads the program over the pinned maps and puts it on the interfaces; where an earlier
    /// agent's program runs, it is swapped without a gap.
    ///
    /// # Errors
    /// If anything fails; then everything is as it was before.
    pub fn start(options: Options) -> Result<Xdp, Error> {
        let scene = Scene::read()?;
        let chosen = choose(&options, &scene)?;
        let mut xdp = Xdp::start_on(options, chosen)?;
        xdp.note_uncovered(&scene);
        Ok(xdp)
    }

    /// As [`Xdp::start`], on no interface: for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// If anything fails; then everything is as it was before.
    pub fn load(options: Options) -> Result<Xdp, Error> {
        Xdp::start_on(options, Chosen::default())
    }

    fn start_on(options: Options, chosen: Chosen) -> Result<Xdp, Error> {
        let pins = Pinned::open(&options.pins)?;
        match Xdp::attach_all(&options, &pins, chosen) {
            Ok(Started { maps, attached, programs, links }) => {
                let guard = Guard::default();
                let xdp = Xdp { options, pins, maps, attached, programs, links, guard };
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

    fn attach_all(options: &Options, pins: &Pinned, chosen: Chosen) -> Result<Started, Error> {
        let Chosen { found: mut interfaces, missing, lenient } = chosen;
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
        if lenient {
            interfaces.truncate(SLOTS as usize - 1);
        }
        let present: Vec<u32> = interfaces.iter().map(|(found, _)| found.index).collect();
        let alive = |index| present.contains(&index);
        let count = interfaces.len() + missing.len();
        let slot = |index| {
            let slot = maps.controls.slot(index, alive);
            slot.ok_or(Error::TooManyInterfaces { count, limit: SLOTS })
        };
        let mut programs = vec![first];
        let mut attached = Vec::new();
        for (interface, _) in &interfaces {
            let slot = slot(interface.index)?;
            let mut program = Loaded::new(folder.as_path(), options.max_bans, slot)?;
            if let Some(framing) = interface.framing() {
                program.frame(framing);
                program.program()?;
            }
            programs.push(program);
            attached.push(Attached::missing(interface.name.clone(), slot));
        }
        let present =
            interfaces.into_iter().zip(attached.iter_mut().zip(programs.iter_mut().skip(1)));
        let links = put_on(options, pins, present, lenient)?;
        for (number, name) in (0..).zip(missing) {
            // no interface has such an index
            let slot = slot(1 << 31 | number)?;
            let warnings = vec![format!("{name} is missing")];
            attached.push(Attached { warnings, ..Attached::missing(name, slot) });
            programs.push(Loaded::new(folder.as_path(), options.max_bans, slot)?);
        }
        if let Some(late) = late {
            late.carry(&mut maps);
        }
        Ok(Started { maps, attached, programs, links })
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
        let Xdp { pins, maps, programs, links, .. } = self;
        drop(maps);
        drop(programs);
        let mut names = Vec::new();
        for (name, link) in links {
            // its pin may be gone, or out of reach
            link.take_off().map_err(|e| Error::call("detach", name.clone(), e))?;
            names.push(name);
        }
        names.extend(pins.remove()?);
        names.sort();
        names.dedup();
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
    pub fn set_dry_run(&mut self, on: bool) {
        // what is looked after from now on
        self.options.dry_run = on;
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
            let mut program =
                Loaded::new(&folder, self.options.max_bans, on.slot)?.framed(on.framing);
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

    fn holds(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Option<Enforced>>> {
        Ok(self.maps.holds(prefixes)?)
    }

    fn sweep(&mut self, sweep: &mut Sweep, count: usize) -> anyhow::Result<Vec<IpNet>> {
        Ok(self.maps.sweep(sweep, count)?)
    }

    fn allows(&mut self, prefixes: &[IpNet]) -> anyhow::Result<bool> {
        Ok(self.maps.allows(prefixes)?)
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

/// What the options ask for.
fn choose(options: &Options, scene: &Scene) -> Result<Chosen, Error> {
    if options.interfaces.is_empty() {
        let found = scene.entries(&options.unprotected);
        if found.is_empty() {
            return Err(Error::NoDefaultRoute);
        }
        return Ok(Chosen { found, missing: Vec::new(), lenient: true });
    }
    let (found, missing) = scene.named(&options.interfaces);
    match missing.first() {
        Some(name) if found.is_empty() => Err(Error::NoInterface {
            name: name.clone(),
            known: scene.all.iter().map(|interface| interface.name.clone()).collect(),
        }),
        _ => Ok(Chosen { found, missing, lenient: false }),
    }
}

/// Puts each program on its interface, or none.
///
/// # Errors
/// The first failure; if `lenient` only one that all share.
fn put_on<'a>(
    options: &Options,
    pins: &Pinned,
    all: impl Iterator<Item = (Choice, (&'a mut Attached, &'a mut Loaded))>,
    lenient: bool,
) -> Result<Vec<(String, Link)>, Error> {
    let mut done: Vec<(String, Undo)> = Vec::new();
    let mut failed = None;
    for ((interface, mut warnings), (on, program)) in all {
        if options.hold == Hold::Off {
            (on.ifindex, on.warnings) = (interface.index, warnings);
            continue;
        }
        let put =
            attach(options, pins, &interface, program).and_then(|put| put.undo.pin().map(|()| put));
        match put {
            Ok(put) => {
                warnings.extend(put.warning);
                on.put(&interface, put.place, None);
                on.warnings = warnings;
                done.push((interface.name, put.undo));
            }
            Err(error) if lenient => {
                on.ifindex = interface.index;
                on.trouble = Some(format!("{}: nothing is dropped: {error}", interface.name));
                failed = failed.or(Some(error));
            }
            Err(error) => {
                done.into_iter().rev().for_each(|(_, undo)| undo.run());
                return Err(error);
            }
        }
    }
    match failed {
        Some(error) if done.is_empty() => Err(error),
        _ => Ok(done.into_iter().map(|(name, undo)| (name, undo.into_link())).collect()),
    }
}
