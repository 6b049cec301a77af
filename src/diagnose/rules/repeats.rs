//! Rules for exchanges that failed and were tried again at the same address: is the size of packets the reason, or do
//! the servers behind the address differ?

use std::time::Duration;

use super::finding::at;
use super::tls;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::model::connect::Tls;
use crate::model::evidence::{Evidence, Leg, SegmentTrial, SegmentTrials};
use crate::model::fault::{HttpFault, ManifestFault, Phase, TlsFault};
use crate::model::step::Step;
use crate::model::transfer::NotConnected;
use crate::model::units::HumanDuration;

/// Large packets are lost: small segments pass where usual ones hang, whatever the order.
pub(super) fn segments(evidence: &Evidence) -> Option<Finding> {
    let tried = evidence.walk.segments.as_ref()?;
    // Once could be chance.
    let is_repeated = tried.failed() > 1 && tried.trials.len() > tried.failed() + 1;
    if !tried.is_by_size() || !is_repeated {
        return None;
    }
    let order = if tried.is_proof() {
        " in an order without a period"
    } else {
        ""
    };
    let finding = at(Cause::MtuBlackhole, tried.role, tried.phase).fact(format!(
        "the same exchange with {} at {}, {} times{order}:",
        tried.endpoint,
        tried.to,
        tried.trials.len()
    ));
    Some(if tried.is_proof() {
        let of = |is_small: bool| {
            let trials = tried.trials.iter();
            let all: Vec<&SegmentTrial> = trials
                .filter(|trial| trial.max_segment.is_some() == is_small)
                .collect();
            let slowest = all.iter().map(|trial| trial.took).max();
            (all, HumanDuration(slowest.unwrap_or_default()))
        };
        let ((small, small_took), (usual, usual_took)) = (of(true), of(false));
        let first = usual.first().and_then(|trial| trial.fault.as_deref());
        let size = small.first().and_then(|trial| trial.max_segment);
        finding
            .fact(format!(
                "usual segments: {} of {} failed ({}), after at most {usual_took}",
                usual.len(),
                usual.len(),
                first.unwrap_or_default()
            ))
            .fact(format!(
                "segments of at most {} bytes: passes, {} of {}, in at most {small_took}",
                size.unwrap_or_default(),
                small.len(),
                small.len()
            ))
    } else {
        finding
            .facts(tried.trials.iter().map(line))
            .fact("so few trials may be chance, or servers that take turns behind the address")
            .confidence(Confidence::Low)
    })
}

fn line(trial: &SegmentTrial) -> String {
    let size = trial.max_segment.map_or_else(
        || "usual segments".to_owned(),
        |size| format!("segments of at most {size} bytes"),
    );
    let result = trial.fault.as_deref().unwrap_or("passes");
    format!("{size}: {result}, in {}", HumanDuration(trial.took))
}

/// Corrects the findings of an exchange that passes and fails by turns: what it met is a part of what stands behind the
/// address.
pub(super) fn in_turn(evidence: &Evidence, findings: &mut [Finding]) {
    let Some(tried) = &evidence.walk.segments else {
        return;
    };
    let mut findings = findings.iter_mut();
    let Some(finding) = findings.find(|finding| is_of_trials(tried, finding)) else {
        return;
    };
    if is_mixed(tried) {
        let is_of_connection = matches!(tried.phase, Phase::Connect | Phase::Tls);
        let is_silent = tried.trials[0].is_silent;
        finding.cause = match (tried.phase, is_silent) {
            (Phase::Connect, true) => Cause::TcpTimeout,
            (Phase::Tls, true) => Cause::TlsHang,
            (Phase::Tls, false) => Cause::TlsReset,
            _ => finding.cause,
        };
        finding.phase = Some(tried.phase);
        finding.confidence = Confidence::Medium;
        let fact = mixed(tried, is_of_connection, is_silent);
        finding.evidence.push(fact);
        finding.hint = dead_part(&tried.to.to_string());
    } else if finding.cause == Cause::TlsHang && fails_with_any_size(tried) {
        finding.evidence.push(format!(
            "{} further connections to {} hung as well, with small segments and with usual ones: the size of packets is hardly the reason",
            tried.trials.len() - 1,
            tried.to
        ));
        finding.hint = format!(
            "Check the server at {} first (its log and its load), then the firewalls and filters on the path: one of them may drop this server name.",
            tried.to
        );
    } else if is_over(tried) {
        let passed = tried.trials.len() - tried.failed();
        finding.confidence = Confidence::Medium;
        finding.evidence.push(if tried.failed() == 1 {
            format!(
                "{passed} further connections to {} right after it were all answered",
                tried.to
            )
        } else {
            format!(
                "{} connections in a row to {} failed, and the {passed} after them were answered",
                tried.failed(),
                tried.to
            )
        });
        // A second connection is a matter of its own: a server may limit them.
        if finding.cause != Cause::TcpReset {
            finding.hint = format!(
                "Probe again: it is over for now. If it repeats now and then, look behind {} for a server that is dead or overloaded.",
                tried.to
            );
        }
    }
}

/// Whether the finding is about an exchange that passes at times: whether a pull meets it is chance.
pub(super) fn passes_at_times(evidence: &Evidence, finding: &Finding) -> bool {
    let tried = evidence.walk.segments.as_ref();
    tried.is_some_and(|tried| is_of_trials(tried, finding) && (is_mixed(tried) || is_over(tried)))
}

fn is_of_trials(tried: &SegmentTrials, finding: &Finding) -> bool {
    finding.leg == Some(tried.role)
        && matches!(
            finding.cause,
            Cause::TlsHang
                | Cause::TlsReset
                | Cause::TcpReset
                | Cause::TcpTimeout
                | Cause::HttpTimeout
        )
}

/// Whether the exchange passes and fails by turns.
fn is_mixed(tried: &SegmentTrials) -> bool {
    // SYNs are sent at the same time: they have no order.
    let is_part = tried.failed() > 1 && tried.failed() < tried.trials.len();
    tried.is_in_turn() || (tried.phase == Phase::Connect && is_part)
}

/// Whether connections failed until a moment, and passed from then on.
fn is_over(tried: &SegmentTrials) -> bool {
    let is_of_connection = matches!(tried.phase, Phase::Connect | Phase::Tls);
    let first_passed = tried.trials.iter().take_while(|trial| !trial.passed());
    let is_one_turn = first_passed.count() == tried.failed();
    is_of_connection
        && is_one_turn
        && tried.trials.len() > tried.failed() + 1
        && (tried.failed() == 1 || !tried.is_by_size())
}

/// Whether all failed, among them some with small segments and some without.
fn fails_with_any_size(tried: &SegmentTrials) -> bool {
    let further = || tried.trials.iter().skip(1);
    tried.failed() == tried.trials.len()
        && further().any(|trial| trial.max_segment.is_some())
        && further().any(|trial| trial.max_segment.is_none())
}

/// What the trials show, in a sentence.
fn mixed(tried: &SegmentTrials, is_of_connection: bool, is_silent: bool) -> String {
    let (what, fail) = match (is_of_connection, is_silent) {
        (true, true) => ("connections", "hang"),
        (true, false) => ("connections", "are cut"),
        (false, true) => ("equal requests", "hang"),
        (false, false) => ("equal requests", "are cut"),
    };
    let sizes = if tried.trials.iter().any(|trial| trial.max_segment.is_some()) {
        ", whatever their segment size"
    } else {
        ""
    };
    let order = tried.trials.iter();
    let order: Vec<&str> = order
        .map(|trial| if trial.passed() { "passes" } else { "fails" })
        .collect();
    format!(
        "{what} to the same address {} pass and {fail} in turn{sizes}: {} of {} failed ({}), so a part of what stands behind the address is dead",
        tried.to,
        tried.failed(),
        tried.trials.len(),
        order.join(", ")
    )
}

/// Connections of the transfer test that could not be opened, beside others to the same address.
pub(super) fn transfer(evidence: &Evidence) -> Option<Finding> {
    let transfer = evidence.walk.transfer.as_ref()?;
    let first = transfer.not_connected.first()?;
    let same = transfer
        .not_connected
        .iter()
        .filter(|one| one.to == first.to);
    let same: Vec<&NotConnected> = same.collect();
    let leg = evidence.walk.legs.iter().find(|leg| {
        let connected = leg.connect.outcome.done();
        connected.is_some_and(|connected| connected.to == first.to)
    })?;
    let finding = first
        .tls
        .as_ref()
        .and_then(|fault| differs(evidence, leg, fault))
        .unwrap_or_else(|| {
            let cause = match (first.phase, first.is_silent) {
                (Phase::Connect, true) => Cause::TcpTimeout,
                (Phase::Tls, true) => Cause::TlsHang,
                (Phase::Tls, false) => Cause::TlsReset,
                _ => Cause::TcpReset,
            };
            at(cause, leg.role, first.phase).hint(dead_part(&first.to.to_string()))
        });
    Some(
        finding
            .severity(Severity::Warning)
            .confidence(Confidence::Medium)
            .fact(format!(
                "{} of the {} connections of the transfer test to {} failed beside others that worked: {}",
                same.len(),
                transfer.connections_tried,
                first.to,
                first.reason
            )),
    )
}

/// Corrects the findings of a second connection that got another answer in TLS than the first.
pub(super) fn second(evidence: &Evidence, findings: &mut [Finding]) {
    let walk = &evidence.walk;
    let head = walk
        .attempts
        .last()
        .and_then(|attempt| attempt.head.fault());
    let manifest = match walk.manifest.fault() {
        Some(ManifestFault::Http { fault }) => Some(fault),
        _ => None,
    };
    let faults = [
        (Phase::Ping, walk.ping.fault()),
        (Phase::Manifest, head),
        (Phase::Manifest, manifest),
        (Phase::Blob, walk.blob.fault()),
    ];
    for (phase, fault) in faults {
        let Some(HttpFault::Reconnect {
            tls: Some(fault), ..
        }) = fault
        else {
            continue;
        };
        let is_its = |finding: &&mut Finding| {
            finding.cause == Cause::TcpReset && finding.phase == Some(phase)
        };
        let Some(finding) = findings.iter_mut().find(is_its) else {
            continue;
        };
        let leg = finding.leg.and_then(|role| walk.legs_of(role).last());
        if let Some(other) = leg.and_then(|leg| differs(evidence, leg, fault)) {
            finding.cause = other.cause;
            finding.confidence = other.confidence;
            finding.evidence.extend(other.evidence);
            finding.hint = other.hint;
        }
    }
}

/// A further connection to the address of a leg whose own handshake succeeded gets another answer in TLS, such as
/// another certificate: the servers behind the address differ. `None` for one that hung or was cut.
fn differs(evidence: &Evidence, leg: &Leg, fault: &TlsFault) -> Option<Finding> {
    let is_of_connection = matches!(
        fault,
        TlsFault::Timeout { .. } | TlsFault::Reset { .. } | TlsFault::Closed { .. }
    );
    let to = leg.connect.outcome.done()?.to;
    let mut there = leg.clone();
    there.tls = Tls {
        outcome: Step::Failed {
            fault: fault.clone(),
            took: Duration::ZERO,
        },
        ..Tls::default()
    };
    let finding = tls::handshake(evidence, &there).filter(|_| !is_of_connection)?;
    Some(
        at(finding.cause, leg.role, Phase::Tls)
            .confidence(Confidence::Medium)
            .fact(format!(
                "an earlier connection to the same address {to} was fine, so the servers behind it differ"
            ))
            .hint(format!(
                "Fix TLS at the server behind {to} that differs from the others (a balancer sends it a part of the connections), or take it out."
            )),
    )
}

/// The fix for an address of which a part of the servers behind it does not work.
pub(super) fn dead_part(to: &str) -> String {
    format!(
        "Find the server behind {to} that does not answer (a balancer still sends it connections), and repair it or take it out; then let the balancer's health check do so. If all of them work, look there for a limit on connections from one client."
    )
}
