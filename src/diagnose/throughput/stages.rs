//! The rate of each stage of a transfer test.

use std::time::Duration;

use super::fit::{self, Fit, Point};
use crate::model::transfer::{Arrival, Stage, StageKind};

/// A stage and its rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct StageRate {
    pub(super) stage: Stage,
    /// Mean bytes per second without the beginning, in which new connections ramp up.
    pub(super) mean: f64,
    /// The duration in seconds.
    pub(super) seconds: f64,
    /// The bytes that arrived.
    pub(super) bytes: f64,
    /// The steady end of the stage, or of this and earlier stages together if their rates are equal.
    pub(super) line: Option<Fit>,
    /// Whether the line is long and steady enough.
    pub(super) is_sustained: bool,
}

impl StageRate {
    /// The sustained rate, or else the mean, in bytes per second.
    pub(super) fn rate(&self) -> f64 {
        match self.line.filter(|_| self.is_sustained) {
            Some(line) => line.rate,
            None => self.mean,
        }
    }
}

/// A stage that continues like the one before counts as steady after this, in seconds and round trips. New
/// connections take longer if a queue makes round trips longer, as on slow paths; on fast ones, half of it
/// suffices.
const SAME_SECONDS: f64 = 0.5;
const SAME_ROUND_TRIPS: f64 = 10.0;
const SAME_BYTES: f64 = 3e6;

/// How long a control host is read: the longer of seconds and round trips.
const CONTROL_SECONDS: f64 = 1.6;
const CONTROL_ROUND_TRIPS: f64 = 30.0;

/// New connections take some round trips to ramp up.
const SETTLE_ROUND_TRIPS: u32 = 6;
const SETTLE: Duration = Duration::from_millis(150);

/// All stages, in their order.
pub(super) fn rates(
    arrivals: &[Arrival],
    stages: &[Stage],
    round_trip: Duration,
) -> Vec<StageRate> {
    let trip = round_trip.as_secs_f64();
    let mut found: Vec<StageRate> = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        let until = stages.get(index + 1).map(|next| next.from);
        let whole = part(arrivals, stage.from, until);
        let own = settled(arrivals, stage, until, round_trip);
        let line = fit::fit(&own);
        let seconds = whole.last().map_or(0.0, |last| last.at);
        // The first stage begins with slow start, perhaps a burst.
        let late = if index == 0 {
            let half = Duration::try_from_secs_f64(seconds / 2.0).unwrap_or_default();
            part(arrivals, stage.from + half, until)
        } else {
            own
        };
        let mut rate = StageRate {
            stage: *stage,
            mean: mean(&late).or_else(|| mean(&whole)).unwrap_or_default(),
            seconds,
            bytes: whole.last().map_or(0.0, |last| last.bytes),
            line,
            is_sustained: line.is_some_and(|line| line.is_sustained(trip)),
        };
        if !rate.is_sustained && stage.kind != StageKind::WithControl {
            let is_wider = index > 0 && stage.connections > stages[index - 1].connections;
            let slow = if is_wider && rate.bytes < SAME_BYTES {
                2.0
            } else {
                1.0
            };
            let enough = slow * SAME_SECONDS.max(SAME_ROUND_TRIPS * trip);
            let long = rate.seconds >= enough;
            let earlier = stages[..index].iter().enumerate().rev();
            for (before, first) in earlier.filter(|_| long) {
                let series = part(arrivals, first.from, until);
                let Some(line) = fit::fit(&series).filter(|line| line.is_sustained(trip)) else {
                    continue;
                };
                // The line spans both stages: their rates are equal.
                let begins = first.from.as_secs_f64() + line.from;
                let turn = stages[before + 1].from.as_secs_f64();
                if begins + enough / 4.0 > turn {
                    continue;
                }
                for old in &mut found[before..] {
                    if !old.is_sustained {
                        (old.line, old.is_sustained) = (Some(line), true);
                    }
                }
                (rate.line, rate.is_sustained) = (Some(line), true);
                break;
            }
        }
        found.push(rate);
    }
    found
}

/// Whether the newest stage can end: its rate is known, or equals that of the stage before, or its control
/// host was read for long enough.
pub fn is_stable(arrivals: &[Arrival], stages: &[Stage], round_trip: Duration) -> bool {
    let Some((last, elapsed)) = stages.last().zip(arrivals.last()) else {
        return false;
    };
    let seconds = elapsed.at.saturating_sub(last.from).as_secs_f64();
    if last.kind == StageKind::WithControl {
        return seconds >= CONTROL_SECONDS.max(CONTROL_ROUND_TRIPS * round_trip.as_secs_f64());
    }
    rates(arrivals, stages, round_trip)
        .last()
        .is_some_and(|rate| rate.is_sustained)
}

/// A stage without its beginning. In the first stage, the fit itself finds where the beginning ends.
fn settled(
    arrivals: &[Arrival],
    stage: &Stage,
    until: Option<Duration>,
    round_trip: Duration,
) -> Vec<Point> {
    let settle = if stage.from.is_zero() {
        Duration::ZERO
    } else {
        (round_trip * SETTLE_ROUND_TRIPS).max(SETTLE)
    };
    part(arrivals, stage.from + settle, until)
}

/// Bytes per second from the first to the last point.
pub(super) fn mean(points: &[Point]) -> Option<f64> {
    let last = points.last()?;
    (last.at > 0.0).then(|| last.bytes / last.at)
}

/// The points between two times, counted from the first of them.
#[expect(clippy::cast_precision_loss, reason = "bytes below 2^53")]
pub(super) fn part(arrivals: &[Arrival], from: Duration, until: Option<Duration>) -> Vec<Point> {
    let mut chosen = arrivals
        .iter()
        .filter(|arrival| arrival.at >= from && until.is_none_or(|until| arrival.at <= until))
        .peekable();
    let Some(first) = chosen.peek().map(|first| **first) else {
        return Vec::new();
    };
    chosen
        .map(|arrival| Point {
            at: arrival.at.saturating_sub(first.at).as_secs_f64(),
            bytes: arrival.bytes.0.saturating_sub(first.bytes.0) as f64,
        })
        .collect()
}
