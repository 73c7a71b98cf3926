//! Connections that are none of HTTP.
//!
//! Envoy connects to the server as soon as a client is there, and asks policy when the client's first bytes come
//! (`source/extensions/filters/network/rbac`): a server that speaks first is heard until then.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use ztc_model::policy::mesh::waypoint::Decision;

use super::{Proxy, Visit, seconds};
use crate::host::hbone::{Admitted, Tunnelled, carry_once_admitted};
use crate::mesh::Outcome;

impl Proxy {
    /// Serves a connection. A denied one is closed.
    pub(super) async fn serve_bytes(self: Arc<Self>, visit: Visit, mut stream: Tunnelled) {
        let log = visit.log();
        let Ok(route) = self.plan.mesh.route_behind(visit.client, &visit.target) else {
            stream.shutdown().await.ok();
            return self.log(&visit, &log, Outcome { flags: Some("UH"), ..Outcome::default() });
        };
        let server = Some(route.to);
        let opened = match self.upstream_for(&visit.identity) {
            Ok(upstream) => upstream.open(&route).await,
            Err(error) => Err(error),
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                stream.shutdown().await.ok();
                self.log_failure(&log, &error, visit.begun.elapsed());
                let outcome = Outcome { server, flags: Some("UR"), ..Outcome::default() };
                return self.log(&visit, &log, outcome);
            }
        };
        let mut decision = Decision::Forwarded;
        let admit = || {
            decision =
                self.plan.mesh.judge_at_waypoint(&visit.target, visit.asked(None), seconds());
            decision == Decision::Forwarded
        };
        let (ended, admitted) = carry_once_admitted(stream, opened, admit).await;
        let closed = decision.details().filter(|_| admitted == Admitted::No);
        let (received, sent) = (ended.sent, ended.received);
        self.log(&visit, &log, Outcome { received, sent, closed, server, ..Outcome::default() });
    }
}
