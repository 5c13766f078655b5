//! The resolvers and time servers that this host uses, by the files that name them. Names are not
//! looked up: what the files give as addresses counts.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::ledger::Protected;

/// Files with `nameserver ADDRESS` (resolv.conf(5)): the second has what systemd-resolved asks.
const RESOLVERS: [&str; 2] = ["etc/resolv.conf", "run/systemd/resolve/resolv.conf"];
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

/// Whom the files below `root` name, and as what.
pub(super) fn servers(root: &Path) -> Vec<(IpAddr, Protected)> {
    let files = |names: &[&str], folders: &[&str]| {
        let mut all: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
        for folder in folders {
            let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
            all.extend(entries.map(|entry| entry.path()));
        }
        all
    };
    let mut found = Vec::new();
    let mut add = |files: Vec<PathBuf>, why, words: fn(&str) -> Vec<&str>| {
        for text in files.iter().filter_map(|file| read(file)) {
            let addresses = text.lines().flat_map(words).filter_map(address);
            found.extend(addresses.map(|address| (address, why)));
        }
    };
    add(files(&RESOLVERS, &[]), Protected::Resolver, |line| after(line, &["nameserver"]));
    add(files(&TIME, &TIME_FOLDERS), Protected::TimeServer, |line| {
        after(line, &["server", "servers", "pool", "peer"])
    });
    add(files(&TIMESYNCD, &TIMESYNCD_FOLDERS), Protected::TimeServer, |line| {
        let value = line.split_once('=');
        let value = value.filter(|(key, _)| ["NTP", "FallbackNTP"].contains(&key.trim()));
        value.map(|(_, servers)| servers.split_whitespace().collect()).unwrap_or_default()
    });
    found.sort_unstable();
    found.dedup();
    found
}

fn read(file: &Path) -> Option<String> {
    let meta = fs::metadata(file).ok()?;
    (meta.is_file() && meta.len() <= MAX).then(|| fs::read_to_string(file).ok()).flatten()
}

/// The word behind one of `keys`.
fn after<'l>(line: &'l str, keys: &[&str]) -> Vec<&'l str> {
    let mut words = line.split_whitespace();
    let known = words.next().is_some_and(|word| keys.contains(&word));
    words.next().filter(|_| known).into_iter().collect()
}

/// An address, also with a scope.
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
        assert_eq!(of(Protected::Resolver), ["192.0.2.2", "2001:db8::53", "fe80::1"]);
        assert_eq!(of(Protected::TimeServer), ["192.0.2.123", "192.0.2.124", "192.0.2.125"]);
        assert!(servers(Path::new("/nonexistent")).is_empty());
    }
}
