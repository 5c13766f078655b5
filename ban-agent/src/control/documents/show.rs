//! `show`: why an address is banned.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Ban, Deed};
use crate::{event::escape, store};

/// `show`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// [`SCHEMA`](super::SCHEMA).
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
    /// What was done to it last, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deeds: Vec<Deed>,
    /// Bans of it that were recorded, this one too.
    pub history: u32,
    /// Of a prefix: what is banned inside it, those that end first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Ban>,
    /// Of a prefix: how many bans there are inside it.
    #[serde(default, skip_serializing_if = "is_none_inside")]
    pub inside: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none_inside(number: &u64) -> bool {
    *number == 0
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
