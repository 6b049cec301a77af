//! The program under real limits of its own process: files, processes, time. It claims no failure of the registry for
//! them, whatever the limit stops first, and the same check without the limit finds the pull possible.
//!
//! ENFILE has no test with a real limit: fs.file-max is that of the whole machine, in no namespace, and does not hold for
//! root. It takes the same path as EMFILE, and `src/own.rs` and `src/model/own_limit.rs` have its tests.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod operated;
mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::Probe;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use operated::{Daemon, config, eventually, program, target};
use pullpath::diagnose::Pull;
use pullpath::report::Document;
use support::World;

/// The arguments of a probe with the world's settings.
fn arguments(world: &World) -> Vec<String> {
    let path = |file: std::path::PathBuf| file.to_str().unwrap().to_owned();
    let mut arguments: Vec<String> = [
        "probe",
        "-o",
        "json",
        "--timeout",
        "2s",
        "--transfer",
        "off",
        "--platform",
        "linux/amd64",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(world.reference());
    for (option, value) in [
        ("--nameserver", world.nameserver()),
        ("--hosts-file", path(world.write("hosts-empty", ""))),
        (
            "--resolv-conf",
            path(world.write("resolv-plain", "nameserver 127.0.0.1\n")),
        ),
        (
            "--containerd-config",
            path(world.write("containerd-empty.toml", "")),
        ),
        ("--ca-file", world.ca.file().to_str().unwrap().to_owned()),
        (
            "--secret-file",
            world.secret_file().to_str().unwrap().to_owned(),
        ),
    ] {
        arguments.extend([option.to_owned(), value]);
    }
    arguments
}

/// The report, if the program could make one: it may not even start.
fn document(output: &std::process::Output) -> Option<Document> {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("panicked"), "{text}");
    serde_json::from_slice(&output.stdout).ok()
}

/// The first phase that did not run for a limit; empty if it was a file.
fn stopped(document: &Document) -> String {
    let text = serde_json::to_value(&document.reports[0]).unwrap();
    let walk = &text["evidence"];
    let legs = walk["legs"].as_array().unwrap().iter();
    let of_legs = legs.flat_map(|leg| {
        let role = leg["role"].as_str().unwrap();
        ["resolve", "connect", "tls"]
            .map(|phase| (format!("{role} {phase}"), &leg[phase]["outcome"]))
    });
    let others = ["manifest", "blob"].map(|phase| (phase.to_owned(), &walk[phase]));
    let mut all = of_legs.chain(others);
    let is_own = |step: &serde_json::Value| step.to_string().contains("own_limit");
    all.find(|(_, step)| is_own(step))
        .map(|(name, _)| name)
        .unwrap_or_default()
}

fn codes(document: &Document) -> Vec<&'static str> {
    let findings = document.reports[0].verdict.findings.iter();
    findings.map(|finding| finding.cause.code()).collect()
}

/// Each number of open files, so that each edge is the first that has none left: settings, certificates, the Secret,
/// the runtime, DNS, connections to each of the three servers.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_open_files_are_no_failure_of_a_pull() {
    let world = World::healthy().await;
    let arguments = arguments(&world);
    let (mut unknown, mut succeeded) = (0, 0);
    let mut phases = std::collections::BTreeSet::new();
    for files in 3..48 {
        let line = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        let arguments = arguments.clone();
        let output = tokio::task::spawn_blocking(move || {
            Command::new("sh")
                .args(["-c", &line])
                .arg(program())
                .args(arguments)
                .env_clear()
                .env("HOME", "/nonexistent")
                .stdin(Stdio::null())
                .output()
                .unwrap()
        })
        .await
        .unwrap();
        let Some(document) = no_failure(&format!("{files} files"), &output) else {
            continue;
        };
        let verdict = &document.reports[0].verdict;
        let codes = codes(&document);
        match verdict.pull {
            Pull::WouldSucceed => succeeded += 1,
            Pull::Unknown => {
                assert_eq!(codes[0], "own_limits", "{files}: {codes:?}");
                phases.insert(stopped(&document));
                assert_eq!(output.status.code(), Some(2));
                unknown += 1;
            }
            Pull::WouldFail => unreachable!("{codes:?}"),
        }
    }
    assert!(
        unknown >= 3 && succeeded >= 3,
        "{unknown} unknown at {phases:?}, {succeeded} succeeded"
    );
}

/// No verdict of a healthy registry is that a pull would fail. The report, if there is one.
fn no_failure(what: &str, output: &std::process::Output) -> Option<Document> {
    let Some(document) = document(output) else {
        // It says so, and that is no verdict.
        assert_ne!(output.status.code(), Some(1), "{what}: {output:?}");
        return None;
    };
    let pull = document.reports[0].verdict.pull;
    assert_ne!(pull, Pull::WouldFail, "{what}: {:?}", codes(&document));
    Some(document)
}

/// Each size of the address space, so that each allocation and each thread's stack is the first that gets none.
#[tokio::test(flavor = "multi_thread")]
async fn too_little_memory_is_no_failure_of_a_pull() {
    let world = World::healthy().await;
    let (mut without, mut succeeded) = (0, 0);
    for mib in [
        16, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512, 4096,
    ] {
        let bytes = mib << 20;
        let output = tokio::process::Command::new("prlimit")
            .arg(format!("--as={bytes}:{bytes}"))
            .arg(program())
            .args(arguments(&world))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let document = no_failure(&format!("{mib} MiB"), &output);
        match document.map(|document| document.reports[0].verdict.pull) {
            Some(Pull::WouldSucceed) => succeeded += 1,
            _ => without += 1,
        }
    }
    assert!(without >= 1 && succeeded >= 1, "{without} {succeeded}");
}

/// A CPU quota of its own for one program: cgroup v2's `cpu.max`, or v1's `cpu.cfs_quota_us`.
struct CpuQuota {
    folder: PathBuf,
}

impl CpuQuota {
    fn new(quota: u64, period: u64) -> Self {
        let of_v1 = Path::new("/sys/fs/cgroup/cpu");
        let is_v1 = of_v1.join("cpu.cfs_quota_us").exists() || of_v1.join("cgroup.procs").exists();
        let root = if is_v1 {
            of_v1
        } else {
            let root = Path::new("/sys/fs/cgroup");
            // It may be enabled already.
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+cpu");
            root
        };
        let name = format!("pullpath-cpu-{}-{quota}-{period}", std::process::id());
        let folder = root.join(name);
        std::fs::create_dir(&folder).unwrap();
        let set = |file: &str, value: String| std::fs::write(folder.join(file), value).unwrap();
        if is_v1 {
            set("cpu.cfs_period_us", period.to_string());
            set("cpu.cfs_quota_us", quota.to_string());
        } else {
            set("cpu.max", format!("{quota} {period}"));
        }
        Self { folder }
    }

    /// How often the program was stopped by it.
    fn throttled(&self) -> u64 {
        let text = std::fs::read_to_string(self.folder.join("cpu.stat")).unwrap();
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("nr_throttled "));
        count.unwrap().parse().unwrap()
    }
}

impl Drop for CpuQuota {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// Quotas of a few percent stop the program for up to a second at a time, in every phase.
#[tokio::test(flavor = "multi_thread")]
async fn a_cpu_quota_is_no_failure_of_a_pull() {
    let world = World::healthy().await;
    for (quota, period) in [(20_000, 1_000_000), (60_000, 1_000_000), (5000, 100_000)] {
        let cgroup = CpuQuota::new(quota, period);
        let enter = format!(
            "echo $$ >{}/cgroup.procs; exec \"$0\" \"$@\"",
            cgroup.folder.display()
        );
        let output = tokio::process::Command::new("sh")
            .args(["-ec", &enter])
            .arg(program())
            .args(arguments(&world))
            .env_clear()
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_mins(10), output).await;
        let output = output.unwrap().unwrap();
        let document = no_failure(&format!("{quota} of {period} us"), &output);
        let verdict = document.unwrap().reports.remove(0).verdict;
        if verdict.pull == Pull::Unknown {
            assert_eq!(verdict.findings[0].cause.code(), "own_limits");
        }
        assert!(cgroup.throttled() > 0, "{quota} of {period} us");
    }
}

/// A credential helper that can't be started for the limit of processes. (root has no such limit.)
#[tokio::test(flavor = "multi_thread")]
async fn no_process_for_a_helper_is_no_missing_credential() {
    let world = World::healthy().await;
    let helper = world.write("docker-credential-test", "#!/bin/sh\necho '{}'\n");
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let folder = helper.parent().unwrap().to_owned();
    let helpers = format!(
        r#"{{"credHelpers": {{"{}": "test"}}}}"#,
        world.registry_host()
    );
    let docker_config = world.write("helpers.json", &helpers);
    let mut arguments = arguments(&world);
    let at = arguments
        .iter()
        .position(|one| one == "--secret-file")
        .unwrap();
    arguments.drain(at..at + 2);
    arguments.extend([
        "--docker-config".to_owned(),
        docker_config.to_str().unwrap().to_owned(),
    ]);
    // A user of its own, whose only process this is: one thread beside its own may start.
    let capabilities = "+dac_override,+dac_read_search";
    let output = tokio::process::Command::new("prlimit")
        .args(["--nproc=2:2", "setpriv", "--reuid=64321", "--clear-groups"])
        .args(["--inh-caps", capabilities, "--ambient-caps", capabilities])
        .arg(program())
        .args(&arguments)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    if let Some(document) = no_failure("one process", &output) {
        let codes = codes(&document);
        assert!(codes.contains(&"own_limits"), "{codes:?}");
    }
}

/// The program is stopped for longer than its timeout in the middle of a check, at several moments.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_run_sees_no_silence() {
    let world = World::healthy().await;
    for moment in [5, 20, 60, 150] {
        let mut command = tokio::process::Command::new(program());
        command
            .args(arguments(&world))
            .env_clear()
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = command.spawn().unwrap();
        let id = Pid::from_raw(child.id().unwrap().try_into().unwrap());
        tokio::time::sleep(Duration::from_millis(moment)).await;
        // It may have ended already.
        let _ = kill(id, Signal::SIGSTOP);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let _ = kill(id, Signal::SIGCONT);
        let output = child.wait_with_output().await.unwrap();
        let document = document(&output).unwrap();
        let verdict = &document.reports[0].verdict;
        assert_ne!(
            verdict.pull,
            Pull::WouldFail,
            "{moment} ms: {:?}",
            codes(&document)
        );
    }
    // And it still finds what does not depend on time.
    let absent = format!("{}/team/absent:1", world.registry_host());
    let outcome = Probe::of(&world).reference(&absent).run().await;
    assert_eq!(outcome.report().verdict.pull, Pull::WouldFail);
}

/// A daemon with few files: the check is unknown, a metric counts it, and with files again it finds the pull possible.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_counts_what_its_limits_stopped() {
    let world = World::healthy().await;
    let (line, _) = target(&world, "app", support::PASSWORD);
    let daemon = Daemon::start(&config(&world, &line, ""));
    let id = daemon.child.id();
    let own = |limit: &str| {
        let series = format!("pullpath_own_limits_total{{limit=\"{limit}\"}}");
        daemon.metrics().value(&series)
    };
    assert_eq!(own("open_files"), Some(0.0));
    // What the request itself needs, and not what the check does.
    let limit = |files: usize| {
        let files = format!("--nofile={files}:");
        let set = Command::new("prlimit")
            .args(["--pid", &id.to_string(), &files])
            .status();
        assert!(set.unwrap().success());
    };
    let mut unknown = 0;
    // The most first, so that the newest check is one that a limit stopped.
    for more in (3..16).rev() {
        let held = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        limit(held + more);
        let document = daemon.check("app", "reach");
        limit(1024);
        let codes = codes(&document);
        match document.reports[0].verdict.pull {
            Pull::WouldSucceed => {}
            Pull::Unknown => {
                assert_eq!(codes[0], "own_limits", "{more}: {codes:?}");
                unknown += 1;
            }
            Pull::WouldFail => panic!("{more} more files: {codes:?}"),
        }
    }
    assert!(unknown >= 1, "{unknown}");
    assert!(own("open_files") >= Some(f64::from(unknown)));
    let metrics = daemon.metrics();
    assert_eq!(
        metrics.value("pullpath_consecutive_failures{target=\"app\"}"),
        Some(0.0)
    );
    assert!(metrics.with("pullpath_pull_ready").is_empty());
    eventually("a check that finds the pull possible", || {
        daemon.check("app", "reach").reports[0].verdict.pull == Pull::WouldSucceed
    });
}
