//! What an HTTP response reports besides its status: error bodies, rate limits, its date.

use http::header::{DATE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use crate::model::evidence::RateLimit;
use crate::model::fault::HttpFault;
use crate::model::text::titled;
use crate::redact::Scrubber;

/// A status other than success, with the first error in its body. `authorized`: the request had a credential or a
/// token.
pub fn fault(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    authorized: bool,
    scrub: &Scrubber,
) -> HttpFault {
    let entry = read_body(body);
    let clean = |text: String| Some(scrub.clean(text.trim())).filter(|t| !t.is_empty());
    HttpFault::Status {
        status: status.as_u16(),
        code: entry.code.and_then(clean),
        message: entry.message.and_then(clean),
        retry_after: field(headers, RETRY_AFTER.as_str()).and_then(|t| clean(t.to_owned())),
        challenged: headers.contains_key(WWW_AUTHENTICATE),
        authorized,
    }
}

/// `ratelimit-limit: 100;w=21600`, `ratelimit-remaining: 76;w=21600`, `docker-ratelimit-source` (Docker Hub;
/// draft-ietf-httpapi-ratelimit-headers-03). `None` if the response has none of them.
pub fn rate_limit(headers: &HeaderMap, scrub: &Scrubber) -> Option<RateLimit> {
    let limit = field(headers, "ratelimit-limit");
    let remaining = field(headers, "ratelimit-remaining");
    let source = field(headers, "docker-ratelimit-source");
    limit.or(remaining).or(source)?;
    let window = |text: &str| {
        let mut parameters = text.split([';', ',']);
        parameters.find_map(|p| p.trim().strip_prefix("w=")?.parse().ok())
    };
    let count = |text: &str| text.split([';', ',']).next()?.trim().parse().ok();
    Some(RateLimit {
        limit: limit.and_then(count),
        remaining: remaining.and_then(count),
        window_seconds: limit
            .and_then(window)
            .or_else(|| remaining.and_then(window)),
        source: source.map(|s| scrub.clean(s)),
    })
}

/// The `Date` field in the form that RFC 9110, 5.6.7 requires of senders (IMF-fixdate); obsolete forms are not parsed.
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(field(headers, DATE.as_str())?.trim())
}

/// Parses an HTTP date (RFC 9110, 5.6.7).
pub fn http_date(text: &str) -> Option<Timestamp> {
    if !text.ends_with(" GMT") {
        return None;
    }
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[derive(Debug, Default, Eq, PartialEq)]
struct ErrorEntry {
    code: Option<String>,
    message: Option<String>,
}

fn read_body(body: &[u8]) -> ErrorEntry {
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        return read_json(&value);
    }
    let text = String::from_utf8_lossy(body);
    let start = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if !start.starts_with('<') {
        // Plain text: "Forbidden", "rate limited".
        return ErrorEntry {
            code: None,
            message: Some(text.into_owned()),
        };
    }
    if start.starts_with("<?xml") || start.starts_with("<Error") {
        // Amazon S3 and servers with the same protocol: OBS, OSS, MinIO, Ceph; Azure and Google Cloud Storage, which
        // have the reason in another element.
        return ErrorEntry {
            code: element(start, "Code"),
            message: with_details(start),
        };
    }
    // A page of a proxy or load balancer is identified by its title.
    ErrorEntry {
        code: None,
        message: page_title(body).map(|title| titled(&title)),
    }
}

/// The message of an error document of a storage: its first line (Azure adds a request's number and time), and details.
fn with_details(document: &str) -> Option<String> {
    let message = element(document, "Message");
    let message = message.and_then(|text| Some(text.trim().lines().next()?.to_owned()));
    let mut details = ["AuthenticationErrorDetail", "Details"].iter();
    let details = details.find_map(|name| element(document, name));
    let parts: Vec<String> = message.into_iter().chain(details).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// The error envelope of the OCI distribution-spec (error codes), and the forms that other servers send.
fn read_json(value: &Value) -> ErrorEntry {
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let first = match value.get("errors").or_else(|| value.get("Errors")) {
        Some(Value::Array(errors)) => errors.first(),
        other => other,
    };
    let first = first.or_else(|| value.get("error")).unwrap_or(value);
    if let Value::String(first) = first {
        // OAuth2 (RFC 6749, 5.2) has its code in `error`; other servers put a sentence there.
        let is_code = value.get("error").is_some()
            && first.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let described = text(value, "error_description").or_else(|| text(value, "message"));
        return ErrorEntry {
            code: is_code.then(|| first.clone()),
            message: described.or_else(|| (!is_code).then(|| first.clone())),
        };
    }
    let message = ["message", "details", "detail", "Message"]
        .iter()
        .find_map(|name| text(first, name).filter(|t| !t.trim().is_empty()));
    ErrorEntry {
        code: text(first, "code")
            .or_else(|| text(first, "Code"))
            .map(spec_case),
        message,
    }
}

/// The spec's codes are in upper case; Docker Hub sends `toomanyrequests`.
fn spec_case(code: String) -> String {
    if code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
        code.to_ascii_uppercase()
    } else {
        code
    }
}

/// Whether a body starts like an HTML page.
pub fn is_page(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let word = start[..start.len().min(14)].to_ascii_lowercase();
    word.starts_with(b"<!doctype html") || word.starts_with(b"<html")
}

/// The title of an HTML page; `None` if it has none or is empty.
pub fn page_title(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let title = element(&text, "title").or_else(|| element(&text, "TITLE"))?;
    let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(title).filter(|title| !title.is_empty())
}

/// The text of the first element with this name in a small XML or HTML document.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}"))?;
    let (_, rest) = rest.split_once('>')?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(
        content
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&apos;", "'")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::redact::Secret;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v)))
            .collect()
    }

    fn parsed(body: &str) -> (Option<String>, Option<String>) {
        match fault(
            StatusCode::FORBIDDEN,
            &HeaderMap::new(),
            body.as_bytes(),
            false,
            &Scrubber::default(),
        ) {
            HttpFault::Status {
                code,
                message,
                status: 403,
                ..
            } => (code, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn error_bodies_of_the_field_are_read() {
        for (body, code, message) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}},{"code":"Y"}]}"#,
                "MANIFEST_UNKNOWN",
                "manifest unknown",
            ),
            (
                r#"{"errors":[{"code":"toomanyrequests","message":"slow down"}]}"#,
                "TOOMANYREQUESTS",
                "slow down",
            ),
            (
                r#"{"errors":[{"code":"DENIED","message":"","detail":"no right"}]}"#,
                "DENIED",
                "no right",
            ),
            (
                r#"{"errors":[{"status":404,"message":"not here"}]}"#,
                "",
                "not here",
            ),
            (r#"{"errors":["sorry"]}"#, "", "sorry"),
            (r#"{"errors":{"code":"X","message":"y"}}"#, "X", "y"),
            (r#"{"errors":[]}"#, "", ""),
            (
                r#"{"code":"UNAUTHORIZED","message":"m"}"#,
                "UNAUTHORIZED",
                "m",
            ),
            (
                r#"{"details":"incorrect username or password"}"#,
                "",
                "incorrect username or password",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"bad password"}"#,
                "invalid_grant",
                "bad password",
            ),
            (r#"{"error":"Invalid client."}"#, "", "Invalid client."),
            (
                r#"{"error":{"code":"unauthorized","message":"m"}}"#,
                "UNAUTHORIZED",
                "m",
            ),
            (
                "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code><Message>Request has expired &amp; gone</Message></Error>",
                "AccessDenied",
                "Request has expired & gone",
            ),
            ("<Error><Code>NoSuchKey</Code></Error>", "NoSuchKey", ""),
            (
                "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Not authenticated.\nRequestId:1\nTime:2</Message><AuthenticationErrorDetail>Signature not valid in the specified time frame: Start [a]</AuthenticationErrorDetail></Error>",
                "AuthenticationFailed",
                "Not authenticated. Signature not valid in the specified time frame: Start [a]",
            ),
            (
                "<Error><Code>ExpiredToken</Code><Message>Invalid argument.</Message><Details>Request signature expired at: x</Details></Error>",
                "ExpiredToken",
                "Invalid argument. Request signature expired at: x",
            ),
            (
                "<!doctype html><html><head><title lang=en>Blocked by policy</title>",
                "",
                "a page titled 'Blocked by policy'",
            ),
            ("<html></html>", "", ""),
            ("Forbidden\n", "", "Forbidden"),
            ("", "", ""),
            ("[1]", "", ""),
        ] {
            let some = |t: &str| (!t.is_empty()).then(|| t.to_owned());
            assert_eq!(parsed(body), (some(code), some(message)), "{body}");
        }
    }

    #[test]
    fn a_fault_keeps_what_decides_the_next_step_and_no_secret() {
        let scrub = Scrubber::default();
        scrub.hide_login("me", &Secret::new("hunter2"));
        let headers = headers(&[("retry-after", "120"), ("www-authenticate", "Bearer x=y")]);
        assert_eq!(
            fault(
                StatusCode::UNAUTHORIZED,
                &headers,
                br#"{"errors":[{"code":"UNAUTHORIZED","message":"me:hunter2 \u001b[2J"}]}"#,
                false,
                &scrub
            ),
            HttpFault::Status {
                status: 401,
                code: Some("UNAUTHORIZED".to_owned()),
                message: Some("me:*** \\u{1b}[2J".to_owned()),
                retry_after: Some("120".to_owned()),
                challenged: true,
                authorized: false,
            }
        );
    }

    #[test]
    fn rate_limits_are_read_and_absent_ones_are_not_zero() {
        let scrub = Scrubber::default();
        assert_eq!(
            rate_limit(
                &headers(&[
                    ("ratelimit-limit", "100;w=21600"),
                    ("ratelimit-remaining", "0;w=21600"),
                    ("docker-ratelimit-source", "203.0.113.9"),
                ]),
                &scrub
            ),
            Some(RateLimit {
                limit: Some(100),
                remaining: Some(0),
                window_seconds: Some(21600),
                source: Some("203.0.113.9".to_owned()),
            })
        );
        let odd = rate_limit(&headers(&[("ratelimit-remaining", "many")]), &scrub).unwrap();
        assert_eq!(
            (odd.limit, odd.remaining, odd.window_seconds),
            (None, None, None)
        );
        let listed = rate_limit(&headers(&[("ratelimit-limit", "10, 10;w=1")]), &scrub).unwrap();
        assert_eq!((listed.limit, listed.window_seconds), (Some(10), Some(1)));
        assert_eq!(rate_limit(&headers(&[("x-other", "1")]), &scrub), None);
    }

    #[test]
    fn dates_are_those_of_the_rfc() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun Nov  6 08:49:37 1994", None),
            ("Sun, 06 Nov 1994 08:49:37 +0100", None),
            ("Mon, 06 Nov 1994 08:49:37 GMT", None),
            ("", None),
        ] {
            let found = date(&headers(&[("date", text)])).map(Timestamp::as_second);
            assert_eq!(found, seconds, "{text}");
        }
        assert_eq!(date(&HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn any_body_is_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fault(StatusCode::OK, &HeaderMap::new(), &body, false, &Scrubber::default());
        }
    }
}
