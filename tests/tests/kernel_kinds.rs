//! Interfaces that are made of others, of kinds that come as modules: a VLAN device, a bond, a
//! bridge; and the program on them or on what they are made of.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ban_agent::{
    clock::{Boot, Now},
    dataplane::{DataPlane as _, Mode, Xdp, XdpMode},
};
use tests::{
    agent::LIMIT,
    bench::{all, set},
    guest::{self, options, start},
    host::{FAMILIES, Family, Host},
    net::{Namespace, run},
    process::{Process, eventually},
    stage::{ATTACKER, CLIENT, DEVICE, EDGE, Stage},
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
fn shown(xdp: &Xdp) -> Vec<(String, Option<XdpMode>, String)> {
    let attached = xdp.interfaces().into_iter();
    attached.map(|found| (found.name.clone(), found.mode, found.warnings.join("; "))).collect()
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
    let [(name, Some(XdpMode::Native), warning)] = &shown[..] else { anyhow::bail!("{shown:?}") };
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
    let [(name, Some(XdpMode::Native), warning)] = &on_port[..] else {
        anyhow::bail!("{on_port:?}")
    };
    ensure!(name == DEVICE && warning.contains("eth0 is a port of the bond bond0"), "{on_port:?}");
    ensure!(warning.contains("name bond0 instead"), "{on_port:?}");
    xdp.detach()?;
    let mut xdp = start(&stage, options(&stage, &["bond0"], Mode::Native))?;
    ensure!(shown(&xdp) == [("bond0".to_owned(), Some(XdpMode::Native), String::new())], "{xdp:?}");
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
    let [(_, Some(XdpMode::Native), warning)] = &on_port[..] else { anyhow::bail!("{on_port:?}") };
    ensure!(warning.contains("eth0 is a port of the bridge br0"), "{on_port:?}");
    drops(&stage, &mut xdp)?;
    xdp.detach()?;
    // The bridge itself has no driver: generic mode, for what goes to this host.
    let mut xdp = start(&stage, options(&stage, &["br0"], Mode::Auto))?;
    let shown = shown(&xdp);
    let [(_, Some(XdpMode::Generic), warning)] = &shown[..] else { anyhow::bail!("{shown:?}") };
    ensure!(warning.contains("generic"), "{shown:?}");
    drops(&stage, &mut xdp)
}

/// A way in beside the card: a device at each end, and what it carries.
struct Way {
    name: &'static str,
    /// What `ip link add` makes, without the addresses of its ends.
    kind: &'static str,
    /// The family of those addresses; `None`: they are no words of the device.
    outer: Option<Family>,
    inner: &'static [Family],
}

/// Hosts behind a way.
const BANNED: u8 = 66;
const INNOCENT: u8 = 7;

const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
const BOTH: &[Family] = &FAMILIES;

/// All but the VXLAN device have no Ethernet header.
const WAYS: [Way; 8] = [
    Way { name: "ipip1", kind: "ipip", outer: Some(Family::V4), inner: V4 },
    Way { name: "sit1", kind: "sit", outer: Some(Family::V4), inner: V6 },
    Way { name: "gre1", kind: "gre key 1", outer: Some(Family::V4), inner: BOTH },
    Way { name: "six1", kind: "ip6tnl mode any", outer: Some(Family::V6), inner: V4 },
    Way { name: "gre61", kind: "ip6gre key 1", outer: Some(Family::V6), inner: V6 },
    Way { name: "vx1", kind: "vxlan id 1 dstport 4789", outer: Some(Family::V4), inner: V6 },
    Way { name: "wg1", kind: "wireguard", outer: None, inner: BOTH },
    Way { name: "eth1", kind: "", outer: None, inner: V4 },
];

impl Way {
    /// What ip(8) has to do at the two ends, near and far.
    fn lines(&self) -> [String; 2] {
        let Way { name, kind, .. } = self;
        let far = if kind.is_empty() { DEVICE } else { name };
        let ends = [(*name, EDGE, CLIENT, &[1][..]), (far, CLIENT, EDGE, &[BANNED, INNOCENT][..])];
        ends.map(|(name, local, remote, hosts)| {
            let mut lines = String::new();
            let ends = match self.outer {
                Some(Family::V4) => format!("local {} remote {}", local.0, remote.0),
                Some(Family::V6) => format!("local {} remote {}", local.1, remote.1),
                None => String::new(),
            };
            if !kind.is_empty() {
                lines += &format!("link add {name} type {kind} {ends}\n");
            }
            lines += &format!("link set {name} up\n");
            for (v4, v6) in hosts.iter().map(|host| self.address(*host)) {
                if self.inner.contains(&Family::V4) {
                    lines += &format!("address add {v4}/24 dev {name}\n");
                }
                if self.inner.contains(&Family::V6) {
                    lines += &format!("address add {v6}/64 dev {name} nodad\n");
                }
            }
            lines
        })
    }

    fn exchange_keys(&self, stage: &Stage) -> Result<()> {
        let mut public = Vec::new();
        for (namespace, file) in [(&stage.edge, "near"), (&stage.outside, "far")] {
            let key = run(namespace.command("wg").arg("genkey"))?;
            let key = stage.write(file, &key)?;
            let set = ["set", self.name, "listen-port", "51820", "private-key"];
            run(namespace.command("wg").args(set).arg(key))?;
            let key = run(namespace.command("wg").args(["show", self.name, "public-key"]))?;
            public.push(key.trim().to_owned());
        }
        let others = [(&stage.edge, CLIENT.0), (&stage.outside, EDGE.0)];
        for ((namespace, endpoint), key) in others.into_iter().zip(public.iter().rev()) {
            let endpoint = format!("{endpoint}:51820");
            let peer = ["set", self.name, "peer", key, "endpoint", &endpoint];
            let all = ["allowed-ips", "0.0.0.0/0,::/0"];
            run(namespace.command("wg").args(peer).args(all))?;
        }
        Ok(())
    }

    /// Of a host behind it.
    fn address(&self, host: u8) -> (&'static str, &'static str) {
        let number = WAYS.iter().position(|way| way.name == self.name).unwrap_or_default();
        let v4 = format!("10.77.{number}.{host}");
        (v4.leak(), format!("2001:db8:77:{number}::{host}").leak())
    }

    fn pings(&self, stage: &Stage, host: u8, family: Family) -> Result<bool> {
        Host::new(&stage.outside, self.address(host)).pings(family, self.address(1))
    }
}

/// What comes out of a tunnel, or by a second card, is not what the program on the card saw.
#[test]
fn every_way_in_is_protected() -> Result<()> {
    if !guest::ready("tunnels and a second card") {
        return Ok(());
    }
    let stage = Stage::laid(DEVICE, DEVICE, wire)?;
    guest::card(2, &stage.edge, "eth1")?;
    // it is on the same wire, and is asked itself
    run(stage.edge.command("sysctl").args(["-qw", "net.ipv4.conf.all.arp_ignore=1"]))?;
    for (end, namespace) in [&stage.edge, &stage.outside].into_iter().enumerate() {
        // at once: a program takes its time in here
        let lines: String =
            WAYS.iter().filter_map(|way| way.lines().into_iter().nth(end)).collect();
        let file = stage.write(&format!("ways-{end}"), &lines)?;
        run(namespace.command("ip").arg("-batch").arg(file)).context(lines)?;
    }
    let tunnel = WAYS.iter().find(|way| way.kind == "wireguard").context("no WireGuard")?;
    tunnel.exchange_keys(&stage)?;
    // nobody names them
    let mut xdp = start(&stage, options(&stage, &[], Mode::Auto))?;
    let shown: BTreeMap<_, _> =
        shown(&xdp).into_iter().map(|(name, place, told)| (name, (place, told))).collect();
    let banned = WAYS.iter().flat_map(|way| {
        let (v4, v6) = way.address(BANNED);
        [set(v4, all(Boot::NEVER)), set(v6, all(Boot::NEVER))]
    });
    xdp.apply(&banned.collect::<Vec<_>>(), Now::read())?;
    for way in &WAYS {
        let Way { name, inner, .. } = way;
        let place = shown.get(*name).with_context(|| format!("{name} is left out: {shown:?}"))?;
        println!("{name}: {place:?}");
        if place.0.is_none() {
            ensure!(!place.1.is_empty(), "{name} is not protected, and nobody says so");
            continue;
        }
        for family in *inner {
            ensure!(way.pings(&stage, INNOCENT, *family)?, "{name}: the client died, {family:?}");
            ensure!(!way.pings(&stage, BANNED, *family)?, "{name}: the attacker lives, {family:?}");
        }
    }
    Ok(())
}

/// Two ends of a PPP line: pppd in each namespace, over a socket for a wire.
#[test]
fn a_ppp_line_is_protected() -> Result<()> {
    const NAME: &str = "ppp7";
    const NEAR: &str = "10.76.0.1";
    const FAR: &str = "10.76.0.66";
    const OTHER: &str = "10.76.0.7";
    if !guest::ready("a PPP line") {
        return Ok(());
    }
    if !Path::new("/dev/ppp").exists() {
        // as the kernels of Debian's clouds
        println!("this kernel has no PPP");
        return Ok(());
    }
    let stage = Stage::laid(DEVICE, DEVICE, wire)?;
    let (near, far) = UnixStream::pair().context("no pair of sockets")?;
    let ends = [(&stage.edge, near, NEAR, FAR), (&stage.outside, far, FAR, NEAR)];
    let mut speaking = Vec::new();
    for (namespace, wire, local, remote) in ends {
        let log = stage.file(&format!("pppd-{local}"));
        let mut pppd = namespace.command("pppd");
        pppd.args(["notty", "nodetach", "noauth", "local", "noccp", "ifname", NAME, "logfile"]);
        pppd.arg(log).arg(format!("{local}:{remote}"));
        pppd.stdin(OwnedFd::from(wire.try_clone()?)).stdout(OwnedFd::from(wire));
        speaking.push(Process::spawn("pppd", &mut pppd)?);
    }
    for (namespace, remote) in [(&stage.edge, FAR), (&stage.outside, NEAR)] {
        eventually("the line is up", LIMIT, || {
            let shown = namespace.ip(&format!("address show dev {NAME}"));
            Ok(shown.is_ok_and(|text| text.contains(&format!("peer {remote}"))))
        })
        .with_context(|| fs::read_to_string(stage.file("pppd-10.76.0.1")).unwrap_or_default())?;
    }
    stage.outside.ip(&format!("address add {OTHER}/32 dev {NAME}"))?;
    stage.edge.ip(&format!("route add {OTHER}/32 dev {NAME}"))?;
    // nobody names it
    let mut xdp = start(&stage, options(&stage, &[], Mode::Auto))?;
    let shown = shown(&xdp);
    let on = shown.iter().find(|(name, ..)| name == NAME);
    ensure!(on.is_some_and(|(_, mode, _)| *mode == Some(XdpMode::Generic)), "{shown:?}");
    let pings = |from| Host::new(&stage.outside, (from, "::")).pings(Family::V4, (NEAR, "::"));
    ensure!(pings(FAR)? && pings(OTHER)?, "nothing arrives");
    xdp.apply(&[set(FAR, all(Boot::NEVER))], Now::read())?;
    ensure!(!pings(FAR)?, "the banned peer came through");
    ensure!(pings(OTHER)?, "another was dropped");
    Ok(())
}
