//! The rules: each looks at the evidence for one kind of trouble. What follows from a root cause is
//! put aside, and what is left is the verdict.

mod answers;
mod auth;
mod certificates;
mod connection;
mod finding;
mod in_force;
mod mirrors;
mod names;
mod outcome;
mod paths;
mod proxy;
mod secrets;
use finding::Judge;
pub(crate) use finding::new;
use outcome::{is_complete, is_got_round, is_spared, leaves_undecided, pull, unnamed};
#[cfg(test)]
mod tests;
mod throughput;
mod tls;
mod workload;

use std::iter;

use super::catalogue::{Cause, Detected};
use super::level::{Confidence, Severity};
use super::path;
use super::path::leg_path::LegPath;
use super::{Finding, Pull, Verdict};
use crate::model::evidence::{ByRelease, Evidence, Leg};
use crate::model::fault::Phase;
use crate::model::hosts::{HostsConfig, HostsEffect};
use crate::model::vantage::{NetworkView, NotObserved};
use Rule::{Beside, OfLeg, OfPath, Once, Whole};

pub use auth::{mend_key, nearest_key};
pub use secrets::{secret, secret_for_image};
pub use workload::eip_annotation;

/// A rule, by what it looks at.
enum Rule {
    /// Each leg of the walk.
    OfLeg(fn(&Evidence, &Leg) -> Option<Finding>),
    /// The path of each leg.
    OfPath(fn(&Evidence, &LegPath) -> Option<Finding>),
    /// All of the evidence, for one finding at most.
    Once(fn(&Evidence) -> Option<Finding>),
    /// All of it, for any number of them; or what was found so far.
    Whole(fn(&Evidence, &mut Vec<Finding>)),
    /// The same, beside what the walk by another path comes to.
    Beside(fn(&Evidence, &mut Vec<Finding>, Judge)),
}

const RULES: &[Rule] = &[
    OfLeg(names::resolution),
    Whole(names::servers),
    OfLeg(names::search_list),
    OfLeg(names::hosts_file),
    OfLeg(names::forged),
    OfLeg(connection::connect),
    OfLeg(connection::closed_way),
    Whole(connection::addresses),
    Once(connection::segments),
    OfPath(paths::no_egress),
    OfPath(paths::overlap),
    OfPath(paths::mixed),
    OfPath(paths::unexpected),
    Whole(paths::unmapped),
    Once(paths::stale_annotation),
    Beside(proxy::closed),
    OfLeg(proxy::passed_by),
    OfLeg(tls::handshake),
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
    Once(throughput::bound),
    Once(throughput::stalled),
    Once(throughput::first_byte),
    Once(throughput::low),
    Whole(answers::resumable),
    Once(answers::rate_limit),
    Whole(workload::secrets),
    Whole(workload::asked_secrets),
    Once(workload::unnamed),
    Once(workload::policy),
    Whole(workload::eip),
    Once(in_force::roots),
    Once(in_force::proxies),
    Whole(mirrors::settings),
    Beside(mirrors::order),
    Whole(mirrors::insecure),
    Beside(mirrors::no_fallback),
    // Last: they look at whether anything else is wrong.
    Whole(workload::verification),
    Beside(proxy::unneeded),
];

/// Judges what was seen.
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
    let is_told = |finding: &Finding| finding.cause.entry().detected != Detected::Later;
    debug_assert!(all.iter().all(is_told));
    for finding in &mut all {
        temper(evidence, finding);
        if is_got_round(evidence, finding) {
            finding.severity = finding.severity.min(Severity::Warning);
        }
    }
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
        // It says which reading ends how, and why they differ.
        findings.retain(|f| f.cause != finding.cause || f.leg.is_some());
        findings.insert(0, finding);
        pull = Pull::Unknown;
    }
    // A host before may serve it all the same, or spoil it; one that fails whatever the host, says so there too.
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
    if pull == Pull::WouldFail {
        // What fails it comes before what would leave it undecided.
        findings.sort_by_key(|f| {
            (f.severity == Severity::Critical)
                .then(|| leaves_undecided(evidence, f))
                .map_or((1, false), |is_open| (0, is_open))
        });
    }
    Verdict {
        pull,
        findings,
        consequences,
        paths,
        failover: mirrors::failover(evidence, judge),
        secrets: super::secrets::verdicts(evidence),
        unread: super::unread_layers::layers(evidence),
        throughput: super::throughput::judge(evidence),
    }
}

/// The runtime's release is not known, and the walk by another's rules ended otherwise.
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
    // What chance decided is said of the walk, not of the releases.
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
            .fact("the releases would treat the same answers alike there: the servers answered differently")
            .confidence(Confidence::Medium)
            .hint("Probe several times, with `--runtime containerd://VERSION`: servers behind one name that differ, or a limit on requests at a time, answer like this.")
    } else if !by_settings {
        new(Cause::ReleaseDecides)
            .hint("Name the node's runtime: `--runtime containerd://VERSION`, as `kubectl get node -o wide` shows it.")
    } else if matches!(evidence.hosts, HostsConfig::Unread) {
        new(Cause::RuntimeSettingsUnknown).hint(
            "Name containerd's own file, by --containerd-config or network.containerd_config.",
        )
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

/// Which files were changed after containerd started.
fn changed(evidence: &Evidence) -> impl Iterator<Item = String> {
    let of_config = evidence.hosts.problems().iter();
    let of_config = of_config.filter(|problem| problem.effect == HostsEffect::Changed);
    of_config
        .map(|problem| problem.reason.clone())
        .chain(evidence.proxies.changed.iter().cloned())
}

/// A name may resolve otherwise where the pull is made.
fn temper(evidence: &Evidence, finding: &mut Finding) {
    let is_names = finding.phase == Some(Phase::Resolve);
    if is_names
        && evidence
            .vantage
            .not_observed
            .contains(&NotObserved::NodeResolver)
    {
        finding.confidence = finding.confidence.min(Confidence::Medium);
    }
    if let Some(unseen) = hangs_on(evidence, finding) {
        finding.confidence = finding.confidence.min(Confidence::Medium);
        finding.evidence.push(format!(
            "at the node it may be otherwise, by what was not seen: {}",
            unseen.describe()
        ));
    }
}

/// A setting of the node that was not seen, and by which what fails here may not fail there.
fn hangs_on(evidence: &Evidence, finding: &Finding) -> Option<NotObserved> {
    let vantage = &evidence.vantage;
    let unseen = |what: NotObserved| vantage.not_observed.contains(&what).then_some(what);
    if certificates::hangs_on_roots(finding.cause) {
        return unseen(NotObserved::NodeRoots);
    }
    // Outside of a pod, what is set here may be what containerd has; inside, it is not.
    let is_pod = vantage.network != NetworkView::Machine;
    let is_critical = finding.severity == Severity::Critical;
    let is_of_connection = matches!(finding.phase, Some(Phase::Connect | Phase::Tls));
    // That is of the network, whoever is asked by it.
    let is_of_network = finding.cause == Cause::NoEgress;
    if !is_pod || !is_critical || !is_of_connection || is_of_network {
        return None;
    }
    unseen(NotObserved::Proxy).or_else(|| unseen(NotObserved::Mirrors))
}

fn masks(root: &Finding, finding: &Finding) -> bool {
    // What a proxy answers in the server's place says nothing of the server.
    let is_closed = root.cause == Cause::ProxyMisconfigured && root.phase == Some(Phase::Proxy);
    if is_closed && root.leg == finding.leg && finding.phase > root.phase {
        return true;
    }
    finding.cause.entry().masked_by.contains(&root.cause)
        && root.severity >= finding.severity
        && (root.leg == finding.leg || root.leg.is_none())
}

// ---- how rules make findings --------------------------------------------------------------------
