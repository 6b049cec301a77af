//! The status page: facts in HTML, readable without scripts, at night as by day. Pure; askama escapes
//! all that comes from the network.

use askama::Template;
use jiff::Timestamp;

use super::metrics;
use crate::daemon::store::history::{Outcome, Run};
use crate::daemon::store::targets::{
    ClusterStatus, LeaseAccess, NodeStatus, Rates, TargetStore, Watched,
};
use crate::diagnose::level::Severity;
use crate::diagnose::{Finding, Pull};
use crate::kubernetes::follow;
use crate::model::fault::instant;
use crate::model::kubelet::KubeletVersion;
use crate::model::units::Took;
use crate::model::vantage::NetworkView;
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
    cards: Vec<Card>,
}

#[derive(Template)]
#[template(path = "target.html", config = "src/daemon/http/page/askama.toml")]
struct TargetPage {
    card: Card,
    no_rate: &'static str,
    rates: Option<Plot>,
    checks: Option<Plot>,
    runs: Vec<RunLine>,
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

struct Card {
    name: String,
    tone: Tone,
    sign: &'static str,
    state: String,
    image: String,
    findings: Vec<FindingView>,
    more: usize,
    paths: Vec<PathView>,
    rate: String,
    rate_note: String,
    checked: String,
    /// Who wants it.
    uses: Vec<String>,
}

struct FindingView {
    tone: Tone,
    cause: &'static str,
    place: String,
    seen: String,
    facts: Vec<String>,
    hint: String,
}

struct PathView {
    leg: &'static str,
    class: &'static str,
    server: String,
    confidence: &'static str,
}

struct RunLine {
    id: u64,
    tone: Tone,
    at: String,
    tier: &'static str,
    outcome: String,
    took: String,
    note: String,
    has_report: bool,
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
    let mut cards: Vec<Card> = store
        .targets
        .values()
        .map(|watched| card(store, &rates, watched, now, SHOWN))
        .collect();
    cards.sort_by(|a, b| (a.tone, &a.name).cmp(&(b.tone, &b.name)));
    let count = |tone| cards.iter().filter(|card| card.tone == tone).count();
    let (bad, open, warn, none) = (
        count(Tone::Bad),
        count(Tone::Open),
        count(Tone::Warn),
        count(Tone::None),
    );
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
        (
            Tone::Warn,
            format!("Pulls would succeed; {warn} with a warning"),
        )
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
fn of_cluster(cluster: &ClusterStatus) -> Vec<String> {
    let mut told: Vec<String> = lost_pods(cluster).into_iter().collect();
    if !cluster.over.is_empty() {
        told.push(format!(
            "{} images of this node's pods are not checked, since {} are at most (kubernetes.most_targets): {}.",
            cluster.over.len(),
            cluster.checked,
            some_of(&cluster.over)
        ));
    }
    if !cluster.malformed.is_empty() {
        told.push(format!(
            "No image names, and not checked: {}.",
            some_of(&cluster.malformed)
        ));
    }
    told
}

/// The first few.
fn some_of(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
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
pub(super) fn unshared(leases: &LeaseAccess) -> Option<String> {
    let LeaseAccess::Lost {
        since,
        reason,
        is_refused,
    } = leases
    else {
        return None;
    };
    let advice = if *is_refused {
        " docs/spread.md has the rights that it needs."
    } else {
        ""
    };
    Some(format!(
        "Leases are out of reach since {}, and transfer tests are skipped: {reason}.{advice}",
        instant(*since)
    ))
}

/// Since when the API server tells nothing of pods, where it does not.
pub(super) fn lost_pods(cluster: &ClusterStatus) -> Option<String> {
    match &cluster.state {
        follow::State::Following => None,
        follow::State::Unknown => Some(
            "The API server was not heard yet: which images pods want is not known.".to_owned(),
        ),
        follow::State::Lost {
            since,
            reason,
            is_forbidden,
        } => {
            let advice = if *is_forbidden {
                " Allow list and watch of pods (docs/kubernetes.md)."
            } else {
                ""
            };
            Some(format!(
                "The API server does not tell since {}: {reason}.{advice} What pods wanted then is still checked.",
                instant(*since)
            ))
        }
    }
}

/// The same of this node's own Node. Nothing but what is known of the place depends on it.
pub(super) fn lost_node(own: &NodeStatus) -> Option<String> {
    match &own.state {
        follow::State::Following if own.facts.is_none() => Some(
            "The API server has no Node of this name; vantage.node, --node or NODE_NAME gives it."
                .to_owned(),
        ),
        follow::State::Following | follow::State::Unknown => None,
        follow::State::Lost {
            since,
            reason,
            is_forbidden,
        } => {
            let advice = if *is_forbidden {
                " Allow list and watch of nodes (docs/kubernetes.md), or set kubernetes.node: off."
            } else {
                ""
            };
            Some(format!(
                "The API server does not tell of this Node since {}: {reason}.{advice}",
                instant(*since)
            ))
        }
    }
}

/// This node in a line, as the cluster knows it.
fn about(own: &NodeStatus, now: Timestamp) -> Option<String> {
    let facts = own.facts.as_deref()?;
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
    parts.extend(
        facts
            .kubelet
            .as_ref()
            .map(|version| format!("kubelet {version}")),
    );
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
        vantage.unseen.iter().map(|what| {
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
            |seconds| Took(std::time::Duration::from_secs_f64(seconds)).to_string(),
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

fn card(
    store: &TargetStore,
    rates: &Rates<'_>,
    watched: &Watched,
    now: Timestamp,
    most: usize,
) -> Card {
    let kubelet = store.kubelet();
    let (target, history) = (&watched.target, &watched.history);
    let newest = history.newest().map(|run| run.outcome);
    let tone = match newest {
        None => Tone::None,
        Some(Outcome::Verdict(Pull::WouldFail)) => Tone::Bad,
        Some(Outcome::Verdict(Pull::WouldSucceed))
            if history.severity() >= Some(Severity::Warning) =>
        {
            Tone::Warn
        }
        Some(Outcome::Verdict(Pull::WouldSucceed)) => Tone::Good,
        Some(_) => Tone::Open,
    };
    let state = newest.map_or("not checked yet", outcome);
    let findings: Vec<FindingView> = history.findings().map(finding).collect();
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
        paths: history
            .paths()
            .map(|path| PathView {
                leg: path.leg.as_str(),
                class: path.class.describe(),
                server: path.server.to_owned(),
                confidence: metrics::confidence(path.confidence),
            })
            .collect(),
        rate,
        rate_note,
        checked: checked(watched, now),
        uses: watched
            .target
            .uses
            .iter()
            .map(|one| used(one, kubelet.as_ref()))
            .collect(),
    }
}

fn finding(finding: &Finding) -> FindingView {
    let leg = finding.leg.map(|leg| leg.as_str().to_owned());
    let phase = finding.phase.map(|phase| phase.as_str().to_owned());
    let mut place: Vec<String> = leg.into_iter().chain(phase).collect();
    place.dedup();
    FindingView {
        tone: match finding.severity {
            Severity::Critical => Tone::Bad,
            Severity::Warning => Tone::Warn,
            Severity::Info => Tone::None,
        },
        cause: finding.cause.code(),
        place: place.join(", "),
        seen: finding.evidence.first().cloned().unwrap_or_default(),
        facts: finding.evidence.clone(),
        hint: finding.hint.clone(),
    }
}

fn rate(newest: &Rates<'_>, watched: &Watched) -> (String, String) {
    let history = &watched.history;
    let Some(rate) = watched.rate(newest) else {
        return (String::new(), String::new());
    };
    let mut notes = Vec::new();
    let own = history.transfer.as_ref().and_then(|transfer| {
        let rates = transfer
            .rates
            .as_ref()
            .filter(|rates| rates.disturbed.is_none())?;
        Some((transfer.at, rates.bound_by, rates.all.or(rates.one)?))
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
        let seconds = std::time::Duration::from_secs_f64((image.0 as f64 / rate).min(1e7));
        notes.push(format!("layers of {image} take about {}", Took(seconds)));
    }
    (mbit(rate), notes.join(", "))
}

/// As clouds sell it, and as one reads it in a log.
fn mbit(bytes_per_second: f64) -> String {
    format!(
        "{:.1} Mbit/s ({:.2} MiB/s)",
        bytes_per_second * 8.0 / 1e6,
        bytes_per_second / f64::from(1 << 20)
    )
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
        let until = deferred
            .until
            .map_or_else(String::new, |at| format!(" until {}", instant(at)));
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

fn line(run: &Run) -> RunLine {
    let mut notes = Vec::new();
    notes.extend(run.cause.map(str::to_owned));
    notes.extend(run.bytes_per_second.map(mbit));
    if run.starved {
        notes.push("this process was starved: its times do not count".to_owned());
    }
    RunLine {
        id: run.id,
        tone: tone(run),
        at: instant(run.at),
        tier: run.tier.as_str(),
        outcome: outcome(run.outcome).to_owned(),
        took: Took(run.took).to_string(),
        note: notes.join(", "),
        has_report: run.report.is_some(),
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
    let mut values: Vec<(&Run, f64)> = runs
        .iter()
        .filter_map(|run| Some((*run, value(run)?)))
        .collect();
    values.reverse();
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
    Some(Plot {
        label: format!(
            "{} {what}, the newest {}",
            values.len(),
            values
                .last()
                .map_or_else(String::new, |(_, value)| shown(*value))
        ),
        most: shown(most),
        bars: bars.collect(),
    })
}
