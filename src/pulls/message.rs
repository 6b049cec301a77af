//! Parses one error message from the outside to the inside: wrappers, the requested URL, the stated HTTP status,
//! the server's own body.

use crate::model::endpoint::{Role, split_port};
use crate::model::reference::Reference;

use super::words::{UNPACK_STAGE, Words};

/// What a server sent with an error status, as far as the message shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Body {
    /// The message shows none.
    Unknown,
    Empty,
    /// A web page.
    Page,
    /// Go's `404 page not found`.
    NoRoute,
    /// An error of S3, OBS or Azure in XML.
    Storage,
    Other,
}

/// A message, parsed.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// The message itself.
    pub(super) text: &'a str,
    /// Its words without the server's body, URLs and the image's name.
    pub(super) own: Words,
    /// Its words with the body.
    pub(super) all: Words,
    /// The last requested URL.
    pub(super) url: Option<&'a str>,
    pub(super) leg: Option<Role>,
    /// The HTTP status that the text states.
    pub(super) status: Option<u16>,
    pub(super) body: Body,
    /// Whether a credential was sent; `None` if the text doesn't show it.
    pub(super) is_sent: Option<bool>,
    /// The content had arrived, and was being unpacked.
    pub(super) is_unpacking: bool,
    /// The image's registry requests a login for a repository that does not exist, and never answers 404.
    pub(super) is_missing_repository_hidden: bool,
}

impl<'a> Message<'a> {
    pub(super) fn new(image: &str, text: &'a str) -> Self {
        let url = requested_url(text);
        let (outside, body_text) = split_body(text);
        let names = Names::new(image);
        let own = Words::new(&without_names(outside, &names));
        let all = Words::new(&without_names(text, &names));
        let body = body_text.map_or(Body::Unknown, kind_of_body);
        let is_unpacking = UNPACK_STAGE.iter().any(|words| own.has(words));
        let leg = leg(&own, url);
        Self {
            text,
            url,
            leg,
            status: status(outside).or_else(|| body_text.and_then(status_of_page)),
            body,
            is_sent: is_sent(&all),
            is_unpacking,
            is_missing_repository_hidden: hides_missing_repositories(image),
            own,
            all,
        }
    }

    /// The path of the URL; empty without one.
    pub(super) fn path(&self) -> &str {
        self.url.map(path).unwrap_or_default()
    }

    /// Whether the request went to the registry itself: a path of the OCI distribution-spec.
    pub(super) fn is_of_registry(&self) -> bool {
        self.path().starts_with("/v2/")
    }

    /// The host of the first request to a registry, before that to its token service: `Get "https://…/v2/": Get …`.
    pub(super) fn registry(&self) -> Option<&str> {
        let (before, _) = self.text.split_once("/v2/")?;
        let (_, host) = before.rsplit_once("://")?;
        let is_host = !host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '"'));
        is_host.then(|| host_name(host))
    }

    /// The end of the message, without closing quotes and brackets.
    pub(super) fn end(&self) -> &str {
        self.text.trim_end_matches(|c: char| {
            c.is_whitespace() || matches!(c, ']' | '"' | '.' | ')' | '\'' | '`')
        })
    }
}

// ---- names --------------------------------------------------------------------------------------

/// The forms in which a message may name its image. Names can have any words in them.
struct Names(Vec<String>);

impl Names {
    fn new(image: &str) -> Self {
        let mut names = vec![image.to_owned()];
        if let Ok(reference) = image.parse::<Reference>() {
            let repository = reference.repository().to_owned();
            names.push(reference.to_string());
            names.push(reference.name());
            if let Some(short) = repository.strip_prefix("library/") {
                names.push(short.to_owned());
            }
            names.push(repository);
        }
        // A name of one word without a tag may be a word of the message.
        names.retain(|name| name.contains(['/', ':', '-']));
        Self(names)
    }

    fn has(&self, word: &str) -> bool {
        let word = word.trim_end_matches(':');
        let word = word.strip_prefix("docker://").unwrap_or(word);
        self.0.iter().any(|name| name == word)
    }
}

/// The text without the image's names, and without the paths of requests.
fn without_names(text: &str, names: &Names) -> String {
    let mut kept = String::with_capacity(text.len());
    let is_edge = |c: char| {
        c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '(' | ')' | '[' | ']' | '<' | '>')
    };
    for piece in text.split_inclusive(is_edge) {
        let word = piece.trim_end_matches(is_edge);
        let is_request = word.contains("://") && (word.contains("/v2/") || word.contains('?'));
        if is_request {
            kept.push_str("https://url");
            // `https://…/manifests/1:x509:`: an error without a blank before it.
            let error = word.trim_end_matches(':').rsplit_once(':');
            let error = error.filter(|(_, error)| (3..9).contains(&error.len()));
            if let Some((_, error)) = error.filter(|(_, error)| !error.contains('/')) {
                kept.push_str(": ");
                kept.push_str(error);
            }
            if word.ends_with(':') {
                kept.push(':');
            }
        } else if names.has(word) {
            kept.push_str("image");
            if word.ends_with(':') {
                kept.push(':');
            }
        } else {
            kept.push_str(word);
        }
        kept.push_str(&piece[word.len()..]);
    }
    kept
}

/// Docker Hub, GHCR, Quay and Google's registries answer 401 or 403 for a repository that does not exist.
fn hides_missing_repositories(image: &str) -> bool {
    const HOSTS: [&str; 4] = ["docker.io", "ghcr.io", "quay.io", "gcr.io"];
    image.parse::<Reference>().is_ok_and(|image| {
        let domain = image.domain();
        HOSTS.contains(&domain) || domain.ends_with(".pkg.dev") || domain.ends_with(".gcr.io")
    })
}

// ---- URLs ---------------------------------------------------------------------------------------

/// The last requested URL: `Get "https://…"`, `HEAD request to https://…`.
fn requested_url(text: &str) -> Option<&str> {
    const BEFORE: [&str; 15] = [
        "Get \"",
        "Head \"",
        "Post \"",
        "Get ",
        "Head ",
        "Post ",
        "GET ",
        "HEAD ",
        "POST ",
        "request to ",
        "status code ",
        "content at ",
        "from ",
        "registry ",
        "to \"",
    ];
    let places = text
        .match_indices("http://")
        .chain(text.match_indices("https://"))
        .map(|(at, _)| at)
        .filter(|at| BEFORE.iter().any(|before| text[..*at].ends_with(before)));
    let url = &text[places.max()?..];
    let end = url
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\\'))
        .unwrap_or(url.len());
    Some(url[..end].trim_end_matches([':', ',']))
}

/// Host and port of a URL.
pub(super) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

/// A host without its port and brackets.
pub(super) fn host_name(authority: &str) -> &str {
    match split_port(authority) {
        (host, Some(port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
    .trim_matches(['[', ']'])
}

/// The path of a URL.
pub(super) fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or_default()
}

/// Whether a URL is that of a token service: it has the parameters of one, or one of the usual paths.
fn is_of_token(url: &str) -> bool {
    const PATHS: [&str; 9] = [
        "/token",
        "/auth",
        "/jwt/auth",
        "/service/token",
        "/v2/token",
        "/v2/auth",
        "/oauth2/token",
        "/oauth2/exchange",
        "/api/docker/null/v2/token",
    ];
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let is_parameter = |pair: &str| pair.starts_with("service=") || pair.starts_with("scope=");
    query.split('&').any(is_parameter) || PATHS.contains(&path(url).trim_end_matches('/'))
}

/// The leg that failed, as far as the words around the error show it.
fn leg(words: &Words, url: Option<&str>) -> Option<Role> {
    const TOKEN: [&str; 8] = [
        "failed to authorize",
        "failed to fetch anonymous token",
        "failed to fetch oauth token",
        "unable to retrieve auth token",
        "requesting bearer token",
        "error getting token",
        "error requesting bearer token",
        "failed to get token",
    ];
    const BLOB: [&str; 9] = [
        "httpreadseeker",
        "failed to copy",
        "error pulling image configuration",
        "download failed after",
        "fetching blob",
        "writing blob",
        "reading blob",
        "copying config",
        "parsing image configuration",
    ];
    let has = |all: &[&str]| all.iter().any(|word| words.has(word));
    if has(&TOKEN) || url.is_some_and(is_of_token) {
        return Some(Role::Token);
    }
    match url.map(path) {
        // containerd fetches a platform's manifest the way it fetches layers.
        Some(path) if path.contains("/manifests/") => Some(Role::Registry),
        Some(path) if path.contains("/blobs/") => Some(Role::Blob),
        _ if has(&BLOB) => Some(Role::Blob),
        path => path.map(|_| Role::Registry),
    }
}

// ---- status and body ----------------------------------------------------------------------------

/// The server's body, if the text quotes it, and the text before it. docker and containers/image quote it
/// after the error of their decoder: `error parsing HTTP 403 response body: …: "<html>…"`,
/// `StatusCode: 403, "<html>…"`.
fn split_body(text: &str) -> (&str, Option<&str>) {
    if let Some(at) = text.find("response body: ") {
        let rest = &text[at + "response body: ".len()..];
        let begins = rest.find(": \"").map(|at| at + 2);
        if let Some(begins) = begins {
            let at = text.len() - rest.len() + begins;
            return (&text[..at], Some(text[at..].trim()));
        }
    }
    if let Some(at) = text.find("StatusCode: ") {
        let rest = &text[at..];
        if let Some(begins) = rest.find(", ").filter(|begins| *begins < 20) {
            let at = at + begins + 2;
            return (&text[..at], Some(text[at..].trim()));
        }
    }
    match text.find("looking for beginning of value: \"") {
        Some(at) => {
            let at = at + "looking for beginning of value: ".len();
            (&text[..at], Some(text[at..].trim()))
        }
        None => (text, None),
    }
}

fn kind_of_body(body: &str) -> Body {
    let body = body.trim_start_matches('"').to_ascii_lowercase();
    let body = body
        .trim_start_matches("\\n")
        .trim_start_matches("\\r\\n")
        .trim_start();
    let begins = |all: &[&str]| all.iter().any(|begin| body.starts_with(begin));
    if body.trim_matches('"').trim().is_empty() {
        Body::Empty
    } else if begins(&["<?xml", "\u{feff}<?xml", "<error>"]) && !body.contains("<html") {
        Body::Storage
    } else if begins(&["<!doctype", "<html", "<head", "<body", "<"]) || body.contains("<html") {
        Body::Page
    } else if begins(&["404 page not found"]) {
        Body::NoRoute
    } else {
        Body::Other
    }
}

/// The status in the title or heading of a page: `<title>502 Bad Gateway</title>`.
fn status_of_page(body: &str) -> Option<u16> {
    let lower = body.to_ascii_lowercase();
    ["<title>", "<h1>", "<center><h1>"].iter().find_map(|tag| {
        let rest = &lower[lower.find(tag)? + tag.len()..];
        let rest = rest
            .trim_start()
            .trim_start_matches("error ")
            .trim_start_matches("http ");
        let digits = rest.get(..3)?;
        let is_whole = !rest[3..].starts_with(|c: char| c.is_ascii_digit());
        digits
            .parse()
            .ok()
            .filter(|status| is_whole && (400..=599).contains(status))
    })
}

/// The HTTP status in a text: `: 403 Forbidden`, `StatusCode: 404`, `registry 502 (Bad Gateway)`.
fn status(text: &str) -> Option<u16> {
    const BEFORE: [&str; 8] = [
        ":",
        "registry",
        "http",
        "code",
        "status",
        "statuscode:",
        "http/1.1",
        "http/2.0",
    ];
    const BEHIND: [&str; 27] = [
        "unauthorized",
        "forbidden",
        "not",
        "too",
        "internal",
        "bad",
        "(bad",
        "(internal",
        "(service",
        "(not",
        "(forbidden",
        "(unauthorized",
        "(too",
        "service",
        "gateway",
        "method",
        "proxy",
        "payment",
        "request",
        "gone",
        "precondition",
        "conflict",
        "(gateway",
        "range",
        "unprocessable",
        "requested",
        "unavailable",
    ];
    const OF_REDIRECTS: [&str; 6] = [
        "multiple",
        "moved",
        "found",
        "see",
        "temporary",
        "permanent",
    ];
    let lower = text.to_ascii_lowercase();
    let mut before = "";
    let mut words = lower.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let assigned = ["statuscode=", "status=", "statuscode:", "code=", "status:"]
            .iter()
            .find_map(|key| word.strip_prefix(key));
        let digits = assigned.unwrap_or(word);
        let digits = digits.trim_matches([',', ':', ';', '.', '(', ')', '"']);
        let is_status = digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit());
        let is_behind = assigned.is_some() || BEFORE.iter().any(|end| before.ends_with(end));
        let next = words.peek().copied().unwrap_or_default();
        let is_before = |reasons: &[&str]| reasons.iter().any(|reason| next.starts_with(reason));
        let status = digits.parse().ok().filter(|status| match status {
            300..=399 => is_before(&OF_REDIRECTS),
            // `failed size validation: 512 != 448` has no status.
            400..=599 => is_before(&BEHIND) || (is_behind && next != "!="),
            _ => false,
        });
        // `(HTTP code 500) server error` is the answer of docker's own daemon.
        let is_of_daemon = word.ends_with(')') && before == "code";
        if is_status && status.is_some() && !is_of_daemon {
            return status;
        }
        before = word;
    }
    None
}

/// Whether the text shows that a credential was sent, or that none was.
fn is_sent(words: &Words) -> Option<bool> {
    const NONE: [&str; 6] = [
        "failed to fetch anonymous token",
        "unauthenticated request",
        "no basic auth credentials",
        "anonymous caller",
        "anonymous access",
        "credentials not found",
    ];
    const SENT: [&str; 6] = [
        "failed to fetch oauth token",
        "invalid username/password",
        "user: arn:",
        "permission_denied",
        "does not match expected scopes",
        "token has expired",
    ];
    let has = |all: &[&str]| all.iter().any(|word| words.has(word));
    if has(&NONE) {
        Some(false)
    } else {
        has(&SENT).then_some(true)
    }
}
