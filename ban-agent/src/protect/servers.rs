//! The resolvers and time servers that this host uses, by the files that name them. Names are only
//! collected: `clocks` knows what they stand for.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::ledger::Protected;

/// Files with `nameserver ADDRESS` (resolv.conf(5)): the first may name a resolver on this host, the
/// others have whom systemd-resolved, NetworkManager's dnsmasq and resolvconf(8)'s ask.
const RESOLVERS: [&str; 4] = [
    "etc/resolv.conf",
    "run/systemd/resolve/resolv.conf",
    "run/NetworkManager/no-stub-resolv.conf",
    "run/dnsmasq/resolv.conf",
];
/// Files with `server=ADDRESS` or `server=/DOMAIN/ADDRESS` (dnsmasq(8)), or with
/// `forward-addr: ADDRESS` (unbound.conf(5)).
const FORWARDERS: [&str; 2] = ["etc/dnsmasq.conf", "etc/unbound/unbound.conf"];
const FORWARDER_FOLDERS: [&str; 2] = ["etc/dnsmasq.d", "etc/unbound/unbound.conf.d"];
/// Files with `server`, `pool` or `peer ADDRESS` (chrony.conf(5), ntp.conf(5)).
const TIME: [&str; 5] = [
    "etc/chrony/chrony.conf",
    "etc/chrony.conf",
    "etc/ntp.conf",
    "etc/ntpsec/ntp.conf",
    "etc/openntpd/ntpd.conf",
];
/// Folders of such files.
const TIME_FOLDERS: [&str; 3] = ["etc/chrony/conf.d", "etc/chrony/sources.d", "run/chrony-dhcp"];
/// Files with `NTP=ADDRESS…` (timesyncd.conf(5)).
const TIMESYNCD: [&str; 2] = ["etc/systemd/timesyncd.conf", "usr/lib/systemd/timesyncd.conf"];
const TIMESYNCD_FOLDERS: [&str; 2] =
    ["etc/systemd/timesyncd.conf.d", "run/systemd/timesyncd.conf.d"];
/// A file that is longer is none of these.
const MAX: u64 = 1 << 20;

/// Returns whom the files below `root` name by address, and as what.
pub(super) fn servers(root: &Path) -> Vec<(IpAddr, Protected)> {
    let mut resolvers = Vec::new();
    collect(&files(root, &RESOLVERS, &[]), |line| after(line, &["nameserver"]), &mut resolvers);
    collect(&files(root, &FORWARDERS, &FORWARDER_FOLDERS), forwarders, &mut resolvers);
    let found = |words: &[String], why| {
        words.iter().filter_map(|word| Some((address(word)?, why))).collect::<Vec<_>>()
    };
    let mut found =
        [found(&resolvers, Protected::Resolver), found(&time_words(root), Protected::TimeServer)]
            .concat();
    found.sort_unstable();
    found.dedup();
    found
}

/// Returns the time servers that they name by name.
pub(super) fn time_names(root: &Path) -> BTreeSet<String> {
    time_words(root).into_iter().filter(|word| address(word).is_none()).collect()
}

/// Returns the time servers, as they are written.
fn time_words(root: &Path) -> Vec<String> {
    let mut words = Vec::new();
    let keys = ["server", "servers", "pool", "peer"];
    collect(&files(root, &TIME, &TIME_FOLDERS), |line| after(line, &keys), &mut words);
    collect(&files(root, &TIMESYNCD, &TIMESYNCD_FOLDERS), timesyncd, &mut words);
    words
}

fn files(root: &Path, names: &[&str], folders: &[&str]) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
    for folder in folders {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path()));
    }
    all
}

fn collect(files: &[PathBuf], of_line: impl Fn(&str) -> Vec<&str>, words: &mut Vec<String>) {
    for text in files.iter().filter_map(|file| read(file)) {
        words.extend(text.lines().flat_map(&of_line).map(str::to_owned));
    }
}

fn read(file: &Path) -> Option<String> {
    let meta = fs::metadata(file).ok()?;
    (meta.is_file() && meta.len() <= MAX).then(|| fs::read_to_string(file).ok()).flatten()
}

/// Returns the word behind one of `keys`.
fn after<'l>(line: &'l str, keys: &[&str]) -> Vec<&'l str> {
    let mut words = line.split_whitespace();
    let known = words.next().is_some_and(|word| keys.contains(&word));
    words.next().filter(|_| known).into_iter().collect()
}

/// Returns whom `server=/DOMAIN/ADDRESS#PORT` and `forward-addr: ADDRESS@PORT#NAME` name.
fn forwarders(line: &str) -> Vec<&str> {
    let dnsmasq = line.trim().strip_prefix("server=").and_then(|word| word.rsplit('/').next());
    let unbound = after(line, &["forward-addr:"]);
    unbound.into_iter().chain(dnsmasq).filter_map(|word| word.split(['#', '@']).next()).collect()
}

/// Returns the words behind `NTP=` and `FallbackNTP=`.
fn timesyncd(line: &str) -> Vec<&str> {
    let value = line.split_once('=');
    let value = value.filter(|(key, _)| ["NTP", "FallbackNTP"].contains(&key.trim()));
    value.map(|(_, servers)| servers.split_whitespace().collect()).unwrap_or_default()
}

/// Returns an address, also with a scope.
fn address(word: &str) -> Option<IpAddr> {
    word.split('%').next()?.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn resolvers_and_time_servers_are_found() {
        let root = TempDir::new().unwrap();
        for (name, text) in [
            (RESOLVERS[0], "# nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.b\n"),
            (RESOLVERS[1], "nameserver 2001:db8::53\nnameserver fe80::1%eth0\noptions edns0\n"),
            ("run/NetworkManager/no-stub-resolv.conf", "nameserver 192.0.2.54\n"),
            (FORWARDERS[0], "server=192.0.2.55#5353\n#server=192.0.2.99\nserver=/x.y/192.0.2.56\n"),
            (
                "etc/unbound/unbound.conf.d/a.conf",
                "forward-zone:\n  name: \".\"\n  forward-addr: 2001:db8::54@853#dns.example.org\n",
            ),
            (TIME[0], "pool 2.debian.pool.ntp.org iburst\nserver 192.0.2.123 iburst\n"),
            ("etc/chrony/sources.d/a.sources", "peer 192.0.2.124\n"),
            (TIMESYNCD[0], "[Time]\n#NTP=192.0.2.9\nNTP=192.0.2.125 ntp.example.org\n"),
        ] {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let found = servers(root.path());
        let of = |wanted| {
            let found = found.iter().filter(|(_, why)| *why == wanted);
            found.map(|(address, _)| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            of(Protected::Resolver),
            [
                "192.0.2.2",
                "192.0.2.54",
                "192.0.2.55",
                "192.0.2.56",
                "2001:db8::53",
                "2001:db8::54",
                "fe80::1"
            ]
        );
        assert_eq!(of(Protected::TimeServer), ["192.0.2.123", "192.0.2.124", "192.0.2.125"]);
        let names: Vec<_> = time_names(root.path()).into_iter().collect();
        assert_eq!(names, ["2.debian.pool.ntp.org", "ntp.example.org"]);
        assert!(servers(Path::new("/nonexistent")).is_empty());
    }
}
