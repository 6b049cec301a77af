//! What this machine did during a measurement: the bytes that its network devices received, and the CPU time that this
//! process used or was denied.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::kernel;
use crate::files;
use crate::model::transfer::TcpSettings;

/// Bytes of a network device since it exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeviceBytes {
    /// Received bytes.
    pub received: u64,
    /// Sent bytes.
    pub sent: u64,
}

/// The bytes of a network device of this network namespace (`/proc/net/dev`); `None` if there is no such device.
pub fn device_bytes(device: &str) -> Option<DeviceBytes> {
    bytes_of(&files::kernel(Path::new("/proc/net/dev")).ok()?, device)
}

/// `  eth0: 1234 5 0 0 0 0 0 0 99 …`: received bytes are first, sent ones ninth.
fn bytes_of(text: &str, device: &str) -> Option<DeviceBytes> {
    text.lines().find_map(|line| {
        let (name, counts) = line.split_once(':')?;
        let counts = (name.trim() == device).then_some(counts)?;
        let mut counts = counts.split_ascii_whitespace();
        Some(DeviceBytes {
            received: counts.next()?.parse().ok()?,
            sent: counts.nth(7)?.parse().ok()?,
        })
    })
}

/// The settings of TCP that apply to new connections of this network namespace, for IPv6 as well.
pub fn tcp_settings() -> TcpSettings {
    let is_on = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        is_on(&files::kernel(Path::new(&path)).ok()?)
    };
    TcpSettings {
        window_scaling: is_on("tcp_window_scaling"),
        sack: is_on("tcp_sack"),
        timestamps: is_on("tcp_timestamps"),
    }
}

/// Zero is off, every other number is on.
fn is_on(text: &str) -> Option<bool> {
    text.trim().parse::<i64>().ok().map(|value| value != 0)
}

/// Removes the code and constants of this program from this process's memory; what is used again returns from the page
/// cache, at the cost of a page fault. To read its arguments and configuration, a daemon uses some megabytes that it does
/// not need again.
pub fn give_code_back() {
    let Ok(maps) = files::kernel(Path::new("/proc/self/smaps")) else {
        return;
    };
    for range in unwritten(&maps) {
        kernel::give_back(range);
    }
}

/// The address ranges in `/proc/PID/smaps` (proc(5)) that hold what a file does: they can't be written, and have no page
/// that the loader has written before (`Anonymous`).
fn unwritten(maps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut current = None;
    for line in maps.lines() {
        if let Some((range, is_constant)) = mapping(line) {
            current = is_constant.then_some(range);
        } else if let Some(written) = line.strip_prefix("Anonymous:")
            && let Some(range) = current.take()
            && written.trim() == "0 kB"
        {
            found.push(range);
        }
    }
    found
}

/// The first line of a mapping, and whether it is of a file and can't be written:
/// `55d0c0a00000-55d0c0d00000 r-xp 00000000 fe:00 99   /usr/bin/pullpath`. `None` for other lines.
fn mapping(line: &str) -> Option<(Range<usize>, bool)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(start)?..address(end)?;
    let is_fixed = rest.starts_with("r-xp ") || rest.starts_with("r--p ");
    Some((range, is_fixed && rest.contains(" /")))
}

/// CPU time since the start.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// CPU time of this thread, in user and kernel mode. It is the thread that reads: one at its limit reads no faster,
    /// however idle the others are.
    pub used: Duration,
    /// How long the CPU limit of the cgroup throttled its processes; `None` if it has no limit or the kernel does not
    /// report it.
    pub throttled: Option<Duration>,
}

/// Reads both; `None` if the kernel does not report them.
pub fn cpu() -> Option<Cpu> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    Some(Cpu {
        used: duration(usage.user_time()) + duration(usage.system_time()),
        throttled: throttled(),
    })
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    let micros = u64::try_from(time.tv_usec()).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// `cpu.stat` of this process's cgroup. In a container, the kernel may report the host's path, while only the
/// container's own part is mounted, as root.
fn throttled() -> Option<Duration> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| stat_among(&candidates()));
    throttled_of(&files::kernel(file.as_ref()?).ok()?)
}

/// The first file with a limit, or else the first that exists: a limit may be set later.
fn stat_among(candidates: &[PathBuf]) -> Option<PathBuf> {
    let texts = candidates
        .iter()
        .filter_map(|path| Some((path, files::kernel(path).ok()?)));
    let found: Vec<(&PathBuf, String)> = texts.collect();
    let with_limit = found.iter().find(|(_, text)| throttled_of(text).is_some());
    with_limit
        .or(found.first())
        .map(|(path, _)| (*path).clone())
}

fn candidates() -> Vec<PathBuf> {
    let own = files::kernel(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    own.lines()
        .filter_map(controller_and_path)
        .flat_map(|(folders, path)| {
            let path = path.trim_start_matches('/').to_owned();
            folders.iter().flat_map(move |folder| {
                let mount = root.join(folder);
                [mount.join(&path), mount]
            })
        })
        .map(|folder| folder.join("cpu.stat"))
        .collect()
}

/// The folders where the CPU controller may be mounted, and the path below, from a line of `/proc/self/cgroup`
/// (cgroups(7)): `0::/path` is version 2, `4:cpu,cpuacct:/path` version 1.
fn controller_and_path(line: &str) -> Option<(&'static [&'static str], &str)> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    if controllers.is_empty() {
        Some((&["", "unified"], path))
    } else if controllers.split(',').any(|name| name == "cpu") {
        Some((&["cpu,cpuacct", "cpu"], path))
    } else {
        None
    }
}

/// `throttled_usec` in version 2, `throttled_time` (nanoseconds) in version 1. Without a limit, the file may have
/// neither.
fn throttled_of(text: &str) -> Option<Duration> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        let value = value.trim().parse().ok()?;
        match key {
            "throttled_usec" => Some(Duration::from_micros(value)),
            "throttled_time" => Some(Duration::from_nanos(value)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_device_is_found_by_its_whole_name() {
        let text = "Inter-|   Receive    |  Transmit\n face |bytes    packets\n\
                      eth0: 1500 3 0 0 0 0 0 0 99 1\n  eth0.5:77 1 0 0 0 0 0 0 5 1\n    lo:  12 1\n";
        let both = |received, sent| Some(DeviceBytes { received, sent });
        assert_eq!(bytes_of(text, "eth0"), both(1500, 99));
        assert_eq!(bytes_of(text, "eth0.5"), both(77, 5));
        assert_eq!(bytes_of(text, "eth"), None);
        assert_eq!(bytes_of(text, "lo"), None, "the line is cut off");
        assert_eq!(bytes_of("", "lo"), None);
        assert!(device_bytes("lo").is_some());
    }

    #[test]
    fn a_setting_that_cannot_be_read_is_absent() {
        assert_eq!(is_on("0\n"), Some(false));
        assert_eq!(is_on("1\n"), Some(true));
        // tcp_timestamps has a second way to be on.
        assert_eq!(is_on("2\n"), Some(true));
        assert_eq!((is_on(""), is_on("x")), (None, None));
        assert!(tcp_settings().sack.is_some());
    }

    #[test]
    fn only_what_was_never_written_is_given_back() {
        let maps = [
            (
                "55d0c0a00000-55d0c0d00000 r--p 00000000 fe:00 99   /usr/bin/pull path",
                0,
            ),
            (
                "55d0c0d00000-55d0c1800000 r-xp 00300000 fe:00 99   /usr/bin/pull path",
                0,
            ),
            // Relocated, and then made constant.
            (
                "55d0c1800000-55d0c1850000 r--p 00d00000 fe:00 99   /usr/bin/pull path",
                320,
            ),
            (
                "55d0c1850000-55d0c1860000 rw-p 00d50000 fe:00 99   /usr/bin/pull path",
                0,
            ),
            (
                "7f0000000000-7f0000100000 r-xp 00000000 fe:00 12   /usr/lib/libc.so.6",
                0,
            ),
            ("7f0000200000-7f0000300000 r--p 00000000 00:00 0 ", 0),
            (
                "7f0000400000-7f0000500000 r--s 00000000 fe:00 13   /var/cache/x",
                0,
            ),
            (
                "7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0    [vdso]",
                0,
            ),
        ];
        let maps = maps.map(|(line, written)| {
            format!("{line}\nSize:  4 kB\nAnonymous:  {written} kB\nVmFlags: rd ex mr\n")
        });
        let found = unwritten(&maps.concat());
        let expected = [
            0x55d0_c0a0_0000..0x55d0_c0d0_0000,
            0x55d0_c0d0_0000..0x55d0_c180_0000,
            0x7f00_0000_0000..0x7f00_0010_0000,
        ];
        assert_eq!(found, expected);
        // This test goes on.
        give_code_back();
        assert!(device_bytes("lo").is_some());
    }

    #[test]
    fn the_file_that_tells_of_a_limit_goes_before_one_that_may_yet() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["absent", "without", "with"]
            .iter()
            .map(|name| folder.path().join(name))
            .collect();
        assert_eq!(stat_among(&paths), None);
        fs::write(&paths[1], "usage_usec 5\n").unwrap();
        assert_eq!(stat_among(&paths).as_ref(), Some(&paths[1]));
        fs::write(&paths[2], "usage_usec 5\nthrottled_usec 7\n").unwrap();
        assert_eq!(stat_among(&paths).as_ref(), Some(&paths[2]));
    }

    #[test]
    fn both_versions_of_cgroups_tell_how_long_they_held_back() {
        let one = "nr_periods 10\nnr_throttled 2\nthrottled_time 1500000\n";
        assert_eq!(throttled_of(one), Some(Duration::from_micros(1500)));
        let two = "usage_usec 5\nnr_throttled 1\nthrottled_usec 1500\nnr_bursts 0\n";
        assert_eq!(throttled_of(two), Some(Duration::from_micros(1500)));
        assert_eq!(throttled_of("usage_usec 5\n"), None);
        assert_eq!(
            controller_and_path("0::/kubepods/a:b").map(|(_, path)| path),
            Some("/kubepods/a:b")
        );
        let one = controller_and_path("4:cpu,cpuacct:/docker/x").unwrap();
        assert_eq!(one, (&["cpu,cpuacct", "cpu"][..], "/docker/x"));
        assert_eq!(controller_and_path("3:cpuset:/"), None);
        assert_eq!(controller_and_path("odd"), None);
    }

    #[test]
    fn work_costs_processor_time() {
        let before = cpu().unwrap().used;
        let mut sum = 0u64;
        while cpu().unwrap().used < before + Duration::from_millis(2) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu().unwrap().used > before);
    }
}
