//! `pullpath probe`: arguments in, reports out.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use url::Url;

use super::place::PlaceArgs;
use super::progress::ProgressLine;
use super::{Error, Output, When, duration, input, long_duration};
use crate::config::Network;
use crate::containerd::{self, Settings};
use crate::credentials;
use crate::model::credential::CredentialSource;
use crate::model::evidence::Evidence;
use crate::model::platform::Platform;
use crate::model::reference::Reference;
use crate::model::units::Bytes;
use crate::model::workload::PodUse;
use crate::probe::{self, Budget, Check, Edges, Effort, KnownManifests, Override};
use crate::registry::keyring::{Keyring, LoadedSource};
use crate::registry::secret;
use crate::report::{Document, Report};
use crate::surroundings::NodeTold;
use crate::surroundings::place::{Place, containerd_files};
use crate::workload;

/// Pulls that are walked at the same time: enough for the images of a pod, few enough that a
/// registry sees less than it does from one node's kubelet.
const SIDE_BY_SIDE: usize = 4;

/// Exit status: 0 a pull would succeed (warnings allowed), 1 at least one would fail, 2 it could
/// not be told or the probe could not run.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 every pull would succeed (warnings allowed), 1 at least one would fail,\n\
                        2 it could not be told, or the probe could not run."
)]
pub(super) struct Probe {
    /// Images, written as in a pod's `image:`
    #[arg(required_unless_present = "filename", value_name = "REFERENCE")]
    references: Vec<Reference>,

    /// Manifests of workloads (Pod, Deployment, CronJob, …), `-` for standard input: all their images are probed, with the Secrets they name; repeatable
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,

    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// The platform whose image is wanted [default: linux on this machine's processor]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,

    /// The longest wait for any single answer from the network
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// Say more about what is done, on standard error; twice for still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// When to colour the text
    #[arg(long, value_enum, default_value_t = When::Auto)]
    color: When,

    /// Show every HTTP exchange too, with secrets masked: what a bug report wants
    #[arg(long)]
    trace: bool,

    /// Show what each leg's path class rests on, and what speaks against it
    #[arg(long)]
    why: bool,

    /// Ask for the routers on the way to each leg too: a traceroute by TCP, with a few more connections
    #[arg(long)]
    hops: bool,

    /// Save each report in this folder, for `pullpath replay`
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,

    #[command(flatten)]
    transfer: TransferArgs,

    #[command(flatten)]
    credentials: CredentialArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Transfer")]
struct TransferArgs {
    /// Measure how fast layers come: until the rate is known (auto), or all of them (full)
    #[arg(long, value_enum, value_name = "HOW", default_value_t = TransferMode::Auto)]
    transfer: TransferMode,

    /// The most that auto may read
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    max_bytes: Bytes,

    /// The longest that auto may last
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    max_duration: Duration,

    /// Tell when the image's layers would take longer than this at the rate measured
    #[arg(long, value_name = "DURATION", value_parser = long_duration)]
    expect_pull_within: Option<Duration>,

    /// A large file on another network, without redirects, read at the same time: tells a limit of ours from one of the registry's. No credential goes there
    #[arg(long, value_name = "URL", value_parser = control_url)]
    control_url: Option<Url>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransferMode {
    Auto,
    Off,
    Full,
}

impl TransferArgs {
    fn budget(&self) -> Option<Budget> {
        let full = match self.transfer {
            TransferMode::Off => return None,
            TransferMode::Auto => false,
            TransferMode::Full => true,
        };
        Some(Budget {
            full,
            max_bytes: self.max_bytes,
            max_duration: self.max_duration,
            expected_within: self.expect_pull_within,
            control: self.control_url.clone(),
        })
    }
}

/// What is read for comparison. Of a wrong one nothing is repeated: it may be signed.
fn control_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(
            "not a URL of http or https; write for instance https://example.com/100MB.bin"
                .to_owned(),
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user in it; only files that anybody may read are of use".to_owned());
    }
    Ok(url)
}

/// `16MiB`, `2MB`, or a plain number of bytes; not none.
fn size(text: &str) -> Result<Bytes, String> {
    let size = text.parse().ok().filter(|bytes| *bytes > Bytes(0));
    size.ok_or_else(|| "not a size; write for instance 16MiB".to_owned())
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
#[command(next_help_heading = "containerd's settings")]
struct ContainerdArgs {
    /// The folder of containerd's REGISTRY/hosts.toml (its `config_path`) [default: as config.toml says]
    #[arg(long, value_name = "DIR")]
    hosts_dir: Option<PathBuf>,

    /// containerd's own file, read for `config_path` [default: /etc/containerd/config.toml, if it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "hosts_dir")]
    containerd_config: Option<PathBuf>,

    /// Take the proxies from here and not from this process: a systemd unit, drop-in or folder of them, or an environment file; repeatable
    #[arg(long, value_name = "FILE")]
    proxy_from: Vec<PathBuf>,

    /// Where a proxy is used, walk once more without it, and compare
    #[arg(long)]
    compare_direct: bool,
}

impl ContainerdArgs {
    /// With what the configuration names where an option names nothing.
    fn or(&self, network: &Network) -> containerd::Request {
        let configured = containerd_files(network);
        let own_folder = self.hosts_dir.is_some() || self.containerd_config.is_some();
        containerd::Request {
            hosts_dir: if own_folder {
                self.hosts_dir.clone()
            } else {
                configured.hosts_dir
            },
            config: if own_folder {
                self.containerd_config.clone()
            } else {
                configured.config
            },
            proxy_from: if self.proxy_from.is_empty() {
                configured.proxy_from
            } else {
                self.proxy_from.clone()
            },
        }
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Network")]
struct NetworkArgs {
    /// Talk plain HTTP to the registry, as hosts.toml with `server = "http://…"` does
    #[arg(long)]
    plain_http: bool,

    /// Use this address for a host and port, without asking; repeatable
    #[arg(long, value_name = "HOST:PORT:ADDR", value_parser = override_of)]
    resolve: Vec<Override>,
}

/// Walks all images and prints what came of it.
pub(super) fn run(args: Probe, out: &mut dyn Write) -> Result<u8, Error> {
    start_logging(args.verbose);
    // A walk waits; it does not compute. One thread is enough, and the smallest.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let stderr_is_terminal = io::stderr().is_terminal();
    let progress = Arc::new(ProgressLine::new(stderr_is_terminal && args.verbose == 0));
    let (output, color, why) = (args.output, args.color, args.why);
    let save_in = args.save.clone();
    let reports = runtime.block_on(walk_all(args, Arc::clone(&progress)))?;
    progress.clear();

    if let Some(folder) = &save_in {
        for report in &reports {
            save(report, folder)?;
        }
    }
    super::print(&Document::new(reports), output, color, why, out)
}

/// Writes a report into a file of its own, whose name tells when and what, and never over another.
fn save(report: &Report, folder: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_string_lossy().into_owned();
        move |source| Error::Save { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || ".-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let image: String = report
        .evidence
        .reference
        .to_string()
        .chars()
        .map(plain)
        .take(120)
        .collect();
    let at = report.evidence.started.strftime("%Y%m%dT%H%M%SZ");
    let document = Document::new(vec![report.clone()]);
    let mut text = serde_json::to_string_pretty(&document).map_err(|e| Error::Write(e.into()))?;
    text.push('\n');
    for attempt in 1..=MAX_SAME_NAME {
        let more = if attempt == 1 {
            String::new()
        } else {
            format!("-{attempt}")
        };
        let path = folder.join(format!("{at}-{image}{more}.json"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        match file {
            Ok(mut file) => {
                file.write_all(text.as_bytes()).map_err(failed(&path))?;
                let _ = writeln!(io::stderr(), "saved {}", path.display());
                return Ok(());
            }
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && attempt < MAX_SAME_NAME => {}
            Err(error) => return Err(failed(&path)(error)),
        }
    }
    Ok(())
}

/// Reports of one image in one second.
const MAX_SAME_NAME: u32 = 100;

async fn walk_all(args: Probe, progress: Arc<ProgressLine>) -> Result<Vec<Report>, Error> {
    let (config, place) = args.place.load(args.timeout)?;
    let mut wishes = wishes(&args).await?;
    for wish in &mut wishes {
        let of_node = place.node_credentials.load(&wish.reference).await;
        wish.sources.extend(of_node);
    }
    let settings = Settings::load(&args.containerd.or(&config.network), |name| {
        std::env::var(name).ok()
    })?;
    let base = place.vantage(&settings);
    let netlink = Place::netlink().await;
    // At the same time as the walks, which don't wait for it.
    let place = Arc::new(place);
    let looking = tokio::spawn({
        let (place, base, netlink) = (Arc::clone(&place), base.clone(), netlink.clone());
        async move {
            place
                .look(base, &config.network, &NodeTold::NotAsked, netlink)
                .await
        }
    });
    let edges = Arc::new(Edges {
        resolver: place.resolver.clone(),
        overrides: args.network.resolve.clone(),
        families: place.families,
        trust: place.trust.clone(),
        settings,
        trace: args.trace,
        transfer_turn: Mutex::new(()),
        vantage: base,
        netlink,
        wait: args.timeout,
        known: Arc::new(KnownManifests::default()),
    });
    let platform = args.platform.unwrap_or_else(Platform::local);
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut walks = JoinSet::new();
    for (index, wish) in wishes.into_iter().enumerate() {
        let check = Check {
            reference: wish.reference,
            platform: platform.clone(),
            pods: wish.pods,
            keyring: Arc::new(Keyring::new(wish.sources)),
            plain_http: args.network.plain_http,
            compare_direct: args.containerd.compare_direct,
            effort: Effort {
                hops: args.hops,
                transfer: args.transfer.budget(),
                ..Effort::default()
            },
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
                probe::pull(&check, &edges, &watch, Timestamp::now()).await,
            )
        });
    }
    let mut seen = Vec::new();
    while let Some(joined) = walks.join_next().await {
        seen.push(joined.map_err(|_| Error::Panicked)?);
    }
    seen.sort_by_key(|(index, _)| *index);
    let walked = Instant::now();
    let mut vantage = looking.await.map_err(|_| Error::Panicked)?;
    vantage.waited = Some(walked.elapsed());
    let conclude = |(_, mut evidence): (usize, Evidence)| {
        evidence.vantage = vantage.clone();
        Report::conclude(evidence)
    };
    Ok(seen.into_iter().map(conclude).collect())
}

/// One image to be probed: for whoever asked, or for the containers that want it.
struct Wish {
    reference: Reference,
    pods: Vec<PodUse>,
    sources: Vec<LoadedSource>,
}

/// The images that were named, then those of the manifests. Containers that want the same image
/// with the same Secrets share a walk.
async fn wishes(args: &Probe) -> Result<Vec<Wish>, Error> {
    let mut request = credential_request(&args.credentials)?;
    let environment = |name: &str| std::env::var_os(name);
    let mut wishes: Vec<Wish> = Vec::new();
    for reference in &args.references {
        let sources = credentials::load(&request, reference, environment).await?;
        wishes.push(Wish {
            reference: reference.clone(),
            pods: Vec::new(),
            sources,
        });
    }
    request.for_pods = true;
    if args.credentials.password_stdin && args.filename.iter().any(|path| input::is_stdin(path)) {
        return Err(Error::Manifest(
            "standard input can't be both the manifest (-f -) and the password (--password-stdin); give the manifest as a file"
                .to_owned(),
        ));
    }
    for path in &args.filename {
        let shown = input::shown(path);
        let bytes = input::read(path, MAX_MANIFEST).map_err(|error| {
            Error::Manifest(format!(
                "cannot read {shown}, given with --filename: {error}"
            ))
        })?;
        // Secrets that come in the same file, as kustomize and Helm print them.
        let beside: Vec<LoadedSource> = secret::read(&bytes, &shown)
            .into_iter()
            .filter(|s| matches!(&s.source, CredentialSource::SecretFile { name, .. } if !name.is_empty()))
            .collect();
        for workload in workload::read(&bytes, &shown).map_err(Error::Manifest)? {
            for (reference, mut pod) in workload.uses().map_err(Error::Manifest)? {
                let same = wishes.iter_mut().find(|wish| {
                    wish.reference == reference
                        && wish.pods.first().is_some_and(|first| {
                            first.path == pod.path
                                && first.namespace == pod.namespace
                                && first.pull_secrets == pod.pull_secrets
                        })
                });
                if let Some(wish) = same {
                    pod.secrets.clone_from(&wish.pods[0].secrets);
                    wish.pods.push(pod);
                    continue;
                }
                let mut given = credentials::load(&request, &reference, environment).await?;
                given.extend(beside.iter().cloned());
                let (sources, sought) = credentials::for_pod(&given, &pod);
                pod.secrets = sought;
                wishes.push(Wish {
                    reference,
                    pods: vec![pod],
                    sources,
                });
            }
        }
    }
    Ok(wishes)
}

/// etcd takes objects of 1.5 MiB; a file may have many.
const MAX_MANIFEST: u64 = 32 << 20;

fn credential_request(args: &CredentialArgs) -> Result<credentials::Request, Error> {
    let login = match &args.username {
        Some(username) => Some(credentials::Login {
            source: CredentialSource::CommandLine,
            username: username.clone(),
            password: credentials::password_from(io::stdin().lock())?,
        }),
        None => None,
    };
    Ok(credentials::Request {
        login,
        secret_files: args.secret_file.clone(),
        docker_config: args.docker_config.clone(),
        for_pods: false,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
