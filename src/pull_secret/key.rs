//! Server keys: how the kubelet parses them, and which images they match.
//!
//! The rules are those of kubernetes `pkg/credentialprovider/keyring.go`, quirks included: host names are compared
//! with case, `*` matches within one label, a path matches as a prefix of characters.

use crate::model::credential::MatchRule;
use crate::model::endpoint::split_host_port;
use crate::model::go_url::{self, GoUrl};
use crate::model::text::printable;

/// Masks the parts of a server key that may be secret: user information, and a query.
pub fn mask_key(key: &str) -> String {
    // Later in the text, `://` may be part of a path after the user.
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

/// The host in a key, without scheme, port and path.
pub(super) fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or(rest)
}

/// The first rule by which a key does not match an image (`URLsMatchStr`). `None`: it matches.
pub(super) fn failing_rule(key: &str, image: &str) -> Option<MatchRule> {
    // Keys are parsed a second time, as in the kubelet.
    let Some(key) = parse_url(key) else {
        return Some(MatchRule::NotAUrl);
    };
    let image = parse_url(image)?;
    let (key_host, key_port) = split_host_port(&key.host).unwrap_or((&key.host, ""));
    let (image_host, image_port) = split_host_port(&image.host).unwrap_or((&image.host, ""));
    // If a password contains '/', the kubelet takes its beginning as host and port.
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

/// Whether a pattern of `matchImages` (the kubelet's credential providers) matches an image (`Reference::name`). The
/// rules are those of server keys, without their normalization.
pub fn pattern_matches(pattern: &str, image: &str) -> bool {
    failing_rule(pattern, image).is_none()
}

/// Why a server key can't match any image by the kubelet's rules. `None`: it can.
pub fn never_matches(key: &str) -> Option<&'static str> {
    // The login of the command line has no key.
    if key.is_empty() {
        return None;
    }
    let Some(index) = index_key(key) else {
        return Some("it is not a URL");
    };
    let Some(url) = parse_url(&index).filter(|url| !url.host.is_empty()) else {
        return Some("it is not a URL");
    };
    let (host, port) = split_host_port(&url.host).unwrap_or((&url.host, ""));
    if port.contains(['*', '?', '[']) {
        return Some("ports are compared literally, so '*' has no meaning there");
    }
    if host.split('.').any(|label| glob(label, "").is_none()) {
        return Some("its host is a malformed pattern");
    }
    if index.contains(char::is_whitespace) {
        return Some("image names contain no blanks");
    }
    let path = url.path.as_str();
    if path == "/v1" || path == "/v2" {
        return Some(
            "its path counts as part of the image's name; only '/v1/' and '/v2/' with the final slash are ignored",
        );
    }
    // Paths are compared with the name, which has no tag or digest.
    if path.contains([':', '@']) {
        return Some("its path has a tag or digest, but images are compared by their name only");
    }
    if path.contains(['*', '?', '[']) {
        return Some("patterns work only in the host, not in the path");
    }
    None
}

/// `isDefaultRegistryMatch`: whether the image is on Docker Hub, or its host has neither dot nor port (`localhost/x`).
pub(super) fn is_default_registry(image: &str) -> bool {
    let domain = image.split('/').next().unwrap_or_default();
    domain == "docker.io"
        || domain == HUB_INDEX
        || (!domain.is_empty() && !domain.contains(['.', ':']))
}

/// `BasicDockerKeyring.Add`: host and path, without a leading `/v1/` or `/v2/`. `None`: the key is not a URL.
pub(super) fn index_key(key: &str) -> Option<String> {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let GoUrl { host, mut path, .. } = parse_url(rest)?;
    if path.starts_with("/v1/") || path.starts_with("/v2/") {
        path.drain(..3);
    }
    Some(if path == "/" { host } else { host + &path })
}

/// Parses a server key as the kubelet does; `None`: it is not a URL.
fn parse_url(text: &str) -> Option<GoUrl> {
    go_url::parse_url(&format!("https://{text}"), false).ok()
}

/// Go's `filepath.Match` within one label; `None`: the pattern is malformed. `?`, `\` and `^` are not supported: the
/// host of a URL can't contain them.
pub fn glob(pattern: &str, text: &str) -> Option<bool> {
    let pattern = read_pattern(pattern)?;
    let text: Vec<char> = text.chars().collect();
    // reach[j]: whether the pattern so far matches the first j characters.
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
    /// One character of a class such as `[a-z]`, or a literal one.
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

/// `defaultRegistryHost`: the index key of `https://index.docker.io/v1/`.
pub(super) const HUB_INDEX: &str = "index.docker.io";
