//! The rules, each in both directions: a finding appears in its case, and nothing besides it; a
//! healthy check and its harmless variants have none.

use std::time::Duration;

use proptest::prelude::*;

use crate::diagnose::fixture::{
    AUTH, BLOBS, REGISTRY, accepted, blocked, certificate, clock, credential, days_from_now, dial,
    dialed, done, endpoint, failed, grant, healthy, leg, now, query, resolved, secret, server,
    status,
};
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::{Finding, Pull, Verdict};
use crate::model::connect::Session;
use crate::model::credential::{
    CredentialId, CredentialSource, KeyMismatch, KeyringEvidence, Lint, LintRule, MatchRule,
    SourceEvidence, SourceProblem,
};
use crate::model::endpoint::{Role, Scheme};
use crate::model::evidence::{Access, Challenge, Evidence, HeadResponse, LargeHello, RateLimit};
use crate::model::fault::{
    Distrust, DnsFault, HttpFault, IcmpError, ManifestFault, Phase, TcpFault, TlsFault, TokenFault,
};
use crate::model::hosts::HostKind;
use crate::model::network::{Provider, ProviderBy, ProviderSign};
use crate::model::resolve::{Family, Resolution, ResolutionSource, Resolve};
use crate::model::resolver::ResolverSettings;
use crate::model::step::{Skip, Step};
use crate::model::units::Bytes;
use crate::model::vantage::{NetworkView, NotObserved};

mod answers;
mod certificates;
mod empty_places;
mod lookups;
mod name_servers;
mod paths;
mod pins;
mod settings;

const OK: Severity = Severity::Info;
use Severity::{Critical, Info, Warning};

/// Judges a fixture; whatever it is, no finding is more certain than its own evidence.
fn judge(evidence: &Evidence) -> Verdict {
    let verdict = super::judge(evidence);
    for finding in verdict.findings.iter().chain(&verdict.consequences) {
        if finding.confidence == Confidence::High {
            let is_critical = finding.severity == Critical;
            assert!(
                !is_critical || verdict.pull != Pull::Unknown,
                "certain of an unknown pull: {finding:#?}"
            );
            let open = finding.evidence.iter().find(|fact| is_open(fact));
            assert_eq!(open, None, "certain of what was not seen: {finding:#?}");
        }
    }
    verdict
}

/// Whether a fact says that something was not seen that could change the finding.
fn is_open(fact: &str) -> bool {
    // A setting is what it is, whatever the host with it serves.
    let is_of_skip_verify =
        fact.ends_with("none was sent there: whether it serves the image is unknown");
    // What it costs a pull depends on the release; the finding does not.
    let is_cost = fact.contains("(an estimate: ");
    !is_of_skip_verify
        && !is_cost
        && [
            "is unknown",
            "are unknown",
            "is not known",
            "not observed",
            "can't be observed",
            "as far as observed",
            "does not show whether",
        ]
        .iter()
        .any(|words| fact.contains(words))
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings
        .iter()
        .map(|finding| finding.cause.code())
        .collect()
}

fn is_sound(verdict: &Verdict) {
    for finding in verdict.findings.iter().chain(&verdict.consequences) {
        assert!(!finding.evidence.is_empty(), "no evidence: {finding:?}");
        assert!(
            finding.evidence.iter().all(|fact| !fact.trim().is_empty()),
            "{finding:?}"
        );
        assert!(
            finding.hint.len() > 20 && !finding.hint.contains('\n'),
            "no hint: {finding:?}"
        );
    }
    let worst = verdict.findings.iter().map(|f| f.severity).max();
    assert_eq!(
        verdict.pull == Pull::WouldSucceed,
        worst < Some(Critical),
        "{verdict:#?}"
    );
    assert!(
        verdict.consequences.is_empty() || !verdict.findings.is_empty(),
        "{verdict:#?}"
    );
    for consequence in &verdict.consequences {
        assert!(consequence.severity <= worst.unwrap(), "{verdict:#?}");
    }
}

/// The one finding that is left, with the facts and hint it must have.
fn only(evidence: &Evidence, code: &str, severity: Severity) -> Finding {
    let verdict = judge(evidence);
    is_sound(&verdict);
    assert_eq!(codes(&verdict.findings), [code], "{verdict:#?}");
    let finding = verdict.findings[0].clone();
    assert_eq!(finding.severity, severity, "{finding:#?}");
    if severity < Critical {
        assert_eq!(verdict.pull, Pull::WouldSucceed);
    }
    finding
}

fn says(finding: &Finding, texts: &[&str]) {
    let all = format!("{}\n{}", finding.evidence.join("\n"), finding.hint);
    for text in texts {
        assert!(all.contains(text), "'{text}' is not in:\n{all}");
    }
}

fn quiet(evidence: &Evidence) {
    let verdict = judge(evidence);
    assert_eq!(codes(&verdict.findings), [""; 0], "{verdict:#?}");
    assert!(verdict.consequences.is_empty(), "{verdict:#?}");
    assert_eq!(verdict.pull, Pull::WouldSucceed);
}

#[test]
fn a_healthy_walk_has_no_finding() {
    quiet(&healthy());
}

#[test]
fn harmless_variants_of_a_healthy_walk_have_none() {
    let mut plain = healthy();
    for leg in &mut plain.walk.legs {
        leg.endpoint.scheme = Scheme::Http;
        leg.tls.chain.clear();
        leg.tls.outcome = Step::Skipped {
            reason: Skip::NotNeeded,
        };
    }
    plain.walk.blob = healthy().walk.blob;
    quiet(&plain);

    // The storage is the registry itself, or there is no layer.
    let mut direct = healthy();
    direct.walk.legs.truncate(2);
    direct.walk.blob = Step::Skipped {
        reason: Skip::NoLayer,
    };
    quiet(&direct);

    // A public image, pulled anonymously; keys for other registries are no fault.
    let mut public = healthy();
    public.walk.attempts = vec![accepted(None)];
    public.keyring.candidates.clear();
    public.keyring.mismatches = vec![mismatch("ghcr.io", MatchRule::Labels { key: 2, image: 3 })];
    quiet(&public);

    // `/v2/` itself is closed, which containerd never requests.
    let mut closed = healthy();
    closed.walk.ping = failed(status(403, None, false));
    quiet(&closed);

    // A question lost once, and answered when it was put again.
    let mut lost = healthy();
    let queries = &mut lost.leg_mut(Role::Registry).resolve.queries;
    queries.insert(0, query(2, REGISTRY, Family::V4, Err(DnsFault::Timeout)));
    quiet(&lost);

    // A name of both families on a host with IPv4 only: IPv6 is never dialed.
    let mut v4 = healthy();
    v4.leg_mut(Role::Registry).connect = dialed(vec![
        dial("10.0.3.9", None),
        dial("2001:db8::9", Some(TcpFault::NetUnreachable { icmp: None })),
    ]);
    quiet(&v4);

    // Two servers that balance load, and a short name that is meant to be completed.
    let mut balanced = healthy();
    let blob = &mut balanced.leg_mut(Role::Blob).resolve;
    blob.queries
        .push(query(3, BLOBS, Family::V4, Ok(&["198.51.100.7"])));
    quiet(&balanced);
    let mut short = healthy();
    *short.leg_mut(Role::Registry) = leg(Role::Registry, "registry", "10.0.3.9");
    let found = resolved("registry.corp.example", &["10.0.3.9"]);
    short.leg_mut(Role::Registry).resolve = found;
    quiet(&short);

    // A limit with room, a clock that is half a minute off, a cache that hands on an old Date.
    let mut limit = healthy();
    limit.walk.rate_limit = Some(rate_limit(76));
    limit.leg_mut(Role::Registry).clock = clock(31);
    limit.leg_mut(Role::Blob).clock = clock(-86_400);
    quiet(&limit);

    // A long-lived certificate in its last sixth, with months to go; one of a day, half over.
    let mut certificates = healthy();
    let chain = certificate(REGISTRY, days_from_now(-3600), days_from_now(90));
    certificates.leg_mut(Role::Registry).tls.chain = vec![chain];
    certificates.leg_mut(Role::Token).tls.chain =
        vec![certificate(AUTH, days_from_now(-1), days_from_now(1))];
    quiet(&certificates);
}

// ---- names --------------------------------------------------------------------------------------

fn asked(fault: &DnsFault) -> Vec<crate::model::resolve::Query> {
    vec![
        query(2, REGISTRY, Family::V4, Err(fault.clone())),
        query(2, REGISTRY, Family::V6, Err(fault.clone())),
    ]
}

#[test]
fn each_way_not_to_resolve_has_its_cause() {
    let unreachable = DnsFault::Unreachable {
        error: "network is unreachable".to_owned(),
    };
    for (fault, code) in [
        (DnsFault::NxDomain, "dns_nxdomain"),
        (DnsFault::NoData, "dns_nodata"),
        (DnsFault::Timeout, "dns_timeout"),
        (DnsFault::ServFail, "dns_servfail"),
        (DnsFault::Refused, "dns_refused"),
        (DnsFault::PortClosed, "dns_server_unreachable"),
        (unreachable, "dns_server_unreachable"),
        (
            DnsFault::Malformed {
                reason: "cut off".to_owned(),
            },
            "dns_error",
        ),
    ] {
        let evidence = healthy().unresolved(Role::Registry, asked(&fault), fault);
        let finding = only(&evidence, code, Critical);
        says(&finding, &[REGISTRY, "10.0.0.2"]);
        assert_eq!(judge(&evidence).pull, Pull::WouldFail);
        assert_eq!(
            (finding.leg, finding.phase),
            (Some(Role::Registry), Some(Phase::Resolve))
        );
        assert_eq!(finding.confidence, Confidence::High);
    }
    let mut short =
        healthy().unresolved(Role::Registry, asked(&DnsFault::Timeout), DnsFault::Timeout);
    let timeout = |seconds| {
        Some(Box::new(ResolverSettings {
            timeout: Duration::from_secs(seconds),
            nameservers: vec![server(2)],
            ..ResolverSettings::default()
        }))
    };
    short.vantage.resolver = timeout(1);
    let finding = only(&short, "dns_timeout", Critical);
    says(
        &finding,
        &["allows 1.0 s for an answer", "raise its 'timeout'"],
    );
    short.vantage.resolver = timeout(5);
    let finding = only(&short, "dns_timeout", Critical);
    assert!(
        finding.hint.starts_with("Run `dig +tcp"),
        "{}",
        finding.hint
    );
    let none = healthy().unresolved(Role::Registry, Vec::new(), DnsFault::NoServers);
    only(&none, "dns_server_unreachable", Critical);
}

#[test]
fn a_silent_server_may_know_the_name_that_another_does_not() {
    let of = |queries| {
        let evidence = healthy().unresolved(Role::Registry, queries, DnsFault::NxDomain);
        only(&evidence, "dns_nxdomain", Critical)
    };
    let family = Family::V4;
    let finding = of(vec![
        query(2, REGISTRY, family, Err(DnsFault::Timeout)),
        query(3, REGISTRY, family, Err(DnsFault::NxDomain)),
    ]);
    says(
        &finding,
        &[
            "10.0.0.2 gave no usable answer, and may know the name",
            "If the zone of 'registry.example.com' is on 10.0.0.2, make that server answer",
            "forward it on 10.0.0.3.",
        ],
    );
    assert_eq!(finding.confidence, Confidence::Medium);
    let finding = of(vec![
        query(2, REGISTRY, family, Err(DnsFault::NxDomain)),
        query(3, REGISTRY, family, Err(DnsFault::NxDomain)),
    ]);
    assert!(finding.hint.starts_with("Compare"), "{}", finding.hint);
    assert_eq!(finding.confidence, Confidence::High);
}

#[test]
fn a_verdict_on_names_is_medium_where_the_node_has_another_resolver() {
    let unresolved = |unseen: &[NotObserved]| {
        let fault = DnsFault::NxDomain;
        let mut evidence = healthy().unresolved(Role::Registry, asked(&fault), fault);
        evidence.vantage.not_observed = unseen.to_vec();
        only(&evidence, "dns_nxdomain", Critical).confidence
    };
    assert_eq!(unresolved(&[NotObserved::NodeResolver]), Confidence::Medium);
    assert_eq!(unresolved(&[]), Confidence::High);
}

#[test]
fn servers_of_two_minds_are_split_horizon_and_not_a_wrong_name() {
    let queries = vec![
        query(2, REGISTRY, Family::V4, Err(DnsFault::NxDomain)),
        query(3, REGISTRY, Family::V4, Ok(&["10.0.3.9"])),
    ];
    let evidence = healthy().unresolved(Role::Registry, queries, DnsFault::NxDomain);
    let finding = only(&evidence, "dns_split_horizon", Critical);
    says(
        &finding,
        &["10.0.0.2 answers NXDOMAIN", "10.0.0.3 answers 10.0.3.9"],
    );

    let mut evidence = healthy();
    let queries = &mut evidence.leg_mut(Role::Registry).resolve.queries;
    queries.push(query(3, REGISTRY, Family::V4, Ok(&["203.0.113.9"])));
    says(
        &only(&evidence, "dns_split_horizon", Warning),
        &["a pull uses the answer of 10.0.0.2"],
    );
}

/// The registry's name, queried first at 10.0.0.2 and then at 10.0.0.3, which has the answer.
fn two_servers(first: &DnsFault) -> Evidence {
    let mut evidence = healthy();
    let resolve = &mut evidence.leg_mut(Role::Registry).resolve;
    resolve.queries = vec![
        query(2, REGISTRY, Family::V4, Err(first.clone())),
        query(2, REGISTRY, Family::V6, Err(first.clone())),
        query(3, REGISTRY, Family::V4, Ok(&["10.0.3.9"])),
        query(3, REGISTRY, Family::V6, Err(DnsFault::NoData)),
    ];
    resolve.outcome = done(Resolution {
        name: format!("{REGISTRY}."),
        addresses: vec!["10.0.3.9".parse().unwrap()],
        cnames: Vec::new(),
        source: ResolutionSource::Server { server: server(3) },
    });
    evidence
}

#[test]
fn a_dead_server_costs_time_only_before_the_one_that_answers() {
    let finding = only(&two_servers(&DnsFault::Timeout), "dns_timeout", Warning);
    says(
        &finding,
        &[
            "10.0.0.2 does not answer within 5.0 s",
            "5 s for each lookup",
        ],
    );
    for (fault, code) in [
        (DnsFault::PortClosed, "dns_server_unreachable"),
        (DnsFault::Refused, "dns_refused"),
    ] {
        let finding = only(&two_servers(&fault), code, Warning);
        says(&finding, &["another server answered"]);
    }
    let finding = only(&two_servers(&DnsFault::ServFail), "dns_servfail", Warning);
    says(&finding, &["10.0.0.2: the server failed (SERVFAIL)"]);

    let mut after = healthy();
    for role in [Role::Registry, Role::Token] {
        let leg = after.leg_mut(role);
        let name = leg.endpoint.host.to_string();
        for family in [Family::V4, Family::V6] {
            leg.resolve
                .queries
                .push(query(3, &name, family, Err(DnsFault::Timeout)));
        }
    }
    says(&only(&after, "dns_timeout", Info), &["no time is lost"]);
}

#[test]
fn a_family_that_is_swallowed_is_reported_at_the_server_that_a_pull_asks() {
    let mut evidence = healthy();
    let resolve = &mut evidence.leg_mut(Role::Registry).resolve;
    resolve.queries[1] = query(2, REGISTRY, Family::V6, Err(DnsFault::Timeout));
    resolve
        .queries
        .push(query(2, REGISTRY, Family::V6, Err(DnsFault::Timeout)));
    let finding = only(&evidence, "dns_slow_5s", Warning);
    says(
        &finding,
        &["10.0.0.2 answers A", "but not AAAA", "5 s for each attempt"],
    );

    // The same at a server that is never queried.
    let mut evidence = healthy();
    let resolve = &mut evidence.leg_mut(Role::Registry).resolve;
    resolve
        .queries
        .push(query(3, REGISTRY, Family::V4, Ok(&["10.0.3.9"])));
    resolve
        .queries
        .push(query(3, REGISTRY, Family::V6, Err(DnsFault::Timeout)));
    quiet(&evidence);
}

fn leaked() -> Evidence {
    let mut evidence = healthy();
    evidence.leg_mut(Role::Registry).resolve =
        resolved(&format!("{REGISTRY}.corp.example"), &["10.9.9.9"]);
    evidence
}

#[test]
fn a_search_domain_that_answers_is_the_cause_only_of_a_certificate_for_neither_name() {
    let finding = only(&leaked(), "dns_search_leak", Warning);
    says(
        &finding,
        &[
            "answered as 'registry.example.com.corp.example'",
            "zone 'corp.example'",
        ],
    );

    let mismatch = |name: &str| TlsFault::NameMismatch {
        expected: REGISTRY.to_owned(),
        presented: vec![name.to_owned()],
    };
    let evidence = leaked().unsecured(Role::Registry, mismatch("www.corp.example"));
    only(&evidence, "dns_search_leak", Critical);
    assert_eq!(codes(&judge(&evidence).consequences), ["tls_name"]);

    let closed = vec![dial("10.9.9.9", Some(TcpFault::Timeout))];
    let verdict = judge(&leaked().unconnected(Role::Registry, closed.clone()));
    assert_eq!(
        codes(&verdict.findings)[..2],
        ["tcp_timeout", "dns_search_leak"]
    );
    assert_eq!(verdict.findings[0].confidence, Confidence::Medium);
    says(&verdict.findings[0], &["as written was not queried"]);
    let verdict = judge(&healthy().unconnected(Role::Registry, closed));
    assert_eq!(codes(&verdict.findings)[0], "tcp_timeout");
    assert!(!format!("{:?}", verdict.findings[0]).contains("as written"));

    let evidence = leaked().unsecured(Role::Registry, mismatch("*.example.com.corp.example"));
    let verdict = judge(&evidence);
    assert_eq!(codes(&verdict.findings), ["tls_name", "dns_search_leak"]);
}

#[test]
fn an_answer_from_a_foreign_network_is_forged_only_for_public_registries_that_fail_there() {
    let at = |host: &str, address: &str| {
        let mut evidence = healthy();
        *evidence.leg_mut(Role::Token) = leg(Role::Token, host, address);
        evidence
    };
    let timeout = |address| vec![dial(address, Some(TcpFault::Timeout))];
    let evidence =
        at("auth.docker.io", "108.160.165.48").unconnected(Role::Token, timeout("108.160.165.48"));
    let finding = only(&evidence, "dns_hijack", Critical);
    says(&finding, &["108.160.165.48", "Dropbox", "SWR"]);
    assert_eq!(finding.confidence, Confidence::Medium);
    assert_eq!(
        codes(&judge(&evidence).consequences),
        ["tcp_timeout", "auth_realm_unreachable"]
    );

    quiet(&at("auth.docker.io", "108.160.165.48"));
    for (host, address) in [
        ("auth.docker.io", "34.226.69.105"),
        ("auth.example.com", "108.160.165.48"),
        ("notdocker.io", "162.125.32.13"),
    ] {
        let evidence = at(host, address).unconnected(Role::Token, timeout(address));
        only(&evidence, "auth_realm_unreachable", Critical);
    }
}

// ---- connections --------------------------------------------------------------------------------

fn icmp(code: u8) -> IcmpError {
    IcmpError {
        from: Some("10.0.0.1".parse().unwrap()),
        version: 4,
        kind: 3,
        code,
    }
}

#[test]
fn each_way_not_to_connect_has_its_cause() {
    for (fault, code, texts) in [
        (
            TcpFault::Timeout,
            "tcp_timeout",
            &["10.0.3.9:443", "after 5.0 s", "within the VPC"][..],
        ),
        (
            TcpFault::Refused { icmp: None },
            "tcp_refused",
            &["RST", "port 443"],
        ),
        (TcpFault::Reset, "tcp_reset", &["10.0.3.9:443"]),
        (
            TcpFault::Prohibited { icmp: icmp(13) },
            "tcp_prohibited",
            &["ICMP 3/13 from 10.0.0.1", "Ask the operator of 10.0.0.1"],
        ),
        (
            TcpFault::LocalPolicy { errno: 1 },
            "local_policy",
            &["errno 1", "ip route get 10.0.3.9"],
        ),
        (
            TcpFault::NoLocalAddress { errno: 99 },
            "no_local_address",
            &["errno 99"],
        ),
        (
            TcpFault::NetUnreachable { icmp: None },
            "net_unreachable",
            &["ip route get 10.0.3.9"],
        ),
        (
            TcpFault::HostUnreachable {
                icmp: Some(icmp(1)),
            },
            "host_unreachable",
            &["ICMP 3/1 from 10.0.0.1"],
        ),
        (
            TcpFault::Other {
                errno: Some(71),
                error: "protocol error".to_owned(),
            },
            "unexplained",
            &["protocol error"],
        ),
    ] {
        let evidence = healthy().unconnected(Role::Registry, vec![dial("10.0.3.9", Some(fault))]);
        let finding = only(&evidence, code, Critical);
        says(&finding, texts);
        assert_eq!(judge(&evidence).pull, Pull::WouldFail);
    }
}

#[test]
fn a_timeout_over_ipv4_is_not_reported_as_a_missing_ipv6_route() {
    for v6 in [
        TcpFault::NetUnreachable { icmp: None },
        TcpFault::NoLocalAddress { errno: 99 },
    ] {
        let attempts = vec![
            dial("2001:db8::9", Some(v6)),
            dial("203.0.113.9", Some(TcpFault::Timeout)),
        ];
        let finding = only(
            &healthy().unconnected(Role::Registry, attempts),
            "tcp_timeout",
            Critical,
        );
        says(
            &finding,
            &["[2001:db8::9]:443", "203.0.113.9 is a public address"],
        );
    }
    let attempts = vec![dial(
        "2001:db8::9",
        Some(TcpFault::NetUnreachable { icmp: None }),
    )];
    let finding = only(
        &healthy().unconnected(Role::Registry, attempts),
        "net_unreachable",
        Critical,
    );
    says(&finding, &["IPv6 addresses only"]);
}

#[test]
fn the_advice_on_a_timeout_fits_the_address() {
    for (address, text) in [
        ("100.125.1.9", "100.125.0.0/16"),
        ("198.19.128.9", "198.19.128.0/17"),
        ("100.70.1.1", "security group"),
        ("10.0.3.9", "within the VPC"),
        ("203.0.113.9", "SNAT"),
    ] {
        let mut evidence =
            healthy().unconnected(Role::Registry, vec![dial(address, Some(TcpFault::Timeout))]);
        evidence.vantage.provider = Some(ProviderSign {
            provider: Provider::Huawei,
            by: ProviderBy::Declared,
        });
        says(&only(&evidence, "tcp_timeout", Critical), &[address, text]);
    }
}

#[test]
fn another_leg_that_cannot_be_got_at_is_reported_by_what_it_means() {
    for (role, code, host) in [
        (Role::Token, "auth_realm_unreachable", AUTH),
        (Role::Blob, "redirect_blob", BLOBS),
    ] {
        let evidence =
            healthy().unconnected(role, vec![dial("203.0.113.9", Some(TcpFault::Timeout))]);
        let finding = only(&evidence, code, Critical);
        says(
            &finding,
            &[host, REGISTRY, "203.0.113.9:443", "no answer to the SYN"],
        );
        assert_eq!(codes(&judge(&evidence).consequences), ["tcp_timeout"]);

        // What is wrong with its name, this machine or its TLS has a cause of its own; where that is, is a fact.
        let evidence = healthy().unresolved(role, asked(&DnsFault::ServFail), DnsFault::ServFail);
        let finding = only(&evidence, "dns_servfail", Critical);
        says(&finding, &[host, "SERVFAIL", "itself", REGISTRY, "answers"]);
        let evidence = healthy().unsecured(role, TlsFault::PlainHttp);
        let finding = only(&evidence, "tls_plain_http", Critical);
        says(&finding, &["itself", REGISTRY, "answers"]);
    }
}

#[test]
fn a_fault_of_another_leg_keeps_its_cause_and_names_its_place() {
    let policy = TcpFault::LocalPolicy { errno: 22 };
    for (role, what) in [
        (Role::Token, "token service in the registry's challenge"),
        (Role::Blob, "layer storage in the registry's redirect"),
    ] {
        for (fault, code, texts) in [
            (
                policy.clone(),
                "local_policy",
                &["ip route get 203.0.113.9"][..],
            ),
            (
                TcpFault::NetUnreachable { icmp: None },
                "net_unreachable",
                &["ip route get 203.0.113.9"],
            ),
            (
                TcpFault::Refused { icmp: None },
                "tcp_refused",
                &["203.0.113.9 port 443", "the port is right in"],
            ),
        ] {
            let evidence = healthy().unconnected(role, vec![dial("203.0.113.9", Some(fault))]);
            let finding = only(&evidence, code, Critical);
            says(&finding, texts);
            says(&finding, &[what, REGISTRY]);
            assert_eq!(judge(&evidence).consequences, []);
        }
    }
    // The registry's own leg has no other place.
    let evidence = healthy().unconnected(Role::Registry, vec![dial("203.0.113.9", Some(policy))]);
    let finding = only(&evidence, "local_policy", Critical);
    assert!(
        !finding.evidence.iter().any(|fact| fact.contains("itself")),
        "{finding:?}"
    );
}

#[test]
fn dead_addresses_are_reported_where_a_client_may_meet_them() {
    let with = |attempts| {
        let mut evidence = healthy();
        evidence.leg_mut(Role::Registry).connect = dialed(attempts);
        evidence
    };
    let refused = || Some(TcpFault::Refused { icmp: None });
    let v6 = "2001:db8::9";
    for (attempts, code) in [
        (
            vec![
                dial("10.0.3.9", None),
                dial("10.0.3.10", Some(TcpFault::Timeout)),
            ],
            "address_partly_dead",
        ),
        (
            vec![dial("10.0.3.9", refused()), dial("10.0.3.10", None)],
            "address_partly_dead",
        ),
        (
            vec![dial(v6, Some(TcpFault::Timeout)), dial("10.0.3.9", None)],
            "v6_blackhole",
        ),
        (
            vec![
                dial(v6, Some(TcpFault::NetUnreachable { icmp: None })),
                dial("10.0.3.9", None),
            ],
            "net_unreach_v6",
        ),
        (
            vec![dial(v6, refused()), dial("10.0.3.9", None)],
            "address_partly_dead",
        ),
        (
            vec![dial("10.0.3.9", refused()), dial(v6, None)],
            "address_partly_dead",
        ),
        // The fallback is IPv4's own.
        (
            vec![
                dial("10.0.3.9", refused()),
                dial("10.0.3.10", None),
                dial(v6, Some(TcpFault::Timeout)),
            ],
            "address_partly_dead",
        ),
    ] {
        let dead = attempts
            .iter()
            .find(|d| d.outcome.fault().is_some())
            .unwrap()
            .to
            .to_string();
        let is_first = attempts[0].outcome.fault().is_some();
        let finding = only(&with(attempts), code, Warning);
        says(&finding, &[&dead]);
        if is_first {
            says(&finding, &["loses 300 ms"]);
        }
    }
}

// ---- tls ----------------------------------------------------------------------------------------

fn unknown_issuer() -> TlsFault {
    TlsFault::UnknownIssuer {
        issuer: "CN=Example CA".to_owned(),
    }
}

fn expired() -> TlsFault {
    TlsFault::Expired {
        not_after: days_from_now(-1),
        local_time: now(),
    }
}

#[test]
fn each_way_a_handshake_fails_has_its_cause() {
    let reason = || "reason".to_owned();
    let nothing = Bytes(0);
    for (fault, code, texts) in [
        (
            unknown_issuer(),
            "tls_unknown_ca",
            &["Example CA", "140 roots", &"ab".repeat(32)][..],
        ),
        (
            TlsFault::NameMismatch {
                expected: REGISTRY.to_owned(),
                presented: vec!["other.example.com".to_owned()],
            },
            "tls_name",
            &[REGISTRY, "other.example.com"],
        ),
        (
            expired(),
            "tls_expired",
            &[
                "expired at 2026-11-22",
                "local time is 2026-11-23",
                "the clock was not checked",
            ],
        ),
        (
            TlsFault::NotYetValid {
                not_before: days_from_now(1),
                local_time: now(),
            },
            "tls_not_yet_valid",
            &[
                "2026-11-24",
                "local time is 2026-11-23",
                "the clock was not checked",
            ],
        ),
        (
            TlsFault::BadCertificate { reason: reason() },
            "tls_bad_certificate",
            &["reason"],
        ),
        (
            TlsFault::PlainHttp,
            "tls_plain_http",
            &["server = \"http://registry.example.com\""],
        ),
        (
            TlsFault::NotTls {
                first_bytes: "5353482d".to_owned(),
            },
            "tls_not_tls",
            &["5353482d"],
        ),
        (
            TlsFault::Alert {
                alert: 116,
                name: "certificate_required".to_owned(),
            },
            "tls_alert",
            &["116", "client certificate"],
        ),
        (
            TlsFault::Incompatible { reason: reason() },
            "tls_incompatible",
            &["1.2"],
        ),
        (
            TlsFault::Reset { received: nothing },
            "tls_reset",
            &[REGISTRY],
        ),
        (
            TlsFault::Closed { received: nothing },
            "tls_reset",
            &[REGISTRY],
        ),
        (
            TlsFault::Timeout { received: nothing },
            "tls_hang",
            &["0 B received", "advmss", "10.0.3.9"],
        ),
        (
            TlsFault::Other { reason: reason() },
            "unexplained",
            &["reason"],
        ),
    ] {
        let evidence = healthy().unsecured(Role::Registry, fault);
        says(&only(&evidence, code, Critical), texts);
        assert_eq!(judge(&evidence).pull, Pull::WouldFail);
    }
}

fn passed() -> Step<Session, TlsFault> {
    healthy().leg_mut(Role::Registry).tls.outcome.clone()
}

fn with_large_hello(
    large: Step<Session, TlsFault>,
    short: Option<Step<Session, TlsFault>>,
    in_a_row: u32,
) -> Evidence {
    let mut evidence = healthy();
    evidence.leg_mut(Role::Registry).large_hello = Some(LargeHello {
        at: now(),
        to: "10.0.3.9:443".parse().unwrap(),
        bytes: Bytes(1486),
        large,
        short,
        in_a_row,
    });
    evidence
}

#[test]
#[expect(clippy::large_stack_arrays, reason = "a table of cases")]
fn a_hello_of_two_packets_that_is_dropped_is_reported_only_beside_a_short_one_that_passes() {
    let silence = || failed(TlsFault::Timeout { received: Bytes(0) });
    let nothing = || Bytes(0);
    for lost in [
        silence(),
        failed(TlsFault::Reset {
            received: nothing(),
        }),
        failed(TlsFault::Closed {
            received: nothing(),
        }),
    ] {
        let evidence = with_large_hello(lost, Some(passed()), 1);
        let finding = only(&evidence, "tls_large_hello", Warning);
        assert_eq!(finding.confidence, Confidence::Medium);
        assert_eq!(finding.leg, Some(Role::Registry));
        says(&finding, &["1486 bytes", "tlsmlkem=0", "Go 1.24"]);
    }
    let again = with_large_hello(silence(), Some(passed()), 2);
    let finding = only(&again, "tls_large_hello", Warning);
    assert_eq!(finding.confidence, Confidence::High);
    says(&finding, &["2 trials in a row"]);

    let alert = failed(TlsFault::Alert {
        alert: 40,
        name: "handshake_failure".to_owned(),
    });
    let begun = failed(TlsFault::Timeout {
        received: Bytes(90),
    });
    for evidence in [
        // It passed; the server answered it, if with a refusal; it is not known of the short one.
        with_large_hello(passed(), None, 0),
        with_large_hello(alert, Some(passed()), 0),
        with_large_hello(begun, Some(passed()), 0),
        with_large_hello(silence(), None, 0),
        with_large_hello(silence(), Some(silence()), 0),
    ] {
        quiet(&evidence);
    }
}

#[test]
fn without_roots_nothing_is_said_of_an_authority() {
    for fault in [TlsFault::NoRoots, unknown_issuer()] {
        let mut evidence = healthy().unsecured(Role::Registry, fault);
        evidence.walk.roots.certificates = 0;
        evidence.vantage.not_observed = vec![NotObserved::NodeRoots];
        evidence.walk.roots.problems = vec!["no bundle was found".to_owned()];
        only(&evidence, "tls_no_roots", Critical);
        assert_eq!(judge(&evidence).pull, Pull::Unknown);
    }
}

#[test]
fn an_unknown_authority_is_described_by_what_was_presented() {
    let with = |host: &str, issuer: &str, subject: &str| {
        let mut evidence = healthy();
        *evidence.leg_mut(Role::Registry) = leg(Role::Registry, host, "203.0.113.9");
        let chain = &mut evidence.leg_mut(Role::Registry).tls.chain;
        chain[0].issuer = issuer.to_owned();
        chain[0].subject = subject.to_owned();
        only(
            &evidence.unsecured(Role::Registry, unknown_issuer()),
            "tls_unknown_ca",
            Critical,
        )
    };
    says(&with(REGISTRY, "CN=a", "CN=a"), &["self-signed"]);
    says(
        &with(REGISTRY, "CN=R11, O=Let's Encrypt", "CN=b"),
        &["public CA", "bundle of roots here is old"],
    );
    says(
        &with("ghcr.io", "CN=Corp proxy", "CN=b"),
        &["intercepts TLS"],
    );
    says(
        &with(REGISTRY, "CN=Example CA", "CN=b"),
        &["only its own certificate"],
    );
}

#[test]
fn a_certificate_fault_is_the_clocks_only_when_every_server_says_so() {
    // The registry's plain-http or verified response has the time, the storage's certificate fails.
    let with = |registry, token| {
        let mut evidence = healthy().unsecured(Role::Blob, expired());
        evidence.vantage.not_observed.clear();
        evidence.leg_mut(Role::Blob).tls.chain =
            vec![certificate(BLOBS, days_from_now(-90), days_from_now(-1))];
        evidence.leg_mut(Role::Registry).clock = clock(registry);
        evidence.leg_mut(Role::Token).clock = clock(token);
        evidence
    };
    let two_days = -2 * 86_400;
    let evidence = with(two_days, two_days);
    let finding = only(&evidence, "clock_skew", Critical);
    says(
        &finding,
        &[
            "2 d ahead of",
            "all 2 servers",
            "the rejected certificate is valid",
        ],
    );
    assert_eq!(codes(&judge(&evidence).consequences), ["tls_expired"]);

    // An hour does not explain a day.
    assert_eq!(
        codes(&judge(&with(-3600, -3600)).findings),
        ["tls_expired", "clock_skew"]
    );
    // One server that agrees clears this machine.
    let verdict = judge(&with(two_days, 0));
    assert_eq!(codes(&verdict.findings), ["tls_expired", "clock_skew"]);
    says(&verdict.findings[0], &["the clock agrees"]);
    assert_eq!(verdict.findings[0].confidence, Confidence::High);
    let verdict = judge(&with(0, 0));
    assert_eq!(codes(&verdict.findings), ["tls_expired"]);
}

#[test]
fn a_wrong_clock_is_reported_with_whose_it_is() {
    let with = |registry, token, blob| {
        let mut evidence = healthy();
        evidence.leg_mut(Role::Registry).clock = registry;
        evidence.leg_mut(Role::Token).clock = token;
        evidence.leg_mut(Role::Blob).clock = blob;
        only(&evidence, "clock_skew", Warning)
    };
    let ours = with(clock(400), clock(401), clock(399));
    says(&ours, &["400 s behind", "all 3 servers"]);
    assert_eq!(ours.leg, None);
    let theirs = with(clock(400), clock(0), None);
    says(
        &theirs,
        &[
            "another server of this pull agrees",
            "Fix NTP at https://registry.example.com",
        ],
    );
    assert_eq!(theirs.leg, Some(Role::Registry));
    let either = with(clock(-400), None, None);
    says(
        &either,
        &["400 s ahead", "which of the two clocks is wrong is unknown"],
    );
    assert_eq!(either.confidence, Confidence::Medium);
}

#[test]
fn a_certificate_near_its_end_is_reported() {
    let mut evidence = healthy();
    evidence.leg_mut(Role::Token).tls.chain =
        vec![certificate(AUTH, days_from_now(-80), days_from_now(10))];
    says(
        &only(&evidence, "tls_expiring", Warning),
        &[AUTH, "10 days of 90 days remain"],
    );
}

// ---- credentials --------------------------------------------------------------------------------

fn mismatch(key: &str, rule: MatchRule) -> KeyMismatch {
    KeyMismatch {
        credential: credential(key),
        rule,
    }
}

fn rejected(fault: HttpFault) -> Step<crate::model::evidence::Grant, TokenFault> {
    failed(TokenFault::Rejected { fault })
}

fn no_head<T>() -> Step<T, HttpFault> {
    blocked(Role::Token, Phase::Token)
}

/// Refused anonymously, with these keys that do not match and this trouble with the source.
fn anonymous(mismatches: Vec<KeyMismatch>, problem: Option<SourceProblem>) -> Evidence {
    let mut evidence = healthy().refused(None, rejected(status(401, None, true)), no_head());
    if !mismatches.is_empty() || problem.is_some() {
        evidence.keyring.sources = vec![SourceEvidence {
            at_usual_path: false,
            server_keys: Vec::new(),
            lint: Vec::new(),
            expiries: Vec::new(),
            source: secret("regcred"),
            keys: mismatches.len(),
            problem,
        }];
    }
    evidence.keyring.mismatches = mismatches;
    evidence
}

/// Keys for other registries.
fn others() -> Vec<KeyMismatch> {
    vec![
        mismatch("ghcr.io", MatchRule::Labels { key: 2, image: 3 }),
        mismatch(
            "https://index.docker.io/v1/",
            MatchRule::Host {
                key: "index.docker.io".to_owned(),
                image: REGISTRY.to_owned(),
            },
        ),
    ]
}

/// The source is a docker config in place of a Secret.
fn in_docker_config(evidence: &mut Evidence) {
    let config = || CredentialSource::DockerConfig {
        path: "config.json".to_owned(),
    };
    evidence.keyring.sources[0].source = config();
    for mismatch in &mut evidence.keyring.mismatches {
        mismatch.credential.source = config();
    }
}

#[test]
fn a_source_that_was_given_and_has_no_key_for_the_image_is_the_cause() {
    let typo = || {
        let rule = MatchRule::Host {
            key: "registry.exmaple.com".to_owned(),
            image: REGISTRY.to_owned(),
        };
        let mut evidence = anonymous(vec![mismatch("registry.exmaple.com", rule)], None);
        evidence.keyring.sources[0].server_keys = vec!["registry.exmaple.com".to_owned()];
        evidence
    };
    let finding = only(&typo(), "secret_key_mismatch", Critical);
    says(
        &finding,
        &[
            "secret shop/regcred key 'registry.exmaple.com': host",
            "The only key of secret shop/regcred is 'registry.exmaple.com'",
            "kubectl create secret docker-registry regcred -n shop --docker-server=registry.example.com ",
            "Otherwise: Name a pull secret for registry.example.com",
        ],
    );
    assert_eq!(finding.confidence, Confidence::Medium);

    // A Secret with several keys would lose the others by that command.
    let mut several = anonymous(others(), None);
    several.keyring.sources[0].server_keys = vec!["ghcr.io".to_owned(), "docker.io".to_owned()];
    let finding = only(&several, "secret_key_mismatch", Critical);
    says(
        &finding,
        &[
            "for other registries: ghcr.io, docker.io",
            "add an entry 'registry.example.com'",
        ],
    );
    assert!(!finding.hint.contains("kubectl create"), "{}", finding.hint);

    let mut config = typo();
    in_docker_config(&mut config);
    says(
        &only(&config, "secret_key_mismatch", Critical),
        &["config.json", "`docker login registry.example.com`"],
    );
    // A name that is no name of Kubernetes never becomes part of a command.
    let mut odd = typo();
    odd.keyring.sources[0].source = secret("a; b");
    odd.keyring.mismatches[0].credential.source = secret("a; b");
    says(
        &only(&odd, "secret_key_mismatch", Critical),
        &["docker-registry NAME -n shop"],
    );

    // The registry hides the image from clients without a login, or limits them.
    let token = || grant(Access::Unreadable);
    let mut hidden = typo();
    hidden.walk.attempts[0].token = token();
    hidden.walk.attempts[0].head = failed(status(404, Some("MANIFEST_UNKNOWN"), false));
    says(
        &only(&hidden, "manifest_unknown", Critical),
        &["'registry.exmaple.com'", "correct the pull secret first"],
    );
    let mut limited = hidden;
    limited.walk.attempts[0].head = failed(status(429, None, false));
    says(
        &only(&limited, "rate_limited", Critical),
        &[
            "'registry.exmaple.com'",
            "--docker-server=registry.example.com ",
        ],
    );
}

#[test]
#[expect(clippy::large_stack_arrays, reason = "a table of cases")]
fn without_a_credential_the_cause_is_that_there_is_none() {
    let none = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    for evidence in [
        anonymous(Vec::new(), None),
        healthy().refused(None, failed(TokenFault::NoCredential), no_head()),
        healthy().refused(
            None,
            grant(Access::NoPull),
            failed(status(401, Some("UNAUTHORIZED"), true)),
        ),
        healthy().refused(
            None,
            grant(Access::Unreadable),
            failed(status(403, Some("DENIED"), false)),
        ),
        healthy().refused(None, none, failed(status(403, Some("DENIED"), false))),
    ] {
        let finding = only(&evidence, "auth_no_cred", Critical);
        says(
            &finding,
            &[
                "no credential was given",
                "anonymous as far as observed",
                "imagePullSecrets",
                REGISTRY,
                "team/app",
            ],
        );
        assert_eq!(finding.confidence, Confidence::Medium);
        // The node's own are known, and not among them.
        let mut seen = evidence.clone();
        seen.vantage
            .not_observed
            .retain(|what| *what != NotObserved::NodeCredentials);
        let finding = only(&seen, "auth_no_cred", Critical);
        says(&finding, &["no credential of its own for it either"]);
        assert_eq!(finding.confidence, Confidence::High);
    }
    // Keys for other registries in a docker config that was not given are listed, and are no fault.
    let mut usual = anonymous(others(), None);
    usual.keyring.sources[0].at_usual_path = true;
    in_docker_config(&mut usual);
    says(&only(&usual, "auth_no_cred", Critical), &["'ghcr.io'"]);

    let mut swr = anonymous(Vec::new(), None);
    swr.reference = "swr.cn-north-4.myhuaweicloud.com/team/app:1.0"
        .parse()
        .unwrap();
    says(&only(&swr, "auth_no_cred", Critical), &["default-secret"]);
}

#[test]
fn a_key_for_this_registry_that_does_not_match_is_the_cause() {
    let port = MatchRule::Port {
        key: Some("443".to_owned()),
        image: None,
    };
    let host = MatchRule::Host {
        key: "harbor.example.com".to_owned(),
        image: REGISTRY.to_owned(),
    };
    let path = MatchRule::Path {
        key: "/other".to_owned(),
        image: "/team/app".to_owned(),
    };
    for (key, rule, text) in [
        ("registry.example.com:443", port, "ports differ"),
        ("https://registry.example.com/other", path, "path '/other'"),
        ("harbor.example.com", host, "does not match"),
        (
            "*.a.example.com",
            MatchRule::Labels { key: 4, image: 3 },
            "matches one label only",
        ),
    ] {
        let others = vec![
            mismatch("ghcr.io", MatchRule::Labels { key: 2, image: 3 }),
            mismatch(key, rule),
        ];
        let finding = only(&anonymous(others, None), "secret_key_mismatch", Critical);
        says(
            &finding,
            &[
                text,
                &format!(
                    "Create secret shop/regcred again with --docker-server={REGISTRY} in place of '{key}'"
                ),
            ],
        );
    }
    // The command is for a Secret with one key: it would remove others.
    for (keys, has_command) in [(1, true), (2, false)] {
        let rule = MatchRule::Port {
            key: None,
            image: Some("5000".to_owned()),
        };
        let mut evidence = anonymous(vec![mismatch(REGISTRY, rule)], None);
        evidence.keyring.sources[0].keys = keys;
        let hint = only(&evidence, "secret_key_mismatch", Critical).hint;
        assert_eq!(
            hint.contains("`kubectl create secret docker-registry regcred -n shop "),
            has_command,
            "{hint}"
        );
    }
    let finding = only(
        &anonymous(vec![mismatch(REGISTRY, MatchRule::Empty)], None),
        "secret_key_mismatch",
        Critical,
    );
    says(&finding, &["user and password to the entry"]);

    // Docker Hub's key is not Docker Hub's host.
    let rule = MatchRule::Labels { key: 3, image: 2 };
    let mut hub = anonymous(vec![mismatch("registry-1.docker.io", rule)], None);
    hub.reference = "docker.io/team/app:1.0".parse().unwrap();
    says(
        &only(&hub, "secret_key_mismatch", Critical),
        &["--docker-server=https://index.docker.io/v1/"],
    );
}

#[test]
fn registries_under_one_public_suffix_are_not_near() {
    let rule = || MatchRule::Host {
        key: String::new(),
        image: String::new(),
    };
    for (image, key, is_near) in [
        ("registry.a.com.cn", "registry.b.com.cn", false),
        ("registry.a.com.cn", "harbor.a.com.cn", true),
        (
            "swr.cn-north-4.myhuaweicloud.com",
            "swr.cn-north-1.myhuaweicloud.com",
            true,
        ),
        ("10.0.3.9:5000", "10.0.3.10:5000", false),
        ("10.0.3.9:5000", "10.0.3.9", true),
        ("quay.io", "ghcr.io", false),
    ] {
        let mut evidence = anonymous(vec![mismatch(key, rule())], None);
        evidence.reference = format!("{image}/team/app:1.0").parse().unwrap();
        let finding = only(&evidence, "secret_key_mismatch", Critical);
        let replaces = finding.hint.contains(&format!("in place of '{key}'"));
        assert_eq!(replaces, is_near, "{}", finding.hint);
    }
}

#[test]
fn a_secret_that_cannot_be_used_is_the_cause_and_stops_a_pull_that_needs_it_not() {
    let malformed = || SourceProblem::Malformed {
        reason: "it is no JSON".to_owned(),
    };
    let wrong_type = || SourceProblem::WrongType {
        found: "Opaque".to_owned(),
    };
    for problem in [
        malformed(),
        wrong_type(),
        SourceProblem::NoData {
            key: ".dockerconfigjson".to_owned(),
        },
    ] {
        let finding = only(
            &anonymous(Vec::new(), Some(problem)),
            "secret_format",
            Critical,
        );
        says(
            &finding,
            &[
                "secret shop/regcred",
                "kubectl create secret docker-registry",
                REGISTRY,
            ],
        );
    }
    let beside = |problem, source| {
        let mut evidence = healthy();
        evidence.keyring.sources.push(SourceEvidence {
            at_usual_path: false,
            server_keys: Vec::new(),
            lint: Vec::new(),
            expiries: Vec::new(),
            source,
            keys: 0,
            problem: Some(problem),
        });
        evidence
    };
    // The kubelet fails for all of the pod's Secrets.
    let evidence = beside(malformed(), secret("other"));
    only(&evidence, "secret_format", Critical);
    assert_eq!(judge(&evidence).pull, Pull::WouldFail);
    only(
        &beside(wrong_type(), secret("other")),
        "secret_format",
        Warning,
    );
    only(
        &beside(
            malformed(),
            CredentialSource::DockerConfig {
                path: "config.json".to_owned(),
            },
        ),
        "secret_format",
        Warning,
    );
    // A user's docker config plays no part in what does not connect; a pod's Secret always does.
    for (source, expected) in [
        (
            CredentialSource::DockerConfig {
                path: "config.json".to_owned(),
            },
            &["tcp_timeout"][..],
        ),
        (secret("regcred"), &["secret_format", "tcp_timeout"]),
    ] {
        let mut evidence = healthy().unconnected(
            Role::Registry,
            vec![dial("10.0.3.9", Some(TcpFault::Timeout))],
        );
        evidence.keyring = KeyringEvidence::default();
        evidence.keyring.sources.push(SourceEvidence {
            at_usual_path: false,
            server_keys: Vec::new(),
            lint: Vec::new(),
            expiries: Vec::new(),
            source,
            keys: 0,
            problem: Some(malformed()),
        });
        assert_eq!(codes(&judge(&evidence).findings), expected);
    }
    let mut suspect = healthy();
    suspect.keyring.sources[0].lint = vec![Lint {
        key: Some(REGISTRY.to_owned()),
        rule: LintRule::EndsInNewline {
            part: "password".to_owned(),
        },
    }];
    says(&only(&suspect, "secret_format", Warning), &["newline"]);
}

#[test]
fn a_helper_that_failed_leaves_it_open() {
    let mut evidence = anonymous(
        Vec::new(),
        Some(SourceProblem::HelperFailed {
            reason: "not found".to_owned(),
        }),
    );
    evidence.keyring.sources[0].source = CredentialSource::Helper {
        name: "ecr-login".to_owned(),
        path: "config.json".to_owned(),
    };
    says(
        &only(&evidence, "auth_unknown", Critical),
        &["docker-credential-ecr-login", "not found"],
    );
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
    // It plays no part where another one does.
    let mut evidence = healthy();
    evidence.keyring.sources.push(SourceEvidence {
        at_usual_path: false,
        server_keys: Vec::new(),
        lint: Vec::new(),
        expiries: Vec::new(),
        source: CredentialSource::CommandLine,
        keys: 0,
        problem: Some(SourceProblem::HelperFailed {
            reason: "not found".to_owned(),
        }),
    });
    quiet(&evidence);
}

fn with_secret(
    token: Step<crate::model::evidence::Grant, TokenFault>,
    head: Step<crate::model::evidence::HeadResponse, HttpFault>,
) -> Evidence {
    healthy().refused(Some(credential(REGISTRY)), token, head)
}

#[test]
fn what_is_said_to_a_credential_tells_a_wrong_password_from_a_missing_right() {
    let basic = || Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let high = Confidence::High;
    let medium = Confidence::Medium;
    for (token, head, code, confidence) in [
        (
            rejected(status(401, Some("UNAUTHORIZED"), true)),
            no_head(),
            "auth_bad_cred",
            high,
        ),
        (
            rejected(status(400, Some("invalid_grant"), false)),
            no_head(),
            "auth_bad_cred",
            high,
        ),
        (
            rejected(status(403, None, false)),
            no_head(),
            "auth_bad_cred",
            medium,
        ),
        (
            basic(),
            failed(status(401, Some("UNAUTHORIZED"), true)),
            "auth_bad_cred",
            high,
        ),
        (
            basic(),
            failed(status(403, Some("DENIED"), false)),
            "auth_denied",
            high,
        ),
        (
            grant(Access::NoPull),
            failed(status(401, Some("UNAUTHORIZED"), true)),
            "auth_denied",
            high,
        ),
        (
            grant(Access::Unreadable),
            failed(status(401, None, true)),
            "auth_denied",
            medium,
        ),
        (
            grant(Access::Pull),
            failed(status(403, Some("DENIED"), false)),
            "auth_denied",
            medium,
        ),
        (
            grant(Access::Pull),
            failed(status(401, Some("UNAUTHORIZED"), true)),
            "auth_denied",
            medium,
        ),
    ] {
        let evidence = with_secret(token, head);
        let finding = only(&evidence, code, Critical);
        assert_eq!(finding.confidence, confidence, "{finding:#?}");
        says(&finding, &["secret shop/regcred"]);
        if code == "auth_bad_cred" {
            says(&finding, &["anonymous access was not tried"]);
        }
    }
    // The right is there, and the registry does not take the token.
    let mut evidence = with_secret(grant(Access::Pull), failed(status(401, None, true)));
    evidence.leg_mut(Role::Registry).clock = clock(900);
    let verdict = judge(&evidence);
    assert_eq!(codes(&verdict.findings), ["auth_denied", "clock_skew"]);
    says(&verdict.findings[0], &["900 s apart", "signing key"]);
}

#[test]
fn a_token_service_that_does_not_do_its_part_has_its_cause() {
    let realm = endpoint(AUTH);
    for (fault, code, pull) in [
        (
            TokenFault::RealmUntrusted {
                realm,
                reason: Distrust::PlainHttp,
            },
            "realm_untrusted",
            Pull::Unknown,
        ),
        (
            TokenFault::NoToken {
                method: "POST".to_owned(),
                fields: vec!["token".to_owned()],
            },
            "auth_token_format",
            Pull::WouldFail,
        ),
        (
            TokenFault::Http {
                fault: HttpFault::Malformed {
                    reason: "'expires_in' is no whole number".to_owned(),
                },
            },
            "auth_token_format",
            Pull::WouldFail,
        ),
        (
            TokenFault::BadChallenge {
                reason: "the registry asks for 'negotiate'".to_owned(),
            },
            "auth_bad_challenge",
            Pull::WouldFail,
        ),
        (
            TokenFault::Http {
                fault: status(503, None, false),
            },
            "registry_5xx",
            Pull::WouldFail,
        ),
        (
            TokenFault::Http {
                fault: status(429, None, false),
            },
            "rate_limited",
            Pull::WouldFail,
        ),
        (
            TokenFault::Http {
                fault: HttpFault::Timeout,
            },
            "http_timeout",
            Pull::WouldFail,
        ),
    ] {
        let evidence = with_secret(failed(fault), no_head());
        only(&evidence, code, Critical);
        assert_eq!(judge(&evidence).pull, pull, "{code}");
    }
    let none = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let evidence = healthy().refused(None, none, failed(status(401, None, false)));
    says(
        &only(&evidence, "auth_bad_challenge", Critical),
        &["WWW-Authenticate"],
    );
}

#[test]
fn a_credential_that_is_refused_before_a_good_one_is_reported() {
    let mut first = accepted(Some(credential("other")));
    first.token = rejected(status(401, None, true));
    first.head = no_head();
    let mut evidence = healthy();
    evidence.walk.attempts.insert(0, first.clone());
    says(
        &only(&evidence, "auth_bad_cred", Warning),
        &["tried first, secret shop/regcred key 'other'", "accepted"],
    );
    first.token = grant(Access::NoPull);
    first.head = failed(status(403, Some("DENIED"), false));
    evidence.walk.attempts[0] = first.clone();
    only(&evidence, "auth_denied", Warning);

    // None is let in: each is listed.
    let mut evidence = with_secret(rejected(status(401, None, true)), no_head());
    evidence.walk.attempts.insert(0, first);
    says(
        &only(&evidence, "auth_bad_cred", Critical),
        &["tried secret shop/regcred key 'other': HTTP 403 DENIED"],
    );
}

#[test]
fn a_secret_that_plays_no_part_in_an_anonymous_pull_is_reported_when_it_was_meant_to() {
    let mut evidence = healthy();
    evidence.walk.attempts = vec![accepted(None)];
    evidence.keyring.candidates.clear();
    let port = MatchRule::Port {
        key: Some("443".to_owned()),
        image: None,
    };
    evidence.keyring.mismatches = vec![mismatch("registry.example.com:443", port)];
    only(&evidence, "secret_key_mismatch", Warning);
}

// ---- answers ------------------------------------------------------------------------------------

#[test]
fn what_the_registry_says_of_the_manifest_has_its_cause() {
    let closed = || HttpFault::Closed;
    for (fault, code) in [
        (
            status(404, Some("MANIFEST_UNKNOWN"), false),
            "manifest_unknown",
        ),
        (status(404, Some("NAME_UNKNOWN"), false), "name_unknown"),
        (status(404, None, false), "manifest_unknown"),
        (status(429, Some("TOOMANYREQUESTS"), false), "rate_limited"),
        (status(400, Some("TOOMANYREQUESTS"), false), "rate_limited"),
        (status(502, None, false), "registry_5xx"),
        (status(451, None, false), "request_refused"),
        (closed(), "tcp_reset"),
        (HttpFault::Reset, "tcp_reset"),
        (HttpFault::Timeout, "http_timeout"),
        (HttpFault::Stalled { after: Bytes(12) }, "http_timeout"),
        (
            HttpFault::Truncated {
                got: Bytes(1),
                want: Some(Bytes(9)),
            },
            "unexpected_eof",
        ),
        (
            HttpFault::Malformed {
                reason: "no HTTP".to_owned(),
            },
            "not_a_registry",
        ),
    ] {
        let evidence = with_secret(grant(Access::Pull), failed(fault));
        let finding = only(&evidence, code, Critical);
        assert_eq!(judge(&evidence).pull, Pull::WouldFail);
        assert!(!finding.hint.contains("HOST"), "{}", finding.hint);
    }
    let anonymous = healthy().refused(
        None,
        grant(Access::Unreadable),
        failed(status(404, Some("NAME_UNKNOWN"), false)),
    );
    says(
        &only(&anonymous, "name_unknown", Critical),
        &["requested anonymously"],
    );
}

/// The registry answers this for the manifest to the accepted credential, or anonymously.
fn not_found(code: Option<&str>, message: Option<&str>, anonymous: bool) -> Evidence {
    let mut fault = status(404, code, false);
    if let HttpFault::Status { message: field, .. } = &mut fault {
        *field = message.map(str::to_owned);
    }
    let credential = (!anonymous).then(|| credential(REGISTRY));
    healthy().refused(credential, grant(Access::Unreadable), failed(fault))
}

#[test]
fn a_404_is_as_certain_as_the_answer_is_of_what_is_missing() {
    use Confidence::{High, Medium};
    for (code, message, cause, confidence, text) in [
        // distribution answers this for a tag and for a repository.
        (
            Some("MANIFEST_UNKNOWN"),
            Some("manifest unknown"),
            "manifest_unknown",
            Medium,
            "for a missing tag and for a missing repository",
        ),
        (
            None,
            None,
            "manifest_unknown",
            Medium,
            "check the proxy or Ingress in front of https://registry.example.com",
        ),
        (
            Some("NAME_UNKNOWN"),
            None,
            "name_unknown",
            High,
            "NAME_UNKNOWN",
        ),
        // Harbor
        (
            Some("NOT_FOUND"),
            Some("repository team/app not found"),
            "name_unknown",
            High,
            "repository team/app not found",
        ),
        (
            Some("NOT_FOUND"),
            Some("project team not found"),
            "name_unknown",
            High,
            "project team",
        ),
        (
            Some("NOT_FOUND"),
            Some("artifact team/app:1.0 not found"),
            "manifest_unknown",
            High,
            "the repository exists",
        ),
        (
            Some("NOT_FOUND"),
            Some("nothing here"),
            "manifest_unknown",
            Medium,
            "nothing here",
        ),
    ] {
        let finding = only(&not_found(code, message, false), cause, Critical);
        says(&finding, &[text]);
        assert_eq!(finding.confidence, confidence, "{finding:#?}");
        // A registry with logins may hide the image from a client without one.
        let hidden = only(&not_found(code, message, true), cause, Critical);
        says(
            &hidden,
            &["requested anonymously", "If the image requires a login"],
        );
        assert_eq!(hidden.confidence, Medium, "{hidden:#?}");
        // One without logins hides nothing.
        let mut open = not_found(code, message, true);
        if let Step::Done { value, .. } = &mut open.walk.ping {
            (value.status, value.challenge) = (200, Challenge::Anonymous);
        }
        let finding = only(&open, cause, Critical);
        assert_eq!(finding.confidence, confidence, "{finding:#?}");
        assert!(!finding.hint.contains("login"), "{finding:#?}");
    }
    // By its digest, Harbor looks for the artifact alone.
    let mut digest = not_found(
        Some("NOT_FOUND"),
        Some("artifact team/app@x not found"),
        false,
    );
    digest.reference = format!("{REGISTRY}/team/app@sha256:{}", "ab".repeat(32))
        .parse()
        .unwrap();
    let finding = only(&digest, "manifest_unknown", Critical);
    assert_eq!(finding.confidence, Medium);
    says(&finding, &["for a missing digest"]);
    // Docker Hub's token has the right to pull only if the repository exists.
    let mut hub = not_found(Some("MANIFEST_UNKNOWN"), None, true);
    hub.walk.attempts[0].token = grant(Access::Pull);
    let elsewhere = only(&hub, "manifest_unknown", Critical);
    assert_eq!(elsewhere.confidence, Medium);
    hub.reference = "docker.io/team/app:1.0".parse().unwrap();
    let finding = only(&hub, "manifest_unknown", Critical);
    assert_eq!(finding.confidence, High);
    says(&finding, &["the repository exists"]);
}

#[test]
fn a_host_that_is_no_registry_is_distinguished_from_one_that_lacks_the_image() {
    let nothing = || Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let mut evidence = healthy().refused(None, nothing(), failed(status(404, None, false)));
    evidence.walk.ping = failed(status(404, None, false));
    only(&evidence, "not_a_registry", Critical);
    evidence.leg_mut(Role::Registry).endpoint.scheme = Scheme::Http;
    says(
        &only(&evidence, "not_a_registry", Critical),
        &["Open http://registry.example.com:443/v2/"],
    );
    // It answers about manifests, so it is a registry, whatever its response to /v2/.
    let mut evidence = healthy().refused(
        None,
        nothing(),
        failed(status(404, Some("MANIFEST_UNKNOWN"), false)),
    );
    evidence.walk.ping = failed(status(404, None, false));
    only(&evidence, "manifest_unknown", Critical);
    let page = ManifestFault::Unsupported {
        media_type: "text/html".to_owned(),
    };
    only(&healthy().no_manifest(page), "not_a_registry", Critical);
    only(
        &healthy().unanswered(HttpFault::Malformed {
            reason: "no HTTP".to_owned(),
        }),
        "not_a_registry",
        Critical,
    );
    only(
        &healthy().unanswered(HttpFault::Timeout),
        "http_timeout",
        Critical,
    );
}

#[test]
fn a_403_without_challenge_or_code_is_somebody_in_front() {
    let nothing = || Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let mut evidence = healthy().refused(None, nothing(), failed(status(403, None, false)));
    only(&evidence, "fw_403", Critical);
    evidence.walk.ping = failed(status(403, None, false));
    only(&evidence, "fw_403", Critical);
    // The registry required a user and rejects it.
    let evidence = with_secret(grant(Access::Unreadable), failed(status(403, None, false)));
    only(&evidence, "auth_denied", Critical);
}

#[test]
fn each_way_not_to_have_a_manifest_has_its_cause() {
    let missing = |fault| ManifestFault::Http { fault };
    for (fault, code, text) in [
        (
            ManifestFault::NoPlatform {
                available: vec!["linux/arm64".to_owned()],
                left_out: 0,
            },
            "no_platform",
            "linux/arm64",
        ),
        (
            ManifestFault::Unsupported {
                media_type: "application/x".to_owned(),
            },
            "manifest_unsupported",
            "application/x",
        ),
        (
            ManifestFault::DigestMismatch {
                expected: "sha256:aa".to_owned(),
                got: "sha256:bb".to_owned(),
            },
            "digest_mismatch",
            "sha256:bb",
        ),
        (
            ManifestFault::Malformed {
                reason: "no JSON".to_owned(),
            },
            "manifest_invalid",
            "no JSON",
        ),
        (
            missing(status(404, Some("MANIFEST_UNKNOWN"), false)),
            "manifest_unknown",
            "404",
        ),
        (
            missing(status(403, Some("DENIED"), false)),
            "auth_denied",
            "403",
        ),
        (missing(status(500, None, false)), "registry_5xx", "500"),
        (missing(status(418, None, false)), "request_refused", "418"),
    ] {
        says(
            &only(&healthy().no_manifest(fault), code, Critical),
            &[text],
        );
    }
}

#[test]
fn a_fault_of_the_storage_behind_a_malformed_image_says_that_no_pull_meets_it() {
    let closed = || {
        healthy().unconnected(
            Role::Blob,
            vec![dial("10.0.3.9", Some(TcpFault::Refused { icmp: None }))],
        )
    };
    let blob = |evidence: &Evidence| {
        let findings = judge(evidence).findings;
        findings
            .into_iter()
            .find(|finding| finding.leg == Some(Role::Blob))
            .expect("a finding of the storage")
    };
    let mut evidence = closed();
    evidence.walk.manifest = closed()
        .no_manifest(ManifestFault::Malformed {
            reason: "0 diff_ids for 4 layers".to_owned(),
        })
        .walk
        .manifest;
    says(
        &blob(&evidence),
        &["no pull of this image gets as far as its layers"],
    );
    assert_eq!(
        judge(&evidence).findings[0].cause.code(),
        "manifest_invalid"
    );
    assert!(!format!("{:?}", blob(&closed())).contains("gets as far as"));
}

#[test]
fn each_way_not_to_have_a_layer_has_its_cause() {
    for (fault, code) in [
        (status(404, Some("BLOB_UNKNOWN"), false), "blob_unknown"),
        (status(404, Some("NoSuchKey"), false), "blob_unknown"),
        (status(404, Some("NoSuchBucket"), false), "blob_denied"),
        (status(403, Some("AccessDenied"), false), "blob_denied"),
        (status(503, None, false), "registry_5xx"),
        (
            HttpFault::Truncated {
                got: Bytes(0),
                want: Some(Bytes(9)),
            },
            "unexpected_eof",
        ),
        (HttpFault::Stalled { after: Bytes(0) }, "http_timeout"),
        (HttpFault::Reset, "tcp_reset"),
        (HttpFault::TooManyRedirects { limit: 10 }, "redirect_broken"),
        (
            HttpFault::Malformed {
                reason: "a redirect without Location".to_owned(),
            },
            "redirect_broken",
        ),
        (
            HttpFault::Reconnect {
                phase: Phase::Connect,
                reason: "refused".to_owned(),
                tls: None,
            },
            "tcp_reset",
        ),
        (
            HttpFault::Reconnect {
                phase: Phase::Proxy,
                reason: "the proxy itself answered 503".to_owned(),
                tls: None,
            },
            "proxy_misconfigured",
        ),
    ] {
        let evidence = healthy().no_blob(fault);
        let finding = only(&evidence, code, Critical);
        assert_eq!(finding.leg, Some(Role::Blob));
        says(&finding, &[BLOBS]);
    }
    let to = "http://169.254.169.254".to_owned();
    let evidence = healthy().no_blob(HttpFault::RedirectUntrusted {
        to,
        reason: Distrust::LinkLocal,
    });
    says(
        &only(&evidence, "redirect_untrusted", Critical),
        &["169.254.169.254"],
    );
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
}

#[test]
fn what_a_download_will_lack_is_reported() {
    let mut evidence = healthy();
    let Step::Done { value, .. } = &mut evidence.walk.blob else {
        unreachable!()
    };
    value.range_honoured = Some(false);
    says(&only(&evidence, "range_ignored", Warning), &[BLOBS]);
    let Step::Done { value, .. } = &mut evidence.walk.blob else {
        unreachable!()
    };
    value.range_refused_with = Some(416);
    let finding = only(&evidence, "range_ignored", Warning);
    says(&finding, &[BLOBS, "416", "2.1.0 to 2.1.2"]);

    let mut evidence = healthy();
    let Step::Done { value, .. } = &mut evidence.walk.blob else {
        unreachable!()
    };
    value.redirects[0].scheme = Scheme::Http;
    only(&evidence, "redirect_untrusted", Warning);
}

/// A mirror serves, and the registry behind it answers so.
fn behind(head: &Step<HeadResponse, HttpFault>) -> Evidence {
    let mut evidence = healthy();
    let mut walk = evidence.walk.clone();
    for attempt in &mut walk.attempts {
        attempt.head = head.clone();
    }
    if head.done().is_none() {
        let reason = Skip::Blocked {
            role: Role::Registry,
            phase: Phase::Manifest,
        };
        walk.manifest = Step::Skipped { reason };
        walk.blob = Step::Skipped { reason };
    }
    evidence.upstream = Some(Box::new(walk));
    evidence.walk.host.kind = HostKind::Mirror;
    evidence.walk.host.endpoint = endpoint("mirror.test");
    evidence
}

#[test]
fn what_is_behind_a_mirror_is_a_fact_and_a_finding_only_where_it_would_not_serve() {
    let head = healthy().walk.attempts[0].head.clone();
    let evidence = behind(&head);
    let verdict = judge(&evidence);
    assert!(verdict.findings.is_empty(), "{verdict:#?}");
    let failover = verdict.failover.unwrap();
    assert_eq!(failover.serves, Some(true));
    assert!(failover.answer.starts_with("HEAD 200 in "), "{failover:?}");
    assert!(failover.cost.contains("30 s"), "{failover:?}");

    let refusal = status(404, Some("MANIFEST_UNKNOWN"), false);
    let evidence = behind(&failed(refusal));
    let verdict = judge(&evidence);
    assert_eq!(verdict.pull, Pull::WouldSucceed);
    assert_eq!(verdict.failover.unwrap().serves, Some(false));
    let finding = only(&evidence, "mirror_no_fallback", Info);
    says(&finding, &["mirror.test", "manifest_unknown"]);

    // If it is unknown, there is no finding.
    let evidence = behind(&failed(HttpFault::RequestLimit { limit: 256 }));
    let verdict = judge(&evidence);
    assert!(verdict.findings.is_empty(), "{verdict:#?}");
    assert_eq!(verdict.failover.unwrap().serves, None);
}

fn rate_limit(remaining: u64) -> RateLimit {
    RateLimit {
        limit: Some(100),
        remaining: Some(remaining),
        window_seconds: Some(21_600),
        source: Some("203.0.113.7".to_owned()),
    }
}

#[test]
fn a_limit_is_reported_before_it_is_used_up_and_not_twice() {
    let mut evidence = healthy();
    evidence.walk.rate_limit = Some(rate_limit(10));
    says(
        &only(&evidence, "rate_limit_low", Warning),
        &["10 of 100", "in 6 h", "203.0.113.7"],
    );
    let mut evidence = with_secret(
        grant(Access::Pull),
        failed(status(429, Some("TOOMANYREQUESTS"), false)),
    );
    evidence.walk.rate_limit = Some(rate_limit(0));
    says(
        &only(&evidence, "rate_limited", Critical),
        &["limit 100, 0 remaining", "203.0.113.7"],
    );
}

#[test]
fn a_walk_that_ended_for_no_known_reason_is_no_success() {
    let mut evidence = healthy();
    evidence.walk.manifest = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    evidence.walk.blob = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    only(&evidence, "unexplained", Critical);
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
    // Not hidden behind a warning either.
    evidence.leg_mut(Role::Registry).clock = clock(400);
    let verdict = judge(&evidence);
    assert_eq!(codes(&verdict.findings), ["unexplained", "clock_skew"]);
    assert_eq!(verdict.pull, Pull::Unknown);
}

#[test]
fn the_worst_comes_first_and_then_the_order_of_the_walk() {
    let mut evidence = healthy().no_blob(HttpFault::Reset);
    evidence.leg_mut(Role::Token).tls.chain =
        vec![certificate(AUTH, days_from_now(-80), days_from_now(10))];
    evidence.leg_mut(Role::Registry).connect = dialed(vec![
        dial("10.0.3.9", None),
        dial("10.0.3.10", Some(TcpFault::Timeout)),
    ]);
    let verdict = judge(&evidence);
    assert_eq!(
        codes(&verdict.findings),
        ["tcp_reset", "address_partly_dead", "tls_expiring"]
    );
    let severities: Vec<Severity> = verdict.findings.iter().map(|f| f.severity).collect();
    assert_eq!(severities, [Critical, Warning, Warning]);
    assert!(OK < Warning);
}

// ---- every fault, everywhere --------------------------------------------------------------------

fn text() -> impl Strategy<Value = String> {
    "[a-z]{1,12}"
}

fn address() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "10.0.3.9",
        "203.0.113.9",
        "108.160.165.48",
        "100.125.1.9",
        "2001:db8::9",
    ])
}

fn dns_fault() -> impl Strategy<Value = DnsFault> {
    prop_oneof![
        Just(DnsFault::NxDomain),
        Just(DnsFault::NoData),
        Just(DnsFault::ServFail),
        Just(DnsFault::Refused),
        text().prop_map(|code| DnsFault::OtherCode { code }),
        Just(DnsFault::Timeout),
        Just(DnsFault::PortClosed),
        text().prop_map(|error| DnsFault::Unreachable { error }),
        text().prop_map(|reason| DnsFault::Malformed { reason }),
        Just(DnsFault::NoServers),
    ]
}

fn icmp_error() -> impl Strategy<Value = IcmpError> {
    (any::<bool>(), any::<bool>(), 0..5_u8, 0..16_u8).prop_map(|(known, v6, kind, code)| {
        IcmpError {
            from: known.then(|| "10.0.0.1".parse().unwrap()),
            version: if v6 { 6 } else { 4 },
            kind,
            code,
        }
    })
}

fn tcp_fault() -> impl Strategy<Value = TcpFault> {
    let icmp = || prop::option::of(icmp_error());
    prop_oneof![
        icmp().prop_map(|icmp| TcpFault::Refused { icmp }),
        Just(TcpFault::Timeout),
        icmp().prop_map(|icmp| TcpFault::HostUnreachable { icmp }),
        icmp().prop_map(|icmp| TcpFault::NetUnreachable { icmp }),
        icmp_error().prop_map(|icmp| TcpFault::Prohibited { icmp }),
        any::<u8>().prop_map(|errno| TcpFault::LocalPolicy {
            errno: errno.into()
        }),
        any::<u8>().prop_map(|errno| TcpFault::NoLocalAddress {
            errno: errno.into()
        }),
        Just(TcpFault::Reset),
        text().prop_map(|error| TcpFault::Other { errno: None, error }),
    ]
}

fn tls_fault() -> impl Strategy<Value = TlsFault> {
    let received = || any::<u16>().prop_map(|n| Bytes(n.into()));
    let time = || (-400..400_i64).prop_map(days_from_now);
    prop_oneof![
        text().prop_map(|issuer| TlsFault::UnknownIssuer { issuer }),
        text().prop_map(|name| TlsFault::NameMismatch {
            expected: REGISTRY.to_owned(),
            presented: vec![name]
        }),
        time().prop_map(|not_after| TlsFault::Expired {
            not_after,
            local_time: now()
        }),
        time().prop_map(|not_before| TlsFault::NotYetValid {
            not_before,
            local_time: now()
        }),
        text().prop_map(|reason| TlsFault::BadCertificate { reason }),
        Just(TlsFault::NoRoots),
        text().prop_map(|reason| TlsFault::Undecided { reason }),
        Just(TlsFault::PlainHttp),
        text().prop_map(|first_bytes| TlsFault::NotTls { first_bytes }),
        (any::<u8>(), text()).prop_map(|(alert, name)| TlsFault::Alert { alert, name }),
        text().prop_map(|reason| TlsFault::Incompatible { reason }),
        received().prop_map(|received| TlsFault::Reset { received }),
        received().prop_map(|received| TlsFault::Closed { received }),
        received().prop_map(|received| TlsFault::Timeout { received }),
        text().prop_map(|reason| TlsFault::Other { reason }),
    ]
}

fn http_fault() -> impl Strategy<Value = HttpFault> {
    let code = prop::sample::select(vec![
        None,
        Some("UNAUTHORIZED"),
        Some("DENIED"),
        Some("NAME_UNKNOWN"),
        Some("MANIFEST_UNKNOWN"),
        Some("BLOB_UNKNOWN"),
        Some("TOOMANYREQUESTS"),
        Some("AccessDenied"),
        Some("UNSUPPORTED"),
    ]);
    let answered = (300..600_u16, code, any::<bool>());
    prop_oneof![
        8 => answered.prop_map(|(of, code, challenged)| status(of, code, challenged)),
        1 => text().prop_map(|reason| HttpFault::Malformed { reason }),
        1 => Just(HttpFault::Stalled { after: Bytes(7) }),
        1 => Just(HttpFault::Truncated { got: Bytes(7), want: None }),
        1 => Just(HttpFault::Timeout),
        1 => Just(HttpFault::Reset),
        1 => Just(HttpFault::Closed),
        1 => Just(HttpFault::TooLarge { limit: Bytes(7) }),
        1 => Just(HttpFault::RequestLimit { limit: 256 }),
        1 => Just(HttpFault::ResumedTooOften { limit: 32, got: Bytes(33) }),
        1 => Just(HttpFault::TooSlow { within_seconds: 60, got: Bytes(33), want: None }),
        1 => Just(HttpFault::RedirectUntrusted { to: "http://localhost".to_owned(), reason: Distrust::Loopback }),
        1 => Just(HttpFault::TooManyRedirects { limit: 10 }),
        1 => text().prop_map(|reason| HttpFault::Reconnect { phase: Phase::Connect, reason, tls: None }),
        1 => text().prop_map(|reason| HttpFault::Other { reason }),
    ]
}

fn token_fault() -> impl Strategy<Value = TokenFault> {
    prop_oneof![
        Just(TokenFault::NoCredential),
        http_fault().prop_map(|fault| TokenFault::Rejected { fault }),
        Just(TokenFault::RealmUntrusted {
            realm: endpoint(AUTH),
            reason: Distrust::LinkLocal
        }),
        Just(TokenFault::NoToken {
            method: "POST".to_owned(),
            fields: Vec::new()
        }),
        text().prop_map(|reason| TokenFault::BadChallenge { reason }),
        http_fault().prop_map(|fault| TokenFault::Http { fault }),
    ]
}

fn manifest_fault() -> impl Strategy<Value = ManifestFault> {
    prop_oneof![
        http_fault().prop_map(|fault| ManifestFault::Http { fault }),
        Just(ManifestFault::NoPlatform {
            available: Vec::new(),
            left_out: 0,
        }),
        text().prop_map(|media_type| ManifestFault::Unsupported { media_type }),
        Just(ManifestFault::DigestMismatch {
            expected: "a".to_owned(),
            got: "b".to_owned()
        }),
        text().prop_map(|reason| ManifestFault::Malformed { reason }),
    ]
}

fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(vec![Role::Registry, Role::Token, Role::Blob])
}

fn who() -> impl Strategy<Value = Option<CredentialId>> {
    prop::option::of(Just(credential(REGISTRY)))
}

/// Variants of any check, whether it ends early or not.
fn odd() -> impl Strategy<Value = Evidence> {
    let ahead = prop::sample::select(vec![None, Some(0), Some(400), Some(-400), Some(-172_800)]);
    let host = prop::sample::select(vec![REGISTRY, "auth.docker.io", "registry"]);
    (role(), ahead, host, address(), any::<bool>(), any::<bool>()).prop_map(
        |(role, ahead, host, address, has_roots, is_pod)| {
            let mut evidence = healthy();
            *evidence.leg_mut(role) = leg(role, host, address);
            evidence.leg_mut(role).clock = ahead.and_then(clock);
            if !has_roots {
                evidence.walk.roots.certificates = 0;
            }
            if is_pod {
                evidence.vantage.network = NetworkView::Pod;
            }
            evidence
        },
    )
}

fn spoilt() -> impl Strategy<Value = Evidence> {
    let dials = prop::collection::vec((address(), tcp_fault()), 1..4);
    prop_oneof![
        (odd(), role(), dns_fault(), dns_fault(), any::<bool>()).prop_map(
            |(evidence, role, fault, other, has_queries)| {
                let mut queries = asked(&other);
                queries.push(query(3, REGISTRY, Family::V4, Ok(&["203.0.113.9"])));
                evidence.unresolved(role, if has_queries { queries } else { Vec::new() }, fault)
            }
        ),
        (odd(), role(), dials).prop_map(|(evidence, role, dials)| {
            let attempts = dials
                .into_iter()
                .map(|(address, fault)| dial(address, Some(fault)))
                .collect();
            evidence.unconnected(role, attempts)
        }),
        (odd(), role(), tls_fault())
            .prop_map(|(evidence, role, fault)| evidence.unsecured(role, fault)),
        (odd(), http_fault()).prop_map(|(evidence, fault)| evidence.unanswered(fault)),
        (odd(), who(), token_fault()).prop_map(|(evidence, who, fault)| evidence.refused(
            who,
            failed(fault),
            no_head()
        )),
        (odd(), who(), http_fault(), any::<bool>(), any::<bool>()).prop_map(
            |(evidence, who, fault, has_token, has_ping)| {
                let token = if has_token {
                    grant(Access::Unreadable)
                } else {
                    Step::Skipped {
                        reason: Skip::NotNeeded,
                    }
                };
                let mut evidence = evidence.refused(who, token, failed(fault));
                if !has_ping {
                    evidence.walk.ping = failed(status(404, None, false));
                }
                evidence
            }
        ),
        (odd(), manifest_fault()).prop_map(|(evidence, fault)| evidence.no_manifest(fault)),
        (odd(), http_fault()).prop_map(|(evidence, fault)| evidence.no_blob(fault)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_walk_that_failed_is_without_a_critical_finding_at_the_phase_that_failed(evidence in spoilt()) {
        let verdict = judge(&evidence);
        is_sound(&verdict);
        prop_assert_ne!(verdict.pull, Pull::WouldSucceed);
        let named = |leg: Role| {
            let mut all = verdict.findings.iter().chain(&verdict.consequences);
            all.any(|f| f.severity == Critical && f.leg == Some(leg))
        };
        for leg in &evidence.walk.legs {
            let outcomes = [
                leg.resolve.outcome.fault().is_some(),
                leg.connect.outcome.fault().is_some(),
                leg.tls.outcome.fault().is_some(),
            ];
            prop_assert!(!outcomes.contains(&true) || named(leg.role), "{verdict:#?}");
        }
    }

    #[test]
    fn no_walk_that_came_to_its_end_is_called_a_failure(evidence in odd()) {
        let verdict = judge(&evidence);
        is_sound(&verdict);
        prop_assert_eq!(verdict.pull, Pull::WouldSucceed);
    }

    #[test]
    fn a_verdict_survives_its_json(evidence in spoilt()) {
        let verdict = judge(&evidence);
        let json = serde_json::to_string(&verdict).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Verdict>(&json).unwrap(), &verdict);
        let json = serde_json::to_string(&evidence).unwrap();
        prop_assert_eq!(judge(&serde_json::from_str(&json).unwrap()), verdict);
    }
}

#[test]
fn an_empty_record_is_judged_without_harm() {
    let mut evidence = healthy();
    evidence.walk.legs.clear();
    evidence.walk.attempts.clear();
    evidence.walk.ping = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    evidence.walk.manifest = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    evidence.walk.blob = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    is_sound(&judge(&evidence));
    evidence
        .walk
        .legs
        .push(leg(Role::Registry, REGISTRY, "10.0.3.9"));
    evidence.walk.legs[0].resolve = Resolve {
        beyond: Vec::new(),
        queries: Vec::new(),
        sends_edns: None,
        edns_trials: Vec::new(),
        without_edns: None,
        outcome: Step::Done {
            value: Resolution {
                name: REGISTRY.to_owned(),
                addresses: Vec::new(),
                cnames: Vec::new(),
                source: ResolutionSource::Override,
            },
            took: Duration::ZERO,
        },
    };
    is_sound(&judge(&evidence));
}

#[test]
fn what_was_not_observed_of_the_node_lowers_what_depends_on_it() {
    let refused = |unseen: &[NotObserved], network| {
        let mut evidence = healthy().unsecured(Role::Registry, unknown_issuer());
        evidence.vantage.network = network;
        evidence.vantage.not_observed = unseen.to_vec();
        only(&evidence, "tls_unknown_ca", Critical)
    };
    for (unseen, network, confidence) in [
        (vec![], NetworkView::Node, Confidence::High),
        (
            vec![NotObserved::NodeRoots],
            NetworkView::Node,
            Confidence::Medium,
        ),
        (
            vec![NotObserved::NodeRoots],
            NetworkView::Machine,
            Confidence::Medium,
        ),
        (
            vec![NotObserved::ImageStore],
            NetworkView::Pod,
            Confidence::High,
        ),
    ] {
        let finding = refused(&unseen, network);
        assert_eq!(finding.confidence, confidence, "{unseen:?}");
        let is_listed = finding
            .evidence
            .iter()
            .any(|fact| fact.contains("the node's trusted roots"));
        assert_eq!(is_listed, unseen.contains(&NotObserved::NodeRoots));
    }
    let expired = |unseen: &[NotObserved], network| {
        let mut evidence = healthy().unsecured(
            Role::Registry,
            TlsFault::NameMismatch {
                expected: REGISTRY.to_owned(),
                presented: vec!["other.example.com".to_owned()],
            },
        );
        evidence.vantage.network = network;
        evidence.vantage.not_observed = unseen.to_vec();
        only(&evidence, "tls_name", Critical).confidence
    };
    for unseen in [NotObserved::Mirrors, NotObserved::Proxy] {
        assert_eq!(expired(&[unseen], NetworkView::Pod), Confidence::Medium);
        // What this machine has may be what containerd has.
        assert_eq!(expired(&[unseen], NetworkView::Machine), Confidence::High);
    }
    assert_eq!(expired(&[], NetworkView::Pod), Confidence::High);
}
