//! One HTTP exchange at a time over a connection that is already there: no redirect, no retry, no
//! pool. Whoever calls decides what to do with an answer or a fault.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes as Buffer;
use bytes::BytesMut;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, PROXY_AUTHORIZATION, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::tls::{TlsStream, alert_name};
use super::watched::{End, Record, Seen, Watched};
use crate::model::fault::HttpFault;
use crate::model::text::{clean, hex};
use crate::model::units::Bytes;

/// What HTTP is spoken over.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// A connection that requests can be sent on, one after the other.
pub struct HttpConnection {
    sender: Sender,
    record: Record,
    shared: Arc<Shared>,
    requests: usize,
    may_reconnect: bool,
    /// The peer is a proxy for plain http: requests name their server whole.
    proxied: Option<ForProxy>,
}

/// What a request to a proxy has besides (RFC 9112, 3.2.2; RFC 9110, 11.7.2).
#[derive(Clone, Debug)]
pub struct ForProxy {
    /// `Proxy-Authorization`, marked as sensitive.
    pub authorization: Option<HeaderValue>,
}

enum Sender {
    H1(http1::SendRequest<Full<Buffer>>),
    H2(http2::SendRequest<Full<Buffer>>),
}

/// What a connection and its answers have in common.
#[derive(Debug, Default)]
struct Shared {
    /// hyper's side of the connection; ends with the last of its users.
    tasks: Arc<Mutex<JoinSet<()>>>,
    /// No further request should be sent.
    spoiled: AtomicBool,
}

impl HttpConnection {
    /// Begins to speak HTTP/1.1, or HTTP/2 when ALPN chose it.
    pub async fn open(stream: Stream, is_h2: bool) -> Result<Self, HttpFault> {
        Self::open_with(stream, is_h2, SMALL_WINDOWS).await
    }

    /// The same for bodies that are read whole: over HTTP/2 with the windows of Go's client, so that
    /// they bound neither its rate nor ours.
    pub async fn open_wide(stream: Stream, is_h2: bool) -> Result<Self, HttpFault> {
        Self::open_with(stream, is_h2, WIDE_WINDOWS).await
    }

    async fn open_with(stream: Stream, is_h2: bool, windows: Windows) -> Result<Self, HttpFault> {
        let (watched, record) = Watched::new(stream);
        let io = TokioIo::new(watched);
        let shared = Arc::new(Shared::default());
        let spawner = Spawner(Arc::downgrade(&shared.tasks));
        let opening = async {
            if is_h2 {
                let (sender, connection) = http2::Builder::new(spawner.clone())
                    .initial_stream_window_size(windows.stream)
                    .initial_connection_window_size(windows.connection)
                    .max_header_list_size(HEAD_LIMIT)
                    .handshake(io)
                    .await?;
                spawner.spawn(connection);
                Ok::<_, hyper::Error>(Sender::H2(sender))
            } else {
                let (sender, connection) = http1::Builder::new()
                    // As Go writes them, for the middlebox that minds.
                    .title_case_headers(true)
                    .max_headers(MAX_HEADERS)
                    .max_buf_size(HEAD_LIMIT as usize)
                    .handshake(io)
                    .await?;
                spawner.spawn(connection);
                Ok(Sender::H1(sender))
            }
        };
        let sender = match timeout(OPEN_LIMIT, opening).await {
            Ok(Ok(sender)) => sender,
            Ok(Err(error)) => return Err(fault(&error, &record.seen(), is_h2)),
            Err(_) => return Err(HttpFault::Timeout),
        };
        Ok(Self {
            sender,
            record,
            shared,
            requests: 0,
            may_reconnect: false,
            proxied: None,
        })
    }

    /// The same connection, as one to a proxy that passes requests of plain http on.
    #[must_use]
    pub fn by_proxy(self, proxied: Option<ForProxy>) -> Self {
        Self { proxied, ..self }
    }

    /// Sends `request`, whose URI is absolute, and waits for the head of the answer for at most
    /// `limit`. Sets Host, and User-Agent and Accept-Encoding (identity) where they are missing.
    pub async fn send(
        &mut self,
        request: Request<Buffer>,
        limit: Duration,
    ) -> Result<Response, HttpFault> {
        let is_head = request.method() == Method::HEAD;
        let is_h2 = self.is_h2();
        let request = prepare(request, is_h2, self.proxied.as_ref())?;
        let reused = self.requests > 0;
        if reused {
            // On the first request, bytes that came unasked count: they tell what the peer speaks.
            self.record.restart();
        }
        self.requests += 1;
        self.may_reconnect = false;
        let started = Instant::now();
        let answered = timeout(limit, self.exchange(request)).await;
        let first_byte = started.elapsed();
        let fault = match answered {
            Ok(Ok(answer)) => return Ok(self.response(answer, first_byte, is_head)),
            Ok(Err(error)) => {
                let seen = self.record.seen();
                let fault = fault(&error, &seen, is_h2);
                let unanswered = is_h2 || seen.received == 0;
                self.may_reconnect = is_refused_stream(&error)
                    || (reused
                        && unanswered
                        && matches!(fault, HttpFault::Closed | HttpFault::Reset));
                fault
            }
            Err(_) => self
                .not_http(&self.record.seen())
                .unwrap_or(HttpFault::Timeout),
        };
        self.shared.spoil();
        Err(fault)
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Buffer>>,
    ) -> hyper::Result<http::Response<Incoming>> {
        match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    fn response(
        &self,
        answer: http::Response<Incoming>,
        first_byte: Duration,
        is_head: bool,
    ) -> Response {
        let (head, body) = answer.into_parts();
        if !self.is_h2() && closes(head.version, &head.headers) {
            self.shared.spoil();
        }
        let complete = is_head || body.is_end_stream();
        Response {
            status: head.status,
            headers: head.headers,
            first_byte,
            is_head,
            body,
            record: self.record.clone(),
            end: BodyEnd {
                shared: self.shared.clone(),
                // A stream of HTTP/2 that is dropped leaves the others alone.
                spoils: !complete && !self.is_h2(),
            },
            is_h2: self.is_h2(),
        }
    }

    fn not_http(&self, seen: &Seen) -> Option<HttpFault> {
        (!self.is_h2()).then(|| not_http(&seen.first)).flatten()
    }

    /// HTTP/2 is spoken.
    pub fn is_h2(&self) -> bool {
        matches!(self.sender, Sender::H2(_))
    }

    /// A further request can be sent, as far as is known on this side.
    pub fn is_reusable(&self) -> bool {
        let closed = match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        };
        !closed && !self.shared.spoiled.load(Ordering::Relaxed)
    }

    /// The last request failed without a byte of an answer on a connection that had served before,
    /// or HTTP/2 said that it was not looked at (RFC 9113 section 8.7): the server had hung up
    /// meanwhile. Go's transport connects anew then, and so may the caller, once.
    pub fn may_reconnect(&self) -> bool {
        self.may_reconnect
    }
}

impl fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnection")
            .field("is_h2", &self.is_h2())
            .field("requests", &self.requests)
            .finish_non_exhaustive()
    }
}

/// The head of an answer; the body is still on its way.
pub struct Response {
    pub status: StatusCode,
    /// May hold secrets: a signed `Location`, a token.
    pub headers: HeaderMap,
    /// From the request being handed over to the head of the answer.
    pub first_byte: Duration,
    is_head: bool,
    is_h2: bool,
    body: Incoming,
    record: Record,
    end: BodyEnd,
}

impl Response {
    /// Reads the whole body. `limit` bounds every wait for more of it, and [`WHOLE_BODY`] times
    /// that the reading as a whole.
    pub async fn read(mut self, max: Bytes, limit: Duration) -> Result<Buffer, HttpFault> {
        if self.is_head {
            return Ok(Buffer::new());
        }
        if let Some(encoding) = self.headers.get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            let encoding = clean(&String::from_utf8_lossy(encoding.as_bytes()), MAX_TEXT);
            return Err(HttpFault::Other {
                reason: format!(
                    "the answer has content encoding {encoding:?}, which was not asked for and is not read here"
                ),
            });
        }
        let want = self.body.size_hint().exact();
        if want.is_some_and(|want| want > max.0) {
            return Err(HttpFault::TooLarge { limit: max });
        }
        let deadline = Instant::now() + limit * WHOLE_BODY;
        let mut content = BytesMut::new();
        loop {
            let got = content.len() as u64;
            let patience = Instant::now() + limit;
            let Ok(next) = timeout_at(patience.min(deadline), self.chunk()).await else {
                return Err(if patience <= deadline {
                    HttpFault::Stalled { after: Bytes(got) }
                } else {
                    slow(limit * WHOLE_BODY, got, want)
                });
            };
            match next {
                None => {
                    self.end.spoils = false;
                    return Ok(content.freeze());
                }
                Some(Ok(data)) if got + data.len() as u64 > max.0 => {
                    return Err(HttpFault::TooLarge { limit: max });
                }
                Some(Ok(data)) => content.extend_from_slice(&data),
                Some(Err(error)) => return Err(self.body_fault(&error, got, want)),
            }
        }
    }

    /// Reads the first `want` bytes of the body, or all of a shorter one, and leaves the rest: over
    /// HTTP/1.1 that closes the connection, over HTTP/2 it cancels the stream. `limit` bounds every
    /// wait; after twice that, what has come is enough: slow is no stall. Returns how many bytes
    /// came, and when the first of them did.
    pub async fn read_first(
        mut self,
        want: Bytes,
        limit: Duration,
    ) -> Result<(Bytes, Instant), HttpFault> {
        let exact = self.body.size_hint().exact();
        let mut got = 0;
        let mut first = None;
        let deadline = Instant::now() + limit * 2;
        loop {
            if self.is_head || got >= want.0 || (got > 0 && Instant::now() > deadline) {
                break;
            }
            match timeout(limit, self.chunk()).await {
                Err(_) => return Err(HttpFault::Stalled { after: Bytes(got) }),
                Ok(None) => {
                    self.end.spoils = false;
                    break;
                }
                Ok(Some(Ok(data))) => {
                    first.get_or_insert_with(Instant::now);
                    got += data.len() as u64;
                    if self.body.is_end_stream() {
                        self.end.spoils = false;
                        break;
                    }
                }
                Ok(Some(Err(error))) => return Err(self.body_fault(&error, got, exact)),
            }
        }
        Ok((Bytes(got), first.unwrap_or_else(Instant::now)))
    }

    /// The next bytes of the body, as they come; `None` at its end. `got` is how many came before.
    pub async fn next(&mut self, got: u64, limit: Duration) -> Result<Option<Buffer>, HttpFault> {
        match timeout(limit, self.chunk()).await {
            Err(_) => Err(HttpFault::Stalled { after: Bytes(got) }),
            Ok(None) => {
                self.end.spoils = false;
                Ok(None)
            }
            Ok(Some(Ok(data))) => Ok(Some(data)),
            Ok(Some(Err(error))) => {
                let want = self.body.size_hint().exact();
                Err(self.body_fault(&error, got, want.map(|left| got + left)))
            }
        }
    }

    /// The next bytes of the body; `None` at its end.
    async fn chunk(&mut self) -> Option<hyper::Result<Buffer>> {
        loop {
            match self.body.frame().await? {
                // Trailers and empty frames are no progress; the deadline of the caller holds.
                Ok(frame) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Some(Ok(data)),
                    _ => {}
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn body_fault(&self, error: &hyper::Error, got: u64, want: Option<u64>) -> HttpFault {
        let truncated = HttpFault::Truncated {
            got: Bytes(got),
            want: want.map(Bytes),
        };
        // An HTTP/2 stream that ends before its Content-Length is found by our own side
        // (RFC 9113 section 8.1.1).
        if h2_error(error).is_some_and(h2::Error::is_library) && want.is_some_and(|w| got < w) {
            return truncated;
        }
        match fault(error, &self.record.seen(), self.is_h2) {
            HttpFault::Closed => truncated,
            fault => fault,
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold secrets.
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("first_byte", &self.first_byte)
            .finish_non_exhaustive()
    }
}

/// Knows, when a body is let go, whether its connection can serve again.
struct BodyEnd {
    shared: Arc<Shared>,
    spoils: bool,
}

impl Drop for BodyEnd {
    fn drop(&mut self) {
        if self.spoils {
            self.shared.spoil();
        }
    }
}

impl Shared {
    fn spoil(&self) {
        self.spoiled.store(true, Ordering::Relaxed);
    }
}

// ---- requests -----------------------------------------------------------------------------------

fn prepare(
    request: Request<Buffer>,
    is_h2: bool,
    proxied: Option<&ForProxy>,
) -> Result<Request<Full<Buffer>>, HttpFault> {
    let (mut head, body) = request.into_parts();
    let bad = |reason: &str| HttpFault::Other {
        reason: reason.to_owned(),
    };
    let authority = head
        .uri
        .authority()
        .ok_or_else(|| bad("the address of the request names no host"))?;
    // Never userinfo (RFC 9110 section 7.2).
    let host = match authority.port() {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    };
    let path = head
        .uri
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    let uri = if is_h2 {
        let scheme = head.uri.scheme_str().unwrap_or("https");
        head.headers.remove(HOST);
        Uri::builder()
            .scheme(scheme)
            .authority(host)
            .path_and_query(path)
            .build()
    } else {
        let value =
            HeaderValue::try_from(host.as_str()).map_err(|_| bad("the host is no header value"))?;
        head.headers.insert(HOST, value);
        if let Some(proxy) = proxied {
            if let Some(value) = &proxy.authorization {
                head.headers.insert(PROXY_AUTHORIZATION, value.clone());
            }
            Uri::builder()
                .scheme("http")
                .authority(host)
                .path_and_query(path)
                .build()
        } else {
            Uri::builder().path_and_query(path).build()
        }
    };
    head.uri = uri.map_err(|_| bad("the address of the request can't be sent"))?;
    head.version = if is_h2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    head.headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(AGENT));
    head.headers
        .entry(ACCEPT_ENCODING)
        .or_insert(HeaderValue::from_static("identity"));
    Ok(Request::from_parts(head, Full::new(body)))
}

/// The server ends an HTTP/1 connection after this answer (RFC 9112 section 9.3).
fn closes(version: Version, headers: &HeaderMap) -> bool {
    let says = |option: &str| {
        headers.get_all(CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value
                    .split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(option))
            })
        })
    };
    says("close") || (version < Version::HTTP_11 && !says("keep-alive"))
}

// ---- faults -------------------------------------------------------------------------------------

/// The table from a failure before or in an answer to its fault. What the wire did goes first;
/// what hyper makes of it is asked by kind, never by its words.
fn fault(error: &hyper::Error, seen: &Seen, is_h2: bool) -> HttpFault {
    if let Some(End::Tls(error)) = &seen.end {
        return tls_fault(error);
    }
    if !is_h2 && let Some(fault) = not_http(&seen.first) {
        return fault;
    }
    if error.is_parse() {
        return HttpFault::Malformed {
            reason: clean(&error.to_string(), MAX_TEXT),
        };
    }
    if let Some(error) = h2_error(error).filter(|e| !e.is_io()) {
        return h2_fault(error);
    }
    match &seen.end {
        Some(end) if end.is_reset() => return HttpFault::Reset,
        Some(end) if end.is_close() => return HttpFault::Closed,
        Some(end) if end.is_timeout() => return HttpFault::Timeout,
        Some(End::Io { text, .. }) => {
            return HttpFault::Other {
                reason: clean(text, MAX_TEXT),
            };
        }
        _ => {}
    }
    if error.is_timeout() {
        HttpFault::Timeout
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        HttpFault::Closed
    } else {
        HttpFault::Other {
            reason: clean(&error.to_string(), MAX_TEXT),
        }
    }
}

/// A server of TLS 1.3 says what it thinks of our certificate (that there is none) only when the
/// handshake is over for us (RFC 8446 section 4.4.2.4).
fn tls_fault(error: &rustls::Error) -> HttpFault {
    let reason = match error {
        rustls::Error::AlertReceived(alert) => {
            let (number, name) = alert_name(*alert);
            let meaning = if number == 116 {
                ": the server wants a client certificate"
            } else {
                ""
            };
            format!("TLS alert {name} ({number}) after the handshake{meaning}")
        }
        other => format!("TLS after the handshake: {other}"),
    };
    HttpFault::Other {
        reason: clean(&reason, MAX_TEXT),
    }
}

/// The first bytes of an answer, when they are not those of HTTP/1.
fn not_http(first: &[u8]) -> Option<HttpFault> {
    let begin = &b"HTTP/"[..first.len().min(5)];
    if first.starts_with(begin) {
        return None;
    }
    let reason = match first {
        [20..=24, 3, ..] => {
            "a TLS record came where HTTP was spoken: the port wants TLS".to_owned()
        }
        _ => format!(
            "what came is not HTTP, it begins with {:?} (hex {})",
            clean(&String::from_utf8_lossy(first), MAX_TEXT),
            hex(first)
        ),
    };
    Some(HttpFault::Malformed { reason })
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = error.source();
    for _ in 0..MAX_SOURCES {
        let error = source?;
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn h2_fault(error: &h2::Error) -> HttpFault {
    let reason = error.reason();
    if error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR) {
        return HttpFault::Closed;
    }
    let code = match reason {
        Some(reason) => format!("{reason:?}"),
        None => clean(&error.to_string(), MAX_TEXT),
    };
    if !error.is_remote() {
        return HttpFault::Malformed {
            reason: format!("HTTP/2 error {code} in what the server sent"),
        };
    }
    let what = if error.is_go_away() {
        "closed the HTTP/2 connection"
    } else {
        "reset the HTTP/2 stream"
    };
    HttpFault::Other {
        reason: format!("the server {what}: {code}"),
    }
}

fn is_refused_stream(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|e| {
        e.is_remote() && e.is_reset() && e.reason() == Some(h2::Reason::REFUSED_STREAM)
    })
}

fn slow(within: Duration, got: u64, want: Option<u64>) -> HttpFault {
    let of = want.map_or_else(String::new, |want| format!(" of {want}"));
    HttpFault::Other {
        reason: format!(
            "the body is too slow: {got}{of} bytes in {} s",
            within.as_secs()
        ),
    }
}

// ---- plumbing -----------------------------------------------------------------------------------

/// Runs hyper's tasks where they end with the connection. Weak, because the tasks hold it too.
#[derive(Clone, Debug)]
struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl Spawner {
    fn spawn<F>(&self, connection: F)
    where
        F: Future<Output = hyper::Result<()>> + Send + 'static,
    {
        hyper::rt::Executor::execute(self, async {
            // Whoever waits for an answer hears of it too; this is for the idle connection.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .spawn(task);
        }
    }
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

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
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

// ---- bounds -------------------------------------------------------------------------------------

/// How we name ourselves (RFC 9110, 10.1.5).
pub const AGENT: &str = concat!("pullpath/", env!("CARGO_PKG_VERSION"));

/// The reading of a body as a whole may take this many times the wait for a part of it: enough for
/// a manifest of some MiB over a slow line, an end for one that comes byte by byte.
pub const WHOLE_BODY: u32 = 4;

/// Opening writes a few bytes and waits for none.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// The head of an answer. Registries send some hundred bytes, signed locations up to 8 KiB.
const HEAD_LIMIT: u32 = 256 << 10;

/// More than any registry behind any number of proxies sends.
const MAX_HEADERS: usize = 256;

/// What a server of HTTP/2 may send before we take it (RFC 9113 section 5.2).
#[derive(Clone, Copy, Debug)]
struct Windows {
    stream: u32,
    connection: u32,
}

/// A layer costs little when only its first bytes are asked for, a manifest of 4 MiB takes 16 round
/// trips.
const SMALL_WINDOWS: Windows = Windows {
    stream: 256 << 10,
    connection: 256 << 10,
};

/// Those of Go's net/http (transportDefaultStreamFlow, transportDefaultConnFlow).
const WIDE_WINDOWS: Windows = Windows {
    stream: 4 << 20,
    connection: 1 << 30,
};

/// Errors that wrap one another.
const MAX_SOURCES: usize = 8;

const MAX_TEXT: usize = 300;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::model::endpoint::Host;
    use crate::net::testing::{self, Ca, LONG, peer};
    use crate::net::tls::TlsClient;

    const SHORT: Duration = Duration::from_millis(300);
    const MAX: Bytes = Bytes(1000);

    fn get(path: &str) -> Request<Buffer> {
        Request::get(format!("http://user:secret@registry.test:5000{path}"))
            .header("X-Own", "kept")
            .body(Buffer::new())
            .unwrap()
    }

    async fn connect(at: SocketAddr, is_h2: bool) -> HttpConnection {
        let stream = TcpStream::connect(at).await.unwrap();
        HttpConnection::open(Stream::Plain(stream), is_h2)
            .await
            .unwrap()
    }

    /// Reads one request's head from a client.
    async fn request_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        Some(String::from_utf8(head).unwrap())
    }

    /// A server that answers each request with the next of `answers`, then does `then`.
    async fn server(answers: &[&[u8]], then: Then) -> SocketAddr {
        let answers: Vec<Vec<u8>> = answers.iter().map(|a| a.to_vec()).collect();
        peer(move |mut stream| async move {
            for answer in answers {
                if request_head(&mut stream).await.is_none() {
                    return;
                }
                stream.write_all(&answer).await.unwrap();
            }
            match then {
                Then::Close => {}
                Then::Reset => {
                    // RST must not overtake the data in the client's queue.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    testing::reset(stream);
                }
                Then::Hang => {
                    let _ = stream.read(&mut [0; 1]).await;
                }
            }
        })
        .await
    }

    #[derive(Clone, Copy)]
    enum Then {
        Close,
        Reset,
        Hang,
    }

    async fn first_fault(answers: &[&[u8]], then: Then) -> HttpFault {
        let mut connection = connect(server(answers, then).await, false).await;
        let fault = connection.send(get("/v2/"), SHORT).await.unwrap_err();
        assert!(!connection.may_reconnect(), "it was the first request");
        assert!(!connection.is_reusable());
        fault
    }

    async fn body(answer: &[&[u8]], then: Then) -> Result<Buffer, HttpFault> {
        let mut connection = connect(server(answer, then).await, false).await;
        let response = connection.send(get("/v2/"), LONG).await.unwrap();
        response.read(MAX, SHORT).await
    }

    #[tokio::test]
    async fn a_request_has_host_agent_and_identity_and_nothing_else_of_ours() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let at = peer(|mut stream| async move {
            tell.send(request_head(&mut stream).await.unwrap()).unwrap();
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
        })
        .await;
        let mut connection = connect(at, false).await;
        let response = connection.send(get("/v2/?a=b"), LONG).await.unwrap();
        assert_eq!(response.status, 204);
        let head = told.await.unwrap();
        let mut lines: Vec<&str> = head.trim_end().lines().collect();
        assert_eq!(lines.remove(0), "GET /v2/?a=b HTTP/1.1");
        lines.sort_unstable();
        let agent = format!("User-Agent: {AGENT}");
        assert_eq!(
            lines,
            [
                "Accept-Encoding: identity",
                "Host: registry.test:5000",
                &agent,
                "X-Own: kept"
            ]
        );
    }

    #[tokio::test]
    async fn a_connection_serves_again_after_a_body_was_read() {
        let answers: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none",
            b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nthree",
        ];
        let mut connection = connect(server(answers, Then::Close).await, false).await;
        for (content, status) in [("one", 200), ("two", 401), ("three", 200)] {
            assert!(connection.is_reusable());
            let response = connection.send(get("/"), LONG).await.unwrap();
            assert_eq!(response.status, status);
            assert_eq!(response.read(MAX, LONG).await.unwrap(), content);
        }
        assert!(!connection.is_reusable(), "the server said close");
    }

    #[tokio::test]
    async fn a_head_has_no_body_whatever_its_length_says() {
        let answers: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ];
        let mut connection = connect(server(answers, Then::Hang).await, false).await;
        let head = Request::head("http://registry.test/")
            .body(Buffer::new())
            .unwrap();
        let response = connection.send(head, LONG).await.unwrap();
        assert_eq!(response.headers["content-length"], "99999");
        assert!(response.read(MAX, SHORT).await.unwrap().is_empty());
        assert!(connection.is_reusable());
        let response = connection.send(get("/"), LONG).await.unwrap();
        assert_eq!(response.read(MAX, LONG).await.unwrap(), "ok");
    }

    #[tokio::test]
    async fn each_end_before_an_answer_has_its_fault() {
        const HALF: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\nContent-"];
        for answers in [&[&b""[..]][..], HALF] {
            assert_eq!(first_fault(answers, Then::Close).await, HttpFault::Closed);
            assert_eq!(first_fault(answers, Then::Reset).await, HttpFault::Reset);
            assert_eq!(first_fault(answers, Then::Hang).await, HttpFault::Timeout);
        }
    }

    #[tokio::test]
    async fn what_is_not_http_is_malformed_and_says_what_came() {
        for (answers, says) in [
            (&[&b"SSH-2.0-OpenSSH_9.2\r\n"[..]], "SSH-2.0-OpenSSH_"),
            (&[&b"\x15\x03\x01\x00\x02\x02\x46"[..]], "TLS record"),
            (&[&b"+OK"[..]], "+OK"),
            (&[&b"HTTP/1.1 2OO OK\r\n\r\n"[..]], "status"),
            (&[&b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"[..]], "header"),
        ] {
            for then in [Then::Close, Then::Hang, Then::Reset] {
                let fault = first_fault(answers, then).await;
                assert!(
                    matches!(&fault, HttpFault::Malformed { reason } if reason.contains(says)),
                    "{says}: {fault:?}"
                );
            }
        }
        // A banner that comes before our request.
        let at = peer(|mut stream| async move {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
        })
        .await;
        let mut connection = connect(at, false).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let fault = connection.send(get("/"), SHORT).await.unwrap_err();
        assert!(
            matches!(&fault, HttpFault::Malformed { reason } if reason.contains("SSH-2.0")),
            "{fault:?}"
        );
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let at = peer(|mut stream| async move {
            request_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
            while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
        })
        .await;
        let mut connection = connect(at, false).await;
        let fault = connection.send(get("/"), LONG).await.unwrap_err();
        assert!(matches!(fault, HttpFault::Malformed { .. }), "{fault:?}");
    }

    #[tokio::test]
    async fn each_end_of_a_body_has_its_fault() {
        const PART: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcd"];
        const CHUNK: &[&[u8]] =
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"];
        const ENDLESS: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\n\r\nabcd"];
        let cut = |want: Option<u64>| HttpFault::Truncated {
            got: Bytes(4),
            want: want.map(Bytes),
        };
        let stalled = HttpFault::Stalled { after: Bytes(4) };
        for (answer, want) in [(PART, Some(10)), (CHUNK, None)] {
            assert_eq!(body(answer, Then::Close).await, Err(cut(want)));
            assert_eq!(body(answer, Then::Reset).await, Err(HttpFault::Reset));
            assert_eq!(body(answer, Then::Hang).await, Err(stalled.clone()));
        }
        assert_eq!(body(ENDLESS, Then::Close).await.unwrap(), "abcd");
        assert_eq!(body(ENDLESS, Then::Hang).await, Err(stalled));
    }

    #[tokio::test]
    async fn a_body_is_bounded_whether_its_length_is_told_or_not() {
        const TOLD: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"];
        const UNTOLD: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 1001]];
        let too_large = Err(HttpFault::TooLarge { limit: MAX });
        assert_eq!(body(TOLD, Then::Hang).await, too_large);
        let at = peer(|mut stream| async move {
            request_head(&mut stream).await;
            for part in UNTOLD {
                stream.write_all(part).await.unwrap();
            }
            let _ = stream.read(&mut [0; 1]).await;
        })
        .await;
        let mut connection = connect(at, false).await;
        let response = connection.send(get("/"), LONG).await.unwrap();
        assert_eq!(response.read(MAX, LONG).await, too_large);
        assert!(!connection.is_reusable());
    }

    #[tokio::test]
    async fn a_slow_body_is_read_as_long_as_it_moves_but_not_for_ever() {
        let dripping = |drops: usize| async move {
            peer(move |mut stream| async move {
                request_head(&mut stream).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {drops}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                for _ in 0..drops {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if stream.write_all(b".").await.is_err() {
                        return;
                    }
                }
            })
            .await
        };
        let mut connection = connect(dripping(6).await, false).await;
        let response = connection.send(get("/"), LONG).await.unwrap();
        assert_eq!(response.read(MAX, SHORT).await.unwrap(), "......");

        let mut connection = connect(dripping(50).await, false).await;
        let response = connection.send(get("/"), LONG).await.unwrap();
        let fault = response.read(MAX, SHORT).await.unwrap_err();
        assert!(
            matches!(&fault, HttpFault::Other { reason } if reason.contains("too slow")),
            "{fault:?}"
        );
    }

    #[tokio::test]
    async fn the_first_bytes_are_enough_and_the_rest_is_not_taken() {
        const LARGE: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabcd"];
        const ALL: &[&[u8]] = &[b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\na"];
        const EMPTY: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"];
        const NONE: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"];
        for (answer, expected, reusable) in [
            (LARGE, Ok(4), false),
            (ALL, Ok(1), true),
            (EMPTY, Ok(0), true),
            (NONE, Err(HttpFault::Stalled { after: Bytes(0) }), false),
        ] {
            let mut connection = connect(server(answer, Then::Hang).await, false).await;
            let response = connection.send(get("/"), LONG).await.unwrap();
            assert_eq!(
                response
                    .read_first(Bytes(1), SHORT)
                    .await
                    .map(|(got, _)| got.0),
                expected
            );
            assert_eq!(connection.is_reusable(), reusable, "{expected:?}");
        }
        let mut connection = connect(server(NONE, Then::Close).await, false).await;
        let response = connection.send(get("/"), LONG).await.unwrap();
        assert_eq!(
            response
                .read_first(Bytes(1), LONG)
                .await
                .map(|(got, _)| got.0),
            Err(HttpFault::Truncated {
                got: Bytes(0),
                want: Some(Bytes(9))
            })
        );
    }

    #[tokio::test]
    async fn an_encoding_not_asked_for_is_not_taken_for_content() {
        const GZIP: &[&[u8]] =
            &[b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"];
        let fault = body(GZIP, Then::Hang).await.unwrap_err();
        assert!(
            matches!(&fault, HttpFault::Other { reason } if reason.contains("gzip")),
            "{fault:?}"
        );
    }

    #[tokio::test]
    async fn a_server_that_hung_up_between_requests_may_be_called_again() {
        const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for (answers, then, may) in [
            (&[OK][..], Then::Close, true),
            (&[OK, b""][..], Then::Close, true),
            (&[OK, b""][..], Then::Reset, true),
            // It had begun to answer, or it may still do.
            (&[OK, b"HTTP/1.1 200"][..], Then::Close, false),
            (&[OK, b""][..], Then::Hang, false),
        ] {
            let mut connection = connect(server(answers, then).await, false).await;
            let first = connection.send(get("/"), LONG).await.unwrap();
            first.read(MAX, LONG).await.unwrap();
            let fault = connection.send(get("/"), SHORT).await.unwrap_err();
            assert_eq!(connection.may_reconnect(), may, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn the_connection_ends_with_its_last_user() {
        for is_h2 in [false, true] {
            let (tell, told) = tokio::sync::oneshot::channel();
            let at = peer(move |mut stream| async move {
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all).await;
                let _ = tell.send(());
            })
            .await;
            let mut connection = connect(at, is_h2).await;
            let _ = connection.send(get("/"), SHORT).await;
            drop(connection);
            timeout(LONG, told).await.unwrap().unwrap();
        }
    }

    /// An HTTP/2 server that gives each request to `answer`, until that is false.
    async fn h2_server<F>(mut answer: F) -> SocketAddr
    where
        F: FnMut(Request<h2::RecvStream>, h2::server::SendResponse<Buffer>) + Send + 'static,
    {
        peer(move |stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                answer(request, respond);
            }
        })
        .await
    }

    fn ok() -> http::response::Builder {
        http::Response::builder().status(200)
    }

    #[tokio::test]
    async fn http2_carries_requests_and_bodies_too() {
        let at = h2_server(|request, mut respond| {
            assert_eq!(request.uri().authority().unwrap(), "registry.test:5000");
            assert_eq!(request.headers()["accept-encoding"], "identity");
            assert!(!request.headers().contains_key(HOST));
            let head = ok().header("content-length", "2").body(()).unwrap();
            let is_head = request.method() == Method::HEAD;
            let mut body = respond.send_response(head, is_head).unwrap();
            if !is_head {
                body.send_data(Buffer::from_static(b"ok"), true).unwrap();
            }
        })
        .await;
        let mut connection = connect(at, true).await;
        for _ in 0..2 {
            let response = connection.send(get("/v2/"), LONG).await.unwrap();
            assert_eq!(response.read(MAX, LONG).await.unwrap(), "ok");
            assert!(connection.is_reusable());
        }
        let head = Request::head("https://registry.test:5000/")
            .body(Buffer::new())
            .unwrap();
        let response = connection.send(head, LONG).await.unwrap();
        assert!(response.read(MAX, LONG).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_http2_stream_that_is_reset_says_with_which_code() {
        for (reason, name, may) in [
            (h2::Reason::INTERNAL_ERROR, "INTERNAL_ERROR", false),
            (h2::Reason::HTTP_1_1_REQUIRED, "HTTP_1_1_REQUIRED", false),
            (h2::Reason::REFUSED_STREAM, "REFUSED_STREAM", true),
        ] {
            let at = h2_server(move |_, mut respond| respond.send_reset(reason)).await;
            let mut connection = connect(at, true).await;
            let fault = connection.send(get("/"), LONG).await.unwrap_err();
            assert!(
                matches!(&fault, HttpFault::Other { reason } if reason.contains(name)),
                "{fault:?}"
            );
            assert_eq!(connection.may_reconnect(), may);
        }
    }

    #[tokio::test]
    async fn an_http2_body_that_stops_short_is_told_apart() {
        // How the server ends: with the stream's end, with a reset, not at all.
        for (end, check) in [
            (
                "end",
                (|f: &HttpFault| {
                    *f == HttpFault::Truncated {
                        got: Bytes(4),
                        want: Some(Bytes(10)),
                    }
                }) as fn(&HttpFault) -> bool,
            ),
            (
                "reset",
                |f| matches!(f, HttpFault::Other { reason } if reason.contains("INTERNAL_ERROR")),
            ),
            ("hang", |f| *f == HttpFault::Stalled { after: Bytes(4) }),
        ] {
            let mut kept = Vec::new();
            let at = h2_server(move |_, mut respond| {
                let head = ok().header("content-length", "10").body(()).unwrap();
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data(Buffer::from_static(b"abcd"), false).unwrap();
                // The reset must not overtake the data.
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    match end {
                        "end" => drop(body.send_data(Buffer::new(), true)),
                        "reset" => body.send_reset(h2::Reason::INTERNAL_ERROR),
                        _ => tokio::time::sleep(LONG).await,
                    }
                });
                kept.push(respond);
            })
            .await;
            let mut connection = connect(at, true).await;
            let response = connection.send(get("/"), LONG).await.unwrap();
            let fault = response.read(MAX, SHORT).await.unwrap_err();
            assert!(check(&fault), "{end}: {fault:?}");
        }
    }

    #[tokio::test]
    async fn an_http2_connection_that_closes_or_goes_away_is_closed() {
        let at = peer(|stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let _first = connection.accept().await;
        })
        .await;
        let mut connection = connect(at, true).await;
        let fault = connection.send(get("/"), LONG).await.unwrap_err();
        assert!(
            matches!(fault, HttpFault::Closed | HttpFault::Reset),
            "{fault:?}"
        );

        let at = peer(|stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            respond.send_response(ok().body(()).unwrap(), true).unwrap();
            connection.graceful_shutdown();
            let _ = connection.accept().await;
        })
        .await;
        let mut connection = connect(at, true).await;
        let response = connection.send(get("/"), LONG).await.unwrap();
        assert!(response.read(MAX, LONG).await.unwrap().is_empty());
        tokio::time::sleep(Duration::from_millis(100)).await;
        let fault = connection.send(get("/"), LONG).await.unwrap_err();
        assert_eq!(fault, HttpFault::Closed);
        assert!(connection.may_reconnect());
    }

    #[tokio::test]
    async fn what_is_not_http2_where_alpn_promised_it_is_malformed() {
        let at = peer(|mut stream| async move {
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let mut connection = connect(at, true).await;
        let fault = connection.send(get("/"), LONG).await.unwrap_err();
        assert!(matches!(fault, HttpFault::Malformed { .. }), "{fault:?}");
    }

    async fn secured(config: rustls::ServerConfig, ca: &Ca) -> Stream {
        let at = peer(|stream| async move {
            let Some(mut stream) = testing::accept(stream, config).await else {
                return;
            };
            request_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        })
        .await;
        let stream = TcpStream::connect(at).await.unwrap();
        let secured = TlsClient::new(ca.roots())
            .handshake(&Host::new("registry.test"), stream, LONG)
            .await;
        Stream::Tls(Box::new(secured.stream.unwrap()))
    }

    #[tokio::test]
    async fn https_works_and_a_wish_for_a_client_certificate_is_told() {
        let ca = Ca::new("Test CA");
        let leaf = ca.leaf(&["registry.test"]);

        let stream = secured(leaf.server(&["http/1.1"]), &ca).await;
        let mut connection = HttpConnection::open(stream, false).await.unwrap();
        let response = connection.send(get("/"), LONG).await.unwrap();
        assert_eq!(response.read(MAX, LONG).await.unwrap(), "ok");

        for is_h2 in [false, true] {
            let stream = secured(leaf.server_for_clients_of(&ca), &ca).await;
            let result = match HttpConnection::open(stream, is_h2).await {
                Ok(mut connection) => connection.send(get("/"), LONG).await.map(|_| ()),
                Err(fault) => Err(fault),
            };
            assert_eq!(
                result,
                Err(HttpFault::Other {
                    reason: "TLS alert certificate_required (116) after the handshake: \
                             the server wants a client certificate"
                        .to_owned()
                }),
                "h2: {is_h2}"
            );
        }
    }

    #[tokio::test]
    async fn a_request_without_host_is_not_sent() {
        let mut connection = connect(server(&[], Then::Hang).await, false).await;
        let request = Request::get("/v2/").body(Buffer::new()).unwrap();
        assert!(connection.send(request, LONG).await.is_err());
    }
}
