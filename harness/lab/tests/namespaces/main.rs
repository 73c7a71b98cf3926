//! The lab on this machine's kernel: what it makes, what it leaves, and whether packets pass.
//!
//! Every check is a process of its own, as the lab is entered once a process: this executable
//! again, told by a variable which part to play. Without the privileges the checks are ignored,
//! with the reason; where `CI` is set they fail instead.

mod client;
mod inside;
mod mesh;
mod outside;
mod stage;

use std::env;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use stage::{PART, Scene};

fn main() -> ExitCode {
    if let Some(code) = ztc_probe::run_if_agent() {
        return code;
    }
    if let Ok(part) = env::var(PART) {
        return stage::play(&part);
    }
    let arguments = Arguments::from_args();
    let outside = outside::CHECKS.iter().map(|(name, check)| trial(name, *check));
    let inside = inside::checks().map(|(name, _)| trial(name, || Scene::start(name)?.passes()));
    libtest_mimic::run(&arguments, outside.chain(inside).collect()).exit_code()
}

fn trial(name: &str, check: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || match stage::missing_privileges() {
        Some(reason) if env::var_os("CI").is_some() => Err(reason.into()),
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => check().map(|()| Completion::Completed),
    })
}
