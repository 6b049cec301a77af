//! Classes of paths in the world of network namespaces: the real program, as the user `nobody` and
//! without capabilities, beside real servers, routers and translations.

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

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lab::netns::Netns;
use metadata::{CANARY, Cloud, Facts};
use pullpath::diagnose::Pull;
use pullpath::diagnose::level::Confidence;
use pullpath::diagnose::path::leg_path::{LegPath, Reachability};
use pullpath::model::endpoint::Role;
use pullpath::model::hops::TraceEnd;
use pullpath::model::network::{Metadata, MetadataSkip, Provider};
use pullpath::model::path::{EipOf, IntranetKind, PathClass};
use pullpath::report::text::{self, Style};
use pullpath::report::{Document, Report};
use world::{
    AUTH, BLOBS, Block, CGNAT, CONTROL, DNS, DNS_2, ECHO, Host, NEAR, NODE_EIP, ONPREM, PEER,
    POD_EIP, PROXY, PUBLIC, Place, REG, SNAT, SNAT_POOL, SWR, TURBO, World,
};

use Confidence::{High, Low, Medium};
use PathClass::{
    DirectConnectVpn, Intranet, Mixed, PrivateUnmapped, PublicDirect, PublicEip, PublicSnat,
    PublicUnknown, VpcPeering,
};
use Reachability::{Reachable, Refused, Unreachable};

/// The map that an operator of this world would write.
const MAP: &str = "cidrs:
    - {cidr: 10.0.0.0/16, class: intranet, name: our VPC}
    - {cidr: 10.50.0.0/16, class: vpc_peering, name: shared services}
    - {cidr: 192.168.0.0/16, class: direct_connect_vpn, name: data centre}
    - {cidr: '2a0a:1::/32', class: intranet}
    - {cidr: '2a0a:50::/32', class: vpc_peering}
    - {cidr: 'fd92:168::/32', class: direct_connect_vpn}
";

/// Where a probe stands.
#[derive(Clone, Copy, PartialEq)]
enum View {
    Node,
    /// A pod of the VPC network model, behind the node.
    Pod,
    /// A pod with an address of the VPC.
    Turbo,
}

struct Probe<'a> {
    world: &'a World,
    view: View,
    /// It is process 1, of an age of its own.
    is_new_container: bool,
    image: String,
    /// Lines of `network`, without their indentation of two.
    network: Vec<String>,
    args: Vec<String>,
    environment: Vec<(String, String)>,
}

struct Outcome {
    report: Report,
    took: Duration,
}

impl<'a> Probe<'a> {
    fn of(world: &'a World, host: &Host) -> Self {
        Self {
            world,
            view: View::Node,
            is_new_container: false,
            image: host.reference(),
            network: Vec::new(),
            args: Vec::new(),
            environment: Vec::new(),
        }
    }

    fn from(mut self, view: View) -> Self {
        self.view = view;
        self
    }

    fn in_a_new_container(mut self) -> Self {
        self.is_new_container = true;
        self
    }

    /// By another name of the host.
    fn named(mut self, host: &Host, name: &str) -> Self {
        self.image = host.reference().replace(&host.name(), name);
        self
    }

    /// A line of the configuration, below `network`.
    fn network(mut self, line: &str) -> Self {
        self.network.push(line.to_owned());
        self
    }

    fn mapped(self) -> Self {
        self.network(MAP)
    }

    fn echo(self) -> Self {
        let url = ECHO.url();
        self.network(&format!("egress: {{echo: ['{url}'], samples: 4}}"))
    }

    fn control(self) -> Self {
        let name = CONTROL.name();
        self.network(&format!("controls: ['{name}:443', '{}:443']", AUTH.name()))
    }

    fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn run(self) -> Outcome {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let has = |key: &str| self.network.iter().any(|line| line.starts_with(key));
        let mut config = "network:\n".to_owned();
        for line in &self.network {
            config.push_str("  ");
            config.push_str(line);
            config.push('\n');
        }
        // The machine below may be one of a cloud itself.
        if !has("metadata") {
            config.push_str("  metadata: off\n");
        }
        if !has("provider") {
            config.push_str("  provider: openstack\n");
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = self.world.folder().join(format!("config-{number}.yaml"));
        fs::write(&file, config).unwrap();

        let netns: &Netns = match self.view {
            View::Node => &self.world.node,
            View::Pod => &self.world.pod,
            View::Turbo => &self.world.turbo,
        };
        let none = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/no-credentials.json"
        );
        let program = env!("CARGO_BIN_EXE_pullpath");
        let mut command = if self.is_new_container {
            netns.as_nobody_in_a_new_container(program)
        } else {
            netns.as_nobody(program)
        };
        command.args(["probe", &self.image, "--transfer", "off"]);
        command.args(["-o", "json", "--config"]);
        command
            .arg(&file)
            .arg("--ca-file")
            .arg(self.world.ca_file());
        if !self.args.iter().any(|arg| arg == "--docker-config") {
            command.args(["--docker-config", none]);
        }
        if !self.args.iter().any(|arg| arg == "--nameserver") {
            command.args(["--nameserver", DNS[0]]);
        }
        if !self.args.iter().any(|arg| arg == "--timeout") {
            command.args(["--timeout", "1200ms"]);
        }
        let path = std::env::var("PATH").unwrap();
        command.args(["--hosts-file", "/dev/null"]).args(&self.args);
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/nonexistent");
        let (host, pod) = match self.view {
            View::Node => ("10.0.1.10", "10.0.1.10"),
            View::Pod => ("10.0.1.10", "172.16.0.5"),
            View::Turbo => ("10.0.1.10", "10.0.8.5"),
        };
        // As every pod has them; the API server's Service is none that answers here.
        command.env("HOST_IP", host).env("POD_IP", pod);
        command.env("KUBERNETES_SERVICE_HOST", "10.247.0.1");
        command.envs(self.environment.clone());
        let start = std::time::Instant::now();
        let output = command.output().unwrap();
        let took = start.elapsed();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(!stdout.contains(CANARY) && !stderr.contains(CANARY));
        let document: Document = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        let report = document.reports.into_iter().next().unwrap();
        // The decision alone, on the saved report, has the same result.
        let again = Report::conclude(report.evidence.clone());
        assert_eq!(again.verdict, report.verdict);
        Outcome { report, took }
    }
}

impl Outcome {
    fn text(&self) -> String {
        text::render(&self.report, Style { color: false }, true)
    }

    fn leg(&self, role: Role) -> &LegPath {
        let mut paths = self.report.verdict.paths.iter();
        paths
            .find(|path| path.role == role && path.of_host.is_none())
            .unwrap_or_else(|| panic!("no leg {role}:\n{}", self.text()))
    }

    /// The class of a leg, whether it answers, and how sure the class may be.
    fn is(
        &self,
        role: Role,
        class: PathClass,
        answers: Reachability,
        sure: &[Confidence],
    ) -> &Self {
        let leg = self.leg(role);
        let egress = &self.report.evidence.vantage.egress;
        assert_eq!(
            (leg.class, leg.reachability),
            (Some(class), answers),
            "{}{egress:#?}",
            self.text()
        );
        assert!(sure.contains(&leg.confidence), "{}{egress:#?}", self.text());
        self
    }

    fn needs(&self, role: Role, classes: &[PathClass]) -> &Self {
        let wanted: BTreeSet<PathClass> = classes.iter().copied().collect();
        assert_eq!(self.leg(role).needs, wanted, "{}", self.text());
        // Each need has its fix.
        for class in wanted {
            let fixes = &self.leg(role).fixes;
            assert!(
                fixes
                    .iter()
                    .any(|fix| fix.class == class && !fix.action.is_empty()),
                "{}",
                self.text()
            );
        }
        self
    }

    /// These findings, and no others.
    fn finds(&self, codes: &[&str]) -> &Self {
        let findings = &self.report.verdict.findings;
        let found: Vec<&str> = findings.iter().map(|f| f.cause.code()).collect();
        assert_eq!(found, codes, "{}", self.text());
        self
    }

    /// Nothing is wrong, and no leg speaks against its class.
    fn is_well(&self) -> &Self {
        self.finds(&[]);
        assert_eq!(
            self.report.verdict.pull,
            Pull::WouldSucceed,
            "{}",
            self.text()
        );
        for path in &self.report.verdict.paths {
            assert!(path.contradictions.is_empty(), "{}", self.text());
        }
        self
    }

    /// Wherever the lines are broken.
    fn says(&self, words: &str) -> &Self {
        let text: Vec<String> = self.text().split_whitespace().map(str::to_owned).collect();
        assert!(
            text.join(" ").contains(words),
            "no '{words}' in\n{}",
            self.text()
        );
        self
    }
}

const REGISTRY: Role = Role::Registry;

#[test]
fn the_probe_is_nobodys_and_has_no_capabilities() {
    let world = World::new();
    let output = world
        .node
        .as_nobody("cat")
        .arg("/proc/self/status")
        .output()
        .unwrap();
    let status = String::from_utf8(output.stdout).unwrap();
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "no {line:?} in\n{status}");
    }
}

#[test]
fn within_the_vpc_and_from_where_that_is_known() {
    let world = World::new();
    world.registry(&NEAR);
    world.registry(&REG);
    // The same subnet: its own interface shows it. So over IPv6.
    Probe::of(&world, &NEAR)
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .says("on eth0")
        .is_well();
    Probe::of(&world, &NEAR)
        .named(&NEAR, &NEAR.name_v6())
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .is_well();
    // Another subnet: nothing here shows that it is of the VPC.
    let open = Probe::of(&world, &REG).run();
    open.is(REGISTRY, PrivateUnmapped, Reachable, &[Low])
        .is_well();
    open.says("- {cidr: \"10.0.2.0/24\", class: vpc_peering}");
    // The operator, or the cloud, knows.
    Probe::of(&world, &REG)
        .mapped()
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .says("our VPC")
        .is_well();
    Probe::of(&world, &REG)
        .mapped()
        .named(&REG, &REG.name_v6())
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .is_well();
    for cloud in [Cloud::Aws, Cloud::Alibaba] {
        let service = world.metadata(Facts::of(cloud));
        let name = if cloud == Cloud::Aws {
            "aws"
        } else {
            "alibaba"
        };
        let outcome = Probe::of(&world, &REG)
            .network(&format!("metadata: {name}"))
            .run();
        outcome
            .is(REGISTRY, Intranet, Reachable, &[High])
            .says("10.0.0.0/16")
            .is_well();
        service.assert_harmless();
    }
    // A closed security group in the VPC.
    world.security_group(&REG, Block::Drop);
    Probe::of(&world, &REG)
        .mapped()
        .run()
        .is(REGISTRY, Intranet, Unreachable, &[High])
        .needs(REGISTRY, &[Intranet])
        .finds(&["tcp_timeout"])
        .says("security group");
}

#[test]
fn from_a_pods_own_range() {
    let world = World::new();
    world.registry(&REG);
    world.registry(&PUBLIC);
    Probe::of(&world, &REG)
        .from(View::Pod)
        .mapped()
        .network("cluster_network: vpc")
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .is_well();
    // The node translates it towards the public network, and the gateway the node.
    world.echo(&ECHO);
    let outcome = Probe::of(&world, &PUBLIC)
        .from(View::Pod)
        .network("cluster_network: vpc")
        .network(&format!("snat_addresses: [{SNAT}]"))
        .echo()
        .run();
    outcome
        .is(REGISTRY, PublicSnat, Reachable, &[High])
        .is_well();
    // The node's EIP is the pod's egress as well.
    world.eip("10.0.1.10", NODE_EIP);
    let outcome = Probe::of(&world, &PUBLIC)
        .from(View::Pod)
        .network("cluster_network: vpc")
        .network(&format!("node_external_ips: [{NODE_EIP}]"))
        .echo()
        .run();
    outcome
        .is(REGISTRY, PublicEip, Reachable, &[High])
        .is_well();
    assert_eq!(outcome.leg(REGISTRY).attributes.eip_of, Some(EipOf::Node));
}

#[test]
fn peering_well_and_broken_in_each_way() {
    let world = World::new();
    world.registry(&PEER);
    let probe = || {
        Probe::of(&world, &PEER)
            .mapped()
            .network("provider: huawei")
    };
    for name in [PEER.name(), PEER.name_v6()] {
        probe()
            .named(&PEER, &name)
            .run()
            .is(REGISTRY, VpcPeering, Reachable, &[High])
            .is_well();
    }
    // Without a declaration, the report suggests one.
    Probe::of(&world, &PEER)
        .run()
        .is(REGISTRY, PrivateUnmapped, Reachable, &[Low])
        .is_well();
    // The routers on the path, found without a request to a server that does not answer.
    let hops = probe().args(&["--hops"]).run();
    let trace = hops.report.evidence.walk.legs[0].hops.clone().unwrap();
    let from: Vec<String> = trace
        .hops
        .iter()
        .map(|hop| hop.from.unwrap().to_string())
        .collect();
    assert_eq!(from, ["10.0.1.1", "10.255.2.2", PEER.v4]);
    assert_eq!((trace.reached, trace.ended), (Some(3), TraceEnd::Reached));
    let hops = probe()
        .named(&PEER, &PEER.name_v6())
        .args(&["--hops"])
        .run();
    let trace = hops.report.evidence.walk.legs[0].hops.clone().unwrap();
    assert_eq!((trace.hops.len(), trace.reached), (3, Some(3)), "{trace:?}");

    world.far_security_group(Block::Reset);
    probe()
        .run()
        .is(REGISTRY, VpcPeering, Refused, &[High])
        .needs(REGISTRY, &[])
        .finds(&["tcp_refused"]);
    world.no_security_group(&PEER);
    world.far_security_group(Block::Drop);
    probe()
        .run()
        .is(REGISTRY, VpcPeering, Unreachable, &[High])
        .needs(REGISTRY, &[VpcPeering])
        .finds(&["tcp_timeout"])
        .says("security group");
    world.no_security_group(&PEER);

    world.block(PEER.v4, 443, Block::Prohibited);
    probe()
        .run()
        .is(REGISTRY, VpcPeering, Unreachable, &[High])
        .needs(REGISTRY, &[])
        .finds(&["tcp_prohibited"])
        .says("10.0.1.1");
    world.clear();

    world.peering_without_return_route();
    for name in [PEER.name(), PEER.name_v6()] {
        probe()
            .named(&PEER, &name)
            .run()
            .is(REGISTRY, VpcPeering, Unreachable, &[High])
            .needs(REGISTRY, &[VpcPeering])
            .finds(&["tcp_timeout"])
            .says("routes on both sides")
            .says("ACTIVE");
    }
    world.peering_without_route();
    // Out by the default route, where private addresses are dropped.
    probe()
        .run()
        .is(REGISTRY, VpcPeering, Unreachable, &[High])
        .needs(REGISTRY, &[VpcPeering])
        .finds(&["tcp_timeout"]);
    // Undeclared, both ways are candidates.
    Probe::of(&world, &PEER)
        .run()
        .is(REGISTRY, PrivateUnmapped, Unreachable, &[Low])
        .needs(REGISTRY, &[VpcPeering, DirectConnectVpn])
        .finds(&["tcp_timeout", "private_unmapped"]);
}

#[test]
fn a_range_that_two_networks_use() {
    let world = World::new();
    world.registry(&NEAR);
    let overlapping = "cidrs: [{cidr: 10.0.1.0/24, class: vpc_peering, name: the partner's}]";
    // Somebody local answers.
    Probe::of(&world, &NEAR)
        .network(overlapping)
        .run()
        .is(REGISTRY, Intranet, Reachable, &[Medium])
        .needs(REGISTRY, &[])
        .finds(&["address_overlap"]);
    // No local host has the address: it is the far host's, and no packet leaves for it.
    let outcome = Probe::of(&world, &NEAR)
        .network(overlapping)
        .args(&["--resolve", "near.test:443:10.0.1.77"])
        .run();
    outcome
        .is(REGISTRY, Intranet, Unreachable, &[Medium])
        .needs(REGISTRY, &[VpcPeering])
        .finds(&["address_overlap"])
        .says("Renumber");
    assert_eq!(outcome.report.verdict.pull, Pull::WouldFail);
    // By the cloud's word of the VPC, for another subnet of it.
    world.registry(&REG);
    world.metadata(Facts::of(Cloud::Aws));
    Probe::of(&world, &REG)
        .network("cidrs: [{cidr: 10.0.2.0/24, class: direct_connect_vpn}]")
        .network("metadata: aws")
        .run()
        .is(REGISTRY, Intranet, Reachable, &[Medium])
        .finds(&["address_overlap"]);
}

#[test]
fn the_kernel_sends_it_to_pods_or_containers_of_this_host() {
    let world = World::new();
    world.registry(&ONPREM);
    let node = world.at(Place::Node);
    let probe = || Probe::of(&world, &ONPREM);
    let short = || probe().args(&["--timeout", "1200ms"]);
    // Nothing else has the range.
    probe()
        .mapped()
        .run()
        .is(REGISTRY, DirectConnectVpn, Reachable, &[High])
        .is_well();
    // flannel's route for the pods of another node.
    node.ip_batch(
        "link add flannel.1 type vxlan id 1 dstport 8472 local 10.0.1.10 dev eth0 nolearning\n\
         addr add 192.168.0.0/32 dev flannel.1\n\
         link set flannel.1 up\n\
         neigh add 192.168.50.0 lladdr 02:00:00:00:07:00 dev flannel.1\n\
         route add 192.168.50.0/24 via 192.168.50.0 dev flannel.1 onlink\n",
    );
    let outcome = short().mapped().run();
    outcome
        .is(REGISTRY, Intranet, Unreachable, &[Medium])
        .needs(REGISTRY, &[DirectConnectVpn])
        .finds(&["address_overlap"])
        .says("sends 192.168.50.10 to flannel.1")
        .says("(data centre) is declared as direct_connect_vpn: two networks use the address");
    assert_eq!(outcome.report.verdict.pull, Pull::WouldFail);
    short()
        .run()
        .is(REGISTRY, Intranet, Unreachable, &[High])
        .needs(REGISTRY, &[])
        .finds(&["address_overlap"])
        .says("ip route get 192.168.50.10");
    // The pods have another range.
    node.ip("route del 192.168.50.0/24");
    node.ip_batch(
        "neigh add 192.168.60.0 lladdr 02:00:00:00:07:00 dev flannel.1\n\
         route add 192.168.60.0/24 via 192.168.60.0 dev flannel.1 onlink\n",
    );
    probe()
        .mapped()
        .run()
        .is(REGISTRY, DirectConnectVpn, Reachable, &[High])
        .is_well();
    // A pod of this node has the address, and its port is closed.
    let pod = Netns::new();
    node.wire("cali0a1b2c3", &[], &pod, &["192.168.50.10/32"]);
    node.ip("route add 192.168.50.10/32 dev cali0a1b2c3");
    pod.ip("route add default dev cali0a1b2c3");
    let outcome = short().run();
    outcome
        .is(REGISTRY, Intranet, Refused, &[High])
        .finds(&["address_overlap"])
        .says("cali0a1b2c3");
    let kind = outcome.leg(REGISTRY).attributes.intranet;
    assert_eq!(kind, Some(IntranetKind::ClusterPods));
}

#[test]
fn a_bridge_of_this_host_has_the_range() {
    let world = World::new();
    world.registry(&ONPREM);
    let node = world.at(Place::Node);
    // Neighbors are given up after three seconds.
    let probe = || Probe::of(&world, &ONPREM).args(&["--timeout", "8s"]);
    // A network of docker, with a container.
    node.ip_batch(
        "link add br-4f1c2a9e01d7 type bridge\n\
         addr add 192.168.48.1/20 dev br-4f1c2a9e01d7\n\
         link set br-4f1c2a9e01d7 up\n\
         link add veth0a1b2c3 type veth peer name other\n\
         link set veth0a1b2c3 master br-4f1c2a9e01d7 up\n\
         link set other up\n",
    );
    probe()
        .mapped()
        .run()
        .is(REGISTRY, Intranet, Unreachable, &[Medium])
        .needs(REGISTRY, &[DirectConnectVpn])
        .finds(&["address_overlap"])
        .says("br-4f1c2a9e01d7 (a bridge inside this host)")
        .says("default-address-pools");
    // A container may be meant where nothing is declared.
    let outcome = probe().run();
    outcome
        .is(REGISTRY, Intranet, Unreachable, &[High])
        .finds(&["host_unreachable"])
        .says("If the registry is a container here, check that it runs");
    let kind = outcome.leg(REGISTRY).attributes.intranet;
    assert_eq!(kind, Some(IntranetKind::HostLocal));
    // With a part that leads out of this host, it is a network as any other.
    node.ip_batch(
        "link add vx-office type vxlan id 5 dstport 4789 local 10.0.1.10 dev eth0\n\
         link set vx-office master br-4f1c2a9e01d7 up\n",
    );
    let outcome = probe().run();
    outcome
        .is(REGISTRY, Intranet, Unreachable, &[High])
        .finds(&["host_unreachable"])
        .says("and not to the default gateway")
        .says("the network on br-4f1c2a9e01d7");
    assert_eq!(outcome.leg(REGISTRY).attributes.intranet, None);
}

#[test]
fn answers_that_this_machine_drops() {
    let world = World::new();
    world.registry(&REG);
    world.second_interface();
    let node = world.at(Place::Node);
    let probe = || Probe::of(&world, &REG).mapped().args(&["--timeout", "3s"]);
    // Strict filters alone drop nothing.
    node.sysctl("net.ipv4.conf.second.rp_filter=1");
    probe().run().is_well();
    // A registry that is silent, where the filter has nothing to drop.
    world.security_group(&REG, Block::Drop);
    probe().run().finds(&["tcp_timeout"]);
    world.no_security_group(&REG);
    // The answers come in by the second interface, and packets leave by the first.
    world.answers_by_the_second_interface(REG.v4);
    let outcome = probe().run();
    outcome
        .is(REGISTRY, Intranet, Unreachable, &[High])
        .needs(REGISTRY, &[])
        .finds(&["reverse_path_filter"])
        .says("IPReversePathFilter grew by")
        .says("the filter of second is strict")
        .says("net.ipv4.conf.second.rp_filter=2");
    assert_eq!(outcome.report.verdict.findings[0].confidence, Medium);
    // A loose filter lets them in.
    node.sysctl("net.ipv4.conf.second.rp_filter=2");
    probe().run().is_well();
}

#[test]
fn packets_with_the_address_of_another_interface() {
    let world = World::new();
    world.registry(&REG);
    world.second_interface();
    let (node, vpc) = (world.at(Place::Node), world.at(Place::Vpc));
    let probe = || Probe::of(&world, &REG).mapped();
    let route = format!("{}/32 via 10.0.77.1 dev second", REG.v4);
    node.ip(&format!("route add {route} src 10.0.1.10"));
    // A network that lets such packets pass.
    probe().run().is_well();
    // One that drops forged source addresses.
    vpc.sysctl("net.ipv4.conf.second.rp_filter=1");
    probe()
        .run()
        .is(REGISTRY, Intranet, Unreachable, &[High])
        .needs(REGISTRY, &[])
        .finds(&["source_address"])
        .says("leave through second (10.0.77.10) with 10.0.1.10, the address of eth0");
    // With the right address.
    node.ip(&format!("route replace {route}"));
    probe().run().is_well();
    // A rule that selects another table is named where the registry is silent.
    node.ip(&format!("route del {route}"));
    node.ip(&format!("rule add to {} lookup 77", REG.v4));
    node.ip(&format!("route add {route} table 77"));
    probe().run().is_well();
    world.security_group(&REG, Block::Drop);
    probe()
        .run()
        .finds(&["tcp_timeout"])
        .says("a rule of this machine selects table 77 for 10.0.2.20, and the packets leave through second");
}

#[test]
fn routes_of_this_machine_that_reject_packets() {
    let world = World::new();
    world.registry(&REG);
    world.registry(&PUBLIC);
    let node = world.at(Place::Node);
    for host in [&REG, &PUBLIC] {
        let probe = || Probe::of(&world, host).mapped();
        probe().run().is_well();
        for (kind, code) in [
            ("blackhole", "local_policy"),
            ("prohibit", "local_policy"),
            ("unreachable", "host_unreachable"),
            ("throw", "net_unreachable"),
        ] {
            let route = format!("{kind} {}/32", host.v4);
            node.ip(&format!("route add {route}"));
            probe()
                .run()
                .needs(REGISTRY, &[])
                .finds(&[code])
                .says(&format!("`ip route del {route}`"))
                .says(&format!("`ip route get {}`", host.v4));
            node.ip(&format!("route del {route}"));
        }
        // Over IPv6, a route in a table of its own, and a rule.
        let route = format!("prohibit {}/128", host.v6);
        node.ip(&format!("-6 route add {route}"));
        let v6 = || {
            Probe::of(&world, host)
                .mapped()
                .named(host, &host.name_v6())
        };
        v6().run()
            .finds(&["local_policy"])
            .says(&format!("`ip route del {route}`"));
        node.ip(&format!("-6 route del {route}"));
        v6().run().is_well();
        for kind in ["prohibit", "blackhole"] {
            node.ip(&format!("rule add to {} {kind}", host.v4));
            probe()
                .run()
                .finds(&["local_policy"])
                .says(&format!("Find the rule of type {kind} with `ip rule`"));
            node.ip(&format!("rule del to {} {kind}", host.v4));
        }
        probe().run().is_well();
        // A rule for the port alone, and a table that no rule selects.
        let rule = format!("to {} ipproto tcp dport 443 prohibit", host.v4);
        node.ip(&format!("rule add {rule}"));
        probe()
            .run()
            .finds(&["local_policy"])
            .says("Find the rule of type prohibit with `ip rule`");
        node.ip(&format!("rule del {rule}"));
        let unused = format!("blackhole {}/32 table 200", host.v4);
        node.ip(&format!("route add {unused}"));
        probe().run().is_well();
        let near = format!("{}/31", host.v4);
        node.ip(&format!("route add blackhole {near} proto bird"));
        probe()
            .run()
            .finds(&["local_policy"])
            .says(&format!("the route `blackhole {near}`: the program"))
            .says("`proto bird`");
        node.ip(&format!("route del blackhole {near}"));
        node.ip(&format!("route del {unused}"));
        // A gateway that does not exist: a neighbor is given up after three seconds.
        let dead = format!("{}/32 via 10.0.1.99 dev eth0", host.v4);
        node.ip(&format!("route add {dead}"));
        probe()
            .args(&["--timeout", "8s"])
            .run()
            .finds(&["host_unreachable"])
            .says("10.0.1.99 does not answer on eth0");
        node.ip(&format!("route del {dead}"));
        probe().run().is_well();
    }
}

#[test]
fn a_range_that_is_declared_twice() {
    let world = World::new();
    world.registry(&REG);
    world.registry(&NEAR);
    let twice = "cidrs: [{cidr: 10.0.0.0/16, class: intranet, name: our VPC}, {cidr: 10.0.2.0/24, class: vpc_peering, name: the partner}]";
    let probe = || Probe::of(&world, &REG).network(twice);
    // The registry itself answers.
    let outcome = probe().run();
    outcome
        .is(REGISTRY, VpcPeering, Reachable, &[Medium])
        .finds(&[]);
    assert_eq!(outcome.report.verdict.pull, Pull::WouldSucceed);
    // Another host has the address: its certificate is for another name.
    let elsewhere = format!("near.test:443:{}", REG.v4);
    Probe::of(&world, &NEAR)
        .network(twice)
        .args(&["--resolve", &elsewhere])
        .run()
        .is(REGISTRY, Intranet, Reachable, &[Medium])
        .finds(&["address_overlap"])
        .says("another host may answer in the place of the expected one");
    // The same where the range is declared once: it is the certificate.
    let once =
        "cidrs: [{cidr: 10.0.0.0/8, class: intranet}, {cidr: 10.0.2.0/24, class: vpc_peering}]";
    Probe::of(&world, &NEAR)
        .network(once)
        .args(&["--resolve", &elsewhere])
        .run()
        .is(REGISTRY, VpcPeering, Reachable, &[High])
        .finds(&["tls_name"]);
    // Its port is closed.
    world.security_group(&REG, Block::Reset);
    probe()
        .run()
        .is(REGISTRY, Intranet, Refused, &[Medium])
        .finds(&["address_overlap"])
        .says("If a subnet of this VPC has 10.0.2.20");
    Probe::of(&world, &REG)
        .network(once)
        .run()
        .is(REGISTRY, VpcPeering, Refused, &[High])
        .finds(&["tcp_refused"]);
    // Nothing answers.
    world.no_security_group(&REG);
    world.security_group(&REG, Block::Drop);
    probe()
        .run()
        .is(REGISTRY, Intranet, Unreachable, &[Medium])
        .needs(REGISTRY, &[VpcPeering])
        .finds(&["address_overlap"])
        .says("If none has it: add routes on both sides of the peering");
    Probe::of(&world, &REG)
        .network(once)
        .run()
        .is(REGISTRY, VpcPeering, Unreachable, &[High])
        .finds(&["tcp_timeout"]);
}

#[test]
fn a_nat_gateway_without_ports_for_one_address() {
    let world = World::new();
    world.registry(&PUBLIC);
    world.echo(&CONTROL);
    world.snat_ports(SNAT, 8);
    let probe = || {
        Probe::of(&world, &PUBLIC)
            .control()
            .network(&format!("snat_addresses: [{SNAT}]"))
            .args(&["--timeout", "2s"])
    };
    probe().run().is_well();
    // Connections of neighbors, which keep their ports.
    let to = std::net::SocketAddr::new(PUBLIC.v4.parse().unwrap(), 443);
    let hold = |count: usize| -> Vec<std::net::TcpStream> {
        let connect = || std::net::TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
        world
            .at(Place::Node)
            .inside(|| (0..count).map(|_| connect()).collect())
    };
    // The gateway forgets the ports of the probe before.
    std::thread::sleep(Duration::from_secs(3));
    let mut neighbors = hold(7);
    // One is left: the first connection uses it, and the next finds none.
    let outcome = probe().run();
    let findings = &outcome.report.verdict.findings;
    let found = findings
        .iter()
        .find(|finding| finding.cause.code() == "snat_exhaust")
        .unwrap_or_else(|| panic!("{}", outcome.text()));
    assert_eq!(found.confidence, Medium, "{}", outcome.text());
    outcome.says("a later one from another source port got no answer");
    // None is left: nothing distinguishes that from a firewall, and both are named.
    std::thread::sleep(Duration::from_secs(3));
    neighbors.extend(hold(1));
    let outcome = probe().run();
    outcome
        .is(REGISTRY, PublicUnknown, Unreachable, &[Medium])
        .finds(&["tcp_timeout"])
        .says("may have none left for 52.20.0.20 while others are reached");
    assert!(!outcome.text().contains("No NAT rule is missing"));
    drop(neighbors);
}

#[test]
fn an_eip_beside_a_nat_gateway() {
    let world = World::new();
    world.registry(&PUBLIC);
    world.echo(&ECHO);
    let probe = || {
        Probe::of(&world, &PUBLIC)
            .network(&format!("snat_addresses: [{SNAT}]"))
            .network(&format!("node_external_ips: [{NODE_EIP}]"))
    };
    probe()
        .run()
        .is(REGISTRY, PublicEip, Reachable, &[Medium])
        .says(&format!("the NAT gateway ({SNAT}) is probably not used"));
    probe()
        .echo()
        .run()
        .is(REGISTRY, PublicSnat, Reachable, &[High, Medium])
        .says(&format!(
            "the NAT gateway is used, and not the EIP {NODE_EIP}"
        ));
    world.eip("10.0.1.10", NODE_EIP);
    probe()
        .echo()
        .run()
        .is(REGISTRY, PublicEip, Reachable, &[High])
        .says(&format!(
            "the EIP is used, and not the NAT gateway ({SNAT})"
        ));
}

#[test]
fn a_public_address_over_a_leased_line() {
    let world = World::new();
    world.registry(&ONPREM);
    world.registry(&PUBLIC);
    // The public interface of Direct Connect: a public range over the line.
    world
        .at(Place::Vpc)
        .ip("route add 45.60.70.0/24 via 10.255.3.2");
    world
        .at(Place::Dc)
        .ip("route add 45.60.70.0/24 via 192.168.50.10");
    world.at(Place::OnPrem).nft(
        "table ip line {
           chain pre { type nat hook prerouting priority -100; ip daddr 45.60.70.20 dnat to 192.168.50.10; }
         }\n",
    );
    let probe = |host, args: &[&str]| {
        Probe::of(&world, host)
            .network(&format!("snat_addresses: [{SNAT}]"))
            .network("metadata: aws")
            .args(args)
    };
    world.metadata(Facts::of(Cloud::Aws));
    let elsewhere = ["--resolve", "onprem.test:443:45.60.70.20", "--hops"];
    let outcome = probe(&ONPREM, &elsewhere).run();
    outcome
        .says("such a path may be a leased line with a public interface")
        .says("class: direct_connect_vpn");
    assert_ne!(outcome.leg(REGISTRY).confidence, High);
    // Through the public network.
    let outcome = probe(&PUBLIC, &["--hops"]).run();
    assert!(
        outcome.leg(REGISTRY).contradictions.is_empty(),
        "{}",
        outcome.text()
    );
}

#[test]
fn prefixes_of_nat64_and_addresses_that_look_alike() {
    let world = World::new();
    let name = PUBLIC.name_dual();
    let both = || Probe::of(&world, &PUBLIC).named(&PUBLIC, &name);
    // DNS64 with a prefix of this network, which no gateway has.
    let translated = "2a0a:64::3414:14";
    let dns64: [(&str, &[&str]); 2] = [
        (&name, &[PUBLIC.v4, translated]),
        ("ipv4only.arpa", &["192.0.0.170", "2a0a:64::c000:aa"]),
    ];
    world.names(&dns64);
    world.no_egress();
    let outcome = both().run();
    assert!(outcome.leg(REGISTRY).attributes.nat64, "{}", outcome.text());
    outcome.says("Route 2a0a:64::/96 to a NAT64 gateway");
    world.clear();
    // The host's own IPv6 address looks alike, and the name servers refuse the query for their prefix.
    let own = "2600:1f18::3414:14";
    world
        .at(Place::Public)
        .ip(&format!("addr add {own}/64 dev eth0 nodad"));
    let alike = Host { v6: own, ..PUBLIC };
    world.names(&[
        (&name, &[PUBLIC.v4, own]),
        ("ipv4only.arpa", &["192.0.0.170"]),
    ]);
    world.registry(&alike);
    let outcome = both().run();
    outcome
        .is(REGISTRY, PublicDirect, Reachable, &[Medium])
        .is_well()
        .says("network.nat64_prefixes");
    assert!(!outcome.leg(REGISTRY).attributes.nat64);
    // With another prefix of theirs, it is the host's own as well.
    world.names(&[
        (&name, &[PUBLIC.v4, own]),
        ("ipv4only.arpa", &["192.0.0.170", "2a0a:64::c000:aa"]),
    ]);
    both()
        .run()
        .is(REGISTRY, PublicDirect, Reachable, &[High])
        .is_well();
    // Declared as the prefix of a gateway, it would be NAT64's.
    let outcome = both().network("nat64_prefixes: ['2600:1f18::/96']").run();
    outcome.is(REGISTRY, PublicSnat, Reachable, &[High]);
    assert!(outcome.leg(REGISTRY).attributes.nat64);
}

#[test]
fn the_public_network_by_snat() {
    let world = World::new();
    world.registry(&PUBLIC);
    world.echo(&ECHO);
    let probe = || Probe::of(&world, &PUBLIC);
    // Nothing is known but that it works.
    let unknown = probe().run();
    unknown
        .is(REGISTRY, PublicUnknown, Reachable, &[Low])
        .is_well()
        .says("network.egress");
    // netfilter keeps ports where it can: an address alone proves nothing.
    probe()
        .echo()
        .run()
        .is(REGISTRY, PublicUnknown, Reachable, &[Low])
        .says(SNAT)
        .says("network.snat_addresses")
        .is_well();
    probe()
        .echo()
        .network(&format!("snat_addresses: [{SNAT}]"))
        .run()
        .is(REGISTRY, PublicSnat, Reachable, &[High])
        .is_well();
    // The cloud says that the machine has no address of its own.
    for empty_public in [false, true] {
        let service = world.metadata(Facts {
            empty_public,
            ..Facts::of(Cloud::Huawei)
        });
        let probe = || {
            probe()
                .network("metadata: huawei")
                .network("provider: huawei")
        };
        probe()
            .echo()
            .run()
            .is(REGISTRY, PublicSnat, Reachable, &[Medium, High])
            .is_well();
        probe()
            .run()
            .is(REGISTRY, PublicSnat, Reachable, &[Medium])
            .is_well();
        service.assert_harmless();
    }
    // Ports that are changed prove a translation of many to one.
    world.snat_random_ports(&[SNAT]);
    probe()
        .echo()
        .run()
        .is(REGISTRY, PublicSnat, Reachable, &[Medium])
        .says("source ports are changed")
        .is_well();
    // A pool.
    world.snat(&SNAT_POOL);
    let pool = probe().echo().run();
    pool.is(REGISTRY, PublicSnat, Reachable, &[Medium])
        .is_well();
    assert!(pool.leg(REGISTRY).attributes.snat_pool, "{}", pool.text());
}

#[test]
fn the_public_network_by_an_eip() {
    let world = World::new();
    world.registry(&PUBLIC);
    world.echo(&ECHO);
    // SNAT is there as well, and the EIP wins.
    world.eip("10.0.1.10", NODE_EIP);
    let probe = || Probe::of(&world, &PUBLIC).network("provider: huawei");
    let eip = probe()
        .echo()
        .network(&format!("node_external_ips: [{NODE_EIP}]"))
        .run();
    eip.is(REGISTRY, PublicEip, Reachable, &[High]).is_well();
    assert_eq!(eip.leg(REGISTRY).attributes.eip_of, Some(EipOf::Node));
    let service = world.metadata(Facts::with_public(Cloud::Huawei, NODE_EIP));
    let declared = probe().network("metadata: huawei").run();
    declared
        .is(REGISTRY, PublicEip, Reachable, &[Medium])
        .is_well();
    probe()
        .network("metadata: huawei")
        .echo()
        .run()
        .is(REGISTRY, PublicEip, Reachable, &[High])
        .is_well();
    service.assert_harmless();
    // It was unbound since, and the Node object was not updated.
    world.no_eip();
    let stale = probe()
        .echo()
        .network(&format!("node_external_ips: [{NODE_EIP}]"))
        .run();
    stale
        .is(REGISTRY, PublicSnat, Reachable, &[Medium])
        .finds(&[]);
    assert_eq!(
        stale.leg(REGISTRY).contradictions.len(),
        1,
        "{}",
        stale.text()
    );
}

#[test]
fn a_pods_eip_early_late_and_stale() {
    let world = World::new();
    world.registry(&PUBLIC);
    world.echo(&ECHO);
    let annotations = world.folder().join("annotations");
    let write = |text: &str| fs::write(&annotations, text).unwrap();
    let probe = || {
        Probe::of(&world, &PUBLIC)
            .from(View::Turbo)
            .network("provider: huawei")
            .network("cluster_network: autopilot")
            .network(&format!("pod_annotations: {}", annotations.display()))
            .echo()
    };
    let wanted = "yangtse.io/pod-with-eip=\"true\"\nyangtse.io/eip-bandwidth-size=\"5\"\n";
    let given = format!("{wanted}yangtse.io/allocated-ipv4-eip=\"{POD_EIP}\"\n");
    // None was requested: the gateway's rule.
    write("app=\"x\"\n");
    probe()
        .run()
        .is(REGISTRY, PublicSnat, Reachable, &[Medium, High])
        .is_well();
    // Bound and annotated.
    world.eip(TURBO.v4, POD_EIP);
    write(&given);
    let eip = probe().run();
    eip.is(REGISTRY, PublicEip, Reachable, &[High]).is_well();
    assert_eq!(eip.leg(REGISTRY).attributes.eip_of, Some(EipOf::Pod));
    // The file of the one annotation says the same.
    write(POD_EIP);
    probe()
        .run()
        .is(REGISTRY, PublicEip, Reachable, &[High])
        .is_well();
    // The same pod's EIP is nothing to its node.
    write(&given);
    Probe::of(&world, &PUBLIC)
        .network(&format!("pod_annotations: {}", annotations.display()))
        .network(&format!("snat_addresses: [{SNAT}]"))
        .echo()
        .run()
        .is(REGISTRY, PublicSnat, Reachable, &[High])
        .is_well();
    // Written down, and unbound since.
    world.no_eip();
    probe()
        .run()
        .is(REGISTRY, PublicSnat, Reachable, &[Medium])
        .finds(&["eip_annotation_stale"])
        .says(SNAT)
        .says(POD_EIP);
    // Requested and not there: in a container that has just started, it may come; process 1 of this
    // machine is older than a minute, as it is in a pod whose EIP never came.
    write(wanted);
    let early = probe().in_a_new_container().run();
    early
        .is(REGISTRY, PublicUnknown, Reachable, &[Low])
        .finds(&[]);
    assert!(early.leg(REGISTRY).attributes.pending, "{}", early.text());
    let late = probe().network(&format!("snat_addresses: [{SNAT}]")).run();
    late.is(REGISTRY, PublicSnat, Reachable, &[Medium])
        .finds(&[])
        .says("for over a minute");
}

#[test]
fn no_egress_is_distinguished_from_one_registry_that_is_closed() {
    let world = World::new();
    world.registry(&PUBLIC);
    world.echo(&CONTROL);
    world.registry(&AUTH);
    let probe = || Probe::of(&world, &PUBLIC).network("provider: huawei");
    probe()
        .control()
        .run()
        .is(REGISTRY, PublicUnknown, Reachable, &[Low])
        .is_well();
    // This registry alone.
    for block in [Block::Drop, Block::Prohibited] {
        world.block(PUBLIC.v4, 443, block);
        let code = if block == Block::Drop {
            "tcp_timeout"
        } else {
            "tcp_prohibited"
        };
        probe()
            .control()
            .run()
            .is(REGISTRY, PublicUnknown, Unreachable, &[Low, Medium])
            .needs(REGISTRY, &[])
            .finds(&[code]);
        world.clear();
    }
    world.block(PUBLIC.v4, 443, Block::Drop);
    probe().control().run().says("ask its operator to allow");
    // Without controls, it may be either, and that is said.
    probe()
        .run()
        .is(REGISTRY, PublicUnknown, Unreachable, &[Low])
        .needs(REGISTRY, &[PublicSnat, PublicEip])
        .finds(&["tcp_timeout"])
        .says("network.controls");
    world.clear();
    // There is no egress.
    world.no_snat();
    let outcome = probe().control().run();
    outcome
        .is(REGISTRY, PublicUnknown, Unreachable, &[High])
        .needs(REGISTRY, &[PublicSnat, PublicEip])
        .finds(&["no_egress"])
        .says("node's subnet (10.0.1.0/24)")
        .says("takes precedence over SNAT");
    // On Autopilot it is the pod's own subnet, and the EIP the pod's.
    probe()
        .from(View::Turbo)
        .network("cluster_network: autopilot")
        .control()
        .run()
        .is(REGISTRY, PublicUnknown, Unreachable, &[High])
        .needs(REGISTRY, &[PublicSnat, PublicEip])
        .finds(&["no_egress"])
        .says("container subnet (10.0.8.0/24)")
        .says("yangtse.io/pod-with-eip");
    // A rule for the pods' subnet does not serve the node.
    world.snat_for("10.0.8.0/24", &[SNAT]);
    probe().control().run().finds(&["no_egress"]);
    probe()
        .from(View::Turbo)
        .network("cluster_network: autopilot")
        .control()
        .run()
        .is(REGISTRY, PublicUnknown, Reachable, &[Low])
        .is_well();
}

#[test]
fn on_premises_by_a_line_and_by_tunnels() {
    let world = World::new();
    world.registry(&ONPREM);
    world.registry(&REG);
    let probe = || Probe::of(&world, &ONPREM).args(&["--timeout", "3s"]);
    let baseline = format!("baseline: '{}:443'", REG.v4);
    // A leased line: far, with whole segments.
    for name in [ONPREM.name(), ONPREM.name_v6()] {
        probe()
            .named(&ONPREM, &name)
            .mapped()
            .network(&baseline)
            .run()
            .is(REGISTRY, DirectConnectVpn, Reachable, &[High])
            .is_well();
    }
    let open = probe().network(&baseline).run();
    open.is(REGISTRY, PrivateUnmapped, Reachable, &[Low])
        .is_well();
    open.says("long for one region")
        .says("class: direct_connect_vpn");
    // Declared as if it were of the VPC: the figures speak against it.
    let wrong = probe()
        .network("cidrs: [{cidr: 192.168.0.0/16, class: intranet}]")
        .network(&baseline)
        .run();
    wrong
        .is(REGISTRY, Intranet, Reachable, &[Medium])
        .finds(&[]);
    assert_eq!(
        wrong.leg(REGISTRY).contradictions.len(),
        1,
        "{}",
        wrong.text()
    );

    // A VPN: small segments besides.
    world.vpn(1400);
    let open = probe().network(&baseline).run();
    open.is(REGISTRY, PrivateUnmapped, Reachable, &[Medium])
        .is_well();
    open.says("a tunnel");
    probe()
        .mapped()
        .network(&baseline)
        .run()
        .is(REGISTRY, DirectConnectVpn, Reachable, &[High])
        .says("a tunnel")
        .is_well();
    // Nothing clamps the MSS, and no error says that a packet is too big.
    world.no_mss_clamp();
    world.drop_frag_needed();
    world.forget_path_mtu();
    let hole = probe().mapped().network(&baseline).run();
    hole.is(REGISTRY, DirectConnectVpn, Reachable, &[High])
        .finds(&["mtu_blackhole"]);

    // The tunnel ends on this host.
    world.host_tunnel("vpn1", "192.168.50.0/24", 1380);
    let host = probe()
        .network("cidrs: [{cidr: 192.168.0.0/16, class: vpc_peering}]")
        .run();
    host.is(REGISTRY, DirectConnectVpn, Reachable, &[High]);
    assert!(host.leg(REGISTRY).attributes.vpn_on_host, "{}", host.text());
    host.says("is declared as vpc_peering");
}

#[test]
fn each_leg_by_its_own_way() {
    let world = World::new();
    world.split_registry(&REG, Some(&AUTH), Some(&BLOBS));
    let secret = world.folder().join("config.json");
    let auth = format!("{}:{}", stack::USER, stack::PASSWORD);
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, auth);
    fs::write(
        &secret,
        format!(
            "{{\"auths\":{{\"{}\":{{\"auth\":\"{encoded}\"}}}}}}",
            REG.name()
        ),
    )
    .unwrap();
    let secret = secret.to_str().unwrap();
    let probe = || {
        Probe::of(&world, &REG)
            .mapped()
            .network(&format!("snat_addresses: [{SNAT}]"))
            .args(&["--docker-config", secret])
    };
    world.echo(&ECHO);
    probe()
        .echo()
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .is(Role::Token, PublicSnat, Reachable, &[High])
        .is(Role::Blob, PublicSnat, Reachable, &[High])
        .is_well();
    // The layers' host alone is closed: the token's proves that there is egress.
    world.block(BLOBS.v4, 443, Block::Drop);
    probe()
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .is(Role::Token, PublicUnknown, Reachable, &[Low])
        .is(Role::Blob, PublicUnknown, Unreachable, &[Medium])
        .needs(Role::Blob, &[])
        .finds(&["redirect_blob"])
        .says("ask its operator to allow");
    world.clear();
    // This machine's own route closes it: the cause is here, and the storage is its place.
    for (kind, code) in [("blackhole", "local_policy"), ("throw", "net_unreachable")] {
        let route = format!("{kind} {}/32", BLOBS.v4);
        world.at(Place::Node).ip(&format!("route add {route}"));
        probe()
            .run()
            .is(Role::Token, PublicUnknown, Reachable, &[Low])
            .needs(Role::Blob, &[])
            .finds(&[code])
            .says("the layer storage in the registry's redirect is")
            .says(&format!("ip route get {}", BLOBS.v4));
        world.at(Place::Node).ip(&format!("route del {route}"));
    }
    // There is no egress: the token service is the first to be reached.
    world.no_egress();
    probe()
        .control()
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .is(Role::Token, PublicUnknown, Unreachable, &[Medium, High])
        .needs(Role::Token, &[PublicSnat, PublicEip])
        .finds(&["no_egress"]);
    // The same for layers.
    world.split_registry(&NEAR, None, Some(&CONTROL));
    Probe::of(&world, &NEAR)
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .is(Role::Blob, PublicUnknown, Unreachable, &[Low])
        .needs(Role::Blob, &[PublicSnat, PublicEip])
        .finds(&["redirect_blob"]);
}

#[test]
fn ranges_that_mean_different_things() {
    let world = World::new();
    for host in [&SWR, &CGNAT, &PUBLIC] {
        world.registry(host);
    }
    let huawei = |host| Probe::of(&world, host).network("provider: huawei");
    for (host, sure) in [(&SWR, High), (&CGNAT, Medium)] {
        let outcome = huawei(host).run();
        outcome.is(REGISTRY, Intranet, Reachable, &[sure]).is_well();
        let kind = outcome.leg(REGISTRY).attributes.intranet;
        assert_eq!(kind, Some(IntranetKind::CloudService));
    }
    // Elsewhere it is carrier-grade NAT, or somebody's own.
    Probe::of(&world, &CGNAT)
        .run()
        .is(REGISTRY, PrivateUnmapped, Reachable, &[Low])
        .is_well();
    Probe::of(&world, &CGNAT)
        .network("cidrs: [{cidr: 100.70.0.0/16, class: direct_connect_vpn}]")
        .run()
        .is(REGISTRY, DirectConnectVpn, Reachable, &[High])
        .is_well();
    // A public range that a network uses inside.
    Probe::of(&world, &PUBLIC)
        .network("cidrs: [{cidr: 52.20.0.0/24, class: intranet, name: ours}]")
        .run()
        .is(REGISTRY, Intranet, Reachable, &[High])
        .says("ours")
        .is_well();
    // A closed service of the cloud.
    world.block(SWR.v4, 443, Block::Drop);
    huawei(&SWR)
        .run()
        .is(REGISTRY, Intranet, Unreachable, &[High])
        .needs(REGISTRY, &[Intranet])
        .finds(&["tcp_timeout"])
        .says("VPC endpoints of both SWR and OBS");
}

#[test]
fn names_that_lead_different_ways() {
    let world = World::new();
    world.registry(&REG);
    world.registry(&PUBLIC);
    let name = PUBLIC.name();
    // The VPC's own view of a public name; other clients see the public address.
    world.dns_view("10.0.1.0/24", &[(name.as_str(), &[NEAR.v4])]);
    world.registry(&NEAR);
    let insecure = |outcome: Outcome, class| {
        let leg = outcome.leg(REGISTRY);
        assert_eq!(
            (leg.class, leg.reachability),
            (Some(class), Reachable),
            "{}",
            outcome.text()
        );
    };
    // (NEAR's certificate is for another name; its way is what counts.)
    insecure(Probe::of(&world, &PUBLIC).run(), Intranet);
    insecure(
        Probe::of(&world, &PUBLIC).from(View::Turbo).run(),
        PublicUnknown,
    );
    // Two name servers with different answers.
    world.names(&[(name.as_str(), &[PUBLIC.v4])]);
    world.second_dns(&[(name.as_str(), &[NEAR.v4])]);
    let outcome = Probe::of(&world, &PUBLIC)
        .args(&["--nameserver", DNS[0], "--nameserver", DNS_2[0]])
        .run();
    outcome
        .is(REGISTRY, PublicUnknown, Reachable, &[Low])
        .finds(&["dns_split_horizon"]);
    // One name with addresses of two classes.
    world.names(&[(name.as_str(), &[PUBLIC.v4, REG.v4])]);
    let mixed = Probe::of(&world, &PUBLIC).mapped().run();
    let classes: BTreeSet<PathClass> = mixed
        .leg(REGISTRY)
        .addresses
        .iter()
        .map(|a| a.class)
        .collect();
    assert_eq!(
        classes,
        [Intranet, PublicUnknown].into(),
        "{}",
        mixed.text()
    );
    assert_eq!(mixed.leg(REGISTRY).class, Some(Mixed), "{}", mixed.text());
    mixed.finds(&["path_mixed", "tls_name"]);
    // It was declared to be inside.
    world.names(&[]);
    Probe::of(&world, &PUBLIC)
        .mapped()
        .network("expect: [{host: '*.test', classes: [intranet, vpc_peering]}]")
        .run()
        .is(REGISTRY, PublicUnknown, Reachable, &[Low])
        .finds(&["path_unexpected"]);
}

#[test]
fn two_families_and_one_alone() {
    let world = World::new();
    world.registry(&PUBLIC);
    let dual = || Probe::of(&world, &PUBLIC).named(&PUBLIC, &PUBLIC.name_dual());
    dual()
        .run()
        .is(REGISTRY, PublicDirect, Reachable, &[High])
        .is_well();
    dual()
        .args(&["-6"])
        .run()
        .is(REGISTRY, PublicDirect, Reachable, &[High])
        .is_well();
    world.echo(&ECHO);
    dual()
        .args(&["-6"])
        .network(&format!(
            "egress: {{echo: ['https://{}/']}}",
            ECHO.name_v6()
        ))
        .run()
        .is(REGISTRY, PublicDirect, Reachable, &[High])
        .says("others see 2a0a:1:1::10")
        .is_well();
    // IPv6 is swallowed, and IPv4 answers.
    world.blackhole_v6();
    dual()
        .network(&format!("snat_addresses: [{SNAT}]"))
        .echo()
        .run()
        .is(REGISTRY, PublicSnat, Reachable, &[High])
        .finds(&["v6_blackhole"]);
    dual()
        .args(&["-6"])
        .run()
        .is(REGISTRY, PublicUnknown, Unreachable, &[Low])
        .needs(REGISTRY, &[PublicDirect])
        .finds(&["tcp_timeout"]);
}

#[test]
fn by_a_proxy_and_by_a_service() {
    let world = World::new();
    world.http_proxy();
    world.registry(&PUBLIC);
    world.registry(&REG);
    // The node itself has no egress.
    world.snat_for("10.0.2.0/24", &[SNAT]);
    let outcome = Probe::of(&world, &PUBLIC)
        .mapped()
        .environment("HTTPS_PROXY", &format!("http://{}:3128", PROXY.v4))
        .run();
    outcome.is(REGISTRY, Intranet, Reachable, &[High]).is_well();
    assert!(
        outcome.leg(REGISTRY).attributes.via_proxy,
        "{}",
        outcome.text()
    );
    Probe::of(&world, &PUBLIC)
        .mapped()
        .run()
        .finds(&["tcp_timeout"]);

    // A Service: translated on the node.
    world.cluster_ip("10.247.9.9", 443, REG.v4, 443);
    let at_service = ["--resolve", "reg.test:443:10.247.9.9"];
    let declared = Probe::of(&world, &REG)
        .network("service_cidrs: [10.247.0.0/16]")
        .args(&at_service)
        .run();
    declared
        .is(REGISTRY, Intranet, Reachable, &[High])
        .is_well();
    assert_eq!(
        declared.leg(REGISTRY).attributes.intranet,
        Some(IntranetKind::ClusterService)
    );
    // Near the API server's own.
    let guessed = Probe::of(&world, &REG).args(&at_service).run();
    guessed
        .is(REGISTRY, Intranet, Reachable, &[Medium])
        .is_well();
}

#[test]
fn a_metadata_service_that_is_silent_wrong_or_closed_is_no_evidence() {
    let world = World::new();
    world.registry(&PUBLIC);
    let metadata_of = |outcome: &Outcome| outcome.report.evidence.vantage.metadata.clone();
    let probe = |setting: &str| {
        Probe::of(&world, &PUBLIC)
            .from(View::Turbo)
            .network("provider: huawei")
            .network(&format!("metadata: {setting}"))
    };
    // By default no service is queried, whatever provider the operator names.
    let service = world.metadata(Facts::with_public(Cloud::Huawei, NODE_EIP));
    let outcome = probe("auto").run();
    let asked = matches!(
        metadata_of(&outcome),
        Metadata::NotRequested {
            reason: MetadataSkip::ProviderUnknown
        }
    );
    assert!(asked && service.requests().is_empty(), "{}", outcome.text());
    // The node's address is no pod's.
    probe("huawei")
        .network("cluster_network: cloud_native2")
        .run()
        .is(REGISTRY, PublicUnknown, Reachable, &[Low])
        .is_well();
    // Plain OpenStack, by its own form.
    world.metadata(Facts::of(Cloud::OpenStack));
    let plain = probe("openstack").run();
    let facts = metadata_of(&plain);
    assert_eq!(facts.facts().unwrap().provider, Provider::Openstack);
    for facts in [
        Facts {
            hang: true,
            ..Facts::of(Cloud::Huawei)
        },
        Facts {
            redirect: Some(format!("http://{}/", REG.v4)),
            ..Facts::of(Cloud::Huawei)
        },
        // AWS has no such path.
        Facts::of(Cloud::Aws),
    ] {
        let service = world.metadata(facts);
        let outcome = probe("huawei").run();
        let metadata = metadata_of(&outcome);
        assert!(
            matches!(metadata, Metadata::NoAnswer { .. }),
            "{metadata:?}"
        );
        outcome
            .is(REGISTRY, PublicUnknown, Reachable, &[Low])
            .is_well();
        service.assert_harmless();
    }
    // A node without IPv4 has AWS's by IPv6; so has one where only that answers.
    let service = world.metadata(Facts::with_public(Cloud::Aws, NODE_EIP));
    world.block("169.254.169.254", 80, Block::Drop);
    let outcome = probe("aws").run();
    assert!(
        metadata_of(&outcome).facts().is_some(),
        "{}",
        outcome.text()
    );
    service.assert_harmless();
    world.clear();
    // Pods are kept from it: a second is all that it costs.
    world.metadata(Facts::of(Cloud::Huawei));
    world.metadata_blocked_for_pods();
    let outcome = probe("huawei").args(&["--timeout", "10s"]).run();
    let Metadata::NoAnswer { took, .. } = metadata_of(&outcome) else {
        panic!("{}", outcome.text());
    };
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(outcome.took < Duration::from_secs(5), "{:?}", outcome.took);
    outcome
        .is(REGISTRY, PublicUnknown, Reachable, &[Low])
        .is_well();
}

#[test]
fn a_vantage_shows_the_place_and_what_it_does_not_show() {
    let world = World::new();
    world.echo(&ECHO);
    world.eip("10.0.1.10", NODE_EIP);
    let service = world.metadata(Facts::with_public(Cloud::Aws, NODE_EIP));
    let config = world.folder().join("config.yaml");
    let vantage = |text: &str, more: &[&str]| {
        fs::write(&config, text).unwrap();
        let mut command = world.node.as_nobody(env!("CARGO_BIN_EXE_pullpath"));
        command.args([
            "vantage",
            "--nameserver",
            DNS[0],
            "--timeout",
            "1s",
            "--config",
        ]);
        command.arg(&config).args(more);
        let path = std::env::var("PATH").unwrap();
        command
            .env_clear()
            .env("PATH", path)
            .env("HTTPS_PROXY", "http://u:canary@10.0.2.30:3128");
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!text.contains("canary"), "{text}");
        text
    };
    let bare = vantage("network: {metadata: off, provider: openstack}\n", &[]);
    let words: Vec<&str> = bare.split_whitespace().collect();
    let words = words.join(" ");
    for says in [
        "network this machine's;",
        "device eth0 (veth): 10.0.1.10/24, 2a0a:1:1::10/64",
        "route default via 10.0.1.1 dev eth0",
        "proxy https: http://10.0.2.30:3128",
        "metadata no request sent",
        "baseline the name server 10.0.0.53:53, RTT",
        "metadata: network.metadata is off would show the VPC's ranges",
        "egress address: no request is sent unless network.egress.echo names",
        "declared: network.cidrs is empty",
        "control: network.controls is empty",
    ] {
        assert!(words.contains(says), "no '{says}' in\n{bare}");
    }
    let full = format!(
        "network:\n  provider: aws\n  metadata: aws\n  {MAP}  ca_files: ['{}']\n  egress: {{echo: ['{}'], samples: 2}}\n  controls: ['echo.test:443', 'none.test:443']\n  node_external_ips: [{NODE_EIP}]\n",
        world.ca_file().display(),
        ECHO.url()
    );
    let shown = vantage(&full, &[]);
    let words: Vec<&str> = shown.split_whitespace().collect();
    let words = words.join(" ");
    for says in [
        "provider AWS, as declared",
        "metadata AWS, VPC 10.0.0.0/16, 2a0a:1::/32, subnet 10.0.1.0/24",
        "public 121.36.1.50, in",
        "claim the node's ExternalIP is 121.36.1.50",
        "egress 121.36.1.50 port",
        "from HTTP echo of echo.test:443",
        "control echo.test:443 is reached at 52.20.0.30:443 in",
        "control none.test:443: ",
        "declared 10.50.0.0/16 is vpc_peering shared services",
    ] {
        assert!(words.contains(says), "no '{says}' in\n{shown}");
    }
    assert!(!shown.contains("evidence for path classes"), "{shown}");
    service.assert_harmless();
    let json = vantage(&full, &["-o", "json"]);
    let document: pullpath::report::vantage::VantageDocument = serde_json::from_str(&json).unwrap();
    assert_eq!(document.vantage.declared.cidrs.len(), 6);
    assert_eq!(document.vantage.egress.len(), 2);
    // An error in the file is reported with its line.
    fs::write(
        &config,
        "network:\n  cidrs:\n    - {cidr: 10.0.0.1/8, class: intranet}\n",
    )
    .unwrap();
    let mut command = world.node.as_nobody(env!("CARGO_BIN_EXE_pullpath"));
    let output = command
        .args(["vantage", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("line 3") && stderr.contains("10.0.0.0/8"),
        "{stderr}"
    );
}
