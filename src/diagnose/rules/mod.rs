//! The rules: each looks at the evidence for one kind of trouble. What follows from a root cause is
//! put aside, and what is left is the verdict.

mod answers;
mod auth;
mod connection;
mod names;
mod tls;

use super::cause::{Cause, Detected};
use super::{Confidence, Finding, Pull, Severity, Verdict};
use crate::model::endpoint::Role;
use crate::model::evidence::Evidence;
use crate::model::fault::{HttpFault, Phase};
use crate::model::vantage::NetworkView;

type Rule = fn(&Evidence, &mut Vec<Finding>);

const RULES: &[Rule] = &[
    names::resolution,
    names::servers,
    names::search_list,
    names::hosts_file,
    connection::connect,
    connection::addresses,
    tls::handshake,
    tls::expiring,
    tls::clock,
    answers::ping,
    auth::refused,
    auth::candidates,
    auth::sources,
    auth::unused_secret,
    answers::manifest,
    answers::blob,
    answers::resumable,
    answers::rate_limit,
];

/// Critical causes that leave the pull undecided: something that decides it was not looked at.
const UNDECIDED: &[Cause] = &[
    Cause::TlsNoRoots,
    Cause::RealmUntrusted,
    Cause::RedirectUntrusted,
];

pub(super) fn judge(evidence: &Evidence) -> Verdict {
    let mut all = Vec::new();
    for rule in RULES {
        rule(evidence, &mut all);
    }
    debug_assert!(
        all.iter()
            .all(|f: &Finding| f.cause.entry().detected == Detected::Now)
    );
    for finding in &mut all {
        temper(evidence, finding);
    }
    let (mut consequences, mut findings): (Vec<_>, Vec<_>) = all
        .iter()
        .cloned()
        .partition(|finding| all.iter().any(|root| masks(root, finding)));
    if findings.is_empty() && !is_complete(evidence) {
        findings.push(unnamed(evidence));
    }
    let order = |f: &Finding| (std::cmp::Reverse(f.severity), f.leg, f.phase);
    findings.sort_by_key(order);
    consequences.sort_by_key(order);
    Verdict {
        pull: pull(&findings),
        findings,
        consequences,
    }
}

/// A name may resolve otherwise where the pull is made; only the node's own network has its resolver.
fn temper(evidence: &Evidence, finding: &mut Finding) {
    let is_names = finding.phase == Some(Phase::Resolve);
    if is_names && evidence.vantage.network != NetworkView::Node {
        finding.confidence = finding.confidence.min(Confidence::Medium);
    }
}

fn masks(root: &Finding, finding: &Finding) -> bool {
    finding.cause.entry().masked_by.contains(&root.cause)
        && root.severity >= finding.severity
        && (root.leg == finding.leg || root.leg.is_none())
}

fn pull(findings: &[Finding]) -> Pull {
    let mut critical = findings
        .iter()
        .filter(|f| f.severity == Severity::Critical)
        .peekable();
    if critical.peek().is_none() {
        Pull::WouldSucceed
    } else if critical.all(|f| UNDECIDED.contains(&f.cause)) {
        Pull::Unknown
    } else {
        Pull::WouldFail
    }
}

/// The walk came to its end.
fn is_complete(evidence: &Evidence) -> bool {
    use crate::model::evidence::{Skip, Step};
    evidence.manifest.done().is_some()
        && matches!(
            evidence.blob,
            Step::Done { .. }
                | Step::Skipped {
                    reason: Skip::NoLayer
                }
        )
}

/// A walk that ended early without any rule saying why: a defect of the rules, and said so.
fn unnamed(evidence: &Evidence) -> Finding {
    new(Cause::Unexplained, None, None)
        .fact(format!("manifest: {:?}", evidence.manifest.fault()))
        .fact(format!("blob: {:?}", evidence.blob.fault()))
        .hint("Send the JSON report (`-o json`; it holds no secret) to Pullpath's maintainers.")
}

// ---- how rules make findings --------------------------------------------------------------------

fn new(cause: Cause, leg: Option<Role>, phase: Option<Phase>) -> Finding {
    Finding {
        cause,
        severity: cause.entry().severity,
        confidence: Confidence::High,
        leg,
        phase,
        evidence: Vec::new(),
        hint: String::new(),
    }
}

fn at(cause: Cause, leg: Role, phase: Phase) -> Finding {
    new(cause, Some(leg), Some(phase))
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

/// The finding for an exchange that went wrong on the wire, or by a status that says nothing of
/// credentials or content. `None` for the statuses whose meaning depends on what was asked.
fn transport(fault: &HttpFault, leg: Role, phase: Phase) -> Option<Finding> {
    let host_hint =
        "Look at the log of that server, and of the load balancer in front of it, for this moment.";
    let finding = match fault {
        HttpFault::Status { status: 429, retry_after, .. } => {
            let wait = retry_after.as_ref().map_or_else(String::new, |after| format!(" The server says: retry after {after}."));
            at(Cause::RateLimited, leg, phase).hint(format!(
                "Pull with an account that has a larger limit, or copy the image to a registry of your own.{wait}"
            ))
        }
        HttpFault::Status { status: 500.., .. } => at(Cause::Registry5xx, leg, phase)
            .hint("Try again in some minutes; then give time and status to whoever runs that server."),
        HttpFault::Status { code: Some(code), .. } if code.eq_ignore_ascii_case("TOOMANYREQUESTS") => {
            at(Cause::RateLimited, leg, phase)
                .hint("Pull with an account that has a larger limit, or copy the image to a registry of your own.")
        }
        // What a status means depends on what was asked; a blocked redirect has a leg with its cause.
        HttpFault::Status { .. } | HttpFault::RedirectUntrusted { .. } | HttpFault::RedirectBlocked { .. } => return None,
        HttpFault::Timeout | HttpFault::Stalled { .. } => at(Cause::HttpTimeout, leg, phase).hint(
            "Look at that server's own load first. If its small answers pass and large ones never do, look at the MTU of the path.",
        ),
        HttpFault::Reset | HttpFault::Closed => at(Cause::TcpReset, leg, phase).hint(host_hint),
        HttpFault::Truncated { .. } => at(Cause::UnexpectedEof, leg, phase)
            .hint("Look at the timeouts and size limits of whatever stands in front of that server."),
        HttpFault::Malformed { .. } | HttpFault::TooLarge { .. } if phase < Phase::Blob => {
            at(Cause::NotARegistry, leg, phase)
                .confidence(Confidence::Medium)
                .hint("Ask the same host with `curl -i https://HOST/v2/` and see what answers.")
        }
        HttpFault::TooManyRedirects { .. } | HttpFault::Malformed { .. } => at(Cause::RedirectBroken, leg, phase)
            .hint("Correct the redirect in the registry, or in the load balancer in front of it."),
        HttpFault::TooLarge { .. } | HttpFault::Reconnect { .. } | HttpFault::Other { .. } => {
            at(Cause::Unexplained, leg, phase)
                .hint("Send the JSON report (`-o json`; it holds no secret) to Pullpath's maintainers.")
        }
    };
    Some(finding.fact(format!("{leg} {phase}: {fault}")))
}
