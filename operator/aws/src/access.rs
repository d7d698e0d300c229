//! What every AWS client shares: credentials, trust, timeouts and one HTTP connection pool.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_rds::config::{
    IdentityCache, Region, SharedHttpClient, SharedIdentityCache, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Where credentials come from. Its `Debug` output holds no secret.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// Two files, `access-key-id` and `secret-access-key`, in a mounted folder. They are read
    /// at each call, so that a rotated secret is used at once.
    Folder(PathBuf),
    /// Keys given directly, as tests do. `Credentials` hides its secret from `Debug`.
    Keys(Credentials),
    /// The SDK's own chain: environment, web identity (IAM roles for service accounts),
    /// container and instance roles.
    Chain,
}

/// Limits of one call to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTimeouts {
    /// TCP and TLS.
    pub connect: Duration,
    /// The whole call, connecting included.
    pub attempt: Duration,
}

impl Default for CallTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_millis(1000), attempt: Duration::from_millis(1500) }
    }
}

/// Why access to AWS could not be set up. Permanent: the configuration must change.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The CA given for the AWS endpoints holds no usable certificate.
    #[error(
        "the CA for AWS endpoints is not a PEM file with at least one certificate ({reason}); give the CA's certificate or leave it out for public trust"
    )]
    BadCa {
        /// What was wrong with it.
        reason: String,
    },
    /// The TLS client refused its configuration.
    #[error("the TLS client for AWS endpoints could not be built: {reason}")]
    Tls {
        /// The TLS library's words.
        reason: String,
    },
}

/// Credentials, trust, timeouts and the connection pool that all clients of a process share.
#[derive(Debug, Clone)]
pub struct AwsAccess {
    pub(crate) credentials: SharedCredentialsProvider,
    pub(crate) identity_cache: SharedIdentityCache,
    pub(crate) http: SharedHttpClient,
    pub(crate) timeouts: CallTimeouts,
}

impl AwsAccess {
    /// Sets access up; no call is made. With `ca_pem` only that CA is trusted, without it the
    /// system's roots are.
    ///
    /// # Errors
    /// [`AccessError`] when the CA cannot be used.
    pub async fn new(
        source: CredentialSource,
        ca_pem: Option<&[u8]>,
        timeouts: CallTimeouts,
    ) -> Result<Self, AccessError> {
        let http = http_client(ca_pem)?;
        // The SDK would keep keys that name no expiry for 15 minutes, far longer than a lease lasts without them. Its own
        // chain asks servers, and they name one.
        let (credentials, identity_cache) = match source {
            CredentialSource::Folder(folder) => {
                (SharedCredentialsProvider::new(FolderCredentials { folder }), IdentityCache::no_cache())
            }
            CredentialSource::Keys(keys) => (SharedCredentialsProvider::new(keys), IdentityCache::no_cache()),
            CredentialSource::Chain => {
                let chain = DefaultCredentialsChain::builder().build().await;
                (SharedCredentialsProvider::new(chain), IdentityCache::lazy().build())
            }
        };
        Ok(Self { credentials, identity_cache, http, timeouts })
    }

    /// The SDK's view of the timeouts. `whole` bounds loading credentials as well.
    pub(crate) fn timeout_config(&self, whole: Duration) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.timeouts.connect)
            .operation_attempt_timeout(self.timeouts.attempt)
            .operation_timeout(whole)
            .build()
    }

    /// Attempt timeouts already bound slow bodies.
    pub(crate) fn no_stall_watch() -> StalledStreamProtectionConfig {
        StalledStreamProtectionConfig::disabled()
    }

    pub(crate) fn region(name: &str) -> Region {
        Region::new(name.to_owned())
    }
}

fn http_client(ca_pem: Option<&[u8]>) -> Result<SharedHttpClient, AccessError> {
    let trust = match ca_pem {
        None => TrustStore::default(),
        Some(pem) => {
            check_pem(pem)?;
            TrustStore::empty().with_pem_certificate(pem)
        }
    };
    let context = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| AccessError::Tls { reason: error.to_string() })?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .build_https())
}

/// The HTTP library reads the PEM at the first call and panics on nonsense, so look at it here.
fn check_pem(pem: &[u8]) -> Result<(), AccessError> {
    let bad = |reason: String| AccessError::BadCa { reason };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("it holds none".to_owned()));
    }
    Ok(())
}

/// Long-lived keys from a mounted secret.
#[derive(Debug)]
struct FolderCredentials {
    folder: PathBuf,
}

impl ProvideCredentials for FolderCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let key = read_key(&self.folder, "access-key-id").await?;
            let secret = read_key(&self.folder, "secret-access-key").await?;
            Ok(Credentials::new(key, secret, None, None, "mounted folder"))
        })
    }
}

async fn read_key(folder: &Path, name: &str) -> Result<String, CredentialsError> {
    let path = folder.join(name);
    let text = tokio::fs::read_to_string(&path).await.map_err(|error| {
        CredentialsError::provider_error(format!("cannot read {}: {error}", path.display()))
    })?;
    let text = text.trim();
    if text.is_empty() {
        return Err(CredentialsError::provider_error(format!("{} is empty", path.display())));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_no_certificate_is_refused_before_the_first_call() {
        assert!(matches!(http_client(Some(b"no certificate")), Err(AccessError::BadCa { .. })));
    }

    #[tokio::test]
    async fn secrets_stay_out_of_debug_output() {
        let keys = Credentials::new("AKIDEXAMPLE", "very-secret-key", None, None, "test");
        let source = CredentialSource::Keys(keys);
        let shown = format!("{source:?}");
        let access = AwsAccess::new(source, None, CallTimeouts::default()).await.unwrap();
        assert!(!shown.contains("very-secret-key"), "{shown}");
        assert!(!format!("{access:?}").contains("very-secret-key"));
    }
}
