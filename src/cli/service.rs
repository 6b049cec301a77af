//! What the long-running commands `run` and `cluster` share: listening addresses, logging, signals.

use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::error::Error;
use super::output::UNKNOWN;
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

/// The error of a listener that can't be served.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn not_served(error: io::Error) -> Error {
    Error::Message(format!("can't start the HTTP server: {error}"))
}

/// The address of a listener, for the log.
pub(super) fn shown(listener: &TcpListener) -> String {
    listener
        .local_addr()
        .map_or_else(|_| "?".to_owned(), |at| at.to_string())
}

/// What signals request: SIGHUP a reload, SIGTERM and SIGINT the end of the program.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    pub(super) reload: mpsc::Sender<()>,
    pub(super) stop: CancellationToken,
    /// How long work that is running may take after the request to stop, in milliseconds.
    grace: Arc<AtomicU64>,
}

/// How long the program may take to stop, beyond the grace of running work.
const STOPS: Duration = Duration::from_secs(5);

impl Signals {
    /// Handles signals from now on. They have a thread of their own: whatever hangs in the rest of the program, the first
    /// signal to stop ends it within its grace and 5 s, and a second one at once.
    pub(super) fn start() -> Result<(Self, mpsc::Receiver<()>), Error> {
        let failed = |error: io::Error| Error::Message(format!("can't receive signals: {error}"));
        let (reload, reloads) = mpsc::channel(1);
        let signals = Self {
            reload,
            stop: CancellationToken::new(),
            grace: Arc::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let received = {
            let _in = runtime.enter();
            [
                SignalKind::hangup(),
                SignalKind::terminate(),
                SignalKind::interrupt(),
            ]
            .map(signal)
        };
        let [hangup, terminate, interrupt] = received;
        let received = (
            hangup.map_err(failed)?,
            terminate.map_err(failed)?,
            interrupt.map_err(failed)?,
        );
        let own = signals.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .stack_size(STACK)
            .spawn(move || runtime.block_on(own.handle(received)))
            .map_err(failed)?;
        Ok((signals, reloads))
    }

    /// Takes the grace of a configuration that was read.
    pub(super) fn set_grace(&self, grace: Duration) {
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.grace.store(millis, Ordering::Relaxed);
    }

    /// What `start` returns; `None`: the program is to stop before that.
    pub(super) async fn unless_stopped<T>(&self, start: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            started = start => Some(started),
        }
    }

    async fn handle(self, (mut hangup, mut terminate, mut interrupt): (Signal, Signal, Signal)) {
        loop {
            tokio::select! {
                _ = hangup.recv() => request(&self.reload),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        self.stop.cancel();
        let grace = Duration::from_millis(self.grace.load(Ordering::Relaxed)) + STOPS;
        tokio::select! {
            () = sleep(grace) => tracing::error!(?grace, "something hangs: stopping without it"),
            _ = terminate.recv() => tracing::warn!("stopping at once, at the second signal"),
            _ = interrupt.recv() => tracing::warn!("stopping at once, at the second signal"),
        }
        end();
    }
}

/// Stack of the thread for signals, in bytes.
const STACK: usize = 256 << 10;

/// Ends the program without its other threads, one of which may hang.
#[expect(clippy::exit, reason = "the main thread may hang, and can't return")]
fn end() {
    std::process::exit(UNKNOWN.into());
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
