//! From a cell to what its agent sends, with what that carries.

use std::collections::BTreeSet;
use std::sync::Arc;

use ztc_model::stimulus::Send;
use ztc_model::suite::{Cell, peers};
use ztc_model::verdict::Doubt;
use ztc_wire::Stimulus;

use super::Life;
use crate::address::{self, Baggage};
use crate::agent::Agent;
use crate::chain;
use crate::fabric::AddressBook;
use crate::mesh_authority::MeshAuthority;
use crate::volley::Aim;

impl Life<'_> {
    /// Who issues certificates of the mesh, where the case sends something in tunnels.
    pub(super) async fn mesh_authority(&self) -> Result<Option<Arc<MeshAuthority>>, Doubt> {
        let mut sent = self.case.cells.iter().flat_map(|it| [Some(&it.send), it.after.as_ref()]);
        if !sent.any(|send| matches!(send, Some(Send::Hbone(_)))) {
            return Ok(None);
        }
        let authority = self.lane.cluster.mesh_authority().await;
        authority.map(Some).map_err(|error| Doubt::Fabric(chain(&error)))
    }

    /// What a cell's agent sends, and where its records are looked for.
    pub(super) fn aim(
        &self,
        cell: &Cell,
        agent: &Arc<Agent>,
        book: &AddressBook,
    ) -> Result<Aim, String> {
        let sent = |send: &Send| {
            self.stimulus(send, book)?.ok_or_else(|| format!("an agent does not send `{send}`"))
        };
        Ok(Aim {
            agent: Arc::clone(agent),
            board: Arc::clone(&self.lane.board),
            stimulus: sent(&cell.send)?,
            canary: None,
            after: self.after(cell, book)?,
            beside: cell.beside.as_ref().map(sent).transpose()?,
            deadline: self.pace.probe_deadline(),
            pair: address::pair(cell, &self.lane.world, book),
            served_at: address::served_at(cell, book),
        })
    }

    fn after(
        &self,
        cell: &Cell,
        book: &AddressBook,
    ) -> Result<Option<(Stimulus, BTreeSet<String>)>, String> {
        let Some(send) = &cell.after else { return Ok(None) };
        let stimulus = self.stimulus(send, book)?;
        Ok(stimulus.map(|it| (it, peers(&self.lane.world, send))))
    }

    /// What an agent sends; nothing where none does.
    pub(super) fn stimulus(
        &self,
        send: &Send,
        book: &AddressBook,
    ) -> Result<Option<Stimulus>, String> {
        let world = &*self.lane.world;
        let mesh = self.mesh.as_deref().map(|authority| (authority, world));
        address::stimulus(send, book, Baggage { tokens: &world.tokens, mesh })
    }
}
