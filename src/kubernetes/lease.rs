//! Leases of coordination.k8s.io/v1: of many who could do a thing, one does it. The API server keeps it
//! by the object's resourceVersion: of two who write at once, one is refused.
//!
//! Whether a holder has gone is not told by its clock but by one's own: it has gone when one has seen
//! the same Lease for as long as it lasts, and nobody renewed it (as client-go's leader election has
//! it). So clocks that differ do no harm, and whoever sees a Lease for the first time waits once for as
//! long as it lasts.
//!
//! What no Lease keeps: a holder that stood still (SIGSTOP, a machine that was suspended) goes on where
//! it was, whoever holds it now. So holders end what they do before it has expired.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use super::client::told;
use crate::model::text::printable;

/// A Lease is worth no longer wait: whoever asks for it has something to do. client-go's leader
/// election gives up the renewal after as long.
const ANSWER: Duration = Duration::from_secs(10);

/// Both clocks, read at once.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// For people who look at the Lease; nobody compares it.
    pub at: Timestamp,
    /// By which it expires.
    pub steady: Instant,
}

impl Clocks {
    pub fn read() -> Self {
        Self {
            at: Timestamp::now(),
            steady: Instant::now(),
        }
    }
}

/// Why it is not held.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LeaseError {
    #[error("{} holds it", printable(.by))]
    Held {
        by: String,
        /// When it expires, if nobody renews it meanwhile.
        until: Instant,
    },
    #[error("somebody else has written it meanwhile")]
    Conflict,
    #[error("the API server forbids it: RBAC must allow {0}")]
    Forbidden(String),
    #[error("the API server does not answer: {0}")]
    Unreachable(String),
    /// What waiting does not mend: the namespace is not there, or the object is not valid.
    #[error("the API server refuses it: {0}")]
    Refused(String),
}

/// A Lease as it was read, or as it is to be written. Changing it is pure; [`Leases::write`] writes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(pub v1::Lease);

impl Record {
    fn spec(&mut self) -> &mut v1::LeaseSpec {
        self.0.spec.get_or_insert_default()
    }

    /// `None`: nobody holds it.
    pub fn holder(&self) -> Option<&str> {
        let holder = self.0.spec.as_ref()?.holder_identity.as_deref()?;
        (!holder.is_empty()).then_some(holder)
    }

    /// How long it lasts without being renewed.
    fn duration(&self) -> Duration {
        let spec = self.0.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
        Duration::from_secs(u64::try_from(seconds.unwrap_or(0)).unwrap_or(0))
    }

    /// How often it went from one holder to another.
    fn transitions(&self) -> i32 {
        let spec = self.0.spec.as_ref();
        spec.and_then(|spec| spec.lease_transitions).unwrap_or(0)
    }

    /// An annotation: what one holder leaves to the next.
    pub fn note(&self, key: &str) -> Option<&str> {
        Some(self.0.metadata.annotations.as_ref()?.get(key)?.as_str())
    }

    pub fn set_note(&mut self, key: &str, text: String) {
        let notes = self.0.metadata.annotations.get_or_insert_default();
        notes.insert(key.to_owned(), text);
    }

    /// Held by this one from now on.
    pub fn take(&mut self, holder: &str, duration: Duration, at: Timestamp) {
        let is_another = self.holder() != Some(holder);
        let transitions = self.transitions();
        let is_new = self.0.spec.is_none();
        let spec = self.spec();
        if is_another {
            spec.acquire_time = Some(MicroTime(at));
            spec.lease_transitions = Some(transitions.saturating_add(i32::from(!is_new)));
        }
        spec.holder_identity = Some(holder.to_owned());
        spec.renew_time = Some(MicroTime(at));
        // Whole seconds: rather too long than too short, and at least one (the API server wants it).
        let seconds = duration.as_millis().div_ceil(1000).max(1);
        spec.lease_duration_seconds = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
    }

    /// Held by nobody.
    pub fn give_up(&mut self, at: Timestamp) {
        let spec = self.spec();
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(at));
    }

    /// Whether one may have it who would hold it: nobody else does, or has not renewed it for as long as it lasts.
    ///
    /// # Errors
    /// Who holds it.
    pub fn free_for(
        &self,
        holder: &str,
        seen: &LeaseObservation,
        now: Instant,
    ) -> Result<(), LeaseError> {
        let until = seen.since + self.duration();
        match self.holder() {
            Some(by) if by != holder && until > now => Err(LeaseError::Held {
                by: by.to_owned(),
                until,
            }),
            _ => Ok(()),
        }
    }
}

/// Since when one sees a Lease as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseObservation {
    /// All that changes with each renewal.
    spec: Option<v1::LeaseSpec>,
    since: Instant,
}

impl LeaseObservation {
    /// It is seen now, after it was seen before.
    #[must_use]
    pub fn again(before: Option<&Self>, record: &Record, now: Instant) -> Self {
        match before {
            Some(seen) if seen.spec == record.0.spec => seen.clone(),
            _ => Self {
                spec: record.0.spec.clone(),
                since: now,
            },
        }
    }
}

/// The Leases of a namespace.
#[derive(Clone, Debug)]
pub struct Leases {
    api: Api<v1::Lease>,
    namespace: String,
}

impl Leases {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// One request. `None`: there is none of this name.
    ///
    /// # Errors
    /// When the API server does not tell.
    pub async fn read(&self, name: &str) -> Result<Option<Record>, LeaseError> {
        let read = within(self.api.get_opt(name)).await?;
        let lease = read.map_err(|error| self.failed("get", &error))?;
        Ok(lease.map(Record))
    }

    /// One request: creates it when it was never read, otherwise replaces what was read. Tells what the
    /// API server has now.
    ///
    /// # Errors
    /// [`LeaseError::Conflict`] when somebody else has written it since it was read.
    pub async fn write(&self, name: &str, record: &Record) -> Result<Record, LeaseError> {
        let mut lease = record.0.clone();
        lease.metadata.name = Some(name.to_owned());
        let how = PostParams::default();
        let (verb, written) = if lease.metadata.resource_version.is_some() {
            let replaced = self.api.replace(name, &how, &lease);
            ("update", within(replaced).await?)
        } else {
            ("create", within(self.api.create(&how, &lease)).await?)
        };
        written
            .map(Record)
            .map_err(|error| self.failed(verb, &error))
    }

    fn failed(&self, verb: &str, error: &kube::Error) -> LeaseError {
        let kube::Error::Api(status) = error else {
            return LeaseError::Unreachable(told(error));
        };
        match status.code {
            // It is there already, it was written meanwhile, or it is gone: 404 to one that was read.
            409 => LeaseError::Conflict,
            404 if verb == "update" => LeaseError::Conflict,
            401 | 403 => LeaseError::Forbidden(format!(
                "{verb} of leases (coordination.k8s.io) in the namespace {}",
                printable(&self.namespace)
            )),
            429 | 500.. => LeaseError::Unreachable(printable(&status.message)),
            _ => LeaseError::Refused(printable(&status.message)),
        }
    }
}

async fn within<T>(
    asked: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, LeaseError> {
    timeout(ANSWER, asked)
        .await
        .map_err(|_| LeaseError::Unreachable(format!("no word within {} s", ANSWER.as_secs())))
}

/// One Lease, as one sees it who would hold it.
#[derive(Debug)]
pub struct Candidate {
    leases: Leases,
    name: String,
    holder: String,
    duration: Duration,
    seen: Option<LeaseObservation>,
    /// As it was written last, while it is ours.
    held: Option<Record>,
    /// What was sent last was not answered; it may have been written all the same.
    is_unsure: bool,
}

impl Candidate {
    /// `holder` is one's name among all that could hold it: a node or a pod. It is held for `duration`
    /// after each renewal; renew it after a third of that.
    pub fn new(leases: Leases, name: &str, holder: &str, duration: Duration) -> Self {
        Self {
            leases,
            name: name.to_owned(),
            holder: holder.to_owned(),
            duration,
            seen: None,
            held: None,
            is_unsure: false,
        }
    }

    /// It was written by us last, and nobody has told that it was lost. Whether it has expired since
    /// then is for the one who renews it to know.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes it where it is free, or renews it where it is ours already. Two requests.
    ///
    /// # Errors
    /// When it is not held after this, and why. After a conflict somebody else has it, mostly.
    pub async fn acquire(
        &mut self,
        now: Clocks,
        notes: &BTreeMap<String, String>,
    ) -> Result<(), LeaseError> {
        let mut record = self.leases.read(&self.name).await?.unwrap_or_default();
        let seen = LeaseObservation::again(self.seen.as_ref(), &record, now.steady);
        let free = record.free_for(&self.holder, &seen, now.steady);
        self.seen = Some(seen);
        if free.is_err() {
            self.held = None;
            return free;
        }
        record.take(&self.holder, self.duration, now.at);
        self.write(record, notes).await
    }

    /// Renews it. One request; where it was not held, as [`Self::acquire`].
    ///
    /// # Errors
    /// A conflict means that it is not ours any more. When the API server does not answer, it is ours
    /// until it expires, and may be renewed again.
    pub async fn renew(
        &mut self,
        now: Clocks,
        notes: &BTreeMap<String, String>,
    ) -> Result<(), LeaseError> {
        let Some(mut record) = self.held.clone().filter(|_| !self.is_unsure) else {
            return self.acquire(now, notes).await;
        };
        record.take(&self.holder, self.duration, now.at);
        self.write(record, notes).await
    }

    /// Gives it up, so that another need not wait until it expires. One request; none where it is not
    /// held. A conflict where the request before was not answered: it expires by itself.
    ///
    /// # Errors
    /// It expires by itself then.
    pub async fn release(
        &mut self,
        now: Clocks,
        notes: &BTreeMap<String, String>,
    ) -> Result<(), LeaseError> {
        let Some(mut record) = self.held.clone() else {
            return Ok(());
        };
        record.give_up(now.at);
        self.write(record, notes).await?;
        self.held = None;
        Ok(())
    }

    async fn write(
        &mut self,
        mut record: Record,
        notes: &BTreeMap<String, String>,
    ) -> Result<(), LeaseError> {
        for (key, text) in notes {
            record.set_note(key, text.clone());
        }
        match self.leases.write(&self.name, &record).await {
            Ok(written) => {
                self.held = Some(written);
                self.is_unsure = false;
                Ok(())
            }
            Err(LeaseError::Unreachable(reason)) => {
                self.is_unsure = true;
                Err(LeaseError::Unreachable(reason))
            }
            Err(error) => {
                self.held = None;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(15);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_holder_has_gone_when_it_was_seen_unchanged_for_as_long_as_it_lasts() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut record = Record::default();
        let seen = LeaseObservation::again(None, &record, begin);
        assert_eq!(record.free_for("a", &seen, begin), Ok(()));
        // Its clock is a year behind, which tells nothing.
        record.take("b", LASTS, at(-31_536_000));
        let seen = LeaseObservation::again(Some(&seen), &record, after(100));
        let held = |until| {
            Err(LeaseError::Held {
                by: "b".to_owned(),
                until: after(until),
            })
        };
        assert_eq!(record.free_for("a", &seen, after(100)), held(115));
        let seen = LeaseObservation::again(Some(&seen), &record, after(114));
        assert_eq!(record.free_for("a", &seen, after(114)), held(115));
        assert_eq!(record.free_for("a", &seen, after(115)), Ok(()));
        assert_eq!(record.free_for("b", &seen, after(500)), Ok(()));
        // A note is no renewal.
        record.set_note("x", "y".to_owned());
        let noted = LeaseObservation::again(Some(&seen), &record, after(114));
        assert_eq!(noted, seen);
        record.take("b", LASTS, at(-31_535_999));
        let renewed = LeaseObservation::again(Some(&seen), &record, after(116));
        assert_eq!(record.free_for("a", &renewed, after(116)), held(131));
    }

    #[test]
    fn what_is_written_tells_who_when_and_how_often() {
        let mut record = Record::default();
        record.take("a", Duration::from_millis(1500), at(0));
        assert_eq!((record.holder(), record.transitions()), (Some("a"), 0));
        assert_eq!(record.duration(), Duration::from_secs(2));
        let acquired = |record: &Record| record.0.spec.as_ref().unwrap().acquire_time.clone();
        record.take("a", LASTS, at(5));
        assert_eq!(acquired(&record), Some(MicroTime(at(0))));
        record.give_up(at(6));
        assert_eq!((record.holder(), record.transitions()), (None, 0));
        record.take("b", LASTS, at(7));
        assert_eq!((record.holder(), record.transitions()), (Some("b"), 1));
        assert_eq!(acquired(&record), Some(MicroTime(at(7))));
        record.take("b", Duration::ZERO, at(8));
        assert_eq!(record.duration(), Duration::from_secs(1));
    }
}
