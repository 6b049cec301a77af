//! A rate as a report has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::units::{Bytes, Mbit};

/// A rate that was measured.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Rate {
    pub bytes_per_second: f64,
    /// An interval that holds it with 95 %.
    pub low_bytes_per_second: f64,
    pub high_bytes_per_second: f64,
    /// The rate that lasts; else the budget, or the image, ended before that could be told, and it is
    /// at least this one or, where a burst may hide a cap, what was seen so far.
    pub is_sustained: bool,
    /// What came in advance of the sustained rate.
    pub burst: Option<Bytes>,
    /// What it was measured on.
    pub bytes: Bytes,
    pub seconds: f64,
}

/// Beside sizes that are sold in whole Mbit/s: two digits are enough.
pub(crate) fn mbit(bytes_per_second: f64) -> String {
    let decimals = usize::from(bytes_per_second * 8.0 < 9.95e6);
    format!("{:.decimals$}", Mbit(bytes_per_second))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of bytes, not negative"
)]
pub(super) fn bytes(number: f64) -> Bytes {
    Bytes(number.max(0.0) as u64)
}
