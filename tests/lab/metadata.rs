//! A cloud's metadata service, as the clouds' own answer: what may be requested without harm, and also
//! what must never be requested, credentials, so that a test sees who does.

#![allow(dead_code, reason = "each program uses a part")]
#![allow(
    unreachable_pub,
    reason = "shared by several crates, which are no libraries"
)]

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::sync::oneshot;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    /// Huawei Cloud and Open Telekom Cloud, which has the same.
    #[default]
    Huawei,
    /// Version 2 only: without a token it says 401.
    Aws,
    Alibaba,
    /// Another cloud of OpenStack: no word of a VPC.
    OpenStack,
}

impl Cloud {
    pub fn parse(name: &str) -> Self {
        match name {
            "huawei" | "otc" => Self::Huawei,
            "aws" => Self::Aws,
            "alibaba" => Self::Alibaba,
            "openstack" => Self::OpenStack,
            _ => panic!("{name}: huawei, otc, aws, alibaba and openstack are known"),
        }
    }

    /// Where it listens.
    pub const fn addresses(self) -> &'static [&'static str] {
        match self {
            Self::Huawei | Self::OpenStack => &["169.254.169.254:80"],
            Self::Aws => &["169.254.169.254:80", "[fd00:ec2::254]:80"],
            Self::Alibaba => &["100.100.100.200:80"],
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Alibaba => "X-aliyun-ecs-metadata-token",
            _ => "X-aws-ec2-metadata-token",
        }
    }
}

/// What it says.
#[derive(Clone, Debug)]
pub struct Facts {
    pub cloud: Cloud,
    pub private_ipv4: String,
    /// None without an EIP: then the path is not found.
    pub public_ipv4: Option<String>,
    /// Without an EIP the path is there, and empty.
    pub empty_public: bool,
    /// AWS may have several; Alibaba says the first.
    pub vpc_cidrs: Vec<String>,
    pub vpc_cidrs_v6: Vec<String>,
    pub subnet_cidr: String,
    /// Alibaba's version 2; AWS always wants it.
    pub token_wanted: bool,
    /// Sends everybody there.
    pub redirect: Option<String>,
    /// Takes requests and never answers.
    pub hang: bool,
    /// The hop limit of its answers: AWS stops pods by a small one.
    pub ttl: Option<u32>,
    /// What the machine may have, in Mbit/s.
    pub max_bandwidth: u64,
    /// Every request's line goes there, too.
    pub log: Option<PathBuf>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            cloud: Cloud::default(),
            private_ipv4: "10.0.1.10".to_owned(),
            public_ipv4: None,
            empty_public: false,
            vpc_cidrs: vec!["10.0.0.0/16".to_owned()],
            vpc_cidrs_v6: vec!["2a0a:1::/32".to_owned()],
            subnet_cidr: "10.0.1.0/24".to_owned(),
            token_wanted: false,
            redirect: None,
            hang: false,
            ttl: None,
            max_bandwidth: 500,
            log: None,
        }
    }
}

impl Facts {
    pub fn of(cloud: Cloud) -> Self {
        Self {
            cloud,
            ..Self::default()
        }
    }

    pub fn with_public(cloud: Cloud, address: &str) -> Self {
        Self {
            public_ipv4: Some(address.to_owned()),
            ..Self::of(cloud)
        }
    }
}

/// In credentials that must not be read; it must turn up nowhere.
pub const CANARY: &str = "canary-2b77-metadata-credential";

const MAC: &str = "fa:16:3e:00:00:0a";
const ZONE: &str = "lab-1a";
const VPC_ID: &str = "11111111-2222-4333-8444-555555555555";
const TOKEN: &str = "canary-token-of-metadata==";

/// The service, on a thread; gone when dropped.
#[derive(Debug)]
pub struct Metadata {
    requests: Arc<Mutex<Vec<String>>>,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Metadata {
    /// On these sockets, in the network namespace where they were made.
    pub fn start(listeners: Vec<TcpListener>, facts: Facts) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let facts = Arc::new(facts);
            runtime.block_on(async {
                for listener in listeners {
                    if let Some(ttl) = facts.ttl {
                        listener.set_ttl(ttl).unwrap();
                    }
                    listener.set_nonblocking(true).unwrap();
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    tokio::spawn(accept(listener, Arc::clone(&facts), Arc::clone(&seen)));
                }
                let _ = stopped.await;
            });
        });
        Self {
            requests,
            running: Mutex::new(Some((stop, thread))),
        }
    }

    /// The requests so far, `GET /path` each.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the service, also while its requests are still being read.
    pub fn stop(&self) {
        let running = self.running.lock();
        if let Some((stop, thread)) = running.unwrap_or_else(PoisonError::into_inner).take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }

    /// No request was for a credential, or for what an operator gave the machine at its start.
    pub fn assert_harmless(&self) {
        for request in self.requests() {
            for bad in [
                "security",
                "credential",
                "user-data",
                "user_data",
                "password",
                "dynamic",
            ] {
                assert!(
                    !request.contains(bad) || request.ends_with("/security-groups"),
                    "{request}"
                );
            }
        }
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    facts: Arc<Facts>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (facts, seen) = (Arc::clone(&facts), Arc::clone(&seen));
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let (facts, seen) = (Arc::clone(&facts), Arc::clone(&seen));
            async move {
                let line = format!("{} {}", request.method(), request.uri());
                if let Some(log) = &facts.log {
                    let mut file = OpenOptions::new()
                        .append(true)
                        .create(true)
                        .open(log)
                        .unwrap();
                    writeln!(file, "{line}").unwrap();
                }
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
                if facts.hang {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(answer(&facts, &request))
            }
        });
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn response(status: StatusCode, kind: &str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind);
    response.body(Full::new(text.into())).unwrap()
}

fn answer<B>(facts: &Facts, request: &Request<B>) -> Response<Full<Bytes>> {
    let plain = |status, text: &str| response(status, "text/plain", text.to_owned());
    if let Some(elsewhere) = &facts.redirect {
        let mut response = plain(StatusCode::FOUND, "");
        response
            .headers_mut()
            .insert(header::LOCATION, elsewhere.parse().unwrap());
        return response;
    }
    let path = request.uri().path();
    let name = facts.cloud.prefix();
    let given = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let has_tokens = matches!(facts.cloud, Cloud::Aws | Cloud::Alibaba);
    if request.method() == Method::PUT {
        let ttl = format!("{name}-ttl-seconds");
        return match given(&ttl).map(str::parse::<u32>) {
            _ if !has_tokens || path != "/latest/api/token" => {
                plain(StatusCode::METHOD_NOT_ALLOWED, "")
            }
            // A request that some proxy sends on for another is refused (IMDSv2).
            _ if given("x-forwarded-for").is_some() => plain(StatusCode::FORBIDDEN, ""),
            Some(Ok(seconds @ 1..=21_600)) => {
                let mut response = plain(StatusCode::OK, TOKEN);
                let name = header::HeaderName::from_bytes(ttl.as_bytes()).unwrap();
                response.headers_mut().insert(name, seconds.into());
                response
            }
            _ => plain(StatusCode::BAD_REQUEST, ""),
        };
    }
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    let wanted = facts.cloud == Cloud::Aws || (has_tokens && facts.token_wanted);
    if given(name) != Some(TOKEN) && (wanted || (has_tokens && given(name).is_some())) {
        return plain(StatusCode::UNAUTHORIZED, "");
    }
    let found = if let Some(path) = path.strip_prefix("/openstack/latest/") {
        openstack(facts, path).map(|text| response(StatusCode::OK, "application/json", text))
    } else if let Some(path) = path.strip_prefix("/latest/meta-data") {
        ec2(facts, path.trim_matches('/')).map(|text| plain(StatusCode::OK, &text))
    } else if path == "/latest/user-data" {
        Some(plain(StatusCode::OK, CANARY))
    } else if path == "/latest/" || path == "/latest" {
        Some(plain(StatusCode::OK, "meta-data\nuser-data"))
    } else {
        None
    };
    found.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "404 - Not Found"))
}

/// The documents of OpenStack, with what Huawei Cloud adds.
fn openstack(facts: &Facts, path: &str) -> Option<String> {
    let is_huawei = match facts.cloud {
        Cloud::Huawei => true,
        Cloud::OpenStack => false,
        Cloud::Aws | Cloud::Alibaba => return None,
    };
    let meta = if is_huawei {
        json!({"metering.image_id": "22222222-2222-4333-8444-555555555555", "vpc_id": VPC_ID})
    } else {
        json!({})
    };
    match path {
        "meta_data.json" => Some(
            json!({
                "uuid": "33333333-2222-4333-8444-555555555555", "name": "node-1",
                "hostname": "node-1.novalocal", "availability_zone": ZONE, "launch_index": 0,
                "project_id": "44444444222243338444555555555555", "meta": meta,
            })
            .to_string(),
        ),
        "network_data.json" => {
            let mut data = json!({
                "services": [{"type": "dns", "address": "10.0.0.53"}],
                "networks": [{
                    "network_id": "55555555-2222-4333-8444-555555555555",
                    "type": "ipv4_dhcp", "link": "tap0", "id": "network0",
                }],
                "links": [{
                    "type": if is_huawei { "cascading" } else { "ovs" }, "id": "tap0",
                    "vif_id": "66666666-2222-4333-8444-555555555555",
                    "ethernet_mac_address": MAC, "mtu": if is_huawei { json!(null) } else { json!(1500) },
                }],
            });
            if is_huawei {
                data["qos"] = json!({"instance_min_bandwidth": 100, "instance_max_bandwidth": facts.max_bandwidth});
            }
            Some(data.to_string())
        }
        "securitykey" if is_huawei => {
            Some(json!({"credential": {"access": CANARY, "secret": CANARY}}).to_string())
        }
        "user_data" | "password" => Some(CANARY.to_owned()),
        _ => None,
    }
}

/// The paths that began with EC2, and that others have in part.
fn ec2(facts: &Facts, path: &str) -> Option<String> {
    let (aws, alibaba) = (facts.cloud == Cloud::Aws, facts.cloud == Cloud::Alibaba);
    let public = facts
        .public_ipv4
        .clone()
        .or_else(|| facts.empty_public.then(String::new));
    if let Some(rest) = path.strip_prefix("network/interfaces/macs") {
        return (aws || alibaba).then(|| interface(facts, rest.trim_matches('/')))?;
    }
    match path {
        "mac" if aws || alibaba => Some(MAC.to_owned()),
        "instance-id" => Some("i-0123456789abcdef0".to_owned()),
        "placement/availability-zone" if !alibaba => Some(ZONE.to_owned()),
        "zone-id" if alibaba => Some(ZONE.to_owned()),
        "region-id" if alibaba => Some("lab-1".to_owned()),
        "vpc-id" if alibaba => Some(VPC_ID.to_owned()),
        "vpc-cidr-block" if alibaba => facts.vpc_cidrs.first().cloned(),
        "vswitch-cidr-block" if alibaba => Some(facts.subnet_cidr.clone()),
        "private-ipv4" if alibaba => Some(facts.private_ipv4.clone()),
        "eipv4" if alibaba => public,
        "local-ipv4" if !alibaba => Some(facts.private_ipv4.clone()),
        "public-ipv4" if !alibaba => public,
        "security-groups" => Some("default".to_owned()),
        "iam/security-credentials" => Some("node-role".to_owned()),
        "iam/security-credentials/node-role" | "ram/security-credentials/node-role" => {
            Some(json!({"SecretAccessKey": CANARY}).to_string())
        }
        "" => Some("instance-id\nmac\nnetwork/".to_owned()),
        _ => None,
    }
}

/// `network/interfaces/macs/…`.
fn interface(facts: &Facts, path: &str) -> Option<String> {
    let alibaba = facts.cloud == Cloud::Alibaba;
    if path.is_empty() {
        return Some(format!("{MAC}/"));
    }
    let (mac, path) = path.split_once('/').unwrap_or((path, ""));
    if mac != MAC {
        return None;
    }
    if let Some(address) = path.strip_prefix("ipv4-associations/") {
        return (facts.public_ipv4.as_deref() == Some(address)).then(|| facts.private_ipv4.clone());
    }
    match path {
        "" => Some("mac\nvpc-id\nsubnet-id".to_owned()),
        "mac" => Some(MAC.to_owned()),
        "vpc-id" => Some("vpc-0123456789abcdef0".to_owned()),
        "vpc-cidr-block" if alibaba => facts.vpc_cidrs.first().cloned(),
        "vswitch-cidr-block" if alibaba => Some(facts.subnet_cidr.clone()),
        "primary-ip-address" if alibaba => Some(facts.private_ipv4.clone()),
        _ if alibaba => None,
        "subnet-id" => Some("subnet-0123456789abcdef0".to_owned()),
        "vpc-ipv4-cidr-block" => facts.vpc_cidrs.first().cloned(),
        "vpc-ipv4-cidr-blocks" => Some(facts.vpc_cidrs.join("\n")),
        "vpc-ipv6-cidr-blocks" if !facts.vpc_cidrs_v6.is_empty() => {
            Some(facts.vpc_cidrs_v6.join("\n"))
        }
        "subnet-ipv4-cidr-block" => Some(facts.subnet_cidr.clone()),
        "local-ipv4s" => Some(facts.private_ipv4.clone()),
        "public-ipv4s" | "ipv4-associations" => facts.public_ipv4.clone(),
        _ => None,
    }
}
