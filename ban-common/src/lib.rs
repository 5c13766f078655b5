//! Types that the agent and its XDP program share: map keys and values, verdicts, names.
//!
//! Everything here is `repr(C)`, integers only, without hidden padding, and its layout is
//! asserted at compile time: `bpftool map dump` reads it through BTF, an older or newer agent
//! reads it through the pins. Nothing here decides anything.
#![no_std]

mod ban;
mod event;
mod gate;
mod settings;
mod verdict;

pub use ban::{Ban, NetV4, PORT_SETS, PortSet, SITE_LENGTHS, Site};
pub use event::Event;
pub use gate::{GATE_WORDS, gate_v4, gate_v6};
pub use settings::Settings;
pub use verdict::{Count, ROWS, SLOTS, Verdict};

/// Version of the pinned layout; part of the pin path (`…/v1/ban_v4`).
pub const ABI: u32 = 1;

/// Default size of the ban maps, per family.
pub const DEFAULT_BANS: u32 = 262_144;

/// Size of the allow lists, per family. Tries cost memory for what they hold alone.
pub const ALLOWED: u32 = 1 << 20;
