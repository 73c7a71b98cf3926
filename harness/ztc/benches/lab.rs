//! `cargo bench -p ztc`: what the lab can do, as medians and ratios of
//! one run. Nothing here passes or fails: it prints what it measured next to what is wished for.

mod events;
mod table;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use table::{exit_code, median, row, say};
use tokio::runtime::Runtime;
use ztc_engine::burst::{Burst, Volume};
use ztc_engine::event::{CaseReport, EventKind};
use ztc_engine::fabric::{Cluster, Fabric, Lane};
use ztc_lab::{Entered, Lab};
use ztc_model::stimulus::Send;
use ztc_model::world::{PodRef, World};
use ztc_model::yaml::Source;
use ztc_wire::{AGENT_ENV, AgentConfig};

/// The argument that makes this program measure inside the lab.
const RATES: &str = "rates";
/// How often all cases are run.
const RUNS: usize = 5;
/// How often each rate is measured.
const ROUNDS: usize = 7;
/// How many connections a round of one at a time makes.
const ONE_AT_A_TIME: usize = 1_000;
/// How many a round with many in flight makes.
const MANY: usize = 5_000;
/// How many are in flight then.
const WINDOW: usize = 32;
/// How many pods of the mesh send at once.
const CALLERS: usize = 10;
/// How many pods of the mesh each of them sends to.
const CALLED: usize = 20;
/// How many probes the memory is watched over.
const LONG_RUN: usize = 100_000;

fn main() -> ExitCode {
    if let Some(code) = ztc_probe::run_if_agent() {
        return code;
    }
    if !std::env::args().any(|argument| argument == RATES) {
        return exit_code(outside());
    }
    match ztc_lab::enter() {
        Ok(Entered::Outside(code)) => code,
        Ok(Entered::Inside) => exit_code(inside()),
        Err(error) => {
            say(&ztc_engine::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whole runs enter namespaces of their own, and a process that has entered some once can start no
/// other: so the rates, which are measured inside, get a process of theirs.
fn outside() -> Result<(), String> {
    table::head();
    let status = std::env::current_exe()
        .and_then(|program| Command::new(program).arg(RATES).status())
        .map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("measuring the rates ended with {status}"));
    }
    whole_runs()
}

fn inside() -> Result<(), String> {
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(rates())
}

/// Allowed probes a second against a bare loop, and memory over many of them.
async fn rates() -> Result<(), String> {
    let project = ztc::project::Project::find();
    let suites = project.suites().map_err(|error| ztc_engine::chain(&error))?;
    let world = suites.worlds.get("two-teams").ok_or("there is no world two-teams")?;
    let lab = Lab::new(ztc::execution::agent_command()).map_err(|it| ztc_engine::chain(&it))?;
    let cluster =
        lab.up(Arc::clone(world), Lane(0)).await.map_err(|error| ztc_engine::chain(&error))?;
    let (client, server) = (pod("zt-shop/web"), pod("zt-pay/ledger"));
    let send: Send = "tcp zt-pay/ledger:9000".parse().map_err(|it| format!("{it}"))?;
    let book = cluster.addresses().await.map_err(|error| ztc_engine::chain(&error))?;
    let target = SocketAddr::new(*book.pods.get(&server).ok_or("no server")?, 9000);
    let deadline = Duration::from_secs(5);
    let burst = Burst::new(Arc::clone(&cluster), client.clone(), &[send], deadline).await?;
    burst.send(MANY, WINDOW).await;
    for (words, threads, count, wished) in
        [("one at a time", 1, ONE_AT_A_TIME, "-"), ("32 in flight", WINDOW, MANY, "2,000 and more")]
    {
        compare(&burst, &client, target, words, threads, count, wished).await?;
    }
    memory(&burst).await?;
    drop(burst);
    cluster.down().await.map_err(|error| ztc_engine::chain(&error))?;
    mesh(&lab).await
}

/// Pods outside the mesh, one on each node, and many in it.
fn mesh_world() -> Result<World, String> {
    let serves = "serves: [{ speaks: tcp, port: 9000 }]";
    let mut text = format!(
        "world: bench\nabout: Pairs in and outside the mesh.\nnamespaces:\n\
         - {{ name: zt-plain }}\n\
         - {{ name: zt-mesh, labels: {{ istio.io/dataplane-mode: ambient }} }}\npods:\n\
         - {{ namespace: zt-plain, name: caller-0, node: a }}\n\
         - {{ namespace: zt-plain, name: called-0, node: b, {serves} }}\n"
    );
    for caller in 0..CALLERS {
        writeln!(text, "- {{ namespace: zt-mesh, name: caller-{caller}, node: a }}").ok();
    }
    for called in 0..CALLED {
        writeln!(text, "- {{ namespace: zt-mesh, name: called-{called}, node: b, {serves} }}").ok();
    }
    ztc_model::suite::world(&Source::new("bench", text)).map_err(|error| error.to_string())
}

/// A pod that sends to the first `count` that serve in its namespace.
async fn caller(
    cluster: &Arc<dyn Cluster>,
    namespace: &str,
    index: usize,
    count: usize,
) -> Result<Burst, String> {
    let send = |called| format!("tcp {namespace}/called-{called}:9000").parse::<Send>();
    let sends = (0..count).map(send).collect::<Result<Vec<_>, _>>();
    let sends = sends.map_err(|error| error.to_string())?;
    let client = pod(&format!("{namespace}/caller-{index}"));
    Burst::new(Arc::clone(cluster), client, &sends, Duration::from_secs(10)).await
}

/// What tunnels cost: the first connection of a pair needs a handshake of mutual TLS, every other is a stream in its tunnel.
async fn mesh(lab: &Lab) -> Result<(), String> {
    let world = Arc::new(mesh_world()?);
    let (mut cold, mut pooled, mut plain, mut ratios) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        // Tunnels are kept, so handshakes are of pods that have just been born.
        let cluster = lab
            .up(Arc::clone(&world), Lane(round))
            .await
            .map_err(|error| ztc_engine::chain(&error))?;
        let callers = (0..CALLERS).map(|index| caller(&cluster, "zt-mesh", index, CALLED));
        let callers = try_join_all(callers).await?;
        let begun = Instant::now();
        let volumes = join_all(callers.iter().map(|it| it.send(CALLED, CALLED))).await;
        let took = begun.elapsed().as_secs_f64();
        volumes.iter().try_for_each(|volume| all_through(volume, CALLED))?;
        cold.push(f64::from(u32::try_from(CALLERS * CALLED).unwrap_or(u32::MAX)) / took);
        let outside = caller(&cluster, "zt-plain", 0, 1).await?;
        let volume = callers[0].send(MANY, WINDOW).await;
        all_through(&volume, MANY)?;
        let bare = outside.send(MANY, WINDOW).await;
        all_through(&bare, MANY)?;
        pooled.push(volume.per_second());
        plain.push(bare.per_second());
        ratios.push(volume.per_second() / bare.per_second());
        drop((callers, outside));
        cluster.down().await.map_err(|error| ztc_engine::chain(&error))?;
    }
    row("first connections a second, each with a handshake", &number(median(cold)), "200 and more");
    row("probes a second through tunnels that stand", &number(median(pooled)), "1,000 and more");
    row("  between pods outside the mesh", &number(median(plain)), "-");
    row("  ratio, median of the pairs", &format!("{:.2}", median(ratios)), "-");
    Ok(())
}

fn all_through(volume: &Volume, count: usize) -> Result<(), String> {
    if volume.through == count {
        return Ok(());
    }
    Err(format!("{} of {count} got through: {:?}", volume.through, volume.otherwise))
}

/// Rounds of the harness and of the bare loop in turn, so that the machine's mood meets both.
async fn compare(
    burst: &Burst,
    client: &PodRef,
    target: SocketAddr,
    words: &str,
    threads: usize,
    count: usize,
    wished: &str,
) -> Result<(), String> {
    let (mut ours, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let volume = burst.send(count, threads).await;
        all_through(&volume, count)?;
        let client = client.clone();
        let took = tokio::task::spawn_blocking(move || bare_loop(&client, target, threads, count))
            .await
            .map_err(|error| error.to_string())??;
        let bare_rate = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64();
        ours.push(volume.per_second());
        bare.push(bare_rate);
        ratios.push(volume.per_second() / bare_rate);
    }
    row(&format!("allowed probes a second, one pod, {words}"), &number(median(ours)), wished);
    row(&format!("  bare connect loop, same namespaces, {words}"), &number(median(bare)), "-");
    row("  ratio, median of the pairs", &format!("{:.2}", median(ratios)), "-");
    Ok(())
}

/// Connects, exchanges a line and closes, with nothing around it, in the pod's own namespace.
fn bare_loop(
    pod: &PodRef,
    target: SocketAddr,
    threads: usize,
    count: usize,
) -> Result<Duration, String> {
    let namespace = namespace_of(pod)?;
    let begun = Instant::now();
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let namespace = namespace.try_clone().map_err(|error| error.to_string())?;
            Ok(std::thread::spawn(move || -> Result<(), String> {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|error| error.to_string())?;
                (0..count / threads).try_for_each(|_| exchange(target).map_err(|it| it.to_string()))
            }))
        })
        .collect::<Result<_, String>>()?;
    for worker in workers {
        worker.join().map_err(|_panic| "a worker panicked".to_owned())??;
    }
    Ok(begun.elapsed())
}

fn exchange(target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target)?;
    stream.write_all(b"ztc1 bare\n")?;
    let mut line = [0; 64];
    let _length = stream.read(&mut line)?;
    // As the probe does: a reset leaves no port waiting.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}

/// The network namespace of the agent that has this name.
fn namespace_of(pod: &PodRef) -> Result<fs::File, String> {
    let name = pod.to_string();
    for entry in fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten() {
        // Most entries of /proc are no processes, and processes come and go.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let prefix = format!("{AGENT_ENV}=").into_bytes();
        let value = environment.split(|byte| *byte == 0).find_map(|it| it.strip_prefix(&*prefix));
        let config = value.and_then(|value| AgentConfig::from_json(value).ok());
        if config.is_some_and(|config| config.name == name) {
            return fs::File::open(entry.path().join("ns/net")).map_err(|error| error.to_string());
        }
    }
    Err(format!("no agent is called {name}"))
}

async fn memory(burst: &Burst) -> Result<(), String> {
    let mut marks = vec![resident()?];
    for _ in 0..4 {
        let volume = burst.send(LONG_RUN / 4, WINDOW).await;
        if !volume.otherwise.is_empty() {
            return Err(format!("some did not get through: {:?}", volume.otherwise));
        }
        marks.push(resident()?);
    }
    let shown: Vec<String> = marks.iter().map(|kib| format!("{}", kib / 1024)).collect();
    row(
        "resident MiB after 0, 25, 50, 75, 100 thousand probes",
        &shown.join(" "),
        "under 150, flat",
    );
    Ok(())
}

/// Resident memory of this process, KiB.
fn resident() -> Result<u64, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|word| word.parse().ok()).ok_or_else(|| "no VmRSS".to_owned())
}

/// Whole runs as a person starts them, and how soon denials were settled in them.
fn whole_runs() -> Result<(), String> {
    let (mut walls, mut settled, mut enforced) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        let status = Command::new(env!("CARGO_BIN_EXE_ztc"))
            .arg("run")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|error| error.to_string())?;
        walls.push(begun.elapsed().as_secs_f64());
        if !status.success() {
            return Err(format!("a run ended with {status}"));
        }
        for report in last_reports()? {
            for cell in report.cells.iter().filter(|cell| cell.from != "kubelet") {
                settled
                    .extend(cell.settle_median_us.map(|us| u32::try_from(us).unwrap_or(u32::MAX)));
                enforced.extend(
                    cell.time_to_enforce_ms.map(|it| u32::try_from(it).unwrap_or(u32::MAX)),
                );
            }
        }
    }
    row("all cases from start to report, s", &format!("{:.2}", median(walls)), "under 10");
    let settled = median(settled.into_iter().map(f64::from).collect());
    row("denied probe settled by evidence, ms", &format!("{:.2}", settled / 1000.0), "under 20");
    let enforced = median(enforced.into_iter().map(f64::from).collect());
    row("time to enforce, ms, median of the cells", &format!("{enforced:.0}"), "-");
    Ok(())
}

fn last_reports() -> Result<Vec<CaseReport>, String> {
    let told = events::of_last_run(&ztc::project::Project::find().results())?.into_iter();
    Ok(told
        .filter_map(|it| match it {
            EventKind::CaseFinished(report) => Some(*report),
            _ => None,
        })
        .collect())
}

fn number(value: f64) -> String {
    format!("{value:.0}")
}

fn pod(text: &str) -> PodRef {
    text.parse().expect("a literal of this file")
}
