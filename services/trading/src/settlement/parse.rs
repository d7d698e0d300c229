//! From the text of a settlement to a valid one, or to a refusal that names the field.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::{Returned, Settlement, SettlementStatus};
use crate::parse::{self, Fields, Refusal, RefusalCode};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Reads a settlement on its way into the settlement application. One without a time gets that of its receipt. Unknown
/// fields are ignored.
///
/// # Errors
/// The first thing that is wrong: the correlation id's shape, the fields, then how they fit together.
pub fn settlement(body: &str, correlation_id: Option<&str>, received_ms: i64) -> Result<Settlement, Refusal> {
    let (settlement, status) = read(body, correlation_id, received_ms)?;
    match status {
        None | Some(SettlementStatus::Unmatched) => Ok(settlement),
        // It was decided already: somebody sent a returned one here.
        Some(_) => Err(Refusal::of(RefusalCode::Invalid, "status", "must be Unmatched")),
    }
}

/// Reads a settlement on its way back to trade matching: it must have a status.
///
/// # Errors
/// As [`settlement`].
pub fn returned(body: &str, correlation_id: Option<&str>, received_ms: i64) -> Result<Returned, Refusal> {
    let (settlement, status) = read(body, correlation_id, received_ms)?;
    let status = status.ok_or_else(|| Refusal::of(RefusalCode::Missing, "status", "is required"))?;
    Ok(Returned { settlement, status })
}

fn read(
    body: &str,
    correlation_id: Option<&str>,
    received_ms: i64,
) -> Result<(Settlement, Option<SettlementStatus>), Refusal> {
    let correlation_id =
        correlation_id.ok_or_else(|| Refusal::of(RefusalCode::Missing, "correlationID", "is required"))?;
    let id_sender = sender_of(correlation_id)?;
    let fields = parse::fields(body)?;
    let settlement = Settlement {
        timestamp_ms: timestamp(&fields)?.unwrap_or(received_ms),
        sender: sender(&fields)?.unwrap_or_else(|| id_sender.to_owned()),
        im: parse::name(&fields, "imID", 20)?,
        broker: parse::name(&fields, "brokerID", 20)?,
        trade: parse::name(&fields, "tradeID", 10)?,
        allocation_id: parse::allocation_id(&fields)?,
        quantity: parse::quantity(&fields)?,
        security: parse::text(&fields, "security", 10)?,
        indicator: parse::indicator(&fields)?,
        price: parse::price(&fields)?,
        trade_date: date(&fields, "tradeDate")?,
        settlement_date: date(&fields, "settlementDate")?,
        delivery_instructions: parse::instructions(&fields)?,
        account: parse::account(&fields)?,
        version: parse::version(&fields)?,
    };
    let status = status(&fields)?;
    parse::parties(&settlement.sender, &settlement.im, &settlement.broker)?;
    if settlement.id() != correlation_id {
        let expected = "must be senderID-imID-brokerID-tradeID-allocationID of the message";
        return Err(Refusal::of(RefusalCode::Invalid, "correlationID", expected));
    }
    own_id(&fields, correlation_id)?;
    Ok((settlement, status))
}

/// The sender in a correlation id of the right shape. The format does not require the field.
fn sender_of(correlation_id: &str) -> Result<&str, Refusal> {
    let parts: Vec<&str> = correlation_id.split('-').collect();
    match parts[..] {
        [sender, im, broker, trade, allocation]
            if ![sender, im, broker, trade, allocation].contains(&"")
                && allocation.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Ok(sender)
        }
        _ => {
            let expected = "must have the shape senderID-imID-brokerID-tradeID-allocationID";
            Err(Refusal::of(RefusalCode::Invalid, "correlationID", expected))
        }
    }
}

fn sender(fields: &Fields<'_>) -> Result<Option<String>, Refusal> {
    let field = "senderID";
    parse::given(fields, field).map(|_| parse::name(fields, field, 20)).transpose()
}

/// The message's own id, where it names one.
fn own_id(fields: &Fields<'_>, correlation_id: &str) -> Result<(), Refusal> {
    let field = "id";
    let Some(raw) = parse::given(fields, field) else { return Ok(()) };
    if parse::string(raw, field, correlation_id.chars().count())? == correlation_id {
        Ok(())
    } else {
        Err(Refusal::of(RefusalCode::Invalid, field, "must equal the correlation id"))
    }
}

fn timestamp(fields: &Fields<'_>) -> Result<Option<i64>, Refusal> {
    let field = "timestamp";
    let Some(raw) = parse::given(fields, field) else { return Ok(None) };
    let timestamp = parse::integer(raw, field)?;
    if timestamp < 0 || jiff::Timestamp::from_millisecond(timestamp).is_err() {
        return Err(Refusal::of(RefusalCode::Invalid, field, "must be milliseconds since 1970"));
    }
    Ok(Some(timestamp))
}

/// A business date: as trades have it, or as the reference's stages write it among themselves, in seconds since 1970
/// with or without digits after the point. A time of day would be lost, so it is refused.
fn date(fields: &Fields<'_>, field: &str) -> Result<Date, Refusal> {
    let raw = parse::required(fields, field)?.get();
    if raw.starts_with('"') {
        return parse::date(fields, field);
    }
    if !raw.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        return Err(Refusal::of(RefusalCode::WrongType, field, "must be a string or a JSON number"));
    }
    let midnight = || {
        let seconds = Decimal::from_str_exact(raw).ok()?.normalize();
        let seconds = seconds.is_integer().then(|| seconds.to_i64())??;
        let instant = jiff::Timestamp::from_second(seconds).ok()?;
        let whole = seconds % DAY == 0;
        whole.then(|| instant.to_zoned(TimeZone::UTC).date()).and_then(parse::possible)
    };
    midnight().ok_or_else(|| {
        let expected = "must be a midnight UTC in seconds since 1970, like 1644278400.000000000";
        Refusal::of(RefusalCode::Invalid, field, expected)
    })
}

fn status(fields: &Fields<'_>) -> Result<Option<SettlementStatus>, Refusal> {
    let field = "status";
    let Some(raw) = parse::given(fields, field) else { return Ok(None) };
    let word = parse::string(raw, field, 20)?;
    let status = SettlementStatus::from_word(&word).ok_or_else(|| {
        Refusal::of(RefusalCode::Invalid, field, "must be Unmatched, Mismatched or Settled")
    })?;
    Ok(Some(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::of_trade;
    use crate::settlement::samples::{TAKEN_MS, manager_trade};

    const ID: &str = "QAINS012-QAINS012-QABRO010-3500017-2";
    const RECEIVED_MS: i64 = 1_700_000_000_000;

    fn sent() -> Settlement {
        of_trade(&manager_trade(), TAKEN_MS).remove(1)
    }

    fn good() -> String {
        sent().text(SettlementStatus::Unmatched)
    }

    fn read_good_with(from: &str, to: &str) -> Result<Settlement, Refusal> {
        let text = good();
        assert!(text.contains(from), "{from} is not in {text}");
        settlement(&text.replacen(from, to, 1), Some(ID), RECEIVED_MS)
    }

    fn refused(read: Result<Settlement, Refusal>) -> (RefusalCode, String) {
        let refusal = read.unwrap_err();
        (refusal.code, refusal.field.unwrap_or_default())
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(settlement(&good(), Some(ID), RECEIVED_MS), Ok(sent()));
        let later = Settlement { version: 3, ..sent() };
        assert_eq!(settlement(&later.text(SettlementStatus::Unmatched), Some(ID), RECEIVED_MS), Ok(later));
    }

    #[test]
    fn what_came_back_is_read_with_its_status() {
        for status in [SettlementStatus::Settled, SettlementStatus::Mismatched, SettlementStatus::Unmatched] {
            let expected = Returned { settlement: sent(), status };
            assert_eq!(returned(&sent().text(status), Some(ID), RECEIVED_MS), Ok(expected));
        }
        let capitals = good().replace("Unmatched", "SETTLED");
        let read = returned(&capitals, Some(ID), RECEIVED_MS).unwrap();
        assert_eq!(read.status, SettlementStatus::Settled);
    }

    #[test]
    fn what_came_back_without_a_status_is_refused() {
        for status in ["", r#""status":null,"#] {
            let text = good().replace(r#""status":"Unmatched","#, status);
            let refusal = returned(&text, Some(ID), RECEIVED_MS).unwrap_err();
            assert_eq!(refusal.description(), "MISSING status: is required");
        }
    }

    #[test]
    fn only_the_eleven_required_fields_are_required() {
        let text = r#"{"imID":"QAINS012","brokerID":"QABRO010","tradeID":"3500017","allocationID":2,"quantity":67,"security":"AMZN","transactionIndicator":"B","price":18.5,"tradeDate":"2022-02-08","settlementDate":"2022-02-10T00:00:00Z","account":"4208812345"}"#;
        let read = settlement(text, Some(ID), RECEIVED_MS);
        let expected = Settlement { timestamp_ms: RECEIVED_MS, delivery_instructions: None, ..sent() };
        assert_eq!(read, Ok(expected));
        let required = [
            "imID",
            "brokerID",
            "tradeID",
            "allocationID",
            "security",
            "transactionIndicator",
            "price",
            "quantity",
            "tradeDate",
            "settlementDate",
            "account",
        ];
        for field in required {
            let named = format!("\"{field}\":");
            let absent = settlement(&text.replace(&named, "\"other\":"), Some(ID), RECEIVED_MS);
            assert_eq!(refused(absent), (RefusalCode::Missing, field.to_owned()));
            let null = text.replace(&named, &format!("\"{field}\":null,\"other\":"));
            let null = settlement(&null, Some(ID), RECEIVED_MS);
            assert_eq!(refused(null), (RefusalCode::Missing, field.to_owned()));
        }
    }

    #[test]
    fn every_broken_rule_is_refused_by_code_and_field() {
        use RefusalCode::{Invalid, TooLong, WrongType};
        let cases = [
            (r#""id":"QAINS012-"#, r#""id":"QABRO010-"#, Invalid, "id"),
            (r#""id":"QAINS012-QAINS012-QABRO010-3500017-2""#, r#""id":7"#, WrongType, "id"),
            ("1644312345678", "\"1644312345678\"", WrongType, "timestamp"),
            ("1644312345678", "-1", Invalid, "timestamp"),
            ("1644312345678", "9223372036854775807", Invalid, "timestamp"),
            (r#""senderID":"QAINS012""#, r#""senderID":"MSAI0199""#, Invalid, "senderID"),
            (r#""senderID":"QAINS012""#, r#""senderID":"QABRO010""#, Invalid, "correlationID"),
            (r#""brokerID":"QABRO010""#, r#""brokerID":"QAINS012""#, Invalid, "brokerID"),
            (r#""imID":"QAINS012""#, r#""imID":"QAINS012QAINS012QAINS""#, TooLong, "imID"),
            (r#""imID":"QAINS012""#, r#""imID":"QA-NS012""#, Invalid, "imID"),
            (r#""tradeID":"3500017""#, r#""tradeID":"35000170000""#, TooLong, "tradeID"),
            (r#""tradeID":"3500017""#, r#""tradeID":3500017"#, WrongType, "tradeID"),
            (r#""allocationID":2"#, r#""allocationID":0"#, Invalid, "allocationID"),
            (r#""allocationID":2"#, r#""allocationID":"2""#, WrongType, "allocationID"),
            (r#""allocationID":2"#, r#""allocationID":3"#, Invalid, "correlationID"),
            (r#""quantity":67"#, r#""quantity":"67""#, WrongType, "quantity"),
            (r#""quantity":67"#, r#""quantity":67.0"#, WrongType, "quantity"),
            (r#""quantity":67"#, r#""quantity":0"#, Invalid, "quantity"),
            (r#""quantity":67"#, r#""quantity":2147483648"#, Invalid, "quantity"),
            ("AMZN", "AMZNAMZNAMZ", TooLong, "security"),
            ("AMZN", "", Invalid, "security"),
            (r#"Indicator":"B""#, r#"Indicator":"b""#, Invalid, "transactionIndicator"),
            (r#"Indicator":"B""#, r#"Indicator":"BUY""#, TooLong, "transactionIndicator"),
            ("18.5", "\"18.5\"", WrongType, "price"),
            ("18.5", "0.30000000000000004", Invalid, "price"),
            ("18.5", "18.505", Invalid, "price"),
            ("18.5", "1.85e1", Invalid, "price"),
            ("18.5", "0.0", Invalid, "price"),
            ("18.5", "100000000.0", Invalid, "price"),
            ("lorem", "lorem\\u0000", Invalid, "deliveryInstructions"),
            (r#""Unmatched""#, r#""Settled""#, Invalid, "status"),
            (r#""Unmatched""#, r#""Done""#, Invalid, "status"),
            ("4208812345", "420881234", Invalid, "account"),
            ("4208812345", "42088123456", TooLong, "account"),
            ("4208812345", "42088I2345", Invalid, "account"),
            (r#""4208812345""#, "4208812345", WrongType, "account"),
            (r#""account""#, r#""version":0,"account""#, Invalid, "version"),
        ];
        for (from, to, code, field) in cases {
            assert_eq!(refused(read_good_with(from, to)), (code, field.to_owned()), "{from} -> {to}");
        }
    }

    #[test]
    fn what_is_no_object_is_malformed() {
        for text in ["", "[]", "7", "{\"imID\":", "null"] {
            let refusal = settlement(text, Some(ID), RECEIVED_MS).unwrap_err();
            assert_eq!((refusal.code, refusal.field), (RefusalCode::Malformed, None));
        }
    }

    #[test]
    fn dates_are_read_as_texts_and_as_seconds() {
        let same_day = [
            "1644278400.000000000",
            "1644278400.0",
            "1644278400",
            r#""2022-02-08""#,
            r#""2022-02-08T00:00:00Z""#,
            r#""2022-02-08T00:00:00.000+00:00""#,
        ];
        for date in same_day {
            assert_eq!(read_good_with("1644278400.000000000", date), Ok(sent()), "{date}");
        }
        let early = read_good_with("1644278400.000000000", "-2208988800.000000000").unwrap();
        assert_eq!(early.trade_date, jiff::civil::date(1900, 1, 1));
    }

    #[test]
    fn a_date_with_a_time_of_day_or_out_of_reach_is_refused() {
        let invalid = [
            "1644278400.000000001",
            "1644278401",
            "1644278400000",
            "1.6442784e9",
            "-2208988801",
            "32503680000",
            "99999999999999999999999999999999",
            r#""1644278400""#,
            r#""2022-02-08T01:00:00Z""#,
            r#""""#,
        ];
        for date in invalid {
            let refusal = refused(read_good_with("1644278400.000000000", date));
            assert_eq!(refusal, (RefusalCode::Invalid, "tradeDate".to_owned()), "{date}");
        }
        for date in ["true", "{}", "[1644278400]"] {
            let refusal = refused(read_good_with("1644451200.000000000", date));
            assert_eq!(refusal, (RefusalCode::WrongType, "settlementDate".to_owned()), "{date}");
        }
    }

    /// The reference draws a random id, or reads the message again for ever.
    #[test]
    fn a_settlement_without_a_correlation_id_is_refused() {
        let refusal = settlement(&good(), None, RECEIVED_MS).unwrap_err();
        assert_eq!(refusal.description(), "MISSING correlationID: is required");
    }

    #[test]
    fn a_correlation_id_of_another_shape_is_refused() {
        let shapes = [
            "",
            "QAINS012-QAINS012-QABRO010-3500017",
            "QAINS012-QAINS012-QABRO010-3500017-",
            "QAINS012-QAINS012-QABRO010-3500017-x",
            "QAINS012-QAINS012-QABRO010-3500017--2",
            "QAINS012-QAINS012-QABRO010-3500017-2-2",
            "QAINS012-QAINS012--3500017-2",
            "QAINS012-QAINS012-QABRO010-3500017-02",
            "QAINS012-QAINS012-QABRO010-3500017-\u{662}",
        ];
        for id in shapes {
            let refusal = refused(settlement(&good(), Some(id), RECEIVED_MS));
            assert_eq!(refusal, (RefusalCode::Invalid, "correlationID".to_owned()), "{id}");
        }
    }

    #[test]
    fn a_sender_that_only_the_correlation_id_names_must_be_a_party() {
        let text = good().replace(r#""senderID":"QAINS012","#, "").replace(&format!("\"id\":\"{ID}\","), "");
        let broker_id = ID.replacen("QAINS012", "QABRO010", 1);
        let read = settlement(&text, Some(&broker_id), RECEIVED_MS).unwrap();
        assert_eq!(read.sender, "QABRO010");
        let stranger_id = ID.replacen("QAINS012", "MSAI0199", 1);
        let refusal = refused(settlement(&text, Some(&stranger_id), RECEIVED_MS));
        assert_eq!(refusal, (RefusalCode::Invalid, "senderID".to_owned()));
    }

    /// The reference's database has room for 50 characters of an id, but its parts may need more.
    #[test]
    fn the_longest_names_fit() {
        let longest = Settlement {
            sender: "I".repeat(20),
            im: "I".repeat(20),
            broker: "B".repeat(20),
            trade: "9".repeat(10),
            allocation_id: i64::MAX,
            quantity: i32::MAX,
            security: "S".repeat(10),
            price: "99999999.99".parse().unwrap(),
            delivery_instructions: Some("ä".repeat(50)),
            version: 1_000_000,
            ..sent()
        };
        let text = longest.text(SettlementStatus::Unmatched);
        assert_eq!(settlement(&text, Some(&longest.id()), RECEIVED_MS), Ok(longest));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        assert_eq!(read_good_with("{", r#"{"colour":["blue"],"#), Ok(sent()));
    }
}
