//! Counters per verdict and interface, and sampled events. Never a log line per packet.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use aya_log_ebpf::warn;
use ban_common::{Count, Event, ROWS, Settings};

use crate::{
    maps::{EVENTS, SLOT, VERDICTS},
    scope,
};

/// Frames longer than this may lie in several buffers; the first is always full.
const ONE_BUFFER: u64 = 1_500;
/// One warning for so many lost events.
const WARN_EVERY: u64 = 4_096;

/// Counts a frame under its verdict.
#[inline(always)]
pub(crate) fn frame(ctx: &XdpContext, verdict: u32) {
    let length = (ctx.data_end() - ctx.data()) as u64;
    if let Some(count) = VERDICTS.get_ptr_mut(SLOT.load() * ROWS + verdict) {
        // SAFETY: this CPU's own row; XDP programs do not preempt each other on a CPU.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += length;
        }
    }
}

/// Bytes of the frame, all buffers.
#[inline(always)]
pub(crate) fn length<const FRAGS: bool>(ctx: &XdpContext) -> u64 {
    let length = (ctx.data_end() - ctx.data()) as u64;
    if FRAGS && length > ONE_BUFFER {
        // SAFETY: the context is the program's own argument.
        return unsafe { bpf_xdp_get_buff_len(ctx.ctx.cast::<xdp_md>()) };
    }
    length
}

/// Reports one drop in so many. `source`: address, where its IP header begins, and if it is IPv6.
#[inline(always)]
pub(crate) fn sample(
    ctx: &XdpContext,
    settings: &Settings,
    source: (&[u8; 16], usize, bool),
    verdict: u32,
    length: u64,
) {
    let Some(row) = VERDICTS.get_ptr_mut(SLOT.load() * ROWS + verdict) else { return };
    // SAFETY: this CPU's own row.
    let seen = unsafe { (*row).packets };
    if settings.sample_mask == u32::MAX || seen & u64::from(settings.sample_mask) != 0 {
        return;
    }
    let (address, at, v6) = source;
    #[expect(clippy::cast_possible_truncation, reason = "no frame has 4 GiB")]
    let mut event = Event {
        address: *address,
        family: if v6 { 6 } else { 4 },
        ifindex: 0,
        length: length as u32,
        verdict,
        protocol: 0,
        port: 0,
    };
    report(ctx, &mut event, at, scope::zero(settings));
}

#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "the kernel counts interfaces in 32 bits")]
fn report(ctx: &XdpContext, event: &mut Event, at: usize, zero: u64) {
    event.ifindex = ctx.ingress_ifindex() as u32;
    (event.protocol, event.port) = scope::target(ctx, at, event.family == 6, zero).parts();
    if EVENTS.output(*event, 0).is_err() {
        lost(ctx);
    }
}

/// The agent does not read fast enough, or does not live.
fn lost(ctx: &XdpContext) {
    let Some(row) = VERDICTS.get_ptr_mut(SLOT.load() * ROWS + Count::LOST_ROW) else { return };
    // SAFETY: this CPU's own row.
    let seen = unsafe {
        (*row).packets += 1;
        (*row).packets
    };
    if seen % WARN_EVERY == 1 {
        warn!(ctx, "drop events lost on this CPU so far: {}", seen);
    }
}
