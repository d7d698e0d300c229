//! From the customer's text to a trade, or to a refusal that names the field.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::civil::Date;
use matching::Indicator;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::message::{Allocation, FIRST_VERSION, Trade};

/// Highest version of a report.
const VERSION_MAX: u32 = 1_000_000;
/// Digits of an account.
const ACCOUNT_DIGITS: usize = 10;
/// Allocations in one trade at most.
const ALLOCATIONS_MAX: usize = 100;
/// numeric(10,2)
const PRICE_SCALE_MAX: u32 = 2;
/// Years of business dates. PostgreSQL cannot hold all that this program can.
const YEARS: RangeInclusive<i16> = 1900..=2999;

/// Why a message was refused. The code is stable; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable reason code.
    pub code: RefusalCode,
    /// The field, where it is about one: `allocations[0].quantity`.
    pub field: Option<String>,
    /// What was expected.
    pub expected: String,
}

/// Reason codes of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RefusalCode {
    /// Not a JSON object.
    Malformed,
    /// A required field is absent or null.
    Missing,
    /// A field has another type than the format says.
    WrongType,
    /// A field is longer than the format says.
    TooLong,
    /// A field's value is outside of what the format allows.
    Invalid,
    /// The message is larger than the limit.
    Oversized,
    /// The message is not UTF-8.
    NotText,
    /// Another trade with this id, trade date and version was accepted before.
    Conflict,
    /// A higher version of this trade was accepted before.
    Superseded,
    /// The trade was decided before this version of it came.
    TooLate,
    /// The message is well formed, but the database does not take it.
    Unstorable,
}

impl RefusalCode {
    /// The word in messages and in the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "MALFORMED",
            Self::Missing => "MISSING",
            Self::WrongType => "WRONG_TYPE",
            Self::TooLong => "TOO_LONG",
            Self::Invalid => "INVALID",
            Self::Oversized => "OVERSIZED",
            Self::NotText => "NOT_TEXT",
            Self::Conflict => "CONFLICT",
            Self::Superseded => "SUPERSEDED",
            Self::TooLate => "TOO_LATE",
            Self::Unstorable => "UNSTORABLE",
        }
    }
}

impl Refusal {
    pub(crate) fn of(code: RefusalCode, field: &str, expected: impl Into<String>) -> Self {
        Self { code, field: Some(field.to_owned()), expected: expected.into() }
    }

    /// A refusal of the message as a whole.
    pub fn whole(code: RefusalCode, expected: impl Into<String>) -> Self {
        Self { code, field: None, expected: expected.into() }
    }

    /// A refusal of a record that passed all checks here and that the database refuses. The quarantine has the
    /// database's reason; the customer gets the record's number to ask with.
    pub fn unstorable(record: Uuid) -> Self {
        Self::whole(RefusalCode::Unstorable, format!("a value cannot be stored; ask about record {record}"))
    }

    /// One line: code, field, what was expected.
    pub fn description(&self) -> String {
        match &self.field {
            Some(field) => format!("{} {field}: {}", self.code.word(), self.expected),
            None => format!("{}: {}", self.code.word(), self.expected),
        }
    }
}

/// The fields of a message as they came, by name.
pub(crate) type Fields<'a> = HashMap<String, &'a RawValue>;

/// Reads a trade message that came with a correlation id. Unknown fields are ignored.
///
/// # Errors
/// The first thing that is wrong, in the order of the format's fields.
pub fn trade(body: &str, correlation_id: &str) -> Result<Trade, Refusal> {
    let fields = fields(body)?;
    let trade = Trade {
        sender: name(&fields, "senderID", 20)?,
        im: name(&fields, "imID", 20)?,
        broker: name(&fields, "brokerID", 20)?,
        trade: name(&fields, "tradeID", 10)?,
        security: text(&fields, "security", 10)?,
        indicator: indicator(&fields)?,
        price: price(&fields)?,
        quantity: quantity(&fields)?,
        trade_date: date(&fields, "tradeDate")?,
        settlement_date: date(&fields, "settlementDate")?,
        delivery_instructions: instructions(&fields)?,
        allocations: allocations(&fields)?,
        version: version(&fields)?,
        cancels: cancels(&fields)?,
    };
    parties(&trade.sender, &trade.im, &trade.broker)?;
    if trade.id() != correlation_id {
        let expected = "must be senderID-imID-brokerID-tradeID of the message";
        return Err(Refusal::of(RefusalCode::Invalid, "correlationID", expected));
    }
    Ok(trade)
}

/// The fields of a message, unread.
pub(crate) fn fields(body: &str) -> Result<Fields<'_>, Refusal> {
    serde_json::from_str(body).map_err(|error| {
        let place = format!(
            "expected one JSON object; the error is at line {} column {}",
            error.line(),
            error.column()
        );
        Refusal::whole(RefusalCode::Malformed, place)
    })
}

/// Whether the sender is one of two parties.
pub(crate) fn parties(sender: &str, im: &str, broker: &str) -> Result<(), Refusal> {
    if sender != im && sender != broker {
        return Err(Refusal::of(RefusalCode::Invalid, "senderID", "must equal imID or brokerID"));
    }
    if im == broker {
        // Its other side would have the same id and could never be reported.
        return Err(Refusal::of(RefusalCode::Invalid, "brokerID", "must differ from imID"));
    }
    Ok(())
}

pub(crate) fn given<'a>(fields: &Fields<'a>, field: &str) -> Option<&'a RawValue> {
    fields.get(field).copied().filter(|raw| raw.get() != "null")
}

pub(crate) fn required<'a>(fields: &Fields<'a>, field: &str) -> Result<&'a RawValue, Refusal> {
    given(fields, field).ok_or_else(|| Refusal::of(RefusalCode::Missing, field, "is required"))
}

pub(crate) fn string(raw: &RawValue, field: &str, longest: usize) -> Result<String, Refusal> {
    let text: String = serde_json::from_str(raw.get())
        .map_err(|_| Refusal::of(RefusalCode::WrongType, field, "must be a string"))?;
    if text.chars().count() > longest {
        return Err(Refusal::of(
            RefusalCode::TooLong,
            field,
            format!("must have at most {longest} characters"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::of(RefusalCode::Invalid, field, "must not hold control characters"));
    }
    Ok(text)
}

pub(crate) fn text(fields: &Fields<'_>, field: &str, longest: usize) -> Result<String, Refusal> {
    let text = string(required(fields, field)?, field, longest)?;
    if text.is_empty() {
        return Err(Refusal::of(RefusalCode::Invalid, field, "must not be empty"));
    }
    Ok(text)
}

/// A part of the id: without the sign that separates its parts.
pub(crate) fn name(fields: &Fields<'_>, field: &str, longest: usize) -> Result<String, Refusal> {
    let text = text(fields, field, longest)?;
    if text.contains('-') {
        return Err(Refusal::of(RefusalCode::Invalid, field, "must not contain '-'"));
    }
    Ok(text)
}

pub(crate) fn indicator(fields: &Fields<'_>) -> Result<Indicator, Refusal> {
    let field = "transactionIndicator";
    let letter = string(required(fields, field)?, field, 1)?;
    Indicator::from_letter(&letter).ok_or_else(|| Refusal::of(RefusalCode::Invalid, field, "must be B or S"))
}

pub(crate) fn price(fields: &Fields<'_>) -> Result<Decimal, Refusal> {
    let raw = required(fields, "price")?.get();
    if !raw.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        return Err(Refusal::of(RefusalCode::WrongType, "price", "must be a JSON number"));
    }
    let plain = "must be a plain decimal number above 0 with at most 8 digits before and 2 after the point";
    let invalid = || Refusal::of(RefusalCode::Invalid, "price", plain);
    let price = Decimal::from_str_exact(raw).map_err(|_| invalid())?.normalize();
    let limit = Decimal::from(100_000_000);
    if price.scale() > PRICE_SCALE_MAX || price <= Decimal::ZERO || price >= limit {
        return Err(invalid());
    }
    Ok(price)
}

pub(crate) fn quantity(fields: &Fields<'_>) -> Result<i32, Refusal> {
    let quantity = integer(required(fields, "quantity")?, "quantity")?;
    i32::try_from(quantity)
        .ok()
        .filter(|quantity| *quantity > 0)
        .ok_or_else(|| Refusal::of(RefusalCode::Invalid, "quantity", "must be between 1 and 2147483647"))
}

pub(crate) fn integer(raw: &RawValue, field: &str) -> Result<i64, Refusal> {
    serde_json::from_str(raw.get())
        .map_err(|_| Refusal::of(RefusalCode::WrongType, field, "must be a JSON integer"))
}

/// A business date: `2026-02-09T00:00:00Z`, or the date alone. A time of day would be lost, so it is refused.
pub(crate) fn date(fields: &Fields<'_>, field: &str) -> Result<Date, Refusal> {
    let text = string(required(fields, field)?, field, 40)?;
    let invalid = || {
        let expected = "must be an ISO-8601 date at midnight UTC, like 2026-02-09T00:00:00Z";
        Refusal::of(RefusalCode::Invalid, field, expected)
    };
    let possible = |date: Date| possible(date).ok_or_else(invalid);
    if let Some(date) = (text.len() == 10).then(|| Date::from_str(&text)).and_then(Result::ok) {
        return possible(date);
    }
    let instant = jiff::Timestamp::from_str(&text).map_err(|_| invalid())?;
    let local = instant.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    if local.time() != jiff::civil::Time::midnight() {
        return Err(invalid());
    }
    possible(local.date())
}

/// A date of a year that business dates can have.
pub(crate) fn possible(date: Date) -> Option<Date> {
    YEARS.contains(&date.year()).then_some(date)
}

/// Absent in the reference's format: then it is the first.
pub(crate) fn version(fields: &Fields<'_>) -> Result<u32, Refusal> {
    let field = "version";
    let Some(raw) = given(fields, field) else { return Ok(FIRST_VERSION) };
    u32::try_from(integer(raw, field)?)
        .ok()
        .filter(|version| (FIRST_VERSION..=VERSION_MAX).contains(version))
        .ok_or_else(|| {
            Refusal::of(RefusalCode::Invalid, field, format!("must be between 1 and {VERSION_MAX}"))
        })
}

/// What the customer asks for stands in the status; `Unmatched` in every report that is no cancel.
fn cancels(fields: &Fields<'_>) -> Result<bool, Refusal> {
    let field = "status";
    let Some(raw) = given(fields, field) else { return Ok(false) };
    match string(raw, field, 20)?.to_ascii_uppercase().as_str() {
        "UNMATCHED" | "AMENDED" => Ok(false),
        "CANCELLED" => Ok(true),
        _ => Err(Refusal::of(RefusalCode::Invalid, field, "must be Unmatched, Amended or Cancelled")),
    }
}

pub(crate) fn instructions(fields: &Fields<'_>) -> Result<Option<String>, Refusal> {
    let field = "deliveryInstructions";
    given(fields, field).map(|raw| string(raw, field, 50)).transpose()
}

/// An array of strings, each of which is a JSON object itself.
fn allocations(fields: &Fields<'_>) -> Result<Vec<Allocation>, Refusal> {
    let field = "allocations";
    let Some(raw) = given(fields, field) else { return Ok(Vec::new()) };
    let wrong = |field: &str| Refusal::of(RefusalCode::WrongType, field, "must be an array of JSON texts");
    let texts: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| wrong(field))?;
    if texts.len() > ALLOCATIONS_MAX {
        let expected = format!("must have at most {ALLOCATIONS_MAX} entries");
        return Err(Refusal::of(RefusalCode::TooLong, field, expected));
    }
    let read = texts.into_iter().enumerate().map(|(index, raw)| allocation(index, raw));
    let allocations: Vec<Allocation> = read.collect::<Result<_, _>>()?;
    // Each becomes a settlement, which is known by this number.
    let mut numbers = HashSet::new();
    match allocations.iter().position(|allocation| !numbers.insert(allocation.allocation_id)) {
        None => Ok(allocations),
        Some(index) => {
            let place = format!("allocations[{index}].allocationID");
            Err(Refusal::of(RefusalCode::Invalid, &place, "must differ from those before it"))
        }
    }
}

fn allocation(index: usize, raw: &RawValue) -> Result<Allocation, Refusal> {
    let place = format!("allocations[{index}]");
    let wrong = || Refusal::of(RefusalCode::WrongType, &place, "must be a string that holds a JSON object");
    let object: String = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let fields: Fields<'_> = serde_json::from_str(&object).map_err(|_| wrong())?;
    // The names inside of a refusal carry the place.
    let placed = |mut refusal: Refusal| {
        refusal.field = refusal.field.map(|field| format!("{place}.{field}"));
        refusal
    };
    let read = || {
        Ok(Allocation {
            allocation_id: allocation_id(&fields)?,
            quantity: quantity(&fields)?,
            account: account(&fields)?,
            status: text(&fields, "status", 20)?,
        })
    };
    read().map_err(placed)
}

pub(crate) fn allocation_id(fields: &Fields<'_>) -> Result<i64, Refusal> {
    let field = "allocationID";
    let number = integer(required(fields, field)?, field)?;
    if number < 1 {
        return Err(Refusal::of(RefusalCode::Invalid, field, "must be at least 1"));
    }
    Ok(number)
}

pub(crate) fn account(fields: &Fields<'_>) -> Result<String, Refusal> {
    let field = "account";
    let account = text(fields, field, ACCOUNT_DIGITS)?;
    if account.len() == ACCOUNT_DIGITS && account.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(account)
    } else {
        Err(Refusal::of(RefusalCode::Invalid, field, "must be ten digits"))
    }
}
