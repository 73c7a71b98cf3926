//! What one who listens can tell of a tunnel: its records of TLS (RFC 8446 §5.1), and the version that was chosen.

use ztc_wire::Speaks;

use super::packet::Segment;

/// The content types of records: from `change_cipher_spec` to `application_data` and `heartbeat`.
const TYPES: std::ops::RangeInclusive<u8> = 20..=24;
const HANDSHAKE: u8 = 22;
const HEADER: usize = 5;
/// The longest record of any version (RFC 5246 §6.2.3).
const LONGEST: usize = (1 << 14) + 2048;
const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: u16 = 43;
const TLS13: u16 = 0x0304;

/// The two directions of a connection.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) client: Direction,
    pub(super) server: Direction,
}

impl Conversation {
    /// What they speak.
    pub(super) fn speaks(&self) -> Speaks {
        let both = [&self.client, &self.server];
        if both.iter().all(|it| it.bytes == 0) {
            return Speaks::Nothing;
        }
        if both.iter().any(|it| it.begun && it.records.broken) {
            return Speaks::NotTls;
        }
        if both.iter().any(|it| it.records.broken || it.lost) {
            return Speaks::Unclear;
        }
        match self.server.records.chosen {
            Some(TLS13) => Speaks::Tls13,
            Some(version) => Speaks::OtherTls { version },
            None if both.iter().any(|it| it.begun) => Speaks::Unclear,
            None => Speaks::TlsUnderWay,
        }
    }
}

/// One direction of a connection. Packets may come several times, as they pass several devices.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// How many bytes were seen, each counted once.
    pub(super) bytes: u64,
    /// The place of the byte that is due.
    due: Option<u32>,
    /// Whether it was seen from its first byte on.
    begun: bool,
    /// Whether something of it is missing, so that records cannot be followed any more.
    lost: bool,
    records: Records,
}

impl Direction {
    pub(super) fn take(&mut self, segment: Segment, payload: &[u8]) {
        if segment.opens {
            if self.due.is_none() {
                self.due = Some(segment.sequence.wrapping_add(1));
                self.begun = true;
            }
            return;
        }
        if payload.is_empty() {
            return;
        }
        let due = *self.due.get_or_insert(segment.sequence);
        let known = due.wrapping_sub(segment.sequence);
        // Half of all places are behind, half ahead (RFC 9293 §3.4).
        let fresh = if known > u32::MAX / 2 {
            self.lost = true;
            payload
        } else {
            match usize::try_from(known).ok().and_then(|known| payload.get(known..)) {
                Some(fresh) => fresh,
                None => return,
            }
        };
        let end = segment.sequence.wrapping_add(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        self.due = Some(end);
        self.bytes += fresh.len() as u64;
        if !self.lost {
            self.records.take(fresh);
        }
    }
}

/// The records of one direction, one byte after the other.
#[derive(Debug, Default)]
struct Records {
    /// What has come of the header of a record.
    header: Vec<u8>,
    /// How much of a record is still to come.
    left: usize,
    /// What has come of the first message of a handshake, until it is read.
    hello: Vec<u8>,
    /// The version that the server has chosen.
    chosen: Option<u16>,
    /// Something came that is no record.
    broken: bool,
}

impl Records {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.broken {
            if self.left > 0 {
                let (body, rest) = bytes.split_at(self.left.min(bytes.len()));
                if self.header.first() == Some(&HANDSHAKE) && self.chosen.is_none() {
                    self.hello.extend_from_slice(body);
                }
                self.left -= body.len();
                if self.left == 0 {
                    self.end();
                }
                bytes = rest;
                continue;
            }
            let (more, rest) = bytes.split_at((HEADER - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(more);
            bytes = rest;
            self.begin();
        }
    }

    /// Reads a header as soon as it is whole, and knows as early as possible that it is none.
    fn begin(&mut self) {
        let header = self.header.as_slice();
        self.broken = header.first().is_some_and(|kind| !TYPES.contains(kind))
            || header.get(1).is_some_and(|major| *major != 3);
        if let [_, _, _, high, low] = *header {
            self.left = usize::from(u16::from_be_bytes([high, low]));
            self.broken |= self.left > LONGEST;
            if self.left == 0 {
                self.header.clear();
            }
        }
    }

    fn end(&mut self) {
        self.header.clear();
        self.chosen = self.chosen.or_else(|| version(&self.hello));
        self.hello.clear();
    }
}

/// The version that a `ServerHello` chooses.
fn version(hello: &[u8]) -> Option<u16> {
    let number =
        |bytes: &[u8], at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if *hello.first()? != SERVER_HELLO {
        return None;
    }
    let body = hello.get(4..)?;
    let session = usize::from(*body.get(34)?);
    // Behind the session: the suite, the compression, and how long the extensions are.
    let mut rest = body.get(35 + session + 5..).unwrap_or_default();
    while let (Some(kind), Some(length)) = (number(rest, 0), number(rest, 2)) {
        if kind == SUPPORTED_VERSIONS {
            return number(rest, 4);
        }
        rest = rest.get(4 + usize::from(length)..).unwrap_or_default();
    }
    number(body, 0)
}
