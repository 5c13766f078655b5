//! Types that the agent and its XDP program share: map keys and values, verdicts, names.
//!
//! Everything here is `repr(C)`, integers only, without hidden padding, and its layout is
//! asserted at compile time: `bpftool map dump` reads it through BTF, an older or newer agent
//! reads it through the pins.
#![no_std]

/// Version of the pinned layout; part of the pin path (`…/v1/ban_v4`).
pub const ABI: u32 = 1;
