//! Do large packets vanish on the way? Asked where an exchange hung that had begun well.

use super::leg::{Connections, StalledExchange};
use crate::model::evidence::{SegmentTrial, SegmentTrials};
use crate::model::units::Bytes;

/// The bound of the trials: with headers below 1100 bytes, so through any tunnel of IPv6 (1280,
/// RFC 8200 5) and those of IPv4 that are in use; and above what filters drop as an attack on
/// small segments (CVE-2019-11479).
const SMALL: u32 = 1000;

/// As much of an answer as fills several packets.
const ENOUGH: Bytes = Bytes(16 << 10);

/// The failure of the walk, then small, usual, small: fail, pass, fail, pass is proof, and anything
/// else ends it. On average that costs one more timeout.
pub(super) async fn look(lines: &Connections<'_>, suspect: StalledExchange) -> SegmentTrials {
    let mut trials = vec![SegmentTrial {
        max_segment: None,
        fault: Some(suspect.fault.clone()),
        took: suspect.took,
    }];
    for (max_segment, passes) in [(Some(SMALL), true), (None, false), (Some(SMALL), true)] {
        let trial = lines.trial(&suspect, max_segment, ENOUGH).await;
        let passed = trial.fault.is_none();
        trials.push(trial);
        if passed != passes {
            break;
        }
    }
    SegmentTrials {
        role: suspect.role,
        phase: suspect.phase,
        endpoint: suspect.endpoint,
        to: suspect.to,
        trials,
    }
}
