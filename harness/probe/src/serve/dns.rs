//! The DNS service: authoritative for everything, but it knows its zone only.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::rdata::opt::NSIDPayload;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{LowerName, Name, RData, Record};
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use ztc_wire::{Zone, ZoneAlias, ZoneRecord};

use super::{ServeError, listen};

/// How long a TCP connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);

/// Responses that wait for a slow reader, per TCP connection.
const RESPONSES: usize = 16;

/// How long a negative answer may be remembered, in seconds. Not at all: a name that a policy
/// reveals must be seen at once.
const NEGATIVE_TTL: u32 = 0;

/// The serial of a zone that never changes.
const SERIAL: u32 = 1;

/// A DNS server that listens.
pub(super) struct Server {
    port: u16,
    server: hickory_server::Server<Catalog>,
}

impl Server {
    /// Listens on UDP and TCP, and tells the peer's name as NSID (RFC 5001) to who asks for it.
    pub(super) fn bind(peer: &str, port: u16, zone: &Zone) -> Result<Self, ServeError> {
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::from(Name::root()), vec![Arc::new(authority(zone)?)]);
        let nsid = NSIDPayload::new(peer)
            .map_err(|source| ServeError::OptionName { name: peer.into(), source })?;
        catalog.set_nsid(Some(nsid));

        let mut server = hickory_server::Server::new(catalog);
        for socket in listen::udp(port)? {
            server.register_socket(socket);
        }
        for listener in listen::tcp(port)? {
            server.register_listener(listener, IDLE, RESPONSES);
        }
        Ok(Self { port, server })
    }

    /// Answers until it cannot go on.
    pub(super) async fn serve(mut self) -> ServeError {
        let ended = self.server.block_until_done().await;
        ServeError::Dns { port: self.port, source: ended.err() }
    }
}

/// The zone as a root zone: a name that it does not know does not exist.
fn authority(zone: &Zone) -> Result<InMemoryZoneHandler<TokioRuntimeProvider>, ServeError> {
    let mut authority =
        InMemoryZoneHandler::empty(Name::root(), ZoneType::Primary, AxfrPolicy::Deny);
    let soa = SOA::new(Name::root(), Name::root(), SERIAL, 0, 0, 0, NEGATIVE_TTL);
    authority.upsert_mut(Record::from_rdata(Name::root(), NEGATIVE_TTL, RData::SOA(soa)), SERIAL);
    for record in &zone.records {
        authority.upsert_mut(address_record(record)?, SERIAL);
    }
    for alias in &zone.aliases {
        authority.upsert_mut(alias_record(alias)?, SERIAL);
    }
    Ok(authority)
}

fn address_record(record: &ZoneRecord) -> Result<Record, ServeError> {
    let data = match record.address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Ok(Record::from_rdata(absolute(&record.name)?, record.ttl, data))
}

fn alias_record(alias: &ZoneAlias) -> Result<Record, ServeError> {
    let data = RData::CNAME(CNAME(absolute(&alias.target)?));
    Ok(Record::from_rdata(absolute(&alias.name)?, alias.ttl, data))
}

fn absolute(text: &str) -> Result<Name, ServeError> {
    let mut name = Name::from_ascii(text)
        .map_err(|source| ServeError::Record { name: text.to_owned(), source })?;
    name.set_fqdn(true);
    Ok(name)
}
