//! Where chaos runs: mounts, network and processes of its own, and the cgroup of the daemon. All of it ends with process
//! 1 of the process namespace, whatever happens to the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What the manifest allows the daemon (deploy/base/node/daemonset.yaml).
pub const MEMORY: u64 = 96 << 20;
pub const FILES: u64 = 1024;

/// Bytes of the file system that has the state: a little more than `state_size`.
pub const DISK: u64 = 20 << 20;

/// Names of what is outside of the namespaces begin so, followed by the process that made it.
const PREFIX: &str = "pullpath-chaos-";

/// Set within the namespaces: the folder of all files, and the cgroup.
const FOLDER: &str = "PULLPATH_CHAOS_FOLDER";
const CGROUP: &str = "PULLPATH_CHAOS_CGROUP";

/// Network namespaces of other tests are not seen: /run is a new one.
const SETUP: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns "$1/state"
mount -t tmpfs -o "size=$2,mode=0700" tmpfs "$1/state"
shift 2
"$@"
exit $?
"#;

/// Runs `work` in the namespaces: this test program is started a second time there, for this test alone.
pub fn in_a_sandbox(test: &str, work: impl FnOnce(&Path, &Cgroup)) {
    if let (Some(folder), Some(cgroup)) = (std::env::var_os(FOLDER), std::env::var_os(CGROUP)) {
        work(Path::new(&folder), &Cgroup(PathBuf::from(cgroup)));
        return;
    }
    sweep(&std::env::temp_dir(), |folder| {
        let _ = fs::remove_dir_all(folder);
    });
    let folder = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir()
        .unwrap();
    let cgroup = Cgroup::new();
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--net",
            "--pid",
        ])
        .args(["--fork", "--kill-child", "--mount-proc", "--propagation"])
        .args(["private", "sh", "-c", SETUP, "sh"])
        .arg(folder.path())
        .arg(DISK.to_string())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder.path())
        .env(CGROUP, &cgroup.0)
        .env("TMPDIR", folder.path());
    let status = command.status().unwrap();
    cgroup.remove();
    assert!(status.success(), "in the sandbox: {status}");
}

/// A memory cgroup, of version 1 or 2.
pub struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchy = if root.join("memory/cgroup.procs").exists() {
            root.join("memory")
        } else {
            // Without it, a new cgroup has no memory controller.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            root.to_owned()
        };
        sweep(&hierarchy, |folder| {
            let _ = fs::remove_dir(folder);
        });
        let folder = hierarchy.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let cgroup = Self(folder);
        cgroup.limit(MEMORY);
        cgroup
    }

    fn is_version_1(&self) -> bool {
        self.0.join("memory.limit_in_bytes").exists()
    }

    fn limit(&self, bytes: u64) {
        let file = if self.is_version_1() {
            "memory.limit_in_bytes"
        } else {
            "memory.max"
        };
        fs::write(self.0.join(file), bytes.to_string()).unwrap();
    }

    /// The file that a process writes itself into.
    pub fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// How often the kernel has ended a process for lack of memory.
    pub fn kills(&self) -> u64 {
        let file = if self.is_version_1() {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        let text = fs::read_to_string(self.0.join(file)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap().trim().parse().unwrap()
    }

    /// The kernel may need a moment after the last process has ended.
    fn remove(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while fs::remove_dir(&self.0).is_err() && self.0.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Removes what runs that were killed left behind.
fn sweep(within: &Path, remove: impl Fn(&Path)) {
    for entry in fs::read_dir(within).unwrap().filter_map(Result::ok) {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let owner = rest.and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}
