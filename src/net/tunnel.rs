//! Connections through a proxy: `CONNECT` (RFC 9110, 9.3.6) or SOCKS5 (RFC 1928, 1929), after which the connection is
//! the server's; and for plain http, which responses are the proxy's own.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION, SERVER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::http::{AGENT, unwatched_fault};
use super::stream::Stream;
use crate::model::endpoint::{Endpoint, Host};
use crate::model::fault::{HttpFault, ProxyFault};
use crate::model::proxy::Tunnel;
use crate::model::text::clean;
use crate::own;

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
    let opened = own::within(limit, request_tunnel(stream, to, authorization)).await;
    opened.unwrap_or_else(|elapsed| Err(elapsed.or(http(HttpFault::Timeout))))
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
    // Go takes no other one, though RFC 9110 has all of 2xx.
    if status != StatusCode::OK {
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

/// Requests a connection to `to` from the SOCKS5 proxy at the other end of `stream`, as Go does: the proxy gets a name
/// as a name. `login`: the user and password to offer.
///
/// # Errors
/// If the proxy refuses, does not speak SOCKS5, or `limit` passes.
pub async fn open_socks(
    mut stream: Stream,
    to: &Endpoint,
    login: Option<(&str, &str)>,
    limit: Duration,
) -> Result<(Tunnel, Stream), ProxyFault> {
    match own::within(limit, request_socks(&mut stream, to, login)).await {
        Ok(Ok(())) => {
            let tunnel = Tunnel {
                to: to.clone(),
                status: 0,
            };
            Ok((tunnel, stream))
        }
        Ok(Err(fault)) => Err(fault),
        Err(elapsed) => Err(elapsed.or(socks(None, "no answer in time"))),
    }
}

async fn request_socks(
    stream: &mut Stream,
    to: &Endpoint,
    login: Option<(&str, &str)>,
) -> Result<(), ProxyFault> {
    log_in(stream, login).await?;
    connect_by(stream, to).await
}

/// The method of authentication, and that of RFC 1929.
async fn log_in(stream: &mut Stream, login: Option<(&str, &str)>) -> Result<(), ProxyFault> {
    let methods: &[u8] = if login.is_some() {
        &[5, 2, 0, 2]
    } else {
        &[5, 1, 0]
    };
    send(stream, methods).await?;
    let method = match receive(stream).await? {
        [5, method] => method,
        [b'H', b'T'] => return Err(socks(None, "it answers in HTTP")),
        [version, _] => {
            let reason = format!("its answer has the version {version}, not 5");
            return Err(socks(None, &reason));
        }
    };
    let (user, password) = match (method, login) {
        (0, _) => return Ok(()),
        (2, Some(login)) => login,
        (255, Some(_)) => return Err(socks(None, "it takes no user and password")),
        (255, None) => return Err(socks(None, "it requires a login, and the URL has none")),
        (other, _) => {
            let reason = format!("it requires authentication {other}, which Go does not know");
            return Err(socks(None, &reason));
        }
    };
    let lengths = (u8::try_from(user.len()), u8::try_from(password.len()));
    let (Ok(of_user @ 1..), Ok(of_password)) = lengths else {
        let reason = "Go sends no empty user, and at most 255 bytes of each";
        return Err(socks(None, reason));
    };
    let mut request = vec![1, of_user];
    request.extend(user.as_bytes());
    request.push(of_password);
    request.extend(password.as_bytes());
    send(stream, &request).await?;
    if receive(stream).await? == [1, 0] {
        Ok(())
    } else {
        Err(socks(None, "it refuses the user and password"))
    }
}

/// The request for a connection, and its reply.
async fn connect_by(stream: &mut Stream, to: &Endpoint) -> Result<(), ProxyFault> {
    let mut request = vec![5, 1, 0];
    match &to.host {
        Host::Address(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Host::Address(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Host::Name(name) => {
            let Ok(length) = u8::try_from(name.len()) else {
                return Err(socks(None, "the server's name has more than 255 bytes"));
            };
            request.extend([3, length]);
            request.extend(name.as_bytes());
        }
    }
    request.extend(to.port.to_be_bytes());
    send(stream, &request).await?;
    let [version, reply, reserved, kind] = receive(stream).await?;
    if version != 5 {
        return Err(socks(None, "its reply is not SOCKS5"));
    }
    if reply != 0 {
        let reason = match reply {
            1 => "general failure of the proxy",
            2 => "its rules do not allow the connection",
            3 => "it can't reach the network",
            4 => "it can't reach the host, or resolve its name",
            5 => "the server refuses the connection",
            6 => "TTL expired",
            7 => "it does not support CONNECT",
            8 => "it does not support this kind of address",
            _ => "a reply that RFC 1928 does not have",
        };
        return Err(socks(Some(reply), &format!("{reason} (reply {reply})")));
    }
    if reserved != 0 {
        let reason = "the reserved byte of its reply is not 0, which Go does not accept";
        return Err(socks(None, reason));
    }
    // The address that the proxy connects from is of no use here.
    match kind {
        1 => drop(receive::<6>(stream).await?),
        4 => drop(receive::<18>(stream).await?),
        3 => {
            let [length] = receive(stream).await?;
            for _ in 0..usize::from(length) + 2 {
                receive::<1>(stream).await?;
            }
        }
        _ => {
            return Err(socks(
                Some(reply),
                "its reply has an unknown kind of address",
            ));
        }
    }
    Ok(())
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), ProxyFault> {
    stream
        .write_all(bytes)
        .await
        .map_err(|error| broken(&error))?;
    stream.flush().await.map_err(|error| broken(&error))
}

async fn receive<const LENGTH: usize>(stream: &mut Stream) -> Result<[u8; LENGTH], ProxyFault> {
    let mut bytes = [0; LENGTH];
    let read = stream.read_exact(&mut bytes).await;
    read.map(|_| bytes).map_err(|error| broken(&error))
}

fn broken(error: &io::Error) -> ProxyFault {
    if let Some(limit) = own::limit_of(error) {
        return limit.into();
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => socks(None, "it closes the connection"),
        io::ErrorKind::ConnectionReset => socks(None, "it resets the connection"),
        _ => socks(None, &clean(&error.to_string(), MAX_TEXT)),
    }
}

fn socks(reply: Option<u8>, reason: &str) -> ProxyFault {
    let reason = reason.to_owned();
    ProxyFault::Socks { reply, reason }
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
    fn a_proxys_own_answer_is_distinguished_from_the_servers() {
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

    /// What a proxy's answers lead to; it gets this many bytes before each.
    async fn answered(
        answers: &'static [(usize, &'static [u8])],
        socks: bool,
    ) -> Option<ProxyFault> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for (before, answer) in answers {
                stream.read_exact(&mut vec![0; *before]).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
            stream
        });
        let stream = Stream::from(tokio::net::TcpStream::connect(at).await.unwrap());
        let to = Endpoint {
            scheme: crate::model::endpoint::Scheme::Https,
            host: Host::new("a.test"),
            port: 443,
        };
        let limit = Duration::from_mins(1);
        let result = if socks {
            open_socks(stream, &to, None, limit).await
        } else {
            open(stream, &to, None, limit).await
        };
        drop(server.await);
        result.err()
    }

    #[tokio::test]
    async fn answers_that_go_does_not_take_are_failures() {
        const GOOD: &[(usize, &[u8])] = &[(3, &[5, 0]), (13, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])];
        const RESERVED: &[(usize, &[u8])] = &[(3, &[5, 0]), (13, &[5, 0, 1, 1, 0, 0, 0, 0, 0, 0])];
        assert_eq!(answered(GOOD, true).await, None);
        let fault = answered(RESERVED, true).await.unwrap().to_string();
        assert!(fault.contains("reserved"), "{fault}");
        assert_eq!(
            answered(&[(40, b"HTTP/1.1 200 OK\r\n\r\n")], false).await,
            None
        );
        let fault = answered(&[(40, b"HTTP/1.1 204 No Content\r\n\r\n")], false).await;
        assert!(
            matches!(fault, Some(ProxyFault::Status { status: 204, .. })),
            "{fault:?}"
        );
    }
}
