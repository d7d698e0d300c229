//! Durations as people write them: a number and a unit.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Longest text that is read as a duration.
const MAX_TEXT: usize = 16;
/// In milliseconds.
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// A time span written as a number and a unit: `500ms`, `3s`, `1.5s`, `2m`, `1h`. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(SignedDuration);

/// The data loss that a failover may bring: a bound, or the explicit word that it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AcceptedLoss {
    /// At most this much time's worth of acknowledged work.
    UpTo(Duration),
    /// Any amount: the person knows that the loss cannot be told.
    Unknown,
}

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationError {
    text: String,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a duration: write a number and a unit, such as 500ms, 3s, 2m or 1h", self.text)
    }
}

impl std::error::Error for DurationError {}

impl Duration {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(SignedDuration::from_secs(seconds as i64))
    }

    /// The span itself.
    pub const fn get(self) -> SignedDuration {
        self.0
    }

    /// The span as seconds, for people and metrics.
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }
}

/// Spans below zero (two clocks that differ) become zero; parts below a millisecond are cut. What would need more digits
/// than can be read back is cut to whole minutes or hours.
impl From<SignedDuration> for Duration {
    fn from(span: SignedDuration) -> Self {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX).max(0);
        let unit = match millis {
            ..1_000_000_000 => 1,
            1_000_000_000..60_000_000_000 => MINUTE,
            _ => HOUR,
        };
        Self(SignedDuration::from_millis((millis - millis % unit).min(999_999 * HOUR)))
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let refused = || DurationError { text: text.chars().take(40).collect() };
        if text.len() > MAX_TEXT {
            return Err(refused());
        }
        let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(refused)?;
        let (number, unit) = text.split_at(unit_at);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str, most: usize| {
            !part.is_empty() && part.len() <= most && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 6) || !digits(fraction, 3) {
            return Err(refused());
        }
        let unit_micros: i64 = match unit {
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            _ => return Err(refused()),
        };
        let thousandths: i64 = format!("{whole}{fraction:0<3}").parse().map_err(|_| refused())?;
        Ok(Self::from(SignedDuration::from_micros(thousandths * unit_micros / 1_000)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0s"),
            1..=999 => write!(f, "{millis}ms"),
            _ if millis % 3_600_000 == 0 => write!(f, "{}h", millis / 3_600_000),
            _ if millis % 60_000 == 0 => write!(f, "{}m", millis / 60_000),
            _ if millis % 1_000 == 0 => write!(f, "{}s", millis / 1_000),
            _ => {
                let fraction = format!("{:03}", millis % 1_000);
                write!(f, "{}.{}s", millis / 1_000, fraction.trim_end_matches('0'))
            }
        }
    }
}

impl TryFrom<String> for Duration {
    type Error = DurationError;

    fn try_from(text: String) -> Result<Self, DurationError> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(span: Duration) -> Self {
        span.to_string()
    }
}

impl TryFrom<String> for AcceptedLoss {
    type Error = DurationError;

    fn try_from(text: String) -> Result<Self, DurationError> {
        if text == "Unknown" { Ok(Self::Unknown) } else { text.parse().map(Self::UpTo) }
    }
}

impl fmt::Display for AcceptedLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpTo(span) => span.fmt(f),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

impl From<AcceptedLoss> for String {
    fn from(loss: AcceptedLoss) -> Self {
        loss.to_string()
    }
}

/// The same syntax as [`Duration::from_str`], for the API server.
const DURATION: &str = "[0-9]{1,6}([.][0-9]{1,3})?(ms|s|m|h)";

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": MAX_TEXT,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches('^{DURATION}$')"),
                "message": "write a duration as a number and a unit, such as 500ms, 3s, 2m or 1h",
            }],
        })
    }
}

impl JsonSchema for AcceptedLoss {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AcceptedLoss".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": MAX_TEXT,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches('^(Unknown|{DURATION})$')"),
                "message": "write the accepted loss as a duration such as 30s, or as the word Unknown",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_that_is_written_can_be_read_back_as_the_same() {
        let short = [0, 1, 999, 1_000, 1_001, 1_100, 59_999, 60_000, 61_000, 3_600_000, 3_601_000];
        let edges = [999_999_999, 1_000_000_000, 1_000_000_001, 59_999_999_999, 60_000_000_000];
        let ages = [28_150_371_038, 999_999 * HOUR, 999_999 * HOUR + MINUTE, i64::MAX];
        for millis in short.into_iter().chain(edges).chain(ages) {
            let span = Duration::from(SignedDuration::from_millis(millis));
            assert_eq!(span.to_string().parse(), Ok(span), "{millis} ms");
        }
        let longest: Duration = "999999.9h".parse().unwrap();
        assert_eq!(longest.to_string().parse(), Ok(longest));
    }

    #[test]
    fn what_people_write_is_understood() {
        for (text, millis) in [
            ("500ms", 500),
            ("3s", 3_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0.25h", 900_000),
        ] {
            assert_eq!(text.parse::<Duration>().map(|d| d.get().as_millis()), Ok(millis), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "3", "s", "-3s", "3 s", "3sec", "1h30m", "1.s", ".5s", "3S", "1234567s", "1.2345s", "３s"]
        {
            assert!(text.parse::<Duration>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_accepted_loss_is_a_bound_or_the_word() {
        let read = |text: &str| serde_json::from_value::<AcceptedLoss>(serde_json::json!(text)).ok();
        assert_eq!(read("30s"), Some(AcceptedLoss::UpTo(Duration::from_secs(30))));
        assert_eq!(read("Unknown"), Some(AcceptedLoss::Unknown));
        assert_eq!(read("unknown"), None);
    }
}
