//! Limits of this program's own process. What a phase misses because of one says nothing about the network.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A limit of this process, or of the machine for all processes, that kept a check from observing something.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OwnLimit {
    /// EMFILE: this process has as many files and sockets open as it may.
    OpenFiles,
    /// ENFILE: all processes of the machine together have.
    NodeFiles,
    /// ENOMEM, ENOBUFS: the kernel has no memory for it.
    Memory,
    /// EAGAIN of a new thread or process: the limit of processes is reached.
    Processes,
    /// EADDRINUSE of a new socket: this network namespace has no free port.
    Ports,
    /// This process did not get to run for long enough to see an answer in time.
    Cpu,
    /// The check took longer than a check may, or there was no time left for a request.
    Deadline,
}

impl OwnLimit {
    /// All limits.
    pub const ALL: [Self; 7] = [
        Self::OpenFiles,
        Self::NodeFiles,
        Self::Memory,
        Self::Processes,
        Self::Ports,
        Self::Cpu,
        Self::Deadline,
    ];

    /// The limit that an error of the kernel means, unless it is about a new thread or process.
    pub fn of_errno(errno: i32) -> Option<Self> {
        Some(match errno {
            libc::EMFILE => Self::OpenFiles,
            libc::ENFILE => Self::NodeFiles,
            libc::ENOMEM | libc::ENOBUFS => Self::Memory,
            // Only sockets without an address of their own are bound here.
            libc::EADDRINUSE => Self::Ports,
            _ => return None,
        })
    }

    /// The JSON value and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenFiles => "open_files",
            Self::NodeFiles => "node_files",
            Self::Memory => "memory",
            Self::Processes => "processes",
            Self::Ports => "ports",
            Self::Cpu => "cpu",
            Self::Deadline => "deadline",
        }
    }

    /// What to change.
    pub fn fix(self) -> &'static str {
        match self {
            Self::OpenFiles => {
                "Raise the limit of open files of this program (`ulimit -n`, LimitNOFILE of its unit, or of the container runtime's)."
            }
            Self::NodeFiles => {
                "Raise fs.file-max on the node, or find the process that has so many files open (`lsof`): pulls need files too."
            }
            Self::Memory => {
                "Raise the memory limit of this program, or free memory on the node: pulls need it too."
            }
            Self::Processes => {
                "Raise the limit of processes and threads (`ulimit -u`, TasksMax of its unit, pids of its pod)."
            }
            Self::Ports => {
                "Widen net.ipv4.ip_local_port_range, or find what has so many sockets open (`ss -s`)."
            }
            Self::Cpu => "Give this program more CPU: raise its limit, or relieve the machine.",
            Self::Deadline => {
                "Raise schedule.timeout and schedule.check_timeout (`--timeout` of a probe), or give this program more CPU."
            }
        }
    }
}

impl fmt::Display for OwnLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenFiles => "this program has too many files and sockets open (EMFILE)",
            Self::NodeFiles => "the machine has too many files open (ENFILE)",
            Self::Memory => "the kernel has no memory for it (ENOMEM or ENOBUFS)",
            Self::Processes => "no further thread or process may start (EAGAIN)",
            Self::Ports => "no local port is free (EADDRINUSE)",
            Self::Cpu => "this program did not get enough CPU to see an answer in time",
            Self::Deadline => "the time of the check ended before all requests were sent",
        })
    }
}

/// A fault that may be a limit of this process instead of an observation.
pub trait MayBeOwn {
    /// The limit, if it is one.
    fn own_limit(&self) -> Option<OwnLimit>;

    /// Whether it rests on silence, or on a connection that the other side closed: a process that does not run gets
    /// the same. An answer was received whenever this process ran.
    fn may_be_pause(&self) -> bool;
}

/// A text has no limit in it.
impl MayBeOwn for String {
    fn own_limit(&self) -> Option<OwnLimit> {
        None
    }

    fn may_be_pause(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_network_are_no_limit_of_ours() {
        let own = [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOMEM,
            libc::ENOBUFS,
            libc::EADDRINUSE,
        ];
        for errno in 1..=133 {
            let limit = OwnLimit::of_errno(errno);
            assert_eq!(limit.is_some(), own.contains(&errno), "{errno}: {limit:?}");
        }
    }

    #[test]
    fn the_label_is_the_json_value() {
        for limit in OwnLimit::ALL {
            let json = serde_json::to_value(limit).unwrap();
            assert_eq!(json, limit.as_str());
        }
    }
}
