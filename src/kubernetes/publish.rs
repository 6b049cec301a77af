//! Events on pods: one object for each thing that is to be said of a container, which counts how often it was
//! said, as the kubelet's own do. In core/v1, which every API server, kubectl and exporter reads.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::timeout;

use super::client::told;
use crate::model::text::printable;
use crate::model::workload::ContainerKind;

/// The longest message of an Event (kubernetes `pkg/apis/core/validation/events.go`).
pub const MOST_MESSAGE: usize = 1024;

/// Who reports, among all that do.
const CONTROLLER: &str = "pullpath.io/pullpath";

/// What kubectl shows as the source.
const COMPONENT: &str = "pullpath";

/// An API server that takes longer has more important things to do.
const WAIT: Duration = Duration::from_secs(5);

/// What is said of a container, or an image volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// The same for what is the same.
    pub name: String,
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    pub kind: ContainerKind,
    /// `None`: a pull would succeed.
    pub cause: Option<&'static str>,
    pub reason: &'static str,
    pub message: String,
}

impl Note {
    /// Public: alerts and people look for it.
    pub fn reason(&self) -> &'static str {
        match self.cause {
            Some(_) => "ImagePullDiagnosed",
            None => "ImagePullResolved",
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    Created,
    /// It was there already, and counts one more.
    Counted {
        times: i32,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("RBAC must allow create and patch of events in namespace {namespace}: {reason}")]
    Forbidden { namespace: String, reason: String },
    #[error("the API server did not answer within 5 s")]
    Late,
    #[error("the API server does not take it: {0}")]
    Refused(String),
}

/// Publishes one, in the name of a node; `times` is how often it was said before, where that is known.
///
/// # Errors
/// When the API server does not take it.
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
            // An API server forgets Events, by default after an hour.
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
        other => PublishError::Refused(printable(&told(&other))),
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
        // Said before a restart. How often is in the answer, and counts from now on.
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
    // As the kubelet writes it.
    let list = match note.kind {
        ContainerKind::Container => Some("containers"),
        ContainerKind::InitContainer => Some("initContainers"),
        ContainerKind::EphemeralContainer => Some("ephemeralContainers"),
        // Of a volume's image it tells as of the pod.
        ContainerKind::ImageVolume => None,
    };
    let kind = if note.cause.is_some() {
        "Warning"
    } else {
        "Normal"
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
        reason: Some(note.reason().to_owned()),
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
