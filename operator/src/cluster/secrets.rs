//! Secrets, read by name and kept for a while. Nothing here prints a value.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::deadline::within;

/// A value read longer ago is read again; a rotated password works after at most this time.
const KEEP: Duration = Duration::from_secs(30);
/// A secret that could not be read is asked for again after this time.
const RETRY: Duration = Duration::from_secs(2);
/// One read.
const CALL: Duration = Duration::from_millis(1500);

/// Why a secret's value cannot be used. Harmless to what runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It does not exist.
    #[error("secret {0} does not exist; create it or correct the reference in the spec")]
    Missing(String),
    /// It has no such key.
    #[error("secret {secret} has no key {key:?}; add it or correct the reference in the spec")]
    NoKey {
        /// Namespace and name.
        secret: String,
        /// The key.
        key: String,
    },
    /// The value is not text.
    #[error("key {key:?} of secret {secret} is not UTF-8 text")]
    NotText {
        /// Namespace and name.
        secret: String,
        /// The key.
        key: String,
    },
    /// The API server did not give it.
    #[error("secret {secret} could not be read: {why}")]
    Unreadable {
        /// Namespace and name.
        secret: String,
        /// What happened.
        why: String,
    },
}

/// The values of one secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretData {
    name: String,
    version: String,
    values: BTreeMap<String, ByteString>,
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretData")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl SecretData {
    /// Changes whenever the secret does.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The bytes of a key.
    ///
    /// # Errors
    /// [`SecretError::NoKey`].
    pub fn bytes(&self, key: &str) -> Result<&[u8], SecretError> {
        let missing = || SecretError::NoKey { secret: self.name.clone(), key: key.to_owned() };
        self.values.get(key).map(|value| value.0.as_slice()).ok_or_else(missing)
    }

    /// The text of a key, without a trailing line break.
    ///
    /// # Errors
    /// [`SecretError::NoKey`], [`SecretError::NotText`].
    pub fn text(&self, key: &str) -> Result<&str, SecretError> {
        let text = std::str::from_utf8(self.bytes(key)?)
            .map_err(|_| SecretError::NotText { secret: self.name.clone(), key: key.to_owned() })?;
        Ok(text.trim_end_matches(['\r', '\n']))
    }
}

type Kept = (Instant, Result<Arc<SecretData>, SecretError>);

/// Reads secrets of the own cluster.
pub struct Secrets {
    client: Client,
    kept: Mutex<HashMap<(String, String), Kept>>,
}

impl Secrets {
    /// With nothing kept yet.
    pub fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    /// The secret `name` of `namespace`. When the API server does not answer, the last known values are given.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Arc<SecretData>, SecretError> {
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.kept.lock().await.get(&key).cloned();
        if let Some((read_at, kept)) = &known
            && read_at.elapsed() < if kept.is_ok() { KEEP } else { RETRY }
        {
            return kept.clone();
        }
        let read = match (self.read(namespace, name).await, known) {
            (Err(SecretError::Unreadable { .. }), Some((_, Ok(last)))) => Ok(last),
            (read, _) => read,
        };
        self.kept.lock().await.insert(key, (Instant::now(), read.clone()));
        read
    }

    async fn read(&self, namespace: &str, name: &str) -> Result<Arc<SecretData>, SecretError> {
        let secret = format!("{namespace}/{name}");
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let unreadable = |why: String| SecretError::Unreadable { secret: secret.clone(), why };
        match within(CALL, "the API server", api.get_opt(name)).await {
            Ok(Ok(Some(found))) => Ok(Arc::new(SecretData {
                name: secret,
                version: found.metadata.resource_version.unwrap_or_default(),
                values: found.data.unwrap_or_default(),
            })),
            Ok(Ok(None)) => Err(SecretError::Missing(secret)),
            Ok(Err(error)) => Err(unreadable(error.to_string())),
            Err(late) => Err(unreadable(late.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> SecretData {
        let values = [("password", "hidden-word\n"), ("binary", "")]
            .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        SecretData { name: "trading/x".to_owned(), version: "1".to_owned(), values: values.into() }
    }

    #[test]
    fn a_trailing_line_break_is_not_part_of_a_password() {
        assert_eq!(data().text("password").unwrap(), "hidden-word");
    }

    #[test]
    fn a_missing_key_is_named_with_its_secret() {
        let error = data().text("user").unwrap_err();
        assert!(error.to_string().contains("trading/x") && error.to_string().contains("\"user\""));
    }

    #[test]
    fn values_stay_out_of_debug_output() {
        assert!(!format!("{:?}", data()).contains("hidden-word"));
    }
}
