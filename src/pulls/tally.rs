//! What many Events come to: figures of each registry and node, what fails now, what is new. Each
//! occurrence counts once, however often its Event is shown; everything has a bound.

use std::collections::{BTreeMap, HashMap, VecDeque};
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

/// Edges of the buckets of pulls' times: from an image that is nearly there to one that takes an hour. Few,
/// since each node has them.
const PULL_SECONDS: &[f64] = &[
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// And of the waits for other pulls.
const WAIT_SECONDS: &[f64] = &[0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// Events that are remembered, to count each once. The API server keeps them for an hour; 500 nodes that
/// start ten pods each in one have 20,000. 6 MB.
const MOST_EVENTS: usize = 100_000;

/// Pods that fail at the same time and are shown one by one.
const MOST_FAILING: usize = 1000;

/// Pulls that are shown, and texts without a name.
const MOST_NEWEST: usize = 200;
const MOST_UNKNOWN: usize = 20;

/// Pulls of a pair that are judged together.
const RECENT: usize = 20;

/// Images of a pair that are known to be on the node.
const MOST_IMAGES: usize = 256;

/// A pod that fails says so at least every five minutes (the longest back-off, and client-go's limit of
/// Events of one object); after two of them in silence it is gone, or has its image.
const STILL: Duration = Duration::from_mins(11);

/// What an operator bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Pairs of registry and node.
    pub max_pairs: usize,
    /// A pair without a pull for so long is forgotten.
    pub idle: Duration,
    /// What nodes measure of a registry, in bytes per second.
    pub node_rates: BTreeMap<Arc<str>, f64>,
}

/// A registry and a node.
type PairKey = (Arc<str>, Arc<str>);

/// All of it.
#[derive(Debug, Default)]
pub struct Tally {
    limits: Limits,
    /// What happened before counts as known.
    since: Timestamp,
    /// The first list since then is over.
    is_underway: bool,
    seen: HashMap<u128, Occurrence>,
    pub pairs: BTreeMap<PairKey, Pair>,
    pub failing: BTreeMap<ContainerKey, Failing>,
    pub secrets: BTreeMap<(String, String), SecretsMissing>,
    /// The newest first.
    pub newest: VecDeque<Pull>,
    /// The newest first.
    pub unknown: VecDeque<Unknown>,
    /// Occurrences, by what they said.
    pub counts: BTreeMap<&'static str, u64>,
    pub unknown_texts: u64,
    /// Occurrences that are beyond a bound.
    pub uncounted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Occurrence {
    count: u64,
    is_listed: bool,
}

/// Figures of a registry and a node.
#[derive(Clone, Debug)]
pub struct Pair {
    pub duration: Histogram,
    pub waiting: Histogram,
    pub throughput: Histogram,
    pub failures: BTreeMap<Cause, u64>,
    /// The newest last.
    recent: VecDeque<PullTimes>,
    pub slow: Option<Slow>,
    /// Images that this node has, as far as was seen; the newest last.
    images: VecDeque<u64>,
    last: Timestamp,
}

/// Whose image is pulled.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ContainerKey {
    pub namespace: String,
    pub pod: String,
    /// Empty for an image volume: the kubelet tells of those as of the pod.
    pub container: String,
    /// Of an image volume, its image: a pod may have several. Empty for containers.
    #[serde(skip)]
    pub volume: String,
}

/// A container, or an image volume, whose image can't be pulled.
#[derive(Clone, Debug, Serialize)]
pub struct Failing {
    pub image: String,
    /// Empty where the image's name is none.
    #[serde(serialize_with = "as_text")]
    pub registry: Arc<str>,
    #[serde(serialize_with = "as_text")]
    pub node: Arc<str>,
    /// Empty where only the state was told.
    pub text: String,
    #[serde(skip)]
    pub told: ParsedFailure,
    pub first: Timestamp,
    pub last: Timestamp,
    /// Failures that were told of.
    #[serde(rename = "failures")]
    pub count: u64,
}

/// A pod that names Secrets which can't be read.
#[derive(Clone, Debug, Serialize)]
pub struct SecretsMissing {
    #[serde(rename = "secrets")]
    pub names: Vec<String>,
    #[serde(serialize_with = "as_text")]
    pub node: Arc<str>,
    pub last: Timestamp,
}

/// A pull that has succeeded.
#[derive(Clone, Debug, Serialize)]
pub struct Pull {
    pub at: Timestamp,
    pub namespace: String,
    pub pod: String,
    /// Empty for the image of a volume.
    pub container: String,
    pub image: String,
    #[serde(serialize_with = "as_text")]
    pub registry: Arc<str>,
    #[serde(serialize_with = "as_text")]
    pub node: Arc<str>,
    #[serde(skip)]
    pub took: PullTimes,
}

/// A text that has no name yet.
#[derive(Clone, Debug, Serialize)]
pub struct Unknown {
    pub text: String,
    #[serde(serialize_with = "as_text")]
    pub registry: Arc<str>,
    #[serde(serialize_with = "as_text")]
    pub node: Arc<str>,
    pub last: Timestamp,
    #[serde(rename = "failures")]
    pub count: u64,
}

fn as_text<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

impl Tally {
    pub fn new(limits: Limits, since: Timestamp) -> Self {
        Self {
            limits,
            since: whole_second(since),
            ..Self::default()
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        for ((registry, _), pair) in &mut self.pairs {
            pair.judge(self.limits.node_rates.get(registry).copied());
        }
    }

    /// Events are followed from here on; what happened before `since` was somebody else's to count. Counters
    /// go on.
    pub fn begin(&mut self, since: Timestamp) {
        self.since = whole_second(since);
        self.is_underway = false;
        self.seen.clear();
        self.failing.clear();
        self.secrets.clear();
        self.newest.clear();
    }

    /// All Events are listed again.
    pub fn list_begins(&mut self) {
        for seen in self.seen.values_mut() {
            seen.is_listed = false;
        }
    }

    /// They were; those that were not among them are gone.
    pub fn list_ends(&mut self) {
        self.seen.retain(|_, seen| seen.is_listed);
        self.is_underway = true;
    }

    pub fn gone(&mut self, uid: &str) {
        self.seen.remove(&key_of(uid));
    }

    /// An Event as the API server shows it: new, risen, or once more.
    pub fn take(&mut self, event: &Event, now: Timestamp) {
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

    /// How often it has happened since it was seen last; `None` where it has not, or there is no room to
    /// remember.
    fn occurrences(&mut self, event: &Event) -> Option<u64> {
        let key = key_of(&event.uid);
        let count = event.count.max(1);
        if let Some(seen) = self.seen.get_mut(&key) {
            let new = count.saturating_sub(seen.count);
            seen.count = seen.count.max(count);
            seen.is_listed = true;
            return (new > 0).then_some(new);
        }
        if self.seen.len() >= MOST_EVENTS {
            self.uncounted += 1;
            return None;
        }
        let is_listed = true;
        self.seen.insert(key, Occurrence { count, is_listed });
        let after = |at: Option<Timestamp>| at.is_some_and(|at| at >= self.since);
        // In the first list there may be what happened earlier; what comes later is new.
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
        let failing = |image: &str, told, text: &str| Failing {
            image: clean(image, MOST_IMAGE),
            registry: registry.clone(),
            node: node.clone(),
            text: shown(text),
            told,
            first: at,
            last: at,
            count: 0,
        };
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
                if new > 0 {
                    let rate = self.limits.node_rates.get(&registry).copied();
                    if let Some(pair) = self.pair((registry.clone(), node.clone()), at) {
                        pair.pulled(&image, took, rate);
                    } else {
                        self.uncounted += new;
                    }
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
                self.still_failing(container, failing, at);
            }
            EventKind::SecretsMissing { names } => {
                let key = (container.namespace, container.pod);
                if self.secrets.len() < MOST_FAILING || self.secrets.contains_key(&key) {
                    let last = at;
                    let missing = SecretsMissing { names, node, last };
                    self.secrets.insert(key, missing);
                } else {
                    self.uncounted += 1;
                }
            }
            EventKind::Failed { image, text } | EventKind::NotInspected { image, text } => {
                let told = failure::judge(&image, &text);
                self.failed(container, failing(&image, told, &text), new);
            }
            EventKind::NeverPulled { image } => {
                let told = ParsedFailure {
                    cause: Some(Cause::NoPull),
                    ..ParsedFailure::default()
                };
                self.failed(container, failing(&image, told, &event.message), new);
            }
        }
    }

    fn failed(&mut self, container: ContainerKey, mut failing: Failing, new: u64) {
        let at = failing.last;
        if new > 0 {
            let cause = failing.told.cause.unwrap_or(Cause::Unexplained);
            match self.pair((failing.registry.clone(), failing.node.clone()), at) {
                Some(pair) => *pair.failures.entry(cause).or_default() += new,
                None => self.uncounted += new,
            }
        }
        if failing.told.cause.is_none() {
            self.unknown_texts += new;
            self.remember_unknown(&failing, new);
        }
        failing.count = new.max(1);
        let Some(before) = self.failing.get_mut(&container) else {
            self.keep(container, failing);
            return;
        };
        before.count += failing.count;
        before.first = before.first.min(at);
        // Listed in any order: what was said last stands.
        if before.last <= at || before.text.is_empty() {
            failing.first = before.first;
            failing.count = before.count;
            failing.last = before.last.max(at);
            *before = failing;
        }
    }

    /// The next try waits: what the last one came to still stands.
    fn still_failing(&mut self, container: ContainerKey, failing: Option<Failing>, at: Timestamp) {
        if let Some(known) = self.failing.get_mut(&container) {
            known.last = known.last.max(at);
        } else if let Some(failing) = failing {
            self.keep(container, failing);
        }
    }

    fn keep(&mut self, container: ContainerKey, failing: Failing) {
        if self.failing.len() < MOST_FAILING {
            self.failing.insert(container, failing);
        } else {
            self.uncounted += 1;
        }
    }

    fn recovered(&mut self, container: &ContainerKey, at: Timestamp) {
        let is_older = |failing: &Failing| failing.last <= at;
        if self.failing.get(container).is_some_and(is_older) {
            self.failing.remove(container);
        }
    }

    fn remember_unknown(&mut self, failing: &Failing, new: u64) {
        let is_same = |known: &Unknown| known.text == failing.text;
        let place = self.unknown.iter().position(is_same);
        let before = place.and_then(|place| self.unknown.remove(place));
        let last = before.as_ref().map(|before| before.last);
        self.unknown.push_front(Unknown {
            text: failing.text.clone(),
            registry: failing.registry.clone(),
            node: failing.node.clone(),
            last: last.map_or(failing.last, |last| last.max(failing.last)),
            count: before.map_or(0, |before| before.count) + new.max(1),
        });
        self.unknown.truncate(MOST_UNKNOWN);
    }

    fn show(&mut self, pull: Pull) {
        let place = self.newest.partition_point(|known| known.at > pull.at);
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

    /// Forgets what is old.
    pub fn tidy(&mut self, now: Timestamp) {
        let is_within = |at: Timestamp, most: Duration| {
            now.duration_since(at).try_into().unwrap_or(Duration::ZERO) <= most
        };
        let idle = self.limits.idle;
        self.pairs.retain(|_, pair| is_within(pair.last, idle));
        self.failing.retain(|_, one| is_within(one.last, STILL));
        self.secrets.retain(|_, one| is_within(one.last, STILL));
    }
}

impl Pair {
    fn new(at: Timestamp) -> Self {
        Self {
            duration: Histogram::new(PULL_SECONDS),
            waiting: Histogram::new(WAIT_SECONDS),
            throughput: Histogram::new(BYTES_PER_SECOND),
            failures: BTreeMap::new(),
            recent: VecDeque::new(),
            slow: None,
            images: VecDeque::new(),
            last: at,
        }
    }

    fn pulled(&mut self, image: &str, took: PullTimes, node_rate: Option<f64>) {
        self.duration.observe(took.pulling.as_secs_f64());
        if let Some(waiting) = took.waiting() {
            self.waiting.observe(waiting.as_secs_f64());
        }
        let is_new = self.has(image);
        if let Some(rate) = rate(took).filter(|_| is_new) {
            self.throughput.observe(rate);
        }
        if is_new || took.waiting().is_some_and(|waiting| !waiting.is_zero()) {
            self.recent.push_back(took);
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
            self.judge(node_rate);
        }
    }

    /// The node has this image; whether that is news.
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
        self.slow = judge::judge(self.recent.make_contiguous(), node_rate);
    }
}

/// The rate that a pull comes to: the image's size by the time of the pull, unpacking included. At least that
/// of its network where all layers had to come. A quick pull has fetched a manifest and little else: with
/// `Always` an image that is there "is pulled" in the time that its registry takes to answer.
pub fn rate(took: PullTimes) -> Option<f64> {
    // Where the kubelet does not tell waiting apart, the time is not the pull's alone.
    took.including_waiting?;
    let size = took.size?;
    #[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
    (took.pulling >= judge::LEAST_PULLING).then(|| size.0 as f64 / took.pulling.as_secs_f64())
}

fn registry_of(image: &str) -> Option<Arc<str>> {
    Some(Arc::from(image.parse::<Reference>().ok()?.domain()))
}

/// Of a node (RFC 1123); more is none.
const LONGEST_NAME: usize = 253;

const MOST_IMAGE: usize = 400;

/// Events have whole seconds.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// A UID's digits, or a hash of whatever it is.
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
