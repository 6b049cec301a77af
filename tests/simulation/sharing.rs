//! What nodes share by Leases, in the simulation: the real decisions over a store of Leases that keeps
//! resourceVersions as the API server does, is away for some hours, and has holders that die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pullpath::config::Budgets;
use pullpath::daemon::coordination::group::{EgressGroup, LeaseGroup};
use pullpath::daemon::coordination::lease::NOTE;
use pullpath::daemon::coordination::slots::{self, Decision, Rule, SkipReason, Slot, Slots};
use pullpath::daemon::schedule::account::Account;
use pullpath::daemon::schedule::admission::{self, NextAttempt};
use pullpath::daemon::schedule::budget::Reserved;
use pullpath::daemon::schedule::clock::{Moment, hash, share};
use pullpath::daemon::schedule::cooldown::{COOLDOWN, SHARED_COOLDOWN};
use pullpath::daemon::schedule::timetable::{Due, Tier};
use pullpath::kubernetes::lease::{LeaseObservation, Record};
use tokio::time::Instant;

use super::{BEGIN, Figures, Node, REGISTRY, TEST, credential, heard_of_test};

/// NAT gateways.
const NATS: usize = 2;

/// As `spread` has them by default.
const PLACES: u32 = 2;
pub const EPOCH: Duration = Duration::from_hours(5);

/// The API server does not answer for so long, from the third day on.
pub const AWAY: (Duration, Duration) = (Duration::from_hours(54), Duration::from_hours(64));

/// The registry takes the password from then on.
pub const FIXED: Duration = Duration::from_hours(66);

/// From reading a Lease to its being written, by an API server that has much to do.
const LATENCY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// A node that dies in a test is back after this.
const DEAD: Duration = Duration::from_mins(2);

/// A credential may be tried for so long once its slot has come.
const TRY_WITHIN: Duration = Duration::from_mins(10);

/// As long as a check may last, and 30 s.
const LASTS: Duration = Duration::from_secs(90);

/// One of so many tests is its node's last act before it dies.
const DEADLY: f64 = 0.05;

/// The API server.
pub struct Store {
    leases: BTreeMap<String, Record>,
    version: u64,
    begin: Instant,
    /// Running tests by NAT: until when.
    running: Vec<Vec<Moment>>,
    /// Tests by Lease and epoch, and those of them that were never counted.
    tests: BTreeMap<(String, u64), (u32, u32)>,
    /// Logins with the wrong password by the hour in which they are counted.
    logins: BTreeMap<u64, u64>,
}

impl Store {
    pub fn new() -> Self {
        Self {
            leases: BTreeMap::new(),
            version: 0,
            begin: Instant::now(),
            running: vec![Vec::new(); NATS],
            tests: BTreeMap::new(),
            logins: BTreeMap::new(),
        }
    }

    fn read(&self, name: &str) -> Record {
        self.leases.get(name).cloned().unwrap_or_default()
    }

    /// `None`: somebody else has written it since it was read.
    fn write(&mut self, name: &str, mut record: Record) -> Option<Record> {
        let now = self.leases.get(name);
        let version = |record: &Record| record.0.metadata.resource_version.clone();
        if now.and_then(version) != version(&record) {
            return None;
        }
        self.version += 1;
        record.0.metadata.resource_version = Some(self.version.to_string());
        self.leases.insert(name.to_owned(), record.clone());
        Some(record)
    }

    pub fn log_in(&mut self, now: Moment) {
        let lease = LeaseGroup::of_credential(REGISTRY, &credential()).lease;
        let hour = Rule::RETRIES.begin(&lease, now);
        *self.logins.entry(hour).or_default() += 1;
    }

    fn steady(&self, now: Moment) -> Instant {
        self.begin + since_begin(now)
    }
}

fn since_begin(now: Moment) -> Duration {
    now.since(Moment(Duration::from_secs(BEGIN)))
}

fn is_away(now: Moment) -> bool {
    (AWAY.0..AWAY.1).contains(&since_begin(now))
}

fn timestamp(now: Moment) -> Timestamp {
    Timestamp::from_second(i64::try_from(now.0.as_secs()).unwrap()).unwrap()
}

/// Of a node.
pub struct Sharing {
    slots: Slots,
    retries: Slots,
    holder: String,
    nat: usize,
    group: LeaseGroup,
    seen: BTreeMap<String, LeaseObservation>,
    /// What it does next, besides.
    ops: Vec<(Moment, Op)>,
    trying: Option<Slot>,
}

enum Op {
    Take(Test, Record),
    End(Test, Record),
    TakeRetry(Slot, Record),
    Accept(Slot),
}

/// A transfer test that is begun.
struct Test {
    slot: Slot,
    due: Due,
    reserved: Option<Reserved>,
    last: Option<Moment>,
}

pub fn rest(node: &Node) -> Duration {
    if node.sharing.is_none() {
        return COOLDOWN;
    }
    SHARED_COOLDOWN.mul_f64(1.0 + share(hash(&[&node.name, "rest"])))
}

impl Sharing {
    pub fn new(name: &str, index: usize, life: u32, now: Moment) -> Self {
        let nat = index % NATS;
        let egress = EgressGroup::Shared(vec![format!("192.0.2.{nat}")]);
        let rule = Rule {
            epoch: EPOCH,
            nodes: PLACES,
        };
        let mut slots = Slots::new(name, rule);
        slots.replace([(Arc::from(REGISTRY), now)]);
        Self {
            slots,
            retries: Slots::new(name, Rule::RETRIES),
            holder: format!("{name}_{life}"),
            nat,
            group: LeaseGroup::of_path(REGISTRY, &egress, &rule),
            seen: BTreeMap::new(),
            ops: Vec::new(),
            trying: None,
        }
    }

    pub fn next(&self) -> Option<Moment> {
        let ops = self.ops.iter().map(|(at, _)| *at);
        ops.chain(self.slots.next())
            .chain(self.retries.next())
            .min()
    }
}

/// What is due of a node besides its own checks; `None`: nothing is. Otherwise requests to the registry.
pub fn act(node: &mut Node, now: Moment, store: &mut Store, figures: &mut Figures) -> Option<u32> {
    let sharing = node.sharing.as_mut()?;
    let due = sharing.ops.iter().position(|(at, _)| *at <= now);
    if let Some(due) = due {
        let (_, op) = sharing.ops.remove(due);
        return Some(match op {
            Op::Take(test, record) => take(node, test, record, now, store, figures),
            Op::End(test, record) => end(node, &test, record, now, store, figures),
            Op::TakeRetry(slot, record) => take_retry(node, slot, record, now, store, figures),
            Op::Accept(slot) => accept(&slot, now, store, figures),
        });
    }
    if let Some((_, slot)) = sharing.slots.take(now) {
        return Some(look(node, slot, now, store, figures));
    }
    if let Some((lease, slot)) = sharing.retries.take(now) {
        return Some(look_for_retry(node, &lease, slot, now, store, figures));
    }
    None
}

fn sharing(node: &mut Node) -> &mut Sharing {
    node.sharing.as_mut().unwrap()
}

fn push(node: &mut Node, at: Moment, op: Op) {
    sharing(node).ops.push((at, op));
}

fn later_by_latency(node: &Node, now: Moment) -> Moment {
    let draw = share(hash(&[
        &node.name,
        "latency",
        &now.0.as_nanos().to_string(),
    ]));
    now.after(LATENCY.0 + LATENCY.1.saturating_sub(LATENCY.0).mul_f64(draw))
}

fn look(node: &mut Node, slot: Slot, now: Moment, store: &mut Store, figures: &mut Figures) -> u32 {
    let target = node
        .names
        .iter()
        .min_by_key(|name| node.ledger.bytes.last_transfer(name))
        .cloned()
        .unwrap();
    let due = Due {
        target,
        tier: Tier::Transfer,
        at: slot.at,
    };
    let last = node.ledger.bytes.last_transfer(&due.target);
    let asked = admission::may(
        &mut node.ledger,
        &Budgets::default(),
        &due,
        &Account::of_operator(&due.target, REGISTRY),
        false,
        now,
    );
    let reserved = match asked {
        Ok(reserved) => reserved,
        Err((_, NextAttempt::Later(until))) if until < slot.end() => {
            sharing(node).slots.later(REGISTRY, until);
            return 0;
        }
        Err(_) => {
            sharing(node).slots.done(REGISTRY, now);
            return 0;
        }
    };
    let test = Test {
        slot,
        due,
        reserved,
        last,
    };
    if is_away(now) {
        figures.shared.skipped_while_away += 1;
        return not_mine(node, &test, Decision::Skip(SkipReason::NoApi), now);
    }
    figures.shared.api += 1;
    let steady = store.steady(now);
    let own = sharing(node);
    let lease = own.group.lease.clone();
    let mut record = store.read(&lease);
    let seen = LeaseObservation::again(own.seen.get(&lease), &record, steady);
    let is_held = record.free_for(&own.holder, &seen, steady).is_err();
    own.seen.insert(lease, seen);
    match slots::decide(&test.slot, record.note(NOTE), is_held, now) {
        Decision::Test => {
            record.take(&own.holder, LASTS, timestamp(now));
            let at = later_by_latency(node, now);
            push(node, at, Op::Take(test, record));
            0
        }
        decision => not_mine(node, &test, decision, now),
    }
}

fn not_mine(node: &mut Node, test: &Test, decision: Decision, now: Moment) -> u32 {
    if let Some(reserved) = test.reserved {
        admission::give_back(
            &mut node.ledger,
            &Budgets::default(),
            &Account::of_operator(&test.due.target, REGISTRY),
            reserved,
            test.last,
            now,
        );
    }
    match decision {
        Decision::Later(at) => sharing(node).slots.later(REGISTRY, at),
        _ => sharing(node).slots.done(REGISTRY, now),
    }
    0
}

fn take(
    node: &mut Node,
    test: Test,
    record: Record,
    now: Moment,
    store: &mut Store,
    figures: &mut Figures,
) -> u32 {
    figures.shared.api += 1;
    let lease = sharing(node).group.lease.clone();
    let written = if is_away(now) {
        None
    } else {
        store.write(&lease, record)
    };
    let Some(record) = written else {
        figures.shared.conflicts += 1;
        return not_mine(node, &test, Decision::Skip(SkipReason::Conflict), now);
    };
    let counted = store.tests.entry((lease, test.slot.epoch)).or_default();
    counted.0 += 1;
    begin(node, test, record, now, store, figures)
}

/// The registry sees a test.
fn begin(
    node: &mut Node,
    test: Test,
    record: Record,
    now: Moment,
    store: &mut Store,
    figures: &mut Figures,
) -> u32 {
    let until = now.after(TEST.0);
    let running = &mut store.running[sharing(node).nat];
    running.retain(|until| *until > now);
    figures.shared.at_once += running.len() as u64;
    running.push(until);
    figures.checks += 1;
    let draw = share(hash(&[&node.name, "dies", &test.slot.epoch.to_string()]));
    if draw < DEADLY {
        // It is never ended; the node knows only its file.
        figures.shared.died += 1;
        let key = (sharing(node).group.lease.clone(), test.slot.epoch);
        store.tests.entry(key).or_default().1 += 1;
        running.pop();
        node.restarts = now.after(DEAD);
        node.is_restarted = false;
        let own = sharing(node);
        own.ops.clear();
        node.lives = node.lives.max(1);
        return 4;
    }
    push(node, until, Op::End(test, record));
    10
}

fn end(
    node: &mut Node,
    test: &Test,
    mut record: Record,
    now: Moment,
    store: &mut Store,
    figures: &mut Figures,
) -> u32 {
    let heard = heard_of_test(node, &test.due, test.reserved, now, figures);
    admission::book(
        &mut node.ledger,
        &Budgets::default(),
        &node.name,
        &Account::of_operator(&test.due.target, REGISTRY),
        test.reserved,
        &heard,
        now,
    );
    let own = sharing(node);
    own.slots.done(REGISTRY, now);
    if let Some(note) = slots::counted(&test.slot, record.note(NOTE)) {
        record.set_note(NOTE, note);
    }
    record.give_up(timestamp(now));
    figures.shared.api += 1;
    if is_away(now) || store.write(&own.group.lease, record).is_none() {
        figures.shared.uncounted += 1;
        let key = (own.group.lease.clone(), test.slot.epoch);
        store.tests.entry(key).or_default().1 += 1;
    }
    0
}

/// Credentials that were rejected have slots, as the daemon plans them.
pub fn share_retries(node: &mut Node) {
    let rejected: Vec<Moment> = node.ledger.cooldown.all().map(|(_, one)| one.at).collect();
    let Some(own) = &mut node.sharing else { return };
    let group = LeaseGroup::of_credential(REGISTRY, &credential());
    let wanted = rejected.into_iter().map(|at| {
        let name: Arc<str> = Arc::from(group.lease.as_str());
        (name, at.after(COOLDOWN))
    });
    own.retries.replace(wanted.collect::<Vec<_>>());
}

fn look_for_retry(
    node: &mut Node,
    lease: &str,
    slot: Slot,
    now: Moment,
    store: &Store,
    figures: &mut Figures,
) -> u32 {
    let rejected = node.ledger.cooldown.all().next().map(|(_, one)| one.at);
    let rejected = rejected.filter(|at| now.since(*at) >= COOLDOWN);
    let Some(rejected) = rejected.filter(|_| !is_away(now)) else {
        sharing(node).retries.done(lease, now);
        return 0;
    };
    figures.shared.api += 1;
    let mut record = store.read(lease);
    let text = record.note(NOTE);
    if slots::was_accepted(&slot, text, rejected) {
        sharing(node).retries.done(lease, now);
        node.ledger
            .cooldown
            .let_try(REGISTRY, &credential(), now.after(TRY_WITHIN));
        return 0;
    }
    match slots::decide(&slot, text, false, now) {
        Decision::Test => {
            let counted = slots::counted(&slot, text).unwrap();
            record.set_note(NOTE, counted);
            let at = later_by_latency(node, now);
            push(node, at, Op::TakeRetry(slot, record));
        }
        Decision::Later(at) => sharing(node).retries.later(lease, at),
        Decision::Skip(why) => {
            sharing(node).retries.done(lease, now);
            if why == SkipReason::Enough {
                node.ledger.cooldown.confirm(REGISTRY, &credential(), now);
            }
        }
    }
    0
}

fn take_retry(
    node: &mut Node,
    slot: Slot,
    record: Record,
    now: Moment,
    store: &mut Store,
    figures: &mut Figures,
) -> u32 {
    figures.shared.api += 1;
    let lease = LeaseGroup::of_credential(REGISTRY, &credential()).lease;
    sharing(node).retries.done(&lease, now);
    if is_away(now) || store.write(&lease, record).is_none() {
        figures.shared.conflicts += 1;
        return 0;
    }
    node.ledger
        .cooldown
        .let_try(REGISTRY, &credential(), now.after(TRY_WITHIN));
    sharing(node).trying = Some(slot);
    0
}

/// What became of the password at this node: others want to know.
pub fn report_login(node: &mut Node, accepted: bool, now: Moment) {
    share_retries(node);
    let at = later_by_latency(node, now);
    let Some(own) = &mut node.sharing else { return };
    if let Some(slot) = own.trying.take().filter(|_| accepted) {
        own.ops.push((at, Op::Accept(slot)));
    }
}

fn accept(slot: &Slot, now: Moment, store: &mut Store, figures: &mut Figures) -> u32 {
    figures.shared.api += 2;
    let lease = LeaseGroup::of_credential(REGISTRY, &credential()).lease;
    let mut record = store.read(&lease);
    let note = slots::accepted(slot, record.note(NOTE), now).unwrap();
    record.set_note(NOTE, note);
    if !is_away(now) {
        store.write(&lease, record);
    }
    0
}

/// The results, at the end.
pub fn sum_up(store: &Store, size: &super::Size, figures: &mut Figures) {
    for (tests, uncounted) in store.tests.values() {
        figures.shared.most_in_epoch = figures.shared.most_in_epoch.max(*tests);
        figures.shared.too_many_in_epoch += u64::from(tests.saturating_sub(PLACES + uncounted));
    }
    let epochs = size.hours / (EPOCH.as_secs() / 3600);
    // As far as Leases could be had, and but for the first and the last, which are not whole.
    figures.shared.wanted_by_lease = u64::from(PLACES) * NATS as u64 * epochs;
    figures.shared.by_lease = store
        .tests
        .values()
        .map(|(tests, _)| u64::from(*tests))
        .sum();
    for (hour, logins) in &store.logins {
        let at = since_begin(Moment(Duration::from_secs(*hour)));
        // All try it once at first; in the end it is no wrong one any more.
        if (Duration::from_hours(2)..FIXED).contains(&at) {
            figures.shared.most_logins = figures.shared.most_logins.max(*logins);
        }
    }
}
