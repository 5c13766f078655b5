//! `list`: the live bans.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{alarm::Alarm, net::Ports};

/// `list`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// [`SCHEMA`](super::SCHEMA).
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
    pub ports: Ports,
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
