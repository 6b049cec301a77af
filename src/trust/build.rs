//! The rules of Go's crypto/x509 and crypto/tls, by the release a binary was built with and by the
//! `go` line of its go.mod, which sets the defaults of GODEBUG.

use std::fmt;

/// How a containerd was built, as far as its verdict on a certificate hangs on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GoBuild {
    /// For people: `containerd's own build`.
    pub of: &'static str,
    /// Minor and patch of Go: 24 and 4 of Go 1.24.4.
    pub release: (u8, u8),
    /// Minor of the `go` line; 20 for older ones and for builds without modules, as Go takes it.
    pub language: u8,
}

impl GoBuild {
    /// `go` 1.`language` or, for a release that knows no such defaults, its own.
    fn defaults_of(&self, change: u8) -> bool {
        // Defaults by go.mod came with Go 1.21.
        let defaults = if self.release.0 < 21 {
            self.release.0
        } else {
            self.language
        };
        self.release.0 >= change && defaults >= change
    }

    /// SHA-1 in a certificate's signature, before `x509sha1`.
    pub(super) fn takes_sha1(&self) -> bool {
        self.release.0 < 18
    }

    /// A message with certificates may have 256 KiB, and not 64.
    pub fn takes_large_chains(&self) -> bool {
        self.release.0 >= 20
    }

    /// `x509negativeserial`.
    pub(super) fn takes_negative_serials(&self) -> bool {
        !self.defaults_of(23)
    }

    /// `rsa1024min`.
    pub(super) fn takes_rsa_below_1024(&self) -> bool {
        !self.defaults_of(24)
    }

    /// Even moduli and exponents are no keys.
    pub(super) fn wants_odd_rsa(&self) -> bool {
        self.release.0 >= 24
    }

    /// `defaultMaxRSAKeySize`, of certificates that a server sends.
    pub(super) fn refuses_rsa_above_8192(&self) -> bool {
        match self.release {
            (19, patch) => patch >= 12,
            (20, patch) => patch >= 7,
            (minor, _) => minor > 20,
        }
    }

    /// Identifiers of keys and the access to the authority must not be critical.
    pub(super) fn refuses_critical_identifiers(&self) -> bool {
        self.release.0 >= 23
    }

    /// A name `*` stands for any name without a dot.
    pub(super) fn takes_bare_wildcard(&self) -> bool {
        self.release.0 < 23
    }

    /// Policy constraints and mappings are worked out; before, they are unknown extensions.
    pub(super) fn knows_policies(&self) -> bool {
        self.release.0 >= 24
    }

    /// The names of intermediates are held against the constraints too.
    pub(super) fn constrains_intermediates(&self) -> bool {
        self.release.0 >= 20
    }

    /// A constraint that excludes `a.example.com` excludes `*.example.com` as well.
    pub(super) fn excludes_wildcards_above(&self) -> bool {
        match self.release {
            (24, patch) => patch >= 11,
            (25, patch) => patch >= 5,
            (minor, _) => minor > 25,
        }
    }

    /// IPv4 addresses in the form of IPv6.
    pub(super) fn refuses_mapped_addresses(&self) -> bool {
        self.release.0 >= 27
    }

    /// Values of a name that are no text.
    pub(super) fn takes_odd_names(&self) -> bool {
        self.release.0 >= 27
    }

    /// ML-DSA.
    pub(super) fn knows_ml_dsa(&self) -> bool {
        self.release.0 >= 27
    }

    /// A client offers TLS 1.0 and 1.1.
    pub fn offers_tls10(&self) -> bool {
        self.release.0 < 18
    }
}

impl fmt::Display for GoBuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (Go 1.{})", self.of, self.release.0)
    }
}

/// What builds differ in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Quirk {
    NegativeSerial,
    CriticalIdentifier,
    MappedAddress,
    OddName,
    /// Go's own idea of a URI decides.
    Uri,
}
