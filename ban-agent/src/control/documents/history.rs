//! `history` and `stats`: what was done, by whom, and how often.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Shown, escape},
    store::{self, Asker},
};

/// `history`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// [`SCHEMA`](super::SCHEMA).
    pub schema: u32,
    /// What was done, the newest last.
    pub deeds: Vec<Deed>,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deed {
    /// When.
    pub at: Timestamp,
    /// What: `ban`, `extend`, `unban`, `allowed`, `evicted`, or an operator's verb.
    pub what: String,
    /// To whom, as it is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// In whose name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub holder: String,
    /// Until when; `None`: for ever, or it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Failures that led to it; 0: not by failures.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Why, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asked for it; `None`: a log line, or the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Asker>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// For people: what others wrote is inert from here on.
impl From<store::Deed> for Deed {
    fn from(deed: store::Deed) -> Deed {
        let store::Deed { at, what, prefix, holder, until, failures, reason, by } = deed;
        let inert = |text: String| escape(text.as_bytes());
        let by = by.map(|by| {
            let mut by = Asker::clone(&by);
            by.origin.tty = by.origin.tty.map(inert);
            by.origin.unit = by.origin.unit.map(inert);
            by
        });
        Deed {
            at,
            what,
            address: prefix.map(|prefix| Shown(prefix).to_string()),
            holder: inert(holder),
            until,
            failures,
            reason: reason.map(inert),
            by,
        }
    }
}

/// `stats`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// [`SCHEMA`](super::SCHEMA).
    pub schema: u32,
    /// Bans since then were counted.
    pub since: Timestamp,
    /// By what.
    pub by: Axis,
    /// All bans that were counted.
    pub bans: u64,
    /// Failures that led to them.
    pub failures: u64,
    /// How many names there are.
    pub total: u64,
    /// Those with most bans first.
    pub rows: Vec<Row>,
}

/// How often one was banned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Whose bans, escaped; `unknown` where that is not known.
    pub name: String,
    /// Bans.
    pub bans: u64,
    /// Failures that led to them.
    pub failures: u64,
}

/// By what bans are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Each address or network that was banned
    Address,
    /// Each /24, or IPv6 /48
    Prefix,
    /// Each jail
    Jail,
    /// Each country, by the GeoIP database
    Country,
    /// Each autonomous system, by the GeoIP database
    Asn,
    /// Each user name that was tried last before the last ban of an address
    User,
    /// Each path that was asked for last before the last ban of an address
    Path,
}
