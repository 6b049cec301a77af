//! A store of known manifests, and the paths of content in the registry API.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use std::{fs, io};

use bytes::Bytes as Body;

use super::check::Check;
use crate::files;
use crate::model::hosts::RegistryHost;
use crate::model::reference::check_digest;
use crate::model::text::printable;
use crate::registry::manifest as oci;

/// Manifests that were downloaded and verified, by digest. The content of a digest never changes, so none is downloaded
/// twice (Docker Hub counts every GET of a manifest).
#[derive(Debug)]
pub struct KnownManifests {
    kept: Mutex<Kept>,
    /// Files are kept there instead of in memory, so that they outlive this process.
    folder: Option<PathBuf>,
    /// All of them together, one that is being written included.
    max_bytes: u64,
}

/// What is kept, by the name of its file.
#[derive(Debug, Default)]
struct Kept {
    manifests: HashMap<String, Manifest>,
    bytes: u64,
    next: u64,
}

#[derive(Debug)]
struct Manifest {
    /// `None`: it is in its file.
    body: Option<Body>,
    size: u64,
    /// The place in the order in which they were kept.
    order: u64,
}

impl Kept {
    fn add(&mut self, name: String, size: u64, body: Option<Body>) {
        let order = self.next;
        self.next += 1;
        self.bytes += size;
        self.manifests.insert(name, Manifest { body, size, order });
    }

    fn remove(&mut self, name: &str) {
        let removed = self.manifests.remove(name);
        self.bytes -= removed.map_or(0, |manifest| manifest.size);
    }

    fn oldest(&self) -> Option<String> {
        let oldest = self.manifests.iter().min_by_key(|(_, one)| one.order);
        oldest.map(|(name, _)| name.clone())
    }
}

impl Default for KnownManifests {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            folder: None,
            max_bytes: Self::MAX_MEMORY,
        }
    }
}

impl KnownManifests {
    /// Bytes in memory: an index and a manifest for each of a thousand images; both have a few KiB.
    const MAX_MEMORY: u64 = 16 << 20;
    const MAX_COUNT: usize = 4096;
    /// One manifest has at most this part of all bytes, so that it doesn't push out all others.
    const MAX_PART: u64 = 4;

    /// Keeps manifests in a folder, which is created if necessary. If there are too many, or too many bytes, the oldest
    /// are deleted. Files of others are not touched.
    ///
    /// # Errors
    /// If the folder can't be used.
    pub fn in_folder(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        let owned = folder.to_owned();
        let found = files::within(folder, move || found_in(&owned))?;
        if let Some(one) = &found.foreign {
            tracing::warn!(folder = %folder.display(), file = one, "a file in the folder of manifests is not one; it is left there");
        }
        let this = Self {
            kept: Mutex::default(),
            folder: Some(folder.to_owned()),
            max_bytes,
        };
        {
            let mut kept = this.lock();
            for (_, name, size) in found.manifests {
                kept.add(name, size, None);
            }
            this.make_room(&mut kept, 0)?;
        }
        Ok(this)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, digest: &str) -> Option<Body> {
        let name = file_name(digest)?;
        let Some(folder) = &self.folder else {
            return self.lock().manifests.get(&name)?.body.clone();
        };
        if !self.lock().manifests.contains_key(&name) {
            return None;
        }
        let path = folder.join(&name);
        let body = files::read(&path, self.max_bytes).ok().map(Body::from);
        let body = body.filter(|body| oci::verify(body, digest).is_ok());
        if body.is_none() {
            // Damaged, or deleted by another program.
            if files::remove(&path).is_ok() {
                self.lock().remove(&name);
            }
        }
        body
    }

    pub(super) fn keep(&self, digest: &str, body: &Body) {
        let size = body.len() as u64;
        let Some(name) = file_name(digest).filter(|_| size <= self.max_bytes / Self::MAX_PART)
        else {
            return;
        };
        let mut kept = self.lock();
        if kept.manifests.contains_key(&name) {
            return;
        }
        let written = self
            .make_room(&mut kept, size)
            .and_then(|()| match &self.folder {
                Some(folder) => files::replace(&folder.join(&name), body.clone()),
                None => Ok(()),
            });
        if let Err(error) = written {
            tracing::warn!(name, %error, "a manifest can't be stored, and will be downloaded again");
            return;
        }
        let body = self.folder.is_none().then(|| body.clone());
        kept.add(name, size, body);
    }

    /// Deletes the oldest until `size` more bytes are within the bounds.
    fn make_room(&self, kept: &mut Kept, size: u64) -> io::Result<()> {
        let more = usize::from(size > 0);
        while kept.bytes + size > self.max_bytes || kept.manifests.len() + more > Self::MAX_COUNT {
            let Some(name) = kept.oldest() else { break };
            if let Some(folder) = &self.folder {
                files::remove(&folder.join(&name))?;
            }
            kept.remove(&name);
        }
        Ok(())
    }
}

/// What is in the folder of manifests at the start.
#[derive(Debug, Default)]
struct Found {
    /// When each was written, its name and its size; the oldest first.
    manifests: Vec<(SystemTime, String, u64)>,
    /// The name of something else that is there.
    foreign: Option<String>,
}

/// Lists the folder. Deletes what an interrupted write left, and manifests beyond a number.
fn found_in(folder: &Path) -> io::Result<Found> {
    fs::create_dir_all(folder)?;
    let mut found = Found::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let own = name.strip_suffix(files::NEW).unwrap_or(&name);
        let metadata = entry.metadata()?;
        if !metadata.is_file() || !is_own(own) {
            found.foreign.get_or_insert(printable(&name));
        } else if own != name || found.manifests.len() >= KnownManifests::MAX_COUNT {
            fs::remove_file(entry.path())?;
        } else {
            let at = metadata.modified()?;
            found.manifests.push((at, name, metadata.len()));
        }
    }
    found.manifests.sort();
    Ok(found)
}

/// The name of the file of a digest; `None`: the digest is not valid, so it has no file.
fn file_name(digest: &str) -> Option<String> {
    check_digest(digest).ok()?;
    let name = digest.replacen(':', "-", 1);
    is_own(&name).then_some(name)
}

fn is_own(name: &str) -> bool {
    let parts = name.split_once('-');
    parts.is_some_and(|(algorithm, hex)| check_digest(&format!("{algorithm}:{hex}")).is_ok())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn bytes_in(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum()
    }

    fn manifest(n: u32, size: usize) -> (String, Body) {
        let mut bytes = vec![b' '; size];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        (oci::sha256(&bytes), Body::from(bytes))
    }

    #[test]
    fn the_bound_of_bytes_holds_at_each_write_and_the_oldest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        for known in [
            KnownManifests::in_folder(folder.path(), 10_000).unwrap(),
            KnownManifests {
                max_bytes: 10_000,
                ..KnownManifests::default()
            },
        ] {
            let all: Vec<_> = (0..20).map(|n| manifest(n, 2000)).collect();
            for (digest, body) in &all {
                known.keep(digest, body);
                assert_eq!(known.find(digest).as_ref(), Some(body));
                assert!(known.lock().bytes <= 10_000);
                assert!(bytes_in(folder.path()) <= 10_000);
            }
            let kept: Vec<bool> = all.iter().map(|(d, _)| known.find(d).is_some()).collect();
            assert_eq!(kept, [[false; 15].as_slice(), &[true; 5]].concat());
            // One that would push out all others is not kept.
            let (digest, body) = manifest(99, 2501);
            known.keep(&digest, &body);
            assert_eq!(known.find(&digest), None);
            assert_eq!(known.lock().manifests.len(), 5);
        }
        // A start with a smaller bound.
        let known = KnownManifests::in_folder(folder.path(), 5000).unwrap();
        assert_eq!(known.lock().manifests.len(), 2);
        assert_eq!(bytes_in(folder.path()), 4000);
    }

    #[test]
    fn what_others_left_in_the_folder_stays_and_what_a_crash_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (digest, body) = manifest(1, 500);
        let name = file_name(&digest).unwrap();
        fs::write(at(&name), &body[..100]).unwrap();
        fs::write(at(&format!("{name}{}", files::NEW)), &body).unwrap();
        fs::write(at("photo.jpg"), "x").unwrap();
        fs::create_dir(at("folder")).unwrap();
        let (linked, _) = manifest(2, 500);
        symlink("/dev/zero", at(&file_name(&linked).unwrap())).unwrap();
        let known = KnownManifests::in_folder(folder.path(), 4 << 20).unwrap();
        assert!(!at(&format!("{name}{}", files::NEW)).exists());
        assert!(at("photo.jpg").exists() && at("folder").exists());
        assert_eq!(known.find(&linked), None);
        // Torn: it is downloaded again, and then kept.
        assert_eq!(known.find(&digest), None);
        known.keep(&digest, &body);
        assert_eq!(known.find(&digest), Some(body));
    }
}
