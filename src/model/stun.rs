//! What a STUN server (RFC 8489) saw of this machine: the address its packets come from.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The two ends of one binding request, and how this end looked from the other.
///
/// Another address than `local` proves a NAT on the way to this server over this transport; another
/// port proves one that shares its address (RFC 4787, 4.1). The same port proves nothing, and other
/// destinations may be given another address.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Mapping {
    pub server: SocketAddr,
    /// This end, as this machine has it.
    pub local: SocketAddr,
    /// This end, as the server has it: `XOR-MAPPED-ADDRESS`, or `MAPPED-ADDRESS` of a server that
    /// knows RFC 3489 only.
    pub mapped: SocketAddr,
}

impl Mapping {
    /// Somebody on the way rewrites this end's address or port.
    pub fn is_translated(&self) -> bool {
        // A scope of IPv6 is known to this machine only; and IPv4 may be had by an IPv6 socket.
        let bare = |end: SocketAddr| (end.ip().to_canonical(), end.port());
        bare(self.local) != bare(self.mapped)
    }
}

/// Why a server did not say.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StunFault {
    /// No answer within the time allowed: over UDP as many requests as that time has room for.
    #[error("no answer in time")]
    Timeout,
    /// ICMP port unreachable, or RST over TCP: nothing listens there.
    #[error("nothing listens on the server's port")]
    Refused,
    /// What came is no answer to the request, or can't be read.
    #[error("the answer can't be read: {reason}")]
    Malformed { reason: String },
    /// An error response (RFC 8489, 14.8), 300 to 699.
    #[error("the server answered with error {code}")]
    ErrorResponse { code: u16 },
    /// No route, local policy, a connection that ends before an answer.
    #[error("{error}")]
    Other { error: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translation_is_of_the_address_or_the_port() {
        let of = |local: &str, mapped: &str| {
            let mapping = Mapping {
                server: "192.0.2.1:3478".parse().unwrap(),
                local: local.parse().unwrap(),
                mapped: mapped.parse().unwrap(),
            };
            mapping.is_translated()
        };
        assert!(of("10.0.0.5:40000", "203.0.113.7:40000"));
        assert!(of("203.0.113.7:40000", "203.0.113.7:1024"));
        assert!(!of("203.0.113.7:40000", "203.0.113.7:40000"));
        assert!(!of("[fe80::1%2]:40000", "[fe80::1]:40000"));
        assert!(!of("[::ffff:192.0.2.5]:40000", "192.0.2.5:40000"));
    }

    #[test]
    fn faults_read_back_from_json() {
        for fault in [
            StunFault::Timeout,
            StunFault::Refused,
            StunFault::Malformed {
                reason: "x".to_owned(),
            },
            StunFault::ErrorResponse { code: 400 },
            StunFault::Other {
                error: "x".to_owned(),
            },
        ] {
            let json = serde_json::to_string(&fault).unwrap();
            assert!(json.starts_with("{\"kind\":\""), "{json}");
            assert_eq!(serde_json::from_str::<StunFault>(&json).unwrap(), fault);
            assert!(!fault.to_string().is_empty());
        }
    }
}
