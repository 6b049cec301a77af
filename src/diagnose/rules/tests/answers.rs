//! What registries answer, and what it says of the pull.

use super::*;
use crate::diagnose::fixture::endpoint;

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
    for evidence in [
        asked_by_nobody,
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
fn a_layer_that_the_registry_itself_refuses_is_no_matter_of_the_storage() {
    let refused = || status(401, None, true);
    says(
        &only(&at_blob(Role::Registry, refused()), "auth_denied", Critical),
        &["right to pull"],
    );
    only(&at_blob(Role::Blob, refused()), "blob_denied", Critical);
}

#[test]
fn a_token_that_a_head_is_refused_with_and_a_get_is_not_is_no_refused_head() {
    let refused = |token| {
        let head = failed(status(401, None, true));
        let mut evidence = healthy().refused(Some(credential(REGISTRY)), token, head);
        evidence.walk.attempts[0].served_to_get = true;
        evidence
    };
    let finding = only(&refused(grant(Access::Pull)), "auth_denied", Critical);
    assert_eq!(finding.confidence, Confidence::Medium);
    says(&finding, &["HEAD", "with another token"]);
    let without = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    only(&refused(without), "head_refused", Critical);
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
    says(
        &only(&evidence, "registry_5xx", Critical),
        &["502", "/blobs/", "application/octet-stream"],
    );
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
fn an_alert_after_the_handshake_is_told_as_one_within() {
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
fn a_media_type_that_a_release_gave_up_is_told_as_that() {
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
    mirror.resolved_elsewhere = true;
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
