//! What the long-running commands `run` and `cluster` share: listening addresses, logging, signals.

use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::error::Error;
use crate::config::{ListenAddress, Log, LogFormat, LogLevel};
use crate::files;
use crate::serving::reload::Watch;

/// Listens at an address; `flag` is the option that an error names.
pub(super) async fn bind(address: ListenAddress, flag: &'static str) -> Result<TcpListener, Error> {
    let mut bound = TcpListener::bind(address.0).await;
    // On a host without IPv6, all addresses means all IPv4 addresses.
    if bound.is_err() && address.0.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        let of_v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.0.port())).await;
        bound = of_v4.or(bound);
    }
    bound.map_err(|error| {
        Error::Message(format!(
            "can't listen on {}, given with {flag} or in the configuration: {error}",
            address.0
        ))
    })
}

/// The address of a listener, for the log.
pub(super) fn shown(listener: &TcpListener) -> String {
    listener
        .local_addr()
        .map_or_else(|_| "?".to_owned(), |at| at.to_string())
}

/// SIGHUP reloads the configuration; SIGTERM and SIGINT stop the program.
pub(super) async fn handle_signals(reload: mpsc::Sender<()>, stop: CancellationToken) {
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals can't be received");
        return;
    };
    loop {
        tokio::select! {
            Some(()) = hangup.recv() => request(&reload),
            Some(()) = terminate.recv() => stop.cancel(),
            Some(()) = interrupt.recv() => stop.cancel(),
            else => return,
        }
    }
}

/// Requests a reload when the content of the file changes.
pub(super) async fn watch(path: PathBuf, reload: mpsc::Sender<()>, stop: CancellationToken) {
    let mut watch = Watch::new(&path);
    while !stop.is_cancelled() {
        watch.changed().await;
        request(&reload);
    }
}

/// Requests a reload. One pending request is enough: the file is read when it is handled.
fn request(reload: &mpsc::Sender<()>) {
    let _ = reload.try_send(());
}

pub(super) fn host_name() -> Option<String> {
    let name = files::kernel(Path::new("/proc/sys/kernel/hostname")).ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Options for logging.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct LogArgs {
    /// The log level; overrides `log.level`
    #[arg(long, value_enum, value_name = "LEVEL", env = "PULLPATH_LOG_LEVEL")]
    log_level: Option<LogLevel>,

    /// The log format; overrides `log.format`
    #[arg(long, value_enum, value_name = "FORMAT", env = "PULLPATH_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

impl LogArgs {
    /// Starts logging with these options, otherwise with the configuration's values.
    pub(super) fn start(self, log: &Log) {
        start_logging(
            self.log_format.unwrap_or(log.format),
            self.log_level.unwrap_or(log.level),
        );
    }
}

/// Logs to standard error, only Pullpath's own events: those of libraries may contain headers.
pub(super) fn start_logging(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let filter = tracing_subscriber::filter::Targets::new().with_target("pullpath", level);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    // Fails only if a subscriber is already set, for instance if a test calls this twice.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
}
