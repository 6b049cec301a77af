//! What was seen on the way of one pull. Every phase ends in done, failed or skipped; "not
//! measured" has a reason and is never a zero.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential::{CredentialId, KeyringEvidence};
use super::endpoint::{Endpoint, Host, Role, split_port};
use super::fault::{
    DnsFault, HttpFault, ManifestFault, Phase, ProxyFault, TcpFault, TlsFault, TokenFault,
};
use super::hops::Trace;
use super::hosts::{HostsConfig, RegistryHost};
use super::kubelet::KubeletVersion;
use super::network::RouteLookup;
use super::platform::Platform;
use super::proxy::{ProxySettings, Tunnel, Way};
use super::reference::Reference;
use super::runtime::Runtime;
use super::transfer::Transfer;
use super::units::{Bytes, optional_seconds, seconds};
use super::vantage::Vantage;
use super::workload::{PodUse, SecretAsked};

/// How a phase ended.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Step<T, F> {
    Done {
        value: T,
        #[serde(rename = "took_seconds", with = "seconds")]
        #[schemars(with = "f64")]
        took: Duration,
    },
    Failed {
        fault: F,
        #[serde(rename = "took_seconds", with = "seconds")]
        #[schemars(with = "f64")]
        took: Duration,
    },
    Skipped {
        reason: Skip,
    },
}

impl<T, F> Step<T, F> {
    pub fn done(&self) -> Option<&T> {
        match self {
            Self::Done { value, .. } => Some(value),
            _ => None,
        }
    }

    pub fn fault(&self) -> Option<&F> {
        match self {
            Self::Failed { fault, .. } => Some(fault),
            _ => None,
        }
    }

    /// How long it took; `None` when it was not run.
    pub fn took(&self) -> Option<Duration> {
        match self {
            Self::Done { took, .. } | Self::Failed { took, .. } => Some(*took),
            Self::Skipped { .. } => None,
        }
    }

    /// A step that ran from a start until now.
    pub fn from_result(result: Result<T, F>, took: Duration) -> Self {
        match result {
            Ok(value) => Self::Done { value, took },
            Err(fault) => Self::Failed { fault, took },
        }
    }
}

/// Why a phase was not run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Skip {
    /// An earlier phase failed.
    Blocked { role: Role, phase: Phase },
    /// The leg's server is that of an earlier leg, and its connection was used.
    SharedConnection { role: Role },
    /// The protocol does not ask for it here (no TLS over plain http, no token when anonymous is let in).
    NotNeeded,
    /// Nothing to look for: the image has no layer.
    NoLayer,
    /// The place is one that no client should be led to; nothing was sent there.
    Untrusted,
    /// Another host serves this part.
    OtherHost,
    /// It might count against a rate limit of which little is left.
    Spared,
}

/// Everything seen of one pull.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Evidence {
    pub reference: Reference,
    pub platform: Platform,
    /// When the walk began, by the local clock.
    pub started: Timestamp,
    pub vantage: Vantage,
    /// The containers that want the image, where manifests were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodUse>,
    /// Secrets of the cluster that whoever asked has named (`--secret`, `--service-account`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked_secrets: Vec<SecretAsked>,
    pub keyring: KeyringEvidence,
    /// The container runtime that pulls; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// The kubelet's version; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<KubeletVersion>,
    /// The line of releases by whose rules this walk was made, where others would not do the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walked_as: Option<String>,
    /// The same walk by the rules of other releases, where the runtime's version is not known and they
    /// would not do the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_release: Vec<ByRelease>,
    /// The walk got all content of the image, as far as it asked for it. Absent in reports of versions
    /// that did not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled: Option<bool>,
    /// What containerd's `hosts.toml` says of this registry.
    #[serde(default)]
    pub hosts: HostsConfig,
    #[serde(default)]
    pub proxies: ProxySettings,
    /// The walk of the host that decides: the one that serves the layers (or the manifest, where a
    /// host that lacks it has the layers), or the last that was asked in vain.
    #[serde(flatten)]
    pub walk: Walk,
    /// The walks of the other hosts that were asked, in containerd's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Walk>,
    /// Hosts that no pull gets to, because one before them serves all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_asked: Vec<RegistryHost>,
    /// The last host of the list, which was asked once for the manifest because a mirror before it
    /// serves the image: what a pull would get if the mirror failed. It plays no part in the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Box<Walk>>,
    /// The same walk without the proxy, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<Box<Walk>>,
    /// Every HTTP exchange, when that was asked for (`--trace`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<TracedExchange>,
}

/// A walk by the rules of one line of releases.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ByRelease {
    /// For people: `containerd 1.6`.
    pub release: String,
    /// Nothing in this walk depended on the release, and an earlier walk met something that did: the
    /// servers answered differently.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers_changed: bool,
    /// The release is that of the other walk: other settings than those that were read may be in force.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_settings: bool,
    pub evidence: Box<Evidence>,
}

/// What was seen at one host, from its name to a layer.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Walk {
    pub host: RegistryHost,
    /// It was asked for the image by its digest, since another host said what the tag stands for.
    #[serde(default)]
    pub by_digest: bool,
    /// It did not say what the reference stands for, and another host did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resolved_elsewhere: bool,
    /// The trusted roots in force.
    pub roots: Roots,
    /// In the order they were found. The first is the registry's.
    pub legs: Vec<Leg>,
    pub ping: Step<Ping, HttpFault>,
    /// The credentials tried, in order; the last is the one that worked, if one did.
    pub attempts: Vec<Attempt>,
    /// The manifest of this platform.
    pub manifest: Step<ManifestFound, ManifestFault>,
    pub blob: Step<BlobFound, HttpFault>,
    /// The image's configuration; absent in reports of versions that did not ask for it, and where
    /// the walk did not get that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Step<ContentRead, HttpFault>>,
    /// The layers that this host was asked for, in the order of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerRead>,
    /// The transfer test, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// `RateLimit-*` headers of the manifest request (Docker Hub).
    pub rate_limit: Option<RateLimit>,
    /// What came of trying again with small segments, where large ones seem to vanish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<SegmentTrials>,
}

/// One endpoint of the pull, and how it was reached.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Leg {
    pub role: Role,
    pub endpoint: Endpoint,
    /// Directly, or by a proxy: then it is the proxy that was resolved and connected to.
    #[serde(default)]
    pub way: Way,
    pub resolve: Resolve,
    pub connect: Connect,
    /// TLS with the proxy, where it is one of https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_tls: Option<Tls>,
    /// The word of the proxy, where one opens the way (`CONNECT`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Step<Tunnel, ProxyFault>>,
    pub tls: Tls,
    /// What a `Date` header (RFC 9110, 6.6.1) of a verified or plain-http answer said of our clock.
    pub clock: Option<ClockCheck>,
    /// Where the kernel sends packets to each of the addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteLookup>,
    /// What the kernel had measured of the connection when the walk was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The routers on the way to the address connected to, when that was asked for (`--hops`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<Trace>,
    /// The trial of a ClientHello that fills two packets, where one was made; by the daemon it may be
    /// older than this walk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_hello: Option<LargeHello>,
}

/// A handshake with a ClientHello that fills two packets, where the usual one, which fits into one,
/// had passed.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LargeHello {
    /// When it was sent.
    pub at: Timestamp,
    pub to: SocketAddr,
    /// The size of its TLS record.
    pub bytes: Bytes,
    pub large: Step<Session, TlsFault>,
    /// The usual ClientHello again, where the large one was not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<Step<Session, TlsFault>>,
    /// How many trials in a row, this one included, found the large hello dropped; 0: it was not.
    pub in_a_row: u32,
}

impl LargeHello {
    /// Not a byte came back for the large one.
    pub fn is_unanswered(&self) -> bool {
        is_unanswered(&self.large)
    }

    /// The large one got no answer, and the usual one did right after it.
    pub fn is_dropped(&self) -> bool {
        let answers = |short: &Step<Session, TlsFault>| !is_unanswered(short);
        self.is_unanswered() && self.short.as_ref().is_some_and(answers)
    }
}

fn is_unanswered(handshake: &Step<Session, TlsFault>) -> bool {
    matches!(
        handshake.fault(),
        Some(
            TlsFault::Timeout { received: Bytes(0) }
                | TlsFault::Reset { received: Bytes(0) }
                | TlsFault::Closed { received: Bytes(0) }
        )
    )
}

/// TCP_INFO of a connection that has carried its part of the walk (linux/tcp.h).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Transport {
    /// `tcpi_min_rtt`.
    #[serde(rename = "min_rtt_seconds", with = "optional_seconds")]
    #[schemars(with = "Option<f64>")]
    pub min_rtt: Option<Duration>,
    /// `tcpi_snd_mss`: towards the server, less the options in use.
    pub send_mss: Option<u32>,
    /// `tcpi_rcv_mss`: an estimate of the segments that came; a guess until there was data.
    pub receive_mss: Option<u32>,
    /// `tcpi_pmtu`: towards the server, as far as learnt.
    pub path_mtu: Option<u32>,
    /// `tcpi_total_retrans`.
    pub retransmits: Option<u32>,
}

/// The `Date` of an answer beside the local clock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ClockCheck {
    pub server: Timestamp,
    pub local: Timestamp,
}

impl Leg {
    /// The host that was resolved and connected to: the server's, or that of the proxy before it.
    pub fn dialled(&self) -> Host {
        match self.way.proxy() {
            Some(proxy) => {
                let (host, _) = split_port(&proxy.authority);
                Host::new(host)
            }
            None => self.endpoint.host.clone(),
        }
    }
}

// ---- resolve ------------------------------------------------------------------------------------

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Resolve {
    /// Every question put to every server, in the order of names, attempts, servers, families. A
    /// question that stayed unanswered and was put again is there once for each attempt.
    pub queries: Vec<Query>,
    #[serde(flatten)]
    pub outcome: Step<Resolution, DnsFault>,
}

impl Resolve {
    /// The first name and family that two servers say contrary things of; `None` when they agree
    /// as far as they answered.
    ///
    /// Contrary are: addresses with none in common, and addresses against NXDOMAIN, or, for IPv4,
    /// against NODATA. Sets that overlap agree, as servers rotate and shorten them. NODATA for AAAA
    /// agrees with anything: resolvers filter AAAA, or make them up (DNS64, RFC 6147). A server
    /// that gave no word (timeout, SERVFAIL, REFUSED) takes no part.
    ///
    /// Disjoint public addresses may come of load balancing by DNS, where each resolver is given
    /// the servers nearest to it; a private address against a public one, or against NXDOMAIN, is
    /// split horizon. The caller weighs that by the addresses.
    pub fn disagreement(&self) -> Option<Disagreement> {
        let mut done: Vec<(&str, Family)> = Vec::new();
        for query in &self.queries {
            let key = (query.name.as_str(), query.family);
            if done.contains(&key) {
                continue;
            }
            done.push(key);
            let mut said: Vec<(SocketAddr, Said)> = Vec::new();
            for other in &self.queries {
                if (other.name.as_str(), other.family) != key {
                    continue;
                }
                if let Some(word) = Said::of(other) {
                    said.push((other.server, word));
                }
            }
            let is_contrary = said.iter().enumerate().any(|(i, (_, a))| {
                said[i + 1..]
                    .iter()
                    .any(|(_, b)| a.is_contrary_to(b, query.family))
            });
            if is_contrary {
                return Some(Disagreement {
                    name: query.name.clone(),
                    family: query.family,
                    said,
                });
            }
        }
        None
    }

    /// [`Resolve::disagreement`] in words: each server with what it said, as `NXDOMAIN` or
    /// `10.0.3.9, 10.0.3.10`. Empty when the servers agree.
    pub fn disagreeing(&self) -> Vec<(SocketAddr, String)> {
        self.disagreement().map_or_else(Vec::new, |d| {
            d.said
                .iter()
                .map(|(server, said)| (*server, said.to_string()))
                .collect()
        })
    }
}

/// Servers that say contrary things of one name and family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disagreement {
    pub name: String,
    pub family: Family,
    /// Every server that gave a word, in the order of the resolver.
    pub said: Vec<(SocketAddr, Said)>,
}

/// A server's word on one name and family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    Addresses(Vec<IpAddr>),
    NxDomain,
    NoData,
}

impl Said {
    fn of(query: &Query) -> Option<Self> {
        match &query.outcome {
            Step::Done { value, .. } => Some(Self::Addresses(
                value.records.iter().map(|r| r.address).collect(),
            )),
            Step::Failed { fault, .. } => match fault {
                DnsFault::NxDomain => Some(Self::NxDomain),
                DnsFault::NoData => Some(Self::NoData),
                _ => None,
            },
            Step::Skipped { .. } => None,
        }
    }

    fn is_contrary_to(&self, other: &Self, family: Family) -> bool {
        match (self, other) {
            (Self::Addresses(a), Self::Addresses(b)) => {
                !a.iter().any(|address| b.contains(address))
            }
            (Self::Addresses(_), Self::NxDomain) | (Self::NxDomain, Self::Addresses(_)) => true,
            (Self::Addresses(_), Self::NoData) | (Self::NoData, Self::Addresses(_)) => {
                family == Family::V4
            }
            // No address either way (some servers say NXDOMAIN where NODATA is due, RFC 8020).
            (Self::NxDomain | Self::NoData, Self::NxDomain | Self::NoData) => false,
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addresses(addresses) => {
                for (i, address) in addresses.iter().enumerate() {
                    write!(f, "{}{address}", if i > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
            Self::NxDomain => f.write_str("NXDOMAIN"),
            Self::NoData => f.write_str("NODATA"),
        }
    }
}

/// What a pull would dial.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Resolution {
    /// The full name that answered, after the search list.
    pub name: String,
    /// In the order a client tries them (RFC 6724).
    pub addresses: Vec<IpAddr>,
    /// CNAMEs from the name to the one that has the addresses.
    pub cnames: Vec<String>,
    pub source: ResolutionSource,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ResolutionSource {
    /// The server that a Go program would have had its answer from.
    Server {
        server: SocketAddr,
    },
    HostsFile,
    Literal,
    Override,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// The DNS record type of the family.
    pub fn record(self) -> &'static str {
        match self {
            Self::V4 => "A",
            Self::V6 => "AAAA",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One question to one server.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Query {
    pub server: SocketAddr,
    /// The full name asked for, with its final dot.
    pub name: String,
    pub family: Family,
    /// UDP was truncated (RFC 1035, 4.1.1, TC) and the question asked again over TCP; or the
    /// resolver is set to TCP (`options use-vc`).
    pub tcp: bool,
    #[serde(flatten)]
    pub outcome: Step<Answer, DnsFault>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Answer {
    pub records: Vec<AddressRecord>,
    pub cnames: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct AddressRecord {
    pub address: IpAddr,
    pub ttl_seconds: u32,
}

// ---- connect ------------------------------------------------------------------------------------

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Connect {
    /// Every address tried, in the order of the resolution.
    pub attempts: Vec<Dial>,
    /// Addresses that there were beyond the bound.
    pub not_tried: usize,
    #[serde(flatten)]
    pub outcome: Step<Connected, TcpFault>,
}

/// One address tried.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Dial {
    pub to: SocketAddr,
    #[serde(flatten)]
    pub outcome: Step<Connection, TcpFault>,
}

/// What TCP_INFO says right after the handshake (linux/tcp.h).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Connection {
    pub local: SocketAddr,
    /// `tcpi_rtt`: the handshake's round trip. Absent when the kernel gave none.
    #[serde(rename = "rtt_seconds", with = "optional_seconds")]
    #[schemars(with = "Option<f64>")]
    pub rtt: Option<Duration>,
    /// `tcpi_snd_mss`: the largest segment we may send, less the options in use.
    pub send_mss: Option<u32>,
}

/// The connection that the walk went on with: the one a Go client would have used.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Connected {
    pub to: SocketAddr,
    /// What a dual-stack client would have waited before it used this one: the fallback delay of
    /// RFC 8305 or the time of failed attempts before. Absent when it is the first choice.
    #[serde(rename = "fallback_seconds", with = "optional_seconds")]
    #[schemars(with = "Option<f64>")]
    pub fallback: Option<Duration>,
}

// ---- tls ----------------------------------------------------------------------------------------

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Tls {
    /// The chain as presented, leaf first; recorded also when it was refused.
    pub chain: Vec<Certificate>,
    /// The certificate is not good, and containerd goes on all the same (`skip_verify`). So did the
    /// walk, without any credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unverified: Option<TlsFault>,
    /// The certificate that a refused chain breaks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_link: Option<BadLink>,
    /// The file or folder of the roots that has the server's own certificate, which is trusted for
    /// that alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_itself: Option<String>,
    /// Another outcome is possible by the roots that containerd read before the bundle was changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub depends_on_changed_roots: bool,
    #[serde(flatten)]
    pub outcome: Step<Session, TlsFault>,
}

impl Tls {
    /// Of a handshake in which no certificate was seen.
    pub fn without_chain(outcome: Step<Session, TlsFault>) -> Self {
        Self {
            chain: Vec::new(),
            unverified: None,
            bad_link: None,
            trusted_itself: None,
            depends_on_changed_roots: false,
            outcome,
        }
    }
}

/// One certificate of a chain that Go refuses, and what is wrong with it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct BadLink {
    pub certificate: Certificate,
    /// Its place in the chain as sent, counted from 0; absent for a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<usize>,
    /// The file or folder that the root is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub problem: LinkProblem,
    /// For people.
    pub reason: String,
    /// The root of its issuer's name, where that has expired as well: an old one of an authority that
    /// others vouch for by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_root: Option<ExpiredRoot>,
}

/// A root that is over.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ExpiredRoot {
    pub certificate: Certificate,
    /// The file or folder that it is from.
    pub source: String,
}

/// What is wrong with one certificate of a chain.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkProblem {
    /// Nobody of its issuer's name was sent or is a root.
    IssuerUnknown,
    Expired,
    NotYetValid,
    /// It may not sign what it signed: no CA, a key for other uses, a path that is too long, names
    /// that are not allowed.
    MayNotSign,
    /// It has the name of the issuer, and another key.
    OtherKey,
    /// Another rule of Go.
    Other,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Session {
    /// `TLSv1.3`.
    pub protocol: String,
    pub cipher_suite: String,
    /// `X25519`, `secp256r1`, …
    pub key_exchange: Option<String>,
    /// What the server chose of the protocols offered, in reports of versions that offered some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    /// DNS names and addresses of the subjectAltName extension (RFC 5280, 4.2.1.6).
    pub names: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// SHA-256 of the DER form in hexadecimal, to compare out of band.
    pub sha256: String,
    /// Where it says that its issuer's certificate is to be had (RFC 5280, 4.2.2.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuer_at: Vec<String>,
}

/// The roots that a chain may lead to.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Roots {
    pub certificates: usize,
    /// Files and folders they came from.
    pub sources: Vec<String>,
    /// What could not be read of them.
    pub problems: Vec<String>,
    /// Files of the bundle that were changed after containerd started, and when: it reads them once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

// ---- the protocol -------------------------------------------------------------------------------

/// The answer to `GET /v2/` (OCI distribution-spec, end-1).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Ping {
    pub status: u16,
    pub challenge: Challenge,
    /// `Docker-Distribution-Api-Version`.
    pub api_version: Option<String>,
    /// `Server`, as sent.
    pub server: Option<String>,
}

/// How a registry wants to be talked to (RFC 9110, 11; RFC 6750, 3; distribution token spec).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum Challenge {
    /// None was made.
    Anonymous,
    Basic {
        realm: Option<String>,
    },
    Bearer {
        realm: Endpoint,
        service: Option<String>,
        scope: Option<String>,
    },
    /// One that a pull client can't follow.
    Unusable {
        reason: String,
    },
}

/// One candidate (or none: anonymous), from its token to the registry's word on the manifest.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Attempt {
    /// `None`: anonymous.
    pub credential: Option<CredentialId>,
    pub token: Step<Grant, TokenFault>,
    /// The requests to the token service, in order.
    pub exchanges: Vec<TokenExchange>,
    /// What the host asked for, on whichever request of the resolution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// `HEAD` of the manifest with it.
    pub head: Step<Head, HttpFault>,
    /// `GET` of the same was answered with success where `HEAD` was refused. No pull asks so, and it
    /// decides nothing; a cache may hold the manifest from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub served_to_get: bool,
    /// That `GET` went with another token than the `HEAD`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_another_token: bool,
    /// Asked below /blobs/, as containerd does with a digest that it did not get below /manifests/.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub below_blobs: bool,
    /// When it was made, where that was before this walk: a credential that was rejected rests, since
    /// a registry may lock an account after some wrong passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// One request to a token service.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TokenExchange {
    /// `POST` (OAuth2 form) or `GET`.
    pub method: String,
    /// With a credential.
    pub authenticated: bool,
    #[serde(flatten)]
    pub outcome: Step<u16, HttpFault>,
}

/// A token was given.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Grant {
    /// `expires_in`, or what the token itself says.
    pub expires_in_seconds: Option<u64>,
    pub access: Access,
}

/// What a token lets its bearer do, as far as it can be read (distribution token spec, JWT `access`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// The claim holds `pull` for this repository.
    Pull,
    /// The claim is there, without `pull` for this repository: the right is missing.
    NoPull,
    /// An opaque token, or one without the claim.
    Unreadable,
}

/// The answer to `HEAD /v2/<repository>/manifests/<reference>`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Head {
    /// `Docker-Content-Digest`.
    pub digest: Option<String>,
    pub media_type: Option<String>,
    pub size: Option<Bytes>,
    /// The server knows no HEAD (405), and GET was used as containerd does.
    pub by_get: bool,
    /// No digest was stated, and the one computed is of a body in this `Content-Encoding`, which containerd
    /// does not undo there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_of_encoded: Option<String>,
}

/// The manifest of the platform.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ManifestFound {
    /// The digest that the reference leads to: of the index when there is one.
    pub digest: String,
    pub media_type: String,
    /// The digest of the platform's manifest.
    pub platform_digest: String,
    /// Platforms of the index; empty for a manifest that stands alone, whose platform a pull does not check.
    pub platforms: Vec<String>,
    /// The image's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Layer>,
    pub layers: Vec<Layer>,
    /// Sum of the layers: compressed, as they travel.
    pub layers_size: Bytes,
    /// It is an artifact in the form of an image (a chart, a signature): no container starts from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_an_image: bool,
    /// The manifests that had to be fetched by GET (Docker Hub counts those).
    pub fetched: usize,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Layer {
    pub digest: String,
    pub media_type: String,
    pub size: Bytes,
}

/// The first byte of a layer.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct BlobFound {
    pub digest: String,
    /// Hosts the registry redirected to, in order; empty when it serves the layer itself.
    pub redirects: Vec<Endpoint>,
    /// 206 to a `Range` (RFC 9110, 14.2): an interrupted download can be resumed. Absent where none was
    /// asked for: the first request of a pull asks for none, and the transfer test does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_honoured: Option<bool>,
    /// The status with which a request for a part was refused, where one for the whole layer is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_refused_with: Option<u16>,
    /// The whole size as the server states it.
    pub size: Option<Bytes>,
    /// From the request at the server that has the layer to its first byte.
    #[serde(rename = "first_byte_seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub first_byte: Duration,
}

/// How far content was read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ContentRead {
    pub bytes: Bytes,
    /// To its end, and with the size and digest of its descriptor.
    pub verified: bool,
    /// How often it was taken up again by `Range`, because the body ended early.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resumed: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// One layer, as far as it was asked for.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LayerRead {
    pub digest: String,
    #[serde(flatten)]
    pub outcome: Step<ContentRead, HttpFault>,
}

/// Headers of a rate limit (Docker Hub: `ratelimit-limit: 100;w=21600`).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RateLimit {
    pub limit: Option<u64>,
    pub remaining: Option<u64>,
    pub window_seconds: Option<u64>,
    /// `docker-ratelimit-source`: our egress address when anonymous.
    pub source: Option<String>,
}

/// Trials at one address with the usual and with a small maximum segment size (TCP_MAXSEG, set
/// before connect: it bounds what we send, and what we tell the peer to send; tcp(7)).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SegmentTrials {
    pub role: Role,
    pub phase: Phase,
    pub endpoint: Endpoint,
    pub to: SocketAddr,
    /// In the order made; the first is that of the walk.
    pub trials: Vec<SegmentTrial>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SegmentTrial {
    /// The bound set; `None`: what the interface's MTU gives.
    pub max_segment: Option<u32>,
    /// What failed; `None`: the answer came whole.
    pub fault: Option<String>,
    #[serde(rename = "took_seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub took: Duration,
}

impl SegmentTrials {
    /// Fail, pass, fail, pass, as the size goes up and down: once could be chance.
    pub fn is_proof(&self) -> bool {
        let pattern: Vec<(bool, bool)> = self
            .trials
            .iter()
            .map(|trial| (trial.max_segment.is_some(), trial.fault.is_none()))
            .collect();
        pattern == [(false, false), (true, true), (false, false), (true, true)]
    }
}

/// One HTTP exchange as it was on the wire, with secrets masked.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TracedExchange {
    pub role: Role,
    pub phase: Phase,
    /// The address of the connection.
    pub peer: SocketAddr,
    pub method: String,
    /// Values of the query are masked, but for those of the protocol (`scope`, `service`, `ns`).
    pub url: String,
    pub request_headers: Vec<(String, String)>,
    /// `None`: no answer; `fault` says why.
    pub status: Option<u16>,
    pub response_headers: Vec<(String, String)>,
    /// The body of an answer that is no success, scrubbed and cut.
    pub error_body: Option<String>,
    pub fault: Option<String>,
    #[serde(rename = "took_seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub took: Duration,
}

impl Evidence {
    /// [`Walk::legs_of`] of the walk that decides.
    pub fn legs_of(&self, role: Role) -> impl Iterator<Item = &Leg> {
        self.walk.legs_of(role)
    }

    /// [`Walk::accepted`] of the walk that decides.
    pub fn accepted(&self) -> Option<&Attempt> {
        self.walk.accepted()
    }

    /// The same pull, as if this walk were the one that decides.
    #[must_use]
    pub fn at(&self, walk: &Walk) -> Self {
        Self {
            walk: walk.clone(),
            pulled: None,
            by_release: Vec::new(),
            others: Vec::new(),
            not_asked: Vec::new(),
            behind: None,
            direct: None,
            trace: Vec::new(),
            ..self.clone()
        }
    }

    /// The other host that gave all manifests of the image.
    pub fn manifest_elsewhere(&self) -> Option<&Walk> {
        let is_given = |walk: &&Walk| matches!(walk.manifest, Step::Done { .. });
        self.others.iter().find(is_given)
    }

    /// The other host that gave the image's configuration.
    pub fn config_elsewhere(&self) -> Option<&Walk> {
        let is_given = |walk: &&Walk| matches!(walk.config, Some(Step::Done { .. }));
        self.others.iter().find(is_given)
    }
}

impl Walk {
    /// The host had a layer to give, or need not: the image has none, or a host before it gives them.
    pub fn serves_layers(&self) -> bool {
        matches!(
            self.blob,
            Step::Done { .. }
                | Step::Skipped {
                    reason: Skip::NoLayer | Skip::OtherHost
                }
        )
    }

    /// The host gave something of the image.
    pub fn has_content(&self) -> bool {
        let has_config = self
            .config
            .as_ref()
            .is_some_and(|step| step.done().is_some());
        self.manifest.done().is_some() || has_config || self.blob.done().is_some()
    }

    /// The first thing that the host failed at, in words; `None` when it did all that it was asked.
    pub fn failure(&self) -> Option<String> {
        for leg in &self.legs {
            let tunnel = leg.tunnel.as_ref().and_then(Step::fault);
            let words = leg
                .resolve
                .outcome
                .fault()
                .map(ToString::to_string)
                .or_else(|| leg.connect.outcome.fault().map(ToString::to_string))
                .or_else(|| tunnel.map(ToString::to_string))
                .or_else(|| leg.tls.outcome.fault().map(ToString::to_string));
            if words.is_some() {
                return words;
            }
        }
        if self.attempts.is_empty()
            && let Some(fault) = self.ping.fault()
        {
            return Some(fault.to_string());
        }
        // Another host said what the tag stands for, and this one has it.
        let has_it = self.resolved_elsewhere && self.has_content();
        if let Some(attempt) = self.attempts.last()
            && attempt.head.done().is_none()
            && !has_it
        {
            let token = attempt.token.fault().map(ToString::to_string);
            return token.or_else(|| attempt.head.fault().map(ToString::to_string));
        }
        let manifest = self.manifest.fault().map(ToString::to_string);
        manifest.or_else(|| self.blob.fault().map(ToString::to_string))
    }

    /// The legs of a role, in the order they were found; a blob may be redirected more than once.
    pub fn legs_of(&self, role: Role) -> impl Iterator<Item = &Leg> {
        self.legs.iter().filter(move |leg| leg.role == role)
    }

    /// The attempt whose credential the registry let in.
    pub fn accepted(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|a| a.head.done().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Server's last octet, name, family, what it said.
    type Row<'a> = (u8, &'a str, Family, Result<&'a [&'a str], DnsFault>);

    fn queries(table: &[Row<'_>]) -> Resolve {
        let took = Duration::from_millis(1);
        let queries = table
            .iter()
            .map(|(server, name, family, said)| Query {
                server: SocketAddr::from(([10, 0, 0, *server], 53)),
                name: (*name).to_owned(),
                family: *family,
                tcp: false,
                outcome: Step::from_result(
                    said.clone().map(|addresses| Answer {
                        records: addresses
                            .iter()
                            .map(|a| AddressRecord {
                                address: a.parse().unwrap(),
                                ttl_seconds: 60,
                            })
                            .collect(),
                        cnames: Vec::new(),
                    }),
                    took,
                ),
            })
            .collect();
        Resolve {
            queries,
            outcome: Step::Skipped {
                reason: Skip::NotNeeded,
            },
        }
    }

    #[test]
    fn servers_disagree_when_their_words_exclude_each_other() {
        use DnsFault::{NoData, NxDomain, Refused, ServFail, Timeout};
        use Family::{V4, V6};
        let private: Result<&[&str], DnsFault> = Ok(&["10.0.3.9", "10.0.3.10"]);
        let overlap: Result<&[&str], DnsFault> = Ok(&["10.0.3.10"]);
        let public: Result<&[&str], DnsFault> = Ok(&["52.0.0.1"]);
        let v6: Result<&[&str], DnsFault> = Ok(&["2001:db8::1"]);
        let both = "10.0.3.9, 10.0.3.10";
        for (family, a, b, want) in [
            (V4, &private, &private, None),
            (V4, &private, &overlap, None),
            (V4, &private, &public, Some((both, "52.0.0.1"))),
            (V4, &Err(NxDomain), &private, Some(("NXDOMAIN", both))),
            (V4, &private, &Err(NxDomain), Some((both, "NXDOMAIN"))),
            (V4, &private, &Err(NoData), Some((both, "NODATA"))),
            (V6, &v6, &Err(NoData), None),
            (V6, &v6, &Err(NxDomain), Some(("2001:db8::1", "NXDOMAIN"))),
            (V4, &Err(NxDomain), &Err(NoData), None),
            (V4, &private, &Err(Timeout), None),
            (V4, &private, &Err(ServFail), None),
            (V4, &Err(Refused), &Err(NxDomain), None),
        ] {
            let resolve = queries(&[(1, "a.", family, a.clone()), (2, "a.", family, b.clone())]);
            let want: Vec<(SocketAddr, String)> = want.map_or_else(Vec::new, |(a, b)| {
                vec![
                    (SocketAddr::from(([10, 0, 0, 1], 53)), a.to_owned()),
                    (SocketAddr::from(([10, 0, 0, 2], 53)), b.to_owned()),
                ]
            });
            assert_eq!(resolve.disagreeing(), want, "{a:?} {b:?}");
        }
    }

    #[test]
    fn only_words_on_the_same_name_and_family_are_compared() {
        use Family::{V4, V6};
        let resolve = queries(&[
            (1, "a.svc.", V4, Err(DnsFault::NxDomain)),
            (2, "a.svc.", V4, Err(DnsFault::NxDomain)),
            (1, "a.", V4, Ok(&["10.0.3.9"])),
            (1, "a.", V6, Err(DnsFault::NoData)),
            (2, "a.", V4, Err(DnsFault::Timeout)),
            (2, "a.", V6, Err(DnsFault::NxDomain)),
            (2, "a.", V4, Ok(&["10.0.3.9"])),
        ]);
        assert_eq!(resolve.disagreement(), None);
        assert_eq!(queries(&[]).disagreement(), None);

        let resolve = queries(&[
            (1, "a.", V4, Ok(&["10.0.3.9"])),
            (2, "a.", V4, Err(DnsFault::Timeout)),
            (3, "a.", V4, Ok(&["52.0.0.1"])),
            (1, "b.", V4, Err(DnsFault::NxDomain)),
            (3, "b.", V4, Ok(&["52.0.0.1"])),
        ]);
        let found = resolve.disagreement().unwrap();
        assert_eq!((found.name.as_str(), found.family), ("a.", V4));
        assert_eq!(found.said.len(), 2, "the silent server says nothing");
    }
}
