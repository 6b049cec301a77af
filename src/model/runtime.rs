//! The container runtime that pulls, and its release.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::printable;

/// A runtime as a Node states it in `status.nodeInfo.containerRuntimeVersion`: `containerd://1.7.24`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Runtime {
    /// `containerd`, `cri-o`, `docker`.
    pub name: String,
    /// The version as the Node states it; distributions append to it (`1.6.20~ds1`).
    pub version: String,
}

impl FromStr for Runtime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "'{}' is not a container runtime: write NAME://VERSION as `kubectl get node -o wide` shows it, for example containerd://1.7.24",
                printable(text)
            )
        };
        let (name, version) = text.trim().split_once("://").ok_or_else(error)?;
        let is_plain = |part: &str| {
            !part.is_empty() && part.len() <= 64 && part.bytes().all(|b| b.is_ascii_graphic())
        };
        if !is_plain(name) || !is_plain(version) {
            return Err(error());
        }
        Ok(Self {
            name: name.to_ascii_lowercase(),
            version: version.to_owned(),
        })
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl Runtime {
    /// Reads the runtime as `NodeFacts` has it: `containerd 1.7.24`.
    pub fn of_node(text: &str) -> Option<Self> {
        text.replacen(' ', "://", 1).parse().ok()
    }

    /// Major, minor and patch of containerd; `None` for another runtime, or a version that can't be read.
    pub fn containerd(&self) -> Option<(u16, u16, u16)> {
        if self.name != "containerd" {
            return None;
        }
        let mut numbers = numbers(&self.version);
        Some((
            numbers.next()??,
            numbers.next()??,
            numbers.next().flatten().unwrap_or(0),
        ))
    }
}

/// The numbers that the parts of a version begin with; `None` for a part without one.
pub(super) fn numbers(version: &str) -> impl Iterator<Item = Option<u16>> {
    let version = version.strip_prefix('v').unwrap_or(version);
    version.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit());
        part[..digits.unwrap_or(part.len())].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_nodes_name_them() {
        for (text, version) in [
            ("containerd://1.7.24", Some((1, 7, 24))),
            ("containerd://v2.1.0-rc.1", Some((2, 1, 0))),
            ("containerd://1.6.20~ds1", Some((1, 6, 20))),
            ("containerd://2.1.9+unknown", Some((2, 1, 9))),
            ("containerd://1.7", Some((1, 7, 0))),
            ("containerd://unknown", None),
            ("cri-o://1.30.1", None),
        ] {
            let runtime: Runtime = text.parse().unwrap();
            assert_eq!(runtime.containerd(), version, "{text}");
        }
        for text in ["", "1.7.24", "containerd://", "://1.7", "containerd://1 2"] {
            assert!(text.parse::<Runtime>().is_err(), "{text}");
        }
    }
}
