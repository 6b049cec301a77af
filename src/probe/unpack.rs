//! Whether containerd could unpack what it fetched, and which layers it fetches at all: by the
//! release (`pkg/unpack/unpacker.go`, `image.go`).

use std::io::Read;

use aws_lc_rs::digest::{SHA256, digest};
use flate2::read::MultiGzDecoder;

use crate::containerd::behaviour::Release;
use crate::model::fault::{HttpFault, ManifestFault};
use crate::model::platform::Platform;
use crate::model::text::{hex, printable};
use crate::registry::manifest::{self as oci, Descriptor, Image};

/// What containerd does with an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Plan {
    /// The layers that it fetches, in their order.
    pub layers: Vec<Descriptor>,
    /// What each has to be when it is unpacked; empty where none is.
    pub diff_ids: Vec<String>,
    /// It is pulled, and no container starts from it.
    pub not_an_image: bool,
}

/// What a release fetches and unpacks of an image with this configuration.
///
/// # Errors
/// When it fails, whatever the layers are.
pub(super) fn plan(image: &Image, config: &[u8], release: Release) -> Result<Plan, ManifestFault> {
    let malformed = |reason: String| ManifestFault::Malformed { reason };
    let is_encrypted = |layer: &Descriptor| layer.media_type.contains("+encrypted");
    if image.layers.iter().any(is_encrypted) {
        return Err(ManifestFault::Undecided {
            reason: "its layers are encrypted: whether the node has a decoder and the key can't be seen from here".to_owned(),
        });
    }
    let read = oci::parse_config(config)
        .map_err(|reason| malformed(format!("the image's configuration: {reason}")))?;
    let knows_zstd = release >= Release::V2;
    let (layers, others): (Vec<Descriptor>, Vec<Descriptor>) = image
        .layers
        .iter()
        .cloned()
        .partition(|layer| layer.is_layer(knows_zstd));
    let mismatch = |layers: usize| {
        malformed(format!(
            "the configuration has {} diff_ids for {layers} layers",
            read.diff_ids.len()
        ))
    };
    if image.config.is_image_config() && !layers.is_empty() {
        if release >= Release::V2 && read.has_other_rootfs {
            return Ok(Plan {
                layers: image.layers.clone(),
                diff_ids: Vec::new(),
                not_an_image: true,
            });
        }
        if layers.len() != read.diff_ids.len() {
            return Err(mismatch(layers.len()));
        }
        // Others are fetched beside the configuration.
        let mut fetched = layers;
        let not_an_image = !others.is_empty();
        fetched.extend(others);
        return Ok(Plan {
            layers: fetched,
            diff_ids: read.diff_ids,
            not_an_image,
        });
    }
    let not_an_image = !image.config.is_image_config() || !others.is_empty();
    if release < Release::V2 {
        let unsupported = |descriptor: &Descriptor| ManifestFault::Unsupported {
            media_type: printable(&descriptor.media_type),
        };
        let counted = match release {
            Release::V1_6 => image.layers.len(),
            _ => layers.len(),
        };
        let is_odd = counted != read.diff_ids.len() || counted > 0;
        if is_odd && !image.config.is_image_config() {
            return Err(unsupported(&image.config));
        }
        if let Some(other) = others.first().filter(|_| is_odd) {
            return Err(unsupported(other));
        }
        if is_odd {
            return Err(mismatch(counted));
        }
    }
    Ok(Plan {
        layers: others,
        diff_ids: Vec::new(),
        not_an_image,
    })
}

/// The configuration is for a platform that is asked for: looked at where an index does not say.
pub(super) fn is_for(config: &[u8], wanted: &Platform) -> bool {
    oci::parse_config(config).is_ok_and(|config| {
        let os = if config.os.is_empty() {
            "linux"
        } else {
            &config.os
        };
        let found = Platform::normalised(os, &config.architecture, None);
        found.os == wanted.os && found.architecture == wanted.architecture
    })
}

/// The platform of a configuration, for people.
pub(super) fn platform_of(config: &[u8]) -> String {
    match oci::parse_config(config) {
        Ok(config) if !config.architecture.is_empty() => {
            printable(&format!("{}/{}", config.os, config.architecture))
        }
        _ => "a manifest whose configuration names no platform".to_owned(),
    }
}

/// Unpacks a layer in memory, as far as that can tell whether containerd could.
///
/// # Errors
/// When containerd could not.
pub(super) fn check(
    media_type: &str,
    body: &[u8],
    diff_id: Option<&str>,
    is_whole: bool,
) -> Result<(), HttpFault> {
    let Some(diff_id) = diff_id.filter(|_| is_whole) else {
        return Ok(());
    };
    let unfit = |reason: &str| HttpFault::NotUnpacked {
        reason: reason.to_owned(),
    };
    let base = media_type.split('+').next().unwrap_or_default();
    let is_oci = base.starts_with("application/vnd.oci.image.layer.");
    let is_raw = match media_type.split_once('+') {
        None => is_oci,
        Some((_, extension)) => !is_oci || !matches!(extension, "gzip" | "zstd"),
    };
    let is_gzip = body.starts_with(&[0x1f, 0x8b, 8]);
    let is_zstd = body.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let mut unpacked = Vec::new();
    let content = if is_raw || !(is_gzip || is_zstd) {
        body
    } else if is_zstd {
        // Not unpacked here; its digest is that of the descriptor.
        return Ok(());
    } else {
        let mut bounded = MultiGzDecoder::new(body).take(MAX_UNPACKED + 1);
        bounded
            .read_to_end(&mut unpacked)
            .map_err(|_| unfit("it is no good gzip stream"))?;
        if unpacked.len() as u64 > MAX_UNPACKED {
            return Ok(());
        }
        &unpacked
    };
    if !begins_as_tar(content) {
        return Err(unfit("it is no tar archive"));
    }
    let got = format!("sha256:{}", hex(digest(&SHA256, content).as_ref()));
    if got == diff_id {
        return Ok(());
    }
    Err(unfit(&format!(
        "unpacked it is {got}, and the configuration says {}",
        printable(diff_id)
    )))
}

/// A small layer may unpack to much more.
const MAX_UNPACKED: u64 = 32 << 20;

/// Nothing, zeros, or a header whose checksum is right (POSIX.1, ustar).
fn begins_as_tar(content: &[u8]) -> bool {
    let Some(header) = content.get(..512) else {
        return content.is_empty();
    };
    if header.iter().all(|byte| *byte == 0) {
        return true;
    }
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    let stated = String::from_utf8_lossy(&header[148..156]);
    let stated = stated.trim_matches(|c: char| c == '\0' || c == ' ');
    u32::from_str_radix(stated, 8) == Ok(sum)
}
