//! A bundle made out of registries that stand in for the real ones, with the real helm and a real Docker
//! engine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::registry::Registry;
use super::support::{Project, code, stderr};
use super::{CRDS, with_definitions};

/// The versions of the profile `kind`.
const CILIUM: &str = "1.20.2";
const ISTIO: &str = "1.31.1";
const KUBERNETES: &str = "1.36.3";

/// A chart of one workload with one image, as far as a bundle looks at it.
fn chart(folder: &Path, name: &str, version: &str, values: &str, template: &str) {
    let chart = folder.join(name);
    fs::create_dir_all(chart.join("templates")).unwrap();
    let about = format!("apiVersion: v2\nname: {name}\nversion: {version}\n");
    fs::write(chart.join("Chart.yaml"), about).unwrap();
    fs::write(chart.join("values.yaml"), values).unwrap();
    fs::write(chart.join("templates/all.yaml"), template).unwrap();
}

fn workload(image: &str) -> String {
    format!(
        "kind: DaemonSet\nspec: {{ template: {{ spec: {{ containers: [{{ image: '{image}' }}] }} }} }}\n"
    )
}

/// Makes the charts of a cluster whose images are in the registry, and serves them there.
fn charts(registry: &Registry, helm: &Path, folder: &Path) {
    let host = registry.host();
    let digest = registry.push("cilium/cilium", &format!("v{CILIUM}"));
    let values = format!(
        "image: {{ repository: {host}/cilium/cilium, tag: v{CILIUM}, digest: '{digest}', useDigest: true }}\n"
    );
    let by_digest = workload(
        "{{ .Values.image.repository }}:{{ .Values.image.tag }}{{ if .Values.image.useDigest }}@{{ .Values.image.digest }}{{ end }}",
    );
    chart(folder, "cilium", CILIUM, &values, &by_digest);
    chart(folder, "base", ISTIO, "{}\n", "kind: ConfigMap\n");
    let injector = format!(
        "---\nkind: ConfigMap\ndata:\n  values: '{{\"global\": {{\"hub\": \"{host}/istio\", \"tag\": \"{ISTIO}\"}}}}'\n"
    );
    let istiod = workload(&format!("{host}/istio/pilot:{ISTIO}")) + &injector;
    chart(folder, "istiod", ISTIO, "{}\n", &istiod);
    chart(folder, "cni", ISTIO, "{}\n", &workload(&format!("{host}/istio/install-cni:{ISTIO}")));
    chart(folder, "ztunnel", ISTIO, "{}\n", &workload(&format!("{host}/istio/ztunnel:{ISTIO}")));
    for name in ["cilium", "base", "istiod", "cni", "ztunnel"] {
        ran(Command::new(helm)
            .arg("package")
            .arg(folder.join(name))
            .arg("--destination")
            .arg(folder));
    }
    ran(Command::new(helm).args(["repo", "index"]).arg(folder));
    registry.serve_charts(folder);
}

fn ran(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A profile whose charts and whose nodes' image are in the registry.
fn mirrored(project: &Project, host: &str) {
    let text = fs::read_to_string(project.path("clusters/kind.yaml")).unwrap();
    let own = format!(
        "  nodeImage: {host}/kindest/node:v{KUBERNETES}\n  chartRepositories:\n    cilium: http://{host}/charts\n    \
         istio: http://{host}/charts\n"
    );
    let nodes = "  nodes: 2\n";
    assert!(text.contains(nodes));
    let text = text
        .replace("profile: kind\n", "profile: mirrored\n")
        .replace(nodes, &format!("{own}{nodes}"));
    fs::write(project.path("clusters/mirrored.yaml"), text).unwrap();
}

/// helm, from `.tools/` of this checkout or from `PATH`.
fn helm() -> PathBuf {
    let own = super::support::root().join(".tools");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(own).chain(std::env::split_paths(&path));
    folders.find_map(|it| Some(it.join("helm")).filter(|it| it.is_file())).expect("no helm")
}

fn create(project: &Project, helm: &Path) -> (i32, String) {
    let arguments = ["bundle", "create", "--profile", "mirrored", "--out", "out", CRDS[0], CRDS[1]];
    // So that it is this helm, and nothing of what its user has set up.
    let home = project.path("home");
    let mut command = project.ztc(&arguments);
    command.env("PATH", helm.parent().unwrap()).env("HOME", home);
    let output = command.output().unwrap();
    (code(&output), stderr(&output))
}

/// The images that the test has brought into the engine go again, however it ends.
struct Pulled(String);

impl Drop for Pulled {
    fn drop(&mut self) {
        let listed = Command::new("docker")
            .args(["image", "ls", "--quiet", "--filter"])
            .arg(format!("reference={}/*/*", self.0))
            .output();
        for image in String::from_utf8_lossy(&listed.unwrap().stdout).lines() {
            Command::new("docker").args(["image", "rm", "--force", image]).output().unwrap();
        }
    }
}

#[test]
#[ignore = "needs helm and a Docker engine; scripts/real-cluster runs it"]
fn a_bundle_is_made_out_of_registries_and_gone_on_with_after_one_that_had_an_image_not_yet() {
    let (project, registry, helm) = (with_definitions(), Registry::start(), helm());
    let host = registry.host();
    let _pulled = Pulled(host.clone());
    let folder = tempfile::tempdir().unwrap();
    charts(&registry, &helm, folder.path());
    mirrored(&project, &host);
    let node = format!("{host}/kindest/node:v{KUBERNETES}");
    let istio = ["pilot", "install-cni", "proxyv2"].map(|it| format!("{host}/istio/{it}:{ISTIO}"));
    registry.push("kindest/node", &format!("v{KUBERNETES}"));
    for name in ["pilot", "install-cni", "proxyv2"] {
        registry.push(&format!("istio/{name}"), ISTIO);
    }

    let (code, said) = create(&project, &helm);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&format!("{host}/istio/ztunnel:{ISTIO}")), "{said}");
    assert!(said.contains("is not finished; the same command goes on from there"), "{said}");
    assert!(!project.path("out/bundle.yaml").exists());

    registry.push("istio/ztunnel", ISTIO);
    let (code, said) = create(&project, &helm);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("image {} is there from an earlier attempt", istio[0])),
        "{said}"
    );

    let text = fs::read_to_string(project.path("out/bundle.yaml")).unwrap();
    let bundle: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    let images: BTreeSet<&str> =
        bundle["images"].as_array().unwrap().iter().map(|it| it["ref"].as_str().unwrap()).collect();
    let cilium = format!("{host}/cilium/cilium:v{CILIUM}");
    let ztunnel = format!("{host}/istio/ztunnel:{ISTIO}");
    let wanted = istio.iter().chain([&cilium, &ztunnel]).map(String::as_str).collect();
    assert_eq!(images, wanted, "the images of the bundle, waypoints' among them");
    assert_eq!(bundle["nodeImage"]["ref"], node.as_str());
    assert_eq!(bundle["charts"].as_object().unwrap().len(), 5);
    let values = fs::read_to_string(project.path("out/values/cilium.yaml")).unwrap();
    assert!(values.contains("\"useDigest\": false"), "{values}");
}
