//! The only module that knows aya: loads and attaches the program, keeps its maps.

use jiff::Timestamp;

use crate::{clock::Now, ledger::Op, net::IpNet};

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
    /// Its end by the wall clock; `None`: permanent.
    pub until: Option<Timestamp>,
    /// What it dropped.
    pub hits: Hits,
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

    /// Everything that is held.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn held(&mut self) -> anyhow::Result<Vec<Held>>;

    /// Replaces the allow list; its prefixes are never dropped.
    ///
    /// # Errors
    /// If the maps cannot be written.
    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()>;
}
