use std::collections::HashMap;

use super::*;
use crate::envelope::Emitted;
use crate::message::{Trade, json};

fn report(sender: &str, number: &str, price: &str, received_ms: i64) -> Report<Trade> {
    let body = format!(
        r#"{{"senderID":"{sender}","imID":"QAINS012","brokerID":"QABRO010","tradeID":"{number}","security":"AMZN",
            "transactionIndicator":"B","price":{price},"quantity":2,"tradeDate":"2026-02-09",
            "settlementDate":"2026-02-09"}}"#
    );
    let id = format!("{sender}-QAINS012-QABRO010-{number}");
    let content = crate::parse::trade(&body, &id).unwrap();
    Report { record: ids::record(&id, body.as_bytes()), received_ms, content, traceparent: None }
}

/// Decides the reports in batches of the given size, each from what the ones before have stored.
fn answers(reports: &[Report<Trade>], batch: usize) -> Vec<(Uuid, String)> {
    let mut stored: HashMap<(Date, String), (Report<Trade>, Status)> = HashMap::new();
    let mut answers = Vec::new();
    for reports in reports.chunks(batch) {
        let mut changes = Changes::default();
        let mut digester = Digester::new(1);
        match_reports(&mut digester, reports.to_vec(), stored.values().cloned().collect(), &mut changes);
        for Update { trade_date, id, status, .. } in changes.updated {
            stored.get_mut(&(trade_date, id)).unwrap().1 = Status::from_word(status).unwrap();
        }
        for (report, status, _) in changes.new {
            stored.insert(report.content.key(), (report, status));
        }
        answers.extend(changes.answers.iter().map(|answer| {
            let Answer { message_id, id, received_ms, caused_ms, decided, traceparent } = answer.clone();
            let caused_ms = Some(caused_ms);
            let decided =
                Record { record: message_id, id, received_ms, caused_ms, content: decided, traceparent };
            let Emitted::Answer(response) = crate::egress::emitted(decided).content else { panic!() };
            (message_id, json(&response))
        }));
    }
    answers.sort();
    answers
}

#[test]
fn answers_are_the_same_bytes_for_every_order_and_batching() {
    let mut reports = vec![
        report("QAINS012", "1", "18.5", 10),
        report("QABRO010", "1", "18.50", 11),
        report("QAINS012", "2", "18.5", 12),
        report("QABRO010", "2", "7", 13),
        report("QAINS012", "3", "5.0", 14),
    ];
    let expected = answers(&reports, 5);
    assert_eq!(expected.len(), 4);
    for _ in 0..reports.len() {
        reports.rotate_left(1);
        for batch in 1..=5 {
            assert_eq!(answers(&reports, batch), expected);
            let twice: Vec<_> = reports.iter().chain(&reports).cloned().collect();
            assert_eq!(answers(&twice, batch), expected);
        }
    }
}

#[test]
fn a_mismatch_names_what_differs_and_carries_the_exact_price() {
    let answers = answers(&[report("QAINS012", "1", "18.5", 10), report("QABRO010", "1", "18", 11)], 2);
    assert!(answers.iter().all(|(_, body)| body.contains("MISMATCHED: PRICE_DIFFERS")), "{answers:?}");
    assert!(answers.iter().any(|(_, body)| body.contains(r#"\"price\":18.0,"#)), "{answers:?}");
}

/// What is stored after the end of waits, and the answers with the times that they follow from.
fn ended(stored: &[(Report<Trade>, Status)], days: u16, today: Date) -> Vec<(String, String, i64)> {
    let changes = expiry::expired(stored.to_vec(), std::num::NonZeroU16::new(days).unwrap(), today);
    assert_eq!(changes.updated.len(), changes.answers.len());
    let answer = |answer: &Answer<Trade>| {
        let Decided::Told { status: Status::Expired, description, .. } = &answer.decided else { panic!() };
        (answer.id.clone(), description.clone(), answer.caused_ms)
    };
    changes.answers.iter().map(answer).collect()
}

#[test]
fn a_wait_ends_after_its_last_day_and_only_where_there_is_one() {
    const MIDNIGHT_MS: i64 = 1_770_854_400_000;
    let day = |day| jiff::civil::date(2026, 2, day);
    let waiting = report("QAINS012", "1", "18.5", 10);
    let stored = |status| [(waiting.clone(), status)];
    assert_eq!(ended(&stored(Status::Unmatched), 2, day(11)), []);
    let said = "EXPIRED: the other party had not reported by the end of 2026-02-11".to_owned();
    let id = "QAINS012-QAINS012-QABRO010-1".to_owned();
    assert_eq!(ended(&stored(Status::Unmatched), 2, day(12)), [(id.clone(), said.clone(), MIDNIGHT_MS)]);
    // Again it says the same, whenever it is; of a report that came later, from then on.
    assert_eq!(ended(&stored(Status::Unmatched), 2, day(28)), [(id.clone(), said.clone(), MIDNIGHT_MS)]);
    let late = Report { received_ms: MIDNIGHT_MS + 5, ..waiting.clone() };
    assert_eq!(ended(&[(late, Status::Unmatched)], 2, day(28)), [(id, said, MIDNIGHT_MS + 5)]);
    for status in [Status::Matched, Status::Mismatched, Status::Settled, Status::Cancelled, Status::Expired] {
        assert_eq!(ended(&stored(status), 2, day(28)), [], "{status:?}");
    }
}

#[test]
fn after_a_wait_has_ended_a_new_version_comes_too_late_and_a_counterpart_waits_by_itself() {
    let (first, counterpart) = (report("QAINS012", "1", "18.5", 10), report("QABRO010", "1", "18.5", 11));
    let mut amended = report("QAINS012", "1", "19.5", 12);
    amended.content.version = 2;
    amended.record = Uuid::new_v4();
    let known = vec![(first.clone(), Status::Expired)];
    let mut changes = Changes::default();
    let reports = vec![first, counterpart, amended];
    match_reports(&mut Digester::new(1), reports, known, &mut changes);
    assert_eq!(changes.updated, []);
    let refused: Vec<&str> = changes.refused.iter().map(|(_, code)| code.word()).collect();
    assert_eq!(refused, ["TOO_LATE"]);
    let new: Vec<_> = changes.new.iter().map(|(report, status, _)| (report.received_ms, *status)).collect();
    assert_eq!(new, [(11, Status::Unmatched)]);
}
