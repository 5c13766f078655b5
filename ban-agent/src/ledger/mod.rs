//! Who claims which ban, and what the kernel has to hold for it. Pure: `now` is an argument.

use std::{fmt, sync::Arc};

use crate::{
    clock::Boot,
    net::{IpNet, Ports},
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
