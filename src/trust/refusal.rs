//! Why Go does not trust a chain: what is wrong, and with which of its certificates.

/// A certificate of a case: sent by the server (0 is its own), or a root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChainPosition {
    Sent(usize),
    Root(usize),
}

/// What is wrong with the certificate at a [`ChainPosition`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Go can't read it, or takes no key like its.
    #[error("{0}")]
    Unreadable(&'static str),
    /// An extension that is critical and unknown.
    #[error("it has a critical extension that Go does not know")]
    CriticalExtension,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYetValid,
    /// It is not for the host.
    #[error("it is not for this name")]
    Name,
    /// Nobody who may have signed it is a root, or was sent.
    ///
    /// `hint`: who has the name of an issuer, and why it is not taken for it.
    #[error("{}", hint.as_ref().map_or(NOBODY.to_owned(), |hint| hint.fault.to_string()))]
    UnknownAuthority { hint: Option<Box<Refusal>> },
    /// It may not sign others.
    #[error("{0}")]
    MayNotSign(&'static str),
    /// More authorities are below it than its path length lets be.
    #[error("more authorities are below it than its path length allows")]
    PathTooLong,
    /// Its name constraints do not let a name below be.
    #[error("its name constraints do not allow it: {0}")]
    NotPermitted(String),
    /// It has the name of the issuer, and did not sign.
    #[error("it has the issuer's name and another key")]
    OtherKey,
    /// Its signature is of a kind that Go does not take.
    #[error("{0}")]
    Signature(&'static str),
    /// Go gives up.
    #[error("more signatures than Go checks would have to be checked")]
    TooManyChecks,
    /// It is for other purposes than a server's.
    #[error("it is not for servers (extended key usage)")]
    Purpose,
    /// The policies of certificates.
    #[error("the policies of its certificates do not fit")]
    Policies,
    /// No key for TLS.
    #[error("its key is of a kind that TLS does not use")]
    Key,
}

/// Why a chain is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    pub fault: Fault,
    pub place: ChainPosition,
}

impl Refusal {
    pub(super) fn at(fault: Fault, place: ChainPosition) -> Self {
        Self { fault, place }
    }
}

const NOBODY: &str = "nobody who may have signed it is trusted";
