//! Checks of the mesh in a lane, from inside the lab.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::time::timeout;
use ztc_engine::fabric::Witness;
use ztc_model::evidence::{Did, Record};
use ztc_model::ztunnel::{HBONE_PORT, Line, Side};
use ztc_wire::{Host, Observed, Stimulus, Target};

use crate::client::Client;
use crate::inside::{CEILING, Check, PASSES, Played, expect_peer, lane, read, realise};

/// The checks by name.
pub(crate) const CHECKS: &[(&str, Check)] = &[
    ("the_mesh_speaks_through_tunnels_and_others_in_plain", || Box::pin(tunnels_and_plain())),
    ("strict_closes_a_connection_in_plain_and_says_so", || Box::pin(strict_closes())),
    ("a_waypoint_speaks_for_itself_and_answers_what_is_denied", || Box::pin(waypoint_answers())),
];

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: zt-mesh }
spec: { mtls: { mode: STRICT } }
";

const GET_ALONE: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: get-alone, namespace: zt-mesh }
spec:
  targetRefs: [{ group: '', kind: Service, name: through }]
  rules: [{ to: [{ operation: { methods: [GET] } }] }]
";

fn http(method: &str, host: &str) -> Stimulus {
    Stimulus::Http {
        tls: false,
        method: method.to_owned(),
        to: Target { host: Host::Name(host.to_owned()), port: 80, family: None },
        path: "/gold".to_owned(),
        headers: BTreeMap::new(),
    }
}

fn tcp(host: &str) -> Stimulus {
    Stimulus::Tcp { to: Target { host: Host::Name(host.to_owned()), port: 9000, family: None } }
}

async fn tunnels_and_plain() -> Played {
    let cluster = lane(0).await?;
    let mut evidence = cluster.evidence();
    let mut ambient = Client::open(cluster.as_ref(), "zt-mesh/ambient").await?;
    let mut web = Client::open(cluster.as_ref(), "zt-shop/web").await?;

    // The second time in the tunnel that is there.
    for _ in 0..2 {
        expect_peer(&ambient.send(tcp("peer.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;
        let [inbound, outbound] = lines(&mut evidence).await?;
        for line in [&inbound, &outbound] {
            let name = "spiffe://cluster.local/ns/zt-mesh/sa/ambient";
            if line.principal.as_deref() != Some(name) || line.destination.port() != HBONE_PORT {
                return Err(format!("not through a tunnel: {line:?}").into());
            }
            if line.reached_for().port() != 9000 || line.error.is_some() {
                return Err(format!("not to the peer: {line:?}").into());
            }
        }
    }
    expect_peer(&ambient.send(tcp("cart.zt-shop"), PASSES).await?, "zt-shop/cart")?;
    let outbound = line(&mut evidence, Side::Outbound).await?;
    expect_peer(&web.send(tcp("peer.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;
    let inbound = line(&mut evidence, Side::Inbound).await?;
    for line in [outbound, inbound] {
        if line.principal.is_some() || line.destination.port() != 9000 || line.error.is_some() {
            return Err(format!("not in plain: {line:?}").into());
        }
    }
    Ok(cluster.down().await?)
}

async fn strict_closes() -> Played {
    let cluster = lane(0).await?;
    let mut evidence = cluster.evidence();
    let mut ambient = Client::open(cluster.as_ref(), "zt-mesh/ambient").await?;
    let mut web = Client::open(cluster.as_ref(), "zt-shop/web").await?;
    expect_peer(&web.send(tcp("peer.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;

    let policy = read(STRICT)?;
    realise(cluster.as_ref(), &policy).await?;
    match web.send(tcp("peer.zt-mesh"), PASSES).await? {
        Observed::Closed { .. } => {}
        other => return Err(format!("the client that speaks in plain saw: {other}").into()),
    }
    timeout(CEILING, async {
        loop {
            if let Witness::Spoke(said) = evidence.recv().await?
                && said.did == Did::RefusePlaintext
            {
                return Ok::<_, Box<dyn Error>>(());
            }
        }
    })
    .await??;
    expect_peer(&ambient.send(tcp("peer.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;

    cluster.delete(&policy.reference).await?;
    expect_peer(&web.send(tcp("peer.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;
    Ok(cluster.down().await?)
}

async fn waypoint_answers() -> Played {
    let cluster = lane(0).await?;
    let mut evidence = cluster.evidence();
    let mut ambient = Client::open(cluster.as_ref(), "zt-mesh/ambient").await?;
    let mut web = Client::open(cluster.as_ref(), "zt-shop/web").await?;

    expect_peer(&ambient.send(tcp("through.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;
    let [inbound, outbound] = lines(&mut evidence).await?;
    let name = "spiffe://cluster.local/ns/zt-mesh/sa/";
    let principals = [&inbound, &outbound].map(|it| it.principal.clone().unwrap_or_default());
    if principals != [format!("{name}waypoint"), format!("{name}ambient")] {
        return Err(format!("not through the waypoint: {inbound:?} {outbound:?}").into());
    }
    if inbound.source.ip() != outbound.destination.ip() {
        return Err(format!("through another pod: {inbound:?} {outbound:?}").into());
    }

    let policy = read(GET_ALONE)?;
    realise(cluster.as_ref(), &policy).await?;
    expect_peer(&ambient.send(http("GET", "through.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;
    match ambient.send(http("POST", "through.zt-mesh"), PASSES).await? {
        Observed::Http { status: 403, peer: None, body, .. } if body == "RBAC: access denied" => {}
        other => return Err(format!("instead of a denial: {other}").into()),
    }
    timeout(CEILING, async {
        loop {
            if let Witness::Spoke(said) = evidence.recv().await?
                && let Record::Waypoint(line) = &said.record
                && line.method.as_deref() == Some("POST")
            {
                let is_denial = matches!(said.did, Did::DenyByDefault { .. });
                let words = format!("no denial: {line:?}");
                return is_denial.then_some(()).ok_or_else(|| Box::<dyn Error>::from(words));
            }
        }
    })
    .await??;
    // Who is not in the mesh passes it by, and so does who asks for another service of the same pod.
    expect_peer(&web.send(http("POST", "through.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;
    expect_peer(&ambient.send(http("POST", "peer.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;

    cluster.delete(&policy.reference).await?;
    expect_peer(&ambient.send(http("POST", "through.zt-mesh"), PASSES).await?, "zt-mesh/peer")?;
    Ok(cluster.down().await?)
}

/// The next line of either side.
async fn lines(
    evidence: &mut broadcast::Receiver<Witness>,
) -> Result<[Arc<Line>; 2], Box<dyn Error>> {
    let (mut inbound, mut outbound) = (None, None);
    loop {
        let line = next_line(evidence).await?;
        match line.direction {
            Side::Inbound => inbound = Some(line),
            Side::Outbound => outbound = Some(line),
        }
        if let (Some(inbound), Some(outbound)) = (&inbound, &outbound) {
            return Ok([Arc::clone(inbound), Arc::clone(outbound)]);
        }
    }
}

/// The next line, which must be of this side.
async fn line(
    evidence: &mut broadcast::Receiver<Witness>,
    side: Side,
) -> Result<Arc<Line>, Box<dyn Error>> {
    let line = next_line(evidence).await?;
    if line.direction == side { Ok(line) } else { Err(format!("not {side:?}: {line:?}").into()) }
}

async fn next_line(
    evidence: &mut broadcast::Receiver<Witness>,
) -> Result<Arc<Line>, Box<dyn Error>> {
    timeout(CEILING, async {
        loop {
            if let Witness::Spoke(said) = evidence.recv().await?
                && let Record::Ztunnel(line) = &said.record
            {
                return Ok(Arc::clone(line));
            }
        }
    })
    .await?
}
