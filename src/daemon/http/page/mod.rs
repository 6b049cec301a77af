//! The status page: HTML without scripts, in a light and a dark style. Pure; askama escapes all text from
//! the network.

use std::borrow::Cow;
use std::time::Duration;

use askama::Template;
use jiff::Timestamp;

use crate::daemon::store::history::{LegPath, Outcome, Run};
use crate::daemon::store::overview::{Overview, TargetState, has_warning};
use crate::daemon::store::targets::{Discovery, Rates, TargetStore, Watched};
use crate::diagnose::level::Severity;
use crate::diagnose::{Finding, Pull};
use crate::kubernetes::watch::{View, WatchState};
use crate::model::endpoint::Role;
use crate::model::fault::{Phase, instant};
use crate::model::kubelet::KubeletVersion;
use crate::model::units::{HumanDuration, Mbit};
use crate::model::vantage::{NetworkView, NodeFacts};
use crate::serving::cluster::lost;
use crate::workload::discovery::Use;

/// Maximum of findings in a card; the target's own page has all.
const SHOWN: usize = 3;

#[derive(Template)]
#[template(path = "index.html", config = "src/daemon/http/page/askama.toml")]
struct Index<'a> {
    headline: String,
    tone: Tone,
    node: &'a str,
    vantage: &'static str,
    now: String,
    /// The node in one line, from the API server.
    about: Option<String>,
    warnings: Vec<String>,
    cards: Vec<Card<'a>>,
}

#[derive(Template)]
#[template(path = "target.html", config = "src/daemon/http/page/askama.toml")]
struct TargetPage<'a> {
    card: Card<'a>,
    no_rate: &'static str,
    rates: Option<Plot>,
    checks: Option<Plot>,
    runs: Vec<RunLine<'a>>,
    /// What this vantage point can't observe, and why.
    not_observed: Vec<(Cow<'static, str>, String)>,
}

#[derive(Template)]
#[template(path = "text.html", config = "src/daemon/http/page/askama.toml")]
struct Verbatim<'a> {
    title: String,
    /// The target, whose run is `run`; empty on other pages.
    back: &'a str,
    run: u64,
    text: String,
}

/// How bad it is: the class in the style. A sign shows the same, for readers who see no colors.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Tone {
    Bad,
    Open,
    Warn,
    Good,
    /// Not checked yet, or without effect.
    None,
}

impl std::fmt::Display for Tone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bad => "bad",
            Self::Open => "open",
            Self::Warn => "warn",
            Self::Good => "good",
            Self::None => "none",
        })
    }
}

struct Card<'a> {
    name: String,
    tone: Tone,
    sign: &'static str,
    state: String,
    image: String,
    findings: Vec<FindingView<'a>>,
    more: usize,
    paths: Vec<LegPath<'a>>,
    rate: String,
    rate_note: String,
    checked: String,
    /// Containers that use the image.
    uses: Vec<String>,
}

struct FindingView<'a> {
    tone: Tone,
    /// Leg and phase.
    step: String,
    of: &'a Finding,
}

struct RunLine<'a> {
    of: &'a Run,
    tone: Tone,
    at: String,
    outcome: &'static str,
    took: HumanDuration,
    note: String,
}

struct Plot {
    label: String,
    most: String,
    bars: Vec<Bar>,
}

struct Bar {
    x: String,
    y: String,
    width: String,
    height: String,
    tone: Tone,
    title: String,
}

/// Renders all targets, the worst first.
pub(super) fn index(store: &TargetStore, now: Timestamp) -> impl Template {
    let rates = store.rates();
    let mut cards: Vec<Card<'_>> = store
        .targets
        .values()
        .map(|watched| card(store, &rates, watched, now, SHOWN))
        .collect();
    cards.sort_by(|a, b| (a.tone, &a.name).cmp(&(b.tone, &b.name)));
    let overview = Overview::of(store, now);
    let mut warnings = Vec::new();
    if let Some(error) = &store.reload.error {
        warnings.push(format!(
            "The configuration read at {} was rejected; the one of {} is still in force. {error}",
            instant(store.reload.at),
            instant(store.reload.success_at)
        ));
    }
    warnings.extend(store.cluster.iter().flat_map(of_cluster));
    warnings.extend(store.own_node.as_ref().and_then(lost_node));
    warnings.extend(store.leases.as_ref().and_then(unshared));
    warnings.extend(waiting_events(*store.counters.events.waiting.borrow()));
    if store.counters.state_errors > 0 {
        warnings.push("The state file in state_dir can't be written; see the log.".to_owned());
    }
    Index {
        headline: overview.sentence(),
        tone: tone_of(&overview),
        node: &store.node,
        vantage: vantage_point(store.network),
        now: instant(now),
        about: store.own_node.as_ref().and_then(|own| about(own, now)),
        warnings,
        cards,
    }
}

/// What the page says while Events on pods wait for the next minute.
fn waiting_events(count: usize) -> Option<String> {
    let what = match count {
        0 => return None,
        1 => "1 Event on a pod waits".to_owned(),
        n => format!("{n} Events on pods wait"),
    };
    Some(format!(
        "{what}: this node writes 10 a minute, the most severe and the newest first."
    ))
}

/// Green only if all pulls are known to succeed.
fn tone_of(overview: &Overview) -> Tone {
    let open = [TargetState::Unknown, TargetState::Outdated];
    match overview.is_ready() {
        Some(false) => Tone::Bad,
        _ if open.iter().any(|state| overview.count(*state) > 0) => Tone::Open,
        _ if overview.warned > 0 => Tone::Warn,
        Some(true) => Tone::Good,
        None => Tone::None,
    }
}

/// Problems with the watch of pods, and images that are not checked.
fn of_cluster(cluster: &Discovery) -> Vec<String> {
    let found = &cluster.found;
    let mut messages: Vec<String> = lost_pods(cluster).into_iter().collect();
    if !found.over.is_empty() {
        messages.push(format!(
            "{} images of this node's pods are beyond the limit of {} (kubernetes.max_targets) and not checked: {}.",
            found.over.len(),
            found.wanted.len(),
            some_of(&found.over)
        ));
    }
    if !found.malformed.is_empty() {
        messages.push(format!(
            "Invalid image references, not checked: {}.",
            some_of(&found.malformed)
        ));
    }
    messages
}

/// The first few names.
fn some_of(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    let more = if names.len() > SHOWN { ", …" } else { "" };
    shown + more
}

/// A container that uses an image, and whether the kubelet pulls it for that.
fn used(one: &Use, kubelet: Option<&KubeletVersion>) -> String {
    let pull = if one.waits {
        "waits for the image"
    } else {
        match (one.needs_no_pull(kubelet), kubelet) {
            (Some(true), _) => "present, no pull needed",
            (Some(false), _) => one.policy.as_str(),
            (None, Some(_)) => {
                "present; unknown whether the kubelet verifies it by a pull (Kubernetes 1.35 or later)"
            }
            (None, None) => {
                "present; unknown whether a pull is needed, because the kubelet's version is unknown"
            }
        }
    };
    format!(
        "{}/{}, {} {}: {} ({pull})",
        one.namespace,
        one.pod,
        one.kind.as_str(),
        one.container,
        one.image
    )
}

/// The message if the Leases of transfer tests are unusable; `None` if they are not.
pub(super) fn unshared(leases: &WatchState) -> Option<String> {
    let (what, so) = (
        "Leases have been unusable",
        ", and transfer tests are skipped",
    );
    lost(leases, what, so, " Grant the rights in docs/spread.md.")
}

/// The message if the watch of pods is down; `None` if it is up.
pub(super) fn lost_pods(cluster: &Discovery) -> Option<String> {
    if cluster.state == WatchState::Unknown {
        let text =
            "The API server has not answered yet, so the images of this node's pods are unknown.";
        return Some(text.to_owned());
    }
    let advice = " Allow list and watch of pods (docs/kubernetes.md).";
    let lost = lost(
        &cluster.state,
        "The watch of this node's pods has been down",
        "",
        advice,
    )?;
    Some(lost + " The images that pods used before are still checked.")
}

/// The same for the watch of this node's own Node. Only the facts about the vantage point depend on it.
pub(super) fn lost_node(own: &View<NodeFacts>) -> Option<String> {
    if own.state.is_following() && own.only().is_none() {
        let text = "The API server has no Node with this name. Set vantage.node, --node or NODE_NAME to the Node's name.";
        return Some(text.to_owned());
    }
    let advice =
        " Allow list and watch of nodes (docs/kubernetes.md), or set kubernetes.node: off.";
    lost(
        &own.state,
        "The watch of this Node has been down",
        "",
        advice,
    )
}

/// This node in one line, from the API server; `None` if there is nothing to show.
fn about(own: &View<NodeFacts>, now: Timestamp) -> Option<String> {
    let facts = own.only()?;
    let mut parts = Vec::new();
    if facts.unschedulable {
        parts.push("cordoned: no new pods are scheduled here".to_owned());
    }
    if facts.ready == Some(false) {
        parts.push("not ready".to_owned());
    }
    if let Some(age) = facts.age(now).filter(|_| facts.is_new(now)) {
        parts.push(format!(
            "new, {} min old: failures may be temporary",
            age.as_secs() / 60
        ));
    }
    parts.extend(facts.zone.as_ref().map(|zone| format!("zone {zone}")));
    parts.extend(facts.runtime.clone());
    let kubelet = facts.kubelet.as_ref();
    parts.extend(kubelet.map(|version| format!("kubelet {version}")));
    (!parts.is_empty()).then(|| parts.join(" · "))
}

/// Renders one target with its history.
pub(super) fn target(store: &TargetStore, watched: &Watched, now: Timestamp) -> impl Template {
    let history = &watched.history;
    let runs: Vec<&Run> = history.runs().map(AsRef::as_ref).collect();
    let not_observed = store.vantage.iter().flat_map(|vantage| {
        vantage.not_observed.iter().map(|what| {
            let reasons: Vec<&str> = vantage.reasons(*what).collect();
            (vantage.describe(*what), reasons.join("; "))
        })
    });
    TargetPage {
        card: card(store, &store.rates(), watched, now, usize::MAX),
        no_rate: if watched.target.rhythm.transfer.is_some() {
            "Not measured yet. Transfer tests are rare (schedule.transfer)."
        } else {
            "Not measured: transfer tests are off for this target."
        },
        rates: plot(&runs, |run| run.bytes_per_second, mbit, "rates"),
        checks: plot(
            &runs,
            |run| Some(run.took.as_secs_f64()),
            |seconds| HumanDuration(Duration::from_secs_f64(seconds)).to_string(),
            "durations",
        ),
        runs: runs.iter().map(|run| line(run)).collect(),
        not_observed: not_observed.collect(),
    }
}

/// Renders the full report of a run; `text` is `None` if it was dropped.
pub(super) fn run(name: &str, run: &Run, text: Option<String>) -> impl Template {
    Verbatim {
        title: format!("{name}, run {} of {}", run.id, instant(run.at)),
        back: name,
        run: run.id,
        text: text.unwrap_or_else(|| {
            format!(
                "{}. The full report was dropped: the oldest reports go first when history.memory is used up.",
                outcome(run.outcome)
            )
        }),
    }
}

/// Renders the vantage point; `text` is `None` before the first check.
pub(super) fn vantage(text: Option<String>) -> impl Template {
    Verbatim {
        title: "Vantage point".to_owned(),
        back: "",
        run: 0,
        text: text
            .unwrap_or_else(|| "Nothing was observed yet. The first check does that.".to_owned()),
    }
}

fn card<'a>(
    store: &TargetStore,
    rates: &Rates<'_>,
    watched: &'a Watched,
    now: Timestamp,
    most: usize,
) -> Card<'a> {
    let kubelet = store.kubelet();
    let (target, history) = (&watched.target, &watched.history);
    let uses = target.uses.iter();
    let newest = history.newest().map(|run| outcome(run.outcome));
    let state = TargetState::of(watched, now);
    let tone = match state {
        TargetState::WouldFail => Tone::Bad,
        TargetState::Unknown | TargetState::Outdated => Tone::Open,
        TargetState::WouldSucceed if has_warning(watched) => Tone::Warn,
        TargetState::WouldSucceed => Tone::Good,
        TargetState::NotChecked | TargetState::Deferred => Tone::None,
    };
    let state = match state {
        TargetState::Outdated => "a pull would have succeeded; that result is outdated",
        TargetState::Deferred => "not checked yet because deferred",
        _ => newest.unwrap_or("not checked yet"),
    };
    let findings: Vec<FindingView<'_>> = history.findings().map(finding).collect();
    let more = findings.len().saturating_sub(most);
    let (rate, rate_note) = rate(rates, watched);
    Card {
        name: target.name.to_string(),
        tone,
        sign: match tone {
            Tone::Bad => "✗",
            Tone::Open => "?",
            Tone::Warn => "!",
            Tone::Good => "✓",
            Tone::None => "·",
        },
        state: match history.consecutive_failures {
            0 | 1 => state.to_owned(),
            times => format!("{state}, {times} times in a row"),
        },
        image: target.reference.to_string(),
        findings: findings.into_iter().take(most).collect(),
        more,
        paths: history.paths().collect(),
        rate,
        rate_note,
        checked: checked(watched, now),
        uses: uses.map(|one| used(one, kubelet.as_ref())).collect(),
    }
}

fn finding(finding: &Finding) -> FindingView<'_> {
    let (leg, phase) = (
        finding.leg.map(Role::as_str),
        finding.phase.map(Phase::as_str),
    );
    let mut step: Vec<&str> = leg.into_iter().chain(phase).collect();
    step.dedup();
    FindingView {
        tone: match finding.severity {
            Severity::Critical => Tone::Bad,
            Severity::Warning => Tone::Warn,
            Severity::Info => Tone::None,
        },
        step: step.join(", "),
        of: finding,
    }
}

fn rate(newest: &Rates<'_>, watched: &Watched) -> (String, String) {
    let history = &watched.history;
    let Some(rate) = watched.rate(newest) else {
        return (String::new(), String::new());
    };
    let mut notes = Vec::new();
    let own = history.transfer.as_ref().and_then(|transfer| {
        let rates = transfer.rates.as_ref()?;
        Some((transfer.at, rates.bound_by, rates.undisturbed()?))
    });
    match own {
        Some((at, bound_by, measured)) => {
            if !measured.is_sustained {
                notes.push("at least".to_owned());
            }
            if let Some(cause) = bound_by {
                notes.push(format!("limited by {}", cause.code()));
            }
            notes.push(format!("measured {}", instant(at)));
        }
        None => notes.push(format!(
            "as measured for another image of {}",
            watched.target.registry
        )),
    }
    #[expect(clippy::cast_precision_loss, reason = "images are below 2^53 bytes")]
    if let Some(image) = history.image {
        let seconds = Duration::from_secs_f64((image.0 as f64 / rate).min(1e7));
        notes.push(format!(
            "downloading {image} of layers takes about {}",
            HumanDuration(seconds)
        ));
    }
    (mbit(rate), notes.join(", "))
}

/// The rate in Mbit/s, as clouds sell it, and in MiB/s, as logs show it.
fn mbit(bytes_per_second: f64) -> String {
    let mib = bytes_per_second / f64::from(1 << 20);
    format!("{} ({mib:.2} MiB/s)", Mbit(bytes_per_second))
}

fn checked(watched: &Watched, now: Timestamp) -> String {
    let history = &watched.history;
    let ago = |at: Timestamp| {
        let seconds = u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0);
        match seconds {
            0 => "just now".to_owned(),
            1..=119 => format!("{seconds} s ago"),
            120..=7199 => format!("{} min ago", seconds / 60),
            _ => format!("{} h ago", seconds / 3600),
        }
    };
    let mut parts = vec![match history.checked {
        Some(at) => format!("checked {}", ago(at)),
        None => "not checked yet".to_owned(),
    }];
    if history.consecutive_failures > 0 {
        parts.push(match history.last_success {
            Some(at) => format!("last success {}", instant(at)),
            None => "no success so far".to_owned(),
        });
    }
    if let Some(deferred) = &history.deferred {
        let until = deferred.until;
        let until = until.map_or_else(String::new, |at| format!(" until {}", instant(at)));
        parts.push(format!("deferred{until} ({})", deferred.reason));
    } else if let Some(next) = watched.next {
        parts.push(format!("next check {}", instant(next)));
    }
    parts.join(" · ")
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Verdict(Pull::WouldSucceed) => "a pull would succeed",
        Outcome::Verdict(Pull::WouldFail) => "a pull would fail",
        Outcome::Verdict(Pull::Unknown) => "unknown whether a pull would succeed",
        Outcome::TimedOut => "the check timed out without a result",
        Outcome::Panicked => "the check panicked, which is a bug in Pullpath",
    }
}

fn line(run: &Run) -> RunLine<'_> {
    let mut notes = Vec::new();
    notes.extend(run.cause.map(str::to_owned));
    notes.extend(run.bytes_per_second.map(mbit));
    if run.starved {
        notes.push("CPU-starved: its times are not counted".to_owned());
    }
    RunLine {
        of: run,
        tone: tone(run),
        at: instant(run.at),
        outcome: outcome(run.outcome),
        took: HumanDuration(run.took),
        note: notes.join(", "),
    }
}

fn tone(run: &Run) -> Tone {
    match run.outcome {
        Outcome::Verdict(Pull::WouldSucceed) => Tone::Good,
        Outcome::Verdict(Pull::WouldFail) => Tone::Bad,
        _ => Tone::Open,
    }
}

fn vantage_point(network: NetworkView) -> &'static str {
    match network {
        NetworkView::Machine => "this machine's own network",
        NetworkView::Node => "the node's network, which the kubelet's pulls use",
        NetworkView::Pod => "a pod's network; the node's pulls may take another path",
        NetworkView::PodOrNode => "a pod, with its own network or the node's: unknown which",
    }
}

/// A chart with a bar for each run that has a value, the oldest on the left; `None` without values.
fn plot(
    runs: &[&Run],
    value: impl Fn(&Run) -> Option<f64>,
    shown: impl Fn(f64) -> String,
    what: &str,
) -> Option<Plot> {
    let values = runs.iter().rev();
    let values: Vec<(&Run, f64)> = values.filter_map(|run| Some((*run, value(run)?))).collect();
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a thousand runs at most")]
    let width = (600.0 / values.len() as f64).min(40.0);
    #[expect(clippy::cast_precision_loss, reason = "a thousand runs at most")]
    let bars = values.iter().enumerate().map(|(index, (run, value))| {
        let height = (value / most * 74.0).max(1.0);
        Bar {
            x: format!("{:.1}", index as f64 * width + 1.0),
            y: format!("{:.1}", 79.0 - height),
            width: format!("{:.1}", (width - 2.0).max(1.0)),
            height: format!("{height:.1}"),
            tone: tone(run),
            title: format!(
                "{}: {}, {}",
                instant(run.at),
                shown(*value),
                outcome(run.outcome)
            ),
        }
    });
    let newest = values.last();
    let newest = newest.map_or_else(String::new, |(_, value)| shown(*value));
    Some(Plot {
        label: format!("{} {what}, the newest {newest}", values.len()),
        most: shown(most),
        bars: bars.collect(),
    })
}
