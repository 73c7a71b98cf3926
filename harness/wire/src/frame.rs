//! One message a line, as JSON. A line has a ceiling, so that garbage cannot fill the memory.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The longest line that either side accepts, in bytes, its end not counted.
pub const MAX_LINE: usize = 256 * 1024;

/// Why a line is no message.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The line is longer than [`MAX_LINE`].
    #[error("a line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// The line is not a message of this protocol.
    #[error("a line is no message of this protocol: {excerpt:?}")]
    Malformed {
        /// The first 80 characters of the line.
        excerpt: String,
        /// What the decoder says.
        source: serde_json::Error,
    },
}

/// A message as a line, with its end.
///
/// # Panics
/// When JSON cannot say the message: a map whose keys are no texts. No message of this protocol
/// has one.
pub fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages have string keys only");
    line.push(b'\n');
    line
}

/// A line, without its end, as a message.
///
/// # Errors
/// [`FrameError::Malformed`] when the line is anything else.
pub fn decode<M: DeserializeOwned>(line: &[u8]) -> Result<M, FrameError> {
    serde_json::from_slice(line).map_err(|source| FrameError::Malformed {
        excerpt: String::from_utf8_lossy(line).chars().take(80).collect(),
        source,
    })
}

/// Cuts a stream of bytes, arriving in pieces of any size, into lines.
#[derive(Debug, Default)]
pub struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    /// Takes the next piece of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole line, without its end, if there is one.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] when more than [`MAX_LINE`] bytes came without an end.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        match self.pending.iter().position(|byte| *byte == b'\n') {
            Some(end) if end > MAX_LINE => Err(FrameError::TooLong),
            Some(end) => {
                let mut line: Vec<u8> = self.pending.drain(..=end).collect();
                line.pop();
                Ok(Some(line))
            }
            None if self.pending.len() > MAX_LINE => Err(FrameError::TooLong),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PROTOCOL, ToAgent};

    #[test]
    fn a_message_survives_any_cut_of_the_stream() {
        let stream =
            [encode(&ToAgent::Attach { protocol: PROTOCOL, after: 7 }), encode(&ToAgent::Bye)]
                .concat();
        for cut in 0..stream.len() {
            let mut splitter = LineSplitter::default();
            let mut messages = Vec::new();
            for piece in [&stream[..cut], &stream[cut..]] {
                splitter.push(piece);
                while let Some(line) = splitter.next_line().unwrap() {
                    messages.push(decode::<ToAgent>(&line).unwrap());
                }
            }
            assert_eq!(
                messages,
                [ToAgent::Attach { protocol: PROTOCOL, after: 7 }, ToAgent::Bye],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_ceiling() {
        let mut splitter = LineSplitter::default();
        splitter.push(&vec![b'x'; MAX_LINE]);
        assert!(matches!(splitter.next_line(), Ok(None)));
        splitter.push(b"x");
        assert!(matches!(splitter.next_line(), Err(FrameError::TooLong)));
    }

    #[test]
    fn an_unknown_field_is_no_message() {
        let error = decode::<ToAgent>(br#"{"cancel":{"id":1,"force":true}}"#).unwrap_err();
        assert!(matches!(error, FrameError::Malformed { .. }), "{error}");
    }
}
