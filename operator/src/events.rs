//! Events on the object: the start and the end of each step, and what went wrong. Best effort: an event that cannot be
//! written never fails or delays a pass.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use crate::error::chain;

/// Events that wait to be written; more are dropped and counted in the log.
const QUEUE: usize = 256;
/// One write.
const WRITE: Duration = Duration::from_secs(2);
/// Limits of the API: longer texts are cut.
const NOTE_BYTES: usize = 1000;
/// Kinds of events that are remembered.
const KINDS: usize = 512;

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Part of the normal course.
    Normal,
    /// Somebody should look.
    Warning,
}

struct Queued {
    event: Event,
    about: ObjectReference,
}

/// A recorder counts an event again that has the same reason and action, and keeps the note of the first one: a changed note,
/// another run or cause, would never be seen. So another note gets another recorder.
struct Recorders {
    client: Client,
    reporter: Reporter,
    last: HashMap<Kind, (Option<String>, Recorder)>,
}

/// What a recorder takes for the same event.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    about: Option<String>,
    reason: String,
    action: String,
}

impl Recorders {
    fn of(&mut self, event: &Event, about: &ObjectReference) -> &Recorder {
        // A forgotten one only begins to count anew.
        if self.last.len() >= KINDS {
            self.last.clear();
        }
        let kind =
            Kind { about: about.uid.clone(), reason: event.reason.clone(), action: event.action.clone() };
        let fresh = || (event.note.clone(), Recorder::new(self.client.clone(), self.reporter.clone()));
        let entry = self.last.entry(kind).or_insert_with(fresh);
        if entry.0 != event.note {
            *entry = fresh();
        }
        &entry.1
    }
}

/// Where passes put their events.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Queued>,
}

impl Events {
    /// Starts the writer, which ends when the last [`Events`] is gone.
    pub fn start(client: Client, controller: &str, instance: &str) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        let mut recorders = Recorders { client, reporter, last: HashMap::new() };
        let (queue, mut waiting) = mpsc::channel::<Queued>(QUEUE);
        tokio::spawn(async move {
            while let Some(Queued { event, about }) = waiting.recv().await {
                let recorder = recorders.of(&event, &about);
                match tokio::time::timeout(WRITE, recorder.publish(&event, &about)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(error = chain(&error), reason = event.reason, "event not written")
                    }
                    Err(_) => tracing::debug!(reason = event.reason, "event not written: no answer"),
                }
            }
        });
        Self { queue }
    }

    /// Queues an event. `reason` and `action` are CamelCase words, `note` is a sentence.
    pub fn tell(&self, about: &ObjectReference, severity: Severity, reason: &str, action: &str, note: &str) {
        let type_ = match severity {
            Severity::Normal => EventType::Normal,
            Severity::Warning => EventType::Warning,
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            action: action.to_owned(),
            note: Some(cut(note, NOTE_BYTES).to_owned()),
            secondary: None,
        };
        if self.queue.try_send(Queued { event, about: about.clone() }).is_err() {
            tracing::debug!(reason, note, "event dropped: too many wait");
        }
    }
}

/// The longest beginning of `text` of at most `bytes` bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("short", 1000), "short");
    }
}
