//! `ztc bench world`: what a world of many pods and policies costs on a fabric, and whether the cost of each grows.
//!
//! It measures and judges no case. Times are of one run; on the lab, whose agents are processes here, memory is theirs too.

use std::fmt::Write;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use thiserror::Error;
use ztc_engine::fabric::{Cluster, Fabric, FabricError, Lane, Receipt, Settling};
use ztc_engine::wait::{Look, WaitError, until};
use ztc_model::manifest::{Manifest, manifests};
use ztc_model::world::World;
use ztc_model::yaml::{Diagnostic, Source};

use crate::ground::Place;

/// The small world that the large one is held against, pods.
const FEW_PODS: usize = 20;
/// How many policies are applied at once.
const POLICIES: [usize; 3] = [1, 10, 100];
/// How many kinds of pods there are; a policy is about one of them.
const GROUPS: usize = 10;
/// A cost that is more than so many times that of the small world grows.
const GROWS: f64 = 1.5;
/// How long policies may take until they are realised.
const CEILING: Duration = Duration::from_mins(5);
/// Between two looks.
const POLL: Duration = Duration::from_millis(2);

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Bring-up, apply, settle and memory of a world of 20 pods and of one of many.
    World(Order),
}

/// How large, and where.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// The pods of the large world.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub(crate) pods: u32,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Why nothing was measured.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    #[error("the generated world or policy is wrong: {0}")]
    Generated(Box<Diagnostic>),
    #[error(transparent)]
    Fabric(#[from] FabricError),
    #[error("the policies are not realised")]
    Settle(#[from] WaitError),
}

/// What one world cost.
#[derive(Debug, Clone)]
struct Size {
    pods: usize,
    up: Duration,
    /// Resident memory of this process and of the processes that it started, KiB.
    resident: u64,
    policies: Vec<Policies>,
}

/// What policies cost that were applied at once.
#[derive(Debug, Clone)]
struct Policies {
    count: usize,
    /// Until the last was accepted.
    apply: Duration,
    /// From then on until all were realised everywhere.
    settle: Duration,
}

/// Measures both worlds; the table, and what grows.
pub(crate) async fn measure(fabric: &dyn Fabric, pods: usize) -> Result<String, BenchError> {
    let mut sizes = Vec::new();
    let mut counts = vec![FEW_PODS.min(pods), pods];
    counts.dedup();
    for pods in counts {
        sizes.push(size(fabric, pods).await?);
    }
    Ok(table(&sizes))
}

async fn size(fabric: &dyn Fabric, pods: usize) -> Result<Size, BenchError> {
    let world = Arc::new(world(pods)?);
    let begun = Instant::now();
    let cluster = fabric.up(world, Lane(0)).await?;
    let up = begun.elapsed();
    let mut policies = Vec::new();
    for count in POLICIES {
        policies.push(applied(&*cluster, count).await?);
    }
    let resident = resident();
    cluster.down().await?;
    Ok(Size { pods, up, resident, policies })
}

async fn applied(cluster: &dyn Cluster, count: usize) -> Result<Policies, BenchError> {
    let manifests = policies(count)?;
    let begun = Instant::now();
    let mut receipts = Vec::new();
    for manifest in &manifests {
        receipts.push(cluster.apply(manifest).await?);
    }
    let apply = begun.elapsed();
    settled(cluster, &receipts).await?;
    let settle = begun.elapsed().saturating_sub(apply);
    let mut receipts = Vec::new();
    for manifest in &manifests {
        receipts.push(cluster.delete(&manifest.reference).await?);
    }
    settled(cluster, &receipts).await?;
    Ok(Policies { count, apply, settle })
}

async fn settled(cluster: &dyn Cluster, receipts: &[Receipt]) -> Result<(), WaitError> {
    until("all policies", CEILING, POLL, || async {
        Ok(match cluster.settled(receipts).await {
            Ok(Settling::Realised) => Look::Met(()),
            Ok(Settling::NotYet { status }) => Look::NotYet { status },
            Err(error) => return Err(ztc_engine::chain(&error)),
        })
    })
    .await
}

/// A world of so many pods on two nodes, each with an identity of its own.
fn world(pods: usize) -> Result<World, BenchError> {
    let mut text =
        "world: bench\nabout: Many pods of a few kinds.\nnamespaces: [{ name: zt-bench }]\npods:\n"
            .to_owned();
    for pod in 0..pods {
        let (node, group) = (if pod % 2 == 0 { "a" } else { "b" }, pod % GROUPS);
        writeln!(
            text,
            "- {{ namespace: zt-bench, name: pod-{pod}, node: {node}, labels: {{ pod: \"{pod}\", group: \"{group}\" }}, \
             serves: [{{ speaks: tcp, port: 9000 }}] }}"
        )
        .expect("a string takes everything");
    }
    ztc_model::suite::world(&Source::new("bench", text)).map_err(BenchError::Generated)
}

/// So many policies, each of which lets one kind of pods in to another.
fn policies(count: usize) -> Result<Vec<Manifest>, BenchError> {
    let policy = |number: usize| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{ name: bench-{number}, namespace: zt-bench \
             }}\nspec:\n  endpointSelector: {{ matchLabels: {{ group: \"{}\" }} }}\n  ingress:\n  - fromEndpoints: [{{ \
             matchLabels: {{ group: \"{}\" }} }}]\n    toPorts: [{{ ports: [{{ port: \"{}\", protocol: TCP }}] }}]\n",
            number % GROUPS,
            (number + 1) % GROUPS,
            9000 + number
        )
    };
    let text: Vec<String> = (0..count).map(policy).collect();
    manifests(&Source::new("bench", text.join("---\n"))).map_err(BenchError::Generated)
}

/// Resident memory of this process and of all below it, KiB. What cannot be read has ended.
fn resident() -> u64 {
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let statuses: Vec<(u64, u64, u64)> = entries
        .flatten()
        .filter_map(|entry| {
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            Some((field(&status, "Pid:")?, field(&status, "PPid:")?, field(&status, "VmRSS:")?))
        })
        .collect();
    let mut ours = vec![u64::from(std::process::id())];
    let mut at = 0;
    while let Some(parent) = ours.get(at).copied() {
        ours.extend(statuses.iter().filter(|it| it.1 == parent).map(|it| it.0));
        at += 1;
    }
    statuses.iter().filter(|it| ours.contains(&it.0)).map(|it| it.2).sum()
}

fn table(sizes: &[Size]) -> String {
    let mut lines = vec![
        row(&[
            "pods",
            "policies",
            "up, s",
            "up a pod, ms",
            "MiB a pod",
            "apply, ms",
            "settle, ms",
            "a policy, ms",
        ]),
        row(&["-"; 8]),
    ];
    for size in sizes {
        let pods = count(size.pods);
        lines.push(row(&[
            &size.pods.to_string(),
            "",
            &format!("{:.2}", size.up.as_secs_f64()),
            &format!("{:.1}", millis(size.up) / pods),
            &format!("{:.1}", mebibytes(size.resident) / pods),
            "",
            "",
            "",
        ]));
        for policies in &size.policies {
            lines.push(row(&[
                &size.pods.to_string(),
                &policies.count.to_string(),
                "",
                "",
                "",
                &format!("{:.1}", millis(policies.apply)),
                &format!("{:.1}", millis(policies.settle)),
                &format!("{:.2}", a_policy(policies)),
            ]));
        }
    }
    let mut text = lines.join("\n");
    if let [few, many] = sizes {
        text.push_str("\n\n");
        text.push_str(&growths(few, many).join("\n"));
    }
    text
}

/// What a pod and a policy cost in the large world, in terms of the small one.
fn growths(few: &Size, many: &Size) -> Vec<String> {
    let a_pod = |size: &Size| millis(size.up) / count(size.pods);
    let memory = |size: &Size| mebibytes(size.resident) / count(size.pods);
    let pods = format!("{} pods to {}", few.pods, many.pods);
    let mut lines = vec![
        growth(&format!("bring-up a pod, {pods}"), a_pod(few), a_pod(many)),
        growth(&format!("memory a pod, {pods}"), memory(few), memory(many)),
    ];
    // More pods have more to realise, so it is the share of each that must not grow.
    let share = |size: &Size, policies: &Policies| a_policy(policies) / count(size.pods);
    for (one, other) in few.policies.iter().zip(&many.policies) {
        let what = format!("a policy of {} and a pod, {pods}", one.count);
        lines.push(growth(&what, share(few, one), share(many, other)));
    }
    if let [.., ten, hundred] = many.policies.as_slice() {
        let what = format!("a policy, {} to {}, {} pods", ten.count, hundred.count, many.pods);
        lines.push(growth(&what, a_policy(ten), a_policy(hundred)));
    }
    lines
}

fn growth(what: &str, before: f64, after: f64) -> String {
    let ratio = after / before;
    let word = if ratio > GROWS { "grows" } else { "does not grow" };
    format!("{what}: {ratio:.2} times, {word}")
}

fn row<T: AsRef<str>>(cells: &[T; 8]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| format!("{:>12}", cell.as_ref())).collect();
    format!("| {} |", cells.join(" | "))
}

/// Apply and settle, milliseconds a policy.
fn a_policy(policies: &Policies) -> f64 {
    millis(policies.apply + policies.settle) / count(policies.count)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn mebibytes(kibibytes: u64) -> f64 {
    f64::from(u32::try_from(kibibytes).unwrap_or(u32::MAX)) / 1024.0
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(pods: usize, up_ms: u64, policy_ms: u64) -> Size {
        let policies = POLICIES.map(|count| Policies {
            count,
            apply: Duration::from_millis(policy_ms * u64::try_from(count).unwrap()),
            settle: Duration::ZERO,
        });
        let resident = 1024 * u64::try_from(pods).unwrap();
        Size { pods, up: Duration::from_millis(up_ms), resident, policies: policies.to_vec() }
    }

    #[test]
    fn costs_are_told_by_pod_and_by_policy_with_what_grows() {
        insta::assert_snapshot!(table(&[size(20, 200, 2), size(200, 6000, 20)]));
    }

    #[test]
    fn the_generated_world_and_policies_are_sound() {
        assert_eq!(world(200).unwrap().pods.len(), 200);
        assert_eq!(policies(100).unwrap().len(), 100);
    }
}
