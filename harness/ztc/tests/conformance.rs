//! `cargo test --test conformance`: see `ztc::conformance`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ztc::conformance::main()
}
