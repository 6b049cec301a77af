//! Evidence of connecting to a host: TCP, TLS, and the certificates that the host presented.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::{TcpFault, TlsFault};
use super::step::Step;
use super::units::OptionalSeconds;

/// The TCP connections of a leg: every attempt, and the connection that the check used.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Connect {
    /// The addresses tried, in the order of the resolution; at most four for each address family.
    pub attempts: Vec<Dial>,
    /// Number of addresses that were not tried because of that limit.
    pub not_tried: usize,
    /// The connection that a Go client would have used; failed if every attempt failed.
    #[serde(flatten)]
    pub outcome: Step<Connected, TcpFault>,
}

/// One connection attempt.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Dial {
    /// The address and port.
    pub to: SocketAddr,
    /// What TCP reported right after the handshake, or why there is no connection.
    #[serde(flatten)]
    pub outcome: Step<Connection, TcpFault>,
}

/// TCP_INFO right after the handshake (linux/tcp.h).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Connection {
    /// Source address and port on this machine.
    pub local: SocketAddr,
    /// `tcpi_rtt`: the handshake's round trip. Absent if the kernel reported none.
    #[serde(rename = "rtt_seconds", with = "OptionalSeconds")]
    pub rtt: Option<Duration>,
    /// `tcpi_snd_mss`: the largest segment this machine may send, less the TCP options in use.
    pub send_mss: Option<u32>,
    /// `tcpi_total_retrans`: how often the SYN was sent again before the connection was established. Absent if the
    /// kernel does not report it, and in reports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_retransmits: Option<u32>,
}

/// The connection that the check used: the one that a Go client would have used.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Connected {
    /// The address and port that it leads to.
    pub to: SocketAddr,
    /// How long a dual-stack client would have waited before it used this connection: the fallback delay of RFC
    /// 8305, or the time of earlier failed attempts. Absent if it is the first choice.
    #[serde(rename = "fallback_seconds", with = "OptionalSeconds")]
    pub fallback: Option<Duration>,
}

/// The TLS handshake of a leg.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Tls {
    /// The certificate chain as presented, leaf first; recorded also if it was refused.
    pub chain: Vec<Certificate>,
    /// The certificate is invalid, and containerd connects all the same (`skip_verify`). The check does so too,
    /// without sending any credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unverified: Option<TlsFault>,
    /// The certificate because of which the chain was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_link: Option<BadLink>,
    /// The file or folder of the trusted roots that contains the server's own certificate. Such a certificate
    /// is trusted for this server alone, and not as an authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "trusted_itself")]
    pub leaf_trusted: Option<String>,
    /// The outcome may differ with the roots that containerd read before the bundle was changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub depends_on_changed_roots: bool,
    /// Number of segments that this machine sent again until the handshake ended, without SYNs. Absent if the kernel
    /// does not report it, and in reports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u32>,
    /// The session, or why there is none.
    #[serde(flatten)]
    pub outcome: Step<Session, TlsFault>,
}

/// One certificate of a chain that Go refuses, and the problem with it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct BadLink {
    /// The certificate with the problem.
    pub certificate: Certificate,
    /// Its index in the chain as sent, from 0; absent for a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<usize>,
    /// The file or folder that the root was read from; absent for a certificate that the server sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What is wrong with it.
    pub problem: LinkProblem,
    /// The problem in words.
    pub reason: String,
    /// A trusted root with the issuer's name that has expired as well: usually an old root of an authority that
    /// is now cross-signed by others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_root: Option<ExpiredRoot>,
}

/// A trusted root that has expired.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ExpiredRoot {
    /// The root's certificate.
    pub certificate: Certificate,
    /// The file or folder that it was read from.
    pub source: String,
}

/// The problem with one certificate of a chain.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkProblem {
    /// No certificate with its issuer's name was sent or is a trusted root.
    IssuerUnknown,
    /// `notAfter` is in the past.
    Expired,
    /// `notBefore` is in the future.
    NotYetValid,
    /// It is not allowed to sign the certificate below it: it is no CA, its key is for other uses, its path
    /// length is exceeded, or its name constraints exclude a name.
    MayNotSign,
    /// It has the issuer's name and another key.
    OtherKey,
    /// Another rule of Go.
    Other,
}

/// The parameters that a TLS handshake agreed on.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Session {
    /// Protocol version, for example `TLSv1.3`.
    pub protocol: String,
    /// Name of the cipher suite (IANA), for example `TLS13_AES_128_GCM_SHA256`.
    pub cipher_suite: String,
    /// Key exchange group: `X25519`, `secp256r1`, …; absent if there was none.
    pub key_exchange: Option<String>,
    /// The protocol that the server chose by ALPN. Only in reports of older versions, which offered protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
}

/// What a report shows of an X.509 certificate (RFC 5280).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Certificate {
    /// Distinguished name of the holder.
    pub subject: String,
    /// Distinguished name of the authority that signed it.
    pub issuer: String,
    /// DNS names and addresses of the subjectAltName extension (RFC 5280, 4.2.1.6).
    pub names: Vec<String>,
    /// Start of its validity (RFC 5280, 4.1.2.5).
    pub not_before: Timestamp,
    /// End of its validity, at which it expires.
    pub not_after: Timestamp,
    /// SHA-256 of the DER form in hexadecimal, to compare with `openssl x509 -fingerprint -sha256`.
    pub sha256: String,
    /// URLs at which the issuer's certificate can be downloaded, as stated in the certificate (RFC 5280,
    /// 4.2.2.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuer_at: Vec<String>,
}

/// The trusted roots.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Roots {
    /// Number of roots that could be loaded.
    pub certificates: usize,
    /// Files and folders they were read from.
    pub sources: Vec<String>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
    /// Files of the bundle that were changed after containerd started, with the time of the change. containerd
    /// reads them once, at its start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}
