//! Reads Events about pods: a watch on the whole cluster, which hands on each Event and stores none, and a list for
//! one pod.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::objects::EventObject;
use super::request::{self, RequestError};
use super::watch::{WatchEvent, WatchState, answers, drive, lose};
use crate::workload::pod::{Event, Pod};

/// A change that the watch reports.
#[derive(Clone, Debug)]
pub enum Change {
    /// A list starts: every existing Event follows, as [`Self::Seen`].
    ListBegins,
    /// An Event that is new, whose count has risen, or that is listed again.
    Seen(Box<Event>),
    /// The list is complete.
    ListEnds,
    /// The Event with this UID was deleted; by default the API server does so after an hour.
    Gone(String),
}

/// Frequent reasons that have nothing to do with images; a field selector excludes them. `BackOff` must stay: it is
/// also that of an image pull, not only of crashing containers.
const NOT_OF_IMAGES: [&str; 8] = [
    "Scheduled",
    "Created",
    "Started",
    "Killing",
    "Unhealthy",
    "FailedScheduling",
    "FailedMount",
    "SandboxChanged",
];

/// Events per page of a list, about 1 kB each.
const A_PAGE: u32 = 500;

impl From<EventObject> for Event {
    fn from(object: EventObject) -> Self {
        let non_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
        let is_kubelet = object.reporting_component.as_deref() == Some("kubelet");
        let instance = object.reporting_instance.filter(|_| is_kubelet);
        let series = object.series.unwrap_or_default();
        let count = object.count.unwrap_or(0).max(series.count.unwrap_or(0));
        Self {
            container: container(&object.involved_object).unwrap_or_default(),
            uid: object.metadata.uid.unwrap_or_default(),
            namespace: non_empty(object.involved_object.namespace)
                .or(object.metadata.namespace)
                .unwrap_or_default(),
            pod: object.involved_object.name.unwrap_or_default(),
            node: non_empty(object.source.host)
                .or(non_empty(instance))
                .unwrap_or_default(),
            is_warning: object.kind.as_deref() == Some("Warning"),
            reason: object.reason.unwrap_or_default(),
            message: object.message.unwrap_or_default(),
            count: u64::try_from(count).unwrap_or(0).max(1),
            first: object.first_timestamp.or(object.event_time),
            last: object
                .last_timestamp
                .max(series.last_observed_time.map(|at| at.0))
                .max(object.event_time)
                .or(object.metadata.creation_timestamp.map(|at| at.0)),
        }
    }
}

/// The name in a `fieldPath`: `spec.containers{app}`, `spec.initContainers{migrate}`.
fn container(about: &ObjectReference) -> Option<String> {
    let (_, rest) = about.field_path.as_deref()?.split_once('{')?;
    rest.strip_suffix('}').map(str::to_owned)
}

/// Lists the Events of one pod. By default the API server keeps them for an hour.
///
/// # Errors
/// If RBAC does not allow `list` of events, or if the API server does not answer.
pub async fn of_pod(client: &Client, pod: &Pod) -> Result<Vec<Event>, RequestError> {
    let objects: Api<EventObject> = Api::namespaced(client.clone(), &pod.namespace);
    let fields = format!("involvedObject.kind=Pod,involvedObject.uid={}", pod.uid);
    request::all(objects, ListParams::default().fields(&fields)).await
}

/// Watches the Events of the whole cluster until `stop`, and hands each change to `report`.
pub async fn follow(
    client: Client,
    mut report: impl FnMut(Change),
    state: watch::Sender<WatchState>,
    stop: CancellationToken,
) {
    let events: Api<EventObject> = Api::all(client);
    let excluded = NOT_OF_IMAGES.map(|reason| format!(",reason!={reason}"));
    let fields = format!("involvedObject.kind=Pod{}", excluded.concat());
    let one = ListParams::default().fields(&fields).limit(1);
    let config = watcher::Config::default().fields(&fields).page_size(A_PAGE);
    let stream = watcher(events.clone(), config).default_backoff();
    let mut is_listing = true;
    let handle = |event: WatchEvent<EventObject>| {
        let change = match event {
            WatchEvent::Event(watcher::Event::Init) => {
                is_listing = true;
                Change::ListBegins
            }
            WatchEvent::Event(
                watcher::Event::InitApply(object) | watcher::Event::Apply(object),
            ) => Change::Seen(Box::new(object.into())),
            WatchEvent::Event(watcher::Event::InitDone) => {
                is_listing = false;
                Change::ListEnds
            }
            WatchEvent::Event(watcher::Event::Delete(object)) => {
                Change::Gone(object.metadata.uid.unwrap_or_default())
            }
            WatchEvent::Loss(error) => return state.send_modify(|state| lose(state, &error)),
            WatchEvent::Answer => {
                state.send_replace(WatchState::Following);
                return;
            }
        };
        // Until the list is complete, the watch does not count as up: the list may still fail.
        if !is_listing {
            state.send_if_modified(|state| {
                let has_changed = !state.is_following();
                *state = WatchState::Following;
                has_changed
            });
        }
        report(change);
    };
    drive(stream, || answers(&events, &one), handle, stop).await;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(object: &serde_json::Value) -> Event {
        serde_json::from_value::<EventObject>(object.clone())
            .unwrap()
            .into()
    }

    /// As printed by `kubectl get event -o json`: from client-go's old recorder, and from that of events.k8s.io.
    #[test]
    fn both_kinds_of_recorders_are_read() {
        let old = event(&json!({
            "metadata": {"name": "app.1", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                         "managedFields": [{"manager": "kubelet"}]},
            "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "app", "fieldPath": "spec.containers{web}"},
            "reason": "Failed", "message": "Error: ErrImagePull", "type": "Warning",
            "source": {"component": "kubelet", "host": "n1"}, "count": 3,
            "firstTimestamp": "2026-11-01T00:00:00Z", "lastTimestamp": "2026-11-01T00:01:00Z", "eventTime": null,
            "reportingComponent": "kubelet", "reportingInstance": "n1"
        }));
        assert_eq!(
            (old.container.as_str(), old.node.as_str(), old.count),
            ("web", "n1", 3)
        );
        assert!(old.first < old.last);
        let new = event(&json!({
            "metadata": {"name": "app.2", "namespace": "shop", "uid": "u"},
            "involvedObject": {"kind": "Pod", "name": "app"},
            "reason": "Failed", "message": "m", "source": {}, "firstTimestamp": null, "lastTimestamp": null,
            "eventTime": "2026-11-01T00:00:00.123456Z",
            "series": {"count": 5, "lastObservedTime": "2026-11-01T00:05:00.000000Z"},
            "reportingComponent": "kubelet", "reportingInstance": "n2"
        }));
        assert_eq!(
            (new.namespace.as_str(), new.node.as_str(), new.count),
            ("shop", "n2", 5)
        );
        assert!(new.first < new.last);
        let other =
            event(&json!({"metadata": {}, "reportingComponent": "x", "reportingInstance": "x-1"}));
        assert_eq!((other.node.as_str(), other.count), ("", 1));
    }

    #[test]
    fn both_forms_of_a_pod_s_events_are_read() {
        let old = json!({"metadata": {"name": "e"}, "involvedObject": {"fieldPath": "spec.containers{app}"},
            "reason": "BackOff", "message": "m", "type": "Warning", "count": 7,
            "firstTimestamp": "2026-11-23T09:00:00Z", "lastTimestamp": "2026-11-23T09:05:00Z", "eventTime": null});
        let new = json!({"metadata": {"name": "e"}, "reason": "Pulling", "type": "Normal",
            "eventTime": "2026-11-23T09:00:00.000001Z",
            "series": {"count": 3, "lastObservedTime": "2026-11-23T09:04:00.000000Z"}});
        let read = |value| Event::from(serde_json::from_value::<EventObject>(value).unwrap());
        let old = read(old);
        assert_eq!((old.container.as_str(), old.count), ("app", 7));
        assert_eq!(old.last, Some("2026-11-23T09:05:00Z".parse().unwrap()));
        let new = read(new);
        assert_eq!((new.count, new.is_warning), (3, false));
        assert_eq!(new.last, Some("2026-11-23T09:04:00Z".parse().unwrap()));
    }
}
