//! What came of each Secret that a pod names, by its name alone: in the pod's order, as the kubelet tries
//! them.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::credential::{CredentialId, CredentialSource};
use crate::model::evidence::{Attempt, Evidence};
use crate::model::fault::TokenFault;
use crate::model::workload::{Found, PodUse, SecretLookup};

/// One Secret of a pod.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SecretVerdict {
    pub namespace: Option<String>,
    pub name: String,
    pub outcome: SecretOutcome,
    /// The same with what was seen, for people.
    #[serde(alias = "says")]
    pub message: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretOutcome {
    /// The registry lets it in.
    Accepted,
    /// The registry, or its token service, refuses it.
    Refused,
    /// It was sent, and there was no answer to tell by.
    Failed,
    /// A key of it is for this image, and it was not come to.
    NotTried,
    /// None of its keys is for this image.
    NoKey,
    /// What is in it can't be used.
    Unusable,
    /// There is none in the pod's namespace.
    Absent,
    /// It can't be looked into from here.
    Unread,
    /// It was not among those given.
    NotGiven,
}

/// Of all pods; each Secret once.
pub(super) fn verdicts(evidence: &Evidence) -> Vec<SecretVerdict> {
    let verdict = |(pod, sought): (&PodUse, &SecretLookup)| {
        let (outcome, says) = judge(evidence, pod.namespace.as_deref(), sought);
        SecretVerdict {
            namespace: pod.namespace.clone(),
            name: sought.name.clone(),
            outcome,
            message: says,
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

fn judge(
    evidence: &Evidence,
    namespace: Option<&str>,
    sought: &SecretLookup,
) -> (SecretOutcome, String) {
    match &sought.found {
        Found::Here => of_content(evidence, namespace, &sought.name),
        Found::Elsewhere { namespaces } => (
            SecretOutcome::NotGiven,
            format!(
                "given for namespace {} only; Secrets do not cross namespaces",
                namespaces.join(", ")
            ),
        ),
        Found::Absent => (
            SecretOutcome::Absent,
            "the API server has none of this name there; the kubelet goes on without it".to_owned(),
        ),
        Found::Unread { reason } => (SecretOutcome::Unread, format!("not read: {reason}")),
        Found::NotGiven { .. } => (SecretOutcome::NotGiven, "not given here".to_owned()),
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
        let says = "the registry lets it in".to_owned();
        return (SecretOutcome::Accepted, says);
    }
    if let Some(last) = tried.last() {
        let fault = last.failure();
        let fault = fault.unwrap_or_else(|| "it was not sent".to_owned());
        let at = last
            .at
            .map_or_else(String::new, |at| format!(", at {at}; it rests since then"));
        if is_refused(last) {
            return (SecretOutcome::Refused, format!("refused: {fault}{at}"));
        }
        let says = format!("no answer to tell by: {fault}");
        return (SecretOutcome::Failed, says);
    }
    if keyring.candidates.iter().any(of_id) {
        let why = if evidence.walk.accepted().is_some() {
            "another one was let in before it"
        } else {
            "the walk ended before it"
        };
        let says = format!("a key of it matches; not tried: {why}");
        return (SecretOutcome::NotTried, says);
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
    let says = if rules.is_empty() {
        "it has no key".to_owned()
    } else {
        format!("no key of it is for this image: {}", rules.join(", "))
    };
    (SecretOutcome::NoKey, says)
}

/// Keys of a Secret that are told with their reason.
const MOST_KEYS: usize = 4;

fn is_refused(attempt: &Attempt) -> bool {
    match attempt.token.fault() {
        Some(fault) => matches!(fault, TokenFault::Rejected { .. }),
        None => matches!(attempt.head.status(), Some(401 | 403 | 404)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::fixture::{REGISTRY, credential, failed, healthy, secret, status};
    use crate::model::credential::{KeyMismatch, MatchRule, SourceEvidence, SourceProblem};
    use crate::model::endpoint::Role;
    use crate::model::fault::HttpFault;
    use crate::model::fault::Phase;
    use crate::model::step::Skip;
    use crate::model::step::Step;
    use crate::model::workload::{ContainerKind, PodUse, PullPolicy};

    /// Of a pod that names these.
    fn told(mut evidence: Evidence, secrets: &[(&str, Found)]) -> Vec<(String, SecretOutcome)> {
        let pod = PodUse {
            path: "the cluster".to_owned(),
            kind: "Pod".to_owned(),
            namespace: Some("shop".to_owned()),
            name: "a".to_owned(),
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
        // Several containers of a pod say it once.
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
        assert_eq!(told(evidence, &secrets), wanted);
        assert_eq!(told(healthy(), &[]), []);
    }

    #[test]
    fn a_refusal_is_told_from_no_answer() {
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
            let told = told(evidence, &[("regcred", Found::Here)]);
            assert_eq!(told, [("regcred".to_owned(), outcome)]);
        }
    }
}
