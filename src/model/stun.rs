//! What a STUN server says of us (RFC 8489).

use std::net::SocketAddr;

/// The two ends of a binding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mapping {
    pub server: SocketAddr,
    /// Our end, as we see it.
    pub local: SocketAddr,
    /// Our end, as the server sees it.
    pub mapped: SocketAddr,
}

/// Why there is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StunFault {
    #[error("no answer")]
    Timeout,
    #[error("connection refused")]
    Refused,
    #[error("the answer is no STUN binding: {reason}")]
    Malformed { reason: &'static str },
    #[error("the server answers error {code}")]
    ErrorResponse { code: u16 },
    #[error("{error}")]
    Other { error: String },
}
