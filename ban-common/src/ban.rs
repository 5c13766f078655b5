//! What the maps hold for one banned address or prefix.

/// One ban. Deadlines are `jiffies64` values: the clock that costs the program least; the agent
/// converts. `0`: none, `u64::MAX`: never ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ban {
    /// End of the ban on all traffic.
    pub ends_jiffies: u64,
    /// End of the ban on the ports of `port_set`.
    pub ports_end_jiffies: u64,
    /// Packets dropped (or, in a dry run, packets that would have been).
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// The later end in seconds since 1970, for whoever reads a dump; the program ignores it.
    pub ends_unix: u64,
    /// Index into `port_sets`; only meaningful while `ports_end_jiffies` is not over.
    pub port_set: u32,
    /// Prefix length.
    pub prefix: u32,
}

const _: () = assert!(size_of::<Ban>() == 48 && align_of::<Ban>() == 8);
const _: () = assert!(core::mem::offset_of!(Ban, ends_jiffies) == 0);

/// IPv4 prefix as a trie key. Padded: the kernel puts the value right behind the key, and the
/// value's counters want eight-byte alignment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetV4 {
    /// Network order.
    pub address: [u8; 4],
    /// Zero.
    pub pad: [u8; 4],
}

/// IPv6 prefixes that have a hash of their own, longest first: what one customer owns.
pub const SITE_LENGTHS: [u32; 3] = [64, 56, 48];

/// Key of that hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Upper half of the address, network order, host bits zero.
    pub network: [u8; 8],
    /// One of [`SITE_LENGTHS`].
    pub prefix: u32,
}

const _: () = assert!(size_of::<Site>() == 12 && align_of::<Site>() == 4);

/// How many different port sets can be in use at once, less one: number 0 is never used.
pub const PORT_SETS: u32 = 128;

/// The ports that a ban is limited to: a bit for each. Sets are shared: jails have few.
///
/// The bit of a port is the number that its two bytes make where they lie in memory, so that
/// the program needs neither a loop nor a swap.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet {
    /// For TCP.
    pub tcp: [u64; 1024],
    /// For UDP.
    pub udp: [u64; 1024],
}

impl Default for PortSet {
    fn default() -> Self {
        PortSet { tcp: [0; 1024], udp: [0; 1024] }
    }
}

const _: () = assert!(size_of::<PortSet>() == 16_384);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), integers only, no padding (sizes are asserted above), every bit pattern
    // is a value.
    unsafe impl aya::Pod for super::Ban {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::NetV4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Site {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PortSet {}
}
