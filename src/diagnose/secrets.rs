//! The outcome of each Secret that a pod names, by its name alone: in the pod's order, in which the kubelet
//! tries them.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::credential::{CredentialId, CredentialSource};
use crate::model::evidence::{Attempt, Challenge, Evidence, Walk};
use crate::model::fault::{HttpFault, TokenFault, instant};
use crate::model::step::Step;
use crate::model::text::joined;
use crate::model::workload::{Found, PodUse, SecretLookup};

/// One Secret of a pod.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SecretVerdict {
    /// The pod's namespace; `None` if its manifest names none.
    pub namespace: Option<String>,
    /// The Secret's name in the pod's imagePullSecrets.
    pub name: String,
    /// The outcome, for programs.
    pub outcome: SecretOutcome,
    /// The outcome with the evidence, for people.
    #[serde(alias = "says")]
    pub message: String,
}

/// The outcome of one Secret.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretOutcome {
    /// The registry accepts it.
    Accepted,
    /// The registry or its token service rejects it.
    Refused,
    /// It was sent, but the response does not show whether it is accepted.
    Failed,
    /// One of its keys matches this image, but it was not tried.
    NotTried,
    /// None of its keys matches this image.
    NoKey,
    /// Its content can't be used.
    Unusable,
    /// It does not exist in the pod's namespace.
    Absent,
    /// It can't be read from this vantage point.
    Unread,
    /// It was not among the Secrets given to this check.
    NotGiven,
}

/// The verdicts for the Secrets of all pods; each Secret once.
pub(super) fn verdicts(evidence: &Evidence) -> Vec<SecretVerdict> {
    let verdict = |(pod, sought): (&PodUse, &SecretLookup)| {
        let (outcome, message) = judge(evidence, pod, sought);
        SecretVerdict {
            namespace: pod.namespace.clone(),
            name: sought.name.clone(),
            outcome,
            message,
        }
    };
    sought(evidence).map(verdict).collect()
}

/// The Secrets that pods name, each once, with the first pod that does.
pub(super) fn sought(evidence: &Evidence) -> impl Iterator<Item = (&PodUse, &SecretLookup)> {
    let mut seen = BTreeSet::new();
    let pods = evidence.pods.iter();
    let all = pods.flat_map(|pod| pod.secrets.iter().map(move |sought| (pod, sought)));
    all.filter(move |(pod, sought)| seen.insert((&pod.namespace, &sought.name)))
}

fn judge(evidence: &Evidence, pod: &PodUse, sought: &SecretLookup) -> (SecretOutcome, String) {
    match &sought.found {
        Found::Here => of_content(evidence, pod.namespace.as_deref(), &sought.name),
        Found::Elsewhere { namespaces } if pod.is_of_cluster() => (
            SecretOutcome::Absent,
            format!(
                "the API server has no Secret of this name there, but one in {}; the kubelet continues without it",
                in_namespaces(namespaces)
            ),
        ),
        Found::Elsewhere { namespaces } => (
            SecretOutcome::NotGiven,
            format!(
                "given for {} only; Secrets do not cross namespaces",
                in_namespaces(namespaces)
            ),
        ),
        Found::Absent => (
            SecretOutcome::Absent,
            "the API server has no Secret of this name there; the kubelet continues without it"
                .to_owned(),
        ),
        Found::Unread { reason } => (SecretOutcome::Unread, format!("not read: {reason}")),
        Found::NotGiven { .. } => (
            SecretOutcome::NotGiven,
            "not given to this check".to_owned(),
        ),
    }
}

fn of_content(evidence: &Evidence, pods: Option<&str>, name: &str) -> (SecretOutcome, String) {
    let is_its = |source: &CredentialSource| match source {
        CredentialSource::SecretFile {
            namespace,
            name: own,
            ..
        } => {
            let same = namespace.as_deref().zip(pods).is_none_or(|(a, b)| a == b);
            own == name && same
        }
        _ => false,
    };
    let of_id = |id: &CredentialId| is_its(&id.source);
    let keyring = &evidence.keyring;
    let attempts = evidence.walk.attempts.iter();
    let tried: Vec<&Attempt> = attempts
        .filter(|attempt| attempt.credential.as_ref().is_some_and(of_id))
        .collect();
    if tried.iter().any(|attempt| attempt.head.done().is_some()) {
        let message = "the registry accepts it".to_owned();
        return (SecretOutcome::Accepted, message);
    }
    if let Some(last) = tried.last() {
        let fault = last.failure();
        let fault = fault.unwrap_or_else(|| "it was not sent".to_owned());
        let at = last.at.map_or_else(String::new, |at| {
            format!(", at {at}; not sent again since then")
        });
        if is_refused(last) {
            return (SecretOutcome::Refused, format!("rejected: {fault}{at}"));
        }
        let message = format!("no conclusive response: {fault}");
        return (SecretOutcome::Failed, message);
    }
    if keyring.candidates.iter().any(of_id) {
        let why = if evidence.walk.accepted().is_some() {
            "another one was accepted before it"
        } else {
            "the check ended before it"
        };
        let message = format!("one of its keys matches; not tried: {why}");
        return (SecretOutcome::NotTried, message);
    }
    let source = keyring.sources.iter().find(|one| is_its(&one.source));
    if let Some(problem) = source.and_then(|source| source.problem.as_ref()) {
        return (SecretOutcome::Unusable, format!("can't be used: {problem}"));
    }
    let mismatches = keyring.mismatches.iter();
    let rules: Vec<String> = mismatches
        .filter(|one| of_id(&one.credential))
        .take(MOST_KEYS)
        .map(|one| format!("'{}' ({})", one.credential.key, one.rule))
        .collect();
    let message = if rules.is_empty() {
        "it has no key".to_owned()
    } else {
        format!("none of its keys matches this image: {}", rules.join(", "))
    };
    (SecretOutcome::NoKey, message)
}

/// The result of a credential that matches the image, in a few words: `accepted`, `rejected (401)`, `not tried (…)`.
pub fn result(evidence: &Evidence, id: &CredentialId) -> String {
    let walks = || [&evidence.walk].into_iter().chain(&evidence.others);
    let of = |walk: &Walk| {
        let mut attempts = walk.attempts.iter().rev();
        attempts
            .find(|attempt| attempt.credential.as_ref() == Some(id))
            .cloned()
    };
    let Some(attempt) = walks().find_map(of) else {
        let accepted = || walks().filter_map(Walk::accepted);
        let why = if accepted().any(|attempt| attempt.credential.is_some()) {
            "an earlier one was accepted"
        } else if accepted().next().is_some() {
            "the image is served without a login"
        } else {
            "the check ended before it"
        };
        return format!("not tried ({why})");
    };
    let at = attempt.at.map_or_else(String::new, |at| {
        format!(" at {}; not sent again since then", instant(at))
    });
    let code = |status: u16| format!("({status}){at}");
    let open = |fault: &HttpFault| match fault {
        HttpFault::Status { status, .. } => format!("no conclusive answer {}", code(*status)),
        _ => format!("no conclusive answer{at}"),
    };
    let token = match &attempt.token {
        Step::Failed { fault, .. } => Some(match fault {
            TokenFault::Rejected {
                fault: HttpFault::Status { status, .. },
            } => format!("rejected {}", code(*status)),
            TokenFault::Rejected { .. } => format!("rejected{at}"),
            TokenFault::Http { fault } => open(fault),
            TokenFault::RealmUntrusted { .. } | TokenFault::Unverified => {
                "not sent (the server is not to be trusted with it)".to_owned()
            }
            TokenFault::NoCredential
            | TokenFault::NoToken { .. }
            | TokenFault::BadChallenge { .. } => format!("no conclusive answer{at}"),
        }),
        _ => None,
    };
    let has_token = attempt.token.done().is_some();
    token.unwrap_or_else(|| match (&attempt.head, attempt.head.status()) {
        (Step::Done { .. }, _) if !is_sent(evidence, &attempt) => {
            "not sent (the registry requires no login)".to_owned()
        }
        (Step::Done { .. }, _) => "accepted".to_owned(),
        (_, Some(status @ (401 | 403))) if has_token => {
            format!(
                "a token was issued, and the registry rejects it {}",
                code(status)
            )
        }
        (_, Some(status @ (401 | 403))) => format!("rejected {}", code(status)),
        (_, Some(404)) => format!("sent; the registry does not find the image {}", code(404)),
        (Step::Failed { fault, .. }, _) => open(fault),
        (Step::Skipped { .. }, _) => "not tried (the check ended before it)".to_owned(),
    })
}

/// The logins that containerd's `config.toml` has for the hosts of this check, each with its result. containerd uses
/// one only if the kubelet sends no credential (`internal/cri/server/images`, `registryHosts`).
pub fn logins_of_runtime(evidence: &Evidence) -> Vec<(&CredentialId, String)> {
    let walks = [&evidence.walk].into_iter().chain(&evidence.others);
    let mut logins: Vec<(&CredentialId, String)> = Vec::new();
    for login in walks.filter_map(|walk| walk.host.login.as_ref()) {
        if logins.iter().any(|(known, _)| *known == login) {
            continue;
        }
        let result = match evidence.keyring.candidates.first() {
            Some(sent) => format!(
                "not used: the kubelet sends a credential ({sent}), and this one counts only without it"
            ),
            None => result(evidence, login),
        };
        logins.push((login, result));
    }
    logins
}

/// Whether a server required the credential. Reports of older versions do not record the challenge of the attempt.
fn is_sent(evidence: &Evidence, attempt: &Attempt) -> bool {
    let asks = |challenge: &Challenge| !matches!(challenge, Challenge::Anonymous);
    let ping = evidence.walk.ping.done();
    attempt.exchanges.iter().any(|one| one.authenticated)
        || attempt.challenge.as_ref().is_some_and(asks)
        || ping.is_some_and(|ping| asks(&ping.challenge))
}

/// Keys of a Secret that are listed with their reason.
const MOST_KEYS: usize = 4;

fn is_refused(attempt: &Attempt) -> bool {
    match attempt.token.fault() {
        Some(fault) => matches!(fault, TokenFault::Rejected { .. }),
        None => matches!(attempt.head.status(), Some(401 | 403 | 404)),
    }
}

/// The namespaces that a Secret was given for.
pub(super) fn in_namespaces(namespaces: &[String]) -> String {
    let mut named = namespaces.iter().filter(|name| !name.is_empty()).peekable();
    match named.peek() {
        None => "another namespace".to_owned(),
        Some(_) => format!("namespace {}", joined(named)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::fixture::{REGISTRY, credential, failed, healthy, secret, status};
    use crate::model::credential::{KeyMismatch, MatchRule, SourceEvidence, SourceProblem};
    use crate::model::endpoint::Role;
    use crate::model::evidence::Access;
    use crate::model::fault::Phase;
    use crate::model::step::Skip;
    use crate::model::workload::{ContainerKind, PodUse, PullPolicy};

    /// The verdicts for a pod that names these.
    fn outcomes(mut evidence: Evidence, secrets: &[(&str, Found)]) -> Vec<(String, SecretOutcome)> {
        let pod = PodUse {
            path: "the cluster".to_owned(),
            kind: "Pod".to_owned(),
            namespace: Some("shop".to_owned()),
            name: "a".to_owned(),
            found_at: None,
            container: "app".to_owned(),
            container_kind: ContainerKind::Container,
            policy: PullPolicy::Always,
            policy_is_default: false,
            image_present: false,
            pull_secrets: secrets.iter().map(|(name, _)| (*name).to_owned()).collect(),
            service_account: None,
            eip: Vec::new(),
            progress_deadline: None,
            secrets: secrets
                .iter()
                .map(|(name, found)| SecretLookup {
                    name: (*name).to_owned(),
                    found: found.clone(),
                })
                .collect(),
        };
        // Several containers of a pod are reported once.
        evidence.pods = vec![pod.clone(), pod];
        let verdicts = verdicts(&evidence);
        assert!(verdicts.iter().all(|one| !one.message.is_empty()));
        verdicts
            .into_iter()
            .map(|one| (one.name, one.outcome))
            .collect()
    }

    #[test]
    fn each_secret_has_its_own_verdict() {
        use SecretOutcome::{Absent, Accepted, NoKey, NotTried, Unread, Unusable};
        let mut evidence = healthy();
        let other = |name: &str| CredentialId {
            source: secret(name),
            key: "other.test".to_owned(),
        };
        evidence.keyring.candidates.push(CredentialId {
            source: secret("second"),
            key: REGISTRY.to_owned(),
        });
        evidence.keyring.mismatches.push(KeyMismatch {
            credential: other("other"),
            rule: MatchRule::Host {
                key: "other.test".to_owned(),
                image: REGISTRY.to_owned(),
            },
        });
        evidence.keyring.sources.push(SourceEvidence {
            at_usual_path: false,
            source: secret("broken"),
            keys: 0,
            server_keys: Vec::new(),
            problem: Some(SourceProblem::WrongType {
                found: "Opaque".to_owned(),
            }),
            lint: Vec::new(),
            expiries: Vec::new(),
        });
        let unread = Found::Unread {
            reason: "RBAC".to_owned(),
        };
        let all = [
            ("broken", Found::Here, Unusable),
            ("other", Found::Here, NoKey),
            ("gone", Found::Absent, Absent),
            ("hidden", unread, Unread),
            ("regcred", Found::Here, Accepted),
            ("second", Found::Here, NotTried),
        ];
        let secrets: Vec<(&str, Found)> = all
            .iter()
            .map(|(name, found, _)| (*name, found.clone()))
            .collect();
        let wanted: Vec<(String, SecretOutcome)> = all
            .iter()
            .map(|(name, _, outcome)| ((*name).to_owned(), *outcome))
            .collect();
        assert_eq!(outcomes(evidence, &secrets), wanted);
        assert_eq!(outcomes(healthy(), &[]), []);
    }

    #[test]
    fn what_was_tried_with_a_credential_is_stated_beside_it() {
        let basic = || Step::Skipped {
            reason: Skip::NotNeeded,
        };
        let rejected = || {
            failed(TokenFault::Rejected {
                fault: status(401, None, true),
            })
        };
        let unavailable = || {
            failed(TokenFault::Http {
                fault: status(503, None, false),
            })
        };
        let none = || Step::Skipped {
            reason: Skip::Blocked {
                role: Role::Token,
                phase: Phase::Token,
            },
        };
        let pull = || crate::diagnose::fixture::grant(Access::Pull);
        for (token, head, expected) in [
            (rejected(), none(), "rejected (401)"),
            (unavailable(), none(), "no conclusive answer (503)"),
            (basic(), failed(status(401, None, true)), "rejected (401)"),
            (
                pull(),
                failed(status(403, None, false)),
                "a token was issued, and the registry rejects it (403)",
            ),
            (
                pull(),
                failed(status(404, None, false)),
                "sent; the registry does not find the image (404)",
            ),
            (basic(), failed(HttpFault::Timeout), "no conclusive answer"),
        ] {
            let evidence = healthy().refused(Some(credential(REGISTRY)), token, head);
            assert_eq!(result(&evidence, &credential(REGISTRY)), expected);
        }
        let mut evidence = healthy();
        let other = credential("other");
        assert_eq!(result(&evidence, &credential(REGISTRY)), "accepted");
        assert_eq!(
            result(&evidence, &other),
            "not tried (an earlier one was accepted)"
        );
        // A registry without logins got none.
        evidence.walk.attempts[0].exchanges.clear();
        if let Step::Done { value, .. } = &mut evidence.walk.ping {
            value.challenge = Challenge::Anonymous;
        }
        assert_eq!(
            result(&evidence, &credential(REGISTRY)),
            "not sent (the registry requires no login)"
        );
        evidence.walk.attempts[0].credential = None;
        assert_eq!(
            result(&evidence, &other),
            "not tried (the image is served without a login)"
        );
        evidence.walk.attempts.clear();
        assert_eq!(
            result(&evidence, &other),
            "not tried (the check ended before it)"
        );
    }

    #[test]
    fn a_login_of_config_toml_counts_only_where_the_kubelet_sends_none() {
        let login = CredentialId {
            source: CredentialSource::RuntimeConfig {
                path: "/c.toml".to_owned(),
            },
            key: REGISTRY.to_owned(),
        };
        let shown = |evidence: &Evidence| {
            let all = logins_of_runtime(evidence).into_iter();
            all.map(|(id, result)| format!("{id}: {result}"))
                .collect::<Vec<_>>()
        };
        let mut evidence = healthy();
        assert_eq!(shown(&evidence), [""; 0]);
        evidence.walk.host.login = Some(login.clone());
        // A host that is queried twice has one login.
        evidence.others = vec![evidence.walk.clone()];
        let by = format!("containerd's /c.toml key '{REGISTRY}'");
        let sent = credential(REGISTRY);
        assert_eq!(
            shown(&evidence),
            [format!(
                "{by}: not used: the kubelet sends a credential ({sent}), and this one counts only without it"
            )]
        );
        evidence.keyring.candidates.clear();
        evidence.walk.attempts[0].credential = Some(login);
        assert_eq!(shown(&evidence), [format!("{by}: accepted")]);
    }

    #[test]
    fn a_refusal_is_distinguished_from_no_answer() {
        let blocked = || Step::Skipped {
            reason: Skip::Blocked {
                role: Role::Token,
                phase: Phase::Token,
            },
        };
        for (fault, outcome) in [
            (
                TokenFault::Rejected {
                    fault: status(401, None, true),
                },
                SecretOutcome::Refused,
            ),
            (
                TokenFault::Http {
                    fault: HttpFault::Timeout,
                },
                SecretOutcome::Failed,
            ),
        ] {
            let evidence = healthy().refused(Some(credential(REGISTRY)), failed(fault), blocked());
            let outcomes = outcomes(evidence, &[("regcred", Found::Here)]);
            assert_eq!(outcomes, [("regcred".to_owned(), outcome)]);
        }
    }
}
