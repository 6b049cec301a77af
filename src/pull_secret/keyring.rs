//! Selects the credentials that the kubelet would try for an image, in its order, and reports why the others don't
//! match.
//!
//! The rules are those of kubernetes `pkg/credentialprovider/keyring.go`, quirks included: host names are compared
//! with case, `*` matches within one label, a path matches as a prefix of characters.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::entry::{Credential, Entry};
use super::key::{HUB_INDEX, failing_rule, is_default_registry};
use super::lint;
use crate::model::credential::{
    CredentialId, CredentialSource, Expiry, KeyMismatch, KeyringEvidence, Lint, MatchRule,
    SourceEvidence, SourceProblem,
};
use crate::model::reference::Reference;
use crate::redact::{Scrubber, Secret};

/// A source of credentials that was read.
#[derive(Clone, Debug)]
pub struct LoadedSource {
    /// Where it was read.
    pub source: CredentialSource,
    /// Its logins, in the order of the file.
    pub entries: Vec<Entry>,
    /// Why it gives no credentials; `None`: it was read.
    pub problem: Option<SourceProblem>,
    /// Oddities of the file as a whole; those of single entries are found by [`lint`].
    pub lint: Vec<Lint>,
    /// Expiry times of the source as a whole; those of tokens are found by [`lint`].
    pub expiries: Vec<Expiry>,
    /// A Secret that is no pull secret, in a file with other objects: it counts only if a pod names it.
    pub is_for_others: bool,
    /// It is at one of the usual paths, and was not given.
    pub at_usual_path: bool,
}

impl LoadedSource {
    /// An empty source.
    pub fn new(source: CredentialSource) -> Self {
        Self {
            source,
            entries: Vec::new(),
            problem: None,
            lint: Vec::new(),
            expiries: Vec::new(),
            is_for_others: false,
            at_usual_path: false,
        }
    }

    /// A login that applies to the image regardless of its host.
    pub fn login(source: CredentialSource, username: &str, password: Secret) -> Self {
        Self {
            entries: vec![Entry::new("", username, password, None)],
            ..Self::new(source)
        }
    }

    /// A source that could not be read or used.
    pub fn failed(source: CredentialSource, problem: SourceProblem) -> Self {
        Self {
            problem: Some(problem),
            ..Self::new(source)
        }
    }

    /// A copy with the keys only, to match images with later; it contains no secrets. Call [`source_evidence`] before:
    /// it needs users and passwords.
    #[must_use]
    pub fn hollow(&self) -> Self {
        Self {
            entries: self.entries.iter().map(Entry::hollow).collect(),
            problem: self.problem.clone(),
            ..Self::new(self.source.clone())
        }
    }

    /// Whether this source alone has a credential for an image ([`Reference::name`]).
    ///
    /// # Errors
    /// If no key matches: each key, with the rule by which it does not match.
    pub fn serves(&self, image: &str) -> Result<(), Vec<KeyMismatch>> {
        let entries: Vec<_> = self.entries.iter().map(|entry| (self, entry)).collect();
        let (mut found, mut mismatches) = (Vec::new(), Vec::new());
        search(&entries, image, &mut found, &mut mismatches);
        if found.is_empty() {
            Err(mismatches)
        } else {
            Ok(())
        }
    }
}

/// All sources: first the logins given for the image, then a ring of the Secrets, then a ring of docker configs. The
/// kubelet also tries the pod's Secrets before the node's own config.
#[derive(Clone, Debug)]
pub struct Keyring {
    sources: Vec<LoadedSource>,
}

impl Keyring {
    /// `sources` are in the order in which they were given.
    pub fn new(mut sources: Vec<LoadedSource>) -> Self {
        sources.retain(|source| !source.is_for_others);
        Self { sources }
    }

    /// Makes the scrubber hide all logins in all texts from now on.
    pub fn hide_in(&self, scrub: &Scrubber) {
        for (source, entry) in self.entries() {
            credential(source, entry).hide_in(scrub);
        }
    }

    /// The credentials for an image, in the order in which they are tried, and the evidence on all sources: their
    /// problems, and why other keys don't match.
    pub fn lookup(&self, reference: &Reference) -> (Vec<Credential>, KeyringEvidence) {
        let image = reference.name();
        // A login given for this image applies regardless of its host.
        let (given, others): (Vec<_>, Vec<_>) = self.entries().partition(|(source, _)| {
            matches!(
                source.source,
                CredentialSource::CommandLine | CredentialSource::PasswordFile { .. }
            )
        });
        let (secrets, configs): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(source, _)| matches!(source.source, CredentialSource::SecretFile { .. }));
        let mut found: Vec<_> = given.into_iter().map(|(s, e)| credential(s, e)).collect();
        let mut mismatches = Vec::new();
        for ring in [secrets, configs] {
            search(&ring, &image, &mut found, &mut mismatches);
        }
        let evidence = KeyringEvidence {
            sources: self.sources.iter().map(source_evidence).collect(),
            candidates: found.iter().map(|c| c.id.clone()).collect(),
            mismatches,
        };
        (found, evidence)
    }

    fn entries(&self) -> impl Iterator<Item = (&LoadedSource, &Entry)> {
        self.sources
            .iter()
            .flat_map(|s| s.entries.iter().map(move |e| (s, e)))
    }
}

/// `BasicDockerKeyring.Lookup`.
fn search(
    entries: &[(&LoadedSource, &Entry)],
    image: &str,
    found: &mut Vec<Credential>,
    mismatches: &mut Vec<KeyMismatch>,
) {
    let mut mismatch = |source: &LoadedSource, entry: &Entry, rule: MatchRule| {
        mismatches.push(KeyMismatch {
            credential: credential(source, entry).id,
            rule,
        });
    };
    // Each key once, in reverse order, so that the more specific path of a host is first.
    let mut index: BTreeMap<Reverse<&str>, Vec<(&LoadedSource, &Entry)>> = BTreeMap::new();
    for &(source, entry) in entries {
        if let Some(key) = &entry.index_key {
            index.entry(Reverse(key)).or_default().push((source, entry));
        }
    }
    let rules: Vec<_> = index
        .into_iter()
        .map(|(Reverse(key), under)| (key, under, failing_rule(key, image)))
        .collect();
    let any_match = rules.iter().any(|(_, _, rule)| rule.is_none());
    let falls_back = !any_match && is_default_registry(image);
    for (key, under, rule) in rules {
        let rule = rule.filter(|_| !(falls_back && key == HUB_INDEX));
        for (source, entry) in under {
            match &rule {
                Some(rule) => mismatch(source, entry, rule.clone()),
                None if entry.is_empty() => mismatch(source, entry, MatchRule::Empty),
                None => found.push(credential(source, entry)),
            }
        }
    }
    for (source, entry) in entries.iter().filter(|(_, e)| e.index_key.is_none()) {
        mismatch(source, entry, MatchRule::NotAUrl);
    }
}

fn credential(source: &LoadedSource, entry: &Entry) -> Credential {
    Credential {
        id: CredentialId {
            source: source.source.clone(),
            key: entry.key.clone(),
        },
        username: entry.username.clone(),
        password: entry.password.clone(),
        identity_token: entry.identity_token.clone(),
    }
}

/// The evidence on a source, without secrets: its keys, problem, oddities and expiry times.
pub fn source_evidence(source: &LoadedSource) -> SourceEvidence {
    SourceEvidence {
        source: source.source.clone(),
        keys: source.entries.len(),
        server_keys: source.entries.iter().map(|e| e.key.clone()).collect(),
        problem: source.problem.clone(),
        lint: source
            .lint
            .iter()
            .cloned()
            .chain(source.entries.iter().flat_map(lint::entry))
            .collect(),
        expiries: source
            .expiries
            .iter()
            .cloned()
            .chain(source.entries.iter().filter_map(lint::token_expiry))
            .collect(),
        at_usual_path: source.at_usual_path,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pull_secret::key::glob;

    fn secret(name: &str, keys: &[&str]) -> LoadedSource {
        source(
            CredentialSource::SecretFile {
                path: "s.yaml".to_owned(),
                namespace: None,
                name: name.to_owned(),
            },
            keys,
        )
    }

    fn docker(path: &str, keys: &[&str]) -> LoadedSource {
        source(
            CredentialSource::DockerConfig {
                path: path.to_owned(),
            },
            keys,
        )
    }

    fn source(source: CredentialSource, keys: &[&str]) -> LoadedSource {
        let entry = |key: &&str| Entry::new(key, "user", Secret::new("hunter2"), None);
        LoadedSource {
            at_usual_path: false,
            source,
            entries: keys.iter().map(entry).collect(),
            lint: Vec::new(),
            expiries: Vec::new(),
            problem: None,
            is_for_others: false,
        }
    }

    fn rule_of(key: &str, image: &str) -> Option<MatchRule> {
        let keyring = Keyring::new(vec![secret("s", &[key])]);
        let (found, evidence) = keyring.lookup(&image.parse().unwrap());
        assert_eq!(found.len() + evidence.mismatches.len(), 1, "{key} {image}");
        evidence.mismatches.into_iter().next().map(|m| m.rule)
    }

    #[test]
    fn keys_match_as_in_the_kubelet() {
        for (key, image) in [
            ("reg.example.com", "reg.example.com/a/b"),
            ("https://reg.example.com", "reg.example.com/a/b"),
            ("http://reg.example.com/", "reg.example.com/a/b"),
            ("https://reg.example.com/v1/", "reg.example.com/a/b"),
            ("reg.example.com/v2/", "reg.example.com/a/b"),
            ("reg.example.com/v2/a", "reg.example.com/a/b"),
            ("reg.example.com/a", "reg.example.com/a/b"),
            ("reg.example.com/foo", "reg.example.com/foobar"),
            ("reg.example.com:5000", "reg.example.com:5000/a"),
            ("reg.example.com:", "reg.example.com/a"),
            ("https://u:hunter2@reg.example.com/v1/", "reg.example.com/a"),
            ("reg.example.com?x=y", "reg.example.com/a"),
            ("*.example.com", "reg.example.com/a"),
            ("*.*.com", "reg.example.com/a"),
            ("r*g.example.com", "reg.example.com/a"),
            ("reg*.example.com", "reg.example.com/a"),
            ("r[a-e]g.example.com", "reg.example.com/a"),
            ("[fd12::5]:5000", "[fd12::5]:5000/a"),
            ("docker.io", "nginx"),
            ("docker.io/library", "nginx"),
            ("https://index.docker.io/v1/", "nginx"),
            ("index.docker.io", "grafana/grafana"),
            // No dot and no port: treated as Docker Hub.
            ("index.docker.io", "localhost/x"),
        ] {
            assert_eq!(rule_of(key, image), None, "{key} {image}");
        }
    }

    #[test]
    fn a_password_with_a_slash_is_not_shown_as_a_path() {
        for key in [
            "https://me:123/hunter2@reg.example.com",
            "docker.io/hunter2@reg.example.com",
            "https://hunter2.io/x@reg.example.com",
            "https://[hunter2.io/x@reg.example.com",
        ] {
            let rule = rule_of(key, "nginx").unwrap();
            let said = rule.to_string();
            assert!(!said.contains("hunter2") && !said.contains("123"), "{said}");
        }
    }

    #[test]
    fn a_mismatch_names_the_first_rule_that_fails() {
        let port = |key: Option<&str>, image: Option<&str>| MatchRule::Port {
            key: key.map(str::to_owned),
            image: image.map(str::to_owned),
        };
        let path = |key: &str, image: &str| MatchRule::Path {
            key: key.to_owned(),
            image: image.to_owned(),
        };
        let host = |key: &str, image: &str| MatchRule::Host {
            key: key.to_owned(),
            image: image.to_owned(),
        };
        let labels = |key, image| MatchRule::Labels { key, image };
        for (key, image, rule) in [
            (
                "reg.example.com:443",
                "reg.example.com/a",
                port(Some("443"), None),
            ),
            (
                "reg.example.com",
                "reg.example.com:443/a",
                port(None, Some("443")),
            ),
            ("other:1/x", "reg.example.com/a", port(Some("1"), None)),
            ("*.example.com", "a.b.example.com/a", labels(3, 4)),
            ("*.example.com", "example.com/a", labels(3, 2)),
            ("reg.example.com/b", "reg.example.com/a", path("/b", "/a")),
            ("reg.example.com/v2", "reg.example.com/a", path("/v2", "/a")),
            ("reg.example.com/a/", "reg.example.com/a", path("/a/", "/a")),
            ("index.docker.io/v1", "nginx", labels(3, 2)),
            ("registry-1.docker.io", "nginx", labels(3, 2)),
            (
                "Reg.example.com",
                "reg.example.com/a",
                host("Reg.example.com", "reg.example.com"),
            ),
            // An IPv6 address without a port is read as a class of characters.
            ("[fd12::5]", "[fd12::5]/a", host("[fd12::5]", "[fd12::5]")),
            (
                "r[x]g.example.com",
                "reg.example.com/a",
                host("r[x]g.example.com", "reg.example.com"),
            ),
            (
                "r[].example.com",
                "reg.example.com/a",
                MatchRule::BadPattern {
                    key: "r[].example.com".into(),
                },
            ),
            (
                "r[x.example.com",
                "reg.example.com/a",
                MatchRule::BadPattern {
                    key: "r[x.example.com".into(),
                },
            ),
            ("reg example.com", "reg.example.com/a", MatchRule::NotAUrl),
            ("reg.example.com:*", "reg.example.com/a", MatchRule::NotAUrl),
            (
                "reg.example.com/%zz",
                "reg.example.com/a",
                MatchRule::NotAUrl,
            ),
            (
                "r[^x]g.example.com",
                "reg.example.com/a",
                MatchRule::NotAUrl,
            ),
            ("[fd12::5", "reg.example.com/a", MatchRule::NotAUrl),
            ("index.docker.io", "quay.io/a", labels(3, 2)),
        ] {
            assert_eq!(rule_of(key, image), Some(rule), "{key} {image}");
        }
    }

    fn tried(sources: Vec<LoadedSource>, image: &str) -> Vec<String> {
        let (found, evidence) = Keyring::new(sources).lookup(&image.parse().unwrap());
        let ids: Vec<CredentialId> = found.into_iter().map(|c| c.id).collect();
        assert_eq!(ids, evidence.candidates);
        ids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_matches_are_tried_the_more_specific_first_and_sources_in_order() {
        let sources = vec![
            docker("config.json", &["reg.example.com/a/b"]),
            secret("one", &["reg.example.com", "*.example.com"]),
            secret("two", &["reg.example.com/a", "https://reg.example.com/v1/"]),
            source(CredentialSource::CommandLine, &[""]),
        ];
        assert_eq!(
            tried(sources, "reg.example.com/a/b"),
            [
                "--username",
                "secret two key 'reg.example.com/a'",
                "secret one key 'reg.example.com'",
                "secret two key 'https://reg.example.com/v1/'",
                "secret one key '*.example.com'",
                "config.json key 'reg.example.com/a/b'",
            ]
        );
    }

    #[test]
    fn the_fallback_of_docker_hub_is_for_a_ring_without_a_match() {
        let both = ["docker.io", "https://index.docker.io/v1/"];
        assert_eq!(
            tried(vec![secret("s", &both)], "nginx"),
            ["secret s key 'docker.io'"]
        );
        assert_eq!(
            tried(
                vec![secret("s", &both[..1]), docker("c", &both[1..])],
                "nginx"
            ),
            [
                "secret s key 'docker.io'",
                "c key 'https://index.docker.io/v1/'"
            ]
        );
    }

    #[test]
    fn an_entry_without_a_password_is_no_candidate_but_stops_the_fallback() {
        let mut source = secret("s", &["docker.io", "index.docker.io"]);
        let key = source.entries[0].key.clone();
        source.entries[0] = Entry::new(&key, "user", Secret::default(), None);
        let (found, evidence) = Keyring::new(vec![source]).lookup(&"nginx".parse().unwrap());
        assert_eq!(found, []);
        assert!(
            evidence
                .mismatches
                .iter()
                .any(|m| m.rule == MatchRule::Empty)
        );
    }

    #[test]
    fn nothing_that_prints_holds_a_password() {
        let mut source = secret(
            "s",
            &[
                "https://me:hunter2@reg.example.com/x?hunter2",
                "hunter2@x",
                "me:hunter2@x/https://y",
            ],
        );
        source.entries.push(Entry::new(
            "reg.example.com",
            "hunter2",
            Secret::new("hunter2"),
            Some(Secret::new("hunter2")),
        ));
        let keyring = Keyring::new(vec![source]);
        let (found, evidence) = keyring.lookup(&"reg.example.com/a".parse().unwrap());
        let shown = format!("{keyring:?} {found:?} {evidence:?}");
        let json = serde_json::to_string(&evidence).unwrap();
        assert_eq!(found.len(), 1);
        assert!(
            !shown.contains("hunter2") && !json.contains("hunter2"),
            "{shown}"
        );
        let scrub = Scrubber::default();
        keyring.hide_in(&scrub);
        assert_eq!(scrub.clean("hunter2"), "***");
    }

    #[test]
    fn a_hollow_source_matches_as_before_and_holds_nothing_secret() {
        let mut whole = secret(
            "s",
            &[
                "reg.example.com/team",
                "*.example.org",
                "docker.io",
                "index.docker.io",
            ],
        );
        whole
            .entries
            .push(Entry::new("empty.example.com", "", Secret::default(), None));
        let hollow = whole.hollow();
        for image in [
            "reg.example.com/team/a",
            "reg.example.com/b",
            "docker.io/library/nginx",
            "empty.example.com/a",
        ] {
            assert_eq!(whole.serves(image), hollow.serves(image), "{image}");
        }
        assert_eq!(whole.serves("a.example.org/b"), Ok(()));
        let wrong = whole.serves("empty.example.com/a").unwrap_err();
        assert!(
            wrong
                .iter()
                .any(|mismatch| mismatch.rule == MatchRule::Empty)
        );
        assert!(
            hollow
                .entries
                .iter()
                .all(|entry| !entry.password.expose().contains("hunter2")
                    && entry.username.len() < 2)
        );
    }

    proptest! {
        #[test]
        fn the_image_s_own_host_always_matches(
            host in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){1,3}(:[1-9][0-9]{1,3})?",
            scheme in "(https://|http://)?", tail in "(/|/v1/|/v2/)?",
        ) {
            prop_assert_eq!(rule_of(&format!("{scheme}{host}{tail}"), &format!("{host}/a/b")), None);
        }

        #[test]
        fn any_key_is_judged(key in "[*\\[\\]^a-c.:/@%?#\\- é]{0,30}") {
            let _ = rule_of(&key, "a.b/c");
            let _ = rule_of(&key, "nginx");
        }

        /// A simple recursive matcher gives the same results.
        #[test]
        fn globs_match_as_defined(pattern in "[a-c*]{0,8}", text in "[a-c]{0,8}") {
            fn matches(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
                    Some((c, rest)) => text.split_first().is_some_and(|(t, text)| t == c && matches(rest, text)),
                }
            }
            prop_assert_eq!(glob(&pattern, &text), Some(matches(pattern.as_bytes(), text.as_bytes())));
        }
    }
}
