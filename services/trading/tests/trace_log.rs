//! The logs of all stages tell of one trade by one trace. A program of its own: a process has one log.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex};

use serde_json::Value;
use support::both::{ACCOUNT, Both, allocated};
use support::reports::{BROKER, IM, report};
use support::traces::{answered, publish_traced, text};
use tracing_subscriber::EnvFilter;
use trading::run::StageName;

fn trace(number: u8) -> String {
    format!("00-4bf92f3577b34da6a3ce929d0e0e47{number:02x}-00f067aa0ba902b7-01")
}

fn id_of(sender: &str, number: u32) -> String {
    format!("{sender}-{IM}-{BROKER}-{number}")
}

/// What this test program logs, a JSON object a line.
static LOGGED: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(Arc::default);

struct Logged;

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines about an id, those of its settlements among them.
fn lines(id: &str) -> Vec<Value> {
    let text = String::from_utf8(LOGGED.lock().unwrap().clone()).unwrap();
    let fields = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].clone());
    fields.filter(|fields| fields["id"].as_str().is_some_and(|told| told.starts_with(id))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trade_is_followed_through_the_logs_of_all_stages_by_one_trace() {
    let filter = EnvFilter::new("warn,trading=info,trading::trace=debug");
    let log = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(|| Logged);
    log.try_init().unwrap();
    let both = Both::start().await;
    let _pipelines = both.pipelines().await;
    let trading = &both.trading;
    publish_traced(trading, &allocated(IM, 71, ACCOUNT), text(&trace(1))).await;
    let (id, body) = allocated(BROKER, 71, ACCOUNT);
    trading.publish(Some(&id), body.as_bytes()).await;
    publish_traced(trading, &report(IM, 72, "0", 1, "Unmatched"), text(&trace(3))).await;
    assert_eq!(answered(trading, 5).await.len(), 5);
    let stages: BTreeSet<&str> = StageName::ALL.map(StageName::word).into();
    for (id, named) in [(id_of(IM, 71), Some(trace(1)[3..35].to_owned())), (id, None)] {
        let lines = lines(&id);
        let told: BTreeSet<&str> = lines.iter().filter_map(|line| line["stage"].as_str()).collect();
        assert_eq!(told, stages, "{lines:?}");
        // Two reports' records and their answers, and two settlements' there and back.
        assert!(lines.len() > 20, "{lines:?}");
        let traces: BTreeSet<&str> = lines.iter().map(|line| line["trace_id"].as_str().unwrap()).collect();
        assert_eq!((traces.len(), traces.first().unwrap().len()), (1, 32), "{traces:?}");
        assert!(named.is_none_or(|named| traces.contains(named.as_str())), "{traces:?}");
    }
    let refused: Vec<Value> =
        lines(&id_of(IM, 72)).into_iter().filter(|line| line["message"] == "refused").collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["trace_id"], trace(3)[3..35], "{refused:?}");
    assert!(refused[0]["reason"].as_str().unwrap().contains("INVALID price"), "{refused:?}");
}
