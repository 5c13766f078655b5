//! How long the agent takes to be back with many bans in its store, and what memory it takes for
//! that: cold, as after a reboot, when the kernel holds none of them, and warm, when it holds all.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ban_agent::{
    clock::Now,
    ledger::{Claim, Holder},
    net::host,
    store::Store,
};
use serde_json::json;
use tests::{
    agent::{Agent, LIMIT},
    process::eventually,
    stage::{DEVICE, Stage},
};

const SPREAD: u32 = 2_654_435_761;
/// Addresses from 16.0.0.0 to 80.0.0.0: none is special.
const SPACE: (u32, u32) = (0x1000_0000, 0x3fff_ffff);
/// What the agent must not exceed with a million bans.
const SECONDS: f64 = 3.0;
const MEBIBYTES: u64 = 200;

/// One start.
struct Start {
    time: Duration,
    /// What it took of the processor, in all its threads.
    cpu: Duration,
    /// Resident memory in MiB: at most, and then.
    peak: u64,
    after: u64,
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mut number = || -> Result<u32> { Ok(words.next().context("how many?")?.parse()?) };
    let (bans, rounds) = (number()?, number()?);
    let stage = Stage::build()?;
    let text = format!(
        "[agent]\ninterfaces = [\"{DEVICE}\"]\nstate = {:?}\npins = {:?}\nsocket = {:?}\n\
         max_bans = {}\n",
        stage.file("state.sqlite"),
        stage.pins(),
        stage.file("control.sock"),
        bans.max(4096),
    );
    stage.write("config.toml", &text)?;
    fill(&stage.file("state.sqlite"), bans)?;
    let size = fs::metadata(stage.file("state.sqlite"))?.len() >> 20;
    println!("{bans} bans, {size} MiB in the store; medians of {rounds}");
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        if stage.pins().exists() {
            fs::remove_dir_all(stage.pins())?;
        }
        cold.push(start(&stage, bans)?);
        warm.push(start(&stage, bans)?);
    }
    println!(
        "{:<6} {:>9} {:>9} {:>14} {:>14}",
        "", "seconds", "CPU", "peak RSS MiB", "then RSS MiB"
    );
    let (cold, warm) = (median(cold)?, median(warm)?);
    for (name, start) in [("cold", &cold), ("warm", &warm)] {
        let Start { time, cpu, peak, after } = start;
        let (time, cpu) = (time.as_secs_f64(), cpu.as_secs_f64());
        println!("{name:<6} {time:>9.3} {cpu:>9.2} {peak:>14} {after:>14}");
    }
    let report = |start: &Start| {
        let Start { time, cpu, peak, after } = start;
        json!({"ms": time.as_millis(), "cpu_ms": cpu.as_millis(), "peak_mib": peak, "after_mib": after})
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    fs::create_dir_all(&folder)?;
    let document = json!({"schema": 1, "bans": bans, "cold": report(&cold), "warm": report(&warm)});
    let path = folder.join(format!("cold-{bans}.json"));
    fs::write(path, serde_json::to_string_pretty(&document)?)?;
    ensure!(
        cold.time.as_secs_f64() <= SECONDS && cold.peak <= MEBIBYTES,
        "the bar is {SECONDS} s and {MEBIBYTES} MiB"
    );
    Ok(())
}

/// A store as a jail leaves it that has banned so many addresses, for an hour to a day.
fn fill(path: &Path, bans: u32) -> Result<()> {
    let mut store = Store::open(path)?;
    let now = Now::read();
    for number in 0..bans {
        let claim = Claim {
            prefix: host(Ipv4Addr::from(SPACE.0 + (number.wrapping_mul(SPREAD) & SPACE.1)).into()),
            holder: Holder::Jail("sshd".into()),
            until: now.boot.plus(3_600_000 + u64::from(number) * 82),
            ports: Vec::new(),
            derived: false,
        };
        store.claim(&claim, None, now);
    }
    store.barrier().blocking_recv().context("the store cannot write")?;
    store.close();
    Ok(())
}

/// Starts the agent, looks at it, and ends it.
fn start(stage: &Stage, bans: u32) -> Result<Start> {
    let log = stage.file("agent.log");
    fs::write(&log, "")?;
    let mut agent = Agent::idle(stage);
    let command = agent.command()?;
    let since = Instant::now();
    agent.launch(command)?;
    let mut time = Duration::ZERO;
    eventually("the agent is ready", LIMIT, || {
        time = since.elapsed();
        Ok(agent.log().contains("] ready\n"))
    })
    .with_context(|| agent.log())?;
    let cpu = processor(agent.id())?;
    agent.await_answer()?;
    let status = agent.json(&["status"])?;
    let held = status.pointer("/bans/v4").and_then(serde_json::Value::as_u64);
    ensure!(held == Some(u64::from(bans)), "held are {held:?}: {status}");
    let [peak, after] = ["VmHWM:", "VmRSS:"].map(|name| memory(agent.id(), name));
    agent.terminate()?;
    Ok(Start { time, cpu, peak: peak?, after: after? })
}

/// Time that a process and the kernel for it have worked: fields 14 and 15 of proc_pid_stat(5).
fn processor(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    // USER_HZ, on every processor that we build for
    Ok(Duration::from_millis(ticks * 10))
}

/// In MiB.
fn memory(process: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no memory")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib.div_ceil(1024))
}

fn median(mut starts: Vec<Start>) -> Result<Start> {
    starts.sort_by_key(|start| start.time);
    let middle = starts.len() / 2;
    starts.into_iter().nth(middle).context("no round")
}
