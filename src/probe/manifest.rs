//! From the digest to the platform's manifest, its layers and sizes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;
use std::{fs, io};

use bytes::Bytes as Body;
use http::{HeaderValue, Method, header};

use super::Check;
use super::auth::Admitted;
use super::leg::{LineId, Lines};
use crate::model::evidence::{ManifestFound, Skip, Step};
use crate::model::fault::{ManifestFault, Phase};
use crate::model::hosts::RegistryHost;
use crate::model::text::printable;
use crate::model::units::Bytes;
use crate::registry::manifest::{self as oci, Entry, Manifest};

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

    fn find(&self, digest: &str) -> Option<Body> {
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

    fn keep(&self, digest: &str, body: &Body) {
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

/// containerd reads manifests up to this size into memory; the distribution-spec asks registries
/// to take at least 4 MiB.
pub(super) const MAX_SIZE: u64 = 8 << 20;

/// An index may hold indexes; nobody nests them deeper.
const MAX_NESTING: usize = 3;

/// The platforms of an index, for people.
fn names(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .filter_map(|entry| Some(entry.platform.as_ref()?.to_string()))
        .collect()
}

/// The path of a manifest by tag or digest (OCI distribution-spec, end-3).
pub(super) fn path(check: &Check, host: &RegistryHost, version: &str) -> String {
    path_of(check, host, "manifests", version)
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

/// Follows the digest to the manifest of the wanted platform.
pub(super) async fn find(
    check: &Check,
    host: &RegistryHost,
    lines: &mut Lines<'_>,
    registry: LineId,
    admitted: &Admitted,
) -> Step<ManifestFound, ManifestFault> {
    let start = Instant::now();
    let mut fetch = Fetch {
        check,
        host,
        lines,
        registry,
        admitted,
        fetched: usize::from(admitted.body.is_some()),
    };
    match fetch.find().await {
        Ok(value) => Step::from_result(Ok(value), start.elapsed()),
        Err(Stop::Fault(fault)) => Step::from_result(Err(fault), start.elapsed()),
        Err(Stop::Spared) => Step::Skipped {
            reason: Skip::Spared,
        },
    }
}

/// Why there is no manifest.
enum Stop {
    Fault(ManifestFault),
    /// It would have to be fetched, and that may count against a rate limit.
    Spared,
}

impl From<ManifestFault> for Stop {
    fn from(fault: ManifestFault) -> Self {
        Self::Fault(fault)
    }
}

struct Fetch<'a, 'b> {
    check: &'a Check,
    host: &'a RegistryHost,
    lines: &'a mut Lines<'b>,
    registry: LineId,
    admitted: &'a Admitted,
    fetched: usize,
}

impl Fetch<'_, '_> {
    async fn find(&mut self) -> Result<ManifestFound, Stop> {
        let digest = self
            .admitted
            .head
            .digest
            .clone()
            .ok_or_else(|| ManifestFault::Malformed {
                reason: "the answer names no digest".to_owned(),
            })?;
        let stated = self.admitted.head.media_type.clone();
        let (media_type, manifest) = match &self.admitted.body {
            Some(body) => {
                let body = body.clone();
                self.read(&digest, &body, stated.as_deref())?
            }
            None => self.get(&digest, stated.as_deref()).await?,
        };
        let mut found = (digest.clone(), media_type, manifest);
        let mut platforms = Vec::new();
        for _ in 0..MAX_NESTING {
            let Manifest::Index(entries) = &found.2 else {
                break;
            };
            let here = names(entries);
            let Some(entry) = oci::select(entries, &self.check.platform) else {
                return Err(ManifestFault::NoPlatform { available: here }.into());
            };
            let (digest, stated) = (entry.digest.clone(), entry.media_type.clone());
            let (media_type, manifest) = self.get(&digest, Some(&stated)).await?;
            platforms = if platforms.is_empty() {
                here
            } else {
                platforms
            };
            found = (digest, media_type, manifest);
        }
        let (platform_digest, media_type, Manifest::Image { layers, .. }) = found else {
            let reason = format!("indexes are nested more than {MAX_NESTING} deep");
            return Err(ManifestFault::Malformed { reason }.into());
        };
        let layers_size = Bytes(
            layers
                .iter()
                .map(|layer| layer.size.0)
                .fold(0, u64::saturating_add),
        );
        Ok(ManifestFound {
            digest,
            media_type,
            platform_digest,
            platforms,
            layers,
            layers_size,
            fetched: self.fetched,
        })
    }

    /// The manifest of a digest, from memory or by one GET.
    async fn get(
        &mut self,
        digest: &str,
        stated: Option<&str>,
    ) -> Result<(String, Manifest), Stop> {
        if let Some(body) = self.lines.edges().known.find(digest) {
            return Ok(self.read(digest, &body, stated)?);
        }
        if self.check.effort.only_free {
            return Err(Stop::Spared);
        }
        let mut request = self.lines.request(
            self.registry,
            Method::GET,
            &path(self.check, self.host, digest),
        );
        request
            .headers_mut()
            .insert(header::ACCEPT, HeaderValue::from_static(oci::ACCEPT));
        if let Some(value) = &self.admitted.authorization {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, value.clone());
        }
        self.fetched += 1;
        let exchange = self
            .lines
            .follow(self.registry, Phase::Manifest, request, MAX_SIZE)
            .await;
        let answer = exchange
            .result
            .map_err(|fault| ManifestFault::Http { fault })?;
        if !answer.status.is_success() {
            return Err(ManifestFault::Http {
                fault: answer.status_fault(self.lines.scrub()),
            }
            .into());
        }
        let content_type = answer
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(printable);
        Ok(self.read(digest, &answer.body, content_type.as_deref().or(stated))?)
    }

    fn read(
        &self,
        digest: &str,
        body: &Body,
        stated: Option<&str>,
    ) -> Result<(String, Manifest), ManifestFault> {
        let manifest = match oci::parse(body, stated) {
            // Refused by its type, whatever its content.
            Err(fault @ ManifestFault::Unsupported { .. }) => return Err(fault),
            parsed => {
                oci::verify(body, digest)?;
                parsed?
            }
        };
        self.lines.edges().known.keep(digest, body);
        Ok((stated.unwrap_or_default().to_owned(), manifest))
    }
}
