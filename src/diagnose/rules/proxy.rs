//! Proxies: one that does not open the way, and one that is passed by where it would.

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

/// The proxy of a leg does not open the way to its server.
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
            "{} goes by {proxy}: {} of {} says so, and no entry of NO_PROXY matches",
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

/// The TLS with a leg's proxy, as that of a leg of its own.
fn of_proxy(leg: &Leg) -> Leg {
    let mut own = leg.clone();
    let authority = leg.proxy_route.proxy().map_or("", |proxy| &proxy.authority);
    let port = authority.rsplit_once(':').map(|(_, port)| port.parse());
    own.endpoint = Endpoint {
        scheme: Scheme::Https,
        host: leg.dialled(),
        port: port.and_then(Result::ok).unwrap_or_default(),
    };
    own.tls = leg.proxy_tls.clone().unwrap_or(own.tls);
    own
}

/// Where the walk to the proxy or through it ended.
fn failure(leg: &Leg) -> Option<(Phase, String)> {
    let proxy = leg.proxy_route.proxy()?;
    let name = &proxy.authority;
    if let Some(fault) = leg.resolve.outcome.fault() {
        let says = format!("the proxy's own name {name}: {fault}");
        return Some((Phase::Resolve, says));
    }
    if let Some(fault) = leg.connect.outcome.fault() {
        let says = format!("the proxy {name} can't be connected to: {fault}");
        return Some((Phase::Connect, says));
    }
    let fault = leg.tunnel.as_ref()?.fault()?;
    Some((Phase::Proxy, fault.to_string()))
}

/// What the same walk without the proxy came to, if it was made. A proxy of containerd's own that does
/// not open the way fails the pull, whatever is behind it.
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
        return finding.fact("without the proxy the same walk comes to its end");
    }
    let root = without.findings.first();
    let root = root.map_or("for no reason on record", |root| root.cause.code());
    finding
        .confidence(confidence)
        .fact(format!("without the proxy the walk fails as well: {root}"))
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
            "If it is an HTTP proxy, write http://HOST:PORT; releases of Go differ in what they make of other schemes, and {scheme} is not spoken here. To see the rest, probe without it."
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
            "Put a user and password that {proxy} takes into {} of containerd's service.",
            proxy.variable
        ),
        Some(ProxyFault::Status { status, .. }) if *status >= 500 => format!(
            "Look at the log of {proxy} for {host}: it could not get there itself. If {host} should be reached directly, add it to NO_PROXY."
        ),
        Some(ProxyFault::Status { .. }) => format!(
            "Have {host} port {} allowed on {proxy}; or add {host} to NO_PROXY if it can be reached directly (--compare-direct tells).",
            leg.endpoint.port
        ),
        _ if phase == Phase::Proxy => format!("Look at the log of {proxy} for {host}."),
        _ => format!(
            "Correct {} in containerd's service, or start {proxy}; if {host} needs no proxy, add it to NO_PROXY (--compare-direct tells).",
            proxy.variable
        ),
    }
}

/// What to do where there is no TLS with the proxy.
fn tls_hint(evidence: &Evidence, leg: &Leg, proxy: &Proxy, fault: &TlsFault) -> String {
    let variable = &proxy.variable;
    match fault {
        TlsFault::PlainHttp
        | TlsFault::NotTls { .. }
        | TlsFault::Reset { .. }
        | TlsFault::Closed { .. }
        | TlsFault::Timeout { .. } => format!(
            "If the proxy has no TLS, write http://{} into {variable} of containerd's service; if it has, look at its log.",
            proxy.authority
        ),
        TlsFault::NameMismatch { .. } => format!(
            "Use a name of the certificate in {variable} of containerd's service, or have the certificate made out for '{}' too.",
            leg.dialled()
        ),
        _ => {
            let clock_first = tls::clock_first(evidence);
            let word = certificates::word(evidence, &of_proxy(leg), fault, clock_first);
            word.map_or_else(|| format!("Look at the log of {proxy}."), |word| word.hint)
        }
    }
}

/// A leg is closed that NO_PROXY keeps from the proxy.
pub(super) fn passed_by(_: &Evidence, leg: &Leg) -> Option<Finding> {
    let ProxyRoute::Excepted { entry, proxy } = &leg.proxy_route else {
        return None;
    };
    let (phase, fault) = match (leg.resolve.outcome.fault(), leg.connect.outcome.fault()) {
        (Some(fault), _) => (Phase::Resolve, format!("does not resolve: {fault}")),
        (_, Some(fault)) => (Phase::Connect, format!("can't be connected to: {fault}")),
        _ => return None,
    };
    Some(
        at(Cause::ProxyMisconfigured, leg.role, phase)
            .severity(Severity::Warning)
            .confidence(Confidence::Low)
            .fact(format!("the entry '{entry}' of NO_PROXY keeps {} from {proxy}", leg.endpoint))
            .fact(format!("directly it {fault}"))
            .hint(format!(
                "If {} is to be reached by the proxy, take '{entry}' out of NO_PROXY of containerd's service.",
                leg.endpoint.host
            )),
    )
}

/// A pull comes to its end by the proxy, and would without it: worth knowing, since a proxy bounds
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
        "{} by the proxy; directly they answer as well",
        joined(proxied.map(|leg| &leg.endpoint))
    )));
}
