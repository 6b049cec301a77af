//! Reads Nodes, this node's own and all, reduced to the properties by which nodes differ.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::objects::{NodeObject, ZONE_LABELS};
use super::request::{self, RequestError};
use super::watch::{View, follow};
use crate::model::text::printable;
use crate::model::vantage::NodeFacts;

impl From<NodeObject> for NodeFacts {
    fn from(object: NodeObject) -> Self {
        let NodeObject {
            metadata,
            spec,
            status,
        } = object;
        let non_empty = |text: &str| (!text.is_empty()).then(|| printable(text));
        let addresses = |kind: &str| -> Vec<IpAddr> {
            let of_kind = status.addresses.iter().filter(|one| one.type_ == kind);
            of_kind.filter_map(|one| one.address.parse().ok()).collect()
        };
        let labels: &BTreeMap<String, String> = &metadata.labels.unwrap_or_default();
        let zone = ZONE_LABELS.iter().find_map(|label| labels.get(*label));
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.kind == "Ready");
        Self {
            name: printable(&metadata.name.unwrap_or_default()),
            created: metadata.creation_timestamp.map(|at| at.0),
            // "Unknown": the kubelet has stopped reporting.
            ready: ready.and_then(|condition| match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            }),
            unschedulable: spec.unschedulable,
            provider_id: non_empty(&spec.provider_id),
            zone: zone.and_then(|zone| non_empty(zone)),
            internal_ips: addresses("InternalIP"),
            external_ips: addresses("ExternalIP"),
            // `containerd://1.6.20`
            runtime: non_empty(
                &status
                    .node_info
                    .container_runtime_version
                    .replacen("://", " ", 1),
            ),
            kubelet: non_empty(&status.node_info.kubelet_version),
            os_image: non_empty(&status.node_info.os_image),
            source: SOURCE.to_owned(),
        }
    }
}

/// The source that reports name for these properties.
const SOURCE: &str = "the API server";

/// Watches the one Node with this name, until `stop`. The API server sends no other Node.
pub async fn follow_own(
    client: Client,
    node: &str,
    view: watch::Sender<View<NodeFacts>>,
    stop: CancellationToken,
) {
    let nodes: Api<NodeObject> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    follow(
        nodes,
        config,
        |node| Some(NodeFacts::from(node)),
        view,
        stop,
    )
    .await;
}

/// Lists all nodes, sorted by name.
///
/// # Errors
/// If the API server refuses the list or does not answer.
pub async fn all(client: &Client) -> Result<Vec<NodeFacts>, RequestError> {
    let objects: Api<NodeObject> = Api::all(client.clone());
    let mut nodes: Vec<NodeFacts> = request::all(objects, ListParams::default()).await?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_read_as_far_as_it_says_anything() {
        let whole = json!({
            "metadata": {"name": "n1", "creationTimestamp": "2026-11-28T00:00:00Z",
                         "labels": {"topology.kubernetes.io/zone": "cn-north-4a"}},
            "spec": {"providerID": "huaweicloud:///7a", "unschedulable": true},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "10.0.3.9"},
                              {"type": "ExternalIP", "address": "121.36.1.2"},
                              {"type": "ExternalIP", "address": "n1.example.com"},
                              {"type": "Hostname", "address": "n1"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"containerRuntimeVersion": "containerd://1.6.20", "kubeletVersion": "v1.25.3-r0",
                             "osImage": "Huawei Cloud EulerOS 2.0"}}});
        let facts = NodeFacts::from(serde_json::from_value::<NodeObject>(whole).unwrap());
        assert_eq!(facts.runtime.as_deref(), Some("containerd 1.6.20"));
        assert_eq!(facts.zone.as_deref(), Some("cn-north-4a"));
        assert_eq!(
            facts.external_ips,
            ["121.36.1.2".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(facts.ready, Some(true));
        assert!(facts.unschedulable && facts.created.is_some());
        let bare = json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        let facts = NodeFacts::from(serde_json::from_value::<NodeObject>(bare).unwrap());
        assert_eq!(
            (facts.ready, facts.runtime, facts.provider_id),
            (None, None, None)
        );
        assert!(!facts.unschedulable && facts.internal_ips.is_empty());
    }
}
