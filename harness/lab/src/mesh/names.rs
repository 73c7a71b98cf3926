//! Names that ztunnels answer by themselves: those of services, in every form in which a client may ask for one.
//!
//! Follows `src/dns/server.rs` of istio/ztunnel. A name that no search list can have made of a service's is somebody
//! else's, and put to the server.

use std::net::IpAddr;

use super::Mesh;
use crate::fault::Fault;

/// The domain of the cluster.
const DOMAIN: &str = "cluster.local";

/// A name that the mesh knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownName {
    /// What is left of it without the domain that a search list has put behind it, if one has.
    pub(crate) stripped: Option<String>,
    /// The addresses behind it.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Mesh {
    /// What the mesh knows of a name, with or without its last dot, that a client in a namespace asks for.
    pub(crate) fn known(&self, namespace: &str, name: &str) -> Option<KnownName> {
        if self.faults.has(Fault::ZtunnelAsksForServices) {
            return None;
        }
        let directory = self.directory();
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        meant(namespace, &name).into_iter().find_map(|(meant, stripped)| {
            let addresses = directory.names.get(&meant)?.clone();
            Some(KnownName { stripped, addresses })
        })
    }
}

/// The names that a client may mean by one, in the order in which they are looked for, and what each was stripped to.
fn meant(namespace: &str, name: &str) -> Vec<(String, Option<String>)> {
    let own = std::iter::once(name.to_owned()).chain(in_full(namespace, name));
    let mut meant: Vec<_> = own.map(|it| (it, None)).collect();
    for domain in [format!("{namespace}.svc.{DOMAIN}"), format!("svc.{DOMAIN}"), DOMAIN.to_owned()]
    {
        let Some(stripped) = name.strip_suffix(&domain).and_then(|it| it.strip_suffix('.')) else {
            continue;
        };
        let all = std::iter::once(stripped.to_owned()).chain(in_full(namespace, stripped));
        meant.extend(all.map(|it| (it, Some(stripped.to_owned()))));
    }
    meant
}

/// The full names that a short one may stand for.
fn in_full(namespace: &str, name: &str) -> Vec<String> {
    let is_of_services = name.rsplit_once('.').is_some_and(|(_, last)| last == "svc");
    match name.split('.').count() {
        1 => vec![format!("{name}.{namespace}.svc.{DOMAIN}")],
        2 => vec![format!("{name}.svc.{DOMAIN}"), format!("{name}.{namespace}.svc.{DOMAIN}")],
        3 if is_of_services => vec![format!("{name}.{DOMAIN}"), format!("{name}.svc.{DOMAIN}")],
        3 => vec![format!("{name}.svc.{DOMAIN}")],
        4 if is_of_services => vec![format!("{name}.{DOMAIN}")],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = "ledger.zt-bank.svc.cluster.local";

    fn mesh(faults: &str) -> Mesh {
        let address = IpAddr::from([10, 96, 0, 10]);
        Mesh::new([], [(LEDGER.to_owned(), address)], faults.parse().unwrap()).unwrap()
    }

    /// The mark of a name that is known as it was asked for.
    const AS_IT_IS: &str = "as it is";

    fn stripped(namespace: &str, name: &str) -> Option<String> {
        let known = mesh("").known(namespace, name)?;
        Some(known.stripped.unwrap_or_else(|| AS_IT_IS.to_owned()))
    }

    #[test]
    fn a_service_is_known_by_its_short_and_its_full_names() {
        for name in [
            "ledger",
            "ledger.zt-bank",
            "ledger.zt-bank.svc",
            LEDGER,
            "Ledger.zt-bank.svc.cluster.local.",
        ] {
            assert_eq!(stripped("zt-bank", name), Some(AS_IT_IS.to_owned()), "{name}");
        }
        assert_eq!(stripped("zt-visit", "ledger.zt-bank"), Some(AS_IT_IS.to_owned()));
        assert_eq!(stripped("zt-visit", "ledger"), None);
    }

    #[test]
    fn a_domain_of_the_search_list_is_taken_off() {
        let known = |name: &str| stripped("zt-visit", name);
        for domain in ["zt-visit.svc.cluster.local", "svc.cluster.local."] {
            let name = format!("ledger.zt-bank.svc.{domain}");
            assert_eq!(known(&name), Some("ledger.zt-bank.svc".to_owned()), "{name}");
        }
        assert_eq!(
            known("ledger.zt-bank.zt-visit.svc.cluster.local"),
            Some("ledger.zt-bank".to_owned())
        );
    }

    #[test]
    fn names_of_others_are_not_known() {
        for name in
            ["partner.zt.test", "x.ledger.zt-bank.svc.cluster.local", "svc.cluster.local", ""]
        {
            assert_eq!(stripped("zt-bank", name), None, "{name}");
        }
        assert_eq!(mesh("ztunnel-asks-for-services").known("zt-bank", "ledger"), None);
    }
}
