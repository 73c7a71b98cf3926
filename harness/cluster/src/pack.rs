//! Making a bundle: everything that the cluster of a profile is made of, out of registries into a folder.
//!
//! Needs a network, helm and a Docker engine, and no cluster. What the charts ask for is not known here by
//! name: they are rendered with the values that a cluster would get, and the images are read off.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::timeout;
use ztc_engine::profile::{ClusterSpec, Profile};
use ztc_model::yaml::{self, Diagnostic, Source};

use crate::bundle::Bundle;
use crate::charts::Chart;
use crate::docker::{Docker, DockerError};
use crate::draft::{self, Draft, DraftError};
use crate::kind;
use crate::program::{Program, ProgramError};
use crate::provision::Progress;
use crate::reference::Reference;
use crate::rendered;
use crate::saved;

/// How long one chart may take on its way.
const CHART: Duration = Duration::from_mins(5);
/// How long rendering may take. It takes a second.
const RENDER: Duration = Duration::from_mins(1);
/// How long one image may take on its way. The nodes' has half a gigabyte.
const PULL: Duration = Duration::from_mins(30);
/// How long writing one image into its archive may take.
const SAVE: Duration = Duration::from_mins(15);

/// The group of the Gateway API's resource definitions.
const GATEWAY_API: &str = "gateway.networking.k8s.io";
/// The annotation in which they say what release they are of.
const GATEWAY_API_VERSION: &str = "gateway.networking.k8s.io/bundle-version";

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The profile describes no cluster that is made of images.
    #[error("profile {profile} has no `cluster:`, so there is nothing to put into a bundle")]
    NoSpec {
        /// Which.
        profile: String,
    },
    /// The resource definitions of the Gateway API are not fetched by this program.
    #[error(
        "the cluster has a mesh and needs the Gateway API's resource definitions: fetch \
         https://github.com/kubernetes-sigs/gateway-api/releases/download/v{version}/standard-install.yaml and give \
         the file with `--crds FILE`"
    )]
    NoDefinitions {
        /// The version that the profile says.
        version: String,
    },
    /// A file of resource definitions cannot be read.
    #[error("cannot read {}", path.display())]
    Definitions {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The files of resource definitions are not the ones that the cluster needs.
    #[error(
        "the files given with `--crds` have {found}, and the profile says v{version} of the Gateway API; fetch \
         https://github.com/kubernetes-sigs/gateway-api/releases/download/v{version}/standard-install.yaml"
    )]
    OtherDefinitions {
        /// What they have.
        found: String,
        /// The version that the profile says.
        version: String,
    },
    /// A file, or what helm rendered, is no YAML.
    #[error("{0}")]
    Wrong(Box<Diagnostic>),
    /// The folder cannot become a bundle.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// helm failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Docker refused.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// An image has a name that is none.
    #[error("{who} asks for the image `{image}`, which is no reference to one")]
    NoReference {
        /// Who asks.
        who: String,
        /// What for.
        image: String,
    },
    /// An image is asked for by its digest.
    #[error(
        "{who} asks for the image {image} by its digest, which an archive does not keep; have the profile's values \
         ask for it by its tag"
    )]
    ByDigest {
        /// Who asks.
        who: String,
        /// What for.
        image: String,
    },
    /// istiod's chart says nothing of waypoints.
    #[error(
        "the rendered chart istiod does not say which image waypoints have: this version is not known"
    )]
    NoProxy,
    /// An archive is not whole.
    #[error(
        "the archive of {image} names {digest} and does not hold it, so that nodes would refuse it: this Docker engine \
         keeps images in containerd's store (kubernetes-sigs/kind#3795); turn that off with `\"features\": {{ \
         \"containerd-snapshotter\": false }}` in its daemon.json, or use another engine by DOCKER_HOST"
    )]
    Platforms {
        /// Which.
        image: String,
        /// What is lacking.
        digest: String,
    },
    /// An archive cannot be written.
    #[error("cannot write the archive {}", path.display())]
    Archive {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// An archive cannot be read again.
    #[error("cannot read the archive {}", path.display())]
    Look {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something took too long.
    #[error("{what} took longer than {} min and was given up", ceiling.as_secs() / 60)]
    Ceiling {
        /// What.
        what: String,
        /// How long it was waited for.
        ceiling: Duration,
    },
    /// It was begun and not finished.
    #[error("the bundle in {} is not finished; the same command goes on from there", folder.display())]
    Unfinished {
        /// Where it is.
        folder: PathBuf,
        /// Why.
        source: Box<PackError>,
    },
}

/// Makes a bundle.
pub struct Packer {
    profile: String,
    spec: ClusterSpec,
    root: PathBuf,
    folder: PathBuf,
    definitions: Vec<String>,
    progress: Progress,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer")
            .field("profile", &self.profile)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Packer {
    /// For the cluster of a profile, into a folder. `root` has `clusters/` and `.tools/`; `definitions` are
    /// files.
    ///
    /// # Errors
    /// What is wrong with any of it; nothing is written.
    pub fn new(
        profile: &Profile,
        root: PathBuf,
        folder: PathBuf,
        definitions: &[PathBuf],
        progress: Progress,
    ) -> Result<Self, PackError> {
        let name = profile.profile.clone();
        let spec =
            profile.cluster.clone().ok_or_else(|| PackError::NoSpec { profile: name.clone() })?;
        draft::look(&folder)?;
        let definitions = read_definitions(definitions, &spec)?;
        Ok(Self { profile: name, spec, root, folder, definitions, progress })
    }

    fn say(&self, line: &str) {
        (self.progress)(line);
    }

    /// Makes it, or goes on with one that was begun.
    ///
    /// # Errors
    /// What failed. What has been made by then stays.
    pub async fn pack(&self) -> Result<Bundle, PackError> {
        let helm = Program::find("helm", &self.root.join(".tools"))?;
        let docker = Docker::connect().await?;
        let draft = Draft::begin(&self.folder, versions(&self.spec))?;
        self.fill(draft, &helm, &docker).await.map_err(|error| PackError::Unfinished {
            folder: self.folder.clone(),
            source: Box::new(error),
        })
    }

    async fn fill(
        &self,
        mut draft: Draft,
        helm: &Program,
        docker: &Docker,
    ) -> Result<Bundle, PackError> {
        let mut wanted = Wanted::default();
        let cluster = kind::cluster_name(&self.profile);
        for chart in Chart::all(&self.spec, &cluster, &self.root.join("clusters")) {
            let told = format!("chart {} {}", chart.name, chart.version);
            self.timed(&told, self.chart(&chart, helm, &mut draft, &mut wanted)).await?;
        }
        for text in &self.definitions {
            draft.add_definitions(text)?;
        }
        let node = wanted.add("the profile", &kind::node_image(&self.spec))?;
        draft.keep(&wanted.0.keys().map(String::as_str).collect())?;
        for (name, exact) in &wanted.0 {
            if draft.has_image(name) {
                self.say(&format!("image {name} is there from an earlier attempt"));
                continue;
            }
            let (told, path) = (format!("image {name}"), draft.archive(name));
            let sha256 = self.timed(&told, self.image(name, exact, docker, &path)).await?;
            // The nodes' image is for Docker, which reads whatever it writes.
            if *name != node {
                require_whole(name, &path)?;
            }
            draft.add_image(name, sha256)?;
        }
        draft.set_node_image(&node);
        self.timed("reading all archives again", async { Ok(draft.finish()?) }).await
    }

    /// Puts a chart into the bundle, and finds out what it asks for.
    async fn chart(
        &self,
        chart: &Chart,
        helm: &Program,
        draft: &mut Draft,
        wanted: &mut Wanted,
    ) -> Result<(), PackError> {
        let mut pull = vec!["pull".to_owned()];
        pull.extend(chart.in_repository());
        pull.extend(["--destination".to_owned(), draft.charts().display().to_string()]);
        helm.run(&pull, CHART).await?;
        // The name that helm gives it.
        let packed = draft.add_chart(chart.name, &format!("{}-{}.tgz", chart.name, chart.version));
        let show = ["show", "values", &packed.display().to_string()];
        let who = format!("the chart {}", chart.name);
        let of_chart = documents(chart.name, helm.run(&show, RENDER).await?)?;
        let rendered = self.rendered(chart, helm, &packed, None).await?;
        let rendered = match of_chart.first().and_then(rendered::without_digests) {
            Some(values) => {
                // By their digests they are pulled, and by their tags they are asked for in the cluster.
                for image in rendered::images(&rendered) {
                    wanted.add(&who, &image)?;
                }
                let values = draft.add_values(chart.name, &format!("{values:#}\n"))?;
                self.rendered(chart, helm, &packed, Some(values)).await?
            }
            None => rendered,
        };
        let mut images = rendered::images(&rendered);
        if chart.name == "istiod" {
            images.insert(rendered::proxy_image(&rendered).ok_or(PackError::NoProxy)?);
        }
        for image in images {
            wanted.add_as_asked(&who, &image)?;
        }
        Ok(())
    }

    /// The documents that a chart is installed as.
    async fn rendered(
        &self,
        chart: &Chart,
        helm: &Program,
        packed: &Path,
        values: Option<PathBuf>,
    ) -> Result<Vec<Value>, PackError> {
        let mut template = ["template", chart.name].map(str::to_owned).to_vec();
        template.push(packed.display().to_string());
        // There is no cluster to ask, and helm would assume one of its own age.
        let version = ["--kube-version", &self.spec.kubernetes, "--skip-tests"];
        template.extend(version.map(str::to_owned));
        template.extend(chart.values("-".into(), values));
        let own = chart.own().to_string();
        documents(chart.name, helm.run_reading(own.as_bytes(), &template, RENDER).await?)
    }

    /// Writes the archive of an image, and pulls the image first if Docker does not have it; the SHA-256 of
    /// the archive.
    async fn image(
        &self,
        name: &str,
        exact: &Reference,
        docker: &Docker,
        path: &Path,
    ) -> Result<String, PackError> {
        if !docker.has_image(&exact.exact()).await {
            self.say(&format!("image {name} is not in Docker yet; pulling it"));
            within(PULL, &format!("pulling {name}"), docker.pull(exact)).await?;
        }
        if exact.digest().is_some() {
            let tagged = Reference::read(name).expect("a reference without its digest is one");
            docker.tag(&exact.exact(), &tagged).await?;
        }
        let saving = saved::write(docker.save(name), path);
        let written = within(SAVE, &format!("saving {name}"), saving).await?;
        let (sha256, length) =
            written.map_err(|source| PackError::Archive { path: path.to_owned(), source })?;
        self.say(&format!("image {name} takes {} MB", length / 1_000_000));
        Ok(sha256)
    }

    async fn timed<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, PackError>>,
    ) -> Result<T, PackError> {
        self.say(&format!("{what} ..."));
        let begun = Instant::now();
        let done = work.await?;
        self.say(&format!("{what} done in {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(done)
    }
}

/// The images of a bundle: what each is called in it, and which one is meant.
#[derive(Debug, Default)]
struct Wanted(BTreeMap<String, Reference>);

impl Wanted {
    /// Adds an image; what it is called in the bundle. Once somebody has said its digest, it is the one
    /// with that digest.
    fn add(&mut self, who: &str, image: &str) -> Result<String, PackError> {
        let reference = Reference::read(image).ok_or_else(|| PackError::NoReference {
            who: who.to_owned(),
            image: image.to_owned(),
        })?;
        let name = reference.tagged().ok_or_else(|| by_digest(who, image))?;
        if reference.digest().is_some() || !self.0.contains_key(&name) {
            self.0.insert(name.clone(), reference);
        }
        Ok(name)
    }

    /// Adds an image as a node will be asked for it.
    fn add_as_asked(&mut self, who: &str, image: &str) -> Result<String, PackError> {
        if image.contains('@') {
            return Err(by_digest(who, image));
        }
        self.add(who, image)
    }
}

fn by_digest(who: &str, image: &str) -> PackError {
    PackError::ByDigest { who: who.to_owned(), image: image.to_owned() }
}

/// The versions of a cluster, by part.
fn versions(spec: &ClusterSpec) -> BTreeMap<String, String> {
    let mesh = spec.mesh.as_ref();
    let parts = [
        ("kubernetes", Some(&spec.kubernetes)),
        ("cilium", Some(&spec.cilium)),
        ("istio", mesh.map(|it| &it.istio)),
        ("gatewayApi", mesh.map(|it| &it.gateway_api)),
    ];
    let parts = parts.into_iter();
    parts.filter_map(|(part, version)| Some((part.to_owned(), version?.clone()))).collect()
}

/// Reads resource definitions, and looks whether they are those of the Gateway API where there is a mesh.
fn read_definitions(paths: &[PathBuf], spec: &ClusterSpec) -> Result<Vec<String>, PackError> {
    let version = spec.mesh.as_ref().map(|it| &it.gateway_api);
    if let Some(version) = version.filter(|_| paths.is_empty()) {
        return Err(PackError::NoDefinitions { version: version.clone() });
    }
    let (mut texts, mut found) = (Vec::new(), BTreeSet::new());
    for path in paths {
        let text = std::fs::read_to_string(path)
            .map_err(|source| PackError::Definitions { path: path.clone(), source })?;
        found.extend(gateway_api_versions(&documents(&path.display().to_string(), text.clone())?));
        texts.push(text);
    }
    match version {
        Some(version) if found.iter().ne([&format!("v{version}")]) => {
            let found: Vec<String> = found.into_iter().collect();
            let found = match &found[..] {
                [] => "no resource definition of the Gateway API".to_owned(),
                found => format!("its resource definitions of {}", found.join(" and ")),
            };
            Err(PackError::OtherDefinitions { found, version: version.clone() })
        }
        _ => Ok(texts),
    }
}

/// The versions of the Gateway API that its resource definitions among documents are of.
fn gateway_api_versions(documents: &[Value]) -> BTreeSet<String> {
    let definitions = documents.iter().filter(|it| it["kind"] == "CustomResourceDefinition");
    let ours = definitions.filter(|it| it["spec"]["group"] == GATEWAY_API);
    let version =
        |it: &Value| it["metadata"]["annotations"][GATEWAY_API_VERSION].as_str().map(str::to_owned);
    ours.map(|it| version(it).unwrap_or_else(|| "a version that they do not say".to_owned()))
        .collect()
}

fn documents(name: &str, text: String) -> Result<Vec<Value>, PackError> {
    yaml::values(&Source::new(name, text)).map_err(PackError::Wrong)
}

fn require_whole(image: &str, path: &Path) -> Result<(), PackError> {
    let lacking = std::fs::File::open(path).and_then(saved::lacking);
    let lacking = lacking.map_err(|source| PackError::Look { path: path.to_owned(), source })?;
    match lacking {
        Some(digest) => Err(PackError::Platforms { image: image.to_owned(), digest }),
        None => Ok(()),
    }
}

async fn within<T, E>(
    ceiling: Duration,
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, PackError>
where
    PackError: From<E>,
{
    match timeout(ceiling, work).await {
        Ok(done) => Ok(done?),
        Err(_elapsed) => Err(PackError::Ceiling { what: what.to_owned(), ceiling }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use ztc_engine::profile::MeshSpec;

    use super::*;

    const DIGEST: &str = "sha256:af7382699576b9e65e9184efa52eeca0b58aea70ad6e511bf260c91d9f740463";

    fn spec(mesh: bool) -> ClusterSpec {
        ClusterSpec {
            mesh: mesh.then(|| MeshSpec {
                istio: "1.31.1".to_owned(),
                gateway_api: "1.6.1".to_owned(),
                istiod_values: None,
                cni_values: None,
                ztunnel_values: None,
            }),
            ..kind::sample()
        }
    }

    #[test]
    fn versions_are_those_of_the_profile_and_of_a_mesh_only_where_there_is_one() {
        assert_eq!(
            versions(&spec(true)).into_keys().collect::<Vec<_>>().join(" "),
            "cilium gatewayApi istio kubernetes"
        );
        assert_eq!(versions(&spec(false)).len(), 2);
    }

    #[test]
    fn an_image_is_pulled_by_its_digest_and_called_by_its_tag() {
        let mut wanted = Wanted::default();
        wanted.add("x", &format!("a/b:v1@{DIGEST}")).unwrap();
        assert_eq!(wanted.add_as_asked("x", "a/b:v1").unwrap(), "a/b:v1");
        assert_eq!(wanted.0.len(), 1);
        assert_eq!(wanted.0["a/b:v1"].exact(), format!("a/b@{DIGEST}"));
    }

    #[test]
    fn an_image_that_nodes_would_be_asked_for_by_digest_is_refused() {
        let asked = Wanted::default().add_as_asked("x", &format!("a/b:v1@{DIGEST}"));
        assert!(matches!(asked, Err(PackError::ByDigest { .. })));
        let untagged = Wanted::default().add("x", &format!("a/b@{DIGEST}"));
        assert!(matches!(untagged, Err(PackError::ByDigest { .. })));
        assert!(matches!(
            Wanted::default().add("x", "{{ it }}"),
            Err(PackError::NoReference { .. })
        ));
    }

    fn definition(version: &str) -> String {
        json!({
            "kind": "CustomResourceDefinition",
            "metadata": { "annotations": { GATEWAY_API_VERSION: version } },
            "spec": { "group": GATEWAY_API },
        })
        .to_string()
    }

    fn definitions(texts: &[&str], mesh: bool) -> Result<usize, PackError> {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, text).unwrap();
            paths.push(path);
        }
        read_definitions(&paths, &spec(mesh)).map(|it| it.len())
    }

    #[test]
    fn a_mesh_needs_definitions_and_the_message_says_where_they_are() {
        let error = definitions(&[], true).unwrap_err().to_string();
        assert!(error.contains("/download/v1.6.1/standard-install.yaml"), "{error}");
        assert!(error.contains("--crds FILE"), "{error}");
        assert_eq!(definitions(&[], false).unwrap(), 0);
    }

    #[test]
    fn definitions_of_another_version_or_of_something_else_are_refused() {
        assert_eq!(definitions(&[&definition("v1.6.1"), "kind: Other"], true).unwrap(), 2);
        let other = definitions(&[&definition("v1.5.0")], true).unwrap_err().to_string();
        assert!(other.contains("definitions of v1.5.0"), "{other}");
        let page = definitions(&["<html>Not Found</html>"], true).unwrap_err().to_string();
        assert!(page.contains("no resource definition"), "{page}");
    }
}
