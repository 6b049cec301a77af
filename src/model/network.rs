//! What the place of a probe looks like to the kernel, the cloud and the world, and what its
//! operator declares of it.

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

/// What the operator says of the network (`network` of `--config`), as far as a class depends on it.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Declared {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<MappedCidr>,
    /// Of the cluster's Services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub service_cidrs: Vec<IpNet>,
    /// Source addresses of the NAT gateway's rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snat_addresses: Vec<IpAddr>,
    /// What was bought for the EIP in use, in Mbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eip_bandwidth_mbit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_network: Option<ClusterNetwork>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<ExpectedPath>,
}

/// A range of addresses, and how it is reached.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct MappedCidr {
    #[schemars(with = "String")]
    pub cidr: IpNet,
    pub class: MappedClass,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What a range can be declared as.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MappedClass {
    /// Of this VPC.
    Intranet,
    /// Of the provider's services, reached without leaving the provider's network.
    CloudService,
    /// A VPC endpoint.
    VpcEndpoint,
    VpcPeering,
    DirectConnectVpn,
    /// Of the public network, whatever the address looks like.
    Public,
}

impl MappedClass {
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

/// A host, and the ways by which its operator wants it reached.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ExpectedPath {
    /// A host name, or `*.` and a domain.
    pub host: String,
    pub classes: Vec<PathClass>,
}

/// How a CCE cluster gives its pods addresses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterNetwork {
    /// VPC network: a container CIDR routed in the VPC.
    Vpc,
    /// Tunnel network: a container CIDR over VXLAN.
    Tunnel,
    /// Cloud Native Network 2.0 (CCE Turbo): pods have addresses of the VPC.
    CloudNative2,
    /// CCE Autopilot: as Turbo, and the pod's own network pulls its images.
    Autopilot,
}

/// Who runs the network below.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    Huawei,
    /// Open Telekom Cloud.
    Otc,
    Aws,
    Alibaba,
    Openstack,
    Azure,
    Gcp,
}

impl Provider {
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

    /// Huawei Cloud and what runs its software.
    pub fn is_huawei(self) -> bool {
        matches!(self, Self::Huawei | Self::Otc)
    }
}

/// The provider, and what names it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ProviderSign {
    pub provider: Provider,
    pub by: ProviderBy,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProviderBy {
    Declared,
    /// What the firmware says of the machine (/sys/class/dmi/id).
    Dmi {
        field: String,
        value: String,
    },
    /// `spec.providerID` of the node.
    ProviderId,
    /// The name servers are in a range of its services: a hint.
    NameServers,
}

impl std::fmt::Display for ProviderSign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.provider.describe())?;
        match &self.by {
            ProviderBy::Declared => f.write_str(", as declared"),
            ProviderBy::Dmi { field, value } => {
                write!(f, ", as the firmware says ({field} is '{value}')")
            }
            ProviderBy::ProviderId => f.write_str(", as the node's providerID says"),
            ProviderBy::NameServers => f.write_str(", as its name servers suggest"),
        }
    }
}

// ---- what the kernel says -----------------------------------------------------------------------

/// A network device (rtnetlink(7), RTM_GETLINK and RTM_GETADDR).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Link {
    pub name: String,
    /// `veth`, `tun`, `wireguard`, `vxlan`, …; absent for a plain device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    pub mtu: Option<u32>,
    pub is_up: bool,
    /// With the prefix that is on this link.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
}

/// A route of the kernel's tables, but for those of local and broadcast addresses.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Route {
    #[schemars(with = "String")]
    pub destination: IpNet,
    pub gateway: Option<IpAddr>,
    pub device: Option<String>,
    pub table: u32,
}

/// What the kernel would do with a packet to an address (RTM_GETROUTE).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RouteLookup {
    pub to: IpAddr,
    #[serde(flatten)]
    pub outcome: RouteOutcome,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RouteOutcome {
    /// It goes out here.
    Unicast {
        device: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device_kind: Option<String>,
        gateway: Option<IpAddr>,
        source: Option<IpAddr>,
        table: u32,
        /// The destination of the route that matched; absent where the kernel does not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        matched: Option<IpNet>,
        /// Of the route, or else of the device.
        mtu: Option<u32>,
    },
    /// It is an address of this machine.
    Local { device: String },
    /// A route says no: `unreachable`, `prohibit`, `blackhole`; or there is none (`no_route`).
    Denied { by: String },
    /// The kernel was not asked, or gave no answer that can be read.
    Unknown { error: String },
}

// ---- what the cloud says ------------------------------------------------------------------------

/// What became of asking the metadata service.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Metadata {
    #[serde(alias = "not_asked")]
    NotRequested { reason: MetadataSkip },
    /// No evidence: pods are often kept from it.
    NoAnswer {
        provider: Provider,
        fault: String,
        #[serde(rename = "took_seconds", with = "Seconds")]
        took: Duration,
    },
    Answered {
        facts: MetadataFacts,
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
    pub fn facts(&self) -> Option<&MetadataFacts> {
        match self {
            Self::Answered { facts, .. } => Some(facts),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataSkip {
    /// `network.metadata: off`.
    Off,
    /// `auto`, and neither firmware nor providerID names a cloud.
    ProviderUnknown,
    /// Its metadata service is none that is read.
    ProviderUnread,
}

/// What a metadata service told. It speaks of the machine, not of a pod on it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct MetadataFacts {
    pub provider: Provider,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub vpc_cidrs: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub subnet_cidrs: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private: Vec<IpAddr>,
    /// Absent: it did not say. Empty: it said that there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<Vec<IpAddr>>,
    /// Of the instance, in Mbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bandwidth_mbit: Option<u64>,
}

/// What annotations say of the pod's EIP (`yangtse.io/…`, `k8s.aliyun.com/…`).
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PodEip {
    /// The file it was read from.
    pub source: String,
    /// The pod asks for one; absent: the file does not tell (it holds one annotation only).
    pub wanted: Option<bool>,
    pub allocated: Option<IpAddr>,
    /// What was bought, in Mbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_mbit: Option<u64>,
    /// What the annotation holds when that is no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How long this container's first process runs: the annotation comes late.
    #[serde(rename = "container_age_seconds", with = "OptionalSeconds", default)]
    pub container_age: Option<Duration>,
}

// ---- what the world sees ------------------------------------------------------------------------

/// One question to another host for the address that our packets come from.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct EgressTrial {
    pub method: EgressMethod,
    /// Host and port asked.
    pub server: String,
    #[serde(flatten)]
    pub outcome: Step<ObservedEgress, String>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressMethod {
    /// An HTTP(S) server that shows the address it sees.
    HttpEcho,
    /// `docker-ratelimit-source` of Docker Hub.
    DockerHub,
    /// One that this version does not ask by, in a report of another version.
    #[serde(untagged)]
    Other(String),
}

impl EgressMethod {
    pub fn as_str(&self) -> &str {
        match self {
            Self::HttpEcho => "HTTP echo",
            Self::DockerHub => "Docker Hub's rate limit",
            Self::Other(name) => name,
        }
    }

    /// A pull is TCP, and other protocols may leave by another address. `stun_tcp` is in older
    /// reports.
    fn is_tcp(&self) -> bool {
        !matches!(self, Self::Other(name) if name != "stun_tcp")
    }
}

impl EgressTrial {
    /// What the other host saw, if connections of a pull are seen so, too.
    pub fn seen(&self) -> Option<&ObservedEgress> {
        self.outcome.done().filter(|_| self.method.is_tcp())
    }
}

/// What another host saw.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ObservedEgress {
    pub address: IpAddr,
    /// Absent where only an address is told.
    pub port: Option<u16>,
    /// Our own end of that connection.
    pub local: Option<SocketAddr>,
}

impl ObservedEgress {
    /// The source port was changed on the way: a PAT did it. An unchanged one proves nothing.
    pub fn port_was_changed(&self) -> bool {
        match (self.port, self.local) {
            (Some(port), Some(local)) => port != local.port(),
            _ => false,
        }
    }

    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

/// A near destination, whose round trip and segment sizes others are compared with.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Baseline {
    pub to: SocketAddr,
    pub what: BaselineKind,
    #[serde(flatten)]
    pub outcome: Step<Connection, TcpFault>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaselineKind {
    Declared,
    /// The cluster's API server.
    ApiServer,
    /// A private name server, over TCP.
    NameServer,
}

impl BaselineKind {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Declared => "the declared baseline",
            Self::ApiServer => "the API server",
            Self::NameServer => "the name server",
        }
    }
}

/// Another host, tried to tell one registry's trouble from everybody's.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Control {
    /// As declared: host and port.
    pub host: String,
    /// Why the name has no address: that says nothing of the way to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<String>,
    /// Every address tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Dial>,
}
