//! It must be able to fail: every way to break the lab is noticed, in the words that fit it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]

mod support;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use support::{Project, cells, code, lab_is_possible, stderr, told, word};
use ztc_engine::event::{CaseReport, CellReport};
use ztc_model::evidence::{Did, Direction};
use ztc_model::outcome::EnforcementPoint;

/// Everything that is asked of agents, not of kubelet.
fn by_agents(cells: Vec<&CellReport>) -> Vec<&CellReport> {
    cells.into_iter().filter(|cell| cell.from != "kubelet").collect()
}

fn run(filter: &str, fault: &str) -> Option<(i32, Vec<CaseReport>)> {
    lab_is_possible().then(|| project().run(filter, Some(fault)))
}

/// A project whose lab has few lanes and slow streams. A broken lab keeps every denied cell sending until its ceiling,
/// and two tests run at once: at full pace, a machine that is busy otherwise could not keep up.
fn project() -> Project {
    paced(&[("count: 12", "count: 3"), ("streamEveryMs: 5", "streamEveryMs: 20")])
}

/// One that has patience besides, where every verdict of a case counts: what comes late counts as lost. A denial that
/// only the clock tells takes a whole deadline, and has to be told before the ceiling.
fn patient() -> Project {
    let project = project();
    project.edit("clusters/lab.yaml", "probeDeadlineMs: 1500", "probeDeadlineMs: 2500");
    project.edit("clusters/lab.yaml", "settleCeilingMs: 2000", "settleCeilingMs: 4000");
    project
}

/// A project whose lab has another pace.
fn paced(edits: &[(&str, &str)]) -> Project {
    let project = Project::new();
    for (from, to) in edits {
        project.edit("clusters/lab.yaml", from, to);
    }
    project
}

/// Where nothing gets through, nothing is gained by waiting for it: short ceilings of what must pass, and all lanes, as
/// nobody has anything to do but to wait.
const NOTHING_PASSES: &[(&str, &str)] = &[
    ("passCeilingMs: 1000", "passCeilingMs: 300"),
    ("probeDeadlineMs: 1500", "probeDeadlineMs: 600"),
];

/// Where nothing is denied, every denied cell sends until its ceiling: a short one, and a slow stream, which leave it time
/// for twenty stimuli.
const NOTHING_IS_DENIED: &[(&str, &str)] = &[
    ("settleCeilingMs: 2000", "settleCeilingMs: 1000"),
    ("streamEveryMs: 5", "streamEveryMs: 25"),
    ("count: 12", "count: 4"),
];

/// A run of all cases with a fault, of which several tests want to know; under a runner that gives each test a process it
/// is made for each.
type Whole = LazyLock<(i32, Vec<CaseReport>)>;

static OPEN: Whole = LazyLock::new(|| paced(NOTHING_IS_DENIED).run("", Some("allow-everything")));
static CLOSED: Whole = LazyLock::new(|| paced(NOTHING_PASSES).run("", Some("drop-everything")));

/// What a run of all cases came to, where the lab can be entered.
fn whole(run: &'static Whole) -> Option<(i32, &'static [CaseReport])> {
    lab_is_possible().then(|| (run.0, run.1.as_slice()))
}

#[test]
fn a_lab_that_ignores_deny_rules_fails_open_where_a_deny_rule_denies() {
    let Some((code, reports)) = run("", "ignore-egress-deny") else { return };
    assert_eq!(code, 4);
    let at_egress = Did::DenyByRule { direction: Direction::Egress };
    for cell in by_agents(cells(&reports, true)) {
        let denies = cell.evidence.iter().any(|record| record.did == at_egress);
        assert_eq!(cell.verdict.word() == "fail-open", denies, "{}", told(cell));
    }
    assert!(cells(&reports, true).iter().any(|cell| cell.verdict.word() == "fail-open"));
}

#[test]
fn a_lab_that_allows_everything_fails_open_in_every_denied_cell() {
    let Some((code, reports)) = whole(&OPEN) else { return };
    assert_eq!(code, 4);
    assert!(!reports.is_empty());
    // What no policy refuses stays refused.
    let (refused, denied): (Vec<_>, Vec<_>) =
        cells(reports, true).into_iter().partition(|it| it.expected.starts_with("refused"));
    for cell in denied {
        assert_eq!(cell.verdict.word(), "fail-open", "{}", told(cell));
    }
    for cell in refused {
        assert_eq!(cell.verdict.word(), "pass", "{}", told(cell));
    }
}

#[test]
fn a_lab_that_drops_everything_fails_closed_and_its_denials_prove_nothing() {
    let Some((code, reports)) = whole(&CLOSED) else { return };
    assert_eq!(code, 1);
    // Where ztunnels alone enforce something, Cilium is not asked about kubelet.
    let (ztunnels, others): (Vec<_>, Vec<_>) = reports.iter().cloned().partition(is_of_ztunnels);
    let asked = by_agents(cells(&ztunnels, false)).into_iter().chain(cells(&others, false));
    for cell in asked.filter(|cell| !is_known_to_ztunnel(cell) && !is_about_istiod(cell)) {
        assert_eq!(cell.verdict.word(), "fail-closed", "{}", told(cell));
    }
    for cell in by_agents(cells(reports, true)) {
        assert_eq!(word(&cell.verdict), "inconclusive Control", "{}", told(cell));
    }
}

/// Whether a ztunnel answers it by itself, so that Cilium is asked nothing.
fn is_known_to_ztunnel(cell: &CellReport) -> bool {
    cell.from.starts_with("zt-post/captured") && cell.send.contains(".svc.cluster.local")
}

/// Whether it is the readiness of a waypoint, which is a question of istiod.
fn is_about_istiod(cell: &CellReport) -> bool {
    cell.send.starts_with("readiness ") && cell.send.ends_with("/gatehouse")
}

/// Whether a case is about ztunnels alone.
fn is_of_ztunnels(report: &CaseReport) -> bool {
    let case = report.case.to_string();
    OF_ZTUNNELS.iter().any(|suite| case.starts_with(suite))
}

/// The suites about ztunnels alone.
const OF_ZTUNNELS: [&str; 2] = ["l3-mtls::", "l4-ztunnel::"];

#[test]
fn a_lab_that_loses_its_records_leaves_attributed_denials_inconclusive() {
    let Some((code, reports)) = run("", "lose-flow-records") else { return };
    assert_eq!(code, 3);
    let attributed = cells(&reports, true).into_iter().filter(|it| it.expected_by.is_some());
    for cell in attributed {
        assert_eq!(word(&cell.verdict), "inconclusive NoEvidence", "{}", told(cell));
        assert_eq!(cell.settled_by_evidence, 0, "{}", told(cell));
    }
}

#[test]
fn a_denial_that_names_nobody_is_settled_by_the_clock_without_records() {
    if !lab_is_possible() {
        return;
    }
    let project = project();
    let named = "        by: cilium\n        as: default-deny\n";
    project.edit("suites/l2-namespace/suite.yaml", named, "");
    let (_, reports) = project.run("l2-namespace", Some("lose-flow-records"));
    let open = cells(&reports, true).into_iter().filter(|cell| cell.expected_by.is_none());
    let open: Vec<&CellReport> = open.collect();
    assert!(!open.is_empty());
    for cell in open {
        assert_eq!(cell.verdict.word(), "pass", "{}", told(cell));
        assert_eq!(cell.settled_by_evidence, 0, "{}", told(cell));
        assert!(cell.settled_by_time_out > 0, "{}", told(cell));
    }
}

#[test]
fn a_lab_that_names_another_policy_has_the_wrong_policy() {
    let Some((code, reports)) = run("", "wrong-policy-name") else { return };
    assert_eq!(code, 1);
    for cell in cells(&reports, true) {
        let explicit = cell.expected.contains("explicit-deny");
        let expected = if explicit { "wrong-policy" } else { "pass" };
        assert_eq!(cell.verdict.word(), expected, "{}", told(cell));
    }
}

#[test]
fn late_enforcement_is_measured() {
    let Some((code, reports)) = run("l1-baseline::default-deny-stops", "late-enforcement=300ms")
    else {
        return;
    };
    assert_eq!(code, 0);
    for cell in cells(&reports, true) {
        let late = cell.time_to_enforce_ms.expect("a stream was open before");
        // The last answer before 300 ms; on a loaded machine the stream may have paused before.
        assert!((100..600).contains(&late), "{late} ms: {}", told(cell));
    }
}

#[test]
fn enforcement_later_than_the_ceiling_fails_open() {
    let Some((code, reports)) = run("default-deny-stops-udp-egress", "late-enforcement=4000ms")
    else {
        return;
    };
    assert_eq!(code, 4);
    for cell in cells(&reports, true) {
        assert_eq!(cell.verdict.word(), "fail-open", "{}", told(cell));
    }
}

#[test]
fn one_leak_in_twenty_is_found_in_the_hold() {
    let Some((code, reports)) = run("default-deny-stops-udp-egress", "leak-one-in=20") else {
        return;
    };
    assert_eq!(code, 4);
    let leaked = cells(&reports, true).iter().filter(|it| it.verdict.word() == "fail-open").count();
    assert!(leaked > 0);
}

#[test]
fn a_lab_that_does_not_enforce_over_ipv6_fails_open_there_alone() {
    let Some((code, reports)) = run("l1-ipv6", "ipv6-unenforced") else { return };
    assert_eq!(code, 4);
    for cell in cells(&reports, true) {
        let over_ipv6 = cell.send.ends_with("over ipv6") || cell.send.contains("[fd00:");
        let expected = if over_ipv6 { "fail-open" } else { "pass" };
        assert_eq!(cell.verdict.word(), expected, "{}", told(cell));
    }
}

#[test]
fn a_lab_that_keeps_its_enforcement_mode_fails_open_where_no_policy_denies() {
    let Some((code, reports)) = run("l1-enforcement-mode", "mode-ignored") else { return };
    assert_eq!(code, 4);
    for cell in cells(&reports, true) {
        assert_eq!(cell.verdict.word(), "fail-open", "{}", told(cell));
    }
}

#[test]
fn a_lab_that_enforces_at_egress_alone_fails_open_where_ingress_denies() {
    let Some((code, reports)) = run("l1-baseline::default-deny-stops", "egress-only") else {
        return;
    };
    assert_eq!(code, 4);
    assert_eq!(reports.len(), 6);
    for report in reports {
        let at_ingress = report.case.name().ends_with("ingress");
        for cell in cells(&[report], true) {
            let expected = if at_ingress { "fail-open" } else { "pass" };
            assert_eq!(cell.verdict.word(), expected, "{}", told(cell));
        }
    }
}

/// A handshake is no answer: that one segment leaked does not bring a connection about.
#[test]
fn a_lab_whose_first_packets_leak_fails_open_where_one_packet_is_all_it_takes() {
    let Some((code, reports)) = run("l1-baseline::default-deny-stops", "first-packet-leaks") else {
        return;
    };
    assert_eq!(code, 4);
    for cell in cells(&reports, true) {
        let expected = if cell.send.starts_with("tcp") { "pass" } else { "fail-open" };
        assert_eq!(cell.verdict.word(), expected, "{}", told(cell));
    }
}

#[test]
fn clients_that_never_send_prove_no_denial() {
    if !lab_is_possible() {
        return;
    }
    let (code, reports) = paced(NOTHING_PASSES).run("", Some("mute-clients"));
    assert_ne!(code, 0);
    for cell in by_agents(cells(&reports, true)) {
        assert_eq!(word(&cell.verdict), "inconclusive Control", "{}", told(cell));
    }
    for cell in by_agents(cells(&reports, false)) {
        assert_eq!(cell.verdict.word(), "fail-closed", "{}", told(cell));
    }
}

/// Each rule of Cilium's that a fault gets wrong is noticed by the cases about it, with the right word, and by no
/// others: the fault is about that rule alone.
#[test]
fn a_rule_that_is_got_wrong_fails_the_cases_about_it() {
    if !lab_is_possible() {
        return;
    }
    let project = patient();
    for (fault, filter, noticed) in [
        (
            "notin-skips-missing-key",
            "l1-rules",
            &[("not-in-matches-what-lacks-the-label", "fail-open")][..],
        ),
        (
            "cidr-matches-pods",
            "l1-ranges",
            &[
                ("a-range-of-every-address-selects-no-pod", "fail-open"),
                ("nobody-of-the-cluster-comes-from-a-range", "fail-open"),
                ("a-denied-range-stops-neither-pods-nor-probes", "fail-closed"),
                ("an-exception-is-no-deny-rule", "fail-open"),
                ("an-ip-block-is-a-range", "fail-open"),
            ],
        ),
        (
            "cidr-matches-host",
            "l1-ranges",
            &[("a-denied-range-stops-neither-pods-nor-probes", "fail-closed")],
        ),
        (
            "established-not-rechecked",
            "l1-rules",
            &[
                ("a-policy-holds-for-flows-that-were-let-pass-before", "fail-open"),
                ("closed-egress-ends-flows-under-way", "fail-open"),
            ],
        ),
        (
            "fqdn-learns-without-proxy",
            "l6-fqdn",
            &[("nothing-is-learnt-past-the-dns-proxy", "fail-open")],
        ),
        (
            "fqdn-ignores-ttl",
            "l6-fqdn",
            &[("a-learnt-address-is-closed-when-its-time-is-over", "fail-open")],
        ),
        (
            "fqdn-leaks-namespace",
            "l6-fqdn",
            &[("a-name-opens-its-host-to-the-namespace-of-the-policy-alone", "fail-open")],
        ),
        (
            "identity-never-changes",
            "l1-identity",
            &[
                ("a-pod-that-loses-its-label-loses-what-it-opened", "fail-open"),
                ("a-pod-that-gains-the-labels-of-another-is-that-other", "fail-closed"),
                ("a-label-quarantines-a-pod", "fail-open"),
                ("who-changes-labels-leaves-the-policy", "fail-closed"),
            ],
        ),
        (
            "deny-loses-to-allow",
            "a-deny-rule-beats",
            &[
                ("a-deny-rule-beats-an-explicit-allow", "fail-open"),
                ("a-deny-rule-beats-a-name", "fail-open"),
            ],
        ),
        (
            "restart-opens=200ms",
            "agent-restart",
            &[
                ("names-that-were-learnt-are-kept", "fail-open"),
                ("the-baseline-holds-without-its-agents", "fail-open"),
                ("denials-by-name-and-by-namespace-hold-without-agents", "fail-open"),
            ],
        ),
        (
            "restart-forgets-names",
            "agent-restart",
            &[("names-that-were-learnt-are-kept", "fail-closed")],
        ),
        (
            "strict-accepts-plaintext",
            "l3-mtls",
            &[
                ("strict-refuses-a-peer-that-speaks-in-plain", "fail-open"),
                ("strict-for-the-mesh-reaches-every-namespace", "fail-open"),
                ("a-port-may-be-left-out-of-strict", "fail-open"),
                ("a-port-alone-may-be-strict", "fail-open"),
                ("a-strict-port-of-a-permissive-workload-is-open-under-a-strict-mesh", "fail-open"),
            ],
        ),
        (
            "ztunnel-ignores-deny",
            "l4-ztunnel",
            &[
                ("a-denied-principal-is-named-with-its-policy", "fail-open"),
                ("a-port-is-denied-and-the-others-are-not", "fail-open"),
                ("a-deny-beats-an-allow", "fail-open"),
                ("not-a-principal-denies-peers-without-one", "fail-open"),
                ("a-block-of-addresses-and-a-port-have-to-match-both", "fail-open"),
                ("a-policy-in-the-root-namespace-is-for-the-whole-mesh", "fail-open"),
                ("denying-a-method-on-a-port-denies-the-port", "fail-open"),
            ],
        ),
        (
            "ztunnel-ignores-port",
            "l4-ztunnel",
            &[
                ("a-port-is-denied-and-the-others-are-not", "fail-closed"),
                ("a-block-of-addresses-and-a-port-have-to-match-both", "fail-closed"),
                // What is left of its rule is a method, of which ztunnels know nothing.
                ("denying-a-method-on-a-port-denies-the-port", "fail-open"),
            ],
        ),
        (
            "open-connections-kept",
            "l4-ztunnel",
            &[("a-policy-ends-connections-that-it-forbids", "fail-open")],
        ),
        (
            "capture-forwards-from-the-node",
            "l6-mesh",
            &[
                ("a-named-host-is-reached-where-ztunnel-asks-for-it", "fail-closed"),
                ("another-name-is-refused-where-ztunnel-asks-for-it", "fail-open"),
                ("whichever-resolver-a-pod-asks-cluster-dns-answers", "inconclusive"),
            ],
        ),
        (
            "ztunnel-asks-for-services",
            "l6-mesh",
            &[("names-of-services-are-answered-past-the-dns-rules", "fail-closed")],
        ),
        (
            "ztunnel-keeps-no-answers",
            "l6-mesh",
            &[
                ("a-name-that-is-kept-is-answered-past-the-dns-rules", "wrong-layer"),
                ("a-name-that-is-kept-is-not-learnt", "fail-open"),
            ],
        ),
        (
            "hbone-accepts-any-certificate",
            "l4-hbone",
            &[("a-certificate-has-to-be-the-authoritys-and-of-this-day", "fail-open")],
        ),
        ("hbone-accepts-clear", "l4-hbone", &[("a-tunnel-in-clear-is-refused", "fail-open")]),
        (
            "hbone-ignores-authority",
            "l4-hbone",
            &[("a-tunnel-leads-to-the-pod-it-came-to", "fail-open")],
        ),
        (
            "istiod-accepts-everything",
            "l4-ztunnel",
            &[
                ("allowing-a-method-by-selector-allows-nothing", "wrong-condition"),
                ("denying-a-method-by-selector-denies-nothing", "wrong-condition"),
                ("denying-a-principal-a-method-denies-nothing", "wrong-condition"),
                ("denying-a-method-on-a-port-denies-the-port", "wrong-condition"),
            ],
        ),
        ("ztunnel-captures-probes", "l3-mtls", &[("strict-lets-the-mesh-pass", "fail-closed")]),
    ] {
        let leaked = noticed.iter().any(|(_, word)| *word == "fail-open");
        notices(&project, (fault, filter), noticed, if leaked { 4 } else { 1 });
    }
}

/// A fault, the cases that are run with it, and what of them notices it in which word.
type Mistake<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

#[test]
fn a_rule_of_waypoints_that_is_got_wrong_fails_the_cases_about_it_and_no_others() {
    if !lab_is_possible() {
        return;
    }
    let project = project();
    let known: [Mistake<'_>; 7] = [
        (
            "istiod-accepts-everything",
            "l5-gateway",
            &[("without-its-waypoint-a-policy-holds-for-nobody", "wrong-condition")],
        ),
        (
            "waypoint-ready-without-control-plane",
            "l5-gateway",
            &[("without-its-control-plane-a-waypoint-never-gets-ready", "fail-open")],
        ),
        (
            "waypoint-ignores-method",
            "l5-waypoint::",
            &[
                ("a-method-is-denied-by-the-waypoint", "fail-open"),
                ("a-host-and-a-method-have-to-match-both", "fail-open"),
            ],
        ),
        (
            "waypoint-skips-expiry",
            "l5-jwt",
            &[
                ("a-token-that-is-not-believed-is-refused", "fail-open"),
                ("tokens-may-be-looked-at-for-all-services-of-a-waypoint", "fail-open"),
            ],
        ),
        (
            "waypoint-forwards-client-identity",
            "l5-waypoint::",
            &[
                ("the-ztunnel-behind-a-waypoint-sees-the-waypoint", "fail-open"),
                ("a-rule-for-the-waypoint-alone-closes-the-way-past-it", "fail-closed"),
            ],
        ),
        (
            "pod-ip-skips-hardening",
            "l5-waypoint::",
            &[("a-rule-for-the-waypoint-alone-closes-the-way-past-it", "fail-open")],
        ),
        (
            "waypoint-for-services-alone",
            "l5-waypoint-kinds",
            &[
                ("a-waypoint-for-workloads-is-asked-for-their-addresses", "fail-open"),
                ("a-waypoint-for-all-is-asked-for-both", "fail-open"),
                ("a-policy-for-a-service-is-not-for-the-address-of-its-pod", "inconclusive"),
                ("with-a-waypoint-for-all-its-identity-alone-may-be-let-in", "fail-closed"),
            ],
        ),
    ];
    for (fault, filter, noticed) in known {
        let leaked = noticed.iter().any(|(_, word)| *word == "fail-open");
        notices(&project, (fault, filter), noticed, if leaked { 4 } else { 1 });
    }
}

/// A waypoint that accepts and says nothing: what must pass does not, what is denied has no control, and nobody waits longer
/// than he may.
#[test]
fn a_waypoint_that_hangs_hangs_no_case() {
    if !lab_is_possible() {
        return;
    }
    let project = project();
    let case = "a-method-is-denied-by-the-waypoint";
    let begun = std::time::Instant::now();
    let (code, reports) = project.run(case, Some("waypoint-hangs"));
    assert_eq!((code, reports.len()), (1, 1));
    // The ceilings of its phases, a few seconds each, and the bring-up.
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    let through_it = |it: &&CellReport| it.send.contains("//vault");
    for cell in cells(&reports, false).into_iter().filter(through_it) {
        assert_eq!(cell.verdict.word(), "fail-closed", "{}", told(cell));
    }
    for cell in cells(&reports, true).into_iter().filter(through_it) {
        assert_eq!(word(&cell.verdict), "inconclusive Control", "{}", told(cell));
    }
}

/// Runs cases with a fault, which are noticed to be broken in these words and no others.
fn notices(
    project: &Project,
    (fault, filter): (&str, &str),
    noticed: &[(&str, &str)],
    expected: i32,
) {
    let (code, reports) = project.run(filter, Some(fault));
    let word = |report: &CaseReport| (report.case.name().to_owned(), report.verdict.word());
    let failed: BTreeMap<String, &str> =
        reports.iter().map(word).filter(|(_, word)| *word != "pass").collect();
    let noticed = noticed.iter().map(|(case, word)| ((*case).to_owned(), *word)).collect();
    let cells: Vec<String> = reports.iter().flat_map(|it| &it.cells).map(told).collect();
    assert_eq!(failed, noticed, "{fault}: {cells:#?}");
    assert_eq!(code, expected, "{fault}");
}

/// Nothing but the wire is another one: every connection gets through, and is on record as ever.
#[test]
fn a_mesh_that_does_not_encrypt_fails_open_where_the_wire_is_looked_at() {
    if !lab_is_possible() {
        return;
    }
    let encrypted =
        ["a-pair-of-the-mesh-is-encrypted", "strict-encrypts-nothing-more-and-nothing-less"];
    notices(
        &project(),
        ("hbone-in-clear", "l3-wire"),
        &encrypted.map(|case| (case, "fail-open")),
        4,
    );
}

#[test]
fn a_capture_that_sees_nothing_proves_nothing() {
    let Some((code, reports)) = run("l3-wire", "capture-blind") else { return };
    assert_eq!(code, 3);
    let asked =
        |it: &&CellReport| it.expected.ends_with("clear") || it.expected.ends_with("encrypted");
    let cells: Vec<&CellReport> = cells(&reports, false).into_iter().filter(asked).collect();
    assert!(cells.len() > 10);
    for cell in cells {
        assert_eq!(word(&cell.verdict), "inconclusive NoEvidence", "{}", told(cell));
    }
}

/// A cell counts only if something flips it: a fault, or the removal of its policy.
#[test]
fn no_cell_is_vacuous() {
    if !lab_is_possible() {
        return;
    }
    let project = project();
    let by_cell = |reports: &[CaseReport]| -> BTreeMap<String, CellReport> {
        let named = reports.iter().flat_map(|report| {
            report
                .cells
                .iter()
                .map(|cell| (format!("{} {} {}", report.case, cell.from, cell.send), cell.clone()))
        });
        named.collect()
    };
    let (code, sound) = project.run("", None);
    assert_eq!(code, 0);
    let [open, closed] = [&OPEN, &CLOSED].map(|run| by_cell(&run.1));
    let probes = OF_ZTUNNELS.map(|suite| project.run(suite, Some("ztunnel-captures-probes")).1);
    let probes = by_cell(&probes.concat());
    let names = by_cell(&project.run("l6-mesh", Some("ztunnel-asks-for-services")).1);
    let waypoints = by_cell(&project.run("l5-gateway", Some("istiod-is-away")).1);
    for (name, cell) in by_cell(&sound) {
        let flipped = |broken: &BTreeMap<String, CellReport>| {
            broken.get(&name).is_some_and(|cell| cell.verdict.word() != "pass")
        };
        let flips = [&open, &closed, &probes, &names, &waypoints].into_iter().any(flipped);
        assert!(flips, "nothing flips {name}");
        if cell.expected.starts_with("denied") || cell.expected.starts_with("refused") {
            assert!(cell.proof.is_some() && cell.control.is_some(), "{name} has no proof");
            let by_cilium = cell.expected_by == Some(EnforcementPoint::Cilium);
            assert!(!by_cilium || !cell.evidence.is_empty(), "{name} has no record");
        }
    }
}

#[test]
fn an_unknown_fault_is_refused_with_the_names_of_all() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    let output = project.ztc(&["run"]).env("ZTC_LAB_FAULT", "sometimes").output().unwrap();
    assert_eq!(code(&output), 2);
    let said = stderr(&output);
    assert!(said.contains("`sometimes` is no fault") && said.contains("leak-one-in=20"), "{said}");
}

#[test]
fn a_filter_that_selects_nothing_is_refused() {
    let project = Project::new();
    let output = project.ztc(&["run", "no-such-case"]).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("no case has `no-such-case` in its name"));
    assert!(!project.path("target").exists(), "nothing was started");
}
