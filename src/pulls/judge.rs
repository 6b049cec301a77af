//! Why pulls that succeed are slow, as far as their times tell: they wait for one another, or the node
//! can't unpack as fast as its network brings. Never that the network is slow: that is for a check to say.

use std::time::Duration;

use super::event::PullTimes;
use crate::diagnose::catalogue::Cause;
use crate::model::units::{Bytes, HumanDuration as Shown, Mbit};

/// Why pulls are slow, and by what figures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Slow {
    /// `serial_pull` or `disk_unpack`.
    pub cause: Cause,
    pub seen: String,
}

/// One pull is chance; the third of three is none.
const LEAST_PULLS: usize = 3;

/// A wait that nobody minds: a third of the kubelet's first back-off of 10 s.
const LEAST_WAIT: Duration = Duration::from_secs(3);

/// Pulls of less are over before a disk matters.
const LEAST_SIZE: Bytes = Bytes(10 << 20);

/// And those that take less time: handshakes and manifests are a part of it.
pub(super) const LEAST_PULLING: Duration = Duration::from_secs(5);

/// Unpacking takes its time on a good disk too, and goes on beside the download; below a third of what the
/// network brings, it is what a pull waits for. (100 Mbit/s bring 12 MB/s; a disk that takes 4 MB/s of
/// compressed layers is slow.)
const SHARE: f64 = 1.0 / 3.0;

/// Judges the newest pulls of a node from a registry. `node_rate` is what nodes measure of that registry, in
/// bytes per second, where somebody knows it: the rate of another one tells nothing of the way to this.
pub fn judge(pulls: &[PullTimes], node_rate: Option<f64>) -> Option<Slow> {
    waits(pulls).or_else(|| unpacks(pulls, node_rate?))
}

/// More of the time is waiting than pulling.
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
            "the newest {} pulls waited {} for other pulls, and then took {}, on average",
            known.len(),
            Shown(waiting),
            Shown(pulling)
        ),
    })
}

/// The whole image at a fraction of the rate that the network has. The size may be that on the disk, and
/// layers that were there already did not have to come: both make the real pull look faster than it was, so
/// that nothing is told which is not so.
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
            "half of the newest {} pulls came to less than {}, and nodes measure {} of this registry (cluster.node_rates_mbit)",
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
