//! An attack of many sources on one jail: `suspects SOURCES FAILURES ORDER BOUND`. Each source fails
//! FAILURES times, 110 bytes a line, in an ORDER: `cyclic`, `shuffled` (each round anew), `random` (all
//! failures) or `bursty` (two at once); maxretry is 3, and who is banned comes no more. Prints one JSON
//! object: who was banned, who failed often enough to be, and what it took.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use ban_core::{
    clock::{Boot, Now},
    filter::Failure,
    jail::{Decision, Jail, Rules, rules},
};
use jiff::Timestamp;

/// A generator (splitmix64): each run is the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap_or(0)
    }

    fn shuffle(&mut self, all: &mut [u32]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [sources, failures, order, bound] = args.as_slice() else {
        return Err("usage: suspects SOURCES FAILURES cyclic|shuffled|random|bursty BOUND".into());
    };
    let (sources, failures): (u32, usize) = (sources.parse()?, failures.parse()?);
    let max_tracked = bound.parse()?;
    let mut jail = Jail::new(&Rules { max_tracked, ..rules(3, 3600) });
    let order = turns(sources, failures, order);
    let mut banned = vec![false; usize::try_from(sources)?];
    let mut counts = vec![0_u32; usize::try_from(sources)?];
    let now = Now { boot: Boot(1_000_000), wall: Timestamp::from_second(1_800_000_000)? };
    let mut failure = Failure {
        address: None,
        id: None,
        time: Some(now.wall),
        fields: BTreeMap::new(),
        pattern: 0,
        success: false,
    };
    let line = [b'x'; 110];
    let (before, begin) = (rss(), Instant::now());
    let (mut offences, mut early, mut tracked) = (0_u64, 0, 0);
    for source in &order {
        let at = usize::try_from(*source)?;
        let (Some(gone), Some(count)) = (banned.get_mut(at), counts.get_mut(at)) else { break };
        if *gone {
            continue;
        }
        offences += 1;
        *count += 1;
        // scattered over all networks
        failure.address = Some(IpAddr::V4(Ipv4Addr::from(source.wrapping_mul(2_654_435_761))));
        if let Decision::Ban(_) = jail.offence(&failure, &line, now) {
            *gone = true;
            early += usize::from(*count < 3);
        }
        tracked = tracked.max(jail.stats().failing);
    }
    let seconds = begin.elapsed().as_secs_f64();
    writeln!(
        std::io::stdout(),
        "{{\"sources\":{sources},\"banned\":{},\"below_maxretry\":{early},\"tracked\":{tracked},\
         \"offences\":{offences},\"seconds\":{seconds:.3},\"rss_mb\":{:.1}}}",
        banned.iter().filter(|banned| **banned).count(),
        (rss() - before) / 1024.0,
    )?;
    Ok(())
}

/// Who fails, one after the other.
fn turns(sources: u32, failures: usize, order: &str) -> Vec<u32> {
    let mut dice = Dice(1);
    let mut turns = Vec::new();
    for round in 0..failures {
        if order == "bursty" && round % 2 == 1 {
            continue;
        }
        let mut all: Vec<u32> = (0..sources).collect();
        if order != "cyclic" {
            dice.shuffle(&mut all);
        }
        let times = if order == "bursty" { 2.min(failures - round) } else { 1 };
        turns.extend(all.into_iter().flat_map(|source| std::iter::repeat_n(source, times)));
    }
    if order == "random" {
        dice.shuffle(&mut turns);
    }
    turns
}

/// `VmRSS` in kB.
fn rss() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
