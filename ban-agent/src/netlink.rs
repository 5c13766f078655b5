//! One request to the kernel over netlink, and all of its answers (netlink(7)).

use std::{io, os::fd::OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::SocketAddrNetlink, recv, sendto, socket_with,
};

/// The kernel fills at most 32 KiB per datagram of a dump (netlink_dump, net/netlink/af_netlink.c).
pub(crate) const BUFFER: usize = 64 << 10;

/// Returns a netlink socket; protocol `None` is NETLINK_ROUTE.
pub(crate) fn open(protocol: Option<Protocol>) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
}

/// Asks for a table, and hands every answer to `each`.
///
/// # Errors
/// If the kernel refuses, or says what this program does not understand.
pub(crate) fn dump<M>(protocol: Option<Protocol>, request: M, each: impl FnMut(M)) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<M>: From<M>,
{
    exchange(protocol, NLM_F_DUMP, request, each)
}

/// Asks for a change.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn change<M>(protocol: Option<Protocol>, request: M) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<M>: From<M>,
{
    exchange(protocol, NLM_F_ACK, request, |_| ())
}

fn exchange<M>(
    protocol: Option<Protocol>,
    flags: u16,
    request: M,
    mut each: impl FnMut(M),
) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<M>: From<M>,
{
    let socket = open(protocol)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    sendto(&socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let (_, size) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = buffer.get(..size).unwrap_or_default();
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                // an error of code 0 is the acknowledgement
                NetlinkPayload::Error(refused) if refused.code.is_none() => return Ok(()),
                NetlinkPayload::Error(refused) => return Err(refused.to_io()),
                NetlinkPayload::InnerMessage(message) => each(message),
                _ => {}
            }
            // NLMSG_ALIGN
            let aligned = length.max(16).next_multiple_of(4);
            rest = rest.get(aligned..).unwrap_or_default();
        }
    }
}
