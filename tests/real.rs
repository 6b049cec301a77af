//! Against real servers: Debian's docker-registry, nginx, dnsmasq and unbound, with an image that
//! skopeo pushed, and skopeo and oci-client as second and third opinion.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;
#[path = "real/stack.rs"]
mod stack;
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use lab::process::run;
use pullpath::diagnose::Pull;
use pullpath::model::evidence::Evidence;
use pullpath::model::fault::DnsFault;
use pullpath::model::resolve::ResolutionSource;
use pullpath::report::text::{self, Style};
use pullpath::report::{Document, Report};
use stack::{
    Dnsmasq, Grants, Mode, PASSWORD, Pki, REPOSITORY, Registry, Stack, TAG, TokenKnobs, USER,
    Unbound, push,
};
use support::World;
use support::image::Image;

struct Outcome {
    code: i32,
    document: Document,
}

impl Outcome {
    fn report(&self) -> &Report {
        &self.document.reports[0]
    }

    fn evidence(&self) -> &Evidence {
        &self.report().evidence
    }

    fn text(&self) -> String {
        text::render(self.report(), Style { color: false }, false)
    }

    fn codes(&self) -> Vec<&'static str> {
        self.report()
            .verdict
            .findings
            .iter()
            .map(|finding| finding.cause.code())
            .collect()
    }

    fn is_quiet(&self) {
        assert_eq!(self.codes(), [""; 0], "{}", self.text());
        assert_eq!(
            (self.report().verdict.pull, self.code),
            (Pull::WouldSucceed, 0),
            "{}",
            self.text()
        );
    }

    fn fails_by(&self, code: &str) {
        assert_eq!(self.codes(), [code], "{}", self.text());
        assert_eq!(
            (self.report().verdict.pull, self.code),
            (Pull::WouldFail, 1),
            "{}",
            self.text()
        );
    }
}

/// Runs the program as a user would, with the password (if any) on its standard input.
fn probe(args: &[&str], password: Option<&str>) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullpath"));
    command
        .env_clear()
        .args(["probe", "-o", "json", "-vv", "--timeout", "3s"])
        .args(["--transfer", "off"])
        .args(args);
    if !args.contains(&"--platform") {
        command.args(["--platform", "linux/arm64"]);
    }
    if password.is_some() {
        command.args(["--username", USER, "--password-stdin"]);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(password.unwrap_or_default().as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    let document: Document =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    let outcome = Outcome {
        code: output.status.code().unwrap(),
        document,
    };
    for face in [&stdout, &stderr, &outcome.text()] {
        assert!(
            !face.contains("canary-55d1") && !face.contains("X-Amz-Signature"),
            "a secret got out:\n{face}"
        );
    }
    outcome
}

#[test]
fn three_legs_with_tokens_and_a_redirect_are_checked_and_agree_with_skopeo_and_oci_client() {
    let stack = Stack::start("abc");
    let (reference, ca) = (
        stack.reference(),
        stack.pki.ca_file.to_str().unwrap().to_owned(),
    );
    let args = [
        reference.as_str(),
        "--nameserver",
        &stack.dns.server,
        "--ca-file",
        &ca,
    ];
    let outcome = probe(&args, Some(PASSWORD));
    outcome.is_quiet();
    let evidence = outcome.evidence();
    assert_eq!(evidence.walk.legs.len(), 3);
    let blob = evidence.walk.blob.done().unwrap();
    assert_eq!(blob.redirects[0].port, stack.nginx.blobs);
    assert_eq!(blob.range_honoured, None, "a pull asks for no part");
    let found = evidence.walk.manifest.done().unwrap();
    assert_eq!(
        blob.size.unwrap().0,
        found.layers.iter().map(|l| l.size.0).max().unwrap()
    );

    // skopeo's opinion, asked past the door.
    let door = Registry::start(
        stack.folder.path(),
        "door",
        &stack.storage,
        &Mode::Open,
        None,
    );
    let at_door = format!("docker://127.0.0.1:{}/{REPOSITORY}", door.port);
    let raw = |version: String| {
        run(Command::new("skopeo").args(["inspect", "--tls-verify=false", "--raw", &version]))
    };
    let index = raw(format!("{at_door}:{TAG}"));
    assert_eq!(found.digest, support::image::digest(index.as_bytes()));
    let manifest = raw(format!("{at_door}@{}", found.platform_digest));
    assert_eq!(
        found.platform_digest,
        support::image::digest(manifest.as_bytes())
    );
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let layers: Vec<(String, u64)> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| {
            (
                l["digest"].as_str().unwrap().to_owned(),
                l["size"].as_u64().unwrap(),
            )
        })
        .collect();
    let ours: Vec<(String, u64)> = found
        .layers
        .iter()
        .map(|l| (l.digest.clone(), l.size.0))
        .collect();
    assert_eq!(ours, layers);
    assert_eq!(
        found.layers_size.0,
        layers.iter().map(|(_, size)| size).sum::<u64>()
    );

    // oci-client's.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = oci_client::client::ClientConfig {
        protocol: oci_client::client::ClientProtocol::Http,
        ..oci_client::client::ClientConfig::default()
    };
    let client = oci_client::Client::new(config);
    let image: oci_client::Reference = format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", door.port)
        .parse()
        .unwrap();
    let anonymous = oci_client::secrets::RegistryAuth::Anonymous;
    let digest = runtime
        .block_on(client.fetch_manifest_digest(&image, &anonymous))
        .unwrap();
    assert_eq!(found.digest, digest);
}

/// Probes the stack's image with its own names and authority.
fn probe_stack(stack: &Stack, more: &[&str], password: Option<&str>) -> Outcome {
    let reference = stack.reference();
    let ca = stack.pki.ca_file.to_str().unwrap();
    let mut args = vec![
        reference.as_str(),
        "--nameserver",
        &stack.dns.server,
        "--ca-file",
        ca,
    ];
    args.extend(more);
    probe(&args, password)
}

#[test]
fn a_pull_secret_and_a_docker_config_open_a_real_registry_as_a_password_does() {
    let stack = Stack::start("abc");
    let domain = format!("registry.test:{}", stack.nginx.registry);
    let write = |name: &str, text: String| {
        let file = stack.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let secret = write("secret.yaml", World::secret(&domain, USER, PASSWORD));
    probe_stack(&stack, &["--secret-file", &secret], None).is_quiet();
    let config = write("config.json", World::docker_config(&domain, USER, PASSWORD));
    probe_stack(&stack, &["--docker-config", &config], None).is_quiet();

    // Ports are compared as text: a key without one does not match, and the pull is anonymous.
    let portless = write(
        "portless.yaml",
        World::secret("registry.test", USER, PASSWORD),
    );
    probe_stack(&stack, &["--secret-file", &portless], None).fails_by("secret_key_mismatch");
    let old = write(
        "old.yaml",
        World::secret(&domain, USER, "canary-55d1-rotated"),
    );
    probe_stack(&stack, &["--secret-file", &old], None).fails_by("auth_bad_cred");
    // The second secret is good: a pull succeeds, after a refusal that is reported.
    let outcome = probe_stack(
        &stack,
        &["--secret-file", &old, "--secret-file", &secret],
        None,
    );
    assert_eq!(outcome.codes(), ["auth_bad_cred"], "{}", outcome.text());
    assert_eq!(outcome.code, 0, "{}", outcome.text());
}

#[test]
fn a_platform_that_the_image_lacks_is_named_with_those_it_has() {
    let stack = Stack::start("abc");
    let outcome = probe_stack(&stack, &["--platform", "linux/s390x"], Some(PASSWORD));
    outcome.fails_by("no_platform");
    assert!(
        outcome.text().contains("linux/amd64, linux/arm64"),
        "{}",
        outcome.text()
    );
    for platform in ["linux/amd64", "linux/x86_64", "linux/arm64/v8"] {
        probe_stack(&stack, &["--platform", platform], Some(PASSWORD)).is_quiet();
    }
}

#[test]
fn a_token_service_that_knows_no_post_is_queried_by_get_as_containerd_does() {
    for (answers_post, expected) in [
        (true, &[("POST", Some(200))][..]),
        (false, &[("POST", Some(405)), ("GET", Some(200))]),
    ] {
        let stack = Stack::with_tokens(TokenKnobs {
            answers_post,
            ..TokenKnobs::default()
        });
        let outcome = probe_stack(&stack, &[], Some(PASSWORD));
        outcome.is_quiet();
        let seen: Vec<(&str, Option<u16>)> = outcome.evidence().walk.attempts[0]
            .exchanges
            .iter()
            .map(|exchange| (exchange.method.as_str(), exchange.outcome.done().copied()))
            .collect();
        assert_eq!(seen, expected, "{}", outcome.text());
        // Neither way makes a wrong password look like something else.
        probe_stack(&stack, &[], Some("canary-55d1-wrong")).fails_by("auth_bad_cred");
        probe_stack(&stack, &[], None).fails_by("auth_no_cred");
    }
}

#[test]
fn a_token_that_the_registry_does_not_accept_is_a_denial_and_not_a_wrong_password() {
    for (grants, word) in [
        (Grants::Nothing, "has no right to pull"),
        // The password was good; what is amiss lies between the registry and its token service.
        (Grants::Forged, "the registry rejects it"),
    ] {
        let stack = Stack::with_tokens(TokenKnobs {
            grants,
            ..TokenKnobs::default()
        });
        let outcome = probe_stack(&stack, &[], Some(PASSWORD));
        outcome.fails_by("auth_denied");
        assert!(outcome.text().contains(word), "{}", outcome.text());
    }
}

#[test]
fn what_is_wrong_with_a_real_registry_is_named_and_nothing_else() {
    let stack = Stack::start("abc");
    let (reference, ca) = (
        stack.reference(),
        stack.pki.ca_file.to_str().unwrap().to_owned(),
    );
    let args = [
        reference.as_str(),
        "--nameserver",
        &stack.dns.server,
        "--ca-file",
        &ca,
    ];
    probe(&args, Some("canary-55d1-wrong")).fails_by("auth_bad_cred");
    probe(&args, None).fails_by("auth_no_cred");
    let absent = format!("registry.test:{}/{REPOSITORY}:absent", stack.nginx.registry);
    probe(
        &[&absent, "--nameserver", &stack.dns.server, "--ca-file", &ca],
        Some(PASSWORD),
    )
    .fails_by("manifest_unknown");
    probe(
        &[&reference, "--nameserver", &stack.dns.server],
        Some(PASSWORD),
    )
    .fails_by("tls_unknown_ca");
    let wrong = format!("elsewhere.test:{}/{REPOSITORY}:{TAG}", stack.nginx.registry);
    probe(
        &[&wrong, "--nameserver", &stack.dns.server, "--ca-file", &ca],
        Some(PASSWORD),
    )
    .fails_by("tls_name");
}

#[test]
fn storage_that_wants_another_signature_is_named() {
    let stack = Stack::start("stale");
    let (reference, ca) = (
        stack.reference(),
        stack.pki.ca_file.to_str().unwrap().to_owned(),
    );
    probe(
        &[
            &reference,
            "--nameserver",
            &stack.dns.server,
            "--ca-file",
            &ca,
        ],
        Some(PASSWORD),
    )
    .fails_by("blob_denied");
}

#[test]
fn a_docker_registry_open_with_htpasswd_and_with_tls_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("storage");
    let image = Image::multi(3);
    let dns = Dnsmasq::of_lab(folder.path(), None);
    let at = |port: u16, version: &str| format!("registry.test:{port}/{REPOSITORY}{version}");

    let open = Registry::start(folder.path(), "open", &storage, &Mode::Open, None);
    push(
        folder.path(),
        &image,
        &format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", open.port),
        &[],
    );
    let reference = at(open.port, ":1.0");
    let plain = ["--nameserver", dns.server.as_str(), "--plain-http"];
    let with = |reference: &str, more: &[&str], password| {
        let args: Vec<&str> = std::iter::once(reference)
            .chain(more.iter().copied())
            .collect();
        probe(&args, password)
    };
    let outcome = with(&reference, &plain, None);
    outcome.is_quiet();
    assert_eq!(
        outcome.evidence().walk.manifest.done().unwrap().digest,
        image.top().digest
    );
    with(
        &at(open.port, &format!("@{}", image.top().digest)),
        &plain,
        None,
    )
    .is_quiet();
    with(&at(open.port, ":absent"), &plain, None).fails_by("manifest_unknown");
    // docker-registry says MANIFEST_UNKNOWN of a repository that it does not have, too; it keeps
    // NAME_UNKNOWN for the list of tags.
    let stranger = format!("registry.test:{}/no/such:1.0", open.port);
    with(&stranger, &plain, None).fails_by("manifest_unknown");
    // A manifest that stands alone: its platform is not checked.
    let single = Image::single(5, "amd64");
    let to = format!("127.0.0.1:{}/team/single:1.0", open.port);
    push(tempfile::tempdir().unwrap().path(), &single, &to, &[]);
    let reference_single = format!("registry.test:{}/team/single:1.0", open.port);
    let outcome = with(&reference_single, &plain, None);
    outcome.is_quiet();
    let found = outcome.evidence().walk.manifest.done().unwrap();
    assert_eq!(
        (&found.digest, &found.platform_digest, found.platforms.len()),
        (&single.top().digest, &single.top().digest, 0)
    );
    // TLS where there is none.
    with(&reference, &["--nameserver", &dns.server], None).fails_by("tls_plain_http");
    // An alias of the registry, and a name that is none.
    let alias = with(
        &format!("alias.test:{}/{REPOSITORY}:1.0", open.port),
        &plain,
        None,
    );
    alias.is_quiet();
    assert_eq!(
        alias.evidence().walk.legs[0]
            .resolve
            .outcome
            .done()
            .unwrap()
            .cnames,
        ["registry.test."]
    );
    with(
        &format!("nx.test:{}/{REPOSITORY}:1.0", open.port),
        &plain,
        None,
    )
    .fails_by("dns_nxdomain");

    let basic = Registry::start(folder.path(), "basic", &storage, &Mode::Htpasswd, None);
    let reference = at(basic.port, ":1.0");
    with(&reference, &plain, Some(PASSWORD)).is_quiet();
    with(&reference, &plain, Some("canary-55d1-wrong")).fails_by("auth_bad_cred");
    with(&reference, &plain, None).fails_by("auth_no_cred");

    let pki = Pki::new(folder.path());
    let tls = Registry::start(
        folder.path(),
        "tls",
        &storage,
        &Mode::Htpasswd,
        Some(pki.issue("registry.test")),
    );
    let reference = at(tls.port, ":1.0");
    let ca = pki.ca_file.to_str().unwrap();
    with(
        &reference,
        &["--nameserver", &dns.server, "--ca-file", ca],
        Some(PASSWORD),
    )
    .is_quiet();
    with(&reference, &["--nameserver", &dns.server], Some(PASSWORD)).fails_by("tls_unknown_ca");
}

#[test]
fn real_name_servers_give_each_answer_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let many: String = (1..=100)
        .map(|n| format!("  local-data: \"big.test. 60 IN A 127.0.1.{n}\"\n"))
        .collect();
    let dead = lab::free_port();
    let unbound = Unbound::start(
        folder.path(),
        &format!(
            "  local-zone: \"refuse.test.\" refuse\n  local-zone: \"test.\" transparent\n  local-data: \"registry.test. 60 IN A 203.0.113.9\"\n  local-data: \"v6only.test. 60 IN AAAA ::1\"\n{many}"
        ),
        &format!("forward-zone:\n  name: \"fail.test.\"\n  forward-addr: 127.0.0.1@{dead}\n"),
    );
    let dnsmasq = Dnsmasq::of_lab(folder.path(), None);
    let ask = |name: &str, more: &[&str]| {
        let reference = format!("{name}:1/{REPOSITORY}:1.0");
        let args: Vec<&str> = std::iter::once(reference.as_str())
            .chain(more.iter().copied())
            .collect();
        probe(&args, None)
    };
    let at_unbound = ["--nameserver", unbound.server.as_str()];
    ask("refuse.test", &at_unbound).fails_by("dns_refused");
    ask("fail.test", &at_unbound).fails_by("dns_servfail");

    // More than fits into a datagram: asked again over TCP.
    let outcome = ask("big.test", &at_unbound);
    let leg = &outcome.evidence().walk.legs[0];
    assert!(
        leg.resolve.queries.iter().any(|query| query.tcp),
        "{}",
        outcome.text()
    );
    assert_eq!(leg.resolve.outcome.done().unwrap().addresses.len(), 100);
    assert_eq!(leg.connect.not_tried, 96);

    let outcome = ask("v6only.test", &at_unbound);
    let family = &outcome.evidence().walk.legs[0].resolve;
    assert!(
        family
            .queries
            .iter()
            .any(|query| query.outcome.fault() == Some(&DnsFault::NoData))
    );
    assert_eq!(
        family.outcome.done().unwrap().addresses,
        [std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]
    );

    // Two servers, two views; the first one's counts.
    let outcome = ask(
        "registry.test",
        &[
            "--nameserver",
            &dnsmasq.server,
            "--nameserver",
            &unbound.server,
        ],
    );
    assert!(
        outcome.codes().contains(&"dns_split_horizon"),
        "{}",
        outcome.text()
    );
    let source = outcome.evidence().walk.legs[0]
        .resolve
        .outcome
        .done()
        .unwrap()
        .source;
    assert_eq!(
        source,
        ResolutionSource::Server {
            server: dnsmasq.server.parse().unwrap()
        }
    );
}
