//! Records HTTP exchanges for a bug report, with everything secret masked.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes as Body;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use url::Url;

use crate::model::endpoint::Role;
use crate::model::evidence::TracedExchange;
use crate::model::fault::{HttpFault, Phase};
use crate::model::text::clean;
use crate::net::http::AGENT;
use crate::redact::{Scrubber, Secret};

/// A request and its response.
#[derive(Debug)]
pub(super) struct ExchangeRecord<'a> {
    pub request: &'a Request<Body>,
    pub head: Option<(StatusCode, &'a HeaderMap)>,
    pub body: Option<&'a Body>,
    pub fault: Option<&'a HttpFault>,
    pub took: Duration,
}

/// Masks what is secret because of its position (credentials, cookies, signed queries, the `header`s of hosts.toml),
/// then what is secret because of its content.
pub(super) fn record(
    role: Role,
    phase: Phase,
    peer: SocketAddr,
    exchange: &ExchangeRecord<'_>,
    own: &[(HeaderName, HeaderValue)],
    scrub: &Scrubber,
) -> TracedExchange {
    let url = masked_url(&exchange.request.uri().to_string());
    let mut request_headers = vec![(
        "host".to_owned(),
        exchange
            .request
            .uri()
            .authority()
            .map_or_else(String::new, |a| scrub.clean(a.as_str())),
    )];
    // The connection adds these.
    let ours = [
        (header::USER_AGENT, AGENT),
        (header::ACCEPT_ENCODING, "identity"),
    ];
    for (name, value) in ours {
        if !exchange.request.headers().contains_key(&name) {
            request_headers.push((name.to_string(), value.to_owned()));
        }
    }
    for (name, value) in exchange.request.headers() {
        let is_own = own.iter().any(|(n, _)| n == name);
        let shown = if is_own {
            "***".to_owned()
        } else {
            masked(name, value, scrub)
        };
        request_headers.push((name.to_string(), shown));
    }
    let status = exchange.head.map(|(status, _)| status);
    let response_headers = exchange.head.into_iter().flat_map(|(_, headers)| headers);
    let response_headers = response_headers
        .take(MAX_HEADERS)
        .map(|(name, value)| (name.to_string(), masked(name, value, scrub)))
        .collect();
    // The body of a success is a part of an image, or a token.
    let is_error =
        status.is_some_and(|status| status.is_client_error() || status.is_server_error());
    let error_body = exchange
        .body
        .filter(|body| is_error && !body.is_empty())
        .map(|body| clean(&scrub.wash(&String::from_utf8_lossy(body)), MAX_BODY));
    TracedExchange {
        role,
        phase,
        peer,
        method: exchange.request.method().to_string(),
        url: scrub.wash(&url),
        request_headers,
        status: status.map(|status| status.as_u16()),
        response_headers,
        error_body,
        fault: exchange
            .fault
            .filter(|_| exchange.head.is_none() || !is_error)
            .map(ToString::to_string),
        took: exchange.took,
    }
}

/// A header's value with secrets masked.
fn masked(name: &HeaderName, value: &HeaderValue, scrub: &Scrubber) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    match *name {
        header::AUTHORIZATION | header::PROXY_AUTHORIZATION => {
            // The scheme is useful and not secret.
            let scheme = text.split(' ').next().unwrap_or_default();
            format!("{} ***", clean(scheme, 20))
        }
        header::COOKIE | header::SET_COOKIE => "***".to_owned(),
        header::LOCATION | header::CONTENT_LOCATION | header::LINK => {
            clean(&scrub.wash(&masked_url(&text)), MAX_HEADER)
        }
        _ if value.is_sensitive() || is_secret_name(name.as_str()) => "***".to_owned(),
        // Other headers with URLs (Refresh, Link, X-Accel-Redirect, …).
        _ if *name != header::WWW_AUTHENTICATE && text.contains("://") => {
            clean(&scrub.wash(&masked_url(&text)), MAX_HEADER)
        }
        _ => clean(&scrub.wash(&text), MAX_HEADER),
    }
}

/// Header names that proxies and clouds use for tokens.
fn is_secret_name(name: &str) -> bool {
    [
        "token",
        "secret",
        "signature",
        "password",
        "api-key",
        "apikey",
    ]
    .iter()
    .any(|part| name.contains(part))
}

/// A URL whose query shows all names, but only the values that are needed to follow the protocol.
fn masked_url(text: &str) -> String {
    let Some((before, query)) = text.split_once('?') else {
        return without_user(text);
    };
    let shown: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if !OPEN_NAMES.contains(&name) => format!("{name}=***"),
            _ => pair.to_owned(),
        })
        .collect();
    format!("{}?{}", without_user(before), shown.join("&"))
}

/// Hides the values of a redirect's query in all output: they may be signed, and a server that rejects them repeats
/// them.
pub(super) fn hide_query(url: &Url, scrub: &mut Scrubber) {
    for (name, value) in url.query_pairs() {
        if !OPEN_NAMES.contains(&name.as_ref()) {
            scrub.hide_here(&Secret::new(value));
        }
    }
}

fn without_user(text: &str) -> String {
    if let Some(rest) = text.strip_prefix("//") {
        let absolute = without_user(&format!("https://{rest}"));
        return absolute.trim_start_matches("https:").to_owned();
    }
    match Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            let mut url = url;
            // Both fail only for URLs that can't have a user.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

/// Parameters of the token protocol and of mirrors; all others may be signatures.
const OPEN_NAMES: [&str; 3] = ["scope", "service", "ns"];

const MAX_HEADERS: usize = 64;
const MAX_HEADER: usize = 500;
/// Bytes. A registry's error body has some hundred, a login page a few KiB.
const MAX_BODY: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirects_signature_is_hidden_and_its_protocol_is_not() {
        let mut scrub = Scrubber::default();
        let url = "https://s.test/x?X-Amz-Signature=0a1b2c3d&ns=docker.io";
        hide_query(&Url::parse(url).unwrap(), &mut scrub);
        let said = "SignatureProvided 0a1b2c3d, for docker.io";
        assert_eq!(scrub.clean(said), "SignatureProvided ***, for docker.io");
    }

    #[test]
    fn what_is_secret_by_its_place_is_masked() {
        let mut request = Request::new(Body::new());
        *request.uri_mut() = "https://blobs.test/x?X-Amz-Signature=abc&ns=docker.io"
            .parse()
            .unwrap();
        for (name, value) in [
            ("authorization", "Bearer eyJhbGciOi"),
            ("x-corp", "own-secret"),
            ("accept", "*/*"),
        ] {
            request
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("location", "https://u:p@s.test/y?sig=abc&scope=pull"),
            ("set-cookie", "session=abc"),
            ("x-auth-token", "abc"),
            (
                "www-authenticate",
                "Bearer realm=\"https://a.test/token\",error=\"hunter22\"",
            ),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let scrub = Scrubber::default();
        scrub.hide(&Secret::new("hunter22"));
        let body = Body::from_static(b"{\"errors\":[{\"detail\":\"hunter22\"}]}");
        let seen = ExchangeRecord {
            request: &request,
            head: Some((StatusCode::FORBIDDEN, &headers)),
            body: Some(&body),
            fault: None,
            took: Duration::ZERO,
        };
        let to = "127.0.0.1:443".parse().unwrap();
        let own = [(
            HeaderName::from_static("x-corp"),
            HeaderValue::from_static("own-secret"),
        )];
        let written = |seen| record(Role::Blob, Phase::Blob, to, seen, &own, &scrub);
        let traced = written(&seen);
        let text = format!("{traced:?}");
        for secret in ["abc", "eyJ", "own-secret", "hunter22", "u:p"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        for kept in [
            "ns=docker.io",
            "scope=pull",
            "X-Amz-Signature=***",
            "Bearer ***",
            "realm=",
            "*/*",
        ] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        // The body of a success is never shown.
        let none = HeaderMap::new();
        let traced = written(&ExchangeRecord {
            head: Some((StatusCode::OK, &none)),
            ..seen
        });
        assert_eq!(traced.error_body, None);
    }
}
