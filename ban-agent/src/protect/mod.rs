//! Knows what a ban would lock out: this host's own addresses and gateways, and the peers of its
//! SSH sessions. Kept current by the kernel's notifications. Decides nothing.

mod clocks;
mod helper;
mod ntpd;
mod openntpd;
mod route;
mod servers;
mod sessions;
mod tcp;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

pub use self::{
    helper::{Sessions, is_helper, serve},
    watch::Watcher,
};
use crate::{
    jail,
    ledger::Protected,
    net::{self, IpNet},
};

/// Prefixes that no host has from the outside.
const SPECIAL: [&str; 9] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::/10",
    "ff00::/8",
];

/// Why the network around this host is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel was asked, and refused.
    #[error("cannot {doing} over netlink")]
    Netlink {
        /// What was asked for.
        doing: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The watching thread could not be started.
    #[error("cannot start the thread that watches addresses and routes")]
    Thread(#[source] io::Error),
}

/// The never-ban set (law 2), and the networks that a ban is not widened over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// What must not be banned, and why.
    pub protected: Vec<(IpNet, Protected)>,
    /// Networks that this host is a member of.
    pub onlink: Vec<IpNet>,
    /// The first, for people.
    pub groups: Vec<Group>,
}

/// What is protected besides what the kernel tells of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// The resolvers that this host is configured to ask.
    pub resolvers: bool,
    /// The time servers, likewise.
    pub time_servers: bool,
    /// Whom the operator trusts to bring others' requests.
    pub proxies: Vec<(IpNet, Protected)>,
}

impl Servers {
    /// As the files below `root` have it now; `clocks`: the time servers in use.
    fn look(&self, root: &Path, clocks: &BTreeSet<IpAddr>) -> Vec<(IpNet, Protected)> {
        let mut found: Vec<_> =
            self.proxies.iter().map(|(proxy, why)| (proxy.trunc(), *why)).collect();
        if self.resolvers || self.time_servers {
            let clocks = clocks.iter().map(|address| (*address, Protected::TimeServer));
            let servers = servers::servers(root).into_iter().chain(clocks);
            found.extend(servers.filter_map(|(address, why)| {
                let wanted =
                    if why == Protected::Resolver { self.resolvers } else { self.time_servers };
                (wanted && !address.is_unspecified()).then(|| (net::host(address), why))
            }));
        }
        found
    }
}

/// Those who are protected for one reason, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Why: `a resolver of this host ([agent] protect)`.
    pub reason: String,
    /// How the operator changes that.
    pub remedy: String,
    /// The first hundred of them.
    pub prefixes: Vec<IpNet>,
    /// How many there are besides.
    pub more: usize,
}

impl Group {
    /// Prefixes that are shown.
    const SHOWN: usize = 100;

    /// Returns those who are protected because of `why`.
    #[must_use]
    pub fn new(why: Protected, prefixes: &[IpNet]) -> Group {
        let shown = prefixes.get(..Group::SHOWN).unwrap_or(prefixes).to_vec();
        let more = prefixes.len() - shown.len();
        let (reason, remedy) = (why.to_string(), why.remedy().to_owned());
        Group { reason, remedy, prefixes: shown, more }
    }
}

/// By their reasons. What no host has from the outside is left out.
fn groups(protected: &[(IpNet, Protected)]) -> Vec<Group> {
    let mut by_reason: BTreeMap<Protected, Vec<IpNet>> = BTreeMap::new();
    for (prefix, why) in protected.iter().filter(|(_, why)| *why != Protected::Special) {
        by_reason.entry(*why).or_default().push(*prefix);
    }
    by_reason.iter().map(|(why, prefixes)| Group::new(*why, prefixes)).collect()
}

/// Returns those whom single jails trust as proxies.
pub fn of_jails(jails: &[Arc<jail::Spec>]) -> impl Iterator<Item = Group> {
    jails.iter().filter(|jail| !jail.rules.proxies.is_empty()).map(|jail| {
        let group = Group::new(Protected::JailProxy, &jail.rules.proxies);
        Group { reason: format!("a proxy that the jail {} trusts", jail.rules.name), ..group }
    })
}

/// Returns whom an agent that started now would protect, but for SSH sessions and names.
///
/// # Errors
/// If the kernel does not tell the addresses and gateways.
pub fn survey(wanted: &Servers) -> Result<Vec<Group>, Error> {
    let servers = wanted.look("/".as_ref(), &BTreeSet::new());
    Ok(HostNetwork::of(&route::network()?, &HashSet::new(), servers).groups)
}

/// What the kernel's tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Network {
    own: Vec<IpAddr>,
    onlink: Vec<IpNet>,
    gateways: Vec<IpAddr>,
}

impl HostNetwork {
    fn of(
        network: &Network,
        sessions: &HashSet<IpAddr>,
        servers: Vec<(IpNet, Protected)>,
    ) -> HostNetwork {
        let special = SPECIAL.iter().filter_map(|text| net::parse_prefix(text).ok());
        let host = |why| {
            move |address: &IpAddr| (!address.is_unspecified()).then(|| (net::host(*address), why))
        };
        let mut protected: Vec<_> = special.map(|net| (net, Protected::Special)).collect();
        protected.extend(network.own.iter().filter_map(host(Protected::Own)));
        protected.extend(network.gateways.iter().filter_map(host(Protected::Gateway)));
        protected.extend(servers);
        protected.extend(sessions.iter().filter_map(host(Protected::SshPeer)));
        // One reason each: the first, which is the one that lasts longest.
        protected.sort_unstable();
        protected.dedup_by_key(|(prefix, _)| *prefix);
        let mut onlink = network.onlink.clone();
        onlink.sort_unstable();
        onlink.dedup();
        let groups = groups(&protected);
        HostNetwork { protected, onlink, groups }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_locks_out_is_protected() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let network = Network {
            own: vec![parse("192.0.2.7"), parse("2001:db8::7"), parse("::ffff:198.51.100.1")],
            onlink: vec![net, net],
            gateways: vec![parse("192.0.2.1"), parse("0.0.0.0")],
        };
        let peers = HashSet::from([parse("203.0.113.9"), parse("192.0.2.7")]);
        let proxies = vec![("203.0.113.128/25".parse().unwrap(), Protected::Proxy)];
        let wanted = Servers { resolvers: true, time_servers: false, proxies };
        let root = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let etc =
            |name: &str, text| std::fs::write(root.path().join("etc").join(name), text).unwrap();
        etc("resolv.conf", "nameserver 198.51.100.53\nnameserver 0.0.0.0\n");
        etc("ntp.conf", "server 198.51.100.123\n");
        let servers = wanted.look(root.path(), &BTreeSet::from([parse("198.51.100.124")]));
        let HostNetwork { protected, onlink, groups } = HostNetwork::of(&network, &peers, servers);
        let why = |text: &str| {
            let address: IpNet = net::parse_prefix(text).unwrap();
            protected.iter().find(|(net, _)| net.contains(&address)).map(|(_, why)| *why)
        };
        for (address, expected) in [
            ("192.0.2.7", Some(Protected::Own)),
            ("2001:db8::7", Some(Protected::Own)),
            ("198.51.100.1", Some(Protected::Own)),
            ("192.0.2.1", Some(Protected::Gateway)),
            ("203.0.113.9", Some(Protected::SshPeer)),
            ("198.51.100.53", Some(Protected::Resolver)),
            ("198.51.100.123", None),
            ("203.0.113.200", Some(Protected::Proxy)),
            ("127.0.0.53", Some(Protected::Special)),
            ("169.254.169.254", Some(Protected::Special)),
            ("fe80::1", Some(Protected::Special)),
            ("ff02::1", Some(Protected::Special)),
            ("::1", Some(Protected::Special)),
            ("192.0.2.8", None),
            ("2001:db8::8", None),
        ] {
            assert_eq!(why(address), expected, "{address}");
        }
        assert_eq!(onlink.len(), 1);
        let told = |text: &str| groups.iter().find(|group| group.reason.contains(text));
        assert_eq!(
            told("resolver").unwrap().prefixes,
            [net::parse_prefix("198.51.100.53").unwrap()]
        );
        assert!(told("trusted proxy").unwrap().remedy.contains("trusted_proxies"));
        assert!(told("loopback").is_none() && told("time server").is_none());
        let many = vec![net; 102];
        let group = Group::new(Protected::Proxy, &many);
        assert_eq!((group.prefixes.len(), group.more), (100, 2));
        assert!(protected.len() < 20, "the unspecified gateway is none: {protected:?}");
    }
}
