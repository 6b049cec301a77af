//! Leases at a real API server: conflicts, take-overs, and what is said when it forbids or is away.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Cluster;
use pullpath::kubernetes::client::connect;
use pullpath::kubernetes::lease::{Candidate, Clocks, LeaseError, Leases};
use serde_json::{Value, json};
use tokio::time::Instant;

const LASTS: Duration = Duration::from_secs(15);

/// What holding one needs, and no more.
fn rights() -> Value {
    json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}])
}

async fn leases(cluster: &Cluster, user: &str, namespace: &str) -> Leases {
    let client = connect(Some(&cluster.kubeconfig(user)), None)
        .await
        .unwrap();
    Leases::new(client, namespace)
}

fn at_api(cluster: &Cluster, name: &str) -> Value {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/pullpath/leases/{name}");
    cluster.ask("GET", &path, None)
}

/// The time some seconds from now, without waiting.
fn later(seconds: u64) -> Clocks {
    let now = Clocks::read();
    Clocks {
        steady: now.steady + Duration::from_secs(seconds),
        ..now
    }
}

fn notes(text: &str) -> BTreeMap<String, String> {
    [("pullpath/test".to_owned(), text.to_owned())].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_holds_it_until_it_gives_it_up_or_has_gone() {
    let cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    cluster.allow("node", &rights());
    let leases = leases(&cluster, "node", "pullpath").await;
    let candidate = |holder: &str| Candidate::new(leases.clone(), "one", holder, LASTS);
    let (mut a, mut b) = (candidate("a"), candidate("b"));
    let none = BTreeMap::new();

    a.acquire(Clocks::read(), &notes("first")).await.unwrap();
    let created = at_api(&cluster, "one");
    assert_eq!(created["spec"]["holderIdentity"], "a");
    assert_eq!(created["spec"]["leaseDurationSeconds"], 15);
    assert_eq!(created["spec"]["leaseTransitions"], 0);
    assert_eq!(created["metadata"]["annotations"]["pullpath/test"], "first");

    // The other one waits for as long as it lasts, from when it saw it first, and as long again after
    // each renewal.
    let first = b.acquire(later(0), &none).await.unwrap_err();
    let LeaseError::Held { by, until } = &first else {
        panic!("{first:?}")
    };
    assert_eq!(by, "a");
    assert!(*until > Instant::now() + Duration::from_secs(13), "{first}");
    a.renew(Clocks::read(), &none).await.unwrap();
    let kept = at_api(&cluster, "one");
    assert_eq!(
        kept["metadata"]["annotations"]["pullpath/test"], "first",
        "a note stays until it is written again"
    );
    let error = b.acquire(later(16), &none).await.unwrap_err();
    assert!(matches!(error, LeaseError::Held { .. }), "{error:?}");
    b.acquire(later(32), &none).await.unwrap();
    let taken = at_api(&cluster, "one");
    assert_eq!(taken["spec"]["holderIdentity"], "b");
    assert_eq!(taken["spec"]["leaseTransitions"], 1);

    // The former holder learns that it has lost the Lease, and does not release it.
    assert_eq!(
        a.renew(Clocks::read(), &none).await,
        Err(LeaseError::Conflict)
    );
    assert!(!a.is_held());
    let error = a.renew(Clocks::read(), &none).await.unwrap_err();
    assert!(matches!(error, LeaseError::Held { .. }), "{error:?}");
    assert_eq!(
        a.release(Clocks::read(), &none).await,
        Ok(()),
        "nothing to do"
    );
    assert_eq!(at_api(&cluster, "one")["spec"]["holderIdentity"], "b");

    // Released: no one waits.
    b.release(Clocks::read(), &notes("done")).await.unwrap();
    assert!(
        at_api(&cluster, "one")["spec"]
            .get("holderIdentity")
            .is_none()
    );
    a.acquire(Clocks::read(), &none).await.unwrap();
    let again = at_api(&cluster, "one");
    assert_eq!(again["metadata"]["annotations"]["pullpath/test"], "done");
    assert_eq!(again["spec"]["leaseTransitions"], 2);

    // Deleted under its holder: it is not ours any more.
    let path = "/apis/coordination.k8s.io/v1/namespaces/pullpath/leases/one";
    cluster.ask("DELETE", path, None);
    assert_eq!(
        a.renew(Clocks::read(), &none).await,
        Err(LeaseError::Conflict)
    );
    a.renew(Clocks::read(), &none).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_take_it_at_once_one_has_it() {
    let cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    cluster.allow("node", &rights());
    let leases = leases(&cluster, "node", "pullpath").await;
    // Once none is there yet, then one that is free.
    for _ in 0..2 {
        let mut racing = tokio::task::JoinSet::new();
        for racer in 0..12 {
            let leases = leases.clone();
            racing.spawn(async move {
                let mut one = Candidate::new(leases, "raced", &format!("racer-{racer}"), LASTS);
                let acquired = one.acquire(Clocks::read(), &BTreeMap::new()).await;
                (one, acquired)
            });
        }
        let mut winners = Vec::new();
        for (one, acquired) in racing.join_all().await {
            match acquired {
                Ok(()) => winners.push(one),
                Err(LeaseError::Conflict | LeaseError::Held { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(winners.len(), 1);
        let mut winner = winners.remove(0);
        winner
            .release(Clocks::read(), &BTreeMap::new())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_distinguished_from_no_answer() {
    let mut cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    cluster.allow(
        "node",
        &json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]}]),
    );
    cluster.allow("cluster", &rights());
    let none = BTreeMap::new();
    let candidate = |leases| Candidate::new(leases, "one", "a", LASTS);

    let mut stranger = candidate(leases(&cluster, "nobody", "pullpath").await);
    let error = stranger.acquire(Clocks::read(), &none).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the API server forbids it: RBAC must allow get of leases (coordination.k8s.io) in the namespace pullpath"
    );
    let mut reader = candidate(leases(&cluster, "node", "pullpath").await);
    let error = reader.acquire(Clocks::read(), &none).await.unwrap_err();
    assert!(
        error.to_string().contains("allow create of leases"),
        "{error}"
    );
    let mut astray = candidate(leases(&cluster, "cluster", "not-there").await);
    let error = astray.acquire(Clocks::read(), &none).await.unwrap_err();
    assert!(matches!(error, LeaseError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("not-there"), "{error}");

    let mut holder = candidate(leases(&cluster, "cluster", "pullpath").await);
    holder.acquire(Clocks::read(), &none).await.unwrap();
    cluster.stop_server();
    let begun = Instant::now();
    let error = holder.renew(Clocks::read(), &none).await.unwrap_err();
    assert!(matches!(error, LeaseError::Unreachable(_)), "{error:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(11),
        "{:?}",
        begun.elapsed()
    );
    assert!(holder.is_held(), "until it expires");
    cluster.start_server();
    holder.renew(Clocks::read(), &none).await.unwrap();
    holder.release(Clocks::read(), &none).await.unwrap();
}

/// An API server that takes connections and says nothing: it is not waited for longer than it is worth.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_silent_is_not_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("http://{}", listener.local_addr().unwrap())}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "a"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let client = connect(Some(&path), None).await.unwrap();
    let leases = Leases::new(client, "pullpath");
    let begun = Instant::now();
    let error = leases.read("one").await.unwrap_err();
    let took = begun.elapsed();
    assert!(matches!(error, LeaseError::Unreachable(_)), "{error:?}");
    assert!((9..14).contains(&took.as_secs()), "{took:?}");
}
