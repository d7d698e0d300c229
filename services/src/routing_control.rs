//! The routing control by which people start and stop the customers. A state counts when three of the cluster's five
//! endpoints agree on it; while they do not, the last one that counted holds.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use region_aws::{
    ArcClient, ArcEndpoint, AwsAccess, CallTimeouts, ControlState, CredentialSource, MAX_ENDPOINTS,
    ReadLimits,
};
use services_common::config::{ConfigError, read_file};
use services_common::telemetry::chain;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between two looks at the control.
const PERIOD: Duration = Duration::from_secs(1);
/// One look takes no longer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Endpoints that must agree.
const QUORUM: usize = MAX_ENDPOINTS / 2 + 1;
/// How ARNs begin.
const ARN: &str = "arn:";

/// Options of the routing control.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControlArgs {
    /// Name or ARN of an ARC routing control: On sends, Off pauses sending; without it nothing holds the customers back
    ///
    /// It is looked at each second. Nothing is sent before its state was known once; when it becomes unknown, the last
    /// known state holds. A pause stops the schedule, and does not count as lateness.
    #[arg(long, help_heading = "Start and stop", value_name = "NAME|ARN", conflicts_with = "dry_run")]
    routing_control: Option<String>,
    /// Endpoint of the ARC cluster, like us-east-1=https://host; all five, one option each
    #[arg(
        long,
        help_heading = "Start and stop",
        value_name = "REGION=URL",
        value_parser = endpoint,
        requires = "routing_control",
        conflicts_with = "dry_run"
    )]
    arc_endpoint: Vec<ArcEndpoint>,
    /// File with the CA certificate (PEM) of those endpoints; without it the public ones are trusted
    #[arg(
        long,
        help_heading = "Start and stop",
        value_name = "FILE",
        requires = "routing_control",
        conflicts_with = "dry_run"
    )]
    aws_ca_file: Option<PathBuf>,
    /// Folder with the files access-key-id and secret-access-key; without it the AWS SDK looks in its usual places
    #[arg(
        long,
        help_heading = "Start and stop",
        value_name = "DIR",
        requires = "routing_control",
        conflicts_with = "dry_run"
    )]
    aws_credentials_dir: Option<PathBuf>,
}

fn endpoint(text: &str) -> Result<ArcEndpoint, String> {
    let (region, url) = text.split_once('=').ok_or("must be REGION=URL")?;
    if region.is_empty() || url.is_empty() {
        return Err("must be REGION=URL".to_owned());
    }
    Ok(ArcEndpoint { region: region.to_owned(), url: url.to_owned() })
}

fn wrong(option: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { option, reason: reason.into() }
}

impl ControlArgs {
    /// True while messages may be sent, watched until `stop`; `None` where no control is named.
    ///
    /// # Errors
    /// Endpoints, CA or name cannot be used.
    pub(crate) async fn watch(
        self,
        stop: CancellationToken,
    ) -> Result<Option<watch::Receiver<bool>>, ConfigError> {
        let Some(control) = self.routing_control else { return Ok(None) };
        if control.is_empty() {
            return Err(wrong("--routing-control", "is empty; give a name or an ARN"));
        }
        if self.arc_endpoint.len() != MAX_ENDPOINTS {
            let given = self.arc_endpoint.len();
            let reason =
                format!("is given {given} times; a cluster has {MAX_ENDPOINTS} endpoints, give each");
            return Err(wrong("--arc-endpoint", reason));
        }
        let ca = match &self.aws_ca_file {
            None => None,
            Some(path) => Some(read_file("--aws-ca-file", path).await?),
        };
        let source = self.aws_credentials_dir.map_or(CredentialSource::Chain, CredentialSource::Folder);
        let access = AwsAccess::new(source, ca.as_deref().map(str::as_bytes), CallTimeouts::default())
            .await
            .map_err(|error| wrong("--aws-ca-file", chain(&error)))?;
        let client = ArcClient::new(&self.arc_endpoint, &access)
            .map_err(|error| wrong("--arc-endpoint", chain(&error)))?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(follow(client, control, sender, stop));
        Ok(Some(receiver))
    }
}

async fn follow(client: ArcClient, control: String, sender: watch::Sender<bool>, stop: CancellationToken) {
    let mut arn = control.starts_with(ARN).then(|| control.clone());
    let mut switch = Switch::new(control);
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = look(&client, &switch.name, &mut arn) => heard,
        };
        if let Some(line) = switch.hear(heard) {
            eprintln!("customer: {line}");
        }
        sender.send_if_modified(|sends| std::mem::replace(sends, switch.sends()) != switch.sends());
    }
}

/// One look: the state, or why it is not known.
async fn look(client: &ArcClient, name: &str, arn: &mut Option<String>) -> Result<ControlState, String> {
    let arn = match arn {
        Some(arn) => arn,
        None => arn.insert(client.find(name, DEADLINE).await.map_err(|error| error.to_string())?),
    };
    let limits = ReadLimits { deadline: DEADLINE, enough: Some(QUORUM), ..ReadLimits::default() };
    let reading = client.read_all(std::slice::from_ref(arn), limits).await;
    reading.agreed(arn, QUORUM).ok_or_else(|| {
        let count = |state| reading.count(arn, state);
        let (on, off) = (count(ControlState::On), count(ControlState::Off));
        let error = reading.errors().next().map(|error| format!(": {error}")).unwrap_or_default();
        format!("{on} of {MAX_ENDPOINTS} endpoints say On, {off} Off{error}")
    })
}

/// What is known of the control. Pure.
#[derive(Debug)]
struct Switch {
    name: String,
    known: Option<ControlState>,
    doubted: bool,
}

impl Switch {
    fn new(name: String) -> Self {
        Self { name, known: None, doubted: false }
    }

    /// Only a control that was seen On lets anything be sent.
    fn sends(&self) -> bool {
        self.known == Some(ControlState::On)
    }

    /// Takes what a look gave. Says what is new, once.
    fn hear(&mut self, heard: Result<ControlState, String>) -> Option<String> {
        let name = &self.name;
        match heard {
            Ok(state) => {
                let new = self.known != Some(state) || self.doubted;
                (self.known, self.doubted) = (Some(state), false);
                let does = if self.sends() { "sending" } else { "sending is paused" };
                new.then(|| format!("routing control {name} is {state}: {does}"))
            }
            Err(_) if self.doubted => None,
            Err(reason) => {
                self.doubted = true;
                let holds = match self.known {
                    None => "nothing is sent until it is".to_owned(),
                    Some(state) => format!("it is taken as {state} still"),
                };
                Some(format!("the state of routing control {name} is not known ({reason}): {holds}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ControlState::{Off, On};

    use super::*;

    fn switch() -> Switch {
        Switch::new("generator".to_owned())
    }

    fn silence() -> Result<ControlState, String> {
        Err("silence".to_owned())
    }

    #[test]
    fn nothing_is_sent_before_the_control_was_seen_on() {
        let mut switch = switch();
        assert!(!switch.sends());
        let told = switch.hear(silence()).unwrap();
        assert!(told.contains("silence") && told.contains("nothing is sent") && !switch.sends(), "{told}");
        assert!(switch.hear(Ok(Off)).unwrap().contains("is Off: sending is paused") && !switch.sends());
        assert!(switch.hear(Ok(On)).unwrap().contains("is On: sending") && switch.sends());
    }

    #[test]
    fn what_is_unknown_is_neither_on_nor_off_and_is_told_once() {
        for state in [On, Off] {
            let mut switch = switch();
            switch.hear(Ok(state));
            assert!(switch.hear(silence()).unwrap().contains(&format!("taken as {state} still")));
            assert_eq!(switch.hear(silence()), None);
            assert_eq!(switch.sends(), state == On);
            assert!(switch.hear(Ok(state)).is_some(), "that it is known again is told");
            assert_eq!(switch.hear(Ok(state)), None);
        }
    }

    #[test]
    fn an_endpoint_is_a_region_and_a_url() {
        let read = endpoint("us-east-1=https://a.example/?x=1").unwrap();
        assert_eq!((read.region.as_str(), read.url.as_str()), ("us-east-1", "https://a.example/?x=1"));
        for wrong in ["https://a.example", "=https://a.example", "us-east-1="] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    fn args(endpoints: usize, url: &str) -> ControlArgs {
        let endpoint = |number| ArcEndpoint { region: format!("r{number}"), url: format!("{url}{number}") };
        ControlArgs {
            routing_control: Some("generator".to_owned()),
            arc_endpoint: (0..endpoints).map(endpoint).collect(),
            aws_ca_file: None,
            aws_credentials_dir: Some("/nowhere".into()),
        }
    }

    #[tokio::test]
    async fn options_that_cannot_work_are_refused_with_their_name() {
        let stop = CancellationToken::new();
        for (args, option, reason) in [
            (args(4, "https://h"), "--arc-endpoint", "4 times"),
            (args(5, "ftp://h"), "--arc-endpoint", "https://"),
            (
                ControlArgs { aws_ca_file: Some("/nowhere".into()), ..args(5, "https://h") },
                "--aws-ca-file",
                "/nowhere",
            ),
            (
                ControlArgs { routing_control: Some(String::new()), ..args(5, "https://h") },
                "--routing-control",
                "empty",
            ),
        ] {
            let refused = args.watch(stop.clone()).await.unwrap_err();
            let refused = chain(&refused);
            assert!(refused.contains(option) && refused.contains(reason), "{refused}");
        }
    }
}
