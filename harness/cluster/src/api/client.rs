//! Clients of an API server: who they say they are, and for how long they wait.

use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tower::util::MapRequestLayer;
use tower::{BoxError, Service, service_fn};
use ztc_model::suite::CaseId;

use super::ApiError;

/// How long an answer may take until it begins, and how long it may pause in its middle. A server that is busy says
/// when to come again, and kube does so up to 15 times with pauses of minutes; one that hangs says nothing at all.
const ANSWER: Duration = Duration::from_secs(20);

/// A server that hangs, or puts us off again and again.
#[derive(Debug, thiserror::Error)]
#[error("the API server gave no answer within {} ms", ceiling.as_millis())]
struct NoAnswer {
    ceiling: Duration,
}

/// An answer that does not go on.
#[derive(Debug, thiserror::Error)]
#[error("the API server's answer stopped in its middle for {} ms", ceiling.as_millis())]
struct Stalled {
    ceiling: Duration,
}

/// A client of one cluster.
pub(crate) async fn client(kubeconfig: &Path, run: &str) -> Result<Client, ApiError> {
    let failed = |source| ApiError::Kubeconfig { path: kubeconfig.to_owned(), source };
    let file = Kubeconfig::read_from(kubeconfig).map_err(failed)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(failed)?;
    identified(config, run)
        .map_err(|source| ApiError::Client { path: kubeconfig.to_owned(), source: source.into() })
}

/// A client that says who it is: whoever reads the audit log of the cluster sees which run it was. No answer is waited for
/// without a ceiling; a watch, a log that is followed or a session may go on for ever once it has begun.
pub(crate) fn identified(config: Config, run: &str) -> kube::Result<Client> {
    identified_within(ANSWER, config, run)
}

pub(crate) fn identified_within(
    ceiling: Duration,
    mut config: Config,
    run: &str,
) -> kube::Result<Client> {
    // A proxy of the environment is for the world outside, and kind's clusters are not there.
    let host = config.cluster_url.host().map(|it| it.trim_matches(['[', ']']).to_owned());
    let address = host.and_then(|it| it.parse::<IpAddr>().ok());
    if address.is_some_and(|it| it.is_loopback()) {
        config.proxy_url = None;
    }
    let agent = agent(run, None);
    let named = MapRequestLayer::new(move |mut request: Request<kube::client::Body>| {
        // One that was made for a case says so already.
        if let (Some(agent), false) = (&agent, request.headers().contains_key(USER_AGENT)) {
            request.headers_mut().insert(USER_AGENT, agent.clone());
        }
        request
    });
    let bounded = tower::layer::layer_fn(|service| Bounded { service, ceiling });
    Ok(ClientBuilder::try_from(config)?.with_layer(&named).with_layer(&bounded).build())
}

/// What a client says it is; nothing if that is no value of a header.
fn agent(run: &str, case: Option<&CaseId>) -> Option<HeaderValue> {
    let case = case.map_or_else(String::new, |case| format!("; {case}"));
    format!("ztc/{} ({run}{case})", env!("CARGO_PKG_VERSION")).parse().ok()
}

/// What a client says of the case that it asks for.
#[derive(Debug, Clone)]
pub(crate) struct OnBehalf {
    run: String,
    agent: Arc<Mutex<Option<HeaderValue>>>,
}

impl OnBehalf {
    /// A client that does everything through another one, and says for which case.
    pub(crate) fn of_nobody(client: Client, run: &str) -> (Client, Self) {
        let on_behalf = Self { run: run.to_owned(), agent: Arc::default() };
        let says = on_behalf.clone();
        let namespace = client.default_namespace().to_owned();
        let named = service_fn(move |mut request: Request<kube::client::Body>| {
            if let Some(agent) = says.lock().clone() {
                request.headers_mut().insert(USER_AGENT, agent);
            }
            let client = client.clone();
            async move { client.send(request).await }
        });
        (Client::new(named, namespace), on_behalf)
    }

    /// From now on it is for this case, or for none.
    pub(crate) fn set(&self, case: Option<&CaseId>) {
        *self.lock() = case.and_then(|case| agent(&self.run, Some(case)));
    }

    fn lock(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        // A value is whole whenever the lock is free.
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A service whose answers are not waited for without a ceiling.
struct Bounded<S> {
    service: S,
    ceiling: Duration,
}

impl<S, Q, B> Service<Request<Q>> for Bounded<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Flowing<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let ceiling = self.ceiling;
        // Events of a watch come when there are some, and so do lines of a log that is followed.
        let goes_on = request
            .uri()
            .query()
            .is_some_and(|it| it.split('&').any(|it| matches!(it, "watch=true" | "follow=true")));
        let answer = timeout(ceiling, self.service.call(request));
        let bounded = async move {
            let answer =
                answer.await.unwrap_or_else(|_elapsed| Err(NoAnswer { ceiling }.into()))?;
            let pause = (!goes_on)
                .then(|| Pause { ceiling, end: Box::pin(sleep_until(Instant::now() + ceiling)) });
            Ok(answer.map(|body| Flowing { body: Box::pin(body), pause }))
        };
        bounded.boxed()
    }
}

/// A body that has to go on.
struct Flowing<B> {
    body: Pin<Box<B>>,
    /// Absent where it may pause for ever.
    pause: Option<Pause>,
}

struct Pause {
    ceiling: Duration,
    end: Pin<Box<Sleep>>,
}

impl<B: Body> Body for Flowing<B>
where
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = this.body.as_mut().poll_frame(context) {
            if let Some(Pause { ceiling, end }) = &mut this.pause {
                end.as_mut().reset(Instant::now() + *ceiling);
            }
            return Poll::Ready(frame.map(|it| it.map_err(Into::into)));
        }
        match &mut this.pause {
            Some(Pause { ceiling, end }) => {
                end.as_mut().poll(context).map(|()| Some(Err(Stalled { ceiling: *ceiling }.into())))
            }
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
