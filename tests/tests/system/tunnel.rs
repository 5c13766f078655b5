//! Interfaces without an Ethernet header: a banned source dies there as well.

#![expect(clippy::indexing_slicing, reason = "pairs")]

use std::{collections::BTreeSet, net::TcpListener};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::{Agent, LIMIT},
    frame::{Packet, bare_syn_ack},
    host::within,
    privilege,
    process::eventually,
    stage::Stage,
    tun::Tun,
};

const PORT: u16 = 2222;
const HERE: [&str; 2] = ["10.88.0.1", "2001:db8:88::1"];
const BANNED: [&str; 2] = ["10.88.0.2", "2001:db8:88::2"];
const OTHER: [&str; 2] = ["10.88.0.3", "2001:db8:88::3"];
/// Where a program that takes this for an Ethernet frame looks for its type, it finds IPv4's.
const LIKE_A_TYPE: &str = "8.0.88.2";

/// Which of these sources, by their place, the listener behind the tunnel answers.
fn answered(tun: &mut Tun, sources: &[&str], base: u16, patient: bool) -> Result<BTreeSet<usize>> {
    for (number, source) in (0..).zip(sources) {
        let here = HERE[usize::from(source.contains(':'))];
        let ports = (base + number, PORT);
        tun.send(Packet::syn(source.parse()?, here.parse()?, ports)?.bytes())?;
    }
    let mut seen = BTreeSet::new();
    eventually("all are answered", LIMIT, || {
        while let Some(packet) = tun.receive()? {
            let port = bare_syn_ack(&packet, PORT).and_then(|port| port.checked_sub(base));
            seen.extend(port.map(usize::from).filter(|number| *number < sources.len()));
        }
        Ok(!patient || seen.len() == sources.len())
    })?;
    Ok(seen)
}

#[test]
fn a_tunnel_is_protected() -> Result<()> {
    if !privilege::ready("a tunnel") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    let mut tun = Tun::new(&stage.edge, "tun0")?;
    stage.edge.address("tun0", &format!("{}/24", HERE[0]))?;
    stage.edge.address("tun0", &format!("{}/64", HERE[1]))?;
    stage.edge.ip("link set tun0 up")?;
    stage.edge.ip("route add 8.0.88.0/24 dev tun0")?;
    let listen = || Ok(TcpListener::bind(("::", PORT))?);
    let _listener = within(&stage.edge, listen)?;
    stage.write(
        "config.toml",
        &format!(
            "[agent]\nstate = {:?}\npins = {:?}\nsocket = {:?}\nmax_bans = 4096\n",
            stage.file("state.sqlite"),
            stage.pins(),
            stage.file("control.sock"),
        ),
    )?;
    let mut agent = Agent::idle(&stage);
    agent.run()?;
    let status = agent.json(&["status"])?.to_string();
    ensure!(status.contains("\"tun0\""), "nobody protects tun0: {status}");

    let all = [BANNED[0], BANNED[1], LIKE_A_TYPE, OTHER[0], OTHER[1]];
    answered(&mut tun, &all, 20_000, true).context("before")?;
    for address in [BANNED[0], BANNED[1], LIKE_A_TYPE] {
        ensure!(agent.verb(&["ban", address, "--for", "1h"])?.status.success(), "ban {address}");
    }
    let passed = answered(&mut tun, &all[..3], 30_000, false)?;
    answered(&mut tun, &all[3..], 40_000, true).context("the others")?;
    ensure!(passed.is_empty(), "the banned sources were answered: {passed:?}");
    for address in [BANNED[0], BANNED[1], LIKE_A_TYPE] {
        ensure!(agent.dropped(address)? > 0, "{address}: no packet is counted");
    }
    // it stays when the agent dies
    agent.kill()?;
    let passed = answered(&mut tun, &all[..3], 50_000, false)?;
    ensure!(passed.is_empty(), "without the agent: {passed:?}");
    Ok(())
}
