//! The certificates that a server sent, and whether they are trusted, in the report's terms.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustls::CertificateError;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::model::connect::{BadLink, Certificate, ExpiredRoot, LinkProblem};
use crate::model::fault::TlsFault;
use crate::model::text::{clean, hex, printable};
use crate::trust::refusal::{ChainPosition, Fault, Refusal};
use crate::trust::{self, GoBuild, Pool, Verdict};

/// The certificates of one handshake, leaf first, in DER form, and the result of the check.
#[derive(Clone, Debug, Default)]
pub(super) struct Presented(Arc<Mutex<Shown>>);

#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) chain: Vec<Vec<u8>>,
    /// Why they are not trusted; `None` if they are.
    pub(super) refused: Option<Refused>,
    /// The handshake continued, trusted or not.
    pub(super) accepted: bool,
    pub(super) trusted_itself: Option<String>,
    /// Other roots could have given another result, and the runtime may have others.
    pub(super) depends_on_changed_roots: bool,
    /// Why the handshake signature of their owner could not be checked.
    pub(super) unchecked: Option<String>,
}

/// A chain that is not trusted.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) fault: TlsFault,
    pub(super) bad_link: Option<BadLink>,
    /// Go can't parse it, and so can't continue without verification either.
    pub(super) is_unreadable: bool,
}

impl Refused {
    /// A fault that belongs to no single certificate of the chain.
    fn by(fault: TlsFault) -> Self {
        Self {
            fault,
            bad_link: None,
            is_unreadable: false,
        }
    }
}

impl Presented {
    pub(super) fn record(&self, shown: Shown) {
        *self.lock() = shown;
    }

    pub(super) fn leave_unchecked(&self, reason: String) {
        self.lock().unchecked = Some(reason);
    }

    pub(super) fn shown(&self) -> Shown {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        // Only whole values are stored, so a poisoned lock holds one too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks the chain that `host` sent, at `now` in seconds since 1970.
pub(super) fn judge(
    pool: &Pool,
    chain: &[&[u8]],
    host: &str,
    now: i64,
    builds: &[GoBuild],
) -> Shown {
    let kept = chain
        .iter()
        .take(MAX_CHAIN)
        .map(|der| der.to_vec())
        .collect();
    let mut shown = Shown {
        chain: kept,
        ..Shown::default()
    };
    if pool.is_empty() {
        shown.refused = Some(Refused::by(TlsFault::NoRoots));
        return shown;
    }
    match trust::verify(pool, chain, host, now, builds) {
        Verdict::Trusted { by_itself: false } => {}
        Verdict::Trusted { by_itself: true } => {
            let root = pool
                .roots()
                .iter()
                .find(|root| Some(&root.certificate.der()) == chain.first());
            shown.trusted_itself = root.map(|root| root.source.to_string());
        }
        Verdict::Unknown { reason } => {
            let reason = clean(&format!("the certificate: {reason}"), MAX_REASON);
            shown.refused = Some(Refused::by(TlsFault::Undecided { reason }));
        }
        Verdict::Refused(refusal) => {
            shown.refused = Some(Refused {
                fault: fault(&refusal, pool, &shown.chain, host, now),
                bad_link: bad_link(&refusal, pool, &shown.chain, now),
                is_unreadable: matches!(refusal.fault, Fault::Unreadable(_)),
            });
        }
    }
    shown
}

impl Shown {
    /// Whether the result may differ if only the roots of `unchanged` are certain.
    pub(super) fn may_differ_by(&self, unchanged: impl FnOnce() -> Shown) -> bool {
        let Some(refused) = &self.refused else {
            return unchanged().refused.is_some();
        };
        let is_of_leaf = refused.bad_link.as_ref().is_some_and(|link| {
            let is_of_issuer = matches!(
                link.problem,
                LinkProblem::IssuerUnknown | LinkProblem::OtherKey
            );
            link.sent == Some(0) && !is_of_issuer
        });
        let is_of_name = matches!(refused.fault, TlsFault::NameMismatch { .. });
        !(is_of_leaf || is_of_name || refused.is_unreadable)
    }
}

fn fault(refusal: &Refusal, pool: &Pool, chain: &[Vec<u8>], host: &str, now: i64) -> TlsFault {
    let at = der(refusal.place, pool, chain).and_then(read);
    let local_time = from_seconds(now);
    match (&refusal.fault, at) {
        (Fault::UnknownAuthority { hint }, _)
            if hint
                .as_ref()
                .is_none_or(|hint| hint.fault == Fault::OtherKey) =>
        {
            TlsFault::UnknownIssuer {
                issuer: missing_issuer(&certificates(chain)),
            }
        }
        (Fault::Name, leaf) => TlsFault::NameMismatch {
            expected: host.to_owned(),
            presented: leaf.map_or_else(Vec::new, |leaf| leaf.names),
        },
        (Fault::Expired, Some(at)) => TlsFault::Expired {
            not_after: at.not_after,
            local_time,
        },
        (Fault::NotYetValid, Some(at)) => TlsFault::NotYetValid {
            not_before: at.not_before,
            local_time,
        },
        (fault, at) => {
            let hinted = match fault {
                Fault::UnknownAuthority { hint: Some(hint) } => {
                    der(hint.place, pool, chain).and_then(read)
                }
                _ => at,
            };
            let whose = hinted.map_or_else(String::new, |at| format!("{}: ", at.subject));
            TlsFault::BadCertificate {
                reason: printable(&format!("{whose}{fault}")),
            }
        }
    }
}

fn bad_link(refusal: &Refusal, pool: &Pool, chain: &[Vec<u8>], now: i64) -> Option<BadLink> {
    let (fault, place) = match &refusal.fault {
        Fault::UnknownAuthority { hint: Some(hint) } => (&hint.fault, hint.place),
        fault => (fault, refusal.place),
    };
    let problem = match fault {
        Fault::UnknownAuthority { .. } => LinkProblem::IssuerUnknown,
        Fault::Expired => LinkProblem::Expired,
        Fault::NotYetValid => LinkProblem::NotYetValid,
        Fault::MayNotSign(_) | Fault::PathTooLong | Fault::NotPermitted(_) => {
            LinkProblem::MayNotSign
        }
        Fault::OtherKey => LinkProblem::OtherKey,
        // The finding reports that with the names.
        Fault::Name => return None,
        _ => LinkProblem::Other,
    };
    let (sent, source) = match place {
        ChainPosition::Sent(index) => (Some(index), None),
        ChainPosition::Root(index) => (
            None,
            pool.roots().get(index).map(|root| root.source.to_string()),
        ),
    };
    let der = der(place, pool, chain)?;
    let is_old = problem == LinkProblem::Expired && sent.is_some_and(|place| place > 0);
    let above = trust::Certificate::parse(der)
        .ok()
        .filter(|_| is_old)
        .and_then(|certificate| pool.expired_issuer(&certificate, now).cloned());
    Some(BadLink {
        certificate: read(der)?,
        sent,
        source,
        problem,
        reason: printable(&fault.to_string()),
        expired_root: above.and_then(|root| {
            Some(ExpiredRoot {
                certificate: read(root.certificate.der())?,
                source: root.source.to_string(),
            })
        }),
    })
}

fn der<'a>(place: ChainPosition, pool: &'a Pool, chain: &'a [Vec<u8>]) -> Option<&'a [u8]> {
    match place {
        ChainPosition::Sent(index) => chain.get(index).map(Vec::as_slice),
        ChainPosition::Root(index) => pool.roots().get(index).map(|root| root.certificate.der()),
    }
}

/// The TLS error for a fault.
pub(super) fn alert(fault: &TlsFault) -> CertificateError {
    match fault {
        TlsFault::UnknownIssuer { .. } | TlsFault::NoRoots => CertificateError::UnknownIssuer,
        TlsFault::NameMismatch { .. } => CertificateError::NotValidForName,
        TlsFault::Expired { .. } => CertificateError::Expired,
        TlsFault::NotYetValid { .. } => CertificateError::NotValidYet,
        _ => CertificateError::ApplicationVerificationFailure,
    }
}

/// The certificates that can be parsed.
pub(super) fn certificates(chain: &[Vec<u8>]) -> Vec<Certificate> {
    chain.iter().filter_map(|der| read(der)).collect()
}

fn read(der: &[u8]) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, der);
    let validity = parsed.validity();
    let ours = trust::Certificate::parse(der).ok();
    let issuer_at = ours.iter().flat_map(trust::Certificate::issuer_at);
    Some(Certificate {
        subject: printable(&parsed.subject().to_string()),
        issuer: printable(&parsed.issuer().to_string()),
        names: names(&parsed),
        not_before: from_seconds(validity.not_before.timestamp()),
        not_after: from_seconds(validity.not_after.timestamp()),
        sha256: hex(digest.as_ref()),
        issuer_at: issuer_at.map(|url| printable(url)).collect(),
    })
}

/// DNS names and addresses of the subjectAltName extension; Go ignores all others (RFC 9525 section 6.3).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(printable(name)),
            GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                .ok()
                .map(|address| address.to_string()),
            _ => None,
        })
        .take(MAX_NAMES)
        .collect()
}

/// The issuer for which no certificate was sent: where the server's chain ends.
fn missing_issuer(chain: &[Certificate]) -> String {
    let Some(mut last) = chain.first() else {
        return "unreadable".to_owned();
    };
    // Each step uses another certificate, so a loop of two issuers ends too.
    for _ in 0..chain.len() {
        let Some(next) = chain
            .iter()
            .find(|c| c.subject == last.issuer && c.subject != last.subject)
        else {
            break;
        };
        last = next;
    }
    last.issuer.clone()
}

/// RFC 5280 section 4.1.2.5 uses 9999-12-31 for "never expires", which is a day beyond the range of `Timestamp`.
fn from_seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// Bound for the stored certificates of a chain; real ones have up to five.
const MAX_CHAIN: usize = 16;

/// Bound for the stored names of a certificate. Public CAs issue up to 100, Google's CA up to 1000.
const MAX_NAMES: usize = 1000;

/// Bytes; the reason lists the result of each of several builds.
const MAX_REASON: usize = 1200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_beyond_what_we_can_hold_become_the_last_we_can() {
        // 9999-12-31T23:59:59Z
        assert_eq!(from_seconds(253_402_300_799), Timestamp::MAX);
        assert_eq!(from_seconds(i64::MIN), Timestamp::MIN);
        assert_eq!(from_seconds(0), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_loop_of_issuers_ends() {
        let certificate = |subject: &str, issuer: &str| Certificate {
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            names: vec![],
            not_before: Timestamp::MIN,
            not_after: Timestamp::MAX,
            sha256: String::new(),
            issuer_at: Vec::new(),
        };
        let chain = [certificate("a", "b"), certificate("b", "a")];
        assert!(["a", "b"].contains(&missing_issuer(&chain).as_str()));
        assert_eq!(missing_issuer(&[certificate("x", "x")]), "x");
        assert_eq!(missing_issuer(&[]), "unreadable");
    }
}
