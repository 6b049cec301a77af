//! Rules for TLS handshakes and clocks.

use jiff::{SignedDuration, Timestamp};

use super::certificates;
use super::finding::{alert_hint, at, new, written_in};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::{Finding, path};
use crate::model::endpoint::Role;
use crate::model::evidence::{ClockCheck, Evidence, Leg};
use crate::model::fault::{Phase, TlsFault, instant};
use crate::model::text::or;
use crate::model::units::HumanDuration;

/// Larger clock differences are reported. HTTP dates have whole seconds, and most services allow a minute's
/// leeway for tokens.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// A handshake that failed.
pub(super) fn handshake(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let fault = leg.tls.outcome.fault()?;
    let word = certificates::word(evidence, leg, fault, clock_first(evidence));
    let word = word.unwrap_or_else(|| of_connection(evidence, leg, fault));
    let cause = word.cause;
    let mut finding = Finding {
        leg: Some(leg.role),
        phase: Some(Phase::Tls),
        ..word
    }
    .fact(format!("{}: {fault}", leg.endpoint))
    .facts(facts(evidence, leg, fault, cause));
    // A server that does not speak TLS may be another one, where two networks use the address.
    if matches!(cause, Cause::TlsPlainHttp | Cause::TlsNotTls)
        && let Some(conflict) = path::declared_twice(evidence, leg)
    {
        finding = finding.unknown(format!("{conflict}: another host may answer there"));
    }
    let is_of_time = matches!(
        cause,
        Cause::TlsExpired | Cause::TlsNotYetValid | Cause::TlsRootExpired
    );
    let may_be_our_clock = is_of_time && !matches!(our_clock(evidence), OurClock::Agrees);
    if cause == Cause::TlsReset || may_be_our_clock {
        finding = finding.confidence(Confidence::Medium);
    }
    Some(finding)
}

/// The facts of a handshake that failed for this cause.
pub(super) fn facts(evidence: &Evidence, leg: &Leg, fault: &TlsFault, cause: Cause) -> Vec<String> {
    let mut facts = certificates::facts(leg);
    facts.extend(chain(leg, certificates::depends_on_roots(cause)));
    facts.extend(changed_bundle(evidence, leg));
    facts.extend(details(evidence, leg, fault));
    facts
}

/// Files of the CA bundle that containerd may not have read since they changed.
fn changed_bundle(evidence: &Evidence, leg: &Leg) -> impl Iterator<Item = String> {
    let changed = evidence.walk.roots.changed.iter().cloned();
    changed.filter(|_| leg.tls.depends_on_changed_roots)
}

/// Cause and hint for a fault that is not about a certificate.
fn of_connection(evidence: &Evidence, leg: &Leg, fault: &TlsFault) -> Finding {
    let host = &leg.endpoint.host;
    let authority = leg.endpoint.authority();
    let source = written_in(evidence, leg.role);
    match fault {
        TlsFault::PlainHttp if leg.role != Role::Registry => new(Cause::TlsPlainHttp).hint(format!(
            "Enable TLS at {authority}, or correct {source}: the server there speaks plain http."
        )),
        TlsFault::PlainHttp => new(Cause::TlsPlainHttp).hint(format!(
            "Enable TLS at {authority}; if it must stay without, set `server = \"http://{authority}\"` in certs.d/{authority}/hosts.toml on the nodes, and probe with --plain-http."
        )),
        TlsFault::NotTls { .. } => {
            new(Cause::TlsNotTls).hint(format!("Correct the port of {authority} in {source}."))
        }
        // Go offers cipher suites that rustls lacks, and the server reports no more.
        fault if fault.is_undecided() => new(Cause::TlsUndecided).hint(format!(
            "{} In any case, configure '{host}' to offer TLS 1.2 with ECDHE and AES-GCM, or TLS 1.3.",
            certificates::PULL_ON_THE_NODE
        )),
        TlsFault::Alert { alert, .. } => {
            new(Cause::TlsAlert).hint(alert_hint(*alert, &host.to_string(), &source))
        }
        TlsFault::Incompatible { .. } => new(Cause::TlsIncompatible),
        TlsFault::Reset { .. } | TlsFault::Closed { .. } => new(Cause::TlsReset),
        TlsFault::Timeout { .. } => new(Cause::TlsHang).hint(hang_hint(leg)),
        _ => new(Cause::Unexplained),
    }
}

/// A ClientHello of two packets is dropped while one of one packet is answered.
pub(super) fn large_hello(_: &Evidence, leg: &Leg) -> Option<Finding> {
    let trial = leg
        .large_hello
        .as_ref()
        .filter(|trial| trial.is_dropped())?;
    let (fault, short) = (trial.large.fault()?, trial.short.as_ref()?);
    let took = HumanDuration(short.took().unwrap_or_default());
    let mut finding = at(Cause::TlsLargeHello, leg.role, Phase::Tls)
        .fact(format!(
            "{} at {}, tried at {}: a ClientHello of {} bytes, which needs two packets: {fault}",
            leg.endpoint,
            trial.to,
            instant(trial.at),
            trial.bytes.0
        ))
        .fact(format!(
            "the usual one, which fits into one packet, was answered right after that, in {took}"
        ))
        .hint(format!(
            "Fix the firewall, filter or load balancer in front of {} that drops a ClientHello of two packets. It blocks clients that offer a post-quantum key share: containerd built with Go 1.24 or later (unless GODEBUG=tlsmlkem=0 is set for it), and browsers.",
            leg.endpoint.authority()
        ));
    if trial.in_a_row > 1 {
        finding = finding.fact(format!(
            "{} trials in a row had the same result",
            trial.in_a_row
        ));
    } else {
        finding = finding.confidence(Confidence::Medium);
    }
    Some(finding)
}

/// Small segments distinguish lost large packets from a filter: `advmss` limits the segments the peer sends,
/// `mtu` those of this machine (ip-route(8)).
fn hang_hint(leg: &Leg) -> String {
    match leg.connect.outcome.done() {
        Some(connected) => format!(
            "Lower the segment size for {0} and probe again (`ip route replace {0} via GATEWAY advmss 1200 mtu 1280`, as root): if the handshake then succeeds, clamp the MSS on the VPN, tunnel or Direct Connect; if not, look for a firewall that drops this server name.",
            connected.to.ip()
        ),
        None => "Check the MTU of the path (VPN, tunnel, Direct Connect: clamp the MSS there), then firewalls that inspect TLS.".to_owned(),
    }
}

/// The presented chain, for comparison; the whole SHA-256 only if it matters.
fn chain(leg: &Leg, is_to_be_compared: bool) -> Vec<String> {
    leg.tls
        .chain
        .iter()
        .take(3)
        .map(|c| {
            format!(
                "presented: {} issued by {}, valid {} to {}, SHA-256 {}",
                or(&c.subject, "a certificate without a subject"),
                or(&c.issuer, "an issuer without a name"),
                instant(c.not_before),
                instant(c.not_after),
                if is_to_be_compared {
                    &c.sha256
                } else {
                    c.sha256.get(..16).unwrap_or(&c.sha256)
                }
            )
        })
        .collect()
}

fn details(evidence: &Evidence, leg: &Leg, fault: &TlsFault) -> Vec<String> {
    match fault {
        TlsFault::UnknownIssuer { .. } => {
            let mut facts = vec![format!(
                "{} roots are trusted, from {}",
                evidence.walk.roots.certificates,
                or(&evidence.walk.roots.sources.join(", "), "no source")
            )];
            facts.extend(certificates::signed_by(leg));
            facts
        }
        TlsFault::NoRoots => evidence.walk.roots.problems.clone(),
        // Alerts handshake_failure and insufficient_security: Go offers AES-CBC with ECDHE, rustls does not.
        TlsFault::Alert { alert: 40 | 71, .. } => {
            vec!["containerd also offers AES-CBC with ECDHE, and older builds offer RSA key exchange and 3DES; this program supports none of them, and a server that supports nothing else responds like this".to_owned()]
        }
        TlsFault::Expired { local_time, .. } | TlsFault::NotYetValid { local_time, .. } => {
            let clock = match our_clock(evidence) {
                OurClock::Unchecked => {
                    "the clock was not checked: no response with a Date could be trusted".to_owned()
                }
                OurClock::Differs { check, .. } => {
                    format!("a verified server's clock shows {}", instant(check.server))
                }
                OurClock::Agrees => "the clock agrees with that of a verified server".to_owned(),
            };
            let mut facts = vec![format!("local time is {}", instant(*local_time)), clock];
            let mut above = leg.tls.chain.iter().skip(1).peekable();
            let is_early = above.peek().is_some() && above.all(|ca| ca.not_before > *local_time);
            if matches!(fault, TlsFault::NotYetValid { .. }) && is_early {
                facts.push("by the local time, the certificates of its CA are not valid yet either: the clock here is probably behind".to_owned());
            }
            facts
        }
        TlsFault::NameMismatch {
            expected,
            presented,
        } => {
            let covers_less = |name: &&String| {
                let parent = name.strip_prefix("*");
                parent.is_some_and(|parent| expected.ends_with(parent))
            };
            let wildcard = presented.iter().find(covers_less);
            Vec::from_iter(wildcard.map(|name| {
                format!("'{name}' covers one label only, and '{expected}' has more in its place")
            }))
        }
        _ => Vec::new(),
    }
}

/// Precedes a hint that is wrong if this machine's clock is.
pub(super) fn clock_first(evidence: &Evidence) -> &'static str {
    match our_clock(evidence) {
        OurClock::Agrees => "",
        _ => "First compare the local time above with a time server. ",
    }
}

/// A server certificate that expires soon: less than a sixth of its life and less than 30 days remain.
pub(super) fn expiring(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    const MOST: i64 = 30 * 86_400;
    let leaf = leg.tls.chain.first()?;
    leg.tls.outcome.done()?;
    let life = leaf.not_after.as_second() - leaf.not_before.as_second();
    let left = leaf.not_after.as_second() - evidence.started.as_second();
    (left < life / 6 && left < MOST).then(|| {
        at(Cause::TlsExpiring, leg.role, Phase::Tls).fact(format!(
            "{}: the certificate expires at {}, {} of {} remain",
            leg.endpoint,
            instant(leaf.not_after),
            days(left),
            days(life)
        ))
    })
}

fn days(seconds: i64) -> String {
    if seconds < 2 * 86_400 {
        format!("{} hours", seconds / 3600)
    } else {
        format!("{} days", seconds / 86_400)
    }
}

fn is_skewed(check: &ClockCheck) -> bool {
    check.server.duration_since(check.local).abs() > SKEW
}

/// What the servers' responses show about this machine's clock.
enum OurClock<'a> {
    Unchecked,
    Agrees,
    /// Every server that sent its time differs; `servers` is their number.
    Differs {
        check: &'a ClockCheck,
        servers: usize,
    },
}

/// The checks that count. A cache passes on the Date of its origin (RFC 9111, 4.2.3), so an old one from
/// storage shows nothing.
fn checks(evidence: &Evidence) -> impl Iterator<Item = (&Leg, &ClockCheck)> {
    evidence
        .walk
        .legs
        .iter()
        .filter_map(|leg| Some((leg, leg.clock.as_ref()?)))
        .filter(|(leg, check)| {
            leg.role != Role::Blob || !is_skewed(check) || check.server > check.local
        })
}

/// One server with the same time shows that this machine's clock is right: two clocks are not wrong alike.
fn our_clock(evidence: &Evidence) -> OurClock<'_> {
    let servers = checks(evidence).count();
    match checks(evidence).next() {
        None => OurClock::Unchecked,
        Some(_) if checks(evidence).any(|(_, check)| !is_skewed(check)) => OurClock::Agrees,
        Some((_, check)) => OurClock::Differs { check, servers },
    }
}

/// The difference between the clocks of two legs' servers in seconds, if it is over a minute.
pub(super) fn apart(evidence: &Evidence, one: Role, other: Role) -> Option<u64> {
    let ahead = |role| {
        let (_, check) = checks(evidence).find(|(leg, _)| leg.role == role)?;
        Some(check.server.duration_since(check.local))
    };
    let apart = (ahead(one)? - ahead(other)?).abs();
    (apart > SKEW).then(|| apart.unsigned_abs().as_secs())
}

/// Clocks that differ. Critical if the rejected certificate is valid at the server's time.
pub(super) fn clock(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let differs = |check: &ClockCheck| {
        let ahead = check.local.duration_since(check.server);
        let direction = if ahead.is_positive() {
            "ahead of"
        } else {
            "behind"
        };
        format!(
            "local time {}, server's Date {}: this machine's clock is {} {direction} the server's",
            instant(check.local),
            instant(check.server),
            HumanDuration(ahead.unsigned_abs())
        )
    };
    match our_clock(evidence) {
        OurClock::Unchecked => {}
        OurClock::Agrees => {
            for (leg, check) in checks(evidence).filter(|(_, check)| is_skewed(check)) {
                let endpoint = &leg.endpoint;
                let finding = new(Cause::ClockSkew)
                    .fact(format!("{endpoint}: {}", differs(check)))
                    .fact("another server of this pull agrees with this machine's clock")
                    .hint(format!(
                        "Fix NTP at {endpoint}, or at the proxy that responds for it."
                    ));
                let leg = Some(leg.role);
                findings.push(Finding { leg, ..finding });
            }
        }
        OurClock::Differs { check, servers } => {
            let mut legs = evidence.walk.legs.iter();
            let explains = legs.any(|leg| is_explained(leg, check.server));
            let mut finding = new(Cause::ClockSkew).fact(differs(check));
            finding = if servers > 1 {
                finding.fact(format!(
                    "all {servers} servers of this pull that sent their time differ from this machine's clock"
                ))
            } else {
                finding.confidence(Confidence::Medium).fact(
                    "only one server sent its time: which of the two clocks is wrong is unknown",
                )
            };
            if explains {
                finding = finding
                    .severity(Severity::Critical)
                    .fact("at the server's time, the rejected certificate is valid");
            }
            findings.push(finding);
        }
    }
}

fn is_explained(leg: &Leg, time: Timestamp) -> bool {
    let is_time_fault = matches!(
        leg.tls.outcome.fault(),
        Some(TlsFault::Expired { .. } | TlsFault::NotYetValid { .. })
    );
    let bad = leg.tls.bad_link.as_ref().map(|link| &link.certificate);
    is_time_fault
        && bad
            .or(leg.tls.chain.first())
            .is_some_and(|one| one.not_before <= time && time <= one.not_after)
}
