//! `ztc bundle create`: what it refuses before it needs a network, and that it then leaves nothing behind; and a bundle
//! out of registries.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

#[path = "bundle/from_registries.rs"]
mod from_registries;
#[path = "bundle/registry.rs"]
mod registry;
mod support;

use std::fs;

use support::{Project, code, stderr};

/// The definitions that the profile `kind` needs, as short as they can be.
const DEFINITIONS: &str = "kind: CustomResourceDefinition\n\
metadata: { annotations: { gateway.networking.k8s.io/bundle-version: v1.6.1 } }\n\
spec: { group: gateway.networking.k8s.io }\n";

/// Asks for a bundle of a profile in the folder `out`; the exit code and what was said. No program is on
/// `PATH`.
fn create(project: &Project, profile: &str, more: &[&str]) -> (i32, String) {
    let mut arguments = vec!["bundle", "create", "--profile", profile, "--out", "out"];
    arguments.extend(more);
    let output = project.ztc(&arguments).env("PATH", "").output().unwrap();
    (code(&output), stderr(&output))
}

fn refused(project: &Project, profile: &str, more: &[&str], wanted: (i32, &str)) {
    let existed = project.path("out").exists();
    let (code, said) = create(project, profile, more);
    assert_eq!(code, wanted.0, "{said}");
    assert!(said.contains(wanted.1), "{:?} is not in:\n{said}", wanted.1);
    assert_eq!(said.trim_end().lines().count(), 1, "more than an error was said:\n{said}");
    assert_eq!(project.path("out").exists(), existed, "something was written");
}

fn with_definitions() -> Project {
    let project = Project::new();
    fs::write(project.path("gateway-api.yaml"), DEFINITIONS).unwrap();
    project
}

const CRDS: [&str; 2] = ["--crds", "gateway-api.yaml"];

#[test]
fn an_unknown_profile_is_told_with_those_that_there_are() {
    refused(
        &Project::new(),
        "kindd",
        &[],
        (2, "no profile `kindd`; give a file, or one of: attach, kind, kind-dual, lab"),
    );
}

#[test]
fn the_lab_has_no_cluster_to_make_a_bundle_of() {
    refused(&Project::new(), "lab", &[], (2, "profile lab has no `cluster:`"));
}

#[test]
fn a_file_is_no_folder_for_a_bundle() {
    let project = with_definitions();
    fs::write(project.path("out"), "precious").unwrap();
    refused(&project, "kind", &CRDS, (2, "out is no folder"));
    assert_eq!(fs::read_to_string(project.path("out")).unwrap(), "precious");
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let project = with_definitions();
    fs::create_dir(project.path("out")).unwrap();
    fs::write(project.path("out/notes.txt"), "precious").unwrap();
    refused(&project, "kind", &CRDS, (2, "out is not empty"));
    assert_eq!(fs::read_dir(project.path("out")).unwrap().count(), 1);
    fs::write(project.path("out/bundle.yaml"), "versions: {}\n").unwrap();
    refused(&project, "kind", &CRDS, (2, "out has a bundle already"));
}

#[test]
fn a_mesh_without_definitions_is_told_where_they_are() {
    let url = "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.1/standard-install.yaml";
    refused(&Project::new(), "kind", &[], (2, url));
}

#[test]
fn definitions_that_are_not_there_or_of_another_version_are_refused() {
    let project = with_definitions();
    refused(&project, "kind", &["--crds", "nothing.yaml"], (2, "cannot read nothing.yaml"));
    project.edit("clusters/kind.yaml", "gatewayApi: 1.6.1", "gatewayApi: 1.7.0");
    refused(&project, "kind", &CRDS, (2, "definitions of v1.6.1, and the profile says v1.7.0"));
}

#[test]
fn without_helm_nothing_is_begun() {
    refused(
        &with_definitions(),
        "kind",
        &CRDS,
        (3, "there is no `helm` in ./.tools and none on PATH"),
    );
}
