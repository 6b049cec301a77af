//! `pullpath cluster`: the role for the whole cluster, from its arguments to its end.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::network_args::read_config;
use super::output::SUCCESS;
use super::probe_context::runtime;
use super::service::{LogArgs, bind, host_name, obey_signals, shown, watch};
use crate::cluster::runner::Runner;
use crate::cluster::serve::App;
use crate::config::{Config, ListenAddress};
use crate::serving::http::serve;

#[derive(Args, Debug)]
pub(super) struct ClusterArgs {
    /// The configuration (YAML); read again when it changes, and on SIGHUP
    #[arg(long, value_name = "FILE", env = "PULLPATH_CONFIG")]
    config: PathBuf,

    /// Where metrics, the status page and the API are served, instead of `listen`
    #[arg(long, value_name = "ADDRESS:PORT", env = "PULLPATH_LISTEN")]
    listen: Option<ListenAddress>,

    /// What this replica is called at the Lease; otherwise the host's name
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,

    /// Where the Lease is, instead of `cluster.namespace`
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    namespace: Option<String>,

    #[command(flatten)]
    log: LogArgs,
}

/// Where a pod finds the namespace of its service account.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// As the shipped manifests have it.
const NAMESPACE: &str = "pullpath";

pub(super) fn run(args: ClusterArgs) -> Result<u8, Error> {
    let config = read_config(&args.config)?;
    args.log.start(&config.log);
    let identity = args.identity.clone().or_else(host_name);
    let identity = identity.ok_or(Error::NoIdentity)?;
    // As `run`: what computes has a thread of its own.
    let runtime = runtime()?;
    runtime.block_on(watch_over(args, config, &identity))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(SUCCESS)
}

async fn watch_over(args: ClusterArgs, config: Config, identity: &str) -> Result<(), Error> {
    let listen = args.listen.or(config.listen);
    let public = bind(listen.unwrap_or(ListenAddress::PUBLIC), "--listen").await?;
    let namespace = args
        .namespace
        .or_else(|| config.cluster.namespace.clone())
        .or_else(|| std::fs::read_to_string(NAMESPACE_FILE).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    let namespace = namespace.as_deref().unwrap_or(NAMESPACE);
    let path = args.config.clone();
    let load = Box::new(move || read_config(&path).map_err(|error| error.to_string()));
    let runner = Runner::start(identity, namespace, config, load).await?;
    let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
    let app = App::new(runner.board(), ended.clone(), stop.clone());
    tracing::info!(
        version = crate::VERSION,
        commit = crate::COMMIT,
        identity,
        namespace,
        listen = shown(&public),
        "started"
    );
    let server = tokio::spawn(serve(public, app.public(), stop.clone()));
    let (reload, reloads) = mpsc::channel(1);
    let signals = tokio::spawn(obey_signals(reload.clone(), stop.clone()));
    let watcher = tokio::spawn(watch(args.config, reload, stop.clone()));
    // However it ends.
    let _ended = ended.drop_guard();
    runner.run(reloads, stop).await;
    signals.abort();
    watcher.abort();
    // Whoever still reads has had its grace.
    let _ = tokio::time::timeout(Duration::from_secs(1), server).await;
    Ok(())
}
