//! What happens to the node, the API server and the daemon itself, until it shows; and how it ends.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::Chaos;
use crate::flood::Flood;
use crate::node::{NODE, Of};
use crate::plan::Trouble;
use crate::watch::{Health, Watch, now};

/// A pause in which the daemon makes a few checks of each target.
const A_WHILE: Duration = Duration::from_secs(15);

/// What names that no name server answers.
const NO_NAMES: [&str; 3] = ["dns_timeout", "dns_server_unreachable", "dns_error"];

/// The same, and what names an interface that is down.
const NO_NETWORK: [&str; 9] = [
    "dns_timeout",
    "dns_server_unreachable",
    "dns_error",
    "net_unreachable",
    "host_unreachable",
    "no_local_address",
    "no_egress",
    "tcp_timeout",
    // The proxy, which has an address and no name.
    "proxy_misconfigured",
];

fn sleep() {
    std::thread::sleep(A_WHILE);
}

fn metric(watch: &Watch, name: &str) -> Option<f64> {
    watch.state().metrics.as_ref()?.value(name)
}

/// Whether a watch of the API server is down.
fn is_unwatched(watch: &Watch) -> bool {
    let state = watch.state();
    let Some(metrics) = &state.metrics else {
        return false;
    };
    let mut all = metrics.with("pullpath_kubernetes_watch_up").into_iter();
    all.any(|name| metrics.value(name) == Some(0.0))
}

/// Failed pulls, by the Events of kubelets.
fn events(watch: &Watch) -> f64 {
    let state = watch.state();
    let Some(metrics) = &state.role_metrics else {
        return 0.0;
    };
    let all = metrics.with("pullpath_real_pull_events_total").into_iter();
    all.filter_map(|name| metrics.value(name)).sum()
}

fn is_active(watch: &Watch) -> Option<bool> {
    let state = watch.state();
    let active = state
        .role_metrics
        .as_ref()?
        .value("pullpath_cluster_active")?;
    Some(active > 0.0)
}

impl Chaos<'_> {
    /// Begins, and returns when it has shown.
    pub fn begin(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::NoNames => {
                let port = self.good.dns.addr.port();
                let rules = format!(
                    "table ip names {{\nchain in {{\ntype filter hook input priority 0;\nudp dport {port} drop\ntcp dport {port} drop\n}}\n}}\n"
                );
                self.everywhere("no name server answers", &NO_NAMES, |_| {
                    crate::lab::process::run_with(
                        std::process::Command::new("nft").args(["-f", "-"]),
                        &rules,
                    );
                });
            }
            Trouble::InterfaceDown => {
                self.everywhere("the interface is down", &NO_NETWORK, |chaos| {
                    chaos.node.unplug();
                });
            }
            Trouble::ApiForbids => {
                self.api.forbid(true);
                // Watches that are under way go on.
                self.api.stop();
                self.api.start_again();
                self.shows(
                    "the API server forbids everything, and that is not shown",
                    is_unwatched,
                );
            }
            Trouble::ApiRestarts => {
                self.api.stop();
                self.shows(
                    "there is no API server, and that is not shown",
                    is_unwatched,
                );
                self.api.start_again();
            }
            Trouble::ApiSlow => {
                for _ in 0..3 {
                    self.api.pause(true);
                    std::thread::sleep(Duration::from_secs(6));
                    self.api.pause(false);
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            Trouble::BadReload => self.reload_badly(),
            Trouble::GoodReload => self.reload_well(),
            Trouble::DiskFull => self.fill_disk(),
            Trouble::Flood => {
                let flood = Flood::start([Of::Public.at(NODE), Of::Cluster.at(NODE)]);
                sleep();
                self.table.connections += flood.opened.load(std::sync::atomic::Ordering::Relaxed);
                drop(flood);
            }
            Trouble::Killed => {
                self.watch.expects_silence(true);
                // SIGKILL.
                drop(self.daemon.take());
                std::thread::sleep(Duration::from_secs(1));
                self.restarts += 1;
                self.table.restarts += 1;
                self.start_daemon();
            }
            Trouble::Stopped => {
                self.watch.expects_silence(true);
                let daemon = self.daemon.as_ref().unwrap();
                self.watch.is_stopped();
                daemon.signal(Signal::SIGSTOP);
                std::thread::sleep(Duration::from_secs(8));
                daemon.signal(Signal::SIGCONT);
                self.watch.expects_silence(false);
                sleep();
            }
            Trouble::LeaseTaken => {
                self.shows("the cluster role does not hold its Lease", |watch| {
                    is_active(watch) == Some(true)
                });
                self.api.report_failure();
                self.api.take_leases();
                self.shows(
                    "the cluster role has lost its Lease, and does not know",
                    |watch| is_active(watch) == Some(false),
                );
            }
            Trouble::Tenants => {
                let runtime = tokio::runtime::Handle::current();
                // A part of them in a short run.
                let secrets = if self.minutes >= 10 { 3000 } else { 300 };
                self.api.crowd(&runtime, secrets);
                sleep();
                let events = self.api.events();
                if events.contains(crate::support::PASSWORD) && events.contains("\"pullpath\"") {
                    self.own_events_hide_passwords(&events);
                }
            }
        }
    }

    /// The kubelet's Event of this test has the password; those of the daemon must not.
    fn own_events_hide_passwords(&mut self, events: &str) {
        let all: serde_json::Value = serde_json::from_str(events).unwrap();
        let own = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["source"]["component"] != "kubelet");
        let shown = own
            .filter(|event| event.to_string().contains(crate::support::PASSWORD))
            .count();
        if shown > 0 {
            self.wrong(&format!("{shown} Events of the daemon have a password"));
        }
    }

    /// All is as before.
    pub fn end(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::NoNames => {
                let all = self.all_targets();
                self.watch.health(&all, &Health::Unclear);
                crate::lab::process::run(
                    std::process::Command::new("nft").args(["delete", "table", "ip", "names"]),
                );
                self.watch.health(&all, &Health::Good);
            }
            Trouble::InterfaceDown => {
                let all = self.all_targets();
                self.watch.health(&all, &Health::Unclear);
                self.node.plug();
                // Until the link is up at both ends.
                std::thread::sleep(Duration::from_secs(2));
                self.watch.health(&all, &Health::Good);
                self.shows("the API server is back, and that is not shown", |watch| {
                    !is_unwatched(watch)
                });
            }
            Trouble::ApiForbids => {
                self.api.forbid(false);
                self.shows("rights are back, and that is not shown", |watch| {
                    !is_unwatched(watch)
                });
            }
            Trouble::ApiRestarts => {
                self.shows("the API server is back, and that is not shown", |watch| {
                    !is_unwatched(watch)
                });
            }
            Trouble::DiskFull => {
                fs::remove_file(self.node.state_folder().join("ballast")).unwrap();
            }
            Trouble::LeaseTaken => {
                self.shows(
                    "the Lease has expired, and the cluster role does not take it",
                    |watch| is_active(watch) == Some(true),
                );
            }
            _ => {}
        }
    }

    /// Events of kubelets are counted, and each once.
    pub fn count_events(&mut self) {
        const EVENTS: f64 = 3.0;
        self.shows("the cluster role holds no Lease", |watch| {
            is_active(watch) == Some(true)
        });
        let before = events(&self.watch);
        for _ in 0..3 {
            self.api.report_failure();
        }
        self.shows("Events were not counted", |watch| {
            events(watch) >= before + EVENTS
        });
        std::thread::sleep(Duration::from_secs(5));
        let after = events(&self.watch);
        if self.is_right() && (after - before - EVENTS).abs() > 0.5 {
            self.wrong(&format!(
                "{EVENTS} Events were counted as {}",
                after - before
            ));
        }
    }

    fn all_targets(&self) -> Vec<String> {
        Self::healthy().into_iter().chain(self.broken()).collect()
    }

    /// Fails if it does not show in time.
    fn shows(&mut self, otherwise: &str, holds: impl Fn(&Watch) -> bool) {
        if !self.wait(holds) {
            self.wrong(otherwise);
        }
    }

    /// Something that keeps all registries away, until each target names it.
    fn everywhere(&mut self, what: &'static str, codes: &[&'static str], make: impl FnOnce(&Self)) {
        let all = self.all_targets();
        self.watch.health(&all, &Health::Unclear);
        make(self);
        self.watch.health(&all, &Health::Bad(what, codes.to_vec()));
        let since = now();
        for target in Self::healthy() {
            if !self.wait_until_named(&target, since, codes) {
                let newest = self.watch.state().newest(&target);
                self.wrong(&format!("{what}: not named at {target}: {newest}"));
                return;
            }
        }
    }

    fn fill_disk(&mut self) {
        const ERRORS: &str = "pullpath_state_errors_total";
        let before = metric(&self.watch, ERRORS).unwrap_or_default();
        let ballast = self.node.state_folder().join("ballast");
        let much = vec![7; 1 << 20];
        let mut file = fs::File::create(ballast).unwrap();
        // Until no byte fits.
        for size in [1 << 20, 1 << 12, 1] {
            while std::io::Write::write_all(&mut file, &much[..size]).is_ok() {}
        }
        self.shows("the disk is full, and that is not shown", |watch| {
            metric(watch, ERRORS).is_some_and(|errors| errors > before)
        });
    }

    fn reload(&self) -> Option<u16> {
        Some(self.asker.ask(Of::Admin, "POST", "/-/reload")?.0)
    }

    fn reload_badly(&mut self) {
        const LOADED: &str = "pullpath_config_last_reload_successful";
        let good = self.config();
        let daemon = self.daemon.as_ref().unwrap();
        daemon.rewrite(&good.replace("schedule: {", "schedule: {never: 1s, "));
        let status = self.reload();
        if status != Some(422) {
            self.wrong(&format!("a bad configuration is answered by {status:?}"));
        }
        self.shows("a bad configuration is not shown", |watch| {
            metric(watch, LOADED) == Some(0.0)
        });
        sleep();
        self.daemon.as_ref().unwrap().rewrite(&good);
        let status = self.reload();
        if status != Some(200) {
            self.wrong(&format!("a good configuration is answered by {status:?}"));
        }
        self.shows("the good configuration is not shown", |watch| {
            metric(watch, LOADED) == Some(1.0)
        });
    }

    /// A target comes, is checked, and goes with its series.
    fn reload_well(&mut self) {
        let name = format!("extra-{}", self.line.text.len());
        self.watch
            .health(std::slice::from_ref(&name), &Health::Good);
        for is_there in [true, false] {
            self.extra = is_there.then(|| name.clone());
            let text = self.config();
            self.daemon.as_ref().unwrap().rewrite(&text);
            let status = self.reload();
            if status != Some(200) {
                self.wrong(&format!("a good configuration is answered by {status:?}"));
            }
            let series = format!("target=\"{name}\"");
            let has = |watch: &Watch| {
                let state = watch.state();
                let with = state
                    .metrics
                    .as_ref()
                    .map(|metrics| metrics.with(&series).len());
                with.is_some_and(|count| count > 0)
            };
            self.shows("a target has series if it exists", |watch| {
                has(watch) == is_there
            });
            if is_there {
                let since = 0.0;
                let names = [name.clone()];
                self.shows("a new target is checked", |watch| {
                    watch.state().has_each(&names, since, "would_succeed")
                });
            }
        }
    }
}
