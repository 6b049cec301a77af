//! Parses a certificate the way Go's crypto/x509 does, once for all builds. Differences between builds are recorded as
//! quirks.

use super::der::Malformed;
use super::names::AlternativeNames;
use std::ops::Range;
use std::sync::Arc;

use super::build::{GoBuild, Quirk};
use super::der::{
    BOOLEAN, Bits, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, SET, constructed, context,
};
use super::names::Constraints;
use super::signature::{Algorithm, Key};

/// A certificate that at least one build can parse.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Arc<[u8]>,
    pub(super) tbs: Range<usize>,
    pub(super) issuer: Range<usize>,
    pub(super) subject: Range<usize>,
    pub(super) spki: Range<usize>,
    pub(super) signature: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) key: Key,
    pub(super) version: u64,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) extensions: Extensions,
    /// Properties that some builds reject.
    quirks: Vec<Quirk>,
}

/// The extensions that matter to verification.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    pub(super) basic_constraints: Option<BasicConstraints>,
    /// keyUsage; its first bit is the lowest. 0 if the extension is absent.
    pub(super) key_usage: u16,
    pub(super) purposes: Purposes,
    pub(super) subject_key: Vec<u8>,
    pub(super) authority_key: Vec<u8>,
    pub(super) alternative_names: Option<AlternativeNames>,
    pub(super) constraints: Option<Constraints>,
    pub(super) policies: Policies,
    /// Critical, and of a kind that Go does not support.
    pub(super) is_critical_unknown: bool,
    /// URLs of the issuer's certificate (RFC 5280, 4.2.2.1).
    pub(super) issuer_at: Vec<String>,
}

/// The extensions about certificate policies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Policies {
    pub(super) are_named: bool,
    /// How many further certificates below may lack a valid policy (`requireExplicitPolicy`).
    pub(super) wanted_in: Option<u64>,
    pub(super) are_mapped: bool,
    /// Constraints or mappings are critical; only later releases support them.
    pub(super) are_critical: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BasicConstraints {
    pub(super) is_ca: bool,
    pub(super) max_path: Option<u64>,
}

/// The extended key usages that matter to a server's certificate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Purposes {
    pub(super) are_limited: bool,
    pub(super) any: bool,
    pub(super) server: bool,
}

impl Certificate {
    /// Parses DER.
    ///
    /// # Errors
    /// If no build of Go can parse it.
    pub fn parse(der: &[u8]) -> Result<Self, Malformed> {
        let span = |part: &[u8]| {
            let start = part.as_ptr() as usize - der.as_ptr() as usize;
            start..start + part.len()
        };
        let mut input = Reader::new(der);
        let mut certificate = input.read(SEQUENCE).ok_or("malformed certificate")?;
        if !input.is_empty() {
            return Err("trailing data");
        }
        let tbs = certificate
            .whole(SEQUENCE)
            .ok_or("malformed tbs certificate")?;
        let mut quirks = Vec::new();
        let mut fields = Reader::new(tbs)
            .read(SEQUENCE)
            .ok_or("malformed tbs certificate")?;
        let version = match fields.optional(constructed(0)).ok_or("malformed version")? {
            None => 1,
            Some(mut version) => version
                .unsigned()
                .ok_or("malformed version")?
                .saturating_add(1),
        };
        if version > 3 {
            return Err("invalid version");
        }
        let serial = fields.integer().ok_or("malformed serial number")?;
        if serial[0] & 0x80 != 0 {
            quirks.push(Quirk::NegativeSerial);
        }
        let inner = fields
            .bytes(SEQUENCE)
            .ok_or("malformed signature algorithm identifier")?;
        if certificate.bytes(SEQUENCE) != Some(inner) {
            return Err("inner and outer signature algorithm identifiers don't match");
        }
        let algorithm =
            Algorithm::parse(Reader::new(inner)).ok_or("malformed algorithm identifier")?;
        let issuer = fields.whole(SEQUENCE).ok_or("malformed issuer")?;
        read_name(issuer, &mut quirks)?;
        let mut validity = fields.read(SEQUENCE).ok_or("malformed validity")?;
        let not_before = validity.time().ok_or("malformed validity")?;
        let not_after = validity.time().ok_or("malformed validity")?;
        let subject = fields.whole(SEQUENCE).ok_or("malformed subject")?;
        read_name(subject, &mut quirks)?;
        let spki = fields.whole(SEQUENCE).ok_or("malformed spki")?;
        let key = Key::parse(Reader::new(spki).read(SEQUENCE).ok_or("malformed spki")?)?;
        let mut extensions = Extensions::default();
        if version > 1 {
            for tag in [context(1), context(2)] {
                fields.optional(tag).ok_or("malformed unique identifier")?;
            }
        }
        if version == 3
            && let Some(mut list) = fields
                .optional(constructed(3))
                .ok_or("malformed extensions")?
        {
            let list = list.read(SEQUENCE).ok_or("malformed extensions")?;
            extensions.read(list, &mut quirks)?;
        }
        let signature = certificate
            .bits()
            .ok_or("malformed signature")?
            .right_aligned();
        Ok(Self {
            tbs: span(tbs),
            issuer: span(issuer),
            subject: span(subject),
            spki: span(spki),
            der: der.into(),
            signature,
            algorithm,
            key,
            version,
            not_before,
            not_after,
            extensions,
            quirks,
        })
    }

    /// The encoded certificate, as it was sent or read.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn shared_der(&self) -> Arc<[u8]> {
        Arc::clone(&self.der)
    }

    pub(super) fn part(&self, range: &Range<usize>) -> &[u8] {
        &self.der[range.clone()]
    }

    /// Whether `now`, in seconds since 1970, is within its dates.
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether issuer and subject are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.part(&self.issuer) == self.part(&self.subject)
    }

    /// URLs of the issuer's certificate, from the certificate itself (RFC 5280, 4.2.2.1). At most 3.
    pub fn issuer_at(&self) -> &[String] {
        &self.extensions.issuer_at
    }

    /// Why `build` rejects it. `hopeful`: treat what can't be decided as accepted.
    pub(super) fn refused_by(&self, build: &GoBuild, hopeful: bool) -> Option<Malformed> {
        self.quirks.iter().find_map(|quirk| match quirk {
            Quirk::NegativeSerial => {
                (!build.takes_negative_serials()).then_some("negative serial number")
            }
            Quirk::CriticalIdentifier => build.refuses_critical_identifiers().then_some(
                "a key identifier or the authority information access is marked critical",
            ),
            Quirk::MappedAddress => build
                .refuses_mapped_addresses()
                .then_some("an IPv4 address is written in IPv6 form"),
            Quirk::OddName => (!build.takes_odd_names())
                .then_some("a value in its issuer or subject has a type that Go does not support"),
            Quirk::Uri => (!hopeful).then_some("one of its names is an unusual URI"),
        })
    }

    /// What could not be decided about it.
    pub(super) fn doubt(&self) -> Option<&'static str> {
        self.quirks
            .contains(&Quirk::Uri)
            .then_some("one name of a certificate is an unusual URI, which Go may reject")
    }
}

/// Checks a Name, whose values Go reads as text.
fn read_name(whole: &[u8], quirks: &mut Vec<Quirk>) -> Result<(), Malformed> {
    const INVALID: Malformed = "invalid RDNSequence";
    let mut sets = Reader::new(whole).read(SEQUENCE).ok_or(INVALID)?;
    while !sets.is_empty() {
        let mut set = sets.read(SET).ok_or(INVALID)?;
        while !set.is_empty() {
            let mut attribute = set.read(SEQUENCE).ok_or(INVALID)?;
            attribute.oid().ok_or(INVALID)?;
            let value = attribute.element().ok_or(INVALID)?;
            match is_text(value.tag, value.content) {
                Some(true) => {}
                Some(false) => {
                    return Err(
                        "a value in its issuer or subject does not match its declared type",
                    );
                }
                None => quirks.push(Quirk::OddName),
            }
        }
    }
    Ok(())
}

/// `None` for a type that Go does not read as text.
fn is_text(tag: u8, value: &[u8]) -> Option<bool> {
    Some(match tag {
        // T61String
        0x14 => true,
        // PrintableString; Go allows '*' and '&'.
        0x13 => value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?*&".contains(b)),
        // UTF8String
        0x0c => std::str::from_utf8(value).is_ok(),
        // BMPString
        0x1e => value.len().is_multiple_of(2),
        // IA5String
        0x16 => value.is_ascii(),
        // NumericString
        0x12 => value.iter().all(|b| b.is_ascii_digit() || *b == b' '),
        _ => return None,
    })
}

impl Extensions {
    fn read(&mut self, mut list: Reader<'_>, quirks: &mut Vec<Quirk>) -> Result<(), Malformed> {
        const MALFORMED: Malformed = "malformed extension";
        let mut seen: Vec<&[u8]> = Vec::new();
        while !list.is_empty() {
            let mut extension = list.read(SEQUENCE).ok_or(MALFORMED)?;
            let oid = extension.oid().ok_or(MALFORMED)?;
            let is_critical = extension.peeks(BOOLEAN) && extension.boolean().ok_or(MALFORMED)?;
            let value = extension.read(OCTET_STRING).ok_or(MALFORMED)?;
            if seen.contains(&oid) {
                return Err("duplicate extension");
            }
            seen.push(oid);
            match oid {
                [0x55, 0x1d, kind] => self.read_one(*kind, value, is_critical, quirks)?,
                // 1.3.6.1.5.5.7.1.1
                [0x2b, 6, 1, 5, 5, 7, 1, 1] => {
                    self.read_access(value)?;
                    if is_critical {
                        quirks.push(Quirk::CriticalIdentifier);
                    }
                }
                _ => self.is_critical_unknown |= is_critical,
            }
        }
        Ok(())
    }

    /// Reads one extension of 2.5.29.
    fn read_one(
        &mut self,
        kind: u8,
        mut value: Reader<'_>,
        is_critical: bool,
        quirks: &mut Vec<Quirk>,
    ) -> Result<(), Malformed> {
        match kind {
            14 => {
                self.subject_key = value
                    .bytes(OCTET_STRING)
                    .ok_or("invalid subject key identifier")?
                    .to_vec();
            }
            15 => {
                let bits: Bits<'_> = value.bits().ok_or("invalid key usage")?;
                self.key_usage = (0..9).fold(0, |usage, i| usage | u16::from(bits.at(i)) << i);
            }
            17 => {
                let names = AlternativeNames::read(value, quirks)?;
                let is_empty =
                    names.dns.is_empty() && names.addresses.is_empty() && !names.has_others;
                self.is_critical_unknown |= is_critical && is_empty;
                self.alternative_names = Some(names);
            }
            19 => {
                let constraints = BasicConstraints::read(value);
                self.basic_constraints = Some(constraints.ok_or("invalid basic constraints")?);
            }
            30 => {
                let (constraints, has_unknown) = Constraints::read(value)?;
                self.is_critical_unknown |= is_critical && has_unknown;
                self.constraints = Some(constraints);
            }
            31 => check_distribution_points(value).ok_or("invalid CRL distribution points")?,
            32 => {
                let named = has_policies(value);
                self.policies.are_named = named.ok_or("invalid certificate policies")?;
            }
            33 | 36 | 54 => {
                self.policies.are_mapped |= kind == 33;
                self.policies.are_critical |= is_critical;
                if kind == 36 {
                    let explicit = explicit_policy(value);
                    self.policies.wanted_in =
                        explicit.ok_or("invalid policy constraints extension")?;
                }
            }
            35 => {
                let mut fields = value
                    .read(SEQUENCE)
                    .ok_or("invalid authority key identifier")?;
                let key = fields
                    .optional(context(0))
                    .ok_or("invalid authority key identifier")?;
                self.authority_key = key.map_or_else(Vec::new, |key| key.remaining().to_vec());
            }
            37 => self.purposes = Purposes::read(value).ok_or("invalid extended key usages")?,
            _ => self.is_critical_unknown |= is_critical,
        }
        if is_critical && [14, 35].contains(&kind) {
            quirks.push(Quirk::CriticalIdentifier);
        }
        Ok(())
    }

    fn read_access(&mut self, mut value: Reader<'_>) -> Result<(), Malformed> {
        const INVALID: Malformed = "invalid authority info access";
        let mut list = value.read(SEQUENCE).ok_or(INVALID)?;
        while !list.is_empty() {
            let mut access = list.read(SEQUENCE).ok_or(INVALID)?;
            let method = access.oid().ok_or(INVALID)?;
            if !access.peeks(context(6)) {
                continue;
            }
            let url = access.bytes(context(6)).ok_or(INVALID)?;
            // caIssuers, 1.3.6.1.5.5.7.48.2
            if method == [0x2b, 6, 1, 5, 5, 7, 0x30, 2] && self.issuer_at.len() < MAX_ISSUER_URLS {
                self.issuer_at
                    .push(String::from_utf8_lossy(url).into_owned());
            }
        }
        Ok(())
    }
}

impl BasicConstraints {
    fn read(mut value: Reader<'_>) -> Option<Self> {
        let mut fields = value.read(SEQUENCE)?;
        let is_ca = fields.peeks(BOOLEAN) && fields.boolean()?;
        let max_path = if fields.peeks(INTEGER) {
            Some(fields.unsigned()?)
        } else {
            None
        };
        Some(Self { is_ca, max_path })
    }
}

impl Purposes {
    fn read(mut value: Reader<'_>) -> Option<Self> {
        let mut list = value.read(SEQUENCE)?;
        let mut purposes = Self::default();
        while !list.is_empty() {
            let oid = list.oid()?;
            purposes.are_limited = true;
            // anyExtendedKeyUsage 2.5.29.37.0, serverAuth 1.3.6.1.5.5.7.3.1
            purposes.any |= oid == [0x55, 0x1d, 37, 0];
            purposes.server |= oid == [0x2b, 6, 1, 5, 5, 7, 3, 1];
        }
        Some(purposes)
    }
}

fn check_distribution_points(mut value: Reader<'_>) -> Option<()> {
    let mut points = value.read(SEQUENCE)?;
    while !points.is_empty() {
        let name = points.read(SEQUENCE)?.optional(constructed(0))?;
        if let Some(mut name) = name {
            let mut full = name.read(constructed(0))?;
            while full.peeks(context(6)) {
                full.bytes(context(6))?;
            }
        }
    }
    Some(())
}

fn has_policies(mut value: Reader<'_>) -> Option<bool> {
    let mut policies = value.read(SEQUENCE)?;
    let mut seen = Vec::new();
    while !policies.is_empty() {
        let policy = policies.read(SEQUENCE)?.bytes(OID)?;
        if seen.contains(&policy) {
            return None;
        }
        seen.push(policy);
    }
    Some(!seen.is_empty())
}

/// `requireExplicitPolicy` of policy constraints, if present.
#[expect(clippy::option_option, reason = "absent is not the same as malformed")]
fn explicit_policy(mut value: Reader<'_>) -> Option<Option<u64>> {
    let mut fields = value.read(SEQUENCE)?;
    if !fields.peeks(context(0)) {
        return Some(None);
    }
    let number = fields.bytes(context(0))?;
    let is_small = number.len() <= 8 && number.first().is_some_and(|first| first & 0x80 == 0);
    is_small.then(|| Some(number.iter().fold(0, |sum, b| sum << 8 | u64::from(*b))))
}

/// Bound for the stored URLs of the issuer's certificate.
const MAX_ISSUER_URLS: usize = 3;
