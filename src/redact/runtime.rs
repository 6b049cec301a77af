//! Scrubs texts of container runtimes, which may contain signed queries, a user's password in a URL, or tokens.

use std::fmt::Write as _;

use crate::model::text::clean;

/// Maximum number of characters shown of a text. client-go limits an Event's message to 1 kB.
pub const MOST_SHOWN: usize = 1024;

/// Parameters of a query that only name what is requested and are no secret.
const OPEN: [&str; 3] = ["ns", "scope", "service"];

/// The text as it may be shown: URLs without user, password and signature; no tokens; no control characters; at
/// most `MOST_SHOWN` characters.
pub fn shown(text: &str) -> String {
    let text = without_tokens(&without_queries(text));
    clean(&text, MOST_SHOWN)
}

fn without_queries(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '\\' | '`'))
            .unwrap_or(after.len());
        let (url, after) = after.split_at(end);
        // After a URL without quotes, the sentence may continue.
        let trimmed = url.trim_end_matches([':', ',', '.', ';', ')', ']']);
        without_query(&mut shown, trimmed);
        shown.push_str(&url[trimmed.len()..]);
        rest = after;
    }
    shown + rest
}

fn without_query(shown: &mut String, url: &str) {
    let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
    let host = url[..authority].rfind('@').map_or(0, |at| {
        shown.push_str("***@");
        at + 1
    });
    let url = &url[host..];
    let Some((path, query)) = url.split_once('?') else {
        shown.push_str(url);
        return;
    };
    shown.push_str(path);
    for (index, pair) in query.split('&').enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((key, value)) if !OPEN.contains(&key) && !value.is_empty() => {
                let _ = write!(shown, "{key}=***");
            }
            _ => shown.push_str(pair),
        }
    }
}

/// Masks the value of an `Authorization` header, and tokens (RFC 7519: the compact form begins with `eyJ`).
fn without_tokens(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    // The next word is a secret if it has at least this many characters.
    let mut least: Option<usize> = None;
    let is_login = text.contains(" login ");
    for piece in text.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','))
    {
        let word =
            piece.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','));
        let lower = word.to_ascii_lowercase();
        // Queries of URLs are masked already.
        let is_assigned = !word.contains("://")
            && ASSIGNED
                .iter()
                .any(|key| lower.contains(key) && !lower.ends_with('='));
        let is_token = (word.contains("eyJ") && word.len() >= LEAST_TOKEN)
            || (word.len() >= LEAST_SECRET && TOKENS.iter().any(|begin| word.starts_with(begin)));
        let is_separator = matches!(word, ":" | "=");
        let is_secret = !is_separator && least.is_some_and(|least| word.len() >= least);
        if is_secret || is_token {
            shown.push_str("***");
            shown.push_str(&piece[word.len()..]);
        } else if let Some((key, _)) = word.split_once('=').filter(|_| is_assigned) {
            let _ = write!(shown, "{key}=***");
            shown.push_str(&piece[word.len()..]);
        } else {
            shown.push_str(piece);
        }
        if !word.is_empty() {
            let is_json = piece[word.len()..].starts_with('"');
            least = if matches!(lower.as_str(), "bearer" | "basic") {
                Some(LEAST_SECRET)
            } else if is_option(&lower, is_login) || (is_json && is_key(&lower)) {
                Some(1)
            } else {
                least.filter(|_| is_separator)
            };
        }
    }
    shown
}

/// Words that assign a secret.
const ASSIGNED: [&str; 9] = [
    "password=",
    "passwd=",
    "token=",
    "secret=",
    "signature=",
    "credential=",
    "sig=",
    "--creds=",
    "apikey=",
];

/// How tokens of GitHub, GitLab, Docker Hub, Artifactory, Google and AWS begin.
const TOKENS: [&str; 13] = [
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "dckr_pat_",
    "dckr_oat_",
    "AKC",
    "ya29.",
    "AKIA",
    "ASIA",
];

/// Keys of JSON that a secret follows.
fn is_key(lower: &str) -> bool {
    matches!(
        lower,
        "password"
            | "identitytoken"
            | "registrytoken"
            | "token"
            | "access_token"
            | "refresh_token"
            | "auth"
            | "secret"
            | "client_secret"
    )
}

/// Options of clients that a secret follows; `-p` is the password of a login only.
fn is_option(lower: &str, is_login: bool) -> bool {
    matches!(
        lower,
        "--password" | "--creds" | "--src-creds" | "--auth" | "password:"
    ) || (is_login && lower == "-p")
}

/// Shorter words after `Basic` or `Bearer` are prose: `Basic auth`, `bearer token`.
const LEAST_SECRET: usize = 8;

const LEAST_TOKEN: usize = 20;
