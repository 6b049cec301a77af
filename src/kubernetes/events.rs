//! Events about the pods of the whole cluster, as they come; nothing of them is kept here.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::api::{ListParams, ObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use serde::{Deserialize, Deserializer};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::follow::{State, lose};
use super::shapes::core_object;
use crate::pulls::event::Event;

/// What the API server tells.
#[derive(Clone, Debug)]
pub enum Change {
    /// All that there are follow.
    ListBegins,
    /// One that is new, has risen, or is listed again.
    Seen(Event),
    /// Those were all.
    ListEnds,
    /// It was deleted, mostly since it is an hour old; by its UID.
    Gone(String),
}

/// Reasons that say nothing of images, and of which each pod has several: the API server need not send them.
/// (`BackOff` is for containers that crash, too, and has to come.)
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

/// Of a list, at a time: 1 kB each.
const A_PAGE: u32 = 500;

/// An Event of core/v1, as far as it is read. Those of events.k8s.io/v1 are the same objects.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventObject {
    #[serde(deserialize_with = "small")]
    metadata: ObjectMeta,
    #[serde(default)]
    involved_object: Involved,
    reason: Option<String>,
    message: Option<String>,
    #[serde(default)]
    source: Source,
    reporting_component: Option<String>,
    reporting_instance: Option<String>,
    count: Option<i64>,
    first_timestamp: Option<Timestamp>,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
    series: Option<Series>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Involved {
    namespace: Option<String>,
    name: Option<String>,
    field_path: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Source {
    host: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    count: Option<i64>,
    last_observed_time: Option<Timestamp>,
}

/// Half of an Event is `managedFields`.
fn small<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Small {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
    }
    let small = Small::deserialize(from)?;
    Ok(ObjectMeta {
        name: small.name,
        namespace: small.namespace,
        uid: small.uid,
        resource_version: small.resource_version,
        ..ObjectMeta::default()
    })
}

core_object!(EventObject, "Event", "events", NamespaceResourceScope);

impl From<EventObject> for Event {
    fn from(object: EventObject) -> Self {
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let is_kubelet = object.reporting_component.as_deref() == Some("kubelet");
        let instance = object.reporting_instance.filter(|_| is_kubelet);
        let series = object.series;
        let in_series = series.as_ref().and_then(|series| series.count);
        let observed = series.and_then(|series| series.last_observed_time);
        let count = object.count.unwrap_or(0).max(in_series.unwrap_or(0));
        Self {
            uid: object.metadata.uid.unwrap_or_default(),
            namespace: said(object.involved_object.namespace)
                .or(object.metadata.namespace)
                .unwrap_or_default(),
            pod: object.involved_object.name.unwrap_or_default(),
            container: container(object.involved_object.field_path.as_deref()),
            node: said(object.source.host)
                .or(said(instance))
                .unwrap_or_default(),
            reason: object.reason.unwrap_or_default(),
            message: object.message.unwrap_or_default(),
            count: u64::try_from(count).unwrap_or(0).max(1),
            first: object.first_timestamp.or(object.event_time),
            last: object.last_timestamp.max(observed).max(object.event_time),
        }
    }
}

/// `spec.containers{app}`, `spec.initContainers{migrate}`.
fn container(field_path: Option<&str>) -> String {
    field_path
        .and_then(|path| path.split_once('{')?.1.strip_suffix('}'))
        .unwrap_or_default()
        .to_owned()
}

/// Follows until told to stop.
pub async fn follow(
    client: Client,
    mut tell: impl FnMut(Change),
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    let events: Api<EventObject> = Api::all(client);
    let excluded = NOT_OF_IMAGES.map(|reason| format!(",reason!={reason}"));
    let fields = format!("involvedObject.kind=Pod{}", excluded.concat());
    let config = watcher::Config::default().fields(&fields).page_size(A_PAGE);
    let stream = watcher(events.clone(), config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut is_listing = true;
    let mut failed_at: Option<Instant> = None;
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = stream.next() => next,
            () = quiet_since(failed_at) => {
                // The watch goes on without a word where nothing happens; whether anybody is there can be asked.
                let one = ListParams::default().fields(&fields).limit(1);
                let answer = timeout(ANSWER, events.list(&one)).await;
                if matches!(answer, Ok(Ok(_))) {
                    failed_at = None;
                    state.send_replace(State::Following);
                } else {
                    failed_at = Some(Instant::now());
                }
                continue;
            }
        };
        let Some(next) = next else { return };
        let change = match next {
            Ok(watcher::Event::Init) => Change::ListBegins,
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                Change::Seen(object.into())
            }
            Ok(watcher::Event::InitDone) => Change::ListEnds,
            Ok(watcher::Event::Delete(object)) => {
                Change::Gone(object.metadata.uid.unwrap_or_default())
            }
            Err(error) => {
                state.send_modify(|state| lose(state, &error));
                failed_at = (!is_listing).then(Instant::now);
                continue;
            }
        };
        match change {
            Change::ListBegins => is_listing = true,
            Change::ListEnds => is_listing = false,
            Change::Seen(_) | Change::Gone(_) => {}
        }
        // While they are listed, it is not known yet whether all will come.
        if !is_listing {
            failed_at = None;
            state.send_if_modified(|state| {
                let is_news = !state.is_following();
                *state = State::Following;
                is_news
            });
        }
        tell(change);
    }
}

/// A watch that fails is tried again within half a minute; longer without a failure is none.
const QUIET: Duration = Duration::from_secs(45);

const ANSWER: Duration = Duration::from_secs(10);

async fn quiet_since(failed_at: Option<Instant>) {
    match failed_at {
        Some(at) => tokio::time::sleep_until(at + QUIET).await,
        None => std::future::pending().await,
    }
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

    /// As `kubectl get event -o json` has them: of client-go's old recorder, and of events.k8s.io.
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
}
