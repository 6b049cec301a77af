//! What a transfer of real layers looked like: bytes by time, and what the kernel said meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::fault::HttpFault;
use super::units::{Bytes, optional_seconds, seconds};

/// A transfer test.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Transfer {
    /// By the local clock.
    pub began: Timestamp,
    /// It was to end at these bytes, or after this time.
    pub max_bytes: Bytes,
    #[serde(rename = "max_duration_seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub max_duration: Duration,
    /// How long the pull of the image may take, by whoever asked.
    #[serde(
        rename = "expected_within_seconds",
        with = "optional_seconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<f64>")]
    pub expected_within: Option<Duration>,
    pub streams: Vec<TransferStream>,
    /// TCP connections that carried them.
    pub connections: usize,
    /// Bytes of all streams together, by the time since the first byte.
    pub arrivals: Vec<Arrival>,
    /// When more streams were added.
    #[serde(rename = "more_after_seconds", with = "optional_seconds")]
    #[schemars(with = "Option<f64>")]
    pub more_after: Option<Duration>,
    pub end: TransferEnd,
    #[serde(rename = "took_seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub took: Duration,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferEnd {
    /// The rate was known.
    Stable,
    /// There were no more bytes to spend.
    BytesSpent,
    TimeSpent,
    /// All layers were read.
    Complete,
    /// No stream was left.
    Failed,
}

/// All bytes that had come by a time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Arrival {
    #[serde(rename = "at_seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub at: Duration,
    pub bytes: Bytes,
}

/// One layer, read by one request.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TransferStream {
    pub endpoint: Endpoint,
    pub to: SocketAddr,
    pub digest: String,
    /// Which of the connections carried it; several streams of HTTP/2 share one.
    pub connection: usize,
    /// From the request to the first byte of the answer's head.
    #[serde(rename = "first_byte_seconds", with = "optional_seconds")]
    #[schemars(with = "Option<f64>")]
    pub first_byte: Option<Duration>,
    pub bytes: Bytes,
    /// The longest time without a byte, from the first byte on.
    #[serde(rename = "longest_stall_seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub longest_stall: Duration,
    pub end: StreamEnd,
    pub samples: Vec<StreamSample>,
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
    #[serde(rename = "at_seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub at: Duration,
    /// `tcpi_bytes_received`.
    pub received: Option<Bytes>,
    /// FIONREAD: many mean that the reader is slow.
    pub unread: Option<Bytes>,
    /// `tcpi_rcv_rtt`.
    #[serde(rename = "receive_rtt_seconds", with = "optional_seconds")]
    #[schemars(with = "Option<f64>")]
    pub receive_rtt: Option<Duration>,
    /// `tcpi_rcv_space`.
    pub receive_space: Option<Bytes>,
    /// `tcpi_data_segs_in`.
    pub data_segments_in: Option<u32>,
    /// `tcpi_rcv_ooopack`.
    pub out_of_order: Option<u32>,
}
