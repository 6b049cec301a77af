//! `probe -f`: the images of a manifest, with what it says of their pull.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod support;

use harness::{Outcome, Probe};
use pullpath::diagnose::Pull;
use pullpath::diagnose::level::Severity;
use support::registry::{Auth, Redirect};
use support::{PUBLIC_REPOSITORY, World};

/// The deployment of CCE's documentation, and the Secret that kubectl makes for it.
const DEPLOYMENT: &str = include_str!("data/cce-deployment.yaml");
const SECRET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cce-secret.yaml");

/// A world in which www.example.com is that registry.
async fn www_example_com() -> (World, String) {
    let world = World::healthy().await;
    world
        .registry
        .store
        .push("janedoe/awesomeapp", "v1", &world.image);
    {
        let mut knobs = world.registry.knobs();
        knobs.redirect = Redirect::Direct;
        knobs.auth = Auth::Basic {
            user: "ssl".to_owned(),
            password: "xxx".to_owned(),
        };
    }
    let server = format!("server = \"https://{}\"\n[host]\n", world.registry_host());
    let folder = world.certs_d_for("www.example.com", &server);
    (world, folder.to_str().unwrap().to_owned())
}

async fn run(world: &World, hosts: &str, manifest: &str, secret: Option<&str>) -> Outcome {
    let mut probe = Probe::of(world)
        .anonymous()
        .args(["--hosts-dir", hosts])
        .manifest(manifest);
    if let Some(secret) = secret {
        probe = probe.args(["--secret-file", secret]);
    }
    probe.run().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deployment_of_cces_documentation_would_pull() {
    let (world, hosts) = www_example_com().await;
    let outcome = run(&world, &hosts, DEPLOYMENT, Some(SECRET)).await;
    outcome.is_quiet();
    let evidence = &outcome.report().evidence;
    assert_eq!(
        evidence.reference.to_string(),
        "www.example.com/janedoe/awesomeapp:v1"
    );
    let credential = evidence
        .walk
        .accepted()
        .unwrap()
        .credential
        .as_ref()
        .unwrap();
    assert_eq!(
        credential.to_string(),
        "secret default/test key 'www.example.com'"
    );
    let text = outcome.text();
    assert!(
        text.contains("for Deployment default/foo, container container-0 (imagePullPolicy Always)"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_secret_it_is_said_which_one_is_wanted() {
    let (world, hosts) = www_example_com().await;
    let outcome = run(&world, &hosts, DEPLOYMENT, None).await;
    outcome.shows("secret_missing", Severity::Critical, Pull::Unknown);
    let hint = &outcome.report().verdict.findings[0].hint;
    assert!(
        hint.contains("kubectl get secret test -n default"),
        "{hint}"
    );
    let elsewhere = DEPLOYMENT.replace("namespace: default", "namespace: shop");
    run(&world, &hosts, &elsewhere, Some(SECRET)).await.shows(
        "secret_other_namespace",
        Severity::Critical,
        Pull::WouldFail,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_annotation_is_reported_beside_a_good_pull() {
    let (world, hosts) = www_example_com().await;
    for (from, to, code, severity, pull) in [
        (
            "'5'",
            "'5000'",
            "eip_annotation_invalid",
            Severity::Warning,
            Pull::WouldSucceed,
        ),
        (
            "5_bgp",
            "5_lan",
            "eip_annotation_invalid",
            Severity::Warning,
            Pull::WouldSucceed,
        ),
        (
            "eip-charge-mode: bandwidth",
            "eip-charge-mode: month",
            "eip_annotation_invalid",
            Severity::Critical,
            Pull::WouldFail,
        ),
        (
            "'true'",
            "'false'",
            "eip_annotation_without_effect",
            Severity::Warning,
            Pull::WouldSucceed,
        ),
    ] {
        let manifest = DEPLOYMENT.replace(from, to);
        run(&world, &hosts, &manifest, Some(SECRET))
            .await
            .shows(code, severity, pull);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_count_in_the_pods_order_and_no_others() {
    let world = World::healthy().await;
    let secret = |name: &str, password: &str| {
        World::secret(&world.registry_host(), support::USER, password)
            .replace("name: regcred", &format!("name: {name}"))
    };
    // Beside the pod, as kustomize prints them.
    let manifest = format!(
        "{}---\n{}---\n{}---\nkind: Pod\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{imagePullSecrets: [{{name: b}}, {{name: a}}], containers: [{{name: c, image: 'IMAGE'}}]}}\n",
        secret("a", support::PASSWORD),
        secret("b", "canary-7f3a9c-wrong"),
        secret("c", support::PASSWORD),
    );
    let outcome = Probe::of(&world)
        .anonymous()
        .manifest(&manifest)
        .run()
        .await;
    outcome.shows("auth_bad_cred", Severity::Warning, Pull::WouldSucceed);
    let tried: Vec<String> = outcome
        .report()
        .evidence
        .walk
        .attempts
        .iter()
        .map(|a| a.credential.as_ref().unwrap().source.to_string())
        .collect();
    assert_eq!(tried, ["secret shop/b", "secret shop/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_images_are_probed_and_the_same_one_once() {
    let world = World::healthy().await;
    let public = world.public_reference();
    assert!(public.contains(PUBLIC_REPOSITORY));
    let manifest = format!(
        "kind: StatefulSet\nmetadata: {{name: s}}\nspec: {{template: {{spec: {{\
         initContainers: [{{name: i, image: '{public}'}}], \
         containers: [{{name: a, image: '{public}'}}, {{name: b, image: 'IMAGE'}}]}}}}}}\n"
    );
    let outcome = Probe::of(&world).manifest(&manifest).run().await;
    assert_eq!(outcome.code, 2, "the private one's Secret is named nowhere");
    let reports = &outcome.document.reports;
    assert_eq!(reports.len(), 2);
    let containers: Vec<&str> = reports[0]
        .evidence
        .pods
        .iter()
        .map(|p| p.container.as_str())
        .collect();
    assert_eq!(containers, ["i", "a"]);
    assert_eq!(reports[1].evidence.pods[0].container, "b");
    assert_eq!(reports[0].verdict.pull, Pull::WouldSucceed);
    assert_eq!(
        reports[1].verdict.findings[0].cause.code(),
        "secret_not_named"
    );
}
