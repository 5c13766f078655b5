//! Counts the failures of an address and says when it has to be banned. Pure: `now` is an
//! argument.

mod breaker;
mod count;
mod distinct;
mod escalate;
mod evidence;
mod ignore;
mod offence;
mod offenders;
mod sketch;
#[cfg(test)]
mod tests;
mod track;
mod users;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    filter,
    net::{IpNet, Ports, Translators},
};

pub use self::{
    breaker::{Breaker, Limits, Trip},
    count::Count,
    escalate::Formula,
    ignore::{BadIgnored, IgnoreCache, IgnoreCommand, Ignored, Lookup},
    offence::{ADDRESS, Decision, Jail, Named, Offence, Stats},
    offenders::{Offenders, REMEMBERED, Record},
};

/// What a jail counts and how it bans, as the configuration resolved it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Its name: holder of its claims.
    pub name: Arc<str>,
    /// What counts as a failure.
    pub filter: Arc<filter::Spec>,
    /// Failures within `findtime`, by log time, at which the address is banned; at least 1. `None`:
    /// no number of them alone is too many.
    pub maxretry: Option<u32>,
    /// Different values of these fields within `findtime` at which it is banned as well.
    pub distinct: BTreeMap<Arc<str>, u32>,
    /// The field that failures are counted by in place of the address: when there are too many, the
    /// addresses behind them are banned. `None`: by address.
    pub count_by: Option<Arc<str>>,
    /// The window.
    pub findtime: Duration,
    /// How long; `None`: permanent.
    pub bantime: Option<Duration>,
    /// Longer bans for those who come again; `None`: always `bantime`.
    pub increment: Option<Increment>,
    /// Ports of the ban; empty: all traffic of the source.
    pub ports: Ports,
    /// Never counted, never banned by this jail.
    pub ignoreip: Vec<IpNet>,
    /// The same, by name or in files: looked up while the jail runs.
    pub lookup: Lookup,
    /// Through whom what it reads came: never banned by this jail.
    pub proxies: Vec<IpNet>,
    /// Whether it bans; one that does not tells its actions alone.
    pub bans: bool,
    /// Asked of each failure before it is counted.
    pub ignorecommand: Option<IgnoreCommand>,
    /// Prefix length that an IPv4 offender is counted and banned by: 32 is the address.
    pub prefix_v4: u8,
    /// Prefix length that an IPv6 offender is counted and banned by: 64 is what one host owns.
    pub prefix_v6: u8,
    /// IPv6 addresses that stand for something else: neither of the two lengths holds for them.
    pub translators: Translators,
    /// Evidence lines kept per address.
    pub maxmatches: usize,
    /// Addresses tracked at once; beyond it those who came seldom yield to those who came more often.
    pub max_tracked: usize,
    /// Bans networks whose members are banned; `None`: never.
    pub widen: Option<Widen>,
    /// Extends bans that are still being hit; `None`: never.
    pub extend: Option<Extend>,
    /// Beyond these the jail stops banning until it is resumed.
    pub limits: Limits,
}

/// `bantime.increment` and its family, as in fail2ban.
#[derive(Clone, Debug, PartialEq)]
pub struct Increment {
    /// `bantime.factor`.
    pub factor: f64,
    /// `bantime.multipliers`; empty: `bantime.formula`, or `2^count`.
    pub multipliers: Vec<f64>,
    /// `bantime.formula`, in seconds; not asked where there are multipliers.
    pub formula: Option<Formula>,
    /// `bantime.maxtime`.
    pub maxtime: Option<Duration>,
    /// `bantime.rndtime`.
    pub rndtime: Duration,
    /// `bantime.overalljails`: count the bans of all jails.
    pub overalljails: bool,
}

/// When a ban that would end is extended by its `bantime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extend {
    /// Packets that it dropped in the last quarter of its time; at least 1.
    pub hits: u64,
    /// From its beginning on it lasts no longer than this.
    pub maxtime: Duration,
}

/// When the bans of its members become the ban of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widen {
    /// How many banned members it takes; at least 2.
    pub members: usize,
    /// Lengths that IPv4 bans are widened to, the longest first: `[24]`.
    pub v4: Vec<u8>,
    /// Lengths that IPv6 bans are widened to, the longest first: `[64, 48]`.
    pub v6: Vec<u8>,
    /// IPv6 addresses that are widened as the IPv4 addresses that they stand for, or not at all.
    pub translators: Translators,
}

/// Returns a jail without extras.
#[cfg(any(test, feature = "test-util"))]
#[must_use]
pub fn rules(maxretry: u32, findtime: u64) -> Rules {
    Rules {
        name: "test".into(),
        filter: Arc::new(filter::Spec::default()),
        maxretry: Some(maxretry),
        distinct: BTreeMap::new(),
        count_by: None,
        findtime: Duration::from_secs(findtime),
        bantime: Some(Duration::from_secs(600)),
        increment: None,
        ports: Vec::new(),
        ignoreip: vec![IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8))],
        prefix_v4: 32,
        prefix_v6: 128,
        translators: Translators::default(),
        maxmatches: 5,
        max_tracked: 1000,
        lookup: Lookup::default(),
        proxies: Vec::new(),
        bans: true,
        ignorecommand: None,
        widen: None,
        extend: None,
        limits: Limits::default(),
    }
}
