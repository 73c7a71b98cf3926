//! `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy`, from manifest to rules.

mod fields;
mod icmp;
mod read;

pub(crate) use read::{clusterwide, namespaced};
