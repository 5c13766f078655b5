//! The network interfaces of this namespace, asked from the kernel by rtnetlink (rtnetlink(7),
//! include/uapi/linux/if_link.h). sysfs would show another
//! namespace's. Changes nothing but, on request, takes another's XDP program away.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink,
    recv, send, socket_with,
};

use super::error::Error;

/// The multicast group of link messages.
const RTMGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_ATTACHED_SKB: u8 = 2;
const XDP_FLAGS_SKB: u32 = 1 << 1;
const XDP_FLAGS_DRV: u32 = 1 << 2;
const RTM_SETLINK: u16 = 19;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const ACK: u16 = 5;
/// `RT_SCOPE_UNIVERSE`, of an address that can be reached from anywhere.
const SCOPE_GLOBAL: u8 = 0;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`, flags in an attribute's type.
const TYPE_FLAGS: u16 = 0xc000;

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
    /// Whether the program can read what its frames begin with.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.framing().is_some()
    }

    /// What its frames begin with; `None`: nothing that we can read.
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

/// All interfaces.
///
/// # Errors
/// If the kernel does not answer.
pub fn list() -> Result<Vec<Interface>, Error> {
    let mut found = Vec::new();
    dump(RTM_GETLINK, |kind, body| {
        if kind == RTM_NEWLINK {
            found.extend(interface(body));
        }
    })
    .map_err(|source| Error::call("rtnetlink", "RTM_GETLINK", source))?;
    Ok(found)
}

/// The indexes of the interfaces that have an address which can be reached from anywhere.
///
/// # Errors
/// If the kernel does not answer.
pub(super) fn addressed() -> Result<HashSet<u32>, Error> {
    let mut found = HashSet::new();
    dump(RTM_GETADDR, |kind, body| {
        // struct ifaddrmsg: family, prefix length, flags, scope, index
        if kind == RTM_NEWADDR && body.get(3) == Some(&SCOPE_GLOBAL) {
            found.extend(u32_at(body, 4));
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
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).map_err(failed)?;
        bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK)).map_err(failed)?;
        Ok(Changes(socket))
    }

    /// Takes all that have come. What they say does not matter, nor if some were lost: the
    /// interfaces are listed anew.
    pub fn drain(&self) {
        let mut buffer = vec![0_u8; 1 << 16];
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

/// The names of the interfaces that hold a default route, IPv4 first, each once.
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
    let mut request = Vec::new();
    // struct nlmsghdr, struct ifinfomsg, then IFLA_XDP { IFLA_XDP_FD = -1, IFLA_XDP_FLAGS }.
    request.extend_from_slice(&52_u32.to_ne_bytes());
    request.extend_from_slice(&RTM_SETLINK.to_ne_bytes());
    request.extend_from_slice(&ACK.to_ne_bytes());
    request.resize(20, 0);
    request.extend_from_slice(&interface.index.to_ne_bytes());
    request.resize(32, 0);
    for half in [20, IFLA_XDP | NESTED, 8, IFLA_XDP_FD] {
        request.extend_from_slice(&half.to_ne_bytes());
    }
    request.extend_from_slice(&(-1_i32).to_ne_bytes());
    for half in [8, IFLA_XDP_FLAGS] {
        request.extend_from_slice(&half.to_ne_bytes());
    }
    request.extend_from_slice(&flags.to_ne_bytes());
    let socket = socket()?;
    send(&socket, &request, SendFlags::empty())?;
    let mut buffer = [0_u8; 4096];
    let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    let answer = message(buffer.get(..length).unwrap_or_default());
    match answer.and_then(|(kind, body, _)| (kind == NLMSG_ERROR).then(|| u32_at(body, 0))) {
        Some(Some(0)) => Ok(()),
        // A negative errno.
        Some(Some(code)) => Err(io::Error::from_raw_os_error(code.cast_signed().saturating_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn socket() -> io::Result<OwnedFd> {
    // No protocol: NETLINK_ROUTE, which is 0.
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

fn dump(what: u16, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let socket = socket()?;
    // struct nlmsghdr, then an empty struct ifinfomsg, which is larger than an ifaddrmsg.
    let mut request = Vec::with_capacity(32);
    request.extend_from_slice(&32_u32.to_ne_bytes());
    request.extend_from_slice(&what.to_ne_bytes());
    request.extend_from_slice(&DUMP.to_ne_bytes());
    request.resize(32, 0);
    send(&socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0_u8; 1 << 17];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(io::Error::other("rtnetlink refuses the request")),
                kind => each(kind, body),
            }
            rest = next;
        }
    }
}

/// Type, body and rest of the first message.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let kind = u16_at(bytes, 4)?;
    let body = bytes.get(16..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn interface(body: &[u8]) -> Option<Interface> {
    // struct ifinfomsg: family, padding, type, index
    let (link_type, index) = (u16_at(body, 2)?, u32_at(body, 4)?);
    let mut interface = Interface { link_type, index, ..Interface::default() };
    let mut elsewhere = false;
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => interface.name = text(value),
            IFLA_MTU => interface.mtu = u32_at(value, 0).unwrap_or(0),
            IFLA_LINK => interface.lower = u32_at(value, 0).unwrap_or(0),
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_MASTER => interface.master = u32_at(value, 0).unwrap_or(0),
            IFLA_LINKINFO => {
                interface.kind = nested(value, IFLA_INFO_KIND).map_or_else(String::new, text)
            }
            IFLA_XDP => {
                let program = nested(value, IFLA_XDP_PROG_ID).and_then(|id| u32_at(id, 0));
                interface.program = program.unwrap_or(0);
                let place = nested(value, IFLA_XDP_ATTACHED).and_then(<[u8]>::first);
                interface.generic = place == Some(&XDP_ATTACHED_SKB);
            }
            _ => {}
        }
    }
    if elsewhere {
        interface.lower = 0;
    }
    Some(interface)
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & !TYPE_FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn nested(value: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(value).find(|(found, _)| *found == kind).map(|(_, value)| value)
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

    #[test]
    fn messages_that_lie_about_their_length_end_the_walk() {
        assert!(message(&[255, 0, 0, 0, 16, 0]).is_none());
        assert!(message(&[]).is_none());
        assert_eq!(attributes(&[2, 0, 3, 0]).count(), 0);
        assert_eq!(attributes(&[8, 0, 3, 0, b'l', b'o', 0, 0, 200, 0, 1, 0]).count(), 1);
    }
}
