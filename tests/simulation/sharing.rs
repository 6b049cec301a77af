//! What nodes share by Leases, in the simulation: the real decisions over a store of Leases that keeps
//! resourceVersions as the API server does, is away for some hours, and has holders that die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pullpath::daemon::ledger::{REJECTED_REST, REJECTED_REST_SHARED, Reserved};
use pullpath::daemon::policy::{self, Then};
use pullpath::daemon::schedule::{Due, Moment, Tier, hash, share};
use pullpath::daemon::turns::{
    self, Decision, Egress, Group, Learned, Pass, Rule, Turn, Turns, View, Way,
};
use pullpath::kubernetes::lease::{Record, Seen, Standing};
use pullpath::model::path::PathClass;
use pullpath::model::units::Bytes;
use tokio::time::Instant;

use super::{BEGIN, Figures, Node, REGISTRY, TEST, credential, heard_of_test, limits};

/// NAT gateways, and subnets behind each.
const NATS: usize = 2;
const SUBNETS: usize = 2;

/// As `spread` has them by default.
const PLACES: u32 = 2;
pub const EPOCH: Duration = Duration::from_hours(5);

/// The API server does not answer for so long, from the third day on.
pub const AWAY: (Duration, Duration) = (Duration::from_hours(54), Duration::from_hours(64));

/// The registry takes the password from then on.
pub const MENDED: Duration = Duration::from_hours(66);

/// From reading a Lease to its being written, by an API server that has much to do.
const LATENCY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// A node that dies in a test is back after this.
const DEAD: Duration = Duration::from_mins(2);

/// A credential may be tried for so long once its turn has come.
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
    /// Running tests by NAT: until when, and whether they were begun without a Lease.
    running: Vec<Vec<(Moment, bool)>>,
    /// Tests by group and epoch: with a Lease, and those of them that were never counted.
    tests: BTreeMap<(String, u64), (u32, u32)>,
    pub logins: BTreeMap<u64, u64>,
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
    turns: Turns,
    retries: Turns,
    holder: String,
    nat: usize,
    group: Group,
    seen: BTreeMap<String, Seen>,
    /// What it does next, besides.
    ops: Vec<(Moment, Op)>,
    trying: Option<Turn>,
}

enum Op {
    Take(Test, Record),
    End(Test, Option<Record>),
    TakeRetry(Turn, Record),
    Accept(Turn),
}

/// A transfer test that is begun.
struct Test {
    turn: Turn,
    due: Due,
    reserved: Option<Reserved>,
    last: Option<Moment>,
}

pub fn rest(node: &Node) -> Duration {
    if node.sharing.is_none() {
        return REJECTED_REST;
    }
    REJECTED_REST_SHARED.mul_f64(1.0 + share(hash(&[&node.name, "rest"])))
}

impl Sharing {
    pub fn new(name: &str, index: usize, life: u32, node: Option<&Node>, now: Moment) -> Self {
        let (nat, subnet) = (index % NATS, index / NATS % SUBNETS);
        let way = Way {
            class: Some(PathClass::PublicSnat),
            egress: Egress::Shared(vec![format!("192.0.2.{nat}")]),
            place: Some(format!("10.0.{subnet}.0/24")),
        };
        let rule = Rule::transfers(EPOCH, PLACES);
        let group = Group::of_way(REGISTRY, &way, &rule);
        let mut sharing = Self {
            turns: Turns::new(name, rule),
            retries: Turns::new(name, Rule::RETRIES),
            holder: format!("{name}_{life}"),
            nat,
            group,
            seen: BTreeMap::new(),
            ops: Vec::new(),
            trying: None,
        };
        let before = node.and_then(|node| node.ledger.no_turn_before(REGISTRY));
        let after = before.map_or(now, |before| before.max(now));
        let group = sharing.group.clone();
        sharing
            .turns
            .replace([(Arc::from(REGISTRY), Some(group), after)]);
        sharing
    }

    pub fn next(&self) -> Option<Moment> {
        let ops = self.ops.iter().map(|(at, _)| *at);
        ops.chain(self.turns.next())
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
            Op::TakeRetry(turn, record) => take_retry(node, turn, record, now, store, figures),
            Op::Accept(turn) => accept(&turn, now, store, figures),
        });
    }
    if let Some((_, turn, _)) = sharing.turns.take(now) {
        return Some(look(node, turn, now, store, figures));
    }
    if let Some((_, turn, _)) = sharing.retries.take(now) {
        return Some(look_for_retry(node, turn, now, store, figures));
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

fn look(node: &mut Node, turn: Turn, now: Moment, store: &mut Store, figures: &mut Figures) -> u32 {
    let target = node
        .names
        .iter()
        .min_by_key(|name| node.ledger.last_transfer(name))
        .cloned()
        .unwrap();
    let due = Due {
        target,
        tier: Tier::Transfer,
        at: turn.at,
    };
    let last = node.ledger.last_transfer(&due.target);
    let asked = policy::may(
        &mut node.ledger,
        &limits(),
        Bytes(16 << 20),
        &due,
        REGISTRY,
        false,
        now,
    );
    let reserved = match asked {
        Ok(reserved) => reserved,
        Err((_, Then::Later(until))) if until < turn.end() => {
            sharing(node).turns.later(REGISTRY, until);
            return 0;
        }
        Err(_) => {
            sharing(node).turns.done(REGISTRY, now);
            return 0;
        }
    };
    let test = Test {
        turn,
        due,
        reserved,
        last,
    };
    let mut learned = node.ledger.learned(REGISTRY);
    let turn = &test.turn;
    if is_away(now) {
        let known: &[f64] = learned.of(&turn.group);
        return match turns::decide(turn, View::Nothing, known, now) {
            Decision::Mine => {
                figures.shared.by_hash += 1;
                begin(node, test, None, now, store, figures)
            }
            decision => not_mine(node, &test, decision, now),
        };
    }
    figures.shared.api += 1;
    let mut record = store.read(&turn.group.lease);
    learned.learn(turn, &record);
    node.ledger.learn(REGISTRY, learned.clone());
    let steady = store.steady(now);
    let own = sharing(node);
    let standing = turns::standing(
        &mut own.seen,
        &turn.group.lease,
        &record,
        &own.holder,
        steady,
    );
    let view = View::Told(&record, &standing);
    match turns::decide(turn, view, learned.of(&turn.group), now) {
        Decision::Mine => {
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
        node.ledger.give_back(
            &test.due.target,
            REGISTRY,
            reserved,
            policy::USUAL_REQUESTS,
            test.last,
            now,
        );
    }
    match decision {
        Decision::Later(at) => sharing(node).turns.later(REGISTRY, at),
        _ => sharing(node).turns.done(REGISTRY, now),
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
    let written = if is_away(now) {
        None
    } else {
        store.write(&test.turn.group.lease, record)
    };
    let Some(record) = written else {
        figures.shared.conflicts += 1;
        let decision = turns::later(&test.turn, now);
        return not_mine(node, &test, decision, now);
    };
    let counted = store
        .tests
        .entry((test.turn.group.note.clone(), test.turn.epoch))
        .or_default();
    counted.0 += 1;
    begin(node, test, Some(record), now, store, figures)
}

/// The registry sees a test.
fn begin(
    node: &mut Node,
    test: Test,
    record: Option<Record>,
    now: Moment,
    store: &mut Store,
    figures: &mut Figures,
) -> u32 {
    let until = now.after(TEST.0);
    let is_blind = record.is_none();
    let running = &mut store.running[sharing(node).nat];
    running.retain(|(until, _)| *until > now);
    for (_, other_is_blind) in running.iter() {
        if is_blind || *other_is_blind {
            figures.shared.at_once_by_hash += 1;
        } else {
            figures.shared.at_once += 1;
        }
    }
    running.push((until, is_blind));
    figures.checks += 1;
    let draw = share(hash(&[&node.name, "dies", &test.turn.epoch.to_string()]));
    if draw < DEADLY && record.is_some() {
        // Nobody ends it; the node knows of nothing but its file.
        figures.shared.died += 1;
        let key = (test.turn.group.note, test.turn.epoch);
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
    record: Option<Record>,
    now: Moment,
    store: &mut Store,
    figures: &mut Figures,
) -> u32 {
    let heard = heard_of_test(node, &test.due, test.reserved, now, figures);
    policy::book(
        &mut node.ledger,
        &node.name,
        &test.due.target,
        REGISTRY,
        test.reserved,
        &heard,
        now,
    );
    let turn = &test.turn;
    node.ledger.had_turn(REGISTRY, turn.last());
    sharing(node).turns.done(REGISTRY, now);
    let Some(mut record) = record else { return 0 };
    turns::book(&mut record, turn);
    record.give_up(timestamp(now));
    figures.shared.api += 1;
    if is_away(now) || store.write(&turn.group.lease, record).is_none() {
        figures.shared.uncounted += 1;
        let key = (turn.group.note.clone(), turn.epoch);
        store.tests.entry(key).or_default().1 += 1;
    }
    0
}

/// Credentials that rest have turns, as the daemon plans them.
pub fn share_retries(node: &mut Node) {
    let rejected: Vec<Moment> = node.ledger.rejected().map(|(_, one)| one.at).collect();
    let Some(own) = &mut node.sharing else { return };
    let group = Group::of_credential(REGISTRY, &credential());
    let wanted = rejected.into_iter().map(|at| {
        let name: Arc<str> = Arc::from(group.lease.as_str());
        (name, Some(group.clone()), at.after(REJECTED_REST))
    });
    own.retries.replace(wanted.collect::<Vec<_>>());
}

fn look_for_retry(
    node: &mut Node,
    turn: Turn,
    now: Moment,
    store: &mut Store,
    figures: &mut Figures,
) -> u32 {
    let lease = turn.group.lease.clone();
    let rejected = node.ledger.rejected().next().map(|(_, one)| one.at);
    let Some(rejected) = rejected.filter(|at| now.since(*at) >= REJECTED_REST) else {
        sharing(node).retries.done(&lease, now);
        return 0;
    };
    let mut learned: Learned = node.ledger.learned(&lease);
    let mut record = store.read(&lease);
    let view = if is_away(now) {
        View::Nothing
    } else {
        figures.shared.api += 1;
        learned.learn(&turn, &record);
        View::Told(&record, &Standing::Free)
    };
    let is_told = matches!(view, View::Told(..));
    let decision = turns::decide_retry(&turn, view, learned.of(&turn.group), rejected, now);
    node.ledger.learn(&lease, learned);
    match decision {
        Decision::Mine if is_told && !turns::was_accepted(&record, &turn, rejected) => {
            turns::book(&mut record, &turn);
            let at = later_by_latency(node, now);
            push(node, at, Op::TakeRetry(turn, record));
        }
        Decision::Mine => {
            sharing(node).retries.done(&lease, now);
            node.ledger
                .let_try(REGISTRY, &credential(), now.after(TRY_WITHIN));
        }
        Decision::Later(at) => sharing(node).retries.later(&lease, at),
        Decision::Pass(why) => {
            sharing(node).retries.done(&lease, now);
            if why == Pass::Enough {
                node.ledger.confirm(REGISTRY, &credential(), now);
            }
        }
    }
    0
}

fn take_retry(
    node: &mut Node,
    turn: Turn,
    record: Record,
    now: Moment,
    store: &mut Store,
    figures: &mut Figures,
) -> u32 {
    figures.shared.api += 1;
    let lease = turn.group.lease.clone();
    if is_away(now) || store.write(&lease, record).is_none() {
        figures.shared.conflicts += 1;
        match turns::later(&turn, now) {
            Decision::Later(at) => sharing(node).retries.later(&lease, at),
            _ => sharing(node).retries.done(&lease, now),
        }
        return 0;
    }
    sharing(node).retries.done(&lease, now);
    node.ledger
        .let_try(REGISTRY, &credential(), now.after(TRY_WITHIN));
    sharing(node).trying = Some(turn);
    0
}

/// What became of the password at this node: others want to know.
pub fn tell_of(node: &mut Node, accepted: bool, now: Moment) {
    share_retries(node);
    let at = later_by_latency(node, now);
    let Some(own) = &mut node.sharing else { return };
    if let Some(turn) = own.trying.take().filter(|_| accepted) {
        own.ops.push((at, Op::Accept(turn)));
    }
}

fn accept(turn: &Turn, now: Moment, store: &mut Store, figures: &mut Figures) -> u32 {
    figures.shared.api += 2;
    let mut record = store.read(&turn.group.lease);
    turns::accept(&mut record, turn, now);
    if !is_away(now) {
        store.write(&turn.group.lease, record);
    }
    0
}

/// What came of it, at the end.
pub fn sum_up(store: &Store, size: &super::Size, figures: &mut Figures) {
    for (tests, uncounted) in store.tests.values() {
        figures.shared.most_in_epoch = figures.shared.most_in_epoch.max(*tests);
        figures.shared.too_many_in_epoch += u64::from(tests.saturating_sub(PLACES + uncounted));
    }
    let epochs = 24 * size.days / (EPOCH.as_secs() / 3600);
    let groups = (NATS * SUBNETS) as u64;
    // As far as Leases could be had, and but for the first and the last, which are not whole.
    figures.shared.wanted_by_lease = u64::from(PLACES) * groups * epochs;
    figures.shared.by_lease = store
        .tests
        .values()
        .map(|(tests, _)| u64::from(*tests))
        .sum();
    for (hour, logins) in &store.logins {
        let at = Duration::from_hours(*hour);
        // All try it once at first.
        if at < Duration::from_hours(2) || at >= MENDED {
            continue;
        }
        let most = if (AWAY.0..AWAY.1).contains(&at) {
            &mut figures.shared.most_logins_while_away
        } else {
            &mut figures.shared.most_logins
        };
        *most = (*most).max(*logins);
    }
}
