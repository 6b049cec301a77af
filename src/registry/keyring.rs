//! Which credentials the kubelet would try for an image, in its order, and why not the others.
//!
//! The rules are those of kubernetes `pkg/credentialprovider/keyring.go`, quirks included: host
//! names are compared by case, `*` stays within a label, a path is a prefix of characters.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use crate::model::credential::{
    CredentialId, CredentialSource, Expiry, KeyMismatch, KeyringEvidence, Lint, MatchRule,
    SourceEvidence, SourceProblem,
};
use crate::model::endpoint::split_host_port;
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::redact::{Scrubber, Secret};
use crate::registry::lint;

/// One user and password, or identity token, that may be tried.
#[derive(Clone, Eq, PartialEq)]
pub struct Credential {
    pub id: CredentialId,
    pub username: String,
    pub password: Secret,
    /// An OAuth2 refresh token; counts before the password.
    pub identity_token: Option<Secret>,
}

impl Credential {
    /// User and secret as containerd gets them; an identity token comes without a user.
    pub fn login(&self) -> (&str, &Secret) {
        match &self.identity_token {
            Some(token) => ("", token),
            None => (&self.username, &self.password),
        }
    }

    /// Keeps it out of whatever is washed from now on.
    pub fn hide_in(&self, scrub: &mut Scrubber) {
        scrub.hide_login(&self.username, &self.password);
        if let Some(token) = &self.identity_token {
            scrub.hide_login("", token);
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// One server key of a docker config and what stands under it.
#[derive(Clone)]
pub struct Entry {
    /// As written, without a user and password that may be in it.
    key: String,
    /// What the kubelet's index has for it; `None` when it is no URL.
    index_key: Option<String>,
    username: String,
    password: Secret,
    identity_token: Option<Secret>,
}

impl Entry {
    pub fn new(
        key: &str,
        username: impl Into<String>,
        password: Secret,
        identity_token: Option<Secret>,
    ) -> Self {
        Self {
            key: mask_key(key),
            index_key: index_key(key),
            username: username.into(),
            password,
            identity_token,
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn username(&self) -> &str {
        &self.username
    }

    pub fn password(&self) -> &Secret {
        &self.password
    }

    pub fn identity_token(&self) -> Option<&Secret> {
        self.identity_token.as_ref()
    }

    /// A pull with it would go out as if there were no credential (containerd, `ParseAuth`).
    fn is_empty(&self) -> bool {
        self.identity_token.is_none() && (self.username.is_empty() || self.password.is_empty())
    }
}

impl Entry {
    /// The same without user and password; whether there are any can still be told.
    fn hollow(&self) -> Self {
        let mark = |text: &str| if text.is_empty() { "" } else { "-" };
        Self {
            key: self.key.clone(),
            index_key: self.index_key.clone(),
            username: mark(&self.username).to_owned(),
            password: Secret::new(mark(self.password.expose())),
            identity_token: self.identity_token.as_ref().map(|_| Secret::new("-")),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A source of credentials as it was read.
#[derive(Clone, Debug)]
pub struct LoadedSource {
    pub source: CredentialSource,
    pub entries: Vec<Entry>,
    pub problem: Option<SourceProblem>,
    /// What the file as a whole shows besides; [`lint`] looks at the entries.
    pub lint: Vec<Lint>,
    pub expiries: Vec<Expiry>,
}

impl LoadedSource {
    /// Its keys alone, to be matched with images later: nothing secret is in it any more. What there is
    /// to say of users and passwords ([`source_evidence`]) has to be said before.
    #[must_use]
    pub fn hollow(&self) -> Self {
        Self {
            source: self.source.clone(),
            entries: self.entries.iter().map(Entry::hollow).collect(),
            problem: self.problem.clone(),
            lint: Vec::new(),
            expiries: Vec::new(),
        }
    }

    /// Whether it has, by itself, a credential for an image ([`Reference::name`]).
    ///
    /// # Errors
    /// Each key, with the rule by which it does not match.
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

/// All sources: what was given on the command line, then one ring of Secrets, then one of docker
/// configs, as the kubelet puts the pod's Secrets before the node's own config.
#[derive(Clone, Debug)]
pub struct Keyring {
    sources: Vec<LoadedSource>,
}

impl Keyring {
    /// Sources in the order in which they were named.
    pub fn new(sources: Vec<LoadedSource>) -> Self {
        Self { sources }
    }

    /// Keeps all of it out of whatever is washed from now on.
    pub fn hide_in(&self, scrub: &mut Scrubber) {
        for (source, entry) in self.entries() {
            credential(source, entry).hide_in(scrub);
        }
    }

    /// The credentials for an image, in the order they are tried, and what there is to say of the
    /// others.
    pub fn lookup(&self, reference: &Reference) -> (Vec<Credential>, KeyringEvidence) {
        let image = reference.name();
        let mut found = Vec::new();
        let mut mismatches = Vec::new();
        for ring in [Ring::Explicit, Ring::Secrets, Ring::DockerConfigs] {
            let entries = self.entries().filter(|(s, _)| Ring::of(&s.source) == ring);
            if ring == Ring::Explicit {
                found.extend(entries.map(|(s, e)| credential(s, e)));
            } else {
                search(
                    &entries.collect::<Vec<_>>(),
                    &image,
                    &mut found,
                    &mut mismatches,
                );
            }
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

/// A server key without what may be secret in it: userinfo, and a query.
pub(crate) fn mask_key(key: &str) -> String {
    // Further on, it may stand in a path behind the user.
    let is_scheme = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = match key.find("://") {
        Some(at) if is_scheme(&key[..at]) => key.split_at(at + 3),
        _ => ("", key),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    let (rest, query) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], "?***"),
        None => (rest, ""),
    };
    printable(&format!("{scheme}{user}{rest}{query}"))
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Ring {
    /// It was given for this image, whatever its host.
    Explicit,
    Secrets,
    DockerConfigs,
}

impl Ring {
    fn of(source: &CredentialSource) -> Self {
        match source {
            CredentialSource::CommandLine | CredentialSource::PasswordFile { .. } => Self::Explicit,
            CredentialSource::SecretFile { .. } => Self::Secrets,
            CredentialSource::DockerConfig { .. }
            | CredentialSource::Helper { .. }
            | CredentialSource::NodeConfig { .. }
            // The kubelet has none of these.
            | CredentialSource::RuntimeConfig { .. }
            | CredentialSource::NodeProvider { .. } => Self::DockerConfigs,
        }
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
    // Each key once, in reverse order: the more specific path of a host comes first.
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

/// `URLsMatchStr`: the first rule by which a key does not match, `None` when it does.
fn failing_rule(key: &str, image: &str) -> Option<MatchRule> {
    // Keys are parsed once more, as the kubelet does.
    let Some(key) = parse_url(key) else {
        return Some(MatchRule::NotAUrl);
    };
    let image = parse_url(image)?;
    let (key_host, key_port) = split_host_port(&key.host).unwrap_or((&key.host, ""));
    let (image_host, image_port) = split_host_port(&image.host).unwrap_or((&image.host, ""));
    // Of a password with a '/' in it, the kubelet takes the beginning for host and port.
    let shown = |text: &str| {
        if key.path.contains('@') {
            "***".to_owned()
        } else {
            printable(text)
        }
    };
    if key_port != image_port {
        return Some(MatchRule::Port {
            key: (!key_port.is_empty()).then(|| shown(key_port)),
            image: (!image_port.is_empty()).then(|| printable(image_port)),
        });
    }
    let labels = |host: &str| host.split('.').count();
    if labels(key_host) != labels(image_host) {
        return Some(MatchRule::Labels {
            key: labels(key_host),
            image: labels(image_host),
        });
    }
    if !image.path.starts_with(&key.path) {
        return Some(MatchRule::Path {
            key: shown(&key.path),
            image: printable(&image.path),
        });
    }
    for (pattern, label) in key_host.split('.').zip(image_host.split('.')) {
        match glob(pattern, label) {
            Some(true) => {}
            Some(false) => {
                return Some(MatchRule::Host {
                    key: shown(key_host),
                    image: printable(image_host),
                });
            }
            None => {
                return Some(MatchRule::BadPattern {
                    key: shown(key_host),
                });
            }
        }
    }
    None
}

/// Whether a pattern as in `matchImages` of the kubelet's credential providers is one for an image
/// ([`Reference::name`]): the same rules, without what is made of a server key before.
pub fn pattern_matches(pattern: &str, image: &str) -> bool {
    failing_rule(pattern, image).is_none()
}

/// Why a server key, whatever the image, can't match by the kubelet's rules; `None` when some image
/// may.
pub(crate) fn never_matches(key: &str) -> Option<&'static str> {
    // Of a login on the command line.
    if key.is_empty() {
        return None;
    }
    let Some(index) = index_key(key) else {
        return Some("it is no URL");
    };
    let Some(url) = parse_url(&index).filter(|url| !url.host.is_empty()) else {
        return Some("it is no URL");
    };
    let (host, port) = split_host_port(&url.host).unwrap_or((&url.host, ""));
    if port.contains(['*', '?', '[']) {
        return Some("ports are compared as they are, without '*'");
    }
    if host.split('.').any(|label| glob(label, "").is_none()) {
        return Some("the pattern of its host is malformed");
    }
    if index.contains(char::is_whitespace) {
        return Some("no image has a blank in its name");
    }
    let path = url.path.as_str();
    if path == "/v1" || path == "/v2" {
        return Some(
            "its path is taken for a part of the image's name; '/v1/' or '/v2/' with the final slash is not",
        );
    }
    // Paths are compared with the name, which ends before tag and digest.
    if path.contains([':', '@']) {
        return Some("its path has a tag or digest, and images are compared by their name alone");
    }
    if path.contains(['*', '?', '[']) {
        return Some("patterns count in the host only, not in the path");
    }
    None
}

/// `isDefaultRegistryMatch`: Docker Hub, and every host without dot and port (`localhost/x`).
fn is_default_registry(image: &str) -> bool {
    let domain = image.split('/').next().unwrap_or_default();
    domain == "docker.io"
        || domain == HUB_INDEX
        || (!domain.is_empty() && !domain.contains(['.', ':']))
}

/// `BasicDockerKeyring.Add`: host and path, `/v1/` and `/v2/` taken for no path.
fn index_key(key: &str) -> Option<String> {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let KeyUrl { host, mut path } = parse_url(rest)?;
    if path.starts_with("/v1/") || path.starts_with("/v2/") {
        path.drain(..3);
    }
    Some(if path == "/" { host } else { host + &path })
}

struct KeyUrl {
    host: String,
    path: String,
}

/// What Go's `url.Parse` makes of `https://` and this text, as far as host and path go.
fn parse_url(text: &str) -> Option<KeyUrl> {
    let text = text.split('#').next().unwrap_or_default();
    if text.bytes().any(|b| b.is_ascii_control()) {
        return None;
    }
    let text = text.split('?').next().unwrap_or_default();
    let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
            if !user.bytes().all(allowed) {
                return None;
            }
            unescape(user)?;
            host
        }
        None => authority,
    };
    let port = if host.starts_with('[') {
        &host[host.rfind(']')? + 1..]
    } else {
        host.rfind(':').map_or("", |colon| &host[colon..])
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    let allowed = |b: u8| {
        !b.is_ascii() || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&b)
    };
    if !is_port || !host.bytes().all(allowed) {
        return None;
    }
    Some(KeyUrl {
        host: host.to_owned(),
        path: unescape(path)?,
    })
}

/// `None` for a `%` that is not followed by two hexadecimal digits.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |b: u8| char::from(b).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Go's `filepath.Match` within one label; `None` for a malformed pattern. There is no `?`, no
/// `\` and no `^` in the host of a URL.
pub(crate) fn glob(pattern: &str, text: &str) -> Option<bool> {
    let pattern = read_pattern(pattern)?;
    let text: Vec<char> = text.chars().collect();
    // reach[j]: the pattern so far matches the first j characters.
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    for part in &pattern {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match part {
                Part::Any => reach[at] || (at > 0 && next[at - 1]),
                Part::Class(ranges) => {
                    at > 0 && reach[at - 1] && ranges.iter().any(|r| r.contains(&text[at - 1]))
                }
            };
        }
        reach = next;
    }
    reach.last().copied()
}

enum Part {
    /// `*`.
    Any,
    /// One character out of `[a-z]`, or of itself alone.
    Class(Vec<std::ops::RangeInclusive<char>>),
}

fn read_pattern(pattern: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        parts.push(match c {
            '*' => Part::Any,
            '[' => {
                let mut ranges = Vec::new();
                let bound = |c: Option<char>| c.filter(|c| !matches!(c, '-' | ']'));
                loop {
                    if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
                        break;
                    }
                    let low = bound(rest.next())?;
                    let high = match rest.next_if_eq(&'-') {
                        Some(_) => bound(rest.next())?,
                        None => low,
                    };
                    ranges.push(low..=high);
                }
                Part::Class(ranges)
            }
            c => Part::Class(vec![c..=c]),
        });
    }
    Some(parts)
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

/// A source without its secrets, with what there is to say of it.
pub fn source_evidence(source: &LoadedSource) -> SourceEvidence {
    SourceEvidence {
        source: source.source.clone(),
        keys: source.entries.len(),
        server_keys: source.entries.iter().map(|e| e.key().to_owned()).collect(),
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
    }
}

/// `defaultRegistryHost`: where `https://index.docker.io/v1/` leads.
const HUB_INDEX: &str = "index.docker.io";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            source,
            entries: keys.iter().map(entry).collect(),
            lint: Vec::new(),
            expiries: Vec::new(),
            problem: None,
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
            // No dot and no port: taken for Docker Hub.
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
        source.entries[0].password = Secret::default();
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
        let mut scrub = Scrubber::new();
        keyring.hide_in(&mut scrub);
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

        /// `*` and classes mean the same to a plain recursive reader.
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
