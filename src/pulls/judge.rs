//! Infers from the times of successful pulls why they are slow: they wait for one another, or the node
//! unpacks more slowly than its network delivers. Never that the network is slow: only a check shows that.

use std::time::Duration;

use super::event::PullTimes;
use crate::diagnose::catalogue::Cause;
use crate::model::units::{Bytes, HumanDuration as Shown, Mbit};

/// Why pulls are slow, with the figures that show it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Slow {
    /// `serial_pull` or `disk_unpack`.
    pub cause: Cause,
    /// The evidence: the figures, as a sentence without a final period.
    pub seen: String,
}

/// Fewer slow pulls may be chance.
const LEAST_PULLS: usize = 3;

/// Shorter waits don't matter: a third of the kubelet's first back-off of 10 s.
const LEAST_WAIT: Duration = Duration::from_secs(3);

/// Smaller pulls finish before the disk matters.
const LEAST_SIZE: Bytes = Bytes(10 << 20);

/// Shorter pulls are not judged: handshakes and manifests are a large part of them.
pub(super) const LEAST_PULLING: Duration = Duration::from_secs(5);

/// Unpacking takes time on a good disk too, and runs in parallel with the download. Below a third of the
/// network's rate, the pull waits for it. (100 Mbit/s deliver 12 MB/s; a disk that takes 4 MB/s of compressed
/// layers is slow.)
const SHARE: f64 = 1.0 / 3.0;

/// Judges a node's newest pulls from a registry. `node_rate` is the rate that nodes measure from that
/// registry, in bytes per second; `None` if unknown (the rate from another registry does not apply: the path
/// differs). Returns `None` if the pulls are not slow, or if their times don't show why.
pub fn judge(pulls: &[PullTimes], node_rate: Option<f64>) -> Option<Slow> {
    waits(pulls).or_else(|| unpacks(pulls, node_rate?))
}

/// The pulls spend more time waiting than pulling.
fn waits(pulls: &[PullTimes]) -> Option<Slow> {
    let known = |took: &PullTimes| Some((took.waiting()?, took.pulling));
    let known: Vec<(Duration, Duration)> = pulls.iter().filter_map(known).collect();
    let waiting = mean(known.iter().map(|(waiting, _)| *waiting))?;
    let pulling = mean(known.iter().map(|(_, pulling)| *pulling))?;
    let many = known.iter().filter(|(waiting, _)| *waiting >= LEAST_WAIT);
    if many.count() < LEAST_PULLS || waiting < LEAST_WAIT || waiting <= pulling {
        return None;
    }
    Some(Slow {
        cause: Cause::SerialPull,
        seen: format!(
            "on average, the newest {} pulls waited {} for other pulls, then took {}",
            known.len(),
            Shown(waiting),
            Shown(pulling)
        ),
    })
}

/// The whole image arrives at a fraction of the network's rate. The size may be that on disk, and layers that
/// were present were not downloaded: both make the pull look faster than it was, so neither causes a false
/// finding.
#[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
fn unpacks(pulls: &[PullTimes], node_rate: f64) -> Option<Slow> {
    let mut rates: Vec<f64> = pulls
        .iter()
        .filter(|took| took.pulling >= LEAST_PULLING && took.including_waiting.is_some())
        .filter_map(|took| Some((took.size.filter(|size| *size >= LEAST_SIZE)?, took.pulling)))
        .map(|(size, pulling)| size.0 as f64 / pulling.as_secs_f64())
        .collect();
    if rates.len() < LEAST_PULLS {
        return None;
    }
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    (median < node_rate * SHARE).then(|| Slow {
        cause: Cause::DiskUnpack,
        seen: format!(
            "half of the newest {} pulls were slower than {}; nodes measure {} from this registry (cluster.node_rates_mbit)",
            rates.len(),
            Mbit(median),
            Mbit(node_rate)
        ),
    })
}

fn mean(durations: impl ExactSizeIterator<Item = Duration>) -> Option<Duration> {
    let count = u32::try_from(durations.len()).ok().filter(|n| *n > 0)?;
    Some(durations.sum::<Duration>() / count)
}
