//! How what a pod sends and gets comes to a real ztunnel: rules of the kernel in the pod's own network namespace.
//!
//! What they do is what istio-cni does in a pod (its ports and marks are in ARCHITECTURE.md of istio/ztunnel and
//! `cni/pkg/iptables` of istio/istio): TCP alone, and names where they are captured; what comes from kubelet by its special
//! address is left alone, and so is what ztunnel itself sends, by its mark. A connection that ztunnel opens to the pod in the
//! name of the client comes back to it by the mark that is kept with it.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use ztc_model::ztunnel::HBONE_PORT;

use crate::datapath::{INBOUND_PORT, NAMES_PORT, OUTBOUND_PORT, PROBE_SOURCES};
use crate::host::netlink::{self, NetlinkError};
use crate::host::netns::{NetNs, NetnsError};
use crate::host::program::{self, ProgramError};

/// What installs them.
pub(crate) const NFT: &str = "nft";

/// How long that may take.
const TAKING: Duration = Duration::from_secs(10);

/// The rules of every pod.
const POD: &str = include_str!("pod.nft");
/// Those of a pod whose names are captured.
const NAMES: &str = include_str!("names.nft");

/// The mark on what ztunnel sends.
const OF_ZTUNNEL: u32 = 0x539;
/// The mark on connections that ztunnel opened to the pod, and on what the pod answers.
const BACK_TO_ZTUNNEL: u32 = 0x111;
/// The bits of a mark that are looked at.
const MASK: u32 = 0xfff;
/// The table of routes for what is to come back.
const TABLE: u8 = 100;

/// Settings of the kernel without which a packet in the name of a client that is elsewhere is dropped on loopback.
const SETTINGS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/conf/all/rp_filter", "0"), ("/proc/sys/net/ipv4/conf/lo/rp_filter", "0")];

/// Why a pod's traffic is not redirected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedirectionError {
    /// Its network cannot be entered or set.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// There is no way back to ztunnel.
    #[error(transparent)]
    Route(#[from] NetlinkError),
    /// The tool cannot be run.
    #[error("cannot run {NFT}")]
    Run(#[source] ProgramError),
    /// It did not take the rules.
    #[error("{NFT} refuses the rules of a pod: {0}")]
    Refused(String),
}

/// Redirects what a pod sends and gets, and names if they are captured. Blocks for some milliseconds.
pub(super) fn redirect(netns: &NetNs, captures_names: bool) -> Result<(), RedirectionError> {
    for (file, value) in SETTINGS {
        netns.set(file, value)?;
    }
    let rules = rules(captures_names);
    netns.run(|| {
        netlink::bring_back(BACK_TO_ZTUNNEL, MASK, TABLE)?;
        install(&rules)
    })?
}

/// Has the kernel take rules, in the network namespace of the calling thread.
fn install(rules: &str) -> Result<(), RedirectionError> {
    let output = program::run(Command::new(NFT).args(["-f", "-"]), rules, TAKING)
        .map_err(RedirectionError::Run)?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(RedirectionError::Refused(said.trim().replace('\n', "; ")))
    }
}

/// The rules, in the language of nft(8).
fn rules(captures_names: bool) -> String {
    let [kubelet, kubelet_6] = PROBE_SOURCES;
    let defined: [(&str, &dyn fmt::Display); 9] = [
        ("mask", &MASK),
        ("of_ztunnel", &OF_ZTUNNEL),
        ("back_to_ztunnel", &BACK_TO_ZTUNNEL),
        ("kubelet", &kubelet),
        ("kubelet_6", &kubelet_6),
        ("hbone", &HBONE_PORT),
        ("inbound", &INBOUND_PORT),
        ("outbound", &OUTBOUND_PORT),
        ("names", &NAMES_PORT),
    ];
    let defined = defined.map(|(name, value)| format!("define {name} = {value}\n")).concat();
    let names = if captures_names { NAMES } else { "" };
    [&defined, POD, names].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_with_a_dollar_is_defined() {
        let rules = rules(true);
        let words = rules.split('$').skip(1).map(|after| {
            after.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').next().unwrap()
        });
        for word in words {
            assert!(rules.contains(&format!("define {word} = ")), "{word}");
        }
    }

    #[test]
    fn names_are_redirected_where_they_are_captured_alone() {
        assert!(rules(true).contains("redirect to :$names"));
        assert!(!rules(false).contains("redirect to :$names"));
    }
}
