//! `status`: everything at a glance.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{alarm::Alarm, protect::Group, source::Counters, store::Order};

/// `status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`](super::SCHEMA).
    pub schema: u32,
    /// Of the agent.
    pub version: String,
    /// Of the agent.
    pub pid: u32,
    /// When it started.
    pub since: Timestamp,
    /// Counts, and passes.
    pub dry_run: bool,
    /// What is wrong, the worst first.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// What an operator should know, though nothing is wrong.
    pub warnings: Vec<String>,
    /// A start on trial that is not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// What operators have ordered at run time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<Order>,
    /// Where the program is attached.
    pub interfaces: Vec<Interface>,
    /// Whom no log line bans, and why.
    #[serde(default)]
    pub protected: Vec<Group>,
    /// Fill of the maps.
    pub bans: Fill,
    /// Packets by verdict, in the program's order.
    pub verdicts: Vec<Verdict>,
    /// The jails, by name.
    pub jails: Vec<JailStatus>,
    /// Where lines come from.
    pub sources: Vec<SourceStatus>,
    /// `ok`, or what is wrong with the store.
    pub store: String,
    /// From the moment a line was read to the moment the kernel had its ban.
    pub log_to_drop: Latency,
    /// What has held everything else up longest, since the agent started.
    #[serde(default)]
    pub longest_hold: Hold,
    /// How long a jail's ban waited for its turn at most, since its line was read, in seconds.
    #[serde(default)]
    pub longest_wait: f64,
    /// Those who listen to events, and what they missed.
    pub events: Events,
    /// The hooks, by name.
    pub hooks: Vec<HookStatus>,
}

/// A start on trial (`run --grace`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Trial {
    /// It enforces until then, unless it is confirmed.
    Running {
        /// Its end.
        until: Timestamp,
    },
    /// It was not confirmed: nothing is enforced.
    Lapsed {
        /// Since then.
        since: Timestamp,
    },
}

/// One attached interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native`, `generic`, `missing` where there is no such interface, or `detached` where the
    /// program does not run.
    pub mode: String,
}

/// One file, socket or journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its path, address or matches.
    pub origin: String,
    /// What happened to it.
    #[serde(flatten)]
    pub counters: Counters,
}

/// How full the maps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// Banned IPv4 addresses and prefixes.
    pub v4: usize,
    /// Banned IPv6 addresses and prefixes.
    pub v6: usize,
    /// Capacity per family.
    pub max: u32,
}

/// One verdict's counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name.
    pub name: String,
    /// Packets, all CPUs.
    pub packets: u64,
    /// Bytes, all CPUs.
    pub bytes: u64,
}

/// One jail's line of `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JailStatus {
    /// Its name.
    pub name: String,
    /// What it reads.
    pub sources: Vec<String>,
    /// Lines read.
    pub lines: u64,
    /// Lines that were failures.
    pub matched: u64,
    /// Failures of addresses that are never banned.
    pub ignored: u64,
    /// Addresses under observation.
    pub failed: u64,
    /// Bans that it holds now.
    pub banned: u64,
    /// Bans that it made since the agent started.
    pub total: u64,
    /// Why it bans no address, although it goes on counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// Bans that it did not make since the agent started, because it is disabled or runs dry.
    #[serde(default, skip_serializing_if = "is_none")]
    pub withheld: u64,
    /// What is run besides.
    #[serde(default)]
    pub actions: Vec<ActionStatus>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

/// A jail that its breaker has stopped, until `resume`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// What tripped it.
    pub reason: String,
    /// Bans that it did not make since.
    pub withheld: u64,
}

/// An action of a jail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionStatus {
    /// Its name.
    pub name: String,
    /// Commands that ended well since the agent started.
    pub done: u64,
    /// Commands that failed or took too long.
    pub failed: u64,
    /// What it was not told because too much waited.
    pub dropped: u64,
    /// Why its last command failed, escaped; `None` if it did not.
    pub error: Option<String>,
}

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

/// How long the engine was held by one thing, while everything else waited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// In seconds.
    pub seconds: f64,
    /// By what: a verb, `offences`, or a task of the engine's own.
    pub by: String,
}

/// Events since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// How many there were.
    pub told: u64,
    /// By kind of listener: those that it did not get.
    pub lost: BTreeMap<String, u64>,
    /// Sampled drops that were lost before a listener could be told.
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
