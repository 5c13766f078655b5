//! The frame table: description, frame, expected verdict, by the real program through
//! `BPF_PROG_TEST_RUN`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::net::{Ipv4Addr, Ipv6Addr};

use ban_agent::{
    clock::{Boot, Now},
    dataplane::DataPlane as _,
    ledger::{Enforced, Op},
    net::{IpNet, parse_ports, parse_prefix},
};
use ban_common::Verdict::{self, *};
use tests::{
    bench::{Bench, all, scoped},
    packet::{FRAGMENT, Frame, ICMP, TCP, UDP},
    require_root,
};

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn check(bench: &mut Bench, table: &[(&str, Frame, Verdict)]) {
    let mut wrong = Vec::new();
    for (what, frame, expected) in table {
        let found = bench.judge(frame);
        if found != *expected {
            wrong.push(format!("{what}: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn frames() {
    require_root!("the frame table");
    let mut bench = Bench::new("frames", 4_096);
    let bad4 = v4("203.0.113.7");
    let bad6 = v6("2001:db8:bad::7");
    bench.ban("203.0.113.7");
    bench.ban("2001:db8:bad::7");
    let eth = Frame::new;
    check(
        &mut bench,
        &[
            ("banned IPv4", eth().v4(bad4, TCP).port(80), Drop),
            ("banned IPv4, header only", eth().v4(bad4, ICMP), Drop),
            ("IPv4 from elsewhere", eth().v4(v4("198.51.100.1"), TCP).port(80), Clear),
            ("IPv4 from the same /24", eth().v4(v4("203.0.113.8"), TCP).port(80), Unbanned),
            ("banned IPv6", eth().v6(bad6, TCP).port(80), Drop),
            ("banned IPv6, header only", eth().v6(bad6, 59), Drop),
            ("IPv6 from elsewhere", eth().v6(v6("2001:db8:900d::7"), TCP).port(80), Clear),
            ("IPv6 from the same /48", eth().v6(v6("2001:db8:bad::8"), TCP).port(80), Unbanned),
            ("only an Ethernet header", eth().raw(0x0800, &[]), Malformed),
            ("IPv4 cut inside the header", eth().v4(bad4, TCP).cut(33), Malformed),
            ("IPv6 cut inside the header", eth().v6(bad6, TCP).cut(53), Malformed),
            ("IPv6 cut in the middle", eth().v6(bad6, TCP).cut(40), Malformed),
            ("ARP", eth().raw(0x0806, &[0; 28]), Other),
            ("ARP, padded", eth().raw(0x0806, &[0; 46]), Other),
            ("LLDP", eth().raw(0x88cc, &[0; 60]), Other),
            ("802.3 length instead of a type", eth().raw(0x0040, &[0xaa; 64]), Other),
            ("MPLS", eth().raw(0x8847, &[0; 60]), Other),
            ("VLAN, banned IPv4", eth().tag(0x8100, 1234).v4(bad4, TCP).port(80), Drop),
            ("VLAN, banned IPv6", eth().tag(0x8100, 1234).v6(bad6, TCP).port(80), Drop),
            ("VLAN, other IPv4", eth().tag(0x8100, 1).v4(v4("198.51.100.1"), TCP).port(80), Clear),
            ("VLAN, other IPv6", eth().tag(0x8100, 1).v6(v6("2001:db8::1"), TCP).port(80), Clear),
            ("VLAN with priority", eth().tag(0x8100, 0xe001).v4(bad4, UDP).port(53), Drop),
            ("802.1ad", eth().tag(0x88a8, 7).v4(bad4, TCP).port(80), Drop),
            ("QinQ", eth().tag(0x88a8, 7).tag(0x8100, 9).v4(bad4, TCP).port(80), Drop),
            ("QinQ, IPv6", eth().tag(0x88a8, 7).tag(0x8100, 9).v6(bad6, TCP).port(80), Drop),
            (
                "QinQ, old EtherType",
                eth().tag(0x9100, 7).tag(0x8100, 9).v4(bad4, TCP).port(80),
                Drop,
            ),
            ("VLAN in VLAN", eth().tag(0x8100, 7).tag(0x8100, 9).v4(bad4, TCP).port(80), Drop),
            (
                "three VLANs",
                eth().tag(0x88a8, 1).tag(0x8100, 2).tag(0x8100, 3).v4(bad4, TCP).port(80),
                Drop,
            ),
            ("VLAN, cut inside IPv4", eth().tag(0x8100, 1).v4(bad4, TCP).cut(37), Malformed),
            ("VLAN, cut inside IPv6", eth().tag(0x8100, 1).v6(bad6, TCP).cut(57), Malformed),
            ("VLAN and nothing else", eth().tag(0x8100, 1), Malformed),
            ("VLAN, ARP", eth().tag(0x8100, 1).raw(0x0806, &[0; 46]), Other),
            (
                "QinQ, cut after the tags",
                eth().tag(0x88a8, 7).tag(0x8100, 9).raw(0x0800, &[0x45; 12]),
                Malformed,
            ),
            ("IPv4 with options", eth().v4_with(bad4, TCP, 15, 0).port(80), Drop),
            ("IPv4, fragment in the middle", eth().v4_with(bad4, TCP, 5, 100).port(80), Drop),
            (
                "IPv6 with extensions",
                eth().v6(bad6, 0).extension(60, 1).extension(TCP, 0).port(80),
                Drop,
            ),
            ("IPv6, last fragment", eth().v6(bad6, FRAGMENT).fragment(UDP, 100).port(53), Drop),
            ("source all zero", eth().v4(Ipv4Addr::UNSPECIFIED, UDP).port(67), Clear),
            ("source broadcast", eth().v4(Ipv4Addr::BROADCAST, UDP).port(67), Clear),
        ],
    );
}

/// What Linux takes off before it reads a packet hides nobody: tested against the real stack in
/// `system_vlan`.
#[test]
fn priority_tags() {
    require_root!("priority tags");
    let mut bench = Bench::new("tags", 64);
    let (bad4, bad6) = (v4("203.0.113.7"), v6("2001:db8:bad::7"));
    bench.ban("203.0.113.7");
    bench.ban("2001:db8:bad::7");
    let tagged = |kind, count| (0..count).fold(Frame::new(), |frame, _| frame.tag(kind, 0xe000));
    for kind in [0x8100, 0x88a8, 0x9100] {
        for count in [1, 2, 3, 4, 5, 8, 11, 64, 366, 498] {
            let to4 = |from| tagged(kind, count).v4(from, TCP).port(80);
            let to6 = |from| tagged(kind, count).v6(from, TCP).port(80);
            let what = format!("{count} tags {kind:#x}");
            check(
                &mut bench,
                &[
                    (&what, to4(bad4), Drop),
                    (&what, to6(bad6), Drop),
                    (&what, to4(v4("198.51.100.1")), Clear),
                    (&what, to6(v6("2001:db8:900d::1")), Clear),
                    (&what, tagged(kind, count).raw(0x0806, &[0; 46]), Other),
                    (&what, tagged(kind, count).v4(bad4, TCP).cut(33 + 4 * count), Malformed),
                    (&what, tagged(kind, count), Malformed),
                ],
            );
        }
    }
    let mixed = Frame::new().tag(0x88a8, 0).tag(0x8100, 0).tag(0x8100, 5).tag(0x8100, 0);
    let beyond = tagged(0x8100, 520).v4(bad4, TCP).port(80);
    check(
        &mut bench,
        &[
            ("a VLAN between priority tags", mixed.v4(bad4, TCP).port(80), Drop),
            ("more tags than are read", beyond, Malformed),
        ],
    );
    let ports = scoped(&["tcp/22"]);
    bench.apply(&[Op::Set(parse_prefix("203.0.113.7").unwrap(), ports)]);
    let to = |port| tagged(0x8100, 5).v4(bad4, TCP).port(port);
    check(&mut bench, &[("a banned port", to(22), Drop), ("another one", to(23), OtherPort)]);
}

#[test]
fn ports() {
    require_root!("port scopes");
    let mut bench = Bench::new("ports", 4_096);
    let bad4 = v4("203.0.113.7");
    let bad6 = v6("2001:db8:bad::7");
    let rules = scoped(&["tcp/22", "tcp/80,443", "udp/1000-2000"]);
    bench.apply(&[
        Op::Set(parse_prefix("203.0.113.7").unwrap(), rules.clone()),
        Op::Set(parse_prefix("2001:db8:bad::/64").unwrap(), rules),
    ]);
    let eth = Frame::new;
    let chain = |first: u8, n: usize, port: u16| {
        let mut frame = eth().v6(bad6, first);
        for left in (0..n).rev() {
            frame = frame.extension(if left == 0 { TCP } else { 60 }, 0);
        }
        frame.port(port)
    };
    let ext_to = |n: usize, port: u16| chain(60, n, port);
    let ext = |n: usize| ext_to(n, 22);
    let hop_by_hop = |more: usize| chain(0, 1 + more, 22);
    let long_chain = || eth().v6(bad6, 60).extension(60, 255).extension(TCP, 0).port(22);
    check(
        &mut bench,
        &[
            ("tcp/22", eth().v4(bad4, TCP).port(22), Drop),
            ("tcp/443", eth().v4(bad4, TCP).port(443), Drop),
            ("tcp/81", eth().v4(bad4, TCP).port(81), OtherPort),
            ("udp/22", eth().v4(bad4, UDP).port(22), OtherPort),
            ("udp/999", eth().v4(bad4, UDP).port(999), OtherPort),
            ("udp/1000", eth().v4(bad4, UDP).port(1000), Drop),
            ("udp/2000", eth().v4(bad4, UDP).port(2000), Drop),
            ("udp/2001", eth().v4(bad4, UDP).port(2001), OtherPort),
            ("icmp", eth().v4(bad4, ICMP).port(22), OtherPort),
            ("options before the ports", eth().v4_with(bad4, TCP, 15, 0).port(22), Drop),
            ("a header length below 5", eth().v4_with(bad4, TCP, 4, 0).port(22), Drop),
            ("first fragment", eth().v4_with(bad4, TCP, 5, 0x2000).port(22), Drop),
            ("later fragment", eth().v4_with(bad4, TCP, 5, 0x2001).port(22), Fragment),
            ("cut before the ports", eth().v4(bad4, TCP).port(22).cut(37), Drop),
            ("cut inside the options", eth().v4_with(bad4, TCP, 15, 0).cut(60), Drop),
            ("VLAN", eth().tag(0x8100, 5).v4(bad4, TCP).port(22), Drop),
            ("VLAN, other port", eth().tag(0x8100, 5).v4(bad4, TCP).port(23), OtherPort),
            ("IPv6", eth().v6(bad6, TCP).port(22), Drop),
            ("IPv6, other port", eth().v6(bad6, TCP).port(23), OtherPort),
            ("QinQ, IPv6", eth().tag(0x88a8, 1).tag(0x8100, 2).v6(bad6, TCP).port(22), Drop),
            ("one extension", ext(1), Drop),
            ("six extensions", ext(6), Drop),
            ("seven extensions cannot be followed: as if to the port", ext(7), Drop),
            ("eight extensions", ext(8), Drop),
            ("thirty extensions", ext(30), Drop),
            ("thirty extensions, to no banned port", ext_to(30, 23), Drop),
            ("six extensions, to no banned port", ext_to(6, 23), OtherPort),
            ("hop-by-hop and six more", hop_by_hop(6), Drop),
            ("hop-by-hop and five more", hop_by_hop(5), Drop),
            ("an extension that reaches beyond what is read", long_chain(), Drop),
            (
                "first fragment, cut before the ports",
                eth().v6(bad6, FRAGMENT).fragment(TCP, 0),
                Drop,
            ),
            ("ESP has no ports", eth().v6(bad6, 50).raw_bytes(&[7; 64]), OtherPort),
            ("ESP in IPv4", eth().v4(bad4, 50).raw_bytes(&[7; 64]), OtherPort),
            ("no next header", eth().v6(bad6, 59), OtherPort),
            ("a protocol that nobody knows", eth().v6(bad6, 253).raw_bytes(&[7; 64]), OtherPort),
            ("an extension that is not there", eth().v6(bad6, 60), Drop),
            (
                "HIP is no chain that Linux follows",
                eth().v6(bad6, 139).extension(TCP, 0).port(22),
                OtherPort,
            ),
            ("a long extension", eth().v6(bad6, 0).extension(TCP, 30).port(22), Drop),
            (
                "authentication header",
                eth().v6(bad6, 51).extension(TCP, 2).port(22).cut(100),
                OtherPort,
            ),
            ("IPv6, first fragment", eth().v6(bad6, FRAGMENT).fragment(TCP, 0).port(22), Drop),
            ("IPv6, later fragment", eth().v6(bad6, FRAGMENT).fragment(TCP, 9).port(22), Fragment),
            ("IPv6, cut in an extension", eth().v6(bad6, 0).extension(TCP, 3).cut(55), Drop),
            ("unclear, but not banned", eth().v6(v6("2001:db8:bad:1::7"), 60), Unbanned),
        ],
    );
}

#[test]
fn scopes_and_deadlines_side_by_side() {
    require_root!("deadlines");
    let mut bench = Bench::new("deadlines", 4_096);
    let now = Now::read();
    let past = Boot(now.boot.0 - 1_000);
    let future = now.boot.plus(3_600_000);
    let prefix = |text: &str| parse_prefix(text).unwrap();
    let ports = parse_ports("tcp/22").unwrap();
    let both = |all, scoped| Enforced { all, scoped, ports: ports.clone() };
    bench.apply(&[
        Op::Set(prefix("203.0.113.1"), all(past)),
        Op::Set(prefix("203.0.113.2"), all(future)),
        Op::Set(prefix("203.0.113.3"), both(past, future)),
        Op::Set(prefix("203.0.113.4"), both(future, past)),
        Op::Set(prefix("203.0.113.5"), both(past, past)),
        Op::Set(prefix("203.0.113.6"), all(Boot::NEVER)),
    ]);
    let to = |last, port| Frame::new().v4(Ipv4Addr::new(203, 0, 113, last), TCP).port(port);
    check(
        &mut bench,
        &[
            ("over", to(1, 22), Expired),
            ("live", to(2, 22), Drop),
            ("ports live, port", to(3, 22), Drop),
            ("ports live, other port", to(3, 80), OtherPort),
            ("all live", to(4, 80), Drop),
            ("both over", to(5, 22), Expired),
            ("for ever", to(6, 22), Drop),
        ],
    );
    let held = bench.xdp.held().unwrap();
    let third = held.iter().find(|held| held.prefix == prefix("203.0.113.3")).unwrap();
    assert_eq!(third.enforced.ports, ports);
    let late = third.enforced.scoped.0 - future.0;
    assert!(late <= 10, "a deadline moves by less than a tick, not by {late} ms");
}

#[test]
fn prefixes_nest() {
    require_root!("prefixes");
    let mut bench = Bench::new("nets", 4_096);
    let now = Now::read();
    let past = Boot(now.boot.0 - 1_000);
    let set = |text: &str, enforced| Op::Set(parse_prefix(text).unwrap(), enforced);
    let clear = |text: &str| Op::Clear(parse_prefix(text).unwrap());
    let from4 = |text: &str| Frame::new().v4(v4(text), TCP).port(80);
    let from6 = |text: &str| Frame::new().v6(v6(text), TCP).port(80);
    bench.apply(&[
        set("10.0.0.0/8", all(Boot::NEVER)),
        set("10.1.0.0/16", all(past)),
        set("10.1.2.0/24", scoped(&["tcp/22"])),
        set("10.1.2.3", all(past)),
        set("2001:db8::/32", all(Boot::NEVER)),
        set("2001:db8:1::/48", all(past)),
        set("2001:db8:1:2::/64", scoped(&["udp/53"])),
        set("2001:db8:1:2:3::/80", all(past)),
        set("2a00:1:2:300::/56", all(Boot::NEVER)),
        set("2a00:1:3::/48", all(Boot::NEVER)),
    ]);
    check(
        &mut bench,
        &[
            ("the outer one holds", from4("10.1.2.3"), Drop),
            ("the outer one holds next to it", from4("10.1.2.4"), Drop),
            ("outside", from4("11.0.0.1"), Clear),
            ("v6: the outer one holds", from6("2001:db8:1:2:3::9"), Drop),
            ("/56", from6("2a00:1:2:3ff::1"), Drop),
            ("beside the /56", from6("2a00:1:2:400::1"), Unbanned),
            ("/48", from6("2a00:1:3:ffff::1"), Drop),
        ],
    );
    bench.apply(&[clear("10.0.0.0/8"), clear("2001:db8::/32")]);
    check(
        &mut bench,
        &[
            ("without the outer one", from4("10.1.2.3"), Expired),
            ("beside", from4("10.1.3.1"), Expired),
            ("outside the /16", from4("10.2.0.1"), Clear),
            ("v6: without the outer one", from6("2001:db8:1:2:3::9"), Expired),
            ("v6: outside", from6("2001:db8:ffff::1"), Clear),
        ],
    );
    bench.apply(&[clear("10.1.2.3"), clear("10.1.2.0/24"), clear("2001:db8:1:2::/64")]);
    bench.apply(&[clear("10.1.0.0/16"), set("10.1.2.3", all(Boot::NEVER))]);
    check(
        &mut bench,
        &[
            ("only the inner one is left", from4("10.1.2.3"), Drop),
            ("nothing around it", from4("10.1.2.4"), Unbanned),
            ("nothing beside it", from4("10.1.3.1"), Clear),
        ],
    );
    bench.apply(&[set("0.0.0.0/0", all(Boot::NEVER)), set("::/0", all(Boot::NEVER))]);
    check(
        &mut bench,
        &[("everything", from4("9.9.9.9"), Drop), ("everything, v6", from6("fe80::1"), Drop)],
    );
    bench.apply(&[clear("0.0.0.0/0"), clear("::/0")]);
    check(
        &mut bench,
        &[("nothing", from4("9.9.9.9"), Clear), ("nothing, v6", from6("fe80::1"), Clear)],
    );
}

#[test]
fn the_allow_list_wins() {
    require_root!("the allow list");
    let mut bench = Bench::new("allow", 4_096);
    bench.ban("203.0.113.0/24");
    bench.ban("203.0.113.7");
    bench.ban("2001:db8::/32");
    let nets = |texts: &[&str]| -> Vec<IpNet> {
        texts.iter().map(|text| parse_prefix(text).unwrap()).collect()
    };
    bench.xdp.allow(&nets(&["203.0.113.7", "203.0.113.64/26", "2001:db8:1::/48"])).unwrap();
    let from4 = |text: &str| Frame::new().v4(v4(text), TCP).port(80);
    let from6 = |text: &str| Frame::new().v6(v6(text), TCP).port(80);
    check(
        &mut bench,
        &[
            ("banned", from4("203.0.113.8"), Drop),
            ("banned and allowed", from4("203.0.113.7"), Allowed),
            ("in an allowed prefix", from4("203.0.113.100"), Allowed),
            ("banned, v6", from6("2001:db8:2::1"), Drop),
            ("allowed, v6", from6("2001:db8:1::1"), Allowed),
            ("not banned at all", from4("198.51.100.1"), Clear),
        ],
    );
    bench.xdp.allow(&nets(&["203.0.113.8"])).unwrap();
    check(
        &mut bench,
        &[
            ("now allowed", from4("203.0.113.8"), Allowed),
            ("not any more", from4("203.0.113.7"), Drop),
            ("not any more, v6", from6("2001:db8:1::1"), Drop),
        ],
    );
}

#[test]
fn dry_run_counts_and_passes() {
    require_root!("the dry run");
    let mut bench = Bench::new("dry", 4_096);
    bench.ban("203.0.113.7");
    let frame = Frame::new().v4(v4("203.0.113.7"), TCP).port(80);
    bench.xdp.set_dry_run(true);
    assert_eq!(bench.judge(&frame), DryRun);
    bench.xdp.set_dry_run(false);
    assert_eq!(bench.judge(&frame), Drop);
    let prefix = parse_prefix("203.0.113.7").unwrap();
    let hits = bench.xdp.hits(&[prefix]).unwrap();
    assert_eq!((hits[0].packets, hits[0].bytes), (2, 2 * frame.bytes().len() as u64));
    bench.apply(&[Op::Set(prefix, all(Boot(Now::read().boot.0 + 5_000)))]);
    assert_eq!(bench.xdp.hits(&[prefix]).unwrap(), hits, "a longer ban keeps its counters");
}

#[test]
fn drops_are_sampled() {
    require_root!("events");
    let mut bench = Bench::new("events", 4_096);
    bench.ban("203.0.113.7");
    bench.ban("2001:db8::7");
    bench.xdp.set_sampling(1);
    let mut events = bench.xdp.events().unwrap();
    let v4_frame = Frame::new().v4(v4("203.0.113.7"), TCP).port(443);
    assert_eq!(bench.judge(&v4_frame), Drop);
    assert_eq!(bench.judge(&Frame::new().v6(v6("2001:db8::7"), 58)), Drop);
    let first = events.next().unwrap();
    assert_eq!(first.address, v4("203.0.113.7"));
    assert_eq!(first.target, Some((TCP, 443)));
    assert_eq!(first.length as usize, v4_frame.bytes().len());
    let second = events.next().unwrap();
    assert_eq!((second.address, second.target), (v6("2001:db8::7").into(), None));
    assert!(events.next().is_none());
    bench.xdp.set_sampling(64);
    bench.xdp.judge(v4_frame.bytes(), 640).unwrap();
    let sampled = events.by_ref().count();
    // One for each 64 drops of a CPU, wherever its count stood.
    assert!((9..=12).contains(&sampled), "{sampled} of 640");
    bench.xdp.set_sampling(0);
    bench.xdp.judge(v4_frame.bytes(), 1_000).unwrap();
    assert!(events.next().is_none());
    bench.xdp.set_sampling(1);
    bench.xdp.judge(v4_frame.bytes(), 10_000).unwrap();
    assert!(bench.xdp.verdicts().unwrap().events_lost > 0, "a full ring is counted");
}

#[test]
fn a_ban_ends_when_it_should() {
    require_root!("the deadline's clock");
    let mut bench = Bench::new("clock", 64);
    let frame = Frame::new().v4(v4("203.0.113.7"), TCP).port(80);
    for _ in 0..5 {
        let end = Now::read().boot.plus(200);
        bench.apply(&[Op::Set(parse_prefix("203.0.113.7").unwrap(), all(end))]);
        // However slowly this runs: a drop that began after the end, or a pass that was over
        // before it, is wrong.
        loop {
            let before = Now::read().boot;
            let verdict = bench.judge(&frame);
            let after = Now::read().boot;
            if verdict != Drop {
                assert!(after >= end, "ended {} ms early", end.0 - after.0);
                break;
            }
            assert!(before.0 <= end.0 + 20, "dropped {} ms after its end", before.0 - end.0);
        }
    }
}
