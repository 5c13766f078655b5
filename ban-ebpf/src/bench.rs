//! Programs that only the benchmark loads: the floor, the two plain designs, and ours under
//! random sources. They share parsing, maps and counters with the real one.

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64, bpf_redirect},
    macros::xdp,
    programs::XdpContext,
};
use ban_common::{Ban, NetV4, Verdict};

use crate::{
    count, gate,
    maps::{BAN_V4, NET_V4},
    parse::{IPV4, load},
};

/// Where the generator keeps its state in the frame: counter, mask, first number.
const STATE: usize = 64;

/// Drops everything: what the harness costs.
#[xdp]
fn bench_floor(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// A hash and nothing before it.
#[xdp]
fn bench_hash(ctx: XdpContext) -> u32 {
    plain(&ctx, |source| BAN_V4.get_ptr_mut(source))
}

/// A trie and nothing before it.
#[xdp]
fn bench_lpm(ctx: XdpContext) -> u32 {
    plain(&ctx, |address| {
        let found = NET_V4.get(&Key::new(32, NetV4 { address, pad: [0; 4] }));
        found.map(|ban| core::ptr::from_ref(ban).cast_mut())
    })
}

/// Only the generator of random sources.
#[xdp]
fn bench_rnd_floor(ctx: XdpContext) -> u32 {
    if next_source(&ctx).is_some() { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// Ours, under random sources.
#[xdp]
fn bench_rnd_ours(ctx: XdpContext) -> u32 {
    if next_source(&ctx).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    let verdict = gate::decide::<true>(&ctx);
    finish(&ctx, verdict)
}

/// The plain hash, under random sources.
#[xdp]
fn bench_rnd_hash(ctx: XdpContext) -> u32 {
    if next_source(&ctx).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    plain(&ctx, |source| BAN_V4.get_ptr_mut(source))
}

/// The plain trie, under random sources.
#[xdp]
fn bench_rnd_lpm(ctx: XdpContext) -> u32 {
    if next_source(&ctx).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    plain(&ctx, |address| {
        let found = NET_V4.get(&Key::new(32, NetV4 { address, pad: [0; 4] }));
        found.map(|ban| core::ptr::from_ref(ban).cast_mut())
    })
}

/// Sends the frame on, to the interface whose index it carries, from one of 1024 sources. The
/// header's checksum stays right: the identification takes back what the source adds.
#[xdp]
fn bench_send(ctx: XdpContext) -> u32 {
    let data = ctx.data();
    if data + STATE + 4 > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: 68 bytes were checked; the helpers take plain numbers.
    unsafe {
        let low = ((bpf_get_prandom_u32() & 1023) << 6) as u16;
        ((data + 28) as *mut u16).write_volatile(low.to_be());
        ((data + 18) as *mut u16).write_volatile((!low).to_be());
        bpf_redirect(((data + STATE) as *const u32).read_volatile(), 0) as u32
    }
}

/// Writes the next source into the frame: numbers in order, spread over all addresses by
/// Knuth's multiplicative hash, as the benchmark bans them.
#[inline(always)]
fn next_source(ctx: &XdpContext) -> Option<()> {
    let data = ctx.data();
    if data + STATE + 12 > ctx.data_end() {
        return None;
    }
    let state = (data + STATE) as *mut u32;
    // SAFETY: 76 bytes were checked above; the state lies at 64, the source at 26.
    unsafe {
        let counter = state.read_volatile().wrapping_add(0x9e37_79b1);
        state.write_volatile(counter);
        let mask = state.add(1).read_volatile();
        let first = state.add(2).read_volatile();
        let source = ((counter & mask) | first).wrapping_mul(2_654_435_761);
        ((data + 26) as *mut u32).write_volatile(source.to_be());
    }
    Some(())
}

#[inline(always)]
fn plain(ctx: &XdpContext, lookup: impl Fn([u8; 4]) -> Option<*mut Ban>) -> u32 {
    let data = ctx.data();
    if data + 34 > ctx.data_end() {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: 34 bytes were checked.
    let (kind, source) = unsafe { (load::<u16>(data + 12), load::<u32>(data + 26)) };
    if kind != IPV4 {
        return xdp_action::XDP_PASS;
    }
    let verdict = match lookup(source.to_ne_bytes()) {
        // SAFETY: a map value that was just looked up; the helper has no condition.
        Some(ban) if unsafe { bpf_jiffies64() < (*ban).ends_jiffies } => {
            let length = count::length::<true>(ctx);
            // SAFETY: as above.
            unsafe {
                (*ban).packets += 1;
                (*ban).bytes += length;
            }
            Verdict::Drop
        }
        _ => Verdict::Unbanned,
    };
    finish(ctx, verdict as u32)
}

#[inline(always)]
fn finish(ctx: &XdpContext, verdict: u32) -> u32 {
    count::frame(ctx, verdict);
    if verdict == Verdict::Drop as u32 { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}
