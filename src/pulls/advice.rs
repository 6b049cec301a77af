//! Explains a failed pull to an operator: the facts its message contains, and one action.

use super::failure::ParsedFailure;
use crate::diagnose::catalogue::Cause;
use crate::model::endpoint::Role;
use crate::model::reference::Reference;

/// The facts in the message, one for each line of a report.
pub fn facts(parsed: &ParsedFailure, image: &str) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(host) = &parsed.host {
        let is_other = is_other(host, image);
        let role = match parsed.leg {
            Some(Role::Token) => ", the token service",
            Some(Role::Blob) if is_other => ", the blob storage",
            _ if is_other => ", which is not the image's registry: a mirror or a redirect",
            _ => "",
        };
        facts.push(format!("contacted {host}{role}"));
    }
    if let Some(address) = &parsed.address {
        facts.push(format!("dialed {address}"));
    }
    if let Some(server) = &parsed.server {
        facts.push(format!("name server: {server}"));
    }
    if let Some(status) = parsed.status {
        facts.push(format!("response: HTTP {status}"));
    }
    if let Some(message) = &parsed.message {
        facts.push(format!("server's message: {message}"));
    }
    match parsed.is_sent {
        Some(true) => facts.push("credential: one was sent".to_owned()),
        Some(false) => facts.push("credential: none was sent".to_owned()),
        None => {}
    }
    if parsed.is_sandbox {
        facts.push("image of the pod's sandbox: the node's own pull, without a Secret".to_owned());
    }
    if let Some(beneath) = parsed.beneath {
        facts.push(format!("underlying cause: {}", beneath.code()));
    }
    facts
}

/// Whether a host is another one than the image's registry.
fn is_other(host: &str, image: &str) -> bool {
    let image = image.parse::<Reference>().ok();
    image.is_some_and(|image| !host.starts_with(&image.host().0.to_string()))
}

/// What to do about a host that the registry names, and not the image.
fn elsewhere(parsed: &ParsedFailure, image: &str) -> Option<String> {
    let host = parsed
        .host
        .as_deref()
        .filter(|host| is_other(host, image))?;
    let (what, place) = match parsed.leg? {
        Role::Registry => return None,
        Role::Token => ("token service", "challenge (Harbor: external_url)"),
        Role::Blob => ("layer storage", "redirect"),
    };
    let action = match parsed.cause? {
        Cause::DnsNxdomain => "Add it to the DNS that the nodes use",
        Cause::TcpRefused => "Check that a server listens there",
        Cause::TlsName => "Have its certificate reissued for this name too",
        _ => return None,
    };
    Some(format!(
        "{action}, or correct it at the registry: {host} is the {what} in the registry's {place}."
    ))
}

/// What to do. `node` may be empty: then the node is not named.
pub fn hint(parsed: &ParsedFailure, image: &str, node: &str) -> String {
    let on_node = if node.is_empty() {
        "on that node".to_owned()
    } else {
        format!("on {node}")
    };
    let probe = format!("`pullpath probe {image}` {on_node}");
    if parsed.is_on_node() && parsed.cause != Some(Cause::NoPull) {
        return on_the_node(parsed);
    }
    let hint = match parsed.cause {
        None => format!("Run {probe}: it makes the same requests and names the phase that fails."),
        Some(Cause::NoPull) => format!(
            "Set imagePullPolicy to IfNotPresent, load the image {on_node} first, or give the pod the Secret it was pulled with: the policy is Never, and the image is not {on_node} or (from Kubernetes 1.35 on) was pulled with a Secret that this pod does not have."
        ),
        Some(Cause::AuthUnknown) if !parsed.is_sandbox => format!(
            "Run {probe}: the registry requires a credential, and the message does not show whether none was sent or a wrong one."
        ),
        Some(cause) => of_sandbox(parsed)
            .map(str::to_owned)
            .or_else(|| elsewhere(parsed, image))
            .unwrap_or_else(|| cause.entry().fix.to_owned()),
    };
    if parsed.or.is_empty() || parsed.cause == Some(Cause::AuthUnknown) {
        return hint;
    }
    let others: Vec<&str> = parsed.or.iter().map(|cause| cause.code()).collect();
    let others = others.join(" and ");
    if parsed.cause == Some(Cause::SecretMissing) {
        return format!(
            "{hint} The message also fits {others}: `kubectl get secret NAME -n NAMESPACE` shows which it is."
        );
    }
    format!("{hint} The message also fits {others}: {probe} shows which it is.")
}

/// What to do if no registry is at fault; a check of the network would find nothing.
fn on_the_node(parsed: &ParsedFailure) -> String {
    let fix = parsed.cause.map_or("", |cause| cause.entry().fix);
    let others: Vec<&str> = parsed.or.iter().map(|cause| cause.code()).collect();
    let others = match others.len() {
        0 => String::new(),
        _ => format!(" The message also fits {}.", others.join(" and ")),
    };
    format!("No registry is at fault. {fix}{others}")
}

/// What would decide between the causes that a message fits; `None` if it fits one, or none.
pub fn decider(parsed: &ParsedFailure) -> Option<&'static str> {
    let cause = parsed.cause?;
    if parsed.or.is_empty() {
        return None;
    }
    let all = || std::iter::once(cause).chain(parsed.or.iter().copied());
    let has = |wanted: &[Cause]| all().any(|cause| wanted.contains(&cause));
    Some(if has(&[Cause::SecretUnread]) {
        "The API server decides: `kubectl get secret NAME -n NAMESPACE` shows whether the Secret exists."
    } else if cause == Cause::NodeStorage || cause == Cause::LayerInvalid {
        "Pull the image on another node: if it fails there in the same way, the layer is invalid, otherwise this node's store is at fault."
    } else if has(&[Cause::ClockSkew]) {
        "Compare the node's clock with the certificate's dates (`date -u` on the node)."
    } else if has(&[Cause::Fw403]) && has(&[Cause::AuthDenied, Cause::BlobDenied]) {
        "The body of the 403 decides: a registry sends a JSON document with a code such as DENIED, a filter sends a page. `pullpath probe` shows it."
    } else if cause == Cause::AuthNoCred && parsed.is_sent == Some(false) {
        "No credential was sent. Registries answer the same for a private repository and for one that does not exist: check its spelling, then pull with a credential."
    } else if has(&[Cause::AuthNoCred]) {
        "Which credential the pull sent, if any, decides: none (auth_no_cred), one that is rejected (auth_bad_cred), or one without the right (auth_denied). A misspelled repository looks the same."
    } else if has(&[Cause::ManifestUnknown]) && has(&[Cause::NameUnknown]) {
        "A list of the repository's tags decides whether the tag or the repository is missing (`skopeo list-tags`)."
    } else if has(&[Cause::DnsNodata, Cause::DnsServfail, Cause::DnsRefused]) {
        "The response code of the node's name servers decides (`dig NAME` on the node)."
    } else if has(&[Cause::MtuBlackhole]) {
        "A second try with small segments decides; `pullpath probe` makes it."
    } else if has(&[Cause::TcpReset, Cause::TlsReset]) {
        "The phase in which the connection ended decides; `pullpath probe` on the node shows it."
    } else {
        "A check from the node decides: it makes the same requests, and shows the phase that fails."
    })
}

/// Whether a fault concerns a credential, and a sandbox's image is pulled with none of a pod's.
fn of_sandbox(parsed: &ParsedFailure) -> Option<&'static str> {
    let is_of_credential = matches!(
        parsed.cause?,
        Cause::AuthNoCred
            | Cause::AuthBadCred
            | Cause::AuthDenied
            | Cause::AuthUnknown
            | Cause::CredentialExpired
            | Cause::RateLimited
    );
    (parsed.is_sandbox && is_of_credential).then_some(
        "The runtime pulls the sandbox's image itself: Secrets of pods do not apply. Set sandbox_image (containerd: sandbox_image or pinned_images.sandbox; CRI-O: pause_image) to a registry that the nodes can pull from, or give the runtime its own credential.",
    )
}
