//! Differences between containerd releases that affect the outcome of a pull.
//!
//! Measured with 1.6.20, 1.7.24 and 2.1.9 (`tests/oracle`); differences of other releases were read in their sources
//! (1.6.20 to 2.3.4). Not modeled: 2.3.2 and later query the last host again after a timeout or a premature end.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::model::runtime::Runtime;

/// The rules of one release line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each came with a release of its own"
)]
pub struct Behaviour {
    /// The release line.
    pub release: Release,
    /// Authorization is kept on a redirect to the same host name at another port: Go 1.21.8 and 1.22.1 compare host
    /// names without their ports, older releases with them.
    pub keeps_authorization_across_ports: bool,
    /// A challenge with `error=` makes it request a new token, once.
    pub renews_token_on_error: bool,
    /// A new token is requested when `expires_in` has passed.
    pub heeds_token_expiry: bool,
    /// For hosts that may be plain http or TLS, TLS is tried first, then plain http.
    pub tries_tls_first: bool,
    /// A relative pattern in `imports` is resolved against the folder of the file; older releases resolve it against
    /// containerd's working directory.
    pub resolves_globs_beside_file: bool,
    /// A `config.toml` with a version above the newest supported one is rejected; older releases continue.
    pub refuses_newer_config: bool,
    /// 2.1 and later, depending on settings: the CRI plugin pulls by itself, as in 2.0, instead of the transfer
    /// service.
    pub pulls_locally: bool,
    /// The settings that may be in force.
    pub settings: SettingsInForce,
}

/// Which settings are in force, if they may differ from those in the file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SettingsInForce {
    /// As they were read; the defaults if there were none.
    #[default]
    AsRead,
    /// The file was not read, and may set `config_path`.
    WithConfigPath,
    /// The file was changed after containerd started: without its present content.
    BeforeChange,
}

/// Release lines with different behavior.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Release {
    /// 1.6 and older.
    V1_6,
    /// 1.7, and later 1.x.
    V1_7,
    /// 2.0: `hosts.toml` needs no `[host]` table.
    V2_0,
    /// 2.1: the transfer service pulls.
    V2_1,
    /// 2.2: `config_path` has a default.
    V2_2,
    /// 2.3 and later: `config.toml` has a version 4.
    V2_3,
}

impl Release {
    /// For messages: `containerd 1.7`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_6 => "containerd 1.6",
            Self::V1_7 => "containerd 1.7",
            Self::V2_0 => "containerd 2.0",
            Self::V2_1 => "containerd 2.1",
            Self::V2_2 => "containerd 2.2",
            Self::V2_3 => "containerd 2.3",
        }
    }
}

impl Behaviour {
    const V1_6: Self = Self {
        release: Release::V1_6,
        keeps_authorization_across_ports: false,
        renews_token_on_error: false,
        heeds_token_expiry: false,
        tries_tls_first: false,
        resolves_globs_beside_file: false,
        refuses_newer_config: false,
        pulls_locally: false,
        settings: SettingsInForce::AsRead,
    };
    const V1_7: Self = Self {
        release: Release::V1_7,
        keeps_authorization_across_ports: true,
        renews_token_on_error: true,
        tries_tls_first: true,
        resolves_globs_beside_file: true,
        refuses_newer_config: true,
        ..Self::V1_6
    };
    const V2_0: Self = Self {
        release: Release::V2_0,
        heeds_token_expiry: true,
        ..Self::V1_7
    };
    const V2_1: Self = Self {
        release: Release::V2_1,
        ..Self::V2_0
    };
    const V2_2: Self = Self {
        release: Release::V2_2,
        ..Self::V2_1
    };
    const V2_3: Self = Self {
        release: Release::V2_3,
        ..Self::V2_1
    };

    /// The release whose rules apply to selecting, downloading and unpacking the content of a manifest.
    pub fn unpacks_as(&self) -> Release {
        if self.pulls_locally {
            self.release.min(Release::V2_0)
        } else {
            self.release
        }
    }

    /// The last host is queried once more after 500, 503 or 504.
    pub fn retries_server_errors(&self) -> bool {
        self.release >= Release::V2_1
    }

    /// It requests content encodings itself, and decodes them; older releases leave that to Go, which supports gzip.
    pub fn decodes_encodings(&self) -> bool {
        self.release >= Release::V2_0
    }

    /// Whether 206 is taken as the requested part, whatever `Content-Range` states.
    pub fn trusts_partial_content(&self) -> bool {
        self.release >= Release::V2_1
    }

    /// `[2001:db8::1]:5000/image` is a reference; older releases reject it before any request.
    pub fn takes_ipv6_references(&self) -> bool {
        self.release >= Release::V1_7
    }

    /// A `hosts.toml` without a single `[host]` is read; older releases ignore it ("invalid `host` tree").
    pub fn reads_server_alone(&self) -> bool {
        self.release >= Release::V2_0
    }

    /// Without `config_path`, `/etc/containerd/certs.d:/etc/docker/certs.d` is used.
    pub fn has_default_config_path(&self) -> bool {
        self.release >= Release::V2_2
    }

    /// The same release with other settings.
    #[must_use]
    pub fn with(self, settings: SettingsInForce) -> Self {
        Self { settings, ..self }
    }

    /// Built with Go 1.26 or later: a host has one colon, before its port (`urlstrictcolons`).
    pub fn parses_strict_colons(&self) -> bool {
        self.release >= Release::V2_3
    }

    /// For messages: the release, and which settings it has if they are not the file's.
    pub fn name(&self) -> String {
        let settings = match self.settings {
            SettingsInForce::AsRead => "",
            SettingsInForce::WithConfigPath => " with config_path set",
            SettingsInForce::BeforeChange => " without the changes since it started",
        };
        format!("{}{settings}", self.release.name())
    }

    /// The candidates for a runtime, the likeliest first: a single one if the version is known.
    pub fn candidates(runtime: Option<&Runtime>) -> Vec<Self> {
        let Some(version) = runtime.and_then(Runtime::containerd) else {
            return vec![
                Self::V1_7,
                Self::V2_1,
                Self::V2_0,
                Self::V1_6,
                Self::V2_2,
                Self::V2_3,
            ];
        };
        // The Go releases of the project's own builds; other builds may differ.
        vec![match version {
            (0 | 1, 0..=6, patch) => Self {
                keeps_authorization_across_ports: version.1 == 6 && patch >= 29,
                renews_token_on_error: version.1 == 6 && patch >= 32,
                tries_tls_first: version.1 == 6 && patch >= 25,
                resolves_globs_beside_file: version.1 == 6 && patch >= 29,
                refuses_newer_config: version.1 == 6 && patch >= 32,
                ..Self::V1_6
            },
            (1, _, patch) => Self {
                keeps_authorization_across_ports: version.1 > 7 || patch >= 14,
                renews_token_on_error: version.1 > 7 || patch >= 16,
                heeds_token_expiry: version.1 > 7 || patch >= 28,
                tries_tls_first: version.1 > 7 || patch >= 7,
                resolves_globs_beside_file: version.1 > 7 || patch >= 16,
                ..Self::V1_7
            },
            (2, 0, _) => Self::V2_0,
            (2, 1, _) => Self::V2_1,
            (2, 2, _) => Self::V2_2,
            _ => Self::V2_3,
        }]
    }
}

/// The rules of one check, and which other candidates would have led it to another decision.
#[derive(Debug)]
pub struct Rules {
    behaviour: Behaviour,
    candidates: Vec<Behaviour>,
    /// One bit for each candidate that would have decided differently somewhere.
    forked: AtomicU32,
}

impl Rules {
    /// Rules for a check as `behaviour`, among `candidates` (at most 32 are compared).
    pub fn new(behaviour: Behaviour, candidates: &[Behaviour]) -> Self {
        Self {
            behaviour,
            candidates: candidates.to_vec(),
            forked: AtomicU32::new(0),
        }
    }

    /// The rules of this check. For decisions in which candidates differ, use [`Rules::decide`].
    pub fn in_force(&self) -> &Behaviour {
        &self.behaviour
    }

    /// All behaviors that may be in force.
    pub fn candidates(&self) -> &[Behaviour] {
        &self.candidates
    }

    /// The decision of the rules in force. Candidates that decide differently are remembered.
    pub fn decide<T: PartialEq>(&self, by: impl Fn(&Behaviour) -> T) -> T {
        let decision = by(&self.behaviour);
        for (index, other) in (0..u32::BITS).zip(&self.candidates) {
            if by(other) != decision {
                self.forked.fetch_or(1 << index, Ordering::Relaxed);
            }
        }
        decision
    }

    /// Whether a candidate made every decision as the rules in force: its check would be the same.
    pub fn agrees(&self, candidate: usize) -> bool {
        let bit = u32::try_from(candidate)
            .ok()
            .and_then(|c| 1u32.checked_shl(c));
        bit.is_some_and(|bit| self.forked.load(Ordering::Relaxed) & bit == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: &str) -> Vec<Behaviour> {
        let runtime: Runtime = format!("containerd://{version}").parse().unwrap();
        Behaviour::candidates(Some(&runtime))
    }

    #[test]
    fn a_known_version_has_one_behaviour_and_an_unknown_one_all() {
        for (version, release, across, renews, heeds) in [
            ("1.4.13", Release::V1_6, false, false, false),
            ("1.6.20~ds1", Release::V1_6, false, false, false),
            ("1.6.31", Release::V1_6, true, false, false),
            ("1.6.36", Release::V1_6, true, true, false),
            ("1.7.0", Release::V1_7, false, false, false),
            ("1.7.15", Release::V1_7, true, false, false),
            ("1.7.24", Release::V1_7, true, true, false),
            ("1.7.28", Release::V1_7, true, true, true),
            ("2.0.0", Release::V2_0, true, true, true),
            ("2.1.9", Release::V2_1, true, true, true),
            ("2.2.0", Release::V2_2, true, true, true),
            ("2.4.0", Release::V2_3, true, true, true),
        ] {
            let found = of(version);
            assert_eq!(found.len(), 1, "{version}");
            let behaviour = Behaviour {
                release,
                keeps_authorization_across_ports: across,
                renews_token_on_error: renews,
                heeds_token_expiry: heeds,
                ..Behaviour::V1_6
            };
            let shown = Behaviour {
                release: found[0].release,
                keeps_authorization_across_ports: found[0].keeps_authorization_across_ports,
                renews_token_on_error: found[0].renews_token_on_error,
                heeds_token_expiry: found[0].heeds_token_expiry,
                ..behaviour
            };
            assert_eq!(shown, behaviour, "{version}");
        }
        for (version, tls_first, globs, refuses) in [
            ("1.6.24", false, false, false),
            ("1.6.25", true, false, false),
            ("1.6.29", true, true, false),
            ("1.6.32", true, true, true),
            ("1.7.6", false, false, true),
            ("1.7.7", true, false, true),
            ("1.7.16", true, true, true),
            ("2.1.0", true, true, true),
        ] {
            let one = of(version)[0];
            let read = (
                one.tries_tls_first,
                one.resolves_globs_beside_file,
                one.refuses_newer_config,
            );
            assert_eq!(read, (tls_first, globs, refuses), "{version}");
        }
        assert_eq!(Behaviour::candidates(None).len(), 6);
        assert_eq!(of("unknown").len(), 6);
    }

    #[test]
    fn a_decision_that_depends_on_the_release_is_remembered() {
        let all = Behaviour::candidates(None);
        let rules = Rules::new(all[0], &all);
        assert!(rules.decide(|b| b.release >= Release::V1_6));
        assert!((0..all.len()).all(|one| rules.agrees(one)));
        assert!(rules.decide(|b| b.renews_token_on_error));
        let others: Vec<_> = (0..all.len()).filter(|one| !rules.agrees(*one)).collect();
        assert_eq!(others, [3], "1.6 alone does otherwise");
        let one = of("1.6.20");
        let rules = Rules::new(one[0], &one);
        assert!(!rules.decide(|b| b.renews_token_on_error));
        assert!(rules.agrees(0));
    }
}
