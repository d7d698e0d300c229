//! Trace context of the W3C (`traceparent`) on messages. This program makes no spans of its own: it hands the header on as it
//! came, so that whoever takes what follows from a message continues the trace of who sent it.

use std::fmt;

use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Name of the AMQP header.
pub const HEADER: &str = "traceparent";
/// Bytes of the version that is written here, `00`.
const LENGTH: usize = 55;
/// A header of a later version may be longer; nobody reads more than this.
const LENGTH_MAX: usize = 256;
/// Sampled, and random trace id: what later versions may add has no meaning in version `00`.
const KNOWN_FLAGS: u8 = 0b11;

/// Number of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A valid `traceparent`. As text it always has 55 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    trace: TraceId,
    parent: u64,
    flags: u8,
}

impl Traceparent {
    /// `None` for what the specification calls invalid: it says to go on as if there were none.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = lower_hex(bytes.get(..2)?)?;
        let whole = match version {
            0 => bytes.len() == LENGTH,
            0xff => false,
            _ => bytes.len() == LENGTH || bytes.get(LENGTH) == Some(&b'-') && bytes.len() <= LENGTH_MAX,
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !whole || !dashes {
            return None;
        }
        let trace = TraceId(lower_hex(bytes.get(3..35)?)?);
        let parent = u64::try_from(lower_hex(bytes.get(36..52)?)?).ok()?;
        let flags = u8::try_from(lower_hex(bytes.get(53..55)?)?).ok()? & KNOWN_FLAGS;
        (trace.0 != 0 && parent != 0).then_some(Self { trace, parent, flags })
    }

    /// That of a message; `None` if it has none, or one that is not valid.
    pub fn of(delivery: &Delivery) -> Option<Self> {
        let headers = delivery.properties.headers().as_ref()?;
        // Text of headers is this type: RabbitMQ knows no short strings in tables.
        let AMQPValue::LongString(text) = headers.inner().get(HEADER)? else { return None };
        Self::parse(std::str::from_utf8(text.as_bytes()).ok()?)
    }

    /// Number of the trace.
    pub fn trace_id(self) -> TraceId {
        self.trace
    }
}

/// All digits of lower case, at most 32 of them.
fn lower_hex(digits: &[u8]) -> Option<u128> {
    let lower = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(digits).ok().filter(|_| lower)?;
    u128::from_str_radix(text, 16).ok()
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace, self.parent, self.flags)
    }
}

impl Serialize for Traceparent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads an optional one; what is not valid is none, and no error.
///
/// # Errors
/// It is no value at all.
pub fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Traceparent>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(Traceparent::parse))
}

/// The headers with the trace of a message, where it has one.
#[must_use]
pub fn traced(headers: &FieldTable, traceparent: Option<Traceparent>) -> FieldTable {
    let mut headers = headers.clone();
    if let Some(traceparent) = traceparent {
        headers.insert(HEADER.into(), AMQPValue::LongString(traceparent.to_string().into()));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_one_is_written_as_it_came() {
        let read = Traceparent::parse(GIVEN).unwrap();
        assert_eq!(read.to_string(), GIVEN);
        assert_eq!(read.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn what_the_specification_calls_invalid_is_none() {
        let invalid = [
            "",
            "00",
            &GIVEN[..54],
            &format!("{GIVEN}-"),
            &format!("{GIVEN} "),
            &GIVEN.to_uppercase(),
            &GIVEN.replacen("00", "ff", 1),
            &GIVEN.replacen("00", "0x", 1),
            &GIVEN.replace('-', "_"),
            &GIVEN.replace("4bf9", "+bf9"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            &format!("01-{}.later", &GIVEN[3..]),
            &format!("01-{}-{}", &GIVEN[3..], "x".repeat(LENGTH_MAX)),
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ];
        for text in invalid {
            assert_eq!(Traceparent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_understood() {
        for text in [format!("01-{}", &GIVEN[3..]), format!("cc-{}-what-will-be", &GIVEN[3..])] {
            assert_eq!(
                Traceparent::parse(&text).map(|read| read.to_string()).as_deref(),
                Some(GIVEN),
                "{text}"
            );
        }
        let flags = GIVEN.replace("b7-01", "b7-ff");
        let known = Traceparent::parse(&flags).map(|read| read.to_string());
        assert_eq!(known, Some(GIVEN.replace("b7-01", "b7-03")));
    }

    #[test]
    fn one_that_is_not_valid_refuses_nothing() {
        #[derive(Deserialize)]
        struct Record {
            #[serde(default, deserialize_with = "lenient")]
            traceparent: Option<Traceparent>,
        }
        for text in ["{}", r#"{"traceparent":null}"#, r#"{"traceparent":7}"#, r#"{"traceparent":"00-0"}"#] {
            assert_eq!(serde_json::from_str::<Record>(text).unwrap().traceparent, None, "{text}");
        }
        let text = format!(r#"{{"traceparent":"{GIVEN}"}}"#);
        assert!(serde_json::from_str::<Record>(&text).unwrap().traceparent.is_some());
    }
}
