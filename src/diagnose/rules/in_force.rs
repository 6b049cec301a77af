//! Rules for files that were changed after containerd started: its CA bundle and its environment, which it
//! reads only at its start. config.toml is judged with the registry settings.

use super::finding::new;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::model::evidence::{Evidence, Leg};
use crate::model::text::joined;

pub(super) const RESTART: &str = "Restart containerd on the node (`systemctl restart containerd`; running containers keep running): it reads its configuration, its environment and the CA bundle only at its start.";

/// A certificate was accepted through a root that containerd may not have read.
pub(super) fn roots(evidence: &Evidence) -> Option<Finding> {
    let legs = evidence.walk.legs.iter();
    let accepted: Vec<&Leg> = legs
        .filter(|leg| leg.tls.depends_on_changed_roots && leg.tls.outcome.done().is_some())
        .collect();
    if accepted.is_empty() {
        return None;
    }
    let names = joined(accepted.iter().map(|leg| &leg.endpoint));
    Some(
        new(Cause::RuntimeSettingsUnknown)
            .fact(format!(
                "the certificate of {names} is issued by a CA that may not have been in the bundle when containerd started"
            ))
            .facts(evidence.walk.roots.changed.iter().cloned())
            .hint(RESTART),
    )
}

/// No proxy is set now, and nothing shows which one was.
pub(super) fn proxies(evidence: &Evidence) -> Option<Finding> {
    let proxies = &evidence.proxies;
    let is_set = proxies.https.is_some() || proxies.http.is_some();
    if proxies.changed.is_empty() || is_set {
        return None;
    }
    Some(
        new(Cause::RuntimeSettingsUnknown)
            .fact("no proxy is set now; whether one was set when containerd started is unknown")
            .facts(proxies.changed.iter().cloned())
            .hint(RESTART),
    )
}
