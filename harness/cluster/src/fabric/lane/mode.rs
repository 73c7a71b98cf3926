//! The mode in which agents enforce policies, which a `CiliumNodeConfig` sets.
//!
//! Agents read such an object when they start. So that nobody has to wait for that they are told the same by their own
//! tool, and told to go back when the object goes.

use ztc_engine::fabric::Change;
use ztc_model::manifest::ObjectRef;
use ztc_model::policy::{Policy, PolicyKind};

use super::RealLane;
use crate::cilium::EnforcementMode;
use crate::fabric::ClusterError;

impl RealLane {
    /// What of an applied policy is for the agents themselves; nothing where it is one like others.
    pub(super) async fn set_mode(&self, policy: &Policy) -> Result<Option<Change>, ClusterError> {
        match policy {
            Policy::Mode(_) => Ok(Some(self.agents.set_mode(EnforcementMode::Always).await?)),
            _ => Ok(None),
        }
    }

    /// The same of one that is gone.
    pub(super) async fn reset_mode(
        &self,
        gone: &ObjectRef,
    ) -> Result<Option<Change>, ClusterError> {
        if gone.kind != PolicyKind::CiliumNodeConfig.name() {
            return Ok(None);
        }
        Ok(Some(self.agents.set_mode(EnforcementMode::Default).await?))
    }
}
