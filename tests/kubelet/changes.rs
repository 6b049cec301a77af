//! What happens to a cluster: Secrets are corrected, programs end and start again, images of the sandbox are not to be
//! had, pods are deleted. After each, all faces agree with the kubelet again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::compare::{Seen, failures_by_events, failures_by_metrics};
use crate::node::{NODE, Node, sandbox};
use crate::operated::eventually_within;
use crate::pods::{Case, SHOP, corrected};
use crate::{Lab, install};

/// The kubelet tries again within 5 minutes, and a pull and its report take a moment more.
const BACK_OFF: Duration = Duration::from_mins(7);

impl Lab {
    /// The cluster role has counted each failure that the kubelet reported, once. Both go on while they are read.
    pub fn compare_counts(&self) {
        let mut last = String::new();
        let mut agree = || {
            let before = failures_by_events(&self.list("events"));
            let metrics = self.watcher_metrics()?;
            let after = failures_by_events(&self.list("events"));
            let counted = failures_by_metrics(&metrics);
            let is_between = before.iter().all(|(key, count)| {
                let counted = counted.get(key).copied().unwrap_or_default();
                *count <= counted && counted <= after.get(key).copied().unwrap_or_default()
            });
            last = format!("{before:?}\n{counted:?}");
            (is_between && counted.keys().all(|key| after.contains_key(key))).then_some(())
        };
        let begun = Instant::now();
        while agree().is_none() {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "failures are counted otherwise:\n{last}"
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// A Secret with a wrong password gets the right one.
    pub fn rotate(&self) {
        let path = format!("/api/v1/namespaces/{SHOP}/secrets/rotated");
        self.cluster.ask("PATCH", &path, Some(&corrected()));
        let case = Self::case("rotated");
        eventually_within(
            "the daemon sees the new password",
            Duration::from_mins(1),
            || self.seen().of(&case).pull.as_deref() == Some("would_succeed"),
        );
        eventually_within(
            "an Event that it is resolved",
            Duration::from_mins(2),
            || {
                let of_pod = |event: &&Value| {
                    event["involvedObject"]["name"] == "rotated"
                        && event["reason"] == "ImagePullResolved"
                };
                let runs = self.seen().of(&case).runs;
                runs || self.list("events").iter().any(|event| of_pod(&event))
            },
        );
        eventually_within("the kubelet pulls with it", BACK_OFF, || {
            self.seen().of(&case).runs
        });
        // A pod has 25 Events at once, and then one in five minutes: its last ones may be missing.
        let is_reported = |event: &Value| {
            event["involvedObject"]["name"] == "rotated" && event["reason"] == "Pulled"
        };
        if self.list("events").iter().any(is_reported) {
            eventually_within("the cluster role knows", Duration::from_mins(1), || {
                self.seen().of(&case).cluster.is_none()
            });
        }
    }

    fn case(name: &str) -> Case {
        *crate::pods::CASES
            .iter()
            .find(|case| case.name == name)
            .unwrap()
    }

    /// Watches break and begin again; nothing is counted twice.
    pub fn restart_api_server(&mut self) {
        self.cluster.stop_server();
        std::thread::sleep(Duration::from_secs(5));
        self.cluster.start_server();
        self.node.wait_until_ready(&self.cluster);
    }

    /// The container of the daemon is killed, and the kubelet starts it again.
    pub fn restart_daemon(&self) {
        let id = || {
            let pod = install::pod(&self.cluster, "pullpath-node-0");
            let status = &pod["status"]["containerStatuses"][0];
            let id = status["containerID"]
                .as_str()?
                .strip_prefix("containerd://")?
                .to_owned();
            (status["ready"] == true).then_some(id)
        };
        let before = id().unwrap();
        Node::ctr(&format!("tasks kill --signal SIGKILL {before}"));
        eventually_within(
            "another container of the daemon",
            Duration::from_mins(2),
            || id().is_some_and(|now| now != before),
        );
    }

    /// One that starts has Events to spare for each pod again (25, and then one in five minutes).
    pub fn restart_kubelet(&mut self) {
        self.node.stop_kubelet();
        std::thread::sleep(Duration::from_secs(2));
        self.node.start_kubelet();
        self.node.wait_until_ready(&self.cluster);
    }

    /// While containerd is down, the fault is the node's, whatever images its pods have.
    pub fn runtime_down(&mut self) {
        self.node.stop_runtime();
        let fault = |seen: &Seen| {
            let failing = seen.pulls["failing"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let of_runtime: Vec<Value> = failing
                .into_iter()
                .filter(|one| one["cause"] == "runtime_fault")
                .collect();
            of_runtime
        };
        eventually_within("the runtime's fault", BACK_OFF, || {
            !fault(&self.seen()).is_empty()
        });
        for one in fault(&self.seen()) {
            assert_eq!(one["registry"], "", "{one}");
            assert_eq!(one["on_node"], true, "{one}");
        }
        let metrics = self.watcher_metrics().unwrap();
        let mut series = metrics.with("cause=\"runtime_fault\"");
        series.retain(|series| series.starts_with("pullpath_real_pull"));
        assert!(
            !series.is_empty() && series.iter().all(|series| series.contains("registry=\"\"")),
            "{series:?}"
        );
        self.node.start_runtime(&sandbox(), true);
        self.node.wait_until_ready(&self.cluster);
        eventually_within("it is over", BACK_OFF, || fault(&self.seen()).is_empty());
    }

    /// No pod can start whose sandbox has no image.
    pub fn without_sandbox(&mut self) {
        let dead = "closed.lab.test/lab/pause:9";
        self.node.stop_runtime();
        self.node.start_runtime(dead, true);
        self.node.wait_until_ready(&self.cluster);
        let pod = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SHOP},
                   "spec": {"nodeName": NODE, "hostNetwork": true, "automountServiceAccountToken": false,
                            "terminationGracePeriodSeconds": 1,
                            "containers": [{"name": "app", "image": "open.lab.test/team/app:1"}]}})
        };
        install::create(&self.cluster, &pod("no-sandbox"));
        let series = format!(
            "pullpath_real_pull_sandbox_failing{{node=\"{NODE}\",registry=\"closed.lab.test\",cause=\"tcp_refused\"}}"
        );
        let value = |lab: &Self| {
            lab.watcher_metrics()
                .and_then(|metrics| metrics.value(&series))
        };
        eventually_within("the sandbox fails", Duration::from_mins(3), || {
            value(self) == Some(1.0)
        });
        self.node.stop_runtime();
        self.node.start_runtime(&sandbox(), true);
        self.node.wait_until_ready(&self.cluster);
        eventually_within("the pod runs", BACK_OFF, || {
            self.list("pods").iter().any(|pod| {
                pod["metadata"]["name"] == "no-sandbox" && pod["status"]["phase"] == "Running"
            })
        });
        eventually_within("the sandbox is there", Duration::from_mins(1), || {
            value(self).is_none()
        });
        self.delete("no-sandbox");
    }

    /// containerd without `config_path`; the daemon reads config.toml when it starts.
    pub fn without_hosts(&mut self) {
        self.node.stop_runtime();
        self.node.start_runtime(&sandbox(), false);
        self.node.wait_until_ready(&self.cluster);
        self.restart_daemon();
    }

    /// The pod of the active replica is deleted, and the other replica has its knowledge.
    pub fn replace_watcher(&self) {
        let (before, _) = self.watcher().unwrap();
        let path = format!("/api/v1/namespaces/{}/pods", install::NAMESPACE);
        let pods = self.cluster.ask("GET", &path, None);
        let at = before.ip().to_string();
        let pod = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|pod| pod["status"]["podIP"] == at.as_str());
        let name = pod.unwrap()["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        self.cluster.ask("DELETE", &format!("{path}/{name}"), None);
        eventually_within("another replica is active", Duration::from_mins(2), || {
            self.watcher().is_some_and(|(now, _)| now != before)
        });
    }

    pub fn delete(&self, pod: &str) {
        let path = format!("/api/v1/namespaces/{SHOP}/pods/{pod}");
        self.cluster.ask("DELETE", &path, None);
        eventually_within(&format!("{pod} is gone"), Duration::from_mins(2), || {
            !self
                .list("pods")
                .iter()
                .any(|one| one["metadata"]["name"] == pod)
        });
    }

    /// Pods that waited are deleted: the daemon forgets them at once.
    pub fn delete_all(&self, cases: &[Case]) {
        for case in cases {
            let path = format!("/api/v1/namespaces/{SHOP}/pods/{}", case.name);
            self.cluster.ask("DELETE", &path, None);
        }
        eventually_within("no pod is left", Duration::from_mins(5), || {
            let is_case = |pod: &Value| {
                cases
                    .iter()
                    .any(|case| pod["metadata"]["name"] == case.name)
            };
            !self.list("pods").iter().any(is_case)
        });
        eventually_within("no target is left", Duration::from_mins(1), || {
            let seen = self.seen();
            cases.iter().all(|case| seen.of(case).pull.is_none())
        });
        // Events do not show that a pod is deleted: 11 minutes without one do (docs/pulls.md).
        eventually_within("no failure is left", Duration::from_mins(13), || {
            self.seen().pulls["failing"]
                .as_array()
                .is_some_and(Vec::is_empty)
        });
    }
}
