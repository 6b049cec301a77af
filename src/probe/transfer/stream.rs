//! Reads one layer, or a part of it: counted, timed, and verified when it is complete.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes as Body;
use http::{Request, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::model::fault::HttpFault;
use crate::model::text::hex;
use crate::model::transfer::{Bursts, StreamEnd};
use crate::model::units::Bytes;
use crate::net::http::{HttpConnection, Response};
use crate::own;
use crate::redact::Scrubber;
use crate::registry::error;

/// What all streams of a test may read in total.
#[derive(Debug)]
pub(super) struct Allowance {
    left: AtomicU64,
}

impl Allowance {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            left: AtomicU64::new(bytes),
        }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Spends up to `bytes`; returns how many of them were left.
    fn take(&self, bytes: u64) -> u64 {
        let less = |left: u64| Some(left.saturating_sub(bytes));
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.unwrap_or_default().min(bytes)
    }
}

/// What a stream's task reports while it runs.
#[derive(Debug)]
pub(super) struct Meter {
    begin: Instant,
    bytes: AtomicU64,
    /// When the newest byte arrived, in microseconds since `begin`; 0 if none has.
    newest: AtomicU64,
    result: Mutex<StreamResult>,
}

#[derive(Debug, Default)]
pub(super) struct StreamResult {
    pub(super) first_byte: Option<Duration>,
    pub(super) longest_stall: Duration,
    pub(super) end: Option<StreamEnd>,
    bursts: Vec<(Instant, u64)>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            bytes: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            result: Mutex::default(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn result(&self) -> MutexGuard<'_, StreamResult> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_over(&self) -> bool {
        self.result().end.is_some()
    }

    /// How long no byte has arrived, if one had before.
    pub(super) fn silent(&self) -> Option<Duration> {
        let newest = self.newest.load(Ordering::Relaxed);
        let newest = (newest > 0).then(|| self.begin + Duration::from_micros(newest))?;
        Some(newest.elapsed())
    }

    fn arrived(&self, now: Instant, all: u64) {
        self.bytes.store(all, Ordering::Relaxed);
        let micros = now.duration_since(self.begin).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX).max(1);
        self.newest.store(micros, Ordering::Relaxed);
    }
}

impl StreamResult {
    /// The medians of the bursts between two pauses; the first and the last burst are not complete.
    pub(super) fn bursts(&self) -> Option<Bursts> {
        let whole = self.bursts.windows(2).skip(FIRST_BURSTS);
        let (mut periods, mut sizes): (Vec<Duration>, Vec<u64>) = whole
            .map(|pair| (pair[1].0.duration_since(pair[0].0), pair[0].1))
            .unzip();
        let count = periods.len();
        if count < FEWEST_BURSTS {
            return None;
        }
        periods.sort_unstable();
        sizes.sort_unstable();
        Some(Bursts {
            count,
            bytes: Bytes(sizes[count / 2]),
            period: periods[count / 2],
        })
    }
}

/// The bursts of slow start are small, and arrive once per round trip on any path.
const FIRST_BURSTS: usize = 5;
const FEWEST_BURSTS: usize = 8;
const MAX_BURSTS: usize = 512;

/// The part of a layer to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The number of bytes, from the start of the request.
    pub(super) length: u64,
    /// It is the layer from its first byte to its last.
    pub(super) is_whole: bool,
    /// The longest wait for the next byte.
    pub(super) wait: Duration,
    /// A pause of this length ends a burst.
    pub(super) pause: Duration,
}

/// Reads a part to its end, or until the allowance is used up.
pub(super) async fn read(
    http: &tokio::sync::Mutex<HttpConnection>,
    request: Request<Body>,
    part: Part,
    meter: &Meter,
    allowance: &Allowance,
    digest: &str,
) -> StreamEnd {
    match read_part(http, request, part, meter, allowance).await {
        Err(fault) => StreamEnd::Failed { fault },
        Ok(None) => StreamEnd::Stopped,
        Ok(Some(found)) => StreamEnd::Complete {
            digest_matches: digest == found,
        },
    }
}

/// Returns the digest, if it was the whole layer.
async fn read_part(
    http: &tokio::sync::Mutex<HttpConnection>,
    request: Request<Body>,
    part: Part,
    meter: &Meter,
    allowance: &Allowance,
) -> Result<Option<String>, HttpFault> {
    let authorized = request.headers().contains_key(http::header::AUTHORIZATION);
    let mut response: Response = http.lock().await.send(request, part.wait).await?;
    let first_byte = response.first_byte;
    meter.result().first_byte = Some(first_byte);
    if !matches!(
        response.status,
        StatusCode::OK | StatusCode::PARTIAL_CONTENT
    ) {
        let (status, headers) = (response.status, &response.headers);
        return Err(error::fault(
            status,
            headers,
            b"",
            authorized,
            &Scrubber::default(),
        ));
    }
    let mut hash = part.is_whole.then(Hasher::start);
    let (mut got, mut before) = (0u64, Instant::now());
    let (mut stall, mut burst) = (Duration::ZERO, (before, 0u64));
    while got < part.length {
        if allowance.is_spent() {
            return Ok(None);
        }
        let Some(data) = response.next(got, part.wait).await? else {
            return Err(HttpFault::Truncated {
                got: Bytes(got),
                want: Some(Bytes(part.length)),
            });
        };
        let now = Instant::now();
        let pause = now.duration_since(before);
        before = now;
        // A server may send more than was requested, and a read may return more than is allowed.
        let length = allowance.take((data.len() as u64).min(part.length - got));
        if let Some(hash) = &mut hash {
            let end = usize::try_from(length).unwrap_or(data.len());
            hash.update(data.slice(..end)).await;
        }
        got += length;
        meter.arrived(now, got);
        if pause > stall {
            stall = pause;
            meter.result().longest_stall = pause;
        }
        if pause >= part.pause {
            let mut result = meter.result();
            if result.bursts.len() < MAX_BURSTS {
                result.bursts.push(burst);
            }
            burst = (now, 0);
        }
        burst.1 += length;
    }
    Ok(match hash {
        Some(hash) => hash.finish().await,
        None => None,
    })
}

/// The digest of the data, computed on a separate thread: on one thread with the decryption, it would halve the rate of
/// a fast path.
struct Hasher {
    batch: Vec<Body>,
    bytes: usize,
    send: mpsc::Sender<Vec<Body>>,
    digest: JoinHandle<String>,
}

/// How many bytes are handed over at once, and how often before the reader has to wait: 4 MiB.
const BATCH: usize = 256 << 10;
const BATCHES: usize = 16;

impl Hasher {
    fn start() -> Self {
        let (send, mut receive) = mpsc::channel::<Vec<Body>>(BATCHES);
        let digest = own::blocking(move || {
            let mut hash = Context::new(&SHA256);
            while let Some(batch) = receive.blocking_recv() {
                for bytes in &batch {
                    hash.update(bytes);
                }
            }
            format!("sha256:{}", hex(hash.finish().as_ref()))
        });
        Self {
            batch: Vec::new(),
            bytes: 0,
            send,
            digest,
        }
    }

    async fn update(&mut self, bytes: Body) {
        self.bytes += bytes.len();
        self.batch.push(bytes);
        if self.bytes >= BATCH {
            self.bytes = 0;
            // Fails only if the thread has ended, and the digest with it.
            let _ = self.send.send(std::mem::take(&mut self.batch)).await;
        }
    }

    async fn finish(self) -> Option<String> {
        let _ = self.send.send(self.batch).await;
        drop(self.send);
        self.digest.await.ok()
    }
}

/// Reads from the control host until the test ends. Returns why there was nothing, or no more.
pub(super) async fn read_control(
    mut http: HttpConnection,
    request: Request<Body>,
    wait: Duration,
    meter: Arc<Meter>,
    allowance: Arc<Allowance>,
) -> Option<String> {
    let mut response = match http.send(request, wait).await {
        Ok(response) => response,
        Err(fault) => return Some(fault.to_string()),
    };
    if !matches!(
        response.status,
        StatusCode::OK | StatusCode::PARTIAL_CONTENT
    ) {
        return Some(format!("HTTP {}", response.status.as_u16()));
    }
    let mut got = 0;
    while !allowance.is_spent() {
        match response.next(got, wait).await {
            Ok(Some(data)) => {
                got += allowance.take(data.len() as u64);
                meter.arrived(Instant::now(), got);
            }
            Ok(None) => return Some(format!("the content ended after {}", Bytes(got))),
            Err(fault) => return Some(fault.to_string()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_was_allowed() {
        let allowance = Allowance::new(100);
        assert_eq!((allowance.take(60), allowance.is_spent()), (60, false));
        assert_eq!((allowance.take(60), allowance.is_spent()), (40, true));
        assert_eq!(allowance.take(1), 0);
    }
}
