//! What is replaced, and in which order, on the way from one set of versions to another.
//!
//! The order is that of the projects' own guides: the Gateway API's definitions before who reads them, the network before the
//! mesh on it, and of Istio its kinds, istiod, the CNI agent, ztunnel, and the waypoints. On the way back it is the other way
//! round: a proxy must not be newer than its control plane, nor who reads definitions than these.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use semver::Version;

use crate::suite::Part;

/// Something that is replaced at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The Gateway API's resource definitions.
    GatewayApi,
    /// Cilium: its operator, and the agents node by node.
    Cilium,
    /// Istio's resource definitions.
    IstioBase,
    /// Istio's control plane.
    Istiod,
    /// Istio's CNI agents, node by node.
    IstioCni,
    /// The ztunnels, node by node.
    Ztunnel,
    /// The waypoints, which istiod replaces once it is replaced itself.
    Waypoints,
}

impl Phase {
    /// Those of Istio. Waypoints follow istiod either way.
    const fn of_istio(direction: Ordering) -> [Self; 5] {
        match direction {
            Ordering::Greater => {
                [Self::Ztunnel, Self::IstioCni, Self::Istiod, Self::Waypoints, Self::IstioBase]
            }
            Ordering::Less | Ordering::Equal => {
                [Self::IstioBase, Self::Istiod, Self::IstioCni, Self::Ztunnel, Self::Waypoints]
            }
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GatewayApi => "gateway-api",
            Self::Cilium => "cilium",
            Self::IstioBase => "istio-base",
            Self::Istiod => "istiod",
            Self::IstioCni => "istio-cni",
            Self::Ztunnel => "ztunnel",
            Self::Waypoints => "waypoints",
        })
    }
}

/// Why there is no way from some versions to others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// There is nothing to replace.
    #[error("both have the same versions of everything: there is nothing to upgrade")]
    Same,
    /// The nodes would have to be others.
    #[error(
        "Kubernetes is {from} on one side and {to} on the other: the nodes of a cluster of kind have the version that they \
         were made with; take two with the same"
    )]
    Kubernetes {
        /// Before.
        from: String,
        /// After.
        to: String,
    },
    /// One side lacks a part.
    #[error("only one side has {part}: an upgrade neither installs nor removes a part")]
    OneSided {
        /// Which.
        part: Part,
    },
    /// It is further than the project supports.
    #[error(
        "{part} would go from {from} to {to}; its upgrades and rollbacks are supported from one minor version to the next"
    )]
    TooFar {
        /// Of what.
        part: Part,
        /// Before.
        from: String,
        /// After.
        to: String,
    },
}

/// What is to be replaced between two clusters of these versions, by the name of the part, in order.
///
/// # Errors
/// Why one cannot become the other.
pub fn phases(
    from: &BTreeMap<String, String>,
    to: &BTreeMap<String, String>,
) -> Result<Vec<Phase>, NoWay> {
    let mut differing = BTreeMap::new();
    for part in Part::ALL {
        let name = part.to_string();
        let (from, to) = match (from.get(&name), to.get(&name)) {
            (None, None) => continue,
            (Some(from), Some(to)) if from == to => continue,
            (Some(from), Some(to)) => (from.clone(), to.clone()),
            (None, Some(_)) | (Some(_), None) => return Err(NoWay::OneSided { part }),
        };
        if part == Part::Kubernetes {
            return Err(NoWay::Kubernetes { from, to });
        }
        if part != Part::GatewayApi && is_too_far(&from, &to) {
            return Err(NoWay::TooFar { part, from, to });
        }
        differing.insert(part, direction(&from, &to));
    }
    let mut phases = Vec::new();
    let definitions = differing.get(&Part::GatewayApi);
    phases.extend(definitions.filter(|it| it.is_lt()).map(|_| Phase::GatewayApi));
    phases.extend(differing.get(&Part::Cilium).map(|_| Phase::Cilium));
    phases.extend(differing.get(&Part::Istio).into_iter().flat_map(|it| Phase::of_istio(*it)));
    phases.extend(definitions.filter(|it| it.is_gt()).map(|_| Phase::GatewayApi));
    if phases.is_empty() { Err(NoWay::Same) } else { Ok(phases) }
}

/// Whether a version comes before another one; two that differ are never equal.
fn direction(from: &str, to: &str) -> Ordering {
    match [from, to].map(Version::parse) {
        [Ok(from), Ok(to)] => from.cmp(&to),
        _ => from.cmp(to),
    }
}

/// Whether there is a minor version between them, which has to come first. "The only tested rollback and upgrade path is
/// between consecutive minor releases" (Cilium's upgrade guide); a control plane of Istio supports data planes of its own and
/// the last minor version. Of what is no version nobody knows, and nothing is said.
fn is_too_far(from: &str, to: &str) -> bool {
    let [Ok(from), Ok(to)] = [from, to].map(Version::parse) else { return false };
    from.major != to.major || from.minor.abs_diff(to.minor) > 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn versions(cilium: &str, istio: &str, gateway_api: &str) -> BTreeMap<String, String> {
        let all = [("kubernetes", "1.36.3"), ("cilium", cilium), ("istio", istio)];
        let all = all.into_iter().chain([("gateway-api", gateway_api)]);
        let there = all.filter(|(_, version)| !version.is_empty());
        there.map(|(part, version)| (part.to_owned(), version.to_owned())).collect()
    }

    #[test]
    fn what_differs_is_replaced_in_the_supported_order() {
        let from = versions("1.19.6", "1.30.5", "1.5.1");
        let to = versions("1.20.2", "1.31.1", "1.6.1");
        let phases: Vec<String> =
            phases(&from, &to).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            phases,
            ["gateway-api", "cilium", "istio-base", "istiod", "istio-cni", "ztunnel", "waypoints"]
        );
    }

    #[test]
    fn on_the_way_back_proxies_go_before_their_control_plane() {
        let from = versions("1.20.2", "1.31.1", "1.6.1");
        let to = versions("1.20.2", "1.30.5", "1.5.1");
        let phases: Vec<String> =
            phases(&from, &to).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            phases,
            ["ztunnel", "istio-cni", "istiod", "waypoints", "istio-base", "gateway-api"]
        );
    }

    #[test]
    fn what_is_the_same_is_left_alone() {
        let from = versions("1.19.6", "1.31.0-bench", "1.6.1");
        let to = versions("1.20.2", "1.31.0-bench", "1.6.1");
        assert_eq!(phases(&from, &to), Ok(vec![Phase::Cilium]));
        assert_eq!(phases(&to, &from), Ok(vec![Phase::Cilium]), "and back");
        assert_eq!(phases(&to, &to), Err(NoWay::Same));
    }

    #[test]
    fn what_cannot_be_done_is_told_with_both_versions() {
        let told = |from, to| phases(&from, &to).unwrap_err().to_string();
        let meshed = versions("1.20.2", "1.31.1", "1.6.1");
        let plain = versions("1.20.2", "", "");
        assert!(told(plain, meshed.clone()).starts_with("only one side has istio"));
        let other = BTreeMap::from([("kubernetes".to_owned(), "1.35.5".to_owned())]);
        let kubernetes = BTreeMap::from([("kubernetes".to_owned(), "1.36.3".to_owned())]);
        assert!(told(other, kubernetes).starts_with("Kubernetes is 1.35.5 on one side"));
        let old = versions("1.18.0", "1.31.1", "1.6.1");
        assert!(told(old, meshed.clone()).starts_with("cilium would go from 1.18.0 to 1.20.2"));
        let old = versions("1.20.2", "1.29.6", "1.6.1");
        assert!(told(old, meshed).starts_with("istio would go from 1.29.6 to 1.31.1"));
    }

    proptest! {
        /// The way back has the same phases, and there is one whenever there is a way.
        #[test]
        fn whoever_can_go_can_go_back(
            minors in proptest::array::uniform4(18_u64..22),
            has_mesh in any::<bool>(),
        ) {
            let of = |cilium: u64, istio: u64| {
                let istio = if has_mesh { format!("1.{istio}.0") } else { String::new() };
                versions(&format!("1.{cilium}.1"), &istio, "")
            };
            let (from, to) = (of(minors[0], minors[1]), of(minors[2], minors[3]));
            match (phases(&from, &to), phases(&to, &from)) {
                (Ok(mut there), Ok(mut back)) => {
                    there.sort_unstable();
                    back.sort_unstable();
                    prop_assert!(!there.is_empty());
                    prop_assert_eq!(there, back);
                }
                (Err(_), Err(_)) => {}
                (there, back) => prop_assert!(false, "{there:?} and {back:?}"),
            }
        }
    }
}
