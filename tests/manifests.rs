//! `probe -f`: the images of a manifest, with what it says of their pull.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Outcome, Probe};
use pullpath::diagnose::Pull;
use pullpath::diagnose::level::Severity;
use pullpath::model::reference::Reference;
use pullpath::report::text::{Style, render_all};
use pullpath::workload;
use serde_json::Value;
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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_read_is_unknown_beside_the_worst_of_the_rest() {
    let world = World::healthy().await;
    let public = world.public_reference();
    let pod =
        |image: &str| format!("kind: Pod\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n");
    let (good, bad) = (pod(&public), pod(&format!("{public}-absent")));
    let (template, patch) = (pod("$(image)"), pod(""));
    for (documents, code, notes) in [
        (vec![&good], 0, 0),
        (vec![&good, &patch], 0, 1),
        (vec![&template, &good], 2, 1),
        (vec![&bad, &template], 1, 1),
    ] {
        let documents: Vec<&str> = documents.iter().map(|one| one.as_str()).collect();
        let manifest = documents.join("---\n");
        let outcome = Probe::of(&world)
            .anonymous()
            .manifest(&manifest)
            .run()
            .await;
        let found = &outcome.document.notes;
        assert_eq!(
            (outcome.code, found.len()),
            (code, notes),
            "{manifest}{found:?}"
        );
        let text = render_all(&outcome.document, Style { color: false }, false);
        let is_named = text.contains("not read: ") && text.contains("$(image)");
        assert_eq!(is_named, code > 0, "{text}");
    }
}

/// The facts on the Secret's form in the report of `probe`, and of `secret check`.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_said_of_a_secret_by_both_commands() {
    let world = World::healthy().await;
    for (user, password) in [
        ("robot", support::PASSWORD),
        (support::USER, "\"canary-7f3a9c-wrong\""),
        (support::USER, "{{ .password }}"),
        ("oauth2accesstoken", "canary-7f3a9c-wrong"),
    ] {
        let secret = World::secret(&world.registry_host(), user, password);
        let file = world.write("slip.yaml", &secret);
        let outcome = Probe::of(&world)
            .anonymous()
            .args(["--secret-file", file.to_str().unwrap()])
            .run()
            .await;
        let checked = std::process::Command::new(env!("CARGO_BIN_EXE_pullpath"))
            .args(["secret", "check", "-o", "json"])
            .arg(&file)
            .output()
            .unwrap();
        let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
        let findings = checked["secrets"][0]["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{checked}");
        let fact = findings[0]["evidence"][0].as_str().unwrap();
        let said = outcome.report().verdict.findings.iter();
        let said: Vec<&String> = said.flat_map(|finding| &finding.evidence).collect();
        assert!(said.iter().any(|one| *one == fact), "{fact}\n{said:#?}");
    }
}

/// The images that are found in a file, and those that its notes name or that nothing was found.
fn found(bytes: &[u8]) -> (Vec<String>, String) {
    match workload::read(bytes, "f") {
        Ok(found) => {
            let uses = found.uses.iter();
            let mut images: Vec<String> = uses.map(|(image, _)| image.to_string()).collect();
            images.sort();
            let notes: Vec<String> = found.notes.iter().map(ToString::to_string).collect();
            (images, notes.join("\n"))
        }
        Err(error) => (Vec::new(), error),
    }
}

/// Images as they were written, sorted as references, without those that are none.
fn references(images: &Value) -> Vec<String> {
    let images = images.as_array().unwrap().iter();
    let parsed = images.filter_map(|image| image.as_str()?.parse::<Reference>().ok());
    let mut all: Vec<String> = parsed.map(|image| image.to_string()).collect();
    all.sort();
    all
}

/// `tests/manifests/ask-kubectl` asked kubectl.
#[test]
fn every_file_that_kubectl_takes_is_read_with_all_its_images() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/kubectl.json")).unwrap();
    let (mut taken, mut wrong) = (0, Vec::new());
    for case in &cases {
        let bytes = match (case["text"].as_str(), case["base64"].as_str()) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, text) => STANDARD.decode(text.unwrap()).unwrap(),
        };
        let (images, notes) = found(&bytes);
        if case["takes"] == false {
            continue;
        }
        taken += 1;
        let name = case["name"].as_str().unwrap();
        let want = references(&case["images"]);
        if images != want || notes.contains("can't be read") {
            wrong.push(format!("{name}: {images:?}, not {want:?}: {notes}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 200 && taken >= 200, "{taken}");
}

/// `tests/manifests/generate` made them from the schemas of their kinds.
#[test]
fn the_images_of_generated_manifests_are_those_of_an_independent_walk() {
    let (mut kinds, mut count) = (std::collections::BTreeSet::new(), 0);
    for line in include_str!("data/generated.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (images, notes) = found(case["manifest"].to_string().as_bytes());
        assert_eq!(images, references(&case["images"]), "{line}: {notes}");
        kinds.insert(case["manifest"]["kind"].to_string());
        count += 1;
    }
    assert!(
        count >= 500 && kinds.len() >= 30,
        "{count}, {}",
        kinds.len()
    );
}
