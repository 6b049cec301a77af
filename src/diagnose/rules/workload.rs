//! Rules for a pod's manifest: its pull secrets, its pull policy, and the EIP it requests.

use super::finding::new;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::secrets::{in_namespaces, sought};
use crate::model::credential::CredentialSource;
use crate::model::evidence::{Access, Evidence};
use crate::model::fault::TokenFault;
use crate::model::kubelet::{PresentImages, present_images};
use crate::model::step::Step;
use crate::model::workload::{EipProblem, Found, PodUse, PullPolicy};

/// Secrets that a pod names but that are missing in its namespace.
pub(super) fn secrets(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for (pod, sought) in sought(evidence) {
        let name = &sought.name;
        let namespace = pod.namespace.as_deref().unwrap_or("the pod's namespace");
        let finding = match &sought.found {
            // A Secret that can't be read is reported when the registry requires a credential.
            Found::Here | Found::Unread { .. } => continue,
            Found::Absent => absent(&pod.place(), name, name, namespace),
            Found::Elsewhere { namespaces } if pod.is_of_cluster() => {
                elsewhere(&pod.place(), name, name, namespace, namespaces)
            }
            Found::Elsewhere { namespaces } => new(Cause::SecretOtherNamespace)
                .fact(format!("{} names Secret {name}", pod.place()))
                .fact(format!(
                    "it was given for {} only; Secrets do not cross namespaces",
                    in_namespaces(namespaces)
                ))
                .confidence(Confidence::Medium)
                .hint(format!(
                    "Run `kubectl get secret {name} -n {}`; if it exists, give it to this check too, otherwise create Secret {name} in namespace {namespace} as well.",
                    pod.namespace.as_deref().unwrap_or("NAMESPACE")
                )),
            Found::NotGiven { given } => new(Cause::SecretMissing)
                .confidence(Confidence::Medium)
                .fact(format!("{} names Secret {name}", pod.place()))
                .fact(if *given == 0 {
                    "no Secret was given to this check, so whether the cluster has it is unknown".to_owned()
                } else {
                    format!(
                        "it is not among the {given} Secrets given to this check; whether the cluster has it is unknown"
                    )
                })
                .hint(format!(
                    "Run `kubectl get secret {name} -n {}`; if it exists, give it to this check with --secret-file, otherwise create it.",
                    pod.namespace.as_deref().unwrap_or("NAMESPACE")
                )),
        };
        findings.push(finding.severity(severity(evidence, pod, &sought.found)));
    }
}

/// Secrets of the cluster that the request or the configuration names, but that do not exist.
pub(super) fn requested_secrets(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for requested in &evidence.requested_secrets {
        let (namespace, name, by) = (&requested.namespace, &requested.name, requested.named_by());
        let finding = match &requested.found {
            Found::Here | Found::Unread { .. } | Found::NotGiven { .. } => continue,
            Found::Absent => absent(&by, &format!("{namespace}/{name}"), name, namespace),
            Found::Elsewhere { namespaces } => elsewhere(
                &by,
                &format!("{namespace}/{name}"),
                name,
                namespace,
                namespaces,
            ),
        };
        findings.push(finding.severity(Severity::critical_if(requires_credential(evidence))));
    }
}

/// The API server has it in other namespaces alone.
fn elsewhere(by: &str, shown: &str, name: &str, namespace: &str, namespaces: &[String]) -> Finding {
    new(Cause::SecretOtherNamespace)
        .fact(format!("{by} names Secret {shown}"))
        .fact(format!(
            "the API server has no Secret of that name in namespace {namespace}, but one in {}; Secrets do not cross namespaces",
            namespaces.join(", ")
        ))
        .hint(format!(
            "Create Secret {name} in namespace {namespace} as well: a pod can only use Secrets in its own namespace."
        ))
}

fn absent(by: &str, shown: &str, name: &str, namespace: &str) -> Finding {
    new(Cause::SecretMissing)
        .fact(format!("{by} names Secret {shown}"))
        .fact(format!("the API server has no Secret {name} in namespace {namespace}"))
        .hint(format!(
            "Create {name} in namespace {namespace} (`kubectl create secret docker-registry {name} -n {namespace} …`), or correct the name."
        ))
}

/// Critical if the registry rejects requests without a credential.
fn severity(evidence: &Evidence, pod: &PodUse, found: &Found) -> Severity {
    let others = pod.secrets.iter().any(|s| s.found == Found::Here);
    match found {
        _ if requires_credential(evidence) => Severity::Critical,
        Found::NotGiven { given: 0 } if !others => Severity::Info,
        _ => Severity::Warning,
    }
}

/// The registry requires another credential, or may hide the image from clients without one. Not if it is
/// unavailable, limits its clients, or shows the repository and lacks the tag.
fn requires_credential(evidence: &Evidence) -> bool {
    let Some(last) = evidence.walk.attempts.last() else {
        return false;
    };
    let may_pull = last.token.done().map(|grant| grant.access) == Some(Access::Pull);
    match (&last.token, last.head.status()) {
        (Step::Failed { fault, .. }, _) => matches!(
            fault,
            TokenFault::NoCredential | TokenFault::Rejected { .. }
        ),
        (_, Some(401 | 403)) => true,
        (_, Some(404)) => !may_pull,
        _ => false,
    }
}

/// A Secret was accepted, but the pod names none: a pull then succeeds only if the service account names it,
/// whose Secrets are copied at creation into pods that name none.
pub(super) fn unnamed(evidence: &Evidence) -> Option<Finding> {
    let id = evidence.walk.accepted()?.credential.as_ref()?;
    let CredentialSource::SecretFile { .. } = &id.source else {
        return None;
    };
    let pod = evidence.pods.iter().find(|p| p.pull_secrets.is_empty())?;
    let account = pod.service_account.as_deref().unwrap_or("default");
    let namespace = pod.namespace.as_deref().unwrap_or("NAMESPACE");
    Some(
        new(Cause::SecretNotNamed)
            .fact(format!("{} names no Secret in imagePullSecrets", pod.place()))
            .fact(format!("the registry accepts {} in this check", id.source))
            .unknown(format!("the manifest does not show whether service account {account} has it"))
            .hint(format!(
                "Name it in spec.imagePullSecrets of the pod, or check with `kubectl get serviceaccount {account} -n {namespace} -o yaml` whether its imagePullSecrets have it."
            )),
    )
}

/// The kubelet would not pull, or it is unknown whether it would.
pub(super) fn policy(evidence: &Evidence) -> Option<Finding> {
    let has_digest = evidence.reference.digest().is_some();
    let quiet = |pod: &PodUse| match pod.policy {
        PullPolicy::Never => true,
        PullPolicy::IfNotPresent => has_digest,
        PullPolicy::Always => false,
    };
    // One container that pulls is enough.
    if evidence.pods.is_empty() || !evidence.pods.iter().all(quiet) {
        return None;
    }
    let facts = evidence.pods.iter().map(|pod| {
        let policy = pod.policy.as_str();
        match pod.policy {
            PullPolicy::Never => format!("{}: imagePullPolicy {policy}", pod.place()),
            _ => format!(
                "{}: imagePullPolicy {policy}, and the image is referenced by digest",
                pod.place()
            ),
        }
    });
    let present = present_images(evidence.kubelet.as_ref());
    let never = |pod: &PodUse| pod.policy == PullPolicy::Never;
    if present != PresentImages::Used && !evidence.pods.iter().all(never) {
        let (fact, hint) = match &evidence.kubelet {
            Some(version) => (
                format!("the kubelet is {version}: whether it pulls an image again that is already on the node is unknown"),
                "Do nothing while the pull would succeed: on a node that has this digest, the kubelet's imagePullCredentialsVerificationPolicy and its records of pulls decide whether it is pulled again, to verify the pod's credential.",
            ),
            None => (
                "the kubelet's version is unknown: before 1.35, a node that has this digest never pulls it again; from 1.35 on it may, to verify the pod's credential".to_owned(),
                "Give the kubelet's version with `--kubelet-version`, as `kubectl get node` shows it. Before 1.35, nothing is pulled if the image is on the node.",
            ),
        };
        let finding = new(Cause::ImageVerification).severity(Severity::Info);
        return Some(finding.facts(facts).unknown(fact).hint(hint));
    }
    let hint = match (evidence.pods.iter().any(never), present) {
        (true, PresentImages::Used) => {
            "Load the image on the node, or set IfNotPresent: with Never the image must already be there. If it is missing, the pod's event is ErrImageNeverPull."
        }
        (true, PresentImages::MayBeVerified | PresentImages::Unknown) => {
            "Load the image on the node, or set IfNotPresent: with Never the image must already be there. If it is missing, the pod's event is ErrImageNeverPull; from Kubernetes 1.35 on, also if it is there but was pulled with a Secret that this pod does not have."
        }
        (false, _) => {
            "Do nothing: a node that has this digest never pulls it again; a node without it does."
        }
    };
    Some(new(Cause::NoPull).facts(facts).hint(hint))
}

/// The pull would fail, and the kubelet may pull even if the image is on the node. Depends on the findings
/// so far.
pub(super) fn verification(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(version) = &evidence.kubelet else {
        return;
    };
    if present_images(Some(version)) != PresentImages::MayBeVerified {
        return;
    }
    let pods = evidence.pods.iter();
    let concerned: Vec<&PodUse> = pods
        .filter(|pod| pod.policy == PullPolicy::IfNotPresent)
        .collect();
    let critical = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Critical)
        .filter(|finding| !super::outcome::is_got_round(evidence, finding));
    let mut roots: Vec<&str> = critical.map(|finding| finding.cause.code()).collect();
    roots.dedup();
    if concerned.is_empty() || roots.is_empty() {
        return;
    }
    let roots = roots.join(", ");
    // This finding replaces the one about the digest.
    findings.retain(|finding| finding.cause != Cause::ImageVerification);
    let facts = concerned.iter().map(|pod| {
        let policy = pod.policy.as_str();
        let present = if pod.image_present {
            "the image is on this node"
        } else {
            "the image may be on the node"
        };
        format!("{}: imagePullPolicy {policy}, and {present}", pod.place())
    });
    findings.push(
        new(Cause::ImageVerification)
            // The kubelet's records, which decide, were not observed.
            .confidence(Confidence::Low)
            .facts(facts)
            .fact(format!(
                "the kubelet is {version}: if it pulled an image with a credential, a pod with another credential, or without one, gets the image only after a pull with its own"
            ))
            .fact(format!("a pull may fail: {roots}"))
            .hint(format!(
                "Fix {roots} first. Until then, a new pod starts on this node only if the kubelet's record has its Secret or its login for this image, if the image was pulled without a credential, or if imagePullCredentialsVerificationPolicy is NeverVerify."
            )),
    );
}

/// Problems in the annotations with which a pod requests an EIP.
pub(super) fn eip(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let mut reported: Vec<&EipProblem> = Vec::new();
    for pod in &evidence.pods {
        for problem in &pod.eip {
            if reported.contains(&problem) {
                continue;
            }
            reported.push(problem);
            findings.push(eip_annotation(&pod.kind, &pod.name, problem));
        }
    }
}

/// The finding for a problem in the EIP annotations of the workload `kind` `name`: critical if a value is
/// invalid, a warning if the annotations have no effect or if a value may be rejected.
pub fn eip_annotation(kind: &str, name: &str, problem: &EipProblem) -> Finding {
    let (cause, severity, hint) = if problem.is_without_effect() {
        (
            Cause::EipAnnotationWithoutEffect,
            Severity::Warning,
            "Set yangtse.io/pod-with-eip: \"true\" in the annotations of the pods' template, or remove the others; existing pods must be recreated.",
        )
    } else if problem.is_invalid() {
        (
            Cause::EipAnnotationInvalid,
            Severity::Critical,
            "Correct it in the pods' template and recreate the pods: annotations of running pods are not read again.",
        )
    } else {
        (
            Cause::EipAnnotationInvalid,
            Severity::Warning,
            "Check it against the documentation of your region (\"Configuring an EIP for a Pod\"); an event of the pod reports if it is rejected.",
        )
    };
    new(cause)
        .severity(severity)
        .fact(format!("{kind} {name}: {problem}"))
        .hint(hint)
}
