//! One HTTP exchange at a time over one connection that was made for it: no pool, no redirect, no
//! retry; the caller sees each.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes as Body, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::tls::Counted;
use crate::model::fault::HttpFault;
use crate::model::text::printable;
use crate::model::units::Bytes;

/// Who asks. Registries log it; an operator can find our requests by it.
const USER_AGENT: &str = concat!("pullpath/", env!("CARGO_PKG_VERSION"));

/// A response head may be this large; those of registries with a signed redirect are some KiB.
const MAX_HEAD: usize = 64 << 10;

/// A connection that was made for HTTP.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<Counted>>),
}

/// An HTTP connection, version 1.1 or 2. Its task ends when it is dropped.
#[derive(Debug)]
pub struct HttpConnection {
    sender: Sender,
    scheme: &'static str,
    driver: JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Body>>),
    Http2(http2::SendRequest<Full<Body>>),
}

impl HttpConnection {
    /// Starts HTTP on a stream; `is_h2` as ALPN said.
    pub async fn open(stream: Stream, is_h2: bool, limit: Duration) -> Result<Self, HttpFault> {
        let scheme = match stream {
            Stream::Plain(_) => "http",
            Stream::Tls(_) => "https",
        };
        let io = TokioIo::new(stream);
        let opened = async {
            if is_h2 {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                    .handshake(io)
                    .await?;
                let driver = tokio::spawn(async move { drop(connection.await) });
                Ok((Sender::Http2(sender), driver))
            } else {
                let (sender, connection) = http1::Builder::new()
                    .max_buf_size(MAX_HEAD)
                    .handshake(io)
                    .await?;
                let driver = tokio::spawn(async move { drop(connection.await) });
                Ok((Sender::Http1(sender), driver))
            }
        };
        let (sender, driver) = tokio::time::timeout(limit, opened)
            .await
            .map_err(|_| HttpFault::Timeout)?
            .map_err(|e| fault(&e))?;
        Ok(Self {
            sender,
            scheme,
            driver,
        })
    }

    /// Whether another request may go over it, as far as is known.
    pub fn is_reusable(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Sends one request, whose target is a path and whose `Host` is set; waits for the response head.
    pub async fn send(
        &mut self,
        mut request: Request<Body>,
        limit: Duration,
    ) -> Result<Response, HttpFault> {
        request
            .headers_mut()
            .insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let start = Instant::now();
        let exchange = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request.map(Full::new)).await
                }
                Sender::Http2(sender) => {
                    // RFC 9113, 8.3.1: the authority is in the target, not in a Host field.
                    let authority = request.headers_mut().remove(header::HOST);
                    let authority = authority.as_ref().and_then(|value| value.to_str().ok());
                    let target = request.uri().path_and_query().map_or("/", |p| p.as_str());
                    let absolute = Uri::builder()
                        .scheme(self.scheme)
                        .authority(authority.unwrap_or(""))
                        .path_and_query(target);
                    if let Ok(uri) = absolute.build() {
                        *request.uri_mut() = uri;
                    }
                    *request.version_mut() = Version::HTTP_2;
                    sender.ready().await?;
                    sender.send_request(request.map(Full::new)).await
                }
            }
        };
        let answer = tokio::time::timeout(limit, exchange)
            .await
            .map_err(|_| HttpFault::Timeout)?;
        let (parts, body) = answer.map_err(|e| fault(&e))?.into_parts();
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            first_byte: start.elapsed(),
            body,
        })
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The head of an answer, its body still to be read.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// From the request to this head.
    pub first_byte: Duration,
    body: Incoming,
}

impl Response {
    /// Reads the body, at most `max` of it and within `limit`.
    pub async fn read(mut self, max: Bytes, limit: Duration) -> Result<Body, HttpFault> {
        let deadline = tokio::time::Instant::now() + limit;
        let want = self.length();
        let mut body = BytesMut::new();
        loop {
            let got = Bytes(body.len() as u64);
            let frame = match tokio::time::timeout_at(deadline, self.body.frame()).await {
                Err(_) => return Err(HttpFault::Stalled { after: got }),
                Ok(None) => return Ok(body.freeze()),
                Ok(Some(Err(error))) => return Err(body_fault(&error, got, want)),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Some(data) = frame.data_ref() {
                if (body.len() + data.len()) as u64 > max.0 {
                    return Err(HttpFault::TooLarge { limit: max });
                }
                body.extend_from_slice(data);
            }
        }
    }

    /// Waits for the first bytes of the body and leaves the rest, which ends the connection or the
    /// stream when there is more.
    pub async fn read_first(mut self, limit: Duration) -> Result<usize, HttpFault> {
        let deadline = tokio::time::Instant::now() + limit;
        let want = self.length();
        loop {
            match tokio::time::timeout_at(deadline, self.body.frame()).await {
                Err(_) => return Err(HttpFault::Stalled { after: Bytes(0) }),
                Ok(None) if want == Some(Bytes(0)) => return Ok(0),
                Ok(None) => {
                    return Err(HttpFault::Truncated {
                        got: Bytes(0),
                        want,
                    });
                }
                Ok(Some(Err(error))) => return Err(body_fault(&error, Bytes(0), want)),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) {
                        return Ok(data.len());
                    }
                }
            }
        }
    }

    fn length(&self) -> Option<Bytes> {
        self.headers
            .get(header::CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
            .map(Bytes)
    }
}

fn body_fault(error: &hyper::Error, got: Bytes, want: Option<Bytes>) -> HttpFault {
    match fault(error) {
        HttpFault::Closed => HttpFault::Truncated { got, want },
        other => other,
    }
}

/// hyper's error, in our words; told by its kind and source, never by its text.
fn fault(error: &hyper::Error) -> HttpFault {
    if let Some(io) = io_source(error) {
        match io.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => return HttpFault::Reset,
            io::ErrorKind::UnexpectedEof => return HttpFault::Closed,
            io::ErrorKind::TimedOut => return HttpFault::Timeout,
            _ => {}
        }
        if let Some(rustls::Error::AlertReceived(alert)) = io
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            let number = u8::from(*alert);
            return HttpFault::Other {
                reason: format!("TLS alert {number} ({alert:?}) from the server"),
            };
        }
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        HttpFault::Closed
    } else if error.is_parse() {
        HttpFault::Malformed {
            reason: "what came is no HTTP response".to_owned(),
        }
    } else if error.is_timeout() {
        HttpFault::Timeout
    } else if let Some(h2) = h2_source(error) {
        match h2.reason() {
            Some(h2::Reason::NO_ERROR | h2::Reason::REFUSED_STREAM | h2::Reason::CANCEL) | None => {
                HttpFault::Closed
            }
            Some(reason) => HttpFault::Other {
                reason: format!("HTTP/2 error {reason:?}"),
            },
        }
    } else {
        let source = error
            .source()
            .map_or_else(String::new, |source| format!(": {source}"));
        HttpFault::Other {
            reason: printable(&format!("{error}{source}")),
        }
    }
}

fn h2_source(error: &hyper::Error) -> Option<&h2::Error> {
    sources(error).find_map(|source| source.downcast_ref::<h2::Error>())
}

/// The error of the socket below. h2 keeps it out of the chain of sources and hands it out by itself.
fn io_source(error: &hyper::Error) -> Option<&io::Error> {
    h2_source(error)
        .and_then(h2::Error::get_io)
        .or_else(|| sources(error).find_map(|source| source.downcast_ref::<io::Error>()))
}

fn sources(error: &hyper::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first: Option<&(dyn std::error::Error + 'static)> = error.source();
    std::iter::successors(first, |&error| error.source())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
