//! `ban-agent replay`: which bans a log would have caused, by its own time. It changes nothing.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, BufRead},
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
    table::plural,
};
use crate::{
    clock::{Boot, Now},
    config,
    control::SCHEMA,
    event::Shown,
    filter::{self, Filter, MAX_LINE, Scanner, SharedPrefilter, Start, lines_in},
    jail::{Jail, Offenders, Record, Spec},
    net::IpNet,
    pipeline::OwnBan,
    source,
};

pub(super) fn run(cli: &Cli, args: &Replay) -> Result<ExitCode, Failure> {
    let (mut config, faults) = config::load_sound(&cli.config)?;
    faults.iter().for_each(|fault| log::warn!("{}", chain(fault)));
    // an operator who thinks of raw_log = true wants to see what it would do
    config.jails.append(&mut config.raw);
    let (names, file) = args.words.split_at(args.words.len().saturating_sub(1));
    let file = file.first().map_or("-", String::as_str);
    let now = args.now.unwrap_or_else(Timestamp::now);
    let chosen = chosen(&config.jails, names)?;
    let (counting, mut reading): (Vec<&Spec>, Vec<&Spec>) =
        chosen.iter().partition(|spec| counts_bans(spec));
    if !counting.is_empty() {
        // what such a jail counts are the bans of all the others
        reading = config.jails.iter().map(Arc::as_ref).filter(|spec| !counts_bans(spec)).collect();
    }
    let mut bans = Vec::new();
    let mut jails = reading.into_iter().map(Replayed::new).collect::<Result<Vec<_>, _>>()?;
    read(&mut jails, file, now)?;
    jails.iter_mut().for_each(|jail| bans.append(&mut jail.bans));
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

/// Returns the named jails; all of them, if none is named.
fn chosen<'a>(jails: &'a [Arc<Spec>], names: &[String]) -> Result<Vec<&'a Spec>, Failure> {
    if names.is_empty() {
        return Ok(jails.iter().map(Arc::as_ref).collect());
    }
    names
        .iter()
        .map(|name| {
            let named = jails.iter().find(|jail| *jail.rules.name == **name);
            named.map(Arc::as_ref).ok_or_else(|| {
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
            Lines::Chosen(starts, count) => {
                scanner.scan_at(lines, starts, count, false, now, &mut sink);
            }
            Lines::Stamped => _ = scanner.scan(lines, true, now, &mut sink),
            Lines::Wrapped(raw) => _ = scanner.scan_both(lines, raw, now, &mut sink),
            Lines::Bans(bans) => {
                bans.iter().for_each(|ban| sink(&ban.failure(), ban.to_string().as_bytes()));
            }
        }
    }
}

fn read(jails: &mut [Replayed], name: &str, now: Timestamp) -> Result<(), Failure> {
    let failed = |error| Failure::new(2, format!("cannot read {name}: {error}"));
    let mut input: Box<dyn BufRead> = match name {
        "-" => Box::new(io::stdin().lock()),
        path => source::open(Path::new(path)).map_err(failed)?,
    };
    read_all(jails, &mut input, source::Engine::of(Path::new(name)), now).map_err(failed)
}

/// Reads all that `input` gives, once for all jails; `engine` is what wrapped its lines.
pub(super) fn read_all(
    jails: &mut [Replayed],
    input: &mut dyn BufRead,
    mut engine: Option<source::Engine>,
    now: Timestamp,
) -> io::Result<()> {
    // one jail does as well by itself
    let shared = match jails {
        [_, _, ..] => SharedPrefilter::new(jails.iter().map(|jail| jail.scanner.filter())),
        _ => None,
    };
    source::in_blocks(input, MAX_LINE, |lines| {
        if let Some(engine) = &mut engine {
            let (text, raw) = engine.unwrap(lines);
            jails.iter_mut().for_each(|jail| jail.scan(&text, Lines::Wrapped(&raw), now));
            return;
        }
        let chosen = shared.as_ref().map(|shared| (shared.sort(lines), lines_in(lines)));
        for (index, jail) in jails.iter_mut().enumerate() {
            let form = match &chosen {
                Some((starts, count)) => match starts.get(index) {
                    Some(Some(starts)) => Lines::Chosen(starts, *count),
                    _ => Lines::Plain,
                },
                None => Lines::Plain,
            };
            jail.scan(lines, form, now);
        }
    })
}

/// In which form lines are there.
pub(super) enum Lines<'r> {
    /// As they were written.
    Plain,
    /// The same, the ones to look at, and how many there are.
    Chosen(&'r [Start], u64),
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
    let count = u64::try_from(bans.len()).unwrap_or(u64::MAX);
    let _ = writeln!(text, "{}", plural(count, "ban", "bans"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jail::{self, Increment, Rules};

    fn jail(name: &str, pattern: &str, maxretry: u32) -> Replayed {
        let filter = filter::Spec {
            failregex: vec![pattern.to_owned()],
            maxlines: 1,
            ..filter::Spec::default()
        };
        let rules =
            Rules { name: name.into(), filter: Arc::new(filter), ..jail::rules(maxretry, 600) };
        Replayed::new(&Spec { rules, sources: Vec::new(), raw_log: false, actions: Vec::new() })
            .unwrap()
    }

    #[test]
    fn a_log_is_read_once_for_all_jails_and_means_to_each_what_it_means_alone() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let mut log: String = (0..3).map(|_| "2026-11-20 11:00:00 bad 203.0.113.7\n").collect();
        log += &format!("2026-11-20 11:00:00 {} 203.0.113.8\n", "x".repeat(3 * MAX_LINE));
        log += "2026-11-20 11:00:01 good\n2026-11-20 11:00:02 ill 203.0.113.9";
        let all = [("a", "^ ?bad <ADDR>$", 3), ("b", "^ ?ill <ADDR>$", 1), ("c", "<ADDR>", 1)];
        let bans = |jails: &mut [Replayed]| {
            read_all(jails, &mut log.as_bytes(), None, now).unwrap();
            let bans = jails.iter().flat_map(|jail| &jail.bans);
            Vec::from_iter(bans.map(|ban| (ban.jail.clone(), ban.prefix.to_string())))
        };
        let mut jails = all.map(|(name, pattern, maxretry)| jail(name, pattern, maxretry));
        let together = bans(&mut jails);
        let alone = all.map(|(name, pattern, maxretry)| bans(&mut [jail(name, pattern, maxretry)]));
        assert_eq!(together, alone.concat());
        let expected = [("a", 7), ("b", 9), ("c", 7), ("c", 9)];
        let expected =
            expected.map(|(jail, host)| (jail.to_owned(), format!("203.0.113.{host}/32")));
        assert_eq!(together, expected);
    }

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
        let spec = Spec { rules, sources: Vec::new(), raw_log: false, actions: Vec::new() };
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
