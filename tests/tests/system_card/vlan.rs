//! Tagged frames of a banned source die on the parent interface, whatever the tags.

use std::{collections::BTreeSet, net::TcpListener, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use tests::{
    agent::{Agent, LIMIT},
    frame::{Packet, Wire, ethernet, ethernet_to, syn_ack},
    host::within,
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

/// Linux takes off any number of priority tags, and answers what it finds behind them.
#[test]
fn what_the_stack_peels_hides_nobody() -> Result<()> {
    const PORT: u16 = 2222;
    if !privilege::ready("priority tags") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = Agent::start(&stage, "")?;
    let listen = || Ok(TcpListener::bind(("::", PORT))?);
    let _listener = within(&stage.edge, listen)?;
    let station = station(&stage.edge.ip("-oneline link show eth0")?)?;
    let mut out = Wire::open(&stage.outside)?;
    for address in [ATTACKER.0, ATTACKER.1] {
        ensure!(agent.verb(&["ban", address, "--for", "1h"])?.status.success(), "ban {address}");
    }
    let stacks: Vec<Vec<(u16, u16)>> = [0, 1, 2, 3, 4, 5, 8, 12, 64, 300]
        .into_iter()
        .flat_map(|count| [CTAG, STAG].map(|kind| vec![(kind, 0xe000); count]))
        .collect();
    let mut expected = BTreeSet::new();
    for (number, tags) in (0..).zip(&stacks) {
        for (base, from) in [(20_000, ATTACKER), (30_000, CLIENT)] {
            for (family, from, to) in [(0, from.0, EDGE.0), (1_000, from.1, EDGE.1)] {
                let port = base + family + number;
                let packet = Packet::syn(from.parse()?, to.parse()?, (port, PORT))?;
                out.send(&ethernet_to(station, tags, &packet))?;
                if base == 30_000 {
                    expected.insert(port);
                }
            }
        }
    }
    let mut answered = BTreeSet::new();
    eventually("the client is answered under any number of tags", LIMIT, || {
        while let Some(frame) = out.receive()? {
            answered.extend(syn_ack(&frame, PORT));
        }
        Ok(expected.is_subset(&answered))
    })
    .with_context(|| format!("answered: {answered:?}"))?;
    let passed: Vec<_> = answered.difference(&expected).collect();
    ensure!(passed.is_empty(), "the banned source was answered at {passed:?}");
    Ok(())
}

/// The address of a link, as ip(8) shows it.
fn station(link: &str) -> Result<[u8; 6]> {
    let text = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    let bytes = text.context("no link/ether")?.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|bytes| anyhow!("{bytes:?}"))
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
