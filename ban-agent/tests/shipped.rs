//! The shipped filters against what the daemons write (`dist/samples/`): one expectation per line,
//! text that wants to name somebody else, and normal traffic that no shipped jail bans. A filter
//! whose service lacks one of the three does not ship.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test")]

mod corpora;

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use ban_agent::{
    clock::{Boot, Now},
    config,
    filter::Outcome,
    jail::Jail,
};
use jiff::Timestamp;

use corpora::{Kind, Log, Service, made, scanner, services};

/// Named by every forged line; never sent a packet.
const VICTIM: &str = "198.51.100.66";

/// What the filters say of `log`, in the words of an expectation: `LINE FILTER ADDRESS TIME USER`.
fn found(log: &Log, filters: &[String]) -> String {
    let now = made();
    let mut scanners: BTreeMap<_, _> = filters.iter().map(|name| (name, scanner(name))).collect();
    let mut said = String::new();
    for (number, (line, _)) in (1..).zip(log.lines()) {
        for (name, scanner) in &mut scanners {
            let Outcome::Matched(failure) = scanner.line(line, false, now) else { continue };
            let address = failure.address.expect("an address");
            let time = failure.time.map_or("-".into(), |time| time.to_string());
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
fn differences(log: &Log, filters: &[String]) -> String {
    let Some(expected) = &log.expected else {
        return format!("{}: there is no {0}.expect\n", log.name);
    };
    let found = found(log, filters);
    let only = |one: &str, other: &str, word: &str| {
        one.lines().filter(|line| !other.lines().any(|known| known == *line)).fold(
            String::new(),
            |mut told, line| {
                writeln!(told, "{}: {word}: {line}", log.name).unwrap();
                told
            },
        )
    };
    only(expected, &found, "missing") + &only(&found, expected, "unexpected")
}

fn logs(kind: Kind) -> impl Iterator<Item = (&'static Service, &'static Log)> {
    let all =
        services().iter().flat_map(|service| service.logs.iter().map(move |log| (service, log)));
    all.filter(move |(_, log)| log.kind() == kind)
}

#[test]
fn every_sample_line_means_what_it_should() {
    let wrong: String =
        logs(Kind::Attack).map(|(service, log)| differences(log, &service.filters)).collect();
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn each_service_has_samples_of_attacks_normal_traffic_and_forged_text() {
    let mut wrong = String::new();
    for service in services() {
        for kind in [Kind::Attack, Kind::Normal, Kind::Inject] {
            if !service.logs.iter().any(|log| log.kind() == kind && !log.text.is_empty()) {
                writeln!(wrong, "{}: there is no sample log of {kind:?}", service.name).unwrap();
            }
        }
        let expected = service.logs.iter().filter_map(|log| log.expected.as_deref());
        let expected: String = expected.collect();
        for filter in &service.filters {
            if !expected.lines().any(|line| line.split(' ').nth(1) == Some(filter)) {
                writeln!(wrong, "{}: no sample line is expected of {filter}", service.name)
                    .unwrap();
            }
            if !scanner(filter).filter().rejects_early() {
                writeln!(wrong, "{filter} has no literal text to look for").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_binary_holds_what_the_folder_holds() {
    let shipped = config::shipped().expect("the shipped configuration");
    let known = corpora::config();
    let differs =
        known.filters.iter().find(|(name, spec)| shipped.filters.get(*name) != Some(spec));
    assert_eq!(differs, None, "another one is in the binary");
    assert_eq!(shipped.filters.len(), known.filters.len());
    let jails: Vec<_> = known.jails.iter().map(|jail| jail.rules.name.to_string()).collect();
    let mut off = shipped.disabled;
    off.sort();
    assert_eq!(off, jails, "a jail that is on, or not known");
}

#[test]
fn forged_text_names_nobody_but_its_sender() {
    let victim: IpAddr = VICTIM.parse().unwrap();
    let now = made();
    let mut wrong = String::new();
    // a log is not always read by the filter that it was meant for
    let filters: Vec<_> = services().iter().flat_map(|service| &service.filters).collect();
    for (service, log) in logs(Kind::Inject) {
        wrong += &differences(log, &service.filters);
        if !log.text.windows(VICTIM.len()).any(|text| text == VICTIM.as_bytes()) {
            writeln!(wrong, "{}: nothing names {VICTIM}", log.name).unwrap();
        }
        for name in &filters {
            scanner(name).scan(&log.text, false, now, &mut |failure, line| {
                if failure.address == Some(victim) {
                    let line = String::from_utf8_lossy(line);
                    writeln!(wrong, "{name} on {}: {line}", log.name).unwrap();
                }
            });
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Each of the service's jails with its shipped bounds.
#[test]
fn normal_traffic_bans_nobody() {
    let mut wrong = String::new();
    for (service, log) in logs(Kind::Normal) {
        let jails = &corpora::config().jails;
        for spec in jails.iter().filter(|jail| service.filters.contains(&jail.rules.filter.name)) {
            let mut jail = Jail::new(&spec.rules);
            scanner(&spec.rules.filter.name).scan(
                &log.text,
                false,
                made(),
                &mut |failure, line| {
                    let now = Now { boot: Boot(0), wall: failure.time.unwrap_or(made()) };
                    for offence in jail.offence(failure, line, now).offences() {
                        let (name, prefix) = (&spec.rules.name, offence.prefix);
                        writeln!(wrong, "{}: {name} bans {prefix:?}", log.name).unwrap();
                    }
                },
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Tag and message of a line in syslog's traditional format, or with an ISO time in its place.
fn message(line: &str) -> Option<(&str, &str)> {
    let sign = |at: usize| line.as_bytes().get(at).copied();
    let rest = match (sign(3), sign(10), sign(15)) {
        (Some(b' '), _, Some(b' ')) => line.get(16..)?,
        (_, Some(b'T'), _) => line.split_once(' ')?.1,
        _ => return None,
    };
    let (host, rest) = rest.split_once(' ')?;
    let (tag, message) = rest.split_once(": ").filter(|_| !host.starts_with('['))?;
    let name = tag.split('[').next().filter(|name| !name.is_empty() && !tag.contains(' '))?;
    Some((name, message))
}

/// Samples of a daemon that logs to syslog are put into every envelope, and of one that has a file
/// of its own into what a container's engine makes of it.
#[test]
fn every_sample_line_is_found_in_every_way_it_may_arrive() {
    let (now, time): (Timestamp, Timestamp) =
        ("2026-11-28T12:00:00Z".parse().unwrap(), "2026-11-21T02:21:24Z".parse().unwrap());
    let (mut wrong, mut tried) = (String::new(), 0);
    let mut attempt = |filter: &str, line: &str, stamped: bool, address: &str, dated: bool| {
        let outcome = scanner(filter).line(line.as_bytes(), stamped, now);
        let good = matches!(&outcome, Outcome::Matched(failure)
            if failure.address.is_some_and(|found| found.to_string() == address)
                && (!dated || failure.time.map(Timestamp::as_second) == Some(time.as_second())));
        tried += 1;
        if !good {
            writeln!(wrong, "{filter}: {line:?}\n    {outcome:?}").unwrap();
        }
    };
    for (_, log) in logs(Kind::Attack) {
        for (line, told) in log.lines() {
            let line = String::from_utf8_lossy(line);
            let line = line.trim_end_matches(['\r', '\n']);
            // where another line of the session names the address, the log alone can tell
            // nor may the line that names it be the failure
            let alone = |filter: &str| {
                scanner(filter).line(line.as_bytes(), false, now) != Outcome::Pending
            };
            let told = told.into_iter().filter(|told| line.contains(told.1) && alone(told.0));
            for (filter, address) in told {
                let Some((tag, message)) = message(line) else {
                    attempt(filter, &format!("{line}\r"), false, address, false);
                    attempt(filter, &format!("2026-11-21T02:21:24Z {line}"), true, address, true);
                    continue;
                };
                for (envelope, stamped) in ENVELOPES {
                    let line = envelope.replace('@', tag).replace('%', message);
                    attempt(filter, &line, *stamped, address, true);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {tried}:\n{wrong}");
}

/// Ways in which a message of a daemon that logs to syslog arrives; `@` is its tag, `%` its text.
/// All are of 02:21:24 UTC.
const ENVELOPES: &[(&str, bool)] = &[
    // files: rsyslog's traditional and its present format, without a process number, without a host,
    // with the priority, RFC 5424
    ("Nov 21 02:21:24 edge @[4711]: %", false),
    ("Nov 21 02:21:24 edge @: %", false),
    ("Nov 21 02:21:24 @[4711]: %", false),
    ("2026-11-21T02:21:24.705407+00:00 edge @[4711]: %", false),
    ("2026-11-21T03:21:24.705407+01:00 edge.example.org @[4711]: %", false),
    ("2026-11-21T02:21:24Z edge @: %", false),
    ("<86>Nov 21 02:21:24 edge @[4711]: %", false),
    ("<86>1 2026-11-21T02:21:24.705407+00:00 edge @ 4711 - - %", false),
    // RFC 5424 with a message id and structured data
    (
        "<86>1 2026-11-21T02:21:24.705407+00:00 edge @ 4711 ID47 [meta sequenceId=\"29\"][x y=\"z\"] %",
        false,
    ),
    // BusyBox' syslogd (Alpine)
    ("Nov 21 02:21:24 edge auth.info @[4711]: %", false),
    // journalctl -o short-precise, short-iso
    ("Nov 21 02:21:24.705407 edge @[4711]: %", false),
    ("2026-11-21T03:21:24+0100 edge @[4711]: %", false),
    // a container with a syslog of its own
    ("2026-11-21T02:21:24Z Nov 21 02:21:24 edge @[4711]: %", true),
    ("2026-11-21T02:21:24Z 2026-11-21T02:21:24.705407+00:00 edge @[4711]: %", true),
    // logread on OpenWrt
    ("Sat Nov 21 02:21:24 2026 auth.info @[4711]: %", false),
    // the journal, and syslog by our own socket
    ("2026-11-21T02:21:24Z edge @[4711]: %", true),
    ("2026-11-21T02:21:24Z edge @: %", true),
    // a writer that ends lines with CR LF
    ("Nov 21 02:21:24 edge @[4711]: %\r", false),
];

/// The same without a tag: what a container prints, with its engine's time.
const BARE: &[(&str, bool)] =
    &[("2026-11-21T02:21:24Z %", true), ("2026-11-21T02:21:24Z %\r", true)];

/// What stands for itself in a file.
const FILE: &[(&str, bool)] = &[("%", false), ("%\r", false)];

/// Filter, tags, ways to arrive besides [`ENVELOPES`], and messages of all versions, each of
/// 203.0.113.7 or 2001:db8::7.
type Core = (
    &'static str,
    &'static [&'static str],
    &'static [&'static [(&'static str, bool)]],
    &'static [&'static str],
);

const CORES: &[Core] = &[
    (
        "sshd",
        &["sshd", "sshd-session", "sshd-auth"],
        &[BARE],
        &[
            "Failed password for root from 203.0.113.7 port 1 ssh2",
            "Failed password for invalid user a from 198.51.100.66 port 22 ssh2 from 2001:db8::7 port 1 ssh2",
            "message repeated 2 times: [ Failed password for root from 2001:db8::7 port 1 ssh2]",
            "Failed keyboard-interactive/pam for invalid user a from 203.0.113.7 port 1 ssh2",
            "error: PAM: Authentication failure for root from 203.0.113.7",
            "Invalid user from 198.51.100.66 from 203.0.113.7 port 1",
            "Invalid user  from 203.0.113.7 port 1",
            "Invalid user bob from 203.0.113.7",
            "User daemon from 203.0.113.7 not allowed because listed in DenyUsers",
            "ROOT LOGIN REFUSED FROM 203.0.113.7 port 1",
        ],
    ),
    (
        "sshd-preauth",
        &["sshd", "sshd-session", "sshd-auth"],
        &[BARE],
        &[
            "Connection closed by authenticating user root 203.0.113.7 port 4711 [preauth]",
            "Connection reset by invalid user x 198.51.100.66 port 1 [preauth] 203.0.113.7 port 4711 [preauth]",
            "Disconnected from invalid user a b 203.0.113.7 port 4711 [preauth]",
            "Disconnected from authenticating user root 2001:db8::7 port 4711",
            "Unable to negotiate with 203.0.113.7 port 4711: no matching host key type found. Their offer: ssh-dss [preauth]",
            "fatal: Unable to negotiate with 203.0.113.7 port 4711: no matching key exchange method found. Their offer: x from 198.51.100.66 port 1",
            "banner exchange: Connection from 203.0.113.7 port 4711: invalid format",
            "banner exchange: Connection from 2001:db8::7 port 4711: could not read protocol version",
            "error: maximum authentication attempts exceeded for root from 203.0.113.7 port 4711 ssh2 [preauth]",
            "maximum authentication attempts exceeded for invalid user from 198.51.100.66 port 1 ssh2 from 203.0.113.7 port 4711 ssh2",
            "fatal: Timeout before authentication for 203.0.113.7 port 4711",
            "Timeout before authentication for connection from 203.0.113.7 to 198.51.100.66, pid = 4711",
            r"Bad protocol version identification 'GET / from 198.51.100.66 port 1' from 203.0.113.7 port 4711",
        ],
    ),
    (
        "dovecot",
        &["dovecot"],
        &[BARE, &[("Nov 21 02:21:24 %", false), ("2026-11-21 02:21:24 %", false)]],
        &[
            // 2.2
            "imap-login: Disconnected (auth failed, 1 attempts): user=<u>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1",
            "pop3-login: Disconnected (auth failed, 3 attempts in 12 secs): user=<u>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1, TLS, session=<a/b+c>",
            "imap-login: Aborted login (auth failed, 1 attempts in 2 secs): user=<>, rip=203.0.113.7, lip=192.0.2.1, TLS: Disconnected, session=<abc>",
            // 2.3
            "imap-login: Aborted login by logging out (auth failed, 1 attempts in 2 secs): user=<u>, method=PLAIN, rip=2001:db8::7, lip=2001:db8::1, session=<abc>",
            "managesieve-login: Disconnected: Connection closed (auth failed, 1 attempts in 4 secs): user=<x>, rip=198.51.100.66, lip=192.0.2.1, session=<AAAA>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1, session=<abc>",
            "imap-login: Info: Disconnected: Inactivity (auth failed, 1 attempts in 180 secs): user=<u>, method=LOGIN, rip=203.0.113.7, lip=192.0.2.1, TLS, session=<abc>",
            // 2.4
            "imap-login: Login aborted: Connection closed (auth failed, 3 attempts in 12 secs) (auth_failed): user=<u>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1, TLS, session=<abc>",
            "submission-login: Login aborted: Logged out (auth failed, 1 attempts in 2 secs) (auth_failed): user=<u@example.org>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1, mpid=12, secured, session=<abc>",
        ],
    ),
    (
        "postfix-sasl",
        &["postfix/smtpd", "postfix/submission/smtpd", "postfix/smtps/smtpd", "postfix-out/smtpd"],
        &[],
        &[
            "warning: unknown[203.0.113.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6",
            "warning: mail.example.org[2001:db8::7]: SASL PLAIN authentication failed: (reason unavailable), sasl_username=x[198.51.100.66]: SASL LOGIN authentication failed: y",
            "warning: unknown[203.0.113.7]: SASL CRAM-MD5 authentication failed: authentication failure",
        ],
    ),
    (
        "ceph-dashboard",
        &["haproxy"],
        &[BARE, FILE],
        &[
            r#"203.0.113.7:38216 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/180/180 400 388 - - ---- 1/1/0/0/0 0/0 "POST /api/auth HTTP/1.1""#,
            r#"2001:db8::7:8080 [21/Nov/2026:02:21:24.001] fe~ ceph-dashboard/mon01 0/0/0/1/+1 400 +312 - - CD-- 1/1/0/0/0 0/0 {x|#22POST} "POST /api/%61uth/ HTTP/1.1""#,
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/1/1 400 388 - - ---- 1/1/0/0/0 0/0 "POST http://192.0.2.10/api/auth HTTP/1.1""#,
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/1/1 400 388 - - ---- 1/1/0/0/0 0/0 "POST https://edge/api/auth?ttl=1 HTTP/2.0""#,
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/1/1 400 388 - - ---- 1/1/0/0/0 0/0 "POST http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"#,
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/1/1 400 388 - - ---- 1/1/0/0/0 0/0 {aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"#,
        ],
    ),
    (
        "ceph-rgw",
        &["haproxy"],
        &[BARE, FILE],
        &[
            r#"203.0.113.7:53258 [21/Nov/2026:02:21:24.471] rgw_front rgw_back/rgw-a 0/0/0/1/1 403 411 - - ---- 1/1/0/0/0 0/0 "PUT /pics/cat.txt HTTP/1.1""#,
            r#"2001:db8::7:53258 [21/Nov/2026:02:21:24.471] s3 ceph-rgw/rgw-a 0/0/0/1/1 401 411 - - ---- 1/1/0/0/0 0/0 "GET /auth/v1.0 HTTP/1.1""#,
        ],
    ),
    (
        "apache-auth",
        &["apache2", "httpd"],
        &[&[
            ("[Sat Nov 21 02:21:24.091476 2026] %", false),
            ("[Sat Nov 21 02:21:24 2026] %", false),
            ("2026-11-21T02:21:24Z [] %", true),
        ]],
        &[
            "[auth_basic:error] [pid 94:tid 126] [client 203.0.113.7:35754] AH01618: user x not found: /",
            "[auth_basic:error] [pid 94] [client 2001:db8::7:2345] AH01617: user x: authentication failure for \"/\": Password Mismatch",
            "[auth_digest:error] [pid 94:tid 126] [client 2001:db8::7:80] AH01790: user `x' in realm `staff' not found: /",
            // 2.2
            "[error] [client 203.0.113.7] user x: authentication failure for \"/\": Password Mismatch",
            "[error] [client 2001:db8::7] user x not found: /",
        ],
    ),
    (
        "nginx-401",
        &["nginx"],
        &[FILE],
        &[
            r#"203.0.113.7 - - [21/Nov/2026:02:21:24 +0000] "GET /client/api?command=login HTTP/1.1" 401 35 "-" "-""#,
            r#"::ffff:203.0.113.7 - - [21/Nov/2026:03:21:24 +0100] "POST /client/api HTTP/2.0" 401 35 "-" "-""#,
            r#"203.0.113.7 - - [21/Nov/2026:02:21:24 +0000] "GET /client/api?command=login" 401 35 "-" "-""#,
            r#"2001:db8::7 - a [b [21/Nov/2026:02:21:24 +0000] "FOO /x HTTP/1.1" 401 35 "-" "-" 0.001 "203.0.113.9""#,
            r#"203.0.113.7 - - [21/Nov/2026:02:21:24 +0000] "" 401 0 "-" "-""#,
        ],
    ),
    (
        "nginx-531",
        &["nginx"],
        &[FILE],
        &[
            r#"203.0.113.7 - - [21/Nov/2026:02:21:24 +0000] "PUT /client/api?command=login" 531 35 "-" "-""#,
        ],
    ),
    (
        "nginx-http-auth",
        &["nginx"],
        &[FILE],
        &[
            r#"203.0.113.7 - bob [21/Nov/2026:02:21:24 +0000] "GET / HTTP/1.1" 401 35 "-" "-""#,
            r#"2001:db8::7 - -- [21/Nov/2026:02:21:24 +0000] "BREW /" 401 35 "-" "-""#,
            r#"203.0.113.7 -   [21/Nov/2026:02:21:24 +0000] "GET / HTTP/1.1" 401 35 "-" "-""#,
        ],
    ),
];

#[test]
fn every_message_is_found_in_every_way_it_arrives() {
    let (now, time): (Timestamp, Timestamp) =
        ("2026-11-21T12:00:00Z".parse().unwrap(), "2026-11-21T02:21:24Z".parse().unwrap());
    let (mut wrong, mut tried) = (String::new(), 0);
    for (filter, tags, more, messages) in CORES {
        for message in *messages {
            let own: Vec<_> = more.iter().copied().flatten().map(|way| (way, "")).collect();
            let tagged = tags.iter().flat_map(|tag| ENVELOPES.iter().map(move |way| (way, *tag)));
            for ((envelope, stamped), tag) in own.into_iter().chain(tagged) {
                let line = envelope.replace('@', tag).replace('%', message);
                let expected =
                    if message.contains("2001:db8::7") { "2001:db8::7" } else { "203.0.113.7" };
                tried += 1;
                let outcome = scanner(filter).line(line.as_bytes(), *stamped, now);
                let good = match &outcome {
                    Outcome::Matched(failure) => {
                        let second = failure.time.map(|at| at.as_second());
                        failure.address == Some(expected.parse().unwrap())
                            && second == Some(time.as_second())
                    }
                    _ => false,
                };
                if !good {
                    writeln!(wrong, "{filter}: {line}\n    {outcome:?}").unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {tried}:\n{wrong}");
}

#[test]
fn what_is_no_failure_is_none_in_any_way_it_arrives() {
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    for (filter, tag, message) in [
        ("sshd", "sshd", "Accepted publickey for root from 203.0.113.7 port 1 ssh2"),
        ("sshd", "sshd", "Failed publickey for root from 203.0.113.7 port 1 ssh2"),
        ("sshd", "sshd", "Failed none for invalid user x from 203.0.113.7 port 1 ssh2"),
        ("sshd", "cron", "Failed password for root from 203.0.113.7 port 1 ssh2"),
        ("sshd-preauth", "sshd", "Connection closed by 203.0.113.7 port 4711"),
        ("sshd-preauth", "sshd", "Connection closed by 203.0.113.7 port 4711 [preauth]"),
        ("sshd-preauth", "sshd", "Disconnected from user root 203.0.113.7 port 4711"),
        ("sshd-preauth", "sshd", "Received disconnect from 203.0.113.7 port 4711:11: bye"),
        (
            "sshd-preauth",
            "sshd",
            "drop connection #10 from [203.0.113.7]:1 on [192.0.2.1]:22 past MaxStartups",
        ),
        (
            "dovecot",
            "dovecot",
            "imap-login: Login: user=<u>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1, session=<a>",
        ),
        (
            "dovecot",
            "dovecot",
            "imap-login: Disconnected (no auth attempts in 2 secs): user=<>, rip=203.0.113.7, lip=192.0.2.1, session=<a>",
        ),
        (
            "dovecot",
            "dovecot",
            "imap-login: Login aborted: Connection closed (no auth attempts in 0 secs) (no_auth_attempts): user=<>, rip=203.0.113.7, lip=192.0.2.1, session=<a>",
        ),
        (
            "postfix-sasl",
            "postfix/smtpd",
            "warning: unknown[203.0.113.7]: SASL LOGIN authentication failed: Connection lost to authentication server",
        ),
        ("postfix-sasl", "postfix/smtpd", "connect from unknown[203.0.113.7]"),
        // a token that has expired, one who may not, a success, a logout, one who asks for another version
        (
            "ceph-dashboard",
            "haproxy",
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/1/1 401 449 - - ---- 1/1/0/0/0 0/0 "GET /api/summary HTTP/1.1""#,
        ),
        (
            "ceph-dashboard",
            "haproxy",
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/1/1 403 559 - - ---- 1/1/0/0/0 0/0 "POST /api/user HTTP/1.1""#,
        ),
        (
            "ceph-dashboard",
            "haproxy",
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/1/1 201 1851 - - ---- 1/1/0/0/0 0/0 "POST /api/auth HTTP/1.1""#,
        ),
        (
            "ceph-dashboard",
            "haproxy",
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/1/1 400 817 - - ---- 1/1/0/0/0 0/0 "POST /api/auth/logout HTTP/1.1""#,
        ),
        (
            "ceph-dashboard",
            "haproxy",
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_back/mgr-x 0/0/0/1/1 400 390 - - ---- 1/1/0/0/0 0/0 "POST /api/user/viewer/change_password HTTP/1.1""#,
        ),
        (
            "ceph-dashboard",
            "haproxy",
            r#"203.0.113.7:1 [21/Nov/2026:02:21:24.731] fe dashboard_front/<NOSRV> -1/-1/-1/-1/0 400 0 - - PR-- 2/2/0/0/0 0/0 "<BADREQ>""#,
        ),
        (
            "ceph-dashboard",
            "haproxy",
            "203.0.113.7:1 [21/Nov/2026:02:21:24.325] dashboard_tcp dashboard_back/mgr-x 1/0/182 405 -- 1/1/0/0/0 0/0",
        ),
        (
            "nginx-http-auth",
            "nginx",
            r#"203.0.113.7 - - [21/Nov/2026:02:21:24 +0000] "GET / HTTP/1.1" 401 35 "-" "-""#,
        ),
        (
            "nginx-http-auth",
            "nginx",
            r#"203.0.113.7 - bob [21/Nov/2026:02:21:24 +0000] "GET / HTTP/1.1" 200 35 "-" "x\x22 401 1 ""#,
        ),
    ] {
        for (envelope, stamped) in ENVELOPES.iter().chain(BARE).chain(FILE) {
            let line = envelope.replace('@', tag).replace('%', message);
            // without its tag a line of another daemon is nobody's
            if tag == "cron" && !envelope.contains('@') {
                continue;
            }
            let outcome = scanner(filter).line(line.as_bytes(), *stamped, now);
            assert!(!matches!(outcome, Outcome::Matched(_)), "{filter}: {line}");
        }
    }
}

/// How the documentation writes the length of time `text`, `10m`.
fn time(text: &str) -> String {
    let (count, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "m" => "min",
        "d" => "day",
        "w" => "week",
        other => other,
    };
    format!("{count} {unit}")
}

/// The rows of the documentation: all but what is counted comes from the shipped files, and that is
/// kept from `prose`, by the name of the jail.
fn rows(prose: &BTreeMap<&str, &str>) -> String {
    let text = |table: &toml::Table, key: &str| {
        table.get(key).and_then(|it| it.as_str()).map(String::from)
    };
    let mut rows = String::new();
    for service in services() {
        let path = format!("{}/../dist/shipped/{}.toml", env!("CARGO_MANIFEST_DIR"), service.name);
        let file: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let section =
            |name: &str| file.get(name).and_then(|it| it.as_table()).cloned().unwrap_or_default();
        let filters = section("filters");
        for (name, jail) in &section("jails") {
            let jail = jail.as_table().unwrap();
            let filter =
                text(jail, "filter").and_then(|name| filters.get(&name)?.as_table().cloned());
            let filter = filter.unwrap_or_default();
            let logs =
                [jail.get("logpath"), filter.get("logs")].into_iter().flatten().flat_map(|it| {
                    match it {
                        toml::Value::Array(paths) => {
                            paths.iter().filter_map(|path| path.as_str()).collect()
                        }
                        other => other
                            .as_str()
                            .into_iter()
                            .filter(|path| *path != "auto")
                            .collect::<Vec<_>>(),
                    }
                });
            let mut reads: Vec<String> = Vec::new();
            for path in logs {
                let name = format!("`{}`", path.rsplit('/').next().unwrap());
                if !reads.contains(&name) {
                    reads.push(name);
                }
            }
            if [jail, &filter].iter().any(|it| it.contains_key("journalmatch")) {
                reads.push("the journal".into());
            }
            if filter.get("raw").is_some() {
                reads.push("with [`raw_log`](#who-writes-a-log-line)".into());
            }
            if jail.get("bans").is_some() {
                reads.push("the agent's own bans".into());
            }
            let mut counts: Vec<String> =
                jail.get("maxretry").map(ToString::to_string).into_iter().collect();
            for (field, most) in
                jail.get("distinct").and_then(|it| it.as_table()).into_iter().flatten()
            {
                counts.push(format!("{most} different `{field}`"));
            }
            let [findtime, bantime] =
                ["findtime", "bantime"].map(|key| time(&text(jail, key).unwrap()));
            let what = prose
                .get(&**name)
                .unwrap_or_else(|| panic!("say in docs/filters-shipped.md what `{name}` counts"));
            let (of, counts, reads) = (&service.name, counts.join(" or "), reads.join(", "));
            writeln!(
                rows,
                "| `{of}` | `{name}` | {what} | {counts} in {findtime} | {bantime} | {reads} |"
            )
            .unwrap();
        }
    }
    rows
}

#[test]
fn the_documentation_has_every_jail_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/filters-shipped.md");
    let is = std::fs::read_to_string(path).unwrap();
    let (head, rest) = is.split_once("|---|---|---|---|---|---|\n").unwrap();
    let (table, tail) = rest.split_once("\n<!-- end -->").unwrap();
    let cells = table.lines().map(|row| row.split(" | ").collect::<Vec<_>>());
    let prose = cells.map(|cells| (cells[1].trim_matches('`'), cells[2])).collect();
    let ought = format!("{head}|---|---|---|---|---|---|\n{}\n<!-- end -->{tail}", rows(&prose));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &ought).unwrap();
    }
    assert!(
        is == ought,
        "{path} is out of date: run this test with BLESS=1, and look at the difference"
    );
}
