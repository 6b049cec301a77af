//! Certificates: which one of a chain is at fault, and whose it is to mend.

use super::finding::{at, new};
use super::in_force;
use super::names::is_public_registry;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::model::connect::{BadLink, Certificate, LinkProblem};
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{Phase, TlsFault, instant};

/// What a certificate that is refused means, and what to do; `None` for faults of another kind.
pub(super) fn word(
    evidence: &Evidence,
    leg: &Leg,
    fault: &TlsFault,
    clock_first: &str,
) -> Option<Finding> {
    if leg.tls.depends_on_changed_roots {
        return Some(new(Cause::RuntimeSettingsUnknown).hint(in_force::RESTART));
    }
    let host = &leg.endpoint.host;
    let is_of_chain = matches!(
        fault,
        TlsFault::UnknownIssuer { .. }
            | TlsFault::NameMismatch { .. }
            | TlsFault::Expired { .. }
            | TlsFault::NotYetValid { .. }
    );
    if is_of_chain && let Some(leaf) = leg.tls.chain.first().filter(|leaf| is_default(leaf)) {
        return Some(new(Cause::TlsDefaultCertificate).hint(format!(
            "Give the Ingress of '{host}' a TLS Secret (spec.tls with this host, the Secret in the Ingress's namespace), or correct the one it names; never trust '{}'.",
            leaf.subject
        )));
    }
    let link = leg.tls.bad_link.as_ref();
    Some(match fault {
        TlsFault::NoRoots => new(Cause::TlsNoRoots),
        TlsFault::UnknownIssuer { .. } if evidence.walk.roots.certificates == 0 => {
            new(Cause::TlsNoRoots)
        }
        TlsFault::UnknownIssuer { .. } => unknown_issuer(evidence, leg, link),
        TlsFault::NameMismatch { .. } => new(Cause::TlsName),
        TlsFault::Expired { .. } => expired(leg, link, clock_first),
        TlsFault::NotYetValid { .. } => new(Cause::TlsNotYetValid).hint(format!(
            "{clock_first}If it is right, have {} issued anew: it was made for later.",
            whose_certificate(leg, link)
        )),
        TlsFault::BadCertificate { .. }
            if let Some(link) = link.filter(|link| link.problem == LinkProblem::MayNotSign) =>
        {
            new(Cause::TlsCaUnfit).hint(format!(
                "Have the owner of the authority '{}' issue its certificate anew, so that it may sign this one (basicConstraints CA:TRUE, keyUsage keyCertSign, room in path length and name constraints), and {}.",
                link.certificate.subject,
                match &link.source {
                    Some(source) => format!("replace it in {}", file(source)),
                    None => format!("have '{host}' send that one"),
                }
            ))
        }
        TlsFault::BadCertificate { .. } => new(Cause::TlsBadCertificate),
        TlsFault::Undecided { .. } => new(Cause::TlsUndecided).hint(PULL_ON_THE_NODE),
        _ => return None,
    })
}

pub(super) const PULL_ON_THE_NODE: &str = "Try it on the node: `crictl pull IMAGE` decides it. Name the runtime (`--runtime containerd://VERSION`, as `kubectl get node -o wide` shows it); `go version -m /usr/bin/containerd` shows the build's Go and its defaults of GODEBUG.";

/// Subjects of the certificates that ingress controllers serve where they have none.
fn is_default(leaf: &Certificate) -> bool {
    const DEFAULTS: &[&str] = &[
        "Kubernetes Ingress Controller Fake Certificate",
        "TRAEFIK DEFAULT CERT",
        "NGINXIngressController",
    ];
    DEFAULTS.iter().any(|name| leaf.subject.contains(name))
}

/// Nobody of the issuer's name is there, or one that did not sign.
fn unknown_issuer(evidence: &Evidence, leg: &Leg, link: Option<&BadLink>) -> Finding {
    let authority = leg.endpoint.authority();
    // What is trusted for a registry is trusted for whatever its pulls lead to.
    let registry = evidence.reference.domain();
    let get = |compare: String| {
        new(Cause::TlsUnknownCa).hint(format!(
            "Get the authority's certificate from its owner, {compare}, and add it to the nodes' trust store or to `ca` in certs.d/{registry}/hosts.toml."
        ))
    };
    let missing = |hint: String, confidence| {
        new(Cause::TlsIntermediate)
            .confidence(confidence)
            .hint(hint)
    };
    match link {
        Some(link) if link.problem == LinkProblem::OtherKey => match &link.source {
            Some(source) => new(Cause::TlsUnknownCa).hint(format!(
                "Get the present certificate of '{}' from its owner and put it into {}: the one there (SHA-256 {}) has another key, as of an authority that was made anew.",
                link.certificate.subject,
                file(source),
                link.certificate.sha256
            )),
            None => missing(
                format!(
                    "Have the owner of '{authority}' send the certificate that did sign: the one sent as '{}' (SHA-256 {}) has another key.",
                    link.certificate.subject, link.certificate.sha256
                ),
                Confidence::High,
            ),
        },
        Some(link)
            if !is_self_issued(&link.certificate) && !link.certificate.issuer_at.is_empty() =>
        {
            missing(
                format!(
                    "Have the owner of '{authority}' send the certificate of '{0}' behind its own: {1} has it, says the certificate. If '{0}' is itself a root, get it from its owner and add it to the nodes' trust store instead.",
                    link.certificate.issuer,
                    link.certificate.issuer_at.join(", ")
                ),
                Confidence::Medium,
            )
        }
        _ => match link.map(|link| &link.certificate).or(leg.tls.chain.last()) {
            Some(top) if is_self_issued(top) => get(format!(
                "compare it with what was presented (SHA-256 {})",
                top.sha256
            )),
            Some(top) => get(format!(
                "see that it is '{}' (the server did not send it, so there is nothing to compare it with)",
                top.issuer
            )),
            None => get("see that it is the right one".to_owned()),
        },
    }
}

fn is_self_issued(certificate: &Certificate) -> bool {
    certificate.subject == certificate.issuer
}

fn expired(leg: &Leg, link: Option<&BadLink>, clock_first: &str) -> Finding {
    let of_root = |hint: String| new(Cause::TlsRootExpired).hint(hint);
    match link {
        Some(BadLink {
            certificate: root,
            source: Some(source),
            ..
        }) => of_root(format!(
            "{clock_first}{}: the root '{}' there ended at {} (SHA-256 {}). The certificate of '{}' need not be renewed for that.",
            renew(source, &root.subject),
            root.subject,
            instant(root.not_after),
            root.sha256,
            leg.endpoint.host
        )),
        Some(BadLink {
            certificate,
            expired_root: Some(root),
            ..
        }) => of_root(format!(
            "{clock_first}{}: by its old root '{}', which ended at {}, no certificate is trusted any more. The certificate of '{}' need not be renewed for that.",
            renew(&root.source, &certificate.subject),
            root.certificate.subject,
            instant(root.certificate.not_after),
            leg.endpoint.host
        )),
        _ => new(Cause::TlsExpired).hint(format!(
            "{clock_first}Have {} renewed.",
            whose_certificate(leg, link)
        )),
    }
}

/// How the roots of a file come to have an authority's present certificate.
fn renew(source: &str, authority: &str) -> String {
    if is_system(source) {
        format!(
            "Update the bundle of roots in {source} (Debian: package ca-certificates), so that it has the present root '{authority}'"
        )
    } else {
        format!(
            "Get the present certificate of '{authority}' from its owner, and put it into {source}"
        )
    }
}

/// The certificate at fault, for a sentence.
fn whose_certificate(leg: &Leg, link: Option<&BadLink>) -> String {
    let host = &leg.endpoint.host;
    match link {
        Some(BadLink {
            certificate,
            source: Some(source),
            ..
        }) => format!("the root '{}' in {source}", certificate.subject),
        Some(BadLink {
            certificate,
            sent: Some(place @ 1..),
            ..
        }) => format!(
            "the intermediate '{}' (number {} of what '{host}' sends; its own certificate is not at fault)",
            certificate.subject,
            place + 1
        ),
        _ => format!("the certificate of '{host}'"),
    }
}

/// A file, and what else holds what is in it.
fn file(source: &str) -> String {
    if is_system(source) {
        format!("{source} (the system's roots)")
    } else {
        source.to_owned()
    }
}

fn is_system(source: &str) -> bool {
    ["/etc/ssl/", "/etc/pki/", "the node's "]
        .iter()
        .any(|place| source.starts_with(place))
}

/// What else the chain says of the certificate at fault.
pub(super) fn facts(leg: &Leg) -> Vec<String> {
    let is_plain = |link: &&BadLink| {
        let is_said = matches!(
            link.problem,
            LinkProblem::IssuerUnknown | LinkProblem::Expired | LinkProblem::NotYetValid
        );
        link.sent == Some(0) && is_said
    };
    let Some(link) = leg.tls.bad_link.as_ref().filter(|link| !is_plain(link)) else {
        return Vec::new();
    };
    let whose = match (&link.source, link.sent) {
        (Some(source), _) => format!("a root from {source}"),
        (None, Some(0)) => "the server's own".to_owned(),
        (None, place) => format!("number {} of those sent", place.unwrap_or_default() + 1),
    };
    let certificate = &link.certificate;
    let mut facts = vec![format!(
        "the link at fault is '{}' ({whose}; {} to {}; SHA-256 {}): {}",
        certificate.subject,
        instant(certificate.not_before),
        instant(certificate.not_after),
        certificate.sha256,
        link.reason
    )];
    if let Some(root) = &link.expired_root {
        facts.push(format!(
            "it leads to the root '{}' of {}, which ended at {}; '{}' may be a root of its own in a newer bundle",
            root.certificate.subject,
            root.source,
            instant(root.certificate.not_after),
            certificate.subject
        ));
    }
    facts
}

/// Authorities that public registries have their certificates from, as their issuers' names have it.
const PUBLIC_AUTHORITIES: &[&str] = &[
    "Amazon",
    "DigiCert",
    "GlobalSign",
    "Google Trust Services",
    "Internet Security Research Group",
    "Let's Encrypt",
    "Microsoft",
    "Sectigo",
];

/// What the presented chain says of who signed it, where that changes what to do.
pub(super) fn signed_by(leg: &Leg) -> Option<String> {
    let leaf = leg.tls.chain.first()?;
    let issuer = &leg.tls.chain.last()?.issuer;
    if is_self_issued(leaf) {
        return Some("the certificate is its own issuer (self-signed)".to_owned());
    }
    if PUBLIC_AUTHORITIES.iter().any(|name| issuer.contains(name)) {
        return Some(format!(
            "'{issuer}' has the name of a public authority: an old bundle of roots here, an intermediate that the server does not send, or somebody else's use of the name"
        ));
    }
    if is_public_registry(&leg.endpoint.host.to_string()) {
        return Some(format!(
            "{} is a public registry, and '{issuer}' is no public authority we know: a proxy that reads TLS is likely on the way",
            leg.endpoint.host
        ));
    }
    (leg.tls.chain.len() == 1)
        .then(|| "the server sent its own certificate only; if its issuer is an intermediate, the server must send that too".to_owned())
}

/// The node's own roots may be others.
pub(super) fn hangs_on_roots(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::TlsUnknownCa | Cause::TlsIntermediate | Cause::TlsRootExpired | Cause::TlsCaUnfit
    )
}

/// A server's certificate that is itself a root: it works until it is renewed.
pub(super) fn trusted_itself(_: &Evidence, leg: &Leg) -> Option<Finding> {
    let leaf = leg.tls.chain.first();
    let (source, leaf) = leg.tls.leaf_trusted.as_ref().zip(leaf)?;
    let instead = if is_self_issued(leaf) {
        "have an authority of your own sign the server's certificate, and trust that authority"
            .to_owned()
    } else {
        format!(
            "put the certificate of its authority '{}' there in its place",
            leaf.issuer
        )
    };
    Some(
        at(Cause::TlsLeafTrusted, leg.role, Phase::Tls)
            .fact(format!(
                "{}: the server's own certificate is a root in {source} (SHA-256 {}), and its authority was not looked at",
                leg.endpoint, leaf.sha256
            ))
            .hint(format!(
                "Before the certificate is renewed (it ends at {}), {instead}: a renewed one will not be trusted.",
                instant(leaf.not_after)
            )),
    )
}
