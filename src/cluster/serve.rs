//! The HTTP server of the cluster role: metrics, real pulls as JSON, the status page.

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

/// The state that handlers share.
#[derive(Clone, Debug)]
pub struct App {
    state: Shared,
    stop: CancellationToken,
    /// Cancelled when the runner's loop has ended.
    running: CancellationToken,
    scrape: Arc<Mutex<()>>,
}

impl App {
    /// `running` is cancelled when the runner's loop has ended, `stop` when the program stops.
    pub fn new(state: Shared, running: CancellationToken, stop: CancellationToken) -> Self {
        Self {
            state,
            stop,
            running,
            scrape: Arc::default(),
        }
    }

    /// The routes; they only read, and need no authentication.
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
    // A thousand pairs take some tens of milliseconds and some megabytes, so one scrape runs at a time.
    let _guard = app.scrape.clone().lock_owned().await;
    let text = tokio::task::spawn_blocking(move || metrics::text(&app.state.read())).await;
    made(METRICS, text.map_err(|_| "metrics can't be rendered"))
}

async fn index(State(app): State<App>) -> Response {
    html(page::index(&app.state.read(), Timestamp::now()))
}

// ---- API ----------------------------------------------------------------------------------------

/// `/api/v1/pulls`.
#[derive(Default, Serialize)]
struct PullsDocument<'a> {
    /// This replica holds the Lease; otherwise the lists are empty.
    active: bool,
    /// Problems because of which the lists may be incomplete.
    problems: Vec<String>,
    /// Containers whose image can't be pulled, the newest first.
    failing: Vec<FailingSummary<'a>>,
    /// Pods that name Secrets which can't be read.
    missing_secrets: Vec<SecretsSummary<'a>>,
    /// Pairs of registry and node whose pulls are slow, with the cause.
    slow: Vec<SlowSummary<'a>>,
    /// The newest pulls first.
    pulls: Vec<PullSummary<'a>>,
    /// Messages that match no cause.
    unmatched_messages: Vec<&'a Unknown>,
}

#[derive(Serialize)]
struct FailingSummary<'a> {
    #[serde(flatten)]
    key: &'a ContainerKey,
    #[serde(flatten)]
    of: &'a Failing,
    /// Absent if no cause matches the message, or there was no message.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    /// Causes that match the message as well.
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
    /// Absent if the kubelet does not report it separately (before Kubernetes 1.28).
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_bytes: Option<u64>,
    /// Absent if the pull was too short for a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<f64>,
}

/// The document of `pullpath lint -o json`, with the newest result.
async fn lint(State(app): State<App>) -> Response {
    let found = app.state.read().lint.clone();
    match found {
        Some(found) => json(&LintDocument::new(Timestamp::now(), (*found).clone())),
        None => plain(
            StatusCode::NOT_FOUND,
            "this replica has no lint result: it is on standby, has just become active, or cluster.lint is off\n",
        ),
    }
}

async fn pulls(State(app): State<App>) -> Response {
    json(&summary(&app.state.read()))
}

fn summary(state: &ClusterState) -> PullsDocument<'_> {
    let active = state.role.is_active();
    let mut all = PullsDocument {
        active,
        problems: state.problems(),
        ..PullsDocument::default()
    };
    // What it observed while it was active is outdated.
    if !active {
        return all;
    }
    let tally = &state.tally;
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
        cause: one.failure.cause,
        or: &one.failure.or,
        facts: advice::facts(&one.failure, &one.image),
        hint: advice::hint(&one.failure, &one.image, &one.node),
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
    let state = app.state.read();
    let mut text = match &state.role {
        Role::Active { .. } => format!("ready: active, holding the Lease {}\n", state.lease),
        Role::Standby { why, .. } => format!(
            "ready: on standby for the Lease {}: {}\n",
            state.lease,
            why.as_deref()
                .unwrap_or("the API server has not answered yet")
        ),
    };
    for problem in state.problems() {
        let _ = writeln!(text, "{problem}");
    }
    plain(StatusCode::OK, text)
}
