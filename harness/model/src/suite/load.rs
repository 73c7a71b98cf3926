//! From files to cases that can be run.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::manifest::{self, Manifest, ObjectRef};
use crate::outcome::Expected;
use crate::stimulus::{Send, SendError};
use crate::suite::file::{Applied, CaseFile, ExpectationFile, Is, SuiteFile, Taken};
use crate::suite::{
    Case, CaseId, Cell, Feature, KUBELET, Origin, Suite, Versions, check, conditions, distinct,
    gaps, gateways, matrix, relabels, removals, restarts, streams, tunnels, wires, worlds,
};
use crate::world::{PodRef, World};
use crate::yaml::{self, Diagnostic, Source, Spanned};

/// Everything that a suite file can refer to.
#[derive(Debug, Default)]
pub struct Library {
    /// The worlds, by name.
    pub worlds: BTreeMap<String, World>,
    /// The manifest files beside the suite file, by file name.
    pub manifests: BTreeMap<String, Source>,
}

/// Reads a world.
///
/// # Errors
/// A diagnostic at what is wrong.
pub fn world(source: &Source) -> Result<World, Box<Diagnostic>> {
    let world: World = yaml::strict(source)?;
    worlds::world(source, &world)?;
    Ok(world)
}

/// Reads a suite file, checks it against its world and its manifests, and expands it.
///
/// # Errors
/// A diagnostic at what is wrong, in the suite file or in a manifest.
pub fn load(source: &Source, library: &Library) -> Result<Suite, Box<Diagnostic>> {
    let mut file: SuiteFile = yaml::strict(source)?;
    for case in &mut file.cases {
        case.value.expect = matrix::expectations(source, &case.value)?;
    }
    let world = library.worlds.get(&file.world.value).ok_or_else(|| {
        let known: Vec<&str> = library.worlds.keys().map(String::as_str).collect();
        source.diagnostic_at(
            &file.world,
            format!("unknown world `{}`", file.world.value),
            Some(&format!("there are: {}", known.join(", "))),
        )
    })?;
    let (needs, suite) = (&file.needs, &file.suite.value);
    let reader = Reader { source, needs, library, world, suite };
    let cases = file.cases.iter().map(|case| reader.case(case)).collect::<Result<Vec<_>, _>>()?;
    distinct::names(source, &file)?;
    gaps::closing_cases(source, &file)?;
    distinct::cells(source, &file, &cases)?;
    Ok(Suite {
        name: file.suite.value.clone(),
        about: file.about.clone(),
        world: file.world.value.clone(),
        needs: file.needs.clone(),
        cases,
    })
}

struct Reader<'a> {
    source: &'a Source,
    needs: &'a BTreeSet<Feature>,
    library: &'a Library,
    world: &'a World,
    suite: &'a str,
}

impl Reader<'_> {
    fn case(&self, case: &Spanned<CaseFile>) -> Result<Case, Box<Diagnostic>> {
        let file = &case.value;
        check::case_name(self.source, &file.name)?;
        if file.because.value.trim().is_empty() {
            return Err(self.source.diagnostic_at(
                &file.because,
                "a case says why its expectations should hold",
                None,
            ));
        }
        let apply = self.manifests(&file.apply)?;
        let create = file
            .create
            .iter()
            .map(|pod| check::created_pod(self.source, self.world, pod))
            .collect::<Result<Vec<_>, _>>()?;
        let remove = check::applied_policies(self.source, &file.remove, &apply, "taken away")?;
        let relabel = relabels::relabelled(self.source, self.world, &file.relabel)?;
        let mut cells = Vec::new();
        for expectation in &file.expect {
            self.expand(expectation, (&apply, &remove), &create, &mut cells)?;
            removals::still_there(self.source, &expectation.value, &remove, &cells)?;
        }
        let restart = restarts::restarted(self.source, self.needs, &file.restart, &cells)?;
        distinct::pairs(self.source, self.world, &file.expect, &cells)?;
        distinct::requests(self.source, &file.expect, &cells)?;
        wires::controls_exist(self.source, self.world, &file.expect, &cells)?;
        if cells.is_empty() {
            return Err(self.source.diagnostic_at(
                &file.name,
                "a case expects at least one thing",
                None,
            ));
        }
        Ok(Case {
            id: CaseId::new(self.suite, &file.name.value),
            because: file.because.value.trim().to_owned(),
            gap: gaps::gap(self.source, self.suite, file, &cells)?,
            world: self.world.world.clone(),
            versions: Versions::read(self.source, &file.versions)?,
            relabel,
            restart,
            create,
            conditions: conditions::expected(
                self.source,
                self.world,
                &file.conditions,
                (&apply, &remove),
            )?,
            apply,
            remove,
            cells,
            file: self.source.file.clone(),
            line: line(&file.name),
        })
    }

    fn manifests(&self, files: &[Spanned<Applied>]) -> Result<Vec<Manifest>, Box<Diagnostic>> {
        let mut all: Vec<Manifest> = Vec::new();
        let mut applied = HashSet::new();
        for file in files {
            for (source, manifest) in self.applied(file)? {
                check::manifest(source, self.world, self.needs, &manifest)?;
                gateways::can_be_made(source, self.world, self.needs, &manifest)?;
                if !applied.insert(manifest.reference.clone()) {
                    return Err(self.source.diagnostic_at(
                        file,
                        format!("{} is applied twice", manifest.reference),
                        Some("the second would replace the first; split the case"),
                    ));
                }
                all.push(manifest);
            }
        }
        Ok(all)
    }

    fn applied(&self, at: &Spanned<Applied>) -> Result<Vec<(&Source, Manifest)>, Box<Diagnostic>> {
        let Applied { file, is } = &at.value;
        let source = self.library.manifests.get(file).ok_or_else(|| {
            let known: Vec<&str> = self.library.manifests.keys().map(String::as_str).collect();
            self.source.diagnostic_at(
                at,
                format!("there is no manifest `{file}` beside this suite"),
                Some(&format!("there are: {}", known.join(", "))),
            )
        })?;
        let manifests = match is {
            Taken::Valid => manifest::manifests(source)?,
            Taken::Invalid => vec![manifest::invalid(source).map_err(|refusal| {
                refusal.unwrap_or_else(|| {
                    let message = format!("Cilium takes `{file}`: nothing in it is invalid");
                    self.source.diagnostic_at(at, message, None)
                })
            })?],
            Taken::Unenforced => manifest::unenforced(source).map_err(|refusal| {
                refusal.unwrap_or_else(|| {
                    let message = format!("`{file}` has policies of kinds that are enforced");
                    self.source.diagnostic_at(at, message, None)
                })
            })?,
        };
        Ok(manifests.into_iter().map(|manifest| (source, manifest)).collect())
    }

    fn expand(
        &self,
        expectation: &Spanned<ExpectationFile>,
        (apply, remove): (&[Manifest], &[ObjectRef]),
        create: &[PodRef],
        cells: &mut Vec<Cell>,
    ) -> Result<(), Box<Diagnostic>> {
        let file = &expectation.value;
        for point in file.by.iter().chain(&file.via) {
            check::needed(self.source, self.needs, point)?;
        }
        let expected = self.expected(file, apply)?;
        for from in &file.from.value.0 {
            let origin = self.origin(&file.from, from)?;
            for text in &file.send.value.0 {
                let send: Send = text.parse().map_err(|error: SendError| {
                    self.source.diagnostic_at(&file.send, error.to_string(), None)
                })?;
                check::needs_family(self.source, self.needs, &file.send, &send)?;
                let made_here = match &send {
                    Send::Readiness(name) => gateways::gateway(apply, name).is_some(),
                    _ => false,
                };
                if !made_here {
                    let at = (file, &file.send);
                    check::reachable(self.source, at, self.world, create, &origin, &send)?;
                }
                let twin = match &file.twin {
                    None => None,
                    Some(twin) if made_here => Some(gateways::twin(self.source, twin, apply)?),
                    Some(twin) => {
                        Some(check::twin_reference(self.source, self.world, twin, create)?)
                    }
                };
                tunnels::needs_authority(self.source, self.needs, &file.send, &send)?;
                let after = self.after(file, create, &origin)?;
                let beside = self.beside(file, create, &origin, &send)?;
                let both = [Some(&send), beside.as_ref()].into_iter().flatten();
                let cell = Cell {
                    after,
                    peers: both.flat_map(|it| check::peers(self.world, it)).collect(),
                    beside,
                    from: origin.clone(),
                    send,
                    expected: expected.clone(),
                    twin,
                    line: line(&file.from),
                };
                gateways::can_be_judged(self.source, file, (apply, remove), &cell)?;
                check::control_exists(self.source, file, self.world, create, &cell)?;
                streams::is_one(self.source, file, create, &cell)?;
                let said = (file, create);
                wires::can_be_captured(self.source, self.needs, self.world, said, &cell)?;
                cells.push(cell);
            }
        }
        Ok(())
    }

    /// What has to get through first: something that an agent sends which exists before the case.
    fn after(
        &self,
        file: &ExpectationFile,
        create: &[PodRef],
        origin: &Origin,
    ) -> Result<Option<Send>, Box<Diagnostic>> {
        let Some(text) = &file.after else { return Ok(None) };
        let wrong = |message: String| self.source.diagnostic_at(text, message, None);
        let send: Send = text.value.parse().map_err(|error: SendError| wrong(error.to_string()))?;
        match origin {
            Origin::Pod(pod) if !create.contains(pod) => {}
            _ => return Err(wrong(format!("nothing is sent first by {origin}"))),
        }
        tunnels::needs_authority(self.source, self.needs, text, &send)?;
        check::reachable(self.source, (file, text), self.world, create, origin, &send)?;
        Ok(Some(send))
    }

    /// What differs from a refused stimulus in one attribute and gets through.
    fn beside(
        &self,
        file: &ExpectationFile,
        create: &[PodRef],
        origin: &Origin,
        refused: &Send,
    ) -> Result<Option<Send>, Box<Diagnostic>> {
        tunnels::beside_fits(self.source, file, create, origin)?;
        let Some(text) = &file.beside else { return Ok(None) };
        let wrong = |message: String| self.source.diagnostic_at(text, message, None);
        let send: Send = text.value.parse().map_err(|error: SendError| wrong(error.to_string()))?;
        let passing = ExpectationFile { is: Is::Allowed, ..file.clone() };
        check::reachable(self.source, (&passing, text), self.world, create, origin, &send)?;
        tunnels::differ_in_one_attribute(refused, &send).map_err(wrong)?;
        Ok(Some(send))
    }

    fn origin(
        &self,
        at: &Spanned<crate::suite::file::OneOrMany>,
        text: &str,
    ) -> Result<Origin, Box<Diagnostic>> {
        if text == KUBELET {
            return Ok(Origin::Kubelet);
        }
        check::pod(self.source, self.world, at, text).map(Origin::Pod)
    }

    fn expected(
        &self,
        file: &ExpectationFile,
        apply: &[Manifest],
    ) -> Result<Expected, Box<Diagnostic>> {
        let throughout = file.throughout.as_ref().is_some_and(|it| it.value);
        match file.is {
            Is::Allowed if throughout => {
                check::nothing_of_denials(self.source, file)?;
                check::nothing_of_passages(self.source, file)?;
                Ok(Expected::Throughout)
            }
            Is::Allowed => {
                check::nothing_of_denials(self.source, file)?;
                check::via_says_something(self.source, file)?;
                Ok(Expected::Allowed {
                    via: file.via.as_ref().map(|via| via.value),
                    wire: file.wire.as_ref().map(|wire| wire.value),
                })
            }
            Is::Interrupted => {
                check::nothing_of_passages(self.source, file)?;
                check::form_fits_point(self.source, file)?;
                Ok(Expected::Interrupted {
                    by: file.by.as_ref().map(|by| by.value),
                    form: file.form.as_ref().map(|form| form.value),
                    policy: check::denying_policy(self.source, file, apply)?,
                })
            }
            Is::Refused => {
                check::nothing_of_passages(self.source, file)?;
                check::form_fits_point(self.source, file)?;
                let (by, form) = tunnels::refused_as(self.source, file)?;
                Ok(Expected::Refused { by, form })
            }
            Is::Denied => {
                check::nothing_of_passages(self.source, file)?;
                check::form_fits_point(self.source, file)?;
                let policy = check::denying_policy(self.source, file, apply)?;
                Ok(Expected::Denied {
                    by: file.by.as_ref().map(|by| by.value),
                    form: file.form.as_ref().map(|form| form.value),
                    behind: check::behind(self.source, &file.behind, &policy, apply)?,
                    policy,
                })
            }
        }
    }
}

pub(super) fn line<T>(at: &Spanned<T>) -> usize {
    usize::try_from(at.referenced.line()).unwrap_or(usize::MAX)
}

/// The cells of several cases that ask the same question of the same policies.
pub(super) type Question<'a> = (BTreeSet<String>, &'a Origin, &'a Send);
