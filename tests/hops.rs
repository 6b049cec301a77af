//! The hops on the path to a server, behind real routers: the kernel's, in network namespaces. What
//! traces has no privilege at all.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "lab/edges.rs"]
mod edges;
mod lab;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lab::netns::Netns;
use lab::process::{Process, run};
use pullpath::model::fault::{IcmpError, TcpFault};
use pullpath::model::hops::{Trace, TraceEnd};

/// A prober, three routers and a server, one behind the other.
struct Lab {
    prober: Netns,
    routers: [Netns; 3],
    server: Netns,
    _listener: Process,
    _folder: tempfile::TempDir,
}

const OPEN: u16 = 5000;
const CLOSED: u16 = 5001;

/// The near and the far end of a cable; the first is the prober's.
fn ends(cable: usize) -> [[String; 2]; 2] {
    [1, 2].map(|end| {
        [
            format!("10.78.{cable}.{end}"),
            format!("2001:db8:78:{cable}::{end}"),
        ]
    })
}

/// The addresses that a way is seen by: each router's nearest, and the server's.
fn on_the_way(family: usize) -> [String; 4] {
    [1, 2, 3, 4].map(|cable| ends(cable)[1][family].clone())
}

impl Lab {
    fn new() -> Self {
        let prober = Netns::new();
        let routers = [Netns::new(), Netns::new(), Netns::new()];
        let server = Netns::new();
        let chain: Vec<&Netns> = [&prober]
            .into_iter()
            .chain(&routers)
            .chain([&server])
            .collect();
        for (cable, pair) in (1..).zip(chain.windows(2)) {
            let [here, there] =
                ends(cable).map(|[v4, v6]| [format!("{v4}/24"), format!("{v6}/64")]);
            let [here, there] = [&here, &there].map(|end| [end[0].as_str(), end[1].as_str()]);
            pair[0].wire(&format!("cable{cable}"), &here, pair[1], &there);
        }
        for router in &routers {
            router.sysctl("net.ipv4.ip_forward=1");
            router.sysctl("net.ipv6.conf.all.forwarding=1");
            // Or the second trace within a second would meet a silent router.
            router.sysctl("net.ipv4.icmp_ratelimit=0");
            router.sysctl("net.ipv6.icmp.ratelimit=0");
        }
        // Forward by default; back by the cables behind.
        for (cable, netns) in (1..).zip(&chain[..4]) {
            let [v4, v6] = &ends(cable)[1];
            netns.ip(&format!("route add default via {v4}"));
            netns.ip(&format!("-6 route add default via {v6}"));
        }
        for (cable, netns) in (1..).zip(&chain[1..]) {
            let [v4, v6] = &ends(cable)[0];
            for behind in 1..cable {
                netns.ip(&format!("route add 10.78.{behind}.0/24 via {v4}"));
                netns.ip(&format!("-6 route add 2001:db8:78:{behind}::/64 via {v6}"));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let mut command = server.command("python3");
        command
            .args(["-m", "http.server", "--bind", "::"])
            .arg(OPEN.to_string());
        let listener = Process::start("http", command.current_dir(folder.path()), folder.path());
        let lab = Self {
            prober,
            routers,
            server,
            _listener: listener.listening(OPEN),
            _folder: folder,
        };
        lab.settle();
        lab
    }

    /// Waits until both ways are good: neighbours take their time to find each other.
    fn settle(&self) {
        let start = Instant::now();
        for family in [V4, V6] {
            while self.trace(family, OPEN).reached.is_none() {
                assert!(start.elapsed() < Duration::from_secs(15), "no way");
            }
        }
    }

    fn trace(&self, family: usize, port: u16) -> Trace {
        self.trace_with(family, port, &[])
    }

    fn trace_with(&self, family: usize, port: u16, more: &[&str]) -> Trace {
        let address: IpAddr = on_the_way(family)[3].parse().unwrap();
        let to = std::net::SocketAddr::new(address, port).to_string();
        let args = [&["hops", &to], more].concat();
        serde_json::from_str(&edges::run(&self.prober, &args)).unwrap()
    }

    /// Connections that the server has ever taken, over both families (RFC 4022, tcpPassiveOpens).
    fn taken(&self) -> u64 {
        let snmp = run(self.server.command("cat").arg("/proc/net/snmp"));
        let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:"));
        let [names, values] = [tcp.next().unwrap(), tcp.next().unwrap()];
        let place = names
            .split(' ')
            .position(|name| name == "PassiveOpens")
            .unwrap();
        values.split(' ').nth(place).unwrap().parse().unwrap()
    }
}

const V4: usize = 0;
const V6: usize = 1;

fn senders(trace: &Trace) -> Vec<String> {
    let shown = |from: Option<IpAddr>| from.map_or_else(|| "*".to_owned(), |a| a.to_string());
    trace.hops.iter().map(|hop| shown(hop.from)).collect()
}

/// ICMP type and code of each hop that has them.
fn icmp(trace: &Trace) -> Vec<Option<(u8, u8)>> {
    let said = |icmp: IcmpError| (icmp.kind, icmp.code);
    trace.hops.iter().map(|hop| hop.icmp.map(said)).collect()
}

const EXCEEDED: [(u8, u8); 2] = [(11, 0), (3, 0)];

#[test]
fn routers_are_seen_in_order_before_a_port_that_is_open_or_closed() {
    let lab = Lab::new();
    for family in [V4, V6] {
        for (port, opened) in [(OPEN, 1), (CLOSED, 0)] {
            let before = lab.taken();
            let trace = lab.trace(family, port);
            assert_eq!(senders(&trace), on_the_way(family), "{trace:?}");
            let exceeded = Some(EXCEEDED[family]);
            assert_eq!(icmp(&trace), [exceeded, exceeded, exceeded, None]);
            assert_eq!((trace.reached, &trace.ended), (Some(4), &TraceEnd::Reached));
            for hop in &trace.hops {
                assert!(hop.rtt.unwrap() < Duration::from_millis(500), "{trace:?}");
            }
            assert_eq!(lab.taken() - before, opened, "connections at the server");
        }
        let trace = lab.trace_with(family, OPEN, &["2"]);
        assert_eq!(senders(&trace), on_the_way(family)[..2]);
        assert_eq!((trace.reached, trace.ended), (None, TraceEnd::MaxHops));
    }
}

#[test]
fn a_server_that_drops_is_four_silent_hops_behind_the_last_router() {
    let lab = Lab::new();
    lab.server.filter(&format!("tcp dport {OPEN} drop"));
    for family in [V4, V6] {
        let trace = lab.trace(family, OPEN);
        let routers = &on_the_way(family)[..3];
        assert_eq!(senders(&trace)[..3], *routers, "{trace:?}");
        assert_eq!(senders(&trace)[3..], ["*", "*", "*", "*"]);
        assert_eq!((trace.reached, &trace.ended), (None, &TraceEnd::Silent));
        // A wait, and a quarter of it for each SYN after the first.
        let took = trace.took.as_secs_f64();
        assert!((1.7..4.0).contains(&took), "{took}");
    }
}

#[test]
fn a_filter_that_says_so_ends_the_trace_with_its_own_name() {
    let lab = Lab::new();
    let prohibited = [(3, 13), (1, 1)];
    let rule = |verdict| format!("tcp dport {OPEN} {verdict}");
    lab.routers[1].filter_at("forward", &rule("reject with icmpx admin-prohibited"));
    for family in [V4, V6] {
        let trace = lab.trace(family, OPEN);
        let [first, second, ..] = on_the_way(family);
        // The TTL is used up before the packet reaches the filter.
        assert_eq!(
            senders(&trace),
            [first, second.clone(), second],
            "{trace:?}"
        );
        let exceeded = Some(EXCEEDED[family]);
        assert_eq!(icmp(&trace), [exceeded, exceeded, Some(prohibited[family])]);
        let TraceEnd::Unreachable { icmp } = trace.ended else {
            panic!("{trace:?}");
        };
        assert!(icmp.is_prohibited());
        assert_eq!((icmp.from, trace.reached), (trace.hops[1].from, None));
    }
    lab.routers[1].unfilter();

    // The server's own filter: it says no, and it is there.
    lab.server
        .filter(&rule("reject with icmpx port-unreachable"));
    for family in [V4, V6] {
        let trace = lab.trace(family, OPEN);
        assert_eq!(senders(&trace), on_the_way(family), "{trace:?}");
        assert_eq!(icmp(&trace)[3], Some([(3, 3), (1, 4)][family]));
        assert_eq!(trace.reached, Some(4));
        assert!(matches!(trace.ended, TraceEnd::Unreachable { .. }));
    }
    lab.server.unfilter();

    // A reset of a router can only be distinguished from the server's by the missing hops.
    lab.routers[1].filter_at("forward", &rule("reject with tcp reset"));
    for family in [V4, V6] {
        let trace = lab.trace(family, OPEN);
        assert_eq!((trace.reached, &trace.ended), (Some(3), &TraceEnd::Reached));
        assert_eq!(senders(&trace)[2], on_the_way(family)[3]);
    }
}

#[test]
fn a_silent_router_is_an_empty_hop_and_the_way_goes_on() {
    let lab = Lab::new();
    let rule = "icmp type time-exceeded drop\nicmpv6 type time-exceeded drop";
    lab.routers[1].filter_at("output", rule);
    for family in [V4, V6] {
        let before = lab.taken();
        let trace = lab.trace(family, OPEN);
        let [first, _, third, server] = on_the_way(family);
        assert_eq!(senders(&trace), [&first, "*", &third, &server], "{trace:?}");
        assert!(trace.hops[1].is_silent() && trace.hops[1].rtt.is_none());
        assert_eq!((trace.reached, &trace.ended), (Some(4), &TraceEnd::Reached));
        // The others did not wait for it: a quarter of a wait, then they go on.
        assert!(trace.took < Duration::from_millis(1500), "{:?}", trace.took);
        assert_eq!(lab.taken() - before, 1);
    }
}

#[test]
fn a_transparent_proxy_on_the_way_answers_in_the_name_of_the_server() {
    let lab = Lab::new();
    let router = &lab.routers[0];
    let mut command = router.command("python3");
    command.args(["-m", "http.server", "--bind", "::", "3128"]);
    let folder = tempfile::tempdir().unwrap();
    let _proxy =
        Process::start("proxy", command.current_dir(folder.path()), folder.path()).listening(3128);
    run(router.command("nft").arg(format!(
        "table inet nat {{\nchain in {{\ntype nat hook prerouting priority dstnat;\ntcp dport {OPEN} redirect to :3128\n}}\n}}\n"
    )));
    for family in [V4, V6] {
        let trace = lab.trace(family, OPEN);
        assert_eq!((trace.reached, &trace.ended), (Some(1), &TraceEnd::Reached));
        assert_eq!(senders(&trace), on_the_way(family)[3..], "{trace:?}");
    }
}

#[test]
fn what_this_machine_itself_forbids_is_no_hop() {
    let netns = Netns::new();
    let trace =
        |to: &str| -> Trace { serde_json::from_str(&edges::run(&netns, &["hops", to])).unwrap() };
    for to in ["192.0.2.9:443", "[2001:db8::9]:443"] {
        let trace = trace(to);
        let fault = TcpFault::NetUnreachable { icmp: None };
        assert_eq!(
            (trace.hops.len(), trace.ended),
            (0, TraceEnd::Local { fault })
        );
    }
    for (route, to) in [
        ("route add prohibit 198.51.100.0/24", "198.51.100.9:443"),
        (
            "-6 route add prohibit 2001:db8:1::/48",
            "[2001:db8:1::9]:443",
        ),
    ] {
        netns.ip(route);
        let errno = libc::EACCES;
        let fault = TcpFault::LocalPolicy { errno };
        assert_eq!(trace(to).ended, TraceEnd::Local { fault });
    }
    // A filter of its own that drops says nothing to TCP: that is silence from the first hop on.
    netns.filter_at("output", "tcp dport 443 drop");
    let trace = trace("127.0.0.1:443");
    assert_eq!((trace.hops.len(), trace.ended), (4, TraceEnd::Silent));
}

/// So that the tests prove what they say of privileges.
#[test]
fn what_traces_may_do_nothing_that_others_may_not() {
    let netns = Netns::new();
    let status = run(edges::unprivileged(&netns, "cat").arg("/proc/self/status"));
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(of("Uid:"), ["65534"; 4]);
    assert_eq!(of("NoNewPrivs:"), ["1"]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(of(set), ["0000000000000000"], "{set}");
    }
}
