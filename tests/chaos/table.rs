//! The figures, and their bounds.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use crate::node::Usage;
use crate::operated::Metrics;
use crate::watch::Figures;

/// What the daemon uses and shows while nothing is wrong.
#[derive(Clone, Debug, Default)]
pub struct Calm {
    /// The number of its restarts.
    pub life: usize,
    pub usage: Usage,
    pub series: usize,
    /// Those that each target has.
    pub of_targets: BTreeSet<String>,
    /// Checks by the daemon's counter, and those that were seen.
    pub counted: f64,
    pub seen: usize,
}

/// Series of configured targets that exist as long as the target does.
pub fn of_targets(metrics: Option<&Metrics>) -> BTreeSet<String> {
    let all = metrics
        .into_iter()
        .flat_map(|metrics| metrics.series.keys());
    let of_each = ["pullpath_pull_ready{", "pullpath_phase_success{"];
    let is_own = |name: &&String| {
        let is_of_each = of_each.iter().any(|family| name.starts_with(family));
        // Images of pods come and go.
        let is_pods = name.contains('/') && name.contains("target=\"registry");
        is_of_each && !is_pods
    };
    all.filter(is_own).cloned().collect()
}

impl fmt::Display for Calm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage {
            own,
            resident,
            files,
            threads,
        } = self.usage;
        write!(
            f,
            "{:.1} MiB of its own ({:.1} resident), {files} files, {threads} threads, {} series, {} checks counted and {} seen, {} restarts",
            mib(own),
            mib(resident),
            self.series,
            self.counted,
            self.seen,
            self.life
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// How much more than at the first calm is still flat: a busy machine leaves more behind at the same time.
const OWN_KIB: u64 = 10 << 10;
const FILES: usize = 32;
const THREADS: usize = 8;
/// Causes and outcomes that were met have series of their own from then on.
const SERIES: usize = 400;

#[derive(Debug, Default)]
pub struct Table {
    calms: Vec<Calm>,
    pub faults: usize,
    pub troubles: usize,
    pub restarts: usize,
    pub connections: u64,
}

impl Table {
    /// What is not flat; none if all is.
    pub fn take(&mut self, calm: &Calm) -> Option<String> {
        let first = self.calms.first().cloned().unwrap_or_else(|| calm.clone());
        self.calms.push(calm.clone());
        let (now, then) = (calm.usage, first.usage);
        let differ: Vec<&String> = calm
            .of_targets
            .symmetric_difference(&first.of_targets)
            .collect();
        let lost = calm.counted - to_f64(calm.seen);
        let grown = [
            (now.own > then.own + OWN_KIB, "memory"),
            (now.files > then.files + FILES, "open files"),
            (now.threads > then.threads + THREADS, "threads"),
            (calm.series > first.series + SERIES, "series"),
        ];
        if let Some((_, what)) = grown.iter().find(|(is_more, _)| *is_more) {
            return Some(format!("{what} grew: at first {first}; now {calm}"));
        }
        if !differ.is_empty() {
            return Some(format!(
                "series of targets differ from the first ones: {differ:?}"
            ));
        }
        // Some are of targets that are gone, or were not kept until they were read.
        (lost > 5.0 + calm.counted * 0.05).then(|| {
            format!(
                "{} checks were counted, and {} seen",
                calm.counted, calm.seen
            )
        })
    }

    pub fn text(&self, figures: &Figures, most: Usage, gap: f64, kinds: usize) -> String {
        let mut text = String::new();
        let mut row = |what: &str, value: String| {
            let _ = writeln!(text, "| {what} | {value} |");
        };
        row("what", "figure".to_owned());
        row("---", "---".to_owned());
        row(
            "faults of registries, token services, storage, proxy",
            format!("{}, of {kinds} kinds", self.faults),
        );
        row(
            "troubles of node, API server and daemon",
            self.troubles.to_string(),
        );
        row(
            "kinds of faults that were named",
            figures.named.len().to_string(),
        );
        let slowest = figures.named.iter().max_by(|a, b| a.1.total_cmp(b.1));
        row(
            "from a fault to the end of the first check that names it, at most",
            slowest.map_or_else(String::new, |(what, took)| format!("{took:.0} s ({what})")),
        );
        row("checks seen", figures.checks.to_string());
        row(
            "of healthy registries: all, and left unknown by a limit of the process",
            format!("{}, {}", figures.healthy, figures.healthy_by_own_limit),
        );
        row(
            "of failing registries: all, and left unknown by a limit of the process",
            format!("{}, {}", figures.failing, figures.failing_by_own_limit),
        );
        row(
            "faults that were only met by checks without enough CPU",
            figures.hidden.to_string(),
        );
        row("while something changed", figures.between.to_string());
        row(
            "longest time between two checks of a healthy target",
            format!("{gap:.0} s"),
        );
        row("restarts of the daemon", self.restarts.to_string());
        row(
            "counters that were held against the look before",
            figures.counters.to_string(),
        );
        row("connections of floods", self.connections.to_string());
        row(
            "longest time without an answer to a look",
            format!("{:.0} s", figures.longest_silence),
        );
        row(
            "scanned for passwords (logs, metrics, pages, reports, state)",
            format!("{:.1} MiB, 0 found", mib(figures.scanned_bytes / 1024)),
        );
        for (number, calm) in self.calms.iter().enumerate() {
            row(&format!("calm {}", number + 1), calm.to_string());
        }
        row(
            "at most",
            format!(
                "{:.1} MiB of its own, {:.1} resident, {} files, {} threads",
                mib(most.own),
                mib(most.resident),
                most.files,
                most.threads
            ),
        );
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn to_f64(count: usize) -> f64 {
    count as f64
}
