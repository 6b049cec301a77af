//! `--config`: what an operator says of the network, in YAML. An unknown key or a wrong value is an
//! error that names the line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Spanned;
use url::Url;

use crate::model::network::{
    ClusterNetwork, Declared, ExpectedPath, MappedCidr, MappedClass, Provider,
};
use crate::model::path::PathClass;
use crate::model::text::printable;

/// The whole file. Every part may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub network: Network,
}

/// `network`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Who runs the network below; otherwise firmware and providerID are looked at.
    pub provider: Option<Provider>,
    pub cluster_network: Option<ClusterNetwork>,
    /// How ranges are reached; the longest prefix counts.
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
    pub metadata: MetadataWish,
    /// A near destination that others are compared with.
    baseline: Option<AddressPort>,
    /// Other hosts, `HOST:PORT`: whether these answer tells a registry's trouble from everybody's.
    pub controls: Vec<HostPort>,
    pub egress: Egress,
    /// A downward API file of the pod's annotations, or of its allocated EIP alone.
    pub pod_annotations: Option<PathBuf>,
    expect: Vec<Expectation>,
}

/// `network.egress`: hosts that are asked for the address our packets come from. Nobody is asked
/// unless named here.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// `HOST[:PORT]`, asked over UDP and TCP (RFC 8489; the port is 3478 unless given).
    pub stun: Vec<StunServer>,
    /// `http://…` or `https://…`, whose answer is the address, as text or as JSON `{"ip": …}`.
    pub echo: Vec<EchoUrl>,
    /// Connections made to see whether they come from several addresses.
    pub samples: Samples,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            echo: Vec::new(),
            samples: Samples(4),
        }
    }
}

/// Whether and whose metadata service is asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum MetadataWish {
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

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CidrEntry {
    cidr: Cidr,
    class: MappedClass,
    name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    host: String,
    classes: Vec<PathClass>,
}

/// A range without host bits.
#[derive(Clone, Copy, Debug)]
struct Cidr(IpNet);

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = |fix: &str| de::Error::custom(format!("'{}' {fix}", printable(&text)));
        // A bare address means itself.
        let parsed = text.parse::<IpNet>().or_else(|_| {
            let address = text.parse::<IpAddr>();
            address.map(IpNet::from)
        });
        let net = parsed.map_err(|_| wrong("is no CIDR; write for instance 10.8.0.0/16"))?;
        if net.trunc() != net {
            return Err(wrong(&format!(
                "has bits behind its prefix; write {}",
                net.trunc()
            )));
        }
        Ok(Self(net))
    }
}

/// An address.
#[derive(Clone, Copy, Debug)]
struct Address(IpAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(|_| {
            let text = printable(&text);
            de::Error::custom(format!(
                "'{text}' is no IP address; write for instance 121.36.9.9"
            ))
        })
    }
}

/// An address and a port.
#[derive(Clone, Copy, Debug)]
struct AddressPort(SocketAddr);

impl<'de> Deserialize<'de> for AddressPort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(|_| {
            let text = printable(&text);
            de::Error::custom(format!(
                "'{text}' is not ADDRESS:PORT, for instance 10.0.0.1:443"
            ))
        })
    }
}

/// A host and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            // An IPv6 address without a port has colons too.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().ok()?))
            }
            _ => (text, None),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:_%".contains(c);
        let port = port.or(default_port).filter(|port| *port != 0)?;
        (!host.is_empty() && host.chars().all(is_host)).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text, None).ok_or_else(|| {
            de::Error::custom(format!(
                "'{}' is not HOST:PORT, for instance www.example.com:443",
                printable(&text)
            ))
        })
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StunServer(pub HostPort);

impl<'de> Deserialize<'de> for StunServer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        // RFC 7064.
        let bare = text.strip_prefix("stun:").unwrap_or(&text);
        HostPort::parse(bare, Some(STUN_PORT))
            .map(Self)
            .ok_or_else(|| {
                de::Error::custom(format!(
                    "'{}' is not HOST or HOST:PORT, for instance stun.example.com:3478",
                    printable(&text)
                ))
            })
    }
}

/// RFC 8489, 18.6.
const STUN_PORT: u16 = 3478;

/// Where an answer is the asker's address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EchoUrl(pub Url);

impl<'de> Deserialize<'de> for EchoUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let url = Url::parse(&text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        });
        url.map(Self).ok_or_else(|| {
            // Not repeated: it may hold a password.
            de::Error::custom("an echo is an http:// or https:// URL without user and password")
        })
    }
}

/// How often one asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Samples(pub u8);

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let samples = u64::deserialize(from)?;
        match u8::try_from(samples) {
            Ok(samples @ 1..=16) => Ok(Self(samples)),
            _ => Err(de::Error::custom(format!(
                "'{samples}' samples: between 1 and 16 are taken"
            ))),
        }
    }
}

impl Config {
    /// Reads it.
    ///
    /// # Errors
    /// In words that name the line, the key and the fix.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let config: Self = serde_saphyr::from_str(text).map_err(|error| words(&error))?;
        config.network.check()?;
        Ok(config)
    }
}

/// The first line of what the parser says; the rest draws the place.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    match error.location() {
        Some(at) if !first.contains("line ") => {
            format!("line {} column {}: {first}", at.line(), at.column())
        }
        _ => first.to_owned(),
    }
}

impl Network {
    /// What one entry alone can't show.
    fn check(&self) -> Result<(), String> {
        let mut seen: BTreeMap<IpNet, (MappedClass, u64)> = BTreeMap::new();
        for entry in &self.cidrs {
            let line = entry.referenced.line();
            let (cidr, class) = (entry.value.cidr.0, entry.value.class);
            match seen.insert(cidr, (class, line)) {
                Some((other, before)) if other != class => {
                    return Err(format!(
                        "line {line}: network.cidrs has {cidr} as {} here and as {} at line {before}; keep one",
                        class.as_str(),
                        other.as_str()
                    ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_read() {
        let config = Config::parse(
            "network:
  provider: huawei
  cluster_network: cloud_native2
  cidrs:
    - cidr: 10.8.0.0/16
      class: vpc_peering
      name: shared services
    - {cidr: 'fd12::/16', class: direct_connect_vpn}
    - {cidr: 10.9.0.7, class: intranet}
  service_cidrs: [10.247.0.0/16]
  snat_addresses: [121.36.9.9]
  eip_bandwidth_mbit: 20
  node_external_ips: ['2001:db8::1']
  node_provider_id: 'openstack:///1'
  metadata: off
  baseline: 10.0.0.1:443
  controls: ['www.example.com:443', '[2001:db8::1]:443']
  egress:
    stun: [stun.example.com, 'stun:10.0.0.9:3479', '2001:db8::9']
    echo: ['https://echo.example.com/ip']
    samples: 6
  pod_annotations: /etc/podinfo/annotations
  expect:
    - {host: '*.example.com', classes: [intranet, vpc_peering]}
",
        )
        .unwrap();
        let network = &config.network;
        let declared = network.declared();
        assert_eq!(declared.cidrs.len(), 3);
        assert_eq!(declared.eip_bandwidth_mbit, Some(20));
        assert_eq!(declared.cidrs[2].cidr.to_string(), "10.9.0.7/32");
        assert_eq!(declared.cidrs[0].name.as_deref(), Some("shared services"));
        assert_eq!(network.metadata, MetadataWish::Off);
        let stun: Vec<String> = network
            .egress
            .stun
            .iter()
            .map(|s| s.0.to_string())
            .collect();
        assert_eq!(
            stun,
            [
                "stun.example.com:3478",
                "10.0.0.9:3479",
                "[2001:db8::9]:3478"
            ]
        );
        assert_eq!(network.controls[1].to_string(), "[2001:db8::1]:443");
        assert_eq!(network.egress.samples, Samples(6));
        for empty in ["", "network: {}\n", "# nothing\n"] {
            assert!(Config::parse(empty).is_ok(), "{empty:?}");
        }
    }

    #[test]
    fn the_example_in_the_documentation_is_taken() {
        let text = include_str!("../docs/paths.md");
        let example = text.split("```yaml\n").nth(1).unwrap();
        let example = example.split("```").next().unwrap();
        assert!(example.starts_with("network:"), "{example}");
        let config = Config::parse(example).unwrap();
        assert_eq!(config.network.declared().cidrs.len(), 3);
        assert_eq!(config.network.controls.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_fix() {
        for (text, line, says) in [
            ("network:\n  cidr: []\n", 2, "cidr"),
            ("nettwork: {}\n", 1, "network"),
            (
                "network:\n  cidrs:\n    - {cidr: 10.8.1.0/16, class: intranet}\n",
                3,
                "write 10.8.0.0/16",
            ),
            (
                "network:\n  cidrs:\n    - {cidr: 10.8.0.0/16, class: vpc}\n",
                3,
                "vpc_peering",
            ),
            (
                "network:\n  cidrs:\n    - {cidr: ten, class: intranet}\n",
                3,
                "10.8.0.0/16",
            ),
            (
                "network:\n  cidrs:\n    - {cidr: 10.8.0.0/16, class: intranet}\n    - {cidr: 10.8.0.0/16, class: vpc_peering}\n",
                4,
                "at line 3",
            ),
            ("network:\n  controls: [example.com]\n", 2, "HOST:PORT"),
            ("network:\n  egress: {samples: 99}\n", 2, "between 1 and 16"),
            ("network:\n  metadata: azure\n", 2, "auto"),
            ("network:\n  baseline: near\n", 2, "10.0.0.1:443"),
            ("network:\n  snat_addresses: [nat]\n", 2, "no IP address"),
            ("network: [\n", 0, "line"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
            if line > 0 {
                assert!(error.contains(&format!("line {line}")), "{text}: {error}");
            }
        }
        let secret = Config::parse("network: {egress: {echo: ['https://u:hunter2@e.test/']}}");
        assert!(!secret.unwrap_err().contains("hunter2"));
    }
}
