//! `list`: the live bans.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    alarm::Alarm,
    clock::{Boot, Now},
    dataplane::Hits,
    ledger,
    net::{IpNet, Ports},
};

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

/// A live ban as the core hands it out: cheap to make, and written as a [`Ban`] elsewhere.
#[derive(Clone, Debug)]
pub struct Held {
    /// What is banned.
    pub prefix: IpNet,
    /// Its claims, each with how often it was extended.
    pub claims: Vec<(ledger::Claim, u32)>,
    /// What it dropped.
    pub hits: Hits,
    /// When that was so.
    pub now: Now,
}

impl From<Held> for Ban {
    fn from(held: Held) -> Ban {
        let Held { prefix, claims, hits, now } = held;
        let mut ports = Ports::new();
        if claims.iter().all(|(claim, _)| !claim.ports.is_empty()) {
            ports = claims.iter().flat_map(|(claim, _)| claim.ports.iter().copied()).collect();
            ports.sort_unstable();
            ports.dedup();
        }
        let until = claims.iter().map(|(claim, _)| claim.until).max().unwrap_or(Boot::NEVER);
        Ban {
            address: prefix.addr().to_string(),
            prefix: prefix.prefix_len(),
            family: if matches!(prefix, IpNet::V4(_)) { 4 } else { 6 },
            holders: claims
                .into_iter()
                .map(|(claim, extended)| Claim {
                    jail: claim.holder.to_string(),
                    until: now.wall_of(claim.until),
                    extended,
                })
                .collect(),
            until: now.wall_of(until),
            packets: hits.packets,
            bytes: hits.bytes,
            ports,
        }
    }
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
