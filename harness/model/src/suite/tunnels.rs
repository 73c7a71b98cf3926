//! What a case may send in tunnels of the mesh, and what it may say to be refused.

use std::collections::BTreeSet;

use crate::outcome::{EnforcementPoint, Form};
use crate::stimulus::{Bearer, Hbone, Peer, Send};
use crate::suite::file::{ExpectationFile, Is};
use crate::suite::{Feature, Origin};
use crate::world::{PodRef, World};
use crate::yaml::{Diagnostic, Source, Spanned};

type Checked<T = ()> = Result<T, Box<Diagnostic>>;

/// Whether a pod can open a tunnel by itself, and somebody accepts it.
///
/// # Errors
/// Why not.
pub(super) fn can_be_opened(world: &World, client: &PodRef, tunnel: &Hbone) -> Result<(), String> {
    let known = |pod: &PodRef| world.pod(pod).ok_or_else(|| format!("unknown pod `{pod}`"));
    if world.is_ambient(known(client)?) {
        return Err(format!("{client} is in the mesh, where tunnels are opened for it"));
    }
    let meshed = |pod: &PodRef| {
        let it = known(pod)?;
        if world.is_ambient(it) && !it.host_network {
            Ok(())
        } else {
            Err(format!("{pod} is not in the mesh: it has no identity, and no tunnel ends there"))
        }
    };
    meshed(&tunnel.through)?;
    match &tunnel.speaks {
        Bearer::Pod { pod, .. } => meshed(pod)?,
        Bearer::Nobody | Bearer::InClear => {}
    }
    match &tunnel.to.peer {
        Peer::Pod(pod) => known(pod).map(drop),
        _ => Ok(()),
    }
}

/// Whether a tunnel is asked for whom it leads to: for nobody else anything gets through.
///
/// # Errors
/// Why nothing does.
pub(super) fn leads_to_its_end(tunnel: &Hbone) -> Result<(), String> {
    let Hbone { to, through, .. } = tunnel;
    if to.peer == Peer::Pod(through.clone()) {
        Ok(())
    } else {
        Err(format!("a tunnel through {through} leads to {through} alone: say `is: refused`"))
    }
}

/// A suite that shows certificates of the mesh says that it needs its authority, or a fabric without would run the case.
pub(super) fn needs_authority<T>(
    source: &Source,
    needs: &BTreeSet<Feature>,
    at: &Spanned<T>,
    send: &Send,
) -> Checked {
    let feature = Feature::MeshAuthority;
    if !matches!(send, Send::Hbone(_)) || needs.contains(&feature) {
        return Ok(());
    }
    let message = format!("the suite does not say that it needs {feature}");
    Err(source.diagnostic_at(at, message, Some("add it to `needs` at the top of the suite")))
}

/// By whom a flow is refused, and how; no policy has a part in it.
pub(super) fn refused_as(
    source: &Source,
    file: &ExpectationFile,
) -> Checked<(EnforcementPoint, Form)> {
    let impossible =
        |word: &str| format!("a refused flow has no `{word}`: it is refused whatever policies say");
    if let Some(policy) = &file.policy {
        return Err(source.diagnostic_at(policy, impossible("policy"), None));
    }
    if let Some(behind) = file.behind.first() {
        return Err(source.diagnostic_at(behind, impossible("behind"), None));
    }
    let (Some(by), Some(form)) = (&file.by, &file.form) else {
        let message = "a refused flow says `by` and `as`: a record has to say so";
        return Err(source.diagnostic_at(&file.send, message, None));
    };
    if !form.value.is_of_tunnels() {
        let message =
            format!("nobody refuses as {} without a policy: say `is: denied`", form.value);
        return Err(source.diagnostic_at(form, message, None));
    }
    Ok((by.value, form.value))
}

/// Something is beside every refused flow, and beside no other.
pub(super) fn beside_fits(
    source: &Source,
    file: &ExpectationFile,
    create: &[PodRef],
    origin: &Origin,
) -> Checked {
    let is_refused = matches!(file.is, Is::Refused);
    match (&file.beside, is_refused) {
        (Some(beside), false) => {
            let message = "only a refused flow has something `beside` it";
            return Err(source.diagnostic_at(beside, message, None));
        }
        (None, true) => {
            let message = "nothing shows that this is refused for what it is";
            let help = "name something `beside` it that differs in one attribute and gets through";
            return Err(source.diagnostic_at(&file.send, message, Some(help)));
        }
        _ => {}
    }
    if !is_refused {
        return Ok(());
    }
    if let Some(after) = &file.after {
        return Err(source.diagnostic_at(after, "a refused flow comes after nothing", None));
    }
    match origin {
        Origin::Pod(pod) if !create.contains(pod) => Ok(()),
        from => {
            let message = format!("what {from} sends has nothing beside it");
            Err(source.diagnostic_at(&file.from, message, None))
        }
    }
}

/// Whether two stimuli differ in nothing but one attribute.
///
/// # Errors
/// In what they differ.
pub(super) fn differ_in_one_attribute(refused: &Send, beside: &Send) -> Result<(), String> {
    let (Send::Hbone(refused), Send::Hbone(beside)) = (refused, beside) else {
        return Err("only tunnels are refused whatever policies say".to_owned());
    };
    match refused.differences(beside).as_slice() {
        [_] => Ok(()),
        [] => Err(format!("`{beside}` differs from `{refused}` in nothing")),
        several => Err(format!(
            "`{beside}` differs from `{refused}` in more than one attribute: {}",
            several.join(", ")
        )),
    }
}
