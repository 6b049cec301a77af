//! The metadata services of clouds. Only the harmless paths listed here are asked, never one with
//! credentials; without a proxy, without following redirects, and for a second in all.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes as Body;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use ipnet::IpNet;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::model::network::{Metadata, MetadataFacts, Provider};
use crate::model::text::printable;
use crate::model::units::Bytes;
use crate::net::http::HttpConnection;
use crate::net::stream::Stream;
use crate::net::tcp;

/// Link-local: it answers at once or not at all.
const LIMIT: Duration = Duration::from_secs(1);

/// A `network_data.json` of many interfaces is some KiB.
const MAX_ANSWER: Bytes = Bytes(256 << 10);

/// Interfaces whose VPC is asked for.
const MAX_INTERFACES: usize = 4;

/// Asks the provider's service. `None`: it has none that is read here.
pub(super) async fn ask(provider: Provider) -> Option<Metadata> {
    let hosts = addresses(provider)?;
    let start = Instant::now();
    let deadline = start + LIMIT;
    let result = match Service::connect(hosts, deadline).await {
        Ok(mut service) => match provider {
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

/// Where a provider's service is.
fn addresses(provider: Provider) -> Option<&'static [IpAddr]> {
    const COMMON: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));
    const EC2_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));
    const ALIBABA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 100, 100, 200));
    match provider {
        Provider::Huawei | Provider::Otc | Provider::Openstack => Some(&[COMMON]),
        Provider::Aws => Some(&[COMMON, EC2_V6]),
        Provider::Alibaba => Some(&[ALIBABA]),
        Provider::Azure | Provider::Gcp => None,
    }
}

struct Service {
    address: SocketAddr,
    connection: HttpConnection,
    deadline: Instant,
    /// Of a session (IMDSv2 and its like).
    token: Option<(HeaderName, HeaderValue)>,
}

/// What a path answered.
enum Said {
    Text(String),
    /// 404, or an empty answer: there is none.
    Nothing,
    /// No word on it.
    Unknown,
}

impl Said {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Addresses, one a line. Absent when nothing was said.
    fn addresses(self) -> Option<Vec<IpAddr>> {
        match self {
            Self::Text(text) => text
                .split_whitespace()
                .map(|word| word.parse().ok())
                .collect(),
            Self::Nothing => Some(Vec::new()),
            Self::Unknown => None,
        }
    }

    fn networks(self) -> Vec<IpNet> {
        let text = self.text().unwrap_or_default();
        text.split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    }
}

impl Service {
    /// To whichever of its addresses answers first: a node without IPv4 has the other one.
    async fn connect(hosts: &[IpAddr], deadline: Instant) -> Result<Self, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut dials = JoinSet::new();
        for host in hosts.iter().copied() {
            dials.spawn(async move { (host, tcp::connect(&[host], 80, left).await) });
        }
        let mut fault = "no connection".to_owned();
        let mut found = None;
        while let Some(joined) = dials.join_next().await {
            let Ok((host, dialed)) = joined else {
                continue;
            };
            if let Some(stream) = dialed.stream {
                found = Some((SocketAddr::new(host, 80), stream));
                break;
            }
            // Of several, what the first address met is told.
            if let Some(met) = dialed.connect.outcome.fault().filter(|_| host == hosts[0]) {
                fault = met.to_string();
            }
        }
        let Some((address, stream)) = found else {
            return Err(fault);
        };
        let connection = HttpConnection::open(Stream::Plain(stream))
            .await
            .map_err(|fault| fault.to_string())?;
        Ok(Self {
            address,
            connection,
            deadline,
            token: None,
        })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<(StatusCode, String), String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("a second has passed".to_owned());
        }
        let words = |error: crate::model::fault::HttpFault| error.to_string();
        let exchange = async {
            if !self.connection.is_reusable() {
                let again = Self::connect(&[self.address.ip()], self.deadline).await?;
                self.connection = again.connection;
            }
            let mut request = Request::new(Body::new());
            *request.method_mut() = method;
            let host = match self.address.ip() {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => format!("[{v6}]"),
            };
            let uri = format!("http://{host}{path}");
            *request.uri_mut() = uri.parse().map_err(|_| "not a path".to_owned())?;
            for (name, value) in header.into_iter().chain(self.token.clone()) {
                request.headers_mut().insert(name, value);
            }
            let response = self.connection.send(request, left).await.map_err(words)?;
            let status = response.status;
            let body = response.read(MAX_ANSWER, left).await.map_err(words)?;
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::time::timeout(left, exchange)
            .await
            .unwrap_or_else(|_| Err("no answer within a second".to_owned()))
    }

    /// The answer to a path by which the service is known.
    async fn first(&mut self, path: &str) -> Result<String, String> {
        match self.send(Method::GET, path, None).await? {
            (StatusCode::OK, text) => Ok(text),
            (status, _) if status.is_redirection() => Err(format!(
                "{path} is redirected (HTTP {}), which is not followed",
                status.as_u16()
            )),
            (status, _) => Err(format!("{path} is answered HTTP {}", status.as_u16())),
        }
    }

    async fn get(&mut self, path: &str) -> Said {
        match self.send(Method::GET, path, None).await {
            Ok((StatusCode::OK, text)) if text.trim().is_empty() => Said::Nothing,
            Ok((StatusCode::OK, text)) => Said::Text(text.trim().to_owned()),
            Ok((StatusCode::NOT_FOUND, _)) => Said::Nothing,
            _ => Said::Unknown,
        }
    }

    /// A token for the session; the service may know none.
    async fn begin_session(
        &mut self,
        ttl: &'static str,
        token: &'static str,
    ) -> Result<(), String> {
        let header = (HeaderName::from_static(ttl), HeaderValue::from_static("60"));
        let (status, text) = self
            .send(Method::PUT, "/latest/api/token", Some(header))
            .await?;
        let value = HeaderValue::from_str(text.trim()).ok();
        match value.filter(|value| status == StatusCode::OK && !value.is_empty()) {
            Some(mut value) => {
                value.set_sensitive(true);
                self.token = Some((HeaderName::from_static(token), value));
                Ok(())
            }
            None => Err(format!(
                "the session's token is answered HTTP {}",
                status.as_u16()
            )),
        }
    }

    /// Huawei Cloud, Open Telekom Cloud, and OpenStack, whose form they have.
    async fn openstack(&mut self, provider: Provider) -> Result<MetadataFacts, String> {
        let path = "/openstack/latest/meta_data.json";
        let text = self.first(path).await?;
        let mut facts = read_openstack(&text, provider)
            .ok_or_else(|| format!("{path} is no metadata of OpenStack"))?;
        if let Some(text) = self.get("/openstack/latest/network_data.json").await.text() {
            facts.max_bandwidth_mbit = max_bandwidth(&text);
        }
        facts.private = self
            .get("/latest/meta-data/local-ipv4")
            .await
            .addresses()
            .unwrap_or_default();
        facts.public = self.get("/latest/meta-data/public-ipv4").await.addresses();
        Ok(facts)
    }

    /// Amazon EC2, version 2 of its protocol.
    async fn aws(&mut self) -> Result<MetadataFacts, String> {
        self.begin_session(
            "x-aws-ec2-metadata-token-ttl-seconds",
            "x-aws-ec2-metadata-token",
        )
        .await?;
        let mut facts = none_yet(Provider::Aws);
        let interfaces = "/latest/meta-data/network/interfaces/macs/";
        let list = self.first(interfaces).await?;
        for mac in list.split_whitespace().take(MAX_INTERFACES) {
            let mac = mac.trim_end_matches('/');
            if !mac.chars().all(|c| c.is_ascii_hexdigit() || c == ':') {
                return Err(format!("'{}' is no interface", printable(mac)));
            }
            for leaf in ["vpc-ipv4-cidr-blocks", "vpc-ipv6-cidr-blocks"] {
                let found = self.get(&format!("{interfaces}{mac}/{leaf}")).await;
                add(&mut facts.vpc_cidrs, found.networks());
            }
            for leaf in ["subnet-ipv4-cidr-block", "subnet-ipv6-cidr-blocks"] {
                let found = self.get(&format!("{interfaces}{mac}/{leaf}")).await;
                add(&mut facts.subnet_cidrs, found.networks());
            }
        }
        let private = self.get("/latest/meta-data/local-ipv4").await.addresses();
        facts.private = private.unwrap_or_default();
        facts.public = self.get("/latest/meta-data/public-ipv4").await.addresses();
        Ok(facts)
    }

    /// Alibaba Cloud ECS, with a session's token where it gives one.
    async fn alibaba(&mut self) -> Result<MetadataFacts, String> {
        // The hardened mode wants one; the other has none.
        let _ = self
            .begin_session(
                "x-aliyun-ecs-metadata-token-ttl-seconds",
                "x-aliyun-ecs-metadata-token",
            )
            .await;
        let mut facts = none_yet(Provider::Alibaba);
        let vpc = self.first("/latest/meta-data/vpc-cidr-block").await?;
        facts.vpc_cidrs = Said::Text(vpc).networks();
        let subnet = self.get("/latest/meta-data/vswitch-cidr-block").await;
        facts.subnet_cidrs = subnet.networks();
        let private = self.get("/latest/meta-data/private-ipv4").await.addresses();
        facts.private = private.unwrap_or_default();
        facts.public = self.get("/latest/meta-data/eipv4").await.addresses();
        Ok(facts)
    }
}

fn none_yet(provider: Provider) -> MetadataFacts {
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

/// `meta_data.json`: Huawei Cloud and its like have the VPC's id in it, plain OpenStack has none.
fn read_openstack(text: &str, asked: Provider) -> Option<MetadataFacts> {
    let value: Value = serde_json::from_str(text).ok()?;
    value.get("uuid")?.as_str()?;
    let vpc_id = value
        .pointer("/meta/vpc_id")
        .and_then(Value::as_str)
        .map(printable);
    let provider = match (&vpc_id, asked) {
        (Some(_), Provider::Openstack) => Provider::Huawei,
        (_, asked) => asked,
    };
    Some(MetadataFacts {
        vpc_id,
        ..none_yet(provider)
    })
}

/// `qos.instance_max_bandwidth` of `network_data.json`, in Mbit/s; -1 is no limit.
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
        let text = |text: &str| Said::Text(text.to_owned()).addresses();
        assert_eq!(text("121.36.1.2").unwrap().len(), 1);
        assert_eq!(Said::Nothing.addresses(), Some(Vec::new()));
        assert_eq!(text("<html>login</html>"), None);
        assert_eq!(Said::Unknown.addresses(), None);
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
