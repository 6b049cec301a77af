//! What others control, and what it costs at most: files that are none, file systems that hang, servers that never
//! answer, manifests of any shape, and a state folder that is full. Each against the built program.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(
    clippy::print_stderr,
    reason = "its figures are looked for when it has passed, too"
)]

mod operated;
mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use operated::{Daemon, config, eventually, eventually_within, kubeconfig, program, target};
use pullpath::diagnose::Pull;
use serde_json::json;
use support::image::{Content, Image, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, PlatformImage};
use support::{PASSWORD, PUBLIC_REPOSITORY, World};
use tempfile::TempDir;

/// Longer than any start or stop takes, however busy the machine is.
const GENEROUS: Duration = Duration::from_mins(2);

fn fifo(path: &Path) {
    mkfifo(path, Mode::S_IRWXU).unwrap();
}

/// A program that was started, ended with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(program())
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    /// Its exit code and what it wrote.
    fn ended(&mut self) -> (Option<i32>, String) {
        let end = Instant::now() + GENEROUS;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                let lines = BufReader::new(self.0.stderr.take().unwrap()).lines();
                let lines: Vec<String> = lines.map_while(Result::ok).collect();
                return (status.code(), lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not end");
    }
}

/// A file system whose server never answers: every use of it hangs in the kernel.
struct HungMount {
    holder: Child,
    at: PathBuf,
}

impl HungMount {
    fn at(path: &Path) -> Self {
        fs::create_dir(path).unwrap();
        // The shell's descriptor is inherited by `mount`, and stays open as long as `sleep` runs.
        let mount = "exec 9<>/dev/fuse; mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 none \"$1\" && echo mounted && exec sleep infinity";
        let mut holder = Command::new("sh")
            .args(["-c", mount, "sh"])
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(holder.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        Self {
            holder,
            at: path.to_owned(),
        }
    }
}

impl Drop for HungMount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A server on loopback that accepts connections and never answers.
fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let kept: Vec<TcpStream> = listener.incoming().map_while(Result::ok).collect();
        drop(kept);
    });
    address
}

const LISTEN: &str = "listen: 127.0.0.1:0\nlog: {format: json}\n";

/// Puts something at a path.
type Make<'a> = &'a dyn Fn(&Path);

fn daemon_config(more: &str) -> String {
    format!(
        "{LISTEN}admin_listen: 127.0.0.1:0\nvantage: {{node: n1}}\nnetwork: {{metadata: off}}\n{more}\n"
    )
}

fn threads(daemon: &Daemon) -> usize {
    let tasks = format!("/proc/{}/task", daemon.child.id());
    fs::read_dir(tasks).unwrap().count()
}

// ---- files ------------------------------------------------------------------------------------------------------

#[test]
fn a_configuration_that_is_no_file_ends_the_start() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fifo(&at("fifo"));
    symlink("/dev/zero", at("zero")).unwrap();
    symlink("fifo", at("link")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    File::create(at("sparse"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let _hung = HungMount::at(&at("hung"));
    for (name, words) in [
        ("fifo", "it is a named pipe, not a regular file"),
        ("link", "it is a named pipe, not a regular file"),
        ("zero", "it is a device, not a regular file"),
        ("socket", "it is a socket, not a regular file"),
        ("sparse", "file too large"),
        (".", "is a directory"),
        ("hung/config.yaml", "it could not be read in 5 s"),
    ] {
        let path = at(name);
        for role in ["run", "cluster"] {
            let mut run = Running::start(&[role, "--config", path.to_str().unwrap()]);
            let (code, text) = run.ended();
            assert_eq!(code, Some(2), "{role} {name}: {text}");
            assert!(text.contains(words), "{role} {name}: {text}");
        }
    }
}

#[test]
fn a_reload_refuses_what_is_no_file_or_has_no_key_and_the_end_comes_all_the_same() {
    let silent = silent();
    for role in ["run", "cluster"] {
        let folder = Arc::new(TempDir::new().unwrap());
        let at = |name: &str| folder.path().join(name);
        let server = kubeconfig(folder.path(), &format!("http://{silent}"), &json!({}));
        let text = match role {
            "run" => daemon_config(""),
            _ => format!(
                "{LISTEN}kubernetes: {{kubeconfig: '{}'}}\n",
                server.display()
            ),
        };
        let _hung = HungMount::at(&at("hung"));
        let daemon = Daemon::start_as(&[role, "--log-format", "json"], &text, Arc::clone(&folder));
        let metric = "pullpath_config_last_reload_successful";
        let value = || daemon.metrics().value(metric);
        let good = at("config.yaml.good");
        fs::copy(at("config.yaml"), &good).unwrap();
        let put = |make: &dyn Fn(&Path)| {
            make(&at("next"));
            fs::rename(at("next"), at("config.yaml")).unwrap();
            daemon.signal(Signal::SIGHUP);
        };
        let blank = |text: &'static str| move |path: &Path| fs::write(path, text).unwrap();
        let cases: [(Make<'_>, &str); 6] = [
            (&fifo, "it is a named pipe"),
            (&blank(""), "it has no key"),
            (&blank("\n# only a comment\n---\n"), "it has no key"),
            (
                &|path| symlink("/dev/zero", path).unwrap(),
                "it is a device",
            ),
            (&|path| fs::create_dir(path).unwrap(), "is a directory"),
            (&|path| symlink("hung/config.yaml", path).unwrap(), "hang"),
        ];
        for (make, words) in cases {
            if at("config.yaml").is_dir() {
                fs::remove_dir(at("config.yaml")).unwrap();
            }
            if words == "is a directory" {
                fs::remove_file(at("config.yaml")).unwrap();
            }
            put(make);
            eventually_within(words, GENEROUS, || {
                let shown = daemon.get("/readyz").body;
                // The watch for changes may be the one that waits.
                let hangs = words == "hang"
                    && ["could not be read in 5 s", "still hangs"]
                        .iter()
                        .any(|one| shown.contains(one));
                value() == Some(0.0) && (shown.contains(words) || hangs)
            });
            // The one before is in force, and a good one is taken again.
            if words != "hang" {
                let _ = fs::remove_dir(at("config.yaml"));
                put(&|path| {
                    fs::copy(&good, path).unwrap();
                });
                eventually_within("the good one", GENEROUS, || value() == Some(1.0));
            }
        }
        assert_eq!(daemon.stop(), Some(0), "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_no_files_are_reported_and_leak_no_thread() {
    let world = World::healthy().await;
    let folder = Arc::new(TempDir::new().unwrap());
    let at = |name: &str| folder.path().join(name);
    fifo(&at("fifo"));
    symlink("/dev/zero", at("zero")).unwrap();
    let _hung = HungMount::at(&at("hung"));
    let targets = [
        ("pipe", "docker_config", "fifo"),
        ("secret", "secret_files", "fifo"),
        ("password", "password_file", "fifo"),
        ("zero", "docker_config", "zero"),
        ("hung", "docker_config", "hung/config.json"),
    ]
    .map(|(name, key, file)| {
        let file = at(file).display().to_string();
        let value = match key {
            "secret_files" => format!("{{{key}: ['{file}']}}"),
            "password_file" => format!("{{username: u, {key}: '{file}'}}"),
            _ => format!("{{{key}: '{file}'}}"),
        };
        let image = world.reference();
        format!("  - {{name: {name}, image: '{image}', credential: {value}}}")
    });
    let text = config(&world, &targets.join("\n"), "");
    let daemon = Daemon::start_in(&text, Arc::clone(&folder));
    let mut before = None;
    for round in 0..10 {
        for (name, words) in [
            ("pipe", "it is a named pipe"),
            ("secret", "it is a named pipe"),
            ("password", "it is a named pipe"),
            ("zero", "it is a device"),
            ("hung", ""),
        ] {
            let document = daemon.check(name, "reach");
            let report = serde_json::to_string(&document.reports[0]).unwrap();
            let words = match (name, round) {
                ("hung", 0) => "it could not be read in 5 s",
                ("hung", _) => "an earlier read in this folder still hangs",
                _ => words,
            };
            assert!(report.contains(words), "{name} {round}: {report}");
        }
        let now = threads(&daemon);
        // Pools have a few more or less; a thread for each check would be nine.
        let before = *before.get_or_insert(now);
        assert!(now < before + 5, "{round}: {now} threads, {before} before");
    }
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_command_line_takes_a_pipe_and_no_endless_device() {
    let folder = TempDir::new().unwrap();
    let report = "tests/cases/healthy/report.json";
    let piped = format!("{} replay <(cat {report}) -o json", program().display());
    let output = Command::new("bash").args(["-c", &piped]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for arguments in [
        &["replay", "/dev/zero"][..],
        &["secret", "check", "-f", "/dev/zero"],
        &["lint", "-f", "/dev/zero"],
        &["probe", "-f", "/dev/zero"],
        &["config", "check", "/dev/zero"],
        &["replay", folder.path().to_str().unwrap()],
    ] {
        let (code, text) = Running::start(arguments).ended();
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
    }
}

// ---- signals ----------------------------------------------------------------------------------------------------

/// Answers that never come, to all that the two roles request.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_whatever_hangs() {
    let world = World::healthy().await;
    let silent = silent();
    let dns = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dns = dns.local_addr().unwrap();
    let folder = Arc::new(TempDir::new().unwrap());
    let server = kubeconfig(folder.path(), &format!("http://{silent}"), &json!({}));
    let kubernetes = format!("kubernetes: {{kubeconfig: '{}'", server.display());
    let image = world.reference();
    let checked = format!(
        "schedule: {{first_check: 1s, grace: 1s}}\ntargets: [{{name: app, image: '{image}'}}]"
    );
    let by_dns = daemon_config(&checked).replace(
        "metadata: off",
        &format!("metadata: off, nameservers: ['{dns}']"),
    );
    for (role, text) in [
        ("run", by_dns),
        (
            "run",
            daemon_config(&format!(
                "{kubernetes}, discover: node}}\nschedule: {{grace: 1s}}"
            )),
        ),
        (
            "run",
            daemon_config(&format!(
                "{kubernetes}, discover: node, secrets: discovered}}\nspread: {{transfers: leases}}\nschedule: {{grace: 1s}}"
            )),
        ),
        ("cluster", format!("{LISTEN}{kubernetes}}}\n")),
    ] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut daemon = Daemon::start_as(&[role], &text, Arc::clone(&folder));
            // Clients that never read, and one that never sends the end of its request.
            let mut clients = Vec::new();
            for request in [
                "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                "GET /metrics HTTP/1.1\r\n",
            ] {
                let mut client = TcpStream::connect(daemon.public).unwrap();
                for _ in 0..50 {
                    client.write_all(request.as_bytes()).unwrap();
                }
                clients.push(client);
            }
            std::thread::sleep(Duration::from_secs(2));
            daemon.signal(signal);
            let mut code = None;
            eventually_within(&text, GENEROUS, || {
                code = daemon.child.try_wait().unwrap();
                code.is_some()
            });
            let log = daemon.log().join("\n");
            assert_eq!(code.unwrap().code(), Some(0), "{text}\n{log}");
            assert!(!log.contains("something hangs"), "{log}");
        }
    }
}

/// kube waits for the plugin on the only thread of the program.
#[test]
fn sigterm_ends_it_while_a_plugin_of_its_kubeconfig_hangs() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let script = format!(
        "#!/bin/sh\necho $$ >> '{}'\nexec sleep 600\n",
        at("pids").display()
    );
    fs::write(at("plugin"), script).unwrap();
    fs::set_permissions(at("plugin"), fs::Permissions::from_mode(0o755)).unwrap();
    let user = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1",
        "command": at("plugin"), "interactiveMode": "Never"}});
    let server = kubeconfig(folder.path(), "http://127.0.0.1:1", &user);
    let pids = || fs::read_to_string(at("pids")).unwrap_or_default();
    for (count, (role, text)) in [
        ("run", daemon_config("KUBE, discover: node}")),
        ("cluster", format!("{LISTEN}KUBE}}\n")),
    ]
    .into_iter()
    .enumerate()
    {
        let kube = format!("kubernetes: {{kubeconfig: '{}'", server.display());
        fs::write(at("config.yaml"), text.replace("KUBE", &kube)).unwrap();
        let path = at("config.yaml");
        let mut run = Running::start(&[role, "--config", path.to_str().unwrap()]);
        eventually_within("the plugin runs", GENEROUS, || {
            pids().lines().count() > count
        });
        run.signal(Signal::SIGTERM);
        let (code, log) = run.ended();
        assert!(code.is_some(), "{role}: {log}");
    }
    for pid in pids().lines() {
        let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let world = World::healthy().await;
    let (line, _) = target(&world, "app", PASSWORD);
    let text = config(
        &world,
        &line,
        "schedule: {first_check: 1s, grace: 5m, check_timeout: 5m, timeout: 1m}",
    );
    // The server of its names never answers, so that a check is running.
    let dns = UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = text.replace(&world.nameserver(), &dns.local_addr().unwrap().to_string());
    let mut daemon = Daemon::start(&text);
    // Its first question: a check is running.
    dns.set_read_timeout(Some(GENEROUS)).unwrap();
    dns.recv_from(&mut [0; 512]).unwrap();
    let begun = Instant::now();
    daemon.signal(Signal::SIGTERM);
    eventually("it stops", || {
        daemon
            .log()
            .join("\n")
            .contains("running checks may finish")
    });
    assert_eq!(daemon.child.try_wait().unwrap(), None);
    daemon.signal(Signal::SIGTERM);
    let mut status = None;
    eventually_within("it has ended", GENEROUS, || {
        status = daemon.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(2));
    assert!(begun.elapsed() < Duration::from_mins(5), "before its grace");
}

// ---- the state folder ------------------------------------------------------------------------------------------

/// A file system in memory, of a size.
struct Small(PathBuf);

impl Small {
    fn at(path: &Path, size: &str) -> Self {
        fs::create_dir(path).unwrap();
        let small = Self(path.to_owned());
        small.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "none"]);
        small
    }

    fn mount(&self, options: &[&str]) {
        let status = Command::new("mount").args(options).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_read_only_state_folder_is_reported_and_what_was_there_stays() {
    let world = World::healthy().await;
    let (line, _) = target(&world, "app", PASSWORD);
    let folder = Arc::new(TempDir::new().unwrap());
    let state = Small::at(&folder.path().join("state"), "64k");
    let at = |name: &str| state.0.join(name);
    let text = config(
        &world,
        &line,
        &format!("state_dir: '{}'", state.0.display()),
    );
    let daemon = Daemon::start_in(&text, Arc::clone(&folder));
    assert!(daemon.codes("app").is_empty());
    daemon.signal(Signal::SIGHUP);
    assert_eq!(daemon.stop(), Some(0));
    let before = fs::read(at("state.json")).unwrap();
    for name in fs::read_dir(at("manifests")).unwrap() {
        fs::remove_file(name.unwrap().path()).unwrap();
    }
    for what in ["full", "read-only"] {
        if what == "full" {
            let mut filler = File::create(at("filler")).unwrap();
            while filler.write_all(&[0; 4096]).is_ok() {}
        } else {
            fs::remove_file(at("filler")).unwrap();
            state.mount(&["-o", "remount,ro"]);
        }
        let daemon = Daemon::start_in(&text, Arc::clone(&folder));
        for _ in 0..2 {
            assert!(daemon.codes("app").is_empty(), "{what}");
        }
        let errors = "pullpath_state_errors_total";
        eventually_within(what, GENEROUS, || {
            daemon
                .metrics()
                .value(errors)
                .is_some_and(|count| count > 0.0)
        });
        let log = daemon.log().join("\n");
        assert!(log.contains("a manifest can't be stored"), "{what}: {log}");
        assert!(
            log.contains("the state file can't be written"),
            "{what}: {log}"
        );
        assert_eq!(daemon.stop(), Some(0), "{what}");
        assert_eq!(fs::read(at("state.json")).unwrap(), before, "{what}");
        assert!(!at("state.json.new").exists(), "{what}");
    }
}

// ---- manifests --------------------------------------------------------------------------------------------------

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes of a manifest that is read.
const LARGEST: usize = 8 << 20;

/// As many of these elements as fit.
fn filled(element: impl Fn(usize) -> String, bytes: usize) -> (String, usize) {
    let (mut text, mut count) = (String::new(), 0);
    loop {
        let one = element(count);
        if text.len() + one.len() + 1 > bytes {
            return (text, count);
        }
        if count > 0 {
            text.push(',');
        }
        text += &one;
        count += 1;
    }
}

fn layer(n: usize) -> String {
    format!(
        r#"{{"mediaType":"{OCI_LAYER}","digest":"sha256:{n:064x}","size":{}}}"#,
        n + 1
    )
}

fn image_of(config: String, layers: &str, more: &str) -> Image {
    let config = Content::new(OCI_CONFIG, config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{layers}]{more}}}"#,
        json!({"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.bytes.len()}),
    );
    let manifest = Content::new(OCI_MANIFEST, manifest);
    let entry = json!({"mediaType": OCI_MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len(),
        "platform": {"os": "linux", "architecture": "amd64"}});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]});
    Image {
        index: Some(Content::new(OCI_INDEX, index.to_string())),
        platforms: vec![PlatformImage {
            architecture: "amd64".to_owned(),
            manifest,
            config,
            layers: Vec::new(),
        }],
        attestation: None,
    }
}

fn configuration(diff_ids: &str, more: &str) -> String {
    format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}{more}}}"#
    )
}

/// Images that are made to fill memory: name, image, what its report must contain, whether a pull would succeed.
fn hostile() -> Vec<(&'static str, Image, String, Pull)> {
    let room = LARGEST - 1000;
    let (layers, count) = filled(layer, room);
    let (ids, id_count) = filled(|n| format!("\"sha256:{n:064x}\""), room);
    let (few, _) = filled(|n| format!("\"sha256:{n:064x}\""), 100);
    let one = layer(0);
    let mut all = vec![
        // The configuration has one diff_id less; the last layer is the largest, and is not there.
        (
            "layers",
            image_of(configuration(&few, ""), &layers, ""),
            format!("diff_ids for {count} layers"),
            Pull::WouldFail,
        ),
        (
            "diff_ids",
            image_of(configuration(&ids, ""), &one, ""),
            format!("the configuration has {id_count} diff_ids for 1 layers"),
            Pull::WouldFail,
        ),
    ];
    let (ids, _) = filled(|n| format!("\"sha256:{n:064x}\""), count * 74);
    let left_out = format!("\"layers_left_out\":{}", count - 128);
    all.push((
        "matching",
        image_of(configuration(&ids, ""), &layers, ""),
        left_out,
        Pull::WouldFail,
    ));
    let history = filled(|_| "{}".to_owned(), room).0;
    let config = configuration(&few, &format!(r#","history":[{history}]"#));
    all.push((
        "history",
        image_of(config, &one, ""),
        "404".to_owned(),
        Pull::WouldFail,
    ));
    let empty = filled(|_| "{}".to_owned(), room).0;
    all.push((
        "empty",
        image_of(configuration(&few, ""), &empty, ""),
        "size of 0 bytes".to_owned(),
        Pull::WouldFail,
    ));
    let labels = filled(|n| format!("\"{n}\":\"\""), room).0;
    let more = format!(r#","annotations":{{{labels}}}"#);
    all.push((
        "annotations",
        image_of(configuration(&few, ""), &one, &more),
        "404".to_owned(),
        Pull::WouldFail,
    ));
    let more = format!(r#","x":{}{}"#, "[".repeat(4000), "]".repeat(4000));
    all.push((
        "deep",
        image_of(configuration(&few, ""), &one, &more),
        "404".to_owned(),
        Pull::WouldFail,
    ));
    let long = format!(
        r#"{{"mediaType":"{}","digest":"sha256:{:064x}","size":1}}"#,
        "x".repeat(room / 2),
        1
    );
    all.push((
        "long",
        image_of(configuration(&few, ""), &long, ""),
        "layer".to_owned(),
        Pull::WouldFail,
    ));
    let urls = filled(|n| format!("\"https://{n}.test/\""), room).0;
    let foreign = format!(
        r#"{{"mediaType":"{OCI_LAYER}","digest":"sha256:{:064x}","size":1,"urls":[{urls}]}}"#,
        1
    );
    all.push((
        "urls",
        image_of(configuration(&few, ""), &foreign, ""),
        "more URLs".to_owned(),
        Pull::Unknown,
    ));
    let twice = format!(r#","layers":[{one}]"#);
    all.push((
        "twice",
        image_of(configuration(&few, ""), &one, &twice),
        "is given twice".to_owned(),
        Pull::Unknown,
    ));
    all
}

/// Indexes that are made to fill memory.
fn hostile_indexes(good: &Image) -> Vec<(&'static str, Image, &'static str, Pull)> {
    let of = |text: String| {
        let mut image = good.clone();
        image.attestation = None;
        image.index = Some(Content::new(OCI_INDEX, text));
        image
    };
    let manifest = &good.platform("amd64").manifest;
    let mine = json!({"mediaType": OCI_MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len(),
        "platform": {"os": "linux", "architecture": "amd64"}});
    let other = |n: usize| {
        format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{n:064x}","size":9,"platform":{{"os":"linux","architecture":"a{n}"}}}}"#
        )
    };
    // containerd refuses larger ones at the top.
    let (others, _) = filled(other, (4 << 20) - 1000);
    let index = |list: &str| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{list}]}}"#)
    };
    vec![
        (
            "platforms",
            of(index(&format!("{others},{mine}"))),
            "platforms_left_out",
            Pull::WouldSucceed,
        ),
        ("foreign", of(index(&others)), "more", Pull::WouldFail),
        (
            "none",
            of(index(&filled(|_| "{}".to_owned(), 4 << 20).0)),
            "",
            Pull::WouldFail,
        ),
        (
            "same",
            of(index(&filled(|_| mine.to_string(), 1 << 20).0)),
            "probe_limit",
            Pull::Unknown,
        ),
    ]
}

fn memory_of(daemon: &Daemon, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_reports_and_state_stay_small_whatever_the_manifest() {
    let world = World::healthy().await;
    let store = &world.registry.store;
    let mut cases = hostile();
    cases.extend(
        hostile_indexes(&world.image)
            .into_iter()
            .map(|(name, image, words, pull)| (name, image, words.to_owned(), pull)),
    );
    let mut targets = Vec::new();
    for (name, image, _, _) in &cases {
        store.push(PUBLIC_REPOSITORY, name, image);
        let host = world.registry_host();
        targets.push(format!(
            "  - {{name: {name}, image: '{host}/{PUBLIC_REPOSITORY}:{name}'}}"
        ));
    }
    let (line, _) = target(&world, "app", PASSWORD);
    targets.push(line);
    let folder = Arc::new(TempDir::new().unwrap());
    let state = folder.path().join("state");
    let more = format!(
        "state_dir: '{}'\nstate_size: 16MiB\nhistory: {{memory: 100KiB}}",
        state.display()
    )
    .replace("", "");
    let text = config(&world, &targets.join("\n"), &more);
    let daemon = Daemon::start_in(&text, Arc::clone(&folder));
    assert!(daemon.codes("app").is_empty());
    let base = memory_of(&daemon, "VmRSS");
    for round in 0..2 {
        for (name, _, words, pull) in &cases {
            fs::write(format!("/proc/{}/clear_refs", daemon.child.id()), "5").unwrap();
            let document = daemon.check(name, "reach");
            let report = serde_json::to_string(&document).unwrap();
            let peak = memory_of(&daemon, "VmHWM").saturating_sub(base);
            eprintln!(
                "{name}: a report of {} bytes, at most {peak} KiB more memory",
                report.len()
            );
            let verdict = &document.reports[0].verdict;
            assert_eq!(verdict.pull, *pull, "{name}: {verdict:#?}");
            assert!(
                report.contains(words.as_str()),
                "{name}: {words}: {verdict:#?}"
            );
            assert!(report.len() < 128 << 10, "{name}: {}", report.len());
            assert!(peak < 48 << 10, "{name}: {peak} KiB");
            let written = bytes_in(&state);
            assert!(written <= 16 << 20, "{name} {round}: {written}");
        }
        assert!(daemon.codes("app").is_empty());
    }
    assert_eq!(daemon.stop(), Some(0));
}
