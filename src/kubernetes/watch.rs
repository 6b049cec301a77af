//! Watches the objects of one kind. While the watch is down, the last known objects stay in use.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::core::Status;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::sources::with_sources;
use crate::model::text::printable;

/// The last known objects, and the state of their watch.
#[derive(Clone, Debug)]
pub struct View<T> {
    /// By `metadata.uid`.
    pub objects: Arc<BTreeMap<String, Arc<T>>>,
    /// Whether `objects` are current.
    pub state: WatchState,
}

impl<T> View<T> {
    /// The first object; for a watch that selects one object by name.
    pub fn only(&self) -> Option<&Arc<T>> {
        self.objects.values().next()
    }
}

impl<T> Default for View<T> {
    fn default() -> Self {
        Self {
            objects: Arc::default(),
            state: WatchState::default(),
        }
    }
}

/// The state of a watch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum WatchState {
    /// No list has been received yet.
    #[default]
    Unknown,
    /// The watch is up: the objects are current.
    Following,
    /// The watch is down. Objects that were known before stay in use.
    Lost {
        /// Start of this outage.
        since: Timestamp,
        /// The last error; the API server's own message if it sent one.
        reason: String,
        /// The API server answered 401 or 403 (RBAC). Waiting does not help.
        is_forbidden: bool,
    },
}

impl WatchState {
    /// Whether the watch is up.
    pub fn is_following(&self) -> bool {
        *self == Self::Following
    }

    /// Sets [`Self::Lost`], since now or since the outage began.
    pub fn lose(&mut self, reason: String, is_forbidden: bool) {
        let since = match self {
            Self::Lost { since, .. } => *since,
            Self::Unknown | Self::Following => Timestamp::now(),
        };
        *self = Self::Lost {
            since,
            reason,
            is_forbidden,
        };
    }
}

/// Watches until `stop`. `keep` converts an object to what is stored; `None` drops it.
pub async fn follow<K, T>(
    api: Api<K>,
    config: watcher::Config,
    keep: impl Fn(K) -> Option<T>,
    view: watch::Sender<View<T>>,
    stop: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let one = ListParams {
        limit: Some(1),
        field_selector: config.field_selector.clone(),
        ..ListParams::default()
    };
    let stream = watcher(api.clone(), config).default_backoff();
    take(stream, || answers(&api, &one), keep, view, stop).await;
}

/// If nothing arrives for this long after an error, the watch is up again or hangs: the longest back-off is about
/// 30 s, and connecting takes up to 5 s.
const QUIET: Duration = Duration::from_secs(45);

/// Timeout of the request in [`answers`].
const WAIT: Duration = Duration::from_secs(10);

/// Whether the API server answers a list of one object.
pub(super) async fn answers<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    one: &ListParams,
) -> bool {
    let listed = tokio::time::timeout(WAIT, api.list_metadata(one)).await;
    matches!(listed, Ok(Ok(_)))
}

/// [`follow`] for any stream of objects, for instance a list without a watch.
pub(super) async fn take<K: Resource, T, A: Future<Output = bool>>(
    stream: impl Stream<Item = watcher::Result<Event<K>>>,
    answers: impl Fn() -> A,
    keep: impl Fn(K) -> Option<T>,
    view: watch::Sender<View<T>>,
    stop: CancellationToken,
) {
    let mut listed = BTreeMap::new();
    let handle = |event| match event {
        WatchEvent::Event(Event::Init) => listed = BTreeMap::new(),
        WatchEvent::Event(Event::InitApply(object)) => add(&mut listed, object, &keep),
        WatchEvent::Event(Event::InitDone) => {
            let objects = Arc::new(std::mem::take(&mut listed));
            view.send_replace(View {
                objects,
                state: WatchState::Following,
            });
        }
        WatchEvent::Event(Event::Apply(object)) => view.send_modify(|view| {
            add(Arc::make_mut(&mut view.objects), object, &keep);
            view.state = WatchState::Following;
        }),
        WatchEvent::Event(Event::Delete(object)) => view.send_modify(|view| {
            if let Some(uid) = object.uid() {
                Arc::make_mut(&mut view.objects).remove(&uid);
            }
            view.state = WatchState::Following;
        }),
        WatchEvent::Loss(error) => view.send_modify(|view| lose(&mut view.state, &error)),
        WatchEvent::Answer => view.send_modify(|view| view.state = WatchState::Following),
    };
    drive(stream, answers, handle, stop).await;
}

/// What [`drive`] hands on.
pub(super) enum WatchEvent<K> {
    /// An event of the watcher.
    Event(Event<K>),
    /// The watch failed; the watcher tries again.
    Loss(watcher::Error),
    /// The API server answers again, but has sent no event since the loss.
    Answer,
}

/// Hands each event of a watcher to `handle`, until `stop`. A watch that works again after a loss sends nothing until
/// an object changes, so `answers` then asks the API server.
pub(super) async fn drive<K, A: Future<Output = bool>>(
    stream: impl Stream<Item = watcher::Result<Event<K>>>,
    answers: impl Fn() -> A,
    mut handle: impl FnMut(WatchEvent<K>),
    stop: CancellationToken,
) {
    // After an error that ended a list, only the next list shows that the watch works.
    let mut is_listed = false;
    let mut is_lost = false;
    let mut stream = std::pin::pin!(stream);
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = stream.next() => next,
            () = tokio::time::sleep(QUIET), if is_listed && is_lost => {
                if answers().await {
                    is_lost = false;
                    handle(WatchEvent::Answer);
                }
                continue;
            }
        };
        let Some(next) = next else { return };
        match &next {
            Ok(Event::Init) => is_listed = false,
            Ok(Event::InitApply(_)) => {}
            Ok(Event::InitDone) => (is_listed, is_lost) = (true, false),
            Ok(Event::Apply(_) | Event::Delete(_)) => is_lost = false,
            Err(error) => is_lost |= !is_forgotten(error),
        }
        handle(next.map_or_else(WatchEvent::Loss, WatchEvent::Event));
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

/// Marks the state as lost, except for 410: the watcher reports it as an error, but lists again at once.
pub(super) fn lose(state: &mut WatchState, error: &watcher::Error) {
    if is_forgotten(error) {
        return;
    }
    let is_forbidden = status(error).is_some_and(|code| code == 401 || code == 403);
    state.lose(reason(error), is_forbidden);
}

/// HTTP 410: the API server no longer has the changes in between, and everything is listed again at once.
fn is_forgotten(error: &watcher::Error) -> bool {
    status(error) == Some(410)
}

/// The API server's message, or else the error of the client.
fn reason(error: &watcher::Error) -> String {
    match api_status(error) {
        Some(status) => format!("{} (status {})", printable(&status.message), status.code),
        None => with_sources(error),
    }
}

pub(super) fn status(error: &watcher::Error) -> Option<u16> {
    api_status(error).map(|status| status.code)
}

fn api_status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}
