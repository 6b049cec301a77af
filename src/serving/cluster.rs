//! What a configuration allows to be asked of the cluster, and what is said where it does not answer.

use crate::config::{Kubernetes, SecretAccess};
use crate::kubernetes::follow::State;
use crate::kubernetes::secrets::{Access, SecretKey};
use crate::model::fault::instant;

/// Which Secrets may be read.
pub fn secret_access(config: &Kubernetes) -> Access {
    match config.secrets {
        SecretAccess::None => Access::None,
        SecretAccess::Discovered => Access::Discovered,
        SecretAccess::Named => Access::Named(
            config
                .named_secrets
                .iter()
                .flat_map(|one| SecretKey::all(&one.namespace, &one.names))
                .collect(),
        ),
    }
}

/// Since when the API server is silent on something, where it is; `advice`: what helps where it forbids it.
pub fn lost(state: &State, of: &str, advice: &str) -> Option<String> {
    let State::Lost {
        since,
        reason,
        is_forbidden,
    } = state
    else {
        return None;
    };
    let since = instant(*since);
    let advice = if *is_forbidden { advice } else { "" };
    Some(format!(
        "The API server does not tell{of} since {since}: {reason}.{advice}"
    ))
}
