//! Tokens of requests, as Envoy's filter looks at them (`source/extensions/filters/http/jwt_authn` of envoyproxy/envoy).

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::policy::mesh::JwtRule;

/// What a token says: the claims of its payload.
pub type Claims = serde_json::Map<String, Value>;

/// What a waypoint found of a request's token.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// There is none, or nobody looks.
    Absent,
    /// It is not believed.
    Refused(TokenError),
    /// It is.
    Believed(Claims),
}

/// What a waypoint found where one rule looks for a token.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// None.
    Missing,
    /// One that the rule does not believe.
    Refused(TokenError),
    /// One that it believes.
    Believed(Claims),
}

/// Why a token is not believed, in the words of Envoy (`jwt_verify_lib/status.cc`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is no token at all.
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    /// It is signed in a way that is not accepted, `none` for one.
    #[error("Jwt header [alg] is not supported")]
    Algorithm,
    /// Its time is over.
    #[error("Jwt is expired")]
    Expired,
    /// Its time has not come.
    #[error("Jwt not yet valid")]
    NotYet,
    /// Somebody else made it.
    #[error("Jwt issuer is not configured")]
    Issuer,
    /// It is for somebody else.
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    /// The issuer has no such key.
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    Key,
    /// No key of the issuer made the signature.
    #[error("Jwt verification fails")]
    Signature,
}

impl TokenError {
    /// The status with which the request is answered (`Filter::onComplete` in `filter.cc`).
    pub const fn status(&self) -> u16 {
        match self {
            Self::Audience => 403,
            Self::Form
            | Self::Algorithm
            | Self::Expired
            | Self::NotYet
            | Self::Issuer
            | Self::Key
            | Self::Signature => 401,
        }
    }
}

impl Token {
    /// What the rules found together: one that believes is enough, and without any token the request goes on without
    /// claims (`convertToEnvoyJwtConfig` in `pilot/pkg/security/authn/policy_applier.go`). Of several that refuse,
    /// the one that knows the issuer says why (`AnyVerifierImpl::onComplete` in `verifier.cc`).
    pub(super) fn of(found: Vec<Found>) -> Self {
        let mut refused = None;
        for one in found {
            match one {
                Found::Believed(claims) => return Self::Believed(claims),
                Found::Refused(why) if matches!(refused, None | Some(TokenError::Issuer)) => {
                    refused = Some(why);
                }
                Found::Missing | Found::Refused(_) => {}
            }
        }
        refused.map_or(Self::Absent, Self::Refused)
    }

    pub(super) const fn claims(&self) -> Option<&Claims> {
        match self {
            Self::Believed(claims) => Some(claims),
            Self::Absent | Self::Refused(_) => None,
        }
    }
}

/// The token where a rule looks for it (`extractor.cc`): in the headers that it names, else in `Authorization`.
pub(super) fn in_headers<'a>(
    rule: &JwtRule,
    headers: &'a BTreeMap<String, String>,
) -> Option<&'a str> {
    if rule.from_headers.is_empty() {
        return headers.get("authorization")?.strip_prefix("Bearer ");
    }
    rule.from_headers.iter().find_map(|header| {
        let value = headers.get(&header.name.to_ascii_lowercase())?;
        value.strip_prefix(header.prefix.as_str())
    })
}
