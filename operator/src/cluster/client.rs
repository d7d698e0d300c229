//! Kubernetes clients: the one place where they are built, so that no call retries by itself or waits without a bound.

use std::path::Path;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Bounds of a client's transport. Each call has a deadline of its own on top.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// TCP and TLS.
    pub connect: Duration,
    /// Writing of a request.
    pub write: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), write: Duration::from_secs(5) }
    }
}

/// Why a client could not be built. Permanent until the configuration changes.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig cannot be read or used.
    #[error("the kubeconfig {whose} cannot be used: {reason}")]
    BadKubeconfig {
        /// Whose it is.
        whose: String,
        /// What is wrong.
        reason: String,
    },
    /// No kubeconfig was given and this is no pod.
    #[error("no --kubeconfig is given and the pod's service account cannot be used: {0}")]
    NotInCluster(String),
    /// The transport cannot be set up.
    #[error("the client for {whose} cannot be built: {reason}")]
    Transport {
        /// For which cluster.
        whose: String,
        /// What is wrong.
        reason: String,
    },
}

/// Client of the own cluster: of the given kubeconfig, or of the pod's service account.
///
/// # Errors
/// [`ClusterError`] when there is no usable configuration.
pub async fn own(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
    limits: ClientLimits,
) -> Result<Client, ClusterError> {
    let config = match kubeconfig {
        None => Config::incluster().map_err(|error| ClusterError::NotInCluster(error.to_string()))?,
        Some(path) => {
            let whose = path.display().to_string();
            let read = Kubeconfig::read_from(path).map_err(|error| ClusterError::BadKubeconfig {
                whose: whose.clone(),
                reason: error.to_string(),
            })?;
            let options =
                KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
            resolve(&whose, read, &options).await?
        }
    };
    build("the own cluster", config, limits)
}

/// Client of the cluster that a kubeconfig text (out of a secret) names.
///
/// # Errors
/// [`ClusterError`] when the text is no kubeconfig.
pub async fn from_kubeconfig_text(
    whose: &str,
    text: &str,
    limits: ClientLimits,
) -> Result<Client, ClusterError> {
    let bad = |reason: String| ClusterError::BadKubeconfig { whose: whose.to_owned(), reason };
    // The parser's own words may quote the text, which is a secret.
    let read = Kubeconfig::from_yaml(text).map_err(|_| bad("it is no kubeconfig in YAML".to_owned()))?;
    if let Some(what) = outside_of_the_text(&read) {
        return Err(bad(format!(
            "{what} would be run or read in the operator's own container; give a token or certificates in the kubeconfig itself"
        )));
    }
    build(whose, resolve(whose, read, &KubeConfigOptions::default()).await?, limits)
}

/// What a kubeconfig names beside itself: whoever may write the secret is not thereby allowed to run programs or to have
/// files sent away here.
fn outside_of_the_text(config: &Kubeconfig) -> Option<&'static str> {
    let users = config.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
    for user in users {
        let named = [
            ("user.exec", user.exec.is_some()),
            ("user.auth-provider", user.auth_provider.is_some()),
            ("user.tokenFile", user.token_file.is_some()),
            ("user.client-certificate", user.client_certificate.is_some()),
            ("user.client-key", user.client_key.is_some()),
        ];
        if let Some((what, _)) = named.into_iter().find(|(_, there)| *there) {
            return Some(what);
        }
    }
    let mut clusters = config.clusters.iter().filter_map(|named| named.cluster.as_ref());
    clusters.any(|cluster| cluster.certificate_authority.is_some()).then_some("cluster.certificate-authority")
}

async fn resolve(whose: &str, read: Kubeconfig, options: &KubeConfigOptions) -> Result<Config, ClusterError> {
    Config::from_custom_kubeconfig(read, options)
        .await
        .map_err(|error| ClusterError::BadKubeconfig { whose: whose.to_owned(), reason: error.to_string() })
}

fn build(whose: &str, mut config: Config, limits: ClientLimits) -> Result<Client, ClusterError> {
    // The default policy makes up to 16 attempts over minutes inside one call. Here a failed call ends the pass, and the
    // next pass decides anew.
    config.default_retry = false;
    config.connect_timeout = Some(limits.connect);
    config.write_timeout = Some(limits.write);
    let builder = ClientBuilder::try_from(config)
        .map_err(|error| ClusterError::Transport { whose: whose.to_owned(), reason: error.to_string() })?;
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_secret_holds_is_not_quoted() {
        let error =
            from_kubeconfig_text("secret trading/peer", "s3cr3t-token", ClientLimits::default()).await;
        let error = error.err().unwrap().to_string();
        assert!(error.contains("secret trading/peer") && !error.contains("s3cr3t"), "{error}");
    }

    #[tokio::test]
    async fn a_kubeconfig_that_runs_programs_or_reads_files_is_refused() {
        for (user, cluster, what) in [
            ("exec: {apiVersion: client.authentication.k8s.io/v1, command: aws}", "", "user.exec"),
            ("tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token", "", "user.tokenFile"),
            ("client-certificate: /tls.crt", "", "user.client-certificate"),
            ("client-key: /tls.key", "", "user.client-key"),
            ("token: abc", ", certificate-authority: /ca.crt", "cluster.certificate-authority"),
        ] {
            let text = format!(
                "current-context: c\n\
                 contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: 'https://localhost:1'{cluster}}}}}]\n\
                 users: [{{name: u, user: {{{user}}}}}]\n"
            );
            let refused = from_kubeconfig_text("secret trading/peer", &text, ClientLimits::default()).await;
            let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(what), "{what}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_text_that_is_no_kubeconfig_is_refused_with_its_owner() {
        let error =
            from_kubeconfig_text("secret trading/peer", "no: [kubeconfig", ClientLimits::default()).await;
        assert!(
            matches!(&error, Err(ClusterError::BadKubeconfig { whose, .. }) if whose == "secret trading/peer")
        );
    }
}
