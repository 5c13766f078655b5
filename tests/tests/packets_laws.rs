//! Random bans, unbans and expiries against a plain model: the real program's verdicts must be
//! the model's, after each step, for sources in and around the banned prefixes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]
#![expect(clippy::cast_possible_truncation, reason = "numbers below small limits")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ban_agent::{
    clock::{Boot, Now},
    dataplane::DataPlane as _,
    ledger::{Enforced, Op},
    net::{IpNet, PortRange, Proto},
};
use ban_common::Verdict;
use tests::{
    bench::Bench,
    packet::{Frame, TCP},
    require_root,
};

/// A small generator (xorshift64*, Vigna 2016): a failure names its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }

    /// Few different addresses, so that prefixes overlap.
    fn address(&mut self) -> IpAddr {
        let bits = u128::from(self.below(1 << 10));
        if self.below(2) == 0 {
            Ipv4Addr::from(
                0x0a00_0000
                    | (bits as u32 & 3) << 23
                    | (bits as u32 >> 2 & 3) << 15
                    | (bits as u32 >> 4) << 3,
            )
            .into()
        } else {
            let spread =
                (bits & 3) << 88 | (bits >> 2 & 3) << 79 | (bits >> 4 & 7) << 63 | bits >> 7;
            Ipv6Addr::from(0x2001_0db8_u128 << 96 | spread).into()
        }
    }

    fn prefix(&mut self) -> IpNet {
        const V4: [u8; 8] = [32, 32, 32, 31, 24, 17, 9, 6];
        const V6: [u8; 10] = [128, 128, 127, 64, 64, 56, 48, 47, 33, 30];
        let address = self.address();
        let length = if address.is_ipv4() {
            V4[self.below(V4.len() as u64) as usize]
        } else {
            V6[self.below(V6.len() as u64) as usize]
        };
        IpNet::new(address, length).unwrap().trunc()
    }

    fn enforced(&mut self, now: Now) -> Enforced {
        let mut end = || match self.below(4) {
            0 => Boot(now.boot.0 - 1_000),
            1 => Boot(0),
            2 => Boot::NEVER,
            _ => now.boot.plus(3_600_000),
        };
        let (all, scoped) = (end(), end());
        let range = |low| PortRange { proto: Proto::Tcp, low, high: low + 3 };
        // few lists, so that bans share them, and lists that others are part of
        let ports = match self.below(4) {
            0 => vec![range(22)],
            1 => vec![range(80)],
            2 => vec![range(22), range(80)],
            _ => vec![range(443)],
        };
        if scoped == Boot(0) {
            return Enforced { all, scoped, ports: Vec::new() };
        }
        Enforced { all, scoped, ports }
    }
}

/// The law: any live ban whose prefix holds the source drops, unless the source is allowed.
fn drops(
    bans: &BTreeMap<IpNet, Enforced>,
    allowed: &[IpNet],
    source: IpAddr,
    port: u16,
    now: Now,
) -> bool {
    let live = |enforced: &Enforced| {
        enforced.all > now.boot
            || (enforced.scoped > now.boot
                && enforced.ports.iter().any(|range| range.low <= port && port <= range.high))
    };
    bans.iter().any(|(prefix, enforced)| prefix.contains(&source) && live(enforced))
        && !allowed.iter().any(|prefix| prefix.contains(&source))
}

fn frame(source: IpAddr, port: u16) -> Frame {
    match source {
        IpAddr::V4(source) => Frame::new().v4(source, TCP).port(port),
        IpAddr::V6(source) => Frame::new().v6(source, TCP).port(port),
    }
}

#[test]
fn verdicts_follow_the_model() {
    require_root!("the model test");
    let seed = std::env::var("SEED").map_or(0x5eed_0001, |seed| seed.parse().unwrap());
    let mut random = Random(seed);
    let mut bench = Bench::new("laws", 4_096);
    let mut bans: BTreeMap<IpNet, Enforced> = BTreeMap::new();
    let mut allowed: Vec<IpNet> = Vec::new();
    let mut counts = BTreeMap::new();
    let few: Vec<IpNet> = (0..6).map(|_| random.prefix()).collect();
    let steps = std::env::var("STEPS").map_or(400, |steps| steps.parse().unwrap());
    for step in 0..steps {
        let now = Now::read();
        let most = [1, 6, 32][random.below(3) as usize];
        let ops: Vec<Op> = (0..=random.below(most))
            .map(|_| {
                let old = bans.keys().nth(random.below(bans.len() as u64 * 4 + 8) as usize);
                match (old.copied(), random.below(3)) {
                    (Some(old), 0..2) => Op::Clear(old),
                    // what a batch holds it often holds twice: as one jail and the next have it
                    (Some(old), _) => Op::Set(old, random.enforced(now)),
                    (None, 0) => {
                        Op::Set(few[random.below(few.len() as u64) as usize], random.enforced(now))
                    }
                    (None, _) => Op::Set(random.prefix(), random.enforced(now)),
                }
            })
            .collect();
        for op in &ops {
            match op {
                Op::Set(prefix, enforced) => bans.insert(*prefix, enforced.clone()),
                Op::Clear(prefix) => bans.remove(prefix),
            };
        }
        bench.xdp.apply(&ops, now).unwrap();
        if random.below(8) == 0 {
            allowed = (0..random.below(3)).map(|_| random.prefix()).collect();
            bench.xdp.allow(&allowed).unwrap();
        }
        for _ in 0..40 {
            let source = random.address();
            let port = [22, 82, 443][random.below(3) as usize];
            let verdict = bench.judge(&frame(source, port));
            *counts.entry(verdict).or_insert(0) += 1;
            let expected = drops(&bans, &allowed, source, port, Now::read());
            assert_eq!(
                verdict == Verdict::Drop,
                expected,
                "seed {seed}, step {step}, {source} port {port}: {verdict:?}\n{bans:#?}\n{allowed:?}"
            );
        }
        if step % 50 == 0 {
            let mut held = bench.xdp.held().unwrap();
            held.sort_by_key(|held| held.prefix);
            let prefixes: Vec<_> = held.iter().map(|held| held.prefix).collect();
            assert_eq!(prefixes, bans.keys().copied().collect::<Vec<_>>());
        }
    }
    for verdict in [
        Verdict::Drop,
        Verdict::Clear,
        Verdict::Unbanned,
        Verdict::Allowed,
        Verdict::OtherPort,
        Verdict::Expired,
    ] {
        assert!(counts.contains_key(&verdict), "never saw {verdict:?}: {counts:?}");
    }
}
