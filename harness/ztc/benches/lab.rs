//! `cargo bench -p ztc`: what the lab can do, as medians and ratios of
//! one run. Nothing here passes or fails: it prints what it measured next to what is wished for.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;
use ztc_engine::burst::Burst;
use ztc_engine::event::{CaseReport, EventKind};
use ztc_engine::fabric::{Fabric, Lane};
use ztc_lab::{Entered, Lab};
use ztc_model::stimulus::Send;
use ztc_model::world::PodRef;
use ztc_wire::{AGENT_ENV, AgentConfig};

/// The argument that makes this program measure inside the lab.
const RATES: &str = "rates";
/// How often the whole slice is run.
const RUNS: usize = 5;
/// How often each rate is measured.
const ROUNDS: usize = 7;
/// How many connections a round of one at a time makes.
const ONE_AT_A_TIME: usize = 1_000;
/// How many a round with many in flight makes.
const MANY: usize = 5_000;
/// How many are in flight then.
const WINDOW: usize = 32;
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

fn exit_code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("the benchmark could not be run: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}

fn row(what: &str, measured: &str, wished: &str) {
    say(&format!("| {what:<58} | {measured:>16} | {wished:>14} |"));
}

/// Whole runs enter namespaces of their own, and a process that has entered some once can start no
/// other: so the rates, which are measured inside, get a process of theirs.
fn outside() -> Result<(), String> {
    row("what", "measured", "wished");
    row("-", "-", "-");
    let status = std::env::current_exe()
        .and_then(|program| Command::new(program).arg(RATES).status())
        .map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("measuring the rates ended with {status}"));
    }
    slice()
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
    let burst = Burst::new(Arc::clone(&cluster), client.clone(), &send, deadline).await?;
    burst.send(MANY, WINDOW).await;
    for (words, threads, count, wished) in
        [("one at a time", 1, ONE_AT_A_TIME, "-"), ("32 in flight", WINDOW, MANY, "2,000 and more")]
    {
        compare(&burst, &client, target, words, threads, count, wished).await?;
    }
    memory(&burst).await?;
    cluster.down().await.map_err(|error| ztc_engine::chain(&error))
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
        if volume.through != count {
            return Err(format!(
                "{} of {count} got through: {:?}",
                volume.through, volume.otherwise
            ));
        }
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

/// Whole runs of the slice as a person starts them, and how soon denials were settled in them.
fn slice() -> Result<(), String> {
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
    row("the slice from start to report, s", &format!("{:.2}", median(walls)), "under 3");
    let settled = median(settled.into_iter().map(f64::from).collect());
    row("denied probe settled by evidence, ms", &format!("{:.2}", settled / 1000.0), "under 20");
    let enforced = median(enforced.into_iter().map(f64::from).collect());
    row("time to enforce, ms, median of the cells", &format!("{enforced:.0}"), "-");
    Ok(())
}

fn last_reports() -> Result<Vec<CaseReport>, String> {
    let path = ztc::project::Project::find().results().join("latest/events.jsonl");
    let file = fs::File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut reports = Vec::new();
    for event in ztc_report::jsonl::read(std::io::BufReader::new(file)) {
        if let EventKind::CaseFinished(report) = event.map_err(|it| ztc_engine::chain(&it))?.kind {
            reports.push(*report);
        }
    }
    Ok(reports)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn number(value: f64) -> String {
    format!("{value:.0}")
}

fn pod(text: &str) -> PodRef {
    text.parse().expect("a literal of this file")
}
