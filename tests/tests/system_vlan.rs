//! Tagged frames of a banned source die on the parent interface, whatever the tags.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    agent::{Agent, LIMIT},
    frame::{Packet, Wire, ethernet},
    privilege,
    process::eventually,
    stage::{ATTACKER, CLIENT, EDGE, Stage},
};

/// 802.1Q, and 802.1ad, which stands outside of another tag.
const CTAG: u16 = 0x8100;
const STAG: u16 = 0x88a8;

#[test]
fn tags_do_not_hide_a_banned_source() -> Result<()> {
    if !privilege::ready("VLAN tags") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = Agent::start(&stage, "")?;
    let (mut out, mut edge) = (Wire::open(&stage.outside)?, Wire::open(&stage.edge)?);
    let stacks: [&[(u16, u16)]; 4] =
        [&[], &[(CTAG, 1234)], &[(STAG, 7), (CTAG, 1234)], &[(CTAG, 7), (CTAG, 1234)]];

    let before = round(&mut out, &mut edge, &stacks, "before")?;
    ensure!(before.iter().any(|text| text.contains("attacker")), "nothing arrives: {before:?}");
    for address in [ATTACKER.0, ATTACKER.1] {
        ensure!(agent.verb(&["ban", address, "--for", "1h"])?.status.success(), "ban {address}");
    }
    let after = round(&mut out, &mut edge, &stacks, "after")?;
    let missed: Vec<_> = after.iter().filter(|text| text.contains("attacker")).collect();
    ensure!(missed.is_empty(), "passed: {missed:?}");
    let fine = after.iter().filter(|text| text.contains("client")).count();
    ensure!(fine == 2 * stacks.len(), "the client lost frames: {after:?}");
    for address in [ATTACKER.0, ATTACKER.1] {
        let wanted = u64::try_from(stacks.len())?;
        eventually(&format!("all frames of {address} are counted"), LIMIT, || {
            Ok(agent.dropped(address)? >= wanted)
        })?;
    }
    Ok(())
}

/// Sends one frame of each kind from the attacker and from the client; what arrived.
fn round(
    out: &mut Wire,
    edge: &mut Wire,
    stacks: &[&[(u16, u16)]],
    name: &str,
) -> Result<Vec<String>> {
    let send = |out: &mut Wire, text: String, (v4, v6): (&str, &str), tags| -> Result<()> {
        let packet = Packet::v4(v4.parse()?, EDGE.0.parse()?, format!("{text} v4").as_bytes())?;
        out.send(&ethernet(tags, &packet))?;
        let packet = Packet::v6(v6.parse()?, EDGE.1.parse()?, format!("{text} v6").as_bytes())?;
        out.send(&ethernet(tags, &packet))
    };
    for (number, tags) in stacks.iter().enumerate() {
        send(out, format!("{name} attacker {number}"), ATTACKER, tags)?;
        send(out, format!("{name} client {number}"), CLIENT, tags)?;
    }
    // two processors may swap frames on the way, so all of the client's are waited for
    let (clients, limit) = (format!("{name} client"), Duration::from_secs(60));
    let seen = edge.marked_until(clients.as_bytes(), 2 * stacks.len(), limit)?;
    Ok(seen.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
}
