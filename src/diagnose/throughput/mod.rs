//! Infers download rates, and what limits them, from a series of arrivals. Pure: no clock, no sockets.

use rate::{Rate, bytes};
pub mod fit;
mod limit;
pub mod rate;
mod stages;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::catalogue::Cause;
use super::level::Confidence;
use super::path;
use super::path::leg_path::LegPath;
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::Evidence;
use crate::model::path::{EipOf, PathClass};
use crate::model::settings_source::SettingsSource;
use crate::model::transfer::{StageKind, Transfer, TransferEnd};
use crate::model::units::OptionalSeconds;
use crate::model::vantage::NetworkView;
use fit::Fit;
use limit::Known;
pub(super) use limit::{Bound, MissingOption, Side};
use stages::StageRate;
pub use stages::is_stable;

/// The download rate of layers, what limits it, and how long this image takes.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Throughput {
    /// The rate of one stream alone; absent if it was not measured.
    pub one: Option<Rate>,
    /// The rate of all streams that containerd would use; absent if it was not measured.
    pub all: Option<Rate>,
    /// The best time of a small request without a load, in seconds; absent if it was not measured.
    #[serde(
        rename = "idle_latency_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub idle_latency: Option<Duration>,
    /// The median time of a small request while layers download, in seconds; absent if it was not measured.
    #[serde(
        rename = "loaded_latency_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub loaded_latency: Option<Duration>,
    /// Why these rates do not show what the path delivers; absent if nothing disturbed the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbed: Option<String>,
    /// The cause that limits the rate; absent if it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_by: Option<Cause>,
    /// Why the cause is unknown, and what would decide it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_because: Option<String>,
    /// How long the layers of this platform take at the rate of all streams (or else of one), in seconds: an
    /// estimate, without unpacking. If the rate is a lower bound, this is an upper one.
    pub pull_seconds: Option<f64>,
}

impl Throughput {
    /// The rate of all streams, or else of one.
    pub fn rate(&self) -> Option<Rate> {
        self.all.or(self.one)
    }

    /// The rate of all streams, or else of one; `None` if something disturbed the test.
    pub fn undisturbed(&self) -> Option<Rate> {
        self.rate().filter(|_| self.disturbed.is_none())
    }

    /// Names settings as they are written in `source`.
    pub(super) fn name_settings(&mut self, source: SettingsSource) {
        let texts = self.disturbed.iter_mut().chain(&mut self.unknown_because);
        texts.for_each(|text| source.name_in(text));
    }
}

/// Judges the transfer test; `None` if there was none.
pub fn judge(evidence: &Evidence) -> Option<Throughput> {
    judge_with_bound(evidence).map(|(throughput, _)| throughput)
}

/// The same, with the limit for the finding.
pub(super) fn judge_with_bound(evidence: &Evidence) -> Option<(Throughput, Option<Bound>)> {
    let transfer = evidence.walk.transfer.as_ref()?;
    let round_trip = round_trip(evidence, transfer);
    let rates = stages::rates(&transfer.arrivals, &transfer.stages, round_trip);
    let disturbance = limit::disturbance(transfer);
    let of = |kind: StageKind| {
        let found = rates.iter().find(|rate| rate.stage.kind == kind)?;
        let mut rate = shown(found)?;
        rate.is_sustained &= disturbance.is_none();
        Some(rate)
    };
    let mut one = of(StageKind::OneStream);
    let mut all = of(StageKind::AsContainerd);
    // The whole image was read before its rate was known: only the mean is known.
    let read_whole = whole(transfer);
    let is_known = |rate: &Option<Rate>| rate.is_some_and(|rate| rate.is_sustained);
    if read_whole.is_some() && !is_known(&one) && !is_known(&all) {
        (one, all) = (None, read_whole);
    }
    let size = evidence.walk.manifest.done().map(|found| found.layers_size);
    // If each byte was downloaded once, that is how long it takes.
    let measured = read_whole
        .filter(|rate| Some(rate.bytes) == size)
        .map(|rate| rate.seconds);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let estimated = best(one, all)
        .zip(size)
        .filter(|(rate, _)| rate.bytes_per_second > 0.0)
        .map(|(rate, size)| size.0 as f64 / rate.bytes_per_second);
    let pull_seconds = measured.or(estimated);
    let (bound, unknown_because) = match disturbance.clone() {
        Some((cause, reason)) => {
            let facts = vec![reason.clone()];
            let bound = cause.map(|cause| Bound::new(cause, Confidence::High, facts));
            (bound, Some(reason))
        }
        None => match limit::decide(transfer, &rates, known(evidence)) {
            Ok(bound) => (Some(bound), None),
            Err(because) => (None, Some(limit::with_upload(transfer, because))),
        },
    };
    let latency = limit::latency(transfer);
    let throughput = Throughput {
        one,
        all,
        idle_latency: latency.map(|(idle, _)| idle),
        loaded_latency: latency.map(|(_, loaded)| loaded),
        disturbed: disturbance.map(|(_, reason)| reason),
        bound_by: bound.as_ref().map(|bound| bound.cause),
        unknown_because,
        pull_seconds,
    };
    Some((throughput, bound))
}

/// A sustained rate is preferred to a rate of a short time.
pub(super) fn best(one: Option<Rate>, all: Option<Rate>) -> Option<Rate> {
    [all, one]
        .into_iter()
        .flatten()
        .find(|rate| rate.is_sustained)
        .or(all)
        .or(one)
}

/// The leg that served the layers.
pub(super) fn leg_of(evidence: &Evidence) -> Role {
    let transfer = evidence.walk.transfer.as_ref();
    let endpoint = transfer.and_then(|t| Some(&t.streams.first()?.endpoint));
    role_of(evidence, endpoint)
}

/// Whether an endpoint belongs to the blob storage or to the registry; `None` stands for any storage.
pub(super) fn role_of(evidence: &Evidence, endpoint: Option<&Endpoint>) -> Role {
    let is_storage = evidence
        .walk
        .legs_of(Role::Blob)
        .any(|leg| endpoint.is_none_or(|endpoint| leg.endpoint == *endpoint));
    if is_storage {
        Role::Blob
    } else {
        Role::Registry
    }
}

/// The path of that leg; the last one if there are several.
pub(super) fn path_of(evidence: &Evidence) -> Option<LegPath> {
    let role = leg_of(evidence);
    let mut paths = path::classify(evidence).into_iter().rev();
    paths.find(|path| path.role == role)
}

fn known(evidence: &Evidence) -> Known {
    let path = path_of(evidence);
    let vantage = &evidence.vantage;
    let of_pod = vantage.pod_eip.as_ref().and_then(|eip| eip.bandwidth_mbit);
    let class = path.as_ref().and_then(|path| path.class);
    let is_pods = path
        .as_ref()
        .is_some_and(|path| path.attributes.eip_of == Some(EipOf::Pod));
    let eip_mbit = match class {
        Some(PathClass::PublicEip) if is_pods => of_pod.or(vantage.declared.eip_bandwidth_mbit),
        Some(PathClass::PublicEip | PathClass::PublicSnat) => vantage.declared.eip_bandwidth_mbit,
        _ => None,
    };
    Known {
        class,
        eip_mbit,
        // The metadata is about the machine; a pod may have less.
        node_mbit: vantage
            .metadata
            .facts()
            .filter(|_| vantage.network != NetworkView::Pod)
            .and_then(|facts| facts.max_bandwidth_mbit),
    }
}

fn round_trip(evidence: &Evidence, transfer: &Transfer) -> Duration {
    let of_streams = transfer.streams.iter().filter_map(|s| s.min_rtt).min();
    let of_legs = || {
        let legs = evidence.walk.legs.iter();
        legs.filter_map(|leg| leg.transport?.min_rtt).min()
    };
    of_streams.or_else(of_legs).unwrap_or_default()
}

/// All bytes divided by the whole time since the first request.
#[expect(clippy::cast_precision_loss, reason = "bytes below 2^53")]
fn whole(transfer: &Transfer) -> Option<Rate> {
    let total: u64 = transfer.streams.iter().map(|stream| stream.bytes.0).sum();
    let seconds = transfer.took.as_secs_f64();
    let is_whole = transfer.end == TransferEnd::Complete && total > 0 && seconds > 0.0;
    is_whole.then(|| plain(total as f64 / seconds, total as f64, seconds))
}

/// A mean rate without an interval.
fn plain(mean: f64, total: f64, seconds: f64) -> Rate {
    Rate {
        bytes_per_second: mean,
        low_bytes_per_second: mean,
        high_bytes_per_second: mean,
        is_sustained: false,
        burst: None,
        bytes: bytes(total),
        seconds,
    }
}

/// The rate to report: that of the fitted line, even if it is too short to be sustained, or else the mean.
fn shown(found: &StageRate) -> Option<Rate> {
    match found.line {
        Some(line) => Some(of_line(&line, found.is_sustained)),
        None if found.mean > 0.0 => Some(plain(found.mean, found.bytes, found.seconds)),
        None => None,
    }
}

fn of_line(line: &Fit, is_sustained: bool) -> Rate {
    Rate {
        bytes_per_second: line.rate,
        low_bytes_per_second: line.low,
        high_bytes_per_second: line.high,
        is_sustained,
        // Smaller bursts may come from the receiver's quanta.
        burst: (line.ahead > 128e3).then(|| bytes(line.ahead)),
        bytes: bytes(line.bytes),
        seconds: line.duration,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::fixture;
    use crate::model::transfer::{Arrival, Stage};
    use crate::model::units::Bytes;

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
            first_touch: None,
            offset: Bytes(0),
            bytes: arrivals.last().unwrap().bytes,
            min_rtt: None,
            options: None,
            bursts: None,
            longest_stall: Duration::ZERO,
            silent: None,
            end: crate::model::transfer::StreamEnd::Stopped,
            samples: Vec::new(),
        };
        let nothing = crate::model::transfer::TransferStream {
            bytes: Bytes(0),
            ..stream.clone()
        };
        let mut all = vec![stream];
        all.resize(streams, nothing);
        let stage = |kind, from, streams| Stage {
            kind,
            from,
            streams,
            connections: streams,
        };
        let mut stages = vec![stage(StageKind::OneStream, Duration::ZERO, 1)];
        stages.extend(more_after.map(|after| {
            let from = Duration::from_secs_f64(after);
            stage(StageKind::AsContainerd, from, streams)
        }));
        Transfer {
            started: fixture::now(),
            max_bytes: Bytes(16 << 20),
            max_duration: Duration::from_secs(5),
            expected_within: None,
            took: arrivals.last().unwrap().at,
            streams: all,
            connections: streams,
            connections_tried: 0,
            not_connected: Vec::new(),
            arrivals,
            stages,
            pings: None,
            control: None,
            device: None,
            tcp_settings: None,
            round_trips_before: Vec::new(),
            cpu: None,
            end: TransferEnd::Stable,
        }
    }

    #[test]
    fn one_stream_and_all_of_them_are_distinguished() {
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
    fn a_pull_that_takes_too_long_is_reported_by_a_rate_that_lasts() {
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
            "no expected duration"
        );
    }

    #[test]
    fn what_ended_too_early_is_not_called_sustained() {
        let found = judged(transfer(&[(50e6, 0.6)], None, 1));
        let one = found.one.unwrap();
        assert!(!one.is_sustained, "{one:?}");
        assert_eq!(found.all, None);
        // The sustained rate counts, not that of a moment.
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
        // Nothing arrived: there is no rate, and no time.
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
