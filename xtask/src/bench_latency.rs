//! `cargo xtask bench latency`: from a line that is written to a packet that is dropped, ours beside
//! fail2ban with nftables, on the same link and in the same run.
//!
//! An address of its own for every trial: it sends packets all the time, a line of sshd's that
//! accuses it is written, and the first packet that no longer reaches the socket behind the link
//! ends the trial. The clock starts before the line is written.

mod contender;
mod load;
mod probe;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    build, layout,
    net_shared::{Namespace, join},
    privilege,
    setup::system,
};
use contender::Contender;
use load::Load;
use probe::Probe;

/// Options of `bench latency`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bans to time, idle and under load
    #[arg(long, default_value_t = 200)]
    trials: u16,
    /// Bans of fail2ban's to time
    #[arg(long, default_value_t = 30)]
    peer_trials: u16,
    /// Innocent lines a second in the same log, for the second half
    #[arg(long, default_value_t = 200_000)]
    rate: u32,
    /// Only ours
    #[arg(long)]
    ours: bool,
}

/// How long a ban may take before a trial is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// So many trials in a row given up: it will not get better.
const GIVE_UP: usize = 3;

pub(crate) fn verb(args: &Args) -> Result<()> {
    ensure!(privilege::is_root(), "the bench needs root");
    build::agent(true)?;
    system::install(&[system::LAB, system::LATENCY])?;
    privilege::bpffs()?;
    println!(
        "\n{:<24} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "", "median ms", "p99 ms", "max ms", "lines/s", "cpu %"
    );
    let [ours_idle, ours_loaded] = contest(contender::ours, args.trials, args.rate)?;
    if !args.ours {
        let [peer_idle, peer_loaded] = contest(contender::fail2ban, args.peer_trials, args.rate)?;
        let rows = [("idle", ours_idle, peer_idle), ("under load", ours_loaded, peer_loaded)];
        for (state, ours, peer) in rows {
            if let (Some(ours), Some(peer)) = (ours, peer) {
                let ratio = peer.as_secs_f64() / ours.as_secs_f64();
                println!("{state}: fail2ban's median is {ratio:.0} times ours");
            }
        }
    }
    Ok(())
}

/// One contender on a stage of its own: its medians, idle and under load.
fn contest(start: contender::Start, trials: u16, rate: u32) -> Result<[Option<Duration>; 2]> {
    let folder = Folder::make()?;
    let edge = Namespace::new("bench-edge")?;
    let outside = Namespace::new("bench-out")?;
    wire(&edge, &outside)?;
    let contender = start(&edge, &folder.0)?;
    let mut probe = Probe::new(&edge, &outside, &contender.log)?;
    // The first ban makes tables and caches; it is nobody's latency.
    let warm = probe.trial(PATIENCE)?;
    ensure!(warm.is_some(), "{} banned nobody within {PATIENCE:?}", contender.name);
    let idle = report(&contender, "idle", &mut probe, trials, None)?;
    let load = Load::start(&contender.log, rate)?;
    let loaded = report(&contender, "under load", &mut probe, trials, Some(load))?;
    Ok([idle, loaded])
}

fn report(
    contender: &Contender,
    state: &str,
    probe: &mut Probe,
    trials: u16,
    load: Option<Load>,
) -> Result<Option<Duration>> {
    let (since, cpu) = (Instant::now(), contender.cpu()?);
    let mut times = Vec::new();
    let mut late = 0;
    for _ in 0..trials {
        match probe.trial(PATIENCE)? {
            Some(time) => times.push(time),
            None => late += 1,
        }
        if late >= GIVE_UP {
            break;
        }
    }
    let elapsed = since.elapsed();
    let used = contender.cpu()?.saturating_sub(cpu);
    let rate = load.map_or(Ok(0.0), Load::end)?;
    times.sort_unstable();
    print!("{:<24}", format!("{}, {state}", contender.name));
    for share in [0.5, 0.99, 1.0] {
        print!(" {:>9}", quantile(&times, share).map_or("-".to_owned(), millis));
    }
    print!(" {rate:>9.0} {:>7.1}", 100.0 * used.as_secs_f64() / elapsed.as_secs_f64());
    match late {
        0 => println!("   {} bans", times.len()),
        _ => println!("   {} bans, and {late} not within {PATIENCE:?}", times.len()),
    }
    // A median of those that came at all would flatter.
    Ok(if late == 0 { quantile(&times, 0.5) } else { None })
}

/// The nearest rank.
fn quantile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let mut rank = 0;
    let mut covered = 0.0;
    for (index, _) in sorted.iter().enumerate() {
        rank = index;
        covered += 1.0;
        if covered >= share * f64::from(u32::try_from(sorted.len()).ok()?) {
            break;
        }
    }
    sorted.get(rank).copied()
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

/// The edge, and behind its one link everybody else.
fn wire(edge: &Namespace, outside: &Namespace) -> Result<()> {
    join(edge, "eth0", outside, "eth1")?;
    edge.address("eth0", "198.51.100.1/24")?;
    outside.address("eth1", "198.51.100.254/24")?;
    edge.ip(&format!("route add {} via 198.51.100.254", probe::SOURCES))?;
    // Every address of the range is one of its own to send from.
    outside.ip(&format!("route add local {} dev lo", probe::SOURCES))?;
    Ok(())
}

/// A folder for logs, configuration and sockets. Dropping it removes it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let folder = layout::target().join(format!("bench/latency-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
