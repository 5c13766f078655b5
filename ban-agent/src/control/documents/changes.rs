//! What `ban`, `unban` and `import` changed.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SCHEMA;
use crate::alarm::Alarm;

/// What `ban` and `unban` changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// [`SCHEMA`].
    pub schema: u32,
    /// One for each target; of a kind that is more than 10,000 times there, the first 10,000.
    pub changes: Vec<Change>,
    /// How many targets each result has.
    #[serde(default)]
    pub counts: BTreeMap<Outcome, u64>,
    /// As in `status`.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// What keeps them from being final, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl Changes {
    /// Of these targets.
    #[must_use]
    pub fn new(changes: Vec<Change>, alarms: Vec<Alarm>) -> Changes {
        let mut counts = BTreeMap::new();
        changes.iter().for_each(|change| *counts.entry(change.result).or_default() += 1);
        Changes { schema: SCHEMA, changes, counts, alarms, warning: None }
    }
}

/// What became of one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The prefix.
    pub prefix: IpNet,
    /// What happened.
    pub result: Outcome,
    /// Its end now; `None`: permanent, or not banned.
    pub until: Option<Timestamp>,
    /// Why not, or what still holds it.
    pub reason: Option<String>,
}

/// What happened to one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was not banned, and is.
    Banned,
    /// It was banned, and is for longer.
    Extended,
    /// It was banned like this already.
    Unchanged,
    /// It is protected.
    Refused,
    /// It was banned, and is not.
    Unbanned,
    /// One claim went, others still hold it.
    Held,
    /// It was not banned.
    Absent,
    /// The map has no room.
    Full,
}

impl Outcome {
    /// In the order in which people read them.
    pub const ALL: &[Outcome] = &[
        Outcome::Banned,
        Outcome::Extended,
        Outcome::Unbanned,
        Outcome::Held,
        Outcome::Unchanged,
        Outcome::Absent,
        Outcome::Refused,
        Outcome::Full,
    ];

    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Outcome::Banned => "banned",
            Outcome::Extended => "banned for longer",
            Outcome::Unchanged => "was banned already",
            Outcome::Refused => "not banned",
            Outcome::Unbanned => "unbanned",
            Outcome::Held => "still banned",
            Outcome::Absent => "was not banned",
            Outcome::Full => "not banned, the map is full",
        }
    }
}
