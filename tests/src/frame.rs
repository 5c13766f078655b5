//! Raw Ethernet frames on the link: tagged ones need no VLAN device this way, which not every
//! kernel has.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{host::within, net::Namespace, stage::DEVICE};

/// What all frames carry, to be told from the link's other traffic.
pub const MARK: &[u8] = b"ban-agent test frame";
const UDP: u8 = 17;
const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// A packet socket on the link.
#[derive(Debug)]
pub struct Wire(fs::File);

impl Wire {
    /// Opens one in the namespace; it sees every frame that got past the driver.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        within(namespace, || bound().map(|socket| Self(socket.into())))
    }

    /// Room for a burst, so that nothing is lost before it is looked at.
    pub fn widen(&self) -> Result<()> {
        let size: libc::c_int = 16 << 20;
        let length = libc::socklen_t::try_from(size_of_val(&size))?;
        let value = (&raw const size).cast();
        let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
        // SAFETY: the value lives through the call and its length is its own.
        let done = unsafe { libc::setsockopt(self.0.as_raw_fd(), level, name, value, length) };
        ensure!(done == 0, "cannot widen a buffer: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.0.write_all(frame).context("cannot send a frame")
    }

    /// Receives until `count` of the frames that bear the mark begin with `text` or `limit` is over;
    /// the payloads behind the marks of all that bore one.
    pub fn marked_until(
        &mut self,
        text: &[u8],
        count: usize,
        limit: Duration,
    ) -> Result<Vec<Vec<u8>>> {
        let (since, mut seen) = (Instant::now(), Vec::new());
        let mut missing = count;
        while missing > 0 && since.elapsed() < limit {
            let Some(frame) = self.receive()? else { continue };
            let place = frame.windows(MARK.len()).position(|part| part == MARK);
            let Some(payload) = place.and_then(|at| frame.get(at + MARK.len()..)) else { continue };
            seen.push(payload.to_vec());
            missing -= usize::from(payload.starts_with(text));
        }
        Ok(seen)
    }

    /// The next frame; `None` if none comes for a moment.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let brief = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&brief))? == 0 {
            return Ok(None);
        }
        let mut frame = vec![0; 2048];
        let length = rustix::io::read(&self.0, &mut frame).context("cannot receive a frame")?;
        frame.truncate(length);
        Ok(Some(frame))
    }
}

fn bound() -> Result<OwnedFd> {
    let every = u16::try_from(libc::ETH_P_ALL).context("ETH_P_ALL")?.to_be();
    // SAFETY: socket(2) takes no pointers.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(every)) };
    ensure!(raw >= 0, "cannot open a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let index = rustix::net::netdevice::name_to_index(&socket, DEVICE)?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: every,
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: the address lives through the call and its length is its own.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    ensure!(done == 0, "cannot bind a packet socket: {}", std::io::Error::last_os_error());
    Ok(socket)
}

/// An Ethernet frame to everybody with these tags (`(ethertype, id)`), then a packet.
pub fn ethernet(tags: &[(u16, u16)], packet: &Packet) -> Vec<u8> {
    ethernet_to([0xff; 6], tags, packet)
}

/// The same to one station.
pub fn ethernet_to(station: [u8; 6], tags: &[(u16, u16)], packet: &Packet) -> Vec<u8> {
    let mut frame = Vec::from(station);
    frame.extend([0x02, 0, 0, 0, 0, 0x66]);
    for (kind, id) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(packet.kind.to_be_bytes());
    frame.extend(&packet.bytes);
    frame
}

/// An IP packet with a UDP datagram in it.
#[derive(Clone, Debug)]
pub struct Packet {
    kind: u16,
    bytes: Vec<u8>,
}

impl Packet {
    /// IPv4 (RFC 791); the header's checksum is left out, nobody gets that far.
    pub fn v4(from: Ipv4Addr, to: Ipv4Addr, text: &[u8]) -> Result<Self> {
        let udp = datagram(text)?;
        let length = u16::try_from(20 + udp.len())?;
        let mut bytes = vec![0x45, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
        bytes.extend(from.octets());
        bytes.extend(to.octets());
        bytes.extend(udp);
        Ok(Self { kind: 0x0800, bytes })
    }

    /// IPv6 (RFC 8200).
    pub fn v6(from: Ipv6Addr, to: Ipv6Addr, text: &[u8]) -> Result<Self> {
        let udp = datagram(text)?;
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(u16::try_from(udp.len())?.to_be_bytes());
        bytes.extend([UDP, 64]);
        bytes.extend(from.octets());
        bytes.extend(to.octets());
        bytes.extend(udp);
        Ok(Self { kind: 0x86dd, bytes })
    }
}

impl Packet {
    /// A TCP SYN between these ports, as a real stack takes it: with its checksums.
    pub fn syn(from: IpAddr, to: IpAddr, ports: (u16, u16)) -> Result<Self> {
        let mut tcp = Vec::new();
        tcp.extend(ports.0.to_be_bytes());
        tcp.extend(ports.1.to_be_bytes());
        tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0x20, 0, 0, 0, 0, 0]);
        let (kind, mut header) = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let length = u16::try_from(20 + tcp.len())?;
                let mut header = vec![0x45, 0];
                header.extend(length.to_be_bytes());
                header.extend([0, 0, 0, 0, 64, TCP, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                let sum = checksum(&[&header]).to_be_bytes();
                header.splice(10..12, sum);
                (0x0800, header)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(u16::try_from(tcp.len())?.to_be_bytes());
                header.extend([TCP, 64]);
                header.extend(from.octets());
                header.extend(to.octets());
                (0x86dd, header)
            }
            _ => bail!("{from} and {to} are of different families"),
        };
        let addresses = header.get(if from.is_ipv4() { 12.. } else { 8.. }).unwrap_or_default();
        let pseudo = [0, TCP, 0, u8::try_from(tcp.len())?];
        let sum = checksum(&[addresses, &pseudo, &tcp]).to_be_bytes();
        tcp.splice(16..18, sum);
        header.extend(tcp);
        Ok(Self { kind, bytes: header })
    }

    /// The packet without a frame around it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// If the untagged frame is a SYN-ACK from this port, the port that it goes to.
pub fn syn_ack(frame: &[u8], from: u16) -> Option<u16> {
    bare_syn_ack(frame.get(14..)?, from)
}

/// The same without a frame around the packet, which has no options.
pub fn bare_syn_ack(packet: &[u8], from: u16) -> Option<u16> {
    let at = match packet.first()? >> 4 {
        4 => 20,
        6 => 40,
        _ => return None,
    };
    let tcp = packet.get(at..at + 14)?;
    let [a, b, c, d, .., flags] = tcp else { return None };
    let ours = u16::from_be_bytes([*a, *b]) == from && flags & (SYN | ACK) == SYN | ACK;
    ours.then(|| u16::from_be_bytes([*c, *d]))
}

/// The Internet checksum (RFC 1071); each part has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|word| match word {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

fn datagram(text: &[u8]) -> Result<Vec<u8>> {
    let length = u16::try_from(8 + MARK.len() + text.len())?;
    let mut bytes = Vec::from([0x30, 0x39, 0x30, 0x39]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(MARK);
    bytes.extend(text);
    Ok(bytes)
}
