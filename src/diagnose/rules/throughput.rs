//! What the rate of layers means for the pull.

use std::time::Duration;

use super::at;
use crate::diagnose::cause::Cause;
use crate::diagnose::throughput;
use crate::diagnose::{Confidence, Finding, path};
use crate::model::endpoint::Role;
use crate::model::evidence::Evidence;
use crate::model::fault::Phase;
use crate::model::path::{EipOf, PathClass};
use crate::model::units::Took;

/// The layers take longer than they may. Only a rate that lasts says so: one that was seen for a
/// moment may have been slow start, or a burst.
pub(super) fn low(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let Some(transfer) = &evidence.walk.transfer else {
        return;
    };
    let (Some(within), Some(found)) = (transfer.expected_within, evidence.walk.manifest.done())
    else {
        return;
    };
    let Some(judged) = throughput::judge(evidence) else {
        return;
    };
    let rate = [judged.all, judged.one]
        .into_iter()
        .flatten()
        .find(|rate| rate.is_sustained);
    let (Some(rate), Some(seconds)) = (rate, judged.pull_seconds) else {
        return;
    };
    if seconds <= within.as_secs_f64() {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let needed = found.layers_size.0 as f64 / within.as_secs_f64();
    let mbit = |bytes_per_second: f64| bytes_per_second * 8.0 / 1e6;
    let is_storage = evidence.legs_of(Role::Blob).next().is_some();
    let leg = if is_storage {
        Role::Blob
    } else {
        Role::Registry
    };
    // Headers of IP and TCP are bought with the bytes.
    let bought = (mbit(needed) / 0.95).ceil();
    findings.push(
        at(Cause::ThroughputLow, leg, Phase::Blob)
            .confidence(Confidence::Medium)
            .fact(format!(
                "{:.1} Mbit/s last, within {:.1} to {:.1}",
                mbit(rate.bytes_per_second),
                mbit(rate.low_bytes_per_second),
                mbit(rate.high_bytes_per_second)
            ))
            .fact(format!(
                "the {} of this platform's layers take about {}, without unpacking; {} are allowed",
                found.layers_size,
                Took(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)),
                Took(within)
            ))
            .hint(hint(evidence, leg, bought)),
    );
}

fn hint(evidence: &Evidence, leg: Role, mbit: f64) -> String {
    let nearer =
        "or bring the image nearer: a copy in a registry of this region, by its private address";
    let path = path::classify(evidence)
        .into_iter()
        .rev()
        .find(|path| path.role == leg);
    let Some(path) = path else {
        return format!("It takes {mbit:.0} Mbit/s, {nearer}.");
    };
    let huawei = evidence
        .vantage
        .provider
        .as_ref()
        .is_some_and(|sign| sign.provider.is_huawei());
    match (path.class, path.attributes.eip_of) {
        (Some(PathClass::PublicEip), Some(EipOf::Pod)) if huawei => format!(
            "It takes {mbit:.0} Mbit/s. If the EIP is what bounds it: yangtse.io/eip-bandwidth-size: \"{:.0}\" on the pod template (up to 10 Mbit/s an EIP receives at 10 anyway), {nearer}.",
            mbit.max(11.0)
        ),
        (Some(PathClass::PublicEip), _) => format!(
            "It takes {mbit:.0} Mbit/s. If the EIP is what bounds it, give it that bandwidth, {nearer}."
        ),
        (Some(PathClass::PublicSnat), _) => format!(
            "It takes {mbit:.0} Mbit/s for this node alone. If the NAT gateway's EIP is what bounds it, which all nodes share, give it more, {nearer}."
        ),
        _ => format!(
            "It takes {mbit:.0} Mbit/s from {}; {nearer}.",
            path.endpoint
        ),
    }
}
