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
    let hint = match parsed.cause {
        None => format!("Run {probe}: it makes the same requests and names the phase that fails."),
        Some(Cause::NoPull) => format!(
            "Set imagePullPolicy to IfNotPresent, load the image {on_node} first, or give the pod the Secret it was pulled with: the policy is Never, and the image is not {on_node} or (from Kubernetes 1.35 on) was pulled with a Secret that this pod does not have."
        ),
        Some(Cause::AuthUnknown) => format!(
            "Run {probe}: the registry requires a credential, and the message does not show whether none was sent or a wrong one."
        ),
        Some(cause) => elsewhere(parsed, image).unwrap_or_else(|| cause.entry().fix.to_owned()),
    };
    if parsed.or.is_empty() || parsed.cause == Some(Cause::AuthUnknown) {
        return hint;
    }
    let others: Vec<&str> = parsed.or.iter().map(|cause| cause.code()).collect();
    let others = others.join(" and ");
    format!("{hint} The message also fits {others}: {probe} shows which it is.")
}
