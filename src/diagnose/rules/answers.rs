//! Rules for the responses of the registry and its blob storage: `/v2/`, manifest, layers, rate limits.

use super::auth;
use super::finding::{at, no_registry, transport};
use super::names::is_below;
use super::storage;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::throughput;
use crate::model::endpoint::{Endpoint, Role, Scheme};
use crate::model::evidence::{Evidence, LayerRead, Walk};
use crate::model::fault::{HttpFault, ManifestFault, Phase, with_more};
use crate::model::step::Step;
use crate::model::text::or;
use crate::model::transfer::{StreamEnd, Transfer, TransferStream};

/// The registry accepted the connection but gave no usable response to the first request. A status is left
/// to the manifest's rules: containerd never requests `/v2/`, so it decides nothing by itself.
pub(super) fn ping(evidence: &Evidence) -> Option<Finding> {
    let fault = evidence.walk.ping.fault()?;
    // If another host resolved the reference, only content is requested from this one.
    if !evidence.walk.attempts.is_empty() || evidence.walk.resolved_by_other_host {
        return None;
    }
    let finding = transport(evidence, fault, Role::Registry, Phase::Ping).unwrap_or_else(|| {
        no_registry(evidence, Role::Registry, Phase::Ping)
            .confidence(Confidence::Low)
            .fact(format!("/v2/: {fault}"))
    });
    let confidence = finding.confidence.min(Confidence::Medium);
    Some(
        finding
            .confidence(confidence)
            .fact("a pull does not request /v2/ itself; the check ended there"),
    )
}

/// Faults between the digest and the platform's manifest.
pub(super) fn manifest(evidence: &Evidence) -> Option<Finding> {
    let fault = evidence.walk.manifest.fault()?;
    let registry = |cause| at(cause, Role::Registry, Phase::Manifest);
    let image = &evidence.reference;
    let finding = match fault {
        // Its leg has the cause.
        ManifestFault::Http { fault: HttpFault::RedirectBlocked { .. } | HttpFault::Unreached { .. } } => return None,
        ManifestFault::Http { fault: HttpFault::Unauthorized { credential, fault } } => {
            auth::no_token(evidence, credential.as_ref(), fault)
        }
        ManifestFault::Http { fault: HttpFault::RedirectUntrusted { to, reason } } => registry(Cause::RedirectUntrusted)
            .fact(format!("the manifest is redirected to {to}: {reason}"))
            .fact("no request was sent there; containerd would follow")
            .hint("Correct the address of the upstream in the registry's configuration."),
        ManifestFault::NoPlatform { available, left_out } => no_platform(evidence, available, *left_out),
        // A page that is served with status 200 for every path.
        ManifestFault::Unsupported { media_type } if media_type.starts_with("text/") => no_registry(evidence, Role::Registry, Phase::Manifest)
            .fact(format!("the response for the manifest was 200 with media type {media_type}")),
        // Found below /blobs/, where the response does not show the media type.
        ManifestFault::Unsupported { media_type } if let Some(refusal) = refused_before(evidence) => refusal.fact(format!(
            "containerd then found the digest below /blobs/, as {}, and does not unpack that",
            or(media_type, "a file without a media type")
        )),
        ManifestFault::Unsupported { media_type } => registry(Cause::ManifestUnsupported)
            .fact(format!("media type {}", or(media_type, "not given"))),
        ManifestFault::DigestMismatch { expected, got } => registry(Cause::DigestMismatch)
            .fact(format!("requested {expected}, got {got}")),
        ManifestFault::Undecided { reason } => registry(Cause::ProbeLimit)
            .fact(reason.clone()),
        ManifestFault::Malformed { reason } => registry(Cause::ManifestInvalid)
            .fact(reason.clone()),
        ManifestFault::Http { fault: fault @ HttpFault::Status { status: 404, .. } } if let Some(coding) = encoded(evidence) => {
            registry(Cause::ContentEncoding)
                .fact(format!("the response for the tag has Content-Encoding {coding} and no Docker-Content-Digest"))
                .fact(format!("containerd computes the digest of the encoded bytes, and the registry has no such digest: {fault}"))
                .hint(format!("Switch off compression for {image} in the proxy or load balancer in front of the registry."))
        }
        ManifestFault::Http { fault } => {
            transport(evidence, fault, Role::Registry, Phase::Manifest).unwrap_or_else(|| refused(evidence, fault, Role::Registry, Phase::Manifest))
        }
    };
    Some(unless_given(finding, evidence.manifest_elsewhere()))
}

/// The index has no image for the platform.
fn no_platform(evidence: &Evidence, available: &[String], left_out: usize) -> Finding {
    let finding = at(Cause::NoPlatform, Role::Registry, Phase::Manifest);
    let wanted = &evidence.platform;
    // Buildx gives this platform to the attestations of an image (provenance, SBOM).
    if !available.is_empty() && available.iter().all(|one| one.starts_with("unknown")) {
        return finding
            .fact(format!(
                "the required platform is {wanted}; the index has only attestations (platform {}), no image",
                available.join(", ")
            ))
            .hint("Push the image again with all its manifests: those of its platforms were removed (a clean-up of untagged manifests), or a copy left them out.");
    }
    if available.is_empty() {
        return finding
            .fact(format!(
                "the required platform is {wanted}, and the index names no platform"
            ))
            .hint(format!(
                "Build and push the image for {wanted} again: its index has no manifest for it."
            ));
    }
    finding.fact(format!(
        "the required platform is {wanted}, the index has {}",
        with_more(available, left_out)
    ))
}

/// Why the digest was not available below /manifests/.
fn refused_before(evidence: &Evidence) -> Option<Finding> {
    let (found, before) = evidence.walk.attempts.split_last()?;
    if !found.via_blobs_endpoint {
        return None;
    }
    let attempt = before.iter().rfind(|one| !one.via_blobs_endpoint)?;
    match attempt.token.fault() {
        Some(fault) => Some(auth::no_token(evidence, attempt.credential.as_ref(), fault)),
        None => Some(auth::no_head(evidence, attempt, attempt.head.fault()?)),
    }
}

/// The Content-Encoding that was still applied when the digest was computed.
fn encoded(evidence: &Evidence) -> Option<&str> {
    let walks = evidence.others.iter().chain([&evidence.walk]);
    let mut heads = walks.flat_map(|walk| walk.attempts.iter().filter_map(|a| a.head.done()));
    heads.find_map(|head| head.digest_of_encoded.as_deref())
}

/// A pull does not fail if another host served the content.
fn unless_given(finding: Finding, by: Option<&Walk>) -> Finding {
    match by {
        Some(other) => {
            let severity = finding.severity.min(Severity::Warning);
            finding
                .severity(severity)
                .fact(format!("{} served it then", other.host.endpoint))
        }
        None => finding,
    }
}

/// Faults of the image's configuration.
pub(super) fn config(evidence: &Evidence) -> Option<Finding> {
    let fault = evidence.walk.config.as_ref().and_then(Step::fault)?;
    let finding = content(evidence, fault, "the image's configuration")?;
    Some(unless_given(finding, evidence.config_elsewhere()))
}

/// Media types of layers that are listed.
const MAX_TYPES: usize = 5;

/// The reference is an artifact, not an image.
pub(super) fn artifact(evidence: &Evidence) -> Option<Finding> {
    let found = evidence.walk.manifest.done().filter(|f| f.not_an_image)?;
    let config = found.config.as_ref();
    let config = config.map_or("", |config| &config.media_type);
    let mut types: Vec<&str> = found.layers.iter().map(|l| l.media_type.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    let more = types.len().saturating_sub(MAX_TYPES);
    types.truncate(MAX_TYPES);
    Some(
        at(Cause::ArtifactNotImage, Role::Registry, Phase::Manifest)
            .fact(format!("the configuration's media type is {config}"))
            .fact(format!(
                "the media types of its layers: {}",
                with_more(&types, more)
            ))
            .fact("containerd pulls it, but no container can start from it"),
    )
}

/// Content that the manifest names but that could not be read; `None` if a leg has the cause.
fn content(evidence: &Evidence, fault: &HttpFault, what: &str) -> Option<Finding> {
    // The last host that was contacted.
    let storage = evidence.walk.legs_of(Role::Blob).last();
    let leg = throughput::role_of(evidence, None);
    let finding = match fault {
        HttpFault::RedirectBlocked { .. } | HttpFault::Unreached { .. } => return None,
        HttpFault::Unauthorized { credential, fault } => {
            auth::no_token(evidence, credential.as_ref(), fault)
        }
        HttpFault::RedirectUntrusted { to, reason } => {
            at(Cause::RedirectUntrusted, leg, Phase::Blob)
                .fact(format!(
                    "the download of {what} is redirected to {to}: {reason}"
                ))
                .fact("no request was sent there; containerd would follow")
        }
        fault => transport(evidence, fault, leg, Phase::Blob)
            .unwrap_or_else(|| refused(evidence, fault, leg, Phase::Blob)),
    };
    Some(
        finding
            .fact(format!("{what} was requested"))
            .facts(storage.map(|leg| format!("the storage is {}", leg.endpoint))),
    )
}

/// A 3xx or 4xx status for content that the registry itself named.
fn refused(evidence: &Evidence, fault: &HttpFault, leg: Role, phase: Phase) -> Finding {
    if leg == Role::Blob
        && let Some(finding) = storage::refused(evidence, fault)
    {
        return finding;
    }
    let (status, challenged, authorized) = match fault {
        HttpFault::Status {
            status,
            challenged,
            authorized,
            ..
        } => (*status, *challenged, *authorized),
        _ => (0, false, false),
    };
    let has_code = matches!(fault, HttpFault::Status { code: Some(_), .. });
    let (cause, hint) = match (phase, status) {
        (_, 401) if leg == Role::Registry && !challenged && !authorized => {
            return auth::without_challenge(evidence, fault, leg, phase);
        }
        // An anonymous token was issued, but is not accepted.
        (_, 401) if leg == Role::Registry && evidence.keyring.candidates.is_empty() => {
            return auth::no_credential(evidence, leg, phase)
                .fact(format!("requested anonymously: {fault}"));
        }
        (Phase::Blob, 401) if leg == Role::Registry => (
            Cause::AuthDenied,
            "Give this user the right to pull the whole repository.",
        ),
        (Phase::Manifest, 401 | 403) => (
            Cause::AuthDenied,
            "Give this user the right to pull the whole repository.",
        ),
        (_, 300..400) => (
            Cause::RedirectBroken,
            "Correct the redirect in the registry, or in the load balancer in front of it: it has no usable target.",
        ),
        (Phase::Manifest, 404) => (
            Cause::ManifestUnknown,
            "Push the image again: the registry names a manifest that it does not have.",
        ),
        (Phase::Blob, 400) if leg == Role::Blob && gets_token(evidence) => (
            Cause::BlobDenied,
            "Give the storage a host name that is not the registry's and not below it, or let the registry serve layers itself (redirects off): containerd sends the registry's token to such a host as well, and a signed URL rejects that.",
        ),
        (Phase::Blob, 400) if leg == Role::Blob => (
            Cause::BlobDenied,
            "Look up the storage's error code and check the storage settings of the registry, which made this URL; without a code, look for a proxy in front of the storage that changes the URL.",
        ),
        (_, 401 | 403) if leg == Role::Registry => (
            Cause::BlobDenied,
            "Check the registry's log for this request: it serves the manifest to this user and refuses the layer (a policy of the project, a scan, or a proxy in front of it).",
        ),
        (_, 401 | 403) => (
            Cause::BlobDenied,
            "Check the storage's log for this request, and what is in front of it: a policy (VPC endpoint, bucket, allow-list), a filter, or a wrong clock of the registry that signs the URL.",
        ),
        (_, 404) if !has_code => (
            Cause::BlobUnknown,
            "Check what answers at that address first: a proxy, Ingress or CDN in front of the storage has to forward this path. If the storage itself sent this answer, push the image again: a part of it is missing there.",
        ),
        (_, 404) => (
            Cause::BlobUnknown,
            "Push the image again: a part of it is missing in the storage.",
        ),
        (_, 400..500) => (
            Cause::RequestRefused,
            "Check the log of the server that responds there, and allow the registry's requests.",
        ),
        _ => (Cause::Unexplained, Cause::Unexplained.entry().fix),
    };
    // Only a challenge would show that the token was checked.
    let is_bare = status == 401 && leg == Role::Registry && !challenged;
    let finding = at(cause, leg, phase)
        .confidence(Confidence::high_if(!is_bare))
        .fact(fault.to_string())
        .hint(hint);
    let may_be_a_filter = match cause {
        Cause::BlobDenied => leg == Role::Blob,
        Cause::BlobUnknown => true,
        _ => false,
    };
    if may_be_a_filter && !has_code {
        finding.unknown(
            "the answer has no error code of a storage or registry: a filter or a proxy in front of it may have sent it",
        )
    } else {
        finding
    }
}

/// Whether containerd sends the registry's token to the storage as well: its host is the registry's, or below it (Go's
/// `http.Client` keeps the header for those).
fn gets_token(evidence: &Evidence) -> bool {
    let host = |role| {
        let leg = evidence.walk.legs_of(role).last()?;
        Some(leg.endpoint.host.bare().to_ascii_lowercase())
    };
    match (host(Role::Registry), host(Role::Blob)) {
        (Some(registry), Some(storage)) => is_below(&storage, &[&registry]),
        _ => false,
    }
}

/// Faults while more than the first bytes of layers were read.
pub(super) fn transfer(evidence: &Evidence) -> Option<Finding> {
    let transfer = evidence.walk.transfer.as_ref()?;
    for (index, stream) in transfer.streams.iter().enumerate() {
        let leg = throughput::role_of(evidence, Some(&stream.endpoint));
        let from = format!("layer {} from {}", stream.digest, stream.endpoint);
        let finding = match &stream.end {
            StreamEnd::Complete {
                digest_matches: false,
            } => at(Cause::DigestMismatch, leg, Phase::Blob).fact(format!(
                "all {} arrived, but have another digest",
                stream.bytes
            )),
            // Reported as a pull without progress.
            StreamEnd::Failed {
                fault: HttpFault::Stalled { .. },
            } if stream.bytes.0 > 0 => continue,
            // A part of a layer whose beginning is still downloading: no pull requests that. `resumable` covers it.
            StreamEnd::Failed {
                fault: HttpFault::Status { status, .. },
            } if stream.offset.0 > 0 && !matches!(status, 408 | 429 | 503) => continue,
            // containerd requests content from the next host if this one does not serve it.
            StreamEnd::Failed {
                fault: HttpFault::Status { .. },
            } if !evidence.not_contacted.is_empty() || !evidence.others.is_empty() => continue,
            StreamEnd::Failed { fault } => {
                let finding = transport(evidence, fault, leg, Phase::Blob)
                    .unwrap_or_else(|| refused(evidence, fault, leg, Phase::Blob))
                    .fact(format!("after {}", stream.bytes));
                if beside_others(transfer, index, fault) {
                    second_at_a_time(finding, stream)
                } else {
                    finding
                }
            }
            _ => continue,
        };
        // The other streams most likely failed for the same reason.
        return Some(finding.fact(from));
    }
    None
}

/// A download was rejected with a status while another one from the same server succeeded.
fn beside_others(transfer: &Transfer, refused: usize, fault: &HttpFault) -> bool {
    let stream = &transfer.streams[refused];
    let goes_well = |other: &TransferStream| {
        other.endpoint == stream.endpoint
            && other.bytes.0 > 0
            && !matches!(other.end, StreamEnd::Failed { .. })
    };
    matches!(fault, HttpFault::Status { .. }) && transfer.streams.iter().any(goes_well)
}

/// The server rejects a second simultaneous download. A pull requests several layers at once, but never
/// several parts of one layer.
fn second_at_a_time(finding: Finding, stream: &TransferStream) -> Finding {
    let is_part = stream.offset.0 > 0;
    let finding = finding
        .fact(
            "another download from there succeeded at the same time; containerd runs three at once",
        )
        .hint(one_at_a_time(&stream.endpoint));
    if is_part {
        finding
            .severity(Severity::Warning)
            .confidence(Confidence::Medium)
    } else {
        finding
    }
}

fn one_at_a_time(server: &Endpoint) -> String {
    format!(
        "Raise the limit of simultaneous downloads per client at {server}, or set `max_concurrent_downloads = 1` in \
         containerd's configuration on the nodes."
    )
}

/// The layer was refused while others were being sent, and served afterwards.
fn refused_beside_others(evidence: &Evidence, finding: Finding, layer: &LayerRead) -> Finding {
    let leg = finding.leg.unwrap_or(Role::Registry);
    let Some(server) = evidence.walk.legs_of(leg).last() else {
        return finding;
    };
    let server = &server.endpoint;
    let others = match layer.refused_beside {
        1 => "another layer".to_owned(),
        more => format!("{more} other layers"),
    };
    let repeats = (layer.outcome.status() == Some(429)).then(|| {
        "containerd repeats such a request five times at once, without a pause".to_owned()
    });
    if layer.served_alone {
        // 429 states that there is a limit; any other status may have been chance.
        let confidence = if repeats.is_some() {
            finding.confidence
        } else {
            finding.confidence.min(Confidence::Medium)
        };
        finding
            .confidence(confidence)
            .fact(format!(
                "{server} was sending {others} at that time; requested again after that, this one was served"
            ))
            .fact("so it probably limits simultaneous downloads: a pull requests up to three layers at once")
            .facts(repeats)
            .hint(one_at_a_time(server))
    } else {
        finding.fact(format!(
            "{server} was sending {others} at that time: it may limit simultaneous downloads"
        ))
    }
}

/// Faults of the layers.
pub(super) fn blob(evidence: &Evidence) -> Option<Finding> {
    let fault = evidence.walk.blob.fault()?;
    let layer = evidence.walk.layers.last();
    let what = match layer {
        Some(layer) => format!("layer {}", layer.digest),
        None => "a layer".to_owned(),
    };
    let finding = content(evidence, fault, &what)?;
    Some(match layer {
        Some(layer) if layer.refused_beside > 0 && layer.outcome.fault() == Some(fault) => {
            refused_beside_others(evidence, finding, layer)
        }
        _ => finding,
    })
}

/// Shortcomings of later downloads: no resume, or an unencrypted redirect.
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
    if let Some(status) = found.range_refused_with {
        findings.push(
            at(Cause::RangeIgnored, leg, Phase::Blob)
                .fact(format!(
                    "{from} rejects a request for a part (Range) with HTTP {status}, and serves whole layers"
                ))
                .fact(
                    "containerd 2.1.0 to 2.1.2 requests parts, so its pulls fail; with other releases, only an \
                                         interrupted download can't be resumed",
                )
                .hint("Let the proxy or CDN in front of the layers forward Range requests; on nodes with containerd 2.1.0 to 2.1.2, upgrade to 2.1.3 or later."),
        );
    } else if found.range_honoured == Some(false) {
        findings.push(
            at(Cause::RangeIgnored, leg, Phase::Blob)
                .fact(format!("{from} responded 200 to a request for a part")),
        );
    }
    let first = evidence.walk.legs.first();
    let secure = first.is_some_and(|leg| leg.endpoint.scheme == Scheme::Https);
    let mut redirects = found.redirects.iter();
    if let Some(plain) = redirects.find(|to| secure && to.scheme == Scheme::Http) {
        findings.push(
            at(Cause::RedirectUntrusted, leg, Phase::Blob)
                .severity(Severity::Warning)
                .fact(format!("an https registry redirects its layers to {plain}"))
                .fact("layers are verified by their digest, so the pull is not at risk; but others on the path can read who pulls what")
                .hint("Give the storage host TLS, and correct its address in the registry's configuration."),
        );
    }
}

/// A rate limit of which at most a tenth remains.
pub(super) fn rate_limit(evidence: &Evidence) -> Option<Finding> {
    let limit = evidence.walk.rate_limit.as_ref()?;
    let (most, left) = (limit.limit?, limit.remaining?);
    let last = evidence.walk.attempts.last();
    let is_limited = last.and_then(|attempt| attempt.head.status()) == Some(429);
    if is_limited || left > most / 10 {
        return None;
    }
    let window = limit
        .window_seconds
        .map_or_else(String::new, |s| format!(" in {} h", s / 3600));
    let mut finding = at(Cause::RateLimitLow, Role::Registry, Phase::Manifest)
        .fact(format!("{left} of {most} pulls{window} remain"));
    if let Some(source) = &limit.source {
        finding = finding.fact(format!("counted for {source}"));
    }
    Some(finding)
}
