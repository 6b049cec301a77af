//! What to do so that a way is there: in Huawei Cloud's words where that is the provider, in general
//! ones elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::case::Judgement;
use crate::model::network::ClusterNetwork;
use crate::model::path::{IntranetKind, PathClass};
use crate::model::text::joined;
use crate::model::vantage::{NetworkView, Vantage};

/// For a private address.
pub(super) fn fix(class: PathClass, vantage: &Vantage, port: u16, judgement: &Judgement) -> String {
    let huawei = vantage.is_huawei();
    if judgement.overlap {
        return "Two networks use this range, and the local route always wins: renumber one of them, or reach the far \
                host through a private NAT gateway (transit address) or a VPC endpoint."
            .to_owned();
    }
    match class {
        PathClass::Intranet => match judgement.attributes.intranet {
            Some(IntranetKind::CloudService | IntranetKind::VpcEndpoint) if huawei => format!(
                "Let the security group of {} out to 100.125.0.0/16 and 198.19.128.0/17, TCP {port}. For SWR, check the VPC \
                 endpoints of both SWR and OBS (layers come from OBS), and that DNS is the VPC's own, whose answers are the intranet ones.",
                whose(vantage)
            ),
            _ => format!(
                "Within the VPC there is always a route: let the far side's security group and network ACL admit TCP {port} \
                 from {}, and check that the host is up.",
                sources(vantage)
            ),
        },
        PathClass::VpcPeering => format!(
            "A peering needs a route on both sides: in this VPC to the far range, and in the far VPC back to {}. Check that \
             the peering connection is {}, and that the far side's security group admits TCP {port} from there.",
            sources(vantage),
            if huawei {
                "ACTIVE (one to another account has to be accepted)"
            } else {
                "active"
            }
        ),
        PathClass::DirectConnectVpn => format!(
            "Direct Connect and VPN need routes both ways: the far range in this VPC's route table, and {} among the local \
             subnets that the gateway announces on premises. Then check the firewall there for TCP {port}, and on a VPN clamp the MSS below {}.",
            sources(vantage),
            if huawei {
                "1399"
            } else {
                "the tunnel's MTU less 40"
            }
        ),
        _ => way_out(class, vantage, port),
    }
}

/// For the public network.
pub(super) fn way_out(class: PathClass, vantage: &Vantage, port: u16) -> String {
    match class {
        PathClass::PublicSnat => snat(vantage),
        PathClass::PublicEip => eip(vantage),
        PathClass::PublicDirect => format!(
            "Give this network a way out over IPv6: {}, a default route, and a security group that lets out TCP {port}.",
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
            "Have a NAT gateway translate {}, with a default route of this subnet to it.",
            sources(vantage)
        );
    }
    let node = node_subnet(vantage);
    let subnets = match (vantage.declared.cluster_network, is_in_pod(vantage)) {
        (Some(ClusterNetwork::Vpc | ClusterNetwork::Tunnel), _) => {
            format!("{node}, whose address pods leave with too")
        }
        (Some(ClusterNetwork::CloudNative2), false) => format!(
            "{node} (the node's containerd pulls), and one for the container subnet if pods need the Internet as well"
        ),
        (Some(ClusterNetwork::CloudNative2), true) => {
            "the node's subnet, since the node's containerd pulls; one for the container subnet is for the pods' own traffic".to_owned()
        }
        (Some(ClusterNetwork::Autopilot), _) => subnet(vantage).map_or_else(
            || "the container subnet, which pulls come from on Autopilot".to_owned(),
            |net| format!("the container subnet ({net}), which pulls come from on Autopilot"),
        ),
        (None, false) => format!(
            "{node} (with Cloud Native Network 2.0 the container subnet needs a rule of its own, for the pods)"
        ),
        (None, true) => "the node's subnet (VPC or tunnel network), or the container subnet (Autopilot)".to_owned(),
    };
    format!(
        "Add an SNAT rule to a public NAT gateway of the VPC for {subnets}, and see that the subnet's route table sends \
         0.0.0.0/0 to that gateway. An EIP on the same machine or pod wins over SNAT."
    )
}

fn node_subnet(vantage: &Vantage) -> String {
    match subnet(vantage).filter(|_| !is_in_pod(vantage)) {
        Some(net) => format!("the node's subnet ({net})"),
        None => "the node's subnet".to_owned(),
    }
}

fn eip(vantage: &Vantage) -> String {
    const SIZE: &str = "Of 10 Mbit/s or less it usually receives at 10, and pulls are received: more helps from there on only.";
    if !vantage.is_huawei() {
        return "Give this machine a public address of its own, with a route to the Internet gateway.".to_owned();
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
                " On Turbo it serves the pod's own traffic only: the kubelet pulls with the node's."
            }
        };
        return format!(
            "Annotate the pod template with yangtse.io/pod-with-eip: \"true\" and yangtse.io/eip-bandwidth-size: \"20\" \
             (the default is 5 Mbit/s); both are read when the pod is created.{trap} {SIZE}"
        );
    }
    format!("Bind an EIP to the node. {SIZE}")
}

/// No packet leaves this host for the address.
pub(super) fn on_this_host(address: IpAddr) -> String {
    format!(
        "No packet for {address} leaves this host. If the registry is another host, a bridge here has its range: give the \
         bridge another one (docker: `bip` and `default-address-pools`; a CNI plugin: its subnet). If it is a container here, \
         see whether it runs."
    )
}

/// The registry's side has to let us in.
pub(super) fn far_firewall(address: IpAddr, port: u16, from: &BTreeSet<IpAddr>) -> String {
    let from = if from.is_empty() {
        "this network's public address".to_owned()
    } else {
        joined(from)
    };
    format!(
        "No NAT rule is missing: check this side's egress rules for {address} TCP {port}, then ask who runs it to admit {from}; \
         or take a mirror that can be reached."
    )
}

fn is_in_pod(vantage: &Vantage) -> bool {
    matches!(vantage.network, NetworkView::Pod | NetworkView::PodOrNode)
}

/// Whose security group it is.
fn whose(vantage: &Vantage) -> &'static str {
    if is_in_pod(vantage) {
        "the pods (or nodes, whose address they may leave with)"
    } else {
        "the nodes"
    }
}

/// The subnets that packets of a pull come from.
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

/// The subnet of our own address.
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
