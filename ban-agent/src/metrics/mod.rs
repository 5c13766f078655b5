//! What Prometheus sees: a snapshot of the agent, as text, over HTTP.
//!
//! Nothing is kept up to date for it: without a reader it costs nothing. Labels are the operator's
//! words (jails, interfaces, paths), never what a log line says. It must not hold up the core: the
//! snapshot is small, the text is made elsewhere.

mod histogram;
mod serve;
mod text;

use std::collections::BTreeMap;

pub use self::{
    histogram::{BOUNDS, Histogram},
    serve::{Listen, Server, ServerError},
    text::text,
};
use crate::{control::Status, dataplane::Verdicts};

/// The agent at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// What `status` shows.
    pub status: Status,
    /// How many alarms stand, by name: all names.
    pub alarms: Vec<(&'static str, u64)>,
    /// Who holds how many live claims: IPv4, IPv6.
    pub held: Vec<(String, [usize; 2])>,
    /// Bans that were not made because none could make room.
    pub refused: u64,
    /// Bans that made room for others.
    pub evicted: u64,
    /// Counters by interface.
    pub interfaces: Vec<(String, Verdicts)>,
    /// Of each jail of `status`: times that an address had failed too often, and addresses forgotten
    /// because there were too many.
    pub offences: Vec<[u64; 2]>,
    /// The store keeps up.
    pub store_sound: bool,
    /// Bans that the kernel did not take yet.
    pub pending: usize,
    /// Bans since it started, by country; empty without a GeoIP database.
    pub countries: BTreeMap<String, u64>,
    /// From a line to its ban in the kernel.
    pub latency: Histogram,
    /// How long the engine is held by one thing.
    pub holds: Histogram,
    /// How long jails' bans waited for their turn.
    pub waits: Histogram,
}
