//! Python's dialect, judged by Python: patterns and texts are made at random, and both engines say
//! what they find.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    pattern::{Pattern, Place},
    time::Dates,
    words::Words,
};
use crate::filter::time::Detector;

/// Pairs of a pattern and a text.
const PAIRS: usize = 3000;

/// Pieces of patterns; some make no sense where they come to stand, and are refused by Python.
const PIECES: &[&str] = &[
    "a",
    "b",
    "\u{e4}",
    " ",
    "#",
    "-",
    "1",
    "^",
    "$",
    ".",
    "|",
    "(",
    "(?:",
    "(?P<n>",
    "(?=",
    "(?!",
    "(?<=a)",
    "(?<!b)",
    ")",
    ")",
    ")",
    "*",
    "+",
    "?",
    "{2}",
    "{,2}",
    "{1,}",
    "{",
    "}",
    "\\040",
    "[\\040]",
    "\\141",
    "\\0",
    "[\\141-c]",
    "\\x41",
    "[\\x41\\x20]",
    "\\u00e4",
    "\\t",
    "\\n",
    "\\.",
    "\\-",
    "\\<",
    "\\#",
    "\\ ",
    "\\/",
    "\\d",
    "\\D",
    "\\w",
    "\\W",
    "\\s",
    "\\S",
    "\\b",
    "\\B",
    "\\A",
    "\\Z",
    "[a-b ]",
    "[^a]",
    "[]a]",
    "[^]a]",
    "[-a]",
    "[a-]",
    "[+--]",
    "[\\w-]",
    "[^\\W1]",
    "[\\s\\d]",
    "[\\b]",
    "[\\]\\[]",
    "[a&&b]",
    "[a||b]",
    "[~a]",
    "[[:a]",
    "(?i:",
    "(?-i:",
    "(?s:",
    "(?x:",
    "(?a:",
    "((?i)",
    "\\1",
    "(?P=n)",
    "(?(n)a|b)",
    "(?#x)",
    "(?>",
    "++",
    "*?",
    "A",
    "ba",
    "\\101",
];
/// What a pattern may begin with.
const HEADS: &[&str] = &["", "", "", "(?i)", "(?x)", "(?xi)", "(?s)", "(?m)", "(?a)", "(?u)", "^"];
/// Pieces of texts.
const TEXTS: &[&str] = &[
    "a", "b", "A", "B", "ab", "ba", "\u{e4}", "\u{c4}", " ", "#", "-", "1", "\u{663}", "\u{1d}",
    "\u{a0}", ".", "[", "]", "\t", "+", ",", "&", "|", "~", "{", "}", ":", "_", "\u{b2}", "\u{8}",
    "\0", "/", "<",
];

const JUDGE: &str = r#"
import json, re, sys, warnings
warnings.simplefilter("ignore")
for line in sys.stdin:
    pattern, text = json.loads(line)
    try:
        found = re.compile(pattern).search(text)
    except (re.error, OverflowError):
        print("null")
        continue
    print(json.dumps([] if not found else [found.span(), found.groupdict().get("n")]))
"#;

/// A small generator (SplitMix64): the same pairs in every run.
struct Dice(u64);

impl Dice {
    fn of<'t>(&mut self, all: &[&'t str]) -> &'t str {
        all[self.below(all.len())]
    }

    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(below).unwrap()).unwrap()
    }

    fn join(&mut self, all: &[&str], most: usize) -> String {
        (0..=self.below(most)).map(|_| self.of(all)).collect()
    }
}

/// Returns what Python says of each of `asked`; `None`: there is no Python here.
fn judged(script: &str, python: &str, asked: &[Value]) -> Option<Vec<Value>> {
    let child = Command::new(python)
        .args(["-c", script])
        .env("PYTHONPATH", "/usr/lib/python3/dist-packages")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("SKIPPED: there is no {python} to judge by");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = asked.iter().map(|value| format!("{value}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    if !output.status.success() {
        println!("SKIPPED: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), asked.len());
    Some(said)
}

/// The same of ours: where, in characters, and the text of the group `n`.
fn ours(pattern: &str, text: &str) -> Result<Value, String> {
    let words = Words::new();
    let place = Place { filter: "x", key: "failregex", words: &words };
    let pattern = Pattern::new(pattern, place, false, false).map_err(|error| error.to_string())?;
    let Some(groups) = pattern.captures(text).map_err(|_| "limit".to_owned())? else {
        return Ok(json!([]));
    };
    let span = groups.span();
    let chars = |end: usize| text[..end].chars().count();
    let group = pattern
        .names()
        .find(|(_, name)| *name == "n")
        .and_then(|(index, _)| groups.0[index].clone().map(|range| text[range].to_owned()));
    Ok(json!([[chars(span.start), chars(span.end)], group]))
}

/// What is known to differ, and why.
fn listed(pattern: &str, text: &str) -> bool {
    // words end where Unicode says so there, and where `str.isalnum` does in Python: that differs
    // at numbers that are no digits
    (pattern.contains("\\b") || pattern.contains("\\B")) && text.contains('\u{b2}')
}

#[test]
fn patterns_find_what_they_find_in_python() {
    let mut dice = Dice(11);
    let pairs: Vec<(String, String)> = (0..PAIRS)
        .map(|_| {
            let pattern = dice.of(HEADS).to_owned() + &dice.join(PIECES, 6);
            (pattern, dice.join(TEXTS, 8))
        })
        .collect();
    let asked: Vec<Value> = pairs.iter().map(|(pattern, text)| json!([pattern, text])).collect();
    let Some(said) = judged(JUDGE, "python3", &asked) else { return };
    let (mut compared, mut differences) = (0, Vec::new());
    for ((pattern, text), said) in pairs.iter().zip(said) {
        // what Python refuses, fail2ban refuses
        if said.is_null() || pattern.trim().is_empty() || listed(pattern, text) {
            continue;
        }
        compared += 1;
        let ours = ours(pattern, text);
        if ours.as_ref() != Ok(&said) {
            differences.push(format!("{pattern:?} in {text:?}: python {said}, ours {ours:?}"));
        }
    }
    assert!(compared > PAIRS / 3, "{compared} pairs of sense");
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

const DATES: &str = r#"
import json, sys
from fail2ban.server.datedetector import DateDetector
from fail2ban.server.mytime import MyTime
MyTime.setTime(1795176000)
for line in sys.stdin:
    pattern, text = json.loads(line)
    detector = DateDetector()
    detector.appendTemplate(pattern)
    match = detector.matchTime(text)
    found = match[0]
    if not found:
        print("[]")
        continue
    date = detector.getTime(found.group(1), match)
    print(json.dumps([found.group(1), date and int(date[0])]))
"#;

/// Date patterns, and the lines that each is tried on.
const PATTERNS: &[&str] = &[
    r"\**%H:%M:%S %d.%m.%Y\**",
    r"**%H:%M:%S %d.%m.%Y**",
    r"\*%H:%M:%S %d.%m.%Y\*",
    "%c",
    "%x %X",
    r"\[%x %X\]",
    "%Y-%m-%d %H:%M:%S",
    "{UNB}%Y-%m-%d %H:%M:%S",
    "{^LN-BEG}%Y-%m-%d %H:%M:%S",
    r"^%Y-%m-%d %H:%M:%S$",
    r"^on (%Y-%m-%d %H:%M:%S) at",
    r"(?:%Y-%m-%d %H:%M:%S)?",
    r"%Y-%m-%d\040%H:%M:%S",
    r"(?x) %Y-%m-%d [ ] %H:%M:%S",
    r"%d/%b/%Y\s+%I:%M:%S %p",
    r"%Y %j %H:%M:%S",
    "%y%m%d %H:%M:%S",
    r"<%a %b %d %H:%M:%S %Y>\s",
    r"(%H:%M:%S|%Y) end$",
];
const LINES: &[&str] = &[
    "*12:00:00 20.11.2026* x",
    "***12:00:00 20.11.2026** x",
    "x12:00:00 20.11.2026y",
    "at 12:00:00 20.11.2026 x",
    "Fri Nov 20 12:00:00 2026 x",
    "x fri  nov  9 12:00:00  2026",
    "11/20/26 12:00:00 x",
    "[11/20/26 12:00:00] x",
    "2026-11-20 12:00:00 x",
    "x2026-11-20 12:00:00y",
    "[2026-11-20 12:00:00] x",
    "x 2026-11-20 12:00:00",
    "2026-11-20 12:00:00",
    "on 2026-11-20 12:00:00 at",
    "0000-11-20 12:00:00 x",
    "2026-02-30 12:00:00 x",
    "20/Nov/2026  12:00:00 PM x",
    "20/Nov/2026 12:00:00 AM x",
    "2026 324 12:00:00 x",
    "261120 12:00:00 x",
    "<Fri Nov 20 12:00:00 2026> x",
    "12:00:00 end",
    "x 2026 end",
];

/// The judge is fail2ban, if it is installed.
#[test]
fn dates_are_those_that_fail2ban_finds() {
    let pairs =
        || PATTERNS.iter().flat_map(|pattern| LINES.iter().map(move |line| (*pattern, *line)));
    let asked: Vec<Value> = pairs().map(|(pattern, line)| json!([pattern, line])).collect();
    let Some(said) = judged(DATES, "/usr/bin/python3", &asked) else { return };
    let now = jiff::Timestamp::from_second(1_795_176_000).unwrap();
    let mut differences = Vec::new();
    for ((pattern, line), said) in pairs().zip(said) {
        let mut dates = Dates::new(&[pattern.to_owned()]).unwrap();
        assert!(dates.set_zone("UTC"));
        let ours = match Detector::new(&dates).find(line, now) {
            None => json!([]),
            Some(stamp) => json!([&line[stamp.cut], stamp.time.map(jiff::Timestamp::as_second)]),
        };
        if ours != said && !(ours[0] == "" && said[0] == "") {
            differences.push(format!("{pattern:?} in {line:?}: fail2ban {said}, ours {ours}"));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn of_a_count_of_seconds_only_the_group_is_cut_out() {
    let line = "type=USER_LOGIN msg=audit(1795172400.123:1): pid=1 res=failed";
    for (pattern, cut) in [
        (r"^type=\S+ msg=audit\(({EPOCH})", "1795172400.123"),
        (r"^type=\S+ msg=(audit\({EPOCH}:\d+\))", "audit(1795172400.123:1)"),
        (r"^type=\S+ msg=audit\({EPOCH}", "type=USER_LOGIN msg=audit(1795172400.123"),
        ("audit\\({EPOCH}", "audit(1795172400.123"),
    ] {
        let dates = Dates::new(&[pattern.to_owned()]).unwrap();
        let stamp = Detector::new(&dates).find(line, jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(&line[stamp.cut], cut, "{pattern}");
        assert_eq!(stamp.time.unwrap().as_millisecond(), 1_795_172_400_123, "{pattern}");
    }
}
