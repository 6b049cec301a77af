//! The history of a target: its newest runs, its failures, and the summary of the newest run. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::compressed_report::CompressedReport;
use super::summary::{PathSummary, RunSummary, TransferSummary};
use crate::config::History;
use crate::daemon::schedule::admission::Deferred;
use crate::daemon::schedule::timetable::Tier;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::path::history::Published;
use crate::diagnose::{self, Finding, Pull};
use crate::model::endpoint::Role;
use crate::model::path::PathClass;
use crate::model::units::{Bytes, Seconds};
use crate::report::Report;
use crate::report::text::{self, Style};

/// One check that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The number of the run, unique since the start of the daemon.
    pub id: u64,
    /// The kind of the check.
    pub tier: Tier,
    /// When it started.
    pub at: Timestamp,
    /// How long it took, without waiting for a Lease.
    #[serde(rename = "took_seconds", with = "Seconds")]
    pub took: Duration,
    /// The delay of its start.
    #[serde(rename = "lag_seconds", with = "Seconds")]
    pub lag: Duration,
    /// The verdict, or how it ended without one.
    pub outcome: Outcome,
    /// The run was CPU-starved, so its times don't measure the network.
    pub starved: bool,
    /// The worst cause, for lists; `None` without findings.
    #[serde(skip)]
    pub cause: Option<&'static str>,
    /// The causes of warnings and worse.
    #[serde(skip)]
    pub causes: BTreeSet<&'static str>,
    /// The download rate of all streams; `None`: not measured.
    pub bytes_per_second: Option<f64>,
    /// `None`: dropped because `history.memory` was used up, or there was no report. The API has a boolean.
    #[serde(serialize_with = "whether_kept")]
    pub report: Option<CompressedReport>,
}

impl Run {
    /// Whether a limit of this program kept it from a result.
    fn is_undecided_here(&self) -> bool {
        self.outcome == Outcome::TimedOut || self.causes.contains(Cause::OwnLimits.code())
    }

    /// Its report as text; `None`: it was dropped.
    pub fn text(&self) -> Option<String> {
        let json = self.report.as_ref()?.text()?;
        let report: Report = serde_json::from_str(&json).ok()?;
        Some(text::render(&report, Style { color: false }, true))
    }
}

#[expect(clippy::ref_option, reason = "serde requires this signature")]
fn whether_kept<S: Serializer>(
    report: &Option<CompressedReport>,
    to: S,
) -> Result<S::Ok, S::Error> {
    report.is_some().serialize(to)
}

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It exceeded `schedule.check_timeout`.
    TimedOut,
    /// It ended in a panic, which is a bug in Pullpath.
    Panicked,
    /// It has a report with this verdict.
    #[serde(untagged)]
    Verdict(Pull),
}

impl Outcome {
    fn is_failure(self) -> bool {
        !matches!(self, Self::Verdict(Pull::WouldSucceed))
    }

    /// The JSON value and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verdict(Pull::WouldSucceed) => "would_succeed",
            Self::Verdict(Pull::WouldFail) => "would_fail",
            Self::Verdict(Pull::Unknown) => "unknown",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
        }
    }
}

/// What is known of one target.
#[derive(Debug, Default)]
pub struct TargetHistory {
    /// The oldest first.
    runs: VecDeque<Arc<Run>>,
    /// The newest failed runs, however long ago; the oldest first.
    failures: VecDeque<Arc<Run>>,
    /// The newest run with a report; `None` before the first.
    pub summary: Option<RunSummary>,
    /// The newest transfer test; `None` before the first.
    pub transfer: Option<TransferSummary>,
    classes: BTreeMap<Role, LegClass>,
    /// What only some of the newest runs found.
    intermittent: Option<Finding>,
    /// The compressed size of the layers; `None` until a manifest was read.
    pub image: Option<Bytes>,
    /// Runs in a row that did not find a pull possible.
    pub consecutive_failures: u64,
    /// The newest run that found a pull possible; `None` if none has.
    pub last_success: Option<Timestamp>,
    /// The newest run; `None` before the first.
    pub checked: Option<Timestamp>,
    /// Why the check that was due is not made now; `None`: none is deferred.
    pub deferred: Option<Deferred>,
}

#[derive(Debug, Default)]
struct LegClass {
    published: Published,
    confidence: Option<Confidence>,
    server: String,
}

/// The published path of a leg, in the form of the API.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LegPath<'a> {
    /// The leg.
    pub leg: Role,
    /// Its server, as `HOST` or `HOST:PORT`.
    pub server: &'a str,
    /// The published path class.
    pub class: PathClass,
    /// The confidence of that class.
    pub confidence: Confidence,
}

/// What a run changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Legs whose published class changed: leg, class before, class now.
    pub classes: Vec<(Role, PathClass, PathClass)>,
    /// A leg has other addresses or another class, published or not.
    pub is_path_new: bool,
    /// Findings whose cause the run before did not have.
    pub appeared: Vec<Finding>,
    /// Codes of causes that this run no longer has.
    pub gone: Vec<&'static str>,
}

impl TargetHistory {
    /// Records a run, and returns what it changed.
    pub fn take(&mut self, run: Run, summary: Option<RunSummary>, keep: &History) -> Changes {
        let before: Vec<&'static str> = self.findings().map(|f| f.cause.code()).collect();
        let mut changes = Changes::default();
        self.checked = Some(run.at);
        self.deferred = None;
        if run.is_undecided_here() {
            // It says nothing about the registry.
        } else if run.outcome.is_failure() {
            self.consecutive_failures += 1;
        } else {
            self.consecutive_failures = 0;
            self.last_success = Some(run.at);
        }
        if let Some(mut summary) = summary {
            self.update_paths(&summary.paths, &mut changes);
            self.image = summary.image.or(self.image);
            if let Some(transfer) = summary.transfer.take() {
                self.transfer = Some(transfer);
            }
            self.summary = Some(summary);
        }
        let run = Arc::new(run);
        if run.outcome.is_failure() {
            push(&mut self.failures, Arc::clone(&run), keep.failures.0);
        }
        push(&mut self.runs, run, keep.runs.0);
        self.intermittent = intermittent(self.runs.iter().rev());
        let new = |finding: &&Finding| !before.contains(&finding.cause.code());
        changes.appeared = self.findings().filter(new).cloned().collect();
        changes.gone = before;
        for finding in self.findings() {
            changes.gone.retain(|code| *code != finding.cause.code());
        }
        changes.gone.dedup();
        changes
    }

    fn update_paths(&mut self, paths: &[PathSummary], changes: &mut Changes) {
        for path in paths {
            let leg = self.classes.entry(path.leg).or_default();
            let before = leg.published.class();
            let moved = leg.published.see(path.class, path.addresses.clone());
            changes.is_path_new |=
                moved || (before.is_some() && path.class.is_some() && path.class != before);
            let after = leg.published.class();
            if let (Some(before), Some(after)) = (before, after)
                && before != after
            {
                changes.classes.push((path.leg, before, after));
            }
            if path.class.is_some() && path.class == after {
                leg.confidence = Some(path.confidence);
                leg.server.clone_from(&path.server);
            }
        }
        // A leg that was not reached keeps its class: another leg failed before it.
    }

    /// The published path of each leg.
    pub fn paths(&self) -> impl Iterator<Item = LegPath<'_>> {
        self.classes.iter().filter_map(|(leg, known)| {
            Some(LegPath {
                leg: *leg,
                server: &known.server,
                class: known.published.class()?,
                confidence: known.confidence?,
            })
        })
    }

    /// Findings of the newest run, of the newest transfer test, and of the newest runs together; the worst first.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let of_transfer = self.transfer.iter().flat_map(|transfer| &transfer.findings);
        let of_summary = self.summary.iter().flat_map(|summary| &summary.findings);
        let all = of_summary.chain(of_transfer).chain(&self.intermittent);
        let mut all: Vec<&Finding> = all.collect();
        all.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        all.into_iter()
    }

    /// Whether a pull would succeed, by the newest run; `None` before the first, or if that is unknown.
    pub fn is_ready(&self) -> Option<bool> {
        match self.runs.back()?.outcome {
            Outcome::Verdict(Pull::WouldSucceed) => Some(true),
            Outcome::Verdict(Pull::WouldFail) => Some(false),
            _ => None,
        }
    }

    /// All runs, the newest first; older failures last.
    pub fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        let oldest = self.runs.front().map_or(0, |run| run.id);
        let failures = self.failures.iter().rev();
        let old = failures.filter(move |run| run.id < oldest);
        self.runs.iter().rev().chain(old)
    }

    /// The run with this number; `None`: it is not kept.
    pub fn run(&self, id: u64) -> Option<&Arc<Run>> {
        self.runs().find(|run| run.id == id)
    }

    /// The newest run; `None` before the first.
    pub fn newest(&self) -> Option<&Arc<Run>> {
        self.runs.back()
    }

    /// The size of all kept reports, in bytes.
    pub fn memory(&self) -> usize {
        let reports = self.runs().filter_map(|run| run.report.as_ref());
        reports.map(CompressedReport::size).sum()
    }

    /// Drops the oldest full report, and returns its size in bytes. Unless `all` may go, the newest report stays, and
    /// the newest of a failed run.
    pub fn forget_one(&mut self, all: bool) -> Option<usize> {
        let newest = self.runs.back().map(|run| run.id);
        let newest_failure = self.failures.back().map(|run| run.id);
        let id = self
            .runs()
            .filter(|run| run.report.is_some())
            .map(|run| run.id)
            .filter(|id| all || (Some(*id) != newest && Some(*id) != newest_failure))
            .min()?;
        let mut size = 0;
        for list in [&mut self.runs, &mut self.failures] {
            for run in list.iter_mut().filter(|run| run.id == id) {
                size = run.report.as_ref().map_or(size, CompressedReport::size);
                *run = Arc::new(Run {
                    report: None,
                    ..Run::clone(run)
                });
            }
        }
        Some(size)
    }
}

/// Runs that are compared.
const WINDOW: usize = 10;

/// A finding that starts and ends once has two changes; one that comes and goes has more.
const CHANGES: usize = 3;

/// What some of the newest runs found, and others between them did not. Only `reach` checks are compared: other tiers
/// look at more.
fn intermittent<'a>(newest_first: impl Iterator<Item = &'a Arc<Run>>) -> Option<Finding> {
    let is_comparable = |run: &&Arc<Run>| {
        let is_judged = matches!(run.outcome, Outcome::Verdict(_));
        run.tier == Tier::Reach && is_judged && !run.starved
    };
    let runs: Vec<&Arc<Run>> = newest_first.filter(is_comparable).take(WINDOW).collect();
    let comes_and_goes = |is_met: &dyn Fn(&Run) -> bool| {
        let turns = runs.windows(2);
        let turns = turns.filter(|two| is_met(two[0]) != is_met(two[1])).count();
        (turns >= CHANGES).then(|| runs.iter().filter(|run| is_met(run)).count())
    };
    let checks = runs.len();
    let fails = |run: &Run| run.outcome == Outcome::Verdict(Pull::WouldFail);
    let failed = comes_and_goes(&fails)
        .map(|failed| format!("{failed} of the last {checks} checks found that a pull would fail"));
    let causes: BTreeSet<&'static str> = runs.iter().flat_map(|run| &run.causes).copied().collect();
    let causes = causes.into_iter().filter_map(|code| {
        let met = comes_and_goes(&|run: &Run| run.causes.contains(code))?;
        Some(format!("{code} in {met} of the last {checks} checks"))
    });
    let facts: Vec<String> = failed.into_iter().chain(causes).collect();
    let finding = diagnose::finding(Cause::Intermittent).severity(Severity::Warning);
    (!facts.is_empty()).then(|| finding.facts(facts))
}

fn push(list: &mut VecDeque<Arc<Run>>, run: Arc<Run>, most: u32) {
    list.push_back(run);
    while list.len() > most as usize {
        list.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CountWithin, Size};

    const KEEP: &History = &History {
        runs: CountWithin(3),
        failures: CountWithin(2),
        memory: Size(Bytes(0)),
    };

    fn run(id: u64, outcome: Outcome) -> Run {
        Run {
            id,
            tier: Tier::Reach,
            at: Timestamp::from_second(1_800_000_000 + i64::try_from(id).unwrap()).unwrap(),
            took: Duration::from_millis(40),
            lag: Duration::ZERO,
            outcome,
            starved: false,
            cause: None,
            causes: BTreeSet::new(),
            bytes_per_second: None,
            report: Some(CompressedReport::of("a report")),
        }
    }

    const GOOD: Outcome = Outcome::Verdict(Pull::WouldSucceed);
    const BAD: Outcome = Outcome::Verdict(Pull::WouldFail);

    #[test]
    fn failures_stay_after_successes_have_pushed_them_out() {
        let mut record = TargetHistory::default();
        for (id, outcome) in [
            (1, BAD),
            (2, BAD),
            (3, BAD),
            (4, GOOD),
            (5, GOOD),
            (6, GOOD),
            (7, GOOD),
        ] {
            record.take(run(id, outcome), None, KEEP);
        }
        let ids: Vec<u64> = record.runs().map(|run| run.id).collect();
        assert_eq!(ids, [7, 6, 5, 3, 2]);
        assert!(record.run(2).is_some() && record.run(4).is_none());
        assert_eq!(record.consecutive_failures, 0);
        assert_eq!(record.is_ready(), Some(true));
        assert_eq!(record.last_success, Some(run(7, GOOD).at));
    }

    #[test]
    fn what_is_not_known_is_no_success_and_no_zero() {
        let mut record = TargetHistory::default();
        assert_eq!(record.is_ready(), None);
        for (id, outcome) in [
            (1, Outcome::TimedOut),
            (2, Outcome::Panicked),
            (3, Outcome::Verdict(Pull::Unknown)),
        ] {
            record.take(run(id, outcome), None, KEEP);
            assert_eq!(record.is_ready(), None);
        }
        // The one that took too long says nothing about the registry.
        assert_eq!(record.consecutive_failures, 2);
        let own = Run {
            causes: [Cause::OwnLimits.code()].into(),
            ..run(4, Outcome::Verdict(Pull::Unknown))
        };
        record.take(own, None, KEEP);
        assert_eq!(record.consecutive_failures, 2);
        assert_eq!(record.last_success, None);
    }

    #[test]
    fn the_oldest_reports_go_first_and_the_newest_stay() {
        let mut record = TargetHistory::default();
        for (id, outcome) in [(1, BAD), (2, GOOD), (3, GOOD), (4, GOOD)] {
            record.take(run(id, outcome), None, KEEP);
        }
        let size = CompressedReport::of("a report").size();
        assert_eq!(record.memory(), 4 * size);
        assert_eq!(record.forget_one(false), Some(size));
        assert!(record.run(2).unwrap().report.is_none());
        assert_eq!(record.forget_one(false), Some(size));
        assert_eq!(
            record.forget_one(false),
            None,
            "the newest, and the newest failure"
        );
        assert!(record.run(4).unwrap().report.is_some());
        assert!(record.run(1).unwrap().report.is_some());
        assert_eq!(record.forget_one(true), Some(size));
        assert_eq!(record.forget_one(true), Some(size));
        assert_eq!((record.forget_one(true), record.memory()), (None, 0));
    }

    #[test]
    fn what_comes_and_goes_is_intermittent_and_one_outage_is_not() {
        let keep = &History {
            runs: CountWithin(20),
            ..*KEEP
        };
        // `F`: fails by tls_hang. `S`: would succeed. `W`: the same with connect_loss. `T`: ran out of time.
        let after = |course: &str| {
            let mut record = TargetHistory::default();
            for (id, one) in course.chars().enumerate() {
                let (outcome, cause) = match one {
                    'F' => (BAD, Some("tls_hang")),
                    'W' => (GOOD, Some("connect_loss")),
                    'T' => (Outcome::TimedOut, None),
                    _ => (GOOD, None),
                };
                let run = Run {
                    causes: cause.into_iter().collect(),
                    ..run(u64::try_from(id).unwrap(), outcome)
                };
                record.take(run, None, keep);
            }
            let finding = record.findings().next().cloned();
            finding.map_or_else(String::new, |finding| {
                assert_eq!(finding.cause.code(), "intermittent");
                assert_eq!(finding.severity, Severity::Warning);
                finding.evidence.join("; ")
            })
        };
        for quiet in [
            "",
            "F",
            "S",
            "SSSSSS",
            "FFFF",
            "SSFFFSSS",
            "FFSSFF",
            "STSTST",
            "FSFSSSSSSSSSSS",
        ] {
            assert_eq!(after(quiet), "", "{quiet}");
        }
        assert_eq!(
            after("SFSFS"),
            "2 of the last 5 checks found that a pull would fail; tls_hang in 2 of the last 5 checks"
        );
        assert_eq!(after("SWSSWSW"), "connect_loss in 3 of the last 7 checks");
        // No more than the newest ten.
        assert!(after("SSSSSSSSSFSFSSSSSS").contains("2 of the last 10"));
    }

    fn path(class: Option<PathClass>, address: &str) -> PathSummary {
        PathSummary {
            leg: Role::Registry,
            class,
            confidence: Confidence::High,
            addresses: vec![address.parse().unwrap()],
            server: "registry.test".to_owned(),
        }
    }

    #[test]
    fn classes_are_published_with_hysteresis_and_what_is_new_is_reported() {
        use PathClass::{Intranet, PublicEip};
        let mut record = TargetHistory::default();
        let see = |record: &mut TargetHistory, class, address| {
            let mut changes = Changes::default();
            record.update_paths(&[path(class, address)], &mut changes);
            let published = record.paths().next().map(|path| path.class);
            (published, changes.is_path_new, changes.classes.len())
        };
        let a = "10.0.0.1";
        assert_eq!(
            see(&mut record, Some(Intranet), a),
            (Some(Intranet), false, 0)
        );
        assert_eq!(
            see(&mut record, Some(PublicEip), a),
            (Some(Intranet), true, 0)
        );
        assert_eq!(see(&mut record, None, a), (Some(Intranet), false, 0));
        assert_eq!(
            see(&mut record, Some(PublicEip), a),
            (Some(Intranet), true, 0)
        );
        assert_eq!(
            see(&mut record, Some(PublicEip), a),
            (Some(PublicEip), true, 1)
        );
        // Other addresses take effect at once.
        assert_eq!(
            see(&mut record, Some(Intranet), "10.0.0.2"),
            (Some(Intranet), true, 1)
        );
    }
}
