//! Runs a program over a log and says what it took: wall time, processor time of all its
//! threads, and its greatest size. Reads the kernel's accounts in `/proc`.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::command;

/// How often the size is looked at: the kernel keeps the maximum, but only while it runs.
const LOOK: Duration = Duration::from_millis(2);
/// Clock ticks of `/proc/PID/stat` per second.
const TICKS: f64 = 100.0;

/// What a run took, and what it printed.
#[derive(Debug)]
pub(super) struct Run {
    /// Seconds.
    pub wall: f64,
    /// Seconds, user and system, in steps of 10 ms.
    pub cpu: f64,
    pub rss_mb: f64,
    pub output: String,
}

/// Runs `command` with `log` as its input.
pub(super) fn run(command: &mut Command, log: &Path) -> Result<Run> {
    let shown = command::shown(command);
    let input = File::open(log).with_context(|| format!("cannot open {}", log.display()))?;
    let begin = Instant::now();
    let mut child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("`{shown}` did not start"))?;
    let mut pipe = child.stdout.take().context("its output is not ours")?;
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });
    let rss_kb = watch(&child)?;
    let wall = begin.elapsed().as_secs_f64();
    let cpu = ticks(child.id())? / TICKS;
    let status = child.wait().with_context(|| format!("`{shown}` was lost"))?;
    let output = reader.join().ok().context("its output was lost")?.context("its output")?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(Run { wall, cpu, rss_mb: rss_kb / 1024.0, output })
}

/// Looks at the child until it has ended, but leaves it to be waited for; its greatest size.
fn watch(child: &Child) -> Result<f64> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("its process id")?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let mut greatest: f64 = 0.0;
    loop {
        greatest = greatest.max(size(child.id()).unwrap_or(0.0));
        if waitid(WaitId::Pid(pid), options).context("waiting for it")?.is_some() {
            return Ok(greatest);
        }
        thread::sleep(LOOK);
    }
}

/// `VmHWM` in kB; `None` once the memory is gone.
fn size(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time of all its threads, in steps of 10 ms.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    Ok(Duration::from_secs_f64(ticks(pid)? / TICKS))
}

/// User and system time of all its threads, in ticks.
fn ticks(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("its accounts")?;
    // The name may hold spaces; the fields behind it do not.
    let fields = stat.rsplit_once(')').context("its accounts")?.1;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    match (times.next(), times.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok(user + system),
        _ => bail!("its accounts have no times"),
    }
}
