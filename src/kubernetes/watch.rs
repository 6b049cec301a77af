//! Objects of one kind, followed as the API server tells of them; kept while it tells nothing.

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

use super::client::told;
use crate::model::text::printable;

/// What is known of them.
#[derive(Clone, Debug)]
pub struct View<T> {
    /// By UID.
    pub objects: Arc<BTreeMap<String, Arc<T>>>,
    pub state: WatchState,
}

impl<T> View<T> {
    /// Where there is but one.
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

/// How fresh that is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum WatchState {
    /// There was no list yet.
    #[default]
    Unknown,
    /// The API server tells of changes.
    Following,
    /// It does not since then; what was known before still stands, if there was any.
    Lost {
        since: Timestamp,
        reason: String,
        /// It has said no (RBAC, or there is no such namespace); waiting alone will not help.
        is_forbidden: bool,
    },
}

impl WatchState {
    pub fn is_following(&self) -> bool {
        *self == Self::Following
    }

    /// Since now, unless it was lost before.
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
    let one = ListParams {
        limit: Some(1),
        field_selector: config.field_selector.clone(),
        ..ListParams::default()
    };
    let stream = watcher(api.clone(), config).default_backoff();
    take(stream, || answers(&api, &one), keep, view, stop).await;
}

/// Without a word for so long behind an error, the watch goes on or hangs: the longest wait before another
/// attempt is 30 s or so, and a connection comes in 5 s.
const QUIET: Duration = Duration::from_secs(45);

/// The longest wait for that one question.
const WAIT: Duration = Duration::from_secs(10);

/// Whether the API server tells what there is: one object of it is asked for.
pub(super) async fn answers<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    one: &ListParams,
) -> bool {
    let asked = tokio::time::timeout(WAIT, api.list_metadata(one)).await;
    matches!(asked, Ok(Ok(_)))
}

/// The same of whatever tells of objects, for instance of their metadata alone.
pub(super) async fn take<K: Resource, T, A: Future<Output = bool>>(
    stream: impl Stream<Item = watcher::Result<Event<K>>>,
    answers: impl Fn() -> A,
    keep: impl Fn(K) -> Option<T>,
    view: watch::Sender<View<T>>,
    stop: CancellationToken,
) {
    let mut listed = BTreeMap::new();
    let heard = |heard| match heard {
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
    hear(stream, answers, heard, stop).await;
}

/// What is heard of the API server.
pub(super) enum WatchEvent<K> {
    Event(Event<K>),
    /// It says nothing more; the watcher tries again.
    Loss(watcher::Error),
    /// Silent since a loss, it answers.
    Answer,
}

/// Hands on what a watcher hears, until it is to stop. A watch that goes on after a loss tells nothing until
/// something changes; `answers` then asks.
pub(super) async fn hear<K, A: Future<Output = bool>>(
    stream: impl Stream<Item = watcher::Result<Event<K>>>,
    answers: impl Fn() -> A,
    mut heard: impl FnMut(WatchEvent<K>),
    stop: CancellationToken,
) {
    // Behind an error that ended a list, only the next list tells.
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
                    heard(WatchEvent::Answer);
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
        heard(next.map_or_else(WatchEvent::Loss, WatchEvent::Event));
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
pub(super) fn lose(state: &mut WatchState, error: &watcher::Error) {
    if is_forgotten(error) {
        return;
    }
    let is_forbidden = status(error).is_some_and(|code| code == 401 || code == 403);
    state.lose(reason(error), is_forbidden);
}

/// 410: what happened in between is not known any more; everything is listed anew at once.
fn is_forgotten(error: &watcher::Error) -> bool {
    status(error) == Some(410)
}

/// In the API server's own words where it has said any.
fn reason(error: &watcher::Error) -> String {
    match said(error) {
        Some(status) => format!("{} (status {})", printable(&status.message), status.code),
        None => told(error),
    }
}

pub(super) fn status(error: &watcher::Error) -> Option<u16> {
    said(error).map(|status| status.code)
}

fn said(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}
