//! The Go builds that the node's containerd may have: TLS and certificates are judged by their rules.
//!
//! A version does not identify the build. The project's builds were read from its release workflow and go.mod (1.6.0 to
//! 2.3.4), Debian's from its binaries. Clouds make their own builds.

use crate::model::runtime::Runtime;
use crate::trust::GoBuild;

const OF_DEBIAN: [(u16, u16, GoBuild); 3] = [
    (1, 6, debian("Debian's containerd 1.6", (19, 8), 20)),
    (1, 7, debian("Debian's containerd 1.7", (24, 4), 16)),
    (2, 1, debian("Debian's containerd 2.1", (27, 1), 20)),
];

/// Debian builds without modules: with the defaults of Go 1.16 by Go 1.24, and with those of Go 1.20 by Go 1.27
/// (DefaultGODEBUG of the binaries).
const fn debian(of: &'static str, release: (u8, u8), language: u8) -> GoBuild {
    GoBuild {
        of,
        release,
        language,
    }
}

/// The candidates for a runtime, the likeliest first; all builds if the runtime is unknown.
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

type Version = (u16, u16, u16);

/// The project's own builds: up to which version, with which release of Go, and the `go` line of its go.mod. The
/// entries for 1.6 also cover older versions.
const OF_PROJECT: [(Version, (u8, u8), u8); 30] = [
    ((1, 6, 8), (17, 13), 20),
    ((1, 6, 17), (18, 10), 20),
    ((1, 6, 22), (19, 11), 20),
    ((1, 6, 23), (19, 12), 20),
    ((1, 6, 28), (20, 13), 20),
    ((1, 6, 35), (21, 12), 20),
    ((1, 6, 37), (22, 10), 20),
    ((1, 6, 38), (23, 11), 20),
    ((1, 6, u16::MAX), (23, 11), 23),
    ((1, 7, 3), (20, 6), 20),
    ((1, 7, 13), (20, 13), 20),
    ((1, 7, 20), (21, 12), 21),
    ((1, 7, 25), (22, 10), 21),
    ((1, 7, 27), (23, 7), 21),
    ((1, 7, 28), (23, 11), 23),
    ((1, 7, 29), (24, 9), 23),
    ((1, 7, 30), (24, 11), 24),
    ((1, 7, 33), (25, 9), 24),
    ((1, 7, u16::MAX), (25, 12), 25),
    ((2, 0, 4), (23, 7), 22),
    ((2, 0, 6), (23, 11), 23),
    ((2, 0, 10), (24, 9), 23),
    ((2, 0, u16::MAX), (25, 12), 23),
    ((2, 1, 4), (23, 11), 23),
    ((2, 1, 5), (24, 9), 23),
    ((2, 1, 6), (24, 11), 24),
    ((2, 1, u16::MAX), (25, 11), 24),
    ((2, 2, 1), (24, 11), 24),
    ((2, 2, 4), (25, 9), 24),
    ((2, 2, u16::MAX), (25, 12), 25),
];

/// The project's own build of a version.
fn of_project(version: Version) -> GoBuild {
    let known = OF_PROJECT.iter().find(|(last, ..)| version <= *last);
    let (last, release, language) = known.unwrap_or(&((2, 3, u16::MAX), (26, 5), 26));
    GoBuild {
        of: match (last.0, last.1) {
            (1, 6) => "upstream's containerd 1.6",
            (1, _) => "upstream's containerd 1.7",
            (2, 0) => "upstream's containerd 2.0",
            (2, 1) => "upstream's containerd 2.1",
            (2, 2) => "upstream's containerd 2.2",
            _ => "upstream's containerd 2.3",
        },
        release: *release,
        language: *language,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::sends_edns;

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
        assert_eq!(of("1.7.24~ds1"), [("Debian's containerd 1.7", 24, 16)]);
        assert_eq!(of("1.6.20~ds1"), [("Debian's containerd 1.6", 19, 20)]);
        let own = ("upstream's containerd 1.7", 22, 21);
        assert_eq!(of("1.7.24"), [own, ("Debian's containerd 1.7", 24, 16)]);
        assert_eq!(of("2.0.5"), [("upstream's containerd 2.0", 23, 23)]);
        assert_eq!(of("2.1.9")[0], ("upstream's containerd 2.1", 25, 24));
        assert_eq!(of("1.4.13")[0].1, 17);
        assert_eq!(of("2.9.0")[0].1, 26);
    }

    #[test]
    fn whether_queries_have_edns_depends_on_the_build() {
        let sends = |version: &str| {
            let runtime: Runtime = format!("containerd://{version}").parse().unwrap();
            sends_edns(&candidates(Some(&runtime)))
        };
        // As the DefaultGODEBUG of Debian's binaries has it.
        assert_eq!(sends("1.6.20~ds1"), Some(true));
        assert_eq!(sends("1.7.24~ds1"), Some(false));
        assert_eq!(sends("2.1.9~ds1"), Some(true));
        assert_eq!(sends("2.1.9"), Some(true));
        assert_eq!(sends("2.0.5"), Some(true));
        // Go 1.17.
        assert_eq!(sends("1.4.13"), Some(false));
        // Debian's build and the project's differ; its go.mod may be older than Go 1.19.
        assert_eq!(sends("1.7.24"), None);
        assert_eq!(sends("1.6.36"), None);
        assert_eq!(sends_edns(&candidates(None)), None);
    }

    #[test]
    fn of_an_unknown_runtime_all_lines_are_candidates() {
        assert_eq!(candidates(None).len(), 9);
        let other: Runtime = "cri-o://1.30.1".parse().unwrap();
        assert_eq!(candidates(Some(&other)).len(), 9);
    }
}
