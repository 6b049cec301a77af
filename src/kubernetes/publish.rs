//! Writes Events on pods: one object for each diagnosis of a container, with a count of repetitions, as the kubelet's
//! own Events have. They are core/v1 Events, which every API server, kubectl and exporter can read.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::timeout;

use super::sources::with_sources;
use crate::model::text::printable;
use crate::model::workload::ContainerKind;

/// The longest message of an Event, in bytes (kubernetes `pkg/apis/core/validation/events.go`).
pub const MOST_MESSAGE: usize = 1024;

/// `reportingComponent` of our Events.
const CONTROLLER: &str = "pullpath.io/pullpath";

/// `source.component`, which kubectl shows as the source.
const COMPONENT: &str = "pullpath";

/// Timeout for all requests of one Event: an API server that takes longer is overloaded, and Events can wait.
const WAIT: Duration = Duration::from_secs(5);

/// The content of an Event on a container or an image volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// The Event's `metadata.name`. The same diagnosis always has the same name, also after a restart.
    pub name: String,
    /// Namespace of the pod and of the Event.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod, by which `kubectl describe pod` finds the Event.
    pub uid: String,
    /// Name of the container, or of the volume.
    pub container: String,
    /// Decides the `fieldPath`; an image volume has none.
    pub kind: ContainerKind,
    /// Code of the cause, or [`NOT_CHECKED`]. `None`: a pull would succeed.
    pub cause: Option<&'static str>,
    /// At most [`MOST_MESSAGE`] bytes.
    pub message: String,
}

/// In place of a cause: the image is not checked.
pub const NOT_CHECKED: &str = "not_checked";

/// The `reason` of an Event that names a cause, or of the one that revokes it. It is public: alerts and users search for
/// it.
pub fn reason(cause: Option<&str>) -> &'static str {
    match cause {
        Some(NOT_CHECKED) => "ImagePullNotChecked",
        Some(_) => "ImagePullDiagnosed",
        None => "ImagePullResolved",
    }
}

/// How an Event was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// As a new object.
    Created,
    /// It existed already; its count was updated.
    Counted {
        /// The Event's `count` now.
        times: i32,
    },
}

/// Why an Event was not written.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// HTTP 401 or 403.
    #[error("RBAC must allow create and patch of events in namespace {namespace}: {reason}")]
    Forbidden {
        /// Namespace of the pod.
        namespace: String,
        /// The API server's message.
        reason: String,
    },
    /// The timeout for all requests of one Event.
    #[error("the API server did not answer within 5 s")]
    Late,
    /// Any other error, with its message.
    #[error("the API server does not accept it: {0}")]
    Refused(String),
}

/// Writes an Event with `host` (a node) as its source. `times` is its previous count; `None` if that is unknown, for
/// instance after a restart.
///
/// # Errors
/// If RBAC forbids it, if the API server refuses it, or if there is no answer within 5 s.
pub async fn publish(
    client: &Client,
    host: &str,
    note: &Note,
    times: Option<i32>,
) -> Result<Published, PublishError> {
    let all = async {
        let events: Api<Event> = Api::namespaced(client.clone(), &note.namespace);
        let now = Timestamp::now();
        let Some(times) = times else {
            return create(&events, host, note, now).await;
        };
        let next = times.saturating_add(1);
        let change = json!({"count": next, "lastTimestamp": Time(now), "message": note.message});
        match patch(&events, note, &change).await {
            // The API server deletes Events, by default after an hour.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                create(&events, host, note, now).await
            }
            other => other,
        }
    };
    let published = timeout(WAIT, all).await.map_err(|_| PublishError::Late)?;
    published.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 || status.code == 401 => {
            PublishError::Forbidden {
                namespace: printable(&note.namespace),
                reason: printable(&status.message),
            }
        }
        other => PublishError::Refused(printable(&with_sources(&other))),
    })
}

async fn create(
    events: &Api<Event>,
    host: &str,
    note: &Note,
    now: Timestamp,
) -> Result<Published, kube::Error> {
    let event = event(host, note, now);
    match events.create(&PostParams::default(), &event).await {
        Ok(_) => Ok(Published::Created),
        // It was written before a restart. The answer contains its count, which is used from now on.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let change = json!({"lastTimestamp": Time(now), "message": note.message});
            patch(events, note, &change).await
        }
        Err(error) => Err(error),
    }
}

async fn patch(
    events: &Api<Event>,
    note: &Note,
    change: &serde_json::Value,
) -> Result<Published, kube::Error> {
    let patched = events
        .patch(&note.name, &PatchParams::default(), &Patch::Merge(change))
        .await?;
    Ok(Published::Counted {
        times: patched.count.unwrap_or(1),
    })
}

fn event(host: &str, note: &Note, now: Timestamp) -> Event {
    // The format of the kubelet's own Events.
    let list = match note.kind {
        ContainerKind::Container => Some("containers"),
        ContainerKind::InitContainer => Some("initContainers"),
        ContainerKind::EphemeralContainer => Some("ephemeralContainers"),
        // The kubelet reports the image of a volume on the pod itself.
        ContainerKind::ImageVolume => None,
    };
    let kind = match note.cause {
        None | Some(NOT_CHECKED) => "Normal",
        Some(_) => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(note.name.clone()),
            namespace: Some(note.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(note.namespace.clone()),
            name: Some(note.pod.clone()),
            uid: Some(note.uid.clone()),
            field_path: list.map(|list| format!("spec.{list}{{{}}}", note.container)),
            ..ObjectReference::default()
        },
        type_: Some(kind.to_owned()),
        reason: Some(reason(note.cause).to_owned()),
        message: Some(note.message.clone()),
        source: Some(EventSource {
            component: Some(COMPONENT.to_owned()),
            host: Some(host.to_owned()),
        }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        reporting_component: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(host.to_owned()),
        ..Event::default()
    }
}
