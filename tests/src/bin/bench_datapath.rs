//! Nanoseconds per packet, harness included: ours, the floor, a plain hash and a plain trie with
//! the same accounting, over the same bans, and xdp-filter over one. Medians of interleaved runs;
//! a table and JSON.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use ban_agent::{
    clock::{Boot, Now},
    dataplane::{DataPlane as _, Loaded, Options, Xdp},
    ledger::Op,
    net::{IpNet, host},
};
use ban_common::Verdict;
use serde_json::json;
use tests::{
    bench::all,
    net::{Namespace, join, run},
    packet::{Frame, TCP},
    process::Pins,
};

const REPEAT: u32 = 1_000_000;
/// Knuth's multiplicative hash, as in the programs: spreads numbers over all addresses.
const SPREAD: u32 = 2_654_435_761;

struct Case {
    what: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    times: Vec<u64>,
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let bans: u32 = words.next().context("how many bans?")?.parse()?;
    let rounds: usize = words.next().context("how many rounds?")?.parse()?;
    let size = bans.next_power_of_two().max(1_024);
    let (ours, trie) = (pins("ours"), pins("trie"));
    let load = |pins: &Pins| {
        let pins = pins.path().to_owned();
        Xdp::load(Options { pins, max_bans: size, ..Options::default() })
    };
    let (mut xdp, mut nets) = (load(&ours)?, load(&trie)?);
    fill(&mut xdp, &mut nets, bans)?;
    // A source that the gate knows: its /24 holds no ban.
    let miss = (size * 3..)
        .find(|n| xdp.judge(&fixed(*n), 1).is_ok_and(|(verdict, _)| verdict == Verdict::Clear));
    let filter = match XdpFilter::load() {
        Ok(filter) => Some(filter),
        Err(error) => {
            println!("SKIPPED: xdp-filter: {error:#}");
            None
        }
    };
    let miss = miss.context("every /24 holds a ban")?;
    let mut cases = cases(size, miss);
    cases.retain(|case| case.program != XDP_FILTER || filter.is_some());
    let mut programs = Vec::new();
    for case in &cases {
        let pins = if case.program.ends_with("lpm") { &trie } else { &ours };
        programs.push(Loaded::new(&pins.path().join("v1"), size, 0)?.named(case.program));
    }
    for _ in 0..rounds {
        for (case, program) in cases.iter_mut().zip(&mut programs) {
            let time = match &filter {
                Some(filter) if case.program == XDP_FILTER => filter.run(&case.frame)?,
                _ => program.run(&case.frame, REPEAT)?.1.as_nanos().try_into()?,
            };
            case.times.push(time);
        }
    }
    report(bans, &mut cases)
}

fn pins(who: &str) -> Pins {
    Pins::new(&format!("ban-bench-{who}-{}", std::process::id()))
}

/// The same addresses in the hash of one and in the trie of the other.
fn fill(xdp: &mut Xdp, nets: &mut Xdp, bans: u32) -> Result<()> {
    let address = |n: u32| Ipv4Addr::from(n.wrapping_mul(SPREAD));
    let hosts = (0..bans).flat_map(|n| [address(n).into(), site(n).into()]);
    let hosts = hosts.map(|address| Op::Set(host(address), all(Boot::NEVER)));
    xdp.apply(&hosts.collect::<Vec<_>>(), Now::read())?;
    // As /31: an agent keeps prefixes in the trie and addresses in the hash.
    let prefixes = (0..bans).filter_map(|n| IpNet::new(address(n).into(), 31).ok());
    let prefixes: BTreeSet<IpNet> = prefixes.map(|net| net.trunc()).collect();
    let ops: Vec<Op> = prefixes.into_iter().map(|net| Op::Set(net, all(Boot::NEVER))).collect();
    nets.apply(&ops, Now::read())
}

/// An IPv6 address in a /48 of its own.
fn site(n: u32) -> Ipv6Addr {
    Ipv6Addr::from(0x2001_u128 << 112 | u128::from(n.wrapping_mul(SPREAD)) << 80 | 1)
}

/// What Debian's package xdp-tools has: a filter by address, in the driver of an interface.
struct XdpFilter {
    edge: Namespace,
    _far: Namespace,
    program: u64,
    frame: PathBuf,
    _folder: tempfile::TempDir,
}

const XDP_FILTER: &str = "xdp-filter";

impl XdpFilter {
    /// With the fifth address of the bans in it.
    fn load() -> Result<XdpFilter> {
        let (edge, far) = (Namespace::new("benchf")?, Namespace::new("benchp")?);
        join(&edge, "eth0", &far, "eth0")?;
        let filter = |words: &[&str]| run(edge.command(XDP_FILTER).args(words));
        filter(&["load", "-p", "allow", "-f", "ipv4,ipv6", "eth0"])?;
        let fifth = Ipv4Addr::from(5_u32.wrapping_mul(SPREAD)).to_string();
        filter(&["ip", "-m", "src", &fifth])?;
        filter(&["ip", "-m", "src", &site(5).to_string()])?;
        let link = edge.ip("-d -j link show dev eth0")?;
        let link: serde_json::Value = serde_json::from_str(&link)?;
        let program = link.pointer("/0/xdp/prog/id").and_then(serde_json::Value::as_u64);
        let folder = tempfile::tempdir()?;
        let frame = folder.path().join("frame");
        let program = program.context("no program on the interface")?;
        Ok(XdpFilter { edge, _far: far, program, frame, _folder: folder })
    }

    /// Nanoseconds for one run.
    fn run(&self, frame: &[u8]) -> Result<u64> {
        fs::write(&self.frame, frame)?;
        let mut command = std::process::Command::new("bpftool");
        command.args(["-j", "prog", "run", "id", &self.program.to_string(), "data_in"]);
        let said = run(command.arg(&self.frame).args(["repeat", &REPEAT.to_string()]))?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        said.get("duration").and_then(serde_json::Value::as_u64).context("no duration")
    }
}

impl Drop for XdpFilter {
    fn drop(&mut self) {
        // its pins lie in a folder of its own
        if let Err(error) = run(self.edge.command(XDP_FILTER).args(["unload", "eth0"])) {
            eprintln!("xdp-filter stays loaded: {error:#}");
        }
    }
}

fn from(n: u32) -> Frame {
    Frame::new().v4(n.wrapping_mul(SPREAD).into(), TCP).port(80)
}

fn fixed(n: u32) -> Vec<u8> {
    from(n).bytes().to_vec()
}

fn cases(size: u32, miss: u32) -> Vec<Case> {
    let tagged = |n: u32| {
        let source = n.wrapping_mul(SPREAD).into();
        Frame::new().tag(0x8100, 7).v4(source, TCP).port(80).bytes().to_vec()
    };
    // Counter, mask and first number of the generator lie behind byte 64.
    let random = |first: u32| {
        let mut frame = from(0).bytes().to_vec();
        frame.resize(64, 0);
        for number in [1, size / 2 - 1, first] {
            frame.extend_from_slice(&u32::to_ne_bytes(number));
        }
        frame
    };
    let fixed_v6 = |n: u32| Frame::new().v6(site(n), TCP).port(80).bytes().to_vec();
    let case = |what, program, frame| Case { what, program, frame, times: Vec::new() };
    vec![
        case("floor", "bench_floor", fixed(5)),
        case("v4 miss, ours", "ban_agent", fixed(miss)),
        case("v4 miss, hash", "bench_hash", fixed(miss)),
        case("v4 miss, trie", "bench_lpm", fixed(miss)),
        case("v4 hit, ours", "ban_agent", fixed(5)),
        case("v4 hit, hash", "bench_hash", fixed(5)),
        case("v4 hit, trie", "bench_lpm", fixed(5)),
        case("v4 miss, xdp-filter", XDP_FILTER, fixed(miss)),
        case("v4 hit, xdp-filter", XDP_FILTER, fixed(5)),
        case("v6 miss, ours", "ban_agent", fixed_v6(size * 2)),
        case("v6 miss, xdp-filter", XDP_FILTER, fixed_v6(size * 2)),
        case("v6 hit, ours", "ban_agent", fixed_v6(5)),
        case("v6 hit, xdp-filter", XDP_FILTER, fixed_v6(5)),
        case("vlan miss, ours", "ban_agent", tagged(miss)),
        case("vlan hit, ours", "ban_agent", tagged(5)),
        case("random floor", "bench_rnd_floor", random(0)),
        case("random miss, ours", "bench_rnd_ours", random(size * 2)),
        case("random miss, hash", "bench_rnd_hash", random(size * 2)),
        case("random miss, trie", "bench_rnd_lpm", random(size * 2)),
        case("random hit, ours", "bench_rnd_ours", random(0)),
        case("random hit, hash", "bench_rnd_hash", random(0)),
        case("random hit, trie", "bench_rnd_lpm", random(0)),
    ]
}

fn report(bans: u32, cases: &mut [Case]) -> Result<()> {
    let mut floor = 1;
    let mut rows = Vec::new();
    println!("{:<20} {:>8} {:>8} {:>8}   {bans} bans", "", "ns", "min", "× floor");
    for case in cases {
        case.times.sort_unstable();
        let median = case.times.get(case.times.len() / 2).copied().unwrap_or(0);
        let least = case.times.first().copied().unwrap_or(0);
        if case.what == "floor" {
            floor = median.max(1);
        }
        let tenths = median * 10 / floor;
        println!("{:<20} {median:>8} {least:>8} {:>6}.{}", case.what, tenths / 10, tenths % 10);
        rows.push(json!({"case": case.what, "ns": median, "min_ns": least}));
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("datapath-{bans}.json"));
    let report = json!({"schema": 1, "bans": bans, "kernel": ban_agent::dataplane::release(), "cases": rows});
    fs::write(&path, serde_json::to_string_pretty(&report)?)?;
    println!("written to {}", path.display());
    Ok(())
}
