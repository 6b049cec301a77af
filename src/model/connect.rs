//! What connecting to a host showed: TCP, TLS, and the certificates it presented.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::{TcpFault, TlsFault};
use super::step::Step;
use super::units::OptionalSeconds;

#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
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
    #[serde(rename = "rtt_seconds", with = "OptionalSeconds")]
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
    #[serde(rename = "fallback_seconds", with = "OptionalSeconds")]
    pub fallback: Option<Duration>,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
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
    #[serde(alias = "trusted_itself")]
    pub leaf_trusted: Option<String>,
    /// Another outcome is possible by the roots that containerd read before the bundle was changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub depends_on_changed_roots: bool,
    #[serde(flatten)]
    pub outcome: Step<Session, TlsFault>,
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
