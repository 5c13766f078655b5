//! The program in the driver of a real kind of card: what it drops there, that a ban ends without
//! the agent, and that nothing passes while the program is swapped.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use ban_agent::{
    clock::{Boot, Now},
    dataplane::{DataPlane as _, Mode, Xdp, XdpMode},
    ledger::Op,
    net::parse_prefix,
};
use tests::{
    bench::{all, set},
    guest::{self, options, start},
    host::{FAMILIES, Family, within},
    privilege::kernel,
    process::eventually,
    stage::{ATTACKER, DEVICE, EDGE, Stage},
};

/// Bans the attacker in both families until `end`.
fn ban(xdp: &mut Xdp, end: Boot) -> Result<()> {
    xdp.apply(&[set(ATTACKER.0, all(end)), set(ATTACKER.1, all(end))], Now::read())
}

/// Who reaches the edge.
fn reached(stage: &Stage) -> Result<[bool; 2]> {
    let mut reached = [true; 2];
    for family in FAMILIES {
        reached[0] &= stage.attacker().pings(family, EDGE)?;
        reached[1] &= stage.client().pings(family, EDGE)?;
    }
    Ok(reached)
}

#[test]
fn a_banned_source_dies_in_the_driver_until_the_ban_ends() -> Result<()> {
    if !guest::ready("native drops") {
        return Ok(());
    }
    let stage = Stage::build()?;
    ensure!(reached(&stage)? == [true, true], "the wire does not work");
    let mut xdp = start(&stage, options(&stage, &[DEVICE], Mode::Native))?;
    let json = stage.edge.ip(&format!("-j link show dev {DEVICE}"))?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    // XDP_ATTACHED_DRV, include/uapi/linux/if_link.h
    ensure!(json[0]["xdp"]["mode"] == 1, "not in the driver: {json}");
    ensure!(reached(&stage)? == [true, true], "it drops without a ban");
    ban(&mut xdp, Boot::NEVER)?;
    ensure!(reached(&stage)? == [false, true], "the attacker came through, or the client did not");

    ban(&mut xdp, Now::read().boot.plus(12_000))?;
    let hits = xdp.hits(&[parse_prefix(ATTACKER.0).unwrap()])?;
    ensure!(hits.iter().all(|hits| hits.packets > 0), "not counted: {hits:?}");
    // The agent is gone; the pinned link stays.
    drop(xdp);
    ensure!(!stage.attacker().pings(Family::V4, EDGE)?, "the ban left with the agent");
    eventually("the ban ends without the agent", Duration::from_secs(30), || {
        Ok(reached(&stage)? == [true, true])
    })
}

#[test]
fn nothing_passes_while_the_program_is_swapped() -> Result<()> {
    if !guest::ready("the swap in the driver") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let received = within(&stage.edge, || Ok(UdpSocket::bind((EDGE.0, 9_999))?))?;
    received.set_read_timeout(Some(Duration::from_millis(500)))?;
    let sender = within(&stage.outside, || Ok(UdpSocket::bind((ATTACKER.0, 0))?))?;
    sender.connect((EDGE.0, 9_999))?;
    // A wire that stands still fails the test, and does not hold it up.
    sender.set_write_timeout(Some(Duration::from_secs(1)))?;
    sender.send(b"one")?;
    received.recv(&mut [0; 64])?;
    // The neighbour stays known: what is dropped cannot answer ARP.
    let neighbours = stage.outside.ip(&format!("-j neigh show {} dev {DEVICE}", EDGE.0))?;
    let neighbours: serde_json::Value = serde_json::from_str(&neighbours)?;
    let mac = neighbours[0]["lladdr"].as_str().unwrap();
    stage.outside.ip(&format!("neigh replace {} lladdr {mac} dev {DEVICE}", EDGE.0))?;

    let mut xdp = start(&stage, options(&stage, &[DEVICE], Mode::Native))?;
    ban(&mut xdp, Boot::NEVER)?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let swapped = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if sender.send(b"flood").is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let swapped = (|| -> Result<Xdp> {
            for _ in 0..3 {
                let before = sent.load(Ordering::Relaxed);
                drop(xdp);
                xdp = start(&stage, options(&stage, &[DEVICE], Mode::Native))?;
                let more = |count| Ok(sent.load(Ordering::Relaxed) > before + count);
                eventually("the flood goes on", Duration::from_secs(60), || more(200))?;
            }
            Ok(xdp)
        })();
        stop.store(true, Ordering::Relaxed);
        swapped
    });
    let mut xdp = swapped?;
    let passed = received.recv_from(&mut [0; 64]);
    ensure!(passed.is_err(), "a packet passed: {passed:?}");
    let attacker = parse_prefix(ATTACKER.0).unwrap();
    ensure!(xdp.hits(&[attacker])?[0].packets > 300, "the flood did not arrive");
    // The other way round: without the ban the same packets arrive.
    xdp.apply(&[Op::Clear(attacker)], Now::read())?;
    sender.send(b"two")?;
    ensure!(received.recv(&mut [0; 64]).is_ok(), "the socket would not have seen them");
    Ok(())
}

#[test]
fn jumbo_frames_die_in_the_driver_where_it_can() -> Result<()> {
    if !guest::ready("jumbo frames on a card") {
        return Ok(());
    }
    let stage = Stage::build()?;
    for namespace in [&stage.edge, &stage.outside] {
        namespace.ip(&format!("link set {DEVICE} mtu 9000"))?;
    }
    let mut xdp = start(&stage, options(&stage, &[DEVICE], Mode::Auto))?;
    let attached = &xdp.interfaces()[0];
    // virtio-net hands over frames of several buffers since 6.3.
    if kernel() >= Some((6, 3)) {
        ensure!(attached.mode == Some(XdpMode::Native), "{attached:?}");
    } else {
        ensure!(attached.mode == Some(XdpMode::Generic), "{attached:?}");
        ensure!(attached.warnings.iter().any(|text| text.contains("generic")), "{attached:?}");
    }
    ban(&mut xdp, Boot::NEVER)?;
    let mut ping = stage.outside.command("ping");
    ping.args(["-c1", "-W1", "-s8900", "-Mdo", "-I", ATTACKER.0, EDGE.0]);
    let reached = ping.output()?.status.success();
    ensure!(!reached, "a large frame came through");
    let hits = xdp.hits(&[parse_prefix(ATTACKER.0).unwrap()])?;
    ensure!(hits[0].bytes >= 8_900, "all buffers are counted: {hits:?}");
    Ok(())
}
