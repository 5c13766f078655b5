//! What the program can say of a frame, and how it counts it.

/// Each frame gets exactly one verdict; only [`Verdict::Drop`] drops it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The gate said: certainly not banned.
    Clear = 0,
    /// The gate let it through to the maps, and they hold no ban.
    Unbanned = 1,
    /// Neither IPv4 nor IPv6.
    Other = 2,
    /// Short, truncated or contradicts itself; passes.
    Malformed = 3,
    /// Its ban is over.
    Expired = 4,
    /// Its ban is limited to other ports.
    OtherPort = 5,
    /// Its ban is limited to ports, and it is a fragment without any.
    Fragment = 6,
    /// Banned and on the allow list: passes.
    Allowed = 7,
    /// Banned; a dry run lets it pass.
    DryRun = 8,
    /// Banned.
    Drop = 9,
}

impl Verdict {
    /// In the order of their numbers.
    pub const ALL: [Verdict; 10] = [
        Verdict::Clear,
        Verdict::Unbanned,
        Verdict::Other,
        Verdict::Malformed,
        Verdict::Expired,
        Verdict::OtherPort,
        Verdict::Fragment,
        Verdict::Allowed,
        Verdict::DryRun,
        Verdict::Drop,
    ];

    /// The word for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Clear => "clear",
            Verdict::Unbanned => "unbanned",
            Verdict::Other => "other",
            Verdict::Malformed => "malformed",
            Verdict::Expired => "expired",
            Verdict::OtherPort => "other-port",
            Verdict::Fragment => "fragment",
            Verdict::Allowed => "allowed",
            Verdict::DryRun => "dry-run",
            Verdict::Drop => "drop",
        }
    }
}

/// Rows per interface in the counter map: the verdicts, then lost events, then spare ones.
pub const ROWS: u32 = 16;
/// Interfaces that can have rows of their own.
pub const SLOTS: u32 = 64;

impl Count {
    /// The row of events that found the ring full.
    pub const LOST_ROW: u32 = 10;
}

/// One CPU's counter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Bytes from the Ethernet header on.
    pub bytes: u64,
}

#[cfg(feature = "user")]
// SAFETY: repr(C), two u64, every bit pattern is a value.
unsafe impl aya::Pod for Count {}
