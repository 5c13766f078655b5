//! The program on the interfaces, and its maps: what a running agent asks of them. How it starts is in
//! `start`, what keeps it there in `guard` and `lifetime`. Dropping [`Xdp`] leaves everything in force.

use std::{path::PathBuf, time::Duration};

use ban_common::Verdict;

use super::{
    Mode, Verdicts,
    attachment::{Attached, Attachment},
    clock::JiffyClock,
    error::Error,
    events::Events,
    guard::Guard,
    lifetime::Lifetime,
    load::Loaded,
    maps::Maps,
    pins::Pinned,
};

/// `enum xdp_action`, include/uapi/linux/bpf.h.
const XDP_DROP: u32 = 1;

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names; empty: all by which the outside reaches this host.
    pub interfaces: Vec<String>,
    /// Names of those that are left open on purpose: they are not warned of.
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
    pub lifetime: Lifetime,
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
            lifetime: Lifetime::Pinned,
        }
    }
}

/// The kernel side of a running agent.
#[derive(Debug)]
pub struct Xdp {
    pub(super) options: Options,
    pub(super) pins: Pinned,
    pub(super) maps: Maps,
    /// A copy of the program for test runs and measurements.
    pub(super) probe: Loaded,
    pub(super) attachments: Vec<Attachment>,
    pub(super) guard: Guard,
}

impl Xdp {
    /// Takes the program off all interfaces and removes every pin: nothing is enforced any more.
    ///
    /// # Errors
    /// The first failure.
    pub fn detach(self) -> Result<Vec<String>, Error> {
        let Xdp { pins, maps, probe, attachments, .. } = self;
        drop((maps, probe));
        let mut names = Vec::new();
        for Attachment { interface: on, program, link } in attachments {
            drop(program);
            let Some(link) = link else { continue };
            // its pin may be gone, or out of reach
            link.take_off().map_err(|e| Error::call("detach", on.name.clone(), e))?;
            names.push(on.name);
        }
        names.extend(pins.remove()?);
        names.sort();
        names.dedup();
        Ok(names)
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

    /// Returns how it was started.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Returns how deadlines are converted.
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
        let clock = JiffyClock::measure(self.probe.clock()?)?;
        self.renew()?;
        self.maps.set_clock(clock)?;
        Ok(true)
    }

    /// Swaps new copies of the program in. A driver may have lost the one that it had (virtio_net
    /// does, in a suspend), while the kernel believes it there, and would take the same one again
    /// for no change.
    fn renew(&mut self) -> Result<(), Error> {
        let folder = self.pins.maps();
        for attachment in &mut self.attachments {
            let Attached { slot, framing, .. } = attachment.interface;
            let mut program = Loaded::new(&folder, self.options.max_bans, slot)?.framed(framing);
            if attachment.link.is_some() {
                attachment.run(&mut program)?;
            }
            attachment.program = program;
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
        let (action, time) = self.probe.run(frame, repeat)?;
        let after = self.maps.verdicts(Some(0))?;
        Ok((verdict(action, &before, &after)?, time))
    }

    /// Returns the sampled drops; once.
    ///
    /// # Errors
    /// If the ring cannot be mapped.
    pub fn events(&self) -> Result<Events, Error> {
        Events::open(&self.pins.maps())
    }

    /// Returns the program's own rare log lines, for the `log` crate: flush it now and then.
    #[must_use]
    pub fn logger(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        aya_log::EbpfLogger::init(&mut self.probe.ebpf).ok()
    }
}

/// Returns the verdict that was counted between two looks.
///
/// # Errors
/// If the program's `action` is another, or nothing was counted.
fn verdict(action: u32, before: &Verdicts, after: &Verdicts) -> Result<Verdict, Error> {
    let counted = after.counts.iter().zip(&before.counts);
    let grown = counted
        .filter(|((_, after), (_, before))| after.packets > before.packets)
        .map(|((verdict, _), _)| *verdict)
        .next();
    match grown {
        Some(verdict) if (action == XDP_DROP) == (verdict == Verdict::Drop) => Ok(verdict),
        counted => Err(Error::Judgement { action, counted }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Hits;

    /// Returns all counters at 5, but for one that is further.
    fn counters(grown: Option<Verdict>) -> Verdicts {
        let packets = |verdict| if Some(verdict) == grown { 6 } else { 5 };
        let count = |verdict| (verdict, Hits { packets: packets(verdict), bytes: 0 });
        Verdicts { counts: Verdict::ALL.into_iter().map(count).collect(), events_lost: 0 }
    }

    #[test]
    fn a_verdict_is_what_was_counted_if_the_action_agrees() {
        const XDP_PASS: u32 = 2;
        for counted in Verdict::ALL {
            let judged = |action| verdict(action, &counters(None), &counters(Some(counted)));
            let drops = counted == Verdict::Drop;
            let (right, wrong) = if drops { (XDP_DROP, XDP_PASS) } else { (XDP_PASS, XDP_DROP) };
            assert_eq!(judged(right).unwrap(), counted);
            assert!(matches!(judged(wrong), Err(Error::Judgement { counted: Some(_), .. })));
        }
        let nothing = verdict(XDP_PASS, &counters(None), &counters(None));
        assert!(matches!(nothing, Err(Error::Judgement { action: XDP_PASS, counted: None })));
    }
}
