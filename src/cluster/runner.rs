//! The loop of the cluster role: acquires or renews the Lease, watches while it is held, and reloads the
//! configuration. It reads the clock, and decides nothing about pulls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::state::{ClusterState, Role, Shared};
use crate::config::{Config, Switch};
use crate::kubernetes::client::{ConnectError, connect};
use crate::kubernetes::events::{self, Change};
use crate::kubernetes::lease::{Candidate, Clocks, LeaseError, Leases};
use crate::kubernetes::watch::WatchState;
use crate::kubernetes::workloads::Scope;
use crate::lint;
use crate::model::fault::instant;
use crate::pulls::tally::{Limits, Tally};
use crate::serving::cluster::secret_access;
use crate::serving::reload::{Loader, Reload};

/// The Lease's annotation with the time until which Events were counted. The next holder counts later ones.
const NOTE: &str = "pullpath/events-until";

/// The Lease is renewed after this part of its duration, so that two renewals may fail.
const RENEW: u32 = 3;

/// A replica on standby reads the Lease after this part of its duration: one request.
const READ: u32 = 5;

/// A Lease that was not renewed for three quarters of its duration is given up. Another replica can take it
/// only after the whole duration, and clocks don't drift by a quarter.
fn given_up_after(duration: Duration) -> Duration {
    duration * 3 / 4
}

/// The limit for the release at shutdown, which lets another replica take over at once.
const RELEASE: Duration = Duration::from_secs(3);

/// How often old entries of the tally are dropped.
const TIDY: Duration = Duration::from_secs(30);

/// One replica.
pub struct Runner {
    config: Config,
    load: Loader<Config>,
    client: kube::Client,
    candidate: Candidate,
    leases: Leases,
    /// When the Lease was renewed last; `None`: this replica does not hold it.
    renewed: Option<Instant>,
    /// The watches stop when this is dropped.
    following: Option<DropGuard>,
    state: Shared,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("candidate", &self.candidate)
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Creates the clients. No request is sent yet.
    ///
    /// # Errors
    /// If no API server is configured, or its credentials can't be read. Whether it answers shows later.
    pub async fn start(
        identity: &str,
        namespace: &str,
        config: Config,
        load: Loader<Config>,
    ) -> Result<Self, ConnectError> {
        let client = connect(config.kubernetes.kubeconfig.as_deref(), None).await?;
        let leases = Leases::new(client.clone(), namespace);
        let lease_name = &config.cluster.lease_name;
        let candidate = Candidate::new(
            leases.clone(),
            lease_name,
            identity,
            config.cluster.lease_duration.0,
        );
        let now = Timestamp::now();
        let state = Shared::new(ClusterState {
            identity: identity.to_owned(),
            lease: format!("{namespace}/{lease_name}"),
            role: Role::Standby {
                why: None,
                is_problem: false,
            },
            events: None,
            tally: Tally::new(limits(&config), now),
            lint: None,
            reload: Reload::begin(now),
        });
        Ok(Self {
            config,
            load,
            client,
            candidate,
            leases,
            renewed: None,
            following: None,
            state,
        })
    }

    /// The state that metrics, page and API show.
    pub fn state(&self) -> Shared {
        self.state.clone()
    }

    /// Runs until `stop` is cancelled. Each message of `reloads` reloads the configuration.
    pub async fn run(mut self, mut reloads: mpsc::Receiver<()>, stop: CancellationToken) {
        let mut next = Instant::now();
        let mut tidy = tokio::time::interval(TIDY);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(next) => {
                    let wait = tokio::select! {
                        () = stop.cancelled() => break,
                        wait = self.step() => wait,
                    };
                    next = Instant::now() + wait;
                }
                Some(()) = reloads.recv() => self.reload(),
                _ = tidy.tick() => self.state.write().tally.tidy(Timestamp::now()),
            }
        }
        let is_held = self.renewed.is_some();
        let notes = self.notes();
        self.following = None;
        if is_held {
            // If this fails, the Lease expires.
            match timeout(RELEASE, self.candidate.release(Clocks::read(), &notes)).await {
                Ok(Ok(())) => tracing::info!("the Lease is released"),
                Ok(Err(error)) => tracing::warn!(%error, "the Lease can't be released"),
                Err(_) => tracing::warn!("the Lease can't be released in time"),
            }
        }
    }

    /// Acquires or renews the Lease. Returns the wait until the next step.
    async fn step(&mut self) -> Duration {
        let duration = self.config.cluster.lease_duration.0;
        let Some(renewed) = self.renewed else {
            return self.try_to_begin(duration).await;
        };
        let notes = self.notes();
        let left = (renewed + given_up_after(duration)).saturating_duration_since(Instant::now());
        let requested_at = Instant::now();
        match timeout(left, self.candidate.renew(Clocks::read(), &notes)).await {
            Ok(Ok(())) => {
                self.renewed = Some(requested_at);
                duration / RENEW
            }
            Ok(Err(LeaseError::Unreachable(reason))) if !left.is_zero() => {
                tracing::warn!(reason, "the Lease can't be renewed now");
                (duration / (RENEW * READ)).min(left)
            }
            Ok(Err(error)) => self.end(
                &error.to_string(),
                !matches!(error, LeaseError::Held { .. }),
            ),
            Err(_) => self.end("the API server did not answer in time", true),
        }
    }

    async fn try_to_begin(&mut self, duration: Duration) -> Duration {
        let requested_at = Instant::now();
        match self
            .candidate
            .acquire(Clocks::read(), &BTreeMap::new())
            .await
        {
            Ok(()) => {
                self.renewed = Some(requested_at);
                let since = self.followed_until().await;
                self.begin(since);
                duration / RENEW
            }
            Err(LeaseError::Held { by, until }) => {
                self.wait_because(
                    format!("{} holds it", crate::model::text::printable(&by)),
                    false,
                );
                let left = until.saturating_duration_since(Instant::now());
                left.min(jittered(duration / READ))
            }
            Err(LeaseError::Conflict) => jittered(duration / READ),
            Err(error) => {
                self.wait_because(error.to_string(), true);
                jittered(duration / READ)
            }
        }
    }

    /// Until when the previous holder counted Events; `None` if it left no note.
    async fn followed_until(&self) -> Option<Timestamp> {
        let name = &self.config.cluster.lease_name;
        let record = timeout(RELEASE, self.leases.read(name))
            .await
            .ok()?
            .ok()??;
        record.note(NOTE)?.parse().ok()
    }

    /// The annotations to write with the Lease.
    fn notes(&self) -> BTreeMap<String, String> {
        let state = self.state.read();
        if state.is_watching() && self.following.is_some() {
            // Whole seconds: the newest Event may not have arrived.
            BTreeMap::from([(NOTE.to_owned(), whole_seconds(Timestamp::now()))])
        } else {
            BTreeMap::new()
        }
    }

    fn begin(&mut self, since: Option<Timestamp>) {
        let now = Timestamp::now();
        // A time in the future is ignored.
        let from = since.filter(|since| *since <= now).unwrap_or(now);
        {
            let mut state = self.state.write();
            state.role = Role::Active { since: now };
            state.tally.begin(from);
        }
        tracing::info!(since = since.map(instant), "active: the Lease is held");
        self.follow();
    }

    /// Starts the watches that the configuration requests.
    fn follow(&mut self) {
        self.following = None;
        let stop = CancellationToken::new();
        self.follow_workloads(&stop);
        self.follow_events(&stop);
        self.following = Some(stop.drop_guard());
    }

    fn follow_workloads(&self, stop: &CancellationToken) {
        self.state.write().lint = None;
        if self.config.cluster.lint == Switch::Off {
            return;
        }
        let kubernetes = &self.config.kubernetes;
        let scope = Scope {
            counted: kubernetes.namespaces.clone(),
            ..Scope::default()
        };
        let access = secret_access(kubernetes);
        let found = lint::watch::start(self.client.clone(), scope, access, stop.clone());
        self.show(found, stop, |state, snapshot| state.lint = Some(snapshot));
    }

    fn follow_events(&self, stop: &CancellationToken) {
        if self.config.cluster.events == Switch::Off {
            self.state.write().events = None;
            return;
        }
        let (watch_state, watch_states) = watch::channel(WatchState::Unknown);
        self.state.write().events = Some(WatchState::Unknown);
        let (state, ended) = (self.state.clone(), stop.clone());
        let on_change = move |change| take(&state, &ended, change);
        tokio::spawn(events::follow(
            self.client.clone(),
            on_change,
            watch_state,
            stop.clone(),
        ));
        self.show(watch_states, stop, |state, newest| {
            if let WatchState::Lost { reason, .. } = &newest {
                tracing::warn!(reason, "the watch of Events is down");
            }
            state.events = Some(newest);
        });
    }

    /// Copies news into the shared state until `stop` is cancelled.
    fn show<T: Clone + Send + Sync + 'static>(
        &self,
        mut news: watch::Receiver<T>,
        stop: &CancellationToken,
        put: impl Fn(&mut ClusterState, T) + Send + 'static,
    ) {
        let (state, ended) = (self.state.clone(), stop.clone());
        tokio::spawn(async move {
            while news.changed().await.is_ok() {
                let newest = news.borrow_and_update().clone();
                let mut state = state.write();
                if ended.is_cancelled() {
                    return;
                }
                put(&mut state, newest);
            }
        });
    }

    fn end(&mut self, reason: &str, is_problem: bool) -> Duration {
        tracing::warn!(reason, "standby: the Lease is lost");
        self.renewed = None;
        self.following = None;
        self.wait_because(reason.to_owned(), is_problem);
        jittered(self.config.cluster.lease_duration.0 / READ)
    }

    fn wait_because(&self, why: String, is_problem: bool) {
        let mut state = self.state.write();
        let role = Role::Standby {
            why: Some(why),
            is_problem,
        };
        if state.role != role {
            if is_problem && let Role::Standby { why: Some(why), .. } = &role {
                tracing::warn!(why, "the Lease can't be acquired");
            }
            state.role = role;
        }
        state.events = None;
        state.lint = None;
    }

    fn reload(&mut self) {
        match (self.load)() {
            Ok(mut config) => {
                let (new, old) = (&config.cluster, &self.config.cluster);
                let is_fixed = new.lease_name != old.lease_name
                    || new.namespace != old.namespace
                    || config.kubernetes.kubeconfig != self.config.kubernetes.kubeconfig
                    || config.listen != self.config.listen
                    || new.lease_duration != old.lease_duration;
                if is_fixed {
                    tracing::warn!(
                        "changes of the Lease, the kubeconfig and listen take effect at the next start"
                    );
                }
                let is_other = new.events != old.events
                    || new.lint != old.lint
                    || config.kubernetes != self.config.kubernetes;
                // The candidate keeps the Lease that it was created with.
                config.cluster.lease_name.clone_from(&old.lease_name);
                config.cluster.lease_duration = old.lease_duration;
                self.config = config;
                {
                    let mut state = self.state.write();
                    state.tally.set_limits(limits(&self.config));
                    state.reload.again(Ok(()), Timestamp::now());
                }
                if is_other && self.renewed.is_some() {
                    self.state.write().tally.begin(Timestamp::now());
                    self.follow();
                }
            }
            Err(error) => {
                let reload = &mut self.state.write().reload;
                reload.again(Err(error), Timestamp::now());
            }
        }
    }
}

/// Counts one change, if this replica is still active.
fn take(state: &Shared, ended: &CancellationToken, change: Change) {
    let mut state = state.write();
    if ended.is_cancelled() {
        return;
    }
    let tally = &mut state.tally;
    match change {
        Change::ListBegins => tally.list_begins(),
        Change::Seen(event) => tally.take(&event, Timestamp::now()),
        Change::ListEnds => tally.list_ends(Timestamp::now()),
        Change::Gone(uid) => tally.gone(&uid),
    }
}

fn limits(config: &Config) -> Limits {
    let cluster = &config.cluster;
    Limits {
        max_pairs: cluster.max_pairs.0 as usize,
        idle: cluster.forget_after.0,
        node_rates: cluster
            .node_rates_mbit
            .iter()
            .map(|(registry, mbit)| (Arc::from(&**registry), f64::from(mbit.0) * 1e6 / 8.0))
            .collect(),
    }
}

/// Spreads the requests of replicas that started together.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without a random number, only the jitter is lost.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    wait.mul_f64(0.8 + 0.4 * f64::from(byte[0]) / 255.0)
}

fn whole_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}
