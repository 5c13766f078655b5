//! Attackers in turns, more of them than a jail remembers: they are banned all the same.

use std::{fs, io::Write as _, net::Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT, configure},
    privilege,
    process::eventually,
    stage::Stage,
};

const SOURCES: u32 = 10_000;

/// So many rounds in which each source fails once, always in the same order.
fn fail(stage: &Stage, rounds: usize) -> Result<()> {
    let line = |number| format!("{} knocks\n", Ipv4Addr::from(0x0c00_0000 + 97 * number));
    let round: String = (0..SOURCES).map(line).collect();
    let mut log = fs::File::options().append(true).open(stage.file("door.log"))?;
    Ok(log.write_all(round.repeat(rounds).as_bytes())?)
}

/// Waits until it has read this many rounds; how many it has banned.
fn banned_after(agent: &Agent<'_>, rounds: u64) -> Result<u64> {
    let mut jail = Value::Null;
    let number = |jail: &Value, field: &str| jail.get(field).and_then(Value::as_u64).unwrap_or(0);
    let read = eventually("the log is read", LIMIT, || {
        jail = agent.json(&["status", "door"])?.pointer("/jails/0").cloned().context("no jail")?;
        Ok(number(&jail, "matched") == rounds * u64::from(SOURCES))
    });
    read.map_err(|error| error.context(jail.to_string()))?;
    Ok(number(&jail, "banned"))
}

#[test]
fn attackers_in_turns_are_banned_though_there_are_more_than_are_remembered() -> Result<()> {
    if !privilege::ready("attackers in turns") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let jails = format!(
        "[filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
         [jails.door]\nlogpath = {log:?}\nmaxretry = 3\nmax_tracked = 6000\n"
    );
    configure(&stage, &jails)?;
    let config = stage.file("config.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replacen("max_bans = 4096", "max_bans = 16384", 1))?;
    let mut agent = Agent::idle(&stage);
    agent.run()?;
    fail(&stage, 2)?;
    ensure!(banned_after(&agent, 2)? == 0, "banned below maxretry\n{}", agent.last_words());
    fail(&stage, 8)?;
    let mut banned = 0;
    let all = eventually("they are banned", LIMIT, || {
        banned = banned_after(&agent, 10)?;
        Ok(banned >= u64::from(SOURCES) / 100 * 95)
    });
    all.map_err(|error| error.context(format!("{banned} of {SOURCES} banned")))
}
