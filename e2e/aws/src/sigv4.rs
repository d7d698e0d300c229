//! Checks AWS Signature Version 4 on a request, by recomputing it. Pure.

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use http::HeaderMap;
use http::request::Parts;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::config::Credential;

/// How far a request's date may be from the server's clock.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What the Authorization header claims; not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) access_key: String,
    pub(crate) date: String,
    pub(crate) region: String,
    pub(crate) service: String,
    signed_headers: Vec<String>,
    signature: String,
}

/// Why a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No (readable) signature.
    Missing,
    /// Nobody has this access key.
    UnknownKey,
    /// The signature is for another service or region, or of a wrong form.
    Scope(String),
    /// The date is too old or in the future.
    Date(String),
    /// The secret or the signed content is another.
    Mismatch,
}

/// Reads the Authorization header.
pub(crate) fn claim(headers: &HeaderMap) -> Option<Claim> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let fields = value.strip_prefix("AWS4-HMAC-SHA256")?;
    let field =
        |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
    let credential: Vec<&str> = field("Credential")?.split('/').collect();
    let &[access_key, date, region, service, "aws4_request"] = credential.as_slice() else { return None };
    Some(Claim {
        access_key: access_key.to_owned(),
        date: date.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        signed_headers: field("SignedHeaders")?.split(';').map(str::to_owned).collect(),
        signature: field("Signature")?.to_owned(),
    })
}

/// Checks a request that should be signed for `service` in one of `regions`.
///
/// # Errors
/// The first reason to refuse it.
pub(crate) fn verify(
    parts: &Parts,
    body: &[u8],
    credentials: &[Credential],
    service: &str,
    regions: &[&str],
    now: Timestamp,
) -> Result<(), Refused> {
    let claim = claim(&parts.headers).ok_or(Refused::Missing)?;
    let key =
        credentials.iter().find(|key| key.access_key_id == claim.access_key).ok_or(Refused::UnknownKey)?;
    if claim.service != service {
        return Err(Refused::Scope(format!("Credential should be scoped to correct service: '{service}'.")));
    }
    if !regions.contains(&claim.region.as_str()) {
        return Err(Refused::Scope("Credential should be scoped to a valid region.".to_owned()));
    }
    let sent = header(&parts.headers, "x-amz-date").ok_or(Refused::Missing)?;
    let date = check_date(&sent, &claim.date, now)?;
    if !["host", "x-amz-date"].iter().all(|needed| claim.signed_headers.iter().any(|name| name == needed)) {
        return Err(Refused::Scope("'host' and 'x-amz-date' must be signed headers.".to_owned()));
    }
    let canonical = canonical_request(parts, body, &claim).ok_or(Refused::Mismatch)?;
    let scope = format!("{}/{}/{}/aws4_request", claim.date, claim.region, claim.service);
    let to_sign = format!("AWS4-HMAC-SHA256\n{sent}\n{scope}\n{}", hex_sha256(canonical.as_bytes()));
    let signing_key =
        generate_signing_key(&key.secret_access_key, date.into(), &claim.region, &claim.service);
    if calculate_signature(signing_key, to_sign.as_bytes()) == claim.signature {
        Ok(())
    } else {
        Err(Refused::Mismatch)
    }
}

fn check_date(sent: &str, scope_date: &str, now: Timestamp) -> Result<Timestamp, Refused> {
    let unreadable = || Refused::Date(format!("Date '{sent}' is not of the form YYYYMMDDTHHMMSSZ."));
    let date = DateTime::strptime("%Y%m%dT%H%M%SZ", sent).map_err(|_| unreadable())?;
    let date = date.to_zoned(TimeZone::UTC).map_err(|_| unreadable())?.timestamp();
    if !sent.starts_with(scope_date) {
        return Err(Refused::Date(
            "Date in Credential scope does not match YYYYMMDD from the date.".to_owned(),
        ));
    }
    let age = now.duration_since(date);
    if age > SKEW {
        return Err(Refused::Date(format!("Signature expired: {date} is now earlier than {}.", now - SKEW)));
    }
    if age < -SKEW {
        return Err(Refused::Date(format!(
            "Signature not yet current: {date} is still later than {}.",
            now + SKEW
        )));
    }
    Ok(date)
}

/// None if a header that should be signed is absent.
fn canonical_request(parts: &Parts, body: &[u8], claim: &Claim) -> Option<String> {
    let mut query: Vec<&str> = parts.uri.query().unwrap_or("").split('&').filter(|p| !p.is_empty()).collect();
    query.sort_unstable();
    let mut headers = String::new();
    for name in &claim.signed_headers {
        let value = header(&parts.headers, name)?;
        headers.push_str(&format!("{name}:{value}\n"));
    }
    Some(format!(
        "{}\n{}\n{}\n{headers}\n{}\n{}",
        parts.method,
        encoded_path(parts.uri.path()),
        query.join("&"),
        claim.signed_headers.join(";"),
        hex_sha256(body),
    ))
}

/// The path as the signature sees it: what is on the wire, encoded once more.
fn encoded_path(path: &str) -> String {
    path.bytes().fold(String::with_capacity(path.len()), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
        encoded
    })
}

/// A header's values as the signature sees them: trimmed, inner runs of spaces made one, joined by commas.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect::<Result<_, _>>()
        .ok()?;
    (!values.is_empty()).then(|| values.join(","))
}

fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The worked example of the Signature Version 4 test suite ("get-vanilla-query-order-key-case").
    const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
        SignedHeaders=host;x-amz-date, \
        Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";

    fn request(uri: &str, authorization: &str) -> Parts {
        let request = http::Request::builder()
            .uri(uri)
            .header("host", "example.amazonaws.com")
            .header("x-amz-date", "20150830T123600Z")
            .header("authorization", authorization);
        request.body(()).unwrap().into_parts().0
    }

    fn check(parts: &Parts, secret: &str, regions: &[&str], now: &str) -> Result<(), Refused> {
        let credentials =
            [Credential { access_key_id: "AKIDEXAMPLE".to_owned(), secret_access_key: secret.to_owned() }];
        verify(parts, b"", &credentials, "service", regions, now.parse().unwrap())
    }

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const QUERY: &str = "/?Param2=value2&Param1=value1";
    const THEN: &str = "2015-08-30T12:36:00Z";

    #[test]
    fn the_published_example_is_accepted() {
        assert_eq!(check(&request(QUERY, AUTHORIZATION), SECRET, &["us-east-1"], THEN), Ok(()));
    }

    #[test]
    fn another_secret_or_another_request_is_a_mismatch() {
        let good = request(QUERY, AUTHORIZATION);
        assert_eq!(check(&good, "another", &["us-east-1"], THEN), Err(Refused::Mismatch));
        let changed = request("/?Param1=value1", AUTHORIZATION);
        assert_eq!(check(&changed, SECRET, &["us-east-1"], THEN), Err(Refused::Mismatch));
    }

    #[test]
    fn another_region_unknown_key_and_no_signature_are_told_apart() {
        let good = request(QUERY, AUTHORIZATION);
        assert!(matches!(check(&good, SECRET, &["eu-west-1"], THEN), Err(Refused::Scope(_))));
        let other = request(QUERY, &AUTHORIZATION.replace("AKIDEXAMPLE", "AKIDOTHER"));
        assert_eq!(check(&other, SECRET, &["us-east-1"], THEN), Err(Refused::UnknownKey));
        let none = request(QUERY, "Bearer x");
        assert_eq!(check(&none, SECRET, &["us-east-1"], THEN), Err(Refused::Missing));
    }

    #[test]
    fn five_minutes_of_skew_are_allowed_in_both_directions() {
        let good = request(QUERY, AUTHORIZATION);
        for (now, allowed) in [
            ("2015-08-30T12:41:00Z", true),
            ("2015-08-30T12:41:01Z", false),
            ("2015-08-30T12:31:00Z", true),
            ("2015-08-30T12:30:59Z", false),
        ] {
            let checked = check(&good, SECRET, &["us-east-1"], now);
            assert_eq!(checked.is_ok(), allowed, "{now}");
            assert!(allowed || matches!(checked, Err(Refused::Date(_))), "{now}");
        }
    }
}
