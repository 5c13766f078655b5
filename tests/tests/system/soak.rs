//! The soak, for a minute: kill -9, a flood, rotation, junk, a disk that fills up and a clock that
//! is set, all at once. `cargo xtask soak --minutes N --seed S` for longer, or the same again.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{ordeal::Ordeal, privilege, random};

#[test]
fn a_minute_of_everything_at_once() -> Result<()> {
    if !privilege::ready("the soak") {
        return Ok(());
    }
    let seed = random::seed();
    println!("the soak's seed is {seed}");
    let report = Ordeal::soak(seed, Duration::from_secs(60))?.run()?;
    println!("{report}");
    ensure!(report.faults.is_empty(), "cargo xtask soak --minutes 1 --seed {seed}\n{report}");
    Ok(())
}
