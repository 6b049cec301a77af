//! Looks around, once for a run: what the kernel, the cloud and the world say of this place. What
//! can't be seen is on record with its reason; it is never taken for absent.

pub mod clients;
mod egress;
mod metadata;
use clients::NetworkClients;
pub mod node_settings;
pub mod pod;
mod provider;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::config::{HostPort, MetadataMode, Network};
use crate::model::endpoint::Host;
use crate::model::network::{
    Baseline, BaselineKind, Control, Metadata, MetadataSkip, PodEip, Provider, ProviderBy,
    ProviderSign,
};
use crate::model::path::Signal;
use crate::model::text::printable;
use crate::model::vantage::{Missing, NetworkView, NodeFacts, Vantage};
use crate::net::host_root::read_whole;
use crate::net::netlink::Netlink;
use crate::net::tcp;

/// What the cluster says of this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NodeInput {
    /// Nobody asks it.
    NotAsked,
    /// It does not tell, and why.
    Nothing(String),
    Facts(Arc<NodeFacts>),
}

/// What the cluster says of this place.
#[derive(Clone, Debug)]
pub struct ClusterInput {
    pub node: NodeInput,
    pub pod: PodInput,
}

impl ClusterInput {
    /// Nobody asks it.
    pub const NOT_ASKED: Self = Self {
        node: NodeInput::NotAsked,
        pod: PodInput::NotAsked,
    };
}

/// What the cluster says of our own pod's annotations. It is asked where no file has them.
#[derive(Clone, Debug)]
pub enum PodInput {
    NotAsked,
    /// It does not tell, and why.
    Nothing(String),
    Annotations(BTreeMap<String, String>),
}

impl NodeInput {
    pub fn facts(&self) -> Option<&NodeFacts> {
        match self {
            Self::Facts(facts) => Some(facts),
            Self::NotAsked | Self::Nothing(_) => None,
        }
    }
}

/// What nobody asked for may not be waited for longer.
const UNASKED_WAIT: Duration = Duration::from_secs(1);

/// Where a pod finds its annotations unless `network.pod_annotations` says otherwise.
const POD_ANNOTATIONS: &str = "/etc/podinfo/annotations";

/// An annotations file; etcd bounds an object's annotations to 256 KiB.
const MAX_ANNOTATIONS: u64 = 512 << 10;

/// Completes a vantage of which network view and resolver are known.
async fn look_around(
    mut vantage: Vantage,
    wish: &Network,
    told: &ClusterInput,
    netlink: Option<&Netlink>,
    means: &NetworkClients,
    environment: impl Fn(&str) -> Option<String>,
) -> Vantage {
    let start = Instant::now();
    let node = &told.node;
    vantage.declared = wish.declared();
    vantage.node = node.facts().cloned();
    vantage.node_external_ips = wish.node_external_ips();
    if let Some(node) = &vantage.node
        && vantage.node_external_ips.is_empty()
    {
        vantage.node_external_ips.clone_from(&node.external_ips);
    }
    vantage.service_host =
        environment("KUBERNETES_SERVICE_HOST").and_then(|host| host.parse().ok());
    vantage.provider = sign(wish, node.facts(), &vantage.nameservers);
    vantage.pod_eip = pod_eip(wish, vantage.network).or_else(|| match &told.pod {
        PodInput::Annotations(of_pod) => {
            let mut eip = pod::of_annotations(of_pod, "the API server");
            eip.container_age = container_age(vantage.network);
            Some(eip)
        }
        PodInput::NotAsked | PodInput::Nothing(_) => None,
    });
    let service_port = environment("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
    let near = baseline_of(wish, &vantage, service_port);
    let (metadata, baseline, controls, seen) = tokio::join!(
        metadata(wish, vantage.provider.as_ref()),
        measure(near, means.wait),
        controls(&wish.controls, means),
        egress::ask(&wish.egress, means),
    );
    // OpenStack's firmware, and the metadata of a cloud that is built with it.
    if let (Some(facts), Some(sign)) = (metadata.facts(), &mut vantage.provider)
        && sign.by != ProviderBy::Declared
    {
        sign.provider = facts.provider;
    }
    vantage.metadata = metadata;
    vantage.baseline = baseline;
    vantage.controls = controls;
    vantage.egress = seen;
    let mut kernel_fault = Some("the kernel's routes can't be read here".to_owned());
    if let Some(netlink) = netlink {
        vantage.links = netlink.links();
        kernel_fault = match netlink.routes().await {
            Ok(routes) => {
                vantage.routes = routes;
                None
            }
            Err(error) => Some(format!("the kernel's routes can't be read: {error}")),
        };
    }
    vantage.missing = missing(&vantage, wish, told, kernel_fault);
    vantage.took = Some(start.elapsed());
    vantage
}

/// Who runs the network, by the surest sign there is.
fn sign(
    wish: &Network,
    node: Option<&NodeFacts>,
    nameservers: &[SocketAddr],
) -> Option<ProviderSign> {
    let declared = wish.provider.map(|provider| ProviderSign {
        provider,
        by: ProviderBy::Declared,
    });
    let by_firmware = || {
        let fields: Vec<(&str, String)> = provider::DMI_FIELDS
            .iter()
            .filter_map(|field| {
                let path = Path::new("/sys/class/dmi/id").join(field);
                Some((*field, std::fs::read_to_string(path).ok()?))
            })
            .collect();
        provider::by_dmi(&fields)
    };
    let told = node.and_then(|node| node.provider_id.as_deref());
    let id = wish.node_provider_id.as_deref().or(told);
    let by_id = || provider::by_provider_id(id?);
    declared
        .or_else(by_firmware)
        .or_else(by_id)
        .or_else(|| provider::by_nameservers(nameservers))
}

async fn metadata(wish: &Network, sign: Option<&ProviderSign>) -> Metadata {
    let skip = |reason| Metadata::NotRequested { reason };
    let provider = match wish.metadata {
        MetadataMode::Off => return skip(MetadataSkip::Off),
        MetadataMode::Huawei => Provider::Huawei,
        MetadataMode::Otc => Provider::Otc,
        MetadataMode::Aws => Provider::Aws,
        MetadataMode::Alibaba => Provider::Alibaba,
        MetadataMode::Openstack => Provider::Openstack,
        // A name server's address is too weak a sign for asking; somebody's word is no sign at all.
        MetadataMode::Auto => match sign {
            Some(sign) if matches!(sign.by, ProviderBy::Dmi { .. } | ProviderBy::ProviderId) => {
                sign.provider
            }
            _ => return skip(MetadataSkip::ProviderUnknown),
        },
    };
    metadata::ask(provider)
        .await
        .unwrap_or_else(|| skip(MetadataSkip::ProviderUnread))
}

/// What the annotations of our own pod say of its EIP; `None` where there is no such file and none was
/// named.
pub fn pod_eip(wish: &Network, network: NetworkView) -> Option<PodEip> {
    let named = wish.pod_annotations.as_deref();
    let path = named.unwrap_or(Path::new(POD_ANNOTATIONS));
    let shown = printable(&path.to_string_lossy());
    match std::fs::File::open(path).and_then(|file| read_whole(file, MAX_ANNOTATIONS)) {
        Ok(text) => {
            let mut eip = pod::read(&String::from_utf8_lossy(&text), &shown);
            eip.container_age = container_age(network);
            Some(eip)
        }
        Err(_) if named.is_none() => None,
        Err(error) => Some(PodEip {
            source: shown,
            problem: Some(format!("it can't be read: {error}")),
            ..PodEip::default()
        }),
    }
}

/// Whether the API server would tell what no file does.
pub fn wants_pod_told(wish: &Network, network: NetworkView) -> bool {
    let is_pod = matches!(network, NetworkView::Pod | NetworkView::PodOrNode);
    is_pod && pod_eip(wish, network).is_none()
}

/// How long process 1 of a container runs.
fn container_age(network: NetworkView) -> Option<Duration> {
    if network == NetworkView::Machine {
        return None;
    }
    let file = |path| std::fs::read_to_string(path).unwrap_or_default();
    pod::age(&file("/proc/1/stat"), &file("/proc/uptime"), TICKS)
}

/// USER_HZ: 100 on every architecture that Linux runs containers on (proc(5)).
const TICKS: u64 = 100;

/// A near destination that every cluster has.
fn baseline_of(
    wish: &Network,
    vantage: &Vantage,
    service_port: Option<u16>,
) -> Option<(SocketAddr, BaselineKind)> {
    if let Some(declared) = wish.baseline() {
        return Some((declared, BaselineKind::Declared));
    }
    if let Some(host) = vantage.service_host {
        let to = SocketAddr::new(host, service_port.unwrap_or(443));
        return Some((to, BaselineKind::ApiServer));
    }
    // Not this machine's own cache, nor one out on the public network.
    let is_near = |address: IpAddr| match address {
        IpAddr::V4(a) => a.is_private() || (a.octets()[0] == 100 && a.octets()[1] & 0xc0 == 64),
        IpAddr::V6(a) => a.is_unique_local(),
    };
    vantage
        .nameservers
        .iter()
        .find(|server| is_near(server.ip()))
        .map(|server| (*server, BaselineKind::NameServer))
}

async fn measure(near: Option<(SocketAddr, BaselineKind)>, wait: Duration) -> Option<Baseline> {
    let (to, what) = near?;
    let limit = match what {
        BaselineKind::Declared => wait,
        _ => wait.min(UNASKED_WAIT),
    };
    let mut dialed = tcp::connect(&[to.ip()], to.port(), limit).await;
    let outcome = dialed.connect.attempts.pop()?.outcome;
    Some(Baseline { to, what, outcome })
}

async fn controls(hosts: &[HostPort], means: &NetworkClients) -> Vec<Control> {
    let hosts = hosts.iter().take(MAX_CONTROLS);
    join_all(hosts.map(|host| control(host, means))).await
}

/// Other hosts that are tried.
const MAX_CONTROLS: usize = 8;

async fn control(host: &HostPort, means: &NetworkClients) -> Control {
    let name = Host::new(&host.host);
    let mut control = Control {
        host: host.to_string(),
        unresolved: None,
        attempts: Vec::new(),
    };
    match means.resolve(&name).await {
        Ok(addresses) => {
            let dialed = tcp::connect(&addresses, host.port, means.wait).await;
            control.attempts = dialed.connect.attempts;
        }
        Err(reason) => control.unresolved = Some(reason),
    }
    control
}

/// Why it is not known what this place says of an EIP of its own, and what that would tell.
fn claim_missing(vantage: &Vantage, told: &ClusterInput) -> Option<(String, &'static str)> {
    let is_pod = matches!(vantage.network, NetworkView::Pod | NetworkView::PodOrNode);
    if is_pod && vantage.pod_eip.is_none() {
        let reason = match &told.pod {
            PodInput::Nothing(reason) => format!(
                "there is no {POD_ANNOTATIONS}, network.pod_annotations names no file, and the cluster does not tell of this pod: {reason}"
            ),
            PodInput::NotAsked | PodInput::Annotations(_) => {
                format!("there is no {POD_ANNOTATIONS}, and network.pod_annotations names no file")
            }
        };
        return Some((reason, "whether this pod has an EIP of its own"));
    }
    if !is_pod && vantage.node_external_ips.is_empty() {
        let reason = match &told.node {
            NodeInput::NotAsked => "network.node_external_ips is empty".to_owned(),
            NodeInput::Nothing(reason) => format!(
                "network.node_external_ips is empty, and the cluster does not tell of this Node: {reason}"
            ),
            NodeInput::Facts(_) => {
                "network.node_external_ips is empty, and the Node has no ExternalIP, which not every cloud writes there".to_owned()
            }
        };
        return Some((reason, "whether this node has an EIP of its own"));
    }
    None
}

/// What there is no evidence of, why, and what it would have told.
fn missing(
    vantage: &Vantage,
    wish: &Network,
    told: &ClusterInput,
    kernel_fault: Option<String>,
) -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut note = |signal, reason: String, would_tell: &str| {
        missing.push(Missing {
            signal,
            reason,
            would_show: would_tell.to_owned(),
        });
    };
    if let Some(fault) = kernel_fault {
        note(
            Signal::Route,
            fault,
            "whether a tunnel of this host carries a path, and whether there is a route at all",
        );
    }
    let would_tell = "the VPC's ranges and whether this machine has a public address";
    match &vantage.metadata {
        Metadata::NotRequested { reason } => {
            let reason = match reason {
                MetadataSkip::Off => "network.metadata is off".to_owned(),
                MetadataSkip::ProviderUnknown => {
                    "no firmware and no providerID names a cloud; set network.metadata to have one asked".to_owned()
                }
                MetadataSkip::ProviderUnread => "this cloud's service is not read".to_owned(),
            };
            note(Signal::Metadata, reason, would_tell);
        }
        Metadata::NoAnswer { fault, .. } => note(
            Signal::Metadata,
            format!("no answer: {fault} (pods are often kept from it)"),
            would_tell,
        ),
        Metadata::Answered { .. } => {}
    }
    if vantage.declared.cidrs.is_empty() {
        note(
            Signal::OperatorMap,
            "network.cidrs is empty".to_owned(),
            "how private addresses are reached: VPC, peering, Direct Connect and VPN look alike from here",
        );
    }
    let is_seen = vantage.egress.iter().any(|t| t.seen().is_some());
    if !is_seen {
        let reason = if wish.egress.echo.is_empty() {
            "no request is sent unless network.egress.echo names an HTTP echo"
        } else {
            "none of the hosts in network.egress.echo gave an answer"
        };
        note(
            Signal::Egress,
            reason.to_owned(),
            "the public address that our packets come from: it tells SNAT from an EIP",
        );
    }
    if let Some((reason, would_tell)) = claim_missing(vantage, told) {
        note(Signal::Claim, reason, would_tell);
    }
    let baseline = vantage.baseline.as_ref();
    if baseline.is_none_or(|b| b.outcome.done().is_none()) {
        let reason = match baseline {
            Some(baseline) => format!(
                "{} {} gave no connection; network.baseline names another",
                baseline.what.describe(),
                baseline.to
            ),
            None => "no near destination is known; network.baseline names one".to_owned(),
        };
        note(
            Signal::SegmentSize,
            reason,
            "whether segments are smaller on a path than they are nearby, as in a tunnel",
        );
    }
    if vantage.controls.is_empty() {
        note(
            Signal::Control,
            "network.controls is empty".to_owned(),
            "whether other public hosts answer when a registry does not: it tells a missing way out from a firewall",
        );
    }
    missing
}
