//! `ztc mutate`, from its arguments to its exit code.

use std::process::ExitCode;

use ztc_engine::event::ExitStatus;

use super::{block_on, ended, inside};
use crate::execution::run_name;
use crate::mutating::hunt::hunt;
use crate::mutating::{MutateError, Order, Plan};
use crate::project::Project;
use crate::terminal;

pub(super) fn mutate(order: &Order) -> ExitCode {
    let run = run_name();
    let plan = match Plan::of(&Project::find(), order, &run) {
        Ok(plan) => plan,
        Err(error) => return ended(Err(error), MutateError::exit_status).into(),
    };
    if order.list {
        for line in plan.lines() {
            terminal::say(&line);
        }
        return ExitStatus::Pass.into();
    }
    let ground = plan.ground.clone();
    inside(&ground, || {
        block_on(async { ended(Box::pin(hunted(plan, &run)).await, MutateError::exit_status) })
    })
}

async fn hunted(plan: Plan, run: &str) -> Result<ExitStatus, MutateError> {
    let ready = plan.ground.ready(run, None).await?;
    let out = plan.out.clone();
    let mutations = hunt(plan, ready).await?;
    let (width, colour) = terminal::look();
    terminal::say(&mutations.text(width, colour));
    terminal::trouble(&mutations.write(&out)?.display().to_string());
    Ok(mutations.exit_status())
}
