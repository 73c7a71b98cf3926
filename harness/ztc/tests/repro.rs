//! What `ztc repro` writes: texts that do not change unnoticed, and a script that comes to the right end on a cluster that
//! is played by `tests/repro/kubectl`.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::{Project, code, root, stderr};
use tempfile::TempDir;
use ztc::project;
use ztc::repro::{self, File, IMAGE, Question, Refusal};
use ztc_model::suite::{Library, load, world};
use ztc_model::yaml::Source;

const WORLD: &str = "
world: two
about: A shop and a payments team.
namespaces: [{ name: zt-shop }, { name: zt-pay }, { name: kube-system }]
pods:
  - { namespace: zt-shop, name: web, node: a, labels: { app: web } }
  - { namespace: zt-shop, name: other, node: a }
  - { namespace: zt-shop, name: late, node: a, born: in-a-case }
  - { namespace: kube-system, name: late, node: a, born: in-a-case }
  - namespace: zt-pay
    name: vault
    node: b
    labels: { app: vault }
    serviceAccount: vault
    serves: [{ speaks: http, port: 8080, name: http }, { speaks: tcp, port: 9000 }, { speaks: udp, port: 9001 }]
    readiness: 8080
services: [{ namespace: zt-pay, name: vault, selector: { app: vault }, ports: [{ port: 80, targetPort: 8080 }] }]
outside:
  - { name: api, dns: [api.zt.test], serves: [{ speaks: tcp, port: 9000 }] }
  - { name: metadata, address: 169.254.169.254, serves: [{ speaks: http, port: 80 }] }
tokens: [{ name: teller, about: The teller's., text: a.b.c }]
";

const POLICY: &str = "# Denies what arrives.
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: closed, namespace: zt-pay }
spec: { endpointSelector: {}, ingress: [{}] }
";

/// What is written for the first cell of a case that has `expect`.
fn written(create: &str, expect: &str) -> Result<Vec<File>, Refusal> {
    let world = world(&Source::new("two.yaml", WORLD)).unwrap();
    let manifests =
        BTreeMap::from([("closed.yaml".to_owned(), Source::new("closed.yaml", POLICY))]);
    let library =
        Library { worlds: BTreeMap::from([("two".to_owned(), world.clone())]), manifests };
    let text = format!(
        "suite: s\nabout: A suite.\nworld: two\nneeds: [cilium, ipv6]\ncases:\n- name: closed\n  because: The rule is empty.\n  \
         apply: [closed.yaml]\n  create: [{create}]\n  expect: [{{ {expect} }}]\n"
    );
    let suite =
        load(&Source::new("suite.yaml", text), &library).unwrap_or_else(|it| panic!("{it}"));
    let versions = BTreeMap::from([("cilium".to_owned(), "1.20.2".to_owned())]);
    repro::files(&Question {
        case: &suite.cases[0],
        number: 1,
        world: &world,
        policies: &[("closed.yaml".to_owned(), POLICY.to_owned())],
        image: IMAGE,
        versions: &versions,
        seen: None,
    })
}

fn text<'a>(files: &'a [File], name: &str) -> &'a str {
    &files.iter().find(|file| file.name == name).unwrap().text
}

#[test]
fn a_token_is_sent_in_a_header() {
    let send = |send: &str| written("", &format!("from: zt-shop/web, send: {send}, is: allowed"));
    let files = send("GET http://vault.zt-pay/ with token teller").unwrap();
    assert!(text(&files, "repro.sh").contains("-X GET -H 'authorization: Bearer a.b.c' "));
    let files = send("GET http://vault.zt-pay/").unwrap();
    assert!(!text(&files, "repro.sh").contains("authorization"));
}

#[test]
fn a_cell_is_these_files() {
    let files = written(
        "",
        r#"from: zt-shop/web, send: "tcp zt-pay/vault:9000", is: denied, by: cilium, as: default-deny"#,
    );
    for file in files.unwrap() {
        insta::assert_snapshot!(file.name, file.text);
    }
}

#[test]
fn each_kind_of_stimulus_is_a_function_of_standard_tools() {
    let sent = |send: &str| {
        let files =
            written("", &format!("from: zt-shop/web, send: {send:?}, is: allowed")).unwrap();
        let script = text(&files, "repro.sh");
        let (_, body) = script.split_once("\nsend() {\n").unwrap();
        format!("send() {{\n{}", body.split_once("\n}\n").unwrap().0)
    };
    let stimuli = [
        "udp zt-pay/vault:9001",
        "ping zt-pay/vault",
        "tcp zt-pay/vault:9000 over ipv6",
        "tcp outside/api:9000",
        "POST http://vault.zt-pay/gold?of=all",
        "GET http://169.254.169.254/latest/",
        "dns AAAA vault.zt-pay.svc.cluster.local",
        "dns/tcp A api.zt.test",
    ];
    let told: Vec<String> =
        stimuli.iter().map(|it| format!("# {it}\n{}\n}}\n", sent(it))).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn what_somebody_has_to_provide_is_said_and_asked_for() {
    let files =
        written("", r#"from: zt-shop/web, send: "tcp outside/api:9000", is: allowed"#).unwrap();
    let asked = r#": "${OUTSIDE_API:?"#;
    assert!(text(&files, "repro.sh").contains(asked));
    let readme = text(&files, "README.md");
    assert!(
        readme.contains("`OUTSIDE_API` is the address of a host outside the cluster"),
        "{readme}"
    );
    assert!(readme.contains("`api.zt.test`"), "{readme}");
}

#[test]
fn what_standard_tools_cannot_show_is_refused_with_a_way_by_hand() {
    let newborn =
        r#"from: zt-shop/late, send: "tcp zt-pay/vault:9000", is: denied, twin: kube-system/late"#;
    let refusal = written("zt-shop/late, kube-system/late", newborn).unwrap_err();
    assert!(matches!(refusal, Refusal::Newborn { .. }), "{refusal}");
    let flow = written("", r#"from: zt-shop/web, send: "udp/flow zt-pay/vault:9001", is: denied"#);
    let refusal = flow.unwrap_err();
    assert!(refusal.to_string().contains("by hand: "), "{refusal}");
}

/// Of every cell of every suite: nothing is refused but what has a reason, and every script is one.
#[test]
fn every_cell_of_the_suites_is_a_script_or_has_a_reason() {
    let project = project::Project::at(root());
    let suites = project.suites().unwrap();
    let folder = TempDir::new().unwrap();
    let mut scripts = Vec::new();
    for case in suites.suites.iter().flat_map(|suite| &suite.cases) {
        for number in 1..=case.cells.len() {
            let question = Question {
                case,
                number,
                world: &suites.worlds[&case.world],
                policies: &[],
                image: IMAGE,
                versions: &BTreeMap::new(),
                seen: None,
            };
            match repro::files(&question) {
                Ok(files) => {
                    let path = folder.path().join(format!("{}.sh", scripts.len()));
                    fs::write(&path, text(&files, "repro.sh")).unwrap();
                    scripts.push(path);
                }
                Err(Refusal::Newborn { pod }) => assert!(case.create.contains(&pod), "{}", case.id),
                Err(Refusal::Relabelled { pod }) => {
                    assert!(case.relabel.iter().any(|it| it.pod == pod), "{}", case.id);
                }
                Err(Refusal::Restart { component }) => {
                    assert!(case.restart.contains(&component), "{}", case.id);
                }
                Err(Refusal::Mode { policy }) => {
                    let applied = case.apply.iter().map(|it| it.reference.to_string());
                    assert!(applied.into_iter().any(|it| it == policy), "{}", case.id);
                }
                Err(Refusal::Waypoint { waypoint }) => {
                    assert!(case.gateway(&waypoint).is_some(), "{}", case.id);
                }
                Err(Refusal::Flow { send }) => assert!(send.contains("/flow "), "{send}"),
                Err(Refusal::Stream { .. }) => {
                    assert!(case.cells[number - 1].expected.is_stream(), "{}", case.id);
                }
                Err(Refusal::Wire { .. }) => {
                    assert!(case.cells[number - 1].wire().is_some(), "{}", case.id);
                }
                Err(Refusal::Tls { send }) => {
                    assert!(send.starts_with("tls ") || send.contains("https://"), "{send}");
                }
                Err(Refusal::Tunnel { send }) => assert!(send.starts_with("hbone "), "{send}"),
                Err(refusal) => panic!("{} cell {number}: {refusal}", case.id),
            }
        }
    }
    assert!(scripts.len() > 100, "{}", scripts.len());
    for path in &scripts {
        let checked = Command::new("bash").arg("-n").arg(path).output().unwrap();
        assert!(checked.status.success(), "{}", stderr(&checked));
    }
    // Where there is none, the texts are at least read by a shell, above.
    if let Ok(checked) = Command::new("shellcheck").args(["-S", "warning"]).args(&scripts).output()
    {
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

/// The directory of a cell that the command wrote, and a cluster that is played.
struct Played {
    project: Project,
    state: TempDir,
}

impl Played {
    fn new() -> Self {
        let project = Project::new();
        let case = "l1-baseline::default-deny-stops-tcp-ingress";
        let listed = project.ztc(&["repro", case]).output().unwrap();
        assert_eq!(code(&listed), 2);
        let listed = stderr(&listed);
        let wanted = "zt-shop/web sends tcp zt-pay/vault:9000";
        let line =
            listed.lines().find(|line| line.contains(wanted)).unwrap_or_else(|| panic!("{listed}"));
        let number = line.split_whitespace().next().unwrap();
        let written =
            project.ztc(&["repro", case, "--cell", number, "--out", "cell"]).output().unwrap();
        assert_eq!(code(&written), 0, "{}", stderr(&written));
        Self { project, state: TempDir::new().unwrap() }
    }

    fn run(&self, fault: &str) -> Output {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/repro");
        let path = std::env::var("PATH").unwrap();
        Command::new(self.project.path("cell/repro.sh"))
            .env("PATH", format!("{}:{path}", tools.display()))
            .env("STATE", self.state.path())
            .env("FAULT", fault)
            .output()
            .unwrap()
    }

    fn has(&self, what: &str) -> bool {
        self.state.path().join(what).exists()
    }
}

#[test]
fn a_script_shows_a_denial_and_leaves_nothing() {
    let played = Played::new();
    let output = played.run("none");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{said}{}", stderr(&output));
    assert!(said.contains("== SHOWN"), "{said}");
    assert!(!played.has("world") && !played.has("policies"));
}

#[test]
fn a_script_does_not_show_what_is_not_so() {
    for (fault, reason) in [
        ("never-passes", "it does not get through without a policy"),
        ("not-enforced", "it gets through under the policies"),
        ("leaks-late", "it gets through under the policies"),
        ("no-record", "nobody who should have stopped it has a record of that"),
        ("denied-twice", "somebody else denies it as well"),
        ("taken", "is neither taken nor deleted: namespace/zt-shop"),
    ] {
        let played = Played::new();
        let output = played.run(fault);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(code(&output), 1, "{fault}: {said}{}", stderr(&output));
        assert!(said.contains(reason), "{fault}: {said}");
        assert!(!played.has("world") && !played.has("policies"), "{fault}");
    }
}

#[test]
fn a_case_that_is_not_there_or_is_many_is_refused() {
    let project = Project::new();
    for (case, said) in
        [("no-such-case", "no case has `no-such-case`"), ("l1-", "name one of them:\n  l1-")]
    {
        let output = project.ztc(&["repro", case]).output().unwrap();
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    assert!(!project.path("target").exists(), "something was written");
}
