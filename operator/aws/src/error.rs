//! One error type for every AWS call, and the table that sorts the SDK's errors into kinds.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_route53recoverycluster::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_route53recoverycluster::types::error::{InternalServerException, ThrottlingException};

/// What went wrong, in the terms on which callers decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No answer in time. The call may have taken effect.
    Timeout,
    /// DNS, TCP, TLS or a connection that broke. The call may have taken effect.
    Unreachable,
    /// An answer that could not be understood. The call may have taken effect.
    Unparsable,
    /// The endpoint takes its maintenance turn; another one answers.
    Maintenance,
    /// Too many calls; see [`CallError::retry_after`].
    Throttled,
    /// The service failed on its side.
    Internal,
    /// A concurrent change, a safety rule, or a state that forbids the act: read again, then decide.
    Conflict,
    /// The service does not understand or accept the request. Permanent.
    Invalid,
    /// The named resource does not exist at this endpoint. Permanent.
    NotFound,
    /// These credentials may not do this. Permanent until somebody changes the permission.
    AccessDenied,
    /// The request never left: no credentials, or it could not be built.
    NotSent,
    /// The reader stopped waiting because enough other endpoints had answered.
    NotAwaited,
}

impl ErrorKind {
    /// The word used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Unparsable => "unparsable",
            Self::Maintenance => "maintenance",
            Self::Throttled => "throttled",
            Self::Internal => "internal",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::AccessDenied => "access_denied",
            Self::NotSent => "not_sent",
            Self::NotAwaited => "not_awaited",
        }
    }

    /// True when a mutating call that failed so may have taken effect all the same.
    ///
    /// An internal error counts: the service does not say at which point it failed.
    pub fn may_have_happened(self) -> bool {
        matches!(self, Self::Timeout | Self::Unreachable | Self::Unparsable | Self::Internal)
    }

    /// True when asking again without a change by a person is useless.
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::Invalid | Self::NotFound | Self::AccessDenied)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An AWS call that failed: who was asked, for what, and how it failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} at {endpoint} failed ({kind}): {detail}")]
pub struct CallError {
    /// Who was asked, for example `ARC us-east-1`.
    pub endpoint: String,
    /// The API operation.
    pub operation: &'static str,
    /// How it failed.
    pub kind: ErrorKind,
    /// The service's or the network's own words.
    pub detail: String,
    /// How long the service asked us to wait before the next call.
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// A call that the given deadline cut off.
    pub(crate) fn timed_out(endpoint: &str, operation: &'static str, after: Duration) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            operation,
            kind: ErrorKind::Timeout,
            detail: format!("no answer within {after:?}"),
            retry_after: None,
        }
    }

    /// An answer that makes no sense.
    pub(crate) fn unparsable(endpoint: &str, operation: &'static str, detail: String) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            operation,
            kind: ErrorKind::Unparsable,
            detail,
            retry_after: None,
        }
    }

    /// Sorts an SDK error. Neither credentials nor headers enter the text.
    pub(crate) fn from_sdk<E>(endpoint: &str, operation: &'static str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let kind = match error {
            SdkError::ConstructionFailure(_) => ErrorKind::NotSent,
            SdkError::TimeoutError(_) => ErrorKind::Timeout,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => ErrorKind::Timeout,
            SdkError::DispatchFailure(failure) if failure.is_user() => ErrorKind::NotSent,
            // The SDK loads credentials while dispatching; nothing was sent without them.
            SdkError::DispatchFailure(_) if lacks_credentials(error) => ErrorKind::NotSent,
            SdkError::DispatchFailure(_) => ErrorKind::Unreachable,
            SdkError::ServiceError(service) => {
                kind_of_code(service.err().code(), service.raw().status().as_u16())
            }
            // `ResponseError`, and whatever the SDK adds later.
            _ => ErrorKind::Unparsable,
        };
        let (detail, retry_after) = match error {
            SdkError::ServiceError(service) => {
                let code = service.err().code().unwrap_or("no error code");
                let message = service.err().message().unwrap_or("no message");
                (format!("{code}: {message}"), retry_hint(service.err()))
            }
            other => (innermost(other), None),
        };
        Self { endpoint: endpoint.to_owned(), operation, kind, detail, retry_after }
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn lacks_credentials(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<CredentialsError>())
}

/// The SDK wraps a cause in several layers that say "dispatch failure"; the last two tell more.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    let mut telling = texts[texts.len().saturating_sub(2)..].to_vec();
    telling.dedup();
    telling.join(": ")
}

/// The table of error codes of ARC's data plane and of RDS, with the HTTP status for the rest.
fn kind_of_code(code: Option<&str>, status: u16) -> ErrorKind {
    match code.unwrap_or_default() {
        "EndpointTemporarilyUnavailableException" => ErrorKind::Maintenance,
        "ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "TooManyRequests" => {
            ErrorKind::Throttled
        }
        "InternalServerException" | "InternalFailure" | "InternalError" | "ServiceUnavailable" => {
            ErrorKind::Internal
        }
        "ConflictException" | "InvalidGlobalClusterStateFault" | "InvalidDBClusterStateFault" => {
            ErrorKind::Conflict
        }
        "ResourceNotFoundException" | "GlobalClusterNotFoundFault" | "DBClusterNotFoundFault" => {
            ErrorKind::NotFound
        }
        "AccessDeniedException"
        | "AccessDenied"
        | "UnauthorizedOperation"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "ExpiredToken"
        | "ExpiredTokenException" => ErrorKind::AccessDenied,
        "ValidationException" | "ServiceLimitExceededException" => ErrorKind::Invalid,
        _ => match status {
            401 | 403 => ErrorKind::AccessDenied,
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            429 => ErrorKind::Throttled,
            400..=499 => ErrorKind::Invalid,
            500..=599 => ErrorKind::Internal,
            _ => ErrorKind::Unparsable,
        },
    }
}

/// `retryAfterSeconds` of the two ARC errors that carry it.
fn retry_hint<E: StdError + 'static>(error: &E) -> Option<Duration> {
    let inner = error.source()?;
    let seconds = if let Some(throttled) = inner.downcast_ref::<ThrottlingException>() {
        throttled.retry_after_seconds()
    } else {
        inner.downcast_ref::<InternalServerException>()?.retry_after_seconds()
    };
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_codes_are_sorted_by_http_status() {
        assert_eq!(kind_of_code(Some("NewFault"), 400), ErrorKind::Invalid);
        assert_eq!(kind_of_code(None, 503), ErrorKind::Internal);
        assert_eq!(kind_of_code(None, 302), ErrorKind::Unparsable);
        assert_eq!(kind_of_code(Some("NewFault"), 403), ErrorKind::AccessDenied);
    }

    #[test]
    fn a_known_code_wins_over_the_http_status() {
        let kind = kind_of_code(Some("EndpointTemporarilyUnavailableException"), 503);
        assert_eq!(kind, ErrorKind::Maintenance);
        assert!(!kind.may_have_happened());
    }

    #[test]
    fn an_internal_error_may_have_happened_and_a_conflict_has_not() {
        assert!(ErrorKind::Internal.may_have_happened());
        assert!(ErrorKind::Timeout.may_have_happened());
        assert!(!ErrorKind::Conflict.may_have_happened());
        assert!(!ErrorKind::Throttled.may_have_happened());
    }
}
