//! The files that a configuration names, and what it means that one can't be read.

use std::path::{Path, PathBuf};

use super::{Check, Part, State};
use crate::config::{Config, CredentialFiles};
use crate::model::text::{joined, printable};
use crate::model::vantage::{NetworkView, NotObserved, Vantage};
use crate::net::host_root::NodeFile;

/// A file or folder that a key names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedFile {
    /// The key.
    pub key: String,
    /// As written.
    pub path: PathBuf,
}

/// Why a file can't be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unread {
    /// It does not exist.
    Absent,
    /// This user may not read it.
    Denied,
    /// Anything else, in words.
    Other(String),
}

/// All files that the configuration names, each once.
pub fn named(config: &Config) -> Vec<NamedFile> {
    let network = &config.network;
    let mut found: Vec<NamedFile> = Vec::new();
    let mut add = |key: &str, path: &Path| {
        if !found.iter().any(|known| known.path == path) {
            found.push(NamedFile {
                key: key.to_owned(),
                path: path.to_owned(),
            });
        }
    };
    let singles = [
        (HOST_ROOT, &network.host_root),
        ("network.containerd_config", &network.containerd_config),
        ("network.node_ca_bundle", &network.node_ca_bundle),
        ("network.resolv_conf", &network.resolv_conf),
        ("network.nsswitch_conf", &network.nsswitch_conf),
        ("network.hosts_file", &network.hosts_file),
        ("network.pod_annotations", &network.pod_annotations),
        ("kubernetes.kubeconfig", &config.kubernetes.kubeconfig),
        (STATE_DIR, &config.state_dir),
    ];
    for (key, path) in singles {
        if let Some(path) = path {
            add(key, path);
        }
    }
    // As containerd's config_path: folders separated by colons.
    for folder in network.hosts_dir.iter().flat_map(std::env::split_paths) {
        add("network.hosts_dir", &folder);
    }
    for path in &network.proxy_from {
        add(PROXY_FROM, path);
    }
    for path in &network.ca_files {
        add("network.ca_files", path);
    }
    let of_kubelet = [
        (
            "network.kubelet_docker_config",
            &network.kubelet_docker_config,
        ),
        (
            "network.kubelet_credential_providers",
            &network.kubelet_credential_providers,
        ),
    ];
    for (key, file) in of_kubelet {
        if let Some(NodeFile::At(path)) = file {
            add(key, path);
        }
    }
    let mut credentials = vec![("kubernetes.credential", &config.kubernetes.credential)];
    credentials.extend(
        config
            .targets
            .iter()
            .map(|target| ("targets", &target.credential)),
    );
    for (key, of) in credentials {
        let CredentialFiles {
            docker_config,
            secret_files,
            username: _,
            password_file,
        } = of;
        let all = docker_config
            .iter()
            .chain(secret_files)
            .chain(password_file);
        all.for_each(|path| add(key, path));
    }
    found
}

const STATE_DIR: &str = "state_dir";
const HOST_ROOT: &str = "network.host_root";
const PROXY_FROM: &str = "network.proxy_from";

/// One line for each file that can't be read, or one for all. `view`: where this runs.
pub fn judge(files: &[(NamedFile, Result<(), Unread>)], view: NetworkView) -> Vec<Check> {
    // What is below a folder that is missing has the same reason.
    let missing_root = files
        .iter()
        .find_map(|(file, read)| (file.key == HOST_ROOT && read.is_err()).then_some(&*file.path));
    let is_below = |file: &NamedFile| {
        missing_root.is_some_and(|root| file.path != root && file.path.starts_with(root))
    };
    // The daemon creates this one.
    let is_made =
        |file: &NamedFile, reason: &Unread| file.key == STATE_DIR && *reason == Unread::Absent;
    let failed = files.iter().filter_map(|(file, read)| {
        let reason = read
            .as_ref()
            .err()
            .filter(|reason| !is_made(file, reason))?;
        (!is_below(file)).then(|| unread(file, reason, view))
    });
    let mut found: Vec<Check> = failed.collect();
    let good: Vec<&NamedFile> = files
        .iter()
        .filter(|(_, read)| read.is_ok())
        .map(|(file, _)| file)
        .collect();
    if found.iter().all(|check| check.state != State::Problem) {
        let text = match (&*good, files.len()) {
            ([], 0) => "the configuration names none".to_owned(),
            ([], _) => return found,
            ([only], _) => format!("{} can be read", shown(&only.path)),
            (several, _) => format!("{} that the configuration names can be read", several.len()),
        };
        found.insert(0, Check::new(Part::Files, State::Ok, text));
    }
    found
}

fn unread(file: &NamedFile, reason: &Unread, view: NetworkView) -> Check {
    let NamedFile { key, path } = file;
    let path = shown(path);
    let is_pod = view != NetworkView::Machine;
    // The others are in volumes that each installation has for itself.
    let is_of_node = key.starts_with("network.") && key != "network.ca_files";
    let correct = format!("correct {key}");
    match reason {
        Unread::Absent if key == PROXY_FROM => {
            let text = format!("{path} ({key}) does not exist: no proxy is read from it");
            Check::new(Part::Files, State::Note, text).fixed_by(if is_pod {
                format!("nothing, if containerd has no proxy there; else {MOUNT}")
            } else {
                "nothing, if containerd has no proxy there".to_owned()
            })
        }
        Unread::Absent => {
            let text = format!("{path} ({key}) does not exist");
            let fix = if is_pod && is_of_node {
                format!("{MOUNT}; or {correct}")
            } else if is_pod {
                format!("mount the Secret or ConfigMap that has it, or {correct}")
            } else {
                correct
            };
            Check::problem(Part::Files, text, fix)
        }
        Unread::Denied => {
            let text = format!("{path} ({key}) can't be read by this user");
            let fix = if is_pod && is_of_node {
                "add ../deploy/components/node-files-as-root to the components in kustomization.yaml, and apply it"
                    .to_owned()
            } else {
                format!("let this user read it, or {correct}")
            };
            Check::problem(Part::Files, text, fix)
        }
        Unread::Other(reason) => {
            let text = format!("{path} ({key}) can't be read: {reason}");
            Check::problem(Part::Files, text, correct)
        }
    }
}

const MOUNT: &str =
    "mount it: add a component distribution-… or node-files (docs/distributions.md)";

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// What of the node decides a pull and is not read, as one line; `None`: all of it is.
pub fn not_observed(vantage: &Vantage) -> Option<Check> {
    let name = |what: &NotObserved| {
        Some(match what {
            NotObserved::Mirrors => "containerd's mirrors",
            NotObserved::Proxy => "containerd's proxies",
            NotObserved::NodeRoots => "the node's trusted roots",
            NotObserved::NodeResolver => "the node's resolver",
            NotObserved::NodeCredentials => "the kubelet's own credentials",
            // Never observed, and no setting changes that.
            NotObserved::ImageStore => return None,
        })
    };
    let names: Vec<&str> = vantage.not_observed.iter().filter_map(name).collect();
    if names.is_empty() {
        return None;
    }
    let text = format!(
        "not read: {}. Findings that depend on them have medium confidence",
        joined(names)
    );
    let fix = if vantage.network == NetworkView::Machine {
        "set network.containerd_config, proxy_from, node_ca_bundle and kubelet_docker_config (docs/kubernetes.md)"
    } else {
        "if they matter on your nodes, add a component distribution-… or node-files (docs/distributions.md)"
    };
    Some(Check::new(Part::Files, State::Note, text).fixed_by(fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_listed_once_with_its_key() {
        let config = Config::parse(
            "state_dir: /s\nnetwork: {hosts_dir: '/a:/b', proxy_from: [/p], kubelet_docker_config: none, \
             kubelet_credential_providers: /k, ca_files: [/c]}\n\
             targets: [{image: r.test/a, credential: {docker_config: /d}}, {image: r.test/b, credential: {docker_config: /d}}]",
        )
        .unwrap();
        let found: Vec<String> = named(&config)
            .into_iter()
            .map(|file| format!("{} {}", file.key, file.path.display()))
            .collect();
        assert_eq!(
            found,
            [
                "state_dir /s",
                "network.hosts_dir /a",
                "network.hosts_dir /b",
                "network.proxy_from /p",
                "network.ca_files /c",
                "network.kubelet_credential_providers /k",
                "targets /d",
            ]
        );
        assert_eq!(named(&Config::default()), []);
    }

    #[test]
    fn the_fix_depends_on_the_reason_and_on_where_it_runs() {
        let file = |key: &str| NamedFile {
            key: key.to_owned(),
            path: "/host/x".into(),
        };
        let one = |key: &str, reason: Unread, view| {
            let mut checks = judge(&[(file(key), Err(reason))], view);
            assert_eq!(checks.len(), 1, "{checks:?}");
            let check = checks.remove(0);
            (check.state, check.fix.unwrap_or_default())
        };
        let (state, fix) = one("network.node_ca_bundle", Unread::Absent, NetworkView::Node);
        assert_eq!(state, State::Problem);
        assert!(
            fix.contains("distribution-") && fix.contains("network.node_ca_bundle"),
            "{fix}"
        );
        let (_, fix) = one("network.node_ca_bundle", Unread::Denied, NetworkView::Node);
        assert!(fix.contains("node-files-as-root"), "{fix}");
        let (_, fix) = one("targets", Unread::Absent, NetworkView::Pod);
        assert!(fix.contains("Secret"), "{fix}");
        let (_, fix) = one("targets", Unread::Absent, NetworkView::Machine);
        assert_eq!(fix, "correct targets");
        // The daemon creates it, if it can.
        let absent = [(file(STATE_DIR), Err(Unread::Absent))];
        assert_eq!(judge(&absent, NetworkView::Machine), []);
        let (state, _) = one(STATE_DIR, Unread::Denied, NetworkView::Machine);
        assert_eq!(state, State::Problem);
        // A node may have no drop-ins.
        let (state, _) = one(PROXY_FROM, Unread::Absent, NetworkView::Node);
        assert_eq!(state, State::Note);
        let mut root = file(HOST_ROOT);
        root.path = "/host".into();
        let absent = || Err(Unread::Absent);
        let below = [(root, absent()), (file("network.hosts_dir"), absent())];
        assert_eq!(
            judge(&below, NetworkView::Node).len(),
            1,
            "one reason, one line"
        );
        let both = [(file("a"), Ok(())), (file(PROXY_FROM), Err(Unread::Absent))];
        let states: Vec<State> = judge(&both, NetworkView::Node)
            .iter()
            .map(|check| check.state)
            .collect();
        assert_eq!(states, [State::Ok, State::Note]);
    }
}
