//! Constructors of findings, and the findings for faults on the wire that several rules share.

use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::path::leg_path::LegPath;
use crate::diagnose::{Finding, Verdict};
use crate::model::endpoint::Role;
use crate::model::evidence::{Challenge, Evidence};
use crate::model::fault::{HttpFault, Phase, instant};
use crate::model::hosts::{HostKind, HostsConfig};
use crate::model::text::titled;

/// Judges a check made over another path. Passed to the rules that compare with one, because it is made of
/// the rules itself.
pub(super) type Judge = fn(&Evidence) -> Verdict;

/// A finding with the catalogue's severity and fix; a rule may replace both.
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

    /// Something that was not observed and could change the finding: its confidence is not high then.
    pub(crate) fn unknown(mut self, fact: impl Into<String>) -> Self {
        self.confidence = self.confidence.min(Confidence::Medium);
        self.fact(fact)
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

/// RFC 6585, 4; Docker Hub also reports it with its error code.
pub(super) fn is_rate_limit(status: u16, code: Option<&str>) -> bool {
    status == 429 || code.is_some_and(|code| code.eq_ignore_ascii_case("TOOMANYREQUESTS"))
}

/// The server of a leg, for hints: the last one if redirects led through several.
pub(super) fn server(evidence: &Evidence, leg: Role) -> String {
    evidence.walk.legs_of(leg).last().map_or_else(
        || format!("the {leg}'s server"),
        |leg| leg.endpoint.to_string(),
    )
}

/// The file that names the hosts.
pub(super) fn settings_file(evidence: &Evidence) -> String {
    match &evidence.hosts {
        HostsConfig::Read { folder, .. } => format!("{folder}/hosts.toml"),
        HostsConfig::ConfigToml { file, .. } => file.clone(),
        _ => "hosts.toml".to_owned(),
    }
}

/// Where the host of a leg is written, for hints that correct it.
pub(super) fn written_in(evidence: &Evidence, leg: Role) -> String {
    match (leg, evidence.walk.host.kind) {
        (Role::Registry, HostKind::Registry) => "the image reference".to_owned(),
        (Role::Registry, _) => settings_file(evidence),
        (Role::Token, _) => "the realm that the registry names (Harbor: external_url)".to_owned(),
        (Role::Blob, _) => "the storage's address in the registry's configuration".to_owned(),
    }
}

/// The server that responds is not a registry.
pub(super) fn no_registry(evidence: &Evidence, leg: Role, phase: Phase) -> Finding {
    at(Cause::NotARegistry, leg, phase).hint(format!(
        "Open {}/v2/ to see what answers there: a portal, a login page, or a path that is not the registry's. \
                 For a mirror whose registry is below another path, set `override_path = true` in its hosts.toml.",
        server(evidence, leg)
    ))
}

/// The finding for an exchange that failed on the wire, or with a status that is not about credentials or
/// content. `None` for statuses whose meaning depends on the request.
pub(super) fn transport(
    evidence: &Evidence,
    fault: &HttpFault,
    leg: Role,
    phase: Phase,
) -> Option<Finding> {
    let server = server(evidence, leg);
    let at_the_log = format!(
        "Check the log of {server}, and of the load balancer in front of it, at {}.",
        instant(evidence.started)
    );
    let finding = match fault {
        HttpFault::Status { status, code, .. } if is_rate_limit(*status, code.as_deref()) => {
            rate_limited(evidence, fault, leg, phase)
        }
        HttpFault::Status { code: Some(code), .. } if matches!(code.as_str(), "SlowDown" | "ServerBusy") => {
            at(Cause::Registry5xx, leg, phase).hint(format!(
                "Try again in a few minutes: {server} limits the requests for this bucket or account ({code}). If it repeats, spread the pulls over time, or ask its operator for a higher limit."
            ))
        }
        HttpFault::Status { status: 500.., .. } => at(Cause::Registry5xx, leg, phase).hint(format!(
            "Try again in a few minutes; if it still fails, report time and status to the operator of {server}."
        )),
        // A status's meaning depends on the request; a host that can't be reached has a leg with its cause.
        HttpFault::Status { .. }
        | HttpFault::RedirectUntrusted { .. }
        | HttpFault::RedirectBlocked { .. }
        | HttpFault::Unreached { .. }
        | HttpFault::Unauthorized { .. }
        | HttpFault::OwnLimit { .. }
        | HttpFault::NotRequested => return None,
        HttpFault::Page { title } => {
            let title = title.as_ref().map(|title| format!("it is {}", titled(title)));
            let finding = no_registry(evidence, leg, phase);
            return Some(finding.fact("the response is a web page instead of content").facts(title));
        }
        HttpFault::WrongSize { .. } | HttpFault::WrongDigest { .. } => at(Cause::DigestMismatch, leg, phase),
        HttpFault::NotUnpacked { .. } => at(Cause::LayerInvalid, leg, phase),
        HttpFault::TooLarge { .. } if phase == Phase::Manifest => at(Cause::ManifestInvalid, leg, phase)
            .hint("Push an image whose manifest is smaller: keep large data in layers, not in annotations."),
        HttpFault::Encoding { .. } | HttpFault::NotEncoded { .. } => at(Cause::ContentEncoding, leg, phase)
            .hint(format!("Switch off compression for {server} in the proxy or load balancer in front of it.")),
        HttpFault::Timeout | HttpFault::Stalled { .. } => at(Cause::HttpTimeout, leg, phase).hint(format!(
            "Check the load of {server} first. If small responses arrive and large ones never do, check the MTU of the path.",
        )),
        HttpFault::Reset | HttpFault::Closed => at(Cause::TcpReset, leg, phase).hint(at_the_log),
        HttpFault::Unsupported { .. } => at(Cause::ManifestUnsupported, leg, phase),
        HttpFault::TlsAlert { alert, .. } => {
            let host = evidence.walk.legs_of(leg).last().map_or_else(|| server.clone(), |leg| leg.endpoint.host.to_string());
            at(Cause::TlsAlert, leg, phase).hint(alert_hint(*alert, &host, &written_in(evidence, leg)))
        }
        HttpFault::Truncated { .. } => at(Cause::UnexpectedEof, leg, phase)
            .hint(format!("Check the timeouts and size limits of the proxy or load balancer in front of {server}.")),
        HttpFault::Malformed { .. } | HttpFault::TooLarge { .. } if phase == Phase::Ping => {
            no_registry(evidence, leg, phase).confidence(Confidence::Medium)
        }
        HttpFault::Malformed { .. } if phase < Phase::Blob => {
            no_registry(evidence, leg, phase).confidence(Confidence::Low)
        }
        HttpFault::TooManyRedirects { .. } | HttpFault::Malformed { .. } => at(Cause::RedirectBroken, leg, phase),
        HttpFault::Reconnect { phase: Phase::Proxy, .. } => at(Cause::ProxyMisconfigured, leg, phase)
            .confidence(Confidence::Medium)
            .hint(format!("Check the proxy's log, and let it open several tunnels to {server} for one client: a pull opens new ones for its second phase and for each layer that is downloading.")),
        HttpFault::Reconnect { .. } => at(Cause::TcpReset, leg, phase)
            .confidence(Confidence::Medium)
            .hint(format!("Let {server} accept several connections from one client: a pull opens new ones for its second phase and for each layer that is downloading.")),
        // Bounds of this program: containerd, for instance, reads a token of any size.
        HttpFault::EncodingUnread { .. }
        | HttpFault::RequestLimit { .. }
        | HttpFault::ResumedTooOften { .. }
        | HttpFault::TooLarge { .. }
        | HttpFault::TooSlow { .. } => at(Cause::ProbeLimit, leg, phase),
        HttpFault::Other { .. } => at(Cause::Unexplained, leg, phase),
    };
    Some(finding.fact(format!("{leg} {phase}: {fault}")))
}

/// Whose limit it is depends on the request: a token service counts logins, a registry pulls, a storage downloads.
fn rate_limited(evidence: &Evidence, fault: &HttpFault, leg: Role, phase: Phase) -> Finding {
    let (message, retry_after) = match fault {
        HttpFault::Status {
            message,
            retry_after,
            ..
        } => (message.as_deref(), retry_after.as_deref()),
        _ => (None, None),
    };
    // Seconds, or a date (RFC 9110, 10.2.3).
    let wait = retry_after.map_or_else(String::new, |after| {
        let is_seconds = after.chars().all(|c| c.is_ascii_digit());
        let unit = if is_seconds { " s" } else { "" };
        format!(" The server requests a retry after {after}{unit}.")
    });
    let message = message.unwrap_or_default().to_ascii_lowercase();
    let is_of_logins = message.contains("login attempt") || message.contains("failed login");
    let last = evidence.walk.attempts.last();
    let is_anonymous = last.is_none_or(|attempt| attempt.credential.is_none());
    let server = server(evidence, leg);
    let hint = match (leg, phase) {
        (Role::Token, _) if is_of_logins => format!(
            "Find the client that logs in with a wrong password, for this user or from this address, and correct it; the limit ends some time after that. Whether the password of this pull is right is not known until then.{wait}"
        ),
        (Role::Token, _) => format!(
            "Wait, then find out which clients request so many tokens from {server} (each pull requests two or more): it limits logins and tokens, not pulls, so an account with a higher pull limit does not help.{wait}"
        ),
        (Role::Blob, _) | (_, Phase::Blob) => format!(
            "Ask the operator of {server} to raise its limit for downloads. It may count all clients behind one address together; if they are your nodes, `max_concurrent_downloads = 1` in containerd's configuration on all of them makes fewer requests at once.{wait}"
        ),
        _ if is_anonymous && requires_no_login(evidence) => format!(
            "Ask the operator of {server} to raise its limit for this client's address, or pull at fewer nodes at once. The registry requires no login, so an account does not help.{wait}"
        ),
        _ if is_anonymous => format!(
            "Pull with an account (a Secret in the pod's imagePullSecrets): without one, all clients behind one address are counted together. Or copy the image to your own registry.{wait}"
        ),
        _ => format!(
            "Pull with an account that has a higher limit, or copy the image to your own registry.{wait}"
        ),
    };
    let limit = evidence.walk.rate_limit.as_ref();
    at(Cause::RateLimited, leg, phase)
        .facts(limit.and_then(|limit| {
            Some(format!(
                "limit {}, {} remaining",
                limit.limit?, limit.remaining?
            ))
        }))
        .facts(limit.and_then(|limit| Some(format!("counted for {}", limit.source.as_ref()?))))
        .hint(hint)
}

/// Whether the registry serves everything without a login: `/v2/` responds without a challenge, and none was sent later.
fn requires_no_login(evidence: &Evidence) -> bool {
    let is_open = |challenge: &Challenge| matches!(challenge, Challenge::Anonymous);
    let ping = evidence.walk.ping.done();
    let mut attempts = evidence.walk.attempts.iter();
    ping.is_some_and(|ping| ping.status == 200 && is_open(&ping.challenge))
        && attempts.all(|attempt| attempt.challenge.as_ref().is_none_or(is_open))
}

pub(super) fn alert_hint(alert: u8, host: &str, source: &str) -> String {
    match alert {
        112 => format!("Check the host in {source}: the server does not serve '{host}'."),
        116 => "Add `client` to hosts.toml: the server requires a client certificate.".to_owned(),
        _ => format!(
            "Check the log of the TLS server at '{host}' for this alert; update the server if it is old."
        ),
    }
}

/// The fixes of a path, joined to one text.
pub(super) fn fixes_text(path: &LegPath) -> String {
    let words: Vec<&str> = path.fixes.iter().map(|fix| fix.action.as_str()).collect();
    words.join(" Or: ")
}
