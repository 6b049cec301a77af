//! Shapes that several of the API server's objects share, as far as they are read.

use serde::Deserialize;

use crate::model::workload::ContainerKind;
use crate::workload::spec::ContainerSpec;
use crate::workload::spec::VolumeSpec;

/// The `spec` of a pod or of its template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    #[serde(default)]
    pub init_containers: Vec<ContainerSpec>,
    #[serde(default)]
    pub containers: Vec<ContainerSpec>,
    #[serde(default)]
    pub ephemeral_containers: Vec<ContainerSpec>,
    #[serde(default)]
    pub volumes: Vec<VolumeSpec>,
    #[serde(default)]
    pub image_pull_secrets: Vec<Named>,
    pub service_account_name: Option<String>,
    pub node_name: Option<String>,
}

impl PodSpec {
    /// Its containers, init containers first.
    pub(super) fn containers(&self) -> impl Iterator<Item = (ContainerKind, &ContainerSpec)> {
        [
            (ContainerKind::InitContainer, &self.init_containers),
            (ContainerKind::Container, &self.containers),
            (
                ContainerKind::EphemeralContainer,
                &self.ephemeral_containers,
            ),
        ]
        .into_iter()
        .flat_map(|(kind, list)| list.iter().map(move |one| (kind, one)))
    }
}

/// A reference by name alone. The API server lets it have none.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    pub name: String,
}

/// Those that have one.
pub(super) fn names(list: Vec<Named>) -> Vec<String> {
    let names = list.into_iter().map(|named| named.name);
    names.filter(|name| !name.is_empty()).collect()
}

/// What kube's client asks of a type of core/v1 whose `metadata` is a whole one.
macro_rules! core_object {
    ($object:ident, $kind:literal, $plural:literal, $scope:ident) => {
        impl kube::Resource for $object {
            type DynamicType = ();
            type Scope = kube::core::$scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                "".into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &kube::api::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut kube::api::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(super) use core_object;
