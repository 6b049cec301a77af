//! TLS and clocks.

use jiff::{SignedDuration, Timestamp};

use super::{at, new};
use crate::diagnose::cause::Cause;
use crate::diagnose::{Confidence, Finding, Severity};
use crate::model::evidence::{ClockCheck, Evidence, Leg};
use crate::model::fault::{Phase, TlsFault, instant};

/// Clocks that differ by more than this are told; HTTP dates have whole seconds, and tokens are
/// given a minute's leeway by most services.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// A handshake that failed.
pub(super) fn handshake(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.legs {
        let Some(fault) = leg.tls.outcome.fault() else {
            continue;
        };
        let host = &leg.endpoint.host;
        let (cause, hint) = match fault {
            TlsFault::UnknownIssuer { .. } if evidence.roots.certificates == 0 => no_roots(),
            TlsFault::NoRoots => no_roots(),
            TlsFault::UnknownIssuer { .. } => (Cause::TlsUnknownCa, unknown_ca_hint(leg)),
            TlsFault::NameMismatch { .. } => {
                (Cause::TlsName, format!("Use a name of the certificate in the image reference, or have the certificate made out for '{host}' too."))
            }
            TlsFault::Expired { .. } => (Cause::TlsExpired, format!("Have the certificate of '{host}' renewed.")),
            TlsFault::NotYetValid { .. } => {
                (Cause::TlsNotYetValid, "Compare this machine's clock with a time server; if it is right, the certificate was made for later.".to_owned())
            }
            TlsFault::BadCertificate { .. } => {
                (Cause::TlsBadCertificate, format!("Have the certificate of '{host}' issued anew, with the reason above."))
            }
            TlsFault::PlainHttp => (
                Cause::TlsPlainHttp,
                format!("Give {} TLS; if it must stay without, write `server = \"http://{}\"` in certs.d/{}/hosts.toml on the nodes, and probe with --plain-http.", leg.endpoint.authority(), leg.endpoint.authority(), leg.endpoint.authority()),
            ),
            TlsFault::NotTls { .. } => (Cause::TlsNotTls, format!("Port {} of '{host}' is another service: correct the port in the image's name.", leg.endpoint.port)),
            TlsFault::Alert { alert, .. } => (Cause::TlsAlert, alert_hint(*alert, &host.to_string())),
            TlsFault::Incompatible { .. } => (Cause::TlsIncompatible, format!("Update the TLS of '{host}' to version 1.2 or later.")),
            TlsFault::Reset { .. } | TlsFault::Closed { .. } => {
                (Cause::TlsReset, format!("Have the server name '{host}' allowed in the firewall between here and the registry."))
            }
            TlsFault::Timeout { .. } => {
                (Cause::TlsHang, "Look at the MTU of the path first (VPN, tunnel, Direct Connect: clamp the MSS there), then at firewalls that read TLS.".to_owned())
            }
            TlsFault::Other { .. } => (
                Cause::Unexplained,
                "Send the JSON report (`-o json`; it holds no secret) to Pullpath's maintainers.".to_owned(),
            ),
        };
        let mut finding =
            at(cause, leg.role, Phase::Tls).fact(format!("{}: {fault}", leg.endpoint));
        finding.evidence.extend(chain(leg));
        finding.evidence.extend(details(evidence, fault));
        if cause == Cause::TlsReset {
            finding = finding.confidence(Confidence::Medium);
        }
        findings.push(finding.hint(hint));
    }
}

fn no_roots() -> (Cause, String) {
    (
        Cause::TlsNoRoots,
        "Install the CA bundle here (Debian: package ca-certificates), set SSL_CERT_FILE, or give the authority by --ca-file.".to_owned(),
    )
}

fn unknown_ca_hint(leg: &Leg) -> String {
    let print = leg
        .tls
        .chain
        .last()
        .map_or_else(String::new, |top| format!(" (SHA-256 {})", top.sha256));
    format!(
        "Get the authority's certificate from its owner, compare it with what was presented{print}, and add it to the nodes' trust store or to `ca` in certs.d/{}/hosts.toml.",
        leg.endpoint.authority()
    )
}

fn alert_hint(alert: u8, host: &str) -> String {
    match alert {
        112 => format!("The server does not serve '{host}': check the host in the image's name."),
        116 => "The server wants a client certificate: put `client` into hosts.toml.".to_owned(),
        _ => format!(
            "Look at the log of the TLS server at '{host}' for this alert; update it if it is old."
        ),
    }
}

/// The chain as presented, so that it can be compared.
fn chain(leg: &Leg) -> Vec<String> {
    leg.tls
        .chain
        .iter()
        .take(3)
        .map(|c| {
            format!(
                "presented: {} by {}, {} to {}, SHA-256 {}",
                c.subject,
                c.issuer,
                instant(c.not_before),
                instant(c.not_after),
                c.sha256.get(..16).unwrap_or(&c.sha256)
            )
        })
        .collect()
}

fn details(evidence: &Evidence, fault: &TlsFault) -> Vec<String> {
    match fault {
        TlsFault::UnknownIssuer { .. } => {
            vec![format!(
                "{} roots were in force, from {}",
                evidence.roots.certificates,
                evidence.roots.sources.join(", ")
            )]
        }
        TlsFault::NoRoots => evidence.roots.problems.clone(),
        TlsFault::Expired { local_time, .. } | TlsFault::NotYetValid { local_time, .. } => {
            let clock = match worst_clock(evidence) {
                None => {
                    "the clock was not checked: no answer with a Date could be trusted".to_owned()
                }
                Some(check) if is_skewed(check) => {
                    format!("the server's clock says {}", instant(check.server))
                }
                Some(_) => "the clock agrees with that of a verified server".to_owned(),
            };
            vec![format!("local time is {}", instant(*local_time)), clock]
        }
        _ => Vec::new(),
    }
}

/// A leaf near its end.
pub(super) fn expiring(evidence: &Evidence, findings: &mut Vec<Finding>) {
    const MOST: i64 = 30 * 86_400;
    for leg in &evidence.legs {
        let Some(leaf) = leg.tls.chain.first() else {
            continue;
        };
        if leg.tls.outcome.done().is_none() {
            continue;
        }
        let life = leaf.not_after.as_second() - leaf.not_before.as_second();
        let left = leaf.not_after.as_second() - evidence.started.as_second();
        if left < life / 6 && left < MOST {
            findings.push(
                at(Cause::TlsExpiring, leg.role, Phase::Tls)
                    .fact(format!("{}: certificate until {}, {} left of {}", leg.endpoint, instant(leaf.not_after), days(left), days(life)))
                    .hint(format!("Find out why the certificate of '{}' has not been renewed yet, and renew it.", leg.endpoint.host)),
            );
        }
    }
}

fn days(seconds: i64) -> String {
    if seconds < 2 * 86_400 {
        format!("{} hours", seconds / 3600)
    } else {
        format!("{} days", seconds / 86_400)
    }
}

fn is_skewed(check: &ClockCheck) -> bool {
    check.server.duration_since(check.local).abs() > SKEW
}

/// The check that differs most.
fn worst_clock(evidence: &Evidence) -> Option<&ClockCheck> {
    let checks = evidence.legs.iter().filter_map(|leg| leg.clock.as_ref());
    checks.max_by_key(|check| check.server.duration_since(check.local).abs())
}

/// Clocks that differ; the cause of a certificate fault when the certificate is valid by the server's.
pub(super) fn clock(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(check) = worst_clock(evidence).filter(|check| is_skewed(check)) else {
        return;
    };
    let ahead = check.local.duration_since(check.server);
    let explains = evidence
        .legs
        .iter()
        .any(|leg| is_explained(leg, check.server));
    let direction = if ahead.is_positive() {
        "ahead of"
    } else {
        "behind"
    };
    let mut finding = new(Cause::ClockSkew, None, None)
        .fact(format!("local time {}, server's Date {}", instant(check.local), instant(check.server)))
        .fact(format!("this machine's clock is {} s {direction} the server's", ahead.abs().as_secs()))
        .hint("Compare this machine's clock with a time server (`chronyc tracking`), and mend NTP where it is wrong.");
    if explains {
        finding = finding
            .severity(Severity::Critical)
            .fact("by the server's time the refused certificate is valid");
    }
    findings.push(finding);
}

fn is_explained(leg: &Leg, time: Timestamp) -> bool {
    let is_time_fault = matches!(
        leg.tls.outcome.fault(),
        Some(TlsFault::Expired { .. } | TlsFault::NotYetValid { .. })
    );
    is_time_fault
        && leg
            .tls
            .chain
            .first()
            .is_some_and(|leaf| leaf.not_before <= time && time <= leaf.not_after)
}
