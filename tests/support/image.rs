//! Images as build tools make them, of random but repeatable bytes, with true digests: a runtime
//! could unpack them.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
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

/// Something that is named by its digest.
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

    /// An image whose configuration names other layers than its manifest has.
    pub fn mismatched(seed: u64) -> Self {
        let mut image = Self::single(seed, "amd64");
        let layers = image.platforms[0].layers.clone();
        let diff_ids: Vec<String> = layers.iter().map(|l| l.digest.clone()).collect();
        let types = [OCI_MANIFEST, OCI_CONFIG];
        image.platforms = vec![assemble("amd64", types, layers, &diff_ids)];
        image
    }

    /// An image with this configuration, which says nothing of its layers.
    pub fn configured(config: Content, layers: Vec<Content>) -> Self {
        Self {
            index: None,
            platforms: vec![with_config("amd64", OCI_MANIFEST, config, layers)],
            attestation: None,
        }
    }

    /// A Helm chart, as `helm push` makes it.
    pub fn chart(seed: u64) -> Self {
        let chart = layer(&mut Random(seed), 4 << 10).0;
        let config = json!({"name": "app", "version": "1.0.0", "apiVersion": "v2"});
        Self::configured(
            Content::new(
                "application/vnd.cncf.helm.config.v1+json",
                config.to_string(),
            ),
            vec![Content::new(
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                chart,
            )],
        )
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
            OCI_CONFIG,
            "application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        Flavour::Docker => (
            DOCKER_MANIFEST,
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
    };
    let (layers, diff_ids): (Vec<Content>, Vec<String>) = sizes
        .iter()
        .map(|size| layer(random, *size))
        .map(|(bytes, diff_id)| (Content::new(layer_type, bytes), diff_id))
        .unzip();
    assemble(
        architecture,
        [manifest_type, config_type],
        layers,
        &diff_ids,
    )
}

/// A manifest of these layers and its configuration, which says what they unpack to.
fn assemble(
    architecture: &str,
    [manifest_type, config_type]: [&str; 2],
    layers: Vec<Content>,
    diff_ids: &[String],
) -> PlatformImage {
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
    with_config(architecture, manifest_type, config, layers)
}

fn with_config(
    architecture: &str,
    manifest_type: &str,
    config: Content,
    layers: Vec<Content>,
) -> PlatformImage {
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

/// A gzipped tar of one file, of exactly this size, and the digest of what it unpacks to.
fn layer(random: &mut Random, size: usize) -> (Vec<u8>, String) {
    assert!(size >= SMALLEST_LAYER, "no layer of {size} bytes");
    // The end of a tar are two blocks of zeros; gzip adds 5 bytes to each block that it stores.
    let overhead = 3 * BLOCK + 64 + size / 4096;
    let data = random.bytes(size.saturating_sub(overhead) / BLOCK * BLOCK);
    let tar = [&tar_header(data.len()), &data[..], &[0; 2 * BLOCK]].concat();
    // What a small layer has no place for uncompressed is zeros.
    let level = if size < overhead {
        Compression::best()
    } else {
        Compression::none()
    };
    let gzip = |extra: Vec<u8>| {
        let mut into = GzBuilder::new().extra(extra).write(Vec::new(), level);
        into.write_all(&tar).unwrap();
        into.finish().unwrap()
    };
    // A field of the gzip header (RFC 1952, 2.3.1.1) makes up the rest.
    let padding = size - gzip(Vec::new()).len();
    let bytes = gzip(random.bytes(padding));
    assert_eq!(bytes.len(), size);
    (bytes, digest(&tar))
}

/// As small as [`layer`] can make one.
pub const SMALLEST_LAYER: usize = 128;

/// Of a tar (POSIX.1, ustar).
const BLOCK: usize = 512;

/// The header of a file of so many bytes.
fn tar_header(length: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, "app");
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{length:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
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
