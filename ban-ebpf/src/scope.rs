//! Port-scoped bans: does this packet go to one of the banned ports?

use aya_ebpf::programs::XdpContext;
use ban_common::{PORTS_PER_SET, Verdict};

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

/// Protocol and destination port of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) protocol: u32,
    pub(crate) port: u32,
}

/// Where an IPv4 packet goes; `Err`: why that cannot be told.
#[inline(always)]
pub(crate) fn target_v4(ctx: &XdpContext, at: usize) -> Result<Target, Verdict> {
    let first: u8 = read(ctx, at).ok_or(Verdict::Malformed)?;
    let length = usize::from(first & 15) * 4;
    if length < 20 {
        return Err(Verdict::Malformed);
    }
    let fragment: u16 = read(ctx, at + 6).ok_or(Verdict::Malformed)?;
    if u16::from_be(fragment) & 0x1fff != 0 {
        return Err(Verdict::Fragment);
    }
    let protocol: u8 = read(ctx, at + 9).ok_or(Verdict::Malformed)?;
    port(ctx, protocol, at + length)
}

/// Where an IPv6 packet goes; `Err`: why that cannot be told.
#[inline(always)]
pub(crate) fn target_v6(ctx: &XdpContext, at: usize) -> Result<Target, Verdict> {
    let mut next: u8 = read(ctx, at + 6).ok_or(Verdict::Malformed)?;
    let mut at = at + 40;
    for _ in 0..MAX_EXTENSIONS {
        let length: u8 = match next {
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTH | OPTIONS | MOBILITY => {
                read(ctx, at + 1).ok_or(Verdict::Malformed)?
            }
            _ => break,
        };
        let size = match next {
            FRAGMENT => {
                let offset: u16 = read(ctx, at + 2).ok_or(Verdict::Malformed)?;
                if u16::from_be(offset) & 0xfff8 != 0 {
                    return Err(Verdict::Fragment);
                }
                8
            }
            AUTH => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        next = read(ctx, at).ok_or(Verdict::Malformed)?;
        at += size;
    }
    port(ctx, next, at)
}

#[inline(always)]
fn port(ctx: &XdpContext, protocol: u8, at: usize) -> Result<Target, Verdict> {
    if protocol != TCP && protocol != UDP {
        return Err(Verdict::OtherPort);
    }
    let port: u16 = read(ctx, at + 2).ok_or(Verdict::Malformed)?;
    Ok(Target { protocol: u32::from(protocol), port: u32::from(u16::from_be(port)) })
}

/// Whether `target` belongs to the port set.
#[inline(always)]
pub(crate) fn covers(port_set: u32, target: Target) -> bool {
    let Some(set) = PORT_SETS_MAP.get(port_set) else { return false };
    for index in 0..PORTS_PER_SET {
        let Some(ports) = set.ports.get(index) else { return false };
        if ports.protocol == 0 {
            return false;
        }
        if ports.protocol == target.protocol
            && u32::from(ports.low) <= target.port
            && target.port <= u32::from(ports.high)
        {
            return true;
        }
    }
    false
}
