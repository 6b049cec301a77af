//! The command line: parses the arguments, runs the command, prints its result and returns the exit status.
//!
//! The result goes to standard output; progress, logs and errors go to standard error.

mod access;
mod args;
mod cluster;
mod credential;
mod doctor;
mod error;
mod explain;
mod input;
mod lint;
mod network_args;
mod node_check;
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
use crate::report::Document;
use error::Error;
use output::{SUCCESS, UNKNOWN, pretty_json};

/// Finds out why a Kubernetes node can't pull an image, and what to change.
#[derive(Debug, Parser)]
#[command(name = "pullpath", version = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("PULLPATH_COMMIT"), ")"))]
#[command(max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check whether an image can be pulled, without pulling it: what fails, why, and how to fix it
    Probe(Box<probe::Probe>),
    /// Show why pods wait for their images: the kubelet's messages, and a check on the pods' node
    Why(Box<why::WhyArgs>),
    /// Wait, in an init container, until the pod's EIP (Elastic IP) is bound and an image could be pulled
    Wait(Box<wait::WaitArgs>),
    /// Show this vantage point: its network, cloud and egress, and what can't be observed from it
    Vantage(Box<vantage::VantageArgs>),
    /// Diagnose saved reports again with the rules of this version; no request is sent
    Replay(replay::Replay),
    /// Check pull secrets
    Secret(secret::SecretArgs),
    /// Find problems of workloads and their pull secrets in a cluster before any image is pulled
    Lint(lint::LintArgs),
    /// Explain a cause that a report names, or an error text of a pull; without either, list all causes
    Explain(explain::ExplainArgs),
    /// Run the daemon of a node: check the configured targets, serve metrics, a status page and an API
    Run(Box<run::RunArgs>),
    /// Run the cluster role: watch real pulls in the kubelets' Events, and lint workloads, once per cluster
    Cluster(Box<cluster::ClusterArgs>),
    /// Check an installation where it runs: configuration, rights, files, resolver, clock, egress; with fixes
    Doctor(Box<doctor::DoctorArgs>),
    /// Print the daemon's result in one line, for node-problem-detector
    NodeCheck(node_check::NodeCheckArgs),
    /// Check a configuration, or print the supported keys
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print docs/metrics.md
    #[command(hide = true)]
    Metrics,
    /// Print the JSON Schema of `probe -o json`
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// The shell to print it for
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration, and show the first error with its line
    Check {
        /// The configuration (YAML); `-` is standard input
        file: PathBuf,
    },
    /// Print the JSON Schema of a configuration
    Schema,
    /// Print a configuration with every key, its default and its meaning
    Example,
}

/// Runs the program with its arguments, of which the first is the program's name, and returns the exit
/// status: 0, 1 or 2, whose meaning is in the help of each command; 2 also for any error.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { UNKNOWN } else { SUCCESS };
            // Fails only if the pipe is closed, and then there is no reader.
            let _ = error.print();
            return code;
        }
    };
    let mut out = io::stdout().lock();
    match run(cli, &mut out).and_then(|code| out.flush().map(|()| code).map_err(Error::Write)) {
        Ok(code) => code,
        // The reader closed the pipe, for instance `head`.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            UNKNOWN
        }
    }
}

/// All commands with their options, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let command = named_as_called(Cli::command(), args.first());
    if is_plugin(args.first()) && wants_default(args.get(1)) {
        args.insert(1, "why".into());
    }
    command
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches))
}

/// Whether the program accepts these arguments, of which the first is the program's name. A test checks with
/// it the commands that documents show.
///
/// # Errors
/// The message of the parser, if the program would reject the arguments. `--help` and `--version` are no
/// errors.
pub fn understands(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    match parse(args) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// The program that kubectl starts for `kubectl pullpath`: its plugins are programs named kubectl-NAME.
const AS_PLUGIN: &str = "kubectl-pullpath";

fn is_plugin(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_stem());
    name.is_some_and(|name| name == AS_PLUGIN)
}

/// Whether `kubectl pullpath` names no command: it then shows what waits, as `why` does. Options are those of `why`.
fn wants_default(first: Option<&OsString>) -> bool {
    let Some(first) = first.map(|first| first.to_string_lossy()) else {
        return true;
    };
    let of_program = ["-h", "--help", "-V", "--version"];
    first.starts_with('-') && !of_program.contains(&&*first)
}

/// Makes help and errors name the program as it was called.
fn named_as_called(command: clap::Command, program: Option<&OsString>) -> clap::Command {
    if is_plugin(program) {
        command
            .bin_name("kubectl pullpath")
            .after_help("Without a command: shows which pods wait for their images in the current namespace, as `why` does.")
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
        Command::Explain(args) => return explain::run(&args, out),
        Command::Run(args) => return run::run(*args),
        Command::Cluster(args) => return cluster::run(*args),
        Command::Doctor(args) => return doctor::run(&args, out),
        Command::NodeCheck(args) => return node_check::run(&args, out),
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

/// The content of docs/metrics.md: metrics of the daemon, then of the cluster role.
fn all_metrics() -> String {
    metrics::markdown() + &crate::cluster::metrics::markdown()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::settings_source::KEYS;

    #[test]
    fn only_the_plugin_has_a_default_command() {
        let command = |args: &[&str]| match parse(args.iter().map(Into::into)) {
            Ok(cli) => format!("{:?}", cli.command)
                .split('(')
                .next()
                .unwrap()
                .to_owned(),
            Err(error) => error.kind().to_string(),
        };
        let plugin = "/usr/local/bin/kubectl-pullpath";
        for args in [&[plugin][..], &[plugin, "-n", "shop"], &[plugin, "-A"]] {
            assert_eq!(command(args), "Why", "{args:?}");
        }
        assert_eq!(command(&[plugin, "schema"]), "Schema");
        for args in [
            &[plugin, "--help"][..],
            &[plugin, "-V"],
            &[plugin, "wy"],
            &["pullpath"],
            &["pullpath", "-A"],
        ] {
            assert_ne!(command(args), "Why", "{args:?}");
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_in_a_text_has_a_key_or_stands_in_a_command() {
        let mut flags: Vec<String> = Cli::command()
            .get_subcommands()
            .flat_map(clap::Command::get_arguments)
            .filter_map(|flag| flag.get_long().map(|long| format!("--{long}")))
            .collect();
        let keys = || KEYS.iter().map(|(flag, _)| (*flag).to_owned());
        for flag in keys() {
            assert!(flags.contains(&flag), "{flag} is no flag");
        }
        flags.retain(|flag| !keys().any(|key| key == *flag));
        let mut files = vec![PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/diagnose"
        ))];
        let mut found = Vec::new();
        while let Some(path) = files.pop() {
            if path.ends_with("tests") || path.ends_with("tests.rs") {
                continue;
            }
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let (rules, _tests) = source.split_once("#[cfg(test)]").unwrap_or((&source, ""));
            for line in rules.lines().filter(|line| !line.trim().starts_with("//")) {
                // Every second part is in backticks.
                let parts = line.split('`').enumerate();
                let mut texts = parts
                    .filter(|(index, part)| index % 2 == 0 || part.starts_with("--"))
                    .flat_map(|(_, part)| {
                        part.split(|c: char| c != '-' && !c.is_ascii_alphanumeric())
                    });
                if let Some(flag) = texts.find(|word| flags.iter().any(|flag| flag == word)) {
                    found.push(format!("{}: {flag}", path.display()));
                }
            }
        }
        assert!(
            found.is_empty(),
            "add to KEYS, or write the command: {found:#?}"
        );
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
