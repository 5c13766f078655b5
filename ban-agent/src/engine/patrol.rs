//! Sees that what enforces the ledger stays in place: the program on its interfaces and the pins
//! every second, the maps every minute. The maps part by part, so that a million bans hold nobody
//! up; what differs is written again.

use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::{
    clock::Now,
    dataplane::{self, Sweep},
    event::{Event, What},
    ledger::{Enforced, Op},
    net::IpNet,
};

/// How often the maps are compared with the ledger.
const EVERY: Duration = Duration::from_secs(60);
/// Bans that are compared at once: about a quarter of a millisecond.
const PART: usize = 256;
/// Between two parts.
const PAUSE: Duration = Duration::from_millis(4);

/// How far the round through the maps has come.
#[derive(Debug)]
pub(super) struct Patrol {
    stage: Stage,
    next: Instant,
    /// What this round has written again.
    mended: usize,
    /// Entries that did not agree with the ledger, since the start.
    pub(super) drifted: u64,
    /// rtnetlink told of links or addresses.
    pub(super) moved: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The ledger's bans behind this one are looked up in the maps.
    Ledger(Option<IpNet>),
    /// The maps are searched for what the ledger never had.
    Maps(Sweep),
}

impl Patrol {
    pub(super) fn new() -> Patrol {
        let stage = Stage::Ledger(None);
        Patrol { stage, next: Instant::now() + EVERY, mended: 0, drifted: 0, moved: false }
    }

    /// Returns when to take the next step.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Begins a round now.
    pub(super) fn hurry(&mut self) {
        (self.stage, self.next, self.moved) = (Stage::Ledger(None), Instant::now(), true);
    }
}

impl Engine {
    /// A look at interfaces and pins.
    pub(super) fn guard(&mut self) {
        let before = self.present();
        let changes = if std::mem::take(&mut self.patrol.moved) {
            self.xdp.check_interfaces()
        } else {
            self.xdp.look()
        };
        if matches!(changes, Err(dataplane::Error::Detached)) {
            return self.end_detached();
        }
        self.tell_interfaces(before, changes);
    }

    /// One step of the round.
    pub(super) fn patrol(&mut self, now: Now) {
        match self.patrol_part(now) {
            Ok(true) => self.patrol.next = Instant::now() + PAUSE,
            Ok(false) => self.end_round(),
            Err(error) => {
                log::error!("cannot compare the maps with the ledger: {error:#}");
                self.patrol.mended = 0;
                self.patrol.stage = Stage::Ledger(None);
                self.patrol.next = Instant::now() + EVERY;
            }
        }
    }

    /// `false`: it was the last one.
    fn patrol_part(&mut self, now: Now) -> anyhow::Result<bool> {
        match self.patrol.stage {
            Stage::Ledger(last) => {
                let wanted: Vec<(IpNet, Enforced)> = self
                    .ledger
                    .after(last)
                    .take(PART)
                    .map(|ban| (ban.prefix, ban.enforced()))
                    .collect();
                self.patrol.stage = match wanted.last() {
                    Some((last, _)) => Stage::Ledger(Some(*last)),
                    None => Stage::Maps(Sweep::default()),
                };
                self.compare(&wanted, now)?;
            }
            Stage::Maps(mut sweep) => {
                let held = self.xdp.sweep(&mut sweep, PART)?;
                let strays = held.into_iter().filter(|prefix| {
                    self.ledger.get(*prefix).is_none() && !self.pending.contains(prefix)
                });
                let ops: Vec<Op> = strays.map(Op::Clear).collect();
                self.patrol.mended += ops.len();
                self.enforce(&ops, now);
                self.patrol.stage = Stage::Maps(sweep);
                return Ok(!sweep.is_over());
            }
        }
        Ok(true)
    }

    fn compare(&mut self, wanted: &[(IpNet, Enforced)], now: Now) -> anyhow::Result<()> {
        let prefixes: Vec<IpNet> = wanted.iter().map(|(prefix, _)| *prefix).collect();
        let held = self.xdp.holds(&prefixes)?;
        // what waits for the kernel is known to differ
        let differs = |(prefix, enforced): &&(IpNet, Enforced), held: &Option<Enforced>| {
            !self.pending.contains(prefix)
                && !held.as_ref().is_some_and(|held| held.agrees(enforced))
        };
        let ops: Vec<Op> = wanted
            .iter()
            .zip(&held)
            .filter(|(wanted, held)| differs(wanted, held))
            .map(|((prefix, enforced), _)| Op::Set(*prefix, enforced.clone()))
            .collect();
        self.patrol.mended += ops.len();
        self.enforce(&ops, now);
        Ok(())
    }

    fn end_round(&mut self) {
        match self.xdp.allows(&self.ledger.never_dropped()) {
            Ok(true) => {}
            Ok(false) => {
                self.patrol.mended += 1;
                self.allow();
            }
            Err(error) => log::error!("cannot read the allow list of the maps: {error:#}"),
        }
        self.patrol.stage = Stage::Ledger(None);
        self.patrol.next = Instant::now() + EVERY;
        let mended = std::mem::take(&mut self.patrol.mended);
        if mended == 0 {
            return;
        }
        self.patrol.drifted += mended as u64;
        self.alarms.due = true;
        log::warn!(
            "{mended} entries of the maps were not what the ledger says, and are written again: does \
             something else write into the maps?"
        );
    }

    /// Logs what has changed at the interfaces, and publishes what came and went.
    pub(super) fn tell_interfaces(
        &mut self,
        before: Vec<(String, bool)>,
        changes: Result<Vec<String>, dataplane::Error>,
    ) {
        match changes {
            Ok(changes) => {
                self.alarms.due |= !changes.is_empty();
                changes.iter().for_each(|change| log::warn!("{change}"));
            }
            Err(error) => log::error!("cannot look after the interfaces: {error}"),
        }
        let after = self.present();
        let was = |name: &str| before.iter().any(|(other, there)| other == name && *there);
        let is = |name: &str| after.iter().any(|(other, there)| other == name && *there);
        let came = after.iter().map(|(name, _)| name).filter(|name| is(name) && !was(name));
        let went = before.iter().map(|(name, _)| name).filter(|name| was(name) && !is(name));
        let events = came
            .map(|name| What::InterfaceAttached { name: name.clone() })
            .chain(went.map(|name| What::InterfaceLost { name: name.clone() }));
        self.bus.publish(events.map(Event::now).collect());
    }

    /// Returns the interfaces, and whether each is there.
    pub(super) fn present(&self) -> Vec<(String, bool)> {
        let interfaces = self.xdp.interfaces().into_iter();
        interfaces.map(|attached| (attached.name.clone(), attached.ifindex != 0)).collect()
    }
}
