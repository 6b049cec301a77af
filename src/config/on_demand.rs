//! `on_demand`: which images are checked at once because somebody asks, and how many.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::CountWithin;

/// Checks by `POST /-/probe` at the admin address.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct OnDemand {
    pub images: OnDemandImages,
    /// Checks of images in a minute, at most. One is made at a time.
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

/// Whose images.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum OnDemandImages {
    /// Those that a target or a pod of this node names.
    #[default]
    Used,
    /// Whatever is asked for, from this node's place in the network.
    Any,
    /// None.
    Off,
}
