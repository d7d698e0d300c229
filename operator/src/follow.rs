//! One kind of the own cluster: listed, then watched, with a sign of life at least every few seconds.
//!
//! kube's watcher tells neither of bookmarks nor of reconnections, so through it a quiet watch and a dead one look alike.
//! Here each watch is asked for a few seconds only: whatever the server says, and its answer to the next watch, is a sign of
//! life, and silence is a failure. After a failure everything is listed anew.

use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::runtime::watcher::Event;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::backoff::{Backoff, BackoffLimits};
use crate::deadline::within;

/// The server ends a watch after this many seconds, and sends a bookmark two seconds before. Well below the age at which a
/// fact is no longer used.
const WATCH_SECONDS: u32 = 5;
/// Nothing at all from a watch for this long: its connection is dead.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 2);
/// One page of a listing, or the answer to a watch.
const ANSWER: Duration = Duration::from_secs(3);
/// A whole listing.
const LISTING: Duration = Duration::from_secs(60);
/// Objects in one page.
const PAGE: u32 = 500;
/// Least time between the beginnings of two watches: a server that ends each at once is not hammered.
const LEAST: Duration = Duration::from_secs(1);
const PAUSES: BackoffLimits =
    BackoffLimits { first: Duration::from_millis(200), longest: Duration::from_secs(5) };

/// What is told of the kind.
pub(crate) enum News<K> {
    /// A change, or a part of a listing.
    Event(Event<K>),
    /// All that was told before was complete at this time.
    Heard(Timestamp),
    /// Nothing is heard any more, for this reason. It is tried again.
    Failed(String),
}

/// Follows the kind for ever.
pub(crate) async fn follow<K>(api: &Api<K>, now: impl Fn() -> Timestamp, tell: impl Fn(News<K>)) -> Infallible
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let (kind, pauses) = (K::kind(&()), Backoff::new(PAUSES));
    loop {
        let Err(why) = list_and_watch(api, &now, &tell, &pauses).await;
        tracing::warn!(why, %kind, "not watched; listed anew soon");
        tell(News::Failed(why));
        tokio::time::sleep(pauses.failed(&kind, rand::random())).await;
    }
}

async fn list_and_watch<K>(
    api: &Api<K>,
    now: &impl Fn() -> Timestamp,
    tell: &impl Fn(News<K>),
    pauses: &Backoff,
) -> Result<Infallible, String>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut version = within(LISTING, "the API server", list(api, now, tell)).await.map_err(text)??;
    loop {
        let began = tokio::time::Instant::now();
        version = watch(api, version, now, tell).await?;
        pauses.succeeded(&K::kind(&()));
        tokio::time::sleep_until(began + LEAST).await;
    }
}

/// Answers the version from which a watch may go on.
async fn list<K>(
    api: &Api<K>,
    now: &impl Fn() -> Timestamp,
    tell: &impl Fn(News<K>),
) -> Result<String, String>
where
    K: Clone + Debug + DeserializeOwned,
{
    let began = now();
    let mut params = ListParams::default().limit(PAGE);
    tell(News::Event(Event::Init));
    loop {
        let page = within(ANSWER, "the API server", api.list(&params)).await.map_err(text)?.map_err(text)?;
        page.items.into_iter().for_each(|object| tell(News::Event(Event::InitApply(object))));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => {
                tell(News::Event(Event::InitDone));
                // The answer is as old as the question.
                tell(News::Heard(began));
                return page.metadata.resource_version.ok_or_else(|| "a list without a version".to_owned());
            }
        }
    }
}

/// One watch until the server ends it. Answers the version that was reached.
async fn watch<K>(
    api: &Api<K>,
    mut version: String,
    now: &impl Fn() -> Timestamp,
    tell: &impl Fn(News<K>),
) -> Result<String, String>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let params = WatchParams::default().timeout(WATCH_SECONDS);
    let opened = within(ANSWER, "the API server", api.watch(&params, &version)).await;
    let mut events = pin!(opened.map_err(text)?.map_err(text)?);
    tell(News::Heard(now()));
    // An end may come from anything on the way: it is no sign of life by itself.
    while let Some(event) = within(SILENCE, "the watch", events.next()).await.map_err(text)? {
        let change = match event.map_err(text)? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Event::Apply(object),
            WatchEvent::Deleted(object) => Event::Delete(object),
            WatchEvent::Bookmark(bookmark) => {
                version = bookmark.metadata.resource_version;
                tell(News::Heard(now()));
                continue;
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).to_string()),
        };
        if let Event::Apply(object) | Event::Delete(object) = &change {
            version = object.resource_version().unwrap_or(version);
        }
        tell(News::Event(change));
        tell(News::Heard(now()));
    }
    Ok(version)
}

fn text(error: impl std::error::Error + 'static) -> String {
    crate::error::chain(&error)
}
