//! A web server that records its requests, and can break off at any byte.
//!
//! HTTP/1.1, over TLS or plain. What to answer is a function's business: see
//! [`super::registry`], [`super::token`], [`super::blobs`].

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Time for bytes already given to the connection to leave, before it is broken.
const FLUSH: Duration = Duration::from_millis(100);
/// A handshake that takes longer has a client that went away.
const HANDSHAKE: Duration = Duration::from_secs(10);
const LARGEST_REQUEST_BODY: usize = 1 << 20;

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// Without the query.
    pub path: String,
    pub query: String,
    /// `Host`, or the authority of the URL, as a proxy gets it.
    pub host: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Which connection it came on, counted from 1.
    pub connection: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }

    /// The user and password of `Authorization: Basic` (RFC 7617).
    pub fn basic(&self) -> Option<(String, String)> {
        use base64::Engine as _;
        let encoded = self.authorization()?.strip_prefix("Basic ")?;
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }

    pub fn bearer(&self) -> Option<&str> {
        self.authorization()?.strip_prefix("Bearer ")
    }

    /// All values of a parameter of the query.
    pub fn parameters(&self, name: &str) -> Vec<String> {
        pairs(self.query.as_bytes(), name)
    }

    /// All values of a field of an `application/x-www-form-urlencoded` body.
    pub fn fields(&self, name: &str) -> Vec<String> {
        pairs(&self.body, name)
    }

    /// Whether `Accept` admits a media type; without the header everything is admitted.
    pub fn accepts(&self, media_type: &str) -> bool {
        let mut any = false;
        for value in self.headers.get_all("accept") {
            for one in value.to_str().unwrap_or_default().split(',') {
                let one = one.split(';').next().unwrap_or_default().trim();
                if one == media_type || one == "*/*" {
                    return true;
                }
                any = true;
            }
        }
        !any
    }
}

fn pairs(encoded: &[u8], name: &str) -> Vec<String> {
    url::form_urlencoded::parse(encoded)
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// What happens on the wire when an answer goes out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Flow {
    #[default]
    Whole,
    /// Not even a response head, the connection open.
    Hang,
    /// RST in place of a response head.
    Reset,
    /// FIN in place of a response head.
    Close,
    /// This many bytes of the body, then silence.
    StallAfter(usize),
    /// This many bytes, then FIN. The length promised is that of the whole body.
    TruncateAfter(usize),
    /// This many bytes, then RST.
    ResetAfter(usize),
    /// The body in pieces.
    Drip { piece: usize, every: Duration },
}

/// An answer. `{authorization}` in headers or body stands for the `Authorization` received: some
/// registries repeat it in their error messages.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub flow: Flow,
    pub delay: Duration,
    /// Ends the connection after this answer: `Connection: close`.
    pub close: bool,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status).body("application/json", value.to_string())
    }

    /// What a proxy, a firewall or a captive portal says in place of the registry.
    pub fn html(status: u16) -> Self {
        let page = "<!DOCTYPE html><html><head><title>Blocked</title></head>\
                    <body><h1>This site is blocked by policy</h1></body></html>";
        Self::new(status).body("text/html; charset=utf-8", page)
    }

    /// `application/xml`, as object stores say no.
    pub fn s3_error(status: u16, code: &str, message: &str) -> Self {
        let document = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
             <Message>{message}</Message><RequestId>3J5R0TESTREQUEST</RequestId></Error>"
        );
        Self::new(status).body("application/xml", document)
    }

    pub fn redirect(status: u16, location: &str) -> Self {
        Self::new(status).header("location", location)
    }

    pub fn flow(mut self, flow: Flow) -> Self {
        self.flow = flow;
        self
    }

    pub fn late(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

impl From<Flow> for Reply {
    fn from(flow: Flow) -> Self {
        Self::new(200).flow(flow)
    }
}

/// One answer in place of the right one.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Any method when `None`.
    pub method: Option<Method>,
    /// Part of the path.
    pub path: String,
    /// How many times more; for ever when `None`.
    pub times: Option<usize>,
    /// Also for requests that would be asked for a credential first.
    pub before_auth: bool,
    pub reply: Reply,
}

/// Knobs that every web server has.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// The first that fits counts.
    pub rules: Vec<Rule>,
    /// What `Date` is ahead of the clock.
    pub clock_skew_seconds: i64,
    /// One request a connection.
    pub close_each: bool,
    /// Before each response head.
    pub delay: Duration,
    /// On each answer.
    pub headers: Vec<(String, String)>,
}

impl Manners {
    /// Answers every request whose path holds `path` with this, once it is authorised.
    pub fn fail(&mut self, path: &str, reply: impl Into<Reply>) {
        self.rule(None, path, None, false, reply.into());
    }

    /// The same for one method.
    pub fn fail_method(&mut self, method: Method, path: &str, reply: impl Into<Reply>) {
        self.rule(Some(method), path, None, false, reply.into());
    }

    /// The same without asking for a credential first.
    pub fn fail_early(&mut self, path: &str, reply: impl Into<Reply>) {
        self.rule(None, path, None, true, reply.into());
    }

    /// The first `times` authorised requests fail, the rest go well.
    pub fn fail_times(&mut self, times: usize, path: &str, reply: impl Into<Reply>) {
        self.rule(None, path, Some(times), false, reply.into());
    }

    fn rule(
        &mut self,
        method: Option<Method>,
        path: &str,
        times: Option<usize>,
        before_auth: bool,
        reply: Reply,
    ) {
        self.rules.push(Rule {
            method,
            path: path.to_owned(),
            times,
            before_auth,
            reply,
        });
    }

    /// The rule that answers this request, if there is one.
    pub(super) fn intercept(&mut self, seen: &Seen, authorised: bool) -> Option<Reply> {
        let rule = self.rules.iter_mut().find(|rule| {
            (authorised || rule.before_auth)
                && rule.times != Some(0)
                && rule.method.as_ref().is_none_or(|m| *m == seen.method)
                && seen.path.contains(&rule.path)
        })?;
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        Some(rule.reply.clone())
    }

    /// Adds to an answer what every answer of this server has.
    pub(super) fn finish(&self, mut reply: Reply) -> Reply {
        reply.headers.extend(self.headers.iter().cloned());
        reply.close |= self.close_each;
        reply.delay += self.delay;
        if self.clock_skew_seconds != 0 {
            let date =
                jiff::Timestamp::now() + jiff::SignedDuration::from_secs(self.clock_skew_seconds);
            reply.headers.push(("date".to_owned(), http_date(date)));
        }
        reply
    }
}

/// IMF-fixdate (RFC 9110, 5.6.7).
pub fn http_date(at: jiff::Timestamp) -> String {
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&at)
        .unwrap()
}

type Handler = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

struct Shared {
    handler: Handler,
    tls: Mutex<Option<Arc<ServerConfig>>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    refusals: Mutex<Vec<String>>,
}

/// A running server on a port of its own of 127.0.0.1; it stops when dropped.
pub struct Server {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Server {
    /// Plain http without `tls`. The handler is called once a request, in no particular order.
    pub async fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::on(listener, tls, handler)
    }

    /// The same on a listener that is already there.
    pub fn on(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Arc::new(handler),
            tls: Mutex::new(tls),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            refusals: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { addr, shared, task }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Another certificate, or none at all, from the next connection on.
    pub fn set_tls(&self, tls: Option<Arc<ServerConfig>>) {
        *self.shared.tls.lock().unwrap() = tls;
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests of a method had this in their path.
    pub fn count(&self, method: &Method, path: &str) -> usize {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter()
            .filter(|s| s.method == method && s.path.contains(path))
            .count()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }

    /// TCP connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed so far, in rustls' words.
    pub fn refusals(&self) -> Vec<String> {
        self.shared.refusals.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        connections.spawn(serve(stream, number, shared.clone()));
    }
}

/// A way to break a connection from within one of its answers.
struct Breaker {
    /// A second handle of the socket; the last one closed sends the FIN or RST.
    socket: Mutex<Option<OwnedFd>>,
    signal: Notify,
}

impl Breaker {
    fn new(stream: &TcpStream) -> Self {
        Self {
            socket: Mutex::new(stream.as_fd().try_clone_to_owned().ok()),
            signal: Notify::new(),
        }
    }

    fn pull(&self, reset: bool) {
        if let Some(socket) = self.socket.lock().unwrap().take()
            && reset
        {
            // With no time to linger, close(2) sends RST (socket(7)).
            SockRef::from(&socket)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        self.signal.notify_one();
    }

    fn release(&self) {
        self.socket.lock().unwrap().take();
    }
}

async fn serve(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let breaker = Arc::new(Breaker::new(&stream));
    let tls = shared.tls.lock().unwrap().clone();
    match tls {
        None => talk(stream, number, &shared, &breaker).await,
        Some(config) => {
            let handshake = TlsAcceptor::from(config).accept(stream);
            match tokio::time::timeout(HANDSHAKE, handshake).await {
                Ok(Ok(stream)) => talk(stream, number, &shared, &breaker).await,
                Ok(Err(error)) => shared.refusals.lock().unwrap().push(error.to_string()),
                Err(_) => shared.refusals.lock().unwrap().push("timeout".to_owned()),
            }
        }
    }
    breaker.release();
}

async fn talk<S>(stream: S, number: usize, shared: &Arc<Shared>, breaker: &Arc<Breaker>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = {
        let (shared, breaker) = (shared.clone(), breaker.clone());
        service_fn(move |request| answer(request, number, shared.clone(), breaker.clone()))
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        () = breaker.signal.notified() => {}
    }
}

type Answer = Response<Either<Full<Bytes>, Fed>>;

async fn answer(
    request: Request<Incoming>,
    connection: usize,
    shared: Arc<Shared>,
    breaker: Arc<Breaker>,
) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, LARGEST_REQUEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let host = head.uri.authority().map_or_else(
        || {
            let host = head.headers.get("host").and_then(|h| h.to_str().ok());
            host.unwrap_or_default().to_owned()
        },
        ToString::to_string,
    );
    let seen = Seen {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        host,
        headers: head.headers,
        body,
        connection,
    };
    shared.seen.lock().unwrap().push(seen.clone());
    let reply = echoed((shared.handler)(&seen), &seen);
    tokio::time::sleep(reply.delay).await;
    Ok(respond(reply, &seen, breaker).await)
}

async fn respond(reply: Reply, seen: &Seen, breaker: Arc<Breaker>) -> Answer {
    if matches!(reply.flow, Flow::Reset | Flow::Close) {
        breaker.pull(reply.flow == Flow::Reset);
    }
    if matches!(reply.flow, Flow::Hang | Flow::Reset | Flow::Close) {
        std::future::pending::<()>().await;
    }
    // RFC 9110, 8.6: HEAD states the length that GET would have; 204 and 304 have none.
    let length = reply.body.len();
    let body = if seen.method == Method::HEAD || length == 0 {
        Either::Left(Full::default())
    } else if reply.flow == Flow::Whole {
        Either::Left(Full::new(reply.body))
    } else {
        let (feed, body) = mpsc::channel(1);
        tokio::spawn(pour(reply.body, reply.flow, feed, breaker.clone()));
        Either::Right(Fed(body))
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap();
    let headers = response.headers_mut();
    for (name, value) in &reply.headers {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    if !matches!(reply.status, 204 | 304) && !headers.contains_key("content-length") {
        headers.insert("content-length", HeaderValue::from(length));
    }
    if reply.close {
        headers.insert("connection", HeaderValue::from_static("close"));
    }
    response
}

/// Puts the `Authorization` received where a reply asks for it.
fn echoed(mut reply: Reply, seen: &Seen) -> Reply {
    const PLACE: &str = "{authorization}";
    let received = seen.authorization().unwrap_or_default();
    for (_, value) in &mut reply.headers {
        *value = value.replace(PLACE, received);
    }
    if let Ok(text) = std::str::from_utf8(&reply.body)
        && text.contains(PLACE)
    {
        reply.body = text.replace(PLACE, received).into();
    }
    reply
}

/// Gives a body to the connection as the flow wants it.
async fn pour(body: Bytes, flow: Flow, feed: mpsc::Sender<Bytes>, breaker: Arc<Breaker>) {
    let some = |n: usize| body.slice(..n.min(body.len()));
    match flow {
        Flow::StallAfter(n) => {
            let _ = feed.send(some(n)).await;
            feed.closed().await;
        }
        Flow::TruncateAfter(n) | Flow::ResetAfter(n) => {
            let _ = feed.send(some(n)).await;
            tokio::time::sleep(FLUSH).await;
            breaker.pull(matches!(flow, Flow::ResetAfter(_)));
            feed.closed().await;
        }
        Flow::Drip { piece, every } => {
            let mut rest = body;
            while !rest.is_empty() {
                let next = rest.split_to(piece.clamp(1, rest.len()));
                if feed.send(next).await.is_err() {
                    return;
                }
                tokio::time::sleep(every).await;
            }
        }
        Flow::Whole | Flow::Hang | Flow::Reset | Flow::Close => {
            let _ = feed.send(body).await;
        }
    }
}

/// A body that comes as it is fed.
struct Fed(mpsc::Receiver<Bytes>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let fed = self.get_mut().0.poll_recv(context);
        fed.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
