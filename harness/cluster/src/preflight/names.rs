//! Whether names are answered: by cluster DNS at all, and by the servers that nodes forward to.
//!
//! Cluster DNS forwards what it does not know to the servers of its node (`forward . /etc/resolv.conf`). In kind these
//! are Docker's own, which is reached by rules in the node's network namespace; a Docker that is started anew under
//! live nodes leaves rules behind that lead nowhere. An agent of Cilium lives in that namespace, and is asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;

use super::{Finding, NAMESPACE, blocking};

/// What the pods of cluster DNS are labelled with, whatever serves it.
pub(super) const CLUSTER_DNS: &str = "k8s-app=kube-dns";

/// A script that asks the first name server of where it runs for a name, three times for a second each. It writes the
/// server and the length of what was read of the answer, at most 1; any answer is one, as only silence is a fault.
pub(super) fn script(name: &str) -> String {
    let query = query(name);
    format!(
        r#"server=$(sed -n "s/^nameserver[[:space:]]*//p" /etc/resolv.conf | head -n 1); for try in 1 2 3; do answer=$(bash -c 'exec 3<>"/dev/udp/$0/53" && printf "{query}" >&3 && timeout 1 head -c 1 <&3 | wc -c' "$server"); [ "$answer" = 1 ] && break; done; echo "$server ${{answer:-unknown}}""#
    )
}

/// A query for the address of a name (RFC 1035, 4.1), as `printf` wants its bytes.
fn query(name: &str) -> String {
    // An id, recursion desired, one question; A and IN after the name.
    let mut bytes = vec![0x7a, 0x74, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\x{byte:02x}").expect("a text takes everything");
        text
    })
}

/// Whether a pod of cluster DNS is Ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|it| it.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

/// What is wrong with names: `servers` are the pods of cluster DNS that are Ready, `nodes` what the script wrote on
/// each node. What a node could not be asked is no finding.
pub(super) fn findings(servers: usize, nodes: &BTreeMap<String, String>) -> Vec<Finding> {
    let absent = (servers == 0).then(|| {
        blocking(
            format!("no pod of cluster DNS is Ready: none labelled {CLUSTER_DNS} in {NAMESPACE}"),
            "no name would resolve: controls by name would fail, and their cells be inconclusive",
            format!("look why: kubectl -n {NAMESPACE} describe pod -l {CLUSTER_DNS}"),
        )
    });
    let silent = nodes.iter().filter_map(|(node, said)| match said.split_whitespace().collect::<Vec<_>>()[..] {
        [server, "0"] => Some(Finding {
            blocks: false,
            found: format!("the name server of {node}, {server}, does not answer"),
            consequence: "cluster DNS there would leave names that it does not know itself without an answer, which looks \
                          like a denial by silence, and images could not be pulled",
            fix: format!(
                "a Docker that was started anew under live nodes does this: restart the node (docker restart {node}), or \
                 `ztc down` and up again"
            ),
        }),
        _ => None,
    });
    absent.into_iter().chain(silent).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn said(text: &str) -> BTreeMap<String, String> {
        [("worker".to_owned(), text.to_owned())].into()
    }

    #[test]
    fn a_name_server_that_is_silent_is_found_on_its_node() {
        let findings = findings(2, &said("172.30.0.1 0\n"));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].found, "the name server of worker, 172.30.0.1, does not answer");
        assert!(findings[0].fix.contains("docker restart worker") && !findings[0].blocks);
    }

    #[test]
    fn a_name_server_that_answers_or_cannot_be_asked_is_no_finding() {
        for text in ["172.30.0.1 1\n", "172.30.0.1 unknown\n", " unknown\n", ""] {
            assert_eq!(findings(1, &said(text)), [], "{text:?}");
        }
    }

    #[test]
    fn a_cluster_without_dns_is_not_fit_for_a_run() {
        let findings = findings(0, &BTreeMap::new());
        assert!(findings.len() == 1 && findings[0].blocks, "{findings:?}");
    }

    #[test]
    fn a_query_has_the_labels_of_its_name() {
        assert!(
            query("ab.c").ends_with(r"\x02\x61\x62\x01\x63\x00\x00\x01\x00\x01"),
            "{}",
            query("ab.c")
        );
    }

    #[test]
    fn a_pod_is_ready_by_its_condition_alone() {
        let pod = |status: &str| {
            let conditions = serde_json::json!([{ "type": "Ready", "status": status }]);
            let pod =
                serde_json::json!({ "status": { "phase": "Running", "conditions": conditions } });
            serde_json::from_value::<Pod>(pod).unwrap()
        };
        assert!(is_ready(&pod("True")) && !is_ready(&pod("False")) && !is_ready(&Pod::default()));
    }

    /// The script is one for `sh`, with `bash` for what only that has.
    #[test]
    fn the_script_is_sound_for_a_shell() {
        let checked = Command::new("sh").args(["-n", "-c", &script("node-1")]).status().unwrap();
        assert!(checked.success());
    }
}
