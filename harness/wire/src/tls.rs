//! What an agent needs to speak TLS: whom to believe, and what to show.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an agent needs to speak TLS. It is made elsewhere: an agent makes no certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate (X.509) of the one authority that it believes.
    pub authority: Der,
    /// What it shows as a server; absent where it serves nothing over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shows: Option<Certified>,
}

/// What a client of a tunnel of the mesh needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Papers {
    /// The certificate (X.509) of the mesh's authority: the peer's has to be issued by it.
    pub authority: Der,
    /// The identity (SPIFFE) that the peer has to prove.
    pub peer: String,
    /// What the client shows; absent where it shows no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shows: Option<Certified>,
}

/// A certificate and what proves that one has a right to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// The certificate (X.509), issued by the authority itself.
    pub certificate: Der,
    /// Its private key (PKCS #8).
    pub key: Der,
}

/// Something in DER, the distinguished encoding of ASN.1; in JSON hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Der(pub Vec<u8>);

impl fmt::Debug for Der {
    /// Its length alone: it may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Der({} bytes)", self.0.len())
    }
}

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |it: u8| char::from(b"0123456789abcdef"[usize::from(it)]);
        let digits = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]);
        serializer.serialize_str(&digits.collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes
            .map(Self)
            .ok_or_else(|| D::Error::custom("DER is written as pairs of hexadecimal digits"))
    }
}

/// The byte that two hexadecimal digits stand for.
fn byte(digits: &[u8]) -> Option<u8> {
    let [high, low] = *digits else { return None };
    let digit = |it: u8| char::from(it).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        let all = Der((0..=255).collect());
        let text = serde_json::to_string(&all).unwrap();
        assert!(text.starts_with("\"000102"), "{text}");
        assert_eq!(serde_json::from_str::<Der>(&text).unwrap(), all);
    }

    #[test]
    fn half_a_byte_and_other_characters_are_refused() {
        for text in ["\"0\"", "\"0g\"", "\"+1\"", "\"é\""] {
            assert!(serde_json::from_str::<Der>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_is_not_told_to_whoever_looks() {
        assert_eq!(format!("{:?}", Der(vec![1, 2, 3])), "Der(3 bytes)");
    }
}
