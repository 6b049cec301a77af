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

use super::credential::CredentialId;
use super::endpoint::{Endpoint, Role};
use super::units::Bytes;

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
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DnsFault {
    /// The name does not exist.
    NxDomain,
    /// The name exists, without a record of the family asked for (RFC 2308, 2.2).
    NoData,
    ServFail,
    Refused,
    /// Any other response code, in the words of the RFCs.
    OtherCode {
        code: String,
    },
    /// No answer within the time allowed.
    Timeout,
    /// The server's host answered that nothing listens (ICMP port unreachable, or RST over TCP).
    PortClosed,
    /// The server can't be reached from here at all (no route, local policy).
    Unreachable {
        error: String,
    },
    /// An answer came that could not be read, or that did not belong to the question.
    Malformed {
        reason: String,
    },
    /// No server was there to be asked.
    NoServers,
}

/// An ICMP error that answered a connection attempt (RFC 792, RFC 1812 5.2.7.1, RFC 4443).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
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
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TcpFault {
    /// RST, or ICMP port unreachable when `icmp` is there: the host or a firewall on the way answers.
    Refused {
        icmp: Option<IcmpError>,
    },
    /// The SYN was answered by nothing.
    Timeout,
    HostUnreachable {
        icmp: Option<IcmpError>,
    },
    NetUnreachable {
        icmp: Option<IcmpError>,
    },
    /// A filter on the way said no in so many words.
    Prohibited {
        icmp: IcmpError,
    },
    /// EPERM, EACCES: this machine's own policy (netfilter, eBPF, a prohibit route).
    LocalPolicy {
        errno: i32,
    },
    /// EADDRNOTAVAIL, EAFNOSUPPORT: no source address of that family, or no free local port.
    NoLocalAddress {
        errno: i32,
    },
    /// Closed by the peer while connecting.
    Reset,
    Other {
        errno: Option<i32>,
        error: String,
    },
}

/// Why a proxy opens no way to a server.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProxyFault {
    /// A status that is not 2xx (RFC 9110, 9.3.6): 407 asks for a user, 403 and 502 speak of the
    /// server. For plain http, where there is no `CONNECT`, an answer of the proxy's own.
    Status { status: u16, reason: Option<String> },
    /// The exchange itself failed.
    Http { fault: HttpFault },
    /// No TLS with a proxy of https.
    Tls { fault: TlsFault },
    /// A kind of proxy that Go knows and this probe does not.
    Unsupported { scheme: String },
    /// Whether it opens the way can't be determined here.
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
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TlsFault {
    /// No certificate of the chain leads to a root in force.
    UnknownIssuer {
        issuer: String,
    },
    NameMismatch {
        expected: String,
        presented: Vec<String>,
    },
    Expired {
        not_after: Timestamp,
        local_time: Timestamp,
    },
    NotYetValid {
        not_before: Timestamp,
        local_time: Timestamp,
    },
    /// The certificate is refused for another reason.
    BadCertificate {
        reason: String,
    },
    /// No root certificate could be loaded, so nothing can be said of the server's certificate.
    NoRoots,
    /// Whether containerd accepts it can't be determined here: builds of it differ, or it is beyond what this
    /// program can check.
    Undecided {
        reason: String,
    },
    /// The peer speaks HTTP, not TLS, on this port.
    PlainHttp,
    /// The peer speaks something else; the first bytes in hexadecimal.
    NotTls {
        first_bytes: String,
    },
    /// A fatal alert from the peer (RFC 8446, 6): number and name.
    Alert {
        alert: u8,
        name: String,
    },
    /// No protocol version or cipher suite in common, found by us.
    Incompatible {
        reason: String,
    },
    /// RST after our ClientHello, `received` bytes into the answer.
    Reset {
        received: Bytes,
    },
    /// FIN after our ClientHello.
    Closed {
        received: Bytes,
    },
    /// Nothing more after our ClientHello; `received` 0 means not a byte of an answer.
    Timeout {
        received: Bytes,
    },
    Other {
        reason: String,
    },
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
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HttpFault {
    /// A status that is not success, with the first entry of the OCI error body if there is one.
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
    Malformed {
        reason: String,
    },
    /// The body stopped after this many bytes, the connection still open.
    Stalled {
        after: Bytes,
    },
    /// The connection closed before the promised length.
    Truncated {
        got: Bytes,
        want: Option<Bytes>,
    },
    /// No response head in time.
    Timeout,
    Reset,
    Closed,
    /// More than the bound that this answer may have.
    TooLarge {
        limit: Bytes,
    },
    /// `Location` leads to a place that no client should follow it to.
    RedirectUntrusted {
        to: String,
        reason: Distrust,
    },
    /// The host that a manifest was redirected to can't be got at; its leg says why.
    RedirectBlocked {
        to: Endpoint,
        phase: Phase,
    },
    /// More redirects than containerd follows.
    TooManyRedirects {
        limit: usize,
    },
    /// A new connection was needed in the middle of the exchange, and failed in that phase.
    Reconnect {
        phase: Phase,
        reason: String,
    },
    /// The server asked for a token at this request, and there is none.
    Unauthorized {
        /// The one that was tried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<CredentialId>,
        fault: Box<TokenFault>,
    },
    /// A host that the request needs could not be reached; its leg says why.
    Unreached {
        role: Role,
        phase: Phase,
    },
    /// Content came whole, and has another size than its descriptor says.
    WrongSize {
        expected: i64,
        got: Bytes,
    },
    /// Content came whole, and has another digest than it was asked by.
    WrongDigest {
        expected: String,
        got: String,
    },
    /// A web page came in place of content.
    Page {
        title: Option<String>,
    },
    /// A content encoding that containerd does not undo, or under which is something else.
    Encoding {
        encoding: String,
    },
    /// A body that is not encoded as `Content-Encoding` says.
    NotEncoded {
        encoding: String,
    },
    /// A content encoding that containerd decodes and this program does not.
    EncodingUnread {
        encoding: String,
    },
    /// A layer came whole, and can't be unpacked to what the image's configuration says.
    NotUnpacked {
        reason: String,
    },
    /// Not asked for: it might count against a rate limit.
    NotAsked,
    /// Not sent: the check has made as many requests as one may make.
    RequestLimit {
        /// At one host.
        limit: usize,
    },
    /// The body of one piece of content ended early again and again, each time with some progress. A
    /// pull goes on; a check does not.
    ResumedTooOften {
        limit: usize,
        got: Bytes,
    },
    /// The body kept coming, and so slowly that it was not read to its end. A pull would go on.
    TooSlow {
        within_seconds: u64,
        got: Bytes,
        /// By `Content-Length`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        want: Option<Bytes>,
    },
    /// A media type with which the release of containerd ends the pull before it reads the content.
    Unsupported {
        media_type: String,
    },
    /// The server ended TLS when the handshake was over for us, by an alert (RFC 8446, 6).
    TlsAlert {
        alert: u8,
        name: String,
    },
    Other {
        reason: String,
    },
}

impl HttpFault {
    /// A bound of this program ended it; a pull would have gone on.
    pub fn is_own_limit(&self) -> bool {
        matches!(
            self,
            Self::RequestLimit { .. } | Self::ResumedTooOften { .. } | Self::TooSlow { .. }
        )
    }
}

/// Why a realm or a redirect is not trusted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distrust {
    /// Plain http, named by a server that was reached by https.
    PlainHttp,
    /// 169.254/16 or fe80::/10: also where clouds keep the metadata service.
    LinkLocal,
    /// 127/8, ::1, localhost, named by a server that is not on loopback.
    Loopback,
    /// The unspecified address, or a scheme that is neither http nor https.
    NotAServer,
}

/// Why there is no token.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TokenFault {
    /// The registry asks for Basic, and there is no credential ("no basic auth credentials").
    NoCredential,
    /// The token service said no.
    Rejected { fault: HttpFault },
    /// The realm is a place no credential may go to; none was sent.
    RealmUntrusted { realm: Endpoint, reason: Distrust },
    /// 200, without the field that containerd reads for this form.
    NoToken { method: String, fields: Vec<String> },
    /// The challenge can't be followed: no realm, a realm that is no URL, an unknown scheme.
    BadChallenge { reason: String },
    /// A credential is wanted, and the connection is not verified (`skip_verify`): none was sent.
    Unverified,
    /// The exchange itself failed.
    Http { fault: HttpFault },
}

/// Why there is no manifest for this platform.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ManifestFault {
    Http {
        fault: HttpFault,
    },
    /// The index has no manifest for the platform wanted.
    NoPlatform {
        available: Vec<String>,
    },
    /// A media type that containerd refuses (schema 1 since 2.0) or does not know.
    Unsupported {
        media_type: String,
    },
    /// The body does not have the digest it was asked by.
    DigestMismatch {
        expected: String,
        got: String,
    },
    /// The body is not a manifest.
    Malformed {
        reason: String,
    },
    /// Whether containerd accepts it can't be determined here.
    Undecided {
        reason: String,
    },
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

impl fmt::Display for DnsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NxDomain => f.write_str("the name does not exist (NXDOMAIN)"),
            Self::NoData => f.write_str("the name has no address (NODATA)"),
            Self::ServFail => f.write_str("the server failed (SERVFAIL)"),
            Self::Refused => f.write_str("the server refused the question (REFUSED)"),
            Self::OtherCode { code } => write!(f, "the server answered {code}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::PortClosed => f.write_str("nothing listens on the server's port"),
            Self::Unreachable { error } => write!(f, "the server can't be reached: {error}"),
            Self::Malformed { reason } => write!(f, "the answer can't be read: {reason}"),
            Self::NoServers => f.write_str("there is no server to ask"),
        }
    }
}

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.version == 6 { "v6" } else { "" };
        write!(f, "ICMP{version} {}/{}", self.kind, self.code)?;
        match self.from {
            Some(from) => write!(f, " from {from}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TcpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said =
            |icmp: &Option<IcmpError>| icmp.map_or_else(String::new, |icmp| format!(" ({icmp})"));
        match self {
            Self::Refused { icmp: None } => f.write_str("connection refused (RST)"),
            Self::Refused { icmp: Some(icmp) } => write!(f, "connection refused ({icmp})"),
            Self::Timeout => f.write_str("no answer to the SYN in time"),
            Self::HostUnreachable { icmp } => write!(f, "no route to host{}", said(icmp)),
            Self::NetUnreachable { icmp } => write!(f, "network is unreachable{}", said(icmp)),
            Self::Prohibited { icmp } => write!(f, "administratively prohibited ({icmp})"),
            Self::LocalPolicy { errno } => {
                write!(f, "refused by this machine's own policy (errno {errno})")
            }
            Self::NoLocalAddress { errno } => {
                write!(f, "no local address to connect from (errno {errno})")
            }
            Self::Reset => f.write_str("connection reset"),
            Self::Other { error, .. } => f.write_str(error),
        }
    }
}

impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status, reason } => {
                write!(f, "the proxy itself answered {status}")?;
                match reason {
                    Some(reason) => write!(f, ": {reason}"),
                    None => Ok(()),
                }
            }
            Self::Http { fault } => write!(f, "the proxy and CONNECT: {fault}"),
            Self::Tls { fault } => write!(f, "TLS to the proxy: {fault}"),
            Self::Undecided { reason } => {
                write!(
                    f,
                    "whether the proxy opens the way can't be determined here: {reason}"
                )
            }
            Self::Unsupported { scheme } => {
                write!(f, "proxies by {scheme} are not spoken to by this version")
            }
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer { issuer } => write!(
                f,
                "certificate signed by an authority not trusted here ({issuer})"
            ),
            Self::NameMismatch {
                expected,
                presented,
            } => {
                write!(
                    f,
                    "certificate is not for {expected} but for {}",
                    presented.join(", ")
                )
            }
            Self::Expired { not_after, .. } => {
                write!(f, "certificate expired at {}", instant(*not_after))
            }
            Self::NotYetValid { not_before, .. } => {
                write!(f, "certificate not valid before {}", instant(*not_before))
            }
            Self::BadCertificate { reason } => write!(f, "certificate refused: {reason}"),
            Self::NoRoots => {
                f.write_str("certificate not checked: no trusted roots could be loaded here")
            }
            Self::Undecided { reason } => {
                write!(
                    f,
                    "whether containerd accepts it can't be determined here: {reason}"
                )
            }
            Self::PlainHttp => f.write_str("the server speaks plain HTTP on this port"),
            Self::NotTls { first_bytes } => write!(
                f,
                "the server does not speak TLS (first bytes {first_bytes})"
            ),
            Self::Alert { alert, name } => write!(f, "the server sent TLS alert {alert} ({name})"),
            Self::Incompatible { reason } => {
                write!(f, "no TLS version or cipher suite in common: {reason}")
            }
            Self::Reset { received } => write!(
                f,
                "connection reset after our ClientHello ({received} received)"
            ),
            Self::Closed { received } => write!(
                f,
                "connection closed after our ClientHello ({received} received)"
            ),
            Self::Timeout { received } => write!(
                f,
                "no further answer to our ClientHello ({received} received)"
            ),
            Self::Other { reason } => f.write_str(reason),
        }
    }
}

impl fmt::Display for HttpFault {
    #[expect(clippy::too_many_lines, reason = "a table of words")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status {
                status,
                code,
                message,
                retry_after,
                ..
            } => {
                write!(f, "HTTP {status}")?;
                if let Some(code) = code {
                    write!(f, " {code}")?;
                }
                if let Some(message) = message {
                    write!(f, ": {message}")?;
                }
                match retry_after {
                    Some(after) => write!(f, " (Retry-After: {after})"),
                    None => Ok(()),
                }
            }
            Self::Malformed { reason } => write!(f, "not a valid answer: {reason}"),
            Self::Stalled { after } => write!(f, "the answer stalled after {after}"),
            Self::Truncated {
                got,
                want: Some(want),
            } => write!(f, "the answer ended after {got} of {want}"),
            Self::Truncated { got, want: None } => write!(f, "the answer ended early, after {got}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Reset => f.write_str("connection reset"),
            Self::Closed => f.write_str("connection closed without an answer"),
            Self::TooLarge { limit } => write!(f, "the answer is larger than {limit}"),
            Self::RedirectUntrusted { to, reason } => {
                write!(f, "redirect to {to} not followed: {reason}")
            }
            Self::RedirectBlocked { to, phase } => {
                write!(f, "redirected to {to}, whose {phase} failed")
            }
            Self::TooManyRedirects { limit } => write!(f, "more than {limit} redirects"),
            Self::Unsupported { media_type } => {
                write!(
                    f,
                    "media type {media_type}, which this release does not pull"
                )
            }
            Self::TlsAlert { alert, name } => {
                write!(f, "TLS alert {name} ({alert}) after the handshake")
            }
            Self::Reconnect { phase, reason } => {
                write!(f, "a second connection failed ({phase}): {reason}")
            }
            Self::Unauthorized { fault, .. } => write!(f, "no token for this request: {fault}"),
            Self::Unreached { role, phase } => write!(f, "{phase} of the {role}'s host failed"),
            Self::WrongSize { expected, got } => {
                write!(
                    f,
                    "{got} in place of the {expected} bytes that the descriptor says"
                )
            }
            Self::WrongDigest { expected, got } => {
                write!(f, "content with digest {got} in place of {expected}")
            }
            Self::Page { title: Some(title) } => f.write_str(&super::text::titled(title)),
            Self::Page { title: None } => f.write_str("a page without a title"),
            Self::Encoding { encoding } => {
                write!(
                    f,
                    "content encoding '{encoding}', and what containerd makes of it is not what was asked for"
                )
            }
            Self::NotEncoded { encoding } => {
                write!(
                    f,
                    "the body is not encoded as 'Content-Encoding: {encoding}' says"
                )
            }
            Self::EncodingUnread { encoding } => {
                write!(
                    f,
                    "content encoding '{encoding}', which is not decoded here"
                )
            }
            Self::NotUnpacked { reason } => write!(f, "the layer can't be unpacked: {reason}"),
            Self::NotAsked => f.write_str("not asked for, to spare a rate limit"),
            Self::RequestLimit { limit } => write!(
                f,
                "not sent: a check makes no more than {limit} requests at one host, and all of them were used"
            ),
            Self::ResumedTooOften { limit, got } => write!(
                f,
                "the body ended early {limit} times, each time a little later ({got} in all); a pull would go on"
            ),
            Self::TooSlow {
                within_seconds,
                got,
                want,
            } => {
                write!(f, "the body is too slow to be read to its end: {got}")?;
                if let Some(want) = want {
                    write!(f, " of {want}")?;
                }
                write!(f, " in {within_seconds} s; a pull would go on")
            }
            Self::Other { reason } => f.write_str(reason),
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlainHttp => "plain http, named by a server reached over https",
            Self::LinkLocal => "a link-local or metadata address",
            Self::Loopback => "this machine itself, named by a server that is elsewhere",
            Self::NotAServer => "no http or https server",
        })
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredential => {
                f.write_str("the registry asks for a user and password, and no credential matches")
            }
            Self::Rejected { fault } => write!(f, "the token service said no: {fault}"),
            Self::RealmUntrusted { realm, reason } => {
                write!(f, "nothing sent to realm {realm}: {reason}")
            }
            Self::NoToken { method, fields } => {
                write!(
                    f,
                    "the answer to {method} holds no token that containerd reads (fields: {})",
                    fields.join(", ")
                )
            }
            Self::BadChallenge { reason } => write!(f, "the challenge can't be followed: {reason}"),
            Self::Unverified => {
                f.write_str("no credential sent: the server's certificate is not verified")
            }
            Self::Http { fault } => fault.fmt(f),
        }
    }
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { fault } => fault.fmt(f),
            Self::NoPlatform { available } => write!(
                f,
                "no image for this platform; there is {}",
                available.join(", ")
            ),
            Self::Unsupported { media_type } => {
                write!(f, "media type {media_type} is not pulled by containerd")
            }
            Self::DigestMismatch { expected, got } => {
                write!(f, "the content has digest {got}, not {expected}")
            }
            Self::Malformed { reason } => write!(f, "not a manifest: {reason}"),
            Self::Undecided { reason } => f.write_str(reason),
        }
    }
}

/// `2026-11-23 01:40:12 UTC`.
pub fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
