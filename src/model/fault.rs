//! What the network did to a phase that failed: plain data, one enum per phase.
//!
//! A fault carries what its reader asks next (which names the certificate presents, how many bytes
//! came). Rules turn faults into causes; only a cause has a severity and advice. Text that came
//! from the network is stripped of control characters, cut to length and scrubbed of the
//! credentials in use before it gets here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::credential::CredentialId;
use super::endpoint::{Endpoint, Role};
use super::text::titled;
use super::units::Bytes;

/// The value between two texts, or nothing where there is none.
fn between(before: &str, value: Option<&impl fmt::Display>, after: &str) -> String {
    let shown = |value| format!("{before}{value}{after}");
    value.map_or_else(String::new, shown)
}

/// The steps of a leg, then of the protocol. Named as the blackbox exporter names those it has.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Resolve,
    Connect,
    /// `CONNECT` to a proxy, where one opens the way.
    Proxy,
    Tls,
    /// `GET /v2/`.
    Ping,
    /// The exchange of a credential (or none) for a bearer token.
    Token,
    /// `HEAD` by tag or digest, then the manifest of this platform.
    Manifest,
    /// The first byte of a layer.
    Blob,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Ping => "ping",
            Self::Token => "token",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a name has no address (RFC 1035, 4.1.1; RFC 2308).
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DnsFault {
    /// The name does not exist.
    #[error("the name does not exist (NXDOMAIN)")]
    NxDomain,
    /// The name exists, without a record of the family asked for (RFC 2308, 2.2).
    #[error("the name has no address (NODATA)")]
    NoData,
    #[error("the server failed (SERVFAIL)")]
    ServFail,
    #[error("the server refused the question (REFUSED)")]
    Refused,
    /// Any other response code, in the words of the RFCs.
    #[error("the server answered {code}")]
    OtherCode { code: String },
    /// No answer within the time allowed.
    #[error("no answer in time")]
    Timeout,
    /// The server's host answered that nothing listens (ICMP port unreachable, or RST over TCP).
    #[error("nothing listens on the server's port")]
    PortClosed,
    /// The server can't be reached from here at all (no route, local policy).
    #[error("the server can't be reached: {error}")]
    Unreachable { error: String },
    /// An answer came that could not be read, or that did not belong to the question.
    #[error("the answer can't be read: {reason}")]
    Malformed { reason: String },
    /// No server was there to be asked.
    #[error("there is no server to ask")]
    NoServers,
}

/// An ICMP error that answered a connection attempt (RFC 792, RFC 1812 5.2.7.1, RFC 4443).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[error(
    "ICMP{} {kind}/{code}{}",
    if *version == 6 { "v6" } else { "" },
    between(" from ", from.as_ref(), "")
)]
pub struct IcmpError {
    /// The host that sent it; often the firewall itself.
    pub from: Option<IpAddr>,
    /// 4 or 6.
    pub version: u8,
    #[serde(rename = "type")]
    pub kind: u8,
    pub code: u8,
}

impl IcmpError {
    /// A filter said no: IPv4 3/9, 3/10, 3/13; IPv6 1/1, 1/5, 1/6.
    pub fn is_prohibited(&self) -> bool {
        matches!(
            (self.version, self.kind, self.code),
            (4, 3, 9 | 10 | 13) | (6, 1, 1 | 5 | 6)
        )
    }
}

/// Why no connection came about (RFC 9293; errno of connect(2)).
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TcpFault {
    /// RST, or ICMP port unreachable when `icmp` is there: the host or a firewall on the way answers.
    #[error("connection refused ({})", icmp.map_or("RST".to_owned(), |icmp| icmp.to_string()))]
    Refused { icmp: Option<IcmpError> },
    /// The SYN was answered by nothing.
    #[error("no answer to the SYN in time")]
    Timeout,
    #[error("no route to host{}", between(" (", icmp.as_ref(), ")"))]
    HostUnreachable { icmp: Option<IcmpError> },
    #[error("network is unreachable{}", between(" (", icmp.as_ref(), ")"))]
    NetUnreachable { icmp: Option<IcmpError> },
    /// A filter on the way said no in so many words.
    #[error("administratively prohibited ({icmp})")]
    Prohibited { icmp: IcmpError },
    /// EPERM, EACCES: this machine's own policy (netfilter, eBPF, a prohibit route).
    #[error("refused by this machine's own policy (errno {errno})")]
    LocalPolicy { errno: i32 },
    /// EADDRNOTAVAIL, EAFNOSUPPORT: no source address of that family, or no free local port.
    #[error("no local address to connect from (errno {errno})")]
    NoLocalAddress { errno: i32 },
    /// Closed by the peer while connecting.
    #[error("connection reset")]
    Reset,
    #[error("{error}")]
    Other { errno: Option<i32>, error: String },
}

/// Why a proxy opens no way to a server.
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProxyFault {
    /// A status that is not 2xx (RFC 9110, 9.3.6): 407 asks for a user, 403 and 502 speak of the
    /// server. For plain http, where there is no `CONNECT`, an answer of the proxy's own.
    #[error("the proxy itself answered {status}{}", between(": ", reason.as_ref(), ""))]
    Status { status: u16, reason: Option<String> },
    /// The exchange itself failed.
    #[error("the proxy and CONNECT: {fault}")]
    Http { fault: HttpFault },
    /// No TLS with a proxy of https.
    #[error("TLS to the proxy: {fault}")]
    Tls { fault: TlsFault },
    /// A kind of proxy that Go knows and this probe does not.
    #[error("proxies by {scheme} are not spoken to by this version")]
    Unsupported { scheme: String },
    /// Whether it opens the way can't be determined here.
    #[error("whether the proxy opens the way can't be determined here: {reason}")]
    Undecided { reason: String },
}

impl ProxyFault {
    /// The proxy may open the way for containerd all the same.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Unsupported { .. } | Self::Undecided { .. })
            || matches!(self, Self::Tls { fault } if fault.is_undecided())
    }
}

/// Why there is no secure session (RFC 8446, RFC 5280).
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TlsFault {
    /// No certificate of the chain leads to a root in force.
    #[error("certificate signed by an authority not trusted here ({issuer})")]
    UnknownIssuer { issuer: String },
    #[error("certificate is not for {expected} but for {}", presented.join(", "))]
    NameMismatch {
        expected: String,
        presented: Vec<String>,
    },
    #[error("certificate expired at {}", instant(*not_after))]
    Expired {
        not_after: Timestamp,
        local_time: Timestamp,
    },
    #[error("certificate not valid before {}", instant(*not_before))]
    NotYetValid {
        not_before: Timestamp,
        local_time: Timestamp,
    },
    /// The certificate is refused for another reason.
    #[error("certificate refused: {reason}")]
    BadCertificate { reason: String },
    /// No root certificate could be loaded, so nothing can be said of the server's certificate.
    #[error("certificate not checked: no trusted roots could be loaded here")]
    NoRoots,
    /// Whether containerd accepts it can't be determined here: builds of it differ, or it is beyond what this
    /// program can check.
    #[error("whether containerd accepts it can't be determined here: {reason}")]
    Undecided { reason: String },
    /// The peer speaks HTTP, not TLS, on this port.
    #[error("the server speaks plain HTTP on this port")]
    PlainHttp,
    /// The peer speaks something else; the first bytes in hexadecimal.
    #[error("the server does not speak TLS (first bytes {first_bytes})")]
    NotTls { first_bytes: String },
    /// A fatal alert from the peer (RFC 8446, 6): number and name.
    #[error("the server sent TLS alert {alert} ({name})")]
    Alert { alert: u8, name: String },
    /// No protocol version or cipher suite in common, found by us.
    #[error("no TLS version or cipher suite in common: {reason}")]
    Incompatible { reason: String },
    /// RST after our ClientHello, `received` bytes into the answer.
    #[error("connection reset after our ClientHello ({received} received)")]
    Reset { received: Bytes },
    /// FIN after our ClientHello.
    #[error("connection closed after our ClientHello ({received} received)")]
    Closed { received: Bytes },
    /// Nothing more after our ClientHello; `received` 0 means not a byte of an answer.
    #[error("no further answer to our ClientHello ({received} received)")]
    Timeout { received: Bytes },
    #[error("{reason}")]
    Other { reason: String },
}

impl TlsFault {
    /// containerd may get a session all the same. An alert of 40 or 71 is the answer to suites that it
    /// offers and this program does not.
    pub fn is_undecided(&self) -> bool {
        matches!(
            self,
            Self::NoRoots | Self::Undecided { .. } | Self::Alert { alert: 40 | 71, .. }
        )
    }
}

/// What an HTTP exchange came to instead of the answer hoped for (RFC 9110, OCI distribution-spec).
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HttpFault {
    /// A status that is not success, with the first entry of the OCI error body if there is one.
    #[error(
        "HTTP {status}{}{}{}",
        between(" ", code.as_ref(), ""),
        between(": ", message.as_ref(), ""),
        between(" (Retry-After: ", retry_after.as_ref(), ")")
    )]
    Status {
        status: u16,
        /// OCI error code (`MANIFEST_UNKNOWN`, `DENIED`, …), or that of an S3-like error document.
        code: Option<String>,
        message: Option<String>,
        /// `Retry-After`, as sent.
        retry_after: Option<String>,
        /// A `WWW-Authenticate` came with it.
        challenged: bool,
        /// A credential or a token had gone along.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        authorized: bool,
    },
    /// An answer that is not what the protocol says.
    #[error("not a valid answer: {reason}")]
    Malformed { reason: String },
    /// The body stopped after this many bytes, the connection still open.
    #[error("the answer stalled after {after}")]
    Stalled { after: Bytes },
    /// The connection closed before the promised length.
    #[error(
        "the answer ended {}after {got}{}",
        if want.is_some() { "" } else { "early, " },
        between(" of ", want.as_ref(), "")
    )]
    Truncated { got: Bytes, want: Option<Bytes> },
    /// No response head in time.
    #[error("no answer in time")]
    Timeout,
    #[error("connection reset")]
    Reset,
    #[error("connection closed without an answer")]
    Closed,
    /// More than the bound that this answer may have.
    #[error("the answer is larger than {limit}")]
    TooLarge { limit: Bytes },
    /// `Location` leads to a place that no client should follow it to.
    #[error("redirect to {to} not followed: {reason}")]
    RedirectUntrusted { to: String, reason: Distrust },
    /// The host that a manifest was redirected to can't be got at; its leg says why.
    #[error("redirected to {to}, whose {phase} failed")]
    RedirectBlocked { to: Endpoint, phase: Phase },
    /// More redirects than containerd follows.
    #[error("more than {limit} redirects")]
    TooManyRedirects { limit: usize },
    /// A new connection was needed in the middle of the exchange, and failed in that phase.
    #[error("a second connection failed ({phase}): {reason}")]
    Reconnect { phase: Phase, reason: String },
    /// The server asked for a token at this request, and there is none.
    #[error("no token for this request: {fault}")]
    Unauthorized {
        /// The one that was tried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<CredentialId>,
        fault: Box<TokenFault>,
    },
    /// A host that the request needs could not be reached; its leg says why.
    #[error("{phase} of the {role}'s host failed")]
    Unreached { role: Role, phase: Phase },
    /// Content came whole, and has another size than its descriptor says.
    #[error("{got} in place of the {expected} bytes that the descriptor says")]
    WrongSize { expected: i64, got: Bytes },
    /// Content came whole, and has another digest than it was asked by.
    #[error("content with digest {got} in place of {expected}")]
    WrongDigest { expected: String, got: String },
    /// A web page came in place of content.
    #[error("{}", title.as_deref().map_or("a page without a title".to_owned(), titled))]
    Page { title: Option<String> },
    /// A content encoding that containerd does not undo, or under which is something else.
    #[error(
        "content encoding '{encoding}', and what containerd makes of it is not what was asked for"
    )]
    Encoding { encoding: String },
    /// A body that is not encoded as `Content-Encoding` says.
    #[error("the body is not encoded as 'Content-Encoding: {encoding}' says")]
    NotEncoded { encoding: String },
    /// A content encoding that containerd decodes and this program does not.
    #[error("content encoding '{encoding}', which is not decoded here")]
    EncodingUnread { encoding: String },
    /// A layer came whole, and can't be unpacked to what the image's configuration says.
    #[error("the layer can't be unpacked: {reason}")]
    NotUnpacked { reason: String },
    /// Not asked for: it might count against a rate limit.
    #[error("not asked for, to spare a rate limit")]
    #[serde(alias = "not_asked")]
    NotRequested,
    /// Not sent: the check has made as many requests as one may make.
    #[error(
        "not sent: a check makes no more than {limit} requests at one host, and all of them were used"
    )]
    RequestLimit {
        /// At one host.
        limit: usize,
    },
    /// The body of one piece of content ended early again and again, each time with some progress. A
    /// pull goes on; a check does not.
    #[error(
        "the body ended early {limit} times, each time a little later ({got} in all); a pull would go on"
    )]
    ResumedTooOften { limit: usize, got: Bytes },
    /// The body kept coming, and so slowly that it was not read to its end. A pull would go on.
    #[error(
        "the body is too slow to be read to its end: {got}{} in {within_seconds} s; a pull would go on",
        between(" of ", want.as_ref(), "")
    )]
    TooSlow {
        within_seconds: u64,
        got: Bytes,
        /// By `Content-Length`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        want: Option<Bytes>,
    },
    /// A media type with which the release of containerd ends the pull before it reads the content.
    #[error("media type {media_type}, which this release does not pull")]
    Unsupported { media_type: String },
    /// The server ended TLS when the handshake was over for us, by an alert (RFC 8446, 6).
    #[error("TLS alert {name} ({alert}) after the handshake")]
    TlsAlert { alert: u8, name: String },
    #[error("{reason}")]
    Other { reason: String },
}

impl HttpFault {
    pub fn malformed(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Malformed { reason }
    }

    /// A bound of this program ended it; a pull would have gone on.
    pub fn is_own_limit(&self) -> bool {
        matches!(
            self,
            Self::RequestLimit { .. } | Self::ResumedTooOften { .. } | Self::TooSlow { .. }
        )
    }
}

/// Why a realm or a redirect is not trusted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distrust {
    /// Plain http, named by a server that was reached by https.
    #[error("plain http, named by a server reached over https")]
    PlainHttp,
    /// 169.254/16 or fe80::/10: also where clouds keep the metadata service.
    #[error("a link-local or metadata address")]
    LinkLocal,
    /// 127/8, ::1, localhost, named by a server that is not on loopback.
    #[error("this machine itself, named by a server that is elsewhere")]
    Loopback,
    /// The unspecified address, or a scheme that is neither http nor https.
    #[error("no http or https server")]
    NotAServer,
}

/// Why there is no token.
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TokenFault {
    /// The registry asks for Basic, and there is no credential ("no basic auth credentials").
    #[error("the registry asks for a user and password, and no credential matches")]
    NoCredential,
    /// The token service said no.
    #[error("the token service said no: {fault}")]
    Rejected { fault: HttpFault },
    /// The realm is a place no credential may go to; none was sent.
    #[error("nothing sent to realm {realm}: {reason}")]
    RealmUntrusted { realm: Endpoint, reason: Distrust },
    /// 200, without the field that containerd reads for this form.
    #[error(
        "the answer to {method} holds no token that containerd reads (fields: {})",
        fields.join(", ")
    )]
    NoToken { method: String, fields: Vec<String> },
    /// The challenge can't be followed: no realm, a realm that is no URL, an unknown scheme.
    #[error("the challenge can't be followed: {reason}")]
    BadChallenge { reason: String },
    /// A credential is wanted, and the connection is not verified (`skip_verify`): none was sent.
    #[error("no credential sent: the server's certificate is not verified")]
    Unverified,
    /// The exchange itself failed.
    #[error("{fault}")]
    Http { fault: HttpFault },
}

/// Why there is no manifest for this platform.
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ManifestFault {
    #[error("{fault}")]
    Http { fault: HttpFault },
    /// The index has no manifest for the platform wanted.
    #[error("no image for this platform; there is {}", available.join(", "))]
    NoPlatform { available: Vec<String> },
    /// A media type that containerd refuses (schema 1 since 2.0) or does not know.
    #[error("media type {media_type} is not pulled by containerd")]
    Unsupported { media_type: String },
    /// The body does not have the digest it was asked by.
    #[error("the content has digest {got}, not {expected}")]
    DigestMismatch { expected: String, got: String },
    /// The body is not a manifest.
    #[error("not a manifest: {reason}")]
    Malformed { reason: String },
    /// Whether containerd accepts it can't be determined here.
    #[error("{reason}")]
    Undecided { reason: String },
}

/// The address of a server that something went wrong with, for messages.
pub fn show_server(server: SocketAddr) -> String {
    if server.port() == 53 {
        server.ip().to_string()
    } else {
        server.to_string()
    }
}

// ---- in words -----------------------------------------------------------------------------------

/// `2026-11-23 01:40:12 UTC`.
pub fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
