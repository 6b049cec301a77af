//! Runs the lint on a cluster: watches the objects, reads one at a time the Secrets that workloads need, and judges
//! everything again when something changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::judge::{judge, needs};
use super::{Cluster, InspectedSecret, Listed, SecretRead, Snapshot, Unknown};
use crate::kubernetes::secrets::{Access, Known, SecretKey, ask};
use crate::kubernetes::watch::WatchState;
use crate::kubernetes::workloads::{self, Part, Scope, Span, Workloads};

/// A rollout changes many objects at once; they are judged together after this time.
const SETTLE: Duration = Duration::from_secs(2);

/// Shortest time between two passes. A pass over 2,000 workloads takes some milliseconds.
const PAUSE: Duration = Duration::from_secs(5);

/// Longest time between two passes. Credentials expire without a change of any object, and a Secret that is in no list
/// (named ones, those of another type, absent ones) is requested again.
const AGAIN: Duration = Duration::from_mins(5);

/// Upper bound of the Secrets read between two passes, one at a time.
const MOST_READ: usize = 100;

/// Timeout of reading one Secret.
const WAIT: Duration = Duration::from_secs(10);

/// Cooldown after a Secret for which the API server did not answer: the first and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(5));

/// Judges the cluster until `stop`. The receiver has the newest result, empty at first.
pub fn start(
    client: Client,
    scope: Scope,
    access: Access,
    stop: CancellationToken,
) -> watch::Receiver<Arc<Snapshot>> {
    let (sender, receiver) = watch::channel(Arc::default());
    tokio::spawn(async move {
        let mut lint = Lint::new(client, &scope, access, Span::Always);
        tokio::select! {
            () = stop.cancelled() => {}
            () = lint.run(&sender) => {}
        }
    });
    receiver
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LintError {
    /// No kind of workload could be listed; with the reason for each list.
    #[error("no workload can be listed: {}", .0.join("; "))]
    Blind(Vec<String>),
}

/// Lists everything once and judges it.
///
/// # Errors
/// [`LintError::Blind`] if no kind of workload could be listed.
pub async fn look(client: Client, scope: &Scope, access: Access) -> Result<Snapshot, LintError> {
    let mut lint = Lint::new(client, scope, access, Span::Once);
    lint.followed.listed().await;
    let is_blind = |part: &Part<_>| !part.view.borrow().state.is_following();
    if lint.followed.workloads.iter().all(is_blind) {
        return Err(LintError::Blind(lint.not_observed()));
    }
    loop {
        let due = lint.due();
        if due.is_empty() || !lint.read_some(due).await {
            break;
        }
    }
    Ok(judge(&lint.cluster(), Timestamp::now()))
}

struct Lint {
    client: Client,
    span: Span,
    access: Access,
    followed: Workloads,
    read: BTreeMap<SecretKey, CachedSecret>,
    /// The API server did not answer: no Secret is requested before this time, with the length of the wait.
    cooldown: Option<(Instant, Duration)>,
}

/// The result of reading one Secret, and when.
struct CachedSecret {
    read: SecretRead,
    at: Instant,
    /// `metadata.resourceVersion` in the list at that time; `None`: it was in no list.
    version: Option<Box<str>>,
}

impl Lint {
    fn new(client: Client, scope: &Scope, access: Access, span: Span) -> Self {
        let with_secrets = access == Access::Discovered;
        Self {
            followed: workloads::follow(&client, scope, with_secrets, span),
            client,
            span,
            access,
            read: BTreeMap::new(),
            cooldown: None,
        }
    }

    async fn run(&mut self, sender: &watch::Sender<Arc<Snapshot>>) {
        let mut more = false;
        loop {
            if !more {
                // Changes are expected while the first lists arrive.
                let _ = tokio::time::timeout(self.until_due(), self.followed.changed()).await;
                tokio::time::sleep(SETTLE).await;
            }
            self.publish(sender);
            let due = self.due();
            more = due.len() > MOST_READ;
            let has_read = !due.is_empty();
            if has_read {
                more &= self.read_some(due).await;
                self.publish(sender);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn until_due(&self) -> Duration {
        let cooldown = self
            .cooldown
            .map(|(until, _)| until - Instant::now().min(until));
        cooldown.unwrap_or(AGAIN).min(AGAIN)
    }

    fn publish(&self, sender: &watch::Sender<Arc<Snapshot>>) {
        let snapshot = judge(&self.cluster(), Timestamp::now());
        sender.send_if_modified(|last| {
            if **last == snapshot {
                return false;
            }
            *last = Arc::new(snapshot);
            true
        });
    }

    /// The Secrets to read now; drops those that are no longer needed.
    fn due(&mut self) -> Vec<(SecretKey, Option<Box<str>>)> {
        let cluster = self.cluster();
        let mut needed = needs(&cluster);
        if self.span == Span::Always {
            // Without a list of Secrets, each request for one would fail again and again.
            needed.retain(|key| !cluster.secrets.unknown.is_in(&key.namespace));
        }
        let secrets = cluster.secrets.items.iter();
        let versions: BTreeMap<(&str, &str), &str> = secrets
            .map(|secret| ((&*secret.namespace, &*secret.name), &*secret.version))
            .collect();
        self.read.retain(|key, _| needed.contains(key));
        let now = Instant::now();
        if self.cooldown.is_some_and(|(until, _)| now < until) {
            return Vec::new();
        }
        let due = needed.into_iter().filter_map(|key| {
            let version = versions.get(&(key.namespace.as_str(), key.name.as_str()));
            let version = version.map(|version| Box::from(*version));
            let is_due = self.read.get(&key).is_none_or(|held| {
                held.version != version || (version.is_none() && now - held.at >= AGAIN)
            });
            is_due.then_some((key, version))
        });
        due.collect()
    }

    /// Reads the first of them, one after the other. `false`: the API server does not answer.
    async fn read_some(&mut self, due: Vec<(SecretKey, Option<Box<str>>)>) -> bool {
        for (key, version) in due.into_iter().take(MOST_READ) {
            let answer = tokio::time::timeout(WAIT, ask(&self.client, &key)).await;
            let answer =
                answer.unwrap_or_else(|_| Err(format!("no answer in {} s", WAIT.as_secs())));
            let failed = answer.is_err();
            let unread =
                |reason| SecretRead::Unread(format!("the API server does not return it: {reason}"));
            // If the API server does not answer, the content from before stays in use.
            if !failed || !self.read.contains_key(&key) {
                let held = CachedSecret {
                    read: answer.map_or_else(unread, of),
                    at: Instant::now(),
                    version: version.filter(|_| !failed),
                };
                self.read.insert(key, held);
            }
            if failed {
                let (first, most) = RETRY;
                let wait = self
                    .cooldown
                    .map_or(first, |(_, wait)| (wait * 2).min(most));
                self.cooldown = Some((Instant::now() + wait, wait));
                return false;
            }
            self.cooldown = None;
        }
        true
    }

    fn cluster(&self) -> Cluster {
        let Workloads {
            workloads,
            accounts,
            secrets,
            ..
        } = &self.followed;
        let workloads = workloads.iter().flat_map(|part| {
            let view = part.view.borrow();
            view.objects.values().cloned().collect::<Vec<_>>()
        });
        let read = self.read.iter();
        let mut secrets = listed(secrets);
        // Without a list, a Secret that is not in it may still exist.
        secrets.unknown.everywhere |=
            self.access == Access::Discovered && self.followed.secrets.is_empty();
        Cluster {
            workloads: workloads.collect(),
            accounts: listed(accounts),
            secrets,
            access: self.access.clone(),
            read: read
                .map(|(key, held)| (key.clone(), held.read.clone()))
                .collect(),
            not_observed: self.not_observed(),
        }
    }

    /// Lists that could not be read, or are stale.
    fn not_observed(&self) -> Vec<String> {
        const OF_ACCOUNTS: &str = "; which Secrets they add to pods that name none is unknown";
        const OF_SECRETS: &str =
            "; Secrets of other namespaces, and those that no workload names, are unknown";
        let Workloads {
            workloads,
            accounts,
            secrets,
            ..
        } = &self.followed;
        let workloads = workloads.iter().filter_map(|part| missed(part, ""));
        let accounts = accounts.iter().filter_map(|part| missed(part, OF_ACCOUNTS));
        let secrets = secrets.iter().filter_map(|part| missed(part, OF_SECRETS));
        let secrets: BTreeSet<String> = secrets.collect();
        workloads.chain(accounts).chain(secrets).collect()
    }
}

fn of(known: Known) -> SecretRead {
    match known {
        Known::Here(source) => SecretRead::Content(Arc::new(InspectedSecret::of(&source))),
        Known::Absent => SecretRead::Absent,
        Known::Unread(reason) => SecretRead::Unread(reason),
    }
}

fn listed<T>(parts: &[Part<T>]) -> Listed<T> {
    let mut all = Listed {
        items: Vec::new(),
        unknown: Unknown::default(),
    };
    for part in parts {
        let view = part.view.borrow();
        // The last known objects stay in use, unless the right to read them was withdrawn.
        let is_known = match &view.state {
            WatchState::Following => true,
            WatchState::Unknown => false,
            WatchState::Lost { is_forbidden, .. } => !is_forbidden && !view.objects.is_empty(),
        };
        if is_known {
            all.items.extend(view.objects.values().cloned());
        } else if let Some(namespace) = &part.namespace {
            all.unknown.namespaces.insert(namespace.clone());
        } else {
            all.unknown.everywhere = true;
        }
    }
    all
}

fn missed<T>(part: &Part<T>, so: &str) -> Option<String> {
    let view = part.view.borrow();
    let namespace = part.namespace.as_ref();
    let place = namespace.map_or_else(String::new, |one| format!(" in namespace {one}"));
    let resource = part.resource;
    Some(match &view.state {
        WatchState::Following => return None,
        WatchState::Unknown => format!("{resource}{place}: not listed yet{so}"),
        WatchState::Lost {
            is_forbidden: true, ..
        } => format!(
            "{resource}{place}: the API server forbids it (RBAC must allow list and watch){so}"
        ),
        WatchState::Lost { since, reason, .. } if view.objects.is_empty() => {
            format!("{resource}{place}: not readable since {since:.0}: {reason}{so}")
        }
        WatchState::Lost { since, reason, .. } => format!(
            "{resource}{place}: not readable since {since:.0}, using the last known state: {reason}"
        ),
    })
}
