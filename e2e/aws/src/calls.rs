//! The call log: who asked what of which endpoint, in order, and what came of it. Bounded.

use std::collections::VecDeque;

use serde::Serialize;

/// One API call.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Call {
    /// Position in the log since start; never reused.
    pub(crate) sequence: u64,
    /// When it arrived.
    pub(crate) time: jiff::Timestamp,
    /// `arc:<region>` or `rds:<region>`; the region is `?` where the signature names none.
    pub(crate) endpoint: String,
    /// Access key of the caller as claimed, empty if the call had none.
    pub(crate) caller: String,
    /// API operation.
    pub(crate) operation: String,
    /// Parameters as sent.
    pub(crate) parameters: serde_json::Value,
    /// `ok`, the error code, or `hung`.
    pub(crate) outcome: String,
}

/// The latest calls.
#[derive(Debug)]
pub(crate) struct CallLog {
    calls: VecDeque<Call>,
    limit: usize,
    next: u64,
    dropped: u64,
}

impl CallLog {
    pub(crate) fn new(limit: usize) -> Self {
        Self { calls: VecDeque::new(), limit, next: 1, dropped: 0 }
    }

    /// Appends a call; its `sequence` is set here.
    pub(crate) fn push(&mut self, mut call: Call) {
        call.sequence = self.next;
        self.next += 1;
        if self.calls.len() == self.limit {
            self.calls.pop_front();
            self.dropped += 1;
        }
        self.calls.push_back(call);
    }

    /// The calls with a sequence above `after`, oldest first.
    pub(crate) fn after(&self, after: u64) -> Vec<Call> {
        self.calls.iter().filter(|call| call.sequence > after).cloned().collect()
    }

    /// How many calls the limit has pushed out since the last [`clear`](Self::clear).
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn clear(&mut self) {
        self.calls.clear();
        self.dropped = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: &str) -> Call {
        Call {
            sequence: 0,
            time: jiff::Timestamp::UNIX_EPOCH,
            endpoint: "arc:us-east-1".to_owned(),
            caller: String::new(),
            operation: operation.to_owned(),
            parameters: serde_json::Value::Null,
            outcome: "ok".to_owned(),
        }
    }

    #[test]
    fn keeps_the_latest_and_counts_what_it_dropped() {
        let mut log = CallLog::new(2);
        for operation in ["a", "b", "c"] {
            log.push(call(operation));
        }
        let kept: Vec<_> = log.after(0).into_iter().map(|c| (c.sequence, c.operation)).collect();
        assert_eq!(kept, [(2, "b".to_owned()), (3, "c".to_owned())]);
        assert_eq!(log.dropped(), 1);
        assert_eq!(log.after(2).len(), 1);
    }

    #[test]
    fn sequence_goes_on_after_a_clear() {
        let mut log = CallLog::new(2);
        log.push(call("a"));
        log.clear();
        log.push(call("b"));
        assert_eq!(log.after(0)[0].sequence, 2);
    }
}
