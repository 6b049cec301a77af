//! Failures that rest only on settings of the node that were not observed.

use super::certificates;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Severity;
use crate::diagnose::{Finding, Verdict};
use crate::model::evidence::Evidence;
use crate::model::fault::Phase;
use crate::model::vantage::{NetworkView, NotObserved};

/// On what a result rests that was not observed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Unseen {
    /// On settings or credentials of the node alone: time changes nothing.
    Settings,
    /// On a connection or a name that a proxy, a mirror or the resolver of the node would avoid.
    Connection,
}

/// On what a verdict other than success rests, if each of its critical findings rests only on what was not observed.
/// `None` if one of them is certain, or if there is none.
pub fn rests_on(evidence: &Evidence, verdict: &Verdict) -> Option<Unseen> {
    of_all(evidence, &verdict.findings)
}

fn of_all(evidence: &Evidence, findings: &[Finding]) -> Option<Unseen> {
    let critical = findings.iter().filter(|f| f.severity == Severity::Critical);
    let mut all = None;
    for finding in critical {
        all = all.max(Some(of_one(evidence, finding)?));
    }
    all
}

fn of_one(evidence: &Evidence, finding: &Finding) -> Option<Unseen> {
    let is_unseen = |what: NotObserved| evidence.vantage.not_observed.contains(&what);
    let is_of_setting = match finding.cause {
        Cause::TlsNoRoots => is_unseen(NotObserved::NodeRoots),
        Cause::AuthNoCred | Cause::SecretKeyMismatch => is_unseen(NotObserved::NodeCredentials),
        Cause::AuthUnknown
        | Cause::SecretNotNamed
        | Cause::ProxyUnknown
        | Cause::RuntimeSettingsUnknown
        | Cause::ReleaseDecides => true,
        _ => false,
    };
    if is_of_setting {
        return Some(Unseen::Settings);
    }
    let is_of_name = finding.phase == Some(Phase::Resolve) && is_unseen(NotObserved::NodeResolver);
    match depends_on(evidence, finding) {
        Some(NotObserved::NodeRoots) => Some(Unseen::Settings),
        Some(_) => Some(Unseen::Connection),
        None => is_of_name.then_some(Unseen::Connection),
    }
}

/// A setting of the node that was not observed and that could avoid this failure there.
pub(super) fn depends_on(evidence: &Evidence, finding: &Finding) -> Option<NotObserved> {
    let vantage = &evidence.vantage;
    let unseen = |what: NotObserved| vantage.not_observed.contains(&what).then_some(what);
    if certificates::depends_on_roots(finding.cause) {
        return unseen(NotObserved::NodeRoots);
    }
    // Outside a pod, the settings found may be containerd's; inside a pod, they are not.
    let is_pod = vantage.network != NetworkView::Machine;
    let is_critical = finding.severity == Severity::Critical;
    let is_of_connection = matches!(finding.phase, Some(Phase::Connect | Phase::Tls));
    // That is a fault of the network, for any server.
    let is_of_network = finding.cause == Cause::NoEgress;
    if !is_pod || !is_critical || !is_of_connection || is_of_network {
        return None;
    }
    unseen(NotObserved::Proxy).or_else(|| unseen(NotObserved::Mirrors))
}

/// The pull would fail for what was not observed alone, and yet the node has the image: it trusts or reaches what this
/// check does not. The findings then say so.
pub(super) fn is_contradicted(evidence: &Evidence, findings: &mut [Finding]) -> bool {
    let Some(user) = &evidence.present_for else {
        return false;
    };
    if of_all(evidence, findings).is_none() {
        return false;
    }
    let critical = findings.iter_mut();
    for finding in critical.filter(|f| f.severity == Severity::Critical) {
        finding.evidence.push(format!(
            "the node has this image, and {user} runs with it: what this check can't observe there may well make the pull succeed"
        ));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::fixture::healthy;
    use crate::diagnose::level::Confidence;
    use crate::diagnose::{Pull, diagnose};
    use crate::model::endpoint::Role;
    use crate::model::fault::TlsFault;

    fn untrusted(is_seen: bool) -> Evidence {
        let fault = TlsFault::UnknownIssuer {
            issuer: "CN=Example CA".to_owned(),
        };
        let mut evidence = healthy().unsecured(Role::Registry, fault);
        evidence.vantage.not_observed = if is_seen {
            Vec::new()
        } else {
            vec![NotObserved::NodeRoots]
        };
        evidence
    }

    #[test]
    fn an_image_that_the_node_has_contradicts_only_what_was_not_observed() {
        for (is_seen, is_present, pull) in [
            (false, false, Pull::WouldFail),
            (true, true, Pull::WouldFail),
            (false, true, Pull::Unknown),
        ] {
            let mut evidence = untrusted(is_seen);
            evidence.present_for = is_present.then(|| "Pod shop/a, container app".to_owned());
            let verdict = diagnose(&evidence);
            assert_eq!(verdict.pull, pull, "{is_seen} {is_present}");
            let worst = &verdict.findings[0];
            assert_eq!(worst.cause, Cause::TlsUnknownCa);
            let says = worst
                .evidence
                .iter()
                .any(|fact| fact.contains("Pod shop/a"));
            assert_eq!(says, pull == Pull::Unknown);
            if !is_seen {
                assert_eq!(worst.confidence, Confidence::Medium);
            }
            let unseen = (!is_seen).then_some(Unseen::Settings);
            assert_eq!(rests_on(&evidence, &verdict), unseen);
        }
        let verdict = diagnose(&healthy());
        assert_eq!(rests_on(&healthy(), &verdict), None);
    }
}
