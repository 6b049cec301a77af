//! Evidence of a transfer test: bytes over time, and what the kernel reported meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::fault::{HttpFault, Phase, TlsFault};
use super::units::{Bytes, ListOfSeconds, OptionalSeconds, Seconds};

/// A transfer test: a bounded download of real layers.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Transfer {
    /// When the test started, by the local clock.
    #[serde(alias = "began")]
    pub started: Timestamp,
    /// Maximum number of bytes that the test may read.
    pub max_bytes: Bytes,
    /// Maximum duration of the test.
    #[serde(rename = "max_duration_seconds", with = "Seconds")]
    pub max_duration: Duration,
    /// How long a pull of the image may take, as required for this check; absent if nothing was required.
    #[serde(
        rename = "expected_within_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub expected_within: Option<Duration>,
    /// The stages, in order; each uses more of the path than the one before.
    pub stages: Vec<Stage>,
    /// The layers that were read.
    pub streams: Vec<TransferStream>,
    /// Number of TCP connections that carried them.
    pub connections: usize,
    /// Number of connections that the test tried to open.
    #[serde(default)]
    pub connections_tried: usize,
    /// Those that could not be opened, beside others to the same address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_connected: Vec<NotConnected>,
    /// Bytes of all streams together, over the time since the first byte: those of TCP (`tcpi_bytes_received`)
    /// if the kernel reports them, else those of the layers.
    pub arrivals: Vec<Arrival>,
    /// Small requests on a separate connection; absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pings: Option<Pings>,
    /// A host elsewhere that was read at the same time, in the last stage; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlTransfer>,
    /// All bytes received by the network device that the layers arrived on; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceTraffic>,
    /// This network namespace's settings of TCP; absent in reports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_settings: Option<TcpSettings>,
    /// `tcpi_rtt` of connections to the server of the first layer, of the check and of the test, when they had just been
    /// opened, before the first byte of a layer.
    #[serde(
        rename = "round_trips_before_seconds",
        with = "ListOfSeconds",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub round_trips_before: Vec<Duration>,
    /// CPU time of this process; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuUse>,
    /// Why the test ended.
    pub end: TransferEnd,
    /// How long the test took.
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
}

impl Transfer {
    /// Interval at which bytes are counted.
    pub const TICK: Duration = Duration::from_millis(25);

    /// Maximum number of entries in a series: a minute. A longer download is not counted beyond that.
    pub const MAX_ARRIVALS: usize = 2400;

    /// The bytes read, from layers and from a control host.
    pub fn bytes(&self) -> Bytes {
        let control = self
            .control
            .as_ref()
            .and_then(|control| control.arrivals.last());
        let streams = self.streams.iter().map(|stream| stream.bytes.0);
        Bytes(streams.chain(control.map(|last| last.bytes.0)).sum())
    }
}

/// A connection that could not be opened.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NotConnected {
    /// The address and port.
    pub to: SocketAddr,
    /// The phase that failed.
    pub phase: Phase,
    /// Why.
    pub reason: String,
    /// It failed because nothing was received in time.
    pub is_silent: bool,
    /// How its TLS handshake failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFault>,
}

/// Why a transfer test ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferEnd {
    /// The rate was stable.
    Stable,
    /// The maximum number of bytes was read.
    #[serde(alias = "bytes_spent")]
    ByteLimit,
    /// The maximum duration was reached.
    #[serde(alias = "time_spent")]
    TimeLimit,
    /// All layers were read to their end.
    Complete,
    /// Every stream failed.
    Failed,
    /// The test slowed others down: for a while, small requests took much longer than on an idle path.
    Harmful,
    /// Other traffic, perhaps a pull, used the same network device.
    Disturbed,
}

/// A part of the test with the same number of streams.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Stage {
    /// What is read in it.
    pub kind: StageKind,
    /// When it started, since the first byte.
    #[serde(rename = "from_seconds", with = "Seconds")]
    pub from: Duration,
    /// Number of streams at its start.
    pub streams: usize,
    /// Number of TCP connections of these streams.
    pub connections: usize,
}

/// What a stage of the test reads.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// One layer at a time.
    OneStream,
    /// As many layers as containerd reads at the same time, each over its own connection.
    AsContainerd,
    /// Only in reports of older versions, which used HTTP/2: as many streams, which had shared a connection
    /// before, each over its own connection.
    OwnConnections,
    /// The same, and a control host elsewhere.
    WithControl,
}

/// The time from a small request to its answer, on the idle path and while layers are downloaded.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Pings {
    /// On the idle path, before the first layer.
    #[serde(rename = "idle_seconds", with = "ListOfSeconds")]
    pub idle: Vec<Duration>,
    /// While layers are downloaded.
    pub loaded: Vec<TransferPing>,
}

/// One small request during the download.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TransferPing {
    /// When it was sent, since the first byte.
    #[serde(rename = "at_seconds", with = "Seconds")]
    pub at: Duration,
    /// The time until the answer.
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
    /// The test ended before the answer arrived: it took longer than `took_seconds`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unanswered: bool,
}

/// The download from a control host.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ControlTransfer {
    /// The control host.
    pub endpoint: Endpoint,
    /// Why there are no bytes, or no more; absent if nothing failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Its bytes over time, with the same clock as those of the layers.
    pub arrivals: Vec<Arrival>,
}

/// Settings of TCP in a network namespace (`/proc/sys/net/ipv4`). A value is absent if it can't be read.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TcpSettings {
    /// `tcp_window_scaling`: whether windows of more than 64 KiB are offered.
    pub window_scaling: Option<bool>,
    /// `tcp_sack`: whether selective acknowledgements are offered.
    pub sack: Option<bool>,
    /// `tcp_timestamps`: whether timestamps are offered.
    pub timestamps: Option<bool>,
}

/// What both sides of a connection agreed on in its handshake (`tcpi_options`). An option is off if one side did not
/// offer it, or if something between them removed it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TcpOptions {
    /// Timestamps (RFC 7323).
    pub timestamps: bool,
    /// Selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Window scaling (RFC 7323): without it, a window has 64 KiB at most.
    pub window_scaling: bool,
}

/// Bytes that a network device (`/proc/net/dev`) received and sent since the first byte.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct DeviceTraffic {
    /// Name of the device.
    pub device: String,
    /// The bytes that it received, over time.
    pub arrivals: Vec<Arrival>,
    /// The bytes that it sent, over time; absent in reports of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<Arrival>,
}

/// CPU time of the thread that reads, during the download.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct CpuUse {
    /// CPU time used.
    #[serde(rename = "used_seconds", with = "Seconds")]
    pub used: Duration,
    /// How long the cgroup's CPU limit throttled it (`cpu.stat`); absent if no cgroup reports it.
    #[serde(
        rename = "throttled_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub throttled: Option<Duration>,
    /// The time over which both were measured.
    #[serde(rename = "over_seconds", with = "Seconds")]
    pub over: Duration,
}

/// The number of bytes received until a time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Arrival {
    /// The time since the first byte.
    #[serde(rename = "at_seconds", with = "Seconds")]
    pub at: Duration,
    /// All bytes until then.
    pub bytes: Bytes,
}

/// One layer, read with one request.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TransferStream {
    /// The server that serves the layer.
    pub endpoint: Endpoint,
    /// Its address and port.
    pub to: SocketAddr,
    /// Digest of the layer.
    pub digest: String,
    /// Index of the connection that carried it; another stream may have used it before.
    pub connection: usize,
    /// From the request to the first byte of the answer's headers; absent if there was no answer.
    #[serde(rename = "first_byte_seconds", with = "OptionalSeconds")]
    pub first_byte: Option<Duration>,
    /// The same for the earlier request for two bytes of this layer, the first one that its server received for
    /// it. Absent if that request was redirected over several hosts.
    #[serde(
        rename = "first_touch_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub first_touch: Option<Duration>,
    /// Offset in the layer at which reading started, in bytes.
    #[serde(default)]
    pub offset: Bytes,
    /// Bytes of the layer that were read.
    pub bytes: Bytes,
    /// `tcpi_min_rtt` of its connection; absent if the kernel does not report it.
    #[serde(
        rename = "min_rtt_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub min_rtt: Option<Duration>,
    /// `tcpi_options` of its connection; absent if the kernel does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<TcpOptions>,
    /// The bursts in which its bytes arrived; absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bursts: Option<Bursts>,
    /// The longest time without a byte, between the first byte and the end of the test.
    #[serde(rename = "longest_stall_seconds", with = "Seconds")]
    pub longest_stall: Duration,
    /// How long no byte had arrived when the test ended; absent if it had ended before.
    #[serde(
        rename = "silent_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub silent: Option<Duration>,
    /// How it ended.
    pub end: StreamEnd,
    /// TCP_INFO of its connection over time.
    pub samples: Vec<StreamSample>,
}

/// Bursts: a sender that waits before it continues, either for acknowledgements, one round trip each time
/// because its window is full, or for its own clock because it paces.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Bursts {
    /// Number of bursts.
    pub count: usize,
    /// Median number of bytes in a burst.
    pub bytes: Bytes,
    /// Median time from the start of one burst to the start of the next.
    #[serde(rename = "period_seconds", with = "Seconds")]
    pub period: Duration,
}

/// How a stream ended.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StreamEnd {
    /// The whole layer was read.
    Complete {
        /// Whether the content has the layer's digest.
        digest_matches: bool,
    },
    /// It was stopped, because enough had been measured.
    Stopped,
    /// It failed.
    Failed {
        /// Why.
        fault: HttpFault,
    },
}

/// TCP_INFO of a stream's connection (linux/tcp.h), and the bytes not yet read from its socket. A value is
/// absent if the kernel does not report it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct StreamSample {
    /// The time since the first byte.
    #[serde(rename = "at_seconds", with = "Seconds")]
    pub at: Duration,
    /// `tcpi_bytes_received`: bytes received so far.
    pub received: Option<Bytes>,
    /// FIONREAD: bytes that wait in the socket. Many mean that the reader is slow.
    pub unread: Option<Bytes>,
    /// `tcpi_rcv_rtt`: the receiver's estimate of the round trip.
    #[serde(rename = "receive_rtt_seconds", with = "OptionalSeconds")]
    pub receive_rtt: Option<Duration>,
    /// `tcpi_rcv_space`: bytes read in a round trip, from which the kernel sizes the receive buffer.
    pub receive_space: Option<Bytes>,
    /// `tcpi_rcv_ssthresh`: the largest window that is offered to the sender.
    #[serde(default)]
    pub receive_window: Option<Bytes>,
    /// `tcpi_rcv_wnd`: the window that is offered to the sender at this time (Linux 6.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_window: Option<Bytes>,
    /// `tcpi_data_segs_in`: segments with data received so far.
    pub data_segments_in: Option<u32>,
    /// `tcpi_rcv_ooopack`: segments received out of order so far.
    pub out_of_order: Option<u32>,
    /// `tcpi_segs_out`: segments sent so far, almost all of them acknowledgements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments_out: Option<u32>,
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
