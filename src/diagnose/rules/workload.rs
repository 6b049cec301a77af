//! What the manifest of a pod says of its pull: Secrets, policy, the EIP it asks for.

use super::finding::new;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::secrets::sought;
use crate::model::credential::CredentialSource;
use crate::model::evidence::{Access, Evidence};
use crate::model::fault::TokenFault;
use crate::model::kubelet::{PresentImages, present_images};
use crate::model::step::Step;
use crate::model::workload::{EipProblem, Found, PodUse, PullPolicy};

/// Secrets that a pod names and that are not there for it.
pub(super) fn secrets(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for (pod, sought) in sought(evidence) {
        let name = &sought.name;
        let namespace = pod.namespace.as_deref().unwrap_or("the pod's namespace");
        let finding = match &sought.found {
            // What can't be looked into says so where the registry asks for it.
            Found::Here | Found::Unread { .. } => continue,
            Found::Absent => absent(&pod.place(), name, name, namespace),
            Found::Elsewhere { namespaces } => new(Cause::SecretOtherNamespace)
                .fact(format!("{} names Secret {name}", pod.place()))
                .fact(format!(
                    "it was given for namespace {} only; Secrets do not cross namespaces",
                    namespaces.join(", ")
                ))
                .confidence(Confidence::Medium)
                .hint(format!(
                    "Create {name} in namespace {namespace} as well, unless it is there and was not given here (`kubectl get secret {name} -n {}`).",
                    pod.namespace.as_deref().unwrap_or("NAMESPACE")
                )),
            Found::NotGiven { given } => new(Cause::SecretMissing)
                .confidence(Confidence::Medium)
                .fact(format!("{} names Secret {name}", pod.place()))
                .fact(if *given == 0 {
                    "no Secret was given here, so whether the cluster has it is not known".to_owned()
                } else {
                    format!(
                        "it is not among the {given} given here; whether the cluster has it is not known"
                    )
                })
                .hint(format!(
                    "Look with `kubectl get secret {name} -n {}`; give it here with --secret-file, or create it there.",
                    pod.namespace.as_deref().unwrap_or("NAMESPACE")
                )),
        };
        findings.push(finding.severity(severity(evidence, pod, &sought.found)));
    }
}

/// Secrets of the cluster that whoever asked has named, and that are not there.
pub(super) fn asked_secrets(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for asked in &evidence.requested_secrets {
        let (namespace, name, by) = (&asked.namespace, &asked.name, asked.named_by());
        let finding = match &asked.found {
            Found::Here | Found::Unread { .. } | Found::NotGiven { .. } => continue,
            Found::Absent => absent(&by, &format!("{namespace}/{name}"), name, namespace),
            Found::Elsewhere { namespaces } => new(Cause::SecretOtherNamespace)
                .fact(format!("{by} names Secret {namespace}/{name}"))
                .fact(format!(
                    "the API server has none of that name in namespace {namespace}, and one in {}; Secrets do not cross namespaces",
                    namespaces.join(", ")
                ))
                .hint(format!(
                    "Create {name} in namespace {namespace} as well: a pod is given Secrets of its own namespace only."
                )),
        };
        findings.push(finding.severity(Severity::critical_if(lets_nobody_in(evidence))));
    }
}

fn absent(by: &str, shown: &str, name: &str, namespace: &str) -> Finding {
    new(Cause::SecretMissing)
        .fact(format!("{by} names Secret {shown}"))
        .fact(format!("the API server has no Secret {name} in namespace {namespace}"))
        .hint(format!(
            "Create {name} in namespace {namespace} (`kubectl create secret docker-registry {name} -n {namespace} …`), or correct the name."
        ))
}

/// It matters where the registry lets nobody in without a credential.
fn severity(evidence: &Evidence, pod: &PodUse, found: &Found) -> Severity {
    let others = pod.secrets.iter().any(|s| s.found == Found::Here);
    match found {
        _ if lets_nobody_in(evidence) => Severity::Critical,
        Found::NotGiven { given: 0 } if !others => Severity::Info,
        _ => Severity::Warning,
    }
}

/// The registry wants another credential, or may hide the image from who has none. Not so where it
/// is out of order, limits its clients, or shows the repository and lacks the tag.
fn lets_nobody_in(evidence: &Evidence) -> bool {
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

/// A Secret opened the door, and the pod names none: it works only by way of the service account,
/// whose Secrets are copied into pods that name none at their creation.
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
            .fact(format!("{} opened the registry to this probe", id.source))
            .fact(format!("whether service account {account} has it can't be seen in the manifest"))
            .hint(format!(
                "Name it in spec.imagePullSecrets of the pod, or look with `kubectl get serviceaccount {account} -n {namespace} -o yaml` whether its imagePullSecrets have it."
            )),
    )
}

/// The kubelet would pull nothing, or it is not known whether it would.
pub(super) fn policy(evidence: &Evidence) -> Option<Finding> {
    let has_digest = evidence.reference.digest().is_some();
    let quiet = |pod: &PodUse| match pod.policy {
        PullPolicy::Never => true,
        PullPolicy::IfNotPresent => has_digest,
        PullPolicy::Always => false,
    };
    // One that pulls is enough.
    if evidence.pods.is_empty() || !evidence.pods.iter().all(quiet) {
        return None;
    }
    let facts = evidence.pods.iter().map(|pod| {
        let policy = pod.policy.as_str();
        match pod.policy {
            PullPolicy::Never => format!("{}: imagePullPolicy {policy}", pod.place()),
            _ => format!(
                "{}: imagePullPolicy {policy}, and the image is named by its digest",
                pod.place()
            ),
        }
    });
    let present = present_images(evidence.kubelet.as_ref());
    let never = |pod: &PodUse| pod.policy == PullPolicy::Never;
    if present != PresentImages::Used && !evidence.pods.iter().all(never) {
        let (fact, hint) = match &evidence.kubelet {
            Some(version) => (
                format!("the kubelet is {version}: whether it pulls an image again that is on the node is not known"),
                "On a node that has this digest the kubelet's imagePullCredentialsVerificationPolicy and its records of pulls decide whether it is pulled once more, to verify the pod's credential; that the pull would succeed is what counts.",
            ),
            None => (
                "the kubelet's version is not known: before 1.35 a node that has this digest never pulls it again, from 1.35 on it may, to verify the pod's credential".to_owned(),
                "Name the kubelet's version: `--kubelet-version`, as `kubectl get node` shows it. Before 1.35 nothing is pulled where the image is on the node.",
            ),
        };
        let finding = new(Cause::ImageVerification).severity(Severity::Info);
        return Some(finding.facts(facts).fact(fact).hint(hint));
    }
    let hint = match (evidence.pods.iter().any(never), present) {
        (true, PresentImages::Used) => {
            "With Never the image must be on the node already: load it there, or set IfNotPresent; the event of a missing one is ErrImageNeverPull."
        }
        (true, PresentImages::MayBeVerified | PresentImages::Unknown) => {
            "With Never the image must be on the node already: load it there, or set IfNotPresent; the event of a missing one is ErrImageNeverPull. From Kubernetes 1.35 on that is also the event of one which is there and was pulled with a Secret that this pod does not bring."
        }
        (false, _) => {
            "Nothing need be done: a node that has this digest never pulls it again, one that has not does."
        }
    };
    Some(new(Cause::NoPull).facts(facts).hint(hint))
}

/// The pull would fail, and its kubelet may need one for an image that is on the node, too. It looks at what
/// was found before.
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
    // What it says of the digest is said here.
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
            // What decides is not seen.
            .confidence(Confidence::Low)
            .facts(facts)
            .fact(format!(
                "the kubelet is {version}: it gives an image that it pulled with a credential to a pod that brings another one, or none, only after a pull with that"
            ))
            .fact(format!("a pull can't be relied on: {roots}"))
            .hint(format!(
                "Fix {roots} first. Until then a pod that is new here starts only where the kubelet's record has its Secret for this image, where the image was pulled without a credential, or where imagePullCredentialsVerificationPolicy is NeverVerify."
            )),
    );
}

/// Annotations by which a pod asks for an EIP.
pub(super) fn eip(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let mut told: Vec<&EipProblem> = Vec::new();
    for pod in &evidence.pods {
        for problem in &pod.eip {
            if told.contains(&problem) {
                continue;
            }
            told.push(problem);
            findings.push(eip_annotation(&pod.kind, &pod.name, problem));
        }
    }
}

/// What an odd EIP annotation of a workload comes to: one by itself, or several that do nothing.
pub fn eip_annotation(kind: &str, name: &str, problem: &EipProblem) -> Finding {
    let (cause, severity, hint) = if problem.is_without_effect() {
        (
            Cause::EipAnnotationWithoutEffect,
            Severity::Warning,
            "Set yangtse.io/pod-with-eip: \"true\" in the annotations of the pods' template, or remove the others; existing pods have to be created anew.",
        )
    } else if problem.is_invalid() {
        (
            Cause::EipAnnotationInvalid,
            Severity::Critical,
            "Correct it in the pods' template; annotations of running pods are not read again, so let the pods be created anew.",
        )
    } else {
        (
            Cause::EipAnnotationInvalid,
            Severity::Warning,
            "Check it against the documentation of your region (\"Configuring an EIP for a Pod\"); an event of the pod says if it is refused.",
        )
    };
    new(cause)
        .severity(severity)
        .fact(format!("{kind} {name}: {problem}"))
        .hint(hint)
}
