//! One HTTP exchange at a time over an open connection: no redirect, no retry, no pool. The caller decides how to
//! handle a response or a fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes as Buffer;
use bytes::BytesMut;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, PROXY_AUTHORIZATION, RANGE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::recorded_stream::{End, Recorded, RecordedStream, Recording};
use super::stream::Stream;
use super::tls::alert_name;
use crate::model::fault::HttpFault;
use crate::model::text::{hex, printable};
use crate::model::units::Bytes;
use crate::own;

/// A connection for requests, one after the other.
#[derive(Debug)]
pub struct HttpConnection {
    sender: http1::SendRequest<Full<Buffer>>,
    record: Recording,
    shared: Arc<Shared>,
    requests: usize,
    may_reconnect: bool,
    /// The peer is a proxy for plain http: requests have the full URL of their server.
    proxied: Option<ForProxy>,
}

/// What a request to a proxy has in addition (RFC 9112, 3.2.2; RFC 9110, 11.7.2).
#[derive(Clone, Debug)]
pub struct ForProxy {
    /// `Proxy-Authorization`, marked as sensitive; `None` if the proxy has no credentials.
    pub authorization: Option<HeaderValue>,
}

/// State that a connection and its responses share.
#[derive(Debug)]
struct Shared {
    /// hyper's side of the connection; stopped with the last user.
    _task: AbortOnDropHandle<()>,
    /// The connection must not be used for another request.
    spoiled: AtomicBool,
}

impl HttpConnection {
    /// Starts HTTP/1.1, the only version that containerd's client uses: its transport has a dialer of its own, and Go
    /// then does not offer HTTP/2.
    ///
    /// # Errors
    /// If hyper can't set up the connection.
    pub async fn open(stream: Stream) -> Result<Self, HttpFault> {
        let (watched, record) = RecordedStream::new(stream);
        let opened = http1::Builder::new()
            // The case that Go writes, for middleboxes that depend on it.
            .title_case_headers(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(HEAD_LIMIT)
            .handshake(TokioIo::new(watched))
            .await;
        let (sender, connection) = opened.map_err(|error| fault(&error, &record.recorded()))?;
        let task = tokio::spawn(async {
            // The sender of a request gets its error too; this is for an idle connection.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(Self {
            sender,
            record,
            shared: Arc::new(Shared {
                _task: AbortOnDropHandle::new(task),
                spoiled: AtomicBool::new(false),
            }),
            requests: 0,
            may_reconnect: false,
            proxied: None,
        })
    }

    /// The same connection, to a proxy that forwards plain http requests.
    #[must_use]
    pub fn by_proxy(self, proxied: Option<ForProxy>) -> Self {
        Self { proxied, ..self }
    }

    /// Sends `request`, whose URI is absolute, and waits at most `limit` for the head of the response. Sets Host, and
    /// User-Agent and Accept-Encoding (identity) if they are missing.
    ///
    /// # Errors
    /// If the request can't be sent, the connection ends, the response is not HTTP/1, or `limit` passes.
    pub async fn send(
        &mut self,
        request: Request<Buffer>,
        limit: Duration,
    ) -> Result<Response, HttpFault> {
        let is_head = request.method() == Method::HEAD;
        let request = prepare(request, self.proxied.as_ref())?;
        let reused = self.requests > 0;
        if reused {
            // Before the first request, bytes that arrived unrequested count: they show which protocol the peer speaks.
            self.record.restart();
        }
        self.requests += 1;
        self.may_reconnect = false;
        let started = Instant::now();
        let exchange = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let answered = own::within(limit, exchange).await;
        let first_byte = started.elapsed();
        let fault = match answered {
            Ok(Ok(answer)) => return Ok(self.response(answer, first_byte, is_head)),
            Ok(Err(error)) => {
                let recorded = self.record.recorded();
                let fault = fault(&error, &recorded);
                self.may_reconnect = reused
                    && recorded.received == 0
                    && matches!(fault, HttpFault::Closed | HttpFault::Reset);
                fault
            }
            Err(elapsed) => not_http(&self.record.recorded().first)
                .unwrap_or_else(|| elapsed.or(HttpFault::Timeout)),
        };
        self.shared.spoil();
        Err(fault)
    }

    fn response(
        &self,
        answer: http::Response<Incoming>,
        first_byte: Duration,
        is_head: bool,
    ) -> Response {
        let (head, body) = answer.into_parts();
        if closes(head.version, &head.headers) {
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
                spoils: !complete,
            },
        }
    }

    /// Whether another request can be sent, as far as this side knows.
    pub fn is_reusable(&self) -> bool {
        !self.sender.is_closed() && !self.shared.spoiled.load(Ordering::Relaxed)
    }

    /// Whether the last request failed without a byte of a response on a connection that had served before: the server
    /// had closed it. Go's transport then connects again, and the caller may do so too, once.
    pub fn may_reconnect(&self) -> bool {
        self.may_reconnect
    }
}

/// The head of a response; the body has not been read.
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// May contain secrets: a signed `Location`, a token.
    pub headers: HeaderMap,
    /// From sending the request to receiving the head of the response.
    pub first_byte: Duration,
    is_head: bool,
    body: Incoming,
    record: Recording,
    end: BodyEnd,
}

impl Response {
    /// Reads the whole body. `limit` bounds every wait for more data, and [`WHOLE_BODY`] times `limit` the whole read.
    ///
    /// # Errors
    /// If the body is larger than `max`, incomplete, encoded, or slower than the bounds.
    pub async fn read(&mut self, max: Bytes, limit: Duration) -> Result<Buffer, HttpFault> {
        if self.is_head {
            return Ok(Buffer::new());
        }
        if let Some(encoding) = self.headers.get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            let encoding = printable(&String::from_utf8_lossy(encoding.as_bytes()));
            return Err(HttpFault::Other {
                reason: format!(
                    "the response has content encoding {encoding:?}, which was not requested and can't be decoded"
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
            let left = deadline.saturating_duration_since(Instant::now());
            let next = own::within(left, self.next(got, limit)).await;
            let slow = || slow(limit * WHOLE_BODY, got, want);
            match next.unwrap_or_else(|elapsed| Err(elapsed.or(slow())))? {
                None => return Ok(content.freeze()),
                Some(data) if got + data.len() as u64 > max.0 => {
                    return Err(HttpFault::TooLarge { limit: max });
                }
                Some(data) => content.extend_from_slice(&data),
            }
        }
    }

    /// Reads the first `want` bytes of the body, or all of a shorter one, and drops the rest, which closes the
    /// connection. `limit` bounds every wait; after twice `limit`, the bytes received so far are enough: slow is not
    /// stalled. Returns the number of bytes, and when the first of them arrived.
    ///
    /// # Errors
    /// If the connection ends early, or a wait exceeds `limit`.
    pub async fn read_first(
        mut self,
        want: Bytes,
        limit: Duration,
    ) -> Result<(Bytes, Instant), HttpFault> {
        let mut got = 0;
        let mut first = None;
        let deadline = Instant::now() + limit * 2;
        while !self.is_head && got < want.0 && (got == 0 || Instant::now() <= deadline) {
            let Some(data) = self.next(got, limit).await? else {
                break;
            };
            first.get_or_insert_with(Instant::now);
            got += data.len() as u64;
            if self.body.is_end_stream() {
                break;
            }
        }
        Ok((Bytes(got), first.unwrap_or_else(Instant::now)))
    }

    /// The next bytes of the body, as they arrive; `None` at its end. `got` is the number of bytes before.
    ///
    /// # Errors
    /// If the connection ends early, or nothing arrives within `limit`.
    pub async fn next(&mut self, got: u64, limit: Duration) -> Result<Option<Buffer>, HttpFault> {
        match own::within(limit, self.chunk()).await {
            Err(elapsed) => Err(elapsed.or(HttpFault::Stalled { after: Bytes(got) })),
            Ok(None) => {
                self.end.spoils = false;
                Ok(None)
            }
            Ok(Some(Ok(data))) => {
                // Nothing is left to read: the connection can be used again.
                self.end.spoils &= !self.body.is_end_stream();
                Ok(Some(data))
            }
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
                // Trailers and empty frames are no progress; the caller's deadline applies.
                Ok(frame) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Some(Ok(data)),
                    _ => {}
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn body_fault(&self, error: &hyper::Error, got: u64, want: Option<u64>) -> HttpFault {
        match fault(error, &self.record.recorded()) {
            HttpFault::Closed => HttpFault::Truncated {
                got: Bytes(got),
                want: want.map(Bytes),
            },
            fault => fault,
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may contain secrets.
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("first_byte", &self.first_byte)
            .finish_non_exhaustive()
    }
}

/// Decides, when a body is dropped, whether its connection can be used again.
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
    proxied: Option<&ForProxy>,
) -> Result<Request<Full<Buffer>>, HttpFault> {
    let (mut head, body) = request.into_parts();
    let authority = head
        .uri
        .authority()
        .ok_or_else(|| other("the request's URL has no host"))?;
    // Never userinfo (RFC 9110 section 7.2).
    let host = match authority.port() {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    };
    let path = head
        .uri
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    let value = HeaderValue::try_from(host.as_str())
        .map_err(|_| other("the host is not a valid header value"))?;
    head.headers.insert(HOST, value);
    let uri = Uri::builder().path_and_query(path);
    let uri = match proxied {
        Some(proxy) => {
            if let Some(value) = &proxy.authorization {
                head.headers.insert(PROXY_AUTHORIZATION, value.clone());
            }
            uri.scheme("http").authority(host)
        }
        None => uri,
    };
    head.uri = uri
        .build()
        .map_err(|_| other("the request's URL can't be sent"))?;
    head.version = Version::HTTP_11;
    head.headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(AGENT));
    // Go sets an encoding if a body may follow, but not for HEAD or a range.
    if head.method != Method::HEAD && !head.headers.contains_key(RANGE) {
        head.headers
            .entry(ACCEPT_ENCODING)
            .or_insert(HeaderValue::from_static("identity"));
    }
    Ok(Request::from_parts(head, Full::new(body)))
}

/// Whether the server closes the HTTP/1 connection after this response (RFC 9112 section 9.3).
fn closes(version: Version, headers: &HeaderMap) -> bool {
    let has = |option: &str| {
        headers.get_all(CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value
                    .split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(option))
            })
        })
    };
    has("close") || (version < Version::HTTP_11 && !has("keep-alive"))
}

// ---- faults -------------------------------------------------------------------------------------

/// Maps a failure before or during a response to its fault. What happened on the wire decides first; hyper's error is
/// classified by its kind, never by its text.
fn fault(error: &hyper::Error, recorded: &Recorded) -> HttpFault {
    if let Some(End::Tls(error)) = &recorded.end {
        return tls_fault(error);
    }
    if let Some(fault) = not_http(&recorded.first) {
        return fault;
    }
    if error.is_parse() {
        return HttpFault::Malformed {
            reason: printable(&error.to_string()),
        };
    }
    match &recorded.end {
        Some(End::Reset) => return HttpFault::Reset,
        Some(End::Close) => return HttpFault::Closed,
        Some(End::Timeout) => return HttpFault::Timeout,
        Some(End::OwnLimit(limit)) => return HttpFault::from(*limit),
        Some(End::Io(text)) => return other(text),
        _ => {}
    }
    if error.is_timeout() {
        HttpFault::Timeout
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        HttpFault::Closed
    } else {
        other(&error.to_string())
    }
}

/// The same without a record of the bytes, from the underlying error.
pub(super) fn unwatched_fault(error: &hyper::Error, below: Option<&io::Error>) -> HttpFault {
    let recorded = Recorded {
        end: below.map(End::of),
        ..Recorded::default()
    };
    fault(error, &recorded)
}

fn other(reason: &str) -> HttpFault {
    HttpFault::Other {
        reason: printable(reason),
    }
}

/// With TLS 1.3, a server rejects our certificate (or that there is none) only after the handshake is complete for us
/// (RFC 8446 section 4.4.2.4).
fn tls_fault(error: &rustls::Error) -> HttpFault {
    if let rustls::Error::AlertReceived(alert) = error {
        let (alert, name) = alert_name(*alert);
        return HttpFault::TlsAlert { alert, name };
    }
    other(&format!("TLS after the handshake: {error}"))
}

/// The fault if the first bytes of a response are not those of HTTP/1.
fn not_http(first: &[u8]) -> Option<HttpFault> {
    let begin = &b"HTTP/"[..first.len().min(5)];
    if first.starts_with(begin) {
        return None;
    }
    let reason = match first {
        [20..=24, 3, ..] => "a TLS record arrived instead of HTTP: the port expects TLS".to_owned(),
        _ => format!(
            "the response is not HTTP; it begins with {:?} (hex {})",
            printable(&String::from_utf8_lossy(first)),
            hex(first)
        ),
    };
    Some(HttpFault::Malformed { reason })
}

pub(crate) fn slow(within: Duration, got: u64, want: Option<u64>) -> HttpFault {
    HttpFault::TooSlow {
        within_seconds: within.as_secs(),
        got: Bytes(got),
        want: want.map(Bytes),
    }
}

// ---- bounds -------------------------------------------------------------------------------------

/// Our User-Agent (RFC 9110, 10.1.5).
pub const AGENT: &str = concat!("pullpath/", env!("CARGO_PKG_VERSION"));

/// Reading a whole body may take this many times the wait for a part of it: enough for a manifest of several MiB over a
/// slow line, and a bound for one that arrives byte by byte.
pub const WHOLE_BODY: u32 = 4;

/// Bytes of a response's head. Registries send some hundred bytes, signed locations up to 8 KiB.
const HEAD_LIMIT: usize = 256 << 10;

/// Fields of a response's head: more than any registry behind any number of proxies sends.
const MAX_HEADERS: usize = 256;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use tokio::time::timeout;

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

    async fn connect(at: SocketAddr) -> HttpConnection {
        let stream = TcpStream::connect(at).await.unwrap();
        HttpConnection::open(Stream::from(stream)).await.unwrap()
    }

    /// Reads one request's head from a client.
    async fn request_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        Some(String::from_utf8(head).unwrap())
    }

    /// A server that answers each request with the next of `answers`, and finally does `then`.
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
        let mut connection = connect(server(answers, then).await).await;
        let fault = connection.send(get("/v2/"), SHORT).await.unwrap_err();
        assert!(!connection.may_reconnect(), "it was the first request");
        assert!(!connection.is_reusable());
        fault
    }

    async fn body(answer: &[&[u8]], then: Then) -> Result<Buffer, HttpFault> {
        let mut connection = connect(server(answer, then).await).await;
        let mut response = connection.send(get("/v2/"), LONG).await.unwrap();
        response.read(MAX, SHORT).await
    }

    #[tokio::test]
    async fn a_request_has_host_agent_and_identity_and_nothing_else_of_ours() {
        let (sender, received) = tokio::sync::oneshot::channel();
        let at = peer(|mut stream| async move {
            sender
                .send(request_head(&mut stream).await.unwrap())
                .unwrap();
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
        })
        .await;
        let mut connection = connect(at).await;
        let response = connection.send(get("/v2/?a=b"), LONG).await.unwrap();
        assert_eq!(response.status, 204);
        let head = received.await.unwrap();
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
        let mut connection = connect(server(answers, Then::Close).await).await;
        for (content, status) in [("one", 200), ("two", 401), ("three", 200)] {
            assert!(connection.is_reusable());
            let mut response = connection.send(get("/"), LONG).await.unwrap();
            assert_eq!(response.status, status);
            assert_eq!(response.read(MAX, LONG).await.unwrap(), content);
        }
        assert!(!connection.is_reusable(), "the server sent close");
    }

    #[tokio::test]
    async fn a_head_has_no_body_whatever_its_length_says() {
        let answers: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ];
        let mut connection = connect(server(answers, Then::Hang).await).await;
        let head = Request::head("http://registry.test/")
            .body(Buffer::new())
            .unwrap();
        let mut response = connection.send(head, LONG).await.unwrap();
        assert_eq!(response.headers["content-length"], "99999");
        assert!(response.read(MAX, SHORT).await.unwrap().is_empty());
        assert!(connection.is_reusable());
        let mut response = connection.send(get("/"), LONG).await.unwrap();
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
        // A banner before the client's request.
        let at = peer(|mut stream| async move {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
        })
        .await;
        let mut connection = connect(at).await;
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
        let mut connection = connect(at).await;
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
    async fn a_body_is_bounded_with_and_without_a_length() {
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
        let mut connection = connect(at).await;
        let mut response = connection.send(get("/"), LONG).await.unwrap();
        assert_eq!(response.read(MAX, LONG).await, too_large);
        drop(response);
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
        let mut connection = connect(dripping(6).await).await;
        let mut response = connection.send(get("/"), LONG).await.unwrap();
        assert_eq!(response.read(MAX, SHORT).await.unwrap(), "......");

        let mut connection = connect(dripping(50).await).await;
        let mut response = connection.send(get("/"), LONG).await.unwrap();
        let fault = response.read(MAX, SHORT).await.unwrap_err();
        assert!(
            matches!(&fault, HttpFault::TooSlow { got, want: Some(Bytes(50)), .. } if got.0 < 50),
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
            let mut connection = connect(server(answer, Then::Hang).await).await;
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
        let mut connection = connect(server(NONE, Then::Close).await).await;
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
            // The server had started to answer, or may still do so.
            (&[OK, b"HTTP/1.1 200"][..], Then::Close, false),
            (&[OK, b""][..], Then::Hang, false),
        ] {
            let mut connection = connect(server(answers, then).await).await;
            let mut first = connection.send(get("/"), LONG).await.unwrap();
            first.read(MAX, LONG).await.unwrap();
            let fault = connection.send(get("/"), SHORT).await.unwrap_err();
            assert_eq!(connection.may_reconnect(), may, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn the_connection_ends_with_its_last_user() {
        let (sender, received) = tokio::sync::oneshot::channel();
        let at = peer(move |mut stream| async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = sender.send(());
        })
        .await;
        let mut connection = connect(at).await;
        let _ = connection.send(get("/"), SHORT).await;
        drop(connection);
        timeout(LONG, received).await.unwrap().unwrap();
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
        let secured = TlsClient::new(ca.roots(), &testing::builds())
            .handshake(&Host::new("registry.test"), stream, LONG)
            .await;
        Box::new(secured.stream.unwrap())
    }

    #[tokio::test]
    async fn https_works_and_a_request_for_a_client_certificate_is_reported() {
        let ca = Ca::new("Test CA");
        let leaf = ca.leaf(&["registry.test"]);

        let stream = secured(leaf.server(&["http/1.1"]), &ca).await;
        let mut connection = HttpConnection::open(stream).await.unwrap();
        let mut response = connection.send(get("/"), LONG).await.unwrap();
        assert_eq!(response.read(MAX, LONG).await.unwrap(), "ok");

        let stream = secured(leaf.server_for_clients_of(&ca), &ca).await;
        let mut connection = HttpConnection::open(stream).await.unwrap();
        assert_eq!(
            connection.send(get("/"), LONG).await.map(|_| ()),
            Err(HttpFault::TlsAlert {
                alert: 116,
                name: "certificate_required".to_owned(),
            }),
        );
    }

    #[tokio::test]
    async fn a_request_without_host_is_not_sent() {
        let mut connection = connect(server(&[], Then::Hang).await).await;
        let request = Request::get("/v2/").body(Buffer::new()).unwrap();
        assert!(connection.send(request, LONG).await.is_err());
    }
}
