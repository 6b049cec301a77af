//! Decides from findings and evidence whether a pull would succeed, and which failures it survives.

use super::auth;
use super::finding::new;
use super::lookups;
use super::name_servers;
use super::repeats;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::{Finding, Pull, Verdict};
use crate::model::endpoint::Role;
use crate::model::evidence::Evidence;
use crate::model::fault::{HttpFault, Phase};
use crate::model::step::{Skip, Step};
use crate::model::vantage::NotObserved;
use crate::model::workload::Found;

/// Whether the pull survived this failure of a leg: it succeeded, or failed later for another reason.
pub(super) fn is_got_round(evidence: &Evidence, finding: &Finding) -> bool {
    let walk = &evidence.walk;
    let is_of_other_builds =
        finding.cause == Cause::DnsTcpClosed && name_servers::is_resolved(evidence, finding.leg);
    // A check is no proof for lookups that go another way than its own.
    let is_of_other_lookups = lookups::differs_from_check(evidence, finding);
    if finding.leg.is_none() || is_of_other_builds || is_of_other_lookups {
        return false;
    }
    if evidence.pulled == Some(true) {
        // The transfer test reads further than the pull check. A pull resumes a download that only ends early.
        let is_beyond = finding.phase == Some(Phase::Blob)
            && walk.transfer.is_some()
            && walk.blob.fault().is_none();
        return !is_beyond || finding.cause == Cause::UnexpectedEof;
    }
    // Another host resolved the reference; the content's fault shows whether a token was required later.
    let is_of_token = |fault: &HttpFault| {
        matches!(
            fault,
            HttpFault::Unauthorized { .. } | HttpFault::Unreached { .. }
        )
    };
    let manifest = match walk.manifest.fault() {
        Some(crate::model::fault::ManifestFault::Http { fault }) => Some(fault),
        _ => None,
    };
    let config = walk.config.as_ref().and_then(Step::fault);
    let mut faults = [manifest, config, walk.blob.fault()].into_iter().flatten();
    let head = walk
        .attempts
        .last()
        .and_then(|attempt| attempt.head.fault());
    // The target of the host's redirect of the HEAD can't be reached.
    let is_of_head = matches!(head, Some(HttpFault::RedirectBlocked { phase, .. })
        if finding.leg == Some(Role::Registry) && finding.phase == Some(*phase));
    // How the host would respond to a request with the missing token is unknown.
    let is_of_lost_token = finding.leg == Some(Role::Token)
        && finding.cause != Cause::RealmUntrusted
        && !faults.any(is_of_token);
    walk.resolved_by_other_host && (is_of_head || is_of_lost_token)
}

pub(super) fn pull(evidence: &Evidence, findings: &[Finding]) -> Pull {
    let mut critical = findings
        .iter()
        .filter(|f| f.severity == Severity::Critical)
        .peekable();
    if critical.peek().is_none() {
        Pull::WouldSucceed
    } else if critical.all(|finding| leaves_undecided(evidence, finding)) {
        Pull::Unknown
    } else {
        Pull::WouldFail
    }
}

pub(super) fn leaves_undecided(evidence: &Evidence, finding: &Finding) -> bool {
    if finding.cause == Cause::SecretMissing && is_absent(evidence) {
        // Another Secret of the pod may have the credential.
        return is_unread(evidence);
    }
    // The node's own roots were observed, and there are none.
    let is_known = finding.cause == Cause::TlsNoRoots
        && !evidence
            .vantage
            .not_observed
            .contains(&NotObserved::NodeRoots);
    (finding.cause.entry().leaves_undecided && !is_known)
        || (finding.cause == Cause::DnsNoEdns && name_servers::depends_on_build(evidence))
        || (finding.cause == Cause::DnsTcpClosed && name_servers::is_resolved(evidence, finding.leg))
        || lookups::is_by_chance(evidence, finding)
        || repeats::passes_at_times(evidence, finding)
        // Files alone don't show which Secrets the cluster has; the API server does.
        || (finding.cause == Cause::SecretMissing && finding.confidence < Confidence::High)
        || auth::unread_beside(evidence, finding.cause).is_some()
        // A check that ended early without a recorded reason.
        || (finding.cause == Cause::Unexplained && finding.phase.is_none())
}

/// The API server has no such Secret.
fn is_absent(evidence: &Evidence) -> bool {
    let sought = evidence.pods.iter().flat_map(|pod| &pod.secrets);
    sought.into_iter().any(|one| one.found == Found::Absent)
}

/// Whether a Secret of the pods was not read.
fn is_unread(evidence: &Evidence) -> bool {
    let mut sought = evidence.pods.iter().flat_map(|pod| &pod.secrets);
    sought.any(|one| matches!(one.found, Found::Unread { .. }))
}

/// The check ran to its end.
pub(super) fn is_complete(evidence: &Evidence) -> bool {
    if evidence.pulled == Some(true) {
        return true;
    }
    let walk = &evidence.walk;
    let has_manifest = matches!(
        walk.manifest,
        Step::Done { .. }
            | Step::Skipped {
                reason: Skip::OtherHost
            }
    ) || evidence.manifest_elsewhere().is_some();
    let has_config =
        !matches!(walk.config, Some(Step::Failed { .. })) || evidence.config_elsewhere().is_some();
    (has_manifest && has_config && walk.serves_layers()) || is_spared(evidence)
}

/// The check stopped before a request that might count against a rate limit.
pub(super) fn is_spared(evidence: &Evidence) -> bool {
    matches!(&evidence.walk.manifest, Step::Skipped { reason } if *reason == Skip::QuotaReserved)
}

/// The finding for a check that ended early while no rule found a reason: a defect of the rules.
pub(super) fn unnamed(evidence: &Evidence) -> Finding {
    let failed = failed_steps(evidence);
    let (leg, phase) = failed.first().map(|(leg, phase, _)| (*leg, *phase)).unzip();
    let mut facts: Vec<String> = failed
        .into_iter()
        .map(|(leg, phase, fault)| format!("{leg} {phase}: {fault}"))
        .collect();
    if facts.is_empty() {
        facts.push("the check ended early, and no phase is recorded as failed".to_owned());
    }
    Finding {
        leg,
        phase,
        ..new(Cause::Unexplained).facts(facts)
    }
}

/// Every phase that failed, in the order of the check.
pub(super) fn failed_steps(evidence: &Evidence) -> Vec<(Role, Phase, String)> {
    let walk = &evidence.walk;
    let mut failed = Vec::new();
    let mut note = |leg, phase, words: Option<String>| {
        failed.extend(words.map(|words| (leg, phase, words)));
    };
    for leg in &walk.legs {
        note(leg.role, Phase::Resolve, leg.resolve.outcome.words());
        note(leg.role, Phase::Connect, leg.connect.outcome.words());
        let tunnel = leg.tunnel.as_ref().and_then(Step::words);
        note(leg.role, Phase::Proxy, tunnel);
        note(leg.role, Phase::Tls, leg.tls.outcome.words());
    }
    note(Role::Registry, Phase::Ping, walk.ping.words());
    for attempt in &walk.attempts {
        note(Role::Token, Phase::Token, attempt.token.words());
        note(Role::Registry, Phase::Manifest, attempt.head.words());
    }
    note(Role::Registry, Phase::Manifest, walk.manifest.words());
    let config = walk.config.as_ref().and_then(Step::words);
    note(Role::Registry, Phase::Blob, config);
    note(Role::Blob, Phase::Blob, walk.blob.words());
    failed
}

impl Verdict {
    /// The first critical finding.
    pub(super) fn root(&self) -> Option<&Finding> {
        let mut findings = self.findings.iter();
        findings.find(|finding| finding.severity == Severity::Critical)
    }
}
