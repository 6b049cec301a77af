//! Detects files that changed after containerd started: it reads config.toml, its environment and the CA bundle only at
//! the start.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use crate::files;
use crate::model::text::printable;

/// containerd creates its socket at each start: its own, and that of k3s and RKE2.
const SOCKETS: [&str; 2] = [
    "run/containerd/containerd.sock",
    "run/k3s/containerd/containerd.sock",
];

/// When the containerd on this machine was started; `None` in a pod, and if no socket exists.
pub fn started_here() -> Option<SystemTime> {
    let is_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    started(Path::new("/")).filter(|_| !is_pod)
}

/// Whether a missing file was missing when containerd started as well: its folder has not changed since.
pub fn was_absent(path: &Path, started: SystemTime) -> bool {
    let folder = path.ancestors().skip(1).find_map(modified);
    folder.is_some_and(|changed| changed < started)
}

/// Messages about the files that changed since containerd created its socket; none if the socket is not visible. `root`
/// is where the node's `/` is mounted.
pub fn changed_since<'a>(
    files: impl IntoIterator<Item = &'a PathBuf>,
    root: Option<&Path>,
) -> Vec<String> {
    let root = root.unwrap_or(Path::new("/"));
    let Some(started) = started(root) else {
        return Vec::new();
    };
    files
        .into_iter()
        .filter_map(|path| Some((path, modified(path)?)))
        .filter(|(_, changed)| *changed > started)
        .map(|(path, changed)| {
            format!(
                "{} was changed at {}, after containerd started at {}: containerd uses what it read then, which is \
                 unknown",
                printable(&path.to_string_lossy()),
                at(changed),
                at(started)
            )
        })
        .collect()
}

/// When containerd created its socket.
fn started(root: &Path) -> Option<SystemTime> {
    SOCKETS
        .iter()
        .find_map(|socket| modified(&root.join(socket)))
}

fn modified(path: &Path) -> Option<SystemTime> {
    files::modified(path)
}

fn at(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(
        |_| "an unknown time".to_owned(),
        |time| format!("{time:.0}"),
    )
}
