use std::time::{Duration, Instant};

use futures_util::{AsyncReadExt, StreamExt};
use serde_json::json;
use ztc_model::policy::PolicyKind;

use super::*;
use crate::standin::{BOUND, Server, soon};

const POLICIES: &str = "/apis/cilium.io/v2/namespaces/zt-pay/ciliumnetworkpolicies";

/// A manifest with what is easily lost: order, empty lists, numbers, a label of its own.
fn manifest() -> Value {
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {
            "name": "ledger",
            "namespace": "zt-pay",
            "labels": { "team": "payments" },
            "annotations": { "why": "" },
        },
        "spec": {
            "endpointSelector": {},
            "egress": [{ "toPorts": [{ "ports": [{ "port": "0443", "endPort": 65535 }] }] }, {}],
            "ingress": [],
            "enableDefaultDeny": { "egress": false },
            "nothing": null,
        },
    })
}

fn reference() -> ObjectRef {
    ObjectRef {
        api_version: "cilium.io/v2".to_owned(),
        kind: "CiliumNetworkPolicy".to_owned(),
        namespace: Some("zt-pay".to_owned()),
        name: "ledger".to_owned(),
    }
}

fn stored(uid: &str) -> Value {
    let mut object = manifest();
    object["metadata"]["uid"] = uid.into();
    object
}

/// What comes of applying the manifest when the server does this.
async fn applied<T>(play: impl AsyncFnOnce(&mut Server) -> T) -> (Result<String, ApiError>, T) {
    let mut server = Server::start().await;
    let (client, manifest) = (server.client(), manifest());
    let (result, seen) = tokio::join!(
        soon("the answer", apply(&client, &manifest, "a-run", "shop")),
        play(&mut server)
    );
    (result.map(|it| it.metadata.uid.unwrap_or_default()), seen)
}

async fn deleted(play: impl AsyncFnOnce(&mut Server)) -> Result<Option<String>, ApiError> {
    let mut server = Server::start().await;
    let (client, reference) = (server.client(), reference());
    let (result, ()) =
        tokio::join!(soon("the answer", delete(&client, &reference)), play(&mut server));
    assert_eq!(server.waiting(), 0, "it asked for more");
    result
}

#[tokio::test]
async fn what_is_applied_is_the_manifest_with_our_labels() {
    let (result, sent) = applied(async |server| {
        let asked = server.next().await;
        assert_eq!(asked.method(), http::Method::PATCH);
        assert_eq!(asked.path(), format!("{POLICIES}/ledger"));
        assert_eq!(asked.parameter("fieldManager"), Some("ztc"));
        assert_eq!(asked.parameter("force"), None);
        let kind = &asked.headers()[http::header::CONTENT_TYPE];
        assert_eq!(kind, "application/apply-patch+yaml");
        let sent = asked.json();
        asked.answer(&stored("one"));
        sent
    })
    .await;
    let mut expected = manifest();
    expected["metadata"]["labels"] = json!({
        "team": "payments",
        MANAGED_BY.0: MANAGED_BY.1,
        RUN: "a-run",
        WORLD: "shop",
    });
    assert_eq!(sent, expected);
    assert_eq!(result.unwrap(), "one");
}

#[tokio::test]
async fn a_manifest_without_labels_gets_ours_alone() {
    let mut server = Server::start().await;
    let (client, mut manifest) = (server.client(), manifest());
    manifest["metadata"]["labels"] = Value::Null;
    let (result, sent) = tokio::join!(apply(&client, &manifest, "a-run", "shop"), async {
        let asked = server.next().await;
        let sent = asked.json();
        asked.answer(&stored("one"));
        sent
    });
    result.unwrap();
    let labels = json!({ MANAGED_BY.0: MANAGED_BY.1, RUN: "a-run", WORLD: "shop" });
    assert_eq!(sent["metadata"]["labels"], labels);
}

#[tokio::test]
async fn every_request_says_who_asks() {
    let (_, agent) = applied(async |server| {
        let asked = server.next().await;
        let agent = asked.headers()[http::header::USER_AGENT].clone();
        asked.answer(&stored("one"));
        agent
    })
    .await;
    assert_eq!(agent, concat!("ztc/", env!("CARGO_PKG_VERSION"), " (a-run)"));
}

#[tokio::test]
async fn requests_for_a_case_name_it_until_it_is_over() {
    let mut server = Server::start().await;
    let (client, on_behalf) = OnBehalf::of_nobody(server.client(), "a-run");
    let case = ztc_model::suite::CaseId::new("l1-cluster", "dns-is-denied");
    for (case, said) in
        [(None, "(a-run)"), (Some(&case), "(a-run; l1-cluster::dns-is-denied)"), (None, "(a-run)")]
    {
        on_behalf.set(case);
        let manifest = manifest();
        let (result, agent) = tokio::join!(apply(&client, &manifest, "a-run", "shop"), async {
            let asked = server.next().await;
            let agent = asked.headers()[http::header::USER_AGENT].to_str().unwrap().to_owned();
            asked.answer(&stored("one"));
            agent
        });
        result.unwrap();
        assert_eq!(agent, format!("ztc/{} {said}", env!("CARGO_PKG_VERSION")));
    }
}

#[tokio::test]
async fn an_error_of_the_server_is_the_same_to_a_client_for_cases() {
    let mut server = Server::start().await;
    let (client, _) = OnBehalf::of_nobody(server.client(), "a-run");
    let manifest = manifest();
    let (result, ()) = tokio::join!(apply(&client, &manifest, "a-run", "shop"), async {
        server.next().await.refuse(409, "Conflict", "somebody else's");
    });
    assert!(matches!(result, Err(ApiError::Conflict { .. })), "{result:?}");
}

#[tokio::test]
async fn an_answer_that_stops_in_its_middle_is_given_up() {
    let mut server = Server::start().await;
    let client = server.client_within(Duration::from_millis(300));
    let object = super::reference(&manifest()).unwrap();
    let (result, _stalled) = tokio::join!(soon("the end", exists(&client, &object)), async {
        let answer = server.next().await.watch();
        answer.tell("half of", &json!({}));
        answer
    });
    let error = ztc_engine::chain(&result.unwrap_err());
    assert!(error.contains("stopped in its middle for 300 ms"), "{error}");
}

#[tokio::test]
async fn a_watch_may_pause_for_longer_than_an_answer() {
    let mut server = Server::start().await;
    let ceiling = Duration::from_millis(100);
    let pods: Api<Pod> = Api::namespaced(server.client_within(ceiling), "zt-pay");
    let parameters = kube::api::WatchParams::default();
    let (events, answer) =
        tokio::join!(pods.watch(&parameters, "10"), async { server.next().await.watch() });
    let mut events = std::pin::pin!(events.unwrap());
    let early = tokio::time::timeout(3 * ceiling, events.next()).await;
    assert!(early.is_err(), "{early:?}");
    answer.tell("ADDED", &json!({ "metadata": { "name": "ledger", "resourceVersion": "11" } }));
    assert!(soon("the event", events.next()).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_log_that_is_followed_may_pause_for_longer_than_an_answer() {
    let mut server = Server::start().await;
    let ceiling = Duration::from_millis(100);
    let pods: Api<Pod> = Api::namespaced(server.client_within(ceiling), "istio-system");
    let parameters = kube::api::LogParams { follow: true, ..Default::default() };
    let (log, answer) = tokio::join!(pods.log_stream("ztunnel-1", &parameters), async {
        server.next().await.watch()
    });
    let mut log = std::pin::pin!(log.unwrap());
    let mut line = [0; 5];
    let early = tokio::time::timeout(3 * ceiling, log.read_exact(&mut line)).await;
    assert!(early.is_err(), "{early:?}");
    answer.write("said\n".to_owned());
    soon("the line", log.read_exact(&mut line)).await.unwrap();
}

#[tokio::test]
async fn what_other_lanes_applied_is_not_among_what_is_swept() {
    let mut server = Server::start().await;
    let client = server.client();
    for (meant, selector) in [
        (Ours::World("shop-lane1"), "ztc.dev%2Fworld%3Dshop-lane1"),
        (Ours::OtherRuns("a-run"), "ztc.dev%2Frun%21%3Da-run"),
        (Ours::AppliedIn("fort"), "ztc.dev%2Fworld%3Dfort%2Cztc.dev%2Frun"),
        (Ours::AppliedByOthers("a-run"), "ztc.dev%2Frun%2Cztc.dev%2Frun%21%3Da-run"),
        (
            Ours::OtherWorlds(&BTreeSet::from(["bank".to_owned(), "two-teams".to_owned()])),
            "ztc.dev%2Fworld%2Cztc.dev%2Fworld+notin+%28bank%2Ctwo-teams%29",
        ),
    ] {
        let kind = PolicyKind::CiliumNetworkPolicy;
        let (found, ()) =
            tokio::join!(ours(&client, kind.api_version(), kind.name(), meant), async {
                let asked = server.next().await;
                let asked_for = asked.parameter("labelSelector").unwrap();
                assert!(asked_for.ends_with(selector), "{asked_for}");
                asked.answer(&json!({ "metadata": {}, "items": [] }));
            });
        assert_eq!(found.unwrap(), []);
    }
}

#[tokio::test]
async fn a_conflict_names_the_other_manager_and_a_way_out() {
    let (result, ()) = applied(async |server| {
        server.next().await.refuse(
            409,
            "Conflict",
            r#"Apply failed with 1 conflict: conflict with "kubectl" using cilium.io/v2: .spec.egress"#,
        );
    })
    .await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("CiliumNetworkPolicy/zt-pay/ledger"), "{error}");
    assert!(error.contains(r#"conflict with "kubectl""#), "{error}");
    assert!(error.contains("remove it, or give the manifest another name"), "{error}");
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_says() {
    let begun = Instant::now();
    let (result, ()) = applied(async |server| {
        server.next().await.refuse_for(1, 429, "TooManyRequests");
        server.next().await.refuse(503, "ServiceUnavailable", "not yet");
        let asked = server.next().await;
        assert_eq!(asked.json()["spec"], manifest()["spec"]);
        asked.answer(&stored("one"));
    })
    .await;
    assert_eq!(result.unwrap(), "one");
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_an_error() {
    let (result, ()) = applied(async |server| drop(server.next().await)).await;
    let error = result.unwrap_err();
    assert!(matches!(error, ApiError::Apply { .. }), "{error:?}");
    assert!(error.to_string().contains("CiliumNetworkPolicy/zt-pay/ledger"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let mut server = Server::start().await;
    let client = server.client_within(Duration::from_millis(500));
    let manifest = manifest();
    let (result, _asked) = tokio::join!(apply(&client, &manifest, "a-run", "shop"), server.next());
    let error = ztc_engine::chain(&result.unwrap_err());
    assert!(error.ends_with("the API server gave no answer within 500 ms"), "{error}");
}

#[tokio::test]
async fn a_server_that_puts_us_off_for_long_is_given_up() {
    let mut server = Server::start().await;
    let client = server.client_within(Duration::from_millis(500));
    let manifest = manifest();
    let (result, ()) = tokio::join!(apply(&client, &manifest, "a-run", "shop"), async {
        server.next().await.refuse_for(3600, 429, "TooManyRequests");
    });
    let error = ztc_engine::chain(&result.unwrap_err());
    assert!(error.contains("no answer within 500 ms"), "{error}");
}

#[tokio::test]
async fn what_may_be_done_twice_is_done_again_when_nobody_answered() {
    let mut server = Server::start().await;
    let (client, reference) = (server.client(), reference());
    let (uid, ()) = tokio::join!(answered(BOUND, || delete(&client, &reference)), async {
        drop(server.next().await);
        server.next().await.refuse(403, "Forbidden", "no roles have been read yet");
        server.next().await.answer(&stored("one"));
        server.next().await.answer(&stored("one"));
    });
    assert_eq!(uid.unwrap().unwrap().as_deref(), Some("one"));
}

#[tokio::test]
async fn what_was_refused_is_not_done_again() {
    let mut server = Server::start().await;
    let (client, reference) = (server.client(), reference());
    let (uid, ()) = tokio::join!(answered(BOUND, || delete(&client, &reference)), async {
        server.next().await.refuse(403, "Forbidden", "no");
    });
    assert!(matches!(uid, Ok(Err(ApiError::Delete { .. }))), "{uid:?}");
    assert_eq!(server.waiting(), 0, "it asked for more");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words() {
    let (result, ()) = applied(async |server| {
        let message = r#"admission webhook "policies" denied the request: no"#;
        server.next().await.refuse(403, "Forbidden", message);
    })
    .await;
    let error = ztc_engine::chain(&result.unwrap_err());
    assert!(error.contains("denied the request: no"), "{error}");
}

#[tokio::test]
async fn the_object_that_was_found_is_deleted_and_no_other() {
    let uid = deleted(async |server| {
        let asked = server.next().await;
        assert_eq!(asked.method(), http::Method::GET);
        asked.answer(&stored("one"));
        let asked = server.next().await;
        assert_eq!(asked.method(), http::Method::DELETE);
        assert_eq!(asked.path(), format!("{POLICIES}/ledger"));
        assert_eq!(asked.json()["preconditions"], json!({ "uid": "one" }));
        asked.answer(&stored("one"));
    });
    assert_eq!(uid.await.unwrap().as_deref(), Some("one"));
}

#[tokio::test]
async fn what_is_absent_is_not_deleted() {
    let uid = deleted(async |server| {
        server.next().await.refuse(404, "NotFound", "not found");
    });
    assert_eq!(uid.await.unwrap(), None);
}

#[tokio::test]
async fn what_went_by_itself_is_as_good_as_deleted() {
    let uid = deleted(async |server| {
        server.next().await.answer(&stored("one"));
        server.next().await.refuse(404, "NotFound", "not found");
    });
    assert_eq!(uid.await.unwrap().as_deref(), Some("one"));
}

#[tokio::test]
async fn another_object_of_the_same_name_is_left_alone_and_said() {
    let result = deleted(async |server| {
        server.next().await.answer(&stored("one"));
        let message = "the UID in the precondition (one) does not match the UID in record (two)";
        server.next().await.refuse(409, "Conflict", message);
    });
    let error = ztc_engine::chain(&result.await.unwrap_err());
    assert!(error.contains("cannot delete CiliumNetworkPolicy/zt-pay/ledger"), "{error}");
    assert!(error.contains("does not match"), "{error}");
}

/// What Cilium's status (`docs/facts.md`, surprise 1) says of a policy.
async fn said(status: Value) -> Option<Result<(), String>> {
    let mut server = Server::start().await;
    let (client, reference) = (server.client(), reference());
    let (result, ()) = tokio::join!(soon("the answer", validity(&client, &reference)), async {
        let mut object = stored("one");
        object["status"] = status;
        server.next().await.answer(&object);
    });
    result.unwrap()
}

#[tokio::test]
async fn a_policy_is_valid_or_not_once_its_condition_says_so() {
    let condition = |status: &str| {
        let message =
            "Invalid CiliumNetworkPolicy spec: rule must have at least one of Ingress, ...";
        json!({ "conditions": [{ "type": "Valid", "status": status, "message": message }] })
    };
    assert_eq!(said(Value::Null).await, None, "nobody has looked yet");
    assert_eq!(said(condition("Unknown")).await, None);
    assert_eq!(said(condition("True")).await, Some(Ok(())));
    let refused = said(condition("False")).await;
    assert!(matches!(&refused, Some(Err(why)) if why.contains("at least one of")), "{refused:?}");
}
