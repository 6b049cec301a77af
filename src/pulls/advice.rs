//! What is to be said of a failure to a person: what its text names, and one thing to do.

use super::failure::ParsedFailure;
use crate::diagnose::catalogue::Cause;
use crate::model::endpoint::Role;
use crate::model::reference::Reference;

/// What the text names, one fact a line.
pub fn facts(told: &ParsedFailure, image: &str) -> Vec<String> {
    let mut facts = Vec::new();
    let registry = image
        .parse::<Reference>()
        .ok()
        .map(|image| image.host().0.to_string());
    if let Some(host) = &told.host {
        let is_other = registry.is_some_and(|registry| !host.starts_with(&registry));
        let role = match told.leg {
            Some(Role::Token) => ", the token service",
            Some(Role::Blob) if is_other => ", where layers are",
            _ if is_other => ", which is not the image's registry: a mirror or a redirect",
            _ => "",
        };
        facts.push(format!("asked {host}{role}"));
    }
    if let Some(address) = &told.address {
        facts.push(format!("dialled {address}"));
    }
    if let Some(server) = &told.server {
        facts.push(format!("by the name server {server}"));
    }
    if let Some(status) = told.status {
        facts.push(format!("the answer was {status}"));
    }
    if let Some(message) = &told.message {
        facts.push(format!("the server says: {message}"));
    }
    if let Some(beneath) = told.beneath {
        facts.push(format!("beneath it is {}", beneath.code()));
    }
    facts
}

/// What to do. `node` may be empty.
pub fn hint(told: &ParsedFailure, image: &str, node: &str) -> String {
    let place = if node.is_empty() {
        "on that node".to_owned()
    } else {
        format!("on {node}")
    };
    let ask = format!("`pullpath probe {image}` {place}");
    let hint = match told.cause {
        None => format!("{ask} walks the same pull and names the phase that fails."),
        Some(Cause::NoPull) => format!(
            "imagePullPolicy is Never, and the image is not {place}, or (from Kubernetes 1.35 on) it was pulled with a Secret that this pod does not bring: set IfNotPresent, bring the image there first, or give the pod that Secret."
        ),
        Some(Cause::AuthUnknown) => format!(
            "The registry wants a credential; whether none was sent, or one that it does not take, the text does not say. {ask} does."
        ),
        Some(cause) => cause.entry().fix.to_owned(),
    };
    if told.or.is_empty() || told.cause == Some(Cause::AuthUnknown) {
        return hint;
    }
    let others: Vec<&str> = told.or.iter().map(|cause| cause.code()).collect();
    let others = others.join(" and ");
    format!("{hint} The text fits {others} as well: {ask} tells which it is.")
}
