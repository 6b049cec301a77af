//! `pullpath probe`: checks images, those named and those of manifests, and prints a report for each.

use std::collections::HashMap;
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
use super::probe_context::{CheckArgs, ProbeContext, runtime};
use super::progress::ProgressLine;
use super::remote::Tier;
use super::service;
use super::tasks::in_order;
use crate::config::{LogFormat, LogLevel};
use crate::credentials;
use crate::model::credential::CredentialSource;
use crate::model::documents::{self, ManifestNote};
use crate::model::evidence::Evidence;
use crate::model::reference::Reference;
use crate::model::units::Bytes;
use crate::model::workload::PodUse;
use crate::own;
use crate::probe;
use crate::probe::check::{Budget, Check, Effort};
use crate::pull_secret::keyring::{Keyring, LoadedSource};
use crate::pull_secret::secret;
use crate::report::{Document, Report};
use crate::workload;

/// Images that are checked at the same time: enough for the images of a pod, and fewer requests for a registry
/// than one node's kubelet makes.
const AT_ONCE: usize = 4;

/// Exit status: 0 every pull would succeed (warnings allowed), 1 at least one would fail, 2 unknown, or the
/// probe could not run.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 every pull would succeed (warnings allowed), 1 at least one would fail,\n\
                        2 it is unknown whether all would succeed, or the probe could not run."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Probe {
    /// Images, written as in a pod's `image:`
    #[arg(required_unless_present = "filename", value_name = "REFERENCE", value_parser = image)]
    references: Vec<Reference>,

    /// Manifests of workloads (Pod, Deployment, CronJob, …), `-` for standard input: check all their images with the Secrets they name; repeatable
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,

    #[command(flatten)]
    printing: Printing,

    /// Timeout for any single answer from the network
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// Log each step to standard error; twice for more detail
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Show every HTTP exchange too, with secrets masked, for a bug report
    #[arg(long)]
    trace: bool,

    /// Show the evidence for each leg's path class, and the evidence against it
    #[arg(long)]
    why: bool,

    /// Also find the routers on the path to each leg: a TCP traceroute, with a few more connections
    #[arg(long)]
    hops: bool,

    /// Also test at each leg whether a TLS ClientHello of two packets passes, as newer clients send it: one more connection each
    #[arg(long)]
    large_hello: bool,

    /// Save each report in this folder, for `pullpath replay`
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,

    #[command(flatten)]
    transfer: TransferArgs,

    #[command(flatten)]
    check: CheckArgs,

    /// If a proxy is used, check once more without it, and compare
    #[arg(long, help_heading = "containerd's settings")]
    compare_direct: bool,

    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Transfer")]
struct TransferArgs {
    /// Measure how fast layers download: until the rate is known (auto), or all layers (full) [default: auto; off with --node and --all-nodes]
    #[arg(long, value_enum, value_name = "HOW")]
    transfer: Option<TransferMode>,

    /// The maximum to download with auto
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    max_bytes: Bytes,

    /// The maximum time for auto
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    max_duration: Duration,

    /// Report it if the image's layers would take longer than this at the measured rate
    #[arg(long, value_name = "DURATION", value_parser = long_duration)]
    expect_pull_within: Option<Duration>,

    /// A large file on another network, without redirects, downloaded at the same time: shows whether the limit is ours or the registry's. No credential is sent there
    #[arg(long, value_name = "URL", value_parser = control_url)]
    control_url: Option<Url>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransferMode {
    /// Until the rate is known, within --max-bytes and --max-duration
    Auto,
    /// No transfer test
    Off,
    /// All layers
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

    /// The tier of a check that a node's daemon makes within its own budgets.
    fn tier(&self, hops: bool) -> Result<Tier, Error> {
        match self.transfer {
            None | Some(TransferMode::Off) if hops => Ok(Tier::Path),
            None | Some(TransferMode::Off) => Ok(Tier::Reach),
            Some(TransferMode::Auto) => Ok(Tier::Transfer),
            Some(TransferMode::Full) => Err(Error::Message(
                "a node's daemon can't download a whole image (--transfer full): use --transfer auto, which measures the rate within the daemon's budgets"
                    .to_owned(),
            )),
        }
    }
}

/// An image reference. A manifest given without `-f` is an error that names the option: `deploy.yaml` would
/// otherwise be the image `docker.io/library/deploy.yaml`.
fn image(text: &str) -> Result<Reference, String> {
    let parsed = text.parse::<Reference>().map_err(|error| error.to_string());
    let path = Path::new(text);
    let has_suffix = path.extension().is_some_and(|suffix| {
        let known = ["yaml", "yml", "json"];
        known.iter().any(|one| suffix.eq_ignore_ascii_case(one))
    });
    // A file without such a suffix may share its name with an image.
    if (has_suffix || parsed.is_err()) && path.is_file() {
        return Err(format!(
            "{text} is a file: to check the images of a manifest, use -f {text}"
        ));
    }
    parsed
}

/// The URL for comparison. An error does not repeat it, since it may be signed.
fn control_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(
            "not an http or https URL; write for instance https://example.com/100MB.bin".to_owned(),
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user; use the URL of a public file".to_owned());
    }
    Ok(url)
}

/// `16MiB`, `2MB`, or a plain number of bytes, more than 0.
fn size(text: &str) -> Result<Bytes, String> {
    let size = text.parse().ok().filter(|bytes| *bytes > Bytes(0));
    size.ok_or_else(|| "not a size; write for instance 16MiB".to_owned())
}

/// Checks all images and prints the reports.
pub(super) fn run(args: Probe, out: &mut dyn Write) -> Result<u8, Error> {
    start_logging(args.verbose);
    let runtime = runtime()?;
    let printing = args.printing;
    if args.nodes.is_requested() {
        let request = nodes::NodesRequest {
            references: &args.references,
            tier: args.transfer.tier(args.hops)?,
            nodes: &args.nodes,
            check: &args.check,
            printing,
            why: args.why,
        };
        return runtime.block_on(nodes::run(&request, out));
    }
    let stderr_is_terminal = io::stderr().is_terminal();
    let progress = Arc::new(ProgressLine::new(stderr_is_terminal && args.verbose == 0));
    let (why, save_in) = (args.why, args.save.clone());
    let document = runtime.block_on(check_all(args, Arc::clone(&progress)))?;
    progress.clear();

    if let Some(folder) = &save_in {
        for report in &document.reports {
            save(report, folder)?;
        }
    }
    printing.print_reports(&document, why, out)
}

/// Writes a report to a new file, named after its time and image; it never overwrites a file.
fn save(report: &Report, folder: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_string_lossy().into_owned();
        move |error| Error::Message(format!("can't save the report to {path}: {error}"))
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

/// The maximum number of reports of one image that start in the same second.
const MAX_SAME_NAME: u32 = 100;

async fn check_all(args: Probe, progress: Arc<ProgressLine>) -> Result<Document, Error> {
    let prepared = Box::pin(prepare(&args));
    let (prepared, own_limits) = own::scope(prepared).await;
    let (requests, notes, of_cluster, context) = prepared?;
    let vantage = context.observe();
    let probe_network = context.probe_network;
    let large_hello = args.large_hello;
    let checks = requests.into_iter().map(|request| {
        let effort = Effort {
            hops: args.hops,
            transfer: args.transfer.budget(),
            ..Effort::default()
        };
        let keyring = Keyring::new(request.sources);
        let check = Check {
            pods: request.pods,
            requested_secrets: of_cluster.requested.clone(),
            compare_direct: args.compare_direct,
            ..args.check.of(request.reference, keyring, effort)
        };
        let (probe_network, progress) = (Arc::clone(&probe_network), Arc::clone(&progress));
        async move {
            let watch = progress.watch(check.reference.to_string());
            let mut evidence = probe::pull(&check, &probe_network, &watch, Timestamp::now()).await;
            if large_hello {
                probe::large_hello::add(&mut evidence, &probe_network).await;
            }
            evidence
        }
    });
    let all = in_order(AT_ONCE, checks).await?;
    let checked = Instant::now();
    let mut vantage = vantage.await.map_err(|_| Error::Panicked)?;
    vantage.waited = Some(checked.elapsed());
    let conclude = |mut evidence: Evidence| {
        evidence.vantage = vantage.clone();
        evidence.note_own_limits(&own_limits);
        Report::conclude(evidence)
    };
    Ok(Document {
        notes,
        ..Document::new(all.into_iter().map(conclude).collect())
    })
}

/// Reads what the options name: the images, their credentials, and the settings of the node.
async fn prepare(
    args: &Probe,
) -> Result<
    (
        Vec<ImageRequest>,
        Vec<ManifestNote>,
        OfCluster,
        ProbeContext,
    ),
    Error,
> {
    let credentials = args.check.credentials.prepare(&args.check.cluster).await?;
    let of_cluster = credentials.fetch().await;
    let (mut requests, notes) = requests(args, &credentials, &of_cluster).await?;
    let context = args.check.context(args.timeout, args.trace).await?;
    for request in &mut requests {
        let of_node = context.of_node(&request.reference).await;
        request.sources.extend(of_node);
    }
    Ok((requests, notes, of_cluster, context))
}

/// One image to check.
struct ImageRequest {
    reference: Reference,
    /// The containers of manifests that use it; empty for an image given as an argument.
    pods: Vec<PodUse>,
    sources: Vec<LoadedSource>,
}

/// The images given as arguments, then those of the manifests, and what was not read of these. Containers of the same namespace and file with
/// the same image and Secrets share a check.
async fn requests(
    args: &Probe,
    credentials: &Credentials,
    of_cluster: &OfCluster,
) -> Result<(Vec<ImageRequest>, Vec<ManifestNote>), Error> {
    let mut requests: Vec<ImageRequest> = Vec::new();
    for reference in &args.references {
        let sources = credentials.load(of_cluster, reference, false).await?;
        requests.push(ImageRequest {
            reference: reference.clone(),
            pods: Vec::new(),
            sources,
        });
    }
    if args.check.credentials.password_stdin
        && args.filename.iter().any(|path| input::is_stdin(path))
    {
        return Err(Error::Message(
            "standard input can't be both the manifest (-f -) and the password (--password-stdin); give the manifest as a file"
                .to_owned(),
        ));
    }
    let (mut notes, mut failed) = (Vec::new(), Vec::new());
    let mut known: HashMap<SamePull, usize> = HashMap::new();
    for path in &args.filename {
        let shown = input::shown(path);
        let bytes = input::read(path, MAX_MANIFEST).map_err(|error| {
            Error::Message(format!(
                "can't read {shown}, given with --filename: {error}"
            ))
        })?;
        let documents = documents::read_each(&bytes)
            .map_err(|reason| Error::Message(format!("{shown}: {reason}")))?;
        drop(bytes);
        // Secrets in the same file, as kustomize and Helm print them.
        let in_file: Vec<LoadedSource> = secret::of_documents(&documents, &shown)
            .into_iter()
            .filter(|s| matches!(&s.source, CredentialSource::SecretFile { name, .. } if !name.is_empty()))
            .collect();
        let workloads = match workload::of_documents(&documents, &shown) {
            Ok(workloads) => workloads,
            Err(note) => {
                failed.push(note);
                continue;
            }
        };
        drop(documents);
        notes.extend(workloads.notes);
        for (reference, mut pod) in workloads.uses {
            let same = SamePull {
                reference: reference.clone(),
                path: pod.path.clone(),
                namespace: pod.namespace.clone(),
                pull_secrets: pod.pull_secrets.clone(),
            };
            if let Some(request) = known.get(&same).and_then(|at| requests.get_mut(*at)) {
                pod.secrets.clone_from(&request.pods[0].secrets);
                request.pods.push(pod);
                continue;
            }
            known.insert(same, requests.len());
            let mut given = credentials.load(of_cluster, &reference, true).await?;
            given.extend(in_file.iter().cloned());
            let (sources, lookups) = credentials::for_pod(&given, &pod);
            pod.secrets = lookups;
            requests.push(ImageRequest {
                reference,
                pods: vec![pod],
                sources,
            });
        }
    }
    if requests.is_empty() {
        let texts: Vec<String> = failed.into_iter().map(|note| note.text).collect();
        return Err(Error::Message(texts.join("\n")));
    }
    notes.extend(failed);
    Ok((requests, notes))
}

/// What containers have in common that share a check.
#[derive(Eq, Hash, PartialEq)]
struct SamePull {
    reference: Reference,
    path: String,
    namespace: Option<String>,
    pull_secrets: Vec<String>,
}

/// In bytes. etcd accepts objects of up to 1.5 MiB; a file may have many.
const MAX_MANIFEST: u64 = 96 << 20;

/// Logs to standard error if `--verbose` is given.
fn start_logging(verbose: u8) {
    match verbose {
        0 => {}
        1 => service::start_logging(LogFormat::Text, LogLevel::Debug),
        _ => service::start_logging(LogFormat::Text, LogLevel::Trace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_given_as_an_image_is_an_error_that_names_the_option() {
        for file in ["tests/data/pulls.yaml", "Cargo.toml"] {
            let error = image(file).unwrap_err();
            assert!(error.contains(&format!("use -f {file}")), "{error}");
        }
        // No such file, a file without the suffix of a manifest, and a folder.
        for reference in ["no-such.yaml", "src/lib.rs", "tests", "r.test/app:1"] {
            assert!(image(reference).is_ok(), "{reference}");
        }
    }
}
