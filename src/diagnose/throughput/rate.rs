//! A measured rate, in the form of a report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::units::{Bytes, Mbit};

/// A measured download rate.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Rate {
    /// The rate of payload, in bytes per second.
    pub bytes_per_second: f64,
    /// The lower end of the 95 % confidence interval.
    pub low_bytes_per_second: f64,
    /// The upper end of the 95 % confidence interval.
    pub high_bytes_per_second: f64,
    /// Whether the rate lasts. If not, the budget or the image ended before that was known: the rate is a lower
    /// bound or, if a burst may hide a limit, the rate so far.
    pub is_sustained: bool,
    /// Bytes that arrived ahead of the sustained rate; absent if there was no burst.
    pub burst: Option<Bytes>,
    /// The bytes that were measured.
    pub bytes: Bytes,
    /// The time that was measured, in seconds.
    pub seconds: f64,
}

/// A rate in Mbit/s with two digits: bandwidth is sold in whole Mbit/s.
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
