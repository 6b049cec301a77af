//! The status page of the cluster role: what fails where and what to do, which registry is slow. Pure; askama
//! escapes all text from the network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use askama::Template;
use jiff::Timestamp;

use super::state::{ClusterState, Role};
use crate::diagnose::catalogue::{Cause, Entry};
use crate::diagnose::level::{Confidence, Severity};
use crate::lint::{Finding, Snapshot};
use crate::model::fault::instant;
use crate::model::histogram::Histogram;
use crate::model::units::{HumanDuration, Mbit};
use crate::pulls::advice;
use crate::pulls::paste::MOST_PASTED;
use crate::pulls::tally::{ContainerKey, Failing, Pair, Pull};
use crate::report::explain::{ExplainDocument, ExplainedMessage};
use crate::report::{few, grouped};

/// Maximum of pods in a card, of nodes in a line, and of pulls in the table; the API has all.
const PODS: usize = 3;
const NODES: usize = 5;
const PULLS: usize = 20;

/// Maximum of cards of each kind; the API has all.
const CARDS: usize = 50;

#[derive(Default, Template)]
#[template(path = "index.html", config = "src/cluster/page/askama.toml")]
struct Index<'a> {
    headline: String,
    tone: &'static str,
    identity: &'a str,
    role: String,
    now: String,
    problems: Vec<String>,
    failing: Vec<FailureGroup>,
    secrets: Vec<SecretsView>,
    slow: Vec<SlowView<'a>>,
    workloads: Vec<WorkloadsView>,
    workloads_unread: &'a [String],
    registries: Vec<RegistryView>,
    unknown: Vec<UnknownView<'a>>,
    pulls: Vec<PullView<'a>>,
}

/// Containers whose pull from one registry fails with the same cause.
struct FailureGroup {
    cause: &'static str,
    title: &'static str,
    registry: String,
    affected: String,
    hint: String,
    pods: Vec<PodView>,
    more: usize,
}

struct PodView {
    pod: String,
    about: String,
    image: String,
    facts: String,
    text: String,
}

struct SecretsView {
    pod: String,
    names: String,
    hint: &'static str,
}

struct SlowView<'a> {
    entry: &'static Entry,
    registry: &'a str,
    nodes: String,
    seen: &'a str,
}

/// Findings of one cause.
struct WorkloadsView {
    entry: &'static Entry,
    tone: &'static str,
    sign: &'static str,
    all: Vec<WorkloadView>,
    more: usize,
}

struct WorkloadView {
    at: String,
    evidence: String,
    hint: String,
}

struct RegistryView {
    name: String,
    nodes: usize,
    pulls: u64,
    pulling: String,
    waiting: String,
    rate: String,
    failures: u64,
}

struct UnknownView<'a> {
    about: String,
    text: &'a str,
}

struct PullView<'a> {
    of: &'a Pull,
    at: String,
    pulling: String,
    waiting: String,
    size: String,
}

/// Renders the page, the worst first.
pub fn index(state: &ClusterState, now: Timestamp) -> impl Template {
    let tally = &state.tally;
    let is_active = state.role.is_active();
    let (tone, headline) = headline(state);
    let mut page = Index {
        headline,
        tone,
        identity: &state.identity,
        role: match &state.role {
            Role::Active { since } => format!("active since {}", instant(*since)),
            Role::Standby { why, .. } => format!(
                "on standby for the Lease {}: {}",
                state.lease,
                why.as_deref()
                    .unwrap_or("the API server has not answered yet")
            ),
        },
        now: instant(now),
        problems: state.problems(),
        ..Index::default()
    };
    // What it observed while it was active is outdated.
    if is_active {
        page.failing = groups(&tally.failing);
        page.secrets = secrets(state);
        page.slow = slow(state);
        if let Some(lint) = &state.lint {
            page.workloads = workloads(lint);
            page.workloads_unread = &lint.not_observed;
        }
        page.registries = registries(state);
        page.unknown = unknown(state);
        page.pulls = pulls(state);
    }
    page
}

/// The page that explains pasted messages.
#[derive(Default, Template)]
#[template(path = "explain.html", config = "src/cluster/page/askama.toml")]
struct ExplainPage<'a> {
    problem: Option<&'a str>,
    answers: Vec<AnswerView<'a>>,
    omitted: usize,
    most_kib: usize,
}

struct AnswerView<'a> {
    message: &'a ExplainedMessage,
    cause: Option<&'static Entry>,
    tone: &'static str,
    confidence: &'static str,
    others: Vec<&'static str>,
    facts: Vec<String>,
}

impl<'a> AnswerView<'a> {
    fn new(message: &'a ExplainedMessage) -> Self {
        let cause = message.cause.map(Cause::entry);
        Self {
            message,
            cause,
            tone: if cause.is_some() { "bad" } else { "open" },
            confidence: message.confidence.map_or("low", Confidence::as_str),
            others: message
                .alternatives
                .iter()
                .map(|cause| cause.code())
                .collect(),
            facts: message.facts(),
        }
    }
}

/// Renders the page for a paste: with its answers, with the reason why there are none, or empty.
pub fn explain(paste: Option<&Result<ExplainDocument, String>>) -> impl Template {
    let mut page = ExplainPage {
        most_kib: MOST_PASTED / 1024,
        ..ExplainPage::default()
    };
    match paste {
        None => {}
        Some(Ok(document)) => {
            page.answers = document.messages().map(AnswerView::new).collect();
            page.omitted = document.omitted;
        }
        Some(Err(problem)) => page.problem = Some(problem),
    }
    page
}

fn headline(state: &ClusterState) -> (&'static str, String) {
    let tally = &state.tally;
    if !state.role.is_active() {
        return if matches!(
            state.role,
            Role::Standby {
                is_problem: true,
                ..
            }
        ) {
            ("open", "No replica is known to watch".to_owned())
        } else {
            ("none", "On standby".to_owned())
        };
    }
    let slow = tally.pairs.values().filter(|pair| pair.slow.is_some());
    match (tally.failing.len(), tally.secrets.len() + slow.count()) {
        (1, _) => (
            "bad",
            "1 container waits for an image that can't be pulled".to_owned(),
        ),
        (n, _) if n > 1 => (
            "bad",
            format!("{n} containers wait for images that can't be pulled"),
        ),
        _ if state.events.is_none() => ("none", "Real pulls are not watched".to_owned()),
        _ if !state.is_watching() => (
            "open",
            "Real pulls are unknown: the watch of Events is not up".to_owned(),
        ),
        (_, 0) => ("good", "No pull is known to fail".to_owned()),
        (_, n) => (
            "warn",
            format!("No pull is known to fail; {n} with a warning"),
        ),
    }
}

/// Registry and cause.
type RegistryCause<'a> = (&'a str, Option<Cause>);

fn groups(failing: &BTreeMap<ContainerKey, Failing>) -> Vec<FailureGroup> {
    let mut by: BTreeMap<RegistryCause<'_>, Vec<(&ContainerKey, &Failing)>> = BTreeMap::new();
    for (key, one) in failing {
        let registry_cause = (&*one.registry, one.failure.cause);
        by.entry(registry_cause).or_default().push((key, one));
    }
    let mut groups: Vec<(RegistryCause<'_>, Vec<_>)> = by.into_iter().collect();
    groups.sort_by_key(|(_, all)| std::cmp::Reverse(all.len()));
    let groups = groups.into_iter().take(CARDS);
    groups
        .filter_map(|(registry_cause, all)| group(registry_cause, all))
        .collect()
}

fn group(
    (registry, cause): RegistryCause<'_>,
    mut all: Vec<(&ContainerKey, &Failing)>,
) -> Option<FailureGroup> {
    all.sort_by_key(|(_, one)| std::cmp::Reverse(one.last));
    let nodes: BTreeSet<&str> = all.iter().map(|(_, one)| &*one.node).collect();
    let newest = all.first()?.1;
    let containers = if all.len() == 1 {
        "container"
    } else {
        "containers"
    };
    let pods = all.iter().take(PODS);
    Some(FailureGroup {
        cause: cause.map_or("unexplained", Cause::code),
        title: cause.map_or("No cause matches the message", |cause| cause.entry().title),
        registry: match registry {
            "" if cause == Some(Cause::RuntimeFault) => {
                "no registry: the node's runtime is at fault".to_owned()
            }
            "" if cause == Some(Cause::SecretFormat) => {
                "no registry: a Secret of the pod can't be decoded".to_owned()
            }
            "" => "no registry: the image reference is invalid".to_owned(),
            registry => registry.to_owned(),
        },
        affected: format!("{} {containers} on {}", all.len(), some_of(&nodes)),
        hint: advice::hint(&newest.failure, &newest.image, &newest.node),
        more: all.len().saturating_sub(PODS),
        pods: pods.map(|(key, one)| pod(key, one)).collect(),
    })
}

fn pod(key: &ContainerKey, one: &Failing) -> PodView {
    let times = match one.count {
        0 => String::new(),
        1 => ", once".to_owned(),
        n => format!(", {n} times"),
    };
    let whose = match key.container.as_str() {
        "" => "an image volume".to_owned(),
        container => format!("container {container}"),
    };
    PodView {
        pod: format!("{}/{}", key.namespace, key.pod),
        about: format!("{whose} on {}{times}, last {}", one.node, instant(one.last)),
        image: one.image.clone(),
        facts: advice::facts(&one.failure, &one.image).join("; "),
        text: if one.text.is_empty() {
            "No message since the watch of Events began. `kubectl describe pod` may still show it."
                .to_owned()
        } else {
            one.text.clone()
        },
    }
}

/// Why a kubelet may not have read a Secret.
const SECRETS_HINT: &str = "Create the Secret in the pod's namespace, or correct its name in the pod. If it is there: a kubelet that has just started pulls once without Secrets ('failed to sync secret cache' in its log), and the next try has them.";

fn secrets(state: &ClusterState) -> Vec<SecretsView> {
    let all = state.tally.secrets.iter().take(CARDS);
    all.map(|((namespace, pod), missing)| SecretsView {
        pod: format!("{namespace}/{pod}"),
        names: missing.names.join(", "),
        hint: SECRETS_HINT,
    })
    .collect()
}

fn slow(state: &ClusterState) -> Vec<SlowView<'_>> {
    let mut by: BTreeMap<(&str, Cause), (BTreeSet<&str>, &str)> = BTreeMap::new();
    for ((registry, node), pair) in &state.tally.pairs {
        if let Some(slow) = &pair.slow {
            let (nodes, _) = by
                .entry((registry, slow.cause))
                .or_insert_with(|| (BTreeSet::new(), &slow.seen));
            nodes.insert(node);
        }
    }
    by.into_iter()
        .take(CARDS)
        .map(|((registry, cause), (nodes, seen))| SlowView {
            entry: cause.entry(),
            registry,
            nodes: some_of(&nodes),
            seen,
        })
        .collect()
}

fn workloads(lint: &Snapshot) -> Vec<WorkloadsView> {
    let of_cause = |(cause, all): (Cause, Vec<&Finding>)| {
        let worst = all.iter().map(|finding| finding.severity).max();
        let (tone, sign) = match worst {
            Some(Severity::Critical) => ("bad", "✗"),
            Some(Severity::Warning) => ("warn", "!"),
            _ => ("none", "·"),
        };
        let shown = all.iter().take(PODS * 2).map(|finding| WorkloadView {
            at: format!("{} {}/{}", finding.kind, finding.namespace, finding.name),
            evidence: finding.evidence.first().cloned().unwrap_or_default(),
            hint: finding.hint.clone(),
        });
        WorkloadsView {
            entry: cause.entry(),
            tone,
            sign,
            more: all.len().saturating_sub(PODS * 2),
            all: shown.collect(),
        }
    };
    // The worst first.
    let causes = grouped(lint.findings.iter().map(|finding| (finding.cause, finding)));
    causes.into_iter().take(CARDS).map(of_cause).collect()
}

fn registries(state: &ClusterState) -> Vec<RegistryView> {
    let mut by: BTreeMap<&str, Vec<&Pair>> = BTreeMap::new();
    for ((registry, _), pair) in &state.tally.pairs {
        let is_counted = pair.duration.count() > 0 || !pair.failures.is_empty();
        if !registry.is_empty() && is_counted {
            by.entry(registry).or_default().push(pair);
        }
    }
    let mut all: Vec<(f64, RegistryView)> = by
        .into_iter()
        .map(|(name, pairs)| {
            let pulling = mean(pairs.iter().map(|pair| &pair.duration));
            let waiting = mean(pairs.iter().map(|pair| &pair.waiting));
            let rate = mean(pairs.iter().map(|pair| &pair.throughput));
            let view = RegistryView {
                name: name.to_owned(),
                nodes: pairs.len(),
                pulls: pairs.iter().map(|pair| pair.duration.count()).sum(),
                pulling: time(pulling),
                waiting: time(waiting),
                rate: rate.map_or_else(String::new, |rate| Mbit(rate).to_string()),
                failures: pairs.iter().flat_map(|pair| pair.failures.values()).sum(),
            };
            (pulling.unwrap_or(-1.0), view)
        })
        .collect();
    all.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.name.cmp(&other.name)));
    all.into_iter().map(|(_, view)| view).take(CARDS).collect()
}

fn unknown(state: &ClusterState) -> Vec<UnknownView<'_>> {
    let all = state.tally.unknown.iter();
    all.map(|one| UnknownView {
        about: format!(
            "{} on {}, {} times, last {}",
            one.registry,
            one.node,
            one.count,
            instant(one.last)
        ),
        text: &one.text,
    })
    .collect()
}

fn pulls(state: &ClusterState) -> Vec<PullView<'_>> {
    let all = state.tally.newest.iter().take(PULLS);
    all.map(|one| PullView {
        of: one,
        at: instant(one.at),
        pulling: HumanDuration(one.took.pulling).to_string(),
        waiting: match one.took.waiting() {
            Some(waiting) => HumanDuration(waiting).to_string(),
            None => "unknown".to_owned(),
        },
        size: one
            .took
            .size
            .map_or_else(String::new, |size| size.to_string()),
    })
    .collect()
}

/// The mean over several histograms; `None` if they are empty.
#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn mean<'a>(all: impl Iterator<Item = &'a Histogram> + Clone) -> Option<f64> {
    let count: u64 = all.clone().map(Histogram::count).sum();
    let sum: f64 = all.map(Histogram::sum).sum();
    (count > 0).then(|| sum / count as f64)
}

fn time(seconds: Option<f64>) -> String {
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map_or_else(String::new, |time| HumanDuration(time).to_string())
}

/// The first few names, and how many more.
fn some_of(names: &BTreeSet<&str>) -> String {
    let shown = names.iter().map(|name| match *name {
        "" => "an unknown node",
        name => name,
    });
    few(shown, NODES)
}
