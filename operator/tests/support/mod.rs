//! An API server in this process: it lists what it was given, keeps watches open, keeps a written status, answers other
//! writes with the object, and records every request. It stands in for plumbing only; what the real server does is tested on the lab.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// A value must show within this time.
pub const SOON: Duration = Duration::from_secs(10);

/// One recorded request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
}

/// What the server knows.
#[derive(Clone, Default)]
pub struct ApiServer {
    /// Objects by the path of their collection.
    collections: Arc<Mutex<Vec<(String, Value)>>>,
    /// Answers with this status to requests whose path contains the text; after `write `, to writes only.
    failing: Arc<Mutex<Vec<(String, StatusCode)>>>,
    /// Requests whose path contains one of these are never answered, and watches of them never end.
    silent: Arc<Mutex<Vec<String>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl ApiServer {
    pub fn put(&self, collection: &str, object: Value) {
        self.collections.lock().unwrap().push((collection.to_owned(), object));
    }

    pub fn fail(&self, path_part: &str, status: StatusCode) {
        self.failing.lock().unwrap().push((path_part.to_owned(), status));
    }

    pub fn silence(&self, path_part: &str) {
        self.silent.lock().unwrap().push(path_part.to_owned());
    }

    /// All is answered again.
    pub fn recover(&self) {
        self.failing.lock().unwrap().clear();
        self.silent.lock().unwrap().clear();
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Writes so far whose path contains the text.
    pub fn writes(&self, path_part: &str) -> Vec<Asked> {
        self.asked()
            .into_iter()
            .filter(|asked| asked.method != Method::GET && asked.path.contains(path_part))
            .collect()
    }

    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        self.asked.lock().unwrap().push(Asked {
            method: parts.method.clone(),
            path: path.clone(),
            query: query.clone(),
            body: body.clone(),
        });
        let fails = |part: &str| match part.strip_prefix("write ") {
            Some(part) => parts.method != Method::GET && path.contains(part),
            None => path.contains(part),
        };
        if let Some((_, status)) = self.failing.lock().unwrap().iter().find(|(part, _)| fails(part)) {
            return failure(*status);
        }
        if query.contains("watch=true") {
            return self.watch(path, &query);
        }
        if self.is_silent(&path) {
            std::future::pending::<()>().await;
        }
        if parts.method == Method::POST {
            return object(StatusCode::CREATED, &body);
        }
        match self.find(&path) {
            Found::Object(mut found) if parts.method == Method::PATCH => {
                merge(&mut found, &body);
                if path.ends_with("/status") {
                    self.keep(&path, &found);
                }
                object(StatusCode::OK, &found)
            }
            Found::Object(found) => object(StatusCode::OK, &found),
            Found::List(items) => {
                object(StatusCode::OK, &json!({"metadata": {"resourceVersion": "1"}, "items": items}))
            }
            Found::Nothing => failure(StatusCode::NOT_FOUND),
        }
    }

    fn is_silent(&self, path: &str) -> bool {
        self.silent.lock().unwrap().iter().any(|part| path.contains(part.as_str()))
    }

    /// A watch of a kind that never changes: it ends when its time is over, unless the server has fallen silent.
    fn watch(&self, path: String, query: &str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let seconds = query.split('&').find_map(|part| part.strip_prefix("timeoutSeconds="));
        let seconds = Duration::from_secs(seconds.unwrap().parse().unwrap());
        let server = self.clone();
        let end = stream::once(async move {
            tokio::time::sleep(seconds).await;
            if server.is_silent(&path) {
                std::future::pending::<()>().await;
            }
        });
        let nothing = end.filter_map(async |()| None::<Result<hyper::body::Frame<Bytes>, Infallible>>);
        Response::new(StreamBody::new(nothing).boxed_unsync())
    }

    fn keep(&self, path: &str, written: &Value) {
        for (at, object) in self.collections.lock().unwrap().iter_mut() {
            if is_at(path, at, object) {
                *object = written.clone();
            }
        }
    }

    fn find(&self, path: &str) -> Found {
        let collections = self.collections.lock().unwrap();
        // A list over all namespaces has no namespace in its path.
        let plural = path.rsplit('/').next().unwrap_or_default();
        let listed: Vec<Value> = collections
            .iter()
            .filter(|(at, _)| at.ends_with(&format!("/{plural}")))
            .map(|(_, object)| object.clone())
            .collect();
        let is_list = ["tradingregions", "deployments", "horizontalpodautoscalers"].contains(&plural);
        if is_list {
            return Found::List(listed);
        }
        let by_path = |(at, object): &&(String, Value)| is_at(path, at, object);
        collections.iter().find(by_path).map_or(Found::Nothing, |(_, object)| Found::Object(object.clone()))
    }
}

/// Whether this object of the collection, or its status, has that path.
fn is_at(path: &str, collection: &str, object: &Value) -> bool {
    let wanted = path.trim_end_matches("/status");
    object["metadata"]["name"].as_str().is_some_and(|name| wanted == format!("{collection}/{name}"))
}

enum Found {
    Object(Value),
    List(Vec<Value>),
    Nothing,
}

/// Enough of a merge for plumbing: objects are merged, everything else is replaced.
fn merge(into: &mut Value, patch: &Value) {
    match (into.as_object_mut(), patch.as_object()) {
        (Some(fields), Some(changes)) => {
            for (key, value) in changes {
                merge(fields.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *into = patch.clone(),
    }
}

fn object(status: StatusCode, value: &Value) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn failure(status: StatusCode) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let reason = match status {
        StatusCode::CONFLICT => "Conflict",
        StatusCode::NOT_FOUND => "NotFound",
        _ => "InternalError",
    };
    let text = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason,
                      "code": status.as_u16()});
    object(status, &text)
}

/// Waits until the value shows, at most [`SOON`].
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// The example object as the API server would hold it.
pub fn example() -> Value {
    let text = include_str!("../../../crds/examples/trade-matching.yaml");
    let mut object: Value = serde_saphyr::from_str(text).unwrap();
    object["metadata"]["uid"] = json!("0c8d4f6e-0000-4000-8000-000000000001");
    object["metadata"]["resourceVersion"] = json!("7");
    object["metadata"]["generation"] = json!(3);
    object
}
