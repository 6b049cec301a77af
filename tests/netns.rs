//! Causes that need a network of their own: made by the kernel's routes and filters, in namespaces.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;

use std::process::Command;

use lab::netns::Netns;
use lab::process::Process;
use pullpath::diagnose::Pull;
use pullpath::report::Document;
use pullpath::report::text::{self, Style};

/// The registry's address, on the namespace's own `lo`: nothing leaves the machine.
const HERE_V4: &str = "203.0.113.9";
const HERE_V6: &str = "2001:db8::9";

struct Outcome {
    document: Document,
}

impl Outcome {
    fn codes(&self) -> Vec<&'static str> {
        self.document.reports[0]
            .verdict
            .findings
            .iter()
            .map(|finding| finding.cause.code())
            .collect()
    }

    fn text(&self) -> String {
        text::render(&self.document.reports[0], Style { color: false })
    }

    /// One finding, and the pull would fail.
    fn fails_by(&self, code: &str) {
        assert_eq!(self.codes(), [code], "{}", self.text());
        assert_eq!(self.document.reports[0].verdict.pull, Pull::WouldFail);
    }
}

fn probe(netns: &Netns, addresses: &[&str], more: &[&str]) -> Outcome {
    let mut command = netns.command(env!("CARGO_BIN_EXE_pullpath"));
    command.args([
        "probe",
        "registry.test:5000/team/app:1.0",
        "-o",
        "json",
        "--timeout",
        "700ms",
    ]);
    command.args([
        "--nameserver",
        "127.0.0.1:9",
        "--docker-config",
        "/dev/null",
    ]);
    for address in addresses {
        command
            .arg("--resolve")
            .arg(format!("registry.test:5000:{address}"));
    }
    let output = command.args(more).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let document = serde_json::from_str(&stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {stdout}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    Outcome { document }
}

/// A namespace that has the registry's addresses itself.
fn with_addresses() -> Netns {
    let netns = Netns::new();
    netns.ip(&format!("addr add {HERE_V4}/32 dev lo"));
    netns.ip(&format!("addr add {HERE_V6}/128 dev lo nodad"));
    netns
}

#[test]
fn a_filter_that_drops_is_a_timeout() {
    let netns = with_addresses();
    netns.filter("tcp dport 5000 drop");
    for address in [HERE_V4, HERE_V6] {
        probe(&netns, &[address], &[]).fails_by("tcp_timeout");
    }
}

#[test]
fn a_filter_that_resets_is_a_refusal_and_so_is_a_closed_port() {
    let netns = with_addresses();
    for address in [HERE_V4, HERE_V6] {
        probe(&netns, &[address], &[]).fails_by("tcp_refused");
    }
    netns.filter("tcp dport 5000 reject with tcp reset");
    probe(&netns, &[HERE_V4], &[]).fails_by("tcp_refused");
}

#[test]
fn a_port_unreachable_is_a_refusal_that_names_its_sender() {
    let netns = with_addresses();
    netns.filter("tcp dport 5000 reject with icmpx port-unreachable");
    for address in [HERE_V4, HERE_V6] {
        let outcome = probe(&netns, &[address], &[]);
        outcome.fails_by("tcp_refused");
        assert!(
            outcome.text().contains(&format!("from {address}")),
            "{}",
            outcome.text()
        );
    }
}

#[test]
fn an_icmp_prohibition_is_told_from_an_unreachable_host() {
    let netns = with_addresses();
    netns.filter("tcp dport 5000 reject with icmpx admin-prohibited");
    for address in [HERE_V4, HERE_V6] {
        probe(&netns, &[address], &[]).fails_by("tcp_prohibited");
    }
}

#[test]
fn prohibit_and_blackhole_routes_are_local_policy() {
    let netns = Netns::new();
    netns.ip("route add prohibit 198.51.100.0/24");
    netns.ip("route add blackhole 192.0.2.0/24");
    netns.ip("-6 route add prohibit 2001:db8:1::/48");
    for address in ["198.51.100.9", "192.0.2.9", "2001:db8:1::9"] {
        probe(&netns, &[address], &[]).fails_by("local_policy");
    }
}

#[test]
fn no_route_and_an_unreachable_route_are_told_apart() {
    let netns = Netns::new();
    netns.ip("route add unreachable 198.51.100.0/24");
    netns.ip("-6 route add unreachable 2001:db8:1::/48");
    for address in ["198.51.100.9", "2001:db8:1::9"] {
        probe(&netns, &[address], &[]).fails_by("host_unreachable");
    }
    for address in ["192.0.2.9", "2001:db8:2::9"] {
        probe(&netns, &[address], &[]).fails_by("net_unreachable");
    }
}

#[test]
fn without_a_source_address_there_is_no_connection() {
    let netns = Netns::new();
    netns.sysctl("net.ipv6.conf.all.disable_ipv6=1");
    netns.sysctl("net.ipv6.conf.lo.disable_ipv6=1");
    probe(&netns, &["::1"], &[]).fails_by("no_local_address");
}

/// A registry at the IPv4 address, without an image: what counts here is how it is reached.
fn registry_inside(netns: &Netns, folder: &std::path::Path) -> Process {
    let config = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{HERE_V4}:5000'}}\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = netns.command("docker-registry");
    command.arg("serve").arg(&config);
    let name = netns.name.clone();
    Process::start("docker-registry", &mut command, folder).ready(move || {
        let sockets = Command::new("ip")
            .args(["netns", "exec", &name, "ss", "-Htln"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&sockets.stdout).contains(":5000")
    })
}

#[test]
fn dead_ipv6_beside_good_ipv4_is_a_warning_with_its_cost() {
    let folder = tempfile::tempdir().unwrap();
    let netns = with_addresses();
    let _registry = registry_inside(&netns, folder.path());
    // Healthy: nothing to say of the addresses.
    let outcome = probe(&netns, &[HERE_V4], &["--plain-http"]);
    assert_eq!(outcome.codes(), ["manifest_unknown"], "{}", outcome.text());

    netns.ip("-6 route add unreachable 2001:db8:1::/48");
    let outcome = probe(&netns, &["2001:db8:1::9", HERE_V4], &["--plain-http"]);
    assert_eq!(
        outcome.codes(),
        ["manifest_unknown", "net_unreach_v6"],
        "{}",
        outcome.text()
    );

    netns.filter(&format!("ip6 daddr {HERE_V6} tcp dport 5000 drop"));
    let outcome = probe(&netns, &[HERE_V6, HERE_V4], &["--plain-http"]);
    assert_eq!(
        outcome.codes(),
        ["manifest_unknown", "v6_blackhole"],
        "{}",
        outcome.text()
    );
    assert!(outcome.text().contains("300 ms"), "{}", outcome.text());

    // The other way round a client never gets to the dead address.
    let outcome = probe(&netns, &[HERE_V4, HERE_V6], &["--plain-http"]);
    assert_eq!(outcome.codes(), ["manifest_unknown"], "{}", outcome.text());
}
