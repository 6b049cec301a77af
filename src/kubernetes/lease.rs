//! Leases of coordination.k8s.io/v1 as locks: one of several candidates holds a Lease. Writes are guarded by the
//! object's resourceVersion: if two candidates write at once, the API server refuses one.
//!
//! A Lease expires by the observer's monotonic clock, not by the holder's timestamps: it has expired when the observer
//! has seen the same Lease unchanged for its whole duration (as in client-go's leader election). Clocks that differ
//! therefore do no harm, and a candidate that sees a Lease for the first time waits one full duration.
//!
//! A Lease can't stop a holder that was paused (SIGSTOP, a suspended machine): it resumes its work even if another
//! holds the Lease by then. Holders therefore finish before the Lease expires.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use super::sources::with_sources;
use crate::model::text::printable;

/// Timeout of one request. client-go's leader election gives up a renewal after the same time (its renew deadline).
const ANSWER: Duration = Duration::from_secs(10);

/// Both clocks, read at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Written into the Lease for users to read; never compared.
    pub at: Timestamp,
    /// Monotonic; decides expiry.
    pub steady: Instant,
}

impl Clocks {
    /// Reads both clocks now.
    pub fn read() -> Self {
        Self {
            at: Timestamp::now(),
            steady: Instant::now(),
        }
    }
}

/// Why the Lease is not held.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LeaseError {
    /// Another candidate holds it.
    #[error("{} holds it", printable(.by))]
    Held {
        /// The holder's identity: a node or a pod.
        by: String,
        /// When it expires if it is not renewed until then.
        until: Instant,
    },
    /// HTTP 409: it was written by another candidate after it was read here.
    #[error("another holder has written it in the meantime")]
    Conflict,
    /// HTTP 401 or 403; names the verb, the resource and the namespace.
    #[error("the API server forbids it: RBAC must allow {0}")]
    Forbidden(String),
    /// No answer within 10 s, or HTTP 429 or 5xx. The Lease may have been written all the same.
    #[error("the API server does not answer: {0}")]
    Unreachable(String),
    /// Any other refusal. Waiting does not help: the namespace does not exist, or the object is not valid.
    #[error("the API server refuses it: {0}")]
    Refused(String),
}

/// A Lease as read, or as it will be written. Its methods change only this copy; [`Leases::write`] writes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(pub v1::Lease);

impl Record {
    fn spec(&mut self) -> &mut v1::LeaseSpec {
        self.0.spec.get_or_insert_default()
    }

    /// `spec.holderIdentity`. `None`: the Lease is free.
    pub fn holder(&self) -> Option<&str> {
        let holder = self.0.spec.as_ref()?.holder_identity.as_deref()?;
        (!holder.is_empty()).then_some(holder)
    }

    /// `spec.leaseDurationSeconds`: how long it lasts without being renewed.
    fn duration(&self) -> Duration {
        let spec = self.0.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
        Duration::from_secs(u64::try_from(seconds.unwrap_or(0)).unwrap_or(0))
    }

    /// `spec.leaseTransitions`: how often the holder has changed.
    fn transitions(&self) -> i32 {
        let spec = self.0.spec.as_ref();
        spec.and_then(|spec| spec.lease_transitions).unwrap_or(0)
    }

    /// An annotation: data that a holder leaves to the next one. `None` if there is no such key.
    pub fn note(&self, key: &str) -> Option<&str> {
        Some(self.0.metadata.annotations.as_ref()?.get(key)?.as_str())
    }

    /// Sets an annotation; see [`Self::note`].
    pub fn set_note(&mut self, key: &str, text: String) {
        let notes = self.0.metadata.annotations.get_or_insert_default();
        notes.insert(key.to_owned(), text);
    }

    /// Makes `holder` the holder, or renews its Lease. `duration` is rounded up to whole seconds, at least one.
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
        // Rounded up; the API server requires at least one second.
        let seconds = duration.as_millis().div_ceil(1000).max(1);
        spec.lease_duration_seconds = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
    }

    /// Removes the holder.
    pub fn give_up(&mut self, at: Timestamp) {
        let spec = self.spec();
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(at));
    }

    /// Whether `holder` may take it: it is free, already its own, or has expired.
    ///
    /// # Errors
    /// [`LeaseError::Held`] if another holds it and it has not expired.
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

/// Since when a Lease has been observed unchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseObservation {
    /// Each renewal changes it.
    spec: Option<v1::LeaseSpec>,
    since: Instant,
}

impl LeaseObservation {
    /// Updates the observation: `since` stays if `record` has the same `spec` as `before`.
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
    /// Sends no request.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// Reads a Lease by one request. `None`: there is none with this name.
    ///
    /// # Errors
    /// If RBAC forbids it, or if the API server refuses it or does not answer.
    pub async fn read(&self, name: &str) -> Result<Option<Record>, LeaseError> {
        let read = within(self.api.get_opt(name)).await?;
        let lease = read.map_err(|error| self.failed("get", &error))?;
        Ok(lease.map(Record))
    }

    /// Writes a Lease by one request: creates it if it did not exist when read, else replaces it. Returns the stored
    /// object.
    ///
    /// # Errors
    /// [`LeaseError::Conflict`] if another has written it since it was read. Also if RBAC forbids it, or if the API
    /// server refuses it or does not answer.
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
            return LeaseError::Unreachable(with_sources(error));
        };
        match status.code {
            // It already exists, was written in the meantime, or was deleted (404 to an update).
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
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, LeaseError> {
    timeout(ANSWER, request)
        .await
        .map_err(|_| LeaseError::Unreachable(format!("no answer within {} s", ANSWER.as_secs())))
}

/// One Lease, from the view of one candidate.
#[derive(Debug)]
pub struct Candidate {
    leases: Leases,
    name: String,
    holder: String,
    duration: Duration,
    seen: Option<LeaseObservation>,
    /// The stored object while this candidate holds it.
    held: Option<Record>,
    /// The last write got no answer; it may have succeeded.
    is_unsure: bool,
}

impl Candidate {
    /// `holder` is this candidate's identity, unique among all candidates: a node or a pod. Each renewal holds the
    /// Lease for `duration`; renew it after a third of that. Sends no request.
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

    /// Whether the last write was ours and no loss is known since. Does not check expiry: the caller knows when it
    /// last renewed.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes the Lease if it is free or expired, or renews it if it is ours. Sends two requests.
    ///
    /// # Errors
    /// If it is not held afterwards. After a conflict another candidate usually holds it.
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

    /// Renews the Lease by one request. If it is not held, or the last write got no answer: [`Self::acquire`].
    ///
    /// # Errors
    /// [`LeaseError::Conflict`] means that it is no longer ours. If the API server does not answer, it stays ours until
    /// it expires, and may be renewed again.
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

    /// Gives the Lease up by one request, so that others need not wait for its expiry. Sends nothing if it is not held.
    ///
    /// # Errors
    /// If the write fails, for instance with a conflict because the previous write got no answer. The Lease then
    /// expires.
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
        // Its clock is a year behind, which must not matter.
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
