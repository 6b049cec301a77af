//! Findings that the classes of paths lead to.

use super::*;
use crate::diagnose::fixture::ms;
use crate::model::network::{
    Control, EgressMethod, EgressTrial, ExpectedPath, Link, MappedClass, Metadata, MetadataFacts,
    ObservedEgress, PodEip, RouteLookup, RouteOutcome,
};
use crate::model::path::PathClass;

#[test]
fn a_private_address_that_is_not_reached_asks_for_a_line_of_configuration() {
    let evidence = healthy().unconnected(
        Role::Registry,
        vec![dial("192.168.50.10", Some(TcpFault::Timeout))],
    );
    assert_eq!(
        codes(&judge(&evidence).findings),
        ["tcp_timeout", "private_unmapped"]
    );
    let finding = &judge(&evidence).findings[1];
    says(finding, &["192.168.50.0/24", "network.cidrs"]);
    // If it is reached, the class of the path shows it.
    let mut evidence = healthy();
    evidence.vantage.declared.cidrs.clear();
    evidence.leg_mut(Role::Blob).connect = dialed(vec![dial("10.0.3.10", None)]);
    assert!(judge(&evidence).findings.is_empty());
}

#[test]
fn no_egress_is_reported_only_where_everybody_out_there_is_silent() {
    let control = |host: &str, fault: Option<TcpFault>| Control {
        host: host.to_owned(),
        unresolved: None,
        attempts: vec![dial("203.0.113.77", fault)],
    };
    let silent = || Some(TcpFault::Timeout);
    let mut evidence = healthy().unconnected(
        Role::Registry,
        vec![dial("203.0.113.9", Some(TcpFault::Timeout))],
    );
    only(&evidence, "tcp_timeout", Critical);
    evidence.vantage.controls = vec![
        control("a.test:443", silent()),
        control("b.test:443", silent()),
    ];
    let finding = only(&evidence, "no_egress", Critical);
    says(&finding, &["a.test:443", "b.test:443", "NAT gateway"]);
    assert_eq!(finding.confidence, Confidence::High);
    assert_eq!(codes(&judge(&evidence).consequences), ["tcp_timeout"]);
    evidence.vantage.controls[1] = control("b.test:443", None);
    let finding = only(&evidence, "tcp_timeout", Critical);
    says(&finding, &["ask its operator to allow"]);
    // A host without a name, one that refuses, and one in this network show nothing about egress.
    let refused = Some(TcpFault::Refused { icmp: None });
    let mut nameless = control("c.test:443", None);
    nameless.attempts.clear();
    nameless.unresolved = Some("the name does not exist (NXDOMAIN)".to_owned());
    let mut inside = control("d.test:443", silent());
    inside.attempts = vec![dial("10.0.3.77", Some(TcpFault::Timeout))];
    evidence.vantage.controls = vec![control("b.test:443", refused), nameless, inside];
    let finding = only(&evidence, "tcp_timeout", Critical);
    says(&finding, &["NAT gateway"]);
}

#[test]
fn an_address_of_two_networks_is_reported_with_which_route_counts() {
    let mut evidence = healthy().unconnected(
        Role::Registry,
        vec![dial("10.0.3.9", Some(TcpFault::Timeout))],
    );
    evidence.vantage.declared.cidrs[0].class = MappedClass::VpcPeering;
    evidence.vantage.links = vec![Link {
        name: "eth0".to_owned(),
        kind: None,
        mtu: Some(1500),
        is_up: true,
        master: None,
        addresses: vec!["10.0.3.4/24".parse().unwrap()],
    }];
    let finding = only(&evidence, "address_overlap", Critical);
    says(
        &finding,
        &[
            "10.0.3.0/24",
            "eth0",
            "10.0.0.0/16",
            "vpc_peering",
            "Renumber",
        ],
    );
    assert_eq!(codes(&judge(&evidence).consequences), ["tcp_timeout"]);
    // Somebody answers: it may be the wrong one.
    evidence = healthy();
    evidence.vantage.declared.cidrs[0].class = MappedClass::VpcPeering;
    evidence.vantage.metadata = Metadata::Answered {
        facts: MetadataFacts {
            provider: Provider::Aws,
            vpc_id: None,
            vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            subnet_cidrs: Vec::new(),
            private: Vec::new(),
            public: None,
            max_bandwidth_mbit: None,
        },
        took: ms(3),
    };
    let verdict = judge(&evidence);
    assert_eq!(
        codes(&verdict.findings),
        ["address_overlap", "address_overlap"]
    );
    assert_eq!(verdict.pull, Pull::WouldSucceed);
}

#[test]
fn addresses_that_go_different_ways_are_reported() {
    let mut evidence = healthy();
    let both = vec![dial("10.0.3.9", None), dial("203.0.113.8", None)];
    evidence.leg_mut(Role::Registry).connect = dialed(both);
    let finding = only(&evidence, "path_mixed", Warning);
    says(
        &finding,
        &["10.0.3.9 is intranet", "203.0.113.8 is public_unknown"],
    );
}

#[test]
fn a_path_that_was_declared_otherwise_is_reported() {
    let mut evidence = healthy();
    let expect = |host: &str, classes: &[PathClass]| ExpectedPath {
        host: host.to_owned(),
        classes: classes.to_vec(),
    };
    evidence.vantage.declared.expect = vec![expect(BLOBS, &[PathClass::Intranet])];
    let finding = only(&evidence, "path_unexpected", Warning);
    says(&finding, &[BLOBS, "public_unknown", "intranet"]);
    // An unknown class may be as declared.
    evidence.vantage.declared.expect = vec![expect(
        "*.example.com",
        &[PathClass::Intranet, PathClass::PublicEip],
    )];
    assert!(judge(&evidence).findings.is_empty());
}

#[test]
fn an_annotation_that_others_do_not_see_is_stale() {
    let mut evidence = healthy();
    evidence.vantage.network = NetworkView::Pod;
    evidence.vantage.pod_eip = Some(PodEip {
        source: "annotations".to_owned(),
        wanted: Some(true),
        allocated: Some("121.36.1.2".parse().unwrap()),
        ..PodEip::default()
    });
    let seen = |address: &str| EgressTrial {
        method: EgressMethod::HttpEcho,
        server: "echo.test:443".to_owned(),
        outcome: done(ObservedEgress {
            address: address.parse().unwrap(),
            port: None,
            local: None,
        }),
    };
    assert!(
        judge(&evidence).findings.is_empty(),
        "no server saw the address"
    );
    evidence.vantage.egress = vec![seen("121.36.1.2")];
    assert!(judge(&evidence).findings.is_empty());
    evidence.vantage.egress = vec![seen("121.36.9.9"), seen("2600::1")];
    let finding = only(&evidence, "eip_annotation_stale", Warning);
    says(&finding, &["121.36.1.2", "121.36.9.9"]);
    // It is the pod's, and not the node's.
    evidence.vantage.network = NetworkView::Node;
    assert!(judge(&evidence).findings.is_empty());
}

#[test]
fn the_storage_of_a_registry_inside_is_looked_for_inside_before_egress() {
    let storage = || vec![dial("52.216.1.1", Some(TcpFault::Timeout))];
    for (provider, first) in [
        (Provider::Huawei, "Check the VPC endpoint for OBS"),
        (Provider::Aws, "Check whether this network has an endpoint"),
    ] {
        let mut evidence = healthy().unconnected(Role::Blob, storage());
        evidence.vantage.provider = Some(ProviderSign {
            provider,
            by: ProviderBy::Declared,
        });
        let finding = only(&evidence, "redirect_blob", Critical);
        let hint = &finding.hint;
        let (endpoint, egress) = (hint.find(first), hint.find(" Or: "));
        assert!(endpoint.is_some() && endpoint < egress, "{hint}");
        assert!(hint.contains(BLOBS), "{hint}");
    }
    // The token service of such a registry: egress, or another realm.
    let evidence = healthy().unconnected(Role::Token, storage());
    let finding = only(&evidence, "auth_realm_unreachable", Critical);
    let hint = &finding.hint;
    assert!(
        hint.find("NAT gateway") < hint.find("external_url"),
        "{hint}"
    );
    // The registry is outside as well.
    let mut evidence = healthy().unconnected(Role::Blob, storage());
    evidence.leg_mut(Role::Registry).connect = dialed(vec![dial("52.216.1.9", None)]);
    let finding = only(&evidence, "redirect_blob", Critical);
    assert!(!finding.hint.contains("endpoint"), "{}", finding.hint);
}

#[test]
fn ipv6_alone_needs_no_rule_for_ipv4() {
    let v6_only = |mut evidence: Evidence| {
        evidence.vantage.links = vec![Link {
            name: "eth0".to_owned(),
            kind: None,
            mtu: Some(1500),
            is_up: true,
            master: None,
            addresses: vec!["2a0a:20:1::10/64".parse().unwrap()],
        }];
        evidence
    };
    let no_route = |address| vec![dial(address, Some(TcpFault::NetUnreachable { icmp: None }))];
    for role in [Role::Registry, Role::Blob] {
        let evidence = healthy().unconnected(role, no_route("45.60.70.20"));
        let finding = only(&v6_only(evidence.clone()), "net_unreachable", Critical);
        for wrong in [
            "SNAT",
            "EIP",
            "missing route",
            "ip route get",
            "NAT gateway",
        ] {
            assert!(!finding.hint.contains(wrong), "{}", finding.hint);
        }
        says(&finding, &["NAT64 with DNS64", "AAAA"]);
        // The devices were not read, or have IPv4.
        let finding = only(&evidence, "net_unreachable", Critical);
        assert!(!finding.hint.contains("NAT64"), "{}", finding.hint);
        says(&finding, &["ip route get 45.60.70.20"]);
    }
    let at_router = TcpFault::NetUnreachable {
        icmp: Some(icmp(0)),
    };
    let evidence = healthy().unconnected(
        Role::Registry,
        vec![dial("64:ff9b::2d3c:4614", Some(at_router))],
    );
    let finding = only(&v6_only(evidence), "net_unreachable", Critical);
    says(&finding, &["Route 64:ff9b::/96 to a NAT64 gateway"]);
}

#[test]
fn the_hint_on_a_private_address_has_a_line_for_each_class_and_no_default() {
    let evidence =
        healthy().unconnected(Role::Blob, vec![dial("10.9.3.9", Some(TcpFault::Timeout))]);
    let finding = judge(&evidence)
        .findings
        .into_iter()
        .find(|finding| finding.cause.code() == "private_unmapped")
        .unwrap();
    says(
        &finding,
        &[
            "class: intranet}` if the route is local",
            "class: vpc_peering}` if the next hop is a peering connection",
            "class: direct_connect_vpn}` if the next hop is",
        ],
    );
}

#[test]
fn connections_that_get_no_answer_after_others_may_lack_a_port_of_the_nat_gateway() {
    let silent = || HttpFault::Reconnect {
        phase: Phase::Connect,
        reason: TcpFault::Timeout.to_string(),
        tls: None,
    };
    let outside = |fault: HttpFault| {
        let mut evidence = healthy();
        evidence.walk.legs.truncate(1);
        evidence.walk.legs[0].connect = dialed(vec![dial("45.60.70.20", None)]);
        evidence.vantage.declared.cidrs.clear();
        evidence.vantage.declared.snat_addresses = vec!["121.36.9.9".parse().unwrap()];
        evidence.vantage.controls = vec![Control {
            host: "a.test:443".to_owned(),
            unresolved: None,
            attempts: vec![dial("45.60.70.30", None)],
        }];
        evidence.walk.blob = failed(fault);
        evidence
    };
    let found = |evidence: &Evidence| {
        let findings = judge(evidence).findings;
        let mut found = findings.into_iter();
        found.find(|finding| finding.cause.code() == "snat_exhaust")
    };
    let finding = found(&outside(silent())).unwrap();
    assert_eq!(finding.confidence, Confidence::Medium);
    says(
        &finding,
        &[
            "121.36.9.9",
            "a.test:443 can be reached",
            "no port left towards 45.60.70.20",
        ],
    );
    // Without a NAT gateway that is known, or others that answer, it is a guess.
    for spoil in [
        (|evidence: &mut Evidence| evidence.vantage.controls.clear()) as fn(&mut Evidence),
        |evidence| evidence.vantage.declared.snat_addresses.clear(),
    ] {
        let mut evidence = outside(silent());
        spoil(&mut evidence);
        assert_eq!(found(&evidence).unwrap().confidence, Confidence::Low);
    }
    // Connections that are cut are no sign of it, nor is a private address, nor an EIP.
    let cut = HttpFault::Reconnect {
        phase: Phase::Connect,
        reason: TcpFault::Reset.to_string(),
        tls: None,
    };
    assert!(found(&outside(cut)).is_none());
    let mut evidence = outside(silent());
    for leg in &mut evidence.walk.legs {
        leg.connect = dialed(vec![dial("10.0.3.9", None)]);
    }
    assert!(found(&evidence).is_none());
    let mut evidence = outside(silent());
    evidence.vantage.network = NetworkView::Node;
    evidence.vantage.node_external_ips = vec!["121.36.1.50".parse().unwrap()];
    assert!(found(&evidence).is_none());
}

#[test]
fn a_route_that_rejects_packets_is_named_with_its_table() {
    let address = "10.0.3.9".parse().unwrap();
    let with = |fault: TcpFault, by: &str, matched: Option<&str>, table: Option<u32>| {
        let mut evidence =
            healthy().unconnected(Role::Registry, vec![dial("10.0.3.9", Some(fault))]);
        evidence.vantage.not_observed.clear();
        evidence.leg_mut(Role::Registry).routes = vec![RouteLookup {
            to: address,
            outcome: RouteOutcome::Denied {
                by: by.to_owned(),
                matched: matched.map(|net| net.parse().unwrap()),
                table,
                set_by: None,
            },
        }];
        judge(&evidence).findings.remove(0)
    };
    let policy = || TcpFault::LocalPolicy { errno: 22 };
    let finding = with(policy(), "blackhole", Some("10.0.3.0/24"), Some(100));
    says(
        &finding,
        &[
            "`ip route del blackhole 10.0.3.0/24 table 100`",
            "`ip route get 10.0.3.9`",
        ],
    );
    assert_eq!(finding.confidence, Confidence::High);
    // A rule, or a report of an older version.
    let finding = with(policy(), "blackhole", None, None);
    says(&finding, &["`ip rule`", "type blackhole"]);
    let no_route = TcpFault::NetUnreachable { icmp: None };
    let finding = with(no_route.clone(), "throw", Some("10.0.0.0/16"), Some(254));
    says(
        &finding,
        &[
            "`throw 10.0.0.0/16` ends the lookup",
            "`ip route del throw 10.0.0.0/16`",
        ],
    );
    let finding = with(no_route, "no_route", None, None);
    says(&finding, &["Add the missing route"]);
    // What a router reports is not about this machine's routes.
    let icmp = IcmpError {
        from: Some("10.0.0.1".parse().unwrap()),
        version: 4,
        kind: 3,
        code: 1,
    };
    let finding = with(
        TcpFault::HostUnreachable { icmp: Some(icmp) },
        "unreachable",
        Some("10.0.3.0/24"),
        Some(254),
    );
    assert!(!finding.hint.contains("ip route del"), "{}", finding.hint);
}

/// The registry's address with this route and this fault.
fn routed(address: &str, outcome: RouteOutcome, fault: TcpFault) -> Evidence {
    let mut evidence = healthy().unconnected(Role::Registry, vec![dial(address, Some(fault))]);
    evidence.vantage.not_observed.clear();
    let to = address.parse().unwrap();
    evidence.leg_mut(Role::Registry).routes = vec![RouteLookup { to, outcome }];
    evidence
}

fn unicast(gateway: &str, matched: &str) -> RouteOutcome {
    RouteOutcome::Unicast {
        device: "eth0".to_owned(),
        device_kind: None,
        gateway: Some(gateway.parse().unwrap()),
        source: Some("10.0.0.1".parse().unwrap()),
        table: 254,
        matched: Some(matched.parse().unwrap()),
        mtu: Some(1500),
    }
}

#[test]
fn a_gateway_that_does_not_answer_is_not_the_server() {
    let unreachable = || TcpFault::HostUnreachable {
        icmp: Some(icmp(1)),
    };
    let route = || unicast("10.0.0.77", "10.42.7.0/24");
    let mut evidence = routed("10.42.7.20", route(), unreachable());
    let of = |evidence: &Evidence| judge(evidence).findings.remove(0);
    // A router on the path reports it.
    assert!(!of(&evidence).hint.contains("10.0.0.77"));
    // This machine itself: 10.0.0.1 is its address.
    evidence.vantage.links = vec![Link {
        name: "eth0".to_owned(),
        kind: None,
        mtu: Some(1500),
        is_up: true,
        master: None,
        addresses: vec!["10.0.0.1/24".parse().unwrap()],
    }];
    let finding = of(&evidence);
    assert_eq!(finding.cause.code(), "host_unreachable");
    says(
        &finding,
        &["the gateway 10.0.0.77", "the route for 10.42.7.0/24"],
    );
}

#[test]
fn an_error_without_a_packet_despite_a_route_is_a_rule_s() {
    let route = || unicast("10.0.0.77", "0.0.0.0/0");
    let of = |fault| {
        judge(&routed("10.0.3.9", route(), fault))
            .findings
            .remove(0)
    };
    for fault in [
        TcpFault::HostUnreachable { icmp: None },
        TcpFault::NetUnreachable { icmp: None },
        TcpFault::LocalPolicy { errno: 22 },
        TcpFault::LocalPolicy { errno: 13 },
    ] {
        says(
            &of(fault),
            &["`ip rule`", "`ip route get 10.0.3.9 ipproto tcp dport 443`"],
        );
    }
    // A filter of netfilter.
    let finding = of(TcpFault::LocalPolicy { errno: 1 });
    says(&finding, &["netfilter"]);
}

#[test]
fn a_route_that_comes_back_and_one_that_is_the_last_are_not_only_removed() {
    let denied = |net: &str, table: u32, set_by: Option<&str>| {
        let outcome = RouteOutcome::Denied {
            by: "blackhole".to_owned(),
            matched: Some(net.parse().unwrap()),
            table: Some(table),
            set_by: set_by.map(str::to_owned),
        };
        let fault = TcpFault::LocalPolicy { errno: 22 };
        judge(&routed("10.42.1.20", outcome, fault))
            .findings
            .remove(0)
    };
    says(
        &denied("10.42.1.0/26", 254, Some("bird")),
        &["proto bird", "outside the pods' range"],
    );
    says(&denied("0.0.0.0/0", 254, None), &["Add a default route"]);
    says(
        &denied("0.0.0.0/0", 100, None),
        &["the rule that selects table 100"],
    );
    says(
        &denied("10.42.1.0/26", 254, None),
        &["`ip route del blackhole 10.42.1.0/26`"],
    );
}

#[test]
fn an_address_of_this_machine_is_named_where_it_refuses() {
    let outcome = RouteOutcome::Local {
        device: "br-1".to_owned(),
    };
    let refused = TcpFault::Refused { icmp: None };
    let mut evidence = routed("172.18.0.1", outcome, refused);
    let finding = judge(&evidence).findings.remove(0);
    assert_eq!(finding.cause.code(), "tcp_refused");
    says(
        &finding,
        &["172.18.0.1 is this machine's own address, on br-1"],
    );
    // The range is declared as another network's.
    evidence.vantage.declared.cidrs = vec![crate::model::network::MappedCidr {
        cidr: "172.18.0.0/16".parse().unwrap(),
        class: MappedClass::VpcPeering,
        name: None,
    }];
    let finding = judge(&evidence).findings.remove(0);
    assert_eq!(finding.cause.code(), "address_overlap");
    says(
        &finding,
        &[
            "Give br-1 on this machine another address",
            "connection refused",
        ],
    );
}

#[test]
fn ipv6_alone_and_an_address_that_dns64_does_not_help() {
    let of = |host: &str, address: &str, source: Option<ResolutionSource>| {
        let fault = TcpFault::NetUnreachable { icmp: None };
        let mut evidence = healthy().unconnected(Role::Registry, vec![dial(address, Some(fault))]);
        evidence.vantage.links = vec![Link {
            name: "eth0".to_owned(),
            kind: None,
            mtu: Some(1500),
            is_up: true,
            master: None,
            addresses: vec!["2a0a:20:1::10/64".parse().unwrap()],
        }];
        let leg = evidence.leg_mut(Role::Registry);
        leg.endpoint = crate::diagnose::fixture::endpoint(host);
        if let (Some(source), Step::Done { value, .. }) = (source, &mut leg.resolve.outcome) {
            value.source = source;
        }
        let finding = judge(&evidence).findings.remove(0);
        assert_eq!(finding.cause.code(), "net_unreachable");
        finding.hint
    };
    let name = REGISTRY;
    assert!(of(name, "45.60.70.20", None).contains("NAT64 with DNS64"));
    for (hint, text) in [
        (
            of("45.60.70.20", "45.60.70.20", None),
            "Use a name with an AAAA record",
        ),
        (of(name, "10.9.3.9", None), "private IPv4 addresses only"),
        (
            of(name, "45.60.70.20", Some(ResolutionSource::HostsFile)),
            "from the hosts file",
        ),
    ] {
        assert!(hint.contains(text), "{hint}");
        assert!(!hint.contains("NAT64 with DNS64"), "{hint}");
    }
}

#[test]
fn another_service_in_a_range_that_is_declared_twice_may_be_another_host() {
    for fault in [
        TlsFault::PlainHttp,
        TlsFault::NotTls {
            first_bytes: "535348".to_owned(),
        },
    ] {
        let mut evidence = healthy().unsecured(Role::Registry, fault);
        evidence.vantage.not_observed.clear();
        evidence.leg_mut(Role::Registry).connect = dialed(vec![dial("10.30.1.22", None)]);
        let declare = |cidr: &str, class| crate::model::network::MappedCidr {
            cidr: cidr.parse().unwrap(),
            class,
            name: None,
        };
        evidence.vantage.declared.cidrs = vec![declare("10.30.1.0/24", MappedClass::VpcPeering)];
        let of = |evidence: &Evidence| judge(evidence).findings.remove(0);
        assert_eq!(of(&evidence).confidence, Confidence::High);
        let own = declare("10.30.0.0/16", MappedClass::Intranet);
        evidence.vantage.declared.cidrs.push(own);
        let finding = of(&evidence);
        assert_eq!(finding.confidence, Confidence::Medium);
        says(&finding, &["another host may answer there"]);
    }
}
