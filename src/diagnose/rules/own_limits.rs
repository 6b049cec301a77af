//! The rule for limits of this program's own process: what a check could not see because of them is no fault of the
//! registry.

use std::collections::BTreeSet;

use super::finding::new;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Severity;
use crate::model::credential::SourceProblem;
use crate::model::evidence::{Attempt, Evidence, Leg, Walk};
use crate::model::own_limit::OwnLimit;
use crate::model::step::Step;

/// The limits that the check met; none if it found a pull possible in spite of them.
pub(super) fn met(evidence: &Evidence, is_complete: bool, findings: &mut Vec<Finding>) {
    let is_failed = findings
        .iter()
        .any(|one| one.severity == Severity::Critical);
    let limits = limits(evidence, is_failed);
    if limits.is_empty() || (is_complete && !is_failed) {
        return;
    }
    let fixes: Vec<&str> = limits.iter().map(|limit| limit.fix()).collect();
    findings.push(
        new(Cause::OwnLimits)
            .facts(limits.iter().map(ToString::to_string))
            .hint(fixes.join(" ")),
    );
}

/// Whether the finding may follow from such a limit: a part of the check was not made.
pub(super) fn may_explain(root: &Finding, finding: &Finding) -> bool {
    root.cause == Cause::OwnLimits
        && finding.cause != Cause::OwnLimits
        && finding.severity == Severity::Critical
}

/// The limits that may be the reason for the result; `is_failed`: a finding is another reason.
fn limits(evidence: &Evidence, is_failed: bool) -> BTreeSet<OwnLimit> {
    let mut limits: BTreeSet<OwnLimit> = evidence.own_limits.iter().copied().collect();
    if is_failed && !may_be_pause(evidence) {
        limits.remove(&OwnLimit::Cpu);
    }
    limits.extend(evidence.limits_of_phases());
    limits
}

/// Whether something failed as it may if this process does not run. An answer that was received shows the same
/// whenever it is read, unless the request had no credential because a helper was not observed.
fn may_be_pause(evidence: &Evidence) -> bool {
    let is_helper = |problem: &SourceProblem| matches!(problem, SourceProblem::HelperFailed { .. });
    let mut problems = evidence.keyring.sources.iter();
    problems.any(|source| source.problem.as_ref().is_some_and(is_helper))
        || std::iter::once(&evidence.walk)
            .chain(&evidence.others)
            .any(has_pause)
}

fn has_pause(walk: &Walk) -> bool {
    let of_leg = |leg: &Leg| {
        leg.resolve.outcome.may_be_pause()
            || leg.connect.outcome.may_be_pause()
            || leg
                .proxy_tls
                .as_ref()
                .is_some_and(|tls| tls.outcome.may_be_pause())
            || leg.tunnel.as_ref().is_some_and(Step::may_be_pause)
            || leg.tls.outcome.may_be_pause()
    };
    let of_attempt =
        |attempt: &Attempt| attempt.token.may_be_pause() || attempt.head.may_be_pause();
    walk.legs.iter().any(of_leg)
        || walk.ping.may_be_pause()
        || walk.attempts.iter().any(of_attempt)
        || walk.manifest.may_be_pause()
        || walk.config.as_ref().is_some_and(Step::may_be_pause)
        || walk.blob.may_be_pause()
        || walk.layers.iter().any(|layer| layer.outcome.may_be_pause())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::diagnose::fixture;
    use crate::diagnose::{Pull, diagnose};
    use crate::model::credential::{CredentialSource, SourceEvidence};
    use crate::model::endpoint::Role;
    use crate::model::fault::{DnsFault, HttpFault, ManifestFault, Phase, TcpFault};
    use crate::model::step::Skip;
    use crate::model::vantage::NetworkView;

    const SKIPPED: Skip = Skip::OwnLimit {
        limit: OwnLimit::OpenFiles,
    };

    #[track_caller]
    fn is_unknown(evidence: &Evidence, limit: OwnLimit) {
        let verdict = diagnose(evidence);
        let causes: Vec<_> = verdict.findings.iter().map(|one| one.cause).collect();
        assert_eq!(verdict.pull, Pull::Unknown, "{causes:?}");
        let own = &verdict.findings[0];
        assert_eq!(own.cause, Cause::OwnLimits, "{causes:?}");
        assert_eq!(own.evidence[0], limit.to_string());
        assert!(own.hint.contains(limit.fix()), "{}", own.hint);
        let others = &verdict.findings[1..];
        assert!(
            others.iter().all(|one| one.severity < Severity::Critical),
            "{causes:?}"
        );
    }

    /// Each phase that a limit stopped, with what is blocked after it.
    #[test]
    fn what_a_limit_stopped_is_unknown_in_every_phase() {
        let phases: [fn(&mut Walk); 7] = [
            |walk| walk.legs[0].resolve.outcome = Step::skipped(SKIPPED),
            |walk| walk.legs[0].connect.outcome = Step::skipped(SKIPPED),
            |walk| walk.legs[0].tls.outcome = Step::skipped(SKIPPED),
            |walk| walk.attempts[0].token = Step::skipped(SKIPPED),
            |walk| walk.attempts[0].head = Step::skipped(SKIPPED),
            |walk| walk.manifest = Step::skipped(SKIPPED),
            |walk| walk.blob = Step::skipped(SKIPPED),
        ];
        for (index, stop) in phases.into_iter().enumerate() {
            let mut evidence = fixture::healthy();
            evidence.pulled = Some(false);
            if index < 5 {
                evidence.walk.manifest = Step::blocked(Role::Registry, Phase::Connect);
            }
            if index < 6 {
                evidence.walk.blob = Step::blocked(Role::Registry, Phase::Manifest);
            }
            stop(&mut evidence.walk);
            is_unknown(&evidence, OwnLimit::OpenFiles);
        }
    }

    /// A fault that is only there because of the limit is a consequence, whatever it looks like.
    #[test]
    fn no_other_cause_fails_a_pull_beside_a_limit() {
        let mut evidence = fixture::healthy();
        evidence.pulled = Some(false);
        evidence.own_limits = vec![OwnLimit::Cpu];
        evidence.walk.blob = Step::Failed {
            fault: HttpFault::Closed,
            took: Duration::from_secs(1),
        };
        is_unknown(&evidence, OwnLimit::Cpu);
        let verdict = diagnose(&evidence);
        let causes: Vec<_> = verdict.consequences.iter().map(|one| one.cause).collect();
        assert_eq!(causes, [Cause::TcpReset]);
        evidence.own_limits.clear();
        assert_eq!(diagnose(&evidence).pull, Pull::WouldFail);
    }

    fn status(status: u16) -> HttpFault {
        HttpFault::Status {
            status,
            code: None,
            message: None,
            retry_after: None,
            challenged: false,
            authorized: true,
        }
    }

    /// Each answer that was received fails the pull, whatever the check waited for.
    #[test]
    fn an_answer_stays_an_answer_beside_a_lack_of_cpu() {
        let took = Duration::from_secs(1);
        let answers: [fn(&mut Walk, HttpFault); 2] = [
            |walk, fault| walk.blob = Step::failed(fault, Duration::ZERO),
            |walk, fault| {
                walk.manifest = Step::failed(ManifestFault::Http { fault }, Duration::ZERO);
                walk.blob = Step::blocked(Role::Registry, Phase::Manifest);
            },
        ];
        for (fail, code) in answers
            .into_iter()
            .flat_map(|fail| [401, 403, 404].map(|code| (fail, code)))
        {
            let mut evidence = fixture::healthy();
            evidence.pulled = Some(false);
            evidence.own_limits = vec![OwnLimit::Cpu];
            fail(&mut evidence.walk, status(code));
            let verdict = diagnose(&evidence);
            let causes: Vec<_> = verdict.findings.iter().map(|one| one.cause).collect();
            assert_eq!(verdict.pull, Pull::WouldFail, "{code}: {causes:?}");
            assert!(!causes.contains(&Cause::OwnLimits), "{code}: {causes:?}");
            // A limit of files may have kept the credential from being read.
            evidence.own_limits = vec![OwnLimit::OpenFiles];
            is_unknown(&evidence, OwnLimit::OpenFiles);
        }
        let mut evidence = fixture::healthy();
        evidence.pulled = Some(false);
        evidence.own_limits = vec![OwnLimit::Cpu];
        evidence.walk.legs[0].resolve.outcome = Step::failed(DnsFault::NxDomain, took);
        evidence.walk.legs[0].connect.outcome = Step::blocked(Role::Registry, Phase::Resolve);
        evidence.walk.legs[0].tls.outcome = Step::blocked(Role::Registry, Phase::Resolve);
        evidence.walk.manifest = Step::blocked(Role::Registry, Phase::Resolve);
        evidence.walk.blob = Step::blocked(Role::Registry, Phase::Resolve);
        evidence.walk.attempts.clear();
        assert_eq!(diagnose(&evidence).pull, Pull::WouldFail);
        evidence.walk.legs[0].resolve.outcome = Step::failed(DnsFault::Timeout, took);
        is_unknown(&evidence, OwnLimit::Cpu);
    }

    /// The credential that the helper has was not sent.
    #[test]
    fn a_helper_that_was_not_observed_leaves_a_refusal_unknown() {
        let mut evidence = fixture::healthy();
        evidence.pulled = Some(false);
        evidence.own_limits = vec![OwnLimit::Cpu];
        evidence.walk.blob = Step::failed(status(403), Duration::ZERO);
        assert_eq!(diagnose(&evidence).pull, Pull::WouldFail);
        evidence.keyring.sources.push(SourceEvidence {
            at_usual_path: false,
            server_keys: Vec::new(),
            lint: Vec::new(),
            expiries: Vec::new(),
            source: CredentialSource::CommandLine,
            keys: 0,
            problem: Some(SourceProblem::HelperFailed {
                reason: OwnLimit::Cpu.to_string(),
            }),
        });
        is_unknown(&evidence, OwnLimit::Cpu);
    }

    #[test]
    fn a_check_that_got_the_image_is_not_in_doubt() {
        let mut evidence = fixture::healthy();
        evidence.own_limits = vec![OwnLimit::OpenFiles];
        let verdict = diagnose(&evidence);
        assert_eq!(verdict.pull, Pull::WouldSucceed);
        assert!(
            verdict
                .findings
                .iter()
                .all(|one| one.cause != Cause::OwnLimits)
        );
    }

    /// A pull takes its ports from the node's network namespace, not from that of a pod.
    #[test]
    fn ports_are_the_pull_s_where_it_has_the_same() {
        let mut evidence = fixture::healthy();
        evidence.pulled = Some(false);
        let leg = &mut evidence.walk.legs[0];
        let took = Duration::ZERO;
        leg.connect.outcome = Step::failed(TcpFault::NoLocalPort, took);
        for dial in &mut leg.connect.attempts {
            dial.outcome = Step::failed(TcpFault::NoLocalPort, took);
        }
        leg.tls.outcome = Step::blocked(leg.role, Phase::Connect);
        evidence.walk.manifest = Step::blocked(leg.role, Phase::Connect);
        evidence.walk.blob = Step::blocked(leg.role, Phase::Connect);
        evidence.walk.attempts.clear();
        evidence.vantage.network = NetworkView::Pod;
        is_unknown(&evidence, OwnLimit::Ports);
        assert_eq!(evidence.limits_of_phases(), [OwnLimit::Ports]);
        evidence.vantage.network = NetworkView::Node;
        assert_eq!(evidence.limits_of_phases(), []);
        let verdict = diagnose(&evidence);
        assert_eq!(verdict.pull, Pull::WouldFail);
        assert_eq!(verdict.findings[0].cause, Cause::NoLocalAddress);
    }

    #[test]
    fn a_fault_of_a_limit_is_no_failed_phase() {
        let took = Duration::ZERO;
        let fault = DnsFault::from(OwnLimit::Memory);
        let step: Step<(), DnsFault> = Step::failed(fault, took);
        assert_eq!(step.own_limit(), Some(OwnLimit::Memory));
        let fault = HttpFault::Unauthorized {
            credential: None,
            fault: Box::new(crate::model::fault::TokenFault::Http {
                fault: OwnLimit::Memory.into(),
            }),
        };
        let step: Step<(), HttpFault> = Step::from_result(Err(fault), took);
        assert_eq!(step.own_limit(), Some(OwnLimit::Memory));
    }
}
