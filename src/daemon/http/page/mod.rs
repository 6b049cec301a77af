//! The status page: facts in HTML, readable without scripts, at night as by day. Pure; askama escapes
//! all that comes from the network.

use std::time::Duration;

use askama::Template;
use jiff::Timestamp;

use crate::daemon::store::history::{LegPath, Outcome, Run};
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

/// Findings of a card; the rest are on the target's own page.
const SHOWN: usize = 3;

#[derive(Template)]
#[template(path = "index.html", config = "src/daemon/http/page/askama.toml")]
struct Index<'a> {
    headline: String,
    tone: Tone,
    node: &'a str,
    seen_from: &'static str,
    now: String,
    /// Of the node, as the cluster knows it.
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
    /// What, and why.
    unseen: Vec<(&'static str, String)>,
}

#[derive(Template)]
#[template(path = "text.html", config = "src/daemon/http/page/askama.toml")]
struct Verbatim<'a> {
    title: String,
    /// A target, and one of its runs; empty: neither.
    back: &'a str,
    run: u64,
    text: String,
}

/// How bad it is; the class of the style, and never told by colour alone.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Tone {
    Bad,
    Open,
    Warn,
    Good,
    /// Not known yet.
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
    /// Who wants it.
    uses: Vec<String>,
}

struct FindingView<'a> {
    tone: Tone,
    place: String,
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

/// All targets, the worst first.
pub(super) fn index(store: &TargetStore, now: Timestamp) -> askama::Result<String> {
    let rates = store.rates();
    let mut cards: Vec<Card<'_>> = store
        .targets
        .values()
        .map(|watched| card(store, &rates, watched, now, SHOWN))
        .collect();
    cards.sort_by(|a, b| (a.tone, &a.name).cmp(&(b.tone, &b.name)));
    let count = |tone| cards.iter().filter(|card| card.tone == tone).count();
    let [bad, open, warn, none] = [Tone::Bad, Tone::Open, Tone::Warn, Tone::None].map(count);
    let all = cards.len();
    let (tone, headline) = if bad > 0 {
        (Tone::Bad, format!("{bad} of {all} pulls would fail"))
    } else if open > 0 {
        (Tone::Open, format!("{open} of {all} pulls can't be told"))
    } else if all == 0 {
        (Tone::None, "Nothing is watched".to_owned())
    } else if none == all {
        (Tone::None, "Not checked yet".to_owned())
    } else if warn > 0 {
        let headline = format!("Pulls would succeed; {warn} with a warning");
        (Tone::Warn, headline)
    } else {
        (Tone::Good, "All pulls would succeed".to_owned())
    };
    let mut warnings = Vec::new();
    if let Some(error) = &store.reload.error {
        warnings.push(format!(
            "The configuration read at {} was not taken; the one of {} stays in force. {error}",
            instant(store.reload.at),
            instant(store.reload.success_at)
        ));
    }
    warnings.extend(store.cluster.iter().flat_map(of_cluster));
    warnings.extend(store.own_node.as_ref().and_then(lost_node));
    warnings.extend(store.leases.as_ref().and_then(unshared));
    if store.counters.state_errors > 0 {
        warnings.push(
            "What must outlive a restart (state_dir) can't be written; see the log.".to_owned(),
        );
    }
    Index {
        headline,
        tone,
        node: &store.node,
        seen_from: seen_from(store.network),
        now: instant(now),
        about: store.own_node.as_ref().and_then(|own| about(own, now)),
        warnings,
        cards,
    }
    .render()
}

/// What is to be said of the cluster's API, and of images that are not checked.
fn of_cluster(cluster: &Discovery) -> Vec<String> {
    let found = &cluster.found;
    let mut told: Vec<String> = lost_pods(cluster).into_iter().collect();
    if !found.over.is_empty() {
        told.push(format!(
            "{} images of this node's pods are not checked, since {} are at most (kubernetes.max_targets): {}.",
            found.over.len(),
            found.wanted.len(),
            some_of(&found.over)
        ));
    }
    if !found.malformed.is_empty() {
        told.push(format!(
            "No image names, and not checked: {}.",
            some_of(&found.malformed)
        ));
    }
    told
}

/// The first few.
fn some_of(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    let more = if names.len() > SHOWN { ", …" } else { "" };
    shown + more
}

/// Who wants an image, and whether it is pulled for that.
fn used(one: &Use, kubelet: Option<&KubeletVersion>) -> String {
    let pull = if one.waits {
        "waits for it"
    } else {
        match (one.needs_no_pull(kubelet), kubelet) {
            (Some(true), _) => "there, and no pull is needed",
            (Some(false), _) => one.policy.as_str(),
            (None, Some(_)) => {
                "there; whether its kubelet verifies it by a pull (Kubernetes 1.35 or later) is not known"
            }
            (None, None) => {
                "there; whether a pull is needed is not known: the kubelet's version is not"
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

/// Why transfer tests are skipped, where they are shared by Leases.
pub(super) fn unshared(leases: &WatchState) -> Option<String> {
    let (what, so) = (
        "Leases are out of reach",
        ", and transfer tests are skipped",
    );
    lost(
        leases,
        what,
        so,
        " docs/spread.md has the rights that it needs.",
    )
}

/// Since when the API server tells nothing of pods, where it does not.
pub(super) fn lost_pods(cluster: &Discovery) -> Option<String> {
    if cluster.state == WatchState::Unknown {
        let text = "The API server was not heard yet: which images pods want is not known.";
        return Some(text.to_owned());
    }
    let advice = " Allow list and watch of pods (docs/kubernetes.md).";
    let lost = lost(&cluster.state, "The API server does not tell", "", advice)?;
    Some(lost + " What pods wanted then is still checked.")
}

/// The same of this node's own Node. Nothing but what is known of the place depends on it.
pub(super) fn lost_node(own: &View<NodeFacts>) -> Option<String> {
    if own.state.is_following() && own.only().is_none() {
        let text =
            "The API server has no Node of this name; vantage.node, --node or NODE_NAME gives it.";
        return Some(text.to_owned());
    }
    let advice =
        " Allow list and watch of nodes (docs/kubernetes.md), or set kubernetes.node: off.";
    lost(
        &own.state,
        "The API server does not tell of this Node",
        "",
        advice,
    )
}

/// This node in a line, as the cluster knows it.
fn about(own: &View<NodeFacts>, now: Timestamp) -> Option<String> {
    let facts = own.only()?;
    let mut parts = Vec::new();
    if facts.unschedulable {
        parts.push("cordoned: no new pod comes here".to_owned());
    }
    if facts.ready == Some(false) {
        parts.push("not ready".to_owned());
    }
    if let Some(age) = facts.age(now).filter(|_| facts.is_young(now)) {
        parts.push(format!(
            "new, {} min old: what fails now may not last",
            age.as_secs() / 60
        ));
    }
    parts.extend(facts.zone.as_ref().map(|zone| format!("zone {zone}")));
    parts.extend(facts.runtime.clone());
    let kubelet = facts.kubelet.as_ref();
    parts.extend(kubelet.map(|version| format!("kubelet {version}")));
    (!parts.is_empty()).then(|| parts.join(" · "))
}

/// One target with its history.
pub(super) fn target(
    store: &TargetStore,
    watched: &Watched,
    now: Timestamp,
) -> askama::Result<String> {
    let history = &watched.history;
    let runs: Vec<&Run> = history.runs().map(AsRef::as_ref).collect();
    let unseen = store.vantage.iter().flat_map(|vantage| {
        vantage.not_observed.iter().map(|what| {
            let reasons: Vec<&str> = vantage.reasons(*what).collect();
            (what.describe(), reasons.join("; "))
        })
    });
    TargetPage {
        card: card(store, &store.rates(), watched, now, usize::MAX),
        no_rate: if watched.target.rhythm.transfer.is_some() {
            "Not measured yet: transfer tests are rare (schedule.transfer)."
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
        unseen: unseen.collect(),
    }
    .render()
}

/// The full report of a run.
pub(super) fn run(name: &str, run: &Run, text: Option<String>) -> askama::Result<String> {
    Verbatim {
        title: format!("{name}, run {} of {}", run.id, instant(run.at)),
        back: name,
        run: run.id,
        text: text.unwrap_or_else(|| {
            format!(
                "{}. The full report is not there any more: reports are dropped, the oldest first, when history.memory is used up.",
                outcome(run.outcome)
            )
        }),
    }
    .render()
}

/// What this node sees of its network.
pub(super) fn vantage(text: Option<String>) -> askama::Result<String> {
    Verbatim {
        title: "What this node sees".to_owned(),
        back: "",
        run: 0,
        text: text.unwrap_or_else(|| "Nothing was looked at yet: the first check does.".to_owned()),
    }
    .render()
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
    let newest = history.newest();
    let is_warned = |finding: &Finding| finding.severity >= Severity::Warning;
    let tone = match newest.map_or(Tone::None, |run| tone(run)) {
        Tone::Good if history.findings().any(is_warned) => Tone::Warn,
        tone => tone,
    };
    let state = newest.map_or("not checked yet", |run| outcome(run.outcome));
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
    let mut place: Vec<&str> = leg.into_iter().chain(phase).collect();
    place.dedup();
    FindingView {
        tone: match finding.severity {
            Severity::Critical => Tone::Bad,
            Severity::Warning => Tone::Warn,
            Severity::Info => Tone::None,
        },
        place: place.join(", "),
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
                notes.push(format!("bound by {}", cause.code()));
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
            "layers of {image} take about {}",
            HumanDuration(seconds)
        ));
    }
    (mbit(rate), notes.join(", "))
}

/// As clouds sell it, and as one reads it in a log.
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
        parts.push(format!("held back{until} ({})", deferred.reason));
    } else if let Some(next) = watched.next {
        parts.push(format!("next check {}", instant(next)));
    }
    parts.join(" · ")
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Verdict(Pull::WouldSucceed) => "a pull would succeed",
        Outcome::Verdict(Pull::WouldFail) => "a pull would fail",
        Outcome::Verdict(Pull::Unknown) => "it can't be told whether a pull would succeed",
        Outcome::TimedOut => "the check took too long and told nothing",
        Outcome::Panicked => "the check ended abnormally: a defect of pullpath",
    }
}

fn line(run: &Run) -> RunLine<'_> {
    let mut notes = Vec::new();
    notes.extend(run.cause.map(str::to_owned));
    notes.extend(run.bytes_per_second.map(mbit));
    if run.starved {
        notes.push("this process was starved: its times do not count".to_owned());
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

fn seen_from(network: NetworkView) -> &'static str {
    match network {
        NetworkView::Machine => "seen from this machine's own network",
        NetworkView::Node => "seen from the node's network, as the kubelet's pulls are",
        NetworkView::Pod => {
            "seen from a pod's network: pulls are made by the node, and may go another way"
        }
        NetworkView::PodOrNode => "seen from a pod, of which kind is not known",
    }
}

/// A bar for each run that has a value, the oldest on the left.
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
