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
        &part(&transfer.arrivals, Duration::ZERO, transfer.more_after),
        round_trip,
    );
    let all = transfer
        .more_after
        .filter(|_| transfer.streams.len() > 1)
        .and_then(|from| rate(&part(&transfer.arrivals, from, None), round_trip));
    // An image that was read whole before there was a series to judge.
    let all = all.or_else(|| whole(transfer).filter(|_| one.is_none()));
    let size = match &evidence.walk.manifest {
        Step::Done { value, .. } => Some(value.layers_size),
        _ => None,
    };
    // What lasts is known better than what was seen.
    let best = [all, one]
        .into_iter()
        .flatten()
        .find(|rate| rate.is_sustained)
        .or(all)
        .or(one);
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
            at: arrival.at.saturating_sub(first.at).as_secs_f64(),
            bytes: arrival.bytes.0.saturating_sub(first.bytes.0) as f64,
        })
        .collect()
}

/// All bytes by all the time, from the first request on.
#[expect(clippy::cast_precision_loss, reason = "bytes below 2^53")]
fn whole(transfer: &Transfer) -> Option<Rate> {
    let total: u64 = transfer.streams.iter().map(|stream| stream.bytes.0).sum();
    let seconds = transfer.took.as_secs_f64();
    let is_whole = transfer.end == TransferEnd::Complete && total > 0 && seconds > 0.0;
    is_whole.then(|| {
        let mean = total as f64 / seconds;
        Rate {
            bytes_per_second: mean,
            low_bytes_per_second: mean,
            high_bytes_per_second: mean,
            is_sustained: false,
            burst: None,
            bytes: Bytes(total),
            seconds,
        }
    })
}

fn rate(series: &[Point], round_trip: Duration) -> Option<Rate> {
    let line = fit::fit(series);
    if let Some(line) = line.filter(|line| line.is_sustained(round_trip.as_secs_f64())) {
        return Some(of_line(&line, true));
    }
    // An end that is too short to be believed is still what was seen last.
    line.map(|line| of_line(&line, false))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::fixture;

    /// Arrivals each 50 ms at these rates (bytes per second), each for so many seconds.
    fn arrivals(parts: &[(f64, f64)]) -> Vec<Arrival> {
        let (mut at, mut bytes) = (Duration::ZERO, 0.0);
        let mut all = vec![Arrival {
            at,
            bytes: Bytes(1),
        }];
        for (rate, seconds) in parts {
            let end = at + Duration::from_secs_f64(*seconds);
            while at < end {
                at += Duration::from_millis(50);
                bytes += rate * 0.05;
                all.push(Arrival {
                    at,
                    bytes: super::bytes(bytes),
                });
            }
        }
        all
    }

    fn judged(transfer: Transfer) -> Throughput {
        let mut evidence = fixture::healthy();
        evidence.walk.transfer = Some(transfer);
        judge(&evidence).unwrap()
    }

    fn transfer(parts: &[(f64, f64)], more_after: Option<f64>, streams: usize) -> Transfer {
        let arrivals = arrivals(parts);
        let stream = crate::model::transfer::TransferStream {
            endpoint: fixture::endpoint("blobs.example.com"),
            to: "203.0.113.9:443".parse().unwrap(),
            digest: "sha256:ab".to_owned(),
            connection: 0,
            first_byte: None,
            bytes: arrivals.last().unwrap().bytes,
            longest_stall: Duration::ZERO,
            end: crate::model::transfer::StreamEnd::Stopped,
            samples: Vec::new(),
        };
        let nothing = crate::model::transfer::TransferStream {
            bytes: Bytes(0),
            ..stream.clone()
        };
        let mut all = vec![stream];
        all.resize(streams, nothing);
        Transfer {
            began: fixture::now(),
            max_bytes: Bytes(16 << 20),
            max_duration: Duration::from_secs(5),
            expected_within: None,
            took: arrivals.last().unwrap().at,
            streams: all,
            connections: streams,
            arrivals,
            more_after: more_after.map(Duration::from_secs_f64),
            end: TransferEnd::Stable,
        }
    }

    #[test]
    fn one_stream_and_all_of_them_are_told_apart() {
        // A cap on each connection: three get three times as much.
        let found = judged(transfer(&[(1e6, 2.0), (3e6, 2.0)], Some(2.0), 3));
        let (one, all) = (found.one.unwrap(), found.all.unwrap());
        assert!(
            one.is_sustained && (one.bytes_per_second / 1e6 - 1.0).abs() < 0.02,
            "{one:?}"
        );
        assert!(
            all.is_sustained && (all.bytes_per_second / 3e6 - 1.0).abs() < 0.02,
            "{all:?}"
        );
        // 3 MiB of layers, by all streams.
        let seconds = found.pull_seconds.unwrap();
        assert!(
            (seconds - f64::from(3 << 20) / 3e6).abs() < 0.05,
            "{seconds}"
        );
    }

    #[test]
    fn a_pull_that_takes_too_long_is_told_by_a_rate_that_lasts() {
        let codes = |transfer: Transfer| -> Vec<&'static str> {
            let mut evidence = fixture::healthy();
            evidence.walk.transfer = Some(transfer);
            let verdict = crate::diagnose::diagnose(&evidence);
            verdict.findings.iter().map(|f| f.cause.code()).collect()
        };
        // 3 MiB at 1 MB/s.
        let slow = |within: u64| Transfer {
            expected_within: Some(Duration::from_secs(within)),
            ..transfer(&[(1e6, 2.0)], None, 1)
        };
        assert_eq!(codes(slow(2)), ["throughput_low"]);
        assert!(codes(slow(4)).is_empty());
        let moment = Transfer {
            expected_within: Some(Duration::from_millis(1)),
            ..transfer(&[(1e6, 0.6)], None, 1)
        };
        assert!(codes(moment).is_empty());
        assert!(
            codes(transfer(&[(1e6, 2.0)], None, 1)).is_empty(),
            "nobody asked"
        );
    }

    #[test]
    fn what_ended_too_early_is_not_called_sustained() {
        let found = judged(transfer(&[(50e6, 0.6)], None, 1));
        let one = found.one.unwrap();
        assert!(!one.is_sustained, "{one:?}");
        assert_eq!(found.all, None);
        // The rate that lasts counts, not the one that was seen for a moment.
        let found = judged(transfer(&[(1e6, 2.0), (2e6, 0.5)], Some(2.0), 3));
        assert!(!found.all.unwrap().is_sustained);
        let seconds = found.pull_seconds.unwrap();
        assert!(
            (seconds - f64::from(3 << 20) / 1e6).abs() < 0.2,
            "{seconds}"
        );
    }

    #[test]
    fn an_image_that_is_read_at_once_has_its_mean() {
        let mut quick = transfer(&[(50e6, 0.1)], None, 1);
        quick.end = TransferEnd::Complete;
        let found = judged(quick);
        assert_eq!(found.one, None);
        let all = found.all.unwrap();
        assert!(!all.is_sustained && all.bytes_per_second > 40e6, "{all:?}");
        // Nothing came: there is no rate, and no time.
        let mut none = transfer(&[(50e6, 0.1)], None, 1);
        none.end = TransferEnd::Failed;
        none.arrivals.clear();
        let found = judged(none);
        assert_eq!(
            (found.one, found.all, found.pull_seconds),
            (None, None, None)
        );
    }
}
