//! The unix control socket: requests of the CLI, answered by the daemon.
//!
//! One request and one answer a connection, each a line of JSON; after the answer to a watch there
//! is one line for each event. The answers are the documents that `-o json` prints: their field
//! names are an interface.

mod access;
mod client;
mod conversation;
mod limits;
mod listeners;
mod server;
mod watch;

pub use access::Access;
pub use client::{CallError, Watch, call, call_within, watch};
pub use conversation::{Asked, Call, Page, Queues, Roll, Rolled};
use ipnet::IpNet;
use jiff::Timestamp;
pub use listeners::{Events, HookStatus, Latency};
use serde::{Deserialize, Serialize};
pub use server::{Server, ServerError};

use crate::{
    alarm::Alarm,
    event::escape,
    protect::Group,
    source::Counters,
    store::{self, import::Former},
};

/// Longest request; a block list of a million prefixes fits. One that is longer than
/// [`MAX_QUESTION`] is taken at a time, whoever sends it.
pub const MAX_REQUEST: u64 = 64 << 20;

/// Longest request of those who may only read.
pub const MAX_QUESTION: u64 = 64 << 10;

/// Version of the documents.
pub const SCHEMA: u32 = 1;

/// What the CLI asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Request {
    /// Everything at a glance, or one jail.
    Status {
        /// Only this jail.
        jail: Option<String>,
    },
    /// The live bans.
    List {
        /// Only those that this jail holds.
        jail: Option<String>,
        /// At most so many.
        limit: Option<usize>,
    },
    /// Why an address is banned.
    Show {
        /// An address or a prefix.
        address: IpNet,
    },
    /// Bans by hand.
    Ban {
        /// Whom.
        targets: Vec<IpNet>,
        /// How long; `None`: the jail's bantime, or for ever.
        duration: Option<Term>,
        /// In the name of this jail instead of `manual`.
        jail: Option<String>,
        /// Rules like `tcp/22`; empty: all traffic.
        ports: Vec<String>,
        /// Kept as evidence.
        reason: Option<String>,
        /// Also what the never-ban list protects.
        force: bool,
    },
    /// Ends bans.
    Unban {
        /// Whom.
        targets: Vec<IpNet>,
        /// Everybody.
        all: bool,
        /// Only this jail's claims.
        jail: Option<String>,
    },
    /// Takes over what fail2ban remembers.
    Import {
        /// Read from its database. The core takes all `bans` for new: what is on record already is taken
        /// off at the socket's end.
        formers: Vec<Former>,
    },
    /// Reads the configuration again.
    Reload,
    /// Lets jails ban again that their breaker has stopped.
    Resume {
        /// Only this one.
        jail: Option<String>,
    },
    /// Ends a trial: the agent goes on enforcing, or does so again.
    Confirm {
        /// Only on a new trial of so many milliseconds.
        again: Option<u64>,
    },
    /// Events from now on: an answer, then a document a line until either side leaves.
    Watch {
        /// Each failure as well.
        failures: bool,
        /// Sampled dropped packets as well.
        drops: bool,
    },
    /// Compares the ledger with the kernel's maps.
    Drift,
    /// Takes the program off the interfaces, removes the pins, and ends the agent.
    Detach,
}

/// How long a ban by hand lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Term {
    /// It does not end.
    Forever,
    /// Milliseconds.
    Millis(u64),
}

impl Request {
    /// Whether it changes anything: only root and the operators may.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Request::Status { .. }
                | Request::List { .. }
                | Request::Show { .. }
                | Request::Watch { .. }
                | Request::Drift
        )
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The document for `-o json`.
    Done(Document),
    /// Why not.
    Error(Refusal),
}

/// A request that could not be served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The exit code of the CLI.
    pub code: u8,
    /// The cause.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

/// The documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Document {
    /// Answers [`Request::Status`].
    Status(Box<Status>),
    /// Answers [`Request::List`].
    List(List),
    /// Answers [`Request::Show`].
    Show(Show),
    /// Answers [`Request::Ban`] and [`Request::Unban`].
    Changes(Changes),
    /// Answers [`Request::Drift`].
    Drift(Drift),
    /// Answers the others.
    Text(Text),
}

/// `status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
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
    /// A start on trial that nobody has confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
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
    /// Nobody confirmed: nothing is enforced.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Why it bans nobody, although it goes on counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// What is run besides.
    #[serde(default)]
    pub actions: Vec<ActionStatus>,
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

/// `list`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// [`SCHEMA`].
    pub schema: u32,
    /// In the order of their end, permanent ones last.
    pub bans: Vec<Ban>,
    /// As in `status`.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
}

/// One live ban.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ban {
    /// The network address.
    pub address: String,
    /// Its prefix length.
    pub prefix: u8,
    /// 4 or 6.
    pub family: u8,
    /// Who claims it.
    pub holders: Vec<Claim>,
    /// The last claim's end; `None`: permanent.
    pub until: Option<Timestamp>,
    /// Dropped.
    pub packets: u64,
    /// Dropped.
    pub bytes: u64,
    /// Its ports; empty: all traffic.
    pub ports: Vec<String>,
}

/// One claim on a ban.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The holder.
    pub jail: String,
    /// Its end; `None`: permanent.
    pub until: Option<Timestamp>,
    /// How often it was extended, since the agent's start, because it was still being hit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub extended: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// `show`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was asked.
    pub address: String,
    /// Whether its packets are dropped.
    pub banned: bool,
    /// Why it cannot be banned, if so.
    pub protected: Option<String>,
    /// The jails that cannot ban it because they trust it as a proxy.
    #[serde(default)]
    pub trusted_by: Vec<String>,
    /// The bans that cover it, the longest prefix first.
    pub bans: Vec<Ban>,
    /// What each claim rests on.
    pub evidence: Vec<Evidence>,
    /// Bans of it that were recorded, this one too.
    pub history: u32,
}

/// What a claim rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The holder.
    pub jail: String,
    /// When it was banned.
    pub at: Timestamp,
    /// The prefix.
    pub prefix: IpNet,
    /// Failures counted.
    pub failures: u32,
    /// Given by hand.
    pub reason: Option<String>,
    /// The log lines, escaped.
    pub lines: Vec<String>,
}

/// For people: what an attacker wrote is inert from here on.
impl From<store::Evidence> for Evidence {
    fn from(evidence: store::Evidence) -> Evidence {
        Evidence {
            jail: evidence.holder.to_string(),
            at: evidence.at,
            prefix: evidence.prefix,
            failures: evidence.failures,
            reason: evidence.reason.map(|reason| escape(reason.as_bytes())),
            lines: evidence.lines.iter().map(|line| escape(line)).collect(),
        }
    }
}

/// What `ban` and `unban` changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// [`SCHEMA`].
    pub schema: u32,
    /// One for each target.
    pub changes: Vec<Change>,
    /// As in `status`.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// What keeps them from being final, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// A sentence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was done.
    pub message: String,
}

/// Differences between the ledger and the kernel's maps; all zero unless something else wrote
/// into the maps, or a step failed and is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Bans that the kernel does not hold, or holds with another end.
    pub missing: usize,
    /// Entries of the kernel that no claim explains.
    pub surplus: usize,
    /// Steps that failed and are being retried.
    pub pending: usize,
}
