//! One API call from request to reply: the endpoint's mode, the signature, the operation, the call log.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use serde_json::{Value, json};

use crate::arc::api::{self as arc_api, ArcError, TARGET_PREFIX};
use crate::arc::config_api;
use crate::calls::Call;
use crate::clock::{self, Now};
use crate::faults::{EndpointMode, Faults};
use crate::https::Endpoint;
use crate::rds::api::{self as rds_api, Form, RdsError};
use crate::sigv4::{self, Claim, Refused};
use crate::simulator::spawn_switchover;
use crate::world::World;

/// Region shown in the call log when a call names none.
const NO_REGION: &str = "?";

/// Which API a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// The ARC endpoint at this position in the configuration.
    Arc(usize),
    /// RDS, all regions.
    Rds,
    /// ARC's control plane; a guest of the RDS listener.
    ArcConfig,
}

/// What goes back to the client.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
    pub(crate) request_id: String,
    /// For the call log.
    outcome: String,
}

impl Reply {
    pub(crate) fn plain(status: u16, text: &str) -> Self {
        let outcome = status.to_string();
        Self { status, content_type: "text/plain", body: text.to_owned(), request_id: String::new(), outcome }
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer, as set")]
pub(crate) struct Hangup;

/// A request read as far as the call log needs it.
struct Asked {
    region: String,
    caller: String,
    operation: String,
    parameters: Value,
}

impl Service {
    /// Whether nothing should listen.
    pub(crate) fn is_dead(self, world: &World, faults: &Faults) -> bool {
        match self {
            Self::Arc(index) => {
                let region = &world.config.arc_endpoints[index].region;
                faults.arc.get(region) == Some(&EndpointMode::Dead)
            }
            // The regions share the listener: a dead region is a matter of the single call.
            Self::Rds | Self::ArcConfig => false,
        }
    }

    /// Which API a request on this service's listener is for.
    fn asked_for(self, parts: &Parts) -> Self {
        if self == Self::Rds && config_api::serves(parts.uri.path()) { Self::ArcConfig } else { self }
    }

    /// Answers a call as its endpoint's mode says.
    ///
    /// # Errors
    /// [`Hangup`] if there is to be no answer; it may come late.
    pub(crate) async fn call(self, endpoint: &Endpoint, parts: &Parts, body: &[u8]) -> Result<Reply, Hangup> {
        self.asked_for(parts).answer(endpoint, parts, body).await
    }

    async fn answer(self, endpoint: &Endpoint, parts: &Parts, body: &[u8]) -> Result<Reply, Hangup> {
        let world = &endpoint.world;
        let claim = sigv4::claim(&parts.headers);
        let asked = self.asked(world, parts, body, claim.as_ref());
        let faults = world.faults.borrow().clone();
        let mode = self.mode(&faults, &asked.region);
        let now = clock::now();
        let reply = match &mode {
            EndpointMode::Ok | EndpointMode::Slow { .. } | EndpointMode::Hung { effect: true } => {
                Some(self.perform(endpoint, parts, body, &asked, &faults, now).await)
            }
            EndpointMode::Error { kind } => Some(match self {
                Self::Arc(_) => arc_reply(Err(ArcError::played(*kind))),
                Self::ArcConfig => config_reply(Err(ArcError::played(*kind))),
                Self::Rds => rds_reply(Err(RdsError::played(*kind)), new_id()),
            }),
            EndpointMode::Hung { effect: false } | EndpointMode::Dead => None,
        };
        let outcome = match (&mode, &reply) {
            (EndpointMode::Hung { .. }, Some(reply)) => format!("hung after {}", reply.outcome),
            (EndpointMode::Dead, _) => "dead".to_owned(),
            (_, None) => "hung".to_owned(),
            (_, Some(reply)) => reply.outcome.clone(),
        };
        let region = asked.region.clone();
        world.log(self.call_of(asked, now, outcome));
        match mode {
            EndpointMode::Ok | EndpointMode::Error { .. } => {}
            EndpointMode::Slow { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            EndpointMode::Hung { .. } => {
                let mut changes = world.faults.subscribe();
                drop(changes.wait_for(|faults| self.mode(faults, &region) != mode).await);
                return Err(Hangup);
            }
            EndpointMode::Dead => return Err(Hangup),
        }
        reply.ok_or(Hangup)
    }

    fn mode(self, faults: &Faults, region: &str) -> EndpointMode {
        let modes = match self {
            Self::Arc(_) => &faults.arc,
            Self::Rds => &faults.rds,
            Self::ArcConfig => return faults.arc_config.clone(),
        };
        modes.get(region).cloned().unwrap_or_default()
    }

    fn asked(self, world: &World, parts: &Parts, body: &[u8], claim: Option<&Claim>) -> Asked {
        let caller = claim.map(|claim| claim.access_key.clone()).unwrap_or_default();
        match self {
            Self::Arc(index) => {
                let target =
                    parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or("");
                Asked {
                    region: world.config.arc_endpoints[index].region.clone(),
                    caller,
                    operation: target.strip_prefix(TARGET_PREFIX).unwrap_or(target).to_owned(),
                    parameters: serde_json::from_slice(body)
                        .unwrap_or_else(|_| json!(String::from_utf8_lossy(body))),
                }
            }
            Self::ArcConfig => {
                let uri = &parts.uri;
                let (operation, parameters) = config_api::parse(&parts.method, uri.path(), uri.query());
                Asked { region: signed_region(claim), caller, operation, parameters }
            }
            Self::Rds => {
                let form = rds_api::parse_form(body);
                Asked {
                    region: signed_region(claim),
                    caller,
                    operation: form.get("Action").cloned().unwrap_or_default(),
                    parameters: rds_api::form_for_log(&form),
                }
            }
        }
    }

    fn call_of(self, asked: Asked, now: Now, outcome: String) -> Call {
        let api = match self {
            Self::Arc(_) => "arc",
            Self::Rds => "rds",
            Self::ArcConfig => "arc-config",
        };
        Call {
            sequence: 0,
            time: now.wall,
            endpoint: format!("{api}:{}", asked.region),
            caller: asked.caller,
            operation: asked.operation,
            parameters: asked.parameters,
            outcome,
        }
    }

    async fn perform(
        self,
        endpoint: &Endpoint,
        parts: &Parts,
        body: &[u8],
        asked: &Asked,
        faults: &Faults,
        now: Now,
    ) -> Reply {
        let world = &endpoint.world;
        let credentials = &world.config.credentials;
        match self {
            Self::Arc(index) => {
                let region = asked.region.as_str();
                let signed =
                    sigv4::verify(parts, body, credentials, "route53-recovery-cluster", &[region], now.wall);
                arc_reply(match signed {
                    Err(refused) => Err(arc_refusal(refused)),
                    Ok(()) => arc_perform(world, index, asked, faults, now).await,
                })
            }
            Self::ArcConfig => {
                let service = "route53-recovery-control-config";
                let signed =
                    sigv4::verify(parts, body, credentials, service, &[config_api::REGION], now.wall);
                config_reply(signed.map_err(arc_refusal).and_then(|()| {
                    config_api::call(&world.lock(), faults, &asked.operation, &asked.parameters)
                }))
            }
            Self::Rds => {
                let id = new_id();
                let signed = sigv4::verify(parts, body, credentials, "rds", &world.rds_regions(), now.wall);
                let form = rds_api::parse_form(body);
                let answer = match signed {
                    Err(refused) => Err(rds_refusal(refused)),
                    Ok(()) => rds_perform(endpoint, asked, &form, faults, &id, now).await,
                };
                rds_reply(answer, id)
            }
        }
    }
}

fn signed_region(claim: Option<&Claim>) -> String {
    claim.map_or_else(|| NO_REGION.to_owned(), |claim| claim.region.clone())
}

async fn arc_perform(
    world: &Arc<World>,
    endpoint: usize,
    asked: &Asked,
    faults: &Faults,
    now: Now,
) -> Result<Value, ArcError> {
    let done =
        arc_api::call(&mut world.lock(), faults, endpoint, &asked.operation, &asked.parameters, now.instant);
    let (answer, changed) = done?;
    if changed {
        world.persist().await.map_err(|error| ArcError::internal(error.to_string()))?;
    }
    Ok(answer)
}

async fn rds_perform(
    endpoint: &Endpoint,
    asked: &Asked,
    form: &Form,
    faults: &Faults,
    id: &str,
    now: Now,
) -> Result<String, RdsError> {
    let done = rds_api::call(&mut endpoint.world.lock(), faults, &asked.region, form, id, now.instant);
    let (answer, accepted) = done?;
    if let Some(accepted) = accepted {
        let saved = endpoint.world.persist().await;
        // Accepted is accepted: an answer that fails here leaves the caller in doubt, as on the real service.
        spawn_switchover(&endpoint.tasks, &endpoint.stop, &endpoint.world, accepted.cluster_id);
        saved.map_err(|error| RdsError::new("InternalFailure", 500, error.to_string()))?;
    }
    Ok(answer)
}

fn arc_reply(answer: Result<Value, ArcError>) -> Reply {
    let (status, body, outcome) = match answer {
        Ok(value) => (200, value, "ok".to_owned()),
        Err(error) => (error.status, error.body(), error.code.to_owned()),
    };
    let body = body.to_string();
    Reply { status, content_type: "application/x-amz-json-1.0", body, request_id: new_id(), outcome }
}

fn config_reply(answer: Result<Value, ArcError>) -> Reply {
    Reply { content_type: "application/json", ..arc_reply(answer) }
}

fn rds_reply(answer: Result<String, RdsError>, request_id: String) -> Reply {
    let (status, body, outcome) = match answer {
        Ok(xml) => (200, xml, "ok".to_owned()),
        Err(error) => (error.status, error.body(&request_id), error.code),
    };
    Reply { status, content_type: "text/xml", body, request_id, outcome }
}

/// The errors with which AWS's JSON services refuse a signature.
fn arc_refusal(refused: Refused) -> ArcError {
    match refused {
        Refused::Missing => {
            ArcError::new("MissingAuthenticationTokenException", 403, "Missing Authentication Token")
        }
        Refused::UnknownKey => {
            let message = "The security token included in the request is invalid.";
            ArcError::new("UnrecognizedClientException", 400, message)
        }
        Refused::Scope(why) | Refused::Date(why) => ArcError::new("InvalidSignatureException", 403, why),
        Refused::Mismatch => ArcError::new("InvalidSignatureException", 403, MISMATCH),
    }
}

/// The errors with which AWS's query services refuse a signature.
fn rds_refusal(refused: Refused) -> RdsError {
    match refused {
        Refused::Missing => {
            RdsError::new("MissingAuthenticationToken", 403, "Request is missing Authentication Token")
        }
        Refused::UnknownKey => RdsError::new(
            "InvalidClientTokenId",
            403,
            "The security token included in the request is invalid.",
        ),
        Refused::Scope(why) | Refused::Date(why) => RdsError::new("SignatureDoesNotMatch", 403, why),
        Refused::Mismatch => RdsError::new("SignatureDoesNotMatch", 403, MISMATCH),
    }
}

const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. \
    Check your AWS Secret Access Key and signing method.";

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
