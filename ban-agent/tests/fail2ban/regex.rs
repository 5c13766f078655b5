//! Proof beside fail2ban: on one generated log, `fail2ban-regex` and `ban-agent test` with the same
//! filter of the installed package report the same failures and count the same lines. Nothing of
//! the package is copied.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{fmt::Write as _, fs, path::Path, process::Command};

use serde_json::Value;

const CONFIG: &str = "[agent]\nfail2ban = \"/etc/fail2ban\"\n";

/// A small generator (SplitMix64): the same log in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(below).unwrap()).unwrap()
    }

    /// Of one family within a session: in one that has an IPv4 address and then an IPv6 one,
    /// fail2ban up to 1.0 goes on with the older.
    fn address(&mut self, session: usize) -> String {
        match session % 4 {
            0 => format!("2001:db8:{:x}::{:x}", self.next(0xffff), self.next(0xffff)),
            _ => format!("203.0.113.{}", self.next(255)),
        }
    }

    fn user(&mut self) -> &'static str {
        let users = [
            "root",
            "admin",
            "bob from 198.51.100.1 port 1 ssh2",
            "x y",
            "",
            "\u{fc}ser",
            "a\"b",
            "198.51.100.2",
        ];
        users[self.next(users.len())]
    }
}

/// Lines of a log: `{A}` is an address, `{U}` a user name, `{N}` a number.
fn log(begin: &str, templates: &[&str]) -> String {
    let mut dice = Dice(7);
    let mut log = String::new();
    for index in 0..600 {
        let mut line = templates[dice.next(templates.len())].to_owned();
        let session = dice.next(30) + 100;
        for (word, text) in [
            ("{A}", dice.address(session)),
            ("{U}", dice.user().to_owned()),
            ("{N}", session.to_string()),
        ] {
            line = line.replace(word, &text);
        }
        let minute = index / 60;
        let second = index % 60;
        let begin =
            begin.replace("{M}", &format!("{minute:02}")).replace("{S}", &format!("{second:02}"));
        let date = begin.split_once("{LINE}").unwrap();
        writeln!(log, "{}{line}{}", date.0, date.1).unwrap();
    }
    log
}

/// What one of the two says of a log.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    /// The addresses of the failures, in order.
    failures: Vec<String>,
    lines: u64,
    ignored: u64,
    missed: u64,
}

/// Lines that wait for another one of their session count as matched there: no failure yet.
fn theirs(path: &Path, filter: &str) -> Report {
    let run = |words: &[&str]| {
        let mut command = Command::new("fail2ban-regex");
        command.args(["--no-check-all", "--usedns", "no"]).args(words).arg(path).arg(filter);
        let output = command.env("LC_ALL", "C.UTF-8").output().unwrap();
        assert!(output.status.success(), "{filter}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let failures = run(&["--out", "ip"]);
    let failures: Vec<_> =
        failures.lines().filter(|line| *line != "None").map(str::to_owned).collect();
    let summary = run(&[]);
    let line = summary.lines().find(|line| line.starts_with("Lines: ")).unwrap();
    let mut words = line.split([' ', ',']);
    let mut before = |name: &str| {
        let words: Vec<_> = words.by_ref().take_while(|word| *word != name).collect();
        words.iter().rev().find_map(|word| word.parse().ok()).unwrap()
    };
    let (lines, ignored) = (before("lines"), before("ignored"));
    let waiting = before("matched") - u64::try_from(failures.len()).unwrap();
    assert!(waiting == 0 || filter.starts_with("sshd"), "{filter} has no sessions");
    Report { failures, lines, ignored, missed: before("missed") + waiting }
}

fn ours(path: &Path, filter: &str) -> Report {
    let config = path.with_file_name("config.toml");
    fs::write(&config, CONFIG).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ban-agent"));
    command.arg("--config").arg(&config).args(["-o", "json", "test", "--each", filter]).arg(path);
    let output = command.output().unwrap();
    let (said, error) = (String::from_utf8(output.stdout).unwrap(), output.stderr);
    assert!(output.status.success(), "{filter}: {}", String::from_utf8_lossy(&error));
    let mut documents: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = documents.pop().unwrap();
    let failed = documents.iter().filter(|line| line["matched"] == true);
    let failures: Vec<_> =
        failed.map(|line| line["address"].as_str().unwrap().to_owned()).collect();
    let count = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(count("matched"), u64::try_from(failures.len()).unwrap(), "{filter}");
    let [lines, ignored, missed] = ["lines", "ignored", "missed"].map(count);
    Report { failures, lines, ignored, missed }
}

fn compare(filters: &[&str], begin: &str, templates: &[&str]) {
    if Command::new("fail2ban-regex").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
        eprintln!("skipped: the package fail2ban is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.log");
    fs::write(&path, log(begin, templates)).unwrap();
    for filter in filters {
        let (ours, theirs) = (ours(&path, filter), theirs(&path, filter));
        let failures = ours.failures.len();
        println!("{filter}: {failures} failures, {} missed", ours.missed);
        assert_eq!(ours, theirs, "{filter}: ours and fail2ban-regex");
        assert!(failures > 50 && ours.missed > 20, "{filter}: the log does not test it");
    }
}

#[test]
fn sshd_in_all_modes() {
    compare(
        &["sshd", "sshd[mode=ddos]", "sshd[mode=extra]", "sshd[mode=aggressive]"],
        "Nov 20 11:{M}:{S} edge sshd[{LINE}",
        &[
            "{N}]: Failed password for invalid user {U} from {A} port 4{N} ssh2",
            "{N}]: Failed password for {U} from {A} port 4{N} ssh2",
            "{N}]: Failed publickey for {U} from {A} port 4{N} ssh2: RSA SHA256:x",
            "{N}]: Failed publickey for invalid user {U} from {A} port 4{N} ssh2: RSA SHA256:x",
            "{N}]: Accepted publickey for admin from {A} port 4{N} ssh2: RSA SHA256:x",
            "{N}]: Invalid user {U} from {A} port 4{N}",
            "{N}]: Connection closed by authenticating user {U} {A} port 4{N} [preauth]",
            "{N}]: Connection closed by {A} port 4{N} [preauth]",
            "{N}]: Disconnected from user admin {A} port 4{N}",
            "{N}]: Disconnected from authenticating user root {A} port 4{N} [preauth]",
            "{N}]: Received disconnect from {A} port 4{N}:11: Bye Bye [preauth]",
            "{N}]: error: maximum authentication attempts exceeded for {U} from {A} port 4{N} ssh2 [preauth]",
            "{N}]: Disconnecting: Too many authentication failures [preauth]",
            "{N}]: Connection from {A} port 4{N} on 192.0.2.1 port 22 rdomain \"\"",
            "{N}]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={A}  user=root",
            "{N}]: pam_unix(sshd:session): session opened for user admin(uid=1000) by (uid=0)",
            "{N}]: User {U} from {A} not allowed because not listed in AllowUsers",
            "{N}]: Unable to negotiate with {A} port 4{N}: no matching cipher found. Their offer: x [preauth]",
            "{N}]: error: kex_exchange_identification: Connection closed by remote host",
            "{N}]: banner exchange: Connection from {A} port 4{N}: invalid format",
            "{N}]: Bad protocol version identification 'GET / HTTP/1.1' from {A} port 4{N}",
            "{N}]: Did not receive identification string from {A} port 4{N}",
            "{N}]: Server listening on 0.0.0.0 port 22.",
        ],
    );
}

#[test]
fn nginx() {
    compare(
        &["nginx-http-auth", "nginx-http-auth[mode=aggressive]", "nginx-limit-req"],
        "2026/11/20 11:{M}:{S} {LINE}",
        &[
            "[error] 7#7: *{N} user \"{U}\": password mismatch, client: {A}, server: x, request: \"GET / HTTP/1.1\", host: \"x\"",
            "[error] 7#7: *{N} user \"admin\" was not found in \"/etc/users\", client: {A}, server: , request: \"GET /{U} HTTP/1.1\", host: \"x\"",
            "[error] 7#7: *{N} limiting requests, excess: 5.{N} by zone \"one\", client: {A}, server: x, request: \"GET / HTTP/1.1\", host: \"x\"",
            "[error] 7#7: *{N} open() \"/srv/{U}\" failed (2: No such file or directory), client: {A}, server: x",
            "[crit] 7#7: *{N} SSL_do_handshake() failed (SSL: error:141CF06C:SSL routines:tls_parse_ctos_key_share:bad key share too long) while SSL handshaking, client: {A}, server: 0.0.0.0:443",
            "[notice] 7#7: signal process started",
        ],
    );
}

#[test]
fn postfix() {
    compare(
        &["postfix", "postfix[mode=auth]", "postfix[mode=aggressive]", "postfix[mode=rbl]"],
        "Nov 20 11:{M}:{S} mx postfix/{LINE}",
        &[
            "smtpd[{N}]: NOQUEUE: reject: RCPT from unknown[{A}]: 554 5.7.1 <x@example.org>: Relay access denied; from=<a@b.c> to=<x@example.org> proto=ESMTP helo=<x>",
            "smtpd[{N}]: NOQUEUE: reject: RCPT from unknown[{A}]: 550 5.1.1 <x@example.org>: Recipient address rejected: User unknown in local recipient table; from=<> to=<x@example.org> proto=SMTP helo=<{U}>",
            "smtpd[{N}]: NOQUEUE: reject: RCPT from unknown[{A}]: 554 5.7.1 Service unavailable; Client host [{A}] blocked using bl.example; x",
            "smtpd[{N}]: warning: unknown[{A}]: SASL LOGIN authentication failed: UGFzc3dvcmQ6",
            "smtpd[{N}]: warning: unknown[{A}]: SASL PLAIN authentication failed: Connection lost to authentication server",
            "smtpd[{N}]: lost connection after AUTH from unknown[{A}]",
            "smtpd[{N}]: connect from unknown[{A}]",
            "smtpd[{N}]: disconnect from unknown[{A}] ehlo=1 auth=0/1 commands=1/2",
            "qmgr[{N}]: 4F9D195432C: from=<a@b.c>, size=1000, nrcpt=1 (queue active)",
        ],
    );
}

#[test]
fn dovecot() {
    compare(
        &["dovecot", "dovecot[mode=aggressive]"],
        "Nov 20 11:{M}:{S} mx dovecot: {LINE}",
        &[
            "imap-login: Disconnected (auth failed, {N} attempts in 2 secs): user=<{U}>, method=PLAIN, rip={A}, lip=192.0.2.1, TLS",
            "pop3-login: Aborted login (auth failed, 1 attempts in 3 secs): user=<bob>, method=PLAIN, rip={A}, lip=192.0.2.1, session=<x>",
            "imap-login: Disconnected (no auth attempts in 5 secs): user=<>, rip={A}, lip=192.0.2.1, TLS",
            "imap-login: Login: user=<bob>, method=PLAIN, rip={A}, lip=192.0.2.1, mpid={N}, TLS",
            "auth-worker({N}): pam({U},{A}): pam_authenticate() failed: Authentication failure (password mismatch?)",
            "auth: passwd-file(bob,{A}): unknown user",
            "imap(bob): Logged out in=1 out=2",
        ],
    );
}

/// Ports of five digits: with fewer, fail2ban takes the port for the last group of an IPv6 address,
/// and ours leaves such a line alone.
#[test]
fn apache() {
    compare(
        &["apache-auth"],
        "[Fri Nov 20 11:{M}:{S}.123456 2026] [{LINE}",
        &[
            "auth_basic:error] [pid {N}] [client {A}:40{N}] AH01618: user {U} not found: /",
            "auth_basic:error] [pid {N}] [client {A}:40{N}] AH01617: user admin: authentication failure for \"/{N}\": Password Mismatch",
            "authz_core:error] [pid {N}] [client {A}:40{N}] AH01630: client denied by server configuration: /srv/x",
            "core:notice] [pid {N}] AH00094: Command line: '/usr/sbin/apache2'",
            "core:error] [pid {N}] [client {A}:40{N}] AH00126: Invalid URI in request GET {U} HTTP/1.1",
        ],
    );
}

#[test]
fn recidive() {
    compare(
        &["recidive"],
        "2026-11-20 11:{M}:{S},123 fail2ban.{LINE}",
        &[
            "actions        [{N}]: NOTICE  [sshd] Ban {A}",
            "actions        [{N}]: NOTICE  [sshd] Unban {A}",
            "actions        [{N}]: NOTICE  [recidive] Ban {A}",
            "actions        [{N}]: NOTICE  [nginx] Restore Ban {A}",
            "filter         [{N}]: INFO    [sshd] Found {A} - 2026-11-20 11:00:00",
        ],
    );
}
