//! Rules for the download rate of layers: what limits it, what that means for the pull, and the fix.

use std::time::Duration;

use super::finding::{at, server};
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::throughput::rate;
use crate::diagnose::throughput::{self, Throughput};
use crate::diagnose::throughput::{Bound, MissingOption, Side};
use crate::model::evidence::Evidence;
use crate::model::fault::{HttpFault, Phase};
use crate::model::path::{EipOf, PathClass};
use crate::model::transfer::{StreamEnd, TransferEnd, TransferStream};
use crate::model::units::HumanDuration;

/// A pull of this length is acceptable unless another expectation is set.
const BEARABLE: Duration = Duration::from_mins(1);

/// Kubernetes' default for a Deployment's progressDeadlineSeconds.
const PROGRESS_DEADLINE: Duration = Duration::from_mins(10);

/// containerd aborts a pull without progress (image_pull_progress_timeout).
const NO_PROGRESS: &str = "containerd aborts a pull after 5 minutes without a byte \
                           (image_pull_progress_timeout); a slow download alone never does that";

/// What limits the rate.
pub(super) fn bound(evidence: &Evidence) -> Option<Finding> {
    let (judged, bound) = throughput::judge_with_bound(evidence)?;
    let bound = bound?;
    // A limit that does not hurt is worth knowing, but not a warning.
    let is_borne = judged
        .pull_seconds
        .is_none_or(|seconds| seconds <= expected(evidence).unwrap_or(BEARABLE).as_secs_f64());
    let is_felt = !is_borne && bound.cause != Cause::BwSelf;
    Some(
        at(bound.cause, throughput::leg_of(evidence), Phase::Blob)
            .severity(Severity::warning_if(is_felt))
            .confidence(bound.confidence)
            .hint(hint(evidence, &judged, &bound))
            .facts(bound.facts),
    )
}

/// The expected duration of a pull, if one was given.
fn expected(evidence: &Evidence) -> Option<Duration> {
    evidence.walk.transfer.as_ref()?.expected_within
}

fn hint(evidence: &Evidence, judged: &Throughput, bound: &Bound) -> String {
    let needed = needed_bandwidth(evidence, judged);
    let is_ours = bound.is_ours;
    match bound.cause {
        Cause::BwWindow if let Some(missing) = bound.missing => switch_on(evidence, missing),
        Cause::BwLoss if let Some(missing) = bound.missing => {
            format!("{} {LOSSES}", switch_on(evidence, missing))
        }
        Cause::BwEipCap => format!("{}{needed}; or {NEARER}.", more_for_eip(evidence)),
        Cause::BwCap if is_ours => format!(
            "Buy bandwidth for the egress of this machine (its EIP, the EIP of the NAT gateway, a shared bandwidth, or the line){needed}; or {NEARER}."
        ),
        Cause::BwCap => format!(
            "Find out first on which side the limit is, as described above. If it is on this side, buy bandwidth{needed}; if it is the registry's, ask its operator, or {NEARER}."
        ),
        Cause::BwPerFlow => "Download more layers at once: max_concurrent_downloads in containerd's configuration (3 unless set), or parts of a layer at once (concurrent_layer_fetch_buffer, containerd 2.1); or ask the registry's operator about the limit.".to_owned(),
        Cause::BwWindow if is_ours => "Raise the third value of net.ipv4.tcp_rmem on the node (in bytes; the desired rate times the round-trip time), or use a nearer registry.".to_owned(),
        Cause::BwWindow => "Ask the registry's operator for larger send buffers (net.ipv4.tcp_wmem there), or use a nearer registry; more layers at once (max_concurrent_downloads) help meanwhile.".to_owned(),
        Cause::BwLoss => LOSSES.to_owned(),
        Cause::BwThrottle => format!(
            "For large images, {NEARER}, or find out whose limit it is: the registry's, the CDN's or the gateway's. Small images are not affected."
        ),
        Cause::BwRemote => format!("Don't buy bandwidth, it does not help: {NEARER}, or ask the registry's operator."),
        Cause::BwUplink => "Find the program that uploads (`ss -tinp state established` lists the connections and what they sent), and limit its rate or let it run at another time; or buy more upstream bandwidth.".to_owned(),
        Cause::BwNode => "Use an instance type with more bandwidth, or spread large images over more nodes.".to_owned(),
        _ => "Give this program more CPU, or check again when the machine is less busy: these rates are what it could read, not what the path delivers.".to_owned(),
    }
}

const LOSSES: &str = "Report these figures to the operator of the network (the cloud, or the line): a good path loses less than 0.01 % of packets. More layers at once (max_concurrent_downloads) help meanwhile.";

/// How to switch an option of TCP on that these connections do without.
fn switch_on(evidence: &Evidence, missing: MissingOption) -> String {
    let (name, setting, side) = match missing {
        MissingOption::WindowScaling(side) => {
            ("window scaling", "net.ipv4.tcp_window_scaling", side)
        }
        MissingOption::Sack(side) => ("SACK", "net.ipv4.tcp_sack", side),
    };
    match side {
        Side::Here => format!(
            "Switch {name} on: set {setting}=1 on the node, and remove the line that sets it to 0 (in /etc/sysctl.conf or below /etc/sysctl.d). New connections use it."
        ),
        Side::There => format!(
            "Ask the operator of {} to switch {name} on ({setting}=1 on the server and its load balancer), or find the firewall that removes this TCP option.",
            server(evidence, throughput::leg_of(evidence))
        ),
        Side::Unknown => format!(
            "Run `sysctl {setting}` on the node: if it is 0, set it to 1. If it is 1, the server or a firewall on the path does without {name}."
        ),
    }
}

const NEARER: &str = "copy the image to a registry in this region and pull from its private address (SWR on Huawei Cloud)";

/// The bandwidth that would suffice, in parentheses; empty if the pull is fast enough.
fn needed_bandwidth(evidence: &Evidence, judged: &Throughput) -> String {
    let within = expected(evidence).unwrap_or(BEARABLE);
    let is_slow = judged
        .pull_seconds
        .is_some_and(|seconds| seconds > within.as_secs_f64());
    match bought_for(evidence, within).filter(|_| is_slow) {
        Some(mbit) => format!(
            " (this image needs {mbit:.0} Mbit/s to download in {})",
            HumanDuration(within)
        ),
        None => String::new(),
    }
}

/// The bandwidth that downloads all layers in time, in Mbit/s.
fn bought_for(evidence: &Evidence, within: Duration) -> Option<f64> {
    let size = evidence.walk.manifest.done()?.layers_size;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let needed = size.0 as f64 * 8.0 / 1e6 / within.as_secs_f64();
    // IP and TCP headers use bandwidth too.
    Some((needed / 0.95).ceil())
}

/// How to give the EIP that limits the rate more bandwidth.
fn more_for_eip(evidence: &Evidence) -> &'static str {
    let path = throughput::path_of(evidence);
    let (class, eip_of) = path.map_or((None, None), |p| (p.class, p.attributes.eip_of));
    match (class, eip_of) {
        (Some(PathClass::PublicEip), Some(EipOf::Pod)) if evidence.vantage.is_huawei() => {
            "Set yangtse.io/eip-bandwidth-size on the pod template above 10 (with 10 Mbit/s or less, an EIP receives at 10 anyway; running pods keep theirs), or share a larger bandwidth (yangtse.io/eip-bandwidth-id)"
        }
        (Some(PathClass::PublicEip), Some(EipOf::Pod)) => "Give the pod's EIP more bandwidth",
        (Some(PathClass::PublicEip), _) => {
            "Give the node's EIP more bandwidth (on Huawei Cloud more than 10 Mbit/s: with 10 or less, it receives at 10 anyway), or add it to a shared bandwidth"
        }
        _ => {
            "Give the EIP of the NAT gateway's SNAT rule more bandwidth: all nodes behind it share it"
        }
    }
}

/// A stream that received bytes and then stalled.
pub(super) fn stalled(evidence: &Evidence) -> Option<Finding> {
    let transfer = evidence.walk.transfer.as_ref()?;
    let is_silent = |stream: &&TransferStream| {
        let of_all = stream.bytes.0 > 0;
        let waited = stream.silent.is_some_and(|silent| silent >= SILENT);
        let failed = matches!(
            stream.end,
            StreamEnd::Failed {
                fault: HttpFault::Stalled { .. }
            }
        );
        of_all && (waited || failed)
    };
    let silent: Vec<&TransferStream> = transfer.streams.iter().filter(is_silent).collect();
    // A stream that waits while others use the whole bandwidth does not count; one that was aborted does.
    let mut running = transfer.streams.iter().filter_map(|s| s.silent);
    let all_are_silent = running.all(|silent| silent >= QUIET);
    let given_up = |stream: &&&TransferStream| stream.silent.is_none();
    let first = silent.iter().find(|s| all_are_silent || given_up(s))?;
    let longest = first.longest_stall;
    Some(
        at(Cause::PullNoProgress, throughput::leg_of(evidence), Phase::Blob)
            .severity(Severity::Warning)
            .confidence(Confidence::high_if(silent.len() > 1))
            .fact(format!(
                "layer {} from {}: {} arrived, then not a byte for {}, when the test ended",
                first.digest,
                first.endpoint,
                first.bytes,
                HumanDuration(longest)
            ))
            .fact(format!(
                "{} of {} streams stalled like that",
                silent.len(),
                transfer.streams.len()
            ))
            .fact(NO_PROGRESS)
            .hint(format!(
                "Check {} and the load balancer, proxy or firewall in front of it for connections that stall; `pullpath probe --transfer full --timeout 6m` shows whether the stall lasts 5 minutes.",
                first.endpoint
            )),
    )
}

/// A shorter stall may be a lost packet, with slow start after it.
const SILENT: Duration = Duration::from_secs(2);
/// A stream that began later has not been silent for as long.
const QUIET: Duration = Duration::from_millis(500);

/// The first byte of a layer is late, and the rest is not.
pub(super) fn first_byte(evidence: &Evidence) -> Option<Finding> {
    let transfer = evidence.walk.transfer.as_ref()?;
    // Without CPU time, this program is late with everything.
    if throughput::judge(evidence).is_some_and(|judged| judged.disturbed.is_some()) {
        return None;
    }
    let late = transfer.streams.iter().find_map(|stream| {
        let trip = stream.min_rtt.unwrap_or_default();
        let touch = stream.first_touch?;
        (touch >= LATE.max(trip * 10)).then_some((stream, touch))
    });
    let (stream, touch) = late?;
    let from = format!("layer {} from {}", stream.digest, stream.endpoint);
    let finding = at(Cause::TtfbSlow, throughput::leg_of(evidence), Phase::Blob)
        .fact(format!(
            "{from}: {} for the first byte",
            HumanDuration(touch)
        ))
        .facts(stream.min_rtt.map(|trip| {
            format!(
                "the round-trip time to that server is {}",
                HumanDuration(trip)
            )
        }));
    let finding = match stream.first_byte {
        Some(again) if again * 4 <= touch => finding
            .severity(Severity::Info)
            .confidence(Confidence::Medium)
            .fact(format!(
                "requested again, it took {}: the server had it ready by then, a cold cache",
                HumanDuration(again)
            ))
            .hint("Do nothing if layers are pulled often; otherwise use a pull-through cache nearer to their storage."),
        Some(again) => finding
            .fact(format!(
                "requested again, it took {}: no cache helps, its storage is slow to open a layer",
                HumanDuration(again)
            ))
            .hint(format!(
                "Ask the operator of {} about its storage; every layer of every pull waits this long.",
                stream.endpoint
            )),
        None => finding
            .confidence(Confidence::Low)
            .hint(format!("Ask the operator of {} about its storage.", stream.endpoint)),
    };
    Some(finding)
}

const LATE: Duration = Duration::from_secs(1);

/// The layers take longer than allowed. Only a sustained rate shows that, or one that is far too low: a
/// short test may have seen slow start.
pub(super) fn low(evidence: &Evidence) -> Option<Finding> {
    let transfer = evidence.walk.transfer.as_ref()?;
    let (judged, found) = (throughput::judge(evidence)?, evidence.walk.manifest.done()?);
    let rate = throughput::best(judged.one, judged.all)?;
    let mut seconds = judged.pull_seconds?;
    let (within, whose) = limit(evidence);
    let times = |seconds: f64| seconds / within.as_secs_f64();
    let is_sure = rate.is_sustained && times(seconds) > 1.0;
    let is_long = transfer.end == TransferEnd::TimeLimit && transfer.took >= Duration::from_secs(3);
    if is_long && !rate.is_sustained {
        // From all bytes in the whole time, the wait for the first byte included.
        let bytes: u64 = transfer.streams.iter().map(|stream| stream.bytes.0).sum();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let share = bytes.max(1) as f64 / found.layers_size.0.max(1) as f64;
        seconds = transfer.took.as_secs_f64() / share;
    }
    let is_far = is_long && judged.disturbed.is_none() && times(seconds) > 2.0;
    if !is_sure && !is_far {
        return None;
    }
    let leg = throughput::leg_of(evidence);
    let seen = if rate.is_sustained {
        format!(
            "{} sustained, between {} and {}",
            rate::mbit(rate.bytes_per_second),
            rate::mbit(rate.low_bytes_per_second),
            rate::mbit(rate.high_bytes_per_second)
        )
    } else {
        format!(
            "{} over {}; whether that lasts is unknown",
            rate::mbit(rate.bytes_per_second),
            HumanDuration(transfer.took)
        )
    };
    let bought = bought_for(evidence, within)?;
    Some(
        at(Cause::ThroughputLow, leg, Phase::Blob)
            .confidence(Confidence::Medium)
            .fact(seen)
            .fact(format!(
                "the {} of this platform's layers take about {}, without unpacking; the limit is {} ({whose})",
                found.layers_size,
                HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)),
                HumanDuration(within)
            ))
            .hint(low_hint(evidence, bought)),
    )
}

/// How long a pull may take, and the source of that limit.
fn limit(evidence: &Evidence) -> (Duration, String) {
    if let Some(within) = expected(evidence) {
        return (within, "the expected time given for this check".to_owned());
    }
    let deadlines = evidence.pods.iter();
    let shortest = deadlines
        .filter_map(|pod| Some((pod.progress_deadline?, pod)))
        .min_by_key(|(deadline, _)| *deadline);
    match shortest {
        Some((deadline, pod)) => (
            deadline,
            format!("progressDeadlineSeconds of {}", pod.place()),
        ),
        None => (
            PROGRESS_DEADLINE,
            "the default of a Deployment's progressDeadlineSeconds".to_owned(),
        ),
    }
}

fn low_hint(evidence: &Evidence, mbit: f64) -> String {
    let path = throughput::path_of(evidence);
    if let Some(PathClass::PublicEip | PathClass::PublicSnat) = path.as_ref().and_then(|p| p.class)
    {
        let more = more_for_eip(evidence);
        return format!(
            "This node alone needs {mbit:.0} Mbit/s. If the EIP limits it (a bw_ finding shows that): {more}; or {NEARER}."
        );
    }
    let from = path.map_or_else(String::new, |path| format!(" from {}", path.endpoint));
    format!("The pull needs {mbit:.0} Mbit/s{from}: remove what limits the rate; or {NEARER}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::fixture;
    use crate::model::transfer::{Arrival, Stage, StageKind, Transfer};
    use crate::model::units::Bytes;
    use crate::model::workload::{ContainerKind, PodUse, PullPolicy};

    fn stream() -> TransferStream {
        TransferStream {
            endpoint: fixture::endpoint("blobs.example.com"),
            to: "203.0.113.9:443".parse().unwrap(),
            digest: "sha256:ab".to_owned(),
            connection: 0,
            first_byte: Some(Duration::from_millis(30)),
            first_touch: Some(Duration::from_millis(30)),
            offset: Bytes(0),
            bytes: Bytes(1_000_000),
            min_rtt: Some(Duration::from_millis(20)),
            options: None,
            bursts: None,
            longest_stall: Duration::ZERO,
            silent: None,
            end: StreamEnd::Stopped,
            samples: Vec::new(),
        }
    }

    /// One stream that had 1 MB/s for so long.
    fn transfer(seconds: u64) -> Transfer {
        let arrival = |tick: u64| Arrival {
            at: Transfer::TICK * u32::try_from(tick).unwrap(),
            bytes: Bytes(25_000 * tick),
        };
        Transfer {
            started: fixture::now(),
            max_bytes: Bytes(16 << 20),
            max_duration: Duration::from_secs(5),
            expected_within: None,
            stages: vec![Stage {
                kind: StageKind::OneStream,
                from: Duration::ZERO,
                streams: 1,
                connections: 1,
            }],
            streams: vec![stream()],
            connections: 1,
            connections_tried: 1,
            not_connected: Vec::new(),
            arrivals: (0..=seconds * 40).map(arrival).collect(),
            pings: None,
            control: None,
            device: None,
            tcp_settings: None,
            round_trips_before: Vec::new(),
            cpu: None,
            end: TransferEnd::Stable,
            took: Duration::from_secs(seconds),
        }
    }

    fn findings(rule: fn(&Evidence) -> Option<Finding>, transfer: Transfer) -> Vec<Finding> {
        let mut evidence = fixture::healthy();
        evidence.walk.transfer = Some(transfer);
        rule(&evidence).into_iter().collect()
    }

    #[test]
    fn silence_at_the_end_is_reported_unless_others_go_on() {
        let silent = |millis: u64| TransferStream {
            silent: Some(Duration::from_millis(millis)),
            longest_stall: Duration::from_millis(millis),
            ..stream()
        };
        let of = |streams: Vec<TransferStream>| {
            let transfer = Transfer {
                streams,
                ..transfer(3)
            };
            findings(stalled, transfer)
        };
        assert!(of(vec![silent(1900)]).is_empty());
        assert_eq!(of(vec![silent(2100)])[0].confidence, Confidence::Medium);
        assert!(of(vec![silent(2100), silent(20)]).is_empty(), "one goes on");
        // One that began later has not been silent for as long.
        assert_eq!(of(vec![silent(2100), silent(700)]).len(), 1);
        let both = of(vec![silent(2100), silent(2500)]);
        assert_eq!(both[0].confidence, Confidence::High);
        assert_eq!(both[0].severity, Severity::Warning);
        let nothing = TransferStream {
            bytes: Bytes(0),
            ..silent(4000)
        };
        assert!(of(vec![nothing]).is_empty(), "it never began");
        let given_up = TransferStream {
            end: StreamEnd::Failed {
                fault: HttpFault::Stalled {
                    after: Bytes(1_000_000),
                },
            },
            ..stream()
        };
        assert_eq!(of(vec![given_up, silent(20)]).len(), 1);
    }

    #[test]
    fn a_late_first_byte_is_a_cold_cache_or_slow_storage() {
        let of = |touch: u64, again: Option<u64>| {
            let mut transfer = transfer(3);
            transfer.streams[0].first_touch = Some(Duration::from_millis(touch));
            transfer.streams[0].first_byte = again.map(Duration::from_millis);
            findings(first_byte, transfer)
        };
        assert!(of(900, Some(900)).is_empty());
        let cold = &of(2000, Some(40))[0];
        assert_eq!(cold.severity, Severity::Info);
        assert!(cold.evidence.iter().any(|fact| fact.contains("cold cache")));
        let slow = &of(2000, Some(1900))[0];
        assert_eq!(slow.severity, Severity::Warning);
        assert!(
            slow.evidence
                .iter()
                .any(|fact| fact.contains("slow to open"))
        );
        assert_eq!(of(2000, None)[0].confidence, Confidence::Low);
        // Far away everything is late.
        let mut far = transfer(3);
        far.streams[0].first_touch = Some(Duration::from_millis(1200));
        far.streams[0].min_rtt = Some(Duration::from_millis(300));
        assert!(findings(first_byte, far).is_empty());
    }

    #[test]
    fn what_is_allowed_is_what_was_asked_for_or_the_rollouts_deadline() {
        // 3 MiB at 1 MB/s take three seconds.
        assert!(findings(low, transfer(3)).is_empty());
        let mut evidence = fixture::healthy();
        evidence.walk.transfer = Some(transfer(3));
        let mut says = |deadline: Option<u64>, expected: Option<u64>| {
            evidence.pods = vec![PodUse {
                path: "foo.yaml".to_owned(),
                kind: "Deployment".to_owned(),
                namespace: None,
                name: "foo".to_owned(),
                found_at: None,
                container: "c".to_owned(),
                container_kind: ContainerKind::Container,
                policy: PullPolicy::Always,
                policy_is_default: false,
                image_present: false,
                pull_secrets: Vec::new(),
                service_account: None,
                eip: Vec::new(),
                progress_deadline: deadline.map(Duration::from_secs),
                secrets: Vec::new(),
            }];
            if let Some(transfer) = &mut evidence.walk.transfer {
                transfer.expected_within = expected.map(Duration::from_secs);
            }
            low(&evidence).map(|finding| finding.evidence.join("\n"))
        };
        assert_eq!(says(None, None), None);
        let by_deadline = says(Some(2), None).unwrap();
        assert!(
            by_deadline.contains("progressDeadlineSeconds of Deployment foo"),
            "{by_deadline}"
        );
        assert_eq!(says(Some(2), Some(4)), None, "who asks knows better");
        assert!(
            says(None, Some(2))
                .unwrap()
                .contains("given for this check")
        );
    }

    #[test]
    fn a_limit_that_hurts_nobody_is_no_warning() {
        let capped = |expected: Option<u64>| {
            let mut transfer = transfer(3);
            transfer.expected_within = expected.map(Duration::from_secs);
            transfer.stages.push(Stage {
                kind: StageKind::AsContainerd,
                from: Duration::from_millis(1500),
                streams: 3,
                connections: 3,
            });
            transfer.pings = Some(crate::model::transfer::Pings {
                idle: vec![Duration::from_millis(20)],
                loaded: (2..9)
                    .map(|i| crate::model::transfer::TransferPing {
                        at: Duration::from_millis(250 * i),
                        took: Duration::from_millis(80),
                        is_unanswered: false,
                    })
                    .collect(),
            });
            let found = findings(bound, transfer);
            assert_eq!(found[0].cause, Cause::BwCap, "{found:?}");
            found[0].severity
        };
        assert_eq!(capped(None), Severity::Info);
        assert_eq!(capped(Some(2)), Severity::Warning);
    }
}
