//! Whether changes are realised: what the API server says of policies, and what enforcement points do.

use ztc_engine::fabric::{Change, Settling};
use ztc_model::suite::Component;

use super::RealLane;
use crate::api;
use crate::fabric::ClusterError;

impl RealLane {
    /// Whether Cilium has said of each policy what it must say: that one is invalid where it has to be, and of no other.
    pub(super) async fn judged(&self, changes: &[&Change]) -> Result<Settling, ClusterError> {
        for change in changes {
            let (Change::Added { object, .. } | Change::Invalid { object }) = change else {
                continue;
            };
            let must_be_invalid = matches!(change, Change::Invalid { .. });
            match (api::validity(&self.client, object).await?, must_be_invalid) {
                (None, true) => {
                    let status = format!("nobody says whether {object} is valid");
                    return Ok(Settling::NotYet { status });
                }
                (Some(Ok(())), true) => {
                    return Err(ClusterError::Valid { object: object.clone() });
                }
                (Some(Err(reason)), false) => {
                    return Err(ClusterError::Invalid { object: object.clone(), reason });
                }
                _ => {}
            }
        }
        Ok(Settling::Realised)
    }

    /// What of restarts is still to come: those who enforce have to be there, and to be heard.
    pub(super) async fn restart_lag(
        &self,
        changes: &[&Change],
    ) -> Result<Option<String>, ClusterError> {
        for change in changes {
            let Change::Restarted { component, before } = change else {
                continue;
            };
            let status = match (component, &self.ztunnels) {
                (Component::Cilium, _) => {
                    let unheard = || self.observers.unheard_flows();
                    self.agents.restart_lag(before).await?.or_else(unheard)
                }
                (Component::Ztunnel, Some(ztunnels)) => {
                    let unheard = || self.observers.unheard_connections();
                    let nodes = self.agents.nodes().await.len();
                    ztunnels.restart_lag(before, nodes).await?.or_else(unheard)
                }
                (Component::Ztunnel, None) => None,
            };
            if status.is_some() {
                return Ok(status);
            }
        }
        Ok(None)
    }
}

/// What two looks come to that are made at the same time: both have to be met.
///
/// An agent or an API server that restarts does not answer for a while, or closes a connection in the midst of a question:
/// policies are not known to be realised then, and the ceiling says how long that may last. What will not pass is an error
/// whatever else was seen.
pub(super) fn both(
    one: Result<Settling, ClusterError>,
    other: Result<Settling, ClusterError>,
) -> Result<Settling, ClusterError> {
    match (one, other) {
        (Err(error), _) | (_, Err(error)) if !error.may_pass() => Err(error),
        (Err(error), _) | (_, Err(error)) => {
            Ok(Settling::NotYet { status: ztc_engine::chain(&error) })
        }
        (Ok(Settling::Realised), Ok(other)) => Ok(other),
        (Ok(one), Ok(_)) => Ok(one),
    }
}

#[cfg(test)]
mod tests {
    use ztc_model::manifest::ObjectRef;

    use super::*;
    use crate::api::ApiError;
    use crate::refusal::Refusal;

    fn object() -> ObjectRef {
        ObjectRef {
            api_version: "cilium.io/v2".to_owned(),
            kind: "CiliumNetworkPolicy".to_owned(),
            namespace: Some("zt-pay".to_owned()),
            name: "default-deny".to_owned(),
        }
    }

    fn late() -> Settling {
        Settling::NotYet { status: "zt-pay/vault is at revision 3 of 4".to_owned() }
    }

    fn silence() -> ClusterError {
        let source = kube::Error::Service("connection closed before message completed".into());
        ApiError::Read { what: object().to_string(), source: Refusal::from(source) }.into()
    }

    #[test]
    fn a_question_that_is_cut_off_is_asked_again_whichever_it_is() {
        for (one, other) in [
            (Err(silence()), Ok(Settling::Realised)),
            (Ok(Settling::Realised), Err(silence())),
            (Ok(late()), Err(silence())),
            (Err(silence()), Err(silence())),
        ] {
            let both = both(one, other).unwrap();
            assert!(matches!(&both, Settling::NotYet { .. }), "{both:?}");
        }
    }

    #[test]
    fn what_cilium_does_not_take_is_told_whatever_else_is_seen() {
        let refused =
            || ClusterError::Invalid { object: object(), reason: "no endpoints".to_owned() };
        for one in [Ok(Settling::Realised), Ok(late()), Err(silence())] {
            assert!(matches!(both(one, Err(refused())), Err(ClusterError::Invalid { .. })));
        }
        assert!(matches!(both(Err(refused()), Err(silence())), Err(ClusterError::Invalid { .. })));
    }

    #[test]
    fn both_have_to_be_met() {
        let met = || Ok(Settling::Realised);
        assert_eq!(both(met(), met()).unwrap(), Settling::Realised);
        assert_eq!(both(met(), Ok(late())).unwrap(), late());
        assert_eq!(both(Ok(late()), met()).unwrap(), late());
    }
}
