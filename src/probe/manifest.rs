//! Manifests that are known, and where content has its place below the root of the API.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

use bytes::Bytes as Body;

use super::check::Check;
use crate::model::hosts::RegistryHost;
use crate::registry::manifest as oci;

/// Manifests that were fetched and verified, by digest: what a digest names never changes, so none
/// is fetched twice (Docker Hub counts every GET of one).
#[derive(Debug, Default)]
pub struct KnownManifests {
    memory: Mutex<Memory>,
    /// Kept there instead, so that they outlive this process.
    folder: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Memory {
    bodies: HashMap<String, Body>,
    bytes: usize,
}

impl KnownManifests {
    /// An index and a manifest for each of a thousand images; both are some KiB.
    const MAX_BYTES: usize = 16 << 20;
    const MAX_FILES: usize = 4096;

    /// Kept in a folder, which is made if need be. Of too many, the oldest are dropped.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        let too_many = files.len().saturating_sub(Self::MAX_FILES);
        for (_, path) in files.into_iter().take(too_many) {
            fs::remove_file(path)?;
        }
        Ok(Self {
            folder: Some(folder.to_owned()),
            ..Self::default()
        })
    }

    fn file(&self, digest: &str) -> Option<PathBuf> {
        // A digest that was checked has no slash in it; one that was not has no file.
        let name = digest.replace(':', "-");
        let is_plain = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.+=".contains(c));
        let folder = self
            .folder
            .as_ref()
            .filter(|_| is_plain && !name.starts_with('.'))?;
        Some(folder.join(name))
    }

    pub(super) fn find(&self, digest: &str) -> Option<Body> {
        let Some(path) = self.file(digest) else {
            return self.memory.lock().ok()?.bodies.get(digest).cloned();
        };
        let body = Body::from(fs::read(&path).ok()?);
        // Torn, or somebody else's.
        if oci::verify(&body, digest).is_err() {
            let _ = fs::remove_file(&path);
            return None;
        }
        Some(body)
    }

    pub(super) fn keep(&self, digest: &str, body: &Body) {
        if let Some(path) = self.file(digest) {
            if !path.exists()
                && let Err(error) = fs::write(&path, body)
            {
                tracing::warn!(path = %path.display(), %error, "a manifest can't be kept, and will be fetched again");
                let _ = fs::remove_file(&path);
            }
            return;
        }
        if let Ok(mut memory) = self.memory.lock()
            && memory.bytes + body.len() <= Self::MAX_BYTES
            && memory
                .bodies
                .insert(digest.to_owned(), body.clone())
                .is_none()
        {
            memory.bytes += body.len();
        }
    }
}

/// A path below the root of the API; a host that is not the registry itself is told which one is
/// meant (containerd, docs/hosts.md: `ns`).
pub(super) fn path_of(check: &Check, host: &RegistryHost, kind: &str, version: &str) -> String {
    let repository = check.reference.repository();
    let mut path = format!("{}/{repository}/{kind}/{version}", host.path);
    if let Some(namespace) = &host.namespace {
        path.push_str("?ns=");
        path.extend(url::form_urlencoded::byte_serialize(namespace.as_bytes()));
    }
    path
}
