//! A client of the API server whose timeouts are bounded.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A server in the cluster's own network answers within 5 s or not at all.
const CONNECT: Duration = Duration::from_secs(5);

/// The watches end within 290 s, so a connection that is silent for longer is dead.
const SILENCE: Duration = Duration::from_mins(5);

/// Timeout of one write to the socket.
const WRITE: Duration = Duration::from_secs(20);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A kubeconfig was given by flag, key or environment, and can't be read or used.
    #[error("cannot use the kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The path, or all of `KUBECONFIG`.
        path: String,
        /// The error of kube, with its sources.
        reason: String,
    },
    /// Neither a kubeconfig nor a service account exists.
    #[error(
        "no API server found: not running in a pod with a service account token ({in_cluster}), and no kubeconfig found ({kubeconfig}); set --kubeconfig, KUBECONFIG or kubernetes.kubeconfig"
    )]
    NotFound {
        /// Why the pod's service account can't be used.
        in_cluster: String,
        /// Why the default kubeconfig can't be used.
        kubeconfig: String,
    },
    /// The configuration was read, but no client can be built from it (for instance an invalid certificate).
    #[error("cannot create a client for the API server {url}: {reason}")]
    Client {
        /// The API server's URL.
        url: String,
        /// The error of kube.
        reason: String,
    },
}

/// Creates a client from the given kubeconfig. Without one, the order is that of kubectl: `KUBECONFIG`, the pod's
/// service account, `~/.kube/config`.
///
/// # Errors
/// If no configuration is found, or if it can't be used. No request is sent.
pub async fn connect(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Client, ConnectError> {
    let options = KubeConfigOptions {
        context: context.map(ToOwned::to_owned),
        ..KubeConfigOptions::default()
    };
    let mut config = match kubeconfig {
        Some(path) => named(path, &options).await?,
        None => found(&options).await?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.write_timeout = Some(WRITE);
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|error| ConnectError::Client {
        url,
        reason: error.to_string(),
    })
}

async fn named(path: &Path, options: &KubeConfigOptions) -> Result<Config, ConnectError> {
    let wrong = |error: &dyn std::error::Error| ConnectError::Kubeconfig {
        path: path.display().to_string(),
        reason: with_sources(error),
    };
    let file = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
    Config::from_custom_kubeconfig(file, options)
        .await
        .map_err(|error| wrong(&error))
}

async fn found(options: &KubeConfigOptions) -> Result<Config, ConnectError> {
    let kubeconfig = Config::from_kubeconfig(options);
    // If the environment names a kubeconfig, no other source is tried.
    if std::env::var_os("KUBECONFIG").is_some() {
        return kubeconfig.await.map_err(|error| ConnectError::Kubeconfig {
            path: std::env::var("KUBECONFIG").unwrap_or_default(),
            reason: with_sources(&error),
        });
    }
    match Config::incluster() {
        Ok(config) => Ok(config),
        Err(in_cluster) => kubeconfig.await.map_err(|error| ConnectError::NotFound {
            in_cluster: with_sources(&in_cluster),
            kubeconfig: with_sources(&error),
        }),
    }
}

/// The error's text with the texts of its sources.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}
