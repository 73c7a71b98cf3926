//! Pods that capture, one a node, made when a case asks for one. They go with the lane's pods.

use std::collections::BTreeMap;

use serde_json::Value;
use ztc_engine::wait::{Look, until};
use ztc_model::world::{NodeSlot, PodRef};

use super::{POD, POLL, RealLane, annotated, named};
use crate::api;
use crate::fabric::ClusterError;
use crate::objects;

impl RealLane {
    /// The pods that capture in their nodes' networks, by node.
    pub(super) async fn capturing_pods(&self) -> Result<BTreeMap<NodeSlot, PodRef>, ClusterError> {
        let wanted: Vec<(NodeSlot, PodRef, Value)> = self
            .setting
            .nodes
            .keys()
            .map(|slot| {
                let pod = annotated(objects::capturing_pod(&self.world, &self.setting, *slot));
                (*slot, named(&pod), pod)
            })
            .collect();
        for (_, reference, pod) in &wanted {
            if self.has(reference, pod) {
                continue;
            }
            let namespace = objects::capture_namespace(&self.world);
            self.ready.ledger.made(api::make_ours(&self.client, &namespace).await?);
            self.make_as_wanted(reference, pod).await?;
        }
        until("the pods that capture", POD, POLL, || async {
            let late = wanted.iter().find_map(|(_, reference, _)| self.lateness(reference));
            Ok(late.map_or(Look::Met(()), |status| Look::NotYet { status }))
        })
        .await?;
        Ok(wanted.into_iter().map(|(slot, reference, _)| (slot, reference)).collect())
    }

    /// Removes the namespace of those that captured, if there is one.
    pub(super) async fn remove_capture_namespace(&self) -> Result<(), ClusterError> {
        let namespace = objects::capture_namespace(&self.world);
        let Some(object) = api::reference(&namespace) else { return Ok(()) };
        if api::delete(&self.client, &object).await?.is_some() {
            self.gone(&object).await?;
        }
        Ok(())
    }
}
