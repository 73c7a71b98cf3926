//! From a host to an address, the way a pod does it: its resolver, its search list, no cache.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use ztc_wire::{DnsRcode, DnsTransport, Family, Host, Leg, Observed, Phase, RecordType, Target};

use super::dns::{self, Response};
use super::failure::unsent;
use crate::resolv_conf::ResolvConf;
use crate::run::Run;

/// The pod's resolver: the first `nameserver` of its resolv.conf(5).
pub(super) fn server(run: &Run) -> Result<SocketAddr, Observed> {
    first_server(&read(run)?)
}

/// The address of a target; a name is asked for with [`Leg::Resolve`], one query a socket.
///
/// Every name of the search list is tried until one has an address, of the wanted family or IPv4 first. When none has, the
/// most telling answer is observed: a refusal or a failure before a plain "no such name", the last
/// one among equals.
pub(super) async fn target(run: &Run, to: &Target) -> Result<SocketAddr, Observed> {
    let name = match &to.host {
        Host::Ip(address) => return Ok(SocketAddr::new(*address, to.port)),
        Host::Name(name) => name,
    };
    run.wait_for(Phase::Resolve);
    let conf = read(run)?;
    let server = first_server(&conf)?;
    let mut negative = None;
    for candidate in conf.candidates(name) {
        match address(run, server, &candidate, to.family).await? {
            Ok(address) => return Ok(SocketAddr::new(address, to.port)),
            Err(rcode) => negative = Some(more_telling(negative, (rcode, candidate))),
        }
    }
    let (rcode, name) = negative.expect("a name has itself as a candidate at least");
    Err(Observed::Unresolved { rcode, name })
}

/// The name's first address, or the response code that said that there is none.
async fn address(
    run: &Run,
    server: SocketAddr,
    name: &str,
    family: Option<Family>,
) -> Result<Result<IpAddr, DnsRcode>, Observed> {
    let mut rcode = DnsRcode::NOERROR;
    let records = match family {
        None => &[RecordType::A, RecordType::Aaaa][..],
        Some(Family::Ipv4) => &[RecordType::A],
        Some(Family::Ipv6) => &[RecordType::Aaaa],
    };
    for &record in records {
        let query = dns::plain_query(name, record)?;
        let Response { rcode: said, answers, .. } =
            dns::ask(run, Leg::Resolve, server, DnsTransport::Udp, &query).await?;
        if let Some(address) = answers.first() {
            return Ok(Ok(*address));
        }
        rcode = said;
        // Only an empty answer leaves hope for the other type: any other code is for the name.
        if rcode != DnsRcode::NOERROR {
            break;
        }
    }
    Ok(Err(rcode))
}

fn more_telling(before: Option<(DnsRcode, String)>, now: (DnsRcode, String)) -> (DnsRcode, String) {
    let is_plain = |rcode| matches!(rcode, DnsRcode::NOERROR | DnsRcode::NXDOMAIN);
    match before {
        Some(before) if !is_plain(before.0) && is_plain(now.0) => before,
        _ => now,
    }
}

fn read(run: &Run) -> Result<ResolvConf, Observed> {
    // A small local file, as libc reads it; another thread for it would cost more than the read.
    let text = fs::read_to_string(run.resolv_conf())
        .map_err(|error| unsent("read the resolver's configuration", error))?;
    Ok(ResolvConf::parse(&text))
}

fn first_server(conf: &ResolvConf) -> Result<SocketAddr, Observed> {
    let nameserver = conf.nameservers.first().copied();
    nameserver.ok_or_else(|| unsent("find a resolver", "no nameserver is configured"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_of(rcodes: &[DnsRcode]) -> (DnsRcode, String) {
        let answers = rcodes.iter().zip('a'..).map(|(rcode, name)| (*rcode, name.to_string()));
        answers.fold(None, |before, now| Some(more_telling(before, now))).unwrap()
    }

    #[test]
    fn a_refusal_is_not_hidden_by_a_later_no_such_name() {
        let answers = [DnsRcode::NXDOMAIN, DnsRcode::REFUSED, DnsRcode::NXDOMAIN];
        assert_eq!(last_of(&answers), (DnsRcode::REFUSED, "b".into()));
    }

    #[test]
    fn among_equals_the_last_answer_is_told() {
        assert_eq!(last_of(&[DnsRcode::NXDOMAIN; 3]), (DnsRcode::NXDOMAIN, "c".into()));
        assert_eq!(last_of(&[DnsRcode::REFUSED; 2]), (DnsRcode::REFUSED, "b".into()));
    }
}
