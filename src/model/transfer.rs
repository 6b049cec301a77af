//! What a transfer of real layers looked like: bytes by time, and what the kernel said meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::fault::HttpFault;
use super::units::{Bytes, ListOfSeconds, OptionalSeconds, Seconds};

/// A transfer test.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Transfer {
    /// By the local clock.
    #[serde(alias = "began")]
    pub started: Timestamp,
    /// It was to end at these bytes, or after this time.
    pub max_bytes: Bytes,
    #[serde(rename = "max_duration_seconds", with = "Seconds")]
    pub max_duration: Duration,
    /// How long the pull of the image may take, by whoever asked.
    #[serde(
        rename = "expected_within_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub expected_within: Option<Duration>,
    /// More and more of the way is used, one stage after the other.
    pub stages: Vec<Stage>,
    pub streams: Vec<TransferStream>,
    /// TCP connections that carried them.
    pub connections: usize,
    /// Bytes of all streams together, by the time since the first byte: of TCP (`tcpi_bytes_received`)
    /// where the kernel tells, else of the layers.
    pub arrivals: Vec<Arrival>,
    /// Small requests on a connection of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pings: Option<Pings>,
    /// A host elsewhere, read at the same time in the last stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlTransfer>,
    /// All that came in through the network device which the bytes took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceTraffic>,
    /// What this process had of the processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuUse>,
    pub end: TransferEnd,
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
}

impl Transfer {
    /// How often bytes are counted.
    pub const TICK: Duration = Duration::from_millis(25);

    /// A series of a minute; a full pull of hours is counted no longer.
    pub const MAX_ARRIVALS: usize = 2400;

    /// What was read of layers, and of a control host.
    pub fn bytes(&self) -> Bytes {
        let control = self
            .control
            .as_ref()
            .and_then(|control| control.arrivals.last());
        let streams = self.streams.iter().map(|stream| stream.bytes.0);
        Bytes(streams.chain(control.map(|last| last.bytes.0)).sum())
    }
}

/// Why it ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferEnd {
    /// The rate was known.
    Stable,
    /// There were no more bytes to spend.
    #[serde(alias = "bytes_spent")]
    ByteLimit,
    #[serde(alias = "time_spent")]
    TimeLimit,
    /// All layers were read.
    Complete,
    /// No stream was left.
    Failed,
    /// Others had to wait for our bytes, for long.
    Harmful,
    /// Others used the same device, a pull perhaps.
    Disturbed,
}

/// A part of the test with the same use of the way.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Stage {
    pub kind: StageKind,
    /// Since the first byte.
    #[serde(rename = "from_seconds", with = "Seconds")]
    pub from: Duration,
    /// How many were reading as it began.
    pub streams: usize,
    /// How many TCP connections they had.
    pub connections: usize,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// One layer alone.
    OneStream,
    /// As many as containerd reads at the same time, each over a connection of its own.
    AsContainerd,
    /// Made by versions that spoke HTTP/2 and are read in their reports: as many streams, which had
    /// shared a connection before, each over one of its own.
    OwnConnections,
    /// The same, and a host elsewhere.
    WithControl,
}

/// The time from a small request to its answer, while nothing else was going on and while layers came.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Pings {
    #[serde(rename = "idle_seconds", with = "ListOfSeconds")]
    pub idle: Vec<Duration>,
    pub loaded: Vec<TransferPing>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TransferPing {
    /// When it was asked, since the first byte.
    #[serde(rename = "at_seconds", with = "Seconds")]
    pub at: Duration,
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
    /// The test ended before the answer came: it took longer than this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unanswered: bool,
}

/// What a control host gave.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ControlTransfer {
    pub endpoint: Endpoint,
    /// Why there are no bytes, or no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// By the same clock as those of the layers.
    pub arrivals: Vec<Arrival>,
}

/// Received bytes of a network device (`/proc/net/dev`), at the first byte and since.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct DeviceTraffic {
    pub device: String,
    pub arrivals: Vec<Arrival>,
}

/// The processor time of the thread that reads, while layers came.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct CpuUse {
    #[serde(rename = "used_seconds", with = "Seconds")]
    pub used: Duration,
    /// How long the cgroup's limit held it back (`cpu.stat`); absent: no cgroup tells.
    #[serde(
        rename = "throttled_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub throttled: Option<Duration>,
    /// Over this time.
    #[serde(rename = "over_seconds", with = "Seconds")]
    pub over: Duration,
}

/// All bytes that had come by a time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Arrival {
    #[serde(rename = "at_seconds", with = "Seconds")]
    pub at: Duration,
    pub bytes: Bytes,
}

/// One layer, read by one request.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TransferStream {
    pub endpoint: Endpoint,
    pub to: SocketAddr,
    pub digest: String,
    /// Which of the connections carried it; another stream may have used it before.
    pub connection: usize,
    /// From the request to the first byte of the answer's head.
    #[serde(rename = "first_byte_seconds", with = "OptionalSeconds")]
    pub first_byte: Option<Duration>,
    /// The same of the question for two bytes of this layer before: the first that its server heard of
    /// it. Absent where that went over several hosts.
    #[serde(
        rename = "first_touch_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub first_touch: Option<Duration>,
    /// Where in the layer it began.
    #[serde(default)]
    pub offset: Bytes,
    pub bytes: Bytes,
    /// `tcpi_min_rtt` of its connection.
    #[serde(
        rename = "min_rtt_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub min_rtt: Option<Duration>,
    /// How its bytes came in bursts, where they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bursts: Option<Bursts>,
    /// The longest time without a byte, from the first byte to the end of the test.
    #[serde(rename = "longest_stall_seconds", with = "Seconds")]
    pub longest_stall: Duration,
    /// No byte had come for so long when the test ended.
    #[serde(
        rename = "silent_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub silent: Option<Duration>,
    pub end: StreamEnd,
    pub samples: Vec<StreamSample>,
}

/// A sender that waits for something before it goes on: for acknowledgements, one round trip each
/// time, where its window is full; for its own clock where it paces.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Bursts {
    pub count: usize,
    /// Medians: of what comes in one, and from the beginning of one to that of the next.
    pub bytes: Bytes,
    #[serde(rename = "period_seconds", with = "Seconds")]
    pub period: Duration,
}

/// What became of a stream.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StreamEnd {
    /// The whole layer; whether it is what its digest says.
    Complete {
        digest_matches: bool,
    },
    /// It had told enough.
    Stopped,
    Failed {
        fault: HttpFault,
    },
}

/// TCP_INFO of a stream's connection (linux/tcp.h), and what nobody had read yet.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct StreamSample {
    #[serde(rename = "at_seconds", with = "Seconds")]
    pub at: Duration,
    /// `tcpi_bytes_received`.
    pub received: Option<Bytes>,
    /// FIONREAD: many mean that the reader is slow.
    pub unread: Option<Bytes>,
    /// `tcpi_rcv_rtt`.
    #[serde(rename = "receive_rtt_seconds", with = "OptionalSeconds")]
    pub receive_rtt: Option<Duration>,
    /// `tcpi_rcv_space`.
    pub receive_space: Option<Bytes>,
    /// `tcpi_rcv_ssthresh`: the window that is offered to the sender at most.
    #[serde(default)]
    pub receive_window: Option<Bytes>,
    /// `tcpi_data_segs_in`.
    pub data_segments_in: Option<u32>,
    /// `tcpi_rcv_ooopack`.
    pub out_of_order: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_of_older_reports_are_read() {
        let stage = r#"{"kind":"own_connections","from_seconds":1.5,"streams":5,"connections":3}"#;
        let stage: Stage = serde_json::from_str(stage).unwrap();
        assert_eq!(stage.kind, StageKind::OwnConnections);
    }
}
