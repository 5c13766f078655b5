//! What a client can write into a log against fail2ban's own filters, read where its package put
//! them: whoever can be told by it whom to ban is warned of by name.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use ban_agent::{
    config::{self, Config},
    filter::{Filter, Scanner},
};
use jiff::Timestamp;

const CONFIG: &str = "/etc/fail2ban";
/// Named by every forged line; never sent a packet.
const VICTIM: &str = "198.51.100.66";

/// A forged log of `dist/samples/`, where its daemon writes it, and the beginnings of the names of
/// those of fail2ban's filters that are meant for it.
const LOGS: &[(&[&str], &str, &[&str])] = &[
    (&["nginx-error.inject", "nginx-error"], "/var/log/nginx/error.log", &["nginx"]),
    (
        &["nginx-http-auth.inject", "nginx.inject"],
        "/var/log/nginx/access.log",
        &["nginx", "apache-badbots"],
    ),
    (&["cloudstack.inject"], "/var/log/nginx/access.log", &["nginx"]),
    (&["apache-auth.inject", "apache.inject"], "/var/log/apache2/error.log", &["apache"]),
    (&["sshd.inject"], "/var/log/auth.log", &["sshd", "pam-generic", "dropbear"]),
    (&["dovecot.inject"], "/var/log/mail.log", &["dovecot", "pam-generic"]),
    (&["postfix-sasl.inject", "postfix.inject"], "/var/log/mail.log", &["postfix", "sendmail"]),
    (&["ceph.inject"], "/var/log/haproxy.log", &["haproxy"]),
];

/// The log of one of these names, in whatever folder of the samples.
fn sample(names: &[&str]) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/samples");
    let entries = |folder: &Path| {
        let found = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        found.collect::<Vec<_>>()
    };
    let all = entries(&root).into_iter().flat_map(|path| [entries(&path), vec![path]].concat());
    let named = |path: &PathBuf| names.iter().any(|name| path.ends_with(format!("{name}.log")));
    fs::read(all.into_iter().find(named).unwrap_or_else(|| panic!("no sample {names:?}"))).unwrap()
}

fn names(prefixes: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(Path::new(CONFIG).join("filter.d"))
        .unwrap()
        .filter_map(|entry| {
            Some(entry.unwrap().file_name().to_str()?.strip_suffix(".conf")?.into())
        })
        .filter(|name: &String| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !name.ends_with("common"))
        .collect();
    names.sort();
    names
}

/// A jail over `path` for each of these filters, in their own modes.
fn load(filters: &[String], path: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(CONFIG).unwrap().flatten() {
        symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let mut text = String::new();
    for filter in filters {
        let jail = "enabled = true\nbackend = polling\nport = 1\n";
        write!(text, "[{filter}]\n{jail}filter = {filter}\nlogpath = {path}\n").unwrap();
    }
    let _replaced = fs::remove_file(folder.path().join("jail.local"));
    fs::write(folder.path().join("jail.local"), text).unwrap();
    let main = folder.path().join("ban-agent.toml");
    fs::write(&main, format!("[agent]\nfail2ban = {:?}\n", folder.path())).unwrap();
    config::load_sound(&main).unwrap().0
}

#[test]
fn who_can_be_told_whom_to_ban_is_warned_of() {
    if !Path::new(CONFIG).join("filter.d").is_dir() {
        assert!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
        return eprintln!("skipped: the package fail2ban is not installed");
    }
    let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
    let victim = VICTIM.parse().unwrap();
    let (mut told, mut silent) = (BTreeSet::new(), BTreeSet::new());
    let mut tried = 0;
    for (samples, path, prefixes) in LOGS {
        let log = sample(samples);
        let filters = names(prefixes);
        let config = load(&filters, path);
        // what the package itself enables reads another log
        let meant = config
            .jails
            .iter()
            .filter(|jail| filters.iter().any(|name| **name == *jail.rules.name));
        for jail in meant {
            let rules = &jail.rules;
            let Ok(filter) = Filter::compile(&rules.filter) else { continue };
            let mut names_victim = false;
            Scanner::new(Arc::new(filter)).scan(&log, false, now, &mut |failure, _| {
                names_victim |= failure.address == Some(victim);
            });
            tried += 1;
            if !names_victim {
                continue;
            }
            let start = format!("jail {}: ", rules.name);
            let warned = config.warnings.iter().any(|text| text.starts_with(&start));
            let set = if warned { &mut told } else { &mut silent };
            set.insert(format!("{} over {}", rules.filter.name, samples.concat()));
        }
    }
    println!("{tried} filters; told: {told:?}");
    assert!(tried > 20, "fail2ban's filters were not found");
    assert!(silent.is_empty(), "nobody is warned of {silent:?}");
    // the attack itself: without it the test proves nothing
    assert!(
        told.iter().any(|told| told.starts_with("nginx-http-auth over nginx-error")),
        "{told:?}"
    );
}
