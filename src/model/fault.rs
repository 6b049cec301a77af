//! Faults: why a phase failed, as plain data, with one enum for each phase.
//!
//! A fault has the details that its reader needs next (which names the certificate presents, how many bytes
//! were received). Rules turn faults into causes; only a cause has a severity and advice. Text from the network
//! is stripped of control characters, cut to length and scrubbed of the credentials in use before it is stored
//! here.

use std::borrow::Borrow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::credential::CredentialId;
use super::endpoint::{Endpoint, Role};
use super::own_limit::{MayBeOwn, OwnLimit};
use super::text::{or, titled};
use super::units::Bytes;

/// The value between two texts; empty if there is none, or if a server sent an empty one.
fn between(before: &str, value: Option<&impl fmt::Display>, after: &str) -> String {
    match value.map(ToString::to_string) {
        Some(value) if !value.is_empty() => format!("{before}{value}{after}"),
        _ => String::new(),
    }
}

fn typed(media_type: &str) -> String {
    if media_type.trim().is_empty() {
        return "content without a media type".to_owned();
    }
    format!("media type {media_type}")
}

/// The phases of a leg, then those of the protocol. The names are those of blackbox_exporter where it has them.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Resolving the server's name.
    Resolve,
    /// Opening a TCP connection.
    Connect,
    /// `CONNECT` to a proxy, if a tunnel is used.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// `GET /v2/`.
    Ping,
    /// Exchanging a credential (or none) for a bearer token.
    Token,
    /// `HEAD` with the tag or digest, then the manifest of this platform.
    Manifest,
    /// The first byte of a layer.
    Blob,
}

impl Phase {
    /// The JSON value and metric label.
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
    /// The name exists, without a record of the requested family (RFC 2308, 2.2).
    #[error("the name has no address (NODATA)")]
    NoData,
    /// The server could not answer (RFC 1035, RCODE 2).
    #[error("the server failed (SERVFAIL)")]
    ServFail,
    /// The server refused by its policy (RFC 1035, RCODE 5).
    #[error("the server refused the query (REFUSED)")]
    Refused,
    /// Any other response code.
    #[error("the server answered {}", or(code, "an unknown code"))]
    OtherCode {
        /// Its name in the RFCs.
        code: String,
    },
    /// No answer within the resolver's timeout.
    #[error("no answer in time")]
    Timeout,
    /// The server's host answered that nothing listens there (ICMP port unreachable, or RST over TCP).
    #[error("nothing listens on the server's port")]
    PortClosed,
    /// The server can't be reached from this machine at all (no route, local policy).
    #[error("the server can't be reached: {error}")]
    Unreachable {
        /// The operating system's error.
        error: String,
    },
    /// The answer could not be read, or did not belong to the query.
    #[error("the answer can't be read: {reason}")]
    Malformed {
        /// Why, in words.
        reason: String,
    },
    /// No name server is known.
    #[error("there is no name server to query")]
    NoServers,
    /// A limit of this process kept it from observing anything.
    #[error("not observed: {limit}")]
    OwnLimit {
        /// The limit.
        limit: OwnLimit,
    },
}

impl DnsFault {
    /// Whether a server or filter without EDNS responds like this: not at all, with the code of a message that it
    /// can't read (RFC 6891, 7), or with that code and without the question.
    pub fn may_be_edns(&self) -> bool {
        match self {
            Self::Timeout | Self::Malformed { .. } => true,
            Self::OtherCode { code } => matches!(&**code, "FORMERR" | "NOTIMP" | "BADVERS"),
            _ => false,
        }
    }
}

/// An ICMP error that answered a connection attempt (RFC 792, RFC 1812 5.2.7.1, RFC 4443).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[error(
    "ICMP{} {kind}/{code}{}",
    if *version == 6 { "v6" } else { "" },
    between(" from ", from.as_ref(), "")
)]
pub struct IcmpError {
    /// The host that sent it, often the firewall itself; absent if the kernel does not report it.
    pub from: Option<IpAddr>,
    /// 4 or 6.
    pub version: u8,
    /// ICMP type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// ICMP code of that type.
    pub code: u8,
}

impl IcmpError {
    /// Whether a filter rejected the packet: IPv4 3/9, 3/10, 3/13; IPv6 1/1, 1/5, 1/6.
    pub fn is_prohibited(&self) -> bool {
        matches!(
            (self.version, self.kind, self.code),
            (4, 3, 9 | 10 | 13) | (6, 1, 1 | 5 | 6)
        )
    }
}

/// Why there is no connection (RFC 9293; errno of connect(2)).
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TcpFault {
    /// The host or a firewall on the path rejected the connection: RST, or ICMP port unreachable if `icmp` is
    /// present.
    #[error("connection refused ({})", icmp.map_or("RST".to_owned(), |icmp| icmp.to_string()))]
    Refused {
        /// The ICMP error; absent for a RST.
        icmp: Option<IcmpError>,
    },
    /// Nothing answered the SYN.
    #[error("no answer to the SYN in time")]
    Timeout,
    /// EHOSTUNREACH: no answer to ARP or neighbor discovery, a route of type unreachable, or a router's ICMP
    /// error.
    #[error("no route to host{}", between(" (", icmp.as_ref(), ")"))]
    HostUnreachable {
        /// The ICMP error; absent if the error is this machine's own.
        icmp: Option<IcmpError>,
    },
    /// ENETUNREACH: this machine has no route, or a router's ICMP error.
    #[error("network is unreachable{}", between(" (", icmp.as_ref(), ")"))]
    NetUnreachable {
        /// The ICMP error; absent if the error is this machine's own.
        icmp: Option<IcmpError>,
    },
    /// A filter on the path rejected the connection explicitly.
    #[error("administratively prohibited ({icmp})")]
    Prohibited {
        /// The ICMP error.
        icmp: IcmpError,
    },
    /// EPERM, EACCES: this machine's own policy (netfilter, eBPF, a prohibit route).
    #[error("refused by this machine's own policy (errno {errno})")]
    LocalPolicy {
        /// EPERM or EACCES, as a number.
        errno: i32,
    },
    /// EADDRNOTAVAIL, EAFNOSUPPORT: no source address of that family. In reports of older versions, also no free
    /// local port.
    #[error("no local address to connect from (errno {errno})")]
    NoLocalAddress {
        /// The errno, as a number.
        errno: i32,
    },
    /// EADDRNOTAVAIL, although there is a source address: all local ports of this network namespace are in use.
    #[error("no free local port")]
    NoLocalPort,
    /// Closed by the peer while connecting.
    #[error("connection reset")]
    Reset,
    /// Any other error.
    #[error("{error}")]
    Other {
        /// The errno; absent if there is none.
        errno: Option<i32>,
        /// The error in words.
        error: String,
    },
    /// A limit of this process kept it from observing anything.
    #[error("not observed: {limit}")]
    OwnLimit {
        /// The limit.
        limit: OwnLimit,
    },
}

/// Why a proxy does not forward to a server.
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProxyFault {
    /// A status other than 2xx (RFC 9110, 9.3.6): 407 requires a user, 403 and 502 are about the server. For
    /// plain http, which needs no `CONNECT`, an answer of the proxy itself.
    #[error("the proxy itself answered {status}{}", between(": ", reason.as_ref(), ""))]
    Status {
        /// HTTP status.
        status: u16,
        /// What the proxy states as the reason; absent if it states none.
        reason: Option<String>,
    },
    /// The exchange itself failed.
    #[error("CONNECT to the proxy failed: {fault}")]
    Http {
        /// How it failed.
        fault: HttpFault,
    },
    /// No TLS session with a proxy whose URL is https.
    #[error("TLS with the proxy failed: {fault}")]
    Tls {
        /// How it failed.
        fault: TlsFault,
    },
    /// containerd reads the proxy's URL in another way than it is meant, because of a character in its user or
    /// password.
    #[error(
        "Go takes another text of {variable} for the proxy's host, because of {character} in the user or password: it \
         must be written as {encoded}"
    )]
    Misread {
        /// The variable that sets the proxy.
        variable: String,
        /// The first such character, or its name.
        character: String,
        /// It, percent-encoded.
        encoded: String,
    },
    /// Go does not use a proxy for plain http while `REQUEST_METHOD` is set, as in a CGI program.
    #[error(
        "Go refuses {variable} while REQUEST_METHOD is set, as in a CGI program, and makes no request"
    )]
    Cgi {
        /// The variable that sets the proxy.
        variable: String,
    },
    /// A SOCKS5 proxy does not connect.
    #[error("the SOCKS5 proxy does not connect: {reason}")]
    Socks {
        /// Its reply (RFC 1928, 6); absent if it got no further than that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply: Option<u8>,
        /// Why, in words.
        reason: String,
    },
    /// In reports of older versions: a kind of proxy that Go supports and the program did not.
    #[error("this version does not support {scheme} proxies")]
    Unsupported {
        /// Scheme of the proxy's URL: `socks5` or `socks5h`.
        scheme: String,
    },
    /// Whether the proxy forwards can't be determined here.
    #[error("whether the proxy forwards to the server can't be determined here: {reason}")]
    Undecided {
        /// Why, in words.
        reason: String,
    },
    /// A limit of this process kept it from observing anything.
    #[error("not observed: {limit}")]
    OwnLimit {
        /// The limit.
        limit: OwnLimit,
    },
}

impl ProxyFault {
    /// Whether the proxy may forward for containerd all the same.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Unsupported { .. } | Self::Undecided { .. })
            || matches!(self, Self::Tls { fault } if fault.is_undecided())
    }
}

/// Why there is no TLS session (RFC 8446, RFC 5280).
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TlsFault {
    /// No certificate of the chain leads to a trusted root.
    #[error(
        "certificate signed by an authority not trusted here{}",
        between(" (", Some(issuer), ")")
    )]
    UnknownIssuer {
        /// Issuer of the last certificate that could be followed.
        issuer: String,
    },
    /// The certificate is valid for other names only (RFC 9525).
    #[error("certificate is not for {expected} but for {}", or(&presented.join(", "), "no name at all"))]
    NameMismatch {
        /// The host name or address that was connected to.
        expected: String,
        /// The names and addresses that the certificate is valid for.
        presented: Vec<String>,
    },
    /// `notAfter` is in the past by the local clock.
    #[error("certificate expired at {}", instant(*not_after))]
    Expired {
        /// When the certificate expired.
        not_after: Timestamp,
        /// The local clock at the handshake.
        local_time: Timestamp,
    },
    /// `notBefore` is in the future by the local clock.
    #[error("certificate not valid before {}", instant(*not_before))]
    NotYetValid {
        /// When the certificate becomes valid.
        not_before: Timestamp,
        /// The local clock at the handshake.
        local_time: Timestamp,
    },
    /// The certificate is refused for another reason.
    #[error("certificate refused: {reason}")]
    BadCertificate {
        /// Why, in words.
        reason: String,
    },
    /// No trusted root could be loaded, so the server's certificate could not be checked.
    #[error("certificate not checked: no trusted roots could be loaded here")]
    NoRoots,
    /// Whether containerd accepts it can't be determined here: builds of it differ, or this program can't check
    /// it.
    #[error("whether containerd accepts it can't be determined here: {reason}")]
    Undecided {
        /// Why, in words.
        reason: String,
    },
    /// The peer speaks HTTP, not TLS, on this port.
    #[error("the server speaks plain HTTP on this port")]
    PlainHttp,
    /// The peer speaks neither TLS nor HTTP.
    #[error("the server does not speak TLS (first bytes {first_bytes})")]
    NotTls {
        /// The first bytes that it sent, in hexadecimal.
        first_bytes: String,
    },
    /// The peer sent a fatal alert (RFC 8446, 6).
    #[error("the server sent TLS alert {alert} ({name})")]
    Alert {
        /// Number of the alert.
        alert: u8,
        /// Name of the alert.
        name: String,
    },
    /// No protocol version or cipher suite in common, as this side detected.
    #[error("no TLS version or cipher suite in common: {reason}")]
    Incompatible {
        /// Why, in words.
        reason: String,
    },
    /// RST after the ClientHello.
    #[error("connection reset after our ClientHello ({received} received)")]
    Reset {
        /// Bytes of the answer that had been received before; 0 means not a single byte.
        received: Bytes,
    },
    /// FIN after the ClientHello.
    #[error("connection closed after our ClientHello ({received} received)")]
    Closed {
        /// Bytes of the answer that had been received before; 0 means not a single byte.
        received: Bytes,
    },
    /// Nothing more was received after the ClientHello.
    #[error(
        "no {}answer to our ClientHello ({received} received)",
        if received.0 == 0 { "" } else { "further " }
    )]
    Timeout {
        /// Bytes of the answer that had been received before; 0 means not a single byte.
        received: Bytes,
    },
    /// Any other failure.
    #[error("{reason}")]
    Other {
        /// Why, in words.
        reason: String,
    },
    /// A limit of this process kept it from observing anything.
    #[error("not observed: {limit}")]
    OwnLimit {
        /// The limit.
        limit: OwnLimit,
    },
}

impl TlsFault {
    /// Whether containerd may get a session all the same. Alerts 40 and 71 answer a ClientHello without suites
    /// that containerd offers and this program does not.
    pub fn is_undecided(&self) -> bool {
        matches!(
            self,
            Self::NoRoots | Self::Undecided { .. } | Self::Alert { alert: 40 | 71, .. }
        )
    }
}

/// Why an HTTP exchange failed (RFC 9110, OCI distribution-spec).
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HttpFault {
    /// A status other than success, with the first entry of the OCI error body if there is one.
    #[error(
        "HTTP {status}{}{}{}",
        between(" ", code.as_ref(), ""),
        between(": ", message.as_ref(), ""),
        between(" (Retry-After: ", retry_after.as_ref(), ")")
    )]
    Status {
        /// HTTP status.
        status: u16,
        /// OCI error code (`MANIFEST_UNKNOWN`, `DENIED`, …), or that of an S3-like error document; absent if
        /// the body has none.
        code: Option<String>,
        /// The message beside the code; absent if the body has none.
        message: Option<String>,
        /// `Retry-After`, as sent; absent if it was not.
        retry_after: Option<String>,
        /// Whether the answer had a `WWW-Authenticate` header.
        challenged: bool,
        /// Whether a credential or a token was sent.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        authorized: bool,
    },
    /// The answer does not follow the protocol.
    #[error("not a valid answer: {reason}")]
    Malformed {
        /// Why, in words.
        reason: String,
    },
    /// No more of the body was received, the connection still open.
    #[error("the answer stalled after {after}")]
    Stalled {
        /// Bytes of the body received until then.
        after: Bytes,
    },
    /// The connection was closed before the whole body was received.
    #[error(
        "the answer ended {}after {got}{}",
        if want.is_some() { "" } else { "early, " },
        between(" of ", want.as_ref(), "")
    )]
    Truncated {
        /// Bytes of the body received.
        got: Bytes,
        /// Bytes according to `Content-Length`; absent if the length was not stated.
        want: Option<Bytes>,
    },
    /// No status line and headers in time.
    #[error("no answer in time")]
    Timeout,
    /// RST before the answer was complete.
    #[error("connection reset")]
    Reset,
    /// FIN before an answer.
    #[error("connection closed without an answer")]
    Closed,
    /// The answer is larger than the limit of this program for such an answer.
    #[error("the answer is larger than {limit}")]
    TooLarge {
        /// That limit.
        limit: Bytes,
    },
    /// `Location` leads to a server that no client should be redirected to.
    #[error("redirect to {to} not followed: {reason}")]
    RedirectUntrusted {
        /// That server.
        to: String,
        /// Why it is not trusted.
        reason: Distrust,
    },
    /// The server that a manifest was redirected to can't be reached; its leg shows why.
    #[error("redirected to {to}, whose {phase} failed")]
    RedirectBlocked {
        /// That server.
        to: Endpoint,
        /// The phase that failed there.
        phase: Phase,
    },
    /// The server redirected more often than containerd follows.
    #[error("more than {limit} redirects")]
    TooManyRedirects {
        /// Number of redirects that containerd follows.
        limit: usize,
    },
    /// A new connection was needed in the middle of the exchange, and could not be opened.
    #[error("a second connection failed ({phase}): {reason}")]
    Reconnect {
        /// The phase that failed.
        phase: Phase,
        /// Why, in words.
        reason: String,
        /// How its TLS handshake failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<Box<TlsFault>>,
    },
    /// The server required a token for this request, and there is none.
    #[error("no token for this request: {fault}")]
    Unauthorized {
        /// The credential that was tried; absent if none was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<CredentialId>,
        /// Why there is no token.
        fault: Box<TokenFault>,
    },
    /// A server that the request needs could not be reached; its leg shows why.
    #[error("{phase} failed at the {role} server")]
    Unreached {
        /// The leg of that server.
        role: Role,
        /// The phase that failed there.
        phase: Phase,
    },
    /// The complete content has another size than its descriptor states.
    #[error("{got} instead of the {expected} bytes that the descriptor states")]
    WrongSize {
        /// Size in the descriptor, in bytes.
        expected: i64,
        /// Size that was received.
        got: Bytes,
    },
    /// The complete content has another digest than the requested one.
    #[error("content with digest {got} instead of {expected}")]
    WrongDigest {
        /// The requested digest.
        expected: String,
        /// Digest of the content.
        got: String,
    },
    /// The server sent a web page instead of content.
    #[error("{}", title.as_deref().map_or("a page without a title".to_owned(), titled))]
    Page {
        /// Its title; absent if it has none.
        title: Option<String>,
    },
    /// A content encoding that containerd does not decode, or that does not decode to the requested content.
    #[error(
        "content encoding '{encoding}', which containerd does not decode to the requested content"
    )]
    Encoding {
        /// `Content-Encoding`.
        encoding: String,
    },
    /// The body is not encoded as `Content-Encoding` states.
    #[error("the body is not encoded as 'Content-Encoding: {encoding}' states")]
    NotEncoded {
        /// `Content-Encoding`.
        encoding: String,
    },
    /// A content encoding that containerd decodes and this program does not.
    #[error("content encoding '{encoding}', which this program does not decode")]
    EncodingUnread {
        /// `Content-Encoding`.
        encoding: String,
    },
    /// A complete layer can't be unpacked to what the image's configuration states.
    #[error("the layer can't be unpacked: {reason}")]
    NotUnpacked {
        /// Why, in words.
        reason: String,
    },
    /// Not requested, because it might count against a rate limit.
    #[error("not requested, because it might count against a rate limit")]
    #[serde(alias = "not_asked")]
    NotRequested,
    /// Not sent, because the check has made the maximum number of requests.
    #[error(
        "not sent: a check makes at most {limit} requests to one host, and has made all of them"
    )]
    RequestLimit {
        /// Maximum number of requests to one host.
        limit: usize,
    },
    /// The body of one content ended early again and again, each time with some progress. A pull continues; a
    /// check does not.
    #[error(
        "the body ended early {limit} times, each time a little later ({got} in all); a pull would continue"
    )]
    ResumedTooOften {
        /// How often it ended early.
        limit: usize,
        /// Bytes received in all.
        got: Bytes,
    },
    /// The body was received too slowly to be read to its end. A pull would continue.
    #[error(
        "the body is too slow to be read to its end: {got}{} in {within_seconds} s; a pull would continue",
        between(" of ", want.as_ref(), "")
    )]
    TooSlow {
        /// Seconds after which the check stopped.
        within_seconds: u64,
        /// Bytes of the body received.
        got: Bytes,
        /// Bytes according to `Content-Length`; absent if the length was not stated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        want: Option<Bytes>,
    },
    /// A media type because of which this release of containerd stops the pull before it reads the content.
    #[error(
        "{}, which this release of containerd does not pull",
        typed(media_type)
    )]
    Unsupported {
        /// The media type.
        media_type: String,
    },
    /// The server closed TLS with an alert (RFC 8446, 6) after the handshake was complete on this side.
    #[error("TLS alert {name} ({alert}) after the handshake")]
    TlsAlert {
        /// Number of the alert.
        alert: u8,
        /// Name of the alert.
        name: String,
    },
    /// Any other failure.
    #[error("{reason}")]
    Other {
        /// Why, in words.
        reason: String,
    },
    /// A limit of this process kept it from observing anything.
    #[error("not observed: {limit}")]
    OwnLimit {
        /// The limit.
        limit: OwnLimit,
    },
}

impl HttpFault {
    /// An answer that does not follow the protocol.
    pub fn malformed(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Malformed { reason }
    }

    /// Whether a limit of this program ended it; a pull would have continued.
    pub fn is_own_limit(&self) -> bool {
        matches!(
            self,
            Self::RequestLimit { .. }
                | Self::ResumedTooOften { .. }
                | Self::TooSlow { .. }
                | Self::OwnLimit { .. }
        )
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// The items, and how many more there are.
pub fn with_more(items: &[impl Borrow<str>], more: usize) -> String {
    let text = items.join(", ");
    match more {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// Why a realm or a redirect is not trusted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distrust {
    /// Plain http, named by a server that was reached over https.
    #[error("plain http, named by a server reached over https")]
    PlainHttp,
    /// 169.254.0.0/16 or fe80::/10, where clouds also have their metadata service.
    #[error("a link-local or metadata address")]
    LinkLocal,
    /// 127.0.0.0/8, ::1 or localhost, named by a server that is not on loopback.
    #[error("a loopback address, named by a server on another machine")]
    Loopback,
    /// The unspecified address, or a scheme that is neither http nor https.
    #[error("not an http or https server")]
    NotAServer,
}

/// Why there is no token.
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TokenFault {
    /// The registry requires Basic, and there is no credential (containerd: "no basic auth credentials").
    #[error("the registry requires a user and password, and no credential matches")]
    NoCredential,
    /// The token service refused to issue a token.
    #[error("the token service refused: {fault}")]
    Rejected {
        /// Its answer.
        fault: HttpFault,
    },
    /// The realm is a server that no credential may be sent to; none was.
    #[error("nothing sent to realm {realm}: {reason}")]
    RealmUntrusted {
        /// Server of the realm.
        realm: Endpoint,
        /// Why it is not trusted.
        reason: Distrust,
    },
    /// Status 200, without the field that containerd reads after this kind of request.
    #[error(
        "the answer to {method} contains no token that containerd reads (fields: {})",
        fields.join(", ")
    )]
    NoToken {
        /// `GET` or `POST`.
        method: String,
        /// The fields of the answer.
        fields: Vec<String>,
    },
    /// The challenge can't be used: no realm, a realm that is not a URL, an unknown scheme.
    #[error("the challenge can't be used: {reason}")]
    BadChallenge {
        /// Why, in words.
        reason: String,
    },
    /// A credential is required, and the connection is not verified (`skip_verify`): none was sent.
    #[error("no credential sent: the server's certificate is not verified")]
    Unverified,
    /// The exchange itself failed.
    #[error("{fault}")]
    Http {
        /// How it failed.
        fault: HttpFault,
    },
}

/// Why there is no manifest for this platform.
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ManifestFault {
    /// The request for the manifest failed.
    #[error("{fault}")]
    Http {
        /// How it failed.
        fault: HttpFault,
    },
    /// The index has no manifest for the requested platform.
    #[error(
        "no image for this platform{}",
        between("; available: ", Some(with_more(available, *left_out)).filter(|all| !all.is_empty()).as_ref(), "")
    )]
    NoPlatform {
        /// The platforms in the index; of more than 64, the first.
        available: Vec<String>,
        /// Number of platforms that `available` leaves out.
        #[serde(default, skip_serializing_if = "is_zero")]
        left_out: usize,
    },
    /// A media type that containerd refuses (schema 1 since 2.0) or does not support.
    #[error("containerd does not pull {}", typed(media_type))]
    Unsupported {
        /// The media type.
        media_type: String,
    },
    /// The body does not have the requested digest.
    #[error("the content has digest {got}, not {expected}")]
    DigestMismatch {
        /// The requested digest.
        expected: String,
        /// Digest of the body.
        got: String,
    },
    /// The body is not a manifest.
    #[error("not a manifest: {reason}")]
    Malformed {
        /// Why, in words.
        reason: String,
    },
    /// Whether containerd accepts it can't be determined here.
    #[error("{reason}")]
    Undecided {
        /// Why, in words.
        reason: String,
    },
}

// ---- limits of this process ---------------------------------------------------------------------

macro_rules! from_own_limit {
    ($($fault:ident),*) => {$(
        impl From<OwnLimit> for $fault {
            fn from(limit: OwnLimit) -> Self {
                Self::OwnLimit { limit }
            }
        }
    )*};
}

from_own_limit!(DnsFault, TcpFault, ProxyFault, TlsFault, HttpFault);

impl MayBeOwn for DnsFault {
    fn own_limit(&self) -> Option<OwnLimit> {
        match self {
            Self::OwnLimit { limit } => Some(*limit),
            _ => None,
        }
    }

    fn may_be_pause(&self) -> bool {
        matches!(self, Self::Timeout)
    }
}

impl MayBeOwn for TcpFault {
    fn own_limit(&self) -> Option<OwnLimit> {
        match self {
            Self::OwnLimit { limit } => Some(*limit),
            _ => None,
        }
    }

    fn may_be_pause(&self) -> bool {
        matches!(self, Self::Timeout | Self::Reset)
    }
}

impl MayBeOwn for TlsFault {
    fn own_limit(&self) -> Option<OwnLimit> {
        match self {
            Self::OwnLimit { limit } => Some(*limit),
            _ => None,
        }
    }

    fn may_be_pause(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. } | Self::Reset { .. } | Self::Closed { .. }
        )
    }
}

impl MayBeOwn for ProxyFault {
    fn own_limit(&self) -> Option<OwnLimit> {
        match self {
            Self::OwnLimit { limit } => Some(*limit),
            Self::Http { fault } => fault.own_limit(),
            Self::Tls { fault } => fault.own_limit(),
            _ => None,
        }
    }

    fn may_be_pause(&self) -> bool {
        match self {
            Self::Http { fault } => fault.may_be_pause(),
            Self::Tls { fault } => fault.may_be_pause(),
            Self::Socks { reply, .. } => reply.is_none(),
            _ => false,
        }
    }
}

impl MayBeOwn for HttpFault {
    fn own_limit(&self) -> Option<OwnLimit> {
        match self {
            Self::OwnLimit { limit } => Some(*limit),
            Self::Unauthorized { fault, .. } => fault.own_limit(),
            _ => None,
        }
    }

    fn may_be_pause(&self) -> bool {
        match self {
            Self::Timeout
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::TooSlow { .. }
            | Self::ResumedTooOften { .. }
            | Self::Reset
            | Self::Closed
            // Request Timeout (RFC 9110, 15.5.9): the server waited for the request.
            | Self::Status { status: 408, .. } => true,
            Self::Reconnect { tls, .. } => tls.as_ref().is_none_or(|tls| tls.may_be_pause()),
            Self::Unauthorized { fault, .. } => fault.may_be_pause(),
            _ => false,
        }
    }
}

macro_rules! own_if_its_request_is {
    ($($fault:ident),*) => {$(
        impl MayBeOwn for $fault {
            fn own_limit(&self) -> Option<OwnLimit> {
                match self {
                    Self::Http { fault } => fault.own_limit(),
                    _ => None,
                }
            }

            fn may_be_pause(&self) -> bool {
                match self {
                    Self::Http { fault } => fault.may_be_pause(),
                    _ => false,
                }
            }
        }
    )*};
}

own_if_its_request_is!(TokenFault, ManifestFault);

/// The address of a server in a message: without the port if that is 53.
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
