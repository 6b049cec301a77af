//! One of several: servers behind one address, and addresses of one name, of which a part does not work.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use harness::{Outcome, Probe, probe};
use pullpath::diagnose::level::{Confidence, Severity};
use pullpath::diagnose::{Finding, Pull};
use support::image::{Flavour, Image};
use support::pki::Flaw;
use support::registry::Redirect;
use support::tcp::{Balancer, Behaviour};
use support::web::{Reply, Server};
use support::{REGISTRY, World};
use tokio::net::TcpListener;

/// Whether one of the findings has this cause.
fn finding<'a>(outcome: &'a Outcome, code: &str) -> &'a Finding {
    let verdict = &outcome.report().verdict;
    let mut findings = verdict.findings.iter();
    findings
        .find(|finding| finding.cause.code() == code)
        .unwrap_or_else(|| panic!("no {code}:\n{}", outcome.text()))
}

/// Asks for the image through a balancer of which these turns are dead.
async fn through(turns: &[bool], dead: Behaviour, transfer: bool) -> Outcome {
    let world = World::healthy().await;
    let turns = turns.iter().map(|is_dead| is_dead.then(|| dead.clone()));
    let balancer = Balancer::before(world.registry.server.addr, turns.collect()).await;
    let probe = Probe::of(&world).port(balancer.addr.port());
    let secret = World::secret(
        &format!("{REGISTRY}:{}", balancer.addr.port()),
        support::USER,
        support::PASSWORD,
    );
    let secret = world.write("balanced.yaml", &secret);
    let probe = probe
        .anonymous()
        .args(["--secret-file", secret.to_str().unwrap()]);
    if transfer {
        probe.args(["--transfer", "auto"]).run().await
    } else {
        probe.run().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_half_of_whose_servers_hang_is_no_black_hole() {
    for turns in [
        &[true, false][..],
        &[false, true],
        &[true, true, false],
        &[true, false, false],
    ] {
        let outcome = through(turns, Behaviour::Hang, false).await;
        outcome.shows("tls_hang", Severity::Critical, Pull::Unknown);
        let finding = finding(&outcome, "tls_hang");
        assert!(finding.confidence < Confidence::High, "{}", outcome.text());
        let facts = finding.evidence.join("\n");
        assert!(facts.contains("in turn"), "{turns:?}: {}", outcome.text());
        assert!(finding.hint.contains("balancer"), "{}", outcome.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_half_of_whose_servers_close_is_no_filter() {
    for dead in [Behaviour::Close, Behaviour::ResetAfterHello] {
        for turns in [&[true, false][..], &[false, true], &[true, true, false]] {
            let outcome = through(turns, dead.clone(), false).await;
            outcome.shows("tls_reset", Severity::Critical, Pull::Unknown);
            let finding = finding(&outcome, "tls_reset");
            let facts = finding.evidence.join("\n");
            assert!(facts.contains("in turn"), "{turns:?}: {}", outcome.text());
            assert!(!finding.hint.contains("firewall"), "{}", outcome.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dead_or_alive_as_a_whole_is_not_called_a_part() {
    let outcome = through(&[false], Behaviour::Hang, false).await;
    outcome.is_quiet();
    for (dead, code) in [
        (Behaviour::Hang, "tls_hang"),
        (Behaviour::ResetAfterHello, "tls_reset"),
    ] {
        let outcome = through(&[true], dead, false).await;
        outcome.shows(code, Severity::Critical, Pull::WouldFail);
        assert!(!outcome.text().contains("in turn"), "{}", outcome.text());
        let finding = finding(&outcome, code);
        assert!(finding.hint.contains("firewall"), "{}", outcome.text());
    }
}

/// A check of large layers through a balancer before their server, and how many connections that took.
async fn layers_through(turns: Vec<Option<Behaviour>>, transfer: &str) -> (Outcome, usize) {
    layers_with(turns, &["--transfer", transfer, "--max-duration", "3s"]).await
}

async fn layers_with(turns: Vec<Option<Behaviour>>, args: &[&str]) -> (Outcome, usize) {
    let mut world = World::healthy().await;
    world.image = Image::build(5, Flavour::Oci, &["amd64"], &[3 << 20, 2 << 20, 3 << 19]);
    let store = &world.registry.store;
    store.push(support::REPOSITORY, support::TAG, &world.image);
    let balancer = Balancer::before(world.blobs.server.addr, turns).await;
    let base = format!("https://{}:{}", support::BLOBS, balancer.addr.port());
    world.registry.knobs().redirect = Redirect::Signed(base);
    let outcome = Probe::of(&world).args(args).run().await;
    (outcome, balancer.accepted())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_the_transfer_test_that_fail_beside_others_are_reported() {
    let (outcome, of_the_check) = layers_through(vec![None], "off").await;
    outcome.is_quiet();
    for (dead, code) in [
        (Behaviour::Hang, "tls_hang"),
        (Behaviour::Close, "tls_reset"),
    ] {
        let mut turns = vec![None; of_the_check + 1];
        turns.extend([Some(dead), None, None, None]);
        let (outcome, _) = layers_through(turns, "auto").await;
        let finding = finding(&outcome, code);
        assert_eq!(finding.severity, Severity::Warning, "{}", outcome.text());
        assert_eq!(finding.confidence, Confidence::Medium);
        assert!(
            finding.evidence[0].contains("1 of the"),
            "{}",
            outcome.text()
        );
        let transfer = outcome.report().evidence.walk.transfer.as_ref().unwrap();
        assert_eq!(transfer.not_connected.len(), 1);
        assert!(transfer.connections_tried > 2);
    }
    let (outcome, _) = layers_through(vec![None], "auto").await;
    let transfer = outcome.report().evidence.walk.transfer.as_ref().unwrap();
    assert!(transfer.not_connected.is_empty());
    assert!(
        !outcome.text().contains("transfer test to"),
        "{}",
        outcome.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_of_several_is_no_filter_for_large_hellos() {
    let (outcome, of_the_check) = layers_with(vec![None], &["--transfer", "off"]).await;
    outcome.is_quiet();
    let mut turns = vec![None; of_the_check];
    turns.extend([Some(Behaviour::Close), None, None, None]);
    let args = ["--transfer", "off", "--large-hello"];
    let (outcome, accepted) = layers_with(turns, &args).await;
    assert_eq!(accepted, of_the_check + 4);
    outcome.is_quiet();
}

/// The registry's name with further addresses, 127.0.0.2 and so on, in this order. Those that are in `bad` present
/// another certificate or do not answer at all; the others lead to the registry.
async fn with_addresses(order: &[u8], bad: &[u8], flaw: Option<Flaw>) -> Outcome {
    let world = World::healthy().await;
    let real = world.registry.server.addr;
    let address = |last: u8| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), real.port()));
    let mut servers = Vec::new();
    let mut balancers = Vec::new();
    for last in 2..=4 {
        if !bad.contains(&last) {
            balancers.push(Balancer::at(address(last), real, vec![None]).await);
        } else if let Some(flaw) = flaw {
            let listener = TcpListener::bind(address(last)).await.unwrap();
            let tls = world.config(REGISTRY, flaw);
            servers.push(Server::on(listener, Some(tls), |_| Reply::new(404)));
        } else {
            let dead = vec![Some(Behaviour::Hang)];
            balancers.push(Balancer::at(address(last), real, dead).await);
        }
    }
    let order: Vec<IpAddr> = order.iter().map(|last| address(*last).ip()).collect();
    world.dns.host(REGISTRY, &order);
    probe(&world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_a_certificate_for_another_name_is_reported_wherever_it_is() {
    // First: the check itself meets it.
    let outcome = with_addresses(&[2, 1, 3, 4], &[2], Some(Flaw::WrongName)).await;
    outcome.shows("tls_name", Severity::Critical, Pull::WouldFail);
    let first = finding(&outcome, "tls_name");
    assert!(first.hint.contains("127.0.0.2"), "{}", outcome.text());
    assert!(
        !first.hint.contains("image reference"),
        "{}",
        outcome.text()
    );
    // Last: a warning.
    let outcome = with_addresses(&[1, 3, 4, 2], &[2], Some(Flaw::WrongName)).await;
    outcome.shows("tls_name", Severity::Warning, Pull::WouldSucceed);
    let last = finding(&outcome, "tls_name");
    let facts = last.evidence.join("\n");
    assert!(facts.contains("1 of the 4 addresses"), "{}", outcome.text());
    assert!(facts.contains("127.0.0.2:"), "{}", outcome.text());
    // All: the certificate itself.
    let outcome = with_addresses(&[2, 3], &[2, 3], Some(Flaw::WrongName)).await;
    outcome.shows("tls_name", Severity::Critical, Pull::WouldFail);
    let all = finding(&outcome, "tls_name");
    assert!(all.hint.contains("image reference"), "{}", outcome.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_hangs_in_tls_is_a_warning_and_healthy_ones_are_nothing() {
    let outcome = with_addresses(&[1, 2, 3, 4], &[3], None).await;
    outcome.shows("tls_hang", Severity::Warning, Pull::WouldSucceed);
    let outcome = with_addresses(&[1, 2, 3, 4], &[], None).await;
    outcome.is_quiet();
    let leg = &outcome.report().evidence.walk.legs[0];
    assert_eq!(leg.other_addresses.len(), 3);
}
