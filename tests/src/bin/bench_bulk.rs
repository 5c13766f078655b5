//! A million bans as an operator gives, lists and lifts them, at the shipped agent behind a link; and
//! how long the bans of a log wait meanwhile: a line every 20 ms, from its writing to its entry in
//! the kernel's map. nftables and ipset load the same addresses, where they are installed.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use ban_common::{ABI, Ban};
use serde_json::{Value, json};
use tests::{
    agent::{Agent, LIMIT, binary},
    net::Namespace,
    process::eventually,
    stage::{DEVICE, Stage},
};

const SPREAD: u32 = 2_654_435_761;
/// Addresses from 16.0.0.0 to 80.0.0.0: none is special.
const SPACE: (u32, u32) = (0x1000_0000, 0x3fff_ffff);
/// Who the lines accuse: one after the other from here on.
const ACCUSED: u32 = 0xb000_0000;
/// Between two lines.
const EVERY: Duration = Duration::from_millis(20);
/// Between two looks into the map.
const LOOK: Duration = Duration::from_micros(500);

/// One step, and what it cost.
struct Step {
    name: &'static str,
    time: Duration,
    /// The most that was resident meanwhile, in MiB.
    peak: u64,
    /// From line to map entry, sorted.
    waits: Vec<Duration>,
    degraded: bool,
}

fn main() -> Result<()> {
    let bans: u32 = std::env::args().nth(1).context("how many bans?")?.parse()?;
    let stage = Stage::build()?;
    let log = stage.write("probe.log", "")?;
    let text = format!(
        "[agent]\ninterfaces = [\"{DEVICE}\"]\nstate = {:?}\npins = {:?}\nsocket = {:?}\n\
         max_bans = {}\n\
         [filters.probe]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
         [jails.probe]\nmaxretry = 1\nbantime = \"1h\"\nlogpath = {log:?}\n",
        stage.file("state.sqlite"),
        stage.pins(),
        stage.file("control.sock"),
        bans.saturating_mul(2),
    );
    stage.write("config.toml", &text)?;
    let mut agent = Agent::idle(&stage);
    agent.run()?;
    let list: String = (0..bans).fold(String::new(), |mut list, number| {
        let _written = writeln!(list, "{}", address(number));
        list
    });
    let list = stage.write("list", &list)?;
    let mut steps = Vec::new();
    let mut probe = Probe { log, pin: stage.pins().join(format!("v{ABI}/ban_v4")), next: ACCUSED };
    let given: &[&str] = &["--for", "ever", "-"];
    for (name, words) in [
        ("ban -", &[&["ban"], given].concat()[..]),
        ("the same again", &[&["ban"], given].concat()[..]),
        ("list -o json", &["-o", "json", "list"][..]),
        ("doctor", &["doctor"][..]),
        ("reload", &["reload"][..]),
    ] {
        steps.push(step(&stage, &agent, &mut probe, name, words, &list)?);
    }
    steps.push(restart(&mut agent, &mut probe)?);
    let held = count(&agent)?;
    ensure!(held >= u64::from(bans), "only {held} bans are left after the restart");
    steps.push(step(&stage, &agent, &mut probe, "unban --all", &["unban", "--all"], &list)?);
    agent.terminate()?;
    let rows = steps.iter().map(Step::show).collect::<Vec<_>>();
    println!(
        "{:<16} {:>8} {:>9} {:>7} {:>8} {:>8} {:>8}  {bans} bans",
        "", "seconds", "peak MiB", "lines", "p50 ms", "p99 ms", "max ms"
    );
    rows.iter().for_each(|row| println!("{row}"));
    let ours = steps.first().map_or(Duration::ZERO, |step| step.time);
    let mut peers = Vec::new();
    let commands: [(&str, fn(u32) -> String, &[&str]); 2] =
        [("nftables", nft, &["nft", "-f"]), ("ipset", ipset, &["ipset", "restore", "-file"])];
    for (name, script, command) in commands {
        let path = stage.write(name, &script(bans))?;
        match peer(name, command, &path) {
            Ok(time) => {
                let ratio = time.as_secs_f64() / ours.as_secs_f64();
                println!("{name:<16} {:>8.2}  {ratio:.1} × ours", time.as_secs_f64());
                peers.push(json!({"who": name, "ms": time.as_millis()}));
            }
            Err(error) => println!("SKIPPED: {name}: {error:#}"),
        }
    }
    let ours: Vec<Value> = steps.iter().map(Step::report).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    fs::create_dir_all(&folder)?;
    let report = json!({"schema": 1, "bans": bans, "steps": ours, "peers": peers});
    fs::write(folder.join(format!("bulk-{bans}.json")), serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(SPACE.0 + (number.wrapping_mul(SPREAD) & SPACE.1))
}

/// Runs a verb while lines are written.
fn step(
    stage: &Stage,
    agent: &Agent<'_>,
    probe: &mut Probe,
    name: &'static str,
    words: &[&str],
    list: &Path,
) -> Result<Step> {
    let before = agent.log().len();
    let _reset = fs::write(format!("/proc/{}/clear_refs", agent.id()), "5");
    let mut command: Command = stage.edge.command(binary()?);
    command.arg("--socket").arg(stage.file("control.sock"));
    command.arg("--config").arg(stage.file("config.toml")).args(words);
    command.stdin(File::open(list)?).stdout(File::create(stage.file("answer"))?);
    command.stderr(Stdio::piped());
    let (time, waits) = probe.during(|| {
        let since = Instant::now();
        let done = command.output().context("cannot start the agent's command line")?;
        let time = since.elapsed();
        // doctor says 1 where it has a remark
        let code = done.status.code();
        ensure!(
            matches!(code, Some(0 | 1)),
            "{words:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(time)
    })?;
    let degraded = agent.log().get(before..).is_some_and(|log| log.contains("degraded"));
    Ok(Step { name, time, peak: peak(agent.id())?, waits, degraded })
}

/// Ends the agent and starts it again: until the first offence counts.
fn restart(agent: &mut Agent<'_>, probe: &mut Probe) -> Result<Step> {
    agent.terminate()?;
    let command = agent.command()?;
    let since = Instant::now();
    let accused = probe.accuse()?;
    agent.launch(command)?;
    eventually("the first offence counts", LIMIT, || probe.holds(accused))
        .with_context(|| agent.last_words())?;
    let time = since.elapsed();
    agent.await_answer()?;
    Ok(Step { name: "restart", time, peak: peak(agent.id())?, waits: vec![time], degraded: false })
}

fn count(agent: &Agent<'_>) -> Result<u64> {
    let status = agent.json(&["status"])?;
    status.pointer("/bans/v4").and_then(Value::as_u64).context("no bans in the status")
}

/// Writes lines and looks for the entries that follow.
struct Probe {
    log: std::path::PathBuf,
    pin: std::path::PathBuf,
    next: u32,
}

impl Probe {
    fn accuse(&mut self) -> Result<u32> {
        let accused = self.next;
        self.next += 1;
        let mut log = File::options().append(true).open(&self.log)?;
        log.write_all(format!("{} knocks\n", Ipv4Addr::from(accused)).as_bytes())?;
        Ok(accused)
    }

    fn holds(&self, accused: u32) -> Result<bool> {
        Ok(map(&self.pin)?.get(&accused.to_be_bytes(), 0).is_ok())
    }

    /// Does `work`, and says how long the lines written meanwhile took.
    fn during<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Duration>)> {
        let over = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            let its = Arc::clone(&over);
            let watching = scope.spawn(move || self.watch(&its));
            let done = work();
            over.store(true, Ordering::Relaxed);
            let waits = watching.join().map_err(|_| anyhow!("the probe panicked"))?;
            Ok((done?, waits?))
        })
    }

    fn watch(&mut self, over: &AtomicBool) -> Result<Vec<Duration>> {
        let map = map(&self.pin)?;
        let (mut outstanding, mut waits) = (VecDeque::new(), Vec::new());
        let mut due = Instant::now();
        let end = due + 10 * LIMIT;
        loop {
            while let Some((accused, since)) = outstanding.front().copied()
                && map.get(&u32::to_be_bytes(accused), 0).is_ok()
            {
                waits.push(Instant::duration_since(&Instant::now(), since));
                outstanding.pop_front();
            }
            let now = Instant::now();
            if over.load(Ordering::Relaxed) && outstanding.is_empty() {
                waits.sort_unstable();
                return Ok(waits);
            }
            ensure!(now < end, "{} lines banned nobody", outstanding.len());
            if now >= due && !over.load(Ordering::Relaxed) {
                let since = Instant::now();
                outstanding.push_back((self.accuse()?, since));
                due += EVERY;
            }
            thread::sleep(LOOK);
        }
    }
}

type Map = aya::maps::HashMap<aya::maps::MapData, [u8; 4], Ban>;

fn map(pin: &Path) -> Result<Map> {
    let map = aya::maps::MapData::from_pin(pin)?;
    Ok(Map::try_from(aya::maps::Map::HashMap(map))?)
}

impl Step {
    fn wait(&self, share: usize) -> f64 {
        let at = (self.waits.len() * share).div_ceil(100).saturating_sub(1);
        self.waits.get(at).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    }

    fn show(&self) -> String {
        let Step { name, time, peak, waits, degraded } = self;
        let [p50, p99, max] = [50, 99, 100].map(|share| self.wait(share));
        format!(
            "{name:<16} {:>8.2} {peak:>9} {:>7} {p50:>8.2} {p99:>8.2} {max:>8.2}{}",
            time.as_secs_f64(),
            waits.len(),
            if *degraded { "  the store was degraded" } else { "" }
        )
    }

    fn report(&self) -> Value {
        let [p50, p99, max] = [50, 99, 100].map(|share| self.wait(share));
        json!({
            "step": self.name, "ms": self.time.as_millis(), "peak_mib": self.peak,
            "lines": self.waits.len(), "p50_ms": p50, "p99_ms": p99, "max_ms": max,
            "degraded": self.degraded,
        })
    }
}

fn peer(name: &str, command: &[&str], script: &Path) -> Result<Duration> {
    let namespace = Namespace::new("bulk")?;
    let [program, words @ ..] = command else { anyhow::bail!("{name} has no command") };
    let mut command: Command = namespace.command(program);
    command.args(words).arg(script);
    let since = Instant::now();
    tests::net::run(&mut command)?;
    Ok(since.elapsed())
}

fn nft(bans: u32) -> String {
    let mut script = String::from(
        "table inet ban { set ban { type ipv4_addr; flags timeout; }\n\
         chain in { type filter hook input priority -300; ip saddr @ban drop\n}\n}\n",
    );
    for part in (0..bans).collect::<Vec<_>>().chunks(10_000) {
        let list: Vec<String> =
            part.iter().map(|number| format!("{} timeout 1h", address(*number))).collect();
        let _written = writeln!(script, "add element inet ban ban {{ {} }}", list.join(", "));
    }
    script
}

fn ipset(bans: u32) -> String {
    let mut script = format!("create ban hash:ip timeout 3600 maxelem {}\n", bans.max(2));
    for number in 0..bans {
        let _written = writeln!(script, "add ban {}", address(number));
    }
    script
}

/// The most that was resident, in MiB.
fn peak(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no memory")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib.div_ceil(1024))
}
