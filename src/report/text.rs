//! Reports as text for a terminal: the verdict and its causes first, then every phase.

use std::fmt::Write as _;
use std::time::Duration;

use super::secret::{SecretDocument, SecretReport};
use super::{Document, Report, few, optional};
use crate::diagnose::level::Severity;
use crate::diagnose::path::leg_path::{LegPath, Reachability, Suggestion};
use crate::diagnose::secrets;
use crate::diagnose::throughput::Throughput;
use crate::diagnose::throughput::rate::Rate;
use crate::diagnose::{Finding, Pull};
use crate::model::connect::{Connected, Connection, Dial, Session, Tls};
use crate::model::credential::CredentialSource;
use crate::model::documents::{ManifestNote, NoteKind};
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::{Attempt, Challenge, Evidence, Leg, Walk};
use crate::model::fault::{Phase, TokenFault, instant, show_server};
use crate::model::hops::{Trace, TraceEnd};
use crate::model::hosts::{HostKind, HostsConfig};
use crate::model::kubelet::{PresentImages, present_images};
use crate::model::network::ClusterNetwork;
use crate::model::path::{EipOf, IntranetKind, PathAttributes, PathClass};
use crate::model::proxy::{Proxy, ProxyRoute, ProxySettings};
use crate::model::resolve::{Resolution, ResolutionSource, Resolve};
use crate::model::step::{Skip, Step};
use crate::model::text::{joined, wrapped};
use crate::model::transfer::{StageKind, StreamEnd, Transfer, TransferEnd};
use crate::model::units::{Bytes, HumanDuration, Mbit};
use crate::model::vantage::{NetworkView, NotObserved};
use crate::model::workload::PullPolicy;

/// The maximum width of prose, in columns.
const WIDTH: usize = 96;

/// How the text is styled.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Color and bold text by escape sequences (ECMA-48 SGR); none if false.
    pub color: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Ink {
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Ink {
    pub(super) fn of(severity: Severity) -> Self {
        match severity {
            Severity::Critical => Self::Bad,
            Severity::Warning => Self::Warn,
            Severity::Info => Self::Dim,
        }
    }
}

impl Style {
    pub(super) fn paint(self, ink: Ink, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Good => "32",
            Ink::Warn => "33",
            Ink::Bad => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The whole report of one image. `why`: with the evidence for each path class.
pub fn render(report: &Report, style: Style, why: bool) -> String {
    let mut page = Page::new(style);
    page.report(report, why, true);
    page.out
}

/// The reports of one run, then a summary if there are several. What could not be observed is printed once, at
/// the end, if it is the same for all.
pub fn render_all(document: &Document, style: Style, why: bool) -> String {
    let reports = &document.reports;
    let mut page = Page::new(style);
    let blocks: Vec<String> = reports
        .iter()
        .map(|report| not_observed(report, style))
        .collect();
    let is_same = reports.len() > 1 && blocks.iter().all(|block| *block == blocks[0]);
    for (index, report) in reports.iter().enumerate() {
        if index > 0 {
            page.line("");
        }
        page.report(report, why, !is_same);
    }
    if is_same && !blocks[0].is_empty() {
        page.line("");
        page.out.push_str(&blocks[0]);
    }
    if reports.len() > 1 {
        page.line("");
        page.summary(reports);
    }
    page.notes(&document.notes);
    page.out
}

/// The block of a report that lists what could not be observed.
fn not_observed(report: &Report, style: Style) -> String {
    let mut page = Page::new(style);
    page.not_observed(&report.evidence.vantage);
    page.out
}

/// Containers with the same image that are printed.
const MAX_PODS: usize = 10;

/// Notes of one kind that are printed.
const MAX_NOTES: usize = 20;

/// The result of `secret check`.
pub fn render_secrets(document: &SecretDocument, style: Style) -> String {
    let mut page = Page::new(style);
    for (index, report) in document.secrets.iter().enumerate() {
        if index > 0 {
            page.line("");
        }
        page.secret(report);
    }
    page.notes(&document.notes);
    page.out
}

pub(super) struct Page {
    pub(super) out: String,
    pub(super) style: Style,
}

impl Page {
    pub(super) fn new(style: Style) -> Self {
        Self {
            out: String::new(),
            style,
        }
    }

    pub(super) fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.line(&self.style.paint(Ink::Bold, text));
    }

    /// A heading below an empty line.
    pub(super) fn section(&mut self, text: &str) {
        self.line("");
        self.heading(text);
    }

    /// A heading with text beside it.
    pub(super) fn beside(&mut self, heading: &str, text: &str) {
        let heading = self.style.paint(Ink::Bold, heading);
        self.line(&format!("{heading}  {text}"));
    }

    /// Prose, wrapped at words; later lines are indented by `hang`.
    pub(super) fn hanging(&mut self, first: &str, hang: usize, text: &str) {
        self.out += &wrapped(first, hang, WIDTH, text);
    }

    /// The same, with later lines below the first.
    pub(super) fn prose(&mut self, first: &str, text: &str) {
        self.hanging(first, first.len(), text);
    }

    /// An item of a list.
    pub(super) fn item(&mut self, text: &str) {
        self.prose("  - ", text);
    }

    /// A sentence of its own.
    fn remark(&mut self, text: &str) {
        self.hanging("  ", 4, text);
    }

    pub(super) fn hint(&mut self, text: &str) {
        let hint = self.style.paint(Ink::Bold, "hint:");
        self.hanging(&format!("  {hint} "), 8, text);
    }

    pub(super) fn verdict(&self, pull: Pull, good: &str) -> String {
        let (ink, text) = match pull {
            Pull::WouldSucceed => (Ink::Good, good),
            Pull::WouldFail => (Ink::Bad, "a pull would FAIL"),
            Pull::Unknown => (Ink::Warn, "UNKNOWN whether a pull would succeed"),
        };
        self.style.paint(ink, text)
    }

    /// `lists_not_observed`: with the block of what could not be observed.
    fn report(&mut self, report: &Report, why: bool, lists_not_observed: bool) {
        self.head(report);
        self.paths(report, why);
        for finding in &report.verdict.findings {
            self.finding(finding);
        }
        self.details(report, lists_not_observed);
        // `why` shows the settings beside each leg.
        if !why {
            self.undecided(report);
        }
    }

    /// How many images would fail or are unknown, each with its first cause.
    /// What was not read of the files, below an empty line; the worst first.
    fn notes(&mut self, notes: &[ManifestNote]) {
        if !notes.is_empty() {
            self.line("");
        }
        for kind in [NoteKind::Unread, NoteKind::Warning, NoteKind::PassedOver] {
            let ink = match kind {
                NoteKind::Unread | NoteKind::Warning => Ink::Warn,
                NoteKind::PassedOver => Ink::Dim,
            };
            let of_kind = notes.iter().filter(|note| note.kind == kind);
            for note in of_kind.clone().take(MAX_NOTES) {
                let first = format!("{}: ", self.style.paint(ink, kind.as_str()));
                let text = wrapped(&first, 2, WIDTH, &note.to_string());
                self.out.push_str(&text);
            }
            let more = of_kind.count().saturating_sub(MAX_NOTES);
            if more > 0 {
                self.line(&format!("{}: {more} more, in -o json", kind.as_str()));
            }
        }
    }

    fn summary(&mut self, reports: &[Report]) {
        let all = reports.len();
        let mut is_good = true;
        for (pull, ink, words) in [
            (Pull::WouldFail, Ink::Bad, "would fail"),
            (Pull::Unknown, Ink::Warn, "unknown"),
        ] {
            let images: Vec<String> = reports
                .iter()
                .filter(|report| report.verdict.pull == pull)
                .map(|report| {
                    let cause = report.verdict.findings.first();
                    let cause = optional(cause, |one| format!(" {}", one.cause.code()));
                    format!("{}{cause}", report.evidence.reference)
                })
                .collect();
            is_good &= images.is_empty();
            let count = format!("{} of {all} {words}", images.len());
            let count = self.style.paint(ink, &count);
            match images.as_slice() {
                [] => {}
                [image] => self.line(&format!("{count}: {image}")),
                images => {
                    self.line(&format!("{count}:"));
                    for image in images {
                        self.line(&format!("  {image}"));
                    }
                }
            }
        }
        if is_good {
            let words = format!("all {all} would succeed");
            self.line(&self.style.paint(Ink::Good, &words));
        }
    }

    /// All evidence, below the verdict. `lists_not_observed`: with the block of what could not be observed.
    pub(super) fn details(&mut self, report: &Report, lists_not_observed: bool) {
        self.line("");
        self.hosts(report);
        self.proxies(&report.evidence);
        for leg in &report.evidence.walk.legs {
            self.leg(&report.evidence, leg);
        }
        self.image(report);
        self.throughput(report);
        self.pull_secrets(report);
        self.credentials(&report.evidence);
        if lists_not_observed {
            self.not_observed(&report.evidence.vantage);
        }
        self.trace(&report.evidence);
    }

    /// Path classes that a line of configuration decides.
    pub(super) fn undecided(&mut self, report: &Report) {
        let is_undecided = |path: &&LegPath| path.class == Some(PathClass::PrivateUnmapped);
        let mut shown: Vec<&Suggestion> = Vec::new();
        for path in report.verdict.paths.iter().filter(is_undecided) {
            // One setting is often enough for several legs.
            if let Some(suggestion) = path.suggestions.first()
                && !shown.contains(&suggestion)
            {
                shown.push(suggestion);
            }
        }
        if shown.is_empty() {
            return;
        }
        self.heading("path class not decided (the verdict does not depend on it)");
        for suggestion in shown {
            self.suggestion(suggestion, "  - ");
        }
    }

    fn head(&mut self, report: &Report) {
        let evidence = &report.evidence;
        let verdict = self.verdict(report.verdict.pull, "a pull would succeed");
        let (image, platform) = (&evidence.reference, &evidence.platform);
        self.beside(&image.to_string(), &platform.to_string());
        let is_autopilot =
            evidence.vantage.declared.cluster_network == Some(ClusterNetwork::Autopilot);
        let network = match evidence.vantage.network {
            // Beside containerd, this machine's roots are the node's.
            NetworkView::Machine
                if evidence
                    .vantage
                    .not_observed
                    .contains(&NotObserved::NodeRoots) =>
            {
                "this machine's network (not the node's; see the end)"
            }
            NetworkView::Machine => "this machine's network",
            NetworkView::Node => "the node's network",
            NetworkView::Pod if is_autopilot => "the pod's network, which Autopilot pulls through,",
            NetworkView::Pod => "a pod's network, not the node's, which the kubelet pulls through,",
            NetworkView::PodOrNode => "a pod's or its node's network, unknown which,",
        };
        self.line(&format!(
            "{verdict}, checked from {network} at {}",
            instant(evidence.started)
        ));
        for pod in evidence.pods.iter().take(MAX_PODS) {
            let default = if pod.policy_is_default {
                ", by default"
            } else {
                ""
            };
            let when = match pod.policy {
                PullPolicy::IfNotPresent => match present_images(evidence.kubelet.as_ref()) {
                    PresentImages::Used => ": pulled if the node doesn't have the image",
                    PresentImages::MayBeVerified => {
                        ": pulled if the node doesn't have the image, or has to verify the pod's credential"
                    }
                    PresentImages::Unknown => {
                        ": pulled if the node doesn't have the image, or (from Kubernetes 1.35 on) has to verify the pod's credential"
                    }
                },
                PullPolicy::Always | PullPolicy::Never => "",
            };
            let (container, policy) = (pod.place(), pod.policy.as_str());
            let text = format!("{container} (imagePullPolicy {policy}{default}{when})");
            self.prose("for ", &text);
        }
        let more = evidence.pods.len().saturating_sub(MAX_PODS);
        if more > 0 {
            self.line(&format!("for {more} more containers, which -o json lists"));
        }
    }

    /// How each leg is reached: one line, and more with `why`.
    pub(super) fn paths(&mut self, report: &Report, why: bool) {
        // The legs of a host that is not the image's own registry name it.
        let host = &report.evidence.walk.host;
        let deciding = (host.kind != HostKind::Registry).then_some(&host.endpoint);
        for path in &report.verdict.paths {
            self.path(path, path.of_host.as_ref().or(deciding), why);
        }
    }

    fn path(&mut self, path: &LegPath, of_host: Option<&Endpoint>, why: bool) {
        let (ink, class) = match path.class {
            None => (Ink::Dim, "no class".to_owned()),
            Some(class) => {
                let ink = match path.reachability {
                    Reachability::Reachable => Ink::Good,
                    Reachability::NotTried => Ink::Dim,
                    _ => Ink::Bad,
                };
                (ink, format!("{class}{}", attributes(path.attributes)))
            }
        };
        let role = self.style.paint(Ink::Bold, &format!("{:<8}", path.role));
        let class = self.style.paint(ink, &class);
        let of = optional(of_host, |host| format!("of {host}: "));
        let proxy = if path.attributes.via_proxy {
            "proxy "
        } else {
            ""
        };
        let reachability = path.reachability.describe();
        let mut line = format!("  {role}  {of}{class}, {proxy}{reachability}");
        if path.class.is_some() {
            let _ = write!(line, " · class confidence {}", path.confidence.as_str());
        }
        if why {
            let _ = write!(line, " ({:.2})", path.score);
        }
        if !path.needs.is_empty() {
            let needs: Vec<&str> = path.needs.iter().map(|class| class.as_str()).collect();
            let _ = write!(line, " · needs {}", needs.join(" or "));
        }
        self.line(&line);
        if !why {
            return;
        }
        for (mark, facts) in [("    + ", &path.evidence), ("    ! ", &path.contradictions)] {
            for fact in facts {
                self.prose(mark, &format!("{}: {}", fact.signal.as_str(), fact.message));
            }
        }
        for address in &path.addresses {
            let text = format!(
                "{} is {}, {}",
                address.address,
                address.class,
                address.reachability.describe()
            );
            self.prose("    = ", &text);
        }
        for candidate in &path.candidates {
            let text = format!(
                "may be {}, confidence {}",
                candidate.class,
                candidate.confidence.as_str()
            );
            self.prose("    ~ ", &text);
        }
        for fix in &path.fixes {
            self.prose("    > ", &format!("{}: {}", fix.class, fix.action));
        }
        for suggestion in &path.suggestions {
            self.suggestion(suggestion, "    ? ");
        }
    }

    /// The settings that would decide a class, each with a line to copy, which is not wrapped.
    fn suggestion(&mut self, suggestion: &Suggestion, first: &str) {
        self.prose(first, &format!("to decide it: {}", suggestion.message));
        let indent = " ".repeat(first.len() + 2);
        if let Some(line) = &suggestion.setting {
            self.line(&format!("{indent}{line}"));
        }
        for choice in &suggestion.choices {
            self.line(&format!("{indent}{}  # {}", choice.setting, choice.when));
        }
    }

    pub(super) fn finding(&mut self, finding: &Finding) {
        let severity = finding.severity.as_str();
        let confidence = finding.confidence.as_str();
        let leg = optional(finding.leg, |leg| format!(" · {leg}"));
        let phase = optional(finding.phase, |phase| format!(" · {phase}"));
        self.line("");
        let cause = finding.cause.code();
        let code = self.style.paint(Ink::of(finding.severity), cause);
        self.line(&format!(
            "{code}  {severity}{leg}{phase} · confidence {confidence}"
        ));
        self.prose("  ", finding.cause.entry().title);
        for fact in &finding.evidence {
            self.item(fact);
        }
        self.hint(&finding.hint);
        let more = format!("  more: pullpath explain {cause}");
        self.line(&self.style.paint(Ink::Dim, &more));
    }

    fn secret(&mut self, report: &SecretReport) {
        let secret = &report.secret;
        let worst = report.findings.iter().map(|f| f.severity).max();
        let verdict = match worst {
            Some(Severity::Critical) => self.style.paint(Ink::Bad, "can't work"),
            Some(Severity::Warning) => self.style.paint(Ink::Warn, "may not work"),
            Some(Severity::Info) | None => self.style.paint(Ink::Good, "no problem found"),
        };
        self.beside(&secret.source.to_string(), &verdict);
        if !secret.server_keys.is_empty() {
            self.prose("  for ", &secret.server_keys.join(", "));
        }
        for image in &report.images {
            let matching: Vec<&str> = image
                .keyring
                .candidates
                .iter()
                .map(|candidate| candidate.key.as_str())
                .collect();
            if !matching.is_empty() {
                let keys = matching.join("', '");
                let text = format!("matches {} with '{keys}'", image.image);
                self.remark(&text);
            }
        }
        for finding in &report.findings {
            self.finding(finding);
        }
        if secret.problem.is_none() {
            if !report.findings.is_empty() {
                self.line("");
            }
            self.remark(
                "The file doesn't show whether a registry accepts the password: `pullpath probe IMAGE --secret-file FILE` sends it to the registry.",
            );
        }
    }

    /// The hosts that containerd's configuration names for the registry, if it names any.
    fn hosts(&mut self, report: &Report) {
        let evidence = &report.evidence;
        let (HostsConfig::Read { folder: path, .. } | HostsConfig::ConfigToml { file: path, .. }) =
            &evidence.hosts
        else {
            return;
        };
        self.beside("hosts", &format!("in containerd's order, from {path}"));
        let mut walks: Vec<&Walk> = evidence.others.iter().chain([&evidence.walk]).collect();
        walks.sort_by_key(|walk| walk.host.position);
        let contacted = walks.len();
        for (index, walk) in walks.into_iter().enumerate() {
            self.host(walk, index + 1);
        }
        let why = if evidence.pulled == Some(true) || evidence.walk.serves_layers() {
            "a host before it serves the whole image"
        } else {
            "the pull ended before it"
        };
        for (index, host) in evidence.not_contacted.iter().enumerate() {
            let text = format!("{} {}: not tried: {why}", host.kind.as_str(), host.endpoint);
            let number = format!("{}.", contacted + index + 1);
            self.step_line(&number, Ink::Dim, "-", "", &text);
        }
        if let Some(failover) = &report.verdict.failover {
            let verb = match failover.serves {
                Some(true) => "answers",
                Some(false) => "would not serve the image",
                None => "may or may not serve the image",
            };
            self.remark(&format!(
                "If the mirror fails, {} {verb} ({}); {}.",
                failover.host, failover.answer, failover.cost
            ));
        }
    }

    fn host(&mut self, walk: &Walk, number: usize) {
        let mut serves = Vec::new();
        if walk.accepted().is_some() && walk.host.resolves && !walk.by_digest {
            serves.push("the tag");
        }
        if walk.manifest.done().is_some() {
            serves.push("the manifest");
        }
        if walk.serves_layers() && walk.blob != Step::skipped(Skip::OtherHost) {
            serves.push("the layers");
        }
        let failure = walk.failure();
        let mut text = format!("{} {}", walk.host.kind.as_str(), walk.host.endpoint);
        if let Some(failure) = &failure {
            let _ = write!(text, ": {failure}");
        } else if !serves.is_empty() {
            let _ = write!(text, ": serves {}", serves.join(", "));
        }
        if walk.host.skip_verify {
            text.push_str(", skip_verify");
        }
        if !walk.host.resolves {
            text.push_str(", not used for tags");
        }
        let (ink, mark) = if failure.is_some() {
            (Ink::Bad, "FAILED")
        } else {
            (Ink::Good, "ok")
        };
        self.step_line(&format!("{number}."), ink, mark, "", &text);
    }

    fn proxies(&mut self, evidence: &Evidence) {
        let proxies = &evidence.proxies;
        let ignored: Vec<String> = proxies.ignored.iter().map(ToString::to_string).collect();
        let notes = || {
            proxies
                .problems
                .iter()
                .chain(&ignored)
                .chain(&proxies.changed)
        };
        if proxies.https.is_none() && proxies.http.is_none() && notes().next().is_none() {
            return;
        }
        let text = format!("{}, from {}", by_scheme(proxies), proxies.source);
        self.beside("proxy", &text);
        if let Some(list) = &proxies.no_proxy {
            self.hanging("  except for ", 4, list);
        }
        for note in notes() {
            self.item(note);
        }
    }

    /// How fast layers download: in Mbit/s, the unit of bandwidth, and in MiB/s, the unit of files.
    fn throughput(&mut self, report: &Report) {
        let (Some(transfer), Some(throughput)) =
            (&report.evidence.walk.transfer, &report.verdict.throughput)
        else {
            return;
        };
        let total: u64 = transfer.streams.iter().map(|stream| stream.bytes.0).sum();
        let ended = match transfer.end {
            TransferEnd::Stable => "ended when the rate was known",
            TransferEnd::ByteLimit => "ended at the byte limit",
            TransferEnd::TimeLimit => "ended at the time limit",
            TransferEnd::Complete => "all layers were read",
            TransferEnd::Failed => "all streams failed",
            TransferEnd::Harmful => "ended because it delayed other traffic for too long",
            TransferEnd::Disturbed => "ended because other traffic needed the path",
        };
        let (total, took) = (Bytes(total), HumanDuration(transfer.took));
        let connections = count(transfer.connections, "connection", "connections");
        let text = format!("{total} in {took} over {connections}; {ended}");
        self.beside("transfer", &text);
        let stage = |kind: StageKind| transfer.stages.iter().find(|stage| stage.kind == kind);
        let streams = stage(StageKind::AsContainerd).map_or(1, |stage| stage.streams);
        let all = count(streams, "stream", "streams");
        for (name, rate) in [("1 stream", &throughput.one), (&all, &throughput.all)] {
            if let Some(rate) = rate {
                let rate = shown_rate(rate, throughput.disturbed.is_some());
                self.hanging(&format!("  {name:<9}  "), 13, &rate);
            }
        }
        self.measured(transfer, throughput);
        if let (Some(seconds), Some(found)) = (
            throughput.pull_seconds,
            report.evidence.walk.manifest.done(),
        ) {
            let took = HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
            let rate = throughput.rate();
            let bound = if rate.is_some_and(|rate| rate.is_sustained) {
                "about"
            } else {
                "at the measured rate about"
            };
            self.remark(&format!(
                "The {} of this image take {bound} {took} to download, without unpacking: an estimate.",
                found.layers_size
            ));
        }
        for stream in &transfer.streams {
            let digest = short(&stream.digest);
            let text = match &stream.end {
                StreamEnd::Complete {
                    digest_matches: false,
                } => format!("{digest}: the content doesn't match its digest"),
                StreamEnd::Failed { fault } => {
                    format!("{digest} from {}: {fault}", stream.endpoint)
                }
                _ => continue,
            };
            self.prose("  ! ", &text);
        }
    }

    /// Other measurements, and what limits the rate.
    fn measured(&mut self, transfer: &Transfer, throughput: &Throughput) {
        if let (Some(idle), Some(loaded)) = (throughput.idle_latency, throughput.loaded_latency) {
            self.line(&format!(
                "  latency    {} when idle, {} while layers download",
                HumanDuration(idle),
                HumanDuration(loaded)
            ));
        }
        if let Some(control) = &transfer.control {
            let bytes = control.arrivals.last().map_or(Bytes(0), |last| last.bytes);
            let fault = optional(control.fault.as_ref(), |fault| format!("; {fault}"));
            let text = format!("{bytes} from {} at the same time{fault}", control.endpoint);
            self.prose("  control    ", &text);
        }
        match (&throughput.bound_by, &throughput.unknown_because) {
            (Some(cause), _) => self.line(&format!("  limited by {}", cause.code())),
            (None, Some(because)) => {
                self.prose("  limited by ", &format!("unknown: {because}"));
            }
            (None, None) => {}
        }
    }

    /// Every HTTP exchange, for a bug report.
    fn trace(&mut self, evidence: &Evidence) {
        if evidence.trace.is_empty() {
            return;
        }
        self.beside("trace", "secrets and signed queries are masked (***)");
        for exchange in &evidence.trace {
            self.line("");
            self.line(&format!(
                "  {} {}   ({} leg, {}, {}, {})",
                exchange.method,
                exchange.url,
                exchange.role,
                exchange.phase,
                exchange.peer,
                HumanDuration(exchange.took)
            ));
            for (name, value) in &exchange.request_headers {
                self.line(&format!("  > {name}: {value}"));
            }
            match exchange.status {
                Some(status) => self.line(&format!("  < HTTP {status}")),
                None => self.line("  < no answer"),
            }
            for (name, value) in &exchange.response_headers {
                self.line(&format!("  < {name}: {value}"));
            }
            for line in exchange.error_body.iter().flat_map(|body| body.lines()) {
                self.line(&format!("  | {line}"));
            }
            if let Some(fault) = &exchange.fault {
                self.line(&format!("  ! {fault}"));
            }
        }
    }

    fn leg(&mut self, evidence: &Evidence, leg: &Leg) {
        let (name, endpoint) = (leg.role.as_str(), &leg.endpoint);
        if let Step::Skipped {
            reason: Skip::SharedConnection { role },
        } = leg.connect.outcome
        {
            let text = format!("{endpoint}  (over the {role} leg's connection)");
            self.beside(name, &text);
        } else {
            let route = match &leg.proxy_route {
                ProxyRoute::Direct | ProxyRoute::Exempt { .. } | ProxyRoute::Loopback => {
                    String::new()
                }
                ProxyRoute::Proxied { proxy, .. } => format!("  through {proxy}"),
                ProxyRoute::Excepted { entry, .. } => {
                    format!("  direct, because of '{entry}' in NO_PROXY")
                }
                ProxyRoute::Forced { .. } => "  without the proxy, as requested".to_owned(),
            };
            self.beside(name, &format!("{endpoint}{route}"));
            let whose = if leg.proxy_route.proxy().is_some() {
                "the proxy's address: "
            } else {
                ""
            };
            self.step("resolve", &leg.resolve.outcome, |found| {
                format!("{whose}{}", resolved(&leg.resolve, found))
            });
            self.step("connect", &leg.connect.outcome, |used| {
                connected(used, &leg.connect.attempts)
            });
            for dial in &leg.connect.attempts {
                if let Step::Failed { fault, took } = &dial.outcome
                    && leg.connect.attempts.len() > 1
                {
                    let (took, text) = (
                        HumanDuration(*took).to_string(),
                        format!("{}: {fault}", dial.to),
                    );
                    self.step_line("", Ink::Dim, "", &took, &text);
                }
            }
            if let Some(trace) = &leg.hops {
                let took = HumanDuration(trace.took).to_string();
                self.step_line("hops", Ink::Dim, "", &took, &hops(trace));
            }
            if let Some(tls) = &leg.proxy_tls
                && tls.outcome.done().is_some()
            {
                self.step("tls", &tls.outcome, |session| {
                    format!("with the proxy: {}", secured(session, tls, evidence))
                });
            }
            if let Some(tunnel) = &leg.tunnel {
                self.step("proxy", tunnel, |tunnel| {
                    let to = tunnel.to.authority();
                    match tunnel.status {
                        0 => format!("SOCKS5 to {to}: connected"),
                        status => format!("CONNECT {to}: HTTP {status}"),
                    }
                });
            }
            self.step("tls", &leg.tls.outcome, |session| {
                secured(session, &leg.tls, evidence)
            });
            for trial in &leg.other_addresses {
                if let Step::Failed { fault, took } = &trial.tls.outcome {
                    let took = HumanDuration(*took).to_string();
                    self.step_line("", Ink::Dim, "", &took, &format!("{}: {fault}", trial.to));
                }
            }
            if let Some(trial) = &leg.large_hello {
                self.step("hello", &trial.large, |_| {
                    format!("a ClientHello of {} bytes passes too", trial.bytes.0)
                });
            }
        }
        match leg.role {
            Role::Registry => self.ping(evidence),
            Role::Token => self.tokens(evidence),
            Role::Blob => {}
        }
    }

    fn ping(&mut self, evidence: &Evidence) {
        self.step("ping", &evidence.walk.ping, |ping| {
            let challenge = match &ping.challenge {
                Challenge::Anonymous => "no credential required".to_owned(),
                Challenge::Basic { .. } => "requires a user and password (Basic)".to_owned(),
                Challenge::Bearer { realm, service, .. } => {
                    let service = optional(service.as_ref(), |s| format!(", service '{s}'"));
                    format!("requires a token from {realm}{service}")
                }
                Challenge::Unusable { reason } => reason.clone(),
            };
            format!("GET /v2/: HTTP {}, {challenge}", ping.status)
        });
    }

    fn tokens(&mut self, evidence: &Evidence) {
        for attempt in &evidence.walk.attempts {
            self.step("token", &attempt.token, |grant| {
                let methods = attempt.exchanges.iter().map(|e| match &e.outcome {
                    Step::Done { value, .. } => format!("{} {value}", e.method),
                    Step::Failed { .. } => format!("{} failed", e.method),
                    Step::Skipped { .. } => e.method.clone(),
                });
                let life = optional(grant.expires_in_seconds, |s| format!(", valid for {s} s"));
                format!("{}{life}, {}", joined(methods), who(attempt))
            });
        }
    }

    fn image(&mut self, report: &Report) {
        let evidence = &report.evidence;
        self.beside("image", &evidence.reference.to_string());
        if evidence.walk.attempts.is_empty()
            && let Step::Skipped {
                reason: reason @ Skip::Blocked { .. },
            } = evidence.walk.manifest
        {
            let (mark, text) = skipped(reason);
            self.step_line("head", Ink::Dim, mark, "", &text);
        }
        for attempt in &evidence.walk.attempts {
            self.step_after_token("head", &attempt.head, Some(attempt), |head| {
                let digest = head.digest.as_deref();
                let digest = digest.map_or_else(|| "no digest".to_owned(), short);
                let method = if head.used_get { ", with GET" } else { "" };
                format!("{digest}, {}{method}", who(attempt))
            });
        }
        let last = evidence.walk.attempts.last();
        self.step_after_token("manifest", &evidence.walk.manifest, last, |found| {
            let platforms = match found.platforms.len() {
                0 => "a manifest without platform (a pull does not check it)".to_owned(),
                listed => {
                    let all = listed + found.platforms_left_out;
                    format!("{} of {all} platforms", evidence.platform)
                }
            };
            let layers = found.layers.len() + found.layers_left_out;
            let layers = count(layers, "layer", "layers");
            format!("{platforms}, {layers}, {} compressed", found.layers_size)
        });
        self.step_after_token("blob", &evidence.walk.blob, last, |found| {
            let itself = match evidence.walk.host.kind {
                HostKind::Registry => "the registry itself",
                HostKind::Mirror => "the mirror itself",
                HostKind::Server => "the same host",
            };
            let from = found.redirects.last();
            let from = from.map_or_else(|| itself.to_owned(), ToString::to_string);
            let resume = match found.range_honoured {
                Some(true) => ", can be resumed",
                Some(false) if found.range_refused_with.is_some() => ", Range refused",
                Some(false) => ", Range ignored",
                None => "",
            };
            let took = HumanDuration(found.first_byte);
            format!("first byte of a layer from {from} in {took}{resume}")
        });
        self.unread(report);
        if let Some(limit) = &evidence.walk.rate_limit {
            let number = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let window = optional(limit.window_seconds, |s| format!(" in {s} s"));
            let text = format!(
                "{} of {} pulls left{window}",
                number(limit.remaining),
                number(limit.limit)
            );
            self.step_line("limit", Ink::Dim, "", "", &text);
        }
    }

    /// Layers that were not read: only their sizes in the manifest are known. Omitted if a pull would fail
    /// anyway.
    fn unread(&mut self, report: &Report) {
        let unread = &report.verdict.unread;
        if unread.is_empty() || report.verdict.pull == Pull::WouldFail {
            return;
        }
        let mut walks = report.evidence.others.iter().chain([&report.evidence.walk]);
        let layers = walks.find_map(|walk| walk.manifest.done());
        let mut all: Vec<&str> = layers.map_or_else(Vec::new, |found| {
            found.layers.iter().map(|l| l.digest.as_str()).collect()
        });
        all.sort_unstable();
        all.dedup();
        let unread_bytes = unread
            .iter()
            .map(|layer| layer.size.0.saturating_sub(layer.read.0));
        let left_out = layers.map_or(0, |found| found.layers_left_out);
        let bytes_left_out = layers.map_or(0, |found| found.bytes_left_out().0);
        let text = format!(
            "not tested: contents of {} of {} ({})",
            unread.len() + left_out,
            count(all.len() + left_out, "layer", "layers"),
            Bytes(unread_bytes.fold(bytes_left_out, u64::saturating_add)),
        );
        self.remark(&text);
    }

    /// The result of each Secret that pods name, if there are several. With one, the rest of the report has it.
    fn pull_secrets(&mut self, report: &Report) {
        let secrets = &report.verdict.secrets;
        if secrets.len() < 2 {
            return;
        }
        self.beside("pull secrets", "in the pod's order");
        for secret in secrets {
            let namespace = optional(secret.namespace.as_ref(), |name| format!("{name}/"));
            self.item(&format!("{namespace}{}: {}", secret.name, secret.message));
        }
    }

    fn credentials(&mut self, evidence: &Evidence) {
        let keyring = &evidence.keyring;
        let logins = secrets::logins_of_runtime(evidence);
        let is_silent = keyring.candidates.is_empty()
            && logins.is_empty()
            && keyring.mismatches.is_empty()
            && keyring
                .sources
                .iter()
                .all(|s| s.problem.is_none() && s.lint.is_empty());
        if is_silent {
            return;
        }
        self.heading("credentials");
        for source in &keyring.sources {
            if let Some(problem) = &source.problem {
                self.item(&format!("{}: {problem}", source.source));
            }
            for lint in &source.lint {
                self.item(&format!("{}: {lint}", source.source));
            }
        }
        for candidate in &keyring.candidates {
            let what = match candidate.source {
                CredentialSource::CommandLine | CredentialSource::PasswordFile { .. } => "matches",
                _ => "key matches",
            };
            let result = secrets::result(evidence, candidate);
            self.item(&format!("{candidate}: {what}; {result}"));
        }
        for (login, result) in logins {
            self.item(&format!("{login}: {result}"));
        }
        for mismatch in &keyring.mismatches {
            self.item(&format!("{}: {}", mismatch.credential, mismatch.rule));
        }
    }

    /// `text`: the text of the step's value, if it is done.
    fn step<T, F: std::fmt::Display>(
        &mut self,
        name: &str,
        step: &Step<T, F>,
        text: impl FnOnce(&T) -> String,
    ) {
        match step {
            Step::Done { value, took } => {
                let took = HumanDuration(*took).to_string();
                self.step_line(name, Ink::Good, "ok", &took, &text(value));
            }
            Step::Failed { fault, took } => {
                let took = Some(*took).filter(|took| !took.is_zero());
                let took = optional(took, |took| HumanDuration(took).to_string());
                self.step_line(name, Ink::Bad, "FAILED", &took, &fault.to_string());
            }
            Step::Skipped { reason } => {
                let (mark, text) = skipped(*reason);
                self.step_line(name, Ink::Dim, mark, "", &text);
            }
        }
    }

    /// The same for a step after the token. Without a token service, no token "failed".
    fn step_after_token<T, F: std::fmt::Display>(
        &mut self,
        name: &str,
        step: &Step<T, F>,
        attempt: Option<&Attempt>,
        text: impl FnOnce(&T) -> String,
    ) {
        let is_after_token = matches!(
            step,
            Step::Skipped {
                reason: Skip::Blocked {
                    role: Role::Token,
                    phase: Phase::Token,
                },
            }
        );
        let words = match attempt.and_then(|attempt| attempt.token.fault()) {
            Some(TokenFault::NoCredential) if is_after_token => "no matching credential",
            Some(TokenFault::Unverified) if is_after_token => "no credential was sent",
            _ => "",
        };
        if words.is_empty() {
            self.step(name, step, text);
        } else {
            self.step_line(name, Ink::Dim, "-", "", &format!("not tried: {words}"));
        }
    }

    fn step_line(&mut self, name: &str, ink: Ink, mark: &str, took: &str, text: &str) {
        let mark = self.style.paint(ink, &format!("{mark:<6}"));
        self.line(&format!("  {name:<8}  {mark}  {took:>7}  {text}"));
    }
}

pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    let word = if number == 1 { one } else { many };
    format!("{number} {word}")
}

/// `19.1 Mbit/s (2.3 MiB/s) sustained, within 1.2 %, from 9.0 MiB in 4.0 s, after a burst of 0.5 MiB`.
fn shown_rate(rate: &Rate, is_disturbed: bool) -> String {
    let mbit = Mbit(rate.bytes_per_second);
    let mib = rate.bytes_per_second / f64::from(1 << 20);
    let mut text = format!("{mbit} ({mib:.1} MiB/s)");
    if rate.is_sustained {
        let spread = (rate.high_bytes_per_second - rate.low_bytes_per_second) / 2.0;
        let percent = spread / rate.bytes_per_second * 100.0;
        let _ = write!(text, " sustained, within {percent:.1} %");
    } else if is_disturbed {
        text.push_str(", which is not the capacity of the path");
    } else {
        let _ = write!(
            text,
            " at least, from {} in {:.1} s; it ended before the sustained rate was known",
            rate.bytes, rate.seconds
        );
        return text;
    }
    let _ = write!(text, ", from {} in {:.1} s", rate.bytes, rate.seconds);
    if let Some(burst) = rate.burst {
        let _ = write!(text, ", after a burst of {burst}");
    }
    text
}

/// `https: PROXY, http: none`.
pub(super) fn by_scheme(proxies: &ProxySettings) -> String {
    let shown = |proxy: &Option<Proxy>| {
        let proxy = proxy.as_ref();
        proxy.map_or_else(|| "none".to_owned(), ToString::to_string)
    };
    let (https, http) = (shown(&proxies.https), shown(&proxies.http));
    format!("https: {https}, http: {http}")
}

/// The attributes of a path class, in parentheses.
fn attributes(attributes: PathAttributes) -> String {
    let mut words: Vec<&str> = Vec::new();
    words.extend(attributes.intranet.map(IntranetKind::describe));
    words.extend(attributes.eip_of.map(|of| match of {
        EipOf::Pod => "the pod's EIP",
        EipOf::Node => "the node's EIP",
    }));
    for (is_so, word) in [
        (attributes.vpn_on_host, "through a tunnel of this host"),
        (attributes.nat64, "behind NAT64"),
        (attributes.via_proxy, "to the proxy"),
        (attributes.pending, "its EIP is not bound yet"),
        (attributes.snat_pool, "from several addresses"),
    ] {
        if is_so {
            words.push(word);
        }
    }
    bracketed(&words)
}

/// ` (a, b)`; empty without words.
pub(super) fn bracketed(words: &[&str]) -> String {
    optional(words.first(), |_| format!(" ({})", words.join(", ")))
}

fn who(attempt: &Attempt) -> String {
    match &attempt.credential {
        Some(id) => format!("with {id}"),
        None => "anonymous".to_owned(),
    }
}

fn skipped(reason: Skip) -> (&'static str, String) {
    match reason {
        Skip::Blocked { role, phase } if role.as_str() == phase.as_str() => {
            ("-", format!("not reached: {role} failed"))
        }
        Skip::Blocked { role, phase } => ("-", format!("not reached: {role} {phase} failed")),
        Skip::SharedConnection { role } => ("ok", format!("over the {role} leg's connection")),
        Skip::NotNeeded => ("-", "not needed".to_owned()),
        Skip::NoLayer => ("-", "the image has no layer to fetch".to_owned()),
        Skip::OtherHost => ("-", "another host serves it".to_owned()),
        Skip::QuotaReserved => (
            "-",
            "no request sent: little of the rate limit is left".to_owned(),
        ),
        Skip::NodeAddress => (
            "-",
            "not contacted: the node's own addresses are not checked for a pod's image".to_owned(),
        ),
        Skip::OwnLimit { limit } => ("?", limit.to_string()),
        Skip::Untrusted => (
            "-",
            "not contacted: a server must not send clients to this address".to_owned(),
        ),
    }
}

fn resolved(resolve: &Resolve, found: &Resolution) -> String {
    let mut text = few(found.addresses.iter(), 4);
    for cname in &found.cnames {
        let _ = write!(text, ", alias {cname}");
    }
    text + &match found.source {
        ResolutionSource::Server { server } => format!(", from {}", show_server(server)),
        ResolutionSource::HostsFile => format!(
            ", from the hosts file{}",
            optional(resolve.in_dns(), |dns| format!(" ({dns})"))
        ),
        ResolutionSource::Literal => ", an address, not a name".to_owned(),
        ResolutionSource::Override => ", given with --resolve".to_owned(),
    }
}

fn connected(used: &Connected, attempts: &[Dial]) -> String {
    let mut text = used.to.to_string();
    let dial = attempts.iter().find(|dial| dial.to == used.to);
    text += &optional(dial.and_then(|dial| dial.outcome.done()), measured);
    text += &optional(used.fallback, |fallback| {
        format!(", after a fallback delay of {}", HumanDuration(fallback))
    });
    let all = attempts.len();
    if all > 1 {
        let good = attempts.iter().filter(|d| d.outcome.done().is_some());
        let _ = write!(text, " ({} of {all} addresses answer)", good.count());
    }
    text
}

/// `, RTT 12 ms, MSS 1448`.
pub(super) fn measured(connection: &Connection) -> String {
    let rtt = optional(connection.rtt, |rtt| {
        format!(", RTT {}", HumanDuration(rtt))
    });
    let mss = optional(connection.send_mss, |mss| format!(", MSS {mss}"));
    format!("{rtt}{mss}")
}

fn hops(trace: &Trace) -> String {
    // Silent hops at the end are described in words.
    let last_answer = trace.hops.iter().rposition(|hop| !hop.is_silent());
    let mut words: Vec<String> = trace.hops[..last_answer.map_or(0, |last| last + 1)]
        .iter()
        .map(|hop| match (hop.from, hop.rtt) {
            (Some(from), Some(rtt)) => format!("{from} {}", HumanDuration(rtt)),
            (Some(from), None) => from.to_string(),
            (None, _) => "*".to_owned(),
        })
        .collect();
    words.push(match &trace.ended {
        TraceEnd::Reached => "reached".to_owned(),
        TraceEnd::Unreachable { icmp } => format!("ended by {icmp}"),
        TraceEnd::Silent => "then no answers, which proves nothing".to_owned(),
        TraceEnd::MaxHops => "and more hops".to_owned(),
        TraceEnd::Local { fault } => format!("no packet left this machine: {fault}"),
    });
    words.join(", ")
}

fn secured(session: &Session, tls: &Tls, evidence: &Evidence) -> String {
    let mut text = session.protocol.clone();
    if let Some(fault) = &tls.unverified {
        text = format!("NOT VERIFIED ({fault}), {text}");
    }
    for part in [&session.key_exchange, &session.alpn].into_iter().flatten() {
        let _ = write!(text, ", {part}");
    }
    if let Some(leaf) = tls.chain.first() {
        let days = (leaf.not_after.as_second() - evidence.started.as_second()) / 86_400;
        let _ = write!(text, ", certificate by {}, {days} days left", leaf.issuer);
    }
    text
}

/// A digest shortened as people compare it: `sha256:af4cce30ccd9…`. JSON has the whole digest.
fn short(digest: &str) -> String {
    match digest.split_once(':') {
        Some((algorithm, hex)) if hex.len() > 12 => format!("{algorithm}:{}…", &hex[..12]),
        _ => digest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(case: &str) -> Report {
        let text = std::fs::read_to_string(format!("tests/cases/{case}/report.json")).unwrap();
        let document: super::super::Document = serde_json::from_str(&text).unwrap();
        Report::conclude(document.reports[0].evidence.clone())
    }

    #[test]
    fn several_reports_end_with_a_summary() {
        let style = Style { color: false };
        let (good, bad) = (report("healthy"), report("unknown_authority"));
        let mut unknown = bad.clone();
        unknown.verdict.pull = Pull::Unknown;
        let image = bad.evidence.reference.to_string();

        let text = render_all(
            &Document::new(vec![good.clone(), bad.clone()]),
            style,
            false,
        );
        let last = format!("\n\n1 of 2 would fail: {image} tls_unknown_ca\n");
        assert!(text.ends_with(&last), "{text}");

        let all = vec![bad.clone(), good.clone(), bad, unknown];
        let text = render_all(&Document::new(all), style, false);
        let last = format!(
            "\n2 of 4 would fail:\n  {image} tls_unknown_ca\n  {image} tls_unknown_ca\n1 of 4 unknown: {image} tls_unknown_ca\n"
        );
        assert!(text.ends_with(&last), "{text}");

        let text = render_all(
            &Document::new(vec![good.clone(), good.clone()]),
            style,
            false,
        );
        assert!(text.ends_with("\nall 2 would succeed\n"), "{text}");
        let one = render_all(&Document::new(vec![good.clone()]), style, false);
        assert_eq!(one, render(&good, style, false));
    }

    #[test]
    fn what_none_of_several_reports_could_observe_is_listed_once() {
        let style = Style { color: false };
        let heading = "not observed from this vantage point";
        let report = report("healthy");
        let mut other = report.clone();
        other.evidence.vantage.not_observed.pop();
        for (reports, count) in [
            (vec![report.clone()], 1),
            (vec![report.clone(), report.clone()], 1),
            (vec![report, other], 2),
        ] {
            let text = render_all(&Document::new(reports), style, false);
            assert_eq!(text.matches(heading).count(), count, "{text}");
        }
    }

    #[test]
    fn without_a_matching_credential_what_comes_after_it_is_not_tried() {
        let mut report = report("healthy");
        let walk = &mut report.evidence.walk;
        walk.attempts.truncate(1);
        walk.attempts[0].token = Step::Failed {
            fault: TokenFault::NoCredential,
            took: Duration::ZERO,
        };
        walk.attempts[0].head = Step::blocked(Role::Token, Phase::Token);
        walk.manifest = Step::blocked(Role::Token, Phase::Token);
        walk.blob = Step::blocked(Role::Token, Phase::Token);
        let text = render(&report, Style { color: false }, false);
        for step in ["head", "manifest", "blob"] {
            let mut lines = text
                .lines()
                .filter(|line| line.trim_start().starts_with(step));
            assert!(
                lines.any(|line| line.ends_with("not tried: no matching credential")),
                "{step}:\n{text}"
            );
        }
        assert!(!text.contains("token failed"), "{text}");
    }

    #[test]
    fn what_was_tried_with_a_credential_is_beside_it() {
        let text = render(&report("healthy"), Style { color: false }, false);
        assert!(text.contains(": key matches; accepted\n"), "{text}");
    }
}
