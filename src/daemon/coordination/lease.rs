//! Reads and writes the Leases by which nodes test one at a time. `slots` decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::sync::watch;
use tokio::time::Instant;

use super::group::LeaseGroup;
use super::slots::{self, Decision, SkipReason, Slot};
use crate::config;
use crate::daemon::schedule::clock::Moment;
use crate::kubernetes::client::{ConnectError, connect};
use crate::kubernetes::lease::{Clocks, LeaseError, LeaseObservation, Leases, Record};
use crate::kubernetes::watch::WatchState;

/// A Lease lasts for so much longer than the check that it is held for may, so that whoever takes it
/// over does not meet its end: requests to write it, and a little.
const BEYOND: Duration = Duration::from_secs(30);

/// What was done is written down in at most so many tries; then the Lease expires by itself.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// Leases that were seen and whose holder is waited for.
const MOST_SEEN: usize = 1000;

/// The annotation that counts.
pub const NOTE: &str = "pullpath/epoch";

/// The Leases of transfer tests and of rejected credentials.
#[derive(Debug)]
pub struct SharedLeases {
    leases: Leases,
    /// Of this process: one that was there before and has left its Lease is somebody else.
    holder: String,
    lasts: Duration,
    seen: Mutex<BTreeMap<String, LeaseObservation>>,
    /// How the API server answered last.
    access: watch::Sender<WatchState>,
}

/// What allowed a test, or a retry.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum AllowedBy {
    Lease,
    /// No other node shares the path.
    Alone,
    /// Of a credential: another node was let in with it, and so all may try.
    Accepted,
}

impl AllowedBy {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Alone => "alone",
            Self::Accepted => "accepted",
        }
    }
}

/// What a Lease allows.
#[derive(Debug)]
pub struct Answer {
    pub decision: Decision,
    pub by: AllowedBy,
    /// To be ended after the test.
    pub holding: Option<Holding>,
}

impl Answer {
    fn of(decision: Decision) -> Self {
        Self {
            decision,
            by: AllowedBy::Lease,
            holding: None,
        }
    }

    fn allowed(by: AllowedBy) -> Self {
        Self {
            by,
            ..Self::of(Decision::Test)
        }
    }

    fn skip(reason: SkipReason) -> Self {
        Self::of(Decision::Skip(reason))
    }

    pub fn is_allowed(&self) -> bool {
        self.decision == Decision::Test
    }
}

/// A Lease that is held.
#[derive(Debug)]
pub struct Holding {
    leases: Leases,
    holder: String,
    lease: String,
    record: Record,
    slot: Slot,
}

impl SharedLeases {
    /// `None` where it is not wished for.
    ///
    /// # Errors
    /// When there is no way to an API server. Whether it answers shows later.
    pub async fn start(config: &config::Config, node: &str) -> Result<Option<Self>, ConnectError> {
        if config.spread.transfers == config::SpreadBy::Off {
            return Ok(None);
        }
        let client = connect(config.kubernetes.kubeconfig.as_deref(), None).await?;
        let named = config.spread.namespace.clone();
        let namespace = named
            .or_else(|| std::env::var("POD_NAMESPACE").ok())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| client.default_namespace().to_owned());
        let lasts = config.schedule.check_timeout.0 + BEYOND;
        Ok(Some(Self::new(
            Leases::new(client, &namespace),
            node,
            lasts,
        )))
    }

    /// With these Leases, each held for so long.
    pub fn new(leases: Leases, node: &str, lasts: Duration) -> Self {
        let mut own = [0; 4];
        // Without randomness it would be the name of the process before, whose Lease is ours then.
        let _ = rand::fill(&mut own);
        Self {
            leases,
            holder: format!("{node}_{:08x}", u32::from_be_bytes(own)),
            lasts,
            seen: Mutex::default(),
            access: watch::Sender::new(WatchState::Unknown),
        }
    }

    /// How the API server answered last.
    pub fn access(&self) -> WatchState {
        self.access.borrow().clone()
    }

    fn heard(&self, error: Option<&LeaseError>) {
        match error {
            None | Some(LeaseError::Held { .. } | LeaseError::Conflict) => {
                self.access.send_replace(WatchState::Following);
            }
            Some(error) => {
                let is_forbidden = !matches!(error, LeaseError::Unreachable(_));
                self.lost(error.to_string(), is_forbidden);
            }
        }
    }

    fn lost(&self, reason: String, is_forbidden: bool) {
        self.access
            .send_modify(|access| access.lose(reason, is_forbidden));
    }

    async fn read(&self, lease: &str) -> Option<Record> {
        let read = self.leases.read(lease).await;
        self.heard(read.as_ref().err());
        read.ok().map(Option::unwrap_or_default)
    }

    /// One that is not answered may be written all the same: it expires then.
    async fn write(&self, lease: &str, record: &Record) -> Result<Record, SkipReason> {
        let written = self.leases.write(lease, record).await;
        self.heard(written.as_ref().err());
        written.map_err(|error| match error {
            LeaseError::Held { .. } | LeaseError::Conflict => SkipReason::Conflict,
            LeaseError::Unreachable(_) | LeaseError::Forbidden(_) | LeaseError::Refused(_) => {
                SkipReason::NoApi
            }
        })
    }

    fn is_held(&self, lease: &str, record: &Record, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of groups that this node has left; a holder is waited for once more then.
        if seen.len() >= MOST_SEEN {
            seen.clear();
        }
        let known = LeaseObservation::again(seen.get(lease), record, now);
        let is_held = record.free_for(&self.holder, &known, now).is_err();
        seen.insert(lease.to_owned(), known);
        is_held
    }

    /// Asks for a transfer test, and takes the Lease for it. One request where it is not allowed, two where it
    /// is; within 20 s. `asked`: the time at the call. The epoch may end before the API server has answered,
    /// and the slot with it.
    pub async fn ask(&self, group: &LeaseGroup, slot: &Slot, asked: Moment) -> Answer {
        let begun = Instant::now();
        let now = || asked.after(begun.elapsed());
        if group.is_alone {
            return Answer::allowed(AllowedBy::Alone);
        }
        let lease = &group.lease;
        let Some(mut record) = self.read(lease).await else {
            return Answer::skip(SkipReason::NoApi);
        };
        let clocks = Clocks::read();
        let is_held = self.is_held(lease, &record, clocks.steady);
        let decision = slots::decide(slot, record.note(NOTE), is_held, now());
        if decision != Decision::Test {
            return self.refused(lease, decision);
        }
        record.take(&self.holder, self.lasts, clocks.at);
        let record = match self.write(lease, &record).await {
            Ok(record) => record,
            Err(reason) => return Answer::skip(reason),
        };
        let holding = Holding {
            leases: self.leases.clone(),
            holder: self.holder.clone(),
            lease: lease.clone(),
            record,
            slot: slot.clone(),
        };
        if now() >= slot.end() {
            holding.leave().await;
            return Answer::skip(SkipReason::Late);
        }
        Answer {
            holding: Some(holding),
            ..Answer::allowed(AllowedBy::Lease)
        }
    }

    /// The same for a credential that was rejected: nothing is held, the retry is counted at once.
    pub async fn ask_retry(
        &self,
        lease: &str,
        slot: &Slot,
        rejected: Moment,
        now: Moment,
    ) -> Answer {
        let Some(mut record) = self.read(lease).await else {
            return Answer::skip(SkipReason::NoApi);
        };
        let note = record.note(NOTE);
        if slots::was_accepted(slot, note, rejected) {
            return Answer::allowed(AllowedBy::Accepted);
        }
        let decision = slots::decide(slot, note, false, now);
        if decision != Decision::Test {
            return self.refused(lease, decision);
        }
        if let Some(note) = slots::counted(slot, note) {
            record.set_note(NOTE, note);
        }
        match self.write(lease, &record).await {
            Ok(_) => Answer::allowed(AllowedBy::Lease),
            Err(reason) => Answer::skip(reason),
        }
    }

    /// A note that can't be read is shown, since only people can remove it.
    fn refused(&self, lease: &str, decision: Decision) -> Answer {
        if decision == Decision::Skip(SkipReason::Unreadable) {
            self.lost(
                format!(
                    "the annotation {NOTE} of the Lease {lease} can't be read; delete that Lease"
                ),
                false,
            );
        }
        Answer::of(decision)
    }

    /// Writes down that a credential was accepted.
    pub async fn report_accepted(self: Arc<Self>, lease: String, slot: Slot, now: Moment) {
        for _ in 0..TRIES {
            if let Some(mut record) = self.read(&lease).await {
                if let Some(note) = slots::accepted(&slot, record.note(NOTE), now) {
                    record.set_note(NOTE, note);
                }
                if self.write(&lease, &record).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        tracing::warn!(
            lease,
            "other nodes could not be informed that a credential is accepted again"
        );
    }
}

impl Holding {
    /// Counts the test and gives the Lease up.
    pub async fn end(mut self) {
        let lease = &self.lease;
        for _ in 0..TRIES {
            // Expired and taken over, or written before without an answer: not ours to write.
            if self.record.holder() != Some(&self.holder) {
                return;
            }
            let mut record = self.record.clone();
            if let Some(note) = slots::counted(&self.slot, record.note(NOTE)) {
                record.set_note(NOTE, note);
            }
            record.give_up(Clocks::read().at);
            match self.leases.write(lease, &record).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(lease, %error, "a Lease could not be given up"),
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
            if let Ok(Some(record)) = self.leases.read(lease).await {
                self.record = record;
            }
        }
        tracing::warn!(
            lease,
            "a Lease could not be given up; it expires, and another node tests once more"
        );
    }

    /// Gives it up, and nothing was done. It expires by itself otherwise.
    async fn leave(mut self) {
        self.record.give_up(Clocks::read().at);
        let _ = self.leases.write(&self.lease, &self.record).await;
    }
}
