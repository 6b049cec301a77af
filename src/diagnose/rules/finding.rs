//! How rules make findings.

use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::{Finding, Verdict};
use crate::model::endpoint::Role;
use crate::model::evidence::Evidence;
use crate::model::fault::{HttpFault, Phase, instant};
use crate::model::text::titled;

/// How the walk by another path is judged. Rules that compare with it are handed this, since it is
/// made of rules.
pub(super) type Judge = fn(&Evidence) -> Verdict;

/// With what the catalogue says of the cause, also what to do; a rule that knows better says so.
pub(crate) fn new(cause: Cause) -> Finding {
    Finding {
        cause,
        severity: cause.entry().severity,
        confidence: Confidence::High,
        leg: None,
        phase: None,
        evidence: Vec::new(),
        hint: cause.entry().fix.to_owned(),
    }
}

pub(super) fn at(cause: Cause, leg: Role, phase: Phase) -> Finding {
    Finding {
        leg: Some(leg),
        phase: Some(phase),
        ..new(cause)
    }
}

impl Finding {
    pub(crate) fn fact(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(fact.into());
        self
    }

    pub(crate) fn facts(mut self, facts: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(facts);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    pub(crate) fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }
}

/// RFC 6585, 4; Docker Hub says it by its code as well.
pub(super) fn is_rate_limit(status: u16, code: Option<&str>) -> bool {
    status == 429 || code.is_some_and(|code| code.eq_ignore_ascii_case("TOOMANYREQUESTS"))
}

/// The server of a leg, for hints: the last one, where redirects led through several.
pub(super) fn server(evidence: &Evidence, leg: Role) -> String {
    evidence.walk.legs_of(leg).last().map_or_else(
        || format!("the {leg}'s server"),
        |leg| leg.endpoint.to_string(),
    )
}

/// What answers is no registry.
pub(super) fn no_registry(evidence: &Evidence, leg: Role, phase: Phase) -> Finding {
    at(Cause::NotARegistry, leg, phase).hint(format!(
        "Open {}/v2/ to see what answers there: a portal, a login page, or a path that is not the registry's. \
         For a mirror whose registry is below another path, write `override_path = true` in its hosts.toml.",
        server(evidence, leg)
    ))
}

/// The finding for an exchange that went wrong on the wire, or by a status that says nothing of
/// credentials or content. `None` for the statuses whose meaning depends on what was asked.
pub(super) fn transport(
    evidence: &Evidence,
    fault: &HttpFault,
    leg: Role,
    phase: Phase,
) -> Option<Finding> {
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
        | HttpFault::NotRequested => return None,
        HttpFault::Page { title } => {
            let title = title.as_ref().map(|title| format!("it is {}", titled(title)));
            let finding = no_registry(evidence, leg, phase);
            return Some(finding.fact("a web page came in place of content").facts(title));
        }
        HttpFault::WrongSize { .. } | HttpFault::WrongDigest { .. } => at(Cause::DigestMismatch, leg, phase),
        HttpFault::NotUnpacked { .. } => at(Cause::LayerInvalid, leg, phase),
        HttpFault::TooLarge { .. } if phase == Phase::Manifest => at(Cause::ManifestInvalid, leg, phase)
            .hint("Push an image whose manifest is smaller: keep what is large in layers, not in annotations."),
        HttpFault::Encoding { .. } | HttpFault::NotEncoded { .. } => at(Cause::ContentEncoding, leg, phase)
            .hint(format!("Switch compression off for {server} in whatever stands in front of it.")),
        HttpFault::EncodingUnread { .. }
        | HttpFault::RequestLimit { .. }
        | HttpFault::ResumedTooOften { .. }
        | HttpFault::TooSlow { .. } => at(Cause::ProbeLimit, leg, phase),
        HttpFault::Timeout | HttpFault::Stalled { .. } => at(Cause::HttpTimeout, leg, phase).hint(format!(
            "Look at the load of {server} first. If its small answers pass and large ones never do, look at the MTU of the path.",
        )),
        HttpFault::Reset | HttpFault::Closed => at(Cause::TcpReset, leg, phase).hint(at_the_log),
        HttpFault::Unsupported { .. } => at(Cause::ManifestUnsupported, leg, phase),
        HttpFault::TlsAlert { alert, .. } => {
            let host = evidence.walk.legs_of(leg).last().map_or_else(|| server.clone(), |leg| leg.endpoint.host.to_string());
            at(Cause::TlsAlert, leg, phase).hint(alert_hint(*alert, &host))
        }
        HttpFault::Truncated { .. } => at(Cause::UnexpectedEof, leg, phase)
            .hint(format!("Look at the timeouts and size limits of whatever stands in front of {server}.")),
        HttpFault::Malformed { .. } | HttpFault::TooLarge { .. } if phase == Phase::Ping => {
            no_registry(evidence, leg, phase).confidence(Confidence::Medium)
        }
        HttpFault::Malformed { .. } if phase < Phase::Blob => {
            no_registry(evidence, leg, phase).confidence(Confidence::Low)
        }
        HttpFault::TooManyRedirects { .. } | HttpFault::Malformed { .. } => at(Cause::RedirectBroken, leg, phase),
        HttpFault::Reconnect { .. } => at(Cause::TcpReset, leg, phase)
            .confidence(Confidence::Medium)
            .hint(format!("Let {server} take several connections of one client: a pull makes new ones for its second phase and for each layer in flight.")),
        HttpFault::TooLarge { .. } | HttpFault::Other { .. } => {
            at(Cause::Unexplained, leg, phase)
        }
    };
    Some(finding.fact(format!("{leg} {phase}: {fault}")))
}

pub(super) fn alert_hint(alert: u8, host: &str) -> String {
    match alert {
        112 => format!("The server does not serve '{host}': check the host in the image's name."),
        116 => "The server wants a client certificate: put `client` into hosts.toml.".to_owned(),
        _ => format!(
            "Look at the log of the TLS server at '{host}' for this alert; update it if it is old."
        ),
    }
}
