//! Credentials: which were there, which were tried, and what the registry said to each.

use super::{at, new, transport};
use crate::diagnose::cause::Cause;
use crate::diagnose::{Confidence, Finding, Severity};
use crate::model::credential::{CredentialSource, KeyMismatch, MatchRule, SourceProblem};
use crate::model::endpoint::Role;
use crate::model::evidence::{Access, Attempt, Challenge, Evidence, Step};
use crate::model::fault::{HttpFault, Phase, TokenFault};

/// Every attempt was refused, or none could be made.
pub(super) fn refused(evidence: &Evidence, findings: &mut Vec<Finding>) {
    if evidence.accepted().is_some() {
        return;
    }
    let Some(last) = evidence.attempts.last() else {
        return;
    };
    let finding = match (&last.token, &last.head) {
        (Step::Failed { fault, .. }, _) => no_token(evidence, last, fault),
        (
            _,
            Step::Failed {
                fault: HttpFault::RedirectBlocked { .. },
                ..
            },
        ) => return,
        (_, Step::Failed { fault, .. }) => no_head(evidence, last, fault),
        _ => return,
    };
    findings.push(finding.facts(verdicts(evidence)));
}

/// A verdict for each candidate, when there was more than one.
fn verdicts(evidence: &Evidence) -> Vec<String> {
    if evidence.attempts.len() < 2 {
        return Vec::new();
    }
    evidence
        .attempts
        .iter()
        .map(|attempt| format!("tried {}: {}", who(attempt), outcome(attempt)))
        .collect()
}

fn who(attempt: &Attempt) -> String {
    attempt
        .credential
        .as_ref()
        .map_or_else(|| "anonymously".to_owned(), ToString::to_string)
}

fn outcome(attempt: &Attempt) -> String {
    match (&attempt.token, &attempt.head) {
        (Step::Failed { fault, .. }, _) => fault.to_string(),
        (_, Step::Failed { fault, .. }) => fault.to_string(),
        (_, Step::Done { .. }) => "accepted".to_owned(),
        _ => "not sent".to_owned(),
    }
}

fn no_token(evidence: &Evidence, attempt: &Attempt, fault: &TokenFault) -> Finding {
    let token = |cause| at(cause, Role::Token, Phase::Token);
    match fault {
        TokenFault::NoCredential => no_credential(evidence, Role::Registry, Phase::Manifest),
        TokenFault::Rejected { fault } => match &attempt.credential {
            Some(credential) => token(Cause::AuthBadCred)
                .fact(format!("{credential}: {fault}"))
                .fact(asked(evidence))
                .hint(format!("Check user and password of {}, then create the Secret anew.", credential.source)),
            None => no_credential(evidence, Role::Token, Phase::Token).fact(format!("asked for an anonymous token: {fault}")),
        },
        TokenFault::RealmUntrusted { realm, reason } => token(Cause::RealmUntrusted)
            .fact(format!("the registry names {realm} as its token service: {reason}"))
            .fact("nothing was sent there; containerd would send the credential")
            .hint("Correct the realm in the registry's configuration to the https URL of its token service."),
        TokenFault::NoToken { method, fields } => token(Cause::AuthTokenFormat)
            .fact(format!("{method} was answered 200 with the fields {}", fields.join(", ")))
            .hint("Let the token service answer POST with access_token, or with 405 so that containerd asks by GET."),
        TokenFault::BadChallenge { reason } => at(Cause::AuthBadChallenge, Role::Registry, Phase::Ping)
            .fact(reason.clone())
            .hint("Configure the registry, or the proxy in front of it, to ask for Basic or Bearer."),
        TokenFault::Http { fault } => transport(fault, Role::Token, Phase::Token).unwrap_or_else(|| {
            token(Cause::NotARegistry)
                .confidence(Confidence::Medium)
                .fact(format!("the realm in the registry's challenge: {fault}"))
                .hint("Check the realm in the registry's configuration: no token service answers there.")
        }),
    }
}

fn asked(evidence: &Evidence) -> String {
    match evidence.ping.done().map(|ping| &ping.challenge) {
        Some(Challenge::Bearer { realm, service, .. }) => {
            let service = service
                .as_ref()
                .map_or_else(String::new, |s| format!(" for service '{s}'"));
            format!("the token service is {realm}{service}")
        }
        Some(Challenge::Basic { .. }) => "the registry asks for Basic".to_owned(),
        _ => "the registry asked at the manifest".to_owned(),
    }
}

/// The registry's word on the manifest, with a token or without.
fn no_head(evidence: &Evidence, attempt: &Attempt, fault: &HttpFault) -> Finding {
    let registry = |cause| at(cause, Role::Registry, Phase::Manifest);
    if let Some(finding) = transport(fault, Role::Registry, Phase::Manifest) {
        return finding;
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
        ..
    } = fault
    else {
        return registry(Cause::Unexplained).fact(fault.to_string()).hint(
            "Send the JSON report (`-o json`; it holds no secret) to Pullpath's maintainers.",
        );
    };
    let code = code.as_deref().map(str::to_ascii_uppercase);
    let image = &evidence.reference;
    let anonymous = attempt.credential.is_none();
    let had_token = attempt.token.done().is_some();
    match (status, code.as_deref()) {
        (_, Some("MANIFEST_UNKNOWN" | "MANIFEST_BLOB_UNKNOWN")) => registry(Cause::ManifestUnknown)
            .fact(format!("'{}' of {}: {fault}", image.version(), image.name()))
            .facts(unseen_rights(anonymous))
            .hint(format!("List the tags of {} in the registry's console or with `skopeo list-tags`, and correct the image.", image.name())),
        (_, Some("NAME_UNKNOWN" | "NAME_INVALID")) => registry(Cause::NameUnknown)
            .fact(format!("{}: {fault}", image.name()))
            .facts(unseen_rights(anonymous))
            .hint(format!("Correct '{}' in the image's name: project, organisation, name.", image.repository())),
        (404, _) if evidence.ping.done().is_none() => registry(Cause::NotARegistry)
            .confidence(Confidence::Medium)
            .fact(format!("/v2/: {}", evidence.ping.fault().map_or_else(String::new, ToString::to_string)))
            .fact(format!("the manifest: {fault}"))
            .hint(format!("Look at https://{}/v2/ to see what answers; correct the host of the image, or the route before the registry.", evidence.reference.domain())),
        (404, _) => registry(Cause::ManifestUnknown)
            .confidence(Confidence::Medium)
            .fact(format!("{image}: {fault}, without a registry's code"))
            .facts(unseen_rights(anonymous))
            .hint("Check the repository's path and the tag in the registry's console."),
        (403, None) if !challenged && !had_token && evidence.ping.done().is_none() => registry(Cause::Fw403)
            .confidence(Confidence::Medium)
            .fact(format!("{fault}, without a challenge and without a registry's error body"))
            .facts(evidence.rate_limit.as_ref().and_then(|limit| Some(format!("we are seen as {}", limit.source.as_ref()?))))
            .hint("Have this network's public address (of its EIP or NAT gateway) put on the registry's allow-list; a web filter on the way answers like that too."),
        (401 | 403, _) if anonymous => {
            no_credential(evidence, Role::Registry, Phase::Manifest).fact(format!("asked anonymously: {fault}"))
        }
        (401, _) if !had_token => registry(Cause::AuthBadCred)
            .fact(format!("{}: {fault}", who(attempt)))
            .hint(format!("Check user and password of {}, then create the Secret anew.", who(attempt))),
        (401 | 403, _) => {
            let grant = attempt.token.done().map(|grant| grant.access);
            let fact = match grant {
                Some(Access::NoPull) => "a token was given, and it holds no right to pull from this repository",
                Some(Access::Pull) => "a token with the right to pull was given, and the registry refuses it all the same",
                Some(Access::Unreadable) => "a token was given; what it allows can't be read",
                None => "the registry knows the user and refuses",
            };
            let confidence = if grant == Some(Access::Pull) { Confidence::Medium } else { Confidence::High };
            registry(Cause::AuthDenied)
                .confidence(confidence)
                .fact(format!("{}: {fault}", who(attempt)))
                .fact(fact)
                .hint(format!("Check the spelling of '{}', then give this user the right to pull it.", image.repository()))
        }
        _ => registry(Cause::NotARegistry)
            .confidence(Confidence::Low)
            .fact(format!("the manifest: {fault}"))
            .hint("Ask the registry's owner what this status means there."),
    }
}

/// Registries hide what an unknown client may not see.
fn unseen_rights(anonymous: bool) -> Option<String> {
    anonymous.then(|| {
        "asked anonymously: registries may answer so for what only a login may see".to_owned()
    })
}

/// The registry wants a credential and none matches: because there is none, or because keys do not fit.
fn no_credential(evidence: &Evidence, leg: Role, phase: Phase) -> Finding {
    let keyring = &evidence.keyring;
    let usable: Vec<&KeyMismatch> = keyring
        .mismatches
        .iter()
        .filter(|m| m.rule != MatchRule::Empty)
        .collect();
    if let Some(source) = keyring
        .sources
        .iter()
        .find(|s| is_broken(s.problem.as_ref()))
    {
        let problem = source
            .problem
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        return at(Cause::SecretFormat, leg, phase)
            .fact(format!("{}: {problem}", source.source))
            .hint("Create it anew: `kubectl create secret docker-registry NAME --docker-server=... --docker-username=... --docker-password=...`.");
    }
    if let Some(nearest) = nearest(&usable) {
        let domain = evidence.reference.domain();
        let server = if domain == "docker.io" {
            "https://index.docker.io/v1/"
        } else {
            domain
        };
        return at(Cause::SecretKeyMismatch, leg, phase)
            .confidence(Confidence::Medium)
            .facts(usable.iter().take(6).map(|m| format!("{}: {}", m.credential, m.rule)))
            .fact("anonymous as far as seen: the node's own credentials can't be seen from here")
            .hint(format!("Create {} anew with --docker-server={server}, exactly as the image writes its registry.", nearest.credential.source));
    }
    let fact = if keyring.sources.is_empty() {
        "no credential was given or found"
    } else {
        "no source has a key for this image"
    };
    at(Cause::AuthNoCred, leg, phase)
        .confidence(Confidence::Medium)
        .fact(fact)
        .fact("anonymous as far as seen: the node's own credentials can't be seen from here")
        .hint("Name a pull secret for this registry in the pod's imagePullSecrets, in its own namespace; give it here by --secret-file.")
}

fn is_broken(problem: Option<&SourceProblem>) -> bool {
    matches!(
        problem,
        Some(
            SourceProblem::WrongType { .. }
                | SourceProblem::NoData { .. }
                | SourceProblem::Malformed { .. }
                | SourceProblem::HelperFailed { .. }
        )
    )
}

/// The key that got furthest through the rules: a port or path that differs is nearer than a host.
fn nearest<'a>(mismatches: &[&'a KeyMismatch]) -> Option<&'a KeyMismatch> {
    let distance = |m: &KeyMismatch| match m.rule {
        MatchRule::Port { .. } | MatchRule::Path { .. } => 0,
        MatchRule::Labels { .. } => 1,
        MatchRule::Host { .. } => 2,
        MatchRule::NotAUrl | MatchRule::BadPattern { .. } | MatchRule::Empty => 3,
    };
    mismatches.iter().copied().min_by_key(|m| distance(m))
}

/// A pull succeeds with one credential, and another was refused before it.
pub(super) fn candidates(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(accepted) = evidence.accepted() else {
        return;
    };
    for attempt in evidence.attempts.iter().take_while(|a| *a != accepted) {
        findings.push(
            at(Cause::AuthBadCred, Role::Registry, Phase::Manifest)
                .severity(Severity::Warning)
                .fact(format!(
                    "tried first, {}: {}",
                    who(attempt),
                    outcome(attempt)
                ))
                .fact(format!("then {}: accepted", who(accepted)))
                .hint(format!(
                    "Mend or remove {}: each pull tries it first.",
                    who(attempt)
                )),
        );
    }
}

/// A source that is broken although the pull succeeds without it, or one that looks wrong.
pub(super) fn sources(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for source in &evidence.keyring.sources {
        let Some(problem) = &source.problem else {
            continue;
        };
        if is_broken(Some(problem))
            && evidence.accepted().is_none()
            && evidence.keyring.candidates.is_empty()
        {
            // Told as the reason, where the registry asks for a credential.
            continue;
        }
        findings.push(
            new(Cause::SecretFormat, None, None)
                .severity(Severity::Warning)
                .fact(format!("{}: {problem}", source.source))
                .hint("Create it anew: `kubectl create secret docker-registry NAME --docker-server=... --docker-username=... --docker-password=...`."),
        );
    }
}

/// A pull secret was given for this image and plays no part: the pull is anonymous, within anonymous limits.
pub(super) fn unused_secret(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let anonymous = evidence
        .accepted()
        .is_some_and(|attempt| attempt.credential.is_none());
    if !anonymous || !evidence.keyring.candidates.is_empty() {
        return;
    }
    let unused: Vec<&KeyMismatch> = evidence
        .keyring
        .mismatches
        .iter()
        .filter(|m| matches!(m.credential.source, CredentialSource::SecretFile { .. }))
        .collect();
    if let Some(nearest) = nearest(&unused) {
        findings.push(
            new(Cause::SecretKeyMismatch, None, None)
                .severity(Severity::Warning)
                .facts(unused.iter().take(6).map(|m| format!("{}: {}", m.credential, m.rule)))
                .fact("the image is pulled anonymously all the same, within the registry's anonymous limits")
                .hint(format!("If {} is meant for this image, create it anew with --docker-server={}.", nearest.credential.source, evidence.reference.domain())),
        );
    }
}
