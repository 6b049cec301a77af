//! Manifests and indexes (OCI image-spec; Docker schema 2), and which of an index a node pulls.

use aws_lc_rs::digest;
use serde::Deserialize;

use crate::model::evidence::Layer;
use crate::model::fault::ManifestFault;
use crate::model::platform::Platform;
use crate::model::reference::check_digest;
use crate::model::text::printable;
use crate::model::units::Bytes;

/// `Accept` of containerd's request by tag or digest (`core/remotes/docker/resolver.go`).
pub const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Manifest {
    Index(Vec<Entry>),
    Image { config: Layer, layers: Vec<Layer> },
}

/// One manifest of an index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub digest: String,
    pub media_type: String,
    pub size: Bytes,
    /// Where it says none, containerd takes it when nothing else fits.
    pub platform: Option<Platform>,
}

/// Reads a manifest. `media_type` is what containerd goes by: the `Content-Type` of the answer to
/// the tag, or the type in the index that led here.
///
/// Attestations and entries for an unknown platform are left out of an index: no node runs them.
///
/// # Errors
/// When containerd would refuse it or not know what to do with it.
pub fn parse(body: &[u8], media_type: Option<&str>) -> Result<Manifest, ManifestFault> {
    let malformed = |reason: &str| ManifestFault::Malformed {
        reason: reason.to_owned(),
    };
    let document: Document = serde_json::from_slice(body).map_err(|error| {
        // The error's own words may repeat the content.
        malformed(&match error.classify() {
            serde_json::error::Category::Data => format!(
                "a field is not of the type the image-spec says, in line {}",
                error.line()
            ),
            _ => format!("it is no JSON, in line {}", error.line()),
        })
    })?;
    let unsupported = |media_type: &str| ManifestFault::Unsupported {
        media_type: printable(media_type),
    };
    let stated = media_type
        .map(|m| m.split(';').next().unwrap_or(m).trim().to_ascii_lowercase())
        .filter(|m| !m.is_empty());
    if document.fs_layers.is_some_and(|l| !l.is_empty()) {
        return Err(unsupported(stated.as_deref().unwrap_or(SCHEMA_1)));
    }
    let kind = match (&stated, &document.media_type) {
        // containerd takes text/plain for schema 1, whatever is in it.
        (Some(stated), _) if stated == "text/plain" => None,
        (Some(stated), _) => Kind::of(stated),
        (None, Some(own)) => Kind::of(own),
        (None, None) if document.manifests.is_some() => Some(Kind::Index),
        (None, None) => Some(Kind::Image),
    };
    let Some(kind) = kind else {
        return Err(unsupported(
            stated
                .as_deref()
                .or(document.media_type.as_deref())
                .unwrap_or_default(),
        ));
    };
    let own = document.media_type.as_deref().and_then(Kind::of);
    match kind {
        // A body that can be read both ways is an attack (CVE-2021-41190).
        Kind::Index
            if document.config.is_some()
                || document.layers.is_some()
                || own == Some(Kind::Image) =>
        {
            Err(malformed("it is sent as an index and is an image manifest"))
        }
        Kind::Image if document.manifests.is_some() || own == Some(Kind::Index) => {
            Err(malformed("it is sent as an image manifest and is an index"))
        }
        Kind::Index => {
            let manifests = document.manifests.unwrap_or_default();
            let entries = manifests.into_iter().filter(|d| !d.is_no_image());
            entries
                .map(Descriptor::into_entry)
                .collect::<Result<_, _>>()
                .map(Manifest::Index)
        }
        Kind::Image => {
            let config = document
                .config
                .ok_or_else(|| malformed("the image manifest has no config"))?;
            let layers = document.layers.unwrap_or_default().into_iter();
            Ok(Manifest::Image {
                config: config.into_layer()?,
                layers: layers
                    .map(Descriptor::into_layer)
                    .collect::<Result<_, _>>()?,
            })
        }
    }
}

/// `sha256:…` of a body, for a server that states no digest.
pub fn sha256(body: &[u8]) -> String {
    format!(
        "sha256:{}",
        hex(digest::digest(&digest::SHA256, body).as_ref())
    )
}

/// Checks that a body has the digest it was asked by.
///
/// # Errors
/// When it has another, or the digest is none that we can compute.
pub fn verify(body: &[u8], expected: &str) -> Result<(), ManifestFault> {
    check_digest(expected).map_err(|error| ManifestFault::Malformed {
        reason: printable(&error.to_string()),
    })?;
    let (name, algorithm) = match expected.split_once(':') {
        Some(("sha512", _)) => ("sha512", &digest::SHA512),
        Some(("sha384", _)) => ("sha384", &digest::SHA384),
        _ => ("sha256", &digest::SHA256),
    };
    let got = format!("{name}:{}", hex(digest::digest(algorithm, body).as_ref()));
    if got == expected {
        Ok(())
    } else {
        Err(ManifestFault::DigestMismatch {
            expected: expected.to_owned(),
            got,
        })
    }
}

/// The entry that containerd pulls for a platform (containerd/platforms, `Only`): the closest
/// that the machine can run, the first of equals. Versions of an operating system are not compared.
pub fn select<'a>(entries: &'a [Entry], wanted: &Platform) -> Option<&'a Entry> {
    let acceptable = acceptable(wanted);
    let rank = |entry: &Entry| match &entry.platform {
        None => Some(acceptable.len()),
        Some(platform) => acceptable.iter().position(|p| p == platform),
    };
    entries
        .iter()
        .filter_map(|entry| Some((rank(entry)?, entry)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry)
}

/// The layer whose first byte tells how layers travel: the largest, since small ones may be kept
/// elsewhere. Layers that are not distributed by the registry are no witness.
pub fn witness(layers: &[Layer]) -> Option<&Layer> {
    layers
        .iter()
        .filter(|layer| {
            !layer.media_type.contains("rootfs.foreign.")
                && !layer.media_type.contains("layer.nondistributable.")
        })
        .reduce(|best, layer| if layer.size > best.size { layer } else { best })
}

/// What a machine of this platform runs, best first.
fn acceptable(wanted: &Platform) -> Vec<Platform> {
    let mut list = vec![normal(
        &wanted.os,
        &wanted.architecture,
        wanted.variant.as_deref(),
    )];
    let mut add = |architecture: &str, variant: Option<String>| {
        list.push(normal(&wanted.os, architecture, variant.as_deref()));
    };
    let wanted_variant = wanted.variant.as_deref();
    match wanted.architecture.as_str() {
        "amd64" => {
            for level in (1..number(wanted_variant).unwrap_or(0)).rev() {
                add("amd64", Some(format!("v{level}")));
            }
            add("386", None);
        }
        "arm" => {
            for version in (5..number(wanted_variant).unwrap_or(0)).rev() {
                add("arm", Some(format!("v{version}")));
            }
        }
        "arm64" => {
            let variant = wanted_variant.unwrap_or("v8");
            let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
            let Some(major) = number(Some(major)) else {
                return list;
            };
            let mut minor = number(Some(minor)).unwrap_or(0);
            let named = |major: u8, minor: u8| match minor {
                0 => format!("v{major}"),
                _ => format!("v{major}.{minor}"),
            };
            if major == 9 {
                for lower in (0..minor).rev() {
                    add("arm64", Some(named(9, lower)));
                }
                // Armv9.0 begins where Armv8.5 is.
                minor += 5;
                add("arm64", Some(named(8, minor)));
            }
            if major == 8 || major == 9 {
                for lower in (0..minor).rev() {
                    add("arm64", Some(named(8, lower)));
                }
            }
            // v9 itself is tried as 32-bit v9 too; v8.x and v9.x are tried as v8.
            let version = if variant.contains('.') { 8 } else { major };
            for version in (5..=version).rev() {
                add("arm", Some(format!("v{version}")));
            }
        }
        _ => {}
    }
    list
}

fn normal(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
    Platform::normalised(os, architecture, variant)
}

/// 3 for `v3`. Levels and versions have one or two digits.
fn number(variant: Option<&str>) -> Option<u8> {
    let variant = variant?;
    let digits = variant.strip_prefix('v').unwrap_or(variant);
    digits.parse().ok().filter(|n| *n < 100)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Index,
    Image,
}

impl Kind {
    fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.docker.distribution.manifest.v2+json"
            | "application/vnd.oci.image.manifest.v1+json" => Some(Self::Image),
            "application/vnd.docker.distribution.manifest.list.v2+json"
            | "application/vnd.oci.image.index.v1+json" => Some(Self::Index),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<Vec<serde::de::IgnoredAny>>,
}

/// OCI image-spec, descriptor.md.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    platform: Option<RawPlatform>,
    annotations: Option<std::collections::BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl Descriptor {
    /// BuildKit keeps provenance and SBOMs as manifests beside the image.
    fn is_no_image(&self) -> bool {
        let attestation = self
            .annotations
            .as_ref()
            .and_then(|a| a.get("vnd.docker.reference.type"))
            .is_some_and(|t| t.as_deref() == Some("attestation-manifest"));
        let unknown = self
            .platform
            .as_ref()
            .is_some_and(|p| p.os == "unknown" || p.architecture == "unknown");
        attestation || unknown
    }

    fn into_layer(self) -> Result<Layer, ManifestFault> {
        Ok(Layer {
            digest: checked(self.digest)?,
            media_type: printable(&self.media_type),
            size: Bytes(self.size),
        })
    }

    fn into_entry(self) -> Result<Entry, ManifestFault> {
        Ok(Entry {
            digest: checked(self.digest)?,
            media_type: printable(&self.media_type),
            size: Bytes(self.size),
            platform: self.platform.map(|p| {
                // What says no system is taken to be for the node's own.
                let os = if p.os.is_empty() { "linux" } else { &p.os };
                let variant = p.variant.map(|v| printable(&v));
                normal(
                    &printable(os),
                    &printable(&p.architecture),
                    variant.as_deref(),
                )
            }),
        })
    }
}

/// A digest becomes part of a URL and is compared with what arrives; nothing else may be in it.
fn checked(digest: String) -> Result<String, ManifestFault> {
    match check_digest(&digest) {
        Ok(()) => Ok(digest),
        Err(error) => Err(ManifestFault::Malformed {
            reason: printable(&error.to_string()),
        }),
    }
}

const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

    fn digest_of(n: u8) -> String {
        format!("sha256:{}", hex(&[n; 32]))
    }

    fn descriptor(n: u8, size: u64) -> Value {
        json!({"mediaType": "application/x", "digest": digest_of(n), "size": size, "new": 1})
    }

    fn read(document: &Value, media_type: Option<&str>) -> Result<Manifest, ManifestFault> {
        parse(document.to_string().as_bytes(), media_type)
    }

    fn index(platforms: &[&str]) -> Vec<Entry> {
        let manifests: Vec<Value> = platforms
            .iter()
            .zip(0..)
            .map(|(platform, n)| {
                let mut entry = descriptor(n, 1);
                let mut parts = platform.split('/');
                if let (Some(os), Some(architecture)) = (parts.next(), parts.next()) {
                    entry["platform"] = json!({"os": os, "architecture": architecture,
                        "variant": parts.next().unwrap_or_default(), "os.version": "10.0.1"});
                }
                entry
            })
            .collect();
        match read(
            &json!({"schemaVersion": 2, "manifests": manifests}),
            Some(OCI_INDEX),
        ) {
            Ok(Manifest::Index(entries)) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_image_manifest_gives_its_layers() {
        let document = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE,
            "config": descriptor(1, 10), "layers": [descriptor(2, 20), descriptor(3, 30)]});
        for media_type in [
            Some(OCI_IMAGE),
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
            None,
        ] {
            let Ok(Manifest::Image { config, layers }) = read(&document, media_type) else {
                panic!("{media_type:?}");
            };
            assert_eq!(
                (config.digest, layers.len(), layers[1].size),
                (digest_of(1), 2, Bytes(30))
            );
        }
    }

    #[test]
    fn what_containerd_refuses_is_a_fault() {
        let image = json!({"config": descriptor(1, 1), "layers": []});
        let list = json!({"manifests": []});
        let unsupported = |m: &str| ManifestFault::Unsupported {
            media_type: m.to_owned(),
        };
        for (document, media_type, fault) in [
            (
                json!({"schemaVersion": 1, "fsLayers": [{"blobSum": "x"}]}),
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
                unsupported("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            ),
            (image.clone(), Some("text/plain"), unsupported("text/plain")),
            (
                image.clone(),
                Some("application/json"),
                unsupported("application/json"),
            ),
            (
                json!({"mediaType": "application/x"}),
                None,
                unsupported("application/x"),
            ),
        ] {
            assert_eq!(read(&document, media_type), Err(fault));
        }
        for (document, media_type) in [
            (image, Some(OCI_INDEX)),
            (list, Some(OCI_IMAGE)),
            (json!({"layers": []}), Some(OCI_IMAGE)),
            (json!([]), Some(OCI_IMAGE)),
            (json!({"config": {"digest": "../../x"}}), Some(OCI_IMAGE)),
            (json!({"config": {"digest": 5}}), Some(OCI_IMAGE)),
        ] {
            assert!(
                matches!(
                    read(&document, media_type),
                    Err(ManifestFault::Malformed { .. })
                ),
                "{document}"
            );
        }
        assert!(matches!(
            parse(b"<html>", None),
            Err(ManifestFault::Malformed { .. })
        ));
    }

    #[test]
    fn attestations_are_no_images() {
        let mut attestation = descriptor(7, 1);
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        let mut unknown = descriptor(8, 1);
        unknown["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let document = json!({"manifests": [attestation, unknown, descriptor(9, 1)]});
        let Ok(Manifest::Index(entries)) = read(&document, Some(OCI_INDEX)) else {
            panic!()
        };
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].platform, None);
    }

    #[test]
    fn a_node_gets_what_it_can_run_and_the_best_of_it() {
        for (wanted, platforms, chosen) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], Some(1)),
            ("linux/amd64", &["linux/386", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/386"], Some(0)),
            ("linux/386", &["linux/amd64"], None),
            ("linux/amd64", &["linux/amd64/v2"], None),
            ("linux/amd64", &["linux/amd64/v1"], Some(0)),
            (
                "linux/amd64/v3",
                &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
                Some(1),
            ),
            ("linux/amd64", &["windows/amd64"], None),
            ("windows/amd64", &["linux/amd64", "windows/amd64"], Some(1)),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"], Some(1)),
            ("linux/arm64", &["linux/arm/v5", "linux/arm/v7"], Some(1)),
            ("linux/arm64", &["linux/arm64/v9"], None),
            ("linux/arm64/v9", &["linux/arm64"], Some(0)),
            (
                "linux/arm64/v9.1",
                &["linux/arm64/v8.7", "linux/arm64/v8.6"],
                Some(1),
            ),
            (
                "linux/arm64/v8.2",
                &["linux/arm64", "linux/arm64/v8.1"],
                Some(1),
            ),
            ("linux/arm", &["linux/arm/v6", "linux/arm/v8"], Some(0)),
            ("linux/arm/v6", &["linux/arm/v7", "linux/arm/v5"], Some(1)),
            ("linux/arm/v7", &["linux/arm64"], None),
            ("linux/amd64", &["linux/amd64", "linux/amd64"], Some(0)),
            ("linux/s390x", &["linux/amd64"], None),
            ("linux/amd64", &["", "linux/386"], Some(1)),
            ("linux/amd64", &["linux/arm64", ""], Some(1)),
            ("linux/amd64", &[], None),
        ] {
            let entries = index(platforms);
            let found = select(&entries, &wanted.parse().unwrap());
            let expected: Option<&Entry> = chosen.map(|n: usize| &entries[n]);
            assert_eq!(
                found.map(std::ptr::from_ref),
                expected.map(std::ptr::from_ref),
                "{wanted} of {platforms:?}"
            );
        }
    }

    #[test]
    fn a_body_must_have_its_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        assert_eq!(verify(b"", empty), Ok(()));
        assert_eq!(
            verify(b"x", empty),
            Err(ManifestFault::DigestMismatch {
                expected: empty.to_owned(),
                got: sha256(b"x")
            })
        );
        let sha512 = format!(
            "sha512:{}",
            hex(digest::digest(&digest::SHA512, b"x").as_ref())
        );
        assert_eq!(verify(b"x", &sha512), Ok(()));
        assert!(matches!(
            verify(b"x", "md5:00"),
            Err(ManifestFault::Malformed { .. })
        ));
    }

    #[test]
    fn the_witness_is_the_largest_layer_the_registry_has() {
        let layer = |kind: &str, size| Layer {
            digest: digest_of(1),
            media_type: kind.to_owned(),
            size: Bytes(size),
        };
        let layers = [
            layer("application/vnd.oci.image.layer.v1.tar+gzip", 5),
            layer(
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                900,
            ),
            layer(
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                800,
            ),
            layer("application/vnd.oci.image.layer.v1.tar+zstd", 50),
        ];
        assert_eq!(witness(&layers), Some(&layers[3]));
        assert_eq!(witness(&layers[1..3]), None);
        assert_eq!(witness(&[]), None);
    }

    proptest! {
        #[test]
        fn any_body_is_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body, None);
        }

        #[test]
        fn any_platform_is_judged(text in "linux/(amd64|arm|arm64)/v?[0-9]{1,12}(\\.[0-9]{1,9})?") {
            let wanted: Platform = text.parse().unwrap();
            prop_assert!(acceptable(&wanted).len() < 200);
        }
    }
}
