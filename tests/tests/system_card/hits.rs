//! A ban that is still being hit when it would end goes on; one that is not ends.

use std::{io::Write as _, net::UdpSocket};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::{Agent, LIMIT},
    guest,
    host::within,
    privilege,
    process::eventually,
    stage::{ATTACKER, EDGE, Stage},
};

#[test]
fn a_ban_that_is_still_being_hit_goes_on() -> Result<()> {
    if !privilege::ready("extended bans") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("app.log", "")?;
    // longer than a look at it takes; an emulated machine needs more
    let bantime = if guest::inside() { "20s" } else { "4s" };
    let jails = format!(
        "[filters.app]\nfailregex = ['^slow <ADDR>$']\n[jails.app]\nlogpath = {log:?}\n\
         maxretry = 1\nbantime = \"{bantime}\"\nextend_hits = 2\n"
    );
    let agent = Agent::start(&stage, &jails)?;
    let socket = within(&stage.outside, || Ok(UdpSocket::bind((ATTACKER.0, 0))?))?;
    writeln!(std::fs::File::options().append(true).open(&log)?, "slow {}", ATTACKER.0)?;
    agent.await_holders(ATTACKER.0, &["app"])?;

    let extended = || -> Result<u64> {
        let ban = agent.ban(ATTACKER.0)?.context("the ban ended although it was being hit")?;
        Ok(ban.pointer("/holders/0/extended").and_then(serde_json::Value::as_u64).unwrap_or(0))
    };
    eventually("it is extended twice", LIMIT, || {
        socket.send_to(b"again", (EDGE.0, 9))?;
        Ok(extended()? >= 2)
    })
    .with_context(|| agent.log())?;
    let shown = String::from_utf8(agent.verb(&["show", ATTACKER.0])?.stdout)?;
    ensure!(shown.contains("still being hit, extended 2 times"), "{shown}");
    ensure!(agent.log().contains("is still being hit"), "{}", agent.log());

    eventually("it ends once nobody hits it", LIMIT, || Ok(agent.banned()?.is_empty()))
}
