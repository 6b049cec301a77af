//! Everything goes wrong around a daemon within the limits of its manifest: registries, token services, storage and a
//! proxy lie, stall, flood and heal; the API server, names, the interface and the disk fail; the daemon is
//! killed and stopped. A seed decides what happens when (`tests/chaos/plan.rs`), and all that the daemon shows is held
//! against what was done (`tests/chaos/watch.rs`).
//!
//! `tests/chaos/run MINUTES SEED` runs it; it is not part of the gate.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::missing_panics_doc, reason = "this is test code")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]
#![allow(clippy::print_stdout, reason = "the table is what one reads")]

#[path = "chaos/api.rs"]
mod api;
#[path = "chaos/faults.rs"]
mod faults;
#[path = "chaos/flood.rs"]
mod flood;
#[path = "kube/mod.rs"]
mod kube;
#[path = "kube/played.rs"]
mod kube_played;
mod lab;
#[path = "chaos/node.rs"]
mod node;
mod operated;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/sandbox.rs"]
mod sandbox;
mod support;
#[path = "chaos/table.rs"]
mod table;
#[path = "chaos/trouble.rs"]
mod trouble;
#[path = "chaos/watch.rs"]
mod watch;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Api;
use faults::{FAULTS, Fault, IN_A_CIRCLE, PROXY_FAULTS, Place, SERVERS, give_names};
use node::{Asker, Node};
use operated::Daemon;
use plan::{Plan, Round};
use sandbox::{Cgroup, in_a_sandbox};
use support::image::Image;
use support::{TAG, USER, World};
use table::{Calm, Table};
use tempfile::TempDir;
use watch::{Health, SHOP, Watch};

/// Registries that fail, beside the one behind a proxy.
const BROKEN: usize = 6;

/// Targets whose registry never fails.
const HEALTHY: usize = 16;

/// Longer than a busy machine takes for a few checks of every target: `schedule.reach` is 10 s.
const LONG: Duration = Duration::from_mins(5);

fn setting(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn the_daemon_survives() {
    in_a_sandbox("the_daemon_survives", |folder, cgroup| {
        let minutes = setting("PULLPATH_CHAOS_MINUTES", 3);
        let seed = setting("PULLPATH_CHAOS_SEED", 1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let begun = Instant::now();
        let chaos = Chaos::start(folder, cgroup, &runtime, seed, minutes);
        chaos.run(begun);
    });
}

/// All that runs.
#[expect(missing_debug_implementations, reason = "it is not shown")]
pub struct Chaos<'a> {
    // The order is that of their end.
    watch: Watch,
    daemon: Option<Daemon>,
    role: Option<Daemon>,
    api: Api,
    node: Node,
    asker: Asker,
    good: World,
    places: Vec<Place>,
    folder: &'a Path,
    cgroup: &'a Cgroup,
    daemon_folder: Arc<TempDir>,
    role_folder: Arc<TempDir>,
    line: TimeLine,
    table: Table,
    seed: u64,
    minutes: u64,
    extra: Option<String>,
    restarts: usize,
}

/// What happened when, to be read after a failure.
struct TimeLine {
    begun: Instant,
    text: String,
}

impl TimeLine {
    fn say(&mut self, what: &str) {
        let line = format!("{:>6.1} s  {what}", self.begun.elapsed().as_secs_f64());
        println!("{line}");
        let _ = writeln!(self.text, "{line}");
    }
}

impl<'a> Chaos<'a> {
    fn start(
        folder: &'a Path,
        cgroup: &'a Cgroup,
        runtime: &tokio::runtime::Runtime,
        seed: u64,
        minutes: u64,
    ) -> Self {
        let mut line = TimeLine {
            begun: Instant::now(),
            text: String::new(),
        };
        line.say(&format!("seed {seed}, {minutes} minutes"));
        let node = Node::start(folder, cgroup);
        let (good, places) = runtime.block_on(async {
            let good = World::healthy().await;
            give_names(&good);
            let mut places = vec![Place::proxied(&good).await];
            for number in 1..=BROKEN {
                places.push(Place::start(number).await);
            }
            (good, places)
        });
        for number in 0..HEALTHY {
            let image = Image::multi(number as u64 + 10);
            good.registry
                .store
                .push(&format!("team/h{number}"), TAG, &image);
        }
        good.registry.store.push("shop/web", TAG, &Image::multi(5));
        good.tokens.knobs().public.push("shop/web".to_owned());
        line.say("registries");
        let api = Api::start(&good);
        line.say("API server");
        let asker = Asker::new(&node);
        let watch = Watch::start(asker.clone(), node.state_folder());
        let mut chaos = Self {
            watch,
            daemon: None,
            role: None,
            api,
            node,
            asker,
            good,
            places,
            folder,
            cgroup,
            daemon_folder: Arc::new(TempDir::new_in(folder).unwrap()),
            role_folder: Arc::new(TempDir::new_in(folder).unwrap()),
            line,
            table: Table::default(),
            seed,
            minutes,
            extra: None,
            restarts: 0,
        };
        chaos.watch.health(&Self::healthy(), &Health::Good);
        for place in &chaos.places {
            chaos
                .watch
                .health(std::slice::from_ref(&place.name), &Health::Good);
        }
        chaos.start_role();
        chaos.start_daemon();
        chaos
    }

    fn healthy() -> Vec<String> {
        let own = (0..HEALTHY).map(|number| format!("healthy-{number}"));
        own.chain([SHOP.to_owned()]).collect()
    }

    fn broken(&self) -> Vec<String> {
        self.places.iter().map(|place| place.name.clone()).collect()
    }

    fn start_daemon(&mut self) {
        let daemon = self.node.start_daemon(&self.config(), &self.daemon_folder);
        self.watch
            .daemon_is(daemon.child.id(), Arc::clone(&daemon.log));
        self.daemon = Some(daemon);
    }

    fn start_role(&mut self) {
        let text = format!(
            "{}log: {{format: json, level: debug}}\nkubernetes: {{kubeconfig: '{}', secrets: discovered}}\n\
             cluster: {{namespace: pullpath, lease_duration: 6s, lint: 'on'}}\n",
            node::cluster_listens(),
            self.api.kubeconfig("cluster").display()
        );
        let role = self.node.start_cluster_role(&text, &self.role_folder);
        self.watch.role_is(role.child.id(), Arc::clone(&role.log));
        self.role = Some(role);
    }

    /// The configuration: 16 images of a healthy registry, one of each that fails, and those of the node's pods.
    fn config(&self) -> String {
        let write = |name: &str, text: &str| {
            let path = self.folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let empty = write("empty", "");
        let resolv = write("resolv.conf", "nameserver 127.0.0.1\n");
        let gate = self.places[0].gate.as_ref().unwrap().port;
        let proxy = write(
            "proxy",
            &format!(
                "HTTPS_PROXY=http://{SERVERS}:{gate}\nNO_PROXY=registry.test,auth.test,blobs.test\n"
            ),
        );
        let mut targets = String::new();
        let mut target = |name: &str, image: &str, world: &World| {
            let secret = World::docker_config(&world.registry_host(), USER, support::PASSWORD);
            let secret = write(&format!("{name}.json"), &secret);
            let _ = writeln!(
                targets,
                "  - {{name: {name}, image: '{image}', credential: {{docker_config: '{}'}}}}",
                secret.display()
            );
        };
        for number in 0..HEALTHY {
            let image = format!("{}/team/h{number}:{TAG}", self.good.registry_host());
            target(&format!("healthy-{number}"), &image, &self.good);
        }
        for place in &self.places {
            target(&place.name, &place.reference(), &place.world);
        }
        if let Some(extra) = &self.extra {
            target(extra, &self.good.public_reference(), &self.good);
        }
        let authorities =
            std::iter::once(&self.good).chain(self.places.iter().map(|place| &place.world));
        let authorities: Vec<String> = authorities
            .map(|world| format!("'{}'", world.ca.file().display()))
            .collect();
        format!(
            "{}log: {{format: json, level: debug}}\nvantage: {{node: n1}}\nstate_dir: '{}'\nstate_size: 16MiB\n\
             network:\n  nameservers: ['{SERVERS}:{}']\n  ca_files: [{}]\n  metadata: off\n  hosts_file: '{}'\n\
             \x20 resolv_conf: '{}'\n  proxy_from: ['{}']\n\
             kubernetes: {{discover: node, kubeconfig: '{}', secrets: discovered, events: pods}}\n\
             spread: {{transfers: leases, namespace: pullpath}}\n\
             schedule: {{reach: 10s, path: 1m, transfer: 5m, first_check: 2s, timeout: 3s, check_timeout: 40s}}\n\
             budgets: {{registry_requests_per_minute: 100000, transfer_bytes: 1MiB}}\ntargets:\n{targets}",
            node::listens(),
            self.node.state_folder().display(),
            self.good.dns.addr.port(),
            authorities.join(", "),
            empty.display(),
            resolv.display(),
            proxy.display(),
            self.api.kubeconfig("node").display(),
        )
    }

    fn run(mut self, begun: Instant) {
        let rests: Vec<usize> = FAULTS.iter().map(|fault| fault.rests).collect();
        let mut plan = Plan::new(self.seed, self.places.len(), &rests);
        let end = begun + Duration::from_secs(60 * self.minutes);
        self.calm("at the start");
        let mut number = 0;
        while Instant::now() < end && self.is_right() {
            number += 1;
            let round = plan.round();
            self.round(number, &round);
            // The last one is after all.
            if number % 4 == 0 && Instant::now() < end && self.is_right() {
                self.calm("in between");
            }
        }
        if self.is_right() {
            self.calm("at the end");
        }
        self.finish();
    }

    fn is_right(&self) -> bool {
        !self.watch.has_failed() && self.watch.state().wrong.is_empty()
    }

    /// The faults of a round and its trouble, until each is named; then all heals.
    fn round(&mut self, number: usize, round: &Round) {
        self.line
            .say(&format!("round {number}: {:?}", round.trouble));
        let mut made = Vec::new();
        for (place, fault) in self.places.iter().zip(&round.faults) {
            let Some(fault) = fault else { continue };
            let all = place.faults();
            let fault = &all[fault % all.len()];
            place.fail(fault);
            let bad = Health::Bad(fault.name, fault.codes.to_vec());
            self.watch.health(std::slice::from_ref(&place.name), &bad);
            made.push((place.name.clone(), fault, watch::now()));
        }
        for (place, fault, _) in &made {
            self.line.say(&format!("  {place}: {}", fault.name));
            self.table.faults += 1;
        }
        self.table.troubles += 1;
        self.begin(round.trouble);
        for (place, fault, since) in &made {
            if !self.wait_until_named(place, *since, fault.codes) {
                let newest = self.watch.state().newest(place);
                self.wrong(&format!("{}: not named at {place}: {newest}", fault.name));
            }
        }
        let names: Vec<String> = made.iter().map(|(place, ..)| place.clone()).collect();
        self.watch.health(&names, &Health::Unclear);
        for place in self
            .places
            .iter()
            .filter(|place| names.contains(&place.name))
        {
            place.heal();
        }
        self.end(round.trouble);
        self.watch.health(&names, &Health::Good);
        let healed: Vec<String> = made
            .iter()
            .filter(|(_, fault, _)| fault.rests == 0)
            .map(|(place, ..)| place.clone())
            .collect();
        self.wait_until_checked(&healed, "healed");
        let healthy = Self::healthy();
        self.wait_until_checked(&healthy, "healthy");
        self.look_for_leaks(&made);
    }

    /// Storage is sent no credential.
    fn look_for_leaks(&mut self, made: &[(String, &Fault, f64)]) {
        let mut leaks = Vec::new();
        for place in &self.places {
            let count = place.world.blobs.take_leaks().len();
            let fault = made.iter().find(|(name, ..)| *name == place.name);
            let fault = fault.map_or("no fault", |(_, fault, _)| fault.name);
            if count > 0 && fault != IN_A_CIRCLE {
                leaks.push(format!(
                    "{count} credentials at {} with {fault}",
                    place.name
                ));
            }
        }
        let count = self.good.blobs.take_leaks().len();
        if count > 0 {
            leaks.push(format!("{count} credentials of the healthy registry"));
        }
        if !leaks.is_empty() {
            self.wrong(&format!("storage was sent {}", leaks.join(", ")));
        }
    }

    /// Until a check names it, or several could not for lack of CPU.
    fn wait_until_named(&self, target: &str, since: f64, codes: &[&str]) -> bool {
        let is_over = self.wait(|watch| {
            let state = watch.state();
            state.is_named(target, since, codes) || state.is_hidden(target, since)
        });
        let mut state = self.watch.state();
        if is_over && !state.is_named(target, since, codes) {
            state.figures.hidden += 1;
        }
        is_over
    }

    /// Until each has a success whose check begins from now on.
    fn wait_until_checked(&mut self, names: &[String], what: &str) {
        let since = watch::now();
        if self.wait(|watch| watch.state().has_each(names, since, "would_succeed")) {
            return;
        }
        let late = names.iter().find_map(|name| {
            let state = self.watch.state();
            let is_late = !state.has_each(std::slice::from_ref(name), since, "would_succeed");
            is_late.then(|| {
                format!(
                    "{what}, and without a success: {name}: {}",
                    state.newest(name)
                )
            })
        });
        self.wrong(&late.unwrap_or_default());
    }

    fn wait(&self, holds: impl Fn(&Watch) -> bool) -> bool {
        let end = Instant::now() + LONG;
        while self.is_right() {
            if holds(&self.watch) {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        // Another failure is reported.
        true
    }

    fn wrong(&mut self, what: &str) {
        self.line.say(what);
        self.watch.state().wrong.push(what.to_owned());
    }

    /// Nothing is wrong: what the daemon uses then, and its series.
    fn calm(&mut self, when: &str) {
        let all: Vec<String> = Self::healthy().into_iter().chain(self.broken()).collect();
        self.wait_until_checked(&all, "calm");
        // Idle threads and connections have ended by then.
        std::thread::sleep(Duration::from_secs(12));
        let calm = {
            let state = self.watch.state();
            let (counted, seen) = state.counted_and_seen();
            Calm {
                life: self.restarts,
                usage: state.usage,
                series: state
                    .metrics
                    .as_ref()
                    .map_or(0, |metrics| metrics.series.len()),
                of_targets: table::of_targets(state.metrics.as_ref()),
                counted,
                seen,
            }
        };
        self.line.say(&format!("calm {when}: {calm}"));
        if let Some(wrong) = self.table.take(&calm) {
            self.wrong(&wrong);
        }
        self.count_events();
        let kills = self.cgroup.kills();
        if kills > 0 {
            self.wrong(&format!(
                "the kernel ended {kills} processes for lack of memory"
            ));
        }
        let forbidden = self.node.forbidden_connections();
        if forbidden > 0 {
            self.wrong(&format!("{forbidden} connections to a service of the node"));
        }
    }

    /// Into the folder that `PULLPATH_CHAOS_KEEP` names.
    fn keep_logs(&self) {
        let Some(folder) = std::env::var_os("PULLPATH_CHAOS_KEEP") else {
            return;
        };
        for (name, process) in [("daemon", &self.daemon), ("cluster", &self.role)] {
            let log = process.as_ref().map(|process| process.log().join("\n"));
            let path = Path::new(&folder).join(format!("{name}.log"));
            std::fs::write(path, log.unwrap_or_default()).unwrap();
        }
    }

    fn finish(self) {
        let state = self.watch.state();
        let gap = Self::healthy()
            .iter()
            .map(|name| state.longest_gap(name))
            .fold(0.0, f64::max);
        let figures = state.figures.clone();
        let (most, wrong) = (state.most, state.wrong.clone());
        drop(state);
        if !wrong.is_empty() {
            self.keep_logs();
        }
        let by_proxy = PROXY_FAULTS.len();
        println!(
            "\n{}",
            self.table
                .text(&figures, most, gap, FAULTS.len() + by_proxy)
        );
        assert!(
            wrong.is_empty(),
            "seed {}, {} minutes (tests/chaos/run {} {}):\n{}\n{}",
            self.seed,
            self.minutes,
            self.minutes,
            self.seed,
            self.line.text,
            wrong.join("\n")
        );
    }
}
