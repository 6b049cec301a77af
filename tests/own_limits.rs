//! The program under real limits of its own process: files, processes, time. It claims no failure of the registry for
//! them, whatever the limit stops first, and the same check without the limit finds the pull possible.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod operated;
mod support;

use std::os::unix::fs::PermissionsExt as _;
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
        let Some(document) = document(&output) else {
            // It says so, and that is no verdict.
            assert_ne!(output.status.code(), Some(1), "{files}: {output:?}");
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
            Pull::WouldFail => panic!("{files} files: {codes:?}"),
        }
    }
    assert!(
        unknown >= 3 && succeeded >= 3,
        "{unknown} unknown at {phases:?}, {succeeded} succeeded"
    );
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
    if let Some(document) = document(&output) {
        let codes = codes(&document);
        assert_ne!(
            document.reports[0].verdict.pull,
            Pull::WouldFail,
            "{codes:?}"
        );
        assert!(codes.contains(&"own_limits"), "{codes:?}");
    } else {
        assert_ne!(output.status.code(), Some(1), "{output:?}");
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
    let held = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
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
    for more in (2..16).rev() {
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
    assert!(unknown >= 2, "{unknown}");
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
