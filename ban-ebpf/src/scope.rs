//! Port-scoped bans: does this packet go to one of the banned ports?
//!
//! A packet of which that cannot be told counts as if it did: its sender chose to make it so, and
//! the stack may well read it. Later fragments are the exception: alone they reach nobody.

use aya_ebpf::programs::XdpContext;
use ban_common::{Settings, Verdict};

use crate::{maps::PORT_SETS_MAP, parse::read};

const TCP: u8 = 6;
const UDP: u8 = 17;

// IPv6 extension headers (RFC 8200, RFC 4302, RFC 6275).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTH: u8 = 51;
const OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const MAX_EXTENSIONS: usize = 6;

/// Where a packet goes, in one register: a destination port of TCP or UDP, or why there is none.
#[derive(Clone, Copy)]
pub(crate) struct Target(u32);

impl Target {
    const UDP: u32 = 1 << 16;
    const KNOWN: u32 = 1 << 17;
    /// Headers that cannot be followed to the port: matches every port set.
    const UNCLEAR: u32 = 1 << 18;

    /// For packets of which nobody asks.
    pub(crate) const UNREAD: Target = Target(Verdict::OtherPort as u32);

    /// The same, but the verifier forgets which constants it could be.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is zero")]
    pub(crate) fn veiled(self, zero: u64) -> Target {
        Target(self.0 ^ zero as u32)
    }

    /// Protocol and port, `(0, 0)` if there are none.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the port is the lower half")]
    pub(crate) fn parts(self) -> (u32, u32) {
        if self.0 & Target::KNOWN == 0 {
            return (0, 0);
        }
        let protocol = if self.0 & Target::UDP == 0 { TCP } else { UDP };
        (u32::from(protocol), u32::from(u16::from_be(self.0 as u16)))
    }

    /// Whether it belongs to the port set; `Err`: the verdict that follows if not.
    #[inline(always)]
    pub(crate) fn within(self, port_set: u32) -> Result<(), u32> {
        if self.0 & Target::UNCLEAR != 0 {
            return Ok(());
        }
        if self.0 & Target::KNOWN == 0 {
            return Err(self.0);
        }
        let Some(set) = PORT_SETS_MAP.get(port_set) else { return Err(Verdict::OtherPort as u32) };
        let bits = if self.0 & Target::UDP == 0 { &set.tcp } else { &set.udp };
        match bits.get((self.0 as usize & 0xffff) >> 6) {
            Some(bits) if bits >> (self.0 & 63) & 1 != 0 => Ok(()),
            _ => Err(Verdict::OtherPort as u32),
        }
    }
}

/// `Settings::zero`.
#[inline(always)]
pub(crate) fn zero(settings: &Settings) -> u64 {
    // SAFETY: a plain read of our own map value; volatile, so that the compiler concludes nothing.
    unsafe { (&raw const settings.zero).read_volatile() }
}

/// Where the packet goes whose IP header begins at `at`.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "it is zero")]
pub(crate) fn target(ctx: &XdpContext, at: usize, v6: bool, zero: u64) -> Target {
    let at = at ^ zero as usize;
    let found = if v6 { target_v6(ctx, at, zero) } else { target_v4(ctx, at) };
    found.unwrap_or(Target(Target::UNCLEAR))
}

/// `None`: it cannot be told.
#[inline(always)]
fn target_v4(ctx: &XdpContext, at: usize) -> Option<Target> {
    let first: u8 = read(ctx, at)?;
    let length = usize::from(first & 15) * 4;
    if length < 20 {
        return None;
    }
    let fragment: u16 = read(ctx, at + 6)?;
    if u16::from_be(fragment) & 0x1fff != 0 {
        return Some(Target(Verdict::Fragment as u32));
    }
    let protocol: u8 = read(ctx, at + 9)?;
    port(ctx, protocol, at + length)
}

/// As [`target_v4`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it is zero")]
fn target_v6(ctx: &XdpContext, at: usize, zero: u64) -> Option<Target> {
    let mut next: u8 = read(ctx, at + 6)?;
    let mut at = at + 40;
    for _ in 0..MAX_EXTENSIONS {
        let size = match next {
            FRAGMENT => {
                let offset: u16 = read(ctx, at + 2)?;
                if u16::from_be(offset) & 0xfff8 != 0 {
                    return Some(Target(Verdict::Fragment as u32));
                }
                8
            }
            HOP_BY_HOP | ROUTING | OPTIONS | MOBILITY => (units(ctx, at)? + 1) * 8,
            AUTH => (units(ctx, at)? + 2) * 4,
            _ => break,
        };
        next = read(ctx, at)?;
        // Behind headers of any length lies any offset: one state for the verifier, not many.
        at = (at + size) ^ zero as usize;
    }
    match next {
        // one more than we follow
        FRAGMENT | HOP_BY_HOP | ROUTING | OPTIONS | MOBILITY | AUTH => None,
        next => port(ctx, next, at),
    }
}

/// The length field of an extension header.
#[inline(always)]
fn units(ctx: &XdpContext, at: usize) -> Option<usize> {
    read::<u8>(ctx, at + 1).map(usize::from)
}

/// Protocols without ports are none of the banned ones.
#[inline(always)]
fn port(ctx: &XdpContext, protocol: u8, at: usize) -> Option<Target> {
    let udp = match protocol {
        TCP => 0,
        UDP => Target::UDP,
        _ => return Some(Target(Verdict::OtherPort as u32)),
    };
    let port: u16 = read(ctx, at + 2)?;
    Some(Target(Target::KNOWN | udp | u32::from(port)))
}
