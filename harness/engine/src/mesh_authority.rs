//! The authority of a mesh: certificates with SPIFFE identities, as istiod issues them.
//!
//! A fabric has one, of its own or read from a cluster; it makes papers for the clients of tunnels, good ones and ones with
//! a flaw. Nothing here outlives the run, and a certificate is good for days.

use std::fmt;
use std::net::IpAddr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType, date_time_ymd,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::prelude::FromDer;
use ztc_model::policy::mesh::{SpiffeId, TRUST_DOMAIN};
use ztc_model::stimulus::Flaw;
use ztc_wire::{Certified, Der};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum MeshAuthorityError {
    /// The authority could not be made.
    #[error("cannot make the authority of the mesh")]
    Make(#[source] rcgen::Error),
    /// The key of an authority that is there already cannot be used.
    #[error("cannot use the key of the mesh's authority")]
    Key(#[source] rcgen::Error),
    /// Its certificate cannot be read.
    #[error("cannot read the certificate of the mesh's authority")]
    Read(#[source] rcgen::Error),
    /// It is not the time of its certificate.
    #[error(
        "the certificate of the mesh's authority is good from {from} until {until}, and not now: nobody believes what it \
         issues; have the authority renewed"
    )]
    Time {
        /// From when.
        from: String,
        /// Until when.
        until: String,
    },
    /// Its certificate is none of X.509.
    #[error("cannot read when the certificate of the mesh's authority is good")]
    Parse(#[source] X509Error),
    /// A request for a certificate cannot be granted.
    #[error("cannot sign what somebody asks for a certificate with")]
    Sign(#[source] rcgen::Error),
    /// The certificate of a server could not be made.
    #[error("cannot make a certificate for the server at {address}")]
    Server {
        /// Where it serves.
        address: IpAddr,
        /// Why.
        source: rcgen::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {identity}")]
    Issue {
        /// For whom.
        identity: SpiffeId,
        /// Why.
        source: rcgen::Error,
    },
}

/// The authority of a mesh.
pub struct MeshAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Of the same name, and believed by nobody.
    forger: Issuer<'static, KeyPair>,
    certificate: Der,
}

impl fmt::Debug for MeshAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshAuthority").finish_non_exhaustive()
    }
}

impl MeshAuthority {
    /// A new one.
    ///
    /// # Errors
    /// [`MeshAuthorityError::Make`].
    pub fn new() -> Result<Self, MeshAuthorityError> {
        let key = KeyPair::generate().map_err(MeshAuthorityError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, TRUST_DOMAIN);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(MeshAuthorityError::Make)?;
        Self::known(certificate.der().to_vec(), key)
    }

    /// One that is there already, by its certificate (X.509) and its key (PKCS #8), both in DER.
    ///
    /// # Errors
    /// [`MeshAuthorityError`], when either is none, or its time is over or yet to come.
    pub fn of(certificate: Vec<u8>, key: Vec<u8>) -> Result<Self, MeshAuthorityError> {
        let key = KeyPair::try_from(key).map_err(MeshAuthorityError::Key)?;
        let authority = Self::known(certificate, key)?;
        authority.is_of_this_time()?;
        Ok(authority)
    }

    /// A proxy may or may not look at the time of the authority itself: rustls does not, and Envoy does. What it says of the
    /// certificates would be no outcome of a policy.
    fn is_of_this_time(&self) -> Result<(), MeshAuthorityError> {
        let (_, certificate) = X509Certificate::from_der(&self.certificate.0)
            .map_err(|error| MeshAuthorityError::Parse(error.into()))?;
        let validity = certificate.validity();
        if validity.is_valid() {
            return Ok(());
        }
        let [from, until] = [validity.not_before, validity.not_after].map(|it| it.to_string());
        Err(MeshAuthorityError::Time { from, until })
    }

    fn known(certificate: Vec<u8>, key: KeyPair) -> Result<Self, MeshAuthorityError> {
        let der = certificate.as_slice().into();
        let named = |key| Issuer::from_ca_cert_der(&der, key).map_err(MeshAuthorityError::Read);
        let issuer = named(key)?;
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let forger = named(other.map_err(MeshAuthorityError::Make)?)?;
        Ok(Self { issuer, forger, certificate: Der(certificate) })
    }

    /// Its certificate.
    pub const fn certificate(&self) -> &Der {
        &self.certificate
    }

    /// A certificate for an identity, which is all that it names, with a flaw or without.
    ///
    /// # Errors
    /// [`MeshAuthorityError::Issue`].
    pub fn issue(
        &self,
        identity: &SpiffeId,
        flaw: Option<Flaw>,
    ) -> Result<Certified, MeshAuthorityError> {
        let issuer = if flaw == Some(Flaw::Forged) { &self.forger } else { &self.issuer };
        let issue = || {
            let name = SanType::URI(identity.to_string().try_into()?);
            certified(name, validity(today(), flaw), issuer)
        };
        issue().map_err(|source| MeshAuthorityError::Issue { identity: identity.clone(), source })
    }

    /// The certificate that a proxy asks for, by its request (PKCS #10) in DER: for the identity that it names, whoever asks.
    ///
    /// # Errors
    /// [`MeshAuthorityError::Sign`].
    pub fn sign(&self, request: &[u8]) -> Result<Der, MeshAuthorityError> {
        let sign = || {
            let mut request = CertificateSigningRequestParams::from_der(&request.into())?;
            of_a_workload(&mut request.params, proxys(today()));
            let certificate = request.signed_by(&self.issuer)?;
            Ok(Der(certificate.der().to_vec()))
        };
        sign().map_err(MeshAuthorityError::Sign)
    }

    /// A certificate for whoever serves proxies at an address.
    ///
    /// # Errors
    /// [`MeshAuthorityError::Server`].
    pub fn issue_to_server(&self, address: IpAddr) -> Result<Certified, MeshAuthorityError> {
        let name = SanType::IpAddress(address);
        let issued = certified(name, validity(today(), None), &self.issuer);
        issued.map_err(|source| MeshAuthorityError::Server { address, source })
    }
}

/// A certificate for a name, with a new key.
fn certified(
    name: SanType,
    days: [Date; 2],
    issuer: &Issuer<'_, KeyPair>,
) -> Result<Certified, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![name];
    of_a_workload(&mut params, days);
    let certificate = params.signed_by(&key, issuer)?;
    let certificate = Der(certificate.der().to_vec());
    Ok(Certified { certificate, key: Der(key.serialize_der()) })
}

/// Makes it one for either side of TLS, good from one day to another.
fn of_a_workload(params: &mut CertificateParams, days: [Date; 2]) {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let begins = |day: Date| {
        let (month, of_month) = (day.month().unsigned_abs(), day.day().unsigned_abs());
        date_time_ymd(day.year().into(), month, of_month)
    };
    [params.not_before, params.not_after] = days.map(begins);
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// From when to when what a proxy asks for is good: a proxy asks again when half of that is over, which is not today
/// (`refresh_at` in `src/tls/certificate.rs` of istio/ztunnel).
fn proxys(today: Date) -> [Date; 2] {
    [-1, 9].map(|days: i64| today.saturating_add(days.days()))
}

/// From when to when a certificate is good, with days to spare for clocks that differ.
fn validity(today: Date, flaw: Option<Flaw>) -> [Date; 2] {
    let in_days = |days: i64| today.saturating_add(days.days());
    match flaw {
        None | Some(Flaw::Forged) => [in_days(-1), in_days(2)],
        Some(Flaw::Expired) => [in_days(-3), in_days(-1)],
        Some(Flaw::Early) => [in_days(2), in_days(4)],
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use x509_parser::extensions::GeneralName;

    use super::*;

    #[test]
    fn a_certificate_is_good_today_unless_its_flaw_is_its_time() {
        let today = date(2026, 3, 1);
        let good = |flaw| {
            let [from, until] = validity(today, flaw);
            from < today && today < until
        };
        assert!(good(None) && good(Some(Flaw::Forged)));
        assert!(!good(Some(Flaw::Expired)) && !good(Some(Flaw::Early)));
    }

    #[test]
    fn half_of_the_time_of_a_proxys_certificate_is_not_over_today() {
        let today = date(2026, 3, 1);
        let [from, until] = proxys(today);
        let half = from.until(until).unwrap().get_days() / 2;
        assert!(from.saturating_add(half.days()) > today.tomorrow().unwrap());
    }

    #[test]
    fn every_certificate_has_a_key_of_its_own() {
        let authority = MeshAuthority::new().unwrap();
        let teller = "spiffe://cluster.local/ns/zt-bank/sa/teller".parse().unwrap();
        let issued = [None, None, Some(Flaw::Forged)].map(|it| authority.issue(&teller, it));
        let [one, other, forged] = issued.map(|it| it.unwrap().key);
        assert!(one != other && other != forged);
    }

    #[test]
    fn a_request_is_granted_for_the_identity_that_it_names() {
        let authority = MeshAuthority::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut asked = CertificateParams::default();
        let teller = "spiffe://cluster.local/ns/zt-bank/sa/teller";
        asked.subject_alt_names = vec![SanType::URI(teller.try_into().unwrap())];
        let request = asked.serialize_request(&key).unwrap();
        let signed = authority.sign(request.der()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&signed.0).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::URI(teller)]);
        assert!(certificate.validity().is_valid());
        let error = authority.sign(&[1, 2, 3]).unwrap_err();
        assert!(matches!(error, MeshAuthorityError::Sign(_)), "{error}");
    }

    #[test]
    fn what_is_no_key_or_no_certificate_is_told() {
        let key = KeyPair::generate().unwrap().serialize_der();
        let error = MeshAuthority::of(vec![1, 2, 3], key).unwrap_err();
        assert!(matches!(error, MeshAuthorityError::Read(_)), "{error}");
        let certificate = MeshAuthority::new().unwrap().certificate().0.clone();
        let error = MeshAuthority::of(certificate, vec![1, 2, 3]).unwrap_err();
        assert!(matches!(error, MeshAuthorityError::Key(_)), "{error}");
    }

    #[test]
    fn an_authority_whose_time_is_over_or_yet_to_come_is_not_used() {
        for [from, until] in [[2020, 2021], [2190, 2199]] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            [params.not_before, params.not_after] = [from, until].map(|it| date_time_ymd(it, 1, 1));
            let certificate = params.self_signed(&key).unwrap().der().to_vec();
            let error = MeshAuthority::of(certificate, key.serialize_der()).unwrap_err();
            assert!(matches!(error, MeshAuthorityError::Time { .. }), "{error}");
        }
    }
}
