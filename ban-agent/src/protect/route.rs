//! Asks the kernel for addresses and gateways, and hears when they change (rtnetlink(7)).

use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteVia},
};
use rustix::net::{RecvFlags, bind, netlink::SocketAddrNetlink, recv};

use super::{Error, Network};
use crate::{
    net::IpNet,
    netlink::{BUFFER, dump, open},
};

/// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// Hears of changed addresses and routes.
pub(super) struct Notifications(OwnedFd);

impl Notifications {
    pub(super) fn subscribe() -> Result<Notifications, Error> {
        let error = |source: rustix::io::Errno| Error::Netlink {
            doing: "listen for address changes",
            source: source.into(),
        };
        let socket = open(None).map_err(error)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS)).map_err(error)?;
        Ok(Notifications(socket))
    }

    /// Takes all that have come. What they say does not matter: the tables are read anew, also
    /// if some were lost.
    pub(super) fn drain(&self) {
        let mut buffer = vec![0; BUFFER];
        loop {
            match recv(&self.0, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Own addresses, their networks, and all gateways of all tables.
pub(super) fn network() -> Result<Network, Error> {
    let mut network = Network::default();
    let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    dump(None, addresses, |message| {
        if let RouteNetlinkMessage::NewAddress(address) = message {
            add_address(&mut network, &address);
        }
    })
    .map_err(|source| Error::Netlink { doing: "list addresses", source })?;
    let routes = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    dump(None, routes, |message| {
        if let RouteNetlinkMessage::NewRoute(route) = message {
            add_gateways(&mut network.gateways, &route.attributes);
        }
    })
    .map_err(|source| Error::Netlink { doing: "list routes", source })?;
    network.gateways.sort_unstable();
    network.gateways.dedup();
    Ok(network)
}

fn add_address(network: &mut Network, message: &AddressMessage) {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the peer's; elsewhere they are the same.
    network.own.extend(local.or(address));
    let length = message.header.prefix_len;
    if let Some(net) = address.and_then(|ip| IpNet::new(ip, length).ok())
        && length < net.max_prefix_len()
    {
        network.onlink.push(net.trunc());
    }
}

/// Routes may be as many as the Internet has; their gateways are few.
fn add_gateways(gateways: &mut Vec<IpAddr>, attributes: &[RouteAttribute]) {
    for attribute in attributes {
        let gateway = match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => IpAddr::V4(*ip),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => IpAddr::V6(*ip),
            RouteAttribute::Via(RouteVia::Inet(ip)) => IpAddr::V4(*ip),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => IpAddr::V6(*ip),
            RouteAttribute::MultiPath(hops) => {
                hops.iter().for_each(|hop| add_gateways(gateways, &hop.attributes));
                continue;
            }
            _ => continue,
        };
        if !gateways.contains(&gateway) {
            gateways.push(gateway);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_loopback() {
        let network = network().unwrap();
        assert!(network.own.contains(&"127.0.0.1".parse().unwrap()), "{network:?}");
        assert!(network.onlink.contains(&"127.0.0.0/8".parse().unwrap()), "{network:?}");
    }

    #[test]
    fn gateways_of_several_paths_are_found() {
        let via = |text: &str| {
            RouteAttribute::Gateway(RouteAddress::from(text.parse::<IpAddr>().unwrap()))
        };
        let mut hop = netlink_packet_route::route::RouteNextHop::default();
        hop.attributes = vec![via("192.0.2.2")];
        let mut gateways = Vec::new();
        add_gateways(
            &mut gateways,
            &[
                via("192.0.2.1"),
                RouteAttribute::MultiPath(vec![hop]),
                RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())),
                via("192.0.2.1"),
            ],
        );
        let expected: [IpAddr; 3] =
            ["192.0.2.1", "192.0.2.2", "fe80::1"].map(|text| text.parse().unwrap());
        assert_eq!(gateways, expected);
    }
}
