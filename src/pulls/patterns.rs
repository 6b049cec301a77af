//! Decides which cause a parsed message fits: the node's own faults first, then the connection, then a stated
//! status before the words of its body, then words.

use crate::diagnose::catalogue::Cause;
use crate::model::endpoint::Role;

use super::message::{Body, Message};
use super::words::{
    CONTENT, DECODERS, ENDS, LISTS, LOCAL, Match, PLAIN, RUNTIME, STORE, UNPACKING, VAGUE, WIRE,
};

/// The first match.
pub(super) fn find(message: &Message<'_>) -> Option<Match> {
    let own = &message.own;
    RUNTIME
        .find(own)
        .or_else(|| LOCAL.find(own))
        .or_else(|| of_store(message))
        .or_else(|| WIRE.find(own))
        .or_else(|| of_unpacking(message))
        .or_else(|| of_proxy(message))
        .or_else(|| of_stated(message))
        .or_else(|| of_words(message))
}

/// Lost content and snapshots on the node, and layers that can't be unpacked.
fn of_store(message: &Message<'_>) -> Option<Match> {
    of_entry(message).or_else(|| STORE.find(&message.own))
}

/// An entry of a layer that contradicts another, or that the store has lost: `link …/fs/a …/fs/b: no such file`.
fn of_entry(message: &Message<'_>) -> Option<Match> {
    const ENDS: [&str; 4] = [
        "not a directory",
        "file exists",
        "no such file or directory",
        "is a directory",
    ];
    let is_end = ENDS.iter().any(|words| message.own.has(words));
    (is_end && message.is_unpacking && has_entry(message.text))
        .then_some(Match::new(Cause::LayerInvalid, &[Cause::NodeStorage]))
}

/// Whether a text names a file of a layer: `…/snapshots/9/fs/FILE`, `…/containerd-mount123/FILE`.
fn has_entry(text: &str) -> bool {
    let numbered = |before: &str, after: &str| {
        text.match_indices(before).any(|(at, _)| {
            let rest = text[at + before.len()..].trim_start_matches(|c: char| c.is_ascii_digit());
            let name = rest.strip_prefix(after).unwrap_or_default();
            name.starts_with(|c: char| c.is_ascii_graphic() && !matches!(c, ':' | '"' | ','))
        })
    };
    numbered("/snapshots/", "/fs/") || numbered("/containerd-mount", "/")
}

/// Whatever fails while content is unpacked is the node's, or the layer's.
fn of_unpacking(message: &Message<'_>) -> Option<Match> {
    // The manifest's media types, which are read to find what to unpack.
    let is_of_type = [
        "unexpected media type",
        "mismatched image rootfs",
        "stream processor",
    ]
    .iter()
    .any(|words| message.own.has(words));
    if !message.is_unpacking || is_of_type {
        return None;
    }
    // A lazy snapshotter requests layers while it prepares a snapshot.
    if message.url.is_some() && message.status.is_some() {
        return None;
    }
    // A layer that is fetched while it is unpacked ends with the error of the connection.
    if message.own.has("happened during read") {
        return None;
    }
    UNPACKING
        .find(&message.own)
        .or_else(|| {
            CONTENT
                .find(&message.own)
                .filter(|found| found.cause == Cause::NoPlatform)
        })
        .or(Some(Match::new(Cause::NodeStorage, &[Cause::LayerInvalid])))
}

/// If a CONNECT fails, Go's whole error is its status text: `Get "https://…": Forbidden`.
fn of_proxy(message: &Message<'_>) -> Option<Match> {
    const REASONS: [&str; 13] = [
        "Forbidden",
        "Bad Gateway",
        "Service Unavailable",
        "Gateway Timeout",
        "Gateway Time-out",
        "Internal Server Error",
        "Bad Request",
        "Not Found",
        "Method Not Allowed",
        "Request Timeout",
        "Not Implemented",
        "HTTP Version Not Supported",
        "Unavailable For Legal Reasons",
    ];
    if message.status.is_some() {
        return None;
    }
    let (request, reason) = message.end().trim_end_matches('*').rsplit_once(": ")?;
    let is_quoted = request.ends_with('"');
    if is_quoted && REASONS.contains(&reason) {
        return Some(Match::new(Cause::ProxyMisconfigured, &[]));
    }
    // Proxies have reasons of their own. Go's errors begin with a small letter, except for the end of a connection.
    let at = ["Get ", "Head ", "Post "]
        .iter()
        .filter_map(|method| request.rfind(method))
        .max()?;
    let request = &request[at..];
    // Nothing is between the URL and the reason.
    let is_request = request.contains("http")
        && request.split_whitespace().count() <= 3
        && !request.replace(": /", ":/").contains(": ");
    let is_reason = reason.len() <= 40
        && reason.starts_with(|c: char| c.is_ascii_uppercase())
        && reason
            .bytes()
            .all(|b| b.is_ascii_alphabetic() || matches!(b, b' ' | b'-' | b'_'))
        && !["EOF", "Unauthorized"].contains(&reason);
    (is_request && is_reason).then_some(Match::new(Cause::ProxyMisconfigured, &[Cause::Fw403]))
}

// ---- a stated status ----------------------------------------------------------------------------

/// A status that the text states decides before the words of its body.
fn of_stated(message: &Message<'_>) -> Option<Match> {
    let status = message.status?;
    // The body broke off and a retry was refused: the break is the cause.
    if message.own.has("happened during read") {
        return DECODERS.find(&message.own);
    }
    let all = &message.all;
    let found = match status {
        407 => Match::new(Cause::ProxyMisconfigured, &[]),
        408 => Match::new(Cause::HttpTimeout, &[]),
        429 => Match::new(Cause::RateLimited, &[]),
        402 => Match::new(Cause::RegistryPolicy, &[]),
        412 if LISTS
            .find(all)
            .is_some_and(|found| found.cause == Cause::RegistryPolicy) =>
        {
            Match::new(Cause::RegistryPolicy, &[])
        }
        412 => Match::new(Cause::RegistryPolicy, &[Cause::RequestRefused]),
        451 => LISTS
            .find(all)
            .unwrap_or(Match::new(Cause::RegistryPolicy, &[Cause::Fw403])),
        500..=599 => return of_server_error(message),
        300..=399 => Match::new(Cause::RedirectBroken, &[]),
        // A client that tried again without TLS, as go-containerregistry does: the first error counts.
        400 if has_wrong_scheme(message) && message.all.has("x509: ") => return None,
        400 if has_wrong_scheme(message) => Match::new(Cause::HostsTomlInvalid, &[]),
        400..=404 => of_storage(message)
            .or_else(|| LISTS.find(all))
            .or_else(|| of_words_of(message, status))
            .or_else(|| of_token(message))
            .or_else(|| of_vague(message))
            .or_else(|| of_absent_content(message, status))
            .unwrap_or_else(|| of_client_error(message, status)),
        405..=499 => LISTS
            .find(all)
            .unwrap_or_else(|| of_client_error(message, status)),
        _ => return None,
    };
    Some(found)
}

/// A server's answer to plain HTTP on a port with TLS.
fn has_wrong_scheme(message: &Message<'_>) -> bool {
    let words = [
        "http request to an https server",
        "plain http request was sent to https port",
    ];
    words.iter().any(|words| message.all.has(words))
}

/// A registry that answers 5xx may name the limit or the policy in its body.
fn of_server_error(message: &Message<'_>) -> Option<Match> {
    let found = PLAIN.find(&message.all);
    found
        .filter(|found| found.cause == Cause::RateLimited)
        .map(|_| Match::new(Cause::RateLimited, &[Cause::Registry5xx]))
        .or(Some(Match::new(Cause::Registry5xx, &[])))
}

/// Words about limits and credentials, unless they say something that the status excludes.
fn of_words_of(message: &Message<'_>, status: u16) -> Option<Match> {
    let found = PLAIN.find(&message.all)?;
    // A web page in front of the registry knows nothing of its credentials.
    let is_page = matches!(message.body, Body::Page);
    let of_credentials = matches!(
        found.cause,
        Cause::AuthNoCred | Cause::AuthUnknown | Cause::AuthDenied
    );
    let excluded = is_page && of_credentials || (status == 404 && found.cause == Cause::AuthNoCred);
    (!excluded).then_some(found)
}

/// An error status of the blob storage, whatever its message.
fn of_storage(message: &Message<'_>) -> Option<Match> {
    let is_named = message.url.is_some() && !message.is_of_registry();
    // docker and CRI-O quote the storage's own document.
    let is_quoted = message.body == Body::Storage;
    if message.leg != Some(Role::Blob) || !(is_named || is_quoted) {
        return None;
    }
    // The storage compares its clock with that of the signature, which the registry makes.
    if message.all.has("requesttimetooskewed") {
        return Some(Match::new(Cause::ClockSkew, &[]));
    }
    match message.status? {
        // S3 responds 400 if a request has both a token and a signature.
        400 => Some(Match::new(Cause::BlobDenied, &[Cause::RequestRefused])),
        401 | 403 => Some(Match::new(Cause::BlobDenied, &[])),
        404 => Some(Match::new(Cause::BlobUnknown, &[])),
        _ => None,
    }
}

/// containerd reports whether it sent a credential, and which realm it could not contact.
fn of_token(message: &Message<'_>) -> Option<Match> {
    // The realm is not a URL with a host.
    const NOWHERE: [&str; 2] = ["unsupported protocol scheme", "no host in request url"];
    if message.leg != Some(Role::Token) {
        return None;
    }
    if NOWHERE.iter().any(|words| message.own.has(words)) {
        return Some(Match::new(Cause::AuthBadChallenge, &[]));
    }
    match (message.status?, message.is_sent) {
        // Registries respond the same for a repository that does not exist.
        (401, Some(false)) => Some(Match::new(Cause::AuthNoCred, &[Cause::NameUnknown])),
        (403, Some(false)) => Some(Match::new(
            Cause::AuthNoCred,
            &[Cause::NameUnknown, Cause::Fw403],
        )),
        (404, _) => Some(Match::new(
            Cause::AuthBadChallenge,
            &[Cause::RequestRefused],
        )),
        (401, Some(true)) => Some(Match::new(Cause::AuthBadCred, &[])),
        (403, Some(true)) => Some(Match::new(Cause::AuthDenied, &[Cause::AuthBadCred])),
        // docker sends a credential to its token service if it has one.
        (401, None) => Some(Match::new(Cause::AuthBadCred, &[Cause::AuthNoCred])),
        (403, None) => Some(Match::new(
            Cause::AuthDenied,
            &[Cause::AuthNoCred, Cause::Fw403],
        )),
        _ => None,
    }
}

/// What is refused alike to a client without a credential and to one without the right: what was sent decides.
fn of_vague(message: &Message<'_>) -> Option<Match> {
    // "permission denied" is about a file, not a registry.
    let is_of_file =
        message.all.has("permission denied") && !message.all.has("permission denied on");
    if is_of_file || matches!(message.body, Body::Page) {
        return None;
    }
    let found = VAGUE.find(&message.all).or_else(|| of_last_word(message))?;
    let is_of_access = matches!(found.cause, Cause::AuthNoCred | Cause::AuthDenied);
    let found = match message.is_sent {
        Some(true) if is_of_access => Match::likely(Cause::AuthDenied, &[Cause::NameUnknown]),
        Some(false) if is_of_access => Match::likely(Cause::AuthNoCred, &[Cause::NameUnknown]),
        _ => found,
    };
    Some(found)
}

/// A registry whose whole message is its code: `…: unauthorized`, `…: denied`.
fn of_last_word(message: &Message<'_>) -> Option<Match> {
    let end = message.end();
    let is_bare = message.status.is_none();
    if is_bare && (end.ends_with(": unauthorized") || end.ends_with(": Unauthorized")) {
        return Some(Match::new(
            Cause::AuthUnknown,
            &[Cause::AuthNoCred, Cause::AuthBadCred],
        ));
    }
    (end.ends_with(": denied") || end.ends_with(": access denied")).then_some(Match::new(
        Cause::AuthNoCred,
        &[Cause::AuthDenied, Cause::AuthBadCred],
    ))
}

/// Words about content that is missing, beside a status that allows them.
fn of_absent_content(message: &Message<'_>, status: u16) -> Option<Match> {
    if message.body == Body::NoRoute {
        return Some(Match::new(Cause::NotARegistry, &[]));
    }
    let found = CONTENT.find(&message.all)?;
    (status != 401 && !matches!(message.body, Body::Page)).then_some(found)
}

/// A refusal that says no more than its status.
fn of_client_error(message: &Message<'_>, status: u16) -> Match {
    let path = message.path();
    let is_page = message.body == Body::Page;
    match (status, message.leg) {
        // The registry's own blobs: refusals of the storage are matched earlier.
        (401, Some(Role::Blob)) if !path.is_empty() => {
            Match::new(Cause::AuthUnknown, &[Cause::AuthDenied, Cause::BlobDenied])
        }
        (403, Some(Role::Blob)) if is_page => Match::new(Cause::BlobDenied, &[Cause::Fw403]),
        (401 | 403, Some(Role::Blob)) => Match::new(Cause::BlobDenied, &[Cause::AuthDenied]),
        (401, _) => Match::new(Cause::AuthUnknown, &[Cause::AuthNoCred, Cause::AuthBadCred]),
        // A registry answers with a document of its own; a page is from something in front of it.
        (403, _) if is_page => Match::new(Cause::Fw403, &[Cause::AuthDenied]),
        // The response to HEAD has no body, so a registry can't be distinguished from a proxy in front of it.
        (403, _) => Match::new(Cause::AuthDenied, &[Cause::Fw403, Cause::AuthNoCred]),
        (404, Some(Role::Blob)) => Match::new(Cause::BlobUnknown, &[]),
        (404, _) if is_page => Match::new(Cause::NotARegistry, &[Cause::ManifestUnknown]),
        (404, Some(Role::Registry) | None) if path.is_empty() || path.contains("/manifests/") => {
            of_missing_manifest(message)
        }
        (404, _) => Match::new(Cause::NotARegistry, &[]),
        // A signed URL that rejects the token is reported with the registry's own URL.
        (400, Some(Role::Blob)) => Match::new(Cause::RequestRefused, &[Cause::BlobDenied]),
        _ => Match::new(Cause::RequestRefused, &[]),
    }
}

// ---- no status ----------------------------------------------------------------------------------

/// Words alone.
fn of_words(message: &Message<'_>) -> Option<Match> {
    let all = &message.all;
    LISTS
        .find(all)
        .or_else(|| PLAIN.find(all))
        .or_else(|| of_token(message))
        .or_else(|| of_vague(message))
        .or_else(|| of_size(message))
        .or_else(|| CONTENT.find(all))
        .or_else(|| of_broken_answer(message))
        .or_else(|| DECODERS.find(all))
        .or_else(|| of_absence(message))
        .or_else(|| of_silence(message))
        .or_else(|| of_deadline(message))
        .or_else(|| ENDS.find(all))
}

/// A request that a deadline ended: the text does not show in which phase.
fn of_deadline(message: &Message<'_>) -> Option<Match> {
    // containerd has no limit of its own: the deadline is that of its caller.
    let is_of_caller = message.own.has("failed to do request");
    let is_end = message.end().ends_with("\": context deadline exceeded");
    (message.url.is_some() && is_end && !is_of_caller).then_some(Match::likely(
        Cause::Deadline,
        &[Cause::HttpTimeout, Cause::TcpTimeout],
    ))
}

/// containerd: `failed size validation: RECEIVED != EXPECTED`.
fn of_size(message: &Message<'_>) -> Option<Match> {
    let (_, sizes) = message.text.split_once("failed size validation: ")?;
    let mut words = sizes.split_whitespace();
    let received: u64 = words.next()?.parse().ok()?;
    let expected = words.nth(1)?.trim_end_matches([':', ',', '"', ']']);
    let expected: u64 = expected.parse().ok()?;
    Some(if received < expected {
        Match::new(Cause::UnexpectedEof, &[Cause::DigestMismatch])
    } else {
        Match::new(
            Cause::DigestMismatch,
            &[Cause::ContentEncoding, Cause::ManifestInvalid],
        )
    })
}

/// A URL followed by `unexpected EOF`: the connection ended within the headers of an answer.
fn of_broken_answer(message: &Message<'_>) -> Option<Match> {
    let is_broken = message.end().ends_with("\": unexpected EOF");
    (is_broken && message.leg != Some(Role::Blob))
        .then_some(Match::new(Cause::TcpReset, &[Cause::TlsReset]))
}

/// A URL followed by `EOF`: no response arrived.
fn of_silence(message: &Message<'_>) -> Option<Match> {
    // The beginning of the line was not pasted.
    let is_cut = message.text.contains("/v2/") || message.text.contains("://");
    if message.url.is_none() && is_cut && message.end().ends_with("\": EOF") {
        return Some(Match::new(Cause::TcpReset, &[Cause::TlsReset]));
    }
    // Without TLS there is one connection to end.
    if message.url.is_some_and(|url| url.starts_with("http://"))
        && (message.end().ends_with(": EOF") || message.own.has("connection reset by peer"))
    {
        return Some(Match::new(Cause::TcpReset, &[]));
    }
    (message.url.is_some() && message.end().ends_with(": EOF"))
        .then_some(Match::new(Cause::TcpReset, &[Cause::TlsReset]))
}

/// containerd ends the message of a 404 with `not found`.
fn of_absence(message: &Message<'_>) -> Option<Match> {
    let text = message.text;
    if !message.end().ends_with("not found") {
        return None;
    }
    if let Some(found) = unsupported_type(text) {
        return Some(found);
    }
    let is_manifest = message.path().contains("/manifests/")
        || text.contains("/manifests/sha256:")
        || text.contains(".manifest.")
        || text.contains(".index.");
    if message.leg == Some(Role::Blob) && !is_manifest {
        return Some(Match::new(Cause::BlobUnknown, &[]));
    }
    // Things other than manifests may be missing too.
    let is_resolving = [
        "failed to resolve",
        "could not fetch content descriptor",
        "resolve source metadata",
        "reading manifest",
        "load metadata for",
    ];
    // The image's name is before `not found`.
    let is_named = message.all.has("image: not found") || message.all.has("image not found");
    (is_manifest || is_named || is_resolving.iter().any(|words| text.contains(words)))
        .then(|| of_missing_manifest(message))
}

/// A manifest that is not found. Some registries answer a login to a repository that does not exist, and 404 for
/// a tag alone.
fn of_missing_manifest(message: &Message<'_>) -> Match {
    if message.is_missing_repository_hidden {
        return Match::new(Cause::ManifestUnknown, &[]);
    }
    Match::new(Cause::ManifestUnknown, &[Cause::NameUnknown])
}

/// containerd fetches a manifest whose media type is not a manifest's as a blob, and registries have no blob
/// of that digest: `could not fetch content descriptor sha256:… (text/html) from remote: not found`.
fn unsupported_type(text: &str) -> Option<Match> {
    const OF_NO_CONTENT: [&str; 4] = [")", "text/", "application/json", "application/octet-stream"];
    let (_, descriptor) = text.split_once("could not fetch content descriptor ")?;
    let (_, kind) = descriptor.split_once('(')?;
    if kind.starts_with("text/html") {
        return Some(Match::new(
            Cause::NotARegistry,
            &[Cause::ManifestUnsupported],
        ));
    }
    OF_NO_CONTENT
        .iter()
        .any(|begins| kind.starts_with(begins))
        .then_some(Match::new(
            Cause::ManifestUnsupported,
            &[Cause::ManifestInvalid],
        ))
}
