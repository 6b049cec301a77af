//! One test for each cause that one host can show, made by a peer with a fault knob. A test of its
//! own holds the list complete: every cause of the catalogue is produced here, in another test
//! file that is named, or waits for a capability that is named.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod harness;
mod support;

use std::sync::Arc;
use std::time::Duration;

use harness::{Outcome, Probe, probe};
use http::Method;
use pullpath::diagnose::Pull;
use pullpath::diagnose::catalogue::{Cause, Detected};
use pullpath::diagnose::level::{Confidence, Severity};
use pullpath::model::endpoint::Role;
use support::image::{Content, Flavour, Image, OCI_MANIFEST};
use support::pki::{Ca, Flaw};
use support::proxy::Proxy;
use support::registry::{
    Auth, RateLimit, Redirect, denied, echo, manifest_unknown, name_unknown, oci_error,
    too_many_requests,
};
use support::tcp::{Behaviour, Blackhole, Closed, HelloFilter, Peer, TooLarge};
use support::token::{Fields, Post, huge};
use support::web::{Flow, Reply};
use support::{AUTH, PASSWORD, REGISTRY, REPOSITORY, TAG, USER, World, dns};

/// Defines a test for each cause: its body returns the result of a probe, and the cause must be among
/// the findings that the reader sees, with the severity and verdict named.
macro_rules! causes {
    ($($cause:ident $severity:ident $pull:ident $name:ident($world:ident) $body:block)*) => {
        /// The causes that this file produces.
        const HERE: &[&str] = &[$(stringify!($cause)),*];
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let $world = World::healthy().await;
                let outcome: Outcome = $body;
                outcome.shows(stringify!($cause), Severity::$severity, Pull::$pull);
            }
        )*
    };
}

/// Causes that need a network of their own, and the text of the tests that produce them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("node_address", include_str!("foreign.rs")),
    ("tcp_prohibited", NETNS),
    ("local_policy", NETNS),
    ("no_local_address", NETNS),
    ("net_unreachable", NETNS),
    ("host_unreachable", NETNS),
    ("net_unreach_v6", NETNS),
    ("v6_blackhole", NETNS),
    ("mtu_blackhole", NETNS),
    ("connect_loss", NETNS),
    ("path_unexpected", PATHS),
    ("path_mixed", PATHS),
    ("private_unmapped", PATHS),
    ("address_overlap", PATHS),
    ("reverse_path_filter", PATHS),
    ("source_address", PATHS),
    ("snat_exhaust", PATHS),
    ("eip_annotation_stale", PATHS),
    ("no_egress", PATHS),
    ("throughput_low", TRANSFER),
    ("pull_no_progress", TRANSFER),
    ("bw_eip_cap", SLOW),
    ("bw_cap", SLOW),
    ("bw_per_flow", SLOW),
    ("bw_window", SLOW),
    ("bw_loss", SLOW),
    ("bw_throttle", SLOW),
    ("bw_remote", SLOW),
    ("bw_node", SLOW),
    ("bw_uplink", SLOW),
    ("bw_self", SLOW),
    ("ttfb_slow", SLOW),
    ("own_limits", OWN),
    ("intermittent", BOUNDS),
    ("unexplained", RULES),
    ("service_account_missing", LINT),
    ("image_name_invalid", TEXTS),
    ("kubelet_qps", TEXTS),
    ("deadline", TEXTS),
    ("disk_full", TEXTS),
    ("registry_policy", WORDS),
    ("node_storage", WORDS),
    ("runtime_fault", WORDS),
    ("image_policy", WORDS),
    ("image_encrypted", WORDS),
    ("short_name", WORDS),
    ("secret_unread", WORDS),
    ("serial_pull", PULLS),
    ("disk_unpack", TALLIES),
    // A mirror serves, and the registry behind it does not: beside a real containerd.
    ("mirror_no_fallback", RULES),
    // Needs a public registry's name and an address that is not ours to answer from.
    ("dns_hijack", RULES),
    // It is reported beside the cause of the failure.
    ("image_verification", SETTINGS),
];

/// A token that was issued and ends this many seconds from now.
fn jwt(issued: i64, expires: i64) -> String {
    use base64::Engine as _;
    let now = jiff::Timestamp::now().as_second();
    let claims = serde_json::json!({"iat": now + issued, "exp": now + expires}).to_string();
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
    format!("e30.{encoded}.canary-7f3a9c")
}

/// With the world's user and this password, in a Secret that is edited before.
async fn with_password(world: &World, password: &str, edit: fn(String) -> String) -> Outcome {
    let secret = edit(World::secret(&world.registry_host(), USER, password));
    let file = world.write("other-secret.yaml", &secret);
    Probe::of(world)
        .anonymous()
        .args(["--secret-file", file.to_str().unwrap()])
        .run()
        .await
}

/// With this text in resolv.conf, and the world's name server.
async fn with_resolv_conf(world: &World, text: &str) -> Outcome {
    let path = world.write("resolv.conf", text);
    let path = path.to_str().unwrap();
    Probe::of(world).args(["--resolv-conf", path]).run().await
}

const SECRET_AND_IMAGE: &str =
    "{imagePullSecrets: [{name: regcred}], containers: [{name: c, image: 'IMAGE'}]}";

/// A pod of the namespace that the world's secret is in.
fn pod(spec: &str) -> String {
    format!("kind: Pod\nmetadata: {{name: p, namespace: shop, annotations: {{}}}}\nspec: {spec}\n")
}

/// A registry with the same image that asks for no credential, in front of `world`'s.
async fn open_mirror(world: &World) -> World {
    let mirror = World::healthy().await;
    mirror.registry.knobs().auth = Auth::Open;
    mirror.registry.knobs().redirect = Redirect::Direct;
    assert_ne!(mirror.registry_host(), world.registry_host());
    mirror
}

async fn with_hosts(world: &World, hosts_toml: &str) -> Outcome {
    let folder = world.certs_d(hosts_toml);
    Probe::of(world)
        .args(["--hosts-dir", folder.to_str().unwrap()])
        .run()
        .await
}

/// By containerd's own file; `CRI` stands for the section of its CRI plugin.
async fn with_config(world: &World, config_toml: &str, probe: Probe<'_>) -> Outcome {
    let text = config_toml.replace("CRI", "plugins.'io.containerd.grpc.v1.cri'");
    let file = world.write("config.toml", &text);
    probe
        .args(["--runtime", "containerd://1.7.24"])
        .args(["--containerd-config", file.to_str().unwrap()])
        .run()
        .await
}

const NETNS: &str = include_str!("netns.rs");
/// In the world of network namespaces.
const PATHS: &str = include_str!("paths.rs");
/// Over a way of known rate.
const TRANSFER: &str = include_str!("transfer.rs");
/// Each by a real cause.
const SLOW: &str = include_str!("slow.rs");
const BOUNDS: &str = include_str!("bounds.rs");
const OWN: &str = include_str!("own_limits.rs");
const LINT: &str = include_str!("lint.rs");
const PULLS: &str = include_str!("pulls.rs");
const TEXTS: &str = include_str!("data/pulls.yaml");
const WORDS: &str = include_str!("data/words.yaml");
const TALLIES: &str = include_str!("../src/pulls/tests.rs");
const RULES: &str = include_str!("../src/diagnose/rules/tests.rs");
const SETTINGS: &str = include_str!("../src/diagnose/rules/tests/settings.rs");

causes! {
    // ---- names ----------------------------------------------------------------------------------
    dns_nxdomain Critical WouldFail a_name_that_no_server_knows(world) {
        world.dns.answer(REGISTRY, dns::Answer::NxDomain);
        probe(&world).await
    }
    dns_servfail Critical WouldFail a_server_that_fails(world) {
        world.dns.answer(REGISTRY, dns::Answer::ServFail);
        probe(&world).await
    }
    dns_refused Critical WouldFail a_server_that_refuses_the_question(world) {
        world.dns.answer(REGISTRY, dns::Answer::Refused);
        probe(&world).await
    }
    dns_timeout Critical WouldFail a_server_that_does_not_answer(world) {
        world.dns.answer(REGISTRY, dns::Answer::Drop);
        probe(&world).await
    }
    dns_nodata Critical WouldFail a_name_without_addresses(world) {
        world.dns.answer(REGISTRY, dns::Answer::NoData);
        probe(&world).await
    }
    dns_error Critical WouldFail a_server_that_answers_nonsense(world) {
        world.dns.answer(REGISTRY, dns::Answer::Garbage);
        probe(&world).await
    }
    dns_server_unreachable Critical WouldFail a_name_server_that_does_not_run(world) {
        // A port that the kernel never assigns: one of its choice may be in use a moment later.
        Probe::of(&world).nameservers(["127.0.0.1:9".to_owned()]).run().await
    }
    dns_tcp_closed Critical WouldFail a_long_answer_and_nothing_over_tcp(world) {
        world.dns.answer(REGISTRY, dns::Answer::TruncateUdpDropTcp);
        probe(&world).await
    }
    dns_no_edns Critical WouldFail a_server_that_can_not_read_edns(world) {
        world.dns.answer(REGISTRY, dns::Answer::FormErrEdns);
        Probe::of(&world).args(["--runtime", "containerd://2.1.9"]).run().await
    }
    dns_slow_5s Warning WouldSucceed a_server_that_swallows_aaaa(world) {
        world.dns.answer(REGISTRY, dns::Answer::DropAaaa);
        probe(&world).await
    }
    dns_split_horizon Warning WouldSucceed name_servers_with_different_answers(world) {
        let other = dns::Dns::start().await;
        other.host(REGISTRY, &["203.0.113.9".parse().unwrap()]);
        Probe::of(&world).args(["--nameserver", &other.addr.to_string()]).run().await
    }
    dns_search_leak Warning WouldSucceed a_wildcard_in_the_search_domain(world) {
        world.dns.host("registry.test.corp.test", &["127.0.0.1".parse().unwrap()]);
        let resolv = world.write("resolv.conf", "nameserver 127.0.0.1\nsearch corp.test\noptions ndots:5\n");
        Probe::of(&world).args(["--resolv-conf", resolv.to_str().unwrap()]).run().await
    }
    dns_slow Warning WouldSucceed a_search_domain_that_nobody_answers_for(world) {
        world.dns.answer("registry.test.old.lan", dns::Answer::Drop);
        with_resolv_conf(&world, "search old.lan\noptions ndots:5\n").await
    }
    dns_undecided Critical Unknown resolvers_that_differ(world) {
        // libc takes it literally and asks nobody; Go makes it 1. The second option leads there.
        with_resolv_conf(&world, "options attempts:0 no-tld-query\n").await
    }
    dns_stale Critical WouldFail a_hosts_entry_that_leads_nowhere(world) {
        let hole = Blackhole::new().await;
        let hosts = world.write("hosts", "127.0.0.1 registry.test\n");
        world.dns.host(REGISTRY, &["127.0.0.9".parse().unwrap()]);
        let there = ("127.0.0.9", hole.addr.port(), world.registry.server.addr);
        let _right = support::tcp::Relay::start(there).await;
        Probe::of(&world)
            .reference(&format!("{REGISTRY}:{}/{REPOSITORY}:{TAG}", hole.addr.port()))
            .args(["--hosts-file", hosts.to_str().unwrap()])
            .run()
            .await
    }

    // ---- connections ----------------------------------------------------------------------------
    tcp_timeout Critical WouldFail a_syn_without_an_answer(world) {
        let hole = Blackhole::new().await;
        Probe::of(&world).port(hole.addr.port()).run().await
    }
    tcp_refused Critical WouldFail a_port_without_a_listener(world) {
        let closed = Closed::new();
        Probe::of(&world).port(closed.addr.port()).run().await
    }

    tcp_reset Critical WouldFail a_registry_that_cuts_the_connection(world) {
        world.registry.knobs().manners.fail_early("/manifests/", Flow::Reset);
        probe(&world).await
    }
    http_timeout Critical WouldFail a_registry_that_never_answers(world) {
        world.registry.knobs().manners.fail_early("/manifests/", Flow::Hang);
        probe(&world).await
    }
    address_partly_dead Warning WouldSucceed one_address_of_two(world) {
        let addresses = ["127.0.0.1", "127.0.0.2"].map(|a| a.parse().unwrap());
        world.dns.host(REGISTRY, &addresses);
        probe(&world).await
    }

    // ---- ends of credentials --------------------------------------------------------------------
    credential_expired Critical WouldFail a_token_past_its_end(world) {
        with_password(&world, &jwt(-7200, -3600), |secret| secret).await
    }
    credential_expiring Warning WouldSucceed a_token_near_its_end(world) {
        let token = jwt(-86_400, 600);
        world.tokens.knobs().users.insert(USER.to_owned(), token.clone());
        with_password(&world, &token, |secret| secret).await
    }
    secret_copy_expired Critical WouldFail a_copy_of_cces_secret(world) {
        with_password(&world, "canary-7f3a9c-old", |secret| {
            secret.replace(
                "  namespace: shop",
                "  namespace: shop\n  annotations: {swr-auth-may-expires-at: '2026-01-01T00:00:00Z'}",
            )
        })
        .await
    }

    // ---- manifests ------------------------------------------------------------------------------
    secret_missing Critical Unknown a_pod_that_names_a_secret_which_was_not_given(world) {
        let pod = pod("{imagePullSecrets: [{name: other}], containers: [{name: c, image: 'IMAGE'}]}");
        Probe::of(&world).manifest(&pod).run().await
    }
    secret_other_namespace Critical WouldFail a_pod_whose_secret_is_in_another_namespace(world) {
        let pod = pod("{imagePullSecrets: [{name: regcred}], containers: [{name: c, image: 'IMAGE'}]}")
            .replace("namespace: shop", "namespace: till");
        Probe::of(&world).manifest(&pod).run().await
    }
    secret_not_named Critical Unknown a_pod_that_names_no_secret_at_all(world) {
        let pod = pod("{containers: [{name: c, image: 'IMAGE'}]}");
        Probe::of(&world).manifest(&pod).run().await
    }
    eip_annotation_invalid Critical WouldFail a_bandwidth_that_is_no_number(world) {
        let pod = pod(SECRET_AND_IMAGE).replace("annotations: {}", "annotations: {yangtse.io/pod-with-eip: 'true', yangtse.io/eip-bandwidth-size: 5M}");
        Probe::of(&world).manifest(&pod).run().await
    }
    eip_annotation_without_effect Warning WouldSucceed an_eip_that_is_not_requested(world) {
        let pod = pod(SECRET_AND_IMAGE).replace("annotations: {}", "annotations: {yangtse.io/eip-bandwidth-size: '5'}");
        Probe::of(&world).manifest(&pod).run().await
    }
    no_pull Info WouldSucceed a_pod_that_must_never_pull(world) {
        let pod = pod(SECRET_AND_IMAGE).replace("'IMAGE'}", "'IMAGE', imagePullPolicy: Never}");
        Probe::of(&world).manifest(&pod).run().await
    }

    // ---- containerd's settings ------------------------------------------------------------------
    mirror_order Warning WouldSucceed a_dead_mirror_before_the_registry(world) {
        let closed = Closed::new();
        let toml = format!("[host.\"https://{REGISTRY}:{}\"]\n", closed.addr.port());
        with_hosts(&world, &toml).await
    }
    mirror_insecure Warning WouldSucceed a_mirror_whose_certificate_is_not_checked(world) {
        let mirror = open_mirror(&world).await;
        mirror.registry.server.set_tls(Some(mirror.config(REGISTRY, Flaw::OtherCa)));
        let toml = format!("[host.\"https://{}\"]\nskip_verify = true\n", mirror.registry_host());
        with_hosts(&world, &toml).await
    }
    hosts_toml_invalid Warning WouldSucceed a_hosts_toml_that_containerd_passes_over(world) {
        with_hosts(&world, "[host.\"https://mirror.test\"]\ncapabilities = \"pull\"\n").await
    }
    runtime_settings_unknown Critical Unknown an_import_of_config_toml_that_is_not_here(world) {
        with_config(&world, "version = 2\nimports = ['/nonexistent/registry.toml']\n", Probe::of(&world)).await
    }
    proxy_misconfigured Critical WouldFail a_proxy_that_is_not_there(world) {
        let closed = Closed::new();
        Probe::of(&world).environment("HTTPS_PROXY", &format!("http://{}", closed.addr)).run().await
    }
    proxy_unknown Critical Unknown a_proxy_of_another_kind(world) {
        Probe::of(&world).environment("HTTPS_PROXY", "ftp://127.0.0.1:1080").run().await
    }
    proxy_unneeded Info WouldSucceed a_proxy_that_could_be_done_without(world) {
        let proxy = Proxy::start(&world.dns).await;
        Probe::of(&world)
            .environment("HTTPS_PROXY", &proxy.addr.to_string())
            .args(["--compare-direct"])
            .run()
            .await
    }

    // ---- tls ------------------------------------------------------------------------------------
    tls_unknown_ca Critical WouldFail an_authority_that_no_client_trusts(world) {
        world.registry.server.set_tls(Some(world.config(REGISTRY, Flaw::OtherCa)));
        probe(&world).await
    }
    tls_name Critical WouldFail a_certificate_for_another_name(world) {
        world.registry.server.set_tls(Some(world.config(REGISTRY, Flaw::WrongName)));
        probe(&world).await
    }
    tls_expired Critical WouldFail a_certificate_that_ended_yesterday(world) {
        world.registry.server.set_tls(Some(world.config(REGISTRY, Flaw::Expired)));
        probe(&world).await
    }
    tls_not_yet_valid Critical WouldFail a_certificate_that_begins_tomorrow(world) {
        world.registry.server.set_tls(Some(world.config(REGISTRY, Flaw::NotYetValid)));
        probe(&world).await
    }
    clock_skew Warning WouldSucceed a_registry_whose_clock_differs_from_ours(world) {
        world.registry.knobs().manners.clock_skew_seconds = 400;
        probe(&world).await
    }
    tls_plain_http Critical WouldFail plain_http_on_the_port(world) {
        let peer = Peer::start(Behaviour::plain_http()).await;
        Probe::of(&world).port(peer.addr.port()).run().await
    }
    tls_alert Critical WouldFail a_server_that_says_no_by_alert(world) {
        let peer = Peer::start(Behaviour::alert(112)).await;
        Probe::of(&world).port(peer.addr.port()).run().await
    }
    tls_undecided Critical Unknown a_server_that_shares_no_cipher_suite_with_us(world) {
        let peer = Peer::start(Behaviour::alert(40)).await;
        Probe::of(&world).port(peer.addr.port()).run().await
    }
    tls_intermediate Critical WouldFail an_intermediate_that_the_server_does_not_send(world) {
        world.registry.server.set_tls(Some(world.config(REGISTRY, Flaw::MissingIntermediate)));
        probe(&world).await
    }
    tls_default_certificate Critical WouldFail the_certificate_of_an_ingress_controller(world) {
        world.registry.server.set_tls(Some(world.config(REGISTRY, Flaw::OfIngress)));
        probe(&world).await
    }
    tls_root_expired Critical WouldFail a_root_that_ended_yesterday(world) {
        let old = Ca::expired();
        world.registry.server.set_tls(Some(old.issue(&[REGISTRY]).config()));
        Probe::of(&world).args(["--ca-file", old.file().to_str().unwrap()]).run().await
    }
    tls_ca_unfit Critical WouldFail a_root_that_is_not_marked_as_one(world) {
        let unmarked = Ca::unmarked();
        world.registry.server.set_tls(Some(unmarked.issue(&[REGISTRY]).config()));
        Probe::of(&world).args(["--ca-file", unmarked.file().to_str().unwrap()]).run().await
    }
    tls_leaf_trusted Warning WouldSucceed a_server_that_is_trusted_itself(world) {
        let leaf = Ca::named("Unknown test root").issue(&[REGISTRY]);
        world.registry.server.set_tls(Some(leaf.config()));
        let pem = world.write("server.pem", &leaf.pem());
        Probe::of(&world).args(["--ca-file", pem.to_str().unwrap()]).run().await
    }
    tls_reset Critical WouldFail a_reset_after_our_hello(world) {
        let peer = Peer::start(Behaviour::ResetAfterHello).await;
        Probe::of(&world).port(peer.addr.port()).run().await
    }
    tls_hang Critical WouldFail silence_after_our_hello(world) {
        let peer = Peer::start(Behaviour::Hang).await;
        Probe::of(&world).port(peer.addr.port()).run().await
    }

    tls_no_roots Critical Unknown a_place_without_trusted_roots(world) {
        let empty = world.write("no-roots.pem", "");
        // Go reads the folders of the system too unless they are named.
        Probe::of(&world)
            .without_ca()
            .environment("SSL_CERT_FILE", empty.to_str().unwrap())
            .environment("SSL_CERT_DIR", "/nonexistent")
            .run()
            .await
    }
    tls_expiring Warning WouldSucceed a_certificate_that_ends_tomorrow(world) {
        world.registry.server.set_tls(Some(world.config(REGISTRY, Flaw::Ending)));
        probe(&world).await
    }
    tls_bad_certificate Critical WouldFail a_certificate_for_clients(world) {
        world.registry.server.set_tls(Some(world.config(REGISTRY, Flaw::ForClients)));
        probe(&world).await
    }
    tls_not_tls Critical WouldFail an_ssh_server_on_the_port(world) {
        let peer = Peer::start(Behaviour::ssh()).await;
        Probe::of(&world).port(peer.addr.port()).run().await
    }
    tls_incompatible Critical WouldFail a_server_of_tls_1_0(world) {
        // ServerHello of version 3.1 without extensions (RFC 2246, 7.4.1.3).
        let mut hello = vec![22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
        hello.extend([7; 32]);
        hello.extend([0, 0, 0x2f, 0]);
        let peer = Peer::start(Behaviour::Answer(hello)).await;
        Probe::of(&world).port(peer.addr.port()).run().await
    }

    tls_large_hello Warning WouldSucceed a_filter_that_drops_a_hello_of_two_packets(world) {
        let _filter = filtered(&world, TooLarge::Drop).await;
        Probe::of(&world).args(["--large-hello"]).run().await
    }

    // ---- credentials ----------------------------------------------------------------------------
    auth_no_cred Critical WouldFail no_credential_at_all(world) {
        Probe::of(&world).anonymous().run().await
    }
    secret_key_mismatch Critical WouldFail a_key_without_the_port(world) {
        let secret = World::secret(REGISTRY, USER, PASSWORD);
        let file = world.write("mismatch.yaml", &secret);
        Probe::of(&world).anonymous().args(["--secret-file", file.to_str().unwrap()]).run().await
    }
    secret_format Critical WouldFail a_secret_that_is_no_json(world) {
        let text = World::secret(&world.registry_host(), USER, PASSWORD);
        let at = text.find(".dockerconfigjson: ").unwrap();
        let file = world.write("broken.yaml", &format!("{}.dockerconfigjson: bm90IGpzb24=\n", &text[..at]));
        Probe::of(&world).anonymous().args(["--secret-file", file.to_str().unwrap()]).run().await
    }
    auth_unknown Critical Unknown a_credential_helper_that_is_not_there(world) {
        let config = serde_json::json!({"credHelpers": {world.registry_host(): "not-installed"}});
        let file = world.write("helpers.json", &config.to_string());
        Probe::of(&world).anonymous().args(["--docker-config", file.to_str().unwrap()]).run().await
    }
    auth_bad_cred Critical WouldFail a_wrong_password(world) {
        let secret = World::secret(&world.registry_host(), USER, "canary-7f3a9c-wrong");
        let file = world.write("wrong.yaml", &secret);
        Probe::of(&world).anonymous().args(["--secret-file", file.to_str().unwrap()]).run().await
    }
    auth_denied Critical WouldFail a_token_without_the_right(world) {
        world.tokens.knobs().deny_scope = true;
        probe(&world).await
    }
    auth_token_format Critical WouldFail a_post_answer_without_access_token(world) {
        world.tokens.knobs().post = Post::OnlyToken;
        probe(&world).await
    }
    auth_realm_unreachable Critical WouldFail a_token_service_that_cannot_be_reached(world) {
        let hole = Blackhole::new().await;
        let realm = format!("https://{AUTH}:{}/token", hole.addr.port());
        world.registry.knobs().auth = Auth::Bearer { realm, service: REGISTRY.to_owned() };
        probe(&world).await
    }
    realm_untrusted Critical Unknown a_realm_in_plain_http(world) {
        let realm = format!("http://{AUTH}:{}/token", world.tokens.server.port());
        world.registry.knobs().auth = Auth::Bearer { realm, service: REGISTRY.to_owned() };
        probe(&world).await
    }

    auth_not_asked Critical WouldFail a_registry_that_hides_what_needs_a_login(world) {
        // With a right login it would be there; no server requests one.
        world.registry.knobs().manners.fail_early("/manifests/", manifest_unknown());
        probe(&world).await
    }

    auth_bad_challenge Critical WouldFail a_challenge_that_no_pull_client_knows(world) {
        world.registry.knobs().challenge = Some("Negotiate".to_owned());
        probe(&world).await
    }

    // ---- answers --------------------------------------------------------------------------------
    not_a_registry Critical WouldFail a_web_site_in_place_of_a_registry(world) {
        world.registry.knobs().manners.fail_early("/", Reply::html(404));
        probe(&world).await
    }
    fw_403 Critical WouldFail a_firewall_that_answers_for_the_registry(world) {
        world.registry.knobs().manners.fail_early("/", Reply::html(403));
        probe(&world).await
    }
    registry_5xx Critical WouldFail a_registry_that_is_down(world) {
        world.registry.knobs().manners.fail_early("/manifests/", Reply::html(503));
        probe(&world).await
    }
    rate_limited Critical WouldFail too_many_pulls(world) {
        world.registry.knobs().manners.fail("/manifests/", too_many_requests("3600"));
        probe(&world).await
    }
    manifest_unknown Critical WouldFail a_tag_that_is_gone(world) {
        world.registry.knobs().manners.fail("/manifests/", manifest_unknown());
        probe(&world).await
    }
    name_unknown Critical WouldFail a_repository_that_is_not_there(world) {
        world.registry.knobs().manners.fail("/manifests/", name_unknown());
        probe(&world).await
    }
    no_platform Critical WouldFail an_image_for_other_processors(world) {
        Probe::of(&world).args(["--platform", "linux/s390x"]).run().await
    }
    manifest_unsupported Critical WouldFail a_manifest_of_schema_1(world) {
        // containerd 1 converts it, which is not done here.
        world.registry.knobs().schema1 = true;
        Probe::of(&world).args(["--runtime", "containerd://2.1.9"]).run().await
    }
    digest_mismatch Critical WouldFail a_manifest_with_other_content(world) {
        world.registry.knobs().corrupt_manifests = true;
        probe(&world).await
    }

    manifest_invalid Critical WouldFail a_manifest_that_is_none(world) {
        let content = Content::new(OCI_MANIFEST, "{\"layers\": 7}");
        world.registry.store.push_raw(REPOSITORY, TAG, content);
        probe(&world).await
    }
    head_refused Critical WouldFail a_cache_that_answers_get_alone(world) {
        world.registry.knobs().manners.fail_method(Method::HEAD, "/manifests/", denied());
        probe(&world).await
    }
    request_refused Critical WouldFail a_filter_that_minds_the_request(world) {
        world.registry.knobs().manners.fail("/manifests/", Reply::new(406));
        probe(&world).await
    }
    artifact_not_image Warning WouldSucceed a_helm_chart_where_an_image_is_expected(world) {
        world.registry.store.push(REPOSITORY, TAG, &Image::chart(5));
        Probe::of(&world).args(["--runtime", "containerd://1.7.24"]).run().await
    }
    release_decides Critical Unknown an_index_for_older_processors_only(world) {
        // containerd before 2.1 takes it on amd64, later ones do not.
        let image = Image::build(5, Flavour::Oci, &["386"], &[4 << 10]);
        world.registry.store.push(REPOSITORY, TAG, &image);
        probe(&world).await
    }
    rate_limit_low Warning WouldSucceed a_limit_that_is_nearly_used_up(world) {
        world.registry.knobs().rate_limit = Some(RateLimit {
            limit: 100,
            remaining: 4,
            window_seconds: 21_600,
            source: "203.0.113.7".to_owned(),
        });
        probe(&world).await
    }

    // ---- layers ---------------------------------------------------------------------------------
    redirect_blob Critical WouldFail storage_that_cannot_be_reached(world) {
        let hole = Blackhole::new().await;
        world.registry.knobs().redirect = Redirect::Signed(format!("https://blobs.test:{}", hole.addr.port()));
        probe(&world).await
    }
    redirect_untrusted Critical Unknown a_redirect_to_the_metadata_service(world) {
        world.registry.knobs().redirect = Redirect::To("http://169.254.169.254/latest/meta-data/".to_owned());
        probe(&world).await
    }
    probe_limit Critical Unknown an_answer_that_comes_byte_by_byte(world) {
        let drip = Flow::Drip { piece: 1, every: Duration::from_millis(300) };
        let reply = Reply::new(200).body(OCI_MANIFEST, vec![b' '; 400]).flow(drip);
        world.registry.knobs().manners.fail_method(Method::GET, "/manifests/sha256:", reply);
        probe(&world).await
    }
    probe_limit Critical Unknown a_token_that_is_larger_than_any(world) {
        world.tokens.knobs().manners.fail("/token", huge(1 << 20));
        probe(&world).await
    }
    redirect_broken Critical WouldFail a_redirect_that_goes_round(world) {
        world.blobs.knobs().redirect_loop = true;
        Probe::of(&world).args(["--runtime", "containerd://1.7.24"]).run().await
    }
    blob_unknown Critical WouldFail a_layer_that_was_lost(world) {
        world.blobs.knobs().manners.fail("/", Reply::s3_error(404, "NoSuchKey", "The specified key does not exist."));
        probe(&world).await
    }
    registry_5xx Critical WouldFail storage_that_sends_one_layer_at_a_time(world) {
        one_layer_at_a_time(&world, 503).await
    }
    rate_limited Critical WouldFail storage_that_limits_layers_to_one_at_a_time(world) {
        one_layer_at_a_time(&world, 429).await
    }
    blob_denied Critical WouldFail storage_that_says_no(world) {
        world.blobs.knobs().access_denied = true;
        probe(&world).await
    }
    layer_invalid Critical WouldFail layers_that_the_configuration_does_not_name(world) {
        world.registry.store.push(REPOSITORY, TAG, &Image::mismatched(5));
        Probe::of(&world).args(["--transfer", "auto"]).run().await
    }
    content_encoding Critical WouldFail layers_labelled_with_their_own_compression(world) {
        world.registry.store.push(REPOSITORY, TAG, &Image::single(5, "amd64"));
        world.blobs.knobs().serving.encoding = Some("gzip".to_owned());
        Probe::of(&world).args(["--transfer", "auto"]).run().await
    }
    probe_limit Critical Unknown content_encoded_in_a_way_that_only_containerd_reads(world) {
        world.blobs.knobs().serving.encoding = Some("gzip, gzip".to_owned());
        Probe::of(&world).args(["--runtime", "containerd://2.1.9"]).run().await
    }
    range_ignored Warning WouldSucceed storage_that_cannot_resume(world) {
        world.blobs.knobs().serving.ignore_range = true;
        Probe::of(&world).args(["--transfer", "auto"]).run().await
    }
    unexpected_eof Critical WouldFail a_layer_that_ends_before_its_first_byte(world) {
        world.blobs.knobs().serving.flow = Flow::TruncateAfter(0);
        probe(&world).await
    }
}

/// The storage refuses a layer with this status while it sends another one; each takes a while.
async fn one_layer_at_a_time(world: &World, status: u16) -> Outcome {
    {
        let mut knobs = world.blobs.knobs();
        let serving = &mut knobs.serving;
        serving.above = 1024;
        serving.one_at_a_time = Some((status, Arc::default()));
        serving.flow = Flow::Drip {
            piece: 16 << 10,
            every: Duration::from_millis(40),
        };
    }
    let runtime = ["--transfer", "auto", "--runtime", "containerd://1.7.24"];
    let outcome = Probe::of(world).args(runtime).run().await;
    let finding = &outcome.report().verdict.findings[0];
    let facts = finding.evidence.join("\n");
    assert!(
        facts.contains("requested again after that, this one was served"),
        "{}",
        outcome.text()
    );
    assert!(finding.hint.contains("`max_concurrent_downloads = 1`"));
    let requests = world.blobs.server.seen().len();
    assert!(requests < 15, "{requests} requests to the storage");
    outcome
}

/// The registry behind a filter that has no place for a ClientHello of more than 600 bytes.
async fn filtered(world: &World, then: TooLarge) -> HelloFilter {
    let filter = HelloFilter::before(world.registry.server.addr, 600, then).await;
    world.dns.host(REGISTRY, &[filter.addr.ip()]);
    filter
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_hello_is_sent_only_where_it_is_requested() {
    let world = World::healthy().await;
    let filter = filtered(&world, TooLarge::Reset).await;
    probe(&world).await.is_quiet();
    let outcome = Probe::of(&world).args(["--large-hello"]).run().await;
    outcome.shows("tls_large_hello", Severity::Warning, Pull::WouldSucceed);
    let finding = &outcome.report().verdict.findings[0];
    assert_eq!(finding.confidence, Confidence::Medium);
    assert_eq!(finding.leg, Some(Role::Registry));
    let evidence = &outcome.report().evidence;
    for leg in &evidence.walk.legs {
        let trial = leg.large_hello.as_ref().unwrap();
        assert_eq!(trial.is_dropped(), trial.to.ip() == filter.addr.ip());
        assert!(trial.bytes.0 > 1460, "{trial:?}");
        assert_eq!(trial.short.is_some(), trial.is_dropped());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trial_of_a_large_hello_costs_one_connection_and_no_request() {
    let counts = async |args: &[&str]| {
        let world = World::healthy().await;
        let outcome = Probe::of(&world).args(args).run().await;
        outcome.is_quiet();
        [
            &world.registry.server,
            &world.tokens.server,
            &world.blobs.server,
        ]
        .map(|server| (server.connections(), server.seen().len()))
    };
    let (without, with) = (counts(&[]).await, counts(&["--large-hello"]).await);
    let more = without.map(|(connections, requests)| (connections + 1, requests));
    assert_eq!(with, more);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_1_35_on_a_present_image_may_need_a_registry_that_takes_the_credential() {
    let world = World::healthy().await;
    let secret = World::secret(&world.registry_host(), USER, "wrong");
    let secret = world.write("other-secret.yaml", &secret);
    for (version, want) in [
        ("v1.34.2", &["auth_bad_cred"][..]),
        ("v1.35.1", &["auth_bad_cred", "image_verification"]),
    ] {
        let outcome = Probe::of(&world)
            .anonymous()
            .manifest(&pod(SECRET_AND_IMAGE))
            .args(["--kubelet-version", version])
            .args(["--secret-file", secret.to_str().unwrap()])
            .run()
            .await;
        let verdict = &outcome.report().verdict;
        let codes = verdict.findings.iter().map(|found| found.cause.code());
        assert_eq!(codes.collect::<Vec<_>>(), want, "{version}");
        assert_eq!(verdict.pull, Pull::WouldFail);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_check_has_nothing_to_report() {
    let world = World::healthy().await;
    let outcome = probe(&world).await;
    outcome.is_quiet();
    let evidence = &outcome.report().evidence;
    let found = evidence.walk.manifest.done().unwrap();
    let image = world.image.platform("amd64");
    assert_eq!(found.digest, world.image.top().digest);
    assert_eq!(found.platform_digest, image.manifest.digest);
    assert_eq!(found.layers.len(), image.layers.len());
    let size: usize = image.layers.iter().map(|layer| layer.bytes.len()).sum();
    assert_eq!(found.layers_size.0, size as u64);
    assert_eq!(evidence.walk.blob.done().unwrap().redirects.len(), 1);
    assert_eq!(evidence.walk.legs.len(), 3);
    assert!(
        world.blobs.take_leaks().is_empty(),
        "a credential went to the storage"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_check_costs_what_the_readme_says() {
    let world = World::healthy().await;
    probe(&world).await.is_quiet();
    let registry = &world.registry.server;
    assert_eq!(registry.connections(), 2, "one a phase");
    let asked: Vec<(String, bool)> = registry
        .seen()
        .iter()
        .map(|seen| {
            let what = seen.path.rsplit_once('/').unwrap().0;
            let what = what.rsplit_once('/').unwrap().1;
            let is_let_in = seen.authorization().is_some();
            (format!("{} {what}", seen.method), is_let_in)
        })
        .collect();
    let asked: Vec<(&str, bool)> = asked
        .iter()
        .map(|(what, is)| (what.as_str(), *is))
        .collect();
    assert_eq!(
        asked,
        [
            // What the tag stands for; each phase of a pull begins without a token.
            ("HEAD manifests", false),
            ("HEAD manifests", true),
            // The index, and the platform's manifest.
            ("GET manifests", false),
            ("GET manifests", true),
            ("GET manifests", true),
            // The configuration, and a layer.
            ("GET blobs", true),
            ("GET blobs", true),
            // No pull asks that, and nothing is decided by it.
            ("GET v2", false),
        ]
    );
    assert_eq!(world.tokens.server.connections(), 2);
    assert_eq!(world.tokens.server.seen().len(), 2, "one a phase");
    let stored = world.blobs.server.seen();
    assert_eq!(stored.len(), 2, "the configuration and a layer");
    for seen in stored.iter().chain(&registry.seen()) {
        assert_eq!(seen.header("range"), None, "a pull asks for no part");
    }
    let questions = world.dns.questions();
    assert_eq!(
        questions.len(),
        6,
        "A and AAAA of three names: {questions:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_http_registry_is_checked_when_requested() {
    let world = World::plain().await;
    let outcome = Probe::of(&world).args(["--plain-http"]).run().await;
    assert_eq!(
        outcome.report().verdict.pull,
        Pull::WouldSucceed,
        "{}",
        outcome.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_serves_its_layers_itself_has_two_legs() {
    let world = World::healthy().await;
    world.registry.knobs().redirect = Redirect::Direct;
    let outcome = probe(&world).await;
    outcome.is_quiet();
    assert_eq!(outcome.report().evidence.walk.legs.len(), 2);
    assert!(
        outcome
            .report()
            .evidence
            .walk
            .blob
            .done()
            .unwrap()
            .redirects
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ways_of_a_token_service_all_lead_to_a_token() {
    for post in [
        Post::Status(400),
        Post::Status(401),
        Post::Status(404),
        Post::Status(405),
    ] {
        for fields in [Fields::Both, Fields::Token, Fields::AccessToken] {
            let world = World::healthy().await;
            world.tokens.knobs().post = post;
            world.tokens.knobs().get = fields;
            let outcome = probe(&world).await;
            outcome.is_quiet();
            let attempt = outcome.report().evidence.walk.accepted().unwrap().clone();
            let methods: Vec<&str> = attempt
                .exchanges
                .iter()
                .map(|e| e.method.as_str())
                .collect();
            assert_eq!(methods, ["POST", "GET"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_head_405_open_ping_and_closing_servers_are_all_checked() {
    let world = World::healthy().await;
    world.registry.knobs().auth = World::basic();
    probe(&world).await.is_quiet();

    let world = World::healthy().await;
    world.registry.knobs().head_405 = true;
    let outcome = probe(&world).await;
    outcome.is_quiet();
    assert!(
        outcome
            .report()
            .evidence
            .walk
            .accepted()
            .unwrap()
            .head
            .done()
            .unwrap()
            .used_get
    );

    let world = World::healthy().await;
    world.registry.knobs().ping_open = true;
    probe(&world).await.is_quiet();

    let world = World::healthy().await;
    world.registry.knobs().hide_digest = true;
    probe(&world).await.is_quiet();

    let world = World::healthy().await;
    world.registry.knobs().manners.close_each = true;
    probe(&world).await.is_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_credential_is_tried_after_the_first_was_refused() {
    let world = World::healthy().await;
    let wrong = World::secret(&world.registry_host(), "nobody", "canary-7f3a9c-wrong");
    let wrong = world.write("wrong.yaml", &wrong);
    let right = world.secret_file();
    let outcome = Probe::of(&world)
        .anonymous()
        .args([
            "--secret-file",
            wrong.to_str().unwrap(),
            "--secret-file",
            right.to_str().unwrap(),
        ])
        .run()
        .await;
    assert_eq!(outcome.code, 0);
    let attempts = &outcome.report().evidence.walk.attempts;
    assert_eq!(attempts.len(), 2);
    assert!(attempts[0].head.done().is_none());
    assert!(attempts[1].head.done().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_image_needs_no_credential() {
    let world = World::healthy().await;
    let outcome = Probe::of(&world)
        .anonymous()
        .reference(&world.public_reference())
        .run()
        .await;
    outcome.is_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_headers_are_read() {
    let world = World::healthy().await;
    world.registry.knobs().rate_limit = Some(RateLimit {
        limit: 100,
        remaining: 76,
        window_seconds: 21_600,
        source: "203.0.113.7".to_owned(),
    });
    let outcome = probe(&world).await;
    outcome.is_quiet();
    let limit = outcome.report().evidence.walk.rate_limit.clone().unwrap();
    assert_eq!(
        (limit.limit, limit.remaining, limit.window_seconds),
        (Some(100), Some(76), Some(21_600))
    );
    assert_eq!(limit.source.as_deref(), Some("203.0.113.7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_registry_repeats_gets_out_nowhere() {
    // `Outcome` looks for the canary in everything that every probe of this file prints.
    for reply in [echo(401), echo(403), echo(400), echo(500)] {
        let world = World::healthy().await;
        world.registry.knobs().auth = World::basic();
        world
            .registry
            .knobs()
            .manners
            .fail("/manifests/", reply.clone());
        let outcome = probe(&world).await;
        assert_ne!(outcome.code, 0);

        let world = World::healthy().await;
        world.tokens.knobs().manners.fail("/token", reply);
        let outcome = probe(&world).await;
        assert_ne!(outcome.code, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_leg_ends_in_time_whatever_it_does() {
    for flow in [
        Flow::Hang,
        Flow::Reset,
        Flow::Close,
        Flow::StallAfter(1),
        Flow::Drip {
            piece: 1,
            every: Duration::from_millis(300),
        },
    ] {
        for place in ["registry", "token", "blob"] {
            let world = World::healthy().await;
            let reply =
                Reply::json(200, &serde_json::json!({"padding": "x".repeat(200)})).flow(flow);
            match place {
                "registry" => world
                    .registry
                    .knobs()
                    .manners
                    .fail_early("/manifests/", reply),
                "token" => world.tokens.knobs().manners.fail_early("/token", reply),
                _ => world.blobs.knobs().manners.fail_early("/", reply),
            }
            let start = std::time::Instant::now();
            let outcome = probe(&world).await;
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{flow:?} at {place}"
            );
            if !matches!(
                (flow, place),
                (Flow::StallAfter(1) | Flow::Drip { .. }, "blob")
            ) {
                assert_ne!(outcome.code, 0, "{flow:?} at {place}:\n{}", outcome.text());
                assert!(
                    !outcome.report().verdict.findings.is_empty(),
                    "{flow:?} at {place}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_in_words_is_distinguished_from_a_wrong_password() {
    let world = World::healthy().await;
    world.registry.knobs().manners.fail("/manifests/", denied());
    probe(&world)
        .await
        .shows("auth_denied", Severity::Critical, Pull::WouldFail);
    let world = World::healthy().await;
    world.registry.knobs().manners.fail(
        "/manifests/",
        oci_error(401, "UNAUTHORIZED", "authentication required"),
    );
    let outcome = probe(&world).await;
    assert_eq!(outcome.code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirected_manifest_takes_the_credential_along_as_the_release_does() {
    const OTHER: &str = "other.test";
    // To the same name at another port, and to another name.
    for (runtime, name, goes_along) in [
        ("containerd://1.6.20", REGISTRY, false),
        ("containerd://1.7.24", REGISTRY, true),
        ("containerd://2.1.9", REGISTRY, true),
        ("containerd://1.6.20", OTHER, false),
        ("containerd://1.7.24", OTHER, false),
        ("containerd://2.1.9", OTHER, false),
    ] {
        let front = World::healthy().await;
        let behind = World::healthy().await;
        front.dns.host(OTHER, &["127.0.0.1".parse().unwrap()]);
        behind.registry.knobs().auth = Auth::Open;
        let port = behind.registry.server.port();
        let digest = &front.image.top().digest;
        let platform = &front.image.platform("amd64").manifest.digest;
        for version in [TAG, digest, platform] {
            let to = format!("https://{name}:{port}/v2/{REPOSITORY}/manifests/{version}");
            front
                .registry
                .knobs()
                .manners
                .fail(&format!("/manifests/{version}"), Reply::redirect(307, &to));
        }
        behind
            .registry
            .server
            .set_tls(Some(front.config(name, Flaw::None)));
        let outcome = Probe::of(&front).args(["--runtime", runtime]).run().await;
        outcome.is_quiet();
        let asked = behind.registry.server.seen();
        assert_eq!(asked.len(), 3, "HEAD, index, manifest");
        for seen in &asked {
            let went_along = seen.authorization().is_some();
            assert_eq!(went_along, goes_along, "{runtime} to {name}");
        }
    }
    // Without the way there, its own leg says why.
    let front = World::healthy().await;
    let closed = Closed::new();
    let to = format!("https://{REGISTRY}:{}/", closed.addr.port());
    front
        .registry
        .knobs()
        .manners
        .fail("/manifests/", Reply::redirect(307, &to));
    probe(&front)
        .await
        .shows("tcp_refused", Severity::Critical, Pull::WouldFail);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_releases_send_the_credential_on_a_second_redirect() {
    // Go before 1.21.8 compares each host with the one before it, and sends the storage what its
    // signed URL refuses.
    for (runtime, is_sent) in [
        ("containerd://1.6.20", true),
        ("containerd://1.7.24", false),
        ("containerd://2.1.9", false),
    ] {
        let world = World::healthy().await;
        world.blobs.knobs().hops = 1;
        let outcome = Probe::of(&world).args(["--runtime", runtime]).run().await;
        let leaks = world.blobs.take_leaks();
        assert_eq!(!leaks.is_empty(), is_sent, "{runtime}: {leaks:?}");
        if is_sent {
            outcome.shows("blob_denied", Severity::Critical, Pull::WouldFail);
        } else {
            outcome.is_quiet();
        }
    }
    let world = World::healthy().await;
    world.blobs.knobs().hops = 1;
    let outcome = probe(&world).await;
    assert!(!world.blobs.take_leaks().is_empty());
    outcome.shows("release_decides", Severity::Critical, Pull::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_config_toml_counts_where_the_kubelet_has_none() {
    let world = World::healthy().await;
    let login = |password: &str| {
        format!(
            "version = 2\n[CRI.registry]\nconfig_path = '/nonexistent'\n\
             [CRI.registry.configs.'{}'.auth]\nusername = '{USER}'\npassword = '{password}'\n",
            world.registry_host()
        )
    };
    let anonymous = || Probe::of(&world).anonymous();
    let outcome = with_config(&world, &login(PASSWORD), anonymous()).await;
    outcome.is_quiet();
    let outcome = with_config(&world, &login("canary-7f3a9c-wrong"), anonymous()).await;
    outcome.shows("auth_bad_cred", Severity::Critical, Pull::WouldFail);
    // What the kubelet has goes before it.
    let outcome = with_config(&world, &login("canary-7f3a9c-wrong"), Probe::of(&world)).await;
    outcome.is_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_with_which_the_cri_plugin_does_not_load_are_critical() {
    let world = World::healthy().await;
    let text = "version = 2\n[CRI.registry]\nconfig_path = '/nonexistent'\n\
                [CRI.registry.mirrors.'docker.io']\nendpoint = ['https://mirror.test']\n";
    let outcome = with_config(&world, text, Probe::of(&world)).await;
    outcome.shows("hosts_toml_invalid", Severity::Critical, Pull::WouldFail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_on_loopback_may_speak_plain_http_as_for_containerd() {
    let world = World::plain().await;
    world.registry.knobs().auth = Auth::Open;
    world.registry.knobs().redirect = Redirect::Direct;
    let port = world.registry.server.port();
    let reference = format!("127.0.0.1:{port}/{REPOSITORY}:{TAG}");
    let outcome = Probe::of(&world)
        .anonymous()
        .reference(&reference)
        .run()
        .await;
    outcome.is_quiet();
    assert_eq!(
        outcome.report().evidence.walk.legs[0].endpoint.to_string(),
        format!("http://127.0.0.1:{port}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skewed_clock_is_the_cause_of_a_certificate_that_seems_expired() {
    // The token service's certificate ended yesterday; the registry, which is verified, says it is
    // the day before.
    let world = World::healthy().await;
    world
        .tokens
        .server
        .set_tls(Some(world.config(AUTH, Flaw::Expired)));
    world.registry.knobs().manners.clock_skew_seconds = -2 * 86_400;
    let outcome = probe(&world).await;
    outcome.shows("clock_skew", Severity::Critical, Pull::WouldFail);
    let hidden: Vec<&str> = outcome
        .report()
        .verdict
        .consequences
        .iter()
        .map(|f| f.cause.code())
        .collect();
    assert_eq!(hidden, ["tls_expired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_family_is_queried_and_dialled_when_requested() {
    let world = World::healthy().await;
    for name in [REGISTRY, AUTH, "blobs.test"] {
        world.dns.host(
            name,
            &["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        );
    }
    let outcome = Probe::of(&world).args(["-4"]).run().await;
    outcome.is_quiet();
    let leg = &outcome.report().evidence.walk.legs[0];
    assert!(leg.connect.attempts.iter().all(|dial| dial.to.is_ipv4()));
    assert!(
        leg.resolve
            .queries
            .iter()
            .all(|query| query.family.record() == "A")
    );
    // Nothing listens on ::1.
    Probe::of(&world).args(["-6"]).run().await.shows(
        "tcp_refused",
        Severity::Critical,
        Pull::WouldFail,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_unknown_until_it_is_trusted_itself() {
    // As `openssl req -x509` makes them: an authority that is its own server.
    let world = World::healthy().await;
    let (config, pem) = support::pki::self_signed_authority(REGISTRY);
    world.registry.server.set_tls(Some(config));
    probe(&world)
        .await
        .shows("tls_unknown_ca", Severity::Critical, Pull::WouldFail);
    let file = world.write("self.pem", &pem);
    Probe::of(&world)
        .args(["--ca-file", file.to_str().unwrap()])
        .run()
        .await
        .shows("tls_leaf_trusted", Severity::Warning, Pull::WouldSucceed);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_makes_pulls_fail_now_and_then_only_if_servers_disagree() {
    let world = World::healthy().await;
    let second = dns::Dns::start().await;
    let names = [second.addr.to_string()];
    let rotating = world.write("resolv.conf", "options rotate\n");
    let rotating = ["--resolv-conf", rotating.to_str().unwrap()];
    let both = || Probe::of(&world).args(["--nameserver", &names[0]]);
    let outcome = both().args(rotating).run().await;
    outcome.shows("dns_split_horizon", Severity::Critical, Pull::Unknown);

    // Without it the first server decides, and it has the names.
    let outcome = both().run().await;
    outcome.shows("dns_split_horizon", Severity::Warning, Pull::WouldSucceed);

    let one = Probe::of(&world).args(rotating).run().await;
    one.is_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_domain_that_answers_or_is_not_asked_costs_nothing() {
    let world = World::healthy().await;
    let quick = with_resolv_conf(&world, "search old.lan\noptions ndots:5\n").await;
    quick.is_quiet();

    world.dns.answer("registry.test.old.lan", dns::Answer::Drop);
    let not_asked = with_resolv_conf(&world, "search old.lan\n").await;
    not_asked.is_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_has_is_not_there_whatever_a_search_domain_does() {
    let world = World::healthy().await;
    world.dns.answer("registry.test.old.lan", dns::Answer::Drop);
    world.dns.answer(REGISTRY, dns::Answer::NxDomain);
    let search = "search old.lan\noptions ndots:5";
    // The check waits for less than a pull would.
    let outcome = with_resolv_conf(&world, &format!("{search}\n")).await;
    outcome.shows("dns_undecided", Severity::Critical, Pull::Unknown);
    let outcome = with_resolv_conf(&world, &format!("{search} timeout:1\n")).await;
    outcome.shows("dns_nxdomain", Severity::Critical, Pull::WouldFail);
}

#[tokio::test(flavor = "multi_thread")]
async fn nsswitch_without_dns_lets_no_server_be_asked() {
    let world = World::healthy().await;
    let with = async |line: &str| {
        let path = world.write("nsswitch.conf", line);
        let path = path.to_str().unwrap();
        Probe::of(&world)
            .args(["--nsswitch-conf", path])
            .run()
            .await
    };
    with("hosts: files dns").await.is_quiet();
    let outcome = with("hosts: files").await;
    outcome.shows("dns_nxdomain", Severity::Critical, Pull::WouldFail);
    assert!(
        outcome.text().contains("Add 'dns' to the line"),
        "{}",
        outcome.text()
    );
}

#[test]
fn every_cause_is_produced_by_a_test_or_waits_for_something_named() {
    let mut missing = Vec::new();
    for cause in Cause::ALL {
        let code = cause.code();
        match cause.entry().detected {
            Detected::Now | Detected::ByTransfer => {
                let elsewhere = ELSEWHERE.iter().find(|(known, _)| *known == code);
                // As a code, at a line of findings, in a table of texts, or as the value itself.
                let ways = [
                    format!("\"{code}\""),
                    format!("\"{code} "),
                    format!("cause: {code}\n"),
                    format!("cause: {code}}}"),
                    format!("Cause::{cause:?}"),
                ];
                let is_in = |text: &str| ways.iter().any(|way| text.contains(way));
                let produced =
                    HERE.contains(&code) || elsewhere.is_some_and(|(_, text)| is_in(text));
                if !produced {
                    missing.push(code);
                }
            }
            Detected::Later => assert!(
                !HERE.contains(&code),
                "{code} is produced, so it needs nothing more"
            ),
        }
    }
    assert!(missing.is_empty(), "no test produces {missing:?}");
}
