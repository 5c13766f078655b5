//! Frames, built header by header from the outside in.

use std::net::{Ipv4Addr, Ipv6Addr};

/// IP protocol numbers.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// See [`TCP`].
pub const ICMP: u8 = 1;
/// IPv6 fragment header.
pub const FRAGMENT: u8 = 44;

const TARGET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

/// A frame in the making.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    bytes: Vec<u8>,
    /// On an interface that has no Ethernet header.
    bare: bool,
}

impl Frame {
    /// MAC addresses, no EtherType yet.
    #[must_use]
    pub fn new() -> Frame {
        Frame { bytes: vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], bare: false }
    }

    /// Nothing: what follows is the packet itself.
    #[must_use]
    pub fn bare() -> Frame {
        Frame { bytes: Vec::new(), bare: true }
    }

    /// A VLAN tag: its EtherType (`0x8100`, `0x88a8`, `0x9100`) and number.
    #[must_use]
    pub fn tag(mut self, kind: u16, id: u16) -> Frame {
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&id.to_be_bytes());
        self
    }

    /// Any EtherType and payload.
    #[must_use]
    pub fn raw(mut self, kind: u16, payload: &[u8]) -> Frame {
        if !self.bare {
            self.bytes.extend_from_slice(&kind.to_be_bytes());
        }
        self.bytes.extend_from_slice(payload);
        self
    }

    /// An IPv4 header of `ihl` words, fragment offset in units of eight bytes.
    #[must_use]
    pub fn v4_with(self, source: Ipv4Addr, protocol: u8, ihl: u8, fragment: u16) -> Frame {
        let mut header = vec![0x40 | ihl, 0, 0, 64, 0, 7];
        header.extend_from_slice(&fragment.to_be_bytes());
        header.extend_from_slice(&[64, protocol, 0, 0]);
        header.extend_from_slice(&source.octets());
        header.extend_from_slice(&TARGET_V4.octets());
        header.resize(usize::from(ihl.max(5)) * 4, 1);
        self.raw(0x0800, &header)
    }

    /// A plain IPv4 header.
    #[must_use]
    pub fn v4(self, source: Ipv4Addr, protocol: u8) -> Frame {
        self.v4_with(source, protocol, 5, 0)
    }

    /// An IPv6 header.
    #[must_use]
    pub fn v6(self, source: Ipv6Addr, next: u8) -> Frame {
        let mut header = vec![0x60, 0, 0, 0, 0, 64, next, 64];
        header.extend_from_slice(&source.octets());
        header.extend_from_slice(&TARGET_V6.octets());
        self.raw(0x86dd, &header)
    }

    /// An IPv6 extension header (RFC 8200, section 4): `units` of eight bytes beyond the first.
    #[must_use]
    pub fn extension(mut self, next: u8, units: u8) -> Frame {
        self.bytes.extend_from_slice(&[next, units]);
        self.bytes.resize(self.bytes.len() + 6 + usize::from(units) * 8, 0);
        self
    }

    /// An IPv6 fragment header, offset in units of eight bytes.
    #[must_use]
    pub fn fragment(mut self, next: u8, offset: u16) -> Frame {
        self.bytes.extend_from_slice(&[next, 0]);
        self.bytes.extend_from_slice(&(offset << 3 | 1).to_be_bytes());
        self.bytes.extend_from_slice(&[0, 0, 0, 9]);
        self
    }

    /// Ports of TCP or UDP and enough bytes behind them for either header.
    #[must_use]
    pub fn port(mut self, destination: u16) -> Frame {
        self.bytes.extend_from_slice(&40_000_u16.to_be_bytes());
        self.bytes.extend_from_slice(&destination.to_be_bytes());
        self.bytes.resize(self.bytes.len() + 16, 0);
        self
    }

    /// Any bytes behind what is there.
    #[must_use]
    pub fn raw_bytes(mut self, bytes: &[u8]) -> Frame {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Only the first `length` bytes.
    #[must_use]
    pub fn cut(mut self, length: usize) -> Frame {
        self.bytes.truncate(length);
        self
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
