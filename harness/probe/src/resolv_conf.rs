//! resolv.conf(5), as much of it as a kubelet writes: `nameserver`, `search`, `options ndots:N`.
//!
//! Pure: text in, names to ask for out.

use std::net::{IpAddr, SocketAddr};

/// The port of a name server that does not say another.
const DNS: u16 = 53;

/// What resolv.conf(5) means when it does not say.
const DEFAULT_NDOTS: usize = 1;

/// Who resolves names, and what is appended to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// The servers, in order. `10.96.0.10`, or `[10.96.0.10]:5353` as in OpenBSD's resolv.conf(5).
    pub(crate) nameservers: Vec<SocketAddr>,
    /// The domains to append, in order, without dots at their ends.
    pub(crate) search: Vec<String>,
    /// A name with at least this many dots is tried as it is first.
    pub(crate) ndots: usize,
}

impl ResolvConf {
    /// Reads the file's text. Lines and words that it does not know are skipped, as libc does; of
    /// several `search` or `domain` lines the last counts.
    pub(crate) fn parse(text: &str) -> Self {
        let mut conf = Self { nameservers: Vec::new(), search: Vec::new(), ndots: DEFAULT_NDOTS };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.nameservers.extend(words.next().and_then(nameserver)),
                Some("search" | "domain") => {
                    conf.search = words.map(|domain| domain.trim_matches('.').to_owned()).collect();
                    conf.search.retain(|domain| !domain.is_empty());
                }
                Some("options") => {
                    let given =
                        words.rev().find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    conf.ndots = given.unwrap_or(conf.ndots);
                }
                _ => {}
            }
        }
        conf
    }

    /// The fully qualified names to ask for, in order, without a dot at their end: resolv.conf(5),
    /// `search` and `ndots`. A name with a dot at its end is asked for as it is only.
    pub(crate) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut candidates: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let as_it_is_first = name.matches('.').count() >= self.ndots;
        let position = if as_it_is_first { 0 } else { candidates.len() };
        candidates.insert(position, name.to_owned());
        candidates
    }
}

fn nameserver(word: &str) -> Option<SocketAddr> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, DNS));
    }
    let (address, port) = word.strip_prefix('[')?.split_once("]:")?;
    Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kubelet writes it for a pod with `dnsPolicy: ClusterFirst`.
    const POD: &str = "search zt-shop.svc.cluster.local svc.cluster.local cluster.local\n\
                       nameserver 10.96.0.10\n\
                       options ndots:5\n";

    #[test]
    fn a_pod_s_file_is_read() {
        assert_eq!(
            ResolvConf::parse(POD),
            ResolvConf {
                nameservers: vec![SocketAddr::from(([10, 96, 0, 10], 53))],
                search: vec![
                    "zt-shop.svc.cluster.local".into(),
                    "svc.cluster.local".into(),
                    "cluster.local".into()
                ],
                ndots: 5,
            }
        );
    }

    #[test]
    fn comments_rubbish_and_unknown_options_are_skipped() {
        let conf = ResolvConf::parse(
            "# nameserver 10.0.0.1\n; search a\nnameserver\nnameserver x\nsortlist 1\n\
             nameserver fd00::a # v6\noptions timeout:1 ndots:x ndots:3 edns0\nsearch . b.\n",
        );
        assert_eq!(conf.nameservers, ["[fd00::a]:53".parse().unwrap()]);
        assert_eq!((conf.search, conf.ndots), (vec!["b".to_owned()], 3));
    }

    #[test]
    fn a_nameserver_may_say_its_port() {
        let conf = ResolvConf::parse("nameserver [127.0.0.1]:5353\nnameserver [::1]:54\n");
        assert_eq!(
            conf.nameservers,
            ["127.0.0.1:5353".parse().unwrap(), "[::1]:54".parse().unwrap()]
        );
    }

    #[test]
    fn the_last_search_line_counts() {
        assert_eq!(ResolvConf::parse("search a b\nsearch c\n").search, ["c"]);
    }

    #[test]
    fn a_name_with_few_dots_goes_through_the_search_list_first() {
        assert_eq!(
            ResolvConf::parse(POD).candidates("ledger.zt-pay"),
            [
                "ledger.zt-pay.zt-shop.svc.cluster.local",
                "ledger.zt-pay.svc.cluster.local",
                "ledger.zt-pay.cluster.local",
                "ledger.zt-pay",
            ]
        );
    }

    #[test]
    fn a_name_with_many_dots_is_tried_as_it_is_first() {
        assert_eq!(
            ResolvConf::parse("search b\noptions ndots:2\n").candidates("x.y.z"),
            ["x.y.z", "x.y.z.b"]
        );
    }

    #[test]
    fn a_name_with_a_final_dot_is_tried_as_it_is_only() {
        assert_eq!(ResolvConf::parse(POD).candidates("api.example."), ["api.example"]);
    }
}
