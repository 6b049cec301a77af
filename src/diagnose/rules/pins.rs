//! Rules for addresses that the hosts file pins: one that differs from DNS is the first suspect of whatever fails
//! behind it.

use std::net::IpAddr;

use super::finding::at;
use super::outcome::leaves_undecided;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::model::endpoint::{Role, Scheme};
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{Phase, TcpFault};
use crate::model::resolve::{Family, ResolutionSource};
use crate::model::text::joined;

/// Judges the pinned addresses of each leg by what failed behind them.
pub(super) fn suspects(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.walk.legs {
        let found = leg.resolve.outcome.done();
        if found.is_some_and(|found| found.source == ResolutionSource::HostsFile) {
            let mut finding = suspect(evidence, leg, findings);
            if evidence.vantage.hosts_copied
                && let Some(finding) = &mut finding
            {
                finding.confidence = finding.confidence.min(Confidence::Medium);
                finding.evidence.push("this hosts file is the kubelet's copy from the start of this pod: compare it with /etc/hosts on the node".to_owned());
            }
            findings.extend(finding);
        }
    }
}

fn suspect(evidence: &Evidence, leg: &Leg, findings: &mut [Finding]) -> Option<Finding> {
    let stale = leg.resolve.stale_pins();
    let dead: Vec<IpAddr> = leg
        .connect
        .attempts
        .iter()
        .filter(|dial| dial.outcome.fault().is_some())
        .map(|dial| dial.to.ip())
        .collect();
    let finding = match (leg.connect.outcome.fault(), leg.connect.outcome.done()) {
        (Some(fault), _) => unreachable(leg, fault, &stale, &dead, findings),
        (_, Some(used)) if stale.contains(&used.to.ip()) => behind(evidence, leg, findings),
        _ => None,
    };
    finding.or_else(|| partly_dead(leg, &stale, &dead, findings))
}

/// No pinned address can be connected to.
fn unreachable(
    leg: &Leg,
    fault: &TcpFault,
    stale: &[IpAddr],
    dead: &[IpAddr],
    findings: &mut [Finding],
) -> Option<Finding> {
    // A local policy, a prohibition or a missing route here is about this machine or the path, not about the entry,
    // unless DNS's address works.
    let may_be_old = is_proved(leg)
        || matches!(
            fault,
            TcpFault::Timeout
                | TcpFault::Reset
                | TcpFault::Refused { .. }
                | TcpFault::HostUnreachable { .. }
                | TcpFault::NetUnreachable { icmp: Some(_) }
        );
    // If an address that DNS has is dead as well, the entry is not the reason.
    if !may_be_old || stale.is_empty() || !dead.iter().all(|one| stale.contains(one)) {
        return None;
    }
    if is_no_better(leg) {
        note(findings, leg, &[Phase::Connect], None);
        return None;
    }
    // A closed port, or a proxy that can't be reached, has a cause of its own.
    let is_proxy = leg.proxy_route.proxy().is_some();
    if is_proxy {
        note(findings, leg, &[Phase::Connect], Some(&first(leg)));
    } else if matches!(fault, TcpFault::Refused { .. }) {
        // A host answers there, so the entry is to blame only if the server at DNS's address answers better.
        let before =
            success(leg).map(|_| format!("{}, or remove it. If it is meant: ", correct(leg)));
        note(findings, leg, &[Phase::Connect], before.as_deref());
        let of_leg = findings.iter_mut().filter(|finding| {
            finding.leg == Some(leg.role) && finding.phase == Some(Phase::Connect)
        });
        for finding in of_leg {
            match success(leg) {
                Some(success) => finding.evidence.insert(1, success),
                None => finding.confidence = finding.confidence.min(Confidence::Medium),
            }
        }
        return None;
    }
    let finding = stale_at(leg, Phase::Connect).fact(format!("{}: {fault}", leg.endpoint));
    Some(finding.severity(Severity::critical_if(!is_proxy)))
}

/// A pinned address that DNS does not have is connected to, and something behind it fails.
fn behind(evidence: &Evidence, leg: &Leg, findings: &mut [Finding]) -> Option<Finding> {
    let phases: &[Phase] = if leg.proxy_route.proxy().is_some() {
        &[Phase::Proxy]
    } else {
        &[
            Phase::Tls,
            Phase::Ping,
            Phase::Token,
            Phase::Manifest,
            Phase::Blob,
        ]
    };
    let is_blamed = |finding: &Finding| {
        // A registry rejects the tokens of another token service.
        let is_of_token = leg.role == Role::Token
            && finding.leg == Some(Role::Registry)
            && finding.cause == Cause::AuthDenied;
        (finding.leg == Some(leg.role) || is_of_token)
            && finding.severity == Severity::Critical
            && finding.phase.is_some_and(|phase| phases.contains(&phase))
            && may_be_by_address(finding.cause)
    };
    let blamed = findings.iter().find(|finding| is_blamed(finding))?;
    let phase = blamed.phase?;
    let what = blamed.cause.entry().title;
    if is_no_better(leg) {
        note(findings, leg, phases, None);
        return None;
    }
    // A handshake that fails here and succeeds at DNS's address decides; of requests, it says little.
    if phase == Phase::Tls && leg.tls.outcome.fault().is_some() && is_proved(leg) {
        return Some(stale_at(leg, Phase::Tls).facts(leg.tls.outcome.words()));
    }
    let severity = if leaves_undecided(evidence, blamed) || leg.proxy_route.proxy().is_some() {
        Severity::Warning
    } else {
        Severity::Critical
    };
    let finding = stale_at(leg, Phase::Connect)
        .confidence(Confidence::Medium)
        .severity(severity)
        .fact(format!("at the pinned address: {what}"));
    let hint = if leg.proxy_route.proxy().is_some() {
        finding.hint.clone()
    } else {
        format!("{}{}", finding.hint, trial(leg))
    };
    for finding in findings.iter_mut().filter(|finding| is_blamed(finding)) {
        finding.confidence = finding.confidence.min(Confidence::Medium);
        finding.evidence.insert(0, leg.resolve.pin()?);
    }
    Some(finding.hint(hint))
}

/// Some of the pinned addresses do not work.
fn partly_dead(
    leg: &Leg,
    stale: &[IpAddr],
    dead: &[IpAddr],
    findings: &mut [Finding],
) -> Option<Finding> {
    leg.connect.outcome.done()?;
    let mut findings = findings.iter_mut();
    let partly = findings.find(|finding| {
        finding.leg == Some(leg.role)
            && finding.phase == Some(Phase::Connect)
            && finding.cause == Cause::AddressPartlyDead
    })?;
    let (host, lines) = (leg.dialed(), joined(dead));
    // DNS decides nothing here.
    partly.hint = format!(
        "Remove {lines} from the entries of '{host}' in the hosts file, or fix the host behind it."
    );
    partly.evidence.extend(leg.resolve.pin());
    if stale.is_empty() || !dead.iter().all(|one| stale.contains(one)) {
        return None;
    }
    Some(
        stale_at(leg, Phase::Connect)
            .severity(Severity::Warning)
            .confidence(Confidence::Medium)
            .facts(partly.evidence.iter().take(1 + dead.len()).cloned())
            .hint(format!(
                "Correct or remove the entry {lines} of '{host}' in the hosts file."
            )),
    )
}

/// The finding for a pin that differs; the confidence is high if a handshake at DNS's address succeeded.
fn stale_at(leg: &Leg, phase: Phase) -> Finding {
    at(Cause::DnsStale, leg.role, phase)
        .confidence(Confidence::high_if(is_proved(leg)))
        .facts(leg.resolve.pin())
        .facts(success(leg))
        .hint(format!("{}, or remove it.", correct(leg)))
}

fn correct(leg: &Leg) -> String {
    format!(
        "Correct the entry of '{}' in the hosts file (DNS has {})",
        leg.dialed(),
        joined(leg.resolve.dns_addresses())
    )
}

/// Precedes the hint of a cause that has another explanation.
fn first(leg: &Leg) -> String {
    format!("{}, if it is outdated. Otherwise: ", correct(leg))
}

/// How to try DNS's address without changing the file.
fn trial(leg: &Leg) -> String {
    let addresses = leg.resolve.dns_addresses();
    let found = leg.resolve.outcome.done();
    let family = found
        .and_then(|found| found.addresses.first())
        .map(|one| Family::of(*one));
    let mut same = addresses
        .iter()
        .filter(|one| Some(Family::of(**one)) == family);
    let address = same.next().or_else(|| addresses.first());
    address.map_or_else(String::new, |address| {
        format!(
            " To see first whether that helps, run `pullpath probe --resolve {}:{}:{address}`. If the pin is meant, the finding below applies.",
            leg.endpoint.host, leg.endpoint.port
        )
    })
}

/// A verified handshake at DNS's address succeeded.
fn is_proved(leg: &Leg) -> bool {
    let trial = leg.pin_trial.as_ref();
    leg.endpoint.scheme == Scheme::Https && trial.is_some_and(|trial| trial.fault.is_none())
}

/// What succeeded at DNS's address, if it was tried.
fn success(leg: &Leg) -> Option<String> {
    let trial = leg.pin_trial.as_ref();
    let trial = trial.filter(|trial| trial.fault.is_none())?;
    let what = if leg.endpoint.scheme == Scheme::Https {
        "TLS succeeds there, with a certificate for this name"
    } else {
        "it accepts connections"
    };
    Some(format!("{} was tried: {what}", trial.to))
}

/// What was tried at DNS's address fails as well.
fn is_no_better(leg: &Leg) -> bool {
    let trial = leg.pin_trial.as_ref();
    trial.is_some_and(|trial| trial.fault.is_some())
}

/// Adds the pin to the findings of a leg, and puts this before their hint.
fn note(findings: &mut [Finding], leg: &Leg, phases: &[Phase], before_hint: Option<&str>) {
    for finding in findings {
        if finding.leg == Some(leg.role)
            && finding.phase.is_some_and(|phase| phases.contains(&phase))
        {
            let trial = leg.pin_trial.as_ref();
            let at_dns = trial.and_then(|trial| {
                Some(format!(
                    "{} was tried as well: {}",
                    trial.to,
                    trial.fault.as_ref()?
                ))
            });
            let facts = leg.resolve.pin().into_iter().chain(at_dns);
            finding
                .evidence
                .retain(|fact| !fact.contains("is from the hosts file"));
            finding.evidence.splice(0..0, facts);
            if leg.proxy_route.proxy().is_some() {
                finding.confidence = finding.confidence.min(Confidence::Medium);
            }
            if let Some(before) = before_hint {
                finding.hint = format!("{before}{}", finding.hint);
            }
        }
    }
}

/// Whether another server at the address could be the reason; not what is proved about this machine, the path or the
/// client's own settings.
fn may_be_by_address(cause: Cause) -> bool {
    !matches!(
        cause,
        Cause::DnsStale
            | Cause::MtuBlackhole
            | Cause::ProbeLimit
            | Cause::RateLimited
            | Cause::ClockSkew
            | Cause::RedirectUntrusted
            | Cause::RealmUntrusted
    )
}
