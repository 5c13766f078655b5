//! The long ordeal: everything that can happen to a host at once, for so many minutes, and a
//! report. Exits with 1 if anything was lost, banned by junk, or came back.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use tests::{clock::faketime, ordeal::Ordeal, random};

fn main() -> Result<ExitCode> {
    let mut words = std::env::args().skip(1);
    let minutes: u64 = words.next().context("for how many minutes?")?.parse()?;
    let seed = words.next().map_or_else(|| Ok(random::seed()), |word| word.parse())?;
    let ordeal = Ordeal {
        seed,
        kills: 0,
        time: Some(Duration::from_secs(minutes * 60)),
        writers: 4,
        copytruncate: true,
        full_disk: true,
        clock: Some(faketime().context("libfaketime is not installed")?),
    };
    println!("seed {seed}, {minutes} minutes");
    let report = ordeal.run()?;
    println!("{report}");
    Ok(ExitCode::from(u8::from(!report.faults.is_empty())))
}
