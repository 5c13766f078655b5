//! Laws 2 and 3: any interleaving of steps against a plain model, and the corners by hand.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::net::{parse_ports, parse_prefix};

fn net(text: &str) -> IpNet {
    parse_prefix(text).unwrap()
}

fn jail(name: &str) -> Holder {
    Holder::Jail(name.into())
}

fn claim(prefix: &str, holder: Holder, until: u64) -> Claim {
    Claim { prefix: net(prefix), holder, until: Boot(until), ports: Vec::new(), derived: false }
}

/// A kernel that does what it is told.
#[derive(Debug, Default, PartialEq)]
struct Kernel(BTreeMap<IpNet, Enforced>);

impl Kernel {
    fn apply(&mut self, plan: &Plan) {
        for op in &plan.ops {
            match op {
                Op::Set(prefix, enforced) => self.0.insert(*prefix, enforced.clone()),
                Op::Clear(prefix) => self.0.remove(prefix),
            };
        }
    }
}

/// A list of claims, and nothing clever.
#[derive(Debug, Default)]
struct Model {
    claims: BTreeMap<(IpNet, Holder, Ports), Boot>,
    allowed: Vec<IpNet>,
    protected: Vec<(IpNet, Protected)>,
}

impl Model {
    fn overlap(a: IpNet, b: IpNet) -> bool {
        a.contains(&b) || b.contains(&a)
    }

    fn may_claim(&self, claim: &Claim, force: bool) -> bool {
        let manual = claim.holder == Holder::Manual;
        let allowed = |net: &IpNet| {
            net.contains(&claim.prefix) || (!manual && Self::overlap(*net, claim.prefix))
        };
        let protected = |(net, _): &(IpNet, Protected)| Self::overlap(*net, claim.prefix);
        !self.allowed.iter().any(allowed)
            && ((manual && force) || !self.protected.iter().any(protected))
    }

    fn claim(&mut self, claim: &Claim, force: bool, now: Boot) {
        if claim.until > now && self.may_claim(claim, force) {
            let key = (claim.prefix, claim.holder.clone(), claim.ports.clone());
            let until = self.claims.entry(key).or_insert(claim.until);
            *until = claim.until.max(*until);
        }
    }

    fn guard(&mut self) {
        let (allowed, protected) = (&self.allowed, &self.protected);
        self.claims.retain(|(prefix, holder, _), _| {
            !allowed.iter().any(|net| net.contains(prefix))
                && (*holder == Holder::Manual
                    || !protected.iter().any(|(net, _)| net.contains(prefix)))
        });
    }

    fn kernel(&self) -> Kernel {
        let mut kernel = Kernel::default();
        for ((prefix, _, ports), until) in &self.claims {
            let nothing = Enforced { all: Boot(0), scoped: Boot(0), ports: Vec::new() };
            let enforced = kernel.0.entry(*prefix).or_insert(nothing);
            if ports.is_empty() {
                enforced.all = enforced.all.max(*until);
            } else {
                enforced.scoped = enforced.scoped.max(*until);
                let union: BTreeSet<_> = enforced.ports.iter().chain(ports).copied().collect();
                enforced.ports = union.into_iter().collect();
            }
        }
        kernel
    }
}

#[derive(Clone, Debug)]
enum Step {
    Claim(Claim, bool),
    Release(IpNet, Option<Holder>),
    ReleaseAll(Option<Holder>),
    Advance(u64),
    Allow(Vec<IpNet>),
    Protect(Vec<IpNet>),
}

fn prefixes() -> impl Strategy<Value = IpNet> {
    let texts = [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.0/24",
        "10.0.1.1",
        "10.0.0.0/8",
        "192.0.2.1",
        "2001:db8::1",
        "2001:db8::/64",
        "2001:db8::2",
        "2001:db8::/48",
        "0.0.0.0/0",
        "::/0",
    ];
    prop::sample::select(texts.map(net).to_vec())
}

fn holders() -> impl Strategy<Value = Holder> {
    prop::sample::select(vec![jail("a"), jail("b"), Holder::Manual])
}

fn claims() -> impl Strategy<Value = Claim> {
    let until = prop_oneof![8 => (0u64..300).prop_map(Boot), 1 => Just(Boot::NEVER)];
    let ports = prop::sample::select(vec![
        Vec::new(),
        parse_ports("tcp/22").unwrap(),
        parse_ports("tcp/80,443").unwrap(),
    ]);
    (prefixes(), holders(), until, ports).prop_map(|(prefix, holder, until, ports)| Claim {
        prefix,
        holder,
        until,
        ports,
        derived: false,
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let some = |n| prop::collection::vec(prefixes(), 0..n);
    prop_oneof![
        12 => (claims(), any::<bool>()).prop_map(|(claim, force)| Step::Claim(claim, force)),
        4 => (prefixes(), prop::option::of(holders())).prop_map(|(p, h)| Step::Release(p, h)),
        1 => prop::option::of(holders()).prop_map(Step::ReleaseAll),
        6 => (1u64..40).prop_map(Step::Advance),
        1 => some(3).prop_map(Step::Allow),
        1 => some(3).prop_map(Step::Protect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_interleaving_equals_the_plain_model(steps in prop::collection::vec(steps(), 1..60)) {
        let mut ledger = Ledger::new(1000);
        let (mut model, mut kernel, mut now) = (Model::default(), Kernel::default(), Boot(0));
        let mut begun: BTreeSet<String> = BTreeSet::new();
        for step in steps {
            let mut plan = Plan::default();
            match step {
                Step::Claim(claim, force) => {
                    ledger.claim(&claim, force, now, &mut plan);
                    model.claim(&claim, force, now);
                }
                Step::Release(prefix, holder) => {
                    ledger.release(prefix, holder.as_ref(), &mut plan);
                    model.claims.retain(|(p, h, _), _| {
                        *p != prefix || holder.as_ref().is_some_and(|holder| h != holder)
                    });
                }
                Step::ReleaseAll(holder) => {
                    let mut after = None;
                    while let Some(last) = ledger.release_some(holder.as_ref(), after, 2, &mut plan)
                    {
                        after = Some(last);
                    }
                    let stays = |h: &Holder| holder.as_ref().is_some_and(|holder| h != holder);
                    model.claims.retain(|(_, h, _), _| stays(h));
                }
                Step::Advance(by) => {
                    now = now.plus(by);
                    ledger.expire(now, &mut plan);
                    model.claims.retain(|_, until| *until > now);
                }
                Step::Allow(prefixes) => {
                    ledger.set_allowed(&prefixes, &mut plan);
                    model.allowed = prefixes;
                    model.guard();
                }
                Step::Protect(prefixes) => {
                    let own: Vec<_> = prefixes.iter().map(|p| (*p, Protected::Own)).collect();
                    ledger.set_protected(&own, &mut plan);
                    model.protected = own;
                    model.guard();
                }
            }
            kernel.apply(&plan);
            prop_assert_eq!(&kernel, &model.kernel());
            let held: BTreeMap<_, _> = ledger
                .iter()
                .flat_map(|ban| ban.claims().collect::<Vec<_>>())
                .map(|claim| ((claim.prefix, claim.holder, claim.ports), claim.until))
                .collect();
            prop_assert_eq!(&held, &model.claims);
            let mut counts: BTreeMap<Holder, [usize; 2]> = BTreeMap::new();
            for (prefix, holder, _) in model.claims.keys() {
                let [v4, v6] = counts.entry(holder.clone()).or_default();
                *(if prefix.addr().is_ipv4() { v4 } else { v6 }) += 1;
            }
            let counted = ledger.held().filter(|(_, counts)| *counts != [0; 2]);
            prop_assert_eq!(counted.map(|(holder, n)| (holder.clone(), n)).collect::<BTreeMap<_, _>>(), counts);
            let next = model.claims.values().filter(|until| **until != Boot::NEVER).min().copied();
            prop_assert_eq!(ledger.next_deadline(), next);
            // What was begun and has ended was reported as ended, and nothing else.
            let live: BTreeSet<String> = held.keys().map(|key| format!("{key:?}")).collect();
            let ended: BTreeSet<String> = plan.ended.iter().map(|ended| {
                let claim = &ended.claim;
                format!("{:?}", (claim.prefix, &claim.holder, &claim.ports))
            }).collect();
            prop_assert_eq!(&ended, &begun.difference(&live).cloned().collect());
            begun = live;
        }
    }
}

#[test]
fn the_short_jail_does_not_lift_the_long_jails_ban() {
    let mut ledger = Ledger::new(10);
    let mut plan = Plan::default();
    let (short, long) = (claim("192.0.2.1", jail("sshd"), 20), claim("192.0.2.1", jail("day"), 90));
    assert_eq!(ledger.claim(&short, false, Boot(0), &mut plan), Change::New);
    assert_eq!(ledger.claim(&long, false, Boot(0), &mut plan), Change::Joined);
    let mut plan = Plan::default();
    ledger.expire(Boot(20), &mut plan);
    assert_eq!((plan.ops.len(), plan.ended.len(), plan.ended[0].last), (0, 1, false));
    assert_eq!(ledger.get(short.prefix).unwrap().until(), Boot(90));
    ledger.expire(Boot(90), &mut plan);
    assert_eq!(plan.ops, [Op::Clear(short.prefix)]);
    assert!(plan.ended[1].last && ledger.is_empty());
}

#[test]
fn a_full_family_makes_room_by_what_ends_soonest() {
    let mut ledger = Ledger::new(3);
    let mut plan = Plan::default();
    for (prefix, holder, until) in [
        ("192.0.2.1", Holder::Manual, 10),
        ("192.0.2.2", jail("a"), 40),
        ("192.0.2.3", jail("a"), 20),
        ("192.0.2.3", jail("b"), 50),
        ("2001:db8::1", jail("a"), 5),
    ] {
        ledger.claim(&claim(prefix, holder, until), false, Boot(0), &mut plan);
    }
    let mut plan = Plan::default();
    let new = claim("192.0.2.9", jail("a"), 30);
    assert_eq!(ledger.claim(&new, false, Boot(0), &mut plan), Change::New);
    assert_eq!(plan.ended.len(), 1);
    assert_eq!(
        (plan.ended[0].claim.prefix, plan.ended[0].cause),
        (net("192.0.2.2"), Cause::Evicted)
    );
    assert_eq!((ledger.evicted(), ledger.len()), (1, 4));
}

#[test]
fn what_nothing_may_push_out_is_not_pushed_out() {
    let mut ledger = Ledger::new(2);
    let mut plan = Plan::default();
    ledger.claim(&claim("192.0.2.1", Holder::Manual, 10), false, Boot(0), &mut plan);
    ledger.claim(&claim("192.0.3.2", jail("a"), u64::MAX), false, Boot(0), &mut plan);
    let mut plan = Plan::default();
    let change = ledger.claim(&claim("192.0.2.3", jail("a"), 99), false, Boot(0), &mut plan);
    assert_eq!(change, Change::Refused(Refusal::Full(2)));
    assert_eq!(plan, Plan::default());
}

#[test]
fn refusals_say_why() {
    let mut ledger = Ledger::new(10);
    ledger.set_allowed(&[net("198.51.100.0/28")], &mut Plan::default());
    ledger.set_protected(&[(net("192.0.2.1"), Protected::Gateway)], &mut Plan::default());
    let why = |prefix, holder: &Holder, force| {
        ledger.refusal(net(prefix), holder, force).map(|refusal| refusal.to_string())
    };
    let (a, manual) = (&jail("a"), &Holder::Manual);
    let allowed = Some("198.51.100.0/28 is on the allow list".to_owned());
    assert_eq!(why("198.51.100.7", a, false), allowed);
    assert_eq!(why("198.51.100.7", manual, true), allowed);
    assert!(why("198.51.100.0/24", a, false).unwrap().starts_with("it contains 198.51.100.0/28"));
    assert_eq!(why("198.51.100.0/24", manual, false), None);
    let gateway = Some("192.0.2.1/32 is a gateway of this host".to_owned());
    assert_eq!(why("192.0.2.1", a, true), gateway);
    assert_eq!(why("192.0.2.0/24", manual, false), gateway);
    assert_eq!(why("192.0.2.1", manual, true), None);
}

#[test]
fn the_kernel_passes_what_is_protected_until_it_is_banned_by_force() {
    let mut ledger = Ledger::new(10);
    let mut plan = Plan::default();
    ledger.set_allowed(&[net("10.0.0.0/8")], &mut plan);
    ledger.set_protected(&[(net("192.0.2.1"), Protected::SshPeer)], &mut plan);
    assert_eq!(ledger.never_dropped(), [net("10.0.0.0/8"), net("192.0.2.1")]);
    ledger.claim(&claim("192.0.2.1", Holder::Manual, 9), true, Boot(0), &mut plan);
    assert_eq!(ledger.never_dropped(), [net("10.0.0.0/8")]);
}

/// A full family of IPv6: one victim elsewhere, and an attacker with as many /64s as there is room.
#[test]
fn an_attacker_with_a_network_lifts_nobody_elses_ban() {
    let mut ledger = Ledger::new(1_000);
    let mut plan = Plan::default();
    let victim = claim("fd77::2", jail("a"), 10);
    ledger.claim(&victim, false, Boot(0), &mut plan);
    let other = claim("2001:db8:77::1", jail("a"), 11);
    ledger.claim(&other, false, Boot(0), &mut plan);
    for number in 0..5_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        // over eight /48s of one /32
        let site = number % 8;
        let prefix = format!("2001:db8:{site:x}:{:x}::/64", u32::from(high) << 8 | u32::from(low));
        let new = claim(&prefix, jail("a"), 1_000 + u64::from(number));
        assert_eq!(ledger.claim(&new, false, Boot(0), &mut plan), Change::New, "{prefix}");
    }
    assert_eq!((ledger.len(), ledger.evicted(), ledger.refused()), (1_000, 4_002, 0));
    assert!(ledger.get(victim.prefix).is_some(), "nobody else's ban is lifted");
    assert!(ledger.get(other.prefix).is_some(), "not even in the same /32");
}

#[test]
fn two_claims_on_each_address_leave_room_all_the_same() {
    let mut ledger = Ledger::new(200);
    let mut plan = Plan::default();
    for number in 0..300_u64 {
        let prefix = format!("10.{}.{}.1", number / 200, number % 200);
        for (name, until) in [("sshd", 1_200), ("sshd-hourly", 86_400)] {
            let new = claim(&prefix, jail(name), until + number);
            ledger.claim(&new, false, Boot(0), &mut plan);
        }
    }
    assert_eq!((ledger.len(), ledger.evicted(), ledger.refused()), (200, 100, 0));
    assert!(ledger.get(net("10.0.0.1")).is_none(), "the ban that ends soonest makes room");
    assert!(ledger.get(net("10.1.99.1")).is_some());
}

#[test]
fn a_block_list_that_fills_the_table_yields_to_a_jail_down_to_its_half() {
    let mut ledger = Ledger::new(10);
    let mut plan = Plan::default();
    for number in 0..10 {
        let listed = claim(&format!("10.0.{number}.1"), Holder::Manual, u64::MAX);
        assert_eq!(ledger.claim(&listed, false, Boot(0), &mut plan), Change::New);
    }
    let listed = claim("10.0.10.1", Holder::Manual, u64::MAX);
    let full = Change::Refused(Refusal::Full(10));
    assert_eq!(ledger.claim(&listed, false, Boot(0), &mut plan), full, "not one by hand");
    assert_eq!(ledger.refused(), 1);
    for number in 0..20 {
        let attacker = claim(&format!("192.0.{number}.1"), jail("a"), 100 + number);
        assert_eq!(ledger.claim(&attacker, false, Boot(0), &mut plan), Change::New);
    }
    let by_hand = ledger.iter().filter(|ban| ban.is_held_by(&Holder::Manual)).count();
    assert_eq!((ledger.len(), by_hand), (10, 5), "half of the room stays the operator's");
}

#[test]
fn a_ban_that_is_over_makes_room_before_a_crowd_does() {
    let mut ledger = Ledger::new(3);
    let mut plan = Plan::default();
    for (prefix, until) in [("192.0.2.1", 5), ("198.51.100.1", 50), ("198.51.100.2", 40)] {
        ledger.claim(&claim(prefix, jail("a"), until), false, Boot(0), &mut plan);
    }
    ledger.claim(&claim("203.0.113.1", jail("a"), 99), false, Boot(6), &mut plan);
    assert!(ledger.get(net("192.0.2.1")).is_none());
    ledger.claim(&claim("203.0.113.200", jail("a"), 99), false, Boot(6), &mut plan);
    assert!(ledger.get(net("198.51.100.2")).is_none(), "then the crowd's that ends soonest");
    assert_eq!(ledger.len(), 3);
}

#[test]
fn a_jail_never_bans_whom_it_trusts_as_a_proxy() {
    let mut ledger = Ledger::new(100);
    let now = Boot(1);
    let claim = |prefix: &str, holder: &Holder| Claim {
        prefix: net(prefix),
        holder: holder.clone(),
        until: Boot::NEVER,
        ports: Ports::new(),
        derived: false,
    };
    let (web, mail) = (Holder::Jail("web".into()), Holder::Jail("mail".into()));
    let mut plan = Plan::default();
    ledger.claim(&claim("203.0.113.7", &web), false, now, &mut plan);
    ledger.claim(&claim("203.0.113.7", &mail), false, now, &mut plan);
    ledger.set_proxies(&[("web".into(), vec![net("203.0.113.0/24")])], &mut plan);
    let ended: Vec<_> = plan.ended.iter().map(|ended| ended.claim.holder.clone()).collect();
    assert_eq!(ended, std::slice::from_ref(&web), "what it held ends, and nobody else's");
    // nor a network that holds one
    for prefix in ["203.0.113.8", "203.0.112.0/22"] {
        let change = ledger.claim(&claim(prefix, &web), false, now, &mut plan);
        let expected = Refusal::Protected(net("203.0.113.0/24"), Protected::JailProxy);
        assert_eq!(change, Change::Refused(expected), "{prefix}");
    }
    for (prefix, holder) in
        [("203.0.113.8", &mail), ("203.0.113.9", &Holder::Manual), ("203.0.114.1", &web)]
    {
        let change = ledger.claim(&claim(prefix, holder), false, now, &mut plan);
        assert_eq!(change, Change::New, "{prefix}");
    }
    let trusting: Vec<_> = ledger.trusting(net("203.0.113.8")).map(ToString::to_string).collect();
    assert_eq!(trusting, ["web"]);
    assert!(ledger.never_dropped().is_empty(), "others may have them banned");
}
