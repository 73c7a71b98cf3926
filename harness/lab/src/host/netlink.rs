//! Links, addresses and routes of the calling thread's network namespace, over rtnetlink(7).

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::netdevice;
use rustix::net::{AddressFamily as SocketFamily, SocketType};

/// The loopback device is the first of every namespace.
const LOOPBACK: u32 = 1;

/// The size of the largest IP packet, in bytes.
pub(crate) const MTU: u32 = 1500;

/// How many packets a device holds for a switch that is busy; the kernel's 500 is one burst.
const QUEUE: u32 = 8192;

/// Why the network of a namespace could not be configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// No socket to the kernel.
    #[error("cannot open a netlink socket")]
    Open {
        /// The operating system's reason.
        source: io::Error,
    },
    /// The kernel does not know the device.
    #[error("cannot find device {name}")]
    Find {
        /// Its name.
        name: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The kernel did not do it.
    #[error("cannot {operation}")]
    Request {
        /// What was asked.
        operation: String,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// Brings the namespace's loopback up, and its device of that name with these addresses and the
/// default route for their families.
pub(crate) fn configure(device: &str, addresses: &[IpAddr]) -> Result<(), NetlinkError> {
    let index = index_of(device)
        .map_err(|source| NetlinkError::Find { name: device.to_owned(), source })?;
    let mut kernel = Kernel::open()?;
    kernel.set_link("bring the loopback device up", up(LOOPBACK))?;
    kernel.set_link("bring the TUN device up", tun_up(index))?;
    for address in addresses {
        kernel.ask(
            &format!("add address {address}"),
            RouteNetlinkMessage::NewAddress(host_address(index, *address)),
        )?;
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        if addresses.iter().any(|address| family_of(*address) == family) {
            kernel.ask(
                "add the default route",
                RouteNetlinkMessage::NewRoute(default_route(index, family)),
            )?;
        }
    }
    Ok(())
}

/// Brings packets with a mark, of these bits of it, to the namespace itself, whatever they are for: by a table of routes of its own.
pub(crate) fn bring_back(mark: u32, of_bits: u32, table: u8) -> Result<(), NetlinkError> {
    let mut kernel = Kernel::open()?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut rule = RuleMessage::default();
        rule.header.family = family;
        rule.header.table = table;
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![RuleAttribute::FwMark(mark), RuleAttribute::FwMask(of_bits)];
        kernel.ask("add the rule for what is marked", RouteNetlinkMessage::NewRule(rule))?;
        let mut route = default_route(LOOPBACK, family);
        route.header.table = table;
        route.header.scope = RouteScope::Host;
        route.header.kind = RouteType::Local;
        kernel.ask("add the route of what is marked", RouteNetlinkMessage::NewRoute(route))?;
    }
    Ok(())
}

fn index_of(device: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(SocketFamily::UNIX, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(&socket, device)?)
}

fn up(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn tun_up(index: u32) -> LinkMessage {
    let mut message = up(index);
    // Without a link-local address the kernel sends no router solicitations: every packet on the
    // wire is somebody's.
    let silent = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    message.attributes = vec![
        LinkAttribute::Mtu(MTU),
        LinkAttribute::TxQueueLen(QUEUE),
        LinkAttribute::AfSpecUnspec(vec![silent]),
    ];
    message
}

fn host_address(index: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    message.header.index = index;
    // Nobody else is on the wire: without this an address of IPv6 is not usable at once.
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

fn default_route(index: u32, family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Oif(index)];
    message
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The kernel's end of rtnetlink.
struct Kernel {
    socket: Socket,
    sequence: u32,
}

impl Kernel {
    fn open() -> Result<Self, NetlinkError> {
        let connected = || {
            let socket = Socket::new(NETLINK_ROUTE)?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = connected().map_err(|source| NetlinkError::Open { source })?;
        Ok(Self { socket, sequence: 0 })
    }

    fn set_link(&mut self, operation: &str, message: LinkMessage) -> Result<(), NetlinkError> {
        self.ask(operation, RouteNetlinkMessage::SetLink(message))
    }

    /// Asks for one change and waits for the acknowledgement.
    fn ask(&mut self, operation: &str, message: RouteNetlinkMessage) -> Result<(), NetlinkError> {
        self.exchange(message)
            .map_err(|source| NetlinkError::Request { operation: operation.to_owned(), source })
    }

    fn exchange(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let (reply, _kernel) = self.socket.recv_from_full()?;
        let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&reply)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match reply.payload {
            NetlinkPayload::Error(error) => match error.code {
                None => Ok(()),
                Some(_) => Err(error.to_io()),
            },
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the kernel answered {other:?}"),
            )),
        }
    }
}
