//! A real sshd, rsyslog's `auth.log`, the agent, and a real ssh client that guesses passwords.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::Agent,
    daemons::{Sshd, guess},
    host::{FAMILIES, Family},
    privilege,
    process::eventually,
    stage::{EDGE, Stage, VICTIM},
};

/// The shipped pair over one log. The first jail's ban cuts a guesser off at his third failure;
/// the second one's limit is set so that it is met by the third failure of his next visit.
fn jails(stage: &Stage) -> String {
    let log = stage.file("auth.log");
    format!(
        "[jails.sshd]\nlogpath = {log:?}\nbantime = \"6s\"\n\
         [jails.sshd-hourly]\nlogpath = {log:?}\nmaxretry = 6\n"
    )
}

#[test]
fn two_jails_hold_the_guesser_and_the_ban_ends_with_the_last() -> Result<()> {
    if !privilege::ready("sshd password guessing") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _sshd = Sshd::start(&stage)?;
    let agent = Agent::start(&stage, &jails(&stage))?;
    let (attacker, client) = (stage.attacker(), stage.client());
    for family in FAMILIES {
        let address = attacker.address(family);
        guess(&stage, attacker, family, "root", 3)?;
        agent.await_holders(address, &["sshd"])?;
        ensure!(!attacker.pings(family, EDGE)?, "pings come back");
        agent.await_holders(address, &[])?;

        ensure!(attacker.pings(family, EDGE)?, "the first ban did not end");
        guess(&stage, attacker, family, "root", 3)?;
        agent.await_holders(address, &["sshd", "sshd-hourly"])?;
        ensure!(attacker.connect(family, EDGE, 22)?.is_none(), "a new connection opens");
        ensure!(!attacker.pings(family, EDGE)?, "pings come back");

        agent.await_holders(address, &["sshd-hourly"])?;
        ensure!(!attacker.pings(family, EDGE)?, "the short jail's end lifted the long one's ban");
        ensure!(client.connect(family, EDGE, 22)?.is_some(), "the client suffers");
        ensure!(client.pings(family, EDGE)?, "the client's pings suffer");

        let shown = agent.verb(&["show", address])?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        ensure!(shown.status.success() && text.contains("Failed password"), "no evidence: {text}");
    }
    Ok(())
}

#[test]
fn whoever_is_named_by_a_user_name_is_not_banned() -> Result<()> {
    if !privilege::ready("sshd injection") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let sshd = Sshd::start(&stage)?;
    // three names, each of them unknown: two failures from each
    let jail = format!("[jails.sshd]\nlogpath = {:?}\nmaxretry = 6\n", stage.file("auth.log"));
    let agent = Agent::start(&stage, &jail)?;
    let attacker = stage.attacker();
    for family in FAMILIES {
        let victim = if family == Family::V4 { VICTIM.0 } else { VICTIM.1 };
        // sshd keeps 100 bytes of a name: the third one ends with the forged text right there
        let tail = format!(" from {victim} port 22 ssh2");
        let names = [
            format!("root{tail}"),
            format!("x{tail} sshd[1]: Failed password for root{tail}"),
            format!("{}{tail}", "A".repeat(100_usize.saturating_sub(tail.len()))),
        ];
        for name in &names {
            guess(&stage, attacker, family, name, 1)?;
        }
        agent.await_holders(attacker.address(family), &["sshd"])?;
        let log = fs::read_to_string(&sshd.log)?;
        // sshd takes what follows a colon for the name of a method
        let kept = tail.split(':').next().context("no text")?;
        ensure!(log.contains(kept), "the forged text did not reach the log");
    }
    // nothing that was written is still unread
    let lines = u64::try_from(fs::read_to_string(&sshd.log)?.lines().count())?;
    eventually("the log is read", Duration::from_secs(10), || Ok(agent.lines("sshd")? >= lines))?;
    let mut banned = agent.banned()?;
    banned.sort();
    ensure!(banned == [attacker.address(Family::V4), attacker.address(Family::V6)], "{banned:?}");
    let client = stage.client().connect(Family::V4, EDGE, 22)?;
    client.context("the client suffers")?;
    Ok(())
}
