//! Transfer tests shared by nodes: daemons beside a real API server and Debian's docker-registry behind
//! nginx, whose log tells who read what and when.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is told in one piece")]
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
use pullpath::daemon::metrics::FAMILIES;
use pullpath::daemon::schedule::Moment;
use pullpath::daemon::spread::{How, Spread};
use pullpath::daemon::turns::{Decision, Egress, Group, Learned, Pass, Rule, Turn, Way};
use pullpath::kubernetes::client::connect;
use pullpath::kubernetes::lease::{Candidate, Leases, Now};
use pullpath::model::credential::{CredentialId, CredentialSource};
use pullpath::model::path::PathClass;
use serde_json::{Value, json};
use stack::{Mode, Registry, TAG, nginx_args, push};
use support::image::{Flavour, Image};
use tempfile::TempDir;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Turns come in the quarter of it, which is 6 s.
const EPOCH: Duration = Duration::from_secs(24);

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

    /// Reads of layers, by node: from when to when, in seconds since 1970. A reach check reads one byte.
    fn tests(&self) -> Vec<(String, f64, f64)> {
        let log = std::fs::read_to_string(self.folder.path().join("access.log"));
        let mut reads: Vec<(String, f64, f64)> = Vec::new();
        for line in log.unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let mut number = || words.next().unwrap().parse::<f64>().unwrap();
            let (end, took, sent) = (number(), number(), number());
            let path = words.nth(1).unwrap_or_default();
            if !path.contains("/blobs/") || sent < 100_000.0 {
                continue;
            }
            let node = path.split('/').nth(3).unwrap().to_owned();
            // Several streams are one test.
            match reads.iter_mut().rev().find(|(known, ..)| *known == node) {
                Some((_, _, until)) if end - took - *until < 2.0 => *until = end.max(*until),
                _ => reads.push((node, end - took, end)),
            }
        }
        reads
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

fn now() -> Moment {
    let now = Timestamp::now().duration_since(Timestamp::UNIX_EPOCH);
    Moment(Duration::try_from(now).unwrap())
}

/// What the daemons of this test share: a registry on this host is reached without leaving it.
fn group(registry: &str) -> Group {
    let way = Way {
        class: Some(PathClass::Intranet),
        egress: Egress::Inside,
        place: None,
    };
    Group::of_way(registry, &way, &Rule::transfers(EPOCH, 2))
}

fn at_api(cluster: &Cluster, lease: &str) -> Option<Value> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/pullpath/leases/{lease}");
    let (status, lease) = cluster.curl(kube::ADMIN, "GET", &path, None)?;
    (status == 200).then_some(lease)
}

fn turns(daemons: &[Daemon], by: &str) -> f64 {
    let name = format!("pullpath_spread_turns_total{{by=\"{by}\"}}");
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
async fn of_three_nodes_two_test_in_each_epoch_one_at_a_time_and_without_the_api_server_none_guesses()
 {
    let world = World::start();
    let mut cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    cluster.allow("node", &rights());
    let kubeconfig = cluster.kubeconfig("node");
    let daemons = NODES.map(|node| world.daemon(node, &kubeconfig, EPOCH));
    let group = group(&world.registry());
    // The ways are known after the first reach checks.
    eventually_within("a first check of each", Duration::from_mins(1), || {
        let is_ready = |daemon: &Daemon| daemon.get("/readyz").body.contains("1 of 1");
        daemons.iter().all(is_ready)
    });
    let begun = now();
    let whole = |count: u64| {
        let first = begun.0.as_secs() / EPOCH.as_secs() + 1;
        (first..first + count).map(|number| number * EPOCH.as_secs())
    };
    let end = whole(3).next_back().unwrap() + EPOCH.as_secs();
    eventually_within("three epochs", EPOCH * 5, || now().0.as_secs() > end);

    let tests = world.tests();
    let mut ordered: Vec<_> = tests.iter().collect();
    ordered.sort_by(|a, b| a.1.total_cmp(&b.1));
    for pair in ordered.windows(2) {
        assert!(pair[0].2 <= pair[1].1, "two at once: {tests:#?}");
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    for epoch in whole(3) {
        let within = |at: f64| (epoch as f64..(epoch + EPOCH.as_secs()) as f64).contains(&at);
        let made: Vec<&str> = tests
            .iter()
            .filter(|(_, from, _)| within(*from))
            .map(|(node, ..)| node.as_str())
            .collect();
        // By the hash alone it can be told who: the lowest two, one after the other.
        let before = Moment(Duration::from_millis(epoch * 1000 - 1));
        let turn = |node: &str| Turn::after(&group, &Rule::transfers(EPOCH, 2), node, before);
        let mut lowest = NODES.map(|node| (turn(node).at, node));
        lowest.sort_by_key(|(at, _)| *at);
        // Where an epoch's turns come at its very end, the second one has no time left to wait for
        // the first: epochs are hours, elsewhere.
        let last = lowest[1].0.after(Duration::from_secs(6));
        // And one of the epoch before that lasts into this one is in its way.
        let is_clear = !tests
            .iter()
            .any(|(_, from, until)| *from < epoch as f64 && *until > lowest[0].0.0.as_secs_f64());
        if is_clear && last.0.as_secs() < epoch + EPOCH.as_secs() {
            assert_eq!(made.len(), 2, "{lowest:?} {tests:#?}");
        } else {
            assert!((1..=2).contains(&made.len()), "{lowest:?} {tests:#?}");
        }
        if is_clear {
            assert_eq!(made[0], lowest[0].1, "{lowest:?} {tests:#?}");
        }
    }
    let lease = at_api(&cluster, &group.lease).expect("the group's Lease");
    assert!(
        lease["spec"].get("holderIdentity").is_none(),
        "given up: {lease}"
    );
    let note: Value = serde_json::from_str(
        lease["metadata"]["annotations"][group.note.as_str()]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert!((1..=2).contains(&note["done"].as_u64().unwrap()), "{note}");
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let made = tests.len() as f64;
    assert!((turns(&daemons, "lease") - made).abs() < 1.5, "{tests:#?}");
    assert!(skipped(&daemons, &["spread_enough", "spread_late"]) >= 3.0);
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
        assert_eq!(types.next().as_deref(), Some(family.kind.as_str()));
    }

    // Somebody else holds the Lease, and does not let go: nobody tests.
    let client = connect(Some(&kubeconfig), None).await.unwrap();
    let leases = Leases::new(client, "pullpath");
    let mut stranger = Candidate::new(leases, &group.lease, "stranger", Duration::from_mins(1));
    eventually_within("a moment without a holder", Duration::from_secs(30), || {
        let held = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current()
                .block_on(stranger.acquire(Now::read(), &BTreeMap::new()))
        });
        held.is_ok()
    });
    // A test that has just ended may still be on its way into the log.
    std::thread::sleep(Duration::from_secs(1));
    let before = world.tests().len();
    std::thread::sleep(EPOCH + Duration::from_secs(2));
    assert_eq!(world.tests().len(), before, "{:#?}", world.tests());
    stranger
        .release(Now::read(), &BTreeMap::new())
        .await
        .unwrap();
    eventually_within("tests again", EPOCH * 2, || world.tests().len() > before);

    // Nobody answers: what was learned decides, checks go on, and nothing waits.
    cluster.stop_server();
    let lost = |daemon: &Daemon| {
        let metrics = daemon.metrics();
        metrics.value("pullpath_spread_leases_reachable") == Some(0.0)
    };
    eventually_within("that Leases are out of reach", EPOCH * 3, || {
        daemons.iter().all(lost)
    });
    let decided =
        || turns(&daemons, "hash") + skipped(&daemons, &["spread_by_hash", "spread_unsure"]);
    eventually_within("decisions by hash", EPOCH * 3, || decided() >= 4.0);
    for daemon in &daemons {
        let begun = Instant::now();
        let ready = daemon.get("/readyz");
        assert!(ready.body.contains("Leases are out of reach"), "{ready:?}");
        assert!(!daemon.check("app", "reach").reports.is_empty());
        assert!(begun.elapsed() < Duration::from_secs(5));
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
async fn who_may_not_have_leases_is_told_what_it_needs_and_does_not_test() {
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
        skipped(std::slice::from_ref(&daemon), &["spread_unsure"]) >= 1.0
    });
    assert_eq!(world.tests(), []);
    assert!(daemon.get("/").body.contains("Leases are out of reach"));
    // On demand is the operator's own wish.
    daemon.check("app", "transfer");
    assert_eq!(world.tests().len(), 1);
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
        Arc::new(Spread::new(leases, node, Duration::from_secs(90)))
    };
    let group = group("r.test");
    let rule = Rule::transfers(EPOCH, 2);
    let turn = |node: &str| Turn::after(&group, &rule, node, now());
    let epoch = turn("a").epoch.max(turn("b").epoch).max(turn("c").epoch);
    let turn = |node: &str| {
        let before = Moment(Duration::from_millis(epoch * 1000 - 1));
        Turn::after(&group, &rule, node, before)
    };
    let nodes = ["a", "b", "c"].map(|node| (spread(node), turn(node)));
    let look = async |at: usize| {
        let (spread, turn) = &nodes[at];
        spread.look(turn, Learned::default(), turn.at).await
    };
    // All at once: one has it.
    let (a, b, c) = tokio::join!(look(0), look(1), look(2));
    let mut all = [a, b, c];
    all.sort_by_key(|looked| !looked.is_mine());
    let [first, others @ ..] = all;
    assert!(first.is_mine() && first.how == How::Lease);
    for other in others {
        assert!(
            matches!(
                other.decision,
                Decision::Later(_) | Decision::Pass(Pass::Late)
            ),
            "{other:?}"
        );
    }
    first.holding.unwrap().end().await;
    let second = look(1).await;
    second.holding.expect("the second place").end().await;
    let third = look(2).await;
    assert_eq!(third.decision, Decision::Pass(Pass::Enough));
    assert_eq!(
        third.learned.of(&group).len(),
        1,
        "what sufficed is learned"
    );

    // A NAT gateway in common: another way waits while one is tested.
    let other = Group {
        note: "pullpath/other".to_owned(),
        ..group.clone()
    };
    let mut turn = turn("a");
    turn.group = other;
    let held = nodes[0].0.look(&turn, Learned::default(), turn.at).await;
    let refused = look(2).await;
    assert_eq!(refused.decision, Decision::Pass(Pass::Enough));
    held.holding.unwrap().end().await;
    let lease = at_api(&cluster, &group.lease).unwrap();
    let annotations = lease["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(annotations.len(), 2, "{lease}");

    // A rejected credential, of which nothing but its place is in the name.
    let id = CredentialId {
        source: CredentialSource::SecretFile {
            path: "the cluster".to_owned(),
            namespace: Some("shop".to_owned()),
            name: "pull".to_owned(),
        },
        key: "r.test".to_owned(),
    };
    let group = Group::of_credential("r.test", &id);
    let rejected = Moment(Duration::from_secs(now().0.as_secs() - 7200));
    let hour = Moment(Duration::from_secs(now().0.as_secs() / 3600 * 3600 - 1));
    let turn = |node: &str| Turn::after(&group, &Rule::RETRIES, node, hour);
    let look = async |at: usize, node: &str| {
        let turn = turn(node);
        let at_time = turn.at;
        nodes[at]
            .0
            .look_for_retry(&turn, rejected, Learned::default(), at_time)
            .await
    };
    let first = look(0, "a").await;
    assert_eq!((first.decision, first.how), (Decision::Mine, How::Lease));
    assert_eq!(look(1, "b").await.decision, Decision::Pass(Pass::Enough));
    let of_a = turn("a");
    nodes[0]
        .0
        .clone()
        .tell_accepted(of_a.clone(), of_a.at)
        .await;
    let told = look(1, "b").await;
    assert_eq!((told.decision, told.how), (Decision::Mine, How::Accepted));

    // Away: at once, and nothing is guessed.
    cluster.stop_server();
    let begun = Instant::now();
    assert_eq!(look(2, "c").await.decision, Decision::Pass(Pass::Unsure));
    let (spread, turn) = &nodes[2];
    let away = spread.look(turn, third.learned, turn.at).await;
    assert_eq!(away.how, How::Hash);
    assert!(
        begun.elapsed() < Duration::from_secs(21),
        "{:?}",
        begun.elapsed()
    );
}
