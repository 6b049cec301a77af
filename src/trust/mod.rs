//! Pure: whether Go, and so containerd, trusts a server's certificate.
//!
//! The rules are those of Go's crypto/x509 (`Certificate.Verify`) and of a crypto/tls client, read in
//! the sources of 1.19 to 1.27 and measured beside 1.19, 1.24 and 1.27 (`tests/trust`). They differ by
//! Go's release and by GODEBUG's defaults, which no version of containerd tells: where the builds in
//! question differ, nothing is decided.

mod build;
mod certificate;
mod chain;
mod der;
mod names;
mod pool;
mod signature;

pub use build::GoBuild;
pub use certificate::Certificate;
pub use pool::{Pool, Root};

use chain::Case;
use signature::Key;

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
    fn at(fault: Fault, place: Place) -> Self {
        Self { fault, place }
    }
}

/// The word on a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    Trusted {
        /// The server's certificate is itself a root: nothing above it was looked at.
        by_itself: bool,
    },
    Refused(Refusal),
    /// The builds differ, or it hangs on what can't be decided here.
    Unknown {
        reason: String,
    },
}

/// Judges `chain`, in DER, the server's own certificate first, for `host` at `now` (seconds since
/// 1970) by the rules of `builds`.
pub fn verify(pool: &Pool, chain: &[&[u8]], host: &str, now: i64, builds: &[GoBuild]) -> Verdict {
    let mut sent = Vec::new();
    for (index, der) in chain.iter().enumerate() {
        match Certificate::parse(der) {
            Ok(certificate) => sent.push(certificate),
            Err(reason) => {
                return Verdict::Refused(Refusal::at(
                    Fault::Unreadable(reason),
                    Place::Sent(index),
                ));
            }
        }
    }
    if sent.is_empty() {
        return Verdict::Refused(Refusal::at(
            Fault::Unreadable("no certificate was sent"),
            Place::Sent(0),
        ));
    }
    let said: Vec<(&GoBuild, Verdict)> = builds
        .iter()
        .map(|build| {
            let case = Case {
                pool,
                sent: &sent,
                host,
                now,
                build,
                hopeful: false,
            };
            (build, by_one(case))
        })
        .collect();
    agree(said)
}

/// What is not decided is tried both ways.
fn by_one(case: Case<'_>) -> Verdict {
    let mut doubts = Vec::new();
    if let Ok(by_itself) = case.verify(&mut doubts) {
        return Verdict::Trusted { by_itself };
    }
    let hopeful = Case {
        hopeful: true,
        ..case
    };
    doubts.clear();
    if let Err(refusal) = hopeful.verify(&mut doubts) {
        return Verdict::Refused(refusal);
    }
    doubts.sort_unstable();
    doubts.dedup();
    Verdict::Unknown {
        reason: doubts.join("; "),
    }
}

/// The verdict of all, or what each says.
fn agree(said: Vec<(&GoBuild, Verdict)>) -> Verdict {
    let is = |verdict: &Verdict| std::mem::discriminant(verdict);
    let first = said.first().map(|(_, verdict)| is(verdict));
    if said.iter().all(|(_, verdict)| Some(is(verdict)) == first) {
        let verdict = said.into_iter().next().map(|(_, verdict)| verdict);
        return verdict.unwrap_or_else(|| Verdict::Unknown {
            reason: "no build of Go was named".to_owned(),
        });
    }
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (build, verdict) in &said {
        let word = match verdict {
            Verdict::Trusted { .. } => "taken by".to_owned(),
            Verdict::Refused(refusal) => format!("refused ({}) by", refusal.fault),
            Verdict::Unknown { reason } => format!("not known ({reason}) of"),
        };
        match groups.iter_mut().find(|(known, _)| *known == word) {
            Some((_, builds)) => builds.push(build.to_string()),
            None => groups.push((word, vec![build.to_string()])),
        }
    }
    let words = groups
        .into_iter()
        .map(|(word, builds)| format!("{word} {}", builds.join(", ")));
    Verdict::Unknown {
        reason: words.collect::<Vec<_>>().join("; "),
    }
}

/// The bits of an RSA key in a certificate; `None` for one of another kind.
pub fn rsa_bits(certificate: &Certificate) -> Option<usize> {
    match &certificate.key {
        Key::Rsa(key) => Some(key.bits),
        _ => None,
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
