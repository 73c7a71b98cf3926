//! How the executables end: an error is told on stderr, with everything that led to it.

use std::error::Error;
use std::process::ExitCode;

/// "Inconclusive or infrastructure": an agent that fails says nothing about a policy.
const INFRASTRUCTURE: u8 = 3;

/// Success, or the error with its causes on stderr and the exit code 3.
pub fn exit_code<E: Error>(ended: Result<(), E>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(INFRASTRUCTURE)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last words of a process that is about to end")]
fn complain(error: &dyn Error) {
    eprintln!("ztc-probe: {}", chain(error));
}

/// The error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ztc_wire::AgentConfig;

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = AgentConfig::from_json(b"{").unwrap_err();
        assert_eq!(
            chain(&error),
            "the value of ZTC_AGENT is no configuration of an agent: \
             EOF while parsing an object at line 1 column 1"
        );
    }
}
