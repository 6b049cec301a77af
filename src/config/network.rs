//! Section `network`: what the operator knows about the network, and where the node's settings are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::error::{self, ConfigError};
use super::values::{
    Address, AddressPort, Cidr, CountWithin, EchoUrl, HostPort, NameServer, Nat64Prefix,
};

use crate::model::network::{
    ClusterNetwork, Declared, ExpectedPath, MappedCidr, MappedClass, Provider,
};
use crate::model::path::PathClass;
use crate::net::dns::Families;
use crate::net::host_root::NodeFile;

/// Section `network`. docs/paths.md describes how each key decides a path class.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// The cloud; default: detected from firmware or the node's providerID.
    pub provider: Option<Provider>,
    /// The network of CCE (Cloud Container Engine): `vpc`, `tunnel`, `cloud_native2` (Turbo) or `autopilot`.
    pub cluster_network: Option<ClusterNetwork>,
    /// Address ranges and the path to them; the longest prefix wins.
    #[schemars(with = "Vec<CidrEntry>")]
    cidrs: Vec<Spanned<CidrEntry>>,
    /// Address ranges of the cluster's Services.
    service_cidrs: Vec<Cidr>,
    /// Source addresses of the NAT gateway's SNAT rules.
    snat_addresses: Vec<Address>,
    /// Prefixes of this network's NAT64 gateways, beside 64:ff9b::/96.
    nat64_prefixes: Vec<Nat64Prefix>,
    /// The bandwidth bought for the EIP (Elastic IP) in use, the node's or the NAT gateway's, in Mbit/s.
    eip_bandwidth_mbit: Option<std::num::NonZeroU64>,
    /// The node's ExternalIP addresses (`status.addresses`).
    node_external_ips: Vec<Address>,
    /// The node's `spec.providerID`; default: from the Node, if it is watched.
    pub node_provider_id: Option<String>,
    /// The metadata service to query.
    pub metadata: MetadataMode,
    /// A near destination to compare legs with.
    baseline: Option<AddressPort>,
    /// Other public hosts, `HOST:PORT`. If they don't answer either, the registry is not the problem.
    pub controls: Vec<HostPort>,
    /// Hosts that report the source address of this node's packets.
    pub egress: Egress,
    /// A downward API file of the pod's annotations, or only of its allocated EIP.
    pub pod_annotations: Option<PathBuf>,
    /// Path classes that hosts are expected to have.
    expect: Vec<Expectation>,
    /// The folder of containerd's `REGISTRY/hosts.toml`, its `config_path`.
    pub hosts_dir: Option<PathBuf>,
    /// containerd's `config.toml`, read with its imports.
    pub containerd_config: Option<PathBuf>,
    /// Files with containerd's proxies: a systemd unit, a drop-in, a folder of them, or an environment
    /// file.
    pub proxy_from: Vec<PathBuf>,
    /// Additional certificate authorities (PEM).
    pub ca_files: Vec<PathBuf>,
    /// Where the node's `/` is mounted: absolute links in its files are followed below it.
    pub host_root: Option<PathBuf>,
    /// The node's trusted roots, instead of those of this image: a PEM file, or a folder of them.
    pub node_ca_bundle: Option<PathBuf>,
    /// The kubelet's own docker config, tried after the pod's Secrets; `none`: the node has none.
    pub kubelet_docker_config: Option<NodeFile>,
    /// The kubelet's CredentialProviderConfig; `none`: the node has no credential providers.
    pub kubelet_credential_providers: Option<NodeFile>,
    /// Name servers to query instead of those in `resolv_conf`: `IP` or `IP:PORT`.
    pub nameservers: Vec<NameServer>,
    /// The resolver's settings; default: `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// The sources of host names; default: beside `resolv_conf`, or below `host_root`.
    pub nsswitch_conf: Option<PathBuf>,
    /// Names that need no name server; default: `/etc/hosts`.
    pub hosts_file: Option<PathBuf>,
    /// The address families to use.
    pub families: Families,
}

/// `network.egress`: hosts that report the source address of this node's packets. No request is sent
/// unless one is named here.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// URLs of HTTP echoes, which answer with the address they see, as text or as JSON `{"ip": …}`,
    /// preferably with the source port.
    pub echo: Vec<EchoUrl>,
    /// Connections made to each echo, to detect a pool of addresses.
    pub samples: CountWithin<1, 16>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            echo: Vec::new(),
            samples: CountWithin(4),
        }
    }
}

/// `network.metadata`: the metadata service to query.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum MetadataMode {
    /// That of the detected cloud; none if no cloud is detected.
    #[default]
    Auto,
    /// None.
    Off,
    /// Huawei Cloud.
    Huawei,
    /// Open Telekom Cloud.
    Otc,
    /// Amazon EC2.
    Aws,
    /// Alibaba Cloud ECS.
    Alibaba,
    /// Any OpenStack.
    Openstack,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CidrEntry {
    cidr: Cidr,
    class: MappedClass,
    name: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Expectation {
    host: String,
    classes: Vec<PathClass>,
}

impl Network {
    /// Checks entries that depend on each other.
    ///
    /// # Errors
    /// If `cidrs` has one range with two classes.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let mut seen: BTreeMap<IpNet, (MappedClass, u64)> = BTreeMap::new();
        for (index, entry) in self.cidrs.iter().enumerate() {
            let line = entry.referenced.line();
            let (cidr, class) = (entry.value.cidr.0, entry.value.class);
            match seen.insert(cidr, (class, line)) {
                Some((other, before)) if other != class => {
                    let message = format!(
                        "{cidr} is mapped to {} here and to {} at line {before}; keep one",
                        class.as_str(),
                        other.as_str()
                    );
                    return Err(error::at(entry, "network.cidrs", index, message));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The node's ExternalIP addresses; empty if not configured.
    pub fn node_external_ips(&self) -> Vec<IpAddr> {
        self.node_external_ips.iter().map(|a| a.0).collect()
    }

    /// The near destination to compare legs with; `None` if not configured.
    pub fn baseline(&self) -> Option<SocketAddr> {
        self.baseline.map(|a| a.0)
    }

    /// The keys that decide path classes.
    pub fn declared(&self) -> Declared {
        Declared {
            cidrs: self
                .cidrs
                .iter()
                .map(|entry| MappedCidr {
                    cidr: entry.value.cidr.0,
                    class: entry.value.class,
                    name: entry.value.name.clone(),
                })
                .collect(),
            service_cidrs: self.service_cidrs.iter().map(|cidr| cidr.0).collect(),
            snat_addresses: self.snat_addresses.iter().map(|a| a.0).collect(),
            nat64_prefixes: self.nat64_prefixes.iter().map(|net| net.0).collect(),
            eip_bandwidth_mbit: self.eip_bandwidth_mbit.map(std::num::NonZeroU64::get),
            cluster_network: self.cluster_network,
            expect: self
                .expect
                .iter()
                .map(|expectation| ExpectedPath {
                    host: expectation.host.clone(),
                    classes: expectation.classes.clone(),
                })
                .collect(),
        }
    }
}
