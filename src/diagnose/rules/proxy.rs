//! Rules for proxies: one that does not connect, and one that NO_PROXY bypasses although it is needed.

use std::collections::BTreeSet;

use super::certificates::{self, PULL_ON_THE_NODE};
use super::finding::{Judge, at, new, server};
use super::outcome::pull;
use super::{in_force, tls};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::{Finding, Pull};
use crate::model::endpoint::{Endpoint, Scheme, split_host_port};
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{Phase, ProxyFault, TcpFault, TlsFault};
use crate::model::proxy::{IgnoredVariable, MissedException, Proxy, ProxyRoute, written_as};
use crate::model::step::Step;
use crate::model::text::{joined, or};
use crate::model::vantage::NetworkView;

/// Where the proxy settings are from, for a sentence.
fn source_of(evidence: &Evidence) -> &str {
    or(&evidence.proxies.source, "settings of an unknown source")
}

/// The proxy of a leg does not connect to the leg's server.
pub(super) fn closed(evidence: &Evidence, findings: &mut Vec<Finding>, judge: Judge) {
    let legs = evidence.walk.legs.iter();
    findings.extend(legs.filter_map(|leg| closed_at(evidence, leg, judge)));
}

fn closed_at(evidence: &Evidence, leg: &Leg, judge: Judge) -> Option<Finding> {
    let ProxyRoute::Proxied { proxy, missed } = &leg.proxy_route else {
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
    let go = if matches!(tunnel, Some(ProxyFault::Misread { .. })) {
        "should go"
    } else {
        "go"
    };
    let mut finding = at(cause, leg.role, phase)
        .fact(format!(
            "requests to {} {go} through {proxy}, according to {} in {}; no entry of NO_PROXY matches",
            leg.endpoint,
            proxy.variable,
            source_of(evidence)
        ))
        .fact(fault)
        .facts(altered(evidence, proxy).map(ToString::to_string))
        .facts(missed.iter().map(unmatched));
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

/// What systemd makes of the variable that sets a proxy, if it is not what is written.
fn altered<'a>(evidence: &'a Evidence, proxy: &Proxy) -> Option<&'a IgnoredVariable> {
    let mut ignored = evidence.proxies.ignored.iter();
    ignored.find(|one| {
        one.variable
            .split(" and ")
            .any(|name| name == proxy.variable)
    })
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
    let missed = leg.proxy_route.missed();
    match fault {
        Some(ProxyFault::Unsupported { scheme }) => format!(
            "Write http://HOST:PORT if it is an HTTP proxy: Go releases treat other schemes differently, and this program does not support {scheme}. To check the rest, probe without the proxy."
        ),
        Some(ProxyFault::Misread {
            variable,
            character,
            encoded,
        }) => written_as(variable, character, encoded),
        Some(ProxyFault::Cgi { variable }) => format!(
            "Remove REQUEST_METHOD from the environment of containerd's service, or {variable} if {host} needs no proxy; then restart containerd."
        ),
        Some(_) if is_changed => in_force::RESTART.to_owned(),
        Some(ProxyFault::Undecided { .. }) if proxy.fault.is_some() && !is_plain(proxy) => {
            write_plainly(proxy)
        }
        Some(_) if proxy.fault.is_some() => format!(
            "Write {}://{} into {} of containerd's service{}.",
            if proxy.scheme.starts_with("socks") {
                "socks5"
            } else {
                "http"
            },
            proxy.authority,
            proxy.variable,
            if missed.is_empty() {
                ""
            } else {
                ", and host names or whole addresses into NO_PROXY"
            }
        ),
        Some(fault) if fault.is_undecided() => PULL_ON_THE_NODE.to_owned(),
        _ if !missed.is_empty() => instead(&[leg]),
        _ if is_direct_good(evidence, judge) => format!(
            "Add {host} to NO_PROXY{}.",
            if evidence.proxies.is_containerds {
                format!(" in {}, then restart containerd", evidence.proxies.source)
            } else {
                " of containerd's service, if it has the same settings as this process".to_owned()
            }
        ),
        Some(ProxyFault::Tls { fault }) => tls_hint(evidence, leg, proxy, fault),
        Some(ProxyFault::Status { status: 407, .. } | ProxyFault::Socks { reply: None, .. })
            if let Some(line) = altered(evidence, proxy) =>
        {
            line.hint.clone()
        }
        Some(ProxyFault::Status { status: 407, .. }) => format!(
            "Put a user and password that {proxy} accepts into {} of containerd's service.",
            proxy.variable
        ),
        Some(ProxyFault::Socks { reply: Some(2), .. }) => format!(
            "Allow {host} port {} on {proxy}; or add {host} to NO_PROXY if it can be reached directly (--compare-direct shows that).",
            leg.endpoint.port
        ),
        Some(ProxyFault::Socks {
            reply: None,
            reason,
        }) => format!(
            "Check {} of containerd's service: whether a SOCKS5 proxy listens at {}, with that user and password ({reason}).",
            proxy.variable, proxy.authority
        ),
        Some(ProxyFault::Socks { .. }) => format!(
            "Check the log of {proxy} for {host}: the proxy could not reach it. If {host} should be reached directly, add it to NO_PROXY."
        ),
        Some(ProxyFault::Status { status, .. }) if *status >= 500 => format!(
            "Check the log of {proxy} for {host}: the proxy could not reach it. If {host} should be reached directly, add it to NO_PROXY."
        ),
        Some(ProxyFault::Status { .. }) => format!(
            "Allow {host} port {} on {proxy}; or add {host} to NO_PROXY if it can be reached directly (--compare-direct shows that).",
            leg.endpoint.port
        ),
        _ if phase == Phase::Proxy => format!("Check the log of {proxy} for {host}."),
        _ if !is_plain(proxy) => {
            altered(evidence, proxy).map_or_else(|| write_plainly(proxy), |line| line.hint.clone())
        }
        _ => format!(
            "Correct {} in containerd's service, or start {proxy}; if {host} needs no proxy, add it to NO_PROXY (--compare-direct shows that).",
            proxy.variable
        ),
    }
}

/// Whether what Go takes for a proxy's host and port can be what is meant: not the rest of a URL that it can't read.
fn is_plain(proxy: &Proxy) -> bool {
    split_host_port(&proxy.authority).is_some_and(|(host, port)| {
        let is_rest = matches!(host, "" | "http" | "https" | "socks5");
        !is_rest && port != "0"
    })
}

fn write_plainly(proxy: &Proxy) -> String {
    format!(
        "Write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT into {} of containerd's service, with special characters of the user and password as %XX (in a systemd unit as %%XX); then restart containerd.",
        proxy.variable
    )
}

/// Whether the same check without the proxy was made, and succeeds.
fn is_direct_good(evidence: &Evidence, judge: Judge) -> bool {
    let direct = evidence.direct.as_deref();
    direct.is_some_and(|direct| judge(&evidence.at(direct)).pull == Pull::WouldSucceed)
}

fn unmatched(missed: &MissedException) -> String {
    let MissedException { entry, reason } = missed;
    format!("the entry '{entry}' of NO_PROXY does not match: {reason}")
}

/// Texts in order, each once.
fn unique(texts: impl Iterator<Item = String>) -> String {
    joined(texts.collect::<BTreeSet<String>>())
}

/// The entries of `NO_PROXY` that do not match the servers of these legs.
fn entries(legs: &[&Leg]) -> String {
    let missed = legs.iter().flat_map(|leg| leg.proxy_route.missed());
    unique(missed.map(|one| format!("'{}'", one.entry)))
}

/// The hint for entries of `NO_PROXY` that do not match.
fn instead(legs: &[&Leg]) -> String {
    let hosts = unique(legs.iter().map(|leg| leg.endpoint.host.to_string()));
    let entries = entries(legs);
    format!(
        "Write {hosts} into NO_PROXY of containerd's service, in place of {entries} or beside it, and restart containerd; \
         or remove {entries} if the proxy should be used."
    )
}

fn is_reached(leg: &Leg) -> bool {
    let tls = leg.tls.outcome.fault().is_some();
    unreached(leg).is_none() && !tls
}

/// Legs use the proxy although entries of `NO_PROXY` seem to mean their servers.
pub(super) fn missed(evidence: &Evidence, findings: &mut Vec<Finding>, judge: Judge) {
    // If the connection failed, that finding has the entries.
    let is_missed = |leg: &&Leg| !leg.proxy_route.missed().is_empty() && failure(leg).is_none();
    let legs: Vec<&Leg> = evidence.walk.legs.iter().filter(is_missed).collect();
    let Some(first) = legs.first() else {
        return;
    };
    let (severity, confidence, compared) = match evidence.direct.as_deref() {
        None => (Severity::Warning, Confidence::Medium, None),
        Some(_) if is_direct_good(evidence, judge) => {
            let fact = "without the proxy, the same check succeeds";
            (Severity::Warning, Confidence::High, Some(fact))
        }
        // What fails on both ways behind the connection, such as a credential, does not decide between them.
        Some(direct) if evidence.walk.failure().is_some() && direct.legs.iter().all(is_reached) => {
            let fact = "without the proxy, the servers can be reached as well";
            (Severity::Warning, Confidence::Medium, Some(fact))
        }
        Some(_) => {
            let fact =
                "without the proxy, the check does not succeed: it is good that they do not match";
            (Severity::Info, Confidence::High, Some(fact))
        }
    };
    let source = source_of(evidence);
    let through = |proxy: &Proxy| {
        let endpoints = joined(legs.iter().map(|leg| &leg.endpoint));
        format!(
            "requests to {endpoints} go through {proxy}, according to {} in {source}",
            proxy.variable
        )
    };
    let missed = legs.iter().flat_map(|leg| leg.proxy_route.missed());
    let mut facts: Vec<String> = missed.map(unmatched).collect();
    facts.dedup();
    findings.push(Finding {
        leg: Some(first.role),
        ..new(Cause::ProxyMisconfigured)
            .severity(severity)
            .confidence(confidence)
            .facts(first.proxy_route.proxy().map(through))
            .facts(facts)
            .facts(compared.map(str::to_owned))
            .hint(if severity == Severity::Info {
                let entries = entries(&legs);
                format!("Remove {entries} from NO_PROXY of containerd's service: these servers need the proxy.")
            } else {
                instead(&legs)
            })
    });
}

/// A proxy is set in a way in which containerd does not use it: the cause if a server can't be reached directly, and
/// otherwise a remark.
pub(super) fn unused(evidence: &Evidence) -> Option<Finding> {
    let legs = evidence.walk.legs.iter();
    let mut legs: Vec<&Leg> = legs
        .filter(|leg| leg.proxy_route == ProxyRoute::Direct)
        .collect();
    legs.sort_by_key(|leg| unreached(leg).is_none());
    unused_at(evidence, legs.first()?)
}

/// Why a leg's server is not reached; `None` if it is.
fn unreached(leg: &Leg) -> Option<String> {
    let resolve = leg.resolve.outcome.fault().map(ToString::to_string);
    resolve.or_else(|| leg.connect.outcome.fault().map(ToString::to_string))
}

fn unused_at(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let proxies = &evidence.proxies;
    let host = &leg.endpoint.host;
    let scheme = match leg.endpoint.scheme {
        Scheme::Https => "https",
        Scheme::Http => "http",
    };
    let fault = unreached(leg);
    let found = |severity, confidence| Finding {
        leg: Some(leg.role),
        ..new(Cause::ProxyMisconfigured)
            .severity(severity)
            .confidence(confidence)
            .fact(format!(
                "requests to {} go directly, without a proxy",
                leg.endpoint
            ))
            .facts(fault.as_ref().map(|fault| format!("that fails: {fault}")))
    };
    let of_scheme = proxies.ignored.iter().filter(|one| one.is_proxy_of(scheme));
    let (general, mistakes): (Vec<_>, Vec<_>) =
        of_scheme.partition(|one| one.variable.eq_ignore_ascii_case("all_proxy"));
    if let Some(mistake) = mistakes.first() {
        let severity = if fault.is_some() {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let is_known = proxies.is_containerds && fault.is_some();
        return Some(
            found(severity, Confidence::high_if(is_known))
                .facts(mistakes.iter().map(ToString::to_string))
                .hint(mistake.hint.clone()),
        );
    }
    // These may be set for other programs. A server that refuses is reached.
    let is_refused = matches!(
        leg.connect.outcome.fault(),
        Some(TcpFault::Refused { icmp: None })
    );
    if fault.is_none() || is_refused {
        return None;
    }
    let found = found(Severity::Critical, Confidence::Medium);
    if let Some(general) = general.first() {
        return Some(found.fact(general.to_string()).hint(format!(
            "Set {}_PROXY in containerd's service to the proxy of {}, and restart containerd, if {host} should be reached through it.",
            scheme.to_uppercase(), general.variable
        )));
    }
    let http = proxies.http.as_ref().filter(|_| scheme == "https")?;
    Some(
        found
            .fact(format!(
                "{} is set in {}, but Go uses it for http:// alone, and HTTPS_PROXY is not set",
                http.variable, proxies.source
            ))
            .hint(format!(
                "Set HTTPS_PROXY to the same proxy ({http}) in containerd's service, and restart containerd, if {host} should be reached through it."
            )),
    )
}

/// Whether a finding is of a proxy that is set and not used where the server can't be reached directly: what the leg
/// meets without the proxy is a consequence.
pub(super) fn is_unused(finding: &Finding) -> bool {
    finding.cause == Cause::ProxyMisconfigured
        && finding.phase.is_none()
        && finding.severity == Severity::Critical
}

/// Names the proxy that a leg's connection goes through, where it may be what cuts or slows the connection.
pub(super) fn name(evidence: &Evidence, finding: &mut Finding) {
    use Cause::{
        BwCap, BwLoss, BwPerFlow, BwRemote, BwThrottle, BwWindow, HttpTimeout, Intermittent,
        MtuBlackhole, PullNoProgress, TcpReset, ThroughputLow, TlsHang, TlsReset, TtfbSlow,
        UnexpectedEof,
    };
    let is_cut = matches!(
        finding.cause,
        HttpTimeout | Intermittent | MtuBlackhole | PullNoProgress | TcpReset | TlsHang | TlsReset
    );
    let is_of_rate = matches!(
        finding.cause,
        BwCap | BwLoss | BwPerFlow | BwRemote | BwThrottle | BwWindow | ThroughputLow | TtfbSlow
    );
    let is_early_end = finding.cause == UnexpectedEof;
    let Some(role) = finding.leg.filter(|_| is_cut || is_of_rate || is_early_end) else {
        return;
    };
    let leg = evidence.walk.legs_of(role).last();
    let Some(proxy) = leg.and_then(|leg| leg.proxy_route.proxy()) else {
        return;
    };
    let proxy = &proxy.authority;
    if is_of_rate {
        finding.evidence.push(format!(
            "measured through the proxy {proxy}: the limit may be its own, or on either side of it"
        ));
        return;
    }
    finding.evidence.push(format!(
        "the connection goes through the proxy {proxy}, which may have caused this"
    ));
    finding.hint = if is_early_end {
        format!(
            "Check the log of the proxy {proxy} and its limits for the size and duration of downloads; then those of the load balancer in front of {}.",
            server(evidence, role)
        )
    } else {
        format!("Check the log of the proxy {proxy} first. {}", finding.hint)
    };
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
    // An operator who meant to exclude them has a finding.
    if legs.clone().any(|leg| !leg.proxy_route.missed().is_empty()) {
        return;
    }
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
