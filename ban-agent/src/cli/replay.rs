//! `ban-agent replay`: which bans a log would have caused, by its own time. It changes nothing.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::File,
    io::{self, Read},
    path::Path,
    process::ExitCode,
    sync::Arc,
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
    filter::{Filter, Scanner},
    jail::{Decision, Jail, Rules, Sentence, Spec},
    net::IpNet,
    source::{self, ban_line},
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
    let lines: String =
        bans.iter().map(|ban| ban_line(&ban.jail, &Shown(ban.prefix), ban.at)).collect();
    for spec in counting {
        let mut jail = Replayed::new(spec)?;
        jail.scan(lines.as_bytes(), true, now);
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
struct Ban {
    jail: String,
    prefix: IpNet,
    at: Timestamp,
    until: Option<Timestamp>,
    failures: u32,
}

/// One jail over one log.
struct Replayed {
    jail: Jail,
    scanner: Scanner,
    /// Until when an address is banned: meanwhile nothing it does would have reached the log.
    banned: HashMap<IpNet, Option<Timestamp>>,
    former: HashMap<IpNet, u32>,
    bans: Vec<Ban>,
}

impl Replayed {
    fn new(spec: &Spec) -> Result<Replayed, Failure> {
        let filter =
            Filter::compile(&spec.rules.filter).map_err(|error| Failure::new(78, error))?;
        Ok(Replayed {
            jail: Jail::new(&spec.rules),
            scanner: Scanner::new(Arc::new(filter)),
            banned: HashMap::new(),
            former: HashMap::new(),
            bans: Vec::new(),
        })
    }

    fn read(&mut self, name: &str, now: Timestamp) -> Result<(), Failure> {
        let failed = |error| Failure::new(2, format!("cannot read {name}: {error}"));
        let mut input: Box<dyn Read> = match name {
            "-" => Box::new(io::stdin().lock()),
            path => Box::new(File::open(Path::new(path)).map_err(failed)?),
        };
        let mut buffer = Vec::new();
        loop {
            let kept = buffer.len();
            let count =
                input.by_ref().take(CHUNK as u64).read_to_end(&mut buffer).map_err(failed)?;
            // whole lines only, until the file ends
            let whole = match memchr::memrchr(b'\n', &buffer) {
                Some(newline) if count > 0 => newline + 1,
                _ if count > 0 => continue,
                _ => buffer.len(),
            };
            self.scan(buffer.get(..whole).unwrap_or_default(), false, now);
            buffer.drain(..whole);
            if count == 0 && kept == 0 {
                return Ok(());
            }
        }
    }

    fn scan(&mut self, lines: &[u8], stamped: bool, now: Timestamp) {
        let Replayed { jail, scanner, banned, former, bans } = self;
        scanner.scan(lines, stamped, now, &mut |failure, line| {
            // the clock stands where the line does
            let wall = failure.time.unwrap_or(now).min(now);
            let then = Now { boot: Boot(0), wall };
            if let Decision::Ban(sentence) = jail.offence(failure, line, then) {
                let running = banned.get(&sentence.prefix);
                if running.is_some_and(|until| until.is_none_or(|until| wall < until)) {
                    return;
                }
                let count = former.entry(sentence.prefix).or_default();
                let until = end(jail.rules(), &sentence, *count);
                *count += 1;
                banned.insert(sentence.prefix, until);
                bans.push(Ban {
                    jail: jail.rules().name.to_string(),
                    prefix: sentence.prefix,
                    at: sentence.time,
                    until,
                    failures: sentence.failures,
                });
            }
        });
    }
}

/// Without the random part of `bantime.rndtime`: a replay gives the same answer each time.
fn end(rules: &Rules, sentence: &Sentence, former: u32) -> Option<Timestamp> {
    let duration = rules.bantime_for(former, 0.0)?;
    Some(sentence.time.checked_add(duration).unwrap_or(Timestamp::MAX))
}

fn human(bans: &[Ban]) -> String {
    if bans.is_empty() {
        return "nobody would have been banned\n".into();
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
