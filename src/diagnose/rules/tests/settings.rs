//! Mirrors, proxies, segments, workloads and the ends of credentials.

use jiff::SignedDuration;

use std::net::SocketAddr;

use super::*;
use crate::diagnose::fixture::{ms, secured};
use crate::model::connect::Tls;
use crate::model::credential::{Expiry, ExpirySign};
use crate::model::evidence::{
    AddressTrial, ContentRead, SegmentTrial, SegmentTrials, Transport, Walk,
};
use crate::model::fault::ProxyFault;
use crate::model::hosts::{HostKind, HostsConfig, HostsEffect, HostsProblem};
use crate::model::proxy::{IgnoredVariable, MissedException, Proxy, ProxyRoute};
use crate::model::transfer::{NotConnected, Transfer, TransferEnd};
use crate::model::workload::{
    ContainerKind, EipFault, EipProblem, Found, PodUse, PullPolicy, SecretLookup,
};

// ---- mirrors ------------------------------------------------------------------------------------

/// A healthy pull behind a mirror that failed.
fn behind(failed: &Evidence) -> Evidence {
    let mut evidence = healthy();
    evidence.hosts = HostsConfig::Read {
        folder: "/certs.d/x".to_owned(),
        problems: Vec::new(),
    };
    let mut mirror: Walk = failed.walk.clone();
    mirror.host.kind = HostKind::Mirror;
    mirror.host.endpoint = endpoint("mirror.example.com");
    evidence.walk.host.position = 1;
    evidence.others = vec![mirror];
    evidence
}

fn dead_mirror(fault: TcpFault) -> Evidence {
    behind(&healthy().unconnected(Role::Registry, vec![dial("10.0.3.9", Some(fault))]))
}

#[test]
fn a_dead_mirror_is_reported_with_its_cause_and_its_cost() {
    let refused = dead_mirror(TcpFault::Refused { icmp: None });
    says(
        &only(&refused, "mirror_order", Warning),
        &[
            "mirror https://mirror.example.com",
            "tcp_refused",
            "it took",
            "/certs.d/x/hosts.toml",
        ],
    );
    let mut silent = dead_mirror(TcpFault::Timeout);
    says(
        &only(&silent, "mirror_order", Warning),
        &["about 30 s", "an estimate", "dial timeout"],
    );
    silent.others[0].host.dial_timeout = Some(Duration::from_secs(2));
    says(&only(&silent, "mirror_order", Warning), &["about 2.0 s"]);
    let hung = healthy().unsecured(Role::Registry, TlsFault::Timeout { received: Bytes(0) });
    says(
        &only(&behind(&hung), "mirror_order", Warning),
        &["about 10 s", "handshake timeout"],
    );
    let mute = healthy().unanswered(HttpFault::Timeout);
    says(
        &only(&behind(&mute), "mirror_order", Warning),
        &["about 30 s", "wait for a response"],
    );
}

#[test]
fn a_host_that_does_its_part_is_none() {
    // The registry resolves the tag, and a mirror that may not serves the rest.
    let mut evidence = behind(&healthy());
    evidence.others[0].manifest = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    evidence.others[0].blob = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    quiet(&evidence);
    evidence.walk.manifest = Step::Skipped {
        reason: Skip::OtherHost,
    };
    quiet(&evidence);
}

#[test]
fn what_another_host_gave_does_not_fail_the_pull() {
    let mut evidence = behind(&healthy());
    std::mem::swap(&mut evidence.walk, &mut evidence.others[0]);
    let nothing = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let serves = std::mem::replace(&mut evidence.others[0].manifest, nothing);
    evidence.walk.manifest = failed(ManifestFault::Http {
        fault: status(500, None, false),
    });
    evidence.walk.config = Some(failed(status(401, Some("UNAUTHORIZED"), false)));
    evidence.walk.blob = failed(HttpFault::EncodingUnread {
        encoding: "deflate".to_owned(),
    });
    assert_eq!(judge(&evidence).pull, Pull::WouldFail);
    evidence.others[0].config = Some(Step::Done {
        value: ContentRead {
            bytes: Bytes(634),
            verified: true,
            resumed: 0,
        },
        took: Duration::ZERO,
    });
    assert_eq!(judge(&evidence).pull, Pull::WouldFail, "no manifest");
    evidence.others[0].manifest = serves;
    let verdict = judge(&evidence);
    assert_eq!(verdict.pull, Pull::Unknown);
    assert_eq!(
        codes(&verdict.findings),
        ["probe_limit", "registry_5xx", "blob_denied"]
    );
    for finding in &verdict.findings[1..] {
        says(finding, &["registry.example.com served it then"]);
    }
}

#[test]
fn a_body_that_comes_slowly_leaves_the_pull_undecided() {
    let slow = HttpFault::TooSlow {
        within_seconds: 60,
        got: Bytes(33),
        want: None,
    };
    let mut config = healthy();
    config.walk.config = Some(failed(slow.clone()));
    let mut manifest = healthy();
    manifest.walk.manifest = failed(ManifestFault::Http { fault: slow });
    for evidence in [config, manifest] {
        let verdict = judge(&evidence);
        assert_eq!(verdict.pull, Pull::Unknown);
        assert_eq!(codes(&verdict.findings), ["probe_limit"]);
    }
}

#[test]
fn what_a_mirror_before_would_have_given_is_left_open() {
    let slow = HttpFault::TooSlow {
        within_seconds: 60,
        got: Bytes(33),
        want: None,
    };
    let mut mirror = healthy();
    mirror.walk.manifest = failed(ManifestFault::Http { fault: slow });
    let evidence = behind(&mirror);
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
    says(
        &only(&evidence, "probe_limit", Critical),
        &["mirror https://mirror.example.com", "was not observed"],
    );
    // To a token service in plain http containerd sends the credential, and goes on there.
    let untrusted = TokenFault::RealmUntrusted {
        realm: endpoint("auth.example.com"),
        reason: Distrust::PlainHttp,
    };
    let evidence = behind(&with_secret(failed(untrusted), no_head()));
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
    says(
        &only(&evidence, "realm_untrusted", Critical),
        &["mirror https://mirror.example.com", "was not observed"],
    );
}

#[test]
fn the_error_that_containerd_shows_is_named() {
    let not_found = healthy().refused(
        Some(credential(REGISTRY)),
        grant(Access::Pull),
        failed(status(404, Some("MANIFEST_UNKNOWN"), false)),
    );
    let mut evidence = dead_mirror(TcpFault::Refused { icmp: None });
    evidence.walk = Walk {
        host: evidence.walk.host.clone(),
        ..not_found.walk.clone()
    };
    let verdict = judge(&evidence);
    assert_eq!(
        codes(&verdict.findings),
        ["manifest_unknown", "mirror_order"]
    );
    // An answer of 404 counts before a connection that failed.
    says(
        &verdict.findings[1],
        &[
            "containerd 2 reports the error of https://registry.example.com",
            "containerd 1 that of https://mirror.example.com",
        ],
    );
    // And any other status before a 404.
    let sick = healthy().refused(None, done_nothing(), failed(status(503, None, false)));
    evidence.others[0].attempts = sick.walk.attempts;
    evidence.others[0].legs = healthy().walk.legs;
    evidence.others[0].ping = healthy().walk.ping;
    let verdict = judge(&evidence);
    says(
        &verdict.findings[1],
        &["containerd reports the error of https://mirror.example.com"],
    );
}

fn done_nothing<T, F>() -> Step<T, F> {
    Step::Skipped {
        reason: Skip::NotNeeded,
    }
}

#[test]
fn settings_are_reported_by_what_they_do() {
    for (effect, severity) in [
        (HostsEffect::PullFails, Critical),
        (HostsEffect::Ignored, Warning),
        (HostsEffect::Doubtful, Warning),
    ] {
        let mut evidence = healthy();
        evidence.hosts = HostsConfig::Read {
            folder: "/certs.d/x".to_owned(),
            problems: vec![HostsProblem::of_hosts(effect, "'ca' can't be read")],
        };
        says(
            &only(&evidence, "hosts_toml_invalid", severity),
            &["/certs.d/x", "'ca'"],
        );
    }
}

#[test]
fn skip_verify_is_a_warning_whatever_the_certificate() {
    let mut evidence = healthy();
    evidence.hosts = HostsConfig::Read {
        folder: "/certs.d/x".to_owned(),
        problems: Vec::new(),
    };
    evidence.walk.host.skip_verify = true;
    says(
        &only(&evidence, "mirror_insecure", Warning),
        &["not needed"],
    );
    evidence.walk.legs[0].tls.unverified = Some(TlsFault::UnknownIssuer {
        issuer: "CN=corp".to_owned(),
    });
    says(
        &only(&evidence, "mirror_insecure", Warning),
        &["CN=corp", "sent no credential", "`ca`"],
    );
    // If it requires a credential, nothing more is known.
    let mut asked = evidence.refused(
        Some(credential(REGISTRY)),
        failed(TokenFault::Unverified),
        blocked(Role::Token, Phase::Token),
    );
    asked.walk.segments = None;
    let verdict = judge(&asked);
    assert_eq!(
        codes(&verdict.findings),
        ["auth_unknown", "mirror_insecure"]
    );
    assert_eq!(verdict.pull, Pull::Unknown);
}

#[test]
fn a_mirror_of_which_nothing_is_known_leaves_the_pull_open() {
    let mut unsure = healthy().refused(
        Some(credential(REGISTRY)),
        failed(TokenFault::Unverified),
        blocked(Role::Token, Phase::Token),
    );
    unsure.walk.host.skip_verify = true;
    unsure.walk.legs[0].tls.unverified = Some(TlsFault::UnknownIssuer {
        issuer: "CN=corp".to_owned(),
    });
    let mut evidence = behind(&unsure);
    let dead = || vec![dial("10.0.3.9", Some(TcpFault::Timeout))];
    evidence.walk = Walk {
        host: evidence.walk.host.clone(),
        ..healthy().unconnected(Role::Registry, dead()).walk
    };
    let verdict = judge(&evidence);
    assert_eq!(verdict.pull, Pull::Unknown);
    assert_eq!(
        codes(&verdict.findings),
        ["auth_unknown", "tcp_timeout", "mirror_insecure"]
    );
    says(&verdict.findings[0], &["mirror https://mirror.example.com"]);
    // Where a later host serves, a pull may take this one's content all the same.
    let served = judge(&behind(&unsure));
    assert_eq!(served.pull, Pull::Unknown);
    assert_eq!(codes(&served.findings), ["auth_unknown", "mirror_insecure"]);
}

// ---- proxies ------------------------------------------------------------------------------------

fn proxied() -> ProxyRoute {
    ProxyRoute::Proxied {
        proxy: Proxy {
            scheme: "http".to_owned(),
            authority: "10.0.0.8:3128".to_owned(),
            authenticated: false,
            variable: "HTTPS_PROXY".to_owned(),
            fault: None,
        },
        missed: Vec::new(),
    }
}

/// The registry is behind a proxy that responds to CONNECT like this.
fn closed(fault: ProxyFault) -> Evidence {
    let mut evidence = healthy().unsecured(Role::Registry, TlsFault::PlainHttp);
    let leg = &mut evidence.walk.legs[0];
    leg.proxy_route = proxied();
    leg.tunnel = Some(failed(fault));
    leg.tls.outcome = blocked(Role::Registry, Phase::Proxy);
    evidence.walk.ping = blocked(Role::Registry, Phase::Proxy);
    evidence
}

#[test]
fn what_a_proxy_says_decides_the_hint() {
    let status = |status| ProxyFault::Status {
        status,
        reason: None,
    };
    for (fault, texts) in [
        (status(407), ["HTTPS_PROXY", "user and password"]),
        (status(403), ["403", "port 443 on http://10.0.0.8:3128"]),
        (status(502), ["502", "the proxy could not reach it"]),
        (
            ProxyFault::Http {
                fault: HttpFault::Closed,
            },
            ["closed", "Check the log"],
        ),
    ] {
        let finding = only(&closed(fault), "proxy_misconfigured", Critical);
        assert_eq!(
            finding.confidence,
            Confidence::Medium,
            "nothing was compared"
        );
        says(&finding, &texts);
    }
    let socks = closed(ProxyFault::Unsupported {
        scheme: "socks5".to_owned(),
    });
    only(&socks, "proxy_unknown", Critical);
    assert_eq!(judge(&socks).pull, Pull::Unknown);
}

#[test]
fn tls_with_the_proxy_is_reported_as_that_of_a_server() {
    let unknown = TlsFault::UnknownIssuer {
        issuer: "CN=Proxy CA".to_owned(),
    };
    let secured = |fault: TlsFault| {
        let mut evidence = closed(ProxyFault::Tls {
            fault: fault.clone(),
        });
        let leg = &mut evidence.walk.legs[0];
        if let ProxyRoute::Proxied { proxy, .. } = &mut leg.proxy_route {
            proxy.scheme = "https".to_owned();
        }
        leg.proxy_tls = Some(Tls {
            outcome: failed(fault),
            ..Tls::default()
        });
        evidence
    };
    let name = TlsFault::NameMismatch {
        expected: "10.0.0.8".to_owned(),
        presented: vec!["proxy.corp".to_owned()],
    };
    for (fault, texts) in [
        (
            unknown.clone(),
            [
                "TLS with the proxy failed: certificate signed by an authority not trusted here (CN=Proxy CA)",
                "`ca` to certs.d/registry.example.com/hosts.toml",
            ],
        ),
        (
            name,
            [
                "not for 10.0.0.8",
                "a name from the certificate in HTTPS_PROXY",
            ],
        ),
        (
            TlsFault::PlainHttp,
            ["plain HTTP", "Write http://10.0.0.8:3128 into HTTPS_PROXY"],
        ),
    ] {
        let finding = only(&secured(fault), "proxy_misconfigured", Critical);
        assert_eq!(finding.phase, Some(Phase::Proxy));
        says(&finding, &texts);
    }
    let alert = TlsFault::Alert {
        alert: 40,
        name: "handshake_failure".to_owned(),
    };
    let undecided = secured(alert);
    says(
        &only(&undecided, "proxy_unknown", Critical),
        &["AES-CBC", "crictl pull"],
    );
    assert_eq!(judge(&undecided).pull, Pull::Unknown);
    let mut changed = secured(unknown);
    let tls = changed.walk.legs[0].proxy_tls.as_mut().unwrap();
    tls.depends_on_changed_roots = true;
    says(
        &only(&changed, "runtime_settings_unknown", Critical),
        &["Restart containerd"],
    );
}

#[test]
fn a_comparison_makes_it_sure() {
    let mut evidence = closed(ProxyFault::Status {
        status: 403,
        reason: None,
    });
    evidence.direct = Some(Box::new(healthy().walk));
    let finding = only(&evidence, "proxy_misconfigured", Critical);
    assert_eq!(finding.confidence, Confidence::High);
    says(
        &finding,
        &[
            "the same check succeeds",
            "Add registry.example.com to NO_PROXY",
        ],
    );
    let dead = healthy().unconnected(
        Role::Registry,
        vec![dial("10.0.3.9", Some(TcpFault::Timeout))],
    );
    evidence.direct = Some(Box::new(dead.walk));
    says(
        &only(&evidence, "proxy_misconfigured", Critical),
        &["fails as well: tcp_timeout"],
    );
}

#[test]
fn a_proxy_that_cannot_be_reached_is_not_the_registry() {
    let mut evidence = healthy().unconnected(
        Role::Registry,
        vec![dial("10.0.0.8", Some(TcpFault::Timeout))],
    );
    evidence.walk.legs[0].proxy_route = proxied();
    says(
        &only(&evidence, "proxy_misconfigured", Critical),
        &["can't connect to the proxy 10.0.0.8:3128"],
    );
}

#[test]
fn what_was_dialled_for_a_proxy_is_reported_by_the_proxys_name() {
    let mut evidence = healthy();
    for leg in &mut evidence.walk.legs {
        let ProxyRoute::Proxied { mut proxy, missed } = proxied() else {
            unreachable!()
        };
        proxy.authority = "proxy.corp.example:3128".to_owned();
        leg.proxy_route = ProxyRoute::Proxied { proxy, missed };
        if let Step::Done { value, .. } = &mut leg.resolve.outcome {
            value.name = "proxy.corp.example.".to_owned();
        }
    }
    // The proxy's own name answered, and no other in place of the registry's.
    quiet(&evidence);
    let dead = dial("10.0.0.8", Some(TcpFault::Timeout));
    evidence.walk.legs[0].connect.attempts.insert(0, dead);
    let finding = only(&evidence, "address_partly_dead", Warning);
    says(&finding, &["'proxy.corp.example'"]);
}

#[test]
fn a_host_that_no_proxy_names_and_cannot_be_reached_is_a_remark_beside_the_cause() {
    let mut evidence = healthy().unconnected(
        Role::Registry,
        vec![dial("10.0.3.9", Some(TcpFault::Timeout))],
    );
    let ProxyRoute::Proxied { proxy, .. } = proxied() else {
        unreachable!()
    };
    evidence.walk.legs[0].proxy_route = ProxyRoute::Excepted {
        entry: ".example.com".to_owned(),
        proxy,
    };
    let verdict = judge(&evidence);
    assert_eq!(
        codes(&verdict.findings),
        ["tcp_timeout", "proxy_misconfigured"]
    );
    says(&verdict.findings[1], &["'.example.com' of NO_PROXY"]);
}

fn ignored(variable: &str) -> IgnoredVariable {
    IgnoredVariable {
        variable: variable.to_owned(),
        reason: "not used: a reason".to_owned(),
        hint: "Write http://HOST:PORT into it.".to_owned(),
    }
}

fn unreached() -> Evidence {
    let mut evidence = healthy().unconnected(
        Role::Registry,
        vec![dial("10.0.3.9", Some(TcpFault::Timeout))],
    );
    evidence.proxies.is_containerds = true;
    evidence
}

#[test]
fn a_proxy_that_is_written_wrongly_is_the_cause_where_the_direct_way_fails() {
    let mut evidence = unreached();
    evidence.proxies.ignored = vec![ignored("HTTPS_PROXY")];
    let finding = only(&evidence, "proxy_misconfigured", Critical);
    assert_eq!(finding.confidence, Confidence::High);
    says(
        &finding,
        &[
            "go directly",
            "no answer to the SYN",
            "HTTPS_PROXY: not used",
            "Write http://HOST:PORT into it.",
        ],
    );
    let verdict = judge(&evidence);
    assert_eq!(codes(&verdict.consequences), ["tcp_timeout"]);
    // containerd's own settings were not read.
    evidence.proxies.is_containerds = false;
    let finding = only(&evidence, "proxy_misconfigured", Critical);
    assert_eq!(finding.confidence, Confidence::Medium);
    // Where the server is reached, it is a remark; and none if it is for another scheme.
    let mut reached = healthy();
    reached.proxies.ignored = vec![ignored("HTTPS_PROXY")];
    only(&reached, "proxy_misconfigured", Warning);
    for other in ["HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"] {
        reached.proxies.ignored = vec![ignored(other)];
        quiet(&reached);
        let mut evidence = unreached();
        evidence.proxies.ignored = vec![ignored(other)];
        only(&evidence, "tcp_timeout", Critical);
    }
}

#[test]
fn a_proxy_for_other_programs_is_suspected_only_where_nothing_answers() {
    let ProxyRoute::Proxied { proxy, .. } = proxied() else {
        unreachable!()
    };
    let with = |mut evidence: Evidence, all: bool| {
        if all {
            evidence.proxies.ignored = vec![ignored("ALL_PROXY")];
        } else {
            evidence.proxies.http = Some(Proxy {
                variable: "HTTP_PROXY".to_owned(),
                ..proxy.clone()
            });
        }
        evidence
    };
    for all in [true, false] {
        let finding = only(&with(unreached(), all), "proxy_misconfigured", Critical);
        assert_eq!(finding.confidence, Confidence::Medium);
        says(&finding, &["HTTPS_PROXY", "should be reached through it"]);
        quiet(&with(healthy(), all));
        let refused = healthy().unconnected(
            Role::Registry,
            vec![dial("10.0.3.9", Some(TcpFault::Refused { icmp: None }))],
        );
        only(&with(refused, all), "tcp_refused", Critical);
        let mut exempt = unreached();
        exempt.walk.legs[0].proxy_route = ProxyRoute::Exempt {
            entry: ".example.com".to_owned(),
        };
        only(&with(exempt, all), "tcp_timeout", Critical);
    }
}

#[test]
fn an_entry_that_does_not_match_is_a_remark_and_helps_where_the_proxy_fails() {
    let miss = |evidence: &mut Evidence| {
        if let ProxyRoute::Proxied { missed, .. } = &mut evidence.walk.legs[0].proxy_route {
            missed.push(MissedException {
                entry: "https://registry.example.com".to_owned(),
                reason: "an entry has no scheme".to_owned(),
            });
        }
    };
    let mut evidence = healthy();
    evidence.walk.legs[0].proxy_route = proxied();
    quiet(&evidence);
    miss(&mut evidence);
    let finding = only(&evidence, "proxy_misconfigured", Warning);
    let texts = [
        "'https://registry.example.com' of NO_PROXY does not match: an entry has no scheme",
        "Write registry.example.com into NO_PROXY",
    ];
    says(&finding, &texts);
    assert_eq!(finding.confidence, Confidence::Medium);
    // Both ways are open, and one was meant.
    evidence.direct = Some(Box::new(healthy().walk));
    assert_eq!(
        only(&evidence, "proxy_misconfigured", Warning).confidence,
        Confidence::High
    );
    // Both fail behind the connection, which shows nothing about the way.
    let mut both = evidence.clone();
    both.walk.blob = healthy().no_blob(HttpFault::Reset).walk.blob;
    both.direct = Some(Box::new(healthy().no_blob(HttpFault::Reset).walk));
    let verdict = judge(&both);
    let mut findings = verdict.findings.iter();
    let finding = findings.find(|one| one.cause.code() == "proxy_misconfigured");
    let finding = finding.unwrap_or_else(|| panic!("{verdict:#?}"));
    assert_eq!(
        (finding.severity, finding.confidence),
        (Warning, Confidence::Medium)
    );
    says(finding, &["can be reached as well"]);
    // The other one is closed: the advice is not to take it.
    evidence.direct = Some(Box::new(unreached().walk));
    let finding = only(&evidence, "proxy_misconfigured", Info);
    says(
        &finding,
        &["does not succeed", "these servers need the proxy"],
    );
    assert!(!finding.hint.contains("Write"), "{finding:#?}");
    let mut failing = closed(ProxyFault::Status {
        status: 503,
        reason: None,
    });
    miss(&mut failing);
    says(&only(&failing, "proxy_misconfigured", Critical), &texts);
}

#[test]
fn a_login_that_systemd_alters_is_reported_where_the_proxy_refuses_it() {
    let mut evidence = closed(ProxyFault::Status {
        status: 407,
        reason: None,
    });
    evidence.proxies.ignored = vec![ignored("HTTPS_PROXY")];
    let finding = only(&evidence, "proxy_misconfigured", Critical);
    says(
        &finding,
        &[
            "HTTPS_PROXY: not used: a reason",
            "Write http://HOST:PORT into it.",
        ],
    );
    evidence.proxies.ignored = vec![ignored("NO_PROXY")];
    says(
        &only(&evidence, "proxy_misconfigured", Critical),
        &["Put a user and password"],
    );
}

#[test]
fn what_go_makes_of_a_login_and_what_a_socks_proxy_says_decide_the_hint() {
    let socks = |reply, reason: &str| ProxyFault::Socks {
        reply,
        reason: reason.to_owned(),
    };
    for (fault, words) in [
        (
            ProxyFault::Misread {
                variable: "HTTPS_PROXY".to_owned(),
                character: "'^'".to_owned(),
                encoded: "%5E".to_owned(),
            },
            [
                "should go through",
                "Write '^' as %5E in the user or password of HTTPS_PROXY",
            ],
        ),
        (
            ProxyFault::Cgi {
                variable: "HTTP_PROXY".to_owned(),
            },
            ["makes no request", "Remove REQUEST_METHOD"],
        ),
        (
            socks(Some(2), "its rules"),
            ["its rules", "Allow registry.example.com port 443"],
        ),
        (
            socks(Some(4), "no host"),
            ["no host", "the proxy could not reach it"],
        ),
        (
            socks(None, "in HTTP"),
            ["in HTTP", "whether a SOCKS5 proxy listens"],
        ),
    ] {
        says(
            &only(&closed(fault), "proxy_misconfigured", Critical),
            &words,
        );
    }
}

#[test]
fn a_cut_behind_a_proxy_names_it() {
    let cut = |evidence: Evidence| Evidence {
        walk: Walk {
            blob: failed(HttpFault::Truncated {
                got: Bytes(3_000_000),
                want: Some(Bytes(12_000_000)),
            }),
            ..evidence.walk
        },
        ..evidence
    };
    let mut proxied_one = healthy();
    for leg in &mut proxied_one.walk.legs {
        leg.proxy_route = proxied();
    }
    let finding = only(&cut(proxied_one), "unexpected_eof", Critical);
    says(
        &finding,
        &[
            "the proxy 10.0.0.8:3128, which may have caused this",
            "Check the log of the proxy 10.0.0.8:3128",
        ],
    );
    let direct = only(&cut(healthy()), "unexpected_eof", Critical);
    let all = format!("{direct:?}");
    assert!(!all.contains("10.0.0.8"), "{all}");
}

// ---- segments -----------------------------------------------------------------------------------

#[test]
fn only_a_whole_plan_that_the_size_explains_is_a_black_hole() {
    let hung = || healthy().no_blob(HttpFault::Stalled { after: Bytes(0) });
    let with = |pattern: &[(bool, bool)]| {
        let mut evidence = hung();
        let trials = pattern.iter().map(|(small, passes)| SegmentTrial {
            max_segment: small.then_some(1000),
            fault: (!passes).then(|| "no answer in time".to_owned()),
            is_silent: !passes,
            took: Duration::from_secs(1),
        });
        evidence.walk.segments = Some(SegmentTrials {
            role: Role::Blob,
            phase: Phase::Blob,
            endpoint: endpoint(BLOBS),
            to: "203.0.113.9:443".parse().unwrap(),
            trials: trials.collect(),
        });
        evidence
    };
    let (hangs, small) = ((false, false), (true, true));
    let (usual_passes, small_hangs) = ((false, true), (true, false));
    let plan = [
        hangs, small, small, hangs, hangs, hangs, small, hangs, small, small, hangs, small, hangs,
    ];
    let proof = with(&plan);
    let finding = only(&proof, "mtu_blackhole", Critical);
    says(
        &finding,
        &["at most 1000 bytes: passes, 6 of 6", "Clamp the MSS"],
    );
    assert_eq!(finding.confidence, Confidence::High);
    assert_eq!(codes(&judge(&proof).consequences), ["http_timeout"]);
    // Two servers in turn look like that as well, as in reports of older versions.
    let few = with(&[hangs, small, hangs, small]);
    let finding = only(&few, "mtu_blackhole", Critical);
    assert_eq!(finding.confidence, Confidence::Low);
    says(&finding, &["servers that take turns"]);
    for index in 1..plan.len() {
        let mut pattern = plan;
        pattern[index] = if plan[index] == hangs {
            usual_passes
        } else {
            small_hangs
        };
        let finding = only(&with(&pattern), "http_timeout", Critical);
        assert_eq!(finding.confidence, Confidence::Medium, "{index}");
        says(
            &finding,
            &["pass and hang in turn, whatever their segment size"],
        );
    }
    for pattern in [
        &[(false, false), (true, false)][..],
        &[(false, false), (true, true)],
        &[(false, false), (true, true), (false, true)],
        &[(false, false)],
        &[],
    ] {
        let finding = only(&with(pattern), "http_timeout", Critical);
        assert!(!finding.evidence.iter().any(|fact| fact.contains("in turn")));
    }
}

/// A handshake that failed, and how further connections ended; none with small segments.
fn repeated(fault: &TlsFault, passes: &[bool]) -> Evidence {
    let mut evidence = healthy().unsecured(Role::Registry, fault.clone());
    let is_silent = matches!(fault, TlsFault::Timeout { .. });
    let trials = std::iter::once(&false).chain(passes);
    let trials = trials.map(|passes| SegmentTrial {
        max_segment: None,
        fault: (!passes).then(|| fault.to_string()),
        is_silent: !passes && is_silent,
        took: Duration::from_millis(20),
    });
    evidence.walk.segments = Some(SegmentTrials {
        role: Role::Registry,
        phase: Phase::Tls,
        endpoint: endpoint(REGISTRY),
        to: "203.0.113.9:443".parse().unwrap(),
        trials: trials.collect(),
    });
    evidence
}

#[test]
fn connections_that_pass_and_fail_in_turn_are_no_filter_and_no_black_hole() {
    let silence = || TlsFault::Timeout { received: Bytes(0) };
    let cut = || TlsFault::Reset { received: Bytes(0) };
    for (fault, code, word) in [
        (silence(), "tls_hang", "hang"),
        (cut(), "tls_reset", "are cut"),
    ] {
        let finding = only(&repeated(&fault, &[true, false, true]), code, Critical);
        assert_eq!(finding.confidence, Confidence::Medium);
        says(
            &finding,
            &[
                &format!("pass and {word} in turn: 2 of 4 failed"),
                "balancer",
            ],
        );
        assert!(!finding.hint.contains("firewall") && !finding.hint.contains("MSS"));
        // Once: not in turn, but no filter either.
        let finding = only(&repeated(&fault, &[true; 6]), code, Critical);
        says(&finding, &["6 further connections", "Probe again"]);
        // Always: a filter, or the path.
        let finding = only(&repeated(&fault, &[false; 4]), code, Critical);
        assert!(finding.hint.contains("firewall"), "{}", finding.hint);
        assert!(!finding.evidence.iter().any(|fact| fact.contains("turn")));
    }
}

#[test]
fn a_syn_without_an_answer_beside_others_that_have_one_is_no_matter_of_routes() {
    let with = |passes: &[bool]| {
        let attempts = vec![dial("203.0.113.9", Some(TcpFault::Timeout))];
        let mut evidence = healthy().unconnected(Role::Registry, attempts);
        let other = repeated(&TlsFault::Timeout { received: Bytes(0) }, passes);
        evidence.walk.segments = other.walk.segments;
        evidence.walk.segments.as_mut().unwrap().phase = Phase::Connect;
        evidence
    };
    let finding = only(&with(&[false, false, true, true]), "tcp_timeout", Critical);
    says(&finding, &["3 of 5 failed", "balancer"]);
    assert_eq!(finding.confidence, Confidence::Medium);
    let finding = only(&with(&[true; 4]), "tcp_timeout", Critical);
    says(&finding, &["4 further connections", "Probe again"]);
    let finding = only(&with(&[false; 4]), "tcp_timeout", Critical);
    assert!(!finding.hint.contains("balancer"), "{finding:#?}");
}

#[test]
fn a_second_connection_that_fails_in_turn_with_others_is_a_dead_server_of_several() {
    let second = |reason: &str| HttpFault::Reconnect {
        phase: Phase::Tls,
        reason: reason.to_owned(),
        tls: None,
    };
    let with = |passes: &[bool]| {
        let mut evidence = healthy().no_blob(second("no answer to our ClientHello"));
        let other = repeated(&TlsFault::Timeout { received: Bytes(0) }, passes);
        evidence.walk.segments = other.walk.segments;
        evidence.walk.segments.as_mut().unwrap().role = Role::Blob;
        evidence
    };
    says(
        &only(&with(&[true, false, true]), "tls_hang", Critical),
        &["in turn", "balancer"],
    );
    // A limit for connections from one client: all further ones fail beside those that are open.
    says(
        &only(&with(&[false; 4]), "tcp_reset", Critical),
        &["several connections from one client"],
    );
}

#[test]
fn a_second_connection_with_another_certificate_is_one_of_several_servers() {
    let other = TlsFault::NameMismatch {
        expected: REGISTRY.to_owned(),
        presented: vec!["shop.test".to_owned()],
    };
    let second = HttpFault::Reconnect {
        phase: Phase::Tls,
        reason: other.to_string(),
        tls: Some(Box::new(other)),
    };
    let finding = only(&healthy().no_blob(second), "tls_name", Critical);
    assert_eq!(finding.confidence, Confidence::Medium);
    says(
        &finding,
        &["servers behind it differ", "shop.test", "balancer"],
    );
    assert!(!finding.hint.contains("image reference"), "{finding:#?}");
}

#[test]
fn a_connection_of_the_transfer_test_with_another_certificate_is_that_and_not_cut() {
    let other = TlsFault::NameMismatch {
        expected: REGISTRY.to_owned(),
        presented: vec!["shop.test".to_owned()],
    };
    let cut = TlsFault::Reset { received: Bytes(0) };
    for (fault, code, hint) in [
        (other, "tls_name", "differs from the others"),
        (cut, "tls_reset", "does not answer"),
    ] {
        let mut evidence = healthy();
        let to = evidence.walk.legs[0].connect.outcome.done().unwrap().to;
        evidence.walk.transfer = Some(Transfer {
            started: now(),
            max_bytes: Bytes(16 << 20),
            max_duration: Duration::from_secs(5),
            expected_within: None,
            stages: Vec::new(),
            streams: Vec::new(),
            connections: 1,
            connections_tried: 3,
            not_connected: vec![NotConnected {
                to,
                phase: Phase::Tls,
                reason: fault.to_string(),
                is_silent: false,
                tls: Some(fault),
            }],
            arrivals: Vec::new(),
            pings: None,
            control: None,
            device: None,
            tcp_settings: None,
            round_trips_before: Vec::new(),
            cpu: None,
            end: TransferEnd::Stable,
            took: Duration::from_secs(1),
        });
        let verdict = judge(&evidence);
        let finding = verdict.findings.iter().find(|one| one.cause.code() == code);
        let finding = finding.unwrap_or_else(|| panic!("{verdict:#?}"));
        assert_eq!(finding.severity, Warning);
        says(finding, &["1 of the 3 connections", hint]);
    }
}

#[test]
fn connections_that_fail_until_a_moment_are_no_filter() {
    let silence = TlsFault::Timeout { received: Bytes(0) };
    let finding = only(
        &repeated(&silence, &[false, true, true, true]),
        "tls_hang",
        Critical,
    );
    assert_eq!(finding.confidence, Confidence::Medium);
    says(
        &finding,
        &["2 connections in a row", "the 3 after them", "Probe again"],
    );
    assert!(!finding.hint.contains("segment size"), "{finding:#?}");
}

// ---- ends of credentials, and what is odd in them ------------------------------------------------

fn with_expiry(
    mut evidence: Evidence,
    issued: Option<i64>,
    expires: i64,
    sign: ExpirySign,
) -> Evidence {
    let at = |seconds: i64| now() + SignedDuration::from_secs(seconds);
    let mut source = SourceEvidence {
        at_usual_path: false,
        source: secret("regcred"),
        keys: 1,
        server_keys: vec![REGISTRY.to_owned()],
        problem: None,
        lint: Vec::new(),
        expiries: Vec::new(),
    };
    source.expiries.push(Expiry {
        key: (sign == ExpirySign::TokenClaim).then(|| REGISTRY.to_owned()),
        sign,
        issued: issued.map(at),
        expires: Some(at(expires)),
    });
    evidence.keyring.sources = vec![source];
    evidence
}

fn wrong_password() -> Evidence {
    let keyring = healthy().keyring;
    let fault = TokenFault::Rejected {
        fault: status(401, None, false),
    };
    let mut evidence = healthy().refused(
        Some(credential(REGISTRY)),
        failed(fault),
        blocked(Role::Token, Phase::Token),
    );
    evidence.keyring = keyring;
    evidence
}

#[test]
fn an_end_is_judged_by_the_share_of_life_that_is_left() {
    use ExpirySign::TokenClaim;
    for (issued, expires, found) in [
        (Some(-1800), 1800, None),
        (Some(-3300), 300, Some("credential_expiring")),
        (Some(-86_400 * 364), 86_400, Some("credential_expiring")),
        (Some(-86_400 * 300), 86_400 * 65, None),
        (None, 7200, None),
        (None, 600, Some("credential_expiring")),
        (Some(-7200), -60, Some("credential_expired")),
    ] {
        let evidence = with_expiry(healthy(), issued, expires, TokenClaim);
        match found {
            None => quiet(&evidence),
            Some(code) => {
                only(&evidence, code, Warning);
            }
        }
    }
}

#[test]
fn an_expired_credential_is_the_root_where_the_pull_depends_on_it() {
    let expired = with_expiry(wrong_password(), Some(-7200), -60, ExpirySign::TokenClaim);
    only(&expired, "credential_expired", Critical);
    assert_eq!(codes(&judge(&expired).consequences), ["auth_bad_cred"]);
    // A kind that always expires and does not show when it was issued.
    let without_end = |mut evidence: Evidence| {
        evidence = with_expiry(evidence, None, 0, ExpirySign::GoogleAccessToken);
        let expiry = &mut evidence.keyring.sources[0].expiries[0];
        (expiry.key, expiry.expires) = (Some(REGISTRY.to_owned()), None);
        evidence
    };
    let finding = only(
        &without_end(wrong_password()),
        "credential_expired",
        Critical,
    );
    assert_eq!(finding.confidence, Confidence::Medium);
    says(
        &only(&without_end(healthy()), "credential_expiring", Info),
        &["Google access token"],
    );
    let copy = with_expiry(wrong_password(), None, -60, ExpirySign::Annotation);
    says(
        &only(&copy, "secret_copy_expired", Critical),
        &["default-secret"],
    );
    let early = with_expiry(healthy(), None, 86_400, ExpirySign::Annotation);
    only(&early, "secret_copy_expired", Warning);
    let mut own = with_expiry(healthy(), None, 86_400, ExpirySign::Annotation);
    own.keyring.sources[0].source = secret("default-secret");
    own.keyring.candidates[0].source = secret("default-secret");
    quiet(&own);
}

/// A token was issued for the credential, or none was required: its expiry is not what fails.
#[test]
fn an_ended_credential_is_no_cause_where_it_was_not_refused() {
    let ended = |evidence| with_expiry(evidence, Some(-7200), -60, ExpirySign::TokenClaim);
    let mut open = ended(healthy());
    open.walk.attempts[0].credential = None;
    says(
        &only(&open, "credential_expired", Info),
        &["serves this image to anyone"],
    );
    for (code, first) in [
        (
            status(404, Some("MANIFEST_UNKNOWN"), false),
            "manifest_unknown",
        ),
        (status(503, None, false), "registry_5xx"),
    ] {
        let keyring = healthy().keyring;
        let mut evidence = healthy().refused(
            Some(credential(REGISTRY)),
            grant(Access::Pull),
            failed(code),
        );
        evidence.keyring = keyring;
        let mut evidence = ended(evidence);
        evidence.keyring.sources[0].lint = vec![Lint {
            key: Some(REGISTRY.to_owned()),
            rule: LintRule::OuterBlanks {
                part: "password".to_owned(),
            },
        }];
        evidence.pods = vec![pod(Found::NotGiven { given: 1 })];
        let verdict = judge(&evidence);
        assert_eq!(verdict.findings[0].cause.code(), first);
        assert!(verdict.findings[1..].iter().all(|f| f.severity == Warning));
    }
}

#[test]
fn what_is_odd_in_a_refused_credential_is_the_root() {
    let odd = |mut evidence: Evidence, rule: LintRule| {
        evidence.keyring.sources[0].lint = vec![Lint {
            key: Some(REGISTRY.to_owned()),
            rule,
        }];
        evidence
    };
    let newline = || LintRule::EndsInNewline {
        part: "password".to_owned(),
    };
    only(&odd(wrong_password(), newline()), "secret_format", Critical);
    only(&odd(healthy(), newline()), "secret_format", Warning);
    let verdict = judge(&odd(wrong_password(), LintRule::HubAlias));
    assert_eq!(
        codes(&verdict.findings),
        ["auth_bad_cred", "secret_format"],
        "that is not why"
    );
}

// ---- workloads ----------------------------------------------------------------------------------

fn pod(found: Found) -> PodUse {
    PodUse {
        path: "w.yaml".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: Some("shop".to_owned()),
        name: "foo".to_owned(),
        found_at: None,
        container: "c".to_owned(),
        container_kind: ContainerKind::Container,
        policy: PullPolicy::Always,
        policy_is_default: false,
        image_present: false,
        pull_secrets: vec!["regcred".to_owned()],
        service_account: None,
        eip: Vec::new(),
        progress_deadline: None,
        secrets: vec![SecretLookup {
            name: "regcred".to_owned(),
            found,
        }],
    }
}

#[test]
#[expect(clippy::large_stack_arrays, reason = "a table of cases")]
fn a_secret_that_is_not_there_matters_where_nobody_is_let_in_without() {
    let elsewhere = || Found::Elsewhere {
        namespaces: vec!["till".to_owned()],
    };
    let anonymous = || {
        healthy().refused(
            None,
            failed(TokenFault::NoCredential),
            blocked(Role::Token, Phase::Token),
        )
    };
    for (base, found, code, severity) in [
        (anonymous(), elsewhere(), "secret_other_namespace", Critical),
        (healthy(), elsewhere(), "secret_other_namespace", Warning),
        (
            anonymous(),
            Found::NotGiven { given: 2 },
            "secret_missing",
            Critical,
        ),
        (
            healthy(),
            Found::NotGiven { given: 2 },
            "secret_missing",
            Warning,
        ),
        (
            healthy(),
            Found::NotGiven { given: 0 },
            "secret_missing",
            Info,
        ),
    ] {
        let mut evidence = base;
        evidence.pods = vec![pod(found)];
        only_like(&evidence, code, severity);
    }
    let mut unknown = anonymous();
    unknown.pods = vec![pod(Found::NotGiven { given: 0 })];
    assert_eq!(
        judge(&unknown).pull,
        Pull::Unknown,
        "the cluster may have it"
    );
    let mut absent = anonymous();
    absent.pods = vec![pod(Found::Absent)];
    only(&absent, "secret_missing", Critical);
    assert_eq!(judge(&absent).pull, Pull::WouldFail, "it has none");
    let mut here = healthy();
    here.pods = vec![pod(Found::Here)];
    quiet(&here);
}

/// [`only`], for a verdict that may be unknown.
fn only_like(evidence: &Evidence, code: &str, severity: Severity) {
    let verdict = judge(evidence);
    is_sound(&verdict);
    assert_eq!(codes(&verdict.findings), [code], "{verdict:#?}");
    assert_eq!(verdict.findings[0].severity, severity);
}

#[test]
fn no_pull_is_reported_only_where_no_container_pulls() {
    let mut evidence = healthy();
    let mut never = pod(Found::Here);
    never.policy = PullPolicy::Never;
    evidence.pods = vec![never.clone()];
    says(
        &only(&evidence, "no_pull", Info),
        &["Never", "ErrImageNeverPull"],
    );
    evidence.pods = vec![never, pod(Found::Here)];
    quiet(&evidence);
    let mut present = pod(Found::Here);
    present.policy = PullPolicy::IfNotPresent;
    evidence.pods = vec![present];
    quiet(&evidence);
    evidence.reference = format!("{REGISTRY}/team/app@sha256:{}", "0".repeat(64))
        .parse()
        .unwrap();
    says(&only(&evidence, "no_pull", Info), &["by digest"]);
}

#[test]
fn from_1_35_on_whether_a_present_image_is_pulled_again_is_not_known() {
    let by_digest = |policy: PullPolicy, version: Option<&str>| {
        let mut evidence = healthy();
        evidence.reference = format!("{REGISTRY}/team/app@sha256:{}", "0".repeat(64))
            .parse()
            .unwrap();
        evidence.kubelet = version.map(|version| version.parse().unwrap());
        evidence.pods = vec![PodUse {
            policy,
            ..pod(Found::Here)
        }];
        evidence
    };
    let unknown = by_digest(PullPolicy::IfNotPresent, None);
    says(
        &only(&unknown, "image_verification", Info),
        &["version is unknown", "--kubelet-version"],
    );
    let newer = by_digest(PullPolicy::IfNotPresent, Some("v1.35.0"));
    says(
        &only(&newer, "image_verification", Info),
        &["v1.35.0", "imagePullCredentialsVerificationPolicy"],
    );
    // With Never there is no pull in any release.
    for version in [None, Some("v1.36.1")] {
        let without_pull = by_digest(PullPolicy::Never, version);
        says(
            &only(&without_pull, "no_pull", Info),
            &["ErrImageNeverPull", "a Secret that this pod does not have"],
        );
    }
    let mut tagged = healthy();
    tagged.kubelet = Some("v1.35.0".parse().unwrap());
    tagged.pods = vec![PodUse {
        policy: PullPolicy::IfNotPresent,
        ..pod(Found::Here)
    }];
    quiet(&tagged);
}

#[test]
fn a_present_image_is_no_help_where_its_verification_fails() {
    let fails = |policy: PullPolicy, version: Option<&str>| {
        let refused = Some(TcpFault::Refused { icmp: None });
        let mut evidence = healthy().unconnected(Role::Registry, vec![dial("10.0.3.9", refused)]);
        evidence.kubelet = version.map(|version| version.parse().unwrap());
        evidence.pods = vec![PodUse {
            policy,
            image_present: true,
            ..pod(Found::Here)
        }];
        let verdict = judge(&evidence);
        let found = verdict.findings.into_iter();
        let mut found = found.filter(|finding| finding.cause.code() == "image_verification");
        found.next()
    };
    let found = fails(PullPolicy::IfNotPresent, Some("v1.35.2")).unwrap();
    assert_eq!(
        (found.severity, found.confidence),
        (Warning, Confidence::Low)
    );
    says(
        &found,
        &["the image is on this node", "v1.35.2", "NeverVerify"],
    );
    assert!(fails(PullPolicy::IfNotPresent, Some("v1.34.2")).is_none());
    assert!(fails(PullPolicy::IfNotPresent, None).is_none());
    assert!(fails(PullPolicy::Always, Some("v1.35.2")).is_none());
    assert!(fails(PullPolicy::Never, Some("v1.35.2")).is_none());
}

#[test]
fn annotations_are_reported_once_for_a_pod() {
    let mut evidence = healthy();
    let mut one = pod(Found::Here);
    one.eip = vec![EipProblem {
        key: "yangtse.io/eip-bandwidth-size".to_owned(),
        fault: EipFault::InvalidValue {
            value: "5M".to_owned(),
            wanted: "a whole number".to_owned(),
        },
    }];
    let two = PodUse {
        container: "d".to_owned(),
        ..one.clone()
    };
    evidence.pods = vec![one, two];
    says(
        &only(&evidence, "eip_annotation_invalid", Critical),
        &["eip-bandwidth-size is '5M'"],
    );
    for pod in &mut evidence.pods {
        pod.eip[0].fault = EipFault::UnusualValue {
            value: "5000".to_owned(),
            usual: "1 to 2000".to_owned(),
        };
    }
    only(&evidence, "eip_annotation_invalid", Warning);
}

// ---- what was changed after containerd started ---------------------------------------------------

#[test]
fn a_changed_bundle_leaves_open_what_depends_on_it() {
    const CHANGED: &str = "/etc/ssl/certs/ca-certificates.crt was changed at 2026-01-02T00:00:00Z";
    let mut accepted = healthy();
    accepted.walk.roots.changed = vec![CHANGED.to_owned()];
    quiet(&accepted);
    accepted.walk.legs[0].tls.depends_on_changed_roots = true;
    let finding = only(&accepted, "runtime_settings_unknown", Critical);
    says(&finding, &[CHANGED, "Restart containerd"]);
    assert_eq!(judge(&accepted).pull, Pull::Unknown);
    let mut refused = healthy().unsecured(
        Role::Registry,
        TlsFault::UnknownIssuer {
            issuer: "CN=Corp".to_owned(),
        },
    );
    assert_eq!(judge(&refused).pull, Pull::WouldFail);
    refused.walk.roots.changed = vec![CHANGED.to_owned()];
    refused.walk.legs[0].tls.depends_on_changed_roots = true;
    says(
        &only(&refused, "runtime_settings_unknown", Critical),
        &[CHANGED, "Restart containerd"],
    );
    assert_eq!(judge(&refused).pull, Pull::Unknown);
}

#[test]
fn proxies_that_were_taken_away_leave_the_pull_open() {
    let mut evidence = healthy();
    evidence.proxies.changed = vec!["proxy.conf was changed".to_owned()];
    let finding = only(&evidence, "runtime_settings_unknown", Critical);
    says(&finding, &["no proxy is set now", "proxy.conf was changed"]);
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
}

#[test]
fn a_node_without_roots_fails_where_its_roots_are_seen() {
    let mut evidence = healthy().unsecured(Role::Registry, TlsFault::NoRoots);
    evidence.vantage.not_observed = vec![NotObserved::NodeRoots];
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
    evidence.vantage.not_observed = Vec::new();
    assert_eq!(judge(&evidence).pull, Pull::WouldFail);
}

// ---- one of several ------------------------------------------------------------------------------

/// A registry with three addresses, dialed in this order; TLS with the second and third ended like this.
fn of_three(own: Option<TlsFault>, others: [Option<TlsFault>; 2]) -> Evidence {
    let mut evidence = healthy();
    if let Some(fault) = own {
        evidence = evidence.unsecured(Role::Registry, fault);
    }
    let addresses = ["203.0.113.9", "203.0.113.10", "203.0.113.11"];
    let leg = evidence.leg_mut(Role::Registry);
    leg.resolve = resolved(REGISTRY, &addresses);
    leg.connect = dialed(addresses.map(|address| dial(address, None)).into());
    let trials = addresses[1..].iter().zip(others);
    let trials = trials.map(|(address, fault)| AddressTrial {
        at: now(),
        to: SocketAddr::new(address.parse().unwrap(), 443),
        tls: Tls {
            chain: secured(REGISTRY).chain,
            outcome: match fault {
                Some(fault) => failed(fault),
                None => secured(REGISTRY).outcome,
            },
            ..Tls::default()
        },
    });
    leg.other_addresses = trials.collect();
    evidence
}

fn foreign() -> TlsFault {
    TlsFault::NameMismatch {
        expected: REGISTRY.to_owned(),
        presented: vec!["shop.example.org".to_owned()],
    }
}

#[test]
fn tls_that_fails_at_a_part_of_the_addresses_is_a_matter_of_these() {
    quiet(&of_three(None, [None, None]));
    let later = only(
        &of_three(None, [None, Some(foreign())]),
        "tls_name",
        Warning,
    );
    says(
        &later,
        &[
            "1 of the 3 addresses",
            "now 203.0.113.9",
            "203.0.113.11:443: ",
            "about 1 of 3",
        ],
    );
    let first = only(
        &of_three(Some(foreign()), [None, None]),
        "tls_name",
        Critical,
    );
    says(
        &first,
        &[
            "succeeds at 203.0.113.10, 203.0.113.11",
            "Fix TLS at 203.0.113.9",
        ],
    );
    assert!(!first.hint.contains("image reference"));
    let two = only(
        &of_three(None, [Some(foreign()), Some(foreign())]),
        "tls_name",
        Warning,
    );
    says(
        &two,
        &[
            "2 of the 3",
            "203.0.113.10:443",
            "203.0.113.11:443",
            "remove them",
        ],
    );
    // All alike: the certificate itself.
    let all = only(
        &of_three(Some(foreign()), [Some(foreign()), Some(foreign())]),
        "tls_name",
        Critical,
    );
    says(&all, &["image reference"]);
    // Two causes are two findings.
    let hang = Some(TlsFault::Timeout { received: Bytes(0) });
    let both = judge(&of_three(None, [hang, Some(foreign())])).findings;
    assert_eq!(both.len(), 2, "{both:?}");
    // What can't be judged here shows nothing.
    let unjudged = TlsFault::Undecided {
        reason: "a rule that differs".to_owned(),
    };
    quiet(&of_three(None, [Some(unjudged), None]));
}

#[test]
fn an_address_of_a_hosts_file_keeps_its_place_and_answers_that_rotate_give_a_share() {
    let mut evidence = of_three(None, [None, Some(foreign())]);
    let leg = evidence.leg_mut(Role::Registry);
    if let Step::Done { value, .. } = &mut leg.resolve.outcome {
        value.source = ResolutionSource::HostsFile;
    }
    let finding = only(&evidence, "tls_name", Warning);
    says(
        &finding,
        &["by the hosts file, a pull always dials 203.0.113.9 first"],
    );
    let mut evidence = of_three(None, [None, Some(foreign())]);
    let queries = &mut evidence.leg_mut(Role::Registry).resolve.queries;
    let mut again = queries[0].clone();
    if let Step::Done { value, .. } = &mut again.outcome {
        value.records.rotate_left(1);
    }
    queries.push(again);
    says(
        &only(&evidence, "tls_name", Warning),
        &["the name servers rotate the addresses"],
    );
}

#[test]
fn a_connection_that_came_about_after_lost_packets_is_reported_and_a_long_way_is_not() {
    let with = |syns: u32, in_tls: u32, rtt: u64, took: u64| {
        let mut evidence = healthy();
        let leg = evidence.leg_mut(Role::Registry);
        let Step::Done {
            value,
            took: of_dial,
        } = &mut leg.connect.attempts[0].outcome
        else {
            panic!("it is connected");
        };
        value.syn_retransmits = Some(syns);
        // After a SYN that was repeated, there may be no round trip of the handshake.
        value.rtt = (syns == 0).then(|| ms(rtt));
        *of_dial = ms(took);
        leg.tls.retransmits = Some(in_tls);
        leg.transport = Some(Transport {
            min_rtt: Some(ms(rtt)),
            send_mss: None,
            receive_mss: None,
            path_mtu: None,
            retransmits: None,
        });
        evidence
    };
    quiet(&with(0, 0, 20, 20));
    // The kernel guesses now and then, where an acknowledgement is late.
    quiet(&with(0, 1, 20, 20));
    let one = only(&with(1, 0, 20, 1020), "connect_loss", Warning);
    says(&one, &["the SYN was sent 2 times", "1.0 s"]);
    assert_eq!(one.confidence, Confidence::Low);
    let more = only(&with(2, 0, 20, 3020), "connect_loss", Warning);
    says(&more, &["the SYN was sent 3 times"]);
    assert_eq!(more.confidence, Confidence::Medium);
    says(
        &only(&with(0, 3, 20, 20), "connect_loss", Warning),
        &["sent again 3 times during the TLS handshake"],
    );
    // A round trip over a second: the kernel repeats a SYN that was not lost.
    quiet(&with(1, 0, 1300, 1300));
}

/// The kubelet tries each Secret of a pod: the one that could not be read may be the one that is accepted.
#[test]
fn a_rejected_login_decides_nothing_beside_a_secret_that_could_not_be_read() {
    let beside = |problem: Option<SourceProblem>| {
        let rejected = TokenFault::Rejected {
            fault: status(401, None, true),
        };
        let none = Step::Skipped {
            reason: Skip::Blocked {
                role: Role::Token,
                phase: Phase::Token,
            },
        };
        let login = credential(REGISTRY);
        let mut evidence = healthy().refused(Some(login), failed(rejected), none);
        evidence.keyring.sources.push(SourceEvidence {
            at_usual_path: false,
            source: secret("other"),
            keys: 0,
            server_keys: Vec::new(),
            problem,
            lint: Vec::new(),
            expiries: Vec::new(),
        });
        crate::diagnose::diagnose(&evidence)
    };
    let unread = || SourceProblem::Unread {
        reason: "RBAC must allow it".to_owned(),
    };
    let verdict = beside(Some(unread()));
    assert_eq!(verdict.pull, Pull::Unknown, "{verdict:#?}");
    let worst = &verdict.findings[0];
    assert_eq!(worst.cause.code(), "auth_bad_cred");
    assert_eq!(worst.confidence, Confidence::Medium);
    says(worst, &["RBAC must allow it; the kubelet tries it as well"]);
    assert_eq!(beside(None).pull, Pull::WouldFail);
    let wrong_type = SourceProblem::WrongType {
        found: "Opaque".to_owned(),
    };
    assert_eq!(beside(Some(wrong_type)).pull, Pull::WouldFail);
}
