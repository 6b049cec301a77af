//! Real servers for tests: started on ports and folders of their own, and ended by pid.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(
    unreachable_pub,
    reason = "shared by several crates, which are no libraries"
)]
#![allow(
    clippy::print_stderr,
    reason = "the test runner shows it when a test fails"
)]
#![allow(clippy::unwrap_used, reason = "this is test code")]

pub mod netns;
pub mod process;
pub mod wire;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports that servers of the lab listen on. Linux takes the ports of outgoing connections from
/// 32768 on (`net.ipv4.ip_local_port_range`): a free port from there may be in use a moment later.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 that is free now, over TCP and UDP, and that this process gives to no other
/// caller. Servers that can't take port 0 get one of these.
pub fn free_port() -> u16 {
    // Processes begin at different places, so that they seldom ask for the same ones.
    let begin = std::process::id().wrapping_mul(61);
    for _ in PORTS {
        let turn = u32::from(NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        let offset = begin.wrapping_add(turn) % u32::try_from(PORTS.len()).unwrap();
        let at = (
            Ipv4Addr::LOCALHOST,
            PORTS.start + u16::try_from(offset).unwrap(),
        );
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return at.1;
        }
    }
    panic!("no port of {PORTS:?} is free");
}
