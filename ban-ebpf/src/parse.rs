//! Reading a frame. Every read is one bounds-checked helper; a read that fails means "pass".

use aya_ebpf::programs::XdpContext;

use crate::{maps::SETTINGS, scope};

pub(crate) const ETH_LEN: usize = 14;
pub(crate) const IPV4_LEN: usize = 20;
pub(crate) const IPV6_LEN: usize = 40;

// EtherTypes as they lie in memory.
pub(crate) const IPV4: u16 = 0x0800_u16.to_be();
pub(crate) const IPV6: u16 = 0x86dd_u16.to_be();
const VLAN: u16 = 0x8100_u16.to_be();
const QINQ: u16 = 0x88a8_u16.to_be();
const QINQ_OLD: u16 = 0x9100_u16.to_be();

/// Offsets are kept below this: no header we read lies further in, and the verifier wants a bound.
const REACH: usize = 0x7ff;
/// As many further tags as lie within it.
const MAX_TAGS: usize = (REACH - ETH_LEN) / 4;

/// Reads a `T` at a variable offset, `None` if the frame is too short.
#[inline(always)]
pub(crate) fn read<T: Copy>(ctx: &XdpContext, at: usize) -> Option<T> {
    // Opaque, so that the compiler compares, adds and reads through one and the same register:
    // the verifier follows registers, not arithmetic.
    let at = core::hint::black_box(at);
    if at > REACH {
        return None;
    }
    let start = core::hint::black_box(ctx.data() + at);
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: the whole value lies inside the frame, as was just checked.
    Some(unsafe { load(start) })
}

/// Loads a `T` from the frame in one instruction.
///
/// # Safety
/// The `T` at `start` lies inside the frame. It need not be aligned: BPF loads are defined for
/// any address (where the hardware wants alignment, the verifier refuses the program), whereas
/// `read_unaligned` would load byte by byte.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy>(start: usize) -> T {
    // SAFETY: passed on to the caller.
    unsafe { (start as *const T).read_volatile() }
}

/// Skips the VLAN tags behind the MAC addresses; the EtherType and where its header begins.
///
/// All of them, whatever their numbers: Linux takes off any number of priority tags (VLAN 0),
/// before and between those of its VLAN devices, and then reads what is behind.
#[inline(always)]
pub(crate) fn untag(ctx: &XdpContext) -> Option<(u16, usize)> {
    match untag_twice(ctx)? {
        (kind, _) if is_tag(kind) => deeper(ctx),
        found => Some(found),
    }
}

/// As [`untag`], but two at most: what is left may be a tag.
#[inline(always)]
pub(crate) fn untag_twice(ctx: &XdpContext) -> Option<(u16, usize)> {
    let mut at = ETH_LEN;
    let mut kind: u16 = read(ctx, at - 2)?;
    for _ in 0..2 {
        if !is_tag(kind) {
            break;
        }
        at += 4;
        kind = read(ctx, at - 2)?;
    }
    Some((kind, at))
}

/// Behind more than two tags. No real host nests its VLAN devices so deep: these are for getting
/// past us, and a frame has room for hundreds.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it lies within a frame")]
fn deeper(ctx: &XdpContext) -> Option<(u16, usize)> {
    let at = end_of_tags(ctx) as usize;
    Some((read(ctx, at - 2)?, at))
}

/// Where the header behind all tags begins; beyond what can be read if that is.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "it lies within a frame")]
fn end_of_tags(ctx: &XdpContext) -> u64 {
    let Some(settings) = SETTINGS.get(0) else { return 0 };
    let zero = scope::zero(settings);
    let mut at = (ETH_LEN + 8) as u64;
    for _ in 0..MAX_TAGS {
        match read::<u16>(ctx, at as usize - 2) {
            Some(kind) if is_tag(kind) => {}
            _ => break,
        }
        // Any offset: one state for the verifier, not hundreds.
        at = (at + 4) ^ zero;
    }
    at
}

#[inline(always)]
pub(crate) fn is_tag(kind: u16) -> bool {
    kind == VLAN || kind == QINQ || kind == QINQ_OLD
}
