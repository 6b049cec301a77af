//! Why Go does not trust a chain: what is wrong, and with which of its certificates.

/// A certificate of a case: sent by the server (0 is its own), or a root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    Sent(usize),
    Root(usize),
}

/// What is wrong with the certificate at a [`Place`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Go can't read it, or takes no key like its.
    Unreadable(&'static str),
    /// An extension that is critical and unknown.
    CriticalExtension,
    Expired,
    NotYetValid,
    /// It is not for the host.
    Name,
    /// Nobody who may have signed it is a root, or was sent.
    UnknownAuthority {
        hint: Option<Hint>,
    },
    /// It may not sign others.
    MayNotSign(&'static str),
    /// More authorities are below it than its path length lets be.
    PathTooLong,
    /// Its name constraints do not let a name below be.
    NotPermitted(String),
    /// It has the name of the issuer, and did not sign.
    OtherKey,
    /// Its signature is of a kind that Go does not take.
    Signature(&'static str),
    /// Go gives up.
    TooManyChecks,
    /// It is for other purposes than a server's.
    Purpose,
    /// The policies of certificates.
    Policies,
    /// No key for TLS.
    Key,
}

/// Who has the name of an issuer, and why it is not taken for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hint {
    pub fault: Box<Fault>,
    pub place: Place,
}

/// Why a chain is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    pub fault: Fault,
    pub place: Place,
}

impl Refusal {
    pub(super) fn at(fault: Fault, place: Place) -> Self {
        Self { fault, place }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unreadable(reason) | Self::MayNotSign(reason) | Self::Signature(reason) => reason,
            Self::CriticalExtension => "it has a critical extension that Go does not know",
            Self::Expired => "it has expired",
            Self::NotYetValid => "it is not valid yet",
            Self::Name => "it is not for this name",
            Self::UnknownAuthority { hint: None } => "nobody who may have signed it is trusted",
            Self::UnknownAuthority { hint: Some(hint) } => return hint.fault.fmt(f),
            Self::PathTooLong => "more authorities are below it than its path length allows",
            Self::NotPermitted(reason) => {
                return write!(f, "its name constraints do not allow it: {reason}");
            }
            Self::OtherKey => "it has the issuer's name and another key",
            Self::TooManyChecks => "more signatures than Go checks would have to be checked",
            Self::Purpose => "it is not for servers (extended key usage)",
            Self::Policies => "the policies of its certificates do not fit",
            Self::Key => "its key is of a kind that TLS does not use",
        })
    }
}
