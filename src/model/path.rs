//! Path classes: how an address is reached, and the signals that a class is based on.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The path from a vantage point to an address. Its confidence, and whether the address answers, are separate
/// facts.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum PathClass {
    /// Within the VPC, the cluster or this machine.
    Intranet,
    /// Another VPC of the region.
    VpcPeering,
    /// The public network, through SNAT: a NAT gateway's rule with a source address that many share.
    PublicSnat,
    /// The public network, through an EIP: a public address of its own, translated one to one.
    PublicEip,
    /// The public network, with a public address on this machine's own interface.
    PublicDirect,
    /// Other premises, over a leased line or a tunnel.
    DirectConnectVpn,
    /// A private address whose path is unknown: peering, Direct Connect, VPN and the VPC itself look alike from
    /// this vantage point.
    PrivateUnmapped,
    /// A public address; whether through SNAT or an EIP is unknown.
    PublicUnknown,
    /// The name has addresses of several classes.
    Mixed,
}

impl PathClass {
    /// The JSON value and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intranet => "intranet",
            Self::VpcPeering => "vpc_peering",
            Self::PublicSnat => "public_snat",
            Self::PublicEip => "public_eip",
            Self::PublicDirect => "public_direct",
            Self::DirectConnectVpn => "direct_connect_vpn",
            Self::PrivateUnmapped => "private_unmapped",
            Self::PublicUnknown => "public_unknown",
            Self::Mixed => "mixed",
        }
    }

    /// Whether the path leads over the public network.
    pub fn is_public(self) -> bool {
        matches!(
            self,
            Self::PublicSnat | Self::PublicEip | Self::PublicDirect | Self::PublicUnknown
        )
    }

    /// In words, for reports.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Intranet => "the intranet",
            Self::VpcPeering => "VPC peering",
            Self::PublicSnat => "public network, through SNAT",
            Self::PublicEip => "public network, through an EIP",
            Self::PublicDirect => "public network, directly",
            Self::DirectConnectVpn => "Direct Connect or VPN",
            Self::PrivateUnmapped => "private, path unknown",
            Self::PublicUnknown => "public network, SNAT or EIP unknown",
            Self::Mixed => "several paths",
        }
    }
}

impl fmt::Display for PathClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is special about an intranet address.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IntranetKind {
    /// This machine itself.
    HostLocal,
    /// A Service of the cluster.
    ClusterService,
    /// The network of the cluster's pods.
    ClusterPods,
    /// A range of the provider's own services.
    CloudService,
    /// A VPC endpoint.
    VpcEndpoint,
}

impl IntranetKind {
    /// In words, for reports.
    pub fn describe(self) -> &'static str {
        match self {
            Self::HostLocal => "this machine itself",
            Self::ClusterService => "a Service of the cluster",
            Self::ClusterPods => "the network of the cluster's pods",
            Self::CloudService => "the cloud's own service",
            Self::VpcEndpoint => "a VPC endpoint",
        }
    }
}

/// What an EIP is bound to; the fixes differ.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EipOf {
    /// A pod (CCE Turbo and Autopilot).
    Pod,
    /// The node.
    Node,
}

/// Details that the class alone does not show.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a remark of its own, in JSON too"
)]
pub struct PathAttributes {
    /// For `intranet`: what kind of address it is; absent if there is nothing special.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intranet: Option<IntranetKind>,
    /// For `public_eip`: what the EIP is bound to; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eip_of: Option<EipOf>,
    /// A tunnel device of this machine carries the traffic.
    #[serde(skip_serializing_if = "is_false")]
    pub vpn_on_host: bool,
    /// An IPv4 address reached through NAT64 (RFC 6052).
    #[serde(skip_serializing_if = "is_false")]
    pub nat64: bool,
    /// The class is that of the path to the proxy.
    #[serde(skip_serializing_if = "is_false")]
    pub via_proxy: bool,
    /// The pod still waits for its EIP: check again later.
    #[serde(skip_serializing_if = "is_false")]
    pub pending: bool,
    /// Several source addresses were observed.
    #[serde(skip_serializing_if = "is_false")]
    pub snat_pool: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The source of a fact about a path.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// IANA's registries of special-purpose addresses, and the provider's own ranges.
    AddressRange,
    /// `network.cidrs` of the configuration.
    OperatorMap,
    /// The cloud's metadata service.
    Metadata,
    /// The prefixes of this machine's own interfaces.
    OnLink,
    /// The kernel's routes, and the types of its devices.
    Route,
    /// Round-trip times.
    RoundTrip,
    /// Segment sizes, compared with those of a near destination.
    SegmentSize,
    /// The routers on the path.
    Hops,
    /// The source address that other hosts see.
    Egress,
    /// The public address of the pod or node according to annotations, the Node or the configuration.
    Claim,
    /// Other destinations, tried at the same time.
    Control,
    /// Names, and the answers of resolvers.
    Name,
    /// The certificate that the server presents.
    Certificate,
    /// The result of connecting.
    Connect,
}

impl Signal {
    /// The signal in words, for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AddressRange => "address range",
            Self::OperatorMap => "declared",
            Self::Metadata => "metadata",
            Self::OnLink => "interface",
            Self::Route => "route",
            Self::RoundTrip => "round trip",
            Self::SegmentSize => "segment size",
            Self::Hops => "hops",
            Self::Egress => "egress address",
            Self::Claim => "claimed address",
            Self::Control => "control",
            Self::Name => "name",
            Self::Certificate => "certificate",
            Self::Connect => "connect",
        }
    }
}
