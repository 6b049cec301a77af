//! Fits the sustained rate of a transfer, and the burst before it, from the arrival times of its bytes.
//!
//! A shaper is a token bucket: the bytes until time t are min(C·t, B + R·t), with line rate C, burst B and
//! sustained rate R. So the end of the series is a line, whose slope is R and whose intercept at the first
//! byte is B, less what slow start lost. The fit finds the longest end that is a line; the part before it
//! (slow start, burst, an early stall) may have any shape.

/// The bytes that had arrived at a time since the first byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds since the first byte.
    pub at: f64,
    /// Bytes until then.
    pub bytes: f64,
}

/// The line at the end of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Bytes per second.
    pub rate: f64,
    /// The lower end of the rate's 95 % confidence interval, in bytes per second, if the windows of the line are
    /// independent.
    pub low: f64,
    /// The upper end of that interval.
    pub high: f64,
    /// Bytes that arrived ahead of the line: the burst of a token bucket. Negative if slow start or a stall lost
    /// more than a burst gained.
    pub ahead: f64,
    /// When the line begins, in seconds since the first byte.
    pub from: f64,
    /// The length of the line in seconds.
    pub duration: f64,
    /// The bytes that arrived during the line.
    pub bytes: f64,
    /// The most bytes between two consecutive points of the line.
    pub grain: f64,
}

impl Fit {
    /// Whether the line is long and steady enough; `round_trip` is in seconds. 1.3 MB hold twenty quanta of
    /// 64 KiB, in which a receiver's bytes arrive (GRO, TLS records), so that one more or less is 5 %; on a slow
    /// path the quanta are smaller, and twenty observed ones suffice. It also spans enough round trips for the
    /// sender's window to take effect.
    pub fn is_sustained(&self, round_trip: f64) -> bool {
        let is_slow = self.duration >= 2.0 * ENOUGH_SECONDS && self.bytes >= QUANTA * self.grain;
        (self.bytes >= ENOUGH_BYTES || is_slow)
            && self.duration >= (ROUND_TRIPS * round_trip).max(ENOUGH_SECONDS)
            && self.is_tight()
    }

    fn is_tight(&self) -> bool {
        self.high - self.low <= 2.0 * TOLERANCE * self.rate
    }
}

const ENOUGH_BYTES: f64 = 1.3e6;
const ENOUGH_SECONDS: f64 = 1.0;
const QUANTA: f64 = 20.0;
const ROUND_TRIPS: f64 = 20.0;

/// How far the halves of a line may differ.
const TOLERANCE: f64 = 0.05;

/// The fewest points of a line.
const FEWEST: usize = 8;

/// The number of windows of a line from which its interval is computed.
const WINDOWS: usize = 8;
/// Student's t for that number (95 %, seven degrees of freedom).
const STUDENT: f64 = 2.365;

/// The longest end of the series that is a line; `None` if no end is one.
///
/// Points are ordered by time, and their bytes never decrease.
pub fn fit(points: &[Point]) -> Option<Fit> {
    let sums = Sums::of(points);
    let latest = points.len().checked_sub(FEWEST)?;
    let mut lines = (0..=latest).filter_map(|from| line(points, &sums, from));
    let longest = lines.next()?;
    // A small burst bends a long line too little to show in its slopes; it shows in one window's rate.
    if longest.is_tight() {
        return Some(longest);
    }
    Some(lines.find(Fit::is_tight).unwrap_or(longest))
}

/// The end from a point on, if it is a line.
fn line(points: &[Point], sums: &Sums, from: usize) -> Option<Fit> {
    let end = points.len();
    let (first, last) = (points[from], points[end - 1]);
    let duration = last.at - first.at;
    let bytes = last.bytes - first.bytes;
    if duration <= 0.0 || bytes <= 0.0 {
        return None;
    }
    let (rate, intercept) = sums.regress(from, end)?;
    // Thirds by time: a line has one slope, a ramp or a knee has several.
    let (third, two_thirds) = (first.at + duration / 3.0, first.at + duration * 2.0 / 3.0);
    let at = |time: f64| from + points[from..].partition_point(|point| point.at < time);
    let (one, two) = (at(third), at(two_thirds));
    // How much one arrival more or less changes the rate of a third.
    let grain = sums.steps[from] / (duration / 3.0);
    for (a, b) in [(from, one), (one, two), (two, end)] {
        let (slope, _) = sums.regress(a, b)?;
        if (slope - rate).abs() > (TOLERANCE * rate).max(grain.min(3.0 * TOLERANCE * rate)) {
            return None;
        }
    }
    let spread = spread(points, from, duration);
    Some(Fit {
        rate,
        low: (rate - spread).max(0.0),
        high: rate + spread,
        ahead: intercept,
        from: first.at,
        duration,
        bytes,
        grain: sums.steps[from],
    })
}

/// Half the width of the interval, from the mean rates of windows of equal length.
fn spread(points: &[Point], from: usize, duration: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "eight windows")]
    let windows = WINDOWS as f64;
    let length = duration / windows;
    let start = points[from].at;
    let bytes_at = |time: f64| {
        let after = points[from..].partition_point(|point| point.at < time) + from;
        match (points.get(after.wrapping_sub(1)), points.get(after)) {
            (Some(a), Some(b)) if b.at > a.at => {
                a.bytes + (b.bytes - a.bytes) * (time - a.at) / (b.at - a.at)
            }
            (_, Some(b)) => b.bytes,
            (Some(a), None) => a.bytes,
            (None, None) => 0.0,
        }
    };
    let mut rates = [0.0; WINDOWS];
    let mut time = start;
    for rate in &mut rates {
        *rate = (bytes_at(time + length) - bytes_at(time)) / length;
        time += length;
    }
    let mean = rates.iter().sum::<f64>() / windows;
    let variance = rates.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (windows - 1.0);
    STUDENT * (variance / windows).sqrt()
}

/// Sums from the start to each point, so that any part can be regressed at once.
struct Sums {
    /// Sums of 1, t, y, t², t·y.
    upto: Vec<[f64; 5]>,
    /// For each point, the most bytes between two consecutive points from there on.
    steps: Vec<f64>,
}

impl Sums {
    fn of(points: &[Point]) -> Self {
        let mut upto = Vec::with_capacity(points.len() + 1);
        let mut sums = [0.0; 5];
        upto.push(sums);
        for Point { at, bytes } in points {
            for (sum, value) in sums.iter_mut().zip([1.0, *at, *bytes, at * at, at * bytes]) {
                *sum += value;
            }
            upto.push(sums);
        }
        let mut steps = vec![0.0; points.len()];
        for index in (1..points.len()).rev() {
            let step = points[index].bytes - points[index - 1].bytes;
            steps[index - 1] = f64::max(steps[index], step);
        }
        Self { upto, steps }
    }

    /// Slope and intercept of the least-squares line through the points of a part.
    fn regress(&self, from: usize, to: usize) -> Option<(f64, f64)> {
        let (before, upto) = (self.upto.get(from)?, self.upto.get(to)?);
        let of = |i: usize| upto[i] - before[i];
        let (n, t, y, tt, ty) = (of(0), of(1), of(2), of(3), of(4));
        let scale = n * tt - t * t;
        if n < 2.0 || scale <= f64::EPSILON * n * tt {
            return None;
        }
        let slope = (n * ty - t * y) / scale;
        Some((slope, (y - slope * t) / n))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A path: round trip, line rate, and a token bucket; bytes are read in quanta.
    #[derive(Clone, Copy, Debug)]
    struct Path {
        round_trip: f64,
        line: f64,
        rate: f64,
        burst: f64,
        quantum: f64,
    }

    const MBIT: f64 = 1e6 / 8.0;

    /// The arrivals of so many bytes: slow start doubles each round trip from ten segments on, until
    /// the line or the bucket bounds it.
    fn arrivals(path: Path, total: f64, until: f64) -> Vec<Point> {
        let step = 1e-4;
        let (mut time, mut sent, mut tokens) = (0.0, 0.0, path.burst);
        let mut window = 14_480.0;
        let (mut next_round, mut reported) = (path.round_trip, 0.0);
        let mut points = vec![Point {
            at: 0.0,
            bytes: 0.0,
        }];
        while sent < total && time < until {
            time += step;
            tokens = (tokens + path.rate * step).min(path.burst.max(path.rate * step));
            if time > next_round {
                window *= 2.0;
                next_round += path.round_trip;
            }
            let by_window = window / path.round_trip * step;
            let now = by_window.min(path.line * step).min(tokens);
            tokens -= now;
            sent += now;
            if sent - reported >= path.quantum {
                reported = sent;
                points.push(Point {
                    at: time,
                    bytes: sent,
                });
            }
        }
        points
    }

    fn path(mbit: f64, round_trip_ms: f64, burst: f64) -> Path {
        Path {
            round_trip: (round_trip_ms / 1e3).max(5e-4),
            line: 2000.0 * MBIT,
            rate: mbit * MBIT,
            burst,
            quantum: 16_384.0,
        }
    }

    #[test]
    fn the_rate_of_a_bucket_is_found_behind_burst_and_slow_start() {
        for mbit in [1.0, 5.0, 10.0, 20.0, 50.0, 100.0] {
            for round_trip in [0.5, 20.0, 80.0] {
                for burst in [16e3, 256e3, 1.5e6] {
                    let case = path(mbit, round_trip, burst);
                    let points = arrivals(case, 64e6, 5.0);
                    let Some(found) = fit(&points) else {
                        panic!("no line for {case:?}");
                    };
                    let error = (found.rate / case.rate - 1.0).abs();
                    let sure = found.is_sustained(case.round_trip);
                    // A line that is too short must not count as sustained.
                    assert!(!sure || error < 0.05, "{case:?}: {found:?}");
                    let must_do = case.rate * 4.0 > ENOUGH_BYTES + burst && mbit <= 100.0;
                    assert!(!must_do || sure, "{case:?}: {found:?}");
                    assert!(found.low <= found.rate && found.rate <= found.high);
                }
            }
        }
    }

    #[test]
    fn the_burst_is_what_came_ahead() {
        let case = path(20.0, 1.0, 1e6);
        let found = fit(&arrivals(case, 64e6, 4.0)).unwrap();
        assert!((found.ahead / 1e6 - 1.0).abs() < 0.1, "{found:?}");
        let none = fit(&arrivals(path(20.0, 1.0, 4e3), 64e6, 4.0)).unwrap();
        assert!(none.ahead.abs() < 64e3, "{none:?}");
    }

    #[test]
    fn a_series_that_ends_too_early_is_not_believed() {
        // The whole of it is the burst, at the rate of the line.
        let hidden = path(10.0, 1.0, 4e6);
        let found = fit(&arrivals(hidden, 3e6, 5.0));
        assert!(
            found.is_none_or(|f| !f.is_sustained(hidden.round_trip)),
            "{found:?}"
        );
        assert_eq!(fit(&[]), None);
        let one = Point {
            at: 0.0,
            bytes: 0.0,
        };
        assert_eq!(fit(&[one; 20]), None, "no time has passed");
    }

    #[test]
    fn a_ramp_is_no_line() {
        let ramp: Vec<Point> = (0..200u32)
            .map(|i| {
                let at = f64::from(i) / 100.0;
                Point {
                    at,
                    bytes: 1e6 * at * at,
                }
            })
            .collect();
        let found = fit(&ramp).unwrap();
        assert!(found.from > 1.0 && !found.is_sustained(0.01), "{found:?}");
    }

    proptest! {
        #[test]
        fn any_series_is_judged_without_a_panic(steps in proptest::collection::vec((0u32..1000, 0u32..1_000_000), 0..60)) {
            let (mut at, mut bytes) = (0.0, 0.0);
            let points: Vec<Point> = steps
                .iter()
                .map(|(ms, more)| {
                    at += f64::from(*ms) / 1e3;
                    bytes += f64::from(*more);
                    Point { at, bytes }
                })
                .collect();
            if let Some(found) = fit(&points) {
                prop_assert!(found.rate.is_finite() && found.rate > 0.0);
                prop_assert!(found.low <= found.high);
            }
        }
    }
}
