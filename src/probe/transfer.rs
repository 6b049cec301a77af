//! The transfer test: reads real layers as containerd would, and stops as soon as the rate is known.
//!
//! One stream first, which shows what a single connection gets; then as many as containerd has
//! (`max_concurrent_downloads`), which shows what the way gives in all. Over HTTP/2 streams to one
//! server share a connection, as Go's client has it. Nothing is kept of the bytes but their digest.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes as Body;
use http::{HeaderValue, Method, Request, StatusCode, header};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use url::Url;

use super::auth::{self, Admitted};
use super::leg::{LineId, Lines, MAX_REDIRECTS, clone_request, redirect, untrusted};
use super::manifest::path_of;
use super::{Check, SMALL_BODY, trace};
use crate::diagnose::throughput;
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::{Layer, ManifestFound};
use crate::model::fault::{Distrust, HttpFault, Phase};
use crate::model::hosts::RegistryHost;
use crate::model::transfer::{
    Arrival, StreamEnd, StreamSample, Transfer, TransferEnd, TransferStream,
};
use crate::model::units::Bytes;
use crate::net::http::{HttpConnection, Response};
use crate::net::kernel;
use crate::registry::error;

/// How much a test may spend.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// All layers, whatever that takes; else the first that ends it.
    pub full: bool,
    pub max_bytes: Bytes,
    pub max_duration: Duration,
    /// How long the pull may take; nothing of the test depends on it.
    pub expected_within: Option<Duration>,
}

/// `max_concurrent_downloads` of containerd.
const STREAMS: usize = 3;

/// How often the bytes are counted; every second time the kernel is asked as well.
const TICK: Duration = Duration::from_millis(50);

/// The part of a budget that one stream alone may have.
const ALONE: u32 = 60;

/// A series of some minutes; a full pull of hours is counted more seldom in the end.
const MAX_ARRIVALS: usize = 4096;

pub(super) async fn measure(
    check: &Check,
    host: &RegistryHost,
    lines: &mut Lines<'_>,
    admitted: &Admitted,
    found: &ManifestFound,
    budget: Budget,
) -> Transfer {
    let mut layers: Vec<Layer> = found.layers.clone();
    // The largest first: they last long enough to tell.
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.size));
    let mut test = Test {
        check,
        host,
        lines,
        admitted,
        budget,
        queue: layers.into(),
        running: JoinSet::new(),
        streams: Vec::new(),
        connections: Vec::new(),
        began: Timestamp::now(),
        begin: Instant::now(),
        first: None,
        arrivals: Vec::new(),
        more_after: None,
    };
    test.add().await;
    let end = test.run().await;
    test.conclude(end)
}

struct Test<'a, 'l> {
    check: &'a Check,
    host: &'a RegistryHost,
    lines: &'a mut Lines<'l>,
    admitted: &'a Admitted,
    budget: Budget,
    queue: VecDeque<Layer>,
    running: JoinSet<usize>,
    streams: Vec<Stream>,
    connections: Vec<Connection>,
    began: Timestamp,
    begin: Instant,
    /// When the first byte of all came.
    first: Option<Instant>,
    arrivals: Vec<Arrival>,
    more_after: Option<Duration>,
}

/// A connection of the test.
struct Connection {
    endpoint: Endpoint,
    /// Streams of HTTP/2 take it in turn to send their requests.
    http: Arc<tokio::sync::Mutex<HttpConnection>>,
    is_h2: bool,
    socket: Option<OwnedFd>,
}

struct Stream {
    source: Source,
    connection: usize,
    meter: Arc<Meter>,
    samples: Vec<StreamSample>,
}

/// What a stream's task tells while it runs.
#[derive(Debug, Default)]
struct Meter {
    bytes: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    first_byte: Option<Duration>,
    longest_stall: Duration,
    end: Option<StreamEnd>,
}

impl Meter {
    fn tell(&self, tell: impl FnOnce(&mut Told)) {
        tell(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Where a layer is to be had, after all redirects.
struct Source {
    endpoint: Endpoint,
    to: std::net::SocketAddr,
    request: Request<Body>,
    layer: Layer,
}

impl Test<'_, '_> {
    async fn run(&mut self) -> TransferEnd {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0u32;
        loop {
            ticks.tick().await;
            number += 1;
            while self.running.try_join_next().is_some() {
                // containerd takes the next layer when one is done.
                if self.budget.full || self.more_after.is_some() || self.running.is_empty() {
                    self.add().await;
                }
            }
            self.count();
            if number.is_multiple_of(2) {
                self.sample();
            }
            if self.running.is_empty() {
                return if self.queue.is_empty() && self.is_all_good() {
                    TransferEnd::Complete
                } else {
                    TransferEnd::Failed
                };
            }
            if let Some(end) = self.decide().await {
                return end;
            }
        }
    }

    /// Whether to stop, or to go on with more streams.
    async fn decide(&mut self) -> Option<TransferEnd> {
        let (bytes, elapsed) = (self.bytes(), self.begin.elapsed());
        if self.budget.full {
            if self.more_after.is_none() {
                self.add_more().await;
            }
            return None;
        }
        let Budget {
            max_bytes,
            max_duration,
            ..
        } = self.budget;
        let is_stable = throughput::is_stable(&self.arrivals, self.more_after, self.round_trip());
        if bytes >= max_bytes.0 {
            return Some(TransferEnd::BytesSpent);
        }
        if elapsed >= max_duration {
            return Some(TransferEnd::TimeSpent);
        }
        let share = max_bytes.0 / 100 * u64::from(ALONE);
        let is_long = elapsed >= max_duration * ALONE / 100;
        if self.more_after.is_none() {
            let is_time = is_stable || bytes >= share || is_long;
            if !is_time || self.add_more().await {
                return None;
            }
            // There is no other layer: the one stream is all there is.
            return is_stable.then_some(TransferEnd::Stable);
        }
        is_stable.then_some(TransferEnd::Stable)
    }

    /// As many streams as containerd has, once; `false` when there is no other layer.
    async fn add_more(&mut self) -> bool {
        let Some(first) = self.first else {
            return true;
        };
        self.more_after = Some(first.elapsed());
        let mut added = false;
        while self.running.len() < STREAMS && !self.queue.is_empty() {
            added |= self.add().await;
        }
        added
    }

    /// Begins with the next layer.
    async fn add(&mut self) -> bool {
        while let Some(layer) = self.queue.pop_front() {
            if layer.size.0 == 0 {
                continue;
            }
            let Ok(source) = self.locate(layer).await else {
                continue;
            };
            if let Ok(connection) = self.connection(&source).await {
                self.start(source, connection);
                return true;
            }
        }
        false
    }

    /// Follows the redirects of a layer up to its last host, which is not asked yet.
    async fn locate(&mut self, layer: Layer) -> Result<Source, HttpFault> {
        let path = path_of(self.check, self.host, "blobs", &layer.digest);
        let malformed = || HttpFault::Malformed {
            reason: "the path of the layer is no URL".to_owned(),
        };
        let registry = LineId::REGISTRY;
        let mut url: Url = self
            .lines
            .endpoint(registry)
            .url(&path)
            .map_err(|_| malformed())?;
        let mut line = registry;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.lines.request(line, Method::GET, auth::target(&url));
            if let Some(value) = self
                .admitted
                .authorization
                .as_ref()
                .filter(|_| line == registry)
            {
                request
                    .headers_mut()
                    .insert(header::AUTHORIZATION, value.clone());
            }
            // Two bytes tell whether it is here, and leave the connection as it was.
            let mut question = clone_request(&request);
            let little = HeaderValue::from_static("bytes=0-1");
            question.headers_mut().insert(header::RANGE, little);
            let wait = self.lines.edges().wait;
            let response = self.lines.send(line, Phase::Blob, question).await?;
            let (status, headers) = (response.status, response.headers.clone());
            let next = redirect(status, &headers, &url, self.lines.endpoint(line));
            let Some(next) = next else {
                if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
                    let body = response.read(Bytes(SMALL_BODY), wait).await?;
                    return Err(error::fault(status, &headers, &body, self.lines.scrub()));
                }
                response.read_first(Bytes(2), wait).await?;
                return Ok(Source {
                    endpoint: self.lines.endpoint(line).clone(),
                    to: self.lines.address(line),
                    request,
                    layer,
                });
            };
            let _ = response.read(Bytes(SMALL_BODY), wait).await;
            url = next?;
            trace::hide_query(&url, self.lines.scrub_mut());
            let endpoint =
                Endpoint::of(&url).ok_or_else(|| untrusted(&url, Distrust::NotAServer))?;
            line = self
                .lines
                .open(Role::Blob, &endpoint)
                .await
                .map_err(|_| HttpFault::Closed)?;
        }
        Err(HttpFault::TooManyRedirects {
            limit: MAX_REDIRECTS,
        })
    }

    /// One of HTTP/2 to the same server serves all streams; else each has its own.
    async fn connection(&mut self, source: &Source) -> Result<usize, ()> {
        let shared = self
            .connections
            .iter()
            .position(|known| known.is_h2 && known.endpoint == source.endpoint);
        if let Some(index) = shared {
            return Ok(index);
        }
        let (http, socket) = self
            .lines
            .connect_watched(&source.endpoint, source.to, None)
            .await
            .map_err(|_| ())?;
        self.connections.push(Connection {
            endpoint: source.endpoint.clone(),
            is_h2: http.is_h2(),
            http: Arc::new(tokio::sync::Mutex::new(http)),
            socket,
        });
        Ok(self.connections.len() - 1)
    }

    fn start(&mut self, source: Source, connection: usize) {
        let meter = Arc::new(Meter::default());
        let number = self.streams.len();
        let http = Arc::clone(&self.connections[connection].http);
        let mut request = clone_request(&source.request);
        let max = if self.budget.full {
            source.layer.size
        } else {
            Bytes(source.layer.size.0.min(self.budget.max_bytes.0))
        };
        if max < source.layer.size
            && let Ok(range) = HeaderValue::from_str(&format!("bytes=0-{}", max.0 - 1))
        {
            request.headers_mut().insert(header::RANGE, range);
        }
        let wait = self.lines.edges().wait;
        let (digest, whole) = (source.layer.digest.clone(), max == source.layer.size);
        let task_meter = Arc::clone(&meter);
        self.running.spawn(async move {
            let end = read(&http, request, &task_meter, max, wait)
                .await
                .map_or_else(
                    |fault| StreamEnd::Failed { fault },
                    |hash| match hash.filter(|_| whole) {
                        Some(hash) => StreamEnd::Complete {
                            digest_matches: digest == hash,
                        },
                        None => StreamEnd::Stopped,
                    },
                );
            task_meter.tell(|told| told.end = Some(end));
            number
        });
        self.streams.push(Stream {
            source,
            connection,
            meter,
            samples: Vec::new(),
        });
    }

    fn bytes(&self) -> u64 {
        let meters = self.streams.iter().map(|stream| &stream.meter);
        meters
            .map(|meter| meter.bytes.load(Ordering::Relaxed))
            .sum()
    }

    fn count(&mut self) {
        let bytes = self.bytes();
        if bytes == 0 {
            return;
        }
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        if self.arrivals.len() < MAX_ARRIVALS {
            self.arrivals.push(Arrival {
                at: now.duration_since(first),
                bytes: Bytes(bytes),
            });
        }
    }

    fn sample(&mut self) {
        let Some(first) = self.first else {
            return;
        };
        let at = first.elapsed();
        for stream in &mut self.streams {
            let is_over = stream
                .meter
                .told
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .end
                .is_some();
            let Some(socket) = self.connections[stream.connection].socket.as_ref() else {
                continue;
            };
            if is_over || stream.samples.len() >= MAX_ARRIVALS {
                continue;
            }
            let info = kernel::tcp_info(socket).ok();
            stream.samples.push(StreamSample {
                at,
                received: info.and_then(|i| i.bytes_received).map(Bytes),
                unread: kernel::unread(socket).ok().map(|n| Bytes(n.into())),
                receive_rtt: info.and_then(|i| i.receive_rtt),
                receive_space: info.and_then(|i| i.receive_space).map(|n| Bytes(n.into())),
                data_segments_in: info.and_then(|i| i.data_segments_in),
                out_of_order: info.and_then(|i| i.out_of_order),
            });
        }
    }

    /// The least that the kernel knows of any connection.
    fn round_trip(&self) -> Duration {
        let sockets = self.connections.iter().filter_map(|c| c.socket.as_ref());
        sockets
            .filter_map(|socket| kernel::tcp_info(socket).ok()?.min_rtt)
            .min()
            .unwrap_or_default()
    }

    fn is_all_good(&self) -> bool {
        self.streams.iter().all(|stream| {
            let told = stream.meter.told.lock();
            let told = told.unwrap_or_else(PoisonError::into_inner);
            matches!(
                told.end,
                Some(StreamEnd::Complete { .. } | StreamEnd::Stopped)
            )
        })
    }

    fn conclude(mut self, end: TransferEnd) -> Transfer {
        self.running.abort_all();
        self.count();
        let streams = self
            .streams
            .into_iter()
            .map(|stream| {
                let told = stream.meter.told.lock();
                let told = told.unwrap_or_else(PoisonError::into_inner);
                TransferStream {
                    endpoint: stream.source.endpoint,
                    to: stream.source.to,
                    digest: stream.source.layer.digest,
                    connection: stream.connection,
                    first_byte: told.first_byte,
                    bytes: Bytes(stream.meter.bytes.load(Ordering::Relaxed)),
                    longest_stall: told.longest_stall,
                    end: told.end.clone().unwrap_or(StreamEnd::Stopped),
                    samples: stream.samples,
                }
            })
            .collect();
        Transfer {
            began: self.began,
            max_bytes: self.budget.max_bytes,
            max_duration: self.budget.max_duration,
            expected_within: self.budget.expected_within,
            streams,
            connections: self.connections.len(),
            arrivals: self.arrivals,
            more_after: self.more_after,
            end,
            took: self.begin.elapsed(),
        }
    }
}

/// Reads a layer up to `max` bytes; its digest when that is all of it.
async fn read(
    http: &tokio::sync::Mutex<HttpConnection>,
    request: Request<Body>,
    meter: &Meter,
    max: Bytes,
    wait: Duration,
) -> Result<Option<String>, HttpFault> {
    let mut response: Response = http.lock().await.send(request, wait).await?;
    let first_byte = response.first_byte;
    meter.tell(|told| told.first_byte = Some(first_byte));
    if !matches!(
        response.status,
        StatusCode::OK | StatusCode::PARTIAL_CONTENT
    ) {
        return Err(HttpFault::Status {
            status: response.status.as_u16(),
            code: None,
            message: None,
            retry_after: None,
            challenged: false,
        });
    }
    let mut hash = Context::new(&SHA256);
    let (mut got, mut before) = (0u64, Instant::now());
    while got < max.0 {
        let Some(data) = response.next(got, wait).await? else {
            return Err(HttpFault::Truncated {
                got: Bytes(got),
                want: Some(max),
            });
        };
        let now = Instant::now();
        let pause = now.duration_since(before);
        before = now;
        // A server may send more than was asked for.
        let length = data
            .len()
            .min(usize::try_from(max.0 - got).unwrap_or(usize::MAX));
        hash.update(&data[..length]);
        got += length as u64;
        meter.bytes.store(got, Ordering::Relaxed);
        meter.tell(|told| told.longest_stall = told.longest_stall.max(pause));
    }
    let mut digest = "sha256:".to_owned();
    for byte in hash.finish().as_ref() {
        let _ = write!(digest, "{byte:02x}");
    }
    Ok(Some(digest))
}
