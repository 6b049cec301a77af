//! Small requests on an idle connection, to measure how long others wait while layers are read (the working latency of
//! draft-ietf-ippm-responsiveness).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes as Body;
use http::{Request, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::model::transfer::{Pings, TransferPing};
use crate::model::units::Bytes;
use crate::net::http::HttpConnection;
use crate::probe::requests::Requests;

/// Time between two requests.
const PERIOD: Duration = Duration::from_millis(250);
/// Time between two requests of a full pull, which takes long.
const LONG_PERIOD: Duration = Duration::from_secs(2);

/// Requests before the load: three, or as many as fit.
const IDLE: usize = 3;
const IDLE_LIMIT: Duration = Duration::from_secs(1);

const MAX_PINGS: usize = 512;

#[derive(Debug)]
pub(super) struct Pinger {
    idle: Vec<Duration>,
    sent: Arc<Mutex<Vec<SentPing>>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
struct SentPing {
    at: Instant,
    took: Option<Duration>,
}

impl Pinger {
    /// Sends a few requests now, and then continues in the background; `None` if the server does not answer with the
    /// few bytes that were requested.
    pub(super) async fn start(
        mut http: HttpConnection,
        request: Request<Body>,
        requests: Requests,
        wait: Duration,
        is_long: bool,
    ) -> Option<Self> {
        let begin = Instant::now();
        let mut idle = Vec::new();
        while idle.len() < IDLE && (idle.is_empty() || begin.elapsed() < IDLE_LIMIT) {
            requests.spend().ok()?;
            idle.push(ping(&mut http, request.clone(), wait).await?);
        }
        let sent = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            for _ in 0..MAX_PINGS {
                if requests.spend().is_err() {
                    return;
                }
                let at = Instant::now();
                lock(&list).push(SentPing { at, took: None });
                let Some(took) = ping(&mut http, request.clone(), wait).await else {
                    // It will never be answered, and has no meaning.
                    lock(&list).pop();
                    return;
                };
                if let Some(last) = lock(&list).last_mut() {
                    last.took = Some(took);
                }
                sleep_until(at + if is_long { LONG_PERIOD } else { PERIOD }).await;
            }
        });
        Some(Self { idle, sent, task })
    }

    /// The best latency of this path.
    pub(super) fn idle(&self) -> Duration {
        self.idle.iter().copied().min().unwrap_or_default()
    }

    /// How long the newest request takes, or has taken so far.
    pub(super) fn newest(&self) -> Option<Duration> {
        let sent = lock(&self.sent);
        let mut last = sent.iter().rev();
        let newest = last.next()?;
        let so_far = newest.at.elapsed();
        match newest.took {
            Some(took) => Some(took),
            // A recent one is less informative than the one before it.
            None => Some(
                last.next()
                    .and_then(|a| a.took)
                    .map_or(so_far, |b| b.max(so_far)),
            ),
        }
    }

    /// The results, with times since the first byte of a layer.
    pub(super) fn end(self, first: Instant) -> Pings {
        self.task.abort();
        let sent = lock(&self.sent);
        let loaded = sent
            .iter()
            .filter(|sent| sent.at >= first)
            .map(|sent| TransferPing {
                at: sent.at.duration_since(first),
                took: sent.took.unwrap_or_else(|| sent.at.elapsed()),
                is_unanswered: sent.took.is_none(),
            })
            .collect();
        Pings {
            idle: self.idle.clone(),
            loaded,
        }
    }
}

fn lock(list: &Mutex<Vec<SentPing>>) -> MutexGuard<'_, Vec<SentPing>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ping(
    http: &mut HttpConnection,
    request: Request<Body>,
    wait: Duration,
) -> Option<Duration> {
    let begin = Instant::now();
    let response = http.send(request, wait).await.ok()?;
    // If the server sends all of the layer instead, this connection can't be used again.
    if response.status != StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let (_, first) = response.read_first(Bytes(2), wait).await.ok()?;
    Some(first.duration_since(begin))
}
