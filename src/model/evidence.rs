//! What a check observed of one pull. Every phase is done, failed or skipped; what was not measured has a
//! reason and is never a zero.

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
use super::fault::{HttpFault, ManifestFault, Phase, ProxyFault, TcpFault, TlsFault, TokenFault};
use super::hops::Trace;
use super::hosts::{HostsConfig, RegistryHost};
use super::kubelet::KubeletVersion;
use super::nat64::Nat64Prefixes;
use super::network::{ReversePathDrops, RouteLookup};
use super::own_limit::OwnLimit;
use super::platform::Platform;
use super::proxy::{ProxyRoute, ProxySettings, Tunnel};
use super::reference::Reference;
use super::runtime::Runtime;
use super::transfer::Transfer;
use super::units::{Bytes, OptionalSeconds, Seconds};
use super::vantage::{NetworkView, Vantage};
use super::workload::{PodUse, RequestedSecret};

/// Everything that a check observed of one pull.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Evidence {
    /// The image that was checked.
    pub reference: Reference,
    /// The platform whose manifest and layers were requested.
    pub platform: Platform,
    /// When the check started, by the local clock.
    pub started: Timestamp,
    /// Where the check ran, and what could not be observed there.
    pub vantage: Vantage,
    /// The containers and image volumes that use the image; empty if no workload was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodUse>,
    /// A container of this node that runs with exactly this image while none waits for it, so the node had it from
    /// somewhere. Absent if there is none, or if pods were not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present_for: Option<String>,
    /// Secrets of the cluster that were named for this check (`--secret`, `--service-account`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(alias = "asked_secrets")]
    pub requested_secrets: Vec<RequestedSecret>,
    /// The credentials that were found, and which of them match the image.
    pub keyring: KeyringEvidence,
    /// The container runtime that pulls; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// The kubelet's version; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<KubeletVersion>,
    /// The releases of containerd whose rules this check follows; absent if all candidate releases make the
    /// same requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "walked_as")]
    pub assumed_release: Option<String>,
    /// The same check under the rules of other releases; empty unless the runtime's release or settings are
    /// unknown and a decision depended on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_release: Vec<ByRelease>,
    /// Whether the check received all content of the image that it requested. Absent in reports of older
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled: Option<bool>,
    /// Limits of this program's own process that kept the check from seeing something; empty if it met none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_limits: Vec<OwnLimit>,
    /// containerd's settings for this registry (`hosts.toml`, or `registry.mirrors` of `config.toml`).
    #[serde(default)]
    pub hosts: HostsConfig,
    /// The proxy settings that were applied.
    #[serde(default)]
    pub proxies: ProxySettings,
    /// The host that decides the result: the one that serves the layers (or the manifest, if a host without it
    /// has the layers), or the last one that was queried without success.
    #[serde(flatten)]
    pub walk: Walk,
    /// The other hosts that were queried, in containerd's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Walk>,
    /// Hosts that no request was sent to: a host before them serves the whole image, or ended the pull.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(alias = "not_asked")]
    pub not_contacted: Vec<RegistryHost>,
    /// The last host of the list, queried once for the manifest because a mirror before it serves the image:
    /// what a pull would get if the mirror failed. It does not affect the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "behind")]
    pub upstream: Option<Box<Walk>>,
    /// The same check without the proxy; absent unless it was requested (`--compare-direct`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<Box<Walk>>,
    /// Every HTTP exchange; empty unless it was requested (`--trace`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<TracedExchange>,
}

/// A check under the rules of one or several containerd releases.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ByRelease {
    /// The releases, for example `containerd 1.6`.
    pub release: String,
    /// No decision of this check depended on the release, but one of an earlier check did: the servers answered
    /// differently.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers_changed: bool,
    /// The release is not in question: settings other than those that were read may be in force.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_settings: bool,
    /// What the check observed under these rules.
    pub evidence: Box<Evidence>,
}

/// What was observed at one host, from its name to the layers.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Walk {
    /// The registry or mirror, with containerd's settings for it.
    pub host: RegistryHost,
    /// The image was requested by its digest, since another host had resolved the tag.
    #[serde(default)]
    pub by_digest: bool,
    /// It did not resolve the reference to a digest, and another host did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(alias = "resolved_elsewhere")]
    pub resolved_by_other_host: bool,
    /// The trusted roots for this host.
    pub roots: Roots,
    /// The legs in the order in which they were discovered; the first is the registry.
    pub legs: Vec<Leg>,
    /// The answer to `GET /v2/`.
    pub ping: Step<Ping, HttpFault>,
    /// The credentials tried, in order; the last is the one that was accepted, if any was.
    pub attempts: Vec<Attempt>,
    /// The manifest of this platform.
    pub manifest: Step<ManifestFound, ManifestFault>,
    /// The first byte of a layer.
    pub blob: Step<BlobFound, HttpFault>,
    /// The image's configuration; absent if the check did not get that far, and in reports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Step<ContentRead, HttpFault>>,
    /// The layers that were requested from this host, in the order of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerRead>,
    /// The transfer test; absent if none was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// `RateLimit-*` headers of the manifest request (Docker Hub); absent if the registry sent none.
    pub rate_limit: Option<RateLimit>,
    /// Further trials of an exchange that hung or was cut, some with small TCP segments; absent if none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<SegmentTrials>,
}

/// One server of the pull, and how it was reached.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Leg {
    /// What the pull uses the server for.
    pub role: Role,
    /// The server itself, also if a proxy is in between.
    pub endpoint: Endpoint,
    /// Direct, or through a proxy. In the latter case the phases `resolve` and `connect` are those of the
    /// proxy.
    #[serde(default)]
    #[serde(alias = "way")]
    pub proxy_route: ProxyRoute,
    /// Resolution of the server's or the proxy's name.
    pub resolve: Resolve,
    /// The address that DNS has in place of the hosts file's, tried because the latter failed; absent if it was
    /// not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_trial: Option<PinTrial>,
    /// TCP connections to the server or the proxy.
    pub connect: Connect,
    /// TLS with the proxy itself; absent unless its URL is https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_tls: Option<Tls>,
    /// The proxy's answer to `CONNECT`; absent if no tunnel is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Step<Tunnel, ProxyFault>>,
    /// TLS with the server.
    pub tls: Tls,
    /// The local clock compared with the `Date` header (RFC 9110, 6.6.1) of an answer over verified TLS or
    /// plain http; absent if there is none.
    pub clock: Option<ClockCheck>,
    /// The kernel's route for each of the addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteLookup>,
    /// What this machine's reverse path filter dropped while connections were tried; absent if one was established, or
    /// nothing was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_path: Option<ReversePathDrops>,
    /// The prefixes of NAT64 that the name servers reveal; absent if they were not queried, because no address looked
    /// like one of NAT64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat64: Option<Nat64Prefixes>,
    /// What the kernel had measured on the connection at the end of the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The routers on the path to the address connected to; absent unless requested (`--hops`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<Trace>,
    /// The trial of a ClientHello that fills two packets; absent if none was made. In the daemon it may be
    /// older than the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_hello: Option<LargeHello>,
    /// TLS with the other addresses of the name that could be connected to; empty if there is none, for plain http,
    /// and through a proxy. In the daemon it may be older than the check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_addresses: Vec<AddressTrial>,
}

/// A TLS handshake with an address of the name that the check did not use.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct AddressTrial {
    /// When it was made.
    pub at: Timestamp,
    /// The address and port.
    pub to: SocketAddr,
    /// The handshake; the chain only if it failed.
    pub tls: Tls,
}

/// A connection to an address that DNS has, with TLS if the leg uses it. No request is sent there.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PinTrial {
    /// The address and port.
    pub to: SocketAddr,
    /// What failed; absent if the connection was established, with a valid certificate if the leg uses TLS.
    pub fault: Option<String>,
}

/// A handshake with a ClientHello that fills two packets, made after the usual one, which fits into one packet,
/// had succeeded.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LargeHello {
    /// When it was sent.
    pub at: Timestamp,
    /// The address and port.
    pub to: SocketAddr,
    /// The size of its TLS record.
    pub bytes: Bytes,
    /// The outcome with the large ClientHello.
    pub large: Step<Session, TlsFault>,
    /// The usual ClientHello again; absent unless the large one was not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<Step<Session, TlsFault>>,
    /// Number of consecutive trials, including this one, in which the large ClientHello was dropped; 0 if it
    /// was not.
    pub in_a_row: u32,
}

impl LargeHello {
    /// Handshakes of a trial whose large one was not answered, at most.
    pub const MOST_HANDSHAKES: u32 = 5;

    /// Whether not a single byte was received in answer to the large one.
    pub fn is_unanswered(&self) -> bool {
        is_unanswered(&self.large)
    }

    /// Whether the large one got no answer, and the usual one did right after it.
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

/// TCP_INFO of a connection after the check's requests on it (linux/tcp.h). A value is absent if the kernel
/// does not report it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Transport {
    /// `tcpi_min_rtt`: the shortest round trip.
    #[serde(rename = "min_rtt_seconds", with = "OptionalSeconds")]
    pub min_rtt: Option<Duration>,
    /// `tcpi_snd_mss`: the largest segment towards the server, less the options in use.
    pub send_mss: Option<u32>,
    /// `tcpi_rcv_mss`: the kernel's estimate of the received segments; a guess until data has been received.
    pub receive_mss: Option<u32>,
    /// `tcpi_pmtu`: the path MTU towards the server, as far as it is known.
    pub path_mtu: Option<u32>,
    /// `tcpi_total_retrans`: number of retransmitted segments.
    pub retransmits: Option<u32>,
}

/// The `Date` of an answer and the local time when it arrived.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ClockCheck {
    /// The `Date` header; its precision is a second.
    pub server: Timestamp,
    /// The local clock.
    pub local: Timestamp,
}

impl Leg {
    /// No local port was free.
    fn has_no_port(&self) -> bool {
        let mut dials = self.connect.attempts.iter();
        dials.any(|dial| matches!(dial.outcome.fault(), Some(TcpFault::NoLocalPort)))
    }

    /// The host that was resolved and connected to: the server, or the proxy in front of it.
    pub fn dialed(&self) -> Host {
        match self.proxy_route.proxy() {
            Some(proxy) => {
                let (host, _) = split_port(&proxy.authority);
                Host::new(host)
            }
            None => self.endpoint.host.clone(),
        }
    }
}

// ---- the protocol -------------------------------------------------------------------------------

/// The answer to `GET /v2/` (OCI distribution-spec, end-1).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Ping {
    /// HTTP status.
    pub status: u16,
    /// How it asks clients to authenticate.
    pub challenge: Challenge,
    /// The header `Docker-Distribution-Api-Version`; absent if it was not sent.
    pub api_version: Option<String>,
    /// The header `Server`, as sent; absent if it was not sent.
    pub server: Option<String>,
}

/// How a registry asks clients to authenticate: `WWW-Authenticate` (RFC 9110, 11; RFC 6750, 3; distribution
/// token spec).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum Challenge {
    /// No challenge was sent.
    Anonymous,
    /// User and password are sent with each request (RFC 7617).
    Basic {
        /// `realm`, as sent.
        realm: Option<String>,
    },
    /// A token of a token service is sent with each request.
    Bearer {
        /// Server of the token service.
        realm: Endpoint,
        /// `service`: the name under which the token service knows the registry.
        service: Option<String>,
        /// `scope`, for example `repository:team/app:pull`.
        scope: Option<String>,
    },
    /// A challenge that a pull client can't use.
    Unusable {
        /// Why, in words.
        reason: String,
    },
}

/// One candidate credential (or anonymous), from its token to the registry's answer for the manifest.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Attempt {
    /// The credential; absent for an anonymous attempt.
    pub credential: Option<CredentialId>,
    /// The token from the token service.
    pub token: Step<Grant, TokenFault>,
    /// The requests to the token service, in order.
    pub exchanges: Vec<TokenExchange>,
    /// The challenge that the host sent, at any request that resolves the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// `HEAD` of the manifest with this credential.
    pub head: Step<HeadResponse, HttpFault>,
    /// `GET` of the manifest succeeded where `HEAD` was refused. No pull makes that request, and it does not
    /// affect the verdict; a cache may hold the manifest from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(alias = "served_to_get")]
    pub get_succeeded: bool,
    /// That `GET` was sent with another token than the `HEAD`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(alias = "by_another_token")]
    pub get_used_other_token: bool,
    /// The manifest was requested below /blobs/, as containerd does with a digest that was not found below
    /// /manifests/.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(alias = "below_blobs")]
    pub via_blobs_endpoint: bool,
    /// When the attempt was made, if that was before this check: a rejected credential is in cooldown, since a
    /// registry may lock an account after several wrong passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// One request to a token service.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TokenExchange {
    /// `POST` (OAuth2 form) or `GET`.
    pub method: String,
    /// Whether a credential was sent.
    pub authenticated: bool,
    /// HTTP status of the answer, or the fault.
    #[serde(flatten)]
    pub outcome: Step<u16, HttpFault>,
}

/// A token that the token service issued.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Grant {
    /// Lifetime in seconds: `expires_in` of the answer, or else from the token itself; absent if neither states
    /// it.
    pub expires_in_seconds: Option<u64>,
    /// Whether the token permits the pull.
    pub access: Access,
}

/// What a token permits, as far as it can be read (distribution token spec, JWT claim `access`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// The claim contains `pull` for this repository.
    Pull,
    /// The claim exists without `pull` for this repository: the permission is missing.
    NoPull,
    /// The token is opaque, or has no such claim.
    Unreadable,
}

/// The answer to `HEAD /v2/<repository>/manifests/<reference>`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct HeadResponse {
    /// `Docker-Content-Digest`; absent if it was not sent.
    pub digest: Option<String>,
    /// `Content-Type`; absent if it was not sent.
    pub media_type: Option<String>,
    /// `Content-Length`; absent if it was not sent.
    pub size: Option<Bytes>,
    /// The server does not support HEAD (405), and GET was used as containerd does.
    #[serde(alias = "by_get")]
    pub used_get: bool,
    /// Set if the server stated no digest and the computed one is that of a body in this `Content-Encoding`,
    /// which containerd does not decode there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_of_encoded: Option<String>,
}

/// The manifest of the platform.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ManifestFound {
    /// The digest that the reference resolves to: that of the index, if there is one.
    pub digest: String,
    /// Media type of that document.
    pub media_type: String,
    /// The digest of the platform's manifest.
    pub platform_digest: String,
    /// Platforms of the index; empty for a manifest without an index, whose platform a pull does not check. Of more
    /// than 64, the first.
    pub platforms: Vec<String>,
    /// Number of platforms that `platforms` leaves out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub platforms_left_out: usize,
    /// Descriptor of the image's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Layer>,
    /// Descriptors of the layers, from the lowest up. Of more than 128, the first 96 and the 32 largest of the others.
    pub layers: Vec<Layer>,
    /// Number of layers that `layers` leaves out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub layers_left_out: usize,
    /// Sum of the sizes of all layers, compressed as they are transferred.
    pub layers_size: Bytes,
    /// It is an artifact in the form of an image (a chart, a signature), from which no container can start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_an_image: bool,
    /// Number of manifests that had to be fetched by GET (Docker Hub counts those).
    pub fetched: usize,
}

impl ManifestFound {
    /// Sum of the sizes of the layers that `layers` leaves out.
    pub fn bytes_left_out(&self) -> Bytes {
        let sizes = self.layers.iter().map(|layer| layer.size.0);
        let listed = sizes.fold(0, u64::saturating_add);
        Bytes(self.layers_size.0.saturating_sub(listed))
    }
}

/// A content descriptor (OCI image-spec, descriptor.md): a layer, or the image's configuration.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Layer {
    /// `digest`: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// `mediaType`.
    pub media_type: String,
    /// `size`: compressed, in bytes.
    pub size: Bytes,
}

/// The first byte of a layer.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct BlobFound {
    /// Digest of the layer.
    pub digest: String,
    /// Servers that the registry redirected to, in order; empty if it serves the layer itself.
    pub redirects: Vec<Endpoint>,
    /// Whether a `Range` was answered with 206 (RFC 9110, 14.2), so that an interrupted download can be
    /// resumed. Absent if no range was requested: a pull's first request has none, the transfer test's has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_honoured: Option<bool>,
    /// The status with which a request for a range was refused, if one for the whole layer was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_refused_with: Option<u16>,
    /// The whole size as the server states it; absent if it does not.
    pub size: Option<Bytes>,
    /// From the request to the server that has the layer until its first byte.
    #[serde(rename = "first_byte_seconds", with = "Seconds")]
    pub first_byte: Duration,
}

/// How much of a content was read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ContentRead {
    /// Bytes that were received.
    pub bytes: Bytes,
    /// Whether it was read to its end and has the size and digest of its descriptor.
    pub verified: bool,
    /// How often it was resumed by `Range`, because the body ended early.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resumed: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// One layer that was requested.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LayerRead {
    /// Digest of the layer.
    pub digest: String,
    /// How much was read, or why nothing was.
    #[serde(flatten)]
    pub outcome: Step<ContentRead, HttpFault>,
    /// Number of other layers that the host was sending when it refused this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused_beside: usize,
    /// After such a refusal, the layer was served when it was requested again and no other was being sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub served_alone: bool,
}

/// Headers of a rate limit (Docker Hub: `ratelimit-limit: 100;w=21600`). A value is absent if it was not sent.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RateLimit {
    /// `ratelimit-limit`: pulls in a window.
    pub limit: Option<u64>,
    /// `ratelimit-remaining`: pulls that are left in this window.
    pub remaining: Option<u64>,
    /// `w` of these headers: length of the window, in seconds.
    pub window_seconds: Option<u64>,
    /// `docker-ratelimit-source`: for an anonymous request, the egress address that Docker Hub sees.
    pub source: Option<String>,
}

/// Trials at one address of an exchange that hung or was cut. One that hung is tried with the usual and with a small
/// maximum segment size, in an order that no period explains: otherwise servers that take turns behind the address
/// would look like a limit for the size. TCP_MAXSEG, set before connect, limits what this machine sends and what it
/// asks the peer to send (tcp(7)).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SegmentTrials {
    /// The leg.
    pub role: Role,
    /// The phase that failed and was tried again.
    pub phase: Phase,
    /// The server of the leg.
    pub endpoint: Endpoint,
    /// The address and port.
    pub to: SocketAddr,
    /// In the order in which they were made; the first is the check's own request.
    pub trials: Vec<SegmentTrial>,
}

/// One trial with or without a limit for the segment size.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SegmentTrial {
    /// The limit in bytes; absent: what the interface's MTU gives.
    pub max_segment: Option<u32>,
    /// What failed; absent if the complete answer was received.
    pub fault: Option<String>,
    /// It failed because nothing was received in time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_silent: bool,
    /// How long the trial took.
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
}

impl SegmentTrials {
    /// Number of planned trials, after the check's own request.
    pub const PLANNED: usize = 12;

    /// Whether the size decides, as far as tried: every trial with small segments passed, every other one failed.
    pub fn is_by_size(&self) -> bool {
        let is_as_by_size = |trial: &SegmentTrial| trial.max_segment.is_some() == trial.passed();
        self.trials.iter().all(is_as_by_size) && self.failed() < self.trials.len()
    }

    /// Whether the size decides in the whole plan: fewer trials may be chance, or servers that take turns.
    pub fn is_proof(&self) -> bool {
        self.is_by_size() && self.trials.len() > Self::PLANNED
    }

    /// Whether equal trials failed and passed by turns: not once only, and not all until some moment.
    pub fn is_in_turn(&self) -> bool {
        let turns = self.trials.windows(2);
        let turns = turns.filter(|two| two[0].passed() != two[1].passed());
        turns.count() >= 2 && !self.is_by_size()
    }

    /// Number of trials that failed.
    pub fn failed(&self) -> usize {
        self.trials.iter().filter(|trial| !trial.passed()).count()
    }
}

impl SegmentTrial {
    /// Whether the complete answer was received.
    pub fn passed(&self) -> bool {
        self.fault.is_none()
    }
}

/// One HTTP exchange as it was on the wire, with secrets masked.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TracedExchange {
    /// The leg.
    pub role: Role,
    /// The phase that the request belongs to.
    pub phase: Phase,
    /// The remote address and port of the connection.
    pub peer: SocketAddr,
    /// HTTP method.
    pub method: String,
    /// Values of the query are masked, except those of the protocol (`scope`, `service`, `ns`).
    pub url: String,
    /// Name and value of each header sent; values with credentials are masked.
    pub request_headers: Vec<(String, String)>,
    /// HTTP status; absent if there was no answer, for the reason in `fault`.
    pub status: Option<u16>,
    /// Name and value of each header received; values with secrets are masked.
    pub response_headers: Vec<(String, String)>,
    /// The body of an answer with an error status, scrubbed and cut; absent if there is none.
    pub error_body: Option<String>,
    /// Why there was no answer, or why the body of a successful one could not be used; absent if nothing
    /// failed.
    pub fault: Option<String>,
    /// From sending the request until the end of the exchange.
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
}

impl Evidence {
    /// Notes limits of this process that the check met, under the rules of whichever release.
    pub fn note_own_limits(&mut self, limits: &[OwnLimit]) {
        self.add_own_limits(limits);
        for other in &mut self.by_release {
            other.evidence.note_own_limits(limits);
        }
    }

    /// Notes the limits of this process that stopped phases, each under the rules of its release.
    pub fn note_limits_of_phases(&mut self) {
        self.add_own_limits(&self.limits_of_phases());
        for other in &mut self.by_release {
            other.evidence.note_limits_of_phases();
        }
    }

    fn add_own_limits(&mut self, limits: &[OwnLimit]) {
        self.own_limits.extend(limits);
        self.own_limits.sort_unstable();
        self.own_limits.dedup();
    }

    /// The limits of this process that stopped phases. A missing port is one where a pull takes its ports from another
    /// network namespace.
    pub fn limits_of_phases(&self) -> Vec<OwnLimit> {
        let walks = std::iter::once(&self.walk).chain(&self.others);
        let mut limits: Vec<OwnLimit> = walks.flat_map(Walk::own_limits).collect();
        if !self.shares_ports_with_pulls() && self.walk.legs.iter().any(Leg::has_no_port) {
            limits.push(OwnLimit::Ports);
        }
        limits.sort_unstable();
        limits.dedup();
        limits
    }

    /// Whether a pull takes its ports from the same network namespace as this check.
    pub fn shares_ports_with_pulls(&self) -> bool {
        matches!(
            self.vantage.network,
            NetworkView::Machine | NetworkView::Node
        )
    }

    /// The same evidence, as if this host were the one that decides.
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

    /// The other host that served all manifests of the image.
    pub fn manifest_elsewhere(&self) -> Option<&Walk> {
        let is_served = |walk: &&Walk| matches!(walk.manifest, Step::Done { .. });
        self.others.iter().find(is_served)
    }

    /// The other host that served the image's configuration.
    pub fn config_elsewhere(&self) -> Option<&Walk> {
        let is_served = |walk: &&Walk| matches!(walk.config, Some(Step::Done { .. }));
        self.others.iter().find(is_served)
    }
}

impl Attempt {
    /// Why it got no token, or no success with it.
    pub fn failure(&self) -> Option<String> {
        self.token.words().or_else(|| self.head.words())
    }
}

impl Walk {
    /// The limits of this process that stopped phases.
    fn own_limits(&self) -> impl Iterator<Item = OwnLimit> {
        let legs = self.legs.iter().flat_map(|leg| {
            let tunnel = leg.tunnel.as_ref().and_then(Step::own_limit);
            let own = [
                leg.resolve.outcome.own_limit(),
                leg.connect.outcome.own_limit(),
                tunnel,
                leg.tls.outcome.own_limit(),
            ];
            own.into_iter().flatten()
        });
        let attempts = self.attempts.iter().flat_map(|attempt| {
            let own = [attempt.token.own_limit(), attempt.head.own_limit()];
            own.into_iter().flatten()
        });
        let config = self.config.as_ref().and_then(Step::own_limit);
        let content = [self.manifest.own_limit(), config, self.blob.own_limit()];
        legs.chain(attempts).chain(content.into_iter().flatten())
    }

    /// Whether the host served a layer, or need not: the image has none, or a host before it serves them.
    pub fn serves_layers(&self) -> bool {
        matches!(
            self.blob,
            Step::Done { .. }
                | Step::Skipped {
                    reason: Skip::NoLayer | Skip::OtherHost
                }
        )
    }

    /// Whether the host served any content of the image.
    pub fn has_content(&self) -> bool {
        let has_config = self
            .config
            .as_ref()
            .is_some_and(|step| step.done().is_some());
        self.manifest.done().is_some() || has_config || self.blob.done().is_some()
    }

    /// The first failure at the host, in words; `None` if every request succeeded.
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
        // Another host resolved the tag, and this one has the content.
        let has_content = self.resolved_by_other_host && self.has_content();
        if let Some(attempt) = self.attempts.last()
            && attempt.head.done().is_none()
            && !has_content
        {
            return attempt.failure();
        }
        self.manifest.words().or_else(|| self.blob.words())
    }

    /// The legs of a role, in the order in which they were discovered; a blob may be redirected more than once.
    pub fn legs_of(&self, role: Role) -> impl Iterator<Item = &Leg> {
        self.legs.iter().filter(move |leg| leg.role == role)
    }

    /// The attempt whose credential the registry accepted.
    pub fn accepted(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|a| a.head.done().is_some())
    }
}
