//! The error of a command. Each message names the option, the file or the key to correct.

use std::io;

use crate::containerd::SettingsError;
use crate::credentials::CredentialsError;
use crate::daemon::check::StartError;
use crate::kubernetes::client::ConnectError;
use crate::lint::watch::LintError;
use crate::vantage::node_settings::NodeSettingsError;

/// Why a command ended without a result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    NodeSettings(#[from] NodeSettingsError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    ApiServer(#[from] ConnectError),
    #[error(transparent)]
    Lint(#[from] LintError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the name of this node is unknown: give it with --node")]
    NoNodeName,
    #[error("the name of this replica is unknown: give it with --identity")]
    NoIdentity,
    /// A message of the command itself: what failed, why, and what to do about it.
    #[error("{0}")]
    Message(String),
    #[error("can't write the result: {0}")]
    Write(#[source] io::Error),
    /// A task of the runtime panicked.
    #[error("a check ended abnormally (panic); this is a defect of pullpath")]
    Panicked,
}
