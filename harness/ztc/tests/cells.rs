//! The version matrix at the command line: what is listed, and what is refused before a cluster is made.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use support::{Project, code, stderr};

const NEWEST: &str = "k8s-1.36.3_cilium-1.20.2_istio-1.31.1_gwapi-1.6.1";
const BUNDLED: &str = "k8s-1.36.3_cilium-1.19.6";
const MATRIX: &str = "clusters/matrix.yaml";

fn ztc(project: &Project, args: &[&str]) -> Output {
    let mut command = project.ztc(args);
    // No cluster is made here: neither Docker nor kind is to be found.
    command
        .env_remove("ZTC_BUNDLE")
        .env("PATH", "/nowhere")
        .env("DOCKER_HOST", "tcp://127.0.0.1:9");
    command.output().unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The folder of a bundle of these versions, of which nothing else can be made.
fn bundle(project: &Project, versions: &str) -> PathBuf {
    let folder = project.path("bundle");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("bundle.yaml"), format!("versions: {versions}\n")).unwrap();
    folder
}

#[test]
fn the_matrix_of_the_project_is_listed_and_what_is_never_together_is_said() {
    let output = ztc(&Project::new(), &["matrix", "--select", "pairwise"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    insta::assert_snapshot!(lines(&output).join("\n"));
}

#[test]
fn a_workflow_gets_one_line_of_json_with_all_that_is_listed() {
    let project = Project::new();
    let names = ztc(&project, &["matrix"]);
    let github = ztc(&project, &["matrix", "--format", "github"]);
    assert_eq!(lines(&github).len(), 1);
    let matrix: Value = serde_json::from_slice(&github.stdout).unwrap();
    let cells: Vec<&str> = matrix["include"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["cell"].as_str().unwrap())
        .collect();
    let names: Vec<String> = lines(&names).into_iter().filter(|it| !it.starts_with('#')).collect();
    assert_eq!(cells, names);
    assert_eq!(matrix["include"][0]["gateway-api"], "1.6.1");
}

#[test]
fn upgrades_are_to_the_newest_cell_and_of_one_part_each() {
    let project = Project::new();
    let output = ztc(&project, &["matrix", "--select", "upgrades"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let older = |part: &str, version: &str| format!("{} {NEWEST}", NEWEST.replace(part, version));
    assert_eq!(
        lines(&output),
        [older("gwapi-1.6.1", "gwapi-1.5.1"), older("1.31.1", "1.30.5"), older("1.20.2", "1.19.6")]
    );
    let github = ztc(&project, &["matrix", "--select", "upgrades", "--format", "github"]);
    let matrix: Value = serde_json::from_slice(&github.stdout).unwrap();
    assert_eq!(matrix["include"][0]["to"], NEWEST);
    assert_eq!(matrix["include"].as_array().unwrap().len(), 3);
}

#[test]
fn a_cell_is_a_profile_with_its_versions_and_a_cluster_of_its_own() {
    let project = Project::new();
    let output =
        ztc(&project, &["list", "--cluster", NEWEST, "the-metadata-service-is-denied-by-name"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let name =
        "kind-1-36-3-1-20-2-1-31-1-1-6-1::l1-cluster::the-metadata-service-is-denied-by-name";
    assert_eq!(lines(&output), [name]);
    // What is about other versions is ignored, and says so.
    let older = NEWEST.replace("1.20.2", "1.19.6");
    let output = ztc(&project, &["list", "--cluster", &older, "l1-enforcement-mode"]);
    assert!(lines(&output).iter().any(|it| it.contains("and here is 1.19.6")), "{output:?}");
}

#[test]
fn a_cell_without_a_mesh_ignores_what_needs_one() {
    let project = Project::new();
    let bundle = bundle(&project, "{ kubernetes: 1.36.3, cilium: 1.19.6 }");
    let place = ["--cluster", BUNDLED, "--bundle", bundle.to_str().unwrap()];
    let output = ztc(&project, &[&["list", "l4-ztunnel"], &place[..]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        lines(&output).iter().all(|it| it.contains("lacks") && it.contains("ztunnel")),
        "{output:?}"
    );
}

#[test]
fn a_bundle_of_other_versions_is_refused_before_anything_is_made() {
    let project = Project::new();
    let bundle = bundle(&project, "{ kubernetes: 1.36.3, cilium: 1.19.6 }");
    for verb in ["run", "up", "doctor", "list"] {
        let output =
            ztc(&project, &[verb, "--cluster", NEWEST, "--bundle", bundle.to_str().unwrap()]);
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{said}");
        assert!(
            said.contains("is of cilium 1.19.6, no gateway-api, no istio, and not what the cell"),
            "{said}"
        );
    }
    let output = ztc(&project, &["matrix", "--cell", NEWEST, "--bundle", bundle.to_str().unwrap()]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(!project.path("target").exists(), "something was started");
}

#[test]
fn a_cell_of_bundles_wants_one_and_a_bundle_has_its_cell() {
    let project = Project::new();
    let output = ztc(&project, &["matrix", "--cell", BUNDLED]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("name a bundle of them with --bundle"), "{}", stderr(&output));

    let bundle = bundle(&project, "{ kubernetes: 1.36.3, cilium: 1.19.6 }");
    let listed =
        |args: &[&str]| lines(&ztc(&project, &[&["matrix", "--select", "bundled"], args].concat()));
    assert_eq!(listed(&["--bundle", bundle.to_str().unwrap()]), [BUNDLED]);
    assert!(listed(&[]).len() > 1);
}

#[test]
fn what_is_no_cell_is_said_with_the_reason() {
    let project = Project::new();
    let output = ztc(&project, &["matrix", "--cell", &NEWEST.replace("1.6.1", "1.4.1")]);
    let said = stderr(&output);
    assert_eq!(code(&output), 2, "{said}");
    assert!(
        said.contains("as is known of istio >=1.30.0 and gateway-api <1.5.0")
            && said.contains("https://"),
        "{said}"
    );
    // A profile is no cell, and a cluster is named once.
    let output = ztc(&project, &["matrix", "--cell", "lab"]);
    assert!(code(&output) == 2 && stderr(&output).contains("no cell `lab`"), "{}", stderr(&output));
    let output = ztc(&project, &["matrix", "--cell", NEWEST, "--cluster", "lab"]);
    assert!(
        code(&output) == 2 && stderr(&output).contains("leave out --cluster"),
        "{}",
        stderr(&output)
    );
    let output = ztc(&project, &["matrix", "l1-cluster"]);
    assert!(
        code(&output) == 2 && stderr(&output).contains("no cases to filter"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_wrong_matrix_is_told_with_its_place() {
    let project = Project::new();
    project.edit(MATRIX, "because:", "becuase:");
    let output = ztc(&project, &["matrix"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 2, "{said}");
    assert!(
        said.contains("clusters/matrix.yaml:") && said.contains("unknown field `becuase`"),
        "{said}"
    );
    // Profiles that have a file are not in need of it.
    assert_eq!(code(&ztc(&project, &["list", "l1-cluster"])), 0);
}

#[test]
fn without_a_matrix_there_are_profiles_alone() {
    let project = Project::new();
    fs::remove_file(project.path(MATRIX)).unwrap();
    let output = ztc(&project, &["matrix"]);
    assert!(code(&output) == 2 && stderr(&output).contains("there is no "), "{}", stderr(&output));
    let output = ztc(&project, &["list", "--cluster", NEWEST]);
    assert!(stderr(&output).contains("there is no profile"), "{}", stderr(&output));
}
