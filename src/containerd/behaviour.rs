//! What releases of containerd do differently, as far as a pull's outcome hangs on it.
//!
//! Measured beside 1.6.20, 1.7.24 and 2.1.9 (`tests/oracle`); what other releases do differently was read in their sources
//! (1.6.20 to 2.3.4). Not told: that 2.3.2 and later ask the last host again after a timeout or an early end.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::runtime::Runtime;

/// The rules of one line of releases.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Behaviour {
    pub release: Release,
    /// Authorization goes along on a redirect to the same host name at another port: Go 1.21.8 and
    /// 1.22.1 compare host names without their ports, older releases with them.
    pub keeps_authorization_across_ports: bool,
    /// A challenge that carries `error=` makes it ask for a new token, once.
    pub renews_token_on_error: bool,
    /// A token is asked for anew when its `expires_in` has passed.
    pub heeds_token_expiry: bool,
}

/// Lines of releases that differ.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Release {
    /// 1.6 and older.
    V1_6,
    V1_7,
    V2_0,
    /// 2.1 and later: the transfer service pulls.
    V2_1,
}

impl Release {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_6 => "containerd 1.6",
            Self::V1_7 => "containerd 1.7",
            Self::V2_0 => "containerd 2.0",
            Self::V2_1 => "containerd 2.1",
        }
    }
}

impl Behaviour {
    const V1_6: Self = Self {
        release: Release::V1_6,
        keeps_authorization_across_ports: false,
        renews_token_on_error: false,
        heeds_token_expiry: false,
    };
    const V1_7: Self = Self {
        release: Release::V1_7,
        keeps_authorization_across_ports: true,
        renews_token_on_error: true,
        heeds_token_expiry: false,
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

    /// A `hosts.toml` without a single `[host]` is read; older ones drop it ("invalid `host` tree").
    pub fn reads_server_alone(&self) -> bool {
        self.release >= Release::V2_0
    }

    /// The candidates for a runtime, the likeliest first: one where the version is known.
    pub fn candidates(runtime: Option<&Runtime>) -> Vec<Self> {
        let Some(version) = runtime.and_then(Runtime::containerd) else {
            return vec![Self::V1_7, Self::V2_1, Self::V2_0, Self::V1_6];
        };
        // The Go releases with which the project itself builds them; others may have rebuilt them.
        vec![match version {
            (0 | 1, 0..=6, patch) => Self {
                keeps_authorization_across_ports: version.1 == 6 && patch >= 29,
                renews_token_on_error: version.1 == 6 && patch >= 32,
                ..Self::V1_6
            },
            (1, _, patch) => Self {
                keeps_authorization_across_ports: version.1 > 7 || patch >= 14,
                renews_token_on_error: version.1 > 7 || patch >= 16,
                heeds_token_expiry: version.1 > 7 || patch >= 28,
                ..Self::V1_7
            },
            (2, 0, _) => Self::V2_0,
            _ => Self::V2_1,
        }]
    }
}

/// The rules in force in one walk, and whether others would have led it elsewhere.
#[derive(Debug)]
pub struct Rules {
    behaviour: Behaviour,
    candidates: Vec<Behaviour>,
    forked: AtomicBool,
}

impl Rules {
    pub fn new(behaviour: Behaviour, candidates: &[Behaviour]) -> Self {
        Self {
            behaviour,
            candidates: candidates.to_vec(),
            forked: AtomicBool::new(false),
        }
    }

    pub fn release(&self) -> Release {
        self.behaviour.release
    }

    /// The rules in force, where nothing hangs on it what others would do.
    pub fn in_force(&self) -> &Behaviour {
        &self.behaviour
    }

    /// What the release in force does; a candidate that does otherwise is remembered.
    pub fn decide<T: PartialEq>(&self, by: impl Fn(&Behaviour) -> T) -> T {
        let decision = by(&self.behaviour);
        if self.candidates.iter().any(|other| by(other) != decision) {
            self.forked.store(true, Ordering::Relaxed);
        }
        decision
    }

    /// Some decision hung on the release.
    pub fn has_forked(&self) -> bool {
        self.forked.load(Ordering::Relaxed)
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
        ] {
            let found = of(version);
            assert_eq!(found.len(), 1, "{version}");
            let behaviour = Behaviour {
                release,
                keeps_authorization_across_ports: across,
                renews_token_on_error: renews,
                heeds_token_expiry: heeds,
            };
            assert_eq!(found[0], behaviour, "{version}");
        }
        assert_eq!(Behaviour::candidates(None).len(), 4);
        assert_eq!(of("unknown").len(), 4);
    }

    #[test]
    fn a_decision_that_hangs_on_the_release_is_remembered() {
        let all = Behaviour::candidates(None);
        let rules = Rules::new(all[0], &all);
        assert!(rules.decide(|b| b.release >= Release::V1_6));
        assert!(!rules.has_forked());
        assert!(rules.decide(|b| b.renews_token_on_error));
        assert!(rules.has_forked());
        let one = of("1.6.20");
        let rules = Rules::new(one[0], &one);
        assert!(!rules.decide(|b| b.renews_token_on_error));
        assert!(!rules.has_forked());
    }
}
