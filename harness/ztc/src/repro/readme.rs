//! `README.md`: what is claimed, of which versions, what was seen, and what a person has to provide.

use std::collections::BTreeMap;

use ztc_model::suite::Cell;
use ztc_model::world::{OutsideHost, Speaks};

use super::scene::Scene;
use super::stimulus::variable;
use super::{Question, Seen};

/// The text of the file.
pub(super) fn readme(question: &Question<'_>, cell: &Cell, scene: &Scene<'_>) -> String {
    let Question { case, number, image, versions, seen, .. } = question;
    let mut text = vec![format!(
        "# {}, cell {number}\n\n`{}` sends `{}`.\n\nExpected: **{}**.\n\nWhy: {}\n",
        case.id, cell.from, cell.send, cell.expected, case.because
    )];
    if let Some(after) = &cell.after {
        text.push(format!("\nUnder the policies `{}` sends `{after}` first.\n", cell.from));
    }
    if let Some(gap) = &case.gap {
        text.push(format!("\nThis is a documented hole: {gap}\n"));
    }
    text.push(format!("\n## Versions\n\n{}", told(versions)));
    text.push("\n`repro.sh` prints those that it meets.\n".to_owned());
    if let Some(seen) = seen {
        text.push(format!("\n{}", was_seen(seen)));
    }
    text.push(format!(
        "\n## To see it\n\n\
         ```sh\n{}./repro.sh\n```\n\n\
         It needs `kubectl` and a cluster to throw away, with two nodes, Cilium with Hubble{}, and no policies of its own. \
         The pods run `{image}`, which has sh, socat, curl, nc, dig and ping; any other image with these will do.\n\n\
         It makes `world.yaml`, sees the stimulus get through, applies `policies.yaml`, and looks. It ends with 0 when what \
         is expected is what happens, and with 1, and the reason in its last lines, when not. It deletes what it made; \
         with `KEEP=1` it does not. What exists already under a name that it needs is not touched: it ends.\n",
        exports(scene),
        if scene.is_meshed() { ", Istio in ambient mode" } else { "" },
    ));
    let by_hand: Vec<String> = scene.hosts.iter().map(|it| host(it)).collect();
    if !by_hand.is_empty() {
        text.push(format!("\n## By hand, before\n\n{}", by_hand.concat()));
    }
    text.concat()
}

fn told(versions: &BTreeMap<String, String>) -> String {
    if versions.is_empty() {
        return "Nobody said which.\n".to_owned();
    }
    let line = |(part, version): (&String, &String)| format!("- {part} {version}\n");
    versions.iter().map(line).collect::<Vec<_>>().concat()
}

fn was_seen(seen: &Seen<'_>) -> String {
    let Seen { run, fabric, cell } = seen;
    let rehearsal = if *fabric == "lab" {
        "\nThat run was a rehearsal in user space, without Cilium or Istio: it is no finding about them.\n"
    } else {
        ""
    };
    let mut text = vec![format!(
        "## What was seen\n\nRun {run}, on {fabric}: {}.\n\n- under the policies: {}, {} times sent\n",
        cell.verdict, cell.seen, cell.samples
    )];
    for (what, words) in
        [("control", &cell.control), ("without the denying policy alone", &cell.proof)]
    {
        if let Some(words) = words {
            text.push(format!("- {what}: {words}\n"));
        }
    }
    for record in &cell.evidence {
        text.push(format!("- {} on {}: {}\n", record.point, record.node, record.did));
    }
    text.push(rehearsal.to_owned());
    text.concat()
}

/// What the script has to be told.
fn exports(scene: &Scene<'_>) -> String {
    let given = scene.hosts.iter().filter(|host| host.address.is_none());
    let line =
        |host: &&OutsideHost| format!("export {}=203.0.113.10  # yours\n", variable(&host.name));
    given.map(line).collect::<Vec<_>>().concat()
}

/// What somebody has to put up outside the cluster.
fn host(host: &OutsideHost) -> String {
    let serves: Vec<String> = host
        .serves
        .iter()
        .map(|it| match it.speaks {
            Speaks::Tcp => format!("a line for a line on TCP port {0} (`socat TCP-LISTEN:{0},fork,reuseaddr EXEC:cat`)", it.port),
            Speaks::Udp => format!("a datagram for a datagram on UDP port {0} (`socat UDP-RECVFROM:{0},fork EXEC:cat`)", it.port),
            Speaks::Http => format!("200 to any HTTP request on port {}", it.port),
            Speaks::Dns => format!("DNS on port {}", it.port),
            Speaks::Https | Speaks::Tls => format!("TLS on port {}, of which nothing is asked here", it.port),
        })
        .collect();
    let place = match host.address {
        Some(address) => format!(
            "The address {address} has to be routed from the nodes to a host outside the cluster"
        ),
        None => format!(
            "`{}` is the address of a host outside the cluster, which is no node",
            variable(&host.name)
        ),
    };
    let names: Vec<&String> = host.dns.iter().chain(&host.aliases).collect();
    let names = if names.is_empty() {
        String::new()
    } else {
        let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        format!(
            " Where the stimulus or a policy names it, cluster DNS has to resolve {} to it (a `hosts` block of CoreDNS does).",
            list.join(", ")
        )
    };
    format!("- {place}. Of these it has to answer what is sent: {}.{names}\n", serves.join("; "))
}
