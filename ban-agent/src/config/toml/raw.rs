//! The words of the configuration as they stand in the files. Values are checked while they are
//! read, so that an error carries its place.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de};

pub(super) use super::listen::Hook;
use super::{
    listen::{Events, Geoip, Metrics},
    parse_duration,
    proxies::Proxies,
};
use crate::{
    filter,
    jail::{Formula, Ignored},
    net::{self, IpNet, PortRange, Ports, Proto, Translators},
};

/// All sections, merged or of one file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) agent: Agent,
    pub(super) metrics: Metrics,
    pub(super) events: Events,
    pub(super) hooks: BTreeMap<String, Hook>,
    pub(super) geoip: Geoip,
    pub(super) defaults: Jail,
    pub(super) words: BTreeMap<String, OneOrMany>,
    pub(super) filters: BTreeMap<String, Filter>,
    pub(super) jails: BTreeMap<String, Jail>,
    pub(super) actions: BTreeMap<String, Action>,
}

/// `[agent]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Agent {
    pub(super) interfaces: Option<Vec<String>>,
    pub(super) unprotected: Option<Vec<String>>,
    pub(super) mode: Option<Mode>,
    pub(super) state: Option<PathBuf>,
    pub(super) pins: Option<PathBuf>,
    pub(super) max_bans: Option<MaxBans>,
    pub(super) dry_run: Option<bool>,
    pub(super) allow: Option<Prefixes>,
    pub(super) nat64: Option<Nat64>,
    pub(super) protect: Option<Vec<ServerKind>>,
    pub(super) trusted_proxies: Option<Proxies>,
    pub(super) socket: Option<PathBuf>,
    pub(super) socket_group: Option<String>,
    pub(super) operators: Option<Vec<String>>,
    pub(super) fail2ban_log: Option<PathBuf>,
    pub(super) fail2ban: Option<PathBuf>,
    pub(super) fail2ban_only_tell: Option<bool>,
    pub(super) grace: Option<Bounded>,
    pub(super) max_actions: Option<Positive>,
    pub(super) dbpurgeage: Option<Bounded>,
    pub(super) unmatched_after: Option<Span>,
    pub(super) manual_bantime: Option<Span>,
}

/// Who else is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ServerKind {
    Resolvers,
    Ntp,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver; generic, with a warning, where the driver cannot.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack's entry: slower, works everywhere.
    Generic,
}

/// `[filters.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    pub(super) prefregex: Option<String>,
    pub(super) failregex: Option<OneOrMany>,
    pub(super) successregex: Option<OneOrMany>,
    pub(super) ignoreregex: Option<OneOrMany>,
    pub(super) datepattern: Option<OneOrMany>,
    pub(super) maxlines: Option<usize>,
    pub(super) logtimezone: Option<String>,
    pub(super) usedns: Option<bool>,
    /// Its service writes what clients sent as it came: a log of it is no evidence.
    pub(super) raw: Option<bool>,
    pub(super) format: Option<Format>,
    pub(super) address: Option<OneOrMany>,
    pub(super) time: Option<OneOrMany>,
    pub(super) fields: BTreeMap<String, String>,
    pub(super) r#where: Option<OneOrMore>,
    pub(super) unless: Option<OneOrMore>,
    /// Where its daemon logs, for `logpath = "auto"`: files, first choice first, and the journal.
    pub(super) logs: Option<OneOrMany>,
    pub(super) journalmatch: Option<OneOrMany>,
}

/// How the lines of a log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    #[default]
    Text,
    Json,
    Logfmt,
}

/// Conditions, or a list of such, of which one has to hold.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a table like { \"status\" = [401, 403] }, or a list of such"
)]
pub(super) enum OneOrMore {
    One(BTreeMap<String, Values>),
    More(Vec<BTreeMap<String, Values>>),
}

impl OneOrMore {
    pub(super) fn list(&self) -> Vec<filter::Conditions> {
        let one = |table: &BTreeMap<String, Values>| {
            table.iter().map(|(path, values)| (path.clone(), values.list())).collect()
        };
        match self {
            OneOrMore::One(table) => vec![one(table)],
            OneOrMore::More(list) => list.iter().map(one).collect(),
        }
    }
}

/// What a value may be.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, a number, true or false, or a list of such")]
pub(super) enum Values {
    One(Value),
    Many(Vec<Value>),
}

impl Values {
    fn list(&self) -> Vec<filter::Wanted> {
        match self {
            Values::One(value) => vec![value.wanted()],
            Values::Many(list) => list.iter().map(Value::wanted).collect(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Flag(bool),
    Number(i64),
    Fraction(f64),
    Text(String),
}

impl Value {
    fn wanted(&self) -> filter::Wanted {
        filter::Wanted::Exactly(match self {
            Value::Flag(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Fraction(number) => number.to_string(),
            Value::Text(text) => match text.strip_prefix('~') {
                Some(pattern) => return filter::Wanted::Matches(pattern.to_owned()),
                None => text.clone(),
            },
        })
    }
}

/// `[actions.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Action {
    pub(super) start: Option<String>,
    pub(super) stop: Option<String>,
    pub(super) reload: Option<String>,
    pub(super) check: Option<String>,
    pub(super) repair: Option<String>,
    pub(super) ban: Option<String>,
    pub(super) prolong: Option<String>,
    pub(super) unban: Option<String>,
    pub(super) flush: Option<String>,
    pub(super) inet6: Commands,
    pub(super) start_on_demand: Option<bool>,
    pub(super) timeout: Option<Span>,
    pub(super) norestored: Option<bool>,
    pub(super) repair_on_unban: Option<bool>,
}

/// `[actions.NAME.inet6]`: what is run for IPv6 addresses instead.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Commands {
    pub(super) start: Option<String>,
    pub(super) stop: Option<String>,
    pub(super) reload: Option<String>,
    pub(super) check: Option<String>,
    pub(super) repair: Option<String>,
    pub(super) ban: Option<String>,
    pub(super) prolong: Option<String>,
    pub(super) unban: Option<String>,
    pub(super) flush: Option<String>,
}

/// `[jails.NAME]` and `[defaults]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Jail {
    pub(super) enabled: Option<bool>,
    pub(super) filter: Option<String>,
    pub(super) logpath: Option<OneOrMany>,
    pub(super) journalmatch: Option<OneOrMany>,
    pub(super) syslog: Option<String>,
    pub(super) bans: Option<bool>,
    pub(super) raw_log: Option<bool>,
    pub(super) ban: Option<bool>,
    pub(super) maxretry: Option<Positive>,
    pub(super) distinct: Option<BTreeMap<String, Positive>>,
    pub(super) count_by: Option<String>,
    pub(super) findtime: Option<Bounded>,
    pub(super) bantime: Option<Span>,
    pub(super) port: Option<PortList>,
    pub(super) ignoreip: Option<IgnoreList>,
    pub(super) trusted_proxies: Option<Proxies>,
    pub(super) ignorecommand: Option<String>,
    pub(super) ignorecache: Option<IgnoreCache>,
    pub(super) ignoreregex: Option<OneOrMany>,
    pub(super) prefix_v4: Option<LengthV4>,
    pub(super) prefix_v6: Option<LengthV6>,
    pub(super) maxmatches: Option<usize>,
    pub(super) max_tracked: Option<Positive>,
    pub(super) widen_members: Option<Members>,
    pub(super) widen_v4: Option<Vec<LengthV4>>,
    pub(super) widen_v6: Option<Vec<LengthV6>>,
    pub(super) extend_hits: Option<Positive>,
    pub(super) extend_maxtime: Option<Bounded>,
    pub(super) max_bans_per_minute: Option<Positive>,
    pub(super) max_client_share: Option<Share>,
    pub(super) actions: Option<OneOrMany>,
    #[serde(rename = "bantime.increment")]
    pub(super) increment: Option<bool>,
    #[serde(rename = "bantime.factor")]
    pub(super) factor: Option<f64>,
    #[serde(rename = "bantime.multipliers")]
    pub(super) multipliers: Option<Vec<f64>>,
    #[serde(rename = "bantime.formula")]
    pub(super) formula: Option<BanFormula>,
    #[serde(rename = "bantime.maxtime")]
    pub(super) maxtime: Option<Bounded>,
    #[serde(rename = "bantime.rndtime")]
    pub(super) rndtime: Option<Bounded>,
    #[serde(rename = "bantime.overalljails")]
    pub(super) overalljails: Option<bool>,
}

/// A text or a list of texts; a text of several lines is a list, as in fail2ban.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn list(&self) -> Vec<String> {
        match self {
            // a blank at the end of a pattern is a part of it
            OneOrMany::One(text) if !text.contains('\n') => {
                if text.trim().is_empty() {
                    Vec::new()
                } else {
                    vec![text.clone()]
                }
            }
            OneOrMany::One(text) => text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(Into::into)
                .collect(),
            OneOrMany::Many(list) => list.clone(),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of seconds or a string like \"10m\"")]
enum NumberOrText {
    Number(i64),
    Text(String),
}

/// A duration; `None` inside: for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Option<Duration>);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match NumberOrText::deserialize(from)? {
            NumberOrText::Number(number) => number.to_string(),
            NumberOrText::Text(text) => text,
        };
        let span = parse_duration(&text).map_err(de::Error::custom)?;
        if span == Some(Duration::ZERO) {
            return Err(de::Error::custom("bantime must not be 0; use -1 for a permanent ban"));
        }
        Ok(Span(span))
    }
}

/// A duration that ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounded(pub(super) Duration);

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Span::deserialize(from)? {
            Span(Some(duration)) => Ok(Bounded(duration)),
            Span(None) => Err(de::Error::custom("this duration must be finite")),
        }
    }
}

/// `bantime.formula`
#[derive(Clone, Debug)]
pub(super) struct BanFormula(pub(super) Formula);

impl<'de> Deserialize<'de> for BanFormula {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Formula::parse(&text)
            .map(BanFormula)
            .map_err(|why| de::Error::custom(format!("cannot read this formula: {why}")))
    }
}

/// A number from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positive(pub(super) u32);

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u32::deserialize(from)? {
            0 => Err(de::Error::custom("expected a number of at least 1")),
            number => Ok(Positive(number)),
        }
    }
}

macro_rules! ranged {
    ($name:ident, $type:ty, $low:literal, $high:literal, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name(pub(super) $type);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let number = <$type>::deserialize(from)?;
                if ($low..=$high).contains(&number) {
                    return Ok($name(number));
                }
                let message =
                    format!(concat!($what, " is from ", $low, " to ", $high, ", not {}"), number);
                Err(de::Error::custom(message))
            }
        }
    };
}

ranged!(LengthV4, u8, 8, 32, "a prefix length of IPv4");
ranged!(LengthV6, u8, 16, 128, "a prefix length of IPv6");
ranged!(Members, u32, 2, 65_536, "a number of members");
ranged!(Share, f64, 0.0, 1.0, "a share");
ranged!(MaxBans, u32, 1024, 16_777_216, "the capacity of a ban map");

/// What stands for them behind translators needs room as well ([`ban_common::ALLOWED`]).
const MAX_PREFIXES: usize = 250_000;

/// Addresses and prefixes; a text separates them with spaces or commas.
#[derive(Clone, Debug)]
pub(super) struct Prefixes(pub(super) Vec<IpNet>);

impl<'de> Deserialize<'de> for Prefixes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let words = words(OneOrMany::deserialize(from)?);
        if words.len() > MAX_PREFIXES {
            let count = words.len();
            let message =
                format!("{count} prefixes are too many, at most {MAX_PREFIXES} can be listed");
            return Err(de::Error::custom(message));
        }
        let prefixes = words.iter().map(|word| net::parse_prefix(word));
        prefixes.collect::<Result<_, _>>().map(Prefixes).map_err(de::Error::custom)
    }
}

/// Prefixes of NAT64 and SIIT translators.
#[derive(Clone, Debug)]
pub(super) struct Nat64(pub(super) Translators);

impl<'de> Deserialize<'de> for Nat64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let prefixes: Vec<_> = words(OneOrMany::deserialize(from)?)
            .iter()
            .map(|word| Translators::parse(word))
            .collect::<Result<_, _>>()
            .map_err(de::Error::custom)?;
        Ok(Nat64(Translators::new(&prefixes)))
    }
}

/// Words of `ignoreip`; a text separates them with spaces or commas.
#[derive(Clone, Debug)]
pub(super) struct IgnoreList(pub(super) Vec<Ignored>);

impl<'de> Deserialize<'de> for IgnoreList {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        words(OneOrMany::deserialize(from)?)
            .iter()
            .map(|word| Ignored::parse(word))
            .collect::<Result<_, _>>()
            .map(IgnoreList)
            .map_err(de::Error::custom)
    }
}

/// `ignorecache`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct IgnoreCache {
    pub(super) key: String,
    pub(super) max_count: Option<Positive>,
    pub(super) max_time: Option<Bounded>,
}

/// Ports like `tcp/22`, `tcp/80,443` or `ssh`; `all` is no limit.
#[derive(Clone, Debug)]
pub(super) struct PortList(pub(super) Ports);

impl<'de> Deserialize<'de> for PortList {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let list = match OneOrMany::deserialize(from)? {
            OneOrMany::One(text) => text.split_whitespace().map(Into::into).collect(),
            OneOrMany::Many(list) => list,
        };
        if list.iter().any(|rule| rule == "all") {
            return Ok(PortList(Ports::new()));
        }
        let mut ports = Ports::new();
        for rule in list {
            ports.extend(port_rule(&rule).map_err(de::Error::custom)?);
        }
        Ok(PortList(ports))
    }
}

fn port_rule(rule: &str) -> Result<Ports, net::ParseError> {
    if rule.contains('/') {
        return net::parse_ports(rule);
    }
    rule.split(',')
        .map(|name| {
            let port = match name.trim() {
                "ssh" => 22,
                "smtp" => 25,
                "http" => 80,
                "pop3" => 110,
                "imap" => 143,
                "https" => 443,
                "submissions" | "smtps" => 465,
                "submission" => 587,
                "imaps" => 993,
                "pop3s" => 995,
                "sieve" => 4190,
                number => number.parse().map_err(|_| net::ParseError::Port(rule.to_owned()))?,
            };
            Ok(PortRange { proto: Proto::Tcp, low: port, high: port })
        })
        .collect()
}

pub(super) fn words(texts: OneOrMany) -> Vec<String> {
    let list = match texts {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(list) => list,
    };
    list.iter()
        .flat_map(|text| text.split([' ', ',', '\n', '\t']))
        .filter(|word| !word.is_empty())
        .map(Into::into)
        .collect()
}
