//! Reads pull secrets one by one, only those that a target or a check of this node needs. Their content is held in
//! memory that is overwritten afterwards, is refreshed when it changes, and is dropped when no longer needed.
//!
//! The first are watched, those before others that pods wait with. Others are read again from time to time, one after
//! the other. The namespaces share both numbers, so that one pod with thousands of Secrets takes none from others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::objects::SecretObject;
use super::request::{self, RequestError};
use super::sources::with_sources;
use super::watch::{WatchEvent, drive, status};
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::text::printable;
use crate::model::workload::{Found, Namespaced, SecretLookup, SecretRefs};
use crate::pull_secret::keyring::LoadedSource;
use crate::pull_secret::secret;
use crate::workload::share::{Claim, places};

/// A Secret's namespace and name.
pub type SecretKey = Namespaced;

/// Which Secrets may be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Access {
    /// No Secret.
    None,
    /// Those listed in the configuration; a Role with their names allows it.
    Named(BTreeSet<SecretKey>),
    /// All that pods of this node use.
    Discovered,
}

/// What is known about a Secret.
#[derive(Clone, Debug)]
pub enum Known {
    /// It was read.
    Here(LoadedSource),
    /// The namespace has no Secret with this name.
    Absent,
    /// It could not be read, with the reason: whether it exists is unknown.
    Unread(String),
}

impl Known {
    /// The credential source for the keyring (none if the Secret is absent), and the state of the Secret. A Secret that
    /// can't be read also yields a source, whose credentials are unknown.
    pub fn sources(&self, key: &SecretKey) -> (Vec<LoadedSource>, Found) {
        match self {
            Self::Here(source) => (vec![source.clone()], Found::Here),
            Self::Absent => (Vec::new(), Found::Absent),
            Self::Unread(reason) => {
                let source = CredentialSource::SecretFile {
                    path: CLUSTER.to_owned(),
                    namespace: Some(printable(&key.namespace)),
                    name: printable(&key.name),
                };
                let reason = reason.clone();
                let problem = SourceProblem::Unread {
                    reason: reason.clone(),
                };
                let source = LoadedSource::failed(source, problem);
                (vec![source], Found::Unread { reason })
            }
        }
    }

    fn is_pending(&self) -> bool {
        matches!(self, Self::Unread(reason) if reason == PENDING)
    }
}

/// The reason before the first answer.
const PENDING: &str = "no answer from the API server yet";

/// Maximum of Secrets that are watched; each watch takes a connection. Nodes usually need some ten.
const MOST_WATCHED: usize = 32;

/// Maximum of Secrets that are read.
const MOST_READ: usize = 256;

/// How often a Secret that is not watched is read again.
const READ_AGAIN: Duration = Duration::from_mins(5);

/// The least time between two requests for Secrets that are not watched, once each of them was read.
const PACE: Duration = Duration::from_millis(250);

/// The reason for a Secret that is not read.
fn too_many(needed: usize) -> String {
    format!(
        "this node's pods name {needed} pull Secrets, and this one is not among the {MOST_READ} that are read: the namespaces take turns"
    )
}

/// Reads the Secrets that targets and checks need.
pub struct Secrets {
    client: Option<Client>,
    access: Access,
    needs: Mutex<Needs>,
    changes: Arc<Changes>,
    /// Absent Secrets by name, with the answer about other namespaces.
    absent: Mutex<BTreeMap<String, (Instant, Found)>>,
}

/// How long the namespaces of a Secret that is absent are remembered.
const ABSENT_FOR: Duration = Duration::from_mins(10);

/// How long a check waits for them. Without them, the Secret is only absent.
const ABSENT_WAIT: Duration = Duration::from_secs(2);

/// Maximum of names that are remembered.
const MOST_ABSENT: usize = 256;

/// The Secrets that were created, changed or deleted since they were first read.
#[derive(Debug, Default)]
struct Changes {
    keys: Mutex<BTreeSet<SecretKey>>,
    news: Notify,
}

impl Changes {
    fn keys(&self) -> MutexGuard<'_, BTreeSet<SecretKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, key: &SecretKey) {
        self.keys().insert(key.clone());
        self.news.notify_one();
    }
}

/// The version of a Secret that a watch last had.
#[derive(Debug, Default)]
enum Version {
    /// No answer yet.
    #[default]
    Unknown,
    /// The namespace has no such Secret.
    Absent,
    /// Its `resourceVersion`.
    Here(Option<String>),
}

impl Version {
    /// Takes the newest version; returns whether that is a change, and not the first answer.
    fn is_new(&mut self, now: Self) -> bool {
        let is_new = match (&*self, &now) {
            (Self::Unknown, _) | (Self::Absent, Self::Absent) => false,
            (Self::Here(before), Self::Here(now)) => before != now,
            _ => true,
        };
        *self = now;
        is_new
    }
}

/// How long the API server must forbid a Secret that it had sent before its content is dropped. One that starts may
/// forbid everything for some seconds.
const WITHDRAWN_AFTER: Duration = Duration::from_secs(30);

/// What was answered about a Secret.
#[derive(Debug, Default)]
struct Answers {
    version: Version,
    /// Since when each answer was that it is forbidden.
    forbidden: Option<Instant>,
}

impl Answers {
    /// Takes an error; returns whether the right to read the Secret is withdrawn.
    fn is_withdrawn(&mut self, is_forbidden: bool, now: Instant) -> bool {
        if !is_forbidden {
            self.forbidden = None;
            return false;
        }
        let since = *self.forbidden.get_or_insert(now);
        now.duration_since(since) >= WITHDRAWN_AFTER
    }
}

/// Which Secrets are needed, and by what.
#[derive(Default)]
struct Needs {
    /// Needed by the current targets, and whether a pod waits with it.
    targets: BTreeMap<SecretKey, bool>,
    /// Needed by running checks, with the number of checks.
    checks: BTreeMap<SecretKey, usize>,
    held: BTreeMap<SecretKey, HeldSecret>,
    /// The number of Secrets that are needed, also if they are not read.
    needed: usize,
    /// Reads those that are not watched; `None`: all are.
    reader: Option<DropGuard>,
}

struct HeldSecret {
    known: watch::Sender<Known>,
    answers: Arc<Mutex<Answers>>,
    by: By,
}

/// How a Secret is kept up to date.
enum By {
    /// The watch stops when this is dropped.
    Watch(#[expect(dead_code, reason = "its drop stops the watch")] DropGuard),
    /// It is read again at times; with the last time.
    Reading(Option<Instant>),
}

/// Keeps the Secrets of one check watched until it is dropped.
#[derive(Debug)]
pub struct SecretsInUse {
    secrets: Arc<Secrets>,
    keys: BTreeSet<SecretKey>,
}

impl Needs {
    /// The smallest first: a check needs it now, a pod waits with it, a target needs it.
    fn urgency(&self, key: &SecretKey) -> u8 {
        match self.targets.get(key) {
            _ if self.checks.contains_key(key) => 0,
            Some(true) => 1,
            _ => 2,
        }
    }

    /// The Secrets of these that get one of `most` places, of which the namespaces have equal shares.
    fn shared<R: Ord>(
        &self,
        needed: &[SecretKey],
        most: usize,
        rank: impl Fn(&SecretKey, Option<&HeldSecret>) -> R,
    ) -> BTreeSet<SecretKey> {
        let claims: Vec<_> = needed
            .iter()
            .map(|key| Claim {
                namespaces: vec![&*key.namespace],
                rank: rank(key, self.held.get(key)),
            })
            .collect();
        let placed = places(&claims, most).into_iter();
        placed.map(|index| needed[index].clone()).collect()
    }
}

impl Drop for SecretsInUse {
    fn drop(&mut self) {
        let mut needs = self.secrets.needs();
        for key in &self.keys {
            if let Some(count) = needs.checks.get_mut(key) {
                *count -= 1;
            }
        }
        needs.checks.retain(|_, count| *count > 0);
        self.secrets.follow_all(&mut needs);
    }
}

impl SecretsInUse {
    /// Waits until the API server has answered for each Secret, with success or not, or until `most` has passed.
    pub async fn loaded(&self, most: Duration) {
        let pending: Vec<watch::Receiver<Known>> = {
            let needs = self.secrets.needs();
            let held = self.keys.iter().filter_map(|key| needs.held.get(key));
            held.map(|held| held.known.subscribe()).collect()
        };
        let all = async {
            for mut known in pending {
                let _ = known.wait_for(|known| !known.is_pending()).await;
            }
        };
        let _ = tokio::time::timeout(most, all).await;
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Secrets {
    /// Without a client every Secret is [`Known::Unread`]. Sends no request.
    pub fn new(client: Option<Client>, access: Access) -> Self {
        Self {
            client,
            access,
            needs: Mutex::default(),
            changes: Arc::default(),
            absent: Mutex::default(),
        }
    }

    /// A Secret that its namespace does not have: with the other namespaces that have one of this name, if all Secrets
    /// may be listed. The answer is kept for ten minutes.
    pub async fn absent(&self, key: &SecretKey) -> Found {
        let Some(client) = self
            .client
            .as_ref()
            .filter(|_| self.access == Access::Discovered)
        else {
            return Found::Absent;
        };
        let known = self.absent_names().get(&key.name).cloned();
        let found = match known {
            Some((at, found)) if at.elapsed() < ABSENT_FOR => found,
            _ => {
                let request = absent(client, &key.name);
                let found = tokio::time::timeout(ABSENT_WAIT, request).await;
                let found = found.unwrap_or(Found::Absent);
                let mut all = self.absent_names();
                all.retain(|_, (at, _)| at.elapsed() < ABSENT_FOR);
                if all.len() < MOST_ABSENT {
                    all.insert(key.name.clone(), (Instant::now(), found.clone()));
                }
                found
            }
        };
        // Its own namespace had it a moment ago.
        match found {
            Found::Elsewhere { namespaces } if namespaces.contains(&key.namespace) => Found::Absent,
            found => found,
        }
    }

    fn absent_names(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, Found)>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a Secret changes that is needed.
    pub async fn changed(&self) {
        self.changes.news.notified().await;
    }

    /// Takes the Secrets that were created, changed or deleted since the last call.
    pub fn take_changed(&self) -> BTreeSet<SecretKey> {
        std::mem::take(&mut *self.changes.keys())
    }

    fn needs(&self) -> MutexGuard<'_, Needs> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the Secrets that targets need, and whether a pod waits with them; others are dropped unless a check needs
    /// them.
    pub fn need(self: &Arc<Self>, wanted: BTreeMap<SecretKey, bool>) {
        let mut needs = self.needs();
        needs.targets = wanted;
        self.follow_all(&mut needs);
    }

    /// Adds Secrets that one check needs, until the returned value is dropped.
    pub fn lend(self: &Arc<Self>, keys: BTreeSet<SecretKey>) -> SecretsInUse {
        let mut needs = self.needs();
        for key in &keys {
            *needs.checks.entry(key.clone()).or_default() += 1;
        }
        self.follow_all(&mut needs);
        drop(needs);
        SecretsInUse {
            secrets: Arc::clone(self),
            keys,
        }
    }

    /// Starts to read needed Secrets, and drops the others.
    fn follow_all(self: &Arc<Self>, needs: &mut Needs) {
        let Some(client) = &self.client else { return };
        let may_read = |key: &&SecretKey| self.refusal(key).is_none();
        let needed: BTreeSet<SecretKey> = needs
            .targets
            .keys()
            .chain(needs.checks.keys())
            .filter(may_read)
            .cloned()
            .collect();
        needs.needed = needed.len();
        let needed: Vec<SecretKey> = needed.into_iter().collect();
        let read = needs.shared(&needed, MOST_READ, |key, held| {
            (needs.urgency(key), held.is_none())
        });
        needs.held.retain(|key, _| read.contains(key));
        let watched = needs.shared(&needed, MOST_WATCHED, |key, held| {
            let is_watched = held.is_some_and(|held| matches!(held.by, By::Watch(_)));
            (needs.urgency(key), !is_watched)
        });
        for key in read {
            let is_watched = watched.contains(&key);
            let held = needs.held.entry(key.clone()).or_insert_with(|| HeldSecret {
                known: watch::Sender::new(Known::Unread(PENDING.to_owned())),
                answers: Arc::default(),
                by: By::Reading(None),
            });
            match (&held.by, is_watched) {
                (By::Reading(_), true) => {
                    let stop = CancellationToken::new();
                    let (known, answers) = (held.known.clone(), Arc::clone(&held.answers));
                    let kept = Kept {
                        key,
                        known,
                        answers,
                        changes: Arc::clone(&self.changes),
                    };
                    tokio::spawn(follow(client.clone(), kept, stop.clone()));
                    held.by = By::Watch(stop.drop_guard());
                }
                // It was read a moment ago.
                (By::Watch(_), false) => held.by = By::Reading(Some(Instant::now())),
                _ => {}
            }
        }
        let reads = needs
            .held
            .values()
            .any(|held| matches!(held.by, By::Reading(_)));
        if !reads {
            needs.reader = None;
        } else if needs.reader.is_none() {
            let stop = CancellationToken::new();
            let (secrets, stopped) = (Arc::downgrade(self), stop.clone());
            let reader = read_others(client.clone(), secrets);
            tokio::spawn(async move { stopped.run_until_cancelled(reader).await });
            needs.reader = Some(stop.drop_guard());
        }
    }

    /// The Secret to read next of those that are not watched, and when.
    fn next_to_read(&self) -> Option<(Instant, Kept)> {
        let needs = self.needs();
        let due = needs.held.iter().filter_map(|(key, held)| match held.by {
            By::Reading(at) => Some((at, key, held)),
            By::Watch(_) => None,
        });
        let (at, key, held) = due.min_by_key(|(at, key, _)| (*at, *key))?;
        let now = Instant::now();
        let due = at.map_or(now, |at| (at + READ_AGAIN).max(now + PACE));
        let (known, answers) = (held.known.clone(), Arc::clone(&held.answers));
        let (key, changes) = (key.clone(), Arc::clone(&self.changes));
        Some((
            due,
            Kept {
                key,
                known,
                answers,
                changes,
            },
        ))
    }

    fn was_read(&self, key: &SecretKey) {
        if let Some(HeldSecret {
            by: By::Reading(at),
            ..
        }) = self.needs().held.get_mut(key)
        {
            *at = Some(Instant::now());
        }
    }

    /// What is known about a Secret; [`Self::need`] or [`Self::lend`] must have requested it.
    pub fn get(&self, key: &SecretKey) -> Known {
        if let Some(reason) = self.refusal(key) {
            return Known::Unread(reason.to_owned());
        }
        let needs = self.needs();
        if let Some(held) = needs.held.get(key) {
            return held.known.borrow().clone();
        }
        let is_needed = needs.targets.contains_key(key) || needs.checks.contains_key(key);
        Known::Unread(if is_needed && self.client.is_some() {
            too_many(needs.needed)
        } else {
            "it has not been requested yet".to_owned()
        })
    }

    fn refusal(&self, key: &SecretKey) -> Option<&'static str> {
        match &self.access {
            Access::None => Some("no Secret is read from the cluster (kubernetes.secrets is none)"),
            Access::Named(keys) if !keys.contains(key) => {
                Some("it is not listed in kubernetes.named_secrets")
            }
            Access::Named(_) | Access::Discovered => self
                .client
                .is_none()
                .then_some("no API server is configured"),
        }
    }
}

/// Reads one Secret by one request, by `list` or, if that is forbidden, by `get`. A Secret that neither allows is
/// [`Known::Unread`].
///
/// # Errors
/// If the API server does not answer, or answers with another error. A later request may succeed.
pub async fn ask(client: &Client, key: &SecretKey) -> Result<Known, String> {
    read(client, key).await.map(|(known, _)| known)
}

/// The same, with the version of the Secret.
async fn read(client: &Client, key: &SecretKey) -> Result<(Known, Version), String> {
    let secrets: Api<SecretObject> = Api::namespaced(client.clone(), &key.namespace);
    // A list of this one name needs only rights that a watch needs, too.
    let one = ListParams::default().fields(&format!("metadata.name={}", key.name));
    let mut listed = (Known::Absent, Version::Absent);
    let answered = request::list(secrets.clone(), one, |secret| listed = here(&secret));
    let known = match answered.await {
        Ok(_) => Ok(listed),
        Err(RequestError::Forbidden(_)) => got(secrets, key).await,
        Err(error) => Err(error),
    };
    match known {
        Err(error) if error.is_forbidden() => {
            Ok((Known::Unread(FORBIDDEN.to_owned()), Version::Unknown))
        }
        Err(RequestError::Silent(reason)) => Err(reason),
        known => known.map_err(|error| error.to_string()),
    }
}

/// A Secret as it was received, and its version.
fn here(secret: &SecretObject) -> (Known, Version) {
    let version = secret.metadata.resource_version.clone();
    (Known::Here(source_of(secret)), Version::Here(version))
}

async fn got(
    secrets: Api<SecretObject>,
    key: &SecretKey,
) -> Result<(Known, Version), RequestError> {
    match request::get(secrets, &key.name).await {
        Ok(secret) => Ok(here(&secret)),
        Err(RequestError::NotFound(_)) => Ok((Known::Absent, Version::Absent)),
        Err(error) => Err(error),
    }
}

const FORBIDDEN: &str = "the API server forbids it: RBAC must allow list (or get) of Secrets in that namespace, or of these Secrets by name";

/// A Secret of which the API server sends only the metadata.
pub(super) type SecretMetadataObject = PartialObjectMeta<SecretObject>;

/// The annotation with the expiry time that SWR's own Secrets have. No other annotation is read.
pub(super) const KEPT_ANNOTATION: &str = "swr-auth-may-expires-at";

/// The keys of `data` that a kubelet reads.
const KEPT_DATA: [&str; 2] = [".dockerconfigjson", ".dockercfg"];

/// The credentials that a kubelet would read from it.
fn source_of(object: &SecretObject) -> LoadedSource {
    let data: BTreeMap<&String, &str> = object
        .data
        .iter()
        .filter(|(key, _)| KEPT_DATA.contains(&key.as_str()))
        .map(|(key, value)| (key, value.as_str()))
        .collect();
    let manifest = json!({"metadata": object.metadata, "type": object.kind, "data": data});
    secret::of_manifest(&manifest, CLUSTER)
}

/// Named instead of a file's path.
const CLUSTER: &str = "the cluster";

/// Reads one Secret by one `get`.
pub async fn fetch(client: &Client, key: &SecretKey) -> Known {
    let secrets: Api<SecretObject> = Api::namespaced(client.clone(), &key.namespace);
    match got(secrets, key).await {
        Ok((known, _)) => known,
        Err(error) if error.is_forbidden() => Known::Unread(format!(
            "the API server forbids it: RBAC must allow get of Secret {}/{} for the requesting user",
            printable(&key.namespace),
            printable(&key.name)
        )),
        Err(error) => Known::Unread(error.to_string()),
    }
}

/// Whether the Secret exists. Its content is not requested.
///
/// # Errors
/// If RBAC does not allow `get` of it, or if the API server does not answer.
pub async fn exists(client: &Client, key: &SecretKey) -> Result<bool, RequestError> {
    let secrets: Api<SecretMetadataObject> = Api::namespaced(client.clone(), &key.namespace);
    match request::get(secrets, &key.name).await {
        Ok(_) => Ok(true),
        Err(RequestError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The types of a pull secret.
pub(super) const PULL_TYPES: [&str; 2] =
    ["kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"];

/// How to report a Secret that does not exist: with the other namespaces that have a pull secret with this name, if
/// RBAC allows a list of all Secrets. Their content is not requested.
pub async fn absent(client: &Client, name: &str) -> Found {
    let mut namespaces = Vec::new();
    for kind in PULL_TYPES {
        let secrets: Api<SecretMetadataObject> = Api::all(client.clone());
        let fields = format!("metadata.name={name},type={kind}");
        let of_this_name = ListParams::default().fields(&fields);
        let listed = request::list(secrets, of_this_name, |secret| {
            namespaces.extend(secret.metadata.namespace);
        });
        if listed.await.is_err() {
            return Found::Absent;
        }
    }
    if namespaces.is_empty() {
        return Found::Absent;
    }
    namespaces.sort();
    Found::Elsewhere { namespaces }
}

/// Where what is read of one Secret goes.
struct Kept {
    key: SecretKey,
    known: watch::Sender<Known>,
    answers: Arc<Mutex<Answers>>,
    changes: Arc<Changes>,
}

impl Kept {
    fn take(&self, (newest, now): (Known, Version)) {
        self.known.send_replace(newest);
        let mut answers = self.answers();
        answers.forbidden = None;
        if answers.version.is_new(now) {
            self.changes.add(&self.key);
        }
    }

    /// Content that was read before stays in use, unless the right to read it was withdrawn.
    fn lose(&self, reason: String, is_forbidden: bool) {
        let is_withdrawn = self.answers().is_withdrawn(is_forbidden, Instant::now());
        self.known.send_if_modified(|known| {
            let is_lost = is_withdrawn || matches!(known, Known::Unread(_));
            if is_lost {
                *known = Known::Unread(reason);
            }
            is_lost
        });
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(client: Client, kept: Kept, stop: CancellationToken) {
    let api: Api<SecretObject> = Api::namespaced(client, &kept.key.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", kept.key.name));
    let stream = watcher(api, config).default_backoff();
    let mut is_seen = false;
    let handle = |event: WatchEvent<SecretObject>| match event {
        WatchEvent::Event(Event::Init) => is_seen = false,
        WatchEvent::Event(Event::InitApply(secret)) => {
            is_seen = true;
            kept.take(here(&secret));
        }
        WatchEvent::Event(Event::Apply(secret)) => kept.take(here(&secret)),
        WatchEvent::Event(Event::InitDone) if is_seen => {}
        WatchEvent::Event(Event::InitDone | Event::Delete(_)) => {
            kept.take((Known::Absent, Version::Absent));
        }
        WatchEvent::Loss(error) => {
            let is_forbidden = matches!(status(&error), Some(401 | 403));
            kept.lose(loss(&kept.key, &error, is_forbidden), is_forbidden);
        }
        WatchEvent::Answer => {}
    };
    // No probe after a loss: the last known content stays in use.
    drive(stream, async || false, handle, stop).await;
}

/// Reads the Secrets that are not watched, one after the other, those first that were never read.
async fn read_others(client: Client, secrets: Weak<Secrets>) {
    loop {
        let next = secrets.upgrade().and_then(|secrets| secrets.next_to_read());
        let Some((due, kept)) = next else { return };
        // Another one may be needed sooner.
        let soon = due.min(Instant::now() + PACE);
        sleep_until(soon.into()).await;
        if soon < due {
            continue;
        }
        match read(&client, &kept.key).await {
            Ok((Known::Unread(reason), _)) => kept.lose(reason, true),
            Ok(newest) => kept.take(newest),
            Err(reason) => kept.lose(
                format!("the API server does not return it: {reason}"),
                false,
            ),
        }
        if let Some(secrets) = secrets.upgrade() {
            secrets.was_read(&kept.key);
        }
    }
}

/// The Secrets of a pod that are not read because it names too many: as a source whose credentials are unknown.
pub fn left_out(refs: &SecretRefs) -> Option<(LoadedSource, SecretLookup)> {
    let known = Known::Unread(refs.left_out_because()?);
    let key = SecretKey {
        namespace: refs.namespace.clone(),
        name: format!("{} more", refs.left_out),
    };
    let (mut sources, found) = known.sources(&key);
    Some((
        sources.pop()?,
        SecretLookup {
            name: key.name,
            found,
        },
    ))
}

/// Why a watch has no content.
fn loss(key: &SecretKey, error: &watcher::Error, is_forbidden: bool) -> String {
    if is_forbidden {
        format!(
            "the API server forbids it: RBAC must allow list and watch of Secret {}/{}",
            printable(&key.namespace),
            printable(&key.name)
        )
    } else {
        format!("the API server does not return it: {}", with_sources(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> SecretKey {
        SecretKey {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        }
    }

    /// Its API server is a closed port.
    fn secrets(access: Access) -> Arc<Secrets> {
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(nowhere).unwrap();
        Arc::new(Secrets::new(Some(client), access))
    }

    fn held(secrets: &Secrets) -> usize {
        secrets.needs().held.len()
    }

    #[tokio::test]
    async fn what_a_check_needs_is_held_as_long_as_it_lasts_beside_what_targets_need() {
        let secrets = secrets(Access::Discovered);
        let keys = |names: &[&str]| -> BTreeSet<SecretKey> {
            names.iter().map(|name| key(name)).collect()
        };
        let need = |names: &[&str]| {
            let needed = keys(names).into_iter().map(|key| (key, false));
            secrets.need(needed.collect());
        };
        need(&["a"]);
        let one = secrets.lend(keys(&["a", "b"]));
        let two = secrets.lend(keys(&["b"]));
        assert_eq!(held(&secrets), 2);
        // The targets change in the meantime.
        need(&["c"]);
        assert_eq!(held(&secrets), 3);
        drop(one);
        assert_eq!(held(&secrets), 2, "b of the other check, and c");
        two.loaded(Duration::from_secs(5)).await;
        assert!(
            matches!(secrets.get(&key("b")), Known::Unread(reason) if reason.contains("does not return it")),
        );
        drop(two);
        assert_eq!(held(&secrets), 1);
        assert!(
            matches!(secrets.get(&key("b")), Known::Unread(reason) if reason.contains("not been requested"))
        );
    }

    /// An API server that starts forbids everything for some seconds; another answer begins anew.
    #[test]
    fn a_right_is_withdrawn_if_it_stays_so() {
        let start = Instant::now();
        let mut answers = Answers::default();
        for (seconds, is_forbidden, is_withdrawn) in [
            (0, true, false),
            (29, true, false),
            (30, false, false),
            (31, true, false),
            (60, true, false),
            (61, true, true),
            (90, true, true),
        ] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(
                answers.is_withdrawn(is_forbidden, now),
                is_withdrawn,
                "{seconds} s"
            );
        }
    }

    #[test]
    fn a_change_is_one_after_the_first_answer() {
        let here = |version: &str| Version::Here(Some(version.to_owned()));
        let mut version = Version::default();
        let steps = [
            (here("1"), false),
            (here("1"), false),
            (here("2"), true),
            (Version::Absent, true),
            (Version::Absent, false),
            (here("3"), true),
        ];
        for (index, (now, is_change)) in steps.into_iter().enumerate() {
            assert_eq!(version.is_new(now), is_change, "step {index}");
        }
        assert!(!Version::default().is_new(Version::Absent));
    }

    #[tokio::test]
    async fn changes_wait_until_they_are_taken() {
        let secrets = secrets(Access::Discovered);
        secrets.changes.add(&key("a"));
        secrets.changes.add(&key("b"));
        secrets.changed().await;
        assert_eq!(secrets.take_changed(), BTreeSet::from([key("a"), key("b")]));
        assert_eq!(secrets.take_changed(), BTreeSet::new());
    }

    /// A pod with thousands beside others: their Secrets are watched, and the number of both is bounded.
    #[tokio::test]
    async fn many_secrets_of_one_namespace_take_no_place_of_others() {
        let secrets = secrets(Access::Discovered);
        let of = |namespace: &str, name: String| SecretKey {
            namespace: namespace.to_owned(),
            name,
        };
        let many = (0..3000).map(|number| (of("big", format!("s{number}")), true));
        let others = ["a", "b", "z"].map(|namespace| (of(namespace, "pull".to_owned()), false));
        secrets.need(many.chain(others.clone()).collect());
        let is_watched = |key: &SecretKey| matches!(secrets.needs().held.get(key), Some(held) if matches!(held.by, By::Watch(_)));
        for (key, _) in &others {
            assert!(is_watched(key), "{key}");
        }
        let keys: Vec<SecretKey> = secrets.needs().held.keys().cloned().collect();
        assert_eq!(keys.len(), MOST_READ);
        assert_eq!(
            keys.iter().filter(|key| is_watched(key)).count(),
            MOST_WATCHED
        );
        let mut all = (0..3000).map(|number| of("big", format!("s{number}")));
        let unread = all.find(|key| !keys.contains(key)).unwrap();
        assert!(
            matches!(secrets.get(&unread), Known::Unread(reason) if reason.contains("name 3003 pull Secrets")),
        );
        // One that a check needs is watched at once.
        let used = secrets.lend(BTreeSet::from([unread.clone()]));
        assert!(is_watched(&unread));
        drop(used);
        secrets.need(BTreeMap::new());
        assert_eq!(held(&secrets), 0);
        assert!(secrets.needs().reader.is_none());
    }

    #[test]
    fn a_pod_that_names_too_many_has_the_number_of_those_that_are_read() {
        let names: Vec<String> = (0..3000).map(|number| format!("s{number}")).collect();
        let refs = SecretRefs::of("shop", &names).unwrap();
        assert_eq!((refs.keys().count(), refs.left_out), (32, 2968));
        let (_, lookup) = left_out(&refs).unwrap();
        assert_eq!(lookup.name, "2968 more");
        let reason = "this pod names 3000 pull Secrets, and only the first 32 are read".to_owned();
        assert_eq!(lookup.found, Found::Unread { reason });
        let few = SecretRefs::of("shop", &names[..32]).unwrap();
        assert!(left_out(&few).is_none());
    }

    #[tokio::test]
    async fn what_may_not_be_read_is_not_asked_for() {
        let secrets = secrets(Access::Named(BTreeSet::from([key("a")])));
        let lent = secrets.lend(BTreeSet::from([key("a"), key("b")]));
        assert_eq!(held(&secrets), 1);
        drop(lent);
        assert_eq!(held(&secrets), 0);
    }
}
