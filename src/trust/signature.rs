//! Keys and signatures: which kinds Go accepts, and whether a signature is valid, as far as aws-lc-rs can verify it.

use aws_lc_rs::signature::{self as lc, ParsedPublicKey, VerificationAlgorithm};

use super::build::GoBuild;
use super::der::Malformed;
use super::der::{OID, Reader, SEQUENCE, constructed};

/// The algorithm of a certificate's signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Algorithm {
    Rsa(Hash),
    RsaPss(Hash),
    Ecdsa(Hash),
    Ed25519,
    MlDsa,
    /// MD5 and older.
    Insecure,
    Unknown,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// A public key as Go parses it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Key {
    Rsa(Rsa),
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    MlDsa,
    /// DSA, X25519: parsed, but not usable for signatures.
    Useless,
    Unknown,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rsa {
    pub(super) bits: usize,
    exponent: u64,
    is_even: bool,
    /// PKCS #1.
    der: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Curve {
    P224,
    P256,
    P384,
    P521,
}

/// The result of checking a signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Checked {
    Good,
    /// Made with another key.
    Bad,
    /// Go accepts no signature of this kind.
    Refused(&'static str),
    /// aws-lc-rs can't check it.
    Unknown(&'static str),
}

const RSA_OIDS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
const NIST_SIGNATURES: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3];
const NULL: &[u8] = &[5, 0];

impl Algorithm {
    /// Parses an AlgorithmIdentifier; `None` if it is malformed.
    pub(super) fn parse(mut identifier: Reader<'_>) -> Option<Self> {
        let oid = identifier.oid()?;
        let parameters = if identifier.is_empty() {
            &[][..]
        } else {
            identifier.element()?.whole
        };
        if let Some([kind]) = oid.strip_prefix(RSA_OIDS) {
            return Some(match kind {
                2 | 4 => Self::Insecure,
                5 => Self::Rsa(Hash::Sha1),
                10 => pss(parameters).map_or(Self::Unknown, Self::RsaPss),
                11 => Self::Rsa(Hash::Sha256),
                12 => Self::Rsa(Hash::Sha384),
                13 => Self::Rsa(Hash::Sha512),
                _ => Self::Unknown,
            });
        }
        Some(match oid {
            // sha1WithRSASignature of OIW
            [0x2b, 0x0e, 3, 2, 0x1d] => Self::Rsa(Hash::Sha1),
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] => Self::Ecdsa(Hash::Sha1),
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => Self::Ecdsa(Hash::Sha256),
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => Self::Ecdsa(Hash::Sha384),
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => Self::Ecdsa(Hash::Sha512),
            ED25519 if parameters.is_empty() => Self::Ed25519,
            _ if is_ml_dsa(oid) && parameters.is_empty() => Self::MlDsa,
            _ => Self::Unknown,
        })
    }

    /// Why no build accepts it, or this one does not.
    fn refused_by(self, build: &GoBuild) -> Option<&'static str> {
        match self {
            Self::Insecure => Some("it is signed with MD5 or an older digest"),
            Self::Rsa(Hash::Sha1) | Self::Ecdsa(Hash::Sha1) if !build.takes_sha1() => {
                Some("it is signed with SHA-1")
            }
            Self::MlDsa if !build.knows_ml_dsa() => {
                Some("it is signed with ML-DSA, which this Go release does not support")
            }
            Self::Unknown => Some("it is signed with an algorithm that Go does not support"),
            _ => None,
        }
    }
}

const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

fn is_ml_dsa(oid: &[u8]) -> bool {
    matches!(oid.strip_prefix(NIST_SIGNATURES), Some([17..=19]))
}

/// The digest's OID in an AlgorithmIdentifier that has no parameters.
fn digest_of(mut identifier: Reader<'_>) -> Option<&[u8]> {
    let oid = identifier.bytes(OID)?;
    let rest = identifier.remaining();
    (rest.is_empty() || rest == NULL).then_some(oid)
}

/// The digest of PSS parameters in one of the three forms that Go accepts: the same digest in MGF1, and a salt of its
/// length.
fn pss(parameters: &[u8]) -> Option<Hash> {
    let mut fields = Reader::new(parameters).read(SEQUENCE)?;
    let digest = digest_of(fields.read(constructed(0))?.read(SEQUENCE)?)?;
    let mut mask = fields.read(constructed(1))?.read(SEQUENCE)?;
    let is_mgf1 = mask.bytes(OID)?.strip_prefix(RSA_OIDS) == Some(&[8]);
    let of_mask = digest_of(mask.read(SEQUENCE)?)?;
    let salt = fields.read(constructed(2))?.unsigned()?;
    let trailer = fields
        .optional(constructed(3))?
        .map_or(Some(1), |mut t| t.unsigned())?;
    if !is_mgf1 || of_mask != digest || trailer != 1 {
        return None;
    }
    match (digest, salt) {
        ([0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1], 32) => Some(Hash::Sha256),
        ([0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2], 48) => Some(Hash::Sha384),
        ([0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3], 64) => Some(Hash::Sha512),
        _ => None,
    }
}

impl Key {
    /// Parses the content of a SubjectPublicKeyInfo.
    pub(super) fn parse(mut info: Reader<'_>) -> Result<Self, Malformed> {
        let mut identifier = info
            .read(SEQUENCE)
            .ok_or("malformed public key algorithm identifier")?;
        let oid = identifier
            .oid()
            .ok_or("malformed public key algorithm identifier")?;
        let parameters = identifier.remaining();
        let key = info
            .bits()
            .ok_or("malformed subjectPublicKey")?
            .right_aligned();
        if oid.strip_prefix(RSA_OIDS) == Some(&[1]) {
            if parameters != NULL {
                return Err("RSA key missing NULL parameters");
            }
            return Rsa::parse(key).map(Self::Rsa);
        }
        match oid {
            // id-ecPublicKey
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1] => {
                let curve = Reader::new(parameters)
                    .oid()
                    .ok_or("invalid ECDSA parameters")?;
                let curve = Curve::of(curve).ok_or("unsupported elliptic curve")?;
                if key.first() != Some(&4) || key.len() != 1 + 2 * curve.bytes() {
                    return Err("failed to unmarshal elliptic curve point");
                }
                Ok(Self::Ec { curve, point: key })
            }
            ED25519 if !parameters.is_empty() => Err("Ed25519 key encoded with illegal parameters"),
            ED25519 if key.len() != 32 => Err("wrong Ed25519 public key size"),
            ED25519 => Ok(Self::Ed25519(key)),
            // X25519, DSA
            [0x2b, 0x65, 0x6e] | [0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1] => Ok(Self::Useless),
            _ if is_ml_dsa(oid) => Ok(Self::MlDsa),
            _ => Ok(Self::Unknown),
        }
    }

    /// Why `build` accepts no signature by this key with this algorithm, although others do.
    pub(super) fn refused_by(&self, algorithm: Algorithm, build: &GoBuild) -> Option<&'static str> {
        algorithm
            .refused_by(build)
            .or_else(|| match (self, algorithm) {
                (Self::Rsa(key), Algorithm::Rsa(_) | Algorithm::RsaPss(_)) => key.refused_by(build),
                _ => None,
            })
    }

    /// Whether `signature` of `signed` was made with this key. All builds agree on that.
    pub(super) fn check(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> Checked {
        match (self, algorithm) {
            (Self::Rsa(key), Algorithm::Rsa(hash)) => {
                let parameters: &'static lc::RsaParameters = match hash {
                    Hash::Sha1 => &lc::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    Hash::Sha256 => &lc::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                    Hash::Sha384 => &lc::RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &lc::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
                };
                let least = if hash == Hash::Sha384 { 2048 } else { 1024 };
                key.check(parameters, least, signed, signature)
            }
            (Self::Rsa(key), Algorithm::RsaPss(hash)) => {
                let parameters: &'static lc::RsaParameters = match hash {
                    Hash::Sha1 | Hash::Sha256 => &lc::RSA_PSS_2048_8192_SHA256,
                    Hash::Sha384 => &lc::RSA_PSS_2048_8192_SHA384,
                    Hash::Sha512 => &lc::RSA_PSS_2048_8192_SHA512,
                };
                key.check(parameters, 2048, signed, signature)
            }
            (Self::Ec { curve, point }, Algorithm::Ecdsa(hash)) => match curve.with(hash) {
                Some(algorithm) => verify(algorithm, point, signed, signature),
                None => Checked::Unknown(
                    "a signature on the curve P-224, or one with SHA-1, was not checked",
                ),
            },
            (Self::Ed25519(key), Algorithm::Ed25519) => {
                verify(&lc::ED25519, key, signed, signature)
            }
            (Self::MlDsa, Algorithm::MlDsa) => {
                Checked::Unknown("an ML-DSA signature was not checked")
            }
            _ => Checked::Refused("its signature algorithm does not match its issuer's key"),
        }
    }
}

fn verify(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> Checked {
    match ParsedPublicKey::new(algorithm, key) {
        Ok(key) if key.verify_sig(signed, signature).is_ok() => Checked::Good,
        _ => Checked::Bad,
    }
}

impl Rsa {
    fn parse(der: Vec<u8>) -> Result<Self, Malformed> {
        let mut fields = Reader::new(&der)
            .read(SEQUENCE)
            .ok_or("invalid RSA public key")?;
        let modulus = fields.integer().ok_or("invalid RSA modulus")?;
        let exponent = fields.unsigned().ok_or("invalid RSA public exponent")?;
        let digits = modulus.strip_prefix(&[0]).unwrap_or(modulus);
        let Some((first, last)) = digits.first().zip(digits.last()) else {
            return Err("RSA modulus is not a positive number");
        };
        if modulus[0] & 0x80 != 0 || exponent == 0 {
            return Err("a number in the RSA key is not positive");
        }
        Ok(Self {
            bits: digits.len() * 8 - first.leading_zeros() as usize,
            exponent,
            is_even: last & 1 == 0,
            der,
        })
    }

    /// Why Go accepts no signature of this key.
    fn refused_by(&self, build: &GoBuild) -> Option<&'static str> {
        if self.bits < 1024 && !build.takes_rsa_below_1024() {
            return Some("the RSA key that signed has fewer than 1024 bits");
        }
        let is_odd_pair = !self.is_even && self.exponent & 1 == 1;
        let is_fit =
            (2..1 << 31).contains(&self.exponent) && (is_odd_pair || !build.wants_odd_rsa());
        (!is_fit).then_some(
            "the RSA key that signed has an exponent or a modulus that Go does not accept",
        )
    }

    fn check(
        &self,
        parameters: &'static lc::RsaParameters,
        least: usize,
        signed: &[u8],
        signature: &[u8],
    ) -> Checked {
        if signature.len() != self.bits.div_ceil(8) {
            return Checked::Bad;
        }
        if !(least..=8192).contains(&self.bits) || self.is_even || self.exponent & 1 == 0 {
            return Checked::Unknown("a signature with an RSA key of unusual size was not checked");
        }
        verify(parameters, &self.der, signed, signature)
    }
}

impl Curve {
    fn of(oid: &[u8]) -> Option<Self> {
        match oid {
            [0x2b, 0x81, 4, 0, 33] => Some(Self::P224),
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => Some(Self::P256),
            [0x2b, 0x81, 4, 0, 34] => Some(Self::P384),
            [0x2b, 0x81, 4, 0, 35] => Some(Self::P521),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::P224 => 28,
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn with(self, hash: Hash) -> Option<&'static lc::EcdsaVerificationAlgorithm> {
        Some(match (self, hash) {
            (Self::P256, Hash::Sha1) => &lc::ECDSA_P256_SHA1_ASN1,
            (Self::P256, Hash::Sha256) => &lc::ECDSA_P256_SHA256_ASN1,
            (Self::P256, Hash::Sha384) => &lc::ECDSA_P256_SHA384_ASN1,
            (Self::P256, Hash::Sha512) => &lc::ECDSA_P256_SHA512_ASN1,
            (Self::P384, Hash::Sha256) => &lc::ECDSA_P384_SHA256_ASN1,
            (Self::P384, Hash::Sha384) => &lc::ECDSA_P384_SHA384_ASN1,
            (Self::P384, Hash::Sha512) => &lc::ECDSA_P384_SHA512_ASN1,
            (Self::P521, Hash::Sha1) => &lc::ECDSA_P521_SHA1_ASN1,
            (Self::P521, Hash::Sha256) => &lc::ECDSA_P521_SHA256_ASN1,
            (Self::P521, Hash::Sha384) => &lc::ECDSA_P521_SHA384_ASN1,
            (Self::P521, Hash::Sha512) => &lc::ECDSA_P521_SHA512_ASN1,
            (Self::P384, Hash::Sha1) | (Self::P224, _) => return None,
        })
    }
}
