//! Where everything is in a text: the lines of each field and of each entry.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::place::{Place, Step};

use super::{Diagnostic, Document, Source, Spanned, check_size, number};

/// The lines of everything in a document, from 1.
#[derive(Debug)]
pub struct Outline(Node);

/// Something with the lines that it is on. What closes a list or a mapping is not among them.
#[derive(Debug)]
struct Node {
    first: usize,
    last: usize,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Scalar,
    Entries(Vec<Node>),
    /// Fields by their names, with the lines of the names.
    Fields(Vec<(String, usize, Node)>),
}

impl Outline {
    /// Looks where everything is in a text that is one document.
    ///
    /// # Errors
    /// Where it is no YAML.
    pub fn of(source: &Source) -> Result<Self, Box<Diagnostic>> {
        check_size(source)?;
        let content: Spanned<Content> = Document::whole(source).read_manifest(&[])?;
        Ok(Self(node(&source.text, &content)))
    }

    /// The lines of what is at a place, the name of its field among them; nothing where there is nothing.
    pub fn lines(&self, place: &Place) -> Option<RangeInclusive<usize>> {
        let (mut first, mut node) = (self.0.first, &self.0);
        for step in place.steps() {
            (first, node) = node.inner.at(step)?;
        }
        Some(first..=node.last.max(first))
    }
}

impl Inner {
    /// What is a step further, with the line that it begins on.
    fn at(&self, step: &Step) -> Option<(usize, &Node)> {
        match (step, self) {
            (Step::Field(name), Self::Fields(fields)) => {
                let (_, line, node) = fields.iter().find(|(field, ..)| field == name)?;
                Some((*line, node))
            }
            (Step::Entry(index), Self::Entries(entries)) => {
                entries.get(*index).map(|node| (node.first, node))
            }
            _ => None,
        }
    }
}

fn node(text: &str, content: &Spanned<Content>) -> Node {
    let at = content.referenced;
    let first = number(at.line()).max(1);
    let inner = match &content.value {
        Content::Scalar => Inner::Scalar,
        Content::Entries(entries) => {
            Inner::Entries(entries.iter().map(|it| node(text, it)).collect())
        }
        Content::Fields(fields) => {
            let fields = fields.iter().map(|(key, value)| {
                let line = number(key.referenced.line()).max(1);
                (key.value.0.clone(), line, node(text, value))
            });
            Inner::Fields(fields.collect())
        }
    };
    let last = match &inner {
        // A text may be written on several lines.
        Inner::Scalar => {
            let range = at.span().byte_offset().zip(at.span().byte_len());
            let range = range.map(|(from, len)| number(from)..number(from + len));
            let written = range.and_then(|it| text.get(it)).unwrap_or_default();
            first + written.trim_end().matches('\n').count()
        }
        Inner::Entries(entries) => entries.last().map_or(first, |it| it.last),
        Inner::Fields(fields) => {
            fields.last().map_or(first, |(_, line, value)| value.last.max(*line))
        }
    };
    Node { first, last: last.max(first), inner }
}

/// What is read of a value: nothing but its form.
enum Content {
    Scalar,
    Entries(Vec<Spanned<Self>>),
    Fields(Vec<(Spanned<Key>, Spanned<Self>)>),
}

/// The name of a field, as it is written where it is a text.
struct Key(String);

macro_rules! scalars {
    ($($visit:ident: $type:ty),* => $made:expr) => {
        $(fn $visit<E>(self, value: $type) -> Result<Self::Value, E> {
            $made(value.to_string())
        })*
    };
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128,
                visit_u128: u128, visit_f64: f64, visit_str: &str => |_text| Ok(Content::Scalar));

            fn visit_unit<E>(self) -> Result<Content, E> {
                Ok(Content::Scalar)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    entries.push(entry);
                }
                Ok(Content::Entries(entries))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Content, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = mapping.next_entry()? {
                    fields.push(field);
                }
                Ok(Content::Fields(fields))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64,
                visit_str: &str => |text| Ok(Key(text)));
        }

        deserializer.deserialize_any(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
# What follows is
metadata: { name: one, labels: { 8080: x } }
spec:
  endpointSelector: {}
  description: |
    Two
    lines
  egress:
    # of DNS
    - toEndpoints:
        - matchLabels: { app: dns }
      toPorts:
        - ports: [{ port: \"53\" }]

        - ports:
            - port: \"54\"
    - toCIDR: [10.0.0.0/8,
        11.0.0.0/8]
  # the end
  egressDeny: [{ toEntities: [world] }]
  ingress: []
";

    #[test]
    fn every_field_and_entry_has_its_lines() {
        let outline = Outline::of(&Source::new("one.yaml", TEXT)).unwrap();
        let lines =
            |place: &str| outline.lines(&place.parse().unwrap()).map(|it| (*it.start(), *it.end()));
        for (place, expected) in [
            ("kind", (2, 2)),
            ("metadata.labels.8080", (4, 4)),
            ("spec.endpointSelector", (6, 6)),
            ("spec.description", (7, 9)),
            ("spec.egress", (10, 20)),
            ("spec.egress[0]", (12, 18)),
            ("spec.egress[0].toPorts", (14, 18)),
            ("spec.egress[0].toPorts[0]", (15, 15)),
            ("spec.egress[0].toPorts[1]", (17, 18)),
            ("spec.egress[1]", (19, 20)),
            ("spec.egressDeny[0]", (22, 22)),
            ("spec.ingress", (23, 23)),
        ] {
            assert_eq!(lines(place), Some(expected), "{place}");
        }
        for nothing in ["spec.egress[2]", "spec.egress.toPorts", "status", "spec.ingress[0]"] {
            assert_eq!(lines(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_no_document_has_no_lines() {
        assert!(Outline::of(&Source::new("one.yaml", "a: [")).is_err());
    }
}
