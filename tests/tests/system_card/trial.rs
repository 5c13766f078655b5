//! A start on trial: who does not confirm has nothing enforced any more, whatever happens to the
//! agent meanwhile.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT, configure},
    guest,
    host::Family,
    privilege,
    process::eventually,
    stage::{EDGE, Stage},
};

/// Long enough to look at it while it runs; an emulated machine needs more.
fn short() -> &'static str {
    if guest::inside() { "40s" } else { "8s" }
}

fn state(agent: &Agent<'_>) -> Result<Option<String>> {
    let status = agent.json(&["status"])?;
    let state = status.get("trial").and_then(|trial| trial.get("state")).and_then(Value::as_str);
    Ok(state.map(str::to_owned))
}

fn pings(stage: &Stage) -> Result<bool> {
    stage.attacker().pings(Family::V4, EDGE)
}

/// Starts on trial, and bans the attacker.
fn begin<'a>(stage: &'a Stage, grace: &str) -> Result<Agent<'a>> {
    let agent = Agent::start_with(stage, "", &["--grace", grace])?;
    let done = agent.verb(&["ban", stage.attacker().address(Family::V4), "--for", "1h"])?;
    ensure!(done.status.success(), "ban failed");
    Ok(agent)
}

#[test]
fn a_trial_that_nobody_confirms_detaches_and_stays_so() -> Result<()> {
    if !privilege::ready("an unconfirmed trial") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = begin(&stage, short())?;
    ensure!(state(&agent)?.as_deref() == Some("running"), "no trial in the status");
    ensure!(!pings(&stage)?, "not enforced during the trial");
    let human = agent.verb(&["status"])?.stdout;
    ensure!(human.starts_with(b"ON TRIAL"), "the trial is not what status says first");

    eventually("the trial runs out", 2 * LIMIT, || Ok(!stage.attached()?))?;
    ensure!(pings(&stage)?, "dropped without a program");
    ensure!(state(&agent)?.as_deref() == Some("lapsed"), "the status does not say so");
    let human = agent.verb(&["status"])?.stdout;
    ensure!(
        human.starts_with(b"ALARM trial_lapsed: NOTHING IS ENFORCED"),
        "that it is over is not what status says first"
    );
    ensure!(agent.banned()?.len() == 1, "the ban was forgotten");

    // neither a restart nor another trial enforces again
    agent.terminate()?;
    agent.run()?;
    ensure!(!stage.attached()? && state(&agent)?.as_deref() == Some("lapsed"), "restart");
    agent.kill()?;
    agent.run_by(&["--grace", short()])?;
    ensure!(!stage.attached()? && state(&agent)?.as_deref() == Some("lapsed"), "another trial");

    let done = agent.verb(&["confirm"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    ensure!(stage.attached()? && state(&agent)?.is_none() && !pings(&stage)?, "not enforced");
    agent.kill()?;
    ensure!(stage.attached()? && !pings(&stage)?, "not enforced without the agent");
    agent.run()?;
    ensure!(agent.verb(&["confirm"])?.status.code() == Some(1), "there is nothing to confirm");
    Ok(())
}

#[test]
fn a_confirmed_trial_enforces_for_good() -> Result<()> {
    if !privilege::ready("a confirmed trial") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = begin(&stage, "1h")?;
    let done = agent.verb(&["-o", "json", "confirm"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice::<Value>(&done.stdout).context("no JSON")?;
    ensure!(state(&agent)?.is_none() && !pings(&stage)?, "confirmed, and not enforced");
    agent.kill()?;
    ensure!(!pings(&stage)?, "confirmed, and gone with the agent");
    agent.run()?;
    ensure!(state(&agent)?.is_none() && !pings(&stage)?, "the restart is on trial");
    // again, on what is pinned
    let done = agent.verb(&["confirm", "--for", "1h"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    ensure!(state(&agent)?.as_deref() == Some("running") && !pings(&stage)?, "no new trial");
    agent.terminate()?;
    ensure!(!stage.attached()?, "an unconfirmed program outlives its agent");
    let done = agent.verb(&["detach"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

#[test]
fn a_crash_during_a_trial_confirms_nothing() -> Result<()> {
    if !privilege::ready("a crash during a trial") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = begin(&stage, "1h")?;
    ensure!(!pings(&stage)?, "not enforced during the trial");
    agent.kill()?;
    // the kernel lets go, nobody has to come back
    eventually("the program goes with the agent", LIMIT, || Ok(!stage.attached()?))?;
    ensure!(pings(&stage)?, "dropped without a program");
    agent.run()?;
    ensure!(state(&agent)?.as_deref() == Some("running"), "the restart confirmed the trial");
    ensure!(!pings(&stage)?, "not enforced after the restart");
    agent.kill()?;
    // half a record is no confirmation
    std::fs::write(stage.file("state.trial"), "{\"trial\":\"conf")?;
    agent.run()?;
    ensure!(state(&agent)?.as_deref() == Some("lapsed") && !stage.attached()?, "junk confirms");
    Ok(())
}

#[test]
fn the_configured_grace_asks_once() -> Result<()> {
    if !privilege::ready("grace in the configuration") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let config = configure(&stage, "")?;
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text.replacen("[agent]", "[agent]\ngrace = \"1h\"", 1))?;
    let mut agent = Agent::idle(&stage);
    agent.run()?;
    ensure!(state(&agent)?.as_deref() == Some("running"), "no trial");
    ensure!(agent.verb(&["confirm"])?.status.success(), "confirm failed");
    agent.terminate()?;
    agent.run()?;
    ensure!(state(&agent)?.is_none(), "a confirmed start is on trial again");
    Ok(())
}
