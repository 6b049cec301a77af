//! Publishes the cause that a check found as an Event on the pods that wait for that image
//! (`kubernetes.events: pods`): once per cause and hour, with a limit per minute, and without delaying a check.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::schedule::clock::hash;
use super::store::target::Target;
use super::store::targets::EventCounts;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::secrets::{SecretOutcome, SecretVerdict};
use crate::diagnose::{self, Finding, Pull, Verdict};
use crate::kubernetes::publish::{
    MOST_MESSAGE, NOT_CHECKED, Note, PublishError, Published, publish, reason,
};
use crate::kubernetes::watch::View;
use crate::model::evidence::Evidence;
use crate::model::foreign::{self, Source};
use crate::model::reference::check_digest;
use crate::model::text::{clean, printable};
use crate::model::vantage::NetworkView;
use crate::model::workload::ContainerKind;
use crate::report::Report;
use crate::workload::discovery::{Discovered, Use};
use crate::workload::pod::{Container, Pod};
use crate::workload::share::may_take;

/// While a cause lasts, its Event is published again after this: an API server drops Events after an hour.
const AGAIN: Duration = Duration::from_hours(1);

/// Maximum of Events of one node in a minute. If a registry fails, a hundred pods may wait on a node, and a
/// cluster may have thousands of nodes. Events above the limit wait, the most severe and the newest first.
const MOST_A_MINUTE: usize = 10;

/// Maximum of Events that wait for the API server, or for the next minute. Others are dropped, and published after the
/// next check.
const MOST_WAITING: usize = 256;

/// Maximum of containers whose newest Event is remembered. A node has some hundred containers.
const MOST_KNOWN: usize = 1024;

/// Maximum length of the facts or of the hint in a message, so that both fit.
const MOST_PART: usize = 350;

/// Facts of a cause in a message: what is wrong, and where.
const MOST_FACTS: usize = 2;

const MINUTE: Duration = Duration::from_mins(1);

/// The Event about a container or image volume of the pod with this UID. `None` as the cause revokes it.
fn note(one: &Use, uid: &str, cause: Option<&'static str>, message: &str) -> Note {
    // A volume may have the name of a container.
    let subject = match one.kind {
        ContainerKind::ImageVolume => format!("volume/{}", one.container),
        _ => one.container.clone(),
    };
    let number = hash(&[uid, &subject, reason(cause), cause.unwrap_or_default()]);
    // In a Kubernetes name, a part before a dot ends in a letter or digit.
    let pod: String = one.pod.chars().take(200).collect();
    Note {
        name: format!("{}.{number:016x}", pod.trim_end_matches(['-', '.'])),
        namespace: one.namespace.clone(),
        pod: one.pod.clone(),
        uid: uid.to_owned(),
        container: one.container.clone(),
        kind: one.kind,
        cause,
        message: message.to_owned(),
    }
}

/// The Events for the containers that wait for exactly the checked image; none if the report names no cause.
pub fn of(report: &Report, target: &Target, pods: &View<Pod>, node: &str) -> Vec<Queued> {
    let image = target.reference.to_string();
    let waiting = target
        .uses
        .iter()
        .filter(|one| one.waits && one.image == image);
    let mut waiting = waiting.peekable();
    if waiting.peek().is_none() {
        return Vec::new();
    }
    let Some((cause, message)) = message_of(report, &image, node) else {
        return Vec::new();
    };
    let message = |one: &Use| match cause {
        None => bounded(&message),
        Some(_) => bounded(&format!(
            "{message}; more: kubectl pullpath why {} -n {}",
            one.pod, one.namespace
        )),
    };
    waiting
        .filter_map(|one| {
            let (uid, _) = pods
                .objects
                .iter()
                .find(|(_, pod)| pod.namespace == one.namespace && pod.name == one.pod)?;
            Some(Queued {
                urgency: Urgency::of(report),
                note: note(one, uid, cause, &message(one)),
            })
        })
        .collect()
}

/// The Events on the pods that wait for images that are not checked, because their namespace wants more than its share.
pub fn of_crowded(found: &Discovered, pods: &View<Pod>, most: usize, node: &str) -> Vec<Queued> {
    let crowded = found.crowded.iter().filter_map(|one| {
        let first = &one.first;
        let mut all = pods.objects.iter();
        let (uid, _) =
            all.find(|(_, pod)| pod.namespace == first.namespace && pod.name == first.pod)?;
        let message = format!(
            "Pullpath on node {node} does not check {} of the images that this pod waits for, {} among them: it checks {most} images of pods (kubernetes.max_targets), of which namespace {} has its share, {}. Pulls are not affected; pullpath probe checks any image",
            one.images, first.image, first.namespace, one.checked
        );
        Some(Queued {
            urgency: Urgency::NotChecked,
            note: note(first, uid, Some(NOT_CHECKED), &bounded(&message)),
        })
    });
    crowded.collect()
}

fn message_of(report: &Report, image: &str, node: &str) -> Option<(Option<&'static str>, String)> {
    let verdict = &report.verdict;
    let vantage = vantage(report.evidence.vantage.network);
    if verdict.pull == Pull::WouldSucceed {
        let message = format!(
            "a pull of {image} would succeed now (checked on node {node} from {vantage}); the kubelet tries again within 5 minutes"
        );
        return Some((None, message));
    }
    let worst = verdict.findings.first()?;
    // A cause that Pullpath does not know helps no user, nor does one that is Pullpath's own.
    let is_of_no_use = matches!(worst.cause, Cause::Unexplained | Cause::OwnLimits);
    if worst.severity != Severity::Critical || is_of_no_use {
        return None;
    }
    let may = match verdict.pull {
        Pull::Unknown => "; until then it is unknown whether a pull would succeed",
        _ => "",
    };
    let readable = for_tenants(&report.evidence);
    let is_same = |finding: &&Finding| {
        (finding.cause, finding.leg, finding.phase) == (worst.cause, worst.leg, worst.phase)
    };
    let all = readable.findings.iter().chain(&readable.consequences);
    let shown = match all.clone().find(is_same) {
        Some(finding) => summary(finding, &readable.secrets),
        // The cause rests on the server's words.
        None => format!("{}: {}", worst.cause.code(), worst.cause.entry().title),
    };
    Some((
        Some(worst.cause.code()),
        format!("{shown}{may} ({image}, checked on node {node} from {vantage})"),
    ))
}

/// What the check shows without the words of the other side. The owner of a pod chooses with its image which
/// server is contacted, and reads the Event: it must not have more of that server's answer than the error of the
/// runtime, which is in the kubelet's own Event. That one has the hosts of redirects and realms, the names of a
/// certificate, and digests.
fn for_tenants(evidence: &Evidence) -> Verdict {
    let mut evidence = evidence.clone();
    foreign::each(&mut evidence, &mut |source, text| {
        let is_kept = match source {
            Source::Host | Source::CertificateName => true,
            Source::Digest => check_digest(text).is_ok(),
            Source::ErrorCode => CODES.contains(&text.as_str()),
            _ => false,
        };
        if is_kept {
            return;
        }
        match source {
            // A fault in words has these only if there are any.
            Source::ErrorCode | Source::ErrorMessage | Source::RetryAfter | Source::ProxyReason => {
                text.clear();
            }
            Source::FirstBytes if text.contains(BEGINS) => {
                text.truncate(text.find(BEGINS).unwrap_or_default());
            }
            _ => "…".clone_into(text),
        }
    });
    diagnose::diagnose(&evidence)
}

/// How the program's own words about first bytes end.
const BEGINS: &str = "; it begins with";

/// The codes of errors in the OCI distribution-spec.
const CODES: [&str; 16] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "MANIFEST_UNVERIFIED",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNSUPPORTED",
];

/// The cause, its facts, the Secret that does not fit, and the fix.
fn summary(finding: &Finding, secrets: &[SecretVerdict]) -> String {
    let mut text = finding.cause.code().to_owned();
    let facts = finding.evidence.iter().take(MOST_FACTS);
    let mut facts: Vec<String> = facts.cloned().collect();
    if needs_credential(finding.cause) {
        let unfit = secrets.iter().filter(|one| is_unfit(one.outcome));
        let unfit = unfit.map(|one| format!("Secret {}: {}", one.name, one.message));
        let is_named = |one: &str| facts.iter().any(|fact| fact.contains(one));
        let unfit: Vec<String> = unfit.filter(|one| !is_named(one)).collect();
        facts.splice(..0, unfit);
    }
    if !facts.is_empty() {
        text.push_str(": ");
        text.push_str(&clean(&facts.join("; "), MOST_PART));
    }
    let hint = for_readers(&finding.hint);
    if !hint.is_empty() {
        text.push_str(". hint: ");
        text.push_str(&clean(&hint, MOST_PART));
    }
    text
}

/// Causes for which each Secret of the pod matters.
fn needs_credential(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::AuthNoCred
            | Cause::SecretKeyMismatch
            | Cause::SecretMissing
            | Cause::ManifestUnknown
    )
}

/// Secrets that are of no use for this image.
fn is_unfit(outcome: SecretOutcome) -> bool {
    matches!(
        outcome,
        SecretOutcome::NoKey | SecretOutcome::Unusable | SecretOutcome::Absent
    )
}

/// The parts of a fix that a reader of Events can act on: not those that name options of this program.
fn for_readers(hint: &str) -> String {
    let is_for_checks = |part: &str| {
        let outside_commands = part.split('`').step_by(2);
        let mut words = outside_commands.flat_map(str::split_whitespace);
        words.any(|word| word.starts_with("--")) || part.contains("to this check")
    };
    let reduced = |part: &str| -> Option<String> {
        if !is_for_checks(part) {
            return Some(part.to_owned());
        }
        let (head, _) = part.rsplit_once(", and ")?;
        (!is_for_checks(head)).then(|| head.to_owned())
    };
    let sentences = hint.split(". ").filter_map(|sentence| {
        let parts: Vec<String> = sentence.split("; ").filter_map(reduced).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    });
    let mut kept = sentences.collect::<Vec<_>>().join(". ");
    if !kept.is_empty() && !kept.ends_with(['.', '`', ')']) {
        kept.push('.');
    }
    kept
}

fn vantage(network: NetworkView) -> &'static str {
    match network {
        NetworkView::Machine => "its own network",
        NetworkView::Node => "the node's network",
        NetworkView::Pod => "a pod's network, which pulls don't use",
        NetworkView::PodOrNode => "a pod's network or the node's",
    }
}

/// Cuts a text to the maximum size of an Event's message.
fn bounded(text: &str) -> String {
    let mut text = clean(text, MOST_MESSAGE);
    while text.len() > MOST_MESSAGE {
        text.pop();
    }
    text
}

/// The UID of a pod, and one of its containers.
type Subject = (String, ContainerKind, String);

/// How soon an Event should be published.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Urgency {
    /// The image is not checked.
    NotChecked,
    /// It revokes a cause.
    Resolved,
    /// Whether a pull would succeed is unknown.
    Unknown,
    /// A pull would fail, and other causes are possible.
    Likely,
    /// A pull would fail, for a certain cause.
    Certain,
}

impl Urgency {
    fn of(report: &Report) -> Self {
        let verdict = &report.verdict;
        let confidence = verdict.findings.first().map(|finding| finding.confidence);
        match verdict.pull {
            Pull::WouldSucceed => Self::Resolved,
            Pull::Unknown => Self::Unknown,
            Pull::WouldFail if confidence == Some(Confidence::High) => Self::Certain,
            Pull::WouldFail => Self::Likely,
        }
    }
}

/// An Event to be published.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Queued {
    /// Decides the order if many wait.
    pub urgency: Urgency,
    /// The Event.
    pub note: Note,
}

/// The Events that wait, one for each container: the newest.
#[derive(Debug, Default)]
struct Backlog {
    waiting: BTreeMap<Subject, (Urgency, u64, Note)>,
    added: u64,
}

impl Backlog {
    /// Adds an Event. Returns whether one had to be dropped: the least severe and the oldest of the namespace with the
    /// most.
    fn add(&mut self, queued: Queued) -> bool {
        self.added += 1;
        let entry = (queued.urgency, self.added, queued.note);
        self.waiting.insert(subject(&entry.2), entry);
        if self.waiting.len() <= MOST_WAITING {
            return false;
        }
        let counts = self.counts();
        let order = |(_, entry): &(&Subject, &(Urgency, u64, Note))| {
            (Reverse(counts[&*entry.2.namespace]), entry.0, entry.1)
        };
        let least = self.waiting.iter().min_by_key(order);
        if let Some(key) = least.map(|(key, _)| key.clone()) {
            self.waiting.remove(&key);
        }
        true
    }

    /// Takes one that may be published: of the namespace that had the fewest in the last minute; of these the most
    /// severe, and then the newest.
    fn take(&mut self, log: &EventLog, now: Instant) -> Option<Note> {
        let may = |(_, entry): &(&Subject, &(Urgency, u64, Note))| log.may(&entry.2.namespace, now);
        let order = |(_, entry): &(&Subject, &(Urgency, u64, Note))| {
            let had = log.published_by(&entry.2.namespace, now);
            (Reverse(had), entry.0, entry.1)
        };
        let most = self.waiting.iter().filter(may).max_by_key(order);
        let key = most.map(|(key, _)| key.clone())?;
        self.waiting.remove(&key).map(|(_, _, note)| note)
    }

    /// When the next one may be published.
    fn free_at(&self, log: &EventLog, now: Instant) -> Instant {
        let mut namespaces = self.counts().into_keys();
        if namespaces.any(|namespace| log.may(namespace, now)) {
            return now;
        }
        let last = |at: &Instant| now.saturating_duration_since(*at) < MINUTE;
        let mut published = log.published.iter().map(|(at, _)| *at).filter(last);
        published.next().map_or(now, |oldest| oldest + MINUTE)
    }

    /// How many wait of each namespace.
    fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for (_, _, note) in self.waiting.values() {
            *counts.entry(&*note.namespace).or_default() += 1;
        }
        counts
    }
}

fn subject(event: &Note) -> Subject {
    (event.uid.clone(), event.kind, event.container.clone())
}

/// Whether the Event is still about something: its pod is there, and the container has not got its image.
fn is_topical(event: &Note, pods: &View<Pod>) -> bool {
    let Some(pod) = pods.objects.get(&event.uid) else {
        return false;
    };
    let is_it =
        |one: &&Container| one.kind == event.kind && printable(&one.name) == event.container;
    let container = pod.containers.iter().find(is_it);
    !pod.is_over && container.is_some_and(|one| !one.is_present)
}

/// The newest Event of each container.
#[derive(Debug, Default)]
struct EventLog {
    known: BTreeMap<Subject, Known>,
    /// When Events of the last minute were published, and their namespaces.
    published: VecDeque<(Instant, String)>,
}

#[derive(Debug)]
struct Known {
    namespace: String,
    /// `None`: the cause was revoked.
    cause: Option<&'static str>,
    at: Instant,
    /// How often the Event was published (`count`).
    times: i32,
}

/// What to do with an Event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum EventAction {
    /// Publish it; with the count of the same Event before, if there was one.
    Publish(Option<i32>),
    /// It was published, and is still valid.
    Nothing,
    /// The limit per minute is reached.
    Limited,
}

impl EventLog {
    /// Whether a namespace may have another Event now: the limit per minute is not reached, and its last places are for
    /// namespaces that had none.
    fn may(&self, namespace: &str, now: Instant) -> bool {
        let is_of_minute = |at: &Instant| now.saturating_duration_since(*at) < MINUTE;
        let taken = self.published.iter().filter(|(at, _)| is_of_minute(at));
        may_take(
            MOST_A_MINUTE,
            taken.count(),
            self.published_by(namespace, now),
        )
    }

    /// The number of Events of a namespace in the last minute.
    fn published_by(&self, namespace: &str, now: Instant) -> usize {
        let is_its = |(at, of): &&(Instant, String)| {
            now.saturating_duration_since(*at) < MINUTE && of == namespace
        };
        self.published.iter().filter(is_its).count()
    }

    /// What to do with an Event now.
    fn state(&mut self, event: &Note, now: Instant) -> EventAction {
        self.published
            .retain(|(at, _)| now.saturating_duration_since(*at) < MINUTE);
        let known = self.known.get(&subject(event));
        let before = known.filter(|known| known.cause == event.cause);
        let is_valid = match (known, event.cause) {
            // There is nothing to revoke.
            (None, None) => true,
            (Some(known), None) => known.cause.is_none(),
            (_, Some(_)) => {
                before.is_some_and(|known| now.saturating_duration_since(known.at) < AGAIN)
            }
        };
        if is_valid {
            return EventAction::Nothing;
        }
        if !self.may(&event.namespace, now) {
            return EventAction::Limited;
        }
        EventAction::Publish(before.map(|known| known.times))
    }

    /// The same; an Event to be published is counted in the limit per minute.
    fn decide(&mut self, event: &Note, now: Instant) -> EventAction {
        let action = self.state(event, now);
        if matches!(action, EventAction::Publish(_)) {
            self.published.push_back((now, event.namespace.clone()));
        }
        action
    }

    /// Remembers a published Event.
    fn note(&mut self, event: &Note, published: Published, now: Instant) {
        let times = match published {
            Published::Created => 1,
            Published::Counted { times } => times,
        };
        let known = Known {
            namespace: event.namespace.clone(),
            cause: event.cause,
            at: now,
            times,
        };
        self.known.insert(subject(event), known);
        if self.known.len() > MOST_KNOWN {
            self.forget_one();
        }
    }
}

impl EventLog {
    /// Forgets the oldest of the namespace with the most.
    fn forget_one(&mut self) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for known in self.known.values() {
            *counts.entry(&*known.namespace).or_default() += 1;
        }
        let order =
            |(_, known): &(&Subject, &Known)| (Reverse(counts[&*known.namespace]), known.at);
        let oldest = self.known.iter().min_by_key(order);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.known.remove(&key);
        }
    }
}

/// Queues Events and publishes those that are new.
#[derive(Clone, Debug)]
pub struct PodEvents {
    queue: mpsc::Sender<Queued>,
    counts: EventCounts,
}

impl PodEvents {
    /// Publishes until `stop` is cancelled, and counts outcomes in `counts`.
    pub fn start(
        client: Client,
        node: &str,
        pods: watch::Receiver<View<Pod>>,
        counts: EventCounts,
        stop: CancellationToken,
    ) -> Self {
        let (queue, incoming) = mpsc::channel(MOST_WAITING);
        let publisher = Publisher {
            client,
            node: node.to_owned(),
            pods,
            counts: counts.clone(),
            log: EventLog::default(),
            is_healthy: true,
        };
        tokio::spawn(async move { stop.run_until_cancelled(publisher.run(incoming)).await });
        Self { queue, counts }
    }

    /// Queues Events. It never waits: if the queue is full, they are dropped and counted.
    pub fn take(&self, events: Vec<Queued>) {
        for event in events {
            if self.queue.try_send(event).is_err() {
                count(&self.counts, "dropped");
            }
        }
    }
}

fn count(counts: &EventCounts, outcome: &'static str) {
    counts
        .outcomes
        .send_modify(|counts| *counts.entry(outcome).or_default() += 1);
}

/// Publishes Events one after the other.
struct Publisher {
    client: Client,
    node: String,
    pods: watch::Receiver<View<Pod>>,
    counts: EventCounts,
    log: EventLog,
    is_healthy: bool,
}

impl Publisher {
    async fn run(mut self, mut incoming: mpsc::Receiver<Queued>) {
        let mut backlog = Backlog::default();
        loop {
            let free = backlog.free_at(&self.log, Instant::now());
            tokio::select! {
                biased;
                queued = incoming.recv() => {
                    let Some(queued) = queued else { return };
                    self.add(&mut backlog, queued);
                }
                () = sleep_until(free), if !backlog.waiting.is_empty() => {
                    if let Some(event) = backlog.take(&self.log, Instant::now()) {
                        self.publish(event).await;
                    }
                }
            }
            let now = Instant::now();
            let is_limited = backlog.free_at(&self.log, now) > now;
            let waiting = if is_limited { backlog.waiting.len() } else { 0 };
            self.counts.waiting.send_replace(waiting);
        }
    }

    fn add(&mut self, backlog: &mut Backlog, queued: Queued) {
        match self.log.state(&queued.note, Instant::now()) {
            // An older one about the container no longer applies.
            EventAction::Nothing => {
                backlog.waiting.remove(&subject(&queued.note));
                return;
            }
            EventAction::Limited => count(&self.counts, "limited"),
            EventAction::Publish(_) => {}
        }
        if backlog.add(queued) {
            count(&self.counts, "dropped");
        }
    }

    async fn publish(&mut self, event: Note) {
        if !is_topical(&event, &self.pods.borrow()) {
            return;
        }
        let EventAction::Publish(times) = self.log.decide(&event, Instant::now()) else {
            return;
        };
        let published = publish(&self.client, &self.node, &event, times).await;
        let outcome = match &published {
            Ok(Published::Created) => "created",
            Ok(Published::Counted { .. }) => "counted",
            Err(PublishError::Forbidden { .. }) => "forbidden",
            Err(PublishError::Late | PublishError::Refused(_)) => "failed",
        };
        count(&self.counts, outcome);
        match published {
            Ok(published) => {
                self.log.note(&event, published, Instant::now());
                self.is_healthy = true;
            }
            // Logged once, and again after a success.
            Err(error) => {
                if self.is_healthy {
                    tracing::warn!(%error, "an Event can't be published");
                }
                self.is_healthy = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::workload::PullPolicy;

    fn event(uid: &str, cause: Option<&'static str>) -> Note {
        note(&used("a"), uid, cause, "")
    }

    fn used(pod: &str) -> Use {
        Use {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            container: "app".to_owned(),
            kind: ContainerKind::Container,
            policy: PullPolicy::Always,
            image: "r.test/a:1".to_owned(),
            waits: true,
            is_present: false,
        }
    }

    #[test]
    fn a_cause_is_said_once_an_hour_and_another_one_at_once() {
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_mins(minutes);
        let mut log = EventLog::default();
        let mut step = |cause, minutes, published: Option<Published>| {
            let event = event("u1", cause);
            let then = log.decide(&event, at(minutes));
            if let Some(published) = published {
                log.note(&event, published, at(minutes));
            }
            then
        };
        assert_eq!(
            step(None, 0, None),
            EventAction::Nothing,
            "there is nothing to revoke"
        );
        let new = EventAction::Publish(None);
        // It failed the first time.
        assert_eq!(step(Some("auth_bad_cred"), 0, None), new);
        assert_eq!(
            step(Some("auth_bad_cred"), 2, Some(Published::Created)),
            new
        );
        assert_eq!(step(Some("auth_bad_cred"), 4, None), EventAction::Nothing);
        let again = step(
            Some("auth_bad_cred"),
            62,
            Some(Published::Counted { times: 2 }),
        );
        assert_eq!(again, EventAction::Publish(Some(1)));
        assert_eq!(step(Some("auth_bad_cred"), 64, None), EventAction::Nothing);
        assert_eq!(step(Some("tls_expired"), 66, Some(Published::Created)), new);
        assert_eq!(step(None, 68, Some(Published::Created)), new);
        assert_eq!(step(None, 70, None), EventAction::Nothing);
        assert_eq!(step(Some("tls_expired"), 72, None), new);
    }

    #[test]
    fn a_node_says_so_much_in_a_minute_and_remembers_so_many() {
        let now = Instant::now();
        let mut log = EventLog::default();
        let of = |namespace: &str, uid: &str| Note {
            namespace: namespace.to_owned(),
            ..event(uid, Some("tcp_timeout"))
        };
        for number in 0..7 {
            let event = of("big", &number.to_string());
            assert_eq!(log.decide(&event, now), EventAction::Publish(None));
        }
        // The last places are for namespaces that had none.
        let late = of("big", "late");
        assert_eq!(log.decide(&late, now), EventAction::Limited);
        for namespace in ["a", "b", "c"] {
            let event = of(namespace, namespace);
            assert_eq!(log.decide(&event, now), EventAction::Publish(None));
        }
        assert_eq!(log.decide(&of("d", "d"), now), EventAction::Limited);
        assert_eq!(log.decide(&late, now + MINUTE), EventAction::Publish(None));
        for number in 0..2 * MOST_KNOWN {
            let event = event(&number.to_string(), Some("tcp_timeout"));
            log.note(&event, Published::Created, now);
        }
        assert_eq!(log.known.len(), MOST_KNOWN);
    }

    #[test]
    fn of_those_that_wait_the_most_severe_and_the_newest_is_first() {
        let mut backlog = Backlog::default();
        let queued = |uid: &str, urgency| Queued {
            urgency,
            note: event(uid, Some("tcp_timeout")),
        };
        for (uid, urgency) in [
            ("resolved", Urgency::Resolved),
            ("certain-1", Urgency::Certain),
            ("unknown", Urgency::Unknown),
            ("certain-2", Urgency::Certain),
            ("likely", Urgency::Likely),
        ] {
            assert!(!backlog.add(queued(uid, urgency)));
        }
        // A newer one of the same container replaces the older.
        assert!(!backlog.add(queued("likely", Urgency::Unknown)));
        let (log, now) = (EventLog::default(), Instant::now());
        let all: Vec<String> = std::iter::from_fn(|| backlog.take(&log, now))
            .map(|note| note.uid)
            .collect();
        let order = ["certain-2", "certain-1", "likely", "unknown", "resolved"];
        assert_eq!(all, order);
        assert!(!backlog.add(queued("least", Urgency::Unknown)));
        let mut others = (0..MOST_WAITING).map(|n| queued(&n.to_string(), Urgency::Likely));
        assert_eq!(
            others.position(|one| backlog.add(one)),
            Some(MOST_WAITING - 1)
        );
        assert!(!backlog.waiting.keys().any(|(uid, ..)| uid == "least"));
        assert_eq!(backlog.waiting.len(), MOST_WAITING);
    }

    #[test]
    fn the_next_may_be_published_when_the_oldest_is_a_minute_ago() {
        let now = Instant::now();
        let mut log = EventLog::default();
        let mut backlog = Backlog::default();
        let late = now + Duration::from_secs(30);
        backlog.add(Queued {
            urgency: Urgency::Likely,
            note: event("late", Some("tcp_timeout")),
        });
        assert_eq!(backlog.free_at(&log, late), late);
        for number in 0..7 {
            let then = now + Duration::from_secs(number);
            log.decide(&event(&number.to_string(), Some("tcp_timeout")), then);
        }
        assert_eq!(backlog.free_at(&log, late), now + MINUTE);
        assert_eq!(backlog.take(&log, late), None);
        assert_eq!(backlog.free_at(&log, now + 2 * MINUTE), now + 2 * MINUTE);
        // Another namespace need not wait.
        let bank = Note {
            namespace: "bank".to_owned(),
            ..event("bank", Some("tcp_timeout"))
        };
        backlog.add(Queued {
            urgency: Urgency::NotChecked,
            note: bank.clone(),
        });
        assert_eq!(backlog.free_at(&log, late), late);
        assert_eq!(backlog.take(&log, late), Some(bank));
    }

    #[test]
    fn an_event_is_not_published_on_a_pod_that_has_its_image() {
        let view = |pod: Option<&Pod>| {
            let objects = pod.map(|pod| ("u1".to_owned(), std::sync::Arc::new(pod.clone())));
            View::<Pod> {
                objects: std::sync::Arc::new(objects.into_iter().collect()),
                ..View::default()
            }
        };
        let mut pod = Pod {
            containers: vec![Container {
                name: "app".to_owned(),
                kind: ContainerKind::Container,
                image: "r.test/a:1".to_owned(),
                policy: None,
                is_sidecar: false,
                is_present: false,
                state: crate::workload::pod::ContainerState::Unknown,
            }],
            ..Pod::default()
        };
        let event = event("u1", Some("tcp_timeout"));
        assert!(!is_topical(&event, &view(None)), "the pod is gone");
        assert!(is_topical(&event, &view(Some(&pod))));
        pod.containers[0].is_present = true;
        assert!(!is_topical(&event, &view(Some(&pod))));
    }

    /// Saved reports in which every text of the other side is a mark, and faults with marks in a healthy one.
    #[test]
    fn an_event_has_no_words_of_a_server() {
        use std::time::Duration;

        use crate::model::fault::HttpFault;
        use crate::model::step::Step;
        use crate::report::Document;

        const MARK: &str = "zq7mark";
        let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");
        let (mut events, mut wrong) = (0, Vec::new());
        let mut look = |mut evidence: Evidence| {
            foreign::each(&mut evidence, &mut |source, text| {
                let is_shown_by_runtimes = matches!(
                    source,
                    Source::Host | Source::CertificateName | Source::Digest
                );
                if !is_shown_by_runtimes {
                    MARK.clone_into(text);
                }
            });
            let report = Report::conclude(evidence);
            let message = message_of(&report, "r.test/a:1", "n1");
            if let Some((_, message)) = message {
                events += 1;
                if message.contains(MARK) {
                    wrong.push(message);
                }
            }
        };
        let text = || Some(MARK.to_owned());
        let status = |status, code: Option<String>, message: Option<String>| HttpFault::Status {
            status,
            code,
            message,
            retry_after: text(),
            challenged: status == 401,
            authorized: true,
        };
        let faults = [
            status(403, text(), text()),
            status(403, Some("DENIED".to_owned()), text()),
            status(404, None, text()),
            status(429, text(), text()),
            status(500, None, text()),
            status(401, None, text()),
            HttpFault::malformed(MARK),
            HttpFault::Page { title: text() },
            HttpFault::Unsupported {
                media_type: MARK.to_owned(),
            },
            HttpFault::Encoding {
                encoding: MARK.to_owned(),
            },
            HttpFault::Other {
                reason: MARK.to_owned(),
            },
        ];
        for case in std::fs::read_dir(cases).unwrap() {
            let Ok(json) = std::fs::read(case.unwrap().path().join("report.json")) else {
                continue;
            };
            let Ok(document) = serde_json::from_slice::<Document>(&json) else {
                continue;
            };
            for report in document.reports {
                look(report.evidence.clone());
                for fault in &faults {
                    let mut evidence = report.evidence.clone();
                    evidence.pulled = None;
                    for attempt in &mut evidence.walk.attempts {
                        attempt.head = Step::Failed {
                            fault: fault.clone(),
                            took: Duration::ZERO,
                        };
                    }
                    evidence.walk.blob = Step::Failed {
                        fault: fault.clone(),
                        took: Duration::ZERO,
                    };
                    look(evidence);
                }
            }
        }
        assert!(events > 50, "{events}");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_hint_for_readers_has_no_option_of_this_program() {
        for (hint, wanted) in [
            (
                "Name a pull secret for r.test in the pod's imagePullSecrets, in the pod's own namespace; give it to this check with --secret-file.",
                "Name a pull secret for r.test in the pod's imagePullSecrets, in the pod's own namespace.",
            ),
            (
                "Create it (`kubectl create secret docker-registry a --docker-server=r.test`). Then wait.",
                "Create it (`kubectl create secret docker-registry a --docker-server=r.test`). Then wait.",
            ),
            (
                "Enable TLS at r.test; if it must stay without, set `server = \"http://r.test\"` in certs.d/r.test/hosts.toml on the nodes, and probe with --plain-http.",
                "Enable TLS at r.test; if it must stay without, set `server = \"http://r.test\"` in certs.d/r.test/hosts.toml on the nodes.",
            ),
        ] {
            assert_eq!(for_readers(hint), wanted);
        }
    }

    #[test]
    fn the_error_its_place_and_the_secret_that_does_not_fit_are_named() {
        let finding = |cause, facts: &[&str]| Finding {
            cause,
            severity: Severity::Critical,
            confidence: Confidence::High,
            leg: None,
            phase: None,
            evidence: facts.iter().map(|fact| (*fact).to_owned()).collect(),
            hint: String::new(),
        };
        let storage = finding(
            Cause::RedirectBlob,
            &[
                "10.0.2.9:443: no answer",
                "the layer storage is https://b.test",
                "third",
            ],
        );
        assert_eq!(
            summary(&storage, &[]),
            "redirect_blob: 10.0.2.9:443: no answer; the layer storage is https://b.test"
        );
        let secrets = [
            (SecretOutcome::NoKey, "none of its keys matches this image"),
            (SecretOutcome::Unread, "not read"),
        ];
        let secrets = secrets.map(|(outcome, message)| SecretVerdict {
            namespace: None,
            name: "otherkey".to_owned(),
            outcome,
            message: message.to_owned(),
        });
        let login = finding(Cause::AuthNoCred, &["no source has a key"]);
        assert_eq!(
            summary(&login, &secrets),
            "auth_no_cred: Secret otherkey: none of its keys matches this image; no source has a key"
        );
    }

    #[test]
    fn what_is_the_same_has_the_same_name_which_is_one_of_kubernetes() {
        let one = event("u1", Some("tcp_timeout"));
        assert_eq!(one, event("u1", Some("tcp_timeout")));
        assert_ne!(one.name, event("u2", Some("tcp_timeout")).name);
        assert_ne!(one.name, event("u1", None).name);
        let long = used(&format!("{}-{}", "a".repeat(199), "b".repeat(50)));
        let name = note(&long, "u1", Some("tcp_timeout"), "").name;
        assert!(name.len() <= 253 && name.starts_with(&format!("{}.", "a".repeat(199))));
    }

    #[test]
    fn a_message_is_as_long_as_an_event_takes() {
        assert_eq!(bounded(&"ä".repeat(2000)).len(), MOST_MESSAGE);
        let finding = Finding {
            cause: Cause::AuthBadCred,
            severity: Severity::Critical,
            confidence: crate::diagnose::level::Confidence::High,
            leg: None,
            phase: None,
            evidence: vec!["e".repeat(5000), "second".to_owned()],
            hint: "h".repeat(5000),
        };
        let text = summary(&finding, &[]);
        assert!(text.starts_with("auth_bad_cred: eee") && text.contains("…. hint: hhh"));
        assert!(text.len() < MOST_MESSAGE && !text.contains("second"));
    }
}
