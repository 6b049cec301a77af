//! Small requests on an idle connection, to see how long others wait while layers come (the working
//! latency of draft-ietf-ippm-responsiveness).

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

/// Between two requests.
const PERIOD: Duration = Duration::from_millis(250);
/// A full pull takes long.
const LONG_PERIOD: Duration = Duration::from_secs(2);

/// Before the load: three, or what fits.
const IDLE: usize = 3;
const IDLE_LIMIT: Duration = Duration::from_secs(1);

const MAX_PINGS: usize = 512;

#[derive(Debug)]
pub(super) struct Pinger {
    idle: Vec<Duration>,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    took: Option<Duration>,
}

impl Pinger {
    /// Asks a few times now, and goes on by itself; `None` where the server does not answer with the
    /// few bytes that were asked for.
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
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            for _ in 0..MAX_PINGS {
                if requests.spend().is_err() {
                    return;
                }
                let at = Instant::now();
                lock(&list).push(Asked { at, took: None });
                let Some(took) = ping(&mut http, request.clone(), wait).await else {
                    // It will never be answered, and tells nothing.
                    lock(&list).pop();
                    return;
                };
                if let Some(last) = lock(&list).last_mut() {
                    last.took = Some(took);
                }
                sleep_until(at + if is_long { LONG_PERIOD } else { PERIOD }).await;
            }
        });
        Some(Self { idle, asked, task })
    }

    /// The best that this path does.
    pub(super) fn idle(&self) -> Duration {
        self.idle.iter().copied().min().unwrap_or_default()
    }

    /// How long the newest request takes, or has taken so far.
    pub(super) fn newest(&self) -> Option<Duration> {
        let asked = lock(&self.asked);
        let mut last = asked.iter().rev();
        let newest = last.next()?;
        let so_far = newest.at.elapsed();
        match newest.took {
            Some(took) => Some(took),
            // A young one tells less than the one before it.
            None => Some(
                last.next()
                    .and_then(|a| a.took)
                    .map_or(so_far, |b| b.max(so_far)),
            ),
        }
    }

    /// What was seen, by the time since the first byte of a layer.
    pub(super) fn end(self, first: Instant) -> Pings {
        self.task.abort();
        let asked = lock(&self.asked);
        let loaded = asked
            .iter()
            .filter(|asked| asked.at >= first)
            .map(|asked| TransferPing {
                at: asked.at.duration_since(first),
                took: asked.took.unwrap_or_else(|| asked.at.elapsed()),
                is_unanswered: asked.took.is_none(),
            })
            .collect();
        Pings {
            idle: self.idle.clone(),
            loaded,
        }
    }
}

fn lock(list: &Mutex<Vec<Asked>>) -> MutexGuard<'_, Vec<Asked>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ping(
    http: &mut HttpConnection,
    request: Request<Body>,
    wait: Duration,
) -> Option<Duration> {
    let begin = Instant::now();
    let response = http.send(request, wait).await.ok()?;
    // Who sends all of the layer instead can't be asked again on this connection.
    if response.status != StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let (_, first) = response.read_first(Bytes(2), wait).await.ok()?;
    Some(first.duration_since(begin))
}
