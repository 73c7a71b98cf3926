//! Wrong input is told with file, line and caret; nothing is started.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use support::{Project, code, lab_is_possible, stderr};

const SUITE: &str = "suites/l2-namespace/suite.yaml";
const TEAMS: &str = "suites/worlds/two-teams.yaml";
const NODES: &str = "suites/worlds/node-network.yaml";
const NODE_SUITE: &str = "suites/l1-node-network/suite.yaml";
const IDENTITY: &str = "suites/l1-identity/suite.yaml";
const ZTUNNEL: &str = "suites/l4-ztunnel/suite.yaml";
const MANIFEST: &str = "suites/l2-namespace/default-deny-pay.yaml";

/// File, what it says, what it shall say instead, and what has to be told.
const SLIPS: [(&str, &str, &str, &str); 29] = [
    (SUITE, "because:", "becuase:", "unknown field `becuase`"),
    (SUITE, "[zt-shop/web, zt-shop/cart]", "[zt-shop/wbe]", "unknown pod `zt-shop/wbe`"),
    (SUITE, "is: allowed }", "is: allowed, by: cilium }", "an allowed flow has no `by`"),
    (SUITE, "as: default-deny", "as: dns-refused", "cilium does not deny as dns-refused"),
    (SUITE, "udp zt-pay/ledger:9001", "tcp zt-pay/ledger:9000", "is asked of the same policies"),
    (SUITE, "udp zt-pay/ledger:9001", "udp zt-pay/ledger:7", "nobody serves this"),
    (
        SUITE,
        "udp zt-pay/ledger:9001",
        "ping ledger.zt-pay",
        "`ping` is written `ping NAMESPACE/POD",
    ),
    (
        SUITE,
        "\"udp outside/api:9001\"",
        "ping outside/metadata, ping 169.254.169.254",
        "zt-pay/ledger pings outside/metadata twice",
    ),
    (SUITE, "    apply:", "    gap: It passes.\n    apply:", "nobody says what closes this gap"),
    (SUITE, "    apply:", "    closed-by: none\n    apply:", "`closed-by` without a gap"),
    (
        SUITE,
        "    apply:",
        "    gap: It passes.\n    closed-by: nothing\n    apply:",
        "this suite has no case `nothing`",
    ),
    (
        SUITE,
        "    apply:",
        "    gap: It passes.\n    closed-by: a-network-policy-denies-by-default-alone\n    apply:",
        "is a gap itself, and closes none",
    ),
    (
        NODES,
        "node: b\n    labels: { app: node-agent }",
        "node: a\n    labels: { app: node-agent }",
        "zt-node/agent-b and zt-node/agent-a serve port 8900 in the network of the same node",
    ),
    (IDENTITY, "{ app: retired }", "{ app: web }", "zt-shop/web has `app: web` already"),
    (IDENTITY, "{ app: retired }", "{ tier: null }", "has no label `tier` to lose"),
    (
        IDENTITY,
        "zt-shop/web, labels: { app: retired }",
        "zt-pay/ledger, labels: { app: retired }",
        "service ledger would lose or gain a backend by `app`",
    ),
    (
        TEAMS,
        "namespace: zt-new, name: late, node: a, labels: { app: late }, born: in-a-case",
        "namespace: zt-new, name: late, node: a, labels: { app: late }",
        "zt-new/late is not born in a case with the default account, as `zt-new` is",
    ),
    (NODES, "port: 8900", "port: 4240", "where port 4240 is not free"),
    (
        NODE_SUITE,
        "\"tcp zt-node/agent-b:8900\"",
        "dns A api.zt.test",
        "is in its node's network, and does not ask cluster DNS",
    ),
    (
        SUITE,
        "udp zt-pay/ledger:9001",
        "udp zt-pay/ledger:9001 over ipv6",
        "the suite does not say that it needs ipv6",
    ),
    (SUITE, "world: two-teams", "world: three-teams", "unknown world `three-teams`"),
    (ZTUNNEL, "of: deny-post,", "of: deny-get,", "the case applies no policy `deny-get`"),
    (ZTUNNEL, "type: ZtunnelAccepted", "type: ZtunnelAdmitted", "unknown value `ZtunnelAdmitted`"),
    (
        ZTUNNEL,
        "of: deny-post, type: ZtunnelAccepted",
        "of: deny-post, type: Programmed",
        "AuthorizationPolicy/zt-bank/deny-post has no condition Programmed, which is one of a Gateway",
    ),
    (
        ZTUNNEL,
        "of: deny-post,",
        "of: Service/zt-bank/mint,",
        "the world has no service `zt-bank/mint`; it has: ",
    ),
    (SUITE, "[default-deny-pay.yaml]", "[nothing.yaml]", "there is no manifest `nothing.yaml`"),
    (MANIFEST, "kind: NetworkPolicy", "kind: Secret", "Secret"),
    (
        MANIFEST,
        "namespace: zt-pay",
        "namespace: zt-else",
        "`zt-else`, which the world does not have",
    ),
    (MANIFEST, "podSelector: {}", "podSelector: {}\n  priority: 1", "priority"),
];

fn refused(project: &Project, words: &str) {
    let output = project.ztc(&["run"]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(code(&output), 2, "{said}");
    assert!(said.contains(words), "{words:?} is not in:\n{said}");
    assert!(said.contains(".yaml:") && said.contains('^'), "no place or no caret:\n{said}");
    assert!(!project.path("target").exists(), "something was started");
}

#[test]
fn every_slip_is_told_with_its_place() {
    for (file, from, to, words) in SLIPS {
        let project = Project::new();
        project.edit(file, from, to);
        refused(&project, words);
    }
}

#[test]
fn a_hundred_megabytes_are_refused_without_being_read() {
    let project = Project::new();
    std::fs::File::create(project.path(SUITE)).unwrap().set_len(100 << 20).unwrap();
    refused(&project, "104857600 bytes long");
}

#[test]
fn aliases_that_expand_without_end_are_refused() {
    let project = Project::new();
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = level - 1;
        let aliases = vec![format!("*a{below}"); 10].join(", ");
        bomb.extend([format!("a{level}: &a{level} [{aliases}]\n")]);
    }
    std::fs::write(project.path(MANIFEST), bomb).unwrap();
    refused(&project, "");
}

#[test]
fn a_profile_for_a_real_ztunnel_passes_for_no_other() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    let output = project.ztc(&["run", "--cluster", "lab-ztunnel", "l3-mtls"]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(code(&output), 2, "{said}");
    assert!(said.contains("lab-ztunnel is for a real ztunnel, and ZTC_LAB_ZTUNNEL names none"));
    assert!(!project.path("target").exists(), "something was started");
}

/// What a real ztunnel is taken for, and why it is none.
#[test]
fn what_is_no_ztunnel_is_refused() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    for (program, words) in [
        ("/bin/echo", "/bin/echo is no ztunnel: asked for its `version` it says \"version"),
        ("/no/such/file", "cannot run `/no/such/file version`: No such file or directory"),
        ("/", "cannot run `/ version`: Permission denied"),
    ] {
        let output =
            project.ztc(&["run", "l3-mtls"]).env("ZTC_LAB_ZTUNNEL", program).output().unwrap();
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{said}");
        assert!(said.contains("ZTC_LAB_ZTUNNEL") && said.contains(words), "{said}");
        assert!(!project.path("target").exists(), "something was started");
    }
}
