//! Ranges of addresses in manifests.

use ipnet::IpNet;
use serde::Deserialize;

use crate::yaml::{Diagnostic, Document, Spanned};

use super::Peer;

/// A range without some of its parts: an element of `toCIDRSet`, or an `ipBlock`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CidrRule {
    cidr: Spanned<String>,
    #[serde(default)]
    except: Option<Vec<Spanned<String>>>,
}

impl CidrRule {
    pub(super) fn read(&self, document: &Document<'_>) -> Result<Peer, Box<Diagnostic>> {
        let range = read_range(document, &self.cidr)?;
        let inside = |text: &Spanned<String>| {
            let except = read_range(document, text)?;
            if range.contains(&except) {
                return Ok(except);
            }
            let message = format!("`{}` is not inside `{}`", text.value, self.cidr.value);
            Err(document.diagnostic_at(text, message, None))
        };
        let except = self.except.iter().flatten().map(inside).collect::<Result<_, _>>()?;
        Ok(Peer::Cidr { range, except })
    }
}

/// Reads `address/length`; bits behind the length are dropped, as Cilium does.
pub(super) fn read_range(
    document: &Document<'_>,
    text: &Spanned<String>,
) -> Result<IpNet, Box<Diagnostic>> {
    let range: Result<IpNet, _> = text.value.parse();
    range.map(|range| range.trunc()).map_err(|_invalid| {
        document.diagnostic_at(
            text,
            format!("`{}` is no range of addresses", text.value),
            Some("write an address and a prefix length, such as `169.254.169.254/32`"),
        )
    })
}
