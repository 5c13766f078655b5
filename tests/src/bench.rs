//! The program over pins of its own, on no interface: frames are judged by `BPF_PROG_TEST_RUN`.

use ban_agent::{
    clock::{Boot, Now},
    dataplane::{DataPlane as _, Options, Xdp},
    ledger::{Enforced, Op},
    net::{parse_ports, parse_prefix},
};
use ban_common::Verdict;

use crate::{packet::Frame, process::Pins};

/// The program, its maps, and their pins, which go with it.
#[derive(Debug)]
pub struct Bench {
    /// The program.
    pub xdp: Xdp,
    /// Where its maps are.
    pub pins: Pins,
}

impl Bench {
    /// Fresh maps for `max_bans`.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "a test's own set-up")]
    pub fn new(name: &str, max_bans: u32) -> Bench {
        let pins = Pins::new(&format!("ban-test-{name}-{}", std::process::id()));
        let options = Options { pins: pins.path().to_owned(), max_bans, ..Options::default() };
        Bench { xdp: Xdp::load(options).unwrap(), pins }
    }

    /// Applies ops.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[expect(clippy::unwrap_used, reason = "a test's own step")]
    pub fn apply(&mut self, ops: &[Op]) {
        self.xdp.apply(ops, Now::read()).unwrap();
    }

    /// Bans all traffic of a prefix for ever.
    ///
    /// # Panics
    /// If the prefix is none or the kernel refuses.
    pub fn ban(&mut self, prefix: &str) {
        self.apply(&[set(prefix, all(Boot::NEVER))]);
    }

    /// The verdict on one frame.
    ///
    /// # Panics
    /// If the kernel refuses to run it.
    #[expect(clippy::unwrap_used, reason = "a test's own step")]
    pub fn judge(&mut self, frame: &Frame) -> Verdict {
        self.xdp.judge(frame.bytes(), 1).unwrap().0
    }
}

/// A ban on all traffic.
#[must_use]
pub fn all(until: Boot) -> Enforced {
    Enforced { all: until, scoped: Boot(0), ports: Vec::new() }
}

/// A ban on some ports for ever.
///
/// # Panics
/// If a rule is none.
#[must_use]
#[expect(clippy::unwrap_used, reason = "a test's own constant")]
pub fn scoped(rules: &[&str]) -> Enforced {
    let ports = rules.iter().flat_map(|text| parse_ports(text).unwrap()).collect();
    Enforced { all: Boot(0), scoped: Boot::NEVER, ports }
}

/// The op that bans a prefix.
///
/// # Panics
/// If the prefix is none.
#[must_use]
#[expect(clippy::unwrap_used, reason = "a test's own constant")]
pub fn set(prefix: &str, enforced: Enforced) -> Op {
    Op::Set(parse_prefix(prefix).unwrap(), enforced)
}
