//! The options that say with which credentials: files, a user, or Secrets of the cluster.

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
    /// A Secret manifest (YAML or JSON), as `kubectl get secret NAME -o yaml` prints it; repeatable, in the pod's order
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,

    /// A Secret of the cluster, read with your own rights; repeatable, in the pod's order
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    pub(super) secret: Vec<Namespaced>,

    /// The imagePullSecrets of a service account of the cluster, in their order
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    pub(super) service_account: Vec<Namespaced>,

    /// A docker config.json or containers auth.json [default, when no other credential is given: the usual places]
    #[arg(long, value_name = "FILE")]
    docker_config: Option<PathBuf>,

    /// A user for the registry; the password is read from standard input
    #[arg(long, value_name = "USER", requires = "password_stdin")]
    username: Option<String>,

    /// Read the password of --username from standard input
    #[arg(long, requires = "username")]
    pub(super) password_stdin: bool,
}

/// A Secret of the cluster that was asked for.
#[derive(Clone, Debug)]
pub(super) struct SecretRequest {
    pub(super) key: SecretKey,
    /// The service account that names it.
    pub(super) service_account: Option<String>,
}

/// Ready to be read, once or again and again.
pub(super) struct Credentials {
    request: credentials::Request,
    client: Option<Client>,
    asked: Vec<SecretRequest>,
}

/// What the cluster has of them.
#[derive(Clone, Debug, Default)]
pub(super) struct OfCluster {
    pub(super) sources: Vec<LoadedSource>,
    pub(super) asked: Vec<RequestedSecret>,
}

impl CredentialArgs {
    /// Reads the password, and which Secrets the service accounts name.
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
        let (client, asked) = if wants_cluster {
            let client = cluster.connect().await?;
            let asked = self.asked(&client).await?;
            (Some(client), asked)
        } else {
            (None, Vec::new())
        };
        Ok(Credentials {
            request: credentials::Request {
                login,
                secret_files: self.secret_file.clone(),
                docker_config: self.docker_config.clone(),
                // Whoever names a Secret means that and not the usual places.
                for_pods: wants_cluster,
            },
            client,
            asked,
        })
    }

    /// The Secrets by name, those of service accounts behind the others; none twice.
    pub(super) async fn asked(&self, client: &Client) -> Result<Vec<SecretRequest>, Error> {
        let mut asked: Vec<SecretRequest> = Vec::new();
        let mut add = |namespace: &str, name: &str, service_account: Option<&str>| {
            let key = SecretKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            if asked.iter().all(|one| one.key != key) {
                asked.push(SecretRequest {
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
                    Error::Told(format!(
                        "can't read ServiceAccount {account}, given with --service-account: {error}"
                    ))
                })?;
            for name in names {
                add(&account.namespace, &name, Some(&account.name));
            }
        }
        Ok(asked)
    }
}

impl Credentials {
    /// Reads the Secrets of the cluster, each by itself.
    pub(super) async fn fetch(&self) -> OfCluster {
        let mut of_cluster = OfCluster::default();
        let Some(client) = &self.client else {
            return of_cluster;
        };
        for asked in &self.asked {
            let known = secrets::fetch(client, &asked.key).await;
            let (sources, mut found) = known.sources(&asked.key);
            if found == Found::Absent {
                found = secrets::absent(client, &asked.key.name).await;
            }
            of_cluster.sources.extend(sources);
            of_cluster.asked.push(RequestedSecret {
                namespace: asked.key.namespace.clone(),
                name: asked.key.name.clone(),
                service_account: asked.service_account.clone(),
                found,
            });
        }
        of_cluster
    }

    /// All that count for an image: Secrets of the cluster first.
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
