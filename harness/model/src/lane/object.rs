//! The fields of a manifest that hold the name of a namespace, renamed.
//!
//! Every field is known to hold one, or to hold none; one that is not known refuses the whole object, so that a
//! field that is read one day is not forgotten here.

use serde_json::{Map, Value};

use super::{Renaming, Unsound};
use crate::labels::{NAMESPACE, NAMESPACE_LABELS};
use crate::manifest::Manifest;
use crate::policy::PolicyKind;

/// The label that the API server gives to every namespace: its name.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// Whose labels a selector is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// Identities: pods, with their namespace and its labels.
    Identities,
    /// Namespaces.
    Namespaces,
}

/// The object of a manifest with the names of the lane.
pub(super) fn renamed(renaming: &Renaming, manifest: &Manifest) -> Result<Value, Unsound> {
    let mut object = manifest.object.clone();
    let walk = Walk { renaming, manifest };
    let is_of = |kind: PolicyKind| manifest.reference.kind == kind.name();
    walk.fields(&mut object, |key, value| match key {
        "metadata" => walk.fields(value, |key, value| match key {
            "namespace" => walk.namespace(value),
            "name" | "labels" | "annotations" => Ok(()),
            field => walk.refuse(field),
        }),
        "spec" if is_of(PolicyKind::NetworkPolicy) => walk.network(value),
        "spec" if is_of(PolicyKind::PeerAuthentication) => walk.peers(value),
        "spec" if is_of(PolicyKind::RequestAuthentication) => walk.requests(value),
        // Its class is of the whole cluster, and its listener has a port alone.
        "spec" if is_of(PolicyKind::Gateway) => Ok(()),
        "spec" if is_of(PolicyKind::AuthorizationPolicy) => walk.authorization(value),
        "spec" => walk.cilium(value),
        "specs" => walk.each(value, |section| walk.cilium(section)),
        "apiVersion" | "kind" => Ok(()),
        field => walk.refuse(field),
    })?;
    Ok(object)
}

struct Walk<'a> {
    renaming: &'a Renaming,
    manifest: &'a Manifest,
}

type Walked = Result<(), Unsound>;

impl Walk<'_> {
    fn refuse(&self, field: &str) -> Walked {
        let policy = self.manifest.reference.clone();
        Err(Unsound::Field { policy, field: field.to_owned() })
    }

    fn fields(
        &self,
        value: &mut Value,
        mut field: impl FnMut(&str, &mut Value) -> Walked,
    ) -> Walked {
        match value {
            Value::Object(fields) => fields.iter_mut().try_for_each(|(key, it)| field(key, it)),
            Value::Null => Ok(()),
            other => self.refuse(&other.to_string()),
        }
    }

    fn each(&self, value: &mut Value, element: impl FnMut(&mut Value) -> Walked) -> Walked {
        match value {
            Value::Array(elements) => elements.iter_mut().try_for_each(element),
            Value::Null => Ok(()),
            other => self.refuse(&other.to_string()),
        }
    }

    fn namespace(&self, value: &mut Value) -> Walked {
        match value {
            Value::String(name) => *name = self.renaming.namespace(name),
            Value::Null => {}
            other => return self.refuse(&other.to_string()),
        }
        Ok(())
    }

    fn network(&self, section: &mut Value) -> Walked {
        self.fields(section, |key, value| match key {
            "podSelector" => self.selector(value, About::Identities),
            "ingress" | "egress" => self.each(value, |rule| {
                self.fields(rule, |key, value| match key {
                    "from" | "to" => self.each(value, |peer| self.network_peer(peer)),
                    "ports" => Ok(()),
                    field => self.refuse(field),
                })
            }),
            "policyTypes" => Ok(()),
            field => self.refuse(field),
        })
    }

    fn network_peer(&self, peer: &mut Value) -> Walked {
        self.fields(peer, |key, value| match key {
            "podSelector" => self.selector(value, About::Identities),
            "namespaceSelector" => self.selector(value, About::Namespaces),
            "ipBlock" => Ok(()),
            field => self.refuse(field),
        })
    }

    fn cilium(&self, section: &mut Value) -> Walked {
        self.fields(section, |key, value| match key {
            "endpointSelector" => self.selector(value, About::Identities),
            "ingress" | "ingressDeny" | "egress" | "egressDeny" => {
                self.each(value, |rule| self.cilium_rule(rule))
            }
            "enableDefaultDeny" | "description" => Ok(()),
            field => self.refuse(field),
        })
    }

    fn cilium_rule(&self, rule: &mut Value) -> Walked {
        self.fields(rule, |key, value| match key {
            "fromEndpoints" | "toEndpoints" => {
                self.each(value, |selector| self.selector(selector, About::Identities))
            }
            "toPorts" => self.each(value, |list| {
                self.fields(list, |key, value| match key {
                    "rules" => self.fields(value, |key, value| match key {
                        "dns" => self.each(value, |rule| self.name_rule(rule)),
                        field => self.refuse(field),
                    }),
                    // Names that clients ask for in a handshake may be those of services.
                    "serverNames" => self.each(value, |name| self.server_name(name)),
                    "ports" => Ok(()),
                    field => self.refuse(field),
                })
            }),
            "icmps" | "fromEntities" | "toEntities" | "fromCIDR" | "toCIDR" | "fromCIDRSet"
            | "toCIDRSet" => Ok(()),
            field => self.refuse(field),
        })
    }

    fn server_name(&self, name: &mut Value) -> Walked {
        let Value::String(text) = name else { return self.refuse("serverNames") };
        *text = self.renaming.pattern(text).ok_or_else(|| Unsound::Name {
            policy: self.manifest.reference.clone(),
            text: text.clone(),
        })?;
        Ok(())
    }

    fn name_rule(&self, rule: &mut Value) -> Walked {
        self.fields(rule, |key, value| {
            let Value::String(text) = value else { return self.refuse(key) };
            let renamed = match key {
                "matchName" | "matchPattern" => self.renaming.pattern(text),
                field => return self.refuse(field),
            };
            *text = renamed.ok_or_else(|| Unsound::Name {
                policy: self.manifest.reference.clone(),
                text: text.clone(),
            })?;
            Ok(())
        })
    }

    fn peers(&self, section: &mut Value) -> Walked {
        self.fields(section, |key, _| match key {
            "selector" | "mtls" | "portLevelMtls" => Ok(()),
            field => self.refuse(field),
        })
    }

    /// Issuers and keys are of the world outside, and what it is bound to is in its own namespace.
    fn requests(&self, section: &mut Value) -> Walked {
        self.fields(section, |key, _| match key {
            "selector" | "targetRefs" | "jwtRules" => Ok(()),
            field => self.refuse(field),
        })
    }

    fn authorization(&self, section: &mut Value) -> Walked {
        self.fields(section, |key, value| match key {
            // What it is bound to is in its own namespace.
            "selector" | "targetRefs" | "action" => Ok(()),
            "rules" => self.each(value, |rule| {
                self.fields(rule, |key, value| match key {
                    "from" => self.each(value, |from| {
                        self.fields(from, |key, value| match key {
                            "source" => self.source(value),
                            field => self.refuse(field),
                        })
                    }),
                    "to" => self.each(value, |to| {
                        self.fields(to, |key, value| match key {
                            "operation" => self.operation(value),
                            field => self.refuse(field),
                        })
                    }),
                    "when" => self.each(value, |it| self.condition(it)),
                    field => self.refuse(field),
                })
            }),
            field => self.refuse(field),
        })
    }

    fn source(&self, source: &mut Value) -> Walked {
        self.fields(source, |key, value| match key {
            "namespaces" | "notNamespaces" => {
                self.each(value, |it| self.exact(it, |name| Some(self.renaming.namespace(name))))
            }
            "principals" | "notPrincipals" => self.each(value, |it| {
                self.exact(it, |principal| {
                    let (domain, rest) = principal.split_once("/ns/")?;
                    let (namespace, account) = rest.split_once("/sa/")?;
                    Some(format!("{domain}/ns/{}/sa/{account}", self.renaming.namespace(namespace)))
                })
            }),
            "ipBlocks" | "notIpBlocks" | "requestPrincipals" | "notRequestPrincipals" => Ok(()),
            field => self.refuse(field),
        })
    }

    /// Of conditions those about tokens, which hold no namespace.
    fn condition(&self, condition: &mut Value) -> Walked {
        match condition["key"].as_str() {
            Some(key) if key.starts_with("request.auth.") => Ok(()),
            key => self.refuse(&format!("when: {}", key.unwrap_or_default())),
        }
    }

    fn operation(&self, operation: &mut Value) -> Walked {
        self.fields(operation, |key, _| match key {
            "ports" | "notPorts" | "methods" | "notMethods" | "paths" | "notPaths" => Ok(()),
            field => self.refuse(field),
        })
    }

    /// Renames a text that stands for itself: one with a wildcard may be about namespaces of other lanes.
    fn exact(&self, value: &mut Value, rename: impl Fn(&str) -> Option<String>) -> Walked {
        let Value::String(text) = value else { return self.refuse(&value.to_string()) };
        let renamed = if text.contains('*') { None } else { rename(text) };
        *text = renamed.ok_or_else(|| Unsound::Name {
            policy: self.manifest.reference.clone(),
            text: text.clone(),
        })?;
        Ok(())
    }

    fn selector(&self, selector: &mut Value, about: About) -> Walked {
        self.fields(selector, |key, value| match key {
            "matchLabels" => self.fields(value, |label, value| {
                if is_a_namespaces_name(label, about) { self.namespace(value) } else { Ok(()) }
            }),
            "matchExpressions" => self.each(value, |expression| {
                let Value::Object(fields) = expression else {
                    return self.refuse(&expression.to_string());
                };
                self.expression(fields, about)
            }),
            field => self.refuse(field),
        })
    }

    fn expression(&self, fields: &mut Map<String, Value>, about: About) -> Walked {
        let names = fields
            .get("key")
            .and_then(Value::as_str)
            .is_some_and(|it| is_a_namespaces_name(it, about));
        match fields.get_mut("values") {
            Some(values) if names => self.each(values, |value| self.namespace(value)),
            _ => Ok(()),
        }
    }
}

/// Whether the value of a label is the name of a namespace (`pkg/k8s/apis/cilium.io/const.go` of Cilium).
fn is_a_namespaces_name(label: &str, about: About) -> bool {
    match about {
        About::Namespaces => label == METADATA_NAME,
        About::Identities => {
            let key = label.split_once(':').map_or(label, |(_, key)| key);
            let of_labels = key.strip_prefix(NAMESPACE_LABELS).and_then(|it| it.strip_prefix('.'));
            key == NAMESPACE || of_labels == Some(METADATA_NAME)
        }
    }
}
