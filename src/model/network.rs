//! The network of a vantage point: what its operator declares, and what the kernel, the cloud and other hosts
//! report of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connect::{Connection, Dial};
use super::fault::TcpFault;
use super::path::PathClass;
use super::resolve::Family;
use super::step::Step;
use super::units::{OptionalSeconds, Seconds};

// ---- declared by the operator -------------------------------------------------------------------

/// What the operator declares of the network (`network` of the configuration), as far as path classes depend on
/// it.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Declared {
    /// Ranges of addresses and how they are reached; the longest matching prefix counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<MappedCidr>,
    /// The ranges of the cluster's Services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub service_cidrs: Vec<IpNet>,
    /// Source addresses of the NAT gateway's rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snat_addresses: Vec<IpAddr>,
    /// The prefixes of this network's NAT64 gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub nat64_prefixes: Vec<IpNet>,
    /// The bandwidth that was bought for the EIP in use (the node's or the NAT gateway's), in Mbit/s; absent if
    /// not declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eip_bandwidth_mbit: Option<u64>,
    /// The network model of a CCE cluster; absent if not declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_network: Option<ClusterNetwork>,
    /// The path classes that are expected for hosts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<ExpectedPath>,
}

/// A range of addresses, and how it is reached.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct MappedCidr {
    /// The range.
    #[schemars(with = "String")]
    pub cidr: IpNet,
    /// How it is reached.
    pub class: MappedClass,
    /// A name for people; absent if none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The classes that a range can be declared with.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MappedClass {
    /// In this VPC.
    Intranet,
    /// A service of the provider, reached without leaving the provider's network.
    CloudService,
    /// A VPC endpoint.
    VpcEndpoint,
    /// Another VPC, reached over VPC peering.
    VpcPeering,
    /// Other premises, reached over Direct Connect or a VPN.
    DirectConnectVpn,
    /// In the public network, even if the address looks private.
    Public,
}

impl MappedClass {
    /// The value in configuration and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intranet => "intranet",
            Self::CloudService => "cloud_service",
            Self::VpcEndpoint => "vpc_endpoint",
            Self::VpcPeering => "vpc_peering",
            Self::DirectConnectVpn => "direct_connect_vpn",
            Self::Public => "public",
        }
    }
}

/// A host, and the path classes that its operator expects for it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ExpectedPath {
    /// A host name, or `*.` followed by a domain.
    pub host: String,
    /// The expected classes; any of them is right.
    pub classes: Vec<PathClass>,
}

/// How a CCE (Cloud Container Engine) cluster assigns addresses to its pods.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterNetwork {
    /// VPC network: a container CIDR routed in the VPC.
    Vpc,
    /// Tunnel network: a container CIDR over VXLAN.
    Tunnel,
    /// Cloud Native Network 2.0 (CCE Turbo): pods have addresses of the VPC.
    CloudNative2,
    /// CCE Autopilot: as CCE Turbo, and images are pulled through the pod's own network.
    Autopilot,
}

/// The cloud provider.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Huawei Cloud.
    Huawei,
    /// Open Telekom Cloud.
    Otc,
    /// Amazon Web Services.
    Aws,
    /// Alibaba Cloud.
    Alibaba,
    /// A private or public cloud with OpenStack.
    Openstack,
    /// Microsoft Azure.
    Azure,
    /// Google Cloud.
    Gcp,
}

impl Provider {
    /// The provider's name, for reports.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Huawei => "Huawei Cloud",
            Self::Otc => "Open Telekom Cloud",
            Self::Aws => "AWS",
            Self::Alibaba => "Alibaba Cloud",
            Self::Openstack => "OpenStack",
            Self::Azure => "Azure",
            Self::Gcp => "Google Cloud",
        }
    }

    /// Whether it is Huawei Cloud or a cloud that runs its software.
    pub fn is_huawei(self) -> bool {
        matches!(self, Self::Huawei | Self::Otc)
    }
}

/// The provider, and what shows it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ProviderSign {
    /// The provider.
    pub provider: Provider,
    /// How it was detected.
    pub by: ProviderBy,
}

/// How the provider was detected.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProviderBy {
    /// `network.provider` of the configuration.
    Declared,
    /// The machine's firmware (/sys/class/dmi/id).
    Dmi {
        /// The file below that folder, for example `sys_vendor`.
        field: String,
        /// Its content.
        value: String,
    },
    /// `spec.providerID` of the node.
    ProviderId,
    /// The name servers are in a range of the provider's services: a hint only.
    NameServers,
}

impl std::fmt::Display for ProviderSign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.provider.describe())?;
        match &self.by {
            ProviderBy::Declared => f.write_str(", as declared"),
            ProviderBy::Dmi { field, value } => {
                write!(f, ", according to the firmware ({field} is '{value}')")
            }
            ProviderBy::ProviderId => f.write_str(", according to the node's providerID"),
            ProviderBy::NameServers => f.write_str(", as its name servers suggest"),
        }
    }
}

// ---- reported by the kernel ---------------------------------------------------------------------

/// A network device (rtnetlink(7), RTM_GETLINK and RTM_GETADDR).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Link {
    /// Name of the device: `eth0`.
    pub name: String,
    /// `IFLA_INFO_KIND`: `veth`, `tun`, `wireguard`, `vxlan`, …; absent for a plain device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `IFLA_MTU`, in bytes.
    pub mtu: Option<u32>,
    /// Whether the device is up (`IFF_UP`).
    pub is_up: bool,
    /// `IFLA_MASTER`: the bridge, bond or VRF that the device is a part of; absent if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Its addresses, each with the prefix that is on this link.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
}

/// A route of the kernel's tables, except those of local and broadcast addresses.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Route {
    /// The destination prefix; `0.0.0.0/0` or `::/0` for a default route.
    #[schemars(with = "String")]
    pub destination: IpNet,
    /// The next hop; absent if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The outgoing device; absent if the route has none.
    pub device: Option<String>,
    /// Number of the routing table; `main` is 254.
    pub table: u32,
}

/// The kernel's route for a packet to an address (RTM_GETROUTE).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RouteLookup {
    /// The address.
    pub to: IpAddr,
    /// The result of the lookup.
    #[serde(flatten)]
    pub outcome: RouteOutcome,
}

/// kube-proxy in IPVS mode puts the addresses of Services on this device.
pub const IPVS_DEVICE: &str = "kube-ipvs0";

/// The result of a route lookup.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RouteOutcome {
    /// The packet leaves through a device.
    Unicast {
        /// The outgoing device.
        device: String,
        /// Kind of the device (`tun`, `wireguard`, …); absent for a plain device.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device_kind: Option<String>,
        /// The next hop; absent if the address is on the link.
        gateway: Option<IpAddr>,
        /// The source address that the kernel chooses; absent if it does not report one.
        source: Option<IpAddr>,
        /// Number of the routing table.
        table: u32,
        /// The destination prefix of the route that matched; absent if the kernel does not report it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        matched: Option<IpNet>,
        /// MTU of the route, or else of the device, in bytes.
        mtu: Option<u32>,
    },
    /// The address is one of this machine.
    Local {
        /// The device that has the address.
        device: String,
    },
    /// A route rejects the packet, or there is no route.
    Denied {
        /// `unreachable`, `prohibit`, `blackhole`, `throw`, or `no_route`.
        by: String,
        /// The prefix of the route of that type. Absent if there is none: a rule (`ip rule`) rejects the packet; and
        /// in reports of older versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        matched: Option<IpNet>,
        /// Number of that route's table; absent as `matched` is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<u32>,
        /// The routing daemon or network plugin that set that route and sets it again, as `ip route` shows
        /// it after `proto`: `bird`, `zebra`, `80` (Calico), ….
        #[serde(default, skip_serializing_if = "Option::is_none")]
        set_by: Option<String>,
    },
    /// The kernel was not queried, or its answer can't be read.
    Unknown {
        /// Why, in words.
        error: String,
    },
}

/// What the kernel's reverse path filter dropped while nothing answered (rp_filter, RFC 3704; IPv4 only).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ReversePathDrops {
    /// How much the counter `TcpExt IPReversePathFilter` grew while connections were tried.
    pub dropped: u64,
    /// The counter before.
    pub before: u64,
    /// How long this machine has been running: with `before`, the usual rate.
    #[serde(rename = "uptime_seconds", with = "Seconds")]
    pub uptime: Duration,
    /// How long connections were tried.
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
    /// The devices with a strict filter (`rp_filter` is 1), which accept a packet only if the route back to its
    /// sender leaves through them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strict: Vec<String>,
}

// ---- reported by the cloud ----------------------------------------------------------------------

/// The result of the request to the cloud's metadata service.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Metadata {
    /// No request was sent.
    #[serde(alias = "not_asked")]
    NotRequested {
        /// Why.
        reason: MetadataSkip,
    },
    /// There was no usable answer. That proves nothing: pods are often blocked from the service.
    NoAnswer {
        /// The provider whose service was queried.
        provider: Provider,
        /// What failed, in words.
        fault: String,
        /// How long the request took.
        #[serde(rename = "took_seconds", with = "Seconds")]
        took: Duration,
    },
    /// The service answered.
    Answered {
        /// What it reported.
        facts: MetadataFacts,
        /// How long the requests took.
        #[serde(rename = "took_seconds", with = "Seconds")]
        took: Duration,
    },
}

impl Default for Metadata {
    fn default() -> Self {
        Self::NotRequested {
            reason: MetadataSkip::Off,
        }
    }
}

impl Metadata {
    /// What the service reported; `None` if it was not queried or did not answer.
    pub fn facts(&self) -> Option<&MetadataFacts> {
        match self {
            Self::Answered { facts, .. } => Some(facts),
            _ => None,
        }
    }
}

/// Why no request was sent to the metadata service.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataSkip {
    /// `network.metadata: off`.
    Off,
    /// `network.metadata` is `auto`, and neither firmware nor providerID shows a cloud.
    ProviderUnknown,
    /// This version does not read the metadata service of this provider.
    ProviderUnread,
}

/// What a metadata service reported. It is about the machine, not about a pod on it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct MetadataFacts {
    /// The provider whose service it is.
    pub provider: Provider,
    /// ID of the VPC; absent if it was not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
    /// Address ranges of the VPC; empty if they were not reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub vpc_cidrs: Vec<IpNet>,
    /// Address ranges of the machine's subnets; empty if they were not reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub subnet_cidrs: Vec<IpNet>,
    /// Private addresses of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private: Vec<IpAddr>,
    /// Public addresses of the machine. Absent: not reported. Empty: reported that there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<Vec<IpAddr>>,
    /// Maximum bandwidth of the machine's flavor, in Mbit/s; absent if not reported or unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bandwidth_mbit: Option<u64>,
}

/// The pod's EIP according to its annotations (`yangtse.io/…`, `k8s.aliyun.com/…`).
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PodEip {
    /// The file or API object it was read from.
    pub source: String,
    /// Whether the pod requests an EIP; absent if the file does not show that (it has one annotation only).
    pub wanted: Option<bool>,
    /// The EIP that was assigned; absent if there is none yet.
    pub allocated: Option<IpAddr>,
    /// The bandwidth that was bought for it, in Mbit/s; absent if the annotations do not state it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_mbit: Option<u64>,
    /// What is wrong with the annotation or its file; absent if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How long this container's first process has been running: the annotation is set some time after the
    /// start. Absent if unknown.
    #[serde(rename = "container_age_seconds", with = "OptionalSeconds", default)]
    pub container_age: Option<Duration>,
}

// ---- observed by other hosts --------------------------------------------------------------------

/// One request to another host for the source address that it sees.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct EgressTrial {
    /// How the address was requested.
    pub method: EgressMethod,
    /// Host and port of that host.
    pub server: String,
    /// What it saw, or why there is no answer.
    #[serde(flatten)]
    pub outcome: Step<ObservedEgress, String>,
}

/// How another host reports the source address that it sees.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressMethod {
    /// An HTTP(S) server that answers with the address it sees (`network.egress.echo`).
    HttpEcho,
    /// `docker-ratelimit-source` of Docker Hub.
    DockerHub,
    /// A method of another version, in a report of that version.
    #[serde(untagged)]
    Other(String),
}

impl EgressMethod {
    /// The method in words, for reports.
    pub fn as_str(&self) -> &str {
        match self {
            Self::HttpEcho => "HTTP echo",
            Self::DockerHub => "Docker Hub's rate limit",
            Self::Other(name) => name,
        }
    }

    /// A pull uses TCP, and other protocols may leave with another address. `stun_tcp` is in older reports.
    fn is_tcp(&self) -> bool {
        !matches!(self, Self::Other(name) if name != "stun_tcp")
    }
}

impl EgressTrial {
    /// What the other host saw, if it is valid for connections of a pull.
    pub fn seen(&self) -> Option<&ObservedEgress> {
        self.outcome.done().filter(|_| self.method.is_tcp())
    }
}

/// The source of a connection as another host saw it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ObservedEgress {
    /// The source address.
    pub address: IpAddr,
    /// The source port; absent if the host reports an address only.
    pub port: Option<u16>,
    /// The local address and port of that connection; absent if unknown.
    pub local: Option<SocketAddr>,
}

impl ObservedEgress {
    /// Whether the source port was changed on the path, which port translation does. An unchanged port proves
    /// nothing.
    pub fn port_was_changed(&self) -> bool {
        match (self.port, self.local) {
            (Some(port), Some(local)) => port != local.port(),
            _ => false,
        }
    }

    /// Address family of the source address.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

/// A near destination, whose round trip and segment sizes are compared with those of other destinations.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Baseline {
    /// Its address and port.
    pub to: SocketAddr,
    /// What kind of destination it is.
    pub what: BaselineKind,
    /// The result of connecting.
    #[serde(flatten)]
    pub outcome: Step<Connection, TcpFault>,
}

/// What a baseline is, in the order of preference.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaselineKind {
    /// `network.baseline` of the configuration.
    Declared,
    /// The cluster's API server, at the address of its Service.
    ApiServer,
    /// A private name server, over TCP.
    NameServer,
}

impl BaselineKind {
    /// The kind in words, for reports.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Declared => "the declared baseline",
            Self::ApiServer => "the API server",
            Self::NameServer => "the name server",
        }
    }
}

/// Another host, tried to distinguish a failure of one registry from a general one (`network.controls`).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Control {
    /// Host and port, as declared.
    pub host: String,
    /// Why the name could not be resolved; absent if it was. This is no evidence about the path to the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<String>,
    /// The addresses tried, with their results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Dial>,
}
