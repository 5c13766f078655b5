//! What Prometheus sees: a snapshot of the agent, as text, over HTTP.
//!
//! Nothing is kept up to date for it: without a reader it costs nothing. Labels are the operator's
//! words (jails, interfaces, paths), never what a log line says. It must not hold up the core: the
//! snapshot is small, the text is made elsewhere.

mod histogram;
mod serve;
mod text;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use self::{
    histogram::{BOUNDS, Histogram},
    serve::{Listen, Server, ServerError},
    text::text,
};
use crate::{dataplane::Verdicts, source};

/// The agent at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// When it started.
    pub started: Timestamp,
    /// It counts, and drops nothing.
    pub dry_run: bool,
    /// How many alarms stand, by name: all names.
    pub alarms: Vec<(&'static str, u64)>,
    /// Who holds how many live claims: IPv4, IPv6.
    pub held: Vec<(String, [usize; 2])>,
    /// Banned prefixes: IPv4, IPv6.
    pub bans: [usize; 2],
    /// How many fit, per family.
    pub capacity: u32,
    /// Bans that were not made because none could make room.
    pub refused: u64,
    /// Bans that made room for others.
    pub evicted: u64,
    /// Counters by interface.
    pub interfaces: Vec<(String, Verdicts)>,
    /// Counters by jail.
    pub jails: Vec<Jail>,
    /// Counters by source.
    pub sources: Vec<(String, source::Counters)>,
    /// The store keeps up.
    pub store_sound: bool,
    /// Bans that the kernel did not take yet.
    pub pending: usize,
    /// Events told since it started.
    pub events: u64,
    /// By kind of listener: the events that it did not get.
    pub events_lost: Vec<(&'static str, u64)>,
    /// Bans since it started, by country; empty without a GeoIP database.
    pub countries: BTreeMap<String, u64>,
    /// Hooks: name, messages that arrived, messages that did not.
    pub hooks: Vec<(String, u64, u64)>,
    /// From a line to its ban in the kernel.
    pub latency: Histogram,
}

/// One jail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jail {
    /// Its name.
    pub name: String,
    /// Lines read.
    pub lines: u64,
    /// Lines that were failures.
    pub matches: u64,
    /// Failures of addresses that it ignores.
    pub ignored: u64,
    /// Times that an address had failed too often.
    pub offences: u64,
    /// Bans that it made.
    pub bans: u64,
    /// Addresses under observation.
    pub watched: u64,
    /// Addresses forgotten because there were too many.
    pub forgotten: u64,
    /// Its breaker stopped it.
    pub stopped: bool,
    /// Its actions: name, commands that ended well, that failed, jobs that were dropped.
    pub actions: Vec<(String, [u64; 3])>,
}
