//! Proof against fail2ban itself: the sample logs of the installed fail2ban package, through our
//! engine, case by case. Its files are read where the package put them, never copied.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::IpAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use ban_agent::{
    fail2ban,
    filter::{Failure, Filter, Outcome, Scanner},
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::Value;

const PACKAGE: &str = "/usr/lib/python3/dist-packages/fail2ban/tests";
const CONFIG: &str = "/etc/fail2ban";
/// What the samples take for now, and for the local zone.
const NOW: i64 = 1_124_013_600;
const ZONE: &str = "Europe/Zurich";
/// Cases that may fail, by filter and line of its log, and why. At most one case in a hundred.
const EXCEPTIONS: &[(&str, usize, &str)] =
    &[("sshd", 5, ZERO), ("sshd-journal", 9, ZERO), ("zzz-generic-example", 51, ZERO)];
const ZERO: &str = "an IPv4 address with leading zeros is not canonical: it names nobody, as some \
                    read it as octal";

#[test]
fn sample_logs_of_the_installed_package() {
    if !Path::new(PACKAGE).join("files/logs").is_dir() {
        assert!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
        eprintln!("skipped: the package fail2ban is not installed");
        return;
    }
    let mut run = Run::default();
    let tree = tempfile::tempdir().unwrap();
    for root in [PathBuf::from(CONFIG), source_tree(tree.path())] {
        for name in filters(&root) {
            run.filter(&root, &name);
        }
    }
    print!("{}", run.report);
    println!("fail2ban's samples: {} of {} cases pass", run.passed, run.cases);
    assert!(run.cases > 1000, "the samples were not found");
    assert!(run.unexplained.is_empty(), "cases fail without a known reason");
    assert!(run.passed * 100 >= run.cases * 99, "fewer than 99 % pass");
}

/// The package's test configuration, placed as its includes expect it: in a source tree, beside
/// the configuration.
fn source_tree(tree: &Path) -> PathBuf {
    let root = tree.join("usr/lib/python3/fail2ban/tests/config");
    fs::create_dir_all(root.join("filter.d")).unwrap();
    symlink(CONFIG, tree.join("config")).unwrap();
    for entry in fs::read_dir(Path::new(PACKAGE).join("config/filter.d")).unwrap() {
        let path = entry.unwrap().path();
        symlink(&path, root.join("filter.d").join(path.file_name().unwrap())).unwrap();
    }
    root
}

/// The filters of a configuration that have samples.
fn filters(root: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root.join("filter.d"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !name.ends_with("common"))
        .collect();
    if root != Path::new(CONFIG) {
        names.retain(|name| name.starts_with("zzz-"));
    }
    names.sort();
    names
}

type Options = BTreeMap<String, Value>;

#[derive(Default)]
struct Run {
    cases: usize,
    passed: usize,
    unexplained: Vec<String>,
    report: String,
}

impl Run {
    fn filter(&mut self, root: &Path, name: &str) {
        let mut logs = vec![name.to_owned()];
        let mut scanners: BTreeMap<String, Scanner> = BTreeMap::new();
        let mut sample =
            Sample { root, name, common: Options::new(), options: vec![Options::new()] };
        let mut next = 0;
        while let Some(log) = logs.get(next).cloned() {
            next += 1;
            let bytes = fs::read(Path::new(PACKAGE).join("files/logs").join(&log)).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let mut expected = Value::Null;
            for (index, line) in text.split('\n').enumerate() {
                if let Some((word, value)) = directive(line) {
                    match word {
                        "addFILE" => logs.push(value.as_str().unwrap().to_owned()),
                        "fileOptions" => sample.common = options(&value),
                        "filterOptions" => sample.set_options(&value),
                        _ => expected = value,
                    }
                    continue;
                }
                let directed = !expected.is_null();
                let expected = std::mem::take(&mut expected);
                if !directed && (line.starts_with('#') || line.trim().is_empty()) {
                    continue;
                }
                for options in sample.options.clone() {
                    let place = (log.as_str(), index + 1);
                    self.case(&sample, &mut scanners, &options, place, line, &expected);
                }
            }
        }
    }

    fn case(
        &mut self,
        sample: &Sample<'_>,
        scanners: &mut BTreeMap<String, Scanner>,
        options: &Options,
        (log, number): (&str, usize),
        line: &str,
        expected: &Value,
    ) {
        if !holds(sample.name, options, expected.get("constraint")) {
            return;
        }
        let call = sample.call(options);
        let scanner = scanners.entry(call.clone()).or_insert_with(|| scanner(sample.root, &call));
        let now = Timestamp::from_second(NOW).unwrap();
        let line = line.trim_end_matches(['\r', '\n']);
        let outcome = if options.get("logtype").and_then(Value::as_str) == Some("journal") {
            let prefix = options.get("test.prefix-line").and_then(Value::as_str).unwrap_or("");
            scanner.line(format!("{now} {prefix}{line}").as_bytes(), true, now)
        } else {
            scanner.line(line.as_bytes(), false, now)
        };
        self.cases += 1;
        let Err(problem) = compare(&outcome, expected) else {
            self.passed += 1;
            return;
        };
        let known = EXCEPTIONS.iter().find(|known| (known.0, known.1) == (log, number));
        let reason = known.map_or("no reason known", |known| known.2);
        let shown = format!("{call} {log}:{number}: {problem} ({reason})");
        writeln!(self.report, "{shown}").unwrap();
        if known.is_none() {
            self.unexplained.push(shown);
        }
    }
}

struct Sample<'r> {
    root: &'r Path,
    name: &'r str,
    common: Options,
    options: Vec<Options>,
}

impl Sample<'_> {
    fn set_options(&mut self, value: &Value) {
        let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        self.options = list
            .iter()
            .map(|value| {
                let mut merged = self.common.clone();
                merged.append(&mut options(value));
                merged
            })
            .filter(|options| holds(self.name, options, options.get("test.condition")))
            .collect();
    }

    /// The filter with its options as `ban-agent test` takes it.
    fn call(&self, options: &Options) -> String {
        let given: Vec<String> = options
            .iter()
            .filter(|(key, _)| !key.starts_with("test."))
            .map(|(key, value)| format!("{key}=\"{}\"", value.as_str().unwrap()))
            .collect();
        format!("{}[{}]", self.name, given.join(", "))
    }
}

fn options(value: &Value) -> Options {
    value.as_object().unwrap().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// `failJSON`, `filterOptions`, `fileOptions` or `addFILE` in a comment, and its JSON.
fn directive(line: &str) -> Option<(&str, Value)> {
    let text = line.strip_prefix('#')?.trim_start_matches('#');
    let text = text.strip_prefix(' ').unwrap_or(text);
    let words = ["failJSON", "filterOptions", "fileOptions", "addFILE"];
    let (word, value) = text.split_once(':')?;
    words.contains(&word).then(|| (word, serde_json::from_str(value).unwrap()))
}

/// The few conditions that the samples use, which are Python.
fn holds(name: &str, options: &Options, condition: Option<&Value>) -> bool {
    let Some(condition) = condition.and_then(Value::as_str) else { return true };
    let condition = condition.replace(' ', "");
    let quoted = |text: &str| text.trim_matches('\'').to_owned();
    if let Some(wanted) = condition.strip_prefix("name==") {
        return name == quoted(wanted);
    }
    let mode = options.get("mode").and_then(Value::as_str).unwrap_or_default();
    if let Some(wanted) = condition.strip_prefix("opts.get('mode')==") {
        return mode == quoted(wanted);
    }
    if let Some(wanted) = condition.strip_prefix("opts.get('mode')!=") {
        return mode != quoted(wanted);
    }
    panic!("unknown condition {condition}");
}

fn scanner(root: &Path, call: &str) -> Scanner {
    let mut spec = fail2ban::filter(root, call).unwrap();
    spec.usedns = true;
    spec.logtimezone = Some(ZONE.to_owned());
    Scanner::new(Arc::new(Filter::compile(&spec).unwrap()))
}

/// Whether the outcome is what the sample says.
fn compare(outcome: &Outcome, expected: &Value) -> Result<(), String> {
    let wanted = expected.get("match").and_then(Value::as_bool).unwrap_or(false);
    let failure = match outcome {
        Outcome::Matched(failure) if wanted => failure,
        Outcome::Matched(failure) => {
            return Err(format!("matched by pattern {}", failure.pattern));
        }
        other if wanted => return Err(format!("{other:?}")),
        _ => return Ok(()),
    };
    if let Some(host) = expected.get("host").and_then(Value::as_str)
        && who(failure) != canonical(host)
    {
        return Err(format!("{} instead of {host}", who(failure)));
    }
    if let Some(user) = expected.get("user").and_then(Value::as_str) {
        let got = failure.fields.get("user").map_or("", String::as_str);
        if got != user {
            return Err(format!("user {got} instead of {user}"));
        }
    }
    let Some(time) = expected.get("time").and_then(Value::as_str) else { return Ok(()) };
    let time = TimeZone::get(ZONE).unwrap().to_timestamp(written(time)).unwrap();
    match failure.time {
        Some(got) if got.as_millisecond() / 10 == time.as_millisecond() / 10 => Ok(()),
        got => Err(format!("{got:?} instead of {time}")),
    }
}

/// Reads a time as the samples write them: not every number has two digits.
fn written(text: &str) -> DateTime {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let numbers: Vec<i16> =
        whole.split(['-', 'T', ':']).map(|number| number.parse().unwrap()).collect();
    let small = |index: usize| i8::try_from(numbers[index]).unwrap();
    let nanos = format!("{fraction:0<9}").parse().unwrap();
    DateTime::new(numbers[0], small(1), small(2), small(3), small(4), small(5), nanos).unwrap()
}

/// An address in its canonical spelling; other text as it is.
fn canonical(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_owned(), |address| address.to_string())
}

fn who(failure: &Failure) -> String {
    let name = || failure.fields.get("dns").cloned();
    let id = failure.id.clone();
    let address = failure.address.map(|address| address.to_string());
    address.or(id).or_else(name).unwrap_or_default()
}
