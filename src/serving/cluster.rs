//! What a configuration allows to read from the API server, and the message if a watch is down.

use crate::config::{Kubernetes, SecretAccess};
use crate::kubernetes::secrets::Access;
use crate::kubernetes::watch::WatchState;
use crate::model::fault::instant;
use crate::model::workload::SecretRefs;

/// The Secrets that `kubernetes.secrets` allows to read.
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

/// The message about a watch that is down, with its start and reason; `None` if the watch is up or was not
/// tried yet. `so` is the effect, and `advice` the fix if the API server forbids it.
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
