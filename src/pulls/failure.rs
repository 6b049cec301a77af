//! Why a real pull has failed, from the words that kubelet, containerd, CRI-O and docker have for it.
//!
//! A text is less than a walk: it has one error of one host. Where it fits several causes, the one that
//! claims least comes first, and the others beside it; where it fits none, there is none.

use crate::diagnose::cause::Cause;
use crate::model::endpoint::Role;
use crate::model::reference::Reference;
use crate::model::text::clean;

use super::event::beginning;
use super::patterns::{self, Group, Match};

/// What a text tells.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Told {
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
pub fn judge(image: &str, text: &str) -> Told {
    let text = beginning(text, MOST_JUDGED).replace("\\\"", "\"");
    let registry = registry_host(image);
    // Of several credentials each has its own error: [rpc error: …, rpc error: …].
    let inner = text.trim();
    let Some(list) = inner
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return judge_one(registry.as_deref(), inner);
    };
    let mut all: Vec<Told> = list
        .split(", rpc error: ")
        .map(|one| judge_one(registry.as_deref(), one))
        .collect();
    // A credential that was refused tells more than the attempt without one that follows it.
    let first = all
        .iter()
        .position(|told| told.cause == Some(Cause::AuthBadCred))
        .or_else(|| all.iter().position(|told| told.cause.is_some()))
        .unwrap_or(0);
    let mut told = all.swap_remove(first);
    let is_credential = told.cause == Some(Cause::AuthBadCred);
    for cause in all.into_iter().filter_map(|other| other.cause) {
        if Some(cause) != told.cause && !told.or.contains(&cause) && !is_credential {
            told.or.push(cause);
        }
    }
    told
}

/// The host that a pull of this image asks first; Docker Hub's has a name of its own.
fn registry_host(image: &str) -> Option<String> {
    let (host, _) = image.parse::<Reference>().ok()?.host();
    Some(host.to_string().to_ascii_lowercase())
}

fn judge_one(registry: Option<&str>, text: &str) -> Told {
    let url = asked(text);
    let leg = leg(text, url);
    let host = url.map(authority);
    let mut told = Told {
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
        ..Told::default()
    };
    if told.host.is_none()
        && let Some(name) = after(text, &["lookup "])
    {
        told.host = Some(clean(name.trim_end_matches(':'), 255));
    }
    let Some(found) = patterns::find(text, leg, url, told.status) else {
        return told;
    };
    let Match { cause, or, group } = found;
    told.cause = Some(cause);
    told.or = or.to_vec();
    // A leg of its own has a cause of its own, where the host is not the registry's: the way there was
    // opened, and not this one.
    let is_elsewhere = host
        .map(host_name)
        .zip(registry)
        .is_some_and(|(host, registry)| !host.eq_ignore_ascii_case(registry));
    if group == Group::Connection && is_elsewhere {
        let of_leg = match leg {
            Some(Role::Token) => Some(Cause::AuthRealmUnreachable),
            // Below /v2/ it is a mirror of the registry and no storage.
            Some(Role::Blob) if !url.is_some_and(is_of_registry) => Some(Cause::RedirectBlob),
            _ => None,
        };
        if let Some(of_leg) = of_leg {
            told.cause = Some(of_leg);
            told.beneath = Some(cause);
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
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
    .trim_matches(['[', ']'])
}

/// A path of the distribution-spec.
fn is_of_registry(url: &str) -> bool {
    path(url).starts_with("/v2/")
}

pub(super) fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or_default()
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
    Some(clean(&super::scrub::shown(words), MOST_MESSAGE)).filter(|words| !words.is_empty())
}
