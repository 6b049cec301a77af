//! A store of known manifests, and the paths of content in the registry API.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

use bytes::Bytes as Body;

use super::check::Check;
use crate::model::hosts::RegistryHost;
use crate::registry::manifest as oci;

/// Manifests that were downloaded and verified, by digest. The content of a digest never changes, so none is downloaded
/// twice (Docker Hub counts every GET of a manifest).
#[derive(Debug, Default)]
pub struct KnownManifests {
    memory: Mutex<Memory>,
    /// Files are kept there instead of in memory, so that they outlive this process.
    folder: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Memory {
    bodies: HashMap<String, Body>,
    bytes: usize,
}

impl KnownManifests {
    /// Bytes: an index and a manifest for each of a thousand images; both have a few KiB.
    const MAX_BYTES: usize = 16 << 20;
    const MAX_FILES: usize = 4096;

    /// Keeps manifests in a folder, which is created if necessary. If there are too many, the oldest are deleted.
    ///
    /// # Errors
    /// If the folder can't be used.
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
        // A digest that was checked has no slash; one that was not checked has no file.
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
        // Damaged, or not one of these files.
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
                tracing::warn!(path = %path.display(), %error, "a manifest can't be stored, and will be downloaded again");
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

/// A path below the root of the API. A host that is not the registry itself is sent the registry's name (containerd,
/// docs/hosts.md: `ns`).
pub(super) fn path_of(check: &Check, host: &RegistryHost, kind: &str, version: &str) -> String {
    let repository = check.reference.repository();
    let mut path = format!("{}/{repository}/{kind}/{version}", host.path);
    if let Some(namespace) = &host.namespace {
        path.push_str("?ns=");
        path.extend(url::form_urlencoded::byte_serialize(namespace.as_bytes()));
    }
    path
}
