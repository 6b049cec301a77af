//! Which builds of Go the node's containerd may be of: TLS and certificates are judged by those.
//!
//! A version does not tell it. What the project builds was read in its release workflow and go.mod
//! (1.6.0 to 2.3.4), what Debian builds in its binaries. Clouds build their own.

use crate::model::runtime::Runtime;
use crate::trust::GoBuild;

const OF_DEBIAN: [(u16, u16, GoBuild); 3] = [
    (1, 6, debian("Debian's containerd 1.6", (19, 8))),
    (1, 7, debian("Debian's containerd 1.7", (24, 4))),
    (2, 1, debian("Debian's containerd 2.1", (27, 1))),
];

/// Debian builds without modules, so with the defaults of Go 1.20.
const fn debian(of: &'static str, release: (u8, u8)) -> GoBuild {
    GoBuild {
        of,
        release,
        language: 20,
    }
}

/// The candidates for a runtime, the likeliest first; all where it is not known.
pub fn candidates(runtime: Option<&Runtime>) -> Vec<GoBuild> {
    let debians = OF_DEBIAN.iter();
    let Some(version @ (major, minor, _)) = runtime.and_then(Runtime::containerd) else {
        let lines = [(1, 7), (2, 1), (2, 2), (2, 3), (2, 0), (1, 6)];
        let newest = |(major, minor)| of_project((major, minor, u16::MAX));
        let own = lines.into_iter().map(newest);
        return own
            .chain(debians.map(|(.., build)| build.clone()))
            .collect();
    };
    let debian = debians
        .filter(|(a, b, _)| (*a, *b) == (major, minor))
        .map(|(.., build)| build.clone());
    // 1.7.24~ds1
    let is_debian = runtime.is_some_and(|runtime| runtime.version.contains("~ds"));
    let mut builds: Vec<GoBuild> = debian.collect();
    if builds.is_empty() || !is_debian {
        builds.insert(0, of_project(version));
    }
    builds
}

/// As the project itself builds it.
fn of_project(version: (u16, u16, u16)) -> GoBuild {
    let (of, release, language) = match version {
        (0 | 1, 0..=6, patch) => {
            let release = match patch {
                _ if version.1 < 6 => (17, 13),
                0..=8 => (17, 13),
                9..=17 => (18, 10),
                18..=22 => (19, 11),
                23 => (19, 12),
                24..=28 => (20, 13),
                29..=35 => (21, 12),
                36..=37 => (22, 10),
                _ => (23, 11),
            };
            let language = if patch >= 39 { 23 } else { 20 };
            ("upstream's containerd 1.6", release, language)
        }
        (0 | 1, _, patch) => {
            let (release, language) = match patch {
                0..=3 => ((20, 6), 20),
                4..=13 => ((20, 13), 20),
                14..=20 => ((21, 12), 21),
                21..=25 => ((22, 10), 21),
                26..=27 => ((23, 7), 21),
                28 => ((23, 11), 23),
                29 => ((24, 9), 23),
                30 => ((24, 11), 24),
                31..=33 => ((25, 9), 24),
                _ => ((25, 12), 25),
            };
            ("upstream's containerd 1.7", release, language)
        }
        (2, 0, patch) => {
            let (release, language) = match patch {
                0..=4 => ((23, 7), 22),
                5..=6 => ((23, 11), 23),
                7..=10 => ((24, 9), 23),
                _ => ((25, 12), 23),
            };
            ("upstream's containerd 2.0", release, language)
        }
        (2, 1, patch) => {
            let (release, language) = match patch {
                0..=4 => ((23, 11), 23),
                5 => ((24, 9), 23),
                6 => ((24, 11), 24),
                _ => ((25, 11), 24),
            };
            ("upstream's containerd 2.1", release, language)
        }
        (2, 2, patch) => {
            let (release, language) = match patch {
                0..=1 => ((24, 11), 24),
                2..=4 => ((25, 9), 24),
                _ => ((25, 12), 25),
            };
            ("upstream's containerd 2.2", release, language)
        }
        _ => ("upstream's containerd 2.3", (26, 5), 26),
    };
    GoBuild {
        of,
        release,
        language,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: &str) -> Vec<(&'static str, u8, u8)> {
        let runtime: Runtime = format!("containerd://{version}").parse().unwrap();
        let builds = candidates(Some(&runtime));
        builds
            .into_iter()
            .map(|b| (b.of, b.release.0, b.language))
            .collect()
    }

    #[test]
    fn a_version_of_debian_has_one_build_and_a_plain_one_two() {
        assert_eq!(of("1.7.24~ds1"), [("Debian's containerd 1.7", 24, 20)]);
        assert_eq!(of("1.6.20~ds1"), [("Debian's containerd 1.6", 19, 20)]);
        let own = ("upstream's containerd 1.7", 22, 21);
        assert_eq!(of("1.7.24"), [own, ("Debian's containerd 1.7", 24, 20)]);
        assert_eq!(of("2.0.5"), [("upstream's containerd 2.0", 23, 23)]);
        assert_eq!(of("2.1.9")[0], ("upstream's containerd 2.1", 25, 24));
        assert_eq!(of("1.4.13")[0].1, 17);
        assert_eq!(of("2.9.0")[0].1, 26);
    }

    #[test]
    fn of_an_unknown_runtime_all_lines_are_candidates() {
        assert_eq!(candidates(None).len(), 9);
        let other: Runtime = "cri-o://1.30.1".parse().unwrap();
        assert_eq!(candidates(Some(&other)).len(), 9);
    }
}
