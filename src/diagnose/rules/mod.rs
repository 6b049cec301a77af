//! The rules. Each inspects the evidence for one kind of problem. Consequences of a root cause are listed
//! apart; the remaining findings are the verdict.

mod answers;
mod auth;
mod certificates;
mod connection;
mod finding;
mod in_force;
mod lookups;
mod mirrors;
mod name_servers;
mod names;
mod outcome;
mod own_limits;
mod paths;
mod pins;
mod proxy;
mod repeats;
mod routes;
mod secrets;
mod several;
mod storage;
use finding::Judge;
pub(crate) use finding::new;
use outcome::{is_complete, is_got_round, is_spared, leaves_undecided, pull, unnamed};
#[cfg(test)]
mod tests;
mod throughput;
mod tls;
mod unseen;
mod workload;

use std::iter;

use super::catalogue::{Cause, Detected};
use super::level::{Confidence, Severity};
use super::path;
use super::path::leg_path::LegPath;
use super::{Finding, Pull, Verdict};
use crate::model::endpoint::Role;
use crate::model::evidence::{ByRelease, Evidence, Leg};
use crate::model::fault::{ManifestFault, Phase};
use crate::model::hosts::{HostsConfig, HostsEffect};
use crate::model::resolve::Resolution;
use crate::model::vantage::NotObserved;
use Rule::{Beside, OfLeg, OfPath, Once, Whole};

pub use auth::{nearest_key, recreate_key};
pub use secrets::{secret, secret_for_image};
pub use unseen::{Unseen, rests_on};
pub use workload::eip_annotation;

/// A rule, by the part of the evidence it inspects.
enum Rule {
    /// Each leg of the check.
    OfLeg(fn(&Evidence, &Leg) -> Option<Finding>),
    /// The path of each leg.
    OfPath(fn(&Evidence, &LegPath) -> Option<Finding>),
    /// All of the evidence, for one finding at most.
    Once(fn(&Evidence) -> Option<Finding>),
    /// All of the evidence and the findings so far, for any number of findings.
    Whole(fn(&Evidence, &mut Vec<Finding>)),
    /// The same, with the function that judges a check made over another path.
    Beside(fn(&Evidence, &mut Vec<Finding>, Judge)),
}

/// All rules, in the order in which they run.
const RULES: &[Rule] = &[
    OfLeg(names::resolution),
    OfLeg(lookups::undecided),
    OfLeg(lookups::slow),
    Whole(names::servers),
    Whole(name_servers::transport),
    OfLeg(name_servers::needs_edns),
    OfLeg(names::search_list),
    OfLeg(names::forged),
    OfLeg(connection::connect),
    OfLeg(connection::node_address),
    OfLeg(connection::unreachable_leg),
    Whole(connection::addresses),
    Once(repeats::segments),
    OfLeg(connection::loss),
    OfLeg(routes::reverse_path),
    OfLeg(routes::source_address),
    Once(routes::nat_ports),
    OfPath(paths::no_egress),
    OfPath(paths::overlap),
    OfPath(paths::mixed),
    OfPath(paths::unexpected),
    Whole(paths::unmapped),
    Once(paths::stale_annotation),
    Beside(proxy::closed),
    OfLeg(proxy::passed_by),
    Once(proxy::unused),
    Beside(proxy::missed),
    OfLeg(tls::handshake),
    Whole(several::addresses),
    OfLeg(tls::large_hello),
    OfLeg(tls::expiring),
    OfLeg(certificates::trusted_itself),
    Whole(tls::clock),
    Once(answers::ping),
    Once(auth::refused),
    Whole(auth::candidates),
    Whole(auth::sources),
    Whole(secrets::lint),
    Whole(secrets::expiry),
    Once(auth::unused_secret),
    Once(answers::manifest),
    Once(answers::config),
    Once(answers::blob),
    Once(answers::artifact),
    Once(answers::transfer),
    Once(repeats::transfer),
    Whole(|evidence, findings| repeats::second(evidence, findings)),
    Whole(|evidence, findings| repeats::in_turn(evidence, findings)),
    Once(throughput::bound),
    Once(throughput::stalled),
    Once(throughput::first_byte),
    Once(throughput::low),
    Whole(answers::resumable),
    Once(answers::rate_limit),
    Whole(workload::secrets),
    Whole(workload::requested_secrets),
    Once(workload::unnamed),
    Once(workload::policy),
    Whole(workload::eip),
    Once(in_force::roots),
    Once(in_force::proxies),
    Whole(mirrors::settings),
    Beside(mirrors::order),
    Whole(mirrors::insecure),
    Beside(mirrors::no_fallback),
    Whole(pins::suspects),
    // Last: they depend on whether anything else is wrong.
    Whole(workload::verification),
    Beside(proxy::unneeded),
];

/// Judges the evidence: findings, consequences, paths, and whether a pull would succeed.
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut paths = path::classify(evidence);
    let mut all = Vec::new();
    for rule in RULES {
        match rule {
            OfLeg(rule) => {
                let legs = evidence.walk.legs.iter();
                all.extend(legs.filter_map(|leg| rule(evidence, leg)));
            }
            OfPath(rule) => all.extend(paths.iter().filter_map(|path| rule(evidence, path))),
            Once(rule) => all.extend(rule(evidence)),
            Whole(rule) => rule(evidence, &mut all),
            Beside(rule) => rule(evidence, &mut all, judge),
        }
    }
    let is_reported = |finding: &Finding| finding.cause.entry().detected != Detected::Later;
    debug_assert!(all.iter().all(is_reported));
    for finding in &mut all {
        temper(evidence, finding);
        proxy::name(evidence, finding);
        // After the fact of the fault itself.
        if let Some(place) = connection::place(evidence, finding) {
            let index = finding.evidence.len().min(1);
            finding.evidence.insert(index, place);
        }
        if is_got_round(evidence, finding) {
            finding.severity = finding.severity.min(Severity::Warning);
        }
    }
    own_limits::met(evidence, is_complete(evidence), &mut all);
    let (mut consequences, mut findings): (Vec<_>, Vec<_>) = all
        .iter()
        .cloned()
        .partition(|finding| all.iter().any(|root| masks(root, finding)));
    let is_critical = |f: &Finding| f.severity == Severity::Critical;
    if !is_complete(evidence) && !findings.iter().any(is_critical) {
        findings.push(unnamed(evidence));
    }
    let order = |f: &Finding| (std::cmp::Reverse(f.severity), f.leg, f.phase);
    findings.sort_by_key(order);
    consequences.sort_by_key(order);
    paths.extend(path::classify_others(evidence));
    let mut pull = pull(evidence, &findings);
    if let Some(finding) = by_release(evidence, pull) {
        // It reports the result for each release, and why they differ.
        findings.retain(|f| f.cause != finding.cause || f.leg.is_some());
        findings.insert(0, finding);
        pull = Pull::Unknown;
    }
    // An earlier host may serve it or may make it fail. A fault of every host is reported for that one too.
    let may_serve = match pull {
        Pull::WouldSucceed => true,
        Pull::WouldFail => !evidence.walk.serves_layers(),
        Pull::Unknown => false,
    };
    if may_serve && mirrors::may_serve(evidence, judge) {
        pull = Pull::Unknown;
    }
    if pull == Pull::WouldSucceed && is_spared(evidence) {
        pull = Pull::Unknown;
    }
    if pull == Pull::WouldFail && unseen::is_contradicted(evidence, &mut findings) {
        pull = Pull::Unknown;
    }
    for finding in findings.iter_mut().chain(&mut consequences) {
        let is_open = pull == Pull::Unknown || leaves_undecided(evidence, finding);
        if is_open && finding.severity == Severity::Critical {
            finding.confidence = finding.confidence.min(Confidence::Medium);
        }
    }
    if pull == Pull::WouldFail {
        // Findings that fail the pull come before those that would leave it undecided.
        findings.sort_by_key(|f| {
            (f.severity == Severity::Critical)
                .then(|| leaves_undecided(evidence, f))
                .map_or((1, false), |is_open| (0, is_open))
        });
    }
    let mut verdict = Verdict {
        pull,
        findings,
        consequences,
        paths,
        failover: mirrors::failover(evidence, judge),
        secrets: super::secrets::verdicts(evidence),
        unread: super::unread_layers::layers(evidence),
        throughput: super::throughput::judge(evidence),
    };
    verdict.name_settings(evidence.vantage.settings);
    verdict
}

/// The runtime's release is unknown, and the check under another release's rules had another result.
fn by_release(evidence: &Evidence, pull: Pull) -> Option<Finding> {
    let ends: Vec<(&ByRelease, Verdict)> = evidence
        .by_release
        .iter()
        .map(|other| (other, judge(&other.evidence)))
        .collect();
    let mut differing = ends
        .iter()
        .filter(|(_, verdict)| verdict.pull != pull)
        .peekable();
    differing.peek()?;
    let by_settings = differing.all(|(other, _)| other.other_settings);
    let is_chance = ends.iter().any(|(other, _)| other.answers_changed);
    // If the servers' responses changed, the result belongs to the check, not to the release.
    let says = |releases: &str, pull: Pull| match (is_chance, pull) {
        (false, Pull::WouldSucceed) => format!("{releases} would pull it"),
        (false, Pull::WouldFail) => format!("{releases} would fail"),
        (false, Pull::Unknown) => format!("{releases} is undecided"),
        (true, Pull::WouldSucceed) => format!("checked as {releases}: got the image"),
        (true, Pull::WouldFail) => format!("checked as {releases}: failed"),
        (true, Pull::Unknown) => format!("checked as {releases}: undecided"),
    };
    let here = evidence.assumed_release.as_deref().unwrap_or("containerd");
    let others = ends.iter().map(|(other, verdict)| {
        let cause = verdict
            .root()
            .map_or_else(String::new, |root| format!(" ({})", root.cause.code()));
        says(&other.release, verdict.pull) + &cause
    });
    let finding = if is_chance {
        new(Cause::Intermittent)
            .fact("the releases treat equal responses alike here: the servers responded differently")
            .confidence(Confidence::Medium)
            .hint("Probe several times with --runtime (`containerd://VERSION`): different servers behind one name, or a limit on simultaneous requests, respond like this.")
    } else if !by_settings {
        new(Cause::ReleaseDecides)
            .hint("Name the runtime with --runtime (`containerd://VERSION`; `kubectl get node -o wide` shows it).")
    } else if matches!(evidence.hosts, HostsConfig::Unread) {
        new(Cause::RuntimeSettingsUnknown)
            .hint("Give containerd's own configuration file with --containerd-config.")
    } else {
        new(Cause::RuntimeSettingsUnknown)
            .facts(changed(evidence))
            .hint(in_force::RESTART)
    };
    let here = says(here, pull);
    Some(Finding {
        evidence: iter::once(here)
            .chain(others)
            .chain(finding.evidence)
            .collect(),
        ..finding
    })
}

/// Files that were changed after containerd started.
fn changed(evidence: &Evidence) -> impl Iterator<Item = String> {
    let of_config = evidence.hosts.problems().iter();
    let of_config = of_config.filter(|problem| problem.effect == HostsEffect::Changed);
    of_config
        .map(|problem| problem.reason.clone())
        .chain(evidence.proxies.changed.iter().cloned())
}

/// Lowers the confidence if the node may differ: its resolver, or a setting that was not observed.
fn temper(evidence: &Evidence, finding: &mut Finding) {
    let is_names = finding.phase == Some(Phase::Resolve) || finding.cause == Cause::DnsStale;
    if is_names
        && evidence
            .vantage
            .not_observed
            .contains(&NotObserved::NodeResolver)
    {
        finding.confidence = finding.confidence.min(Confidence::Medium);
    }
    if finding.phase == Some(Phase::Connect)
        && let Some((host, found)) = completed_name(evidence, finding)
    {
        finding.confidence = finding.confidence.min(Confidence::Medium);
        let full = found.name.trim_end_matches('.');
        finding.evidence.push(format!(
            "the address is that of '{full}'; '{host}' as written was not queried, and may have another"
        ));
    }
    let is_of_layers = finding.phase == Some(Phase::Blob) || finding.leg == Some(Role::Blob);
    if is_of_layers && let Some(ManifestFault::Malformed { .. }) = evidence.walk.manifest.fault() {
        finding.evidence.push(
            "no pull of this image gets as far as its layers, because the image is malformed; a pull of the repaired \
             image, or of another one stored there, meets this"
                .to_owned(),
        );
    }
    if let Some(unseen) = unseen::depends_on(evidence, finding) {
        finding.confidence = finding.confidence.min(Confidence::Medium);
        finding.evidence.push(format!(
            "the node may differ, because this was not observed: {}",
            evidence.vantage.describe(unseen)
        ));
    }
}

/// The name of the finding's leg, if the search list made another of it.
fn completed_name<'a>(
    evidence: &'a Evidence,
    finding: &Finding,
) -> Option<(String, &'a Resolution)> {
    let mut legs = evidence.walk.legs.iter();
    let leg =
        legs.find(|leg| Some(leg.role) == finding.leg && leg.connect.outcome.fault().is_some())?;
    names::completed(leg)
}

fn masks(root: &Finding, finding: &Finding) -> bool {
    if own_limits::may_explain(root, finding) {
        return true;
    }
    // A proxy's own response shows nothing about the server.
    let is_closed = root.cause == Cause::ProxyMisconfigured && root.phase == Some(Phase::Proxy);
    if is_closed && root.leg == finding.leg && finding.phase > root.phase {
        return true;
    }
    // A handshake succeeded at the address that DNS has.
    let is_of_pin = root.cause == Cause::DnsStale && root.phase == Some(Phase::Tls);
    if is_of_pin && root.leg == finding.leg && finding.phase == root.phase {
        return finding.cause != root.cause && root.severity >= finding.severity;
    }
    if proxy::is_unused(root) && root.leg == finding.leg && !proxy::is_unused(finding) {
        return true;
    }
    finding.cause.entry().masked_by.contains(&root.cause)
        && root.severity >= finding.severity
        && (root.leg == finding.leg || root.leg.is_none())
}
