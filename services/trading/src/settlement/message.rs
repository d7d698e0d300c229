//! The settlement message.

use jiff::civil::{Date, DateTime, date};
use jiff::tz::TimeZone;
use matching::{Action, Digester, Indicator, Outcome, ReportError, SettlementTerms, Side, Status};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::ids;
use crate::message::{Allocation, FIRST_VERSION, Trade, decimal, json};

/// One party's settlement of one allocation, valid in itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// When the gateway of trade matching took the trade, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Whose side of the trade it comes from: the investment manager or the broker.
    pub sender: String,
    /// Investment manager.
    pub im: String,
    /// Broker.
    pub broker: String,
    /// The parties' number of the trade.
    pub trade: String,
    /// Number of the allocation within the trade.
    pub allocation_id: i64,
    /// The allocation's quantity, not the trade's.
    pub quantity: i32,
    /// Security symbol.
    pub security: String,
    /// Buy or sell.
    pub indicator: Indicator,
    /// Price of one unit.
    pub price: Decimal,
    /// Business date of the trade.
    pub trade_date: Date,
    /// Date of settlement.
    pub settlement_date: Date,
    /// Free text.
    pub delivery_instructions: Option<String>,
    /// Ten digits.
    pub account: String,
    /// The version of the trade's report that was matched.
    pub version: u32,
}

/// A settlement as it comes back from the settlement application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// The settlement, as it was sent.
    pub settlement: Settlement,
    /// What became of it.
    pub status: SettlementStatus,
}

/// Where a settlement stands; a later one never becomes an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SettlementStatus {
    /// The other party's is not there yet.
    Unmatched,
    /// The two parties' settlements differ.
    Mismatched,
    /// The two parties' settlements agree.
    Settled,
}

impl SettlementStatus {
    const ALL: [Self; 3] = [Self::Unmatched, Self::Mismatched, Self::Settled];

    /// The word in settlement messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unmatched => "Unmatched",
            Self::Mismatched => "Mismatched",
            Self::Settled => "Settled",
        }
    }

    /// The status of a word in any case: the reference writes some of its statuses in capitals.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word().eq_ignore_ascii_case(word))
    }
}

/// What the comparison of two settlements gave, as both are told.
impl From<Outcome> for SettlementStatus {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Agreed(_) => Self::Settled,
            Outcome::Mismatched(_) => Self::Mismatched,
        }
    }
}

/// The word that matching has for it.
impl From<SettlementStatus> for Status {
    fn from(status: SettlementStatus) -> Self {
        match status {
            SettlementStatus::Unmatched => Self::Unmatched,
            SettlementStatus::Mismatched => Self::Mismatched,
            SettlementStatus::Settled => Self::Settled,
        }
    }
}

/// The settlements of one side of a trade that is matched: one for each allocation, in their order.
pub fn of_trade(trade: &Trade, timestamp_ms: i64) -> Vec<Settlement> {
    let settlement = |allocation: &Allocation| Settlement {
        timestamp_ms,
        sender: trade.sender.clone(),
        im: trade.im.clone(),
        broker: trade.broker.clone(),
        trade: trade.trade.clone(),
        allocation_id: allocation.allocation_id,
        quantity: allocation.quantity,
        security: trade.security.clone(),
        indicator: trade.indicator,
        price: trade.price,
        trade_date: trade.trade_date,
        settlement_date: trade.settlement_date,
        delivery_instructions: trade.delivery_instructions.clone(),
        account: allocation.account.clone(),
        version: trade.version,
    };
    trade.allocations.iter().map(settlement).collect()
}

impl Settlement {
    /// The id that the parties see: that of the trade's side and the number of the allocation.
    pub fn id(&self) -> String {
        format!("{}-{}", self.trade_id(), self.allocation_id)
    }

    /// The id of the trade's side.
    pub fn trade_id(&self) -> String {
        format!("{}-{}-{}-{}", self.sender, self.im, self.broker, self.trade)
    }

    /// The lock that all settlements of a trade take, and the trade's own reports.
    pub(crate) fn lock(&self) -> i32 {
        ids::lock(&self.im, &self.broker, &self.trade, self.trade_date)
    }

    /// The message id of the settlement with a status. It does not depend on time, so that a repetition has the same one.
    pub fn message_id(&self, status: SettlementStatus) -> Uuid {
        ids::settlement(self, status)
    }

    /// Whether the other one is the same settlement, made at whatever time.
    pub(crate) fn equals_but_for_time(&self, other: &Self) -> bool {
        *self == Self { timestamp_ms: self.timestamp_ms, ..other.clone() }
    }

    /// The settlement as the matching rules see it.
    ///
    /// # Errors
    /// The sender is not a party of the trade, the parties are the same, or the price has more than two digits.
    pub fn side(&self, digester: &mut Digester) -> Result<Side<SettlementTerms>, ReportError> {
        // Not the timestamp: the same settlement at another time is a repetition, not a conflict.
        let rest = json(&self.delivery_instructions);
        let report = matching::Report {
            sender: &self.sender,
            im: &self.im,
            broker: &self.broker,
            trade: &self.trade,
            indicator: self.indicator,
            trade_date: self.trade_date,
            settlement_date: self.settlement_date,
            security: &self.security,
            price: self.price,
            quantity: self.quantity,
            version: self.version,
            action: Action::State,
            last_day: self.settlement_date,
            rest: rest.as_bytes(),
        };
        let allocation = matching::Allocation { number: self.allocation_id, account: &self.account };
        digester.settlement(&report, &allocation)
    }

    /// The settlement as a message, with a status. The same settlement always gives the same text.
    pub fn text(&self, status: SettlementStatus) -> String {
        let taken = utc(self.timestamp_ms);
        json(&SettlementText {
            id: &self.id(),
            timestamp: self.timestamp_ms,
            current_date: taken.date().to_string(),
            current_time: taken.strftime("%H:%M:%S").to_string(),
            sender_id: &self.sender,
            im_id: &self.im,
            broker_id: &self.broker,
            trade_id: &self.trade,
            allocation_id: self.allocation_id,
            quantity: self.quantity,
            security: &self.security,
            transaction_indicator: self.indicator.letter(),
            price: self.price,
            trade_date: self.trade_date,
            settlement_date: self.settlement_date,
            delivery_instructions: self.delivery_instructions.as_deref(),
            status: status.word(),
            account: &self.account,
            version: (self.version > FIRST_VERSION).then_some(self.version),
        })
    }
}

/// The time of a timestamp, in UTC.
fn utc(timestamp_ms: i64) -> DateTime {
    // Only the years after 9999 have no time, and no gateway was there to see them.
    let instant = jiff::Timestamp::from_millisecond(timestamp_ms).unwrap_or_default();
    instant.to_zoned(TimeZone::UTC).datetime()
}

/// The settlement message; the order of fields is that of the format.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SettlementText<'a> {
    id: &'a str,
    timestamp: i64,
    current_date: String,
    current_time: String,
    #[serde(rename = "senderID")]
    sender_id: &'a str,
    #[serde(rename = "imID")]
    im_id: &'a str,
    #[serde(rename = "brokerID")]
    broker_id: &'a str,
    #[serde(rename = "tradeID")]
    trade_id: &'a str,
    #[serde(rename = "allocationID")]
    allocation_id: i64,
    quantity: i32,
    security: &'a str,
    transaction_indicator: &'a str,
    #[serde(serialize_with = "decimal")]
    price: Decimal,
    #[serde(serialize_with = "epoch_decimal")]
    trade_date: Date,
    #[serde(serialize_with = "epoch_decimal")]
    settlement_date: Date,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_instructions: Option<&'a str>,
    status: &'a str,
    account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
}

/// A date as seconds since 1970 with nine digits after the point, as the reference writes its instants.
fn epoch_decimal<S: Serializer>(day: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    let seconds = day.duration_since(date(1970, 1, 1)).as_secs();
    let text = format!("{seconds}.000000000");
    RawValue::from_string(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use matching::{Book, Decision, Difference, Differences, Known, Reason, Refusal, Terms};

    use super::*;
    use crate::settlement::samples::{TAKEN_MS, broker_trade, manager_trade};

    const REFERENCE_TEXT: &str = r#"{"id":"QAINS012-QAINS012-QABRO010-3500017-2","timestamp":1644312345678,"currentDate":"2022-02-08","currentTime":"09:25:45","senderID":"QAINS012","imID":"QAINS012","brokerID":"QABRO010","tradeID":"3500017","allocationID":2,"quantity":67,"security":"AMZN","transactionIndicator":"B","price":18.5,"tradeDate":1644278400.000000000,"settlementDate":1644451200.000000000,"deliveryInstructions":"lorem","status":"Unmatched","account":"4208812345"}"#;

    type Change = fn(&mut Settlement);

    /// The second settlements of both sides of one trade.
    fn pair() -> [Settlement; 2] {
        [manager_trade(), broker_trade()].map(|trade| of_trade(&trade, TAKEN_MS).remove(1))
    }

    /// Takes settlements one after the other, and gives the last decision.
    fn last_decision(settlements: &[Settlement]) -> Decision {
        let mut digester = Digester::new(7);
        let mut book = Book::default();
        let mut taken = settlements.iter().map(|one| book.take(one.side(&mut digester).unwrap()));
        let first = taken.next().unwrap();
        taken.fold(first, |_, decision| decision)
    }

    /// The status of a pair that was just compared.
    fn compared(settlements: &[Settlement]) -> (SettlementStatus, Option<Reason>) {
        let decision = last_decision(settlements);
        let Decision::Paired { outcome, .. } = decision else { panic!("{decision:?}") };
        (outcome.into(), decision.reason())
    }

    #[test]
    fn a_matched_side_gives_one_settlement_for_each_allocation() {
        let trade = manager_trade();
        let settlements = of_trade(&trade, TAKEN_MS);
        let ids: Vec<String> = settlements.iter().map(Settlement::id).collect();
        assert_eq!(ids, ["QAINS012-QAINS012-QABRO010-3500017-1", "QAINS012-QAINS012-QABRO010-3500017-2"]);
        // The allocation's share, not the number of units that the trade has.
        assert_eq!(settlements.iter().map(|one| one.quantity).collect::<Vec<_>>(), [33, 67]);
        assert_eq!(of_trade(&Trade { allocations: Vec::new(), ..trade }, TAKEN_MS), []);
    }

    #[test]
    fn the_text_has_the_fields_of_the_format_in_its_order() {
        assert_eq!(pair()[0].text(SettlementStatus::Unmatched), REFERENCE_TEXT);
    }

    #[test]
    fn date_and_time_of_the_text_are_those_of_its_timestamp_in_utc() {
        let settlement = Settlement { timestamp_ms: 1_644_364_799_999, ..pair()[0].clone() };
        let text = settlement.text(SettlementStatus::Unmatched);
        assert!(text.contains(r#""currentDate":"2022-02-08","currentTime":"23:59:59""#), "{text}");
        let text = Settlement { timestamp_ms: i64::MAX, ..settlement }.text(SettlementStatus::Unmatched);
        assert!(text.contains(r#""timestamp":9223372036854775807,"currentDate":"1970-01-01""#), "{text}");
    }

    #[test]
    fn prices_keep_their_digits_and_never_become_floats() {
        let cases = [("18", "18.0"), ("18.50", "18.5"), ("0.1", "0.1"), ("99999999.99", "99999999.99")];
        for (price, written) in cases {
            let settlement = Settlement { price: price.parse().unwrap(), ..pair()[0].clone() };
            let text = settlement.text(SettlementStatus::Unmatched);
            assert!(text.contains(&format!(r#""price":{written},"#)), "{text}");
        }
    }

    #[test]
    fn dates_before_1970_are_written_with_nine_digits_too() {
        let settlement = Settlement { trade_date: date(1900, 1, 1), ..pair()[0].clone() };
        let text = settlement.text(SettlementStatus::Unmatched);
        assert!(text.contains(r#""tradeDate":-2208988800.000000000,"#), "{text}");
    }

    #[test]
    fn only_a_later_version_and_given_instructions_are_written() {
        let settlement = Settlement { version: 2, delivery_instructions: None, ..pair()[0].clone() };
        let text = settlement.text(SettlementStatus::Settled);
        assert!(text.ends_with(r#""status":"Settled","account":"4208812345","version":2}"#), "{text}");
        assert!(!text.contains("deliveryInstructions"), "{text}");
    }

    #[test]
    fn a_repetition_has_the_same_message_id_and_everything_else_another_one() {
        let settlement = &pair()[0];
        let id = |change: &dyn Fn(&mut Settlement), status| {
            let mut changed = settlement.clone();
            change(&mut changed);
            changed.message_id(status)
        };
        let unmatched = SettlementStatus::Unmatched;
        let first = id(&|_| {}, unmatched);
        assert_eq!(id(&|one| one.timestamp_ms += 1, unmatched), first);
        let others = [
            id(&|_| {}, SettlementStatus::Settled),
            id(&|_| {}, SettlementStatus::Mismatched),
            id(&|one| one.trade_date = date(2022, 2, 9), unmatched),
            id(&|one| one.version = 2, unmatched),
            id(&|one| one.sender = one.broker.clone(), unmatched),
            id(&|one| one.allocation_id = 1, unmatched),
            // A trade that names one allocation twice: neither of its settlements hides the other.
            id(&|one| one.account = "1538552570".into(), unmatched),
            id(&|one| one.quantity = 33, unmatched),
        ];
        let mut different = std::collections::HashSet::from([first]);
        assert!(others.into_iter().all(|other| different.insert(other)));
    }

    #[test]
    fn the_settlements_of_both_sides_settle() {
        let [manager, broker] = pair();
        assert_eq!(compared(&[manager.clone(), broker.clone()]), (SettlementStatus::Settled, None));
        assert_eq!(compared(&[broker, manager]), (SettlementStatus::Settled, None));
    }

    #[test]
    fn settlements_of_other_allocations_do_not_meet() {
        let first = of_trade(&manager_trade(), TAKEN_MS).remove(0);
        let [_, second] = pair();
        assert_eq!(last_decision(&[first, second]).reason(), Some(Reason::NoCounterpart));
    }

    #[test]
    fn what_differs_is_named_and_both_are_mismatched() {
        let cases: [(Change, Difference); 6] = [
            (|one| one.security = "AAPL".into(), Difference::Security),
            (|one| one.price = "18.51".parse().unwrap(), Difference::Price),
            (|one| one.quantity = 66, Difference::Quantity),
            (|one| one.indicator = Indicator::Sell, Difference::Indicator),
            (|one| one.settlement_date = date(2022, 2, 11), Difference::SettlementDate),
            (|one| one.account = "4208812346".into(), Difference::Account),
        ];
        for (change, difference) in cases {
            let [manager, mut broker] = pair();
            change(&mut broker);
            let differences: Differences = [difference].into_iter().collect();
            let expected = (SettlementStatus::Mismatched, Some(Reason::Differs(differences)));
            assert_eq!(compared(&[manager.clone(), broker.clone()]), expected);
            assert_eq!(compared(&[broker, manager]), expected);
        }
    }

    #[test]
    fn instructions_are_not_compared() {
        let [manager, mut broker] = pair();
        broker.delivery_instructions = None;
        assert_eq!(compared(&[manager, broker]).0, SettlementStatus::Settled);
    }

    #[test]
    fn parties_whose_reports_met_in_different_versions_settle_all_the_same() {
        let [manager, mut broker] = pair();
        broker.version = 3;
        assert_eq!(compared(&[manager, broker]).0, SettlementStatus::Settled);
    }

    /// The reference compares the trade date. Here it is part of the key, because the numbers of trades may return.
    #[test]
    fn settlements_of_different_trade_dates_wait_instead_of_mismatching() {
        let [manager, mut broker] = pair();
        broker.trade_date = date(2022, 2, 9);
        assert_eq!(last_decision(&[manager, broker]).reason(), Some(Reason::NoCounterpart));
    }

    /// The reference pairs whatever is not settled yet, so that a third settlement may turn a mismatch.
    #[test]
    fn a_mismatched_settlement_is_never_paired_again() {
        let [manager, broker] = pair();
        let wrong = Settlement { quantity: 1, ..broker.clone() };
        let corrected = Settlement { version: 2, ..broker.clone() };
        let late = last_decision(&[manager.clone(), wrong.clone(), corrected]);
        assert_eq!(late, Decision::Refused(Refusal::TooLate));
        let conflict = last_decision(&[manager, wrong, broker]);
        assert_eq!(conflict, Decision::Refused(Refusal::Conflict));
    }

    #[test]
    fn the_same_settlement_at_another_time_is_a_repeat() {
        let [manager, broker] = pair();
        let again = Settlement { timestamp_ms: TAKEN_MS + 1, ..manager.clone() };
        assert_eq!(last_decision(&[manager.clone(), again.clone()]), Decision::Repeat);
        assert_eq!(last_decision(&[manager, broker, again]), Decision::Repeat);
    }

    #[test]
    fn a_book_of_stored_settlements_decides_as_before() {
        let mut digester = Digester::new(11);
        let [manager, broker] = pair().map(|one| one.side(&mut digester).unwrap());
        let stored = Known { side: manager, status: SettlementStatus::Unmatched.into() };
        let decision = Book::new([stored]).take(broker);
        assert!(matches!(decision, Decision::Paired { .. }), "{decision:?}");
        let stored = [manager, broker].map(|side| Known { side, status: SettlementTerms::AGREED });
        assert_eq!(Book::new(stored).take(broker), Decision::Repeat);
    }

    #[test]
    fn statuses_have_the_words_of_the_format() {
        for status in SettlementStatus::ALL {
            assert_eq!(SettlementStatus::from_word(status.word()), Some(status));
            assert_eq!(SettlementStatus::from_word(Status::from(status).word()), Some(status));
        }
        assert_eq!(SettlementStatus::from_word("MATCHED"), None);
    }
}
