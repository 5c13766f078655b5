//! A minute of everything at once: kill -9, a flood, logs that rotate, junk, a disk that fills up,
//! a clock that is set. `cargo xtask soak` goes on for longer.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    ordeal::{Ordeal, trouble},
    privilege, random,
};

#[test]
fn a_minute_of_everything_loses_nothing() -> Result<()> {
    if !privilege::ready("a short soak") {
        return Ok(());
    }
    let Some(library) = trouble::faketime() else {
        privilege::lack("a short soak", "libfaketime is not installed (apt-get install faketime)");
        return Ok(());
    };
    let seed = random::seed();
    let ordeal = Ordeal {
        seed,
        kills: 0,
        time: Some(Duration::from_secs(60)),
        writers: 3,
        full_disk: true,
        clock: Some(library),
    };
    let report = ordeal.run()?;
    println!("{report}");
    ensure!(report.faults.is_empty(), "BAN_AGENT_SEED={seed}\n{report}");
    Ok(())
}
