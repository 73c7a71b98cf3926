//! `icmps`, from fields to what a rule is about.
//!
//! Follows `pkg/policy/api/icmp.go`, where a type of message is the port of a rule, and
//! `rule_validation.go`.

use crate::policy::ports::IntOrString;
use crate::policy::{PortMatch, PortSelector, Ports, Protocol};
use crate::yaml::{Diagnostic, Document, Spanned};

use super::fields::{IcmpField, IcmpRule};

/// The most fields of one list (`MaxICMPFields` in `rule_validation.go`).
const MAX_FIELDS: usize = 40;

/// The names of types that cases are about. Cilium knows more, whose numbers can be written.
const NAMES: [(&str, Protocol, u16); 11] = [
    ("DestinationUnreachable", Protocol::Icmp, 3),
    ("Echo", Protocol::Icmp, 8),
    ("EchoRequest", Protocol::Icmp, 8),
    ("TimeExceeded", Protocol::Icmp, 11),
    ("ParameterProblem", Protocol::Icmp, 12),
    ("DestinationUnreachable", Protocol::Icmpv6, 1),
    ("PacketTooBig", Protocol::Icmpv6, 2),
    ("TimeExceeded", Protocol::Icmpv6, 3),
    ("ParameterProblem", Protocol::Icmpv6, 4),
    ("EchoRequest", Protocol::Icmpv6, 128),
    ("EchoReply", Protocol::Icmpv6, 129),
];

/// What the entries of `icmps` are about, one by one.
pub(super) fn messages(
    document: &Document<'_>,
    icmps: Option<&Spanned<Vec<IcmpRule>>>,
    beside_ports: bool,
) -> Result<Vec<PortSelector>, Box<Diagnostic>> {
    let Some(list) = icmps else { return Ok(Vec::new()) };
    if beside_ports && !list.value.is_empty() {
        let message = "`icmps` and `toPorts` cannot be combined in one element";
        let help = "write two elements: they add up";
        return Err(document.diagnostic(list.referenced, message.to_owned(), Some(help)));
    }
    list.value.iter().map(|rule| selector(document, rule)).collect()
}

fn selector(document: &Document<'_>, rule: &IcmpRule) -> Result<PortSelector, Box<Diagnostic>> {
    let fields = rule.fields.as_deref().unwrap_or_default();
    if let Some(field) = fields.get(MAX_FIELDS) {
        let message = format!("more than {MAX_FIELDS} ICMP fields in one list");
        return Err(document.diagnostic_at(&field.kind, message, None));
    }
    let fields = fields.iter().map(|field| {
        let protocol = protocol(document, field)?;
        let ports = Ports::One(kind(document, field, protocol)?);
        Ok(PortMatch { protocol, ports })
    });
    fields.collect::<Result<_, _>>().map(PortSelector::AnyOf)
}

fn protocol(document: &Document<'_>, field: &IcmpField) -> Result<Protocol, Box<Diagnostic>> {
    let Some(family) = &field.family else { return Ok(Protocol::Icmp) };
    match family.value.as_str() {
        "IPv4" => Ok(Protocol::Icmp),
        "IPv6" => Ok(Protocol::Icmpv6),
        other => Err(document.diagnostic_at(
            family,
            format!("`{other}` is no family of ICMP"),
            Some("expected one of `IPv4`, `IPv6`"),
        )),
    }
}

fn kind(
    document: &Document<'_>,
    field: &IcmpField,
    protocol: Protocol,
) -> Result<u16, Box<Diagnostic>> {
    let (text, number) = match &field.kind.value {
        IntOrString::Int(number) => (number.to_string(), u16::try_from(*number).ok()),
        IntOrString::String(name) => {
            let named = NAMES.iter().find(|(known, of, _)| known == name && *of == protocol);
            (name.clone(), named.map(|(_, _, number)| *number))
        }
    };
    match number.filter(|number| *number <= 255) {
        // Port 0 of a rule is every port, and so type 0 is every message.
        Some(0) => Err(document.diagnostic_at(
            &field.kind,
            format!("type 0 of {protocol} is not evaluated"),
            Some("Cilium keeps it as port 0, which is a wildcard; replies need no rule"),
        )),
        Some(number) => Ok(number),
        None => Err(document.diagnostic_at(
            &field.kind,
            format!("`{text}` is no type of {protocol} that is evaluated"),
            Some("a type is a number from 1 to 255, or a name such as `EchoRequest`"),
        )),
    }
}
