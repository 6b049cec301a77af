//! A process of the lab: ready when it says so, gone when dropped, its log at hand when a test fails.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A server that runs as long as this value.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it, its output in `folder`.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{name} does not start: {error}; tests/run installs what is needed")
            });
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// Waits until this process itself listens on the TCP port, at most 15 s. That somebody does
    /// would not be enough: it may be a stranger who was there first.
    pub fn listening(mut self, port: u16) -> Self {
        let start = Instant::now();
        while !listens(self.child.id(), port) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < Duration::from_secs(15),
                "{} is not ready ({ended:?}):\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    pub fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!(
                "--- the end of {}'s log\n{}",
                self.name,
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// Whether a socket of the process listens on the port, in the network namespace it is in
/// (proc_pid_net(5)).
pub fn listens(pid: u32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let process = PathBuf::from(format!("/proc/{pid}"));
    let read = |file| std::fs::read_to_string(process.join(file)).unwrap_or_default();
    let ending = format!(":{port:04X}");
    let listening: Vec<String> = [read("net/tcp"), read("net/tcp6")]
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[1].ends_with(&ending) && fields[3] == LISTEN)
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .any(|target| {
            listening
                .iter()
                .any(|socket| target.as_os_str() == socket.as_str())
        })
}

/// Runs a command to its end, which must be a good one.
pub fn run(command: &mut Command) -> String {
    run_with(command, "")
}

/// The same, with a few lines on its standard input.
pub fn run_with(command: &mut Command, input: &str) -> String {
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs what is needed"));
    if let Some(mut stdin) = child.stdin.take() {
        // A process that ends early reports the reason itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
