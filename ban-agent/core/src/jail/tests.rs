//! What a jail decides, as tables of failures in time.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{Count, Decision, Jail, Offence, Offenders, Record, Rules, rules};
use crate::{
    clock::{Boot, Now},
    filter::Failure,
    net::{PrefixSet, Translators, parse_prefix},
};

fn now(second: i64) -> Now {
    let boot = Boot(u64::try_from(second).unwrap() * 1000);
    Now { boot, wall: Timestamp::from_second(1_800_000_000 + second).unwrap() }
}

fn failure(address: &str, time: Option<i64>) -> Failure {
    Failure {
        address: Some(address.parse::<IpAddr>().unwrap()),
        id: None,
        time: time.map(|second| now(second).wall),
        fields: BTreeMap::new(),
        pattern: 0,
        success: false,
    }
}

/// A failure at `second` whose line is read at once.
fn fail(jail: &mut Jail, address: &str, second: i64) -> Decision {
    jail.offence(&failure(address, Some(second)), address.as_bytes(), now(second))
}

fn offence(decision: Decision) -> Offence {
    match decision {
        Decision::Ban(offence) => offence,
        other => panic!("no ban: {other:?}"),
    }
}

#[test]
fn bans_at_maxretry_and_starts_again() {
    let mut jail = Jail::new(&rules(3, 180));
    for round in [0, 10] {
        assert_eq!(fail(&mut jail, "192.0.2.1", round), Decision::Counted { count: 1 });
        assert_eq!(fail(&mut jail, "192.0.2.1", round + 1), Decision::Counted { count: 2 });
        assert_eq!(
            fail(&mut jail, "192.0.2.2", round + 1),
            Decision::Counted { count: 1 + u32::from(round > 0) }
        );
        let offence = offence(fail(&mut jail, "192.0.2.1", round + 2));
        assert_eq!(offence.prefix.to_string(), "192.0.2.1/32");
        assert_eq!((offence.failures, offence.time), (3, now(round + 2).wall));
        assert_eq!(offence.evidence.len(), 3);
    }
    let stats = jail.stats();
    assert_eq!((stats.failed, stats.failing, stats.banned), (8, 1, 2));
}

#[test]
fn maxretry_of_one_bans_at_once() {
    let mut jail = Jail::new(&rules(1, 180));
    assert_eq!(offence(fail(&mut jail, "192.0.2.1", 0)).failures, 1);
}

#[test]
fn findtime_ends() {
    let mut jail = Jail::new(&rules(2, 180));
    fail(&mut jail, "192.0.2.1", 0);
    assert_eq!(fail(&mut jail, "192.0.2.1", 180), Decision::Counted { count: 1 });
    fail(&mut jail, "192.0.2.1", 359);
    assert_eq!(jail.stats().banned, 1);
}

#[test]
fn log_time_decides_not_arrival() {
    let mut jail = Jail::new(&rules(2, 180));
    let at = now(1000);
    let read = |jail: &mut Jail, time| jail.offence(&failure("192.0.2.1", time), b"", at);
    assert_eq!(read(&mut jail, Some(819)), Decision::Old);
    assert_eq!(read(&mut jail, Some(821)), Decision::Counted { count: 1 });
    // A time in the future is now; no time is now.
    assert_eq!(offence(read(&mut jail, Some(5000))).time, at.wall);
    assert_eq!(read(&mut jail, None), Decision::Counted { count: 1 });
    assert_eq!(jail.stats().old, 1);
}

#[test]
fn ignored_addresses_never_count() {
    let mut jail = Jail::new(&rules(1, 180));
    assert_eq!(fail(&mut jail, "127.1.2.3", 0), Decision::Ignored);
    assert_eq!(fail(&mut jail, "::ffff:127.0.0.1", 0), Decision::Ignored);
    assert_eq!((jail.stats().ignored, jail.stats().failing), (2, 0));
}

#[test]
fn networks_are_counted_as_one() {
    let mut jail = Jail::new(&Rules { prefix_v6: 64, ..rules(2, 180) });
    fail(&mut jail, "2001:db8::1", 0);
    let offence = offence(fail(&mut jail, "2001:db8::2", 1));
    assert_eq!(offence.prefix.to_string(), "2001:db8::/64");
    assert_eq!(offence.address.to_string(), "2001:db8::2/128");
}

#[test]
fn a_network_with_an_ignored_address_is_not_banned_whole() {
    let ignoreip = vec![parse_prefix("2001:db8::1").unwrap()];
    let mut jail = Jail::new(&Rules { prefix_v6: 64, ignoreip, ..rules(1, 180) });
    assert_eq!(fail(&mut jail, "2001:db8::1", 0), Decision::Ignored);
    let offence = offence(fail(&mut jail, "2001:db8::2", 0));
    assert_eq!(offence.prefix.to_string(), "2001:db8::2/128");
}

#[test]
fn what_is_no_address_bans_only_a_prefix_of_sane_size() {
    let mut jail = Jail::new(&rules(1, 180));
    for (id, banned) in [
        (Some("198.51.100.0/24"), Some("198.51.100.0/24")),
        (Some("2001:db8::/32"), Some("2001:db8::/32")),
        (Some("0.0.0.0/0"), None),
        (Some("::/0"), None),
        (Some("126.0.0.0/7"), None),
        (Some("session 7"), None),
        (None, None),
    ] {
        let failure = Failure { address: None, id: id.map(str::to_owned), ..failure("::", None) };
        let decision = jail.offence(&failure, b"", now(0));
        assert_eq!(
            banned.map(str::to_owned),
            matches!(decision, Decision::Ban(_)).then(|| offence(decision).prefix.to_string()),
            "{id:?}"
        );
    }
}

#[test]
fn evidence_is_bounded() {
    let mut jail = Jail::new(&Rules { maxmatches: 2, ..rules(3, 180) });
    let hostile = vec![b'\x1b'; 100_000];
    for line in [b"one".as_slice(), b"two", &hostile] {
        if let Decision::Ban(offence) = jail.offence(&failure("192.0.2.1", None), line, now(0)) {
            assert_eq!(offence.evidence[0].as_ref(), b"two");
            assert_eq!((offence.evidence.len(), offence.evidence[1].len()), (2, 512));
        }
    }
    assert_eq!(jail.stats().banned, 1);
}

#[test]
fn who_came_once_does_not_push_out_who_came_before() {
    let mut jail = Jail::new(&Rules { max_tracked: 2, ..rules(2, 180) });
    fail(&mut jail, "192.0.2.1", 0);
    fail(&mut jail, "192.0.2.2", 1);
    assert_eq!(fail(&mut jail, "192.0.2.3", 2), Decision::Counted { count: 1 });
    assert_eq!((jail.stats().evicted, jail.stats().failing), (1, 2));
    // who comes again does, and counts from then on
    assert_eq!(fail(&mut jail, "192.0.2.3", 3), Decision::Counted { count: 1 });
    assert!(matches!(fail(&mut jail, "192.0.2.3", 3), Decision::Ban(_)));
    assert!(matches!(fail(&mut jail, "192.0.2.2", 3), Decision::Ban(_)));
    assert_eq!(fail(&mut jail, "192.0.2.1", 3), Decision::Counted { count: 1 });
    // one who is banned at once needs no place
    let mut jail = Jail::new(&Rules { max_tracked: 1, ..rules(1, 180) });
    assert!(matches!(fail(&mut jail, "192.0.2.1", 0), Decision::Ban(_)));
}

#[test]
fn idle_suspects_are_forgotten_by_the_way() {
    let mut jail = Jail::new(&rules(2, 180));
    for host in 0..100 {
        fail(&mut jail, &format!("192.0.2.{host}"), 0);
    }
    for host in 100..150 {
        fail(&mut jail, &format!("192.0.2.{host}"), 200);
    }
    assert_eq!(jail.stats().failing, 50);
    jail.forget_idle(now(400));
    assert_eq!((jail.stats().failing, jail.stats().evicted), (0, 0));
}

#[test]
fn forgiving_starts_the_count_again() {
    let mut jail = Jail::new(&rules(2, 180));
    fail(&mut jail, "192.0.2.1", 0);
    fail(&mut jail, "192.0.3.1", 0);
    jail.forgive(Some(parse_prefix("192.0.2.0/24").unwrap()));
    assert_eq!(fail(&mut jail, "192.0.2.1", 1), Decision::Counted { count: 1 });
    assert!(matches!(fail(&mut jail, "192.0.3.1", 1), Decision::Ban(_)));
}

#[test]
fn neighbours_are_counted_one_by_one() {
    let mut jail = Jail::new(&Rules { prefix_v6: 64, ..rules(2, 600) });
    let networks: PrefixSet = [parse_prefix("2001:db8::/64").unwrap()].into_iter().collect();
    jail.set_neighbours(Arc::new(networks));
    // different hosts of the host's own network, and of an attacker's
    fail(&mut jail, "2001:db8::1", 0);
    assert_eq!(fail(&mut jail, "2001:db8::2", 1), Decision::Counted { count: 1 });
    let own = offence(fail(&mut jail, "2001:db8::2", 2));
    assert_eq!(own.prefix, parse_prefix("2001:db8::2").unwrap());
    fail(&mut jail, "2001:db8:bad::1", 3);
    let other = offence(fail(&mut jail, "2001:db8:bad::2", 4));
    assert_eq!(other.prefix, parse_prefix("2001:db8:bad::/64").unwrap());
}

#[test]
fn a_later_run_counts_on() {
    let mut jail = Jail::new(&rules(3, 180));
    jail.resume(&[]);
    for (host, times) in [(1, 2), (2, 1), (3, 3)] {
        for second in 0..times {
            fail(&mut jail, &format!("192.0.2.{host}"), second);
        }
    }
    let mut changes = jail.take_changes();
    assert!(jail.take_changes().is_empty());
    changes.sort_by_key(|(prefix, _)| *prefix);
    let counts: Vec<_> = changes.iter().map(|(_, count)| count.map(|c| c.failures)).collect();
    assert_eq!(counts, [Some(2), Some(1), None], "who was banned starts again");
    let kept: Vec<_> =
        changes.iter().filter_map(|(prefix, count)| Some((*prefix, (*count)?))).collect();
    let mut later = Jail::new(&rules(3, 180));
    later.resume(&kept);
    assert!(matches!(fail(&mut later, "192.0.2.1", 4), Decision::Ban(_)));
    assert_eq!(fail(&mut later, "192.0.2.2", 4), Decision::Counted { count: 2 });
    // but not for ever
    assert_eq!(fail(&mut later, "192.0.2.2", 400), Decision::Counted { count: 1 });
}

/// Whom a jail with `prefix_v6 = 64` bans for one failure.
#[test]
fn strangers_behind_a_translator_are_counted_apart() {
    let own = [Translators::parse("2001:db8:64::/96").unwrap()];
    let rules = Rules {
        prefix_v6: 64,
        translators: Translators::new(&own),
        ignoreip: vec![parse_prefix("198.51.100.9").unwrap()],
        ..rules(1, 600)
    };
    for (address, expected) in [
        ("64:ff9b::c633:6401", Some("64:ff9b::c633:6401/128")),
        ("2001:db8:64::c633:6401", Some("2001:db8:64::c633:6401/128")),
        ("2001:0:53aa:64c:0:2af9:39cc:9bfe", Some("2001:0:53aa:64c:0:2af9:39cc:9bfe/128")),
        ("2002:c633:6401:1::5", Some("2002:c633:6401::/48")),
        ("2001:db8:65::c633:6401", Some("2001:db8:65::/64")),
        // who is ignored is ignored behind a translator
        ("64:ff9b::c633:6409", None),
        ("2001:db8:64::c633:6409", None),
    ] {
        let decision = fail(&mut Jail::new(&rules), address, 0);
        let banned = match decision {
            Decision::Ban(offence) => Some(offence.prefix.to_string()),
            _ => None,
        };
        assert_eq!(banned.as_deref(), expected, "{address}");
    }
    for (id, banned) in [("64:ff9b::/64", false), ("2001::/32", false), ("2001:db8:5::/48", true)] {
        let failure = Failure { address: None, id: Some(id.to_owned()), ..failure("::", Some(0)) };
        let decision = Jail::new(&rules).offence(&failure, b"", now(0));
        assert_eq!(matches!(decision, Decision::Ban(_)), banned, "{id}");
    }
}

#[test]
fn a_later_run_goes_on_with_those_who_failed_last() {
    let counts: Vec<_> = (0..10)
        .map(|host| {
            let last = now(i64::from(host)).wall.as_millisecond();
            let count = Count { failures: 2, first: last, last };
            (parse_prefix(&format!("192.0.2.{host}")).unwrap(), count)
        })
        .collect();
    let mut jail = Jail::new(&Rules { max_tracked: 3, ..rules(3, 180) });
    jail.resume(&counts);
    assert_eq!(jail.stats().failing, 3);
    assert_eq!(fail(&mut jail, "192.0.2.1", 10), Decision::Counted { count: 1 });
    assert!(matches!(fail(&mut jail, "192.0.2.9", 10), Decision::Ban(_)));
    let gone = jail.take_changes().into_iter().filter(|(_, count)| count.is_none()).count();
    assert_eq!(gone, 8, "who is not counted any more goes from the record: seven, and the banned");
}

#[test]
fn a_lower_bound_is_reached_at_once() {
    let mut jail = Jail::new(&rules(5, 180));
    for host in 0..100 {
        fail(&mut jail, &format!("192.0.2.{host}"), host);
    }
    jail.set_rules(&Rules { max_tracked: 10, ..rules(5, 180) });
    assert_eq!((jail.stats().failing, jail.stats().evicted), (10, 90));
    assert_eq!(fail(&mut jail, "192.0.2.99", 100), Decision::Counted { count: 2 });
}

/// As fail2ban does it: observer.py, `failureFound`.
#[test]
fn a_known_offender_is_banned_again_after_fewer_failures() {
    let increment = crate::jail::Increment {
        factor: 1.0,
        multipliers: Vec::new(),
        formula: None,
        maxtime: None,
        rndtime: Duration::ZERO,
        overalljails: false,
    };
    let rules = Rules { increment: Some(increment), ..rules(5, 600) };
    let former = Offenders::default();
    let mut jail = Jail::new(&rules);
    jail.remember(former.clone());
    let mut second = 0;
    let mut failures = |jail: &mut Jail, address: &str| {
        for count in 1.. {
            second += 1;
            if let Decision::Ban(offence) = fail(jail, address, second) {
                former.add("test", offence.prefix, Record { bans: 1, last: offence.time });
                return count;
            }
        }
        0
    };
    let needed = [1, 2, 3, 4, 5].map(|_| failures(&mut jail, "192.0.2.1"));
    assert_eq!(needed, [5, 3, 2, 1, 1]);
    assert_eq!(failures(&mut jail, "192.0.2.2"), 5, "another one is not known");
    let mut plain = Jail::new(&Rules { increment: None, ..rules });
    plain.remember(former.clone());
    assert_eq!(fail(&mut plain, "192.0.2.1", 900), Decision::Counted { count: 1 });
}

#[test]
fn an_id_is_counted_whatever_address_it_comes_from() {
    let of = |address: Option<&str>, id: &str| Failure {
        address: address.map(|address| address.parse().unwrap()),
        id: Some(id.to_owned()),
        ..failure("::", Some(0))
    };
    let mut jail =
        Jail::new(&Rules { ignoreip: vec![parse_prefix("192.0.2.9").unwrap()], ..rules(3, 180) });
    let mut fail = |failure: &Failure| jail.offence(failure, b"line", now(0));
    // three addresses, one account: the address that brought the last failure goes
    assert_eq!(fail(&of(Some("192.0.2.1"), "bob")), Decision::Counted { count: 1 });
    assert_eq!(fail(&of(Some("192.0.2.1"), "eve")), Decision::Counted { count: 1 });
    assert_eq!(fail(&of(Some("192.0.2.9"), "bob")), Decision::Ignored);
    assert_eq!(fail(&of(Some("192.0.2.2"), "bob")), Decision::Counted { count: 2 });
    let banned = offence(fail(&of(Some("192.0.2.3"), "bob")));
    assert_eq!((banned.prefix.to_string().as_str(), banned.failures), ("192.0.2.3/32", 3));
    assert_eq!((banned.fields["fid"].as_str(), banned.evidence.len()), ("bob", 3));

    // an id alone: nothing to be dropped, something to be told
    let alone = of(None, "session 7");
    assert_eq!(fail(&alone), Decision::Counted { count: 1 });
    assert_eq!(fail(&alone), Decision::Counted { count: 2 });
    let Decision::Named(named) = fail(&alone) else { panic!("not the one too many") };
    assert_eq!((&*named.id, named.failures, &*named.fields["fid"]), ("session 7", 3, "session 7"));
    // what is too long is told by its beginning, between characters
    let long = "\u{e4}".repeat(1000);
    assert_eq!(fail(&of(None, &long)), Decision::Counted { count: 1 });
    assert_eq!(fail(&of(None, &(long + "x"))), Decision::Counted { count: 2 });
    assert_eq!(fail(&of(None, "")), Decision::Ignored);
    // none of them is written down
    assert!(jail.take_changes().is_empty());
}

/// A failure of `address` with this field.
fn try_value(jail: &mut Jail, address: &str, field: &str, value: &str, second: i64) -> Decision {
    let mut failure = failure(address, Some(second));
    failure.fields.insert(field.to_owned(), value.to_owned());
    jail.offence(&failure, value.as_bytes(), now(second))
}

#[test]
fn different_values_are_counted_beside_or_instead_of_failures() {
    let distinct = BTreeMap::from([("path".into(), 9), ("user".into(), 3)]);
    let mut jail = Jail::new(&Rules { distinct, maxretry: None, ..rules(1, 180) });
    // any number of tries of one name, none, or two that come and go
    for (second, user) in (0..100).zip(["a", "a", ""].into_iter().cycle()) {
        let decision = try_value(&mut jail, "192.0.2.1", "user", user, second);
        assert!(matches!(decision, Decision::Counted { .. }));
    }
    assert!(matches!(
        try_value(&mut jail, "192.0.2.2", "user", "b", 100),
        Decision::Counted { .. }
    ));
    try_value(&mut jail, "192.0.2.1", "user", "b", 100);
    let last = offence(try_value(&mut jail, "192.0.2.1", "user", "c", 101));
    assert_eq!((last.failures, &*last.fields["distinct"]), (102, "user"));
    // it starts again, and what is older than findtime is gone
    for (user, second) in [("a", 101), ("b", 102), ("c", 282), ("a", 283)] {
        let decision = try_value(&mut jail, "192.0.2.1", "user", user, second);
        assert!(matches!(decision, Decision::Counted { .. }), "{user}");
    }
    offence(try_value(&mut jail, "192.0.2.1", "user", "d", 284));
    // both
    jail.set_rules(&Rules { maxretry: Some(2), ..jail.rules().clone() });
    try_value(&mut jail, "192.0.2.3", "user", "a", 300);
    let last = offence(try_value(&mut jail, "192.0.2.3", "user", "a", 300));
    assert!(!last.fields.contains_key("distinct"));
}

#[test]
fn ports_are_counted_by_the_name_of_their_tag() {
    let distinct = BTreeMap::from([("port".into(), 3)]);
    let mut jail = Jail::new(&Rules { distinct, maxretry: None, ..rules(1, 180) });
    for port in ["22", "23"] {
        let decision = try_value(&mut jail, "192.0.2.1", "fport", port, 0);
        assert!(matches!(decision, Decision::Counted { .. }));
    }
    offence(try_value(&mut jail, "192.0.2.1", "fport", "25", 0));
}

#[test]
fn failures_counted_by_a_field_ban_the_addresses_behind_it() {
    let rules = Rules {
        maxretry: None,
        distinct: BTreeMap::from([("address".into(), 3)]),
        count_by: Some("user".into()),
        prefix_v6: 64,
        ..rules(1, 180)
    };
    let mut jail = Jail::new(&rules);
    let banned = |decision: Decision| {
        let mut all: Vec<_> =
            decision.offences().iter().map(|one| one.prefix.to_string()).collect();
        all.sort();
        all
    };
    let none: [String; 0] = [];
    for (address, user, second, expected) in [
        ("192.0.2.1", "root", 0, &[] as &[&str]),
        ("192.0.2.9", "bob", 0, &[]),
        ("192.0.2.2", "root", 1, &[]),
        ("192.0.2.2", "root", 2, &[]),
        // never who is ignored, and who fails for nobody
        ("127.0.0.1", "root", 3, &[]),
        ("192.0.2.8", "", 3, &[]),
        ("2001:db8::1", "root", 4, &["192.0.2.1/32", "192.0.2.2/32", "2001:db8::/64"]),
        ("192.0.2.3", "root", 5, &[]),
        ("192.0.2.4", "root", 6, &[]),
    ] {
        assert_eq!(
            banned(try_value(&mut jail, address, "user", user, second)),
            expected,
            "{address}"
        );
    }
    // one who was let go is not banned for what he did before
    jail.forgive(Some(parse_prefix("192.0.2.3").unwrap()));
    let last = try_value(&mut jail, "192.0.2.5", "user", "root", 7);
    assert_eq!(banned(last), ["192.0.2.4/32", "192.0.2.5/32"]);
    // the memory of one name is bounded
    jail.set_rules(&Rules { distinct: BTreeMap::new(), maxretry: Some(2000), ..rules });
    for number in 0..2000_u32 {
        let address = format!("198.18.{}.{}", number / 256, number % 256);
        let decision = try_value(&mut jail, &address, "user", "root", 10);
        match number {
            1999 => assert_eq!(banned(decision).len(), 256),
            _ => assert_eq!(banned(decision), none, "{number}"),
        }
    }
}

#[test]
fn a_user_who_comes_in_is_forgiven_his_own_failures_and_nobody_elses() {
    let filter = crate::filter::Spec {
        successregex: vec!["^in <F-USER>\\w+</F-USER> <ADDR>$".to_owned()],
        ..Default::default()
    };
    let filter = Arc::new(filter);
    let distinct = BTreeMap::from([("user".into(), 3)]);
    let mut jail = Jail::new(&Rules { filter, distinct, maxretry: Some(4), ..rules(4, 180) });
    let come_in = |jail: &mut Jail, address: &str, user: &str, second: i64| {
        let mut failure = failure(address, Some(second));
        failure.success = true;
        failure.fields.insert("user".to_owned(), user.to_owned());
        jail.offence(&failure, b"", now(second))
    };
    let mistype = |jail: &mut Jail, user: &str, second: i64| {
        try_value(jail, "192.0.2.1", "user", user, second)
    };
    for second in 0..20 {
        for _ in 0..3 {
            assert!(matches!(mistype(&mut jail, "bob", second), Decision::Counted { .. }));
        }
        let forgiven = come_in(&mut jail, "192.0.2.1", "bob", second);
        assert_eq!(forgiven, Decision::Forgiven { count: 3 });
    }
    assert_eq!((jail.stats().forgiven, jail.stats().failing), (60, 0));
    // an account of one's own buys no guesses: at others' names, from elsewhere, without a name
    mistype(&mut jail, "eve", 30);
    mistype(&mut jail, "root", 30);
    assert_eq!(come_in(&mut jail, "192.0.2.1", "eve", 31), Decision::Forgiven { count: 1 });
    assert_eq!(come_in(&mut jail, "192.0.2.1", "eve", 31), Decision::Forgiven { count: 0 });
    assert_eq!(come_in(&mut jail, "192.0.2.9", "root", 31), Decision::Forgiven { count: 0 });
    assert_eq!(come_in(&mut jail, "192.0.2.1", "", 31), Decision::Forgiven { count: 0 });
    assert_eq!(mistype(&mut jail, "root", 32), Decision::Counted { count: 2 });
    mistype(&mut jail, "eve", 32);
    assert_eq!(come_in(&mut jail, "192.0.2.1", "eve", 33), Decision::Forgiven { count: 1 });
    mistype(&mut jail, "root", 33);
    assert_eq!(offence(mistype(&mut jail, "root", 34)).failures, 4);
}

proptest::proptest! {
    /// Against a plain list of failures within one findtime.
    #[test]
    fn forgiving_is_as_if_that_user_had_not_failed(
        steps in proptest::collection::vec((0u8..4, proptest::bool::ANY), 1..60),
    ) {
        let filter = crate::filter::Spec { successregex: vec![String::new()], ..Default::default() };
        let filter = Arc::new(filter);
        let mut jail = Jail::new(&Rules { filter, ..rules(6, 180) });
        let mut model: Vec<u8> = Vec::new();
        for (user, success) in steps {
            let mut failure = failure("192.0.2.1", Some(0));
            failure.success = success;
            failure.fields.insert("user".to_owned(), user.to_string());
            let decision = jail.offence(&failure, b"", now(0));
            let before = model.len();
            if success {
                model.retain(|known| *known != user);
                let count = u32::try_from(before - model.len()).unwrap();
                proptest::prop_assert_eq!(decision, Decision::Forgiven { count });
            } else {
                model.push(user);
                let banned = matches!(decision, Decision::Ban(_));
                proptest::prop_assert_eq!(banned, model.len() == 6);
                if banned {
                    model.clear();
                }
            }
        }
    }
}

/// Of `sources` that fail `times` times each, how many a jail bans that remembers so many; each that
/// is banned comes no more. None is banned below maxretry.
fn banned_of(sources: u32, times: usize, order: &str, max_tracked: usize) -> usize {
    let mut jail = Jail::new(&Rules { max_tracked, ..rules(3, 3600) });
    let key = std::hash::RandomState::new();
    let chance = |n: u32, round: usize| std::hash::BuildHasher::hash_one(&key, (n, round));
    let rounds = (0..times).flat_map(|round| (0..sources).map(move |n| (round, n)));
    let mut turns: Vec<_> = rounds.collect();
    match order {
        "cyclic" => {}
        "shuffled" => turns.sort_by_key(|(round, n)| (*round, chance(*n, *round))),
        "bursty" => turns.sort_by_key(|(round, n)| (round / 2, chance(*n, round / 2), *round)),
        _ => turns.sort_by_key(|(round, n)| chance(*n, *round)),
    }
    let mut counts = std::collections::HashMap::<u32, Option<u32>>::new();
    for (_, n) in turns {
        let Some(count) = counts.entry(n).or_insert(Some(0)) else { continue };
        *count += 1;
        let address = IpAddr::from((0x0c00_0000 + 97 * n).to_be_bytes());
        let failure = Failure { address: Some(address), ..failure("::", Some(0)) };
        if let Decision::Ban(offence) = jail.offence(&failure, b"", now(0)) {
            assert!(*count >= 3 && offence.failures == 3, "{order}: {count}");
            counts.insert(n, None);
        }
        assert!(jail.stats().failing <= max_tracked);
    }
    counts.values().filter(|count| count.is_none()).count()
}

#[test]
fn no_order_of_attackers_has_everybody_forgotten() {
    for order in ["cyclic", "shuffled", "bursty", "random"] {
        assert_eq!(banned_of(200, 10, order, 200), 200, "{order}: there is room for all");
        // a place bans four in ten rounds: three rounds each, and the next begins in the last
        for sources in [300, 600] {
            let banned = banned_of(sources, 10, order, 200);
            assert!(banned * 100 >= sources as usize * 95, "{order}: {banned} of {sources}");
        }
        let banned = banned_of(3000, 10, order, 200);
        assert!(banned >= 600, "{order}: {banned}, where 800 would be all that there is room for");
    }
}
