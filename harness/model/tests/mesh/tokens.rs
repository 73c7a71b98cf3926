//! Whether a token is what a rule believes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ztc_model::policy::mesh::waypoint::{TokenError, verify};
use ztc_model::policy::mesh::{JwtRule, RequestAuthentication};
use ztc_model::suite::world;
use ztc_model::world::World;

use super::*;

/// A moment of 2026.
const NOW: u64 = 1_795_000_000;

/// Signed by another program with RS256, until 2100.
const RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InIifQ.eyJpc3MiOiJodHRwczovL2JhbmsuenQudGVzdCIsInN1YiI6InRlbGxlciIsImV4cCI6NDEwMjQ0NDgwMH0.C3nUXs_O--0_5sO8a8qHLbTCbFidV3KoCec5Deb1EcxbZcnGnRQKFVlaR6QcfN6Fv56ffR6d-tK2wOtyCPkB_idSfSUb3NtfVS1TdXE7DoymHzSN6EEwrDlOVQ1zAPvYWFWRobmdd2W-fkAX0hQYkPJVuaUvD7V8DbhkNJ64ENfNTRBm7dQIiI-ShmeYwitvqd3KgjhIAhCITi1v8PnJtcs2f6PGO68CTYkurE8LYlPXwSQg6jAGUPLZz4osNjPlU-mlXMIRY3hnlUlMrzeToX9J9rqQZQylL2zHM6n3jaKlBvEfD0zlrHr9VDuJox_NlGB9N7fITknI4g4ot_WORA";
const RS256_KEYS: &str = r#"{"keys":[{"kty":"RSA","kid":"r","n":"wB1TbEfP95mfiMmK9ctmbCUuLkOTSF-Z_W_f3yGAPRM38j1x6Th01hHcg5MSllKVVX9rdIIhxchaeW_dyvYSR-GRWl9TSugTKaXtEWoQJcfJH8fWsvqF93YydYUi8E--T1HTPsmQceBBATTt3IRETLeSJarmBLent9YNEqg8YOjVws0IE09-aXOLjUxRTxrcJYtvBklRprnvCkzAubHJaqjh-rnu5O5wBqhZBCxsFTyrJ-PHxpSJn_X7-M4Jg29i21dgDtRIQGNxaCZGNC1atfvH_mEfAMJFOWYnVrb0Z9ntB7bvbiDZGQM2xr0JKKH0B3p7q00N6hUqEeebTISlJw","e":"AQAB"}]}"#;

fn bank() -> World {
    let text = include_str!("../../../../suites/worlds/bank.yaml");
    world(&Source::new("bank.yaml", text)).unwrap_or_else(|error| panic!("{error}"))
}

fn rule(text: &str) -> JwtRule {
    match policies(text).remove(0) {
        MeshPolicy::Requests(RequestAuthentication { mut rules, .. }) => rules.remove(0),
        other => panic!("{other:?}"),
    }
}

fn of_the_bank() -> JwtRule {
    rule(include_str!("../../../../suites/l5-jwt/vault-tokens.yaml"))
}

fn for_the_vault() -> JwtRule {
    rule(include_str!("../../../../suites/l5-jwt/vault-tokens-for-the-vault.yaml"))
}

fn of_rs256() -> JwtRule {
    JwtRule { jwks: RS256_KEYS.to_owned(), ..of_the_bank() }
}

/// A token of the bank by its name, as a rule sees it at a time: its subject, or why it is not believed.
fn seen(rule: &JwtRule, name: &str, now: u64) -> Result<String, TokenError> {
    let world = bank();
    let token = world.tokens.iter().find(|it| it.name == name).expect("the bank has the token");
    let claims = verify(rule, &token.text, now)?;
    Ok(claims["sub"].as_str().expect("a subject is a text").to_owned())
}

/// Parts of a token, written in base64.
fn token(header: &str, payload: &str, signature: &str) -> String {
    let [header, payload] = [header, payload].map(|it| URL_SAFE_NO_PAD.encode(it));
    format!("{header}.{payload}.{signature}")
}

#[test]
fn the_tokens_of_the_bank_are_what_is_said_of_them() {
    let rule = of_the_bank();
    let mut known = 0;
    for (name, found) in [
        ("teller", Ok("teller")),
        ("clerk", Ok("clerk")),
        ("other-audience", Ok("teller")),
        ("expired", Err(TokenError::Expired)),
        ("other-issuer", Err(TokenError::Issuer)),
        ("other-key", Err(TokenError::Signature)),
        ("unsigned", Err(TokenError::Form)),
        ("garbled", Err(TokenError::Form)),
    ] {
        assert_eq!(seen(&rule, name, NOW), found.map(str::to_owned), "{name}");
        known += 1;
    }
    assert_eq!(bank().tokens.len(), known);
}

#[test]
fn a_token_is_for_one_of_the_audiences_if_the_rule_names_any() {
    assert_eq!(seen(&for_the_vault(), "teller", NOW), Ok("teller".to_owned()));
    assert_eq!(seen(&for_the_vault(), "other-audience", NOW), Err(TokenError::Audience));
    let nobody = token(r#"{"alg":"ES256"}"#, r#"{"iss":"https://bank.zt.test"}"#, "AA");
    assert_eq!(verify(&for_the_vault(), &nobody, NOW), Err(TokenError::Audience));
    let several = r#"{"iss":"https://bank.zt.test","aud":["ledger","vault"]}"#;
    let several = token(r#"{"alg":"ES256"}"#, several, "AA");
    assert_eq!(verify(&for_the_vault(), &several, NOW), Err(TokenError::Signature));
}

/// `kClockSkewInSecond`.
#[test]
fn a_token_has_its_time_and_a_minute_more() {
    let until = 4_102_444_800;
    assert!(seen(&of_the_bank(), "teller", until + 60).is_ok());
    assert_eq!(seen(&of_the_bank(), "teller", until + 61), Err(TokenError::Expired));
    let early = format!(r#"{{"iss":"https://bank.zt.test","nbf":{}}}"#, NOW + 61);
    let early = token(r#"{"alg":"ES256"}"#, &early, "AA");
    assert_eq!(verify(&of_the_bank(), &early, NOW), Err(TokenError::NotYet));
    assert_eq!(verify(&of_the_bank(), &early, NOW + 1), Err(TokenError::Signature));
}

#[test]
fn a_signature_of_rs256_is_verified_too_and_covers_what_is_said() {
    assert!(verify(&of_rs256(), RS256, NOW).is_ok());
    let mut parts = RS256.split('.');
    let (header, signature) = (parts.next().unwrap(), parts.nth(1).unwrap());
    let other = URL_SAFE_NO_PAD.encode(r#"{"iss":"https://bank.zt.test","sub":"clerk"}"#);
    let forged = format!("{header}.{other}.{signature}");
    assert_eq!(verify(&of_rs256(), &forged, NOW), Err(TokenError::Signature));
}

#[test]
fn a_key_is_of_the_name_and_the_algorithm_of_the_token() {
    let named = |header: &str| {
        verify(&of_the_bank(), &token(header, r#"{"iss":"https://bank.zt.test"}"#, "AA"), NOW)
    };
    assert_eq!(named(r#"{"alg":"ES256","kid":"other"}"#), Err(TokenError::Key));
    assert_eq!(named(r#"{"alg":"RS256","kid":"bank"}"#), Err(TokenError::Key));
    assert_eq!(named(r#"{"alg":"ES256"}"#), Err(TokenError::Signature));
}

#[test]
fn an_algorithm_that_signs_nothing_is_not_supported() {
    for algorithm in ["none", "None", "HS256", ""] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let claims = r#"{"iss":"https://bank.zt.test","sub":"teller"}"#;
        let unsigned = token(&header, claims, "AA");
        assert_eq!(
            verify(&of_the_bank(), &unsigned, NOW),
            Err(TokenError::Algorithm),
            "{algorithm}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_believed_but_a_signed_one(text in "[a-zA-Z0-9_.-]{0,200}") {
        proptest::prop_assert!(verify(&of_rs256(), &text, NOW).is_err());
    }
}
