//! What the CLI asks: one verb, with values that were parsed where they were written.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Axis;
use crate::{
    net::Ports,
    store::{Kind, Search, import::Former},
};

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
    List(Choice),
    /// Why an address is banned.
    Show {
        /// An address or a prefix.
        address: IpNet,
    },
    /// Bans by hand.
    Ban {
        /// Whom.
        #[serde(with = "words")]
        targets: Vec<IpNet>,
        /// How long; `None`: the jail's bantime, or for ever.
        duration: Option<Term>,
        /// In the name of this jail instead of `manual`.
        jail: Option<String>,
        /// Its ports; empty: all traffic.
        ports: Ports,
        /// Kept as evidence.
        reason: Option<String>,
        /// Also what the never-ban list protects.
        force: bool,
    },
    /// Ends bans.
    Unban {
        /// Whom.
        #[serde(with = "words")]
        targets: Vec<IpNet>,
        /// Everybody.
        all: bool,
        /// Only this jail's claims.
        jail: Option<String>,
        /// Kept on record.
        #[serde(default)]
        reason: Option<String>,
    },
    /// What was done.
    History(Search),
    /// How often what was banned.
    Stats {
        /// By what.
        by: Axis,
        /// Bans since then.
        since: Timestamp,
        /// At most so many names.
        limit: usize,
    },
    /// Takes over what fail2ban remembers.
    Import {
        /// Read from its database. The core takes all `bans` for new: what is on record already is taken
        /// off at the socket's end.
        formers: Vec<Former>,
    },
    /// An order at run time.
    Steer(Steer),
    /// Reads the configuration again.
    Reload,
    /// Lets jails ban again that their breaker has stopped.
    Resume {
        /// Only this one.
        jail: Option<String>,
    },
    /// Ends a trial: the agent goes on enforcing, or does so again.
    Confirm {
        /// Only on a new trial, as long as this.
        again: Option<Duration>,
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

/// Which bans are told, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Only those that this jail, or `manual`, holds.
    pub jail: Option<String>,
    /// At most so many, those that end first.
    pub limit: Option<usize>,
    /// Only those inside this prefix, itself included.
    #[serde(default)]
    pub within: Option<IpNet>,
    /// Only those of this country, by its ISO code.
    #[serde(default)]
    pub country: Option<String>,
}

/// An order at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steer {
    /// What is ordered.
    pub kind: Kind,
    /// Of which jail, or of which address or network.
    pub name: String,
    /// Ordered, or taken back; of a jail every order is.
    pub on: bool,
    /// How long; `None`: until it is taken back.
    pub duration: Option<Duration>,
    /// Why.
    pub reason: Option<String>,
}

/// How long a ban by hand lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Term {
    /// It does not end.
    Forever,
    /// As long as this.
    For(Duration),
}

impl Request {
    /// The verb.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Request::Status { .. } => "status",
            Request::List(_) => "list",
            Request::Show { .. } => "show",
            Request::Ban { .. } => "ban",
            Request::Unban { .. } => "unban",
            Request::History(_) => "history",
            Request::Stats { .. } => "stats",
            Request::Import { .. } => "import",
            Request::Steer(steer) if steer.kind == Kind::Allow => "allow",
            Request::Steer(_) => "jail",
            Request::Reload => "reload",
            Request::Resume { .. } => "resume",
            Request::Confirm { .. } => "confirm",
            Request::Watch { .. } => "watch",
            Request::Drift => "doctor",
            Request::Detach => "detach",
        }
    }

    /// Whether it changes anything: only root and the operators may.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Request::Status { .. }
                | Request::List(_)
                | Request::Show { .. }
                | Request::History(_)
                | Request::Stats { .. }
                | Request::Watch { .. }
                | Request::Drift
        )
    }
}

/// Prefixes as one text, a blank between them: of a million of them JSON would make a million values
/// before the first is read. A list of texts is read as well.
mod words {
    use std::fmt::{self, Write as _};

    use serde::{
        Deserializer, Serializer,
        de::{Error, SeqAccess, Visitor},
    };

    use crate::net::{IpNet, parse_prefix};

    /// What the text of one takes, about.
    const WORD: usize = 16;

    pub(super) fn serialize<S: Serializer>(targets: &[IpNet], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(targets.len() * WORD);
        for target in targets {
            if !text.is_empty() {
                text.push(' ');
            }
            let host = target.prefix_len() == target.max_prefix_len();
            // nothing fails that writes into a text
            let _ = match host {
                true => write!(text, "{}", target.addr()),
                false => write!(text, "{target}"),
            };
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        from.deserialize_any(Words)
    }

    struct Words;

    impl<'de> Visitor<'de> for Words {
        type Value = Vec<IpNet>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("prefixes with blanks between them, or a list of prefixes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<IpNet>, E> {
            let mut targets = Vec::with_capacity(text.len() / WORD);
            for word in text.split_ascii_whitespace() {
                targets.push(parse_prefix(word).map_err(E::custom)?);
            }
            Ok(targets)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<IpNet>, A::Error> {
            let mut targets = Vec::new();
            while let Some(target) = list.next_element()? {
                targets.push(target);
            }
            Ok(targets)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_words_or_a_list() {
        let targets = ["192.0.2.1/32", "198.51.100.0/24", "2001:db8::1/128", "::/0"];
        let targets = targets.map(|text| text.parse().unwrap()).to_vec();
        let request = Request::Unban { targets, all: false, jail: None, reason: None };
        let text = serde_json::to_string(&request).unwrap();
        assert!(text.contains("\"192.0.2.1 198.51.100.0/24 2001:db8::1 ::/0\""), "{text}");
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        let list = "[\"192.0.2.1/32\",\"198.51.100.0/24\",\"2001:db8::1/128\",\"::/0\"]";
        let text = text.replace("\"192.0.2.1 198.51.100.0/24 2001:db8::1 ::/0\"", list);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        let odd = text.replace("::/0", "example.org");
        assert!(serde_json::from_str::<Request>(&odd).is_err());
    }
}
