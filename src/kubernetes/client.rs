//! A client of the API server whose timeouts are bounded.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::time::timeout;

use super::kubeconfig;
use super::sources::with_sources;
use crate::files;

/// A server in the cluster's own network answers within 5 s or not at all.
const CONNECT: Duration = Duration::from_secs(5);

/// The watches end within 290 s, so a connection that is silent for longer is dead.
const SILENCE: Duration = Duration::from_mins(5);

/// Timeout of one write to the socket.
const WRITE: Duration = Duration::from_secs(20);

/// How long the plugin of a kubeconfig may take; one may ask the user for a login.
const PLUGIN: Duration = Duration::from_mins(1);

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
    let url = without_login(&config.cluster_url);
    let failed = |reason: String| ConnectError::Client {
        url: url.clone(),
        reason,
    };
    // kube runs the plugin of a kubeconfig (`exec`), and waits for its end.
    let client = tokio::task::spawn_blocking(move || Client::try_from(config));
    match timeout(PLUGIN, client).await {
        Ok(Ok(client)) => client.map_err(|error| failed(with_sources(&error))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "its credential plugin did not end in {} s",
            PLUGIN.as_secs()
        ))),
    }
}

async fn named(path: &Path, options: &KubeConfigOptions) -> Result<Config, ConnectError> {
    let read = kubeconfig::read(path);
    of_file(read, options)
        .await
        .map_err(|reason| ConnectError::Kubeconfig {
            path: path.display().to_string(),
            reason,
        })
}

/// The API server's URL in the text of a kubeconfig, without a login. Files that it names are read, relative ones below
/// `folder`; no credential plugin is run, and no request is sent.
///
/// # Errors
/// Why the text can't be used, without any value in it that may be secret.
pub async fn server_of(text: &str, folder: &Path) -> Result<String, String> {
    let file = kubeconfig::parse(text, folder);
    let config = of_file(file, &KubeConfigOptions::default()).await?;
    Ok(without_login(&config.cluster_url))
}

async fn of_file(
    file: Result<Kubeconfig, String>,
    options: &KubeConfigOptions,
) -> Result<Config, String> {
    let file = kubeconfig::with_contents(file?, options.context.as_deref())?;
    let file = kubeconfig::checked(file).map_err(|error| with_sources(&error))?;
    let config = Config::from_custom_kubeconfig(file, options).await;
    config.map_err(|error| with_sources(&error))
}

async fn found(options: &KubeConfigOptions) -> Result<Config, ConnectError> {
    // If the environment names a kubeconfig, no other source is tried.
    if let Some(list) = std::env::var_os("KUBECONFIG") {
        let file = kubeconfig::of_list(&list);
        return of_file(file, options)
            .await
            .map_err(|reason| ConnectError::Kubeconfig {
                path: list.to_string_lossy().into_owned(),
                reason,
            });
    }
    match in_cluster() {
        Ok(config) => Ok(config),
        Err(in_cluster) => of_file(kubeconfig::of_home(), options)
            .await
            .map_err(|kubeconfig| ConnectError::NotFound {
                in_cluster,
                kubeconfig,
            }),
    }
}

/// The service account of this pod. kube reads its files, the token again and again: they must be regular files.
fn in_cluster() -> Result<Config, String> {
    for name in ["token", "ca.crt", "namespace"] {
        let path = Path::new(SERVICE_ACCOUNT).join(name);
        match files::read(&path, kubeconfig::MAX_FILE) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("{}: {}", path.display(), files::reason(&error)));
            }
            _ => {}
        }
    }
    Config::incluster().map_err(|error| with_sources(&error))
}

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A URL without user and password.
fn without_login(uri: &http::Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{host}", uri.scheme_str().unwrap_or("https"))
}
