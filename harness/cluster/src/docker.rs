//! The Docker engine of this machine: nodes are its containers, and so are the hosts outside them.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ImportImageOptionsBuilder,
    InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder,
    ListImagesOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, StartContainerOptions, TagImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use ipnet::{Ipv4Net, Ipv6Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::reference::Reference;

/// The network that kind puts its nodes into: the one that its own variable names, or `kind`
/// (`pkg/cluster/internal/providers/docker/provider.go` of kind).
pub(crate) fn network() -> String {
    let named = std::env::var("KIND_EXPERIMENTAL_DOCKER_NETWORK").ok();
    named.filter(|it| !it.is_empty()).unwrap_or_else(|| "kind".to_owned())
}

/// How long one answer may take: an import answers when all of an image has been read.
const CEILING: Duration = Duration::from_mins(10);

/// How long a command in a container may take that is given nothing to read.
const COMMAND: Duration = Duration::from_mins(1);

/// How much is read of an archive at once, bytes.
const PIECE: usize = 1 << 20;

/// Why Docker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// Nobody answers.
    #[error(
        "no Docker engine answers; start one, or set DOCKER_HOST to the socket of one that runs"
    )]
    NoEngine(#[source] bollard::errors::Error),
    /// An image could not be loaded.
    #[error("cannot load the image {image}")]
    Load {
        /// Which.
        image: String,
        /// Docker's words.
        source: bollard::errors::Error,
    },
    /// An image could not be pulled.
    #[error("cannot pull the image {image}; one that the engine has already is not pulled")]
    Pull {
        /// Which.
        image: String,
        /// Docker's words.
        source: bollard::errors::Error,
    },
    /// An image could not be given a name.
    #[error("cannot call the image {image} {name}")]
    Tag {
        /// Which.
        image: String,
        /// What it was to be called.
        name: String,
        /// Docker's words.
        source: bollard::errors::Error,
    },
    /// An image could not be saved.
    #[error("cannot save the image {image}")]
    Save {
        /// Which.
        image: String,
        /// Docker's words.
        source: bollard::errors::Error,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A command in a container could not be run.
    #[error("cannot run `{command}` in container {container}")]
    Exec {
        /// What.
        command: String,
        /// Where.
        container: String,
        /// Docker's words.
        source: bollard::errors::Error,
    },
    /// A command in a container failed.
    #[error("`{command}` in container {container} failed with code {code}: {said}")]
    ExecFailed {
        /// What.
        command: String,
        /// Where.
        container: String,
        /// Its exit code.
        code: i64,
        /// What it wrote.
        said: String,
    },
    /// A command in a container did not end.
    #[error("`{command}` in container {container} took longer than {} s", ceiling.as_secs())]
    ExecCeiling {
        /// What.
        command: String,
        /// Where.
        container: String,
        /// How long it was waited for.
        ceiling: Duration,
    },
    /// A container could not be made.
    #[error("cannot make container {container}")]
    Create {
        /// Which.
        container: String,
        /// Docker's words.
        source: bollard::errors::Error,
    },
    /// A container ended that has to run.
    #[error("container {container} does not run: {status}; it said last: {said}")]
    Ended {
        /// Which.
        container: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        said: String,
    },
    /// A container could not be looked at.
    #[error("cannot look at container {container}")]
    Inspect {
        /// Which.
        container: String,
        /// Docker's words.
        source: bollard::errors::Error,
    },
    /// Containers or images could not be listed.
    #[error("cannot list what Docker has")]
    List(#[source] bollard::errors::Error),
    /// A container could not be removed.
    #[error("cannot remove container {container}")]
    Remove {
        /// Which.
        container: String,
        /// Docker's words.
        source: bollard::errors::Error,
    },
    /// An image could not be removed.
    #[error("cannot remove the image {image}")]
    RemoveImage {
        /// Which.
        image: String,
        /// Docker's words.
        source: bollard::errors::Error,
    },
    /// The network of the nodes could not be looked at.
    #[error("cannot look at the network {}", network())]
    Network(#[source] bollard::errors::Error),
    /// The network of the nodes has no range of IPv4 addresses.
    #[error("the network {} has no range of IPv4 addresses", network())]
    NoRange,
}

/// A container of ours outside the nodes.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The name of the container.
    pub(crate) name: String,
    /// The reference of its image.
    pub(crate) image: String,
    /// Its environment, `NAME=value`.
    pub(crate) environment: Vec<String>,
    /// Its labels.
    pub(crate) labels: HashMap<String, String>,
    /// Its address on the network of the nodes.
    pub(crate) address: Ipv4Addr,
    /// Its second address there, where the cluster has both families.
    pub(crate) second: Option<Ipv6Addr>,
    /// A link-local address that it has besides, as a metadata service has.
    pub(crate) link_local: Option<Ipv4Addr>,
}

/// The engine.
#[derive(Debug, Clone)]
pub(crate) struct Docker(bollard::Docker);

impl Docker {
    /// The engine that answers at `DOCKER_HOST`, or else at its usual socket.
    pub(crate) async fn connect() -> Result<Self, DockerError> {
        let docker = bollard::Docker::connect_with_defaults().map_err(DockerError::NoEngine)?;
        docker.ping().await.map_err(DockerError::NoEngine)?;
        Ok(Self(docker.with_timeout(CEILING)))
    }

    /// Whether an image is there.
    pub(crate) async fn has_image(&self, reference: &str) -> bool {
        self.0.inspect_image(reference).await.is_ok()
    }

    /// Pulls an image from its registry, as somebody without an account there.
    pub(crate) async fn pull(&self, image: &Reference) -> Result<(), DockerError> {
        let options = CreateImageOptionsBuilder::default()
            .from_image(image.name())
            .tag(image.version())
            .build();
        let pulled = self.0.create_image(Some(options), None, None);
        pulled
            .try_for_each(|_progress| async { Ok(()) })
            .await
            .map_err(|source| DockerError::Pull { image: image.exact(), source })
    }

    /// Gives an image another name, and takes it from whichever image had it.
    pub(crate) async fn tag(&self, image: &str, name: &Reference) -> Result<(), DockerError> {
        let options =
            TagImageOptionsBuilder::default().repo(name.name()).tag(name.version()).build();
        self.0.tag_image(image, Some(options)).await.map_err(|source| DockerError::Tag {
            image: image.to_owned(),
            name: name.exact(),
            source,
        })
    }

    /// The archive of an image, in pieces.
    pub(crate) fn save(&self, image: &str) -> impl Stream<Item = Result<Bytes, DockerError>> {
        self.0
            .export_image(image)
            .map_err(move |source| DockerError::Save { image: image.to_owned(), source })
    }

    /// Loads an image from the archive of a file.
    pub(crate) async fn load_file(&self, image: &str, path: &Path) -> Result<(), DockerError> {
        let pieces = pieces(path).await?;
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let loaded = self.0.import_image_stream(options, pieces, None);
        loaded
            .try_for_each(|_progress| async { Ok(()) })
            .await
            .map_err(|source| DockerError::Load { image: image.to_owned(), source })
    }

    /// Loads an image from an archive in memory.
    pub(crate) async fn load(&self, image: &str, archive: Vec<u8>) -> Result<(), DockerError> {
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let loaded = self.0.import_image(options, bollard::body_full(archive.into()), None);
        loaded
            .try_for_each(|_progress| async { Ok(()) })
            .await
            .map_err(|source| DockerError::Load { image: image.to_owned(), source })
    }

    /// Runs a command in a container; what it wrote.
    pub(crate) async fn exec(
        &self,
        container: &str,
        command: &[&str],
    ) -> Result<String, DockerError> {
        self.exec_within(COMMAND, container, command, futures_util::stream::empty()).await
    }

    /// Imports an archive into containerd's store in a node. Without `--all-platforms`, which `kind load`
    /// gives, an image for another architecture is refused here, and not by every pod that is made of it.
    pub(crate) async fn import_into_node(
        &self,
        node: &str,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<(), DockerError> {
        // Through its transfer service containerd needs half as long again (both since containerd 1.7, by which it can be
        // asked not to); what a container needs of an image is unpacked when the container is made (`WithNewSnapshot`
        // in internal/cri/opts/container.go of containerd), and no node needs all.
        let import = [
            "ctr",
            "--namespace=k8s.io",
            "images",
            "import",
            "--digests",
            "--local",
            "--no-unpack",
            "-",
        ];
        self.exec_within(CEILING, node, &import, archive).await.map(drop)
    }

    /// A container can be paused, or its engine hang, in the midst of a command.
    async fn exec_within(
        &self,
        ceiling: Duration,
        container: &str,
        command: &[&str],
        stdin: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<String, DockerError> {
        let ended = timeout(ceiling, self.exec_with(container, command, stdin)).await;
        ended.unwrap_or_else(|_elapsed| {
            Err(DockerError::ExecCeiling {
                command: command.join(" "),
                container: container.to_owned(),
                ceiling,
            })
        })
    }

    async fn exec_with(
        &self,
        container: &str,
        command: &[&str],
        mut stdin: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<String, DockerError> {
        let told = command.join(" ");
        let failed = |source| DockerError::Exec {
            command: told.clone(),
            container: container.to_owned(),
            source,
        };
        let options = CreateExecOptions {
            cmd: Some(command.iter().map(|it| (*it).to_owned()).collect()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.0.create_exec(container, options).await.map_err(failed)?;
        let started =
            self.0.start_exec(&exec.id, None::<StartExecOptions>).await.map_err(failed)?;
        let mut said = String::new();
        if let StartExecResults::Attached { mut output, mut input } = started {
            let feed = async move {
                while let Some(piece) = stdin.next().await {
                    // A command that ends early closes its input; its own words say why.
                    if input.write_all(&piece?).await.is_err() {
                        break;
                    }
                }
                input.shutdown().await.ok();
                Ok::<_, io::Error>(())
            };
            let listen = async {
                while let Some(piece) = output.next().await {
                    said.push_str(&text(&piece?));
                }
                Ok::<_, bollard::errors::Error>(())
            };
            let (written, heard) = tokio::join!(feed, listen);
            heard.map_err(failed)?;
            written.map_err(|source| failed(source.into()))?;
        }
        let ended = self.0.inspect_exec(&exec.id).await.map_err(failed)?;
        match ended.exit_code {
            Some(0) => Ok(said),
            code => Err(DockerError::ExecFailed {
                command: told,
                container: container.to_owned(),
                code: code.unwrap_or(-1),
                said: crate::program::tail(&said),
            }),
        }
    }

    /// The names of the containers that carry a label, whether they run or not.
    pub(crate) async fn labelled(&self, label: &str) -> Result<Vec<String>, DockerError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = self.0.list_containers(Some(options)).await.map_err(DockerError::List)?;
        let names = containers.into_iter().filter_map(|it| it.names?.into_iter().next());
        Ok(names.map(|name| name.trim_start_matches('/').to_owned()).collect())
    }

    /// The value of a label of a container that runs; nothing where there is none.
    pub(crate) async fn running_label(&self, container: &str, label: &str) -> Option<String> {
        let found =
            self.0.inspect_container(container, None::<InspectContainerOptions>).await.ok()?;
        let runs = found.state.and_then(|it| it.running).unwrap_or(false);
        found.config?.labels?.remove(label).filter(|_| runs)
    }

    /// Makes a container and starts it. One of that name must not exist.
    pub(crate) async fn start(&self, host: &Host) -> Result<(), DockerError> {
        let failed = |source| DockerError::Create { container: host.name.clone(), source };
        let endpoint = EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: Some(host.address.to_string()),
                ipv6_address: host.second.map(|it| it.to_string()),
                link_local_ips: host.link_local.map(|it| vec![it.to_string()]),
            }),
            ..EndpointSettings::default()
        };
        let body = ContainerCreateBody {
            image: Some(host.image.clone()),
            env: Some(host.environment.clone()),
            labels: Some(host.labels.clone()),
            host_config: Some(HostConfig {
                network_mode: Some(network()),
                cap_drop: Some(vec!["ALL".to_owned()]),
                // It serves ports below 1024.
                cap_add: Some(vec!["NET_BIND_SERVICE".to_owned()]),
                readonly_rootfs: Some(true),
                tmpfs: Some(HashMap::from([("/run".to_owned(), String::new())])),
                ..HostConfig::default()
            }),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network(), endpoint)])),
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&host.name).build();
        self.0.create_container(Some(options), body).await.map_err(failed)?;
        let started = self.0.start_container(&host.name, None::<StartContainerOptions>);
        started.await.map_err(failed)?;
        self.require_running(&host.name).await
    }

    /// Looks whether a container runs, and with what words it ended if not.
    pub(crate) async fn require_running(&self, container: &str) -> Result<(), DockerError> {
        let inspected = self.0.inspect_container(container, None::<InspectContainerOptions>).await;
        let found = inspected
            .map_err(|source| DockerError::Inspect { container: container.to_owned(), source })?;
        let state = found.state.unwrap_or_default();
        if state.running == Some(true) {
            return Ok(());
        }
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("12").build();
        let log: Vec<LogOutput> = self
            .0
            .logs(container, Some(options))
            .filter_map(|it| async { it.ok() })
            .collect()
            .await;
        Err(DockerError::Ended {
            container: container.to_owned(),
            status: format!("exit code {}", state.exit_code.unwrap_or(-1)),
            said: log.iter().map(text).collect::<String>().trim_end().to_owned(),
        })
    }

    /// Removes a container, however it is; one that does not exist is no error.
    pub(crate) async fn remove(&self, container: &str) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.0.remove_container(container, Some(options)).await {
            Ok(()) => Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                Ok(())
            }
            Err(source) => Err(DockerError::Remove { container: container.to_owned(), source }),
        }
    }

    /// Removes the images of a repository.
    pub(crate) async fn remove_images(&self, repository: &str) -> Result<(), DockerError> {
        let filters = HashMap::from([("reference", vec![repository])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = self.0.list_images(Some(options)).await.map_err(DockerError::List)?;
        for image in images.into_iter().flat_map(|it| it.repo_tags) {
            let options = RemoveImageOptionsBuilder::default().force(true).build();
            self.0
                .remove_image(&image, Some(options), None)
                .await
                .map_err(|source| DockerError::RemoveImage { image: image.clone(), source })?;
        }
        Ok(())
    }

    /// The ranges of addresses of the network of the nodes: of IPv4, and of IPv6 where it has one.
    pub(crate) async fn ranges(&self) -> Result<(Ipv4Net, Option<Ipv6Net>), DockerError> {
        let network = self.0.inspect_network(&network(), None::<InspectNetworkOptions>).await;
        let network = network.map_err(DockerError::Network)?;
        let ranges = network.ipam.and_then(|it| it.config).unwrap_or_default();
        let ranges: Vec<String> = ranges.into_iter().filter_map(|it| it.subnet).collect();
        let first = ranges.iter().find_map(|it| it.parse().ok()).ok_or(DockerError::NoRange)?;
        Ok((first, ranges.iter().find_map(|it| it.parse().ok())))
    }
}

fn text(piece: &LogOutput) -> String {
    String::from_utf8_lossy(piece.as_ref()).into_owned()
}

/// A file in pieces.
pub(crate) async fn pieces(
    path: &Path,
) -> Result<std::pin::Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>, DockerError> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|source| DockerError::Read { path: path.to_owned(), source })?;
    Ok(Box::pin(futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let length = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await?;
        Ok((length > 0).then(|| (Bytes::from(piece), file)))
    })))
}
