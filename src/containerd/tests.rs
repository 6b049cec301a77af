//! From the files to the hosts that are queried.

use std::fs;
use std::fs::File;

use tempfile::TempDir;

use super::*;
use crate::model::endpoint::{Endpoint, Host, Scheme};
use crate::model::hosts::HostKind;

const DOMAIN: &str = "depot.example.com:5000";

struct Node {
    folder: TempDir,
}

/// The result for one release.
struct Read {
    hosts: Vec<String>,
    effects: Vec<HostsEffect>,
    reasons: String,
    config: HostsConfig,
    clients: Vec<HostClient>,
}

impl Node {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// `TMP` stands for the folder.
    fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            path,
            text.replace("TMP", self.folder.path().to_str().unwrap()),
        )
        .unwrap();
        self
    }

    fn mirror(&self) -> &Self {
        self.write(
            &format!("certs.d/{DOMAIN}/hosts.toml"),
            "[host.\"https://mirror.example.com\"]\n",
        )
    }

    fn load(&self) -> Settings {
        let request = Request {
            config: Some(self.folder.path().join("config.toml")),
            root: Some(self.folder.path().to_owned()),
            may_lack: MayLack {
                hosts: true,
                proxies: true,
            },
            ..Request::default()
        };
        Settings::load(&request, |_| None).unwrap()
    }

    fn read(&self, version: &str) -> Read {
        read(&self.load(), version, DOMAIN)
    }
}

fn read(settings: &Settings, version: &str, domain: &str) -> Read {
    let runtime: Runtime = format!("containerd://{version}").parse().unwrap();
    let candidates = settings.candidates(Some(&runtime));
    let rules = Rules::new(candidates[0], &candidates);
    let base = BaseTrust::new(Pool::default(), Roots::default());
    let (name, port) = domain.rsplit_once(':').unwrap();
    let own = RegistryHost::plain(Endpoint {
        scheme: Scheme::Https,
        host: Host::new(name),
        port: port.parse().unwrap(),
    });
    let (config, clients) = settings.hosts(domain, &own, &base, &rules);
    let problems = config.problems();
    Read {
        hosts: clients
            .iter()
            .map(|client| client.host.endpoint.to_string())
            .collect(),
        effects: problems.iter().map(|problem| problem.effect).collect(),
        reasons: problems
            .iter()
            .map(|problem| problem.reason.as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        config,
        clients,
    }
}

const OWN: &str = "https://depot.example.com:5000";
const MIRROR: &str = "https://mirror.example.com";

#[test]
fn config_path_counts_in_the_section_of_the_files_version() {
    let v1 = "[plugins.cri.registry]\nconfig_path = 'TMP/certs.d'\n";
    let v2 = "[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'TMP/certs.d'\n";
    let v3 = "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = 'TMP/certs.d'\n";
    for (version_line, section, asked_by) in [
        ("", v1, &["1.6.20", "1.7.24", "2.3.0"][..]),
        ("", v2, &["2.3.0"]),
        (
            "version = 2\n",
            v2,
            &["1.6.20", "1.7.24", "2.0.0", "2.1.9", "2.2.0", "2.3.0"],
        ),
        ("version = 2\n", v3, &["2.0.0", "2.1.9", "2.2.0", "2.3.0"]),
        ("version = 3\n", v3, &["2.0.0", "2.1.9", "2.2.0", "2.3.0"]),
        // 1.6.20 does not reject a version that it does not support.
        ("version = 3\n", v2, &["1.6.20", "2.3.0"]),
    ] {
        let node = Node::new();
        node.mirror()
            .write("config.toml", &format!("{version_line}{section}"));
        for version in ["1.6.20", "1.7.24", "2.0.0", "2.1.9", "2.2.0", "2.3.0"] {
            let read = node.read(version);
            let is_asked = read.hosts.iter().any(|host| host == MIRROR);
            let name = format!("{version}: {version_line}{section}{}", read.reasons);
            assert_eq!(is_asked, asked_by.contains(&version), "{name}");
            // Ignored settings are reported; so is a containerd that does not start.
            let want = if is_asked {
                &[][..]
            } else if version == "1.7.24" && version_line == "version = 3\n" {
                &[HostsEffect::PullsNothing]
            } else {
                &[HostsEffect::Ignored]
            };
            let ours: Vec<_> = read.effects.iter().rev().take(1).rev().copied().collect();
            assert_eq!(ours, want, "{name}");
        }
    }
}

#[test]
fn a_version_below_zero_is_not_that_of_version_1() {
    let node = Node::new();
    node.mirror().write(
        "config.toml",
        "version = -1\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'TMP/certs.d'\n",
    );
    for version in ["1.6.20", "1.7.24"] {
        assert_eq!(node.read(version).hosts, [MIRROR, OWN], "{version}");
    }
}

#[test]
fn a_plugin_that_is_required_and_not_known_leaves_the_pull_open() {
    for (required, is_open) in [
        ("io.containerd.grpc.v1.cri", false),
        ("io.containerd.snapshotter.v1.overlayfs", false),
        ("io.containerd.snapshotter.v1.zfs", true),
    ] {
        let node = Node::new();
        let text = format!("version = 2\nrequired_plugins = ['{required}']\n");
        node.mirror().write("config.toml", &text);
        for version in ["1.7.24", "2.1.9"] {
            let effects = node.read(version).effects;
            let undecided = effects.contains(&HostsEffect::Undecided);
            assert_eq!(undecided, is_open, "{required} {version}");
        }
    }
}

#[test]
fn settings_with_which_the_cri_plugin_does_not_load_fail_every_pull() {
    let mirrors = "[S.registry]\nconfig_path = 'TMP/certs.d'\n[S.registry.mirrors.'docker.io']\nendpoint = ['https://m']\n";
    let tls =
        "[S.registry]\nconfig_path = 'TMP/certs.d'\n[S.registry.configs.h.tls]\nca_file = 'x'\n";
    for (text, versions) in [
        (
            mirrors,
            &["1.6.20", "1.7.24", "2.0.0", "2.1.9", "2.3.0"][..],
        ),
        (tls, &["1.6.20", "1.7.24"]),
        (
            "disabled_plugins = ['io.containerd.grpc.v1.cri']\n",
            &["1.6.20", "1.7.24", "2.0.0", "2.1.9", "2.3.0"],
        ),
        (
            "[S.registry.auths.'127.0.0.1:5000']\nusername = 'u'\n",
            &["1.6.20", "1.7.24", "2.0.0", "2.1.9", "2.3.0"],
        ),
        (
            "[S]\nimage_pull_progress_timeout = 'soon'\n",
            &["1.7.24", "2.0.0", "2.1.9", "2.3.0"],
        ),
    ] {
        let node = Node::new();
        let text = text.replace("[S", "[plugins.'io.containerd.grpc.v1.cri'");
        node.mirror()
            .write("config.toml", &format!("version = 2\n{text}"));
        for version in ["1.6.20", "1.7.24", "2.0.0", "2.1.9", "2.3.0"] {
            let read = node.read(version);
            let fails = read.effects.contains(&HostsEffect::PullsNothing);
            assert_eq!(
                fails,
                versions.contains(&version),
                "{version}: {text}{}",
                read.reasons
            );
        }
    }
}

#[test]
fn a_list_is_one_folder_to_the_transfer_service() {
    let node = Node::new();
    let text = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'TMP/none:TMP/certs.d'\n";
    node.mirror().write("config.toml", text);
    for (version, want) in [
        ("1.7.24", &[MIRROR, OWN][..]),
        ("2.0.0", &[MIRROR, OWN]),
        ("2.1.9", &[OWN]),
        ("2.2.0", &[OWN]),
    ] {
        let read = node.read(version);
        assert_eq!(read.hosts, want, "{version}");
        assert_eq!(read.effects.is_empty(), want.len() == 2, "{version}");
    }
    // A login makes the CRI plugin pull by itself, and it splits the list.
    let login = "[plugins.'io.containerd.grpc.v1.cri'.registry.configs.x.auth]\nusername = 'u'\n";
    node.write("config.toml", &format!("{text}{login}"));
    assert_eq!(node.read("2.1.9").hosts, [MIRROR, OWN]);
}

#[test]
fn logins_and_headers_go_with_the_hosts_they_are_for() {
    let node = Node::new();
    node.mirror().write(
        "config.toml",
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'TMP/certs.d'\n\
         [plugins.'io.containerd.grpc.v1.cri'.registry.headers]\nX-Who = ['canary-header']\n\
         [plugins.'io.containerd.grpc.v1.cri'.registry.configs.'depot.example.com:5000'.auth]\n\
         username = 'ann'\npassword = 'canary-password'\n",
    );
    for version in ["1.6.20", "1.7.24", "2.1.9"] {
        let read = node.read(version);
        assert_eq!(read.hosts, [MIRROR, OWN]);
        let logins: Vec<_> = read
            .clients
            .iter()
            .map(|client| client.login.is_some())
            .collect();
        assert_eq!(logins, [false, true]);
        assert!(read.clients.iter().all(|client| client.headers.len() == 1));
        let shown = format!("{:?}{:?}", node.load(), read.clients);
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[test]
fn without_config_path_the_endpoints_of_mirrors_are_asked() {
    let node = Node::new();
    let section = "plugins.'io.containerd.grpc.v1.cri'.registry";
    node.write(
        "config.toml",
        &format!(
            "version = 2\n[{section}.mirrors.'*']\nendpoint = ['mirror.example.com']\n\
             [{section}.configs.'mirror.example.com'.tls]\ninsecure_skip_verify = true\n"
        ),
    );
    for (version, skips) in [("1.7.24", true), ("2.1.9", false)] {
        let read = node.read(version);
        assert_eq!(read.hosts, [MIRROR, OWN], "{version}");
        assert!(matches!(read.config, HostsConfig::ConfigToml { .. }));
        assert_eq!(read.clients[0].host.kind, HostKind::Mirror);
        assert_eq!(read.clients[0].host.skip_verify, skips, "{version}");
    }
}

#[test]
fn loopback_without_config_path_is_plain_http_but_for_the_transfer_service() {
    let domain = "127.0.0.3:5000";
    let node = Node::new();
    node.write("config.toml", "version = 2\n");
    for (version, want) in [
        ("1.6.20", "http://127.0.0.3:5000"),
        ("1.7.24", "http://127.0.0.3:5000"),
        ("2.0.0", "http://127.0.0.3:5000"),
        ("2.1.9", "https://127.0.0.3:5000"),
    ] {
        assert_eq!(
            read(&node.load(), version, domain).hosts,
            [want],
            "{version}"
        );
    }
    // If it is unknown whether config_path is set, either may be the case.
    let unread = Settings::default();
    let runtime: Runtime = "containerd://1.7.24".parse().unwrap();
    let candidates = unread.candidates(Some(&runtime));
    assert_eq!(candidates.len(), 2);
    let rules = Rules::new(candidates[0], &candidates);
    let own = RegistryHost::plain(Endpoint {
        scheme: Scheme::Https,
        host: Host::new("127.0.0.3"),
        port: 5000,
    });
    let base = BaseTrust::new(Pool::default(), Roots::default());
    unread.hosts(domain, &own, &base, &rules);
    assert!(!rules.agrees(1));
    let rules = Rules::new(candidates[0], &candidates);
    unread.hosts(DOMAIN, &own, &base, &rules);
    assert!(rules.agrees(1), "for all others nothing hangs on it");
}

#[test]
fn a_file_that_go_can_not_read_is_passed_over_and_its_certificates_count() {
    let node = Node::new();
    node.write(
        "config.toml",
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'TMP/certs.d'\n",
    )
    .write(
        &format!("certs.d/{DOMAIN}/hosts.toml"),
        "[host.\"https://mirror.example.com \"]\n",
    )
    .write(&format!("certs.d/{DOMAIN}/own.crt"), "no certificate");
    let read = node.read("1.7.24");
    assert_eq!(read.hosts, [OWN]);
    assert_eq!(
        read.effects,
        [HostsEffect::Ignored, HostsEffect::PullFails],
        "{}",
        read.reasons
    );
    assert!(
        read.reasons.contains("its host contains a blank"),
        "{}",
        read.reasons
    );
}

#[test]
fn a_file_that_is_newer_than_containerd_is_not_in_force() {
    let node = Node::new();
    node.mirror().write(
        "config.toml",
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'TMP/certs.d'\n",
    );
    let runtime: Runtime = "containerd://1.7.24".parse().unwrap();
    assert_eq!(
        node.load().candidates(Some(&runtime)).len(),
        1,
        "no socket is visible"
    );
    node.write("run/containerd/containerd.sock", "");
    let touch = |name: &str, seconds: u64| {
        let file = File::options()
            .write(true)
            .open(node.folder.path().join(name))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
            .unwrap();
    };
    touch("config.toml", 1_700_000_000);
    touch("run/containerd/containerd.sock", 1_700_000_060);
    assert_eq!(node.load().candidates(Some(&runtime)).len(), 1);
    touch("config.toml", 1_700_000_120);
    let settings = node.load();
    let candidates = settings.candidates(Some(&runtime));
    let settled: Vec<SettingsInForce> = candidates.iter().map(|one| one.settings).collect();
    assert_eq!(
        settled,
        [
            SettingsInForce::AsRead,
            SettingsInForce::WithConfigPath,
            SettingsInForce::BeforeChange
        ]
    );
    let read = node.read("1.7.24");
    assert_eq!(read.hosts, [MIRROR, OWN]);
    assert!(
        read.reasons
            .contains("2023-11-14T22:15:20Z, after containerd started at 2023-11-14T22:14:20Z"),
        "{}",
        read.reasons
    );
    let own = &read.clients[1].host;
    let before = settings.plan(DOMAIN, own, candidates[2]);
    assert_eq!(before.hosts.len(), 1, "the mirror was not used before");
    // The file may not have been broken before.
    let broken = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'TMP/certs.d'\n[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'a']\nendpoint = []\n";
    node.write("config.toml", broken);
    let settings = node.load();
    for (one, hosts, fails) in [(0, 1, true), (1, 2, false), (2, 1, false)] {
        let candidates = settings.candidates(Some(&runtime));
        let rules = Rules::new(candidates[one], &candidates);
        let base = BaseTrust::new(Pool::default(), Roots::default());
        let (config, clients) = settings.hosts(DOMAIN, own, &base, &rules);
        let is_broken = config
            .problems()
            .iter()
            .any(|problem| problem.effect == HostsEffect::PullsNothing);
        assert_eq!((clients.len(), is_broken), (hosts, fails), "{one}");
    }
}

const HOSTS: &str =
    "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'TMP/certs.d'\n";

#[test]
fn a_host_with_a_header_that_cannot_be_sent_is_left_out() {
    let bad = "[host.\"https://mirror.example.com\".header]\n\"x lab\" = \"1\"\n";
    let node = Node::new();
    node.write("config.toml", HOSTS)
        .write(&format!("certs.d/{DOMAIN}/hosts.toml"), bad);
    let one = node.read("2.1.9");
    assert_eq!(
        (&one.hosts[..], &one.effects[..]),
        (&[OWN.to_owned()][..], &[HostsEffect::Ignored][..])
    );
    assert!(
        one.reasons.contains("tries the next host"),
        "{}",
        one.reasons
    );
    let alone =
        format!("server = \"https://mirror.example.com\"\n[header]\n\"x lab\" = \"1\"\n{bad}");
    node.write(&format!("certs.d/{DOMAIN}/hosts.toml"), &alone);
    let left = node.read("2.1.9");
    assert!(
        left.effects.contains(&HostsEffect::PullFails),
        "{}",
        left.reasons
    );
}

#[test]
fn a_file_of_certificates_needs_one_that_go_can_read() {
    const NONSENSE: &str = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n";
    let good = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()])
        .unwrap()
        .cert
        .pem();
    let node = Node::new();
    node.write("config.toml", HOSTS);
    for (text, effects) in [
        (NONSENSE.to_owned(), &[HostsEffect::PullFails][..]),
        (format!("words\n{NONSENSE}{good}"), &[]),
    ] {
        node.write(&format!("certs.d/{DOMAIN}/ca.crt"), &text);
        let read = node.read("1.7.24");
        assert_eq!(read.effects, effects, "{text}: {}", read.reasons);
    }
}

#[test]
fn containerd_1_reads_no_header_with_an_ipv6_address_and_1_6_no_such_reference() {
    let node = Node::new();
    node.write("config.toml", &format!("{HOSTS}[plugins.'io.containerd.grpc.v1.cri'.registry.configs.\"[::1]:5000\".auth]\nusername = 'u'\n"));
    for (version, effects) in [
        ("1.6.20", &[HostsEffect::PullsNothing][..]),
        ("1.7.24", &[HostsEffect::PullsNothing]),
        ("2.1.9", &[]),
    ] {
        let read = node.read(version);
        assert_eq!(read.effects, effects, "{version}: {}", read.reasons);
    }
    node.write("config.toml", HOSTS);
    for (version, effects) in [("1.6.20", &[HostsEffect::NameRefused][..]), ("1.7.24", &[])] {
        let read = read(&node.load(), version, "[::1]:5000");
        assert_eq!(read.effects, effects, "{version}: {}", read.reasons);
    }
}

#[test]
fn a_changed_environment_is_judged_with_and_without_its_proxies() {
    let node = Node::new();
    let conf = node
        .folder
        .path()
        .join("unit/containerd.service.d/proxy.conf");
    node.write("config.toml", HOSTS)
        .write("run/containerd/containerd.sock", "")
        .write(
            "unit/containerd.service.d/proxy.conf",
            "[Service]\nEnvironment=HTTPS_PROXY=http://proxy.example.com:3128 SSL_CERT_FILE=/etc/roots.pem\n",
        );
    let load = |seconds: u64| {
        for (path, seconds) in [
            (node.folder.path().join("config.toml"), 0),
            (conf.clone(), seconds),
            (
                node.folder.path().join("run/containerd/containerd.sock"),
                60,
            ),
        ] {
            let time =
                std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000 + seconds);
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let request = Request {
            config: Some(node.folder.path().join("config.toml")),
            proxy_from: vec![conf.parent().unwrap().to_owned()],
            root: Some(node.folder.path().to_owned()),
            may_lack: MayLack {
                hosts: true,
                proxies: true,
            },
            ..Request::default()
        };
        Settings::load(&request, |_| None).unwrap()
    };
    let endpoint: Endpoint = read(&node.load(), "2.1.9", DOMAIN).clients[0]
        .host
        .endpoint
        .clone();
    let runtime: Runtime = "containerd://2.1.9".parse().unwrap();
    let builds = builds::candidates(Some(&runtime));
    for (seconds, count) in [(0, 1), (120, 2)] {
        let settings = load(seconds);
        assert_eq!(settings.roots.named(), [PathBuf::from("/etc/roots.pem")]);
        let candidates = settings.candidates(Some(&runtime));
        assert_eq!(candidates.len(), count);
        let rules = Rules::new(candidates[0], &candidates);
        assert!(settings.route(&endpoint, &rules, &builds).1.is_some());
        if count == 2 {
            assert!(!rules.agrees(1));
            assert!(settings.proxies.settings().changed[0].contains("after containerd started"));
            let before = Rules::new(candidates[1], &candidates);
            assert_eq!(
                settings.route(&endpoint, &before, &builds).0,
                ProxyRoute::Direct
            );
        }
    }
}
