//! Whether a token is what a rule believes (RFC 7515, RFC 7519), in the order in which Envoy looks: form, issuer, time,
//! audience, signature (`authenticator.cc` of `jwt_authn`, `jwt_verify_lib`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::Value;

use super::token::{Claims, TokenError};
use crate::policy::mesh::JwtRule;

/// By how many seconds clocks may differ (`kClockSkewInSecond`).
const SKEW: u64 = 60;

/// What a token says, if a rule believes it at a time, in seconds since 1970.
///
/// Signatures are those of ES256 and RS256; any other algorithm is one that is not supported.
///
/// # Errors
/// Why it is not believed.
pub fn verify(rule: &JwtRule, token: &str, now: u64) -> Result<Claims, TokenError> {
    let [header, payload, signature] = parts(token).ok_or(TokenError::Form)?;
    let signed = token.rsplit_once('.').map_or("", |(signed, _)| signed);
    let header = object(header).ok_or(TokenError::Form)?;
    let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    if !matches!(algorithm, "ES256" | "RS256") {
        return Err(TokenError::Algorithm);
    }
    let claims = object(payload).ok_or(TokenError::Form)?;
    let signature = decoded(signature).ok_or(TokenError::Form)?;
    if claims.get("iss").and_then(Value::as_str) != Some(rule.issuer.as_str()) {
        return Err(TokenError::Issuer);
    }
    let time = |name: &str| claims.get(name).and_then(Value::as_u64);
    if time("nbf").is_some_and(|from| from > now + SKEW) {
        return Err(TokenError::NotYet);
    }
    if time("exp").is_some_and(|until| now > until + SKEW) {
        return Err(TokenError::Expired);
    }
    if !is_for(claims.get("aud"), &rule.audiences) {
        return Err(TokenError::Audience);
    }
    let set: Value = serde_json::from_str(&rule.jwks).unwrap_or_default();
    let fits = |key: &&Value| {
        let named = header.get("kid").is_none_or(|kid| key.get("kid").is_none_or(|it| it == kid));
        named && key.get("alg").is_none_or(|it| it == algorithm)
    };
    let mut keys = set["keys"].as_array().into_iter().flatten().filter(fits).peekable();
    if keys.peek().is_none() {
        return Err(TokenError::Key);
    }
    if keys.any(|key| is_signed_by(key, algorithm, signed.as_bytes(), &signature)) {
        Ok(claims)
    } else {
        Err(TokenError::Signature)
    }
}

/// The three parts of a token, none of them empty (`Jwt::parseFromString` in `jwt_verify_lib/jwt.cc`).
fn parts(token: &str) -> Option<[&str; 3]> {
    let parts: Vec<&str> = token.split('.').collect();
    <[&str; 3]>::try_from(parts).ok().filter(|parts| parts.iter().all(|it| !it.is_empty()))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn object(text: &str) -> Option<Claims> {
    serde_json::from_slice(&decoded(text)?).ok()
}

/// Whether a token is for one of these, or they are none.
fn is_for(audience: Option<&Value>, wanted: &[String]) -> bool {
    let is_wanted = |it: &Value| it.as_str().is_some_and(|it| wanted.iter().any(|one| one == it));
    wanted.is_empty()
        || match audience {
            Some(Value::Array(all)) => all.iter().any(is_wanted),
            Some(one) => is_wanted(one),
            None => false,
        }
}

fn is_signed_by(key: &Value, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
    let part = |name: &str| key.get(name).and_then(Value::as_str).and_then(decoded);
    match algorithm {
        "ES256" if key["kty"] == "EC" && key["crv"] == "P-256" => {
            let (Some(x), Some(y)) = (part("x"), part("y")) else { return false };
            // An uncompressed point (SEC 1, 2.3.3).
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
            key.verify(signed, signature).is_ok()
        }
        "RS256" if key["kty"] == "RSA" => {
            let (Some(n), Some(e)) = (part("n"), part("e")) else { return false };
            let key = RsaPublicKeyComponents { n, e };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
        }
        _ => false,
    }
}
