//! What programs that stay have in common at their edges: where they listen, what they log, whom they obey.

use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::error::Error;
use crate::config::{ListenAddress, Log, LogFormat, LogLevel};
use crate::serving::reload::Watch;

pub(super) async fn bind(address: ListenAddress, flag: &'static str) -> Result<TcpListener, Error> {
    let mut bound = TcpListener::bind(address.0).await;
    // All addresses of a host without IPv6 are those of IPv4.
    if bound.is_err() && address.0.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        let of_v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.0.port())).await;
        bound = of_v4.or(bound);
    }
    bound.map_err(|error| {
        Error::Told(format!(
            "can't listen at {}, given with {flag} or in the configuration: {error}",
            address.0
        ))
    })
}

/// Where it listens, for the log.
pub(super) fn shown(listener: &TcpListener) -> String {
    listener
        .local_addr()
        .map_or_else(|_| "?".to_owned(), |at| at.to_string())
}

/// SIGHUP reads the configuration again; SIGTERM and SIGINT end.
pub(super) async fn obey_signals(reload: mpsc::Sender<()>, stop: CancellationToken) {
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
            Some(()) = hangup.recv() => wish(&reload),
            Some(()) = terminate.recv() => stop.cancel(),
            Some(()) = interrupt.recv() => stop.cancel(),
            else => return,
        }
    }
}

/// Wishes for a reload when the file's content is another one.
pub(super) async fn watch(path: PathBuf, reload: mpsc::Sender<()>, stop: CancellationToken) {
    let mut watch = Watch::new(&path);
    while !stop.is_cancelled() {
        watch.changed().await;
        wish(&reload);
    }
}

/// One wish that waits is enough: it is read as it is then.
fn wish(reload: &mpsc::Sender<()>) {
    let _ = reload.try_send(());
}

pub(super) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// What the logging options of these programs are.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct LogArgs {
    /// How much is logged, instead of `log.level`
    #[arg(long, value_enum, value_name = "LEVEL", env = "PULLPATH_LOG_LEVEL")]
    log_level: Option<LogLevel>,

    /// How it is logged, instead of `log.format`
    #[arg(long, value_enum, value_name = "FORMAT", env = "PULLPATH_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

impl LogArgs {
    /// Logs from now on, by a configuration where no option says otherwise.
    pub(super) fn start(self, log: &Log) {
        start_logging(
            self.log_format.unwrap_or(log.format),
            self.log_level.unwrap_or(log.level),
        );
    }
}

/// Only our own events: those of the libraries below may hold headers.
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
    // Fails only when a subscriber is there already, as when tests call us twice.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
}
