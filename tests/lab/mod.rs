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

use std::net::{Ipv4Addr, TcpListener};

/// A port of 127.0.0.1 that is free now. Servers that can't take port 0 get one of these.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
