//! The node: a network namespace behind a wire, with the daemon and the cluster role in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::faults::SERVERS;
use crate::kube::API;
use crate::lab::netns::{Netns, inside};
use crate::lab::process::{run, run_with};
use crate::operated::{Daemon, program};
use crate::sandbox::{Cgroup, FILES};

/// The node's own address.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

const PUBLIC: u16 = 9797;
const ADMIN: u16 = 9798;
const CLUSTER: u16 = 9799;

/// A port of the node's loopback that images of pods must not reach.
pub const FORBIDDEN: u16 = 10250;

/// Connections to the servers' address reach loopback, where they listen, and keep their resets.
const NAT: &str = "
table ip chaos {
  chain from_node { type nat hook prerouting priority -100; ip daddr 10.77.0.1 dnat to 127.0.0.1; }
  chain from_here { type nat hook output priority -100; ip daddr 10.77.0.1 dnat to 127.0.0.1; }
}
";

pub struct Node {
    netns: Netns,
    folder: PathBuf,
    cgroup: PathBuf,
    /// Connections to what no image may lead to.
    forbidden: Arc<AtomicUsize>,
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}

fn sysctl(setting: &str) {
    run(Command::new("sysctl").args(["-q", "-w", setting]));
}

impl Node {
    pub fn start(folder: &Path, cgroup: &Cgroup) -> Self {
        let netns = Netns::new();
        ip("link set lo up");
        ip(&format!(
            "link add wire type veth peer name eth0 netns {}",
            netns.name
        ));
        ip(&format!("addr add {SERVERS}/24 dev wire"));
        // Clients from outside.
        for last in 11..16 {
            ip(&format!("addr add 10.77.0.{last}/24 dev wire"));
        }
        ip("link set wire up");
        ip(&format!("addr add {API}/32 dev lo"));
        for name in ["all", "wire"] {
            sysctl(&format!("net.ipv4.conf.{name}.route_localnet=1"));
        }
        run_with(Command::new("nft").args(["-f", "-"]), NAT);
        netns.ip(&format!("addr add {NODE}/24 dev eth0"));
        netns.ip("link set eth0 up");
        let node = Self {
            folder: folder.to_owned(),
            cgroup: cgroup.processes(),
            forbidden: Arc::default(),
            netns,
        };
        node.route();
        let count = Arc::clone(&node.forbidden);
        let listener = node.inside(|| TcpListener::bind((Ipv4Addr::LOCALHOST, FORBIDDEN)).unwrap());
        std::thread::spawn(move || {
            for _ in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        node
    }

    pub fn forbidden_connections(&self) -> usize {
        self.forbidden.load(Ordering::SeqCst)
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.inside(work)
    }

    /// The way to Services, which goes with the interface.
    fn route(&self) {
        self.netns
            .ip(&format!("route replace 10.96.0.0/24 via {SERVERS}"));
    }

    pub fn unplug(&self) {
        self.netns.ip("link set eth0 down");
    }

    pub fn plug(&self) {
        self.netns.ip("link set eth0 up");
        self.route();
    }

    pub fn state_folder(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A program within the limits of its manifest.
    fn limited(&self) -> Command {
        let mut command = Command::new("sh");
        let line = format!("echo $$ >\"$0\" && ulimit -n {FILES} && exec \"$@\"");
        command
            .args(["-c", &line])
            .arg(&self.cgroup)
            .arg(program())
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        command
    }

    /// The daemon; again with the state of the one before it.
    pub fn start_daemon(&self, text: &str, folder: &Arc<TempDir>) -> Daemon {
        let mut command = self.limited();
        command.arg("run");
        self.inside(|| Daemon::start_command(command, text, Arc::clone(folder)))
    }

    /// The cluster role, outside of the daemon's cgroup: it has limits of its own.
    pub fn start_cluster_role(&self, text: &str, folder: &Arc<TempDir>) -> Daemon {
        let mut command = Command::new(program());
        command.args(["cluster", "--identity", "chaos"]).env_clear();
        self.inside(|| Daemon::start_command(command, text, Arc::clone(folder)))
    }

    pub fn name(&self) -> &str {
        &self.netns.name
    }
}

/// Where both listen.
pub fn listens() -> String {
    format!("listen: '0.0.0.0:{PUBLIC}'\nadmin_listen: '127.0.0.1:{ADMIN}'\n")
}

pub fn cluster_listens() -> String {
    format!("listen: '0.0.0.0:{CLUSTER}'\n")
}

/// What is asked from within the node.
#[derive(Clone, Debug)]
pub struct Asker {
    netns: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Of {
    Public,
    Admin,
    Cluster,
}

impl Of {
    pub fn at(self, address: Ipv4Addr) -> SocketAddr {
        let port = match self {
            Self::Public => PUBLIC,
            Self::Admin => ADMIN,
            Self::Cluster => CLUSTER,
        };
        (address, port).into()
    }
}

impl Asker {
    pub fn new(node: &Node) -> Self {
        Self {
            netns: node.name().to_owned(),
        }
    }

    /// Status and body; none if there is no whole answer in time.
    pub fn ask(&self, of: Of, method: &str, path: &str) -> Option<(u16, String)> {
        let at = of.at(Ipv4Addr::LOCALHOST);
        inside(&self.netns, || request(at, method, path)).ok()
    }

    pub fn get(&self, of: Of, path: &str) -> Option<String> {
        let (status, body) = self.ask(of, "GET", path)?;
        (status == 200).then_some(body)
    }
}

/// Longer than the longest answer of a busy machine; a program that is stopped does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

fn request(at: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let is_chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if is_chunked {
        unchunked(body).ok_or(io::ErrorKind::UnexpectedEof)?
    } else {
        body.to_owned()
    };
    Ok((status, body))
}

/// `None`: it was cut off.
fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// KiB that are its own, of `VmRSS` without its program.
    pub own: u64,
    pub resident: u64,
    pub files: usize,
    pub threads: usize,
}

impl Usage {
    /// `None`: it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let value = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            own: value("RssAnon:")?,
            resident: value("VmRSS:")?,
            files: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
            threads: usize::try_from(value("Threads:")?).ok()?,
        })
    }
}

/// How long each thread of a process has waited for a CPU, in seconds (proc(5), `schedstat`).
pub fn run_delays(pid: u32) -> BTreeMap<u32, f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().filter_map(Result::ok);
    let delay = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanoseconds: f64 = text.split(' ').nth(1)?.parse().ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, nanoseconds / 1e9))
    };
    tasks.filter_map(delay).collect()
}
