//! `kill -9` of the real agent at random instants, with a flood from those it banned, programs
//! that log and rotate, and an operator: nothing acknowledged is lost, nothing lifted comes back,
//! nobody banned gets a packet through, no line is missed.
//!
//! `BAN_AGENT_KILL_ROUNDS=200` for more, `BAN_AGENT_SEED` for the same again.

use anyhow::{Result, ensure};
use tests::{ordeal::Ordeal, privilege, random};

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() -> Result<()> {
    if !privilege::ready("kill -9 in a loop") {
        return Ok(());
    }
    let rounds = std::env::var("BAN_AGENT_KILL_ROUNDS").ok();
    let kills = rounds.map_or(Ok(25), |rounds| rounds.parse())?;
    let seed = random::seed();
    let ordeal = Ordeal {
        seed,
        kills,
        time: None,
        writers: 3,
        copytruncate: true,
        full_disk: false,
        clock: None,
    };
    let report = ordeal.run()?;
    println!("{report}");
    ensure!(report.faults.is_empty(), "BAN_AGENT_SEED={seed}\n{report}");
    Ok(())
}
