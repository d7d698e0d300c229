//! The whole configuration of the process: flags, each with an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Moves regional workloads between two clusters. One such process (two replicas) runs in each cluster; it changes its
/// own cluster only and reads the TradingRegion object of the other.
#[derive(Clone, Debug, Parser)]
#[command(name = "region-operator", version)]
pub struct Args {
    /// Name of the region that this cluster is, as it stands in spec.regions of the objects.
    #[arg(long, env = "REGION")]
    pub region: String,

    /// Namespace of the Lease that chooses the leading replica.
    #[arg(long, env = "NAMESPACE", default_value = "trading-region-operator")]
    pub namespace: String,

    /// Name of the Lease that chooses the leading replica.
    #[arg(long, env = "LEASE_NAME", default_value = "trading-region-operator")]
    pub lease_name: String,

    /// Name of this replica; in a cluster the pod's name.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Kubeconfig of the own cluster. Without it the pod's service account is used.
    #[arg(long, env = "OPERATOR_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of that kubeconfig; without it the current one.
    #[arg(long, env = "OPERATOR_KUBECONFIG_CONTEXT", requires = "kubeconfig")]
    pub context: Option<String>,

    /// Folder with the files access-key-id and secret-access-key. Without it AWS's own chain is asked
    /// (environment, IAM role of the service account, instance role).
    #[arg(long, env = "AWS_CREDENTIALS_FOLDER")]
    pub aws_credentials_folder: Option<PathBuf>,

    /// PEM file with the only CA to trust for AWS endpoints. Without it the public CAs are trusted.
    #[arg(long, env = "AWS_CA_FILE")]
    pub aws_ca_file: Option<PathBuf>,

    /// URL of the RDS API of a region, as REGION=URL; may be given for each region. Without it the AWS endpoint is used.
    #[arg(long, env = "RDS_ENDPOINTS", value_delimiter = ',', value_parser = region_and_url)]
    pub rds_endpoint: Vec<(String, String)>,

    /// URL of ARC's control plane, which lists safety rules. Without it the AWS endpoint in us-west-2 is used.
    #[arg(long, env = "ARC_CONFIG_ENDPOINT")]
    pub arc_config_endpoint: Option<String>,

    /// How long one observation (database, broker, an ARC endpoint) may take before it counts as unknown.
    #[arg(long, env = "OBSERVE_DEADLINE", default_value = "1500ms", value_parser = duration)]
    pub observe_deadline: Duration,

    /// Log filter, for instance `info` or `info,region_operator=debug`. The AMQP client is quiet unless named.
    #[arg(long, env = "LOG", default_value = "info")]
    pub log: String,

    /// Lets an annotation of an object end or hold this process around a step: for tests of what a crash leaves behind.
    #[arg(long, env = "FAILPOINTS", hide = true)]
    pub failpoints: bool,
}

fn region_and_url(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((region, url)) if !region.is_empty() && url.starts_with("http") => {
            Ok((region.to_owned(), url.to_owned()))
        }
        _ => Err(format!("{text:?} is not of the form us-east-1=https://host:port")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(parsed)
        .ok()
        .filter(|d| !d.is_zero())
        .ok_or_else(|| format!("{text:?} must be above zero"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(extra: &[&str]) -> Result<Args, clap::Error> {
        let base = ["region-operator", "--region", "us-east-1", "--pod-name", "operator-0"];
        Args::try_parse_from(base.iter().chain(extra))
    }

    #[test]
    fn endpoints_of_several_regions_are_given_in_one_variable() {
        let args =
            parse(&["--rds-endpoint", "us-east-1=https://10.0.0.1,us-west-2=https://10.0.0.1"]).unwrap();
        assert_eq!(args.rds_endpoint.len(), 2);
        assert_eq!(args.rds_endpoint[1], ("us-west-2".to_owned(), "https://10.0.0.1".to_owned()));
    }

    #[test]
    fn an_annotation_can_end_the_process_only_if_that_was_asked_for_and_nobody_is_told_how() {
        assert!(!parse(&[]).unwrap().failpoints);
        assert!(parse(&["--failpoints"]).unwrap().failpoints);
        assert!(!Args::command().render_long_help().to_string().contains("failpoints"));
    }

    #[test]
    fn an_endpoint_without_a_region_is_refused() {
        assert!(parse(&["--rds-endpoint", "https://10.0.0.1"]).is_err());
    }

    #[test]
    fn durations_carry_their_unit_and_are_above_zero() {
        assert_eq!(
            parse(&["--observe-deadline", "750ms"]).unwrap().observe_deadline,
            Duration::from_millis(750)
        );
        assert!(parse(&["--observe-deadline", "0s"]).is_err());
        assert!(parse(&["--observe-deadline", "15"]).is_err());
    }
}
