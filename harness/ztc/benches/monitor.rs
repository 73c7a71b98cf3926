//! `cargo bench -p ztc --bench monitor`: what it costs the harness to watch a hundred pairs, each with a hundred new
//! connections a second, while something changes. Nothing here passes or fails.
//!
//! The change is this program itself, called again by `ztc monitor`: so that it measures while everything is watched.

mod events;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use table::{exit_code, median, row};
use ztc::project::Project;
use ztc_engine::event::{ChangeReport, EventKind};
use ztc_model::window::WindowKind;
use ztc_wire::AGENT_ENV;

/// The argument that makes this program measure in the middle of a change, with the file for what it finds.
const MEASURE: &str = "measure";
/// How long it measures.
const MEASURED: Duration = Duration::from_secs(10);
/// How often all is done.
const ROUNDS: usize = 3;
/// How many send.
const CALLERS: usize = 10;
/// How many each of them sends to. Every second is closed.
const CALLED: usize = 10;

/// Processor seconds a second, of each who works.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Shares {
    harness: f64,
    lab: f64,
    agents: f64,
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip_while(|it| it != MEASURE).skip(1);
    exit_code(match args.next() {
        Some(file) => measure(Path::new(&file)).map_err(|it| it.to_string()),
        None => compare(),
    })
}

fn compare() -> Result<(), String> {
    let project = tempfile::tempdir().map_err(|it| it.to_string())?;
    write_project(project.path()).map_err(|it| it.to_string())?;
    let (mut shares, mut rates, mut windows) = (Vec::new(), Vec::new(), [0; 3]);
    for _ in 0..ROUNDS {
        let (share, report) = watch(project.path())?;
        let last = report.steps.last().map_or(0, |it| it.until_us);
        let samples: u64 = report.flows.iter().map(|it| it.samples).sum();
        // Flows that go on have a question now and then, which are few.
        rates.push(f64::from(u32::try_from(samples).unwrap_or(u32::MAX)) / seconds(last));
        for window in report.flows.iter().flat_map(|it| &it.windows) {
            windows[match window.kind {
                WindowKind::Leak => 0,
                WindowKind::Outage => 1,
                WindowKind::Blind => 2,
            }] += 1;
        }
        shares.push(share);
    }
    let [leaks, outages, blind] = windows;
    let share = |of: fn(&Shares) -> f64| {
        format!("{:.0} %", median(shares.iter().map(of).collect()) * 100.0)
    };
    table::head();
    row("samples a second of 100 pairs", &format!("{:.0}", median(rates)), "10,000");
    row("  the harness, of one core", &share(|it| it.harness), "under 60 %");
    row("  the lab's switch, of one core", &share(|it| it.lab), "-");
    row("  the agents, of one core", &share(|it| it.agents), "-");
    let found = format!("{leaks}, {outages}, {blind}");
    row("  leaks, outages and blind spots, with nothing changed", &found, "0, 0, 0");
    Ok(())
}

/// Pairs of pods on two nodes, half of which a policy keeps apart, at the pace of the lab.
fn write_project(folder: &Path) -> io::Result<()> {
    let mut world = "world: pairs\nabout: Some call, and some are called.\n\
                     namespaces: [{ name: zt-out }, { name: zt-in }]\npods:\n"
        .to_owned();
    let node = |number| if number % 2 == 0 { "a" } else { "b" };
    for number in 0..CALLERS {
        let node = node(number);
        writeln!(world, "- {{ namespace: zt-out, name: caller-{number}, node: {node} }}").ok();
    }
    for number in 0..CALLED {
        writeln!(
            world,
            "- {{ namespace: zt-in, name: called-{number}, node: {}, labels: {{ is: {} }}, \
             serves: [{{ speaks: tcp, port: 9000 }}] }}",
            node(number / 2),
            if number % 2 == 0 { "closed" } else { "open" },
        )
        .ok();
    }
    let list = |all: Vec<String>| format!("[{}]", all.join(", "));
    let from = list((0..CALLERS).map(|it| format!("zt-out/caller-{it}")).collect());
    let to = |first| {
        list((first..CALLED).step_by(2).map(|it| format!("tcp zt-in/called-{it}:9000")).collect())
    };
    let suite = format!(
        "suite: pairs\nabout: Pairs of which half are kept apart.\nworld: pairs\nneeds: [cilium]\n\
         cases:\n- name: half-are-kept-apart\n  because: Those that are closed have a policy.\n  \
         apply: [closed.yaml]\n  expect:\n  \
         - {{ from: {from}, send: {}, is: denied, by: cilium, as: default-deny }}\n  \
         - {{ from: {from}, send: {}, is: allowed }}\n",
        to(0),
        to(1),
    );
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                  metadata: { name: closed, namespace: zt-in }\n\
                  spec: { podSelector: { matchLabels: { is: closed } }, policyTypes: [Ingress] }\n";
    let profile = fs::read(Project::find().root().join("clusters/lab.yaml"))?;
    for (path, bytes) in [
        ("suites/worlds/pairs.yaml", world.as_bytes()),
        ("suites/pairs/suite.yaml", suite.as_bytes()),
        ("suites/pairs/closed.yaml", policy.as_bytes()),
        ("clusters/lab.yaml", &profile),
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

/// One run of the monitor: the shares that its change has measured, and what became of the flows.
fn watch(project: &Path) -> Result<(Shares, ChangeReport), String> {
    let told = |error: io::Error| error.to_string();
    let measured = project.join("shares.json");
    let status = Command::new(env!("CARGO_BIN_EXE_ztc"))
        .current_dir(project)
        .args(["monitor", "pairs::half-are-kept-apart", "--every", "10ms", "--"])
        .arg(std::env::current_exe().map_err(told)?)
        .arg(MEASURE)
        .arg(&measured)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(told)?;
    let shares = fs::read(&measured).map_err(|it| format!("{status}, nothing measured: {it}"))?;
    fs::remove_file(&measured).map_err(told)?;
    let shares = serde_json::from_slice(&shares).map_err(|it| it.to_string())?;
    let mut told = events::of_last_run(&project.join("target/ztc"))?.into_iter();
    let change = told.find_map(|it| match it {
        EventKind::ChangeWatched(report) => Some(*report),
        _ => None,
    });
    let change = change.ok_or_else(|| format!("{status}, and nothing was watched"))?;
    Ok((shares, change))
}

/// Whose processor time a thread takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Harness,
    Lab,
    Agent,
}

/// Writes down who takes how much of a core while everything is watched.
fn measure(file: &Path) -> io::Result<()> {
    let harness = parent("self")?;
    let (begun, before) = (Instant::now(), times(harness)?);
    std::thread::park_timeout(MEASURED);
    let (took, after) = (begun.elapsed(), times(harness)?);
    let per_second =
        f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100));
    let share = |who| {
        let of = after.iter().filter(|(_, (whose, _))| *whose == who);
        let ticks = of.map(|(thread, (_, ticks))| {
            ticks.saturating_sub(before.get(thread).map_or(0, |(_, ticks)| *ticks))
        });
        let ticks = u32::try_from(ticks.sum::<u64>()).unwrap_or(u32::MAX);
        f64::from(ticks) / per_second / took.as_secs_f64()
    };
    let shares =
        Shares { harness: share(Who::Harness), lab: share(Who::Lab), agents: share(Who::Agent) };
    fs::write(file, serde_json::to_vec(&shares)?)
}

/// The processor time of each thread of the harness and of its agents so far, ticks of the clock. The lab's threads are in
/// the process of the harness, and have names; those that have none of their own are the harness.
fn times(harness: u32) -> io::Result<BTreeMap<u32, (Who, u64)>> {
    let mut times = BTreeMap::new();
    let main = fs::read_to_string(format!("/proc/{harness}/comm"))?;
    for process in numbers("/proc")? {
        let is_agent =
            parent(&process.to_string()).is_ok_and(|it| it == harness) && runs_agent(process);
        if process != harness && !is_agent {
            continue;
        }
        // Threads come and go.
        for thread in numbers(&format!("/proc/{process}/task")).unwrap_or_default() {
            let folder = format!("/proc/{process}/task/{thread}");
            let Ok(stat) = fs::read_to_string(format!("{folder}/stat")) else { continue };
            let comm = fs::read_to_string(format!("{folder}/comm")).unwrap_or_default();
            let who = match comm.trim_end() {
                _ if is_agent => Who::Agent,
                "tokio-rt-worker" => Who::Harness,
                name if name == main.trim_end() => Who::Harness,
                _ => Who::Lab,
            };
            times.insert(thread, (who, field(&stat, 14)? + field(&stat, 15)?));
        }
    }
    Ok(times)
}

/// Whether a process is an agent in a pod. One that has ended is none.
fn runs_agent(process: u32) -> bool {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let prefix = format!("{AGENT_ENV}=").into_bytes();
    environment.split(|byte| *byte == 0).any(|it| it.starts_with(&prefix))
}

/// The numbers that are names in a folder.
fn numbers(folder: &str) -> io::Result<Vec<u32>> {
    let names = fs::read_dir(folder)?.flatten();
    Ok(names.filter_map(|it| it.file_name().to_str()?.parse().ok()).collect())
}

/// The process that started another, by the numbers of `/proc`, which may be others than those of this namespace.
fn parent(process: &str) -> io::Result<u32> {
    let ppid = field(&fs::read_to_string(format!("/proc/{process}/stat"))?, 4)?;
    u32::try_from(ppid).map_err(io::Error::other)
}

/// A field of `/proc/PID/stat`, counted as in proc(5). The second is a name that may have blanks.
fn field(stat: &str, number: usize) -> io::Result<u64> {
    let (_, rest) = stat.rsplit_once(')').ok_or_else(|| io::Error::other("no name"))?;
    let field = rest.split_whitespace().nth(number - 3);
    field.and_then(|it| it.parse().ok()).ok_or_else(|| io::Error::other("no such field"))
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}
