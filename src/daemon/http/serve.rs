//! The handlers: metrics, `/probe`, reports, the status page; and the commands at the admin address.

#![expect(clippy::result_large_err, reason = "a response, made once")]

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLockReadGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::page;
use super::probes::Probes;
use super::status::{self, Status};
use crate::daemon::on_demand::{self, Request as ImageRequest};
use crate::daemon::runner::command::{Command, Refused};
use crate::daemon::schedule::admission::Deferred;
use crate::daemon::schedule::timetable::Tier;
use crate::daemon::store::compressed_report::CompressedReport;
use crate::daemon::store::history::{LegPath, Run};
use crate::daemon::store::overview::{Overview, TargetState};
use crate::daemon::store::target::TargetSource;
use crate::daemon::store::targets::{SharedStore, TargetStore, Watched};
use crate::kubernetes::watch::View;
use crate::model::endpoint::Role;
use crate::model::kubelet::KubeletVersion;
use crate::model::vantage::NodeFacts;
use crate::report::text::Style;
use crate::report::vantage::VantageDocument;
use crate::report::{Document, Report};
use crate::serving::answer::{Content, Newest, Part, alone, streamed};
use crate::serving::bounds::Peer;
use crate::serving::cause;
use crate::serving::http::{
    HTML, JSON, METRICS, TEXT, guard, html, json, local_only, made, of_type, plain, style,
    write_json, write_page,
};
use crate::serving::listener::Listeners;

/// The state that handlers share.
#[derive(Clone, Debug)]
pub struct App {
    /// What is known of the targets.
    pub store: SharedStore,
    /// Commands to the runner; closed once its loop has ended.
    pub commands: mpsc::Sender<Command>,
    /// Cancelled when the program stops.
    pub stop: CancellationToken,
    listeners: Listeners,
    /// Names of this host, for requests to `admin_listen`.
    names: Arc<[String]>,
    probes: Probes,
    newest: Arc<NewestTexts>,
    /// Held while a report is rendered as text: it takes some times the memory of the report.
    rendering: Arc<Mutex<()>>,
}

/// Texts about all targets. A thousand targets take some tens of milliseconds.
#[derive(Debug, Default)]
struct NewestTexts {
    metrics: Newest,
    page: Newest,
    targets: Newest,
}

/// The longest wait for a requested check, and the default if the scraper sends no timeout.
const PROBE_WAIT: Duration = Duration::from_mins(1);

/// Subtracted from a scraper's timeout, as blackbox_exporter does, so that the answer arrives in time.
const SCRAPE_MARGIN: f64 = 0.5;

/// The header in which Prometheus sends its scrape timeout.
const HEADER: &str = "x-prometheus-scrape-timeout-seconds";

impl App {
    /// Handlers that read `store` and send to `commands`. `names` are those of this host.
    pub fn new(
        store: SharedStore,
        commands: mpsc::Sender<Command>,
        stop: CancellationToken,
        listeners: Listeners,
        names: Vec<String>,
    ) -> Self {
        Self {
            store,
            commands,
            stop,
            listeners,
            names: names.into(),
            probes: Probes::default(),
            newest: Arc::default(),
            rendering: Arc::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, TargetStore> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The routes of `listen`: they only read, and need no authentication.
    pub fn public(&self) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/targets/{name}", get(target_page))
            .route("/targets/{name}/{run}", get(run_page))
            .route("/causes/{code}", get(cause::page))
            .route("/vantage", get(vantage_page))
            .route("/style.css", get(style))
            .route("/metrics", get(all_metrics))
            .route("/probe", get(probe))
            .route("/api/v1/targets", get(targets))
            .route("/api/v1/reports", get(reports))
            .route("/api/v1/reports/{name}", get(reports_of))
            .route("/api/v1/reports/{name}/{run}", get(report))
            .route("/api/v1/vantage", get(vantage))
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .layer(middleware::from_fn(guard))
            .with_state(self.clone())
    }

    /// The routes of `admin_listen`: commands, by default from this host only.
    pub fn admin(&self) -> Router {
        Router::new()
            .route("/-/reload", post(reload))
            .route("/-/check", post(check))
            .route("/-/probe", post(probe_image))
            .route("/-/node", get(node))
            .route(status::PATH, get(of_all))
            .route("/healthz", get(health))
            .layer(middleware::from_fn_with_state(
                Arc::clone(&self.names),
                |State(names), request, next| local_only(names, request, next),
            ))
            .layer(middleware::from_fn(guard))
            .with_state(self.clone())
    }

    /// The report of a run as text; `None`: it was dropped.
    async fn text_of(&self, run: Arc<Run>) -> Option<String> {
        let lock = Arc::clone(&self.rendering).lock_owned().await;
        alone(lock, move |_| run.text()).await?
    }
}

fn unknown(name: &str) -> Response {
    let name = crate::model::text::printable(name);
    plain(
        StatusCode::NOT_FOUND,
        format!("no target has the name '{name}'; /api/v1/targets lists all\n"),
    )
}

// ---- metrics ------------------------------------------------------------------------------------

async fn all_metrics(State(app): State<App>) -> Response {
    let newest = app.newest.clone();
    let text = newest.metrics.get(move |to| {
        metrics::write(&app.read(), &app.listeners, Timestamp::now(), to);
        Ok::<_, Infallible>(())
    });
    made(METRICS, text.await)
}

#[derive(Deserialize)]
struct ProbeQuery {
    target: Option<String>,
    #[serde(default)]
    debug: bool,
}

/// Like `/probe` of blackbox_exporter, for configured targets.
async fn probe(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<ProbeQuery>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let name = query.target.ok_or_else(|| {
        plain(
            StatusCode::BAD_REQUEST,
            "the parameter target is missing: /probe?target=NAME; /api/v1/targets lists all\n",
        )
    })?;
    let busy = "too many on-demand checks are running; try again later\n";
    let _place = app.probes.take(peer).ok_or_else(|| later(busy, BUSY))?;
    let begun = Instant::now();
    let answer = request_check(&app, &name, Tier::Reach, patience(&headers)).await;
    let took = begun.elapsed();
    let (run, success) = match &answer {
        Ok(run) => (Some(*run), None),
        // The target is being checked, or was just now: the newest result is the answer.
        Err(Refused::Busy) => (None, None),
        Err(Refused::NoSuchTarget) => return Err(unknown(&name)),
        Err(Refused::Deferred(reason)) => return Err(deferred(reason, Timestamp::now())),
        Err(Refused::Failed(_)) => (None, Some(false)),
    };
    let (known, text) = {
        let store = app.read();
        let watched = find(&store, &name)?;
        let now = Timestamp::now();
        let is_ready = TargetState::of(watched, now).is_ready();
        let success = success.unwrap_or(is_ready == Some(true));
        let mut text = String::new();
        metrics::write_target(&store, &name, now, &mut text);
        let _ = write!(
            text,
            "# HELP probe_duration_seconds Duration of the check, in seconds.\n# TYPE probe_duration_seconds gauge\nprobe_duration_seconds {}\n\
             # HELP probe_success 1: a pull would succeed, 0: it would fail, or that is unknown.\n# TYPE probe_success gauge\nprobe_success {}\n",
            took.as_secs_f64(),
            u8::from(success)
        );
        let run = run.and_then(|run| watched.history.run(run));
        (run.or(watched.history.newest()).cloned(), text)
    };
    if !query.debug {
        return Ok(of_type(METRICS, text));
    }
    let log = match known {
        Some(run) => app.text_of(run).await,
        None => None,
    };
    let log = log.unwrap_or_else(|| format!("{answer:?}\n"));
    let text =
        Content::written(|to| write!(to, "{log}\nMetrics that would have been returned:\n{text}"));
    Ok(made(TEXT, text))
}

/// How long the scraper waits.
fn patience(headers: &HeaderMap) -> Duration {
    let scraper = headers
        .get(HeaderName::from_static(HEADER))
        .and_then(|value| value.to_str().ok()?.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64((seconds - SCRAPE_MARGIN).max(0.1)).ok());
    scraper.unwrap_or(PROBE_WAIT).min(PROBE_WAIT)
}

/// Sends a command and waits for the answer; `None`: the daemon stops.
async fn command<T>(app: &App, of: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
    let (done, answer) = oneshot::channel();
    app.commands.send(of(done)).await.ok()?;
    answer.await.ok()
}

async fn request_check(app: &App, name: &str, tier: Tier, wait: Duration) -> Result<u64, Refused> {
    let answer = command(app, |done| Command::Check {
        target: Arc::from(name),
        tier,
        done,
    });
    match timeout(wait, answer).await {
        Ok(answer) => answer.unwrap_or(Err(Refused::Failed("stopping"))),
        Err(_) => Err(Refused::Failed("too_late")),
    }
}

// ---- API ----------------------------------------------------------------------------------------

/// One of `/api/v1/targets`.
#[derive(Serialize)]
struct TargetSummary<'a> {
    name: &'a str,
    image: String,
    registry: &'a str,
    /// As the label of `pullpath_target_state`.
    state: &'static str,
    /// `would_succeed`, `would_fail`, `unknown`, `timed_out`, `panicked`; absent before the first check.
    outcome: Option<&'static str>,
    checked: Option<Timestamp>,
    next: Option<Timestamp>,
    last_success: Option<Timestamp>,
    consecutive_failures: u64,
    paths: Vec<LegPath<'a>>,
    findings: Vec<FindingSummary<'a>>,
    /// `configuration`, `pods`, or both.
    sources: &'a [TargetSource],
    /// Containers of this node that use the image.
    uses: Vec<UseSummary<'a>>,
    runs: Vec<&'a Run>,
}

#[derive(Serialize)]
struct UseSummary<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    image: &'a str,
    policy: &'static str,
    /// The container waits for this image.
    waits: bool,
    /// The image is present, and the kubelet sends no request for it. `null`: the kubelet may verify it by a
    /// pull (Kubernetes 1.35 or later), or its version is unknown.
    needs_no_pull: Option<bool>,
}

#[derive(Serialize)]
struct FindingSummary<'a> {
    cause: &'static str,
    severity: &'static str,
    leg: Option<&'static str>,
    hint: &'a str,
}

fn summary<'a>(
    watched: &'a Watched,
    kubelet: Option<&KubeletVersion>,
    now: Timestamp,
) -> TargetSummary<'a> {
    let (target, history) = (&watched.target, &watched.history);
    TargetSummary {
        name: &target.name,
        image: target.reference.to_string(),
        registry: &target.registry,
        state: TargetState::of(watched, now).as_str(),
        outcome: history.newest().map(|run| run.outcome.as_str()),
        checked: history.checked,
        next: watched.next,
        last_success: history.last_success,
        consecutive_failures: history.consecutive_failures,
        paths: history.paths().collect(),
        findings: history
            .findings()
            .map(|finding| FindingSummary {
                cause: finding.cause.code(),
                severity: finding.severity.as_str(),
                leg: finding.leg.map(Role::as_str),
                hint: &finding.hint,
            })
            .collect(),
        sources: &target.sources,
        uses: target
            .uses
            .iter()
            .map(|one| UseSummary {
                namespace: &one.namespace,
                pod: &one.pod,
                container: &one.container,
                image: &one.image,
                policy: one.policy.as_str(),
                waits: one.waits,
                needs_no_pull: one.needs_no_pull(kubelet),
            })
            .collect(),
        runs: history.runs().map(AsRef::as_ref).collect(),
    }
}

async fn targets(State(app): State<App>) -> Response {
    let newest = app.newest.clone();
    let text = newest.targets.get(move |to| {
        let store = app.read();
        let kubelet = store.kubelet();
        let (all, now) = (store.targets.values(), Timestamp::now());
        let all = all.map(|watched| summary(watched, kubelet.as_ref(), now));
        write_json(&all.collect::<Vec<_>>(), to)
    });
    made(JSON, text.await)
}

/// The newest report of each target, as one document.
async fn reports(State(app): State<App>) -> Response {
    let names: Vec<Arc<str>> = app.read().targets.keys().cloned().collect();
    // Looked up when it is read: a slow client keeps no report in memory but the one that it reads.
    document(names.into_iter().filter_map(move |name| {
        let store = app.read();
        store.targets.get(&name)?.history.newest().cloned()
    }))
}

async fn reports_of(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Response, Response> {
    let runs: Vec<u64> = {
        let store = app.read();
        let history = &find(&store, &name)?.history;
        history.runs().map(|run| run.id).collect()
    };
    Ok(document(runs.into_iter().filter_map(move |run| {
        let store = app.read();
        store.targets.get(&*name)?.history.run(run).cloned()
    })))
}

async fn report(
    State(app): State<App>,
    Path((name, run)): Path<(String, u64)>,
) -> Result<Response, Response> {
    let run = find_run(&app, &name, run)?;
    if run.report.is_some() {
        return Ok(document(std::iter::once(run)));
    }
    let gone = "the report of this run was dropped, because history.memory was used up\n";
    Err(plain(StatusCode::GONE, gone))
}

fn find<'a>(store: &'a TargetStore, name: &str) -> Result<&'a Watched, Response> {
    store.targets.get(name).ok_or_else(|| unknown(name))
}

fn find_run(app: &App, name: &str, run: u64) -> Result<Arc<Run>, Response> {
    let store = app.read();
    find(&store, name)?
        .history
        .run(run)
        .cloned()
        .ok_or_else(|| {
            plain(
                StatusCode::NOT_FOUND,
                format!(
                    "run {run} of {name} does not exist or is no longer kept; /api/v1/targets lists the runs that are\n"
                ),
            )
        })
}

/// The reports of runs, in the form of `probe -o json`.
fn document(runs: impl Iterator<Item = Arc<Run>> + Send + 'static) -> Response {
    let empty = match serde_json::to_string(&Document::new(Vec::new())) {
        Ok(empty) => empty,
        Err(error) => {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
        }
    };
    // The list is the last of the document's fields.
    let begin = empty.strip_suffix("]}").unwrap_or(&empty).to_owned();
    let reports = runs.filter_map(|run| run.report.as_ref().map(CompressedReport::bytes));
    let reports = reports.enumerate().flat_map(|(index, report)| {
        let comma = (index > 0).then_some(Part::Text(Bytes::from_static(b",")));
        comma.into_iter().chain([Part::Packed(report)])
    });
    let begin = std::iter::once(Part::Text(begin.into()));
    let end = std::iter::once(Part::Text(Bytes::from_static(b"]}\n")));
    of_type(JSON, streamed(begin.chain(reports).chain(end)))
}

/// The vantage as the newest check observed it; `None` before the first check.
fn newest_vantage(app: &App) -> Option<VantageDocument> {
    let store = app.read();
    let mut vantage = store.vantage.as_deref()?.clone();
    // The watch of the Node is newer than the last check.
    if let Some(facts) = store.own_node.as_ref().and_then(View::only) {
        vantage.node = Some(NodeFacts::clone(facts));
    }
    Some(VantageDocument::new(vantage, store.proxies.clone()))
}

async fn vantage(State(app): State<App>) -> Response {
    match newest_vantage(&app) {
        Some(document) => json(&document),
        None => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "nothing was observed yet; the first check does that\n",
        ),
    }
}

// ---- health -------------------------------------------------------------------------------------

const ENDED: &str = "the loop that makes checks has ended\n";

async fn health(State(app): State<App>) -> Response {
    if app.commands.is_closed() && !app.stop.is_cancelled() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, ENDED);
    }
    plain(StatusCode::OK, "ok\n")
}

async fn ready(State(app): State<App>) -> Response {
    if app.stop.is_cancelled() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    if app.commands.is_closed() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, ENDED);
    }
    let text = readiness(&app.read(), Timestamp::now());
    plain(StatusCode::OK, text)
}

/// The text of `/readyz`: the daemon serves, and what is known so far.
fn readiness(store: &TargetStore, now: Timestamp) -> String {
    let mut text = format!("ready: {}\n", Overview::of(store, now).sentence());
    for note in status::notes(store) {
        let _ = writeln!(text, "{note}");
    }
    text
}

// ---- commands -----------------------------------------------------------------------------------

async fn reload(State(app): State<App>) -> Response {
    match command(&app, Command::Reload).await {
        Some(Ok(())) => plain(StatusCode::OK, "the configuration is in force\n"),
        Some(Err(error)) => plain(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("rejected, and the configuration before it stays in force: {error}\n"),
        ),
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

#[derive(Deserialize)]
struct CheckQuery {
    target: String,
    #[serde(default)]
    tier: Tier,
}

async fn check(State(app): State<App>, Query(query): Query<CheckQuery>) -> Response {
    match request_check(&app, &query.target, query.tier, PROBE_WAIT).await {
        Ok(run) => match find_run(&app, &query.target, run) {
            Ok(run) => document(std::iter::once(run)),
            Err(response) => response,
        },
        Err(Refused::NoSuchTarget) => unknown(&query.target),
        Err(Refused::Busy) => later(
            "the target is being checked, or too many others are\n",
            BUSY,
        ),
        Err(Refused::Deferred(reason)) => deferred(&reason, Timestamp::now()),
        Err(Refused::Failed(reason)) => no_result(reason),
    }
}

/// Checks an image on request: as a pod of this node pulls it, or with named Secrets.
async fn probe_image(
    State(app): State<App>,
    Query(query): Query<ImageQuery>,
    body: Body,
) -> Response {
    let Ok(body) = to_bytes(body, on_demand::MOST_BYTES).await else {
        return plain(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {} bytes\n", on_demand::MOST_BYTES),
        );
    };
    let request = match ImageRequest::read(&body) {
        Ok(request) => Box::new(request),
        Err(reason) => return plain(StatusCode::BAD_REQUEST, reason + "\n"),
    };
    if query.known {
        let answer = command(&app, |done| Command::Known { request, done }).await;
        return match answer.unwrap_or(Err(on_demand::Refused::Failed("stopping"))) {
            Ok(Some(report)) => one_report(*report),
            Ok(None) => plain(StatusCode::NOT_FOUND, "no scheduled check has this image\n"),
            Err(refused) => not_probed(refused, Timestamp::now()),
        };
    }
    // A check ends within its own time (schedule.check_timeout).
    let answer = command(&app, |done| Command::Probe { request, done }).await;
    match answer.unwrap_or(Err(on_demand::Refused::Failed("stopping"))) {
        Ok(report) => one_report(*report),
        Err(refused) => not_probed(refused, Timestamp::now()),
    }
}

/// The query of `/-/probe`.
#[derive(Debug, Deserialize)]
struct ImageQuery {
    /// The newest report of the schedule is requested, and no check.
    #[serde(default)]
    known: bool,
}

fn one_report(report: Report) -> Response {
    json(&Document::new(vec![report]))
}

fn not_probed(refused: on_demand::Refused, now: Timestamp) -> Response {
    use on_demand::Refused;
    match refused {
        Refused::NotAllowed(reason) => plain(StatusCode::FORBIDDEN, reason + "\n"),
        Refused::NoPod(reason) => plain(StatusCode::NOT_FOUND, reason + "\n"),
        Refused::Busy => plain(
            StatusCode::CONFLICT,
            "another image is being checked on demand; one at a time\n",
        ),
        Refused::TooMany(after) => later(
            "too many images were requested within a minute (on_demand.per_minute)\n",
            after,
        ),
        Refused::Deferred(reason) => deferred(&reason, now),
        Refused::Failed(reason) => no_result(reason),
    }
}

fn no_result(reason: &str) -> Response {
    let text = format!("the check has no result: {reason}\n");
    plain(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Status 429 with `Retry-After`.
fn later(text: impl Into<String>, after: Duration) -> Response {
    let seconds = after.as_secs_f64().ceil().max(1.0).to_string();
    let again = [(header::RETRY_AFTER, seconds)];
    (StatusCode::TOO_MANY_REQUESTS, again, text.into()).into_response()
}

fn deferred(deferred: &Deferred, now: Timestamp) -> Response {
    let Deferred { reason, until } = deferred;
    let after = until.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
    let until = until.map_or_else(String::new, |at| format!(", until {at}"));
    let text = format!("not checked: {reason}{until}\n");
    later(text, after.unwrap_or(DEFERRED_FOR))
}

/// `Retry-After` if the end of the deferral is unknown; byte budgets last a day.
const DEFERRED_FOR: Duration = Duration::from_hours(1);

/// `Retry-After` if a check is running; most take about a second.
const BUSY: Duration = Duration::from_secs(2);

/// The document of `/-/node`: this daemon and its newest vantage.
#[derive(Serialize)]
struct NodeDocument<'a> {
    node: &'a str,
    version: &'static str,
    /// `null` before the first check.
    vantage: Option<VantageDocument>,
}

async fn node(State(app): State<App>) -> Response {
    let vantage = newest_vantage(&app);
    json(&NodeDocument {
        node: &app.read().node,
        version: crate::VERSION,
        vantage,
    })
}

async fn of_all(State(app): State<App>) -> Response {
    json(&Status::of(&app.read(), Timestamp::now()))
}

// ---- pages --------------------------------------------------------------------------------------

async fn index(State(app): State<App>) -> Response {
    let newest = app.newest.clone();
    let page = newest.page.get(move |to| {
        let store = app.read();
        write_page(&page::index(&store, Timestamp::now()), to)
    });
    made(HTML, page.await)
}

async fn target_page(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Response, Response> {
    let store = app.read();
    let watched = find(&store, &name)?;
    Ok(html(&page::target(&store, watched, Timestamp::now())))
}

async fn run_page(
    State(app): State<App>,
    Path((name, run)): Path<(String, u64)>,
) -> Result<Response, Response> {
    let run = find_run(&app, &name, run)?;
    let text = app.text_of(Arc::clone(&run)).await;
    Ok(html(&page::run(&name, &run, text)))
}

async fn vantage_page(State(app): State<App>) -> Response {
    let text = newest_vantage(&app)
        .map(|document| crate::report::vantage::render(&document, Style { color: false }));
    html(&page::vantage(text))
}

#[cfg(test)]
#[path = "mixtures.rs"]
mod mixtures;
