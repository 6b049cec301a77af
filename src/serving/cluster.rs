//! What a configuration allows to be asked of the cluster, and what is said where it does not answer.

use crate::config::{Kubernetes, SecretAccess};
use crate::kubernetes::secrets::Access;
use crate::kubernetes::watch::WatchState;
use crate::model::fault::instant;
use crate::model::workload::SecretRefs;

/// Which Secrets may be read.
pub fn secret_access(config: &Kubernetes) -> Access {
    match config.secrets {
        SecretAccess::None => Access::None,
        SecretAccess::Discovered => Access::Discovered,
        SecretAccess::Named => Access::Named(
            config
                .named_secrets
                .iter()
                .flat_map(SecretRefs::keys)
                .collect(),
        ),
    }
}

/// What is lost, since when and why, where it is; `so`: what that means, `advice`: what helps where the API
/// server forbids it.
pub fn lost(state: &WatchState, what: &str, so: &str, advice: &str) -> Option<String> {
    let WatchState::Lost {
        since,
        reason,
        is_forbidden,
    } = state
    else {
        return None;
    };
    let since = instant(*since);
    let advice = if *is_forbidden { advice } else { "" };
    Some(format!("{what} since {since}{so}: {reason}.{advice}"))
}
