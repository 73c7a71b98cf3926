//! Rulings: which rules of which policies decided about a flow that is on record.
//!
//! A record of an enforcement point names a policy at best. Which of its rules match is asked of the model, about the very
//! flow that the record is of: its labels, its ports, its name. A policy is dissected for that into policies of one rule
//! each. Where a record names no policy because nothing allowed the flow, the policies that the case applies are asked
//! whether they isolate the endpoint.
//!
//! Nothing is guessed: where a record does not say who the two sides are, where a rule is about what the model does not
//! evaluate, and where model and record do not agree, there is no ruling.

mod mesh;
mod packet;
mod walk;

use std::fmt;
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::evidence::{Did, Evidence, Record};
use crate::manifest::Manifest;
use crate::outcome::Expected;
use crate::place::Place;
use crate::policy::{Decision, Policy, PolicyRef, endpoint_policy};
use crate::suite::{Case, Cell};
use crate::world::{PodRef, World};

pub use mesh::{rules_for_connection, rules_for_request};
pub use packet::{Dissected, Packet};

/// What of a policy decided about a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ruling {
    /// The policy.
    pub policy: PolicyRef,
    /// What of it.
    pub part: Part,
    /// Who says so.
    pub by: Teller,
}

/// What of a policy decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Part {
    /// These rules match the flow: each of them is enough.
    Rules(Vec<Place>),
    /// No rule allows the flow, and that is why it is stopped.
    Isolation {
        /// Whom the policy isolates, so that nothing passes but what a rule allows.
        whom: String,
        /// Where it says whom it is about.
        at: Option<Place>,
    },
    /// None of the names that it lets pass is the one asked for.
    Names(Vec<Place>),
}

/// Who says which rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Teller {
    /// The model of policies: the enforcement point names no rule.
    Model,
    /// The enforcement point itself.
    Log,
}

impl fmt::Display for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "the model",
            Self::Log => "the log",
        })
    }
}

/// The policies of a case, to be asked which of their rules decided.
#[derive(Debug)]
pub struct Rulebook<'a> {
    /// Those that the case leaves in place.
    policies: Vec<Entry<'a>>,
    world: &'a World,
    /// The pods that get other labels meanwhile.
    relabelled: Vec<&'a PodRef>,
}

#[derive(Debug)]
struct Entry<'a> {
    manifest: &'a Manifest,
    policy: PolicyRef,
    written: PolicyRef,
    dissected: OnceLock<Dissected>,
}

impl<'a> Rulebook<'a> {
    /// Of the policies that a case applies and does not take away again. The case as it is `written` may have other names
    /// for the same things: rulings call policies by those.
    pub fn of(case: &'a Case, written: &Case, world: &'a World) -> Self {
        let policies = case.apply.iter().zip(&written.apply);
        let standing = policies.filter(|(it, _)| !case.remove.contains(&it.reference));
        let policies = standing.map(|(manifest, written)| Entry {
            manifest,
            policy: manifest.policy.reference(),
            written: written.policy.reference(),
            dissected: OnceLock::new(),
        });
        let relabelled = case.relabel.iter().map(|it| &it.pod).collect();
        Self { policies: policies.collect(), world, relabelled }
    }

    /// What decided about the flow of a cell that is on record; nothing where that is not known.
    pub fn rulings(&self, cell: &Cell, evidence: &Evidence) -> Vec<Ruling> {
        match &evidence.record {
            Record::Hubble(line) => match Packet::of(&line.flow, evidence, self.world) {
                Some(packet) => self.about_packet(cell, evidence, &packet),
                None => Vec::new(),
            },
            Record::Ztunnel(line) => self.about_connection(cell, evidence, line),
            Record::Waypoint(line) => self.about_request(cell, evidence, line),
        }
    }

    fn about_packet(&self, cell: &Cell, evidence: &Evidence, packet: &Packet) -> Vec<Ruling> {
        match &evidence.did {
            Did::Allow { .. } => match &packet.name {
                Some(_) => self.matching(|_| true, |it| it.names(packet)),
                None => self.matching(
                    |policy| evidence.policies.contains(policy),
                    |it| it.allowing(packet),
                ),
            },
            Did::DenyByRule { .. } => {
                self.matching(|policy| evidence.policies.contains(policy), |it| it.denying(packet))
            }
            Did::RefuseName { .. } => self.without_the_name(packet),
            Did::DenyByDefault { .. } => self.isolating(cell, packet),
            _ => Vec::new(),
        }
    }

    /// The rules of some policies that match.
    fn matching(
        &self,
        concerns: impl Fn(&PolicyRef) -> bool,
        rules: impl Fn(&Dissected) -> Vec<Place>,
    ) -> Vec<Ruling> {
        let asked = self.policies.iter().filter(|it| concerns(&it.policy));
        let found = asked.map(|it| (it, rules(it.dissected())));
        let found = found.filter(|(_, rules)| !rules.is_empty());
        found.map(|(it, rules)| it.ruling(Part::Rules(rules))).collect()
    }

    /// The policies whose names are asked of, where none of any policy is the one.
    fn without_the_name(&self, packet: &Packet) -> Vec<Ruling> {
        if self.policies.iter().any(|it| !it.dissected().names(packet).is_empty()) {
            return Vec::new();
        }
        let asked = self.policies.iter().map(|it| (it, it.dissected().asking(packet)));
        let asked = asked.filter(|(_, places)| !places.is_empty());
        asked.map(|(it, places)| it.ruling(Part::Names(places))).collect()
    }

    /// The policies that isolate the endpoint, if it is they all together that do not allow the packet.
    ///
    /// Of a stream, records are as old as its first policy: nobody knows which of the others were there.
    fn isolating(&self, cell: &Cell, packet: &Packet) -> Vec<Ruling> {
        let concerned: Vec<&Entry<'_>> = match &cell.expected {
            Expected::Interrupted { policy, .. } => {
                self.policies.iter().filter(|it| it.manifest.reference == *policy).collect()
            }
            Expected::Throughout => return Vec::new(),
            _ => self.policies.iter().collect(),
        };
        let all: Vec<&Policy> = concerned.iter().map(|it| &it.manifest.policy).collect();
        let whole = endpoint_policy(all.iter().copied(), &packet.subject);
        if packet.decided_by(&whole) != Decision::NotAllowed {
            return Vec::new();
        }
        let isolating = concerned.into_iter().filter(|it| packet.is_isolated_by(it.manifest));
        let ruling = |it: &Entry<'_>| {
            let (whom, at) = (packet.whom.clone(), packet.isolated_at(it.manifest));
            it.ruling(Part::Isolation { whom, at })
        };
        isolating.map(ruling).collect()
    }
}

impl Entry<'_> {
    fn dissected(&self) -> &Dissected {
        self.dissected.get_or_init(|| Dissected::of(self.manifest))
    }

    fn ruling(&self, part: Part) -> Ruling {
        Ruling { policy: self.written.clone(), part, by: Teller::Model }
    }
}
