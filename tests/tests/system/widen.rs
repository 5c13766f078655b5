//! Networks are banned with their members, go with them, and are never the host's own.

use std::{fs, io::Write as _};

use anyhow::{Result, ensure};
use tests::{
    agent::{Agent, LIMIT},
    host::{Family, Host},
    privilege,
    process::eventually,
    stage::{ATTACKER, DEVICE, EDGE, Stage},
};

fn complain(stage: &Stage, addresses: &[&str]) -> Result<()> {
    let mut file = fs::File::options().append(true).open(stage.file("app.log"))?;
    addresses.iter().try_for_each(|address| writeln!(file, "slow {address}"))?;
    Ok(())
}

/// Waits until exactly these are banned, in any order.
fn await_banned(agent: &Agent<'_>, wanted: &[&str]) -> Result<()> {
    let mut banned = Vec::new();
    let same = eventually("these are banned", LIMIT, || {
        let list = agent.json(&["list"])?;
        let bans = list.get("bans").and_then(serde_json::Value::as_array).cloned();
        let name = |ban: &serde_json::Value| {
            let address = ban.get("address").and_then(serde_json::Value::as_str).unwrap_or("?");
            let prefix = ban.get("prefix").and_then(serde_json::Value::as_u64).unwrap_or(0);
            format!("{address}/{prefix}")
        };
        banned = bans.unwrap_or_default().iter().map(name).collect();
        banned.sort();
        Ok(banned == wanted)
    });
    same.map_err(|error| error.context(format!("{banned:?}, not {wanted:?}\n{}", agent.log())))
}

#[test]
fn networks_are_banned_with_their_members_and_never_the_own() -> Result<()> {
    if !privilege::ready("widened bans") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("app.log", "")?;
    let jails = format!(
        "[filters.app]\nfailregex = ['^slow <ADDR>$']\n[jails.app]\nlogpath = {log:?}\n\
         maxretry = 1\nwiden_members = 3\n"
    );
    let agent = Agent::start(&stage, &jails)?;

    // IPv6 by /64, but the neighbours one by one; IPv4 by address, and the network with the third
    complain(&stage, &["2001:db8:bad::66", "2001:db8::50", "192.0.2.51", "192.0.2.52"])?;
    complain(&stage, &["192.0.2.53", "203.0.113.1", "203.0.113.2", "203.0.113.3"])?;
    let others = ["192.0.2.51/32", "192.0.2.52/32", "192.0.2.53/32"];
    let v6 = ["2001:db8::50/128", "2001:db8:bad::/64"];
    let members = ["203.0.113.0/24", "203.0.113.1/32", "203.0.113.2/32", "203.0.113.3/32"];
    await_banned(&agent, &[&others[..], &v6, &members].concat())?;
    // a ban is in force before it is history
    let mut shown = String::new();
    let told = eventually("the network's ban is history", LIMIT, || {
        shown = String::from_utf8(agent.verb(&["show", "203.0.113.99"])?.stdout)?;
        Ok(shown.contains("app banned 203.0.113.0/24"))
    });
    told.map_err(|error| error.context(shown.clone()))?;
    ensure!(shown.contains("203.0.113.99 is banned"), "{shown}");
    ensure!(shown.contains("3 or more of its members are banned"), "{shown}");

    // it goes with its members
    let done = agent.verb(&["unban", "203.0.113.1"])?;
    let said = String::from_utf8(done.stdout)?;
    ensure!(done.status.success() && !said.contains("covers"), "{said}");
    await_banned(&agent, &[&others[..], &v6, &members[2..]].concat())?;

    // and when the host becomes one of its members itself
    complain(&stage, &["203.0.113.4"])?;
    let members = ["203.0.113.0/24", "203.0.113.2/32", "203.0.113.3/32", "203.0.113.4/32"];
    await_banned(&agent, &[&others[..], &v6, &members].concat())?;
    stage.edge.address(DEVICE, "203.0.113.200/24")?;
    await_banned(&agent, &[&others[..], &v6, &members[1..]].concat())
}

/// Behind a translator a /64 is the whole IPv4 Internet.
#[test]
fn an_attacker_behind_nat64_has_no_stranger_banned() -> Result<()> {
    if !privilege::ready("bans behind NAT64") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("app.log", "")?;
    // the well-known prefix, one of the operator's, and two clients of one Teredo server
    let pairs = [
        ("64:ff9b::c633:6401", "64:ff9b::808:808"),
        ("2001:db8:64::c633:6401", "2001:db8:64::808:808"),
        ("2001:0:53aa:64c:0:2af9:39cc:9bfe", "2001:0:53aa:64c:0:2af9:f7f7:f7f7"),
    ];
    for address in pairs.iter().flat_map(|(attacker, other)| [attacker, other]) {
        stage.outside.address(DEVICE, &format!("{address}/128"))?;
        stage.edge.ip(&format!("-6 route add {address} via {}", ATTACKER.1))?;
    }
    fs::create_dir(stage.file("conf.d"))?;
    stage.write("conf.d/nat64.toml", "[agent]\nnat64 = [\"2001:db8:64::/96\"]\n")?;
    let config = format!(
        "[filters.app]\nfailregex = ['^slow <ADDR>$']\n\
         [jails.app]\nlogpath = {log:?}\nmaxretry = 1\nwiden_members = 2\n"
    );
    let agent = Agent::start(&stage, &config)?;
    complain(&stage, &pairs.map(|(attacker, _)| attacker))?;
    let banned = pairs.map(|(attacker, _)| format!("{attacker}/128"));
    let mut banned: Vec<_> = banned.iter().map(String::as_str).collect();
    banned.sort_unstable();
    await_banned(&agent, &banned)?;
    for (attacker, other) in pairs {
        let answered = |address| Host::new(&stage.outside, ("", address)).pings(Family::V6, EDGE);
        ensure!(!answered(attacker)?, "{attacker} is answered");
        // who has done nothing; one packet may be late on a busy machine
        eventually(&format!("{other} is answered"), LIMIT, || answered(other))?;
    }
    Ok(())
}
