//! Ways to be slow, each with one real cause, between the world's node (or a pod of its) and the
//! public registry; and what a diagnosis should say of it.

#![allow(dead_code, reason = "each program uses a part")]
#![allow(
    unreachable_pub,
    reason = "shared by several crates, which are no libraries"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpCongestion;

use crate::lab::netns::Netns;
use crate::lab::process::{Process, run};
use crate::lab::wire::Knobs;
use crate::metadata::Facts;
use crate::world::{CONTROL, DNS, ECHO, PUBLIC, Place, SNAT, TURBO, World};

/// TCP's payload of a full packet of 1500 bytes, and of the frame that a qdisc on a veth counts.
pub const OF_IP: f64 = 1448.0 / 1500.0;
pub const OF_FRAME: f64 = 1448.0 / 1514.0;

/// Payload in bytes per second of a cap in Mbit/s.
pub fn payload(mbit: f64, part: f64) -> f64 {
    mbit * 1e6 / 8.0 * part
}

const MIB: usize = 1 << 20;
/// For caps of some Mbit/s.
const SMALL: [usize; 3] = [20 * MIB, 8 * MIB, 8 * MIB];
/// For a way without one.
const LARGE: [usize; 4] = [40 * MIB, 32 * MIB, 32 * MIB, 24 * MIB];

/// What the control host serves.
const BIG: &str = "big.bin";
pub const NONE: &str = "none";

/// One cause, and what may be said of it.
pub struct Slow {
    pub name: &'static str,
    /// Each is right; `NONE` says that silence is, too.
    pub causes: &'static [&'static str],
    /// Right only if the reported rate is the true one: with other traffic it can't be known.
    pub if_true: &'static [&'static str],
    pub layers: &'static [usize],
    make: fn(&World) -> Made,
}

/// What was made, as long as this is there.
pub struct Made {
    pub from: Place,
    /// Lines of the configuration, below `network`.
    network: Vec<String>,
    pub args: Vec<String>,
    /// Bytes of payload per second that last, where it is known beforehand: of one request, and of
    /// all together.
    pub one: Option<f64>,
    pub all: Option<f64>,
    /// Makes it as before the first run: full buckets, cold caches.
    again: Box<dyn Fn(&World) + Send>,
    cgroup: Option<Cgroup>,
    storage: Option<Storage>,
    neighbour: Option<Process>,
    upload: Option<Upload>,
}

impl Slow {
    const fn new(
        name: &'static str,
        causes: &'static [&'static str],
        layers: &'static [usize],
        make: fn(&World) -> Made,
    ) -> Self {
        Self {
            name,
            causes,
            if_true: &[],
            layers,
            make,
        }
    }

    pub fn world(&self) -> World {
        let world = World::with_layers(self.layers);
        forget_metrics(&world);
        world
    }

    pub fn make(&self, world: &World) -> Made {
        (self.make)(world)
    }
}

/// All of them.
pub const ALL: &[Slow] = &[
    Slow::new("uncapped_0ms", &[NONE], &LARGE, |world| uncapped(world, 0)),
    Slow::new("uncapped_20ms", &[NONE], &LARGE, |world| {
        uncapped(world, 20)
    }),
    Slow::new("uncapped_80ms", &[NONE], &LARGE, |world| {
        uncapped(world, 80)
    }),
    Slow::new("cap", &["bw_cap"], &SMALL, |world| {
        let made = Made::new(world, 20);
        made.shaped(world, "node0", 20.0, 32 << 10)
    }),
    Slow::new("eip_of_pod", &["bw_eip_cap"], &SMALL, eip_of_pod),
    Slow::new("eip_with_control", &["bw_eip_cap"], &SMALL, |world| {
        let mut made = Made::new(world, 20).with_control(world);
        made.knows_egress(world);
        made.shaped(world, "node0", 20.0, 32 << 10)
    }),
    Slow::new("node", &["bw_node"], &SMALL, |world| {
        let mut made = Made::new(world, 20);
        world.metadata(Facts {
            max_bandwidth: 20,
            ..Facts::default()
        });
        made.network = vec!["provider: huawei".to_owned(), "metadata: huawei".to_owned()];
        made.shaped(world, "node0", 20.0, 32 << 10)
    }),
    Slow::new("remote", &["bw_remote"], &SMALL, remote),
    Slow::new("policer", &["bw_cap"], &SMALL, |world| {
        policer(world, "cubic")
    }),
    Slow::new("policer_bbr", &["bw_cap"], &SMALL, |world| {
        policer(world, "bbr")
    }),
    Slow::new("per_request", &["bw_per_flow"], &SMALL, per_request),
    Slow::new("window_here", &["bw_window"], &SMALL, |world| {
        let made = Made::new(world, 80);
        world.node.sysctl("net.ipv4.tcp_rmem=4096 65536 131072");
        made
    }),
    Slow::new("window_there", &["bw_window"], &SMALL, |world| {
        world.public.sysctl("net.ipv4.tcp_wmem=4096 65536 131072");
        Made::new(world, 80)
    }),
    Slow::new("scaling_here", &["bw_window"], &SMALL, |world| {
        let made = Made::new(world, 80);
        world.node.sysctl("net.ipv4.tcp_window_scaling=0");
        made
    }),
    Slow::new("scaling_there", &["bw_window"], &SMALL, |world| {
        world.public.sysctl("net.ipv4.tcp_window_scaling=0");
        Made::new(world, 80)
    }),
    Slow::new("loss_without_sack", &["bw_loss"], &SMALL, |world| {
        let made = Made::new(world, 40);
        world.node.sysctl("net.ipv4.tcp_sack=0");
        world.wan.set(|knobs| knobs.loss = 1.5);
        made
    }),
    Slow::new("uplink", &["bw_uplink"], &SMALL, uplink),
    Slow::new("loss", &["bw_loss"], &SMALL, |world| {
        let made = Made::new(world, 40);
        world.wan.set(|knobs| knobs.loss = 1.5);
        made
    }),
    Slow::new("throttle", &["bw_throttle"], &SMALL, |world| {
        let made = Made::new(world, 20);
        made.shaped(world, "node0", 10.0, 6_000_000)
    }),
    Slow::new("late", &["ttfb_slow"], &SMALL, |world| {
        behind(world, Fault::Late { first_only: false })
    }),
    Slow::new("late_when_cold", &["ttfb_slow"], &SMALL, |world| {
        behind(world, Fault::Late { first_only: true })
    }),
    Slow::new("stall", &["pull_no_progress"], &SMALL, |world| {
        behind(world, Fault::Stall { after: 600_000 })
    }),
    Slow::new("mtu", &["mtu_blackhole"], &SMALL, black_hole),
    Slow::new("cpu", &["bw_self"], &LARGE, |world| {
        let mut made = uncapped(world, 0);
        made.cgroup = Some(Cgroup::new(3));
        made
    }),
    Slow {
        if_true: &["bw_cap"],
        ..Slow::new("neighbour", &[NONE], &SMALL, |world| {
            neighbour(world, Place::Near)
        })
    },
    Slow {
        if_true: &["bw_cap"],
        ..Slow::new("neighbour_on_node", &[NONE], &SMALL, |world| {
            neighbour(world, Place::Node)
        })
    },
];

/// A server that remembers how the last connection went would start the next one otherwise.
pub fn forget_metrics(world: &World) {
    world.public.sysctl("net.ipv4.tcp_no_metrics_save=1");
}

/// Knobs of a way with this round trip time and no more.
pub fn way(rtt: u64) -> Knobs {
    Knobs {
        delay: Duration::from_micros(rtt * 500),
        ..Knobs::default()
    }
}

impl Made {
    /// A registry at this round trip time, and nothing wrong.
    fn new(world: &World, rtt: u64) -> Self {
        world.registry(&PUBLIC);
        Self::without_registry(world, rtt)
    }

    pub fn without_registry(world: &World, rtt: u64) -> Self {
        world.wan.set(|knobs| *knobs = way(rtt));
        Self {
            from: Place::Node,
            // The machine below may be one of a cloud itself.
            network: vec!["metadata: off".to_owned()],
            args: Vec::new(),
            one: None,
            all: None,
            again: Box::new(|world| world.wan.refill()),
            cgroup: None,
            storage: None,
            neighbour: None,
            upload: None,
        }
    }

    fn lasts(mut self, rate: f64) -> Self {
        (self.one, self.all) = (Some(rate), Some(rate));
        self
    }

    /// The VPC router sends this slowly by a device of it.
    fn shaped(mut self, world: &World, device: &'static str, mbit: f64, burst: u32) -> Self {
        let again = move |world: &World| shape(&world.vpc, device, mbit, burst);
        again(world);
        self.again = Box::new(again);
        self.lasts(payload(mbit, OF_FRAME))
    }

    /// Another host, to measure as well.
    fn with_control(mut self, world: &World) -> Self {
        big_file(world);
        let url = format!("https://{}/{BIG}", CONTROL.name());
        self.args.extend(["--control-url".to_owned(), url]);
        self
    }

    /// It is known how packets get out.
    fn knows_egress(&mut self, world: &World) {
        world.echo(&ECHO);
        self.network.push(format!("snat_addresses: [{SNAT}]"));
        self.ask_echo();
    }

    fn ask_echo(&mut self) {
        let url = ECHO.url();
        self.network
            .push(format!("egress: {{echo: ['{url}'], samples: 4}}"));
    }

    /// Before every run.
    pub fn again(&self, world: &World) {
        (self.again)(world);
    }

    /// The program on the public registry's image, as JSON; `args` come last.
    pub fn program(&self, world: &World, program: &str, args: &[&str]) -> Command {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let config = world.folder().join(format!("slow-{number}.yaml"));
        let mut text = "network:\n".to_owned();
        for line in &self.network {
            text.extend(["  ", line, "\n"]);
        }
        if !self.network.iter().any(|line| line.starts_with("provider")) {
            text.push_str("  provider: openstack\n");
        }
        fs::write(&config, text).unwrap();
        let none = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/no-credentials.json"
        );
        let mut command = world.at(self.from).as_nobody(program);
        if let Some(cgroup) = &self.cgroup {
            command = cgroup.command(&command);
        }
        command.args(["probe", &PUBLIC.reference(), "-o", "json"]);
        command.args(["--docker-config", none, "--platform", "linux/amd64"]);
        command.args(["--timeout", "5s", "--nameserver", DNS[0]]);
        command.args(["--hosts-file", "/dev/null"]);
        command.arg("--ca-file").arg(world.ca_file());
        command.arg("--config").arg(&config);
        command.args(&self.args).args(args);
        let pod = if self.from == Place::Turbo {
            TURBO.v4
        } else {
            "10.0.1.10"
        };
        // As every pod has them.
        command.env("HOST_IP", "10.0.1.10").env("POD_IP", pod);
        command
    }
}

/// A token bucket, full again.
fn shape(netns: &Netns, device: &str, mbit: f64, burst: u32) {
    let mut delete = netns.command("tc");
    // The first time there is none.
    let _ = delete
        .args(["qdisc", "del", "dev", device, "root"])
        .output();
    // Not `latency`: that is for what comes on top of the burst.
    let limit = (mbit * 125_000.0 * 0.06).max(65_536.0);
    run(netns.command("tc").args([
        "qdisc",
        "add",
        "dev",
        device,
        "root",
        "tbf",
        "rate",
        &format!("{mbit}mbit"),
        "burst",
        &burst.to_string(),
        "limit",
        &format!("{limit:.0}"),
    ]));
}

/// The control host's, of 256 MiB that take no room.
fn big_file(world: &World) {
    let folder = world.folder().join("files");
    fs::create_dir(&folder).unwrap();
    let file = File::create(folder.join(BIG)).unwrap();
    file.set_len(256 << 20).unwrap();
    world.files(&CONTROL, &folder);
}

fn uncapped(world: &World, rtt: u64) -> Made {
    Made::new(world, rtt)
}

/// An EIP of 5 Mbit/s; inbound the cloud gives ten at least.
fn eip_of_pod(world: &World) -> Made {
    const EIP: &str = crate::world::POD_EIP;
    let mut made = Made::new(world, 20);
    world.echo(&ECHO);
    world.eip(TURBO.v4, EIP);
    let annotations = world.folder().join("annotations");
    let text = format!(
        "yangtse.io/pod-with-eip=\"true\"\nyangtse.io/eip-bandwidth-size=\"5\"\nyangtse.io/allocated-ipv4-eip=\"{EIP}\"\n"
    );
    fs::write(&annotations, text).unwrap();
    made.from = Place::Turbo;
    made.network.extend([
        "provider: huawei".to_owned(),
        "cluster_network: autopilot".to_owned(),
        format!("pod_annotations: {}", annotations.display()),
    ]);
    made.ask_echo();
    made.shaped(world, "turbo0", 10.0, 32 << 10)
}

/// What comes from the registry is slow before it gets to us; the control host, beside it, is not.
fn remote(world: &World) -> Made {
    let made = Made::new(world, 20).with_control(world);
    for words in [
        "qdisc add dev wan root handle 1: htb",
        "class add dev wan parent 1: classid 1:10 htb rate 20mbit burst 32k cburst 32k quantum 1514",
        "qdisc add dev wan parent 1:10 bfifo limit 150000",
        "filter add dev wan parent 1: protocol ip u32 match ip src 52.20.0.20/32 flowid 1:10",
    ] {
        run(world.isp.command("tc").args(words.split(' ')));
    }
    // A TUN device's packets have no Ethernet header.
    made.lasts(payload(20.0, OF_IP))
}

/// What is over 20 Mbit/s is lost, not delayed.
fn policer(world: &World, congestion_control: &str) -> Made {
    let made = Made::new(world, 20);
    world.public.ip(&format!(
        "route replace default via 52.20.0.1 congctl {congestion_control}"
    ));
    // 200 ms of the rate, as routers' manuals have it.
    world.vpc.nft(&format!(
        "add rule inet lab rules iifname wan ip saddr {} limit rate over 2500000 bytes/second burst 500000 bytes drop\n",
        PUBLIC.v4
    ));
    made.lasts(payload(20.0, OF_IP))
}

/// The server gives each request 10 Mbit/s, whatever connection it comes by.
fn per_request(world: &World) -> Made {
    const RATE: f64 = 1_250_000.0;
    world.registry_behind(&PUBLIC, world.socket(), &format!("limit_rate {RATE};"));
    let mut made = Made::without_registry(world, 20);
    (made.one, made.all) = (Some(RATE), Some(3.0 * RATE));
    made
}

fn behind(world: &World, fault: Fault) -> Made {
    let socket = world.folder().join("storage.sock");
    let storage = Storage::start(&socket, world.socket(), fault);
    let directives = "proxy_buffering off; proxy_read_timeout 600s;";
    world.registry_behind(&PUBLIC, &socket, directives);
    let mut made = Made::without_registry(world, 20);
    let seen = Arc::clone(&storage.seen);
    made.again = Box::new(move |_| lock(&seen).clear());
    made.storage = Some(storage);
    made
}

/// On the way here packets are at most 1400 bytes long, and the router keeps that to itself.
fn black_hole(world: &World) -> Made {
    let mut made = Made::new(world, 20);
    world.isp.ip("link set wan mtu 1400");
    world.drop_frag_needed();
    made.again = Box::new(World::forget_path_mtu);
    made
}

/// The router sends 2 Mbit/s towards the public network, and the node uploads as fast as that takes it.
fn uplink(world: &World) -> Made {
    let mut made = Made::new(world, 20);
    shape(&world.vpc, "wan", 2.0, 32 << 10);
    made.upload = Some(Upload::start(world));
    made
}

/// Sends from the node to the control host until it is dropped.
struct Upload {
    ends: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Upload {
    fn start(world: &World) -> Self {
        let to = SocketAddr::from((CONTROL.v4.parse::<Ipv4Addr>().unwrap(), 9000));
        let listener = world
            .at(CONTROL.place)
            .inside(|| TcpListener::bind(to).unwrap());
        let mut from = world
            .node
            .inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap());
        // BBR keeps queues short.
        setsockopt(&from, TcpCongestion, &"cubic".into()).unwrap();
        let (mut at, _) = listener.accept().unwrap();
        let ends = [from.try_clone().unwrap(), at.try_clone().unwrap()];
        let threads = vec![
            std::thread::spawn(move || {
                let block = vec![0; 1 << 16];
                while from.write_all(&block).is_ok() {}
            }),
            std::thread::spawn(move || {
                let _ = io::copy(&mut at, &mut io::sink());
            }),
        ];
        Self { ends, threads }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// 20 Mbit/s for the whole VPC, of which somebody else has a part.
fn neighbour(world: &World, who: Place) -> Made {
    let mut made = Made::new(world, 20);
    world.wan.set(|knobs| knobs.rate = Some(20.0));
    big_file(world);
    let mut curl = world.at(who).command("curl");
    curl.args(["--silent", "--insecure", "--noproxy", "*", "--resolve"]);
    curl.arg(format!("{}:443:{}", CONTROL.name(), CONTROL.v4));
    curl.args(["--max-time", "7200", "--output", "/dev/null"]);
    // Again and again by itself; a shell's loop would outlive its end.
    curl.arg(format!("https://{}/{BIG}?[1-10000]", CONTROL.name()));
    made.neighbour = Some(Process::start("neighbour", &mut curl, world.folder()));
    made.lasts(payload(20.0, OF_IP))
}

/// A share of one processor, in percent (cgroup v1).
struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    fn new(percent: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        const PERIOD: u32 = 100_000;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!(
            "/sys/fs/cgroup/cpu/pullpath-{}-{number}",
            std::process::id()
        ));
        fs::create_dir(&folder).unwrap();
        let write = |file, value: u32| fs::write(folder.join(file), value.to_string()).unwrap();
        write("cpu.cfs_period_us", PERIOD);
        write("cpu.cfs_quota_us", PERIOD * percent / 100);
        Self { folder }
    }

    /// The same command in it, from its start.
    fn command(&self, inner: &Command) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""]);
        // Not by `ip netns exec`, which puts another /sys before that with the cgroups.
        let args: Vec<_> = inner.get_args().collect();
        assert_eq!(
            (inner.get_program(), args[1]),
            ("ip".as_ref(), "exec".as_ref())
        );
        let netns = format!("--net=/run/netns/{}", args[2].to_str().unwrap());
        command.arg(&self.folder).args(["nsenter", &netns]);
        command.args(&args[3..]);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// What ails the storage of a registry.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Each blob takes its time, or does as long as it is in no cache.
    Late { first_only: bool },
    /// Nothing more of a blob after so many bytes.
    Stall { after: usize },
}

const LATE: Duration = Duration::from_secs(2);

/// Between nginx, which asks by HTTP/1.0 with a connection for each request, and the registry.
struct Storage {
    /// The blobs that were asked for.
    seen: Arc<Mutex<BTreeSet<String>>>,
    socket: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Storage {
    fn start(socket: &Path, registry: &Path, fault: Fault) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = {
            let (seen, stopping) = (Arc::clone(&seen), Arc::clone(&stopping));
            let registry = registry.to_owned();
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(client) = client else { continue };
                    let (seen, registry) = (Arc::clone(&seen), registry.clone());
                    // It ends when nginx or the registry hangs up.
                    std::thread::spawn(move || {
                        let _ = serve(client, &registry, fault, &seen);
                    });
                }
            })
        };
        Self {
            seen,
            socket: socket.to_owned(),
            stopping,
            thread: Some(thread),
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut client: UnixStream,
    registry: &Path,
    fault: Fault,
    seen: &Mutex<BTreeSet<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = client.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..length]);
    }
    let text = String::from_utf8_lossy(&head);
    let path = text.split(' ').nth(1).unwrap_or_default();
    let is_blob = text.starts_with("GET ") && path.contains("/blobs/");
    let is_new = is_blob && lock(seen).insert(path.to_owned());
    let mut left = usize::MAX;
    match fault {
        Fault::Late { first_only } if is_new || (is_blob && !first_only) => {
            std::thread::sleep(LATE);
        }
        Fault::Stall { after } if is_blob => left = after,
        _ => {}
    }
    let mut server = UnixStream::connect(registry)?;
    server.write_all(&head)?;
    while left > 0 {
        let most = buffer.len().min(left);
        let length = server.read(&mut buffer[..most])?;
        if length == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..length])?;
        left -= length;
    }
    // Until nginx gives up, or whom it serves does.
    io::copy(&mut client, &mut io::sink())?;
    Ok(())
}
