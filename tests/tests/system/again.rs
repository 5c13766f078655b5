//! Who goes on failing while he is banned, and what an action of an earlier run's ban is told.

use std::{fs, fs::File, io::Write as _};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT},
    privilege,
    process::eventually,
    stage::Stage,
};

const FILTER: &str = "[filters.door]\ndatepattern = ['{NONE}']\n\
                      failregex = ['^bad user <F-USER>.*</F-USER> from <ADDR>$']\n";
const GUESSER: &str = "203.0.113.7";

fn end(agent: &Agent<'_>) -> Result<Timestamp> {
    let ban = agent.ban(GUESSER)?.context("not banned")?;
    Ok(ban.get("until").and_then(Value::as_str).context("no end")?.parse()?)
}

/// As behind a CDN, over a ban of one port, or in a dry run: his lines go on.
#[test]
fn who_goes_on_is_banned_once_and_longer() -> Result<()> {
    if !privilege::ready("failures of those who are banned") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let (log, told) = (stage.file("door.log"), stage.file("fail2ban.log"));
    let mut writer = File::create(&log)?;
    let jail = format!(
        "{FILTER}[jails.door]\nlogpath = {log:?}\nmaxretry = 2\nbantime = \"1h\"\n\
         \"bantime.increment\" = true\n"
    );
    let mut agent = Agent::idle(&stage);
    let path = tests::agent::configure(&stage, &jail)?;
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace("[agent]\n", &format!("[agent]\nfail2ban_log = {told:?}\n")))?;
    agent.run()?;
    let mut fail = || writeln!(writer, "bad user bob from {GUESSER}");
    fail()?;
    fail()?;
    agent.await_holders(GUESSER, &["door"])?;
    let first = end(&agent)?;
    // each of these was enough for a ban
    let mut failures = 0;
    eventually("the end moves", LIMIT, || {
        fail()?;
        failures += 1;
        Ok(failures > 20 && end(&agent)? > first)
    })?;
    let lines = agent.lines("door")?;
    eventually("all is read", LIMIT, || {
        fail()?;
        Ok(agent.lines("door")? > lines + 2)
    })?;
    let left = end(&agent)?.duration_since(Timestamp::now());
    let hour = SignedDuration::from_hours(1);
    ensure!(left <= hour && left > hour - SignedDuration::from_mins(10), "escalated to {left}");
    let bans = || -> Result<usize> {
        Ok(fs::read_to_string(&told)?.matches(&format!(" Ban {GUESSER}")).count())
    };
    ensure!(bans()? == 1, "{}", fs::read_to_string(&told)?);
    let status = agent.json(&["status", "door"])?;
    ensure!(status.pointer("/jails/0/total") == Some(&1.into()), "{status}");
    // let go, he is known: the next one is longer
    ensure!(agent.verb(&["unban", GUESSER])?.status.success(), "unban");
    eventually("he is banned again", LIMIT, || {
        fail()?;
        Ok(agent.ban(GUESSER)?.is_some())
    })?;
    let left = end(&agent)?.duration_since(Timestamp::now());
    ensure!(left > hour, "not escalated: {left}");
    eventually("both are told", LIMIT, || Ok(bans()? == 2))?;
    agent.terminate()
}

#[test]
fn an_action_is_told_of_a_ban_that_an_earlier_run_made() -> Result<()> {
    if !privilege::ready("actions over restarts") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let (log, told) = (stage.file("door.log"), stage.file("told"));
    let mut writer = File::create(&log)?;
    let tell = |word: &str| {
        format!("echo {word} <ip> <F-USER> <bantime> <failures> <bancount> <restored> >> {told:?}")
    };
    let jail = format!(
        "{FILTER}[actions.tell]\nban = '{}'\nunban = '{}'\n\
         [jails.door]\nlogpath = {log:?}\nmaxretry = 2\nbantime = \"1h\"\nactions = \"tell\"\n",
        tell("ban"),
        tell("unban"),
    );
    let mut agent = Agent::start(&stage, &jail)?;
    write!(writer, "bad user eve from {GUESSER}\nbad user bob from {GUESSER}\n")?;
    let read = || fs::read_to_string(&told).unwrap_or_default();
    let said = |line: &str| {
        eventually(line, LIMIT, || Ok(read().lines().any(|told| told == line))).with_context(read)
    };
    said(&format!("ban {GUESSER} bob 3600 2 1 0"))?;
    agent.kill()?;
    agent.run()?;
    // what is left of it, and why it was made
    eventually("it is told again", LIMIT, || {
        let words: Vec<String> =
            read().lines().nth(1).unwrap_or_default().split(' ').map(str::to_owned).collect();
        let left: Option<u64> = words.get(3).and_then(|word| word.parse().ok());
        let others: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(matches!(others[..], ["ban", GUESSER, "bob", _, "2", "1", "1"])
            && left.is_some_and(|left| (3000..=3600).contains(&left)))
    })
    .with_context(read)?;
    ensure!(agent.verb(&["unban", GUESSER])?.status.success(), "unban");
    said(&format!("unban {GUESSER} bob 3600 2 1 0"))?;
    agent.terminate()
}
