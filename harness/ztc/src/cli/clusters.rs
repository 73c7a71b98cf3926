//! Commands that are about a cluster alone: to make it, to look at it, to delete it.

use ztc_engine::event::ExitStatus;

use super::{block_on, trouble};
use crate::execution::run_name;
use crate::ground::{Ground, GroundError, Place};
use crate::project::Project;
use crate::terminal;

pub(super) fn up(place: &Place) -> ExitStatus {
    on_ground(place, async |ground| {
        ground.up(&run_name()).await?;
        Ok(ExitStatus::Pass)
    })
}

pub(super) fn down(place: &Place) -> ExitStatus {
    on_ground(place, async |ground| {
        ground.down().await?;
        Ok(ExitStatus::Pass)
    })
}

pub(super) fn all_down() -> ExitStatus {
    block_on(async {
        match Ground::all_down(&Project::find()).await {
            Ok(()) => ExitStatus::Pass,
            Err(error) => trouble(&error),
        }
    })
}

pub(super) fn doctor(place: &Place) -> ExitStatus {
    on_ground(place, async |ground| {
        let findings = ground.findings(&run_name()).await?;
        for finding in &findings {
            terminal::say(&finding.to_string());
        }
        if findings.iter().any(|it| it.blocks) {
            return Ok(ExitStatus::Inconclusive);
        }
        terminal::say("a run on this cluster would mean something");
        Ok(ExitStatus::Pass)
    })
}

/// Does something with the ground of a place.
fn on_ground(
    place: &Place,
    work: impl AsyncFnOnce(Ground) -> Result<ExitStatus, GroundError>,
) -> ExitStatus {
    let ground = match Ground::find(&Project::find(), place) {
        Ok(ground) => ground,
        Err(error) => return trouble(&error),
    };
    block_on(async { work(ground).await.unwrap_or_else(|error| trouble(&error)) })
}
