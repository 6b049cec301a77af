//! What manifests, indexes and configurations consist of (OCI image-spec; Docker schema 2).

use crate::model::evidence::Layer;
use crate::model::platform::Platform;
use crate::model::text::printable;
use crate::model::units::Bytes;

/// How containerd treats content, decided by its media type alone: compared exactly, and without reading the content.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// An OCI index or Docker manifest list.
    Index,
    /// An OCI or Docker image manifest.
    Image,
    /// Docker's schema 1: containerd 1 converts it, containerd 2 rejects it.
    Schema1,
    /// Requested as a blob; not usable as the root of an image.
    #[default]
    Other,
}

impl Kind {
    /// The kind for a media type without parameters, as [`media_type`](super::manifest::media_type) returns it.
    pub fn of(media_type: &str) -> Self {
        match media_type {
            "application/vnd.docker.distribution.manifest.v2+json"
            | "application/vnd.oci.image.manifest.v1+json" => Self::Image,
            "application/vnd.docker.distribution.manifest.list.v2+json"
            | "application/vnd.oci.image.index.v1+json" => Self::Index,
            SCHEMA_1 => Self::Schema1,
            _ => Self::Other,
        }
    }
}

/// A reference to content (OCI image-spec, descriptor.md).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Descriptor {
    /// As written; it must be checked before it becomes part of a URL.
    pub digest: String,
    /// As written; empty if it is missing.
    pub media_type: String,
    /// In bytes, as written; 0 if it is missing, and possibly negative.
    pub size: i64,
    /// Other URLs of the content, the first 8; requested before the registry.
    pub urls: Vec<String>,
}

/// URLs of one descriptor that are kept.
pub(super) const MAX_URLS: usize = 8;

impl Descriptor {
    /// The descriptor as evidence.
    pub fn layer(&self) -> Layer {
        Layer {
            digest: printable(&self.digest),
            media_type: printable(&self.media_type),
            size: Bytes(u64::try_from(self.size).unwrap_or(0)),
        }
    }

    /// Whether it is an image configuration, and not another document in its place.
    pub fn is_image_config(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/vnd.docker.container.image.v1+json"
                | "application/vnd.oci.image.config.v1+json"
        )
    }
}

/// One manifest of an index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The manifest of the entry.
    pub descriptor: Descriptor,
    /// `None` if the entry states none: containerd takes it if nothing else matches.
    pub platform: Option<Platform>,
    /// It requires features of the operating system, which no Linux node has.
    pub wants_features: bool,
}

/// What a node needs of an index, however many manifests that has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Index {
    /// The entries that may be for the node, in the order of the index: of several that are equally good, the first
    /// 17.
    pub entries: Vec<Entry>,
    /// Platforms of its entries, without those of attestations unless it has nothing else.
    pub platforms: Vec<String>,
    /// Number of further platforms.
    pub platforms_left_out: usize,
    /// Whether an entry states a platform.
    pub has_platform: bool,
}

/// Equally good entries that are kept of an index; a pull of so many is not followed anyway.
pub(super) const MAX_EQUAL: usize = 17;

/// Platforms of an index that are kept; real ones have up to 20.
pub(super) const MAX_PLATFORMS: usize = 64;

/// The parts of an image's configuration that a pull reads (OCI image-spec, config.md).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ImageConfig {
    /// As written, such as `linux`; empty if missing.
    pub os: String,
    /// As written, such as `amd64`; empty if missing.
    pub architecture: String,
    /// Neither missing nor `layers`: containerd 2.1 then unpacks nothing.
    pub has_other_rootfs: bool,
    /// Number of digests of uncompressed layers.
    pub diff_ids: usize,
    /// The digests at the requested places, in their order.
    pub chosen: Vec<String>,
}

/// containerd's media type for schema 1, whichever variant was sent.
pub(super) const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
