//! Private certificate authorities and what they sign.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::cache::{write, write_secret};
use crate::error::{Error, Result};

/// A certificate authority; its key lives only as long as this value.
pub(crate) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
pub(crate) struct Request<'a> {
    /// Common name.
    pub(crate) name: &'a str,
    /// Organisation; Kubernetes reads it as the group of a client.
    pub(crate) organisation: Option<&'a str>,
    /// Names a server answers to.
    pub(crate) names: &'a [String],
    /// Addresses a server answers at.
    pub(crate) addresses: &'a [IpAddr],
}

/// Files of a certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

fn failed(subject: &str) -> impl FnOnce(rcgen::Error) -> Error {
    let subject = subject.to_owned();
    move |source| Error::Certificate { subject, source }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed(name))?;
        let certificate = params.self_signed(&key).map_err(failed(name))?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Its certificate in PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate for clients and servers and writes `NAME.crt` and `NAME.key` (mode 0600).
    pub(crate) fn issue(&self, folder: &Path, file: &str, request: &Request<'_>) -> Result<Identity> {
        let mut params = CertificateParams::new(request.names).map_err(failed(request.name))?;
        params.distinguished_name.push(DnType::CommonName, request.name);
        if let Some(organisation) = request.organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        params.subject_alt_names.extend(request.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(failed(request.name))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed(request.name))?;
        let identity = Identity {
            certificate: folder.join(format!("{file}.crt")),
            key: folder.join(format!("{file}.key")),
        };
        write(&identity.certificate, certificate.pem())?;
        write_secret(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}

/// Writes a fresh key pair: `NAME.key` (mode 0600) and `NAME.pub`.
pub(crate) fn key_pair(folder: &Path, file: &str) -> Result<Identity> {
    let key = KeyPair::generate().map_err(failed(file))?;
    let identity =
        Identity { certificate: folder.join(format!("{file}.pub")), key: folder.join(format!("{file}.key")) };
    write(&identity.certificate, key.public_key_pem())?;
    write_secret(&identity.key, key.serialize_pem())?;
    Ok(identity)
}
