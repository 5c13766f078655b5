//! The filter as a whole: lines in, failures out.

use std::sync::Arc;

use jiff::Timestamp;

use super::*;

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn spec(failregex: &[&str]) -> Spec {
    Spec {
        name: "test".to_owned(),
        failregex: failregex.iter().map(|&text| text.to_owned()).collect(),
        logtimezone: Some("UTC".to_owned()),
        ..Spec::default()
    }
}

fn scanner(spec: &Spec) -> Scanner {
    Scanner::new(Arc::new(Filter::compile(spec).unwrap()))
}

/// `address time` of a line's failure, or what else it is.
fn verdict(scanner: &mut Scanner, line: &[u8]) -> String {
    match scanner.line(line, false, now()) {
        Outcome::Matched(failure) => {
            let who = failure.address.map(|address| address.to_string());
            let when = failure.time.map(|time| time.to_string());
            format!("{} {}", who.or(failure.id).unwrap_or_default(), when.unwrap_or_default())
        }
        other => format!("{other:?}"),
    }
}

fn check(failregex: &[&str], lines: &[(&str, &str)]) {
    let mut scanner = scanner(&spec(failregex));
    for (line, expected) in lines {
        assert_eq!(verdict(&mut scanner, line.as_bytes()), *expected, "{line}");
    }
}

const NGINX: &str = r#"^<ADDR> \S+ \S+ \[\] "(?:GET|POST|HEAD) [^"]*" 401 "#;

#[test]
fn an_access_log() {
    let day = "20/Nov/2026:11:59:00 +0100";
    check(
        &[NGINX],
        &[
            (
                &format!(r#"203.0.113.7 - - [{day}] "GET /client/api HTTP/1.1" 401 2 "-" "x""#),
                "203.0.113.7 2026-11-20T10:59:00Z",
            ),
            (
                &format!(r#"2001:db8::7 - bob [{day}] "POST / HTTP/1.1" 401 2 "-" "x""#),
                "2001:db8::7 2026-11-20T10:59:00Z",
            ),
            (
                &format!(r#"::ffff:203.0.113.7 - - [{day}] "GET / HTTP/1.1" 401 2"#),
                "203.0.113.7 2026-11-20T10:59:00Z",
            ),
            (&format!(r#"203.0.113.7 - - [{day}] "GET / HTTP/1.1" 200 401 "#), "Missed"),
            (&format!(r#"203.0.113.999 - - [{day}] "GET / HTTP/1.1" 401 2"#), "Missed"),
            (&format!(r#"9203.0.113.7 - - [{day}] "GET / HTTP/1.1" 401 2"#), "Missed"),
        ],
    );
}

/// Apache's error log: the client with his port, an IPv6 address without brackets.
#[test]
fn a_port_that_may_be_absent_makes_no_other_address() {
    let optional = r"^ ?\[\] \[client <HOST>(:\d{1,5})?\] AH01617: ";
    let line = |client: &str| {
        format!("[Fri Nov 20 11:59:00 2026] [client {client}] AH01617: user a: mismatch")
    };
    let failed = |address: &str| format!("{address} 2026-11-20T11:59:00Z");
    let cases = [
        ("203.0.113.7:2345", failed("203.0.113.7"), failed("203.0.113.7")),
        ("2001:db8::1:50000", failed("2001:db8::1"), failed("2001:db8::1")),
        ("2001:db8:1:2:3:4:5:6:22", failed("2001:db8:1:2:3:4:5:6"), failed("2001:db8:1:2:3:4:5:6")),
        ("2001:db8::a:b:c:d:2345", "Missed".into(), failed("2001:db8::a:b:c:d")),
        ("::1:2345", "Missed".into(), failed("::1")),
        ("2001:db8::7", failed("2001:db8::7"), "Missed".into()),
    ];
    let mandatory = optional.replace(")?", ")");
    for (client, expected, with_port) in cases {
        check(&[optional], &[(&line(client), &expected)]);
        check(&[&mandatory], &[(&line(client), &with_port)]);
    }
    // they are counted, also where prefregex took the address
    let mut spec = spec(&["user a: mismatch$"]);
    spec.prefregex = Some(optional.to_owned() + "<F-CONTENT>.+</F-CONTENT>$");
    let mut scanner = scanner(&spec);
    assert_eq!(verdict(&mut scanner, line("2001:db8::1:22").as_bytes()), "Missed");
    assert_eq!((scanner.counts().bad_address, scanner.counts().unclear), (1, 1));
    assert_eq!(Vec::from_iter(spec.optional_ports().map(|(key, _)| key)), ["prefregex"]);
}

#[test]
fn syslog_lines_without_a_year() {
    check(
        &[
            r"^\s*\S+ sshd\[\d+\]: Failed password for (?:invalid user )?<F-USER>.*</F-USER> from <ADDR> port \d+ ssh2$",
        ],
        &[
            (
                "Nov 20 11:58:01 host sshd[1]: Failed password for root from 203.0.113.7 port 2 ssh2",
                "203.0.113.7 2026-11-20T11:58:01Z",
            ),
            (
                "Dec  1 11:58:01 host sshd[1]: Failed password for root from 203.0.113.7 port 2 ssh2\r\n",
                "203.0.113.7 2025-12-01T11:58:01Z",
            ),
            (
                "Nov 20 11:58:01 host sshd[1]: Failed password for invalid user a from 1.2.3.4 port 1 ssh2 from 203.0.113.7 port 2 ssh2",
                "203.0.113.7 2026-11-20T11:58:01Z",
            ),
            ("Nov 20 11:58:01 host sshd[1]: Accepted password for root from 203.0.113.7", "Missed"),
        ],
    );
}

#[test]
fn fields_ids_and_prefixes() {
    let mut scanner = scanner(&spec(&[
        "^user <F-USER>\\S+</F-USER> id <F-ID>\\S+</F-ID>$",
        "^net <SUBNET>$",
        "^both <F-ID>\\S+@<ADDR></F-ID>$",
    ]));
    let mut failure = |line: &str| match scanner.line(line.as_bytes(), false, now()) {
        Outcome::Matched(failure) => failure,
        other => panic!("{line}: {other:?}"),
    };
    let first = failure("user bob id session-7");
    assert_eq!((first.address, first.id.as_deref()), (None, Some("session-7")));
    assert_eq!(first.fields.get("user").map(String::as_str), Some("bob"));
    assert_eq!(failure("net 203.0.113.9/24").id.as_deref(), Some("203.0.113.0/24"));
    assert_eq!(failure("net 203.0.113.9/32").address, Some("203.0.113.9".parse().unwrap()));
    let both = failure("both bob@203.0.113.7");
    assert_eq!(both.address, Some("203.0.113.7".parse().unwrap()));
    assert_eq!(both.id.as_deref(), Some("bob@203.0.113.7"));
}

#[test]
fn an_ignoreregex_excuses() {
    let mut spec = spec(&["^bad .* from <ADDR>$"]);
    spec.ignoreregex = vec!["friend".to_owned()];
    let mut scanner = scanner(&spec);
    assert_eq!(verdict(&mut scanner, b"bad x from 203.0.113.7"), "203.0.113.7 ");
    assert_eq!(verdict(&mut scanner, b"bad friend from 203.0.113.7"), "Ignored");
}

#[test]
fn a_session_told_in_several_lines() {
    let mut spec = spec(&[
        "^<F-NOFAIL>connect</F-NOFAIL> from <ADDR>$",
        "^failed for <F-USER>\\S+</F-USER>$",
        "^<F-MLFFORGET>bye</F-MLFFORGET>$",
    ]);
    spec.prefregex =
        Some(r"^\s*d\[<F-MLFID>\d+</F-MLFID>\]: <F-CONTENT>.+</F-CONTENT>$".to_owned());
    let mut scanner = scanner(&spec);
    assert_eq!(verdict(&mut scanner, b"d[1]: connect from 203.0.113.7"), "Pending");
    assert_eq!(verdict(&mut scanner, b"d[2]: failed for bob"), "Pending");
    assert_eq!(verdict(&mut scanner, b"d[1]: failed for bob"), "203.0.113.7 ");
    // The failure of session 2 was owed: now somebody is named.
    assert_eq!(verdict(&mut scanner, b"d[2]: connect from 203.0.113.8"), "203.0.113.8 ");
}

#[test]
fn patterns_over_several_lines() {
    let mut spec = spec(&["^a (?P<_id>\\d+) <ADDR><SKIPLINES>^b (?P=_id)$"]);
    spec.maxlines = 4;
    let mut scanner = scanner(&spec);
    assert_eq!(verdict(&mut scanner, b"a 1 203.0.113.7"), "Missed");
    assert_eq!(verdict(&mut scanner, b"noise"), "Missed");
    assert_eq!(verdict(&mut scanner, b"b 2"), "Missed");
    assert_eq!(verdict(&mut scanner, b"b 1"), "203.0.113.7 ");
    assert_eq!(verdict(&mut scanner, b"b 1"), "Missed");
}

#[test]
fn stamped_lines_bring_their_time() {
    let mut scanner = scanner(&spec(&["^Jan 1 00:00:00 from <ADDR>$"]));
    let line = b"2026-11-20T11:00:00.5Z Jan 1 00:00:00 from 203.0.113.7\n";
    let Outcome::Matched(failure) = scanner.line(line, true, now()) else { panic!() };
    assert_eq!(failure.time.unwrap().to_string(), "2026-11-20T11:00:00.5Z");
}

#[test]
fn a_buffer_is_scanned_as_its_lines_are() {
    let good = r#"203.0.113.7 - - [20/Nov/2026:11:59:00 +0000] "GET / HTTP/1.1" 401 2 "-" "x""#;
    let mut log: Vec<u8> = Vec::new();
    for number in 0..1000_u32 {
        match number % 10 {
            0 => log.extend_from_slice(good.as_bytes()),
            1 => log.extend_from_slice(&[0; 300]),
            2 => log.extend_from_slice(b"\xff\xfe 401 \xc3\x28"),
            3 => log.extend_from_slice(format!("\0\0\0{good}\r").as_bytes()),
            4 => {}
            _ => log.extend_from_slice(b"nothing to see here"),
        }
        log.push(b'\n');
    }
    let mut scanner = scanner(&spec(&[NGINX]));
    let mut seen = Vec::new();
    let counts = scanner.scan(&log, false, now(), &mut |failure, line| {
        assert_eq!(failure.address, Some("203.0.113.7".parse().unwrap()));
        seen.push(line.len());
    });
    assert_eq!((counts.lines, counts.matched, counts.missed()), (1000, 200, 800));
    assert_eq!(seen.len(), 200);
}

#[test]
fn invalid_utf8_in_a_name_hides_nobody() {
    let mut scanner = scanner(&spec(&["^failed .* from <ADDR>$"]));
    assert_eq!(verdict(&mut scanner, b"failed \xff\xfe\xc3 from 203.0.113.7"), "203.0.113.7 ");
}

#[test]
fn an_overlong_line_names_nobody() {
    // Cut anywhere, this line would accuse the address at the cut.
    let accusation = b" from 203.0.113.7 failed ";
    let line =
        [b"failed ", accusation.repeat(MAX_LINE / accusation.len() + 1).as_slice(), b"\n"].concat();
    let mut scanner = scanner(&spec(&["^failed .* from <ADDR>( failed )?$"]));
    let counts = scanner.scan(&line, false, now(), &mut |_, _| panic!());
    assert_eq!((counts.lines, counts.overlong, counts.matched), (1, 1, 0));
    // A long one is read to its end.
    let line =
        [b"failed ".as_slice(), &vec![b'x'; MAX_LINE - 100], b" from 203.0.113.7\n"].concat();
    let counts = scanner.scan(&line, false, now(), &mut |_, _| {});
    assert_eq!((counts.lines, counts.overlong, counts.matched), (1, 0, 1));
}

#[test]
fn catastrophic_backtracking_is_cut_short() {
    let mut scanner = scanner(&spec(&[
        r"^(?=(a+)+$)x|(?:(a|aa)+)(?<!b)\Zq? from <ADDR>|^(?:(?=a)a|(?=a)aa)+c from <ADDR>",
    ]));
    let line = [vec![b'a'; 4000], b"b c from 203.0.113.7".to_vec()].concat();
    scanner.line(&line, false, now());
    assert!(scanner.counts().limited <= 1);
}

#[test]
fn clear_errors() {
    for (failregex, expected) in [
        (&["(<ADDR>"][..], "filter test: failregex '(<ADDR>': missing ')'"),
        (&[r"^\y <ADDR>"], r"filter test: failregex '^\y <ADDR>': bad escape \y"),
        (
            &["no address"],
            "filter test: failregex 'no address' names no address: it needs <ADDR>, <HOST> or <F-ID>",
        ),
        (&[" "], "filter test: failregex ' ': the pattern is empty"),
    ] {
        assert_eq!(Filter::compile(&spec(failregex)).unwrap_err().to_string(), expected);
    }
    let mut dated = spec(&["<ADDR>"]);
    dated.datepattern = vec!["%Q".to_owned()];
    let message = Filter::compile(&dated).unwrap_err().to_string();
    assert_eq!(message, "filter test: datepattern '%Q': unknown field %Q");
}

#[test]
fn dates_of_many_kinds() {
    // The same instant in each of the formats that need no configuration.
    for line in [
        "2026-11-20 11:00:00,123 x from 203.0.113.7",
        "2026-11-20T11:00:00.123456+00:00 x from 203.0.113.7",
        "2026-11-20T11:00:00.123456789Z x from 203.0.113.7",
        "2026/11/20 11:00:00 x from 203.0.113.7",
        "Fri Nov 20 11:00:00.123456 2026 x from 203.0.113.7",
        "Nov 20 11:00:00 x from 203.0.113.7",
        "Nov 20 2026 11:00:00 x from 203.0.113.7",
        "20/11/2026 11:00:00 x from 203.0.113.7",
        "20-11-26 11:00:00 x from 203.0.113.7",
        "20/Nov/2026:11:00:00 +0000 x from 203.0.113.7",
        "20-Nov-2026 11:00:00.123 x from 203.0.113.7",
        "11/20/2026:11:00:00 x from 203.0.113.7",
        "11-20-2026 11:00:00.123 x from 203.0.113.7",
        "1795172400 x from 203.0.113.7",
        "[1795172400] x from 203.0.113.7",
        "type=X msg=audit(1795172400.123:45): x from 203.0.113.7",
        "11:00:00 x from 203.0.113.7",
        "<11/20/26@11:00:00> x from 203.0.113.7",
        "261120 11:00:00 x from 203.0.113.7",
        "Nov 20, 2026 11:00:00 AM x from 203.0.113.7",
        "Nov-20-26 11:00:00 x from 203.0.113.7",
        "20261120T110000Z x from 203.0.113.7",
        "UTC Nov 20 11:00:00 x from 203.0.113.7",
        "+0100 Nov 20 12:00:00 x from 203.0.113.7",
        "@400000006b0028301dcd6500 x from 203.0.113.7",
    ] {
        let mut scanner = scanner(&spec(&[r"x from <ADDR>$"]));
        let got = verdict(&mut scanner, line.as_bytes());
        let (address, time) = got.split_once(' ').unwrap();
        assert_eq!(address, "203.0.113.7", "{line}");
        assert!(time.starts_with("2026-11-20T11:00:00"), "{line}: {time}");
    }
}

#[test]
fn custom_date_patterns() {
    for (pattern, line, expected) in [
        ("%Y:%m:%d-%H:%M:%S", "2026:11:20-11:00:00 from 203.0.113.7", "2026-11-20T11:00:00Z"),
        (
            r"^[^\[]*\[({DATE})",
            "a [20/Nov/2026:11:00:00 +0000] from 203.0.113.7",
            "2026-11-20T11:00:00Z",
        ),
        ("LEPOCH", "1795172400123 from 203.0.113.7", "2026-11-20T11:00:00.123Z"),
        ("^t={EPOCH}", "t=1795172400 from 203.0.113.7", "2026-11-20T11:00:00Z"),
        ("{UNB}%H:%M:%S", "x11:00:00x from 203.0.113.7", "2026-11-20T11:00:00Z"),
        ("%d/%b/%y %I:%M %p", "20/Nov/26 01:00 pm from 203.0.113.7", "2026-11-20T13:00:00Z"),
        ("{NONE}", "2026-11-20 11:00:00 from 203.0.113.7", ""),
    ] {
        let mut spec = spec(&["from <ADDR>$"]);
        spec.datepattern = vec![pattern.to_owned()];
        let got = verdict(&mut scanner(&spec), line.as_bytes());
        assert_eq!(got, format!("203.0.113.7 {expected}"), "{pattern}");
    }
}

#[test]
fn a_line_without_a_date_follows_a_recent_one() {
    let mut scanner = scanner(&spec(&["from <ADDR>$"]));
    assert_eq!(verdict(&mut scanner, b"from 203.0.113.7"), "203.0.113.7 ");
    verdict(&mut scanner, b"2026-11-20 11:59:30 from 203.0.113.7");
    assert_eq!(verdict(&mut scanner, b"from 203.0.113.8"), "203.0.113.8 2026-11-20T11:59:30Z");
}

/// Pieces that lines are made of: literals of the patterns, dates, addresses, junk.
const PIECES: &[&[u8]] = &[
    b"203.0.113.7",
    b"2001:db8::7",
    b" - - [20/Nov/2026:11:59:00 +0000] ",
    b"Nov 20 11:00:00 ",
    b"\"GET / HTTP/1.1\" 401 ",
    b" 401 ",
    b"failed ",
    b"Failed",
    b" from ",
    b"x",
    b" ",
    b"\n",
    b"\0\0",
    b"\xff",
    b"\r",
    b"2026-11-20T11:00:00Z ",
    b"bad",
    b"[]",
    b"\"",
    b"1795172400 ",
];

proptest::proptest! {
    /// The prefilter rejects nothing that a pattern would have matched, and a buffer means what
    /// its lines mean, whatever it holds.
    #[test]
    fn rejecting_early_changes_nothing(picks in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        let spec = spec(&[NGINX, "^\\s*failed .* from <ADDR>$", "^.*[bB]ad x from <HOST>"]);
        let quick = Filter::compile(&spec).unwrap();
        proptest::prop_assert!(quick.rejects_early());
        let mut slow = Filter::compile(&spec).unwrap();
        slow.prefilter = None;
        let log: Vec<u8> = picks.iter().flat_map(|pick| PIECES[*pick].to_vec()).collect();
        let found = |filter: Filter| {
            let mut found = Vec::new();
            let mut scanner = Scanner::new(Arc::new(filter));
            let mut counts = scanner.scan(&log, false, now(), &mut |failure, line| {
                found.push((failure.address, failure.pattern, line.to_vec()));
            });
            // lines that came near a pattern are known by rejecting early alone
            counts.near = 0;
            (counts, found)
        };
        proptest::prop_assert_eq!(found(quick), found(slow));
    }

    /// What several filters find in one pass is what each finds by itself, also what it counts, and
    /// whatever their texts share or differ in by case alone.
    #[test]
    fn one_pass_for_all_changes_nothing(
        picks in proptest::collection::vec(0..PIECES.len(), 0..60),
        backlog in proptest::bool::ANY,
    ) {
        let filters = [
            vec![NGINX],
            vec!["^\\s*failed .* from <ADDR>$", "^.*[bB]ad x from <HOST>"],
            vec!["(?i)^\\s*FAILED .* from <ADDR>$"],
            vec!["^.*Failed .* from <ADDR>$"],
            vec!["^.*<HOST>"],
        ];
        let filters: Vec<_> =
            filters.iter().map(|all| Arc::new(Filter::compile(&spec(all)).unwrap())).collect();
        let log: Vec<u8> = picks.iter().flat_map(|pick| PIECES[*pick].to_vec()).collect();
        let shared = SharedPrefilter::new(filters.iter().map(|filter| &**filter)).unwrap();
        for (filter, starts) in filters.iter().zip(shared.sort(&log)) {
            proptest::prop_assert_eq!(starts.is_some(), filter.rejects_early());
            let found = |starts: Option<&[Start]>| {
                let mut found = Vec::new();
                let mut scanner = Scanner::new(Arc::clone(filter));
                scanner.turn_to(backlog, false, true);
                let mut sink = |failure: &Failure, line: &[u8]| {
                    found.push((failure.clone(), line.to_vec()));
                };
                let counts = match starts {
                    Some(starts) => {
                        let count = lines_in(&log);
                        scanner.scan_at(&log, starts, count, false, now(), &mut sink)
                    }
                    None => scanner.scan(&log, false, now(), &mut sink),
                };
                (counts, found)
            };
            proptest::prop_assert_eq!(found(starts.as_deref()), found(None));
        }
    }
}

#[test]
fn in_a_backlog_an_undated_line_is_of_the_last_date() {
    let lines = b"2026-11-20 09:00:00 nobody asks about this\nbad user from 203.0.113.7\n\
                  2026-11-20 10:00:00 hello\n  a trace\n  another\nbad user from 203.0.113.8\n";
    let times = |backlog: bool, other: bool, lines: &[u8], scanner: &mut Scanner| {
        let mut times = Vec::new();
        scanner.turn_to(backlog, !backlog, other);
        scanner.scan(lines, false, now(), &mut |failure, _| {
            times.push(failure.time.map(|time| time.to_string()).unwrap_or_default());
        });
        times
    };
    let mut scanner = scanner(&spec(&["^bad user from <ADDR>$"]));
    let dated = ["2026-11-20T09:00:00Z", "2026-11-20T10:00:00Z"];
    assert_eq!(times(true, true, lines, &mut scanner), dated);
    // the next part of the same log, the beginning of another one, and what is written now
    let line = b"bad user from 203.0.113.7\n";
    assert_eq!(times(true, false, line, &mut scanner), ["2026-11-20T10:00:00Z"]);
    assert_eq!(times(true, true, line, &mut scanner), [""]);
    assert_eq!(times(true, true, lines, &mut scanner), dated);
    assert_eq!(times(false, false, line, &mut scanner), [""], "an old date says nothing of now");
}

/// Returns when a failure of this one line is said to have happened, and whether another clock is
/// blamed.
fn told(zone: &str, line: &str, now: &str, live: bool) -> (String, u64) {
    let spec = Spec { logtimezone: Some(zone.into()), ..spec(&["bad user from <ADDR>$"]) };
    let mut scanner = scanner(&spec);
    scanner.turn_to(!live, live, true);
    let mut time = String::new();
    let counts = scanner.scan(line.as_bytes(), false, now.parse().unwrap(), &mut |failure, _| {
        time = failure.time.unwrap().to_string();
    });
    (time, counts.other_clock)
}

#[test]
fn what_is_written_now_is_of_now_whatever_a_clock_without_a_zone_says() {
    let now = "2026-11-20T12:00:00Z";
    // a container logs UTC on a host in Berlin (13:00 there), and clocks that are 15 min to 5 h late
    for stamp in [
        "Nov 20 12:00:00",
        "Nov 20 12:45:00",
        "Nov 20 11:00:00",
        "2026-11-20 08:00:00.5",
        "Nov 20 15:00:00",
    ] {
        let line = format!("{stamp} edge app: bad user from 203.0.113.5\n");
        assert_eq!(told("Europe/Berlin", &line, now, true), (now.to_owned(), 1), "{stamp}");
        // in what was there before, each keeps its own time
        let (time, blamed) = told("Europe/Berlin", &line, now, false);
        assert!(time != now && blamed == 0, "{stamp}: {time}");
    }
    for (stamp, time) in [
        // a minute is no other clock
        ("Nov 20 12:59:00", "2026-11-20T11:59:00Z"),
        ("Nov 20 13:01:00", "2026-11-20T12:01:00Z"),
        // one that names its zone is believed, also if the line was long on its way
        ("2026-11-20T11:00:00+00:00", "2026-11-20T11:00:00Z"),
        ("20/Nov/2026:11:00:00 +0000", "2026-11-20T11:00:00Z"),
        ("1795172400", "2026-11-20T11:00:00Z"),
    ] {
        let line = format!("{stamp} edge app: bad user from 203.0.113.5\n");
        assert_eq!(told("Europe/Berlin", &line, now, true), (time.to_owned(), 0), "{stamp}");
    }
}

#[test]
fn an_hour_that_the_clock_shows_twice_is_the_one_that_has_just_been() {
    // on 25 October 2026 clocks in Berlin go from 03:00 back to 02:00 at 01:00 UTC
    let line = "Oct 25 02:30:00 edge app: bad user from 203.0.113.5\n";
    for (now, live, time) in [
        ("2026-10-25T00:30:10Z", true, "2026-10-25T00:30:00Z"),
        ("2026-10-25T01:30:10Z", true, "2026-10-25T01:30:00Z"),
        ("2026-10-25T00:40:00Z", false, "2026-10-25T00:30:00Z"),
        ("2026-10-25T01:40:00Z", false, "2026-10-25T01:30:00Z"),
    ] {
        assert_eq!(told("Europe/Berlin", line, now, live), (time.to_owned(), 0), "{now}");
    }
    // before the second pass has come to it, such a stamp is of the first; and live it is of now
    let (now, early) = ("2026-10-25T01:10:00Z", "2026-10-25T00:30:00Z");
    assert_eq!(told("Europe/Berlin", line, now, false).0, early);
    assert_eq!(told("Europe/Berlin", line, now, true), (now.to_owned(), 1));
}

#[test]
fn lines_of_a_container_are_tried_as_text_and_as_they_are_wrapped() {
    let text = r#"2026-11-20T12:00:00Z 203.0.113.5 - - "GET /x.php HTTP/1.1" 404"#;
    let raw = r#"{"log":"203.0.113.5 - - \"GET /x.php HTTP/1.1\" 404\n","stream":"stdout","time":"2026-11-20T12:00:00Z"}"#;
    let now = "2026-11-20T12:00:01Z".parse().unwrap();
    for (pattern, wrapped, expected) in [
        (r#"^\s?<HOST> - - "GET .*\.php"#, true, 1),
        (r#"^{"log":"<HOST> -.*GET.*\.php"#, true, 1),
        (r#"^{"log":"<HOST> -.*GET.*\.php"#, false, 0),
        // one line is one failure
        (r#"<HOST> - - .*\.php"#, true, 1),
    ] {
        let spec =
            Spec { failregex: vec![pattern.to_owned()], wrapped, maxlines: 1, ..Spec::default() };
        let mut scanner = Scanner::new(Arc::new(Filter::compile(&spec).unwrap()));
        let mut found = Vec::new();
        let both = [format!("{text}\n").repeat(2), format!("{raw}\n").repeat(2)];
        let counts =
            scanner.scan_both(both[0].as_bytes(), both[1].as_bytes(), now, &mut |failure, _| {
                found.push((failure.address.unwrap().to_string(), failure.time.unwrap()));
            });
        let failure = ("203.0.113.5".to_owned(), "2026-11-20T12:00:00Z".parse().unwrap());
        assert_eq!(found, vec![failure; 2 * expected], "{pattern}");
        assert_eq!((counts.lines, counts.matched), (2, 2 * expected as u64), "{pattern}");
    }
}

#[test]
fn behind_a_trusted_proxy_the_chain_names_the_client() {
    let nginx = r#"^<ADDR> \S+ \S+ \[\] "[^"]*" 401 \d+ "[^"]*" "[^"]*" "<F-XFF>[^"]*</F-XFF>"$"#;
    let mut spec = spec(&[nginx]);
    assert!(spec.asks_proxies());
    let line = |peer: &str, chain: &str| {
        let request = r#""GET / HTTP/1.1" 401 2 "-" "x""#;
        format!(r#"{peer} - - [20/Nov/2026:11:59:00 +0000] {request} "{chain}""#)
    };
    let time = " 2026-11-20T11:59:00Z";
    let victim = "198.51.100.66, 203.0.113.7";
    let read = |spec: &Spec, peer: &str, chain: &str| {
        let mut scanner = scanner(spec);
        let said = verdict(&mut scanner, line(peer, chain).as_bytes());
        (said.replace(time, ""), scanner.counts().bad_address)
    };
    // nobody is trusted: the peer it is
    assert_eq!(read(&spec, "192.0.2.1", victim), ("192.0.2.1".into(), 0));
    spec.proxies = vec!["192.0.2.0/24".parse().unwrap()];
    for (peer, chain, expected) in [
        ("192.0.2.1", victim, ("203.0.113.7", 0)),
        ("203.0.113.9", victim, ("203.0.113.9", 0)),
        ("192.0.2.1", "-", ("Ignored", 0)),
        ("192.0.2.1", "198.51.100.66, somebody", ("Missed", 1)),
    ] {
        assert_eq!(read(&spec, peer, chain), (expected.0.into(), expected.1), "{peer} {chain}");
    }
    let outcome = scanner(&spec).line(line("192.0.2.1", victim).as_bytes(), false, now());
    let Outcome::Matched(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!((&*failure.fields["proxy"], &*failure.fields["xff"]), ("192.0.2.1", victim));
}

#[test]
fn a_line_may_say_that_a_user_came_in() {
    let failregex = ["^Failed password for <F-USER>\\S+</F-USER> from <ADDR>$"];
    let success = "^Accepted password for <F-USER>\\S+</F-USER> from <ADDR>$";
    let mut spec = Spec { successregex: vec![success.to_owned()], ..spec(&failregex) };
    let mut scanner = scanner(&spec);
    assert!(scanner.filter().rejects_early());
    let log = b"Failed password for bob from 203.0.113.7\nAccepted password for bob from 203.0.113.7\nx\n";
    let mut found = Vec::new();
    let counts = scanner.scan(log, false, now(), &mut |failure, _| {
        found.push((failure.success, failure.fields["user"].clone()));
    });
    assert_eq!(found, [(false, "bob".to_owned()), (true, "bob".to_owned())]);
    assert_eq!((counts.matched, counts.succeeded, counts.missed()), (1, 1, 1));
    // without a name it would forgive everybody's
    spec.successregex = vec!["^Accepted password from <ADDR>$".to_owned()];
    let error = Filter::compile(&spec).unwrap_err();
    assert!(error.to_string().contains("<F-USER>"), "{error}");
}

#[test]
fn a_list_of_ten_thousand_words_is_one_pattern() {
    let list: Vec<String> = (0..10_000).map(|number| format!("/probe/{number}.php")).collect();
    let words = Words::from([("paths".to_owned(), list.into())]);
    let pattern = r#"^<ADDR> \S+ \S+ \[\] "[A-Z]+ <F-PATH>(?i:<LIST:paths>)</F-PATH>[ ?]"#;
    let spec = Spec { words, ..spec(&[pattern]) };
    assert_eq!(spec.lists().collect::<Vec<_>>(), ["paths"]);
    let mut scanner = scanner(&spec);
    assert!(scanner.filter().rejects_early());
    for (path, expected) in [
        ("/probe/0.php", true),
        ("/probe/9999.php?x", true),
        ("/PROBE/77.PHP", true),
        ("/probe/10000.php", false),
        ("/probe/77.phpx", false),
        ("/x/probe/77.php", false),
    ] {
        let line = format!(
            r#"203.0.113.7 - - [20/Nov/2026:11:59:00 +0000] "GET {path} HTTP/1.1" 404 2 "-" "x""#
        );
        let outcome = scanner.line(line.as_bytes(), false, now());
        assert_eq!(matches!(outcome, Outcome::Matched(_)), expected, "{path}");
    }
    let unknown = Spec { words: Words::new(), ..spec };
    let error = Filter::compile(&unknown).unwrap_err().to_string();
    assert!(error.contains("there is no list 'paths'"), "{error}");
}

#[test]
fn lines_that_another_program_carried() {
    let failed = "Failed password for bob from 203.0.113.7";
    let entry = |message: &str| {
        format!(
            r#"{{"__REALTIME_TIMESTAMP":"1795175940000000","SYSLOG_IDENTIFIER":"x","_HOSTNAME":"edge","MESSAGE":"{message}"}}"#
        )
    };
    let pattern = r"^ ?(?:edge x: )?Failed password for \S+ from <ADDR>$";
    let missed = "Missed";
    check(
        &[pattern],
        &[
            (
                &format!("ssh-1  | 2026-11-20T11:59:00Z {failed}"),
                "203.0.113.7 2026-11-20T11:59:00Z",
            ),
            (&format!("ssh-1  | 2026-11-20 11:58:00 {failed}"), "203.0.113.7 2026-11-20T11:58:00Z"),
            (&entry(failed), "203.0.113.7 2026-11-20T11:59:00Z"),
            // a second line within an entry, and a prefix within the text
            (&entry(&format!("x\\n{failed}")), missed),
            (&format!("x ssh-1 | {failed}"), missed),
            (&format!("ssh-1 | ssh-1 | {failed}"), missed),
        ],
    );
}
