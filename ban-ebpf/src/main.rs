//! The XDP program: decides for each frame whether its source is banned.
//!
//! `parse` finds the source, `gate` lets nearly everything go, `bans` asks the maps, `scope`
//! reads ports if a ban names some, `count` keeps the books. The verdict that is decided is the
//! verdict that is returned, here and nowhere else.
#![no_std]
#![no_main]

mod bans;
#[cfg(feature = "bench")]
mod bench;
mod count;
mod gate;
mod maps;
mod parse;
mod scope;

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns},
    macros::xdp,
    programs::XdpContext,
};
use ban_common::Verdict;

/// Entry point where the kernel can hand over frames of several buffers (5.18 and later).
#[xdp(frags)]
fn ban_agent(ctx: XdpContext) -> u32 {
    run::<true>(&ctx)
}

/// Entry point for older kernels: frames in one buffer only.
#[xdp]
fn ban_agent_flat(ctx: XdpContext) -> u32 {
    run::<false>(&ctx)
}

/// Entry point for interfaces whose frames begin with the IP header. Their drivers have no frames
/// of several buffers.
#[xdp]
fn ban_agent_bare(ctx: XdpContext) -> u32 {
    finish(&ctx, gate::decide_bare(&ctx))
}

#[inline(always)]
fn run<const FRAGS: bool>(ctx: &XdpContext) -> u32 {
    finish(ctx, gate::decide::<FRAGS>(ctx))
}

#[inline(always)]
fn finish(ctx: &XdpContext, verdict: u32) -> u32 {
    count::frame(ctx, verdict);
    if verdict == Verdict::Drop as u32 { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// Not for packets: writes `jiffies64` and `CLOCK_BOOTTIME` into the frame, so that the agent
/// can convert deadlines. Only ever run by `BPF_PROG_TEST_RUN`.
#[xdp]
fn ban_clock(ctx: XdpContext) -> u32 {
    let data = ctx.data();
    if data + 16 > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    let out = data as *mut u64;
    // SAFETY: both helpers take no argument; 16 bytes of the frame were checked above.
    unsafe {
        out.write_volatile(bpf_jiffies64());
        out.add(1).write_volatile(bpf_ktime_get_boot_ns());
    }
    xdp_action::XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The kernel lets a program call GPL-only helpers only if it says so.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
