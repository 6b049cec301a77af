//! Rules for credentials: which were found, which were tried, and how the registry responded to each.

use std::net::IpAddr;

use super::finding::{at, new, no_registry, transport};
use super::names::is_below;
use super::tls;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::{Finding, path};
use crate::model::credential::{
    CredentialId, CredentialSource, KeyMismatch, MatchRule, SourceEvidence, SourceProblem,
};
use crate::model::endpoint::{Role, Scheme};
use crate::model::evidence::{Access, Attempt, Challenge, Evidence};
use crate::model::fault::{HttpFault, Phase, TokenFault};
use crate::model::hosts::HostKind;
use crate::model::step::Step;
use crate::model::vantage::NotObserved;

/// Every attempt was rejected, or none could be made.
pub(super) fn refused(evidence: &Evidence) -> Option<Finding> {
    let last = evidence.walk.attempts.last()?;
    // Another host may have resolved the reference; but a pull contacts this one with its token.
    let is_resolved = evidence.walk.resolved_by_other_host || evidence.walk.has_content();
    let is_withheld = matches!(last.token.fault(), Some(TokenFault::RealmUntrusted { .. }));
    if evidence.walk.accepted().is_some() || is_resolved && !is_withheld {
        return None;
    }
    let finding = match (&last.token, &last.head) {
        (Step::Failed { fault, .. }, _) => no_token(evidence, last.credential.as_ref(), fault),
        (
            _,
            Step::Failed {
                fault: HttpFault::RedirectBlocked { .. },
                ..
            },
        ) => return None,
        (_, Step::Failed { fault, .. }) => no_head(evidence, last, fault),
        _ => return None,
    };
    let rested = last.at.map(|at| {
        format!(
            "that was at {at}; it is not tried again soon, because wrong passwords can lock an account"
        )
    });
    let finding = finding.facts(rested).facts(verdicts(evidence));
    let unread = unread_beside(evidence, finding.cause);
    Some(match unread {
        Some((source, problem)) => finding.unknown(format!(
            "{source}: {problem}; the kubelet tries it as well, and whether the registry accepts it is unknown"
        )),
        None => finding,
    })
}

/// A source that could not be read, beside the credential whose rejection this cause is: with it, the pull may succeed.
pub(super) fn unread_beside(
    evidence: &Evidence,
    cause: Cause,
) -> Option<(&CredentialSource, &SourceProblem)> {
    let is_of_credential = matches!(
        cause,
        Cause::AuthBadCred
            | Cause::AuthDenied
            | Cause::CredentialExpired
            | Cause::SecretCopyExpired
            | Cause::SecretFormat
    );
    let last = evidence.walk.attempts.last()?;
    let mut sources = evidence.keyring.sources.iter();
    let is_stopped = sources.any(|one| {
        let problem = one.problem.as_ref();
        problem.is_some_and(|problem| stops_every_pull(&one.source, problem))
    });
    (is_of_credential && last.credential.is_some() && !is_stopped)
        .then(|| first_problem(evidence, is_unread))?
}

/// The outcome of each candidate, if there was more than one.
fn verdicts(evidence: &Evidence) -> Vec<String> {
    if evidence.walk.attempts.len() < 2 {
        return Vec::new();
    }
    let say = |attempt| format!("tried {}: {}", who(attempt), outcome(attempt));
    evidence.walk.attempts.iter().map(say).collect()
}

fn who(attempt: &Attempt) -> String {
    attempt
        .credential
        .as_ref()
        .map_or_else(|| "anonymously".to_owned(), ToString::to_string)
}

fn outcome(attempt: &Attempt) -> String {
    attempt.failure().unwrap_or_else(|| {
        let is_accepted = attempt.head.done().is_some();
        if is_accepted { "accepted" } else { "not sent" }.to_owned()
    })
}

/// The finding for a missing token.
pub(super) fn no_token(
    evidence: &Evidence,
    credential: Option<&CredentialId>,
    fault: &TokenFault,
) -> Finding {
    let token = |cause| at(cause, Role::Token, Phase::Token);
    match fault {
        TokenFault::NoCredential => no_credential(evidence, Role::Registry, Phase::Manifest),
        TokenFault::Rejected {
            fault: fault @ HttpFault::Status { status: 400, .. },
        } if credential.is_none() => token(Cause::AuthTokenFormat)
            .fact(format!("requested an anonymous token: {fault}"))
            .fact(token_service(evidence))
            .hint("Check the log of the token service: it rejects the request itself (its service or scope), with any credential."),
        TokenFault::Rejected { fault } => match credential {
            Some(credential) => token(Cause::AuthBadCred)
                .confidence(Confidence::high_if(is_of_password(fault)))
                .fact(format!("{credential}: {fault}"))
                .fact(token_service(evidence))
                .fact("anonymous access was not tried: if a credential matches, the kubelet does not try it either")
                .facts(may_be_a_copy(credential))
                .hint(correction(evidence, &credential.source, fault)),
            None => no_credential(evidence, Role::Token, Phase::Token).fact(format!("requested an anonymous token: {fault}")),
        },
        TokenFault::RealmUntrusted { realm, reason } => token(Cause::RealmUntrusted)
            .fact(format!("the registry names {realm} as its token service: {reason}"))
            .fact("no request was sent there; containerd would send the credential"),
        TokenFault::NoToken { method, fields } => token(Cause::AuthTokenFormat)
            .fact(format!("the response to {method} was 200 {}", if fields.is_empty() { "without a field".to_owned() } else { format!("with the fields {}", fields.join(", ")) })),
        TokenFault::BadChallenge { reason } => at(Cause::AuthBadChallenge, Role::Registry, Phase::Ping)
            .fact(reason.clone()),
        TokenFault::Unverified => at(Cause::AuthUnknown, Role::Registry, Phase::Token)
            .fact("a credential is required, and none was sent: hosts.toml sets skip_verify, and the certificate is not valid")
            .fact("whether the registry would accept containerd's credential is unknown")
            .hint("Add that host's CA certificate as `ca` in hosts.toml: then the credential can be checked, and the password is safe."),
        TokenFault::Http { fault: HttpFault::Malformed { reason } } => token(Cause::AuthTokenFormat)
            .fact(reason.clone())
            .fact(token_service(evidence))
            .hint("Query the token service with `curl -i` and check the response: containerd expects a JSON object with access_token or token."),
        // The response to a POST did not come from a token service.
        TokenFault::Http { fault: HttpFault::Status { status: 400 | 403, .. } } if credential.is_some() => token(Cause::AuthTokenFormat)
            .fact(format!("the POST to the realm in the registry's challenge: {fault}"))
            .fact("a page or a filter answered, not the token service: the password was not checked; containerd does not retry with GET after that status")
            .fact(token_service(evidence))
            .hint("Let POST requests reach the token service (the CSRF filter of Harbor before 1.10.1 rejected them: update it), or let the server respond with 405, after which containerd uses GET."),
        TokenFault::Http { fault } => transport(evidence, fault, Role::Token, Phase::Token).unwrap_or_else(|| {
            token(Cause::AuthBadChallenge)
                .confidence(Confidence::Medium)
                .fact(format!("the realm in the registry's challenge: {fault}"))
                .fact(token_service(evidence))
                .hint("Correct the realm in the registry's configuration: no token service answers at that address.")
        }),
    }
}

/// Temporary and long-lived logins for SWR look alike, so this alone proves nothing.
fn may_be_a_copy(credential: &CredentialId) -> Option<String> {
    let CredentialSource::SecretFile { name, .. } = &credential.source else {
        return None;
    };
    let host = host_of(&credential.key);
    let is_swr = host.starts_with("swr.") && host.ends_with(".myhuaweicloud.com");
    (is_swr && name != "default-secret").then(|| {
        "if this was copied from CCE's default-secret, its login expires, and CCE renews only the original".to_owned()
    })
}

/// 401 and `invalid_grant` (RFC 6749, 5.2) are about the password; other codes may be about the user's
/// rights or the request.
pub(super) fn is_of_password(fault: &HttpFault) -> bool {
    matches!(fault, HttpFault::Status { status, code, .. }
        if *status == 401 || code.as_deref() == Some("invalid_grant"))
}

/// What a registry's own words complain about, beyond the status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Complaint {
    /// The password or token has expired.
    Expired,
    /// The account is locked or disabled.
    Locked,
    /// The password is wrong.
    Password,
    /// The user lacks a right.
    Right,
}

fn complaint(fault: &HttpFault) -> Option<Complaint> {
    let HttpFault::Status {
        message: Some(message),
        ..
    } = fault
    else {
        return None;
    };
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["expired"]) && says(&["token", "password", "credential", "session"]) {
        return Some(Complaint::Expired);
    }
    if says(&["account", "user"]) && says(&["locked", "disabled", "deactivated", "suspended"]) {
        return Some(Complaint::Locked);
    }
    let is_wrong = says(&["incorrect", "invalid", "wrong", "bad credentials"]);
    if is_wrong && says(&["password", "credentials", "access token", "personal access"]) {
        return Some(Complaint::Password);
    }
    let is_of_rights = says(&[
        "not authorized to perform",
        "unauthorized to access repository",
        "does not have permission",
        "insufficient permission",
    ]);
    is_of_rights.then_some(Complaint::Right)
}

/// Whether a registry without a token service rejects the login itself, not what the user may do: 401 does, unless its
/// words are about a right; 403 does only if its words say so.
fn rejects_login(status: u16, fault: &HttpFault) -> bool {
    match complaint(fault) {
        Some(Complaint::Right) => false,
        Some(_) => true,
        None => status == 401,
    }
}

/// The fix for a login that was rejected with these words.
fn correction(evidence: &Evidence, source: &CredentialSource, fault: &HttpFault) -> String {
    match complaint(fault) {
        Some(Complaint::Expired) => format!(
            "Get a new password or token for the user of {source}, and replace the old one there: the registry reports that it has expired. If such tokens are short-lived (Amazon ECR: 12 hours), let a job or a credential provider of the kubelet renew them."
        ),
        Some(Complaint::Locked) => format!(
            "Unlock the user of {source} at the registry: it reports that the account is locked or disabled. First find the client that sends wrong passwords for it, if that is the reason."
        ),
        Some(Complaint::Right) => format!(
            "Check the spelling of '{}', then give the user of {source} the right to pull it.",
            evidence.reference.repository()
        ),
        None if !is_of_password(fault) => format!(
            "Check the user of {source} at the token service: whether the account is active, and whether it may pull '{}'. If both are right, the password is wrong: log in once by hand (`crane auth login` or `docker login`), then replace it.",
            evidence.reference.repository()
        ),
        Some(Complaint::Password) | None => new_password(source),
    }
}

fn new_password(source: &CredentialSource) -> String {
    match source {
        CredentialSource::SecretFile { .. } => {
            format!(
                "Log in once with the user and password of {source} (`crane auth login` or `docker login`), then create the Secret again."
            )
        }
        CredentialSource::RuntimeConfig { path } => format!(
            "Correct the login of this host in {path} (registry.configs.HOST.auth) and restart containerd, or give the pod a Secret: its credential is tried before that one."
        ),
        _ => format!("Correct the user and password from {source}."),
    }
}

fn token_service(evidence: &Evidence) -> String {
    let last = evidence.walk.attempts.last();
    let token_service = last.and_then(|attempt| attempt.challenge.as_ref());
    let at_ping = evidence.walk.ping.done().map(|ping| &ping.challenge);
    match token_service.or(at_ping) {
        Some(Challenge::Bearer { realm, service, .. }) => {
            let service = service
                .as_ref()
                .filter(|service| !service.is_empty())
                .map_or_else(String::new, |s| format!(" for service '{s}'"));
            format!("the token service is {realm}{service}")
        }
        Some(Challenge::Basic { .. }) => "the registry requires Basic authentication".to_owned(),
        _ => "the registry sent its challenge at the manifest".to_owned(),
    }
}

/// The finding for a rejected manifest request, with or without a token.
pub(super) fn no_head(evidence: &Evidence, attempt: &Attempt, fault: &HttpFault) -> Finding {
    let registry = |cause| at(cause, Role::Registry, Phase::Manifest);
    if let Some(finding) = transport(evidence, fault, Role::Registry, Phase::Manifest) {
        let is_limit = finding.cause == Cause::RateLimited && attempt.credential.is_none();
        return match first_without_match(evidence).filter(|_| is_limit) {
            Some(unused) => {
                let fix = add_key(evidence.reference.domain(), unused);
                let hint = format!("{fix} Otherwise: {}", finding.hint);
                finding.facts(mismatches_of_given(evidence)).hint(hint)
            }
            None => finding,
        };
    }
    if let HttpFault::RedirectUntrusted { to, reason } = fault {
        return registry(Cause::RedirectUntrusted)
            .fact(format!("the manifest is redirected to {to}: {reason}"))
            .hint("Correct the address of the upstream in the registry's configuration.");
    }
    let HttpFault::Status {
        status,
        code,
        challenged,
        authorized,
        ..
    } = fault
    else {
        return registry(Cause::Unexplained).fact(fault.to_string());
    };
    if attempt.get_succeeded {
        return only_get_succeeds(attempt, fault);
    }
    if let Some(finding) = challenge_only_at_ping(evidence, attempt, fault) {
        return finding;
    }
    let code = code.as_deref().map(str::to_ascii_uppercase);
    let anonymous = attempt.credential.is_none();
    let had_token = attempt.token.done().is_some();
    let is_asked = !matches!(attempt.challenge, None | Some(Challenge::Anonymous));
    match (status, code.as_deref()) {
        (_, Some("MANIFEST_UNKNOWN" | "MANIFEST_BLOB_UNKNOWN" | "NAME_UNKNOWN" | "NAME_INVALID")) => {
            not_found(evidence, attempt, fault)
        }
        (404, _) if evidence.walk.ping.fault().is_some() => no_registry(evidence, Role::Registry, Phase::Manifest)
            .confidence(Confidence::Medium)
            .fact(format!("/v2/: {}", evidence.walk.ping.fault().map_or_else(String::new, ToString::to_string)))
            .fact(format!("the manifest: {fault}")),
        (404, _) => not_found(evidence, attempt, fault),
        (403, None) if !challenged && !had_token && (anonymous || evidence.walk.ping.fault().is_some()) => registry(Cause::Fw403)
            .confidence(Confidence::Medium)
            .fact(format!("{fault}, without a challenge and without a registry's error body"))
            .facts(evidence.walk.rate_limit.as_ref().and_then(|limit| Some(format!("the registry sees this client as {}", limit.source.as_ref()?))))
            .hint(allow_list(evidence)),
        (401, _) if !challenged && !authorized && !had_token && !is_asked => without_challenge(evidence, fault, Role::Registry, Phase::Manifest),
        (401 | 403, _) if anonymous => {
            no_credential(evidence, Role::Registry, Phase::Manifest).fact(format!("requested anonymously: {fault}"))
        }
        (401 | 403, _) if !had_token && rejects_login(*status, fault) => registry(Cause::AuthBadCred)
            .fact(format!("{}: {fault}", who(attempt)))
            .facts(Some("anonymous access was not tried: if a credential matches, the kubelet does not try it either".to_owned()))
            .hint(attempt.credential.as_ref().map_or_else(String::new, |c| correction(evidence, &c.source, fault))),
        (401 | 403, _) => denied(evidence, attempt, *status, fault),
        (400, _) if is_plain(evidence) => registry(Cause::RequestRefused)
            .confidence(Confidence::Medium)
            .fact(format!("the manifest, requested over plain http: {fault}"))
            .hint(format!(
                "Write {} with https:// in a hosts.toml if it uses TLS: TLS servers reject plain http like that.",
                super::finding::server(evidence, Role::Registry)
            )),
        _ if evidence.walk.ping.fault().is_none() => registry(Cause::RequestRefused)
            .fact(format!("the manifest: {fault}")),
        _ => registry(Cause::NotARegistry)
            .confidence(Confidence::Low)
            .fact(format!("the manifest: {fault}"))
            .hint("Ask the registry's operator what this status means there."),
    }
}

/// The fix for a filter: from which address a server sees this client depends on the path.
fn allow_list(evidence: &Evidence) -> String {
    let leg = evidence.walk.legs_of(Role::Registry).last();
    let direct = leg.filter(|leg| leg.proxy_route.proxy().is_none());
    let connected = direct.and_then(|leg| leg.connect.outcome.done());
    match connected.filter(|connected| path::is_private(connected.to.ip())) {
        Some(connected) => format!(
            "Add this network's addresses to the allow-list in front of {} ({}), which is reached at a private address; or the registry to the list of a filter on the path.",
            super::finding::server(evidence, Role::Registry),
            connected.to.ip()
        ),
        None => Cause::Fw403.entry().fix.to_owned(),
    }
}

/// The registry knows the user and rejects the request.
fn denied(evidence: &Evidence, attempt: &Attempt, status: u16, fault: &HttpFault) -> Finding {
    let grant = attempt.token.done().map(|grant| grant.access);
    let fact = match grant {
        Some(Access::NoPull) => {
            "a token was issued, but it has no right to pull from this repository"
        }
        Some(Access::Pull) => {
            "a token with the right to pull was issued, but the registry rejects it"
        }
        Some(Access::Unreadable) => "a token was issued; the rights in it can't be read",
        None => "the registry knows the user and rejects the request",
    };
    let hint = if grant == Some(Access::Pull) {
        "Compare the clocks, the service name and the signing key of the registry and its token service: one rejects the token that the other issued.".to_owned()
    } else {
        format!(
            "Check the spelling of '{}', then give this user the right to pull it.",
            evidence.reference.repository()
        )
    };
    let sure = grant == Some(Access::NoPull) || (status == 403 && grant != Some(Access::Pull));
    let fact = match grant {
        None if status == 401 => {
            "the answer is about the rights of this user, not about the password"
        }
        _ => fact,
    };
    at(Cause::AuthDenied, Role::Registry, Phase::Manifest)
        .confidence(Confidence::high_if(sure))
        .fact(format!("{}: {fault}", who(attempt)))
        .fact(fact)
        .facts(tls::apart(evidence, Role::Registry, Role::Token).map(|seconds| {
            format!("the clocks of registry and token service are {seconds} s apart, which can invalidate tokens")
        }))
        .hint(hint)
}

fn is_plain(evidence: &Evidence) -> bool {
    let leg = evidence.walk.legs_of(Role::Registry).last();
    leg.is_some_and(|leg| leg.endpoint.scheme == Scheme::Http)
}

/// HEAD is rejected, but this check's own GET of the same manifest succeeds.
fn only_get_succeeds(attempt: &Attempt, fault: &HttpFault) -> Finding {
    let registry = |cause| at(cause, Role::Registry, Phase::Manifest);
    if attempt.get_used_other_token {
        return registry(Cause::AuthDenied)
            .confidence(Confidence::Medium)
            .fact(format!("HEAD of the manifest, with a token: {fault}"))
            .fact("GET of the same, with another token: answered with success")
            .hint("Check how long the tokens of its token service last, and whether all servers behind that name accept them.");
    }
    registry(Cause::HeadRefused)
        .fact(format!("HEAD of the manifest: {fault}"))
        .fact("GET of the same: answered with success")
        .fact("containerd uses HEAD and does not try GET; this check's own GET may have filled a cache, so that the next pull succeeds")
}

/// 401 without a challenge: a client does not know how to log in, and sends no credential.
pub(super) fn without_challenge(
    evidence: &Evidence,
    fault: &HttpFault,
    leg: Role,
    phase: Phase,
) -> Finding {
    let mut headers = evidence.walk.host.headers.iter();
    if headers.any(|name| name.eq_ignore_ascii_case("authorization")) {
        return at(Cause::AuthBadCred, leg, phase)
            .fact(format!("with the Authorization header from hosts.toml: {fault}"))
            .hint("Correct `header.Authorization` of this host in hosts.toml, or remove it: containerd then logs in with the pull's credential.");
    }
    at(Cause::AuthBadChallenge, leg, phase).fact(format!(
        "{fault}, without a WWW-Authenticate header (RFC 9110, 15.5.2 requires one)"
    ))
}

/// The registry sends its challenge only at `/v2/`, which no pull requests, and rejects the manifest
/// without one.
fn challenge_only_at_ping(
    evidence: &Evidence,
    attempt: &Attempt,
    fault: &HttpFault,
) -> Option<Finding> {
    let HttpFault::Status {
        status: 401 | 403 | 404,
        challenged: false,
        ..
    } = fault
    else {
        return None;
    };
    let ping = evidence.walk.ping.done()?;
    let asks = matches!(
        ping.challenge,
        Challenge::Basic { .. } | Challenge::Bearer { .. }
    );
    let was_asked = attempt.challenge.is_some() || attempt.credential.is_some();
    if !asks || was_asked || evidence.keyring.candidates.is_empty() {
        return None;
    }
    Some(
        at(Cause::AuthNotAsked, Role::Registry, Phase::Manifest)
            .confidence(Confidence::Medium)
            .fact(format!("the manifest without a login: {fault}, without a challenge"))
            .fact("/v2/ responds 401 with a challenge; containerd never requests /v2/, so it never logs in")
            .fact("whether the tag exists is unknown without a login"),
    )
}

/// What a registry's answer to a request for a manifest shows to be missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Missing {
    /// The repository, or the project that it is in.
    Repository,
    /// The tag; the repository exists.
    Tag,
    /// One of them.
    Either,
}

/// Harbor answers NOT_FOUND for all of them, and names what it did not find (`controller/artifact`): the repository is
/// looked for before the tag. distribution answers MANIFEST_UNKNOWN for a tag and for a repository.
fn missing(code: Option<&str>, message: Option<&str>, is_by_tag: bool) -> Missing {
    let message = message.unwrap_or_default().trim().to_ascii_lowercase();
    let is_of =
        |what: &str| message.starts_with(&format!("{what} ")) && message.ends_with(" not found");
    match code.unwrap_or_default() {
        "NAME_UNKNOWN" | "NAME_INVALID" => Missing::Repository,
        "NOT_FOUND" if is_of("project") || is_of("repository") => Missing::Repository,
        "NOT_FOUND" if is_of("artifact") && is_by_tag => Missing::Tag,
        _ => Missing::Either,
    }
}

/// 404 for the manifest, or a code that says the same.
fn not_found(evidence: &Evidence, attempt: &Attempt, fault: &HttpFault) -> Finding {
    let image = &evidence.reference;
    let (code, message) = match fault {
        HttpFault::Status { code, message, .. } => (code.as_deref(), message.as_deref()),
        _ => (None, None),
    };
    let code = code.map(str::to_ascii_uppercase);
    let is_by_tag = image.digest().is_none();
    let missing = match missing(code.as_deref(), message, is_by_tag) {
        Missing::Either if is_by_tag && is_granted_by_hub(evidence, attempt) => Missing::Tag,
        other => other,
    };
    let version = if is_by_tag { "tag" } else { "digest" };
    let at = |cause| at(cause, Role::Registry, Phase::Manifest);
    let what = format!(
        "'{}' of {}: {fault}{}",
        image.version(),
        image.name(),
        if code.is_none() {
            ", without a registry's code"
        } else {
            ""
        }
    );
    let finding = match missing {
        Missing::Repository => at(Cause::NameUnknown).fact(format!("{}: {fault}", image.name())),
        Missing::Tag => at(Cause::ManifestUnknown)
            .fact(what)
            .fact("the repository exists: the registry's answer is about the tag alone")
            .hint(format!(
                "List the tags in the registry's console (or with `skopeo list-tags docker://{}`); then correct the tag, or push it again.",
                image.name()
            )),
        Missing::Either if code.is_none() => at(Cause::ManifestUnknown)
            .fact(what)
            .unknown(format!(
                "a registry answers with a code: a proxy or Ingress in front of it may have sent this, or the {version} or the repository is missing"
            ))
            .hint(format!(
                "Look for '{0}' and its {version} in the registry's console. If both are there, check the proxy or Ingress in front of {1}: it has to forward all of /v2/ to the registry. Otherwise correct the image's name, or push the image again.",
                image.repository(),
                super::finding::server(evidence, Role::Registry)
            )),
        Missing::Either => at(Cause::ManifestUnknown)
            .fact(what)
            .unknown(format!(
                "registries answer the same for a missing {version} and for a missing repository; which one is missing here is unknown"
            ))
            .hint(format!(
                "Look for the repository '{0}' in the registry's console, and then for the {version} (or list both with `skopeo list-tags docker://{1}`). Correct the one that is misspelled, or push the image again.",
                image.repository(),
                image.name()
            )),
    };
    if !may_be_hidden(evidence, attempt) {
        return finding;
    }
    // Without a login, the registry's answer does not show what exists.
    let unused = mismatches_of_given(evidence);
    let login = if unused.is_empty() {
        "give its pull secret to the pod first"
    } else {
        "correct the pull secret first: none of its keys matches"
    };
    let hint = format!(
        "If the image requires a login, {login}. Otherwise: {}",
        finding.hint
    );
    finding
        .unknown("requested anonymously: registries may respond like this for images that require a login")
        .facts(unused)
        .hint(hint)
}

/// Docker Hub issues a token with the right to pull only for a repository that exists.
fn is_granted_by_hub(evidence: &Evidence, attempt: &Attempt) -> bool {
    let may_pull = attempt.token.done().map(|grant| grant.access) == Some(Access::Pull);
    let is_hub =
        evidence.reference.domain() == "docker.io" && evidence.walk.host.kind == HostKind::Registry;
    may_pull && is_hub
}

/// Whether the registry may hide the image from this client, which sent no credential. Not if it requires no login at
/// all, or issued a token with the right to pull the repository.
fn may_be_hidden(evidence: &Evidence, attempt: &Attempt) -> bool {
    let may_pull = attempt.token.done().map(|grant| grant.access) == Some(Access::Pull);
    let is_asked = |challenge: &Challenge| !matches!(challenge, Challenge::Anonymous);
    let ping = evidence.walk.ping.done();
    let is_open = attempt.challenge.as_ref().is_none_or(|one| !is_asked(one))
        && ping.is_some_and(|ping| ping.status == 200 && !is_asked(&ping.challenge));
    attempt.credential.is_none() && !may_pull && !is_open
}

/// The registry requires a credential and none matches: none was found, or their keys are for other hosts.
pub(super) fn no_credential(evidence: &Evidence, leg: Role, phase: Phase) -> Finding {
    let keyring = &evidence.keyring;
    if let Some((source, problem)) = first_problem(evidence, |problem| !is_unread(problem)) {
        return at(Cause::SecretFormat, leg, phase)
            .fact(format!("{source}: {problem}"))
            .hint(recreate(evidence, source));
    }
    if let Some((source, problem)) = first_problem(evidence, is_unread) {
        return at(Cause::AuthUnknown, leg, phase)
            .severity(Severity::Critical)
            .fact(format!("{source}: {problem}"))
            .fact("the registry requires a credential; whether it would accept that one is unknown")
            .hint(match (source, problem) {
                (CredentialSource::NodeProvider { .. } | CredentialSource::NodeConfig { .. }, _) => format!(
                    "Check the kubelet's log on the node, or pull the image there, to find out whether {source} gives a credential; or name a Secret in the pod's imagePullSecrets, which the kubelet tries first."
                ),
                (_, SourceProblem::Unread { .. }) => format!(
                    "Allow the daemon (kubernetes.secrets, docs/kubernetes.md) or the user who runs the check to read {source}; or give a credential as a file (kubernetes.credential, --secret-file). `kubectl get` and `pullpath secret check` show its content."
                ),
                _ => format!(
                    "Run {source} by hand and fix it, or give the pod's Secret with --secret-file."
                ),
            });
    }
    if let Some(nearest) = nearest(evidence, |_| true) {
        return at(Cause::SecretKeyMismatch, leg, phase)
            .confidence(Confidence::Medium)
            .facts(mismatches(evidence, |_| true))
            .fact(of_node(evidence))
            .hint(recreate_with(evidence, nearest));
    }
    if let Some(given) = first_without_match(evidence) {
        return at(Cause::SecretKeyMismatch, leg, phase)
            .confidence(Confidence::Medium)
            .facts(mismatches_of_given(evidence))
            .fact(of_node(evidence))
            .hint(format!(
                "{} Otherwise: {}",
                add_key(evidence.reference.domain(), given),
                name_a_secret(evidence)
            ));
    }
    let mut finding = at(Cause::AuthNoCred, leg, phase);
    if is_node_unseen(evidence) {
        finding = finding.confidence(Confidence::Medium);
    }
    if keyring.sources.is_empty() {
        finding = finding.fact("no credential was given or found");
    } else {
        finding = finding
            .fact("no source has a key for this image's registry")
            .facts(mismatches(evidence, |_| true));
    }
    finding
        .fact(format!(
            "registries respond the same for a repository that does not exist: '{}'",
            evidence.reference.repository()
        ))
        .fact(of_node(evidence))
        .hint(name_a_secret(evidence))
}

/// The fix if no credential is meant for the image's registry.
fn name_a_secret(evidence: &Evidence) -> String {
    let domain = evidence.reference.domain();
    let is_swr = domain.starts_with("swr.") && domain.ends_with(".myhuaweicloud.com");
    if is_swr {
        format!(
            "Name CCE's own `default-secret` in the pod's imagePullSecrets if {domain} belongs to the same account and region; otherwise a Secret with a login for it."
        )
    } else {
        format!(
            "Name a pull secret for {domain} in the pod's imagePullSecrets, in the pod's own namespace; give it to this check with --secret-file."
        )
    }
}

/// Whether someone chose this source for the pull: a pod's Secret, or a docker config that was given.
fn is_given(source: &SourceEvidence) -> bool {
    match source.source {
        CredentialSource::SecretFile { .. } => true,
        CredentialSource::DockerConfig { .. } => !source.at_usual_path,
        _ => false,
    }
}

/// The sources that were chosen for the pull and of which no key matches the image, if no other credential matches.
fn without_match(evidence: &Evidence) -> impl Iterator<Item = &SourceEvidence> {
    let keyring = &evidence.keyring;
    let has_mismatch = |source: &&SourceEvidence| {
        let mut all = keyring.mismatches.iter();
        all.any(|mismatch| mismatch.credential.source == source.source)
    };
    let sources = keyring.sources.iter();
    sources
        .filter(|_| keyring.candidates.is_empty())
        .filter(|source| is_given(source))
        .filter(has_mismatch)
}

fn first_without_match(evidence: &Evidence) -> Option<&SourceEvidence> {
    without_match(evidence).next()
}

/// The keys of these sources, each with the rule by which it does not match.
fn mismatches_of_given(evidence: &Evidence) -> Vec<String> {
    let given: Vec<&CredentialSource> = without_match(evidence).map(|one| &one.source).collect();
    let all = evidence.keyring.mismatches.iter();
    all.filter(|mismatch| given.contains(&&mismatch.credential.source))
        .take(MOST_KEYS)
        .map(mismatch_words)
        .collect()
}

/// The fix for a source without a key for the registry, if it is meant for the image.
fn add_key(domain: &str, source: &SourceEvidence) -> String {
    let server = docker_server(domain);
    let whose = &source.source;
    let has = match source.server_keys.as_slice() {
        [] => format!("No key of {whose} matches."),
        [key] => format!("The only key of {whose} is '{key}'."),
        keys => format!(
            "The keys of {whose} are for other registries: {}.",
            keys.join(", ")
        ),
    };
    let fix = match whose {
        CredentialSource::SecretFile { .. } if source.keys < 2 => {
            format!("create it again: {}", create_command(whose, server))
        }
        CredentialSource::SecretFile { .. } => {
            format!("add an entry '{server}' to its docker config, and create it again")
        }
        _ => format!("add a login for {server} to it (`docker login {server}` does that)"),
    };
    format!("{has} If it is meant for this image, {fix}.")
}

/// The command that writes a pull secret anew.
fn create_command(source: &CredentialSource, server: &str) -> String {
    let (name, namespace) = match source {
        CredentialSource::SecretFile {
            name, namespace, ..
        } => (Some(name.as_str()), namespace.as_deref()),
        _ => (None, None),
    };
    // A file may have any text as its name; a command is copied to a shell.
    let is_plain = |name: &&str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        !name.is_empty() && name.chars().all(fits)
    };
    format!(
        "`kubectl create secret docker-registry {} -n {} --docker-server={server} --docker-username=USER --docker-password=PASSWORD --dry-run=client -o yaml | kubectl apply -f -`",
        name.filter(is_plain).unwrap_or("NAME"),
        namespace.filter(is_plain).unwrap_or("NAMESPACE")
    )
}

fn is_node_unseen(evidence: &Evidence) -> bool {
    evidence
        .vantage
        .not_observed
        .contains(&NotObserved::NodeCredentials)
}

/// Whether the node itself may have a credential.
fn of_node(evidence: &Evidence) -> &'static str {
    if is_node_unseen(evidence) {
        "anonymous as far as observed: the node's own credentials can't be observed from here"
    } else {
        "anonymous: the node has no credential of its own for it either"
    }
}

/// The `--docker-server` that the kubelet matches with this image.
pub(super) fn docker_server(domain: &str) -> &str {
    match domain {
        "docker.io" => "https://index.docker.io/v1/",
        domain => domain,
    }
}

fn recreate(evidence: &Evidence, source: &CredentialSource) -> String {
    let server = docker_server(evidence.reference.domain());
    match source {
        CredentialSource::SecretFile { .. } => format!(
            "Create it again in the pod's namespace: {}. If its type is wrong, delete it first.",
            create_command(source, server)
        ),
        _ => format!(
            "Fix {source} (`docker login {server}` writes it), or give the pod's Secret with --secret-file."
        ),
    }
}

/// The fix for a key that is probably meant for images of a domain: the hint of `secret_key_mismatch`.
pub fn recreate_key(domain: &str, nearest: &KeyMismatch) -> String {
    let server = docker_server(domain);
    let CredentialId { source, key } = &nearest.credential;
    match (&nearest.rule, source) {
        (MatchRule::Empty, _) => format!(
            "Add user and password to the entry '{key}' of {source}: the kubelet runs no credential helper for it."
        ),
        (_, CredentialSource::SecretFile { .. }) => {
            format!("Create {source} again with --docker-server={server} in place of '{key}'.")
        }
        _ => format!("Write the key '{key}' in {source} as '{server}'."),
    }
}

/// The same, with the command if the Secret has no other key, which the command would remove.
fn recreate_with(evidence: &Evidence, nearest: &KeyMismatch) -> String {
    let domain = evidence.reference.domain();
    let fix = recreate_key(domain, nearest);
    let source = &nearest.credential.source;
    let mut sources = evidence.keyring.sources.iter();
    let is_only = sources.any(|one| one.source == *source && one.keys == 1);
    let is_secret = matches!(source, CredentialSource::SecretFile { .. });
    if !is_only || !is_secret || nearest.rule == MatchRule::Empty {
        return fix;
    }
    let command = create_command(source, docker_server(domain));
    format!("{}: {command}.", fix.trim_end_matches('.'))
}

fn first_problem(
    evidence: &Evidence,
    is: fn(&SourceProblem) -> bool,
) -> Option<(&CredentialSource, &SourceProblem)> {
    evidence
        .keyring
        .sources
        .iter()
        .find_map(|s| Some((&s.source, s.problem.as_ref().filter(|problem| is(problem))?)))
}

/// The source may have a credential, but could not be read.
fn is_unread(problem: &SourceProblem) -> bool {
    matches!(
        problem,
        SourceProblem::HelperFailed { .. } | SourceProblem::Unread { .. }
    )
}

/// The kubelet fails every pull of a pod that names a Secret whose docker config can't be decoded
/// (kubernetes `pkg/credentialprovider/secrets`, `MakeDockerKeyring`), needed or not.
fn stops_every_pull(source: &CredentialSource, problem: &SourceProblem) -> bool {
    let is_a_secret =
        matches!(source, CredentialSource::SecretFile { name, .. } if !name.is_empty());
    is_a_secret && matches!(problem, SourceProblem::Malformed { .. })
}

fn mismatches(evidence: &Evidence, is: fn(&KeyMismatch) -> bool) -> Vec<String> {
    let all = evidence.keyring.mismatches.iter().filter(|m| is(m));
    all.take(MOST_KEYS).map(mismatch_words).collect()
}

/// The most keys that are listed.
const MOST_KEYS: usize = 6;

fn mismatch_words(mismatch: &KeyMismatch) -> String {
    format!("{}: {}", mismatch.credential, mismatch.rule)
}

/// The key that is probably meant for this image. A key for another registry is not: it does not match for
/// good reason.
fn nearest(evidence: &Evidence, is: fn(&KeyMismatch) -> bool) -> Option<&KeyMismatch> {
    let all = evidence.keyring.mismatches.iter().filter(|m| is(m));
    nearest_key(all, evidence.reference.domain())
}

/// The key that is probably meant for images of a domain: the one whose host is most like it. `None` if
/// all are for other registries.
pub fn nearest_key<'a>(
    mismatches: impl Iterator<Item = &'a KeyMismatch>,
    domain: &str,
) -> Option<&'a KeyMismatch> {
    let image = host_of(domain);
    mismatches
        .filter_map(|m| Some((distance(m, &image)?, m)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, m)| m)
}

/// How far a key is from the host of an image; `None` if it is for another registry.
fn distance(mismatch: &KeyMismatch, image: &str) -> Option<usize> {
    const HUB: &[&str] = &["docker.io", "docker.com"];
    if mismatch.rule == MatchRule::Empty {
        return Some(0);
    }
    let key = host_of(&mismatch.credential.key);
    if key == image {
        return Some(1);
    }
    let is_hub = |host: &str| is_below(host, HUB);
    if is_hub(&key) && is_hub(image) {
        return Some(2);
    }
    if key.parse::<IpAddr>().is_ok() || image.parse::<IpAddr>().is_ok() {
        return None;
    }
    let common = key
        .rsplit('.')
        .zip(image.rsplit('.'))
        .take_while(|(a, b)| a == b)
        .count();
    // `com.cn`, `co.uk`: two common labels are not a common domain.
    let second = image.rsplit('.').nth(1).unwrap_or_default();
    let is_double = image.rsplit('.').next().is_some_and(|top| top.len() == 2)
        && matches!(second, "ac" | "co" | "com" | "edu" | "gov" | "net" | "org");
    let least = if is_double { 3 } else { 2 };
    (common >= least).then(|| 10 + image.split('.').count().saturating_sub(common))
}

/// The host of a server key or of an image's domain, without scheme, port and path.
fn host_of(key: &str) -> String {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or(authority),
    };
    host.to_ascii_lowercase()
}

/// A pull succeeds with one credential, but another was rejected before it.
pub(super) fn candidates(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(accepted) = evidence.walk.accepted() else {
        return;
    };
    let before = evidence.walk.attempts.iter().take_while(|a| *a != accepted);
    // A rejected anonymous attempt is not a fault.
    for attempt in before.filter(|a| a.credential.is_some()) {
        let lacks_right =
            attempt.token.done().is_some() || matches!(attempt.head.status(), Some(403 | 404));
        let cause = if lacks_right {
            Cause::AuthDenied
        } else {
            Cause::AuthBadCred
        };
        let (first, then) = (who(attempt), who(accepted));
        findings.push(
            at(cause, Role::Registry, Phase::Manifest)
                .severity(Severity::Warning)
                .fact(format!("tried first, {first}: {}", outcome(attempt)))
                .fact(format!("then {then}: accepted"))
                .hint(format!("Fix or remove {first}: each pull tries it first.")),
        );
    }
}

/// Sources that are malformed although another credential was tried.
pub(super) fn sources(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let reported = findings.iter().filter(|f| f.cause == Cause::SecretFormat);
    let reported: Vec<String> = reported.flat_map(|f| f.evidence.clone()).collect();
    for source in &evidence.keyring.sources {
        let Some(problem) = source.problem.as_ref().filter(|one| !is_unread(one)) else {
            continue;
        };
        let fact = format!("{}: {problem}", source.source);
        // A kubelet does not read a user's docker config: if no credential was required, it does not matter.
        let is_a_secret = matches!(source.source, CredentialSource::SecretFile { .. });
        let was_wanted =
            evidence.walk.accepted().is_some() || !evidence.keyring.candidates.is_empty();
        if reported.contains(&fact) || (!is_a_secret && !was_wanted) {
            continue;
        }
        let stops_all = stops_every_pull(&source.source, problem);
        findings.push(
            new(Cause::SecretFormat)
                .severity(Severity::critical_if(stops_all))
                .fact(fact)
                .hint(recreate(evidence, &source.source)),
        );
    }
}

/// A pull secret is probably meant for this image but has no effect: the pull is anonymous, within anonymous
/// limits.
pub(super) fn unused_secret(evidence: &Evidence) -> Option<Finding> {
    let accepted = evidence.walk.accepted()?;
    if accepted.credential.is_some() || !evidence.keyring.candidates.is_empty() {
        return None;
    }
    let is_secret =
        |m: &KeyMismatch| matches!(m.credential.source, CredentialSource::SecretFile { .. });
    let nearest = nearest(evidence, is_secret)?;
    Some(
        new(Cause::SecretKeyMismatch)
            .severity(Severity::Warning)
            .facts(mismatches(evidence, is_secret))
            .fact("the image is pulled anonymously instead, within the registry's anonymous limits")
            .hint(format!(
                "If it is meant for this image: {}",
                recreate_with(evidence, nearest)
            )),
    )
}
