//! Where an address has its bits in the gates, the tables that let unbanned packets go at once.
//!
//! Both sides must agree bit by bit; a bit that is set too much costs time, a bit that is
//! missing would let a banned packet pass.

/// 64-bit words in each gate: 2 MiB.
pub const GATE_WORDS: usize = 1 << 18;

/// IPv4: one bit per /24. `address` as a number (host order). Word and mask.
#[inline(always)]
#[must_use]
pub const fn gate_v4(address: u32) -> (u32, u64) {
    (address >> 14, 1 << ((address >> 8) & 63))
}

/// IPv6: a blocked Bloom filter over the top 48 bits (Putze, Sanders, Singler 2007): one word,
/// three bits of it. `top` is the upper half of the address as it lies in memory.
#[inline(always)]
#[must_use]
pub const fn gate_v6(top: u64) -> (u32, u64) {
    // The first six bytes, whatever the byte order of the machine.
    let site = if cfg!(target_endian = "little") { top << 16 } else { top & !0xffff };
    // Multiplicative hashing (Knuth 6.4): only the upper bits of the product are well mixed.
    let hash = (site ^ (site >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = (hash >> 46) as u32;
    let bits = (1 << ((hash >> 40) & 63)) | (1 << ((hash >> 34) & 63)) | (1 << ((hash >> 28) & 63));
    (word, bits)
}
