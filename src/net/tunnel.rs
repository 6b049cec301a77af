//! Connections through an HTTP proxy: `CONNECT` (RFC 9110, 9.3.6), after which the connection is the server's; and for
//! plain http, which responses are the proxy's own.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION, SERVER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::http::{AGENT, unwatched_fault};
use super::stream::Stream;
use crate::model::endpoint::Endpoint;
use crate::model::fault::{HttpFault, ProxyFault};
use crate::model::proxy::Tunnel;
use crate::model::text::clean;

/// Requests a tunnel to `to` from the proxy at the other end of `stream`, and waits at most `limit` for the response.
/// The proxy resolves the name.
///
/// # Errors
/// If the proxy rejects the tunnel, its response is not valid HTTP, or `limit` passes.
pub async fn open(
    stream: Stream,
    to: &Endpoint,
    authorization: Option<HeaderValue>,
    limit: Duration,
) -> Result<(Tunnel, Stream), ProxyFault> {
    match timeout(limit, request_tunnel(stream, to, authorization)).await {
        Ok(result) => result,
        Err(_) => Err(http(HttpFault::Timeout)),
    }
}

async fn request_tunnel(
    stream: Stream,
    to: &Endpoint,
    authorization: Option<HeaderValue>,
) -> Result<(Tunnel, Stream), ProxyFault> {
    let failed = |error: hyper::Error| {
        let below = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
        http(unwatched_fault(&error, below))
    };
    let target = format!("{}:{}", to.host, to.port);
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(&target)
        .header(HOST, &target)
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|_| {
            let reason = format!("{target} can't be requested from a proxy");
            http(HttpFault::Other { reason })
        })?;
    if let Some(value) = authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, value);
    }
    let (mut sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // The task ends by itself: with the stream handed over, or with the last of its users.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        let phrase = response.extensions().get::<ReasonPhrase>();
        let reason = squid_error(response.headers())
            .or_else(|| phrase.map(|phrase| text(phrase.as_bytes())))
            .or_else(|| status.canonical_reason().map(str::to_owned));
        return Err(ProxyFault::Status {
            status: status.as_u16(),
            reason,
        });
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    let parts = upgraded.downcast::<TokioIo<Stream>>().map_err(|_| {
        let reason = "the connection could not be taken over after CONNECT".to_owned();
        http(HttpFault::Other { reason })
    })?;
    if !parts.read_buf.is_empty() {
        // A TLS server sends nothing before the client does.
        let reason =
            "bytes followed the proxy's response before anything was sent to the server".to_owned();
        return Err(http(HttpFault::Malformed { reason }));
    }
    let tunnel = Tunnel {
        to: to.clone(),
        status: status.as_u16(),
    };
    Ok((tunnel, parts.io.into_inner()))
}

/// Whether a response to a plain http request through a proxy is the proxy's own, not the server's: squid marks its
/// errors, tinyproxy names itself in its responses, and 407 is a proxy's status (RFC 9110, 15.5.8). `None` if it is the
/// server's.
pub fn refusal(status: StatusCode, headers: &HeaderMap) -> Option<ProxyFault> {
    let squid = squid_error(headers);
    let is_tinyproxy = headers
        .get(SERVER)
        .is_some_and(|server| server.as_bytes().starts_with(b"tinyproxy/"));
    let is_error = status.is_client_error() || status.is_server_error();
    let is_own = squid.is_some() || is_tinyproxy || status.as_u16() == 407;
    (is_error && is_own).then(|| ProxyFault::Status {
        status: status.as_u16(),
        reason: squid.or_else(|| status.canonical_reason().map(str::to_owned)),
    })
}

fn squid_error(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-squid-error")?;
    Some(text(value.as_bytes()))
}

fn text(value: &[u8]) -> String {
    clean(&String::from_utf8_lossy(value), MAX_TEXT)
}

fn http(fault: HttpFault) -> ProxyFault {
    ProxyFault::Http { fault }
}

const MAX_TEXT: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_own_answer_is_told_from_the_servers() {
        for (status, header, own) in [
            (403, ("x-squid-error", "ERR_ACCESS_DENIED 0"), true),
            (503, ("x-squid-error", "ERR_DNS_FAIL 0"), true),
            (403, ("server", "tinyproxy/1.11.1"), true),
            (407, ("server", "corp"), true),
            (403, ("server", "nginx"), false),
            (404, ("via", "1.1 proxy (squid/5.7)"), false),
            // Forwarded by a proxy that adds its header to successful responses.
            (200, ("server", "tinyproxy/1.11.1"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header.0, HeaderValue::from_static(header.1));
            let fault = refusal(StatusCode::from_u16(status).unwrap(), &headers);
            assert_eq!(fault.is_some(), own, "{status} {header:?}");
        }
    }
}
