//! Name servers that lack TCP or EDNS, and aliases that lead nowhere.

use super::*;
use crate::diagnose::fixture::ms;
use crate::model::resolve::{EdnsTrial, NegativeAnswer, Query};

fn truncated(last: u8, family: Family, fault: DnsFault) -> Query {
    let mut query = query(last, REGISTRY, family, Err(fault));
    query.tcp = true;
    query.truncated_after = Some(ms(3));
    query
}

#[test]
fn a_truncated_answer_with_tcp_closed_is_reported_as_that() {
    for (fault, words) in [
        (DnsFault::PortClosed, "port 53 of 10.0.0.2: refused after"),
        (DnsFault::Timeout, "port 53 of 10.0.0.2: no answer within"),
    ] {
        let queries = vec![
            truncated(2, Family::V4, fault.clone()),
            query(2, REGISTRY, Family::V6, Err(DnsFault::NoData)),
        ];
        // Whichever fault Go reports.
        for reported in [fault.clone(), DnsFault::NoData] {
            let evidence = healthy().unresolved(Role::Registry, queries.clone(), reported);
            let finding = only(&evidence, "dns_tcp_closed", Critical);
            says(
                &finding,
                &[
                    "over UDP after 3.0 ms with TC set",
                    words,
                    "Open TCP 53 to 10.0.0.2",
                ],
            );
            assert!(!finding.hint.contains("Start"), "{}", finding.hint);
            assert_eq!(finding.confidence, Confidence::High);
        }
    }
    // A server that failed over TCP for want of an answer is open.
    let queries = vec![truncated(2, Family::V4, DnsFault::ServFail)];
    only(
        &healthy().unresolved(Role::Registry, queries, DnsFault::ServFail),
        "dns_servfail",
        Critical,
    );
    // Silence over UDP is silence.
    let queries = vec![query(2, REGISTRY, Family::V4, Err(DnsFault::Timeout))];
    only(
        &healthy().unresolved(Role::Registry, queries, DnsFault::Timeout),
        "dns_timeout",
        Critical,
    );
}

#[test]
fn another_server_that_answers_saves_the_pull_from_one_without_tcp() {
    let mut evidence = two_servers(&DnsFault::PortClosed);
    let queries = &mut evidence.leg_mut(Role::Registry).resolve.queries;
    queries[0] = truncated(2, Family::V4, DnsFault::PortClosed);
    queries[1] = query(2, REGISTRY, Family::V6, Err(DnsFault::NoData));
    let finding = only(&evidence, "dns_tcp_closed", Warning);
    let is_cost = |fact: &String| fact.contains("each lookup of");
    assert!(!finding.evidence.iter().any(is_cost));
    // The silence of TCP is waited for each time.
    let mut silent = truncated(2, Family::V4, DnsFault::Timeout);
    let Step::Failed { took, .. } = &mut silent.outcome else {
        unreachable!()
    };
    *took = ms(5000);
    for leg in &mut evidence.walk.legs {
        leg.resolve
            .queries
            .truncate(if leg.role == Role::Registry { 4 } else { 0 });
    }
    evidence.leg_mut(Role::Registry).resolve.queries[0] = silent;
    evidence.vantage.resolver = Some(Box::new(ResolverSettings {
        nameservers: vec![server(2), server(3)],
        ..ResolverSettings::default()
    }));
    let finding = only(&evidence, "dns_tcp_closed", Warning);
    says(
        &finding,
        &["each lookup of 'registry.example.com' takes 5.0 s"],
    );

    // Two servers, each with its own fault: both are reported.
    let queries = vec![
        truncated(2, Family::V4, DnsFault::PortClosed),
        query(3, REGISTRY, Family::V4, Err(DnsFault::Timeout)),
    ];
    let evidence = healthy().unresolved(Role::Registry, queries, DnsFault::Timeout);
    assert_eq!(
        codes(&judge(&evidence).findings),
        ["dns_timeout", "dns_tcp_closed"]
    );
}

fn without_edns(
    fault: &DnsFault,
    sends_edns: Option<bool>,
    again: Step<crate::model::resolve::Answer, DnsFault>,
) -> Evidence {
    let mut evidence = healthy().unresolved(Role::Registry, asked(fault), fault.clone());
    let resolve = &mut evidence.leg_mut(Role::Registry).resolve;
    resolve.sends_edns = sends_edns;
    resolve.edns_trials = vec![EdnsTrial {
        server: server(2),
        without: query(2, REGISTRY, Family::V4, Ok(&["10.0.3.9"])).outcome,
        with: again,
    }];
    evidence
}

#[test]
fn an_answer_that_fits_only_with_edns_needs_tcp_of_builds_without() {
    let large = |without: Query| {
        let mut evidence = healthy();
        let resolve = &mut evidence.leg_mut(Role::Registry).resolve;
        resolve.queries[0].large_answer_bytes = Some(900);
        resolve.without_edns = Some(Box::new(without));
        evidence.pulled = Some(true);
        evidence
    };
    let evidence = large(truncated(2, Family::V4, DnsFault::PortClosed));
    let finding = only(&evidence, "dns_tcp_closed", Critical);
    says(&finding, &["900 bytes", "depends on its build"]);
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
    quiet(&large(query(2, REGISTRY, Family::V4, Ok(&["10.0.3.9"]))));
    // Another server may answer then.
    let mut evidence = evidence;
    let queries = &mut evidence.leg_mut(Role::Registry).resolve.queries;
    queries.push(query(3, REGISTRY, Family::V4, Ok(&["10.0.3.9"])));
    only(&evidence, "dns_tcp_closed", Warning);
}

#[test]
fn a_server_without_edns_fails_the_builds_that_send_it() {
    let code = DnsFault::OtherCode {
        code: "FORMERR".to_owned(),
    };
    for fault in [DnsFault::Timeout, code] {
        let evidence = without_edns(&fault, Some(true), failed(fault.clone()));
        let finding = only(&evidence, "dns_no_edns", Critical);
        says(
            &finding,
            &["with EDNS", "without EDNS: 10.0.3.9", "GODEBUG=netedns0=0"],
        );
        assert_eq!(judge(&evidence).pull, Pull::WouldFail);

        let evidence = without_edns(&fault, None, failed(fault.clone()));
        let finding = only(&evidence, "dns_no_edns", Critical);
        says(
            &finding,
            &["depends on its build", "--runtime (`containerd://VERSION`)"],
        );
        assert_eq!(judge(&evidence).pull, Pull::Unknown);
    }
}

#[test]
fn a_server_that_answers_with_edns_the_second_time_is_not_accused() {
    let again = query(2, REGISTRY, Family::V4, Ok(&["10.0.3.9"])).outcome;
    let evidence = without_edns(&DnsFault::Timeout, None, again);
    only(&evidence, "dns_timeout", Critical);
    let mut silent = without_edns(&DnsFault::Timeout, None, Step::default());
    silent.leg_mut(Role::Registry).resolve.edns_trials[0].without = failed(DnsFault::Timeout);
    only(&silent, "dns_timeout", Critical);
}

#[test]
fn an_alias_without_an_end_names_its_zone() {
    let ends = |fault: &DnsFault, zone: Option<&str>| {
        let mut queries = asked(fault);
        for query in &mut queries {
            query.negative = Some(NegativeAnswer {
                cnames: vec!["reg-7.privatelink.example.net.".to_owned()],
                zone: zone.map(str::to_owned),
            });
        }
        healthy().unresolved(Role::Registry, queries, fault.clone())
    };
    for (fault, code) in [
        (DnsFault::NxDomain, "dns_nxdomain"),
        (DnsFault::NoData, "dns_nodata"),
    ] {
        for zone in [None, Some("privatelink.example.net.")] {
            let finding = only(&ends(&fault, zone), code, Critical);
            says(
                &finding,
                &[
                    "'registry.example.com' is an alias of 'reg-7.privatelink.example.net', and that name has no address at 10.0.0.2",
                    "the zone 'privatelink.example.net'",
                    "private zone",
                    "link that zone to this VPC",
                ],
            );
        }
        // The server does not have the private zone at all.
        says(
            &only(&ends(&fault, Some("example.net.")), code, Critical),
            &[
                "in the zone 'example.net'",
                "a private zone ('privatelink.example.net')",
            ],
        );
    }
    let plain = healthy().unresolved(
        Role::Registry,
        asked(&DnsFault::NxDomain),
        DnsFault::NxDomain,
    );
    assert!(
        !only(&plain, "dns_nxdomain", Critical)
            .hint
            .contains("alias")
    );
}
