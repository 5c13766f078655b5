//! What `status` tells of those who listen, and of the way from a line to its ban.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How long lines took to become bans, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Bans measured.
    pub bans: u64,
    /// What half of them did not exceed, in seconds; `None`: none yet, or beyond measure.
    pub median: Option<f64>,
    /// What 99 % of them did not exceed.
    pub p99: Option<f64>,
}

/// Events since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// How many there were.
    pub told: u64,
    /// By kind of listener: those that it did not get.
    pub lost: BTreeMap<String, u64>,
    /// Sampled drops that were lost before anybody could be told.
    pub drops_lost: u64,
}

/// One hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// Its name.
    pub name: String,
    /// Messages that arrived.
    pub sent: u64,
    /// Messages that did not.
    pub failed: u64,
    /// Why the last one did not, if it did not.
    pub error: Option<String>,
}
