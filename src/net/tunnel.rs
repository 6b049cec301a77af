//! The way through an HTTP proxy: `CONNECT` (RFC 9110, 9.3.6), after which the connection is the
//! server's.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Method, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::http::AGENT;
use crate::model::endpoint::Endpoint;
use crate::model::fault::{HttpFault, ProxyFault};
use crate::model::proxy::Tunnel;
use crate::model::text::clean;

/// Asks the proxy at the other end of `stream` for a way to `to`, and waits for its word for at
/// most `limit`. The name is resolved over there.
pub async fn open(
    stream: TcpStream,
    to: &Endpoint,
    authorization: Option<HeaderValue>,
    limit: Duration,
) -> Result<(Tunnel, TcpStream), ProxyFault> {
    match timeout(limit, ask(stream, to, authorization)).await {
        Ok(result) => result,
        Err(_) => Err(http(HttpFault::Timeout)),
    }
}

async fn ask(
    stream: TcpStream,
    to: &Endpoint,
    authorization: Option<HeaderValue>,
) -> Result<(Tunnel, TcpStream), ProxyFault> {
    let target = format!("{}:{}", to.host, to.port);
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(&target)
        .header(HOST, &target)
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|_| {
            let reason = format!("{target} can't be asked of a proxy");
            http(HttpFault::Other { reason })
        })?;
    if let Some(value) = authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, value);
    }
    let (mut sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http(fault(&error)))?;
    // Ends by itself: with the stream handed over, or with the last of its users.
    tokio::spawn(connection.with_upgrades());
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| http(fault(&error)))?;
    let status = response.status();
    if !status.is_success() {
        let text = |value: &[u8]| clean(&String::from_utf8_lossy(value), MAX_TEXT);
        let squid = response.headers().get("x-squid-error");
        let phrase = response.extensions().get::<ReasonPhrase>();
        let reason = squid
            .map(|value| text(value.as_bytes()))
            .or_else(|| phrase.map(|phrase| text(phrase.as_bytes())))
            .or_else(|| status.canonical_reason().map(str::to_owned));
        return Err(ProxyFault::Status {
            status: status.as_u16(),
            reason,
        });
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| http(fault(&error)))?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| {
        let reason = "the connection was not given back".to_owned();
        http(HttpFault::Other { reason })
    })?;
    if !parts.read_buf.is_empty() {
        // A server of TLS says nothing before it is spoken to.
        let reason = "bytes came behind the proxy's answer, before anything was asked".to_owned();
        return Err(http(HttpFault::Malformed { reason }));
    }
    let tunnel = Tunnel {
        to: to.clone(),
        status: status.as_u16(),
    };
    Ok((tunnel, parts.io.into_inner()))
}

fn http(fault: HttpFault) -> ProxyFault {
    ProxyFault::Http { fault }
}

fn fault(error: &hyper::Error) -> HttpFault {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        HttpFault::Closed
    } else if error.is_parse() {
        HttpFault::Malformed {
            reason: "what came is not HTTP".to_owned(),
        }
    } else {
        let is_reset = std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<std::io::Error>())
            .is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
        if is_reset {
            HttpFault::Reset
        } else {
            HttpFault::Other {
                reason: clean(&error.to_string(), MAX_TEXT),
            }
        }
    }
}

const MAX_TEXT: usize = 200;
