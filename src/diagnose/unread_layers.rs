//! Finds layers whose content was not verified.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::evidence::{Evidence, LayerRead, Walk};
use crate::model::fault::HttpFault;
use crate::model::step::Step;
use crate::model::transfer::StreamEnd;
use crate::model::units::Bytes;

/// A layer that was not read to its end and verified with its digest.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct UnreadLayer {
    /// The layer's digest in the manifest.
    pub digest: String,
    /// The compressed size in the manifest, in bytes.
    pub size: Bytes,
    /// The longest contiguous part that was read, in bytes.
    pub read: Bytes,
}

/// The layers of the platform's manifest that no host served whole in this check; none if there is no manifest.
pub(super) fn layers(evidence: &Evidence) -> Vec<UnreadLayer> {
    let walks = || evidence.others.iter().chain([&evidence.walk]);
    let found = evidence.walk.manifest.done();
    let found = found.or_else(|| walks().find_map(|walk| walk.manifest.done()));
    let mut unread: Vec<UnreadLayer> = Vec::new();
    for layer in found.iter().flat_map(|found| &found.layers) {
        let is_verified = walks().any(|walk| is_verified(walk, &layer.digest));
        if is_verified || unread.iter().any(|known| known.digest == layer.digest) {
            continue;
        }
        let read = walks().map(|walk| most_read(walk, &layer.digest)).max();
        unread.push(UnreadLayer {
            digest: layer.digest.clone(),
            size: layer.size,
            read: read.unwrap_or_default().min(layer.size),
        });
    }
    unread
}

fn reads<'w>(walk: &'w Walk, digest: &'w str) -> impl Iterator<Item = &'w LayerRead> {
    walk.layers.iter().filter(move |read| read.digest == digest)
}

fn is_verified(walk: &Walk, digest: &str) -> bool {
    let good = StreamEnd::Complete {
        digest_matches: true,
    };
    let by_walk = reads(walk, digest).any(|read| read.outcome.done().is_some_and(|r| r.verified));
    let mut streams = walk.transfer.iter().flat_map(|test| &test.streams);
    by_walk || streams.any(|stream| stream.digest == digest && stream.end == good)
}

fn most_read(walk: &Walk, digest: &str) -> Bytes {
    let by_walk = reads(walk, digest).map(|read| match &read.outcome {
        Step::Done { value, .. } => value.bytes,
        Step::Failed {
            fault:
                HttpFault::Truncated { got, .. }
                | HttpFault::Stalled { after: got }
                | HttpFault::ResumedTooOften { got, .. }
                | HttpFault::TooSlow { got, .. },
            ..
        } => *got,
        _ => Bytes(0),
    });
    let streams = walk.transfer.iter().flat_map(|test| &test.streams);
    let by_test = streams.filter(|stream| stream.digest == digest);
    by_walk
        .chain(by_test.map(|stream| stream.bytes))
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::fixture::{done, failed, healthy};
    use crate::model::evidence::{ContentRead, Layer};

    fn read(digest: &str, bytes: u64, verified: bool) -> LayerRead {
        LayerRead {
            refused_beside: 0,
            served_alone: false,
            digest: digest.to_owned(),
            outcome: done(ContentRead {
                bytes: Bytes(bytes),
                verified,
                resumed: 0,
            }),
        }
    }

    /// An image of layers of 100 bytes.
    fn evidence(digests: &[&str]) -> Evidence {
        let mut evidence = healthy();
        let Step::Done { value, .. } = &mut evidence.walk.manifest else {
            unreachable!()
        };
        value.layers = digests
            .iter()
            .map(|digest| Layer {
                digest: (*digest).to_owned(),
                media_type: String::new(),
                size: Bytes(100),
            })
            .collect();
        evidence.walk.layers.clear();
        evidence
    }

    fn unread_of(evidence: &Evidence) -> Vec<(String, u64)> {
        let unread = layers(evidence).into_iter();
        unread.map(|layer| (layer.digest, layer.read.0)).collect()
    }

    #[test]
    fn what_no_walk_has_verified_is_unread() {
        let mut evidence = evidence(&["a", "b", "c", "b"]);
        let all = [("a", 0), ("b", 0), ("c", 0)].map(|(d, n)| (d.to_owned(), n));
        assert_eq!(unread_of(&evidence), all);
        // A mirror gave one of them, and a part of another.
        let mut other = evidence.walk.clone();
        other.layers = vec![read("a", 100, true), read("b", 40, false)];
        evidence.others.push(other);
        evidence.walk.layers = vec![
            read("b", 30, false),
            LayerRead {
                refused_beside: 0,
                served_alone: false,
                digest: "c".to_owned(),
                outcome: failed(HttpFault::Truncated {
                    got: Bytes(7),
                    want: None,
                }),
            },
        ];
        let left = [("b", 40), ("c", 7)].map(|(d, n)| (d.to_owned(), n));
        assert_eq!(unread_of(&evidence), left);
        evidence.walk.layers = vec![read("b", 100, true), read("c", 100, true)];
        assert!(unread_of(&evidence).is_empty());
    }

    #[test]
    fn without_a_manifest_there_is_nothing_to_read() {
        let mut evidence = evidence(&["a"]);
        evidence.walk.manifest = failed(crate::model::fault::ManifestFault::Malformed {
            reason: String::new(),
        });
        assert!(unread_of(&evidence).is_empty());
    }
}
