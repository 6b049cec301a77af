//! Calls that are not measured: made with reqwest, over a pool of connections to one host. No proxy is used, no
//! redirect is followed, and no name is resolved.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes as Buffer, BytesMut};
use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::redirect::Policy;

use super::chain::Presented;
use super::http::{self as http1, AGENT};
use super::recorded_stream::End;
use super::tcp;
use super::tls::TlsClient;
use crate::model::endpoint::Host;
use crate::model::fault::{HttpFault, TcpFault, TlsFault};
use crate::model::text::printable;
use crate::model::units::Bytes;
use crate::own;

/// Calls one host, over TLS if the URL is https.
#[derive(Debug)]
pub struct ApiClient {
    client: reqwest::Client,
    at: IpAddr,
    tls: TlsClient,
    presented: Presented,
}

/// A response with its whole body.
#[derive(Debug)]
pub struct ApiAnswer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Buffer,
    /// The source address and port of the connection; `None` if the library does not report it.
    pub local: Option<SocketAddr>,
}

/// Why a call has no response.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ApiFault {
    /// No connection within the limit, TLS included.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The connection was refused. The library does not report whether by RST or by ICMP.
    #[error("connection refused")]
    Refused,
    /// The connection failed otherwise.
    #[error("{0}")]
    Tcp(TcpFault),
    /// The TLS handshake failed.
    #[error("{0}")]
    Tls(TlsFault),
    /// The request was sent, but no valid response arrived.
    #[error("{0}")]
    Http(HttpFault),
}

impl ApiClient {
    /// A client for `host`, which is dialed at `at`. `connect` bounds the time to connect, TLS included.
    ///
    /// # Errors
    /// If the TLS configuration can't be used.
    pub fn new(
        host: &Host,
        at: IpAddr,
        tls: &TlsClient,
        connect: Duration,
    ) -> Result<Self, ApiFault> {
        let presented = Presented::default();
        let identity = HeaderValue::from_static("identity");
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.config(host, &presented))
            // Port 0 means the URL's port.
            .resolve(&host.to_string(), SocketAddr::new(at, 0))
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(connect)
            .http1_title_case_headers()
            .user_agent(AGENT)
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, identity)]))
            .build()
            .map_err(|error| other(&error))?;
        Ok(Self {
            client,
            at,
            tls: tls.clone(),
            presented,
        })
    }

    /// Sends a request without a body to `url`, and reads the response. `limit` bounds the whole call, `max` the size
    /// of the body.
    ///
    /// # Errors
    /// If no connection opens, the response is invalid or incomplete, or a bound is exceeded.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        limit: Duration,
        max: Bytes,
    ) -> Result<ApiAnswer, ApiFault> {
        let request = self.client.request(method, url).headers(headers);
        let sent = request.timeout(limit).send().await;
        let mut response = sent.map_err(|error| self.fault(&error))?;
        let want = response.content_length().map(Bytes);
        let info: Option<&HttpInfo> = response.extensions().get();
        let local = info.map(HttpInfo::local_addr);
        let mut body = BytesMut::new();
        loop {
            let got = Bytes(body.len() as u64);
            match response.chunk().await {
                Ok(None) => break,
                Ok(Some(chunk)) if got.0 + chunk.len() as u64 > max.0 => {
                    return Err(ApiFault::Http(HttpFault::TooLarge { limit: max }));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Err(error) => {
                    return Err(match self.fault(&error) {
                        ApiFault::Http(HttpFault::Closed) => {
                            ApiFault::Http(HttpFault::Truncated { got, want })
                        }
                        ApiFault::Http(HttpFault::Timeout) => {
                            ApiFault::Http(HttpFault::Stalled { after: got })
                        }
                        fault => fault,
                    });
                }
            }
        }
        Ok(ApiAnswer {
            status: response.status(),
            body: body.freeze(),
            local,
        })
    }

    /// Classifies an error by its kind, never by its text, which contains the URL.
    fn fault(&self, error: &reqwest::Error) -> ApiFault {
        let io = causes(error).find_map(|cause| cause.downcast_ref().map(innermost));
        io.and_then(own::limit_of);
        match (io, error.is_connect(), error.is_timeout()) {
            (_, true, true) => ApiFault::ConnectTimeout,
            (_, false, true) => ApiFault::Http(HttpFault::Timeout),
            (Some(io), true, false) if matches!(End::of(io), End::Tls(_)) => {
                ApiFault::Tls(self.tls.fault(io, &self.presented))
            }
            (Some(io), true, false) => match tcp::from_io(io, self.at, None) {
                TcpFault::Refused { .. } => ApiFault::Refused,
                fault => ApiFault::Tcp(fault),
            },
            _ => match causes(error).find_map(|cause| cause.downcast_ref()) {
                Some(hyper) => ApiFault::Http(http1::unwatched_fault(hyper, io)),
                None => other(error),
            },
        }
    }
}

fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// hyper-rustls wraps the error of a handshake in another one.
fn innermost(error: &io::Error) -> &io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(inner) => innermost(inner),
        None => error,
    }
}

fn other(error: &reqwest::Error) -> ApiFault {
    let reason = match causes(error).last() {
        Some(cause) => printable(&cause.to_string()),
        None => "the request can't be sent".to_owned(),
    };
    ApiFault::Http(HttpFault::Other { reason })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::testing::{self, Ca, LONG, builds, peer};
    use crate::trust::Pool;

    const SHORT: Duration = Duration::from_millis(300);
    const MAX: Bytes = Bytes(1000);
    const HOST: &str = "api.test";

    fn client(roots: Pool, at: SocketAddr, connect: Duration) -> ApiClient {
        let tls = TlsClient::new(roots, &builds());
        ApiClient::new(&Host::new(HOST), at.ip(), &tls, connect).unwrap()
    }

    async fn ask(at: SocketAddr, limit: Duration) -> Result<ApiAnswer, ApiFault> {
        get(&client(Pool::default(), at, LONG), "http", at, limit).await
    }

    async fn get(
        client: &ApiClient,
        scheme: &str,
        at: SocketAddr,
        limit: Duration,
    ) -> Result<ApiAnswer, ApiFault> {
        let url = format!("{scheme}://{HOST}:{}/path?secret", at.port());
        let headers = HeaderMap::new();
        client.send(Method::GET, &url, headers, limit, MAX).await
    }

    /// The head of the next request.
    async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) {
        head(&mut stream).await;
        stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends one response, then closes.
    async fn once(text: &'static str) -> SocketAddr {
        peer(move |stream| async move { answer(stream, text).await }).await
    }

    fn http(result: Result<ApiAnswer, ApiFault>) -> HttpFault {
        match result {
            Err(ApiFault::Http(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_connection_serves_all_calls_of_a_client_and_shows_where_it_is_from() {
        let at = peer(|mut stream: TcpStream| async move {
            let from = stream.peer_addr().unwrap().to_string();
            loop {
                let head = head(&mut stream).await;
                assert!(head.starts_with("GET /path?secret HTTP/1.1\r\n"), "{head}");
                let lines = [
                    "Host: api.test:",
                    "User-Agent: pullpath/",
                    "Accept-Encoding: identity",
                ];
                for line in lines {
                    assert!(head.contains(&format!("\r\n{line}")), "{line}: {head}");
                }
                let length = from.len();
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{from}");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        })
        .await;
        let client = client(Pool::default(), at, LONG);
        for _ in 0..3 {
            let answer = get(&client, "http", at, LONG).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            let local = answer.local.unwrap().to_string();
            assert_eq!(answer.body, local.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer() {
        let moved =
            "HTTP/1.1 302 Found\r\nLocation: http://other.test/\r\nContent-Length: 0\r\n\r\n";
        let answer = ask(once(moved).await, LONG).await.unwrap();
        assert_eq!(answer.status, StatusCode::FOUND);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_named_by_its_cause() {
        let large = "HTTP/1.1 200 OK\r\n\r\n0123456789".to_owned() + &"0".repeat(1000);
        let large = once(large.leak()).await;
        assert_eq!(
            http(ask(large, LONG).await),
            HttpFault::TooLarge { limit: MAX }
        );
        let short = once("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabc").await;
        let truncated = HttpFault::Truncated {
            got: Bytes(3),
            want: Some(Bytes(7)),
        };
        assert_eq!(http(ask(short, LONG).await), truncated);
        assert_eq!(http(ask(once("").await, LONG).await), HttpFault::Closed);
        let other = http(ask(once("SSH-2.0-OpenSSH_9.2\r\n").await, LONG).await);
        assert!(matches!(other, HttpFault::Malformed { .. }), "{other:?}");
        let reset = peer(|mut stream| async move {
            head(&mut stream).await;
            testing::reset(stream);
        });
        assert_eq!(http(ask(reset.await, LONG).await), HttpFault::Reset);
        let silent = peer(|stream| async move {
            tokio::time::sleep(LONG).await;
            drop(stream);
        });
        assert_eq!(http(ask(silent.await, SHORT).await), HttpFault::Timeout);
        let stalled = peer(|mut stream| async move {
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabc";
            answer(&mut stream, text).await;
            tokio::time::sleep(LONG).await;
        });
        let after = HttpFault::Stalled { after: Bytes(3) };
        assert_eq!(http(ask(stalled.await, SHORT).await), after);
    }

    #[tokio::test]
    async fn a_port_that_is_closed_or_silent_gives_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        drop(listener);
        let refused = ask(at, LONG).await.unwrap_err();
        assert_eq!(refused, ApiFault::Refused);
        assert_eq!(refused.to_string(), "connection refused");
        // The TLS handshake is a part of connecting.
        let silent = peer(|stream| async move {
            tokio::time::sleep(LONG).await;
            drop(stream);
        });
        let at = silent.await;
        let client = client(Pool::default(), at, SHORT);
        let fault = get(&client, "https", at, LONG).await.unwrap_err();
        assert_eq!(fault, ApiFault::ConnectTimeout);
    }

    #[tokio::test]
    async fn a_certificate_is_judged_as_in_a_walk() {
        let ca = Ca::new("ca");
        let serve = |names: &'static [&str]| {
            let config = ca.leaf(names).server(&[]);
            peer(move |stream| async move {
                if let Some(stream) = testing::accept(stream, config).await {
                    answer(stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
                }
            })
        };
        let at = serve(&[HOST]).await;
        let good = client(ca.roots(), at, LONG);
        let answer = get(&good, "https", at, LONG).await.unwrap();
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert!(answer.local.is_some());
        let at = serve(&["other.test"]).await;
        let misnamed = client(ca.roots(), at, LONG);
        let fault = get(&misnamed, "https", at, LONG).await.unwrap_err();
        assert!(
            matches!(fault, ApiFault::Tls(TlsFault::NameMismatch { .. })),
            "{fault:?}"
        );
        let at = serve(&[HOST]).await;
        let unknown = client(Ca::new("another").roots(), at, LONG);
        let fault = get(&unknown, "https", at, LONG).await.unwrap_err();
        assert!(
            matches!(fault, ApiFault::Tls(TlsFault::UnknownIssuer { .. })),
            "{fault:?}"
        );
    }
}
