//! `list`: the live bans.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};

use crate::{
    alarm::Alarm,
    clock::{Boot, Now},
    dataplane::Hits,
    event::{Place, escape},
    ledger,
    net::{IpNet, Ports},
    store::Fact,
};

/// `list`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// [`SCHEMA`](super::SCHEMA).
    pub schema: u32,
    /// How many there are, whatever the limit.
    #[serde(default)]
    pub total: u64,
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
    /// When it began, as far as the store remembers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Failures that led to it, of the holder that banned last.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it is, as far as the GeoIP database knows.
    #[serde(flatten)]
    pub place: Place,
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

impl Held {
    /// The last claim's end.
    fn until(&self) -> Option<Timestamp> {
        let until = self.claims.iter().map(|(claim, _)| claim.until).max();
        self.now.wall_of(until.unwrap_or(Boot::NEVER))
    }

    /// Its ports, if no claim is on all traffic.
    fn ports(&self) -> Ports {
        let claims = || self.claims.iter().map(|(claim, _)| claim);
        if claims().any(|claim| claim.ports.is_empty()) {
            return Ports::new();
        }
        let mut ports: Ports = claims().flat_map(|claim| claim.ports.iter().copied()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// As a [`Ban`]: there may be a million to write, and a document of each would cost more than its text.
impl Serialize for Held {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Held { prefix, claims, hits, now } = self;
        let mut ban = to.serialize_struct("Ban", 8)?;
        ban.serialize_field("address", &prefix.addr())?;
        ban.serialize_field("prefix", &prefix.prefix_len())?;
        ban.serialize_field("family", &if matches!(prefix, IpNet::V4(_)) { 4 } else { 6 })?;
        ban.serialize_field("holders", &Holders(claims, *now))?;
        ban.serialize_field("until", &self.until())?;
        ban.serialize_field("packets", &hits.packets)?;
        ban.serialize_field("bytes", &hits.bytes)?;
        ban.serialize_field("ports", &self.ports())?;
        ban.end()
    }
}

/// As [`Claim`]s.
struct Holders<'h>(&'h [(ledger::Claim, u32)], Now);

impl Serialize for Holders<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|(claim, extended)| HeldClaim {
            jail: Jail(&claim.holder),
            until: self.1.wall_of(claim.until),
            extended: *extended,
        }))
    }
}

/// As a [`Claim`].
#[derive(Serialize)]
struct HeldClaim<'h> {
    jail: Jail<'h>,
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "is_zero")]
    extended: u32,
}

/// By its name.
struct Jail<'h>(&'h ledger::Holder);

impl Serialize for Jail<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self.0)
    }
}

impl From<Held> for Ban {
    fn from(held: Held) -> Ban {
        let (until, ports) = (held.until(), held.ports());
        let Held { prefix, claims, hits, now } = held;
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
            until,
            packets: hits.packets,
            bytes: hits.bytes,
            ports,
            since: None,
            failures: 0,
            reason: None,
            place: Place::default(),
        }
    }
}

impl Ban {
    /// What is banned.
    ///
    /// # Errors
    /// If the agent is of another version, and says what is no prefix.
    pub fn net(&self) -> Result<IpNet, String> {
        let address = self.address.parse().map_err(|error| format!("{}: {error}", self.address))?;
        IpNet::new(address, self.prefix).map_err(|error| format!("{}: {error}", self.address))
    }

    /// Adds what the store remembers of it: of those who hold it now, the first that began and the
    /// last that said why.
    pub(in crate::control) fn recall(&mut self, facts: &[Fact]) {
        let holds = |fact: &&Fact| {
            let holder = fact.holder.to_string();
            self.holders.iter().any(|claim| claim.jail == holder)
        };
        let held: Vec<&Fact> = facts.iter().filter(holds).collect();
        self.since = held.iter().map(|fact| fact.at).min();
        if let Some(last) = held.iter().max_by_key(|fact| fact.at) {
            self.failures = last.failures;
            self.reason = last.reason.as_ref().map(|reason| escape(reason.as_bytes()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ledger::Holder, net::parse_ports};

    #[test]
    fn what_is_held_is_written_as_its_document() {
        let now = Now::read();
        let claim = |holder, until, ports: &str| {
            let ports = if ports.is_empty() { Ports::new() } else { parse_ports(ports).unwrap() };
            let prefix = "192.0.2.1/32".parse().unwrap();
            ledger::Claim { prefix, holder, until, ports, derived: false }
        };
        let jail = || Holder::named("a \"b\"");
        let soon = now.boot.plus(5000);
        for (prefix, claims) in [
            ("192.0.2.1/32", vec![(claim(Holder::Manual, Boot::NEVER, ""), 0)]),
            ("2001:db8::/64", vec![(claim(jail(), soon, "tcp/22"), 3)]),
            (
                "198.51.100.0/24",
                vec![(claim(jail(), soon, "tcp/22"), 0), (claim(Holder::Manual, soon, ""), 0)],
            ),
        ] {
            let hits = Hits { packets: 7, bytes: 420 };
            let held = Held { prefix: prefix.parse().unwrap(), claims, hits, now };
            let text = serde_json::to_string(&held).unwrap();
            assert_eq!(text, serde_json::to_string(&Ban::from(held)).unwrap());
        }
    }
}
