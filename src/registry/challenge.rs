//! The authentication that a registry requires (`WWW-Authenticate`), and the servers that no credential may be sent to.

use std::fmt;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use ipnet::IpNet;
use url::Url;

use crate::model::endpoint::{Endpoint, Host, Scheme};
use crate::model::evidence::Challenge;
use crate::model::fault::Distrust;
use crate::model::special::{self, Special};
use crate::redact::Scrubber;

/// How a registry wants requests to be authenticated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// It sent no challenge.
    Anonymous,
    /// HTTP Basic (RFC 7617).
    Basic {
        /// As sent, with unprintable characters and secrets removed; `None` if the challenge has none.
        realm: Option<String>,
    },
    /// A token service issues the token (RFC 6750).
    Bearer(Box<Bearer>),
    /// A challenge that a pull client can't follow.
    Unusable {
        /// Why, in words.
        reason: String,
        /// containerd stores the realm anyway: from then on each request to that host fails before it is sent, because
        /// there is no token.
        is_kept: bool,
    },
}

/// A challenge that names a token service (distribution token spec).
#[derive(Clone, Eq, PartialEq)]
pub struct Bearer {
    /// As sent, with path and query.
    pub realm: Url,
    /// As sent: the token request repeats it.
    pub service: Option<String>,
    /// As sent.
    pub scope: Option<String>,
    /// Why the token in the request was rejected (RFC 6750, 3.1).
    pub error: Option<String>,
    /// The same for output.
    shown: Challenge,
}

impl fmt::Debug for Bearer {
    /// Only what may be shown: the realm's query, or a user in the URL, may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.fmt(f)
    }
}

impl Wanted {
    /// The challenge as evidence: without path, query and userinfo of the realm, and with secrets removed.
    pub fn evidence(&self) -> Challenge {
        match self {
            Self::Anonymous => Challenge::Anonymous,
            Self::Basic { realm } => Challenge::Basic {
                realm: realm.clone(),
            },
            Self::Bearer(bearer) => bearer.shown.clone(),
            Self::Unusable { reason, .. } => Challenge::Unusable {
                reason: reason.clone(),
            },
        }
    }
}

/// Parses the challenges of a response as containerd does (`core/remotes/docker/auth/parse.go`): one of each field
/// line, Bearer before Basic, others ignored. The syntax of RFC 9110, 11.6.1 is applied leniently: a parameter that
/// can't be parsed ends the challenge without an error.
pub fn wanted(headers: &HeaderMap, scrub: &Scrubber) -> Wanted {
    let challenges: Vec<Raw> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .map(|line| read_line(line.as_bytes()))
        .collect();
    if challenges.is_empty() {
        return Wanted::Anonymous;
    }
    if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
        return read_bearer(bearer, scrub);
    }
    if let Some(basic) = challenges.iter().find(|c| c.scheme == "basic") {
        return Wanted::Basic {
            realm: basic.param("realm").map(|r| scrub.clean(r)),
        };
    }
    let schemes: Vec<&str> = challenges.iter().map(|c| c.scheme.as_str()).collect();
    Wanted::Unusable {
        reason: scrub.clean(&format!(
            "the registry requires '{}' authentication, but pull clients support only Bearer and Basic",
            schemes.join(", ")
        )),
        is_kept: false,
    }
}

/// Why no client should follow a realm or a redirect that `found_at` named. A plain http realm named over https would
/// receive a password in clear text. `prefixes`: those of this network's NAT64.
pub fn distrust(url: &Url, found_at: &Endpoint, prefixes: &[IpNet]) -> Option<Distrust> {
    let Some(to) = Endpoint::of(url) else {
        return Some(Distrust::NotAServer);
    };
    let by_host = match &to.host {
        Host::Address(address) => distrust_from(*address, found_at, prefixes),
        Host::Name(name) => {
            (is_localhost(name) && !on_loopback(found_at)).then_some(Distrust::Loopback)
        }
    };
    by_host.or_else(|| {
        (found_at.scheme == Scheme::Https && to.scheme == Scheme::Http)
            .then_some(Distrust::PlainHttp)
    })
}

/// The same for an address that the host of a realm or redirect resolved to, named by a server that was reached at
/// `found_from`: a name can lead to a metadata service just as an address can.
pub fn distrust_address(
    address: IpAddr,
    found_from: IpAddr,
    prefixes: &[IpNet],
) -> Option<Distrust> {
    let kind = class(address, prefixes)?;
    // A server may name itself and others of its class.
    (kind == Distrust::NotAServer || class(found_from, prefixes) != Some(kind)).then_some(kind)
}

fn distrust_from(address: IpAddr, found_at: &Endpoint, prefixes: &[IpNet]) -> Option<Distrust> {
    if on_loopback(found_at) && class(address, prefixes) == Some(Distrust::Loopback) {
        return None;
    }
    match found_at.host {
        Host::Address(found_from) => distrust_address(address, found_from, prefixes),
        Host::Name(_) => class(address, prefixes),
    }
}

/// Why no client is sent to an address, if it is a special one.
fn class(address: IpAddr, prefixes: &[IpNet]) -> Option<Distrust> {
    special::of(address, prefixes).map(|special| match special {
        Special::Unspecified => Distrust::NotAServer,
        Special::Loopback => Distrust::Loopback,
        Special::LinkLocal => Distrust::LinkLocal,
    })
}

fn on_loopback(endpoint: &Endpoint) -> bool {
    match &endpoint.host {
        Host::Address(address) => address.to_canonical().is_loopback(),
        Host::Name(name) => is_localhost(name),
    }
}

/// A name that means loopback (RFC 6761, 6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

fn read_bearer(challenge: &Raw, scrub: &Scrubber) -> Wanted {
    let unusable = |reason: &str, is_kept| Wanted::Unusable {
        reason: scrub.clean(reason),
        is_kept,
    };
    let Some(realm) = challenge.param("realm").filter(|r| !r.is_empty()) else {
        return unusable(
            "the registry requires a Bearer token, but its challenge has no realm to request one from",
            challenge.param("realm").is_some(),
        );
    };
    let url = Url::parse(realm);
    // Go rejects text that is not a URL at once; a path, another scheme or a missing host only at the request.
    let is_kept = matches!(
        url,
        Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase | url::ParseError::EmptyHost)
    );
    let Some((realm, endpoint)) = url
        .ok()
        .and_then(|url| Endpoint::of(&url).map(|e| (url, e)))
    else {
        // The realm's text is not shown: it may contain a user.
        return unusable(
            "the realm of the Bearer challenge is not an http or https URL",
            is_kept,
        );
    };
    let service = challenge.param("service");
    let scope = challenge.param("scope");
    Wanted::Bearer(Box::new(Bearer {
        shown: Challenge::Bearer {
            realm: endpoint,
            service: service.map(|s| scrub.clean(s)),
            scope: scope.map(|s| scrub.clean(s)),
        },
        realm,
        service: service.map(str::to_owned),
        scope: scope.map(str::to_owned),
        error: challenge
            .param("error")
            .filter(|error| !error.is_empty())
            .map(str::to_owned),
    }))
}

/// One challenge, with its names in lower case.
#[derive(Debug, Default, Eq, PartialEq)]
struct Raw {
    scheme: String,
    params: Vec<(String, String)>,
}

impl Raw {
    /// If a name occurs twice, the last value counts, as in a Go map.
    fn param(&self, name: &str) -> Option<&str> {
        let mut params = self.params.iter().rev();
        params.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

fn read_line(line: &[u8]) -> Raw {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (scheme, mut rest) = token(line);
    let mut challenge = Raw {
        scheme: text(scheme).to_ascii_lowercase(),
        params: Vec::new(),
    };
    if scheme.is_empty() {
        return challenge;
    }
    loop {
        let (name, after) = token(rest.trim_ascii_start());
        let Some(after) = after.strip_prefix(b"=").filter(|_| !name.is_empty()) else {
            return challenge;
        };
        let (value, after) = token_or_quoted(after);
        let name = text(name).to_ascii_lowercase();
        challenge.params.push((name, text(&value)));
        match after.trim_ascii_start().strip_prefix(b",") {
            Some(after) => rest = after,
            None => return challenge,
        }
    }
}

/// Splits off a token (RFC 9110, 5.6.2).
fn token(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes
        .iter()
        .position(|&b| !b.is_ascii_graphic() || b"\"(),/:;<=>?@[]\\{}".contains(&b))
        .unwrap_or(bytes.len());
    bytes.split_at(end)
}

/// Splits off a token or a quoted string (RFC 9110, 5.6.4). A string without an end is empty and consumes the whole
/// line.
fn token_or_quoted(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let (value, rest) = token(bytes);
        return (value.to_vec(), rest);
    };
    let mut value = Vec::new();
    let mut at = 0;
    while let Some(&byte) = quoted.get(at) {
        match byte {
            b'"' => return (value, &quoted[at + 1..]),
            b'\\' => {
                at += 1;
                value.extend(quoted.get(at));
            }
            _ => value.push(byte),
        }
        at += 1;
    }
    (Vec::new(), b"")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::redact::Secret;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                WWW_AUTHENTICATE,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        headers
    }

    fn of(lines: &[&str]) -> Wanted {
        wanted(&headers(lines), &Scrubber::default())
    }

    fn bearer(lines: &[&str]) -> (String, Option<String>, Option<String>) {
        match of(lines) {
            Wanted::Bearer(b) => (b.realm.to_string(), b.service, b.scope),
            other => panic!("{lines:?}: {other:?}"),
        }
    }

    #[test]
    fn challenges_are_read_as_containerd_reads_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        assert_eq!(
            bearer(&[hub]),
            (
                "https://auth.docker.io/token".into(),
                Some("registry.docker.io".into()),
                None
            )
        );
        assert_eq!(
            bearer(&[
                r#"Basic realm="x""#,
                r#"BEARER Realm="https://a/t?x=1", scope="a b\"c""#
            ]),
            ("https://a/t?x=1".into(), None, Some("a b\"c".into()))
        );
        // Only the first challenge of a field line counts, and the rest after an error is dropped.
        assert_eq!(
            of(&[r#"Basic realm="x", Bearer realm="https://a/t""#]),
            Wanted::Basic {
                realm: Some("x".into())
            }
        );
        assert_eq!(
            bearer(&[r#"Bearer realm="https://a/t" service="s""#]),
            ("https://a/t".into(), None, None)
        );
        assert_eq!(of(&["Basic"]), Wanted::Basic { realm: None });
        assert_eq!(of(&[]), Wanted::Anonymous);
    }

    #[test]
    fn a_challenge_that_leads_nowhere_says_why() {
        for (line, part, keeps) in [
            ("Negotiate", "requires 'negotiate'", false),
            ("Digest realm=\"x\", nonce=\"y\"", "'digest'", false),
            ("", "requires ''", false),
            ("Bearer", "has no realm", false),
            ("Bearer realm=\"\"", "has no realm", true),
            ("Bearer realm=\"https://a/t", "has no realm", true),
            ("Bearer realm=\"/token\"", "not an http or https URL", true),
            (
                "Bearer realm=\"ftp://a/token\"",
                "not an http or https URL",
                true,
            ),
            (
                "Bearer realm=https://a/token",
                "not an http or https URL",
                true,
            ),
            (
                "Bearer realm=\"https://[a/token\"",
                "not an http or https URL",
                false,
            ),
        ] {
            match of(&[line]) {
                Wanted::Unusable { reason, is_kept } => {
                    assert!(reason.contains(part), "{line}: {reason}");
                    assert_eq!(is_kept, keeps, "{line}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn evidence_has_neither_path_nor_user_nor_secret() {
        let scrub = Scrubber::default();
        scrub.hide(&Secret::new("hunter2"));
        let line =
            r#"Bearer realm="https://u:hunter2@a.example.com/t?sig=hunter2",service="hunter2""#;
        let wanted = wanted(&headers(&[line]), &scrub);
        let evidence = format!("{wanted:?} {:?}", wanted.evidence());
        assert!(
            evidence.contains("a.example.com") && !evidence.contains("hunter2"),
            "{evidence}"
        );
    }

    #[test]
    fn places_that_no_registry_may_send_a_client_to() {
        let at = |url: &str| Endpoint::of(&Url::parse(url).unwrap()).unwrap();
        let public = "https://registry.example.com/";
        for (url, from, reason) in [
            ("https://auth.example.com/", public, None),
            ("https://10.0.0.7/", public, None),
            (
                "http://auth.example.com/",
                public,
                Some(Distrust::PlainHttp),
            ),
            ("http://auth.example.com/", "http://10.0.0.7:5000/", None),
            (
                "ftp://auth.example.com/",
                public,
                Some(Distrust::NotAServer),
            ),
            ("https://0.0.0.0/", public, Some(Distrust::NotAServer)),
            ("https://[::]/", public, Some(Distrust::NotAServer)),
            ("http://169.254.169.254/", public, Some(Distrust::LinkLocal)),
            ("http://2852039166/", public, Some(Distrust::LinkLocal)),
            (
                "https://[::ffff:169.254.169.254]/",
                public,
                Some(Distrust::LinkLocal),
            ),
            ("https://[fe80::1]/", public, Some(Distrust::LinkLocal)),
            (
                "https://[fd00:ec2::254]/",
                public,
                Some(Distrust::LinkLocal),
            ),
            (
                "https://100.100.100.200/",
                public,
                Some(Distrust::LinkLocal),
            ),
            (
                "https://[64:ff9b::a9fe:a9fe]/",
                public,
                Some(Distrust::LinkLocal),
            ),
            (
                "https://[2002:a9fe:a9fe::]/",
                public,
                Some(Distrust::LinkLocal),
            ),
            (
                "https://[::169.254.169.254]/",
                public,
                Some(Distrust::LinkLocal),
            ),
            (
                "https://[64:ff9b::7f00:1]/",
                public,
                Some(Distrust::Loopback),
            ),
            ("https://169.254.1.1/", "https://169.254.1.1/", None),
            ("https://127.0.0.1/", public, Some(Distrust::Loopback)),
            ("https://localhost/", public, Some(Distrust::Loopback)),
            ("https://x.localhost./", public, Some(Distrust::Loopback)),
            (
                "https://[::1]/",
                "https://10.0.0.7/",
                Some(Distrust::Loopback),
            ),
            ("http://127.0.0.2:5001/", "http://localhost:5000/", None),
            ("http://localhost:5001/", "http://127.0.0.1:5000/", None),
            (
                "http://169.254.169.254/",
                "http://127.0.0.1:5000/",
                Some(Distrust::LinkLocal),
            ),
        ] {
            assert_eq!(
                distrust(&Url::parse(url).unwrap(), &at(from), &[]),
                reason,
                "{url} from {from}"
            );
        }
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            distrust_address(ip("127.0.0.1"), ip("203.0.113.9"), &[]),
            Some(Distrust::Loopback)
        );
        assert_eq!(
            distrust_address(ip("127.0.0.1"), ip("127.0.0.3"), &[]),
            None
        );
        assert_eq!(
            distrust_address(ip("10.0.0.1"), ip("203.0.113.9"), &[]),
            None
        );
    }

    proptest! {
        #[test]
        fn any_header_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.append(WWW_AUTHENTICATE, value);
                let _ = wanted(&headers, &Scrubber::default()).evidence();
            }
        }

        /// A well-formed field (RFC 9110) has the same meaning for a strict parser.
        #[test]
        fn a_strict_reader_agrees(
            scheme in "(Bearer|Basic|Digest)",
            params in proptest::collection::vec(("[a-z]{1,8}", "[ !#-\\[\\]-~]{0,20}"), 1..5),
        ) {
            let list: Vec<String> = params.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
            let line = format!("{scheme} {}", list.join(", "));
            let strict = http_auth::parse_challenges(&line).unwrap();
            let strict: Vec<(String, String)> = strict[0]
                .params
                .iter()
                .map(|(n, v)| ((*n).to_owned(), v.to_unescaped()))
                .collect();
            prop_assert_eq!(read_line(line.as_bytes()).params, strict);
        }
    }
}
