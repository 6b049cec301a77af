//! HTTP responses, the security headers of each page, and who may send commands.

use std::fmt::{self, Display};
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::answer::{Content, Writer};
use crate::model::text::visible;

/// The address of this host at which a request arrived: an extension of each request.
#[derive(Clone, Copy, Debug)]
pub struct LocalAddress(pub Option<IpAddr>);

/// The style of all pages.
const STYLE: &str = include_str!("style.css");

/// No scripts, nothing from other hosts, no frames.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The same for a page with a form, which is sent to this server alone.
const FORM_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Lets the forms of a page be sent to this server.
pub fn with_form(mut response: Response) -> Response {
    let policy = HeaderValue::from_static(FORM_POLICY);
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// Adds the security headers to each response, and forbids caching. A page with a form has its own policy.
pub async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// A response in plain text.
pub fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (status, text.into()).into_response()
}

/// A response with status 200 and this content type.
pub fn of_type(content_type: &'static str, body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body.into()).into_response()
}

/// A response with this content type, or status 500 with the error.
pub fn made(content_type: &'static str, text: Result<Content, impl Display>) -> Response {
    match text {
        Ok(text) => of_type(content_type, text.into_body()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// The content type of the API.
pub const JSON: &str = "application/json";

/// A value as indented JSON.
pub fn json(value: &impl Serialize) -> Response {
    made(JSON, Content::written(|to| write_json(value, to)))
}

/// Writes a value as indented JSON.
///
/// # Errors
/// If the value can't be serialized.
pub fn write_json(value: &impl Serialize, to: &mut Writer) -> serde_json::Result<()> {
    serde_json::to_writer_pretty(&mut *to, value)?;
    to.write_all(b"\n").map_err(serde_json::Error::io)
}

/// The content type of Prometheus' text format, version 0.0.4.
pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The content type of pages.
pub const HTML: &str = "text/html; charset=utf-8";

/// Writes a text with the characters that deceive a reader escaped.
struct Visible<'a>(&'a mut Writer);

impl fmt::Write for Visible<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        fmt::Write::write_str(self.0, &visible(text))
    }
}

/// Writes a page with the characters that deceive a reader escaped.
///
/// # Errors
/// That of the template.
pub fn write_page(page: &impl Template, to: &mut Writer) -> askama::Result<()> {
    page.render_into(&mut Visible(to))
}

/// A rendered page, or status 500 with the error. Characters that deceive a reader are escaped, wherever they are from.
pub fn html(page: &impl Template) -> Response {
    made(HTML, Content::written(|to| write_page(page, to)))
}

/// Serves `/style.css`.
pub async fn style() -> Response {
    of_type("text/css; charset=utf-8", STYLE)
}

/// Lets only clients of this host in, and no web page: neither one that a browser on this host has open, nor one whose
/// name was made to resolve to this host (DNS rebinding). `names` are those of this host.
pub async fn local_only(names: Arc<[String]>, request: Request, next: Next) -> Response {
    let at = request.extensions().get::<LocalAddress>();
    let at = at.and_then(|LocalAddress(at)| *at);
    let refused = refused(request.headers(), request.uri(), at, &names);
    match refused {
        Some(why) => plain(StatusCode::FORBIDDEN, why),
        None => next.run(request).await,
    }
}

/// Why a request is refused; `None` if it is not.
fn refused(
    headers: &HeaderMap,
    uri: &Uri,
    at: Option<IpAddr>,
    names: &[String],
) -> Option<&'static str> {
    // Browsers send it for all requests to loopback; `none`: the user has typed the address.
    let site = headers.get("sec-fetch-site");
    if headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != "none") {
        return Some("requests of web pages are rejected\n");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let is_known = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(|host| is_own(host, at, names)),
        _ => false,
    };
    let in_uri = uri
        .authority()
        .is_none_or(|of| is_own(of.as_str(), at, names));
    (!is_known || !in_uri)
        .then_some("the Host must be localhost, a loopback address, or this host's own name\n")
}

/// Whether a Host, with or without its port, is loopback, the address where the request arrived, or this host's name.
fn is_own(host: &str, at: Option<IpAddr>, names: &[String]) -> bool {
    let Ok(host) = host.parse::<Authority>() else {
        return false;
    };
    let is_plain = !host.as_str().contains('@');
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_own = if let Ok(address) = address.parse::<IpAddr>() {
        let address = address.to_canonical();
        address.is_loopback() || Some(address) == at
    } else {
        let mut names = names.iter().map(String::as_str).chain(["localhost"]);
        names.any(|own| own.eq_ignore_ascii_case(name))
    };
    is_plain && is_own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(headers: &[(&'static str, &str)]) -> Option<&'static str> {
        let headers = headers.iter().map(|(name, value)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        });
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, value);
        }
        let names = ["node-1.example.com".to_owned(), "web-0".to_owned()];
        let at = Some("192.0.2.7".parse().unwrap());
        refused(&all, &Uri::from_static("/-/node"), at, &names)
    }

    #[test]
    fn only_a_host_of_this_host_is_accepted() {
        for host in [
            "localhost",
            "LOCALHOST:9798",
            "127.0.0.1:9798",
            "127.9.9.9",
            "[::1]:9798",
            "[::ffff:127.0.0.1]",
            "192.0.2.7:9798",
            "node-1.example.com",
            "web-0:9798",
        ] {
            assert_eq!(refusal(&[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:9798",
            "localhost@evil.example",
            "evil.example@localhost",
            "192.0.2.8",
            "0.0.0.0",
            "[::]",
            "localhost, evil.example",
            "localhost:9798:1",
        ] {
            assert!(refusal(&[("host", host)]).is_some(), "{host}");
        }
        assert!(refusal(&[]).is_some());
        let two = [("host", "localhost"), ("host", "localhost")];
        assert!(refusal(&two).is_some());
        let absolute = Uri::from_static("http://evil.example/-/node");
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        assert!(refused(&headers, &absolute, None, &[]).is_some());
    }

    #[test]
    fn no_web_page_is_accepted_also_not_one_of_the_same_origin() {
        let local = ("host", "localhost:9798");
        assert_eq!(refusal(&[local, ("sec-fetch-site", "none")]), None);
        for site in ["cross-site", "same-site", "same-origin", "", "other"] {
            let refused = refusal(&[local, ("sec-fetch-site", site)]);
            assert!(
                refused.is_some_and(|why| why.contains("web pages")),
                "{site}"
            );
        }
        for origin in ["null", "http://localhost:9798", ""] {
            assert!(refusal(&[local, ("origin", origin)]).is_some(), "{origin}");
        }
    }
}
