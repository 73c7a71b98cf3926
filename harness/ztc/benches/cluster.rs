//! `cargo bench -p ztc --bench cluster`: what a real cluster and the way to it can do, as medians of one run.
//! It makes or takes the cluster of `ZTC_CLUSTER`, by default kind. Nothing here passes or fails.

mod events;
mod table;

use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use table::{exit_code, median, row};
use tokio::runtime::Runtime;
use ztc::ground::{Ground, Place};
use ztc::project::Project;
use ztc_engine::burst::Burst;
use ztc_engine::chain;
use ztc_engine::event::{CaseReport, EventKind};
use ztc_engine::fabric::Lane;
use ztc_model::stimulus::Send;
use ztc_model::world::{PodRef, World};
use ztc_model::yaml::Source;

/// How many pods send at once.
const CLIENTS: usize = 8;
/// How many stimuli each has in flight.
const WINDOW: usize = 16;
/// How many each sends in a round.
const COUNT: usize = 500;
/// How many rounds there are.
const ROUNDS: usize = 5;
/// How long one stimulus may take.
const DEADLINE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let result = Runtime::new()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(measure()))
        .and_then(|()| suites());
    exit_code(result)
}

fn place() -> Result<Place, String> {
    let mut place = Place::from_environment().map_err(|error| error.to_string())?;
    if std::env::var_os("ZTC_CLUSTER").is_none() {
        "kind".clone_into(&mut place.cluster);
    }
    Ok(place)
}

/// A server, and clients on both nodes.
fn world() -> Result<World, String> {
    let mut text = "world: bench\nabout: Many clients and a server.\nnamespaces: [{ name: zt-bench }]\npods:\n\
                    - { namespace: zt-bench, name: server, node: a, serves: [{ speaks: tcp, port: 9000 }] }\n"
        .to_owned();
    for client in 0..CLIENTS {
        let node = if client % 2 == 0 { "a" } else { "b" };
        text.push_str(
            &[
                "- { namespace: zt-bench, name: client-",
                &client.to_string(),
                ", node: ",
                node,
                " }\n",
            ]
            .concat(),
        );
    }
    ztc_model::suite::world(&Source::new("bench", text)).map_err(|error| error.to_string())
}

async fn measure() -> Result<(), String> {
    table::head();
    let ground = Ground::find(&Project::find(), &place()?).map_err(|error| chain(&error))?;
    let begun = Instant::now();
    let ready = ground.ready("bench", None).await.map_err(|error| chain(&error))?;
    row("a cluster that is there, until it can be used, s", &seconds(begun), "-");
    let begun = Instant::now();
    let lane = ready
        .fabric
        .shared()
        .up(Arc::new(world()?), Lane(0))
        .await
        .map_err(|error| chain(&error))?;
    row("a world of nine pods, s", &seconds(begun), "-");
    let send: [Send; 1] =
        ["tcp zt-bench/server:9000".parse().map_err(|error| format!("{error}"))?];
    let clients = (0..CLIENTS).map(|client| PodRef {
        namespace: "zt-bench".to_owned(),
        name: format!("client-{client}"),
    });
    let bursts = clients.map(|pod| Burst::new(Arc::clone(&lane), pod, &send, DEADLINE));
    let bursts = try_join_all(bursts).await?;
    let (mut rates, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let volumes = join_all(bursts.iter().map(|burst| burst.send(COUNT, WINDOW))).await;
        let through: usize = volumes.iter().map(|volume| volume.through).sum();
        if through != CLIENTS * COUNT {
            let otherwise: Vec<_> = volumes.into_iter().flat_map(|it| it.otherwise).collect();
            return Err(format!("only {through} got through: {otherwise:?}"));
        }
        rates.push(per_second(through, begun.elapsed()));
        alone.push(bursts[0].send(COUNT / 5, 1).await.per_second());
    }
    row(
        "allowed probes a second over exec, 8 pods",
        &format!("{:.0}", median(rates)),
        "500 and more",
    );
    row("  one pod, one at a time", &format!("{:.0}", median(alone)), "-");
    drop(bursts);
    lane.down().await.map_err(|error| chain(&error))
}

/// A whole run as a person starts it.
fn suites() -> Result<(), String> {
    let place = place()?;
    let begun = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_ztc"))
        .args(["run", "--cluster", &place.cluster])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| error.to_string())?;
    row("all suites, from start to report, s", &seconds(begun), "under 240");
    row("  which ended with", &status.to_string(), "exit status: 0");
    let reports = last_reports()?;
    let cells = || reports.iter().flat_map(|it| &it.cells).filter(|cell| cell.from != "kubelet");
    let micros = cells().filter_map(|it| it.settle_median_us).map(float).collect();
    row(
        "denied probe settled by evidence, ms",
        &format!("{:.1}", median(micros) / 1000.0),
        "under 50",
    );
    let enforced = cells().filter_map(|it| it.time_to_enforce_ms).map(float).collect();
    row("time to enforce, ms, median of the cells", &format!("{:.0}", median(enforced)), "-");
    let settled = reports.iter().filter_map(|it| it.settled_ms).map(float).collect();
    row("policies realised everywhere, ms", &format!("{:.0}", median(settled)), "-");
    let took = reports.iter().map(|it| float(it.took_ms)).collect();
    row("a case, s", &format!("{:.1}", median(took) / 1000.0), "under 5");
    let by = |count: fn(&ztc_engine::event::CellReport) -> usize| cells().map(count).sum::<usize>();
    let (record, clock) = (by(|it| it.settled_by_evidence), by(|it| it.settled_by_time_out));
    row(
        "denied probes settled by a record / by the clock",
        &format!("{record} / {clock}"),
        "- / 0",
    );
    Ok(())
}

fn last_reports() -> Result<Vec<CaseReport>, String> {
    let told = events::of_last_run(&Project::find().results())?.into_iter();
    Ok(told
        .filter_map(|it| match it {
            EventKind::CaseFinished(report) => Some(*report),
            _ => None,
        })
        .collect())
}

fn float(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

fn per_second(count: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

fn seconds(since: Instant) -> String {
    format!("{:.1}", since.elapsed().as_secs_f64())
}
