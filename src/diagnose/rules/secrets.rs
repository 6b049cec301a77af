//! Rules for a pull secret's content: probable mistakes, and when its credentials expire.

use jiff::{SignedDuration, Timestamp};

use super::auth::{docker_server, is_of_password};
use super::finding::new;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::model::credential::{
    CredentialSource, Expiry, ExpirySign, KeyringEvidence, Lint, LintRule, SourceEvidence,
    SourceProblem,
};
use crate::model::evidence::Evidence;
use crate::model::fault::{TokenFault, instant};
use crate::model::step::Step;

/// The name of the Secret that CCE renews.
const CCES_OWN: &str = "default-secret";

/// Warn this long before expiry if the lifetime is unknown: a token that lives for an hour must not be
/// reported during its whole life.
const SOON: SignedDuration = SignedDuration::from_hours(1);

/// Probable mistakes in a source. If the registry rejects the affected credential, that is the likely reason.
pub(super) fn lint(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let keyring = &evidence.keyring;
    for source in &keyring.sources {
        // Mistakes in a user's docker config don't matter if no credential of it is needed.
        let is_secret = matches!(source.source, CredentialSource::SecretFile { .. });
        let is_candidate = keyring.candidates.iter().any(|c| c.source == source.source);
        if !is_secret && !is_candidate {
            continue;
        }
        let refused = |key: &String| is_refused(evidence, source, |of| of == key);
        let is_spoiling =
            |lint: &&Lint| lint.rule.spoils_password() && lint.key.as_ref().is_some_and(refused);
        let spoiling: Vec<&Lint> = source.lint.iter().filter(is_spoiling).collect();
        let mut finding = linted(source, Severity::critical_if(!spoiling.is_empty()));
        if !spoiling.is_empty() && spoiling.iter().all(|lint| lint.rule.is_likely_only()) {
            finding = finding.map(|finding| {
                finding
                    .confidence(Confidence::Medium)
                    .fact("the registry rejects it; the password itself may also be wrong")
            });
        }
        findings.extend(finding);
    }
}

/// The pull depends on this credential: it was rejected, and no other was accepted. A fault after a token
/// was issued for it (no such tag), or one that is not about it (503), does not count.
fn is_refused(evidence: &Evidence, source: &SourceEvidence, is_of: impl Fn(&str) -> bool) -> bool {
    evidence.walk.accepted().is_none()
        && evidence.walk.attempts.iter().any(|attempt| {
            let id = attempt.credential.as_ref();
            let is_its = id.is_some_and(|id| id.source == source.source && is_of(&id.key));
            let is_rejected = match &attempt.token {
                Step::Failed { fault, .. } => matches!(fault, TokenFault::Rejected { .. }),
                Step::Done { .. } => false,
                Step::Skipped { .. } => matches!(attempt.head.status(), Some(401 | 403)),
            };
            is_its && is_rejected
        })
}

/// One finding for all mistakes in a source.
fn linted(source: &SourceEvidence, severity: Severity) -> Option<Finding> {
    if source.lint.is_empty() {
        return None;
    }
    Some(
        new(Cause::SecretFormat)
            .severity(severity)
            .facts(
                shown(source)
                    .take(MAX_SHOWN)
                    .map(|lint| format!("{}: {lint}", source.source)),
            )
            .hint(fix_hints(source)),
    )
}

/// The mistakes to report: a missing password is not, if an identity token takes its place.
fn shown(source: &SourceEvidence) -> impl Iterator<Item = &Lint> {
    let has_token = |key: &Option<String>| {
        let mut all = source.lint.iter();
        all.any(|lint| lint.rule == LintRule::IdentityToken && lint.key == *key)
    };
    let lint = source.lint.iter();
    lint.filter(move |lint| lint.rule != LintRule::EmptyPassword || !has_token(&lint.key))
}

/// The fixes for all mistakes, each once.
fn fix_hints(source: &SourceEvidence) -> String {
    let whose = &source.source;
    let mut hints: Vec<String> = Vec::new();
    for lint in &source.lint {
        let hint = fix_hint(whose, lint);
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints.join(" ")
}

fn fix_hint(whose: &CredentialSource, lint: &Lint) -> String {
    let key = lint.key.as_deref().unwrap_or_default();
    let is_azure = key.contains(".azurecr.");
    match &lint.rule {
        LintRule::IdentityToken if is_azure => format!(
            "Create {whose} again with a user and a password: a service principal, or a token of the registry (`az acr \
                         login` gives an identity token)."
        ),
        LintRule::IdentityToken
        | LintRule::EmptyPassword
        | LintRule::EmptyUser
        | LintRule::NoLogin => {
            format!("Create {whose} again with a user and a password.")
        }
        LintRule::NoAuths | LintRule::ConfigAsText { .. } => format!(
            "Write the docker config itself into .dockerconfigjson of {whose}: {{\"auths\": {{…}}}}."
        ),
        LintRule::AuthsInLegacy => {
            format!("Create {whose} again with the type kubernetes.io/dockerconfigjson.")
        }
        LintRule::Placeholder { .. }
        | LintRule::LikeVariable { .. }
        | LintRule::NoValue { .. }
        | LintRule::RobotCut => {
            format!(
                "Create {whose} again with the actual value; in single quotes, a shell does not expand a $."
            )
        }
        _ => format!("Create {whose} again without the mistake named above."),
    }
}

/// Credentials that expired or expire soon.
pub(super) fn expiry(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let accepted = evidence.walk.accepted();
    let is_open = accepted.is_some_and(|attempt| attempt.credential.is_none());
    let accepted = accepted.and_then(|attempt| attempt.credential.as_ref());
    for source in &evidence.keyring.sources {
        for expiry in &source.expiries {
            let is_of = |key: &str| expiry.key.as_ref().is_none_or(|own| own == key);
            let works = accepted.is_some_and(|id| id.source == source.source && is_of(&id.key));
            let is_refused = is_refused(evidence, source, is_of);
            let severity = Severity::critical_if(is_refused);
            let finding = expired(source, expiry, evidence.started, severity);
            findings.extend(finding.map(|finding| {
                if is_refused && is_unknown(evidence) && short_lived(expiry.sign).is_some() {
                    Finding {
                        cause: Cause::CredentialExpired,
                        severity,
                        confidence: Confidence::Medium,
                        ..finding
                    }
                    .fact("the registry rejects it; when it was issued is unknown")
                } else if is_open {
                    finding.severity(Severity::Info).fact(
                        "the registry serves this image to anyone, so this pull does not need it",
                    )
                } else if works && short_lived(expiry.sign).is_some() {
                    finding.severity(Severity::Info)
                } else if works && finding.cause != Cause::CredentialExpiring {
                    finding
                        .confidence(Confidence::Medium)
                        .fact("the registry accepts it nevertheless")
                } else {
                    finding
                }
            }));
        }
    }
}

/// The finding for one expiry; `severity` applies if it is past.
fn expired(
    source: &SourceEvidence,
    expiry: &Expiry,
    now: Timestamp,
    severity: Severity,
) -> Option<Finding> {
    let of = expiry
        .key
        .as_ref()
        .map_or_else(String::new, |key| format!(" key '{key}'"));
    let sign = match expiry.sign {
        ExpirySign::TokenClaim => "its password is a token (JWT) whose `exp`",
        ExpirySign::EcrToken => {
            "its password is an Amazon ECR token, valid for 12 h, whose `expiration`"
        }
        ExpirySign::Annotation
        | ExpirySign::GoogleAccessToken
        | ExpirySign::GitlabJobToken
        | ExpirySign::GithubJobToken => "its annotation swr-auth-may-expires-at",
    };
    let who = format!("{}{of}", source.source);
    if let Some(life) = short_lived(expiry.sign) {
        return Some(
            new(Cause::CredentialExpiring)
                .fact(format!("{who}: {life}"))
                .hint(format!(
                    "Create {} again with a credential that does not expire, or renew it automatically.",
                    source.source
                )),
        );
    }
    let is_copy = expiry.sign == ExpirySign::Annotation
        && matches!(&source.source, CredentialSource::SecretFile { name, .. } if !name.is_empty() && name != CCES_OWN);
    let Some(end) = expiry.expires else {
        return Some(
            new(Cause::CredentialExpiring)
                .severity(Severity::Info)
                .confidence(Confidence::Low)
                .fact(format!("{who}: {sign} can't be read as a time"))
                .hint("Check the annotation: `kubectl get secret NAME -o yaml`."),
        );
    };
    let is_past = end <= now;
    let fact = format!(
        "{who}: {sign} is {}, {}",
        instant(end),
        if is_past {
            format!("{} ago", span(now.duration_since(end)))
        } else {
            format!("in {}", span(end.duration_since(now)))
        }
    );
    if is_copy {
        return Some(
            new(Cause::SecretCopyExpired)
                .severity(if is_past { severity } else { Severity::Warning })
                .fact(fact)
                .fact(format!("CCE renews only '{CCES_OWN}', not copies of it")),
        );
    }
    if is_past {
        return Some(
            new(Cause::CredentialExpired)
                .severity(severity)
                .fact(fact)
                .hint(format!(
                    "Create {} again with a fresh credential, and find out what should have renewed it.",
                    source.source
                )),
        );
    }
    let left = end.duration_since(now);
    let life = expiry.issued.map(|issued| end.duration_since(issued));
    let is_soon = match life {
        Some(life) if life.is_positive() => left.as_secs() < life.as_secs() / 10,
        _ => left < SOON,
    };
    is_soon.then(|| {
        new(Cause::CredentialExpiring)
            .fact(fact)
            .facts(life.map(|life| format!("its whole lifetime is {}", span(life))))
    })
}

/// A credential was rejected as unknown; a 403 may be about rights.
fn is_unknown(evidence: &Evidence) -> bool {
    evidence.walk.attempts.iter().any(|attempt| {
        match (attempt.token.fault(), attempt.head.fault()) {
            (Some(TokenFault::Rejected { fault }), _) | (None, Some(fault)) => {
                is_of_password(fault)
            }
            _ => false,
        }
    })
}

/// What is known about the lifetime of a credential without an expiry time.
fn short_lived(sign: ExpirySign) -> Option<&'static str> {
    match sign {
        ExpirySign::TokenClaim | ExpirySign::Annotation | ExpirySign::EcrToken => None,
        ExpirySign::GoogleAccessToken => Some(
            "its password is a Google access token, as its user shows, valid for an hour unless requested otherwise",
        ),
        ExpirySign::GitlabJobToken => Some(
            "its user is 'gitlab-ci-token': the password is valid until the CI job that created it ends",
        ),
        ExpirySign::GithubJobToken => Some(
            "its password is a token of a GitHub workflow or app (ghs_…), valid until the job ends, or for an hour",
        ),
    }
}

/// `12 min`, `3 h`, `40 d`.
fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Judges a pull secret on its own, without a request to any registry: mistakes in it, and its expiry.
pub fn secret(source: &SourceEvidence, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(problem) = &source.problem {
        let finding = new(Cause::SecretFormat).fact(format!("{}: {problem}", source.source));
        let is_no_secret =
            matches!(&source.source, CredentialSource::SecretFile { name, .. } if name.is_empty());
        findings.push(if is_no_secret && matches!(problem, SourceProblem::Malformed { .. }) {
            finding.hint("Give a file with a Secret, as `kubectl get secret NAME -n NAMESPACE -o yaml` prints it. A docker config becomes a Secret with `kubectl create secret generic NAME --from-file=.dockerconfigjson=FILE --type=kubernetes.io/dockerconfigjson --dry-run=client -o yaml | pullpath secret check -`.")
        } else {
            finding
        });
    }
    // If every key is spoiled, nothing can be pulled with it.
    let spoiled = |key: &String| {
        source
            .lint
            .iter()
            .any(|lint| lint.key.as_ref() == Some(key) && lint.rule.spoils_entry())
    };
    let useless = source.problem.is_none() && source.server_keys.iter().all(spoiled);
    findings.extend(linted(source, Severity::critical_if(useless)));
    let expiries = source.expiries.iter();
    findings.extend(expiries.filter_map(|one| expired(source, one, now, Severity::Critical)));
    findings
}

/// Why none of a secret's keys matches an image (`Reference::name`); `None` if one does.
pub fn secret_for_image(image: &str, keyring: &KeyringEvidence) -> Option<Finding> {
    if !keyring.candidates.is_empty() {
        return None;
    }
    let facts = keyring
        .mismatches
        .iter()
        .take(MAX_SHOWN)
        .map(|m| format!("{}: {}", m.credential, m.rule));
    let server = docker_server(image.split('/').next().unwrap_or(image));
    Some(
        new(Cause::SecretKeyMismatch)
            .fact(format!("no server key matches {image}"))
            .facts(facts)
            .hint(format!(
                "If it is meant for this image, create it again with --docker-server={server}."
            )),
    )
}

const MAX_SHOWN: usize = 12;
