//! Gateways that are waypoints: what is read of them and what is refused.

use ztc_model::policy::Policy;
use ztc_model::world::WaypointFor;

use super::support;

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: doorman, namespace: bank, labels: { istio.io/waypoint-for: all } }
spec:
  gatewayClassName: istio-waypoint
  listeners: [{ name: mesh, port: 15008, protocol: HBONE }]
";

/// The text that `from` is replaced in.
fn with(from: &str, to: &str) -> String {
    assert!(GATEWAY.contains(from), "{from}");
    GATEWAY.replace(from, to)
}

#[test]
fn a_gateway_of_the_class_is_a_waypoint_for_what_its_label_says() {
    for (text, serves) in [
        (GATEWAY.to_owned(), WaypointFor::All),
        (with("waypoint-for: all", "waypoint-for: none"), WaypointFor::None),
        (with(", labels: { istio.io/waypoint-for: all }", ""), WaypointFor::Service),
    ] {
        let read = support::policies(&text);
        let [Policy::Gateway { reference, waypoint }] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(reference.to_string(), "Gateway/bank/doorman");
        assert_eq!(
            (waypoint.reference().to_string(), waypoint.serves),
            ("bank/doorman".to_owned(), serves)
        );
    }
}

#[test]
fn what_is_no_waypoint_is_refused() {
    for (from, to, message) in [
        ("istio-waypoint", "istio", "a gateway of the class `istio` is no waypoint"),
        ("15008", "8080", "a waypoint listens on port 15008"),
        ("HBONE", "HTTP", "a waypoint speaks HBONE"),
        ("waypoint-for: all", "waypoint-for: pods", "`pods` is nothing that a waypoint is for"),
        (
            "protocol: HBONE }]",
            "protocol: HBONE }, { name: two, port: 15008, protocol: HBONE }]",
            "a waypoint has one listener",
        ),
        ("  listeners", "  addresses: []\n  listeners", "unknown field `addresses`"),
    ] {
        assert_eq!(support::refusal(&with(from, to)), message, "{to}");
    }
}
