//! How an address is reached: the classes of a path, and what a class rests on.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The way from a vantage to an address. How sure that is, and whether the address answers, are
/// facts of their own.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum PathClass {
    /// Within the VPC, or nearer.
    Intranet,
    /// Another VPC of the region.
    VpcPeering,
    /// The public network, with a source address that many share: a NAT gateway's rule.
    PublicSnat,
    /// The public network, with an address of its own by one-to-one translation.
    PublicEip,
    /// The public network, with a public address on this very interface.
    PublicDirect,
    /// On-premises, by a leased line or a tunnel.
    DirectConnectVpn,
    /// A private address; peering, Direct Connect, VPN and the VPC itself look alike from here.
    PrivateUnmapped,
    /// A public address; whether by SNAT or by EIP is not known.
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

    pub fn is_public(self) -> bool {
        matches!(
            self,
            Self::PublicSnat | Self::PublicEip | Self::PublicDirect | Self::PublicUnknown
        )
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Intranet => "the intranet",
            Self::VpcPeering => "VPC peering",
            Self::PublicSnat => "public network by SNAT",
            Self::PublicEip => "public network by an EIP",
            Self::PublicDirect => "public network, directly",
            Self::DirectConnectVpn => "Direct Connect or VPN",
            Self::PrivateUnmapped => "private, way not known",
            Self::PublicUnknown => "public network, SNAT or EIP not known",
            Self::Mixed => "several ways",
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
    /// A range of the provider's own services.
    CloudService,
    /// A VPC endpoint.
    VpcEndpoint,
}

impl IntranetKind {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::HostLocal => "this machine itself",
            Self::ClusterService => "a Service of the cluster",
            Self::CloudService => "the cloud's own service",
            Self::VpcEndpoint => "a VPC endpoint",
        }
    }
}

/// Whose address an EIP is: the fixes differ.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EipOf {
    Pod,
    Node,
}

/// What a class alone does not say.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a remark of its own, in JSON too"
)]
pub struct PathAttributes {
    /// Of `intranet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intranet: Option<IntranetKind>,
    /// Of `public_eip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eip_of: Option<EipOf>,
    /// A tunnel device of this host carries it.
    #[serde(skip_serializing_if = "is_false")]
    pub vpn_on_host: bool,
    /// An IPv4 address reached through NAT64 (RFC 6052).
    #[serde(skip_serializing_if = "is_false")]
    pub nat64: bool,
    /// The class is that of the way to the proxy.
    #[serde(skip_serializing_if = "is_false")]
    pub via_proxy: bool,
    /// The pod waits for its EIP: ask again.
    #[serde(skip_serializing_if = "is_false")]
    pub pending: bool,
    /// Several source addresses were seen.
    #[serde(skip_serializing_if = "is_false")]
    pub snat_pool: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What a fact about a path comes from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The registries of special-purpose addresses (IANA), and the provider's own ranges.
    AddressRange,
    /// `network.cidrs` of the configuration.
    OperatorMap,
    /// The cloud's metadata service.
    Metadata,
    /// The prefixes of our own interfaces.
    OnLink,
    /// The kernel's routes, and the kinds of its devices.
    Route,
    /// Round trips.
    RoundTrip,
    /// Segment sizes beside those of a near destination.
    SegmentSize,
    /// The routers on the way.
    Hops,
    /// The source address that others see.
    Egress,
    /// The public address that a pod or node is said to have.
    Claim,
    /// Other destinations, tried at the same time.
    Control,
    /// Names, and what resolvers say.
    Name,
    /// Whose certificate is shown.
    Certificate,
    /// How the connection went.
    Connect,
}

impl Signal {
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
