//! A stimulus as a function of the script: it tells what the client saw, and ends well when the stimulus got through.

use std::net::IpAddr;

use ztc_model::stimulus::{Peer, Send, Target};
use ztc_model::suite::peers;
use ztc_model::world::Token;
use ztc_wire::Family;

use super::scene::Scene;

/// The variable of the script that holds the address of an outside host.
pub(super) fn variable(host: &str) -> String {
    let word = |it: char| if it.is_ascii_alphanumeric() { it.to_ascii_uppercase() } else { '_' };
    format!("OUTSIDE_{}", host.chars().map(word).collect::<String>())
}

/// A text as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./:@%+=,".contains(it);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The shell function of that name that sends it once.
pub(super) fn function(name: &str, send: &Send, scene: &Scene<'_>) -> String {
    let body = match send {
        // What goes on, is over TLS or in a tunnel is refused before.
        Send::Hbone(_) => Vec::new(),
        Send::Tcp(to) | Send::TcpFlow(to) | Send::Tls(to) => exchange(send, to, "nc -w 3", scene),
        Send::Udp(to) | Send::UdpFlow(to) => exchange(send, to, "nc -u -w 3", scene),
        Send::Ping(to) => ping(&to.peer, to.family, scene),
        Send::Http { method, to, path, token, .. } => {
            let token = scene.world.tokens.iter().find(|it| Some(&it.name) == token.as_ref());
            http(method, to, path, token)
        }
        Send::Dns { name, ipv6, tcp, server } => {
            dns(name, if *ipv6 { "AAAA" } else { "A" }, *tcp, server.as_ref(), scene)
        }
        Send::Readiness(pod) => readiness(&pod.namespace, &pod.name),
    };
    let body: Vec<String> = body.into_iter().map(|line| format!("  {line}\n")).collect();
    format!("# {send}\n{name}() {{\n{}}}\n", body.concat())
}

/// What a shell writes for the address of a peer.
fn address(peer: &Peer, family: Option<Family>, scene: &Scene<'_>) -> String {
    let mark = match family {
        None => "''",
        Some(Family::Ipv4) => "'[.]'",
        Some(Family::Ipv6) => ":",
    };
    match peer {
        Peer::Pod(pod) => format!("$(address {} {} {mark})", pod.namespace, pod.name),
        Peer::Outside(name) => match scene.world.outside(name).and_then(|host| host.address) {
            Some(address) => address.to_string(),
            None => format!("${}", variable(name)),
        },
        Peer::Name(name) => name.clone(),
        Peer::Address(address) => address.to_string(),
    }
}

fn exchange(send: &Send, to: &Target, nc: &str, scene: &Scene<'_>) -> Vec<String> {
    let port = to.port;
    // Servers in pods say who they are; others need only answer.
    let peers = peers(scene.world, send);
    let in_scene =
        |name: &&String| scene.pods.iter().any(|pod| pod.reference().to_string() == **name);
    let right = match peers.iter().next() {
        Some(peer) if peers.len() == 1 && in_scene(&peer) => format!("[[ $answer == *{peer}* ]]"),
        _ => "[[ -n $answer ]]".to_owned(),
    };
    vec![
        "local to answer".to_owned(),
        format!("to={}", address(&to.peer, to.family, scene)),
        // shellcheck sees `$0` and `$1` of the inner shell for what they are.
        format!("answer=$(client sh -c 'echo hello | {nc} \"$0\" \"$1\"' \"$to\" {port}) || true"),
        format!("printf '{nc} %s {port}: %s\\n' \"$to\" \"${{answer:-no answer}}\""),
        right,
    ]
}

fn ping(peer: &Peer, family: Option<Family>, scene: &Scene<'_>) -> Vec<String> {
    vec![
        "local to".to_owned(),
        format!("to={}", address(peer, family, scene)),
        "if client ping -c 1 -W 2 \"$to\" >/dev/null; then".to_owned(),
        "  printf 'ping %s: a reply\\n' \"$to\"".to_owned(),
        "else".to_owned(),
        "  printf 'ping %s: no reply\\n' \"$to\"".to_owned(),
        "  return 1".to_owned(),
        "fi".to_owned(),
    ]
}

fn http(method: &str, to: &Target, path: &str, token: Option<&Token>) -> Vec<String> {
    let how = if method == "HEAD" { "-I".to_owned() } else { format!("-X {method}") };
    let header = token.map(|it| format!("authorization: Bearer {}", it.text));
    let header = header.map(|it| format!(" -H {}", quoted(&it))).unwrap_or_default();
    let family = match to.family {
        None => "",
        Some(Family::Ipv4) => " -4",
        Some(Family::Ipv6) => " -6",
    };
    let host = match &to.peer {
        Peer::Address(IpAddr::V6(address)) => format!("[{address}]"),
        peer => peer.to_string(),
    };
    let url = quoted(&format!("http://{host}:{}{path}", to.port));
    vec![
        // The status is kept for whoever looks at it after a denial.
        format!(
            "status=$(client curl -s -g --path-as-is{family} -o /dev/null -m 5 -w '%{{http_code}}' {how}{header} {url}) || true"
        ),
        format!("printf 'curl {how} %s: HTTP %s\\n' {url} \"${{status:-none}}\""),
        "[[ $status == 2?? ]]".to_owned(),
    ]
}

fn dns(
    name: &str,
    record: &str,
    tcp: bool,
    server: Option<&Peer>,
    scene: &Scene<'_>,
) -> Vec<String> {
    let transport = if tcp { " +tcp" } else { " +notcp" };
    let mut lines = vec!["local answer".to_owned()];
    let asked = match server {
        None => String::new(),
        Some(server) => {
            lines =
                vec!["local to answer".to_owned(), format!("to={}", address(server, None, scene))];
            " \"@$to\"".to_owned()
        }
    };
    lines.extend([
        format!(
            "answer=$(client dig +time=2 +tries=1 +nosearch{transport} {name}. {record}{asked}) || true"
        ),
        "status=$(sed -n 's/.*status: \\([A-Z]*\\),.*/\\1/p' <<<\"$answer\")".to_owned(),
        format!("printf 'dig {name}. {record}: %s\\n' \"${{status:-no answer}}\""),
        "[[ $status == NOERROR && $answer != *'ANSWER: 0'* ]]".to_owned(),
    ]);
    lines
}

fn readiness(namespace: &str, pod: &str) -> Vec<String> {
    let path = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
    vec![
        format!("status=$(kubectl -n {namespace} get pod {pod} -o jsonpath='{path}') || true"),
        format!("printf 'pod {namespace}/{pod} Ready: %s\\n' \"${{status:-unknown}}\""),
        "[[ $status == True ]]".to_owned(),
    ]
}
