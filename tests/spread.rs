//! Transfer tests shared by nodes: daemons beside a real API server and Debian's docker-registry behind nginx,
//! whose log shows who read what and when.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]
#![allow(clippy::format_collect, reason = "a test's strings are short")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;
mod operated;
#[path = "real/stack.rs"]
mod stack;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Cluster;
use lab::free_port;
use lab::process::Process;
use operated::{Daemon, eventually, eventually_within};
use pullpath::daemon::coordination::group::{EgressGroup, LeaseGroup};
use pullpath::daemon::coordination::lease::{AllowedBy, NOTE, SharedLeases};
use pullpath::daemon::coordination::slots::{Decision, Rule, SkipReason, Slot};
use pullpath::daemon::http::metrics::FAMILIES;
use pullpath::daemon::schedule::clock::Moment;
use pullpath::kubernetes::client::connect;
use pullpath::kubernetes::lease::{Candidate, Clocks, Leases};
use pullpath::model::credential::{CredentialId, CredentialSource};
use serde_json::{Value, json};
use stack::{Mode, Registry, TAG, nginx_args, push};
use support::image::{Flavour, Image};
use tempfile::TempDir;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

const EPOCH: Duration = Duration::from_secs(24);

const RULE: Rule = Rule {
    epoch: EPOCH,
    nodes: 2,
};

/// docs/spread.md has the same.
fn rights() -> Value {
    json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}])
}

/// A registry with a repository for each node, slow enough that tests take a second.
struct World {
    folder: TempDir,
    port: u16,
    _nginx: Process,
    _registry: Registry,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("storage");
        let registry = Registry::start(folder.path(), "registry", &storage, &Mode::Open, None);
        for (seed, node) in (1..).zip(NODES) {
            let own = folder.path().join(node);
            std::fs::create_dir(&own).unwrap();
            let image = Image::build(seed, Flavour::Oci, &["amd64", "arm64"], &[1 << 20]);
            let to = format!("127.0.0.1:{}/team/{node}:{TAG}", registry.port);
            push(&own, &image, &to, &[]);
        }
        let port = free_port();
        let log = folder.path().join("access.log");
        let servers = format!(
            "log_format times '$msec $request_time $bytes_sent $request';\n\
             server {{ listen 127.0.0.1:{port}; access_log {} times; limit_rate 1m;\n\
             location / {{ proxy_pass http://127.0.0.1:{}; proxy_set_header Host $http_host; }} }}\n",
            log.display(),
            registry.port
        );
        let mut command = Command::new("nginx");
        nginx_args(&mut command, &folder.path().join("nginx"), &servers);
        let nginx = Process::start("nginx", &mut command, folder.path()).listening(port);
        Self {
            folder,
            port,
            _nginx: nginx,
            _registry: registry,
        }
    }

    fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Reads of layers: by which node, from when to when, in seconds since 1970. A reach check reads one byte.
    fn reads(&self) -> Vec<(String, f64, f64)> {
        let log = std::fs::read_to_string(self.folder.path().join("access.log"));
        let mut reads = Vec::new();
        for line in log.unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let mut number = || words.next().unwrap().parse::<f64>().unwrap();
            let (end, took, sent) = (number(), number(), number());
            let path = words.nth(1).unwrap_or_default();
            if !path.contains("/blobs/") || sent < 100_000.0 {
                continue;
            }
            let node = path.split('/').nth(3).unwrap().to_owned();
            reads.push((node, end - took, end));
        }
        reads
    }

    /// Those of transfer tests that have ended, by what the nodes say themselves: a reach check closes its
    /// connection after the first bytes of a layer, and beside busy programs nginx has sent much more before it
    /// sees that.
    fn test_reads(&self, daemons: &[Daemon]) -> Vec<(String, f64, f64)> {
        let checks: Vec<_> = daemons.iter().map(checks_of).collect();
        let mut reads = self.reads();
        reads.retain(|(node, from, _)| {
            // A node has one target, and so one check at a time.
            let mut of_node = checks[at(node)].iter();
            let check = of_node.find(|(logged_at, _)| logged_at >= from);
            check.is_some_and(|(_, tier)| tier == "transfer")
        });
        reads
    }

    /// Tests that have ended, each with the epoch of its slot: the first layer may be read long after the slot
    /// began. Several streams are one test.
    fn tests(&self, daemons: &[Daemon]) -> Vec<Test> {
        let slots: Vec<_> = daemons
            .iter()
            .map(|daemon| slots_of(daemon, "this node used its slot"))
            .collect();
        let mut tests: Vec<Test> = Vec::new();
        for (node, from, until) in self.test_reads(daemons) {
            let mut of_node = slots[at(&node)].iter();
            let Some(slot) = of_node.find(|slot| slot.at >= from) else {
                continue;
            };
            let same = |test: &&mut Test| test.node == node && test.epoch == slot.epoch;
            match tests.iter_mut().find(same) {
                Some(test) => {
                    test.from = test.from.min(from);
                    test.until = test.until.max(until);
                }
                None => tests.push(Test {
                    node,
                    epoch: slot.epoch,
                    from,
                    until,
                }),
            }
        }
        tests.sort_by(|a, b| a.from.total_cmp(&b.from));
        tests
    }

    fn daemon(&self, node: &str, kubeconfig: &Path, epoch: Duration) -> Daemon {
        Daemon::start(&format!(
            "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nlog: {{format: json, level: debug}}\n\
             vantage: {{node: {node}}}\nnetwork: {{metadata: off}}\nkubernetes: {{kubeconfig: '{}'}}\n\
             spread: {{transfers: leases, epoch: {}s, namespace: pullpath}}\n\
             schedule: {{reach: 10s}}\nbudgets: {{transfer_bytes: 1MiB}}\n\
             targets:\n  - {{name: app, image: '{}/team/{node}:{TAG}', plain_http: true}}\n",
            kubeconfig.display(),
            epoch.as_secs(),
            self.registry(),
        ))
    }
}

/// A transfer test, in seconds since 1970.
#[derive(Debug)]
struct Test {
    node: String,
    epoch: u64,
    from: f64,
    until: f64,
}

/// A slot in a daemon's log.
#[derive(Debug)]
struct LoggedSlot {
    epoch: u64,
    /// When it was written down, which is after the test.
    at: f64,
    /// Why there was none.
    why: Option<String>,
}

fn at(node: &str) -> usize {
    NODES.iter().position(|one| *one == node).unwrap()
}

/// Lines of a daemon's log: when each was written, and its fields.
fn lines(daemon: &Daemon, message: &str) -> Vec<(f64, Value)> {
    let message = format!("\"message\":\"{message}\"");
    let log = daemon.log();
    let lines = log.iter().filter(|line| line.contains(&message));
    lines
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let logged_at: Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
            let logged_at = logged_at
                .duration_since(Timestamp::UNIX_EPOCH)
                .as_secs_f64();
            (logged_at, line["fields"].take())
        })
        .collect()
}

/// When its checks had ended, and of which tier they were.
fn checks_of(daemon: &Daemon) -> Vec<(f64, String)> {
    let tier = |fields: &Value| fields["tier"].as_str().unwrap().to_owned();
    let checks = lines(daemon, "checked").into_iter();
    checks
        .map(|(logged_at, fields)| (logged_at, tier(&fields)))
        .collect()
}

fn slots_of(daemon: &Daemon, message: &str) -> Vec<LoggedSlot> {
    let slots = lines(daemon, message).into_iter();
    slots
        .map(|(logged_at, fields)| LoggedSlot {
            epoch: fields["epoch"].as_u64().unwrap(),
            at: logged_at,
            why: fields["why"].as_str().map(str::to_owned),
        })
        .collect()
}

fn now() -> Moment {
    let now = Timestamp::now().duration_since(Timestamp::UNIX_EPOCH);
    Moment(Duration::try_from(now).unwrap())
}

/// What the daemons of this test share: a registry on this host is reached without leaving it.
fn group(registry: &str, rule: &Rule) -> LeaseGroup {
    LeaseGroup::of_path(registry, &EgressGroup::Private(None), rule)
}

fn at_api(cluster: &Cluster, lease: &str) -> Option<Value> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/pullpath/leases/{lease}");
    let (status, lease) = cluster.curl(kube::ADMIN, "GET", &path, None)?;
    (status == 200).then_some(lease)
}

fn slots(daemons: &[Daemon], by: &str) -> f64 {
    let name = format!("pullpath_spread_slots_total{{by=\"{by}\"}}");
    let value = |daemon: &Daemon| daemon.metrics().value(&name).unwrap_or(0.0);
    daemons.iter().map(value).sum()
}

fn skipped(daemons: &[Daemon], reasons: &[&str]) -> f64 {
    let value = |daemon: &Daemon| -> f64 {
        let metrics = daemon.metrics();
        let name = |reason| format!("pullpath_checks_skipped_total{{reason=\"{reason}\"}}");
        let values = reasons.iter().map(|reason| metrics.value(&name(reason)));
        values.map(Option::unwrap_or_default).sum()
    };
    daemons.iter().map(value).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_nodes_two_test_in_each_epoch_one_at_a_time_and_without_the_api_server_none() {
    let world = World::start();
    let mut cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    cluster.allow("node", &rights());
    let kubeconfig = cluster.kubeconfig("node");
    let daemons = NODES.map(|node| world.daemon(node, &kubeconfig, EPOCH));
    let group = group(&world.registry(), &RULE);
    // The paths are known after the first reach checks.
    eventually_within("a first check of each", Duration::from_mins(1), || {
        let is_checked = |daemon: &Daemon| {
            let ready = daemon.get("/readyz").body;
            ready.contains("would succeed") || ready.contains("1 of 1")
        };
        daemons.iter().all(is_checked)
    });
    let begun = now();
    let whole = |count: u64| {
        let first = RULE.begin(&world.registry(), begun) + EPOCH.as_secs();
        (0..count).map(move |number| first + number * EPOCH.as_secs())
    };
    let end = whole(3).next_back().unwrap() + EPOCH.as_secs();
    eventually_within("three epochs", EPOCH * 5, || now().0.as_secs() > end);

    let slots_had = || -> Vec<LoggedSlot> {
        let of = |daemon| slots_of(daemon, "this node used its slot");
        daemons.iter().flat_map(of).collect()
    };
    let why = |epoch: u64| -> Vec<String> {
        let of = |daemon| slots_of(daemon, "this node skips its slot");
        let skipped = daemons.iter().flat_map(of);
        let skipped = skipped.filter(|slot| slot.epoch == epoch);
        skipped.filter_map(|slot| slot.why).collect()
    };
    let says = |epoch: u64, reason: &str| why(epoch).iter().any(|why| why == reason);
    let made = |tests: &[Test], epoch: u64| tests.iter().filter(|t| t.epoch == epoch).count();
    // Where two slots come at the very end of an epoch, or at the same moment, or a test takes long, fewer than
    // two test: epochs are hours, elsewhere. It says so then.
    let is_short = |epoch| says(epoch, "spread_late") || says(epoch, "spread_conflict");
    eventually_within("two of each, or a reason", Duration::from_mins(1), || {
        let tests = world.tests(&daemons);
        whole(3).all(|epoch| made(&tests, epoch) >= 2 || is_short(epoch))
    });
    let tests = world.tests(&daemons);
    for pair in tests.windows(2) {
        assert!(pair[0].until <= pair[1].from, "two at once: {tests:#?}");
    }
    for test in &tests {
        let before = Moment(Duration::from_millis(test.epoch * 1000 - 1));
        let slot = Slot::after(&world.registry(), &RULE, &test.node, before);
        assert_eq!(slot.epoch, test.epoch);
        assert!(
            test.from >= slot.at.0.as_secs_f64(),
            "too early: {slot:?} {tests:#?}"
        );
    }
    for epoch in whole(3) {
        let (made, why) = (made(&tests, epoch), why(epoch));
        assert!(made <= 2, "{epoch} {why:?} {tests:#?}");
        if says(epoch, "spread_enough") {
            assert_eq!(made, 2, "{epoch} {why:?} {tests:#?}");
        }
    }
    assert!(tests.len() >= 3, "{tests:#?}");
    // The nodes go on: it is held again whenever one tests.
    eventually_within("the Lease is given up", Duration::from_secs(30), || {
        let lease = at_api(&cluster, &group.lease).expect("the group's Lease");
        lease["spec"].get("holderIdentity").is_none()
    });
    let lease = at_api(&cluster, &group.lease).expect("the group's Lease");
    let note: Value =
        serde_json::from_str(lease["metadata"]["annotations"][NOTE].as_str().unwrap()).unwrap();
    assert!((1..=2).contains(&note["done"].as_u64().unwrap()), "{note}");
    // Each slot was a test; one that ends just now may be counted on one side only.
    let (made, had) = (world.tests(&daemons).len(), slots_had().len());
    assert!(made.abs_diff(had) <= 1, "{made} {had} {tests:#?}");
    assert!(slots(&daemons, "lease") >= 3.0);
    let reasons = ["spread_enough", "spread_late", "spread_conflict"];
    assert!(skipped(&daemons, &reasons) >= 1.0);
    for family in FAMILIES
        .iter()
        .filter(|family| family.name.starts_with("pullpath_spread_"))
    {
        let metrics = daemons[0].metrics();
        if family.name == "pullpath_spread_leases_reachable" {
            assert_eq!(metrics.value(family.name), Some(1.0));
        }
        let types = daemons.iter().map(|daemon| daemon.metrics().types);
        let mut types = types.filter_map(|types| types.get(family.name).cloned());
        assert_eq!(types.next().as_deref(), Some(family.kind));
    }

    // Another node holds the Lease, and does not release it: no node tests.
    let client = connect(Some(&kubeconfig), None).await.unwrap();
    let leases = Leases::new(client, "pullpath");
    let mut stranger = Candidate::new(leases, &group.lease, "stranger", Duration::from_mins(1));
    eventually_within("a moment without a holder", Duration::from_secs(30), || {
        let held = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current()
                .block_on(stranger.acquire(Clocks::read(), &BTreeMap::new()))
        });
        held.is_ok()
    });
    // A test that has just ended may still be on its way into the log.
    std::thread::sleep(Duration::from_secs(1));
    let tested = || world.test_reads(&daemons).len();
    let before = tested();
    std::thread::sleep(EPOCH + Duration::from_secs(2));
    assert_eq!(tested(), before, "{:#?}", world.test_reads(&daemons));
    stranger
        .release(Clocks::read(), &BTreeMap::new())
        .await
        .unwrap();
    eventually_within("tests again", EPOCH * 2, || tested() > before);

    // The API server does not answer: tests are skipped, checks go on, and nothing waits.
    cluster.stop_server();
    let lost = |daemon: &Daemon| {
        let metrics = daemon.metrics();
        metrics.value("pullpath_spread_leases_reachable") == Some(0.0)
    };
    eventually_within("that Leases are out of reach", EPOCH * 3, || {
        daemons.iter().all(lost)
    });
    let had = slots_had().len();
    let before = skipped(&daemons, &["spread_no_api"]);
    eventually_within("skipped tests", EPOCH * 3, || {
        skipped(&daemons, &["spread_no_api"]) >= before + 3.0
    });
    assert_eq!(slots_had().len(), had, "none without a Lease");
    for daemon in &daemons {
        let begun = Instant::now();
        let ready = daemon.get("/readyz");
        assert!(
            ready.body.contains("Leases have been unusable"),
            "{ready:?}"
        );
        assert!(!daemon.check("app", "reach").reports.is_empty());
        // A request to the API server is given up after 10 s: who waits for one takes longer.
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    cluster.start_server();
    eventually_within("Leases again", EPOCH * 3, || {
        daemons.iter().all(|daemon| !lost(daemon))
    });
    for daemon in daemons {
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_rights_to_leases_reports_what_it_needs_and_does_not_test() {
    let world = World::start();
    let cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    let daemon = world.daemon("n1", &cluster.kubeconfig("nobody"), Duration::from_secs(10));
    eventually_within("that it is forbidden", Duration::from_mins(1), || {
        let ready = daemon.get("/readyz");
        ready.status == 200
            && ready.body.contains("RBAC must allow get of leases")
            && ready.body.contains("docs/spread.md")
    });
    eventually("the reason", || {
        skipped(std::slice::from_ref(&daemon), &["spread_no_api"]) >= 1.0
    });
    let tested = || world.test_reads(std::slice::from_ref(&daemon));
    assert_eq!(tested(), []);
    assert!(daemon.get("/").body.contains("Leases have been unusable"));
    // A check on demand is the operator's own decision.
    daemon.check("app", "transfer");
    // nginx writes its log when it has sent all.
    eventually("its reads", || !tested().is_empty());
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_lock_and_count_in_one() {
    let mut cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    cluster.allow("node", &rights());
    let client = connect(Some(&cluster.kubeconfig("node")), None)
        .await
        .unwrap();
    let spread = |node: &str| {
        let leases = Leases::new(client.clone(), "pullpath");
        Arc::new(SharedLeases::new(leases, node, Duration::from_secs(90)))
    };
    // Long enough that no answer comes after its end.
    let rule = Rule {
        epoch: Duration::from_hours(24),
        nodes: 2,
    };
    let group = group("r.test", &rule);
    let slot = Slot {
        rule,
        epoch: rule.begin("r.test", now()),
        at: now(),
    };
    let begins = Moment(Duration::from_secs(slot.epoch));
    let nodes = ["a", "b", "c"].map(spread);
    let ask = async |at: usize| nodes[at].ask(&group, &slot, begins).await;
    // All at once: one has it.
    let (a, b, c) = tokio::join!(ask(0), ask(1), ask(2));
    let mut all = vec![a, b, c];
    let winner = all
        .iter()
        .position(pullpath::daemon::coordination::lease::Answer::is_allowed)
        .unwrap();
    let first = all.remove(winner);
    assert!(first.by == AllowedBy::Lease);
    for other in all {
        assert!(
            matches!(
                other.decision,
                Decision::Later(_) | Decision::Skip(SkipReason::Conflict)
            ),
            "{other:?}"
        );
    }
    // While it is held, the others wait.
    let [next, last] = [(winner + 1) % 3, (winner + 2) % 3];
    assert!(!ask(next).await.is_allowed());
    assert!(!ask(last).await.is_allowed());
    first.holding.unwrap().end().await;
    let second = ask(next).await;
    second.holding.expect("the second node").end().await;
    let third = ask(last).await;
    assert_eq!(third.decision, Decision::Skip(SkipReason::Enough));
    let lease = at_api(&cluster, &group.lease).unwrap();
    let annotations = lease["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(annotations.len(), 1, "{lease}");

    // A note that is none: no test, and it is shown what to do.
    let broken = LeaseGroup {
        lease: "pullpath-transfer-broken".to_owned(),
        ..group.clone()
    };
    cluster.ask(
        "POST",
        "/apis/coordination.k8s.io/v1/namespaces/pullpath/leases",
        Some(&json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": broken.lease, "annotations": {NOTE: "{torn"}},
        })),
    );
    let unsure = nodes[0].ask(&broken, &slot, begins).await;
    assert_eq!(unsure.decision, Decision::Skip(SkipReason::Unreadable));
    let heard = format!("{:?}", nodes[0].access());
    assert!(heard.contains("delete that Lease"), "{heard}");

    // A rejected credential, of which nothing but its place is in the name.
    let id = CredentialId {
        source: CredentialSource::SecretFile {
            path: "the cluster".to_owned(),
            namespace: Some("shop".to_owned()),
            name: "pull".to_owned(),
        },
        key: "r.test".to_owned(),
    };
    let lease = LeaseGroup::of_credential("r.test", &id).lease;
    let rejected = Moment(Duration::from_secs(now().0.as_secs() - 7200));
    let hour = Slot {
        rule: Rule::RETRIES,
        epoch: Rule::RETRIES.begin(&lease, now()),
        at: now(),
    };
    let begins = Moment(Duration::from_secs(hour.epoch));
    let retry = async |at: usize| nodes[at].ask_retry(&lease, &hour, rejected, begins).await;
    let first = retry(0).await;
    assert!(first.is_allowed() && first.by == AllowedBy::Lease);
    assert_eq!(retry(1).await.decision, Decision::Skip(SkipReason::Enough));
    let reporter = Arc::clone(&nodes[0]);
    reporter
        .report_accepted(lease.clone(), hour.clone(), begins)
        .await;
    let informed = retry(1).await;
    assert!(informed.is_allowed() && informed.by == AllowedBy::Accepted);

    // Away: at once, and no test.
    cluster.stop_server();
    let begun = Instant::now();
    let no_api = Decision::Skip(SkipReason::NoApi);
    assert_eq!(retry(2).await.decision, no_api);
    assert_eq!(ask(2).await.decision, no_api);
    assert!(
        begun.elapsed() < Duration::from_secs(21),
        "{:?}",
        begun.elapsed()
    );
}
