//! Infers why a real pull failed from the messages of the kubelet, containerd, CRI-O and docker.
//!
//! A message holds less than a check: one error from one host. If it fits several causes, the one that
//! claims least is the result and the others are alternatives; if it fits none, there is no cause.

use std::borrow::Cow;

use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::model::endpoint::Role;
use crate::model::reference::Reference;
use crate::model::text::clean;
use crate::redact::shown;

use super::event::beginning;
use super::message::{Message, authority, host_name};
use super::patterns;

/// What the text of a failed pull shows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ParsedFailure {
    /// The cause; `None` if the text matches no known message.
    pub cause: Option<Cause>,
    /// Other causes that the text fits as well, the likelier first.
    pub or: Vec<Cause>,
    /// How sure `cause` is; `None` without one.
    pub confidence: Option<Confidence>,
    /// The fault of the connection, if `cause` names the leg that failed (`auth_realm_unreachable`,
    /// `redirect_blob`).
    pub beneath: Option<Cause>,
    /// The leg that failed; `None` if the text does not show it.
    pub leg: Option<Role>,
    /// The host the runtime contacted, with the port if the text has it.
    pub host: Option<String>,
    /// The address and port the runtime dialed.
    pub address: Option<String>,
    /// The name server that was queried.
    pub server: Option<String>,
    /// The HTTP status of the response, if the text has one.
    pub status: Option<u16>,
    /// The server's own message, without secrets, at most 300 characters.
    pub message: Option<String>,
    /// Whether a credential was sent; `None` if the text does not show it.
    pub is_sent: Option<bool>,
    /// The image is that of a pod's sandbox: the runtime pulls it with the node's own credentials.
    pub is_sandbox: bool,
}

impl ParsedFailure {
    /// What shows this cause without doubt.
    pub fn certain(cause: Cause) -> Self {
        Self {
            cause: Some(cause),
            confidence: Some(Confidence::High),
            ..Self::default()
        }
    }

    /// Whether no registry is at fault: the node, its policies or the pod's own settings are.
    pub fn is_on_node(&self) -> bool {
        self.cause.is_some_and(is_on_node)
    }
}

/// Whether a cause is a fault of the node, of its policies or of the pod's own settings. A check of the network
/// would find nothing.
pub fn is_on_node(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::NodeStorage
            | Cause::RuntimeFault
            | Cause::ImagePolicy
            | Cause::ImageEncrypted
            | Cause::ShortName
            | Cause::LayerInvalid
            | Cause::DiskFull
            | Cause::KubeletQps
            | Cause::NoPull
            | Cause::ImageNameInvalid
            | Cause::SecretFormat
            | Cause::SecretUnread
    )
}

/// Bytes of a text that are parsed; the rest is ignored.
const MOST_JUDGED: usize = 8 * 1024;

/// Characters of a server's message that are kept.
const MOST_MESSAGE: usize = 300;

/// Classifies the text of a failed pull. `image` is the reference as written in the pod.
pub fn judge(image: &str, text: &str) -> ParsedFailure {
    let text = beginning(text, MOST_JUDGED).replace("\\\"", "\"");
    let mut parsed = match mirrors(&text) {
        Some((mirrors, last)) => {
            let of_mirrors = judge_text("", mirrors);
            let mut parsed = judge_text(image, last.trim());
            parsed.or.extend(of_mirrors.cause.filter(|cause| {
                parsed.cause.is_some() && parsed.cause != Some(*cause) && !parsed.or.contains(cause)
            }));
            if !parsed.or.is_empty() {
                parsed.confidence = parsed.confidence.min(Some(Confidence::Medium));
            }
            parsed
        }
        None => judge_text(image, text.trim()),
    };
    if parsed.cause.is_none() && is_absent(image, &text) {
        parsed.cause = Some(Cause::ManifestUnknown);
        parsed.or = vec![Cause::NameUnknown, Cause::BlobUnknown];
        parsed.confidence = Some(Confidence::Low);
    }
    parsed
}

/// CRI-O's errors of the mirrors, and that of the registry itself, which is the last that was tried:
/// `(Mirrors also failed: [MIRROR: …]): REGISTRY: …`.
fn mirrors(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("(Mirrors also failed: [")?;
    rest.rsplit_once("]): ")
}

/// Whether a pull ended with `not found`, and the text does not show what is missing.
fn is_absent(image: &str, text: &str) -> bool {
    // Things that are missing on the node or in the cluster.
    const OTHERS: [&str; 14] = [
        "executable",
        "command",
        "plugin",
        "snapshot",
        "container ",
        "sandbox",
        "task",
        "namespace",
        "secret",
        "configmap",
        "volume",
        "pods ",
        "process",
        "runtime ",
    ];
    let lower = text.to_ascii_lowercase();
    if OTHERS.iter().any(|words| lower.contains(words)) {
        return false;
    }
    let squashed: String = lower.chars().filter(|c| !c.is_whitespace()).collect();
    let is_of_pull =
        !image.is_empty() || squashed.contains("pull") || squashed.contains("unpackimage");
    let end = squashed.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    is_of_pull && (squashed.contains("rpcerror:code=notfound") || end.ends_with(":notfound"))
}

fn judge_text(image: &str, inner: &str) -> ParsedFailure {
    // The kubelet tries each matching credential and reports all errors: [one, another].
    let list = inner
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let Some(list) = list else {
        return judge_one(image, &without_wrappers(inner), None);
    };
    // A rejected anonymous attempt shows nothing if a credential was tried; the others had one.
    let is_anonymous = |one: &str| one.contains("failed to fetch anonymous token");
    let all: Vec<(&str, ParsedFailure)> = tries(list)
        .into_iter()
        .map(|one| {
            let is_sent = (!is_anonymous(one)).then_some(true);
            (one, judge_one(image, &without_wrappers(one), is_sent))
        })
        .collect();
    // The attempt that got furthest shows what blocks the pull: an accepted credential finds that a manifest
    // is missing, a stale one before it does not.
    // Of several that got equally far, the first.
    let furthest = |(one, parsed): &&(&str, ParsedFailure)| (!is_anonymous(one), progress(parsed));
    let Some((_, first)) = all.iter().rev().max_by_key(furthest) else {
        return ParsedFailure::default();
    };
    let mut parsed = first.clone();
    for (one, other) in &all {
        if let Some(cause) = other.cause
            && !is_anonymous(one)
            && Some(cause) != parsed.cause
            && !parsed.or.contains(&cause)
        {
            parsed.or.push(cause);
            parsed.confidence = parsed.confidence.min(Some(Confidence::Medium));
        }
    }
    parsed
}

/// The text without what programs add around each error: gRPC's codes, CRI-O's second attempt for an artifact,
/// old kubelets' guess about credentials.
fn without_wrappers(text: &str) -> Cow<'_, str> {
    let text = first_try(text);
    // docker's advice.
    let text = text
        .split_once(". If this private registry supports only HTTP")
        .map_or(text, |(error, _)| error);
    let text = text
        .split_once("; artifact err: ")
        .map_or(text, |(image, _)| image);
    let text = match text.split_once("no credentials on this request.") {
        Some((before, details)) if before.contains("image pull failed for") => details
            .trim_start()
            .trim_start_matches("details: (")
            .trim_end_matches(')'),
        _ => text,
    };
    // The code of a timeout is all that some messages have.
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, code, message)) = grpc(rest) {
        kept.push_str(before);
        if message.trim().is_empty() {
            kept.push_str(code);
        }
        rest = message;
    }
    if kept.is_empty() && rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

/// The text before `rpc error: code = CODE desc = `, the code, and the message. Blanks vary.
fn grpc(text: &str) -> Option<(&str, &str, &str)> {
    let assigned = |text: &'_ str, key: &str| -> Option<usize> {
        let rest = text.trim_start().strip_prefix(key)?.trim_start();
        Some(text.len() - rest.strip_prefix('=')?.trim_start().len())
    };
    let at = text.find("rpc error:")?;
    let rest = &text[at + "rpc error:".len()..];
    let rest = &rest[assigned(rest, "code")?..];
    let end = rest.find(char::is_whitespace).filter(|end| *end < 24)?;
    let (code, rest) = rest.split_at(end);
    Some((&text[..at], code, &rest[assigned(rest, "desc")?..]))
}

/// The first of two tries of a client: the second is over plain HTTP, or with an older protocol, and its error
/// says nothing about the registry.
fn first_try(text: &str) -> &str {
    const SECOND: [&str; 6] = [
        "; Get http://",
        "; Get \"http://",
        "; Head \"http://",
        "v1 ping attempt failed with error",
        "; Get https://",
        "; Get \"https://",
    ];
    let cut = |words: &str| {
        let (first, _) = text.split_once(words)?;
        let is_whole = first.contains("://") && first.contains(": ");
        is_whole.then_some(first)
    };
    let all = SECOND.iter().filter_map(|words| cut(words));
    all.min_by_key(|first| first.len()).unwrap_or(text)
}

/// Splits a list of errors. Errors contain commas themselves, so it is split at known beginnings of errors.
fn tries(list: &str) -> Vec<&str> {
    const BEGINNINGS: [&str; 9] = [
        "rpc error: ",
        "failed to pull and unpack image ",
        "failed to pull image ",
        "Error response from daemon: ",
        "initializing source ",
        "reading manifest ",
        "unable to retrieve auth token",
        "copying system image ",
        "unable to pull image or OCI artifact: ",
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

/// How far the pull got before it failed; higher is further.
fn progress(parsed: &ParsedFailure) -> u8 {
    match parsed.cause {
        None => 0,
        Some(_) if parsed.leg == Some(Role::Blob) => 6,
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
            | Cause::RegistryPolicy
            | Cause::ArtifactNotImage
            | Cause::NodeStorage
            | Cause::ImagePolicy
            | Cause::ImageEncrypted
            | Cause::DiskFull,
        ) => 5,
        // A token was issued, or user and password were accepted.
        Some(Cause::AuthDenied | Cause::RateLimited) => 4,
        Some(Cause::AuthBadCred | Cause::CredentialExpired) => 3,
        Some(Cause::AuthNoCred | Cause::AuthUnknown) => 2,
        Some(_) => 1,
    }
}

/// The registry host of an image; Docker Hub's differs from its domain.
fn registry_host(image: &str) -> Option<String> {
    let (host, _) = image.parse::<Reference>().ok()?.host();
    Some(host.to_string().to_ascii_lowercase())
}

fn judge_one(image: &str, text: &str, is_sent: Option<bool>) -> ParsedFailure {
    let mut message = Message::new(image, text);
    message.is_sent = message.is_sent.or(is_sent);
    let host = message.url.map(authority).filter(|host| !host.is_empty());
    let mut parsed = ParsedFailure {
        leg: message.leg,
        host: host.map(|host| clean(host, 255)),
        address: after(text, &["dial tcp ", "dial udp "])
            .map(|address| address.trim_end_matches(':'))
            .filter(|address| {
                address.starts_with(|c: char| c.is_ascii_hexdigit() || c == '[')
                    && address.contains(':')
            })
            .map(|address| clean(address, 64)),
        server: server(text),
        status: message.status,
        message: server_message(text),
        is_sent: message.is_sent,
        ..ParsedFailure::default()
    };
    if parsed.host.is_none()
        && let Some(name) = after(text, &["lookup "])
    {
        parsed.host = Some(clean(name.trim_end_matches(':'), 255));
    }
    let Some(found) = patterns::find(&message) else {
        return parsed;
    };
    parsed.cause = Some(found.cause);
    parsed.or = found.or.to_vec();
    parsed.confidence = Some(found.confidence);
    // The token service or blob storage on another host is unreachable although the registry was reached: the
    // leg has a cause of its own.
    let registry = registry_host(image).or_else(|| message.registry().map(str::to_ascii_lowercase));
    let is_elsewhere = host.map(host_name).is_some_and(|host| match registry {
        Some(registry) => !host.eq_ignore_ascii_case(&registry),
        // No registry has layers below another path.
        None => message.leg == Some(Role::Blob),
    });
    if is_elsewhere {
        let of_leg = match message.leg {
            Some(Role::Token) => Some(Cause::AuthRealmUnreachable),
            // A path below /v2/ belongs to a mirror, not to blob storage.
            Some(Role::Blob) if !message.is_of_registry() => Some(Cause::RedirectBlob),
            _ => None,
        };
        // Only if the catalogue lists the fault as a consequence: the host was not found, or not reached.
        let is_root = |root: &Cause| found.cause.entry().masked_by.contains(root);
        if let Some(of_leg) = of_leg.filter(is_root) {
            parsed.cause = Some(of_leg);
            parsed.beneath = Some(found.cause);
            parsed.or = Vec::new();
            // Whatever the fault of the connection, this leg is not reached.
            parsed.confidence = Some(Confidence::High);
        }
    }
    parsed
}

/// The word after the last occurrence of one of these.
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

/// The server's own message.
fn server_message(text: &str) -> Option<String> {
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
    // "permission denied" comes from a file system, not from a server.
    let is_from_server = |at: &usize| !text[..*at].ends_with("permission ");
    let itself = || {
        let places = ITSELF.iter().filter_map(|words| text.find(words));
        places.filter(is_from_server).min()
    };
    let words = &text[behind.or_else(itself)?..];
    Some(clean(&shown(words), MOST_MESSAGE)).filter(|words| !words.is_empty())
}
