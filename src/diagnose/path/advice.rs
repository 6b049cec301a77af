//! Advice on how to open a path: with Huawei Cloud's terms if that is the provider, otherwise with general
//! ones.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::case::Judgement;
use super::ranges::is_private;
use crate::model::endpoint::Host;
use crate::model::evidence::Leg;
use crate::model::network::ClusterNetwork;
use crate::model::path::{IntranetKind, PathClass};
use crate::model::resolve::ResolutionSource;
use crate::model::text::joined;
use crate::model::vantage::{NetworkView, Vantage};

/// Advice for a private address.
pub(super) fn fix(class: PathClass, vantage: &Vantage, port: u16, judgement: &Judgement) -> String {
    let huawei = vantage.is_huawei();
    match class {
        PathClass::Intranet => match judgement.attributes.intranet {
            Some(IntranetKind::CloudService | IntranetKind::VpcEndpoint) if huawei => format!(
                "Allow egress to 100.125.0.0/16 and 198.19.128.0/17, TCP {port}, in the security group of {}. For SWR, check the VPC \
                                 endpoints of both SWR and OBS (layers are pulled from OBS), and that DNS is the VPC's own, which returns the intranet addresses.",
                whose(vantage)
            ),
            _ => format!(
                "Allow TCP {port} from {} in the far side's security group and network ACL, and check that the host is up: \
                                 within the VPC there is always a route.",
                sources(vantage)
            ),
        },
        PathClass::VpcPeering => format!(
            "Add routes on both sides of the peering: in this VPC to the far range, and in the far VPC back to {}. Check that \
                         the peering connection is {}, and that the far side's security group allows TCP {port} from there.",
            sources(vantage),
            if huawei {
                "ACTIVE (a connection to another account must be accepted)"
            } else {
                "active"
            }
        ),
        PathClass::DirectConnectVpn => format!(
            "Add routes in both directions for Direct Connect or VPN: the far range in this VPC's route table, and {} to the \
                         local subnets that the gateway announces on premises. Then check the firewall there for TCP {port}, and on a VPN clamp the MSS below {}.",
            sources(vantage),
            if huawei {
                "1399"
            } else {
                "the tunnel's MTU minus 40"
            }
        ),
        _ => egress(class, vantage, port),
    }
}

/// Advice for an address that two networks use; `class` is that of the far one.
pub(super) fn overlap(
    class: PathClass,
    vantage: &Vantage,
    port: u16,
    address: IpAddr,
    judgement: &Judgement,
) -> String {
    const RENUMBER: &str = "Renumber one of the two networks that use this range, or reach the far host through a private NAT gateway \
                        (transit address) or a VPC endpoint: the local route always wins.";
    if let Some(fix) = &judgement.overlap_fix {
        return fix.clone();
    }
    if !judgement.overlap_is_declared {
        return RENUMBER.to_owned();
    }
    let here = only_if(&format!("a subnet of this VPC has {address}"), RENUMBER);
    let far = fix(class, vantage, port, judgement);
    format!("{here} {}", only_if("none has it", &far))
}

/// Advice that fits under a condition.
pub(super) fn only_if(condition: &str, action: &str) -> String {
    let mut letters = action.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_lowercase().to_string());
    format!(
        "If {condition}: {}{}",
        first.unwrap_or_default(),
        letters.as_str()
    )
}

/// Advice for an address in the range of the cluster's pods.
pub(super) fn in_pod_range(address: IpAddr, device: &str, route: Option<IpNet>) -> String {
    let range = route.map_or_else(String::new, |net| format!(" ({net})"));
    format!(
        "Give the registry an address outside the range of this cluster's pods, or the cluster another range: this machine's \
                 kernel sends {address} to {device}{range}, and no packet for it gets to another network (`ip route get {address}`). \
                 If the registry is a pod, check that it runs."
    )
}

/// Advice for the public network.
pub(super) fn egress(class: PathClass, vantage: &Vantage, port: u16) -> String {
    match class {
        PathClass::PublicSnat => snat(vantage),
        PathClass::PublicEip => eip(vantage),
        PathClass::PublicDirect => format!(
            "Give this network IPv6 egress: {}, a default route, and a security group that allows egress to TCP {port}.",
            if vantage.is_huawei() {
                "add the IPv6 address to a shared bandwidth"
            } else {
                "a global address with an Internet gateway"
            }
        ),
        _ => String::new(),
    }
}

fn snat(vantage: &Vantage) -> String {
    if !vantage.is_huawei() {
        return format!(
            "Configure a NAT gateway to translate {}, and add a default route from this subnet to it.",
            sources(vantage)
        );
    }
    let node = node_subnet(vantage);
    let subnets = match (vantage.declared.cluster_network, is_in_pod(vantage)) {
        (Some(ClusterNetwork::Vpc | ClusterNetwork::Tunnel), _) => {
            format!("{node}, whose address the pods use too")
        }
        (Some(ClusterNetwork::CloudNative2), false) => format!(
            "{node} (the node's containerd pulls), and add one for the container subnet if pods need the Internet as well"
        ),
        (Some(ClusterNetwork::CloudNative2), true) => {
            "the node's subnet, because the node's containerd pulls (a rule for the container subnet applies only to the pods' own traffic)".to_owned()
        }
        (Some(ClusterNetwork::Autopilot), _) => subnet(vantage).map_or_else(
            || "the container subnet, from which Autopilot pulls".to_owned(),
            |net| format!("the container subnet ({net}), from which Autopilot pulls"),
        ),
        (None, false) => format!(
            "{node} (with Cloud Native Network 2.0, the container subnet needs its own rule for the pods)"
        ),
        (None, true) => "the node's subnet (VPC or tunnel network), or the container subnet (Autopilot)".to_owned(),
    };
    format!(
        "Add an SNAT rule to a public NAT gateway of the VPC for {subnets}, and check that the subnet's route table sends \
                 0.0.0.0/0 to that gateway. An EIP on the same machine or pod takes precedence over SNAT."
    )
}

fn node_subnet(vantage: &Vantage) -> String {
    match subnet(vantage).filter(|_| !is_in_pod(vantage)) {
        Some(net) => format!("the node's subnet ({net})"),
        None => "the node's subnet".to_owned(),
    }
}

fn eip(vantage: &Vantage) -> String {
    const SIZE: &str = "An EIP of 10 Mbit/s or less usually receives at 10, and a pull receives: only a larger size makes pulls faster.";
    if !vantage.is_huawei() {
        return "Give this machine its own public address, with a route to the Internet gateway."
            .to_owned();
    }
    let is_pods = matches!(
        (vantage.declared.cluster_network, vantage.network),
        (Some(ClusterNetwork::Autopilot), _)
            | (Some(ClusterNetwork::CloudNative2) | None, NetworkView::Pod)
    );
    if is_pods {
        let trap = match vantage.declared.cluster_network {
            Some(ClusterNetwork::Autopilot) => "",
            _ => {
                " On Turbo it applies only to the pod's own traffic: the kubelet pulls with the node's address."
            }
        };
        return format!(
            "Annotate the pod template with yangtse.io/pod-with-eip: \"true\" and yangtse.io/eip-bandwidth-size: \"20\" \
             (the default is 5 Mbit/s); both are read when the pod is created.{trap} {SIZE}"
        );
    }
    format!("Bind an EIP to the node. {SIZE}")
}

/// Advice for an address that this machine has itself.
pub(super) fn own_address(address: IpAddr, device: &str) -> String {
    format!(
        "Give {device} on this machine another address, or another range, if the registry is another host: {address} is \
                 this machine's own, and no packet for it leaves this machine. If the registry runs here, check that it \
                 listens."
    )
}

/// Advice for an address that is on this host or its own bridges.
pub(super) fn on_this_host(address: IpAddr) -> String {
    format!(
        "Give the bridge on this host another range if the registry is another host (docker: `bip` and \
                 `default-address-pools`; a CNI plugin: its subnet): no packet for {address} leaves this host. If the registry is a \
                 container here, check that it runs."
    )
}

/// Advice for a machine that has IPv6 alone, and a host that has IPv4 alone.
pub(super) fn no_ipv4(leg: &Leg, address: IpAddr) -> String {
    let host = &leg.endpoint.host;
    if !matches!(host, Host::Name(_)) {
        return format!(
            "Use a name with an AAAA record in place of {host}, or give this machine an IPv4 address: it has IPv6 only, and \
                     DNS64 makes no IPv6 address for an IPv4 address that is written out."
        );
    }
    let found = leg.resolve.outcome.done();
    if found.is_some_and(|found| found.source == ResolutionSource::HostsFile) {
        return format!(
            "Remove the IPv4 address of '{host}' from the hosts file, or give this machine an IPv4 address: it has IPv6 only, \
                     and no AAAA record or DNS64 counts for a name in that file."
        );
    }
    if is_private(address) {
        return format!(
            "Give the registry's network IPv6 and '{host}' an AAAA record, or give this machine an IPv4 address with a route to \
                     {address}: it has IPv6 only, and '{host}' has private IPv4 addresses only."
        );
    }
    format!(
        "Add NAT64 with DNS64 to this network, or give this machine an IPv4 address with egress: it has IPv6 only, and \
                 '{host}' has IPv4 addresses only. Or use a host that has an AAAA record, for instance a mirror."
    )
}

/// Advice for an address in the prefix of NAT64 that no packet gets to.
pub(super) fn no_nat64(prefix: IpNet, host: &Host) -> String {
    format!(
        "Route {prefix} to a NAT64 gateway, and check that it runs: the name servers (DNS64) return addresses of that prefix \
                 for '{host}', and only such a gateway leads from there to IPv4."
    )
}

/// Advice for the public storage of a registry that is reached inside this network.
pub(super) fn storage_inside(vantage: &Vantage, host: &Host) -> String {
    let (endpoint, of) = if vantage.is_huawei() {
        ("the VPC endpoint for OBS in this VPC", "OBS")
    } else {
        (
            "whether this network has an endpoint for the storage (VPC endpoint, private link)",
            "the storage",
        )
    };
    format!(
        "Check {endpoint}, its route in this subnet's route table, and that the name servers here return the intranet \
                 address of '{host}': the registry is reached inside this network, and its layers are in {of}."
    )
}

/// Advice for the public token service of a registry that is reached inside this network.
pub(super) fn realm_inside(host: &Host) -> String {
    format!(
        "Correct the realm that the registry names (Harbor: external_url), if clients in this network should get tokens from \
                 another host than '{host}'."
    )
}

/// Advice for a public address that is silent while others answer. `may_be_nat`: packets may leave through a NAT gateway.
pub(super) fn far_firewall(
    address: IpAddr,
    port: u16,
    from: &BTreeSet<IpAddr>,
    may_be_nat: bool,
) -> String {
    let from = if from.is_empty() {
        "this network's public address".to_owned()
    } else {
        joined(from)
    };
    let nat = if may_be_nat {
        format!(
            " If packets leave through a NAT gateway, check its metrics as well: it counts ports for each destination, and may \
                     have none left for {address} while others are reached."
        )
    } else {
        String::new()
    };
    format!(
        "Check this side's egress rules for {address} TCP {port}, then ask its operator to allow {from}; or use a mirror that \
                 can be reached.{nat}"
    )
}

fn is_in_pod(vantage: &Vantage) -> bool {
    matches!(vantage.network, NetworkView::Pod | NetworkView::PodOrNode)
}

/// Whose security group applies.
fn whose(vantage: &Vantage) -> &'static str {
    if is_in_pod(vantage) {
        "the pods (or of the nodes, if pods use their address)"
    } else {
        "the nodes"
    }
}

/// The source subnets of a pull's packets.
fn sources(vantage: &Vantage) -> String {
    let own = subnet(vantage);
    let node = match (&own, is_in_pod(vantage)) {
        (Some(net), false) => net.clone(),
        _ => "the node's subnet".to_owned(),
    };
    match vantage.declared.cluster_network {
        Some(ClusterNetwork::Autopilot) => own.unwrap_or_else(|| "the container subnet".to_owned()),
        Some(ClusterNetwork::Vpc) => {
            format!("{node} and the container CIDR, which is not translated to private ranges")
        }
        Some(ClusterNetwork::CloudNative2) => format!("{node} and the container subnet"),
        None if vantage.is_huawei() => format!("{node} and the pods' range"),
        Some(ClusterNetwork::Tunnel) | None => node,
    }
}

/// The subnet of this machine's or pod's own address.
fn subnet(vantage: &Vantage) -> Option<String> {
    let facts = vantage.metadata.facts();
    if let Some(net) = facts.and_then(|facts| facts.subnet_cidrs.first()) {
        return Some(net.to_string());
    }
    let is_default = |to: &IpNet| to.prefix_len() == 0 && to.addr().is_ipv4();
    let mut routes = vantage.routes.iter();
    let default = routes.find(|route| is_default(&route.destination))?;
    let device = default.device.as_ref()?;
    let link = vantage.links.iter().find(|link| link.name == *device)?;
    let mut nets = link.addresses.iter();
    let net = nets.find(|net| net.addr().is_ipv4() && net.prefix_len() < 32)?;
    Some(net.trunc().to_string())
}
