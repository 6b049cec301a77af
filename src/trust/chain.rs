//! Builds and judges chains from a server's certificate to a root, as Go's `Certificate.Verify` does.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ptr;

use super::build::GoBuild;
use super::certificate::Certificate;
use super::names::{Allowed, are_for};
use super::pool::Pool;
use super::refusal::{ChainPosition, Fault, Refusal};
use super::signature::{Checked, Key};

/// One verification, with the rules of one build.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) pool: &'a Pool,
    /// As sent; the server's own certificate is first.
    pub(super) sent: &'a [Certificate],
    pub(super) host: &'a str,
    /// Seconds since 1970.
    pub(super) now: i64,
    pub(super) build: &'a GoBuild,
    pub(super) signatures: &'a Signatures<'a>,
    /// Treat what can't be decided as accepted.
    pub(super) hopeful: bool,
}

/// The signatures that were checked, with the certificates that they are of and by. Checking one takes longer than all
/// else, and is the same for all builds.
#[derive(Debug, Default)]
pub(super) struct Signatures<'a>(RefCell<Vec<(&'a Certificate, &'a Certificate, Checked)>>);

impl<'a> Signatures<'a> {
    fn check(&self, signed: &'a Certificate, issuer: &'a Certificate) -> Checked {
        let mut known = self.0.borrow_mut();
        let is_same = |(of, by, _): &&(&Certificate, &Certificate, _)| {
            ptr::eq(*of, signed) && ptr::eq(*by, issuer)
        };
        if let Some((.., checked)) = known.iter().find(is_same) {
            return checked.clone();
        }
        let checked = issuer.key.check(
            signed.algorithm,
            signed.part(&signed.tbs),
            &signed.signature,
        );
        known.push((signed, issuer, checked.clone()));
        checked
    }
}

/// A certificate of a chain, and its origin.
#[derive(Clone, Copy, Debug)]
struct Link<'a> {
    place: ChainPosition,
    certificate: &'a Certificate,
}

impl Case<'_> {
    /// Verifies the chain. Adds to `doubts` what could not be decided. Returns whether the server's certificate is
    /// itself a root.
    pub(super) fn verify(&self, doubts: &mut Vec<&'static str>) -> Result<bool, Refusal> {
        for (index, certificate) in self.sent.iter().enumerate() {
            let refusal = |fault| Refusal::at(fault, ChainPosition::Sent(index));
            doubts.extend(certificate.doubt());
            if let Some(reason) = certificate.refused_by(self.build, self.hopeful) {
                return Err(refusal(Fault::Unreadable(reason)));
            }
            let is_long = matches!(&certificate.key, Key::Rsa(key) if key.bits > 8192);
            if is_long && self.build.refuses_rsa_above_8192() {
                return Err(refusal(Fault::Unreadable(
                    "its RSA key has more than 8192 bits",
                )));
            }
        }
        let leaf = Link {
            place: ChainPosition::Sent(0),
            certificate: &self.sent[0],
        };
        self.is_valid(leaf, &[])?;
        let names = leaf.certificate.extensions.alternative_names.as_ref();
        if !names.is_some_and(|names| are_for(names, self.host, self.build)) {
            return Err(Refusal::at(Fault::Name, leaf.place));
        }
        let is_root = self
            .pool
            .find(leaf.certificate.der(), self.build, self.hopeful)
            .is_some();
        let chains = if is_root {
            vec![vec![leaf]]
        } else {
            let mut search = Search {
                case: self,
                checks: 0,
                found: Vec::new(),
                doubts,
            };
            search.extend(&[leaf])?;
            search.found
        };
        self.filter(&chains, doubts)?;
        match leaf.certificate.key {
            Key::Rsa(_) | Key::Ec { .. } | Key::Ed25519(_) => Ok(is_root),
            Key::MlDsa if self.build.knows_ml_dsa() => {
                doubts.push("an ML-DSA key was not checked");
                self.hoped(Fault::Key, leaf.place).map(|()| is_root)
            }
            _ => Err(Refusal::at(Fault::Key, leaf.place)),
        }
    }

    /// Accepts an undecided fault if hopeful, and rejects it otherwise.
    fn hoped(&self, fault: Fault, place: ChainPosition) -> Result<(), Refusal> {
        if self.hopeful {
            Ok(())
        } else {
            Err(Refusal::at(fault, place))
        }
    }

    /// Go's checks of a whole chain; one acceptable chain is enough.
    fn filter(
        &self,
        chains: &[Vec<Link<'_>>],
        doubts: &mut Vec<&'static str>,
    ) -> Result<(), Refusal> {
        let mut refusal = None;
        for chain in chains {
            let limited = chain.iter().rev().find(|link| {
                let purposes = link.certificate.extensions.purposes;
                purposes.are_limited && !purposes.any && !purposes.server
            });
            if let Some(link) = limited {
                refusal.get_or_insert(Refusal::at(Fault::Purpose, link.place));
                continue;
            }
            let policies = if self.build.knows_policies() {
                policies(chain)
            } else {
                Policies::Fit
            };
            if policies == Policies::Unknown {
                doubts.push("an authority's rules on certificate policies were not evaluated");
            }
            if policies == Policies::Unfit || (policies == Policies::Unknown && !self.hopeful) {
                refusal.get_or_insert(Refusal::at(Fault::Policies, chain[0].place));
                continue;
            }
            return Ok(());
        }
        Err(refusal.unwrap_or_else(|| {
            Refusal::at(
                Fault::UnknownAuthority { hint: None },
                ChainPosition::Sent(0),
            )
        }))
    }

    /// `isValid`: checks the dates, path length and flags of a certificate that is put above `chain`.
    fn is_valid(&self, link: Link<'_>, chain: &[Link<'_>]) -> Result<(), Refusal> {
        let Link { place, certificate } = link;
        let extensions = &certificate.extensions;
        let refuse = |fault| Err(Refusal::at(fault, place));
        if extensions.is_critical_unknown
            || (extensions.policies.are_critical && !self.build.knows_policies())
        {
            return refuse(Fault::CriticalExtension);
        }
        if self.now < certificate.not_before {
            return refuse(Fault::NotYetValid);
        }
        if self.now > certificate.not_after {
            return refuse(Fault::Expired);
        }
        let Some(below) = chain.len().checked_sub(1) else {
            return Ok(());
        };
        let constraints = extensions.basic_constraints;
        if matches!(place, ChainPosition::Sent(_)) && !constraints.is_some_and(|c| c.is_ca) {
            return refuse(Fault::MayNotSign(NO_CA));
        }
        let max_path = constraints.and_then(|c| c.max_path);
        if max_path.is_some_and(|most| below as u64 > most) {
            return refuse(Fault::PathTooLong);
        }
        Ok(())
    }
}

const NO_CA: &str = "it is not marked as an authority (basicConstraints CA:TRUE)";

/// One search through all chains.
struct Search<'a, 'd> {
    case: &'d Case<'a>,
    checks: usize,
    found: Vec<Vec<Link<'a>>>,
    doubts: &'d mut Vec<&'static str>,
}

impl<'a> Search<'a, '_> {
    /// Finds all chains that start with `chain`.
    fn extend(&mut self, chain: &[Link<'a>]) -> Result<(), Refusal> {
        let before = self.found.len();
        let child = chain[chain.len() - 1];
        let (mut error, mut hint) = (None, None);
        for parent in self.parents(child.certificate) {
            self.checks += 1;
            if self.checks > MAX_CHECKS {
                error = Some(Refusal::at(Fault::TooManyChecks, child.place));
                break;
            }
            if is_in(parent.certificate, chain) {
                continue;
            }
            if let Err(refusal) = self.signed(child, parent) {
                // Reported if no later certificate gives a better reason.
                hint.get_or_insert(refusal);
                continue;
            }
            // Go reports the last error, unless a later parent is accepted.
            error = self.put_above(chain, parent).err();
        }
        if self.found.len() > before {
            return Ok(());
        }
        Err(error.unwrap_or_else(|| {
            let hint = hint.map(Box::new);
            Refusal::at(Fault::UnknownAuthority { hint }, child.place)
        }))
    }

    /// Certificates whose subject equals the issuer, byte for byte: roots first, and in each group those with the
    /// requested key identifier first.
    fn parents(&self, child: &'a Certificate) -> Vec<Link<'a>> {
        let Case {
            pool,
            sent,
            build,
            hopeful,
            ..
        } = *self.case;
        let issuer = child.part(&child.issuer);
        let is_named = |certificate: &Certificate| certificate.part(&certificate.subject) == issuer;
        let rank = |link: &Link<'_>| {
            let (has, wanted) = (
                &link.certificate.extensions.subject_key,
                &child.extensions.authority_key,
            );
            match (has.is_empty(), wanted.is_empty()) {
                _ if has == wanted => 0,
                (true, false) | (false, true) => 1,
                _ => 2,
            }
        };
        let mut roots: Vec<Link<'a>> = pool
            .named(issuer)
            .map(|(index, certificate)| Link {
                place: ChainPosition::Root(index),
                certificate,
            })
            .filter(|link| link.certificate.refused_by(build, hopeful).is_none())
            .collect();
        let mut seen = HashSet::new();
        let mut others: Vec<Link<'a>> = (1..)
            .zip(sent.iter().skip(1))
            .filter(|(_, certificate)| is_named(certificate) && seen.insert(certificate.der()))
            .map(|(index, certificate)| Link {
                place: ChainPosition::Sent(index),
                certificate,
            })
            .collect();
        roots.sort_by_key(rank);
        others.sort_by_key(rank);
        roots.append(&mut others);
        roots
    }

    /// Puts a parent that signed above a chain, and continues from there.
    fn put_above(&mut self, chain: &[Link<'a>], parent: Link<'a>) -> Result<(), Refusal> {
        self.case.is_valid(parent, chain)?;
        self.constrained(chain, parent)?;
        let mut longer = chain.to_vec();
        longer.push(parent);
        match parent.place {
            ChainPosition::Root(_) => {
                self.found.push(longer);
                Ok(())
            }
            ChainPosition::Sent(_) => self.extend(&longer),
        }
    }

    /// `CheckSignatureFrom`.
    fn signed(&mut self, child: Link<'a>, parent: Link<'a>) -> Result<(), Refusal> {
        let issuer = parent.certificate;
        let at_parent = |fault| Err(Refusal::at(fault, parent.place));
        match issuer.extensions.basic_constraints {
            None if issuer.version == 3 => return at_parent(Fault::MayNotSign(NO_CA)),
            Some(constraints) if !constraints.is_ca => return at_parent(Fault::MayNotSign(NO_CA)),
            _ => {}
        }
        let usage = issuer.extensions.key_usage;
        if usage != 0 && usage & CERT_SIGN == 0 {
            return at_parent(Fault::MayNotSign("its keyUsage lacks keyCertSign"));
        }
        let signed = child.certificate;
        let refused = issuer.key.refused_by(signed.algorithm, self.case.build);
        let checked = refused.map_or_else(
            || self.case.signatures.check(signed, issuer),
            Checked::Refused,
        );
        match checked {
            Checked::Good => Ok(()),
            Checked::Bad => at_parent(Fault::OtherKey),
            Checked::Refused(reason) => Err(Refusal::at(Fault::Signature(reason), child.place)),
            Checked::Unknown(reason) => {
                self.doubts.push(reason);
                self.case.hoped(Fault::Signature(reason), child.place)
            }
        }
    }

    /// Checks the names of all certificates below against the parent's constraints.
    fn constrained(&mut self, chain: &[Link<'_>], parent: Link<'_>) -> Result<(), Refusal> {
        let Some(constraints) = &parent.certificate.extensions.constraints else {
            return Ok(());
        };
        let below = if self.case.build.constrains_intermediates() {
            chain
        } else {
            &chain[..1]
        };
        for link in below {
            let Some(names) = &link.certificate.extensions.alternative_names else {
                continue;
            };
            match constraints.allow(names, self.case.build) {
                Allowed::Yes => {}
                Allowed::No(reason) => {
                    return Err(Refusal::at(Fault::NotPermitted(reason), parent.place));
                }
                Allowed::Unknown(reason) => {
                    self.doubts.push(reason);
                    let fault = Fault::NotPermitted(reason.to_owned());
                    self.case.hoped(fault, parent.place)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a chain satisfies the policy constraints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Policies {
    Fit,
    Unfit,
    /// It depends on which policies they are.
    Unknown,
}

/// RFC 5280, 6.1, for a client that accepts any policy. It matters only if an authority requires an explicit policy, or
/// maps policies.
fn policies(chain: &[Link<'_>]) -> Policies {
    if chain.len() == 1 {
        return Policies::Fit;
    }
    let below_root = &chain[..chain.len().saturating_sub(1)];
    let maps = |link: &Link<'_>| link.certificate.extensions.policies.are_mapped;
    if below_root.iter().any(maps) {
        return Policies::Unknown;
    }
    let mut wanted_in = below_root.len() as u64 + 1;
    let mut are_named = true;
    for (index, link) in below_root.iter().enumerate().rev() {
        let extensions = &link.certificate.extensions;
        are_named &= extensions.policies.are_named;
        if wanted_in == 0 && !are_named {
            return Policies::Unfit;
        }
        if index > 0 && !link.certificate.is_self_issued() {
            wanted_in = wanted_in.saturating_sub(1);
        }
        let explicit = extensions
            .policies
            .wanted_in
            .filter(|limit| index > 0 || *limit == 0);
        wanted_in = wanted_in.min(explicit.unwrap_or(u64::MAX));
    }
    match (wanted_in <= 1, are_named) {
        (false, _) => Policies::Fit,
        (true, false) => Policies::Unfit,
        (true, true) => Policies::Unknown,
    }
}

/// The chain already has a certificate with the same name, key and alternative names: a loop.
fn is_in(candidate: &Certificate, chain: &[Link<'_>]) -> bool {
    let san = |certificate: &Certificate| {
        let names = certificate.extensions.alternative_names.as_ref();
        names.map(|names| names.raw.clone())
    };
    let twins = chain.iter().map(|link| link.certificate).filter(|other| {
        candidate.part(&candidate.subject) == other.part(&other.subject)
            && candidate.part(&candidate.spki) == other.part(&other.spki)
    });
    for twin in twins {
        match (san(candidate), san(twin)) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b => return true,
            (Some(_), Some(_)) => {}
            _ => return false,
        }
    }
    false
}

/// keyCertSign, the sixth bit of keyUsage.
const CERT_SIGN: u16 = 1 << 5;

/// `maxChainSignatureChecks`.
const MAX_CHECKS: usize = 100;
