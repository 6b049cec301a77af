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
pub mod refusal;
mod signature;

pub use build::GoBuild;
pub use certificate::Certificate;
pub use pool::{Pool, Root};
use refusal::{ChainPosition, Fault, Refusal};

use chain::Case;
use signature::Key;

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
