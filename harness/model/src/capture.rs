//! What was seen on the wire of a cell: what its pods sent and received at their edges, node by node.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ztc_wire::{Sighting, Speaks, Tunnel};

use crate::world::NodeSlot;

/// How a flow is expected to be on the wire, at the edges of the pods: between them and their nodes, where no ztunnel
/// stands any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wire {
    /// In a tunnel of TLS, and nowhere in clear.
    Encrypted,
    /// In clear. It shows that the capture sees what is there: what is encrypted in the same case stands on that.
    Clear,
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypted => "encrypted",
            Self::Clear => "clear",
        })
    }
}

/// What the capture on one node saw of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtNode {
    /// The node.
    pub node: NodeSlot,
    /// Why there was no capture, or none to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// How many packets of pods of the case it looked at.
    pub packets: u64,
    /// How many it could not look at, as the kernel did not keep them.
    pub lost: u64,
    /// Where what the cell sent was in clear, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_clear: Option<Sighting>,
    /// The tunnels from the cell's client to whoever serves it.
    pub tunnels: Vec<Tunnel>,
    /// Whether another cell, which is expected to be in clear here, was seen in clear here.
    pub controlled: bool,
}

impl AtNode {
    /// What is known of a node without a capture.
    pub const fn without_capture(node: NodeSlot, why: String) -> Self {
        Self {
            node,
            failed: Some(why),
            packets: 0,
            lost: 0,
            in_clear: None,
            tunnels: Vec::new(),
            controlled: false,
        }
    }
}

impl fmt::Display for AtNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, packets, lost, .. } = self;
        write!(f, "node {node}: ")?;
        if let Some(why) = &self.failed {
            return write!(f, "no capture: {why}");
        }
        write!(f, "{packets} packets, {lost} lost; ")?;
        match &self.in_clear {
            Some(sighting) => write!(f, "in clear: {}", told(sighting))?,
            None => f.write_str("not in clear")?,
        }
        for tunnel in &self.tunnels {
            let Tunnel { client, server, sent, received, speaks, .. } = tunnel;
            write!(f, "; {client} -> {server}: {speaks}, {sent} bytes there, {received} back")?;
        }
        Ok(())
    }
}

/// A sighting in words.
pub(crate) fn told(sighting: &Sighting) -> String {
    let Sighting { count, source, destination, .. } = sighting;
    match count {
        1 => format!("{source} -> {destination}"),
        _ => format!("{source} -> {destination}, and {} more", count - 1),
    }
}

/// Whether what is spoken in a tunnel is TLS, whatever its version: that of one that was opened before the capture is
/// not known.
pub(crate) const fn is_tls(speaks: Speaks) -> bool {
    matches!(speaks, Speaks::Tls13 | Speaks::TlsUnderWay)
}
