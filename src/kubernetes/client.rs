//! A client of the API server, with waits that end.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A cluster's own network answers sooner, or not at all.
const CONNECT: Duration = Duration::from_secs(5);

/// The API server ends a watch within 290 s; whoever is silent for longer has forgotten us.
const SILENCE: Duration = Duration::from_mins(5);

const WRITE: Duration = Duration::from_secs(20);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot use the kubeconfig {path}: {reason}")]
    Kubeconfig { path: String, reason: String },
    #[error(
        "no API server is known here: this is no pod with a service account's token ({in_cluster}), and there is no kubeconfig ({kubeconfig}); give one by --kubeconfig, KUBECONFIG or kubernetes.kubeconfig"
    )]
    NotFound {
        in_cluster: String,
        kubeconfig: String,
    },
    #[error("cannot talk to the API server {url}: {reason}")]
    Client { url: String, reason: String },
}

/// A client with the named kubeconfig; otherwise that of KUBECONFIG, the pod's service account, or
/// `~/.kube/config`, as kubectl looks for them.
///
/// # Errors
/// When none can be used. No request is made here.
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
        reason: told(error),
    };
    let file = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
    Config::from_custom_kubeconfig(file, options)
        .await
        .map_err(|error| wrong(&error))
}

async fn found(options: &KubeConfigOptions) -> Result<Config, ConnectError> {
    let kubeconfig = Config::from_kubeconfig(options);
    // Named by the environment: that alone is meant.
    if std::env::var_os("KUBECONFIG").is_some() {
        return kubeconfig.await.map_err(|error| ConnectError::Kubeconfig {
            path: std::env::var("KUBECONFIG").unwrap_or_default(),
            reason: told(&error),
        });
    }
    match Config::incluster() {
        Ok(config) => Ok(config),
        Err(in_cluster) => kubeconfig.await.map_err(|error| ConnectError::NotFound {
            in_cluster: told(&in_cluster),
            kubeconfig: told(&error),
        }),
    }
}

/// An error with what is behind it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
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
