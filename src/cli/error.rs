//! Why a command could not do what it was asked to: each names the option, the file or the key.

use std::io;

use crate::containerd::SettingsError;
use crate::credentials::CredentialsError;
use crate::daemon::check::StartError;
use crate::kubernetes::client::ConnectError;
use crate::lint::watch::LintError;
use crate::vantage::node_settings::NodeSettingsError;

/// Why the program could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Place(#[from] NodeSettingsError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    ApiServer(#[from] ConnectError),
    #[error(transparent)]
    Look(#[from] LintError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("this node has no name: give it one with --node")]
    NoNodeName,
    #[error("this replica has no name: give it one with --identity")]
    NoIdentity,
    /// In words of the command: what can't be done, why, and what to do about it.
    #[error("{0}")]
    Told(String),
    #[error("can't write the result: {0}")]
    Write(#[source] io::Error),
    #[error("a walk ended abnormally; this is a defect of pullpath")]
    Panicked,
}
