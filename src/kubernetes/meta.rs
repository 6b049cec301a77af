//! Metadata of objects, of which only what is used is kept: managed fields are often larger than the rest,
//! and the annotation of `kubectl apply` repeats a Secret's content.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// `metadata` without labels (but one), managed fields, and what `kubectl apply` has left.
///
/// # Errors
/// Where it is none.
pub(super) fn slim<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let slim = Slim::deserialize(from)?;
    let mut annotations = slim.annotations.unwrap_or_default();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    let mut labels = slim.labels.unwrap_or_default();
    labels.retain(|label, _| label == OF_A_DEPLOYMENT);
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        deletion_timestamp: slim.deletion_timestamp,
        owner_references: slim.owner_references,
        labels: (!labels.is_empty()).then_some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..ObjectMeta::default()
    })
}

/// A Deployment labels what its ReplicaSets make with it (kubernetes `apps/v1`
/// `DefaultDeploymentUniqueLabelKey`).
pub(super) const OF_A_DEPLOYMENT: &str = "pod-template-hash";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slim {
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
    annotations: Option<BTreeMap<String, String>>,
}
