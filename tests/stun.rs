//! A real STUN server (coturn), asked in network namespaces: directly, and through a NAT.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "lab/edges.rs"]
mod edges;
mod lab;

use std::net::{IpAddr, SocketAddr};

use lab::netns::Netns;
use lab::process::{Process, run};
use pullpath::model::evidence::Step;
use pullpath::model::stun::{Mapping, StunFault};

const PORT: u16 = 3478;
const BOTH: [&str; 2] = ["stun-udp", "stun-tcp"];

/// Runs as long as the value; its database and its pid are in the folder.
fn coturn(netns: &Netns, folder: &tempfile::TempDir, addresses: &[&str]) -> Process {
    let mut command = netns.command("turnserver");
    command.args(["-n", "--stun-only", "--no-tls", "--no-dtls", "--no-cli"]);
    command
        .args(["--log-file=stdout", "--listening-port"])
        .arg(PORT.to_string());
    for (option, file) in [("--pidfile", "pid"), ("--userdb", "db")] {
        command.arg(option).arg(folder.path().join(file));
    }
    for address in addresses {
        command.args(["--listening-ip", address]);
    }
    Process::start("turnserver", &mut command, folder.path()).listening(PORT)
}

fn ask(netns: &Netns, how: &str, address: &str) -> Step<Mapping, StunFault> {
    let server = SocketAddr::new(address.parse().unwrap(), PORT);
    serde_json::from_str(&edges::run(netns, &[how, &server.to_string()])).unwrap()
}

#[test]
fn coturn_says_where_a_request_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let netns = Netns::new();
    for address in ["127.0.0.1", "::1"] {
        for how in BOTH {
            let step = ask(&netns, how, address);
            assert_eq!(step.fault(), Some(&StunFault::Refused), "{how} {address}");
        }
    }
    let _server = coturn(&netns, &folder, &["127.0.0.1", "::1"]);
    for address in ["127.0.0.1", "::1"] {
        for how in BOTH {
            let step = ask(&netns, how, address);
            let mapping = step.done().unwrap_or_else(|| panic!("{how}: {step:?}"));
            assert_eq!(
                mapping.server.to_string(),
                SocketAddr::new(address.parse().unwrap(), PORT).to_string()
            );
            assert_eq!(mapping.local, mapping.mapped);
            assert_eq!(mapping.local.ip(), mapping.server.ip());
        }
    }
}

/// The prober, the router's two sides, and the server.
const PROBER: [&str; 2] = ["10.79.1.2", "2001:db8:79:1::2"];
const INSIDE: [&str; 2] = ["10.79.1.1", "2001:db8:79:1::1"];
const OUTSIDE: [&str; 2] = ["10.79.2.1", "2001:db8:79:2::1"];
const SERVER: [&str; 2] = ["10.79.2.2", "2001:db8:79:2::2"];

#[test]
fn a_nat_on_the_way_is_seen_by_the_address_that_it_gives() {
    let folder = tempfile::tempdir().unwrap();
    let [prober, router, server] = [Netns::new(), Netns::new(), Netns::new()];
    let with = |[v4, v6]: [&str; 2]| [format!("{v4}/24"), format!("{v6}/64")];
    for (netns, device, here, there) in [
        (&prober, "near0", PROBER, INSIDE),
        (&server, "far0", SERVER, OUTSIDE),
    ] {
        let (here, there) = (with(here), with(there));
        netns.wire(
            device,
            &[&here[0], &here[1]],
            &router,
            &[&there[0], &there[1]],
        );
    }
    for (netns, gateway) in [(&prober, INSIDE), (&server, OUTSIDE)] {
        netns.ip(&format!("route add default via {}", gateway[0]));
        netns.ip(&format!("-6 route add default via {}", gateway[1]));
    }
    router.sysctl("net.ipv4.ip_forward=1");
    router.sysctl("net.ipv6.conf.all.forwarding=1");
    let _server = coturn(&server, &folder, &SERVER);
    for is_translated in [false, true] {
        if is_translated {
            run(router.command("nft").arg(
                "table inet nat {\nchain out {\ntype nat hook postrouting priority srcnat;\noifname far0 meta l4proto { tcp, udp } masquerade to :1024-2047\n}\n}\n",
            ));
        }
        for (family, address) in SERVER.into_iter().enumerate() {
            for how in BOTH {
                let step = ask(&prober, how, address);
                let mapping = step.done().unwrap_or_else(|| panic!("{how}: {step:?}"));
                let ip = |text: &str| text.parse::<IpAddr>().unwrap();
                assert_eq!(mapping.local.ip(), ip(PROBER[family]));
                assert_eq!(mapping.is_translated(), is_translated, "{mapping:?}");
                if is_translated {
                    assert_eq!(mapping.mapped.ip(), ip(OUTSIDE[family]));
                    assert!((1024..2048).contains(&mapping.mapped.port()));
                }
            }
        }
    }
}
