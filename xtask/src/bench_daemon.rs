//! `cargo xtask bench daemon`: the shipped daemon, from a log on disk to its counters, with one jail on
//! the log and with many: what a start takes, what a line takes, and how much memory it needs.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    bench_log::{Kind, write_log},
    build, layout,
    net_shared::{Namespace, Pins, Process, eventually, join, run},
    privilege,
};

/// Options of `bench daemon`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Lines of the log
    #[arg(long, default_value_t = 1_000_000)]
    lines: u64,
    /// Runs of each row, of which the median is shown
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// Without work for so long it has done what there was.
const QUIET: Duration = Duration::from_secs(1);
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn verb(args: &Args) -> Result<()> {
    ensure!(privilege::is_root(), "the bench needs root");
    build::agent(true)?;
    privilege::bpffs()?;
    let folder = layout::target().join("bench/daemon");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = folder.join("lines");
    write_log(Kind::Sshd, &log, args.lines, 1)?;
    let shipped = shipped()?;
    println!(
        "\n{:>5} {:>10} {:>14} {:>9} {:>12}",
        "jails", "start s", "lines/cpu s", "RSS MB", "RSS before"
    );
    for count in [1, 97, shipped.len()] {
        let jails: Vec<&str> = match count {
            1 => vec!["sshd"],
            _ => shipped.iter().take(count).map(String::as_str).collect(),
        };
        let mut all = Vec::new();
        for _ in 0..args.runs.max(1) {
            all.push(measure(&jails, &folder, &log, args.lines)?);
        }
        let median = |of: fn(&Figures) -> f64| {
            let mut all: Vec<f64> = all.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        println!(
            "{count:>5} {:>10.2} {:>14.0} {:>9.1} {:>12.1}",
            median(|run| run.start),
            median(|run| run.rate),
            median(|run| run.rss),
            median(|run| run.before),
        );
    }
    Ok(())
}

/// One run.
struct Figures {
    /// Seconds of processor time until it had nothing to do, the kernel's check of the program
    /// included.
    start: f64,
    /// Lines per second of processor time.
    rate: f64,
    /// Megabytes before the lines came, and after them.
    before: f64,
    rss: f64,
}

fn measure(jails: &[&str], folder: &Path, log: &Path, lines: u64) -> Result<Figures> {
    let edge = Namespace::new("bench-edge")?;
    let outside = Namespace::new("bench-out")?;
    join(&edge, "eth0", &outside, "eth1")?;
    edge.address("eth0", "198.51.100.1/24")?;
    let pins = Pins::new(&format!("ban-agent-bench-{}", std::process::id()));
    let run_folder = folder.join("run");
    let _ = fs::remove_dir_all(&run_folder);
    fs::create_dir_all(&run_folder).context("cannot create the folder of a run")?;
    let shown = run_folder.display();
    let followed = run_folder.join("followed.log");
    let mut config = format!(
        "[agent]\ninterfaces = [\"eth0\"]\nstate = \"{shown}/state.sqlite\"\npins = \"{}\"\n\
         socket = \"{shown}/control.sock\"\n",
        pins.path().display()
    );
    for jail in jails {
        config +=
            &format!("[jails.{jail}]\nraw_log = true\nlogpath = \"{}\"\n", followed.display());
    }
    let path = run_folder.join("config.toml");
    fs::write(&path, config).context("cannot write the configuration")?;
    fs::write(&followed, "").context("cannot create the log")?;
    let agent = |words: &[&str]| {
        let mut agent = edge.command(layout::agent(true));
        agent.arg("--config").arg(&path).args(words);
        agent
    };
    let said = File::create(run_folder.join("said")).context("cannot create a file")?;
    let mut command = agent(&["-q", "run"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
    let process = Process::spawn("ban-agent", &mut command)?;
    eventually("the agent answers", PATIENCE, || Ok(run(&mut agent(&["status"])).is_ok()))?;
    let start = quiet(&process)?;
    let before = rss(&process)?;
    let mut to =
        fs::OpenOptions::new().append(true).open(&followed).context("cannot open the log")?;
    let mut from = File::open(log).context("cannot open the lines")?;
    std::io::copy(&mut from, &mut to).context("cannot write the log")?;
    let spent = quiet(&process)?.saturating_sub(start);
    let after = rss(&process)?;
    let status: serde_json::Value =
        serde_json::from_str(&run(&mut agent(&["-o", "json", "status"]))?).context("its status")?;
    let all = status.get("jails").and_then(|jails| jails.as_array()).context("its jails")?;
    let read = all.iter().filter_map(|jail| jail.get("lines")?.as_u64()).min();
    ensure!(read == Some(lines), "a jail has read {read:?} of {lines} lines");
    process.end()?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let lines = lines as f64;
    let rate = lines / spent.as_secs_f64().max(0.01);
    Ok(Figures { start: start.as_secs_f64(), rate, before, rss: after })
}

/// Waits until it has nothing to do; the processor time that it has used.
fn quiet(process: &Process) -> Result<Duration> {
    let mut last = crate::bench_log::processor_time(process.id())?;
    let mut used = last;
    eventually("the agent has nothing to do", PATIENCE, || {
        thread::sleep(QUIET);
        last = std::mem::replace(&mut used, crate::bench_log::processor_time(process.id())?);
        Ok(used == last)
    })?;
    Ok(used)
}

/// Resident memory in megabytes.
fn rss(process: &Process) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its size")?;
    let kb: f64 = line.split_whitespace().next().context("its size")?.parse()?;
    Ok(kb / 1024.0)
}

/// The shipped jails that read logs, by name.
fn shipped() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for kind in
        fs::read_dir(layout::root().join("dist/shipped")).context("cannot list what is shipped")?
    {
        let kind = kind?.path();
        let files = if kind.is_dir() { fs::read_dir(&kind)?.collect() } else { Vec::new() };
        for file in files {
            let path = file?.path();
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            for section in text.split("\n[").filter_map(|part| part.strip_prefix("jails.")) {
                let Some((name, body)) = section.split_once(']') else { continue };
                if !name.contains('.') && !body.contains("\nbans = true") {
                    names.push(name.to_owned());
                }
            }
        }
    }
    names.sort();
    Ok(names)
}
