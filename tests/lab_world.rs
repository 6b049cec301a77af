//! The world of network namespaces itself, by the word of ping, curl and dig alone, without the
//! program under test.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;
#[path = "lab/metadata.rs"]
mod metadata;
#[path = "real/stack.rs"]
mod stack;
mod support;
#[path = "lab/world.rs"]
mod world;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::netns::Netns;
use lab::process::run;
use lab::wire::{End, Knobs, Wire};
use metadata::{CANARY, Cloud, Facts};
use stack::{PASSWORD, REPOSITORY, TAG, USER};
use world::{
    AUTH, BLOBS, Block, CGNAT, CONTROL, ECHO, ENDPOINT, Host, NEAR, NODE, NODE_EIP, ONPREM, PEER,
    POD_EIP, PROXY, PUBLIC, REG, SNAT, SNAT_POOL, SWR, TURBO, World,
};

/// curl's exit codes.
const GOOD: i32 = 0;
const NO_CONNECTION: i32 = 7;
const TIMEOUT: i32 = 28;

/// What curl says, and its exit code.
fn curl(world: &World, netns: &Netns, args: &[&str]) -> (i32, String) {
    let mut command = netns.command("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"]);
    command.arg(world.ca_file());
    command.args(["--connect-timeout", "1", "--max-time", "9"]);
    let output = command.args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), text)
}

/// How curl fares with a registry.
fn fares(world: &World, netns: &Netns, host: &Host) -> i32 {
    curl(world, netns, &[&format!("https://{}/v2/", host.name())]).0
}

fn fares_v6(world: &World, netns: &Netns, host: &Host) -> i32 {
    curl(world, netns, &[&format!("https://{}/v2/", host.name_v6())]).0
}

/// The address and port that an echo sees; `None` if it is not reached.
fn seen_by(world: &World, netns: &Netns, name: &str, more: &[&str]) -> Option<(String, u16)> {
    let url = format!("https://{name}/");
    let (code, text) = curl(world, netns, &[more, &[url.as_str()]].concat());
    assert!([GOOD, TIMEOUT].contains(&code), "{code} {text}");
    let (address, port) = text.trim().split_once(' ').filter(|_| code == GOOD)?;
    Some((address.to_owned(), port.parse().unwrap()))
}

/// ping's word, good or bad.
fn ping(netns: &Netns, args: &[&str]) -> (bool, String) {
    let mut command = netns.command("ping");
    let output = command.args(["-n", "-W", "1"]).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// The least round trip of ten, in ms.
fn round_trip(netns: &Netns, address: &str) -> f64 {
    let (_, text) = ping(netns, &["-q", "-c", "10", "-i", "0.02", address]);
    let (_, times) = text
        .split_once("mdev = ")
        .unwrap_or_else(|| panic!("{text}"));
    times.split('/').next().unwrap().parse().unwrap()
}

/// The MSS that a connection of the namespace has for what it sends.
fn mss(netns: &Netns, host: &Host) -> u32 {
    netns.inside(|| {
        let stream = std::net::TcpStream::connect((host.v4, 443)).unwrap();
        socket2::SockRef::from(&stream).tcp_mss().unwrap()
    })
}

fn dig(netns: &Netns, server: &str, name: &str, kind: &str) -> Vec<String> {
    let mut command = netns.command("dig");
    command.args(["+short", "+time=2", "+tries=2", name, kind]);
    let text = run(command.arg(format!("@{server}")));
    text.lines().map(str::to_owned).collect()
}

/// A cable on its own.
fn cable(knobs: Knobs, seed: u64) -> (Wire, Netns, Netns) {
    let (here, there) = (Netns::new(), Netns::new());
    let wire = Wire::lay(
        &End::new(&here.name, "t0", &["10.9.0.1/30", "fd09::1/64"]),
        &End::new(&there.name, "t0", &["10.9.0.2/30", "fd09::2/64"]),
        knobs,
        1500,
        seed,
    );
    (wire, here, there)
}

#[test]
fn a_cable_takes_its_time() {
    let (wire, here, _there) = cable(Knobs::delay(10), 1);
    for address in ["10.9.0.2", "fd09::2"] {
        let time = round_trip(&here, address);
        assert!((20.0..22.0).contains(&time), "{time} ms");
    }
    wire.set(|knobs| knobs.delay = Duration::from_millis(25));
    let time = round_trip(&here, "10.9.0.2");
    assert!((50.0..53.0).contains(&time), "{time} ms");
    drop(wire);
    // The devices are gone with it.
    let links = run(Command::new("ip").args(["-n", &here.name, "-o", "link"]));
    assert_eq!(links.lines().count(), 1, "{links}");
}

#[test]
fn a_cable_loses_the_same_packets_with_the_same_seed() {
    let lost = |seed| {
        let knobs = Knobs {
            loss: 10.0,
            ..Knobs::default()
        };
        let (wire, here, _there) = cable(knobs, seed);
        let (_, text) = ping(&here, &["-q", "-c", "300", "-i", "0.002", "10.9.0.2"]);
        let [out, back] = wire.lost();
        let received = format!(" {} received", 300 - out - back);
        assert!(text.contains(&received), "{received}: {text}");
        [out, back]
    };
    let first = lost(1);
    assert_eq!(first, lost(1));
    assert_ne!(first, lost(2));
    // Of 300 with 10 %: 30, and four times the standard deviation, which is 5.2.
    assert!((9..=51).contains(&first[0]), "{first:?}");
}

#[test]
fn a_cable_has_a_rate() {
    let world = World::new();
    world.registry(&PUBLIC);
    let layer = &world.image().platforms[0].layers[0];
    let url = format!(
        "https://{}/v2/{REPOSITORY}/blobs/{}",
        PUBLIC.name(),
        layer.digest
    );
    let speed = || -> f64 {
        let args = [
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{speed_download}",
            &url,
        ];
        let (code, text) = curl(&world, &world.node, &args);
        assert_eq!(code, GOOD, "{text}");
        text.parse::<f64>().unwrap() * 8.0 / 1e6
    };
    let free = speed();
    assert!(free > 40.0, "{free} Mbit/s");
    world.wan.set(|knobs| knobs.rate = Some(20.0));
    let capped = speed();
    assert!((14.0..20.0).contains(&capped), "{capped} Mbit/s");
    // A token bucket lets nearly half of the layer pass at once, and then it is empty.
    world.wan.set(|knobs| knobs.burst = 2_000_000);
    for _ in 0..2 {
        world.wan.refill();
        let [full, empty] = [speed(), speed()];
        assert!((25.0..40.0).contains(&full), "{full} Mbit/s");
        assert!((14.0..23.0).contains(&empty), "{empty} Mbit/s");
    }
}

#[test]
fn a_world_is_up_in_a_second_and_goes_altogether() {
    let first = World::new();
    let start = Instant::now();
    let second = World::new();
    let took = start.elapsed();
    // It takes a quarter of one when the machine has nothing else to do.
    assert!(took < Duration::from_secs(5), "{took:?}");
    let name = second.vpc.name.clone();
    drop((first, second));
    assert!(!Path::new("/run/netns").join(name).exists());
    // Also when a test fails.
    let (name, pids) = std::thread::spawn(|| {
        let world = World::new();
        world.echo(&ECHO);
        let pids = run(Command::new("ip").args(["netns", "pids", &world.public.name]));
        std::panic::panic_any((world.public.name.clone(), pids));
    })
    .join()
    .unwrap_err()
    .downcast::<(String, String)>()
    .map(|both| *both)
    .unwrap();
    assert!(!Path::new("/run/netns").join(&name).exists());
    assert!(!Path::new("/etc/netns").join(&name).exists());
    assert_eq!(pids.lines().count(), 1);
    assert!(!Path::new("/proc").join(pids.trim()).exists());
}

#[test]
fn everybody_is_where_the_map_says() {
    let world = World::new();
    // The hops to each, which the last packet's hop limit has to be.
    let from_node = [
        (NEAR, 1),
        (REG, 2),
        (PROXY, 2),
        (TURBO, 2),
        (SWR, 2),
        (ENDPOINT, 2),
        (CGNAT, 2),
        (PEER, 3),
        (PUBLIC, 3),
        (ECHO, 3),
        (ONPREM, 3),
    ];
    for (host, hops) in from_node {
        for address in [host.v4, host.v6] {
            for ttl in [hops - 1, hops] {
                let ttl_text = ttl.max(1).to_string();
                let (good, text) = ping(&world.node, &["-c", "1", "-t", &ttl_text, address]);
                assert_eq!(good, ttl.max(1) >= hops, "{address}: {text}");
            }
        }
    }
    let route = |address: &str| {
        run(Command::new("ip").args(["-n", &world.node.name, "route", "get", address]))
    };
    for address in [NEAR.v4, NEAR.v6] {
        assert!(!route(address).contains(" via "), "{}", route(address));
    }
    assert!(
        route(REG.v4).contains(" via 10.0.1.1 "),
        "{}",
        route(REG.v4)
    );
    assert!(
        route(REG.v6).contains(" via 2a0a:1:1::1 "),
        "{}",
        route(REG.v6)
    );
    // The first router reports a hop limit that ends there.
    let (_, text) = ping(&world.node, &["-c", "1", "-t", "1", PUBLIC.v4]);
    assert!(text.contains("From 10.0.1.1 "), "{text}");
    let (_, text) = ping(&world.node, &["-c", "1", "-t", "2", PUBLIC.v4]);
    assert!(text.contains("From 121.36.0.1 "), "{text}");
    // The others get about as well.
    for netns in [&world.pod, &world.turbo] {
        for host in [NODE, NEAR, REG, SWR, PEER, PUBLIC, ONPREM] {
            for address in [host.v4, host.v6] {
                let (good, text) = ping(netns, &["-c", "1", address]);
                assert!(good, "{address}: {text}");
            }
        }
    }
    for (address, least, most) in [
        (REG.v4, 0.0, 2.0),
        (PUBLIC.v4, 4.0, 7.0),
        (ONPREM.v4, 12.0, 15.0),
    ] {
        let time = round_trip(&world.node, address);
        assert!((least..most).contains(&time), "{address}: {time} ms");
    }
    // A private range without a route is nowhere.
    assert!(!ping(&world.node, &["-c", "1", "10.77.0.1"]).0);
}

#[test]
fn real_registries_are_everywhere() {
    let world = World::new();
    for host in [NEAR, REG, SWR, ENDPOINT, PEER, PUBLIC, ONPREM] {
        world.registry(&host);
        let manifest = format!("{}/v2/{REPOSITORY}/manifests/{TAG}", host.name());
        let accept = format!("Accept: {}", world.image().top().media_type);
        let url = format!("https://{manifest}");
        let (code, text) = curl(&world, &world.node, &["-H", &accept, &url]);
        assert_eq!(code, GOOD, "{}", host.name);
        assert_eq!(text.as_bytes(), &world.image().top().bytes[..]);
        assert_eq!(fares(&world, &world.pod, &host), GOOD, "{}", host.name);
        assert_eq!(fares_v6(&world, &world.turbo, &host), GOOD, "{}", host.name);
    }
    // What has been ended is gone.
    world.end("web-near");
    assert_eq!(fares(&world, &world.node, &NEAR), NO_CONNECTION);
}

#[test]
fn an_eip_outranks_snat_and_each_covers_its_own() {
    let world = World::new();
    world.echo(&ECHO);
    let seen = |netns: &Netns, name: &str| Some(seen_by(&world, netns, name, &[])?.0);
    let public = |netns: &Netns| seen(netns, &ECHO.name());
    let public_v6 = |netns: &Netns| seen(netns, &ECHO.name_v6());
    let all = |world: &World| {
        [
            public(&world.node),
            public(&world.pod),
            public(&world.turbo),
        ]
    };
    let some = |addresses: [&str; 3]| addresses.map(|address| Some(address.to_owned()));
    assert_eq!(all(&world), some([SNAT; 3]));
    // IPv6 has no translation, except for pods of a private range.
    assert_eq!(public_v6(&world.node).as_deref(), Some(NODE.v6));
    assert_eq!(public_v6(&world.pod).as_deref(), Some(NODE.v6));
    // The pods behind the node have its address.
    world.eip(NODE.v4, NODE_EIP);
    assert_eq!(all(&world), some([NODE_EIP, NODE_EIP, SNAT]));
    world.eip(TURBO.v4, POD_EIP);
    world.no_snat();
    assert_eq!(all(&world), some([NODE_EIP, NODE_EIP, POD_EIP]));
    // An EIP is reached from outside.
    assert!(ping(&world.public, &["-c", "1", POD_EIP]).0);
    assert!(!ping(&world.public, &["-c", "1", SNAT]).0);
    // Without either nothing gets out, but within the VPC and in IPv6.
    world.no_eip();
    assert_eq!(public(&world.node), None);
    assert_eq!(public_v6(&world.node).as_deref(), Some(NODE.v6));
    assert!(ping(&world.node, &["-c", "1", REG.v4]).0);
    // SNAT over one subnet only.
    world.snat_for("10.0.8.0/24", &[SNAT]);
    assert_eq!(public(&world.turbo).as_deref(), Some(SNAT));
    assert_eq!(public(&world.node), None);
}

#[test]
fn snat_may_have_several_addresses_and_ports_of_its_own() {
    let world = World::new();
    world.echo(&ECHO);
    let seen = |more: &[&str]| seen_by(&world, &world.node, &ECHO.name(), more).unwrap();
    assert_eq!(seen(&["--local-port", "41000"]), (SNAT.to_owned(), 41000));
    world.snat(&SNAT_POOL);
    let mut addresses: Vec<String> = (0..4).map(|_| seen(&[]).0).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses, SNAT_POOL);
    world.snat_sticky(&SNAT_POOL);
    let first = seen(&[]).0;
    assert!((0..4).all(|_| seen(&[]).0 == first));
    world.snat_random_ports(&[SNAT]);
    let ports: Vec<u16> = (0..3)
        .map(|turn| seen(&["--local-port", &(42000 + turn).to_string()]).1)
        .collect();
    assert!(
        ports.iter().any(|port| !(42000..42003).contains(port)),
        "{ports:?}"
    );
}

#[test]
fn what_blocks_shows_as_it_should() {
    let world = World::new();
    for host in [PUBLIC, CONTROL, REG] {
        world.registry(&host);
    }
    let node = &world.node;
    let timed = |host: &Host| {
        let start = Instant::now();
        (fares(&world, node, host), start.elapsed())
    };
    assert_eq!(fares_v6(&world, node, &PUBLIC), GOOD);
    world.no_egress();
    assert_eq!(fares(&world, node, &PUBLIC), TIMEOUT);
    assert_eq!(fares_v6(&world, node, &PUBLIC), TIMEOUT);
    assert_eq!(fares(&world, node, &REG), GOOD);
    world.clear();
    world.blackhole_v6();
    assert_eq!(fares(&world, node, &PUBLIC), GOOD);
    assert_eq!(fares_v6(&world, node, &PUBLIC), TIMEOUT);
    world.clear();
    assert_eq!(fares_v6(&world, node, &PUBLIC), GOOD);
    world.block(PUBLIC.v4, 443, Block::Drop);
    assert_eq!(fares(&world, node, &PUBLIC), TIMEOUT);
    assert_eq!(fares(&world, node, &CONTROL), GOOD);
    for how in [Block::Reset, Block::Prohibited, Block::Unreachable] {
        world.clear();
        world.block(PUBLIC.v4, 443, how);
        let (code, took) = timed(&PUBLIC);
        assert_eq!(code, NO_CONNECTION, "{how:?}");
        assert!(took < Duration::from_secs(1), "{how:?}: {took:?}");
    }
}

#[test]
fn a_peering_wants_routes_on_both_sides_and_a_security_group_that_admits() {
    let world = World::new();
    world.registry(&PEER);
    assert_eq!(fares(&world, &world.node, &PEER), GOOD);
    assert_eq!(fares(&world, &world.pod, &PEER), GOOD);
    world.far_security_group(Block::Drop);
    assert_eq!(fares(&world, &world.node, &PEER), TIMEOUT);
    assert!(ping(&world.node, &["-c", "1", PEER.v4]).0);
    world.no_security_group(&PEER);
    world.far_security_group(Block::Reset);
    assert_eq!(fares_v6(&world, &world.node, &PEER), NO_CONNECTION);
    world.no_security_group(&PEER);
    assert_eq!(fares(&world, &world.node, &PEER), GOOD);
    world.peering_without_return_route();
    assert_eq!(fares(&world, &world.node, &PEER), TIMEOUT);
    assert_eq!(fares_v6(&world, &world.node, &PEER), TIMEOUT);
}

#[test]
fn a_vpn_lowers_the_mss_and_may_swallow_large_packets() {
    let world = World::new();
    for host in [ONPREM, REG] {
        world.registry(&host);
    }
    let node = &world.node;
    let layer = &world.image().platforms[0].layers[1];
    let blob = format!(
        "https://{}/v2/{REPOSITORY}/blobs/{}",
        ONPREM.name(),
        layer.digest
    );
    let download = || {
        let args = [
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            "--max-time",
            "3",
            blob.as_str(),
        ];
        let (code, size) = curl(&world, node, &args);
        (code, size == layer.bytes.len().to_string())
    };
    // Twelve bytes of each segment are for time stamps.
    assert_eq!(mss(node, &REG), 1448);
    assert_eq!(mss(node, &ONPREM), 1448);
    assert_eq!(download(), (GOOD, true));

    world.vpn(1400);
    assert_eq!(mss(node, &REG), 1448);
    assert_eq!(mss(node, &ONPREM), 1348);
    assert_eq!(download(), (GOOD, true));
    assert_eq!(fares_v6(&world, node, &ONPREM), GOOD);
    let large = ["-c", "2", "-i", "0.05", "-M", "do", "-s", "1400", ONPREM.v4];
    let (good, text) = ping(node, &large);
    assert!(
        !good && text.contains("mtu = 1400") || text.contains("mtu=1400"),
        "{text}"
    );
    let time = round_trip(node, ONPREM.v4);
    assert!((12.0..15.0).contains(&time), "{time} ms");

    // Without clamping, path MTU discovery does it.
    world.no_mss_clamp();
    world.forget_path_mtu();
    assert_eq!(mss(node, &ONPREM), 1448);
    assert_eq!(download(), (GOOD, true));
    // Unless the sender gets no error: a black hole.
    world.drop_frag_needed();
    world.forget_path_mtu();
    assert_eq!(download(), (TIMEOUT, false));
    world.clear();
    world.forget_path_mtu();
    assert_eq!(download(), (GOOD, true));
    world.vpn(1300);
    let (_, text) = ping(node, &large);
    assert!(
        text.contains("mtu = 1300") || text.contains("mtu=1300"),
        "{text}"
    );
    world.direct_connect();
    world.forget_path_mtu();
    assert!(ping(node, &["-c", "1", "-M", "do", "-s", "1472", ONPREM.v4]).0);
}

#[test]
fn the_node_may_have_services_and_a_tunnel_of_its_own() {
    let world = World::new();
    for host in [REG, ONPREM] {
        world.registry(&host);
    }
    for (vip, backend) in [("10.247.9.9", REG.v4), ("fd10:247::9", REG.v6)] {
        world.cluster_ip(vip, 5000, backend, 443);
        let bracketed = if vip.contains(':') {
            format!("[{vip}]")
        } else {
            vip.to_owned()
        };
        let args = [
            "--connect-to",
            &format!("{}:443:{bracketed}:5000", REG.name()),
        ];
        let url = format!("https://{}/v2/", REG.name());
        for netns in [&world.node, &world.pod] {
            let (code, text) = curl(&world, netns, &[args[0], args[1], &url]);
            assert_eq!(code, GOOD, "{vip}: {text}");
        }
    }
    let subnet = "192.168.50.0/24";
    world.host_tunnel("wg0", subnet, 1420);
    let route = run(Command::new("ip").args(["-n", &world.node.name, "route", "get", ONPREM.v4]));
    assert!(route.contains(" dev wg0 "), "{route}");
    assert_eq!(fares(&world, &world.node, &ONPREM), GOOD);
    assert_eq!(mss(&world.node, &ONPREM), 1368);
    let time = round_trip(&world.node, ONPREM.v4);
    assert!((16.0..19.0).contains(&time), "{time} ms");
}

#[test]
fn a_proxy_goes_out_for_others() {
    let world = World::new();
    world.echo(&ECHO);
    world.http_proxy();
    // The node itself does not get out.
    world.snat_for("10.0.2.0/24", &[SNAT]);
    let url = ECHO.url();
    assert_eq!(curl(&world, &world.node, &[&url]).0, TIMEOUT);
    let proxy = format!("http://{}:3128", PROXY.v4);
    let (code, text) = curl(&world, &world.node, &["--noproxy", "", "-x", &proxy, &url]);
    assert_eq!(code, GOOD);
    assert!(text.starts_with(SNAT), "{text}");
}

#[test]
fn names_may_differ_by_who_asks_and_whom() {
    let world = World::new();
    let [first, first_v6] = world::DNS;
    let name = REG.name();
    assert_eq!(dig(&world.node, first, &name, "A"), [REG.v4]);
    assert_eq!(dig(&world.pod, first_v6, &REG.name_v6(), "AAAA"), [REG.v6]);
    assert!(dig(&world.node, first, &name, "AAAA").is_empty());
    assert_eq!(dig(&world.node, first, &REG.name_dual(), "A"), [REG.v4]);
    world.names(&[(&name, &[PUBLIC.v4, PUBLIC.v6]), ("none.test", &[])]);
    assert_eq!(dig(&world.node, first, &name, "A"), [PUBLIC.v4]);
    assert_eq!(dig(&world.node, first, &name, "AAAA"), [PUBLIC.v6]);
    let mut status = world.node.command("dig");
    let status = run(status.args(["none.test", &format!("@{first}")]));
    assert!(status.contains("NXDOMAIN"), "{status}");
    assert_eq!(dig(&world.node, first, &PEER.name(), "A"), [PEER.v4]);
    world.second_dns(&[(&name, &[ONPREM.v4])]);
    assert_eq!(dig(&world.node, world::DNS_2[0], &name, "A"), [ONPREM.v4]);
    assert_eq!(dig(&world.node, first, &name, "A"), [PUBLIC.v4]);
    world.dns_view("10.0.8.0/24", &[(&name, &[PUBLIC.v4])]);
    assert_eq!(dig(&world.node, first, &name, "A"), [REG.v4]);
    assert_eq!(dig(&world.turbo, first, &name, "A"), [PUBLIC.v4]);
    assert_eq!(dig(&world.turbo, first, &PEER.name(), "A"), [PEER.v4]);
}

#[test]
fn a_pull_has_three_legs_and_each_may_fail() {
    let world = World::new();
    world.split_registry(&REG, Some(&AUTH), Some(&BLOBS));
    let folder = tempfile::tempdir().unwrap();
    let pull = |netns: &Netns, to: &str| {
        let mut command = netns.command("timeout");
        command.args(["5", "skopeo", "--insecure-policy", "copy", "--src-cert-dir"]);
        command.arg(world.ca_file().parent().unwrap());
        command.arg(format!("--src-creds={USER}:{PASSWORD}"));
        command.arg(format!("docker://{}", REG.reference()));
        command.arg(format!("dir:{}", folder.path().join(to).display()));
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (good, text) = pull(&world.node, "one");
    assert!(good, "{text}");
    let url = format!("https://{}/v2/", REG.name());
    let (_, head) = curl(&world, &world.node, &["-i", &url]);
    let realm = format!("realm=\"https://{}/token\"", AUTH.name());
    assert!(head.contains(&realm), "{head}");
    world.block(BLOBS.v4, 443, Block::Reset);
    let (good, text) = pull(&world.node, "two");
    assert!(!good && text.contains(BLOBS.v4), "{text}");
    world.clear();
    world.block(AUTH.v4, 443, Block::Reset);
    let (good, text) = pull(&world.turbo, "three");
    assert!(!good && text.contains(AUTH.v4), "{text}");
}

#[test]
fn metadata_is_as_each_cloud_has_it() {
    let world = World::new();
    let get = |netns: &Netns, path: &str, more: &[&str]| {
        let url = format!("http://169.254.169.254{path}");
        let args = [
            &["-w", " %{http_code}", "--max-time", "1"],
            more,
            &[url.as_str()],
        ]
        .concat();
        curl(&world, netns, &args)
    };
    let node = &world.node;
    let text = |path: &str, more: &[&str]| get(node, path, more).1;
    assert_eq!(get(node, "/", &[]).0, NO_CONNECTION);

    let seen = world.metadata(Facts::with_public(Cloud::Huawei, NODE_EIP));
    assert_eq!(
        text("/latest/meta-data/public-ipv4", &[]),
        format!("{NODE_EIP} 200")
    );
    assert_eq!(text("/latest/meta-data/local-ipv4", &[]), "10.0.1.10 200");
    let meta = get(&world.pod, "/openstack/latest/meta_data.json", &[]).1;
    assert!(meta.contains("\"vpc_id\":\"11111111-"), "{meta}");
    assert!(text("/openstack/latest/network_data.json", &[]).contains("instance_max_bandwidth"));
    seen.assert_harmless();
    assert_eq!(seen.requests()[0], "GET /latest/meta-data/public-ipv4");
    assert!(text("/openstack/latest/securitykey", &[]).contains(CANARY));
    assert!(std::panic::catch_unwind(|| seen.assert_harmless()).is_err());

    world.metadata(Facts::of(Cloud::OpenStack));
    assert!(!text("/openstack/latest/meta_data.json", &[]).contains("vpc_id"));
    assert!(text("/latest/meta-data/public-ipv4", &[]).ends_with(" 404"));

    let log = world.folder().join("metadata.log");
    world.metadata(Facts {
        log: Some(log.clone()),
        vpc_cidrs: vec!["10.0.0.0/16".to_owned(), "10.60.0.0/16".to_owned()],
        ..Facts::with_public(Cloud::Aws, NODE_EIP)
    });
    let public = "/latest/meta-data/public-ipv4";
    assert!(text(public, &[]).ends_with(" 401"));
    let put = [
        "-X",
        "PUT",
        "-H",
        "X-aws-ec2-metadata-token-ttl-seconds: 60",
    ];
    let answer = text("/latest/api/token", &put);
    let token = answer.strip_suffix(" 200").unwrap();
    let header = ["-H", &format!("X-aws-ec2-metadata-token: {token}")];
    assert_eq!(text(public, &header), format!("{NODE_EIP} 200"));
    let macs = "/latest/meta-data/network/interfaces/macs/";
    let mac = text(macs, &header).replace("/ 200", "");
    let blocks = text(&format!("{macs}{mac}/vpc-ipv4-cidr-blocks"), &header);
    assert_eq!(blocks, "10.0.0.0/16\n10.60.0.0/16 200");
    let lines = std::fs::read_to_string(log).unwrap();
    assert!(
        lines.starts_with(&format!("GET {public}\nPUT /latest/api/token\n")),
        "{lines}"
    );

    world.metadata(Facts::of(Cloud::Alibaba));
    let alibaba = |path: &str| {
        curl(
            &world,
            &world.turbo,
            &[&format!("http://100.100.100.200/latest/meta-data/{path}")],
        )
        .1
    };
    assert_eq!(alibaba("vpc-cidr-block"), "10.0.0.0/16");
    assert_eq!(alibaba("vswitch-cidr-block"), "10.0.1.0/24");
    assert_eq!(get(node, "/", &[]).0, NO_CONNECTION);

    let elsewhere = format!("https://{}/", CONTROL.name());
    world.metadata(Facts {
        redirect: Some(elsewhere.clone()),
        ..Facts::default()
    });
    assert!(
        text("/", &["-i"])
            .to_lowercase()
            .contains(&format!("location: {elsewhere}"))
    );
    world.metadata(Facts {
        hang: true,
        ..Facts::default()
    });
    assert_eq!(get(node, "/", &[]).0, TIMEOUT);
    // A small hop limit: answers get to the node, and not to what is behind it.
    world.metadata(Facts {
        ttl: Some(2),
        ..Facts::default()
    });
    assert_eq!(get(node, "/latest/", &[]).0, GOOD);
    assert_eq!(get(&world.pod, "/latest/", &[]).0, TIMEOUT);
    world.metadata(Facts::default());
    world.metadata_blocked_for_pods();
    assert_eq!(get(node, "/latest/", &[]).0, GOOD);
    for pod in [&world.pod, &world.turbo] {
        assert_eq!(get(pod, "/latest/", &[]).0, TIMEOUT);
    }
}

#[test]
fn the_user_nobody_has_no_rights() {
    let netns = Netns::new();
    let status = run(netns.as_nobody("cat").arg("/proc/self/status"));
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("Uid:"), "65534 65534 65534 65534");
    assert_eq!(line("Gid:"), "65534 65534 65534 65534");
    assert_eq!(line("Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!(line("NoNewPrivs:"), "1");
    let inside = run(netns.as_nobody("readlink").arg("/proc/self/ns/net"));
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(inside.trim(), own.to_str().unwrap());
    // Not even a raw socket.
    let output = netns
        .as_nobody("ping")
        .args(["-c", "1", "127.0.0.1"])
        .output();
    assert!(!output.unwrap().status.success());
}
