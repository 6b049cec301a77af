//! Section `on_demand`: which images are checked on request, and how many per minute.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::CountWithin;

/// Checks requested by `POST /-/probe` at the admin address.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct OnDemand {
    /// Which images may be checked.
    pub images: OnDemandImages,
    /// The limit of checks per minute; one runs at a time.
    pub per_minute: CountWithin<1, 60>,
}

impl Default for OnDemand {
    fn default() -> Self {
        Self {
            images: OnDemandImages::Used,
            per_minute: CountWithin(6),
        }
    }
}

/// `on_demand.images`: which images may be checked on request.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum OnDemandImages {
    /// Images that a target or a pod of this node uses.
    #[default]
    Used,
    /// Any image, with the network access of this node.
    Any,
    /// None.
    Off,
}
