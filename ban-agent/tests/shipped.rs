//! The shipped filters against what the real daemons wrote (`dist/samples/`): one expectation per
//! line, and text that wants to name somebody else. Knows nothing of jails and bans.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, sync::Arc};

use ban_agent::{
    config,
    filter::{Filter, Outcome, Scanner, Spec},
};
use jiff::Timestamp;

/// Named by every forged line; never sent a packet.
const VICTIM: &str = "198.51.100.66";

/// Subjects, and the shipped filters that read each one's log.
const SUBJECTS: &[(&str, &[&str])] = &[
    ("sshd", &["sshd"]),
    ("sshd-iso", &["sshd"]),
    ("cloudstack", &["nginx-401", "nginx-531"]),
    ("nginx-http-auth", &["nginx-http-auth"]),
    ("ceph", &["ceph-dashboard", "ceph-rgw"]),
    ("apache-auth", &["apache-auth"]),
    ("postfix-sasl", &["postfix-sasl"]),
    ("dovecot", &["dovecot"]),
];

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dist/samples")
}

/// A shipped filter; the samples were written in UTC.
fn scanner(name: &str) -> Scanner {
    let shipped = config::shipped().expect("the shipped configuration");
    let spec = shipped.filters.get(name).unwrap_or_else(|| panic!("no shipped filter {name}"));
    let spec = Spec { logtimezone: Some("UTC".into()), ..Spec::clone(spec) };
    Scanner::new(Arc::new(Filter::compile(&spec).expect(name)))
}

/// What the filters say of `log`, in the words of an expectation: `LINE FILTER ADDRESS TIME USER`.
fn found(log: &[u8], filters: &[&str]) -> String {
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let mut scanners: BTreeMap<_, _> = filters.iter().map(|name| (*name, scanner(name))).collect();
    let mut said = String::new();
    for (number, line) in (1..).zip(log.split_inclusive(|byte| *byte == b'\n')) {
        for (name, scanner) in &mut scanners {
            let Outcome::Matched(failure) = scanner.line(line, false, now) else { continue };
            let address = failure.address.expect("an address");
            let time = failure.time.expect("a time");
            write!(said, "{number} {name} {address} {time}").unwrap();
            if let Some(user) = failure.fields.get("user") {
                write!(said, " {user}").unwrap();
            }
            said.push('\n');
        }
    }
    said
}

/// Compares line by line, so that a failure names the sample line.
fn check(subject: &str, filters: &[&str]) {
    let log = fs::read(samples().join(format!("{subject}.log"))).expect(subject);
    let expected = fs::read_to_string(samples().join(format!("{subject}.expect"))).expect(subject);
    let found = found(&log, filters);
    let wrong: Vec<_> = expected
        .lines()
        .filter(|line| !found.lines().any(|other| other == *line))
        .map(|line| format!("missing: {line}"))
        .chain(
            found
                .lines()
                .filter(|line| !expected.lines().any(|other| other == *line))
                .map(|line| format!("unexpected: {line}")),
        )
        .collect();
    assert!(wrong.is_empty(), "{subject}:\n{}", wrong.join("\n"));
    assert!(!expected.is_empty(), "{subject} expects nothing");
}

#[test]
fn every_sample_line_means_what_it_should() {
    for (subject, filters) in SUBJECTS {
        check(subject, filters);
    }
}

#[test]
fn forged_text_names_nobody_but_its_sender() {
    let victim = VICTIM.parse::<std::net::IpAddr>().unwrap();
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    for (subject, filters) in SUBJECTS.iter().filter(|(subject, _)| *subject != "sshd-iso") {
        let forged = format!("{subject}.inject");
        check(&forged, filters);
        let log = fs::read(samples().join(format!("{forged}.log"))).unwrap();
        assert!(log.windows(VICTIM.len()).any(|text| text == VICTIM.as_bytes()), "{forged}");
        // a log is not always read by the filter it was meant for
        for (_, filters) in SUBJECTS {
            for name in *filters {
                let mut scanner = scanner(name);
                scanner.scan(&log, false, now, &mut |failure, line| {
                    let line = String::from_utf8_lossy(line);
                    assert_ne!(failure.address, Some(victim), "{name} on {forged}: {line}");
                });
            }
        }
    }
}

#[test]
fn newer_and_other_renderings_mean_the_same() {
    for (filter, line, expected) in [
        (
            "sshd",
            "2026-11-21T02:21:24.705407+00:00 edge sshd-session[9]: Failed password for root from \
             203.0.113.7 port 1 ssh2",
            "1 sshd 203.0.113.7 2026-11-21T02:21:24Z root\n",
        ),
        (
            "sshd",
            "Nov 21 02:21:24 edge sshd[9]: message repeated 2 times: [ Failed password for root \
             from 2001:db8::7 port 1 ssh2]",
            "1 sshd 2001:db8::7 2026-11-21T02:21:24Z root\n",
        ),
        (
            "ceph-dashboard",
            "Nov 21 02:21:24 haproxy[9]: 2001:db8::7:8080 [21/Nov/2026:02:21:24.001] fe~ \
             ceph-dashboard/mon01 0/0/0/1/+1 401 +312 - - ---- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\"",
            "1 ceph-dashboard 2001:db8::7 2026-11-21T02:21:24Z\n",
        ),
        (
            "nginx-401",
            "::ffff:203.0.113.7 - - [21/Nov/2026:03:21:24 +0100] \"POST /client/api HTTP/2.0\" 401 \
             35 \"-\" \"-\"",
            "1 nginx-401 203.0.113.7 2026-11-21T02:21:24Z -\n",
        ),
    ] {
        assert_eq!(found(line.as_bytes(), &[filter]), expected, "{line}");
    }
}

#[test]
fn shipped_filters_never_ask_a_regex_about_most_lines() {
    let shipped = config::shipped().expect("the shipped configuration");
    for (_, filters) in SUBJECTS {
        for name in *filters {
            let filter = Filter::compile(&shipped.filters[*name]).expect(name);
            assert!(filter.rejects_early(), "{name} has no literal text to look for");
        }
    }
    let named: Vec<_> = SUBJECTS.iter().flat_map(|(_, filters)| *filters).collect();
    // what recidive reads is written by the agent itself, and tested beside its writer
    for name in shipped.filters.keys().filter(|name| *name != "recidive") {
        assert!(named.iter().any(|known| *known == name), "{name} is shipped without samples");
    }
}
