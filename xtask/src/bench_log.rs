//! `cargo xtask bench log`: lines per second of the log engine and of its peers, over the same
//! generated logs in one run. All must find the same number of offences.

mod generate;
mod meter;
mod peers;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::layout;
pub(crate) use generate::{Kind, write as write_log};
pub(crate) use meter::processor_time;
use peers::{Job, Measured};

/// Options of `bench log`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Lines of each log
    #[arg(long, default_value_t = 1_000_000)]
    lines: u64,
    /// Seed of the generator
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lines that slow peers read; their rate is the same
    #[arg(long, default_value_t = 50_000)]
    slow_lines: u64,
    /// Only ours
    #[arg(long)]
    ours: bool,
}

/// A log, and what is run over it.
struct Case {
    name: &'static str,
    kind: Kind,
    jobs: fn() -> Vec<Job>,
}

const CASES: &[Case] = &[
    Case { name: "sshd", kind: Kind::Sshd, jobs: peers::sshd },
    Case { name: "nginx-access", kind: Kind::Access, jobs: peers::access },
    Case { name: "nginx-error", kind: Kind::Error, jobs: peers::error },
    Case { name: "caddy-json", kind: Kind::Caddy, jobs: peers::caddy },
];

pub(crate) fn verb(args: &Args) -> Result<()> {
    let folder = layout::root().join("target/bench/log");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let peers = peers::prepare(&folder, args.ours)?;
    let mut different = Vec::new();
    for case in CASES {
        let logs = [args.lines, args.slow_lines].map(|lines| -> Result<(PathBuf, u64, u64)> {
            let path = folder.join(format!("{}-{lines}.log", case.name));
            let offences = generate::write(case.kind, &path, lines, args.seed)?;
            Ok((path, lines, offences))
        });
        let [large, small] = logs;
        let (large, small) = (large?, small?);
        println!("\n{}: {} lines, {} offences", case.name, large.1, large.2);
        println!(
            "{:<42} {:>12} {:>12} {:>9} {:>9}",
            "", "lines/s", "lines/cpu s", "RSS MB", "found"
        );
        for job in (case.jobs)() {
            if args.ours && !job.ours {
                continue;
            }
            let (path, lines, offences) = if job.slow { &small } else { &large };
            match job.measure(&peers, path) {
                Ok(measured) => {
                    print(&job, &measured, *lines);
                    if measured.found.is_some_and(|found| found != *offences) {
                        different.push(format!("{}: {}", case.name, job.name));
                    }
                }
                Err(error) => println!("{:<42} not measured: {error:#}", job.name),
            }
        }
    }
    if !different.is_empty() {
        println!("\nother counts than the generator's offences: {}", different.join("; "));
    }
    Ok(())
}

fn print(job: &Job, measured: &Measured, lines: u64) {
    // Counts of lines are far below where a float would round them.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let lines = lines as f64;
    let found = measured.found.map_or_else(|| "-".to_owned(), |found| found.to_string());
    println!(
        "{:<42} {:>12.0} {:>12.0} {:>9.1} {found:>9}",
        job.name,
        lines / measured.wall,
        lines / measured.cpu.max(0.001),
        measured.rss_mb,
    );
}
