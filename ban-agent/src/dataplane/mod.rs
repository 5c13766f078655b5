//! The only module that knows aya: loads and attaches the program, keeps its maps.
//!
//! Knows what the kernel has to hold ([`crate::ledger::Op`]), never why. [`Xdp`] is the real thing; tests of other
//! stages have the same bookkeeping over tables in memory.

mod attach;
mod attachment;
pub mod batch;
mod bitmap;
mod clock;
#[cfg(test)]
mod double;
mod error;
mod events;
mod gates;
mod guard;
mod heap;
pub mod interface;
mod lifetime;
mod link;
mod load;
mod mapped;
mod maps;
pub mod memory;
mod pins;
mod plane;
mod ports;
mod raw;
mod resize;
mod select;
mod settings;
mod start;
mod sys;
mod tables;
mod xdp;

use std::net::IpAddr;

use ban_common::{Count, Verdict};
use jiff::Timestamp;

#[cfg(test)]
pub(crate) use self::double::{Double, Step, To, Wire};
pub use self::{
    attachment::Attached,
    clock::JiffyClock,
    error::Error,
    events::Events,
    heap::{few_arenas, give_back},
    lifetime::Lifetime,
    link::XdpMode,
    load::{Loaded, PINNED, ProgramSize, release},
    pins::{Ahead, Pinned, check_bpffs, detach, detach_by_force},
    plane::DataPlane,
    select::protected,
    tables::Sweep,
    xdp::{Options, Xdp},
};
use crate::{ledger::Enforced, net::IpNet};

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
    /// Returns the counter of one verdict.
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
