//! The image as it is shipped: made twice, looked into, and run as its manifest says, by podman, in the node's
//! network namespace beside a real registry. The program in it is this tree's, unoptimised; PULLPATH_PROGRAM is
//! another one, for instance the release.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(
    clippy::print_stderr,
    reason = "its figures are looked for when it has passed, too"
)]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]

mod lab;
#[path = "lab/metadata.rs"]
mod metadata;
#[path = "real/stack.rs"]
mod stack;
mod support;
#[path = "lab/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lab::netns::Netns;
use lab::process::run;
use serde_json::Value;
use tempfile::TempDir;
use world::{DNS, NODE, REG, World};

/// Of the compressed image. This program is not optimized; that of a release has less than a third of its size.
const MOST_BYTES: u64 = 30_000_000;

/// Of all that is in it (NOTICE).
const LICENCES: &str = "Apache-2.0 AND LGPL-2.1-or-later AND MPL-2.0 AND MIT AND ISC AND BSD-3-Clause AND Unicode-3.0 AND Zlib AND CC0-1.0 AND CDLA-Permissive-2.0";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn program() -> PathBuf {
    std::env::var_os("PULLPATH_PROGRAM").map_or_else(
        || PathBuf::from(run(&mut Command::new(root().join("tests/shipped/static"))).trim()),
        PathBuf::from,
    )
}

/// Images and containers of a test's own; gone with it.
struct Engine {
    folder: TempDir,
    containers: Vec<String>,
}

impl Engine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        // Without overlays nothing stays mounted when a test is killed.
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            at("storage"),
            at("run")
        );
        fs::write(folder.path().join("storage.conf"), storage).unwrap();
        Self {
            folder,
            containers: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"));
        command
    }

    /// By deploy/image; what it says of digest and size.
    fn make(&self, name: &str, program: &Path, bundle: &Path) -> (String, u64) {
        let output = run(self
            .command(root().join("deploy/image"))
            .env("PULLPATH", program)
            .env("CA_BUNDLE", bundle)
            .arg(self.path(name)));
        let line = |head: &str| {
            let found = output.lines().find_map(|line| line.strip_prefix(head));
            found.unwrap_or_else(|| panic!("{output}")).to_owned()
        };
        let size = line("size ");
        let size = size.split(' ').next().unwrap().parse().unwrap();
        (line("digest "), size)
    }

    /// podman with a program that runs its containers on old and new kernels.
    fn podman(&self) -> Command {
        let mut command = self.command("podman");
        command.args([
            "--runtime",
            "/usr/sbin/runc",
            "--cgroup-manager",
            "cgroupfs",
        ]);
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for name in &self.containers {
            let removed = self.podman().args(["rm", "-f", "-t", "2", name]).output();
            if std::thread::panicking() {
                eprintln!("{name}: {removed:?}");
            }
        }
    }
}

fn blob(archive: &Path, digest: &str) -> Value {
    let file = format!("blobs/{}", digest.replace(':', "/"));
    let text = run(Command::new("tar").arg("-xOf").arg(archive).arg(file));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn two_builds_have_one_digest_and_nothing_else_in_them() {
    let engine = Engine::new();
    let program = program();
    let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
    let (digest, size) = engine.make("first.tar", &program, bundle);
    // Of a copy, whose time and folder are others.
    let copy = engine.path("copy");
    fs::copy(&program, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).unwrap();
    let second = engine.make("second.tar", &copy, bundle);
    assert_eq!(second.0, digest);
    eprintln!("the image: {size} bytes, {digest}");
    assert!(size < MOST_BYTES, "{size}");
    let archive = engine.path("first.tar");
    let manifest = blob(&archive, &digest);
    let config = blob(&archive, manifest["config"]["digest"].as_str().unwrap());
    assert_eq!(config["os"], "linux");
    assert_eq!(config["created"], "1970-01-01T00:00:00Z");
    let of_run = &config["config"];
    assert_eq!(of_run["User"], "65532:65532");
    assert_eq!(
        of_run["Entrypoint"],
        serde_json::json!(["/usr/bin/pullpath"])
    );
    assert!(of_run.get("Cmd").is_none_or(Value::is_null));
    let labels: BTreeMap<&str, &str> = of_run["Labels"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap()))
        .collect();
    let commit = run(Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(root()));
    assert_eq!(
        labels,
        BTreeMap::from([
            (
                "org.opencontainers.image.description",
                env!("CARGO_PKG_DESCRIPTION")
            ),
            ("org.opencontainers.image.licenses", LICENCES),
            ("org.opencontainers.image.revision", commit.trim()),
            ("org.opencontainers.image.title", "Pullpath"),
            (
                "org.opencontainers.image.version",
                env!("CARGO_PKG_VERSION")
            ),
        ])
    );

    let layers = manifest["layers"].as_array().unwrap();
    let mut files = BTreeSet::new();
    for layer in layers {
        let file = format!(
            "blobs/{}",
            layer["digest"].as_str().unwrap().replace(':', "/")
        );
        let path = engine.path("layer.tar.gz");
        let bytes = Command::new("tar")
            .arg("-xOf")
            .arg(&archive)
            .arg(file)
            .output()
            .unwrap();
        fs::write(&path, bytes.stdout).unwrap();
        let list = run(Command::new("tar").arg("-tvzf").arg(&path));
        for line in list.lines().filter(|line| !line.starts_with('d')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            files.insert(format!("{} {} {}", words[0], words[1], words[5]));
        }
    }
    let expected = [
        "-rw-r--r-- 0/0 etc/ssl/certs/ca-certificates.crt",
        "-rw-r--r-- 0/0 usr/share/doc/pullpath/LICENSE",
        "-rw-r--r-- 0/0 usr/share/doc/pullpath/NOTICE",
        "-rw-r--r-- 0/0 usr/share/doc/pullpath/licences.txt",
        "-rwxr-xr-x 0/0 usr/bin/pullpath",
    ];
    assert_eq!(files, BTreeSet::from(expected.map(str::to_owned)));
}

/// The head of a program is as good as all of it where it is not run.
#[test]
fn other_authorities_are_another_image_and_so_is_another_processor() {
    let engine = Engine::new();
    let mut head = fs::read(program()).unwrap();
    head.truncate(4096);
    let small = engine.path("head");
    fs::write(&small, &head).unwrap();
    let bundle = |name: &str| {
        let path = engine.path(name);
        fs::write(&path, format!("# {name}\n")).unwrap();
        path
    };
    let (mine, yours) = (bundle("mine"), bundle("yours"));
    let (first, _) = engine.make("1.tar", &small, &mine);
    assert_eq!(engine.make("2.tar", &small, &mine).0, first);
    assert_ne!(engine.make("3.tar", &small, &yours).0, first);

    // arm64 is prepared: labelled so, of a program that says so of itself. That it runs is not proven.
    head[18..20].copy_from_slice(&0xB7_u16.to_le_bytes());
    fs::write(&small, &head).unwrap();
    let output = run(engine
        .command(root().join("deploy/image"))
        .env("PULLPATH", &small)
        .env("ARCH", "arm64")
        .arg(engine.path("arm64.tar")));
    let digest = output.lines().find_map(|line| line.strip_prefix("digest "));
    let archive = engine.path("arm64.tar");
    let manifest = blob(&archive, digest.unwrap());
    let config = blob(&archive, manifest["config"]["digest"].as_str().unwrap());
    assert_eq!(config["architecture"], "arm64");
}

#[test]
fn a_program_that_would_not_run_in_it_is_refused() {
    let engine = Engine::new();
    let make = |program: &Path, arch: &str| {
        let mut command = engine.command(root().join("deploy/image"));
        command.env("PULLPATH", program).env("ARCH", arch);
        let output = command.arg(engine.path("none.tar")).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let here = if cfg!(target_arch = "aarch64") {
        ["arm64", "amd64"]
    } else {
        ["amd64", "arm64"]
    };
    let dynamic = Path::new(env!("CARGO_BIN_EXE_pullpath"));
    let output = make(dynamic, here[0]);
    assert!(output.contains("is not static"), "{output}");
    let output = make(dynamic, here[1]);
    assert!(output.contains("is not a program for"), "{output}");
}

/// The manifest, as kubectl makes it.
fn daemon_set() -> Value {
    let tools = run(&mut Command::new(root().join("tests/shipped/tools")));
    let text = run(Command::new(Path::new(tools.trim()).join("kubectl"))
        .arg("kustomize")
        .arg(root().join("deploy/overlays/cce-standard")));
    let objects = text
        .split("\n---\n")
        .map(|one| serde_saphyr::from_str::<Value>(one).unwrap());
    let mut found = objects.filter(|object| object["kind"] == "DaemonSet");
    let one = found.next().unwrap();
    assert!(found.next().is_none());
    one["spec"]["template"]["spec"].clone()
}

/// What podman needs to run a container as a pod's manifest has it; each key of a security context is
/// known here, or the test says so.
fn security(pod: &Value, container: &Value) -> Vec<String> {
    let mut options = Vec::new();
    let of_pod = pod["securityContext"].as_object().unwrap();
    for (key, value) in of_pod {
        match key.as_str() {
            // The image's own user is none of root's (checked above), as is runAsUser.
            "runAsNonRoot" => assert_eq!(value, true),
            "runAsUser" => {
                let group = &of_pod["runAsGroup"];
                options.push(format!("--user={value}:{group}"));
            }
            "runAsGroup" => {}
            "fsGroup" => options.push(format!("--group-add={value}")),
            // The runtime's default, which is podman's own too.
            "seccompProfile" => assert_eq!(value["type"], "RuntimeDefault"),
            _ => panic!("a key that this test does not know: {key}"),
        }
    }
    for (key, value) in container["securityContext"].as_object().unwrap() {
        match key.as_str() {
            "allowPrivilegeEscalation" => {
                assert_eq!(value, false);
                options.push("--security-opt=no-new-privileges".to_owned());
            }
            "readOnlyRootFilesystem" => {
                assert_eq!(value, true);
                // podman would else mount writable /tmp and /run over it, which a kubelet does not.
                options.extend(["--read-only", "--read-only-tmpfs=false"].map(str::to_owned));
            }
            "capabilities" => {
                assert_eq!(value, &serde_json::json!({"drop": ["ALL"]}));
                options.push("--cap-drop=all".to_owned());
            }
            _ => panic!("a key that this test does not know: {key}"),
        }
    }
    options
}

/// The kubelet's part of the environment, and of the arguments.
fn environment(container: &Value) -> BTreeMap<String, String> {
    let facts = [
        ("spec.nodeName", "n1"),
        ("metadata.name", "pullpath-node-x7k2p"),
        ("metadata.namespace", "pullpath"),
        ("status.podIP", NODE.v4),
        ("status.hostIP", NODE.v4),
    ];
    let all = container["env"].as_array().unwrap().iter();
    all.map(|one| {
        let path = one["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap();
        let (_, value) = facts.iter().find(|(known, _)| *known == path).unwrap();
        (
            one["name"].as_str().unwrap().to_owned(),
            (*value).to_owned(),
        )
    })
    .collect()
}

/// Volumes of the pod as folders of this machine.
fn volumes(engine: &Engine, pod: &Value, container: &Value, config: &str) -> Vec<String> {
    let folders: BTreeMap<&str, PathBuf> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| {
            let name = volume["name"].as_str().unwrap();
            let folder = engine.path(&format!("volume-{name}"));
            fs::create_dir_all(&folder).unwrap();
            if volume.get("configMap").is_some() {
                fs::write(folder.join("pullpath.yaml"), config).unwrap();
            } else if volume.get("downwardAPI").is_some() {
                fs::write(folder.join("annotations"), "").unwrap();
            } else if volume.get("emptyDir").is_some() {
                // As the kubelet makes it: of the group fsGroup.
                let group = pod["securityContext"]["fsGroup"].as_u64().unwrap();
                let group = u32::try_from(group).unwrap();
                std::os::unix::fs::chown(&folder, Some(0), Some(group)).unwrap();
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o2775)).unwrap();
            } else {
                assert!(volume.get("hostPath").is_some(), "{volume}");
            }
            (name, folder)
        })
        .collect();
    let mounts = container["volumeMounts"].as_array().unwrap().iter();
    mounts
        .map(|mount| {
            let folder = &folders[mount["name"].as_str().unwrap()];
            let how = if mount["readOnly"] == true { ":ro" } else { "" };
            let at = mount["mountPath"].as_str().unwrap();
            format!("--volume={}:{at}{how}", folder.display())
        })
        .collect()
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// Asks in the node's network; the status and what came.
fn get(node: &Netns, path: &str) -> (u16, String) {
    let mut command = node.command("curl");
    command.args(["--silent", "--max-time", "5", "--noproxy", "*"]);
    command.args(["--write-out", "\n%{http_code}"]);
    let output = command
        .arg(format!("http://{}:9797{path}", NODE.v4))
        .output()
        .unwrap();
    let all = text(&output.stdout);
    let (body, status) = all.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[test]
fn it_runs_as_its_manifest_says_and_is_scraped_and_asked() {
    let world = World::new();
    world.registry(&REG);
    let mut engine = Engine::new();

    // The image trusts what is in its bundle: here the lab's authority among all others.
    let bundle = engine.path("bundle.crt");
    let mut all = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap();
    all.extend(fs::read(world.ca_file()).unwrap());
    fs::write(&bundle, all).unwrap();
    engine.make("image.tar", &program(), &bundle);
    let archive = format!("oci-archive:{}", engine.path("image.tar").display());
    let image = run(engine.podman().args(["pull", "--quiet", &archive]));
    let image = image.trim();

    let pod = daemon_set();
    let container = &pod["containers"][0];
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["dnsPolicy"], "Default");
    let config = format!(
        "network: {{metadata: off}}\nschedule: {{reach: 10s, transfer: off}}\n\
         targets:\n  - {{name: good, image: '{}'}}\n  - {{name: gone, image: '{}/nothing/here:1'}}\n",
        REG.reference(),
        REG.name()
    );
    // Of the node, as dnsPolicy Default has it.
    let resolver = engine.path("resolv.conf");
    fs::write(&resolver, format!("nameserver {}\n", DNS[0])).unwrap();
    let common = |name: &str| -> Vec<String> {
        let mut options: Vec<String> = [
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1000:1000",
            "--no-hosts",
            // Else the machine's own.
            "--http-proxy=false",
        ]
        .map(str::to_owned)
        .to_vec();
        options.push(format!("--name={name}"));
        options.push(format!("--network=ns:/run/netns/{}", world.node.name));
        options.push(format!(
            "--volume={}:/etc/resolv.conf:ro",
            resolver.display()
        ));
        options.extend(security(&pod, container));
        options
    };

    let name = format!("{}-daemon", world.node.name);
    let environment = environment(container);
    let mut command = engine.podman();
    command.args(["run", "--detach"]).args(common(&name));
    command.args(volumes(&engine, &pod, container, &config));
    for (key, value) in &environment {
        command.arg(format!("--env={key}={value}"));
    }
    // The kubelet's cgroup; limits of the processor need a kernel that has them.
    let memory = container["resources"]["limits"]["memory"].as_str().unwrap();
    command.arg(format!(
        "--memory={}",
        memory.to_lowercase().replace('i', "")
    ));
    command.arg(image);
    for arg in container["args"].as_array().unwrap() {
        let mut arg = arg.as_str().unwrap().to_owned();
        for (key, value) in &environment {
            arg = arg.replace(&format!("$({key})"), value);
        }
        command.arg(arg);
    }
    engine.containers.push(name.clone());
    run(&mut command);
    let logs = |engine: &Engine| {
        let output = engine.podman().args(["logs", &name]).output().unwrap();
        text(&output.stdout) + &text(&output.stderr)
    };

    // Scraped: one target is ready, the other is not.
    let wanted = ["target=\"good\"", "target=\"gone\""];
    let ready = |metrics: &str, target: &str| {
        let mut lines = metrics
            .lines()
            .filter(|line| line.starts_with("pullpath_pull_ready{") && line.contains(target));
        lines.next().map(|line| line.ends_with(" 1"))
    };
    let begun = Instant::now();
    let metrics = loop {
        let (_, metrics) = get(&world.node, "/metrics");
        if wanted.map(|target| ready(&metrics, target)) == [Some(true), Some(false)] {
            break metrics;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{}\n{metrics}",
            logs(&engine)
        );
        std::thread::sleep(Duration::from_millis(200));
    };
    let resident = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .unwrap();
    eprintln!("the daemon in its container: {resident} bytes resident");
    // The manifest's probes.
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().unwrap();
        assert_eq!(get(&world.node, path).0, 200, "{probe}");
    }
    // What it must outlive a restart is in the one folder it may write.
    let state = engine.path("volume-state");
    let kept = || fs::read_dir(&state).unwrap().count();
    // As the kernel has it, and not as podman was asked.
    let pid = run(engine
        .podman()
        .args(["inspect", "--format", "{{.State.Pid}}", &name]));
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = |head: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(head));
        found
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("Uid:"), "65532 65532 65532 65532");
    assert_eq!(line("Gid:"), "65532 65532 65532 65532");
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Seccomp:"), "2");
    for kind in ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&line(kind), 16), Ok(0), "{kind}");
    }

    // Asked: a person's probe in a container of the same kind.
    let probes = std::cell::Cell::new(0);
    let probe = |args: &[&str]| -> Output {
        probes.set(probes.get() + 1);
        let name = format!("{}-probe-{}", world.node.name, probes.get());
        let mut command = engine.podman();
        command.args(["run", "--rm"]).args(common(&name)).arg(image);
        command.args(args).output().unwrap()
    };
    let good = probe(&["probe", &REG.reference(), "-o", "json"]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    let document: Value = serde_json::from_slice(&good.stdout).unwrap();
    let report = &document["reports"][0];
    assert_eq!(report["verdict"]["pull"], "would_succeed");
    assert_eq!(report["verdict"]["findings"], serde_json::json!([]));
    let gone = format!("{}/nothing/here:1", REG.name());
    let gone = probe(&["probe", &gone, "-o", "json"]);
    assert_eq!(gone.status.code(), Some(1), "{}", text(&gone.stderr));
    let document: Value = serde_json::from_slice(&gone.stdout).unwrap();
    let causes = document["reports"][0]["verdict"]["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["cause"].as_str().unwrap())
        .collect::<Vec<_>>();
    assert_eq!(causes, ["manifest_unknown"]);

    // The API server's name is resolved by the C library, which is static here: the registry is found by its
    // name, and is no API server.
    let kubeconfig = engine.path("kubeconfig");
    let server = format!(
        "{{apiVersion: v1, kind: Config, current-context: t, clusters: [{{name: t, cluster: {{server: 'https://{}'}}}}], \
         users: [{{name: u, user: {{token: t}}}}], contexts: [{{name: t, context: {{cluster: t, user: u}}}}]}}",
        REG.name()
    );
    fs::write(&kubeconfig, server).unwrap();
    fs::set_permissions(&kubeconfig, fs::Permissions::from_mode(0o644)).unwrap();
    let mount = format!("--volume={}:/kubeconfig:ro", kubeconfig.display());
    let mut command = engine.podman();
    command.args(["run", "--rm", &mount]);
    command.args(common(&format!("{}-lint", world.node.name)));
    command.args([image, "lint", "-A", "--kubeconfig", "/kubeconfig"]);
    let asked = command.output().unwrap();
    let output = text(&asked.stderr);
    assert_eq!(asked.status.code(), Some(2), "{output}");
    assert!(output.contains("no workload can be listed"), "{output}");
    assert!(!output.contains("dns error"), "{output}");
    assert!(output.contains("404"), "{output}");

    // It ends in order at the request of podman, and keeps its state.
    run(engine.podman().args(["stop", "-t", "20", &name]));
    let code = run(engine
        .podman()
        .args(["inspect", "--format", "{{.State.ExitCode}}", &name]));
    assert_eq!(code.trim(), "0", "{}", logs(&engine));
    assert!(kept() > 0, "{}", logs(&engine));
}
