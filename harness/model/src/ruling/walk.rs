//! Rulings about what proxies of the mesh have on record.

use crate::evidence::{Did, Direction, Evidence};
use crate::place::Place;
use crate::policy::Policy;
use crate::policy::mesh::waypoint::{Named, is_bound};
use crate::policy::mesh::ztunnel::{Decision, Distributed, Workload};
use crate::policy::mesh::{Action, AuthorizationPolicy, MeshPolicy};
use crate::suite::{Cell, Origin};
use crate::{waypoint, ztunnel};

use super::{Entry, Part, Rulebook, Ruling, Teller, mesh};

impl Rulebook<'_> {
    /// About a connection at the server's ztunnel. What the client's says is an echo of it.
    pub(super) fn about_connection(
        &self,
        cell: &Cell,
        evidence: &Evidence,
        line: &ztunnel::Line,
    ) -> Vec<Ruling> {
        if evidence.did == Did::RefusePlaintext {
            return self.refusing_plaintext(evidence);
        }
        let Some((connection, server)) = mesh::connection(line).zip(mesh::server(line)) else {
            return Vec::new();
        };
        // Of a pod that got other labels nobody knows which it had.
        let pod = self.world.pod(&server).filter(|_| !self.relabelled.contains(&&server));
        let Some(pod) = pod else { return Vec::new() };
        let workload = Workload { namespace: &pod.namespace, labels: &pod.labels };
        let all = self.policies.iter().filter_map(|it| match &it.manifest.policy {
            Policy::Mesh(policy) => Some(policy),
            _ => None,
        });
        let whole = Distributed::of(all).of_workload(&workload).decide(&connection);
        let matching = |action: Action, named: bool| {
            self.authorizations(action, |entry, policy| {
                if named && !evidence.policies.contains(&entry.policy) {
                    return None;
                }
                let rules = mesh::rules_for_connection(policy, &workload, &connection);
                (!rules.is_empty()).then_some(Part::Rules(rules))
            })
        };
        match (&evidence.did, whole) {
            (Did::DenyByRule { .. }, _) => matching(Action::Deny, true),
            (Did::Allow { direction: Direction::Ingress }, Decision::Allowed) => {
                matching(Action::Allow, false)
            }
            (Did::DenyByDefault { .. }, Decision::NotAllowed) if !cell.expected.is_stream() => self
                .authorizations(Action::Allow, |entry, policy| {
                    let policy = MeshPolicy::Authorization(policy.clone());
                    let alone = Distributed::of([&policy]).of_workload(&workload);
                    (alone.decide(&connection) == Decision::NotAllowed)
                        .then(|| entry.isolation(server.to_string()))
                }),
            _ => Vec::new(),
        }
    }

    /// About a request at a waypoint. That names the rule which denies itself.
    pub(super) fn about_request(
        &self,
        cell: &Cell,
        evidence: &Evidence,
        line: &waypoint::Line,
    ) -> Vec<Ruling> {
        let Some((namespace, name)) = evidence.node.split_once('/') else { return Vec::new() };
        let gateway = Named { namespace, name };
        let service = mesh::service(line, self.world);
        let named = service.map(|it| Named { namespace: &it.namespace, name: &it.name });
        match &evidence.did {
            Did::DenyByRule { .. } => {
                let Some(index) = evidence.named_rule() else { return Vec::new() };
                let by_log = |entry: &Entry<'_>| Ruling {
                    policy: entry.written.clone(),
                    part: Part::Rules(vec![mesh::rule(index)]),
                    by: Teller::Log,
                };
                let named =
                    self.policies.iter().filter(|it| evidence.policies.contains(&it.policy));
                named.map(by_log).collect()
            }
            Did::DenyByDefault { .. } if !cell.expected.is_stream() => {
                let services: Vec<Named<'_>> = named.into_iter().collect();
                self.authorizations(Action::Allow, |entry, policy| {
                    let mesh_policy = MeshPolicy::Authorization(policy.clone());
                    let holds = !policy.dry_run && is_bound(&mesh_policy, gateway, &services);
                    let whom = named.unwrap_or(gateway);
                    holds.then(|| entry.isolation(format!("{}/{}", whom.namespace, whom.name)))
                })
            }
            Did::Allow { .. } => {
                let Origin::Pod(client) = &cell.from else { return Vec::new() };
                let Some(asked) = mesh::asked(line, client, self.world) else { return Vec::new() };
                self.authorizations(Action::Allow, |_, policy| {
                    if !mesh::asks_what_is_logged(policy) {
                        return None;
                    }
                    let rules = mesh::rules_for_request(policy, (gateway, named), &asked).ok()?;
                    (!rules.is_empty()).then_some(Part::Rules(rules))
                })
            }
            _ => Vec::new(),
        }
    }

    /// Which mode refuses a peer that speaks in plain, of a policy that the record names: that of the port, or its own.
    fn refusing_plaintext(&self, evidence: &Evidence) -> Vec<Ruling> {
        let named = self.policies.iter().filter(|it| evidence.policies.contains(&it.policy));
        let mode = |entry: &Entry<'_>| {
            let Policy::Mesh(MeshPolicy::Peers(_)) = &entry.manifest.policy else { return None };
            let spec = Place::root().field("spec");
            let port = evidence.flow.destination.port().to_string();
            let places = [spec.field("portLevelMtls").field(&port), spec.field("mtls")];
            let object = &entry.manifest.object;
            let (place, said) =
                places.into_iter().find_map(|it| Some((it.clone(), it.of(object)?)))?;
            // Where it says something else it is not what refuses.
            (said.get("mode")? == "STRICT").then_some(())?;
            Some(entry.ruling(Part::Rules(vec![place])))
        };
        named.filter_map(mode).collect()
    }

    /// What those of an action come to.
    fn authorizations(
        &self,
        action: Action,
        part: impl Fn(&Entry<'_>, &AuthorizationPolicy) -> Option<Part>,
    ) -> Vec<Ruling> {
        let of_it = |entry: &Entry<'_>| match &entry.manifest.policy {
            Policy::Mesh(MeshPolicy::Authorization(policy)) if policy.action == action => {
                Some(entry.ruling(part(entry, policy)?))
            }
            _ => None,
        };
        self.policies.iter().filter_map(of_it).collect()
    }
}

impl Entry<'_> {
    /// That it isolates somebody, and where it says whom it is about, if it does.
    fn isolation(&self, whom: String) -> Part {
        let spec = Place::root().field("spec");
        let places = ["selector", "targetRefs"].map(|it| spec.field(it));
        let at = places.into_iter().find(|it| it.of(&self.manifest.object).is_some());
        Part::Isolation { whom, at }
    }
}
