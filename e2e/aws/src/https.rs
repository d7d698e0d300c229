//! HTTPS listeners that can also be dead, and the reading and writing of one request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::config::Tls;
use crate::service::{Hangup, Reply, Service};
use crate::world::World;

/// Connections of one endpoint at a time; more wait.
const MOST_CONNECTIONS: usize = 256;

/// Longest request body that is read. AWS's own limits are far above what these calls need.
const LONGEST_BODY: usize = 64 * 1024;

/// A client has this long for its TLS handshake, and for the head of each request.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two tries to listen again after having been dead.
const REBIND_PAUSE: Duration = Duration::from_millis(100);

/// An API endpoint with all it needs.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) world: Arc<World>,
    pub(crate) service: Service,
    pub(crate) address: SocketAddr,
    pub(crate) tls: TlsAcceptor,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Endpoint {
    /// Serves until stopped. While the endpoint is set dead, nothing listens and no connection stays open.
    pub(crate) async fn serve(self, first: TcpListener) {
        let mut faults = self.world.faults.subscribe();
        let mut listener = Some(first);
        loop {
            let bound = match listener.take() {
                Some(bound) => bound,
                None => match TcpListener::bind(self.address).await {
                    Ok(bound) => bound,
                    Err(error) => {
                        tracing::warn!(address = %self.address, %error, "not yet able to listen again");
                        if self.pause(tokio::time::sleep(REBIND_PAUSE)).await { return } else { continue }
                    }
                },
            };
            let alive = self.stop.child_token();
            let dead =
                async { drop(faults.wait_for(|faults| self.service.is_dead(&self.world, faults)).await) };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = dead => {}
                () = self.accept(&bound, &alive) => {}
            }
            alive.cancel();
            drop(bound);
            let revived =
                async { drop(faults.wait_for(|faults| !self.service.is_dead(&self.world, faults)).await) };
            if self.pause(revived).await {
                return;
            }
        }
    }

    /// Waits; true if it was stopped meanwhile.
    async fn pause(&self, until: impl Future<Output = ()>) -> bool {
        self.stop.run_until_cancelled(until).await.is_none()
    }

    async fn accept(&self, listener: &TcpListener, alive: &CancellationToken) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = self.clone().connection(stream);
                    let alive = alive.clone();
                    self.tasks.spawn(async move {
                        alive.run_until_cancelled(connection).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "connection not accepted");
                    tokio::time::sleep(REBIND_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        // Answers are small; a delayed one would look like a slow endpoint. A socket that refuses still works.
        let _ = stream.set_nodelay(true);
        let Ok(Ok(stream)) = tokio::time::timeout(CLIENT_TIMEOUT, self.tls.accept(stream)).await else {
            return;
        };
        let service = service_fn(|request| self.answer(request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(CLIENT_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(address = %self.address, %error, "connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Hangup> {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, LONGEST_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Ok(response(Reply::plain(413, "The request is too long."))),
        };
        let reply = self.service.call(self, &parts, &body).await?;
        Ok(response(reply))
    }
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = http::StatusCode::from_u16(reply.status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(reply.content_type));
    if let Ok(id) = http::HeaderValue::from_str(&reply.request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// Reads certificate chain and key.
///
/// # Errors
/// [`Error::Tls`] with the file at fault.
pub(crate) fn tls_acceptor(files: &Tls) -> Result<Arc<rustls::ServerConfig>, Error> {
    let fail = |path: &std::path::Path, why: String| Error::Tls { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(&files.certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fail(&files.certificate_file, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file)
        .map_err(|error| fail(&files.key_file, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(&files.certificate_file, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| fail(&files.certificate_file, error.to_string()))?;
    Ok(Arc::new(config))
}
