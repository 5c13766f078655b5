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

/// Bytes that each of so many bans takes, half of them of either family.
fn each(bans: u32, address: impl Fn(u32) -> (Ipv4Addr, Ipv6Addr)) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    let mut ledger = Ledger::new(bans as usize);
    let holder = Holder::Jail("sshd".into());
    for n in 0..bans / 2 {
        let (v4, v6) = address(n);
        for address in [v4.into(), v6.into()] {
            let claim = Claim {
                prefix: host(address),
                holder: holder.clone(),
                until: Boot(u64::from(scattered(n)) + 1),
                ports: Vec::new(),
                derived: false,
            };
            ledger.claim(&claim, false, Boot(0), &mut Plan::default());
        }
    }
    let each = (LIVE.load(Ordering::Relaxed) - before) / ledger.len();
    println!("{} bans, {each} bytes each", ledger.len());
    assert_eq!(ledger.len(), bans as usize);
    each
}

/// As attackers are: an odd multiplier permutes the numbers.
fn scattered(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

/// One test: what others allocate meanwhile would count.
#[test]
fn a_million_bans_take_at_most_150_bytes_each_and_170_at_worst() {
    let usual = each(1_000_000, |n| {
        let v6 = u128::from(scattered(n)) << 64 | 0x2001_0db8 << 96;
        (scattered(n).into(), v6.into())
    });
    assert!(usual <= 150, "{usual} bytes per ban");
    // two in each network by whose crowds room is made: a /24; a /32 of IPv6, and in it a /48
    let pairs = each(200_000, |n| {
        let net = scattered(n / 2);
        let v4 = net & !0xff | net >> 24 & 0xfe | n & 1;
        (v4.into(), (u128::from(net) << 96 | u128::from(n & 1)).into())
    });
    assert!(pairs <= 170, "{pairs} bytes per ban in pairs");
}
