//! A network namespace of a test's own, removed when dropped; those that a killed run left behind
//! are removed at the next start.

use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::run;

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

    /// Runs a program inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    pub fn sysctl(&self, setting: &str) {
        run(self.command("sysctl").args(["-q", "-w", setting]));
    }

    /// Adds a rule for packets that come in, where those to this machine's own addresses do too.
    pub fn filter(&self, rule: &str) {
        let table = format!(
            "table inet t {{\nchain c {{\ntype filter hook input priority 0;\n{rule}\n}}\n}}\n"
        );
        run(self.command("nft").arg(table));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Removes namespaces whose test process is gone.
fn sweep() {
    let list = run(Command::new("ip").args(["netns", "list"]));
    for name in list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        let Some(pid) = name
            .strip_prefix("pullpath-")
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if !std::path::Path::new("/proc").join(pid).exists() {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}
