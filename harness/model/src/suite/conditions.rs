//! What a case may expect of the conditions of objects.

use crate::condition::{ConditionType, ExpectedCondition, SERVICE};
use crate::manifest::{Manifest, ObjectRef};
use crate::suite::check;
use crate::suite::file::ConditionFile;
use crate::world::World;
use crate::yaml::{Diagnostic, Source, Spanned};

/// Reads the conditions that a case expects, each of a policy that it applies and leaves or of a service of its world.
///
/// # Errors
/// A diagnostic at what is not there, or has no such condition.
pub(super) fn expected(
    source: &Source,
    world: &World,
    files: &[Spanned<ConditionFile>],
    (apply, remove): (&[Manifest], &[ObjectRef]),
) -> Result<Vec<ExpectedCondition>, Box<Diagnostic>> {
    let mut all: Vec<ExpectedCondition> = Vec::new();
    for file in files {
        let ConditionFile { of, about, status, reason } = &file.value;
        let wrong = |message: String| source.diagnostic_at(of, message, None);
        let object = match service(world, &of.value) {
            Some(found) => found.map_err(wrong)?,
            None => check::applied_policy(&of.value, apply).map_err(wrong)?.clone(),
        };
        if remove.contains(&object) {
            return Err(wrong(format!("{object} is taken away again, and has no status then")));
        }
        fits(*about, &object).map_err(wrong)?;
        if all.iter().any(|it| it.object == object && it.about == *about) {
            return Err(wrong(format!("{about} of {object} is expected twice")));
        }
        let reason = reason.clone();
        all.push(ExpectedCondition { object, about: *about, status: *status, reason });
    }
    Ok(all)
}

/// The service that is meant by `Service/NAMESPACE/NAME`; nothing where no service is.
fn service(world: &World, text: &str) -> Option<Result<ObjectRef, String>> {
    let rest = text.strip_prefix(SERVICE)?.strip_prefix('/')?;
    let all = || world.services.iter().map(|it| format!("{}/{}", it.namespace, it.name));
    let Some((namespace, name)) = rest.split_once('/').filter(|_| all().any(|it| it == rest))
    else {
        let known: Vec<String> = all().collect();
        return Some(Err(format!(
            "the world has no service `{rest}`; it has: {}",
            known.join(", ")
        )));
    };
    Some(Ok(ObjectRef {
        api_version: "v1".to_owned(),
        kind: SERVICE.to_owned(),
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    }))
}

fn fits(about: ConditionType, object: &ObjectRef) -> Result<(), String> {
    let kind = about.kind();
    if object.kind == kind {
        Ok(())
    } else {
        Err(format!("{object} has no condition {about}, which is one of a {kind}"))
    }
}
