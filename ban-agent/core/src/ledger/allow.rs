//! What may never be banned, and by whom nevertheless. Law 2: the allow list always wins.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::Holder;
use crate::net::{IpNet, PrefixMap, PrefixSet};

/// Why a prefix is protected although no allow list names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protected {
    /// An address of this host.
    Own,
    /// A gateway of this host.
    Gateway,
    /// It answers this host's questions for names.
    Resolver,
    /// It tells this host the time.
    TimeServer,
    /// Clients come through it.
    Proxy,
    /// Likewise: it is on the list of this name.
    Cdn(&'static str),
    /// Clients come through it into the log of one jail.
    JailProxy,
    /// Loopback, link-local, multicast or unspecified.
    Special,
    /// The peer of an established SSH session.
    SshPeer,
}

impl Protected {
    /// Returns how the operator changes that.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Protected::Resolver => "[agent] protect = [\"ntp\"] leaves them out",
            Protected::TimeServer => "[agent] protect = [\"resolvers\"] leaves them out",
            Protected::Proxy | Protected::Cdn(_) => "take it out of [agent] trusted_proxies",
            Protected::JailProxy => "take it out of the jail's trusted_proxies",
            Protected::Own | Protected::Gateway | Protected::Special | Protected::SshPeer => {
                "only `ban-agent ban --force` bans it"
            }
        }
    }
}

impl fmt::Display for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protected::Cdn(name) => {
                return write!(f, "a trusted proxy ({name} in [agent] trusted_proxies)");
            }
            Protected::Own => "an address of this host",
            Protected::Gateway => "a gateway of this host",
            Protected::Resolver => "a resolver of this host ([agent] protect)",
            Protected::TimeServer => "a time server of this host ([agent] protect)",
            Protected::Proxy => "a trusted proxy ([agent] trusted_proxies)",
            Protected::JailProxy => "a proxy that this jail trusts (its trusted_proxies)",
            Protected::Special => "loopback, link-local or multicast",
            Protected::SshPeer => "the peer of an SSH session on this host",
        })
    }
}

/// Why a prefix may not be banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is on the allow list.
    #[error("{0} is on the allow list")]
    Allowed(IpNet),
    /// A part of it is on the allow list, and no log line may ban the rest with it.
    #[error("it contains {0}, which is on the allow list")]
    Overlaps(IpNet),
    /// It is, or contains, what would lock an operator out.
    #[error("{0} is {1}")]
    Protected(IpNet, Protected),
    /// A network of this host lies in it, or around it: who is bad there is banned by himself.
    #[error("{0} is a network of this host")]
    OnLink(IpNet),
    /// There are as many bans of its family as there may be, and none that could make room.
    #[error("the ledger is full: {0} bans, and none may be evicted")]
    Full(usize),
}

/// The allow list and the never-ban set.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    allowed: PrefixSet,
    protected: PrefixMap<Protected>,
    /// By jail.
    proxies: BTreeMap<Arc<str>, PrefixSet>,
}

impl Guard {
    pub(super) fn set_allowed(&mut self, prefixes: &[IpNet]) {
        self.allowed = prefixes.iter().copied().collect();
    }

    pub(super) fn set_protected(&mut self, prefixes: &[(IpNet, Protected)]) {
        self.protected = PrefixMap::default();
        for (prefix, why) in prefixes {
            self.protected.insert(prefix.trunc(), *why);
        }
    }

    pub(super) fn set_proxies(&mut self, of_jails: &[(Arc<str>, Vec<IpNet>)]) {
        let sets = of_jails.iter().filter(|(_, proxies)| !proxies.is_empty());
        let sets = sets.map(|(jail, nets)| (Arc::clone(jail), nets.iter().copied().collect()));
        self.proxies = sets.collect();
    }

    pub(super) fn proxies(&self) -> impl Iterator<Item = IpNet> {
        self.proxies.values().flat_map(PrefixSet::iter)
    }

    pub(super) fn trusting(&self, prefix: IpNet) -> impl Iterator<Item = &Arc<str>> {
        let trusting = move |set: &PrefixSet| set.cover(prefix).is_some();
        self.proxies.iter().filter(move |(_, set)| trusting(set)).map(|(jail, _)| jail)
    }

    fn proxies_of(&self, holder: &Holder) -> Option<&PrefixSet> {
        let Holder::Jail(jail) = holder else { return None };
        self.proxies.get(jail)
    }

    pub(super) fn allowed(&self) -> impl Iterator<Item = IpNet> {
        self.allowed.iter()
    }

    pub(super) fn protected(&self) -> impl Iterator<Item = (IpNet, Protected)> {
        self.protected.iter().map(|(prefix, why)| (prefix, *why))
    }

    pub(super) fn is_protected(&self, prefix: IpNet) -> bool {
        let mut around = self.protected.covering(prefix).chain(self.protected.within(prefix));
        around.next().is_some()
    }

    /// The operator may ban a network around an allowed address, which stays allowed; what would
    /// lock an operator out only with `force`. A jail may do neither.
    pub(super) fn refusal(&self, prefix: IpNet, holder: &Holder, force: bool) -> Option<Refusal> {
        if let Some(member) = self.allowed.cover(prefix) {
            return Some(Refusal::Allowed(member));
        }
        let manual = *holder == Holder::Manual;
        if !manual && let Some(member) = self.allowed.overlap(prefix) {
            return Some(Refusal::Overlaps(member));
        }
        if manual && force {
            return None;
        }
        if let Some(proxies) = self.proxies_of(holder)
            && let Some(member) = proxies.cover(prefix).or_else(|| proxies.overlap(prefix))
        {
            return Some(Refusal::Protected(member, Protected::JailProxy));
        }
        let around = self.protected.covering(prefix).next();
        let (member, why) = around.or_else(|| self.protected.within(prefix).next())?;
        Some(Refusal::Protected(member, *why))
    }

    /// Returns whether a live claim has to end because the guard changed: not if it is wider than
    /// what is guarded, which the kernel passes anyway, and not if the operator forced it.
    pub(super) fn ends(&self, prefix: IpNet, holder: &Holder) -> bool {
        let guarded = || self.protected.covering(prefix).next().is_some();
        let proxy = || self.proxies_of(holder).is_some_and(|set| set.cover(prefix).is_some());
        self.allowed.cover(prefix).is_some()
            || (*holder != Holder::Manual && (guarded() || proxy()))
    }
}
