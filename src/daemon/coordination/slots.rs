//! Slots: which nodes test. In each epoch, a few of the nodes that share a path make the test that all of them
//! could make. Pure; `lease` sends the requests.
//!
//! Each node has one slot in each epoch, at a moment that follows from its name. At its slot it reads the note in
//! its group's Lease, which counts the tests of the epoch. So no node needs a list of the others, and if a node is
//! down, the next one tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::daemon::schedule::clock::{Moment, hash, share};

/// Part of all hashes: a change of the rules needs another value, because nodes may run different versions.
pub const VERSION: &str = "pullpath slots 1";

/// Bounds of the wait for a Lease that is held: a part of the epoch, since a test takes some seconds.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How many nodes test, and how often.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The length of an epoch, in whole seconds.
    pub epoch: Duration,
    /// How many nodes of a group test in an epoch.
    pub nodes: u32,
}

impl Rule {
    /// Retries of rejected credentials: one node an hour.
    pub const RETRIES: Self = Self {
        epoch: Duration::from_hours(1),
        nodes: 1,
    };

    /// The start of the epoch that contains a moment, in seconds since 1970. It differs between registries, so that
    /// registries behind one NAT gateway are not tested together.
    pub fn begin(&self, of: &str, at: Moment) -> u64 {
        let length = self.epoch.as_secs().max(1);
        let offset = hash(&[VERSION, "epoch", of]) % length;
        let at = at.0.as_secs();
        at - (at + length - offset) % length
    }
}

/// A node's slot in an epoch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Slot {
    /// The rule that it follows.
    pub rule: Rule,
    /// The start of the epoch, in seconds since 1970.
    pub epoch: u64,
    /// When the node reads the Lease.
    pub at: Moment,
}

impl Slot {
    /// The first slot of a node after a moment. `of` is a registry, or the Lease of a credential.
    pub fn after(of: &str, rule: &Rule, node: &str, after: Moment) -> Self {
        let in_epoch = |epoch: u64| {
            let draw = share(hash(&[VERSION, "slot", of, &epoch.to_string(), node]));
            Self {
                rule: *rule,
                epoch,
                at: Moment(Duration::from_secs(epoch)).after(rule.epoch.mul_f64(draw)),
            }
        };
        let this = in_epoch(rule.begin(of, after));
        if this.at > after {
            return this;
        }
        in_epoch(this.end().0.as_secs())
    }

    /// When the next epoch begins.
    pub fn end(&self) -> Moment {
        Moment(Duration::from_secs(
            self.epoch + self.rule.epoch.as_secs().max(1),
        ))
    }

    /// The decision if another node holds the Lease: read it again, at another moment than other nodes.
    fn later(&self, now: Moment) -> Decision {
        let wait = (self.rule.epoch / 120).clamp(AGAIN.0, AGAIN.1);
        let [now_text, at] = [now, self.at].map(|moment| moment.0.as_nanos().to_string());
        let again = now.after(wait.mul_f64(0.5 + share(hash(&[&now_text, &at]))));
        if again >= self.end() {
            return Decision::Skip(SkipReason::Late);
        }
        Decision::Later(again)
    }
}

/// What the nodes of a group share, as JSON in an annotation.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Note {
    epoch: Timestamp,
    /// How many nodes have tested in the epoch.
    done: u32,
    /// For a credential: when it was accepted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<Timestamp>,
}

impl Note {
    /// Parses a note. A note of an epoch after the next is ignored: the clock of its node is wrong.
    fn read(text: Option<&str>, slot: &Slot) -> serde_json::Result<Option<Self>> {
        let Some(text) = text else { return Ok(None) };
        let note: Self = serde_json::from_str(text)?;
        let is_possible = seconds(note.epoch) <= slot.end().0.as_secs();
        Ok(Some(note).filter(|_| is_possible))
    }

    /// How many nodes have tested in the slot's epoch; `None`: a later epoch has begun.
    fn done_in(&self, slot: &Slot) -> Option<u32> {
        match seconds(self.epoch).cmp(&slot.epoch) {
            std::cmp::Ordering::Greater => None,
            std::cmp::Ordering::Equal => Some(self.done),
            std::cmp::Ordering::Less => Some(0),
        }
    }
}

fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap_or(0)
}

fn timestamp(seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

/// Why a node does not use its slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SkipReason {
    /// Enough nodes have tested in this epoch.
    Enough,
    /// The epoch ended while another node held the Lease.
    Late,
    /// Another node wrote the Lease at the same time.
    Conflict,
    /// The API server does not answer, or forbids access.
    NoApi,
    /// The note in the Lease can't be parsed.
    Unreadable,
    /// The path of layers is unknown.
    NoPath,
}

impl SkipReason {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enough => "spread_enough",
            Self::Late => "spread_late",
            Self::Conflict => "spread_conflict",
            Self::NoApi => "spread_no_api",
            Self::Unreadable => "spread_unreadable",
            Self::NoPath => "spread_no_path",
        }
    }
}

/// What a node does with its slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It tests, once the Lease is written.
    Test,
    /// It does not test in this epoch.
    Skip(SkipReason),
    /// Another node holds the Lease; it is read again then.
    Later(Moment),
}

/// Decides from the note in the Lease, and from whether another node holds it.
pub fn decide(slot: &Slot, note: Option<&str>, is_held: bool, now: Moment) -> Decision {
    if now >= slot.end() {
        return Decision::Skip(SkipReason::Late);
    }
    let Ok(note) = Note::read(note, slot) else {
        return Decision::Skip(SkipReason::Unreadable);
    };
    match note.map_or(Some(0), |note| note.done_in(slot)) {
        None => Decision::Skip(SkipReason::Late),
        Some(done) if done >= slot.rule.nodes => Decision::Skip(SkipReason::Enough),
        Some(_) if is_held => slot.later(now),
        Some(_) => Decision::Test,
    }
}

/// Whether the credential was accepted on another node after it was rejected on this one. Then each node may try
/// it once, at its slot.
pub fn was_accepted(slot: &Slot, note: Option<&str>, rejected: Moment) -> bool {
    let note = Note::read(note, slot).ok().flatten();
    let accepted = note.and_then(|note| note.accepted).map(seconds);
    // A time beyond the epoch is ignored: with a clock far ahead, it would count as accepted forever.
    accepted.is_some_and(|at| at > rejected.0.as_secs() && at <= slot.end().0.as_secs())
}

/// The note with one more test; `None`: it does not change.
pub fn counted(slot: &Slot, note: Option<&str>) -> Option<String> {
    let before = Note::read(note, slot).ok().flatten();
    let done = before.as_ref().map_or(Some(0), |note| note.done_in(slot))?;
    let note = Note {
        epoch: timestamp(slot.epoch),
        done: done.saturating_add(1),
        accepted: before.and_then(|note| note.accepted),
    };
    serde_json::to_string(&note).ok()
}

/// The note with the time at which a credential was accepted; `None`: it can't be written as JSON.
pub fn accepted(slot: &Slot, note: Option<&str>, now: Moment) -> Option<String> {
    let before = Note::read(note, slot).ok().flatten();
    let mut note = before.unwrap_or(Note {
        epoch: timestamp(slot.epoch),
        done: 1,
        accepted: None,
    });
    note.accepted = Some(timestamp(now.0.as_secs()));
    serde_json::to_string(&note).ok()
}

/// This node's next slot for each registry or credential.
#[derive(Debug)]
pub struct Slots {
    node: String,
    /// The rule of all slots.
    pub rule: Rule,
    entries: BTreeMap<Arc<str>, SlotEntry>,
}

#[derive(Debug)]
struct SlotEntry {
    slot: Slot,
    is_taken: bool,
}

impl Slots {
    /// No slots yet; `node` decides their times.
    pub fn new(node: &str, rule: Rule) -> Self {
        Self {
            node: node.to_owned(),
            rule,
            entries: BTreeMap::new(),
        }
    }

    /// Takes a new list of names that have slots. The first slot of a new name is after the moment given with it.
    pub fn replace(&mut self, wanted: impl IntoIterator<Item = (Arc<str>, Moment)>) {
        let mut before = std::mem::take(&mut self.entries);
        for (name, after) in wanted {
            let entry = before.remove(&name).unwrap_or_else(|| SlotEntry {
                slot: Slot::after(&name, &self.rule, &self.node, after),
                is_taken: false,
            });
            self.entries.insert(name, entry);
        }
    }

    /// When the next slot is due that is not taken; `None`: there is none.
    pub fn next(&self) -> Option<Moment> {
        let waiting = self.entries.values().filter(|entry| !entry.is_taken);
        waiting.map(|entry| entry.slot.at).min()
    }

    /// The slot of this name; `None`: it has none.
    pub fn next_of(&self, name: &str) -> Option<Moment> {
        Some(self.entries.get(name)?.slot.at)
    }

    /// Takes the slot that has been due for longest.
    pub fn take(&mut self, now: Moment) -> Option<(Arc<str>, Slot)> {
        let waiting = self.entries.iter_mut().filter(|(_, one)| !one.is_taken);
        let (name, entry) = waiting.min_by_key(|(_, entry)| entry.slot.at)?;
        if entry.slot.at > now {
            return None;
        }
        entry.is_taken = true;
        Some((Arc::clone(name), entry.slot.clone()))
    }

    /// Returns a taken slot, which is due again at `at`.
    pub fn later(&mut self, name: &str, at: Moment) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.slot.at = at;
            entry.is_taken = false;
        }
    }

    /// Ends a slot that was used or skipped; the next one is in another epoch.
    pub fn done(&mut self, name: &str, now: Moment) {
        if let Some(entry) = self.entries.get_mut(name) {
            let last = entry.slot.end().0.saturating_sub(Duration::from_nanos(1));
            let after = Moment(last).max(now);
            entry.slot = Slot::after(name, &self.rule, &self.node, after);
            entry.is_taken = false;
        }
    }

    /// Skips all taken slots.
    pub fn give_up(&mut self, now: Moment) {
        let taken = self.entries.iter().filter(|(_, entry)| entry.is_taken);
        let taken: Vec<Arc<str>> = taken.map(|(name, _)| Arc::clone(name)).collect();
        for name in taken {
            self.done(&name, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const RULE: Rule = Rule {
        epoch: Duration::from_hours(5),
        nodes: 2,
    };
    const LENGTH: u64 = 5 * 3600;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(1_800_000_000 + seconds))
    }

    fn slot(node: &str) -> Slot {
        Slot::after("r.test", &RULE, node, at(0))
    }

    fn note(epoch: u64, done: u32) -> String {
        let note = Note {
            epoch: timestamp(epoch),
            done,
            accepted: None,
        };
        serde_json::to_string(&note).unwrap()
    }

    /// Other nodes run other versions, so these hashes must not change without another `VERSION`.
    #[test]
    fn epochs_and_slots_are_the_same_in_every_version() {
        let slot = slot("n1");
        let at = slot.at.0.as_secs() - slot.epoch;
        assert_eq!((slot.epoch, at), (1_800_001_160, 12_312));
    }

    #[test]
    fn each_node_has_one_slot_in_each_epoch_and_all_hours_are_met() {
        let (mut begins, mut firsts) = (Vec::new(), std::collections::BTreeSet::new());
        let nodes: Vec<String> = (0..50).map(|node| format!("n{node}")).collect();
        let mut after = at(0);
        for _ in 0..200 {
            let epoch = RULE.begin("r.test", after);
            let begin = Moment(Duration::from_secs(epoch - 1));
            let slots = nodes.iter().map(|node| {
                let slot = Slot::after("r.test", &RULE, node, begin);
                assert_eq!(slot.epoch, epoch);
                assert!(slot.at > begin && slot.at < slot.end(), "{slot:?}");
                let next = Slot::after("r.test", &RULE, node, slot.at);
                assert_eq!(next.epoch, epoch + LENGTH);
                (slot.at, node)
            });
            firsts.insert(slots.min().unwrap().1);
            begins.push(epoch % 86_400 / 3600);
            after = after.after(RULE.epoch);
        }
        begins.sort_unstable();
        begins.dedup();
        assert_eq!(begins.len(), 24, "tests meet all hours: {begins:?}");
        assert!(firsts.len() > 40, "not the same ones each time");
        assert_ne!(RULE.begin("s.test", after), RULE.begin("r.test", after));
    }

    #[test]
    fn the_note_the_holder_and_the_time_decide() {
        use SkipReason::{Enough, Late, Unreadable};
        let slot = slot("n1");
        let epoch = slot.epoch;
        let skip = Decision::Skip;
        for (note, is_held, expected) in [
            (None, false, Decision::Test),
            (Some(note(epoch, 1)), false, Decision::Test),
            (Some(note(epoch, 2)), false, skip(Enough)),
            (Some(note(epoch, 3)), true, skip(Enough)),
            (Some(note(epoch - LENGTH, 2)), false, Decision::Test),
            (Some(note(epoch + LENGTH, 0)), false, skip(Late)),
            // A clock that is days ahead is ignored.
            (Some(note(epoch + 2 * LENGTH, 2)), false, Decision::Test),
            (Some("{torn".to_owned()), false, skip(Unreadable)),
            (Some("{\"done\": 1}".to_owned()), false, skip(Unreadable)),
        ] {
            let decision = decide(&slot, note.as_deref(), is_held, slot.at);
            assert_eq!(decision, expected, "{note:?} {is_held}");
        }
        let Decision::Later(again) = decide(&slot, None, true, slot.at) else {
            panic!("another node holds the Lease");
        };
        let wait = again.since(slot.at).as_secs();
        assert!((15..=45).contains(&wait), "{wait}");
        let last = Moment(slot.end().0.checked_sub(Duration::from_secs(5)).unwrap());
        assert_eq!(decide(&slot, None, true, last), skip(Late));
        assert_eq!(decide(&slot, None, false, slot.end()), skip(Late));
    }

    #[test]
    fn tests_are_counted_by_epoch() {
        let slot = slot("n1");
        let one = counted(&slot, None).unwrap();
        assert_eq!(one, note(slot.epoch, 1));
        let two = counted(&slot, Some(&one)).unwrap();
        assert_eq!(two, note(slot.epoch, 2));
        // The next epoch begins with nothing; a straggler of the last changes nothing.
        let next = Slot::after("r.test", &RULE, "n1", slot.at);
        let third = counted(&next, Some(&two)).unwrap();
        assert_eq!(third, note(slot.epoch + LENGTH, 1));
        assert_eq!(counted(&slot, Some(&third)), None);
    }

    #[test]
    fn a_credential_let_in_elsewhere_may_be_tried_by_all_once() {
        let slot = |node: &str, after| Slot::after("lease", &Rule::RETRIES, node, after);
        let rejected = at(10);
        let first = slot("n1", rejected.after(HOUR));
        assert!(first.at.since(rejected) >= HOUR);
        assert_eq!(decide(&first, None, false, first.at), Decision::Test);
        let tried = counted(&first, None).unwrap();
        // The others wait for this hour.
        assert_eq!(
            decide(&first, Some(&tried), false, first.at),
            Decision::Skip(SkipReason::Enough)
        );
        assert!(!was_accepted(&first, Some(&tried), rejected));
        let news = accepted(&first, Some(&tried), first.at).unwrap();
        assert!(was_accepted(&first, Some(&news), rejected));
        // Rejected on this node after that: as before.
        assert!(!was_accepted(&first, Some(&news), first.at));
        let next = slot("n2", first.end());
        let kept = counted(&next, Some(&news)).unwrap();
        assert!(was_accepted(&next, Some(&kept), rejected), "kept");
        // A time of a clock that is ahead is ignored.
        let ahead = accepted(&next, Some(&kept), next.at.after(48 * HOUR)).unwrap();
        assert!(!was_accepted(&next, Some(&ahead), rejected));
    }

    #[test]
    fn a_slot_comes_once_also_after_a_restart() {
        let name: Arc<str> = Arc::from("r.test");
        let mut slots = Slots::new("n1", RULE);
        slots.replace([(Arc::clone(&name), at(0))]);
        let first = slot("n1");
        assert_eq!(slots.next(), Some(first.at));
        let (_, taken) = slots.take(first.at).unwrap();
        assert_eq!(taken, first);
        assert_eq!(slots.next(), None, "it is taken");
        let again = first.at.after(Duration::from_secs(30));
        slots.later("r.test", again);
        assert_eq!(slots.next_of("r.test"), Some(again));
        slots.take(again).unwrap();
        slots.done("r.test", again);
        let second = slots.next().unwrap();
        assert!(second >= first.end());
        slots.replace([(Arc::clone(&name), at(0))]);
        assert_eq!(slots.next(), Some(second), "what stays keeps its slot");
        slots.take(second).unwrap();
        slots.give_up(second);
        assert!(slots.next() > Some(second));
        let mut restarted = Slots::new("n1", RULE);
        restarted.replace([(name, first.at)]);
        assert_eq!(restarted.next(), Some(second));
        restarted.replace([]);
        assert!(restarted.next().is_none());
    }
}
