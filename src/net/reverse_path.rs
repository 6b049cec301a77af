//! Reads what the kernel's reverse path filter drops: a counter of this network namespace, and the devices with a strict
//! filter.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::files;
use crate::model::network::ReversePathDrops;

/// The counter at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ReversePathCounter {
    value: u64,
    at: Instant,
}

impl ReversePathCounter {
    /// Reads the counter; `None` if this kernel does not show it.
    pub fn read() -> Option<Self> {
        let value = counter(&files::kernel(Path::new("/proc/self/net/netstat")).ok()?)?;
        let at = Instant::now();
        Some(Self { value, at })
    }

    /// What has been dropped since; `None` if nothing was.
    ///
    /// Of the devices with a strict filter, those of `devices` are listed.
    pub fn drops(self, devices: &[&str]) -> Option<ReversePathDrops> {
        let dropped = Self::read()?.value.saturating_sub(self.value);
        (dropped > 0).then(|| ReversePathDrops {
            dropped,
            before: self.value,
            uptime: uptime(),
            took: self.at.elapsed(),
            strict: strict(Path::new("/proc/sys/net/ipv4/conf"), devices),
        })
    }
}

/// `IPReversePathFilter` of the two lines `TcpExt:`, of which the first has the names (proc(5)).
fn counter(netstat: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let index = names
        .split_whitespace()
        .position(|name| name == "IPReversePathFilter")?;
    values.split_whitespace().nth(index)?.parse().ok()
}

fn uptime() -> Duration {
    let text = files::kernel(Path::new("/proc/uptime")).unwrap_or_default();
    let seconds = text.split_whitespace().next().and_then(|s| s.parse().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default()
}

/// The devices with a strict filter: the greater of the values for all devices and for this one counts
/// (Documentation/networking/ip-sysctl.rst).
fn strict(folder: &Path, devices: &[&str]) -> Vec<String> {
    let value = |device: &str| -> u8 {
        let text = files::kernel(&folder.join(device).join("rp_filter"));
        text.ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    let all = value("all");
    let strict = devices.iter().filter(|device| value(device).max(all) == 1);
    strict.map(|device| (*device).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_counter_is_found_by_its_name() {
        let text = "TcpExt: SyncookiesSent IPReversePathFilter EmbryonicRsts\nTcpExt: 3 22 7\nIpExt: InNoRoutes\nIpExt: 9\n";
        assert_eq!(counter(text), Some(22));
        assert_eq!(counter("TcpExt: SyncookiesSent\nTcpExt: 3\n"), None);
        assert_eq!(counter("TcpExt: IPReversePathFilter\n"), None);
        assert_eq!(counter(""), None);
    }

    #[test]
    fn the_greater_value_counts() {
        let folder = tempfile::tempdir().unwrap();
        let set = |all: &str| {
            for (device, value) in [("all", all), ("default", "1"), ("eth0", "1"), ("eth1", "0")] {
                let folder = folder.path().join(device);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("rp_filter"), format!("{value}\n")).unwrap();
            }
            strict(folder.path(), &["eth0", "eth1"])
        };
        assert_eq!(set("0"), ["eth0"]);
        assert_eq!(set("1"), ["eth0", "eth1"]);
        assert!(set("2").is_empty(), "loose");
        assert!(strict(Path::new("/nonexistent"), &["eth0"]).is_empty());
    }
}
