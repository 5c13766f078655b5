//! Every interface by which the outside reaches the host is protected, or said not to be.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT},
    host::{Family, Host},
    net::join,
    privilege,
    process::eventually,
    stage::{ATTACKER, EDGE, Stage},
};

const OVERLAY: [(&str, &str); 2] =
    [("10.99.0.1", "2001:db8:99::1"), ("10.99.0.2", "2001:db8:99::2")];
const SECOND: [(&str, &str); 2] =
    [("10.98.0.1", "2001:db8:98::1"), ("10.98.0.2", "2001:db8:98::2")];

/// A configuration with these lines about interfaces.
fn configured<'a>(stage: &'a Stage, lines: &str) -> Result<Agent<'a>> {
    stage.write(
        "config.toml",
        &format!(
            "[agent]\nstate = {:?}\npins = {:?}\nsocket = {:?}\nmax_bans = 4096\n{lines}\n",
            stage.file("state.sqlite"),
            stage.pins(),
            stage.file("control.sock"),
        ),
    )?;
    let mut agent = Agent::idle(stage);
    agent.run()?;
    Ok(agent)
}

/// A VXLAN device over the link, with addresses of its own.
fn overlay(stage: &Stage) -> Result<()> {
    for (namespace, local, remote, address) in [
        (&stage.edge, EDGE.0, ATTACKER.0, OVERLAY[0].0),
        (&stage.outside, ATTACKER.0, EDGE.0, OVERLAY[1].0),
    ] {
        namespace.ip(&format!(
            "link add vx0 type vxlan id 100 dstport 4789 local {local} remote {remote} dev eth0"
        ))?;
        namespace.address("vx0", &format!("{address}/24"))?;
        namespace.ip("link set vx0 up")?;
    }
    Ok(())
}

fn shown(agent: &Agent<'_>, field: &str) -> Result<String> {
    Ok(agent.json(&["status"])?.get(field).map(Value::to_string).unwrap_or_default())
}

#[test]
fn all_ways_in_are_protected() -> Result<()> {
    if !privilege::ready("all ways in") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    overlay(&stage)?;
    join(&stage.edge, "eth1", &stage.outside, "eth1")?;
    stage.outside.address("eth1", &format!("{}/24", SECOND[1].0))?;
    // what containers have
    stage.edge.ip("link add docker0 type bridge")?;
    stage.edge.ip("link add inner type veth peer name guest")?;
    stage.edge.ip("link set inner master docker0")?;
    stage.edge.address("docker0", "172.17.0.1/16")?;
    let agent = configured(&stage, "")?;
    let interfaces = shown(&agent, "interfaces")?;
    ensure!(interfaces.contains("eth0") && interfaces.contains("vx0"), "{interfaces}");
    ensure!(!interfaces.contains("docker0") && !interfaces.contains("eth1"), "{interfaces}");
    let inside = Host::new(&stage.outside, OVERLAY[1]);
    ensure!(inside.pings(Family::V4, OVERLAY[0])?, "the overlay does not work");
    ensure!(agent.verb(&["ban", OVERLAY[1].0, "--for", "1h"])?.status.success(), "ban");
    ensure!(!inside.pings(Family::V4, OVERLAY[0])?, "a banned address passes by VXLAN");

    // a way in that comes later
    stage.edge.address("eth1", &format!("{}/24", SECOND[0].0))?;
    ensure!(agent.verb(&["ban", SECOND[1].0, "--for", "1h"])?.status.success(), "ban");
    eventually("eth1 is protected as well", LIMIT, || {
        Ok(shown(&agent, "interfaces")?.contains("\"eth1\""))
    })?;
    let second = Host::new(&stage.outside, SECOND[1]);
    eventually("nothing passes by eth1", LIMIT, || Ok(!second.pings(Family::V4, SECOND[0])?))?;
    let alarms = shown(&agent, "alarms")?;
    ensure!(!alarms.contains("unprotected"), "{alarms}");
    Ok(())
}

#[test]
fn a_way_in_that_is_left_open_is_said() -> Result<()> {
    if !privilege::ready("a way in that is left open") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    overlay(&stage)?;
    let mut agent = configured(&stage, "interfaces = [\"eth0\"]")?;
    let alarms = shown(&agent, "alarms")?;
    ensure!(alarms.contains("interface_unprotected") && alarms.contains("vx0"), "{alarms}");
    agent.terminate()?;
    let agent = configured(&stage, "interfaces = [\"eth0\"]\nunprotected = [\"vx0\"]")?;
    let alarms = shown(&agent, "alarms")?;
    ensure!(!alarms.contains("vx0"), "{alarms}");
    // an address that comes later opens another way
    stage.edge.ip("link add mv0 type vxlan id 7 dstport 4790 remote 192.0.2.66 dev eth0")?;
    stage.edge.address("mv0", "10.97.0.1/24")?;
    eventually("it is said of mv0", LIMIT, || Ok(shown(&agent, "alarms")?.contains("mv0")))?;
    stage.edge.ip("link del mv0")?;
    eventually("and not any more", LIMIT, || Ok(!shown(&agent, "alarms")?.contains("mv0")))
}

#[test]
fn one_missing_interface_stops_no_other() -> Result<()> {
    if !privilege::ready("a missing interface") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    let agent = configured(&stage, "interfaces = [\"eth0\", \"eth1\"]")?;
    let alarms = shown(&agent, "alarms")?;
    ensure!(alarms.contains("interface_missing") && alarms.contains("eth1"), "{alarms}");
    ensure!(stage.attached()?, "eth0 is not protected");
    join(&stage.edge, "eth1", &stage.outside, "eth1")?;
    stage.edge.address("eth1", &format!("{}/24", SECOND[0].0))?;
    stage.outside.address("eth1", &format!("{}/24", SECOND[1].0))?;
    ensure!(agent.verb(&["ban", SECOND[1].0, "--for", "1h"])?.status.success(), "ban");
    let second = Host::new(&stage.outside, SECOND[1]);
    eventually("eth1 is protected", LIMIT, || {
        Ok(!shown(&agent, "alarms")?.contains("eth1") && !second.pings(Family::V4, SECOND[0])?)
    })
}
