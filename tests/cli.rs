//! The command line as a user meets it: help, errors, the text of a report, exit statuses, the
//! documents that it prints.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod support;

use std::process::{Command, Output, Stdio};

use harness::{Probe, probe};
use pullpath::report::Document;
use pullpath::report::text::{self, Style};
use support::pki::Flaw;
use support::{AUTH, REGISTRY, USER, World};

fn pullpath(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullpath"));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What differs from one run to the next, made alike.
fn settled() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    // An instant may be broken over two lines.
    settings.add_filter(r"\d{4}-\d\d-\d\d\s+\d\d:\d\d:\d\d\s+UTC", "[instant]");
    settings.add_filter(r"(registry|auth|blobs)\.test:\d+", "$1.test:[port]");
    settings.add_filter(r"127\.0\.0\.1:\d+", "127.0.0.1:[port]");
    settings.add_filter(r"port \d{4,5}\b", "port [port]");
    settings.add_filter(r" {2,}\d+(\.\d)? (µs|ms|s) ", "  [took] ");
    settings.add_filter(r"\b\d+(\.\d)? (µs|ms)\b", "[took]");
    settings.add_filter(r"SHA-256 [0-9a-f]+", "SHA-256 [digest]");
    settings.add_filter(r"sha256:[0-9a-f]+", "sha256:[digest]");
    settings.add_filter(r"MSS \d+", "MSS [mss]");
    settings.add_filter(r"\b\d+ days left", "[days] days left");
    settings.bind_to_scope()
}

#[test]
fn the_help_is_as_reviewed() {
    for (name, args) in [
        ("help", &["--help"][..]),
        ("help-probe", &["probe", "--help"]),
        ("help-explain", &["explain", "--help"]),
    ] {
        let output = pullpath(args);
        assert_eq!(output.status.code(), Some(0));
        let text = stdout(&output);
        let _settings = settled();
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn the_version_names_the_commit() {
    let text = stdout(&pullpath(&["--version"]));
    assert!(
        text.starts_with(&format!("pullpath {} (commit ", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
}

#[test]
fn every_shell_gets_a_completion() {
    for shell in ["bash", "zsh", "fish"] {
        let text = stdout(&pullpath(&["completions", shell]));
        assert!(
            text.contains("nameserver") && text.contains("explain"),
            "{shell}"
        );
    }
}

#[test]
fn what_is_no_saved_report_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let case = std::fs::read_to_string("tests/cases/healthy/report.json").unwrap();
    let later = case.replacen("\"schema_version\": 2", "\"schema_version\": 9", 1);
    let cut = &case[..case.len() / 2];
    for (text, want) in [
        ("kind: Secret", "at line 1 column 1"),
        ("{}", "missing field `schema_version`"),
        (
            "{\"schema_version\":1,\"pullpath\":{\"version\":\"\",\"commit\":\"\"},\"reports\":[]}",
            "has no report",
        ),
        (
            later.as_str(),
            "has schema_version 9, but this program reads 1",
        ),
        (cut, "EOF while parsing"),
    ] {
        let path = write("report.json", text);
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_pullpath"))
            .arg("replay")
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(2), "{said}");
        assert!(
            said.contains(want) && said.contains("report.json"),
            "{said}"
        );
        assert!(run.stdout.is_empty());
    }
}

#[test]
fn a_report_of_anybody_moves_no_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let case = std::fs::read_to_string("tests/cases/all_hosts_fail/report.json").unwrap();
    for (was, is) in [
        ("manifest unknown", "manifest \\u001b[2Junknown"),
        (
            "/etc/pullpath/secret.yaml",
            "/etc/\\u001b]0;x\\u0007secret.yaml",
        ),
    ] {
        assert!(case.contains(was));
        std::fs::write(&path, case.replace(was, is)).unwrap();
        let text = pullpath(&["replay", path.to_str().unwrap()]).stdout;
        assert!(!text.is_empty());
        assert!(!text.contains(&0x1b) && !text.contains(&0x07), "{was}");
    }
}

#[test]
fn the_schema_in_the_documentation_is_the_programs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/report.schema.json");
    let schema = stdout(&pullpath(&["schema"]));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &schema).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == schema,
        "docs/report.schema.json differs; UPDATE_DOCS=1 cargo test writes it"
    );
}

#[test]
fn explain_lists_explains_and_helps_with_a_mistyped_code() {
    let list = stdout(&pullpath(&["explain"]));
    assert!(list.contains("tls_unknown_ca") && list.contains("not detected by this version"));
    let entry = stdout(&pullpath(&["explain", "TLS-UNKNOWN-CA"]));
    assert!(
        entry.contains("x509: certificate signed by unknown authority"),
        "{entry}"
    );
    let output = pullpath(&["explain", "tls_unkown_ca"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("tls_unknown_ca"),
        "{}",
        stderr(&output)
    );
    assert_eq!(stdout(&output), "");
}

#[test]
fn explain_takes_an_error_text_from_arguments_an_option_or_standard_input() {
    use std::io::Write as _;

    const TEXT: &str = "Failed to pull image \"r.example.com/a:1\": rpc error: code = Unknown desc = failed to do request: Head \"https://r.example.com/v2/a/manifests/1\": dial tcp 10.0.0.9:443: i/o timeout";
    let piped = |text: &str, args: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pullpath"))
            .env_clear()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A text that is too long is not read to its end.
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        child.wait_with_output().unwrap()
    };
    let words: Vec<&str> = std::iter::once("explain").chain(TEXT.split(' ')).collect();
    for output in [
        pullpath(&["explain", TEXT]),
        pullpath(&["explain", "--text", TEXT]),
        pullpath(&words),
        piped(TEXT, &["explain", "-"]),
    ] {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output);
        for part in [
            "tcp_timeout  confidence high",
            "host: r.example.com",
            "prove it on the node: pullpath probe r.example.com/a:1",
            "more: pullpath explain tcp_timeout",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    let document =
        |output: &Output| -> serde_json::Value { serde_json::from_str(&stdout(output)).unwrap() };
    let named = document(&pullpath(&["explain", "--text", TEXT, "-o", "json"]));
    assert_eq!(named["cause"], "tcp_timeout");
    assert_eq!(named["alternatives"], serde_json::json!([]));
    assert_eq!(named["confidence"], "high");
    assert_eq!(named["leg"], "registry");
    assert_eq!(named["probe"], "pullpath probe r.example.com/a:1");
    assert_eq!(named["more"], serde_json::json!([]));

    let node = pullpath(&[
        "explain",
        "failed to register layer: operation not permitted",
        "-o",
        "json",
    ]);
    let node = document(&node);
    assert_eq!(node["cause"], "node_storage");
    assert_eq!(
        (&node["on_node"], &node["probe"]),
        (&true.into(), &serde_json::Value::Null)
    );

    let unnamed = pullpath(&["explain", "hello world", "-o", "json"]);
    assert_eq!(unnamed.status.code(), Some(2));
    let unnamed = document(&unnamed);
    for field in ["cause", "confidence", "leg", "host", "image", "probe"] {
        assert_eq!(unnamed[field], serde_json::Value::Null, "{field}");
    }

    let state = pullpath(&["explain", "ImagePullBackOff"]);
    assert_eq!(state.status.code(), Some(2));
    assert!(
        stdout(&state).contains("pullpath why POD"),
        "{}",
        stdout(&state)
    );

    for (text, error) in [("", "the text is empty"), (" \n", "the text is empty")] {
        let output = piped(text, &["explain", "-"]);
        assert_eq!(
            (output.status.code(), stdout(&output)),
            (Some(2), String::new())
        );
        assert!(stderr(&output).contains(error), "{}", stderr(&output));
    }
    let long = piped(&"x".repeat(300 * 1024), &["explain", "-"]);
    assert_eq!(long.status.code(), Some(2));
    assert!(stderr(&long).contains("256 KiB"), "{}", stderr(&long));
}

#[test]
fn what_cannot_be_run_is_reported_on_stderr_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent").display().to_string();
    let junk = folder.path().join("junk");
    std::fs::write(&junk, "nothing\n").unwrap();
    let junk = junk.display().to_string();
    for (args, words) in [
        (vec!["probe"], vec!["REFERENCE"]),
        (vec!["probe", "https://registry.test/app"], vec!["https://"]),
        (vec!["probe", "Registry.test/App"], vec!["App"]),
        (
            vec!["probe", "app", "--nameserver", "registry.test"],
            vec!["--nameserver", "registry.test"],
        ),
        (
            vec!["probe", "app", "--resolve", "registry.test"],
            vec!["HOST:PORT:ADDR"],
        ),
        (
            vec!["probe", "app", "--timeout", "0s"],
            vec!["--timeout", "between"],
        ),
        (
            vec!["probe", "app", "--platform", "amd64"],
            vec!["os/architecture"],
        ),
        (vec!["probe", "app", "-4", "-6"], vec!["cannot be used"]),
        (
            vec!["probe", "app", "--username", "me"],
            vec!["--password-stdin"],
        ),
        (
            vec!["probe", "app", "--username", "me", "--password-stdin"],
            vec!["empty"],
        ),
        (
            vec!["probe", "app", "--ca-file", &absent],
            vec!["--ca-file", &absent],
        ),
        (
            vec!["probe", "app", "--ca-file", &junk],
            vec!["--ca-file", &junk, "BEGIN CERTIFICATE"],
        ),
        (
            vec!["probe", "app", "--secret-file", &absent],
            vec!["--secret-file", &absent],
        ),
        (
            vec!["probe", "app", "--docker-config", &absent],
            vec!["--docker-config", &absent],
        ),
        (vec!["nonsense"], vec!["nonsense"]),
    ] {
        let output = pullpath(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(stdout(&output), "", "{args:?}");
        let said = stderr(&output);
        for word in words {
            assert!(
                said.contains(word),
                "{args:?} says nothing of {word}:\n{said}"
            );
        }
    }
}

/// After an upgrade, a ConfigMap of the version before it ends the cluster role, and the daemon, at once.
#[test]
fn a_configuration_of_an_older_version_ends_the_program_with_the_line_and_the_fix() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("pullpath.yaml");
    for (role, text, says) in [
        (
            "cluster",
            "listen: \":9797\"\ncluster:\n  lint: \"on\"\n  most_pairs: 500\n",
            "line 4 column 3: cluster.most_pairs was renamed to cluster.max_pairs",
        ),
        (
            "run",
            "kubernetes:\n  most_targets: 9\n",
            "line 2 column 3: kubernetes.most_targets was renamed to kubernetes.max_targets",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = pullpath(&[role, "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        let printed = stderr(&output);
        for words in [says, "pullpath.yaml"] {
            assert!(printed.contains(words), "{words}: {printed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_reads_as_reviewed() {
    let world = World::healthy().await;
    let healthy = probe(&world).await.text();
    world
        .tokens
        .server
        .set_tls(Some(world.config(AUTH, Flaw::Expired)));
    let expired = probe(&world).await.text();
    let secret = world.write(
        "mismatch.yaml",
        &World::secret(REGISTRY, USER, "canary-7f3a9c"),
    );
    world
        .tokens
        .server
        .set_tls(Some(world.config(AUTH, Flaw::None)));
    let anonymous = Probe::of(&world).anonymous();
    let mismatch = anonymous
        .args(["--secret-file", secret.to_str().unwrap()])
        .run()
        .await
        .text();
    for (name, text) in [
        ("report-healthy", healthy),
        ("report-expired", expired),
        ("report-mismatch", mismatch),
    ] {
        let _settings = settled();
        insta::assert_snapshot!(name, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_references_are_reported_in_their_order_and_the_worst_decides() {
    let world = World::healthy().await;
    let (good, gone) = (
        world.public_reference(),
        format!("{}-absent", world.reference()),
    );
    let outcome = Probe::of(&world)
        .reference(&gone)
        .args([&good, &gone])
        .run()
        .await;
    assert_eq!(outcome.code, 1);
    let images: Vec<String> = outcome
        .document
        .reports
        .iter()
        .map(|r| r.evidence.reference.to_string())
        .collect();
    assert_eq!(images, [gone.clone(), good, gone]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_on_a_pipe_has_no_colour_unless_asked_for_and_a_report_survives_json() {
    let world = World::healthy().await;
    let outcome = probe(&world).await;
    assert!(!outcome.text().contains('\x1b'));
    assert!(text::render(outcome.report(), Style { color: true }, false).contains("\x1b[32m"));
    let again: Document =
        serde_json::from_str(&serde_json::to_string(&outcome.document).unwrap()).unwrap();
    assert_eq!(again, outcome.document);
    assert_eq!(again.schema_version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_configs_helpers_and_identity_tokens_are_used() {
    // The usual place.
    let world = World::healthy().await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".docker")).unwrap();
    let config = World::docker_config(&world.registry_host(), USER, support::PASSWORD);
    std::fs::write(home.path().join(".docker/config.json"), config).unwrap();
    let outcome = Probe::of(&world)
        .anonymous()
        .environment("HOME", home.path().to_str().unwrap())
        .run()
        .await;
    outcome.is_quiet();

    // A helper.
    let helper = home.path().join("docker-credential-lab");
    let script = format!(
        "#!/bin/sh\ncat >/dev/null\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{}\"}}'\n",
        support::PASSWORD
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = world.write(
        "helpers.json",
        &format!(
            "{{\"credHelpers\":{{\"{}\":\"lab\"}}}}",
            world.registry_host()
        ),
    );
    let path = format!("{}:/usr/bin:/bin", home.path().display());
    let with_helper = Probe::of(&world)
        .anonymous()
        .args(["--docker-config", config.to_str().unwrap()]);
    with_helper
        .environment("PATH", &path)
        .run()
        .await
        .is_quiet();

    // An identity token.
    world
        .tokens
        .knobs()
        .identity_tokens
        .insert("canary-7f3a9c-identity".to_owned(), USER.to_owned());
    let entry = serde_json::json!({"auths": {world.registry_host(): {"identitytoken": "canary-7f3a9c-identity"}}});
    let config = world.write("identity.json", &entry.to_string());
    let outcome = Probe::of(&world)
        .anonymous()
        .args(["--docker-config", config.to_str().unwrap()])
        .run()
        .await;
    outcome.is_quiet();
}
