//! Rules for certificates: which one of a chain is at fault, and who has to fix it.

use super::finding::{at, new, written_in};
use super::in_force;
use super::names::is_public_registry;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::model::connect::{BadLink, Certificate, LinkProblem};
use crate::model::endpoint::Role;
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{Phase, TlsFault, instant};

/// Cause and hint for a rejected certificate; `None` for other faults.
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
            "Give the Ingress of '{host}' a TLS Secret (spec.tls with this host, the Secret in the Ingress's namespace), or correct the Secret it names; never trust '{}'.",
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
        TlsFault::NameMismatch { .. } => new(Cause::TlsName).hint(match leg.role {
            Role::Registry => format!(
                "Use a name of the certificate in {}, or have the certificate reissued for '{host}' too.",
                written_in(evidence, leg.role)
            ),
            role => format!(
                "Have the certificate reissued for '{host}' too, or use a name of the certificate in {}.",
                written_in(evidence, role)
            ),
        }),
        TlsFault::Expired { .. } => expired(leg, link, clock_first),
        TlsFault::NotYetValid { .. } => new(Cause::TlsNotYetValid).hint(format!(
            "{clock_first}If it is right, have {} reissued: its validity begins later.",
            whose_certificate(leg, link)
        )),
        TlsFault::BadCertificate { .. }
            if let Some(link) = link.filter(|link| link.problem == LinkProblem::MayNotSign) =>
        {
            new(Cause::TlsCaUnfit).hint(format!(
                "Have the owner of the CA '{}' reissue its certificate so that it may sign this one (basicConstraints CA:TRUE, keyUsage keyCertSign, sufficient path length and name constraints), and {}.",
                link.certificate.subject,
                match &link.source {
                    Some(source) => format!("replace it in {}", file(source)),
                    None => format!("have '{host}' send the new one"),
                }
            ))
        }
        TlsFault::BadCertificate { .. } => new(Cause::TlsBadCertificate),
        TlsFault::Undecided { .. } => new(Cause::TlsUndecided).hint(PULL_ON_THE_NODE),
        _ => return None,
    })
}

pub(super) const PULL_ON_THE_NODE: &str = "Run `crictl pull IMAGE` on the node: that decides it. Name the runtime with --runtime (`containerd://VERSION`, as `kubectl get node -o wide` shows it); `go version -m /usr/bin/containerd` shows the build's Go version and its GODEBUG defaults.";

/// Subjects of the default certificates of ingress controllers.
fn is_default(leaf: &Certificate) -> bool {
    const DEFAULTS: &[&str] = &[
        "Kubernetes Ingress Controller Fake Certificate",
        "TRAEFIK DEFAULT CERT",
        "NGINXIngressController",
    ];
    DEFAULTS.iter().any(|name| leaf.subject.contains(name))
}

/// No trusted certificate has the issuer's name, or the one that has it did not sign.
fn unknown_issuer(evidence: &Evidence, leg: &Leg, link: Option<&BadLink>) -> Finding {
    let authority = leg.endpoint.authority();
    // CAs that are trusted for a registry are also trusted for the servers its pulls lead to.
    let registry = evidence.reference.domain();
    let get = |compare: String| {
        new(Cause::TlsUnknownCa).hint(format!(
            "Get the CA's certificate from its owner, {compare}, and add it to the nodes' trust store or as `ca` to certs.d/{registry}/hosts.toml."
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
                "Get the current certificate of '{}' from its owner and put it into {}: the one there (SHA-256 {}) has another key, as if the CA had been recreated.",
                link.certificate.subject,
                file(source),
                link.certificate.sha256
            )),
            None => missing(
                format!(
                    "Have the owner of '{authority}' configure the server to send the certificate that signed: the one sent as '{}' (SHA-256 {}) has another key.",
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
                    "Have the owner of '{authority}' configure the server to send the certificate of '{0}' after its own: according to the certificate, it is available at {1}. If '{0}' is itself a root, get it from its owner and add it to the nodes' trust store instead.",
                    link.certificate.issuer,
                    link.certificate.issuer_at.join(", ")
                ),
                Confidence::Medium,
            )
        }
        _ => {
            let top = link.map(|link| &link.certificate).or(leg.tls.chain.last());
            let compare = match top {
                Some(top) if is_self_issued(top) => {
                    format!("compare it with the presented one (SHA-256 {})", top.sha256)
                }
                Some(top) if !top.issuer.is_empty() => format!(
                    "verify that it is '{}' (the server did not send it, so there is nothing to compare it with)",
                    top.issuer
                ),
                _ => "verify that it is the right one".to_owned(),
            };
            match signer(leg) {
                Some(Signer::Itself) => new(Cause::TlsUnknownCa).hint(format!(
                    "Have the owner of '{authority}' replace its certificate with one that your CA signs. Or get this certificate from the owner, {compare}, and add it to the nodes' trust store or as `ca` to certs.d/{registry}/hosts.toml; it has to be replaced there at each renewal."
                )),
                Some(Signer::Inspection { .. }) => new(Cause::TlsUnknownCa).hint(format!(
                    "Exempt '{}' (and the other hosts of this pull) from TLS inspection in the proxy that signs. Or get the certificate of its CA from the proxy's operator, {compare}, and add it to the nodes' trust store.",
                    leg.endpoint.host
                )),
                Some(Signer::Public { issuer }) => new(Cause::TlsUnknownCa).hint(format!(
                    "Update the bundle of roots on the node (Debian: package ca-certificates) and restart containerd. If '{issuer}' is no root but an intermediate, have the owner of '{authority}' configure the server to send its certificate."
                )),
                Some(Signer::Private) | None => get(compare),
            }
        }
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
            "{clock_first}{}: the root '{}' there expired at {} (SHA-256 {}). The certificate of '{}' need not be renewed.",
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
            "{clock_first}{}: no certificate is trusted through its old root '{}' any more, which expired at {}. The certificate of '{}' need not be renewed.",
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

/// How to get a CA's current certificate into a file of roots.
fn renew(source: &str, authority: &str) -> String {
    if is_system(source) {
        format!(
            "Update the bundle of roots in {source} (Debian: package ca-certificates), so that it has the current root '{authority}'"
        )
    } else {
        format!(
            "Get the current certificate of '{authority}' from its owner, and put it into {source}"
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
            "the intermediate '{}' (number {} in the chain that '{host}' sends; its own certificate is not at fault)",
            certificate.subject,
            place + 1
        ),
        _ => format!("the certificate of '{host}'"),
    }
}

/// A file, with a note if it is the system's bundle.
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

/// More facts about the certificate at fault; none if the fault's own text says it all.
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
        (None, index) => format!("number {} of those sent", index.unwrap_or_default() + 1),
    };
    let certificate = &link.certificate;
    let mut facts = vec![format!(
        "the certificate at fault is '{}' ({whose}; valid {} to {}; SHA-256 {}): {}",
        certificate.subject,
        instant(certificate.not_before),
        instant(certificate.not_after),
        certificate.sha256,
        link.reason
    )];
    if let Some(root) = &link.expired_root {
        facts.push(format!(
            "it leads to the root '{}' in {}, which expired at {}; '{}' may itself be a root in a newer bundle",
            root.certificate.subject,
            root.source,
            instant(root.certificate.not_after),
            certificate.subject
        ));
    }
    facts
}

/// CAs that issue the certificates of public registries, as named in their issuers.
const PUBLIC_AUTHORITIES: &[&str] = &[
    "Amazon",
    "Baltimore",
    "COMODO",
    "Certum",
    "DigiCert",
    "Entrust",
    "GeoTrust",
    "GlobalSign",
    "GoDaddy",
    "Google Trust Services",
    "IdenTrust",
    "Internet Security Research Group",
    "Let's Encrypt",
    "Microsoft",
    "SSL Corporation",
    "Sectigo",
    "Starfield",
    "TrustAsia",
    "USERTRUST",
    "ZeroSSL",
];

/// Names in the issuers of proxies and firewalls that inspect TLS.
const INSPECTORS: &[&str] = &[
    "Barracuda",
    "Blue Coat",
    "Check Point",
    "Cisco Umbrella",
    "Cloudflare Managed",
    "Forcepoint",
    "FortiGate",
    "Fortinet",
    "Kaspersky",
    "mitmproxy",
    "Netskope",
    "Palo Alto Networks",
    "Sangfor",
    "Skyhigh",
    "SonicWall",
    "Sophos",
    "Squid",
    "WatchGuard",
    "Websense",
    "Zscaler",
];

/// Who signed a chain that does not lead to a trusted root.
enum Signer {
    /// The server itself.
    Itself,
    /// A CA with the name of one that public servers use.
    Public {
        /// That name.
        issuer: String,
    },
    /// Most likely a proxy on the path.
    Inspection {
        /// What shows it.
        sign: String,
    },
    /// Another CA.
    Private,
}

/// The signer, as far as the presented chain shows it; `None` without a chain.
fn signer(leg: &Leg) -> Option<Signer> {
    let leaf = leg.tls.chain.first()?;
    let issuer = &leg.tls.chain.last()?.issuer;
    let has = |names: &[&str]| names.iter().any(|name| issuer.contains(name));
    let host = &leg.endpoint.host;
    let is_itself = is_self_issued(leaf);
    if !is_itself && has(PUBLIC_AUTHORITIES) {
        let issuer = issuer.clone();
        return Some(Signer::Public { issuer });
    }
    if is_public_registry(&host.to_string()) {
        let sign = format!(
            "{host} is a public registry, but {} is not a known public CA: a proxy on the path probably intercepts TLS",
            if issuer.is_empty() {
                "its issuer, which has no name,".to_owned()
            } else {
                format!("'{issuer}'")
            }
        );
        return Some(Signer::Inspection { sign });
    }
    if has(INSPECTORS) {
        let sign = format!(
            "'{issuer}' has the name of a product that inspects TLS: a proxy or firewall on the path probably intercepts it"
        );
        return Some(Signer::Inspection { sign });
    }
    Some(if is_itself {
        Signer::Itself
    } else {
        Signer::Private
    })
}

/// What the presented chain shows about its signer, if that changes the fix.
pub(super) fn signed_by(leg: &Leg) -> Option<String> {
    match signer(leg)? {
        Signer::Itself => Some("the certificate is self-signed".to_owned()),
        Signer::Public { issuer } => Some(format!(
            "'{issuer}' has the name of a public CA: either the bundle of roots here is old, or the server does not send an intermediate, or another CA uses the name"
        )),
        Signer::Inspection { sign } => Some(sign),
        Signer::Private => (leg.tls.chain.len() == 1)
            .then(|| "the server sent only its own certificate; if its issuer is an intermediate, the server must send that too".to_owned()),
    }
}

/// Causes that the node's own roots would change.
pub(super) fn depends_on_roots(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::TlsUnknownCa | Cause::TlsIntermediate | Cause::TlsRootExpired | Cause::TlsCaUnfit
    )
}

/// A server's certificate that is itself a trusted root: it works until it is renewed.
pub(super) fn trusted_itself(_: &Evidence, leg: &Leg) -> Option<Finding> {
    let leaf = leg.tls.chain.first();
    let (source, leaf) = leg.tls.leaf_trusted.as_ref().zip(leaf)?;
    let instead = if is_self_issued(leaf) {
        "have your own CA sign the server's certificate, and trust that CA".to_owned()
    } else {
        format!(
            "replace it there with the certificate of its CA '{}'",
            leaf.issuer
        )
    };
    Some(
        at(Cause::TlsLeafTrusted, leg.role, Phase::Tls)
            .fact(format!(
                "{}: the server's own certificate is a root in {source} (SHA-256 {}), so its CA was not checked",
                leg.endpoint, leaf.sha256
            ))
            .hint(format!(
                "Before the certificate is renewed (it expires at {}), {instead}: a renewed one will not be trusted.",
                instant(leaf.not_after)
            )),
    )
}
