//! Which certificate of a chain is at fault, and whose it is to mend.

use super::*;
use crate::model::connect::{BadLink, ExpiredRoot, LinkProblem};

fn link(problem: LinkProblem) -> BadLink {
    let mut certificate = certificate("Issuing CA", days_from_now(-900), days_from_now(900));
    certificate.sha256 = "cd".repeat(32);
    BadLink {
        certificate,
        sent: Some(1),
        source: None,
        problem,
        reason: "the reason".to_owned(),
        expired_root: None,
    }
}

fn root(problem: LinkProblem, source: &str) -> BadLink {
    BadLink {
        sent: None,
        source: Some(source.to_owned()),
        ..link(problem)
    }
}

fn broken(fault: TlsFault, link: BadLink) -> Evidence {
    let mut evidence = healthy().unsecured(Role::Registry, fault);
    let tls = &mut evidence.walk.legs[0].tls;
    tls.chain = vec![certificate(REGISTRY, days_from_now(-30), days_from_now(60))];
    tls.bad_link = Some(link);
    evidence
}

fn bad() -> TlsFault {
    TlsFault::BadCertificate {
        reason: "CN=Issuing CA: the reason".to_owned(),
    }
}

#[test]
fn each_link_at_fault_has_its_cause_and_its_owner() {
    let of_bundle = "/etc/ssl/certs/ca-certificates.crt";
    let print = "cd".repeat(32);
    let mut not_sent = link(LinkProblem::IssuerUnknown);
    not_sent.sent = Some(0);
    not_sent.certificate.issuer_at = vec!["http://pki.test/issuing.crt".to_owned()];
    let mut crossed = link(LinkProblem::Expired);
    crossed.expired_root = Some(ExpiredRoot {
        certificate: certificate("Old Root", days_from_now(-900), days_from_now(-1)),
        source: of_bundle.to_owned(),
    });
    for (fault, link, code, texts) in [
        (
            unknown_issuer(),
            not_sent,
            "tls_intermediate",
            &[
                "http://pki.test/issuing.crt",
                "Have the owner of 'registry.example.com' configure the server to send",
            ][..],
        ),
        (
            unknown_issuer(),
            link(LinkProblem::OtherKey),
            "tls_intermediate",
            &[&print, "number 2 of those sent", "another key"],
        ),
        (
            unknown_issuer(),
            root(LinkProblem::OtherKey, "/etc/pullpath/ca.pem"),
            "tls_unknown_ca",
            &[&print, "/etc/pullpath/ca.pem", "recreated"],
        ),
        (
            expired(),
            link(LinkProblem::Expired),
            "tls_expired",
            &[
                "the intermediate 'CN=Issuing CA' (number 2",
                "its own certificate is not at fault",
            ],
        ),
        (
            expired(),
            root(LinkProblem::Expired, of_bundle),
            "tls_root_expired",
            &[
                &print,
                "Update the bundle of roots in /etc/ssl",
                "need not be renewed",
            ],
        ),
        (
            expired(),
            root(LinkProblem::Expired, "/etc/pullpath/ca.pem"),
            "tls_root_expired",
            &["put it into /etc/pullpath/ca.pem"],
        ),
        (
            expired(),
            crossed,
            "tls_root_expired",
            &["current root 'CN=Issuing CA'", "old root 'CN=Old Root'"],
        ),
        (
            bad(),
            root(LinkProblem::MayNotSign, of_bundle),
            "tls_ca_unfit",
            &[
                "owner of the CA 'CN=Issuing CA'",
                "replace it in /etc/ssl",
                "the reason",
            ],
        ),
        (
            bad(),
            link(LinkProblem::MayNotSign),
            "tls_ca_unfit",
            &["have 'registry.example.com' send the new one"],
        ),
        (
            bad(),
            link(LinkProblem::Other),
            "tls_bad_certificate",
            &["the reason"],
        ),
    ] {
        let evidence = broken(fault, link);
        says(&only(&evidence, code, Critical), texts);
        assert_eq!(judge(&evidence).pull, Pull::WouldFail, "{code}");
    }
}

#[test]
fn an_authority_that_was_not_sent_is_not_to_be_compared_with_the_server() {
    let mut link = link(LinkProblem::IssuerUnknown);
    link.sent = Some(0);
    let finding = only(
        &broken(unknown_issuer(), link.clone()),
        "tls_unknown_ca",
        Critical,
    );
    says(
        &finding,
        &["verify that it is 'CN=Example CA'", "nothing to compare"],
    );
    link.certificate
        .subject
        .clone_from(&link.certificate.issuer);
    let finding = only(&broken(unknown_issuer(), link), "tls_unknown_ca", Critical);
    says(
        &finding,
        &[&format!("presented one (SHA-256 {})", "cd".repeat(32))],
    );
}

#[test]
fn the_default_certificate_of_an_ingress_is_named_and_never_to_be_trusted() {
    for fault in [
        unknown_issuer(),
        TlsFault::NameMismatch {
            expected: REGISTRY.to_owned(),
            presented: vec!["ingress.local".to_owned()],
        },
    ] {
        let mut evidence = healthy().unsecured(Role::Registry, fault);
        evidence.walk.legs[0].tls.chain = vec![certificate(
            "Kubernetes Ingress Controller Fake Certificate,O=Acme Co",
            days_from_now(-30),
            days_from_now(60),
        )];
        let finding = only(&evidence, "tls_default_certificate", Critical);
        says(
            &finding,
            &["Ingress of 'registry.example.com'", "never trust"],
        );
    }
}

#[test]
fn a_server_that_is_trusted_itself_breaks_at_its_renewal() {
    let mut evidence = healthy();
    evidence.walk.legs[0].tls.leaf_trusted = Some("/etc/pullpath/ca.pem".to_owned());
    let finding = only(&evidence, "tls_leaf_trusted", Warning);
    says(
        &finding,
        &[
            "/etc/pullpath/ca.pem",
            "the certificate of its CA 'CN=Example CA'",
        ],
    );
}

#[test]
fn what_is_not_known_of_tls_leaves_the_pull_undecided() {
    let undecided = TlsFault::Undecided {
        reason: "builds differ".to_owned(),
    };
    let alert = |alert| TlsFault::Alert {
        alert,
        name: "handshake_failure".to_owned(),
    };
    for (fault, text) in [
        (undecided, "builds differ"),
        (alert(40), "AES-CBC"),
        (alert(71), "ECDHE and AES-GCM"),
    ] {
        let evidence = healthy().unsecured(Role::Registry, fault);
        says(
            &only(&evidence, "tls_undecided", Critical),
            &[text, "crictl pull"],
        );
        assert_eq!(judge(&evidence).pull, Pull::Unknown);
    }
}

#[test]
fn a_name_of_the_certificate_goes_where_the_host_of_the_leg_is_written() {
    for (role, place) in [
        (Role::Registry, "the image reference"),
        (Role::Token, "the realm that the registry names"),
        (
            Role::Blob,
            "the storage's address in the registry's configuration",
        ),
    ] {
        let evidence = healthy().unsecured(
            role,
            TlsFault::NameMismatch {
                expected: "x".to_owned(),
                presented: vec!["other.example.com".to_owned()],
            },
        );
        let finding = only(&evidence, "tls_name", Critical);
        says(&finding, &[place]);
        let is_of_image = finding.hint.contains("image");
        assert_eq!(is_of_image, role == Role::Registry, "{}", finding.hint);
    }
}

#[test]
fn an_unknown_signer_is_described_by_what_it_is() {
    let with = |host: &str, subject: &str, issuer: &str| {
        let mut evidence = healthy();
        *evidence.leg_mut(Role::Registry) = leg(Role::Registry, host, "203.0.113.9");
        let leaf = &mut evidence.leg_mut(Role::Registry).tls.chain[0];
        (leaf.subject, leaf.issuer) = (subject.to_owned(), issuer.to_owned());
        let evidence = evidence.unsecured(Role::Registry, unknown_issuer());
        only(&evidence, "tls_unknown_ca", Critical)
    };
    for (host, subject, issuer, texts) in [
        (
            REGISTRY,
            "CN=a",
            "CN=a",
            [
                "self-signed",
                "replace its certificate with one that your CA signs",
            ],
        ),
        (
            REGISTRY,
            "CN=a",
            "CN=Corp CA",
            ["CN=Corp CA", "Get the CA's certificate from its owner"],
        ),
        (
            REGISTRY,
            "CN=a",
            "O=Zscaler Inc.",
            ["inspects TLS", "from TLS inspection in the proxy"],
        ),
        (
            "quay.io",
            "CN=a",
            "CN=Corp CA",
            ["public registry", "Exempt 'quay.io'"],
        ),
        (
            "quay.io",
            "CN=a",
            "CN=a",
            ["public registry", "Exempt 'quay.io'"],
        ),
        (
            REGISTRY,
            "CN=a",
            "O=Let's Encrypt, CN=R3",
            ["public CA", "Update the bundle of roots"],
        ),
        // The public registries of several clouds.
        (
            "quay.io",
            "CN=a",
            "C=CN, O=TrustAsia Technologies, Inc., CN=TrustAsia RSA DV TLS CA G2",
            ["public CA", "to send its certificate"],
        ),
    ] {
        says(&with(host, subject, issuer), &texts);
    }
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_first_a_matter_of_the_clock() {
    let fault = || TlsFault::NotYetValid {
        not_before: days_from_now(-30),
        local_time: days_from_now(-900),
    };
    let mut evidence = healthy().unsecured(Role::Registry, fault());
    let of = |evidence: &Evidence| only(evidence, "tls_not_yet_valid", Critical);
    let finding = of(&evidence);
    says(&finding, &["First compare the local time"]);
    let behind = "not valid yet either: the clock here is probably behind";
    assert!(!finding.evidence.iter().any(|fact| fact.contains(behind)));
    let ca = certificate("Example CA", days_from_now(-800), days_from_now(900));
    evidence.leg_mut(Role::Registry).tls.chain.push(ca);
    says(&of(&evidence), &[behind]);
}

#[test]
fn a_wildcard_that_covers_too_little_is_named() {
    let of = |expected: &str| {
        let fault = TlsFault::NameMismatch {
            expected: expected.to_owned(),
            presented: vec!["*.example.com".to_owned()],
        };
        let evidence = healthy().unsecured(Role::Registry, fault);
        only(&evidence, "tls_name", Critical).evidence.join("\n")
    };
    assert!(of("a.b.example.com").contains("covers one label only"));
    assert!(!of("registry.test").contains("covers one label only"));
}
