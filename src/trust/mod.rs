//! Decides whether Go, and so containerd, trusts a server's certificate. Pure.
//!
//! The rules are those of Go's crypto/x509 (`Certificate.Verify`) and of a crypto/tls client, read in the sources of
//! 1.19 to 1.27 and compared with real builds of 1.19, 1.24 and 1.27 (`tests/trust`). They depend on Go's release and
//! on GODEBUG's defaults, which a version of containerd does not reveal. If the builds that come into question differ,
//! the verdict is unknown.

mod build;
mod certificate;
mod chain;
mod der;
mod names;
mod pool;
pub mod refusal;
mod signature;

pub use build::{GoBuild, sends_edns};
pub use certificate::Certificate;
pub use pool::{Pool, Root};
use refusal::{ChainPosition, Fault, Refusal};

use chain::{Case, Signatures};
use signature::Key;

/// Whether a chain is trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Every build trusts it.
    Trusted {
        /// The server's certificate is itself a root, so nothing above it was checked.
        by_itself: bool,
    },
    /// Every build rejects it; the reason is that of the first.
    Refused(Refusal),
    /// The builds differ, or the answer depends on something that this code can't decide.
    Unknown {
        /// In words, for the report.
        reason: String,
    },
}

/// Verifies `chain` (DER, the server's own certificate first) for `host` at `now` (seconds since 1970) with the rules
/// of `builds`.
pub fn verify(pool: &Pool, chain: &[&[u8]], host: &str, now: i64, builds: &[GoBuild]) -> Verdict {
    let unreadable = |reason, index| {
        Verdict::Refused(Refusal::at(
            Fault::Unreadable(reason),
            ChainPosition::Sent(index),
        ))
    };
    let mut sent = Vec::new();
    for (index, der) in chain.iter().enumerate() {
        match Certificate::parse(der) {
            Ok(certificate) => sent.push(certificate),
            Err(reason) => return unreadable(reason, index),
        }
    }
    if sent.is_empty() {
        return unreadable("no certificate was sent", 0);
    }
    let signatures = Signatures::default();
    let verdicts: Vec<(&GoBuild, Verdict)> = builds
        .iter()
        .map(|build| {
            let case = Case {
                pool,
                sent: &sent,
                host,
                now,
                build,
                signatures: &signatures,
                hopeful: false,
            };
            (build, by_one(case))
        })
        .collect();
    agree(verdicts)
}

/// Verdict of one build. What can't be decided is tried both ways.
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

/// The common verdict, or a list of what each build decides.
fn agree(verdicts: Vec<(&GoBuild, Verdict)>) -> Verdict {
    let is = |verdict: &Verdict| std::mem::discriminant(verdict);
    let first = verdicts.first().map(|(_, verdict)| is(verdict));
    if verdicts
        .iter()
        .all(|(_, verdict)| Some(is(verdict)) == first)
    {
        let verdict = verdicts.into_iter().next().map(|(_, verdict)| verdict);
        return verdict.unwrap_or_else(|| Verdict::Unknown {
            reason: "no Go build is known".to_owned(),
        });
    }
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (build, verdict) in &verdicts {
        let word = match verdict {
            Verdict::Trusted { .. } => "trusted by".to_owned(),
            Verdict::Refused(refusal) => format!("rejected ({}) by", refusal.fault),
            Verdict::Unknown { reason } => format!("unknown ({reason}) for"),
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

/// The size of an RSA key in bits; `None` for a key of another kind.
pub fn rsa_bits(certificate: &Certificate) -> Option<usize> {
    match &certificate.key {
        Key::Rsa(key) => Some(key.bits),
        _ => None,
    }
}
