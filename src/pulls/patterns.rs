//! The messages that are matched, in order: the more specific come first.
//!
//! They are those of Go's net, net/http, crypto/tls and crypto/x509 (1.17 and later), containerd 1.6 to 2.x,
//! containers/image (CRI-O), and docker. `tests/data/pulls.yaml` has them as found in the field.

use crate::diagnose::catalogue::Cause;
use crate::model::endpoint::Role;

/// The causes that a text fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    pub(super) cause: Cause,
    /// Alternatives.
    pub(super) or: &'static [Cause],
}

struct Rule {
    /// The text contains all of them.
    words: &'static [&'static str],
    found: Match,
}

macro_rules! rules {
    ($([$($word:literal),+] $cause:ident $(or $($other:ident),+)?;)*) => {
        &[$(Rule {
            words: &[$($word),+],
            found: Match {
                cause: Cause::$cause,
                or: &[$($(Cause::$other),+)?],
            },
        }),*]
    };
}

/// Faults of the node itself. Matched first, since they name files, sockets and limits, not hosts.
const LOCAL: &[Rule] = rules! {
    ["pull QPS exceeded"] KubeletQps;
    ["no space left on device"] DiskFull;
    ["disk quota exceeded"] DiskFull;
    ["invalid reference format"] ImageNameInvalid;
    ["couldn't parse image"] ImageNameInvalid;
    ["unable to read CA cert"] HostsTomlInvalid;
    ["unable to load CA cert"] HostsTomlInvalid;
    ["failed to load X509 key pair"] HostsTomlInvalid;
    ["unable to read CERT file"] HostsTomlInvalid;
    ["get registry endpoints: "] HostsTomlInvalid;
    ["get TLSConfig for registry "] HostsTomlInvalid;
    ["http: no Host in request URL"] HostsTomlInvalid;
    ["net/http: invalid header field "] HostsTomlInvalid;
    // The kubelet's own message about a Secret: no request was sent.
    ["unable to parse auth field"] SecretFormat;
    ["illegal base64 data at input byte"] SecretFormat;
};

/// Names, connections, TLS and HTTP, as Go reports them; and proxies.
const WIRE: &[Rule] = rules! {
    ["proxyconnect tcp"] ProxyMisconfigured;
    ["Proxy Authentication Required"] ProxyMisconfigured;
    ["socks connect"] ProxyMisconfigured;
    // Go reports the same for a name without addresses.
    ["lookup ", "no such host"] DnsNxdomain or DnsNodata;
    ["lookup ", "server misbehaving"] DnsError or DnsServfail, DnsRefused;
    ["lookup ", "cannot unmarshal DNS message"] DnsError;
    ["lookup ", "connection refused"] DnsServerUnreachable;
    ["lookup ", "network is unreachable"] DnsServerUnreachable;
    ["lookup ", "no route to host"] DnsServerUnreachable;
    ["lookup ", "i/o timeout"] DnsTimeout;
    ["lookup ", "context deadline exceeded"] DnsTimeout;
    // The C library's resolver: no answer, or SERVFAIL.
    ["lookup ", "Temporary failure in name resolution"] DnsTimeout or DnsServfail, DnsServerUnreachable;
    ["lookup ", "Name or service not known"] DnsNxdomain or DnsNodata;
    ["connect: connection refused"] TcpRefused;
    ["actively refused it"] TcpRefused;
    ["connect: network is unreachable"] NetUnreachable or NetUnreachV6;
    ["connect: no route to host"] HostUnreachable or TcpProhibited;
    ["connect: operation not permitted"] LocalPolicy;
    ["connect: permission denied"] LocalPolicy or TcpProhibited;
    ["connect: cannot assign requested address"] NoLocalAddress;
    ["connect: connection timed out"] TcpTimeout;
    ["dial tcp", "i/o timeout"] TcpTimeout;
    ["connectex: A connection attempt failed"] TcpTimeout;
    // The name, the connection or TLS took the time; Go does not report which.
    ["request canceled while waiting for connection"] TcpTimeout or DnsTimeout, TlsHang;
    ["TLS handshake timeout"] TlsHang or MtuBlackhole;
    ["server gave HTTP response to HTTPS client"] TlsPlainHttp;
    ["first record does not look like a TLS handshake"] TlsNotTls;
    ["parent certificate cannot sign this kind of certificate"] TlsCaUnfit;
    ["x509: too many intermediates for path length constraint"] TlsCaUnfit;
    ["x509: a root or intermediate certificate is not authorized to sign for this name"] TlsCaUnfit;
    ["x509: certificate is valid for ingress.local"] TlsDefaultCertificate;
    [".traefik.default, not "] TlsDefaultCertificate;
    ["x509: certificate signed by unknown authority"] TlsUnknownCa;
    ["x509: certificate has expired or is not yet valid", "is after"] TlsExpired or ClockSkew;
    ["x509: certificate has expired or is not yet valid", "is before"] TlsNotYetValid or ClockSkew;
    ["x509: certificate has expired or is not yet valid"] TlsExpired or TlsNotYetValid, ClockSkew;
    ["x509: certificate is valid for"] TlsName;
    ["x509: certificate is not valid for any names"] TlsName;
    ["x509: cannot validate certificate for"] TlsName;
    ["x509: certificate relies on legacy Common Name"] TlsName;
    ["remote error: tls: protocol version"] TlsIncompatible;
    ["server selected unsupported protocol version"] TlsIncompatible;
    ["no cipher suite supported by both"] TlsIncompatible;
    ["remote error: tls: "] TlsAlert;
    ["x509: "] TlsBadCertificate;
    ["tls: failed to verify certificate"] TlsBadCertificate;
    ["tls: handshake message of length "] TlsBadCertificate;
    ["stopped after 10 redirects"] RedirectBroken;
    ["response missing Location header"] RedirectBroken;
    ["failed to parse Location header"] RedirectBroken;
    ["Client.Timeout exceeded while awaiting headers"] HttpTimeout;
    ["timeout awaiting response headers"] HttpTimeout;
};

/// A server's messages about limits and credentials; they are more specific than a status.
const PLAIN: &[Rule] = rules! {
    ["toomanyrequests"] RateLimited;
    ["pull rate limit"] RateLimited;
    ["Too Many Requests"] RateLimited;
    ["no basic auth credentials"] AuthNoCred;
    ["You may not login yet"] AuthNoCred;
    ["incorrect username or password"] AuthBadCred;
    ["invalid username/password"] AuthBadCred;
    ["authorization token has expired"] CredentialExpired;
    ["authentication token has expired"] CredentialExpired;
    ["failed to authenticate", "token is expired"] CredentialExpired;
    ["error getting credentials"] AuthUnknown;
    ["docker-credential-", "executable file not found"] AuthUnknown;
    ["invalid authorization challenge"] AuthBadChallenge;
    ["no realm specified"] AuthBadChallenge;
    ["invalid token auth challenge realm"] AuthBadChallenge;
    ["authorization server did not include a token"] AuthTokenFormat;
    // From the decoder; if the connection broke, the message is that of the connection.
    ["unable to decode token response: invalid character '<'"] AuthTokenFormat or NotARegistry;
    ["unable to decode token response: invalid character"] AuthTokenFormat;
    ["unable to decode token response: json"] AuthTokenFormat;
    ["unable to decode token response: parsing time"] AuthTokenFormat;
    ["unable to decode token response: unexpected EOF"] AuthTokenFormat;
    ["unable to decode token response: EOF"] AuthTokenFormat;
};

/// Less specific than the messages of the token service.
const VAGUE: &[Rule] = rules! {
    ["insufficient_scope"] AuthDenied or AuthNoCred, NameUnknown;
    // A token was issued, sent, and rejected with `error=`.
    ["server message: ", ": authorization failed"] AuthDenied or AuthNoCred;
    ["pull access denied"] AuthDenied or AuthNoCred, NameUnknown;
    ["requested access to the resource is denied"] AuthDenied or AuthNoCred, NameUnknown;
    ["denied: Permission", "denied on resource"] AuthDenied or AuthNoCred, NameUnknown;
    ["unauthorized: authentication required"] AuthUnknown or AuthNoCred, AuthBadCred;
    ["unauthorized to access repository"] AuthDenied or AuthNoCred, NameUnknown;
    ["unauthorized: "] AuthUnknown or AuthNoCred, AuthBadCred, AuthDenied;
    ["denied: "] AuthDenied or AuthNoCred, AuthBadCred;
};

/// Content that a registry has, and content that arrived.
const CONTENT: &[Rule] = rules! {
    ["no match for platform in manifest"] NoPlatform;
    ["no matching manifest for"] NoPlatform;
    ["no image found in image index for architecture"] NoPlatform;
    ["no image found in manifest list for architecture"] NoPlatform;
    // The type of the manifest, and of what it refers to.
    ["is no longer supported since containerd"] ManifestUnsupported;
    ["schema 1 image manifests are no longer supported"] ManifestUnsupported;
    ["schema 1 not supported"] ManifestUnsupported;
    ["expected schema1 document"] ManifestUnsupported or ManifestInvalid;
    // A current manifest with a media type of schema 1; `text/plain` counts as one.
    [": no signatures"] ManifestUnsupported or ManifestInvalid;
    ["unsupported manifest media type"] ManifestUnsupported;
    ["unsupported docker v2s2 media type"] ManifestUnsupported;
    ["missing signature key"] ManifestUnsupported;
    ["unsupported protocol scheme"] RedirectBroken;
    ["failed to get stream processor for"] ManifestUnsupported;
    ["mismatched image rootfs and manifest layers"] ManifestUnsupported or ManifestInvalid;
    ["unexpected media type text/html"] NotARegistry or ManifestInvalid;
    ["unexpected media type "] ManifestUnsupported or ManifestInvalid;
    ["Target.MediaType must be set"] ManifestUnsupported or ManifestInvalid;
    // The manifest's content.
    ["number of layers and diffIDs don't match"] ManifestInvalid or ManifestUnsupported;
    ["history and layer mismatch"] ManifestInvalid;
    ["in header not a valid digest"] ManifestInvalid;
    ["which reports content size of zero"] ManifestInvalid;
    ["rejecting ", " byte manifest for "] ManifestInvalid;
    ["children: invalid desc "] ManifestInvalid;
    ["unmarshal image config"] ManifestInvalid;
    ["manifest unknown"] ManifestUnknown;
    ["MANIFEST_UNKNOWN"] ManifestUnknown;
    ["name unknown"] NameUnknown;
    ["NAME_UNKNOWN"] NameUnknown;
    ["repository name not known to registry"] NameUnknown;
    ["repository not found"] NameUnknown;
    ["blob unknown"] BlobUnknown;
    ["BLOB_UNKNOWN"] BlobUnknown;
    // Layers while they are unpacked.
    ["wrong diff id calculated on extraction"] LayerInvalid;
    ["archive/tar: invalid tar header"] LayerInvalid;
    ["failed to extract layer", "unexpected EOF"] LayerInvalid;
    ["failed to extract layer", "gzip: invalid"] LayerInvalid;
    ["failed to extract layer", "flate: corrupt input"] LayerInvalid;
    ["failed to extract layer", "magic number mismatch"] LayerInvalid;
    // The same decoders, reading from a server.
    ["unsupported Content-Encoding"] ContentEncoding;
    ["gzip: invalid"] ContentEncoding;
    ["flate: corrupt input"] ContentEncoding;
    ["magic number mismatch"] ContentEncoding;
    // The digest of an empty file.
    ["unexpected commit digest sha256:e3b0c44298fc1c149afbf4c8996fb924"] UnexpectedEof or DigestMismatch;
    ["unexpected commit digest"] DigestMismatch or ContentEncoding;
    ["filesystem layer verification failed"] DigestMismatch;
    ["does not match", "digest"] DigestMismatch;
    // Content that is too short gives `short read`, or is not committed.
    ["failed size validation"] DigestMismatch or ContentEncoding, ManifestInvalid;
    ["unexpected end of JSON input"] ManifestInvalid;
    ["looking for beginning of value"] NotARegistry or ManifestInvalid;
    ["failed to unmarshal"] ManifestInvalid;
    ["json: cannot unmarshal"] ManifestInvalid;
    ["unexpected EOF"] UnexpectedEof;
    ["short read: expected"] UnexpectedEof;
};

/// How an exchange ended; the least specific messages.
const ENDS: &[Rule] = rules! {
    ["connection reset by peer"] TcpReset or TlsReset;
    ["forcibly closed by the remote host"] TcpReset or TlsReset;
    ["broken pipe"] TcpReset;
    ["context deadline exceeded"] Deadline;
    ["context canceled"] PullNoProgress;
};

/// The runtime itself does not answer; no registry was involved.
const NO_RUNTIME: [&str; 4] = [
    "transport: Error while dialing",
    "dial unix",
    "error reading from server: EOF",
    "the connection is unavailable",
];

/// The first match.
pub(super) fn find(
    text: &str,
    leg: Option<Role>,
    url: Option<&str>,
    status: Option<u16>,
) -> Option<Match> {
    if NO_RUNTIME.iter().any(|words| text.contains(words)) {
        return None;
    }
    let fits = |rule: &&Rule| rule.words.iter().all(|word| text.contains(word));
    let of = |rules: &[Rule]| rules.iter().find(fits).map(|rule| rule.found);
    of(LOCAL)
        .or_else(|| of(WIRE))
        .or_else(|| of_proxy(text))
        .or_else(|| of_storage(leg, url, status))
        .or_else(|| of(PLAIN))
        .or_else(|| of_token(text, leg, status))
        // "permission denied" is about a file, not a registry.
        .or_else(|| (!text.contains("permission denied")).then(|| of(VAGUE))?)
        .or_else(|| of(CONTENT))
        .or_else(|| of_status(leg, url, status?))
        .or_else(|| of_absence(text, leg, url))
        .or_else(|| of(ENDS))
        .or_else(|| {
            // A URL followed by `EOF`: no response arrived.
            (url.is_some() && text.ends_with(": EOF"))
                .then_some(other(Cause::TcpReset, &[Cause::TlsReset]))
        })
}

fn other(cause: Cause, or: &'static [Cause]) -> Match {
    Match { cause, or }
}

/// If a CONNECT fails, Go's whole error is its status text: `Get "https://…": Forbidden`.
fn of_proxy(text: &str) -> Option<Match> {
    const REASONS: [&str; 6] = [
        "Forbidden",
        "Bad Gateway",
        "Service Unavailable",
        "Gateway Timeout",
        "Gateway Time-out",
        "Internal Server Error",
    ];
    let is_connect = REASONS.iter().any(|reason| {
        text.strip_suffix(reason)
            .is_some_and(|before| before.ends_with("\": "))
    });
    is_connect.then_some(other(Cause::ProxyMisconfigured, &[]))
}

/// An error status of the blob storage, whatever its message.
fn of_storage(leg: Option<Role>, url: Option<&str>, status: Option<u16>) -> Option<Match> {
    let is_storage =
        leg == Some(Role::Blob) && url.is_some_and(|url| !path(url).starts_with("/v2/"));
    match status? {
        // S3 responds 400 if a request has both a token and a signature.
        400 if is_storage => Some(other(Cause::BlobDenied, &[Cause::RequestRefused])),
        401 | 403 if is_storage => Some(other(Cause::BlobDenied, &[])),
        404 if is_storage => Some(other(Cause::BlobUnknown, &[])),
        _ => None,
    }
}

/// containerd reports whether it sent a credential, and which realm it could not contact.
fn of_token(text: &str, leg: Option<Role>, status: Option<u16>) -> Option<Match> {
    // The realm is not a URL with a host.
    const NOWHERE: [&str; 2] = ["unsupported protocol scheme", "no Host in request URL"];
    if leg != Some(Role::Token) {
        return None;
    }
    if NOWHERE.iter().any(|words| text.contains(words)) {
        return Some(other(Cause::AuthBadChallenge, &[]));
    }
    let is_anonymous = text.contains("failed to fetch anonymous token");
    let is_oauth = text.contains("failed to fetch oauth token");
    match status? {
        // Registries respond the same for a repository that does not exist.
        401 if is_anonymous => Some(other(Cause::AuthNoCred, &[Cause::NameUnknown])),
        403 if is_anonymous => Some(other(
            Cause::AuthNoCred,
            &[Cause::NameUnknown, Cause::Fw403],
        )),
        404 => Some(other(Cause::AuthBadChallenge, &[Cause::RequestRefused])),
        401 if is_oauth => Some(other(Cause::AuthBadCred, &[])),
        403 if is_oauth => Some(other(Cause::AuthDenied, &[Cause::AuthBadCred])),
        _ => None,
    }
}

fn of_status(leg: Option<Role>, url: Option<&str>, status: u16) -> Option<Match> {
    let path = url.map(path).unwrap_or_default();
    let found = match (status, leg) {
        (407, _) => other(Cause::ProxyMisconfigured, &[]),
        (429, _) => other(Cause::RateLimited, &[]),
        (500..=599, _) => other(Cause::Registry5xx, &[]),
        // The registry's own blobs: refusals of the storage are matched earlier.
        (401, Some(Role::Blob)) if !path.is_empty() => {
            other(Cause::AuthUnknown, &[Cause::AuthDenied, Cause::BlobDenied])
        }
        (401 | 403, Some(Role::Blob)) => other(Cause::BlobDenied, &[Cause::AuthDenied]),
        (401, _) => other(Cause::AuthUnknown, &[Cause::AuthNoCred, Cause::AuthBadCred]),
        // The response to HEAD has no body, so a registry can't be distinguished from a proxy in front of it.
        (403, _) => other(Cause::AuthDenied, &[Cause::Fw403, Cause::AuthNoCred]),
        (404, Some(Role::Blob)) => other(Cause::BlobUnknown, &[]),
        (404, Some(Role::Registry) | None) if path.is_empty() || path.contains("/manifests/") => {
            other(Cause::ManifestUnknown, &[Cause::NameUnknown])
        }
        (404, _) => other(Cause::NotARegistry, &[]),
        (300..=399, _) => other(Cause::RedirectBroken, &[]),
        // A signed URL that rejects the token is reported with the registry's own URL.
        (400, Some(Role::Blob)) => other(Cause::RequestRefused, &[Cause::BlobDenied]),
        (400..=499, _) => other(Cause::RequestRefused, &[]),
        _ => return None,
    };
    Some(found)
}

/// containerd ends the message of a 404 with `not found`.
fn of_absence(text: &str, leg: Option<Role>, url: Option<&str>) -> Option<Match> {
    if !text
        .trim_end_matches([']', ' ', '.'])
        .ends_with("not found")
    {
        return None;
    }
    // The content was lost on the node.
    let is_local = [
        "failed to get reader from content store",
        "failed to extract layer",
        "failed to prepare extraction snapshot",
    ];
    let is_lost = ["snapshot ", "lease "];
    if is_local.iter().any(|words| text.contains(words))
        || (text.contains("does not exist: not found")
            && is_lost.iter().any(|words| text.contains(words)))
    {
        return None;
    }
    if let Some(found) = unsupported_type(text) {
        return Some(found);
    }
    let is_manifest = url.is_some_and(|url| path(url).contains("/manifests/"))
        || text.contains(".manifest.")
        || text.contains(".index.");
    if leg == Some(Role::Blob) && !is_manifest {
        return Some(other(Cause::BlobUnknown, &[]));
    }
    // Things other than manifests may be missing too.
    let is_resolving = ["failed to resolve", "could not fetch content descriptor"];
    (is_manifest || is_resolving.iter().any(|words| text.contains(words)))
        .then_some(other(Cause::ManifestUnknown, &[Cause::NameUnknown]))
}

/// containerd fetches a manifest whose media type is not a manifest's as a blob, and registries have no blob
/// of that digest: `could not fetch content descriptor sha256:… (text/html) from remote: not found`.
fn unsupported_type(text: &str) -> Option<Match> {
    const OF_NO_CONTENT: [&str; 4] = [")", "text/", "application/json", "application/octet-stream"];
    let (_, descriptor) = text.split_once("could not fetch content descriptor ")?;
    let (_, kind) = descriptor.split_once('(')?;
    if kind.starts_with("text/html") {
        return Some(other(Cause::NotARegistry, &[Cause::ManifestUnsupported]));
    }
    OF_NO_CONTENT
        .iter()
        .any(|begins| kind.starts_with(begins))
        .then_some(other(Cause::ManifestUnsupported, &[Cause::ManifestInvalid]))
}

/// The HTTP status in a text: `: 403 Forbidden`, `StatusCode: 404`, `registry 502 (Bad Gateway)`.
pub(super) fn status(text: &str) -> Option<u16> {
    const BEFORE: [&str; 6] = [":", "registry", "HTTP", "code", "status", "StatusCode:"];
    const BEHIND: [&str; 13] = [
        "Unauthorized",
        "Forbidden",
        "Not",
        "Too",
        "Internal",
        "Bad",
        "(Bad",
        "(Internal",
        "(Service",
        "Service",
        "Gateway",
        "Method",
        "Proxy",
    ];
    const OF_REDIRECTS: [&str; 6] = [
        "Multiple",
        "Moved",
        "Found",
        "See",
        "Temporary",
        "Permanent",
    ];
    let mut before = "";
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let digits = word.trim_end_matches([',', ':', ';', '.']);
        let is_status = digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit());
        let is_behind = BEFORE.iter().any(|end| before.ends_with(end));
        let next = words.peek().copied().unwrap_or_default();
        let is_before = |reasons: &[&str]| reasons.iter().any(|reason| next.starts_with(reason));
        let status = digits.parse().ok().filter(|status| match status {
            300..=399 => is_before(&OF_REDIRECTS),
            // `failed size validation: 512 != 448` has no status.
            400..=599 => is_before(&BEHIND) || (is_behind && next != "!="),
            _ => false,
        });
        if is_status && status.is_some() {
            return status;
        }
        before = word;
    }
    None
}

pub(super) fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or_default()
}
