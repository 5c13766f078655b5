//! An attacker who forges where his packets come from: a service over UDP logs whatever address they
//! bear, and its jail reads it. Nobody whom this host lives by is ever banned for it.

use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::mpsc::{Receiver, channel},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT, binary, configure},
    frame::Packet,
    host::within,
    privilege,
    process::eventually,
    stage::{EDGE, Stage, VICTIM},
};

/// The port of [`Packet::v4`].
const PORT: u16 = 0x3039;
const RESOLVER: &str = "198.51.100.53";
const CLOCK: &str = "198.51.100.123";
const PROXY: &str = "203.0.113.200";
/// In a list that a CDN publishes.
const CDN: &str = "151.101.1.1";
/// Trusted by one jail.
const FRONT: &str = "203.0.113.90";
/// Nobody whom this host knows.
const STRANGER: &str = "198.51.100.7";

/// A service on the edge that logs who asks, and tells us after that.
fn serve(stage: &Stage) -> Result<Receiver<IpAddr>> {
    let socket = within(&stage.edge, || Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
    let mut log = File::options().create(true).append(true).open(stage.file("dns.log"))?;
    let (heard, peers) = channel();
    thread::spawn(move || {
        while let Ok((_, peer)) = socket.recv_from(&mut [0; 512]) {
            if writeln!(log, "client {peer}: query denied").is_err()
                || heard.send(peer.ip()).is_err()
            {
                return;
            }
        }
    });
    Ok(peers)
}

/// Sends a datagram as if it came from somebody else.
fn forge(stage: &Stage, from: &str) -> Result<()> {
    let edge: Ipv4Addr = EDGE.0.parse()?;
    let packet = Packet::v4(from.parse()?, edge, b"query")?;
    within(&stage.outside, || {
        let (kind, protocol) = (SocketType::RAW, Some(ipproto::RAW));
        let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, protocol)?;
        let to = SocketAddrV4::new(edge, 0);
        sendto(&socket, packet.bytes(), SendFlags::empty(), &to).context("cannot send")?;
        Ok(())
    })
}

/// The agent in a file system in which this host has a resolver and a time server.
fn start<'a>(stage: &'a Stage, config: &str) -> Result<Agent<'a>> {
    configure(stage, config)?;
    let resolv = stage.write("resolv.conf", &format!("nameserver {RESOLVER}\n"))?;
    let clock = stage.write("clock.conf", &format!("[Time]\nNTP={CLOCK}\n"))?;
    let script = "set -e; mount --bind \"$1\" /etc/resolv.conf; mount -t tmpfs none /run; \
                  mkdir -p /run/systemd/timesyncd.conf.d; \
                  cp \"$2\" /run/systemd/timesyncd.conf.d/; shift 2; exec \"$@\"";
    let mut command = stage.edge.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.args([resolv, clock, binary()?]);
    command.arg("--config").arg(stage.file("config.toml")).args(["-v", "run"]);
    let mut agent = Agent::idle(stage);
    agent.launch(command)?;
    agent.await_answer()?;
    Ok(agent)
}

#[test]
fn nobody_whom_this_host_lives_by_is_banned_for_a_forged_source() -> Result<()> {
    if !privilege::ready("forged sources") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    // it is the gateway, too, so that answers have a way and no source is a martian
    stage.edge.ip(&format!("route add default via {}", VICTIM.0))?;
    let peers = serve(&stage)?;
    let proxies = stage.write("proxies.list", &format!("# ours\n{PROXY}\n"))?;
    let log = stage.file("dns.log");
    std::fs::create_dir(stage.file("conf.d"))?;
    let trusted = format!("[agent]\ntrusted_proxies = [\"cdn:fastly\", {proxies:?}]\n");
    stage.write("conf.d/proxies.toml", &trusted)?;
    let config = format!(
        "logpath = {log:?}\nmaxretry = 3\nfilter = \"dns\"\n\
         [filters.dns]\nfailregex = ['^client <ADDR>:\\d+: query denied$']\n\
         [jails.dns]\ntrusted_proxies = \"{FRONT}/28\"\n[jails.other]\n"
    );
    let agent = start(&stage, &config)?;
    let hear = |from: &str| -> Result<()> {
        forge(&stage, from)?;
        let heard = peers.recv_timeout(LIMIT).with_context(|| format!("{from} was not heard"))?;
        ensure!(heard == from.parse::<IpAddr>()?, "{heard} was heard, not {from}");
        Ok(())
    };
    let protected = [
        (RESOLVER, "a resolver of this host ([agent] protect)"),
        (CLOCK, "a time server of this host ([agent] protect)"),
        (PROXY, "a trusted proxy ([agent] trusted_proxies)"),
        (CDN, "a trusted proxy (cdn:fastly in [agent] trusted_proxies)"),
        (VICTIM.0, "a gateway of this host"),
    ];
    // three each: the front is banned by then, by the jail that does not trust it
    for _ in 0..3 {
        for (address, _) in protected {
            hear(address)?;
        }
        hear(FRONT)?;
    }
    // the last to be counted is banned, so all before him were looked at
    for _ in 0..3 {
        hear(STRANGER)?;
    }
    agent.await_holders(STRANGER, &["dns", "other"])?;
    ensure!(agent.holders(FRONT)? == ["other"], "{:?}", agent.holders(FRONT)?);
    let mut banned = agent.banned()?;
    banned.sort();
    ensure!(banned == [STRANGER, FRONT], "{banned:?}");

    // what is dropped is the stranger's alone
    forge(&stage, STRANGER)?;
    hear(RESOLVER)?;
    let groups = agent.json(&["status"])?;
    let groups = groups.get("protected").and_then(Value::as_array).context("no groups")?;
    let said = String::from_utf8(agent.verb(&["-v", "status"])?.stdout)?;
    let doctor = String::from_utf8(agent.verb(&["doctor"])?.stdout)?;
    for (address, why) in protected {
        let show = agent.verb(&["show", address])?;
        let show = String::from_utf8(show.stdout)?;
        ensure!(show.contains(why), "{address}: {show}");
        let told = |group: &&Value| group.get("reason") == Some(&why.into());
        ensure!(groups.iter().any(|group| told(&group)), "{why}: {groups:?}");
        ensure!(said.contains(why) && doctor.contains(why), "{why}: {said}\n{doctor}");
    }
    let show = String::from_utf8(agent.verb(&["show", FRONT])?.stdout)?;
    ensure!(show.contains("never banned by dns: it is a proxy"), "{show}");
    ensure!(said.contains("a proxy that the jail dns trusts"), "{said}");

    // a reload takes from the list, and only then is the proxy like everybody else
    stage.write("proxies.list", "# nobody\n")?;
    ensure!(agent.verb(&["reload"])?.status.success(), "reload");
    eventually("the proxy is protected no more", LIMIT, || {
        let show = String::from_utf8(agent.verb(&["show", PROXY])?.stdout)?;
        Ok(!show.contains("protected"))
    })?;
    eventually("it is banned like everybody else", LIMIT, || {
        forge(&stage, PROXY)?;
        Ok(agent.holders(PROXY)? == ["dns", "other"])
    })
}
