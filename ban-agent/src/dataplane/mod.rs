//! The only module that knows aya: loads and attaches the program, keeps its maps.
//!
//! Knows what the kernel has to hold ([`Op`]), never why. [`Xdp`] is the real thing; tests of other
//! stages have the same bookkeeping over tables in memory.

mod attach;
pub mod batch;
mod card;
mod clock;
#[cfg(test)]
mod double;
mod entry;
mod error;
mod gates;
mod guard;
mod hash;
mod heap;
mod hold;
pub mod interface;
mod link;
mod load;
mod mapped;
mod maps;
pub mod memory;
mod pins;
mod ports;
mod raw;
mod resize;
mod settings;
mod sys;
mod tables;
mod words;
mod xdp;

use std::net::IpAddr;

use ban_common::{Count, Verdict};
use jiff::Timestamp;

#[cfg(test)]
pub(crate) use self::double::{Double, Step, To, Wire};
pub use self::{
    card::Card,
    clock::JiffyClock,
    entry::protected,
    error::Error,
    heap::{few_arenas, give_back},
    hold::Hold,
    link::Place,
    load::{Loaded, PINNED, ProgramSize, release},
    pins::{Ahead, Pinned, check_bpffs, detach, detach_by_force},
    tables::Sweep,
    xdp::{Attached, Events, Options, Xdp},
};
use crate::{
    clock::Now,
    ledger::{Enforced, Op},
    net::IpNet,
};

/// Packets and bytes that a ban dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Packets.
    pub packets: u64,
    /// Bytes on the wire, from the Ethernet header on.
    pub bytes: u64,
}

/// A ban as it stands in the kernel's maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The prefix.
    pub prefix: IpNet,
    /// What the program enforces. Ends are exact to a tick of the kernel (1 to 10 ms), never
    /// early.
    pub enforced: Enforced,
    /// Its end by the wall clock; `None`: permanent.
    pub until: Option<Timestamp>,
    /// What it dropped.
    pub hits: Hits,
}

/// How an interface runs the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the driver; in the stack's entry where the driver refuses, with a warning.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the stack's entry.
    Generic,
}

/// A sampled drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The source.
    pub address: IpAddr,
    /// The interface that received it.
    pub ifindex: u32,
    /// Bytes, from the Ethernet header on.
    pub length: u32,
    /// IP protocol and destination port, if it has any.
    pub target: Option<(u8, u16)>,
    /// A dry run let it pass.
    pub dry_run: bool,
}

/// Counters of one interface, or of all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// By verdict, in the order of [`Verdict::ALL`].
    pub counts: Vec<(Verdict, Hits)>,
    /// Sampled events that found the ring full.
    pub events_lost: u64,
}

impl Verdicts {
    /// The counter of one verdict.
    #[must_use]
    pub fn of(&self, verdict: Verdict) -> Hits {
        let found = self.counts.iter().find(|(of, _)| *of == verdict);
        found.map_or_else(Hits::default, |(_, hits)| *hits)
    }
}

impl From<Count> for Hits {
    fn from(count: Count) -> Hits {
        Hits { packets: count.packets, bytes: count.bytes }
    }
}

/// Where bans are enforced: the real maps, or a model of them in tests.
pub trait Enforcer: Send {
    /// Applies `ops` in order, in as few system calls as it can.
    ///
    /// # Errors
    /// The first failure; earlier ops stay applied, and applying all of them again is harmless.
    fn apply(&mut self, ops: &[Op], now: Now) -> anyhow::Result<()>;

    /// Counters of these prefixes, in their order; zero where a prefix is not held.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn hits(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Hits>>;

    /// Shows `visit` everything that is held, and keeps nothing of it: there may be millions.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn each_held(&mut self, visit: &mut dyn FnMut(Held)) -> anyhow::Result<()>;

    /// Everything that is held.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn held(&mut self) -> anyhow::Result<Vec<Held>> {
        let mut held = Vec::new();
        self.each_held(&mut |ban| held.push(ban))?;
        Ok(held)
    }

    /// What is enforced for each of `prefixes`, in their order; `None` where anything is missing.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn holds(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Option<Enforced>>> {
        let mut found = vec![None; prefixes.len()];
        self.each_held(&mut |held| {
            let at = prefixes.iter().position(|prefix| *prefix == held.prefix);
            if let Some(slot) = at.and_then(|at| found.get_mut(at)) {
                *slot = Some(held.enforced);
            }
        })?;
        Ok(found)
    }

    /// About `count` more of what is held, whoever put it there.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn sweep(&mut self, sweep: &mut Sweep, _count: usize) -> anyhow::Result<Vec<IpNet>> {
        *sweep = Sweep::over();
        Ok(Vec::new())
    }

    /// Whether the allow list is exactly this one.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn allows(&mut self, _prefixes: &[IpNet]) -> anyhow::Result<bool> {
        Ok(true)
    }

    /// Replaces the allow list; its prefixes are never dropped.
    ///
    /// # Errors
    /// If the maps cannot be written.
    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()>;
}
