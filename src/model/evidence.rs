//! What was seen on the way of one pull. Every phase ends in done, failed or skipped; "not
//! measured" has a reason and is never a zero.

use super::connect::{Connect, Roots, Session, Tls};
use super::resolve::Resolve;
use super::step::{Skip, Step};
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential::{CredentialId, KeyringEvidence};
use super::endpoint::{Endpoint, Host, Role, split_port};
use super::fault::{HttpFault, ManifestFault, Phase, ProxyFault, TlsFault, TokenFault};
use super::hops::Trace;
use super::hosts::{HostsConfig, RegistryHost};
use super::kubelet::KubeletVersion;
use super::network::RouteLookup;
use super::platform::Platform;
use super::proxy::{ProxyRoute, ProxySettings, Tunnel};
use super::reference::Reference;
use super::runtime::Runtime;
use super::transfer::Transfer;
use super::units::{Bytes, OptionalSeconds, Seconds};
use super::vantage::Vantage;
use super::workload::{PodUse, RequestedSecret};

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
    #[serde(alias = "asked_secrets")]
    pub requested_secrets: Vec<RequestedSecret>,
    pub keyring: KeyringEvidence,
    /// The container runtime that pulls; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// The kubelet's version; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<KubeletVersion>,
    /// The line of releases by whose rules this walk was made, where others would not do the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "walked_as")]
    pub assumed_release: Option<String>,
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
    #[serde(alias = "not_asked")]
    pub not_contacted: Vec<RegistryHost>,
    /// The last host of the list, which was asked once for the manifest because a mirror before it
    /// serves the image: what a pull would get if the mirror failed. It plays no part in the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "behind")]
    pub upstream: Option<Box<Walk>>,
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
    #[serde(alias = "resolved_elsewhere")]
    pub resolved_by_other_host: bool,
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
    #[serde(alias = "way")]
    pub proxy_route: ProxyRoute,
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
    #[serde(rename = "min_rtt_seconds", with = "OptionalSeconds")]
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
        match self.proxy_route.proxy() {
            Some(proxy) => {
                let (host, _) = split_port(&proxy.authority);
                Host::new(host)
            }
            None => self.endpoint.host.clone(),
        }
    }
}

// ---- resolve ------------------------------------------------------------------------------------

// ---- connect ------------------------------------------------------------------------------------

// ---- tls ----------------------------------------------------------------------------------------

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
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
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
    pub head: Step<HeadResponse, HttpFault>,
    /// `GET` of the same was answered with success where `HEAD` was refused. No pull asks so, and it
    /// decides nothing; a cache may hold the manifest from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(alias = "served_to_get")]
    pub get_succeeded: bool,
    /// That `GET` went with another token than the `HEAD`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(alias = "by_another_token")]
    pub get_used_other_token: bool,
    /// Asked below /blobs/, as containerd does with a digest that it did not get below /manifests/.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(alias = "below_blobs")]
    pub via_blobs_endpoint: bool,
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
pub struct HeadResponse {
    /// `Docker-Content-Digest`.
    pub digest: Option<String>,
    pub media_type: Option<String>,
    pub size: Option<Bytes>,
    /// The server knows no HEAD (405), and GET was used as containerd does.
    #[serde(alias = "by_get")]
    pub used_get: bool,
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
    #[serde(rename = "first_byte_seconds", with = "Seconds")]
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
    #[serde(rename = "took_seconds", with = "Seconds")]
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
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
}

impl Evidence {
    /// The same pull, as if this walk were the one that decides.
    #[must_use]
    pub fn at(&self, walk: &Walk) -> Self {
        Self {
            walk: walk.clone(),
            pulled: None,
            by_release: Vec::new(),
            others: Vec::new(),
            not_contacted: Vec::new(),
            upstream: None,
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

impl Attempt {
    /// Why it got no token, or no answer by it.
    pub fn failure(&self) -> Option<String> {
        self.token.words().or_else(|| self.head.words())
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
            let words = (leg.resolve.outcome.words())
                .or_else(|| leg.connect.outcome.words())
                .or_else(|| leg.tunnel.as_ref().and_then(Step::words))
                .or_else(|| leg.tls.outcome.words());
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
        let has_it = self.resolved_by_other_host && self.has_content();
        if let Some(attempt) = self.attempts.last()
            && attempt.head.done().is_none()
            && !has_it
        {
            return attempt.failure();
        }
        self.manifest.words().or_else(|| self.blob.words())
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
