//! The mode in which agents enforce policies, which a `CiliumNodeConfig` sets.
//!
//! Agents read such an object when they start. So that nobody has to wait for that they are told the same by their own
//! tool, and told to go back when the object goes.

use ztc_engine::fabric::Change;
use ztc_model::manifest::ObjectRef;
use ztc_model::policy::PolicyKind;

use super::RealLane;
use crate::cilium::EnforcementMode;
use crate::fabric::ClusterError;

impl RealLane {
    /// Has agents go back to what they do without such an object; nothing where what is gone is none.
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
