//! Taking clusters down: one, all of this checkout, or one that nobody has used for a while.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::docker::Docker;
use crate::kind::{Kind, cluster_name};
use crate::lease::Lease;
use crate::outside::CLUSTER;
use crate::provision::ProvisionError;

/// The variable that makes this executable a reaper; its value is a [`Watch`] as JSON.
const REAPER_ENV: &str = "ZTC_REAPER";

/// How often a reaper looks.
const LOOK: Duration = Duration::from_secs(5);

/// The images of probes, in Docker's own store.
const PROBES: &str = "ztc.local/probe";

/// Deletes a cluster, and everything outside it that was made for it.
pub(crate) async fn take_down(
    lease: &Lease,
    docker: &Docker,
    kind: &Kind,
    cluster: &str,
) -> Result<(), ProvisionError> {
    for container in docker.labelled(&format!("{CLUSTER}={cluster}")).await? {
        docker.remove(&container).await?;
    }
    kind.delete(cluster, &lease.kubeconfig()).await?;
    Ok(lease.forget()?)
}

/// Deletes every cluster that was made from this checkout, its lease, and the probe's images.
///
/// The network of the nodes is kind's own, and stays as kind leaves it.
pub(crate) async fn take_all_down(
    leases: &Path,
    tools: &Path,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), ProvisionError> {
    let folders: Vec<PathBuf> = match fs::read_dir(leases) {
        Ok(folders) => folders.flatten().map(|it| it.path()).collect(),
        Err(_none) => return Ok(()),
    };
    let (docker, kind) = (Docker::connect().await?, Kind::find(tools).await?);
    for folder in folders {
        let Some(profile) = folder.file_name().and_then(|it| it.to_str()) else { continue };
        let busy = || progress(&format!("a run has the cluster of {profile}; waiting for it"));
        let lease = Lease::take(folder.clone(), busy).await?;
        if lease.state()?.is_some() {
            let cluster = cluster_name(profile);
            progress(&format!("{cluster}: deleting"));
            take_down(&lease, &docker, &kind, &cluster).await?;
        }
        lease.remove()?;
    }
    Ok(docker.remove_images(PROBES).await?)
}

/// A cluster that is to be deleted when nobody has used it for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// The folder of its lease.
    pub(crate) lease: PathBuf,
    /// Where `kind` is looked for first.
    pub(crate) tools: PathBuf,
    /// Its name.
    pub(crate) cluster: String,
    /// How long nobody may use it, seconds.
    pub(crate) idle_s: u64,
}

impl Watch {
    /// Starts a process that outlives this one and watches. A second one for the same cluster ends
    /// by itself. It is this very executable, told by a variable, as there may be no other.
    pub(crate) fn start(&self) -> io::Result<()> {
        use std::os::unix::process::CommandExt;
        let value = serde_json::to_string(self).expect("a watch is plain data");
        Command::new("/proc/self/exe")
            .arg0("ztc-reaper")
            .env(REAPER_ENV, value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the run, not for this.
            .process_group(0)
            .spawn()
            .map(drop)
    }

    async fn reap(&self) -> Result<(), ProvisionError> {
        // The file is the kernel's word for whether there is a reaper already.
        let Ok(alone) = File::create(self.lease.join("reaper")) else { return Ok(()) };
        if alone.try_lock().is_err() {
            return Ok(());
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if !Lease::is_begun(&self.lease) {
                return Ok(());
            }
            if !self.is_idle() {
                continue;
            }
            let Some(lease) = Lease::take_if_free(self.lease.clone())? else { continue };
            // Somebody may have used it between the two looks.
            if self.is_idle() {
                let (docker, kind) = (Docker::connect().await?, Kind::find(&self.tools).await?);
                return take_down(&lease, &docker, &kind, &self.cluster).await;
            }
        }
    }

    fn is_idle(&self) -> bool {
        Lease::last_used(&self.lease).is_none_or(|used| is_over(used, self.idle_s))
    }
}

fn is_over(since: SystemTime, idle_s: u64) -> bool {
    // A clock that was set back makes a cluster live longer, not shorter.
    since.elapsed().is_ok_and(|idle| idle.as_secs() >= idle_s)
}

/// Becomes a reaper if the environment says so; nothing otherwise. To be called first thing in `main`,
/// before there is a runtime.
pub fn run_if_reaper() -> Option<ExitCode> {
    let value = std::env::var_os(REAPER_ENV)?;
    let watch: Option<Watch> = serde_json::from_slice(value.as_encoded_bytes()).ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
    // Nobody reads what it could say. A cluster that it cannot delete is there for the next run.
    let done = runtime.zip(watch).map(|(runtime, watch)| runtime.block_on(watch.reap()));
    Some(match done {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(_)) | None => ExitCode::FAILURE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_idle_when_its_time_is_over_and_not_before() {
        let then = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        assert!(is_over(then(61), 60) && !is_over(then(30), 60));
        assert!(!is_over(SystemTime::now() + Duration::from_secs(5), 0), "a clock set back");
    }

    #[tokio::test]
    async fn a_reaper_without_a_cluster_ends() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch {
            lease: folder.path().to_owned(),
            tools: folder.path().to_owned(),
            cluster: "ztc-none".to_owned(),
            idle_s: 0,
        };
        watch.reap().await.unwrap();
    }

    #[tokio::test]
    async fn a_second_reaper_leaves_the_cluster_to_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = File::create(folder.path().join("reaper")).unwrap();
        first.lock().unwrap();
        fs::write(folder.path().join("state.json"), r#"{"contents":"","done":[]}"#).unwrap();
        let watch = Watch {
            lease: folder.path().to_owned(),
            tools: folder.path().to_owned(),
            cluster: "ztc-none".to_owned(),
            idle_s: 0,
        };
        watch.reap().await.unwrap();
        assert!(Lease::is_begun(folder.path()), "it was left alone");
    }
}
