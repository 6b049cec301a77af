//! How well throughput is measured, and how well its limits are reported, in a lab where both are
//! known: `tests/throughput/run matrix`, `causes` or `check`.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../lab/metadata.rs"]
mod metadata;
#[path = "../lab/slow.rs"]
mod slow;
#[path = "../real/stack.rs"]
mod stack;
#[path = "../support/mod.rs"]
mod support;
#[path = "../lab/world.rs"]
mod world;

mod causes;
mod clients;
mod matrix;

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use crate::clients::bounded;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Rates and bytes: caps at round trip times, with small and large bursts
    Matrix(Options),
    /// Which causes are reported where one was made
    Causes(Options),
    /// What curl and the kernel see of each cause that was made
    Check(Options),
}

#[derive(Args, Clone, Debug)]
struct Options {
    /// Runs of the program in each cell
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Only these: rates, round trip times and bursts (10,20ms,small), or names of causes
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How many worlds at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// More arguments for the program, separated by blanks
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    probe_args: String,
    /// Keep what the program prints in files of this folder
    #[arg(long)]
    keep: Option<PathBuf>,
}

fn main() {
    let cli = Cli::parse();
    let program = std::env::var("PULLPATH").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/release/pullpath").to_owned()
    });
    assert!(
        std::path::Path::new(&program).exists(),
        "{program} is not there; build it, or set PULLPATH"
    );
    match cli.what {
        What::Matrix(options) => matrix::run(&program, &options),
        What::Causes(options) => causes::run(&program, &options),
        What::Check(options) => causes::check(&options),
    }
}

/// A line of the result, at once: the whole takes long.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Does the work on each item, a few at a time.
fn spread<T: Send>(items: Vec<T>, jobs: usize, work: impl Fn(T) + Sync) {
    let queue = Mutex::new(VecDeque::from(items));
    let next = || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
    });
}

/// One run of the program.
#[derive(Debug, Default)]
struct Reported {
    /// Causes of the findings, without those that are nothing to the rate.
    codes: Vec<String>,
    /// Bytes per second, and whether they last.
    one: Option<(f64, bool)>,
    all: Option<(f64, bool)>,
    bytes: u64,
}

/// Causes that are about rates but do not say so in their name.
const OF_RATES: [&str; 4] = [
    "ttfb_slow",
    "pull_no_progress",
    "mtu_blackhole",
    "throughput_low",
];

impl Reported {
    /// Runs it; without a report there is nothing. The name is that of the file to keep.
    fn by(command: &mut Command, options: &Options, name: &str) -> Option<Self> {
        const LONGEST: Duration = Duration::from_mins(2);
        let text = bounded(command, LONGEST)?;
        if let Some(folder) = &options.keep {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(format!("{name}.json")), &text).unwrap();
        }
        let document: Value = serde_json::from_str(&text).ok()?;
        let report = document.get("reports")?.get(0)?;
        let findings = report.pointer("/verdict/findings")?.as_array()?;
        let codes = findings
            .iter()
            .filter_map(|finding| finding.get("cause")?.as_str())
            .filter(|code| code.starts_with("bw_") || OF_RATES.contains(code))
            .map(str::to_owned)
            .collect();
        let rate = |which: &str| {
            let rate = report.pointer("/verdict/throughput")?.get(which)?;
            let figure = rate.get("bytes_per_second")?.as_f64()?;
            Some((figure, rate.get("is_sustained")?.as_bool()?))
        };
        let streams = report.pointer("/evidence/transfer/streams");
        let bytes = streams.and_then(Value::as_array).map_or(0, |streams| {
            let of = |stream: &Value| stream.get("bytes")?.as_u64();
            streams.iter().filter_map(of).sum()
        });
        Some(Self {
            codes,
            one: rate("one"),
            all: rate("all"),
            bytes,
        })
    }

    fn rates(&self) -> impl Iterator<Item = (f64, bool)> {
        [self.one, self.all].into_iter().flatten()
    }
}

/// Within 5 %.
fn is_near(rate: f64, truth: f64) -> bool {
    (0.95..=1.05).contains(&(rate / truth))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
