//! Errors as people read them: the whole chain on one line, nothing said twice.

use std::error::Error;

/// The words of an error and of all its causes, joined by colons. A cause that an error has already
/// quoted is left out: some libraries print their source as part of themselves.
pub fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.ends_with(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = error.source();
    }
    words
}
