//! Tallies of real pulls from Events: figures for each pair of registry and node, current failures, newest
//! pulls. Each occurrence counts once, however often its Event is delivered; every collection is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::event::{EventKind, PullTimes, read};
use super::failure::{self, ParsedFailure};
use super::judge::{self, Slow};
use crate::diagnose::catalogue::Cause;
use crate::model::histogram::{BYTES_PER_SECOND, Histogram};
use crate::model::reference::Reference;
use crate::model::text::clean;
use crate::redact::shown;
use crate::workload::pod::Event;

/// Bucket edges for pull durations: from an image that is nearly present to one that takes an hour. Few,
/// because every node has its own series.
const PULL_SECONDS: &[f64] = &[
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// Bucket edges for the time spent waiting for other pulls.
const WAIT_SECONDS: &[f64] = &[0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// Events remembered so that each is counted once (6 MB), and Events of a list that is not complete. The API
/// server keeps Events for an hour; 500 nodes that start ten pods each within an hour produce 20,000.
const MOST_EVENTS: usize = 100_000;

/// Simultaneously failing containers that are listed one by one.
const MOST_FAILING: usize = 1000;

/// Newest pulls that are listed.
const MOST_NEWEST: usize = 200;
/// Unmatched messages that are listed.
const MOST_UNKNOWN: usize = 20;

/// Newest pulls of a pair that are judged together.
const RECENT: usize = 20;

/// Images remembered as present on the node, for each pair.
const MOST_IMAGES: usize = 256;

/// A failing pod gets an Event at least every five minutes (the longest back-off, and client-go's rate limit
/// for Events of one object). After two such periods without one, the pod is gone or has its image.
const STILL: Duration = Duration::from_mins(11);

/// Events about one failing container that are remembered, the newest. A kubelet has one for each text.
const MOST_REPORTS: usize = 16;

/// Containers and pods whose last success is remembered. A cluster of 500 nodes starts fewer within 11 minutes.
const MOST_RECOVERED: usize = 20_000;

/// Bounds and rates from the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Maximum number of pairs of registry and node.
    pub max_pairs: usize,
    /// A pair without pulls for this long is dropped.
    pub idle: Duration,
    /// The rate that nodes measure from a registry, in bytes per second (`cluster.node_rates_mbit`).
    pub node_rates: BTreeMap<Arc<str>, f64>,
}

/// A registry and a node.
type PairKey = (Arc<str>, Arc<str>);

/// What is known from all Events since the watch began; counters survive a new watch.
#[derive(Debug, Default)]
pub struct Tally {
    limits: Limits,
    /// Occurrences before this time were counted earlier.
    since: Timestamp,
    /// The first list since then is complete.
    is_underway: bool,
    /// The count of each Event, by its UID.
    seen: BTreeMap<u128, u64>,
    /// The Events of a list that is not complete, the oldest first.
    listed: Option<BTreeMap<ListKey, Event>>,
    /// Figures by (registry, node); at most [`Limits::max_pairs`].
    pub pairs: BTreeMap<PairKey, Pair>,
    /// Containers and image volumes whose pulls fail now; at most 1000.
    pub failing: BTreeMap<ContainerKey, Failing>,
    /// What [`Self::failing`] is made from: the newest version of each Event about a failure.
    reports: BTreeMap<ContainerKey, Vec<FailureReport>>,
    /// When each container last had its image. Events are delivered in any order, and an older failure that
    /// arrives later no longer applies.
    recovered: BTreeMap<ContainerKey, Timestamp>,
    /// Pods that name unreadable Secrets, by (namespace, pod); at most 1000.
    pub secrets: BTreeMap<(String, String), SecretsMissing>,
    /// Successful pulls, the newest first; at most 200.
    pub newest: VecDeque<Pull>,
    /// Failure messages that match no cause, the most recently reported first; at most 20.
    pub unknown: VecDeque<Unknown>,
    /// Occurrences by [`EventKind::as_str`].
    pub counts: BTreeMap<&'static str, u64>,
    /// Failures whose message matches no cause.
    pub unknown_texts: u64,
    /// Occurrences that were not counted because a collection was full.
    pub uncounted: u64,
}

/// The newest version of an Event about a container's failure.
#[derive(Debug)]
struct FailureReport {
    event: u128,
    first: Timestamp,
    last: Timestamp,
    count: u64,
    /// The failure, or with an empty text the back-off. `None`: only the state was reported, without an image.
    details: Option<Failing>,
    is_back_off: bool,
}

/// The order of listed Events: by the time of their last and first occurrence, then by UID.
type ListKey = (Timestamp, Timestamp, u128);

/// Figures of a registry and a node.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Seconds of each pull, without the wait for other pulls if the kubelet separates it.
    pub duration: Histogram,
    /// Seconds a pull waited for other pulls (Kubernetes 1.28 and later).
    pub waiting: Histogram,
    /// Bytes per second of pulls of images new to the node; see [`rate`].
    pub throughput: Histogram,
    /// Failures by cause; `unexplained` if the message matches none.
    pub failures: BTreeMap<Cause, u64>,
    /// The newest pulls, the newest last.
    recent: Vec<RecentPull>,
    /// Why the newest pulls are slow; `None` if they are not, or if their times don't show it.
    pub slow: Option<Slow>,
    /// Hashes of images observed on this node, the newest last.
    images: VecDeque<u64>,
    last: Timestamp,
}

/// A pull that is judged together with others.
#[derive(Clone, Copy, Debug)]
struct RecentPull {
    at: Timestamp,
    event: u128,
    took: PullTimes,
}

/// The container or image volume whose image is pulled.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ContainerKey {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name. Empty for an image volume: the kubelet reports those for the pod.
    pub container: String,
    /// The image of an image volume, since a pod may have several. Empty for containers.
    #[serde(skip)]
    pub volume: String,
}

/// A container, or an image volume, whose image can't be pulled.
#[derive(Clone, Debug, Serialize)]
pub struct Failing {
    /// The image as the Event names it, at most 400 characters.
    pub image: String,
    /// The image's registry. Empty if the image's name is invalid, or if the node's runtime or a Secret that can't be
    /// decoded is at fault.
    #[serde(serialize_with = "as_text")]
    pub registry: Arc<str>,
    /// The node that pulls. Empty if the Event names none.
    #[serde(serialize_with = "as_text")]
    pub node: Arc<str>,
    /// The runtime's message, without secrets. Empty if only the state was reported.
    pub text: String,
    /// What the message shows.
    #[serde(skip)]
    pub failure: ParsedFailure,
    /// The first failure.
    pub first: Timestamp,
    /// The latest failure or back-off.
    pub last: Timestamp,
    /// Reported failures.
    #[serde(rename = "failures")]
    pub count: u64,
}

/// A pod that names Secrets the kubelet can't read.
#[derive(Clone, Debug, Serialize)]
pub struct SecretsMissing {
    /// Names of the Secrets, in the pod's namespace.
    #[serde(rename = "secrets")]
    pub names: Vec<String>,
    /// The pod's node.
    #[serde(serialize_with = "as_text")]
    pub node: Arc<str>,
    /// The latest report.
    pub last: Timestamp,
}

/// A pull that succeeded.
#[derive(Clone, Debug, Serialize)]
pub struct Pull {
    /// The Event's time, in whole seconds.
    pub at: Timestamp,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name. Empty for the image of a volume.
    pub container: String,
    /// The image as the Event names it, at most 400 characters.
    pub image: String,
    /// The image's registry. Empty if the image's name is invalid.
    #[serde(serialize_with = "as_text")]
    pub registry: Arc<str>,
    /// The node that pulled.
    #[serde(serialize_with = "as_text")]
    pub node: Arc<str>,
    /// How long it took, and the image's size.
    #[serde(skip)]
    pub took: PullTimes,
}

/// A failure message that matches no cause.
#[derive(Clone, Debug, Serialize)]
pub struct Unknown {
    /// The message, without secrets.
    pub text: String,
    /// The registry of the latest pull that failed with it.
    #[serde(serialize_with = "as_text")]
    pub registry: Arc<str>,
    /// The node of the latest pull that failed with it.
    #[serde(serialize_with = "as_text")]
    pub node: Arc<str>,
    /// The latest failure.
    pub last: Timestamp,
    /// Failures with this message.
    #[serde(rename = "failures")]
    pub count: u64,
}

fn as_text<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

impl Tally {
    /// An empty tally; occurrences before `since` are not counted.
    pub fn new(limits: Limits, since: Timestamp) -> Self {
        Self {
            limits,
            since: whole_second(since),
            ..Self::default()
        }
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Replaces the bounds and judges each pair again with the new node rates. Pairs beyond a smaller bound
    /// stay until they are idle.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        for ((registry, _), pair) in &mut self.pairs {
            pair.judge(self.limits.node_rates.get(registry).copied());
        }
    }

    /// Starts a new watch. Occurrences before `since` are not counted: another replica counted them. Counters
    /// keep their values; current failures and the newest pulls are cleared.
    pub fn begin(&mut self, since: Timestamp) {
        self.since = whole_second(since);
        self.is_underway = false;
        self.seen.clear();
        self.listed = None;
        self.failing.clear();
        self.reports.clear();
        self.recovered.clear();
        self.secrets.clear();
        self.newest.clear();
    }

    /// A new list of all Events begins. An API server lists them by name, so they take effect by their time, when
    /// the list is complete.
    pub fn list_begins(&mut self) {
        self.listed = Some(BTreeMap::new());
    }

    /// The list is complete. Events that were not in it are forgotten.
    pub fn list_ends(&mut self, now: Timestamp) {
        let listed = self.listed.take().unwrap_or_default();
        let uids: BTreeSet<u128> = listed.keys().map(|(_, _, uid)| *uid).collect();
        self.seen.retain(|uid, _| uids.contains(uid));
        for event in listed.values() {
            self.apply(event, now);
        }
        self.is_underway = true;
    }

    /// The Event with this UID was deleted.
    pub fn gone(&mut self, uid: &str) {
        self.seen.remove(&key_of(uid));
    }

    /// Takes an Event as the API server delivers it: new, with a higher count, or repeated.
    pub fn take(&mut self, event: &Event, now: Timestamp) {
        let Some(listed) = &mut self.listed else {
            self.apply(event, now);
            return;
        };
        if read(&event.reason, &event.message).is_none() {
            return;
        }
        let last = event.last.or(event.first).unwrap_or(now);
        let first = event.first.unwrap_or(last);
        listed.insert((last, first, key_of(&event.uid)), event.clone());
        if listed.len() > MOST_EVENTS {
            listed.pop_first();
            self.uncounted += 1;
        }
    }

    fn apply(&mut self, event: &Event, now: Timestamp) {
        let Some(said) = read(&event.reason, &event.message) else {
            return;
        };
        let Some(new) = self.occurrences(event) else {
            return;
        };
        // A clock that is ahead must not keep a failure alive for longer.
        let at = event.last.or(event.first).unwrap_or(now).min(now);
        if new > 0 {
            *self.counts.entry(said.as_str()).or_default() += new;
        }
        self.note(event, said, at, new);
    }

    /// How often the Event occurred since it was last delivered; `None` if it did not, or if there is no room
    /// to remember it.
    fn occurrences(&mut self, event: &Event) -> Option<u64> {
        let key = key_of(&event.uid);
        let count = event.count.max(1);
        if let Some(seen) = self.seen.get_mut(&key) {
            let new = count.saturating_sub(*seen);
            *seen = count.max(*seen);
            return (new > 0).then_some(new);
        }
        if self.seen.len() >= MOST_EVENTS {
            self.uncounted += 1;
            return None;
        }
        self.seen.insert(key, count);
        let after = |at: Option<Timestamp>| at.is_some_and(|at| at >= self.since);
        // The first list may hold earlier occurrences; Events after it are new.
        if self.is_underway || after(event.first) {
            return Some(count);
        }
        Some(u64::from(after(event.last)))
    }

    fn note(&mut self, event: &Event, said: EventKind, at: Timestamp, new: u64) {
        let volume = said.image().filter(|_| event.container.is_empty());
        let container = ContainerKey {
            namespace: event.namespace.clone(),
            pod: event.pod.clone(),
            container: event.container.clone(),
            volume: volume.map_or_else(String::new, |image| clean(image, MOST_IMAGE)),
        };
        let node: Arc<str> = Arc::from(clean(&event.node, LONGEST_NAME));
        let registry = said.image().and_then(registry_of).unwrap_or_default();
        let failing = |image: &str, failure, text: &str| Failing {
            image: clean(image, MOST_IMAGE),
            registry: registry.clone(),
            node: node.clone(),
            text: shown(text),
            failure,
            first: at,
            last: at,
            count: 0,
        };
        let report = |details: Option<Failing>, is_back_off| FailureReport {
            event: key_of(&event.uid),
            first: event.first.unwrap_or(at).min(at),
            last: at,
            count: event.count.max(1),
            details,
            is_back_off,
        };
        if !event.container.is_empty() {
            self.has_sandbox(&container, at);
        }
        match said {
            EventKind::Pulling { .. } => {}
            EventKind::Present { image } => {
                self.recovered(&container, at);
                if let Some(pair) = self.pairs.get_mut(&(registry, node)) {
                    pair.has(&image);
                }
            }
            EventKind::Pulled { image, took } => {
                self.recovered(&container, at);
                let event = key_of(&event.uid);
                let pull = RecentPull { at, event, took };
                let rate = self.limits.node_rates.get(&registry).copied();
                match self.pair((registry.clone(), node.clone()), at) {
                    Some(pair) => pair.pulled(&image, pull, new > 0, rate),
                    None => self.uncounted += new,
                }
                self.show(Pull {
                    at,
                    namespace: container.namespace,
                    pod: container.pod,
                    container: container.container,
                    image: clean(&image, MOST_IMAGE),
                    registry,
                    node,
                    took,
                });
            }
            EventKind::StillFailing { image } => {
                let failing = image.map(|image| failing(&image, ParsedFailure::default(), ""));
                self.reported(&container, report(failing, true));
            }
            EventKind::SecretsMissing { names } => {
                let missing = SecretsMissing {
                    names,
                    node,
                    last: at,
                };
                self.secrets_missing((container.namespace, container.pod), missing);
            }
            EventKind::Failed { image, text } | EventKind::NotInspected { image, text } => {
                let failure = failure::judge(&image, &text);
                let mut failing = failing(&image, failure, &text);
                // The node's runtime does not answer: whose image it is does not matter.
                if failing.failure.cause == Some(Cause::RuntimeFault) {
                    failing.registry = Arc::default();
                }
                self.failed(&failing, new);
                self.reported(&container, report(Some(failing), false));
            }
            EventKind::SecretUndecodable { text } => {
                let failing = failing("", ParsedFailure::certain(Cause::SecretFormat), &text);
                self.failed(&failing, new);
                self.reported(&container, report(Some(failing), false));
            }
            EventKind::SandboxFailed { image, text } => {
                let failure = ParsedFailure {
                    is_sandbox: true,
                    ..failure::judge(&image, &text)
                };
                let failing = failing(&image, failure, &text);
                self.failed(&failing, new);
                self.reported(&container, report(Some(failing), false));
            }
            EventKind::NeverPulled { image } => {
                let failure = ParsedFailure::certain(Cause::NoPull);
                let failing = failing(&image, failure, &event.message);
                self.failed(&failing, new);
                self.reported(&container, report(Some(failing), false));
            }
        }
    }

    /// Counts a failure.
    fn failed(&mut self, failing: &Failing, new: u64) {
        if new > 0 {
            let cause = failing.failure.cause.unwrap_or(Cause::Unexplained);
            match self.pair(
                (failing.registry.clone(), failing.node.clone()),
                failing.last,
            ) {
                Some(pair) => *pair.failures.entry(cause).or_default() += new,
                None => self.uncounted += new,
            }
        }
        if failing.failure.cause.is_none() {
            self.unknown_texts += new;
            self.remember_unknown(failing, new);
        }
    }

    /// Remembers the newest version of an Event about a failure.
    fn reported(&mut self, container: &ContainerKey, report: FailureReport) {
        if self.reports.len() >= MOST_FAILING && !self.reports.contains_key(container) {
            self.uncounted += 1;
            return;
        }
        let all = self.reports.entry(container.clone()).or_default();
        all.retain(|known| known.event != report.event);
        all.push(report);
        all.sort_by_key(|report| (report.last, report.first, report.event));
        if all.len() > MOST_REPORTS {
            all.remove(0);
        }
        self.conclude(container);
    }

    /// Whether a container fails now, from what is remembered about it.
    fn conclude(&mut self, container: &ContainerKey) {
        let recovered = self.recovered.get(container).copied();
        let sandbox = self.recovered.get(&sandbox_of(container)).copied();
        let Some(all) = self.reports.get_mut(container) else {
            return;
        };
        let recovered_of = |report: &FailureReport| {
            let details = report.details.as_ref();
            let is_sandbox = details.is_some_and(|failing| failing.failure.is_sandbox);
            recovered.max(sandbox.filter(|_| is_sandbox))
        };
        all.retain(|report| Some(report.last) > recovered_of(report));
        if all.is_empty() {
            self.reports.remove(container);
            self.failing.remove(container);
            return;
        }
        let failures = || all.iter().filter(|report| !report.is_back_off);
        let since = |report: &FailureReport| {
            let is_whole = Some(report.first) > recovered_of(report);
            if is_whole { report.first } else { report.last }
        };
        // The latest failure counts, whenever the kubelet last backed off.
        let newest = attempted(failures()).or_else(|| {
            let named = |report: &&FailureReport| report.details.is_some();
            all.iter().rfind(named)
        });
        let Some(details) = newest.and_then(|newest| newest.details.as_ref()) else {
            return;
        };
        let count = failures().map(|report| match since(report) {
            since if since == report.first => report.count,
            _ => 1,
        });
        let failing = Failing {
            first: all.iter().map(since).min().unwrap_or(details.first),
            last: all.iter().map(|one| one.last).max().unwrap_or(details.last),
            count: count.sum(),
            ..details.clone()
        };
        self.failing.insert(container.clone(), failing);
    }

    fn recovered(&mut self, container: &ContainerKey, at: Timestamp) {
        self.had(container, at);
        self.conclude(container);
    }

    /// A container of the pod was worked on, so the pod had its sandbox.
    fn has_sandbox(&mut self, container: &ContainerKey, at: Timestamp) {
        let pod = sandbox_of(container);
        self.had(&pod, at);
        let of_pod = self.reports.range(pod.clone()..);
        let is_of_pod = |key: &&ContainerKey| {
            (&key.namespace, &key.pod, &key.container) == (&pod.namespace, &pod.pod, &pod.container)
        };
        let of_pod: Vec<ContainerKey> = of_pod
            .map(|(key, _)| key)
            .take_while(is_of_pod)
            .cloned()
            .collect();
        for key in of_pod {
            self.conclude(&key);
        }
    }

    fn had(&mut self, key: &ContainerKey, at: Timestamp) {
        if let Some(known) = self.recovered.get_mut(key) {
            *known = at.max(*known);
        } else if self.recovered.len() < MOST_RECOVERED {
            self.recovered.insert(key.clone(), at);
        }
    }

    fn secrets_missing(&mut self, pod: (String, String), missing: SecretsMissing) {
        let known = self.secrets.get(&pod);
        let order = |one: &SecretsMissing| (one.last, one.names.clone());
        if known.is_some_and(|known| order(known) >= order(&missing)) {
            return;
        }
        if known.is_some() || self.secrets.len() < MOST_FAILING {
            self.secrets.insert(pod, missing);
        } else {
            self.uncounted += 1;
        }
    }

    fn remember_unknown(&mut self, failing: &Failing, new: u64) {
        let is_same = |known: &Unknown| known.text == failing.text;
        let place = self.unknown.iter().position(is_same);
        let before = place.and_then(|place| self.unknown.remove(place));
        let now = Unknown {
            text: failing.text.clone(),
            registry: failing.registry.clone(),
            node: failing.node.clone(),
            last: failing.last,
            count: new.max(1),
        };
        let count = now.count + before.as_ref().map_or(0, |before| before.count);
        let order = |one: &Unknown| (one.last, one.registry.clone(), one.node.clone());
        let newest = before.into_iter().chain([now]).max_by_key(order);
        self.unknown
            .extend(newest.map(|newest| Unknown { count, ..newest }));
        self.unknown
            .make_contiguous()
            .sort_by(|a, b| (b.last, &a.text).cmp(&(a.last, &b.text)));
        self.unknown.truncate(MOST_UNKNOWN);
    }

    fn show(&mut self, pull: Pull) {
        let place = self
            .newest
            .partition_point(|known| known.order() <= pull.order());
        self.newest.insert(place, pull);
        self.newest.truncate(MOST_NEWEST);
    }

    fn pair(&mut self, key: PairKey, at: Timestamp) -> Option<&mut Pair> {
        if !self.pairs.contains_key(&key) && self.pairs.len() >= self.limits.max_pairs {
            return None;
        }
        let pair = self.pairs.entry(key).or_insert_with(|| Pair::new(at));
        pair.last = pair.last.max(at);
        Some(pair)
    }

    /// Drops idle pairs, and failures and unreadable Secrets without an Event for 11 minutes.
    pub fn tidy(&mut self, now: Timestamp) {
        let is_within = |at: Timestamp, most: Duration| {
            now.duration_since(at).try_into().unwrap_or(Duration::ZERO) <= most
        };
        let idle = self.limits.idle;
        self.pairs.retain(|_, pair| is_within(pair.last, idle));
        self.failing.retain(|_, one| is_within(one.last, STILL));
        self.reports.retain(|_, all| {
            let last = all.last();
            last.is_some_and(|newest| is_within(newest.last, STILL))
        });
        self.recovered.retain(|_, at| is_within(*at, STILL));
        self.secrets.retain(|_, one| is_within(one.last, STILL));
    }
}

/// The latest failure. A pull that the kubelet did not try, because it had made too many (`pull QPS exceeded`), shows
/// nothing of the image: an earlier failure of the same image is still what prevents the pull.
fn attempted<'a>(
    failures: impl DoubleEndedIterator<Item = &'a FailureReport> + Clone,
) -> Option<&'a FailureReport> {
    let newest = failures.clone().next_back()?;
    let image = newest.details.as_ref().map(|newest| &newest.image);
    let is_attempt = |report: &&FailureReport| {
        let details = report.details.as_ref();
        details.is_some_and(|one| {
            one.failure.cause != Some(Cause::KubeletQps) && Some(&one.image) == image
        })
    };
    failures.rev().find(is_attempt).or(Some(newest))
}

/// Stands for the sandbox of a container's pod in [`Tally::recovered`].
fn sandbox_of(container: &ContainerKey) -> ContainerKey {
    ContainerKey {
        container: String::new(),
        volume: String::new(),
        ..container.clone()
    }
}

impl Pull {
    /// The newest first.
    fn order(&self) -> impl Ord + use<'_> {
        (
            std::cmp::Reverse(self.at),
            (&self.namespace, &self.pod, &self.container, &self.image),
        )
    }
}

impl Pair {
    fn new(at: Timestamp) -> Self {
        Self {
            duration: Histogram::new(PULL_SECONDS),
            waiting: Histogram::new(WAIT_SECONDS),
            throughput: Histogram::new(BYTES_PER_SECOND),
            failures: BTreeMap::new(),
            recent: Vec::new(),
            slow: None,
            images: VecDeque::new(),
            last: at,
        }
    }

    /// Takes a pull. One that another replica counted, or that was before the first watch, is only judged.
    fn pulled(&mut self, image: &str, pull: RecentPull, is_counted: bool, node_rate: Option<f64>) {
        let took = pull.took;
        let is_new = self.has(image);
        if is_counted {
            self.duration.observe(took.pulling.as_secs_f64());
            if let Some(waiting) = took.waiting() {
                self.waiting.observe(waiting.as_secs_f64());
            }
            if let Some(rate) = rate(took).filter(|_| is_new) {
                self.throughput.observe(rate);
            }
        }
        if is_new || took.waiting().is_some_and(|waiting| !waiting.is_zero()) {
            self.remember(pull);
            self.judge(node_rate);
        }
    }

    /// Remembers one of the newest pulls, once.
    fn remember(&mut self, pull: RecentPull) {
        let order = |one: &RecentPull| (one.at, one.event);
        if let Err(place) = self.recent.binary_search_by_key(&order(&pull), order) {
            self.recent.insert(place, pull);
        }
        let over = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..over);
    }

    /// Records that the node has this image; returns whether that is new.
    fn has(&mut self, image: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        image.hash(&mut hasher);
        let key = hasher.finish();
        let before = self.images.iter().position(|known| *known == key);
        if let Some(place) = before {
            self.images.remove(place);
        }
        self.images.push_back(key);
        if self.images.len() > MOST_IMAGES {
            self.images.pop_front();
        }
        before.is_none()
    }

    fn judge(&mut self, node_rate: Option<f64>) {
        let pulls: Vec<PullTimes> = self.recent.iter().map(|pull| pull.took).collect();
        self.slow = judge::judge(&pulls, node_rate);
    }
}

/// The rate of a pull in bytes per second: the image's size divided by the time of the pull, unpacking
/// included. `None` without a size, if the time includes waiting for other pulls (before Kubernetes 1.28), or
/// below 5 s: a quick pull fetched little more than a manifest, since with `Always` an image that is already
/// present "is pulled" in the time its registry takes to answer.
pub fn rate(took: PullTimes) -> Option<f64> {
    // If the kubelet does not report the wait separately, the time is not that of the pull alone.
    took.including_waiting?;
    let size = took.size?;
    #[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
    (took.pulling >= judge::LEAST_PULLING).then(|| size.0 as f64 / took.pulling.as_secs_f64())
}

fn registry_of(image: &str) -> Option<Arc<str>> {
    Some(Arc::from(image.parse::<Reference>().ok()?.domain()))
}

/// Maximum length of a node's name (RFC 1123).
const LONGEST_NAME: usize = 253;

/// Characters of an image's name that are kept.
const MOST_IMAGE: usize = 400;

/// Events have timestamps in whole seconds.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The UID as a number; a hash if it is not 32 hexadecimal digits.
fn key_of(uid: &str) -> u128 {
    let digits: String = uid.chars().filter(char::is_ascii_hexdigit).collect();
    if digits.len() == 32
        && let Ok(key) = u128::from_str_radix(&digits, 16)
    {
        return key;
    }
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, uid).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(0) << 64) | half(1)
}
