//! A reload is all or nothing, on the command line and by SIGHUP; nobody's ban suffers.

use std::{fs::File, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use rustix::process::Signal;
use tests::{
    agent::{Agent, LIMIT, binary, configure},
    daemons::Nginx,
    host::Family,
    privilege,
    process::eventually,
    stage::{EDGE, Stage},
};

#[test]
fn a_reload_is_all_or_nothing() -> Result<()> {
    if !privilege::ready("reload") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _nginx = Nginx::start(&stage)?;
    let log = stage.file("access.log");
    let jail = |maxretry: u32| {
        format!("[jails.nginx-401]\nlogpath = {log:?}\nmaxretry = {maxretry}\nbantime = \"1h\"\n")
    };
    let agent = Agent::start(&stage, &jail(1000))?;
    let banned = "192.0.2.200";
    ensure!(agent.verb(&["ban", banned, "--for", "1h"])?.status.success(), "ban failed");

    configure(&stage, &format!("{}maxretri = 2\n", jail(2)))?;
    let done = agent.verb(&["reload"])?;
    ensure!(done.status.code() == Some(78), "a bad configuration was taken: {done:?}");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(said.contains("maxretri"), "the cause is not named: {said}");
    let mut open = stage.attacker().connect(Family::V4, EDGE, 80)?.context("no nginx")?;
    for _ in 0..3 {
        ensure!(open.ask(Nginx::BAD_SIGNATURE)? == Some(401), "refused before the reload");
    }
    eventually("the lines are read", Duration::from_secs(10), || {
        Ok(agent.lines("nginx-401")? >= 3)
    })?;
    ensure!(agent.banned()? == [banned], "half of a bad configuration was taken");

    // by the signal that the service manager sends
    configure(&stage, &jail(2))?;
    agent.signal(Signal::HUP)?;
    eventually("the new maxretry counts", Duration::from_secs(20), || {
        if agent.holders(stage.attacker().address(Family::V4))? == ["nginx-401"] {
            return Ok(true);
        }
        open.ask(Nginx::BAD_SIGNATURE)?;
        Ok(false)
    })?;
    ensure!(agent.holders(banned)? == ["manual"], "the reload cost a ban");

    // a jail that is gone bans nobody else
    configure(&stage, "")?;
    ensure!(agent.verb(&["reload"])?.status.success(), "the reload failed");
    let mut open = stage.client().connect(Family::V4, EDGE, 80)?.context("no nginx")?;
    for _ in 0..5 {
        ensure!(open.ask(Nginx::BAD_SIGNATURE)? == Some(401), "banned by a jail that is gone");
    }
    Ok(())
}

#[test]
fn a_reload_loses_neither_lines_nor_counts() -> Result<()> {
    const OFFENDERS: u32 = 1500;
    if !privilege::ready("lines while reloading") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.file("app.log");
    let jail = |findtime: u32| {
        format!(
            "[filters.app]\nfailregex = ['^\\s*bad login from <ADDR>$']\n\
             [jails.app]\nlogpath = {log:?}\nmaxretry = 3\nfindtime = \"{findtime}h\"\nbantime = \"1h\"\n"
        )
    };
    let mut file = File::create(&log)?;
    let agent = Agent::start(&stage, &jail(1))?;
    let mut rounds = 0;
    for round in 0..3 {
        for number in 0..OFFENDERS {
            let address = std::net::Ipv4Addr::from(0xc612_0000 + number);
            writeln!(file, "{:.3} bad login from {address}", Timestamp::now())?;
            if number % 150 == 75 {
                rounds += 1;
                configure(&stage, &jail(1 + round + rounds))?;
                ensure!(agent.verb(&["reload"])?.status.success(), "the reload failed");
            }
        }
    }
    eventually("all offenders are banned", LIMIT, || {
        Ok(agent.banned()?.len() == usize::try_from(OFFENDERS)?)
    })
    .with_context(|| format!("{:?} are", agent.banned().map(|all| all.len())))
}

#[test]
fn a_reload_makes_room_for_more_bans() -> Result<()> {
    if !privilege::ready("room by reload") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = Agent::start(&stage, "")?;
    let path = stage.file("config.toml");
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, text.replace("max_bans = 4096", "max_bans = 8192"))?;
    let attacker = stage.attacker().address(Family::V4);
    ensure!(agent.verb(&["ban", attacker, "--for", "1h"])?.status.success(), "ban failed");
    ensure!(agent.verb(&["reload"])?.status.success(), "the reload failed");
    ensure!(!agent.log().contains("in effect at the next start alone"), "{}", agent.log());

    let list: String =
        (0..6_000_u32).map(|n| format!("198.18.{}.{}\n", n / 250, n % 250)).collect();
    let list = stage.write("list", &list)?;
    let done = stage
        .edge
        .command(binary()?)
        .arg("--socket")
        .arg(stage.file("control.sock"))
        .args(["ban", "-", "--for", "1h"])
        .stdin(File::open(list)?)
        .output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    ensure!(agent.banned()?.len() == 6_001, "bans had to make room for others");
    let nobody = stage.attacker().connect(Family::V4, EDGE, 80)?;
    ensure!(nobody.is_none(), "a ban was lost on the way to larger maps");
    Ok(())
}
