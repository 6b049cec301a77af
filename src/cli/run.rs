//! `pullpath run`: reads its arguments, starts the daemon and runs it until a signal stops it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::error::Error;
use super::network_args::{ConfigOrigin, read_config, read_config_again, read_service_config};
use super::output::SUCCESS;
use super::probe_context::runtime;
use super::service::{LogArgs, Signals, bind, host_name, not_served, shown, watch};
use crate::config::{Config, ListenAddress};
use crate::daemon::http::serve::App;
use crate::daemon::runner::Runner;
use crate::daemon::runner::command::Command;
use crate::model::reference::Reference;
use crate::net::{kernel, machine};
use crate::serving::listener::{Listeners, start};

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// Images to check, besides the targets of the configuration; without --config, everything else has its default
    #[arg(value_name = "IMAGE")]
    images: Vec<Reference>,

    /// The configuration (YAML); reloaded when the file changes, and on SIGHUP
    #[arg(short, long, value_name = "FILE", env = "PULLPATH_CONFIG")]
    config: Option<PathBuf>,

    /// The address for metrics, the status page and the API; overrides `listen`
    #[arg(long, value_name = "ADDRESS:PORT", env = "PULLPATH_LISTEN")]
    listen: Option<ListenAddress>,

    /// The address for commands such as reload and on-demand checks; overrides `admin_listen`
    #[arg(long, value_name = "ADDRESS:PORT", env = "PULLPATH_ADMIN_LISTEN")]
    admin_listen: Option<ListenAddress>,

    /// The name of this node; overrides `vantage.node`
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: Option<String>,

    /// The folder for state that must survive a restart; overrides `state_dir`
    #[arg(long, value_name = "DIR", env = "PULLPATH_STATE_DIR")]
    state_dir: Option<PathBuf>,

    #[command(flatten)]
    log: LogArgs,
}

const NOTHING: &str = "there is nothing to check; name images, or a configuration with --config";

impl RunArgs {
    /// The configuration of the file. Without one, everything has its default.
    fn read(
        &self,
        read: fn(&Path, ConfigOrigin) -> Result<Config, Error>,
    ) -> Result<Config, Error> {
        match &self.config {
            Some(path) => read(path, ConfigOrigin::of(path)),
            None => Ok(Config::default()),
        }
    }
}

/// The configuration that was read, at the start and at each reload, with the images that were named; the options
/// override it.
fn overridden(config: Config, args: &RunArgs, signals: &Signals) -> Config {
    let mut config = config.with_images(&args.images);
    if args.state_dir.is_some() {
        config.state_dir.clone_from(&args.state_dir);
    }
    signals.set_grace(config.schedule.grace.0);
    config
}

pub(super) fn run(args: RunArgs) -> Result<u8, Error> {
    kernel::return_large_blocks();
    let (signals, reloads) = Signals::start()?;
    if args.config.is_none() && args.images.is_empty() {
        return Err(Error::Message(NOTHING.to_owned()));
    }
    let config = args.read(read_service_config)?;
    let config = overridden(config, &args, &signals);
    args.log.start(&config.log);
    let node = args
        .node
        .clone()
        .or_else(|| config.vantage.node.clone())
        .or_else(host_name)
        .ok_or(Error::NoNodeName)?;
    // Checks wait most of the time. Work that needs much CPU (a scrape of many targets) has a thread of its
    // own, so that it delays no measurement of a check.
    let runtime = runtime()?;
    let daemon = watch_targets(Arc::new(args), config, node, signals, reloads);
    let result = runtime.block_on(daemon);
    // Don't wait for a check that hangs in a system call.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.map(|()| SUCCESS)
}

async fn watch_targets(
    args: Arc<RunArgs>,
    config: Config,
    node: String,
    signals: Signals,
    reloads: mpsc::Receiver<()>,
) -> Result<(), Error> {
    let listen = args
        .listen
        .or(config.listen)
        .unwrap_or(ListenAddress::PUBLIC);
    let admin = args
        .admin_listen
        .or(config.admin_listen)
        .unwrap_or(ListenAddress::ADMIN);
    let public = bind(listen, "--listen").await?;
    let commands_at = bind(admin, "--admin-listen").await?;
    if !admin.0.ip().is_loopback() {
        tracing::warn!(address = %admin.0, "the admin listener accepts commands from other hosts and is unauthenticated");
    }
    let stop = signals.stop.clone();
    let (commands, received) = mpsc::channel(16);
    let (again, own) = (Arc::clone(&args), signals.clone());
    let load = Box::new(move || {
        let config = again
            .read(read_config_again)
            .map_err(|error| error.to_string())?;
        Ok(overridden(config, &again, &own))
    });
    let start_runner = Runner::start(node.clone(), config, load);
    let Some(runner) = signals.unless_stopped(start_runner).await else {
        return Ok(());
    };
    let runner = runner?;
    let listeners = Listeners::of_process();
    let names = host_name().into_iter().chain([node.clone()]).collect();
    let app = App::new(
        runner.store(),
        commands.clone(),
        stop.clone(),
        listeners.clone(),
        names,
    );
    tracing::info!(
        version = crate::VERSION,
        commit = crate::COMMIT,
        node,
        listen = shown(&public),
        admin = shown(&commands_at),
        "started"
    );
    let served = vec![
        (public, app.public(), listeners.public),
        (commands_at, app.admin(), listeners.admin),
    ];
    let served = start(served, stop.clone()).map_err(not_served)?;
    let reloader = tokio::spawn(request_reloads(reloads, commands));
    // What only the start needed.
    machine::give_code_back();
    kernel::give_memory_back();
    let watch_file = |file| tokio::spawn(watch(file, signals.reload, stop.clone()));
    let watcher = args.config.clone().map(watch_file);
    Box::pin(runner.run(received, stop)).await;
    if let Some(watcher) = watcher {
        watcher.abort();
    }
    reloader.abort();
    // Open connections had their grace period.
    let _ = tokio::time::timeout(Duration::from_secs(1), served).await;
    Ok(())
}

/// Passes reloads to the runner, which logs their result.
async fn request_reloads(mut reloads: mpsc::Receiver<()>, commands: mpsc::Sender<Command>) {
    while reloads.recv().await.is_some() {
        let (done, taken) = oneshot::channel();
        if commands.send(Command::Reload(done)).await.is_ok() {
            let _ = taken.await;
        }
    }
}

/// `pullpath config check`.
pub(super) fn check(path: &Path) -> Result<u8, Error> {
    let config = read_config(path, ConfigOrigin::Argument)?;
    let targets = config.targets.iter().count();
    let _ = writeln!(
        io::stdout(),
        "{}: valid, with {targets} targets",
        super::input::shown(path)
    );
    Ok(SUCCESS)
}
