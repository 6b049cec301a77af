//! A network namespace of a test's own, removed when dropped; those that a killed run left behind
//! are removed at the next start.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use super::process::{run, run_with};

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// The namespace, with `lo` up.
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "tests in network namespaces need root"
        );
        SWEEP.call_once(sweep);
        let name = format!(
            "pullpath-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        run(Command::new("ip").args(["netns", "add", &name]));
        let netns = Self { name };
        netns.ip("link set lo up");
        netns
    }

    /// `ip -n NAME …`, the words separated by blanks.
    pub fn ip(&self, words: &str) {
        run(Command::new("ip")
            .args(["-n", &self.name])
            .args(words.split(' ')));
    }

    /// Many lines for `ip` at once: a process for each would take longer than its work.
    pub fn ip_batch(&self, lines: &str) {
        run_with(
            Command::new("ip").args(["-n", &self.name, "-batch", "-"]),
            lines,
        );
    }

    /// Loads rules, which stay or go together.
    pub fn nft(&self, rules: &str) {
        run_with(self.command("nft").args(["-f", "-"]), rules);
    }

    /// Does something inside: sockets that it opens and programs that it starts stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.name, work)
    }

    /// A program with the fewest rights of a pod: as the user `nobody`, without capabilities or a way
    /// to get some.
    pub fn as_nobody(&self, program: &str) -> Command {
        let mut command = self.command("setpriv");
        Self::nobodys(&mut command, program);
        command
    }

    /// The same as process 1 of a process namespace, with a /proc of its own.
    pub fn as_nobody_in_a_new_container(&self, program: &str) -> Command {
        let mut command = self.command("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "setpriv"]);
        Self::nobodys(&mut command, program);
        command
    }

    fn nobodys(command: &mut Command, program: &str) {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args(["--inh-caps=-all", "--ambient-caps=-all"]);
        command.args(["--bounding-set=-all", "--no-new-privs", program]);
    }

    /// Runs a program inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// What programs of [`Self::command`] find as /etc/hosts (ip-netns(8)).
    pub fn hosts(&self, text: &str) {
        let folder = Path::new("/etc/netns").join(&self.name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("hosts"), text).unwrap();
    }

    pub fn sysctl(&self, setting: &str) {
        run(self.command("sysctl").args(["-q", "-w", setting]));
    }

    /// Adds a rule for packets that come in, where those to this machine's own addresses do too.
    pub fn filter(&self, rule: &str) {
        self.filter_at("input", rule);
    }

    /// Adds a rule at a hook of netfilter: `input`, `forward`, `output`.
    pub fn filter_at(&self, hook: &str, rule: &str) {
        let table = format!(
            "table inet t {{\nchain {hook} {{\ntype filter hook {hook} priority 0;\n{rule}\n}}\n}}\n"
        );
        run(self.command("nft").arg(table));
    }

    /// Takes all rules away.
    pub fn unfilter(&self) {
        run(self.command("nft").args(["flush", "ruleset"]));
    }

    /// Lays a cable to another namespace, with these addresses at its two ends.
    pub fn wire(&self, device: &str, here: &[&str], to: &Self, there: &[&str]) {
        for netns in [self, to] {
            // Duplicate address detection (RFC 4862, 5.4) would hold the addresses back for seconds.
            netns.sysctl("net.ipv6.conf.default.accept_dad=0");
        }
        let ends = [
            "netns", &self.name, "type", "veth", "peer", "name", device, "netns", &to.name,
        ];
        run(Command::new("ip").args(["link", "add", device]).args(ends));
        for (netns, addresses) in [(self, here), (to, there)] {
            for address in addresses {
                netns.ip(&format!("addr add {address} dev {device}"));
            }
            netns.ip(&format!("link set {device} up"));
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(&self.name));
    }
}

/// Does something on a thread of its own in the namespace of this name.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let netns = File::open(Path::new("/run/netns").join(name)).unwrap();
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    match std::thread::scope(|scope| scope.spawn(enter).join()) {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Removes namespaces whose test process is gone.
fn sweep() {
    let list = run(Command::new("ip").args(["netns", "list"]));
    for name in list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        if owner(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // Servers of a run that was killed live on; nothing else is in its namespaces. Another run
            // may do the same at this moment.
            let pids = Command::new("ip").args(["netns", "pids", name]).output();
            let pids = pids.map_or_else(|_| Vec::new(), |output| output.stdout);
            for pid in String::from_utf8_lossy(&pids)
                .lines()
                .filter_map(|pid| pid.trim().parse().ok())
            {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = Command::new("ip").args(["netns", "del", name]).status();
            let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(name));
        }
    }
}

/// The process that made a namespace of ours: `pullpath-PID-N`, the benchmark's `pullpath-bench-PID`.
pub fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("pullpath-")?;
    let rest = rest.strip_prefix("bench-").unwrap_or(rest);
    rest.split('-').next()?.parse().ok()
}
