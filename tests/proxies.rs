//! Through real forward proxies, squid and tinyproxy, to the real registry, token service and
//! storage behind nginx.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;
#[path = "real/stack.rs"]
mod stack;
mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::free_port;
use lab::process::{Process, run};
use pullpath::diagnose::level::Severity;
use pullpath::diagnose::{Finding, Pull};
use pullpath::model::proxy::ProxyRoute;
use pullpath::report::text::{self, Style};
use pullpath::report::{Document, Report};
use stack::{Dnsmasq, Mode, PASSWORD, Pki, REPOSITORY, Registry, Stack, TAG, USER, push};
use support::image::Image;
use tempfile::TempDir;

const PROXY_USER: &str = "node";
const PROXY_PASSWORD: &str = "canary-55d1-proxy";
const NAMES: [&str; 3] = ["registry.test", "auth.test", "blobs.test"];

/// A forward proxy that knows these names and no others.
struct Proxy {
    url: String,
    address: String,
    log: PathBuf,
    _folder: TempDir,
    _process: Process,
}

impl Proxy {
    /// Debian's squid; `rules` come before the one that allows everything else.
    fn squid(names: &[&str], rules: &str) -> Self {
        let port = free_port();
        Self::squid_at(port, &format!("http_port 127.0.0.1:{port}"), names, rules)
    }

    /// The same, spoken to over TLS, with a certificate of this authority for its address.
    fn squid_over_tls(names: &[&str], pki: &Pki) -> Self {
        let port = free_port();
        let (certificate, key) = pki.issue("127.0.0.1");
        let (certificate, key) = (certificate.display(), key.display());
        let listen = format!("https_port 127.0.0.1:{port} tls-cert={certificate} tls-key={key}");
        let proxy = Self::squid_at(port, &listen, names, "");
        Self {
            url: format!("https://{}", proxy.address),
            ..proxy
        }
    }

    fn squid_at(port: u16, listen: &str, names: &[&str], rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let (hosts, config, log) = (
            at.join("hosts"),
            at.join("squid.conf"),
            at.join("access.log"),
        );
        fs::write(&hosts, hosts_file(names)).unwrap();
        let text = format!(
            "{listen}\nhosts_file {}\n{rules}\nhttp_access allow all\n\
             access_log stdio:{}\nlogfile_rotate 0\ncache_log {at}/cache.log\npid_filename {at}/pid\ncoredump_dir {at}\n\
             cache deny all\nmemory_cache_shared off\nnetdb_filename none\npinger_enable off\n\
             dns_nameservers 127.0.0.1\ndns_retransmit_interval 200 milliseconds\ndns_timeout 400 milliseconds\nshutdown_lifetime 0 seconds\ncache_effective_user proxy\n",
            hosts.display(),
            log.display(),
            at = at.display(),
        );
        fs::write(&config, text).unwrap();
        // It gives up root, and writes here.
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        run(Command::new("chown").arg("-R").arg("proxy").arg(at));
        let mut command = Command::new("squid");
        // Its shared memory is named after the service.
        command
            .args(["-N", "-n", &format!("lab{port}"), "-f"])
            .arg(&config);
        let process = Process::start("squid", &mut command, at).listening(port);
        Self::new(port, log, folder, process)
    }

    /// Debian's tinyproxy; it reads /etc/hosts, and gets one of its own.
    fn tinyproxy(names: &[&str], settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let port = free_port();
        let (hosts, resolver) = (at.join("hosts"), at.join("resolv.conf"));
        let (config, log) = (at.join("tinyproxy.conf"), at.join("access.log"));
        fs::write(&hosts, hosts_file(names)).unwrap();
        fs::write(
            &resolver,
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        )
        .unwrap();
        let text = format!(
            "Listen 127.0.0.1\nPort {port}\nTimeout 20\nLogFile \"{}\"\nLogLevel Info\nMaxClients 20\n{settings}\n",
            log.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "sh",
            "-ec",
            "mount --bind \"$1\" /etc/hosts; mount --bind \"$2\" /etc/resolv.conf; exec tinyproxy -d -c \"$3\"",
            "sh",
        ]);
        command.args([&hosts, &resolver, &config]);
        let process = Process::start("tinyproxy", &mut command, at).listening(port);
        Self::new(port, log, folder, process)
    }

    fn new(port: u16, log: PathBuf, folder: TempDir, process: Process) -> Self {
        let address = format!("127.0.0.1:{port}");
        Self {
            url: format!("http://{address}"),
            address,
            log,
            _folder: folder,
            _process: process,
        }
    }

    fn url_with(&self, password: &str) -> String {
        format!("http://{PROXY_USER}:{password}@{}", self.address)
    }

    /// Waits until the log holds all of this; squid writes it when a tunnel is closed.
    fn logs(&self, wanted: &[String]) {
        let start = Instant::now();
        loop {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            if wanted.iter().all(|line| text.contains(line)) {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{wanted:?}:\n{text}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn hosts_file(names: &[&str]) -> String {
    format!("127.0.0.1 localhost {}\n", names.join(" "))
}

struct Outcome {
    code: i32,
    document: Document,
}

impl Outcome {
    fn report(&self) -> &Report {
        &self.document.reports[0]
    }

    fn findings(&self) -> &[Finding] {
        &self.report().verdict.findings
    }

    fn text(&self) -> String {
        text::render(self.report(), Style { color: false }, false)
    }

    fn codes(&self) -> Vec<&'static str> {
        self.findings().iter().map(|f| f.cause.code()).collect()
    }

    /// How each leg went: `proxied`, or the entry of NO_PROXY that keeps it off.
    fn ways(&self) -> Vec<String> {
        let legs = self.report().evidence.walk.legs.iter();
        legs.map(|leg| match &leg.proxy_route {
            ProxyRoute::Proxied { .. } => "proxied".to_owned(),
            ProxyRoute::Excepted { entry, .. } => entry.clone(),
            other => format!("{other:?}"),
        })
        .collect()
    }

    fn is_quiet(&self) {
        assert_eq!(self.codes(), [""; 0], "{}", self.text());
        assert_eq!(
            (self.report().verdict.pull, self.code),
            (Pull::WouldSucceed, 0),
            "{}",
            self.text()
        );
    }

    /// The proxy is to blame, on this leg, and these words are said.
    fn is_missed(&self, leg: &str, words: &[&str]) {
        let text = self.text();
        assert_eq!(self.codes(), ["proxy_misconfigured"], "{text}");
        let finding = &self.findings()[0];
        assert_eq!(finding.severity, Severity::Critical, "{text}");
        assert_eq!(finding.leg.unwrap().as_str(), leg, "{text}");
        assert_eq!(
            (self.report().verdict.pull, self.code),
            (Pull::WouldFail, 1),
            "{text}"
        );
        let said = format!("{} {}", finding.evidence.join(" "), finding.hint);
        for word in words {
            assert!(said.contains(word), "{word}:\n{text}");
        }
    }
}

fn probe(args: &[&str], environment: &[(&str, &str)], password: Option<&str>) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullpath"));
    command
        .env_clear()
        .envs(environment.iter().copied())
        .args(["probe", "-o", "json", "-vv", "--timeout", "4s"])
        .args(["--transfer", "off"])
        .args(["--platform", "linux/arm64", "--trace"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    match password {
        Some(_) => command.args(["--username", USER, "--password-stdin"]),
        None => command.args(["--docker-config", NO_CREDENTIALS]),
    };
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(password.unwrap_or_default().as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    let document =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    let outcome = Outcome {
        code: output.status.code().unwrap(),
        document,
    };
    let encoded = STANDARD.encode(format!("{PROXY_USER}:{PROXY_PASSWORD}"));
    for face in [&stdout, &stderr, &outcome.text()] {
        for secret in ["canary-55d1", "X-Amz-Signature=abc", &encoded] {
            assert!(!face.contains(secret), "a secret got out:\n{face}");
        }
    }
    outcome
}

const NO_CREDENTIALS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/no-credentials.json"
);

fn probe_stack(stack: &Stack, environment: &[(&str, &str)], more: &[&str]) -> Outcome {
    let reference = stack.reference();
    let mut args = vec![reference.as_str(), "--nameserver", &stack.dns.server];
    args.extend(["--ca-file", stack.pki.ca_file.to_str().unwrap()]);
    args.extend(more);
    probe(&args, environment, Some(PASSWORD))
}

fn connects(stack: &Stack) -> Vec<String> {
    let nginx = &stack.nginx;
    let ports = [nginx.registry, nginx.auth, nginx.blobs];
    let targets = NAMES.iter().zip(ports);
    targets
        .map(|(name, port)| format!("CONNECT {name}:{port}"))
        .collect()
}

#[test]
fn all_legs_use_a_real_proxy() {
    let stack = Stack::start("abc");
    for proxy in [Proxy::squid(&NAMES, ""), Proxy::tinyproxy(&NAMES, "")] {
        let outcome = probe_stack(&stack, &[("HTTPS_PROXY", &proxy.url)], &[]);
        outcome.is_quiet();
        assert_eq!(outcome.ways(), ["proxied"; 3], "{}", outcome.text());
        proxy.logs(&connects(&stack));

        // What it leads to is reached without it, too.
        let environment = [("https_proxy", proxy.address.as_str())];
        let outcome = probe_stack(&stack, &environment, &["--compare-direct"]);
        assert_eq!(outcome.codes(), ["proxy_unneeded"], "{}", outcome.text());
        assert_eq!(outcome.code, 0);

        // The storage is taken out, in Go's ways to say so.
        let blobs = format!("blobs.test:{}", stack.nginx.blobs);
        for entry in ["blobs.test", "*.blobs.test,blobs.test", &blobs] {
            let environment = [("HTTPS_PROXY", proxy.url.as_str()), ("NO_PROXY", entry)];
            let outcome = probe_stack(&stack, &environment, &[]);
            outcome.is_quiet();
            let last = entry.rsplit(',').next().unwrap();
            assert_eq!(outcome.ways(), ["proxied", "proxied", last]);
        }
    }
}

#[test]
fn a_proxy_is_spoken_to_over_tls_and_its_certificate_is_judged() {
    let stack = Stack::start("abc");
    let proxy = Proxy::squid_over_tls(&NAMES, &stack.pki);
    let outcome = probe_stack(&stack, &[("HTTPS_PROXY", &proxy.url)], &[]);
    outcome.is_quiet();
    assert_eq!(outcome.ways(), ["proxied"; 3], "{}", outcome.text());
    assert!(
        outcome.text().contains("with the proxy: TLSv1"),
        "{}",
        outcome.text()
    );
    proxy.logs(&connects(&stack));

    let others = stack.folder.path().join("others");
    fs::create_dir(&others).unwrap();
    let strange = Proxy::squid_over_tls(&NAMES, &Pki::new(&others));
    let environment = [("HTTPS_PROXY", strange.url.as_str())];
    probe_stack(&stack, &environment, &[]).is_missed(
        "registry",
        &[
            "TLS with the proxy failed: certificate signed by an authority not trusted",
            "presented: ",
        ],
    );
    let plain = Proxy::squid(&NAMES, "");
    let url = format!("https://{}", plain.address);
    let write = format!("Write {} into HTTPS_PROXY", plain.url);
    probe_stack(&stack, &[("HTTPS_PROXY", &url)], &[]).is_missed("registry", &[&write]);

    // Builds of containerd differ by what they make of it.
    let url = format!("ftp://{}", plain.address);
    let outcome = probe_stack(&stack, &[("HTTPS_PROXY", &url)], &[]);
    assert_eq!(outcome.codes(), ["proxy_unknown"], "{}", outcome.text());
    // A URL that is none is a proxy named by its scheme.
    let url = format!("http://[{}", plain.address);
    let outcome = probe_stack(&stack, &[("HTTPS_PROXY", &url)], &[]);
    outcome.is_missed("registry", &["the proxy's own name http:80"]);
    let settings = &outcome.report().evidence.proxies;
    assert!(settings.problems[0].contains("Go treats it as http://http:80"));
}

#[test]
fn a_proxy_that_refuses_a_host_is_reported_with_its_own_words() {
    let stack = Stack::start("abc");
    let filter = stack.folder.path().join("filter");
    fs::write(&filter, "^blobs\\.test$\n").unwrap();
    let squid = Proxy::squid(
        &NAMES,
        "acl storage dstdomain blobs.test\nhttp_access deny storage",
    );
    let tinyproxy = Proxy::tinyproxy(&NAMES, &format!("Filter \"{}\"", filter.display()));
    for (proxy, word) in [(&squid, "ERR_ACCESS_DENIED"), (&tinyproxy, "403")] {
        let proxied = ("HTTPS_PROXY", proxy.url.as_str());
        let outcome = probe_stack(&stack, &[proxied], &[]);
        let allow = format!("Allow blobs.test port {}", stack.nginx.blobs);
        outcome.is_missed("blob", &["403", word, &allow]);
        let outcome = probe_stack(&stack, &[proxied], &["--compare-direct"]);
        outcome.is_missed(
            "blob",
            &[
                word,
                "without the proxy, the same check succeeds",
                "Add blobs.test to NO_PROXY",
            ],
        );
        // The advice is good.
        probe_stack(&stack, &[proxied, ("NO_PROXY", "blobs.test")], &[]).is_quiet();
    }
}

/// squid, which requires this password of `PROXY_USER`.
fn squid_with_login(stack: &Stack, password: &str) -> Proxy {
    let users = stack.folder.path().join("proxy.users");
    let line = run(Command::new("htpasswd").args(["-bnm", PROXY_USER, password]));
    fs::write(&users, line).unwrap();
    // squid's helper is not root.
    fs::set_permissions(stack.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Proxy::squid(
        &NAMES,
        &format!(
            "auth_param basic program /usr/lib/squid/basic_ncsa_auth {}\nauth_param basic children 1\n\
             acl known proxy_auth REQUIRED\nhttp_access deny !known",
            users.display()
        ),
    )
}

#[test]
fn a_proxy_that_requires_a_password_gets_it_and_no_other_server_does() {
    let stack = Stack::start("abc");
    let squid = squid_with_login(&stack, PROXY_PASSWORD);
    let tinyproxy = Proxy::tinyproxy(&NAMES, &format!("BasicAuth {PROXY_USER} {PROXY_PASSWORD}"));
    for (proxy, refusal) in [(&squid, "407"), (&tinyproxy, "40")] {
        let hint = if refusal == "407" {
            "user and password"
        } else {
            ""
        };
        probe_stack(&stack, &[("HTTPS_PROXY", &proxy.url)], &[])
            .is_missed("registry", &[refusal, hint]);
        let wrong = proxy.url_with("canary-55d1-wrong");
        probe_stack(&stack, &[("HTTPS_PROXY", &wrong)], &[]).is_missed("registry", &[refusal]);
        let right = proxy.url_with(PROXY_PASSWORD);
        let outcome = probe_stack(&stack, &[("HTTPS_PROXY", &right)], &[]);
        outcome.is_quiet();
        let evidence = &outcome.report().evidence;
        assert!(evidence.proxies.https.as_ref().unwrap().authenticated);
        assert_eq!(outcome.ways(), ["proxied"; 3]);
    }
}

/// Go takes no `^` there, and systemd no lone `%`: each is reported, and the advice makes the real proxy accept the login.
#[test]
fn a_password_with_special_characters_is_reported_until_it_is_encoded() {
    let stack = Stack::start("abc");
    let password = format!("{PROXY_PASSWORD}^/#1");
    let squid = squid_with_login(&stack, &password);
    let unit = stack.folder.path().join("proxy.conf");
    let probe = |value: &str| {
        let text = format!("[Service]\nEnvironment=\"HTTPS_PROXY={value}\"\n");
        fs::write(&unit, text).unwrap();
        probe_stack(&stack, &[], &["--proxy-from", unit.to_str().unwrap()])
    };
    let encoded = format!("{PROXY_PASSWORD}%5E%2F%231");
    let advice =
        "Write '^' as %5E in the user or password of HTTPS_PROXY (in a systemd unit as %%5E)";
    probe(&squid.url_with(&password)).is_missed("registry", &[advice]);
    // systemd drops the assignment: no proxy is used, and none is needed here.
    let outcome = probe(&squid.url_with(&encoded));
    assert_eq!(
        outcome.codes(),
        ["proxy_misconfigured"],
        "{}",
        outcome.text()
    );
    assert_eq!(outcome.report().verdict.pull, Pull::WouldSucceed);
    assert!(
        outcome.findings()[0].hint.contains("write each % as %%"),
        "{}",
        outcome.text()
    );
    let outcome = probe(&squid.url_with(&encoded.replace('%', "%%")));
    outcome.is_quiet();
    assert_eq!(outcome.ways(), ["proxied"; 3]);
    squid.logs(&connects(&stack));
}

#[test]
fn storage_that_the_proxy_cannot_reach_is_reported_on_that_leg() {
    let stack = Stack::start("abc");
    let known = &NAMES[..2];
    for (proxy, word) in [
        (Proxy::squid(known, ""), "ERR_"),
        (Proxy::tinyproxy(known, ""), "50"),
    ] {
        let proxied = ("HTTPS_PROXY", proxy.url.as_str());
        let outcome = probe_stack(&stack, &[proxied], &["--compare-direct"]);
        let end = "without the proxy, the same check succeeds";
        outcome.is_missed("blob", &[word, end]);
    }
}

#[test]
fn the_drop_ins_of_containerds_unit_say_which_proxy() {
    let stack = Stack::start("abc");
    let proxy = Proxy::squid(&NAMES, "");
    let folder = stack.folder.path().join("containerd.service.d");
    fs::create_dir(&folder).unwrap();
    let included = stack.folder.path().join("containerd.env");
    fs::write(&included, format!("HTTPS_PROXY={}\n", proxy.url)).unwrap();
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    write(
        "10-old.conf",
        "[Service]\nEnvironment=\"HTTPS_PROXY=http://127.0.0.1:9\" NO_PROXY=registry.test\n"
            .to_owned(),
    );
    write(
        "20-proxy.conf",
        format!(
            "[Service]\nEnvironment=NO_PROXY=.svc,auth.test\nEnvironmentFile=-{}\nEnvironmentFile=-/nonexistent\n",
            included.display()
        ),
    );
    write(
        "30-note.txt",
        "[Service]\nEnvironment=NO_PROXY=*\n".to_owned(),
    );
    // What this process has is not what containerd has.
    let own = [("HTTPS_PROXY", "http://127.0.0.1:9")];
    let outcome = probe_stack(&stack, &own, &["--proxy-from", folder.to_str().unwrap()]);
    outcome.is_quiet();
    assert_eq!(outcome.ways(), ["proxied", "auth.test", "proxied"]);
    assert!(outcome.report().evidence.proxies.is_containerds);
    let asked = connects(&stack);
    proxy.logs(&[asked[0].clone(), asked[2].clone()]);
    let log = fs::read_to_string(&proxy.log).unwrap();
    assert!(!log.contains("auth.test"), "{log}");
}

#[test]
fn a_plain_http_registry_is_requested_by_its_whole_url() {
    let folder = tempfile::tempdir().unwrap();
    let dns = Dnsmasq::of_lab(folder.path(), None);
    let storage = folder.path().join("storage");
    let registry = Registry::start(folder.path(), "open", &storage, &Mode::Open, None);
    let to = format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", registry.port);
    push(folder.path(), &Image::multi(3), &to, &[]);
    let at = format!("registry.test:{}", registry.port);
    let reference = format!("{at}/{REPOSITORY}:{TAG}");
    let args = [
        reference.as_str(),
        "--plain-http",
        "--nameserver",
        &dns.server,
    ];
    let pki = Pki::new(folder.path());
    let args = [&args[..], &["--ca-file", pki.ca_file.to_str().unwrap()]].concat();
    for proxy in [
        Proxy::squid(&NAMES, ""),
        Proxy::tinyproxy(&NAMES, ""),
        Proxy::squid_over_tls(&NAMES, &pki),
    ] {
        let outcome = probe(&args, &[("HTTP_PROXY", &proxy.url)], None);
        outcome.is_quiet();
        assert_eq!(outcome.ways(), ["proxied"], "{}", outcome.text());
        proxy.logs(&[
            format!("GET http://{at}/v2/ "),
            format!("HEAD http://{at}/v2/{REPOSITORY}/manifests/{TAG} "),
            format!("GET http://{at}/v2/{REPOSITORY}/blobs/sha256:"),
        ]);
    }
    // Its own refusals are not the registry's.
    let denying = Proxy::squid(&NAMES, "http_access deny all");
    let nameless = Proxy::squid(&[], "");
    for (proxy, word) in [(denying, "ERR_ACCESS_DENIED"), (nameless, "ERR_")] {
        let environment = [("HTTP_PROXY", proxy.url.as_str())];
        let mut args = args.clone();
        args.push("--compare-direct");
        let outcome = probe(&args, &environment, None);
        let end = "without the proxy, the same check succeeds";
        outcome.is_missed("registry", &[word, end]);
    }
}

/// A folder or file that is not there is said, and nothing is probed.
#[test]
fn a_proxy_file_that_is_not_there_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .env_clear()
        .args(["probe", "registry.test/a:1", "--proxy-from"])
        .arg(Path::new("/nonexistent/containerd.service.d"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--proxy-from"), "{said}");
}
