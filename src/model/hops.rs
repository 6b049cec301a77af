//! The routers on the way to an address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::IcmpError;
use super::units::{optional_seconds, seconds};

/// A traceroute by TCP SYN: the very packets of a pull, with a bounded TTL.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Trace {
    pub to: SocketAddr,
    /// In the order of their distance, from 1 on.
    pub hops: Vec<Hop>,
    pub end: TraceEnd,
    #[serde(rename = "took_seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub took: Duration,
}

/// What came back for one TTL.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Hop {
    pub ttl: u8,
    /// Who says that the TTL is used up. Absent: nobody did, which proves nothing; the networks of
    /// clouds often hide their routers.
    pub from: Option<IpAddr>,
    #[serde(rename = "rtt_seconds", with = "optional_seconds")]
    #[schemars(with = "Option<f64>")]
    pub rtt: Option<Duration>,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TraceEnd {
    /// The destination itself answered, with a connection or its refusal.
    Reached { ttl: u8 },
    /// Somebody said that it can't be reached, or is forbidden.
    Unreachable { icmp: IcmpError },
    /// Too many in a row said nothing.
    Silent,
    /// As far as it was to go.
    MaxHops,
    /// No packet left this machine.
    NotSent,
}
