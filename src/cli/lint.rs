//! `pullpath lint`: workloads of a cluster, looked at before anybody pulls.

use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::access::ClusterArgs;
use super::args::long_duration;
use super::error::Error;
use super::output::{FAILURE, Printing, SUCCESS};
use super::probe_context::runtime;
use crate::kubernetes::secrets::Access;
use crate::kubernetes::workloads::Scope;
use crate::lint::watch::look;
use crate::report::lint::{LintDocument, render};

#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 nothing critical, 1 something critical, 2 it could not be looked at. What could not be seen is told at the end."
)]
pub(super) struct LintArgs {
    /// The namespace to look at; repeatable [default: that of the kubeconfig's context]
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        conflicts_with = "all_namespaces"
    )]
    namespace: Vec<String>,

    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Which Secrets are read, to tell which are missing and whether they fit
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Secrets::Discovered)]
    secrets: Secrets,

    /// The longest that all of it may take
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = long_duration)]
    timeout: Duration,

    #[command(flatten)]
    printing: Printing,

    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Secrets {
    /// None; whether one is missing or fits is then not known
    None,
    /// Those that workloads name, each by itself, and those beside a workload that names none
    Discovered,
}

pub(super) fn run(args: &LintArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let snapshot = runtime()?.block_on(async {
        let client = args.cluster.connect().await?;
        let namespaces = match (args.all_namespaces, args.namespace.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec![client.default_namespace().to_owned()],
            (false, false) => args.namespace.clone(),
        };
        let scope = Scope {
            namespaces,
            ..Scope::default()
        };
        let access = match args.secrets {
            Secrets::None => Access::None,
            Secrets::Discovered => Access::Discovered,
        };
        tokio::time::timeout(args.timeout, look(client, &scope, access))
            .await
            .map_err(|_| {
                Error::Told(format!(
                    "the API server has not told all within {} s; allow more with --timeout",
                    args.timeout.as_secs()
                ))
            })?
            .map_err(Error::from)
    })?;
    let document = LintDocument::new(Timestamp::now(), snapshot);
    args.printing.print(&document, render, out)?;
    Ok(if document.lint.is_critical() {
        FAILURE
    } else {
        SUCCESS
    })
}
