//! Behind the gate: exact bans, then prefixes, the allow list last.
//!
//! Nothing drops before the allow list was asked, so it always wins; and it is asked only when
//! something would drop, so legitimate traffic never pays for it.

use aya_ebpf::{btf_maps::lpm_trie::Key, helpers::generated::bpf_jiffies64, programs::XdpContext};
use ban_common::{Ban, NetV4, SITE_LENGTHS, Settings, Site, Verdict};

use crate::{
    count,
    maps::{ALLOW_V4, ALLOW_V6, BAN_V4, BAN_V6, NET_V4, NET_V6, SETTINGS, SITE_V6},
    parse::read,
    scope::{self, Target},
};

/// The packet under judgement.
struct Packet {
    /// `jiffies64`.
    now: u64,
    /// Where it goes, if any ban asks.
    target: Target,
    /// The verdict if nothing holds: the best reason so far.
    reason: u32,
}

impl Packet {
    #[inline(always)]
    fn new(ctx: &XdpContext, settings: &Settings, at: usize, v6: bool) -> Packet {
        let zero = scope::zero(settings);
        let target =
            if settings.scoped == 0 { Target::UNREAD } else { scope::target(ctx, at, v6, zero) };
        let target = target.veiled(zero);
        // SAFETY: takes no argument, has no condition; the kernel inlines it to one load.
        let now = unsafe { bpf_jiffies64() };
        Packet { now, target, reason: Verdict::Unbanned as u32 }
    }

    /// Whether `ban` holds for this packet now.
    #[inline(always)]
    fn held_by(&mut self, ban: *mut Ban) -> bool {
        // SAFETY: a pointer into a map value that a lookup just returned and the verifier
        // checked; the agent may write it meanwhile, field by field.
        let (ends, ports_end) = unsafe {
            (
                (&raw const (*ban).ends_jiffies).read_volatile(),
                (&raw const (*ban).ports_end_jiffies).read_volatile(),
            )
        };
        if self.now < ends {
            return true;
        }
        if self.now >= ports_end {
            self.reason = Verdict::Expired as u32;
            return false;
        }
        // Only now: it lies in a cache line that most packets can do without.
        // SAFETY: as above.
        let set = unsafe { (&raw const (*ban).port_set).read_volatile() };
        match self.target.within(set) {
            Ok(()) => true,
            Err(reason) => {
                self.reason = reason;
                false
            }
        }
    }
}

/// The verdict on an IPv4 packet whose /24 holds a ban.
#[inline(never)]
pub(crate) fn v4<const FRAGS: bool>(ctx: &XdpContext, source: u32, at: usize) -> u32 {
    let Some(settings) = SETTINGS.get(0) else { return Verdict::Unbanned as u32 };
    let mut packet = Packet::new(ctx, settings, at, false);
    let address = source.to_ne_bytes();
    let mut ban = BAN_V4.get_ptr_mut(address).filter(|ban| packet.held_by(*ban));
    if ban.is_none() && settings.nets_v4 != 0 {
        ban = net_v4(&mut packet, address);
    }
    let Some(ban) = ban else { return packet.reason };
    if settings.allow_v4 != 0 && ALLOW_V4.get(&Key::new(32, address)).is_some() {
        return Verdict::Allowed as u32;
    }
    let mut wide = [0; 16];
    if let Some(start) = wide.first_chunk_mut() {
        *start = address;
    }
    count_drop::<FRAGS>(ctx, settings, ban, (&wide, at, false))
}

/// The verdict on an IPv6 packet that passed the gate.
#[inline(never)]
pub(crate) fn v6<const FRAGS: bool>(ctx: &XdpContext, at: usize) -> u32 {
    let Some(settings) = SETTINGS.get(0) else { return Verdict::Unbanned as u32 };
    let Some(halves) = read::<[u64; 2]>(ctx, at + 8) else { return Verdict::Malformed as u32 };
    let address = whole(halves);
    let mut packet = Packet::new(ctx, settings, at, true);
    let mut ban = BAN_V6.get_ptr_mut(address).filter(|ban| packet.held_by(*ban));
    if ban.is_none() {
        ban = site_v6(&mut packet, settings, &address);
    }
    if ban.is_none() && settings.nets_v6 != 0 {
        ban = net_v6(&mut packet, address);
    }
    let Some(ban) = ban else { return packet.reason };
    if settings.allow_v6 != 0 && ALLOW_V6.get(&Key::new(128, address)).is_some() {
        return Verdict::Allowed as u32;
    }
    count_drop::<FRAGS>(ctx, settings, ban, (&address, at, true))
}

/// The address whose halves were read as numbers: two loads instead of sixteen, and the hash
/// reads back from the stack what was stored in words at least as wide.
#[inline(always)]
fn whole(halves: [u64; 2]) -> [u8; 16] {
    // SAFETY: same size, integers on both sides.
    unsafe { core::mem::transmute(halves) }
}

/// The longest banned prefix that holds; outer ones may hold where an inner one does not.
#[inline(always)]
fn net_v4(packet: &mut Packet, address: [u8; 4]) -> Option<*mut Ban> {
    let mut key = Key::new(32, NetV4 { address, pad: [0; 4] });
    for _ in 0..=32 {
        let ban = lookup_net(NET_V4.get(&key))?;
        if packet.held_by(ban) {
            return Some(ban);
        }
        key.prefix_len = outer(ban)?;
    }
    None
}

/// As [`net_v4`].
#[inline(always)]
fn net_v6(packet: &mut Packet, address: [u8; 16]) -> Option<*mut Ban> {
    let mut key = Key::new(128, address);
    for _ in 0..=128 {
        let ban = lookup_net(NET_V6.get(&key))?;
        if packet.held_by(ban) {
            return Some(ban);
        }
        key.prefix_len = outer(ban)?;
    }
    None
}

#[inline(always)]
fn lookup_net(found: Option<&Ban>) -> Option<*mut Ban> {
    found.map(|ban| core::ptr::from_ref(ban).cast_mut())
}

/// Length of the next prefix to try around `ban`.
#[inline(always)]
fn outer(ban: *mut Ban) -> Option<u32> {
    // SAFETY: as in `held_by`.
    unsafe { (&raw const (*ban).prefix).read_volatile() }.checked_sub(1)
}

/// The smallest banned site that holds. Not a loop: compiled, its jump back falls through, and no
/// verifier before 6.3 takes that for a loop.
#[inline(always)]
fn site_v6(packet: &mut Packet, settings: &Settings, address: &[u8; 16]) -> Option<*mut Ban> {
    let [first, second, third] = SITE_LENGTHS;
    let [firsts, seconds, thirds] = settings.sites;
    site(packet, (first, firsts), address)
        .or_else(|| site(packet, (second, seconds), address))
        .or_else(|| site(packet, (third, thirds), address))
}

/// The banned site of this length, of which there are `count`.
#[inline(always)]
fn site(packet: &mut Packet, (prefix, count): (u32, u32), address: &[u8; 16]) -> Option<*mut Ban> {
    if count == 0 {
        return None;
    }
    let top = u64::from_be_bytes(*address.first_chunk()?);
    let network = (top & (u64::MAX << (64 - prefix))).to_be_bytes();
    SITE_V6.get_ptr_mut(Site { network, prefix }).filter(|ban| packet.held_by(*ban))
}

/// Banned, and not on the allow list: counts it.
#[inline(always)]
fn count_drop<const FRAGS: bool>(
    ctx: &XdpContext,
    settings: &Settings,
    ban: *mut Ban,
    source: (&[u8; 16], usize, bool),
) -> u32 {
    let length = count::length::<FRAGS>(ctx);
    // SAFETY: as in `held_by`. Plain adds: two CPUs may lose a count to each other, which costs
    // less than an atomic on every drop.
    unsafe {
        (*ban).packets += 1;
        (*ban).bytes += length;
    }
    let verdict = if settings.dry_run == 0 { Verdict::Drop } else { Verdict::DryRun };
    count::sample(ctx, settings, source, verdict as u32, length);
    verdict as u32
}
