//! Somebody at the command line, who bans and unbans all day and believes what he is told.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{CATCH_UP, Scene};
use crate::{agent, random::Random};

/// Between two thoughts.
const THOUGHT: Duration = Duration::from_millis(60);
/// The ends that the program keeps are exact to a tick; an answer takes a moment.
const SLACK: Duration = Duration::from_millis(300);

/// Works until told to stop.
pub(super) fn work(scene: &Scene<'_>, mut random: Random) -> Result<()> {
    let mut number = 0_u32;
    // an unban that nobody confirmed is asked for again, until somebody does
    let mut owed: Vec<IpAddr> = Vec::new();
    let mut stopped = None;
    while !scene.stop.load(Ordering::Acquire) || !owed.is_empty() {
        if scene.dead.load(Ordering::Acquire) {
            return Ok(());
        }
        let stopping = scene.stop.load(Ordering::Acquire);
        let since = *stopped.get_or_insert_with(Instant::now);
        if !stopping {
            stopped = None;
        } else if since.elapsed() > CATCH_UP {
            let text = format!("{} unbans were never made durable: {owed:?}", owed.len());
            scene.book.open().fault(text);
            return Ok(());
        }
        if !stopping && random.below(10) < 6 {
            number += 1;
            ban(scene, number, &mut random)?;
        } else if let Some(address) = owed.pop() {
            unban(scene, address, &mut owed)?;
        } else {
            let draw = random.below(u64::MAX);
            let pick = |length: usize| usize::try_from(draw).unwrap_or(0) % length.max(1);
            let address = scene.book.open().pick(pick);
            if let Some(address) = address {
                scene.book.open().lifting(address);
                unban(scene, address, &mut owed)?;
            }
        }
        thread::sleep(random.time(THOUGHT));
    }
    Ok(())
}

fn ban(scene: &Scene<'_>, number: u32, random: &mut Random) -> Result<()> {
    let address: IpAddr = if random.once_in(3) {
        Ipv6Addr::from(0x2001_0db8_0080_u128 << 80 | u128::from(number)).into()
    } else {
        Ipv4Addr::from(0x0a50_0000 + number).into()
    };
    scene.book.open().accuse(address);
    let text = address.to_string();
    let seconds = if random.once_in(3) { 3 } else { 36_000 };
    let asked = Instant::now();
    let until = asked + Duration::from_secs(seconds) - SLACK;
    let answer = ask(scene, &["ban", &text, "--for", &format!("{seconds}s")])?;
    let mut book = scene.book.open();
    match answer {
        // a warning says that a full disk may forget it in a reboot: it is in force all the same
        Some(Answer { done: true, .. }) => {
            book.tally.bans += 1;
            book.banned(address, until);
        }
        Some(_) => book.fault(format!("{address} was not banned by hand")),
        None => book.unanswered(address),
    }
    Ok(())
}

fn unban(scene: &Scene<'_>, address: IpAddr, owed: &mut Vec<IpAddr>) -> Result<()> {
    let answer = ask(scene, &["unban", &address.to_string()])?;
    let mut book = scene.book.open();
    match answer {
        // done or nothing left to do: it is free, but only the disk makes that final
        Some(Answer { durable: true, .. }) => book.lifted(address),
        _ => {
            book.tally.unanswered += 1;
            owed.push(address);
        }
    }
    Ok(())
}

/// What the agent said.
struct Answer {
    done: bool,
    durable: bool,
}

/// `None` if the agent did not answer.
fn ask(scene: &Scene<'_>, words: &[&str]) -> Result<Option<Answer>> {
    let done = agent::verb(scene.stage, &[&["-o", "json"], words].concat())?;
    // 1: not all of it was done
    if !matches!(done.status.code(), Some(0 | 1)) {
        return Ok(None);
    }
    let document: Value = serde_json::from_slice(&done.stdout)
        .with_context(|| format!("{words:?}: {}", String::from_utf8_lossy(&done.stdout)))?;
    let durable = document.get("warning").is_none_or(Value::is_null);
    Ok(Some(Answer { done: done.status.success(), durable }))
}
