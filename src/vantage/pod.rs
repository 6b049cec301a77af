//! Reads our own pod's EIP (Elastic IP) from its annotations, from a downward API volume: a file with all annotations
//! (`metadata.annotations`), or with the allocated address only
//! (`metadata.annotations['yangtse.io/allocated-ipv4-eip']`). Other annotations are not kept.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::network::PodEip;

/// Keys that request an EIP, of the network plugins of Huawei Cloud and Alibaba Cloud.
const WANTED: &[&str] = &[
    "yangtse.io/pod-with-eip",
    "network.alibabacloud.com/pod-with-eip",
    "k8s.aliyun.com/pod-with-eip",
    "k8s.aliyun.com/eci-with-eip",
];
/// Keys that request an existing EIP by its ID.
const BY_ID: &[&str] = &["yangtse.io/eip-id", "k8s.aliyun.com/pod-eip-instanceid"];
/// Keys with the allocated address, written by the plugins.
const ALLOCATED: &[&str] = &[
    "yangtse.io/allocated-ipv4-eip",
    "network.alibabacloud.com/allocated-eipAddress",
    "k8s.aliyun.com/allocated-eipAddress",
];
/// Keys with the EIP's bandwidth in Mbit/s.
const BANDWIDTH: &[&str] = &[
    "yangtse.io/eip-bandwidth-size",
    "network.alibabacloud.com/eip-bandwidth",
    "k8s.aliyun.com/eip-bandwidth",
];

/// Reads the content of a file. `source` names it in reports.
pub fn read(text: &str, source: &str) -> PodEip {
    // A file with one annotation only is empty until the annotation is set.
    if !text.contains('=') {
        let allocated = Some(text.trim()).filter(|value| !value.is_empty());
        return PodEip {
            source: source.to_owned(),
            ..eip_at(allocated)
        };
    }
    let annotations = text.lines().filter_map(|line| {
        let (key, quoted) = line.split_once('=')?;
        // The kubelet writes values with Go's %q, which is valid JSON except for rare escapes.
        Some((key.to_owned(), serde_json::from_str(quoted).ok()?))
    });
    of_annotations(&annotations.collect(), source)
}

/// Reads all annotations of the pod. `source` names their origin in reports.
pub fn of_annotations(annotations: &BTreeMap<String, String>, source: &str) -> PodEip {
    let of = |keys: &[&str]| {
        let value = keys.iter().find_map(|key| annotations.get(*key))?.trim();
        (!value.is_empty()).then_some(value)
    };
    PodEip {
        source: source.to_owned(),
        wanted: Some(of(WANTED) == Some("true") || of(BY_ID).is_some()),
        bandwidth_mbit: of(BANDWIDTH).and_then(|value| value.parse().ok()),
        ..eip_at(of(ALLOCATED))
    }
}

fn eip_at(allocated: Option<&str>) -> PodEip {
    let address = allocated.map(str::parse);
    PodEip {
        allocated: address.clone().and_then(Result::ok),
        // The value is not repeated: the configured path may be that of a secret by mistake.
        problem: address
            .and_then(Result::err)
            .map(|_| "the value for the EIP is not an IP address".to_owned()),
        ..PodEip::default()
    }
}

/// How long process 1 has been running, from the content of `/proc/1/stat` and `/proc/uptime` (proc_pid_stat(5),
/// proc_uptime(5)). `None`: they can't be parsed, or contradict each other.
pub fn age(stat: &str, uptime: &str, ticks_per_second: u64) -> Option<Duration> {
    // The command's name is in parentheses, and may hold any character.
    let after_name = stat.rsplit_once(')')?.1;
    // Field 22; the first after the name is field 3.
    let ticks: u64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    let up: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let started = Duration::from_millis(ticks.checked_mul(1000)? / ticks_per_second.max(1));
    Duration::try_from_secs_f64(up).ok()?.checked_sub(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_file_are_read() {
        let all = "kubernetes.io/config.source=\"api\"\nyangtse.io/pod-with-eip=\"true\"\n\
                   yangtse.io/eip-bandwidth-size=\"5\"\nyangtse.io/allocated-ipv4-eip=\"121.36.1.2\"\n\
                   note=\"a \\\"quoted\\\" word\\n\"\n";
        let eip = read(all, "annotations");
        assert_eq!(eip.wanted, Some(true));
        assert_eq!(eip.allocated, Some("121.36.1.2".parse().unwrap()));
        assert_eq!(eip.bandwidth_mbit, Some(5));
        let eip = read("121.36.1.2\n", "eip");
        assert_eq!((eip.wanted, eip.allocated.is_some()), (None, true));
        let eip = read("", "eip");
        assert_eq!((eip.wanted, eip.allocated), (None, None));
    }

    #[test]
    fn a_pod_that_waits_is_distinguished_from_one_that_wants_none() {
        let late = read("yangtse.io/pod-with-eip=\"true\"\n", "annotations");
        assert_eq!((late.wanted, late.allocated), (Some(true), None));
        let empty = "yangtse.io/pod-with-eip=\"true\"\nyangtse.io/allocated-ipv4-eip=\"\"\n";
        assert_eq!(read(empty, "annotations").allocated, None);
        let by_id = read("yangtse.io/eip-id=\"7a1b\"\n", "annotations");
        assert_eq!((by_id.wanted, by_id.allocated), (Some(true), None));
        let none = read("app=\"x\"\n", "annotations");
        assert_eq!((none.wanted, none.allocated), (Some(false), None));
        let odd = read("yangtse.io/allocated-ipv4-eip=\"soon\"\n", "annotations");
        assert_eq!(odd.allocated, None);
        assert!(!odd.problem.unwrap().contains("soon"));
        let secret = read("hunter2\n", "token");
        assert_eq!(secret.allocated, None);
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    #[test]
    fn the_age_of_process_1_is_that_of_the_container() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 5000 9 9";
        assert_eq!(age(stat, "80.00 1.0", 100), Some(Duration::from_secs(30)));
        assert_eq!(age(stat, "8.0 1.0", 100), None, "before it was started");
        assert_eq!(age("", "", 100), None);
    }
}
