//! The command line: arguments in, a check; a report out, an exit code.
//!
//! stdout is the result, stderr is talk.

mod access;
mod args;
mod cluster;
mod credential;
mod error;
mod input;
mod lint;
mod network_args;
mod nodes;
mod output;
mod probe;
mod probe_context;
mod progress;
mod remote;
mod replay;
mod run;
mod secret;
mod service;
mod tasks;
mod vantage;
mod wait;
mod why;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::Config;
use crate::daemon::http::metrics;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::explain;
use crate::report::Document;
use error::Error;
use output::{CANNOT_TELL, SUCCESS, pretty_json};

/// Tells how a container image gets to a node, and why it doesn't.
#[derive(Debug, Parser)]
#[command(name = "pullpath", version = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("PULLPATH_COMMIT"), ")"))]
#[command(max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Walk the pull of an image without pulling it: what works, what doesn't, why, what to do
    Probe(Box<probe::Probe>),
    /// Tell why pods wait for their images: what the kubelet said, and a check on their node
    Why(Box<why::WhyArgs>),
    /// Wait, in an init container, until the pod's EIP is bound and a pull of an image would succeed
    Wait(Box<wait::WaitArgs>),
    /// Show what this place looks like: network, cloud, egress, and what can't be seen from it
    Vantage(Box<vantage::VantageArgs>),
    /// Judge saved reports again, with the rules of this version; nothing is contacted
    Replay(replay::Replay),
    /// Look at pull secrets
    Secret(secret::SecretArgs),
    /// Look for what is wrong with workloads and their pull secrets in a cluster, before anybody pulls
    Lint(lint::LintArgs),
    /// Explain a cause that a report names; without a code, list them all
    Explain {
        /// The code, for instance tls_unknown_ca
        code: Option<String>,
        /// Print the catalogue as Markdown (docs/causes.md)
        #[arg(long, hide = true, conflicts_with = "code")]
        markdown: bool,
    },
    /// Watch the targets of a configuration: metrics, a status page, an API
    Run(Box<run::RunArgs>),
    /// Watch what the whole cluster tells: real pulls, from the Events of kubelets
    Cluster(Box<cluster::ClusterArgs>),
    /// Check a configuration, or show what may stand in one
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print docs/metrics.md
    #[command(hide = true)]
    Metrics,
    /// Print the JSON Schema of `probe -o json`
    Schema,
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Tell what is wrong in a configuration, if anything is
    Check {
        /// `-` for standard input
        file: PathBuf,
    },
    /// Print the JSON Schema of a configuration
    Schema,
    /// Print a configuration with every key, its default and what it means
    Example,
}

/// Runs the program with its arguments, the program's name first; the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() {
                CANNOT_TELL
            } else {
                SUCCESS
            };
            // A closed pipe is all that can go wrong here, and then nobody reads.
            let _ = error.print();
            return code;
        }
    };
    let mut out = io::stdout().lock();
    match run(cli, &mut out).and_then(|code| out.flush().map(|()| code).map_err(Error::Write)) {
        Ok(code) => code,
        // Whoever read us has seen enough.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            CANNOT_TELL
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = called(Cli::command(), args.first());
    command
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches))
}

/// Whether the program may be called so; documents are held to it.
pub fn understands(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    match parse(args) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// What kubectl starts for `kubectl pullpath` (its plugins are programs called kubectl-NAME).
const AS_PLUGIN: &str = "kubectl-pullpath";

/// Help and errors name the program as it was called.
fn called(command: clap::Command, program: Option<&OsString>) -> clap::Command {
    let name = program.and_then(|program| Path::new(program).file_stem());
    if name.is_some_and(|name| name == AS_PLUGIN) {
        command.bin_name("kubectl pullpath")
    } else {
        command
    }
}

fn run(cli: Cli, out: &mut dyn Write) -> Result<u8, Error> {
    let text = match cli.command {
        Command::Probe(args) => return probe::run(*args, out),
        Command::Why(args) => return why::run(&args, out),
        Command::Wait(args) => return wait::run(&args, out),
        Command::Vantage(args) => return vantage::run(&args, out),
        Command::Replay(args) => return replay::run(&args, out),
        Command::Secret(args) => return secret::run(args, out),
        Command::Lint(args) => return lint::run(&args, out),
        Command::Explain { markdown: true, .. } => explain::markdown(),
        Command::Explain { code: None, .. } => explain::list(),
        Command::Explain {
            code: Some(code), ..
        } => match code.parse::<Cause>() {
            Ok(cause) => explain::explain(cause),
            Err(_) => return Err(no_such_cause(&code)),
        },
        Command::Run(args) => return run::run(*args),
        Command::Cluster(args) => return cluster::run(*args),
        Command::Config(ConfigCommand::Check { file }) => return run::check(&file),
        Command::Config(ConfigCommand::Schema) => pretty_json(&Config::schema())?,
        Command::Config(ConfigCommand::Example) => Config::EXAMPLE.to_owned(),
        Command::Metrics => all_metrics(),
        Command::Schema => pretty_json(&Document::schema())?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pullpath", &mut script);
            String::from_utf8_lossy(&script).into_owned()
        }
    };
    out.write_all(text.as_bytes()).map_err(Error::Write)?;
    Ok(SUCCESS)
}

/// docs/metrics.md: of the daemon, and of the cluster role.
fn all_metrics() -> String {
    metrics::markdown() + &crate::cluster::metrics::markdown()
}

/// With the codes that share the most with a mistyped one: same beginning, or one holds the other.
fn no_such_cause(given: &str) -> Error {
    let code = given.to_ascii_lowercase().replace('-', "_");
    let stem: String = code.chars().take(4).collect();
    let nearest: Vec<&str> = Cause::ALL
        .iter()
        .map(|cause| cause.code())
        .filter(|known| known.contains(&code) || (stem.len() == 4 && known.starts_with(&stem)))
        .take(6)
        .collect();
    let near = if nearest.is_empty() {
        String::new()
    } else {
        format!("; near it are {}", nearest.join(", "))
    };
    Error::Told(format!(
        "no cause has the code '{given}'{near}; `pullpath explain` lists all"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documentation_lists_every_family() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, all_metrics()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == all_metrics(),
            "docs/metrics.md differs from the tables; UPDATE_DOCS=1 cargo test writes it"
        );
    }
}
