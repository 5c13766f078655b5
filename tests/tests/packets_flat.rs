//! The program for kernels that hand over frames in one buffer only judges as the other one does,
//! on every kernel: newer ones load it too.

use ban_agent::kernel::Loaded;
use tests::{
    bench::Bench,
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
    ] {
        assert_eq!(flat.run(frame.bytes(), 1).unwrap().0, expected, "{what}");
    }
}
