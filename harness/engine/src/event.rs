//! The one stream that every reporter consumes: console, `JUnit`, JSON lines and all later ones.
//!
//! Events carry everything a report says. A reporter that needs more asks for a field here, never
//! for a look into the engine.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ztc_model::capture::AtNode;
use ztc_model::condition::Condition;
use ztc_model::evidence::{Did, FlowKey};
use ztc_model::outcome::EnforcementPoint;
use ztc_model::ruling::Ruling;
use ztc_model::suite::{CaseId, Gap};
use ztc_model::verdict::Verdict;
use ztc_model::window::Window;

use crate::expected::{Day, Entry, ExpectedFailure, Standing};
use crate::fabric::Inspection;

/// The version of this schema; raised when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Something that happened in a run: one line of `events.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Microseconds since the start of the run.
    pub at_us: u64,
    /// What happened.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EventKind {
    /// The first event.
    RunStarted(RunStarted),
    /// A lane is ready.
    LaneUp {
        /// Its number.
        lane: usize,
        /// The world in it.
        world: String,
        /// How long it took, milliseconds.
        took_ms: u64,
    },
    /// A case will not run: the fabric lacks what it needs.
    CaseIgnored {
        /// The case.
        case: CaseId,
        /// What is lacking.
        reason: String,
    },
    /// What cases apply, once a manifest.
    PolicyRead(PolicyText),
    /// A lane took a case.
    CaseStarted {
        /// The case.
        case: CaseId,
        /// The lane.
        lane: usize,
    },
    /// A case entered a phase of its life.
    CasePhase {
        /// The case.
        case: CaseId,
        /// The phase.
        phase: Phase,
    },
    /// What a case denies and allows was watched while something changed; said before the case is over.
    ChangeWatched(Box<ChangeReport>),
    /// A case is over.
    CaseFinished(Box<CaseReport>),
    /// Something went wrong that decides no case.
    Warning {
        /// What, in words.
        message: String,
    },
    /// Somebody asked to stop: running cases clean up, the others do not start.
    Interrupted,
    /// The last event.
    RunFinished(Summary),
}

/// What a run is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunStarted {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The name of the run: its folder under `target/ztc/`.
    pub run: String,
    /// When it started, RFC 3339, UTC.
    pub started: String,
    /// The version of ztc.
    pub ztc: String,
    /// The profile.
    pub profile: String,
    /// The fabric: `lab`, `kind` or `attach`. A run on the lab is a rehearsal.
    pub fabric: String,
    /// How many lanes.
    pub lanes: usize,
    /// The cases that will run, in the order in which they are taken.
    pub cases: Vec<CaseId>,
    /// The versions of what enforces, by part; none on the lab.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// What each of the cases asks, in short: a digest of its policies and expectations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub questions: BTreeMap<CaseId, String>,
    /// Of a rehearsal, the cases that no run on a real cluster is on record for, as they are asked now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<CaseId>,
    /// Faults that are injected on purpose, if any.
    pub faults: Option<String>,
}

/// A manifest as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// The object: `Kind/namespace/name`, as records and expectations name it.
    pub policy: String,
    /// Where it is written: file and line.
    pub place: String,
    /// The document.
    pub text: String,
}

/// The phases of a case's life.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Checking what must hold before anything is concluded.
    Preconditions,
    /// Seeing every stimulus pass that is expected to be denied.
    Controls,
    /// Applying the policies.
    Apply,
    /// Waiting until every enforcement point realised them.
    Settle,
    /// Waiting for denials to become true and holding them.
    Assert,
    /// Removing the denying policies one by one.
    Proof,
    /// Seeing traffic recover after everything is removed.
    Recovery,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preconditions => "preconditions",
            Self::Controls => "controls",
            Self::Apply => "apply",
            Self::Settle => "settle",
            Self::Assert => "assert",
            Self::Proof => "proof",
            Self::Recovery => "recovery",
        })
    }
}

/// All that is known of a case when it is over.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseReport {
    /// The case.
    pub case: CaseId,
    /// Why its expectations should hold.
    pub because: String,
    /// The documented hole that the case shows on purpose, if it shows one. It is there whatever the
    /// verdict is; a case that passes has shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// Where it is written: file and line.
    pub place: String,
    /// The lane that it ran in.
    pub lane: usize,
    /// The worst of its cells and conditions.
    pub verdict: Verdict,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// How long from the last acceptance until every enforcement point had realised the policies.
    pub settled_ms: Option<u64>,
    /// What it applies, by the places of [`PolicyText`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<String>,
    /// The cells.
    pub cells: Vec<CellReport>,
    /// What controllers said of policies and services, where the case expects something of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ConditionReport>,
    /// What went wrong in cleaning up: the lane is made anew when there is any.
    pub residue: Option<String>,
    /// What enforcement points said when they were asked with their own tools, while the policies
    /// were in place; of cases in which a cell was not as expected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inspections: Vec<Inspection>,
    /// The failure that is known of the case, and how the case stands to it; absent where none is. The verdict is what it
    /// would be without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_failure: Option<Box<ExpectedFailure>>,
}

impl CaseReport {
    /// Holds it against the failure that is known of the case.
    pub fn hold_against(&mut self, entry: &Entry, today: Day) {
        let cells = self.cells.iter().map(|it| &it.verdict);
        let parts = cells.chain(self.conditions.iter().map(|it| &it.verdict));
        let standing = entry.standing(today, &self.verdict, parts);
        let expected_failure = ExpectedFailure { entry: entry.clone(), standing };
        self.expected_failure = Some(Box::new(expected_failure));
    }

    /// How the case stands to the failure that is known of it, if one is.
    pub fn standing(&self) -> Option<Standing> {
        self.expected_failure.as_ref().map(|it| it.standing)
    }
}

/// All that is known of a cell: one stimulus from one source, and what is expected of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CellReport {
    /// Who sends: `namespace/pod` or `kubelet`.
    pub from: String,
    /// What, as the case says it.
    pub send: String,
    /// What is expected, in words.
    pub expected: String,
    /// Who should stop it, if it should be stopped.
    pub expected_by: Option<EnforcementPoint>,
    /// What it came to.
    pub verdict: Verdict,
    /// What the client saw: of the sample that decided, in words.
    pub seen: String,
    /// The control: what was seen before the policies, or at the twin.
    pub control: Option<String>,
    /// What was seen after the removal of the denying policy alone.
    pub proof: Option<String>,
    /// From the API's acceptance to the last flow that still got through, milliseconds;
    /// absent for allowed cells and where no stream could be opened before.
    pub time_to_enforce_ms: Option<u64>,
    /// How many stimuli were sent under the policies.
    pub samples: usize,
    /// How many denied ones were settled by a record of an enforcement point.
    pub settled_by_evidence: usize,
    /// How many were settled by the clock alone.
    pub settled_by_time_out: usize,
    /// From the first packet to the record that settled it, microseconds, median over the samples.
    pub settle_median_us: Option<u64>,
    /// What was lost of a flow that was watched from before the first policy on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossReport>,
    /// The records about the flows of this cell: of every failure, and the first of each kind.
    pub evidence: Vec<EvidenceReport>,
    /// What captures saw of it at the edges of its pods, by node, where the case asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wire: Vec<AtNode>,
}

/// A condition in the status of an object, and what is expected of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConditionReport {
    /// Of what: `KIND/NAMESPACE/NAME`.
    pub object: String,
    /// What is expected, in words.
    pub expected: String,
    /// What it came to.
    pub verdict: Verdict,
    /// The condition as it was last seen; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Condition>,
}

/// What was lost of a stream, from before the first policy to the end of the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LossReport {
    /// How many stimuli were sent.
    pub sent: usize,
    /// How many of them did not arrive as they were sent.
    pub lost: usize,
    /// From the first lost one until the next one that arrived was sent, milliseconds.
    pub for_ms: u64,
}

/// What became of the flows of a case while something changed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeReport {
    /// The case whose policies were enforced.
    pub case: CaseId,
    /// What was done, in the order of time: from before anything changed to after it.
    pub steps: Vec<StepReport>,
    /// From one sample of a flow to the next, microseconds: so exact are the windows at either end.
    pub every_us: u64,
    /// The longest outage that is no failure, microseconds.
    pub outage_us: u64,
    /// When the watching began, milliseconds after the API accepted the last policy.
    pub after_ms: u64,
    /// The flows.
    pub flows: Vec<WatchedFlow>,
    /// The cells that could not be watched, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwatched: Vec<Unwatched>,
    /// Why the change was not made, or not made to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Pods of one name that were born one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Births {
    /// How many were.
    pub count: usize,
    /// The longest that it took from the order to the first word of one of them, microseconds.
    pub slowest_us: u64,
}

/// A part of the time of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    /// What was done.
    pub step: String,
    /// When it began, microseconds since the watching began. It ends with the next one.
    pub from_us: u64,
    /// When it ended.
    pub until_us: u64,
}

/// What became of one flow.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchedFlow {
    /// The position of its cell in the case, from 0.
    pub cell: usize,
    /// Who sends.
    pub from: String,
    /// What.
    pub send: String,
    /// What is expected, in words.
    pub expected: String,
    /// Whether it must not get through.
    pub denied: bool,
    /// Who should stop it or let it pass, where the case says so.
    pub point: Option<EnforcementPoint>,
    /// How many samples were sent.
    pub samples: u64,
    /// The longest that one of those that got through took, microseconds.
    pub slowest_us: u64,
    /// Of a connection that goes on: how often it was another one than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnects: Option<usize>,
    /// Of pods that were born again and again: how often, and how fast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub births: Option<Births>,
    /// From when until when it was not as it must be, or nobody can tell.
    pub windows: Vec<Window>,
    /// What enforcement points said of the first and last flows of its leaks, as far as they said something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<EvidenceReport>,
}

/// A cell that was not watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unwatched {
    /// Who sends.
    pub from: String,
    /// What.
    pub send: String,
    /// Why.
    pub why: String,
}

impl ChangeReport {
    /// The step that a window began in. Its beginning is known to the pace alone: one that is less than that before a step
    /// is of this step.
    pub fn step_of(&self, window: &Window) -> Option<&StepReport> {
        let latest = window.from_us.saturating_add(self.every_us);
        self.steps.iter().rev().find(|step| step.from_us <= latest)
    }
}

/// One record of an enforcement point.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceReport {
    /// Who spoke.
    pub point: EnforcementPoint,
    /// On which node.
    pub node: String,
    /// About which flow.
    pub flow: FlowKey,
    /// What it did.
    pub did: Did,
    /// The policies that it names.
    pub policies: Vec<String>,
    /// Which of their rules decided, or which policies isolate the endpoint, as far as that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rulings: Vec<Ruling>,
    /// What it wrote, as it wrote it.
    pub record: serde_json::Value,
}

/// What a run came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Cases that passed.
    pub passed: usize,
    /// Cases with a broken assertion other than a leak.
    pub failed: usize,
    /// Cases with a leak.
    pub failed_open: usize,
    /// Cases without proof either way.
    pub inconclusive: usize,
    /// Cases that came to the failure that is known of them. They are neither passed nor failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_as_expected: usize,
    /// Cases that passed although a failure is known of them. They are broken assertions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub passed_unexpectedly: usize,
    /// Cases that the fabric cannot run.
    pub ignored: usize,
    /// Cases that did not start because the run was interrupted.
    pub not_run: usize,
    /// Whether somebody asked to stop.
    pub interrupted: bool,
    /// How long the run took, milliseconds.
    pub took_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The exit codes of `ztc`, worst last but usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Every case passed, or failed as expected.
    Pass = 0,
    /// An assertion is broken, no flow leaked.
    Failed = 1,
    /// The command line or a file is wrong, or the selection is empty; nothing was started.
    Usage = 2,
    /// No proof either way, or the infrastructure failed.
    Inconclusive = 3,
    /// A flow that must be denied got through.
    FailOpen = 4,
}

impl ExitStatus {
    /// The worse of both: a leak outranks everything, and what is broken what nobody knows.
    #[must_use]
    pub const fn or_worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Usage => 1,
            Self::Inconclusive => 2,
            Self::Failed => 3,
            Self::FailOpen => 4,
        }
    }

    /// The same, but that a pass is none where something else went wrong.
    #[must_use]
    pub const fn with_trouble(self, is_there: bool) -> Self {
        match self {
            Self::Pass if is_there => Self::Inconclusive,
            status => status,
        }
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

impl Summary {
    /// Counts one more case.
    pub fn count(&mut self, report: &CaseReport) {
        let counted = match (report.standing(), report.verdict.severity()) {
            (Some(Standing::AsExpected), _) => &mut self.failed_as_expected,
            (Some(Standing::UnexpectedPass), _) => &mut self.passed_unexpectedly,
            (_, 0) => &mut self.passed,
            (_, 1) => &mut self.inconclusive,
            (_, 2) => &mut self.failed,
            _ => &mut self.failed_open,
        };
        *counted += 1;
    }

    /// What the run's process should exit with.
    pub const fn exit_status(&self) -> ExitStatus {
        if self.failed_open > 0 {
            ExitStatus::FailOpen
        } else if self.failed + self.passed_unexpectedly > 0 {
            ExitStatus::Failed
        } else if self.inconclusive > 0 || self.not_run > 0 || self.interrupted {
            ExitStatus::Inconclusive
        } else {
            ExitStatus::Pass
        }
    }
}
