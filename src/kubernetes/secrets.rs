//! Pull secrets, each fetched by itself and only where a target of this node needs it; held in memory
//! that is overwritten, refreshed when they change, forgotten when nobody needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::told;
use super::objects::SecretObject;
use super::request::{self, RequestError};
use super::watch::{WatchEvent, hear, status};
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::text::printable;
use crate::model::workload::{Found, Namespaced};
use crate::pull_secret::keyring::LoadedSource;
use crate::pull_secret::secret;

/// A Secret's namespace and name.
pub type SecretKey = Namespaced;

impl SecretKey {
    /// Those of a namespace.
    pub fn all(namespace: &str, names: &[String]) -> impl Iterator<Item = Self> {
        names.iter().map(move |name| Self {
            namespace: namespace.to_owned(),
            name: name.clone(),
        })
    }
}

/// Which ones may be asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Access {
    None,
    /// Those that the operator has named; a Role with their names allows it.
    Named(BTreeSet<SecretKey>),
    /// Whatever pods of this node name.
    Discovered,
}

/// What is known of one.
#[derive(Clone, Debug)]
pub enum Known {
    Here(LoadedSource),
    /// The API server has none of this name in this namespace.
    Absent,
    /// Whether it is there, and what it holds, is not known, and why.
    Unread(String),
}

impl Known {
    /// The sources of credentials that it comes to, and what came of looking for it. One that can't be
    /// read is a source too: what it holds is not known.
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

    fn is_asked_for(&self) -> bool {
        matches!(self, Self::Unread(reason) if reason == ASKED_FOR)
    }
}

/// What is said of one before the first answer.
const ASKED_FOR: &str = "it is being asked for";

/// All that are needed.
pub struct Secrets {
    client: Option<Client>,
    access: Access,
    needs: Mutex<Needs>,
}

/// Who needs which.
#[derive(Default)]
struct Needs {
    /// By targets: as long as they are there.
    targets: BTreeSet<SecretKey>,
    /// By single checks, and by how many of them.
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

/// Secrets that one check needs, as long as this is there.
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
    /// Waits until the API server has told of each, whatever it says, or until the time is over.
    pub async fn told(&self, most: Duration) {
        let asked: Vec<watch::Receiver<Known>> = {
            let needs = self.secrets.needs();
            let held = self.keys.iter().filter_map(|key| needs.held.get(key));
            held.map(|held| held.known.clone()).collect()
        };
        let all = async {
            for mut known in asked {
                let _ = known.wait_for(|known| !known.is_asked_for()).await;
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
    pub fn new(client: Option<Client>, access: Access) -> Self {
        Self {
            client,
            access,
            needs: Mutex::default(),
        }
    }

    fn needs(&self) -> MutexGuard<'_, Needs> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Targets need these, and no others.
    pub fn need(&self, wanted: &BTreeSet<SecretKey>) {
        let mut needs = self.needs();
        needs.targets.clone_from(wanted);
        self.follow_all(&mut needs);
    }

    /// One check needs these too.
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

    /// Follows those that somebody needs, and forgets the others.
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
            let (sender, known) = watch::channel(Known::Unread(ASKED_FOR.to_owned()));
            let stop = CancellationToken::new();
            tokio::spawn(follow(client.clone(), key.clone(), sender, stop.clone()));
            held.insert(key.clone(), WatchedSecret { known, stop });
        }
    }

    /// What is known of one that is needed.
    pub fn get(&self, key: &SecretKey) -> Known {
        if let Some(reason) = self.refusal(key) {
            return Known::Unread(reason.to_owned());
        }
        self.needs().held.get(key).map_or_else(
            || Known::Unread("nobody has asked for it yet".to_owned()),
            |held| held.known.borrow().clone(),
        )
    }

    fn refusal(&self, key: &SecretKey) -> Option<&'static str> {
        match &self.access {
            Access::None => Some("no Secret is read from the cluster (kubernetes.secrets is none)"),
            Access::Named(keys) if !keys.contains(key) => {
                Some("it is not among those that may be read (kubernetes.named_secrets)")
            }
            Access::Named(_) | Access::Discovered => self
                .client
                .is_none()
                .then_some("there is no API server to ask"),
        }
    }
}

/// Asks for one Secret once, with the right to list it, or else to get it.
///
/// # Errors
/// When nobody answers, or not to this: it may answer later.
pub async fn ask(client: &Client, key: &SecretKey) -> Result<Known, String> {
    let secrets: Api<SecretObject> = Api::namespaced(client.clone(), &key.namespace);
    // A list of this name alone needs no other right than to follow it does.
    let one = ListParams::default().fields(&format!("metadata.name={}", key.name));
    let mut listed = Known::Absent;
    let asked = request::list(secrets.clone(), one, |secret| {
        listed = Known::Here(source_of(&secret));
    });
    let known = match asked.await {
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

const FORBIDDEN: &str = "the API server forbids it: RBAC must allow list (or get) of Secrets there, or of these by name";

/// One of which no more is sent than its metadata.
pub(super) type SecretMetadataObject = PartialObjectMeta<SecretObject>;

/// Annotation with an end, as SWR's own Secrets have it; the others are nobody's business here.
pub(super) const KEPT_ANNOTATION: &str = "swr-auth-may-expires-at";

/// Data that a kubelet reads.
const KEPT_DATA: [&str; 2] = [".dockerconfigjson", ".dockercfg"];

/// What a kubelet reads of it.
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

/// In the place of a file's path.
const CLUSTER: &str = "the cluster";

/// One Secret, asked for once.
pub async fn fetch(client: &Client, key: &SecretKey) -> Known {
    let secrets: Api<SecretObject> = Api::namespaced(client.clone(), &key.namespace);
    match got(secrets, key).await {
        Ok(known) => known,
        Err(error) if error.is_forbidden() => Known::Unread(format!(
            "the API server forbids it: RBAC must allow get of Secret {}/{} to whoever asks",
            printable(&key.namespace),
            printable(&key.name)
        )),
        Err(error) => Known::Unread(error.to_string()),
    }
}

/// Whether there is one, without what it holds.
///
/// # Errors
/// Why that can't be told.
pub async fn exists(client: &Client, key: &SecretKey) -> Result<bool, RequestError> {
    let secrets: Api<SecretMetadataObject> = Api::namespaced(client.clone(), &key.namespace);
    match request::get(secrets, &key.name).await {
        Ok(_) => Ok(true),
        Err(RequestError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is to be said of a Secret that is not there: other namespaces may have one of this name, as far as it
/// is allowed to look there. What they hold is not sent.
pub async fn absent(client: &Client, name: &str) -> Found {
    let mut namespaces = Vec::new();
    let secrets: Api<SecretMetadataObject> = Api::all(client.clone());
    let of_this_name = ListParams::default().fields(&format!("metadata.name={name}"));
    let looked = request::list(secrets, of_this_name, |secret| {
        namespaces.extend(secret.metadata.namespace);
    });
    if looked.await.is_err() || namespaces.is_empty() {
        return Found::Absent;
    }
    namespaces.sort();
    Found::Elsewhere { namespaces }
}

async fn follow(
    client: Client,
    key: SecretKey,
    known: watch::Sender<Known>,
    stop: CancellationToken,
) {
    let api: Api<SecretObject> = Api::namespaced(client, &key.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let stream = watcher(api, config).default_backoff();
    let mut is_seen = false;
    let heard = |heard: WatchEvent<SecretObject>| match heard {
        WatchEvent::Event(Event::Init) => is_seen = false,
        WatchEvent::Event(Event::InitApply(secret)) => {
            is_seen = true;
            known.send_replace(Known::Here(source_of(&secret)));
        }
        WatchEvent::Event(Event::Apply(secret)) => {
            known.send_replace(Known::Here(source_of(&secret)));
        }
        WatchEvent::Event(Event::InitDone) if is_seen => {}
        WatchEvent::Event(Event::InitDone | Event::Delete(_)) => {
            known.send_replace(Known::Absent);
        }
        WatchEvent::Loss(error) => lose(&known, &key, &error),
        WatchEvent::Answer => {}
    };
    // Whether it answers again is not asked: what was known goes on.
    hear(stream, async || false, heard, stop).await;
}

/// What was read before goes on, but not where the right to read it was taken away.
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
            format!("the API server does not tell: {}", told(error))
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

    /// Nobody listens there.
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
        // A target comes and goes meanwhile.
        secrets.need(&keys(&["c"]));
        assert_eq!(held(&secrets), 3);
        drop(one);
        assert_eq!(held(&secrets), 2, "b of the other check, and c");
        two.told(Duration::from_secs(5)).await;
        assert!(
            matches!(secrets.get(&key("b")), Known::Unread(reason) if reason.contains("does not tell")),
        );
        drop(two);
        assert_eq!(held(&secrets), 1);
        assert!(
            matches!(secrets.get(&key("b")), Known::Unread(reason) if reason.contains("nobody has asked"))
        );
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
