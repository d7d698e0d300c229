//! The global database as the RDS API of the own region describes it. The API is slow and limits its callers, so it is asked
//! beside the passes, and a pass takes the last answer with its age.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use region_aws::{GlobalClusterView, RdsClient};
use region_plan::{Fact, GlobalDatabase, Region};
use tokio::time::Instant;

use crate::clock;

/// Pause between two questions while a run is open, and otherwise.
const PERIOD_IN_RUN: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_secs(5);

/// Asks about one global cluster.
pub struct GlobalWatch {
    client: RdsClient,
    global: String,
    /// Region of each member's ARN.
    members: BTreeMap<String, Region>,
    state: Mutex<State>,
}

struct State {
    last: Fact<GlobalDatabase>,
    asked: Option<Instant>,
    answered: bool,
}

impl GlobalWatch {
    /// Nothing is asked yet. `members` gives the region of each member cluster's ARN.
    pub fn new(client: RdsClient, global: &str, members: BTreeMap<String, Region>) -> Arc<Self> {
        let state =
            State { last: Fact::unknown("the first answer is on its way"), asked: None, answered: true };
        Arc::new(Self { client, global: global.to_owned(), members, state: Mutex::new(state) })
    }

    /// The last answer. Asks again beside it when that is due; waits for the very first answer only.
    pub async fn observe(self: &Arc<Self>, run_open: bool) -> Fact<GlobalDatabase> {
        let period = if run_open { PERIOD_IN_RUN } else { PERIOD };
        let (due, first) = {
            let mut state = self.lock();
            let due = state.answered && state.asked.is_none_or(|asked| asked.elapsed() >= period);
            let first = state.asked.is_none();
            if due {
                state.asked = Some(Instant::now());
                state.answered = false;
            }
            (due, first)
        };
        if due {
            let watch = Arc::clone(self);
            let asking = tokio::spawn(async move { watch.ask().await });
            if first {
                // A failed task leaves the fact unknown.
                let _ = asking.await;
            }
        }
        self.lock().last.clone()
    }

    /// The next pass asks at once: something was just changed.
    pub fn ask_soon(&self) {
        self.lock().asked = None;
    }

    async fn ask(&self) {
        // The client bounds the call itself.
        let answer = self.client.describe(&self.global).await;
        let fact = match answer {
            Ok(view) => Fact::known(summary(&view, &self.members), clock::now()),
            Err(error) => Fact::unknown(error.to_string()),
        };
        let mut state = self.lock();
        state.last = fact;
        state.answered = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn summary(view: &GlobalClusterView, members: &BTreeMap<String, Region>) -> GlobalDatabase {
    let status = view.status.as_deref().unwrap_or("no status");
    let change = view.change.as_ref();
    GlobalDatabase {
        writer: view.writer.as_ref().and_then(|arn| members.get(arn)).cloned(),
        switching: change.is_some(),
        status: match change.and_then(|change| change.status.as_deref()) {
            Some(change) => format!("{status}, {change}"),
            None => status.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use region_aws::{ChangeUnderWay, GlobalMember};

    use super::*;

    fn view(writer: Option<&str>, change: Option<&str>) -> GlobalClusterView {
        GlobalClusterView {
            asked: "us-east-1".to_owned(),
            identifier: "app-global".to_owned(),
            status: Some("available".to_owned()),
            writer: writer.map(str::to_owned),
            members: vec![GlobalMember { arn: "arn:a".to_owned(), is_writer: None, synchronization: None }],
            change: change.map(|status| ChangeUnderWay {
                status: Some(status.to_owned()),
                from: None,
                to: None,
                data_loss_allowed: None,
            }),
            writer_endpoint: None,
            engine_version: None,
        }
    }

    #[test]
    fn a_writer_that_is_no_member_of_the_spec_is_no_known_writer() {
        let members = BTreeMap::from([("arn:a".to_owned(), Region::from("a"))]);
        assert_eq!(summary(&view(Some("arn:a"), None), &members).writer, Some(Region::from("a")));
        assert_eq!(summary(&view(Some("arn:x"), None), &members).writer, None);
    }

    #[test]
    fn a_change_under_way_shows_in_the_status() {
        let seen = summary(&view(None, Some("switching-over")), &BTreeMap::new());
        assert!(seen.switching);
        assert_eq!(seen.status, "available, switching-over");
    }
}
