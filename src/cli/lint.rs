//! `pullpath lint`: reads the workloads of a cluster and reports what would keep their images from being pulled.

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
    after_help = "Exit status: 0 nothing critical, 1 something critical, 2 the workloads could not be read.\n\
                  Resources that could not be read are listed at the end."
)]
pub(super) struct LintArgs {
    /// A namespace to check; repeatable [default: the namespace of the kubeconfig's context]
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        conflicts_with = "all_namespaces"
    )]
    namespace: Vec<String>,

    /// Check all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Which Secrets to read, to find those that are missing or don't match the images
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Secrets::Discovered)]
    secrets: Secrets,

    /// Timeout for the whole check
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = long_duration)]
    timeout: Duration,

    #[command(flatten)]
    printing: Printing,

    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Secrets {
    /// None; whether a Secret is missing or matches is then unknown
    None,
    /// Those that workloads name, one request for each, and those in the namespace of a workload that names none
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
                Error::Message(format!(
                    "the API server did not return everything within {} s; allow more time with --timeout",
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
