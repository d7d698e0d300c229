//! A routing control by its name, for programs whose configuration should not hold ARNs.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{ArcClient, Endpoint, MAX_PAGES, PAGE_SIZE};
use crate::error::CallError;

/// The operation that lists controls.
const OPERATION: &str = "ListRoutingControls";

/// Why a name leads to no routing control.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The cluster has none of this name.
    #[error("no routing control of this cluster is named {0}")]
    Absent(String),
    /// Names are unique within a control panel only.
    #[error("{1} routing controls of this cluster are named {0}; give the ARN of one of them")]
    Ambiguous(String, usize),
    /// No endpoint answered; the last one's error, if there was time for one.
    #[error("no ARC endpoint could tell which routing control is named {name}{}", .last.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Unanswered {
        /// The name.
        name: String,
        /// What the last endpoint said.
        last: Option<CallError>,
    },
}

impl ArcClient {
    /// The ARN of the control with this name. Names and ARNs do not change with states, so one endpoint's answer is
    /// enough: they are asked one after the other until `deadline` has passed.
    ///
    /// # Errors
    /// [`NameError`] when there is no such control, more than one, or no answer.
    pub async fn find(&self, name: &str, deadline: Duration) -> Result<String, NameError> {
        let until = Instant::now() + deadline;
        let mut last = None;
        for endpoint in &self.endpoints {
            match timeout_at(until, endpoint.arns_named(name)).await {
                Ok(Ok(arns)) => {
                    return match arns.as_slice() {
                        [arn] => Ok(arn.clone()),
                        [] => Err(NameError::Absent(name.to_owned())),
                        many => Err(NameError::Ambiguous(name.to_owned(), many.len())),
                    };
                }
                Ok(Err(error)) => last = Some(error),
                Err(_) => break,
            }
        }
        Err(NameError::Unanswered { name: name.to_owned(), last })
    }
}

impl Endpoint {
    async fn arns_named(&self, name: &str) -> Result<Vec<String>, CallError> {
        let mut arns = Vec::new();
        let mut token = None;
        for _ in 0..MAX_PAGES {
            let page = self
                .client
                .list_routing_controls()
                .max_results(PAGE_SIZE)
                .set_next_token(token)
                .send()
                .await
                .map_err(|error| CallError::from_sdk(&self.name, OPERATION, &error))?;
            let named = page.routing_controls().iter();
            let named = named.filter(|control| control.routing_control_name() == Some(name));
            arns.extend(named.filter_map(|control| control.routing_control_arn()).map(str::to_owned));
            token = page.next_token().map(str::to_owned);
            if token.is_none() {
                return Ok(arns);
            }
        }
        let detail = format!("the cluster has more than {MAX_PAGES} pages of controls");
        Err(CallError::unparsable(&self.name, OPERATION, detail))
    }
}
