//! Files of the node that are mounted in a container: their links refer to the node's `/`, not to the container's.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::files;
use crate::model::text::printable;

/// A file that a node may have: a path, or `none`.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(with = "String")]
pub enum NodeFile {
    /// The operator states that the node has none.
    None,
    /// Its path on this machine.
    At(PathBuf),
}

impl<'de> Deserialize<'de> for NodeFile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Ok(match text.as_str() {
            "none" => Self::None,
            _ => Self::At(text.into()),
        })
    }
}

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// Neither the path nor a link exists.
    #[error("{} does not exist", shown(path))]
    Absent {
        /// The first part of the path that does not exist.
        path: PathBuf,
    },
    /// A link in the path has a target that does not exist.
    #[error(
        "{} is a link to {}, which does not exist{}",
        shown(link),
        shown(target),
        advice(root)
    )]
    Dangles {
        /// The link.
        link: PathBuf,
        /// Its target, as the link has it.
        target: PathBuf,
        /// The folder that the link's `/` was resolved against.
        root: PathBuf,
    },
    /// More than 40 links in a row (`MAXSYMLINKS`).
    #[error("{} can't be resolved: its links form a loop", shown(path))]
    Circle {
        /// The path that was to be resolved.
        path: PathBuf,
    },
    /// It exists, but an operation failed.
    #[error("{} can't be read: {}", shown(path), files::reason(source))]
    Unreadable {
        /// The part of the path with the error.
        path: PathBuf,
        /// What the operating system reports.
        source: io::Error,
    },
}

/// A path for messages.
pub(super) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

fn advice(root: &Path) -> String {
    if root == Path::new("/") {
        return "; if that is a path of the node, mount it too, and set network.host_root to the folder where \
                the node's / is mounted".to_owned();
    }
    format!(" below {} (network.host_root); mount it too", shown(root))
}

/// Resolves all links of a path as a process whose `/` is `root` would. A path outside `root` is resolved on this
/// machine.
///
/// # Errors
/// If a part of it does not exist or can't be read, or its links form a loop.
pub fn resolve(root: Option<&Path>, path: &Path) -> Result<PathBuf, Unresolved> {
    let root = root
        .filter(|root| path.starts_with(root))
        .unwrap_or_else(|| Path::new("/"));
    let (root, owned) = (root.to_owned(), path.to_owned());
    files::within(path, move || Ok(resolve_here(&root, &owned))).unwrap_or_else(|source| {
        Err(Unresolved::Unreadable {
            path: path.to_owned(),
            source,
        })
    })
}

fn resolve_here(root: &Path, path: &Path) -> Result<PathBuf, Unresolved> {
    let below = path.strip_prefix(root).unwrap_or(path);
    let mut done = root.to_owned();
    // A relative path starts at the working directory.
    if path.is_relative() {
        done = std::env::current_dir().map_err(|source| Unresolved::Unreadable {
            path: path.to_owned(),
            source,
        })?;
    }
    let mut rest: VecDeque<OsString> = parts(below).collect();
    let mut last: Option<(PathBuf, PathBuf)> = None;
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            // `..` of the root is the root.
            if done != root {
                done.pop();
            }
            continue;
        }
        let next = done.join(&part);
        let metadata = match next.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => {
                return Err(match last {
                    Some((link, target)) => Unresolved::Dangles {
                        link,
                        target,
                        root: root.to_owned(),
                    },
                    None => Unresolved::Absent { path: next },
                });
            }
            Err(source) => return Err(Unresolved::Unreadable { path: next, source }),
        };
        if !metadata.is_symlink() {
            done = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Unresolved::Circle {
                path: path.to_owned(),
            });
        }
        let target = std::fs::read_link(&next).map_err(|source| Unresolved::Unreadable {
            path: next.clone(),
            source,
        })?;
        if target.is_absolute() {
            root.clone_into(&mut done);
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(part);
        }
        last = Some((next, target));
    }
    Ok(done)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + use<'_> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// Whether the error means that the file does not exist.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The kernel's limit (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A node's `/etc` at `host`, as Debian, openSUSE and RHEL have it.
    fn host() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for folder in [
            "etc/ssl/certs",
            "etc/pki/ca-trust/extracted/pem",
            "etc/pki/tls",
        ] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"), "x").unwrap();
        symlink(
            "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            at("etc/ssl/certs/bundle.crt"),
        )
        .unwrap();
        symlink("../pki/tls-of-node", at("etc/ssl/relative")).unwrap();
        symlink("/etc/ssl/certs", at("etc/pki/tls/certs")).unwrap();
        symlink("/etc/gone/bundle.pem", at("etc/ssl/gone.pem")).unwrap();
        symlink("loop", at("etc/ssl/loop")).unwrap();
        symlink("../../../../../../etc/pki/ca-trust", at("etc/ssl/above")).unwrap();
        folder
    }

    #[test]
    fn links_of_the_node_are_followed_below_its_root() {
        let host = host();
        let at = |path: &str| host.path().join(path);
        let bundle = at("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
        for path in [
            "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            "etc/ssl/certs/bundle.crt",
            "etc/pki/tls/certs/bundle.crt",
            "etc/ssl/above/extracted/pem/tls-ca-bundle.pem",
        ] {
            let found = resolve(Some(host.path()), &at(path)).unwrap();
            assert_eq!(found, bundle, "{path}");
        }
        // With this machine's `/`, the link leads out of the mount.
        let error = resolve(None, &at("etc/ssl/certs/bundle.crt")).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("is a link to /etc/pki/ca-trust") && said.contains("network.host_root"),
            "{said}"
        );
    }

    #[test]
    fn what_is_not_there_is_reported_with_the_link_that_leads_nowhere() {
        let host = host();
        for (path, part) in [
            (
                "etc/ssl/gone.pem",
                "is a link to /etc/gone/bundle.pem, which does not exist below",
            ),
            ("etc/ssl/relative", "is a link to ../pki/tls-of-node"),
            ("etc/ssl/loop", "form a loop"),
            ("etc/nowhere", "etc/nowhere does not exist"),
            ("etc/ssl/certs/bundle.crt/x", "does not exist"),
        ] {
            let error = resolve(Some(host.path()), &host.path().join(path)).unwrap_err();
            assert!(error.to_string().contains(part), "{path}: {error}");
        }
    }

    #[test]
    fn a_path_beside_the_root_is_ours() {
        let (host, ours) = (host(), tempfile::tempdir().unwrap());
        let file = ours.path().join("ca.pem");
        fs::write(&file, "x").unwrap();
        let link = ours.path().join("link");
        symlink(&file, &link).unwrap();
        assert_eq!(
            resolve(Some(host.path()), &link).unwrap(),
            file.canonicalize().unwrap()
        );
    }
}
