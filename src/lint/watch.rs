//! The edge of the lint: lists that are followed, Secrets that are read one at a time where a workload needs
//! them, and a pass over all of it when something has changed.

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

/// A rollout changes many objects in a moment; what they come to is told once.
const SETTLE: Duration = Duration::from_secs(2);

/// Between two passes at least. A pass over 2,000 workloads takes some milliseconds.
const PAUSE: Duration = Duration::from_secs(5);

/// A pass is made at least so often: credentials end by themselves, and a Secret that is in no list (named
/// ones, those of another type, those that are absent) is asked for again.
const AGAIN: Duration = Duration::from_mins(5);

/// Secrets that are read between two passes, one at a time.
const MOST_READ: usize = 100;

/// The longest wait for one Secret.
const WAIT: Duration = Duration::from_secs(10);

/// After a Secret that nobody answered for, the first wait and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(5));

/// Looks at all of it as long as it is not stopped; the newest result.
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

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum LintError {
    #[error("no workload can be seen: {}", .0.join("; "))]
    Blind(Vec<String>),
}

/// Lists everything once and looks at it.
///
/// # Errors
/// When not one kind of workload could be listed.
pub async fn look(client: Client, scope: &Scope, access: Access) -> Result<Snapshot, LintError> {
    let mut lint = Lint::new(client, scope, access, Span::Once);
    lint.followed.listed().await;
    let is_blind = |part: &Part<_>| !part.view.borrow().state.is_following();
    if lint.followed.makers.iter().all(is_blind) {
        return Err(LintError::Blind(lint.unseen()));
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
    /// Nobody answered: not before then, and how long that is.
    rest: Option<(Instant, Duration)>,
}

/// What came of reading one, and when.
struct CachedSecret {
    read: SecretRead,
    at: Instant,
    /// `metadata.resourceVersion` in the list at that time, where it was in one.
    version: Option<Box<str>>,
}

impl Lint {
    fn new(client: Client, scope: &Scope, access: Access, span: Span) -> Self {
        let with_heads = access == Access::Discovered;
        Self {
            followed: workloads::follow(&client, scope, with_heads, span),
            client,
            span,
            access,
            read: BTreeMap::new(),
            rest: None,
        }
    }

    async fn run(&mut self, sender: &watch::Sender<Arc<Snapshot>>) {
        let mut more = false;
        loop {
            if !more {
                // All that changes while nothing is listed yet is no news.
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
        let rest = self
            .rest
            .map(|(until, _)| until - Instant::now().min(until));
        rest.unwrap_or(AGAIN).min(AGAIN)
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

    /// Secrets that are to be read now; those that nobody needs are forgotten.
    fn due(&mut self) -> Vec<(SecretKey, Option<Box<str>>)> {
        let cluster = self.cluster();
        let mut needed = needs(&cluster);
        if self.span == Span::Always {
            // Where there is no list of them, each would be asked for in vain, again and again.
            needed.retain(|key| !cluster.heads.unknown.is_in(&key.namespace));
        }
        let heads = cluster.heads.items.iter();
        let versions: BTreeMap<(&str, &str), &str> = heads
            .map(|head| ((&*head.namespace, &*head.name), &*head.version))
            .collect();
        self.read.retain(|key, _| needed.contains(key));
        let now = Instant::now();
        if self.rest.is_some_and(|(until, _)| now < until) {
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

    /// Reads the first of them, one after the other. `false`: nobody answers.
    async fn read_some(&mut self, due: Vec<(SecretKey, Option<Box<str>>)>) -> bool {
        for (key, version) in due.into_iter().take(MOST_READ) {
            let asked = tokio::time::timeout(WAIT, ask(&self.client, &key)).await;
            let asked = asked.unwrap_or_else(|_| Err(format!("no answer in {} s", WAIT.as_secs())));
            let failed = asked.is_err();
            let unread =
                |reason| SecretRead::Unread(format!("the API server does not tell: {reason}"));
            // What was read before goes on where nobody answers.
            if !failed || !self.read.contains_key(&key) {
                let held = CachedSecret {
                    read: asked.map_or_else(unread, of),
                    at: Instant::now(),
                    version: version.filter(|_| !failed),
                };
                self.read.insert(key, held);
            }
            if failed {
                let (first, most) = RETRY;
                let wait = self.rest.map_or(first, |(_, wait)| (wait * 2).min(most));
                self.rest = Some((Instant::now() + wait, wait));
                return false;
            }
            self.rest = None;
        }
        true
    }

    fn cluster(&self) -> Cluster {
        let Workloads {
            makers,
            accounts,
            heads,
            ..
        } = &self.followed;
        let makers = makers.iter().flat_map(|part| {
            let view = part.view.borrow();
            view.objects.values().cloned().collect::<Vec<_>>()
        });
        let read = self.read.iter();
        let mut heads = listed(heads);
        // Without a list of them nothing follows from one that is not in it.
        heads.unknown.everywhere |=
            self.access == Access::Discovered && self.followed.heads.is_empty();
        Cluster {
            makers: makers.collect(),
            accounts: listed(accounts),
            heads,
            access: self.access.clone(),
            read: read
                .map(|(key, held)| (key.clone(), held.read.clone()))
                .collect(),
            unseen: self.unseen(),
        }
    }

    /// Lists that could not be had, or not lately.
    fn unseen(&self) -> Vec<String> {
        const OF_ACCOUNTS: &str = "; which Secrets they give to pods that name none is not known";
        const OF_HEADS: &str =
            "; Secrets of other namespaces, and those that nobody names, are not known";
        let Workloads {
            makers,
            accounts,
            heads,
            ..
        } = &self.followed;
        let makers = makers.iter().filter_map(|part| missed(part, ""));
        let accounts = accounts.iter().filter_map(|part| missed(part, OF_ACCOUNTS));
        let heads = heads.iter().filter_map(|part| missed(part, OF_HEADS));
        let heads: BTreeSet<String> = heads.collect();
        makers.chain(accounts).chain(heads).collect()
    }
}

fn of(known: Known) -> SecretRead {
    match known {
        Known::Here(source) => SecretRead::Content(Arc::new(InspectedSecret::at(&source))),
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
        // What was known last still stands, but not where the right to know it was taken away.
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
        WatchState::Unknown => format!("{resource}{place}: they are being listed{so}"),
        WatchState::Lost {
            is_forbidden: true, ..
        } => format!(
            "{resource}{place}: the API server forbids it (RBAC must allow list and watch){so}"
        ),
        WatchState::Lost { since, reason, .. } if view.objects.is_empty() => {
            format!("{resource}{place}: not told since {since:.0}: {reason}{so}")
        }
        WatchState::Lost { since, reason, .. } => format!(
            "{resource}{place}: not told since {since:.0}, what was known then is looked at: {reason}"
        ),
    })
}
