//! What the registry and its storage answered: `/v2/`, manifest, layer, limits.

use super::{TELL_US, at, new, transport};
use crate::diagnose::cause::Cause;
use crate::diagnose::{Confidence, Finding, Severity};
use crate::model::endpoint::{Role, Scheme};
use crate::model::evidence::{Evidence, Step};
use crate::model::fault::{HttpFault, ManifestFault, Phase};
use crate::model::transfer::StreamEnd;

/// The registry took the connection and gave no usable answer to the first request. A status is
/// left to the manifest's rules: containerd never asks `/v2/`, so it decides nothing by itself.
pub(super) fn ping(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(fault) = evidence.walk.ping.fault() else {
        return;
    };
    if !evidence.walk.attempts.is_empty() {
        return;
    }
    let finding = transport(evidence, fault, Role::Registry, Phase::Ping).unwrap_or_else(|| {
        at(Cause::NotARegistry, Role::Registry, Phase::Ping)
            .confidence(Confidence::Low)
            .fact(format!("/v2/: {fault}"))
            .hint("Look at /v2/ of that host to see what answers.")
    });
    let confidence = finding.confidence.min(Confidence::Medium);
    findings.push(
        finding
            .confidence(confidence)
            .fact("a pull does not ask /v2/ itself; the walk ended there"),
    );
}

/// The way from the digest to the platform's manifest.
pub(super) fn manifest(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(fault) = evidence.walk.manifest.fault() else {
        return;
    };
    let registry = |cause| at(cause, Role::Registry, Phase::Manifest);
    let image = &evidence.reference;
    let finding = match fault {
        // Its leg has the cause.
        ManifestFault::Http { fault: HttpFault::RedirectBlocked { .. } } => return,
        ManifestFault::Http { fault: HttpFault::RedirectUntrusted { to, reason } } => registry(Cause::RedirectUntrusted)
            .fact(format!("the manifest is redirected to {to}: {reason}"))
            .fact("nothing was sent there; containerd would follow")
            .hint("Correct the address of the upstream in the registry's configuration."),
        ManifestFault::NoPlatform { available } => registry(Cause::NoPlatform)
            .fact(format!("wanted {}, the index has {}", evidence.platform, available.join(", ")))
            .hint(format!("Build and push {image} for {} too, or keep the pod off such nodes (nodeSelector kubernetes.io/arch).", evidence.platform)),
        // A page that is served with 200 for every path.
        ManifestFault::Unsupported { media_type } if media_type.starts_with("text/") => registry(Cause::NotARegistry)
            .confidence(Confidence::Medium)
            .fact(format!("the manifest was answered 200 with media type {media_type}"))
            .hint(format!("Open https://{}/v2/ to see what answers; correct the host of the image, or the route before the registry.", image.domain())),
        ManifestFault::Unsupported { media_type } => registry(Cause::ManifestUnsupported)
            .fact(format!("media type {media_type}"))
            .hint(format!("Push {image} again with a current client, and check that it is an image.")),
        ManifestFault::DigestMismatch { expected, got } => registry(Cause::DigestMismatch)
            .fact(format!("asked for {expected}, got {got}"))
            .hint("Ask past any cache or proxy; if it stays, push the image again."),
        ManifestFault::Malformed { reason } => registry(Cause::ManifestInvalid)
            .fact(reason.clone())
            .hint(format!("Push {image} again; if other images fail too, look at what stands in front of the registry.")),
        ManifestFault::Http { fault } => {
            transport(evidence, fault, Role::Registry, Phase::Manifest).unwrap_or_else(|| refused(fault, Role::Registry, Phase::Manifest))
        }
    };
    findings.push(finding);
}

/// A status of the 300s or 400s for something that the registry itself named before.
fn refused(fault: &HttpFault, leg: Role, phase: Phase) -> Finding {
    let status = match fault {
        HttpFault::Status { status, .. } => *status,
        _ => 0,
    };
    let (cause, hint) = match (phase, status) {
        (Phase::Manifest, 401 | 403) => (
            Cause::AuthDenied,
            "Give this user the right to pull the whole repository.",
        ),
        (Phase::Manifest, 404) => (
            Cause::ManifestUnknown,
            "Push the image again: the registry names a manifest that it does not have.",
        ),
        (_, 401 | 403) => (
            Cause::BlobDenied,
            "Look at the storage's error code: AccessDenied is a policy (VPC endpoint, bucket, allow-list); an expired or skewed signature is a clock.",
        ),
        (_, 404) => (
            Cause::BlobUnknown,
            "Push the image again: the storage has lost a layer.",
        ),
        _ => (Cause::Unexplained, TELL_US),
    };
    at(cause, leg, phase).fact(fault.to_string()).hint(hint)
}

/// What went wrong while layers were read for longer than their first bytes.
pub(super) fn transfer(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(transfer) = &evidence.walk.transfer else {
        return;
    };
    for stream in &transfer.streams {
        let is_storage = evidence
            .legs_of(Role::Blob)
            .any(|leg| leg.endpoint == stream.endpoint);
        let leg = if is_storage {
            Role::Blob
        } else {
            Role::Registry
        };
        let from = format!("layer {} from {}", stream.digest, stream.endpoint);
        let finding = match &stream.end {
            StreamEnd::Complete {
                digest_matches: false,
            } => at(Cause::DigestMismatch, leg, Phase::Blob)
                .fact(format!(
                    "all {} of it came, and have another digest",
                    stream.bytes
                ))
                .hint("Ask again past any cache or proxy; if it stays, push the image again."),
            // Told as a pull without progress.
            StreamEnd::Failed {
                fault: HttpFault::Stalled { .. },
            } if stream.bytes.0 > 0 => continue,
            StreamEnd::Failed { fault } => transport(evidence, fault, leg, Phase::Blob)
                .unwrap_or_else(|| refused(fault, leg, Phase::Blob))
                .fact(format!("after {}", stream.bytes)),
            _ => continue,
        };
        findings.push(finding.fact(from));
        // The others most likely met the same.
        return;
    }
}

/// The first byte of a layer.
pub(super) fn blob(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(fault) = evidence.walk.blob.fault() else {
        return;
    };
    // The last host that was asked.
    let storage = evidence.legs_of(Role::Blob).last();
    let leg = if storage.is_some() {
        Role::Blob
    } else {
        Role::Registry
    };
    if let HttpFault::RedirectUntrusted { to, reason } = fault {
        findings.push(
            at(Cause::RedirectUntrusted, leg, Phase::Blob)
                .fact(format!(
                    "the download of a layer is redirected to {to}: {reason}"
                ))
                .fact("nothing was sent there; containerd would follow")
                .hint("Correct the storage or CDN address in the registry's configuration."),
        );
        return;
    }
    let finding = transport(evidence, fault, leg, Phase::Blob)
        .unwrap_or_else(|| refused(fault, leg, Phase::Blob));
    findings.push(finding.facts(storage.map(|leg| format!("the storage is {}", leg.endpoint))));
}

/// What a download there will lack.
pub(super) fn resumable(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(found) = evidence.walk.blob.done() else {
        return;
    };
    let leg = if found.redirects.is_empty() {
        Role::Registry
    } else {
        Role::Blob
    };
    let from = found
        .redirects
        .last()
        .map_or_else(|| "the registry".to_owned(), ToString::to_string);
    if !found.range_honoured {
        findings.push(
            at(Cause::RangeIgnored, leg, Phase::Blob)
                .fact(format!("{from} answered 200 to a request for a part"))
                .hint("Let the proxy or storage in front of the layers pass Range requests on."),
        );
    }
    let secure = evidence
        .walk
        .legs
        .first()
        .is_some_and(|leg| leg.endpoint.scheme == Scheme::Https);
    if let Some(plain) = found
        .redirects
        .iter()
        .find(|to| secure && to.scheme == Scheme::Http)
    {
        findings.push(
            at(Cause::RedirectUntrusted, leg, Phase::Blob)
                .severity(Severity::Warning)
                .fact(format!("an https registry redirects its layers to {plain}"))
                .fact("layers are checked by their digest, so the pull is not at risk; who pulls what can be read on the way")
                .hint("Give the storage host TLS, and correct its address in the registry's configuration."),
        );
    }
}

/// How much of a rate limit is left.
pub(super) fn rate_limit(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(limit) = &evidence.walk.rate_limit else {
        return;
    };
    let (Some(most), Some(left)) = (limit.limit, limit.remaining) else {
        return;
    };
    let is_limited = matches!(
        evidence.walk.attempts.last().map(|a| &a.head),
        Some(Step::Failed {
            fault: HttpFault::Status { status: 429, .. },
            ..
        })
    );
    if is_limited || left > most / 10 {
        return;
    }
    let window = limit
        .window_seconds
        .map_or_else(String::new, |s| format!(" in {} h", s / 3600));
    let mut finding = new(Cause::RateLimitLow, Some(Role::Registry), Some(Phase::Manifest))
        .fact(format!("{left} of {most} pulls{window} are left"))
        .hint("Pull with an account that has a larger limit, or copy the image to a registry of your own.");
    if let Some(source) = &limit.source {
        finding = finding.fact(format!("counted for {source}"));
    }
    findings.push(finding);
}
