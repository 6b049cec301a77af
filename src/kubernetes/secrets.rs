//! Watches pull secrets one by one, only those that a target or a check of this node needs. Their content is held in
//! memory that is overwritten afterwards, is refreshed when it changes, and is dropped when no longer needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::objects::SecretObject;
use super::request::{self, RequestError};
use super::sources::with_sources;
use super::watch::{WatchEvent, drive, status};
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::text::printable;
use crate::model::workload::{Found, Namespaced};
use crate::pull_secret::keyring::LoadedSource;
use crate::pull_secret::secret;

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

/// Watches the Secrets that targets and checks need.
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

/// Which Secrets are needed, and by what.
#[derive(Default)]
struct Needs {
    /// Needed by the current targets.
    targets: BTreeSet<SecretKey>,
    /// Needed by running checks, with the number of checks.
    checks: BTreeMap<SecretKey, usize>,
    held: BTreeMap<SecretKey, WatchedSecret>,
}

struct WatchedSecret {
    known: watch::Receiver<Known>,
    stop: CancellationToken,
}

impl Drop for WatchedSecret {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Keeps the Secrets of one check watched until it is dropped.
#[derive(Debug)]
pub struct SecretsInUse {
    secrets: Arc<Secrets>,
    keys: BTreeSet<SecretKey>,
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
            held.map(|held| held.known.clone()).collect()
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

    /// Sets the Secrets that targets need; the watches of others stop unless a check needs them.
    pub fn need(&self, wanted: &BTreeSet<SecretKey>) {
        let mut needs = self.needs();
        needs.targets.clone_from(wanted);
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

    /// Starts the watches of needed Secrets, and drops the others.
    fn follow_all(&self, needs: &mut Needs) {
        let Some(client) = &self.client else { return };
        let Needs {
            targets,
            checks,
            held,
        } = needs;
        held.retain(|key, _| targets.contains(key) || checks.contains_key(key));
        for key in targets.iter().chain(checks.keys()) {
            if self.refusal(key).is_some() || held.contains_key(key) {
                continue;
            }
            let (sender, known) = watch::channel(Known::Unread(PENDING.to_owned()));
            let stop = CancellationToken::new();
            let changes = Arc::clone(&self.changes);
            let followed = follow(client.clone(), key.clone(), sender, changes, stop.clone());
            tokio::spawn(followed);
            held.insert(key.clone(), WatchedSecret { known, stop });
        }
    }

    /// What is known about a Secret; [`Self::need`] or [`Self::lend`] must have requested it.
    pub fn get(&self, key: &SecretKey) -> Known {
        if let Some(reason) = self.refusal(key) {
            return Known::Unread(reason.to_owned());
        }
        self.needs().held.get(key).map_or_else(
            || Known::Unread("it has not been requested yet".to_owned()),
            |held| held.known.borrow().clone(),
        )
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
    let secrets: Api<SecretObject> = Api::namespaced(client.clone(), &key.namespace);
    // A list of this one name needs only rights that a watch needs, too.
    let one = ListParams::default().fields(&format!("metadata.name={}", key.name));
    let mut listed = Known::Absent;
    let answered = request::list(secrets.clone(), one, |secret| {
        listed = Known::Here(source_of(&secret));
    });
    let known = match answered.await {
        Ok(_) => Ok(listed),
        Err(RequestError::Forbidden(_)) => got(secrets, key).await,
        Err(error) => Err(error),
    };
    match known {
        Err(error) if error.is_forbidden() => Ok(Known::Unread(FORBIDDEN.to_owned())),
        Err(RequestError::Silent(reason)) => Err(reason),
        known => known.map_err(|error| error.to_string()),
    }
}

async fn got(secrets: Api<SecretObject>, key: &SecretKey) -> Result<Known, RequestError> {
    match request::get(secrets, &key.name).await {
        Ok(secret) => Ok(Known::Here(source_of(&secret))),
        Err(RequestError::NotFound(_)) => Ok(Known::Absent),
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
        Ok(known) => known,
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

async fn follow(
    client: Client,
    key: SecretKey,
    known: watch::Sender<Known>,
    changes: Arc<Changes>,
    stop: CancellationToken,
) {
    let api: Api<SecretObject> = Api::namespaced(client, &key.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let stream = watcher(api, config).default_backoff();
    let mut is_seen = false;
    let mut version = Version::default();
    let mut take = |newest: Known, now: Version| {
        known.send_replace(newest);
        if version.is_new(now) {
            changes.add(&key);
        }
    };
    let here = |secret: &SecretObject| {
        let version = secret.metadata.resource_version.clone();
        (Known::Here(source_of(secret)), Version::Here(version))
    };
    let handle = |event: WatchEvent<SecretObject>| match event {
        WatchEvent::Event(Event::Init) => is_seen = false,
        WatchEvent::Event(Event::InitApply(secret)) => {
            is_seen = true;
            let (newest, version) = here(&secret);
            take(newest, version);
        }
        WatchEvent::Event(Event::Apply(secret)) => {
            let (newest, version) = here(&secret);
            take(newest, version);
        }
        WatchEvent::Event(Event::InitDone) if is_seen => {}
        WatchEvent::Event(Event::InitDone | Event::Delete(_)) => {
            take(Known::Absent, Version::Absent);
        }
        WatchEvent::Loss(error) => lose(&known, &key, &error),
        WatchEvent::Answer => {}
    };
    // No probe after a loss: the last known content stays in use.
    drive(stream, async || false, handle, stop).await;
}

/// Content that was read before stays in use, unless the right to read it was withdrawn.
fn lose(known: &watch::Sender<Known>, key: &SecretKey, error: &watcher::Error) {
    let forbidden = matches!(status(error), Some(401 | 403));
    known.send_if_modified(|known| {
        if matches!(known, Known::Here(_) | Known::Absent) && !forbidden {
            return false;
        }
        *known = Known::Unread(if forbidden {
            format!(
                "the API server forbids it: RBAC must allow list and watch of Secret {}/{}",
                printable(&key.namespace),
                printable(&key.name)
            )
        } else {
            format!("the API server does not return it: {}", with_sources(error))
        });
        true
    });
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
        secrets.need(&keys(&["a"]));
        let one = secrets.lend(keys(&["a", "b"]));
        let two = secrets.lend(keys(&["b"]));
        assert_eq!(held(&secrets), 2);
        // The targets change in the meantime.
        secrets.need(&keys(&["c"]));
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

    #[tokio::test]
    async fn what_may_not_be_read_is_not_asked_for() {
        let secrets = secrets(Access::Named(BTreeSet::from([key("a")])));
        let lent = secrets.lend(BTreeSet::from([key("a"), key("b")]));
        assert_eq!(held(&secrets), 1);
        drop(lent);
        assert_eq!(held(&secrets), 0);
    }
}
