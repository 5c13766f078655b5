//! Counts every byte that a million bans take in the ledger.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicUsize, Ordering},
};

use ban_core::{
    clock::Boot,
    ledger::{Claim, Holder, Ledger, Plan},
    net::host,
};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments that came in.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_million_bans_take_at_most_150_bytes_each() {
    const EACH: u32 = 500_000;
    let before = LIVE.load(Ordering::Relaxed);
    let mut ledger = Ledger::new(1_000_000);
    let holder = Holder::Jail("sshd".into());
    for n in 0..EACH {
        // Scattered as attackers are: an odd multiplier permutes the numbers.
        let scattered = n.wrapping_mul(2_654_435_761);
        let v6 = Ipv6Addr::from(u128::from(scattered) << 64 | 0x2001_0db8 << 96);
        for address in [Ipv4Addr::from(scattered).into(), v6.into()] {
            let until = Boot(u64::from(scattered) + 1);
            let claim = Claim {
                prefix: host(address),
                holder: holder.clone(),
                until,
                ports: Vec::new(),
                derived: false,
            };
            ledger.claim(&claim, false, Boot(0), &mut Plan::default());
        }
    }
    let each = (LIVE.load(Ordering::Relaxed) - before) / ledger.len();
    println!("{} bans, {each} bytes each", ledger.len());
    assert_eq!(ledger.len(), 1_000_000);
    assert!(each <= 150, "{each} bytes per ban");
}
