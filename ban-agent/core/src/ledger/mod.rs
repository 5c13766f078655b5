//! Who claims which ban, and what the kernel has to hold for it. Pure: `now` is an argument.

mod allow;
mod ban;
mod book;
mod hits;
mod order;
#[cfg(test)]
mod tests;
mod widen;

use std::{fmt, sync::Arc};

use crate::{
    clock::Boot,
    net::{IpNet, Ports},
};

pub use self::{
    allow::{Protected, Refusal},
    book::{Ban, Ledger},
    hits::{Looks, Watched},
};

/// Who holds a claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A jail, by name.
    Jail(Arc<str>),
    /// The operator, with `ban-agent ban`.
    Manual,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Jail(name) => f.write_str(name),
            Holder::Manual => f.write_str("manual"),
        }
    }
}

/// One holder's reason to ban a prefix. Identified by all but its end: a holder may claim some
/// ports of a prefix for a while and all of its traffic for another, and what follows from its claims
/// on members of a network is another claim than one on the network itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is banned.
    pub prefix: IpNet,
    /// By whom.
    pub holder: Holder,
    /// Until when; [`Boot::NEVER`]: permanent.
    pub until: Boot,
    /// On which ports; empty: all traffic.
    pub ports: Ports,
    /// Whether it follows from the holder's claims on members of the prefix, and ends with them.
    pub derived: bool,
}

impl Claim {
    /// The one form of equal claims: host bits clear, ports sorted.
    #[must_use]
    pub fn canonical(&self) -> Claim {
        let mut claim = Claim { prefix: self.prefix.trunc(), ..self.clone() };
        claim.ports.sort_unstable();
        claim.ports.dedup();
        claim
    }
}

/// What a claim has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The prefix was not banned, now it is.
    New,
    /// It was banned already, but not by this holder on these ports.
    Joined,
    /// The same claim now ends later.
    Extended,
    /// The same claim already lasts as long, until then.
    Unchanged(Boot),
    /// Its end is past.
    Over,
    /// It may not be banned.
    Refused(Refusal),
}

/// Why a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its time was up.
    Expired,
    /// Its holder, or the operator, let go.
    Released,
    /// The allow list covers it now.
    Allowed,
    /// It had to make room for another.
    Evicted,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Expired => "its time was up",
            Cause::Released => "it was lifted",
            Cause::Allowed => "it must not be banned any more",
            Cause::Evicted => "it made room for another",
        })
    }
}

/// A claim that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The claim.
    pub claim: Claim,
    /// Why.
    pub cause: Cause,
    /// Whether it was the last one: the prefix itself is banned no more.
    pub last: bool,
}

/// What has to happen because the ledger changed, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// For the kernel.
    pub ops: Vec<Op>,
    /// For the store, and for those who want to know.
    pub ended: Vec<Ended>,
}

/// What the kernel has to hold for one prefix: a pure function of its live claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// Latest end of the claims on all traffic; [`Boot`]`(0)` if there is none.
    pub all: Boot,
    /// Latest end of the claims that name ports; [`Boot`]`(0)` if there is none.
    pub scoped: Boot,
    /// Union of the ports of those claims, sorted.
    pub ports: Ports,
}

/// One step that brings the kernel in line with the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The prefix is banned like this from now on; replaces what was there, keeps its counters.
    Set(IpNet, Enforced),
    /// The prefix is not banned any more.
    Clear(IpNet),
}

impl Op {
    /// Whose ban it changes.
    #[must_use]
    pub fn prefix(&self) -> IpNet {
        match self {
            Op::Set(prefix, _) | Op::Clear(prefix) => *prefix,
        }
    }
}
