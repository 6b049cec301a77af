//! A cloud's network on one machine: a node and pods, their VPC and what lies around it, each a
//! network namespace, as paths to registries differ by nothing else than what is between.
//!
//! ```text
//!   pod ── node ─┐br1                              ┌─ svc (the cloud's own services)
//!          near ─┤                                 ├─ meta (metadata service)
//!    reg, proxy ─┤br2        vpc (router, NAT) ────┼─ peer ── peerreg
//!         turbo ─┤                                 ├─ (wire) isp ── pub
//!           dns ─┘                                 └─ (wire) dc ── onprem
//! ```
//!
//! Addresses look global, as the classifier is to see them: nothing leaves the namespaces.
//!
//! Traps: netfilter decides on the translation of a flow by its first packet, so a change of NAT
//! counts for new flows (a UDP socket that stays keeps its old one for 30 s); path MTUs that were
//! learnt stay for ten minutes (`forget_path_mtu`).

#![allow(dead_code, reason = "each test uses a part")]
#![allow(
    unreachable_pub,
    reason = "shared by several crates, which are no libraries"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::lab::netns::Netns;
use crate::lab::process::Process;
use crate::lab::wire::{End, Knobs, Wire};
use crate::metadata::{Facts, Metadata};
use crate::stack::{
    Mode, Pki, REPOSITORY, Registry, TAG, TokenKnobs, TokenService, blob_locations, nginx_args,
    push, registry_locations, server_block,
};
use crate::support::image::{Flavour, Image};

/// Somebody to talk to: a name and its two addresses. `NAME.test` has the IPv4 address,
/// `NAME.v6.test` the other, `NAME.dual.test` both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: &'static str,
    pub v4: &'static str,
    pub v6: &'static str,
    pub place: Place,
}

impl Host {
    const fn new(name: &'static str, v4: &'static str, v6: &'static str, place: Place) -> Self {
        Self {
            name,
            v4,
            v6,
            place,
        }
    }

    pub fn name(&self) -> String {
        format!("{}.test", self.name)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}/", self.name())
    }

    pub fn name_v6(&self) -> String {
        format!("{}.v6.test", self.name)
    }

    pub fn name_dual(&self) -> String {
        format!("{}.dual.test", self.name)
    }

    /// What to pull from it.
    pub fn reference(&self) -> String {
        format!("{}/{REPOSITORY}:{TAG}", self.name())
    }
}

/// The network namespaces, in the order of [`World`]'s fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Node,
    Pod,
    Turbo,
    Near,
    Reg,
    Proxy,
    Dns,
    Svc,
    Meta,
    Vpc,
    Peer,
    PeerReg,
    Isp,
    Public,
    Dc,
    OnPrem,
}

pub const NODE: Host = Host::new("node", "10.0.1.10", "2a0a:1:1::10", Place::Node);
/// A pod of a cluster with the VPC network model: an address of its own range, behind the node.
pub const POD: Host = Host::new("pod", "172.16.0.5", "fd10:16::5", Place::Pod);
/// A pod whose address is one of the VPC (Cloud Native Network 2.0, Autopilot).
pub const TURBO: Host = Host::new("turbo", "10.0.8.5", "2a0a:1:8::5", Place::Turbo);
/// In the node's own subnet.
pub const NEAR: Host = Host::new("near", "10.0.1.20", "2a0a:1:1::20", Place::Near);
/// In another subnet of the VPC.
pub const REG: Host = Host::new("reg", "10.0.2.20", "2a0a:1:2::20", Place::Reg);
pub const PROXY: Host = Host::new("proxy", "10.0.2.30", "2a0a:1:2::30", Place::Proxy);
/// In the cloud's ranges for its own services.
pub const SWR: Host = Host::new("swr", "100.125.0.20", "2a0a:125::20", Place::Svc);
pub const ENDPOINT: Host = Host::new("endpoint", "198.19.128.20", "2a0a:198::20", Place::Svc);
pub const CGNAT: Host = Host::new("cgnat", "100.70.1.1", "2a0a:70::20", Place::Svc);
pub const PEER: Host = Host::new("peer", "10.50.1.20", "2a0a:50:1::20", Place::PeerReg);
pub const PUBLIC: Host = Host::new("public", "52.20.0.20", "2600:1f18::20", Place::Public);
pub const AUTH: Host = Host::new("auth", "52.20.0.21", "2600:1f18::21", Place::Public);
pub const BLOBS: Host = Host::new("blobs", "52.20.0.22", "2600:1f18::22", Place::Public);
/// One more public host, which has nothing to do with the registry.
pub const CONTROL: Host = Host::new("control", "52.20.0.23", "2600:1f18::23", Place::Public);
/// Where an HTTP echo is, which shows the address and port it sees.
pub const ECHO: Host = Host::new("echo", "52.20.0.30", "2600:1f18::30", Place::Public);
pub const ONPREM: Host = Host::new("onprem", "192.168.50.10", "fd92:168:50::10", Place::OnPrem);

/// All that have names.
pub const HOSTS: [Host; 15] = [
    NODE, TURBO, NEAR, REG, PROXY, SWR, ENDPOINT, CGNAT, PEER, PUBLIC, AUTH, BLOBS, CONTROL, ECHO,
    ONPREM,
];

/// The name servers' addresses, and the VPC router's, as the node sees it.
pub const DNS: [&str; 2] = ["10.0.0.53", "2a0a:1::53"];
pub const DNS_2: [&str; 2] = ["10.0.0.54", "2a0a:1::54"];
pub const GATEWAY: [&str; 2] = ["10.0.1.1", "2a0a:1:1::1"];

/// Public addresses of the VPC's NAT gateway and elastic ones.
pub const SNAT: &str = "121.36.1.1";
pub const SNAT_POOL: [&str; 2] = ["121.36.1.1", "121.36.1.2"];
pub const NODE_EIP: &str = "121.36.1.50";
pub const POD_EIP: &str = "121.36.1.60";

/// What stops packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    Drop,
    /// A TCP reset, which looks like the host's own.
    Reset,
    /// ICMP "administratively prohibited" from where the rule is.
    Prohibited,
    /// ICMP "host unreachable".
    Unreachable,
}

impl Block {
    const fn verdict(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reset => "reject with tcp reset",
            Self::Prohibited => "reject with icmpx admin-prohibited",
            Self::Unreachable => "reject with icmpx host-unreachable",
        }
    }
}

/// What is pushed once for all worlds of a test process that live at the same time: an image in a
/// real registry that anybody reads through a socket in the file system, and the authority of all
/// certificates.
struct Shared {
    _registry: Process,
    /// Where the registry runs: if this process is killed, the next one finds it there.
    _netns: Netns,
    socket: PathBuf,
    storage: PathBuf,
    pki: Pki,
    image: Image,
    /// Last: the others are in it.
    _folder: TempDir,
}

/// By the sizes of the image's layers.
static SHARED: Mutex<BTreeMap<Vec<usize>, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// What an image has unless a test wants more.
const LAYERS: [usize; 3] = [4 << 20, 700_000, 4096];

/// Like `Mutex::lock`; a test that failed meanwhile is no reason to fail as well.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn get(layers: &[usize]) -> Arc<Self> {
        let mut all = lock(&SHARED);
        if let Some(shared) = all.get(layers).and_then(Weak::upgrade) {
            return shared;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        // Programs of the user `nobody` read the CA certificate.
        open_to_all(at);
        let (storage, socket) = (at.join("storage"), at.join("registry.sock"));
        let image = Image::build(
            7,
            Flavour::Oci,
            // One is enough where layers are large.
            &["amd64", "arm64"][..if layers == LAYERS { 2 } else { 1 }],
            layers,
        );
        {
            let door = Registry::start(at, "push", &storage, &Mode::Open, None);
            let to = format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", door.port);
            push(at, &image, &to, &[]);
        }
        let netns = Netns::new();
        let mut command = netns.command("docker-registry");
        let registry =
            Registry::on_socket(&mut command, at, "registry", &storage, &Mode::Open, &socket);
        let pki = Pki::new(at);
        let shared = Arc::new(Self {
            _registry: registry,
            _netns: netns,
            socket,
            storage,
            pki,
            image,
            _folder: folder,
        });
        all.insert(layers.to_vec(), Arc::downgrade(&shared));
        shared
    }
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The topology; it may change while it is there, and is gone when dropped. The fields are in the
/// order in which they go.
pub struct World {
    servers: Mutex<BTreeMap<String, Process>>,
    tokens: Mutex<Vec<TokenService>>,
    metadata: Mutex<Option<Arc<Metadata>>>,
    /// More cables: tunnels of the node.
    tunnels: Mutex<Vec<Wire>>,
    /// Between the VPC and the Internet: 2 ms each way.
    pub wan: Wire,
    /// Direct Connect: 6 ms each way.
    pub line: Wire,
    pub node: Netns,
    pub pod: Netns,
    pub turbo: Netns,
    pub near: Netns,
    pub reg: Netns,
    pub proxy: Netns,
    pub dns: Netns,
    pub svc: Netns,
    pub meta: Netns,
    pub vpc: Netns,
    pub peer: Netns,
    pub peerreg: Netns,
    pub isp: Netns,
    pub public: Netns,
    pub dc: Netns,
    pub onprem: Netns,
    shared: Arc<Shared>,
    folder: TempDir,
}

impl World {
    /// All of it, with names for all hosts; the servers are started by those who need them.
    pub fn new() -> Self {
        Self::with_layers(&LAYERS)
    }

    /// The same with layers of these sizes.
    pub fn with_layers(layers: &[usize]) -> Self {
        let shared = Shared::get(layers);
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        let all: [Netns; 16] = std::array::from_fn(|_| Netns::new());
        for netns in &all {
            netns.inside(prepare);
        }
        for router in [Place::Node, Place::Vpc, Place::Peer, Place::Isp, Place::Dc] {
            all[router as usize].inside(forward);
        }
        lay_cables(&all);
        let [
            node,
            pod,
            turbo,
            near,
            reg,
            proxy,
            dns,
            svc,
            meta,
            vpc,
            peer,
            peerreg,
            isp,
            public,
            dc,
            onprem,
        ] = all;
        let wire = |device: &str, here: [&str; 2], to: &Netns, there: [&str; 2], delay| {
            Wire::lay(
                &End::new(&vpc.name, device, &here),
                &End::new(&to.name, device, &there),
                Knobs::delay(delay),
                1500,
                1,
            )
        };
        let wan = wire(
            "wan",
            ["121.36.0.2/30", "2a0a:ff::2/64"],
            &isp,
            ["121.36.0.1/30", "2a0a:ff::1/64"],
            2,
        );
        let line = wire(
            "dc0",
            ["10.255.3.1/30", "fd99:3::1/64"],
            &dc,
            ["10.255.3.2/30", "fd99:3::2/64"],
            6,
        );

        let world = Self {
            servers: Mutex::default(),
            tokens: Mutex::default(),
            metadata: Mutex::default(),
            tunnels: Mutex::default(),
            wan,
            line,
            node,
            pod,
            turbo,
            near,
            reg,
            proxy,
            dns,
            svc,
            meta,
            vpc,
            peer,
            peerreg,
            isp,
            public,
            dc,
            onprem,
            shared,
            folder,
        };
        world.address();
        world.filter();
        world.write_resolvers();
        world.names(&[]);
        world
    }

    /// Addresses and routes: a process for each namespace.
    fn address(&self) {
        for &(place, devices, routes) in ADDRESSES {
            let mut lines: String = devices.iter().map(|line| addresses_of(line)).collect();
            // A server's congestion control counts; the kernel here has bbr for all.
            lines.extend(
                routes
                    .iter()
                    .map(|(to, via)| format!("route add {to} via {via} congctl cubic\n")),
            );
            self.at(place).ip_batch(&lines);
        }
    }

    /// NAT and its like; with a SNAT for all.
    fn filter(&self) {
        // Clients use a port again sooner than the default of two minutes would forget the flow, and
        // with it its translation.
        for kind in ["tcp_timeout_time_wait", "tcp_timeout_close", "udp_timeout"] {
            self.vpc
                .sysctl(&format!("net.netfilter.nf_conntrack_{kind}=1"));
        }
        self.vpc.nft(&format!(
            "table inet lab {{
               set private {{ type ipv4_addr; flags interval; elements = {{ 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 }} }}
               chain rules {{ }}
               chain forward {{ type filter hook forward priority 0; jump rules
                 oifname wan ip daddr @private drop
                 oifname wan iifname wan drop
               }}
               chain clamp {{ type filter hook forward priority -150;
                 oifname vpn0 tcp flags syn tcp option maxseg size set rt mtu
               }}
               chain eip_in {{ }}
               chain eip_out {{ }}
               chain gateway {{ oifname wan ip saddr @private snat ip to {SNAT}; }}
               chain pre {{ type nat hook prerouting priority -100; iifname wan jump eip_in; }}
               chain post {{ type nat hook postrouting priority 100; oifname wan jump eip_out
                 oifname wan jump gateway
               }}
               chain leave {{ type filter hook postrouting priority 150; oifname wan ip saddr @private drop; }}
             }}\n"
        ));
        self.dc.nft(
            "table inet lab {
               chain clamp { type filter hook forward priority -150;
                 oifname vpn0 tcp flags syn tcp option maxseg size set rt mtu
               }
             }\n",
        );
        self.node.nft(
            "table inet lab {
               chain rules { }
               chain forward { type filter hook forward priority 0; jump rules
               }
               chain post { type nat hook postrouting priority 100;
                 oifname eth0 ip saddr 172.16.0.0/24 ip daddr != { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 } masquerade
                 oifname eth0 ip6 saddr fd10:16::/64 ip6 daddr != { fc00::/7, 2a0a:1::/32, 2a0a:50::/32 } masquerade
               }
               chain services { }
               chain pre { type nat hook prerouting priority -100; jump services
               }
               chain out { type nat hook output priority -100; jump services
               }
             }\n",
        );
    }

    /// What programs there find as /etc/resolv.conf: `ip netns exec` lays it over the machine's.
    fn write_resolvers(&self) {
        for netns in [
            &self.node,
            &self.pod,
            &self.turbo,
            &self.proxy,
            &self.onprem,
            &self.public,
        ] {
            let folder = Path::new("/etc/netns").join(&netns.name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(
                folder.join("resolv.conf"),
                format!("nameserver {}\n", DNS[0]),
            )
            .unwrap();
        }
    }

    pub fn at(&self, place: Place) -> &Netns {
        match place {
            Place::Node => &self.node,
            Place::Pod => &self.pod,
            Place::Turbo => &self.turbo,
            Place::Near => &self.near,
            Place::Reg => &self.reg,
            Place::Proxy => &self.proxy,
            Place::Dns => &self.dns,
            Place::Svc => &self.svc,
            Place::Meta => &self.meta,
            Place::Vpc => &self.vpc,
            Place::Peer => &self.peer,
            Place::PeerReg => &self.peerreg,
            Place::Isp => &self.isp,
            Place::Public => &self.public,
            Place::Dc => &self.dc,
            Place::OnPrem => &self.onprem,
        }
    }

    /// The authority of all servers' certificates.
    pub fn ca_file(&self) -> &Path {
        &self.shared.pki.ca_file
    }

    /// What the registries have.
    pub fn image(&self) -> &Image {
        &self.shared.image
    }

    /// A folder for a test's own files, which everybody may read.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    // ---- Servers

    fn server(&self, name: &str, process: Process) {
        lock(&self.servers).insert(name.to_owned(), process);
    }

    /// Ends a server: `web-HOST`, as those with TLS are called, `dns`, `dns2`, `proxy`.
    pub fn end(&self, name: &str) {
        let process = lock(&self.servers).remove(name);
        assert!(process.is_some(), "no server {name} is there");
    }

    fn nginx(&self, host: &Host, locations: &str) {
        self.nginx_with(host, &[], Some([1, 89]), locations);
    }

    /// With a certificate for more names, and with days of its own (how old it is, and how many it has left).
    fn nginx_with(&self, host: &Host, names: &[&str], days: Option<[u64; 2]>, locations: &str) {
        let name = format!("web-{}", host.name);
        let mut subjects = vec![
            host.name(),
            host.name_v6(),
            host.name_dual(),
            host.v4.to_owned(),
            host.v6.to_owned(),
        ];
        subjects.extend(names.iter().map(|&name| name.to_owned()));
        let certificate =
            self.shared
                .pki
                .issue_for(&format!("{}-{}", host.name, self.node.name), subjects, days);
        let listen = [format!("{}:443", host.v4), format!("[{}]:443", host.v6)];
        let block = server_block(&host.name(), &listen, &certificate, locations);
        let mut command = self.at(host.place).command("nginx");
        nginx_args(&mut command, &self.folder.path().join(&name), &block);
        let process = Process::start(&name, &mut command, self.folder.path()).listening(443);
        self.server(&name, process);
    }

    /// A real registry (docker-registry behind nginx) with TLS on port 443, open to all.
    pub fn registry(&self, host: &Host) {
        self.registry_behind(host, self.socket(), "");
    }

    /// The same with more directives for nginx, and with what is at this socket behind it.
    pub fn registry_behind(&self, host: &Host, socket: &Path, directives: &str) {
        let upstream = format!("http://unix:{}:", socket.display());
        let locations = registry_locations(&upstream, None);
        self.nginx(host, &format!("{directives}\n{locations}"));
    }

    /// A registry with a certificate for more names, that began so many days ago and has so many left.
    pub fn registry_certified(
        &self,
        host: &Host,
        names: &[&str],
        days: Option<[u64; 2]>,
        directives: &str,
    ) {
        let upstream = format!("http://unix:{}:", self.socket().display());
        let locations = registry_locations(&upstream, None);
        self.nginx_with(host, names, days, &format!("{directives}\n{locations}"));
    }

    /// Where the registry itself listens.
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// The files of a folder at port 443 with TLS.
    pub fn files(&self, host: &Host, folder: &Path) {
        self.nginx(host, &format!("root {};", folder.display()));
    }

    /// Shows everybody the source address and port it sees, at port 443 with TLS.
    pub fn echo(&self, host: &Host) {
        self.nginx(
            host,
            "location / { default_type text/plain; return 200 \"$remote_addr $remote_port\\n\"; }",
        );
    }

    /// A registry that wants tokens of this service (`USER`, `PASSWORD` of the stack), and sends
    /// those who want blobs to this storage; hosts of their own, each.
    pub fn split_registry(&self, host: &Host, tokens: Option<&Host>, blobs: Option<&Host>) {
        let folder = self.folder.path();
        let mut socket = self.shared.socket.clone();
        if let Some(tokens) = tokens {
            let listener = self
                .at(tokens.place)
                .inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
            let service = TokenService::on(listener, folder, TokenKnobs::default());
            self.nginx(
                tokens,
                &format!(
                    "location / {{ proxy_pass http://127.0.0.1:{}; }}",
                    service.port
                ),
            );
            let name = format!("tokens-{}", host.name);
            socket = folder.join(format!("{name}.sock"));
            let mode = Mode::Token {
                realm: format!("https://{}/token", tokens.name()),
                signer: service.signer.clone(),
            };
            let mut command = self.at(host.place).command("docker-registry");
            let storage = &self.shared.storage;
            let registry =
                Registry::on_socket(&mut command, folder, &name, storage, &mode, &socket);
            self.server(&name, registry);
            lock(&self.tokens).push(service);
        }
        let storage = blobs.map(|blobs| {
            self.nginx(blobs, &blob_locations(&self.shared.storage));
            format!("https://{}", blobs.name())
        });
        let upstream = format!("http://unix:{}:", socket.display());
        let storage = storage.as_ref().map(|url| (url.as_str(), "abc"));
        self.nginx(host, &registry_locations(&upstream, storage));
    }

    /// The names at the first name server: those of all hosts, except where this says otherwise.
    /// A name without addresses does not exist.
    pub fn names(&self, names: &[(&str, &[&str])]) {
        self.dnsmasq("dns", DNS, names);
    }

    /// A second name server, which may say otherwise.
    pub fn second_dns(&self, names: &[(&str, &[&str])]) {
        self.dnsmasq("dns2", DNS_2, names);
    }

    fn dnsmasq(&self, server: &str, at: [&str; 2], names: &[(&str, &[&str])]) {
        lock(&self.servers).remove(server);
        let mut command = self.dns.command("dnsmasq");
        command.args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args([
            "--user=root",
            "--pid-file=",
            "--bind-interfaces",
            "--local=/test/",
        ]);
        command.args(at.map(|address| format!("--listen-address={address}")));
        for (name, addresses) in names_with(names) {
            for address in addresses {
                command.arg(format!("--host-record={name},{address}"));
            }
        }
        let process = Process::start(server, &mut command, self.folder.path()).listening(53);
        self.server(server, process);
    }

    /// Split horizon: the first name server says this to clients of a subnet, and to others what
    /// `names` would.
    pub fn dns_view(&self, subnet: &str, inside: &[(&str, &[&str])]) {
        lock(&self.servers).remove("dns");
        let data = |names: &[(String, Vec<String>)]| -> String {
            names
                .iter()
                .flat_map(|(name, addresses)| {
                    let zone = format!("  local-zone: \"{name}.\" static\n");
                    std::iter::once(zone).chain(addresses.iter().map(move |address| {
                        let kind = if address.contains(':') { "AAAA" } else { "A" };
                        format!("  local-data: \"{name}. 0 IN {kind} {address}\"\n")
                    }))
                })
                .collect()
        };
        let inside: Vec<_> = inside.iter().map(owned).collect();
        let config = self.folder.path().join("unbound.conf");
        let text = format!(
            "server:\n  interface: {}\n  interface: {}\n  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{}\"\n  pidfile: \"\"\n  use-syslog: no\n  module-config: \"iterator\"\n  local-zone: \"test.\" static\n  access-control-view: {subnet} inside\n{}view:\n  name: \"inside\"\n  view-first: yes\n{}remote-control:\n  control-enable: no\n",
            DNS[0],
            DNS[1],
            self.folder.path().display(),
            data(&names_with(&[])),
            data(&inside),
        );
        fs::write(&config, text).unwrap();
        let mut command = self.dns.command("unbound");
        command.arg("-d").arg("-c").arg(&config);
        let process = Process::start("dns", &mut command, self.folder.path()).listening(53);
        self.server("dns", process);
    }

    /// A forward proxy (tinyproxy) at port 3128 of `PROXY`.
    pub fn http_proxy(&self) {
        let config = self.folder.path().join("tinyproxy.conf");
        let text = format!(
            "Listen {}\nPort 3128\nTimeout 20\nMaxClients 20\n",
            PROXY.v4
        );
        fs::write(&config, text).unwrap();
        let mut command = self.proxy.command("tinyproxy");
        command.arg("-d").arg("-c").arg(&config);
        let process = Process::start("proxy", &mut command, self.folder.path()).listening(3128);
        self.server("proxy", process);
    }

    /// A cloud's metadata service; what it was asked is in the result. Without one, connections to
    /// its addresses are refused.
    pub fn metadata(&self, facts: Facts) -> Arc<Metadata> {
        // The one before holds the port.
        if let Some(before) = lock(&self.metadata).take() {
            before.stop();
        }
        let bind = || {
            let addresses = facts.cloud.addresses().iter();
            addresses.map(|at| bound(at)).collect()
        };
        let listeners = self.meta.inside(bind);
        let metadata = Arc::new(Metadata::start(listeners, facts));
        *lock(&self.metadata) = Some(Arc::clone(&metadata));
        metadata
    }

    /// Pods can't reach the metadata service, and get no answer.
    pub fn metadata_blocked_for_pods(&self) {
        let to = "ip daddr { 169.254.169.254, 100.100.100.200 } drop";
        self.node
            .nft(&format!("add rule inet lab rules iifname pod0 {to}\n"));
        self.rule(&format!("iifname turbo0 {to}"));
    }

    // ---- Ways to the Internet

    /// No SNAT any more: private sources do not get out, except those with an EIP.
    pub fn no_snat(&self) {
        self.vpc.nft("flush chain inet lab gateway\n");
    }

    /// SNAT for all by these addresses, a connection each in turn.
    pub fn snat(&self, addresses: &[&str]) {
        self.set_snat("ip saddr @private", addresses, "numgen inc", "");
    }

    /// SNAT for one subnet only.
    pub fn snat_for(&self, subnet: &str, addresses: &[&str]) {
        self.set_snat(&format!("ip saddr {subnet}"), addresses, "numgen inc", "");
    }

    /// SNAT by these addresses, where a client keeps its one.
    pub fn snat_sticky(&self, addresses: &[&str]) {
        self.set_snat("ip saddr @private", addresses, "jhash ip saddr", "");
    }

    /// SNAT that changes the source port, too, of each connection; else netfilter keeps it when free.
    pub fn snat_random_ports(&self, addresses: &[&str]) {
        self.set_snat(
            "ip saddr @private",
            addresses,
            "numgen inc",
            " fully-random",
        );
    }

    /// SNAT with so few ports of one address for TCP.
    pub fn snat_ports(&self, address: &str, count: u16) {
        let last = 40_000 + count - 1;
        self.vpc.nft(&format!(
            "flush chain inet lab gateway\n\
             add rule inet lab gateway oifname wan ip saddr @private ip protocol tcp snat ip to {address}:40000-{last}\n\
             add rule inet lab gateway oifname wan ip saddr @private snat ip to {address}\n"
        ));
    }

    /// A second cable from the node to the VPC router, with these last numbers of 10.0.77.0/24.
    pub fn second_interface(&self) {
        self.node
            .wire("second", &["10.0.77.10/24"], &self.vpc, &["10.0.77.1/24"]);
        for netns in [&self.node, &self.vpc] {
            for device in ["all", "second", "eth0"] {
                let path = format!("net.ipv4.conf.{device}.rp_filter=0");
                if netns.inside(|| Path::new(&format!("/proc/sys/net/ipv4/conf/{device}")).exists())
                {
                    netns.sysctl(&path);
                }
            }
        }
    }

    /// Answers of a host to the node come in by its second interface.
    pub fn answers_by_the_second_interface(&self, from: &str) {
        self.vpc.ip(&format!("rule add from {from} lookup 100"));
        self.vpc
            .ip("route add 10.0.1.10/32 via 10.0.77.10 dev second table 100");
    }

    fn set_snat(&self, of: &str, addresses: &[&str], choice: &str, flags: &str) {
        let to = if let [address] = addresses {
            (*address).to_owned()
        } else {
            let map: Vec<String> = addresses
                .iter()
                .enumerate()
                .map(|(index, address)| format!("{index} : {address}"))
                .collect();
            format!(
                "{choice} mod {} map {{ {} }}",
                addresses.len(),
                map.join(", ")
            )
        };
        self.vpc.nft(&format!(
            "flush chain inet lab gateway\nadd rule inet lab gateway oifname wan {of} snat ip to {to}{flags}\n"
        ));
    }

    /// Binds an EIP: one public address for one private, which outranks SNAT.
    pub fn eip(&self, private: &str, public: &str) {
        self.vpc.nft(&format!(
            "add rule inet lab eip_in ip daddr {public} dnat ip to {private}\n\
             add rule inet lab eip_out ip saddr {private} snat ip to {public}\n"
        ));
    }

    /// Unbinds all EIPs.
    pub fn no_eip(&self) {
        self.vpc
            .nft("flush chain inet lab eip_in\nflush chain inet lab eip_out\n");
    }

    // ---- What is in the way. `clear` takes away what these did to the VPC router.

    fn rule(&self, rule: &str) {
        self.vpc.nft(&format!("add rule inet lab rules {rule}\n"));
    }

    /// Takes away all that blocks at the VPC router, and lost ICMP.
    pub fn clear(&self) {
        self.vpc.nft("flush chain inet lab rules\n");
        for netns in [&self.vpc, &self.dc, &self.isp, &self.peer] {
            netns.nft("add table inet silence\ndelete table inet silence\n");
        }
    }

    /// Nothing reaches the Internet, and senders get no error.
    pub fn no_egress(&self) {
        self.rule("oifname wan drop");
    }

    /// No IPv6 packet reaches the Internet, and senders get no error.
    pub fn blackhole_v6(&self) {
        self.rule("oifname wan meta nfproto ipv6 drop");
    }

    /// Blocks TCP to an address and port at the VPC router: not for what is in the sender's subnet.
    pub fn block(&self, address: &str, port: u16, how: Block) {
        let family = family(address);
        self.rule(&format!(
            "{family} daddr {address} tcp dport {port} {}",
            how.verdict()
        ));
    }

    /// A filter at the host itself: its security group admits no TCP.
    pub fn security_group(&self, host: &Host, how: Block) {
        self.at(host.place).nft(&format!(
            "table inet group {{
               chain input {{ type filter hook input priority 0;
                 ct state new ip daddr {} meta l4proto tcp {verdict}
                 ct state new ip6 daddr {} meta l4proto tcp {verdict}
               }}
             }}\n",
            host.v4,
            host.v6,
            verdict = how.verdict()
        ));
    }

    pub fn no_security_group(&self, host: &Host) {
        self.at(host.place).nft("delete table inet group\n");
    }

    /// The registry in the peer VPC has a security group that admits no client.
    pub fn far_security_group(&self, how: Block) {
        self.security_group(&PEER, how);
    }

    /// The peering's routes on the far side are missing.
    pub fn peering_without_return_route(&self) {
        self.peer.ip_batch(
            &PEER_RETURN
                .map(|(to, _)| format!("route del {to}\n"))
                .concat(),
        );
    }

    /// The peering's routes on this side are missing.
    pub fn peering_without_route(&self) {
        self.vpc
            .ip_batch("route del 10.50.0.0/16\nroute del 2a0a:50::/32\n");
    }

    /// Routers keep to themselves that a packet is too big: path MTU discovery fails.
    pub fn drop_frag_needed(&self) {
        for netns in [&self.vpc, &self.dc, &self.isp, &self.peer] {
            netns.nft(
                "table inet silence {
                   chain output { type filter hook output priority 0;
                     icmp type destination-unreachable icmp code frag-needed drop
                     icmpv6 type packet-too-big drop
                   }
                 }\n",
            );
        }
    }

    // ---- To the data centre

    /// On-premises by a VPN, a tunnel of this MTU over the line, instead of Direct Connect. Both
    /// gateways clamp the MSS, as they should. Called again, it changes the MTU.
    pub fn vpn(&self, mtu: u16) {
        for (netns, here, there) in [(&self.vpc, 1, 2), (&self.dc, 2, 1)] {
            if netns.inside(|| Path::new("/proc/sys/net/ipv4/conf/vpn0").exists()) {
                netns.ip(&format!("link set vpn0 mtu {mtu}"));
                continue;
            }
            netns.ip_batch(&format!(
                "link add vpn0 address 02:00:00:00:00:0{here} type vxlan id 42 local 10.255.3.{here} remote 10.255.3.{there} dstport 4789 nolearning\n\
                 link set vpn0 mtu {mtu}\n\
                 {}\
                 neigh add 10.255.5.{there} lladdr 02:00:00:00:00:0{there} dev vpn0\n\
                 neigh add fd99:5::{there} lladdr 02:00:00:00:00:0{there} dev vpn0\n",
                addresses_of(&format!("vpn0 10.255.5.{here}/30 fd99:5::{here}/64")),
            ));
        }
        self.to_data_centre("10.255.5.", "fd99:5::");
    }

    /// Back to Direct Connect.
    pub fn direct_connect(&self) {
        self.to_data_centre("10.255.3.", "fd99:3::");
    }

    fn to_data_centre(&self, v4: &str, v6: &str) {
        self.vpc.ip_batch(&format!(
            "route replace 192.168.0.0/16 via {v4}2\nroute replace fd92:168::/32 via {v6}2\n"
        ));
        self.dc.ip_batch(&format!(
            "route replace 10.0.0.0/8 via {v4}1\nroute replace 172.16.0.0/24 via {v4}1\n\
             route replace 2a0a:1::/32 via {v6}1\nroute replace fd10:16::/64 via {v6}1\n"
        ));
    }

    /// Gateways that leave the MSS alone: what then helps is path MTU discovery.
    pub fn no_mss_clamp(&self) {
        for netns in [&self.vpc, &self.dc] {
            netns.nft("flush chain inet lab clamp\n");
        }
    }

    /// Clients and servers forget path MTUs they learnt, which they keep for ten minutes.
    pub fn forget_path_mtu(&self) {
        for netns in [
            &self.node,
            &self.pod,
            &self.turbo,
            &self.reg,
            &self.public,
            &self.peerreg,
            &self.onprem,
        ] {
            netns.ip_batch("route flush cache\n");
        }
    }

    /// A tunnel that ends on the node itself: a device of this name to the data centre, 8 ms away,
    /// with a route to this subnet.
    pub fn host_tunnel(&self, device: &str, subnet: &str, mtu: u16) {
        let number = lock(&self.tunnels).len();
        let (here, there) = (format!("10.9.{number}.2/30"), format!("10.9.{number}.1"));
        let wire = Wire::lay(
            &End::new(&self.node.name, device, &[&here]),
            &End::new(&self.dc.name, device, &[&format!("{there}/30")]),
            Knobs::delay(8),
            mtu,
            1,
        );
        self.node
            .ip_batch(&format!("route add {subnet} via {there} dev {device}\n"));
        lock(&self.tunnels).push(wire);
    }

    // ---- On the node

    /// A Service of the cluster: translated on the node, as kube-proxy does.
    pub fn cluster_ip(&self, vip: &str, port: u16, backend: &str, backend_port: u16) {
        let family = family(vip);
        self.node.nft(&format!(
            "add rule inet lab services {family} daddr {vip} tcp dport {port} dnat {family} to {}:{backend_port}\n",
            if family == "ip6" { format!("[{backend}]") } else { backend.to_owned() }
        ));
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// Every namespace's devices with their addresses, and its routes.
type Addresses = (
    Place,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);
const ADDRESSES: &[Addresses] = &[
    (
        Place::Vpc,
        &[
            "br1 10.0.1.1/24 2a0a:1:1::1/64",
            "br2 10.0.2.1/24 2a0a:1:2::1/64",
            "turbo0 10.0.8.1/24 2a0a:1:8::1/64",
            "dns0 10.0.0.1/24 2a0a:1::1/64",
            "svc0 10.255.1.1/30 fd99:1::1/64",
            "peer0 10.255.2.1/30 fd99:2::1/64",
            "meta0 10.255.4.1/30 fd99:4::1/64",
        ],
        &[
            ("default", "121.36.0.1"),
            ("::/0", "2a0a:ff::1"),
            // The node's pods.
            ("172.16.0.0/24", NODE.v4),
            ("fd10:16::/64", NODE.v6),
            // The cloud's own ranges.
            ("100.64.0.0/10", "10.255.1.2"),
            ("198.19.128.0/17", "10.255.1.2"),
            ("2a0a:125::/32", "fd99:1::2"),
            ("2a0a:198::/32", "fd99:1::2"),
            ("2a0a:70::/32", "fd99:1::2"),
            ("169.254.169.254/32", "10.255.4.2"),
            ("100.100.100.200/32", "10.255.4.2"),
            ("fd00:ec2::254/128", "fd99:4::2"),
            // The peer's.
            ("10.50.0.0/16", "10.255.2.2"),
            ("2a0a:50::/32", "fd99:2::2"),
            // On-premises.
            ("192.168.0.0/16", "10.255.3.2"),
            ("fd92:168::/32", "fd99:3::2"),
        ],
    ),
    (
        Place::Node,
        &[
            "eth0 10.0.1.10/24 2a0a:1:1::10/64",
            "pod0 172.16.0.1/24 fd10:16::1/64",
        ],
        &[("default", GATEWAY[0]), ("::/0", GATEWAY[1])],
    ),
    (
        Place::Pod,
        &["eth0 172.16.0.5/24 fd10:16::5/64"],
        &[("default", "172.16.0.1"), ("::/0", "fd10:16::1")],
    ),
    (
        Place::Turbo,
        &["eth0 10.0.8.5/24 2a0a:1:8::5/64"],
        &[("default", "10.0.8.1"), ("::/0", "2a0a:1:8::1")],
    ),
    (
        Place::Near,
        &["eth0 10.0.1.20/24 2a0a:1:1::20/64"],
        &[("default", GATEWAY[0]), ("::/0", GATEWAY[1])],
    ),
    (
        Place::Reg,
        &["eth0 10.0.2.20/24 2a0a:1:2::20/64"],
        &[("default", "10.0.2.1"), ("::/0", "2a0a:1:2::1")],
    ),
    (
        Place::Proxy,
        &["eth0 10.0.2.30/24 2a0a:1:2::30/64"],
        &[("default", "10.0.2.1"), ("::/0", "2a0a:1:2::1")],
    ),
    (
        Place::Dns,
        &["eth0 10.0.0.53/24 10.0.0.54/24 2a0a:1::53/64 2a0a:1::54/64"],
        &[("default", "10.0.0.1"), ("::/0", "2a0a:1::1")],
    ),
    (
        Place::Svc,
        &[
            "eth0 10.255.1.2/30 fd99:1::2/64",
            "lo 100.125.0.20/32 198.19.128.20/32 100.70.1.1/32",
            "lo 2a0a:125::20/128 2a0a:198::20/128 2a0a:70::20/128",
        ],
        &[("default", "10.255.1.1"), ("::/0", "fd99:1::1")],
    ),
    (
        Place::Meta,
        &[
            "eth0 10.255.4.2/30 fd99:4::2/64",
            "lo 169.254.169.254/32 100.100.100.200/32 fd00:ec2::254/128",
        ],
        &[("default", "10.255.4.1"), ("::/0", "fd99:4::1")],
    ),
    (
        Place::Peer,
        &[
            "vpc0 10.255.2.2/30 fd99:2::2/64",
            "lan0 10.50.1.1/24 2a0a:50:1::1/64",
        ],
        &PEER_RETURN,
    ),
    (
        Place::PeerReg,
        &["eth0 10.50.1.20/24 2a0a:50:1::20/64"],
        &[("default", "10.50.1.1"), ("::/0", "2a0a:50:1::1")],
    ),
    (
        Place::Isp,
        &["lan0 52.20.0.1/24 2600:1f18::1/64"],
        &[
            ("121.36.0.0/16", "121.36.0.2"),
            ("2a0a:1::/32", "2a0a:ff::2"),
        ],
    ),
    (
        Place::Public,
        &[
            "eth0 52.20.0.20/24 52.20.0.21/24 52.20.0.22/24 52.20.0.23/24 52.20.0.30/24",
            "eth0 2600:1f18::20/64 2600:1f18::21/64 2600:1f18::22/64 2600:1f18::23/64 2600:1f18::30/64",
        ],
        &[("default", "52.20.0.1"), ("::/0", "2600:1f18::1")],
    ),
    (
        Place::Dc,
        &["lan0 192.168.50.1/24 fd92:168:50::1/64"],
        &[
            ("10.0.0.0/8", "10.255.3.1"),
            ("172.16.0.0/24", "10.255.3.1"),
            ("100.64.0.0/10", "10.255.3.1"),
            ("2a0a:1::/32", "fd99:3::1"),
            ("fd10:16::/64", "fd99:3::1"),
        ],
    ),
    (
        Place::OnPrem,
        &["eth0 192.168.50.10/24 fd92:168:50::10/64"],
        &[("default", "192.168.50.1"), ("::/0", "fd92:168:50::1")],
    ),
];

/// The peer's routes back.
const PEER_RETURN: [(&str, &str); 4] = [
    ("10.0.0.0/16", "10.255.2.1"),
    ("172.16.0.0/24", "10.255.2.1"),
    ("2a0a:1::/32", "fd99:2::1"),
    ("fd10:16::/64", "fd99:2::1"),
];

/// The cables, except those that take their time.
fn lay_cables(all: &[Netns; 16]) {
    // A new device's name must be free where `ip` is, so each is made at one of its ends.
    let attached = [
        ("node0", Place::Node),
        ("near0", Place::Near),
        ("reg0", Place::Reg),
        ("proxy0", Place::Proxy),
        ("turbo0", Place::Turbo),
        ("dns0", Place::Dns),
        ("svc0", Place::Svc),
        ("meta0", Place::Meta),
        ("peer0", Place::Peer),
    ];
    // The kernel hears at once that the other end is up, except when both ends have the same index
    // by chance: then it may take a second (linkwatch_urgent_event).
    let cable = |index: usize, device: &str, there: &str, to: Place| {
        format!(
            "link add {device} index {} type veth peer name {there} netns {}\n",
            100 + index,
            all[to as usize].name
        )
    };
    let mut lines: String = attached
        .iter()
        .enumerate()
        .map(|(index, &(device, to))| {
            let there = if device == "peer0" { "vpc0" } else { "eth0" };
            cable(index, device, there, to)
        })
        .collect();
    // A bridge that listens first would hold packets back for 30 s.
    for (bridge, ports) in [("br1", ["node0", "near0"]), ("br2", ["reg0", "proxy0"])] {
        lines += "link add ";
        lines += bridge;
        lines += " type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n";
        for port in ports {
            lines.extend(["link set ", port, " master ", bridge, " up\n"]);
        }
    }
    all[Place::Vpc as usize].ip_batch(&lines);
    for (from, device, to) in [
        (Place::Node, "pod0", Place::Pod),
        (Place::Peer, "lan0", Place::PeerReg),
        (Place::Isp, "lan0", Place::Public),
        (Place::Dc, "lan0", Place::OnPrem),
    ] {
        all[from as usize].ip_batch(&cable(0, device, "eth0", to));
    }
}

fn family(address: &str) -> &'static str {
    match address.parse::<IpAddr>().unwrap() {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

/// Lines for `ip` that set a device, the first word, up and give it its addresses.
fn addresses_of(words: &str) -> String {
    let (device, addresses) = words.split_once(' ').unwrap();
    let mut lines = format!("link set {device} up\n");
    for address in addresses.split(' ') {
        // On a device that is not ready an IPv6 address would wait for that.
        let at_once = if address.contains(':') { " nodad" } else { "" };
        lines.extend(["addr add ", address, " dev ", device, at_once, "\n"]);
    }
    lines
}

fn owned((name, addresses): &(&str, &[&str])) -> (String, Vec<String>) {
    let addresses = addresses.iter().map(|&a| a.to_owned()).collect();
    ((*name).to_owned(), addresses)
}

/// The names of all hosts, with changes.
fn names_with(changes: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let mut names: Vec<(String, Vec<String>)> = HOSTS
        .iter()
        .flat_map(|host| {
            let (v4, v6) = (host.v4.to_owned(), host.v6.to_owned());
            [
                (host.name(), vec![v4.clone()]),
                (host.name_v6(), vec![v6.clone()]),
                (host.name_dual(), vec![v4, v6]),
            ]
        })
        .filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name))
        .collect();
    names.extend(changes.iter().map(owned));
    names
}

fn set(setting: &str, value: &str) {
    let file = Path::new("/proc/sys/net").join(setting);
    fs::write(&file, value).unwrap_or_else(|error| panic!("{setting}: {error}"));
}

/// Settings of every namespace, from inside.
fn prepare() {
    // Duplicate address detection (RFC 4862, 5.4) would hold addresses back for seconds.
    for scope in ["all", "default"] {
        set(&format!("ipv6/conf/{scope}/accept_dad"), "0");
        set(&format!("ipv6/conf/{scope}/accept_ra"), "0");
    }
    // Probes of hops come quicker than the kernel would answer.
    set("ipv4/icmp_ratelimit", "0");
    set("ipv6/icmp/ratelimit", "0");
}

fn forward() {
    set("ipv4/ip_forward", "1");
    set("ipv6/conf/all/forwarding", "1");
    // Bridged packets are nothing for the router's rules.
    let bridged = Path::new("/proc/sys/net/bridge");
    if bridged.exists() {
        for family in ["iptables", "ip6tables", "arptables"] {
            let _ = fs::write(bridged.join(format!("bridge-nf-call-{family}")), "0");
        }
    }
}

/// A listener at an address that another one may hold for a moment longer.
fn bound(at: &str) -> TcpListener {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(at) {
            Ok(listener) => return listener,
            Err(error) if Instant::now() >= end => panic!("{at}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
