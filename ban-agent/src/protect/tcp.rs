//! The host's established TCP connections, from the kernel's own tables (sock_diag(7)): on a busy
//! host that takes a tenth of the time that the text in /proc/net/tcp does.

use std::net::IpAddr;

use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use rustix::net::netlink::SOCK_DIAG;

use super::Error;
use crate::netlink::dump;

/// Peer and inode of each connection.
pub(super) fn established() -> Result<Vec<(IpAddr, u64)>, Error> {
    let mut found = Vec::new();
    for (family, socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::ESTABLISHED,
            socket_id,
        });
        dump(Some(SOCK_DIAG), request, |message| {
            if let SockDiagMessage::InetResponse(response) = message {
                let peer = response.header.socket_id.destination_address.to_canonical();
                found.push((peer, u64::from(response.header.inode)));
            }
        })
        .map_err(|source| Error::Netlink { doing: "list TCP connections", source })?;
    }
    Ok(found)
}
