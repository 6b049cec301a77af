//! The HTTP server of the cluster role: metrics, real pulls as JSON, the status page.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use super::state::{ClusterState, Role, Shared};
use super::{metrics, page};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::model::units::Seconds;
use crate::pulls::paste::MOST_PASTED;
use crate::pulls::tally::{ContainerKey, Failing, Pull, SecretsMissing, Unknown, rate};
use crate::pulls::{advice, answer};
use crate::report::explain::ExplainDocument;
use crate::report::lint::LintDocument;
use crate::serving::answer::{Newest, alone};
use crate::serving::cause;
use crate::serving::http::{
    HTML, JSON, METRICS, guard, html, made, plain, style, with_form, write_json, write_page,
};
use crate::serving::listener::Connections;

/// The state that handlers share.
#[derive(Clone, Debug)]
pub struct App {
    state: Shared,
    stop: CancellationToken,
    /// Cancelled when the runner's loop has ended.
    running: CancellationToken,
    public: Arc<Connections>,
    newest: Arc<NewestTexts>,
    /// Forms that are being read.
    forms: Arc<Semaphore>,
    explain: Arc<Mutex<()>>,
}

/// Texts about all pulls and workloads. A thousand pairs take some tens of milliseconds.
#[derive(Debug, Default)]
struct NewestTexts {
    metrics: Newest,
    page: Newest,
    pulls: Newest,
    lint: Newest,
}

impl App {
    /// `running` is cancelled when the runner's loop has ended, `stop` when the program stops.
    pub fn new(
        state: Shared,
        running: CancellationToken,
        stop: CancellationToken,
        public: Arc<Connections>,
    ) -> Self {
        Self {
            state,
            stop,
            running,
            public,
            newest: Arc::default(),
            forms: Arc::new(Semaphore::new(FORMS_AT_ONCE)),
            explain: Arc::default(),
        }
    }

    /// The routes; they change nothing, and need no authentication.
    pub fn public(&self) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/explain", get(explain_form).post(explain_text))
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
    let newest = app.newest.clone();
    let text = newest.metrics.get(move |to| {
        metrics::write(&app.state.read(), &app.public, to);
        Ok::<_, Infallible>(())
    });
    made(METRICS, text.await)
}

async fn index(State(app): State<App>) -> Response {
    let newest = app.newest.clone();
    let page = newest.page.get(move |to| {
        let state = app.state.read();
        write_page(&page::index(&state, Timestamp::now()), to)
    });
    with_form(made(HTML, page.await))
}

// ---- pasted messages ----------------------------------------------------------------------------

/// The longest body of a form: each byte of the text may take three.
const MOST_FORM: usize = 3 * MOST_PASTED + 1024;

/// Maximum of forms that are in memory at the same time.
const FORMS_AT_ONCE: usize = 4;

async fn explain_form() -> Response {
    with_form(html(&page::explain(None)))
}

/// Explains the text of a form. Nothing is contacted, stored or logged.
async fn explain_text(State(app): State<App>, body: Body) -> Response {
    let Ok(_permit) = app.forms.try_acquire() else {
        return plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "other texts are being explained; try again later\n",
        );
    };
    let body = to_bytes(body, MOST_FORM).await;
    // A long text takes a part of a second, so one is explained at a time.
    let lock = app.explain.clone().lock_owned().await;
    let text = body.ok().map(|body| form_text(&body));
    let page = alone(lock, move |_| {
        let answers = match &text {
            Some(text) => answer::explain(text),
            None => Err(answer::PasteError::TooLong),
        };
        let problem = answers.as_ref().err().copied();
        let paste = answers
            .map(ExplainDocument::new)
            .map_err(|error| error.to_string());
        (problem, html(&page::explain(Some(&paste))))
    });
    let Some((problem, page)) = page.await else {
        return plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the text can't be explained\n",
        );
    };
    let mut response = with_form(page);
    match problem {
        Some(answer::PasteError::TooLong) => *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE,
        Some(answer::PasteError::Empty) => *response.status_mut() = StatusCode::BAD_REQUEST,
        None => {}
    }
    response
}

/// The field `text` of a form; empty if it has none.
fn form_text(body: &[u8]) -> String {
    let mut fields = url::form_urlencoded::parse(body);
    let text = fields.find(|(name, _)| name == "text");
    text.map_or_else(String::new, |(_, text)| text.into_owned())
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
    /// How sure the cause is; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<Confidence>,
    /// No registry is at fault: the node, its policies or the pod's own settings are.
    on_node: bool,
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
    let Some(found) = found else {
        return plain(
            StatusCode::NOT_FOUND,
            "this replica has no lint result: it is on standby, has just become active, or cluster.lint is off\n",
        );
    };
    let text = app
        .newest
        .lint
        .get(move |to| write_json(&LintDocument::new(Timestamp::now(), (*found).clone()), to));
    made(JSON, text.await)
}

async fn pulls(State(app): State<App>) -> Response {
    let newest = app.newest.clone();
    let text = newest
        .pulls
        .get(move |to| write_json(&summary(&app.state.read()), to));
    made(JSON, text.await)
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
        confidence: one.failure.confidence,
        on_node: one.failure.is_on_node(),
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

#[cfg(test)]
mod tests {
    use askama::Template as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::kubernetes::watch::WatchState;
    use crate::pulls::tally::{Limits, Tally};
    use crate::serving::listener::{Listeners, serve};
    use crate::serving::reload::Reload;
    use crate::workload::pod::Event;

    /// A server on loopback, and a function that sends it one request.
    async fn server() -> (std::net::SocketAddr, CancellationToken) {
        let state = Shared::new(ClusterState {
            identity: "a".to_owned(),
            lease: "pullpath/pullpath-cluster".to_owned(),
            role: Role::Standby {
                why: None,
                is_problem: false,
            },
            events: None,
            tally: Tally::default(),
            lint: None,
            reload: Reload::begin(Timestamp::UNIX_EPOCH),
        });
        let stop = CancellationToken::new();
        let public = Listeners::of_process().public;
        let app = App::new(
            state,
            CancellationToken::new(),
            stop.clone(),
            public.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, app.public(), public, stop.clone()));
        (address, stop)
    }

    async fn ask(address: std::net::SocketAddr, head: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        // A server that refuses the length does not read all of it.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    fn form(text: &str) -> Vec<u8> {
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("text", text)
            .finish()
            .into_bytes()
    }

    #[tokio::test]
    async fn the_box_of_the_page_explains_a_pasted_error_without_scripts() {
        let (address, stop) = server().await;
        for page in ["GET /", "GET /explain"] {
            let page = ask(address, page, b"").await;
            assert!(
                page.contains("<form class=\"paste\" action=\"/explain\" method=\"post\">"),
                "{page}"
            );
            assert!(
                page.contains("form-action 'self'") && !page.contains("<script"),
                "{page}"
            );
        }
        let cause = ask(address, "GET /causes/disk_full", b"").await;
        assert!(cause.contains("form-action 'none'"), "{cause}");

        let text = "Failed to pull image \"r.example.com/a:1\": rpc error: code = Unknown desc = failed to do request: Head \"https://me:hunter2@r.example.com/v2/a/manifests/1?sig=hunter2\": dial tcp 10.0.0.9:443: i/o timeout <b>&";
        let page = ask(address, "POST /explain", &form(text)).await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        for part in [
            "<a href=\"/causes/tcp_timeout\">",
            "confidence high",
            "pullpath probe r.example.com/a:1",
            "address: 10.0.0.9:443",
            "&#60;b&#62;",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("hunter2") && !page.contains("<b>"), "{page}");

        let node = "failed to register layer: operation not permitted";
        let page = ask(address, "POST /explain", &form(node)).await;
        assert!(
            page.contains("no registry is at fault") && !page.contains("pullpath probe"),
            "{page}"
        );

        let unknown = ask(address, "POST /explain", &form("hello")).await;
        assert!(unknown.contains("No known cause"), "{unknown}");
        let empty = ask(address, "POST /explain", b"other=1").await;
        assert!(
            empty.starts_with("HTTP/1.1 400") && empty.contains("the text is empty"),
            "{empty}"
        );
        for long in [MOST_PASTED + 1, MOST_FORM + 1] {
            let page = ask(address, "POST /explain", &form(&"x".repeat(long))).await;
            assert!(
                page.starts_with("HTTP/1.1 413"),
                "{}",
                &page[..200.min(page.len())]
            );
            assert!(page.contains("longer than 256 KiB"), "{page}");
        }
        stop.cancel();
    }

    /// The page, the API and the metrics after a list of these Events.
    fn served(events: &[Event]) -> [String; 3] {
        let now = Timestamp::from_second(2000).unwrap();
        let limits = Limits {
            max_pairs: 2,
            ..Limits::default()
        };
        let mut tally = Tally::new(limits, Timestamp::UNIX_EPOCH);
        tally.list_begins();
        for event in events {
            tally.take(event, now);
        }
        tally.list_ends(now);
        let state = ClusterState {
            identity: "a".to_owned(),
            lease: "pullpath/pullpath-cluster".to_owned(),
            role: Role::Active { since: now },
            events: Some(WatchState::Unknown),
            tally,
            lint: None,
            reload: Reload::begin(now),
        };
        let api = serde_json::to_string_pretty(&summary(&state)).unwrap();
        let mut metrics = String::new();
        metrics::write(&state, &Listeners::of_process().public, &mut metrics);
        let lasting = metrics.lines().filter(|line| !line.contains("process_"));
        [
            page::index(&state, now).render().unwrap(),
            api,
            lasting.collect::<Vec<_>>().join("\n"),
        ]
    }

    #[test]
    fn what_is_served_does_not_depend_on_the_order_of_listed_events() {
        let event = |number: u32| {
            let image = format!("r{}.test/a:{}", number % 3, number % 4);
            let (reason, message) = match number % 4 {
                0 => (
                    "Failed",
                    format!("Failed to pull image \"{image}\": a text of its own, {number}"),
                ),
                1 => (
                    "FailedToRetrieveImagePullSecret",
                    format!("Unable to retrieve some image pull secrets (s{number}); …"),
                ),
                _ => (
                    "Pulled",
                    format!(
                        "Successfully pulled image \"{image}\" in 6s ({}s including waiting). Image size: 9000000 bytes.",
                        12 + number % 5
                    ),
                ),
            };
            let at = Timestamp::from_second(1000 + i64::from(number / 2)).ok();
            Event {
                uid: format!("{number:032x}"),
                namespace: "shop".to_owned(),
                pod: format!("p{}", number % 7),
                container: "app".to_owned(),
                node: format!("n{}", number % 2),
                reason: reason.to_owned(),
                message,
                is_warning: false,
                count: 1,
                first: at,
                last: at,
            }
        };
        let mut events: Vec<Event> = (0..90).map(event).collect();
        let in_order = served(&events);
        let [page, api, metrics] = &in_order;
        assert!(page.contains("a text of its own"), "{page}");
        assert!(
            api.contains("serial_pull") && api.contains("\"s89\""),
            "{api}"
        );
        assert!(metrics.contains("pullpath_real_pull_throughput_bytes_per_second_sum"));
        for by in [7, 31] {
            events.rotate_left(by);
            events.reverse();
            assert_eq!(served(&events), in_order);
        }
    }
}
