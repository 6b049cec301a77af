//! Objects of one kind, followed as the API server tells of them; kept while it tells nothing.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::told;

/// What is known of them.
#[derive(Debug)]
pub struct View<T> {
    /// By UID.
    pub objects: Arc<BTreeMap<String, Arc<T>>>,
    pub state: State,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self {
            objects: Arc::clone(&self.objects),
            state: self.state.clone(),
        }
    }
}

impl<T> Default for View<T> {
    fn default() -> Self {
        Self {
            objects: Arc::default(),
            state: State::Unknown,
        }
    }
}

/// How fresh that is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// There was no list yet.
    Unknown,
    /// The API server tells of changes.
    Following,
    /// It does not since then; what was known before still stands, if there was any.
    Lost {
        since: Timestamp,
        reason: String,
        /// It has said no (RBAC); waiting alone will not help.
        is_forbidden: bool,
    },
}

impl State {
    pub fn is_following(&self) -> bool {
        *self == Self::Following
    }
}

/// Follows until told to stop. `keep` makes of an object what is remembered, or nothing.
pub async fn follow<K, T>(
    api: Api<K>,
    config: watcher::Config,
    keep: impl Fn(K) -> Option<T>,
    view: watch::Sender<View<T>>,
    stop: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let stream = watcher(api, config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listed = BTreeMap::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = stream.next() => next,
        };
        let Some(next) = next else { return };
        match next {
            Ok(Event::Init) => listed = BTreeMap::new(),
            Ok(Event::InitApply(object)) => add(&mut listed, object, &keep),
            Ok(Event::InitDone) => {
                let objects = Arc::new(std::mem::take(&mut listed));
                view.send_replace(View {
                    objects,
                    state: State::Following,
                });
            }
            Ok(Event::Apply(object)) => view.send_modify(|view| {
                add(Arc::make_mut(&mut view.objects), object, &keep);
                view.state = State::Following;
            }),
            Ok(Event::Delete(object)) => view.send_modify(|view| {
                if let Some(uid) = object.uid() {
                    Arc::make_mut(&mut view.objects).remove(&uid);
                }
                view.state = State::Following;
            }),
            Err(error) => view.send_modify(|view| lose(&mut view.state, &error)),
        }
    }
}

fn add<K: Resource, T>(
    objects: &mut BTreeMap<String, Arc<T>>,
    object: K,
    keep: &impl Fn(K) -> Option<T>,
) {
    let Some(uid) = object.meta().uid.clone() else {
        return;
    };
    match keep(object) {
        Some(kept) => objects.insert(uid, Arc::new(kept)),
        None => objects.remove(&uid),
    };
}

/// A watch that merely ended is begun anew and no loss; the watcher tells of it all the same.
pub(super) fn lose(state: &mut State, error: &watcher::Error) {
    if is_forgotten(error) {
        return;
    }
    let since = match state {
        State::Lost { since, .. } => *since,
        State::Unknown | State::Following => Timestamp::now(),
    };
    *state = State::Lost {
        since,
        reason: told(error),
        is_forbidden: status(error).is_some_and(|code| code == 401 || code == 403),
    };
}

/// 410: what happened in between is not known any more; everything is listed anew at once.
fn is_forgotten(error: &watcher::Error) -> bool {
    status(error) == Some(410)
}

pub(super) fn status(error: &watcher::Error) -> Option<u16> {
    let of_client = |error: &kube::Error| match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    };
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of_client(error),
        watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::NoResourceVersion => None,
    }
}
