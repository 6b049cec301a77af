//! Asks the API server whose turn it is, and writes down what was done. `turns` decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use jiff::Timestamp;
use tokio::time::Instant;

use super::schedule::Moment;
use super::turns::{self, Decision, Learned, Pass, Rule, Turn, View};
use crate::config;
use crate::kubernetes::client::{ConnectError, connect};
use crate::kubernetes::lease::{LeaseError, Leases, Now, Record, Seen, Standing};

/// A Lease lasts for so much longer than the check that it is held for may, so that whoever takes it
/// over does not meet its end: requests to write it, and a little.
const BEYOND: Duration = Duration::from_secs(30);

/// What was done is written down in at most so many tries; then the Lease expires by itself.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// Leases that were seen and whose holder is waited for.
const MOST_SEEN: usize = 1000;

/// Turns by Leases.
#[derive(Debug)]
pub struct Spread {
    leases: Leases,
    /// Of this process: one that was there before and has left its Lease is somebody else.
    holder: String,
    lasts: Duration,
    seen: Mutex<BTreeMap<String, Seen>>,
    heard: Mutex<Option<Heard>>,
}

/// How the API server answered last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Heard {
    Well,
    Not {
        since: Timestamp,
        reason: String,
        /// It has said no (RBAC, or there is no such namespace); waiting alone will not help.
        is_refused: bool,
    },
}

/// How a turn was got.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum How {
    Lease,
    /// By the score alone, without the API server.
    Hash,
    /// Nobody shares the way.
    Alone,
    /// Of a credential: another node was let in with it, and so all may try.
    Accepted,
}

impl How {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Hash => "hash",
            Self::Alone => "alone",
            Self::Accepted => "accepted",
        }
    }
}

/// What came of a look.
#[derive(Debug)]
pub struct Looked {
    pub decision: Decision,
    pub how: How,
    pub learned: Learned,
    /// To be ended when the turn was had.
    pub holding: Option<Holding>,
}

impl Looked {
    pub fn is_mine(&self) -> bool {
        self.decision == Decision::Mine
    }
}

/// A Lease that is held.
#[derive(Debug)]
pub struct Holding {
    leases: Leases,
    holder: String,
    record: Record,
    turn: Turn,
}

impl Spread {
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
            heard: Mutex::default(),
        }
    }

    /// How the API server answered last; `None`: it was not asked yet.
    pub fn heard(&self) -> Option<Heard> {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn hear(&self, error: Option<&LeaseError>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = match error {
            None | Some(LeaseError::Held { .. } | LeaseError::Conflict) => {
                *heard = Some(Heard::Well);
                return;
            }
            Some(LeaseError::Unreachable(_)) => false,
            Some(LeaseError::Forbidden(_) | LeaseError::Refused(_)) => true,
        };
        let since = match &*heard {
            Some(Heard::Not { since, .. }) => *since,
            _ => Timestamp::now(),
        };
        let reason = error.map(ToString::to_string).unwrap_or_default();
        *heard = Some(Heard::Not {
            since,
            reason,
            is_refused,
        });
    }

    async fn read(&self, lease: &str) -> Option<Record> {
        let read = self.leases.read(lease).await;
        self.hear(read.as_ref().err());
        read.ok().map(Option::unwrap_or_default)
    }

    async fn write(&self, lease: &str, record: &Record) -> Result<Record, LeaseError> {
        let written = self.leases.write(lease, record).await;
        self.hear(written.as_ref().err());
        written
    }

    fn standing(&self, lease: &str, record: &Record, now: Now) -> Standing {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of groups that this node has left; what is begun anew is waited for once more.
        if seen.len() >= MOST_SEEN {
            seen.clear();
        }
        turns::standing(&mut seen, lease, record, &self.holder, now.steady)
    }

    /// Looks whether a transfer test is this node's turn, and takes the Lease for it. One request where
    /// it is not, two where it is; within 20 s. `asked`: the time at the call. The epoch may end before the
    /// API server has answered, and the turn with it.
    pub async fn look(&self, turn: &Turn, mut learned: Learned, asked: Moment) -> Looked {
        let begun = Instant::now();
        let now = || asked.after(begun.elapsed());
        let looked = |decision, how, learned, holding| Looked {
            decision,
            how,
            learned,
            holding,
        };
        if turn.group.is_alone {
            return looked(Decision::Mine, How::Alone, learned, None);
        }
        let lease = &turn.group.lease;
        let Some(mut record) = self.read(lease).await else {
            let decision = turns::decide(turn, View::Nothing, learned.of(&turn.group), now());
            return looked(decision, How::Hash, learned, None);
        };
        learned.learn(turn, &record);
        let clocks = Now::read();
        let standing = self.standing(lease, &record, clocks);
        let view = View::Told(&record, &standing);
        let decision = turns::decide(turn, view, learned.of(&turn.group), now());
        if decision != Decision::Mine {
            return looked(decision, How::Lease, learned, None);
        }
        record.take(&self.holder, self.lasts, clocks.at);
        match self.write(lease, &record).await {
            Ok(record) => {
                let holding = Holding {
                    leases: self.leases.clone(),
                    holder: self.holder.clone(),
                    record,
                    turn: turn.clone(),
                };
                if now() >= turn.end() {
                    holding.leave().await;
                    return looked(Decision::Pass(Pass::Late), How::Lease, learned, None);
                }
                looked(Decision::Mine, How::Lease, learned, Some(holding))
            }
            // Somebody was quicker; or it was not answered, and may be ours all the same.
            Err(LeaseError::Held { .. } | LeaseError::Conflict | LeaseError::Unreachable(_)) => {
                looked(turns::later(turn, now()), How::Lease, learned, None)
            }
            Err(LeaseError::Forbidden(_) | LeaseError::Refused(_)) => {
                let decision = turns::decide(turn, View::Nothing, learned.of(&turn.group), now());
                looked(decision, How::Hash, learned, None)
            }
        }
    }

    /// The same for a credential that was rejected: nothing is held, what is begun is noted at once.
    pub async fn look_for_retry(
        &self,
        turn: &Turn,
        rejected: Moment,
        mut learned: Learned,
        now: Moment,
    ) -> Looked {
        let looked = |decision, how, learned| Looked {
            decision,
            how,
            learned,
            holding: None,
        };
        let decide = |view: View<'_>, learned: &Learned| {
            turns::decide_retry(turn, view, learned.of(&turn.group), rejected, now)
        };
        let lease = &turn.group.lease;
        let Some(mut record) = self.read(lease).await else {
            let decision = decide(View::Nothing, &learned);
            return looked(decision, How::Hash, learned);
        };
        learned.learn(turn, &record);
        let decision = decide(View::Told(&record, &Standing::Free), &learned);
        if turns::was_accepted(&record, turn, rejected) {
            return looked(decision, How::Accepted, learned);
        }
        if decision != Decision::Mine {
            return looked(decision, How::Lease, learned);
        }
        turns::book(&mut record, turn);
        match self.write(lease, &record).await {
            Ok(_) => looked(Decision::Mine, How::Lease, learned),
            Err(LeaseError::Forbidden(_) | LeaseError::Refused(_)) => {
                let decision = decide(View::Nothing, &learned);
                looked(decision, How::Hash, learned)
            }
            Err(_) => looked(turns::later(turn, now), How::Lease, learned),
        }
    }

    /// Notes that a credential was let in again.
    pub async fn tell_accepted(self: Arc<Self>, turn: Turn, now: Moment) {
        for _ in 0..TRIES {
            if let Some(mut record) = self.read(&turn.group.lease).await {
                turns::accept(&mut record, &turn, now);
                if self.write(&turn.group.lease, &record).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        tracing::warn!(
            lease = turn.group.lease,
            "that a credential is let in again could not be told to the other nodes"
        );
    }
}

impl Holding {
    /// Counts the turn and gives the Lease up.
    pub async fn end(mut self) {
        let lease = self.turn.group.lease.clone();
        for _ in 0..TRIES {
            // Expired and taken over, or written before without an answer: not ours to write.
            if self.record.holder() != Some(&self.holder) {
                return;
            }
            let mut record = self.record.clone();
            turns::book(&mut record, &self.turn);
            record.give_up(Now::read().at);
            match self.leases.write(&lease, &record).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(lease, %error, "a Lease could not be given up"),
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
            if let Ok(Some(record)) = self.leases.read(&lease).await {
                self.record = record;
            }
        }
        tracing::warn!(
            lease,
            "a Lease could not be given up; it expires, and another node tests once more"
        );
    }

    /// Gives it up, and nothing was done.
    pub async fn leave(mut self) {
        self.record.give_up(Now::read().at);
        // It expires by itself otherwise.
        let _ = self
            .leases
            .write(&self.turn.group.lease, &self.record)
            .await;
    }
}

/// The rule of transfer tests, as the configuration has it.
pub fn rule(config: &config::Spread) -> Rule {
    Rule::transfers(config.epoch.0, config.nodes_per_group.0)
}
