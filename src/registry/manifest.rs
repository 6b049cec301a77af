//! Parses manifests, indexes and configurations (OCI image-spec; Docker schema 2), and checks their digests.

use aws_lc_rs::digest;
use serde::de::DeserializeSeed as _;

use super::descriptor::SCHEMA_1;
pub use super::descriptor::{Descriptor, Entry, ImageConfig, Index, Kind};
use super::document::{ConfigDocument, Document, Field};
use super::layers::Layers;
pub use super::platforms::select;
use crate::model::fault::ManifestFault;
use crate::model::platform::Platform;
use crate::model::reference::check_digest;
use crate::model::text::{hex, printable};

/// The `Accept` field of containerd's request by tag or digest (`core/remotes/docker/resolver.go`).
pub const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// A larger manifest is not resolved (`MaxManifestSize`; the number is containerd's).
pub const MAX_ROOT_SIZE: u64 = 4 * 1048 * 1048;

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
    /// The manifests of an index.
    Index(Index),
    /// One image.
    Image(Box<Image>),
}

/// The content of one image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image {
    /// The image's configuration.
    pub config: Descriptor,
    /// The layers.
    pub layers: Layers,
}

/// Parses a manifest that was requested as `kind`, for a node of the platform `wanted`.
///
/// # Errors
/// If containerd would reject it or can't process it.
pub fn parse(body: &[u8], kind: Kind, wanted: &Platform) -> Result<Manifest, ManifestFault> {
    let document = Document::new(kind, wanted);
    let mut reader = serde_json::Deserializer::from_slice(body);
    let document = document
        .deserialize(&mut reader)
        .and_then(|document| reader.end().map(|()| document))
        .map_err(|error| fault(&error))?;
    if document.has(Field::FsLayers) {
        return Err(ManifestFault::Unsupported {
            media_type: SCHEMA_1.to_owned(),
        });
    }
    let own = document.media_type.as_deref().map(Kind::of);
    match kind {
        // A body that can be read both ways is an attack (CVE-2021-41190).
        Kind::Index
            if document.has(Field::Config)
                || document.has(Field::Layers)
                || own == Some(Kind::Image) =>
        {
            Err(malformed(
                "it was sent as an index but is an image manifest",
            ))
        }
        Kind::Index => Ok(Manifest::Index(document.index.finish())),
        _ if document.has(Field::Manifests) || own == Some(Kind::Index) => Err(malformed(
            "it was sent as an image manifest but is an index",
        )),
        _ => {
            let config = document.config;
            let config = config.ok_or_else(|| malformed("the image manifest has no config"))?;
            Ok(Manifest::Image(Box::new(Image {
                config,
                layers: document.layers,
            })))
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

fn fault(error: &serde_json::Error) -> ManifestFault {
    if is_twice(error) {
        return ManifestFault::Undecided {
            reason: format!("{TWICE}, in line {}", error.line()),
        };
    }
    malformed(&no_json(error))
}

/// Go's decoder merges the values, or takes the last one.
const TWICE: &str = "a field is given twice, which readers of JSON treat differently";

fn is_twice(error: &serde_json::Error) -> bool {
    error.is_data() && error.to_string().starts_with("duplicate field")
}

fn malformed(reason: &str) -> ManifestFault {
    ManifestFault::Malformed {
        reason: reason.to_owned(),
    }
}

/// Parses an image's configuration. `places` are those of the digests of uncompressed layers that are kept, ascending.
///
/// # Errors
/// If containerd can't parse it; the text says why.
pub fn parse_config(body: &[u8], places: &[usize]) -> Result<ImageConfig, ManifestFault> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = ConfigDocument { places }
        .deserialize(&mut reader)
        .and_then(|config| reader.end().map(|()| config));
    read.map_err(|error| match fault(&error) {
        ManifestFault::Malformed { reason } => ManifestFault::Malformed {
            reason: format!("the image's configuration: {reason}"),
        },
        other => other,
    })
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

/// The layer whose first bytes show which path layers take: the largest, since small ones may be stored elsewhere.
pub fn witness(layers: &[Descriptor]) -> Option<&Descriptor> {
    layers
        .iter()
        .reduce(|best, layer| if layer.size > best.size { layer } else { best })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::platforms::acceptable;

    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

    fn digest_of(n: u8) -> String {
        format!("sha256:{}", hex(&[n; 32]))
    }

    fn descriptor(n: u8, size: u64) -> Value {
        json!({"mediaType": "application/x", "digest": digest_of(n), "size": size, "new": 1})
    }

    fn read(document: &Value, kind: Kind) -> Result<Manifest, ManifestFault> {
        parse(document.to_string().as_bytes(), kind, &node())
    }

    fn node() -> Platform {
        "linux/amd64".parse().unwrap()
    }

    /// What a node of the platform keeps of an index.
    fn index(platforms: &[&str], wanted: &Platform) -> Vec<Entry> {
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
        let document = json!({"schemaVersion": 2, "manifests": manifests});
        match parse(document.to_string().as_bytes(), Kind::Index, wanted) {
            Ok(Manifest::Index(index)) => index.entries,
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
                image.layers.count,
                image.layers.shown()[1].size
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
            parse(b"<html>", Kind::Image, &node()),
            Err(ManifestFault::Malformed { .. })
        ));
    }

    #[test]
    fn attestations_are_for_no_node() {
        let mut unknown = descriptor(8, 1);
        unknown["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let document = json!({"manifests": [unknown, descriptor(9, 1)]});
        let Ok(Manifest::Index(index)) = read(&document, Kind::Index) else {
            panic!()
        };
        for exactly in [false, true] {
            let chosen = select(&index.entries, &node(), exactly);
            assert_eq!(chosen.len(), 1);
            assert_eq!(chosen[0].platform, None);
        }
    }

    #[test]
    fn attestations_are_no_platform_unless_there_is_nothing_else() {
        let entry = |platform: Option<&str>| {
            let mut entry = descriptor(1, 1);
            if let Some((os, architecture)) = platform.and_then(|p| p.split_once('/')) {
                entry["platform"] = json!({"os": os, "architecture": architecture});
            }
            entry
        };
        let attested = || entry(Some("unknown/unknown"));
        let image = || entry(Some("linux/arm64"));
        for (entries, expected) in [
            (vec![image(), attested()], vec!["linux/arm64"]),
            (vec![attested(), attested()], vec!["unknown/unknown"]),
            (vec![entry(None), attested()], vec![]),
            (vec![], vec![]),
        ] {
            match read(&json!({"manifests": entries}), Kind::Index) {
                Ok(Manifest::Index(index)) => assert_eq!(index.platforms, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn of_a_huge_index_the_entries_of_the_node_are_found() {
        let entry = |n: usize, architecture: &str| {
            json!({"digest": format!("{n}"), "size": 1,
                "platform": {"os": "linux", "architecture": architecture}})
        };
        let mut all: Vec<Value> = (0..10_000).map(|n| entry(n, &format!("a{n}"))).collect();
        all.extend((10_000..10_100).map(|n| entry(n, "386")));
        all.extend((10_100..10_200).map(|n| entry(n, "amd64")));
        let Ok(Manifest::Index(index)) = read(&json!({"manifests": all}), Kind::Index) else {
            panic!()
        };
        assert_eq!(
            (index.platforms.len(), index.platforms_left_out),
            (64, 10_136)
        );
        assert_eq!(index.entries.len(), 34);
        let chosen = select(&index.entries, &node(), false);
        assert_eq!(chosen[0].descriptor.digest, "10100");
        assert_eq!(select(&index.entries, &node(), true).len(), 17);
    }

    #[test]
    fn what_readers_of_json_treat_differently_is_undecided_and_depth_is_no_error() {
        let config = r#""config":{"digest":"a","size":1}"#;
        for twice in [
            format!("{{{config},{config}}}"),
            format!(r#"{{{config},"layers":[],"layers":[]}}"#),
            r#"{"config":{"size":1,"size":2}}"#.to_owned(),
        ] {
            let read = parse(twice.as_bytes(), Kind::Image, &node());
            assert!(
                matches!(read, Err(ManifestFault::Undecided { .. })),
                "{twice}"
            );
        }
        let config_twice = r#"{"os":"linux","os":"windows"}"#;
        let read = parse_config(config_twice.as_bytes(), &[]);
        assert!(matches!(read, Err(ManifestFault::Undecided { .. })));
        let deep = format!(
            r#"{{{config},"x":{}{}}}"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        assert!(parse(deep.as_bytes(), Kind::Image, &node()).is_ok());
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
            let entries = index(platforms, &node());
            let found = select(&entries, &node(), true);
            let found = found.iter().map(|entry| entry.descriptor.digest.clone());
            let expected = chosen.iter().map(|n: &u8| digest_of(*n));
            assert!(found.eq(expected), "{platforms:?}");
        }
    }

    #[test]
    fn a_configuration_is_read_as_far_as_a_pull_reads_it() {
        let good = json!({"os": "linux", "architecture": "amd64", "created": "2026-11-29T00:00:00Z",
            "config": {"Env": ["A=b"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:x"]}});
        let read = parse_config(good.to_string().as_bytes(), &[0]).unwrap();
        assert_eq!(
            (read.diff_ids, read.chosen),
            (1, vec!["sha256:x".to_owned()])
        );
        assert!(!read.has_other_rootfs);
        assert_eq!(parse_config(b"{}", &[0]).unwrap(), ImageConfig::default());
        for bad in [
            json!([]),
            json!("x"),
            json!({"created": "yesterday"}),
            json!({"rootfs": {"diff_ids": [1]}}),
            json!({"config": {"Env": "A=b"}}),
        ] {
            assert!(
                parse_config(bad.to_string().as_bytes(), &[]).is_err(),
                "{bad}"
            );
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
            let node = wanted.parse().unwrap();
            let entries = index(platforms, &node);
            let found = select(&entries, &node, false);
            assert_eq!(
                found.first().map(|entry| entry.descriptor.digest.clone()),
                chosen.map(digest_of),
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
                let _ = parse(&body, kind, &node());
            }
            let _ = parse_config(&body, &[0, 3]);
        }

        #[test]
        fn any_platform_is_judged(text in "linux/(amd64|arm|arm64)/v?[0-9]{1,12}(\\.[0-9]{1,9})?") {
            let wanted: Platform = text.parse().unwrap();
            prop_assert!(acceptable(&wanted).len() < 200);
        }
    }
}
