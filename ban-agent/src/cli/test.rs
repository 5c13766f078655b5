//! `ban-agent test`: what a filter matches in a file. It needs no agent and no privilege.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, BufRead, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Cli,
    args::Test,
    failure::{Failure, chain},
    output,
};
use crate::{
    config,
    control::SCHEMA,
    event::{disarm, disarm_json, escape},
    fail2ban,
    filter::{self, Filter, MAX_LINE, Outcome, Scanner},
    jail, source,
};

/// Where fail2ban's filters are, unless the configuration says otherwise.
const FAIL2BAN: &str = "/etc/fail2ban";

pub(super) fn run(cli: &Cli, args: &Test) -> Result<ExitCode, Failure> {
    let (name, file) = positionals(args)?;
    let spec = spec(cli, args, name)?;
    let filter = Filter::compile(&spec).map_err(|error| Failure::new(78, error))?;
    let mut tester = Tester::new(&spec, filter, args, cli.json());
    if file == Path::new("-") {
        tester.read(io::stdin().lock(), "standard input")?;
    } else {
        let opened = source::open(&file)
            .map_err(|error| Failure::new(2, format!("cannot read {}: {error}", file.display())))?;
        tester.engine = source::Engine::of(&file);
        tester.read(opened, &file.display().to_string())?;
    }
    tester.finish()
}

/// With `--failregex` the one positional argument is the file.
fn positionals(args: &Test) -> Result<(Option<&str>, PathBuf), Failure> {
    match (&args.filter, &args.file) {
        (Some(name), Some(file)) => Ok((Some(name), file.clone())),
        (Some(file), None) if !args.failregex.is_empty() => Ok((None, file.into())),
        _ => Err(Failure::new(2, "which file?").hint("ban-agent test FILTER FILE, or - as FILE")),
    }
}

/// Returns the filter of that name, the jail's, fail2ban's, or one of the given patterns.
fn spec(cli: &Cli, args: &Test, name: Option<&str>) -> Result<filter::Spec, Failure> {
    let mut spec = match name {
        Some(name) => named(cli, name)?,
        None => filter::Spec { name: "--failregex".into(), maxlines: 1, ..Default::default() },
    };
    if !args.failregex.is_empty() {
        spec.failregex.clone_from(&args.failregex);
        spec.document = None;
    }
    Ok(spec)
}

/// Returns the filter of the jail of that name, or the filter of that name: the operator's own,
/// then fail2ban's if the configuration names its folder, then a shipped one.
fn named(cli: &Cli, name: &str) -> Result<filter::Spec, Failure> {
    let (config, faults) = match config::load_sound(&cli.config) {
        // without a configuration the shipped filters are there all the same
        Err(config::Error::Read { path, source })
            if path == cli.config && source.kind() == io::ErrorKind::NotFound =>
        {
            (config::shipped()?, Vec::new())
        }
        config => config?,
    };
    faults.iter().for_each(|fault| log::warn!("{}", chain(fault)));
    if let Some(jail) =
        config.jails.iter().find(|jail| &*jail.rules.name == name && reads_logs(jail))
    {
        return Ok((*jail.rules.filter).clone());
    }
    let filter = config.filters.get(name);
    let shipped = config::shipped()?.filters;
    let folder = config.agent.fail2ban.as_deref();
    match filter {
        Some(own) if shipped.get(name) != Some(own) => return Ok((**own).clone()),
        Some(shipped) if folder.is_none() => return Ok((**shipped).clone()),
        _ => {}
    }
    match (fail2ban::filter(folder.unwrap_or(Path::new(FAIL2BAN)), name), filter) {
        (Ok(spec), _) => Ok(spec),
        (Err(fail2ban::Error::NoFilter { .. }), Some(shipped)) => Ok((**shipped).clone()),
        (Err(error), _) => {
            let known: Vec<&str> = config.filters.keys().map(String::as_str).collect();
            Err(Failure::new(2, format!("there is no filter '{name}': {error}"))
                .hint(format!("known filters: {}", known.join(", "))))
        }
    }
}

/// Not what this agent does itself.
fn reads_logs(jail: &jail::Spec) -> bool {
    !jail.sources.contains(&source::Spec::Bans)
}

/// The document of one line.
#[derive(Serialize)]
struct Each {
    line: u64,
    matched: bool,
    ignored: bool,
    address: Option<String>,
    time: Option<Timestamp>,
    fields: BTreeMap<String, String>,
}

/// The document at the end.
#[derive(Serialize)]
struct Summary {
    schema: u32,
    lines: u64,
    matched: u64,
    ignored: u64,
    missed: u64,
    overlong: u64,
    unclear: u64,
    malformed: u64,
    succeeded: u64,
    patterns: Vec<Pattern>,
    seconds: f64,
}

/// One pattern's share.
#[derive(Serialize)]
struct Pattern {
    failregex: String,
    matched: u64,
    seconds: f64,
}

struct Tester<'a> {
    args: &'a Test,
    json: bool,
    scanner: Scanner,
    /// What wrapped the lines, as the file source would tell.
    engine: Option<source::Engine>,
    now: Timestamp,
    summary: Summary,
    spent: Duration,
    out: String,
}

impl<'a> Tester<'a> {
    fn new(spec: &filter::Spec, filter: Filter, args: &'a Test, json: bool) -> Tester<'a> {
        let patterns = spec
            .patterns()
            .into_iter()
            .map(|failregex| Pattern { failregex, matched: 0, seconds: 0.0 })
            .collect();
        Tester {
            args,
            json,
            scanner: Scanner::new(Arc::new(filter)).timed(),
            engine: None,
            now: args.now.unwrap_or_else(Timestamp::now),
            summary: Summary {
                schema: SCHEMA,
                lines: 0,
                matched: 0,
                ignored: 0,
                missed: 0,
                overlong: 0,
                unclear: 0,
                malformed: 0,
                succeeded: 0,
                patterns,
                seconds: 0.0,
            },
            spent: Duration::ZERO,
            out: String::new(),
        }
    }

    fn read(&mut self, mut input: impl BufRead, name: &str) -> Result<(), Failure> {
        let failed = |error| Failure::new(2, format!("cannot read {name}: {error}"));
        // nobody asks about a line that nothing is found in
        let each = self.args.print_missed || self.args.print_ignored || self.args.each;
        if self.engine.is_none() && !each {
            let mut said = Ok(());
            let read = source::in_blocks(&mut input, MAX_LINE, |lines| {
                if said.is_ok() {
                    self.block(lines);
                    said = self.flush();
                }
            });
            return said.and(read.map_err(failed));
        }
        let mut line = Vec::new();
        while next_line(&mut input, &mut line).map_err(failed)? {
            self.line(&line)?;
        }
        Ok(())
    }

    /// Reads whole lines.
    fn block(&mut self, lines: &[u8]) {
        let start = Instant::now();
        let Tester { scanner, summary, out, .. } = self;
        let print = self.args.print_matched && !self.json;
        let counts = scanner.scan(lines, false, self.now, &mut |failure, line| {
            if failure.success {
                return;
            }
            if let Some(pattern) = summary.patterns.get_mut(failure.pattern) {
                pattern.matched += 1;
            }
            if print {
                out.push_str(&escape(line));
                out.push('\n');
            }
        });
        self.spent += start.elapsed();
        summary.lines += counts.lines;
        summary.matched += counts.matched;
        summary.ignored += counts.ignored;
        summary.succeeded += counts.succeeded;
        summary.missed += counts.missed() + counts.pending;
        summary.overlong += counts.overlong;
        summary.unclear += counts.unclear;
        summary.malformed += counts.malformed;
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let start = Instant::now();
        let outcome = match &mut self.engine {
            None => self.scanner.line(line, false, self.now),
            Some(engine) => {
                // a piece of a line is no line
                let (text, raw) = engine.unwrap(line);
                self.scanner.either(&text, &raw, self.now).0
            }
        };
        self.spent += start.elapsed();
        self.summary.lines += 1;
        self.summary.overlong += self.scanner.counts().overlong;
        self.summary.unclear += self.scanner.counts().unclear;
        self.summary.malformed += self.scanner.counts().malformed;
        let print = match &outcome {
            Outcome::Matched(failure) => {
                self.summary.matched += 1;
                if let Some(pattern) = self.summary.patterns.get_mut(failure.pattern) {
                    pattern.matched += 1;
                }
                self.args.print_matched
            }
            Outcome::Ignored => {
                self.summary.ignored += 1;
                self.args.print_ignored
            }
            Outcome::Succeeded(_) => {
                self.summary.succeeded += 1;
                false
            }
            Outcome::Missed | Outcome::Pending => {
                self.summary.missed += 1;
                self.args.print_missed
            }
        };
        if self.json && self.args.each {
            self.each(&outcome)?;
        } else if !self.json && print {
            self.out.push_str(&escape(line));
            self.out.push('\n');
        }
        if self.out.len() > 1 << 16 { self.flush() } else { Ok(()) }
    }

    fn each(&mut self, outcome: &Outcome) -> Result<(), Failure> {
        let mut each = Each {
            line: self.summary.lines,
            matched: false,
            ignored: *outcome == Outcome::Ignored,
            address: None,
            time: None,
            fields: BTreeMap::new(),
        };
        if let Outcome::Matched(failure) = outcome {
            each.matched = true;
            each.address = failure
                .address
                .map(|address| address.to_string())
                .or_else(|| failure.id.as_ref().map(|id| escape(id.as_bytes())));
            each.time = failure.time;
            each.fields = failure
                .fields
                .iter()
                .map(|(name, value)| (name.clone(), escape(value.as_bytes())))
                .collect();
        }
        let text = serde_json::to_string(&each).map_err(|error| Failure::new(2, error))?;
        self.out.push_str(&text);
        self.out.push('\n');
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.out.is_empty() {
            return Ok(());
        }
        let text = std::mem::take(&mut self.out);
        output::raw(&if self.json { disarm_json(&text) } else { disarm(&text) })
    }

    /// Prints the summary; exit code 1 if nothing matched.
    fn finish(mut self) -> Result<ExitCode, Failure> {
        self.flush()?;
        self.summary.seconds = self.spent.as_secs_f64();
        for (pattern, spent) in self.summary.patterns.iter_mut().zip(self.scanner.spent()) {
            pattern.seconds = spent.as_secs_f64();
        }
        if self.json {
            output::object(&self.summary)?;
        } else {
            output::print(&human(&self.summary))?;
        }
        Ok(ExitCode::from(u8::from(self.summary.matched == 0)))
    }
}

/// Reads a line without its newline; of one that is too long no more than shows that to the scanner.
/// False: there is none.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    // room for the longest line with its `\r\n`
    let limit = u64::try_from(MAX_LINE + 2).unwrap_or(u64::MAX);
    let count = input.by_ref().take(limit).read_until(b'\n', line)?;
    if line.pop_if(|last| *last == b'\n').is_none() {
        input.skip_until(b'\n')?;
    }
    Ok(count > 0)
}

fn human(summary: &Summary) -> String {
    let Summary { lines, matched, ignored, missed, seconds, .. } = summary;
    let mut text = format!(
        "{lines} lines: {matched} matched, {ignored} ignored, {missed} missed, in {:.1} ms\n",
        seconds * 1000.0
    );
    if summary.overlong > 0 {
        let _ =
            writeln!(text, "{} of the missed are longer than {MAX_LINE} bytes", summary.overlong);
    }
    if summary.unclear > 0 {
        let unclear = summary.unclear;
        let _ =
            writeln!(text, "{unclear} of the missed name an IPv6 address that may end in a port");
    }
    if summary.succeeded > 0 {
        let _ = writeln!(text, "{} say that a user came in", summary.succeeded);
    }
    if summary.malformed > 0 {
        let malformed = summary.malformed;
        let _ = writeln!(
            text,
            "{malformed} of the missed hold a document that is not whole, or says something twice"
        );
    }
    // those that matched, and those that cost much for nothing
    let telling = |pattern: &&Pattern| pattern.matched > 0 || pattern.seconds * 10.0 > *seconds;
    for pattern in summary.patterns.iter().filter(telling) {
        let Pattern { failregex, matched, seconds } = pattern;
        let _ = writeln!(text, "{matched:>8} {:>9.1} ms  {}", seconds * 1000.0, quoted(failregex));
    }
    text
}

/// Returns a pattern as it was written, so that a shell, and our TOML unless it holds a `'`, reads
/// it back.
fn quoted(pattern: &str) -> String {
    if pattern.contains(char::is_control) {
        // a pattern of several lines is no line; people see what it is
        return escape(pattern.as_bytes());
    }
    format!("'{}'", pattern.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Test {
        Test {
            filter: None,
            file: None,
            failregex: Vec::new(),
            now: None,
            each: false,
            print_matched: false,
            print_missed: false,
            print_ignored: false,
        }
    }

    #[test]
    fn a_pattern_can_be_pasted_back() {
        for (pattern, shown) in [
            (r"^bad \S+ <ADDR>$", r"'^bad \S+ <ADDR>$'"),
            (r#"^"x" \[\] \"$"#, r#"'^"x" \[\] \"$'"#),
            ("it's", r"'it'\''s'"),
            ("é$HOME`x`", "'é$HOME`x`'"),
        ] {
            assert_eq!(quoted(pattern), shown);
            let echoed = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {shown}")])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), pattern);
            if !pattern.contains('\'') {
                let table: toml::Table = format!("x = {shown}").parse().unwrap();
                assert_eq!(table["x"].as_str(), Some(pattern));
            }
        }
        assert_eq!(quoted("a\nb"), r"a\u{a}b");
    }

    #[test]
    fn the_log_of_a_container_is_read_as_the_agent_reads_it() {
        let line = |text: &str| {
            format!(r#"{{"log":"{text}","stream":"stdout","time":"2026-11-20T12:00:00Z"}}"#) + "\n"
        };
        let log = line("bad 203.0.113.7\\n") + &line("a piece of bad ") + &line("203.0.113.8\\n");
        for (pattern, wrapped, expected) in [
            ("bad <ADDR>$", false, 1),
            (r#"^\{"log":"bad <ADDR>\\n""#, true, 1),
            (r#"^\{"log":"bad <ADDR>\\n""#, false, 0),
        ] {
            let failregex = vec![pattern.to_owned()];
            let spec = filter::Spec { failregex, wrapped, maxlines: 1, ..Default::default() };
            let args = args();
            let filter = Filter::compile(&spec).unwrap();
            let mut tester = Tester::new(&spec, filter, &args, false);
            tester.engine = source::Engine::of(Path::new("/var/lib/docker/ab-json.log"));
            tester.read(log.as_bytes(), "a log").unwrap();
            let Summary { lines, matched, .. } = tester.summary;
            assert_eq!((lines, matched), (3, expected), "{pattern}");
        }
    }

    #[test]
    fn an_overlong_line_is_passed_over_and_each_pattern_says_what_it_took() {
        let failregex = vec!["^bad <ADDR>$".to_owned(), "^ill .*from <ADDR>$".to_owned()];
        let spec = filter::Spec { failregex, maxlines: 1, ..Default::default() };
        let args = args();
        let filter = Filter::compile(&spec).unwrap();
        let mut tester = Tester::new(&spec, filter, &args, false);
        let accusation = b"bad 203.0.113.7 ";
        let long = accusation.repeat(3 * MAX_LINE / accusation.len());
        let log =
            [&b"bad 203.0.113.7\r\n"[..], &long, b"\nill nobody from\nbad 203.0.113.8"].concat();
        tester.read(&log[..], "a log").unwrap();
        let Summary { lines, matched, missed, overlong, patterns, .. } = &mut tester.summary;
        assert_eq!((*lines, *matched, *missed, *overlong), (4, 2, 2, 1));
        assert_eq!(patterns.iter().map(|each| each.matched).collect::<Vec<_>>(), [2, 0]);
        let spent = tester.scanner.spent();
        assert!(spent.iter().all(|spent| !spent.is_zero()), "{spent:?}");

        // it is not held in memory
        let (mut input, mut line) = (&log[..], Vec::new());
        let mut lengths = Vec::new();
        while next_line(&mut input, &mut line).unwrap() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [16, MAX_LINE + 2, 15, 15]);
    }
}
