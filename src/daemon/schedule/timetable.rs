//! When checks are due. Pure: the time is an argument.
//!
//! The time of a check follows from a hash of node, target and tier, not from chance and not from the start of the
//! process. So a restart moves nothing, and thousands of nodes that restart together don't check together. Only the
//! first check of a target without a result follows the start, spread by the same hash; it moves no later one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::{Moment, hash, share};

/// The kinds of checks, by cost. Each does what the one before it does, and more.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Would a pull succeed?
    #[default]
    Reach,
    /// What is the path? Also traces routers, and queries the metadata service and egress hosts.
    Path,
    /// How fast do layers download?
    Transfer,
}

impl Tier {
    /// All tiers, the cheapest first.
    pub const ALL: [Self; 3] = [Self::Reach, Self::Path, Self::Transfer];

    /// The JSON value and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reach => "reach",
            Self::Path => "path",
            Self::Transfer => "transfer",
        }
    }
}

/// How often a target is checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rhythm {
    /// The period of `reach` checks.
    pub reach: Duration,
    /// The period of `path` checks.
    pub path: Duration,
    /// The mean interval of transfer tests; `None`: never.
    pub transfer: Option<Duration>,
}

impl Rhythm {
    fn of(&self, tier: Tier) -> Option<Duration> {
        match tier {
            Tier::Reach => Some(self.reach),
            Tier::Path => Some(self.path),
            Tier::Transfer => self.transfer,
        }
    }
}

/// A check that is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Due {
    /// The name of the target.
    pub target: Arc<str>,
    /// The kind of the check.
    pub tier: Tier,
    /// When it was scheduled to start.
    pub at: Moment,
}

/// The least interval of unscheduled `path` checks, because some names have other addresses each time.
const UNSCHEDULED_INTERVAL: Duration = Duration::from_mins(10);

/// Unscheduled checks are spread over this time, because their reason concerns many nodes at once.
const UNSCHEDULED_SPREAD: Duration = Duration::from_secs(30);

/// The spacing of transfer tests is exponential, as in NDT7, so that they cover all hours; clamped to these
/// multiples of the mean.
const SPACING: (f64, f64) = (0.1, 2.5);

/// The delay of an unscheduled `reach` check: a new Secret is there by then.
const SOON: Duration = Duration::from_secs(2);

/// The least interval of unscheduled `reach` checks for pods that wait; a kubelet retries after 10 s, 20 s, …
const WAITED_FOR: Duration = Duration::from_mins(1);

/// The least interval of unscheduled `reach` checks after changes of a Secret.
const SECRET_CHANGED: Duration = Duration::from_secs(10);

/// A target to be checked.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub target: Arc<str>,
    /// How often it is checked.
    pub rhythm: Rhythm,
    /// Its last transfer test; `None`: none is known.
    pub last_transfer: Option<Moment>,
    /// Whether a check of it has ended; without a result, the first is made soon.
    pub has_result: bool,
}

/// When checks of each target are due.
#[derive(Debug)]
pub struct Timetable {
    node: String,
    tasks: BTreeMap<Arc<str>, Task>,
    queue: BTreeSet<(Moment, Arc<str>, Tier)>,
}

#[derive(Debug)]
struct Task {
    rhythm: Rhythm,
    next: [Option<Moment>; 3],
    running: bool,
    /// The target has no result yet, and its first check is due within this time; `None`: it has one.
    first: Option<Duration>,
    /// The last unscheduled `path` check.
    hastened: Option<Moment>,
    /// The last unscheduled `reach` check, or the next.
    waited: Option<Moment>,
    /// The same after a change of a Secret.
    secret: Option<Moment>,
}

impl Timetable {
    /// An empty timetable; `node` decides the times of checks.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            tasks: BTreeMap::new(),
            queue: BTreeSet::new(),
        }
    }

    /// Takes a new list of targets. Targets that stay keep their times, unless their rhythm changes. Those without a
    /// result get a `reach` check within `first`, besides their scheduled ones.
    pub fn replace(
        &mut self,
        targets: impl IntoIterator<Item = Planned>,
        first: Duration,
        now: Moment,
    ) {
        let mut before = std::mem::take(&mut self.tasks);
        self.queue.clear();
        for planned in targets {
            let (name, rhythm) = (planned.target, planned.rhythm);
            let mut task = before.remove(&name).unwrap_or(Task {
                rhythm,
                next: [None; 3],
                running: false,
                first: None,
                hastened: None,
                waited: None,
                secret: None,
            });
            task.first = (!planned.has_result).then_some(first);
            for tier in Tier::ALL {
                let keeps = task.rhythm.of(tier) == rhythm.of(tier);
                let next = || {
                    rhythm.of(tier).map(|period| match tier {
                        Tier::Transfer => {
                            self.first_transfer(&name, period, planned.last_transfer, now)
                        }
                        _ => self.scheduled(&name, tier, period, now),
                    })
                };
                let next = task.next[tier as usize].filter(|_| keeps).or_else(next);
                let soon = task.first.filter(|_| tier == Tier::Reach);
                let soon = soon.map(|within| self.first_check(&name, within, now));
                let next = next.into_iter().chain(soon).min();
                task.next[tier as usize] = next;
                self.queue
                    .extend(next.map(|at| (at, Arc::clone(&name), tier)));
            }
            task.rhythm = rhythm;
            self.tasks.insert(name, task);
        }
    }

    /// When the next check is due; targets that are being checked don't count.
    pub fn next(&self) -> Option<Moment> {
        self.waiting().next().map(|(at, ..)| *at)
    }

    /// When a target's next check of this tier is due; `None`: never.
    pub fn next_of(&self, target: &str, tier: Tier) -> Option<Moment> {
        self.tasks.get(target)?.next[tier as usize]
    }

    /// Takes the check that has been due for longest. A target has one check at a time.
    pub fn take(&mut self, now: Moment) -> Option<Due> {
        let (at, target, tier) = self.waiting().next().filter(|(at, ..)| *at <= now)?.clone();
        self.tasks.get_mut(&target)?.running = true;
        Some(Due { target, tier, at })
    }

    fn waiting(&self) -> impl Iterator<Item = &(Moment, Arc<str>, Tier)> {
        let is_free = |name: &Arc<str>| self.tasks.get(name).is_some_and(|task| !task.running);
        self.queue.iter().filter(move |(_, name, _)| is_free(name))
    }

    /// Plans the next check of this tier, not before `not_before`, after one was made or skipped. Checks that
    /// became due meanwhile and are part of it are not repeated. Without a result, the target is checked again soon.
    /// Returns how many of its tier were missed.
    pub fn done(&mut self, due: &Due, now: Moment, not_before: Option<Moment>) -> u64 {
        let from = not_before.map_or(now, |at| at.max(now));
        let Some(task) = self.tasks.get(&due.target) else {
            return 0;
        };
        let (rhythm, next, first) = (task.rhythm, task.next, task.first);
        let mut missed = 0;
        for tier in Tier::ALL.into_iter().take(due.tier as usize + 1) {
            let is_itself = tier == due.tier;
            let (Some(period), Some(at)) = (rhythm.of(tier), next[tier as usize]) else {
                continue;
            };
            if !is_itself && at > now {
                continue;
            }
            let planned = match tier {
                Tier::Transfer => from.after(self.spacing(&due.target, period, due.at)),
                _ => self.scheduled(&due.target, tier, period, from),
            };
            let again = first.filter(|_| tier == Tier::Reach).map(|within| {
                // One that was planned while this check ran, because the image is another one now.
                let is_planned = at > from;
                if is_planned {
                    at
                } else {
                    let chance = share(self.draw(&due.target, "again", from));
                    from.after(within.max(UNSCHEDULED_SPREAD).mul_f64(chance))
                }
            });
            let planned = again.map_or(planned, |again| again.min(planned));
            // Brought forward while this check ran.
            let is_hastened = is_itself && at > due.at && not_before.is_none();
            let planned = if is_hastened {
                planned.min(at.max(from))
            } else {
                planned
            };
            if is_itself && tier != Tier::Transfer {
                let periods = now.since(at).as_nanos() / period.as_nanos().max(1);
                missed = u64::try_from(periods).unwrap_or(u64::MAX);
            }
            self.plan(&due.target, tier, planned);
        }
        if let Some(task) = self.tasks.get_mut(&due.target) {
            task.running = false;
        }
        missed
    }

    /// Postpones a check that can't be made now.
    pub fn postpone(&mut self, due: &Due, until: Moment) {
        self.plan(&due.target, due.tier, until);
        if let Some(task) = self.tasks.get_mut(&due.target) {
            task.running = false;
        }
    }

    /// A check of the target has ended, so it has a result: only its scheduled checks follow.
    pub fn has_result(&mut self, target: &str, now: Moment) {
        let Some((name, task)) = self.tasks.get_key_value(target) else {
            return;
        };
        if task.first.is_none() {
            return;
        }
        let (name, reach, is_running) = (Arc::clone(name), task.rhythm.reach, task.running);
        if !is_running {
            let at = self.scheduled(&name, Tier::Reach, reach, now);
            self.plan(&name, Tier::Reach, at);
        }
        if let Some(task) = self.tasks.get_mut(&name) {
            task.first = None;
        }
    }

    /// Brings the next `path` check forward because something about the path is new, at most every 10 minutes.
    pub fn hasten_path(&mut self, target: &str, now: Moment) {
        let Some((name, task)) = self.tasks.get_key_value(target) else {
            return;
        };
        let is_fresh = task
            .hastened
            .is_some_and(|at| now.since(at) < UNSCHEDULED_INTERVAL);
        if is_fresh {
            return;
        }
        let name = Arc::clone(name);
        let spread = share(self.draw(&name, "soon", now)) * UNSCHEDULED_SPREAD.as_secs_f64();
        let at = now.after(Duration::from_secs_f64(spread));
        if task.next[Tier::Path as usize].is_some_and(|next| next <= at) {
            return;
        }
        self.plan(&name, Tier::Path, at);
        if let Some(task) = self.tasks.get_mut(&name) {
            task.hastened = Some(now);
        }
    }

    /// Brings the next `reach` check forward because a pod waits for the image, at most once a minute.
    pub fn hasten_reach(&mut self, target: &str, now: Moment) {
        let Some((name, task)) = self.tasks.get_key_value(target) else {
            return;
        };
        let soon = now.after(SOON);
        let at = task
            .waited
            .map_or(soon, |last| soon.max(last.after(WAITED_FOR)));
        if task.next[Tier::Reach as usize].is_some_and(|next| next <= at) {
            return;
        }
        let name = Arc::clone(name);
        self.plan(&name, Tier::Reach, at);
        if let Some(task) = self.tasks.get_mut(&name) {
            task.waited = Some(at);
        }
    }

    /// Brings the next `reach` check forward because a Secret has changed with which a pod waits.
    pub fn hasten_for_secret(&mut self, target: &str, now: Moment) {
        let Some((name, task)) = self.tasks.get_key_value(target) else {
            return;
        };
        let soon = now.after(SOON);
        let at = task
            .secret
            .map_or(soon, |last| soon.max(last.after(SECRET_CHANGED)));
        // One that is running may have read the Secret before.
        let is_planned = |next: Moment| next <= at && !(task.running && next <= now);
        if task.next[Tier::Reach as usize].is_some_and(is_planned) {
            return;
        }
        let name = Arc::clone(name);
        self.plan(&name, Tier::Reach, at);
        if let Some(task) = self.tasks.get_mut(&name) {
            task.secret = Some(at);
        }
    }

    fn plan(&mut self, target: &Arc<str>, tier: Tier, at: Moment) {
        let Some(task) = self.tasks.get_mut(target) else {
            return;
        };
        if let Some(old) = task.next[tier as usize].replace(at) {
            self.queue.remove(&(old, Arc::clone(target), tier));
        }
        self.queue.insert((at, Arc::clone(target), tier));
    }

    /// The first scheduled time of the target and tier after a moment.
    fn scheduled(&self, target: &str, tier: Tier, period: Duration, after: Moment) -> Moment {
        let period = period.as_nanos().max(1);
        let offset = u128::from(hash(&[&self.node, target, tier.as_str()])) % period;
        let after = after.0.as_nanos();
        let into = (after + period - offset) % period;
        let at = after - into + period;
        Moment(Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX)))
    }

    /// When a target without a result is checked: its place within this time is always the same.
    fn first_check(&self, target: &str, within: Duration, now: Moment) -> Moment {
        let place = share(hash(&[&self.node, target, "first check"]));
        now.after(within.mul_f64(place))
    }

    /// The first test after a start: some time within the mean interval. If the last test is known, the time as
    /// without the restart, or soon if that is over.
    fn first_transfer(
        &self,
        target: &str,
        mean: Duration,
        last: Option<Moment>,
        now: Moment,
    ) -> Moment {
        let Some(last) = last else {
            return now.after(mean.mul_f64(share(self.draw(target, "first", Moment::default()))));
        };
        let planned = last.after(self.spacing(target, mean, last));
        if planned > now {
            return planned;
        }
        now.after(mean.mul_f64(SPACING.0 * share(self.draw(target, "late", now))))
    }

    /// The time from one transfer test to the next.
    fn spacing(&self, target: &str, mean: Duration, last: Moment) -> Duration {
        let chance = share(self.draw(target, "transfer", last));
        let exponential = -(1.0 - chance).ln();
        mean.mul_f64(exponential.clamp(SPACING.0, SPACING.1))
    }

    fn draw(&self, target: &str, what: &str, at: Moment) -> u64 {
        hash(&[&self.node, target, what, &at.0.as_nanos().to_string()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn rhythm() -> Rhythm {
        Rhythm {
            reach: 2 * MINUTE,
            path: 60 * MINUTE,
            transfer: Some(360 * MINUTE),
        }
    }

    fn schedule(names: &[&str], now: Moment) -> Timetable {
        let mut schedule = Timetable::new("node-1");
        replace(&mut schedule, names, rhythm(), now);
        schedule
    }

    fn replace(schedule: &mut Timetable, names: &[&str], rhythm: Rhythm, now: Moment) {
        let targets = names.iter().map(|name| planned(name, rhythm, None));
        schedule.replace(targets, FIRST, now);
    }

    const FIRST: Duration = Duration::from_secs(15);

    fn planned(name: &str, rhythm: Rhythm, last_transfer: Option<Moment>) -> Planned {
        Planned {
            target: Arc::from(name),
            rhythm,
            last_transfer,
            has_result: true,
        }
    }

    fn at(minutes: u64) -> Moment {
        Moment(Duration::from_secs(1_800_000_000 + minutes * 60))
    }

    /// The same target, without a result.
    fn new(name: &str, rhythm: Rhythm) -> Planned {
        Planned {
            has_result: false,
            ..planned(name, rhythm, None)
        }
    }

    #[test]
    fn without_a_result_the_first_check_comes_soon_and_the_later_ones_keep_their_place() {
        let names: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
        let now = at(300).after(Duration::from_secs(7));
        let start = |is_new: bool| {
            let mut schedule = Timetable::new("node-1");
            let targets = names.iter().map(|name| Planned {
                has_result: !is_new,
                ..planned(name, rhythm(), None)
            });
            schedule.replace(targets.collect::<Vec<_>>(), FIRST, now);
            schedule
        };
        let (mut fresh, mut known) = (start(true), start(false));
        let firsts: Vec<Moment> = names
            .iter()
            .map(|name| fresh.next_of(name, Tier::Reach).unwrap())
            .collect();
        assert!(firsts.iter().all(|at| *at < now.after(FIRST)));
        // By thirds, each has its share.
        for third in 0..3 {
            let from = now.after(third * Duration::from_secs(5));
            let is_here = |at: &&Moment| **at >= from && **at < from.after(Duration::from_secs(5));
            let here = firsts.iter().filter(is_here).count();
            assert!((18..=50).contains(&here), "{here} in one third");
        }
        // The same node starts the same way at another time; another node does not.
        let shifted = |node: &str, now: Moment| {
            let mut schedule = Timetable::new(node);
            schedule.replace([new("t0", rhythm())], FIRST, now);
            schedule.next_of("t0", Tier::Reach).unwrap().since(now)
        };
        assert_eq!(shifted("node-1", now), firsts[0].since(now));
        assert_ne!(shifted("node-2", now), firsts[0].since(now));
        // What comes after the first round is what would have come without it.
        let end = now.after(Duration::from_mins(130));
        let checks = |schedule: &mut Timetable, is_new: bool| -> Vec<Due> {
            let mut made = Vec::new();
            while let Some(next) = schedule.next().filter(|next| *next <= end) {
                let due = schedule.take(next).unwrap();
                if is_new {
                    schedule.has_result(&due.target, next);
                }
                schedule.done(&due, next.after(Duration::from_millis(100)), None);
                made.push(due);
            }
            made.retain(|due| due.at > now.after(FIRST + Duration::from_secs(1)));
            made
        };
        let later = checks(&mut fresh, true);
        assert!(later.len() > 6000);
        assert_eq!(later, checks(&mut known, false));
    }

    #[test]
    fn until_there_is_a_result_the_first_check_is_tried_again() {
        let rare = Rhythm {
            reach: Duration::from_hours(24),
            path: Duration::from_hours(168),
            transfer: None,
        };
        let mut schedule = Timetable::new("node-1");
        schedule.replace([new("a", rare)], FIRST, at(0));
        let mut next = schedule.next_of("a", Tier::Reach).unwrap();
        assert!(next < at(0).after(FIRST));
        // Its budget is used up, five times.
        for _ in 0..5 {
            let due = schedule.take(next).unwrap();
            let until = next.after(Duration::from_secs(20));
            schedule.done(&due, next, Some(until));
            next = schedule.next_of("a", Tier::Reach).unwrap();
            assert!(next >= until && next <= until.after(UNSCHEDULED_SPREAD));
        }
        // A reload, or a change of the pods, doesn't postpone it.
        schedule.replace([new("a", rare)], FIRST, next);
        assert!(schedule.next_of("a", Tier::Reach).unwrap() <= next);
        let due = schedule.take(next).unwrap();
        // Now its image is another one: the result of this check is none of it.
        schedule.replace([new("a", rare)], FIRST, next.after(MINUTE));
        schedule.done(&due, next.after(MINUTE), None);
        let again = schedule.next_of("a", Tier::Reach).unwrap();
        assert!(again <= next.after(2 * MINUTE), "{again:?}");
        // A check that was requested counts as well as one that was due.
        schedule.has_result("a", again);
        schedule.has_result("unknown", again);
        let regular = schedule.next_of("a", Tier::Reach).unwrap();
        assert!(regular > again.after(WAITED_FOR));
        assert_eq!(schedule.queue.len(), 2);
    }

    #[test]
    fn a_target_with_a_result_keeps_its_schedule() {
        let mut schedule = schedule(&["a"], at(0));
        let before = schedule.next_of("a", Tier::Reach);
        let targets = [planned("a", rhythm(), None), new("b", rhythm())];
        schedule.replace(targets, FIRST, at(0));
        assert_eq!(schedule.next_of("a", Tier::Reach), before);
        assert!(schedule.next_of("b", Tier::Reach).unwrap() < at(0).after(FIRST));
    }

    /// All checks until a moment, each of which takes a second.
    fn run(schedule: &mut Timetable, until: Moment) -> Vec<Due> {
        let mut made = Vec::new();
        while let Some(next) = schedule.next().filter(|next| *next <= until) {
            let due = schedule.take(next).unwrap();
            schedule.done(&due, next.after(Duration::from_secs(1)), None);
            made.push(due);
        }
        made
    }

    #[test]
    fn who_waits_for_it_gets_a_check_soon_and_not_each_time() {
        let mut schedule = Timetable::new("n");
        let now = Moment(Duration::from_secs(1_000_000));
        let rhythm = Rhythm {
            reach: Duration::from_hours(1),
            path: Duration::from_hours(1),
            transfer: None,
        };
        schedule.replace([planned("a", rhythm, None)], FIRST, now);
        schedule.hasten_reach("a", now);
        let first = schedule.next_of("a", Tier::Reach).unwrap();
        assert_eq!(first, now.after(SOON));
        let due = schedule.take(first).unwrap();
        schedule.done(&due, first, None);
        // More requests within the minute cause one check, at its end.
        let minute = first.after(WAITED_FOR);
        for seconds in [0, 1, 20, 59] {
            schedule.hasten_reach("a", first.after(Duration::from_secs(seconds)));
            assert_eq!(schedule.next_of("a", Tier::Reach), Some(minute));
        }
        let due = schedule.take(minute).unwrap();
        schedule.done(&due, minute, None);
        let later = minute.after(2 * WAITED_FOR);
        run(&mut schedule, later.after(SOON));
        schedule.hasten_reach("a", later);
        assert_eq!(schedule.next_of("a", Tier::Reach), Some(later.after(SOON)));
        schedule.hasten_reach("unknown", later);
    }

    #[test]
    fn a_changed_secret_brings_the_check_forward_also_while_one_runs() {
        let mut schedule = Timetable::new("n");
        let now = Moment(Duration::from_secs(1_000_000));
        let rhythm = Rhythm {
            reach: Duration::from_hours(1),
            path: Duration::from_hours(1),
            transfer: None,
        };
        schedule.replace([planned("a", rhythm, None)], FIRST, now);
        schedule.hasten_reach("a", now);
        let first = schedule.take(now.after(SOON)).unwrap();
        // Hastened because its pod waits: not again within the minute, but for a new Secret.
        let changed = first.at.after(Duration::from_millis(100));
        schedule.hasten_for_secret("a", changed);
        let ended = first.at.after(Duration::from_secs(1));
        schedule.done(&first, ended, None);
        let second = schedule.next_of("a", Tier::Reach).unwrap();
        assert_eq!(second, changed.after(SOON));
        let due = schedule.take(second).unwrap();
        schedule.done(&due, second, None);
        // A Secret that changes all the time causes a check each 10 s.
        for millis in [100, 200, 300] {
            let then = second.after(Duration::from_millis(millis));
            schedule.hasten_for_secret("a", then);
            let next = schedule.next_of("a", Tier::Reach);
            assert_eq!(next, Some(second.after(SECRET_CHANGED)));
        }
        schedule.hasten_for_secret("unknown", now);
    }

    #[test]
    fn each_tier_comes_at_its_rhythm() {
        let mut schedule = schedule(&["a"], at(0));
        let made = run(&mut schedule, at(24 * 60));
        let of = |tier| made.iter().filter(|due| due.tier == tier).count();
        assert_eq!(of(Tier::Path), 24);
        // Checks that became due within a larger check are part of it.
        assert!(
            (715..=720).contains(&of(Tier::Reach)),
            "{}",
            of(Tier::Reach)
        );
        assert!(
            (1..=40).contains(&of(Tier::Transfer)),
            "{}",
            of(Tier::Transfer)
        );
    }

    #[test]
    fn a_restart_moves_nothing() {
        let mut whole = schedule(&["a", "b"], at(0));
        let all = run(&mut whole, at(600));
        let mut restarted = schedule(&["a", "b"], at(300));
        let later = run(&mut restarted, at(600));
        let reach = |made: &[Due]| -> Vec<(Moment, Arc<str>)> {
            made.iter()
                .filter(|due| due.tier == Tier::Path && due.at > at(300))
                .map(|due| (due.at, Arc::clone(&due.target)))
                .collect()
        };
        assert_eq!(reach(&all), reach(&later));
        assert!(!reach(&all).is_empty());
    }

    #[test]
    fn nodes_and_targets_do_not_come_together() {
        let mut firsts = Vec::new();
        for node in 0..100 {
            let mut schedule = Timetable::new(&format!("node-{node}"));
            replace(&mut schedule, &["a", "b"], rhythm(), at(0));
            firsts.extend(["a", "b"].map(|name| schedule.next_of(name, Tier::Reach).unwrap()));
        }
        // 200 in 2 minutes: by tenths, each has its share.
        for tenth in 0..10 {
            let from = at(0).after(12 * tenth * Duration::from_secs(1));
            let to = from.after(Duration::from_secs(12));
            let here = firsts.iter().filter(|at| **at > from && **at <= to).count();
            assert!((8..=36).contains(&here), "{here} in one tenth");
        }
    }

    #[test]
    fn targets_that_stay_keep_their_place_and_a_new_rhythm_counts_at_once() {
        let mut schedule = schedule(&["a", "b"], at(0));
        let before = Tier::ALL.map(|tier| schedule.next_of("a", tier));
        replace(
            &mut schedule,
            &["a", "c"],
            rhythm(),
            at(0).after(Duration::from_millis(1)),
        );
        assert_eq!(Tier::ALL.map(|tier| schedule.next_of("a", tier)), before);
        assert_eq!(schedule.next_of("b", Tier::Reach), None);
        assert!(schedule.next_of("c", Tier::Reach).is_some());
        assert_eq!(schedule.tasks.len(), 2);
        let quick = Rhythm {
            reach: MINUTE,
            transfer: None,
            ..rhythm()
        };
        replace(&mut schedule, &["a"], quick, at(0));
        assert!(schedule.next_of("a", Tier::Reach).unwrap() <= at(1));
        assert_eq!(schedule.next_of("a", Tier::Path), before[1]);
        assert_eq!(schedule.next_of("a", Tier::Transfer), None);
        assert_eq!(schedule.queue.len(), 2);
    }

    #[test]
    fn of_one_target_one_check_at_a_time_and_none_is_made_up() {
        let mut schedule = schedule(&["a"], at(0));
        let due = schedule.take(at(2)).unwrap();
        assert_eq!(due.tier, Tier::Reach);
        assert_eq!(schedule.take(at(600)), None);
        assert_eq!(schedule.next(), None);
        // It hung for an hour.
        let missed = schedule.done(&due, at(62), None);
        assert!((29..=31).contains(&missed), "{missed}");
        let next = schedule.next_of("a", Tier::Reach).unwrap();
        assert!(next > at(62) && next <= at(64));
    }

    #[test]
    fn a_larger_check_is_also_the_smaller_one() {
        let mut schedule = schedule(&["a"], at(0));
        let due = Due {
            target: Arc::from("a"),
            tier: Tier::Path,
            at: at(10),
        };
        schedule.done(&due, at(10), None);
        for tier in [Tier::Reach, Tier::Path] {
            assert!(schedule.next_of("a", tier).unwrap() > at(10), "{tier:?}");
        }
    }

    #[test]
    fn who_must_wait_waits() {
        let mut schedule = schedule(&["a"], at(0));
        let due = schedule.take(at(2)).unwrap();
        schedule.done(&due, at(2), Some(at(30)));
        let next = schedule.next_of("a", Tier::Reach).unwrap();
        assert!(next > at(30) && next <= at(32));
    }

    #[test]
    fn what_is_new_about_the_way_is_looked_at_soon_but_not_always() {
        let mut schedule = schedule(&["a"], at(0));
        let regular = schedule.next_of("a", Tier::Path).unwrap();
        let now = at(1);
        schedule.hasten_path("a", now);
        let soon = schedule.next_of("a", Tier::Path).unwrap();
        assert!(soon < regular && now.after(UNSCHEDULED_SPREAD) >= soon);
        let due = Due {
            target: Arc::from("a"),
            tier: Tier::Path,
            at: soon,
        };
        schedule.done(&due, soon, None);
        let planned = schedule.next_of("a", Tier::Path);
        schedule.hasten_path("a", now.after(MINUTE));
        assert_eq!(schedule.next_of("a", Tier::Path), planned, "a minute later");
        schedule.hasten_path("a", now.after(11 * MINUTE));
        assert!(
            schedule.next_of("a", Tier::Path) < planned,
            "ten minutes later"
        );
        schedule.hasten_path("gone", now);
    }

    #[test]
    fn transfer_tests_are_spaced_as_ndt7s() {
        let schedule = schedule(&["a"], at(0));
        let mean = Duration::from_hours(6);
        let spacings: Vec<f64> = (0..2000)
            .map(|i| schedule.spacing("a", mean, at(i)).as_secs_f64())
            .collect();
        let least = spacings.iter().copied().fold(f64::MAX, f64::min);
        let most = spacings.iter().copied().fold(0.0, f64::max);
        assert!((least - 2160.0).abs() < 1.0 && (most - 54000.0).abs() < 1.0);
        let average = spacings.iter().sum::<f64>() / 2000.0;
        assert!(
            (0.85..1.0).contains(&(average / mean.as_secs_f64())),
            "{average}"
        );
    }

    #[test]
    fn a_transfer_test_is_not_repeated_for_a_restart() {
        let mut schedule = Timetable::new("node-1");
        let known = planned("a", rhythm(), Some(at(0)));
        schedule.replace([known.clone()], FIRST, at(1));
        let next = schedule.next_of("a", Tier::Transfer).unwrap();
        assert!(next >= at(36), "a tenth of six hours at least");
        // After a week offline: soon, but not together with all others.
        let mut back = Timetable::new("node-1");
        back.replace([known], FIRST, at(10_080));
        let next = back.next_of("a", Tier::Transfer).unwrap();
        assert!(next > at(10_080) && next <= at(10_080 + 36));
    }
}
