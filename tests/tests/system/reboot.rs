//! Clocks of the whole agent: a reboot, after which the kernel has forgotten everything and its
//! clock begins anew, and a wall clock that is set while bans run.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use tests::{
    agent::{Agent, LIMIT, binary, configure},
    clock::{Boot, Clock, faketime},
    host::{FAMILIES, Family},
    privilege,
    process::eventually,
    stage::{EDGE, Stage},
};

const HOUR: i64 = 3600;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;
/// How long the machine is down.
const DOWN: i64 = 300;
/// What is left of the attacker's IPv4 ban when it is back, at most.
const LEFT: i64 = 20;
/// Banned until long after.
const LONG: &str = "203.0.113.1";
const FOR_EVER: &str = "203.0.113.2";
/// Its ban ends while the machine is down.
const OVER: &str = "203.0.113.3";
const LIFTED: &str = "203.0.113.4";

fn library(what: &str) -> Option<std::path::PathBuf> {
    if !privilege::ready(what) {
        return None;
    }
    let library = faketime();
    if library.is_none() {
        privilege::lack(what, "libfaketime is not installed");
    }
    library
}

/// Starts the agent by this clock; in this boot, if it is not the machine's.
fn run(agent: &mut Agent<'_>, stage: &Stage, clock: &Clock, boot: Option<&Boot>) -> Result<()> {
    let mut words = boot.map(Boot::prefix).unwrap_or_default().into_iter();
    let mut command: Command = match words.next() {
        Some(first) => stage.edge.command(first),
        None => agent.command()?,
    };
    if boot.is_some() {
        command.args(words).arg(binary()?);
        command.arg("--config").arg(stage.file("config.toml")).args(["-v", "run"]);
    }
    clock.dress(&mut command);
    agent.launch(command)?;
    agent.await_answer()
}

fn ban(agent: &Agent<'_>, address: &str, seconds: i64) -> Result<()> {
    let time = format!("{seconds}s");
    let done = agent.verb(&["ban", address, "--for", &time])?;
    ensure!(done.status.success(), "ban: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// The end of a ban by the wall clock, as it is told.
fn until(agent: &Agent<'_>, address: &str) -> Result<Timestamp> {
    let ban = agent.ban(address)?.with_context(|| format!("{address} is not banned"))?;
    Ok(ban.get("until").and_then(|until| until.as_str()).context("no end")?.parse()?)
}

#[test]
fn a_reboot_leaves_bans_what_is_left_of_them() -> Result<()> {
    let Some(library) = library("a reboot") else { return Ok(()) };
    for orderly in [true, false] {
        let stage = Stage::build()?;
        let log = stage.write("door.log", "")?;
        configure(
            &stage,
            &format!(
                "[filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
                 [jails.door]\nmaxretry = 1\nbantime = \"1h\"\nlogpath = {log:?}\n"
            ),
        )?;
        let clock = Clock::new(&stage, &library)?;
        let mut agent = Agent::idle(&stage);
        run(&mut agent, &stage, &clock, None)?;
        let attacker = stage.attacker();
        let (v4, v6) = (attacker.address(Family::V4), attacker.address(Family::V6));
        for (address, seconds) in [(LONG, HOUR), (OVER, DOWN / 2), (LIFTED, HOUR)] {
            ban(&agent, address, seconds)?;
        }
        ensure!(agent.verb(&["ban", FOR_EVER, "--for", "ever"])?.status.success(), "ban failed");
        ensure!(agent.verb(&["unban", LIFTED])?.status.success(), "unban failed");
        fs::write(&log, format!("{v6} knocks\n"))?;
        agent.await_holders(v6, &["door"])?;
        let banned = Instant::now();
        ban(&agent, v4, DOWN + LEFT)?;
        let ends = [until(&agent, LONG)?, until(&agent, v6)?];
        if orderly {
            agent.terminate()?;
        } else {
            agent.kill()?;
        }
        fs::remove_dir_all(stage.pins()).context("cannot remove the pins")?;
        eventually("the program is gone", LIMIT, || Ok(!stage.attached()?))?;
        eventually("nobody is dropped", LIMIT, || attacker.pings(Family::V6, EDGE))?;

        clock.set(DOWN)?;
        let boot = Boot::new(&stage, 5)?;
        run(&mut agent, &stage, &clock, Some(&boot))?;
        let early = || banned.elapsed() < Duration::from_secs(LEFT.unsigned_abs());
        for family in FAMILIES {
            let dead = !attacker.pings(family, EDGE)?;
            ensure!(dead || (family == Family::V4 && !early()), "{family:?} is not dropped");
        }
        for address in [OVER, LIFTED] {
            ensure!(agent.ban(address)?.is_none(), "{address} is banned again");
        }
        ensure!(agent.ban(FOR_EVER)?.is_some_and(|ban| ban["until"].is_null()), "not for ever");
        for (end, address) in ends.iter().zip([LONG, v6]) {
            let now = until(&agent, address)?;
            let apart = now.duration_since(*end).abs();
            ensure!(apart < SignedDuration::from_millis(500), "{address} moved: {end} to {now}");
        }
        // the kernel's own deadline as well, by its own clock
        eventually("the rest of the ban ends", Duration::from_secs(90), || {
            attacker.pings(Family::V4, EDGE)
        })?;
        ensure!(!early(), "it ended after {:?}", banned.elapsed());
        ensure!(!attacker.pings(Family::V6, EDGE)?, "the other ban ended as well");
        // once more in this boot: its own clock counts from now on
        agent.kill()?;
        run(&mut agent, &stage, &clock, Some(&boot))?;
        ensure!(agent.ban(v6)?.is_some() && agent.ban(LONG)?.is_some(), "lost by kill -9");
        agent.terminate()?;
    }
    Ok(())
}

#[test]
fn a_clock_that_is_set_neither_shortens_nor_lengthens_a_ban() -> Result<()> {
    const TIME: i64 = 12;
    let Some(library) = library("a wall clock that is set") else { return Ok(()) };
    let stage = Stage::build()?;
    configure(&stage, "")?;
    let clock = Clock::new(&stage, &library)?;
    let mut agent = Agent::idle(&stage);
    run(&mut agent, &stage, &clock, None)?;
    let attacker = stage.attacker();
    let lasting = Duration::from_secs(TIME.unsigned_abs());
    // where the clock stands at the ban, and where it is set to while the ban runs
    for (at, later) in [
        (0, [HOUR, -HOUR]),
        (0, [TEN_YEARS, 0]),
        (TEN_YEARS, [0, -HOUR]),
        (-HOUR, [TEN_YEARS, HOUR]),
    ] {
        clock.set(at)?;
        let begun = Instant::now();
        for family in FAMILIES {
            ban(&agent, attacker.address(family), TIME)?;
        }
        for shift in later {
            clock.set(shift)?;
            // whether or not somebody looks, or bans somebody else
            ban(&agent, LONG, HOUR)?;
            for family in FAMILIES {
                let dead = !attacker.pings(family, EDGE)?;
                ensure!(dead || begun.elapsed() >= lasting, "at {at:+}, {shift:+}: ended early");
            }
            // a restart reads the store with the clock as it stands now
            agent.kill()?;
            run(&mut agent, &stage, &clock, None)?;
        }
        for family in FAMILIES {
            eventually("the ban ends", Duration::from_secs(60), || attacker.pings(family, EDGE))
                .with_context(|| format!("banned at {at:+}, then set to {later:?}"))?;
        }
        ensure!(begun.elapsed() >= lasting, "ended after {:?}", begun.elapsed());
        for family in FAMILIES {
            let address = attacker.address(family);
            eventually("the agent knows", LIMIT, || Ok(agent.ban(address)?.is_none()))?;
        }
        ensure!(agent.ban(LONG)?.is_some(), "{LONG} is not banned any more");
    }
    agent.terminate()
}
