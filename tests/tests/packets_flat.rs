//! The other entry points judge as the usual one does: the program for kernels that hand over
//! frames in one buffer only (newer ones load it too), and the one for interfaces without an
//! Ethernet header.

use ban_agent::dataplane::Loaded;
use tests::{
    bench::{Bench, scoped, set},
    packet::{Frame, TCP},
    require_root,
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

#[test]
fn the_program_for_older_kernels_judges_alike() {
    require_root!("the program for older kernels");
    let mut bench = Bench::new("flat", 64);
    bench.ban("203.0.113.7");
    bench.ban("198.51.100.0/24");
    bench.ban("2001:db8::7");
    let pins = bench.pins.path().join("v1");
    let mut flat = Loaded::new(&pins, 64, 1).unwrap().named("ban_agent_flat");
    let v4 = |text: &str| Frame::new().v4(text.parse().unwrap(), TCP).port(80);
    let v6 = |text: &str| Frame::new().v6(text.parse().unwrap(), TCP).port(80);
    for (what, frame, expected) in [
        ("banned", v4("203.0.113.7"), XDP_DROP),
        ("beside it", v4("203.0.113.8"), XDP_PASS),
        ("in a banned prefix", v4("198.51.100.9"), XDP_DROP),
        ("from elsewhere", v4("192.0.2.9"), XDP_PASS),
        ("banned, v6", v6("2001:db8::7"), XDP_DROP),
        ("beside it, v6", v6("2001:db8::8"), XDP_PASS),
        (
            "under five tags",
            (0..5)
                .fold(Frame::new(), |frame, _| frame.tag(0x8100, 0))
                .v4("203.0.113.7".parse().unwrap(), TCP),
            XDP_DROP,
        ),
    ] {
        assert_eq!(flat.run(frame.bytes(), 1).unwrap().0, expected, "{what}");
    }
}

#[test]
fn packets_without_an_ethernet_header_are_judged() {
    require_root!("the program for interfaces without an Ethernet header");
    let mut bench = Bench::new("bare", 64);
    bench.ban("203.0.113.7");
    bench.ban("2001:db8::7");
    // where a program that takes this for an Ethernet frame reads the type, it would find IPv4
    bench.ban("8.0.113.7");
    bench.apply(&[set("198.51.100.7", scoped(&["tcp/22"]))]);
    bench.apply(&[set("2001:db8::9", scoped(&["tcp/22"]))]);
    let pins = bench.pins.path().join("v1");
    let mut bare = Loaded::new(&pins, 64, 1).unwrap().named("ban_agent_bare");
    let v4 = |text: &str| Frame::bare().v4(text.parse().unwrap(), TCP);
    let v6 = |text: &str, next| Frame::bare().v6(text.parse().unwrap(), next);
    for (what, frame, expected) in [
        ("banned", v4("203.0.113.7").port(80), XDP_DROP),
        ("banned, header only", v4("203.0.113.7"), XDP_DROP),
        ("beside it", v4("203.0.113.8").port(80), XDP_PASS),
        ("from elsewhere", v4("192.0.2.9").port(80), XDP_PASS),
        ("an address that looks like a type", v4("8.0.113.7").port(80), XDP_DROP),
        ("beside that", v4("8.0.113.8").port(80), XDP_PASS),
        ("banned, v6", v6("2001:db8::7", TCP).port(80), XDP_DROP),
        ("banned, v6, header only", v6("2001:db8::7", 59), XDP_DROP),
        ("beside it, v6", v6("2001:db8::8", TCP).port(80), XDP_PASS),
        ("a banned port", v4("198.51.100.7").port(22), XDP_DROP),
        ("another port", v4("198.51.100.7").port(23), XDP_PASS),
        ("a banned port, v6", v6("2001:db8::9", 60).extension(TCP, 0).port(22), XDP_DROP),
        ("another port, v6", v6("2001:db8::9", 60).extension(TCP, 0).port(23), XDP_PASS),
        ("cut inside the header", v4("203.0.113.7").cut(19), XDP_PASS),
        ("cut inside the header, v6", v6("2001:db8::7", TCP).cut(39), XDP_PASS),
        ("no IP", Frame::bare().raw_bytes(&[0x20; 64]), XDP_PASS),
    ] {
        assert_eq!(bare.run(frame.bytes(), 1).unwrap().0, expected, "{what}");
    }
}
