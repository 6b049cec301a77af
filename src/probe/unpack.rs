//! Whether containerd could unpack an image, and which layers it downloads, by release (`pkg/unpack/unpacker.go`,
//! `image.go`).

use std::io::Read;

use aws_lc_rs::digest::{Context, SHA256};
use flate2::read::MultiGzDecoder;

use super::content::ZstdReader;
use crate::containerd::behaviour::Release;
use crate::model::fault::{HttpFault, ManifestFault};
use crate::model::platform::Platform;
use crate::model::text::{hex, printable};
use crate::registry::manifest::{self as oci, Descriptor, Image};

/// How containerd handles an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Plan {
    /// The layers that it downloads after the configuration, in their order; of very many, those that are kept.
    pub layers: Vec<Descriptor>,
    /// The digest of each when unpacked; empty if they are not unpacked.
    pub diff_ids: Vec<String>,
    /// It is pulled, but no container can start from it.
    pub not_an_image: bool,
}

/// What a release downloads and unpacks of an image with this configuration.
///
/// # Errors
/// If it fails, whatever the layers contain.
pub(super) fn plan(image: &Image, config: &[u8], release: Release) -> Result<Plan, ManifestFault> {
    let malformed = |reason: String| ManifestFault::Malformed { reason };
    if image.layers.is_encrypted {
        return Err(ManifestFault::Undecided {
            reason: "its layers are encrypted: whether the node has a decoder and the key can't be observed \
                     from here"
                .to_owned(),
        });
    }
    let supports_zstd = release >= Release::V2_0;
    let (kept, others) = (
        image.layers.kept(supports_zstd),
        image.layers.others(supports_zstd),
    );
    let places: Vec<usize> = kept
        .iter()
        .map(|layer| layer.place(supports_zstd))
        .collect();
    let read = oci::parse_config(config, &places)?;
    let layers = image.layers.unpacked(supports_zstd);
    let mismatch = |layers: usize| {
        malformed(format!(
            "the configuration has {} diff_ids for {layers} layers",
            read.diff_ids
        ))
    };
    if image.config.is_image_config() && layers > 0 {
        let kept = kept.iter().map(|layer| layer.descriptor.clone());
        if release >= Release::V2_1 && read.has_other_rootfs {
            return Ok(Plan {
                layers: kept.collect(),
                diff_ids: Vec::new(),
                not_an_image: true,
            });
        }
        if layers != read.diff_ids {
            return Err(mismatch(layers));
        }
        return Ok(Plan {
            layers: kept.collect(),
            diff_ids: read.chosen,
            not_an_image: !others.is_empty(),
        });
    }
    let not_an_image = !image.config.is_image_config() || !others.is_empty();
    if release < Release::V2_1 {
        let unsupported = |descriptor: &Descriptor| ManifestFault::Unsupported {
            media_type: printable(&descriptor.media_type),
        };
        let counted = match release {
            Release::V1_6 => image.layers.count,
            _ => layers,
        };
        let is_odd = counted != read.diff_ids || counted > 0;
        if is_odd && !image.config.is_image_config() {
            return Err(unsupported(&image.config));
        }
        if let Some(other) = others.first().filter(|_| is_odd) {
            return Err(unsupported(&other.descriptor));
        }
        if is_odd {
            return Err(mismatch(counted));
        }
    }
    Ok(Plan {
        layers: Vec::new(),
        diff_ids: Vec::new(),
        not_an_image,
    })
}

/// Checks that the configuration is for a requested platform, which containerd does if the index does not state one.
/// The error is the platform of the configuration, as text.
pub(super) fn is_for(config: &[u8], wanted: &Platform) -> Result<(), String> {
    let unnamed = || "a manifest whose configuration has no platform".to_owned();
    let config = oci::parse_config(config, &[]).map_err(|_| unnamed())?;
    let os = match config.os.as_str() {
        "" => "linux",
        os => os,
    };
    let found = Platform::normalized(os, &config.architecture, None);
    if found.os == wanted.os && found.architecture == wanted.architecture {
        return Ok(());
    }
    if config.architecture.is_empty() {
        return Err(unnamed());
    }
    Err(printable(&format!("{}/{}", config.os, config.architecture)))
}

/// Unpacks a layer in memory, as far as that shows whether containerd could.
///
/// # Errors
/// If containerd could not.
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
    let (mut unpacked, encoding): (Box<dyn Read + '_>, &str) = if is_raw || !(is_gzip || is_zstd) {
        (Box::new(body), "")
    } else if is_zstd {
        (Box::new(ZstdReader::new(body)), "zstd")
    } else {
        (Box::new(MultiGzDecoder::new(body)), "gzip")
    };
    // It may unpack to much more than it has, so that only its digest is kept.
    let (mut start, mut hash, mut all) = (Vec::new(), Context::new(&SHA256), 0);
    let mut part = vec![0; PART];
    loop {
        let read = match unpacked.read(&mut part) {
            Ok(0) => break,
            Ok(read) => read,
            Err(_) => return Err(unfit(&format!("it is not a valid {encoding} stream"))),
        };
        let missing = TAR_HEADER.saturating_sub(start.len()).min(read);
        start.extend_from_slice(&part[..missing]);
        hash.update(&part[..read]);
        all += read as u64;
        if all > MAX_UNPACKED {
            return Ok(());
        }
    }
    if !begins_as_tar(&start) {
        return Err(unfit("it is not a tar archive"));
    }
    let got = format!("sha256:{}", hex(hash.finish().as_ref()));
    if got == diff_id {
        return Ok(());
    }
    Err(unfit(&format!(
        "its unpacked digest is {got}, but the configuration has {}",
        printable(diff_id)
    )))
}

/// Bytes; a small layer may unpack to much more.
const MAX_UNPACKED: u64 = 32 << 20;

/// Bytes that are unpacked at once.
const PART: usize = 64 << 10;

/// Bytes of the header of a file in an archive.
const TAR_HEADER: usize = 512;

/// Nothing, zeros, or a header with a correct checksum (POSIX.1, ustar).
fn begins_as_tar(content: &[u8]) -> bool {
    let Some(header) = content.get(..TAR_HEADER) else {
        return content.is_empty();
    };
    if header.iter().all(|byte| *byte == 0) {
        return true;
    }
    let sum_of = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    // The sum's own field counts as blanks.
    let sum = sum_of(header) - sum_of(&header[148..156]) + 8 * 32;
    let stated = String::from_utf8_lossy(&header[148..156]);
    let stated = stated.trim_matches(|c: char| c == '\0' || c == ' ');
    u32::from_str_radix(stated, 8) == Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const ALL: [Release; 4] = [Release::V1_6, Release::V1_7, Release::V2_0, Release::V2_1];

    fn descriptor(media_type: &str) -> Descriptor {
        Descriptor {
            digest: format!("sha256:{}", "a".repeat(64)),
            media_type: media_type.to_owned(),
            size: 10,
            urls: Vec::new(),
        }
    }

    fn image(config: &str, layers: &[&str]) -> Image {
        Image {
            config: descriptor(config),
            layers: layers.iter().map(|layer| descriptor(layer)).collect(),
        }
    }

    fn config(diff_ids: usize) -> Vec<u8> {
        let diff_ids = vec!["sha256:x"; diff_ids];
        serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
            .to_string()
            .into_bytes()
    }

    /// How many layers each release downloads; `None`: it fails.
    fn fetched(image: &Image, config: &[u8]) -> [Option<usize>; 4] {
        ALL.map(|release| {
            plan(image, config, release)
                .ok()
                .map(|plan| plan.layers.len())
        })
    }

    #[test]
    fn an_image_is_fetched_by_all_and_needs_a_diff_id_for_each_layer() {
        let two = image(OCI_CONFIG, &[OCI_LAYER, OCI_LAYER]);
        assert_eq!(fetched(&two, &config(2)), [Some(2); 4]);
        assert_eq!(fetched(&two, &config(1)), [None; 4]);
        assert_eq!(fetched(&two, b"no json"), [None; 4]);
        let none = image(OCI_CONFIG, &[]);
        assert_eq!(fetched(&none, &config(0)), [Some(0); 4]);
        assert!(!plan(&two, &config(2), Release::V2_1).unwrap().not_an_image);
    }

    #[test]
    fn artifacts_are_fetched_by_some_releases_and_are_no_images() {
        let helm = image(
            "application/vnd.cncf.helm.config.v1+json",
            &["application/vnd.cncf.helm.chart.content.v1.tar+gzip"],
        );
        // All that it has was downloaded beside the configuration.
        assert_eq!(fetched(&helm, b"{}"), [None, Some(0), Some(0), Some(0)]);
        let signature = image(
            OCI_CONFIG,
            &["application/vnd.dev.cosign.simplesigning.v1+json"],
        );
        assert_eq!(fetched(&signature, &config(1)), [None, None, None, Some(0)]);
        // Layers beside a document that is not an image configuration are never downloaded.
        let odd = image("application/octet-stream", &[OCI_LAYER]);
        assert_eq!(fetched(&odd, &config(1)), [None, None, None, Some(0)]);
        for artifact in [&helm, &signature, &odd] {
            let plan = plan(artifact, &config(1), Release::V2_1).unwrap();
            assert!(plan.not_an_image);
        }
        let encrypted = image(
            OCI_CONFIG,
            &["application/vnd.oci.image.layer.v1.tar+gzip+encrypted"],
        );
        assert!(matches!(
            plan(&encrypted, &config(1), Release::V1_7),
            Err(ManifestFault::Undecided { .. })
        ));
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(content).unwrap();
        packed.finish().unwrap()
    }

    fn diff_id(content: &[u8]) -> String {
        oci::sha256(content)
    }

    #[test]
    fn a_layer_is_unpacked_by_its_type_and_its_content() {
        let archive = [0u8; 1024];
        let (packed, id) = (gzip(&archive), diff_id(&archive));
        let plain = "application/vnd.oci.image.layer.v1.tar";
        let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        for (media_type, body, good) in [
            (OCI_LAYER, packed.as_slice(), true),
            // containerd detects compression from the content, but not for OCI's plain type.
            (OCI_LAYER, &archive, true),
            (docker, &packed, true),
            (docker, &archive, true),
            (plain, &archive, true),
            (plain, &packed, false),
            (OCI_LAYER, &packed[..packed.len() - 9], false),
            (OCI_LAYER, b"no archive at all", false),
        ] {
            let result = check(media_type, body, Some(&id), true);
            assert_eq!(result.is_ok(), good, "{media_type}: {result:?}");
        }
        // Another archive than the configuration names; and partial content is not judged.
        assert!(check(OCI_LAYER, &packed, Some("sha256:0"), true).is_err());
        assert!(check(OCI_LAYER, b"part", Some(&id), false).is_ok());
        assert!(check(OCI_LAYER, b"of an artifact", None, true).is_ok());
        // An empty layer is valid too.
        assert!(check(OCI_LAYER, &gzip(b""), Some(&diff_id(b"")), true).is_ok());
    }

    #[test]
    fn a_platform_is_compared_where_the_index_says_none() {
        let wanted: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(is_for(&config(0), &wanted), Ok(()));
        let other = is_for(br#"{"architecture": "arm64", "os": "linux"}"#, &wanted);
        assert_eq!(other, Err("linux/arm64".to_owned()));
        assert!(is_for(b"{}", &wanted).is_err());
    }
}
