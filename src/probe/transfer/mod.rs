//! The transfer test: reads real layers as containerd would, and stops as soon as the rate is known.
//!
//! It has stages: first one stream, which shows the rate of a single connection; then as many as containerd has
//! (`max_concurrent_downloads`), each over its own connection, which shows the total rate of the path. Last, if one is
//! configured, a control host elsewhere is read at the same time. Of the bytes, only their digest is kept.
//!
//! All connections and redirects are made before the first byte is counted, so that a stage starts at once and nothing
//! but layers is transferred.

mod ping;
mod stream;

use super::check::Budget;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes as Body;
use futures_util::future::join_all;
use http::{HeaderValue, Method, Request, StatusCode, header};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use url::Url;

use super::leg::{self, ConnectionId, Connections, target};
use super::manifest::path_of;
use super::network::NoProgress;
use super::redirects::{self, MAX_REQUESTS};
use super::requests::SMALL_BODY;
use super::session::HostAccess;
use super::trace;
use crate::diagnose::throughput;
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::{Layer, ManifestFound};
use crate::model::fault::{HttpFault, Phase};
use crate::model::hosts::RegistryHost;
use crate::model::transfer::{
    Arrival, ControlTransfer, CpuUse, DeviceTraffic, NotConnected, Stage, StageKind, StreamEnd,
    StreamSample, TcpOptions, Transfer, TransferEnd, TransferStream,
};
use crate::model::units::Bytes;
use crate::net::http::HttpConnection;
use crate::net::{kernel, machine};
use crate::own;
use crate::redact::Scrubber;
use crate::registry::error;
use ping::Pinger;
use stream::{Allowance, Meter, Part};

/// `max_concurrent_downloads` of containerd.
const STREAMS: usize = 3;

/// How often the bytes are counted; every fourth time, the other values are read as well.
const TICK: Duration = Transfer::TICK;
const SAMPLE_EVERY: u32 = 4;

const MAX_ARRIVALS: usize = Transfer::MAX_ARRIVALS;
const MAX_SAMPLES: usize = 600;

/// When a control host that is slower than the registry gets more connections.
const CONTROL_HELP: Duration = Duration::from_millis(400);

/// The number of segments from which their mean size is used.
const ENOUGH_SEGMENTS: u64 = 100;
const NANO: u128 = 1_000_000_000;

/// Bytes. Two streams share a layer of at least twice this size, instead of starting a smaller layer.
const WORTH_SPLITTING: u64 = 512 << 10;

/// After this many rejected or failed streams, no more are started; running ones continue.
const MAX_REFUSALS: usize = 3;

/// The test stops if other requests take three times as long as without it, and longer than acceptable, for this time.
const HARM_FACTOR: u32 = 3;
const HARM_EXTRA: Duration = Duration::from_millis(100);
const HARM_LIMIT: Duration = Duration::from_secs(3);

/// The test stops if the device receives this much beside the test's bytes, for this time: something else needs it.
const BUSY_SHARE: u64 = 2;
const BUSY_RATE: u64 = 125_000;
const BUSY_LIMIT: Duration = Duration::from_secs(1);

/// Overhead of Ethernet, IP and TCP on top of their payload, at most, in percent.
const HEADERS: u64 = 6;

pub(super) async fn measure(
    lines: &mut Connections<'_>,
    admitted: &HostAccess<'_>,
    found: &ManifestFound,
    budget: &Budget,
) -> (Transfer, RangeObservation) {
    let mut layers: Vec<Layer> = found.layers.clone();
    layers.retain(|layer| layer.size.0 > 0);
    // The largest first: they last long enough for a measurement.
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.size));
    let allowance = if budget.full {
        u64::MAX
    } else {
        budget.max_bytes.0
    };
    let control = match &budget.control {
        Some(url) if !budget.full => Control::prepare(lines, url).await,
        _ => None,
    };
    let mut test = Test {
        admitted,
        budget,
        total: layers.iter().map(|layer| layer.size.0).sum(),
        queue: layers.into(),
        range: RangeObservation::default(),
        refused_parts: 0,
        refusals: 0,
        refused: Vec::new(),
        sources: Vec::new(),
        running: JoinSet::new(),
        streams: Vec::new(),
        connections: Vec::new(),
        connections_tried: 0,
        not_connected: Vec::new(),
        spare: Vec::new(),
        allowance: Arc::new(Allowance::new(allowance)),
        began: Timestamp::now(),
        begin: Instant::now(),
        first: None,
        arrivals: Vec::new(),
        stages: Vec::new(),
        control,
        pinger: None,
        device: None,
        round_trips_before: Vec::new(),
        cpu: None,
        harm_since: None,
        busy: None,
        lines,
    };
    test.prepare().await;
    let end = test.run().await;
    test.note_refused_parts();
    let range = test.range;
    (test.conclude(end), range)
}

/// Whether the server of a layer answers requests for a part, if there is nothing else to measure.
pub(super) async fn test_range_request(
    lines: &mut Connections<'_>,
    admitted: &HostAccess<'_>,
    layer: &Layer,
) -> RangeObservation {
    let mut range = RangeObservation::default();
    // A layer that was read before is not judged again.
    let _ = locate(lines, admitted, layer.clone(), &mut range).await;
    range
}

/// The results of requests for a part of a layer. A pull's first request is not one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct RangeObservation {
    /// 206 counts as honored; 200 with all of it, and a rejection, do not. `None` if no such request was answered.
    pub honoured: Option<bool>,
    /// The status with which such a request was rejected.
    pub refused_with: Option<u16>,
}

impl RangeObservation {
    fn answered(&mut self, status: StatusCode) {
        let is_honoured = status == StatusCode::PARTIAL_CONTENT;
        self.honoured = Some(is_honoured && self.honoured != Some(false));
    }

    fn refused(&mut self, status: u16) {
        // An overloaded server may reject any request with these.
        if !matches!(status, 408 | 429 | 503) {
            self.honoured = Some(false);
            self.refused_with.get_or_insert(status);
        }
    }
}

struct Test<'a, 'l> {
    lines: &'a mut Connections<'l>,
    admitted: &'a HostAccess<'a>,
    budget: &'a Budget,
    /// The size of all layers in bytes.
    total: u64,
    queue: VecDeque<Layer>,
    range: RangeObservation,
    /// Streams whose part was rejected.
    refused_parts: usize,
    /// Failures to find a layer or to connect, before there was a stream.
    refusals: usize,
    /// The layers among them that were rejected with a status.
    refused: Vec<TransferStream>,
    /// Where layers are served from.
    sources: Vec<Source>,
    running: JoinSet<()>,
    streams: Vec<Stream>,
    connections: Vec<Connection>,
    /// Connections that no stream uses yet.
    spare: Vec<Connection>,
    connections_tried: usize,
    not_connected: Vec<NotConnected>,
    allowance: Arc<Allowance>,
    began: Timestamp,
    begin: Instant,
    /// When the first byte of all arrived.
    first: Option<Instant>,
    arrivals: Vec<Arrival>,
    stages: Vec<Stage>,
    control: Option<Control>,
    pinger: Option<Pinger>,
    device: Option<DeviceTraffic>,
    round_trips_before: Vec<Duration>,
    /// CPU times at the first byte.
    cpu: Option<machine::Cpu>,
    harm_since: Option<Instant>,
    /// When the device was last known to be used by the test alone, and the bytes until then: of the device and of the
    /// test.
    busy: Option<(Instant, u64, u64)>,
}

/// A connection of the test.
struct Connection {
    endpoint: Endpoint,
    /// A stream holds the lock until its request is answered.
    http: Arc<tokio::sync::Mutex<HttpConnection>>,
    socket: Option<OwnedFd>,
    /// Bytes, and segments with data, before the first request.
    before: (u64, u64),
    /// The largest mean number of bytes for a segment so far, in billionths of a byte.
    segment: u64,
    arrived: u64,
}

struct Stream {
    source: usize,
    connection: usize,
    offset: u64,
    length: u64,
    meter: Arc<Meter>,
    samples: Vec<StreamSample>,
}

/// Where a layer is served from, after all redirects.
struct Source {
    endpoint: Endpoint,
    to: std::net::SocketAddr,
    request: Request<Body>,
    layer: Layer,
    /// How long its server took until the layer's first byte.
    first_touch: Option<Duration>,
    /// Its server does not reject requests for a part.
    takes_ranges: bool,
}

/// The control host.
struct Control {
    result: ControlTransfer,
    /// Connections on which nothing has been sent.
    ready: Vec<(HttpConnection, Request<Body>)>,
    tasks: Vec<tokio::task::JoinHandle<Option<String>>>,
    meters: Vec<Arc<Meter>>,
}

impl Test<'_, '_> {
    /// Finds where the first layers are served, and connects, so that neither disturbs the measurement.
    async fn prepare(&mut self) {
        let wanted = self.queue.len().min(STREAMS);
        let mut lost = Vec::new();
        for index in 0..wanted {
            // Of the smaller layers, only those that the test will reach.
            let is_tiny = self.queue[index].size.0 * 8 < self.queue[0].size.0;
            if index > 0 && is_tiny && !self.budget.full {
                break;
            }
            let layer = self.queue[index].clone();
            match self.locate(layer).await {
                Some(source) => self.sources.push(source),
                None => lost.push(index),
            }
            if self.is_refused_too_often() {
                break;
            }
        }
        // Rejected layers are not requested again.
        for index in lost.into_iter().rev() {
            self.queue.remove(index);
        }
        self.lines.close_spent();
        let Some(first) = self.sources.first() else {
            return;
        };
        let (endpoint, to, is_pinged) = (first.endpoint.clone(), first.to, first.takes_ranges);
        self.round_trips_before.extend(self.lines.handshakes(to));
        let (main, pinged) = tokio::join!(self.lines.connect_again(&endpoint, to, None), async {
            if is_pinged {
                Some(self.lines.connect_again(&endpoint, to, None).await)
            } else {
                None
            }
        });
        if let Some((http, socket)) = self.note_opened(to, main) {
            self.spare.push(Connection::new(&endpoint, http, socket));
            let more = (1..STREAMS).map(|_| self.lines.connect_again(&endpoint, to, None));
            for made in join_all(more).await {
                if let Some((http, socket)) = self.note_opened(to, made) {
                    self.spare.push(Connection::new(&endpoint, http, socket));
                }
            }
        }
        let pinged = pinged.and_then(|made| self.note_opened(to, made));
        if let Some((http, _)) = pinged {
            let mut request = self.sources[0].request.clone();
            let little = HeaderValue::from_static("bytes=0-1");
            request.headers_mut().insert(header::RANGE, little);
            let wait = self.lines.probe_network.wait;
            let requests = self.lines.requests.clone();
            self.pinger = Pinger::start(http, request, requests, wait, self.budget.full).await;
        }
    }

    async fn run(&mut self) -> TransferEnd {
        self.begin = Instant::now();
        self.begin_stage(StageKind::OneStream);
        self.add().await;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0u32;
        loop {
            ticks.tick().await;
            number = number.wrapping_add(1);
            while self.running.try_join_next().is_some() {
                let is_refused = self.note_refused_parts();
                // containerd starts the next layer when one is complete.
                if !self.allowance.is_spent() {
                    self.add_in_time().await;
                }
                if is_refused {
                    self.recount();
                }
            }
            self.count();
            if number.is_multiple_of(SAMPLE_EVERY) {
                self.sample();
                self.show();
            }
            if self.running.is_empty() {
                return self.end_without_streams();
            }
            if let Some(end) = self.decide().await {
                return end;
            }
        }
    }

    fn end_without_streams(&self) -> TransferEnd {
        let is_good = self.streams.iter().all(|stream| {
            matches!(
                stream.meter.result().end,
                Some(StreamEnd::Complete { .. } | StreamEnd::Stopped)
            )
        });
        if !is_good || self.streams.is_empty() || !self.refused.is_empty() {
            TransferEnd::Failed
        } else if self.allowance.is_spent() {
            TransferEnd::ByteLimit
        } else {
            TransferEnd::Complete
        }
    }

    /// Whether to stop; starts the next stage when it is time.
    async fn decide(&mut self) -> Option<TransferEnd> {
        let first = self.first?;
        let kind = self.stages.last()?.kind;
        if self.budget.full {
            if kind == StageKind::OneStream {
                self.begin_stage(StageKind::AsContainerd);
                self.fill().await;
            }
            return None;
        }
        let max = self.budget.max_duration;
        if self.allowance.is_spent() {
            return Some(TransferEnd::ByteLimit);
        }
        if self.begin.elapsed() >= max {
            return Some(TransferEnd::TimeLimit);
        }
        if let Some(end) = self.harms_others() {
            return Some(end);
        }
        if kind == StageKind::WithControl {
            self.help_control();
        }
        let is_stable = throughput::is_stable(&self.arrivals, &self.stages, self.round_trip());
        // The longest share of the budget until which a stage may last, in percent.
        let until = match kind {
            StageKind::OneStream => 65,
            _ => 100,
        };
        let is_over = self.bytes() >= self.budget.max_bytes.0 / 100 * until
            || first.elapsed() * 100 >= max * u32::try_from(until).unwrap_or(100);
        if !is_stable && !is_over {
            return None;
        }
        // If there is no further stage, the present one has to become stable.
        let is_last = self.next_stage(kind).await;
        (is_last && is_stable).then_some(TransferEnd::Stable)
    }

    /// Starts the next informative stage; `true` if there is none.
    async fn next_stage(&mut self, now: StageKind) -> bool {
        if now == StageKind::OneStream {
            self.begin_stage(StageKind::AsContainerd);
            if self.fill().await {
                return false;
            }
            self.stages.pop();
        }
        let is_ready = self.control.as_ref().is_some_and(|c| !c.ready.is_empty());
        if now != StageKind::WithControl && is_ready {
            self.begin_stage(StageKind::WithControl);
            self.start_control(1);
            return false;
        }
        true
    }

    fn start_control(&mut self, connections: usize) {
        let wait = self.lines.probe_network.wait;
        if let Some(control) = &mut self.control {
            control.start(connections, wait, &self.allowance);
        }
    }

    /// One connection may get too little beside several of the registry's; then it gets more.
    fn help_control(&mut self) {
        let Some((control, stage)) = self.control.as_ref().zip(self.stages.last()) else {
            return;
        };
        let elapsed = self.first.map_or(Duration::ZERO, |first| first.elapsed());
        let elapsed = elapsed.saturating_sub(stage.from);
        let since = self
            .arrivals
            .partition_point(|arrival| arrival.at < stage.from);
        let newest = self.arrivals.last().map_or(0, |a| a.bytes.0);
        let ours = self.arrivals.get(since).map_or(0, |a| newest - a.bytes.0);
        if elapsed >= CONTROL_HELP && control.bytes() * 2 < ours {
            self.start_control(STREAMS);
        }
    }

    /// Whether to stop in favor of other traffic.
    fn harms_others(&mut self) -> Option<TransferEnd> {
        if let Some(pinger) = &self.pinger {
            let idle = pinger.idle();
            let harm = (idle * HARM_FACTOR).max(idle + HARM_EXTRA);
            if pinger.newest().is_some_and(|newest| newest > harm) {
                let since = *self.harm_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= HARM_LIMIT {
                    return Some(TransferEnd::Harmful);
                }
            } else {
                self.harm_since = None;
            }
        }
        let device = self.device.as_ref()?.arrivals.last()?.bytes.0;
        let ours = self.bytes_of_all() / 100 * (100 + HEADERS);
        let (since, device_then, ours_then) = *self
            .busy
            .get_or_insert_with(|| (Instant::now(), device, ours));
        let elapsed = since.elapsed();
        if elapsed < BUSY_LIMIT {
            return None;
        }
        let own = ours.saturating_sub(ours_then);
        let others = device.saturating_sub(device_then).saturating_sub(own);
        self.busy = Some((Instant::now(), device, ours));
        let is_much = others > BUSY_RATE * elapsed.as_secs().max(1);
        (is_much && others * BUSY_SHARE > own).then_some(TransferEnd::Disturbed)
    }

    fn begin_stage(&mut self, kind: StageKind) {
        let from = self.first.map_or(Duration::ZERO, |first| first.elapsed());
        self.stages.push(Stage {
            kind,
            from,
            streams: self.running.len().max(1),
            connections: self.in_use().max(1),
        });
    }

    /// Starts as many streams as containerd has. `false` if that changes nothing.
    async fn fill(&mut self) -> bool {
        let before = self.running.len();
        for _ in before..STREAMS {
            self.add_in_time().await;
        }
        let (streams, connections) = (self.running.len(), self.in_use());
        if let Some(stage) = self.stages.last_mut() {
            (stage.streams, stage.connections) = (streams, connections);
        }
        streams > before
    }

    /// The number of connections with a running stream.
    fn in_use(&self) -> usize {
        let all = 0..self.connections.len();
        all.filter(|connection| self.is_used(*connection)).count()
    }

    fn is_used(&self, connection: usize) -> bool {
        let mut streams = self.streams.iter();
        streams.any(|stream| stream.connection == connection && !stream.meter.is_over())
    }

    async fn add_in_time(&mut self) -> bool {
        if self.budget.full {
            return self.add().await;
        }
        let left = self
            .budget
            .max_duration
            .saturating_sub(self.begin.elapsed());
        own::within(left, self.add()).await.unwrap_or_default()
    }

    /// Starts the next layer, or a part of a large one.
    async fn add(&mut self) -> bool {
        if self.is_refused_too_often() {
            return false;
        }
        // In `auto`, two streams may share a layer: the rest of a large one is more informative than a small one.
        let split = (!self.budget.full)
            .then(|| self.part_of_a_large_one())
            .flatten();
        if let Some((source, offset)) = split {
            let Some(connection) = self.connection(source).await else {
                return false;
            };
            let length = self.sources[source].layer.size.0 - offset;
            return self.start(source, connection, offset, length);
        }
        while let Some(layer) = self.queue.pop_front() {
            let known = self
                .sources
                .iter()
                .position(|s| s.layer.digest == layer.digest);
            let source = match known {
                Some(known) => known,
                None => match self.locate(layer).await {
                    Some(source) => {
                        self.sources.push(source);
                        self.sources.len() - 1
                    }
                    None if self.is_refused_too_often() => return false,
                    None => continue,
                },
            };
            if let Some(connection) = self.connection(source).await {
                let length = self.sources[source].layer.size.0;
                return self.start(source, connection, 0, length);
            }
            if self.is_refused_too_often() {
                return false;
            }
        }
        false
    }

    /// The second half of what the largest running stream still has to read, if that is more than the next layer.
    fn part_of_a_large_one(&self) -> Option<(usize, u64)> {
        let running = self.streams.iter().filter(|stream| !stream.meter.is_over());
        let left = |stream: &Stream| stream.length.saturating_sub(stream.meter.bytes());
        // Rejected parts are not requested again.
        let may_split = |stream: &&Stream| {
            let is_refused = self.streams.iter().any(|other| {
                other.source == stream.source
                    && matches!(other.meter.result().end, Some(StreamEnd::Failed { .. }))
            });
            !is_refused
                && self.range.refused_with.is_none()
                && self.sources[stream.source].takes_ranges
        };
        let largest = running
            .filter(may_split)
            .max_by_key(|stream| left(stream))?;
        let half = left(largest) / 2;
        let next = self.queue.front().map_or(0, |layer| layer.size.0);
        (half >= WORTH_SPLITTING && half > next)
            .then(|| (largest.source, largest.offset + largest.length - half))
    }

    async fn locate(&mut self, layer: Layer) -> Option<Source> {
        let digest = layer.digest.clone();
        let located = locate(self.lines, self.admitted, layer, &mut self.range).await;
        match located {
            Ok(source) => Some(source),
            Err(fault) => {
                self.refusals += 1;
                // A server that limits concurrency may still be busy with what the check left.
                let is_refused = matches!(
                    fault,
                    HttpFault::Status { status, .. } if !matches!(status, 408 | 429 | 503)
                );
                if is_refused {
                    self.refused.push(self.refused_stream(digest, fault));
                }
                None
            }
        }
    }

    /// A layer that was rejected when it was requested as in a pull.
    fn refused_stream(&self, digest: String, fault: HttpFault) -> TransferStream {
        TransferStream {
            endpoint: self.lines.endpoint(ConnectionId::REGISTRY).clone(),
            to: self.lines.address(ConnectionId::REGISTRY),
            digest,
            connection: 0,
            first_byte: None,
            first_touch: None,
            offset: Bytes(0),
            bytes: Bytes(0),
            min_rtt: None,
            options: None,
            bursts: None,
            longest_stall: Duration::ZERO,
            silent: None,
            end: StreamEnd::Failed { fault },
            samples: Vec::new(),
        }
    }

    /// Whether no further stream is started.
    fn is_refused_too_often(&self) -> bool {
        let failed = self
            .streams
            .iter()
            .filter(|stream| matches!(stream.meter.result().end, Some(StreamEnd::Failed { .. })));
        self.refusals + failed.count() >= MAX_REFUSALS
    }

    /// Records rejected parts: the server serves whole layers only. `true` if one is new.
    fn note_refused_parts(&mut self) -> bool {
        let known = self.refused_parts;
        self.refused_parts = 0;
        for stream in self.streams.iter().filter(|stream| stream.offset > 0) {
            if let Some(StreamEnd::Failed {
                fault: HttpFault::Status { status, .. },
            }) = stream.meter.result().end
            {
                self.range.refused(status);
                self.refused_parts += 1;
            }
        }
        self.refused_parts > known
    }

    /// Corrects the newest stage, one of whose streams was rejected before its first byte.
    fn recount(&mut self) {
        let running = self.streams.iter().filter(|one| !one.meter.is_over());
        let (streams, connections) = (running.count().max(1), self.in_use().max(1));
        if let Some(stage) = self.stages.last_mut() {
            stage.streams = stage.streams.min(streams);
            stage.connections = stage.connections.min(connections);
        }
    }

    /// Counts a connection, and records why it could not be opened.
    fn note_connection<T>(
        &mut self,
        to: std::net::SocketAddr,
        made: Result<T, leg::NotConnected>,
    ) -> Option<T> {
        // It says nothing about the server.
        if made.as_ref().is_err_and(|not| not.own_limit.is_some()) {
            return None;
        }
        self.connections_tried += 1;
        let failed = |not: leg::NotConnected| {
            self.not_connected.push(NotConnected {
                to,
                phase: not.phase,
                reason: not.reason,
                is_silent: not.is_silent,
                tls: not.tls,
            });
        };
        made.map_err(failed).ok()
    }

    /// The same, with the round trip of the new connection.
    fn note_opened(
        &mut self,
        to: std::net::SocketAddr,
        made: Result<(HttpConnection, Option<OwnedFd>), leg::NotConnected>,
    ) -> Option<(HttpConnection, Option<OwnedFd>)> {
        let (http, socket) = self.note_connection(to, made)?;
        let info = socket.as_ref().and_then(|s| kernel::tcp_info(s).ok());
        let trip = info.and_then(|info| info.rtt);
        self.round_trips_before
            .extend(trip.filter(|_| self.first.is_none()));
        Some((http, socket))
    }

    /// A connection to the source's server that no stream uses, or a new one.
    async fn connection(&mut self, source: usize) -> Option<usize> {
        let source = &self.sources[source];
        let (endpoint, to) = (source.endpoint.clone(), source.to);
        let idle = (0..self.connections.len()).find(|index| {
            let known = &self.connections[*index];
            known.endpoint == endpoint && !self.is_used(*index) && known.is_reusable()
        });
        if idle.is_some() {
            return idle;
        }
        let spare = self
            .spare
            .iter()
            .position(|spare| spare.endpoint == endpoint);
        let connection = if let Some(index) = spare {
            self.spare.remove(index)
        } else {
            let made = self.lines.connect_again(&endpoint, to, None).await;
            let Some((http, socket)) = self.note_connection(to, made) else {
                self.refusals += 1;
                return None;
            };
            Connection::new(&endpoint, http, socket)
        };
        self.connections.push(connection);
        Some(self.connections.len() - 1)
    }

    fn start(&mut self, source: usize, connection: usize, offset: u64, length: u64) -> bool {
        if self.lines.requests.spend().is_err() {
            self.refusals = MAX_REFUSALS;
            return false;
        }
        let meter = Arc::new(Meter::new());
        let http = Arc::clone(&self.connections[connection].http);
        let found = &self.sources[source];
        let mut request = found.request.clone();
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            request.headers_mut().insert(header::RANGE, range);
        }
        let round_trip = self.round_trip();
        let part = Part {
            length,
            // A stream that will be cut off need not be verified.
            is_whole: offset == 0 && (self.budget.full || length <= self.budget.max_bytes.0),
            wait: self.lines.probe_network.wait,
            pause: (round_trip / 3).max(Duration::from_millis(3)),
        };
        let digest = found.layer.digest.clone();
        let (task_meter, allowance) = (Arc::clone(&meter), Arc::clone(&self.allowance));
        self.running.spawn(async move {
            let end = stream::read(&http, request, part, &task_meter, &allowance, &digest).await;
            task_meter.result().end = Some(end);
        });
        self.streams.push(Stream {
            source,
            connection,
            offset,
            length,
            meter,
            samples: Vec::new(),
        });
        true
    }

    /// Bytes of layers.
    fn bytes(&self) -> u64 {
        self.streams.iter().map(|stream| stream.meter.bytes()).sum()
    }

    /// Bytes of TCP payload, if the kernel reports them for all connections: they arrive in smaller units than TLS
    /// records.
    fn bytes_of_tcp(&mut self) -> u64 {
        let all: Option<u64> = self.connections.iter_mut().map(Connection::arrived).sum();
        all.unwrap_or_else(|| self.bytes())
    }

    /// The bytes that the device should have received for this test.
    fn bytes_of_all(&self) -> u64 {
        let control = self.control.as_ref().map_or(0, Control::bytes);
        self.arrivals.last().map_or(0, |last| last.bytes.0) + control
    }

    fn count(&mut self) {
        if self.bytes() == 0 {
            return;
        }
        let now = Instant::now();
        if self.first.is_none() {
            self.first = Some(now);
            self.cpu = machine::cpu();
            self.device = self.device_of_first();
        }
        let at = now.duration_since(self.first.unwrap_or(now));
        if self.arrivals.len() < MAX_ARRIVALS {
            let bytes = Bytes(self.bytes_of_tcp());
            self.arrivals.push(Arrival { at, bytes });
            if let Some(control) = self.control.as_mut().filter(|c| !c.tasks.is_empty()) {
                let bytes = Bytes(control.bytes());
                control.result.arrivals.push(Arrival { at, bytes });
            }
        }
    }

    /// The device that the first stream's bytes arrive on; `None` if it does not lead to other machines.
    fn device_of_first(&self) -> Option<DeviceTraffic> {
        let source = &self.sources[self.streams.first()?.source];
        let device = self.lines.device_to(source.to.ip())?;
        let bytes = machine::device_bytes(&device)?;
        let at_start = |bytes| {
            let at = Duration::ZERO;
            vec![Arrival {
                at,
                bytes: Bytes(bytes),
            }]
        };
        Some(DeviceTraffic {
            device,
            arrivals: at_start(bytes.received),
            sent: at_start(bytes.sent),
        })
    }

    fn sample(&mut self) {
        let Some(first) = self.first else {
            return;
        };
        let at = first.elapsed();
        if let Some(device) = &mut self.device
            && device.arrivals.len() < MAX_SAMPLES
            && let Some(all) = machine::device_bytes(&device.device)
        {
            let (received, sent) = (Bytes(all.received), Bytes(all.sent));
            device.arrivals.push(Arrival {
                at,
                bytes: received,
            });
            device.sent.push(Arrival { at, bytes: sent });
        }
        for stream in &mut self.streams {
            let Some(socket) = self.connections[stream.connection].socket.as_ref() else {
                continue;
            };
            if stream.meter.is_over() || stream.samples.len() >= MAX_SAMPLES {
                continue;
            }
            let info = kernel::tcp_info(socket).ok();
            stream.samples.push(StreamSample {
                at,
                received: info.and_then(|i| i.bytes_received).map(Bytes),
                unread: kernel::unread(socket).ok().map(|n| Bytes(n.into())),
                receive_rtt: info.and_then(|i| i.receive_rtt),
                receive_space: info.and_then(|i| i.receive_space).map(|n| Bytes(n.into())),
                receive_window: info.and_then(|i| i.receive_window).map(|n| Bytes(n.into())),
                offered_window: info.and_then(|i| i.offered_window).map(|n| Bytes(n.into())),
                data_segments_in: info.and_then(|i| i.data_segments_in),
                out_of_order: info.and_then(|i| i.out_of_order),
                segments_out: info.and_then(|i| i.segments_out),
            });
        }
    }

    fn show(&self) {
        if self.budget.full {
            let elapsed = self.first.map(|first| first.elapsed()).unwrap_or_default();
            let (bytes, total) = (Bytes(self.bytes()), Bytes(self.total));
            self.lines.progress.transferred(bytes, total, elapsed);
        }
    }

    /// The smallest round trip that the kernel reports for any connection.
    fn round_trip(&self) -> Duration {
        let trips = self.connections.iter().filter_map(Connection::min_rtt);
        trips.min().unwrap_or_default()
    }

    fn conclude(mut self, end: TransferEnd) -> Transfer {
        let took = self.begin.elapsed();
        let over = self.first.map(|first| first.elapsed());
        let cpu = self.cpu.zip(machine::cpu()).zip(over);
        self.count();
        self.sample();
        self.running.abort_all();
        let connections = &self.connections;
        let streams = self.streams.into_iter().map(|stream| {
            let result = stream.meter.result();
            let silent = stream.meter.silent().filter(|_| result.end.is_none());
            let source = &self.sources[stream.source];
            TransferStream {
                endpoint: source.endpoint.clone(),
                to: source.to,
                digest: source.layer.digest.clone(),
                connection: stream.connection,
                first_byte: result.first_byte,
                first_touch: source.first_touch,
                offset: Bytes(stream.offset),
                bytes: Bytes(stream.meter.bytes()),
                min_rtt: connections[stream.connection].min_rtt(),
                options: connections[stream.connection].options(),
                bursts: result.bursts(),
                longest_stall: result.longest_stall.max(silent.unwrap_or_default()),
                silent,
                end: result.end.clone().unwrap_or(StreamEnd::Stopped),
                samples: stream.samples,
            }
        });
        Transfer {
            started: self.began,
            max_bytes: self.budget.max_bytes,
            max_duration: self.budget.max_duration,
            expected_within: self.budget.expected_within,
            stages: self.stages,
            streams: streams.chain(self.refused).collect(),
            connections: self.connections.len(),
            connections_tried: self.connections_tried,
            not_connected: self.not_connected,
            arrivals: self.arrivals,
            pings: self
                .pinger
                .zip(self.first)
                .map(|(pinger, first)| pinger.end(first)),
            control: self.control.map(Control::end),
            device: self.device,
            tcp_settings: Some(machine::tcp_settings()),
            round_trips_before: self.round_trips_before,
            cpu: cpu.map(|((before, after), over)| CpuUse {
                used: after.used.saturating_sub(before.used),
                throttled: after
                    .throttled
                    .zip(before.throttled)
                    .map(|(after, before)| after.saturating_sub(before)),
                over,
            }),
            end,
            took,
        }
    }
}

/// Follows the redirects of a layer to its last host, and requests two bytes there. If a host rejects that, all of it
/// is requested as in a pull, and two bytes are read.
async fn locate(
    lines: &mut Connections<'_>,
    admitted: &HostAccess<'_>,
    layer: Layer,
    range: &mut RangeObservation,
) -> Result<Source, HttpFault> {
    let path = path_of(admitted.check, &admitted.host, "blobs", &layer.digest);
    let malformed = |_| HttpFault::malformed("the path of the layer is not a valid URL");
    let registry = ConnectionId::REGISTRY;
    let mut url: Url = lines.endpoint(registry).url(&path).map_err(malformed)?;
    let mut line = registry;
    let mut refused: Option<StatusCode> = None;
    let mut followed = 0;
    let wait = lines.probe_network.wait;
    loop {
        let mut request = lines.request(line, Method::GET, target(&url));
        if let Some(value) = admitted.authorization.as_ref().filter(|_| line == registry) {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, value.clone());
        }
        let mut attempt = request.clone();
        if refused.is_none() {
            // Two bytes show whether it exists, and leave the connection usable.
            let little = HeaderValue::from_static("bytes=0-1");
            attempt.headers_mut().insert(header::RANGE, little);
        }
        let mut response = lines.send(line, Phase::Blob, attempt).await?;
        let (status, headers) = (response.status, response.headers.clone());
        let first_touch = Some(response.first_byte);
        let Some(next) = redirects::next(&Method::GET, status, &headers, &url) else {
            if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
                let body = response.read(Bytes(SMALL_BODY), wait).await;
                if refused.is_none() {
                    refused = Some(status);
                    continue;
                }
                let authorized = request.headers().contains_key(header::AUTHORIZATION);
                return Err(error::fault(
                    status,
                    &headers,
                    &body?,
                    authorized,
                    &lines.scrub,
                ));
            }
            match refused {
                Some(refusal) => range.refused(refusal.as_u16()),
                None => range.answered(status),
            }
            response.read_first(Bytes(2), wait).await?;
            return Ok(Source {
                endpoint: lines.endpoint(line).clone(),
                to: lines.address(line),
                request,
                layer,
                first_touch,
                takes_ranges: refused.is_none(),
            });
        };
        let _ = response.read(Bytes(SMALL_BODY), wait).await;
        followed += 1;
        if followed >= MAX_REQUESTS {
            return Err(redirects::TOO_MANY);
        }
        url = next?.url;
        line = lines.follow(line, Role::Blob, &url, false).await?;
    }
}

impl Connection {
    fn new(endpoint: &Endpoint, http: HttpConnection, socket: Option<OwnedFd>) -> Self {
        let info = socket.as_ref().and_then(|s| kernel::tcp_info(s).ok());
        Self {
            endpoint: endpoint.clone(),
            http: Arc::new(tokio::sync::Mutex::new(http)),
            socket,
            before: info
                .and_then(|i| Some((i.bytes_received?, i.data_segments_in?.into())))
                .unwrap_or_default(),
            segment: 0,
            arrived: 0,
        }
    }

    /// Bytes that have arrived, in order or not. The kernel counts those in order; data that waits behind a lost
    /// segment would then be counted all at once, and make the rate look higher than it is. So segments are counted if
    /// they amount to more, with their mean size until then.
    fn arrived(&mut self) -> Option<u64> {
        let info = kernel::tcp_info(self.socket.as_ref()?).ok()?;
        let bytes = info.bytes_received?.saturating_sub(self.before.0);
        let segments = u64::from(info.data_segments_in?).saturating_sub(self.before.1);
        if segments >= ENOUGH_SEGMENTS {
            let mean = u128::from(bytes) * NANO / u128::from(segments);
            self.segment = self.segment.max(u64::try_from(mean).unwrap_or_default());
        }
        let by_segments = u128::from(segments) * u128::from(self.segment) / NANO;
        let arrived = bytes.max(u64::try_from(by_segments).unwrap_or_default());
        self.arrived = self.arrived.max(arrived);
        Some(self.arrived)
    }

    /// The last response was read to its end, and the server has not closed the connection.
    fn is_reusable(&self) -> bool {
        self.http.try_lock().is_ok_and(|http| http.is_reusable())
    }

    fn min_rtt(&self) -> Option<Duration> {
        kernel::tcp_info(self.socket.as_ref()?).ok()?.min_rtt
    }

    fn options(&self) -> Option<TcpOptions> {
        kernel::tcp_info(self.socket.as_ref()?).ok()?.options
    }
}

impl Control {
    /// Connects as to any host without settings: no credential, header or certificate of the registry is sent there,
    /// and no redirect is followed.
    async fn prepare(lines: &Connections<'_>, url: &Url) -> Option<Self> {
        let endpoint = Endpoint::of(url)?;
        let (mut ready, mut fault) = (Vec::new(), None);
        let probe_network = lines.probe_network;
        let client = probe_network
            .trust
            .client(RegistryHost::plain(endpoint.clone()));
        let mut scrub = Scrubber::default();
        trace::hide_query(url, &mut scrub);
        let requests = lines.requests.of_host();
        let (direct, rules) = (lines.direct, lines.rules);
        let mut own = Connections::new(
            probe_network,
            &client,
            &NoProgress,
            scrub,
            direct,
            rules,
            requests,
        );
        match own.open(Role::Blob, &endpoint).await {
            Err(_) => fault = Some("it can't be reached".to_owned()),
            Ok(line) => {
                let request = own.request(line, Method::GET, target(url));
                let to = own.address(line);
                let all = (0..STREAMS).map(|_| own.connect_again(&endpoint, to, None));
                for connected in join_all(all).await {
                    match connected {
                        Ok((http, _)) => ready.push((http, request.clone())),
                        Err(not) => fault = Some(format!("{}: {}", not.phase, not.reason)),
                    }
                }
            }
        }
        Some(Self {
            result: ControlTransfer {
                endpoint,
                fault,
                arrivals: Vec::new(),
            },
            ready,
            tasks: Vec::new(),
            meters: Vec::new(),
        })
    }

    fn bytes(&self) -> u64 {
        self.meters.iter().map(|meter| meter.bytes()).sum()
    }

    fn start(&mut self, connections: usize, wait: Duration, allowance: &Arc<Allowance>) {
        let number = connections.min(self.ready.len());
        for (http, request) in self.ready.drain(..number) {
            let meter = Arc::new(Meter::new());
            self.meters.push(Arc::clone(&meter));
            let reading = stream::read_control(http, request, wait, meter, Arc::clone(allowance));
            self.tasks.push(tokio::spawn(reading));
        }
    }

    fn end(self) -> ControlTransfer {
        let mut control = self.result;
        for task in self.tasks {
            task.abort();
            // A finished task returns its reason; one that was still reading has none.
            let result = futures_util::FutureExt::now_or_never(task);
            control.fault = result.and_then(Result::ok).flatten().or(control.fault);
        }
        control
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refusal_outweighs_what_was_honoured() {
        let mut range = RangeObservation::default();
        range.refused(503);
        assert_eq!(
            range,
            RangeObservation::default(),
            "that is not about the part"
        );
        range.answered(StatusCode::PARTIAL_CONTENT);
        assert_eq!(range.honoured, Some(true));
        range.refused(416);
        range.refused(403);
        range.answered(StatusCode::PARTIAL_CONTENT);
        let expected = RangeObservation {
            honoured: Some(false),
            refused_with: Some(416),
        };
        assert_eq!(range, expected);
    }
}
