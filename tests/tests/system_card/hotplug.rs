//! An interface that goes and comes back under the running agent is protected again, without
//! anybody asking.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    agent::{Agent, LIMIT, configure},
    host::Family,
    net::join,
    privilege,
    process::eventually,
    stage::{ATTACKER, DEVICE, EDGE, Stage},
};

#[test]
fn one_that_is_not_there_yet_stops_no_other() -> Result<()> {
    if !privilege::ready("an interface that comes late") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    let mut agent = Agent::idle(&stage);
    // neither does a jail that makes no sense
    configure(
        &stage,
        "[jails.sshd]\nlogpath = \"/var/log/auth.log\"\n\
         [jails.slip]\nfilter = \"sshd\"\nlogpath = \"/x\"\nmaxretri = 3\n",
    )?;
    agent.run_by(&["-i", "late0", "-i", DEVICE])?;
    let attacker = stage.attacker();
    let done = agent.verb(&["ban", attacker.address(Family::V4), "--for", "1h"])?;
    ensure!(done.status.success(), "ban failed");
    ensure!(!attacker.pings(Family::V4, EDGE)?, "not dropped");
    let status = agent.json(&["status"])?;
    let alarms = status["alarms"].to_string();
    for word in ["part_refused", "jail slip", "maxretri", "interface_missing", "late0"] {
        ensure!(alarms.contains(word), "no word of {word}: {alarms}");
    }
    ensure!(agent.verb(&["check"])?.status.code() == Some(78), "check says it is good");
    let reload = agent.verb(&["reload"])?;
    ensure!(reload.status.code() == Some(78), "a reload takes it in parts: {reload:?}");

    join(&stage.edge, "late0", &stage.outside, "late0")?;
    eventually("the program is on it", Duration::from_secs(10), || {
        Ok(stage.edge.ip("-details link show late0")?.contains("xdp"))
    })?;
    eventually("the alarm is over", Duration::from_secs(10), || {
        Ok(!agent.json(&["status"])?["alarms"].to_string().contains("interface_missing"))
    })
}

#[test]
fn a_returning_interface_is_protected_again() -> Result<()> {
    if !privilege::ready("an interface that comes back") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    let agent = Agent::start(&stage, "")?;
    let attacker = stage.attacker();
    let done = agent.verb(&["ban", attacker.address(Family::V4), "--for", "1h"])?;
    ensure!(done.status.success(), "ban failed");
    ensure!(!attacker.pings(Family::V4, EDGE)?, "not dropped");
    stage.edge.ip(&format!("link del {DEVICE}"))?;
    eventually("the agent notices", LIMIT, || Ok(agent.log().contains("is gone")))?;
    join(&stage.edge, DEVICE, &stage.outside, DEVICE)?;
    stage.edge.address(DEVICE, &format!("{}/24", EDGE.0))?;
    stage.outside.address(DEVICE, &format!("{}/24", ATTACKER.0))?;
    eventually("the program is back", Duration::from_secs(10), || stage.attached())?;
    ensure!(!attacker.pings(Family::V4, EDGE)?, "the ban was lost with the interface");
    Ok(())
}
