//! Rules for proxies: one that does not connect, and one that NO_PROXY bypasses although it is needed.

use super::certificates::{self, PULL_ON_THE_NODE};
use super::finding::{Judge, at, new};
use super::outcome::pull;
use super::{in_force, tls};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::{Finding, Pull};
use crate::model::endpoint::{Endpoint, Scheme};
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{Phase, ProxyFault, TlsFault};
use crate::model::proxy::{Proxy, ProxyRoute};
use crate::model::step::Step;
use crate::model::text::joined;
use crate::model::vantage::NetworkView;

/// The proxy of a leg does not connect to the leg's server.
pub(super) fn closed(evidence: &Evidence, findings: &mut Vec<Finding>, judge: Judge) {
    let legs = evidence.walk.legs.iter();
    findings.extend(legs.filter_map(|leg| closed_at(evidence, leg, judge)));
}

fn closed_at(evidence: &Evidence, leg: &Leg, judge: Judge) -> Option<Finding> {
    let ProxyRoute::Proxied { proxy } = &leg.proxy_route else {
        return None;
    };
    let (phase, fault) = failure(leg)?;
    let secured = leg.proxy_tls.as_ref();
    let tunnel = leg.tunnel.as_ref().and_then(Step::fault);
    let cause = if secured.is_some_and(|tls| tls.depends_on_changed_roots) {
        Cause::RuntimeSettingsUnknown
    } else if tunnel.is_some_and(ProxyFault::is_undecided) {
        Cause::ProxyUnknown
    } else {
        Cause::ProxyMisconfigured
    };
    let mut finding = at(cause, leg.role, phase)
        .fact(format!(
            "requests to {} go through {proxy}, according to {} in {}; no entry of NO_PROXY matches",
            leg.endpoint, proxy.variable, evidence.proxies.source
        ))
        .fact(fault);
    if let Some(ProxyFault::Tls { fault }) = tunnel {
        let word = certificates::word(evidence, &of_proxy(leg), fault, "");
        let cause = word.map_or(cause, |word| word.cause);
        finding = finding.facts(tls::facts(evidence, &of_proxy(leg), fault, cause));
    }
    if cause == Cause::ProxyMisconfigured {
        finding = compared(evidence, finding, judge);
    }
    Some(finding.hint(hint(evidence, leg, proxy, phase, judge)))
}

/// The TLS connection to a leg's proxy, in the form of a leg.
fn of_proxy(leg: &Leg) -> Leg {
    let mut own = leg.clone();
    let authority = leg.proxy_route.proxy().map_or("", |proxy| &proxy.authority);
    let port = authority.rsplit_once(':').map(|(_, port)| port.parse());
    own.endpoint = Endpoint {
        scheme: Scheme::Https,
        host: leg.dialed(),
        port: port.and_then(Result::ok).unwrap_or_default(),
    };
    own.tls = leg.proxy_tls.clone().unwrap_or(own.tls);
    own
}

/// The phase and fault with which the connection to the proxy or through it failed.
fn failure(leg: &Leg) -> Option<(Phase, String)> {
    let proxy = leg.proxy_route.proxy()?;
    let name = &proxy.authority;
    if let Some(fault) = leg.resolve.outcome.fault() {
        let says = format!("the proxy's own name {name}: {fault}");
        return Some((Phase::Resolve, says));
    }
    if let Some(fault) = leg.connect.outcome.fault() {
        let says = format!("can't connect to the proxy {name}: {fault}");
        return Some((Phase::Connect, says));
    }
    let fault = leg.tunnel.as_ref()?.fault()?;
    Some((Phase::Proxy, fault.to_string()))
}

/// Adds the result of the same check without the proxy, if it was made. A proxy from containerd's own
/// settings that does not connect fails the pull in any case.
fn compared(evidence: &Evidence, finding: Finding, judge: Judge) -> Finding {
    let is_there = matches!(
        evidence.vantage.network,
        NetworkView::Node | NetworkView::Machine
    );
    let confidence = Confidence::high_if(evidence.proxies.is_containerds && is_there);
    let Some(direct) = evidence.direct.as_deref() else {
        return finding.confidence(confidence);
    };
    let without = judge(&evidence.at(direct));
    if without.pull == Pull::WouldSucceed {
        return finding.fact("without the proxy, the same check succeeds");
    }
    let root = without.findings.first();
    let root = root.map_or("no recorded reason", |root| root.cause.code());
    finding.confidence(confidence).fact(format!(
        "without the proxy, the check fails as well: {root}"
    ))
}

fn hint(evidence: &Evidence, leg: &Leg, proxy: &Proxy, phase: Phase, judge: Judge) -> String {
    let host = &leg.endpoint.host;
    let fault = leg.tunnel.as_ref().and_then(Step::fault);
    let secured = leg.proxy_tls.as_ref();
    let is_changed = secured.is_some_and(|tls| tls.depends_on_changed_roots);
    let direct = evidence.direct.as_deref();
    let is_direct_good =
        direct.is_some_and(|direct| judge(&evidence.at(direct)).pull == Pull::WouldSucceed);
    match fault {
        Some(ProxyFault::Unsupported { scheme }) => format!(
            "Write http://HOST:PORT if it is an HTTP proxy: Go releases treat other schemes differently, and this program does not support {scheme}. To check the rest, probe without the proxy."
        ),
        Some(_) if is_changed => in_force::RESTART.to_owned(),
        Some(_) if proxy.unspoken().is_some() => format!(
            "Write http://{} into {} of containerd's service.",
            proxy.authority, proxy.variable
        ),
        Some(fault) if fault.is_undecided() => PULL_ON_THE_NODE.to_owned(),
        _ if is_direct_good => format!(
            "Add {host} to NO_PROXY{}.",
            if evidence.proxies.is_containerds {
                format!(" in {}, then restart containerd", evidence.proxies.source)
            } else {
                " of containerd's service, if it has the same settings as this process".to_owned()
            }
        ),
        Some(ProxyFault::Tls { fault }) => tls_hint(evidence, leg, proxy, fault),
        Some(ProxyFault::Status { status: 407, .. }) => format!(
            "Put a user and password that {proxy} accepts into {} of containerd's service.",
            proxy.variable
        ),
        Some(ProxyFault::Status { status, .. }) if *status >= 500 => format!(
            "Check the log of {proxy} for {host}: the proxy could not reach it. If {host} should be reached directly, add it to NO_PROXY."
        ),
        Some(ProxyFault::Status { .. }) => format!(
            "Allow {host} port {} on {proxy}; or add {host} to NO_PROXY if it can be reached directly (--compare-direct shows that).",
            leg.endpoint.port
        ),
        _ if phase == Phase::Proxy => format!("Check the log of {proxy} for {host}."),
        _ => format!(
            "Correct {} in containerd's service, or start {proxy}; if {host} needs no proxy, add it to NO_PROXY (--compare-direct shows that).",
            proxy.variable
        ),
    }
}

/// The hint for a failed TLS handshake with the proxy.
fn tls_hint(evidence: &Evidence, leg: &Leg, proxy: &Proxy, fault: &TlsFault) -> String {
    let variable = &proxy.variable;
    match fault {
        TlsFault::PlainHttp
        | TlsFault::NotTls { .. }
        | TlsFault::Reset { .. }
        | TlsFault::Closed { .. }
        | TlsFault::Timeout { .. } => format!(
            "Write http://{} into {variable} of containerd's service if the proxy has no TLS; otherwise check its log.",
            proxy.authority
        ),
        TlsFault::NameMismatch { .. } => format!(
            "Use a name from the certificate in {variable} of containerd's service, or have the certificate reissued with '{}' as an additional name.",
            leg.dialed()
        ),
        _ => {
            let clock_first = tls::clock_first(evidence);
            let word = certificates::word(evidence, &of_proxy(leg), fault, clock_first);
            word.map_or_else(|| format!("Check the log of {proxy}."), |word| word.hint)
        }
    }
}

/// A leg that NO_PROXY excludes from the proxy can't be reached.
pub(super) fn passed_by(_: &Evidence, leg: &Leg) -> Option<Finding> {
    let ProxyRoute::Excepted { entry, proxy } = &leg.proxy_route else {
        return None;
    };
    let (phase, fault) = match (leg.resolve.outcome.fault(), leg.connect.outcome.fault()) {
        (Some(fault), _) => (Phase::Resolve, format!("does not resolve: {fault}")),
        (_, Some(fault)) => (Phase::Connect, format!("can't be reached: {fault}")),
        _ => return None,
    };
    Some(
        at(Cause::ProxyMisconfigured, leg.role, phase)
            .severity(Severity::Warning)
            .confidence(Confidence::Low)
            .fact(format!("the entry '{entry}' of NO_PROXY excludes {} from {proxy}", leg.endpoint))
            .fact(format!("without the proxy, it {fault}"))
            .hint(format!(
                "If {} should be reached through the proxy, remove '{entry}' from NO_PROXY of containerd's service.",
                leg.endpoint.host
            )),
    )
}

/// A pull through the proxy would succeed, and so would one without it: worth knowing, since a proxy limits
/// the speed.
pub(super) fn unneeded(evidence: &Evidence, findings: &mut Vec<Finding>, judge: Judge) {
    let Some(direct) = evidence.direct.as_deref() else {
        return;
    };
    let legs = evidence.walk.legs.iter();
    let mut proxied = legs
        .filter(|leg| leg.proxy_route.proxy().is_some())
        .peekable();
    let fails = findings.iter().any(|f| f.severity == Severity::Critical);
    if fails || proxied.peek().is_none() {
        return;
    }
    let without = judge(&evidence.at(direct));
    if pull(evidence, &without.findings) != Pull::WouldSucceed {
        return;
    }
    findings.push(new(Cause::ProxyUnneeded).fact(format!(
        "{} answer through the proxy, and directly as well",
        joined(proxied.map(|leg| &leg.endpoint))
    )));
}
