//! Image references, read as containerd and the kubelet read them.
//!
//! Grammar and normalization: github.com/distribution/reference (`ParseDockerRef`).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::{Host, split_port};

/// A normalized image reference: `docker.io/library/nginx:latest` for `nginx`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Reference {
    /// Host and port as written, after normalization: `docker.io`, `registry.example.com:5000`.
    domain: String,
    /// The path below the domain: `library/nginx`.
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is not an image reference, and how to correct it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    /// There is no character other than white space.
    #[error("the reference is empty")]
    Empty,
    /// The mark of a tool that was to write the image there; with the text.
    #[error(
        "'{0}' is a placeholder that nothing has filled in; render the manifest with its tool first"
    )]
    Placeholder(String),
    /// White space or control characters; with the text without them.
    #[error("the reference contains white space or control characters; write '{0}'")]
    Whitespace(String),
    /// A URL was written.
    #[error("an image reference does not begin with '{scheme}'; write '{fix}'")]
    Scheme {
        /// Its scheme with `://`.
        scheme: String,
        /// The text without the scheme.
        fix: String,
    },
    /// A user or password before the host; with the text without them.
    #[error("an image reference has no user or password; write '{0}'")]
    UserInfo(String),
    /// The ID of an image without a name; with that ID.
    #[error("64 hexadecimal digits are the ID of an image, not its name; write name@sha256:{0}")]
    BareId(String),
    /// There is no repository.
    #[error(
        "'{text}' names no repository; write {}/name:tag",
        if domain.is_empty() { "registry" } else { domain }
    )]
    MissingName {
        /// The text as written.
        text: String,
        /// The registry in it; empty if there is none.
        domain: String,
    },
    /// Upper-case letters in the repository.
    #[error("the repository '{repository}' must be in lower case; write '{fix}'")]
    UpperCase {
        /// The repository as written.
        repository: String,
        /// The text in lower case.
        fix: String,
    },
    /// An underscore in the registry's host.
    #[error("the host '{0}' has an underscore, which a registry's name can't have")]
    Underscore(String),
    /// The registry's host is not valid.
    #[error(
        "'{0}' is not a registry's host: use letters, digits, '-' and '.', or an IPv6 address in brackets"
    )]
    Host(String),
    /// The registry's port is not valid.
    #[error("'{0}' is not a port")]
    Port(String),
    /// A part of the repository between slashes is not valid.
    #[error(
        "'{0}' can't be part of a repository's name: use lower-case letters and digits, joined by one '.', one or two '_', or any number of '-'"
    )]
    Component(String),
    /// The repository is longer than 255 characters; with its length.
    #[error("the repository's name has {0} characters; at most {MAX_NAME} are allowed")]
    TooLong(usize),
    /// A colon without a tag; with the text without the colon.
    #[error("there is no tag after the ':'; write '{0}'")]
    EmptyTag(String),
    /// The tag is not valid.
    #[error(
        "'{0}' is not a tag: use up to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'"
    )]
    Tag(String),
    /// The digest is not valid.
    #[error("'{0}' is not a digest; write sha256: and 64 hexadecimal digits")]
    Digest(String),
    /// The digest has the wrong length for its algorithm.
    #[error("a {algorithm} digest has {want} hexadecimal digits, this one {got}")]
    DigestLength {
        /// `sha256`, `sha384` or `sha512`.
        algorithm: String,
        /// Number of hexadecimal digits.
        got: usize,
        /// Number of hexadecimal digits of that algorithm.
        want: usize,
    },
    /// containerd does not support the digest's algorithm.
    #[error("containerd does not support the digest algorithm '{0}'; use sha256")]
    Algorithm(String),
}

impl Reference {
    /// `docker.io`, `registry.example.com:5000`: the key for credentials and `certs.d`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag as written, or `latest` if there is neither tag nor digest; `None` if there is only a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest as written; `None` if there is none.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What the manifest is requested by: the digest if there is one, else the tag.
    pub fn version(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or(DEFAULT_TAG)
    }

    /// `docker.io/library/nginx`: the name that the kubelet matches credentials against.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.repository)
    }

    /// The host that a pull connects to, and the port if the name has one. `docker.io` is served by
    /// `registry-1.docker.io` (containerd, `docker.DefaultHost`).
    pub fn host(&self) -> (Host, Option<u16>) {
        if self.domain == DOCKER_HUB {
            return (Host::Name("registry-1.docker.io".to_owned()), None);
        }
        let (host, port) = split_port(&self.domain);
        (Host::new(host), port.and_then(|p| p.parse().ok()))
    }
}

impl ReferenceError {
    /// The rule that the text breaks, without any of the text.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Empty => "the reference is empty",
            Self::Placeholder(_) => "a placeholder that nothing has filled in",
            Self::Whitespace(_) => "an image reference has no white space or control characters",
            Self::Scheme { .. } => {
                "an image reference does not begin with https:// or another scheme"
            }
            Self::UserInfo(_) => "an image reference has no user or password",
            Self::BareId(_) => {
                "64 hexadecimal digits are the ID of an image, not its name; write name@sha256:ID"
            }
            Self::MissingName { .. } => "no repository is named; write registry/name:tag",
            Self::UpperCase { .. } => "the repository must be in lower case",
            Self::Underscore(_) => "the registry's host has an underscore, which it can't have",
            Self::Host(_) => {
                "not a registry's host: use letters, digits, '-' and '.', or an IPv6 address in brackets"
            }
            Self::Port(_) => "the registry's port is not a port",
            Self::Component(_) => {
                "a part of the repository's name is invalid: use lower-case letters and digits, joined by one '.', one or two '_', or any number of '-'"
            }
            Self::TooLong(_) => "the repository's name is too long",
            Self::EmptyTag(_) => "there is no tag after the ':'",
            Self::Tag(_) => {
                "not a tag: use up to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'"
            }
            Self::Digest(_) => "not a digest; write sha256: and 64 hexadecimal digits",
            Self::DigestLength { .. } => "the digest has the wrong length for its algorithm",
            Self::Algorithm(_) => "containerd does not support the digest's algorithm; use sha256",
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        refuse_pasted(text)?;
        let (name, digest) = cut(text, '@');
        if let Some(digest) = digest {
            check_digest(digest)?;
        }
        let (domain, remainder) = split_domain(name);
        check_domain(domain)?;
        let (path, tag) = cut(remainder, ':');
        if path.is_empty() {
            return Err(ReferenceError::MissingName {
                text: text.to_owned(),
                domain: if name.contains('/') { domain } else { "" }.to_owned(),
            });
        }
        if tag == Some("") {
            return Err(ReferenceError::EmptyTag(text.replacen(
                name,
                name.trim_end_matches(':'),
                1,
            )));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase {
                repository: path.to_owned(),
                fix: {
                    let (before, after) = text.split_at(name.len() - remainder.len());
                    format!(
                        "{before}{}{}",
                        path.to_ascii_lowercase(),
                        &after[path.len()..]
                    )
                },
            });
        }
        for component in path.split('/') {
            if !is_component(component) {
                return Err(ReferenceError::Component(component.to_owned()));
            }
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        // Short names exist on Docker Hub only.
        let repository = if domain == DOCKER_HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if repository.len() > MAX_NAME {
            return Err(ReferenceError::TooLong(repository.len()));
        }
        let default = digest.is_none().then_some(DEFAULT_TAG);
        Ok(Self {
            domain: domain.to_owned(),
            repository,
            tag: tag.or(default).map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Checks for `algorithm:hex` with an algorithm that containerd supports (go-digest: sha256, sha384, sha512).
///
/// # Errors
///
/// If the form, the algorithm or the number of digits is not valid.
pub fn check_digest(digest: &str) -> Result<(), ReferenceError> {
    let wrong = || ReferenceError::Digest(digest.to_owned());
    let (algorithm, hex) = digest.split_once(':').ok_or_else(wrong)?;
    if algorithm.is_empty()
        || !algorithm
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_+.".contains(&b))
        || !is_hex(hex)
    {
        return Err(wrong());
    }
    let want = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => {
            return Err(ReferenceError::Algorithm(algorithm.to_owned()));
        }
    };
    if hex.len() == want {
        Ok(())
    } else {
        Err(ReferenceError::DigestLength {
            algorithm: algorithm.to_owned(),
            got: hex.len(),
            want,
        })
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    let both = text.split_once(at);
    both.map_or((text, None), |(before, after)| (before, Some(after)))
}

fn is_hex(text: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.bytes().all(is_digit)
}

/// Refuses common pasted texts, for which the grammar alone would give a less helpful message.
fn refuse_pasted(text: &str) -> Result<(), ReferenceError> {
    let unwanted = |c: char| c.is_whitespace() || c.is_control();
    if text.chars().all(unwanted) {
        return Err(ReferenceError::Empty);
    }
    if is_placeholder(text) {
        return Err(ReferenceError::Placeholder(without_user(text).to_owned()));
    }
    if text.contains(unwanted) {
        return Err(ReferenceError::Whitespace(
            without_user(&text.replace(unwanted, "")).to_owned(),
        ));
    }
    if let Some((scheme, rest)) = text.split_once("://")
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        return Err(ReferenceError::Scheme {
            scheme: format!("{scheme}://"),
            fix: match rest.rsplit_once('@') {
                // After a scheme, an `@` ends a user even without a path, but not before a digest.
                Some((_, host)) if !host.contains('/') && !host.starts_with("sha") => host,
                _ => without_user(rest),
            }
            .to_owned(),
        });
    }
    let fix = without_user(text);
    if fix != text {
        return Err(ReferenceError::UserInfo(fix.to_owned()));
    }
    if text.len() == 64 && is_hex(text) {
        return Err(ReferenceError::BareId(text.to_owned()));
    }
    Ok(())
}

/// Whether a tool was to replace the text or a part of it: Helm's `{{ … }}` and `<no value>`, `$(image)` of kustomize
/// and Tekton, `${IMAGE}` and `$IMAGE` of a shell, `{username}` of documents, `ko://…`. No reference can have these characters.
fn is_placeholder(text: &str) -> bool {
    let has = |start: &str, end: &str| {
        let inner = text.split_once(start);
        inner.is_some_and(|(_, rest)| rest.contains(end))
    };
    let is_name = |c: char| c.is_ascii_alphabetic() || c == '_';
    let mut dollars = text.split('$').skip(1);
    text.starts_with("ko://")
        || has("$(", ")")
        || has("<", ">")
        || has("{", "}")
        || dollars.any(|rest| rest.starts_with(is_name))
}

/// Cuts off `user:password@` before a host: it must not be repeated in a message. An `@` before a digest has no
/// `/` after it.
fn without_user(text: &str) -> &str {
    text.rmatch_indices('@')
        .map(|(at, _)| &text[at + 1..])
        .find(|after| after.contains('/'))
        .unwrap_or(text)
}

/// Splits off the registry; Docker Hub if none is written.
fn split_domain(name: &str) -> (&str, &str) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DOCKER_HUB, name);
    };
    if first == "index.docker.io" {
        return (DOCKER_HUB, rest);
    }
    if first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase) {
        return (first, rest);
    }
    (DOCKER_HUB, name)
}

fn check_domain(domain: &str) -> Result<(), ReferenceError> {
    let (host, port) = split_port(domain);
    if let Some(port) = port
        && (!port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err())
    {
        return Err(ReferenceError::Port(port.to_owned()));
    }
    let wrong = || ReferenceError::Host(host.to_owned());
    if let Some(inner) = host.strip_prefix('[') {
        // Zones and IPv4-mapped addresses are not part of the grammar.
        let inner = inner.strip_suffix(']').ok_or_else(wrong)?;
        if inner.contains('.') || inner.parse::<Ipv6Addr>().is_err() {
            return Err(wrong());
        }
        return Ok(());
    }
    if host.contains('_') {
        return Err(ReferenceError::Underscore(host.to_owned()));
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.split('.').all(is_label) {
        Ok(())
    } else {
        Err(wrong())
    }
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_word(first)
        && is_word(last)
        && bytes
            .split(|&b| is_word(b))
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|&b| b == b'-'))
}

/// `[\w][\w.-]{0,127}`.
fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

const DOCKER_HUB: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// `RepositoryNameTotalLengthMax`.
const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA: &str = "sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, shown) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("reg:5000/x:y", "reg:5000/x:y"),
            ("MyHost/x", "MyHost/x:latest"),
            ("[fd12::5]:5000/x/y", "[fd12::5]:5000/x/y:latest"),
            ("[::1]/x", "[::1]/x:latest"),
            (
                "quay.io/a/b/c-d__e.f_g---h:v1_2.3-x",
                "quay.io/a/b/c-d__e.f_g---h:v1_2.3-x",
            ),
            (
                "registry.example.com",
                "docker.io/library/registry.example.com:latest",
            ),
            ("xn--7o8h.com/myimage", "xn--7o8h.com/myimage:latest"),
        ] {
            assert_eq!(
                text.parse::<Reference>().unwrap().to_string(),
                shown,
                "{text}"
            );
        }
        let both = format!("nginx:1.27@{SHA}").parse::<Reference>().unwrap();
        assert_eq!(both.version(), SHA);
        assert_eq!(both.tag(), Some("1.27"));
        let digest = format!("nginx@{SHA}").parse::<Reference>().unwrap();
        assert_eq!(digest.tag(), None);
        assert_eq!("nginx".parse(), "nginx:latest".parse::<Reference>());
    }

    #[test]
    fn the_host_is_the_one_a_pull_dials() {
        for (text, host, port) in [
            ("nginx", "registry-1.docker.io", None),
            (
                "registry-1.docker.io/library/nginx",
                "registry-1.docker.io",
                None,
            ),
            ("Reg.Example.com:5000/x", "reg.example.com", Some(5000)),
            ("10.0.3.9:443/x", "10.0.3.9", Some(443)),
            ("[fd12::5]:5000/x", "[fd12::5]", Some(5000)),
            ("[fd12::5]/x", "[fd12::5]", None),
        ] {
            let (found, at) = text.parse::<Reference>().unwrap().host();
            assert_eq!((found.to_string().as_str(), at), (host, port), "{text}");
        }
    }

    #[test]
    fn a_wrong_reference_is_answered_with_its_fix() {
        let long = "a".repeat(256);
        let id = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";
        for (text, part) in [
            ("", "empty"),
            (" \n", "empty"),
            ("nginx\n", "write 'nginx'"),
            ("ng inx", "white space"),
            ("https://quay.io/a/b", "write 'quay.io/a/b'"),
            ("docker://nginx:1", "write 'nginx:1'"),
            ("https://me:hunter2@quay.io/a", "write 'quay.io/a'"),
            ("me:hunter2@quay.io/a", "write 'quay.io/a'"),
            ("https://me:hunter2@quay.io", "write 'quay.io'"),
            (
                "https://me:hunter2@quay.io/a@sha256:0",
                "write 'quay.io/a@sha256:0'",
            ),
            (
                "https://me:hunter2@oci://quay.io/a",
                "write 'oci://quay.io/a'",
            ),
            ("docker://a@sha256:0", "write 'a@sha256:0'"),
            (
                " me:hunter2@quay.io/a@sha256:0",
                "write 'quay.io/a@sha256:0'",
            ),
            ("Quay.io/QUAY", "write 'Quay.io/quay'"),
            ("A.B/A.B:A", "write 'A.B/a.b:A'"),
            ("Nginx", "write 'nginx'"),
            ("quay.io/Org/app:V1", "write 'quay.io/org/app:V1'"),
            ("nginx:", "write 'nginx'"),
            ("quay.io/a:", "write 'quay.io/a'"),
            ("quay.io/", "write quay.io/name:tag"),
            ("quay.io:443/", "names no repository"),
            (":1", "write registry/name:tag"),
            ("/nginx", "part of a repository"),
            ("a//b", "part of a repository"),
            ("quay.io/a/", "part of a repository"),
            ("a/b..c", "'b..c'"),
            ("a/-b", "'-b'"),
            ("a/b___c", "'b___c'"),
            ("my_reg.example.com/x", "underscore"),
            ("my_reg:5000/x", "underscore"),
            ("-reg.example.com/x", "is not a registry's host"),
            ("reg..example.com/x", "is not a registry's host"),
            ("[fd12::zz]:1/x", "is not a registry's host"),
            ("reg:port/x", "'port' is not a port"),
            ("reg:70000/x", "'70000' is not a port"),
            ("nginx:.x", "'.x' is not a tag"),
            ("nginx:a:b", "'a:b' is not a tag"),
            ("nginx@sha256:abc", "has 64 hexadecimal digits, this one 3"),
            ("nginx@sha256", "is not a digest"),
            ("nginx@sha256:XYZ", "is not a digest"),
            ("nginx@md5:00112233445566778899aabbccddeeff", "'md5'"),
            (id, "the ID of an image"),
            (long.as_str(), "at most 255"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(
            format!("nginx:{}", "t".repeat(128))
                .parse::<Reference>()
                .is_ok()
        );
        assert!(
            format!("nginx:{}", "t".repeat(129))
                .parse::<Reference>()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = text.parse::<Reference>();
        }

        #[test]
        fn text_like_a_reference_is_read_or_refused(text in "[a-zA-Z0-9:/@._\\[\\] -]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().unwrap();
                prop_assert_eq!(&again, &reference);
                let _ = reference.host();
            }
        }

        #[test]
        fn what_is_shown_reads_back_the_same(
            domain in "([a-z0-9]{1,8}\\.){1,3}[a-z]{2,4}(:[1-9][0-9]{0,3})?",
            path in "[a-z0-9]{1,6}(([._]|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,5}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        ) {
            let mut text = format!("{domain}/{path}");
            if let Some(tag) = &tag {
                text = format!("{text}:{tag}");
            }
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.domain(), domain);
            prop_assert_eq!(reference.repository(), path);
            prop_assert_eq!(reference.tag(), Some(tag.as_deref().unwrap_or("latest")));
            let json = serde_json::to_string(&reference).unwrap();
            prop_assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), reference);
        }
    }
}
