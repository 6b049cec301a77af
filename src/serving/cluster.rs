//! What a configuration allows to be asked of the cluster.

use crate::config::{Kubernetes, SecretAccess};
use crate::kubernetes::secrets::{Access, SecretKey};

/// Which Secrets may be read.
pub fn secret_access(config: &Kubernetes) -> Access {
    match config.secrets {
        SecretAccess::None => Access::None,
        SecretAccess::Discovered => Access::Discovered,
        SecretAccess::Named => Access::Named(
            config
                .named_secrets
                .iter()
                .flat_map(|one| {
                    one.names.iter().map(|name| SecretKey {
                        namespace: one.namespace.clone(),
                        name: name.clone(),
                    })
                })
                .collect(),
        ),
    }
}
