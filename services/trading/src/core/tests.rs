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
            let Answer { message_id, id, received_ms, decided, .. } = answer.clone();
            let decided = Record { record: message_id, id, received_ms, content: decided, traceparent: None };
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
