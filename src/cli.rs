//! The command line: arguments in, a check; a report out, an exit code.
//!
//! stdout is the result, stderr is talk.

mod progress;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::credentials::{self, CredentialsError};
use crate::diagnose::Pull;
use crate::diagnose::cause::{self, Cause};
use crate::model::platform::Platform;
use crate::model::reference::Reference;
use crate::model::vantage::{NetworkView, Unseen, Vantage};
use crate::net::dns::Families;
use crate::net::resolv::{self, ResolverConfig, ResolverConfigError};
use crate::net::roots::{self, RootsError};
use crate::net::tls::TlsClient;
use crate::probe::{self, Check, Edges, KnownManifests, Override};
use crate::registry::keyring::Keyring;
use crate::report::text::{self, Style};
use crate::report::{Document, Report};
use progress::ProgressLine;

/// Pulls that are walked at the same time: enough for the images of a pod, few enough that a
/// registry sees less than it does from one node's kubelet.
const SIDE_BY_SIDE: usize = 4;

/// Every pull would succeed.
const SUCCESS: u8 = 0;
/// At least one pull would fail.
const FAILURE: u8 = 1;
/// It could not be told, or the probe could not run.
const CANNOT_TELL: u8 = 2;

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
    Probe(Box<Probe>),
    /// Explain a cause that a report names; without a code, list them all
    Explain {
        /// The code, for instance tls_unknown_ca
        code: Option<String>,
        /// Print the catalogue as Markdown (docs/causes.md)
        #[arg(long, hide = true, conflicts_with = "code")]
        markdown: bool,
    },
    /// Print the JSON Schema of `probe -o json`
    Schema,
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

/// Exit status: 0 a pull would succeed (warnings allowed), 1 at least one would fail, 2 it could
/// not be told or the probe could not run.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 every pull would succeed (warnings allowed), 1 at least one would fail,\n\
                        2 it could not be told, or the probe could not run."
)]
struct Probe {
    /// Images, written as in a pod's `image:`
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<Reference>,

    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// The platform whose image is wanted [default: linux on this machine's processor]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,

    /// The longest wait for any single answer from the network
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = wait)]
    timeout: Duration,

    /// Say more about what is done, on standard error; twice for still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// When to colour the text
    #[arg(long, value_enum, default_value_t = When::Auto)]
    color: When,

    #[command(flatten)]
    credentials: CredentialArgs,

    #[command(flatten)]
    network: NetworkArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Credentials")]
struct CredentialArgs {
    /// A Secret manifest (YAML or JSON), as `kubectl get secret NAME -o yaml` prints it; repeatable, in the pod's order
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,

    /// A docker config.json or containers auth.json [default, when no other credential is given: the usual places]
    #[arg(long, value_name = "FILE")]
    docker_config: Option<PathBuf>,

    /// A user for the registry; the password is read from standard input
    #[arg(long, value_name = "USER", requires = "password_stdin")]
    username: Option<String>,

    /// Read the password of --username from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Network")]
struct NetworkArgs {
    /// Trust these authorities too (PEM), as `ca` in containerd's hosts.toml does; repeatable
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,

    /// Talk plain HTTP to the registry, as hosts.toml with `server = "http://…"` does
    #[arg(long)]
    plain_http: bool,

    /// Ask this name server instead of those of resolv.conf; repeatable
    #[arg(long, value_name = "IP[:PORT]", value_parser = nameserver)]
    nameserver: Vec<SocketAddr>,

    /// Use this address for a host and port, without asking; repeatable
    #[arg(long, value_name = "HOST:PORT:ADDR", value_parser = override_of)]
    resolve: Vec<Override>,

    /// The resolver's settings, for instance the node's own file mounted into a pod
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,

    /// The hosts file, read before any name server is asked
    #[arg(long, value_name = "FILE", default_value = "/etc/hosts")]
    hosts_file: PathBuf,

    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,

    /// IPv6 only
    #[arg(short = '6')]
    ipv6: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For a person
    Text,
    /// For a program; `pullpath schema` describes it
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

/// Why the program could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Resolver(#[from] ResolverConfigError),
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error("no cause has the code '{code}'{}; `pullpath explain` lists all", near(.nearest))]
    NoSuchCause {
        code: String,
        nearest: Vec<&'static str>,
    },
    #[error("can't start: {0}")]
    Runtime(#[source] io::Error),
    #[error("can't write the result: {0}")]
    Write(#[source] io::Error),
    #[error("a walk ended abnormally; this is a defect of pullpath")]
    Panicked,
}

/// Runs the program with its arguments, the program's name first; the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
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

fn run(cli: Cli, out: &mut dyn Write) -> Result<u8, Error> {
    let text = match cli.command {
        Command::Probe(args) => return probe_all(*args, out),
        Command::Explain { markdown: true, .. } => cause::markdown(),
        Command::Explain { code: None, .. } => cause::list(),
        Command::Explain {
            code: Some(code), ..
        } => match code.parse::<Cause>() {
            Ok(cause) => cause::explain(cause),
            Err(_) => {
                return Err(Error::NoSuchCause {
                    nearest: nearest(&code),
                    code,
                });
            }
        },
        Command::Schema => {
            let schema = Document::schema();
            let mut text =
                serde_json::to_string_pretty(&schema).map_err(|e| Error::Write(e.into()))?;
            text.push('\n');
            text
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pullpath", &mut script);
            out.write_all(&script).map_err(Error::Write)?;
            return Ok(SUCCESS);
        }
    };
    out.write_all(text.as_bytes()).map_err(Error::Write)?;
    Ok(SUCCESS)
}

fn probe_all(args: Probe, out: &mut dyn Write) -> Result<u8, Error> {
    start_logging(args.verbose);
    // A walk waits; it does not compute. One thread is enough, and the smallest.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let stderr_is_terminal = io::stderr().is_terminal();
    let progress = Arc::new(ProgressLine::new(stderr_is_terminal && args.verbose == 0));
    let output = args.output;
    let style = Style {
        color: use_color(args.color),
    };
    let reports = runtime.block_on(walk_all(args, Arc::clone(&progress)))?;
    progress.clear();

    let document = Document::new(reports);
    match output {
        Output::Text => {
            for (index, report) in document.reports.iter().enumerate() {
                if index > 0 {
                    out.write_all(b"\n").map_err(Error::Write)?;
                }
                out.write_all(text::render(report, style).as_bytes())
                    .map_err(Error::Write)?;
            }
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &document)
                .map_err(|e| Error::Write(e.into()))?;
            out.write_all(b"\n").map_err(Error::Write)?;
        }
    }
    Ok(match document.pull() {
        Pull::WouldSucceed => SUCCESS,
        Pull::WouldFail => FAILURE,
        Pull::Unknown => CANNOT_TELL,
    })
}

async fn walk_all(args: Probe, progress: Arc<ProgressLine>) -> Result<Vec<Report>, Error> {
    let request = credential_request(&args.credentials)?;
    let edges = Arc::new(edges(&args.network, args.timeout)?);
    let platform = args.platform.unwrap_or_else(Platform::local);
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut walks = JoinSet::new();
    for (index, reference) in args.references.into_iter().enumerate() {
        let sources =
            credentials::load(&request, &reference, |name| std::env::var_os(name)).await?;
        let check = Check {
            reference,
            platform: platform.clone(),
            keyring: Arc::new(Keyring::new(sources)),
            plain_http: args.network.plain_http,
        };
        let (edges, progress, places) = (
            Arc::clone(&edges),
            Arc::clone(&progress),
            Arc::clone(&places),
        );
        walks.spawn(async move {
            let _place = places.acquire().await;
            let watch = progress.watch(check.reference.to_string());
            (
                index,
                Report::conclude(probe::pull(&check, &edges, &watch, Timestamp::now()).await),
            )
        });
    }
    let mut reports = Vec::new();
    while let Some(joined) = walks.join_next().await {
        reports.push(joined.map_err(|_| Error::Panicked)?);
    }
    reports.sort_by_key(|(index, _)| *index);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

fn credential_request(args: &CredentialArgs) -> Result<credentials::Request, Error> {
    let login = match &args.username {
        Some(username) => Some((
            username.clone(),
            credentials::password_from(io::stdin().lock())?,
        )),
        None => None,
    };
    Ok(credentials::Request {
        login,
        secret_files: args.secret_file.clone(),
        docker_config: args.docker_config.clone(),
    })
}

fn edges(args: &NetworkArgs, wait: Duration) -> Result<Edges, Error> {
    let mut resolver = ResolverConfig::load(&args.resolv_conf, &args.hosts_file)?;
    if !args.nameserver.is_empty() {
        resolver = resolver.with_nameservers(args.nameserver.clone());
    }
    let (store, roots) = roots::load(&args.ca_file)?;
    let vantage = vantage(&resolver, &|name| std::env::var(name).ok());
    let families = match (args.ipv4, args.ipv6) {
        (true, _) => Families::V4Only,
        (_, true) => Families::V6Only,
        _ => Families::Both,
    };
    Ok(Edges {
        resolver,
        overrides: args.resolve.clone(),
        families,
        tls: TlsClient::new(store),
        roots,
        vantage,
        wait,
        known: KnownManifests::default(),
    })
}

/// Where we stand, as far as the environment tells: Kubernetes sets KUBERNETES_SERVICE_HOST in
/// every pod; HOST_IP and POD_IP are what a manifest sets from the downward API.
fn vantage(resolver: &ResolverConfig, environment: &dyn Fn(&str) -> Option<String>) -> Vantage {
    let network = match (
        environment("KUBERNETES_SERVICE_HOST"),
        environment("HOST_IP"),
        environment("POD_IP"),
    ) {
        (None, _, _) => NetworkView::Machine,
        (Some(_), Some(host), Some(pod)) if host == pod => NetworkView::Node,
        (Some(_), Some(_), Some(_)) => NetworkView::Pod,
        (Some(_), _, _) => NetworkView::PodOrNode,
    };
    let mut unseen = vec![
        Unseen::NodeCredentials,
        Unseen::Mirrors,
        Unseen::Proxy,
        Unseen::NodeRoots,
    ];
    if network != NetworkView::Node {
        unseen.push(Unseen::NodeResolver);
    }
    unseen.push(Unseen::ImageStore);
    Vantage {
        network,
        nameservers: resolver.nameservers.clone(),
        resolver_source: resolver.source.clone(),
        resolver_emulated: "go".to_owned(),
        unseen,
    }
}

/// Only our own events: those of the libraries below may hold headers.
fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let filter = tracing_subscriber::filter::Targets::new().with_target("pullpath", level);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // Fails only when a subscriber is there already, as when tests call us twice.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
}

/// https://no-color.org: set and not empty means no colour.
fn use_color(when: When) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
            !refused && !dumb && io::stdout().is_terminal()
        }
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|_| "not a duration; write for instance 10s or 500ms".to_owned())?;
    match Duration::try_from(duration) {
        Ok(d) if d >= Duration::from_millis(1) && d <= Duration::from_mins(5) => Ok(d),
        _ => Err("must be between 1ms and 5m".to_owned()),
    }
}

fn nameserver(text: &str) -> Result<SocketAddr, String> {
    resolv::parse_nameserver(text).map_err(|error| error.to_string())
}

fn override_of(text: &str) -> Result<Override, String> {
    let wrong = || {
        format!("'{text}' is not HOST:PORT:ADDR, for instance registry.example.com:443:10.0.3.9")
    };
    let mut parts = text.splitn(3, ':');
    let (Some(host), Some(port), Some(address)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(address);
    let address: IpAddr = bare.parse().map_err(|_| wrong())?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(Override {
        host: host.to_owned(),
        port,
        address,
    })
}

/// Codes that share the most with a mistyped one: same beginning, or one holds the other.
fn nearest(code: &str) -> Vec<&'static str> {
    let code = code.to_ascii_lowercase().replace('-', "_");
    let stem: String = code.chars().take(4).collect();
    Cause::ALL
        .iter()
        .map(|cause| cause.code())
        .filter(|known| known.contains(&code) || (stem.len() == 4 && known.starts_with(&stem)))
        .take(6)
        .collect()
}

fn near(nearest: &[&'static str]) -> impl fmt::Display {
    if nearest.is_empty() {
        String::new()
    } else {
        format!("; near it are {}", nearest.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn overrides_read_host_port_address() {
        let read = override_of("reg.test:443:::1").unwrap();
        assert_eq!(
            (read.host.as_str(), read.port, read.address),
            ("reg.test", 443, "::1".parse().unwrap())
        );
        assert!(override_of("reg.test:443:[fd00::1]").is_ok());
        for wrong in [
            "reg.test",
            "reg.test:443",
            "reg.test:x:127.0.0.1",
            ":443:127.0.0.1",
            "reg.test:0:127.0.0.1",
            "r:1:h",
        ] {
            assert!(override_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wait_is_bounded() {
        assert_eq!(wait("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(wait("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "2", "-1s", "0s", "6m", "soon"] {
            assert!(wait(wrong).is_err(), "{wrong}");
        }
    }
}
