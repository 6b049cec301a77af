//! The routers between this machine and a server, found with TCP SYNs of increasing TTL.
//!
//! A list of hops is a hint and no proof: routers may be silent, be hidden behind one another or answer from
//! any of their addresses, and the return path is not observed at all.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::{IcmpError, TcpFault};
use super::units::{OptionalSeconds, Seconds};

/// The answers to SYNs to one server with a TTL (IPv6: hop limit) of 1, 2, 3, …
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Trace {
    /// The address and port that the SYNs were sent to.
    pub to: SocketAddr,
    /// The hops by TTL from 1, without a gap; the last one ended the trace.
    pub hops: Vec<Hop>,
    /// The smallest TTL whose SYN was answered in the name of `to`: by SYN/ACK, by RST, or by an ICMP error
    /// other than "time exceeded". It is the distance in links to whatever answers as `to`, which may be a load
    /// balancer, a transparent proxy or a filter that resets. Absent if nothing did.
    pub reached: Option<u8>,
    /// Why there are no further hops.
    pub ended: TraceEnd,
    /// How long the trace took.
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
}

/// The answer to the SYN with one TTL.
///
/// If `from` and `icmp` are absent, the hop is silent. That proves nothing: routers limit the ICMP errors they
/// send, many send none, filters drop them on the return path, and a SYN or its answer may be lost.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Hop {
    /// TTL (IPv6: hop limit) of the SYN.
    pub ttl: u8,
    /// The sender of the ICMP error, or the server; absent if nothing answered. A router has many addresses and
    /// chooses one of them, often the one of the interface that the answer leaves from.
    pub from: Option<IpAddr>,
    /// From connect(2) to the answer, by the local clock. Absent for an answer after the kernel had sent the
    /// SYN again: which of the two it answers is unknown.
    #[serde(rename = "rtt_seconds", default, with = "OptionalSeconds")]
    pub rtt: Option<Duration>,
    /// The ICMP error (RFC 792 and RFC 4443; 11/0 and v6 3/0 are "time exceeded"); absent if TCP itself
    /// answered, or nothing did.
    pub icmp: Option<IcmpError>,
}

impl Hop {
    /// Whether nothing answered in time.
    pub fn is_silent(&self) -> bool {
        self.from.is_none() && self.icmp.is_none()
    }
}

/// Why a trace has no further hops.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TraceEnd {
    /// The server, or whatever answers in its name, sent SYN/ACK or RST.
    Reached,
    /// Several hops in a row were silent, so no more were tried; a silent server looks the same.
    Silent,
    /// The maximum number of hops was reached.
    MaxHops,
    /// An ICMP error other than "time exceeded": no route, a closed port, a filter. Its sender is at most as
    /// far away as the TTL of the last hop. A router's filter acts after its own "time exceeded", so the same
    /// router is often in two hops.
    Unreachable {
        /// The ICMP error.
        icmp: IcmpError,
    },
    /// This machine could not send: no route, its own policy, no socket.
    Local {
        /// The local error.
        fault: TcpFault,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_reads_back_from_json_with_its_units_in_the_names() {
        let icmp = IcmpError {
            from: Some("10.0.0.1".parse().unwrap()),
            version: 4,
            kind: 11,
            code: 0,
        };
        let trace = Trace {
            to: "192.0.2.9:443".parse().unwrap(),
            hops: vec![
                Hop {
                    ttl: 1,
                    from: icmp.from,
                    rtt: Some(Duration::from_micros(1_250)),
                    icmp: Some(icmp),
                },
                Hop {
                    ttl: 2,
                    from: None,
                    rtt: None,
                    icmp: None,
                },
            ],
            reached: None,
            ended: TraceEnd::Unreachable { icmp },
            took: Duration::from_millis(1500),
        };
        let json = serde_json::to_value(&trace).unwrap();
        assert_eq!(json["took_seconds"], 1.5);
        assert_eq!(json["hops"][0]["rtt_seconds"], 0.00125);
        assert_eq!(json["hops"][0]["icmp"]["type"], 11);
        assert_eq!(json["ended"]["kind"], "unreachable");
        assert_eq!(serde_json::from_value::<Trace>(json).unwrap(), trace);
        assert!(!trace.hops[0].is_silent());
        assert!(trace.hops[1].is_silent());
    }
}
