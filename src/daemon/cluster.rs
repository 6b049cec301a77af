//! What the cluster's API tells this daemon: the pods of its node, and the Secrets that they name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Discover, Kubernetes, SecretAccess};
use crate::kubernetes::client::{ConnectError, connect};
use crate::kubernetes::follow::{State, View};
use crate::kubernetes::pods;
use crate::kubernetes::secrets::{Access, SecretKey, Secrets};
use crate::workload::discovery::{self, Discovered, Patterns, Pod, Scope, Wanted};

/// A rollout changes many pods in a moment; what they come to is told once.
const SETTLE: Duration = Duration::from_secs(1);

/// Followed as long as this is there.
#[derive(Debug)]
pub struct Cluster {
    config: Kubernetes,
    scope: Scope,
    secrets: Arc<Secrets>,
    /// `None`: nothing is asked.
    pods: Option<watch::Receiver<View<Pod>>>,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    /// Begins to follow, where that is wished.
    ///
    /// # Errors
    /// When there is no way to an API server. Whether it answers shows later.
    pub async fn start(config: &Kubernetes, node: &str) -> Result<Self, ConnectError> {
        let stop = CancellationToken::new();
        let (client, pods) = match config.discover {
            Discover::Off => (None, None),
            Discover::Node => {
                let client = connect(config.kubeconfig.as_deref(), None).await?;
                let (sender, receiver) = watch::channel(View::default());
                let (of_pods, node, stop) = (client.clone(), node.to_owned(), stop.clone());
                tokio::spawn(async move {
                    pods::follow_node(of_pods, &node, sender, stop).await;
                });
                (Some(client), Some(receiver))
            }
        };
        Ok(Self {
            scope: scope(config),
            secrets: Arc::new(Secrets::new(client, access(config))),
            config: config.clone(),
            pods,
            stop,
        })
    }

    /// It would be the same with this configuration.
    pub fn is_as(&self, config: &Kubernetes) -> bool {
        self.config == *config
    }

    pub fn secrets(&self) -> Arc<Secrets> {
        Arc::clone(&self.secrets)
    }

    /// Waits until there is something new, and then until it has settled.
    pub async fn changed(&mut self) {
        let Some(pods) = &mut self.pods else {
            return std::future::pending().await;
        };
        if pods.changed().await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(SETTLE).await;
    }

    /// What is known now; `None` where nothing is asked.
    pub fn look(&mut self) -> Option<(Discovered, State)> {
        let view = self.pods.as_mut()?.borrow_and_update().clone();
        let found = discovery::discover(view.objects.values().map(|pod| &**pod), &self.scope);
        Some((found, view.state))
    }

    /// Of these targets the Secrets are needed, and no others.
    pub fn need_secrets_of(&self, wanted: &[Wanted]) {
        let keys: BTreeSet<SecretKey> = wanted
            .iter()
            .filter_map(|one| one.secrets.as_ref())
            .flat_map(|secrets| {
                secrets.names.iter().map(|name| SecretKey {
                    namespace: secrets.namespace.clone(),
                    name: name.clone(),
                })
            })
            .collect();
        self.secrets.need(&keys);
    }
}

fn scope(config: &Kubernetes) -> Scope {
    let patterns = |wildcards: &config::Wildcards| Patterns {
        include: wildcards.include.clone(),
        exclude: wildcards.exclude.clone(),
    };
    Scope {
        registries: patterns(&config.registries),
        namespaces: patterns(&config.namespaces),
        platform_namespaces: config.platform_namespaces.clone(),
        most: config.most_targets.0 as usize,
    }
}

fn access(config: &Kubernetes) -> Access {
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
