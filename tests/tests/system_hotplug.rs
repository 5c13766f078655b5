//! An interface that goes and comes back under the running agent is protected again, without
//! anybody asking.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    agent::{Agent, LIMIT},
    host::Family,
    net::join,
    privilege,
    process::eventually,
    stage::{ATTACKER, DEVICE, EDGE, Stage},
};

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
