//! What a case may do to the labels of pods.

use crate::suite::file::RelabelFile;
use crate::suite::{Relabelled, check};
use crate::world::{Born, World};
use crate::yaml::{Diagnostic, Source, Spanned};

/// The labels that a fabric gives to what it makes: they are not a case's to change.
const RESERVED: [&str; 2] = ["app.kubernetes.io/", "ztc.dev/"];

/// The pods that get other labels, with all labels that they have then.
///
/// # Errors
/// A diagnostic at a pod that has no labels to change, or at labels that change nothing or more than who the
/// pod is.
pub(super) fn relabelled(
    source: &Source,
    world: &World,
    changes: &[Spanned<RelabelFile>],
) -> Result<Vec<Relabelled>, Box<Diagnostic>> {
    let mut all: Vec<Relabelled> = Vec::new();
    for change in changes {
        let RelabelFile { pod: at, labels } = &change.value;
        let pod = check::pod(source, world, at, &at.value)?;
        let declared = world.pod(&pod).expect("the pod was found above");
        if declared.born == Born::InACase {
            return Err(source.diagnostic_at(
                at,
                format!("{pod} is made by cases, with its labels"),
                None,
            ));
        }
        if declared.host_network {
            let message = format!(
                "{pod} is in its node's network: to Cilium it is the node, whatever its labels"
            );
            return Err(source.diagnostic_at(at, message, None));
        }
        if all.iter().any(|it| it.pod == pod) {
            return Err(source.diagnostic_at(at, format!("{pod} gets other labels twice"), None));
        }
        let mut then = declared.labels.clone();
        for (key, value) in &labels.value {
            let wrong = |message: String| Err(source.diagnostic_at(labels, message, None));
            if RESERVED.iter().any(|it| key.starts_with(it)) {
                return wrong(format!("`{key}` is the fabric's own label"));
            }
            if declared.labels.get(key) == value.as_ref() {
                return wrong(match value {
                    Some(value) => format!("{pod} has `{key}: {value}` already"),
                    None => format!("{pod} has no label `{key}` to lose"),
                });
            }
            let services = world.services.iter().filter(|it| it.namespace == pod.namespace);
            if let Some(service) = services.into_iter().find(|it| it.selector.contains_key(key)) {
                let message =
                    format!("service {} would lose or gain a backend by `{key}`", service.name);
                return wrong(message);
            }
            match value {
                Some(value) => then.insert(key.clone(), value.clone()),
                None => then.remove(key),
            };
        }
        if then == declared.labels {
            return Err(source.diagnostic_at(labels, "no label changes", None));
        }
        all.push(Relabelled { pod, labels: then });
    }
    Ok(all)
}
