//! `pullpath run` as its operator has it: the built program with a configuration, against peers on
//! loopback that can be made to fail.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]

mod operated;
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use nix::sys::signal::Signal;
use operated::browser::picture;
use operated::{Daemon, Metrics, ask, config, eventually, eventually_within, target};
use pullpath::daemon::http::metrics::FAMILIES;
use pullpath::daemon::http::status::{PATH, Status};
use pullpath::daemon::schedule::clock::{hash, share};
use pullpath::doctor::{Part, State};
use pullpath::model::units::Bytes;
use pullpath::report::Document;
use pullpath::report::doctor::DoctorDocument;
use serde_json::Value;
use support::registry::RateLimit;
use support::tcp::{HelloFilter, TooLarge};
use support::web::Reply;
use support::{PASSWORD, REGISTRY, USER, World};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_credential_rests_until_it_changes_also_over_a_restart() {
    let world = World::healthy().await;
    let (line, secret) = target(&world, "app", "wrong");
    let folder = Arc::new(TempDir::new().unwrap());
    let text = config(
        &world,
        &line,
        &format!("state_dir: '{}'", folder.path().join("state").display()),
    );
    let daemon = Daemon::start_in(&text, Arc::clone(&folder));
    assert_eq!(daemon.codes("app"), ["auth_bad_cred"]);
    let tried = || world.tokens.server.seen().len();
    let before = tried();
    assert!(before > 0);
    for _ in 0..3 {
        let document = daemon.check("app", "reach");
        let verdict = &document.reports[0].verdict;
        assert_eq!(
            verdict.findings[0].cause.code(),
            "auth_bad_cred",
            "it is still known"
        );
        assert!(
            verdict.findings[0]
                .evidence
                .iter()
                .any(|fact| fact.contains("not tried again soon")),
            "{verdict:#?}"
        );
        // The path to the registry is checked all the same.
        assert!(document.reports[0].evidence.walk.ping.done().is_some());
    }
    assert_eq!(tried(), before, "no wrong password was sent again");
    assert_eq!(daemon.stop(), Some(0));

    let daemon = Daemon::start_in(&text, Arc::clone(&folder));
    assert_eq!(daemon.codes("app"), ["auth_bad_cred"]);
    assert_eq!(tried(), before, "nor by the next process");
    // A changed file needs no request to reload.
    fs::write(
        secret,
        World::docker_config(&world.registry_host(), USER, PASSWORD),
    )
    .unwrap();
    assert!(daemon.codes("app").is_empty());
    assert!(tried() > before);
    assert_eq!(
        daemon.metrics().value(
            "pullpath_pull_ready{target=\"app\",registry=\"registry.test:PORT\"}"
                .replace("PORT", &world.registry.server.port().to_string())
                .as_str()
        ),
        Some(1.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_fetched_once_and_of_a_layer_one_byte() {
    let world = World::healthy().await;
    let (line, _) = target(&world, "app", PASSWORD);
    let folder = Arc::new(TempDir::new().unwrap());
    let text = config(
        &world,
        &line,
        &format!("state_dir: '{}'", folder.path().join("state").display()),
    );
    for _ in 0..2 {
        let daemon = Daemon::start_in(&text, Arc::clone(&folder));
        for _ in 0..3 {
            assert!(daemon.codes("app").is_empty());
        }
        assert_eq!(daemon.stop(), Some(0));
    }
    let gets = |part: &str| {
        let seen = world.registry.server.seen();
        seen.iter()
            .filter(|seen| seen.method == Method::GET && seen.path.contains(part))
            .count()
    };
    let gets_let_in = world.registry.server.seen();
    let gets_let_in = gets_let_in.iter().filter(|seen| {
        seen.method == Method::GET
            && seen.path.contains("/manifests/")
            && seen.authorization().is_some()
    });
    assert_eq!(gets_let_in.count(), 2, "the index and this platform's");
    assert_eq!(gets("/manifests/"), 3, "and one without a token");
    let heads = world
        .registry
        .server
        .seen()
        .iter()
        .filter(|seen| seen.method == Method::HEAD)
        .count();
    assert_eq!(heads, 12, "each without a token first");
    let blobs = world.blobs.server.seen();
    assert!(blobs.iter().all(|seen| seen.header("range").is_none()));
    let image = world.image.platform("amd64");
    let config = image.config.digest.trim_start_matches("sha256:");
    let of_config = blobs.iter().filter(|seen| seen.path.contains(config));
    assert_eq!(
        (of_config.count(), blobs.len()),
        (6, 12),
        "the configuration, and a layer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_too_many_is_left_alone_for_as_long_as_it_says() {
    let world = World::healthy().await;
    let (line, _) = target(&world, "app", PASSWORD);
    let daemon = Daemon::start(&config(&world, &line, ""));
    let too_many = Reply::new(429).header("retry-after", "600");
    world.registry.knobs().manners.fail("/manifests/", too_many);
    assert_eq!(daemon.codes("app"), ["rate_limited"]);
    let seen = world.registry.server.seen().len();
    let refused = daemon.order("/-/check?target=app");
    assert_eq!(refused.status, 429, "{refused:?}");
    let after = refused.retry_after().unwrap().as_secs();
    // What the registry asked for, and up to half as much again.
    assert!((500..=900).contains(&after), "{refused:?}");
    assert!(
        refused.body.contains("registry_backoff, until 2"),
        "{}",
        refused.body
    );
    assert_eq!(world.registry.server.seen().len(), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_little_left_of_a_rate_limit_only_what_is_free_goes_on() {
    let world = World::healthy().await;
    let (line, _) = target(&world, "app", PASSWORD);
    let daemon = Daemon::start(&config(&world, &line, ""));
    let limit = |remaining| RateLimit {
        limit: 100,
        remaining,
        window_seconds: 21_600,
        source: "192.0.2.1".to_owned(),
    };
    world.registry.knobs().rate_limit = Some(limit(5));
    assert_eq!(daemon.codes("app"), ["rate_limit_low"]);
    // Another image under the tag: its manifest would have to be fetched.
    world.registry.server.forget();
    world.registry.store.push(
        support::REPOSITORY,
        support::TAG,
        &support::image::Image::multi(2),
    );
    let document = daemon.check("app", "reach");
    let gets = |is_let_in: bool| {
        world
            .registry
            .server
            .seen()
            .iter()
            .filter(|seen| seen.method == Method::GET && seen.path.contains("/manifests/"))
            .filter(|seen| seen.authorization().is_some() == is_let_in)
            .count()
    };
    assert_eq!((gets(true), gets(false)), (0, 0));
    assert_eq!(document.pull(), pullpath::diagnose::Pull::Unknown);
    let transfer = daemon.order("/-/check?target=app&tier=transfer");
    assert_eq!(
        (transfer.status, transfer.body.contains("rate_limit_floor")),
        (429, true),
        "{transfer:?}"
    );
    let registry = world.registry_host();
    let metrics = daemon.metrics();
    assert_eq!(
        metrics.value(&format!("pullpath_rate_limit{{registry=\"{registry}\"}}")),
        Some(100.0)
    );
    assert_eq!(
        metrics.with("pullpath_pull_ready"),
        Vec::<&str>::new(),
        "it is not known"
    );
    world.registry.knobs().rate_limit = Some(limit(50));
    daemon.check("app", "reach");
    assert!(daemon.codes("app").is_empty());
    assert_eq!((gets(true), gets(false)), (2, 1));
}

/// A node whose first trial of this endpoint comes within half a second of the first check.
fn node_with_an_early_trial(endpoint: &str) -> String {
    let is_early = |node: &String| share(hash(&[node, endpoint, "large hello"])) < 0.5 / 3600.0;
    let mut nodes = (0..).map(|number| format!("node-{number}"));
    nodes.find(is_early).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_hello_is_tried_once_and_its_result_is_remembered() {
    let world = World::healthy().await;
    let filter = HelloFilter::before(world.registry.server.addr, 600, TooLarge::Reset).await;
    world.dns.host(REGISTRY, &[filter.addr.ip()]);
    let (line, _) = target(&world, "app", PASSWORD);
    let node = node_with_an_early_trial(&format!("https://{}", world.registry_host()));
    let folder = Arc::new(TempDir::new().unwrap());
    let daemon = Daemon::start_as(
        &["run", "--node", &node],
        &config(&world, &line, ""),
        folder,
    );
    eventually("its turn has come", || {
        daemon.codes("app") == ["tls_large_hello"]
    });
    for _ in 0..3 {
        assert_eq!(daemon.codes("app"), ["tls_large_hello"]);
    }
    assert_eq!(
        filter.refused(),
        3,
        "one trial, and not again within an hour"
    );
}

/// An image that leaves something to measure: what is smaller than a MiB is read whole before.
fn push_large(world: &World) {
    use support::image::{Flavour, Image};
    let image = Image::build(7, Flavour::Oci, &["amd64"], &[3 << 20, 3 << 19]);
    let store = &world.registry.store;
    store.push(support::REPOSITORY, support::TAG, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_of_bytes_are_kept_over_a_restart() {
    let world = World::healthy().await;
    push_large(&world);
    let (line, _) = target(&world, "app", PASSWORD);
    let folder = Arc::new(TempDir::new().unwrap());
    let state = folder.path().join("state");
    let text = config(
        &world,
        &line,
        &format!(
            "state_dir: '{}'\nbudgets: {{target_bytes_per_day: 4MiB, transfer_bytes: 4MiB}}",
            state.display()
        ),
    );
    let daemon = Daemon::start_in(&text, Arc::clone(&folder));
    let document = daemon.check("app", "transfer");
    let walk = &document.reports[0].evidence.walk;
    let tested = walk.transfer.as_ref().unwrap().bytes();
    assert!(tested.0 > 0);
    let layers = walk.layers.iter();
    let beside: u64 = layers
        .map(|layer| layer.outcome.done().unwrap().bytes.0)
        .sum();
    let read = Bytes(tested.0 + beside);
    let registry = world.registry_host();
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let spent = Some(read.0 as f64);
    assert_eq!(
        daemon.metrics().value(&format!(
            "pullpath_transfer_spent_bytes_total{{registry=\"{registry}\"}}"
        )),
        spent
    );
    // As a crash does it: nothing is said to it.
    let file = state.join("state.json");
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        kept["ledger"]["targets"]["app"],
        4 << 20,
        "booked before it was read"
    );
    drop(daemon);
    let daemon = Daemon::start_in(&text, Arc::clone(&folder));
    let refused = daemon.order("/-/check?target=app&tier=transfer");
    assert_eq!(
        (refused.status, refused.body.contains("target_bytes")),
        (429, true),
        "{refused:?}"
    );
    assert_eq!(daemon.stop(), Some(0));
    // A torn file is set aside, and nothing else is lost.
    fs::write(&file, "{\"version\":1,").unwrap();
    let daemon = Daemon::start_in(&text, Arc::clone(&folder));
    assert!(
        daemon
            .log()
            .iter()
            .any(|line| line.contains("state.json.bad")),
        "{:?}",
        daemon.log()
    );
    assert!(daemon.codes("app").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_refused_whole_and_a_good_one_counts_at_once() {
    let world = World::healthy().await;
    let (app, _) = target(&world, "app", PASSWORD);
    let (other, _) = target(&world, "other", PASSWORD);
    let daemon = Daemon::start(&config(&world, &app, ""));
    assert!(daemon.codes("app").is_empty());
    assert!(!daemon.metrics().with("target=\"app\"").is_empty());

    daemon.rewrite(&config(&world, &other, "shedule: {}"));
    eventually("the bad one is seen", || {
        daemon
            .metrics()
            .value("pullpath_config_last_reload_successful")
            == Some(0.0)
    });
    let ready = daemon.get("/readyz");
    assert_eq!(ready.status, 200);
    assert!(
        ready.body.contains("unknown key; did you mean schedule?"),
        "{ready:?}"
    );
    assert!(daemon.get("/").body.contains("was rejected"));
    assert!(daemon.codes("app").is_empty(), "the one before is in force");
    let refused = daemon.order("/-/reload");
    assert_eq!(refused.status, 422);
    assert!(
        refused.body.contains("config.yaml") && refused.body.contains("line "),
        "{refused:?}"
    );

    // A password pasted as a value, a key, a list, a number, outside of everything, or into a quote.
    for slip in [
        "state_dir: [canary-7f3a9c]",
        "canary-7f3a9c: x",
        "schedule: {canary-7f3a9c: 5m}",
        "schedule: {reach: canary-7f3a9c}",
        "canary-7f3a9c",
        "state_dir: \"canary-7f3a9c\\q\"",
        "budgets: {checks_at_once: 7331733173}",
        "state_dir: 'canary-7f3a9c",
    ] {
        daemon.rewrite(&config(&world, &other, slip));
        let refused = daemon.order("/-/reload");
        assert_eq!(refused.status, 422, "{slip}");
        assert!(refused.body.contains("line "), "{refused:?}");
        let ready = daemon.get("/readyz");
        let page = daemon.get("/");
        assert!(page.body.contains("was rejected"), "{slip}");
        for text in [
            &refused.body,
            &ready.body,
            &page.body,
            &daemon.log().join("\n"),
        ] {
            assert!(
                !text.contains("canary") && !text.contains("7331733173"),
                "{slip}: {text}"
            );
        }
    }

    daemon.rewrite(&config(&world, &format!("{app}\n{other}"), ""));
    eventually("the good one is seen", || {
        daemon.metrics().value("pullpath_targets") == Some(2.0)
    });
    let metrics = daemon.metrics();
    assert_eq!(
        metrics.value("pullpath_config_last_reload_successful"),
        Some(1.0)
    );
    assert!(
        !metrics.with("target=\"app\"").is_empty(),
        "what stays keeps what is known of it"
    );
    assert!(daemon.codes("other").is_empty());

    // A target that is gone takes its series along.
    daemon.rewrite(&config(&world, &other, ""));
    daemon.signal(Signal::SIGHUP);
    eventually("it is gone", || {
        daemon.metrics().value("pullpath_targets") == Some(1.0)
    });
    assert_eq!(daemon.metrics().with("target=\"app\""), Vec::<&str>::new());
    assert_eq!(daemon.get("/api/v1/reports/app").status, 404);
    assert_eq!(daemon.stop(), Some(0));
}

/// A target without a name has that of its image, on each face; one that joins or leaves renames none.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_needs_no_name_and_keeps_the_one_of_its_image() {
    let world = World::healthy().await;
    let (_, secret) = target(&world, "app", PASSWORD);
    let (app, other) = (
        world.reference(),
        format!("{}/other:1", world.registry_host()),
    );
    let login = format!("credential: {{docker_config: '{}'}}", secret.display());
    let one = format!("  - {{image: '{app}', {login}}}");
    let daemon = Daemon::start(&config(&world, &one, ""));
    let in_path = app.replace('/', "%2F");
    assert!(daemon.codes(&app).is_empty());
    let reports = |daemon: &Daemon| {
        let answer = daemon.get(&format!("/api/v1/reports/{in_path}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let document: Document = serde_json::from_str(&answer.body).unwrap();
        document.reports.len()
    };
    assert_eq!(reports(&daemon), 1);
    let page = daemon.get("/").body;
    let links = page
        .split("href=\"")
        .filter_map(|part| part.split('"').next());
    let of_target: Vec<&str> = links.filter(|link| link.starts_with("/targets/")).collect();
    assert!(!of_target.is_empty(), "{page}");
    for link in of_target {
        assert_eq!(daemon.get(link).status, 200, "{link}");
    }
    assert_eq!(daemon.get(&format!("/probe?target={app}")).status, 200);
    let ready = format!(
        "pullpath_pull_ready{{target=\"{app}\",registry=\"{}\"}}",
        world.registry_host()
    );
    assert_eq!(daemon.metrics().value(&ready), Some(1.0));

    daemon.rewrite(&config(&world, &format!("  - image: {other}\n{one}"), ""));
    eventually("both are there", || {
        daemon.metrics().value("pullpath_targets") == Some(2.0)
    });
    assert!(reports(&daemon) >= 1, "its history is still there");
    assert_eq!(daemon.metrics().value(&ready), Some(1.0));

    // The same image again, written in another way.
    let twice = format!("{one}\n  - {{image: '{app}', platform: linux/arm64}}");
    daemon.rewrite(&config(&world, &twice, ""));
    let refused = daemon.order("/-/reload");
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(
        refused.body.contains("the same image and no name"),
        "{refused:?}"
    );
    assert_eq!(daemon.stop(), Some(0));
}

/// Images on the command line are checked with defaults, or besides a file's targets, also after a reload.
#[tokio::test(flavor = "multi_thread")]
async fn images_need_no_file_and_join_those_of_a_file() {
    let world = World::healthy().await;
    let (app, _) = target(&world, "app", PASSWORD);
    let text = config(&world, &app, "");
    let (image, other) = (
        world.reference(),
        format!("{}/other:1", world.registry_host()),
    );
    // `app` has that image already.
    let folder = Arc::new(TempDir::new().unwrap());
    let daemon = Daemon::start_as(&["run", &image, &other, &other], &text, folder);
    let names = || {
        let all: Value = serde_json::from_str(&daemon.get("/api/v1/targets").body).unwrap();
        let all = all.as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let both = ["app".to_owned(), other.clone()];
    assert_eq!(names(), both);
    assert_eq!(daemon.order("/-/reload").status, 200);
    assert_eq!(names(), both);
    assert_eq!(daemon.stop(), Some(0));

    let closed = support::tcp::Closed::new();
    let image = format!("127.0.0.1:{}/team/app:1", closed.addr.port());
    let args = [
        "run",
        &image,
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
    ];
    let daemon = Daemon::start_plain(&args);
    eventually("it is checked by itself", || {
        let state = format!("pullpath_target_state{{target=\"{image}\"");
        daemon
            .metrics()
            .with(&state)
            .iter()
            .any(|one| one.contains("would_fail"))
    });
    daemon.signal(Signal::SIGHUP);
    assert_eq!(daemon.order("/-/reload").status, 200);
    assert_eq!(daemon.metrics().value("pullpath_targets"), Some(1.0));
    assert_eq!(daemon.stop(), Some(0));

    let run = Command::new(operated::program())
        .arg("run")
        .env_clear()
        .output()
        .unwrap();
    let error = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(2), "{error}");
    assert!(error.contains("name images, or a configuration"), "{error}");
}

/// `pullpath node-check` beside a daemon, as node-problem-detector runs it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_check_is_one_line_and_a_status() {
    let world = World::healthy().await;
    let (app, _) = target(&world, "app", PASSWORD);
    let closed = support::tcp::Closed::new();
    let image = format!(
        "127.0.0.1:{}/{}:1",
        closed.addr.port(),
        "long-name/".repeat(9) + "app"
    );
    let targets = format!("{app}\n  - {{name: bad, image: '{image}'}}");
    let daemon = Daemon::start(&config(&world, &targets, ""));
    let check = |at: &str| {
        let run = Command::new(operated::program())
            .args(["node-check", "--timeout", "30s", "--admin-listen", at])
            .env_clear()
            .output()
            .unwrap();
        let line = String::from_utf8(run.stdout).unwrap();
        assert_eq!(String::from_utf8(run.stderr).unwrap(), "");
        assert!(line.is_ascii() && line.lines().count() == 1, "{line}");
        assert!(line.trim_end().len() <= 80, "{line}");
        (run.status.code(), line.trim_end().to_owned())
    };
    let at = daemon.admin.to_string();
    let unknown = "the result is unknown for all 2 images".to_owned();
    assert_eq!(check(&at), (Some(2), unknown));
    assert!(daemon.codes("app").is_empty());
    let fine = "1 of 2 images can be pulled, unknown for 1".to_owned();
    assert_eq!(check(&at), (Some(0), fine));
    assert_eq!(daemon.codes("bad"), ["tcp_refused"]);
    let (code, line) = check(&at);
    assert_eq!(code, Some(1), "{line}");
    let begin = format!(
        "1 of 2 images can't be pulled: tcp_refused: {}",
        &image[..12]
    );
    assert!(line.starts_with(&begin) && line.ends_with("..."), "{line}");
    let status: Status = serde_json::from_str(&ask(daemon.admin, "GET", PATH, "").body).unwrap();
    assert_eq!((status.node.as_str(), status.all()), ("n1", 2));
    assert_eq!(status.failing[0].image, image);
    assert_eq!(daemon.get(PATH).status, 404, "only at the admin address");
    // Another server, and none.
    let (code, line) = check(&daemon.public.to_string());
    assert_eq!(
        (code, line.ends_with("HTTP 404")),
        (Some(2), true),
        "{line}"
    );
    assert_eq!(daemon.stop(), Some(0));
    let (code, line) = check(&at);
    assert_eq!(code, Some(2), "{line}");
    assert!(
        line.starts_with("no result from pullpath at 127.0.0.1:"),
        "{line}"
    );
}

/// `pullpath doctor` on a machine without a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_what_is_missing_and_how_to_fix_it() {
    let world = World::healthy().await;
    let (app, _) = target(&world, "app", PASSWORD);
    let closed = support::tcp::Closed::new();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("c.yaml");
    let doctor = |text: &str, format: &str| {
        fs::write(&file, text).unwrap();
        let run = Command::new(operated::program())
            .args(["doctor", "--timeout", "2s", "-o", format, "-c"])
            .arg(&file)
            .env_clear()
            .output()
            .unwrap();
        let output = String::from_utf8(run.stdout).unwrap();
        (run.status.code(), output)
    };
    let parsed = |text: &str| {
        let (code, output) = doctor(text, "json");
        (
            code,
            serde_json::from_str::<DoctorDocument>(&output).unwrap(),
        )
    };
    let named = |document: &DoctorDocument, part: Part, state: State| {
        let all = document.checks.iter();
        let of_part = all.filter(move |check| check.part == part && check.state == state);
        of_part.cloned().collect::<Vec<_>>()
    };

    let whole = config(&world, &app, "");
    let daemon = Daemon::start(&whole);
    let with_daemon = whole.replace(
        "admin_listen: 127.0.0.1:0",
        &format!("admin_listen: {}", daemon.admin),
    );
    let (code, document) = parsed(&with_daemon);
    assert_eq!(code, Some(0), "{document:#?}");
    assert_eq!(document.state, State::Ok);
    for part in [
        Part::Configuration,
        Part::Files,
        Part::Resolver,
        Part::Daemon,
    ] {
        assert_eq!(
            named(&document, part, State::Ok).len(),
            1,
            "{part:?}: {document:#?}"
        );
    }
    let resolver = &named(&document, Part::Resolver, State::Ok)[0].text;
    assert!(resolver.contains("registry.test resolves"), "{resolver}");
    // What has a rejected configuration is no whole installation.
    daemon.rewrite("shedule: {}\n");
    assert_eq!(daemon.order("/-/reload").status, 422);
    let (code, document) = parsed(&with_daemon);
    assert_eq!(code, Some(1), "{document:#?}");
    let of_daemon = named(&document, Part::Daemon, State::Problem);
    assert!(of_daemon[0].text.contains("was rejected"), "{document:#?}");
    assert_eq!(daemon.stop(), Some(0));

    let broken = format!(
        "network: {{nameservers: ['{}'], metadata: off, controls: ['127.0.0.1:{}', '{REGISTRY}:1'],\n  \
         pod_annotations: '{}'}}\n",
        closed.addr,
        closed.addr.port(),
        folder.path().join("none").display()
    );
    let (code, document) = parsed(&broken);
    assert_eq!(code, Some(1), "{document:#?}");
    for (part, count) in [(Part::Files, 1), (Part::Resolver, 1), (Part::Egress, 2)] {
        let problems = named(&document, part, State::Problem);
        assert_eq!(problems.len(), count, "{part:?}: {document:#?}");
        assert!(
            problems.iter().all(|check| check.fix.is_some()),
            "{document:#?}"
        );
    }
    let (code, text) = doctor(&broken, "text");
    assert_eq!(code, Some(1));
    assert!(text.starts_with("4 problems  Pullpath "), "{text}");
    assert!(
        text.contains("fix: correct network.pod_annotations"),
        "{text}"
    );
    assert!(text.lines().count() <= 30, "one screen: {text}");

    let (code, document) = parsed("targets:\n- image: 'A B'\n");
    assert_eq!((code, document.checks.len()), (Some(1), 1), "{document:#?}");
    let of_file = &named(&document, Part::Configuration, State::Problem)[0];
    assert!(of_file.text.contains("line 2 column 10"), "{of_file:?}");
}

#[test]
fn nothing_starts_half_configured() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("c.yaml");
    let run = |text: &str, args: &[&str]| {
        fs::write(&path, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_pullpath"))
            .args(args)
            .arg(&path)
            .env_clear()
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    for (text, says) in [
        ("targets:\n  - {name: a}\n", "the key image is missing"),
        (
            "targets:\n  - {name: a, canary: x}\n",
            "targets[0]: unknown key",
        ),
        ("canary\n", "line 1"),
        ("schedule:\n  reach: often\n", "line 2 column 10"),
        ("state_dir: /dev/null/x\n", "state_dir"),
        (
            "network: {ca_files: [/nonexistent.pem]}\n",
            "/nonexistent.pem",
        ),
    ] {
        let (code, output, _) = run(text, &["run", "--config"]);
        assert_eq!(code, Some(2), "{text}: {output}");
        assert!(output.contains(says), "{text}: {output}");
        assert!(!output.contains("canary"), "{text}: {output}");
    }
    let (code, output, _) = run("schedule:\n  reach: often\n", &["config", "check"]);
    assert_eq!(code, Some(2));
    assert!(
        output.contains("c.yaml")
            && output.contains("line 2 column 10: schedule.reach: not a duration"),
        "{output}"
    );
    let (code, _, output) = run("targets: []\n", &["config", "check"]);
    assert_eq!(
        (code, output.contains("valid, with 0 targets")),
        (Some(0), true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_has_what_the_documentation_lists_and_promtool_likes_it() {
    let world = World::healthy().await;
    push_large(&world);
    let (app, _) = target(&world, "app", PASSWORD);
    let (wrong, _) = target(&world, "wrong", "wrong");
    let expecting = app.replace(
        "credential:",
        "expect: {class: [intranet], throughput_mbit: 100000, pull_within: 1s}, credential:",
    );
    let daemon = Daemon::start(&config(&world, &format!("{expecting}\n{wrong}"), ""));
    world.registry.knobs().rate_limit = Some(RateLimit {
        limit: 100,
        remaining: 50,
        window_seconds: 21_600,
        source: "192.0.2.1".to_owned(),
    });
    for tier in ["reach", "path", "transfer"] {
        daemon.check("app", tier);
    }
    daemon.check("wrong", "reach");
    let asked = format!(r#"{{"image": "{}"}}"#, world.reference());
    let answer = operated::send(daemon.admin, "POST", "/-/probe", "", &asked);
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = daemon.get("/metrics").body;
    let metrics = Metrics::parse(&text);
    for family in FAMILIES {
        if let Some(kind) = metrics.types.get(family.name) {
            assert_eq!(kind, family.kind, "{}", family.name);
        }
    }
    // What this world can't show: no credential says when it ends, no cap, no limit of processors,
    // nothing declared, nothing deferred.
    let absent = [
        "pullpath_credential_expiry_timestamp_seconds",
        "pullpath_bandwidth_cap_bytes_per_second",
        "pullpath_bottleneck",
        "pullpath_throttled_seconds_total",
        "pullpath_bandwidth_declared_bytes_per_second",
        "pullpath_check_deferred",
        "pullpath_checks_skipped_total",
    ];
    for family in FAMILIES
        .iter()
        .filter(|family| !absent.contains(&family.name))
        // tests/kubernetes.rs, tests/kubernetes_node.rs and tests/spread.rs have a cluster.
        .filter(|family| {
            let of_cluster = [
                "pullpath_kubernetes_",
                "pullpath_node_",
                "pullpath_events_",
                "pullpath_spread_",
            ];
            !of_cluster
                .iter()
                .any(|start| family.name.starts_with(start))
        })
    {
        assert!(
            metrics.types.contains_key(family.name),
            "{} is not served",
            family.name
        );
    }
    for name in metrics.types.keys() {
        let known =
            FAMILIES.iter().any(|family| family.name == name) || name.starts_with("process_");
        assert!(known, "{name} is not in the documentation");
    }
    for series in metrics.series.keys() {
        let Some((name, labels)) = series
            .strip_suffix('}')
            .and_then(|series| series.split_once('{'))
        else {
            continue;
        };
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        let family = FAMILIES
            .iter()
            .find(|family| family.name == base || family.name == name)
            .unwrap();
        for label in labels
            .split("\",")
            .map(|label| label.split('=').next().unwrap())
        {
            assert!(family.labels.contains(&label) || label == "le", "{series}");
        }
        for secret in ["127.0.0.1", "sha256:", "=\"1.0\"", PASSWORD] {
            assert!(!labels.contains(secret), "{series}");
        }
    }
    for name in ["app", "wrong"] {
        let count = metrics.with(&format!("target=\"{name}\"")).len();
        assert!((5..=40).contains(&count), "{name}: {count}");
    }
    assert_eq!(
        metrics.value("pullpath_path_expected{target=\"app\",leg=\"blob\"}"),
        Some(1.0)
    );
    assert_eq!(
        metrics.value("pullpath_bandwidth_insufficient{target=\"app\"}"),
        Some(1.0)
    );

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");

    // The same as the blackbox exporter has it.
    let probe = daemon.get("/probe?target=app");
    let own = Metrics::parse(&probe.body);
    assert_eq!(own.value("probe_success"), Some(1.0), "{probe:?}");
    assert!(own.value("probe_duration_seconds").unwrap() > 0.0);
    assert!(
        own.series
            .keys()
            .all(|series| series.starts_with("probe_") || series.contains("target=\"app\""))
    );
    let debug = daemon.get("/probe?target=app&debug=true").body;
    assert!(
        debug.contains("would succeed") && debug.contains("Metrics that would have been returned"),
        "{debug}"
    );
    assert_eq!(daemon.get("/probe?target=nobody").status, 404);
    assert_eq!(daemon.get("/probe").status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_api_show_all_and_hold_no_secret_and_no_script() {
    let world = World::healthy().await;
    let (app, _) = target(&world, "app", PASSWORD);
    let daemon = Daemon::start(&config(&world, &app, ""));
    let evil = "<script>alert(1)</script>";
    world.registry.knobs().manners.fail(
        "/manifests/",
        support::registry::oci_error(403, "DENIED", evil),
    );
    daemon.check("app", "reach");
    let index = daemon.get("/");
    assert_eq!(index.status, 200);
    assert!(
        index
            .head
            .to_ascii_lowercase()
            .contains("content-security-policy: default-src 'none'"),
        "{}",
        index.head
    );
    assert!(
        index.body.contains("1 of 1 pulls would fail"),
        "{}",
        index.body
    );
    // Each finding leads to its cause's entry.
    assert!(
        index.body.contains("<a href=\"/causes/auth_denied\">"),
        "{}",
        index.body
    );
    let entry = daemon.get("/causes/auth_denied").body;
    let cause = pullpath::diagnose::catalogue::Cause::AuthDenied.entry();
    assert!(entry.contains(cause.title) && entry.contains("What to do"));
    let unknown = daemon.get("/causes/%3Cb%3Enone");
    assert_eq!(unknown.status, 404);
    assert!(!unknown.body.contains('<'), "{unknown:?}");
    let mut all = vec![index.body];
    let summary = daemon.get("/api/v1/targets").body;
    let list: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(list[0]["name"], "app");
    assert_eq!(list[0]["outcome"], "would_fail");
    let run = list[0]["runs"][0]["id"].as_u64().unwrap();
    for path in [
        "/targets/app".to_owned(),
        format!("/targets/app/{run}"),
        "/vantage".to_owned(),
        "/causes/auth_denied".to_owned(),
    ] {
        let page = daemon.get(&path);
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.body.contains("<script"), "{path}: {}", page.body);
        all.push(page.body);
    }
    for path in [
        "/api/v1/reports".to_owned(),
        "/api/v1/reports/app".to_owned(),
        format!("/api/v1/reports/app/{run}"),
    ] {
        let answer = daemon.get(&path);
        let document: Document = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(document.reports.len(), 1, "{path}");
        all.push(answer.body);
    }
    assert_eq!(daemon.get("/api/v1/vantage").status, 200);
    assert_eq!(daemon.get("/healthz").status, 200);
    for path in [
        "/targets/nobody",
        "/targets/app/999",
        "/api/v1/reports/nobody",
        "/api/v1/reports/app/999",
        "/nothing",
    ] {
        assert_eq!(daemon.get(path).status, 404, "{path}");
    }
    all.push(daemon.get("/metrics").body);
    all.push(daemon.get("/probe?target=app&debug=true").body);
    all.extend(daemon.log());
    for text in all {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    // Orders are not for everybody.
    assert_eq!(ask(daemon.public, "POST", "/-/reload", "").status, 404);
    assert_eq!(
        ask(
            daemon.admin,
            "POST",
            "/-/reload",
            "Origin: http://evil.test\r\n"
        )
        .status,
        403
    );
    assert_eq!(ask(daemon.admin, "GET", "/-/reload", "").status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_checked_yet_counts_as_nothing_on_any_face() {
    let world = World::healthy().await;
    let lines = ["a", "b", "c"].map(|name| target(&world, name, PASSWORD).0);
    let daemon = Daemon::start(&config(&world, &lines.join("\n"), ""));
    let faces = |sentence: &str, of_states: [usize; 2]| {
        let ready = daemon.get("/readyz");
        let first = ready.body.lines().next().map(str::to_owned);
        assert_eq!(
            (ready.status, first),
            (200, Some(format!("ready: {sentence}")))
        );
        let page = daemon.get("/").body;
        assert!(page.contains(&format!(">{sentence}</h1>")), "{page}");
        assert_eq!(
            page.matches("<small>not checked yet</small>").count(),
            of_states[1]
        );
        let metrics = daemon.metrics();
        let states = ["would_succeed", "not_checked"];
        let found = states.map(|state| metrics.with(&format!("state=\"{state}\"")).len());
        assert_eq!(found, of_states);
        assert_eq!(metrics.with("pullpath_pull_ready").len(), of_states[0]);
        let targets: Value = serde_json::from_str(&daemon.get("/api/v1/targets").body).unwrap();
        let found = states.map(|state| {
            let all = targets.as_array().unwrap().iter();
            all.filter(|target| target["state"] == state).count()
        });
        assert_eq!(found, of_states);
    };
    faces("3 not checked yet", [0, 3]);
    daemon.check("b", "reach");
    faces("1 would succeed, 2 not checked yet", [1, 2]);
    daemon.check("a", "reach");
    daemon.check("c", "reach");
    faces("All pulls would succeed", [3, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_a_result_is_checked_soon_at_the_start_and_after_a_reload() {
    let world = World::healthy().await;
    let line = |name: &str| target(&world, name, PASSWORD).0;
    let rare = "schedule: {reach: 24h, path: 168h, transfer: off}";
    let daemon = Daemon::start(&config(&world, &line("a"), rare));
    let runs = || -> Vec<usize> {
        let targets: Value = serde_json::from_str(&daemon.get("/api/v1/targets").body).unwrap();
        let runs = targets.as_array().unwrap().iter();
        runs.map(|target| target["runs"].as_array().unwrap().len())
            .collect()
    };
    let within = Duration::from_secs(30);
    eventually_within("the first check", within, || runs() == [1]);
    // One that is new, and one whose image is another one now; what has a result is not checked again.
    let other = line("b").replace(&format!(":{}'", support::TAG), ":other'");
    daemon.rewrite(&config(&world, &[line("a"), other].join("\n"), rare));
    eventually("the reload", || runs().len() == 2);
    eventually_within("of the new one", within, || runs() == [1, 1]);
    let metrics = daemon.metrics();
    let failing = metrics.with("state=\"would_fail\"");
    assert!(
        failing.len() == 1 && failing[0].contains("target=\"b\""),
        "{failing:?}"
    );
    daemon.rewrite(&config(&world, &[line("a"), line("b")].join("\n"), rare));
    eventually_within("of the new image", within, || {
        daemon.metrics().with("state=\"would_succeed\"").len() == 2
    });
    assert_eq!(runs(), [1, 1]);
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_come_by_themselves_and_what_changes_is_logged_once() {
    let world = World::healthy().await;
    let (app, _) = target(&world, "app", PASSWORD);
    let daemon = Daemon::start(&config(&world, &app, "schedule: {reach: 10s}"));
    let checks = |daemon: &Daemon, outcome: &str| {
        daemon
            .metrics()
            .value(&format!(
                "pullpath_checks_total{{tier=\"reach\",outcome=\"{outcome}\"}}"
            ))
            .unwrap_or(0.0)
    };
    eventually("the first check", || {
        checks(&daemon, "would_succeed") >= 1.0
    });
    world
        .dns
        .answer(support::REGISTRY, support::dns::Answer::NxDomain);
    for _ in 0..2 {
        assert_eq!(daemon.codes("app").len(), 1);
    }
    let logged = |daemon: &Daemon, message: &str| {
        let log = daemon.log();
        log.iter()
            .filter(|line| line.contains(&format!("\"message\":\"{message}\"")))
            .count()
    };
    assert_eq!(logged(&daemon, "finding appeared"), 1, "{:?}", daemon.log());
    world
        .dns
        .answer(support::REGISTRY, support::dns::Answer::Records);
    assert!(daemon.codes("app").is_empty());
    assert_eq!(logged(&daemon, "finding gone"), 1, "{:?}", daemon.log());
    let runs: Value = serde_json::from_str(&daemon.get("/api/v1/targets").body).unwrap();
    let failed = runs[0]["runs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["outcome"] == "would_fail")
        .count();
    assert_eq!(failed, 2);
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_under_way_may_end_within_the_grace_and_no_longer() {
    for (grace, finishes) in [("10s", true), ("1s", false)] {
        let world = World::healthy().await;
        let (app, _) = target(&world, "app", PASSWORD);
        let daemon = Daemon::start(&config(
            &world,
            &app,
            &format!("schedule: {{grace: {grace}, timeout: 30s, first_check: 1h}}"),
        ));
        world.registry.knobs().manners.delay = Duration::from_millis(800);
        let admin = daemon.admin;
        let asking = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(admin).unwrap();
            write!(
                stream,
                "POST /-/check?target=app HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
        });
        eventually("the check has begun", || {
            daemon.metrics().value("pullpath_checks_running") == Some(1.0)
                || !world.registry.server.seen().is_empty()
        });
        let log = Arc::clone(&daemon.log);
        assert_eq!(daemon.stop(), Some(0));
        asking.join().unwrap();
        let log = log.lock().unwrap().join("\n");
        assert!(
            log.contains(&format!("\"given_up\":{}", u8::from(!finishes))),
            "{grace}: {log}"
        );
    }
}

/// A real browser under the page's own policy: the style is applied, nothing is refused, and a page of
/// another origin is not asked for anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_the_pages_as_they_are_meant() {
    let world = World::healthy().await;
    let (app, _) = target(&world, "app", PASSWORD);
    let (wrong, _) = target(&world, "wrong", "wrong");
    let daemon = Daemon::start(&config(&world, &format!("{app}\n{wrong}"), ""));
    daemon.check("app", "transfer");
    daemon.check("wrong", "reach");
    let folder = TempDir::new().unwrap();
    let show = |path: &str, name: &str| {
        let to = folder.path().join(name);
        let url = format!("http://{}{path}", daemon.public);
        let console = picture(&url, [900, 1400], &to);
        // What the policy refuses, a browser says on its console.
        assert!(!console.contains("CONSOLE"), "{console}");
        fs::read(to).unwrap()
    };
    // An empty page is some KiB; these have text and cards.
    for (path, name) in [("/", "index.png"), ("/targets/app", "target.png")] {
        let picture = show(path, name);
        assert_eq!(&picture[1..4], b"PNG");
        assert!(picture.len() > 30_000, "{path}: {} bytes", picture.len());
    }
    let style = ask(daemon.public, "GET", "/style.css", "");
    assert!(style.head.contains("text/css") && style.body.contains("prefers-color-scheme: dark"));
}
