//! The network interfaces of this namespace, asked from the kernel by rtnetlink (rtnetlink(7),
//! include/uapi/linux/if_link.h). sysfs would show another
//! namespace's. Changes nothing but, on request, takes another's XDP program away.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    NlaBuffer, NlasIterator,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
};
use rustix::net::{RecvFlags, bind, netlink::SocketAddrNetlink, recv};

use super::error::Error;
use crate::netlink;

/// The multicast group of link messages.
const RTMGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_GETLINK: u16 = 18;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_ATTACHED_SKB: u8 = 2;
const XDP_FLAGS_SKB: u32 = 1 << 1;
const XDP_FLAGS_DRV: u32 = 1 << 2;
/// `RT_SCOPE_UNIVERSE`, of an address that can be reached from anywhere.
const SCOPE_GLOBAL: u8 = 0;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index; never reused while it lives.
    pub index: u32,
    /// Largest payload of a frame.
    pub mtu: u32,
    /// `vlan`, `bond`, `bridge`, `veth` …; empty for hardware.
    pub kind: String,
    /// What its frames begin with: `ARPHRD_*`, include/uapi/linux/if_arp.h.
    pub link_type: u16,
    /// The index of the interface below it, as a VLAN device has one, or of a veth's other end; 0
    /// if there is none in this namespace.
    pub lower: u32,
    /// The index of the bond or bridge that it is a port of; 0 if none.
    pub master: u32,
    /// The id of the XDP program on it; 0 if none.
    pub program: u32,
    /// That program runs in generic mode.
    pub generic: bool,
}

/// What the frames of an interface begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// The IP header.
    Bare,
}

impl Interface {
    /// Returns whether the program can read what its frames begin with.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.framing().is_some()
    }

    /// Returns what its frames begin with; `None`: nothing that we can read.
    pub(super) fn framing(&self) -> Option<Framing> {
        const ETHER: u16 = 1;
        const PPP: u16 = 512;
        const RAWIP: u16 = 519;
        const TUNNEL: u16 = 768;
        const TUNNEL6: u16 = 769;
        const LOOPBACK: u16 = 772;
        const SIT: u16 = 776;
        const IPGRE: u16 = 778;
        const IP6GRE: u16 = 823;
        const NONE: u16 = 0xfffe;
        // What comes out of IPsec still has the header of the card that it came by, if that had one.
        if matches!(self.kind.as_str(), "xfrm" | "vti" | "vti6") {
            return None;
        }
        match self.link_type {
            ETHER | LOOPBACK => Some(Framing::Ethernet),
            PPP | RAWIP | TUNNEL | TUNNEL6 | SIT | IPGRE | IP6GRE | NONE => Some(Framing::Bare),
            _ => None,
        }
    }
}

/// Returns all interfaces.
///
/// # Errors
/// If the kernel does not answer.
pub fn list() -> Result<Vec<Interface>, Error> {
    let mut found = Vec::new();
    netlink::dump(None, Message::request(RTM_GETLINK), |message| {
        if message.kind == RTM_NEWLINK {
            found.extend(interface(&message.body));
        }
    })
    .map_err(|source| Error::call("rtnetlink", "RTM_GETLINK", source))?;
    Ok(found)
}

/// Returns the indexes of the interfaces that have an address which can be reached from anywhere.
///
/// # Errors
/// If the kernel does not answer.
pub(super) fn addressed() -> Result<HashSet<u32>, Error> {
    let mut found = HashSet::new();
    netlink::dump(None, Message::request(RTM_GETADDR), |message| {
        // struct ifaddrmsg: family, prefix length, flags, scope, index
        if message.kind == RTM_NEWADDR && message.body.get(3) == Some(&SCOPE_GLOBAL) {
            found.extend(u32_at(&message.body, 4));
        }
    })
    .map_err(|source| Error::call("rtnetlink", "RTM_GETADDR", source))?;
    Ok(found)
}

/// Hears of interfaces that come, go or change. Readable when something happened.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn subscribe() -> Result<Changes, Error> {
        let failed = |e: rustix::io::Errno| Error::call("rtnetlink", "RTMGRP_LINK", e.into());
        let socket = netlink::open(None).map_err(failed)?;
        bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK)).map_err(failed)?;
        Ok(Changes(socket))
    }

    /// Takes all that have come. What they say does not matter, nor if some were lost: the
    /// interfaces are listed anew.
    pub fn drain(&self) {
        let mut buffer = vec![0_u8; netlink::BUFFER];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Returns the names of the interfaces that hold a default route, IPv4 first, each once.
#[must_use]
pub(super) fn default_route() -> Vec<String> {
    let mut names = Vec::new();
    let v4 = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    for line in v4.lines().skip(1) {
        let mut fields = line.split_whitespace();
        // Iface Destination Gateway Flags RefCnt Use Metric Mask …
        let (name, destination, mask) = (fields.next(), fields.next(), fields.nth(5));
        if let (Some(name), Some("00000000"), Some("00000000")) = (name, destination, mask) {
            names.push(name.to_owned());
        }
    }
    let v6 = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    for line in v6.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // destination length source length gateway metric refs use flags name
        if let [destination, "00", .., name] = fields.as_slice()
            && destination.bytes().all(|byte| byte == b'0')
            && *name != "lo"
        {
            names.push((*name).to_owned());
        }
    }
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Takes a program off that was attached without a link.
///
/// # Errors
/// If the kernel refuses.
pub fn clear(interface: &Interface) -> Result<(), Error> {
    take_off(interface)
        .map_err(|e| Error::call("remove the XDP program of", interface.name.clone(), e))
}

fn take_off(interface: &Interface) -> io::Result<()> {
    let flags = if interface.generic { XDP_FLAGS_SKB } else { XDP_FLAGS_DRV };
    let mut link = LinkMessage::default();
    link.header.index = interface.index;
    link.attributes = vec![LinkAttribute::Xdp(vec![LinkXdp::Fd(-1), LinkXdp::Flags(flags)])];
    netlink::change(None, RouteNetlinkMessage::SetLink(link))
}

/// A message as it is. The route crate reads every attribute of a link or none: an unknown
/// form of one, on one interface, would hide all of them.
struct Message {
    kind: u16,
    /// A `struct ifinfomsg` or `ifaddrmsg`, and attributes.
    body: Vec<u8>,
}

impl Message {
    /// Asks for a whole table; an empty `struct ifinfomsg` is larger than an `ifaddrmsg`.
    fn request(kind: u16) -> Message {
        Message { kind, body: vec![0; 16] }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, body: &[u8]) -> Result<Message, DecodeError> {
        Ok(Message { kind: header.message_type, body: body.to_vec() })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> NetlinkPayload<Message> {
        NetlinkPayload::InnerMessage(message)
    }
}

fn interface(body: &[u8]) -> Option<Interface> {
    // struct ifinfomsg: family, padding, type, index
    let (link_type, index) = (u16_at(body, 2)?, u32_at(body, 4)?);
    let mut interface = Interface { link_type, index, ..Interface::default() };
    let mut elsewhere = false;
    for attribute in attributes(body.get(16..)?) {
        let value = attribute.value();
        let number = || u32_at(value, 0).unwrap_or(0);
        match attribute.kind() {
            IFLA_IFNAME => interface.name = text(value),
            IFLA_MTU => interface.mtu = number(),
            IFLA_LINK => interface.lower = number(),
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_MASTER => interface.master = number(),
            IFLA_LINKINFO => nested(value, IFLA_INFO_KIND, |kind| interface.kind = text(kind)),
            IFLA_XDP => {
                nested(value, IFLA_XDP_PROG_ID, |id| {
                    interface.program = u32_at(id, 0).unwrap_or(0);
                });
                nested(value, IFLA_XDP_ATTACHED, |mode| {
                    interface.generic = mode.first() == Some(&XDP_ATTACHED_SKB);
                });
            }
            _ => {}
        }
    }
    if elsewhere {
        interface.lower = 0;
    }
    Some(interface)
}

/// As far as they are whole.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn nested(value: &[u8], kind: u16, read: impl FnOnce(&[u8])) {
    if let Some(found) = attributes(value).find(|found| found.kind() == kind) {
        read(found.value());
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there() {
        let all = list().unwrap();
        let lo = all.iter().find(|interface| interface.name == "lo").unwrap();
        assert_eq!(lo.index, 1);
        assert!(lo.mtu >= 1500);
        assert_eq!(lo.lower, 0);
        assert_eq!(lo.framing(), Some(Framing::Ethernet));
    }

    #[test]
    fn what_cannot_be_read_is_known() {
        let framing = |kind: &str, link_type| {
            Interface { kind: kind.into(), link_type, ..Interface::default() }.framing()
        };
        assert_eq!(framing("veth", 1), Some(Framing::Ethernet));
        assert_eq!(framing("tun", 0xfffe), Some(Framing::Bare));
        assert_eq!(framing("wireguard", 0xfffe), Some(Framing::Bare));
        assert_eq!(framing("sit", 776), Some(Framing::Bare));
        assert_eq!(framing("xfrm", 0xfffe), None);
        // InfiniBand
        assert_eq!(framing("ipoib", 32), None);
    }

    /// As the kernel tells of a port of a bridge with a program in generic mode, and then an
    /// attribute that is longer than the message.
    #[test]
    fn what_is_whole_is_read() {
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let number = |value: u32| value.to_ne_bytes();
        let program = [attribute(IFLA_XDP_ATTACHED, &[2]), attribute(IFLA_XDP_PROG_ID, &number(9))];
        let mut body = vec![0, 0];
        body.extend(1_u16.to_ne_bytes());
        body.extend(number(7));
        body.resize(16, 0);
        body.extend(attribute(IFLA_IFNAME, b"veth\xff\0"));
        body.extend(attribute(IFLA_MASTER, &number(3)));
        body.extend(attribute(IFLA_LINK, &number(5)));
        body.extend(attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, b"veth\0")));
        body.extend(attribute(IFLA_XDP | 0x8000, &program.concat()));
        let whole = interface(&body).unwrap();
        body.extend([200_u16, IFLA_MTU].map(u16::to_ne_bytes).concat());
        let expected = Interface {
            name: "veth\u{fffd}".into(),
            index: 7,
            kind: "veth".into(),
            link_type: 1,
            lower: 5,
            master: 3,
            program: 9,
            generic: true,
            ..Interface::default()
        };
        assert_eq!([whole, interface(&body).unwrap()], [expected.clone(), expected]);
        assert_eq!(interface(&body[..15]), None);
    }
}
