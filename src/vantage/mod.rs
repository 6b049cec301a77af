//! Observes the vantage point: the kernel's routes, the cloud's metadata service, the API server, and the egress
//! address. What can't be observed is recorded with its reason; it is never treated as absent.

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
use crate::files;
use crate::model::endpoint::Host;
use crate::model::network::{
    Baseline, BaselineKind, Control, Metadata, MetadataSkip, PodEip, Provider, ProviderBy,
    ProviderSign,
};
use crate::model::path::Signal;
use crate::model::text::printable;
use crate::model::vantage::{Missing, NetworkView, NodeFacts, Vantage};
use crate::net::netlink::Netlink;
use crate::net::tcp;

/// What the API server reports about this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NodeInput {
    /// No request is sent.
    NotRequested,
    /// The Node is unknown, with the reason.
    Nothing(String),
    /// The Node was read.
    Facts(Arc<NodeFacts>),
}

/// What the API server reports about this vantage point.
#[derive(Clone, Debug)]
pub struct ClusterInput {
    /// This node.
    pub node: NodeInput,
    /// Our own pod.
    pub pod: PodInput,
}

impl ClusterInput {
    /// No request is sent.
    pub const NOT_ASKED: Self = Self {
        node: NodeInput::NotRequested,
        pod: PodInput::NotRequested,
    };
}

/// The annotations of our own pod, as the API server has them. They are requested if no file has them.
#[derive(Clone, Debug)]
pub enum PodInput {
    /// No request is sent.
    NotRequested,
    /// They are unknown, with the reason.
    Nothing(String),
    /// They were read; empty if the pod has none.
    Annotations(BTreeMap<String, String>),
}

impl NodeInput {
    /// The Node, if it was read.
    pub fn facts(&self) -> Option<&NodeFacts> {
        match self {
            Self::Facts(facts) => Some(facts),
            Self::NotRequested | Self::Nothing(_) => None,
        }
    }
}

/// Timeout of a measurement that the configuration does not request.
const IMPLICIT_WAIT: Duration = Duration::from_secs(1);

/// The file with the pod's annotations if `network.pod_annotations` is not set.
const POD_ANNOTATIONS: &str = "/etc/podinfo/annotations";

/// Upper bound of an annotations file, in bytes. Kubernetes limits an object's annotations to 256 KiB.
const MAX_ANNOTATIONS: u64 = 512 << 10;

/// Completes a vantage whose network view and resolver are known.
async fn observe(
    mut vantage: Vantage,
    config: &Network,
    cluster: &ClusterInput,
    netlink: Option<&Netlink>,
    means: &NetworkClients,
    environment: impl Fn(&str) -> Option<String>,
) -> Vantage {
    let start = Instant::now();
    let node = &cluster.node;
    vantage.declared = config.declared();
    vantage.node = node.facts().cloned();
    vantage.node_external_ips = config.node_external_ips();
    if let Some(node) = &vantage.node
        && vantage.node_external_ips.is_empty()
    {
        vantage.node_external_ips.clone_from(&node.external_ips);
    }
    vantage.service_host =
        environment("KUBERNETES_SERVICE_HOST").and_then(|host| host.parse().ok());
    vantage.provider = sign(config, node.facts(), &vantage.nameservers);
    vantage.pod_eip = pod_eip(config, vantage.network).or_else(|| match &cluster.pod {
        PodInput::Annotations(of_pod) => {
            let mut eip = pod::of_annotations(of_pod, "the API server");
            eip.container_age = container_age(vantage.network);
            Some(eip)
        }
        PodInput::NotRequested | PodInput::Nothing(_) => None,
    });
    let service_port = environment("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
    let near = baseline_of(config, &vantage, service_port);
    let (metadata, baseline, controls, egress) = tokio::join!(
        metadata(config, vantage.provider.as_ref()),
        measure(near, means.wait),
        controls(&config.controls, means),
        egress::ask(&config.egress, means),
    );
    // Firmware may name OpenStack while the metadata service names the cloud that is built with it.
    if let (Some(facts), Some(sign)) = (metadata.facts(), &mut vantage.provider)
        && sign.by != ProviderBy::Declared
    {
        sign.provider = facts.provider;
    }
    vantage.metadata = metadata;
    vantage.baseline = baseline;
    vantage.controls = controls;
    vantage.egress = egress;
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
    vantage.missing = missing(&vantage, config, cluster, kernel_fault);
    vantage.took = Some(start.elapsed());
    vantage
}

/// The cloud that runs the network, from the most reliable sign there is.
fn sign(
    config: &Network,
    node: Option<&NodeFacts>,
    nameservers: &[SocketAddr],
) -> Option<ProviderSign> {
    let declared = config.provider.map(|provider| ProviderSign {
        provider,
        by: ProviderBy::Declared,
    });
    let by_firmware = || {
        let fields: Vec<(&str, String)> = provider::DMI_FIELDS
            .iter()
            .filter_map(|field| {
                let path = Path::new("/sys/class/dmi/id").join(field);
                Some((*field, files::kernel(&path).ok()?))
            })
            .collect();
        provider::by_dmi(&fields)
    };
    let of_node = node.and_then(|node| node.provider_id.as_deref());
    let id = config.node_provider_id.as_deref().or(of_node);
    let by_id = || provider::by_provider_id(id?);
    declared
        .or_else(by_firmware)
        .or_else(by_id)
        .or_else(|| provider::by_nameservers(nameservers))
}

async fn metadata(config: &Network, sign: Option<&ProviderSign>) -> Metadata {
    let skip = |reason| Metadata::NotRequested { reason };
    let provider = match config.metadata {
        MetadataMode::Off => return skip(MetadataSkip::Off),
        MetadataMode::Huawei => Provider::Huawei,
        MetadataMode::Otc => Provider::Otc,
        MetadataMode::Aws => Provider::Aws,
        MetadataMode::Alibaba => Provider::Alibaba,
        MetadataMode::Openstack => Provider::Openstack,
        // A name server's address is too weak a sign to send requests; a declared provider is no sign at all.
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

/// Reads our own pod's EIP from the annotations file. `None`: the default file does not exist and none is configured.
/// A configured file that can't be read is the result's `problem`.
pub fn pod_eip(config: &Network, network: NetworkView) -> Option<PodEip> {
    let named = config.pod_annotations.as_deref();
    let path = named.unwrap_or(Path::new(POD_ANNOTATIONS));
    let shown = printable(&path.to_string_lossy());
    match files::text(path, MAX_ANNOTATIONS) {
        Ok(text) => {
            let mut eip = pod::read(&text, &shown);
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

/// Whether to request the pod's annotations from the API server: this is or may be a pod, and no file has them.
pub fn wants_pod_input(config: &Network, network: NetworkView) -> bool {
    let is_pod = matches!(network, NetworkView::Pod | NetworkView::PodOrNode);
    is_pod && pod_eip(config, network).is_none()
}

/// How long process 1 of the container has been running; `None` on a machine.
fn container_age(network: NetworkView) -> Option<Duration> {
    if network == NetworkView::Machine {
        return None;
    }
    let file = |path| files::kernel(Path::new(path)).unwrap_or_default();
    pod::age(&file("/proc/1/stat"), &file("/proc/uptime"), TICKS)
}

/// USER_HZ: 100 on every architecture that Linux runs containers on (proc(5)).
const TICKS: u64 = 100;

/// A nearby destination, as the baseline: the configured one, the API server's Service, or a near name server.
fn baseline_of(
    config: &Network,
    vantage: &Vantage,
    service_port: Option<u16>,
) -> Option<(SocketAddr, BaselineKind)> {
    if let Some(declared) = config.baseline() {
        return Some((declared, BaselineKind::Declared));
    }
    if let Some(host) = vantage.service_host {
        let to = SocketAddr::new(host, service_port.unwrap_or(443));
        return Some((to, BaselineKind::ApiServer));
    }
    // Neither a cache on this machine nor a public server.
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
        _ => wait.min(IMPLICIT_WAIT),
    };
    let mut dialed = tcp::connect(&[to.ip()], to.port(), limit).await;
    let outcome = dialed.connect.attempts.pop()?.outcome;
    Some(Baseline { to, what, outcome })
}

async fn controls(hosts: &[HostPort], means: &NetworkClients) -> Vec<Control> {
    let hosts = hosts.iter().take(MAX_CONTROLS);
    join_all(hosts.map(|host| control(host, means))).await
}

/// Upper bound of the control hosts.
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

/// Why it is unknown whether this pod or node has its own EIP, and what that would show. `None`: it is known.
fn claim_missing(vantage: &Vantage, cluster: &ClusterInput) -> Option<(String, &'static str)> {
    let is_pod = matches!(vantage.network, NetworkView::Pod | NetworkView::PodOrNode);
    if is_pod && vantage.pod_eip.is_none() {
        let reason = match &cluster.pod {
            PodInput::Nothing(reason) => format!(
                "{POD_ANNOTATIONS} does not exist, network.pod_annotations is not set, and the API server does not return this pod: {reason}"
            ),
            PodInput::NotRequested | PodInput::Annotations(_) => {
                format!("{POD_ANNOTATIONS} does not exist, and network.pod_annotations is not set")
            }
        };
        return Some((reason, "whether this pod has an EIP of its own"));
    }
    if !is_pod && vantage.node_external_ips.is_empty() {
        let reason = match &cluster.node {
            NodeInput::NotRequested => "network.node_external_ips is empty".to_owned(),
            NodeInput::Nothing(reason) => format!(
                "network.node_external_ips is empty, and the API server does not return this Node: {reason}"
            ),
            NodeInput::Facts(_) => {
                "network.node_external_ips is empty, and the Node has no ExternalIP (not every cloud sets one)".to_owned()
            }
        };
        return Some((reason, "whether this node has an EIP of its own"));
    }
    None
}

/// The signals without evidence, each with the reason and what it would have shown.
fn missing(
    vantage: &Vantage,
    config: &Network,
    cluster: &ClusterInput,
    kernel_fault: Option<String>,
) -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut note = |signal, reason: String, would_show: &str| {
        missing.push(Missing {
            signal,
            reason,
            would_show: would_show.to_owned(),
        });
    };
    if let Some(fault) = kernel_fault {
        note(
            Signal::Route,
            fault,
            "whether a path goes through a tunnel of this host, and whether there is a route at all",
        );
    }
    let would_show = "the VPC's ranges and whether this machine has a public address";
    match &vantage.metadata {
        Metadata::NotRequested { reason } => {
            let reason = match reason {
                MetadataSkip::Off => "network.metadata is off".to_owned(),
                MetadataSkip::ProviderUnknown => {
                    "neither the firmware nor the providerID names a cloud; set network.metadata to query one".to_owned()
                }
                MetadataSkip::ProviderUnread => "the metadata service of this cloud is not supported".to_owned(),
            };
            note(Signal::Metadata, reason, would_show);
        }
        Metadata::NoAnswer { fault, .. } => note(
            Signal::Metadata,
            format!("no answer: {fault} (pods often have no access)"),
            would_show,
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
        let reason = if config.egress.echo.is_empty() {
            "no request is sent unless network.egress.echo names an HTTP echo"
        } else {
            "none of the hosts in network.egress.echo answered"
        };
        note(
            Signal::Egress,
            reason.to_owned(),
            "the public source address of our packets, which distinguishes SNAT from an EIP",
        );
    }
    if let Some((reason, would_show)) = claim_missing(vantage, cluster) {
        note(Signal::Claim, reason, would_show);
    }
    let baseline = vantage.baseline.as_ref();
    if baseline.is_none_or(|b| b.outcome.done().is_none()) {
        let reason = match baseline {
            Some(baseline) => format!(
                "no connection to {} {}; set network.baseline to another destination",
                baseline.what.describe(),
                baseline.to
            ),
            None => "no nearby destination is known; set network.baseline to one".to_owned(),
        };
        note(
            Signal::SegmentSize,
            reason,
            "whether segments on a path are smaller than nearby, as in a tunnel",
        );
    }
    if vantage.controls.is_empty() {
        note(
            Signal::Control,
            "network.controls is empty".to_owned(),
            "whether other public hosts answer when a registry does not, which distinguishes missing internet egress from a firewall",
        );
    }
    missing
}
