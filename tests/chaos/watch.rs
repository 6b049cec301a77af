//! Looks at the daemon all the time, and holds what it shows against what was done to its registries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::Value;

use crate::node::{Asker, Of, Usage, run_delays};
use crate::operated::Metrics;
use crate::support::{PASSWORD, USER};

/// The image of the shop's pod: the target that it makes has the registry and its Secrets in its name.
pub const SHOP: &str = "shop/web";

/// A check that lacked CPU has lost at least a second; the sum is that of a few looks.
const LEAST_DELAY: f64 = 0.5;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// A check that began at such a time could have met what was before or after a change.
const EDGE: f64 = 1.0;

/// How it is with a target from some time on.
#[derive(Clone, Debug, PartialEq)]
pub enum Health {
    Good,
    /// One of these codes names it.
    Bad(&'static str, Vec<&'static str>),
    /// It is changing.
    Unclear,
}

/// A check of a target, as the API shows it.
#[derive(Clone, Debug)]
struct Run {
    target: String,
    /// Its name in the API.
    shown: String,
    from: f64,
    until: f64,
    outcome: String,
    is_starved: bool,
    causes: BTreeSet<String>,
    /// It says that the program did not get enough CPU.
    lacked_cpu: bool,
}

impl Run {
    /// Whether it says that a limit of the program kept it from a result.
    fn is_own(&self) -> bool {
        self.is_starved || self.outcome == "timed_out" || self.causes.contains("own_limits")
    }
}

/// A process of the daemon.
#[derive(Clone)]
struct Life {
    number: usize,
    pid: u32,
    log: Arc<Mutex<Vec<String>>>,
    scanned: usize,
}

#[derive(Default)]
pub struct State {
    daemon: Option<Life>,
    role: Option<Life>,
    lives: usize,
    /// The target's health since each time.
    health: BTreeMap<String, Vec<(f64, Health)>>,
    runs: BTreeMap<(usize, u64), Run>,
    judged: BTreeSet<(usize, u64)>,
    /// Faults that were named, by target and time.
    named: BTreeSet<(String, u64)>,
    counters: BTreeMap<String, f64>,
    pub metrics: Option<Metrics>,
    pub role_metrics: Option<Metrics>,
    pub usage: Usage,
    pub most: Usage,
    /// What contradicts the promises.
    pub wrong: Vec<String>,
    pub figures: Figures,
    /// The time that the daemon's threads have waited for a CPU, in seconds, by thread and as a sum at each look.
    delay_of: BTreeMap<u32, f64>,
    delays: Vec<(f64, f64)>,
    /// When the daemon was stopped by a signal.
    stops: Vec<f64>,
    last_answer: Option<Instant>,
    /// No answer is expected.
    is_silent: bool,
}

/// For the table.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub looks: u64,
    pub checks: u64,
    /// Of targets that were healthy.
    pub healthy: u64,
    pub healthy_by_own_limit: u64,
    /// Of targets that were not.
    pub failing: u64,
    pub failing_by_own_limit: u64,
    /// Faults that only such checks met.
    pub hidden: u64,
    /// Neither: something changed meanwhile.
    pub between: u64,
    /// Seconds from a fault until the end of the first check that names it, by fault.
    pub named: BTreeMap<&'static str, f64>,
    /// The longest time without an answer, in seconds.
    pub longest_silence: f64,
    pub scanned_bytes: u64,
    pub counters: usize,
}

pub struct Watch {
    state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Seconds since the epoch.
pub fn now() -> f64 {
    seconds(Timestamp::now())
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

impl Watch {
    pub fn start(asker: Asker, state_folder: PathBuf) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let is_over = Arc::<AtomicBool>::default();
        let (shared, end) = (Arc::clone(&state), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let mut turn = 0;
            while !end.load(Ordering::SeqCst) {
                look(&asker, &shared, turn, &state_folder);
                turn += 1;
                std::thread::sleep(PAUSE);
            }
        });
        Self {
            state,
            is_over,
            thread: Some(thread),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A look has panicked.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// A new process of the daemon; its counters begin again.
    pub fn daemon_is(&self, pid: u32, log: Arc<Mutex<Vec<String>>>) {
        let mut state = self.state();
        state.lives += 1;
        state.counters.clear();
        let number = state.lives;
        state.daemon = Some(Life {
            number,
            pid,
            log,
            scanned: 0,
        });
        state.is_silent = false;
        state.last_answer = Some(Instant::now());
    }

    pub fn role_is(&self, pid: u32, log: Arc<Mutex<Vec<String>>>) {
        self.state().role = Some(Life {
            number: 0,
            pid,
            log,
            scanned: 0,
        });
    }

    /// From now on, nothing answers (or again it does).
    pub fn expects_silence(&self, is_silent: bool) {
        let mut state = self.state();
        state.is_silent = is_silent;
        state.last_answer = Some(Instant::now());
    }

    /// From now on.
    pub fn health(&self, targets: &[String], health: &Health) {
        let mut state = self.state();
        for target in targets {
            let all = state.health.entry(target.clone()).or_default();
            all.push((now(), health.clone()));
        }
    }

    /// The daemon does not run from now on, for a few seconds.
    pub fn is_stopped(&self) {
        self.state().stops.push(now());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let ended = self.thread.take().unwrap().join();
        assert!(
            ended.is_ok() || std::thread::panicking(),
            "a look has panicked"
        );
    }
}

impl State {
    /// Whether a check of each target that began at this time or later has this outcome.
    pub fn has_each(&self, targets: &[String], since: f64, outcome: &str) -> bool {
        targets.iter().all(|target| {
            let mut runs = self.runs.values();
            runs.any(|run| run.target == *target && run.from >= since && run.outcome == outcome)
        })
    }

    /// Whether a check of the target that began at this time or later names one of these causes.
    pub fn is_named(&self, target: &str, since: f64, codes: &[&str]) -> bool {
        let mut runs = self.runs.values();
        runs.any(|run| {
            let is_one = codes.iter().any(|code| run.causes.contains(*code));
            run.target == target && run.from >= since && is_one
        })
    }

    /// The newest check of each target, for messages.
    pub fn newest(&self, target: &str) -> String {
        let mut runs: Vec<&Run> = self
            .runs
            .values()
            .filter(|run| run.target == target)
            .collect();
        runs.sort_by(|a, b| a.until.total_cmp(&b.until));
        let shown = runs.iter().rev().take(3).map(|run| {
            let (ago, took) = (now() - run.until, run.until - run.from);
            format!(
                "{} {ago:.0} s ago in {took:.1} s {:?}",
                run.outcome, run.causes
            )
        });
        shown.collect::<Vec<_>>().join("; ")
    }

    /// The longest time between two checks of a target in one life, in seconds.
    pub fn longest_gap(&self, target: &str) -> f64 {
        let mut by_life: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for ((life, _), run) in &self.runs {
            if run.target == target {
                by_life.entry(*life).or_default().push(run.from);
            }
        }
        let mut longest: f64 = 0.0;
        for times in by_life.values_mut() {
            times.sort_by(f64::total_cmp);
            for pair in times.windows(2) {
                longest = longest.max(pair[1] - pair[0]);
            }
        }
        longest
    }

    /// Checks of the life that is under way: as its counter has them, and as they were seen.
    pub fn counted_and_seen(&self) -> (f64, usize) {
        let counted = self.counters.iter();
        let counted = counted.filter(|(name, _)| name.starts_with("pullpath_checks_total"));
        let life = self.daemon.as_ref().map_or(0, |life| life.number);
        let seen = self.runs.keys().filter(|(number, _)| *number == life);
        (counted.map(|(_, count)| count).sum(), seen.count())
    }

    fn health_of(&self, run: &Run) -> Option<(&Health, f64)> {
        let all = self.health.get(&run.target)?;
        let from = all.iter().rposition(|(at, _)| *at <= run.from - EDGE)?;
        let is_whole = all
            .get(from + 1)
            .is_none_or(|(at, _)| *at > run.until + EDGE);
        is_whole.then(|| (&all[from].1, all[from].0))
    }

    /// Whether the kernel says so too: the program's threads waited for a CPU, or it was stopped. True if that was not
    /// measured.
    fn lacked_cpu(&self, run: &Run) -> bool {
        let before = self.delays.iter().rfind(|(at, _)| *at <= run.from);
        let after = self.delays.iter().find(|(at, _)| *at >= run.until);
        let (Some((from, before)), Some((until, after))) = (before, after) else {
            return true;
        };
        let was_stopped = self
            .stops
            .iter()
            .any(|at| (from - 10.0..=*until).contains(at));
        was_stopped || after - before > LEAST_DELAY
    }

    /// Whether only limits of the program are shown for a target since then, by several checks.
    pub fn is_hidden(&self, target: &str, since: f64) -> bool {
        let runs = self.runs.values();
        let runs: Vec<&Run> = runs
            .filter(|run| run.target == target && run.from >= since)
            .collect();
        runs.len() >= 3 && runs.iter().all(|run| run.is_own())
    }

    fn judge(&mut self) {
        let keys: Vec<_> = self.runs.keys().copied().collect();
        for key in keys {
            if !self.judged.insert(key) {
                continue;
            }
            let run = self.runs[&key].clone();
            self.figures.checks += 1;
            let is_own = run.is_own();
            if run.lacked_cpu && !self.lacked_cpu(&run) {
                let (from, took) = (run.from, run.until - run.from);
                self.says(format!(
                    "{} lacked no CPU at {from:.1} for {took:.1} s",
                    run.target
                ));
            }
            let Some((health, since)) = self.health_of(&run).map(|(h, at)| (h.clone(), at)) else {
                self.figures.between += 1;
                continue;
            };
            let says = format!(
                "{} at {:.1} s for {:.1} s: {} {:?}",
                run.target,
                run.from - since,
                run.until - run.from,
                run.outcome,
                run.causes
            );
            match health {
                Health::Unclear => self.figures.between += 1,
                Health::Good => {
                    self.figures.healthy += 1;
                    if run.outcome == "would_succeed" {
                    } else if is_own && run.outcome != "would_fail" {
                        self.figures.healthy_by_own_limit += 1;
                    } else {
                        self.wrong.push(format!("healthy, but {says}"));
                    }
                }
                Health::Bad(what, codes) => {
                    self.figures.failing += 1;
                    let is_named = codes.iter().any(|code| run.causes.contains(*code));
                    if run.outcome != "would_succeed" && is_named {
                        // Only the first one after the fault.
                        if self.named.insert((run.target.clone(), since.to_bits())) {
                            let most = self.figures.named.entry(what).or_default();
                            *most = most.max(run.until - since);
                        }
                    } else if is_own && run.outcome != "would_succeed" {
                        self.figures.failing_by_own_limit += 1;
                    } else {
                        self.wrong.push(format!("{what}, but {says}"));
                    }
                }
            }
        }
    }

    fn says(&mut self, what: String) {
        if !self.wrong.contains(&what) {
            self.wrong.push(what);
        }
    }

    /// Counters of one life never fall.
    fn count(&mut self, metrics: Metrics) {
        let is_counter = |name: &str| {
            let family = name.split('{').next().unwrap_or_default();
            let kind = metrics.types.get(family).map(String::as_str);
            let of_histogram = ["_bucket", "_count", "_sum"].iter().any(|end| {
                let family = family.strip_suffix(end);
                family
                    .and_then(|family| metrics.types.get(family))
                    .is_some_and(|kind| kind == "histogram")
            });
            kind == Some("counter") || of_histogram
        };
        let mut fallen = Vec::new();
        for (name, value) in metrics.series.iter().filter(|(name, _)| is_counter(name)) {
            let before = self.counters.insert(name.clone(), *value);
            if let Some(before) = before.filter(|before| before > value) {
                fallen.push(format!("{name} fell from {before} to {value}"));
            }
        }
        self.figures.counters = self.figures.counters.max(self.counters.len());
        for one in fallen {
            self.says(one);
        }
        if let Some(panics) = metrics
            .value("pullpath_check_panics_total")
            .filter(|count| *count > 0.0)
        {
            self.says(format!("{panics} checks panicked"));
        }
        self.metrics = Some(metrics);
    }

    fn waited(&mut self, delays: BTreeMap<u32, f64>) {
        self.delay_of.extend(delays);
        let sum = self.delay_of.values().sum();
        self.delays.push((now(), sum));
    }

    fn use_is(&mut self, usage: Usage) {
        let most = &mut self.most;
        most.own = most.own.max(usage.own);
        most.resident = most.resident.max(usage.resident);
        most.files = most.files.max(usage.files);
        most.threads = most.threads.max(usage.threads);
        self.usage = usage;
    }
}

/// The password, and the pair, as they could be written somewhere.
fn forms() -> [String; 4] {
    let pair = format!("{USER}:{PASSWORD}");
    let hex: Vec<String> = PASSWORD.bytes().map(|byte| format!("{byte:02x}")).collect();
    [
        PASSWORD.to_owned(),
        STANDARD.encode(&pair),
        URL_SAFE_NO_PAD.encode(&pair),
        hex.concat(),
    ]
}

fn scan(shared: &Mutex<State>, place: &str, text: &str) {
    let found = forms().into_iter().find(|form| text.contains(&**form));
    let mut state = shared.lock().unwrap();
    state.figures.scanned_bytes += text.len() as u64;
    if let Some(form) = found {
        let at = text.find(&*form).unwrap();
        let around: String = text[..at].chars().rev().take(80).collect();
        let around: String = around.chars().rev().collect();
        state.says(format!("a password is in {place}, after: {around}"));
    }
}

/// What the log got since the last look.
fn new_lines(shared: &Mutex<State>, of: fn(&mut State) -> &mut Option<Life>) -> String {
    let mut state = shared.lock().unwrap();
    let Some(life) = of(&mut state) else {
        return String::new();
    };
    let log = life.log.lock().unwrap();
    let text = log[life.scanned..].join("\n");
    life.scanned = log.len();
    text
}

fn look(asker: &Asker, shared: &Mutex<State>, turn: u64, state_folder: &Path) {
    let life = shared.lock().unwrap().daemon.clone();
    for (place, lines) in [
        (
            "the daemon's log",
            new_lines(shared, |state| &mut state.daemon),
        ),
        (
            "the cluster role's log",
            new_lines(shared, |state| &mut state.role),
        ),
    ] {
        scan(shared, place, &lines);
        if let Some(line) = lines.lines().find(|line| line.contains("panicked")) {
            shared.lock().unwrap().says(format!("{place}: {line}"));
        }
    }
    let Some(life) = life else { return };
    if let Some(usage) = Usage::of(life.pid) {
        let mut state = shared.lock().unwrap();
        state.use_is(usage);
        state.waited(run_delays(life.pid));
    }
    let metrics = asker.get(Of::Public, "/metrics");
    let targets = asker.get(Of::Public, "/api/v1/targets");
    let role = asker.get(Of::Cluster, "/metrics");
    {
        let mut state = shared.lock().unwrap();
        // It may have been replaced meanwhile.
        let is_same = state
            .daemon
            .as_ref()
            .is_some_and(|now| now.number == life.number);
        if metrics.is_some() && targets.is_some() {
            state.figures.looks += 1;
            state.last_answer = Some(Instant::now());
        }
        let silence = state
            .last_answer
            .map_or(0.0, |at| at.elapsed().as_secs_f64());
        if !state.is_silent {
            state.figures.longest_silence = state.figures.longest_silence.max(silence);
        }
        if let Some(text) = metrics.as_deref().filter(|_| is_same) {
            state.count(Metrics::parse(text));
        }
        if let Some(text) = &role {
            state.role_metrics = Some(Metrics::parse(text));
        }
    }
    for (place, text) in [
        ("/metrics", &metrics),
        ("/api/v1/targets", &targets),
        ("the role's /metrics", &role),
    ] {
        scan(shared, place, text.as_deref().unwrap_or_default());
    }
    if let Some(all) = targets.and_then(|text| serde_json::from_str::<Vec<Value>>(&text).ok()) {
        take_runs(asker, shared, &life, &all);
    }
    if turn.is_multiple_of(5) {
        for path in [
            "/",
            "/vantage",
            "/api/v1/vantage",
            "/api/v1/reports",
            "/targets/broken-1",
        ] {
            scan(
                shared,
                path,
                &asker.get(Of::Public, path).unwrap_or_default(),
            );
        }
        for path in ["/", "/api/v1/pulls", "/api/v1/lint"] {
            scan(
                shared,
                path,
                &asker.get(Of::Cluster, path).unwrap_or_default(),
            );
        }
        scan_files(shared, state_folder);
    }
}

fn scan_files(shared: &Mutex<State>, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            scan_files(shared, &path);
        } else if let Ok(bytes) = fs::read(&path) {
            scan(shared, "state_dir", &String::from_utf8_lossy(&bytes));
        }
    }
}

/// Checks that were not seen before, with the causes of those that did not succeed.
fn take_runs(asker: &Asker, shared: &Mutex<State>, life: &Life, all: &[Value]) {
    let seen = now();
    let mut new = Vec::new();
    {
        let state = shared.lock().unwrap();
        for target in all {
            let shown = target["name"].as_str().unwrap();
            let name = if shown.contains(SHOP) { SHOP } else { shown }.to_owned();
            for run in target["runs"].as_array().unwrap() {
                let key = (life.number, run["id"].as_u64().unwrap());
                if state.runs.contains_key(&key) {
                    continue;
                }
                let at = seconds(run["at"].as_str().unwrap().parse().unwrap());
                let took = run["took_seconds"].as_f64().unwrap();
                let run = Run {
                    target: name.clone(),
                    shown: shown.to_owned(),
                    from: at,
                    until: at + took,
                    outcome: run["outcome"].as_str().unwrap().to_owned(),
                    is_starved: run["starved"] == true,
                    causes: BTreeSet::new(),
                    lacked_cpu: false,
                };
                new.push((key, run));
            }
        }
    }
    for ((number, id), mut run) in new {
        if run.outcome != "would_succeed" {
            let name = run
                .shown
                .replace('/', "%2F")
                .replace('@', "%40")
                .replace('+', "%2B");
            let Some(text) = asker.get(Of::Public, &format!("/api/v1/reports/{name}/{id}")) else {
                // Asked for again at the next look, if it is still there.
                continue;
            };
            scan(shared, "a report", &text);
            let document: Value = serde_json::from_str(&text).unwrap();
            let findings = document["reports"][0]["verdict"]["findings"].as_array();
            let causes = findings.into_iter().flatten();
            let causes = causes.filter_map(|one| one["cause"].as_str().map(str::to_owned));
            run.causes = causes.collect();
            let limits = document["reports"][0]["evidence"]["own_limits"].as_array();
            run.lacked_cpu = limits.is_some_and(|limits| limits.iter().any(|limit| limit == "cpu"));
        }
        shared.lock().unwrap().runs.insert((number, id), run);
    }
    shared.lock().unwrap().judge();
}

#[expect(clippy::cast_precision_loss, reason = "some hours in seconds")]
fn num(seconds: i64) -> f64 {
    seconds as f64
}
