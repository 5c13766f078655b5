//! What the agent tells the running program.

use crate::SLOTS;

/// One entry, memory-mapped by the agent. Zero is the safe value of every field but the
/// sampling: nothing configured, nothing allowed, bans are enforced.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Not 0: count, and pass.
    pub dry_run: u32,
    /// Every (mask + 1)th drop of a CPU becomes an event; all ones: none does.
    pub sample_mask: u32,
    /// Prefixes in `net_v4`; 0 saves the lookup.
    pub nets_v4: u32,
    /// Prefixes in `net_v6`.
    pub nets_v6: u32,
    /// Those of them that are shorter than /48, which the gate does not know.
    pub wide_v6: u32,
    /// Entries in `site_v6` by length: /64, /56, /48.
    pub sites: [u32; 3],
    /// Prefixes in `allow_v4`.
    pub allow_v4: u32,
    /// Prefixes in `allow_v6`.
    pub allow_v6: u32,
    /// Bans that name ports; 0 saves reading any.
    pub scoped: u32,
    /// Zero.
    pub pad: u32,
    /// `CLOCK_BOOTTIME` in nanoseconds at which `jiffies` was read: how an agent that comes back
    /// reads the deadlines that an earlier one wrote.
    pub boot_ns: u64,
    /// See `boot_ns`.
    pub jiffies: u64,
    /// The interface index that counts in each slot of `verdicts`; 0: free.
    pub slots: [u32; SLOTS as usize],
    /// Zero. The verifier does not know: a number mixed with it is any number, so that it
    /// need not walk through the rest of the program once for each constant it could be.
    pub zero: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            dry_run: 0,
            sample_mask: 0,
            nets_v4: 0,
            nets_v6: 0,
            wide_v6: 0,
            sites: [0; 3],
            allow_v4: 0,
            allow_v6: 0,
            scoped: 0,
            pad: 0,
            boot_ns: 0,
            jiffies: 0,
            slots: [0; SLOTS as usize],
            zero: 0,
        }
    }
}

const _: () = assert!(size_of::<Settings>() == 328 && align_of::<Settings>() == 8);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above), every bit pattern is a value.
unsafe impl aya::Pod for Settings {}
