//! Beside a real containerd: both use the same hosts.toml and the same servers, and the servers' log
//! says which host each of them asked for the tag, the manifests and the layers.
//!
//! Debian's containerd is 1.6, and the check follows its rules. `ctr content fetch` is the fetch of
//! `ctr images pull` without the unpacking. Its requests are made by `ctr` itself, with containerd's
//! own resolver.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;
#[path = "real/stack.rs"]
mod stack;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::netns::Netns;
use lab::process::{Process, run};
use pullpath::diagnose::Pull;
use pullpath::model::evidence::{Evidence, Walk};
use pullpath::model::hosts::HostsEffect;
use pullpath::report::Document;
use pullpath::report::text::{self, Style};
use stack::{Mode, Pki, REPOSITORY, Registry, TAG, push};
use support::image::Image;
use tempfile::TempDir;

const REGISTRY: &str = "registry.test";
/// The one that is compared with.
const RUNTIME: &str = "containerd://1.6.20";
const OWN_PORT: u16 = 8443;
const HEADER: &str = "canary-55d1-header";

/// The servers, a name each. All have the image, but for what is said of them.
const SERVERS: &[(&str, &str)] = &[
    (REGISTRY, ALL),
    ("m1.test", ALL),
    ("m2.test", ALL),
    ("other.test", ALL),
    ("plain.test", ALL),
    ("untrusted.test", ALL),
    ("certified.test", ALL),
    // No such image there, says a real registry.
    (
        "empty.test",
        "location / { rewrite ^/v2/team/app/(.*)$ /v2/none/such/$1 break; PASS }",
    ),
    ("sick500.test", "location / { return 500; }"),
    ("sick503.test", "location / { return 503; }"),
    (
        "layerless.test",
        "location ~ /blobs/ { return 404; } location / { PASS }",
    ),
    // The tag is not known, or not any more; its content is.
    (
        "tagless.test",
        "location ~ /manifests/1.0$ { return 404; } location / { PASS }",
    ),
    (
        "tagonly.test",
        "location ~ /manifests/sha256: { if ($request_method = GET) { return 404; } PASS } location / { PASS }",
    ),
    (
        "locked.test",
        "location / { auth_basic lab; auth_basic_user_file /dev/null; PASS }",
    ),
    // The API below a prefix: instead of /v2, and before it.
    (
        "prefix.test",
        "location /hub/x/ { rewrite ^/hub/x/(.*)$ /v2/$1 break; PASS } \
         location /hub/y/ { rewrite ^/hub/y/(.*)$ /$1 break; PASS }",
    ),
];

const ALL: &str = "location / { PASS }";

/// A network with a registry, its mirrors and a containerd.
struct Lab {
    folder: TempDir,
    netns: Netns,
    pki: Pki,
    image: Image,
    log: PathBuf,
    socket: PathBuf,
    _names: Names,
    _servers: Vec<Process>,
}

/// `/etc/hosts` of a namespace (ip-netns(8)).
struct Names(PathBuf);

impl Names {
    fn new(netns: &Netns, text: &str) -> Self {
        let folder = Path::new("/etc/netns").join(&netns.name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("hosts"), text).unwrap();
        Self(folder)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Lab {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = Image::multi(11);
        let storage = folder.path().join("storage");
        {
            let door = Registry::start(folder.path(), "push", &storage, &Mode::Open, None);
            let to = format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", door.port);
            push(folder.path(), &image, &to, &[]);
        }
        let netns = Netns::new();
        // Nothing listens at the last one's port.
        let names = SERVERS.iter().map(|(name, _)| *name).chain(["dead.test"]);
        let lines: String = names.map(|name| format!("127.0.0.1 {name}\n")).collect();
        let names = Names::new(&netns, &format!("127.0.0.1 localhost\n{lines}"));
        let pki = Pki::new(folder.path());
        let log = folder.path().join("access.log");
        let registry = registry(&netns, folder.path(), &storage);
        let nginx = nginx(&netns, folder.path(), &pki, &log);
        let (containerd, socket) = containerd(&netns, folder.path());
        Self {
            folder,
            netns,
            pki,
            image,
            log,
            socket,
            _names: names,
            _servers: vec![registry, nginx, containerd],
        }
    }

    /// What was asked since the log was `from` long.
    fn requests(&self, from: usize) -> Vec<Request> {
        // Whatever came before this is in the log when this is: one process writes it.
        let mark = format!("/mark-{from}");
        run(self
            .netns
            .command("curl")
            .args(["-s", &format!("http://plain.test{mark}")]));
        let start = Instant::now();
        loop {
            let text = fs::read_to_string(&self.log).unwrap();
            let new = &text[from..];
            if new.contains(&mark) {
                let lines = new.lines().filter(|line| !line.contains("/mark-"));
                return lines.map(Request::read).collect();
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn logged(&self) -> usize {
        usize::try_from(self.log.metadata().unwrap().len()).unwrap()
    }

    /// A pull by containerd: whether it succeeded, its output, and its requests.
    fn containerd(&self, case: &Case, hosts_dir: &Path) -> (bool, String, Vec<Request>) {
        let from = self.logged();
        let mut command = self.netns.command("ctr");
        self.environment(&mut command, case);
        let output = command
            .arg("-a")
            .arg(&self.socket)
            // Content of one namespace is not visible in another; see the configuration.
            .args(["-n", &format!("case-{}", self.logged())])
            .args([
                "content",
                "fetch",
                "--platform",
                "linux/arm64",
                "--hosts-dir",
            ])
            .arg(hosts_dir)
            .arg(self.reference(case))
            .output()
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), said, self.requests(from))
    }

    fn pullpath(&self, case: &Case, settings: [&str; 2]) -> (i32, Document, Vec<Request>) {
        self.pullpath_as(RUNTIME, case, settings)
    }

    fn pullpath_as(
        &self,
        runtime: &str,
        case: &Case,
        settings: [&str; 2],
    ) -> (i32, Document, Vec<Request>) {
        let from = self.logged();
        let mut command = self.netns.command(env!("CARGO_BIN_EXE_pullpath"));
        self.environment(&mut command, case);
        let none = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/no-credentials.json"
        );
        let output = command
            .args(["probe", "-o", "json", "--timeout", "3s"])
            .args(["--transfer", "off", "--runtime", runtime])
            .args(["--platform", "linux/arm64", "--docker-config", none])
            .args(settings)
            .arg(self.reference(case))
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let document: Document = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{}: {error}: {stdout}{stderr}", case.name));
        let text = text::render(&document.reports[0], Style { color: false }, false);
        for face in [&stdout, &stderr, &text] {
            assert!(!face.contains(HEADER), "a secret got out:\n{face}");
        }
        (output.status.code().unwrap(), document, self.requests(from))
    }

    fn environment(&self, command: &mut Command, case: &Case) {
        command.env_clear().env("PATH", PATH);
        // Go and we read it alike.
        let roots = if case.trusts {
            &self.pki.ca_file
        } else {
            Path::new("/dev/null")
        };
        command.env("SSL_CERT_FILE", roots);
        command.env("SSL_CERT_DIR", "/nonexistent");
    }

    fn reference(&self, case: &Case) -> String {
        let top = &self.image.top().digest;
        case.image.replace("DIGEST", top)
    }

    /// Writes the files of a case; the folder that holds them.
    fn write(&self, case: &Case) -> PathBuf {
        let root = self.folder.path().join("certs.d").join(case.name);
        for (name, text) in case.files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = match *text {
                "CA" => fs::read_to_string(&self.pki.ca_file).unwrap(),
                "CERT" => {
                    fs::read_to_string(self.pki.ca_file.with_file_name("me/cert.pem")).unwrap()
                }
                "KEY" => fs::read_to_string(self.pki.ca_file.with_file_name("me/key.pem")).unwrap(),
                text => text.to_owned(),
            };
            fs::write(path, text).unwrap();
        }
        root
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn registry(netns: &Netns, folder: &Path, storage: &Path) -> Process {
    let config = folder.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:5000\n  secret: lab\n",
        storage.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = netns.command("docker-registry");
    Process::start("registry", command.arg("serve").arg(&config), folder).listening(5000)
}

fn nginx(netns: &Netns, folder: &Path, pki: &Pki, log: &Path) -> Process {
    let strangers = folder.join("strangers");
    fs::create_dir(&strangers).unwrap();
    let strangers = Pki::new(&strangers);
    pki.issue("me");
    let servers: String = SERVERS
        .iter()
        .map(|(name, locations)| {
            let issuer = if *name == "untrusted.test" { &strangers } else { pki };
            let (certificate, key) = issuer.issue(name);
            let demand = if *name == "certified.test" {
                format!("ssl_client_certificate {}; ssl_verify_client on;", pki.ca_file.display())
            } else {
                String::new()
            };
            let pass = "proxy_pass http://127.0.0.1:5000; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;";
            format!(
                "server {{ listen 127.0.0.1:80; listen 127.0.0.1:443 ssl http2; listen 127.0.0.1:{OWN_PORT} ssl http2; server_name {name}; ssl_certificate {}; ssl_certificate_key {}; {demand}\n{}\n}}\n",
                certificate.display(),
                key.display(),
                locations.replace("PASS", pass)
            )
        })
        .collect();
    let work = folder.join("nginx");
    fs::create_dir(&work).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", work.display()))
        .collect();
    let text = format!(
        "daemon off; master_process off; pid {}/pid; error_log stderr;\nevents {{}}\nhttp {{\n\
         log_format lab '$server_name $request_method $request_uri $status $http_x_corp';\naccess_log {} lab;\n{temporary}{servers}}}\n",
        work.display(),
        log.display(),
    );
    let config = work.join("nginx.conf");
    fs::write(&config, text).unwrap();
    let mut command = netns.command("nginx");
    command.arg("-c").arg(&config).arg("-p").arg(&work);
    Process::start("nginx", &mut command, folder)
        .listening(443)
        .listening(80)
}

/// containerd with a store of its own. Content that one of its namespaces has is fetched again by
/// another, so that each case really asks.
fn containerd(netns: &Netns, folder: &Path) -> (Process, PathBuf) {
    let work = folder.join("containerd");
    fs::create_dir(&work).unwrap();
    let socket = work.join("sock");
    let at = work.display();
    let text = format!(
        "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{at}/sock\"\n[ttrpc]\naddress = \"{at}/ttrpc\"\n\
         [plugins.\"io.containerd.metadata.v1.bolt\"]\ncontent_sharing_policy = \"isolated\"\n"
    );
    let config = work.join("config.toml");
    fs::write(&config, text).unwrap();
    let mut command = netns.command("containerd");
    command.env_clear().env("PATH", PATH).arg("-c").arg(&config);
    let process = Process::start("containerd", &mut command, folder);
    let start = Instant::now();
    loop {
        let version = Command::new("ctr")
            .arg("-a")
            .arg(&socket)
            .arg("version")
            .output();
        if version.unwrap().status.success() {
            return (process, socket);
        }
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "containerd is not ready:\n{}",
            process.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One line of the servers' log.
#[derive(Clone, Debug)]
struct Request {
    host: String,
    method: String,
    path: String,
    query: String,
    status: u16,
    header: String,
}

impl Request {
    fn read(line: &str) -> Self {
        let fields: Vec<&str> = line.split(' ').collect();
        let [host, method, target, status, header] = fields[..] else {
            panic!("{line}");
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            host: host.trim_end_matches(".test").to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            status: status.parse().unwrap(),
            header: header.to_owned(),
        }
    }
}

/// Who was asked for something, in order, and answered what: `m1 200`.
fn asked(requests: &[Request], method: &str, ending: &str) -> Vec<String> {
    requests
        .iter()
        .filter(|request| request.method == method && request.path.ends_with(ending))
        .map(|r| format!("{} {}", r.host, r.status))
        .collect()
}

/// The expected result of a folder of settings. Hosts are written without their `.test`.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    image: &'static str,
    /// Below certs.d.
    files: &'static [(&'static str, &'static str)],
    /// The lab's authority is among the system's.
    trusts: bool,
    /// Hosts that receive the requests for the tag, for each manifest, and, where the pull succeeds,
    /// for each layer; with the status.
    tag: &'static [&'static str],
    manifest: &'static [&'static str],
    layer: &'static [&'static str],
    /// Hosts that our report names as failing or serving other content, and the deciding one.
    others: &'static [&'static str],
    decides: &'static str,
    /// What the report finds.
    codes: &'static [&'static str],
}

const IMAGE: &str = "registry.test/team/app:1.0";
const FILE: &str = "registry.test/hosts.toml";

/// The first mirror serves all.
const ALIVE: Case = Case {
    name: "alive",
    image: IMAGE,
    files: &[(FILE, "[host.\"https://m1.test\"]\n")],
    trusts: true,
    tag: &["m1 200"],
    manifest: &["m1 200"],
    layer: &["m1 200"],
    others: &[],
    decides: "m1",
    codes: &[],
};

/// The registry itself serves all.
const BYPASSED: Case = Case {
    tag: &["registry 200"],
    manifest: &["registry 200"],
    layer: &["registry 200"],
    decides: "registry",
    ..ALIVE
};

const ORDER: &[Case] = &[
    ALIVE,
    Case {
        name: "no folder",
        files: &[("elsewhere.test/hosts.toml", "[host.\"https://m1.test\"]\n")],
        ..BYPASSED
    },
    Case {
        name: "dead",
        files: &[(FILE, "[host.\"https://dead.test:9999\"]\n")],
        others: &["dead"],
        codes: &["mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "pull only",
        files: &[(
            FILE,
            "[host.\"https://m1.test\"]\ncapabilities = [\"pull\"]\n",
        )],
        tag: &["registry 200"],
        others: &["registry"],
        ..ALIVE
    },
    Case {
        name: "push only",
        // Content is requested from every host, whatever its capabilities.
        files: &[(
            FILE,
            "[host.\"https://m1.test\"]\ncapabilities = [\"push\"]\n",
        )],
        tag: &["registry 200"],
        others: &["registry"],
        ..ALIVE
    },
    Case {
        name: "empty",
        files: &[(FILE, "[host.\"https://empty.test\"]\n")],
        tag: &["empty 404", "registry 200"],
        manifest: &["empty 404", "registry 200"],
        layer: &["empty 404", "registry 200"],
        others: &["empty"],
        codes: &["mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "answers 500",
        files: &[(FILE, "[host.\"https://sick500.test\"]\n")],
        tag: &["sick500 500", "registry 200"],
        manifest: &["sick500 500", "registry 200"],
        layer: &["sick500 500", "registry 200"],
        others: &["sick500"],
        codes: &["mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "answers 503",
        files: &[(FILE, "[host.\"https://sick503.test\"]\n")],
        tag: &["sick503 503", "registry 200"],
        manifest: &["sick503 503", "registry 200"],
        layer: &["sick503 503", "registry 200"],
        others: &["sick503"],
        codes: &["mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "asks for a password",
        files: &[(FILE, "[host.\"https://locked.test\"]\n")],
        tag: &["locked 401", "registry 200"],
        manifest: &["locked 401", "registry 200"],
        layer: &["locked 401", "registry 200"],
        others: &["locked"],
        codes: &["mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "no layers",
        files: &[(FILE, "[host.\"https://layerless.test\"]\n")],
        tag: &["layerless 200"],
        manifest: &["layerless 200"],
        layer: &["layerless 404", "registry 200"],
        others: &["layerless"],
        codes: &["mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "no tag",
        files: &[(FILE, "[host.\"https://tagless.test\"]\n")],
        tag: &["tagless 404", "registry 200"],
        manifest: &["tagless 200"],
        layer: &["tagless 200"],
        others: &["registry"],
        decides: "tagless",
        ..ALIVE
    },
    Case {
        name: "no content",
        files: &[(FILE, "[host.\"https://tagonly.test\"]\n")],
        tag: &["tagonly 200"],
        manifest: &["tagonly 404", "registry 200"],
        // Requested from all hosts again.
        layer: &["tagonly 200"],
        others: &["tagonly"],
        codes: &["mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "two in the order of their headers",
        files: &[(
            FILE,
            "[host]\n[host.\"https://m2.test\"]\n[host.\"https://m1.test\"]\n",
        )],
        tag: &["m2 200"],
        manifest: &["m2 200"],
        layer: &["m2 200"],
        decides: "m2",
        ..ALIVE
    },
    Case {
        name: "two, the first of them failing",
        files: &[(
            FILE,
            "[host.\"https://sick503.test\"]\n[host.\"https://m1.test\"]\n",
        )],
        tag: &["sick503 503", "m1 200"],
        manifest: &["sick503 503", "m1 200"],
        layer: &["sick503 503", "m1 200"],
        others: &["sick503"],
        codes: &["mirror_order"],
        ..ALIVE
    },
    Case {
        name: "default folder",
        files: &[("_default/hosts.toml", "[host.\"https://m1.test\"]\n")],
        ..ALIVE
    },
    Case {
        name: "own folder before the default one",
        files: &[
            ("_default/hosts.toml", "[host.\"https://m2.test\"]\n"),
            (FILE, "[host.\"https://m1.test\"]\n"),
        ],
        ..ALIVE
    },
    Case {
        name: "folder with underscores",
        image: "registry.test:8443/team/app:1.0",
        files: &[
            (
                "registry.test:8443/hosts.toml",
                "[host.\"https://m2.test\"]\n",
            ),
            (
                "registry.test_8443_/hosts.toml",
                "[host.\"https://m1.test\"]\n",
            ),
        ],
        ..ALIVE
    },
    Case {
        name: "folder with a colon",
        image: "registry.test:8443/team/app:1.0",
        files: &[
            (
                "registry.test:8443/hosts.toml",
                "[host.\"https://m2.test\"]\n",
            ),
            ("registry.test/hosts.toml", "[host.\"https://m1.test\"]\n"),
        ],
        tag: &["m2 200"],
        manifest: &["m2 200"],
        layer: &["m2 200"],
        decides: "m2",
        ..ALIVE
    },
    Case {
        name: "by digest",
        image: "registry.test/team/app@DIGEST",
        files: &[(
            FILE,
            "[host.\"https://m1.test\"]\ncapabilities = [\"pull\"]\n",
        )],
        ..ALIVE
    },
];

const SETTINGS: &[Case] = &[
    Case {
        name: "another server",
        files: &[(
            FILE,
            "server = \"https://other.test\"\n[host.\"https://dead.test:9999\"]\n",
        )],
        tag: &["other 200"],
        manifest: &["other 200"],
        layer: &["other 200"],
        others: &["dead"],
        decides: "other",
        codes: &["mirror_order"],
        ..ALIVE
    },
    Case {
        name: "not decoded",
        files: &[
            (
                FILE,
                "[host.\"https://m1.test\"]\ncapabilities = \"pull\"\n",
            ),
            // What counts then.
            ("registry.test/ca.crt", "CA"),
        ],
        trusts: false,
        codes: &["hosts_toml_invalid"],
        ..BYPASSED
    },
    Case {
        name: "no TOML",
        files: &[(FILE, "[host.\"https://m1.test\"\n")],
        codes: &["hosts_toml_invalid"],
        ..BYPASSED
    },
    Case {
        name: "a host that is no URL to Go",
        files: &[(FILE, "[host.\"https://m1.test \"]\n")],
        codes: &["hosts_toml_invalid"],
        ..BYPASSED
    },
    Case {
        name: "dotted keys",
        files: &[(
            FILE,
            "host.\"https://m1.test\".capabilities = [\"pull\", \"resolve\"]\n",
        )],
        ..ALIVE
    },
    Case {
        name: "capability unknown",
        files: &[(
            FILE,
            "[host.\"https://m1.test\"]\ncapabilities = [\"pull\", \"fetch\"]\n",
        )],
        codes: &["hosts_toml_invalid"],
        ..BYPASSED
    },
    Case {
        name: "override path",
        files: &[(
            FILE,
            "[host.\"https://prefix.test/hub/x\"]\noverride_path = true\n",
        )],
        tag: &["prefix 200"],
        manifest: &["prefix 200"],
        layer: &["prefix 200"],
        decides: "prefix",
        ..ALIVE
    },
    Case {
        name: "path before v2",
        files: &[(FILE, "[host.\"https://prefix.test/hub/y\"]\n")],
        tag: &["prefix 200"],
        manifest: &["prefix 200"],
        layer: &["prefix 200"],
        decides: "prefix",
        ..ALIVE
    },
    Case {
        name: "plain http",
        files: &[(FILE, "[host.\"http://plain.test\"]\n")],
        tag: &["plain 200"],
        manifest: &["plain 200"],
        layer: &["plain 200"],
        decides: "plain",
        ..ALIVE
    },
    Case {
        name: "not verified",
        files: &[(
            FILE,
            "[host.\"https://untrusted.test\"]\nskip_verify = true\n",
        )],
        tag: &["untrusted 200"],
        manifest: &["untrusted 200"],
        layer: &["untrusted 200"],
        decides: "untrusted",
        codes: &["mirror_insecure"],
        ..ALIVE
    },
    Case {
        name: "not trusted",
        files: &[(FILE, "[host.\"https://untrusted.test\"]\n")],
        others: &["untrusted"],
        codes: &["mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "authority by a relative path",
        files: &[
            (FILE, "[host.\"https://m1.test\"]\nca = \"sub/lab.pem\"\n"),
            ("registry.test/sub/lab.pem", "CA"),
        ],
        trusts: false,
        ..ALIVE
    },
    Case {
        name: "client certificate",
        files: &[
            (
                FILE,
                "[host.\"https://certified.test\"]\nclient = [[\"me.pem\", \"me.key\"]]\n",
            ),
            ("registry.test/me.pem", "CERT"),
            ("registry.test/me.key", "KEY"),
        ],
        tag: &["certified 200"],
        manifest: &["certified 200"],
        layer: &["certified 200"],
        decides: "certified",
        ..ALIVE
    },
    Case {
        name: "no client certificate",
        files: &[(FILE, "[host.\"https://certified.test\"]\n")],
        tag: &["certified 400", "registry 200"],
        manifest: &["certified 400", "registry 200"],
        layer: &["certified 400", "registry 200"],
        others: &["certified"],
        codes: &["mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "header",
        files: &[(
            FILE,
            "[host.\"https://m1.test\".header]\nx-corp = \"canary-55d1-header\"\n",
        )],
        ..ALIVE
    },
    Case {
        name: "header below its host",
        files: &[(
            FILE,
            "[host.\"https://m1.test\"]\n[host.\"https://m1.test\".header]\nx-corp = [\"canary-55d1-header\"]\n",
        )],
        ..ALIVE
    },
];

/// Both fail.
const FAILING: &[Case] = &[
    Case {
        name: "no host has it",
        image: "registry.test/team/absent:1.0",
        files: &[(FILE, "[host.\"https://m1.test\"]\n")],
        tag: &["m1 404", "registry 404"],
        manifest: &[],
        layer: &[],
        others: &["m1"],
        codes: &["manifest_unknown", "mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "no host answers",
        files: &[(
            FILE,
            "server = \"https://sick503.test\"\n[host.\"https://dead.test:9999\"]\n",
        )],
        tag: &["sick503 503"],
        manifest: &[],
        layer: &[],
        others: &["dead"],
        decides: "sick503",
        codes: &["registry_5xx", "mirror_order"],
        ..BYPASSED
    },
    Case {
        name: "no host has the layers",
        files: &[(
            FILE,
            "server = \"https://layerless.test\"\n[host.\"https://empty.test\"]\ncapabilities = [\"push\"]\n[host.\"https://sick500.test\"]\n",
        )],
        tag: &["sick500 500", "layerless 200"],
        manifest: &["empty 404", "sick500 500", "layerless 200"],
        layer: &[],
        others: &["empty", "sick500"],
        decides: "layerless",
        codes: &["blob_unknown", "mirror_order", "mirror_order"],
        ..BYPASSED
    },
];

fn host(walk: &Walk) -> String {
    let name = walk.host.endpoint.host.to_string();
    name.trim_end_matches(".test").to_owned()
}

/// Who would be asked, by our report alone: those that are named as failing, and the one that is
/// said to serve.
fn check_report(case: &Case, evidence: &Evidence, all: &str) {
    let others: Vec<String> = evidence.others.iter().map(host).collect();
    assert_eq!(others, case.others, "{all}");
    assert_eq!(host(&evidence.walk), case.decides, "{all}");
}

fn check(lab: &Lab, case: &Case, succeeds: bool) {
    let folder = lab.write(case);
    let (pulled, said, theirs) = lab.containerd(case, &folder);
    let path = folder.to_str().unwrap();
    let (code, document, ours) = lab.pullpath(case, ["--hosts-dir", path]);
    let report = &document.reports[0];
    let all = format!(
        "\n=== {}\n{said}\ncontainerd asked {theirs:#?}\nwe asked {ours:#?}\n{}",
        case.name,
        text::render(report, Style { color: false }, false)
    );

    // The host behind a mirror that serves receives one request, which no pull makes.
    let mut ours = ours;
    if let Some(behind) = report.evidence.upstream.as_deref().map(host) {
        let of_behind = |request: &Request| request.host == behind;
        assert!(ours.iter().filter(|r| of_behind(r)).count() <= 1, "{all}");
        ours.retain(|request| !(of_behind(request) && request.method == "HEAD"));
    }

    // What containerd did is what the case says.
    let platform = lab.image.platform("arm64");
    let layer = platform
        .layers
        .iter()
        .max_by_key(|l| l.bytes.len())
        .unwrap();
    let version = if case.image.contains("DIGEST") {
        lab.image.top().digest.clone()
    } else {
        TAG.to_owned()
    };
    let tag = format!("/manifests/{version}");
    let index = format!("/manifests/{}", lab.image.top().digest);
    let manifest = format!("/manifests/{}", platform.manifest.digest);
    let blob = format!("/blobs/{}", layer.digest);
    assert_eq!(pulled, succeeds, "{all}");
    assert_eq!(asked(&theirs, "HEAD", &tag), case.tag, "{all}");
    assert_eq!(asked(&theirs, "GET", &index), case.manifest, "{all}");
    assert_eq!(asked(&theirs, "GET", &manifest), case.manifest, "{all}");
    // Of what fails in the end, containerd asks for several blobs at once, and drops the others at the
    // first failure; the check requests one after the other. Whose turn came is chance.
    if succeeds {
        assert_eq!(asked(&theirs, "GET", &blob), case.layer, "{all}");
        assert_eq!(asked(&ours, "GET", &blob), case.layer, "{all}");
    }

    // And what we do and say.
    let pull = if succeeds {
        Pull::WouldSucceed
    } else {
        Pull::WouldFail
    };
    assert_eq!(
        (report.verdict.pull, code),
        (pull, i32::from(!succeeds)),
        "{all}"
    );
    let codes: Vec<&str> = report
        .verdict
        .findings
        .iter()
        .map(|f| f.cause.code())
        .collect();
    assert_eq!(codes, case.codes, "{all}");
    assert_eq!(asked(&ours, "HEAD", &tag), case.tag, "{all}");
    assert_eq!(asked(&ours, "GET", &index), case.manifest, "{all}");
    assert_eq!(asked(&ours, "GET", &manifest), case.manifest, "{all}");
    check_report(case, &report.evidence, &all);

    // Both send a mirror the registry that is meant, and the same headers.
    let domain = case.image.split_once('/').unwrap().0;
    let namespace = format!("ns={}", domain.replace(':', "%3A"));
    for request in theirs.iter().chain(&ours) {
        let is_ping = request.path.ends_with("/v2/");
        let has_namespace = request.host != "registry" && !is_ping;
        let query = if has_namespace {
            namespace.as_str()
        } else {
            ""
        };
        assert_eq!(request.query, query, "{request:?}{all}");
        let has_header = case.name.starts_with("header");
        let header = if has_header { HEADER } else { "-" };
        assert_eq!(request.header, header, "{request:?}{all}");
    }
}

#[test]
fn the_hosts_asked_are_those_that_containerd_asks() {
    let lab = Lab::start();
    for case in ORDER {
        check(&lab, case, true);
    }
    // config_path in containerd's own file, as it writes it, leads to the same.
    let folder = lab.folder.path().join("certs.d/alive");
    let config = run(Command::new("containerd").args(["config", "default"]));
    let (unset, set) = (
        "config_path = \"\"",
        format!("config_path = \"{}\"", folder.display()),
    );
    assert_eq!(config.matches(unset).count(), 1, "{config}");
    let file = lab.folder.path().join("config.toml");
    fs::write(&file, config.replace(unset, &set)).unwrap();
    let settings = ["--containerd-config", file.to_str().unwrap()];
    let (code, document, ours) = lab.pullpath(&ALIVE, settings);
    assert_eq!(code, 0);
    assert_eq!(host(&document.reports[0].evidence.walk), "m1");
    let others: Vec<&Request> = ours.iter().filter(|r| r.host != "m1").collect();
    assert!(matches!(others[..], [one] if one.method == "HEAD" && one.host == "registry"));
}

#[test]
fn the_registry_behind_a_mirror_receives_one_request_and_decides_nothing() {
    let lab = Lab::start();
    let probe = |case: &Case| {
        let folder = lab.write(case);
        // One that knows `dial_timeout`.
        let settings = ["--hosts-dir", folder.to_str().unwrap()];
        let (code, document, ours) = lab.pullpath_as("containerd://2.1.9", case, settings);
        let report = document.reports.into_iter().next().unwrap();
        let text = text::render(&report, Style { color: false }, false);
        assert_eq!(
            (code, report.verdict.pull),
            (0, Pull::WouldSucceed),
            "{text}"
        );
        assert_eq!(host(&report.evidence.walk), "m1", "{text}");
        (
            report,
            text.split_whitespace().collect::<Vec<_>>().join(" "),
            ours,
        )
    };

    let (report, text, ours) = probe(&ALIVE);
    let asked: Vec<&Request> = ours.iter().filter(|r| r.host == "registry").collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((asked[0].method.as_str(), asked[0].status), ("HEAD", 200));
    assert_eq!(report.verdict.failover.unwrap().serves, Some(true));
    let says = "If the mirror fails, https://registry.test answers (HEAD 200 in ";
    assert!(text.contains(says), "{text}");
    assert!(text.contains("about 30 s"), "{text}");
    assert!(report.verdict.findings.is_empty(), "{text}");

    let dead = Case {
        name: "dead registry",
        image: "dead.test:9999/team/app:1.0",
        files: &[(
            "dead.test:9999/hosts.toml",
            "[host.\"https://m1.test\"]\ndial_timeout = \"2s\"\n",
        )],
        ..ALIVE
    };
    let (report, text, _) = probe(&dead);
    let codes: Vec<&str> = report
        .verdict
        .findings
        .iter()
        .map(|f| f.cause.code())
        .collect();
    assert_eq!(codes, ["mirror_no_fallback"], "{text}");
    assert!(text.contains("would not serve"), "{text}");
    assert!(
        text.contains("about 2.0 s") || text.contains("about 2 s"),
        "{text}"
    );
}

#[test]
fn the_settings_of_a_host_are_taken_as_containerd_takes_them() {
    let lab = Lab::start();
    for case in SETTINGS {
        check(&lab, case, true);
    }
    for case in FAILING {
        check(&lab, case, false);
    }
}

/// containerd 1.6 refuses a file without [host], and goes on as if there were none; 2.x takes it. The
/// check follows the runtime's own rules, and the report says that they differ.
#[test]
fn a_file_without_mirrors_is_taken_as_by_the_runtime_and_the_report_says_so() {
    let lab = Lab::start();
    let case = Case {
        name: "server alone",
        files: &[(FILE, "server = \"https://other.test\"\n")],
        codes: &["hosts_toml_invalid"],
        ..BYPASSED
    };
    check(&lab, &case, true);
    let folder = lab.write(&case);
    let settings = ["--hosts-dir", folder.to_str().unwrap()];
    let (code, document, ours) = lab.pullpath_as("containerd://2.1.9", &case, settings);
    assert_eq!(code, 0);
    assert!(
        ours.iter().all(|request| request.host == "other"),
        "{ours:?}"
    );
    assert!(document.reports[0].verdict.findings.is_empty());
    let ours = lab.pullpath(&case, settings).1;
    let problem = &ours.reports[0].evidence.hosts.problems()[0];
    assert_eq!(problem.effect, HostsEffect::Ignored);
    assert!(
        problem.reason.contains("invalid `host` tree"),
        "{}",
        problem.reason
    );
}
