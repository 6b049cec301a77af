//! Whose turn it is: of the nodes that share a way, a few do in each epoch what all of them could do.
//! Pure; `spread` asks the API server.
//!
//! Each node has a score in each epoch, by a hash of group, epoch and node (rendezvous hashing), and the
//! lower it is, the sooner its turn comes. At its turn a node looks at the group's note in a Lease: it
//! tells how many were there before. So nobody needs a list of nodes, and the place of one that has gone
//! is the next one's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::schedule::{Moment, hash, share};
use crate::kubernetes::lease::{Record, Seen, Standing};
use crate::model::credential::{CredentialId, CredentialSource};
use crate::model::path::PathClass;

/// Named in all hashes below: another way to decide is another name.
const VERSION: &str = "pullpath turns 1";

/// Before the keys of notes.
const PREFIX: &str = "pullpath/";

/// Notes of one Lease: groups that have a registry and a NAT gateway in common, by class and subnet.
/// Where there are more, those whose epoch began first are forgotten, and their tests made once more.
const MOST_NOTES: usize = 64;

/// A note is of no use any more so long after its epoch began; that of the longest epoch is.
const NOTE_KEPT: Duration = Duration::from_hours(24 * 14);

/// How many thresholds are remembered: the least counts, so that without the API server fewer test
/// rather than more.
const THRESHOLDS: usize = 4;

/// What is another's now is looked at again after a thirtieth of the time in which turns come, within
/// these: a test takes some seconds.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How turns are shared out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    pub epoch: Duration,
    /// How many of a group have a turn in an epoch.
    pub places: u32,
    /// The part of an epoch in which all turns of a group come. It begins anywhere in the epoch, as long
    /// as it ends within it.
    pub window: f64,
}

impl Rule {
    /// Transfer tests. 5,000 nodes look at one Lease in a quarter of 5 h: 1.1 a second.
    pub fn transfers(epoch: Duration, places: u32) -> Self {
        Self {
            epoch,
            places,
            window: 0.25,
        }
    }

    /// Credentials that were rejected: one node each hour.
    pub const RETRIES: Self = Self {
        epoch: Duration::from_hours(1),
        places: 1,
        window: 1.0,
    };

    fn epoch_of(&self, at: Moment) -> u64 {
        let length = self.epoch.as_secs().max(1);
        at.0.as_secs() / length * length
    }
}

/// Those who share turns, and where they write it down.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Group {
    /// The name of the Lease. While one of any of its groups holds it, the others wait.
    pub lease: String,
    /// The key of the group's note (an annotation).
    pub note: String,
    /// Nobody else can be in it: there is nobody to ask.
    pub is_alone: bool,
}

/// By what address packets leave for a public one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Egress {
    /// Not translated: a private way.
    Inside,
    /// An EIP, or an address of one's own: nobody shares it.
    Own,
    /// These, which many share, in order.
    Shared(Vec<String>),
    /// Not known. All that do not know it share one, as if it were the same.
    Unknown,
}

/// The way of a transfer test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Way {
    /// Of the leg that layers come by.
    pub class: Option<PathClass>,
    pub egress: Egress,
    /// Subnet or zone.
    pub place: Option<String>,
}

impl Group {
    /// Those who get layers of a registry by the same way.
    pub fn of_way(registry: &str, way: &Way, rule: &Rule) -> Self {
        let egress = match &way.egress {
            Egress::Inside => "inside".to_owned(),
            Egress::Own => "own".to_owned(),
            Egress::Shared(addresses) => format!("shared {}", addresses.join(" ")),
            Egress::Unknown => "unknown".to_owned(),
        };
        let class = way.class.map_or("unknown", PathClass::as_str);
        let lease = hash(&[VERSION, "transfer", registry, &egress]);
        let note = hash(&[
            VERSION,
            "transfer",
            registry,
            &egress,
            class,
            way.place.as_deref().unwrap_or_default(),
            &rule.epoch.as_secs().to_string(),
        ]);
        Self {
            lease: format!("pullpath-transfer-{lease:016x}"),
            note: format!("{PREFIX}{note:016x}"),
            is_alone: way.egress == Egress::Own,
        }
    }

    /// Those who have the same credential for a registry, told by the place it comes from. What it
    /// holds is not asked: a hash of it in a Lease could be tried against lists of passwords.
    pub fn of_credential(registry: &str, id: &CredentialId) -> Self {
        let (kind, place): (_, [&str; 2]) = match &id.source {
            CredentialSource::SecretFile {
                path,
                namespace,
                name,
            } => match namespace {
                Some(namespace) => ("secret", [namespace, name]),
                None => ("file", [path, name]),
            },
            CredentialSource::PasswordFile { path }
            | CredentialSource::DockerConfig { path }
            | CredentialSource::NodeConfig { path }
            | CredentialSource::RuntimeConfig { path }
            | CredentialSource::NodeProvider { path, .. }
            | CredentialSource::Helper { path, .. } => ("file", [path, ""]),
            CredentialSource::CommandLine => ("command line", ["", ""]),
        };
        let [first, second] = place;
        let parts = [
            VERSION,
            "credential",
            registry,
            kind,
            first,
            second,
            &id.key,
        ];
        let name = hash(&parts);
        Self {
            lease: format!("pullpath-credential-{name:016x}"),
            note: format!("{PREFIX}{name:016x}"),
            is_alone: false,
        }
    }
}

/// A node's turn in an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    pub group: Group,
    pub rule: Rule,
    /// When the epoch began, in seconds since 1970.
    pub epoch: u64,
    /// From 0 to just below 1; the lowest come first.
    pub score: f64,
    pub at: Moment,
}

impl Turn {
    fn of(group: &Group, rule: &Rule, node: &str, epoch: u64) -> Self {
        let begin = Moment(Duration::from_secs(epoch));
        let drawn = epoch.to_string();
        let score = share(hash(&[VERSION, "score", &group.note, &drawn, node]));
        // The same moment for all of the group, and another one in each epoch: tests meet all hours.
        let opens = share(hash(&[VERSION, "window", &group.note, &drawn]));
        let into = opens * (1.0 - rule.window) + score * rule.window;
        Self {
            group: group.clone(),
            rule: *rule,
            epoch,
            score,
            at: begin.after(rule.epoch.mul_f64(into)),
        }
    }

    /// The first turn of a node that comes after a moment.
    pub fn after(group: &Group, rule: &Rule, node: &str, after: Moment) -> Self {
        let epoch = rule.epoch_of(after);
        let this = Self::of(group, rule, node, epoch);
        if this.at > after {
            return this;
        }
        Self::of(group, rule, node, epoch + rule.epoch.as_secs().max(1))
    }

    /// When the next epoch begins.
    pub fn end(&self) -> Moment {
        Moment(Duration::from_secs(self.epoch)).after(self.rule.epoch)
    }

    /// The last moment of this one.
    pub fn last(&self) -> Moment {
        let end = self.end().0;
        Moment(end.saturating_sub(Duration::from_nanos(1)))
    }

    /// When it is looked at again who holds the Lease: not all at the same moment.
    fn again(&self, now: Moment) -> Moment {
        let wait = self.rule.epoch.mul_f64(self.rule.window / 30.0);
        let wait = wait.clamp(AGAIN.0, AGAIN.1);
        let drawn = now.0.as_nanos().to_string();
        let draw = share(hash(&[&self.group.note, &drawn, &self.score.to_string()]));
        now.after(wait.mul_f64(0.5 + draw))
    }
}

/// What nodes of a group leave to each other, as JSON in an annotation.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Note {
    pub epoch: Timestamp,
    /// How many had their turn in it.
    pub done: u32,
    /// The highest score of those.
    pub score: f64,
    /// Of a credential: the epoch in which it was let in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Timestamp>,
}

impl Note {
    fn epoch(&self) -> Option<u64> {
        u64::try_from(self.epoch.as_second()).ok()
    }

    /// The group's, where it can be read and believed. Of an epoch that begins later than the one after
    /// this: whoever wrote it has a clock that is not ours.
    pub fn read(record: &Record, turn: &Turn) -> Option<Self> {
        let note: Self = serde_json::from_str(record.note(&turn.group.note)?).ok()?;
        let next = turn.epoch + turn.rule.epoch.as_secs();
        let is_whole = (0.0..=1.0).contains(&note.score);
        (is_whole && note.epoch()? <= next).then_some(note)
    }

    /// How many had their turn in this epoch; `None`: a later one has begun.
    fn done_in(&self, turn: &Turn) -> Option<u32> {
        match self.epoch()?.cmp(&turn.epoch) {
            std::cmp::Ordering::Greater => None,
            std::cmp::Ordering::Equal => Some(self.done),
            std::cmp::Ordering::Less => Some(0),
        }
    }

    fn write(&self, record: &mut Record, turn: &Turn) {
        // Numbers and times: nothing in it can't be written.
        if let Ok(text) = serde_json::to_string(self) {
            tidy(record, turn.epoch);
            record.set_note(&turn.group.note, text);
        }
    }

    /// What would have sufficed: the score of the last that had a turn, once all had it.
    fn threshold(&self, rule: &Rule) -> Option<f64> {
        (self.done >= rule.places).then_some(self.score)
    }
}

/// Why a turn passes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pass {
    /// As many as should have had theirs.
    Enough,
    /// The epoch ended before others had.
    Late,
    /// Without the API server, and by its score it is not this node's.
    NotByHash,
    /// Without the API server, and it was never seen what score suffices.
    Unsure,
    /// It is not known by which way layers come.
    NoWay,
}

impl Pass {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enough => "spread_enough",
            Self::Late => "spread_late",
            Self::NotByHash => "spread_by_hash",
            Self::Unsure => "spread_unsure",
            Self::NoWay => "spread_no_path",
        }
    }
}

/// What becomes of a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// It is this node's; where there is a Lease, once it is written.
    Mine,
    Pass(Pass),
    Later(Moment),
}

/// What the API server told.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    Told(&'a Record, &'a Standing),
    /// It is away, or forbids it.
    Nothing,
}

/// Decides. `learned`: scores that sufficed in earlier epochs.
pub fn decide(turn: &Turn, view: View<'_>, learned: &[f64], now: Moment) -> Decision {
    if now >= turn.end() {
        return Decision::Pass(Pass::Late);
    }
    let (record, standing) = match view {
        View::Told(record, standing) => (record, standing),
        View::Nothing => {
            let least = learned.iter().copied().reduce(f64::min);
            return match least {
                None => Decision::Pass(Pass::Unsure),
                Some(least) if turn.score <= least => Decision::Mine,
                Some(_) => Decision::Pass(Pass::NotByHash),
            };
        }
    };
    let note = Note::read(record, turn);
    match note.as_ref().map_or(Some(0), |note| note.done_in(turn)) {
        None => return Decision::Pass(Pass::Late),
        Some(done) if done >= turn.rule.places => return Decision::Pass(Pass::Enough),
        Some(_) => {}
    }
    if let Standing::Held { .. } = standing {
        return later(turn, now);
    }
    Decision::Mine
}

/// The same for a credential that this node saw rejected at a moment. Once it was let in elsewhere since
/// then, each node may try it once, at its turn.
pub fn decide_retry(
    turn: &Turn,
    view: View<'_>,
    learned: &[f64],
    rejected: Moment,
    now: Moment,
) -> Decision {
    if let View::Told(record, _) = view
        && was_accepted(record, turn, rejected)
    {
        return Decision::Mine;
    }
    decide(turn, view, learned, now)
}

/// Whether another node was let in with it, in the epoch in which this one was not, or later.
pub fn was_accepted(record: &Record, turn: &Turn, rejected: Moment) -> bool {
    let accepted = Note::read(record, turn).and_then(|note| note.accepted);
    let accepted = accepted.and_then(|at| u64::try_from(at.as_second()).ok());
    let next = turn.epoch + turn.rule.epoch.as_secs();
    // By a clock that is not ours, it would be let in for ever.
    accepted.is_some_and(|at| at >= turn.rule.epoch_of(rejected) && at <= next)
}

/// Again, if there is time left.
pub fn later(turn: &Turn, now: Moment) -> Decision {
    let again = turn.again(now);
    if again >= turn.end() {
        return Decision::Pass(Pass::Late);
    }
    Decision::Later(again)
}

/// The Lease with one more turn done.
pub fn book(record: &mut Record, turn: &Turn) {
    let before = Note::read(record, turn);
    let (done, score) = match before.as_ref().map(|note| (note, note.done_in(turn))) {
        // A later epoch has begun: nothing of this one is asked any more.
        Some((_, None)) => return,
        Some((note, Some(done))) if done > 0 => (done, note.score),
        _ => (0, 0.0),
    };
    let note = Note {
        epoch: timestamp(turn.epoch),
        done: done.saturating_add(1),
        score: score.max(turn.score),
        accepted: before.and_then(|note| note.accepted),
    };
    note.write(record, turn);
}

/// The Lease with the news that a credential was let in again.
pub fn accept(record: &mut Record, turn: &Turn, now: Moment) {
    let accepted = Some(timestamp(turn.rule.epoch_of(now)));
    let note = match Note::read(record, turn) {
        Some(note) => Note { accepted, ..note },
        None => Note {
            epoch: timestamp(turn.epoch),
            done: 1,
            score: turn.score,
            accepted,
        },
    };
    note.write(record, turn);
}

fn timestamp(seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

/// Takes away notes of long ago, and what is none.
fn tidy(record: &mut Record, now: u64) {
    let begin = |text: &str| {
        let note: Note = serde_json::from_str(text).ok()?;
        note.epoch()
    };
    let mut epochs: Vec<u64> = record.notes().filter_map(|(_, text)| begin(text)).collect();
    epochs.sort_unstable_by(|a, b| b.cmp(a));
    // One more is written now.
    let oldest = epochs.get(MOST_NOTES - 1).copied().unwrap_or(0);
    record.retain_notes(|key, text| {
        if !key.starts_with(PREFIX) {
            return true;
        }
        begin(text).is_some_and(|at| at > oldest && at.saturating_add(NOTE_KEPT.as_secs()) > now)
    });
}

/// Scores that sufficed for one group, the newest last.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    note: String,
    epoch: u64,
    scores: Vec<f64>,
}

impl Learned {
    /// Of this group; nothing of another is known of it.
    pub fn of(&self, group: &Group) -> &[f64] {
        if self.note == group.note {
            &self.scores
        } else {
            &[]
        }
    }

    /// Takes what a note tells.
    pub fn learn(&mut self, turn: &Turn, record: &Record) {
        let Some(note) = Note::read(record, turn) else {
            return;
        };
        let (Some(epoch), Some(score)) = (note.epoch(), note.threshold(&turn.rule)) else {
            return;
        };
        if self.note != turn.group.note {
            *self = Self {
                note: turn.group.note.clone(),
                ..Self::default()
            };
        }
        // The same once more, or of long ago.
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        self.scores.push(score);
        if self.scores.len() > THRESHOLDS {
            self.scores.remove(0);
        }
    }
}

/// A Lease was seen, after it was seen before; how it stands for this holder.
pub fn standing(
    seen: &mut BTreeMap<String, Seen>,
    lease: &str,
    record: &Record,
    holder: &str,
    now: Instant,
) -> Standing {
    let known = Seen::again(seen.get(lease), record, now);
    let standing = record.standing(holder, &known, now);
    seen.insert(lease.to_owned(), known);
    standing
}

/// When this node's turns are, of each thing that it takes turns for.
#[derive(Debug)]
pub struct Turns {
    node: String,
    rule: Rule,
    places: BTreeMap<Arc<str>, Place>,
}

#[derive(Debug)]
struct Place {
    /// `None`: not known yet. Its turn comes all the same, and passes.
    group: Option<Group>,
    turn: Turn,
    is_running: bool,
}

impl Turns {
    pub fn new(node: &str, rule: Rule) -> Self {
        Self {
            node: node.to_owned(),
            rule,
            places: BTreeMap::new(),
        }
    }

    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// These are what turns are taken for, and nothing else. One that is new has its first turn after
    /// the moment that is given with it; one that stays keeps its turn, and its group where none is known.
    pub fn replace(&mut self, wanted: impl IntoIterator<Item = (Arc<str>, Option<Group>, Moment)>) {
        let mut before = std::mem::take(&mut self.places);
        for (name, group, after) in wanted {
            let place = match before.remove(&name) {
                // What is being looked at goes on.
                Some(place) if place.is_running || group.is_none() || place.group == group => place,
                _ => Place {
                    turn: self.turn(&name, group.as_ref(), after),
                    group,
                    is_running: false,
                },
            };
            self.places.insert(name, place);
        }
    }

    /// Whose group is not known has the turn of one that is called like it.
    fn turn(&self, name: &str, group: Option<&Group>, after: Moment) -> Turn {
        let unknown = Group {
            lease: String::new(),
            note: format!("unknown {name}"),
            is_alone: false,
        };
        Turn::after(group.unwrap_or(&unknown), &self.rule, &self.node, after)
    }

    pub fn next(&self) -> Option<Moment> {
        let waiting = self.places.values().filter(|place| !place.is_running);
        waiting.map(|place| place.turn.at).min()
    }

    pub fn next_of(&self, name: &str) -> Option<Moment> {
        Some(self.places.get(name)?.turn.at)
    }

    /// Takes the turn that is due for longest; without a group it can only pass.
    pub fn take(&mut self, now: Moment) -> Option<(Arc<str>, Turn, bool)> {
        let waiting = self
            .places
            .iter_mut()
            .filter(|(_, place)| !place.is_running);
        let (name, place) = waiting.min_by_key(|(_, place)| place.turn.at)?;
        if place.turn.at > now {
            return None;
        }
        place.is_running = true;
        Some((Arc::clone(name), place.turn.clone(), place.group.is_some()))
    }

    /// It is looked at again.
    pub fn later(&mut self, name: &str, at: Moment) {
        if let Some(place) = self.places.get_mut(name) {
            place.turn.at = at;
            place.is_running = false;
        }
    }

    /// It was had, or has passed: the next one is in another epoch.
    pub fn done(&mut self, name: &str, now: Moment) {
        let Some(place) = self.places.get(name) else {
            return;
        };
        let after = place.turn.last().max(now);
        let turn = self.turn(name, place.group.as_ref(), after);
        if let Some(place) = self.places.get_mut(name) {
            place.turn = turn;
            place.is_running = false;
        }
    }

    /// What is known now of one thing's group. What was known before is not forgotten for nothing.
    pub fn know(&mut self, name: &Arc<str>, group: Option<Group>, after: Moment) {
        let Some(place) = self.places.get(name) else {
            return;
        };
        if place.is_running || group.is_none() || place.group == group {
            return;
        }
        let place = Place {
            turn: self.turn(name, group.as_ref(), after),
            group,
            is_running: false,
        };
        self.places.insert(Arc::clone(name), place);
    }

    /// Nothing is known of the looks that are under way: their turns pass.
    pub fn give_up(&mut self, now: Moment) {
        let running = self.places.iter().filter(|(_, place)| place.is_running);
        let running: Vec<Arc<str>> = running.map(|(name, _)| Arc::clone(name)).collect();
        for name in running {
            self.done(&name, now);
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(1_800_000_000 + seconds))
    }

    fn rule() -> Rule {
        Rule::transfers(5 * HOUR, 2)
    }

    fn way(egress: Egress, class: PathClass) -> Way {
        Way {
            class: Some(class),
            egress,
            place: None,
        }
    }

    fn group() -> Group {
        let way = way(Egress::Inside, PathClass::Intranet);
        Group::of_way("r.test", &way, &rule())
    }

    fn turn(node: &str) -> Turn {
        Turn::after(&group(), &rule(), node, at(0))
    }

    fn with_note(turn: &Turn, epoch: u64, done: u32, score: f64) -> Record {
        let mut record = Record::default();
        let note = Note {
            epoch: timestamp(epoch),
            done,
            score,
            accepted: None,
        };
        note.write(&mut record, turn);
        record
    }

    /// Other nodes run other versions: what these hashes are must not change without another name.
    #[test]
    fn names_and_scores_are_the_same_in_every_version() {
        let group = group();
        assert_eq!(group.lease, "pullpath-transfer-c1b35692490dc562");
        assert_eq!(group.note, "pullpath/4545c820a15dd716");
        let turn = turn("n1");
        assert_eq!(turn.epoch, 1_800_000_000);
        assert_eq!(format!("{:.6}", turn.score), "0.473465");
        let id = CredentialId {
            source: CredentialSource::SecretFile {
                path: "the cluster".to_owned(),
                namespace: Some("shop".to_owned()),
                name: "pull".to_owned(),
            },
            key: "r.test".to_owned(),
        };
        let group = Group::of_credential("r.test", &id);
        assert_eq!(group.lease, "pullpath-credential-db3f9b66266b4d33");
    }

    #[test]
    fn what_shares_a_nat_shares_a_lease_and_each_way_has_a_note() {
        let of = |registry: &str, egress: Egress, class, place: Option<&str>| {
            let way = Way {
                place: place.map(ToOwned::to_owned),
                ..way(egress, class)
            };
            Group::of_way(registry, &way, &rule())
        };
        let nat = || Egress::Shared(vec!["192.0.2.1".to_owned()]);
        let snat = PathClass::PublicSnat;
        let one = of("r.test", nat(), snat, None);
        for (other, same_lease) in [
            (of("r.test", nat(), snat, Some("10.0.0.0/24")), true),
            (of("r.test", nat(), PathClass::PublicUnknown, None), true),
            (of("s.test", nat(), snat, None), false),
            (of("r.test", Egress::Unknown, snat, None), false),
            (
                of("r.test", Egress::Inside, PathClass::Intranet, None),
                false,
            ),
        ] {
            assert_ne!(one.note, other.note);
            assert_eq!(one.lease == other.lease, same_lease, "{other:?}");
            assert!(!other.is_alone);
        }
        assert!(of("r.test", Egress::Own, PathClass::PublicEip, None).is_alone);
        // Other epochs are other groups, since their numbers mean something else.
        let longer = Rule::transfers(6 * HOUR, 2);
        let other = Group::of_way("r.test", &way(nat(), snat), &longer);
        assert_eq!(other.lease, one.lease);
        assert_ne!(other.note, one.note);
    }

    #[test]
    fn turns_come_once_in_each_epoch_lowest_first_and_at_other_hours_each_time() {
        let (mut opens, mut winners) = (Vec::new(), std::collections::BTreeSet::new());
        for epoch in 0..200u64 {
            let after = at(epoch * 5 * 3600);
            let mut turns: Vec<(Turn, u32)> = (0..50)
                .map(|n| (Turn::after(&group(), &rule(), &format!("n{n}"), after), n))
                .collect();
            // All of one epoch, whichever has begun.
            let last = turns.iter().map(|(turn, _)| turn.epoch).max().unwrap();
            turns.retain(|(turn, _)| turn.epoch == last);
            turns.sort_by(|(a, _), (b, _)| a.score.total_cmp(&b.score));
            assert!(turns.windows(2).all(|pair| pair[0].0.at <= pair[1].0.at));
            let begin = Duration::from_secs(last);
            for (turn, _) in &turns {
                assert!(turn.at.0 >= begin && turn.at < turn.end(), "{turn:?}");
                assert!((0.0..1.0).contains(&turn.score));
            }
            opens.push(turns[0].0.at.0.as_secs() % 86_400 / 3600);
            winners.insert(turns[0].1);
        }
        opens.sort_unstable();
        opens.dedup();
        assert_eq!(opens.len(), 24, "tests meet all hours: {opens:?}");
        assert!(winners.len() > 40, "not the same ones each time");
    }

    #[test]
    fn the_note_the_holder_and_the_time_decide() {
        let turn = turn("n1");
        let (now, free) = (turn.at, Standing::Free);
        let held = Standing::Held {
            by: "n2".to_owned(),
            until: Instant::now(),
        };
        let epoch = turn.epoch;
        let length = 5 * 3600;
        let ask = |record: &Record, standing: &Standing, now| {
            decide(&turn, View::Told(record, standing), &[], now)
        };
        let pass = Decision::Pass;
        for (record, standing, expected) in [
            (Record::default(), &free, Decision::Mine),
            (Record::default(), &Standing::Ours, Decision::Mine),
            (with_note(&turn, epoch, 1, 0.1), &free, Decision::Mine),
            (with_note(&turn, epoch, 2, 0.1), &free, pass(Pass::Enough)),
            (with_note(&turn, epoch, 3, 0.1), &held, pass(Pass::Enough)),
            (
                with_note(&turn, epoch - length, 2, 0.1),
                &free,
                Decision::Mine,
            ),
            (
                with_note(&turn, epoch + length, 0, 0.1),
                &free,
                pass(Pass::Late),
            ),
            // A clock that is days ahead is not believed.
            (
                with_note(&turn, epoch + 2 * length, 2, 0.1),
                &free,
                Decision::Mine,
            ),
            (with_note(&turn, epoch, 2, 7.5), &free, Decision::Mine),
        ] {
            assert_eq!(
                ask(&record, standing, now),
                expected,
                "{record:?} {standing:?}"
            );
        }
        let Decision::Later(again) = ask(&Record::default(), &held, now) else {
            panic!("somebody else holds it");
        };
        let wait = again.since(now).as_secs();
        assert!((15..=45).contains(&wait), "{wait}");
        let last = Moment(turn.end().0.checked_sub(Duration::from_secs(5)).unwrap());
        assert_eq!(ask(&Record::default(), &held, last), pass(Pass::Late));
        assert_eq!(ask(&Record::default(), &free, turn.end()), pass(Pass::Late));
        let mut foreign = Record::default();
        foreign.set_note(&turn.group.note, "{torn".to_owned());
        assert_eq!(ask(&foreign, &free, now), Decision::Mine);
    }

    #[test]
    fn without_the_api_server_the_least_score_that_sufficed_decides_and_nothing_is_guessed() {
        let turn = turn("n1");
        let ask = |learned: &[f64]| decide(&turn, View::Nothing, learned, turn.at);
        assert_eq!(ask(&[]), Decision::Pass(Pass::Unsure));
        let (above, below) = (turn.score + 0.01, turn.score - 0.01);
        assert_eq!(ask(&[above]), Decision::Mine);
        assert_eq!(ask(&[above, below]), Decision::Pass(Pass::NotByHash));
    }

    #[test]
    fn scores_that_sufficed_are_learned_from_whole_epochs_of_the_own_group() {
        let turn = turn("n1");
        let length = 5 * 3600;
        let mut learned = Learned::default();
        learned.learn(&turn, &Record::default());
        learned.learn(&turn, &with_note(&turn, turn.epoch, 1, 0.1));
        assert_eq!(learned.of(&turn.group), &[] as &[f64], "not all were there");
        for back in (0..6).rev() {
            #[expect(clippy::cast_precision_loss, reason = "below 6")]
            let score = 0.1 * (back as f64 + 1.0);
            let note = with_note(&turn, turn.epoch - back * length, 2, score);
            learned.learn(&turn, &note);
            // The same once more is nothing new.
            learned.learn(&turn, &note);
        }
        let scores: Vec<String> = learned
            .of(&turn.group)
            .iter()
            .map(|score| format!("{score:.1}"))
            .collect();
        assert_eq!(scores, ["0.4", "0.3", "0.2", "0.1"]);
        let way = way(Egress::Unknown, PathClass::PublicSnat);
        let other = Group::of_way("r.test", &way, &rule());
        assert_eq!(learned.of(&other), &[] as &[f64]);
    }

    #[test]
    fn what_was_done_is_counted_and_notes_do_not_pile_up() {
        let turn = turn("n1");
        let mut record = Record::default();
        record.set_note("kubectl.kubernetes.io/other", "kept".to_owned());
        book(&mut record, &turn);
        let second = Turn {
            score: turn.score + 0.1,
            ..turn.clone()
        };
        book(&mut record, &second);
        let note = Note::read(&record, &turn).unwrap();
        assert_eq!((note.done, note.epoch()), (2, Some(turn.epoch)));
        assert!((note.score - second.score).abs() < 1e-12);
        // The next epoch begins with nothing; a straggler of the last changes nothing.
        let next = Turn::after(&group(), &rule(), "n1", turn.last());
        assert_eq!(next.epoch, turn.epoch + 5 * 3600);
        book(&mut record, &next);
        book(&mut record, &turn);
        assert_eq!(Note::read(&record, &next).unwrap().done, 1);
        for other in 0..200 {
            let mut one = next.clone();
            one.group.note = format!("pullpath/{other}");
            one.epoch += other;
            book(&mut record, &one);
        }
        let notes = record.notes().count();
        assert_eq!(notes, MOST_NOTES + 1, "those of others are left alone");
        assert_eq!(record.note("kubectl.kubernetes.io/other"), Some("kept"));
        let mut late = next.clone();
        late.epoch += NOTE_KEPT.as_secs() + 86_400;
        late.group.note = "pullpath/late".to_owned();
        book(&mut record, &late);
        assert_eq!(record.notes().count(), 2);
    }

    #[test]
    fn a_credential_let_in_elsewhere_may_be_tried_by_all_once() {
        let id = CredentialId {
            source: CredentialSource::DockerConfig {
                path: "/config.json".to_owned(),
            },
            key: "r.test".to_owned(),
        };
        let group = Group::of_credential("r.test", &id);
        let turn = |node: &str, after| Turn::after(&group, &Rule::RETRIES, node, after);
        let rejected = at(10);
        let first = turn("n1", rejected.after(HOUR));
        assert!(first.at.since(rejected) >= HOUR);
        let mut record = Record::default();
        let ask = |turn: &Turn, record: &Record, rejected| {
            let view = View::Told(record, &Standing::Free);
            decide_retry(turn, view, &[], rejected, turn.at)
        };
        assert_eq!(ask(&first, &record, rejected), Decision::Mine);
        book(&mut record, &first);
        // The others rest for this hour.
        let second = Turn {
            score: 0.9,
            ..first.clone()
        };
        assert_eq!(
            ask(&second, &record, rejected),
            Decision::Pass(Pass::Enough)
        );
        accept(&mut record, &first, first.at);
        assert_eq!(ask(&second, &record, rejected), Decision::Mine);
        // Rejected here all the same, in a later hour: as before.
        let again = first.end().after(Duration::from_mins(1));
        let third = turn("n2", again.after(HOUR));
        book(&mut record, &third);
        assert_eq!(ask(&third, &record, again), Decision::Pass(Pass::Enough));
        assert!(
            was_accepted(&record, &third, rejected),
            "kept by later notes"
        );
        // Let in for ever by a clock that is ahead: not believed.
        accept(&mut record, &third, third.at.after(48 * HOUR));
        assert!(!was_accepted(&record, &third, again));
    }

    #[test]
    fn a_restart_repeats_no_turn_and_a_new_group_has_its_own() {
        let mut turns = Turns::new("n1", rule());
        let name: Arc<str> = Arc::from("r.test");
        let wanted = |group, after| [(Arc::clone(&name), group, after)];
        turns.replace(wanted(None, at(0)));
        let unknown = turns.next().unwrap();
        let (_, _, is_known) = turns.take(unknown).unwrap();
        assert!(!is_known);
        assert_eq!(turns.next(), None, "it is being looked at");
        turns.done("r.test", unknown);
        turns.know(&name, Some(group()), at(0));
        let first = turn("n1");
        assert_eq!(turns.next(), Some(first.at));
        let (_, taken, is_known) = turns.take(first.at).unwrap();
        assert!(is_known && taken == first);
        turns.later("r.test", first.at.after(HOUR));
        assert_eq!(turns.next_of("r.test"), Some(first.at.after(HOUR)));
        turns.take(first.at.after(HOUR)).unwrap();
        turns.done("r.test", first.at.after(HOUR));
        let second = turns.next().unwrap();
        assert!(second > first.last());
        // What becomes unknown stays what it was.
        turns.know(&name, None, at(0));
        turns.replace(wanted(None, at(0)));
        assert_eq!(turns.next(), Some(second));
        // Another process, right after the turn.
        let mut restarted = Turns::new("n1", rule());
        restarted.replace(wanted(Some(group()), first.at));
        assert_eq!(restarted.next(), Some(second));
        restarted.replace([]);
        assert!(restarted.next().is_none() && !restarted.has("r.test"));
    }
}
