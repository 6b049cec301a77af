//! Rules for the hosts of `hosts.toml`: hosts that fail before the one that serves the image, and settings
//! without the intended effect.

use std::fmt::Write as _;
use std::time::Duration;

use super::finding::{Judge, new, settings_file};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Severity;
use crate::diagnose::{Failover, Finding, Pull};
use crate::model::evidence::{Evidence, Walk};
use crate::model::fault::{HttpFault, ManifestFault, TcpFault, TlsFault, TokenFault};
use crate::model::hosts::{HostKind, HostsConfig, HostsEffect};
use crate::model::runtime::Runtime;
use crate::model::step::Step;
use crate::model::units::HumanDuration;

/// containerd's own limits (`docker.DefaultHTTPTransport`): a dial, a handshake, the head of a response.
const DIAL: Duration = Duration::from_secs(30);
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);

/// Settings that containerd ignores, rejects or reads differently than intended.
pub(super) fn settings(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let folder = match &evidence.hosts {
        HostsConfig::Read { folder, .. } => folder.clone(),
        _ => "containerd's configuration".to_owned(),
    };
    for problem in evidence.hosts.problems() {
        let reason = &problem.reason;
        let (place, counts, fact) = if problem.needs_restart {
            let counts = "restart containerd: it reads that file when it starts";
            ("config.toml", counts, reason.clone())
        } else {
            let counts = "containerd reads it at each pull, without a restart";
            (folder.as_str(), counts, format!("{folder}: {reason}"))
        };
        let cause = match problem.effect {
            HostsEffect::NameRefused => Cause::ImageNameInvalid,
            HostsEffect::Changed | HostsEffect::Undecided => Cause::RuntimeSettingsUnknown,
            _ => Cause::HostsTomlInvalid,
        };
        let hint = match problem.effect {
            HostsEffect::PullsNothing => format!(
                "Correct it in {place}, and {counts}. Until then this node can't pull any image."
            ),
            HostsEffect::NameRefused => {
                "Use a DNS name instead of the IPv6 address, or containerd 1.7 or later.".to_owned()
            }
            HostsEffect::PullFails => format!(
                "Correct it in {place}: containerd fails every pull from this registry until then; {counts}."
            ),
            HostsEffect::Ignored => format!("Correct it in {place}; {counts}."),
            HostsEffect::Doubtful => {
                format!("Check it in {place} on the node, for its containerd version.")
            }
            HostsEffect::Changed => super::in_force::RESTART.to_owned(),
            HostsEffect::Undecided => {
                format!("Check {place} on the node itself, or give all its files to the check.")
            }
        };
        let may_go_on = matches!(problem.effect, HostsEffect::Ignored | HostsEffect::Doubtful);
        let severity = Severity::critical_if(!may_go_on);
        findings.push(new(cause).severity(severity).fact(fact).hint(hint));
    }
}

/// Hosts that containerd contacts before the one that serves the image, and that fail.
pub(super) fn order(evidence: &Evidence, findings: &mut Vec<Finding>, judge: Judge) {
    let decided = evidence.walk.serves_layers();
    for walk in &evidence.others {
        let Some(failed) = walk.failure() else {
            continue;
        };
        let verdict = judge(&evidence.at(walk));
        if verdict.pull == Pull::Unknown {
            findings.extend(left_open(evidence, walk, &verdict.findings));
            continue;
        }
        let root = verdict.root();
        let host = &walk.host.endpoint;
        let mut finding = new(Cause::MirrorOrder).fact(match root {
            Some(root) => format!(
                "{} is tried before {}, and fails: {} ({})",
                called(walk),
                evidence.walk.host.endpoint,
                root.cause.entry().title,
                root.cause.code()
            ),
            None => format!("{} fails: {failed}", called(walk)),
        });
        if let Some(root) = root {
            finding = carried(finding, root, 3);
        }
        finding = finding.fact(cost(evidence, walk));
        let file = settings_file(evidence);
        if decided && root.is_some_and(lacks) {
            findings.push(finding.severity(Severity::Info).hint(format!(
                "Do nothing if {host} is a cache or a partial mirror: missing content is pulled from {}.",
                evidence.walk.host.endpoint
            )));
            continue;
        }
        let repair = root.map_or_else(String::new, |root| format!("{} ", root.hint));
        let timeout = if matches!(evidence.hosts, HostsConfig::ConfigToml { .. }) {
            ", and restart containerd."
        } else {
            "; a short `dial_timeout` there (containerd 2.1 or later) limits the delay."
        };
        findings.push(finding.hint(format!("{repair}Or remove {host} from {file}{timeout}")));
    }
    if !decided && !evidence.others.is_empty() {
        hidden(evidence, findings);
    }
}

/// A host with its kind: `mirror https://mirror.example.com`.
fn called(walk: &Walk) -> String {
    format!("{} {}", walk.host.kind.as_str(), walk.host.endpoint)
}

/// Findings for an earlier host of which it is unknown whether it would serve the image; if no other host
/// serves it, that decides the pull.
fn left_open(evidence: &Evidence, walk: &Walk, findings: &[Finding]) -> Vec<Finding> {
    let decided = evidence.walk.serves_layers();
    let most = if decided { 1 } else { usize::MAX };
    let critical = findings.iter().filter(|f| f.severity == Severity::Critical);
    let open = critical.take(most).cloned().map(|mut root| {
        (root.leg, root.phase) = (None, None);
        let what = if decided {
            "a pull may use its content, which was not observed"
        } else {
            "if it serves the image, the pull succeeds"
        };
        root.severity(Severity::Critical).fact(format!(
            "this is about {}, which is tried before {}; {what}",
            called(walk),
            evidence.walk.host.endpoint
        ))
    });
    open.collect()
}

/// Whether a host that failed in this check might still serve the image or a part of it.
pub(super) fn may_serve(evidence: &Evidence, judge: Judge) -> bool {
    let is_open = |walk: &Walk| judge(&evidence.at(walk)).pull == Pull::Unknown;
    let mut others = evidence.others.iter();
    others.any(|walk| walk.failure().is_some() && is_open(walk))
}

/// Adds which of several errors containerd reports, and which are only in its log.
fn hidden(evidence: &Evidence, findings: &mut [Finding]) {
    let all_hosts = || evidence.others.iter().chain([&evidence.walk]);
    let failed: Vec<(u8, &Walk, String)> = all_hosts()
        .filter(|walk| walk.host.resolves || evidence.reference.digest().is_some())
        .filter_map(|walk| resolve_error(walk).map(|(rank, words)| (rank, walk, words)))
        .collect();
    if failed.len() < 2 {
        return;
    }
    // `Resolve` of containerd 2: other statuses before 404 before errors without a response, the first of
    // equals; of containerd 1: the first that is not a 404.
    let best = failed.iter().map(|(rank, ..)| *rank).max();
    let Some(two) = failed.iter().find(|(rank, ..)| Some(*rank) == best) else {
        return;
    };
    let one = failed.iter().find(|(rank, ..)| *rank != 2).unwrap_or(two);
    let place =
        |(_, walk, words): &(u8, &Walk, String)| format!("{} ({words})", walk.host.endpoint);
    let of = |(_, walk, _): &(u8, &Walk, String)| walk.host.endpoint.clone();
    let is_hidden = |failed: &&(u8, &Walk, String)| of(failed) != of(one) && of(failed) != of(two);
    let others: Vec<String> = failed.iter().filter(is_hidden).map(place).collect();
    let mut fact = if of(one) == of(two) {
        format!("containerd reports the error of {}", place(two))
    } else {
        format!(
            "containerd 2 reports the error of {}, containerd 1 that of {}",
            place(two),
            place(one)
        )
    };
    if !others.is_empty() {
        let _ = write!(
            fact,
            "; the error of {} is only in its log",
            others.join(", ")
        );
    }
    if let Some(finding) = findings.iter_mut().find(|f| f.cause == Cause::MirrorOrder) {
        finding.evidence.push(fact);
    }
}

/// The error of a host that could not resolve the tag, and its rank.
fn resolve_error(walk: &Walk) -> Option<(u8, String)> {
    let head = walk.attempts.last().map(|attempt| &attempt.head);
    match head {
        Some(Step::Done { .. }) => None,
        Some(Step::Failed {
            fault: fault @ HttpFault::Status { status, .. },
            ..
        }) => Some((if *status == 404 { 2 } else { 3 }, fault.to_string())),
        _ => Some((1, walk.failure()?)),
    }
}

/// The delay that a failing host adds to each request of a pull that tries it first.
fn cost(evidence: &Evidence, walk: &Walk) -> String {
    let dial = walk.host.dial_timeout.unwrap_or(DIAL);
    let legs = walk.legs.iter();
    let mut faults = legs.map(|leg| (leg.connect.outcome.fault(), leg.tls.outcome.fault()));
    let waits = match faults.find(|(tcp, tls)| tcp.is_some() || tls.is_some()) {
        Some((Some(TcpFault::Timeout), _)) => Some(("dial timeout", dial)),
        Some((_, Some(TlsFault::Timeout { .. }))) => Some(("handshake timeout", HANDSHAKE)),
        _ => None,
    };
    let hangs = |fault: Option<&HttpFault>| matches!(fault, Some(HttpFault::Timeout));
    let hung = hangs(walk.ping.fault())
        || walk.attempts.iter().any(|a| hangs(a.head.fault()))
        || matches!(
            walk.manifest.fault(),
            Some(ManifestFault::Http {
                fault: HttpFault::Timeout
            })
        )
        || hangs(walk.blob.fault());
    let waits = waits.or(hung.then_some(("wait for a response", HEADERS)));
    if let Some((what, time)) = waits {
        return cost_of_wait(evidence, walk, what, time);
    }
    let spent: Duration = walk
        .legs
        .iter()
        .flat_map(|leg| {
            [
                leg.resolve.outcome.took(),
                leg.connect.outcome.took(),
                leg.tls.outcome.took(),
            ]
        })
        .flatten()
        .sum();
    format!(
        "it took {} here until it failed; each request of a pull tries it again",
        HumanDuration(spent + head_time(walk))
    )
}

/// The same for a host that lets each request wait for a timeout.
fn cost_of_wait(evidence: &Evidence, walk: &Walk, what: &str, time: Duration) -> String {
    let release = evidence.runtime.as_ref().and_then(Runtime::containerd);
    let is_set = walk.host.dial_timeout.is_some() && what == "dial timeout";
    let longer = match release.map(|release| release >= (2, 1, 0)) {
        Some(false) if is_set => format!(
            "about {} longer (an estimate: containerd's {what}; it has no dial_timeout before 2.1)",
            HumanDuration(DIAL)
        ),
        None if is_set => format!(
            "about {} longer before containerd 2.1, which has no dial_timeout, and about {} longer from 2.1 on (an estimate: \
                     containerd's {what}; its release is unknown)",
            HumanDuration(DIAL),
            HumanDuration(time)
        ),
        _ => format!(
            "about {} longer (an estimate: containerd's {what})",
            HumanDuration(time)
        ),
    };
    format!(
        "each request of a pull takes {longer}; a pull makes one request for the tag, for each manifest, for the \
                 configuration and for each layer"
    )
}

/// The result of a pull if the serving mirror failed.
pub(super) fn failover(evidence: &Evidence, judge: Judge) -> Option<Failover> {
    let upstream = evidence.upstream.as_deref()?;
    let mirror = &evidence.walk;
    let head = upstream.attempts.last().map(|attempt| &attempt.head);
    let (serves, answer) = match head {
        Some(Step::Done { value, took }) => {
            let method = if value.used_get { "GET" } else { "HEAD" };
            let here = mirror.manifest.done().map(|found| &found.digest);
            let differs = here.is_some() && here != value.digest.as_ref();
            let digest = if differs { ", with another digest" } else { "" };
            (
                Some(true),
                format!("{method} 200 in {}{digest}", HumanDuration(*took)),
            )
        }
        Some(Step::Failed {
            fault: fault @ HttpFault::Status { .. },
            took,
        }) => (
            decided(evidence, upstream, judge),
            format!("HEAD: {fault} in {}", HumanDuration(*took)),
        ),
        _ => {
            let failed = upstream.failure();
            let words = failed.unwrap_or_else(|| "it was not checked to the end".to_owned());
            (decided(evidence, upstream, judge), words)
        }
    };
    let dial = mirror.host.dial_timeout.unwrap_or(DIAL);
    Some(Failover {
        mirror: mirror.host.endpoint.clone(),
        host: upstream.host.endpoint.clone(),
        serves,
        answer,
        cost: format!(
            "if the mirror stops responding, {}",
            cost_of_wait(evidence, mirror, "dial timeout", dial)
        ),
    })
}

/// `Some(false)` if a pull from this host would fail; `None` if that is unknown.
fn decided(evidence: &Evidence, walk: &Walk, judge: Judge) -> Option<bool> {
    (judge(&evidence.at(walk)).pull == Pull::WouldFail).then_some(false)
}

/// The upstream of the mirror would not serve the image.
pub(super) fn no_fallback(evidence: &Evidence, findings: &mut Vec<Finding>, judge: Judge) {
    findings.extend(unserved(evidence, judge));
}

fn unserved(evidence: &Evidence, judge: Judge) -> Option<Finding> {
    let upstream = evidence.upstream.as_deref()?;
    let failover = failover(evidence, judge).filter(|failover| failover.serves == Some(false))?;
    let verdict = judge(&evidence.at(upstream));
    let root = verdict.root();
    let mut finding = new(Cause::MirrorNoFallback).fact(format!(
        "mirror {} serves the image; {}, which is tried if it fails, does not: {}",
        failover.mirror,
        called(upstream),
        failover.answer
    ));
    if let Some(root) = root {
        finding = finding.fact(format!("on its own, that would be {}", root.cause.code()));
        finding = carried(finding, root, 2);
    }
    Some(finding.fact("this does not affect the verdict").hint(format!(
        "Do nothing if nodes are not meant to reach {}; otherwise fix that, or list a second mirror.",
        failover.host
    )))
}

/// A cache or a partial mirror need not have everything.
fn lacks(finding: &Finding) -> bool {
    matches!(
        finding.cause,
        Cause::ManifestUnknown | Cause::NameUnknown | Cause::BlobUnknown
    )
}

/// The finding about a host, with facts of the cause found there. It is no more certain than that cause; but that a
/// host lacks the image is certain whatever it lacks.
fn carried(finding: Finding, root: &Finding, most: usize) -> Finding {
    if lacks(root) {
        return finding.facts(root.evidence.iter().take(1).cloned());
    }
    let confidence = finding.confidence.min(root.confidence);
    let facts = root.evidence.iter().take(most).cloned();
    finding.confidence(confidence).facts(facts)
}

fn head_time(walk: &Walk) -> Duration {
    walk.attempts
        .iter()
        .flat_map(|attempt| [attempt.token.took(), attempt.head.took()])
        .flatten()
        .sum()
}

/// Hosts whose certificate is not verified.
pub(super) fn insecure(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for walk in evidence.others.iter().chain([&evidence.walk]) {
        // A registry on loopback is never verified, whatever the settings.
        let is_own = walk.host.kind == HostKind::Registry;
        let is_default = is_own && (!is_read(evidence) || walk.host.endpoint.host.is_loopback());
        if !walk.host.skip_verify || is_default {
            continue;
        }
        let (file, setting) = match &evidence.hosts {
            HostsConfig::ConfigToml { .. } => ("config.toml", "insecure_skip_verify"),
            _ => ("hosts.toml", "skip_verify"),
        };
        let Some(leg) = walk.legs.first() else {
            continue;
        };
        let host = &walk.host.endpoint;
        let finding = new(Cause::MirrorInsecure).fact(format!("{file} sets {setting} for {host}"));
        let is_withheld = walk
            .attempts
            .iter()
            .any(|attempt| attempt.token.fault() == Some(&TokenFault::Unverified));
        let finding = match &leg.tls.unverified {
            Some(fault) => finding
                .fact(format!(
                    "containerd accepts its certificate although verification fails: {fault}"
                ))
                .fact(if is_withheld {
                    "it requires a credential, and none was sent there: whether it serves the image is unknown"
                } else {
                    "the check continued too, and sent no credential there"
                })
                .hint(format!(
                    "Add the CA certificate of {host} as `ca` in hosts.toml, and remove {setting}."
                )),
            None if leg.tls.outcome.done().is_some() => finding
                .fact("its certificate is valid: the setting is not needed")
                .hint(format!("Remove {setting} from {file}.")),
            None => finding.hint(format!(
                "Give {host} a certificate that nodes can verify, and remove {setting} from {file}."
            )),
        };
        findings.push(finding);
    }
}

fn is_read(evidence: &Evidence) -> bool {
    matches!(
        evidence.hosts,
        HostsConfig::Read { .. } | HostsConfig::ConfigToml { .. }
    )
}
