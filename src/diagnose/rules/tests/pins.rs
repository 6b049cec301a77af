//! Addresses that the hosts file pins.

use super::*;
use crate::model::evidence::PinTrial;
use crate::model::proxy::{Proxy, ProxyRoute};
use crate::model::resolve::Query;

const PINNED: &str = "10.0.3.9";
const IN_DNS: &str = "10.0.4.1";
const BOTH: &str = "the address is pinned by the hosts file (10.0.3.9), DNS has 10.0.4.1";

/// The leg's addresses are from the hosts file; DNS says this.
fn pin(evidence: &mut Evidence, role: Role, pinned: &[&str], said: Result<&[&str], DnsFault>) {
    let leg = evidence.leg_mut(role);
    let name = leg.dialed().to_string();
    let family = match said {
        Ok([address, ..]) => Family::of(address.parse().unwrap()),
        _ => Family::V4,
    };
    leg.resolve.queries = vec![query(2, &name, family, said)];
    leg.resolve.outcome = done(Resolution {
        name,
        addresses: pinned.iter().map(|one| one.parse().unwrap()).collect(),
        cnames: Vec::new(),
        source: ResolutionSource::HostsFile,
    });
}

fn try_dns(evidence: &mut Evidence, role: Role, fault: Option<&str>) {
    evidence.leg_mut(role).pin_trial = Some(PinTrial {
        to: format!("{IN_DNS}:443").parse().unwrap(),
        fault: fault.map(str::to_owned),
    });
}

/// The pinned address fails like this.
fn unconnected(fault: TcpFault, said: Result<&[&str], DnsFault>) -> Evidence {
    let mut evidence = healthy().unconnected(Role::Registry, vec![dial(PINNED, Some(fault))]);
    pin(&mut evidence, Role::Registry, &[PINNED], said);
    evidence
}

fn mismatch(expected: &str) -> TlsFault {
    TlsFault::NameMismatch {
        expected: expected.to_owned(),
        presented: vec!["intranet.example.com".to_owned()],
    }
}

fn unsecured(role: Role, said: Result<&[&str], DnsFault>) -> Evidence {
    let name = if role == Role::Blob { BLOBS } else { REGISTRY };
    let mut evidence = healthy().unsecured(role, mismatch(name));
    pin(&mut evidence, role, &[PINNED], said);
    evidence.leg_mut(role).connect = dialed(vec![dial(PINNED, None)]);
    evidence
}

#[test]
fn a_pin_of_a_family_that_only_the_hosts_file_has_differs() {
    let no_route = || TcpFault::NetUnreachable { icmp: None };
    let six = "fd00::9";
    let pinned = |said: &[Query], all: &[&str]| {
        let dials = vec![dial(six, Some(no_route()))];
        let mut evidence = healthy().unconnected(Role::Registry, dials);
        pin(&mut evidence, Role::Registry, all, Ok(&[IN_DNS]));
        let queries = &mut evidence.leg_mut(Role::Registry).resolve.queries;
        queries.extend(said.iter().cloned());
        try_dns(&mut evidence, Role::Registry, None);
        evidence
    };
    let none = [query(2, REGISTRY, Family::V6, Err(DnsFault::NoData))];
    let finding = only(&pinned(&none, &[six]), "dns_stale", Critical);
    says(&finding, &["Correct the entry", "DNS has 10.0.4.1"]);
    // Nothing is known about the family; an entry that agrees is beside it.
    let silent = [query(2, REGISTRY, Family::V6, Err(DnsFault::Timeout))];
    for evidence in [pinned(&silent, &[six]), pinned(&none, &[six, IN_DNS])] {
        only(&evidence, "net_unreachable", Critical);
    }
}

#[test]
fn a_pin_that_differs_is_the_cause_of_what_does_not_connect() {
    let old = || unconnected(TcpFault::Timeout, Ok(&[IN_DNS]));
    let finding = only(&old(), "dns_stale", Critical);
    says(&finding, &[BOTH, "Correct the entry"]);
    assert_eq!(finding.confidence, Confidence::Medium);
    assert_eq!(codes(&judge(&old()).consequences), ["tcp_timeout"]);

    let mut tried = old();
    tried.vantage.not_observed.clear();
    try_dns(&mut tried, Role::Registry, None);
    let finding = only(&tried, "dns_stale", Critical);
    says(&finding, &["10.0.4.1:443 was tried: TLS succeeds there"]);
    assert_eq!(finding.confidence, Confidence::High);
    let mut elsewhere = tried.clone();
    elsewhere
        .vantage
        .not_observed
        .push(NotObserved::NodeResolver);
    let finding = only(&elsewhere, "dns_stale", Critical);
    assert_eq!(finding.confidence, Confidence::Medium);
    // The node's file may have been corrected since this pod started.
    let mut copied = tried;
    copied.vantage.hosts_copied = true;
    let finding = only(&copied, "dns_stale", Critical);
    assert_eq!(finding.confidence, Confidence::Medium);
    says(&finding, &["the kubelet's copy"]);

    // DNS's own address is no better: something else is wrong.
    let mut worse = old();
    try_dns(
        &mut worse,
        Role::Registry,
        Some("no answer to the SYN in time"),
    );
    says(
        &only(&worse, "tcp_timeout", Critical),
        &[BOTH, "10.0.4.1:443 was tried as well: no answer to the SYN"],
    );
}

#[test]
fn a_pin_that_agrees_or_that_dns_does_not_know_is_never_old() {
    let timeout = |said| unconnected(TcpFault::Timeout, said);
    for (said, words) in [
        (Ok(&[PINNED][..]), "as in DNS"),
        (Ok(&[PINNED, IN_DNS][..]), "as in DNS"),
        (Err(DnsFault::NxDomain), "DNS has no address for the name"),
        (Err(DnsFault::NoData), "DNS has no address for the name"),
        (Err(DnsFault::Timeout), "the name servers do not answer"),
        (Err(DnsFault::ServFail), "the name servers do not answer"),
        // DNS has no address of the entry's family.
        (Ok(&["2001:db8::1"][..]), "DNS has 2001:db8::1"),
    ] {
        says(
            &only(&timeout(said.clone()), "tcp_timeout", Critical),
            &["hosts file", words],
        );
        let evidence = unsecured(Role::Registry, said);
        only(&evidence, "tls_name", Critical);
    }
    // This machine's lack of a route, or its own policy, is not about the entry.
    for (fault, code) in [
        (TcpFault::NetUnreachable { icmp: None }, "net_unreachable"),
        (TcpFault::LocalPolicy { errno: 1 }, "local_policy"),
    ] {
        only(&unconnected(fault, Ok(&[IN_DNS])), code, Critical);
    }
    // Addresses that were given are no pins.
    let mut given = unconnected(TcpFault::Timeout, Ok(&[IN_DNS]));
    if let Step::Done { value, .. } = &mut given.leg_mut(Role::Registry).resolve.outcome {
        value.source = ResolutionSource::Override;
    }
    only(&given, "tcp_timeout", Critical);
}

#[test]
fn a_closed_port_is_refused_whoever_named_the_address() {
    let refused = |said| unconnected(TcpFault::Refused { icmp: None }, said);
    // A host answers there. Only a server at DNS's address shows that the entry is the reason.
    let differs = || {
        let mut evidence = refused(Ok(&[IN_DNS]));
        evidence.vantage.not_observed.clear();
        evidence
    };
    let finding = only(&differs(), "tcp_refused", Critical);
    assert_eq!(finding.evidence[0], BOTH);
    assert_eq!(finding.confidence, Confidence::Medium);
    says(&finding, &["Check that a server listens at 10.0.3.9"]);
    assert!(!finding.hint.contains("hosts file"), "{}", finding.hint);
    let mut worse = differs();
    try_dns(&mut worse, Role::Registry, Some("connection refused (RST)"));
    let finding = only(&worse, "tcp_refused", Critical);
    says(
        &finding,
        &["10.0.4.1:443 was tried as well: connection refused"],
    );
    assert_eq!(finding.confidence, Confidence::High);
    let mut better = differs();
    try_dns(&mut better, Role::Registry, None);
    let finding = only(&better, "tcp_refused", Critical);
    assert_eq!(finding.confidence, Confidence::High);
    assert_eq!(finding.evidence[0], BOTH);
    says(&finding, &["10.0.4.1:443 was tried: TLS succeeds there"]);
    assert!(
        finding.hint.starts_with("Correct the entry"),
        "{}",
        finding.hint
    );
    says(
        &finding,
        &["If it is meant: Check that a server listens at 10.0.3.9"],
    );
    for said in [Ok(&[PINNED][..]), Err(DnsFault::NxDomain)] {
        let finding = only(&refused(said), "tcp_refused", Critical);
        assert!(!finding.hint.contains("hosts file"), "{}", finding.hint);
        says(&finding, &["from the hosts file"]);
    }
}

#[test]
fn another_certificate_behind_a_pin_is_its_fault_if_dns_has_the_right_one() {
    for role in [Role::Registry, Role::Blob] {
        let mut evidence = unsecured(role, Ok(&[IN_DNS]));
        evidence.vantage.not_observed.clear();
        try_dns(&mut evidence, role, None);
        let finding = only(&evidence, "dns_stale", Critical);
        assert_eq!(
            (finding.leg, finding.confidence),
            (Some(role), Confidence::High)
        );
        says(&finding, &[BOTH, "certificate is not for"]);
        assert_eq!(codes(&judge(&evidence).consequences), ["tls_name"]);

        try_dns(&mut evidence, role, Some("certificate expired"));
        let finding = only(&evidence, "tls_name", Critical);
        says(
            &finding,
            &[BOTH, "10.0.4.1:443 was tried as well: certificate expired"],
        );
    }
    // Not tried: both are listed, none for certain.
    let verdict = judge(&unsecured(Role::Registry, Ok(&[IN_DNS])));
    assert_eq!(codes(&verdict.findings), ["dns_stale", "tls_name"]);
    assert!(
        verdict
            .findings
            .iter()
            .all(|f| f.confidence == Confidence::Medium)
    );
}

/// Harbor's answer for a tag.
fn lacks_the_tag() -> Evidence {
    not_found(
        Some("NOT_FOUND"),
        Some("artifact team/app:1.0 not found"),
        false,
    )
}

#[test]
fn what_another_registry_says_behind_a_pin_leads_to_the_pin_first() {
    let missing = || {
        let mut evidence = lacks_the_tag();
        pin(&mut evidence, Role::Registry, &[PINNED], Ok(&[IN_DNS]));
        evidence
    };
    let verdict = judge(&missing());
    assert_eq!(codes(&verdict.findings), ["dns_stale", "manifest_unknown"]);
    assert!(
        verdict
            .findings
            .iter()
            .all(|f| f.confidence == Confidence::Medium)
    );
    says(
        &verdict.findings[0],
        &[BOTH, "--resolve registry.example.com:443:10.0.4.1"],
    );
    says(&verdict.findings[1], &[BOTH]);

    // It stays a suspicion: the right server at DNS's address may lack the tag as well.
    let mut tried = missing();
    try_dns(&mut tried, Role::Registry, None);
    assert_eq!(judge(&tried).findings[0].confidence, Confidence::Medium);
    // A pin to the only server that works is meant.
    try_dns(&mut tried, Role::Registry, Some("no answer in time"));
    let finding = only(&tried, "manifest_unknown", Critical);
    assert_eq!(finding.confidence, Confidence::High);
    // And one that agrees has no part in it.
    let mut agrees = missing();
    pin(&mut agrees, Role::Registry, &[PINNED], Ok(&[PINNED]));
    only(&agrees, "manifest_unknown", Critical);
    // A pin of another leg is not behind it.
    let mut other = lacks_the_tag();
    pin(&mut other, Role::Token, &["10.0.3.10"], Ok(&[IN_DNS]));
    only(&other, "manifest_unknown", Critical);
}

#[test]
fn a_proxys_name_may_be_pinned_as_well() {
    let proxied = |said| {
        let mut evidence =
            healthy().unconnected(Role::Registry, vec![dial(PINNED, Some(TcpFault::Timeout))]);
        evidence.leg_mut(Role::Registry).proxy_route = ProxyRoute::Proxied {
            proxy: Proxy {
                scheme: "http".to_owned(),
                authority: "proxy.example.com:3128".to_owned(),
                authenticated: false,
                variable: "HTTPS_PROXY".to_owned(),
                fault: None,
            },
            missed: Vec::new(),
        };
        pin(&mut evidence, Role::Registry, &[PINNED], said);
        judge(&evidence)
    };
    let verdict = proxied(Ok(&[IN_DNS]));
    assert_eq!(
        codes(&verdict.findings),
        ["proxy_misconfigured", "dns_stale"]
    );
    assert_eq!(verdict.findings[1].severity, Warning);
    let hint = &verdict.findings[0].hint;
    assert!(
        hint.starts_with("Correct the entry of 'proxy.example.com'"),
        "{hint}"
    );
    assert_eq!(verdict.findings[0].confidence, Confidence::Medium);
    let verdict = proxied(Ok(&[PINNED]));
    assert_eq!(codes(&verdict.findings), ["proxy_misconfigured"]);
}

#[test]
fn one_of_two_pinned_addresses_that_is_dead() {
    let mut evidence = healthy();
    evidence.leg_mut(Role::Registry).connect = dialed(vec![
        dial("10.0.3.8", Some(TcpFault::Timeout)),
        dial(PINNED, None),
    ]);
    let mut half = evidence.clone();
    pin(
        &mut half,
        Role::Registry,
        &["10.0.3.8", PINNED],
        Ok(&[PINNED]),
    );
    let finding = only(&half, "dns_stale", Warning);
    says(
        &finding,
        &[
            "pinned by the hosts file (10.0.3.8, 10.0.3.9)",
            "the entry 10.0.3.8",
        ],
    );
    assert_eq!(codes(&judge(&half).consequences), ["address_partly_dead"]);

    // DNS has it too, or is not there: the address is dead, and the file is where it is named.
    for said in [Ok(&["10.0.3.8", PINNED][..]), Err(DnsFault::NxDomain)] {
        let mut agrees = evidence.clone();
        pin(&mut agrees, Role::Registry, &["10.0.3.8", PINNED], said);
        let finding = only(&agrees, "address_partly_dead", Warning);
        says(
            &finding,
            &["Remove 10.0.3.8 from the entries of 'registry.example.com' in the hosts file"],
        );
    }
}

#[test]
fn a_pin_that_works_is_shown_and_not_reported() {
    let mut evidence = healthy();
    pin(&mut evidence, Role::Registry, &[PINNED], Ok(&[IN_DNS]));
    quiet(&evidence);
    pin(
        &mut evidence,
        Role::Registry,
        &[PINNED],
        Err(DnsFault::Timeout),
    );
    quiet(&evidence);
}

#[test]
fn silent_public_addresses_beside_good_ones_are_first_a_filters() {
    let partly = |role, good: &str, dead: &str, fault: TcpFault| {
        let mut evidence = healthy();
        evidence.leg_mut(role).connect = dialed(vec![dial(dead, Some(fault)), dial(good, None)]);
        only(&evidence, "address_partly_dead", Warning).hint
    };
    let hint = partly(Role::Blob, "203.0.113.9", "198.51.100.7", TcpFault::Timeout);
    assert!(
        hint.starts_with("First look for a filter by address"),
        "{hint}"
    );
    assert!(
        hint.contains("TCP 443 to every address of 'blobs.example.net'"),
        "{hint}"
    );
    for hint in [
        partly(
            Role::Blob,
            "203.0.113.9",
            "198.51.100.7",
            TcpFault::Refused { icmp: None },
        ),
        partly(Role::Registry, "10.0.3.9", "10.0.3.12", TcpFault::Timeout),
    ] {
        assert!(hint.starts_with("Remove the dead addresses"), "{hint}");
    }
}
