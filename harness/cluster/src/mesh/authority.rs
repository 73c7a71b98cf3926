//! The authority of Istio's mesh, as istiod keeps it: a certificate and a key in a secret.
//!
//! Whoever may read that secret can be anybody in the mesh. It is read for cases that show certificates, and for no others;
//! what is read stays in this process, and what is issued with it is good for days.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use ztc_engine::mesh_authority::{MeshAuthority, MeshAuthorityError};

use crate::api::ApiError;
use crate::charts::ISTIO;

/// Where istiod keeps the authority that it has made (`security/pkg/pki/ca/ca.go` of Istio, as are the two that follow). One
/// that somebody has plugged in is in another secret.
const SECRET: &str = "istio-ca-secret";
const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";

/// Why the authority cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// The secret could not be read.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// There is no such secret.
    #[error("there is no secret {SECRET} in {ISTIO}: istiod has not made its own authority")]
    None,
    /// Something in it is not as istiod writes it.
    #[error("`{entry}` of secret {SECRET} is {what}")]
    Entry {
        /// What.
        entry: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The two make no authority.
    #[error(transparent)]
    Authority(#[from] MeshAuthorityError),
}

/// The authority that a cluster's istiod has made.
pub(crate) async fn of_istiod(client: &Client) -> Result<MeshAuthority, AuthorityError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), ISTIO);
    let secret = secrets.get_opt(SECRET).await.map_err(|source| ApiError::Read {
        what: format!("secret {SECRET} in {ISTIO}"),
        source: source.into(),
    })?;
    let data = secret.ok_or(AuthorityError::None)?.data.unwrap_or_default();
    let entry = |entry: &'static str| {
        let found = data.get(entry).map(|it| it.0.as_slice());
        found.ok_or(AuthorityError::Entry { entry, what: "missing" })
    };
    authority(entry(CERTIFICATE)?, entry(KEY)?)
}

fn authority(certificate: &[u8], key: &[u8]) -> Result<MeshAuthority, AuthorityError> {
    let wrong = |entry| move |what| AuthorityError::Entry { entry, what };
    let (label, certificate) = unarmoured(certificate).map_err(wrong(CERTIFICATE))?;
    if label != "CERTIFICATE" {
        return Err(wrong(CERTIFICATE)("no certificate"));
    }
    let (label, key) = unarmoured(key).map_err(wrong(KEY))?;
    let key = match label {
        "PRIVATE KEY" => key,
        "RSA PRIVATE KEY" => rsa_in_pkcs8(&key),
        _ => return Err(wrong(KEY)("a key of a kind that is not read")),
    };
    Ok(MeshAuthority::of(certificate, key)?)
}

/// The label and the bytes of the first block of PEM (RFC 7468) in a text.
fn unarmoured(text: &[u8]) -> Result<(&str, Vec<u8>), &'static str> {
    let text = str::from_utf8(text).map_err(|_error| "no text")?;
    let (_, rest) = text.split_once("-----BEGIN ").ok_or("no PEM")?;
    let (label, rest) = rest.split_once("-----").ok_or("no PEM")?;
    let (body, _) = rest.split_once("-----END ").ok_or("cut off")?;
    let body: String = body.split_whitespace().collect();
    Ok((label, STANDARD.decode(body).map_err(|_error| "no base64")?))
}

/// A key of RSA (PKCS #1) in the form for keys of all kinds (PKCS #8, RFC 5208 §5).
fn rsa_in_pkcs8(key: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    const OCTET_STRING: u8 = 0x04;
    /// Version 0, and the algorithm: rsaEncryption without parameters (RFC 8017 §A.1).
    const HEAD: [u8; 18] = [
        0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
        0x01, 0x05, 0x00,
    ];
    tagged(SEQUENCE, &[&HEAD, tagged(OCTET_STRING, key).as_slice()].concat())
}

/// A value of DER with its tag and its length (X.690 §8.1.3).
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let zeros = length.iter().take_while(|it| **it == 0).count();
    let significant = &length[zeros..];
    let mut der = vec![tag];
    match significant {
        [] => der.push(0),
        [short @ ..=0x7f] => der.push(*short),
        long => {
            der.push(0x80 | u8::try_from(long.len()).unwrap_or(0x7f));
            der.extend_from_slice(long);
        }
    }
    der.extend_from_slice(value);
    der
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    /// An authority as istiod makes one, but that its key is none of RSA.
    fn made() -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let armoured = |label: &str, der: &[u8]| {
            let body = STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        [armoured("CERTIFICATE", certificate.der()), armoured("PRIVATE KEY", &key.serialize_der())]
    }

    #[test]
    fn an_authority_that_was_made_elsewhere_issues_certificates() {
        let [certificate, key] = made();
        let authority = authority(certificate.as_bytes(), key.as_bytes()).unwrap();
        let teller = "spiffe://cluster.local/ns/zt-bank/sa/teller".parse().unwrap();
        assert!(authority.issue(&teller, None).is_ok());
    }

    #[test]
    fn a_key_of_rsa_is_put_into_what_is_for_keys_of_all_kinds() {
        let der = rsa_in_pkcs8(&[7; 3]);
        assert_eq!(der[..5], [0x30, 23, 0x02, 0x01, 0x00]);
        assert_eq!(der[20..], [0x04, 3, 7, 7, 7]);
    }

    #[test]
    fn what_is_not_as_istiod_writes_it_is_told_without_a_word_of_it() {
        let [certificate, key] = made();
        for (certificate, key, words) in [
            ("nothing", key.as_str(), "`ca-cert.pem` of secret istio-ca-secret is no PEM"),
            (&key, &key, "is no certificate"),
            (&certificate, "-----BEGIN EC PRIVATE KEY-----\nYQ==\n-----END E", "of a kind"),
            (&certificate, "-----BEGIN RSA PRIVATE KEY-----\nYQ==", "is cut off"),
            (&certificate, "-----BEGIN PRIVATE KEY-----\nY\n-----END P", "is no base64"),
            (&certificate, "-----BEGIN PRIVATE KEY-----\nYQ==\n-----END P", "cannot use the key"),
        ] {
            let error = authority(certificate.as_bytes(), key.as_bytes()).unwrap_err();
            let told = ztc_engine::chain(&error);
            assert!(told.contains(words) && !told.contains("YQ"), "{told}");
        }
    }

    #[test]
    fn lengths_are_as_short_as_they_can_be() {
        assert_eq!(tagged(4, &[]), [4, 0]);
        assert_eq!(tagged(4, &[1; 127])[..2], [4, 0x7f]);
        assert_eq!(tagged(4, &[1; 128])[..3], [4, 0x81, 0x80]);
        assert_eq!(tagged(4, &[1; 300])[..4], [4, 0x82, 0x01, 0x2c]);
    }
}
