//! Manifests and indexes (OCI image-spec; Docker schema 2), and which manifest of an index a node pulls.

use aws_lc_rs::digest;
use serde::Deserialize;

use crate::model::evidence::Layer;
use crate::model::fault::ManifestFault;
use crate::model::platform::Platform;
use crate::model::reference::check_digest;
use crate::model::text::{hex, printable};
use crate::model::units::Bytes;

/// The `Accept` field of containerd's request by tag or digest (`core/remotes/docker/resolver.go`).
pub const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// A larger manifest is not resolved (`MaxManifestSize`; the number is containerd's).
pub const MAX_ROOT_SIZE: u64 = 4 * 1048 * 1048;

/// How containerd treats content, decided by its media type alone: compared exactly, and without reading the content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// An OCI index or Docker manifest list.
    Index,
    /// An OCI or Docker image manifest.
    Image,
    /// Docker's schema 1: containerd 1 converts it, containerd 2 rejects it.
    Schema1,
    /// Requested as a blob; not usable as the root of an image.
    Other,
}

impl Kind {
    /// The kind for a media type without parameters, as [`media_type`] returns it.
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

/// The media type that containerd derives from a `Content-Type`: nothing after a semicolon, and schema 1 for plain
/// text.
pub fn media_type(content_type: Option<&str>) -> String {
    let content_type = content_type.unwrap_or_default();
    match content_type.split(';').next().unwrap_or_default() {
        "text/plain" => SCHEMA_1.to_owned(),
        other => printable(other),
    }
}

/// A parsed manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Manifest {
    /// The manifests of an index, in its order.
    Index(Vec<Entry>),
    /// One image.
    Image(Image),
}

/// The content of one image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image {
    /// The image's configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
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
    /// Other URLs of the content; requested before the registry.
    pub urls: Vec<String>,
}

impl Descriptor {
    /// The descriptor as evidence.
    pub fn layer(&self) -> Layer {
        Layer {
            digest: printable(&self.digest),
            media_type: printable(&self.media_type),
            size: Bytes(u64::try_from(self.size).unwrap_or(0)),
        }
    }

    /// Whether containerd unpacks it as a layer. Releases before 2.0 don't support Docker's zstd.
    pub fn is_layer(&self, knows_docker_zstd: bool) -> bool {
        if self
            .media_type
            .starts_with("application/vnd.oci.image.layer.")
        {
            return true;
        }
        let base = self.media_type.split('+').next().unwrap_or_default();
        match base {
            "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => true,
            "application/vnd.docker.image.rootfs.diff.tar.zstd" => knows_docker_zstd,
            _ => false,
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

/// Parses a manifest that was requested as `kind`.
///
/// # Errors
/// If containerd would reject it or can't process it.
pub fn parse(body: &[u8], kind: Kind) -> Result<Manifest, ManifestFault> {
    let document: Document =
        serde_json::from_slice(body).map_err(|error| malformed(&no_json(&error)))?;
    if document.fs_layers.is_some() {
        return Err(ManifestFault::Unsupported {
            media_type: SCHEMA_1.to_owned(),
        });
    }
    let own = document.media_type.as_deref().map(Kind::of);
    match kind {
        // A body that can be read both ways is an attack (CVE-2021-41190).
        Kind::Index
            if document.config.is_some()
                || document.layers.is_some()
                || own == Some(Kind::Image) =>
        {
            Err(malformed(
                "it was sent as an index but is an image manifest",
            ))
        }
        Kind::Index => {
            let manifests: Option<Vec<RawDescriptor>> = of_type(document.manifests)?;
            let entries = manifests.unwrap_or_default().into_iter();
            Ok(Manifest::Index(
                entries.map(RawDescriptor::into_entry).collect(),
            ))
        }
        _ if document.manifests.is_some() || own == Some(Kind::Index) => Err(malformed(
            "it was sent as an image manifest but is an index",
        )),
        _ => {
            let config: Option<RawDescriptor> = of_type(document.config)?;
            let config = config.ok_or_else(|| malformed("the image manifest has no config"))?;
            let layers: Option<Vec<RawDescriptor>> = of_type(document.layers)?;
            let layers = layers.unwrap_or_default().into_iter();
            Ok(Manifest::Image(Image {
                config: config.into_descriptor(),
                layers: layers.map(RawDescriptor::into_descriptor).collect(),
            }))
        }
    }
}

/// Without the error's own text, which may repeat content.
fn no_json(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => format!(
            "a field has another type than the image-spec requires, in line {}",
            error.line()
        ),
        _ => format!("it is not valid JSON, in line {}", error.line()),
    }
}

/// A part of a document whose presence is checked before its content.
fn of_type<T: serde::de::DeserializeOwned>(
    value: Option<serde_json::Value>,
) -> Result<Option<T>, ManifestFault> {
    let value = value.unwrap_or_default();
    serde_json::from_value(value).map_err(|error| malformed(&no_json(&error)))
}

fn malformed(reason: &str) -> ManifestFault {
    ManifestFault::Malformed {
        reason: reason.to_owned(),
    }
}

/// The parts of an image's configuration that a pull reads (OCI image-spec, config.md).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageConfig {
    /// As written, such as `linux`; empty if missing.
    pub os: String,
    /// As written, such as `amd64`; empty if missing.
    pub architecture: String,
    /// Neither missing nor `layers`: containerd 2.1 then unpacks nothing.
    pub has_other_rootfs: bool,
    /// The digest of each uncompressed layer, lowest first; empty if missing.
    pub diff_ids: Vec<String>,
}

/// Parses an image's configuration.
///
/// # Errors
/// If containerd can't parse it; the text says why.
pub fn parse_config(body: &[u8]) -> Result<ImageConfig, String> {
    let config: RawConfig = serde_json::from_slice(body).map_err(|error| no_json(&error))?;
    let rootfs = config.rootfs.unwrap_or_default();
    let kind = rootfs.kind.unwrap_or_default();
    Ok(ImageConfig {
        os: config.os.unwrap_or_default(),
        architecture: config.architecture.unwrap_or_default(),
        has_other_rootfs: !kind.is_empty() && kind != "layers",
        diff_ids: rootfs.diff_ids.unwrap_or_default(),
    })
}

/// Only fields whose wrong type makes containerd reject the document.
#[derive(Deserialize)]
struct RawConfig {
    os: Option<String>,
    architecture: Option<String>,
    rootfs: Option<RawRootFs>,
    #[serde(rename = "created")]
    _created: Option<jiff::Timestamp>,
    #[serde(rename = "author")]
    _author: Option<String>,
    #[serde(rename = "config")]
    _config: Option<RawRuntimeConfig>,
    #[serde(rename = "history")]
    _history: Option<Vec<serde_json::Map<String, serde_json::Value>>>,
}

#[derive(Default, Deserialize)]
struct RawRootFs {
    #[serde(rename = "type")]
    kind: Option<String>,
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRuntimeConfig {
    #[serde(rename = "User")]
    _user: Option<String>,
    #[serde(rename = "Env")]
    _env: Option<Vec<String>>,
    #[serde(rename = "Entrypoint")]
    _entrypoint: Option<Vec<String>>,
    #[serde(rename = "Cmd")]
    _cmd: Option<Vec<String>>,
    #[serde(rename = "WorkingDir")]
    _working_dir: Option<String>,
    #[serde(rename = "Labels")]
    _labels: Option<std::collections::BTreeMap<String, Option<String>>>,
}

/// The `sha256:…` digest of a body, for a server that states no digest.
pub fn sha256(body: &[u8]) -> String {
    format!(
        "sha256:{}",
        hex(digest::digest(&digest::SHA256, body).as_ref())
    )
}

/// Checks that a body has the digest by which it was requested.
///
/// # Errors
/// If it has another digest, or the algorithm is not supported.
pub fn verify(body: &[u8], expected: &str) -> Result<(), ManifestFault> {
    check_digest(expected).map_err(|error| malformed(&printable(&error.to_string())))?;
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

/// The entries that containerd pulls for a platform. containerd 1 takes one: the closest that the machine can run
/// (containerd/platforms, `Only`), the first of equals, one without a platform last. containerd 2.1 (`exactly`) takes
/// all entries that match the platform itself or have none. Versions of an operating system are not compared.
pub fn select<'a>(entries: &'a [Entry], wanted: &Platform, exactly: bool) -> Vec<&'a Entry> {
    let acceptable = acceptable(wanted);
    let rank = |entry: &Entry| match &entry.platform {
        None => Some(acceptable.len()),
        Some(platform) => acceptable.iter().position(|p| p == platform),
    };
    if exactly {
        let is_taken = |entry: &&Entry| {
            !entry.wants_features
                && matches!(rank(entry), Some(rank) if rank == 0 || entry.platform.is_none())
        };
        return entries.iter().filter(is_taken).collect();
    }
    entries
        .iter()
        .filter_map(|entry| Some((rank(entry)?, entry)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry)
        .into_iter()
        .collect()
}

/// The layer whose first bytes show which path layers take: the largest, since small ones may be stored elsewhere.
pub fn witness(layers: &[Descriptor]) -> Option<&Descriptor> {
    layers
        .iter()
        .reduce(|best, layer| if layer.size > best.size { layer } else { best })
}

/// The platforms that a machine of this platform can run, best first.
fn acceptable(wanted: &Platform) -> Vec<Platform> {
    let mut list = vec![Platform::normalized(
        &wanted.os,
        &wanted.architecture,
        wanted.variant.as_deref(),
    )];
    let mut add = |architecture: &str, variant: Option<String>| {
        list.push(Platform::normalized(
            &wanted.os,
            architecture,
            variant.as_deref(),
        ));
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
                // Armv9.0 corresponds to Armv8.5.
                minor += 5;
                add("arm64", Some(named(8, minor)));
            }
            if major == 8 || major == 9 {
                for lower in (0..minor).rev() {
                    add("arm64", Some(named(8, lower)));
                }
            }
            // v9 itself is also tried as 32-bit v9; v8.x and v9.x are tried as v8.
            let version = if variant.contains('.') { 8 } else { major };
            for version in (5..=version).rev() {
                add("arm", Some(format!("v{version}")));
            }
        }
        _ => {}
    }
    list
}

/// 3 for `v3`. Levels and versions have one or two digits.
fn number(variant: Option<&str>) -> Option<u8> {
    let variant = variant?;
    let digits = variant.strip_prefix('v').unwrap_or(variant);
    digits.parse().ok().filter(|n| *n < 100)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    /// `null` counts as present.
    #[serde(default, deserialize_with = "present")]
    manifests: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "present")]
    config: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "present")]
    layers: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "present")]
    fs_layers: Option<serde_json::Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: Option<String>,
    size: Option<i64>,
    urls: Option<Vec<String>>,
    platform: Option<RawPlatform>,
    #[serde(rename = "annotations")]
    _annotations: Option<std::collections::BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    #[serde(rename = "os.features")]
    os_features: Option<Vec<String>>,
}

impl RawDescriptor {
    fn into_descriptor(self) -> Descriptor {
        Descriptor {
            digest: self.digest.unwrap_or_default(),
            media_type: self.media_type.unwrap_or_default(),
            size: self.size.unwrap_or(0),
            urls: self.urls.unwrap_or_default(),
        }
    }

    fn into_entry(mut self) -> Entry {
        let platform = self.platform.take();
        Entry {
            wants_features: platform
                .as_ref()
                .and_then(|p| p.os_features.as_ref())
                .is_some_and(|features| !features.is_empty()),
            platform: platform.map(|p| {
                // An entry without a system is treated as one for the node's own.
                let os = if p.os.is_empty() { "linux" } else { &p.os };
                let variant = p.variant.map(|v| printable(&v));
                Platform::normalized(
                    &printable(os),
                    &printable(&p.architecture),
                    variant.as_deref(),
                )
            }),
            descriptor: self.into_descriptor(),
        }
    }
}

/// containerd's media type for schema 1, whichever variant was sent.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

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

    fn read(document: &Value, kind: Kind) -> Result<Manifest, ManifestFault> {
        parse(document.to_string().as_bytes(), kind)
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
            Kind::Index,
        ) {
            Ok(Manifest::Index(entries)) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_image_manifest_gives_its_layers() {
        let document = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE,
            "config": descriptor(1, 10), "layers": [descriptor(2, 20), descriptor(3, 30)]});
        let Ok(Manifest::Image(image)) = read(&document, Kind::Image) else {
            panic!();
        };
        assert_eq!(
            (
                image.config.digest,
                image.layers.len(),
                image.layers[1].size
            ),
            (digest_of(1), 2, 30)
        );
    }

    #[test]
    fn media_types_are_taken_to_the_letter() {
        for (content_type, kind) in [
            (Some(OCI_IMAGE), Kind::Image),
            (
                Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
                Kind::Image,
            ),
            (Some(OCI_INDEX), Kind::Index),
            (Some("Application/vnd.oci.image.index.v1+json"), Kind::Other),
            (
                Some("application/vnd.oci.image.index.v1+json ;x"),
                Kind::Other,
            ),
            (Some("text/plain; charset=utf-8"), Kind::Schema1),
            (
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
                Kind::Schema1,
            ),
            (Some("application/json"), Kind::Other),
            (Some("text/html"), Kind::Other),
            (None, Kind::Other),
        ] {
            assert_eq!(
                Kind::of(&media_type(content_type)),
                kind,
                "{content_type:?}"
            );
        }
    }

    #[test]
    fn what_containerd_refuses_is_a_fault() {
        let image = json!({"config": descriptor(1, 1), "layers": []});
        let list = json!({"manifests": []});
        for (document, kind) in [
            (image, Kind::Index),
            (list, Kind::Image),
            (json!({"manifests": [], "layers": null}), Kind::Index),
            (
                json!({"config": descriptor(1, 1), "manifests": null}),
                Kind::Image,
            ),
            (json!({"layers": []}), Kind::Image),
            (json!([]), Kind::Image),
            (json!({"config": {"digest": 5}}), Kind::Image),
            (json!({"config": {"size": 1.5}}), Kind::Image),
        ] {
            assert!(
                matches!(read(&document, kind), Err(ManifestFault::Malformed { .. })),
                "{document}"
            );
        }
        assert!(matches!(
            read(&json!({"schemaVersion": 1, "fsLayers": []}), Kind::Image),
            Err(ManifestFault::Unsupported { .. })
        ));
        assert!(matches!(
            parse(b"<html>", Kind::Image),
            Err(ManifestFault::Malformed { .. })
        ));
    }

    #[test]
    fn attestations_are_for_no_node() {
        let mut unknown = descriptor(8, 1);
        unknown["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let document = json!({"manifests": [unknown, descriptor(9, 1)]});
        let Ok(Manifest::Index(entries)) = read(&document, Kind::Index) else {
            panic!()
        };
        let wanted = "linux/amd64".parse().unwrap();
        for exactly in [false, true] {
            let chosen = select(&entries, &wanted, exactly);
            assert_eq!(chosen.len(), 1);
            assert_eq!(chosen[0].platform, None);
        }
    }

    #[test]
    fn containerd_2_takes_all_that_are_for_the_platform_itself() {
        for (platforms, chosen) in [
            (
                &["linux/amd64", "linux/386", "linux/amd64"][..],
                &[0, 2][..],
            ),
            (&["linux/386"], &[]),
            (&["", "linux/amd64", "linux/arm64", ""], &[0, 1, 3]),
        ] {
            let entries = index(platforms);
            let found = select(&entries, &"linux/amd64".parse().unwrap(), true);
            let expected: Vec<&Entry> = chosen.iter().map(|n: &usize| &entries[*n]).collect();
            assert!(
                found
                    .iter()
                    .zip(&expected)
                    .all(|(a, b)| std::ptr::eq(*a, *b))
            );
            assert_eq!(found.len(), expected.len(), "{platforms:?}");
        }
    }

    #[test]
    fn a_configuration_is_read_as_far_as_a_pull_reads_it() {
        let good = json!({"os": "linux", "architecture": "amd64", "created": "2026-11-29T00:00:00Z",
            "config": {"Env": ["A=b"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:x"]}});
        let read = parse_config(good.to_string().as_bytes()).unwrap();
        assert_eq!(read.diff_ids, ["sha256:x"]);
        assert!(!read.has_other_rootfs);
        assert!(parse_config(b"{}").unwrap().diff_ids.is_empty());
        for bad in [
            json!([]),
            json!("x"),
            json!({"created": "yesterday"}),
            json!({"rootfs": {"diff_ids": [1]}}),
            json!({"config": {"Env": "A=b"}}),
        ] {
            assert!(parse_config(bad.to_string().as_bytes()).is_err(), "{bad}");
        }
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
            let found = select(&entries, &wanted.parse().unwrap(), false);
            let expected: Option<&Entry> = chosen.map(|n: usize| &entries[n]);
            assert_eq!(
                found.first().copied().map(std::ptr::from_ref),
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
    fn the_witness_is_the_largest_layer() {
        let layer = |size| Descriptor {
            digest: digest_of(1),
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            size,
            urls: Vec::new(),
        };
        let layers = [layer(5), layer(50), layer(8)];
        assert_eq!(witness(&layers), Some(&layers[1]));
        assert_eq!(witness(&[]), None);
    }

    proptest! {
        #[test]
        fn any_body_is_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for kind in [Kind::Image, Kind::Index] {
                let _ = parse(&body, kind);
            }
            let _ = parse_config(&body);
        }

        #[test]
        fn any_platform_is_judged(text in "linux/(amd64|arm|arm64)/v?[0-9]{1,12}(\\.[0-9]{1,9})?") {
            let wanted: Platform = text.parse().unwrap();
            prop_assert!(acceptable(&wanted).len() < 200);
        }
    }
}
