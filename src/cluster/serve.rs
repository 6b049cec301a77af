//! What is served: metrics, real pulls as JSON, the status page.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::state::{ClusterState, Role, Shared};
use super::{metrics, page};
use crate::diagnose::catalogue::Cause;
use crate::model::units::Seconds;
use crate::pulls::advice;
use crate::pulls::tally::{ContainerKey, Failing, Pull, SecretsMissing, Unknown, rate};
use crate::report::lint::LintDocument;
use crate::serving::cause;
use crate::serving::http::{METRICS, guard, html, json, made, plain, style};

/// What handlers may touch.
#[derive(Clone, Debug)]
pub struct App {
    board: Shared,
    stop: CancellationToken,
    /// Ends with the loop.
    running: CancellationToken,
    scrape: Arc<Mutex<()>>,
}

impl App {
    /// `running` is cancelled when the loop has ended.
    pub fn new(board: Shared, running: CancellationToken, stop: CancellationToken) -> Self {
        Self {
            board,
            stop,
            running,
            scrape: Arc::default(),
        }
    }

    /// What anybody may read.
    pub fn public(&self) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/causes/{code}", get(cause::page))
            .route("/style.css", get(style))
            .route("/metrics", get(all_metrics))
            .route("/api/v1/pulls", get(pulls))
            .route("/api/v1/lint", get(lint))
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .layer(middleware::from_fn(guard))
            .with_state(self.clone())
    }
}

async fn all_metrics(State(app): State<App>) -> Response {
    // Of a thousand pairs it takes some tens of milliseconds, and some megabytes: one at a time.
    let _turn = app.scrape.clone().lock_owned().await;
    let text = tokio::task::spawn_blocking(move || metrics::text(&app.board.read())).await;
    made(METRICS, text.map_err(|_| "metrics can't be made"))
}

async fn index(State(app): State<App>) -> Response {
    html(page::index(&app.board.read(), Timestamp::now()))
}

// ---- API ----------------------------------------------------------------------------------------

/// `/api/v1/pulls`.
#[derive(Default, Serialize)]
struct PullsDocument<'a> {
    /// This replica watches; otherwise the lists are empty.
    active: bool,
    /// What keeps it from telling all.
    problems: Vec<String>,
    /// Containers whose image can't be pulled, the newest first.
    failing: Vec<FailingSummary<'a>>,
    /// Pods that name Secrets which can't be read.
    missing_secrets: Vec<SecretsSummary<'a>>,
    /// Where pulls are slow, and by what.
    slow: Vec<SlowSummary<'a>>,
    /// The newest pulls first.
    pulls: Vec<PullSummary<'a>>,
    /// Texts that have no name yet.
    unmatched_messages: Vec<&'a Unknown>,
}

#[derive(Serialize)]
struct FailingSummary<'a> {
    #[serde(flatten)]
    key: &'a ContainerKey,
    #[serde(flatten)]
    of: &'a Failing,
    /// Absent: no name for it, or only the state was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    /// The text fits these as well.
    or: &'a [Cause],
    facts: Vec<String>,
    hint: String,
}

#[derive(Serialize)]
struct SecretsSummary<'a> {
    namespace: &'a str,
    pod: &'a str,
    #[serde(flatten)]
    of: &'a SecretsMissing,
}

#[derive(Serialize)]
struct SlowSummary<'a> {
    registry: &'a str,
    node: &'a str,
    cause: &'static str,
    seen: &'a str,
    hint: &'static str,
}

#[derive(Serialize)]
struct PullSummary<'a> {
    #[serde(flatten)]
    of: &'a Pull,
    #[serde(with = "Seconds")]
    pulling_seconds: std::time::Duration,
    /// Absent where the kubelet does not tell it apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_bytes: Option<u64>,
    /// Absent where the time was too short to be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<f64>,
}

/// What `pullpath lint -o json` prints, of the newest look.
async fn lint(State(app): State<App>) -> Response {
    let found = app.board.read().lint.clone();
    match found {
        Some(found) => json(&LintDocument::new(Timestamp::now(), (*found).clone())),
        None => plain(
            StatusCode::NOT_FOUND,
            "workloads are not looked at by this replica: it stands by, has only begun, or cluster.lint is off\n",
        ),
    }
}

async fn pulls(State(app): State<App>) -> Response {
    json(&summary(&app.board.read()))
}

fn summary(board: &ClusterState) -> PullsDocument<'_> {
    let active = board.role.is_active();
    let mut all = PullsDocument {
        active,
        problems: board.troubles(),
        ..PullsDocument::default()
    };
    // What it knew when it was active is old.
    if !active {
        return all;
    }
    let tally = &board.tally;
    all.failing = tally.failing.iter().map(failing).collect();
    all.failing
        .sort_by_key(|one| std::cmp::Reverse(one.of.last));
    let secrets = tally.secrets.iter();
    all.missing_secrets = secrets
        .map(|((namespace, pod), of)| SecretsSummary { namespace, pod, of })
        .collect();
    let slow = tally.pairs.iter();
    all.slow = slow
        .filter_map(|((registry, node), pair)| {
            let slow = pair.slow.as_ref()?;
            Some(SlowSummary {
                registry,
                node,
                cause: slow.cause.code(),
                seen: &slow.seen,
                hint: slow.cause.entry().fix,
            })
        })
        .collect();
    all.pulls = tally.newest.iter().map(pull).collect();
    all.unmatched_messages = tally.unknown.iter().collect();
    all
}

fn failing<'a>((key, one): (&'a ContainerKey, &'a Failing)) -> FailingSummary<'a> {
    FailingSummary {
        key,
        of: one,
        cause: one.told.cause,
        or: &one.told.or,
        facts: advice::facts(&one.told, &one.image),
        hint: advice::hint(&one.told, &one.image, &one.node),
    }
}

fn pull(one: &Pull) -> PullSummary<'_> {
    PullSummary {
        of: one,
        pulling_seconds: one.took.pulling,
        waiting_seconds: one.took.waiting().map(|waiting| waiting.as_secs_f64()),
        image_bytes: one.took.size.map(|size| size.0),
        bytes_per_second: rate(one.took),
    }
}

// ---- health -------------------------------------------------------------------------------------

const ENDED: &str = "the loop that holds the Lease has ended\n";

async fn health(State(app): State<App>) -> Response {
    if app.running.is_cancelled() && !app.stop.is_cancelled() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, ENDED);
    }
    plain(StatusCode::OK, "ok\n")
}

async fn ready(State(app): State<App>) -> Response {
    if app.stop.is_cancelled() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    if app.running.is_cancelled() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, ENDED);
    }
    let board = app.board.read();
    let mut text = match &board.role {
        Role::Active { .. } => format!("ready: active, holding the Lease {}\n", board.lease),
        Role::Standby { why, .. } => format!(
            "ready: standing by, {}\n",
            why.as_deref().unwrap_or("asking for the Lease")
        ),
    };
    for trouble in board.troubles() {
        let _ = writeln!(text, "{trouble}");
    }
    plain(StatusCode::OK, text)
}
