//! One question to the kernel over netlink, and all of its answers (netlink(7)).

use std::os::fd::OwnedFd;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::SocketAddrNetlink, recv, sendto, socket_with,
};

use super::Error;

/// The kernel fills at most 32 KiB per datagram of a dump (netlink_dump, net/netlink/af_netlink.c).
pub(super) const BUFFER: usize = 64 << 10;

/// A netlink socket; protocol `None` is NETLINK_ROUTE.
pub(super) fn open(protocol: Option<Protocol>) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
}

/// Hands every answer to `each`.
///
/// # Errors
/// If the kernel refuses, or says what this program does not understand.
pub(super) fn dump<M>(
    protocol: Option<Protocol>,
    doing: &'static str,
    request: M,
    mut each: impl FnMut(M),
) -> Result<(), Error>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<M>: From<M>,
{
    let error = |source: rustix::io::Errno| Error::Netlink { doing, source: source.into() };
    let socket = open(protocol).map_err(error)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    sendto(&socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map_err(error)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let (_, size) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()).map_err(error)?;
        let mut rest = buffer.get(..size).unwrap_or_default();
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest)
                .map_err(|error| Error::Answer(error.to_string()))?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(refused) => {
                    return Err(Error::Netlink { doing, source: refused.to_io() });
                }
                NetlinkPayload::InnerMessage(message) => each(message),
                _ => {}
            }
            // NLMSG_ALIGN
            let aligned = length.max(16).next_multiple_of(4);
            rest = rest.get(aligned..).unwrap_or_default();
        }
    }
}
