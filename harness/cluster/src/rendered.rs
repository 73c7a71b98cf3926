//! What charts ask for: the images in their rendered documents.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use ztc_model::yaml::{self, Source};

/// The images of the containers of all workloads among rendered documents. Other documents may speak of
/// images, such as definitions of resources and templates in config maps; nothing runs those by itself.
pub(crate) fn images(documents: &[Value]) -> BTreeSet<String> {
    let pods = documents.iter().flat_map(objects).filter_map(pod_spec);
    let containers = pods.flat_map(|pod| {
        let lists = ["containers", "initContainers"].into_iter();
        lists.filter_map(|it| pod[it].as_array()).flatten()
    });
    let images = containers.filter_map(|it| it["image"].as_str());
    images.filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// A document, or what is in it where it is a list.
fn objects(document: &Value) -> Vec<&Value> {
    match document["items"].as_array() {
        Some(items) => items.iter().collect(),
        None => vec![document],
    }
}

/// The part of a workload that describes its pods.
fn pod_spec(object: &Value) -> Option<&Value> {
    let place = match object["kind"].as_str()? {
        "Pod" => "/spec",
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job" => "/spec/template/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        _ => return None,
    };
    object.pointer(place)
}

/// The image of waypoints, from the rendered documents of istiod's chart.
///
/// No workload of any chart has it: istiod makes waypoints while the cluster runs, out of a template in a
/// config map, and puts the image together itself. It does so from the values that the chart
/// leaves in the config map `istio-sidecar-injector` and the type in the mesh's configuration, by
/// `ProxyImage` in istio/istio `pkg/kube/inject/inject.go`; the template itself
/// (`manifests/charts/istio-control/istio-discovery/files/waypoint.yaml`) takes a whole reference as it is.
pub(crate) fn proxy_image(documents: &[Value]) -> Option<String> {
    let data = |key: &'static str| documents.iter().filter_map(move |it| it["data"][key].as_str());
    let values = data("values").find_map(|text| {
        let values: Value = serde_json::from_str(text).ok()?;
        values["global"]["hub"].is_string().then_some(values)
    })?;
    let global = &values["global"];
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        // A tag such as 1.31 is a number if nobody quoted it.
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let named = word(&global["proxy"]["image"]);
    if named.contains('/') {
        return Some(named);
    }
    let named = if named.is_empty() { "proxyv2".to_owned() } else { named };
    let of_mesh = data("mesh").find_map(|text| {
        let mesh = yaml::values(&Source::new("mesh", text)).ok()?.into_iter().next()?;
        let kind = mesh["defaultConfig"]["image"]["imageType"].as_str()?;
        (!kind.is_empty()).then(|| kind.to_owned())
    });
    let kind = of_mesh.unwrap_or_else(|| word(&global["variant"]));
    Some(format!("{}/{named}:{}", word(&global["hub"]), of_type(&word(&global["tag"]), &kind)))
}

/// A tag of the image's type: `1.31.1-distroless`. A tag that names a type already gets the other one, as
/// `updateImageTypeIfPresent` does beside `ProxyImage`.
fn of_type(tag: &str, kind: &str) -> String {
    let plain = ["-distroless", "-debug"].iter().find_map(|it| tag.strip_suffix(it));
    match kind {
        "" => tag.to_owned(),
        "default" => plain.unwrap_or(tag).to_owned(),
        kind => format!("{}-{kind}", plain.unwrap_or(tag)),
    }
}

/// The values that keep a chart from asking for images by their digests: `useDigest: false` wherever its
/// own values have the switch. Nothing where it has none.
///
/// An archive keeps the tags of an image and not the digest that it had in its registry, so that a node
/// does not find an image by digest that was imported from one, and pulls it (moby/moby#22011).
pub(crate) fn without_digests(values: &Value) -> Option<Value> {
    let fields = values.as_object()?;
    let mut off = Map::new();
    for (key, value) in fields {
        if key == "useDigest" {
            off.insert(key.clone(), json!(false));
        } else if let Some(below) = without_digests(value) {
            off.insert(key.clone(), below);
        }
    }
    (!off.is_empty()).then(|| off.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form of what `helm template` writes for Cilium's and istiod's charts, much shortened.
    const RENDERED: &str = r#"
---
# Source: cilium/templates/cilium-agent/daemonset.yaml
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: cilium }
spec:
  template:
    metadata: { annotations: { note: "image: nobody/reads-this:v1" } }
    spec:
      initContainers:
        - { name: config, image: "quay.io/cilium/cilium:v1.20.2" }
      containers:
        - { name: cilium-agent, image: "quay.io/cilium/cilium:v1.20.2" }
        - name: envoy
          image: "quay.io/cilium/cilium-envoy:v1.37@sha256:af7382699576b9e65e9184efa52eeca0b58aea70ad6e511bf260c91d9f740463"
---
apiVersion: batch/v1
kind: CronJob
metadata: { name: certificates }
spec: { jobTemplate: { spec: { template: { spec: { containers: [{ image: "quay.io/cilium/certgen:v0.4.4" }] } } } } }
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: gateways.example.org }
spec:
  template: { spec: { containers: [{ image: "of/a-definition:v1" }] } }
  versions: [{ schema: { openAPIV3Schema: { properties: { image: { type: string } } } } }]
---
apiVersion: v1
kind: ConfigMap
metadata: { name: istio-sidecar-injector }
data:
  config: |-
    templates:
      waypoint: |
        kind: Deployment
        spec: { template: { spec: { containers: [{ image: "{{ .ProxyImage }}" }] } } }
        image: busybox:1.28
---
apiVersion: v1
kind: List
items:
  - { kind: Pod, spec: { containers: [{ image: "of/a-pod:v1" }, { name: without, image: "" }] } }
"#;

    fn documents(text: &str) -> Vec<Value> {
        yaml::values(&Source::new("rendered.yaml", text)).unwrap()
    }

    #[test]
    fn images_of_workloads_are_taken_once_and_mentions_are_not() {
        let images: Vec<String> = images(&documents(RENDERED)).into_iter().collect();
        assert_eq!(
            images,
            [
                "of/a-pod:v1",
                "quay.io/cilium/certgen:v0.4.4",
                "quay.io/cilium/cilium-envoy:v1.37@sha256:\
                 af7382699576b9e65e9184efa52eeca0b58aea70ad6e511bf260c91d9f740463",
                "quay.io/cilium/cilium:v1.20.2",
            ]
        );
    }

    fn proxy(global: &Value, kind: Option<&str>) -> Option<String> {
        let mut documents = documents(RENDERED);
        let values = json!({ "global": global }).to_string();
        documents.push(json!({ "kind": "ConfigMap", "data": { "config": "x", "values": values } }));
        if let Some(kind) = kind {
            let mesh = format!("defaultConfig:\n  image:\n    imageType: {kind}\n");
            documents.push(json!({ "kind": "ConfigMap", "data": { "mesh": mesh } }));
        }
        proxy_image(&documents)
    }

    #[test]
    fn the_image_of_waypoints_is_put_together_as_istiod_does() {
        // From `TestProxyImage` in istio/istio pkg/kube/inject/inject_test.go.
        let cases = [
            (json!(11), None, "hub/proxyv2:11"),
            (json!(1.12), Some("distroless"), "hub/proxyv2:1.12-distroless"),
            (json!("1.11.2-asm.17-distroless"), Some("default"), "hub/proxyv2:1.11.2-asm.17"),
            (json!("1.12-debug"), Some("distroless"), "hub/proxyv2:1.12-distroless"),
            (json!("1.12-unusual"), None, "hub/proxyv2:1.12-unusual"),
        ];
        for (tag, kind, wanted) in cases {
            let global = json!({ "hub": "hub", "tag": tag });
            assert_eq!(proxy(&global, kind).unwrap(), wanted);
        }
        let variant = json!({ "hub": "hub", "tag": "1.31.1", "variant": "distroless" });
        assert_eq!(proxy(&variant, Some("''")).unwrap(), "hub/proxyv2:1.31.1-distroless");
        assert_eq!(proxy(&variant, Some("debug")).unwrap(), "hub/proxyv2:1.31.1-debug");
    }

    #[test]
    fn a_whole_reference_of_the_proxy_is_taken_as_it_is() {
        let global = json!({ "hub": "h", "tag": "t", "proxy": { "image": "here/proxy:v1" } });
        assert_eq!(proxy(&global, Some("distroless")).unwrap(), "here/proxy:v1");
        let named = json!({ "hub": "h", "tag": "t", "proxy": { "image": "mine" } });
        assert_eq!(proxy(&named, None).unwrap(), "h/mine:t");
    }

    #[test]
    fn documents_without_the_values_of_istiod_have_no_proxy() {
        assert_eq!(proxy_image(&documents(RENDERED)), None);
    }

    #[test]
    fn digests_are_switched_off_wherever_a_chart_has_the_switch() {
        let values = json!({
            "image": { "repository": "a", "useDigest": true },
            "clustermesh": { "apiserver": { "image": { "useDigest": false, "digest": "x" } } },
            "hubble": { "enabled": true },
        });
        let off = without_digests(&values).unwrap();
        let switch = json!({ "image": { "useDigest": false } });
        assert_eq!(off["image"], switch["image"]);
        assert_eq!(off["clustermesh"]["apiserver"], switch);
        assert_eq!(off.as_object().unwrap().len(), 2);
        assert_eq!(without_digests(&json!({ "hub": "h", "list": [{ "useDigest": true }] })), None);
    }
}
