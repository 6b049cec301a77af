//! The transfer test beside curl, over a way of known rate; and what it makes of odd servers.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod lab;
#[path = "lab/metadata.rs"]
mod metadata;
#[path = "real/stack.rs"]
mod stack;
mod support;
#[path = "lab/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Outcome, Probe};
use pullpath::diagnose::Pull;
use pullpath::diagnose::level::Severity;
use pullpath::model::step::Step;
use pullpath::model::transfer::{StreamEnd, TransferEnd};
use pullpath::report::{Document, Report};
use stack::{REPOSITORY, TAG};
use support::image::{Flavour, Image, LAYERS};
use support::proxy::Proxy;
use support::web::{Flow, Reply};
use support::{BLOBS, World as Servers};
use world::{DNS, PUBLIC, World};

/// What the program measures at the public registry.
fn measure(world: &World, args: &[&str]) -> Report {
    let config = world.folder().join("config.yaml");
    std::fs::write(&config, "network: {metadata: off, provider: openstack}\n").unwrap();
    let none = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/no-credentials.json"
    );
    let mut command = world.node.as_nobody(env!("CARGO_BIN_EXE_pullpath"));
    command.args([
        "probe",
        &PUBLIC.reference(),
        "-o",
        "json",
        "--docker-config",
        none,
    ]);
    command.args([
        "--platform",
        "linux/amd64",
        "--timeout",
        "5s",
        "--nameserver",
        DNS[0],
    ]);
    command
        .arg("--ca-file")
        .arg(world.ca_file())
        .arg("--config")
        .arg(&config);
    let output = command.args(args).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let document: Document = serde_json::from_str(&stdout)
        .unwrap_or_else(|e| panic!("{e}: {stdout}{}", String::from_utf8_lossy(&output.stderr)));
    document.reports.into_iter().next().unwrap()
}

/// Bytes per second that curl has for the largest layer, all of it.
fn by_curl(world: &World) -> f64 {
    let layers = &world.image().platform("amd64").layers;
    let largest = layers.iter().max_by_key(|layer| layer.bytes.len()).unwrap();
    let url = format!(
        "https://{}/v2/{REPOSITORY}/blobs/{}",
        PUBLIC.name(),
        largest.digest
    );
    let mut curl = world.node.command("curl");
    curl.args([
        "--silent",
        "--fail",
        "--noproxy",
        "*",
        "--max-time",
        "20",
        "--cacert",
    ]);
    curl.arg(world.ca_file())
        .args(["--output", "/dev/null", "--write-out"]);
    let output = curl.args(["%{speed_download}", &url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

#[test]
fn a_cap_is_found_with_few_bytes() {
    let world = World::new();
    world.registry(&PUBLIC);
    for (mbit, max_bytes) in [(5.0, 3 << 20), (10.0, 4 << 20)] {
        world.wan.set(|knobs| knobs.rate = Some(mbit));
        // Of 1500 bytes that the cable counts, 1448 are TCP's payload.
        let nominal = mbit * 1e6 / 8.0 * 1448.0 / 1500.0;
        let report = measure(&world, &["--transfer", "auto", "--max-duration", "6s"]);
        let throughput = report.verdict.throughput.clone().unwrap();
        let one = throughput.one.unwrap();
        assert!(one.is_sustained, "{throughput:?}");
        let ratio = one.bytes_per_second / nominal;
        assert!(
            (0.95..1.05).contains(&ratio),
            "{mbit} Mbit/s: {ratio}, {throughput:?}"
        );
        // curl has all of the layer, and its mean has the start in it.
        let curl = by_curl(&world) / nominal;
        assert!(
            (0.5..1.02).contains(&curl),
            "curl has {curl} of {mbit} Mbit/s"
        );
        // More streams share it.
        let all = throughput.all.unwrap().bytes_per_second / one.bytes_per_second;
        assert!((0.9..1.1).contains(&all), "{throughput:?}");
        let transfer = report.evidence.walk.transfer.unwrap();
        let bytes: u64 = transfer.streams.iter().map(|stream| stream.bytes.0).sum();
        assert!(bytes < max_bytes, "{bytes} bytes");
    }
    // 4.7 MiB at 10 Mbit/s.
    let report = measure(
        &world,
        &["--transfer", "auto", "--expect-pull-within", "2s"],
    );
    let codes: Vec<&str> = report
        .verdict
        .findings
        .iter()
        .map(|f| f.cause.code())
        .collect();
    assert_eq!(codes, ["bw_cap", "throughput_low"]);
    assert_eq!(report.verdict.pull, Pull::WouldSucceed);
    // A budget that ends it first.
    let report = measure(&world, &["--transfer", "auto", "--max-bytes", "300KiB"]);
    let transfer = report.evidence.walk.transfer.clone().unwrap();
    assert_eq!(transfer.end, TransferEnd::ByteLimit);
    let throughput = report.verdict.throughput.unwrap();
    for rate in [throughput.one, throughput.all].into_iter().flatten() {
        assert!(!rate.is_sustained, "{rate:?}");
    }
    // It is the default, and can be left.
    assert!(measure(&world, &[]).evidence.walk.transfer.is_some());
    let without = measure(&world, &["--transfer", "off"]);
    assert_eq!(without.evidence.walk.transfer, None);
}

/// A world whose image has layers of these sizes. Smaller ones than a MiB are read whole before the
/// transfer test, which has nothing left to measure then.
async fn servers_with(layers: &[usize]) -> Servers {
    let mut servers = Servers::healthy().await;
    servers.image = Image::build(5, Flavour::Oci, &["amd64"], layers);
    servers.registry.store.push(REPOSITORY, TAG, &servers.image);
    // What is done to layers is not done to the configuration.
    servers.blobs.knobs().serving.above = 1 << 10;
    servers
}

const LARGE: &[usize] = &[3 << 20, 2 << 20, 3 << 19];

#[tokio::test(flavor = "multi_thread")]
async fn small_layers_are_read_whole_and_leave_nothing_to_measure() {
    let servers = Servers::healthy().await;
    let outcome = Probe::of(&servers).args(["--transfer", "auto"]).run().await;
    outcome.is_quiet();
    let walk = &outcome.report().evidence.walk;
    assert_eq!(walk.transfer, None);
    let layers = &servers.image.platform("amd64").layers;
    let read: Vec<(&str, u64, bool)> = walk
        .layers
        .iter()
        .map(|layer| {
            let read = layer.outcome.done().unwrap();
            (layer.digest.as_str(), read.bytes.0, read.verified)
        })
        .collect();
    let all: Vec<(&str, u64, bool)> = layers
        .iter()
        .map(|layer| (layer.digest.as_str(), layer.bytes.len() as u64, true))
        .collect();
    assert_eq!(read, all);
    let stored = servers.blobs.server.seen();
    let (parts, whole): (Vec<_>, Vec<_>) = stored.iter().partition(|s| s.header("range").is_some());
    assert_eq!(whole.len(), 1 + layers.len(), "nothing is read twice");
    assert_eq!(parts.len(), 1, "whether a download can be resumed");
    assert_eq!(walk.blob.done().unwrap().range_honoured, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_layers_are_read_and_checked_against_their_digests() {
    let servers = servers_with(LARGE).await;
    let outcome = Probe::of(&servers).args(["--transfer", "full"]).run().await;
    outcome.is_quiet();
    let transfer = outcome.report().evidence.walk.transfer.clone().unwrap();
    assert_eq!(transfer.end, TransferEnd::Complete, "{transfer:#?}");
    let found = outcome.report().evidence.walk.manifest.done().unwrap();
    assert_eq!(transfer.streams.len(), found.layers.len());
    for stream in &transfer.streams {
        let matches = StreamEnd::Complete {
            digest_matches: true,
        };
        assert_eq!(stream.end, matches, "{stream:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_connections_carry_all_layers_one_after_the_other() {
    let servers = servers_with(&[(1 << 20) + 1; 9]).await;
    // Slow enough that three are under way at a time.
    servers.blobs.knobs().serving.flow = Flow::Drip {
        piece: 300 << 10,
        every: Duration::from_millis(50),
    };
    let outcome = Probe::of(&servers).args(["--transfer", "full"]).run().await;
    outcome.is_quiet();
    let transfer = outcome.report().evidence.walk.transfer.clone().unwrap();
    assert_eq!(transfer.end, TransferEnd::Complete, "{transfer:#?}");
    assert_eq!(transfer.streams.len(), 9);
    assert_eq!(transfer.connections, 3, "{transfer:#?}");
    let seen = servers.blobs.server.seen();
    // The check has requested the configuration and a layer's first bytes.
    let whole = seen.iter().skip(2).filter(|s| s.header("range").is_none());
    let connections: BTreeSet<usize> = whole.map(|seen| seen.connection).collect();
    assert_eq!(connections.len(), 3, "{connections:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_behind_the_first_bytes_is_found() {
    for layers in [LARGE, &LAYERS] {
        let servers = servers_with(layers).await;
        servers.blobs.knobs().serving.corrupt = true;
        Probe::of(&servers)
            .args(["--transfer", "full"])
            .run()
            .await
            .shows("digest_mismatch", Severity::Critical, Pull::WouldFail);
        // Who asks for the first bytes only can't see it.
        Probe::of(&servers).run().await.is_quiet();
    }
    // A server that ignores Range gives the whole layer, and is read no further than it has to be.
    let servers = servers_with(LARGE).await;
    servers.blobs.knobs().serving.ignore_range = true;
    let outcome = Probe::of(&servers)
        .args(["--transfer", "auto", "--max-bytes", "64KiB"])
        .run()
        .await;
    outcome.shows("range_ignored", Severity::Warning, Pull::WouldSucceed);
    let transfer = outcome.report().evidence.walk.transfer.clone().unwrap();
    assert!(transfer.streams[0].bytes.0 <= 64 << 10, "{transfer:#?}");
}

/// The storage hands all layers out like this.
async fn storage_that(layers: &[usize], flow: Flow, args: &[&str]) -> Outcome {
    let servers = servers_with(layers).await;
    servers.blobs.knobs().serving.flow = flow;
    Probe::of(&servers).args(args.iter().copied()).run().await
}

const AUTO: &[&str] = &["--transfer", "auto", "--max-duration", "3s"];

#[tokio::test(flavor = "multi_thread")]
async fn odd_servers_are_named_and_cost_little() {
    for layers in [LARGE, &LAYERS] {
        let outcome = storage_that(layers, Flow::ResetAfter(100_000), AUTO).await;
        outcome.shows("tcp_reset", Severity::Critical, Pull::WouldFail);
    }
    // Silence, as long as was waited: containerd waits for five minutes.
    let outcome = storage_that(LARGE, Flow::StallAfter(100_000), AUTO).await;
    outcome.shows("pull_no_progress", Severity::Warning, Pull::WouldSucceed);
    let patient = [AUTO, &["--timeout", "8s"]].concat();
    let outcome = storage_that(LARGE, Flow::StallAfter(100_000), &patient).await;
    outcome.shows("pull_no_progress", Severity::Warning, Pull::WouldSucceed);
    let transfer = outcome.report().evidence.walk.transfer.clone().unwrap();
    assert_eq!(transfer.end, TransferEnd::TimeLimit);
    assert!(transfer.streams[0].silent.unwrap() >= Duration::from_secs(2));
    // A layer that the check itself reads whole never reaches its end.
    let outcome = storage_that(&LAYERS, Flow::StallAfter(100_000), AUTO).await;
    outcome.shows("http_timeout", Severity::Critical, Pull::WouldFail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_taken_up_again_as_a_pull_does() {
    // The length that was promised is a lie.
    for ignores_range in [false, true] {
        let servers = servers_with(&LAYERS).await;
        {
            let serving = &mut servers.blobs.knobs().serving;
            serving.flow = Flow::TruncateAfter(100_000);
            serving.ignore_range = ignores_range;
        }
        let outcome = Probe::of(&servers).args(AUTO.iter().copied()).run().await;
        let seen = servers.blobs.server.seen();
        let ranges: Vec<&str> = seen.iter().filter_map(|s| s.header("range")).collect();
        if ignores_range {
            // Each time from the beginning, and never beyond the place where it ended.
            outcome.shows("unexpected_eof", Severity::Critical, Pull::WouldFail);
            assert_eq!(ranges, ["bytes=100000-"; 4], "{ranges:?}");
        } else {
            outcome.is_quiet();
            // The last one is of the transfer test, which has nothing else to read.
            assert_eq!(ranges[..2], ["bytes=100000-", "bytes=200000-"]);
            assert_eq!(ranges.len(), 3, "{ranges:?}");
            let largest = outcome.report().evidence.walk.layers[0].outcome.done();
            let largest = largest.unwrap();
            assert_eq!((largest.verified, largest.resumed), (true, 2));
        }
    }
    // What is measured only is not taken up again; a pull may come through.
    let outcome = storage_that(LARGE, Flow::TruncateAfter(100_000), AUTO).await;
    outcome.shows("unexpected_eof", Severity::Warning, Pull::WouldSucceed);
}

/// Small layers pass, and large ones are cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_ends_large_downloads_is_named() {
    let servers = servers_with(LARGE).await;
    let cutting = Proxy::cutting(&servers.dns, 1 << 20).await;
    let probe = |proxy: &Proxy| {
        let probe = Probe::of(&servers).args(AUTO.iter().copied());
        probe.environment("HTTPS_PROXY", &proxy.addr.to_string())
    };
    let outcome = probe(&cutting).run().await;
    outcome.shows("unexpected_eof", Severity::Warning, Pull::WouldSucceed);
    let hint = format!("Check the log of the proxy {} and its limits", cutting.addr);
    let text = outcome
        .text()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(text.contains(&hint), "{text}");
    // Another proxy is not accused, nor is one that the download does not go through.
    let open = Proxy::start(&servers.dns).await;
    probe(&open).run().await.is_quiet();
    servers.blobs.knobs().serving.flow = Flow::TruncateAfter(100_000);
    let outcome = probe(&cutting).environment("NO_PROXY", BLOBS).run().await;
    outcome.shows("unexpected_eof", Severity::Warning, Pull::WouldSucceed);
    assert!(
        !outcome.text().contains("Check the log of the proxy"),
        "{}",
        outcome.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_at_a_time_is_no_reason_to_wait_for_all() {
    let drip = Flow::Drip {
        piece: 1,
        every: Duration::from_millis(500),
    };
    let args = [AUTO, &["--timeout", "3s"]].concat();
    let outcome = storage_that(LARGE, drip, &args).await;
    outcome.shows("throughput_low", Severity::Warning, Pull::WouldSucceed);
    let transfer = outcome.report().evidence.walk.transfer.clone().unwrap();
    assert_eq!(transfer.end, TransferEnd::TimeLimit);
    assert!(transfer.took < Duration::from_secs(4), "{transfer:#?}");
    // What would be read whole is left after twice the timeout, which says nothing against it.
    let outcome = storage_that(&LAYERS, drip, &[AUTO, &["--timeout", "1s"]].concat()).await;
    let report = outcome.report();
    assert_eq!(
        report.verdict.pull,
        Pull::WouldSucceed,
        "{}",
        outcome.text()
    );
    for layer in &report.evidence.walk.layers {
        let Step::Done { value, took } = &layer.outcome else {
            panic!("{layer:?}");
        };
        assert!(!value.verified && value.bytes.0 < 30, "{layer:?}");
        assert!(*took < Duration::from_secs(12), "{layer:?}");
    }
    assert_eq!(report.evidence.walk.layers.len(), LAYERS.len());
    let transfer = report.evidence.walk.transfer.clone().unwrap();
    assert_eq!(transfer.end, TransferEnd::TimeLimit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_forever_is_read_for_as_long_as_the_layer_is() {
    let servers = servers_with(LARGE).await;
    let layers = &servers.image.platform("amd64").layers;
    let largest = layers.iter().max_by_key(|layer| layer.bytes.len()).unwrap();
    let endless = Reply::new(200).body("application/octet-stream", vec![7; 16 << 20]);
    let path = format!("{}/data", largest.digest.trim_start_matches("sha256:"));
    servers.blobs.knobs().manners.fail(&path, endless);
    let outcome = Probe::of(&servers)
        .args(["--transfer", "full", "--timeout", "5s"])
        .run()
        .await;
    let transfer = outcome.report().evidence.walk.transfer.clone();
    let transfer = transfer.unwrap_or_else(|| panic!("{}", outcome.text()));
    assert_eq!(transfer.streams[0].digest, largest.digest);
    assert_eq!(transfer.streams[0].bytes.0, largest.bytes.len() as u64);
    let findings = outcome.report().verdict.findings.iter();
    let codes: Vec<&str> = findings.map(|f| f.cause.code()).collect();
    assert!(codes.contains(&"digest_mismatch"), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_measured_one_after_the_other() {
    let servers = servers_with(LARGE).await;
    let reference = servers.reference();
    let digest = servers.image.top().digest.clone();
    let (name, _) = reference.rsplit_once(':').unwrap();
    let by_digest = format!("{name}@{digest}");
    let outcome = Probe::of(&servers)
        .args([by_digest.as_str(), "--transfer", "full"])
        .run()
        .await;
    let mut spans: Vec<_> = outcome
        .document
        .reports
        .iter()
        .map(|report| {
            let transfer = report.evidence.walk.transfer.clone().unwrap();
            assert_eq!(transfer.end, TransferEnd::Complete);
            (transfer.started, transfer.started + transfer.took)
        })
        .collect();
    assert_eq!(spans.len(), 2);
    spans.sort();
    assert!(spans[0].1 <= spans[1].0, "{spans:?}");
}
