//! What releases of containerd do differently, as far as a pull's outcome hangs on it.
//!
//! Measured beside 1.6.20, 1.7.24 and 2.1.9 (`tests/oracle`); what other releases do differently was read in their sources
//! (1.6.20 to 2.3.4). Not told: that 2.3.2 and later ask the last host again after a timeout or an early end.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::model::runtime::Runtime;

/// The rules of one line of releases.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each came with a release of its own"
)]
pub struct Behaviour {
    pub release: Release,
    /// Authorization goes along on a redirect to the same host name at another port: Go 1.21.8 and
    /// 1.22.1 compare host names without their ports, older releases with them.
    pub keeps_authorization_across_ports: bool,
    /// A challenge that carries `error=` makes it ask for a new token, once.
    pub renews_token_on_error: bool,
    /// A token is asked for anew when its `expires_in` has passed.
    pub heeds_token_expiry: bool,
    /// Of hosts for which http and TLS are both possible, TLS is tried first and plain http after it.
    pub tries_tls_first: bool,
    /// A relative pattern in `imports` is resolved against the folder of the file, older releases take it
    /// as relative to containerd's own working directory.
    pub resolves_globs_beside_file: bool,
    /// A `config.toml` with a version above the newest known one is refused, older releases read on.
    pub refuses_newer_config: bool,
    /// 2.1 and later by their settings: the CRI plugin pulls by itself, as 2.0 does, and not the transfer service.
    pub pulls_locally: bool,
    pub settings: SettingsInForce,
}

/// By which settings a release pulls, where those in its file may not be the ones.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SettingsInForce {
    /// As they were read; its defaults, where none were.
    #[default]
    AsRead,
    /// The file was not read, and may set `config_path`.
    WithConfigPath,
    /// The file was changed after containerd started: without what stands in it now.
    BeforeChange,
}

/// Lines of releases that differ.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Release {
    /// 1.6 and older.
    V1_6,
    V1_7,
    V2_0,
    /// 2.1: the transfer service pulls.
    V2_1,
    /// 2.2: `config_path` has a default.
    V2_2,
    /// 2.3 and later: `config.toml` has a version 4.
    V2_3,
}

impl Release {
    /// For people.
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

    /// The release by whose rules it picks, fetches and unpacks what a manifest lists.
    pub fn unpacks_as(&self) -> Release {
        if self.pulls_locally {
            self.release.min(Release::V2_0)
        } else {
            self.release
        }
    }

    /// The last host is asked once more after 500, 503 or 504.
    pub fn retries_server_errors(&self) -> bool {
        self.release >= Release::V2_1
    }

    /// It asks for encodings itself, and decodes them; older ones leave that to Go, which knows gzip.
    pub fn decodes_encodings(&self) -> bool {
        self.release >= Release::V2_0
    }

    /// Whether 206 is taken for the part that was asked for, whatever `Content-Range` says.
    pub fn trusts_partial_content(&self) -> bool {
        self.release >= Release::V2_1
    }

    /// `[2001:db8::1]:5000/image` is a reference; older ones refuse it before anything is asked.
    pub fn takes_ipv6_references(&self) -> bool {
        self.release >= Release::V1_7
    }

    /// A `hosts.toml` without a single `[host]` is read; older ones drop it ("invalid `host` tree").
    pub fn reads_server_alone(&self) -> bool {
        self.release >= Release::V2_0
    }

    /// Without `config_path`, `/etc/containerd/certs.d:/etc/docker/certs.d` stands in its place.
    pub fn has_default_config_path(&self) -> bool {
        self.release >= Release::V2_2
    }

    /// The same, by other settings.
    #[must_use]
    pub fn with(self, settings: SettingsInForce) -> Self {
        Self { settings, ..self }
    }

    /// Built with Go 1.26 or later: a host has one colon, before its port (`urlstrictcolons`).
    pub fn parses_strict_colons(&self) -> bool {
        self.release >= Release::V2_3
    }

    /// For people.
    pub fn name(&self) -> String {
        let settings = match self.settings {
            SettingsInForce::AsRead => "",
            SettingsInForce::WithConfigPath => " with config_path set",
            SettingsInForce::BeforeChange => " without what was changed since it started",
        };
        format!("{}{settings}", self.release.name())
    }

    /// The candidates for a runtime, the likeliest first: one where the version is known.
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
        // The Go releases with which the project itself builds them; others may have rebuilt them.
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

/// The rules in force in one walk, and whether others would have led it elsewhere.
#[derive(Debug)]
pub struct Rules {
    behaviour: Behaviour,
    candidates: Vec<Behaviour>,
    /// One bit for each candidate that would have decided otherwise somewhere.
    forked: AtomicU32,
}

impl Rules {
    pub fn new(behaviour: Behaviour, candidates: &[Behaviour]) -> Self {
        Self {
            behaviour,
            candidates: candidates.to_vec(),
            forked: AtomicU32::new(0),
        }
    }

    /// The rules in force, where nothing hangs on it what others would do.
    pub fn in_force(&self) -> &Behaviour {
        &self.behaviour
    }

    /// All that may be in force.
    pub fn candidates(&self) -> &[Behaviour] {
        &self.candidates
    }

    /// What the release in force does; a candidate that does otherwise is remembered.
    pub fn decide<T: PartialEq>(&self, by: impl Fn(&Behaviour) -> T) -> T {
        let decision = by(&self.behaviour);
        for (index, other) in (0..u32::BITS).zip(&self.candidates) {
            if by(other) != decision {
                self.forked.fetch_or(1 << index, Ordering::Relaxed);
            }
        }
        decision
    }

    /// A candidate decided as the release in force in everything: its walk would be the same.
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
    fn a_decision_that_hangs_on_the_release_is_remembered() {
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
