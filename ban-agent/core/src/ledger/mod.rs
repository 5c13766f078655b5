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

impl Holder {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn named(name: &str) -> Holder {
        if name == "manual" { Holder::Manual } else { Holder::Jail(name.into()) }
    }
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
    /// Returns the one form of equal claims: host bits clear, ports sorted.
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

/// A tick of the kernel, at most.
const TICK_MS: u64 = 10;

impl Enforced {
    /// Returns whether the kernel enforces what is `wanted` if it holds this, as far as it can tell
    /// ends apart: to a tick, and to the noise with which its clock is measured.
    #[must_use]
    pub fn agrees(&self, wanted: &Enforced) -> bool {
        let same = |held: Boot, wanted: Boot| match (held, wanted) {
            (Boot::NEVER, _) | (_, Boot::NEVER) => held == wanted,
            _ => held.0.abs_diff(wanted.0) <= 2 * TICK_MS,
        };
        same(self.all, wanted.all) && same(self.scoped, wanted.scoped) && self.ports == wanted.ports
    }

    /// Returns whether what the kernel holds ends later than what is `known`, by more than the tick
    /// that it is rounded to.
    #[must_use]
    pub fn outlasts(&self, known: &Enforced) -> bool {
        let later = |held: Boot, known: Boot| known != Boot::NEVER && held > known.plus(TICK_MS);
        later(self.all, known.all) || later(self.scoped, known.scoped)
    }
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
    /// Returns whose ban it changes.
    #[must_use]
    pub fn prefix(&self) -> IpNet {
        match self {
            Op::Set(prefix, _) | Op::Clear(prefix) => *prefix,
        }
    }
}
