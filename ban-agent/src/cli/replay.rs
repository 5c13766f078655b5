//! `ban-agent replay`: which bans a log would have caused, by its own time. It changes nothing.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Read},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Cli,
    args::Replay,
    failure::{Failure, chain},
    output,
};
use crate::{
    clock::{Boot, Now},
    config,
    control::SCHEMA,
    event::Shown,
    filter::{self, Filter, Scanner},
    jail::{Jail, Offenders, Record, Spec},
    net::IpNet,
    pipeline::OwnBan,
    source,
};

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

pub(super) fn run(cli: &Cli, args: &Replay) -> Result<ExitCode, Failure> {
    let (config, faults) = config::load_sound(&cli.config)?;
    faults.iter().for_each(|fault| log::warn!("{}", chain(fault)));
    let (names, file) = args.words.split_at(args.words.len().saturating_sub(1));
    let file = file.first().map_or("-", String::as_str);
    let now = args.now.unwrap_or_else(Timestamp::now);
    let chosen = chosen(&config.jails, names)?;
    let (counting, mut reading): (Vec<&Spec>, Vec<&Spec>) =
        chosen.iter().partition(|spec| counts_bans(spec));
    if !counting.is_empty() {
        // what such a jail counts are the bans of all the others
        reading = config.jails.iter().filter(|spec| !counts_bans(spec)).collect();
    }
    let mut bans = Vec::new();
    for spec in reading {
        let mut jail = Replayed::new(spec)?;
        jail.read(file, now)?;
        bans.append(&mut jail.bans);
    }
    bans.sort_by_key(|ban| ban.at);
    let own = |ban: &Ban| OwnBan { at: ban.at, jail: ban.jail.as_str().into(), prefix: ban.prefix };
    let own: Vec<OwnBan> = bans.iter().map(own).collect();
    for spec in counting {
        let mut jail = Replayed::new(spec)?;
        jail.scan(&[], Lines::Bans(&own), now);
        bans.append(&mut jail.bans);
    }
    bans.retain(|ban| chosen.iter().any(|spec| *spec.rules.name == *ban.jail));
    bans.sort_by_key(|ban| ban.at);
    let found = !bans.is_empty();
    if cli.json() {
        output::object(&Document { schema: SCHEMA, bans })?;
    } else {
        output::print(&human(&bans))?;
    }
    Ok(ExitCode::from(u8::from(!found)))
}

fn counts_bans(spec: &Spec) -> bool {
    spec.sources.contains(&source::Spec::Bans)
}

/// The named jails; all of them, if none is named.
fn chosen<'a>(jails: &'a [Spec], names: &[String]) -> Result<Vec<&'a Spec>, Failure> {
    if names.is_empty() {
        return Ok(jails.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            jails.iter().find(|jail| *jail.rules.name == **name).ok_or_else(|| {
                let known: Vec<&str> = jails.iter().map(|jail| &*jail.rules.name).collect();
                Failure::new(2, format!("there is no jail '{name}'"))
                    .hint(format!("enabled jails: {}", known.join(", ")))
            })
        })
        .collect()
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    bans: Vec<Ban>,
}

/// A ban that would have been.
#[derive(Serialize)]
pub(super) struct Ban {
    pub(super) jail: String,
    pub(super) prefix: IpNet,
    pub(super) at: Timestamp,
    until: Option<Timestamp>,
    failures: u32,
}

/// One jail over one log.
pub(super) struct Replayed {
    jail: Jail,
    scanner: Scanner,
    /// The last ban of each, in `bans`.
    banned: HashMap<IpNet, usize>,
    /// Who was banned before: his failures weigh more, and his bans last longer.
    former: Offenders,
    pub(super) bans: Vec<Ban>,
}

impl Replayed {
    pub(super) fn new(spec: &Spec) -> Result<Replayed, Failure> {
        let filter =
            Filter::compile(&spec.rules.filter).map_err(|error| Failure::new(78, error))?;
        let (mut jail, former) = (Jail::new(&spec.rules), Offenders::default());
        jail.remember(former.clone());
        Ok(Replayed {
            jail,
            scanner: Scanner::new(Arc::new(filter)),
            banned: HashMap::new(),
            former,
            bans: Vec::new(),
        })
    }

    fn read(&mut self, name: &str, now: Timestamp) -> Result<(), Failure> {
        let failed = |error| Failure::new(2, format!("cannot read {name}: {error}"));
        let mut input: Box<dyn Read> = match name {
            "-" => Box::new(io::stdin().lock()),
            path => Box::new(source::open(Path::new(path)).map_err(failed)?),
        };
        self.read_all(&mut input, source::Engine::of(Path::new(name)), now).map_err(failed)
    }

    /// Reads all that `input` gives; `engine` is what wrapped its lines.
    pub(super) fn read_all(
        &mut self,
        input: &mut dyn Read,
        mut engine: Option<source::Engine>,
        now: Timestamp,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let kept = buffer.len();
            let count = input.take(CHUNK as u64).read_to_end(&mut buffer)?;
            // whole lines only, until the file ends
            let whole = match memchr::memrchr(b'\n', &buffer) {
                Some(newline) if count > 0 => newline + 1,
                _ if count > 0 => continue,
                _ => buffer.len(),
            };
            let lines = buffer.get(..whole).unwrap_or_default();
            match &mut engine {
                None => self.scan(lines, Lines::Plain, now),
                Some(engine) => {
                    let (text, raw) = engine.unwrap(lines);
                    self.scan(&text, Lines::Wrapped(&raw), now);
                }
            }
            buffer.drain(..whole);
            if count == 0 && kept == 0 {
                return Ok(());
            }
        }
    }

    pub(super) fn scan(&mut self, lines: &[u8], form: Lines<'_>, now: Timestamp) {
        let Replayed { jail, scanner, banned, former, bans } = self;
        let mut sink = |failure: &filter::Failure, line: &[u8]| {
            // the clock stands where the line does
            let wall = failure.time.unwrap_or(now).min(now);
            let then = Now { boot: Boot(0), wall };
            for offence in jail.offence(failure, line, then).offences() {
                let name = jail.rules().name.to_string();
                let held = banned.get(&offence.prefix).and_then(|at| bans.get_mut(*at));
                if let Some(ban) = held.filter(|ban| ban.until.is_none_or(|until| wall < until)) {
                    // banned already: a plain bantime after its last failure, and no further ban
                    let plain = jail.rules().bantime.map(|time| later(offence.time, time));
                    ban.until = ban.until.and_then(|until| Some(until.max(plain?)));
                    continue;
                }
                let count = former.of(&name, offence.prefix).unwrap_or_default().bans;
                let until =
                    jail.rules().bantime_for(count, 0.0).map(|time| later(offence.time, time));
                former.add(&name, offence.prefix, Record { bans: 1, last: offence.time });
                banned.insert(offence.prefix, bans.len());
                bans.push(Ban {
                    jail: name,
                    prefix: offence.prefix,
                    at: offence.time,
                    until,
                    failures: offence.failures,
                });
            }
        };
        match form {
            Lines::Plain => _ = scanner.scan(lines, false, now, &mut sink),
            Lines::Stamped => _ = scanner.scan(lines, true, now, &mut sink),
            Lines::Wrapped(raw) => _ = scanner.scan_both(lines, raw, now, &mut sink),
            Lines::Bans(bans) => {
                bans.iter().for_each(|ban| sink(&ban.failure(), ban.to_string().as_bytes()));
            }
        }
    }
}

/// In which form lines are there.
pub(super) enum Lines<'r> {
    /// As they were written.
    Plain,
    /// After their time.
    Stamped,
    /// After their time, and as a container engine wrapped them.
    Wrapped(&'r [u8]),
    /// None: bans of other jails, in their order.
    Bans(&'r [OwnBan]),
}

/// Without the random part of `bantime.rndtime`: a replay gives the same answer each time.
fn later(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn human(bans: &[Ban]) -> String {
    if bans.is_empty() {
        return "no address would have been banned\n".into();
    }
    let rows: Vec<Vec<String>> = bans
        .iter()
        .map(|ban| {
            vec![
                ban.at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
                ban.jail.clone(),
                Shown(ban.prefix).to_string(),
                ban.failures.to_string(),
                ban.until.map_or("for ever".into(), |until| {
                    until.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
                }),
            ]
        })
        .collect();
    let mut text = output::table(&["AT", "JAIL", "ADDRESS", "FAILURES", "UNTIL"], &rows);
    let _ = writeln!(text, "{} bans", bans.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jail::{self, Increment, Rules};

    #[test]
    fn a_replay_knows_the_bans_that_it_has_made() {
        let increment = Increment {
            factor: 1.0,
            multipliers: Vec::new(),
            formula: None,
            maxtime: None,
            rndtime: Duration::ZERO,
            overalljails: false,
        };
        let filter = filter::Spec {
            failregex: vec!["^ ?bad <ADDR>$".to_owned()],
            maxlines: 1,
            ..filter::Spec::default()
        };
        let rules = Rules {
            filter: Arc::new(filter),
            bantime: Some(Duration::from_secs(60)),
            increment: Some(increment),
            ..jail::rules(5, 600)
        };
        let spec = Spec { rules, sources: Vec::new(), actions: Vec::new() };
        let mut replayed = Replayed::new(&spec).unwrap();
        let start: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let line = |second: i64| {
            let at = start + jiff::SignedDuration::from_secs(second);
            format!("{at} bad 203.0.113.7\n")
        };
        // five for the first ban, which goes on as long as he does; later failures weigh more
        let seconds = [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 200, 201, 202, 500, 501];
        let log: String = seconds.into_iter().map(line).collect();
        replayed.scan(log.as_bytes(), Lines::Plain, start + jiff::SignedDuration::from_hours(1));
        let seconds = |at: Timestamp| at.duration_since(start).as_secs();
        let bans: Vec<_> = replayed
            .bans
            .iter()
            .map(|ban| (seconds(ban.at), seconds(ban.until.unwrap()), ban.failures))
            .collect();
        assert_eq!(bans, [(4, 72, 5), (200, 320, 6), (501, 741, 6)]);
    }
}
