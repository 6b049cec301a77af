//! What a series of arrivals says of the way that the bytes came: pure, without clock or sockets.

pub mod fit;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::evidence::{Evidence, Step};
use crate::model::transfer::{Arrival, Transfer, TransferEnd};
use crate::model::units::Bytes;
use fit::{Fit, Point};

/// How fast layers come, and what that means for this image.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Throughput {
    /// By one stream alone.
    pub one: Option<Rate>,
    /// By all streams that containerd would have.
    pub all: Option<Rate>,
    /// How long the layers of this platform take at the rate of all streams (or of the one): an
    /// estimate, without unpacking. Where the rate is a lower bound, this is an upper one.
    pub pull_seconds: Option<f64>,
}

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

/// The rate is known by the series so far: that since more streams were added, where there are more.
pub fn is_stable(arrivals: &[Arrival], more_after: Option<Duration>, round_trip: Duration) -> bool {
    let series = match more_after {
        Some(from) => part(arrivals, from, None),
        None => part(arrivals, Duration::ZERO, None),
    };
    fit::fit(&series).is_some_and(|fit| fit.is_sustained(round_trip.as_secs_f64()))
}

/// What a transfer comes to.
pub fn judge(evidence: &Evidence) -> Option<Throughput> {
    let transfer = evidence.walk.transfer.as_ref()?;
    let round_trip = evidence
        .walk
        .legs
        .iter()
        .filter_map(|leg| leg.transport?.min_rtt)
        .min()
        .unwrap_or_default();
    let one = rate(
        transfer,
        part(&transfer.arrivals, Duration::ZERO, transfer.more_after),
        round_trip,
    );
    let all = transfer
        .more_after
        .filter(|_| transfer.streams.len() > 1)
        .and_then(|from| rate(transfer, part(&transfer.arrivals, from, None), round_trip));
    let size = match &evidence.walk.manifest {
        Step::Done { value, .. } => Some(value.layers_size),
        _ => None,
    };
    let best = all.or(one);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let pull_seconds = best
        .zip(size)
        .map(|(rate, size)| size.0 as f64 / rate.bytes_per_second);
    Some(Throughput {
        one,
        all,
        pull_seconds,
    })
}

/// The points between two times, counted from the first of them.
#[expect(clippy::cast_precision_loss, reason = "bytes below 2^53")]
fn part(arrivals: &[Arrival], from: Duration, until: Option<Duration>) -> Vec<Point> {
    let mut chosen = arrivals
        .iter()
        .filter(|arrival| arrival.at >= from && until.is_none_or(|until| arrival.at <= until))
        .peekable();
    let Some(first) = chosen.peek().map(|first| **first) else {
        return Vec::new();
    };
    chosen
        .map(|arrival| Point {
            at: (arrival.at - first.at).as_secs_f64(),
            bytes: (arrival.bytes.0 - first.bytes.0) as f64,
        })
        .collect()
}

fn rate(transfer: &Transfer, series: Vec<Point>, round_trip: Duration) -> Option<Rate> {
    let line = fit::fit(&series);
    if let Some(line) = line.filter(|line| line.is_sustained(round_trip.as_secs_f64())) {
        return Some(of_line(&line, true));
    }
    // All of an image that was read whole is what its pull comes to.
    let last = series.last().filter(|last| last.at > 0.0)?;
    let mean = last.bytes / last.at;
    if transfer.end != TransferEnd::Complete
        && let Some(line) = line
    {
        return Some(of_line(&line, false));
    }
    Some(Rate {
        bytes_per_second: mean,
        low_bytes_per_second: mean,
        high_bytes_per_second: mean,
        is_sustained: false,
        burst: None,
        bytes: bytes(last.bytes),
        seconds: last.at,
    })
}

fn of_line(line: &Fit, is_sustained: bool) -> Rate {
    Rate {
        bytes_per_second: line.rate,
        low_bytes_per_second: line.low,
        high_bytes_per_second: line.high,
        is_sustained,
        // Less than what a receiver's quanta make is none.
        burst: (line.ahead > 128e3).then(|| bytes(line.ahead)),
        bytes: bytes(line.bytes),
        seconds: line.duration,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of bytes, not negative"
)]
fn bytes(number: f64) -> Bytes {
    Bytes(number.max(0.0) as u64)
}
