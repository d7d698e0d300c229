//! Plain HTTP calls with a deadline and a bound on the answer: RabbitMQ's management API, hooks, number checks.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::deadline::within;
use crate::error::chain;

/// Longest answer that is read.
const MOST_BYTES: usize = 4 << 20;
/// TCP and TLS.
const CONNECT: Duration = Duration::from_secs(1);
/// Idle connections are closed after this time.
const IDLE: Duration = Duration::from_secs(60);

/// Why a call gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The configuration is wrong: nothing was sent.
    #[error("{0}")]
    NotSent(String),
    /// No answer: the request may have taken effect.
    #[error("{who} did not answer: {why}")]
    NoAnswer {
        /// Who was called.
        who: String,
        /// What happened.
        why: String,
    },
    /// An answer that says no.
    #[error("{who} answered {status}: {text}")]
    Refused {
        /// Who was called.
        who: String,
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of the body.
        text: String,
    },
    /// An answer that cannot be understood.
    #[error("the answer of {who} is not understood: {why}")]
    Unparsable {
        /// Who was called.
        who: String,
        /// What is wrong with it.
        why: String,
    },
}

/// User and password of HTTP's basic scheme. `Debug` hides it.
#[derive(Clone)]
pub struct BasicAuth(HeaderValue);

impl BasicAuth {
    /// From user and password.
    ///
    /// # Errors
    /// [`CallError::NotSent`] when they cannot stand in a header.
    pub fn new(user: &str, password: &str) -> Result<Self, CallError> {
        let text = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| CallError::NotSent("user and password cannot stand in an HTTP header".to_owned()))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BasicAuth(hidden)")
    }
}

/// An HTTP client with its own trust and connection pool.
#[derive(Clone, Debug)]
pub struct Caller {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Caller {
    /// A client that trusts only `ca_pem`, or the public CAs without it.
    ///
    /// # Errors
    /// [`CallError::NotSent`] when the CA cannot be used.
    pub fn new(ca_pem: Option<&[u8]>) -> Result<Self, CallError> {
        let tls = tls_config(ca_pem).map_err(CallError::NotSent)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
        Ok(Self { client })
    }

    /// One call; any status below 300 is a success and gives the body.
    ///
    /// # Errors
    /// [`CallError`], which says whether the request may have taken effect.
    pub async fn call(&self, call: Call<'_>) -> Result<Bytes, CallError> {
        self.exchange(call).await.map(|(_, body)| body)
    }

    /// One call; any status below 300 is a success and is given.
    ///
    /// # Errors
    /// [`CallError`], which says whether the request may have taken effect.
    pub async fn call_for_status(&self, call: Call<'_>) -> Result<StatusCode, CallError> {
        self.exchange(call).await.map(|(status, _)| status)
    }

    async fn exchange(&self, call: Call<'_>) -> Result<(StatusCode, Bytes), CallError> {
        let who = format!("{} {}", call.method, call.url);
        let uri: Uri = call
            .url
            .parse()
            .map_err(|error| CallError::NotSent(format!("{:?} is no URL: {error}", call.url)))?;
        let mut request = Request::builder().method(call.method).uri(uri);
        if let Some(auth) = call.auth {
            request = request.header(AUTHORIZATION, auth.0.clone());
        }
        if call.json.is_some() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let body = Full::new(call.json.map(|value| Bytes::from(value.to_string())).unwrap_or_default());
        let request = request.body(body).map_err(|error| CallError::NotSent(error.to_string()))?;
        match within(call.deadline, &who, self.answer(request, &who)).await {
            Ok(answer) => answer,
            Err(late) => Err(CallError::NoAnswer { who, why: format!("nothing within {:?}", late.after) }),
        }
    }

    async fn answer(
        &self,
        request: Request<Full<Bytes>>,
        who: &str,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let no_answer = |why: String| CallError::NoAnswer { who: who.to_owned(), why };
        let response = self.client.request(request).await.map_err(|error| no_answer(chain(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| no_answer(error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok((status, body));
        }
        let text = String::from_utf8_lossy(&body).chars().take(300).collect();
        Err(CallError::Refused { who: who.to_owned(), status, text })
    }
}

/// One request.
#[derive(Debug)]
pub struct Call<'a> {
    /// Its method.
    pub method: Method,
    /// Its full URL.
    pub url: &'a str,
    /// Credentials.
    pub auth: Option<&'a BasicAuth>,
    /// The body.
    pub json: Option<&'a serde_json::Value>,
    /// Connecting and the whole answer.
    pub deadline: Duration,
}

fn tls_config(ca_pem: Option<&[u8]>) -> Result<rustls::ClientConfig, String> {
    use hyper_rustls::ConfigBuilderExt;
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(pem) = ca_pem else {
        let native =
            builder.with_native_roots().map_err(|error| format!("the public CAs cannot be read: {error}"))?;
        return Ok(native.with_no_client_auth());
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("ca.crt is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("ca.crt holds an unusable certificate: {error}"))?;
    }
    if roots.is_empty() {
        return Err("ca.crt holds no certificate".to_owned());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_without_a_certificate_is_refused_before_anything_is_sent() {
        assert!(matches!(Caller::new(Some(b"nothing")), Err(CallError::NotSent(_))));
    }

    #[test]
    fn passwords_do_not_show_in_debug_output() {
        let auth = BasicAuth::new("user", "secret-word").unwrap();
        assert!(!format!("{auth:?}").contains("secret-word"));
        assert!(!format!("{:?}", auth.0).contains("secret-word"));
    }
}
