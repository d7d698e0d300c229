//! The customer's formats: the trade message, its allocations, and the answer.

use jiff::civil::Date;
use matching::{Action, Digester, Indicator, ReportError, Side, Status, TradeTerms};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// The version of a report that names none.
pub const FIRST_VERSION: u32 = 1;

/// A trade that passed validation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trade {
    /// Who reports: the investment manager or the broker.
    pub sender: String,
    /// Investment manager.
    pub im: String,
    /// Broker.
    pub broker: String,
    /// The parties' number of the trade.
    pub trade: String,
    /// Security symbol.
    pub security: String,
    /// Buy or sell.
    pub indicator: Indicator,
    /// Price of one unit, at most ten digits, two of them after the point.
    pub price: Decimal,
    /// Number of units, at least one.
    pub quantity: i32,
    /// Business date of the trade.
    pub trade_date: Date,
    /// Date of settlement.
    pub settlement_date: Date,
    /// Free text.
    pub delivery_instructions: Option<String>,
    /// Parts of the trade for single accounts.
    pub allocations: Vec<Allocation>,
    /// 1 for the first report; each later one about the same trade has a higher number.
    pub version: u32,
    /// Whether this report withdraws the ones before it.
    pub cancels: bool,
}

/// One account's part of a trade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// 1, 2, …
    #[serde(rename = "allocationID")]
    pub allocation_id: i64,
    /// Share of this account, in percent.
    pub quantity: i32,
    /// Ten digits.
    pub account: String,
    /// As the customer wrote it; allocations get a life of their own with settlement.
    pub status: String,
}

impl Trade {
    /// The customer's id: `sender-im-broker-trade`.
    pub fn id(&self) -> String {
        format!("{}-{}-{}-{}", self.sender, self.im, self.broker, self.trade)
    }

    /// The report as the matching rules see it.
    ///
    /// # Errors
    /// The sender is not a party of the trade, the parties are the same, or the price has more than two digits.
    pub fn side(&self, digester: &mut Digester) -> Result<Side<TradeTerms>, ReportError> {
        digester.trade(&matching::Report {
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
            action: if self.cancels { Action::Cancel } else { Action::State },
            last_day: self.settlement_date,
            rest: self.text(Status::Unmatched).as_bytes(),
        })
    }

    /// The trade as a message of the customer's format, with a status. The same trade always gives the same text.
    pub fn text(&self, status: Status) -> String {
        let allocations: Vec<String> = self.allocations.iter().map(json).collect();
        json(&TradeText {
            sender_id: &self.sender,
            im_id: &self.im,
            broker_id: &self.broker,
            trade_id: &self.trade,
            security: &self.security,
            transaction_indicator: self.indicator.letter(),
            price: self.price,
            quantity: self.quantity,
            trade_date: midnight(self.trade_date),
            settlement_date: midnight(self.settlement_date),
            delivery_instructions: self.delivery_instructions.as_deref(),
            status: status.word(),
            version: (self.version > FIRST_VERSION).then_some(self.version),
            allocations: &allocations,
        })
    }
}

/// A date as the messages write it.
pub fn midnight(date: Date) -> String {
    format!("{date}T00:00:00Z")
}

/// JSON text of a plain value of ours.
pub fn json<T: Serialize>(value: &T) -> String {
    // Maps with keys that are not text and failing writers are the only ways to fail, and there are none.
    serde_json::to_string(value).unwrap_or_default()
}

/// The external trade message; the order of fields is that of the format.
#[derive(Serialize)]
struct TradeText<'a> {
    #[serde(rename = "senderID")]
    sender_id: &'a str,
    #[serde(rename = "imID")]
    im_id: &'a str,
    #[serde(rename = "brokerID")]
    broker_id: &'a str,
    #[serde(rename = "tradeID")]
    trade_id: &'a str,
    security: &'a str,
    #[serde(rename = "transactionIndicator")]
    transaction_indicator: &'a str,
    #[serde(serialize_with = "decimal")]
    price: Decimal,
    quantity: i32,
    #[serde(rename = "tradeDate")]
    trade_date: String,
    #[serde(rename = "settlementDate")]
    settlement_date: String,
    #[serde(rename = "deliveryInstructions", skip_serializing_if = "Option::is_none")]
    delivery_instructions: Option<&'a str>,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    allocations: &'a [String],
}

/// A decimal as a JSON number with its exact digits, always with a point: never through a float.
pub(crate) fn decimal<S: Serializer>(price: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    let mut price = price.normalize();
    if price.scale() == 0 {
        price.rescale(1);
    }
    RawValue::from_string(price.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// The answer to a customer: what became of a trade, or why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The id that the customer gave as correlation id.
    pub id: String,
    /// When the inbound gateway took the message, in milliseconds since 1970.
    pub timestamp: i64,
    /// `MATCHED`, `MISMATCHED`, `SETTLED`, `CANCELLED`, `EXPIRED` or `NACK`.
    pub status: String,
    /// Reason codes and their meaning.
    pub description: String,
    /// Who the answer is for.
    pub destination: String,
    /// The trade, or the refused text.
    pub message: String,
}

/// The status of a refusal.
pub const NACK: &str = "NACK";
