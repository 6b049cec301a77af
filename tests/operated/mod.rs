//! `pullpath run` as its operator has it: the built program with a configuration of a test.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(unreachable_pub, reason = "a module of several tests")]

pub mod browser;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pullpath::report::Document;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{USER, World};

/// The built program; PULLPATH names another, an optimised one where figures are wanted.
pub fn program() -> PathBuf {
    std::env::var_os("PULLPATH").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_pullpath")),
        PathBuf::from,
    )
}

/// The daemon, ended with this.
pub struct Daemon {
    pub child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub log: Arc<Mutex<Vec<String>>>,
    pub folder: Arc<TempDir>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// `Retry-After`, in seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("retry-after").then_some(value)
        });
        Some(Duration::from_secs(value?.trim().parse().ok()?))
    }
}

pub fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    send(address, method, path, headers, "")
}

/// The same with a body.
pub fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(70)))
        .unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Answer {
        status,
        head: head.to_owned(),
        body,
    }
}

pub fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}

/// Nothing is checked by itself within the first minutes, unless the configuration has a schedule.
pub fn quiet(more: &str) -> &'static str {
    if more.contains("schedule:") {
        ""
    } else {
        "schedule: {first_check: 1h}"
    }
}

/// A configuration for a world: `targets` are lines of the list.
pub fn config(world: &World, targets: &str, more: &str) -> String {
    let quiet = quiet(more);
    format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nlog: {{format: json, level: debug}}\nvantage: {{node: n1}}\n\
         network: {{nameservers: ['{}'], ca_files: ['{}'], metadata: off}}\ntargets:\n{targets}\n{quiet}\n{more}\n",
        world.nameserver(),
        world.ca.file().display()
    )
}

/// A target with a docker config of this password.
pub fn target(world: &World, name: &str, password: &str) -> (String, PathBuf) {
    let secret = World::docker_config(&world.registry_host(), USER, password);
    let path = world.write(&format!("{name}.json"), &secret);
    let line = format!(
        "  - {{name: {name}, image: '{}', credential: {{docker_config: '{}'}}}}",
        world.reference(),
        path.display()
    );
    (line, path)
}

impl Daemon {
    pub fn start(text: &str) -> Self {
        Self::start_in(text, Arc::new(TempDir::new().unwrap()))
    }

    pub fn start_in(text: &str, folder: Arc<TempDir>) -> Self {
        Self::start_as(&["run"], text, folder)
    }

    /// In another role; one that takes no orders has its public address for them.
    pub fn start_as(role: &[&str], text: &str, folder: Arc<TempDir>) -> Self {
        Self::start_with(&[], role, text, folder)
    }

    /// With an environment, as a manifest gives it.
    pub fn start_with(
        environment: &[(&str, &str)],
        role: &[&str],
        text: &str,
        folder: Arc<TempDir>,
    ) -> Self {
        let mut command = Command::new(program());
        command
            .args(role)
            .env_clear()
            .envs(environment.iter().copied());
        Self::start_command(command, text, folder)
    }

    /// A program that was prepared, up to its configuration.
    pub fn start_command(mut command: Command, text: &str, folder: Arc<TempDir>) -> Self {
        fs::write(folder.path().join("config.yaml"), text).unwrap();
        command
            .arg("--config")
            .arg(folder.path().join("config.yaml"));
        Self::started(command, folder)
    }

    /// Without a configuration.
    pub fn start_plain(args: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(args).arg("--log-format=json").env_clear();
        Self::started(command, Arc::new(TempDir::new().unwrap()))
    }

    fn started(mut command: Command, folder: Arc<TempDir>) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let fields = loop {
            let Some(line) = lines.next() else {
                panic!("it did not start: {:?}", log.lock().unwrap());
            };
            let line = line.unwrap();
            log.lock().unwrap().push(line.clone());
            let Ok(value) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if value["fields"]["message"] == "started" {
                break value["fields"].clone();
            }
        };
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let address = |name: &str| fields[name].as_str().map(|at| at.parse().unwrap());
        let public = address("listen").unwrap();
        Self {
            public,
            admin: address("admin").unwrap_or(public),
            child,
            log,
            folder,
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        ask(self.public, "GET", path, "")
    }

    pub fn order(&self, path: &str) -> Answer {
        ask(self.admin, "POST", path, "")
    }

    /// The same. An order that is refused for now (429) is repeated after the time in the answer.
    pub fn order_within(&self, path: &str, within: Duration) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.order(path);
            if answer.status != 429 {
                return answer;
            }
            let wait = answer.retry_after().unwrap_or_else(|| panic!("{answer:?}"));
            assert!(begun.elapsed() + wait < within, "not in time: {answer:?}");
            std::thread::sleep(wait);
        }
    }

    /// Makes a check; its report.
    pub fn check(&self, name: &str, tier: &str) -> Document {
        // It may be at one that is due.
        let path = format!("/-/check?target={name}&tier={tier}");
        let answer = self.order_within(&path, Duration::from_mins(1));
        assert_eq!(answer.status, 200, "{answer:?}\n{}", self.log().join("\n"));
        serde_json::from_str(&answer.body).unwrap()
    }

    pub fn codes(&self, name: &str) -> Vec<&'static str> {
        let document = self.check(name, "reach");
        document.reports[0]
            .verdict
            .findings
            .iter()
            .map(|finding| finding.cause.code())
            .collect()
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").body)
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn rewrite(&self, text: &str) {
        fs::write(self.folder.path().join("config.yaml"), text).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// Ends it as the kubelet does; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not end:\n{}", self.log().join("\n"));
    }
}

pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(what, Duration::from_secs(20), holds);
}

/// A kubeconfig for a server without TLS.
pub fn kubeconfig(folder: &Path, server: &str, user: &Value) -> PathBuf {
    let path = folder.join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    fs::write(&path, text.to_string()).unwrap();
    path
}

pub fn eventually_within(what: &str, most: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + most;
    while !holds() {
        assert!(Instant::now() < end, "{what}: it did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A scrape, by series as written.
pub struct Metrics {
    pub series: BTreeMap<String, f64>,
    pub types: BTreeMap<String, String>,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let (mut series, mut types) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let before = series.insert(name.to_owned(), value.parse().unwrap());
                assert_eq!(before, None, "{name} is there twice");
            }
        }
        Self { series, types }
    }

    pub fn value(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    pub fn with(&self, part: &str) -> Vec<&str> {
        self.series
            .keys()
            .filter(|name| name.contains(part))
            .map(String::as_str)
            .collect()
    }
}
