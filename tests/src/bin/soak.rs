//! The long ordeal: everything that can happen to a host at once, for so many minutes, and a
//! report. Exits with 1 if anything was lost, banned by junk, or came back.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use tests::{ordeal::Ordeal, random};

fn main() -> Result<ExitCode> {
    let mut words = std::env::args().skip(1);
    let minutes: u64 = words.next().context("for how many minutes?")?.parse()?;
    let seed = words.next().map_or_else(|| Ok(random::seed()), |word| word.parse())?;
    println!("seed {seed}, {minutes} minutes");
    let report = Ordeal::soak(seed, Duration::from_secs(minutes * 60))?.run()?;
    println!("{report}");
    Ok(ExitCode::from(u8::from(!report.faults.is_empty())))
}
