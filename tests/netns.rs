//! Causes that need a network of their own: made by the kernel's routes and filters, in namespaces.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;

use std::path::Path;
use std::time::{Duration, Instant};

use lab::netns::{Netns, inside};
use lab::process::Process;
use lab::wire::{End, Knobs, Wire};
use pullpath::diagnose::Pull;
use pullpath::registry::manifest::sha256;
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
        text::render(&self.document.reports[0], Style { color: false }, false)
    }

    /// One finding, and the pull would fail.
    fn fails_by(&self, code: &str) {
        assert_eq!(self.codes(), [code], "{}", self.text());
        assert_eq!(self.document.reports[0].verdict.pull, Pull::WouldFail);
    }
}

fn probe(netns: &Netns, addresses: &[&str], more: &[&str]) -> Outcome {
    let mut args = vec!["--nameserver".to_owned(), "127.0.0.1:9".to_owned()];
    for address in addresses {
        args.push("--resolve".to_owned());
        args.push(format!("registry.test:5000:{address}"));
    }
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    run_probe(netns, &args)
}

fn run_probe(netns: &Netns, args: &[String]) -> Outcome {
    let mut command = netns.command(env!("CARGO_BIN_EXE_pullpath"));
    command.args(["probe", "registry.test:5000/team/app:1.0", "-o", "json"]);
    command.args(["--transfer", "off"]);
    let none = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/no-credentials.json"
    );
    command.args(["--docker-config", none, "--proxy-from", "/dev/null"]);
    let network = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/netns.yaml");
    command.args(["--config", network]);
    if !args.iter().any(|arg| arg == "--timeout") {
        command.args(["--timeout", "700ms"]);
    }
    let output = command.args(args).output().unwrap();
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
fn an_icmp_prohibition_is_distinguished_from_an_unreachable_host() {
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
fn no_route_and_an_unreachable_route_are_distinguished() {
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

/// Without route lookups, the source that the kernel chooses shows which addresses are this machine's. Where
/// `ip_nonlocal_bind` is set, as by keepalived, every address can be bound.
#[test]
fn an_address_is_own_by_its_route_and_not_by_what_can_be_bound() {
    let netns = with_addresses();
    netns.ip("route add 198.51.100.0/24 dev lo");
    for bind in [0, 1] {
        netns.sysctl(&format!("net.ipv4.ip_nonlocal_bind={bind}"));
        netns.sysctl(&format!("net.ipv6.ip_nonlocal_bind={bind}"));
        for (address, own) in [
            (HERE_V4, true),
            (HERE_V6, true),
            ("198.51.100.7", false),
            ("192.0.2.7", false),
            ("2001:db8:1::7", false),
        ] {
            let address = address.parse().unwrap();
            let found = inside(&netns.name, || pullpath::net::tcp::is_own(address));
            assert_eq!(found, own, "{address} {bind}");
        }
    }
}

#[test]
fn without_a_source_address_there_is_no_connection() {
    let netns = Netns::new();
    netns.sysctl("net.ipv6.conf.all.disable_ipv6=1");
    netns.sysctl("net.ipv6.conf.lo.disable_ipv6=1");
    probe(&netns, &["::1"], &[]).fails_by("no_local_address");
}

/// A registry at the address, without an image: what counts here is how it is reached.
fn registry_inside(netns: &Netns, folder: &Path, address: &str) -> Process {
    let config = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}:5000'}}\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = netns.command("docker-registry");
    command.arg("serve").arg(&config);
    Process::start("docker-registry", &mut command, folder).listening(5000)
}

#[test]
fn dead_ipv6_beside_good_ipv4_is_a_warning_with_its_cost() {
    let folder = tempfile::tempdir().unwrap();
    let netns = with_addresses();
    let _registry = registry_inside(&netns, folder.path(), HERE_V4);
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

/// A prober and a registry with a router between them, as a node and a registry in another subnet.
/// The registry's namespace has its name server, too.
struct Routed {
    prober: Netns,
    router: Netns,
    far: Netns,
    _servers: [Process; 2],
    _folder: tempfile::TempDir,
}

/// The prober's own address, the router's on its side, and the registry's.
const PROBER: [&str; 2] = ["10.77.1.2", "2001:db8:1::2"];
const ROUTER: [&str; 2] = ["10.77.1.1", "2001:db8:1::1"];
const FAR: [&str; 2] = ["10.77.2.2", "2001:db8:2::2"];

impl Routed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (prober, router, far) = (Netns::new(), Netns::new(), Netns::new());
        let with = |addresses: [&str; 2]| {
            addresses.map(|a| format!("{a}/{}", if a.contains(':') { 64 } else { 24 }))
        };
        let lay = |near: &Netns, device, here: [&str; 2], to: &Netns, there: [&str; 2]| {
            let (here, there) = (with(here), with(there));
            near.wire(device, &[&here[0], &here[1]], to, &[&there[0], &there[1]]);
        };
        lay(&prober, "near0", PROBER, &router, ROUTER);
        lay(&far, "far0", FAR, &router, ["10.77.2.1", "2001:db8:2::1"]);
        router.sysctl("net.ipv4.ip_forward=1");
        router.sysctl("net.ipv6.conf.all.forwarding=1");
        // Many probes in a second; Linux sends each client six errors in a row, then one a second.
        router.sysctl("net.ipv4.icmp_ratelimit=0");
        router.sysctl("net.ipv6.icmp.ratelimit=0");
        for (netns, gateway) in [(&prober, ROUTER), (&far, ["10.77.2.1", "2001:db8:2::1"])] {
            netns.ip(&format!("route add default via {}", gateway[0]));
            netns.ip(&format!("-6 route add default via {}", gateway[1]));
        }
        let registry = registry_inside(&far, folder.path(), "");
        let mut command = far.command("dnsmasq");
        command.args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--user=root", "--pid-file="]);
        command.arg(format!("--host-record=registry.test,{},{}", FAR[0], FAR[1]));
        let dns = Process::start("dnsmasq", &mut command, folder.path()).listening(53);
        let lab = Self {
            prober,
            router,
            far,
            _servers: [registry, dns],
            _folder: folder,
        };
        lab.settle();
        lab
    }

    /// Waits until both ways are good: a new cable's neighbours take their time to find each other.
    fn settle(&self) {
        let start = Instant::now();
        for address in ["10.77.2.2", "[2001:db8:2::2]"] {
            loop {
                let mut curl = self.prober.command("curl");
                curl.args(["--silent", "--noproxy", "*", "--max-time", "1", "--output"]);
                let url = format!("http://{address}:5000/v2/");
                let status = curl.args(["/dev/null", &url]).status().unwrap();
                if status.success() {
                    break;
                }
                assert!(
                    start.elapsed() < Duration::from_secs(15),
                    "{address} is not reached: {status}"
                );
            }
        }
    }

    /// Probes with the name server there.
    fn probe(&self, more: &[&str]) -> Outcome {
        let mut args = vec!["--plain-http", "--nameserver", FAR[0]];
        args.extend(more);
        run_probe(
            &self.prober,
            &args.into_iter().map(str::to_owned).collect::<Vec<_>>(),
        )
    }

    /// The same, with the registry's address of one family given.
    fn probe_at(&self, address: &str) -> Outcome {
        self.probe(&["--resolve", &format!("registry.test:5000:{address}")])
    }
}

/// The registry has no image; an answer that says so proves that the path to it works.
const ARRIVED: &str = "manifest_unknown";

#[test]
fn a_filter_on_the_path_is_distinguished_from_the_registry_by_who_answers() {
    let lab = Routed::new();
    for address in FAR {
        assert_eq!(lab.probe_at(address).codes(), [ARRIVED]);
    }
    for (rule, code) in [
        ("drop", "tcp_timeout"),
        ("reject with tcp reset", "tcp_refused"),
        ("reject with icmpx port-unreachable", "tcp_refused"),
        ("reject with icmpx admin-prohibited", "tcp_prohibited"),
    ] {
        lab.router
            .filter_at("forward", &format!("tcp dport 5000 {rule}"));
        for (address, router) in FAR.into_iter().zip(ROUTER) {
            let outcome = lab.probe_at(address);
            outcome.fails_by(code);
            // An ICMP message names its sender; a reset pretends to be from the registry.
            assert_eq!(
                outcome.text().contains(&format!("from {router}")),
                rule.contains("icmpx"),
                "{}",
                outcome.text()
            );
        }
        lab.router.unfilter();
    }
    // RFC 1812, 5.2.7.1: three codes of IPv4 say that a filter did it.
    for kind in ["host-prohibited", "net-prohibited", "admin-prohibited"] {
        let rule = format!(
            "meta l4proto tcp ip daddr {} reject with icmp {kind}",
            FAR[0]
        );
        lab.router.filter_at("forward", &rule);
        lab.probe_at(FAR[0]).fails_by("tcp_prohibited");
        lab.router.unfilter();
    }
    for address in FAR {
        assert_eq!(lab.probe_at(address).codes(), [ARRIVED]);
    }
}

#[test]
fn what_a_router_says_of_its_own_routes_is_distinguished() {
    let lab = Routed::new();
    // ICMPv6 has no word for an unreachable host on a route: Linux says "no route" (1/0).
    for (route, v4, v6) in [
        ("unreachable", "host_unreachable", "net_unreachable"),
        ("prohibit", "tcp_prohibited", "tcp_prohibited"),
        ("blackhole", "tcp_timeout", "tcp_timeout"),
    ] {
        for (family, address, code) in [("-4", FAR[0], v4), ("-6", FAR[1], v6)] {
            lab.router
                .ip(&format!("{family} route add {route} {address}"));
            lab.probe_at(address).fails_by(code);
            lab.router
                .ip(&format!("{family} route del {route} {address}"));
        }
    }
    // A router without a route: ICMP 3/0, ICMPv6 1/0.
    for address in ["192.0.2.9", "2001:db8:9::9"] {
        let outcome = lab.probe_at(address);
        outcome.fails_by("net_unreachable");
        // It is that router's table that lacks the route.
        assert!(
            outcome.text().contains("has no route to"),
            "{}",
            outcome.text()
        );
    }
}

#[test]
fn a_host_that_is_not_there_is_unreachable_once_its_neighbours_gave_up() {
    let lab = Routed::new();
    // Three questions for the neighbour, one a second (arp(7)).
    lab.probe(&[
        "--timeout",
        "6s",
        "--resolve",
        "registry.test:5000:10.77.1.99",
    ])
    .fails_by("host_unreachable");
    let outcome = lab.probe(&[
        "--timeout",
        "6s",
        "--resolve",
        "registry.test:5000:10.77.2.99",
    ]);
    outcome.fails_by("host_unreachable");
    assert!(
        outcome.text().contains(&format!("from {}", ROUTER[0])),
        "{}",
        outcome.text()
    );
    // Who does not wait that long has seen nothing yet.
    lab.probe_at("10.77.1.98").fails_by("tcp_timeout");
}

#[test]
fn a_name_with_both_families_is_dialled_as_go_does_whatever_is_wrong_with_one() {
    let lab = Routed::new();
    let both_quiet = |lab: &Routed| {
        let outcome = lab.probe(&[]);
        assert_eq!(outcome.codes(), [ARRIVED], "{}", outcome.text());
        outcome
    };
    let outcome = both_quiet(&lab);
    let leg = &outcome.document.reports[0].evidence.walk.legs[0];
    let found = leg.resolve.outcome.done().unwrap();
    // Both of global scope: IPv6 comes first (RFC 6724, 2.1).
    let shown: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, [FAR[1], FAR[0]]);
    assert!(
        leg.connect
            .attempts
            .iter()
            .all(|dial| dial.outcome.done().is_some())
    );

    // Swallowed on the way.
    lab.router.filter_at("forward", "ip6 nexthdr tcp drop");
    let outcome = lab.probe(&[]);
    assert_eq!(
        outcome.codes(),
        [ARRIVED, "v6_blackhole"],
        "{}",
        outcome.text()
    );
    lab.router.unfilter();

    // The router has no way for it.
    lab.router.ip("-6 route add unreachable 2001:db8:2::2/128");
    let outcome = lab.probe(&[]);
    assert_eq!(
        outcome.codes(),
        [ARRIVED, "net_unreach_v6"],
        "{}",
        outcome.text()
    );
    lab.router.ip("-6 route del unreachable 2001:db8:2::2/128");

    // Dead IPv4 behind a good IPv6 costs nothing.
    lab.router
        .filter_at("forward", "ip protocol tcp tcp dport 5000 drop");
    both_quiet(&lab);
    lab.router.unfilter();

    // A prober without IPv6 has no source for that address: it comes last, and costs nothing.
    lab.prober.sysctl("net.ipv6.conf.all.disable_ipv6=1");
    both_quiet(&lab);
    lab.probe_at(FAR[1]).fails_by("no_local_address");
    // Only `-6` leaves nothing to dial it by.
    lab.probe(&["-6"]).fails_by("no_local_address");
}

#[test]
fn a_blocked_path_to_the_name_server_is_classified_by_how_it_is_blocked() {
    let lab = Routed::new();
    for (netns, hook, rule, code) in [
        (&lab.router, "forward", "udp dport 53 drop", "dns_timeout"),
        (
            &lab.router,
            "forward",
            "udp dport 53 reject with icmpx port-unreachable",
            "dns_server_unreachable",
        ),
        (
            &lab.router,
            "forward",
            "udp dport 53 reject with icmpx admin-prohibited",
            "dns_server_unreachable",
        ),
        (&lab.far, "input", "udp dport 53 drop", "dns_timeout"),
        (
            &lab.prober,
            "output",
            "udp dport 53 drop",
            "dns_server_unreachable",
        ),
    ] {
        netns.filter_at(hook, rule);
        lab.probe(&[]).fails_by(code);
        netns.unfilter();
    }
    // Only TCP is closed, which such a small answer does not need.
    lab.router.filter_at("forward", "tcp dport 53 drop");
    assert_eq!(lab.probe(&[]).codes(), [ARRIVED]);
}

#[test]
fn a_long_answer_needs_tcp_to_the_name_server() {
    let lab = Routed::new();
    let folder = tempfile::tempdir().unwrap();
    let mut command = lab.far.command("dnsmasq");
    command.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv"]);
    command.args(["--no-hosts", "--user=root", "--pid-file=", "--port=5353"]);
    for last in 1..120 {
        command.arg(format!("--host-record=registry.test,10.77.9.{last}"));
    }
    let _dns = Process::start("dnsmasq", &mut command, folder.path()).listening(5353);
    let probe = |more: &[&str]| {
        let args = ["--plain-http", "--nameserver", "10.77.2.2:5353"];
        let args = args.iter().chain(more).map(|&arg| arg.to_owned());
        run_probe(&lab.prober, &args.collect::<Vec<_>>())
    };
    for (rule, words) in [
        ("tcp dport 5353 drop", "no answer within"),
        ("tcp dport 5353 reject with tcp reset", "refused after"),
        (
            "tcp dport 5353 reject with icmpx admin-prohibited",
            "can't be reached",
        ),
    ] {
        lab.router.filter_at("forward", rule);
        let outcome = probe(&[]);
        outcome.fails_by("dns_tcp_closed");
        let text = outcome.text();
        assert!(text.contains("with TC set"), "{text}");
        assert!(text.contains(words), "{text}");
        lab.router.unfilter();
    }
    assert!(!probe(&[]).codes().contains(&"dns_tcp_closed"));
    // UDP closed is another matter.
    lab.router.filter_at("forward", "udp dport 5353 drop");
    probe(&[]).fails_by("dns_timeout");
}

#[test]
fn packets_that_this_machine_drops_itself_can_not_be_distinguished_from_lost_ones() {
    // The kernel says nothing of a SYN that netfilter dropped on the output path: tcp_connect() goes on
    // to repeat it. EPERM is what datagrams and `prohibit`ed routes get.
    let lab = Routed::new();
    lab.prober.filter_at("output", "tcp dport 5000 drop");
    for address in FAR {
        lab.probe_at(address).fails_by("tcp_timeout");
    }
    lab.prober.unfilter();
    // A rule for routes says it aloud.
    lab.prober.ip("rule add to 10.77.2.2/32 prohibit");
    lab.probe_at(FAR[0]).fails_by("local_policy");
}

#[test]
fn a_reject_of_this_machines_own_is_local_policy() {
    let lab = Routed::new();
    lab.prober.filter_at(
        "output",
        "tcp dport 5000 reject with icmpx admin-prohibited",
    );
    lab.probe_at(FAR[0]).fails_by("local_policy");
    lab.prober.unfilter();
    lab.prober.filter_at(
        "output",
        "tcp dport 5000 reject with icmpx port-unreachable",
    );
    lab.probe_at(FAR[0]).fails_by("local_policy");
}

/// A registry of files behind a router whose link to us takes 1300 bytes, and 1500 on all others.
struct Tunnel {
    client: Netns,
    router: Netns,
    server: Netns,
    _nginx: Process,
    folder: tempfile::TempDir,
}

impl Tunnel {
    /// `names` go into the certificate: many make it larger than a packet. None: plain http.
    fn new(names: usize) -> Self {
        let (client, router, server) = (Netns::new(), Netns::new(), Netns::new());
        let (near, far) = (
            ["10.7.1.1/24", "fd07:1::1/64"],
            ["10.7.2.1/24", "fd07:2::1/64"],
        );
        client.wire("c", &["10.7.1.2/24", "fd07:1::2/64"], &router, &near);
        server.wire("s", &["10.7.2.2/24", "fd07:2::2/64"], &router, &far);
        for (netns, v4, v6) in [
            (&client, "10.7.1.1", "fd07:1::1"),
            (&server, "10.7.2.1", "fd07:2::1"),
        ] {
            netns.ip(&format!("route add default via {v4}"));
            netns.ip(&format!("-6 route add default via {v6}"));
        }
        router.sysctl("net.ipv4.ip_forward=1");
        router.sysctl("net.ipv6.conf.all.forwarding=1");
        router.ip("link set c mtu 1300");

        let folder = tempfile::tempdir().unwrap();
        // The end of a tar, without anything before it.
        let layer = vec![0; 64 << 10];
        let image = image::Image::single(&layer);
        let base = folder.path().join("v2/team/app");
        for part in ["manifests", "blobs"] {
            std::fs::create_dir_all(base.join(part)).unwrap();
        }
        let write = |path: &str, bytes: &[u8]| std::fs::write(base.join(path), bytes).unwrap();
        write("manifests/1.0", &image.manifest);
        write(&format!("manifests/{}", image.digest), &image.manifest);
        write(&format!("blobs/{}", image.layer), &layer);
        write(&format!("blobs/{}", sha256(&image.config)), &image.config);
        let tls = if names > 0 {
            let names: Vec<String> = (0..names)
                .map(|n| format!("name-{n:03}.registry.test"))
                .collect();
            let names = [vec!["registry.test".to_owned()], names].concat();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let pem =
                |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
            pem("cert.pem", made.cert.pem());
            pem("key.pem", made.signing_key.serialize_pem());
            let at = folder.path().display();
            format!("ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem;")
        } else {
            String::new()
        };
        let config = format!(
            "daemon off; master_process off; error_log stderr; pid {at}/pid; events {{}} http {{\n\
             access_log off; client_body_temp_path {at}/t; proxy_temp_path {at}/t; fastcgi_temp_path {at}/t;\n\
             uwsgi_temp_path {at}/t; scgi_temp_path {at}/t; types {{}} default_type {kind};\n\
             server {{ listen 10.7.2.2:5000 {ssl}; listen [fd07:2::2]:5000 {ssl}; {tls} root {at};\n\
             location = /v2/ {{ return 200 '{{}}'; }}\n\
             location ~ /manifests/ {{ add_header Docker-Content-Digest {digest}; }} }} }}\n",
            at = folder.path().display(),
            kind = "application/vnd.oci.image.manifest.v1+json",
            ssl = if names > 0 { "ssl" } else { "" },
            digest = image.digest,
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = server.command("nginx");
        command.arg("-e").arg("stderr").arg("-c").arg(&file);
        let nginx = Process::start("nginx", &mut command, folder.path()).listening(5000);
        Self {
            client,
            router,
            server,
            _nginx: nginx,
            folder,
        }
    }

    /// The router keeps to itself that a packet was too large.
    fn hide_the_mtu(&self) {
        self.router.filter_at(
            "output",
            "icmp type destination-unreachable icmp code frag-needed drop\nicmpv6 type packet-too-big drop",
        );
    }

    fn probe(&self, more: &[&str]) -> Outcome {
        self.probe_at("10.7.2.2", more)
    }

    fn probe_at(&self, address: &str, more: &[&str]) -> Outcome {
        let ca = self.folder.path().join("cert.pem");
        let ca = ["--ca-file", ca.to_str().unwrap()];
        let args = if ca[1].ends_with("cert.pem") && Path::new(ca[1]).exists() {
            [&ca[..], more].concat()
        } else {
            more.to_vec()
        };
        probe(&self.client, &[address], &args)
    }
}

#[test]
fn a_black_hole_for_large_packets_is_proved_at_a_layer() {
    let tunnel = Tunnel::new(0);
    let plain = ["--plain-http"];
    let verdict = &tunnel.probe(&plain).document.reports[0].verdict;
    assert_eq!(verdict.pull, Pull::WouldSucceed, "ICMP informs the server");
    // The kernel remembers an ICMP error (tcp_metrics, route exceptions): a new namespace, without one.
    let tunnel = Tunnel::new(0);
    tunnel.hide_the_mtu();
    let outcome = tunnel.probe(&plain);
    outcome.fails_by("mtu_blackhole");
    let report = &outcome.document.reports[0];
    assert_eq!(report.verdict.findings[0].phase.unwrap().as_str(), "blob");
    let trials = report.evidence.walk.segments.as_ref().unwrap();
    assert!(trials.is_proof());
    tunnel
        .probe_at("fd07:2::2", &plain)
        .fails_by("mtu_blackhole");
    assert_eq!(report.verdict.consequences[0].cause.code(), "http_timeout");
}

#[test]
fn a_black_hole_for_large_packets_is_proved_at_a_certificate() {
    let tunnel = Tunnel::new(90);
    tunnel.hide_the_mtu();
    let outcome = tunnel.probe(&[]);
    outcome.fails_by("mtu_blackhole");
    let finding = &outcome.document.reports[0].verdict.findings[0];
    assert_eq!(finding.phase.unwrap().as_str(), "tls");
}

#[test]
fn a_server_that_hangs_is_no_black_hole() {
    let tunnel = Tunnel::new(0);
    // What is larger than a bare head vanishes, and small segments are that too.
    tunnel
        .router
        .filter_at("forward", "ip saddr 10.7.2.2 meta length > 500 drop");
    let outcome = tunnel.probe(&["--plain-http"]);
    assert!(
        !outcome.codes().contains(&"mtu_blackhole"),
        "{}",
        outcome.text()
    );
    let trials = outcome.document.reports[0]
        .evidence
        .walk
        .segments
        .as_ref()
        .unwrap();
    assert_eq!(
        trials.trials.len(),
        3,
        "small segments fail as well, twice: that is enough"
    );
}

#[test]
fn a_syn_that_was_lost_is_reported_and_a_quiet_path_is_not() {
    let tunnel = Tunnel::new(1);
    let patient = ["--timeout", "5s"];
    let quiet = tunnel.probe(&patient);
    assert!(!quiet.codes().contains(&"connect_loss"), "{}", quiet.text());
    tunnel.router.filter_at(
        "forward",
        "ip daddr 10.7.2.2 tcp flags & (syn | ack) == syn numgen inc mod 2 == 0 drop",
    );
    let outcome = tunnel.probe(&patient);
    let report = &outcome.document.reports[0];
    assert_eq!(
        report.verdict.pull,
        Pull::WouldSucceed,
        "{}",
        outcome.text()
    );
    let findings = &report.verdict.findings;
    let told = findings
        .iter()
        .find(|finding| finding.cause.code() == "connect_loss")
        .unwrap_or_else(|| panic!("{}", outcome.text()));
    assert!(told.evidence[0].contains("the SYN was sent 2 times"));
    let dial = report.evidence.walk.legs[0].connect.attempts[0]
        .outcome
        .done();
    assert_eq!(dial.unwrap().syn_retransmits, Some(1));
}

#[test]
fn a_way_so_long_that_syns_are_repeated_is_not_called_lossy() {
    let tunnel = Tunnel::new(1);
    // Another way to the same server, with a round trip of 1.3 s: the kernel repeats a SYN after one second.
    let knobs = Knobs::delay(650);
    let ends = [
        (&tunnel.client, "10.7.3.1/24"),
        (&tunnel.server, "10.7.3.2/24"),
    ];
    let [near, far] = ends.map(|(netns, address)| End::new(&netns.name, "far", &[address]));
    let _wire = Wire::lay(&near, &far, knobs, 1500, 1);
    tunnel
        .client
        .ip("route add 10.7.2.2/32 via 10.7.3.2 dev far");
    let outcome = tunnel.probe(&["--timeout", "10s"]);
    let report = &outcome.document.reports[0];
    let dial = report.evidence.walk.legs[0].connect.attempts[0]
        .outcome
        .done();
    assert!(
        dial.unwrap().syn_retransmits > Some(0),
        "{}",
        outcome.text()
    );
    assert_eq!(
        report.verdict.pull,
        Pull::WouldSucceed,
        "{}",
        outcome.text()
    );
    assert!(
        !outcome.codes().contains(&"connect_loss"),
        "{}",
        outcome.text()
    );
}

/// The smallest image.
mod image {
    use pullpath::registry::manifest::sha256 as digest;

    pub(crate) struct Image {
        pub(crate) manifest: Vec<u8>,
        pub(crate) digest: String,
        pub(crate) config: Vec<u8>,
        pub(crate) layer: String,
    }

    impl Image {
        pub(crate) fn single(layer: &[u8]) -> Self {
            let layer_digest = digest(layer);
            let config = serde_json::json!({
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            });
            let config = serde_json::to_vec(&config).unwrap();
            let manifest = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
                "layers": [{
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer_digest,
                    "size": layer.len(),
                }],
            });
            let manifest = serde_json::to_vec(&manifest).unwrap();
            Self {
                digest: digest(&manifest),
                manifest,
                config,
                layer: layer_digest,
            }
        }
    }
}
