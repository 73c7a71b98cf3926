//! The addresses of this network namespace, asked of the kernel over rtnetlink(7).

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// All addresses, loopback and link-local IPv6 left out, in the kernel's order.
pub(crate) fn addresses() -> io::Result<Vec<IpAddr>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&dump_request(), 0)?;

    let mut addresses = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let length = aligned(message.header.length as usize);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
                    addresses.extend(address(&message).filter(is_told));
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::Done(_) => return Ok(addresses),
                _ => {}
            }
        }
    }
}

fn dump_request() -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let payload = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// A message starts at a multiple of four bytes (`NLMSG_ALIGN`, netlink(3)).
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The interface's own address: `Local` where there is one, as on a point-to-point link `Address`
/// is the other end's (`IFA_LOCAL`, rtnetlink(7)).
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    own.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn is_told(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_told_is_one_of_this_namespace() {
        for address in addresses().unwrap() {
            assert!(is_told(&address), "{address}");
            std::net::UdpSocket::bind((address, 0)).unwrap();
        }
    }

    #[test]
    fn loopback_and_link_local_addresses_are_left_out() {
        let told = |text: &str| is_told(&text.parse().unwrap());
        assert!(told("10.244.1.7") && told("fd00::7") && told("169.254.7.127"));
        assert!(!told("127.0.0.1") && !told("::1") && !told("fe80::1"));
    }

    #[test]
    fn on_a_point_to_point_link_the_own_end_is_taken() {
        let mut message = AddressMessage::default();
        let [own, other] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        message.attributes = vec![AddressAttribute::Address(other), AddressAttribute::Local(own)];
        assert_eq!(address(&message), Some(own));
    }
}
