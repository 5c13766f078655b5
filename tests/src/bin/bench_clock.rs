//! How exact a deadline is: each minute the clocks are measured anew, and what the first
//! measurement says of the newest jiffy is compared with the boot time at which it began. At the
//! end a ban that was written at the beginning is watched ending.

use std::{
    net::Ipv4Addr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ban_agent::{
    clock::{Boot, Now},
    dataplane::{DataPlane as _, Options, Xdp},
    ledger::Op,
    net::host,
};
use ban_common::Verdict;
use tests::{
    bench::all,
    packet::{Frame, TCP},
    process::Pins,
};

/// What the issue of the project allows.
const ALLOWED_MS: f64 = 20.0;

fn main() -> Result<()> {
    let minutes: u64 = std::env::args().nth(1).context("how many minutes?")?.parse()?;
    let (pins, probe) = (pins("held"), pins("probe"));
    let load = |pins: &Pins| {
        let pins = pins.path().to_owned();
        Xdp::load(Options { pins, max_bans: 64, ..Options::default() })
    };
    let mut xdp = load(&pins)?;
    let first = xdp.clock();
    let source = Ipv4Addr::new(203, 0, 113, 7);
    let end = Now::read().boot.plus(minutes * 60_000);
    xdp.apply(&[Op::Set(host(source.into()), all(end))], Now::read())?;
    let since = Instant::now();
    let mut worst = 0.0_f64;
    for minute in 1..minutes {
        sleep(Duration::from_secs(minute * 60).saturating_sub(since.elapsed()));
        // An agent that starts measures; it does not know of the first measurement.
        let clock = load(&probe)?.clock();
        let error = drift_ms(&first, &clock);
        worst = if error.abs() > worst.abs() { error } else { worst };
        println!("after {minute:>3} min: {error:+.3} ms");
    }
    let frame = Frame::new().v4(source, TCP).port(80);
    let left = end.0.saturating_sub(Now::read().boot.0).saturating_sub(200);
    sleep(Duration::from_millis(left));
    let mut last_drop = 0;
    let over = loop {
        let before = Now::read().boot.0;
        let (verdict, _) = xdp.judge(frame.bytes(), 1)?;
        if verdict != Verdict::Drop {
            break Now::read().boot.0;
        }
        last_drop = before;
        ensure!(before < end.0 + 5_000, "the ban does not end");
    };
    println!(
        "the ban dropped until {:+} ms, and was over at {:+} ms",
        ms(last_drop, end),
        ms(over, end)
    );
    println!("worst: {worst:+.3} ms in {minutes} min, a tick is {} ms", first.tick_ns / 1_000_000);
    ensure!(worst.abs() <= ALLOWED_MS, "more than {ALLOWED_MS} ms");
    Ok(())
}

/// How far `first` is off when `now` is measured, in milliseconds.
fn drift_ms(
    first: &ban_agent::dataplane::JiffyClock,
    now: &ban_agent::dataplane::JiffyClock,
) -> f64 {
    let ticks = i128::from(now.jiffies) - i128::from(first.jiffies);
    let predicted = i128::from(first.boot_ns) + ticks * i128::from(first.tick_ns);
    let error = i128::from(now.boot_ns) - predicted;
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few seconds")]
    let error = error as f64;
    error / 1e6
}

fn ms(at: u64, end: Boot) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX) - i64::try_from(end.0).unwrap_or(i64::MAX)
}

fn pins(who: &str) -> Pins {
    Pins::new(&format!("ban-clock-{who}-{}", std::process::id()))
}
