//! Interfaces that are made of others, of kinds that come as modules: a VLAN device, a bond, a
//! bridge; and the program on them or on what they are made of.

use std::time::Duration;

use anyhow::{Result, ensure};
use ban_agent::{
    clock::{Boot, Now},
    kernel::{Enforcer as _, Mode, Place, Xdp},
};
use tests::{
    bench::{all, set},
    guest::{self, options, start},
    host::FAMILIES,
    net::Namespace,
    process::eventually,
    stage::{ATTACKER, DEVICE, EDGE, Stage},
};

/// The ends of the wire that all of them start from: cards 0 and 1.
fn wire(edge: &Namespace, outside: &Namespace) -> Result<()> {
    guest::card(0, edge, DEVICE)?;
    guest::card(1, outside, DEVICE)
}

/// The attacker is banned and dies; the client does not.
fn drops(stage: &Stage, xdp: &mut Xdp) -> Result<()> {
    let never = || all(Boot::NEVER);
    for family in FAMILIES {
        ensure!(stage.attacker().pings(family, EDGE)?, "nothing arrives, {family:?}");
    }
    xdp.apply(&[set(ATTACKER.0, never()), set(ATTACKER.1, never())], Now::read())?;
    still_drops(stage)
}

fn still_drops(stage: &Stage) -> Result<()> {
    for family in FAMILIES {
        ensure!(!stage.attacker().pings(family, EDGE)?, "the attacker came through, {family:?}");
        ensure!(stage.client().pings(family, EDGE)?, "the client was dropped, {family:?}");
    }
    Ok(())
}

/// Where it runs, and what the operator is told.
fn shown(xdp: &Xdp) -> Vec<(String, Option<Place>, String)> {
    let attached = xdp.interfaces().iter();
    attached.map(|found| (found.name.clone(), found.place, found.warnings.join("; "))).collect()
}

#[test]
fn a_vlan_is_protected_on_its_parent() -> Result<()> {
    if !guest::ready("a VLAN device") {
        return Ok(());
    }
    let stage = Stage::laid("eth0.7", "eth0.7", |edge, outside| {
        wire(edge, outside)?;
        for namespace in [edge, outside] {
            namespace.ip("link add link eth0 name eth0.7 type vlan id 7")?;
            namespace.ip("link set eth0.7 up")?;
        }
        Ok(())
    })?;
    let mut xdp = start(&stage, options(&stage, &["eth0.7"], Mode::Auto))?;
    let shown = shown(&xdp);
    let [(name, Some(Place::Native), warning)] = &shown[..] else { anyhow::bail!("{shown:?}") };
    ensure!(name == "eth0" && warning.contains("eth0.7 is a VLAN of eth0"), "{shown:?}");
    drops(&stage, &mut xdp)
}

#[test]
fn a_bond_drops_whichever_port_is_active() -> Result<()> {
    if !guest::ready("a bond") {
        return Ok(());
    }
    let stage = Stage::laid("bond0", DEVICE, |edge, outside| {
        wire(edge, outside)?;
        guest::card(2, edge, "eth2")?;
        edge.ip("link add bond0 type bond mode active-backup miimon 50 primary_reselect failure")?;
        for port in [DEVICE, "eth2"] {
            edge.ip(&format!("link set {port} down"))?;
            edge.ip(&format!("link set {port} master bond0"))?;
        }
        edge.ip("link set bond0 up")?;
        Ok(())
    })?;
    // On a port alone it drops what comes in there, and says what it does not see.
    let xdp = start(&stage, options(&stage, &[DEVICE], Mode::Native))?;
    let on_port = shown(&xdp);
    let [(name, Some(Place::Native), warning)] = &on_port[..] else { anyhow::bail!("{on_port:?}") };
    ensure!(name == DEVICE && warning.contains("eth0 is a port of the bond bond0"), "{on_port:?}");
    ensure!(warning.contains("name bond0 instead"), "{on_port:?}");
    xdp.detach()?;
    let mut xdp = start(&stage, options(&stage, &["bond0"], Mode::Native))?;
    ensure!(shown(&xdp) == [("bond0".to_owned(), Some(Place::Native), String::new())], "{xdp:?}");
    drops(&stage, &mut xdp)?;
    stage.edge.ip(&format!("link set {DEVICE} down"))?;
    eventually("the other port takes over", Duration::from_secs(20), || {
        Ok(FAMILIES.iter().all(|&f| stage.client().pings(f, EDGE).unwrap_or(false)))
    })?;
    still_drops(&stage)
}

#[test]
fn a_bridge_is_protected_on_its_port() -> Result<()> {
    if !guest::ready("a bridge") {
        return Ok(());
    }
    let stage = Stage::laid("br0", DEVICE, |edge, outside| {
        wire(edge, outside)?;
        edge.ip("link add br0 type bridge forward_delay 0")?;
        edge.ip(&format!("link set {DEVICE} master br0"))?;
        edge.ip("link set br0 up")?;
        Ok(())
    })?;
    let mut xdp = start(&stage, options(&stage, &[DEVICE], Mode::Native))?;
    let on_port = shown(&xdp);
    let [(_, Some(Place::Native), warning)] = &on_port[..] else { anyhow::bail!("{on_port:?}") };
    ensure!(warning.contains("eth0 is a port of the bridge br0"), "{on_port:?}");
    drops(&stage, &mut xdp)?;
    xdp.detach()?;
    // The bridge itself has no driver: generic mode, for what goes to this host.
    let mut xdp = start(&stage, options(&stage, &["br0"], Mode::Auto))?;
    let shown = shown(&xdp);
    let [(_, Some(Place::Generic), warning)] = &shown[..] else { anyhow::bail!("{shown:?}") };
    ensure!(warning.contains("generic"), "{shown:?}");
    drops(&stage, &mut xdp)
}
