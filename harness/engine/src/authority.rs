//! The authority that the certificates of a run come from.
//!
//! All that it issues follows from a secret of 32 bytes: Ed25519 signs the same thing the same way each
//! time (RFC 8032 §5.1.6). So whoever keeps the secret finds servers of an earlier run as they have to be.

use std::fmt;
use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType,
};
use sha2::{Digest, Sha256};
use ztc_model::world::{OutsideHost, Pod, ServedPort, World};
use ztc_wire::{Certified, Der, Tls};

/// What every name of the authority and of its certificates begins with.
const NAME: &str = "ztc";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The authority cannot be made.
    #[error("make an authority for certificates")]
    Make(#[source] rcgen::Error),
    /// A certificate cannot be made.
    #[error("make the certificate of {server}")]
    Issue {
        /// Whose.
        server: String,
        /// Why not.
        source: rcgen::Error,
    },
    /// There is no randomness.
    #[error("make a secret for certificates")]
    Secret(#[source] getrandom::Error),
}

/// An authority: its certificate is believed by every agent of a run, and by nobody else.
pub struct Authority {
    secret: [u8; 32],
    issuer: Issuer<'static, KeyPair>,
    certificate: Der,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A secret that nobody knows.
    ///
    /// # Errors
    /// [`AuthorityError::Secret`].
    pub fn secret() -> Result<[u8; 32], AuthorityError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(AuthorityError::Secret)?;
        Ok(secret)
    }

    /// The authority of a secret.
    ///
    /// # Errors
    /// [`AuthorityError::Make`].
    pub fn new(secret: [u8; 32]) -> Result<Self, AuthorityError> {
        let key = key(&secret, "").map_err(AuthorityError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(AuthorityError::Make)?;
        let certificate = Der(certificate.der().to_vec());
        Ok(Self { secret, issuer: Issuer::new(params, key), certificate })
    }

    /// What the agent of a pod needs; nothing in a world in which nobody speaks TLS.
    ///
    /// # Errors
    /// [`AuthorityError::Issue`], when a name is none that a certificate can be for.
    pub fn pod(&self, world: &World, pod: &Pod) -> Result<Option<Tls>, AuthorityError> {
        let name = pod.reference().to_string();
        self.agent(world, &name, &pod.serves, &world.names_of(pod), &[])
    }

    /// What the agent of an outside host with these addresses needs, likewise.
    ///
    /// # Errors
    /// [`AuthorityError::Issue`], when a name is none that a certificate can be for.
    pub fn outside(
        &self,
        world: &World,
        host: &OutsideHost,
        addresses: &[IpAddr],
    ) -> Result<Option<Tls>, AuthorityError> {
        let name = format!("outside/{}", host.name);
        self.agent(world, &name, &host.serves, &host.names(), addresses)
    }

    fn agent(
        &self,
        world: &World,
        name: &str,
        serves: &[ServedPort],
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Option<Tls>, AuthorityError> {
        if !world.speaks_tls() {
            return Ok(None);
        }
        let is_server = serves.iter().any(|it| it.speaks.is_tls());
        let shows = is_server.then(|| self.issue(name, names, addresses)).transpose();
        let issue = |source| AuthorityError::Issue { server: name.to_owned(), source };
        let shows = shows.map_err(issue)?;
        Ok(Some(Tls { authority: self.certificate.clone(), shows }))
    }

    fn issue(
        &self,
        server: &str,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Certified, rcgen::Error> {
        let key = key(&self.secret, server)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.subject_alt_names.extend(addresses.iter().map(|it| SanType::IpAddress(*it)));
        params.distinguished_name.push(DnType::CommonName, format!("{NAME} {server}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certified {
            certificate: Der(certificate.der().to_vec()),
            key: Der(key.serialize_der()),
        })
    }
}

/// The key of somebody, by the secret of the authority.
fn key(secret: &[u8; 32], whose: &str) -> Result<KeyPair, rcgen::Error> {
    // PKCS #8 around the 32 bytes of an Ed25519 key (RFC 8410 §7).
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let seed = Sha256::new().chain_update(secret).chain_update(whose).finalize();
    der.extend_from_slice(&seed);
    KeyPair::from_pkcs8_der_and_sign_algo(&der.as_slice().into(), &PKCS_ED25519)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = "\
world: w
about: A pod and two hosts.
namespaces: [{ name: zt-shop }]
pods: [{ namespace: zt-shop, name: web, node: a }]
outside:
  - { name: api, dns: [api.zt.test], serves: [{ speaks: https, port: 443 }] }
  - { name: rival, dns: [rival.zt.test], serves: [{ speaks: tls, port: 443 }] }
";

    fn world(text: &str) -> World {
        let source = ztc_model::yaml::Source::new("w.yaml", text.to_owned());
        ztc_model::suite::world(&source).unwrap()
    }

    /// What a host is told whose secret is made of this byte.
    fn host(secret: u8, name: &str) -> Tls {
        let world = world(WORLD);
        let host = world.outside(name).unwrap();
        let authority = Authority::new([secret; 32]).unwrap();
        authority.outside(&world, host, &[[192, 0, 2, 1].into()]).unwrap().unwrap()
    }

    #[test]
    fn the_same_secret_issues_the_same_certificates() {
        assert_eq!(host(1, "api"), host(1, "api"));
    }

    #[test]
    fn another_secret_makes_another_authority_and_another_host_has_another_key() {
        assert_ne!(host(1, "api").authority, host(2, "api").authority);
        assert_ne!(host(1, "api").shows, host(2, "api").shows);
        let key = |name| host(1, name).shows.unwrap().key;
        assert_ne!(key("api"), key("rival"));
    }

    #[test]
    fn who_serves_nothing_over_tls_has_no_certificate() {
        let world = world(WORLD);
        let tls = Authority::new([1; 32]).unwrap().pod(&world, &world.pods[0]).unwrap().unwrap();
        assert_eq!(tls.shows, None);
    }

    #[test]
    fn where_nobody_speaks_tls_nobody_is_told_anything() {
        let world = world(&WORLD.replace("https", "http").replace("tls", "tcp"));
        let authority = Authority::new([1; 32]).unwrap();
        assert_eq!(authority.pod(&world, &world.pods[0]).unwrap(), None);
        assert_eq!(authority.outside(&world, &world.outside[0], &[]).unwrap(), None);
    }
}
