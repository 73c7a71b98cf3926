//! What Cilium's agents have realised, out of what `cilium-dbg` prints.
//!
//! A change is enforced when every agent's policy repository holds it and every endpoint with an identity
//! has realised that revision of the repository. The `Valid` condition of a policy comes at once and says
//! nothing about enforcement (`docs/facts.md`); `cilium policy wait` also needs all endpoints Ready
//! at one moment, which does not happen while pods come and go (cilium-cli, `check/policy.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;
use ztc_engine::fabric::{Change, Settling};

/// The label by which a rule of an agent's repository names the object that it comes from.
const UID_LABEL: &str = "io.cilium.k8s.policy.uid";

/// Why the output of a command cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It is no JSON of the known shape.
    #[error("cannot read the output of `{command}`: {excerpt:?}")]
    Shape {
        /// The command.
        command: &'static str,
        /// Its beginning.
        excerpt: String,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// It does not end as it has to.
    #[error("the output of `{command}` has no revision at its end: {end:?}")]
    NoRevision {
        /// The command.
        command: &'static str,
        /// Its end.
        end: String,
    },
}

/// What an agent's policy repository holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// Its revision.
    pub(crate) revision: u64,
    /// The uids of the objects that its rules come from.
    pub(crate) uids: BTreeSet<String>,
}

/// An endpoint as its agent lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedEndpoint {
    /// Its number on its node.
    pub(crate) id: u64,
    /// Its numeric identity; absent while it has none.
    pub(crate) identity: Option<u32>,
    /// The policy revision that its datapath enforces.
    pub(crate) realised: u64,
    /// Whether verdicts are only logged.
    pub(crate) audit: bool,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// The labels of its identity, such as `k8s:app=web`.
    pub(crate) labels: BTreeSet<String>,
    /// Its state, such as `ready`.
    pub(crate) state: String,
}

/// One look at an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentState {
    /// Its repository, read before its endpoints.
    pub(crate) repository: Repository,
    /// Its endpoints.
    pub(crate) endpoints: Vec<ListedEndpoint>,
}

impl Repository {
    /// Reads the output of `cilium-dbg policy get`: the rules as JSON, then `Revision: N`.
    pub(crate) fn read(output: &str) -> Result<Self, OutputError> {
        const COMMAND: &str = "cilium-dbg policy get";
        let mut documents = serde_json::Deserializer::from_str(output).into_iter::<Vec<Rule>>();
        // An empty repository is printed as nothing or as an empty list, depending on the version.
        let rules = match documents.next() {
            Some(Ok(rules)) => rules,
            None => Vec::new(),
            Some(Err(_)) if output.trim_start().starts_with("Revision:") => Vec::new(),
            Some(Err(source)) => return Err(shape(COMMAND, output, source)),
        };
        let revision = output.rsplit_once("Revision:").and_then(|(_, it)| it.trim().parse().ok());
        let revision = revision.ok_or_else(|| OutputError::NoRevision {
            command: COMMAND,
            end: output.trim_end().lines().next_back().unwrap_or_default().to_owned(),
        })?;
        let labels = rules.into_iter().flat_map(|rule| rule.labels);
        let uids = labels.filter(|label| label.key == UID_LABEL).map(|label| label.value);
        Ok(Self { revision, uids: uids.collect() })
    }
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default, alias = "Labels")]
    labels: Vec<Label>,
}

#[derive(Deserialize)]
struct Label {
    key: String,
    #[serde(default)]
    value: String,
}

impl ListedEndpoint {
    /// Reads the output of `cilium-dbg endpoint list -o json` (`api/v1/models` of Cilium).
    pub(crate) fn read_all(output: &str) -> Result<Vec<Self>, OutputError> {
        const COMMAND: &str = "cilium-dbg endpoint list -o json";
        let listed: Vec<Model> =
            serde_json::from_str(output).map_err(|source| shape(COMMAND, output, source))?;
        Ok(listed.into_iter().map(Self::from).collect())
    }

    /// What its agent has not taken in yet of a pod's new labels. It waits some seconds before it gives an endpoint
    /// another identity (`identity-change-grace-period`), and keeps the old one until then.
    pub(crate) fn lags_behind(
        &self,
        has: &BTreeMap<String, String>,
        lacks: &BTreeSet<String>,
    ) -> Option<String> {
        let key = |label: &str| Some(label.strip_prefix("k8s:")?.split_once('=')?.0.to_owned());
        let missing =
            has.iter().find(|(key, value)| !self.labels.contains(&format!("k8s:{key}={value}")));
        if let Some((key, value)) = missing {
            return Some(format!("its identity does not have {key}={value} yet"));
        }
        let left = self.labels.iter().filter_map(|it| key(it)).find(|it| lacks.contains(it));
        if let Some(key) = left {
            return Some(format!("its identity still has {key}"));
        }
        (self.state != "ready").then(|| format!("its endpoint is {}", self.state))
    }

    /// Whether it is going away or not there yet: nothing is enforced for it any more.
    fn is_leaving(&self) -> bool {
        matches!(self.state.as_str(), "disconnecting" | "disconnected" | "invalid")
    }
}

impl From<Model> for ListedEndpoint {
    fn from(Model { id, spec, status }: Model) -> Self {
        let realised = status.policy.realized;
        let IdentityModel { id: number, labels } = status.identity.unwrap_or_default();
        let identity = Some(number).filter(|it| *it != 0);
        let audit = spec.options.policy_audit_mode.as_deref() == Some("Enabled")
            || realised.policy_enabled.starts_with("audit");
        let addresses = status.networking.addressing.into_iter();
        Self {
            id,
            identity,
            labels,
            realised: realised.policy_revision,
            audit,
            addresses: addresses
                .flat_map(|it| [it.ipv4, it.ipv6])
                .filter_map(|it| it?.parse().ok())
                .collect(),
            state: status.state,
        }
    }
}

#[derive(Deserialize)]
struct Model {
    id: u64,
    #[serde(default)]
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    options: Options,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    #[serde(rename = "PolicyAuditMode")]
    policy_audit_mode: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    identity: Option<IdentityModel>,
    #[serde(default)]
    policy: PolicyModel,
    #[serde(default)]
    networking: Networking,
    #[serde(default)]
    state: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IdentityModel {
    id: u32,
    labels: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PolicyModel {
    realized: Realized,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Realized {
    policy_revision: u64,
    policy_enabled: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Networking {
    addressing: Vec<Addressing>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Addressing {
    ipv4: Option<String>,
    ipv6: Option<String>,
}

/// The identity that an agent's datapath has for an address, out of `cilium-dbg bpf ipcache list -o json`:
/// a map from prefixes to texts such as `identity=4957 encryptkey=0 tunnelendpoint=0.0.0.0`.
pub(crate) fn cached_identity(output: &str, address: IpAddr) -> Result<Option<u32>, OutputError> {
    const COMMAND: &str = "cilium-dbg bpf ipcache list -o json";
    let cache: BTreeMap<String, Vec<String>> =
        serde_json::from_str(output).map_err(|source| shape(COMMAND, output, source))?;
    let length = if address.is_ipv4() { 32 } else { 128 };
    let words = cache.get(&format!("{address}/{length}")).into_iter().flatten();
    let mut words = words.flat_map(|text| text.split_whitespace());
    Ok(words.find_map(|word| word.strip_prefix("identity=")?.parse().ok()))
}

/// Says how many flows Hubble keeps.
pub(crate) const HUBBLE_STATUS: &str = "hubble status --output json";

/// How many flows Hubble keeps, by its own word. Its form of JSON writes numbers of 64 bits as texts, and leaves a zero out.
pub(crate) fn kept_flows(output: &str) -> Result<u64, OutputError> {
    #[derive(Deserialize)]
    struct Status {
        #[serde(default)]
        num_flows: String,
    }
    let status: Status =
        serde_json::from_str(output).map_err(|source| shape(HUBBLE_STATUS, output, source))?;
    Ok(status.num_flows.parse().unwrap_or(0))
}

fn shape(command: &'static str, output: &str, source: serde_json::Error) -> OutputError {
    OutputError::Shape { command, excerpt: output.chars().take(80).collect(), source }
}

/// Whether a change is enforced by an agent, on the node of that name.
pub(crate) fn settling(node: &str, state: &AgentState, change: &Change) -> Settling {
    let AgentState { repository, endpoints } = state;
    let wanted = match change {
        Change::Added { uid, .. } if !repository.uids.contains(uid) => {
            let status = format!("the agent on {node} does not have the policy yet");
            return Settling::NotYet { status };
        }
        Change::Removed { uid, .. } if repository.uids.contains(uid) => {
            let status = format!("the agent on {node} still has the policy");
            return Settling::NotYet { status };
        }
        Change::Revisions(revisions) => match revisions.get(node) {
            Some(revision) => *revision,
            None => return Settling::Realised,
        },
        // Of what is invalid there is no more to see than what the API server says. Labels are a question about one
        // endpoint and everybody's ipcache, which is put to them by whoever knows its address.
        Change::Nothing | Change::Invalid { .. } | Change::Labels { .. } => {
            return Settling::Realised;
        }
        // Endpoints are restored before they are regenerated with what the agent knows by then.
        Change::Added { .. } | Change::Removed { .. } | Change::Restarted { .. } => {
            repository.revision
        }
    };
    let endpoints = endpoints.iter().filter(|it| it.identity.is_some() && !it.is_leaving());
    let late: Vec<String> = endpoints
        .filter(|endpoint| endpoint.realised < wanted)
        .map(|endpoint| {
            let ListedEndpoint { id, realised, state, .. } = endpoint;
            format!("endpoint {id} on {node} ({state}) is at revision {realised} of {wanted}")
        })
        .collect();
    if late.is_empty() { Settling::Realised } else { Settling::NotYet { status: late.join(", ") } }
}

#[cfg(test)]
mod tests {
    use ztc_model::manifest::ObjectRef;

    use super::*;

    const POLICY_GET: &str = include_str!("../tests/facts/policy-get.txt");
    const ENDPOINT_LIST: &str = include_str!("../tests/facts/endpoint-list.json");
    const UID: &str = "5a834695-5485-4236-9234-9211336e8a02";

    fn recorded() -> AgentState {
        AgentState {
            repository: Repository::read(POLICY_GET).unwrap(),
            endpoints: ListedEndpoint::read_all(ENDPOINT_LIST).unwrap(),
        }
    }

    fn policy() -> ObjectRef {
        ObjectRef {
            api_version: "cilium.io/v2".to_owned(),
            kind: "CiliumNetworkPolicy".to_owned(),
            namespace: Some("tenant-b".to_owned()),
            name: "allow-client".to_owned(),
        }
    }

    fn added() -> Change {
        Change::Added { object: policy(), uid: UID.to_owned() }
    }

    #[test]
    fn a_recorded_repository_has_its_revision_and_its_objects() {
        let Repository { revision, uids } = recorded().repository;
        assert_eq!((revision, uids), (6, BTreeSet::from([UID.to_owned()])));
    }

    #[test]
    fn recorded_endpoints_have_identities_addresses_and_revisions() {
        let endpoints = recorded().endpoints;
        let one = endpoints.iter().find(|it| it.id == 1655).unwrap();
        assert_eq!((one.identity, one.realised, one.audit), (Some(39117), 6, false));
        assert_eq!(one.addresses, [IpAddr::from([10, 244, 1, 112])]);
        // The node's own endpoint has no address.
        assert!(endpoints.iter().any(|it| it.identity == Some(1) && it.addresses.is_empty()));
    }

    #[test]
    fn what_was_recorded_is_realised() {
        assert_eq!(settling("worker", &recorded(), &added()), Settling::Realised);
    }

    #[test]
    fn an_endpoint_behind_the_repository_is_waited_for() {
        let mut state = recorded();
        state.endpoints[1].realised = 5;
        let Settling::NotYet { status } = settling("worker", &state, &added()) else { panic!() };
        assert_eq!(status, "endpoint 526 on worker (ready) is at revision 5 of 6");
        state.endpoints[1].state = "disconnecting".to_owned();
        assert_eq!(settling("worker", &state, &added()), Settling::Realised);
    }

    #[test]
    fn an_agent_without_the_object_is_waited_for_whatever_its_revision() {
        let mut state = recorded();
        state.repository.uids.clear();
        state.repository.revision = 100;
        assert!(matches!(settling("worker", &state, &added()), Settling::NotYet { .. }));
    }

    #[test]
    fn an_agent_that_still_has_a_removed_object_is_waited_for() {
        let removed = Change::Removed { object: policy(), uid: UID.to_owned() };
        assert!(matches!(settling("worker", &recorded(), &removed), Settling::NotYet { .. }));
        let removed = Change::Removed { object: policy(), uid: "another".to_owned() };
        assert_eq!(settling("worker", &recorded(), &removed), Settling::Realised);
    }

    #[test]
    fn an_empty_repository_has_a_revision() {
        for output in ["[]\nRevision: 1\n", "Revision: 1\n", "\nRevision: 1\n"] {
            assert_eq!(Repository::read(output).unwrap().revision, 1, "{output:?}");
        }
    }

    #[test]
    fn an_output_that_was_cut_is_an_error() {
        for end in [20, POLICY_GET.len() - 13] {
            assert!(Repository::read(POLICY_GET.get(..end).unwrap()).is_err(), "{end}");
        }
        assert!(ListedEndpoint::read_all(ENDPOINT_LIST.get(..1000).unwrap()).is_err());
    }

    #[test]
    fn an_endpoint_lags_behind_labels_until_its_identity_has_them() {
        let endpoints = recorded().endpoints;
        let mut client = endpoints.into_iter().find(|it| it.identity == Some(4957)).unwrap();
        let has = |value: &str| BTreeMap::from([("app".to_owned(), value.to_owned())]);
        let lag = |client: &ListedEndpoint, value: &str, lacks: &[&str]| {
            client.lags_behind(&has(value), &lacks.iter().map(|it| (*it).to_owned()).collect())
        };
        assert_eq!(lag(&client, "client", &["role"]), None);
        assert_eq!(
            lag(&client, "server", &[]).as_deref(),
            Some("its identity does not have app=server yet")
        );
        assert_eq!(
            client.lags_behind(&BTreeMap::new(), &BTreeSet::from(["app".to_owned()])).as_deref(),
            Some("its identity still has app")
        );
        client.state = "waiting-to-regenerate".to_owned();
        assert_eq!(
            lag(&client, "client", &[]).as_deref(),
            Some("its endpoint is waiting-to-regenerate")
        );
    }

    #[test]
    fn an_endpoint_in_audit_mode_is_told() {
        let audit = ENDPOINT_LIST
            .replace(r#""PolicyAuditMode": "Disabled""#, r#""PolicyAuditMode": "Enabled""#);
        assert!(ListedEndpoint::read_all(&audit).unwrap().iter().any(|it| it.audit));
    }

    #[test]
    fn the_flows_that_hubble_keeps_are_a_text_or_nothing() {
        let full = r#"{"num_flows":"4095","max_flows":"4095","seen_flows":"67811","uptime_ns":"610624222059","version":"cilium","flows_rate":60.65}"#;
        assert_eq!(kept_flows(full).unwrap(), 4095);
        assert_eq!(kept_flows(r#"{"max_flows":"4095","version":"cilium"}"#).unwrap(), 0);
        let error = kept_flows("failed to connect").unwrap_err().to_string();
        assert!(error.contains("hubble status") && error.contains("failed to connect"), "{error}");
    }
}
