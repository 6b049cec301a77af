//! Why Go does not trust a chain: the fault, and the certificate that has it.

/// Which certificate: one that the server sent, or a trusted root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChainPosition {
    /// Index in the server's list; 0 is its own certificate.
    Sent(usize),
    /// Index in [`super::Pool::roots`].
    Root(usize),
}

/// What is wrong with the certificate at a [`ChainPosition`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Go can't parse it, or does not support its key.
    #[error("{0}")]
    Unreadable(&'static str),
    /// A critical extension that Go does not support.
    #[error("it has a critical extension that Go does not support")]
    CriticalExtension,
    #[error("it has expired")]
    /// Its `notAfter` has passed.
    Expired,
    #[error("it is not valid yet")]
    /// Its `notBefore` is in the future.
    NotYetValid,
    /// It does not cover the host's name or address.
    #[error("it is not valid for this name")]
    Name,
    /// No trusted authority is its issuer.
    ///
    /// `hint`: a certificate with an issuer's name, and why it was rejected.
    #[error("{}", hint.as_ref().map_or(NO_ISSUER.to_owned(), |hint| hint.fault.to_string()))]
    UnknownAuthority {
        /// A certificate that has the issuer's name, and why it is not accepted as the issuer. `None`
        /// if there is none with that name.
        hint: Option<Box<Refusal>>,
    },
    /// It may not sign other certificates.
    #[error("{0}")]
    MayNotSign(&'static str),
    /// The chain below it has more authorities than its path length allows.
    #[error("more authorities are below it than its path length allows")]
    PathTooLong,
    /// Its name constraints forbid a name below it.
    #[error("its name constraints do not allow it: {0}")]
    NotPermitted(String),
    /// It has the issuer's name, but its key did not sign the certificate.
    #[error("it has the issuer's name but another key")]
    OtherKey,
    /// Go does not accept this kind of signature.
    #[error("{0}")]
    Signature(&'static str),
    /// Go stops after 100 signature checks.
    #[error("the chain needs more signature checks than Go makes")]
    TooManyChecks,
    /// Its extended key usage excludes TLS servers.
    #[error("its extended key usage does not allow TLS servers")]
    Purpose,
    /// The certificate policies of the chain don't satisfy an authority's policy constraints.
    #[error("the certificate policies of its chain do not satisfy an authority's constraints")]
    Policies,
    /// TLS can't use its key.
    #[error("its key is of a kind that TLS can't use")]
    Key,
}

/// Why a chain is rejected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What is wrong.
    pub fault: Fault,
    /// The certificate that has the fault.
    pub place: ChainPosition,
}

impl Refusal {
    pub(super) fn at(fault: Fault, place: ChainPosition) -> Self {
        Self { fault, place }
    }
}

const NO_ISSUER: &str = "its issuer is not a trusted authority";
