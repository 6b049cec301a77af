//! The layers of an image, of which a bounded number is kept.

use super::descriptor::Descriptor;

/// The layers of an image: facts about all of them, and those that may be requested.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Layers {
    /// Number of all layers.
    pub count: usize,
    /// Sum of their sizes, compressed as they are transferred.
    pub bytes: u64,
    /// Whether one of them is encrypted.
    pub is_encrypted: bool,
    /// Whether not all of their URLs are kept.
    pub urls_left_out: bool,
    /// Bytes of those that are.
    urls: usize,
    /// Number of those that containerd unpacks, before and since 2.0.
    unpacked: [usize; 2],
    /// What every release unpacks, what only 2.0 and later do, and other content.
    kept: [Kept<Layer>; 3],
}

/// One layer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layer {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Its place among all.
    at: usize,
    /// Its place among those that containerd unpacks, before and since 2.0.
    places: [usize; 2],
}

impl Layer {
    /// Its place among the layers that containerd unpacks.
    pub fn place(&self, knows_docker_zstd: bool) -> usize {
        self.places[usize::from(knows_docker_zstd)]
    }
}

impl Layers {
    /// Adds the next layer. `media_type` is all of its media type.
    pub(super) fn add(&mut self, mut descriptor: Descriptor, media_type: &str) {
        self.urls += descriptor.urls.iter().map(String::len).sum::<usize>();
        if self.urls > MAX_URLS {
            descriptor.urls.clear();
            self.urls_left_out = true;
        }
        let is_unpacked = [false, true].map(|zstd| is_layer(media_type, zstd));
        let kind = match is_unpacked {
            [true, _] => 0,
            [false, true] => 1,
            [false, false] => 2,
        };
        self.is_encrypted |= media_type.contains("+encrypted");
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(descriptor.size).unwrap_or(0));
        let layer = Layer {
            at: self.count,
            places: self.unpacked,
            descriptor,
        };
        self.count += 1;
        for (count, is_unpacked) in self.unpacked.iter_mut().zip(is_unpacked) {
            *count += usize::from(is_unpacked);
        }
        self.kept[kind].add(layer, |layer| layer.descriptor.size);
    }

    /// Number of those that containerd unpacks. Releases before 2.0 don't support Docker's zstd.
    pub fn unpacked(&self, knows_docker_zstd: bool) -> usize {
        self.unpacked[usize::from(knows_docker_zstd)]
    }

    /// The layers that containerd unpacks, as far as they are kept, lowest first.
    pub fn kept(&self, knows_docker_zstd: bool) -> Vec<&Layer> {
        self.of_kinds(if knows_docker_zstd { &[0, 1] } else { &[0] })
    }

    /// Other content, as far as it is kept.
    pub fn others(&self, knows_docker_zstd: bool) -> Vec<&Layer> {
        self.of_kinds(if knows_docker_zstd { &[2] } else { &[1, 2] })
    }

    /// A bounded number of all: the first and the largest.
    pub fn shown(&self) -> Vec<&Descriptor> {
        let mut shown = Kept::default();
        for layer in self.of_kinds(&[0, 1, 2]) {
            shown.add(layer, |layer| layer.descriptor.size);
        }
        let mut shown: Vec<&Layer> = shown.all().copied().collect();
        shown.sort_by_key(|layer| layer.at);
        shown.into_iter().map(|layer| &layer.descriptor).collect()
    }

    fn of_kinds(&self, kinds: &[usize]) -> Vec<&Layer> {
        let kept = kinds.iter().flat_map(|kind| self.kept[*kind].all());
        let mut kept: Vec<&Layer> = kept.collect();
        kept.sort_by_key(|layer| layer.at);
        kept
    }
}

impl FromIterator<Descriptor> for Layers {
    fn from_iter<I: IntoIterator<Item = Descriptor>>(descriptors: I) -> Self {
        let mut layers = Self::default();
        for descriptor in descriptors {
            let media_type = descriptor.media_type.clone();
            layers.add(descriptor, &media_type);
        }
        layers
    }
}

/// Whether containerd unpacks content of this media type.
fn is_layer(media_type: &str, knows_docker_zstd: bool) -> bool {
    if media_type.starts_with("application/vnd.oci.image.layer.") {
        return true;
    }
    let base = media_type.split('+').next().unwrap_or_default();
    match base {
        "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => true,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => knows_docker_zstd,
        _ => false,
    }
}

/// Bytes of the URLs of all layers that are kept.
const MAX_URLS: usize = 64 << 10;

/// Number of layers that are kept because they come first. Docker builds images of at most 127 layers.
const FIRST: usize = 96;

/// Number of layers that are kept besides, because they are the largest of the others.
const LARGEST: usize = 32;

/// The first and the largest of a list.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Kept<T> {
    first: Vec<T>,
    largest: Vec<T>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            largest: Vec::new(),
        }
    }
}

impl<T> Kept<T> {
    fn add(&mut self, one: T, size: impl Fn(&T) -> i64) {
        if self.first.len() < FIRST {
            self.first.push(one);
        } else if self.largest.len() < LARGEST {
            self.largest.push(one);
        } else {
            let smallest = (0..LARGEST).min_by_key(|at| size(&self.largest[*at]));
            if let Some(at) = smallest
                && size(&one) > size(&self.largest[at])
            {
                self.largest[at] = one;
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(n: usize, size: i64, media_type: &str) -> Descriptor {
        Descriptor {
            digest: n.to_string(),
            media_type: media_type.to_owned(),
            size,
            urls: Vec::new(),
        }
    }

    fn layers(all: impl IntoIterator<Item = Descriptor>) -> Layers {
        all.into_iter().collect()
    }

    const OCI: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

    #[test]
    fn every_layer_counts_and_the_first_and_the_largest_are_kept() {
        for count in [0, 1, 127, 128, 129, 70_000] {
            // The largest comes last but one.
            let size = |n: usize| if n + 2 == count { 9_000_000 } else { 10 };
            let all = layers((0..count).map(|n| layer(n, size(n), OCI)));
            assert_eq!(all.count, count);
            assert_eq!(
                all.bytes,
                (0..count)
                    .map(|n| u64::try_from(size(n)).unwrap())
                    .sum::<u64>()
            );
            let kept = all.kept(false);
            assert_eq!(kept.len(), count.min(128));
            assert!(
                kept.iter()
                    .take(FIRST)
                    .enumerate()
                    .all(|(n, one)| one.place(false) == n)
            );
            assert!(kept.is_sorted_by_key(|one| one.place(false)));
            let largest = kept.iter().map(|one| one.descriptor.size).max();
            assert_eq!(
                largest.unwrap_or(9_000_000),
                if count == 1 { 10 } else { 9_000_000 }
            );
            assert_eq!(all.shown().len(), count.min(128));
        }
    }

    #[test]
    fn content_of_one_kind_pushes_out_none_of_another() {
        let kinds = ["text/plain", ZSTD, OCI];
        let types = (0..3000).map(|n| kinds[n / 1000]);
        let all = layers(types.enumerate().map(|(n, kind)| layer(n, 1, kind)));
        assert_eq!((all.unpacked(false), all.unpacked(true)), (1000, 2000));
        assert_eq!((all.kept(false).len(), all.kept(true).len()), (128, 256));
        assert_eq!(
            (all.others(false).len(), all.others(true).len()),
            (256, 128)
        );
        // The places among the layers that a release unpacks are those of its diff_ids.
        let first = all.kept(false)[0];
        assert_eq!((first.place(false), first.place(true)), (0, 1000));
        assert_eq!(all.shown().len(), 128);
    }
}
