//! Reads JSON of manifests and configurations as it arrives. Lists may have a million entries in 8 MB: none is kept as a
//! whole, and nothing is kept that is only checked.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

use super::descriptor::{
    Descriptor, Entry, ImageConfig, Index, Kind, MAX_EQUAL, MAX_PLATFORMS, MAX_URLS,
};
use super::layers::Layers;
use super::platforms::acceptable;
use crate::model::platform::Platform;
use crate::model::text::{clean, printable};

/// Bytes that are kept of a digest or a media type. A longer digest is not valid, and no media type is (RFC 6838).
const MAX_WORD: usize = 256;

/// Bytes of a URL; a longer one is left out.
const MAX_URL: usize = 2048;

/// Characters of a part of a platform.
const MAX_PLATFORM: usize = 64;

fn word(mut text: String) -> String {
    if text.len() > MAX_WORD {
        text.truncate(text.floor_char_boundary(MAX_WORD));
        text.shrink_to_fit();
    }
    text
}

// ---- a manifest or an index -------------------------------------------------------------------------------------

/// A manifest, as far as its fields were read.
#[derive(Default)]
pub(super) struct Document {
    pub(super) kind: Kind,
    pub(super) media_type: Option<String>,
    pub(super) index: Candidates,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Layers,
    present: Vec<Field>,
}

/// A field that decides how a manifest is read.
#[derive(Clone, Copy, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", field_identifier)]
pub(super) enum Field {
    MediaType,
    Manifests,
    Config,
    Layers,
    FsLayers,
    #[serde(other)]
    Unknown,
}

impl Document {
    /// A manifest that was requested as `kind`, for a node of the platform `wanted`.
    pub(super) fn new(kind: Kind, wanted: &Platform) -> Self {
        Self {
            kind,
            index: Candidates {
                acceptable: acceptable(wanted),
                ..Candidates::default()
            },
            ..Self::default()
        }
    }

    /// Whether the field exists, if only as `null`.
    pub(super) fn has(&self, field: Field) -> bool {
        self.present.contains(&field)
    }
}

impl<'de> DeserializeSeed<'de> for Document {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        let is_index = self.kind == Kind::Index;
        while let Some(field) = map.next_key::<Field>()? {
            if field != Field::Unknown {
                if self.has(field) {
                    return Err(A::Error::duplicate_field("of a manifest"));
                }
                self.present.push(field);
            }
            match field {
                Field::MediaType => self.media_type = map.next_value::<Option<String>>()?.map(word),
                Field::Manifests if is_index => {
                    let index = &mut self.index;
                    map.next_value_seed(Each::of(|raw: Option<RawDescriptor>| {
                        index.add(raw.unwrap_or_default());
                    }))?;
                }
                Field::Config if !is_index => {
                    let config = map.next_value::<Option<RawDescriptor>>()?;
                    self.config = config.map(RawDescriptor::into_descriptor);
                }
                Field::Layers if !is_index => {
                    let layers = &mut self.layers;
                    map.next_value_seed(Each::of(|raw: Option<RawDescriptor>| {
                        let mut raw = raw.unwrap_or_default();
                        let media_type = raw.media_type.take().unwrap_or_default();
                        layers.urls_left_out |= raw.urls.as_ref().is_some_and(|urls| urls.left_out);
                        let mut descriptor = raw.into_descriptor();
                        descriptor.media_type = word(media_type.clone());
                        layers.add(descriptor, &media_type);
                    }))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(self)
    }
}

/// Calls a function for each element of a list; `null` is an empty list, as in Go.
struct Each<T, F>(F, PhantomData<T>);

impl<T, F: FnMut(T)> Each<T, F> {
    fn of(take: F) -> Self {
        Self(take, PhantomData)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> DeserializeSeed<'de> for Each<T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            (self.0)(element);
        }
        Ok(())
    }
}

/// A list whose elements are only checked.
struct ListOf<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ListOf<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Each::of(|_: Option<T>| {}).deserialize(from)?;
        Ok(Self(PhantomData))
    }
}

/// A map whose values are only checked.
struct MapOf<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for MapOf<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Self(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for MapOf<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, T>()?.is_some() {}
        Ok(self)
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: Option<String>,
    size: Option<i64>,
    urls: Option<Urls>,
    platform: Option<RawPlatform>,
    #[serde(rename = "annotations")]
    _annotations: Option<MapOf<Option<String>>>,
}

/// The first URLs of a descriptor.
#[derive(Default)]
struct Urls {
    first: Vec<String>,
    /// There are more, or longer ones.
    left_out: bool,
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut urls = Self::default();
        Each::of(|url: Option<String>| {
            let url = url.unwrap_or_default();
            if urls.first.len() < MAX_URLS && url.len() <= MAX_URL {
                urls.first.push(url);
            } else {
                urls.left_out = true;
            }
        })
        .deserialize(from)?;
        Ok(urls)
    }
}

#[derive(serde::Deserialize)]
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
            digest: word(self.digest.unwrap_or_default()),
            media_type: word(self.media_type.unwrap_or_default()),
            size: self.size.unwrap_or(0),
            urls: self.urls.unwrap_or_default().first,
        }
    }

    fn into_entry(mut self) -> Entry {
        let platform = self.platform.take();
        let part = |text: &str| clean(text, MAX_PLATFORM);
        Entry {
            wants_features: platform
                .as_ref()
                .and_then(|p| p.os_features.as_ref())
                .is_some_and(|features| !features.is_empty()),
            platform: platform.map(|p| {
                // An entry without a system is treated as one for the node's own.
                let os = if p.os.is_empty() { "linux" } else { &p.os };
                let variant = p.variant.map(|v| part(&v));
                Platform::normalized(&part(os), &part(&p.architecture), variant.as_deref())
            }),
            descriptor: self.into_descriptor(),
        }
    }
}

/// Entries of an index for a node, while the index is read.
#[derive(Default)]
pub(super) struct Candidates {
    acceptable: Vec<Platform>,
    index: Index,
    entries: usize,
    /// Entries with the platform of an attestation, and the first of these platforms.
    unknown: (usize, Vec<String>),
    named: usize,
}

impl Candidates {
    fn add(&mut self, raw: RawDescriptor) {
        let entry = raw.into_entry();
        self.entries += 1;
        if let Some(platform) = &entry.platform {
            self.index.has_platform = true;
            let name = platform.to_string();
            if name.starts_with("unknown") {
                self.unknown.0 += 1;
                let first = &mut self.unknown.1;
                if first.len() < MAX_PLATFORMS && first.last() != Some(&name) {
                    first.push(name);
                }
            } else {
                self.named += 1;
                if self.index.platforms.len() < MAX_PLATFORMS {
                    self.index.platforms.push(name);
                }
            }
            if !self.acceptable.contains(platform) {
                return;
            }
        }
        let is_equal = |one: &&Entry| {
            one.platform == entry.platform && one.wants_features == entry.wants_features
        };
        if self.index.entries.iter().filter(is_equal).count() < MAX_EQUAL {
            self.index.entries.push(entry);
        }
    }

    pub(super) fn finish(mut self) -> Index {
        self.index.platforms_left_out = self.named - self.index.platforms.len();
        if self.unknown.0 == self.entries {
            self.index.platforms = self.unknown.1;
        }
        self.index
    }
}

// ---- a configuration ---------------------------------------------------------------------------------------------

/// An image's configuration, of which the digests at some places are kept.
pub(super) struct ConfigDocument<'p> {
    pub(super) places: &'p [usize],
}

/// Only fields whose wrong type makes containerd reject the document.
#[derive(Clone, Copy, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase", field_identifier)]
enum ConfigField {
    Os,
    Architecture,
    RootFs,
    Created,
    Author,
    Config,
    History,
    #[serde(other)]
    Unknown,
}

impl<'de> DeserializeSeed<'de> for ConfigDocument<'_> {
    type Value = ImageConfig;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<ImageConfig, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ConfigDocument<'_> {
    type Value = ImageConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image configuration")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ImageConfig, A::Error> {
        let mut config = ImageConfig::default();
        let mut present = Vec::new();
        while let Some(field) = map.next_key::<ConfigField>()? {
            if field != ConfigField::Unknown {
                if present.contains(&field) {
                    return Err(A::Error::duplicate_field("of a configuration"));
                }
                present.push(field);
            }
            let text = |text: Option<String>| printable(&text.unwrap_or_default());
            match field {
                ConfigField::Os => config.os = text(map.next_value()?),
                ConfigField::Architecture => config.architecture = text(map.next_value()?),
                ConfigField::RootFs => map.next_value_seed(RootFs {
                    places: self.places,
                    config: &mut config,
                })?,
                ConfigField::Created => {
                    map.next_value::<Option<jiff::Timestamp>>()?;
                }
                ConfigField::Author => {
                    map.next_value::<Option<String>>()?;
                }
                ConfigField::Config => {
                    map.next_value::<Option<RawRuntimeConfig>>()?;
                }
                ConfigField::History => {
                    map.next_value::<ListOf<MapOf<IgnoredAny>>>()?;
                }
                ConfigField::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(config)
    }
}

struct RootFs<'a> {
    places: &'a [usize],
    config: &'a mut ImageConfig,
}

#[derive(Clone, Copy, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case", field_identifier)]
enum RootFsField {
    Type,
    DiffIds,
    #[serde(other)]
    Unknown,
}

impl<'de> DeserializeSeed<'de> for RootFs<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for RootFs<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the layers of an image")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut present = Vec::new();
        while let Some(field) = map.next_key::<RootFsField>()? {
            if field != RootFsField::Unknown {
                if present.contains(&field) {
                    return Err(A::Error::duplicate_field("of rootfs"));
                }
                present.push(field);
            }
            match field {
                RootFsField::Type => {
                    let kind = map.next_value::<Option<String>>()?.unwrap_or_default();
                    self.config.has_other_rootfs = !kind.is_empty() && kind != "layers";
                }
                RootFsField::DiffIds => {
                    let (places, config) = (self.places, &mut *self.config);
                    map.next_value_seed(Each::of(|id: Option<String>| {
                        if places.get(config.chosen.len()) == Some(&config.diff_ids) {
                            config.chosen.push(word(id.unwrap_or_default()));
                        }
                        config.diff_ids += 1;
                    }))?;
                }
                RootFsField::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRuntimeConfig {
    #[serde(rename = "User")]
    _user: Option<String>,
    #[serde(rename = "Env")]
    _env: Option<ListOf<String>>,
    #[serde(rename = "Entrypoint")]
    _entrypoint: Option<ListOf<String>>,
    #[serde(rename = "Cmd")]
    _cmd: Option<ListOf<String>>,
    #[serde(rename = "WorkingDir")]
    _working_dir: Option<String>,
    #[serde(rename = "Labels")]
    _labels: Option<MapOf<Option<String>>>,
}
