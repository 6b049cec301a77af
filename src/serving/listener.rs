//! An HTTP listener within the bounds of [`super::bounds`]: it accepts connections, serves them, and closes those that
//! have had their time or whose place another one gets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bounds::{
    self, Admission, BATCH, CLOSING, Connection, ConnectionLimits, HEAD_BYTES, IDLE, Kind, Limits,
    Overdue, Peer, SPARE_FILES, connection_limits,
};
use super::http::{LocalAddress, plain};
use super::metrics::{Family, Page};
use crate::net::{kernel, machine};
use crate::own;

/// How often the times of connections are checked.
const LOOK: Duration = Duration::from_secs(1);

/// The pause of a listener that finds no file for a new connection.
const NO_FILES: Duration = Duration::from_millis(50);

/// After so much work, memory that is free again goes back to the system, at most once in [`TRIM_EVERY`] looks.
const TRIM_BYTES: u64 = 4 << 20;
const TRIM_CONNECTIONS: u64 = 64;
const TRIM_EVERY: u64 = 10;

/// The same without such work, for that of checks and of the start.
const TRIM_ANYWAY: u64 = 20;

/// Threads that write answers: as many as there are such answers at the same time (`Newest` and `alone`), so that none
/// waits for another.
const WRITERS: usize = 6;

/// At most one line of the log about connections that were limited in so many looks.
const LOG_EVERY: u64 = 60;

/// Why a connection was closed or a request refused.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Limited {
    Evicted,
    NoFiles,
    Refused,
    SlowReader,
    SlowRequest,
}

impl Limited {
    const ALL: [Self; 5] = [
        Self::Evicted,
        Self::NoFiles,
        Self::Refused,
        Self::SlowReader,
        Self::SlowRequest,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::NoFiles => "no_files",
            Self::Refused => "refused",
            Self::SlowReader => "slow_reader",
            Self::SlowRequest => "slow_request",
        }
    }
}

/// The connections of one listener.
#[derive(Debug)]
pub struct Connections {
    name: &'static str,
    limits: Limits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    connections: BTreeMap<u64, (Connection, Option<AbortHandle>)>,
    accepted: u64,
    written: u64,
    limited: BTreeMap<Limited, u64>,
}

/// The listeners of a process.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// `listen`.
    pub public: Arc<Connections>,
    /// `admin_listen`; the cluster role has none.
    pub admin: Arc<Connections>,
}

impl Listeners {
    /// Listeners with their share of the files that this process may open.
    pub fn of_process() -> Self {
        Self::new(&connection_limits(own::open_files()))
    }

    fn new(limits: &ConnectionLimits) -> Self {
        Self {
            public: Arc::new(Connections::new("public", limits.public)),
            admin: Arc::new(Connections::new("admin", limits.admin)),
        }
    }
}

/// Adds the metrics of listeners: of their open connections, and of those that were limited.
pub fn add_metrics<const N: usize>(
    page: &mut Page<'_>,
    connections: &Family,
    limited: &Family,
    of: [&Connections; N],
) {
    let open = of.map(|one| ([one.name], one.open().connections.len()));
    page.add(connections, open);
    let counts = of.into_iter().flat_map(|one| {
        let counts = one.open().limited.clone();
        Limited::ALL.map(|why| {
            let count = counts.get(&why).copied().unwrap_or_default();
            ([one.name, why.as_str()], count)
        })
    });
    page.add(limited, counts);
}

impl Connections {
    fn new(name: &'static str, limits: Limits) -> Self {
        Self {
            name,
            limits,
            open: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection that was accepted; another one that waits may go for it.
    fn accept(self: &Arc<Self>, peer: Peer) -> Slot {
        let now = Instant::now();
        let mut open = self.open();
        let id = open.accepted;
        open.accepted += 1;
        open.make_room(&self.limits, peer, Kind::Waiting);
        open.connections
            .insert(id, (Connection::new(peer, now), None));
        Slot {
            of: Arc::clone(self),
            id,
            peer,
        }
    }

    /// Closes connections that have had their time.
    fn look(&self) {
        let now = Instant::now();
        let mut open = self.open();
        let overdue = open.connections.iter();
        let overdue: Vec<(u64, Overdue)> = overdue
            .filter_map(|(id, (one, _))| Some((*id, one.overdue(now)?)))
            .collect();
        for (id, why) in overdue {
            let why = match why {
                Overdue::SlowRequest => Some(Limited::SlowRequest),
                Overdue::SlowReader => Some(Limited::SlowReader),
                Overdue::Idle => None,
            };
            open.close(id, why);
        }
    }

    /// Counts a connection for which there is no file, and closes the oldest that waits.
    fn has_no_file(&self) {
        let mut open = self.open();
        *open.limited.entry(Limited::NoFiles).or_default() += 1;
        let waiting = open.connections.iter();
        let waiting = waiting.filter(|(_, (one, _))| one.kind == Kind::Waiting);
        let oldest = waiting.min_by_key(|(_, (one, _))| one.since);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            open.close(id, None);
        }
    }
}

impl Open {
    /// Frees a place if none is; `false`: there is none.
    fn make_room(&mut self, limits: &Limits, peer: Peer, kind: Kind) -> bool {
        let all = self.connections.iter();
        let admission = bounds::admit(limits, all.map(|(id, (one, _))| (*id, one)), peer, kind);
        match admission {
            Admission::Free => true,
            Admission::InsteadOf(id) => {
                self.close(id, Some(Limited::Evicted));
                true
            }
            Admission::Refused => {
                *self.limited.entry(Limited::Refused).or_default() += 1;
                false
            }
        }
    }

    fn close(&mut self, id: u64, why: Option<Limited>) {
        if let Some((one, Some(task))) = self.connections.remove(&id) {
            self.written += one.written;
            task.abort();
        }
        if let Some(why) = why {
            *self.limited.entry(why).or_default() += 1;
        }
    }
}

/// The place of a connection, given up when this is dropped.
#[derive(Debug)]
struct Slot {
    of: Arc<Connections>,
    id: u64,
    peer: Peer,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.of.open();
        if let Some((one, _)) = open.connections.remove(&self.id) {
            open.written += one.written;
        }
    }
}

impl Slot {
    fn with(&self, change: impl FnOnce(&mut Connection, Instant)) {
        if let Some((one, _)) = self.of.open().connections.get_mut(&self.id) {
            change(one, Instant::now());
        }
    }

    /// The task to end when the connection has to go.
    fn is_served_by(&self, task: AbortHandle) {
        match self.of.open().connections.get_mut(&self.id) {
            Some((_, known)) => *known = Some(task),
            None => task.abort(),
        }
    }

    /// A request has arrived; `false`: it gets no place, and is refused.
    fn is_asked(&self, kind: Kind, has_body: bool) -> bool {
        let mut open = self.of.open();
        let Some(peer) = open.connections.get(&self.id).map(|(one, _)| one.peer) else {
            return false;
        };
        if !open.make_room(&self.of.limits, peer, kind) {
            return false;
        }
        if let Some((one, _)) = open.connections.get_mut(&self.id) {
            one.is_asked(kind, has_body, Instant::now());
        }
        true
    }

    /// All that was made is with the kernel. After an answer, the connection waits for the next request.
    fn is_flushed(&self) {
        let open = self.of.open();
        let one = open.connections.get(&self.id);
        if one.is_some_and(|(one, _)| one.is_made) {
            drop(open);
            self.waits(IDLE);
        }
    }

    /// The connection waits for this time.
    fn waits(&self, time: Duration) {
        let mut open = self.of.open();
        let Some((one, _)) = open.connections.get(&self.id) else {
            return;
        };
        let (peer, was_waiting, written) = (one.peer, one.kind == Kind::Waiting, one.written);
        if !was_waiting {
            open.written += written;
            open.make_room(&self.of.limits, peer, Kind::Waiting);
        }
        if let Some((one, _)) = open.connections.get_mut(&self.id) {
            one.waits(time, Instant::now());
            one.written = 0;
        }
    }
}

// ---- one connection -----------------------------------------------------------------------------

/// A connection whose progress is noted. It is reset when it is dropped, unless the client has closed it: what the
/// kernel has not sent would stay in its memory.
struct Stream {
    of: TcpStream,
    slot: Arc<Slot>,
    is_closed: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.is_closed {
            let _ = self.of.set_zero_linger();
        }
    }
}

impl Stream {
    /// Notes what was written; nothing if the client has to read first.
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let count = match &written {
            Poll::Ready(Ok(count)) => *count,
            _ => 0,
        };
        self.slot.with(|one, now| one.has_written(count, now));
        written
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.of).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.slot.with(Connection::has_read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.of).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.of).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.of.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.slot.is_flushed();
        Pin::new(&mut self.of).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.of).poll_shutdown(cx)
    }
}

/// Serves the requests of a connection until it is closed.
async fn serve_one(stream: TcpStream, slot: Arc<Slot>, router: Router, stop: CancellationToken) {
    let mut stream = Stream {
        of: stream,
        slot: Arc::clone(&slot),
        is_closed: false,
    };
    // A connection that sends nothing has no buffers.
    tokio::select! {
        _ = stream.of.readable() => {}
        () = stop.cancelled() => {
            stream.is_closed = true;
            return;
        }
    }
    let service = Answers {
        router: TowerToHyperService::new(router),
        slot: Arc::clone(&slot),
        at: LocalAddress(stream.of.local_addr().ok().map(|at| at.ip().to_canonical())),
    };
    let mut connection = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut stopped = pin!(stop.cancelled());
    let mut is_stopping = false;
    let _ = poll_fn(|cx| {
        if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    let mut stream = connection.into_parts().io.into_inner();
    if is_stopping {
        stream.is_closed = true;
        return;
    }
    slot.waits(CLOSING);
    stream.is_closed = is_read_to_the_end(&mut stream.of).await;
}

/// Ends the answer, and waits until the client closes its side: until then it may not have read everything.
async fn is_read_to_the_end(stream: &mut TcpStream) -> bool {
    if stream.shutdown().await.is_err() {
        return false;
    }
    let mut unwanted = [0; 512];
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        match stream.try_read(&mut unwanted) {
            Ok(0) => return true,
            Ok(_) => yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}

/// The router, for requests that get a place.
struct Answers {
    router: TowerToHyperService<Router>,
    slot: Arc<Slot>,
    at: LocalAddress,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for Answers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        let has_body = !request.body().is_end_stream();
        if !self.slot.is_asked(Kind::of(request.uri().path()), has_body) {
            return Box::pin(std::future::ready(Ok(refusal())));
        }
        request.extensions_mut().insert(self.at);
        request.extensions_mut().insert(self.slot.peer);
        let slot = Arc::clone(&self.slot);
        let request = request.map(|body| {
            let slot = Arc::clone(&slot);
            if has_body {
                Body::new(Arriving { body, slot })
            } else {
                Body::empty()
            }
        });
        let answer = self.router.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| Body::new(Noted { body, slot })))
        })
    }
}

fn refusal() -> Response<Body> {
    let text = "too many requests are being answered; try again later\n";
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    let headers = answer.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The body of a request, which has to arrive in time.
struct Arriving {
    body: Incoming,
    slot: Arc<Slot>,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.slot.with(|one, _| one.has_request());
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; the HTTP library drops it when all of it is made.
struct Noted {
    body: Body,
    slot: Arc<Slot>,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.slot.with(|one, _| one.is_made = true);
    }
}

impl HttpBody for Noted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// ---- the listener -------------------------------------------------------------------------------

/// Serves on a thread of its own until `stop` is cancelled; the answer comes when all connections are closed. However
/// many clients there are, they delay no measurement of a check.
///
/// # Errors
/// If the thread can't be started.
pub fn start(
    servers: Vec<(TcpListener, Router, Arc<Connections>)>,
    stop: CancellationToken,
) -> io::Result<oneshot::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(WRITERS)
        .build()?;
    let servers: io::Result<Vec<_>> = servers
        .into_iter()
        .map(|(listener, router, of)| Ok((listener.into_std()?, router, of)))
        .collect();
    let servers = servers?;
    let (done, ended) = oneshot::channel();
    let serve_all = async move {
        let tasks = TaskTracker::new();
        for (listener, router, of) in servers {
            match TcpListener::from_std(listener) {
                Ok(listener) => drop(tasks.spawn(serve(listener, router, of, stop.clone()))),
                Err(error) => tracing::error!(%error, "a listener can't be served"),
            }
        }
        tasks.close();
        tasks.wait().await;
    };
    let thread = std::thread::Builder::new().name("serving".to_owned());
    thread.spawn(move || {
        runtime.block_on(serve_all);
        runtime.shutdown_background();
        let _ = done.send(());
    })?;
    Ok(ended)
}

/// Serves until `stop` is cancelled and running requests are answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    of: Arc<Connections>,
    stop: CancellationToken,
) {
    // A longer queue than the runtime's: when it is full, a client's next attempt is a second later.
    if let Ok(backlog) = Backlog::new(bounds::QUEUE) {
        let _ = listen(&listener, backlog);
    }
    // Accepted connections inherit them.
    let _ = setsockopt(&listener, sockopt::SndBuf, &bounds::SEND_BUFFER);
    let _ = setsockopt(&listener, sockopt::RcvBuf, &bounds::RECEIVE_BUFFER);
    let tasks = TaskTracker::new();
    let mut queue = Queue {
        of: Arc::clone(&of),
        listener,
        spare: Vec::new(),
        in_batch: 0,
    };
    let mut keeper = Keeper::default();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = looks.tick() => {
                queue.keep_spare_files();
                keeper.look(&of);
            }
            (stream, from) = queue.accept() => {
                let slot = Arc::new(of.accept(Peer::from(from.ip())));
                let served = serve_one(stream, Arc::clone(&slot), router.clone(), stop.clone());
                slot.is_served_by(tasks.spawn(served).abort_handle());
            }
        }
    }
    drop(queue);
    tasks.close();
    while tokio::time::timeout(LOOK, tasks.wait()).await.is_err() {
        of.look();
    }
}

/// The queue of new connections.
struct Queue {
    of: Arc<Connections>,
    listener: TcpListener,
    /// Given up when the process has no more files, so that these connections are still accepted.
    spare: Vec<File>,
    in_batch: usize,
}

impl Queue {
    fn keep_spare_files(&mut self) {
        while self.spare.len() < SPARE_FILES
            && let Ok(file) = File::open("/dev/null")
        {
            self.spare.push(file);
        }
    }

    /// The next connection. Those accepted before get their turn between two batches: what they have sent is read
    /// before their place may go to another.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if self.in_batch >= BATCH {
                self.in_batch = 0;
                yield_now().await;
            }
            let error = match self.listener.accept().await {
                Ok(accepted) => {
                    self.in_batch += 1;
                    return accepted;
                }
                Err(error) => error,
            };
            // Others are faults of one connection (accept(2)).
            let no_room = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
            if error
                .raw_os_error()
                .is_some_and(|code| no_room.contains(&code))
            {
                self.of.has_no_file();
                if self.spare.pop().is_none() {
                    sleep(NO_FILES).await;
                }
            }
            self.in_batch += 1;
        }
    }
}

/// What happens at each look.
#[derive(Default)]
struct Keeper {
    looks: u64,
    /// The look, closed connections and written bytes at the last return of memory.
    trimmed: (u64, u64, u64),
    /// The look and the connections that were limited, at the last line of the log.
    logged: (u64, u64),
    /// The look at which the number of limited connections last changed, and that number.
    flooded: (u64, u64),
    /// That number when memory was last given back after a flood.
    recovered: u64,
}

impl Keeper {
    fn look(&mut self, of: &Connections) {
        of.look();
        self.looks += 1;
        let (closed, written, limited) = {
            let open = of.open();
            let limited = open.limited.values().sum::<u64>();
            let closed = open.accepted - open.connections.len() as u64;
            (closed, open.written, limited)
        };
        let (at, before, bytes) = self.trimmed;
        let is_much = closed >= before + TRIM_CONNECTIONS || written >= bytes + TRIM_BYTES;
        let least = if is_much { TRIM_EVERY } else { TRIM_ANYWAY };
        if self.looks >= at + least {
            kernel::give_memory_back();
            self.trimmed = (self.looks, closed, written);
        }
        if limited != self.flooded.1 {
            self.flooded = (self.looks, limited);
        }
        let (at, _) = self.flooded;
        if limited > self.recovered && self.looks >= at + TRIM_EVERY {
            // A flood used code that nothing else uses.
            machine::give_code_back();
            kernel::give_memory_back();
            self.recovered = limited;
        }
        let (at, before) = self.logged;
        if limited > before && self.looks >= at + LOG_EVERY {
            tracing::warn!(
                listener = of.name,
                count = limited - before,
                "connections or requests exceeded the bounds of this listener (docs/security.md)"
            );
            self.logged = (self.looks, limited);
        }
    }
}
