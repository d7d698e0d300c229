//! The process: clients, caches, the HTTP port, leadership, and the loop while this replica leads.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use kube::Api;
use region_aws::{AccessError, AwsAccess, CallTimeouts, CredentialSource};
use region_plan::Region;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::apply::{HookBoard, Pauses};
use crate::args::Args;
use crate::backoff::Backoff;
use crate::cluster::{ClientLimits, ClusterError, Peers, Secrets, own};
use crate::controller::{self, Operator};
use crate::events::Events;
use crate::http::{self, Health};
use crate::leader::{Election, LeadershipLost, Timings, while_leading};
use crate::metrics::Metrics;
use crate::observe::Samples;
use crate::sources::{ApiEndpoints, SourceBook};
use crate::workloads::Workloads;

/// Reported as the source of events.
const CONTROLLER: &str = "trading-region-operator";
/// How long passes under way may take to end at shutdown; below the pod's grace period.
const DRAIN: Duration = Duration::from_secs(25);

/// Why the process ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The own cluster's client.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Access to AWS.
    #[error(transparent)]
    Aws(#[from] AccessError),
    /// A file that a flag names.
    #[error("{flag} {path} cannot be read; correct the flag or mount the file")]
    File {
        /// The flag.
        flag: &'static str,
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The port.
    #[error("--listen {address} cannot be used")]
    Listen {
        /// As given.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another replica leads now, or the API server is out of reach: this process must not act any more.
    #[error("this replica no longer leads")]
    Leadership(#[from] LeadershipLost),
}

/// Runs until `shutdown`.
///
/// # Errors
/// [`RunError`]; the process should exit with a failure and be started again.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), RunError> {
    let client = own(args.kubeconfig.as_deref(), args.context.as_deref(), ClientLimits::default()).await?;
    let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::default()));
    serve(&args, &health, &metrics, &shutdown).await?;
    if args.failpoints {
        tracing::warn!("--failpoints: an annotation of an object can end this process; for tests alone");
    }

    let (workloads, mut synced) = Workloads::start(&client);
    let ready = Arc::clone(&health);
    tokio::spawn(async move {
        if synced.wait_for(|synced| *synced).await.is_ok() {
            ready.caches_are_synced();
        }
    });
    let (wish, wishes) = mpsc::channel(1);
    let secrets = Arc::new(Secrets::new(client.clone()));
    let me = Region(args.region.clone());
    let sources = SourceBook::new(
        me.clone(),
        Arc::clone(&secrets),
        aws_access(&args).await?,
        ApiEndpoints {
            rds: args.rds_endpoint.iter().cloned().collect(),
            arc_config: args.arc_config_endpoint.clone(),
        },
        args.observe_deadline,
    );
    let operator = Arc::new(Operator {
        me,
        workloads,
        peers: Arc::new(Peers::new(secrets, wish.clone())),
        hooks: HookBoard::new(client.clone(), wish),
        sources,
        events: Events::start(client.clone(), CONTROLLER, &args.pod_name),
        metrics: Arc::clone(&metrics),
        backoff: Backoff::default(),
        pauses: Pauses::default(),
        samples: Samples::default(),
        observe_deadline: args.observe_deadline,
        failpoints: args.failpoints,
        written: std::sync::Mutex::default(),
        client: client.clone(),
    });

    let leases = Api::namespaced(client, &args.namespace);
    let election = Election::new(leases, &args.lease_name, &args.pod_name, Timings::default());
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = election.acquire() => {}
    }
    metrics.leads(true);
    lead(&election, operator, wishes, shutdown).await
}

async fn lead(
    election: &Election,
    operator: Arc<Operator>,
    wishes: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let wishes = stream::unfold(wishes, async |mut wishes| wishes.recv().await.map(|()| ((), wishes)));
    let work = controller::run(operator, wishes, shutdown.clone());
    let bounded = async {
        tokio::select! {
            () = work => {}
            () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => {
                tracing::warn!("passes under way did not end in time; what they began is read anew by the next leader");
            }
        }
    };
    Ok(while_leading(election, bounded).await?)
}

async fn serve(
    args: &Args,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    shutdown: &CancellationToken,
) -> Result<(), RunError> {
    let listen_error = |source| RunError::Listen { address: args.listen.to_string(), source };
    let listener = TcpListener::bind(args.listen).await.map_err(listen_error)?;
    let serving = http::serve(listener, Arc::clone(health), Arc::clone(metrics), shutdown.clone());
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the HTTP port ended");
        }
    });
    Ok(())
}

async fn aws_access(args: &Args) -> Result<AwsAccess, RunError> {
    let source = match &args.aws_credentials_folder {
        Some(folder) => CredentialSource::Folder(folder.clone()),
        None => CredentialSource::Chain,
    };
    let ca = match &args.aws_ca_file {
        None => None,
        Some(path) => Some(tokio::fs::read(path).await.map_err(|source| RunError::File {
            flag: "--aws-ca-file",
            path: path.display().to_string(),
            source,
        })?),
    };
    let timeouts = CallTimeouts { connect: args.observe_deadline, attempt: args.observe_deadline };
    Ok(AwsAccess::new(source, ca.as_deref(), timeouts).await?)
}
