//! A sampled drop, as it travels through the ring buffer.

/// One dropped frame out of many.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Source; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// 4 or 6.
    pub family: u32,
    /// Interface that received the frame.
    pub ifindex: u32,
    /// Bytes from the Ethernet header on.
    pub length: u32,
    /// `Verdict::Drop` or `Verdict::DryRun`.
    pub verdict: u32,
    /// IP protocol number; 0 if it was not read.
    pub protocol: u32,
    /// Destination port; 0 if there is none or it was not read.
    pub port: u32,
}

const _: () = assert!(size_of::<Event>() == 40 && align_of::<Event>() == 4);
