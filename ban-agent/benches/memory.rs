//! What a million bans cost the agent: to decide, to write, to read back at start, to keep.
//! `cargo bench -p ban-agent --bench memory`.

use std::{collections::BTreeMap, fs, hint::black_box, net::Ipv4Addr, sync::Arc, time::Instant};

use ban_agent::{
    clock::{Boot, Now},
    filter::{self, Failure},
    jail::{Jail, Limits, Lookup, Rules},
    ledger::{Claim, Holder, Ledger, Plan},
    net::host,
    store::Store,
};

const BANS: u32 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = Now::read();
    failures(now);
    let directory = tempfile::TempDir::new()?;
    let path = directory.path().join("state.sqlite");

    let mut store = Store::open(&path)?;
    let begun = Instant::now();
    for number in 0..BANS {
        store.claim(&claim(number, now), None, now);
    }
    report("handed to the store", begun);
    store.barrier().blocking_recv()?;
    report("durable", begun);
    store.close();
    println!("{:>12.1} MB on disk", fs::metadata(&path)?.len() as f64 / 1e6);

    let begun = Instant::now();
    let mut store = Store::open(&path)?;
    let mut ledger = Ledger::new(BANS as usize);
    let mut plan = Plan::default();
    store.load(now, |claim| {
        ledger.claim(&claim, false, now.boot, &mut plan);
        plan.ops.clear();
    });
    report("in the ledger: cold start", begun);
    assert_eq!(ledger.len(), BANS as usize);
    println!("{}", memory()?);

    let begun = Instant::now();
    ledger.expire(Boot::NEVER, &mut plan);
    report("expired", begun);
    assert_eq!(plan.ended.len(), BANS as usize);
    store.close();
    Ok(())
}

/// Failures of a million sources, which a jail that tracks a tenth of them sees.
fn failures(now: Now) {
    let rules = Rules {
        name: "bench".into(),
        filter: Arc::new(filter::Spec::default()),
        maxretry: Some(5),
        distinct: Default::default(),
        count_by: Default::default(),
        findtime: std::time::Duration::from_secs(600),
        bantime: None,
        increment: None,
        ports: Vec::new(),
        ignoreip: Vec::new(),
        prefix_v4: 32,
        prefix_v6: 64,
        translators: ban_agent::net::Translators::default(),
        maxmatches: 5,
        max_tracked: 100_000,
        lookup: Lookup::default(),
        proxies: Vec::new(),
        bans: true,
        ignorecommand: None,
        widen: None,
        extend: None,
        limits: Limits::default(),
    };
    let mut jail = Jail::new(&rules);
    let line = [b'x'; 120];
    let begun = Instant::now();
    for number in 0..BANS {
        let failure = Failure {
            address: Some(address(number).into()),
            id: None,
            time: None,
            fields: BTreeMap::new(),
            pattern: 0,
            success: false,
        };
        black_box(jail.offence(&failure, &line, now));
    }
    report("failures counted, 100,000 tracked", begun);
}

/// Scattered as attackers are: an odd multiplier permutes the numbers.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(number.wrapping_mul(2_654_435_761))
}

fn claim(number: u32, now: Now) -> Claim {
    let until = now.boot.plus(3_600_000 + u64::from(number.wrapping_mul(40_503)));
    let holder = Holder::Jail("sshd".into());
    Claim { prefix: host(address(number).into()), holder, until, ports: Vec::new(), derived: false }
}

fn report(what: &str, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    let each = seconds * 1e9 / f64::from(BANS);
    println!("{seconds:>12.3} s  {each:>7.0} ns each: {what}");
}

fn memory() -> std::io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let lines =
        status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
