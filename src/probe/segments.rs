//! Tests whether large packets are lost on the path, after an exchange stalled that had started well.

use super::leg::{Connections, StalledExchange};
use crate::model::evidence::{SegmentTrial, SegmentTrials};
use crate::model::units::Bytes;

/// The segment size of the trials. Below 1100 bytes with headers, which fits any IPv6 tunnel (1280, RFC 8200 5) and the
/// IPv4 tunnels in use; and above the size that filters drop as an attack with small segments (CVE-2019-11479).
const SMALL: u32 = 1000;

/// Enough of a response to fill several packets.
const ENOUGH: Bytes = Bytes(16 << 10);

/// The failure of the check, then small, normal, small: fail, pass, fail, pass is proof, and any other result ends the
/// test. On average that costs one more timeout.
pub(super) async fn test(lines: &Connections<'_>, suspect: StalledExchange) -> SegmentTrials {
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
