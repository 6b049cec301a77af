//! `pullpath probe`: arguments in, reports out.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use url::Url;

use super::args::{duration, long_duration};
use super::credential::{Credentials, OfCluster};
use super::error::Error;
use super::input;
use super::nodes::{self, NodeArgs};
use super::output::{Printing, pretty_json};
use super::probe_context::{CheckArgs, runtime};
use super::progress::ProgressLine;
use super::remote::Tier;
use super::service;
use super::tasks::in_order;
use crate::config::{LogFormat, LogLevel};
use crate::credentials;
use crate::model::credential::CredentialSource;
use crate::model::evidence::Evidence;
use crate::model::reference::Reference;
use crate::model::units::Bytes;
use crate::model::workload::PodUse;
use crate::probe;
use crate::probe::check::{Budget, Check, Effort};
use crate::pull_secret::keyring::{Keyring, LoadedSource};
use crate::pull_secret::secret;
use crate::report::{Document, Report};
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
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Probe {
    /// Images, written as in a pod's `image:`
    #[arg(required_unless_present = "filename", value_name = "REFERENCE")]
    references: Vec<Reference>,

    /// Manifests of workloads (Pod, Deployment, CronJob, …), `-` for standard input: all their images are probed, with the Secrets they name; repeatable
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,

    #[command(flatten)]
    printing: Printing,

    /// The longest wait for any single answer from the network
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// Say more about what is done, on standard error; twice for still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Show every HTTP exchange too, with secrets masked: what a bug report wants
    #[arg(long)]
    trace: bool,

    /// Show what each leg's path class rests on, and what speaks against it
    #[arg(long)]
    why: bool,

    /// Ask for the routers on the way to each leg too: a traceroute by TCP, with a few more connections
    #[arg(long)]
    hops: bool,

    /// Try at each leg whether a TLS ClientHello of two packets passes too, as newer clients send it: one more connection each
    #[arg(long)]
    large_hello: bool,

    /// Save each report in this folder, for `pullpath replay`
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,

    #[command(flatten)]
    transfer: TransferArgs,

    #[command(flatten)]
    check: CheckArgs,

    /// Where a proxy is used, walk once more without it, and compare
    #[arg(long, help_heading = "containerd's settings")]
    compare_direct: bool,

    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Transfer")]
struct TransferArgs {
    /// Measure how fast layers come: until the rate is known (auto), or all of them (full) [default: auto; off with --node and --all-nodes]
    #[arg(long, value_enum, value_name = "HOW")]
    transfer: Option<TransferMode>,

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
            Some(TransferMode::Off) => return None,
            None | Some(TransferMode::Auto) => false,
            Some(TransferMode::Full) => true,
        };
        Some(Budget {
            full,
            max_bytes: self.max_bytes,
            max_duration: self.max_duration,
            expected_within: self.expect_pull_within,
            control: self.control_url.clone(),
        })
    }

    /// Of a check that a node's daemon makes, within its own budgets.
    fn tier(&self, hops: bool) -> Result<Tier, Error> {
        match self.transfer {
            None | Some(TransferMode::Off) if hops => Ok(Tier::Path),
            None | Some(TransferMode::Off) => Ok(Tier::Reach),
            Some(TransferMode::Auto) => Ok(Tier::Transfer),
            Some(TransferMode::Full) => Err(Error::Told(
                "a node's daemon reads no whole image (--transfer full); its budgets hold: --transfer auto measures the rate within them"
                    .to_owned(),
            )),
        }
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

/// Walks all images and prints what came of it.
pub(super) fn run(args: Probe, out: &mut dyn Write) -> Result<u8, Error> {
    start_logging(args.verbose);
    let runtime = runtime()?;
    let printing = args.printing;
    if args.nodes.is_wished() {
        let wish = nodes::NodesRequest {
            references: &args.references,
            tier: args.transfer.tier(args.hops)?,
            nodes: &args.nodes,
            check: &args.check,
            printing,
            why: args.why,
        };
        return runtime.block_on(nodes::run(&wish, out));
    }
    let stderr_is_terminal = io::stderr().is_terminal();
    let progress = Arc::new(ProgressLine::new(stderr_is_terminal && args.verbose == 0));
    let (why, save_in) = (args.why, args.save.clone());
    let reports = runtime.block_on(walk_all(args, Arc::clone(&progress)))?;
    progress.clear();

    if let Some(folder) = &save_in {
        for report in &reports {
            save(report, folder)?;
        }
    }
    printing.print_reports(&Document::new(reports), why, out)
}

/// Writes a report into a file of its own, whose name tells when and what, and never over another.
fn save(report: &Report, folder: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_string_lossy().into_owned();
        move |error| Error::Told(format!("can't save the report to {path}: {error}"))
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let reference = report.evidence.reference.to_string();
    let is_odd = |c: char| !c.is_ascii_alphanumeric() && !".-".contains(c);
    let image: String = reference.replace(is_odd, "_").chars().take(120).collect();
    let at = report.evidence.started.strftime("%Y%m%dT%H%M%SZ");
    let text = pretty_json(&Document::new(vec![report.clone()]))?;
    for attempt in 1..=MAX_SAME_NAME {
        let more = match attempt {
            1 => String::new(),
            attempt => format!("-{attempt}"),
        };
        let path = folder.join(format!("{at}-{image}{more}.json"));
        match File::create_new(&path) {
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
    let credentials = args.check.credentials.prepare(&args.check.cluster).await?;
    let of_cluster = credentials.fetch().await;
    let mut wishes = wishes(&args, &credentials, &of_cluster).await?;
    let ground = args.check.ground(args.timeout, args.trace).await?;
    for wish in &mut wishes {
        wish.sources.extend(ground.of_node(&wish.reference).await);
    }
    let looking = ground.look();
    let edges = ground.edges;
    let large_hello = args.large_hello;
    let walks = wishes.into_iter().map(|wish| {
        let effort = Effort {
            hops: args.hops,
            transfer: args.transfer.budget(),
            ..Effort::default()
        };
        let keyring = Keyring::new(wish.sources);
        let check = Check {
            pods: wish.pods,
            asked_secrets: of_cluster.asked.clone(),
            compare_direct: args.compare_direct,
            ..args.check.of(wish.reference, keyring, effort)
        };
        let (edges, progress) = (Arc::clone(&edges), Arc::clone(&progress));
        async move {
            let watch = progress.watch(check.reference.to_string());
            let mut evidence = probe::pull(&check, &edges, &watch, Timestamp::now()).await;
            if large_hello {
                probe::large_hello::add(&mut evidence, &edges).await;
            }
            evidence
        }
    });
    let seen = in_order(SIDE_BY_SIDE, walks).await?;
    let walked = Instant::now();
    let mut vantage = looking.await.map_err(|_| Error::Panicked)?;
    vantage.waited = Some(walked.elapsed());
    let conclude = |mut evidence: Evidence| {
        evidence.vantage = vantage.clone();
        Report::conclude(evidence)
    };
    Ok(seen.into_iter().map(conclude).collect())
}

/// One image to be probed: for whoever asked, or for the containers that want it.
struct NodesRequest {
    reference: Reference,
    pods: Vec<PodUse>,
    sources: Vec<LoadedSource>,
}

/// The images that were named, then those of the manifests. Containers that want the same image
/// with the same Secrets share a walk.
async fn wishes(
    args: &Probe,
    credentials: &Credentials,
    of_cluster: &OfCluster,
) -> Result<Vec<NodesRequest>, Error> {
    let mut wishes: Vec<NodesRequest> = Vec::new();
    for reference in &args.references {
        let sources = credentials.load(of_cluster, reference, false).await?;
        wishes.push(NodesRequest {
            reference: reference.clone(),
            pods: Vec::new(),
            sources,
        });
    }
    if args.check.credentials.password_stdin
        && args.filename.iter().any(|path| input::is_stdin(path))
    {
        return Err(Error::Told(
            "standard input can't be both the manifest (-f -) and the password (--password-stdin); give the manifest as a file"
                .to_owned(),
        ));
    }
    for path in &args.filename {
        let shown = input::shown(path);
        let bytes = input::read(path, MAX_MANIFEST).map_err(|error| {
            Error::Told(format!(
                "cannot read {shown}, given with --filename: {error}"
            ))
        })?;
        // Secrets that come in the same file, as kustomize and Helm print them.
        let beside: Vec<LoadedSource> = secret::read(&bytes, &shown)
            .into_iter()
            .filter(|s| matches!(&s.source, CredentialSource::SecretFile { name, .. } if !name.is_empty()))
            .collect();
        for (reference, mut pod) in workload::read(&bytes, &shown).map_err(Error::Told)? {
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
            let mut given = credentials.load(of_cluster, &reference, true).await?;
            given.extend(beside.iter().cloned());
            let (sources, sought) = credentials::for_pod(&given, &pod);
            pod.secrets = sought;
            wishes.push(NodesRequest {
                reference,
                pods: vec![pod],
                sources,
            });
        }
    }
    Ok(wishes)
}

/// etcd takes objects of 1.5 MiB; a file may have many.
const MAX_MANIFEST: u64 = 32 << 20;

/// On standard error.
fn start_logging(verbose: u8) {
    match verbose {
        0 => {}
        1 => service::start_logging(LogFormat::Text, LogLevel::Debug),
        _ => service::start_logging(LogFormat::Text, LogLevel::Trace),
    }
}
