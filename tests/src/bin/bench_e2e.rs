//! A flood over veth, nanoseconds per packet that is generated and dropped: the XDP floor, ours in
//! native and in generic mode, nftables at ingress and in prerouting, ipset, a blackhole route. They
//! take turns. The
//! receiver works on the sender's CPU, so the time of the sender is the time of both.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ban_agent::{
    clock::{Boot, Now},
    dataplane::{DataPlane as _, Loaded, Mode, Options, Xdp},
    ledger::Op,
    net::host,
};
use ban_common::Verdict;
use serde_json::json;
use tests::{
    bench::all,
    host::within,
    net::{Namespace, join},
    packet::{Frame, UDP},
    process::Pins,
    stage::DEVICE,
};

/// Banned sources that take turns.
const SOURCES: u32 = 1_024;
const PACKETS: u32 = 1_000_000;

type Rows = Vec<(&'static str, u64)>;
/// Puts a contender in place; what it gives back is kept while packets flow.
type SetUp = fn(&Stage) -> Result<Box<dyn std::any::Any>>;

fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).context("how many rounds?")?.parse()?;
    let contenders: [(&'static str, SetUp); 8] = [
        ("XDP_DROP, the floor", floor),
        ("ours, native", |stage| ours(stage, Mode::Native)),
        ("ours, generic", |stage| ours(stage, Mode::Generic)),
        ("nftables ingress", |stage| nft(stage, "netdev", "hook ingress device eth0 priority 0")),
        ("nftables raw", |stage| nft(stage, "inet", "hook prerouting priority -300")),
        ("ipset raw", ipset),
        ("blackhole route", blackhole),
        ("nothing", |_| Ok(Box::new(()))),
    ];
    let mut running = Vec::new();
    for (name, set_up) in contenders {
        match Contender::new(name, set_up) {
            Ok(contender) => running.push(contender),
            Err(error) => println!("SKIPPED: {name}: {error:#}"),
        }
    }
    for _ in 0..rounds {
        for contender in &mut running {
            contender.round()?;
        }
    }
    let rows: Result<Rows> = running.into_iter().map(Contender::finish).collect();
    report(&rows?)
}

struct Stage {
    edge: Namespace,
    outside: Namespace,
    pins: Pins,
    mac: String,
}

impl Stage {
    fn build(name: &str) -> Result<Stage> {
        let edge = Namespace::new("e2ee")?;
        let outside = Namespace::new("e2eo")?;
        join(&edge, DEVICE, &outside, DEVICE)?;
        edge.address(DEVICE, "192.0.2.1/24")?;
        // Frames that come by XDP are taken in by NAPI, which veth has only with GRO or XDP.
        let _gro = edge.command("ethtool").args(["-K", DEVICE, "gro", "on"]).output();
        let mac = edge.ip("-o link show dev eth0")?;
        let mac = mac.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        let mac = mac.context("no MAC address")?.to_owned();
        let name: String = name.chars().filter(char::is_ascii_alphabetic).collect();
        let pins = Pins::new(&format!("ban-e2e-{name}-{}", std::process::id()));
        Ok(Stage { edge, outside, pins, mac })
    }
}

/// One way to drop, on a stage of its own.
struct Contender {
    name: &'static str,
    /// What keeps it in place; goes before the stage.
    running: Box<dyn std::any::Any>,
    times: Vec<u64>,
    stage: Stage,
}

impl Contender {
    fn new(name: &'static str, set_up: SetUp) -> Result<Contender> {
        let stage = Stage::build(name)?;
        let running = set_up(&stage)?;
        Ok(Contender { name, running, times: Vec::new(), stage })
    }

    fn round(&mut self) -> Result<()> {
        let time = flood(&self.stage)?;
        self.times.push(u64::try_from(time.as_nanos())? / u64::from(PACKETS));
        Ok(())
    }

    /// The median, once it is sure that ours dropped everything.
    fn finish(mut self) -> Result<(&'static str, u64)> {
        if let Some(xdp) = self.running.downcast_ref::<Xdp>() {
            let dropped = xdp.verdicts()?.of(Verdict::Drop).packets;
            let sent = u64::from(PACKETS) * self.times.len() as u64;
            ensure!(dropped >= sent, "{}: only {dropped} of {sent} were dropped", self.name);
        }
        self.times.sort_unstable();
        Ok((self.name, self.times.get(self.times.len() / 2).copied().context("no rounds")?))
    }
}

fn source(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xcb00_0000 | (n % SOURCES) << 6)
}

/// Sends all packets as live XDP frames through the link's far end.
fn flood(stage: &Stage) -> Result<Duration> {
    let mac: Vec<u8> =
        stage.mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    let mut frame = Frame::new().v4(source(0), UDP).port(9).bytes().to_vec();
    frame.iter_mut().zip(&mac).for_each(|(to, from)| *to = *from);
    frame.resize(64, 0);
    // A header that a stack accepts: its length, an identification, its checksum (RFC 791).
    let length = u16::try_from(frame.len() + 4 - 14)?.to_be_bytes();
    put(&mut frame, 16, &length);
    put(&mut frame, 18, &[0xff, 0xff]);
    let words = frame.get(14..34).context("a short frame")?.chunks(2);
    let sum: u32 =
        words.map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))).sum();
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16))?;
    put(&mut frame, 24, &(!sum).to_be_bytes());
    let folder = stage.pins.path().join("sender");
    fs::create_dir_all(&folder)?;
    let mut sender = Loaded::new(&folder, 64, 0)?.named("bench_send");
    sender.size()?;
    within(&stage.outside, move || {
        let links = ban_agent::dataplane::interface::list()?;
        let link = links.iter().find(|link| link.name == DEVICE).context("no link")?;
        frame.extend_from_slice(&link.index.to_ne_bytes());
        let since = Instant::now();
        sender.run_live(&frame, PACKETS)?;
        Ok(since.elapsed())
    })
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    frame.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
}

fn options(stage: &Stage, mode: Mode) -> Options {
    Options {
        interfaces: vec![DEVICE.to_owned()],
        pins: stage.pins.path().to_owned(),
        mode,
        ..Options::default()
    }
}

fn ours(stage: &Stage, mode: Mode) -> Result<Box<dyn std::any::Any>> {
    let options = options(stage, mode);
    let mut xdp = within(&stage.edge, move || Ok(Xdp::start(options)?))?;
    let ops: Vec<Op> =
        (0..SOURCES).map(|n| Op::Set(host(source(n).into()), all(Boot::NEVER))).collect();
    xdp.apply(&ops, Now::read())?;
    Ok(Box::new(xdp))
}

fn floor(stage: &Stage) -> Result<Box<dyn std::any::Any>> {
    fs::create_dir_all(stage.pins.path())?;
    let mut loaded = Loaded::new(stage.pins.path(), 64, 0)?.named("bench_floor");
    let loaded = within(&stage.edge, move || {
        loaded.program()?.attach(DEVICE, aya::programs::XdpMode::Driver)?;
        Ok(loaded)
    })?;
    Ok(Box::new(loaded))
}

fn nft(stage: &Stage, family: &str, hook: &str) -> Result<Box<dyn std::any::Any>> {
    let list: Vec<String> = (0..SOURCES).map(|n| source(n).to_string()).collect();
    let script = format!(
        "table {family} ban {{ set ban {{ type ipv4_addr; elements = {{ {} }} }}\n\
         chain in {{ type filter {hook}; ip saddr @ban drop\n}}\n}}\n",
        list.join(", ")
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ban.nft");
    fs::write(&path, script)?;
    tests::net::run(stage.edge.command("nft").arg("-f").arg(&path))?;
    Ok(Box::new(folder))
}

fn ipset(stage: &Stage) -> Result<Box<dyn std::any::Any>> {
    let mut script = String::from("create ban hash:ip\n");
    for n in 0..SOURCES {
        script.push_str(&format!("add ban {}\n", source(n)));
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ban.ipset");
    fs::write(&path, script)?;
    tests::net::run(stage.edge.command("ipset").args(["restore", "-file"]).arg(&path))?;
    let rule = "-t raw -I PREROUTING -m set --match-set ban src -j DROP";
    tests::net::run(stage.edge.command("iptables").args(rule.split(' ')))?;
    Ok(Box::new(folder))
}

fn blackhole(stage: &Stage) -> Result<Box<dyn std::any::Any>> {
    // By source, as `ip route add blackhole` works with reverse path filtering on.
    for n in 0..SOURCES {
        stage.edge.ip(&format!("route add blackhole {}", source(n)))?;
    }
    tests::net::run(stage.edge.command("sysctl").args(["-qw", "net.ipv4.conf.all.rp_filter=1"]))?;
    Ok(Box::new(()))
}

fn report(rows: &Rows) -> Result<()> {
    let floor = rows.first().map_or(1, |(_, time)| *time).max(1);
    println!("{:<22} {:>8} {:>9}   {SOURCES} banned sources", "", "ns", "× floor");
    for (name, time) in rows {
        let hundredths = time * 100 / floor;
        println!("{name:<22} {time:>8} {:>6}.{:02}", hundredths / 100, hundredths % 100);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    fs::create_dir_all(&folder)?;
    let rows: Vec<_> = rows.iter().map(|(name, ns)| json!({"who": name, "ns": ns})).collect();
    let report = json!({"schema": 1, "sources": SOURCES, "flood": rows});
    fs::write(folder.join("e2e.json"), serde_json::to_string_pretty(&report)?)?;
    Ok(())
}
