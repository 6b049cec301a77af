//! The rules of Go's crypto/x509 and crypto/tls that depend on the Go release of a binary and on the `go` line of its
//! go.mod, which sets the defaults of GODEBUG.

use std::fmt;

/// How a containerd was built, as far as it affects which certificates are trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GoBuild {
    /// For messages: `containerd's own build`.
    pub of: &'static str,
    /// Minor and patch of Go: 24 and 4 of Go 1.24.4.
    pub release: (u8, u8),
    /// Minor of the `go` line; 20 also stands for older lines, which since Go 1.21 differ from it in nothing but
    /// EDNS. 16 for builds without modules by releases that take them as such.
    pub language: u8,
}

impl GoBuild {
    /// Whether the behavior that Go 1.`change` introduced is the default: per the `go` line, or per the release if it
    /// predates such defaults.
    fn defaults_of(&self, change: u8) -> bool {
        // Go 1.21 introduced defaults per go.mod.
        let defaults = if self.release.0 < 21 {
            self.release.0
        } else {
            self.language
        };
        self.release.0 >= change && defaults >= change
    }

    /// Whether its resolver sends EDNS (GODEBUG `netedns0`); `None` if the `go` line is not known well enough.
    fn sends_edns(&self) -> Option<bool> {
        let has_setting = match self.release {
            (21, patch) => patch >= 12,
            (22, patch) => patch >= 5,
            (minor, _) => minor > 22,
        };
        match (self.release.0, self.language) {
            (..=18, _) => Some(false),
            _ if !has_setting => Some(true),
            (_, ..=18) => Some(false),
            (..=26, 20) => None,
            _ => Some(true),
        }
    }

    /// Accepts SHA-1 in a certificate's signature; Go 1.18 ended it (`x509sha1`).
    pub(super) fn takes_sha1(&self) -> bool {
        self.release.0 < 18
    }

    /// Accepts a certificate message of up to 256 KiB instead of 64 KiB.
    pub fn takes_large_chains(&self) -> bool {
        self.release.0 >= 20
    }

    /// Accepts a negative serial number (GODEBUG `x509negativeserial`).
    pub(super) fn takes_negative_serials(&self) -> bool {
        !self.defaults_of(23)
    }

    /// Accepts RSA keys below 1024 bits (GODEBUG `rsa1024min`).
    pub(super) fn takes_rsa_below_1024(&self) -> bool {
        !self.defaults_of(24)
    }

    /// Rejects RSA keys with an even modulus or exponent.
    pub(super) fn wants_odd_rsa(&self) -> bool {
        self.release.0 >= 24
    }

    /// Rejects larger RSA keys in certificates that a server sends (`defaultMaxRSAKeySize`).
    pub(super) fn refuses_rsa_above_8192(&self) -> bool {
        match self.release {
            (19, patch) => patch >= 12,
            (20, patch) => patch >= 7,
            (minor, _) => minor > 20,
        }
    }

    /// Rejects key identifiers and authority information access that are marked critical.
    pub(super) fn refuses_critical_identifiers(&self) -> bool {
        self.release.0 >= 23
    }

    /// Accepts the name `*` as a match for any name without a dot.
    pub(super) fn takes_bare_wildcard(&self) -> bool {
        self.release.0 < 23
    }

    /// Evaluates policy constraints and mappings; earlier releases treat them as unknown extensions.
    pub(super) fn knows_policies(&self) -> bool {
        self.release.0 >= 24
    }

    /// Also applies name constraints to the names of intermediates.
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

    /// Rejects IPv4 addresses in IPv6 form.
    pub(super) fn refuses_mapped_addresses(&self) -> bool {
        self.release.0 >= 27
    }

    /// Accepts values of a name whose type is not text.
    pub(super) fn takes_odd_names(&self) -> bool {
        self.release.0 >= 27
    }

    /// Supports ML-DSA.
    pub(super) fn knows_ml_dsa(&self) -> bool {
        self.release.0 >= 27
    }

    /// Takes any scheme for a proxy (`httpproxy`); before, what is neither http, https nor socks5 was read again with
    /// `http://` in front.
    pub fn takes_any_proxy_scheme(&self) -> bool {
        self.release.0 >= 23
    }

    /// Speaks SOCKS5 to a proxy whose scheme is `socks5h`.
    pub fn knows_socks5h(&self) -> bool {
        self.release.0 >= 24
    }

    /// An entry of `NO_PROXY` that is not an address matches hosts that are written as addresses by their end.
    pub fn compares_addresses_as_names(&self) -> bool {
        match self.release {
            (23, patch) => patch < 7,
            (24, patch) => patch < 1,
            (minor, _) => minor < 23,
        }
    }

    /// Takes one colon in the host of a URL, before its port (GODEBUG `urlstrictcolons`).
    pub fn has_strict_colons(&self) -> bool {
        self.defaults_of(26)
    }

    /// Takes IPv6 addresses alone in the brackets of a URL's host.
    pub fn has_strict_brackets(&self) -> bool {
        match self.release {
            (24, patch) => patch >= 8,
            (25, patch) => patch >= 2,
            (minor, _) => minor > 25,
        }
    }

    /// Offers TLS 1.0 and 1.1 as a client.
    pub fn offers_tls10(&self) -> bool {
        self.release.0 < 18
    }
}

/// Whether the resolver of these builds sends EDNS; `None` if they differ, or one is not known well enough.
pub fn sends_edns(builds: &[GoBuild]) -> Option<bool> {
    let (first, others) = builds.split_first()?;
    let known = first.sends_edns()?;
    let is_same = |build: &GoBuild| build.sends_edns() == Some(known);
    others.iter().all(is_same).then_some(known)
}

impl fmt::Display for GoBuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (Go 1.{})", self.of, self.release.0)
    }
}

/// Properties of a certificate that some builds accept and others reject.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Quirk {
    NegativeSerial,
    CriticalIdentifier,
    MappedAddress,
    OddName,
    /// Accepted or not depending on Go's URI parser.
    Uri,
}
