//! Changes that are made while the flows of a case are watched, and what they mean for its verdict.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ztc_model::suite::Component;
use ztc_model::verdict::{Doubt, Failure, Verdict};
use ztc_model::window::{Window, WindowKind};

use crate::event::{CellReport, ChangeReport, WatchedFlow};

/// What is done while flows are watched, step by step.
#[derive(Debug)]
pub struct Change {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// From one sample of a flow to the next.
    pub every: Duration,
    /// The longest outage of a flow that is no failure.
    pub outage: Duration,
    /// How long flows are watched before the first step and after the last one.
    pub margin: Duration,
}

/// One step of a change.
#[derive(Debug)]
pub struct Step {
    /// What it is called in reports.
    pub name: String,
    /// What it does.
    pub act: Act,
}

/// What a step does.
pub enum Act {
    /// Nothing, for so long.
    Wait(Duration),
    /// Restarts something everywhere, and waits until it is back and enforces everything.
    Restart(Component),
    /// Whatever its future does; it must end by itself. The error is for people.
    Call(Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>),
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(time) => f.debug_tuple("Wait").field(time).finish(),
            Self::Restart(component) => f.debug_tuple("Restart").field(component).finish(),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

/// Lets what was seen during a change count: a cell is as bad as the worst of its flows. Where the change was not made to its
/// end, or nothing was watched, nobody knows.
pub(crate) fn weigh(report: &ChangeReport, cells: &mut [CellReport]) {
    for flow in &report.flows {
        if let (Some(cell), Some(verdict)) = (cells.get_mut(flow.cell), verdict(report, flow)) {
            worsen(cell, verdict);
        }
    }
    let nothing = report.flows.is_empty().then(|| "no flow could be watched".to_owned());
    if let Some(trouble) = report.trouble.clone().or(nothing) {
        let doubt = Doubt::Fabric(format!("the change: {trouble}"));
        for cell in cells {
            worsen(cell, Verdict::Inconclusive(doubt.clone()));
        }
    }
}

fn worsen(cell: &mut CellReport, verdict: Verdict) {
    if verdict.severity() <= cell.verdict.severity() {
        return;
    }
    // What decided is told, and that is no longer what was seen before the change.
    if let Verdict::Fail(Failure::FailOpen { seen, .. } | Failure::FailClosed { seen, .. }) =
        &verdict
    {
        seen.clone_into(&mut cell.seen);
    }
    cell.verdict = verdict;
}

/// What a flow came to; nothing where it was as it must be all the time.
fn verdict(report: &ChangeReport, flow: &WatchedFlow) -> Option<Verdict> {
    let counts = |it: &&Window| it.kind != WindowKind::Outage || it.long_us() > report.outage_us;
    let worst = flow.windows.iter().filter(counts).max_by_key(|it| (it.kind, it.long_us()))?;
    let step = report.step_of(worst).map_or("the change", |it| it.step.as_str());
    let long = format!("for {} ms in `{step}`", worst.long_us().div_ceil(1000));
    let seen = format!("{}: {}, {long}", flow.send, worst.seen);
    Some(match worst.kind {
        WindowKind::Leak => {
            let after_ms = report.after_ms + worst.from_us / 1000;
            Verdict::Fail(Failure::FailOpen { seen, after_ms })
        }
        WindowKind::Outage => Verdict::Fail(Failure::FailClosed { seen, stopped_by: None }),
        WindowKind::Blind => Verdict::Inconclusive(Doubt::NoEvidence(seen)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::StepReport;

    fn window(kind: WindowKind, from_us: u64, until_us: u64) -> Window {
        let seen = "seen".to_owned();
        Window { kind, from_us, until_us, samples: 1, first: None, last: None, seen }
    }

    fn report(outage_us: u64) -> ChangeReport {
        ChangeReport {
            case: ztc_model::suite::CaseId::new("a", "b"),
            steps: Vec::new(),
            every_us: 10_000,
            outage_us,
            after_ms: 7,
            flows: Vec::new(),
            unwatched: Vec::new(),
            trouble: None,
        }
    }

    fn flow(windows: Vec<Window>) -> WatchedFlow {
        WatchedFlow {
            cell: 0,
            from: "a/b".to_owned(),
            send: "tcp a/c:1".to_owned(),
            expected: String::new(),
            denied: true,
            point: None,
            samples: 1,
            slowest_us: 0,
            reconnects: None,
            births: None,
            windows,
            evidence: Vec::new(),
        }
    }

    #[test]
    fn a_leak_outranks_an_outage_and_an_outage_what_nobody_saw() {
        let (blind, outage, leak) = (
            window(WindowKind::Blind, 0, 900_000),
            window(WindowKind::Outage, 0, 500_000),
            window(WindowKind::Leak, 2000, 12_000),
        );
        let of = |windows| verdict(&report(0), &flow(windows)).map(|it| it.to_string());
        let words = of(vec![blind.clone(), outage.clone(), leak]);
        assert_eq!(
            words.as_deref(),
            Some(
                "fail-open: tcp a/c:1: seen, for 10 ms in `the change`, sent 9 ms after the policies were accepted"
            )
        );
        let words = of(vec![blind.clone(), outage]).unwrap();
        assert!(words.starts_with("fail-closed"), "{words}");
        assert!(of(vec![blind]).unwrap().starts_with("inconclusive"));
        assert_eq!(of(Vec::new()), None);
    }

    #[test]
    fn a_window_that_begins_within_the_pace_before_a_step_is_of_that_step() {
        let step =
            |step: &str, from_us, until_us| StepReport { step: step.to_owned(), from_us, until_us };
        let steps = vec![step("before", 5, 50_000), step("restart", 50_000, 90_000)];
        let report = ChangeReport { steps, ..report(0) };
        let of = |from_us| {
            report.step_of(&window(WindowKind::Leak, from_us, 60_000)).map(|it| it.step.as_str())
        };
        assert_eq!(of(49_000), Some("restart"));
        assert_eq!(of(39_999), Some("before"));
        assert_eq!(of(0), Some("before"));
    }

    #[test]
    fn an_outage_within_the_budget_is_none() {
        let outages = flow(vec![window(WindowKind::Outage, 0, 500_000)]);
        assert_eq!(verdict(&report(500_000), &outages), None);
        assert!(verdict(&report(499_999), &outages).is_some());
    }
}
