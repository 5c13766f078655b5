//! A jail that bans too large a share of those who are connected right now is stopped by itself,
//! goes on counting, and bans again once it is told to.

use std::{
    io::Write as _,
    net::TcpListener,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT, configure},
    host::{Connection, Family, Host, within},
    privilege,
    process::eventually,
    stage::{DEVICE, EDGE, Stage},
};

const CLIENTS: [(&str, &str); 16] = [
    ("192.0.2.101", "2001:db8::101"),
    ("192.0.2.102", "2001:db8::102"),
    ("192.0.2.103", "2001:db8::103"),
    ("192.0.2.104", "2001:db8::104"),
    ("192.0.2.105", "2001:db8::105"),
    ("192.0.2.106", "2001:db8::106"),
    ("192.0.2.107", "2001:db8::107"),
    ("192.0.2.108", "2001:db8::108"),
    ("192.0.2.109", "2001:db8::109"),
    ("192.0.2.110", "2001:db8::110"),
    ("192.0.2.111", "2001:db8::111"),
    ("192.0.2.112", "2001:db8::112"),
    ("192.0.2.113", "2001:db8::113"),
    ("192.0.2.114", "2001:db8::114"),
    ("192.0.2.115", "2001:db8::115"),
    ("192.0.2.116", "2001:db8::116"),
];

const PORT: u16 = 8080;

fn jail(stage: &Stage, share: &str) -> String {
    let log = stage.file("app.log");
    format!(
        "[filters.app]\nfailregex = ['^slow <ADDR>$']\n[jails.app]\nlogpath = {log:?}\n\
         maxretry = 1\nmax_client_share = {share}\n"
    )
}

/// A line about each client, as a pattern that catches everybody would see them.
fn complain(stage: &Stage, family: Family) -> Result<()> {
    let mut file = std::fs::File::options().append(true).open(stage.file("app.log"))?;
    for addresses in CLIENTS {
        let address = Host::new(&stage.outside, addresses).address(family);
        writeln!(file, "slow {address}")?;
    }
    Ok(())
}

fn stopped(agent: &Agent<'_>) -> Result<Option<Value>> {
    let status = agent.json(&["status", "app"])?;
    Ok(status.pointer("/jails/0/stopped").cloned())
}

#[test]
fn a_jail_that_bans_the_clients_of_the_host_is_stopped() -> Result<()> {
    if !privilege::ready("share of the connected clients") {
        return Ok(());
    }
    let stage = Stage::build()?;
    for (v4, v6) in CLIENTS {
        stage.outside.address(DEVICE, &format!("{v4}/24"))?;
        stage.outside.address(DEVICE, &format!("{v6}/64"))?;
    }
    stage.write("app.log", "")?;
    let agent = Agent::start(&stage, &jail(&stage, "0.5"))?;
    // they come after the agent has looked for the first time, and it looks again after a second
    let (_listener, connections) = connect_all(&stage)?;
    let connected = Instant::now();
    eventually("the look is stale", LIMIT, || Ok(connected.elapsed() > Duration::from_secs(1)))?;
    ensure!(connections.len() == CLIENTS.len(), "{} connected", connections.len());

    complain(&stage, Family::V4)?;
    eventually("the jail is stopped", LIMIT, || Ok(stopped(&agent)?.is_some()))
        .with_context(|| format!("{:?}\n{}", agent.json(&["status"]), agent.log()))?;
    eventually("the jail goes on counting", LIMIT, || {
        let withheld = stopped(&agent)?.and_then(|stopped| stopped.get("withheld")?.as_u64());
        Ok(withheld == Some(6) && agent.lines("app")? == 16)
    })
    .with_context(|| format!("{:?}", stopped(&agent)))?;
    ensure!(agent.banned()?.len() == 10, "{:?}", agent.banned()?);
    let human = String::from_utf8(agent.verb(&["status"])?.stdout)?;
    ensure!(
        human.contains("ALARM jail_stopped: [app] has stopped banning: 11 of 16 connected"),
        "{human}"
    );
    ensure!(agent.log().contains("[app] stopped banning"), "not in the log");

    // a reload changes the limit, and lets nobody go on by itself
    configure(&stage, &jail(&stage, "1.0"))?;
    ensure!(agent.verb(&["reload"])?.status.success(), "reload failed");
    ensure!(stopped(&agent)?.is_some(), "the reload resumed the jail");
    ensure!(agent.verb(&["resume", "app"])?.status.success(), "resume failed");
    ensure!(stopped(&agent)?.is_none(), "still stopped");
    complain(&stage, Family::V4)?;
    eventually("the new limit holds", LIMIT, || Ok(agent.banned()?.len() == CLIENTS.len()))?;
    ensure!(stopped(&agent)?.is_none(), "the old limit holds");
    Ok(())
}

/// A server on the edge, and a connection to it from each client.
fn connect_all(stage: &Stage) -> Result<(OwnedFd, Vec<Connection>)> {
    let listener = within(&stage.edge, || Ok(TcpListener::bind((EDGE.0, PORT))?))?;
    let connections = CLIENTS
        .iter()
        .map(|addresses| Host::new(&stage.outside, *addresses).connect(Family::V4, EDGE, PORT));
    let connections = connections.collect::<Result<Vec<_>>>()?;
    Ok((listener.into(), connections.into_iter().flatten().collect()))
}
