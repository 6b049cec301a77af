//! Time as the schedule counts it, and draws that take the place of chance.

use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Time since the Unix epoch, by a clock that never goes back.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Moment(#[serde(with = "crate::model::units::Seconds")] pub Duration);

impl Moment {
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// How long ago another one was; zero where it is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// To the second; for people.
    pub fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_second(i64::try_from(self.0.as_secs()).ok()?).ok()
    }

    /// The day (UTC) it falls into, counted from the epoch.
    pub fn day(self) -> u64 {
        self.0.as_secs() / 86_400
    }
}

/// Time since the epoch, as it was at the start and has passed since: it never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    epoch: Duration,
}

impl Clock {
    pub fn begin() -> Self {
        let epoch = Duration::try_from(Timestamp::now().duration_since(Timestamp::UNIX_EPOCH));
        Self {
            start: Instant::now(),
            epoch: epoch.unwrap_or_default(),
        }
    }

    pub fn now(&self) -> Moment {
        Moment(self.epoch + self.start.elapsed())
    }

    pub fn instant(&self, at: Moment) -> Instant {
        self.start + at.0.saturating_sub(self.epoch)
    }
}

/// The same everywhere and in every version.
pub fn hash(parts: &[&str]) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let digest = context.finish();
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    u64::from_be_bytes(first)
}

/// Of the whole range: 0 to just below 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
pub fn share(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1u64 << 53) as f64
}
