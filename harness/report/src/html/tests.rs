//! What a page looks like, and what no event can do to it.

use std::time::Instant;

use proptest::prelude::*;
use ztc_engine::event::{
    CaseReport, CellReport, ChangeReport, Event, EventKind, EvidenceReport, Unwatched,
};
use ztc_engine::fabric::Inspection;
use ztc_model::evidence::{Did, Direction};
use ztc_model::ruling::Part;
use ztc_model::suite::{CaseId, Gap};
use ztc_model::verdict::Verdict;
use ztc_model::window::WindowKind;

use super::*;
use crate::sample;

fn shown(events: &[Event]) -> String {
    page(&Account::of(events))
}

/// The page without what is the same on every one, a line a tag that begins something.
fn body(events: &[Event]) -> String {
    let page = shown(events).replace(STYLE, "STYLE").replace(SCRIPT, "SCRIPT");
    let mut text = page.replace(POLICY, "POLICY");
    for tag in ["<header", "<main", "<section", "<details", "<p", "<dl", "<dt", "<ul", "<li"]
        .iter()
        .chain(&["<table", "<tr", "<h2", "<form", "<label", "<option", "<footer", "<script"])
        .chain(&["<svg", "<path", "<line", "<div"])
    {
        for end in [" ", ">"] {
            text = text.replace(&format!("{tag}{end}"), &format!("\n{tag}{end}"));
        }
    }
    text
}

#[test]
fn a_page_reads_like_this() {
    insta::assert_snapshot!(body(&sample::run()));
}

#[test]
fn every_kind_of_failure_has_its_sign_and_its_word() {
    let reports = [
        sample::fail_open(),
        sample::fail_closed(),
        sample::wrong_layer(),
        sample::wrong_policy(),
        sample::no_proof(),
        sample::no_fabric(),
        sample::wrong_condition(),
    ];
    let page = shown(&sample::events("kind", &reports));
    for entry in [
        "wrong-condition: AuthorizationPolicy/zt-bank/deny-post should say",
        "✗ denied <b>→ got through</b>",
        "⊘ allowed <b>→ stopped</b>",
        "≠ denied <b>→ by another</b>",
        "≠ denied <b>→ other policy</b>",
        "? denied <b>→ no proof</b>",
        "lane 0 did not come up: no TUN device",
    ] {
        assert!(page.contains(entry), "{entry} is missing");
    }
}

#[test]
fn known_failures_are_noticed_keep_their_verdict_and_are_no_pass() {
    let known = |until, report| sample::known("fail-closed", until, report);
    let page = shown(&sample::events("kind", &[known("2026-12-31", sample::fail_closed())]));
    for words in [
        "<title>failed as expected on kind",
        "<b>1</b> failed as expected",
        "<b>Failed as expected:</b> <a href=#k0>",
        "title=\"expected-failure: the-web-is-allowed\"",
        "data-verdict=\"fail-closed\"",
        "<span class=tag>as expected</span>",
        "<b>Known:</b> <bdi>fail-closed is known until 2026-12-31: The agent forgets",
    ] {
        assert!(page.contains(words), "{words} is missing");
    }
    let page = shown(&sample::events("kind", &[known("2026-12-31", sample::pass())]));
    for words in ["<title>failed on kind", "data-verdict=\"unexpected-pass\"", "take the entry out"]
    {
        assert!(page.contains(words), "{words} is missing");
    }
    let page = shown(&sample::events("kind", &[known("2026-11-23", sample::fail_closed())]));
    for words in ["<title>failed on kind", "Expected until it expired:", "expired on 2026-11-23"] {
        assert!(page.contains(words), "{words} is missing");
    }
}

#[test]
fn failures_come_first_and_are_open() {
    let page = shown(&sample::events("kind", &[sample::pass(), sample::fail_open()]));
    let [(_, leak), (before, pass)] = ["data-verdict=\"fail-open\"", "data-verdict=\"pass\""]
        .map(|it| page.split_once(it).unwrap());
    assert!(before.contains("data-verdict=\"fail-open\""));
    assert!(leak.split('>').next().unwrap().ends_with(" open"));
    assert!(!pass.split('>').next().unwrap().ends_with(" open"));
}

#[test]
fn a_page_asks_nobody_for_anything() {
    let page = shown(&sample::run());
    for attribute in ["src=", "href=\"", "href=h", "@import", "url(", "<link", "<img", "<iframe"] {
        assert!(!page.contains(attribute), "{attribute} is on the page");
    }
    assert!(page.contains("default-src 'none'") && !page.contains("unsafe-inline"));
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy forbids them");
}

#[test]
fn secrets_are_not_shown() {
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ0ZWxsZXIifQ.c2lnbmF0dXJl";
    let mut report = sample::fail_open();
    report.cells[1].seen = format!("HTTP 401 for {token}");
    report.cells[1].evidence[0].record = serde_json::json!({"authorization": "Basic dXNlcg=="});
    report.inspections = vec![Inspection {
        place: "node".to_owned(),
        command: "dump".to_owned(),
        output: "-----BEGIN PRIVATE KEY-----\nMHc=\n-----END PRIVATE KEY-----".to_owned(),
    }];
    let page = shown(&sample::events("kind", &[report]));
    for secret in ["c2lnbmF0dXJl", "dXNlcg", "MHc="] {
        assert!(!page.contains(secret), "{secret} is shown");
    }
    assert_eq!(page.matches("[redacted]").count(), 4, "what was seen is told twice");
}

/// Many cells of a few cases, as a large world has them: sources times destinations.
fn many(cells: usize) -> Vec<Event> {
    let isolation = Part::Isolation {
        whom: "zt-namespace-00/workload-00".to_owned(),
        at: "spec.endpointSelector".parse().ok(),
    };
    let deny = || {
        let did = Did::DenyByDefault { direction: Direction::Egress };
        let rulings = vec![sample::ruling(isolation.clone())];
        EvidenceReport { rulings, ..sample::record(did, 41_000, &[]) }
    };
    let cases = (0..10).map(|case| {
        let cells = (0..cells / 10).map(|at| CellReport {
            from: format!("zt-namespace-{:02}/workload-{:02}", at / 25 % 4, at / 25),
            send: format!("tcp zt-namespace-{:02}/service-{:02}:8080", at % 5, at % 25),
            evidence: vec![deny()],
            ..match at % 50 {
                7 => sample::fail_open().cells.swap_remove(1),
                it if it % 2 == 0 => sample::allowed(Verdict::Pass),
                _ => sample::denied(Verdict::Pass),
            }
        });
        applying_default_deny(sample::case(&format!("matrix-{case}"), cells.collect()))
    });
    with_default_deny(sample::events("kind", &cases.collect::<Vec<_>>()))
}

fn applying_default_deny(report: CaseReport) -> CaseReport {
    CaseReport { applied: vec![sample::default_deny().place], ..report }
}

/// A run that has read the policy.
fn with_default_deny(mut events: Vec<Event>) -> Vec<Event> {
    events.insert(1, sample::at(0, EventKind::PolicyRead(sample::default_deny())));
    events
}

/// A run of one case in which rules of the policy decided, of every kind.
fn decided() -> Vec<Event> {
    let name = sample::default_deny().policy;
    let direction = Direction::Egress;
    let rules =
        |places: &[&str]| Part::Rules(places.iter().map(|it| it.parse().unwrap()).collect());
    let record = |did, policies: &[&str], part| EvidenceReport {
        rulings: vec![sample::ruling(part)],
        ..sample::record(did, 41_000, policies)
    };
    let at = "spec.endpointSelector".parse().ok();
    let isolation = Part::Isolation { whom: "zt-shop/web".to_owned(), at };
    let cell = |record| CellReport { evidence: vec![record], ..sample::denied(Verdict::Pass) };
    let denied = record(Did::DenyByRule { direction }, &[&name], rules(&["spec.egressDeny[0]"]));
    let nowhere = rules(&["spec.egress[0].toPorts[0]", "spec.ingress[7]"]);
    let cells = vec![
        cell(denied.clone()),
        cell(record(Did::DenyByDefault { direction }, &[], isolation)),
        cell(record(Did::Allow { direction }, &[&name], nowhere)),
        cell(denied),
    ];
    with_default_deny(sample::events(
        "kind",
        &[applying_default_deny(sample::case("rules", cells))],
    ))
}

#[test]
fn a_walk_tells_the_rule_that_decided_and_its_text_marks_it() {
    let page = body(&decided());
    let records: Vec<&str> = page.lines().filter(|it| it.contains(", by the ")).collect();
    let (_, policies) = page.split_once("<h2 id=policies>").unwrap();
    let policies = policies.split_once("</section>").unwrap().0;
    insta::assert_snapshot!(format!("{}\n\n{policies}", records.join("\n")));
}

#[test]
fn nothing_is_marked_where_lines_were_taken_out() {
    let mut events = decided();
    let EventKind::PolicyRead(policy) = &mut events[1].kind else { panic!("it is read first") };
    let key = "# -----BEGIN PRIVATE KEY-----\n# MHc=\n# -----END PRIVATE KEY-----\n";
    policy.text = policy.text.replace("spec:\n", &format!("{key}spec:\n"));
    let page = shown(&events);
    assert!(page.contains("[redacted]") && !page.contains("MHc="));
    assert!(!page.contains("<mark>") && page.contains("deciding rule: "));
}

/// A run with a change, that of its first case.
fn changed(mut report: ChangeReport, cases: &[CaseReport]) -> Vec<Event> {
    report.case = cases[0].case.clone();
    let mut events = sample::events("kind", cases);
    events.insert(1, sample::at(0, EventKind::ChangeWatched(Box::new(report))));
    events
}

/// What a page has of changes.
fn changes(page: &str) -> &str {
    let (_, from) = page.split_once("<section aria-labelledby=changes>").unwrap();
    from.split_once("</section>").unwrap().0
}

/// As many flows with as many windows each, of all kinds.
fn restless(flows: u64, windows: u64) -> ChangeReport {
    let flows = (0..flows).map(|flow| {
        let windows = (0..windows).map(|at| {
            let from_us = at * 4_000_000 / windows + flow;
            let kind = match at % 10 {
                3 => WindowKind::Leak,
                5 | 8 => WindowKind::Outage,
                _ => WindowKind::Blind,
            };
            sample::window(kind, from_us, from_us + 1_000 + at % 7 * 100, "time-out: no answer")
        });
        sample::watched(&format!("tcp zt-pay/service-{flow}:9000"), true, windows.collect())
    });
    sample::change(flows.collect())
}

#[test]
fn a_change_has_a_time_line_with_the_worst_flows_first() {
    let blind = sample::window(WindowKind::Blind, 400_000, 440_000, "nothing was sent");
    let outage = sample::window(WindowKind::Outage, 2_001_000, 2_201_000, "time-out: no answer");
    let leak = sample::window(WindowKind::Leak, 2_003_000, 2_013_000, "answered by zt-pay/vault");
    let mut leaking = sample::watched("tcp zt-pay/vault:9000", true, vec![leak]);
    leaking.evidence =
        vec![sample::record(Did::Allow { direction: Direction::Egress }, 4_001, &[])];
    leaking.cell = 1;
    let mut report = sample::change(vec![
        sample::watched("tcp zt-pay/ledger:9000", false, vec![blind.clone()]),
        sample::watched("tcp zt-pay/ledger:9001", false, vec![blind, outage]),
        sample::watched("tcp zt-pay/ledger:9002", false, Vec::new()),
        leaking,
    ]);
    report.outage_us = 100_000;
    report.trouble = Some("restart cilium: it was interrupted".to_owned());
    report.unwatched.push(Unwatched {
        from: "kubelet".to_owned(),
        send: "readiness zt-shop/web".to_owned(),
        why: "kubelet sends it, at its own pace".to_owned(),
    });
    let page = body(&changed(report, &[sample::fail_open()]));
    assert!(page.contains("<a href=#w0>time line</a>"), "its case leads to it");
    insta::assert_snapshot!(changes(&page));
}

#[test]
fn a_quiet_change_is_one_sentence() {
    let flows = vec![sample::watched("tcp zt-pay/vault:9000", true, Vec::new())];
    let page = shown(&changed(sample::change(flows), &[sample::pass()]));
    assert!(changes(&page).contains("<p class=faint>1 flow, 420 samples, as expected throughout."));
    assert!(changes(&page).contains("✓ as expected throughout"));
    assert!(!changes(&page).contains("<details"), "there is no row");
    // What nobody watched is nothing to be content with.
    let page = shown(&changed(sample::change(Vec::new()), &[sample::pass()]));
    assert!(changes(&page).contains("No flow was watched") && !changes(&page).contains('✓'));
}

#[test]
fn a_run_without_a_change_has_nothing_of_it() {
    assert!(!shown(&sample::run()).contains("id=changes"));
}

#[test]
fn a_thousand_windows_fit_and_the_worst_are_told_in_words() {
    let page = shown(&changed(restless(1, 1_000), &[sample::fail_open()]));
    let section = changes(&page);
    assert!(section.len() < 40_000, "{} bytes", section.len());
    assert!(section.contains("Of its 1000 windows these are the 40 longest"));
    assert_eq!(section.matches("<tr><th scope=row>").count(), 40);
    for words in ["100 leaks of up to 1.6 ms", "200 outages of", "700 blind spots of"] {
        assert!(section.contains(words), "{words} is missing");
    }
}

#[test]
fn more_flows_than_there_is_room_for_are_counted() {
    let report = restless(300, 1_000);
    let mut events = changed(report.clone(), &[sample::fail_open()]);
    events.insert(1, sample::at(0, EventKind::ChangeWatched(Box::new(report))));
    let page = shown(&events);
    assert!(page.len() < 800_000, "{} bytes", page.len());
    for words in ["more flows have", "its windows are in <code>events.jsonl</code>"] {
        assert_eq!(page.matches(words).count().min(2), 2, "{words}: of both of them");
    }
    assert!(page.contains("<dt>happened<dd class=bad>got through"), "cases have their room");
}

fn number_of_entries(page: &str, cells: usize) -> usize {
    let listed = (0..cells).map(|it| format!(" id=c{it}>"));
    listed.filter(|it| page.matches(it.as_str()).count() == 1).count()
}

#[test]
fn five_thousand_cells_fit_and_each_of_them_is_there() {
    let page = shown(&many(5_000));
    assert!(page.len() < 2 << 20, "{} bytes", page.len());
    assert!(page.contains("Left out to keep this page small"));
    assert_eq!(page.matches("href=#c").count(), 5_000 + 2, "from the mark too, and to the cases");
    assert_eq!(page.matches(" id=c").count(), 5_000 + 1, "and the cases");
    // Of a failure more is told than of what passed.
    assert_eq!(page.matches("<dt>happened<dd class=bad>got through").count(), 100);
}

#[test]
#[ignore = "prints a time: run it with --release --nocapture"]
fn five_thousand_cells_are_rendered_in_this_time() {
    let account = Account::of(&many(5_000));
    let begun = Instant::now();
    let page = page(&account);
    let took = begun.elapsed();
    eprintln!("5,000 cells: {} bytes in {} ms", page.len(), took.as_millis());
}

#[test]
fn a_world_in_which_everybody_asks_something_else_makes_no_square() {
    let cells = (0..300).map(|at| CellReport {
        from: format!("zt-shop/web-{at}"),
        send: format!("tcp outside/web-{at}:80"),
        ..sample::allowed(Verdict::Pass)
    });
    let report = sample::case("sparse", cells.collect());
    let page = shown(&sample::events("kind", &[report]));
    assert_eq!(number_of_entries(&page, 300), 300);
    assert!(page.matches("<td").count() < 3_000, "{}", page.matches("<td").count());
}

/// Any text, with those characters often that HTML cares about.
fn text() -> impl Strategy<Value = String> {
    let treacherous = prop::sample::select(vec![
        "<",
        ">",
        "&",
        "\"",
        "'",
        "</script>",
        "<!--",
        "]]>",
        "<script>",
        "\u{202e}",
        "\0",
        "\n",
        "\u{2028}",
        "=",
        " onload=",
        "`",
        "javascript:",
        "</details>",
    ]);
    let piece =
        prop_oneof![any::<char>().prop_map(String::from), treacherous.prop_map(String::from)];
    prop::collection::vec(piece, 0..12).prop_map(|it| it.concat())
}

/// How often each tag begins on a page: what text cannot change.
fn tags(page: &str) -> std::collections::BTreeMap<&str, usize> {
    let mut tags = std::collections::BTreeMap::new();
    for piece in page.split('<').skip(1) {
        let name = piece.split([' ', '>']).next().unwrap_or_default();
        *tags.entry(name).or_default() += 1;
    }
    tags
}

/// A run with this text wherever there is room for one.
fn told(said: &str) -> Vec<Event> {
    let mut report: CaseReport = sample::fail_open();
    report.case = CaseId::new(said, said);
    report.because = said.to_owned();
    report.place = said.to_owned();
    report.residue = Some(said.to_owned());
    let mut report = sample::known("fail-open", "2026-12-31", report);
    let known = report.expected_failure.as_mut().unwrap();
    known.entry.issue = said.to_owned();
    known.entry.because = said.to_owned();
    known.entry.place = said.to_owned();
    report.gap = Some(Gap { what: said.to_owned(), closed_by: None });
    report.inspections = vec![Inspection {
        place: said.to_owned(),
        command: said.to_owned(),
        output: said.to_owned(),
    }];
    let cell = &mut report.cells[1];
    cell.from = said.to_owned();
    cell.send = said.to_owned();
    cell.seen = said.to_owned();
    cell.expected = format!("{said} {said}");
    cell.control = Some(said.to_owned());
    cell.evidence.truncate(1);
    cell.evidence[0].node = said.to_owned();
    cell.evidence[0].policies = vec![said.to_owned()];
    cell.evidence[0].did = Did::Fail { reason: said.to_owned() };
    cell.evidence[0].record = serde_json::json!({ "said": said });
    let windows = [WindowKind::Leak, WindowKind::Blind]
        .map(|kind| sample::window(kind, 10_000, 20_000, said));
    let mut watched = sample::watched(said, true, windows.into());
    watched.from = said.to_owned();
    watched.expected = said.to_owned();
    watched.evidence.clone_from(&report.cells[1].evidence);
    let mut change = sample::change(vec![watched]);
    for step in &mut change.steps {
        step.step = said.to_owned();
    }
    change.trouble = Some(said.to_owned());
    let unwatched =
        Unwatched { from: said.to_owned(), send: said.to_owned(), why: said.to_owned() };
    change.unwatched.push(unwatched);
    change.case = report.case.clone();
    let mut events = sample::events(said, &[report]);
    events.insert(1, sample::at(1, EventKind::ChangeWatched(Box::new(change))));
    let message = said.to_owned();
    events.insert(1, sample::at(1, EventKind::Warning { message }));
    events
}

proptest! {
    #[test]
    fn no_text_ever_breaks_out(said in text()) {
        let page = shown(&told(&said));
        let plain = shown(&told("x"));
        prop_assert_eq!(tags(&page), tags(&plain));
        prop_assert_eq!(page.matches("</script").count(), 1);
        let is_legible = !page.contains(['\u{202e}', '\0', '\u{2028}']);
        prop_assert!(is_legible);
        // Quotes that delimit attributes are this program's own.
        prop_assert_eq!(page.matches('"').count(), plain.matches('"').count());
    }

    #[test]
    fn every_cell_is_on_the_page_exactly_once(shape in prop::collection::vec(0..9_usize, 0..6)) {
        let mut names = Vec::new();
        let reports: Vec<CaseReport> = shape.iter().enumerate().map(|(case, cells)| {
            let cells = (0..*cells).map(|at| {
                let verdict = if (at + case) % 3 == 0 {
                    sample::fail_open().cells.swap_remove(1).verdict
                } else {
                    Verdict::Pass
                };
                names.push(format!("seen-{case}-{at}-"));
                CellReport {
                    from: format!("zt-shop/{}", at % 2),
                    send: format!("tcp outside/{}:80", at % 3),
                    seen: format!("seen-{case}-{at}-"),
                    control: None,
                    ..sample::denied(verdict)
                }
            });
            let cells: Vec<CellReport> = cells.collect();
            sample::case(&format!("case-{case}"), cells)
        }).collect();
        let page = shown(&sample::events("kind", &reports));
        prop_assert_eq!(number_of_entries(&page, names.len()), names.len());
        prop_assert_eq!(page.matches("href=#c").count(), names.len() + 1);
        for name in names {
            prop_assert_eq!(page.matches(&format!("<dt>seen<dd>{name}")).count(), 1);
        }
    }
}
