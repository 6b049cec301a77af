//! Names of a pull: what the hosts file pins beside what DNS has, and name servers that lack TCP, EDNS or a zone.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod support;

use std::net::SocketAddr;

use harness::{Outcome, Probe};
use pullpath::diagnose::Pull;
use pullpath::diagnose::level::{Confidence, Severity};
use support::dns::Answer;
use support::registry::{Registry, Store};
use support::tcp::Relay;
use support::{AUTH, BLOBS, REGISTRY, World};

/// The address of the old servers; the world's own, which DNS has, are at 127.0.0.1.
const OLD: &str = "127.0.0.2";

/// Probes with these entries of the hosts file.
async fn pinned(world: &World, entries: &[(&str, &str)]) -> Outcome {
    let line = |(address, name): &(&str, &str)| format!("{address} {name}\n");
    let text: String = entries.iter().map(line).collect();
    let hosts = world.write("hosts", &text);
    let probe = Probe::of(world).args(["--hosts-file", hosts.to_str().unwrap()]);
    probe.run().await
}

/// A registry without images at the old address, with a certificate for this name.
async fn old_registry(world: &World, name: &str) -> (Registry, Relay) {
    let config = Some(world.ca.issue(&[name]).config());
    let grants = world.tokens.grants.clone();
    let registry = Registry::start(config, Store::default(), grants).await;
    let relay = at_old(world.registry.server.addr, registry.server.addr).await;
    (registry, relay)
}

/// Connections to the old address, at the port of a server of the world, get to another server.
async fn at_old(instead_of: SocketAddr, to: SocketAddr) -> Relay {
    Relay::start((OLD, instead_of.port(), to)).await
}

fn codes(outcome: &Outcome) -> Vec<&'static str> {
    let findings = outcome.report().verdict.findings.iter();
    findings.map(|finding| finding.cause.code()).collect()
}

fn says(outcome: &Outcome, texts: &[&str]) {
    let verdict = &outcome.report().verdict;
    let all: Vec<String> = verdict
        .findings
        .iter()
        .flat_map(|f| f.evidence.iter().chain([&f.hint]).cloned())
        .collect();
    for text in texts {
        let is_there = all.iter().any(|line| line.contains(text));
        assert!(is_there, "'{text}' is not in:\n{}", outcome.text());
    }
}

const BOTH: &str = "the address is pinned by the hosts file (127.0.0.2), DNS has 127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_to_a_server_with_another_certificate_is_the_cause() {
    let world = World::healthy().await;
    let _old = old_registry(&world, "intranet.test").await;
    let outcome = pinned(&world, &[(OLD, REGISTRY)]).await;
    outcome.shows("dns_stale", Severity::Critical, Pull::WouldFail);
    says(
        &outcome,
        &[
            BOTH,
            "127.0.0.1:",
            "TLS succeeds there",
            "Correct the entry",
        ],
    );

    // The same certificate at the address that DNS has: it is not the pin.
    world
        .registry
        .server
        .set_tls(Some(world.ca.issue(&["other.test"]).config()));
    let outcome = pinned(&world, &[(OLD, REGISTRY)]).await;
    outcome.shows("tls_name", Severity::Critical, Pull::WouldFail);
    says(&outcome, &[BOTH, "was tried as well"]);
    // A pin that agrees, and a name that DNS does not have.
    let outcome = pinned(&world, &[("127.0.0.1", REGISTRY)]).await;
    outcome.shows("tls_name", Severity::Critical, Pull::WouldFail);
    assert!(
        outcome.text().contains("from the hosts file (as in DNS)"),
        "{}",
        outcome.text()
    );
    world.dns.answer(REGISTRY, Answer::NxDomain);
    let outcome = pinned(&world, &[(OLD, REGISTRY)]).await;
    outcome.shows("tls_name", Severity::Critical, Pull::WouldFail);
    let text = outcome.text();
    assert!(text.contains("(DNS has no address for the name)"), "{text}");
    world.dns.answer(REGISTRY, Answer::Drop);
    let outcome = pinned(&world, &[(OLD, REGISTRY)]).await;
    outcome.shows("tls_name", Severity::Critical, Pull::WouldFail);
    let text = outcome.text();
    assert!(text.contains("(the name servers do not answer)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_old_registry_lacks_leads_to_the_pin_and_stays_a_suspicion() {
    let world = World::healthy().await;
    let (_registry, _relay) = old_registry(&world, REGISTRY).await;
    let outcome = pinned(&world, &[(OLD, REGISTRY)]).await;
    assert_eq!(codes(&outcome)[0], "dns_stale", "{}", outcome.text());
    assert!(
        codes(&outcome).contains(&"name_unknown"),
        "{}",
        outcome.text()
    );
    says(&outcome, &[BOTH, "--resolve registry.test:"]);
    let findings = &outcome.report().verdict.findings;
    assert!(
        findings.iter().all(|f| f.confidence < Confidence::High),
        "{}",
        outcome.text()
    );
    assert_eq!(outcome.report().verdict.pull, Pull::WouldFail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_works_is_shown_and_not_reported() {
    let world = World::healthy().await;
    let _relay = at_old(world.registry.server.addr, world.registry.server.addr).await;
    let outcome = pinned(&world, &[(OLD, REGISTRY)]).await;
    outcome.is_quiet();
    let text = outcome.text();
    assert!(
        text.contains("127.0.0.2, from the hosts file (DNS has 127.0.0.1)"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_behind_a_pin_is_refused_in_every_leg() {
    let world = World::healthy().await;
    for name in [REGISTRY, AUTH, BLOBS] {
        let outcome = pinned(&world, &[(OLD, name)]).await;
        outcome.shows("tcp_refused", Severity::Critical, Pull::WouldFail);
        let finding = &outcome.report().verdict.findings[0];
        assert_eq!(finding.evidence[0], BOTH, "{}", outcome.text());
        assert!(
            finding.hint.starts_with("Correct the entry of"),
            "{}",
            outcome.text()
        );
    }
    // An address that was given is no pin.
    let given = format!("{}:{OLD}", world.registry_host());
    let outcome = Probe::of(&world).args(["--resolve", &given]).run().await;
    outcome.shows("tcp_refused", Severity::Critical, Pull::WouldFail);
    assert!(!outcome.text().contains("hosts file"), "{}", outcome.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_behind_a_pin_is_found_in_every_leg() {
    let world = World::healthy().await;
    let other = Registry::start(
        Some(world.ca.issue(&["intranet.test"]).config()),
        Store::default(),
        world.tokens.grants.clone(),
    )
    .await;
    for (name, server) in [
        (AUTH, world.tokens.server.addr),
        (BLOBS, world.blobs.server.addr),
    ] {
        let _relay = at_old(server, other.server.addr).await;
        let outcome = pinned(&world, &[(OLD, name)]).await;
        outcome.shows("dns_stale", Severity::Critical, Pull::WouldFail);
        says(&outcome, &[BOTH]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_needs_tcp_and_another_server_saves_the_pull() {
    let world = World::healthy().await;
    world.dns.answer(REGISTRY, Answer::TruncateUdpDropTcp);
    let outcome = harness::probe(&world).await;
    outcome.shows("dns_tcp_closed", Severity::Critical, Pull::WouldFail);
    says(&outcome, &["with TC set", "no answer within", "Open TCP"]);

    let second = support::dns::Dns::start().await;
    second.host(REGISTRY, &["127.0.0.1".parse().unwrap()]);
    let nameservers = [world.nameserver(), second.addr.to_string()];
    for name in [AUTH, BLOBS] {
        second.host(name, &["127.0.0.1".parse().unwrap()]);
    }
    let outcome = Probe::of(&world).nameservers(nameservers).run().await;
    outcome.shows("dns_tcp_closed", Severity::Warning, Pull::WouldSucceed);

    world.dns.answer(REGISTRY, Answer::TruncateUdp);
    harness::probe(&world).await.is_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_fits_only_with_edns_needs_tcp_of_builds_without() {
    let world = World::healthy().await;
    world
        .dns
        .host(REGISTRY, &["127.0.0.1".parse().unwrap(); 40]);
    let probe = |runtime: &'static str| Probe::of(&world).args(["--runtime", runtime]).run();
    // TCP is open.
    for runtime in [
        "containerd://2.1.9",
        "containerd://1.7.24",
        "containerd://1.7.24~ds1",
    ] {
        probe(runtime).await.is_quiet();
    }
    world.dns.answer(REGISTRY, Answer::DropTcp);
    probe("containerd://2.1.9").await.is_quiet();
    let outcome = probe("containerd://1.7.24").await;
    outcome.shows("dns_tcp_closed", Severity::Critical, Pull::Unknown);
    says(
        &outcome,
        &["with EDNS the answer fits", "depends on its build"],
    );
    let outcome = probe("containerd://1.7.24~ds1").await;
    outcome.shows("dns_tcp_closed", Severity::Critical, Pull::WouldFail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_edns_hits_the_builds_that_send_it() {
    let world = World::healthy().await;
    let probe = |runtime: &'static str| Probe::of(&world).args(["--runtime", runtime]).run();
    for answer in [Answer::DropEdns, Answer::FormErrEdns] {
        world.dns.answer(REGISTRY, answer);
        let outcome = probe("containerd://2.1.9").await;
        outcome.shows("dns_no_edns", Severity::Critical, Pull::WouldFail);
        says(&outcome, &["without EDNS: 127.0.0.1"]);
        let outcome = probe("containerd://1.7.24").await;
        outcome.shows("dns_no_edns", Severity::Critical, Pull::Unknown);
        says(&outcome, &["depends on its build"]);
        // Debian's build sends none.
        probe("containerd://1.7.24~ds1").await.is_quiet();
    }
    // A server that answers nothing is not one without EDNS.
    world.dns.answer(REGISTRY, Answer::Drop);
    let outcome = probe("containerd://2.1.9").await;
    outcome.shows("dns_timeout", Severity::Critical, Pull::WouldFail);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_into_a_zone_without_the_record_names_the_zone() {
    let world = World::healthy().await;
    world.dns.alias(REGISTRY, "reg-7.privatelink.test");
    let outcome = harness::probe(&world).await;
    outcome.shows("dns_nxdomain", Severity::Critical, Pull::WouldFail);
    let alias =
        "'registry.test' is an alias of 'reg-7.privatelink.test', and that name has no address";
    // The server's SOA record is that of the zone above.
    says(
        &outcome,
        &[
            alias,
            "the zone 'test' there lacks it",
            "a private zone ('privatelink.test')",
        ],
    );
    world.dns.answer("reg-7.privatelink.test", Answer::NoData);
    let outcome = harness::probe(&world).await;
    outcome.shows("dns_nodata", Severity::Critical, Pull::WouldFail);
    says(&outcome, &[alias]);
    world.dns.alias(REGISTRY, "reg-8.test");
    let outcome = harness::probe(&world).await;
    outcome.shows("dns_nxdomain", Severity::Critical, Pull::WouldFail);
    says(
        &outcome,
        &["Add the record of 'reg-8.test' to the zone 'test'"],
    );
    world.dns.alias(REGISTRY, "reg-7.privatelink.test");
    world.dns.answer("reg-7.privatelink.test", Answer::Records);
    world
        .dns
        .host("reg-7.privatelink.test", &["127.0.0.1".parse().unwrap()]);
    harness::probe(&world).await.is_quiet();
}
