//! Why a command could not do what it was asked to: each names the option, the file or the key.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::containerd::SettingsError;
use crate::credentials::CredentialsError;
use crate::daemon::runner::reload::StartError;
use crate::kubernetes::ask::AskError;
use crate::kubernetes::client::ConnectError;
use crate::lint::follow::LookError;
use crate::vantage::place::PlaceError;

/// Why the program could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{path}, given with --config: {reason}")]
    Config { path: String, reason: String },
    #[error("can't save the report to {path}: {source}")]
    Save {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("no cause has the code '{code}'{}; `pullpath explain` lists all", near(.nearest))]
    NoSuchCause {
        code: String,
        nearest: Vec<&'static str>,
    },
    #[error(transparent)]
    ApiServer(#[from] ConnectError),
    #[error(transparent)]
    Look(#[from] LookError),
    #[error("the API server has not told all within {seconds} s; allow more with {flag}")]
    Slow { flag: &'static str, seconds: u64 },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("this node has no name: give it one with --node")]
    NoNodeName,
    #[error("this replica has no name: give it one with --identity")]
    NoIdentity,
    #[error("can't listen at {address}, given with {flag} or in the configuration: {source}")]
    Listen {
        flag: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("can't {what}: {source}")]
    Ask {
        what: String,
        #[source]
        source: AskError,
    },
    #[error(
        "a node's daemon reads no whole image (--transfer full); its budgets hold: --transfer auto measures the rate within them"
    )]
    FullOnNodes,
    /// Says which file, key or option it is, and what to write instead.
    #[error("{0}")]
    Usage(String),
    #[error("can't start: {0}")]
    Runtime(#[source] io::Error),
    #[error("can't write the result: {0}")]
    Write(#[source] io::Error),
    #[error("a walk ended abnormally; this is a defect of pullpath")]
    Panicked,
}

fn near(nearest: &[&'static str]) -> impl fmt::Display {
    if nearest.is_empty() {
        String::new()
    } else {
        format!("; near it are {}", nearest.join(", "))
    }
}
