//! `network`: what an operator says of the network, and where the node's settings are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::error::ConfigError;
use super::values::{Address, AddressPort, Cidr, CountWithin, EchoUrl, HostPort, NameServer};

use crate::model::network::{
    ClusterNetwork, Declared, ExpectedPath, MappedCidr, MappedClass, Provider,
};
use crate::model::path::PathClass;
use crate::net::dns::Families;
use crate::net::host_root::NodeFile;

/// `network`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Who runs the network below; otherwise firmware and providerID are looked at.
    pub provider: Option<Provider>,
    pub cluster_network: Option<ClusterNetwork>,
    /// How ranges are reached; the longest prefix counts.
    #[schemars(with = "Vec<CidrEntry>")]
    cidrs: Vec<Spanned<CidrEntry>>,
    /// Of the cluster's Services.
    service_cidrs: Vec<Cidr>,
    /// Source addresses of the NAT gateway's rules.
    snat_addresses: Vec<Address>,
    /// What was bought for the EIP in use (the node's, or the NAT gateway's), in Mbit/s.
    eip_bandwidth_mbit: Option<std::num::NonZeroU64>,
    /// ExternalIP of the node.
    node_external_ips: Vec<Address>,
    /// `spec.providerID` of the node.
    pub node_provider_id: Option<String>,
    pub metadata: MetadataMode,
    /// A near destination that others are compared with.
    baseline: Option<AddressPort>,
    /// Other hosts, `HOST:PORT`: whether these answer tells a registry's trouble from everybody's.
    pub controls: Vec<HostPort>,
    pub egress: Egress,
    /// A downward API file of the pod's annotations, or of its allocated EIP alone.
    pub pod_annotations: Option<PathBuf>,
    expect: Vec<Expectation>,
    /// The folder of containerd's `REGISTRY/hosts.toml`, as its `config_path`.
    pub hosts_dir: Option<PathBuf>,
    /// containerd's own file, read for `config_path`.
    pub containerd_config: Option<PathBuf>,
    /// Files that hold containerd's proxies: a systemd unit, drop-in or folder of them, or an
    /// environment file.
    pub proxy_from: Vec<PathBuf>,
    /// Authorities to be trusted too (PEM).
    pub ca_files: Vec<PathBuf>,
    /// Where the node's `/` is mounted: absolute links of its files are followed below it.
    pub host_root: Option<PathBuf>,
    /// The node's trusted roots, in place of those of this image: a PEM file, or a folder of them.
    pub node_ca_bundle: Option<PathBuf>,
    /// The kubelet's own docker config; `none`: there is none.
    pub kubelet_docker_config: Option<NodeFile>,
    /// The kubelet's CredentialProviderConfig; `none`: it has no credential providers.
    pub kubelet_credential_providers: Option<NodeFile>,
    /// Asked instead of those of `resolv_conf`: `IP` or `IP:PORT`.
    pub nameservers: Vec<NameServer>,
    /// The resolver's settings.
    pub resolv_conf: Option<PathBuf>,
    /// Read before any name server is asked.
    pub hosts_file: Option<PathBuf>,
    /// Which families of addresses are used.
    pub families: Families,
}

/// `network.egress`: hosts that are asked for the address our packets come from. Nobody is asked
/// unless named here.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// `http://…` or `https://…`, whose answer is the address, as text or as JSON `{"ip": …}`, and
    /// best the source port, too.
    pub echo: Vec<EchoUrl>,
    /// Connections made to see whether they come from several addresses.
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

/// Whether and whose metadata service is asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum MetadataMode {
    /// That of the cloud which firmware or providerID name; none otherwise.
    #[default]
    Auto,
    Off,
    Huawei,
    Otc,
    Aws,
    Alibaba,
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
    /// What one entry alone can't show.
    pub(super) fn check(&self, text: &str) -> Result<(), ConfigError> {
        let mut seen: BTreeMap<IpNet, (MappedClass, u64)> = BTreeMap::new();
        for entry in &self.cidrs {
            let line = entry.referenced.line();
            let (cidr, class) = (entry.value.cidr.0, entry.value.class);
            match seen.insert(cidr, (class, line)) {
                Some((other, before)) if other != class => {
                    let message = format!(
                        "network.cidrs has {cidr} as {} here and as {} at line {before}; keep one",
                        class.as_str(),
                        other.as_str()
                    );
                    return Err(ConfigError::at(entry, message, text));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// ExternalIP of the node, where given.
    pub fn node_external_ips(&self) -> Vec<IpAddr> {
        self.node_external_ips.iter().map(|a| a.0).collect()
    }

    pub fn baseline(&self) -> Option<SocketAddr> {
        self.baseline.map(|a| a.0)
    }

    /// The part that classes depend on.
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
