//! The routers between this machine and a server, as TCP's own SYN met them.
//!
//! A list of hops is a hint, no proof: routers may keep silent, hide behind one another or answer
//! from any of their addresses, and the way back is not seen at all.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::{IcmpError, TcpFault};
use super::units::{OptionalSeconds, Seconds};

/// What came of SYNs to one server whose TTL (IPv6: hop limit) was 1, 2, 3, …
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Trace {
    pub to: SocketAddr,
    /// By TTL from 1 on, without a gap; the last is that which ended the trace.
    pub hops: Vec<Hop>,
    /// The smallest TTL whose SYN was answered in the name of `to` itself: by SYN/ACK, by RST, or by
    /// an ICMP error that says more than "time exceeded". So many links away is what answers as
    /// `to`; that may be a load balancer, a transparent proxy or a filter that resets.
    pub reached: Option<u8>,
    pub ended: TraceEnd,
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
}

/// What answered a SYN of one TTL.
///
/// All empty is a silent hop, and a silent hop proves nothing: routers limit how many ICMP errors
/// they send, many send none, filters drop them on the way back, and a SYN or its answer gets lost.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Hop {
    pub ttl: u8,
    /// Who answered: the sender of the ICMP error, or the server. A router has many addresses and
    /// answers from one it chooses, often that of the side the answer leaves by.
    pub from: Option<IpAddr>,
    /// From connect(2) to the answer, by the local clock. `None` for an answer that came after the
    /// kernel had sent the SYN again: it is not known which of the two it is for.
    #[serde(rename = "rtt_seconds", default, with = "OptionalSeconds")]
    pub rtt: Option<Duration>,
    /// The ICMP error (RFC 792 and RFC 4443; 11/0 and v6 3/0 are "time exceeded"); `None` where TCP
    /// itself answered, and where nothing did.
    pub icmp: Option<IcmpError>,
}

impl Hop {
    /// Nothing answered in time.
    pub fn is_silent(&self) -> bool {
        self.from.is_none() && self.icmp.is_none()
    }
}

/// Why a trace has no further hop.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TraceEnd {
    /// By SYN/ACK or RST of the server, or of what answers in its name.
    Reached,
    /// So many hops in a row were silent that no more were tried; the server's own silence looks
    /// the same.
    Silent,
    /// The bound on hops.
    MaxHops,
    /// An ICMP error that says more than "time exceeded": no route, a closed port, a filter. Its
    /// sender is at most as far as the TTL of the last hop; a router's filter comes after its own
    /// "time exceeded", so that the same router often stands in two hops.
    Unreachable { icmp: IcmpError },
    /// This machine itself could not send: no route, its own policy, no socket.
    Local { fault: TcpFault },
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
