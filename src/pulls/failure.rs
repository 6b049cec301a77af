//! Why a real pull has failed, from the words that kubelet, containerd, CRI-O and docker have for it.
//!
//! A text is less than a walk: it has one error of one host. Where it fits several causes, the one that
//! claims least comes first, and the others beside it; where it fits none, there is none.

use crate::diagnose::catalogue::Cause;
use crate::model::endpoint::{Role, split_port};
use crate::model::reference::Reference;
use crate::model::text::clean;
use crate::redact::shown;

use super::event::beginning;
use super::patterns::{self, path};

/// What a text tells.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ParsedFailure {
    /// `None`: this version has no name for it.
    pub cause: Option<Cause>,
    /// The text fits these as well.
    pub or: Vec<Cause>,
    /// What happened to the connection, where the cause is that of a leg.
    pub beneath: Option<Cause>,
    pub leg: Option<Role>,
    /// Whom the runtime asked, with the port if it is written.
    pub host: Option<String>,
    /// What it dialled.
    pub address: Option<String>,
    /// The name server that was asked.
    pub server: Option<String>,
    pub status: Option<u16>,
    /// The server's own words.
    pub message: Option<String>,
}

/// Of a longer text the beginning is judged.
const MOST_JUDGED: usize = 8 * 1024;

/// A server's own words, as shown.
const MOST_MESSAGE: usize = 300;

/// Judges the text of a failed pull. `image` is what the pod asks for, as it is written there.
pub fn judge(image: &str, text: &str) -> ParsedFailure {
    let text = beginning(text, MOST_JUDGED).replace("\\\"", "\"");
    let registry = registry_host(image);
    // The kubelet tries each credential that matches, and tells all that became of them: [one, another].
    let inner = text.trim();
    let list = inner
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let Some(list) = list else {
        return judge_one(registry.as_deref(), inner);
    };
    let all: Vec<(&str, ParsedFailure)> = tries(list)
        .into_iter()
        .map(|one| (one, judge_one(registry.as_deref(), one)))
        .collect();
    // What hinders the pull is told by the try that came furthest: a manifest that is not there is seen by
    // a credential that was taken, and not by the stale one before it.
    // That nothing is had without a credential tells nothing where one was tried.
    let is_anonymous = |one: &str| one.contains("failed to fetch anonymous token");
    // Of several that are as far, the first.
    let furthest = |(one, told): &&(&str, ParsedFailure)| (!is_anonymous(one), progress(told));
    let Some((_, first)) = all.iter().rev().max_by_key(furthest) else {
        return ParsedFailure::default();
    };
    let mut told = first.clone();
    for (one, other) in &all {
        if let Some(cause) = other.cause
            && !is_anonymous(one)
            && Some(cause) != told.cause
            && !told.or.contains(&cause)
        {
            told.or.push(cause);
        }
    }
    told
}

/// The errors of a list. They have commas of their own, so it is parted at what an error begins with.
fn tries(list: &str) -> Vec<&str> {
    const BEGINNINGS: [&str; 8] = [
        "rpc error: ",
        "failed to pull and unpack image ",
        "failed to pull image ",
        "Error response from daemon: ",
        "initializing source ",
        "reading manifest ",
        "unable to retrieve auth token",
        "copying system image ",
    ];
    let begins = |rest: &str| BEGINNINGS.iter().any(|words| rest.starts_with(words));
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, _) in list.match_indices(", ") {
        if begins(&list[at + 2..]) {
            parts.push(&list[from..at]);
            from = at + 2;
        }
    }
    parts.push(&list[from..]);
    parts
}

/// How far the pull came before it failed.
fn progress(told: &ParsedFailure) -> u8 {
    match told.cause {
        None => 0,
        Some(_) if told.leg == Some(Role::Blob) => 6,
        Some(
            Cause::ManifestUnknown
            | Cause::ManifestUnsupported
            | Cause::ManifestInvalid
            | Cause::NameUnknown
            | Cause::NoPlatform
            | Cause::BlobUnknown
            | Cause::DigestMismatch
            | Cause::ContentEncoding
            | Cause::LayerInvalid
            | Cause::UnexpectedEof
            | Cause::DiskFull,
        ) => 5,
        // A token was given, or a name and a password taken.
        Some(Cause::AuthDenied | Cause::RateLimited) => 4,
        Some(Cause::AuthBadCred | Cause::CredentialExpired) => 3,
        Some(Cause::AuthNoCred | Cause::AuthUnknown) => 2,
        Some(_) => 1,
    }
}

/// The host that a pull of this image asks first; Docker Hub's has a name of its own.
fn registry_host(image: &str) -> Option<String> {
    let (host, _) = image.parse::<Reference>().ok()?.host();
    Some(host.to_string().to_ascii_lowercase())
}

fn judge_one(registry: Option<&str>, text: &str) -> ParsedFailure {
    let url = asked(text);
    let leg = leg(text, url);
    let host = url.map(authority);
    let mut told = ParsedFailure {
        leg,
        host: host.map(|host| clean(host, 255)),
        address: after(text, &["dial tcp ", "dial udp "])
            .map(|address| address.trim_end_matches(':'))
            .filter(|address| {
                address.starts_with(|c: char| c.is_ascii_hexdigit() || c == '[')
                    && address.contains(':')
            })
            .map(|address| clean(address, 64)),
        server: server(text),
        status: patterns::status(text),
        message: message(text),
        ..ParsedFailure::default()
    };
    if told.host.is_none()
        && let Some(name) = after(text, &["lookup "])
    {
        told.host = Some(clean(name.trim_end_matches(':'), 255));
    }
    let Some(found) = patterns::find(text, leg, url, told.status) else {
        return told;
    };
    told.cause = Some(found.cause);
    told.or = found.or.to_vec();
    // A leg of its own has a cause of its own, where the host is not the registry's: the way there was
    // opened, and not this one.
    let is_elsewhere = host
        .map(host_name)
        .zip(registry)
        .is_some_and(|(host, registry)| !host.eq_ignore_ascii_case(registry));
    if is_elsewhere {
        let of_leg = match leg {
            Some(Role::Token) => Some(Cause::AuthRealmUnreachable),
            // Below /v2/ it is a mirror of the registry and no storage.
            Some(Role::Blob) if !url.is_some_and(is_of_registry) => Some(Cause::RedirectBlob),
            _ => None,
        };
        // By the catalogue that is what follows from it: the host was not found, or not reached.
        let is_root = |root: &Cause| found.cause.entry().masked_by.contains(root);
        if let Some(of_leg) = of_leg.filter(is_root) {
            told.cause = Some(of_leg);
            told.beneath = Some(found.cause);
            told.or = Vec::new();
        }
    }
    told
}

/// The URL that was asked last: `Get "https://…"`, `HEAD request to https://…`.
fn asked(text: &str) -> Option<&str> {
    const BEFORE: [&str; 9] = [
        "Get \"",
        "Head \"",
        "Post \"",
        "Get ",
        "Head ",
        "Post ",
        "request to ",
        "status code ",
        "content at ",
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
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

fn host_name(authority: &str) -> &str {
    match split_port(authority) {
        (host, Some(port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
    .trim_matches(['[', ']'])
}

/// A path of the distribution-spec.
fn is_of_registry(url: &str) -> bool {
    path(url).starts_with("/v2/")
}

/// Which leg of the pull it was on, as far as the words around the error say.
fn leg(text: &str, url: Option<&str>) -> Option<Role> {
    const TOKEN: [&str; 7] = [
        "failed to authorize",
        "failed to fetch anonymous token",
        "failed to fetch oauth token",
        "unable to retrieve auth token",
        "equesting bearer token",
        "error getting token",
        "/token?",
    ];
    const BLOB: [&str; 7] = [
        "httpReadSeeker",
        "failed to copy",
        "/blobs/",
        "error pulling image configuration",
        "download failed after",
        "fetching blob",
        "writing blob",
    ];
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&TOKEN) {
        Some(Role::Token)
    } else if url.is_some_and(|url| path(url).contains("/manifests/")) {
        // The manifest of a platform is fetched as layers are.
        Some(Role::Registry)
    } else if has(&BLOB) {
        Some(Role::Blob)
    } else {
        url.map(|_| Role::Registry)
    }
}

/// The word behind one of these, the last time that one stands there.
fn after<'a>(text: &'a str, before: &[&str]) -> Option<&'a str> {
    let at = before
        .iter()
        .filter_map(|word| Some(text.rfind(word)? + word.len()))
        .max()?;
    text[at..].split_whitespace().next()
}

/// `lookup NAME on SERVER:`.
fn server(text: &str) -> Option<String> {
    let rest = &text[text.rfind("lookup ")? + "lookup ".len()..];
    let mut words = rest.split_whitespace();
    let server = (words.next().is_some() && words.next() == Some("on"))
        .then(|| words.next())
        .flatten()?;
    Some(clean(server.trim_end_matches(':'), 64))
}

/// What the server itself has said.
fn message(text: &str) -> Option<String> {
    const BEFORE: [&str; 2] = ["server message: ", "Server message: "];
    const ITSELF: [&str; 6] = [
        "toomanyrequests: ",
        "denied: ",
        "unauthorized: ",
        "manifest unknown: ",
        "name unknown: ",
        "error code: ",
    ];
    let behind = BEFORE
        .iter()
        .find_map(|before| Some(text.find(before)? + before.len()));
    // A file's permission is denied by no server.
    let is_said = |at: &usize| !text[..*at].ends_with("permission ");
    let itself = || {
        let places = ITSELF.iter().filter_map(|words| text.find(words));
        places.filter(is_said).min()
    };
    let words = &text[behind.or_else(itself)?..];
    Some(clean(&shown(words), MOST_MESSAGE)).filter(|words| !words.is_empty())
}
