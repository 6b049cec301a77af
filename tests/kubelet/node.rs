//! A node with a real kubelet and containerd, in namespaces of its own: mounts, network, processes, cgroups. The
//! test runs in them as well, beside the API server and the registries. All of it ends with process 1 of the
//! process namespace, whatever happens to the test.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kube::{Cluster, built, kubelet_of};
use crate::lab::process::{Process, run};
use crate::servers::{LOOPBACK, NODE_ADDRESS};

/// The node's name.
pub const NODE: &str = "node-a";

/// Names of what is outside of the namespaces begin so, followed by the process that made it.
const PREFIX: &str = "pullpath-kubelet-";

/// Set within the namespaces: the folder of all files.
const INSIDE: &str = "PULLPATH_KUBELET_FOLDER";

/// The machine's: trixie's needs a newer C library.
const RUNC: &str = "/usr/sbin/runc";

const SOCKET: &str = "/run/containerd/containerd.sock";

/// What the namespaces need before anything starts. /etc and /var are the machine's, and what is written there is
/// below the folder: nothing reaches the machine. The shell stays, because process 1 has to reap.
const SETUP: &str = r#"
set -e
folder=$1; cgroup=$2; shift 2
mount --make-rshared /
mount -t tmpfs tmpfs /run
for name in etc var; do
  mkdir -p "$folder/$name" "$folder/$name.work"
  mount -t overlay overlay -o "lowerdir=/$name,upperdir=$folder/$name,workdir=$folder/$name.work" "/$name"
done
rm -rf /var/log/pods /var/log/containers /var/lib/kubelet
mkdir -p /var/lib/kubelet "$folder/kubelet" /etc/containerd/certs.d /etc/systemd/system
mount --bind "$folder/kubelet" /var/lib/kubelet
for path in /sys/fs/cgroup/*/"$cgroup"; do
  mount --bind "$path" "${path%/*}"
done
ip link set lo up
"$@"
exit $?
"#;

/// Runs `work` in the namespaces: this test program is started a second time there, for this test alone.
pub fn on_a_node(test: &str, work: impl FnOnce(&Path)) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        work(Path::new(&folder));
        return;
    }
    // What cargo makes, before the network is gone.
    let program = run(&mut Command::new("tests/shipped/static"));
    sweep(&std::env::temp_dir(), |folder| {
        fs::remove_dir_all(folder).is_ok()
    });
    let folder = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir()
        .unwrap();
    let cgroups = Cgroups::new();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "sh", "-ec", &cgroups.enter(), "sh"])
        .args(["unshare", "--mount", "--net", "--pid", "--cgroup", "--fork"])
        .args(["--kill-child", "--mount-proc", "--propagation", "private"])
        .args(["sh", "-c", SETUP, "sh"])
        .arg(folder.path())
        .arg(&cgroups.name)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, folder.path())
        .env("TMPDIR", folder.path())
        .env("PULLPATH_PROGRAM", program.trim());
    let status = command.status().unwrap();
    drop(cgroups);
    assert!(status.success(), "on the node: {status}");
    let path = folder.path().to_owned();
    folder.close().unwrap();
    assert!(!path.exists());
}

/// A cgroup of the node's own in each hierarchy, gone with this.
struct Cgroups {
    name: String,
    folders: Vec<PathBuf>,
}

impl Cgroups {
    fn new() -> Self {
        let name = format!("{}{}", PREFIX, std::process::id());
        let hierarchies: Vec<PathBuf> = fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir() && path.join("cgroup.procs").exists())
            .collect();
        for hierarchy in &hierarchies {
            sweep(hierarchy, remove);
        }
        let folders: Vec<PathBuf> = hierarchies.iter().map(|path| path.join(&name)).collect();
        for folder in &folders {
            // Two names may be one hierarchy.
            if let Err(error) = fs::create_dir(folder) {
                assert_eq!(
                    error.kind(),
                    ErrorKind::AlreadyExists,
                    "{}",
                    folder.display()
                );
            }
            // A new cpuset has no CPU.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = fs::read_to_string(folder.with_file_name(file)) {
                    fs::write(folder.join(file), all).unwrap();
                }
            }
        }
        Self { name, folders }
    }

    /// A line of shell that enters them and runs its arguments.
    fn enter(&self) -> String {
        let lines = self.folders.iter();
        let lines: Vec<String> = lines
            .map(|folder| format!("echo $$ >{}/cgroup.procs\n", folder.display()))
            .collect();
        format!("{}exec \"$@\"", lines.concat())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(20);
        // The kernel may need a moment after the last process has ended.
        while !self.folders.iter().all(|folder| remove(folder)) {
            if Instant::now() > end {
                eprintln!("cgroups {} stay", self.name);
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Removes folders of runs that were killed.
fn sweep(within: &Path, remove: impl Fn(&Path) -> bool) {
    for entry in fs::read_dir(within).unwrap().filter_map(Result::ok) {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let owner = rest.and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}

/// Whether it is gone, with all in it.
fn remove(cgroup: &Path) -> bool {
    let Ok(entries) = fs::read_dir(cgroup) else {
        return !cgroup.exists();
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

/// The kubelet and its runtime; they may be stopped and started again.
pub struct Node {
    folder: PathBuf,
    kubeconfig: PathBuf,
    runtime: Option<Process>,
    kubelet: Option<Process>,
}

impl Node {
    /// Starts both, and waits until the API server knows the node as ready.
    pub fn start(folder: &Path, cluster: &Cluster, sandbox: &str) -> Self {
        let mut node = Self {
            folder: folder.to_owned(),
            kubeconfig: cluster.kubeconfig(&kubelet_of(NODE)),
            runtime: None,
            kubelet: None,
        };
        fs::create_dir_all("/etc/cni/net.d").unwrap();
        let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]],
                          "routes": [{"dst": "0.0.0.0/0"}], "dataDir": folder.join("addresses")});
        let network = json!({"cniVersion": "0.4.0", "name": "lab", "plugins": [{"type": "ptp", "ipam": ipam}]});
        fs::write("/etc/cni/net.d/10-lab.conflist", network.to_string()).unwrap();
        node.start_runtime(sandbox, true);
        node.start_kubelet();
        node.wait_until_ready(cluster);
        node
    }

    /// containerd of Debian's trixie, the newest that this kubelet can talk to. Without `config_path` no
    /// hosts.toml is read.
    pub fn start_runtime(&mut self, sandbox: &str, reads_hosts: bool) {
        let root = runtime_root();
        let folder = self.folder.display();
        let cri = "[plugins.\"io.containerd.grpc.v1.cri\"";
        let certs = if reads_hosts {
            "/etc/containerd/certs.d"
        } else {
            ""
        };
        let text = format!(
            "version = 2\nroot = \"{folder}/containerd\"\nstate = \"/run/containerd\"\n[grpc]\n  address = \"{SOCKET}\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{folder}/opt\"\n\
             {cri}]\n  sandbox_image = \"{sandbox}\"\n  restrict_oom_score_adj = true\n\
             {cri}.cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"/etc/cni/net.d\"\n\
             {cri}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
             {cri}.containerd.runtimes.runc.options]\n  BinaryName = \"{RUNC}\"\n\
             {cri}.registry]\n  config_path = \"{certs}\"\n"
        );
        let path = Path::new("/etc/containerd/config.toml");
        if fs::read_to_string(path).is_ok_and(|before| before == text) {
            // Unchanged, also in its times.
        } else {
            fs::write(path, text).unwrap();
        }
        let binaries = root.join("usr/bin");
        let search = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(binaries.join("containerd"));
        command.arg("--config").arg(path).env("PATH", search);
        self.runtime = Some(Process::start("containerd", &mut command, &self.folder));
        let start = Instant::now();
        while !self
            .log("containerd")
            .contains("containerd successfully booted")
        {
            assert!(
                start.elapsed() < Duration::from_mins(1),
                "{}",
                self.log("containerd")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Containers keep running.
    pub fn stop_runtime(&mut self) {
        self.runtime = None;
    }

    pub fn start_kubelet(&mut self) {
        let config = self.folder.join("kubelet.yaml");
        let off: [&str; 0] = [];
        let text = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            // The machine's swap and cgroups are not the node's.
            "failSwapOn": false, "cgroupDriver": "cgroupfs", "cgroupsPerQOS": false, "enforceNodeAllocatable": off,
            "featureGates": {"LocalStorageCapacityIsolation": false, "KubeletCredentialProviders": true},
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "makeIPTablesUtilChains": false,
            // As of newer releases. With 5 a second, Secrets of many pods arrive too late for their first pulls.
            "kubeAPIQPS": 50, "kubeAPIBurst": 100,
            // However full the machine's disk is.
            "evictionHard": {"memory.available": "1Mi"}, "imageGCHighThresholdPercent": 100,
        });
        fs::write(&config, text.to_string()).unwrap();
        let mut command = Command::new(built("kubelet"));
        command
            .arg("--config")
            .arg(&config)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--container-runtime", "remote"])
            .args(["--container-runtime-endpoint", &format!("unix://{SOCKET}")])
            .args(["--hostname-override", NODE, "--node-ip", NODE_ADDRESS])
            .args(["--image-credential-provider-config", PROVIDERS])
            .arg("--image-credential-provider-bin-dir")
            .arg(provider(&self.folder))
            .arg("--cert-dir")
            .arg(self.folder.join("kubelet-pki"));
        self.kubelet = Some(Process::start("kubelet", &mut command, &self.folder));
    }

    /// Containers keep running.
    pub fn stop_kubelet(&mut self) {
        self.kubelet = None;
    }

    pub fn wait_until_ready(&self, cluster: &Cluster) {
        let start = Instant::now();
        let is_ready = || {
            // The Node is as it was before a restart; a port-forward needs the kubelet's own port.
            std::net::TcpStream::connect(("127.0.0.1", 10250)).ok()?;
            let path = format!("/api/v1/nodes/{NODE}");
            let node = cluster.curl(crate::kube::ADMIN, "GET", &path, None)?.1;
            let conditions = node["status"]["conditions"].as_array()?.clone();
            let ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
            Some(conditions.iter().any(ready))
        };
        while is_ready() != Some(true) {
            assert!(
                start.elapsed() < Duration::from_mins(3),
                "the node is not ready:\n{}",
                self.log("kubelet")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// `ctr` for the kubelet's images and tasks.
    pub fn ctr(words: &str) -> String {
        let mut command = Command::new(runtime_root().join("usr/bin/ctr"));
        command.args(["--address", SOCKET, "--namespace", "k8s.io"]);
        run(command.args(words.split(' ')))
    }
}

/// containerd of trixie, unpacked.
fn runtime_root() -> PathBuf {
    static ROOT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let find = || {
        let lines = run(&mut Command::new("tests/oracle/runtimes"));
        let mut all = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let one = all.find(|one| one["suite"] == "trixie").unwrap();
        PathBuf::from(one["root"].as_str().unwrap())
    };
    ROOT.get_or_init(find).clone()
}

/// Where the kubelet reads which credential providers there are; the daemon sees this folder.
const PROVIDERS: &str = "/etc/containerd/credential-providers.yaml";

/// Images that the credential provider has an answer for.
pub const PROVIDED: &str = "prov.lab.test";

/// A credential provider that knows the password of one registry; its folder.
fn provider(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let name = "lab-provider";
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1alpha1", "kind": "CredentialProviderConfig",
        "providers": [{"name": name, "matchImages": [PROVIDED], "defaultCacheDuration": "1m",
                       "apiVersion": "credentialprovider.kubelet.k8s.io/v1alpha1"}]});
    if !Path::new(PROVIDERS).exists() {
        fs::write(PROVIDERS, config.to_string()).unwrap();
    }
    let answer = json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1alpha1", "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry", "cacheDuration": "1m",
        "auth": {PROVIDED: {"username": crate::stack::USER, "password": crate::stack::PASSWORD}}});
    let here = folder.join("providers");
    fs::create_dir_all(&here).unwrap();
    let program = here.join(name);
    fs::write(
        &program,
        format!("#!/bin/sh\ncat >/dev/null\necho '{answer}'\n"),
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    here
}

/// The image of every pod's sandbox.
pub fn sandbox() -> String {
    format!("{LOOPBACK}/lab/pause:1")
}
