//! Reads the metadata services of clouds. Only the paths listed here are requested, never one with credentials; without
//! a proxy, without following redirects, and for at most one second in total.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use serde_json::Value;
use tokio::time::Instant;

use crate::model::endpoint::Host;
use crate::model::network::{Metadata, MetadataFacts, Provider};
use crate::model::special;
use crate::model::text::printable;
use crate::model::units::Bytes;
use crate::net::api::{ApiClient, ApiFault};
use crate::net::tls::TlsClient;
use crate::trust::Pool;

/// Timeout of all requests. The address is link-local, so the service answers at once or not at all.
const LIMIT: Duration = Duration::from_secs(1);

/// Shorter than [`LIMIT`], so that a port that does not answer is distinguished from a service that does not.
const CONNECT_LIMIT: Duration = Duration::from_millis(900);

/// Upper bound of an answer; a `network_data.json` with many interfaces has some KiB.
const MAX_ANSWER: Bytes = Bytes(256 << 10);

/// Upper bound of the interfaces whose VPC is read.
const MAX_INTERFACES: usize = 4;

/// Reads the provider's metadata service. `None`: that provider is not supported.
pub(super) async fn ask(provider: Provider) -> Option<Metadata> {
    let hosts = addresses(provider)?;
    let start = Instant::now();
    let deadline = start + LIMIT;
    let result = match Service::first_of(hosts, provider, deadline).await {
        Ok(service) => match provider {
            Provider::Aws => service.aws().await,
            Provider::Alibaba => service.alibaba().await,
            _ => service.openstack(provider).await,
        },
        Err(fault) => Err(fault),
    };
    let took = start.elapsed();
    Some(match result {
        Ok(facts) => Metadata::Answered { facts, took },
        Err(fault) => Metadata::NoAnswer {
            provider,
            fault,
            took,
        },
    })
}

/// The addresses of a provider's service; `None`: it is not supported.
fn addresses(provider: Provider) -> Option<&'static [IpAddr]> {
    const COMMON: IpAddr = IpAddr::V4(special::METADATA);
    const EC2_V6: IpAddr = IpAddr::V6(special::EC2_METADATA);
    const ALIBABA: IpAddr = IpAddr::V4(special::ALIBABA_METADATA);
    match provider {
        Provider::Huawei | Provider::Otc | Provider::Openstack => Some(&[COMMON]),
        Provider::Aws => Some(&[COMMON, EC2_V6]),
        Provider::Alibaba => Some(&[ALIBABA]),
        Provider::Azure | Provider::Gcp => None,
    }
}

struct Service {
    client: ApiClient,
    address: Host,
    deadline: Instant,
    /// The header with a session's token (IMDSv2 and similar); empty without one.
    token: HeaderMap,
}

/// Addresses, separated by white space. `None`: there was no answer, or an invalid one.
fn addresses_in(text: Option<String>) -> Option<Vec<IpAddr>> {
    let text = text?;
    let words = text.split_whitespace();
    words.map(|word| word.parse().ok()).collect()
}

fn networks_in(text: Option<String>) -> Vec<IpNet> {
    let text = text.unwrap_or_default();
    let words = text.split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

impl Service {
    /// Connects to the address that answers first; a node without IPv4 reaches only the IPv6 one.
    async fn first_of(
        hosts: &[IpAddr],
        provider: Provider,
        deadline: Instant,
    ) -> Result<Self, String> {
        let open = |host| async move { (host, Self::open(host, provider, deadline).await) };
        let mut opening: FuturesUnordered<_> = hosts.iter().copied().map(open).collect();
        let mut fault = String::new();
        while let Some((host, opened)) = opening.next().await {
            match opened {
                Ok(service) => return Ok(service),
                // The fault of the first address is reported.
                Err(met) if host == hosts[0] => fault = met,
                Err(_) => {}
            }
        }
        Err(fault)
    }

    /// Opens a session, with a token if the provider issues one.
    async fn open(host: IpAddr, provider: Provider, deadline: Instant) -> Result<Self, String> {
        let address = Host::Address(host);
        // No roots: all services use plain HTTP.
        let tls = TlsClient::new(Pool::default(), &[]);
        let client = ApiClient::new(&address, host, &tls, CONNECT_LIMIT);
        let mut service = Self {
            client: client.map_err(|fault| fault.to_string())?,
            address,
            deadline,
            token: HeaderMap::new(),
        };
        let (ttl, token) = match provider {
            Provider::Aws => (
                "x-aws-ec2-metadata-token-ttl-seconds",
                "x-aws-ec2-metadata-token",
            ),
            Provider::Alibaba => (
                "x-aliyun-ecs-metadata-token-ttl-seconds",
                "x-aliyun-ecs-metadata-token",
            ),
            _ => return Ok(service),
        };
        match service.begin_session(ttl, token).await {
            // The hardened mode requires a token; the normal mode has none.
            Ok(_) | Err(ApiFault::Http(_)) if provider == Provider::Alibaba => Ok(service),
            Ok(_) if !service.token.is_empty() => Ok(service),
            Ok(status) => Err(format!(
                "the request for a session token returns HTTP {}",
                status.as_u16()
            )),
            Err(fault) => Err(fault.to_string()),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<(StatusCode, String), ApiFault> {
        let url = format!("http://{}{path}", self.address);
        let left = self.deadline.saturating_duration_since(Instant::now());
        let sent = self.client.send(method, &url, headers, left, MAX_ANSWER);
        let answer = sent.await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Ok((answer.status, text))
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, String), ApiFault> {
        self.send(Method::GET, path, self.token.clone()).await
    }

    /// Requests the path that identifies the service.
    async fn first(&self, path: &str) -> Result<String, String> {
        match self.ask(path).await.map_err(|fault| fault.to_string())? {
            (StatusCode::OK, text) => Ok(text),
            (status, _) if status.is_redirection() => Err(format!(
                "{path} redirects (HTTP {}), which is not followed",
                status.as_u16()
            )),
            (status, _) => Err(format!("{path} returns HTTP {}", status.as_u16())),
        }
    }

    /// The answer of a path; empty on 404. `None`: any other status, or no answer.
    async fn get(&self, path: &str) -> Option<String> {
        match self.ask(path).await {
            Ok((StatusCode::OK, text)) => Some(text),
            Ok((StatusCode::NOT_FOUND, _)) => Some(String::new()),
            _ => None,
        }
    }

    /// Requests a token to send with all later requests; the service may issue none.
    async fn begin_session(
        &mut self,
        ttl: &'static str,
        token: &'static str,
    ) -> Result<StatusCode, ApiFault> {
        let minute = HeaderValue::from_static("60");
        let header = HeaderMap::from_iter([(HeaderName::from_static(ttl), minute)]);
        let (status, text) = self.send(Method::PUT, "/latest/api/token", header).await?;
        let value = HeaderValue::from_str(text.trim()).ok();
        if let Some(mut value) = value.filter(|value| status == StatusCode::OK && !value.is_empty())
        {
            value.set_sensitive(true);
            self.token.insert(HeaderName::from_static(token), value);
        }
        Ok(status)
    }

    /// Reads this machine's addresses from the paths of the private and the public ones.
    async fn add_addresses(&self, facts: &mut MetadataFacts, (private, public): (&str, &str)) {
        facts.private = addresses_in(self.get(private).await).unwrap_or_default();
        facts.public = addresses_in(self.get(public).await);
    }

    /// Huawei Cloud, Open Telekom Cloud and OpenStack, which share one format.
    async fn openstack(&self, provider: Provider) -> Result<MetadataFacts, String> {
        let path = "/openstack/latest/meta_data.json";
        let text = self.first(path).await?;
        let mut facts = read_openstack(&text, provider)
            .ok_or_else(|| format!("{path} is not OpenStack metadata"))?;
        if let Some(text) = self.get("/openstack/latest/network_data.json").await {
            facts.max_bandwidth_mbit = max_bandwidth(&text);
        }
        let of_host = (
            "/latest/meta-data/local-ipv4",
            "/latest/meta-data/public-ipv4",
        );
        self.add_addresses(&mut facts, of_host).await;
        Ok(facts)
    }

    /// Amazon EC2, version 2 of its protocol.
    async fn aws(&self) -> Result<MetadataFacts, String> {
        let mut facts = no_facts(Provider::Aws);
        let interfaces = "/latest/meta-data/network/interfaces/macs/";
        let list = self.first(interfaces).await?;
        for mac in list.split_whitespace().take(MAX_INTERFACES) {
            let mac = mac.trim_end_matches('/');
            if !mac.chars().all(|c| c.is_ascii_hexdigit() || c == ':') {
                return Err(format!("'{}' is not a MAC address", printable(mac)));
            }
            for leaf in ["vpc-ipv4-cidr-blocks", "vpc-ipv6-cidr-blocks"] {
                let found = self.get(&format!("{interfaces}{mac}/{leaf}")).await;
                add(&mut facts.vpc_cidrs, networks_in(found));
            }
            for leaf in ["subnet-ipv4-cidr-block", "subnet-ipv6-cidr-blocks"] {
                let found = self.get(&format!("{interfaces}{mac}/{leaf}")).await;
                add(&mut facts.subnet_cidrs, networks_in(found));
            }
        }
        let of_host = (
            "/latest/meta-data/local-ipv4",
            "/latest/meta-data/public-ipv4",
        );
        self.add_addresses(&mut facts, of_host).await;
        Ok(facts)
    }

    /// Alibaba Cloud ECS, with a session token if it issues one.
    async fn alibaba(&self) -> Result<MetadataFacts, String> {
        let mut facts = no_facts(Provider::Alibaba);
        let vpc = self.first("/latest/meta-data/vpc-cidr-block").await?;
        facts.vpc_cidrs = networks_in(Some(vpc));
        facts.subnet_cidrs = networks_in(self.get("/latest/meta-data/vswitch-cidr-block").await);
        let of_host = ("/latest/meta-data/private-ipv4", "/latest/meta-data/eipv4");
        self.add_addresses(&mut facts, of_host).await;
        Ok(facts)
    }
}

fn no_facts(provider: Provider) -> MetadataFacts {
    MetadataFacts {
        provider,
        vpc_id: None,
        vpc_cidrs: Vec::new(),
        subnet_cidrs: Vec::new(),
        private: Vec::new(),
        public: None,
        max_bandwidth_mbit: None,
    }
}

fn add(to: &mut Vec<IpNet>, found: Vec<IpNet>) {
    for network in found {
        if !to.contains(&network) {
            to.push(network);
        }
    }
}

/// Parses `meta_data.json`. Huawei Cloud and clouds like it include the VPC's ID; plain OpenStack does not.
fn read_openstack(text: &str, queried: Provider) -> Option<MetadataFacts> {
    let value: Value = serde_json::from_str(text).ok()?;
    value.get("uuid")?.as_str()?;
    let vpc_id = value
        .pointer("/meta/vpc_id")
        .and_then(Value::as_str)
        .map(printable);
    let provider = match (&vpc_id, queried) {
        (Some(_), Provider::Openstack) => Provider::Huawei,
        (_, queried) => queried,
    };
    Some(MetadataFacts {
        vpc_id,
        ..no_facts(provider)
    })
}

/// `qos.instance_max_bandwidth` of `network_data.json`, in Mbit/s. `None`: absent, or no limit (-1).
fn max_bandwidth(text: &str) -> Option<u64> {
    let value: Value = serde_json::from_str(text).ok()?;
    value.pointer("/qos/instance_max_bandwidth")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_vpc_tells_huawei_from_plain_openstack() {
        let huawei = r#"{"uuid": "1", "meta": {"vpc_id": "7a1b", "other": 1}}"#;
        let facts = read_openstack(huawei, Provider::Openstack).unwrap();
        assert_eq!(facts.provider, Provider::Huawei);
        assert_eq!(facts.vpc_id.as_deref(), Some("7a1b"));
        let facts = read_openstack(huawei, Provider::Otc).unwrap();
        assert_eq!(facts.provider, Provider::Otc);
        let plain = read_openstack(r#"{"uuid": "1"}"#, Provider::Openstack).unwrap();
        assert_eq!(plain.provider, Provider::Openstack);
        for wrong in ["", "[]", "<html>", r#"{"meta": {"vpc_id": "x"}}"#] {
            assert!(read_openstack(wrong, Provider::Huawei).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_answer_says_that_there_is_no_address_and_a_strange_one_says_nothing() {
        let text = |text: &str| addresses_in(Some(text.to_owned()));
        assert_eq!(text("121.36.1.2").unwrap().len(), 1);
        assert_eq!(text(""), Some(Vec::new()));
        assert_eq!(text("<html>login</html>"), None);
        assert_eq!(addresses_in(None), None);
    }

    #[test]
    fn a_bandwidth_without_limit_is_none() {
        let read = |max: &str| {
            max_bandwidth(&format!(
                r#"{{"qos": {{"instance_max_bandwidth": {max}}}}}"#
            ))
        };
        assert_eq!(read("500"), Some(500));
        assert_eq!(read("-1"), None);
        assert_eq!(max_bandwidth("{}"), None);
    }
}
