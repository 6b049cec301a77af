//! containerd's settings: mirrors and proxies, as a pull would use them; the trace, and saved
//! reports.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod support;

use std::path::PathBuf;
use std::process::Stdio;

use harness::{Outcome, Probe, probe};
use http::Method;
use pullpath::diagnose::Pull;
use pullpath::diagnose::level::{Confidence, Severity};
use pullpath::model::evidence::Walk;
use pullpath::model::proxy::ProxyRoute;
use pullpath::model::vantage::NotObserved;
use pullpath::report::Document;
use support::dns::Answer;
use support::pki::Flaw;
use support::proxy::Proxy;
use support::registry::{Auth, Redirect};
use support::tcp::{Blackhole, Closed};
use support::web::Reply;
use support::{AUTH, BLOBS, PASSWORD, REGISTRY, REPOSITORY, TAG, USER, World};

/// A registry with the same image, trusted by the file that hosts.toml names.
async fn mirror() -> World {
    let mirror = World::healthy().await;
    mirror.registry.knobs().redirect = Redirect::Direct;
    mirror
}

async fn open_mirror() -> World {
    let mirror = mirror().await;
    mirror.registry.knobs().auth = Auth::Open;
    mirror
}

fn table(mirror: &World, more: &str) -> String {
    format!(
        "[host.\"https://{}\"]\nca = \"{}\"\n{more}\n",
        mirror.registry_host(),
        mirror.ca.file().display()
    )
}

async fn with_hosts(world: &World, hosts_toml: &str) -> Outcome {
    let folder = world.certs_d(hosts_toml);
    Probe::of(world)
        .args(["--hosts-dir", folder.to_str().unwrap()])
        .run()
        .await
}

fn host(walk: &Walk) -> String {
    walk.host.endpoint.authority()
}

/// The hosts asked before the one that decides, that one, and those not asked.
fn order(outcome: &Outcome) -> (Vec<String>, String, Vec<String>) {
    let evidence = &outcome.report().evidence;
    let not_contacted = evidence.not_contacted.iter();
    (
        evidence.others.iter().map(host).collect(),
        host(&evidence.walk),
        not_contacted.map(|h| h.endpoint.authority()).collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_serves_all_keeps_the_registry_out() {
    let (world, mirror) = (World::healthy().await, open_mirror().await);
    let toml = table(&mirror, "[host.\"https://registry.test:1\"]");
    let outcome = with_hosts(&world, &toml).await;
    outcome.is_quiet();
    let (others, deciding, not_asked) = order(&outcome);
    assert_eq!((others.len(), deciding), (0, mirror.registry_host()));
    assert_eq!(
        not_asked,
        ["registry.test:1".to_owned(), world.registry_host()]
    );
    // No pull gets there; what it would answer without the mirror is requested once.
    let behind: Vec<String> = world
        .registry
        .server
        .seen()
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.authorization().is_some()))
        .collect();
    assert_eq!(behind, ["HEAD false", "HEAD true"]);
    assert_eq!(world.blobs.server.seen().len(), 0);
    for seen in mirror.registry.server.seen() {
        let is_ping = seen.path.ends_with("/v2/");
        let namespace = seen.parameters("ns");
        assert_eq!(namespace.is_empty(), is_ping, "{}", seen.path);
        assert!(is_ping || namespace == [world.registry_host()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_may_not_resolve_serves_by_digest() {
    let (world, mirror) = (World::healthy().await, open_mirror().await);
    let toml = table(&mirror, "capabilities = [\"pull\"]");
    let outcome = with_hosts(&world, &toml).await;
    outcome.is_quiet();
    let (others, deciding, _) = order(&outcome);
    assert_eq!(deciding, mirror.registry_host());
    assert_eq!(
        others,
        [world.registry_host()],
        "it said what the tag stands for"
    );
    let asked = &world.registry.server;
    let heads = asked.count(&Method::HEAD, &format!("/manifests/{TAG}"));
    assert_eq!(heads, 2, "without a token, and with one");
    assert_eq!(asked.count(&Method::GET, "/manifests/"), 0);
    assert_eq!(asked.count(&Method::GET, "/blobs/"), 0);
    assert_eq!(
        mirror.registry.server.count(&Method::GET, "/blobs/"),
        2,
        "the configuration and a layer"
    );
    assert_eq!(
        mirror
            .registry
            .server
            .count(&Method::HEAD, &format!("/manifests/{TAG}")),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_host_may_resolve_a_tag_no_pull_succeeds() {
    let (world, mirror) = (World::healthy().await, open_mirror().await);
    let toml = format!(
        "server = \"https://{}\"\nca = \"{}\"\ncapabilities = [\"pull\"]\n{}",
        world.registry_host(),
        world.ca.file().display(),
        table(&mirror, "capabilities = [\"pull\"]")
    );
    let outcome = with_hosts(&world, &toml).await;
    let verdict = &outcome.report().verdict;
    assert_eq!(verdict.pull, Pull::WouldFail);
    let facts = verdict.findings[0].evidence.join(" ");
    assert!(facts.contains("no resolve hosts"), "{facts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_host_lacks_the_next_one_serves() {
    let (world, mirror) = (World::healthy().await, open_mirror().await);
    mirror
        .registry
        .knobs()
        .manners
        .fail("/blobs/", Reply::new(404));
    let outcome = with_hosts(&world, &table(&mirror, "")).await;
    // So is a mirror of a part, or a cache.
    outcome.shows("mirror_order", Severity::Info, Pull::WouldSucceed);
    let (others, deciding, _) = order(&outcome);
    assert_eq!(
        (others, deciding),
        (vec![mirror.registry_host()], world.registry_host())
    );
    assert_eq!(
        world.registry.server.count(&Method::GET, "/manifests/"),
        0,
        "the mirror has it"
    );
    let blobs: Vec<String> = world
        .registry
        .server
        .seen()
        .iter()
        .filter(|seen| seen.path.contains("/blobs/"))
        .map(|seen| {
            let digest = seen.path.rsplit_once('/').unwrap().1;
            let image = world.image.platform("amd64");
            let what = if digest == image.config.digest {
                "configuration"
            } else {
                "layer"
            };
            format!("{what} {}", seen.authorization().is_some())
        })
        .collect();
    assert_eq!(
        blobs,
        ["configuration false", "configuration true", "layer true"],
        "its first request of the phase is without a token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_does_not_know_the_tag_serves_by_digest() {
    let (world, mirror) = (World::healthy().await, open_mirror().await);
    mirror.registry.knobs().manners.fail(
        &format!("/manifests/{TAG}"),
        support::registry::manifest_unknown(),
    );
    let outcome = with_hosts(&world, &table(&mirror, "")).await;
    outcome.is_quiet();
    let (others, deciding, _) = order(&outcome);
    assert_eq!(
        (others, deciding),
        (vec![world.registry_host()], mirror.registry_host())
    );
    let asked = &world.registry.server;
    assert_eq!(asked.count(&Method::GET, "/manifests/"), 0);
    assert_eq!(asked.count(&Method::GET, "/blobs/"), 0);
    let text = outcome.text();
    for want in [
        format!("{}: serves the tag\n", world.registry_host()),
        format!(
            "{}: serves the manifest, the layers\n",
            mirror.registry_host()
        ),
    ] {
        assert!(text.contains(&want), "{want}:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layers_are_requested_from_all_hosts_again() {
    let (world, mirror) = (World::healthy().await, open_mirror().await);
    mirror
        .registry
        .knobs()
        .manners
        .fail("/manifests/sha256:", support::registry::manifest_unknown());
    let outcome = with_hosts(&world, &table(&mirror, "")).await;
    outcome.shows("mirror_order", Severity::Info, Pull::WouldSucceed);
    let (others, deciding, _) = order(&outcome);
    assert_eq!(
        (others, deciding),
        (vec![mirror.registry_host()], world.registry_host())
    );
    let blobs = |world: &World| world.registry.server.count(&Method::GET, "/blobs/");
    // The configuration and a layer.
    assert_eq!((blobs(&mirror), blobs(&world)), (2, 0));
    let text = outcome.text();
    let want = format!("{}: serves the manifest\n", world.registry_host());
    assert!(text.contains(&want), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_get_the_same_credential_and_headers_as_from_containerd() {
    let (world, mirror) = (World::healthy().await, mirror().await);
    let toml = format!(
        "{}[host.\"https://{}\".header]\nx-corp = \"canary-7f3a9c-header\"\n",
        table(&mirror, ""),
        mirror.registry_host()
    );
    let outcome = with_hosts(&world, &toml).await;
    outcome.is_quiet();
    let asked = mirror.registry.server.seen();
    assert!(
        asked
            .iter()
            .all(|s| s.header("x-corp") == Some("canary-7f3a9c-header"))
    );
    assert!(asked.iter().any(|s| s.bearer().is_some()));
    let tokens = mirror.tokens.server.seen();
    assert!(tokens.iter().all(|s| s.header("x-corp").is_some()));
    assert_eq!(order(&outcome).1, mirror.registry_host());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_mirror_costs_what_its_dial_timeout_says() {
    let world = World::healthy().await;
    let hole = Blackhole::new().await;
    let toml = format!(
        "[host.\"https://{REGISTRY}:{}\"]\ndial_timeout = \"200ms\"\n",
        hole.addr.port()
    );
    let folder = world.certs_d(&toml);
    let outcome = Probe::of(&world)
        .args(["--runtime", "containerd://2.1.9"])
        .args(["--hosts-dir", folder.to_str().unwrap()])
        .run()
        .await;
    outcome.shows("mirror_order", Severity::Warning, Pull::WouldSucceed);
    let text = outcome.text();
    assert!(
        text.contains("tcp_timeout") && text.contains("about 200 ms"),
        "{text}"
    );
    let took = outcome.report().evidence.others[0].legs[0]
        .connect
        .outcome
        .took();
    assert!(
        took.unwrap().as_millis() < 900,
        "the dial timeout bounds our wait too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_hosts_fail_it_is_said_whose_error_shows() {
    let (world, mirror) = (World::healthy().await, open_mirror().await);
    let closed = Closed::new();
    mirror
        .registry
        .knobs()
        .manners
        .fail("/manifests/", Reply::new(503));
    world
        .registry
        .knobs()
        .manners
        .fail("/manifests/", support::registry::manifest_unknown());
    let toml = format!(
        "[host.\"https://{REGISTRY}:{}\"]\n{}",
        closed.addr.port(),
        table(&mirror, "")
    );
    let outcome = with_hosts(&world, &toml).await;
    assert_eq!(outcome.code, 1);
    let verdict = &outcome.report().verdict;
    let codes: Vec<&str> = verdict.findings.iter().map(|f| f.cause.code()).collect();
    assert_eq!(codes, ["manifest_unknown", "mirror_order", "mirror_order"]);
    let text = outcome.text().replace("\n    ", " ");
    assert!(
        text.contains(&format!(
            "containerd 2 reports the error of https://{}",
            mirror.registry_host()
        )),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_goes_over_a_connection_that_is_not_verified() {
    let (world, mirror) = (World::healthy().await, mirror().await);
    mirror
        .registry
        .server
        .set_tls(Some(mirror.config(REGISTRY, Flaw::OtherCa)));
    let toml = table(&mirror, "skip_verify = true");
    let outcome = with_hosts(&world, &toml).await;
    // A pull sends the credential, and may take what the mirror has then.
    assert_eq!(outcome.code, 2, "{}", outcome.text());
    let findings = &outcome.report().verdict.findings;
    let codes: Vec<&str> = findings.iter().map(|f| f.cause.code()).collect();
    assert_eq!(codes, ["auth_unknown", "mirror_insecure"]);
    assert!(
        outcome.text().contains("was not observed"),
        "{}",
        outcome.text()
    );
    for seen in mirror
        .registry
        .server
        .seen()
        .iter()
        .chain(&mirror.tokens.server.seen())
    {
        assert_eq!(seen.authorization(), None);
        assert!(!String::from_utf8_lossy(&seen.body).contains(PASSWORD));
    }
    // As the only host, it leaves the pull undecided.
    let toml = format!(
        "server = \"https://{}\"\nca = \"{}\"\nskip_verify = true\n[host]\n",
        mirror.registry_host(),
        mirror.ca.file().display()
    );
    let outcome = with_hosts(&world, &toml).await;
    assert_eq!(outcome.code, 2, "{}", outcome.text());
    let codes: Vec<&str> = outcome
        .report()
        .verdict
        .findings
        .iter()
        .map(|f| f.cause.code())
        .collect();
    assert_eq!(codes, ["auth_unknown", "mirror_insecure"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_cannot_be_read_fails_every_pull() {
    let world = World::healthy().await;
    let outcome = with_hosts(&world, "[host.\"https://m.test\"]\nca = \"/no/such.pem\"\n").await;
    let finding = &outcome.report().verdict.findings[0];
    assert_eq!(
        (finding.cause.code(), outcome.code),
        ("hosts_toml_invalid", 1)
    );
    assert_eq!(finding.severity, Severity::Critical);
    assert!(finding.evidence[0].contains("/no/such.pem"), "{finding:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn config_path_is_read_from_both_versions_of_config_toml() {
    let (world, mirror) = (World::healthy().await, open_mirror().await);
    let folder = world.certs_d(&table(&mirror, ""));
    for (runtime, plugin) in [
        ("containerd://1.7.24", "io.containerd.grpc.v1.cri"),
        ("containerd://2.0.0", "io.containerd.grpc.v1.cri"),
        ("containerd://2.0.0", "io.containerd.cri.v1.images"),
    ] {
        let config = format!(
            "version = 2\n[plugins.\"{plugin}\".registry]\nconfig_path = \"/nonexistent:{}\"\n",
            folder.display()
        );
        let file = world.write("config.toml", &config);
        let outcome = Probe::of(&world)
            .args(["--runtime", runtime])
            .args(["--containerd-config", file.to_str().unwrap()])
            .run()
            .await;
        outcome.is_quiet();
        assert_eq!(order(&outcome).1, mirror.registry_host(), "{plugin}");
    }
    let old =
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = []\n";
    let file = world.write("config.toml", old);
    Probe::of(&world)
        .args(["--containerd-config", file.to_str().unwrap()])
        .run()
        .await
        .shows("hosts_toml_invalid", Severity::Warning, Pull::WouldSucceed);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_legs_use_the_proxy_except_those_that_no_proxy_names() {
    let world = World::healthy().await;
    let proxy = Proxy::start(&world.dns).await;
    let drop_in = world.write(
        "http-proxy.conf",
        &format!(
            "[Service]\nEnvironment=\"HTTPS_PROXY=http://me:canary-7f3a9c-proxy@{}\" \"NO_PROXY=10.0.0.0/8,.{AUTH},{BLOBS}\"\n",
            proxy.addr
        ),
    );
    let outcome = Probe::of(&world)
        .args(["--proxy-from", drop_in.to_str().unwrap()])
        .run()
        .await;
    outcome.shows("proxy_misconfigured", Severity::Warning, Pull::WouldSucceed);
    let below = format!("names below {AUTH}, not {AUTH} itself");
    assert!(flat(&outcome).contains(&below), "{}", outcome.text());
    let evidence = &outcome.report().evidence;
    let ways: Vec<&str> = evidence
        .walk
        .legs
        .iter()
        .map(|leg| match &leg.proxy_route {
            ProxyRoute::Proxied { .. } => "proxied",
            ProxyRoute::Excepted { entry, .. } => entry.as_str(),
            _ => "direct",
        })
        .collect();
    assert_eq!(
        ways,
        ["proxied", "proxied", BLOBS],
        "a leading dot is for what is below"
    );
    let tokens = format!("{AUTH}:{}", world.tokens.server.port());
    let mut targets = proxy.targets();
    targets.sort();
    // Each phase of a pull has connections of its own.
    let registry = world.registry_host();
    assert_eq!(
        targets,
        [tokens.clone(), tokens, registry.clone(), registry]
    );
    // The proxy resolves; the names of proxied servers are asked for because NO_PROXY has a network.
    let asks = |name: &str| format!("{:?}", world.dns.questions()).contains(name);
    assert!(asks(REGISTRY) && asks(AUTH), "resolved over there");
    assert!(evidence.proxies.is_containerds);
    assert!(evidence.proxies.https.as_ref().unwrap().authenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_there_is_found_by_comparison() {
    let world = World::healthy().await;
    let closed = Closed::new();
    let outcome = Probe::of(&world)
        .environment("https_proxy", &closed.addr.to_string())
        .args(["--compare-direct"])
        .run()
        .await;
    outcome.shows("proxy_misconfigured", Severity::Critical, Pull::WouldFail);
    let text = outcome.text();
    assert!(
        text.contains("without the proxy, the same check succeeds"),
        "{text}"
    );
    assert!(text.contains("Add registry.test to NO_PROXY"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cannot_reach_the_storage_is_reported_on_that_leg() {
    let world = World::healthy().await;
    let empty = support::dns::Dns::start().await;
    let proxy = Proxy::start(&empty).await;
    let outcome = Probe::of(&world)
        .environment("HTTPS_PROXY", &proxy.addr.to_string())
        .environment("NO_PROXY", &format!("{REGISTRY},{AUTH}"))
        .run()
        .await;
    outcome.shows("proxy_misconfigured", Severity::Critical, Pull::WouldFail);
    let finding = &outcome.report().verdict.findings[0];
    assert_eq!(finding.leg.unwrap().as_str(), "blob");
    assert!(outcome.text().contains("502"), "{}", outcome.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_shows_exchanges_and_no_secret() {
    // Outcome::holds_no_secret checks all of it.
    let world = World::healthy().await;
    let outcome = Probe::of(&world).args(["--trace"]).run().await;
    outcome.is_quiet();
    let trace = &outcome.report().evidence.trace;
    let shown: Vec<String> = trace
        .iter()
        .map(|t| format!("{} {} {:?}", t.role, t.method, t.status))
        .collect();
    assert_eq!(
        shown,
        [
            "registry HEAD Some(401)",
            "token POST Some(200)",
            "registry HEAD Some(200)",
            "registry GET Some(401)",
            "token POST Some(200)",
            "registry GET Some(200)",
            "registry GET Some(200)",
            "registry GET Some(307)",
            "blob GET Some(200)",
            "registry GET Some(307)",
            "blob GET Some(200)",
            "registry GET Some(401)",
        ]
    );
    let text = outcome.text();
    for want in [
        "> authorization: Bearer ***",
        "< www-authenticate: Bearer realm=",
        "X-Amz-Credential=***",
    ] {
        assert!(text.contains(want), "{want}:\n{text}");
    }
    assert!(
        trace
            .iter()
            .all(|t| t.error_body.is_none() || t.status == Some(401))
    );
    assert!(
        probe(&world).await.report().evidence.trace.is_empty(),
        "only when asked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_report_is_judged_again_to_the_same_end() {
    let world = World::healthy().await;
    world
        .registry
        .server
        .set_tls(Some(world.config(REGISTRY, Flaw::Expired)));
    let folder = world.write("x", "").with_file_name("saved");
    let outcome = Probe::of(&world)
        .args(["--save", folder.to_str().unwrap()])
        .run()
        .await;
    outcome.shows("tls_expired", Severity::Critical, Pull::WouldFail);
    let saved: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    assert_eq!(saved.len(), 1);
    let path = saved[0].as_ref().unwrap().path();
    assert!(outcome.stderr.contains("saved "), "{}", outcome.stderr);
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.contains(&REPOSITORY.replace('/', "_")), "{name}");
    let replayed = tokio::process::Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .args(["replay", "-o", "json"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert_eq!(replayed.status.code(), Some(1));
    let again: Document = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!(again, outcome.document);
}

/// The report without its line ends.
fn flat(outcome: &Outcome) -> String {
    let text = outcome.text();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn by<'a>(world: &'a World, https_proxy: &str) -> Probe<'a> {
    Probe::of(world).environment("HTTPS_PROXY", https_proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks_proxy_is_spoken_to_and_gets_names_and_the_login() {
    let world = World::healthy().await;
    let open = Proxy::socks(&world.dns, None, &[]).await;
    let closed = Proxy::socks(&world.dns, Some(("svc", "p^w/canary-7f3a9c")), &[]).await;
    let login = "svc:p%5Ew%2Fcanary-7f3a9c";
    for (url, proxy) in [
        (format!("socks5://{}", open.addr), &open),
        (format!("socks5://any:thing@{}", open.addr), &open),
        (format!("socks5://{login}@{}", closed.addr), &closed),
    ] {
        let outcome = by(&world, &url).run().await;
        outcome.is_quiet();
        let targets = proxy.targets();
        assert!(targets.contains(&world.registry_host()), "{targets:?}");
        assert!(
            targets.iter().all(|target| !target.starts_with("127.")),
            "{targets:?}"
        );
        assert!(!flat(&outcome).contains("canary"), "{}", flat(&outcome));
    }
    let questions = format!("{:?}", world.dns.questions());
    assert!(!questions.contains(REGISTRY), "{questions}");

    let connect = Proxy::start(&world.dns).await;
    let choosy = Proxy::socks(&world.dns, None, &[BLOBS]).await;
    let nobody = Closed::new();
    let known = by(&world, &format!("socks5://{}", closed.addr)).run().await;
    for (outcome, leg, words) in [
        (known, "registry", ["requires a login", "user and password"]),
        (
            by(&world, &format!("socks5://svc:wrong@{}", closed.addr))
                .run()
                .await,
            "registry",
            ["refuses the user and password", "Check HTTPS_PROXY"],
        ),
        (
            by(&world, &format!("socks5://{}", connect.addr))
                .run()
                .await,
            "registry",
            ["SOCKS5", "Check HTTPS_PROXY"],
        ),
        (
            by(&world, &format!("socks5://{}", choosy.addr)).run().await,
            "blob",
            ["its rules do not allow", "Allow blobs.test port"],
        ),
        (
            by(&world, &format!("socks5://{}", nobody.addr)).run().await,
            "registry",
            ["can't connect to the proxy", "socks5://"],
        ),
    ] {
        outcome.shows("proxy_misconfigured", Severity::Critical, Pull::WouldFail);
        let finding = &outcome.report().verdict.findings[0];
        assert_eq!(finding.leg.unwrap().as_str(), leg, "{}", flat(&outcome));
        for word in words {
            assert!(flat(&outcome).contains(word), "{word}: {}", flat(&outcome));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_go_does_not_read_is_reported_with_its_character() {
    let world = World::healthy().await;
    let proxy = Proxy::start(&world.dns).await;
    for (character, encoded) in [("^", "%5E"), ("#", "%23"), ("/", "%2F"), ("|", "%7C")] {
        let value = format!("http://svc:canary{character}7f3a9c@{}", proxy.addr);
        let outcome = by(&world, &value).run().await;
        outcome.shows("proxy_misconfigured", Severity::Critical, Pull::WouldFail);
        let text = flat(&outcome);
        let hint = format!("Write '{character}' as {encoded}");
        assert!(
            text.contains(&hint) && !text.contains("canary") && !text.contains("7f3a9c"),
            "{text}"
        );
        // Written so, it works.
        by(
            &world,
            &value
                .replace(character, encoded)
                .replace("http:%2F%2F", "http://"),
        )
        .run()
        .await
        .is_quiet();
    }
    // Go uses no proxy then, and none is needed.
    let value = format!("http://svc:canary%zz7f3a9c@{}", proxy.addr);
    let outcome = by(&world, &value).run().await;
    outcome.shows("proxy_misconfigured", Severity::Warning, Pull::WouldSucceed);
    assert!(flat(&outcome).contains("'%' as %25"), "{}", flat(&outcome));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_no_proxy_that_do_not_match_are_reported_where_they_seem_to_mean_the_host() {
    let world = World::healthy().await;
    let proxy = Proxy::start(&world.dns).await;
    let excepting =
        |entry: &str| by(&world, &proxy.addr.to_string()).environment("NO_PROXY", entry);
    for (entry, reason) in [
        (format!("https://{REGISTRY}"), "no scheme"),
        (format!("{REGISTRY}/"), "a path"),
        (format!("{REGISTRY}:1"), "its port is not"),
        (format!("a.test {REGISTRY}"), "only commas"),
        (format!(".{REGISTRY}"), "names below"),
        // The names have addresses in it.
        ("127.0.0.0/8".to_owned(), "never resolves a name"),
    ] {
        let outcome = excepting(&entry).args(["--compare-direct"]).run().await;
        let text = flat(&outcome);
        outcome.shows("proxy_misconfigured", Severity::Warning, Pull::WouldSucceed);
        assert!(
            text.contains(reason) && text.contains(&format!("'{entry}'")),
            "{text}"
        );
        assert!(!text.contains("proxy_unneeded"), "{text}");
        assert!(
            text.contains(&format!("{REGISTRY} into NO_PROXY")),
            "{text}"
        );
    }
    for entry in [
        "10.0.0.0/8",
        ".svc,.cluster.local,localhost",
        "other.test:1",
    ] {
        excepting(entry).run().await.is_quiet();
    }
    // A network that is compared with a host is one that is written as an address.
    let host = world.registry_host();
    let questions = world.dns.questions().len();
    let outcome = excepting(&format!("{host},{AUTH},{BLOBS},10.0.0.0/8"))
        .run()
        .await;
    outcome.is_quiet();
    assert!(world.dns.questions().len() > questions);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_set_in_vain_is_reported_where_the_server_is_out_of_reach() {
    let world = World::healthy().await;
    let proxy = Proxy::start(&world.dns).await;
    let address = proxy.addr.to_string();
    let unit = |text: &str| world.write("proxy.conf", &format!("[Service]\n{text}\n"));
    for (name, reason) in [("ALL_PROXY", "not used"), ("HTTP_PROXY", "http:// alone")] {
        // Nobody needs it.
        Probe::of(&world)
            .environment(name, &address)
            .run()
            .await
            .is_quiet();
        let _gone = Gone::of(&world);
        let outcome = Probe::of(&world).environment(name, &address).run().await;
        let root = &outcome.report().verdict.findings[0];
        assert_eq!(
            root.cause.code(),
            "proxy_misconfigured",
            "{}",
            flat(&outcome)
        );
        assert_eq!(root.confidence, Confidence::Medium);
        assert!(flat(&outcome).contains(reason), "{}", flat(&outcome));
        // What it meets without the proxy follows.
        let consequences = &outcome.report().verdict.consequences;
        assert_eq!(consequences[0].cause.code(), "dns_nxdomain");
        let excluded = Probe::of(&world)
            .environment(name, &address)
            .environment("NO_PROXY", REGISTRY);
        let outcome = excluded.run().await;
        assert_eq!(
            outcome.report().verdict.findings[0].cause.code(),
            "dns_nxdomain",
            "{}",
            flat(&outcome)
        );
    }
    for (line, word) in [
        (
            format!("Environment=\u{201c}HTTPS_PROXY=http://{address}\u{201d}"),
            "typographic",
        ),
        (
            format!("Environment=HTTPS_PROXY=http://svc:a%5Eb@{address}"),
            "each % as %%",
        ),
        (
            format!("[Install]\nEnvironment=HTTPS_PROXY=http://{address}"),
            "not in [Install]",
        ),
    ] {
        let file = unit(&line);
        let probe = || Probe::of(&world).args(["--proxy-from", file.to_str().unwrap()]);
        let outcome = probe().run().await;
        outcome.shows("proxy_misconfigured", Severity::Warning, Pull::WouldSucceed);
        let _gone = Gone::of(&world);
        let outcome = probe().run().await;
        outcome.shows("proxy_misconfigured", Severity::Critical, Pull::WouldFail);
        let text = flat(&outcome);
        assert!(
            text.contains(word) && text.contains("proxy.conf, line "),
            "{text}"
        );
    }
}

/// The registry's name does not exist as long as this does.
struct Gone<'a>(&'a World);

impl<'a> Gone<'a> {
    fn of(world: &'a World) -> Self {
        world.dns.answer(REGISTRY, Answer::NxDomain);
        Self(world)
    }
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.dns.answer(REGISTRY, Answer::Records);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_ins_apply_as_systemd_does() {
    let world = World::healthy().await;
    let proxy = Proxy::start(&world.dns).await;
    let folder = world.write("x", "").with_file_name("containerd.service.d");
    std::fs::create_dir_all(&folder).unwrap();
    let environment = world.write("proxy.env", &format!("HTTPS_PROXY=http://{}\n", proxy.addr));
    for (name, text) in [
        ("10-old.conf", "[Service]\nEnvironment=NO_PROXY=*\nEnvironment=HTTP_PROXY=http://10.0.0.9:1\n".to_owned()),
        ("20-file.conf", format!("[Service]\nEnvironmentFile={}\n", environment.display())),
        ("30-reset.conf", "[Service]\nEnvironment=\nEnvironment=HTTPS_PROXY=http://10.0.0.9:1 X=y\nUnsetEnvironment=HTTP_PROXY\n".to_owned()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let outcome = Probe::of(&world)
        .args(["--proxy-from", folder.to_str().unwrap()])
        .run()
        .await;
    outcome.is_quiet();
    let proxies = &outcome.report().evidence.proxies;
    let https = proxies.https.as_ref().unwrap().authority.clone();
    assert_eq!(
        https,
        proxy.addr.to_string(),
        "a file counts before Environment="
    );
    assert_eq!(
        (&proxies.http, &proxies.no_proxy),
        (&None, &None),
        "taken back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_stay_off_a_connection_that_is_not_verified() {
    let (world, mirror) = (World::healthy().await, open_mirror().await);
    mirror
        .registry
        .server
        .set_tls(Some(mirror.config(REGISTRY, Flaw::OtherCa)));
    let toml = format!(
        "{}[host.\"https://{}\".header]\nx-corp = \"canary-7f3a9c-header\"\n",
        table(&mirror, "skip_verify = true"),
        mirror.registry_host()
    );
    let outcome = with_hosts(&world, &toml).await;
    outcome.shows("mirror_insecure", Severity::Warning, Pull::WouldSucceed);
    assert!(outcome.text().contains("is unknown"), "{}", outcome.text());
    for seen in mirror.registry.server.seen() {
        assert_eq!(seen.header("x-corp"), None);
    }
}

/// Where the node's `/` is mounted.
fn node_root(world: &World) -> PathBuf {
    world.write("beside", "").with_file_name("host")
}

/// A configuration whose `network` says this, with the node's `/` in a folder of the world.
fn network(world: &World, lines: &str) -> String {
    let host = node_root(world);
    let text = format!(
        "network:\n  metadata: off\n{}\n",
        lines.replace("HOST", host.to_str().unwrap())
    );
    let path = world.write("pullpath.yaml", &text);
    path.to_str().unwrap().to_owned()
}

fn unseen(outcome: &Outcome, what: NotObserved) -> bool {
    outcome
        .report()
        .evidence
        .vantage
        .not_observed
        .contains(&what)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_roots_are_used_in_place_of_ours_and_their_links_are_the_nodes() {
    let world = World::healthy().await;
    let host = node_root(&world);
    for folder in ["etc/pki", "etc/ssl"] {
        std::fs::create_dir_all(host.join(folder)).unwrap();
    }
    std::fs::copy(world.ca.file(), host.join("etc/pki/bundle.pem")).unwrap();
    std::os::unix::fs::symlink("/etc/pki/bundle.pem", host.join("etc/ssl/ca.crt")).unwrap();
    let with = async |lines: &str| {
        let config = network(&world, lines);
        Probe::of(&world)
            .without_ca()
            .args(["--config", &config])
            .run()
            .await
    };
    let seen = with("  host_root: 'HOST'\n  node_ca_bundle: 'HOST/etc/ssl/ca.crt'").await;
    seen.is_quiet();
    assert!(!unseen(&seen, NotObserved::NodeRoots));
    let roots = &seen.report().evidence.walk.roots;
    assert_eq!(roots.certificates, 1, "this machine's are not among them");

    // The link leads to our own /etc: it is reported, and our roots are no proof.
    let lost = with("  node_ca_bundle: 'HOST/etc/ssl/ca.crt'").await;
    lost.shows("tls_unknown_ca", Severity::Critical, Pull::WouldFail);
    assert!(unseen(&lost, NotObserved::NodeRoots));
    let finding = &lost.report().verdict.findings[0];
    assert_eq!(finding.confidence, Confidence::Medium);
    let text = lost.text().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("is a link to /etc/pki/bundle.pem") && text.contains("network.host_root"),
        "{text}"
    );
    // The node's roots are known, and do not have it.
    let other = World::healthy().await;
    std::fs::copy(other.ca.file(), host.join("etc/pki/bundle.pem")).unwrap();
    let sure = with("  host_root: 'HOST'\n  node_ca_bundle: 'HOST/etc/ssl/ca.crt'").await;
    sure.shows("tls_unknown_ca", Severity::Critical, Pull::WouldFail);
    let finding = &sure.report().verdict.findings[0];
    assert_eq!(finding.confidence, Confidence::High);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelets_own_credentials_are_tried_behind_all_others() {
    let world = World::healthy().await;
    let kubelet = node_root(&world).join("var/lib/kubelet");
    std::fs::create_dir_all(&kubelet).unwrap();
    let registry = world.registry_host();
    let config = World::docker_config(&registry, USER, PASSWORD);
    std::fs::write(kubelet.join("config.json"), config).unwrap();
    let providers = format!(
        "kind: CredentialProviderConfig\nproviders: [{{name: cloud, matchImages: ['{registry}']}}]\n"
    );
    std::fs::write(kubelet.join("providers.yaml"), providers).unwrap();
    let with = async |docker_config: &str, providers: &str| {
        let config = network(
            &world,
            &format!(
                "  kubelet_docker_config: '{docker_config}'\n  kubelet_credential_providers: '{providers}'"
            ),
        );
        let probe = Probe::of(&world).anonymous();
        probe.args(["--config", &config]).run().await
    };
    let own = "HOST/var/lib/kubelet/config.json";
    let seen = with(own, "none").await;
    seen.is_quiet();
    assert!(!unseen(&seen, NotObserved::NodeCredentials));
    let tried = &seen.report().evidence.keyring.candidates[0];
    assert!(
        tried.source.to_string().starts_with("the kubelet's "),
        "{tried}"
    );

    // The node has none, and that is known.
    let none = with("none", "none").await;
    none.shows("auth_no_cred", Severity::Critical, Pull::WouldFail);
    assert_eq!(
        none.report().verdict.findings[0].confidence,
        Confidence::High
    );
    // It may have one.
    let gone = with("HOST/var/lib/kubelet/gone.json", "none").await;
    gone.shows("auth_no_cred", Severity::Critical, Pull::WouldFail);
    assert_eq!(
        gone.report().verdict.findings[0].confidence,
        Confidence::Medium
    );
    assert!(unseen(&gone, NotObserved::NodeCredentials));
    // The kubelet calls a plugin for this image.
    let plugin = with("none", "HOST/var/lib/kubelet/providers.yaml").await;
    plugin.shows("auth_unknown", Severity::Critical, Pull::Unknown);
    assert!(plugin.text().contains("credential provider cloud"));
}

/// A configuration is one for many nodes: what one of them lacks is reported as not observed, and stops
/// nothing. A file that an option names must exist.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_configuration_names_and_this_node_lacks_is_reported_as_not_observed() {
    let world = World::healthy().await;
    let drop_in = "[Service]\nEnvironment=NO_PROXY=registry.test\n";
    let present = world.write("present.conf", drop_in);
    let config = network(
        &world,
        &format!(
            "  proxy_from: ['{}', 'HOST/containerd.service.d']",
            present.display()
        ),
    );
    let outcome = Probe::of(&world).args(["--config", &config]).run().await;
    outcome.is_quiet();
    assert!(unseen(&outcome, NotObserved::Proxy));
    let proxies = &outcome.report().evidence.proxies;
    assert!(proxies.source.contains("present.conf"), "{proxies:?}");
    assert!(!proxies.is_containerds);
    let text = outcome
        .text()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        text.contains("containerd.service.d, given with network.proxy_from: No such file"),
        "{text}"
    );

    let vantage = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pullpath"));
        command.env_clear().arg("vantage").args(arguments);
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let words: Vec<&str> = said.split_whitespace().collect();
        (output.status.code(), words.join(" "))
    };
    for (key, named, why) in [
        ("hosts_dir", "HOST/certs.d", "No such file"),
        ("hosts_dir", "HOST/config.toml", "is not a folder"),
        ("containerd_config", "HOST/gone.toml", "No such file"),
        ("containerd_config", "HOST/config.toml", "at line 1"),
    ] {
        let host = node_root(&world);
        std::fs::create_dir_all(&host).unwrap();
        std::fs::write(host.join("config.toml"), "[plugins\n").unwrap();
        let config = network(&world, &format!("  {key}: '{named}'"));
        let (code, said) = vantage(&["--config", &config]);
        assert_eq!(code, Some(0), "{said}");
        let (_, unseen) = said
            .split_once("not observed from this vantage point")
            .expect(&said);
        assert!(
            unseen.contains("containerd's mirrors") && unseen.contains(why),
            "{key}: {unseen}"
        );
        let option = format!("--{}", key.replace('_', "-"));
        let named = named.replace("HOST", host.to_str().unwrap());
        let (code, said) = probe_refused(&option, &named);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(why), "{option}: {said}");
    }
}

fn probe_refused(option: &str, path: &str) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .env_clear()
        .args(["probe", "registry.test/a:1", option, path])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}
