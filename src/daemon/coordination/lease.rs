//! Reads and writes the Leases that coordinate nodes. `slots` decides.

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

/// A Lease lasts this much longer than `schedule.check_timeout`, for the requests that write it. So the check has
/// ended before another node can take the Lease over.
const BEYOND: Duration = Duration::from_secs(30);

/// Maximum of attempts to write a result; after that, the Lease expires.
const TRIES: u32 = 3;
/// The wait between these attempts.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// Maximum of remembered observations of Leases.
const MAX_OBSERVED: usize = 1000;

/// The annotation with the note that counts tests.
pub const NOTE: &str = "pullpath/epoch";

/// The Leases of transfer tests and of rejected credentials.
#[derive(Debug)]
pub struct SharedLeases {
    leases: Leases,
    /// The name of this process as a holder; a process before it has another name.
    holder: String,
    lasts: Duration,
    observed: Mutex<BTreeMap<String, LeaseObservation>>,
    /// The newest answer of the API server.
    access: watch::Sender<WatchState>,
}

/// What allowed a test, or a retry.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum AllowedBy {
    /// The Lease.
    Lease,
    /// No other node shares the path.
    Alone,
    /// The credential was accepted on another node, so all nodes may try it.
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
    /// Whether this node tests.
    pub decision: Decision,
    /// What allowed it; without meaning if it is not allowed.
    pub by: AllowedBy,
    /// The Lease, to be released after the test; `None`: none is held.
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

    /// Whether this node tests.
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
    /// Connects to the API server; `None` with `spread.transfers: off`.
    ///
    /// # Errors
    /// If no API server is configured, or its credentials can't be read. Whether it answers shows later.
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

    /// Uses these Leases; one that is held lasts for `lasts`.
    pub fn new(leases: Leases, node: &str, lasts: Duration) -> Self {
        let mut own = [0; 4];
        // Without randomness, this is the name of the process before, and its Lease counts as ours.
        let _ = rand::fill(&mut own);
        Self {
            leases,
            holder: format!("{node}_{:08x}", u32::from_be_bytes(own)),
            lasts,
            observed: Mutex::default(),
            access: watch::Sender::new(WatchState::Unknown),
        }
    }

    /// The newest answer of the API server.
    pub fn access(&self) -> WatchState {
        self.access.borrow().clone()
    }

    fn note_answer(&self, error: Option<&LeaseError>) {
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
        self.note_answer(read.as_ref().err());
        read.ok().map(Option::unwrap_or_default)
    }

    /// A write without an answer may have succeeded; the Lease then expires.
    async fn write(&self, lease: &str, record: &Record) -> Result<Record, SkipReason> {
        let written = self.leases.write(lease, record).await;
        self.note_answer(written.as_ref().err());
        written.map_err(|error| match error {
            LeaseError::Held { .. } | LeaseError::Conflict => SkipReason::Conflict,
            LeaseError::Unreachable(_) | LeaseError::Forbidden(_) | LeaseError::Refused(_) => {
                SkipReason::NoApi
            }
        })
    }

    fn is_held(&self, lease: &str, record: &Record, now: Instant) -> bool {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        // Removes observations of groups that this node has left. Holders are then waited for once more.
        if observed.len() >= MAX_OBSERVED {
            observed.clear();
        }
        let known = LeaseObservation::again(observed.get(lease), record, now);
        let is_held = record.free_for(&self.holder, &known, now).is_err();
        observed.insert(lease.to_owned(), known);
        is_held
    }

    /// Requests a transfer test, and takes the Lease for it. It sends one request if the test is not allowed, two if
    /// it is, and takes at most 20 s. `called` is the time of the call: the epoch may end, and the slot with it,
    /// before the API server has answered.
    pub async fn ask(&self, group: &LeaseGroup, slot: &Slot, called: Moment) -> Answer {
        let begun = Instant::now();
        let now = || called.after(begun.elapsed());
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

    /// The same for a retry of a rejected credential: no Lease is held, and the retry is counted at once.
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

    /// Returns the decision. A note that can't be parsed is reported, since only an operator can remove it.
    fn refused(&self, lease: &str, decision: Decision) -> Answer {
        if decision == Decision::Skip(SkipReason::Unreadable) {
            self.lost(
                format!(
                    "the annotation {NOTE} of the Lease {lease} can't be parsed; delete that Lease"
                ),
                false,
            );
        }
        Answer::of(decision)
    }

    /// Reports to other nodes that a credential was accepted.
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
            "the Lease can't be written: other nodes don't learn that a credential is accepted again"
        );
    }
}

impl Holding {
    /// Counts the test and releases the Lease.
    pub async fn end(mut self) {
        let lease = &self.lease;
        for _ in 0..TRIES {
            // It expired and was taken over, or an earlier write succeeded without an answer.
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
                Err(error) => tracing::debug!(lease, %error, "a Lease can't be released"),
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
            if let Ok(Some(record)) = self.leases.read(lease).await {
                self.record = record;
            }
        }
        tracing::warn!(
            lease,
            "a Lease can't be released; it expires, and another node repeats the test"
        );
    }

    /// Releases the Lease without a test. If that fails, it expires.
    async fn leave(mut self) {
        self.record.give_up(Clocks::read().at);
        let _ = self.leases.write(&self.lease, &self.record).await;
    }
}
