//! `pullpath cluster`: reads its arguments, starts the cluster role and runs it until a signal stops it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::network_args::{ConfigOrigin, read_config_again, read_service_config};
use super::output::SUCCESS;
use super::probe_context::runtime;
use super::service::{LogArgs, Signals, bind, host_name, not_served, shown, watch};
use crate::cluster::runner::Runner;
use crate::cluster::serve::App;
use crate::config::{Config, ListenAddress};
use crate::files;
use crate::serving::listener::{Listeners, start};

#[derive(Args, Debug)]
pub(super) struct ClusterArgs {
    /// The configuration (YAML); reloaded when the file changes, and on SIGHUP
    #[arg(short, long, value_name = "FILE", env = "PULLPATH_CONFIG")]
    config: PathBuf,

    /// The address for metrics, the status page and the API; overrides `listen`
    #[arg(long, value_name = "ADDRESS:PORT", env = "PULLPATH_LISTEN")]
    listen: Option<ListenAddress>,

    /// The name of this replica as holder of the Lease [default: the host's name]
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,

    /// The namespace of the Lease; overrides `cluster.namespace`
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    namespace: Option<String>,

    #[command(flatten)]
    log: LogArgs,
}

/// The file in a pod that has the namespace of its service account.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// In bytes.
const MAX_NAMESPACE: u64 = 4 << 10;

/// The namespace in the shipped manifests; used if no other is known.
const NAMESPACE: &str = "pullpath";

pub(super) fn run(args: ClusterArgs) -> Result<u8, Error> {
    let origin = ConfigOrigin::of(&args.config);
    let (signals, reloads) = Signals::start()?;
    let config = read_service_config(&args.config, origin)?;
    args.log.start(&config.log);
    let identity = args.identity.clone().or_else(host_name);
    let identity = identity.ok_or(Error::NoIdentity)?;
    // As in `run`: work that needs much CPU has a thread of its own.
    let runtime = runtime()?;
    let result = runtime.block_on(watch_cluster(args, config, &identity, signals, reloads));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.map(|()| SUCCESS)
}

async fn watch_cluster(
    args: ClusterArgs,
    config: Config,
    identity: &str,
    signals: Signals,
    reloads: mpsc::Receiver<()>,
) -> Result<(), Error> {
    let listen = args.listen.or(config.listen);
    let public = bind(listen.unwrap_or(ListenAddress::PUBLIC), "--listen").await?;
    let namespace = args
        .namespace
        .or_else(|| config.cluster.namespace.clone())
        .or_else(|| files::text(Path::new(NAMESPACE_FILE), MAX_NAMESPACE).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    let namespace = namespace.as_deref().unwrap_or(NAMESPACE);
    let path = args.config.clone();
    let origin = ConfigOrigin::of(&path);
    let load =
        Box::new(move || read_config_again(&path, origin).map_err(|error| error.to_string()));
    let start_runner = Runner::start(identity, namespace, config, load);
    let Some(runner) = signals.unless_stopped(start_runner).await else {
        return Ok(());
    };
    let runner = runner?;
    let (stop, ended) = (signals.stop.clone(), CancellationToken::new());
    let connections = Listeners::of_process().public;
    let app = App::new(
        runner.state(),
        ended.clone(),
        stop.clone(),
        Arc::clone(&connections),
    );
    tracing::info!(
        version = crate::VERSION,
        commit = crate::COMMIT,
        identity,
        namespace,
        listen = shown(&public),
        "started"
    );
    let served = vec![(public, app.public(), connections)];
    let served = start(served, stop.clone()).map_err(not_served)?;
    let watcher = tokio::spawn(watch(args.config, signals.reload, stop.clone()));
    // Also if the runner panics.
    let _ended = ended.drop_guard();
    runner.run(reloads, stop).await;
    watcher.abort();
    // Open connections had their grace period.
    let _ = tokio::time::timeout(Duration::from_secs(1), served).await;
    Ok(())
}
