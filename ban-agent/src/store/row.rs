//! How claims are written in the database: words that an operator can read.

use jiff::Timestamp;

use crate::{
    clock::{Boot, Now},
    ledger::{Claim, Holder},
    net::{IpNet, Ports, parse_ports, parse_prefix},
};

/// What identifies a claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) prefix: IpNet,
    pub(super) holder: Holder,
    pub(super) ports: Ports,
    pub(super) derived: bool,
}

/// Before the ports of a claim that follows from others.
const DERIVED: &str = "widened";

/// When a claim began and ends, by both clocks. `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) since: i64,
    pub(super) until: Option<i64>,
    pub(super) boot_until: Option<i64>,
}

impl Key {
    pub(super) fn of(claim: &Claim) -> Key {
        Key::from(claim.clone())
    }
}

impl From<Claim> for Key {
    fn from(claim: Claim) -> Key {
        let Claim { prefix, holder, mut ports, derived, .. } = claim;
        ports.sort_unstable();
        ports.dedup();
        Key { prefix: prefix.trunc(), holder, ports, derived }
    }
}

impl Span {
    pub(super) fn of(claim: &Claim, now: Now) -> Span {
        let until = now.wall_of(claim.until).map(Timestamp::as_millisecond);
        let boot_until = until.map(|_| i64::try_from(claim.until.0).unwrap_or(i64::MAX));
        Span { since: now.wall.as_millisecond(), until, boot_until }
    }

    /// Returns its end on the boot clock: as it was written if that was in this boot, else by wall
    /// time.
    pub(super) fn end(&self, same_boot: bool, now: Now) -> Boot {
        match (self.boot_until, self.until) {
            (Some(boot), _) if same_boot => Boot(u64::try_from(boot).unwrap_or(0)),
            (_, Some(wall)) => {
                now.boot_of(Timestamp::from_millisecond(wall).unwrap_or(Timestamp::MAX))
            }
            _ => Boot::NEVER,
        }
    }
}

pub(super) fn holder_text(holder: &Holder) -> String {
    match holder {
        Holder::Jail(name) => format!("jail:{name}"),
        Holder::Manual => "manual".to_owned(),
    }
}

pub(super) fn holder_of(text: &str) -> Option<Holder> {
    match text.split_once(':') {
        Some(("jail", name)) => Some(Holder::Jail(name.into())),
        None if text == "manual" => Some(Holder::Manual),
        _ => None,
    }
}

pub(super) fn ports_text(ports: &Ports, derived: bool) -> String {
    let mark = derived.then(|| DERIVED.to_owned()).into_iter();
    mark.chain(ports.iter().map(ToString::to_string)).collect::<Vec<_>>().join(" ")
}

pub(super) fn key_of(prefix: &str, holder: Holder, ports: &str) -> Option<Key> {
    let mut words = ports.split_whitespace().peekable();
    let derived = words.next_if_eq(&DERIVED).is_some();
    let rules: Result<Vec<Ports>, _> = words.map(parse_ports).collect();
    let ports = rules.ok()?.into_iter().flatten().collect();
    Some(Key { prefix: parse_prefix(prefix).ok()?, holder, ports, derived })
}
