//! `pullpath wait`, as an init container has it.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod support;

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use pullpath::diagnose::Pull;
use pullpath::report::wait::{Eip, WaitDocument};
use support::{PASSWORD, World};
use tokio::process::Command;

fn wait(world: &World, args: &[&str]) -> Command {
    let mut command = wait_with_roots_of_this_machine(world, args);
    command.arg("--ca-file").arg(world.ca.file());
    command
}

/// The authority of the world is none of them.
fn wait_with_roots_of_this_machine(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullpath"));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .arg("wait")
        .arg(world.reference())
        .args(["--nameserver", &world.nameserver()])
        .arg("--containerd-config")
        .arg(world.write("empty.toml", ""))
        .args(["--answer-timeout", "1s", "--platform", "linux/amd64"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn ended(command: &mut Command) -> Output {
    let output = tokio::time::timeout(Duration::from_mins(1), command.output());
    let output = output.await.expect("it ends").unwrap();
    let all = [output.stdout.clone(), output.stderr.clone()].concat();
    assert!(!String::from_utf8_lossy(&all).contains(PASSWORD));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn words(bytes: &[u8]) -> String {
    text(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_way_is_not_waited_for() {
    let world = World::healthy().await;
    let secret = world.secret_file();
    let secret = ["--secret-file", secret.to_str().unwrap()];
    let output = ended(&mut wait(&world, &secret)).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("open after "));
    assert_eq!(text(&output.stderr), "");
    // As cheap as it is: no transfer; the configuration, and the first bytes of one layer.
    assert_eq!(world.blobs.server.seen().len(), 2);
}

/// The roots of the node may differ from those of the pod: a doubt about them keeps no pod from starting.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_seen_from_the_pod_holds_it_not_back() {
    let world = World::healthy().await;
    let mut command = wait_with_roots_of_this_machine(&world, &[]);
    let output = ended(&mut command).await;
    let said = words(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for word in [
        "open after ",
        "can't be observed from here",
        "tls_unknown_ca",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// In a pod, only what is certain ends with 1; on a machine, what can't be observed is not an issue.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_pod_what_is_not_certain_lets_the_pod_start_at_the_timeout() {
    struct Case {
        name: &'static str,
        /// Exit statuses in a pod and on a machine.
        statuses: (i32, i32),
        pod_prints: &'static str,
    }
    let cases = [
        Case {
            name: "the connection is refused",
            statuses: (0, 1),
            pod_prints: "depends on the node, which can't be observed from here",
        },
        Case {
            name: "the realm is plain HTTP",
            statuses: (0, 2),
            pod_prints: "is unknown from here",
        },
        Case {
            name: "the tag is missing",
            statuses: (1, 1),
            pod_prints: "manifest_unknown",
        },
    ];
    for case in cases {
        let world = World::healthy().await;
        let secret = world.secret_file();
        // The registry listens at 127.0.0.1 alone.
        let closed = format!("{}:127.0.0.2", world.registry_host());
        let mut args = vec!["--secret-file", secret.to_str().unwrap(), "--timeout", "3s"];
        match case.name {
            "the connection is refused" => args.extend(["--resolve", &closed]),
            "the realm is plain HTTP" => {
                let realm = world.realm().replace("https:", "http:");
                let service = support::REGISTRY.to_owned();
                world.registry.knobs().auth = support::registry::Auth::Bearer { realm, service };
            }
            _ => world
                .registry
                .knobs()
                .manners
                .fail("/manifests/", support::registry::manifest_unknown()),
        }
        for (is_pod, status) in [(true, case.statuses.0), (false, case.statuses.1)] {
            let mut command = wait(&world, &args);
            if is_pod {
                command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
            }
            let begun = Instant::now();
            let output = ended(&mut command).await;
            let (printed, context) = (words(&output.stdout), format!("{}, {is_pod}", case.name));
            assert_eq!(output.status.code(), Some(status), "{context}: {printed}");
            assert!(
                begun.elapsed() >= Duration::from_secs(3),
                "{context}: it waits"
            );
            let is_open = status == 0;
            assert_eq!(
                printed.starts_with("open after"),
                is_open,
                "{context}: {printed}"
            );
            if is_pod {
                assert!(printed.contains(case.pod_prints), "{context}: {printed}");
            }
        }
    }
}

/// The arguments of the init container in a piece of YAML.
fn documented_args(yaml: &str) -> Vec<String> {
    let document: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    let template = document.pointer("/spec/template/spec").unwrap_or(&document);
    let args = template.pointer("/initContainers/0/args").unwrap();
    serde_json::from_value(args.clone()).unwrap()
}

/// The documented init containers, in a pod whose roots are not those of the node: the authority of this registry is
/// known on the node alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_init_containers_work_where_the_roots_of_the_node_differ() {
    let documents = include_str!("../docs/on-demand.md");
    let (_, block) = documents.split_once("```yaml\ninitContainers:").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let example = include_str!("../deploy/examples/foo-by-eip.yaml");
    for yaml in [format!("initContainers:{block}"), example.to_owned()] {
        let world = World::healthy().await;
        let config = World::docker_config(&world.registry_host(), support::USER, PASSWORD);
        let config = world.write("config.json", &config);
        let [command_name, image, options @ ..] = &documented_args(&yaml)[..] else {
            panic!("{yaml}")
        };
        assert_eq!(command_name, "wait");
        assert!(
            image
                .parse::<pullpath::model::reference::Reference>()
                .is_ok()
        );
        let requests_eip = "yangtse.io/pod-with-eip=\"true\"\n";
        let annotations = world.write("annotations", requests_eip);
        let mut args: Vec<String> = options
            .iter()
            .map(|option| {
                option.replace(
                    "/etc/pull-secret/.dockerconfigjson",
                    config.to_str().unwrap(),
                )
            })
            .collect();
        assert!(
            args.iter().any(|arg| arg.contains("config.json")),
            "{args:?}"
        );
        args.push(format!("--pod-annotations={}", annotations.display()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = wait_with_roots_of_this_machine(&world, &args);
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        let child = command.spawn().unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let bound = format!("{requests_eip}yangtse.io/allocated-ipv4-eip=\"203.0.113.9\"\n");
        world.write("annotations", &bound);
        let output = tokio::time::timeout(Duration::from_mins(1), child.wait_with_output());
        let output = output.await.expect("it ends").unwrap();
        let printed = words(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{printed}");
        for word in ["open after", "203.0.113.9", "tls_unknown_ca"] {
            assert!(printed.contains(word), "{word}: {printed}");
        }
        assert!(
            text(&output.stderr).contains("has none yet"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eip_is_waited_for_where_the_pod_asks_for_one() {
    let world = World::healthy().await;
    let annotations = world.write("annotations", "yangtse.io/pod-with-eip=\"true\"\n");
    let secret = world.secret_file();
    let args = [
        "--secret-file",
        secret.to_str().unwrap(),
        "--pod-annotations",
        annotations.to_str().unwrap(),
        "--timeout",
        "30s",
        "-o",
        "json",
    ];
    let mut command = wait(&world, &args);
    let child = command.spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.write(
        "annotations",
        "yangtse.io/pod-with-eip=\"true\"\nyangtse.io/allocated-ipv4-eip=\"203.0.113.9\"\n",
    );
    let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("requests an EIP and has none yet")
            && said.contains("; a pull would succeed"),
        "{said}"
    );
    let document: WaitDocument = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document.is_open && document.waited > Duration::from_secs(2));
    assert_eq!(
        document.eip,
        Eip::Bound {
            address: "203.0.113.9".parse().unwrap()
        }
    );
    // One check reports what else is wrong; the next is made when the EIP is there.
    assert_eq!(document.checks, 2);
    let fetched = world.registry.server.seen();
    let manifests = |is_let_in: bool| {
        let gets = fetched
            .iter()
            .filter(|seen| seen.method == "GET" && seen.path.contains("/manifests/"));
        gets.filter(|seen| seen.authorization().is_some() == is_let_in)
            .count()
    };
    assert_eq!(manifests(true), 2, "the index and one manifest, once each");
    assert_eq!(manifests(false), 1, "a phase begins without a token");

    // It does not come: that is the cause, though the way is open.
    world.write("annotations", "yangtse.io/pod-with-eip=\"true\"\n");
    let args = [
        "--secret-file",
        secret.to_str().unwrap(),
        "--pod-annotations",
        annotations.to_str().unwrap(),
        "--timeout",
        "2s",
    ];
    let begun = Instant::now();
    let output = ended(&mut wait(&world, &args)).await;
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert_eq!(output.status.code(), Some(1));
    let said = words(&output.stdout);
    for word in [
        "NOT OPEN after",
        "requests an EIP and has none yet",
        "hint:",
        "a pull would succeed",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }

    // One that is requested by the command line alone, with a file of one annotation.
    let empty = world.write("eip", "");
    let file = empty.to_str().unwrap();
    let base = [
        "--secret-file",
        secret.to_str().unwrap(),
        "--pod-annotations",
        file,
        "--timeout",
        "2s",
    ];
    let output = ended(&mut wait(&world, &base)).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "an unknown EIP is not required"
    );
    let output = ended(&mut wait(&world, &[&base[..], &["--require-eip"]].concat())).await;
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_opens_ends_the_wait_and_each_change_is_said_once() {
    let world = World::healthy().await;
    let secret = world.secret_file();
    world
        .registry
        .knobs()
        .manners
        .fail_times(3, "/v2/", support::web::Reply::new(503));
    let args = [
        "--secret-file",
        secret.to_str().unwrap(),
        "--timeout",
        "40s",
        // Others ask again after a 503, and would see another one.
        "--runtime",
        "containerd://1.7.24",
    ];
    let output = ended(&mut wait(&world, &args)).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("waiting: ") && said.contains("registry leg"),
        "{said}"
    );
    assert!(text(&output.stdout).starts_with("open after "));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_timeout_the_cause_is_reported_and_no_server_was_pressed() {
    // A wrong password is sent once in the first minute, however many checks are made.
    let world = World::healthy().await;
    let wrong = World::secret(&world.registry_host(), support::USER, "wrong");
    let wrong = world.write("wrong.yaml", &wrong);
    let args = ["--secret-file", wrong.to_str().unwrap(), "--timeout", "8s"];
    let output = ended(&mut wait(&world, &args)).await;
    assert_eq!(output.status.code(), Some(1));
    let said = words(&output.stdout);
    assert!(
        said.contains("NOT OPEN after") && said.contains("auth_bad_cred"),
        "{said}"
    );
    let tries = world
        .tokens
        .server
        .seen()
        .iter()
        .filter(|seen| seen.basic().is_some() || !seen.fields("password").is_empty())
        .count();
    assert!((1..=2).contains(&tries), "{tries} tries with a password");
    assert!(
        world.registry.server.count(&http::Method::GET, "/v2/") >= 3,
        "several checks"
    );

    // Retry-After: nothing is requested meanwhile.
    let world = World::healthy().await;
    let secret = world.secret_file();
    world
        .registry
        .knobs()
        .manners
        .fail("/manifests/", support::registry::too_many_requests("3600"));
    let args = [
        "--secret-file",
        secret.to_str().unwrap(),
        "--timeout",
        "5s",
        "-o",
        "json",
    ];
    let output = ended(&mut wait(&world, &args)).await;
    let document: WaitDocument = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document.checks, 1);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert_eq!(document.report.unwrap().verdict.pull, Pull::WouldFail);

    // Unknown is no failure: a Secret that can't be read.
    let world = World::healthy().await;
    let args = [
        "--secret",
        "shop/pull",
        "--kubeconfig",
        "/nonexistent/config",
        "--timeout",
        "2s",
    ];
    let output = ended(&mut wait(&world, &args)).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("kubeconfig"));
}
