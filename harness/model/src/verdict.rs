//! Verdicts: a pure function of recorded facts.
//!
//! The order of the questions is the product: a leak outranks everything, then comes whether the
//! question could be asked at all, then whether the answer has proof.

mod refusal;
mod stream;
mod wire;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capture::{AtNode, Wire};
use crate::evidence::{Did, Evidence};
use crate::manifest::ObjectRef;
use crate::outcome::{EnforcementPoint, Expected, Form, Reading, Seen};

pub use stream::lost;

/// What a cell, a case or a run comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is as expected, and there is proof.
    Pass,
    /// It is not as expected.
    Fail(Failure),
    /// There is no proof either way. Never a pass.
    Inconclusive(Doubt),
}

/// How an expectation was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// A flow that must be denied got through: a leak.
    FailOpen {
        /// What was seen: who answered, or what came instead of silence.
        seen: String,
        /// When the leaked flow was sent, milliseconds after the API accepted the policies.
        after_ms: u64,
    },
    /// A flow that must be encrypted was on the wire in clear: a leak of what is in it.
    InClear {
        /// On which node.
        node: String,
        /// From whom to whom, and how often.
        seen: String,
    },
    /// A flow that must pass did not.
    FailClosed {
        /// What was seen instead.
        seen: String,
        /// Who stopped it, by its own record, if anybody said so.
        stopped_by: Option<String>,
    },
    /// It was denied, but by somebody else, or in another form.
    WrongLayer {
        /// Who should have stopped it.
        expected: String,
        /// Who did.
        found: String,
    },
    /// A controller says something else of a policy or a service.
    WrongCondition {
        /// Of what.
        object: Box<ObjectRef>,
        /// What it should say.
        expected: String,
        /// What it says.
        found: String,
    },
    /// It was denied by the right enforcement point, which names another policy.
    WrongPolicy {
        /// The policy that should have stopped it.
        expected: ObjectRef,
        /// The policies that the record names.
        found: Vec<String>,
    },
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Doubt {
    /// The case could not begin.
    Precondition(String),
    /// The same stimulus did not pass when it must: its denial says nothing.
    Control(String),
    /// The client could not send, or its agent failed.
    Client(String),
    /// Nothing that was seen or recorded decides the question.
    NoEvidence(String),
    /// Removing the policy alone did not let the flow pass: somebody else denies it too.
    NoProof(String),
    /// Traffic did not recover after the case.
    NoRecovery(String),
    /// The fabric failed.
    Fabric(String),
    /// The run was interrupted.
    Interrupted,
}

impl Verdict {
    /// How bad it is: a run comes to its worst case, a case to its worst cell.
    pub const fn severity(&self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Inconclusive(_) => 1,
            Self::Fail(failure) if failure.is_leak() => 3,
            Self::Fail(_) => 2,
        }
    }

    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(Failure::FailOpen { .. } | Failure::InClear { .. }) => "fail-open",
            Self::Fail(Failure::FailClosed { .. }) => "fail-closed",
            Self::Fail(Failure::WrongLayer { .. }) => "wrong-layer",
            Self::Fail(Failure::WrongPolicy { .. }) => "wrong-policy",
            Self::Fail(Failure::WrongCondition { .. }) => "wrong-condition",
            Self::Inconclusive(_) => "inconclusive",
        }
    }

    /// The worst of several; a pass when there are none.
    pub fn worst(verdicts: impl IntoIterator<Item = Self>) -> Self {
        // The first of equals: `max_by_key` alone would take the last.
        verdicts.into_iter().fold(Self::Pass, |worst, verdict| {
            if verdict.severity() > worst.severity() { verdict } else { worst }
        })
    }
}

impl Failure {
    /// Whether something came out that must not: who gets through, or what is in a flow.
    pub const fn is_leak(&self) -> bool {
        matches!(self, Self::FailOpen { .. } | Self::InClear { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Fail(failure) => failure.fmt(f),
            Self::Inconclusive(doubt) => doubt.fmt(f),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailOpen { seen, after_ms } => {
                write!(f, "fail-open: {seen}, sent {after_ms} ms after the policies were accepted")
            }
            Self::InClear { node, seen } => {
                write!(f, "fail-open: its nonce was on the wire in clear on node {node}: {seen}")
            }
            Self::FailClosed { seen, stopped_by: Some(by) } => {
                write!(f, "fail-closed: {seen}; {by}")
            }
            Self::FailClosed { seen, stopped_by: None } => {
                write!(f, "fail-closed: {seen}; no enforcement point says that it stopped it")
            }
            Self::WrongLayer { expected, found } => {
                write!(f, "wrong-layer: {expected} should have stopped it, {found} did")
            }
            Self::WrongCondition { object, expected, found } => {
                write!(f, "wrong-condition: {object} should say {expected}, and says {found}")
            }
            Self::WrongPolicy { expected, found } => write!(
                f,
                "wrong-policy: {expected} should have stopped it, the record names {}",
                found.join(", ")
            ),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Precondition(why) => write!(f, "inconclusive: precondition not met: {why}"),
            Self::Control(why) => write!(f, "inconclusive: control failed: {why}"),
            Self::Client(why) => write!(f, "inconclusive: the client failed: {why}"),
            Self::NoEvidence(why) => write!(f, "inconclusive: no evidence: {why}"),
            Self::NoProof(why) => write!(f, "inconclusive: no proof: {why}"),
            Self::NoRecovery(why) => write!(f, "inconclusive: traffic did not recover: {why}"),
            Self::Fabric(why) => write!(f, "inconclusive: the fabric failed: {why}"),
            Self::Interrupted => f.write_str("inconclusive: the run was interrupted"),
        }
    }
}

/// The facts of one cell, in the order in which they came about.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Why the cell could not be begun or finished, if so.
    pub broken: Option<Doubt>,
    /// The stimulus before the policies, or the twin's under them; of what is refused without a policy what differs from it
    /// in one attribute. Absent for allowed cells.
    pub control: Option<Seen>,
    /// Whether a denial became true before the ceiling; when it did not, why.
    pub unsettled: Option<String>,
    /// Every stimulus sent from before the first policy until all were enforced, of a flow that is watched
    /// throughout.
    pub meanwhile: Vec<Sample>,
    /// Every stimulus sent after the policies were enforced, in the order of sending.
    pub samples: Vec<Sample>,
    /// What was said meanwhile of tunnels between the two. A tunnel carries any number of connections, so it
    /// is not known which of the samples a record is about.
    pub beyond: Vec<Arc<Evidence>>,
    /// What captures saw of it, by node, where the case asks.
    pub wire: Vec<AtNode>,
    /// The stimulus after the removal of the denying policy alone; of what is refused without one what differs from it in one
    /// attribute, under the same policies.
    pub proof: Option<Seen>,
    /// The stimulus after the removal of everything.
    pub recovery: Option<Seen>,
}

/// One stimulus sent under the policies.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was sent, milliseconds after the API accepted the last policy; 0 before that.
    pub after_ms: u64,
    /// What the client saw in the end.
    pub seen: Seen,
    /// What enforcement points said of this very flow.
    pub evidence: Vec<Arc<Evidence>>,
}

/// Judges one cell. `peers` are the names that may answer.
pub fn judge(expected: &Expected, peers: &BTreeSet<String>, facts: &Facts) -> Verdict {
    match expected {
        Expected::Allowed { via, wire } => {
            let exposed = (*wire == Some(Wire::Encrypted)).then(|| wire::leak(facts)).flatten();
            if let Some(exposed) = exposed {
                return Verdict::Fail(exposed);
            }
            match (judge_allowed(*via, peers, facts), wire) {
                (Verdict::Pass, Some(wire)) => verdict_of(wire::judge(*wire, facts)),
                (verdict, _) => verdict,
            }
        }
        Expected::Throughout => verdict_of(stream::unbroken(peers, facts)),
        Expected::Interrupted { by, form, policy } => {
            let denial = Denial { by: *by, form: *form, policy, behind: &[] };
            verdict_of(stream::interrupted(&denial, peers, facts))
        }
        Expected::Denied { by, form, policy, behind } => {
            let denial = Denial { by: *by, form: *form, policy, behind };
            if let Some(leak) = leak(peers, facts) {
                return Verdict::Fail(leak);
            }
            verdict_of(judge_denied(&denial, peers, facts))
        }
        Expected::Refused { by, form } => {
            if let Some(leak) = leak(peers, facts) {
                return Verdict::Fail(leak);
            }
            verdict_of(refusal::judge((*by, *form), peers, facts))
        }
    }
}

fn verdict_of(judged: Result<(), Verdict>) -> Verdict {
    judged.err().unwrap_or(Verdict::Pass)
}

/// The first flow that got through although it must not. No doubt outranks it.
fn leak(peers: &BTreeSet<String>, facts: &Facts) -> Option<Failure> {
    facts.samples.iter().find_map(|sample| match Reading::of(&sample.seen, peers) {
        Reading::Through { .. } | Reading::Astray { .. } => {
            Some(Failure::FailOpen { seen: sample.seen.to_string(), after_ms: sample.after_ms })
        }
        _ => None,
    })
}

fn judge_allowed(
    via: Option<EnforcementPoint>,
    peers: &BTreeSet<String>,
    facts: &Facts,
) -> Verdict {
    if let Some(doubt) = &facts.broken {
        return Verdict::Inconclusive(doubt.clone());
    }
    if facts.samples.is_empty() {
        return Verdict::Inconclusive(Doubt::NoEvidence("nothing was sent".to_owned()));
    }
    for sample in &facts.samples {
        match Reading::of(&sample.seen, peers) {
            Reading::Through { .. } => {}
            Reading::Unsent { why } => return Verdict::Inconclusive(Doubt::Client(why)),
            Reading::Astray { what } | Reading::Unclear { what } => {
                return Verdict::Fail(Failure::FailClosed { seen: what, stopped_by: None });
            }
            Reading::Stopped => {
                let stopped_by = sample.evidence.iter().find(|it| it.did.is_denial());
                return Verdict::Fail(Failure::FailClosed {
                    seen: sample.seen.to_string(),
                    stopped_by: stopped_by.map(|it| testimony(it)),
                });
            }
        }
    }
    let samples = facts.samples.iter().flat_map(|sample| &sample.evidence);
    let mut records = samples.chain(&facts.beyond);
    match via {
        Some(via) if !records.any(|it| it.point == via && !it.did.is_denial()) => {
            let why = format!("no record of {via} says that it let this flow pass");
            Verdict::Inconclusive(Doubt::NoEvidence(why))
        }
        _ => Verdict::Pass,
    }
}

struct Denial<'a> {
    by: Option<EnforcementPoint>,
    form: Option<Form>,
    policy: &'a ObjectRef,
    behind: &'a [ObjectRef],
}

impl Denial<'_> {
    /// What is removed to see the flow pass.
    fn removal(&self) -> String {
        match self.behind {
            [] => format!("{} alone", self.policy),
            behind => {
                let behind: Vec<String> = behind.iter().map(ToString::to_string).collect();
                format!("{} and what is behind it, {}", self.policy, behind.join(", "))
            }
        }
    }
}

/// Whether the question could be asked, and every stimulus was stopped.
fn was_stopped(peers: &BTreeSet<String>, facts: &Facts) -> Result<(), Verdict> {
    let doubt = |doubt| Err(Verdict::Inconclusive(doubt));
    if let Some(broken) = &facts.broken {
        return doubt(broken.clone());
    }
    match &facts.control {
        None => return doubt(Doubt::Control("it was never taken".to_owned())),
        Some(seen) => {
            passes(seen, peers).map_err(|why| Verdict::Inconclusive(Doubt::Control(why)))?;
        }
    }
    if facts.samples.is_empty() {
        let why = facts.unsettled.clone();
        return doubt(Doubt::NoEvidence(why.unwrap_or_else(|| "nothing was sent".to_owned())));
    }
    for sample in &facts.samples {
        match Reading::of(&sample.seen, peers) {
            Reading::Unsent { why } => return doubt(Doubt::Client(why)),
            Reading::Unclear { what } => return doubt(Doubt::NoEvidence(what)),
            _ => {}
        }
    }
    Ok(())
}

fn judge_denied(
    denial: &Denial<'_>,
    peers: &BTreeSet<String>,
    facts: &Facts,
) -> Result<(), Verdict> {
    let doubt = |doubt| Err(Verdict::Inconclusive(doubt));
    was_stopped(peers, facts)?;
    if let Some(why) = &facts.unsettled {
        return doubt(Doubt::NoEvidence(why.clone()));
    }
    let records = facts.samples.iter().flat_map(|it| &it.evidence).chain(&facts.beyond);
    attribute(denial, records.collect())?;
    let proof = facts.proof.as_ref().ok_or_else(|| {
        Verdict::Inconclusive(Doubt::NoProof("the policy was not removed".to_owned()))
    })?;
    passes(proof, peers).map_err(|why| {
        let why = format!("after removing {}: {why}", denial.removal());
        Verdict::Inconclusive(Doubt::NoProof(why))
    })?;
    match &facts.recovery {
        None => doubt(Doubt::NoRecovery("it was not tried".to_owned())),
        Some(seen) => {
            passes(seen, peers).map_err(|why| Verdict::Inconclusive(Doubt::NoRecovery(why)))
        }
    }
}

/// Whether a fact shows a flow that gets through, as a control or a proof must.
pub fn passes(seen: &Seen, peers: &BTreeSet<String>) -> Result<(), String> {
    match Reading::of(seen, peers) {
        Reading::Through { .. } => Ok(()),
        _ => Err(seen.to_string()),
    }
}

/// Compares who stopped the flow with who should have. All records have to agree.
fn attribute(denial: &Denial<'_>, mut records: Vec<&Arc<Evidence>>) -> Result<(), Verdict> {
    records.retain(|it| it.did.is_denial());
    let Some(by) = denial.by else {
        return Ok(());
    };
    if records.is_empty() {
        return Err(Verdict::Inconclusive(Doubt::NoEvidence(format!(
            "no record of {by} about this flow"
        ))));
    }
    for evidence in &records {
        if evidence.point != by {
            return Err(Verdict::Fail(Failure::WrongLayer {
                expected: by.to_string(),
                found: testimony(evidence),
            }));
        }
        let form = form_of(&evidence.did);
        if denial.form.is_some() && form.is_some() && denial.form != form {
            return Err(Verdict::Fail(Failure::WrongLayer {
                expected: format!("{by} as {}", denial.form.unwrap_or(Form::DefaultDeny)),
                found: testimony(evidence),
            }));
        }
        if !evidence.policies.is_empty()
            && !evidence.policies.iter().any(|policy| ObjectRef::from(policy) == *denial.policy)
        {
            return Err(Verdict::Fail(Failure::WrongPolicy {
                expected: denial.policy.clone(),
                found: evidence.policies.iter().map(ToString::to_string).collect(),
            }));
        }
    }
    // A deny rule is named by its record; a nameless one attributes nothing.
    if denial.form == Some(Form::ExplicitDeny) && records.iter().all(|it| it.policies.is_empty()) {
        return Err(Verdict::Inconclusive(Doubt::NoEvidence(format!(
            "no record of {by} names the policy of the deny rule"
        ))));
    }
    Ok(())
}

const fn form_of(did: &Did) -> Option<Form> {
    match did {
        Did::DenyByRule { .. } => Some(Form::ExplicitDeny),
        Did::DenyByDefault { .. } => Some(Form::DefaultDeny),
        Did::RefuseName { .. } => Some(Form::DnsRefused),
        Did::RefusePlaintext => Some(Form::PlaintextRefused),
        Did::RefuseToken { .. } => Some(Form::TokenRefused),
        Did::RefuseCertificate { .. } => Some(Form::CertificateRefused),
        Did::RefuseTarget { .. } => Some(Form::TargetRefused),
        // Why a tunnel was refused is said by the proxy that refused it.
        Did::RefuseTunnel { .. }
        | Did::Allow { .. }
        | Did::Fail { .. }
        | Did::DropOtherwise { .. } => None,
    }
}

/// An enforcement point's record in words.
pub fn testimony(evidence: &Evidence) -> String {
    let Evidence { point, node, did, policies, .. } = evidence;
    match policies.first() {
        Some(policy) => format!("{point} on {node}: {did} of {policy}"),
        None => format!("{point} on {node}: {did}"),
    }
}
