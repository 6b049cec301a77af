//! The rules: each looks at the evidence for one kind of trouble. What follows from a root cause is
//! put aside, and what is left is the verdict.

mod answers;
mod auth;
mod certificates;
mod connection;
mod in_force;
mod mirrors;
mod names;
mod paths;
mod proxy;
mod secrets;
#[cfg(test)]
mod tests;
mod throughput;
mod tls;
mod workload;

use std::iter;

use super::catalogue::{Cause, Detected};
use super::level::{Confidence, Severity};
use super::path::{self, LegPath};
use super::{Finding, Pull, Verdict};
use crate::model::endpoint::Role;
use crate::model::evidence::{ByRelease, Evidence, Leg};
use crate::model::fault::{HttpFault, Phase, instant};
use crate::model::hosts::{HostsConfig, HostsEffect};
use crate::model::step::{Skip, Step};
use crate::model::text::titled;
use crate::model::vantage::{NetworkView, Unseen};
use crate::model::workload::Found;
use Rule::{OfLeg, OfPath, Once, Whole};

pub use auth::{docker_server, nearest_key};
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
    OfLeg(proxy::closed),
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
    Whole(mirrors::order),
    Whole(mirrors::insecure),
    Once(mirrors::no_fallback),
    // Last: they look at whether anything else is wrong.
    Whole(workload::verification),
    Whole(proxy::unneeded),
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
    if may_serve && mirrors::may_serve(evidence) {
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
        failover: mirrors::failover(evidence),
        secrets: super::secrets::verdicts(evidence),
        unread: super::unread::layers(evidence),
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
    let here = evidence.walked_as.as_deref().unwrap_or("containerd");
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

/// What a leg failed at, and the pull did not: it went through all the same, or failed only later at
/// something else.
fn is_got_round(evidence: &Evidence, finding: &Finding) -> bool {
    let walk = &evidence.walk;
    if finding.leg.is_none() {
        return false;
    }
    if evidence.pulled == Some(true) {
        // The transfer test reads further than that. What only ends early is taken up again by a pull.
        let is_beyond = finding.phase == Some(Phase::Blob)
            && walk.transfer.is_some()
            && walk.blob.fault().is_none();
        return !is_beyond || finding.cause == Cause::UnexpectedEof;
    }
    // Another host resolved the reference; whether a token was wanted later is in the content's fault.
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
    // Where the host redirected the HEAD to can't be reached.
    let is_of_head = matches!(head, Some(HttpFault::RedirectBlocked { phase, .. })
        if finding.leg == Some(Role::Registry) && finding.phase == Some(*phase));
    // What a host would have said to whom asks with a token that was withheld is not known.
    let is_of_lost_token = finding.leg == Some(Role::Token)
        && finding.cause != Cause::RealmUntrusted
        && !faults.any(is_of_token);
    walk.resolved_elsewhere && (is_of_head || is_of_lost_token)
}

/// A name may resolve otherwise where the pull is made.
fn temper(evidence: &Evidence, finding: &mut Finding) {
    let is_names = finding.phase == Some(Phase::Resolve);
    if is_names && evidence.vantage.unseen.contains(&Unseen::NodeResolver) {
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
fn hangs_on(evidence: &Evidence, finding: &Finding) -> Option<Unseen> {
    let vantage = &evidence.vantage;
    let unseen = |what: Unseen| vantage.unseen.contains(&what).then_some(what);
    if certificates::hangs_on_roots(finding.cause) {
        return unseen(Unseen::NodeRoots);
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
    unseen(Unseen::Proxy).or_else(|| unseen(Unseen::Mirrors))
}

fn masks(root: &Finding, finding: &Finding) -> bool {
    // What a proxy answers in the server's place says nothing of the server.
    let is_closed = root.cause == Cause::ProxyMiss && root.phase == Some(Phase::Proxy);
    if is_closed && root.leg == finding.leg && finding.phase > root.phase {
        return true;
    }
    finding.cause.entry().masked_by.contains(&root.cause)
        && root.severity >= finding.severity
        && (root.leg == finding.leg || root.leg.is_none())
}

fn pull(evidence: &Evidence, findings: &[Finding]) -> Pull {
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

fn leaves_undecided(evidence: &Evidence, finding: &Finding) -> bool {
    if finding.cause == Cause::SecretMissing && is_absent(evidence) {
        return false;
    }
    // The node's own roots are seen, and there are none.
    let is_known =
        finding.cause == Cause::TlsNoRoots && !evidence.vantage.unseen.contains(&Unseen::NodeRoots);
    (finding.cause.entry().leaves_undecided && !is_known)
        // From files alone nobody knows what the cluster has; the API server does.
        || (finding.cause == Cause::SecretMissing && finding.confidence < Confidence::High)
        // A walk that ended for no reason that is on record.
        || (finding.cause == Cause::Unexplained && finding.phase.is_none())
}

/// The API server has no such Secret.
fn is_absent(evidence: &Evidence) -> bool {
    let sought = evidence.pods.iter().flat_map(|pod| &pod.secrets);
    sought.into_iter().any(|one| one.found == Found::Absent)
}

/// The walk came to its end.
fn is_complete(evidence: &Evidence) -> bool {
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

/// The walk was ended before what might count against a rate limit.
fn is_spared(evidence: &Evidence) -> bool {
    matches!(&evidence.walk.manifest, Step::Skipped { reason } if *reason == Skip::Spared)
}

/// A walk that ended early without any rule saying why: a defect of the rules, and said so.
fn unnamed(evidence: &Evidence) -> Finding {
    let failed = failed_steps(evidence);
    let (leg, phase) = failed.first().map(|(leg, phase, _)| (*leg, *phase)).unzip();
    let mut facts: Vec<String> = failed
        .into_iter()
        .map(|(leg, phase, fault)| format!("{leg} {phase}: {fault}"))
        .collect();
    if facts.is_empty() {
        facts.push(
            "the walk did not come to its end, and no phase is on record as failed".to_owned(),
        );
    }
    Finding {
        leg,
        phase,
        ..new(Cause::Unexplained).facts(facts).hint(TELL_US)
    }
}

/// Every phase that failed, in the order of the walk.
fn failed_steps(evidence: &Evidence) -> Vec<(Role, Phase, String)> {
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

/// The hint where this version knows nothing better.
const TELL_US: &str =
    "Send the JSON report (`-o json`; it holds no secret) to Pullpath's maintainers.";

// ---- how rules make findings --------------------------------------------------------------------

fn new(cause: Cause) -> Finding {
    Finding {
        cause,
        severity: cause.entry().severity,
        confidence: Confidence::High,
        leg: None,
        phase: None,
        evidence: Vec::new(),
        hint: String::new(),
    }
}

fn at(cause: Cause, leg: Role, phase: Phase) -> Finding {
    Finding {
        leg: Some(leg),
        phase: Some(phase),
        ..new(cause)
    }
}

impl Verdict {
    /// What hinders the pull most.
    fn root(&self) -> Option<&Finding> {
        let mut findings = self.findings.iter();
        findings.find(|finding| finding.severity == Severity::Critical)
    }
}

impl Finding {
    fn fact(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(fact.into());
        self
    }

    fn facts(mut self, facts: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(facts);
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }
}

/// RFC 6585, 4; Docker Hub says it by its code as well.
fn is_rate_limit(status: u16, code: Option<&str>) -> bool {
    status == 429 || code.is_some_and(|code| code.eq_ignore_ascii_case("TOOMANYREQUESTS"))
}

/// The server of a leg, for hints: the last one, where redirects led through several.
fn server(evidence: &Evidence, leg: Role) -> String {
    evidence.legs_of(leg).last().map_or_else(
        || format!("the {leg}'s server"),
        |leg| leg.endpoint.to_string(),
    )
}

/// What would tell, where this program can't.
const PULL_BY_HAND: &str = "Pull the image once on the node by hand (`crictl pull IMAGE`) to see what containerd makes of it.";

/// A page for people in place of content.
fn page(evidence: &Evidence, title: Option<&str>, leg: Role, phase: Phase) -> Finding {
    let server = server(evidence, leg);
    at(Cause::NotARegistry, leg, phase)
        .fact("a web page came in place of content")
        .facts(title.map(|title| format!("it is {}", titled(title))))
        .hint(format!(
            "Open {server}/v2/ to see what answers there: a portal, a login page, or a path that is not the registry's. \
             For a mirror whose registry is below another path, write `override_path = true` in its hosts.toml."
        ))
}

/// The finding for an exchange that went wrong on the wire, or by a status that says nothing of
/// credentials or content. `None` for the statuses whose meaning depends on what was asked.
fn transport(evidence: &Evidence, fault: &HttpFault, leg: Role, phase: Phase) -> Option<Finding> {
    let server = server(evidence, leg);
    let at_the_log = format!(
        "Look at the log of {server}, and of the load balancer in front of it, for {}.",
        instant(evidence.started)
    );
    let finding = match fault {
        HttpFault::Status { status, code, retry_after, .. } if is_rate_limit(*status, code.as_deref()) => {
            let wait = retry_after.as_ref().map_or_else(String::new, |after| format!(" The server says: retry after {after}."));
            let limit = evidence.walk.rate_limit.as_ref();
            at(Cause::RateLimited, leg, phase)
                .facts(limit.and_then(|limit| Some(format!("limit {}, {} left", limit.limit?, limit.remaining?))))
                .facts(limit.and_then(|limit| Some(format!("counted for {}", limit.source.as_ref()?))))
                .hint(format!("Pull with an account that has a larger limit, or copy the image to a registry of your own.{wait}"))
        }
        HttpFault::Status { status: 500.., .. } => at(Cause::Registry5xx, leg, phase).hint(format!(
            "Try again in some minutes; then give time and status to whoever runs {server}."
        )),
        // What a status means depends on what was asked; a host that can't be reached has a leg with its cause.
        HttpFault::Status { .. }
        | HttpFault::RedirectUntrusted { .. }
        | HttpFault::RedirectBlocked { .. }
        | HttpFault::Unreached { .. }
        | HttpFault::Unauthorized { .. }
        | HttpFault::NotAsked => return None,
        HttpFault::Page { title } => return Some(page(evidence, title.as_deref(), leg, phase)),
        HttpFault::WrongSize { .. } | HttpFault::WrongDigest { .. } => at(Cause::DigestMismatch, leg, phase)
            .hint("Ask past any cache or proxy; if it stays, push the image again."),
        HttpFault::NotUnpacked { .. } => at(Cause::LayerInvalid, leg, phase)
            .hint(format!("Build and push {} again: its layers are not those that its configuration names.", evidence.reference)),
        HttpFault::TooLarge { .. } if phase == Phase::Manifest => at(Cause::ManifestInvalid, leg, phase)
            .hint("Push an image whose manifest is smaller: keep what is large in layers, not in annotations."),
        HttpFault::Encoding { .. } | HttpFault::NotEncoded { .. } => at(Cause::ContentEncoding, leg, phase)
            .hint(format!("Switch compression off for {server} in whatever stands in front of it.")),
        HttpFault::EncodingUnread { .. }
        | HttpFault::RequestLimit { .. }
        | HttpFault::ResumedTooOften { .. }
        | HttpFault::TooSlow { .. } => at(Cause::ProbeLimit, leg, phase).hint(PULL_BY_HAND),
        HttpFault::Timeout | HttpFault::Stalled { .. } => at(Cause::HttpTimeout, leg, phase).hint(format!(
            "Look at the load of {server} first. If its small answers pass and large ones never do, look at the MTU of the path.",
        )),
        HttpFault::Reset | HttpFault::Closed => at(Cause::TcpReset, leg, phase).hint(at_the_log),
        HttpFault::Unsupported { .. } => at(Cause::ManifestUnsupported, leg, phase)
            .hint(format!("Push {} again with a current client, and check that it is an image.", evidence.reference)),
        HttpFault::TlsAlert { alert, .. } => {
            let host = evidence.legs_of(leg).last().map_or_else(|| server.clone(), |leg| leg.endpoint.host.to_string());
            at(Cause::TlsAlert, leg, phase).hint(tls::alert_hint(*alert, &host))
        }
        HttpFault::Truncated { .. } => at(Cause::UnexpectedEof, leg, phase)
            .hint(format!("Look at the timeouts and size limits of whatever stands in front of {server}.")),
        HttpFault::Malformed { .. } | HttpFault::TooLarge { .. } if phase == Phase::Ping => {
            at(Cause::NotARegistry, leg, phase)
                .confidence(Confidence::Medium)
                .hint(format!("Ask the same host with `curl -i {server}/v2/` and see what answers."))
        }
        HttpFault::Malformed { .. } if phase < Phase::Blob => {
            at(Cause::NotARegistry, leg, phase)
                .confidence(Confidence::Low)
                .hint(format!("Ask the same host with `curl -i {server}/v2/` and see what answers."))
        }
        HttpFault::TooManyRedirects { .. } | HttpFault::Malformed { .. } => at(Cause::RedirectBroken, leg, phase)
            .hint("Correct the redirect in the registry, or in the load balancer in front of it."),
        HttpFault::Reconnect { .. } => at(Cause::TcpReset, leg, phase)
            .confidence(Confidence::Medium)
            .hint(format!("Let {server} take several connections of one client: a pull makes new ones for its second phase and for each layer in flight.")),
        HttpFault::TooLarge { .. } | HttpFault::Other { .. } => {
            at(Cause::Unexplained, leg, phase).hint(TELL_US)
        }
    };
    Some(finding.fact(format!("{leg} {phase}: {fault}")))
}
