//! How long it takes to load many bans, and what they cost in memory: ours, nftables, ipset. Peers
//! run in a namespace of their own, and only if they are installed and the kernel has them.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ban_agent::{
    clock::{Boot, Now},
    dataplane::{DataPlane as _, Options, Xdp},
    ledger::Op,
    net::host,
};
use serde_json::json;
use tests::{bench::all, net::Namespace, process::Pins};

const SPREAD: u32 = 2_654_435_761;

/// Writes what a peer loads.
type Script = fn(u32) -> String;

fn main() -> Result<()> {
    let bans: u32 = std::env::args().nth(1).context("how many bans?")?.parse()?;
    let mut rows = vec![("ours", ours(bans)?)];
    let folder = tempfile::tempdir()?;
    let peers: [(&str, Script, &[&str]); 2] =
        [("nftables", nft, &["nft", "-f"]), ("ipset", ipset, &["ipset", "restore", "-file"])];
    for (name, script, command) in peers {
        let path = folder.path().join(name);
        fs::write(&path, script(bans))?;
        match peer(name, command, &path) {
            Ok(done) => rows.push((name, done)),
            Err(error) => println!("SKIPPED: {name}: {error:#}"),
        }
    }
    let ours = rows.first().map_or(Duration::ZERO, |(_, (time, _))| *time);
    println!("{:<10} {:>9} {:>9} {:>9}   {bans} bans", "", "seconds", "× ours", "MiB");
    for (name, (time, memory)) in &rows {
        let ratio = time.as_secs_f64() / ours.as_secs_f64();
        println!("{name:<10} {:>9.3} {ratio:>9.1} {memory:>9}", time.as_secs_f64());
    }
    let report: Vec<_> = rows
        .iter()
        .map(|(name, (time, memory))| json!({"who": name, "ms": time.as_millis(), "mib": memory}))
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    fs::create_dir_all(&folder)?;
    let report = json!({"schema": 1, "bans": bans, "load": report});
    fs::write(folder.join(format!("load-{bans}.json")), serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

/// Into the kernel, gates and all. The memory is the kernel's, for all maps.
fn ours(bans: u32) -> Result<(Duration, u64)> {
    let pins = Pins::new(&format!("ban-load-{}", std::process::id()));
    let before = available()?;
    let options = Options { pins: pins.path().to_owned(), max_bans: bans, ..Options::default() };
    let mut xdp = Xdp::load(options)?;
    let now = Now::read();
    let address = |n: u32| Ipv4Addr::from(n.wrapping_mul(SPREAD));
    let ops: Vec<Op> =
        (0..bans).map(|n| Op::Set(host(address(n).into()), all(Boot::NEVER))).collect();
    let since = Instant::now();
    xdp.apply(&ops, now)?;
    let time = since.elapsed();
    drop(ops);
    let used = before.saturating_sub(available()?);
    let since = Instant::now();
    let held = xdp.held()?.len();
    println!("ours: read {held} bans back in {:.3} s", since.elapsed().as_secs_f64());
    Ok((time, used))
}

fn peer(name: &str, command: &[&str], script: &Path) -> Result<(Duration, u64)> {
    let namespace = Namespace::new("load")?;
    let [program, words @ ..] = command else { anyhow::bail!("{name} has no command") };
    let before = available()?;
    let mut command: Command = namespace.command(program);
    command.args(words).arg(script);
    let since = Instant::now();
    tests::net::run(&mut command)?;
    let time = since.elapsed();
    Ok((time, before.saturating_sub(available()?)))
}

fn nft(bans: u32) -> String {
    let mut script = String::from(
        "table inet ban { set ban { type ipv4_addr; flags timeout; }\n\
         chain in { type filter hook input priority -300; ip saddr @ban drop\n}\n}\n",
    );
    for part in (0..bans).collect::<Vec<_>>().chunks(10_000) {
        let list: Vec<String> = part
            .iter()
            .map(|n| format!("{} timeout 1h", Ipv4Addr::from(n.wrapping_mul(SPREAD))))
            .collect();
        let _written = writeln!(script, "add element inet ban ban {{ {} }}", list.join(", "));
    }
    script
}

fn ipset(bans: u32) -> String {
    let mut script = format!("create ban hash:ip timeout 3600 maxelem {}\n", bans.max(2));
    for n in 0..bans {
        // hash:ip has no place for 0.0.0.0.
        let _written = writeln!(script, "add ban {}", Ipv4Addr::from((n + 1).wrapping_mul(SPREAD)));
    }
    script
}

/// MiB that the kernel could still hand out.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no MemAvailable")?;
    Ok(kib.parse::<u64>()? / 1024)
}
