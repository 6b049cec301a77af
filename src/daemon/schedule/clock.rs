//! The schedule's clock, and hashes that replace random numbers.

use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Time since the Unix epoch, on a clock that never goes back.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Moment(#[serde(with = "crate::model::units::Seconds")] pub Duration);

impl Moment {
    /// The moment that is `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// The time since an earlier moment; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The time in whole seconds, for reports; `None` out of range.
    pub fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_second(i64::try_from(self.0.as_secs()).ok()?).ok()
    }

    /// The day (UTC), counted from the epoch.
    pub fn day(self) -> u64 {
        self.0.as_secs() / 86_400
    }
}

/// The system's time at the start, and a monotonic clock since: it never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    epoch: Duration,
}

impl Clock {
    /// Starts the clock with the system's time.
    pub fn begin() -> Self {
        let epoch = Duration::try_from(Timestamp::now().duration_since(Timestamp::UNIX_EPOCH));
        Self {
            start: Instant::now(),
            epoch: epoch.unwrap_or_default(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Moment {
        Moment(self.epoch + self.start.elapsed())
    }

    /// The tokio instant of a moment, for timers.
    pub fn instant(&self, at: Moment) -> Instant {
        self.start + at.0.saturating_sub(self.epoch)
    }
}

/// The first 64 bits of SHA-256 over the parts; the same on each machine and in each version.
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

/// Maps a hash to a number from 0 to just below 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
pub fn share(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1u64 << 53) as f64
}
