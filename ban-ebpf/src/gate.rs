//! The fast way out: one load tells that a source is certainly not banned.
//!
//! Legitimate traffic must end here; everything behind it is out of line, so that this path
//! needs no stack beyond one key and no saved registers.

use aya_ebpf::programs::XdpContext;
use ban_common::{Verdict, gate_v4, gate_v6};

use crate::{
    bans,
    maps::{GATE_V4, GATE_V6, SETTINGS},
    parse::{self, ETH_LEN, IPV4, IPV4_LEN, IPV6, IPV6_LEN, load},
};

/// The verdict on a frame.
#[inline(always)]
pub(crate) fn decide<const FRAGS: bool>(ctx: &XdpContext) -> u32 {
    let data = ctx.data();
    let end = ctx.data_end();
    if data + ETH_LEN + IPV4_LEN > end {
        return stunted(ctx);
    }
    // SAFETY: 34 bytes were checked above.
    let kind = unsafe { load::<u16>(data + 12) };
    if kind == IPV4 {
        // SAFETY: as above: bytes 26..30.
        let source = unsafe { load::<u32>(data + ETH_LEN + 12) };
        return if open_v4(source) {
            bans::v4::<FRAGS>(ctx, source, ETH_LEN)
        } else {
            Verdict::Clear as u32
        };
    }
    if kind == IPV6 {
        if data + ETH_LEN + IPV6_LEN > end {
            return Verdict::Malformed as u32;
        }
        // SAFETY: 54 bytes were checked: bytes 22..30.
        let top = unsafe { load::<u64>(data + ETH_LEN + 8) };
        return if open_v6(top) { bans::v6::<FRAGS>(ctx, ETH_LEN) } else { Verdict::Clear as u32 };
    }
    unusual::<FRAGS>(ctx)
}

/// The verdict on a packet of an interface that has no Ethernet header: tunnels, PPP.
#[inline(always)]
pub(crate) fn decide_bare(ctx: &XdpContext) -> u32 {
    let data = ctx.data();
    let end = ctx.data_end();
    if data + IPV4_LEN > end {
        return Verdict::Malformed as u32;
    }
    // SAFETY: 20 bytes were checked above.
    let version = unsafe { load::<u8>(data) } >> 4;
    if version == 4 {
        // SAFETY: as above: bytes 12..16.
        let source = unsafe { load::<u32>(data + 12) };
        return if open_v4(source) {
            bans::v4::<false>(ctx, source, 0)
        } else {
            Verdict::Clear as u32
        };
    }
    if version != 6 {
        return Verdict::Other as u32;
    }
    if data + IPV6_LEN > end {
        return Verdict::Malformed as u32;
    }
    // SAFETY: 40 bytes were checked: bytes 8..16.
    let top = unsafe { load::<u64>(data + 8) };
    if open_v6(top) { bans::v6::<false>(ctx, 0) } else { Verdict::Clear as u32 }
}

/// Too short for IPv4 without a tag.
#[inline(never)]
fn stunted(ctx: &XdpContext) -> u32 {
    match parse::untag_twice(ctx) {
        Some((kind, _)) if kind != IPV4 && kind != IPV6 && !parse::is_tag(kind) => {
            Verdict::Other as u32
        }
        _ => Verdict::Malformed as u32,
    }
}

/// Tagged, or no IP at all.
#[inline(never)]
fn unusual<const FRAGS: bool>(ctx: &XdpContext) -> u32 {
    let Some((kind, at)) = parse::untag(ctx) else { return Verdict::Malformed as u32 };
    if kind == IPV4 {
        // The last byte first: a header that is cut off must not be judged by its beginning.
        if parse::read::<u8>(ctx, at + IPV4_LEN - 1).is_none() {
            return Verdict::Malformed as u32;
        }
        return match parse::read(ctx, at + 12) {
            Some(source) if open_v4(source) => bans::v4::<FRAGS>(ctx, source, at),
            Some(_) => Verdict::Clear as u32,
            None => Verdict::Malformed as u32,
        };
    }
    if kind == IPV6 {
        if parse::read::<u8>(ctx, at + IPV6_LEN - 1).is_none() {
            return Verdict::Malformed as u32;
        }
        return match parse::read(ctx, at + 8) {
            Some(top) if open_v6(top) => bans::v6::<FRAGS>(ctx, at),
            Some(_) => Verdict::Clear as u32,
            None => Verdict::Malformed as u32,
        };
    }
    Verdict::Other as u32
}

#[inline(always)]
fn open_v4(source: u32) -> bool {
    let (word, bit) = gate_v4(u32::from_be(source));
    GATE_V4.get(word).is_some_and(|bits| bits & bit != 0)
}

/// `top`: the upper half of the source. The gate knows no prefix shorter than /48: while there is
/// one, it stands open.
#[inline(always)]
fn open_v6(top: u64) -> bool {
    let (word, mask) = gate_v6(top);
    GATE_V6.get(word).is_some_and(|bits| bits & mask == mask)
        || SETTINGS.get(0).is_some_and(|settings| settings.wide_v6 != 0)
}
