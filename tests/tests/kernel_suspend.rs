//! A suspend to RAM: what becomes of bans whose end lies in it or behind it, with the agent and
//! without, and of the program in the driver of a card.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ban_agent::{
    clock::{Boot, Now},
    dataplane::{Options, Xdp},
};
use ban_common::Verdict;
use tests::{
    agent::Agent,
    bench::{Bench, all, set},
    guest,
    host::{FAMILIES, Family},
    packet::Frame,
    process::eventually,
    stage::{ATTACKER, EDGE, Stage},
};

/// How long the machine sleeps.
const SLEEP: u64 = 45;
/// More than the machine is awake between a ban and what is looked at first after the sleep.
const SHORT: u64 = 40;
/// A ban whose end lies behind the sleep.
const LONG: u64 = 75;

/// Sources whose bans end in the sleep, and long after it.
const IN_SLEEP: &str = "203.0.113.1";
const LATER: &str = "203.0.113.2";

fn judged(bench: &mut Bench) -> Result<[Verdict; 2]> {
    let frame = |source: &str| Ok::<_, anyhow::Error>(Frame::new().v4(source.parse()?, 17));
    Ok([bench.judge(&frame(IN_SLEEP)?), bench.judge(&frame(LATER)?)])
}

/// A program without interfaces, with both bans.
fn bench(name: &str) -> Bench {
    let mut bench = Bench::new(name, 64);
    let now = Now::read().boot;
    bench.apply(&[
        set(IN_SLEEP, all(now.plus(SHORT * 1_000))),
        set(LATER, all(now.plus(3_600_000))),
    ]);
    bench
}

#[test]
fn a_ban_ends_by_the_clock_that_goes_on_in_a_suspend() -> Result<()> {
    if !guest::ready("a suspend") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = Agent::start(&stage, "")?;
    ensure!(stage.attacker().pings(Family::V4, EDGE)?, "the wire does not work");
    let earliest = Now::read().boot.plus(LONG * 1_000);
    for (address, time) in [(ATTACKER.0, format!("{LONG}s")), (ATTACKER.1, "1h".to_owned())] {
        ensure!(agent.verb(&["ban", address, "--for", &time])?.status.success(), "ban {address}");
    }
    let latest = Now::read().boot.plus(LONG * 1_000);
    // One agent that hears nothing of the sleep, and one that starts after it.
    let (mut deaf, mut late) = (bench("suspend-deaf"), bench("suspend-late"));
    let slept = guest::sleep(u32::try_from(SLEEP)?)?;
    ensure!(slept >= Duration::from_secs(SLEEP - 3), "it slept for {slept:?} only");

    // Jiffies stood still: the program alone ends a ban late by what the machine slept.
    ensure!(judged(&mut deaf)? == [Verdict::Drop, Verdict::Drop], "a ban ended early");
    deaf.apply(&[set("203.0.113.3", all(Boot::NEVER))]);
    ensure!(
        judged(&mut deaf)? == [Verdict::Expired, Verdict::Drop],
        "the deadlines are the old ones"
    );
    let options = Options { pins: late.pins.path().to_owned(), max_bans: 64, ..Options::default() };
    late = again(late, options)?;
    ensure!(
        judged(&mut late)? == [Verdict::Expired, Verdict::Drop],
        "the deadlines are the old ones"
    );

    // The driver of this card loses the program in a suspend; the agent puts it there again.
    ensure!(stage.client().pings(Family::V4, EDGE)?, "the card did not wake up");
    eventually("the card drops again", Duration::from_secs(20), || {
        Ok(!stage.attacker().pings(Family::V6, EDGE)?)
    })
    .with_context(|| format!("the agent said:\n{}", agent.log()))?;
    // Never early, nor late by the sleep.
    let mut answered = Boot(0);
    eventually("the ban ends", Duration::from_secs(LONG + SLEEP), || {
        let pings = stage.attacker().pings(Family::V4, EDGE)?;
        answered = Now::read().boot;
        Ok(pings)
    })?;
    ensure!(answered >= earliest, "it ended early: {answered:?}, not {earliest:?}");
    ensure!(answered < latest.plus(SLEEP * 1_000), "it ended late: {answered:?}, not {latest:?}");
    for family in FAMILIES {
        // neighbours are asked for again after a sleep, and an emulated machine is slow at that
        let what = format!("the client is answered, {family:?}");
        eventually(&what, Duration::from_secs(20), || stage.client().pings(family, EDGE))?;
    }
    ensure!(!stage.attacker().pings(Family::V6, EDGE)?, "the other ban ended in the sleep");
    Ok(())
}

/// The program of an agent that starts over the pins of one that has ended.
fn again(bench: Bench, options: Options) -> Result<Bench> {
    let Bench { xdp, pins } = bench;
    drop(xdp);
    Ok(Bench { xdp: Xdp::load(options)?, pins })
}
