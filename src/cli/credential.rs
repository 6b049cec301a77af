//! Options that give credentials: files, a user with a password, or Secrets of the cluster.

use std::io;
use std::path::PathBuf;

use clap::Args;
use kube::Client;

use super::access::{ClusterArgs, namespaced};
use super::error::Error;
use crate::credentials;
use crate::kubernetes::lookup;
use crate::kubernetes::secrets::{self, SecretKey};
use crate::model::credential::CredentialSource;
use crate::model::reference::Reference;
use crate::model::workload::{Found, Namespaced, RequestedSecret};
use crate::pull_secret::keyring::LoadedSource;

#[derive(Args, Debug)]
#[command(next_help_heading = "Credentials")]
pub(super) struct CredentialArgs {
    /// A file with a Secret (YAML or JSON), as `kubectl get secret NAME -o yaml` prints it; repeatable, in the pod's order
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,

    /// A Secret of the cluster, read with your own rights; repeatable, in the pod's order
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    pub(super) secret: Vec<Namespaced>,

    /// The imagePullSecrets of a service account of the cluster, in their order
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    pub(super) service_account: Vec<Namespaced>,

    /// A docker config.json or containers auth.json [default, if no other credential is given: the usual paths]
    #[arg(long, value_name = "FILE")]
    docker_config: Option<PathBuf>,

    /// A user of the registry; the password is read from standard input
    #[arg(long, value_name = "USER", requires = "password_stdin")]
    username: Option<String>,

    /// Read the password of --username from standard input
    #[arg(long, requires = "username")]
    pub(super) password_stdin: bool,
}

/// A Secret of the cluster that an option requests, directly or through a service account.
#[derive(Clone, Debug)]
pub(super) struct SecretRequest {
    pub(super) key: SecretKey,
    /// The service account that names it; `None` if it was given with `--secret`.
    pub(super) service_account: Option<String>,
}

/// The credentials that the options name, ready to be read as often as a command checks.
pub(super) struct Credentials {
    request: credentials::Request,
    client: Option<Client>,
    requested: Vec<SecretRequest>,
}

/// The requested Secrets as the cluster returned them.
#[derive(Clone, Debug, Default)]
pub(super) struct OfCluster {
    pub(super) sources: Vec<LoadedSource>,
    pub(super) requested: Vec<RequestedSecret>,
}

impl CredentialArgs {
    /// Reads the password, and the names of the service accounts' Secrets.
    pub(super) async fn prepare(&self, cluster: &ClusterArgs) -> Result<Credentials, Error> {
        let login = match &self.username {
            Some(username) => Some(LoadedSource::login(
                CredentialSource::CommandLine,
                username,
                credentials::password_from(io::stdin().lock())?,
            )),
            None => None,
        };
        let wants_cluster = !self.secret.is_empty() || !self.service_account.is_empty();
        let (client, requested) = if wants_cluster {
            let client = cluster.connect().await?;
            let requested = self.requested(&client).await?;
            (Some(client), requested)
        } else {
            (None, Vec::new())
        };
        Ok(Credentials {
            request: credentials::Request {
                login,
                secret_files: self.secret_file.clone(),
                docker_config: self.docker_config.clone(),
                // With a Secret given, docker configs at the usual paths are not read.
                for_pods: wants_cluster,
            },
            client,
            requested,
        })
    }

    /// The Secrets given by name, then those of service accounts, without duplicates.
    pub(super) async fn requested(&self, client: &Client) -> Result<Vec<SecretRequest>, Error> {
        let mut requested: Vec<SecretRequest> = Vec::new();
        let mut add = |namespace: &str, name: &str, service_account: Option<&str>| {
            let key = SecretKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            if requested.iter().all(|one| one.key != key) {
                requested.push(SecretRequest {
                    key,
                    service_account: service_account.map(ToOwned::to_owned),
                });
            }
        };
        for one in &self.secret {
            add(&one.namespace, &one.name, None);
        }
        for account in &self.service_account {
            let names = lookup::pull_secrets_of(client, &account.namespace, &account.name)
                .await
                .map_err(|error| {
                    Error::Message(format!(
                        "can't read ServiceAccount {account}, given with --service-account: {error}"
                    ))
                })?;
            for name in names {
                add(&account.namespace, &name, Some(&account.name));
            }
        }
        Ok(requested)
    }
}

impl Credentials {
    /// Reads the requested Secrets of the cluster, one request for each.
    pub(super) async fn fetch(&self) -> OfCluster {
        let mut of_cluster = OfCluster::default();
        let Some(client) = &self.client else {
            return of_cluster;
        };
        for one in &self.requested {
            let known = secrets::fetch(client, &one.key).await;
            let (sources, mut found) = known.sources(&one.key);
            if found == Found::Absent {
                found = secrets::absent(client, &one.key.name).await;
            }
            of_cluster.sources.extend(sources);
            of_cluster.requested.push(RequestedSecret {
                namespace: one.key.namespace.clone(),
                name: one.key.name.clone(),
                service_account: one.service_account.clone(),
                found,
            });
        }
        of_cluster
    }

    /// All sources for an image: Secrets of the cluster first, then files.
    pub(super) async fn load(
        &self,
        of_cluster: &OfCluster,
        reference: &Reference,
        for_pods: bool,
    ) -> Result<Vec<LoadedSource>, Error> {
        let mut request = self.request.clone();
        request.for_pods |= for_pods;
        let mut sources = of_cluster.sources.clone();
        let environment = |name: &str| std::env::var_os(name);
        sources.extend(credentials::load(&request, reference, environment).await?);
        Ok(sources)
    }
}
