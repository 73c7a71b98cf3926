//! Where a policy has something that can be taken away: by kind, as a table.

use serde_json::Value;

use crate::place::{Place, Step};
use crate::policy::PolicyKind;

/// What may go of a value, and what is looked into.
enum Shape {
    /// Nothing in it: it stays or goes whole.
    Whole,
    /// Each entry of a list, where at least `left` others stay.
    Entries { of: &'static Self, left: usize },
    /// Some fields of a mapping. Those that may go do where at least `left` others of them stay.
    Fields { of: &'static [Field], left: usize },
    /// Each field of a mapping, whatever it is called, likewise.
    EachField { of: &'static Self, left: usize },
}

struct Field {
    name: &'static str,
    shape: &'static Shape,
    goes: bool,
}

/// A field that may go.
const fn goes(name: &'static str, shape: &'static Shape) -> Field {
    Field { name, shape, goes: true }
}

/// A field that is only looked into.
const fn stays(name: &'static str, shape: &'static Shape) -> Field {
    Field { name, shape, goes: false }
}

/// Alternatives: without the last of them the list would say something else, or nothing.
const ALTERNATIVES: Shape = Shape::Entries { of: &Shape::Whole, left: 1 };

/// A range of addresses, of Cilium's or of Kubernetes': each of its exceptions, the last one too.
const RANGE: Shape = Shape::Fields {
    of: &[stays("except", &Shape::Entries { of: &Shape::Whole, left: 0 })],
    left: 0,
};

const RANGES: Shape = Shape::Entries { of: &RANGE, left: 1 };

const CILIUM_PORTS: Shape = Shape::Entries {
    of: &Shape::Fields {
        of: &[
            stays("ports", &ALTERNATIVES),
            goes("serverNames", &ALTERNATIVES),
            goes("rules", &Shape::Fields { of: &[stays("dns", &ALTERNATIVES)], left: 0 }),
        ],
        left: 0,
    },
    left: 1,
};

const CILIUM_MESSAGES: Shape = Shape::Entries {
    of: &Shape::Fields { of: &[stays("fields", &ALTERNATIVES)], left: 0 },
    left: 1,
};

/// A rule of Cilium's in one of the two directions. One that has lost its last field selects nobody.
const CILIUM_RULES: Shape = Shape::Entries {
    of: &Shape::Fields {
        of: &[
            goes("fromEndpoints", &ALTERNATIVES),
            goes("fromEntities", &ALTERNATIVES),
            goes("fromCIDR", &ALTERNATIVES),
            goes("fromCIDRSet", &RANGES),
            goes("toEndpoints", &ALTERNATIVES),
            goes("toEntities", &ALTERNATIVES),
            goes("toCIDR", &ALTERNATIVES),
            goes("toCIDRSet", &RANGES),
            goes("toFQDNs", &ALTERNATIVES),
            goes("toPorts", &CILIUM_PORTS),
            goes("icmps", &CILIUM_MESSAGES),
        ],
        left: 1,
    },
    left: 0,
};

const CILIUM_SPEC: Shape = Shape::Fields {
    of: &[
        stays("ingress", &CILIUM_RULES),
        stays("ingressDeny", &CILIUM_RULES),
        stays("egress", &CILIUM_RULES),
        stays("egressDeny", &CILIUM_RULES),
    ],
    left: 0,
};

const CILIUM: Shape = Shape::Fields {
    of: &[
        stays("spec", &CILIUM_SPEC),
        stays("specs", &Shape::Entries { of: &CILIUM_SPEC, left: 1 }),
    ],
    left: 0,
};

const KUBERNETES_PEERS: Shape = Shape::Entries {
    of: &Shape::Fields {
        of: &[
            goes("podSelector", &Shape::Whole),
            goes("namespaceSelector", &Shape::Whole),
            stays("ipBlock", &RANGE),
        ],
        left: 1,
    },
    left: 1,
};

const KUBERNETES_RULES: Shape = Shape::Entries {
    of: &Shape::Fields {
        of: &[
            goes("from", &KUBERNETES_PEERS),
            goes("to", &KUBERNETES_PEERS),
            goes("ports", &ALTERNATIVES),
        ],
        left: 1,
    },
    left: 0,
};

const KUBERNETES: Shape = Shape::Fields {
    of: &[stays(
        "spec",
        &Shape::Fields {
            of: &[stays("ingress", &KUBERNETES_RULES), stays("egress", &KUBERNETES_RULES)],
            left: 0,
        },
    )],
    left: 0,
};

/// A source or an operation: all of its lists have to match, by one of their entries.
const ATTRIBUTES: Shape = Shape::EachField { of: &ALTERNATIVES, left: 1 };

const AUTHORIZATION_RULES: Shape = Shape::Entries {
    of: &Shape::Fields {
        of: &[
            goes(
                "from",
                &Shape::Entries {
                    of: &Shape::Fields { of: &[stays("source", &ATTRIBUTES)], left: 0 },
                    left: 1,
                },
            ),
            goes(
                "to",
                &Shape::Entries {
                    of: &Shape::Fields { of: &[stays("operation", &ATTRIBUTES)], left: 0 },
                    left: 1,
                },
            ),
            goes(
                "when",
                &Shape::Entries {
                    of: &Shape::Fields {
                        of: &[goes("values", &ALTERNATIVES), goes("notValues", &ALTERNATIVES)],
                        left: 1,
                    },
                    left: 1,
                },
            ),
        ],
        left: 1,
    },
    left: 0,
};

const AUTHORIZATION: Shape = Shape::Fields {
    of: &[stays("spec", &Shape::Fields { of: &[stays("rules", &AUTHORIZATION_RULES)], left: 0 })],
    left: 0,
};

const PEERS: Shape = Shape::Fields {
    of: &[stays(
        "spec",
        &Shape::Fields {
            of: &[
                goes("mtls", &Shape::Whole),
                stays("portLevelMtls", &Shape::EachField { of: &Shape::Whole, left: 0 }),
            ],
            left: 0,
        },
    )],
    left: 0,
};

const REQUESTS: Shape = Shape::Fields {
    of: &[stays(
        "spec",
        &Shape::Fields {
            of: &[stays(
                "jwtRules",
                &Shape::Entries {
                    of: &Shape::Fields {
                        of: &[goes("audiences", &ALTERNATIVES), goes("fromHeaders", &ALTERNATIVES)],
                        left: 0,
                    },
                    left: 0,
                },
            )],
            left: 0,
        },
    )],
    left: 0,
};

/// Everything in an object of that kind that may go, in the order of the tables.
pub(super) fn places(kind: PolicyKind, object: &Value) -> Vec<Place> {
    let shape = match kind {
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => &CILIUM,
        PolicyKind::NetworkPolicy => &KUBERNETES,
        PolicyKind::AuthorizationPolicy => &AUTHORIZATION,
        PolicyKind::PeerAuthentication => &PEERS,
        PolicyKind::RequestAuthentication => &REQUESTS,
        // They have no rules that anybody here reads.
        PolicyKind::CiliumNodeConfig
        | PolicyKind::Gateway
        | PolicyKind::AdminNetworkPolicy
        | PolicyKind::BaselineAdminNetworkPolicy
        | PolicyKind::ClusterNetworkPolicy => &Shape::Whole,
    };
    let mut found = Vec::new();
    look_into(shape, object, &mut Vec::new(), &mut found);
    found
}

fn look_into(shape: &Shape, value: &Value, at: &mut Vec<Step>, found: &mut Vec<Place>) {
    match (shape, value) {
        (Shape::Entries { of, left }, Value::Array(entries)) => {
            for (index, entry) in entries.iter().enumerate() {
                let may_go = entries.len() > *left;
                step(Step::Entry(index), may_go, (of, entry), at, found);
            }
        }
        (Shape::Fields { of, left }, Value::Object(fields)) => {
            let there = of.iter().filter_map(|it| Some((it, fields.get(it.name)?)));
            let going = there.clone().filter(|(field, _)| field.goes).count();
            for (field, value) in there {
                let may_go = field.goes && going > *left;
                step(Step::Field(field.name.to_owned()), may_go, (field.shape, value), at, found);
            }
        }
        (Shape::EachField { of, left }, Value::Object(fields)) => {
            for (name, value) in fields {
                step(Step::Field(name.clone()), fields.len() > *left, (of, value), at, found);
            }
        }
        _ => {}
    }
}

fn step(
    step: Step,
    may_go: bool,
    (shape, value): (&Shape, &Value),
    at: &mut Vec<Step>,
    found: &mut Vec<Place>,
) {
    at.push(step);
    if may_go {
        found.push(at.iter().cloned().collect());
    }
    look_into(shape, value, at, found);
    at.pop();
}

/// The object without what is there; nothing where nothing is.
pub(super) fn without(object: &Value, place: &Place) -> Option<Value> {
    let (last, way) = place.steps().split_last()?;
    let mut object = object.clone();
    let mut at = &mut object;
    for step in way {
        at = match step {
            Step::Field(name) => at.get_mut(name)?,
            Step::Entry(index) => at.get_mut(index)?,
        };
    }
    match (last, at) {
        (Step::Field(name), Value::Object(fields)) => drop(fields.remove(name)?),
        (Step::Entry(index), Value::Array(entries)) if *index < entries.len() => {
            entries.remove(*index);
        }
        _ => return None,
    }
    Some(object)
}
