//! The vantage point: where a check runs, and what can't be observed there.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kubelet::KubeletVersion;
use super::network::{
    Baseline, Control, Declared, EgressTrial, Link, Metadata, PodEip, ProviderSign, Route,
};
use super::path::Signal;
use super::resolver::ResolverSettings;
use super::settings_source::SettingsSource;
use super::text::or;
use super::units::OptionalSeconds;

/// The vantage point of a check. A pull is made by the node's containerd, with the node's network, resolver,
/// proxy, roots and mirrors; a check elsewhere may get other results.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Vantage {
    /// Whose network the check used.
    pub network: NetworkView,
    /// Where the settings of the check are from; texts name settings as they are written there.
    #[serde(default, skip_serializing_if = "SettingsSource::is_default")]
    pub settings: SettingsSource,
    /// The resolver's name servers, in order.
    pub nameservers: Vec<SocketAddr>,
    /// Where they are from: a file's path, or `--nameserver`.
    pub resolver_source: String,
    /// The hosts file is the one that the kubelet wrote at the start of this pod. With hostNetwork it is a copy of
    /// the node's, which may have changed since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hosts_copied: bool,
    /// Whose resolver is reproduced, in its order of names and servers: `go`.
    pub resolver_emulated: String,
    /// The settings of name resolution; absent in reports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<Box<ResolverSettings>>,
    /// What a pull may depend on and this check could not observe.
    #[serde(alias = "unseen")]
    pub not_observed: Vec<NotObserved>,
    /// Why something was not observed although it was configured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(alias = "unseen_because")]
    pub not_observed_because: Vec<NotObservedReason>,
    /// What the operator declares of the network.
    #[serde(default)]
    pub declared: Declared,
    /// The cloud provider; absent if none was detected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderSign>,
    /// The network devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// The kernel's routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// The API server's address in pods (`KUBERNETES_SERVICE_HOST`); absent outside of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_host: Option<IpAddr>,
    /// The result of the request to the cloud's metadata service.
    #[serde(default)]
    pub metadata: Metadata,
    /// The pod's EIP according to its annotations; absent if no annotations were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_eip: Option<PodEip>,
    /// Addresses of type ExternalIP in the node's `status.addresses`, from the configuration or the Node
    /// itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_external_ips: Vec<IpAddr>,
    /// This node's Node object; absent if it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeFacts>,
    /// The source addresses that other hosts see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressTrial>,
    /// A near destination for comparison; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// Other public hosts for comparison.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<Control>,
    /// Evidence about path classes that is missing, and why. That it is missing is not evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// How long it took to collect all this.
    #[serde(
        rename = "took_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub took: Option<Duration>,
    /// How long the finished checks had to wait for that.
    #[serde(
        rename = "waited_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub waited: Option<Duration>,
}

impl Vantage {
    /// The same with settings from `source`; its texts name settings as they are written there.
    #[must_use]
    pub fn with_settings(mut self, source: SettingsSource) -> Self {
        self.settings = source;
        source.name_in(&mut self.resolver_source);
        for because in &mut self.not_observed_because {
            source.name_in(&mut because.reason);
        }
        self
    }

    /// What was not observed, as one line for people.
    pub fn describe(&self, what: NotObserved) -> Cow<'static, str> {
        self.settings.named(what.describe())
    }

    /// The source of the name servers, for a sentence.
    pub fn resolver_name(&self) -> &str {
        or(&self.resolver_source, "the resolver's configuration")
    }

    /// Whether it is in Huawei Cloud or a cloud that runs its software.
    pub fn is_huawei(&self) -> bool {
        let sign = self.provider.as_ref();
        sign.is_some_and(|sign| sign.provider.is_huawei())
    }

    /// Whether this machine can send IPv6 packets alone: it has such an address, and no IPv4 one that leads to
    /// other hosts. `false` if its devices were not read.
    pub fn is_v6_only(&self) -> bool {
        let is_uplink = |link: &Link| {
            let mut defaults = self
                .routes
                .iter()
                .filter(|r| r.destination.prefix_len() == 0);
            defaults.any(|route| route.device.as_deref() == Some(&*link.name))
        };
        // docker0, kube-ipvs0: these lead to no other host.
        let is_internal = |link: &Link| {
            matches!(link.kind.as_deref(), Some("bridge" | "dummy")) && !is_uplink(link)
        };
        let links = self
            .links
            .iter()
            .filter(|link| link.is_up && !is_internal(link));
        let of_link = links.flat_map(|link| link.addresses.iter().map(IpNet::addr));
        let (v4, v6): (Vec<_>, Vec<_>) = of_link
            .filter(|address| match address {
                IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
                IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
            })
            .partition(IpAddr::is_ipv4);
        v4.is_empty() && !v6.is_empty()
    }

    /// Why this was not observed, in words.
    pub fn reasons(&self, what: NotObserved) -> impl Iterator<Item = &str> {
        let because = self.not_observed_because.iter();
        because
            .filter(move |because| because.what == what)
            .map(|because| &*because.reason)
    }
}

/// A node, according to its Node object.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NodeFacts {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.creationTimestamp`; absent if it can't be read.
    pub created: Option<Timestamp>,
    /// Condition `Ready`; absent if its status is unknown, because the kubelet does not report.
    pub ready: Option<bool>,
    /// `spec.unschedulable`: no new pods are placed there (`kubectl cordon`).
    pub unschedulable: bool,
    /// `spec.providerID`; absent if it is not set.
    pub provider_id: Option<String>,
    /// Label `topology.kubernetes.io/zone`; absent if it is not set.
    pub zone: Option<String>,
    /// Addresses of type InternalIP.
    pub internal_ips: Vec<IpAddr>,
    /// Addresses of type ExternalIP.
    pub external_ips: Vec<IpAddr>,
    /// Container runtime and version (`containerd 1.6.20`); absent if unknown.
    pub runtime: Option<String>,
    /// The kubelet's version; absent if unknown.
    pub kubelet: Option<String>,
    /// `status.nodeInfo.osImage`; absent if unknown.
    pub os_image: Option<String>,
    /// Where these facts were read.
    pub source: String,
}

impl NodeFacts {
    /// The kubelet's version; `None` if the Node has none that can be read.
    pub fn kubelet_version(&self) -> Option<KubeletVersion> {
        self.kubelet.as_deref()?.parse().ok()
    }

    /// A new node pulls all its images at once, and its routes, NAT rules and add-ons may still be on their
    /// way: what is slow or fails during this time may not last.
    const NEW_FOR: Duration = Duration::from_mins(15);

    /// The node's age; `None` if its creation is unknown or in the future.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        Duration::try_from(now.duration_since(self.created?)).ok()
    }

    /// Whether the node is new: less than 15 minutes old.
    pub fn is_new(&self, now: Timestamp) -> bool {
        self.age(now).is_some_and(|age| age < Self::NEW_FOR)
    }

    /// Whether everything that a path depends on is the same as for the other node.
    pub fn has_same_paths(&self, other: &Self) -> bool {
        self.external_ips == other.external_ips && self.provider_id == other.provider_id
    }
}

/// Evidence that is missing.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Missing {
    /// The source that it would be from.
    pub signal: Signal,
    /// Why it is missing.
    pub reason: String,
    /// What it would have shown.
    #[serde(alias = "would_tell")]
    pub would_show: String,
}

/// Whose network stack a check uses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkView {
    /// Not in a pod: this machine's own network, which may be a node, a bastion or a laptop.
    Machine,
    /// In a pod with hostNetwork.
    Node,
    /// In a pod with its own network.
    Pod,
    /// In a pod; whether it has hostNetwork is unknown (the downward API gives no addresses).
    #[default]
    PodOrNode,
}

impl NetworkView {
    /// What the environment shows. Kubernetes sets KUBERNETES_SERVICE_HOST in every pod; our manifests set HOST_IP and
    /// POD_IP from the downward API.
    pub fn of(environment: impl Fn(&str) -> Option<String>) -> Self {
        match (
            environment("KUBERNETES_SERVICE_HOST"),
            environment("HOST_IP"),
            environment("POD_IP"),
        ) {
            (None, _, _) => Self::Machine,
            (Some(_), Some(host), Some(pod)) if host == pod => Self::Node,
            (Some(_), Some(_), Some(_)) => Self::Pod,
            (Some(_), _, _) => Self::PodOrNode,
        }
    }
}

/// Something that a pull may depend on and this check could not observe.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotObserved {
    /// The kubelet's credential provider plugins and the node's own docker config.
    NodeCredentials,
    /// Mirrors and per-host settings in containerd's `certs.d/*/hosts.toml`.
    Mirrors,
    /// containerd's HTTP(S)_PROXY and NO_PROXY.
    Proxy,
    /// The node's trusted roots: those of the vantage point were used.
    NodeRoots,
    /// The node's resolver: that of the vantage point was used.
    NodeResolver,
    /// Which images the node already has, and whether the policy requires a pull at all.
    ImageStore,
}

/// Why something was not observed although it was configured: usually a file of the node that could not be
/// read.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NotObservedReason {
    /// What was not observed.
    pub what: NotObserved,
    /// Why, in words.
    pub reason: String,
}

impl NotObserved {
    /// One line for people, with the flags of the command line.
    fn describe(self) -> &'static str {
        match self {
            Self::NodeCredentials => {
                "the node's own credentials (kubelet credential providers, its docker config)"
            }
            Self::Mirrors => {
                "containerd's mirrors and per-host settings (certs.d/*/hosts.toml; --hosts-dir names the folder)"
            }
            Self::Proxy => {
                "containerd's proxy settings (those of this process were used, if any; --proxy-from reads a file)"
            }
            Self::NodeRoots => "the node's trusted roots (those of this vantage point were used)",
            Self::NodeResolver => "the node's resolver (that of this vantage point was used)",
            Self::ImageStore => "the images that the node already has",
        }
    }
}
