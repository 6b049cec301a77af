//! The hosts of `hosts.toml`: those that are asked in vain before the one that serves, and what the
//! settings do that they should not.

use std::fmt::Write as _;
use std::time::Duration;

use super::finding::{Judge, new};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Severity;
use crate::diagnose::{Failover, Finding, Pull};
use crate::model::evidence::{Evidence, Walk};
use crate::model::fault::{HttpFault, ManifestFault, TcpFault, TlsFault, TokenFault};
use crate::model::hosts::{HostKind, HostsConfig, HostsEffect};
use crate::model::step::Step;
use crate::model::units::HumanDuration;

/// containerd's own limits (`docker.DefaultHTTPTransport`): a dial, a handshake, an answer's head.
const DIAL: Duration = Duration::from_secs(30);
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);

/// Settings that do not do what they seem to.
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
            let counts = "containerd reads it anew at each pull, without a restart";
            (folder.as_str(), counts, format!("{folder}: {reason}"))
        };
        let cause = match problem.effect {
            HostsEffect::NameRefused => Cause::ImageNameInvalid,
            HostsEffect::Changed | HostsEffect::Undecided => Cause::RuntimeSettingsUnknown,
            _ => Cause::HostsTomlInvalid,
        };
        let hint = match problem.effect {
            HostsEffect::PullsNothing => format!(
                "Correct that in {place}, and {counts}. Until then no pod on this node gets an image."
            ),
            HostsEffect::NameRefused => {
                "Use a DNS name in place of the IPv6 address, or containerd 1.7 or later."
                    .to_owned()
            }
            HostsEffect::PullFails => format!(
                "Correct that in {place}: containerd fails every pull of this registry until then; {counts}."
            ),
            HostsEffect::Ignored => format!("Correct that in {place}; {counts}."),
            HostsEffect::Doubtful => {
                format!("Check it in {place} on the node, with the version of containerd there.")
            }
            HostsEffect::Changed => super::in_force::RESTART.to_owned(),
            HostsEffect::Undecided => {
                format!("Look at {place} on the node itself, or give all its files to the program.")
            }
        };
        let may_go_on = matches!(problem.effect, HostsEffect::Ignored | HostsEffect::Doubtful);
        let severity = Severity::critical_if(!may_go_on);
        findings.push(new(cause).severity(severity).fact(fact).hint(hint));
    }
}

/// Hosts that are asked before the one that serves, and fail.
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
                "{} is asked before {}, and fails: {}",
                called(walk),
                evidence.walk.host.endpoint,
                root.cause.code()
            ),
            None => format!("{} fails: {failed}", called(walk)),
        });
        finding = finding
            .facts(root.iter().flat_map(|root| &root.evidence).take(3).cloned())
            .fact(cost(walk));
        let file = match &evidence.hosts {
            HostsConfig::Read { folder, .. } => format!("{folder}/hosts.toml"),
            HostsConfig::ConfigToml { file, .. } => file.clone(),
            _ => "hosts.toml".to_owned(),
        };
        // A cache or a mirror of a part need not have everything.
        let lacks = |finding: &Finding| {
            matches!(
                finding.cause,
                Cause::ManifestUnknown | Cause::NameUnknown | Cause::BlobUnknown
            )
        };
        if decided && root.is_some_and(lacks) {
            findings.push(finding.severity(Severity::Info).hint(format!(
                "Nothing need be done where {host} is a cache or a mirror of a part; what it lacks comes from {}.",
                evidence.walk.host.endpoint
            )));
            continue;
        }
        let repair = root.map_or_else(String::new, |root| format!("{} ", root.hint));
        let timeout = if matches!(evidence.hosts, HostsConfig::ConfigToml { .. }) {
            ", and restart containerd."
        } else {
            "; a short `dial_timeout` there (containerd 2.1 or later) bounds what it costs."
        };
        findings.push(finding.hint(format!("{repair}Or take {host} out of {file}{timeout}")));
    }
    if !decided && !evidence.others.is_empty() {
        hidden(evidence, findings);
    }
}

/// A host by what it is: `mirror https://mirror.example.com`.
fn called(walk: &Walk) -> String {
    format!("{} {}", walk.host.kind.as_str(), walk.host.endpoint)
}

/// What containerd would have got from a host that is asked before is not known; where no other one
/// serves, it decides.
fn left_open(evidence: &Evidence, walk: &Walk, findings: &[Finding]) -> Vec<Finding> {
    let decided = evidence.walk.serves_layers();
    let most = if decided { 1 } else { usize::MAX };
    let critical = findings.iter().filter(|f| f.severity == Severity::Critical);
    let open = critical.take(most).cloned().map(|mut root| {
        (root.leg, root.phase) = (None, None);
        let what = if decided {
            "a pull may take its content, which was not seen"
        } else {
            "if it serves the image, the pull succeeds"
        };
        root.severity(Severity::Critical).fact(format!(
            "that is of {}, which is asked before {}; {what}",
            called(walk),
            evidence.walk.host.endpoint
        ))
    });
    open.collect()
}

/// Of a host that failed here it is not known whether it would serve the image, or a part of it.
pub(super) fn may_serve(evidence: &Evidence, judge: Judge) -> bool {
    let is_open = |walk: &Walk| judge(&evidence.at(walk)).pull == Pull::Unknown;
    let mut others = evidence.others.iter();
    others.any(|walk| walk.failure().is_some() && is_open(walk))
}

/// Which of the errors containerd shows, and which it keeps to its log.
fn hidden(evidence: &Evidence, findings: &mut [Finding]) {
    let asked = || evidence.others.iter().chain([&evidence.walk]);
    let failed: Vec<(u8, &Walk, String)> = asked()
        .filter(|walk| walk.host.resolves || evidence.reference.digest().is_some())
        .filter_map(|walk| resolve_error(walk).map(|(rank, words)| (rank, walk, words)))
        .collect();
    if failed.len() < 2 {
        return;
    }
    // `Resolve` of containerd 2: statuses before 404 before errors without an answer, the first of
    // equals; of containerd 1: the first that is no 404.
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
        format!("containerd's message is that of {}", place(two))
    } else {
        format!(
            "containerd 2's message is that of {}, containerd 1's that of {}",
            place(two),
            place(one)
        )
    };
    if !others.is_empty() {
        let _ = write!(fact, "; its log alone has that of {}", others.join(", "));
    }
    if let Some(finding) = findings.iter_mut().find(|f| f.cause == Cause::MirrorOrder) {
        finding.evidence.push(fact);
    }
}

/// The error with which a host leaves the question what a tag stands for, and its rank.
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

/// What a host that fails costs each request of a pull that tries it first.
fn cost(walk: &Walk) -> String {
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
    let waits = waits.or(hung.then_some(("wait for an answer", HEADERS)));
    if let Some((what, time)) = waits {
        return cost_of_wait(walk, what, time);
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
        "it cost {} here until it failed; each request of a pull tries it again",
        HumanDuration(spent + head_time(walk))
    )
}

/// The same of one that lets each request wait for so long.
fn cost_of_wait(walk: &Walk, what: &str, time: Duration) -> String {
    let older = if walk.host.dial_timeout.is_some() && what == "dial timeout" {
        "; before containerd 2.1, which knows no dial_timeout, 30 s"
    } else {
        ""
    };
    format!(
        "it costs each request of a pull about {} (an estimate: containerd's {what}{older}), and there is one \
         for the tag, for each manifest, for the configuration and for each layer",
        HumanDuration(time)
    )
}

/// What a pull would get if the mirror that serves failed.
pub(super) fn failover(evidence: &Evidence, judge: Judge) -> Option<Failover> {
    let behind = evidence.upstream.as_deref()?;
    let mirror = &evidence.walk;
    let head = behind.attempts.last().map(|attempt| &attempt.head);
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
            decided(evidence, behind, judge),
            format!("HEAD: {fault} in {}", HumanDuration(*took)),
        ),
        _ => {
            let failed = behind.failure();
            let words = failed.unwrap_or_else(|| "it was not asked to the end".to_owned());
            (decided(evidence, behind, judge), words)
        }
    };
    let dial = mirror.host.dial_timeout.unwrap_or(DIAL);
    Some(Failover {
        mirror: mirror.host.endpoint.clone(),
        host: behind.host.endpoint.clone(),
        serves,
        answer,
        cost: format!(
            "where the mirror no longer answers, {}",
            cost_of_wait(mirror, "dial timeout", dial)
        ),
    })
}

/// A host that failed would fail a pull as well, as far as can be told.
fn decided(evidence: &Evidence, walk: &Walk, judge: Judge) -> Option<bool> {
    (judge(&evidence.at(walk)).pull == Pull::WouldFail).then_some(false)
}

/// Nothing is behind the mirror that would serve.
pub(super) fn no_fallback(evidence: &Evidence, findings: &mut Vec<Finding>, judge: Judge) {
    findings.extend(unserved(evidence, judge));
}

fn unserved(evidence: &Evidence, judge: Judge) -> Option<Finding> {
    let behind = evidence.upstream.as_deref()?;
    let failover = failover(evidence, judge).filter(|failover| failover.serves == Some(false))?;
    let verdict = judge(&evidence.at(behind));
    let root = verdict.root();
    let mut finding = new(Cause::MirrorNoFallback).fact(format!(
        "mirror {} serves the image; {}, which is asked if it fails, does not: {}",
        failover.mirror,
        called(behind),
        failover.answer
    ));
    if let Some(root) = root {
        finding = finding
            .fact(format!("by itself that would be {}", root.cause.code()))
            .facts(root.evidence.iter().take(2).cloned());
    }
    Some(finding.fact("this plays no part in the verdict").hint(format!(
        "Nothing need be done where nodes are not meant to reach {}; else correct that, or list a second mirror.",
        failover.host
    )))
}

fn head_time(walk: &Walk) -> Duration {
    walk.attempts
        .iter()
        .flat_map(|attempt| [attempt.token.took(), attempt.head.took()])
        .flatten()
        .sum()
}

/// Hosts that are used without checking who they are.
pub(super) fn insecure(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for walk in evidence.others.iter().chain([&evidence.walk]) {
        // Of a registry on loopback nothing is verified, whatever is written.
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
        let finding = new(Cause::MirrorInsecure).fact(format!("{file} says {setting} for {host}"));
        let held_back = walk
            .attempts
            .iter()
            .any(|attempt| attempt.token.fault() == Some(&TokenFault::Unverified));
        let finding = match &leg.tls.unverified {
            Some(fault) => finding
                .fact(format!("containerd goes on although: {fault}"))
                .fact(if held_back {
                    "it asks for a credential, and none was sent there: whether it serves the image is not known"
                } else {
                    "the walk went on too, and sent no credential there"
                })
                .hint(format!(
                    "Put the authority of {host} into `ca` in hosts.toml, and take {setting} out."
                )),
            None if leg.tls.outcome.done().is_some() => finding
                .fact("its certificate is good: the setting is not needed")
                .hint(format!("Take {setting} out of {file}.")),
            None => finding.hint(format!(
                "Give {host} a certificate that nodes can check, and take {setting} out of {file}."
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
