//! Images as build tools make them, of random but repeatable bytes, with true digests.

use bytes::Bytes;
use serde_json::{Value, json};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// Whose media types an image is written with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Flavour {
    #[default]
    Oci,
    Docker,
}

/// Something that goes by its digest.
#[derive(Clone, Debug)]
pub struct Content {
    /// `sha256:…`.
    pub digest: String,
    pub media_type: String,
    pub bytes: Bytes,
}

/// One platform of an image.
#[derive(Clone, Debug)]
pub struct PlatformImage {
    pub architecture: String,
    pub manifest: Content,
    pub config: Content,
    pub layers: Vec<Content>,
}

/// An image: one manifest a platform, and an index above them unless it has a single one.
#[derive(Clone, Debug)]
pub struct Image {
    pub index: Option<Content>,
    pub platforms: Vec<PlatformImage>,
    /// What buildkit adds to an index for `unknown/unknown`: to be seen, and not to be chosen.
    pub attestation: Option<PlatformImage>,
}

/// Sizes of the layers of [`Image::multi`]: small, yet more than one TCP window.
pub const LAYERS: [usize; 3] = [256 << 10, 48 << 10, 2 << 10];

impl Image {
    /// linux/amd64 and linux/arm64 with three layers each, and an attestation.
    pub fn multi(seed: u64) -> Self {
        Self::build(seed, Flavour::Oci, &["amd64", "arm64"], &LAYERS)
    }

    /// A manifest without an index above it.
    pub fn single(seed: u64, architecture: &str) -> Self {
        let mut image = Self::build(seed, Flavour::Oci, &[architecture], &LAYERS);
        image.index = None;
        image.attestation = None;
        image
    }

    pub fn build(seed: u64, flavour: Flavour, architectures: &[&str], layers: &[usize]) -> Self {
        let mut random = Random(seed);
        let platforms: Vec<PlatformImage> = architectures
            .iter()
            .map(|architecture| platform(&mut random, flavour, architecture, layers))
            .collect();
        let attestation = (flavour == Flavour::Oci)
            .then(|| platform(&mut random, Flavour::Oci, "unknown", &[512]));
        let mut manifests: Vec<Value> = platforms
            .iter()
            .map(|p| {
                let mut entry = descriptor(&p.manifest);
                entry["platform"] = json!({"architecture": p.architecture, "os": "linux"});
                entry
            })
            .collect();
        if let (Some(attestation), Some(first)) = (&attestation, platforms.first()) {
            let mut entry = descriptor(&attestation.manifest);
            entry["platform"] = json!({"architecture": "unknown", "os": "unknown"});
            entry["annotations"] = json!({
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": first.manifest.digest,
            });
            manifests.push(entry);
        }
        let media_type = match flavour {
            Flavour::Oci => OCI_INDEX,
            Flavour::Docker => DOCKER_LIST,
        };
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        Self {
            index: Some(Content::new(media_type, index.to_string())),
            platforms,
            attestation,
        }
    }

    /// What a tag points to.
    pub fn top(&self) -> &Content {
        self.index
            .as_ref()
            .or_else(|| self.platforms.first().map(|p| &p.manifest))
            .expect("an image has a platform")
    }

    pub fn platform(&self, architecture: &str) -> &PlatformImage {
        self.platforms
            .iter()
            .find(|p| p.architecture == architecture)
            .expect("a platform of this image")
    }
}

impl Content {
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: digest(&bytes),
            media_type: media_type.to_owned(),
            bytes,
        }
    }
}

/// `sha256:` and 64 hexadecimal digits (OCI image-spec, descriptor.md).
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_sha256(bytes))
}

pub fn hex_sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    sum.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn platform(
    random: &mut Random,
    flavour: Flavour,
    architecture: &str,
    sizes: &[usize],
) -> PlatformImage {
    let (manifest_type, config_type, layer_type) = match flavour {
        Flavour::Oci => (
            OCI_MANIFEST,
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        Flavour::Docker => (
            DOCKER_MANIFEST,
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
    };
    let layers: Vec<Content> = sizes
        .iter()
        .map(|size| Content::new(layer_type, random.bytes(*size)))
        .collect();
    let diff_ids: Vec<&str> = layers.iter().map(|l| l.digest.as_str()).collect();
    let os = if architecture == "unknown" {
        "unknown"
    } else {
        "linux"
    };
    let config = json!({
        "architecture": architecture,
        "os": os,
        "created": "2026-01-02T03:04:05Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": ["/app"],
            "User": "65532",
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = Content::new(config_type, config.to_string());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": descriptor(&config),
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
    });
    PlatformImage {
        architecture: architecture.to_owned(),
        manifest: Content::new(manifest_type, manifest.to_string()),
        config,
        layers,
    }
}

fn descriptor(content: &Content) -> Value {
    json!({
        "mediaType": content.media_type,
        "digest": content.digest,
        "size": content.bytes.len(),
    })
}

/// SplitMix64: repeatable bytes that no compressor can shorten.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words = length.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }
}
