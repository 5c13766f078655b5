//! A real HAProxy, its `httplog` lines straight from its syslog socket to the agent.

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::Agent,
    daemons::Haproxy,
    host::FAMILIES,
    privilege,
    stage::{EDGE, Stage},
};

#[test]
fn refusals_of_the_dashboard_cost_the_attacker_his_connections() -> Result<()> {
    if !privilege::ready("HAProxy over syslog") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _haproxy = Haproxy::start(&stage, 5514)?;
    let jail = "[jails.ceph-dashboard]\nlogpath = []\nsyslog = \"udp://127.0.0.1:5514\"\n";
    let agent = Agent::start(&stage, jail)?;
    let (attacker, client) = (stage.attacker(), stage.client());
    for family in FAMILIES {
        let address = attacker.address(family);
        let mut open = attacker.connect(family, EDGE, Haproxy::PORT)?.context("no HAProxy")?;
        let mut other = client.connect(family, EDGE, Haproxy::PORT)?.context("no HAProxy")?;
        for _ in 1..5 {
            ensure!(open.ask(Haproxy::BAD)? == Some(400), "the dashboard refuses");
        }
        // a tab that was left open is no attack, however often it asks
        for _ in 0..20 {
            ensure!(open.ask(Haproxy::STALE)? == Some(401), "a token that has expired");
        }
        ensure!(agent.holders(address)?.is_empty(), "banned before maxretry");
        open.ask(Haproxy::BAD)?;
        agent.await_holders(address, &["ceph-dashboard"])?;
        ensure!(open.ask(Haproxy::GOOD)?.is_none(), "an open connection still works");
        ensure!(attacker.connect(family, EDGE, Haproxy::PORT)?.is_none(), "a new one opens");
        ensure!(!attacker.pings(family, EDGE)?, "pings come back");
        ensure!(other.ask(Haproxy::GOOD)? == Some(200), "the client suffers");
    }
    Ok(())
}
