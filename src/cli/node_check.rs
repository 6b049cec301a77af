//! `pullpath node-check`: the daemon's result in one line and an exit status, as node-problem-detector reads them.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::args::duration;
use super::error::Error;
use super::output::{FAILURE, SUCCESS, UNKNOWN};
use super::probe_context::runtime;
use crate::config::ListenAddress;
use crate::daemon::http::status::{PATH, Status};
use crate::daemon::store::overview::TargetState;
use crate::net::local;

/// node-problem-detector cuts the rest (`max_output_length`), by bytes.
const MAX_LINE: usize = 80;

#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 no failing pull is known, 1 images can't be pulled on this node, 2 unknown: the daemon\n\
                  doesn't answer, or it knows the result of no image. No registry receives a request.\n\
                  docs/node-problem-detector.md shows how to use it."
)]
pub(super) struct NodeCheckArgs {
    /// The daemon's address for commands (admin_listen)
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "PULLPATH_ADMIN_LISTEN",
        default_value = "127.0.0.1:9798"
    )]
    admin_listen: ListenAddress,

    /// Timeout for the daemon's answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,
}

pub(super) fn run(args: &NodeCheckArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let at = local_address(args.admin_listen.0);
    let (code, line) = match runtime().map(|runtime| runtime.block_on(request(at, args.timeout))) {
        Ok(Ok(status)) => summary(&status),
        Ok(Err(reason)) => (
            UNKNOWN,
            format!("no result from pullpath at {at}: {reason}"),
        ),
        Err(error) => (UNKNOWN, error.to_string()),
    };
    writeln!(out, "{}", cut(&line)).map_err(Error::Write)?;
    Ok(code)
}

/// Where a listener of this machine is reached.
pub(super) fn local_address(mut listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(at) if at.ip().is_unspecified() => {
            listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        // It takes IPv4 as well, and a host without IPv6 has no other.
        SocketAddr::V6(at) if at.ip().is_unspecified() => {
            listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => {}
    }
    listen
}

/// The daemon's summary, or why there is none.
pub(super) async fn request(at: SocketAddr, wait: Duration) -> Result<Status, String> {
    let answer = tokio::time::timeout(wait, local::get(at, PATH, wait)).await;
    let answer = answer.map_err(|_| "no answer in time".to_owned())??;
    if !answer.status.is_success() {
        return Err(format!("HTTP {}", answer.status.as_u16()));
    }
    serde_json::from_slice(&answer.body).map_err(|_| "the answer is not Pullpath's".to_owned())
}

/// The exit status and the line for a summary.
fn summary(status: &Status) -> (u8, String) {
    let all = status.all();
    let [fails, succeed] =
        [TargetState::WouldFail, TargetState::WouldSucceed].map(|state| status.count(state));
    if fails > 0 {
        let first = status.failing.first().map_or_else(String::new, |first| {
            let cause = first.cause.as_deref().map(|cause| format!("{cause}: "));
            format!(": {}{}", cause.unwrap_or_default(), first.image)
        });
        return (
            FAILURE,
            format!("{fails} of {all} images can't be pulled{first}"),
        );
    }
    if all > 0 && succeed == 0 {
        return (
            UNKNOWN,
            format!("the result is unknown for all {all} images"),
        );
    }
    let unknown = match all - succeed {
        0 => String::new(),
        some => format!(", unknown for {some}"),
    };
    (
        SUCCESS,
        format!("{succeed} of {all} images can be pulled{unknown}"),
    )
}

/// The line, in ASCII and at most [`MAX_LINE`] bytes.
fn cut(line: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    let line: String = line.chars().map(plain).collect();
    match line.len() {
        0..=MAX_LINE => line,
        _ => format!("{}...", &line[..MAX_LINE - 3]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::http::status::FailingTarget;

    fn status(states: &[(&str, usize)]) -> Status {
        let states = states
            .iter()
            .map(|(state, count)| ((*state).to_owned(), *count));
        Status {
            states: states.collect(),
            ..Status::default()
        }
    }

    #[test]
    fn one_failure_decides_and_what_is_not_known_is_no_failure() {
        for (states, code, line) in [
            (
                &[("would_succeed", 3)][..],
                SUCCESS,
                "3 of 3 images can be pulled",
            ),
            (
                &[("would_succeed", 1), ("unknown", 2)],
                SUCCESS,
                "1 of 3 images can be pulled, unknown for 2",
            ),
            (
                &[("unknown", 2), ("not_checked", 1)],
                UNKNOWN,
                "the result is unknown for all 3 images",
            ),
            (
                &[("outdated", 2)],
                UNKNOWN,
                "the result is unknown for all 2 images",
            ),
            (
                &[("would_fail", 1), ("would_succeed", 8)],
                FAILURE,
                "1 of 9 images can't be pulled",
            ),
            (&[], SUCCESS, "0 of 0 images can be pulled"),
        ] {
            assert_eq!(summary(&status(states)), (code, line.to_owned()));
        }
        let mut failing = status(&[("would_fail", 1)]);
        failing.failing = vec![FailingTarget {
            image: "r.test/team/app:1".to_owned(),
            cause: Some("tcp_refused".to_owned()),
        }];
        let (_, line) = summary(&failing);
        assert_eq!(
            line,
            "1 of 1 images can't be pulled: tcp_refused: r.test/team/app:1"
        );
    }

    #[test]
    fn a_line_has_80_bytes_at_most() {
        assert_eq!(cut("a\u{e9}\n"), "a??");
        assert_eq!(cut(&"x".repeat(80)), "x".repeat(80));
        let long = cut(&"\u{e9}".repeat(81));
        assert_eq!((long.len(), long.ends_with("?...")), (80, true));
    }

    #[test]
    fn a_listener_of_all_addresses_is_reached_by_loopback() {
        for (listen, at) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "127.0.0.1:1"),
            ("10.0.0.5:1", "10.0.0.5:1"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(local_address(listen.parse().unwrap()).to_string(), at);
        }
    }
}
