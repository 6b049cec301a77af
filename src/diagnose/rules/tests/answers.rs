//! Responses of registries, and what they mean for the pull.

use super::*;
use crate::diagnose::fixture::endpoint;
use crate::model::evidence::LayerRead;

fn at_blob(role: Role, fault: HttpFault) -> Evidence {
    let mut evidence = healthy().no_blob(fault);
    if role == Role::Registry {
        evidence.walk.legs.truncate(2);
    }
    evidence
}

#[test]
fn a_401_without_a_challenge_says_nothing_of_the_password() {
    let bare = status(401, None, false);
    let asked_by_nobody = healthy().refused(
        Some(credential(REGISTRY)),
        Step::Skipped {
            reason: Skip::NotNeeded,
        },
        failed(bare.clone()),
    );
    // A saved report of an earlier version records a missing challenge as a challenge.
    let mut older = asked_by_nobody.clone();
    older.walk.attempts[0].challenge = Some(Challenge::Anonymous);
    for evidence in [
        older,
        asked_by_nobody.clone(),
        healthy().no_manifest(ManifestFault::Http {
            fault: bare.clone(),
        }),
        at_blob(Role::Registry, bare),
    ] {
        says(
            &only(&evidence, "auth_bad_challenge", Critical),
            &["401", "without a WWW-Authenticate"],
        );
    }
}

#[test]
fn a_bare_401_to_a_token_is_a_refusal() {
    let mut bare = status(401, None, false);
    if let HttpFault::Status { authorized, .. } = &mut bare {
        *authorized = true;
    }
    let fault = bare.clone();
    let evidence = healthy().no_manifest(ManifestFault::Http { fault });
    only(&evidence, "auth_denied", Critical);
    only(&at_blob(Role::Registry, bare), "auth_denied", Critical);
}

#[test]
fn a_header_of_hosts_toml_that_is_refused_is_reported_as_that() {
    let mut evidence = healthy().no_manifest(ManifestFault::Http {
        fault: status(401, None, false),
    });
    evidence.walk.host.headers = vec!["Authorization".to_owned()];
    says(
        &only(&evidence, "auth_bad_cred", Critical),
        &["header.Authorization"],
    );
}

#[test]
fn a_layer_that_the_registry_itself_refuses_is_no_matter_of_the_storage() {
    let refused = || status(401, None, true);
    says(
        &only(&at_blob(Role::Registry, refused()), "auth_denied", Critical),
        &["right to pull"],
    );
    only(&at_blob(Role::Blob, refused()), "blob_denied", Critical);
    // Nobody has a right that could be too small.
    let mut anonymous = at_blob(Role::Registry, refused());
    anonymous.keyring = KeyringEvidence::default();
    anonymous.walk.attempts = vec![accepted(None)];
    only(&anonymous, "auth_no_cred", Critical);
}

#[test]
fn a_token_that_a_head_is_refused_with_and_a_get_is_not_is_no_refused_head() {
    let refused = |by_another_token| {
        let head = failed(status(401, None, true));
        let token = grant(Access::Pull);
        let mut evidence = healthy().refused(Some(credential(REGISTRY)), token, head);
        evidence.walk.attempts[0].get_succeeded = true;
        evidence.walk.attempts[0].get_used_other_token = by_another_token;
        evidence
    };
    let finding = only(&refused(true), "auth_denied", Critical);
    assert_eq!(finding.confidence, Confidence::Medium);
    says(&finding, &["HEAD", "with another token"]);
    only(&refused(false), "head_refused", Critical);
}

#[test]
fn a_digest_of_encoded_bytes_is_one_that_no_registry_has() {
    let not_found = ManifestFault::Http {
        fault: status(404, Some("MANIFEST_UNKNOWN"), false),
    };
    let mut evidence = healthy().no_manifest(not_found);
    only(&evidence, "manifest_unknown", Critical);
    if let Step::Done { value: head, .. } = &mut evidence.walk.attempts[0].head {
        head.digest_of_encoded = Some("zstd".to_owned());
    }
    says(
        &only(&evidence, "content_encoding", Critical),
        &["Content-Encoding zstd", "MANIFEST_UNKNOWN"],
    );
}

#[test]
fn what_is_found_below_blobs_fails_by_what_was_said_of_manifests() {
    let mut evidence = healthy().no_manifest(ManifestFault::Unsupported {
        media_type: "application/octet-stream".to_owned(),
    });
    only(&evidence, "manifest_unsupported", Critical);
    let mut first = accepted(None);
    first.head = failed(status(502, None, false));
    evidence.walk.attempts.insert(0, first);
    // Of another credential of the same pull, below /manifests/ too.
    only(&evidence, "manifest_unsupported", Critical);
    evidence.walk.attempts[1].via_blobs_endpoint = true;
    says(
        &only(&evidence, "registry_5xx", Critical),
        &["502", "/blobs/", "application/octet-stream"],
    );
}

#[test]
fn a_400_in_plain_http_may_be_a_port_of_tls() {
    let token = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let mut evidence = healthy().refused(None, token, failed(status(400, None, false)));
    evidence.leg_mut(Role::Registry).endpoint.scheme = Scheme::Http;
    evidence.walk.ping = failed(status(400, None, false));
    let finding = only(&evidence, "request_refused", Critical);
    assert_eq!(finding.confidence, Confidence::Medium);
    says(&finding, &["plain http", "hosts.toml"]);
}

#[test]
fn the_ping_of_a_host_that_was_asked_for_content_alone_says_nothing() {
    let mut evidence = healthy().no_blob(status(404, None, false));
    evidence.walk.attempts.clear();
    evidence.walk.resolved_by_other_host = true;
    evidence.walk.ping = failed(status(404, None, false));
    only(&evidence, "blob_unknown", Critical);
}

#[test]
fn a_realm_without_a_token_service_is_the_challenge_s_fault() {
    let evidence = healthy().refused(
        None,
        failed(TokenFault::Http {
            fault: status(404, None, false),
        }),
        no_head(),
    );
    says(
        &only(&evidence, "auth_bad_challenge", Critical),
        &["realm", "404"],
    );
}

#[test]
fn an_alert_after_the_handshake_is_reported_as_one_within() {
    let alert = HttpFault::TlsAlert {
        alert: 116,
        name: "certificate_required".to_owned(),
    };
    let evidence = healthy().refused(None, grant(Access::Pull), failed(alert));
    says(
        &only(&evidence, "tls_alert", Critical),
        &["certificate_required (116)", "`client`"],
    );
}

#[test]
fn a_media_type_that_a_release_gave_up_is_reported_as_that() {
    let fault = HttpFault::Unsupported {
        media_type: "application/vnd.docker.distribution.manifest.v1+prettyjws".to_owned(),
    };
    let evidence = healthy().refused(None, grant(Access::Pull), failed(fault));
    says(
        &only(&evidence, "manifest_unsupported", Critical),
        &["v1+prettyjws", "Push"],
    );
}

#[test]
fn a_mirror_from_which_a_login_was_withheld_is_left_open() {
    let mut evidence = healthy();
    let mut mirror = healthy().walk;
    mirror.host.kind = HostKind::Mirror;
    mirror.host.endpoint = endpoint("mirror.example.com");
    mirror.resolved_by_other_host = true;
    let withheld = TokenFault::RealmUntrusted {
        realm: endpoint(AUTH),
        reason: Distrust::PlainHttp,
    };
    let refused = healthy().refused(Some(credential(REGISTRY)), failed(withheld), no_head());
    mirror.attempts = refused.walk.attempts;
    (mirror.manifest, mirror.blob) = (refused.walk.manifest, refused.walk.blob);
    mirror.legs.truncate(2);
    evidence.others = vec![mirror];
    let verdict = judge(&evidence);
    assert_eq!(verdict.pull, Pull::Unknown, "{verdict:#?}");
    assert_eq!(codes(&verdict.findings)[0], "realm_untrusted");
}

/// The storage answers this, with a code and a message.
fn storage_says(number: u16, code: Option<&str>, message: &str) -> Finding {
    only(
        &storage_that_says(number, code, message),
        "blob_denied",
        Critical,
    )
}

fn storage_that_says(number: u16, code: Option<&str>, message: &str) -> Evidence {
    let mut fault = status(number, code, false);
    if let HttpFault::Status { message: field, .. } = &mut fault {
        *field = Some(message.to_owned());
    }
    at_blob(Role::Blob, fault)
}

#[test]
fn a_storage_s_error_code_decides_the_fix() {
    let expired = "Request has expired";
    for (number, code, message, text) in [
        (
            403,
            "AccessDenied",
            expired,
            "let no cache in front of the registry keep its redirects",
        ),
        (
            403,
            "RequestTimeTooSkewed",
            "",
            "Fix the clock (NTP) of the registry",
        ),
        (404, "NoSuchBucket", "", "Correct the bucket"),
        (403, "InvalidAccessKeyId", "", "a valid access key"),
        (403, "SignatureDoesNotMatch", "", "changes the Host header"),
        (
            404,
            "ContainerNotFound",
            "",
            "Correct the bucket (container)",
        ),
        (
            403,
            "AuthorizationFailure",
            "",
            "Allow this client's network",
        ),
        (403, "InArrearOrInsufficientBalance", "", "in arrears"),
    ] {
        let finding = storage_says(number, Some(code), message);
        says(&finding, &[code, text]);
        assert_eq!(finding.confidence, Confidence::High, "{code}");
    }
    // Which rule refused is not in the answer.
    let finding = storage_says(403, Some("AccessDenied"), "Access Denied");
    assert_eq!(finding.confidence, Confidence::Medium);
    says(&finding, &["VPC endpoint", "bucket's own policy"]);
    // Nor who refused.
    let finding = storage_says(403, None, "Forbidden");
    assert_eq!(finding.confidence, Confidence::Medium);
    says(&finding, &["no error code of a storage"]);
    // The registry's clock is wrong, and the storage shows it.
    let mut skewed = storage_that_says(403, Some("AccessDenied"), expired);
    skewed.leg_mut(Role::Registry).clock = clock(-7200);
    let verdict = judge(&skewed);
    assert_eq!(codes(&verdict.findings), ["blob_denied", "clock_skew"]);
    says(
        &verdict.findings[0],
        &["7200 s apart", "Fix the clock (NTP) of the registry"],
    );
}

#[test]
fn a_limit_is_that_of_the_server_that_says_so() {
    let mut limited = status(429, Some("TOOMANYREQUESTS"), false);
    let at_token = |fault: HttpFault| {
        let token = failed(TokenFault::Http { fault });
        only(&with_secret(token, no_head()), "rate_limited", Critical)
    };
    let finding = at_token(limited.clone());
    assert_eq!(finding.leg, Some(Role::Token));
    says(&finding, &["limits logins and tokens, not pulls"]);
    if let HttpFault::Status { message, .. } = &mut limited {
        *message = Some("too many failed login attempts for username or IP address".to_owned());
    }
    says(&at_token(limited), &["logs in with a wrong password"]);

    let limited = || status(429, None, false);
    let with = with_secret(grant(Access::Pull), failed(limited()));
    says(
        &only(&with, "rate_limited", Critical),
        &["an account that has a higher limit"],
    );
    let without = healthy().refused(None, grant(Access::Pull), failed(limited()));
    says(
        &only(&without, "rate_limited", Critical),
        &["all clients behind one address"],
    );
    says(
        &only(&at_blob(Role::Blob, limited()), "rate_limited", Critical),
        &["`max_concurrent_downloads = 1`"],
    );
    says(
        &only(
            &at_blob(Role::Blob, status(503, Some("SlowDown"), false)),
            "registry_5xx",
            Critical,
        ),
        &["limits the requests"],
    );
}

#[test]
fn an_index_of_attestations_alone_has_no_image() {
    let of = |available: &[&str]| {
        let available = available.iter().map(|name| (*name).to_owned()).collect();
        let fault = ManifestFault::NoPlatform {
            available,
            left_out: 0,
        };
        only(&healthy().no_manifest(fault), "no_platform", Critical)
    };
    let finding = of(&["unknown/unknown"]);
    says(&finding, &["the index has only attestations", "clean-up"]);
    says(&of(&[]), &["the index names no platform"]);
    says(&of(&["linux/arm64"]), &["the index has linux/arm64"]);
}

#[test]
fn a_layer_that_is_refused_only_beside_others_meets_a_limit() {
    let refused = |number, refused_beside, served_alone| {
        let fault = status(number, None, false);
        let mut evidence = at_blob(Role::Blob, fault.clone());
        evidence.walk.layers = vec![LayerRead {
            digest: "sha256:bb".to_owned(),
            outcome: failed(fault),
            refused_beside,
            served_alone,
        }];
        evidence
    };
    let lower = "`max_concurrent_downloads = 1`";
    for (number, code) in [
        (503, "registry_5xx"),
        (429, "rate_limited"),
        (403, "blob_denied"),
    ] {
        let finding = only(&refused(number, 2, true), code, Critical);
        says(
            &finding,
            &[
                "2 other layers",
                "requested again after that, this one was served",
                lower,
                BLOBS,
            ],
        );
        let repeats = finding
            .evidence
            .iter()
            .any(|fact| fact.contains("five times"));
        assert_eq!(repeats, number == 429);
        // Refused again, or not tried: the limit is a guess.
        let finding = only(&refused(number, 1, false), code, Critical);
        says(&finding, &["another layer at that time: it may limit"]);
        let finding = only(&refused(number, 0, false), code, Critical);
        assert!(
            !finding
                .evidence
                .iter()
                .any(|fact| fact.contains("may limit"))
        );
    }
}

/// This status with this message.
fn worded(number: u16, code: Option<&str>, message: &str) -> HttpFault {
    let mut fault = status(number, code, number == 401);
    if let HttpFault::Status { message: field, .. } = &mut fault {
        *field = Some(message.to_owned());
    }
    fault
}

#[test]
fn the_registry_s_words_decide_whether_the_login_or_a_right_is_at_fault() {
    let basic = || Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let denied = Some("DENIED");
    for (number, code, message, cause, text) in [
        (
            403,
            denied,
            "Your authorization token has expired. Reauthenticate and try again.",
            "auth_bad_cred",
            "it has expired",
        ),
        (
            403,
            denied,
            "HTTP Basic: Access denied. The provided password or token is incorrect",
            "auth_bad_cred",
            "Log in once",
        ),
        (
            401,
            Some("UNAUTHORIZED"),
            "Your account is temporarily locked",
            "auth_bad_cred",
            "Unlock the user",
        ),
        (
            403,
            denied,
            "User: x is not authorized to perform: ecr:BatchGetImage",
            "auth_denied",
            "the right to pull",
        ),
        (
            401,
            Some("UNAUTHORIZED"),
            "unauthorized to access repository: team/app, action: pull",
            "auth_denied",
            "the right to pull",
        ),
        (
            403,
            denied,
            "requested access to the resource is denied",
            "auth_denied",
            "the right to pull",
        ),
        (
            401,
            Some("UNAUTHORIZED"),
            "authentication required",
            "auth_bad_cred",
            "Log in once",
        ),
    ] {
        let fault = worded(number, code, message);
        let finding = only(&with_secret(basic(), failed(fault)), cause, Critical);
        says(&finding, &[text]);
    }
    // A token that the service issued, and that the registry calls expired, is no expired password.
    let late = worded(401, Some("UNAUTHORIZED"), "token has expired");
    let evidence = with_secret(grant(Access::Pull), failed(late));
    only(&evidence, "auth_denied", Critical);
    // A token service that answers 403 need not mean the password.
    let fault = |message| TokenFault::Rejected {
        fault: worded(403, denied, message),
    };
    let at_token = |message| {
        let evidence = with_secret(failed(fault(message)), no_head());
        only(&evidence, "auth_bad_cred", Critical)
    };
    says(&at_token("access forbidden"), &["whether it may pull"]);
    says(&at_token("user account is disabled"), &["Unlock the user"]);
}

#[test]
fn an_answer_without_a_code_may_be_from_a_proxy() {
    let page = || worded(404, None, "a page titled '404 Not Found'");
    for role in [Role::Blob, Role::Registry] {
        let finding = only(&at_blob(role, page()), "blob_unknown", Critical);
        assert_eq!(finding.confidence, Confidence::Medium);
        says(&finding, &["Check what answers at that address first"]);
    }
    let known = at_blob(Role::Blob, status(404, Some("NoSuchKey"), false));
    let finding = only(&known, "blob_unknown", Critical);
    assert_eq!(finding.confidence, Confidence::High);
    says(&finding, &["Push the image again", "rootdirectory"]);
}

#[test]
fn a_400_of_a_storage_below_the_registry_s_name_is_the_token_s_fault() {
    let mut evidence = at_blob(Role::Blob, status(400, Some("InvalidRequest"), false));
    let finding = only(&evidence, "blob_denied", Critical);
    assert!(!finding.hint.contains("token"), "{}", finding.hint);
    evidence.leg_mut(Role::Blob).endpoint = endpoint("blobs.registry.example.com");
    let finding = judge(&evidence).findings.remove(0);
    says(&finding, &["sends the registry's token"]);
}

#[test]
fn an_account_does_not_help_where_no_login_is_required() {
    let skipped = || Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let mut fault = status(429, None, false);
    if let HttpFault::Status { retry_after, .. } = &mut fault {
        *retry_after = Some("60".to_owned());
    }
    let mut evidence = healthy().refused(None, skipped(), failed(fault));
    evidence.walk.attempts[0].challenge = None;
    if let Step::Done { value: ping, .. } = &mut evidence.walk.ping {
        ping.status = 200;
        ping.challenge = Challenge::Anonymous;
    }
    let finding = only(&evidence, "rate_limited", Critical);
    says(
        &finding,
        &["an account does not help", "a retry after 60 s"],
    );
}

#[test]
fn a_filter_in_front_of_a_private_address_sees_no_elastic_ip() {
    let skipped = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let mut evidence = healthy().refused(None, skipped, failed(status(403, None, false)));
    let hint = |evidence: &Evidence| only(evidence, "fw_403", Critical).hint;
    evidence.leg_mut(Role::Registry).connect = dialed(vec![dial("45.60.70.20", None)]);
    assert!(hint(&evidence).contains("Elastic IP"));
    evidence.leg_mut(Role::Registry).connect = dialed(vec![dial("10.0.3.9", None)]);
    assert!(!hint(&evidence).contains("Elastic IP"));
    assert!(hint(&evidence).contains("10.0.3.9"));
}
