//! Tagged frames of a banned source die on the parent interface, whatever the tags.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    agent::Agent,
    frame::{Packet, Wire, ethernet},
    privilege,
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
        let dropped = agent.dropped(address)?;
        ensure!(dropped >= u64::try_from(stacks.len())?, "{address}: {dropped} counted");
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
    let mut last = String::new();
    for (number, tags) in stacks.iter().enumerate() {
        for (who, (v4, v6)) in [("attacker", ATTACKER), ("client", CLIENT)] {
            last = format!("{name} {who} v4 {number}");
            let packet = Packet::v4(v4.parse()?, EDGE.0.parse()?, last.as_bytes())?;
            out.send(&ethernet(tags, &packet))?;
            last = format!("{name} {who} v6 {number}");
            let packet = Packet::v6(v6.parse()?, EDGE.1.parse()?, last.as_bytes())?;
            out.send(&ethernet(tags, &packet))?;
        }
    }
    // the link keeps the order, and the last frame is the client's
    let seen = edge.marked_until(last.as_bytes(), Duration::from_secs(5))?;
    Ok(seen.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
}
