//! The page of a run in a browser: it is complete, its filters work, and it asks nobody for anything.
//!
//! Without a `chromium` on PATH what needs one is skipped, and says so.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{Project, code, stderr};
use ztc_report::html::{POLICY, SCRIPT, STYLE};

/// A browser without a window, with a profile of its own in this folder.
struct Browser {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Browser {
    #[expect(clippy::print_stderr, reason = "who skips says so")]
    fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let found =
            std::env::split_paths(&path).map(|it| it.join("chromium")).find(|it| it.is_file());
        if found.is_none() {
            eprintln!(
                "\nSKIPPED: there is no `chromium` on PATH, so no page is opened in a browser\n"
            );
        }
        Some(Self { program: found?, folder: tempfile::tempdir().unwrap() })
    }

    /// The document after its script ran, and what the browser logged.
    fn open(&self, page: &Path, fragment: &str) -> (String, String) {
        let output = self.run(&["--dump-dom", &format!("file://{}{fragment}", page.display())]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    }

    fn run(&self, args: &[&str]) -> Output {
        let profile = format!("--user-data-dir={}", self.folder.path().display());
        let mut command = Command::new(&self.program);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--disable-background-networking", "--enable-logging=stderr", &profile]);
        command.args(args).output().unwrap()
    }
}

/// A stored run of two cases, one of which leaks.
fn stored(project: &Project) -> PathBuf {
    let cell = |from: &str, verdict: Value| {
        json!({
            "from": from, "send": "GET http://169.254.169.254:80/", "expected":
            "denied by cilium as explicit-deny (CiliumClusterwideNetworkPolicy/block-metadata)",
            "expected_by": "cilium", "verdict": verdict, "seen": "<script>alert(1)</script>",
            "control": null, "proof": null, "time_to_enforce_ms": 3, "samples": 20,
            "settled_by_evidence": 20, "settled_by_time_out": 0, "settle_median_us": 900,
            "evidence": []
        })
    };
    let case = |name: &str, verdict: Value| {
        json!({"at_us": 2, "kind": {"case-finished": {
            "case": name, "because": "Credentials.", "place": "suites/x.yaml:1", "lane": 0,
            "verdict": verdict, "took_ms": 9, "settled_ms": 2, "residue": null,
            "cells": [cell("zt-shop/web", verdict.clone()), cell("zt-pay/ledger", json!("pass"))]
        }}})
    };
    let leak = json!({"fail": {"fail-open": {"seen": "HTTP 200", "after_ms": 12}}});
    let events = [
        json!({"at_us": 0, "kind": {"run-started": {
            "schema": 1, "run": "stored", "started": "2026-11-24T04:10:00Z", "ztc": "0.1.0",
            "profile": "lab", "fabric": "lab", "lanes": 1,
            "cases": ["l1-cluster::holds", "l2-namespace::leaks"], "faults": null
        }}}),
        case("l1-cluster::holds", json!("pass")),
        case("l2-namespace::leaks", leak),
    ];
    let folder = project.path("target/ztc/stored");
    fs::create_dir_all(&folder).unwrap();
    let mut lines: Vec<String> = events.iter().map(ToString::to_string).collect();
    lines.push("{\"at_us\": 3, \"kind\": {\"run-fin".to_owned());
    fs::write(folder.join("events.jsonl"), lines.join("\n")).unwrap();
    folder
}

#[test]
fn the_policy_lets_in_what_is_on_the_page_and_nothing_else() {
    for (directive, content) in [("style-src", STYLE), ("script-src", SCRIPT)] {
        let digest = STANDARD.encode(Sha256::digest(content.as_bytes()));
        let allowed = format!("{directive} 'sha256-{digest}';");
        assert!(POLICY.contains(&allowed), "it changed; the policy has to say {allowed}");
    }
}

#[test]
fn a_report_is_made_again_from_a_run_that_was_cut_short() {
    let project = Project::new();
    let folder = stored(&project);
    let output = project.ztc(&["report", "render", "stored"]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("skipped: line 4 of the events: it was cut short"));
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("The run was cut short") && page.contains("it was cut short"));

    let args = ["report", "render", "stored", "--format", "markdown", "--out", "-"];
    let output = project.ztc(&args).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("## ✗ FAIL-OPEN on lab"));
    assert!(!folder.join("report.md").exists());
}

/// The same run with a policy that the second case applies, a rule of which decided about its first cell.
fn decided(project: &Project) -> PathBuf {
    let folder = stored(project);
    let file = folder.join("events.jsonl");
    let events = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<Value> =
        events.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
    let name = "CiliumClusterwideNetworkPolicy/block-metadata";
    let case = &mut lines[2]["kind"]["case-finished"];
    case["applied"] = json!(["suites/block.yaml:6"]);
    case["cells"][0]["evidence"] = json!([{
        "point": "cilium", "node": "lab-1", "did": {"deny-by-rule": {"direction": "egress"}},
        "flow": {"protocol": "TCP", "source": "10.0.1.5:41000", "destination": "169.254.169.254:80"},
        "policies": [name], "record": {},
        "rulings": [{"policy": name, "part": {"rules": ["spec.egressDeny[0]"]}, "by": "model"}]
    }]);
    let text = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nspec:\n  egressDeny:\n    - toCIDR: [169.254.169.254/32]";
    let read = json!({"at_us": 1, "kind": {"policy-read": {
        "policy": name, "place": "suites/block.yaml:6", "text": text
    }}});
    lines.insert(1, read);
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    fs::write(file, lines.join("\n")).unwrap();
    let output = project.ztc(&["report", "render", "stored"]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    folder.join("report.html")
}

#[test]
fn the_rule_that_decided_is_still_known_to_a_stored_run() {
    let page = fs::read_to_string(decided(&Project::new())).unwrap();
    assert!(page.contains(
        "deciding rule: <a href=#p0r0><bdi>spec.egressDeny[0]</bdi></a> (line 9), by the model"
    ));
    assert!(page.contains("</span><mark><i>9</i>    - toCIDR: [169.254.169.254/32] <b id=p0r0>"));
}

#[test]
fn a_browser_goes_to_the_rule_that_decided() {
    let Some(browser) = Browser::find() else { return };
    let project = Project::new();
    let page = decided(&project);
    let (shown, log) = browser.open(&page, "#p0r0");
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(shown.contains("<details class=\"policy\" id=\"p0\" open=\"\">"), "{shown}");
    // The script gives it the focus, which needs an index for what is no heading.
    assert!(shown.contains("<b id=\"p0r0\" tabindex=\"-1\">◂ deciding rule: <a"), "{shown}");
    is_painted(&browser, &project, &page);
}

#[test]
fn what_is_no_run_is_not_reported() {
    let project = Project::new();
    let output = project.ztc(&["report", "render", "none"]).output().unwrap();
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    let folder = stored(&project);
    fs::write(folder.join("events.jsonl"), "{}\n").unwrap();
    let output = project.ztc(&["report", "render", "stored"]).output().unwrap();
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("no run begins in"), "{}", stderr(&output));
    assert!(!folder.join("report.html").exists());
}

#[test]
fn a_rehearsal_has_no_conformance_report_and_says_why() {
    let project = Project::new();
    let folder = stored(&project);
    let args = ["report", "render", "stored", "--format", "conformance"];
    let output = project.ztc(&args).output().unwrap();
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("a run on the lab is a rehearsal"), "{}", stderr(&output));
    assert!(!folder.join("report.yaml").exists());
}

#[test]
fn a_browser_shows_the_page_and_filters_it() {
    let Some(browser) = Browser::find() else { return };
    let project = Project::new();
    let page = stored(&project).join("report.html");
    let output = project.ztc(&["report", "render", "stored"]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));

    let (all, log) = browser.open(&page, "");
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(all.contains("2 of 2 cases"), "the script did not run: {all}");
    assert!(!all.contains("<script>alert"), "{all}");
    for (fragment, told) in [
        ("#verdict=fail-open", "1 of 2 cases"),
        ("#layer=l1-cluster", "1 of 2 cases"),
        ("#q=leaks+credentials", "1 of 2 cases"),
        ("#q=nowhere", "0 of 2 cases"),
        ("#verdict=no-such", "2 of 2 cases"),
        ("#c1", "2 of 2 cases"),
    ] {
        let (page, log) = browser.open(&page, fragment);
        assert!(!log.contains("CONSOLE"), "{fragment}: {log}");
        assert!(page.contains(told), "{fragment} does not show {told}");
        let hidden = page.matches(" hidden=\"\"").count();
        let shown: usize = told.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(hidden, 2 - shown, "{fragment}");
    }

    is_painted(&browser, &project, &page);
}

/// That a picture of the page is no blank.
fn is_painted(browser: &Browser, project: &Project, page: &Path) {
    let shot = project.path("page.png");
    let file = format!("--screenshot={}", shot.display());
    browser.run(&["--window-size=1280,900", &file, &format!("file://{}", page.display())]);
    assert!(fs::metadata(&shot).unwrap().len() > 10_000, "nothing is painted");
}

#[test]
fn a_browser_shows_the_time_line_of_a_change() {
    let Some(browser) = Browser::find() else { return };
    let project = Project::new();
    let folder = stored(&project);
    let window = |kind: &str, from_us: u64, until_us: u64| json!({"kind": kind, "from_us": from_us, "until_us": until_us, "samples": 1, "seen": "HTTP 200"});
    let flow = |send: &str, windows: Value| {
        json!({
            "cell": 1, "from": "zt-shop/web", "send": send, "expected": "denied", "denied": true,
            "point": null, "samples": 9, "slowest_us": 0, "windows": windows
        })
    };
    let change = json!({"at_us": 1, "kind": {"change-watched": {
        "case": "l2-namespace::leaks", "every_us": 10_000, "outage_us": 0, "after_ms": 1,
        "steps": [
            {"step": "before", "from_us": 0, "until_us": 2_000_000},
            {"step": "<script>alert(1)</script>", "from_us": 2_000_000, "until_us": 4_000_000}
        ],
        "flows": [
            flow("tcp a/b:1", json!([window("leak", 2_000_000, 2_010_000)])),
            flow("tcp a/b:2", json!([window("blind", 0, 90_000), window("outage", 100_000, 110_000)]))
        ]
    }}});
    let events = fs::read_to_string(folder.join("events.jsonl")).unwrap();
    let (first, rest) = events.split_once('\n').unwrap();
    fs::write(folder.join("events.jsonl"), format!("{first}\n{change}\n{rest}")).unwrap();
    let output = project.ztc(&["report", "render", "stored"]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let page = folder.join("report.html");
    for fragment in ["", "#w0", "#c1"] {
        let (shown, log) = browser.open(&page, fragment);
        assert!(!log.contains("CONSOLE"), "{fragment}: {log}");
        assert!(shown.contains("2 of 2 cases") && !shown.contains("<script>alert"), "{shown}");
        // The browser reads the bars as what they are, each in the picture of its row.
        assert_eq!(
            shown.matches("<path class=\"bar ").count(),
            3 + 3,
            "of the rows and the legend"
        );
        assert_eq!(shown.matches("<use href=\"#b0\"></use>").count(), 2, "{shown}");
    }
    is_painted(&browser, &project, &page);
}
