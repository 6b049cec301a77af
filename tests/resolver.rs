//! Real Go programs beside the simulation of a lookup: built without libc and with it, each in a network namespace of
//! its own with the resolv.conf, nsswitch.conf, hosts file and name servers of `tests/resolver/setups.txt`. Result,
//! questions and time must be those of one of the simulated ways.
//!
//! The quick set-ups run with every test; all of them with `RESOLVER_SETUPS=all` (tests/resolver/README.md).

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "this is test code"
)]

mod lab;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lab::netns::Netns;
use pullpath::model::endpoint::Host;
use pullpath::model::resolve::Family;
use pullpath::model::resolver::RuntimeResolver;
use pullpath::net::dns::{self, Families};
use pullpath::net::resolv::{ResolverConfig, ResolverFiles};
use pullpath::resolver::order::Order;
use pullpath::resolver::outlook::{DIAL_LIMIT, Way, ways};
use pullpath::resolver::{Ending, Exchange, Lookup};

#[test]
fn real_go_programs_look_names_up_as_simulated() {
    let is_full = std::env::var("RESOLVER_SETUPS").is_ok_and(|which| which == "all");
    let only = std::env::var("RESOLVER_ONLY").ok();
    let setups: Vec<Setup> = setups(&std::fs::read_to_string("tests/resolver/setups.txt").unwrap())
        .into_iter()
        .filter(|setup| match &only {
            Some(name) => setup.name == *name,
            None => is_full || setup.is_quick,
        })
        .collect();
    let programs = Programs::build();
    let jobs: Vec<(&Setup, bool)> = setups
        .iter()
        .flat_map(|setup| [(setup, false), (setup, true)])
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((setup, cgo)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = setup.judge(&programs, *cgo) {
                        let cgo = u8::from(*cgo);
                        let text = format!("{} CGO_ENABLED={cgo}: {why}", setup.name);
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let (count, release) = (jobs.len(), &programs.release);
    eprintln!("{release}: {} of {count} as simulated", count - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn another_result_time_or_question_is_noticed() {
    let questions = |name: &str| Questions::from([("A", vec![format!("10.53.0.1 {name}")])]);
    let want = Want {
        addresses: Some(vec![IpAddr::V4(Ipv4Addr::new(10, 53, 1, 1))]),
        took: Duration::from_secs(10),
        questions: questions("reg."),
    };
    let (same, other) = (questions("reg."), questions("reg.lan."));
    assert!(want.fits("10.9 FOUND 10.53.1.1:443", Some(&same)));
    assert!(!want.fits("10.9 FOUND 10.53.1.1:443", Some(&other)));
    assert!(!want.fits("5.0 FOUND 10.53.1.1:443", Some(&same)));
    assert!(!want.fits("10.9 FOUND 10.53.1.2:443", Some(&same)));
    assert!(!want.fits("10.9 FAILED no such host", Some(&same)));
}

/// Namespaces at a time: they mostly wait.
const AT_A_TIME: usize = 12;

/// The Go program, without libc and with it.
struct Programs {
    paths: [PathBuf; 2],
    release: String,
    go_1_20: bool,
}

impl Programs {
    fn build() -> Self {
        let go = std::env::var("RESOLVER_GO").unwrap_or_else(|_| "go".to_owned());
        let version = Command::new(&go).arg("version").output();
        let version =
            version.unwrap_or_else(|error| panic!("{go}: {error}; tests/run installs it"));
        let version = String::from_utf8(version.stdout).unwrap();
        let release = version.split(' ').nth(2).unwrap().to_owned();
        let minor = release.split('.').nth(1).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let paths = [0, 1].map(|cgo| {
            let path = folder.join(format!("lookup-{release}-{cgo}"));
            let built = Command::new(&go)
                .args(["build", "-o"])
                .arg(&path)
                .arg("tests/resolver/lookup.go")
                .env("CGO_ENABLED", cgo.to_string())
                .env("GOTOOLCHAIN", "local")
                .env("GOCACHE", folder.join(format!("go-cache-{release}")))
                .status();
            assert!(built.unwrap().success());
            path
        });
        Self {
            paths,
            go_1_20: minor.parse::<u32>().unwrap() >= 20,
            release,
        }
    }
}

/// One set-up.
#[derive(Debug)]
struct Setup {
    name: String,
    is_quick: bool,
    tries: usize,
    host: String,
    resolv_conf: String,
    nsswitch: String,
    hosts: String,
    rules: Vec<Rule>,
}

/// How a server answers.
#[derive(Clone, Debug)]
struct Rule {
    server: u8,
    name: String,
    kind: String,
    answer: String,
    after: Duration,
}

fn setups(text: &str) -> Vec<Setup> {
    let mut setups: Vec<Setup> = Vec::new();
    for line in text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
    {
        let lines = |text: &str| text.replace('|', "\n") + "\n";
        match line.split_once(": ") {
            Some(("r", text)) => setups.last_mut().unwrap().resolv_conf = lines(text),
            Some(("n", text)) => setups.last_mut().unwrap().nsswitch = lines(text),
            Some(("h", text)) => setups.last_mut().unwrap().hosts = lines(text),
            Some(("s", text)) => setups.last_mut().unwrap().rules.push(rule(text)),
            _ => {
                let mut words = line.split(' ');
                let mut setup = Setup {
                    name: words.next().unwrap().to_owned(),
                    is_quick: false,
                    tries: 1,
                    host: "reg.corp.test".to_owned(),
                    resolv_conf: String::new(),
                    nsswitch: "hosts: files dns\n".to_owned(),
                    hosts: String::new(),
                    rules: Vec::new(),
                };
                for word in words {
                    match word.split_once('=') {
                        Some(("tries", count)) => setup.tries = count.parse().unwrap(),
                        Some(("host", host)) => host.clone_into(&mut setup.host),
                        _ => setup.is_quick |= word == "quick",
                    }
                }
                setups.push(setup);
            }
        }
    }
    setups
}

fn rule(text: &str) -> Rule {
    let words: Vec<&str> = text.split(' ').collect();
    let (answer, after) = words[3].split_once('@').unwrap_or((words[3], "0"));
    Rule {
        server: words[0].parse().unwrap(),
        name: words[1].to_owned(),
        kind: words[2].to_owned(),
        answer: answer.to_owned(),
        after: Duration::from_secs(after.parse().unwrap()),
    }
}

/// `10.53.0.1 reg.corp.test.` for A and for AAAA, in the order of arrival.
type Questions = BTreeMap<&'static str, Vec<String>>;

impl Setup {
    fn judge(&self, programs: &Programs, cgo: bool) -> Result<(), String> {
        let netns = Netns::new();
        for address in ["10.53.1.1", "10.53.1.2"] {
            netns.ip(&format!("addr add {address}/32 dev lo"));
        }
        for number in 1..=4 {
            netns.ip(&format!("addr add 10.53.0.{number}/32 dev lo"));
        }
        let folder = Path::new("/etc/netns").join(&netns.name);
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let resolv_conf = file("resolv.conf", &self.resolv_conf);
        let nsswitch = file("nsswitch.conf", &self.nsswitch);
        let hosts = file("hosts", &self.hosts);
        let mut config = ResolverConfig::load(ResolverFiles {
            resolv_conf: &resolv_conf,
            nsswitch: Some(&nsswitch),
            hosts: &hosts,
        })
        .unwrap();
        config.settings.runtime = RuntimeResolver {
            cgo: Some(cgo),
            go_1_20: Some(programs.go_1_20),
            ..RuntimeResolver::default()
        };
        let servers = netns.inside(|| Servers::start(&self.rules));
        let resolve = netns.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let host = Host::new(&self.host);
            runtime.block_on(dns::resolve(
                &host,
                &config,
                &[],
                Families::Both,
                DIAL_LIMIT,
            ))
        });
        let lookup = Lookup {
            host: self.host.clone(),
            settings: &config.settings,
            families: &[Family::V4, Family::V6],
            queries: &resolve.queries,
        };
        let ways = ways(&lookup);
        servers.log.lock().unwrap().clear();
        let mut command = netns.command(programs.paths[usize::from(cgo)].to_str().unwrap());
        let output = command
            .args([&self.host, &self.tries.to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let mut asked = servers.log.lock().unwrap().clone();
        let in_hosts = !config.hosts.lookup(&self.host).is_empty();
        for (number, line) in said.lines().enumerate() {
            let questions = (self.tries == 1).then(|| std::mem::take(&mut asked));
            let is_way = ways.iter().any(|way| {
                let want = Want::of(way, self, in_hosts);
                want.fits(line, questions.as_ref())
            });
            if !is_way {
                let mut text = format!("try {number}: {line}\n  asked: {questions:?}");
                for way in &ways {
                    let want = Want::of(way, self, in_hosts);
                    write!(text, "\n  {:?}: {want:?}", way.order).unwrap();
                }
                return Err(text);
            }
        }
        if said.lines().count() == self.tries {
            return Ok(());
        }
        Err(format!(
            "{said:?} {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// What the program should show.
#[derive(Debug)]
struct Want {
    addresses: Option<Vec<IpAddr>>,
    took: Duration,
    questions: Questions,
}

impl Want {
    fn of(way: &Way<'_>, setup: &Setup, in_hosts: bool) -> Self {
        let nsswitch = &setup.nsswitch;
        let pinned = || Some(vec![IpAddr::V4(Ipv4Addr::new(10, 53, 1, 2))]);
        let files_before_dns = match way.order {
            Order::FilesDns | Order::Files => true,
            Order::DnsFiles | Order::Dns => false,
            Order::Libc => nsswitch.find("files") < nsswitch.find("dns").or(Some(usize::MAX)),
        };
        if in_hosts && files_before_dns {
            return Self {
                addresses: pinned(),
                took: Duration::ZERO,
                questions: Questions::new(),
            };
        }
        let mut questions = Questions::new();
        let mut exchanges: Vec<_> = way.outcome.exchanges.iter().collect();
        exchanges.sort_by_key(|asked| asked.begins);
        // A closed port is seen by nobody.
        let is_served = |server: SocketAddr| {
            let is_one = |rule: &Rule| server.ip() == Ipv4Addr::new(10, 53, 0, rule.server);
            setup.rules.iter().any(is_one)
        };
        let in_time = |asked: &&&Exchange<'_>| asked.begins < DIAL_LIMIT && is_served(asked.server);
        for asked in exchanges.iter().filter(in_time) {
            let line = format!("{} {}", asked.server.ip(), asked.name);
            questions
                .entry(asked.family.record())
                .or_default()
                .push(line);
        }
        let found = match &way.outcome.ending {
            Ending::Found { answers, .. } if way.outcome.took < DIAL_LIMIT => {
                let records = answers.iter().flat_map(|(_, answer)| &answer.records);
                Some(records.map(|record| record.address).collect())
            }
            Ending::Failed(_) if in_hosts && way.order == Order::DnsFiles => pinned(),
            _ => None,
        };
        Self {
            addresses: found,
            took: way.outcome.took.min(DIAL_LIMIT),
            questions,
        }
    }

    fn fits(&self, line: &str, questions: Option<&Questions>) -> bool {
        let (seconds, rest) = line.split_once(' ').unwrap();
        let is_result = match (&self.addresses, rest.split_once(' ').unwrap()) {
            (Some(addresses), ("FOUND", at)) => {
                addresses.contains(&at.parse::<SocketAddr>().unwrap().ip())
            }
            (None, ("FAILED", _)) => true,
            _ => false,
        };
        let want = self.took.as_secs_f64();
        let seconds: f64 = seconds.parse().unwrap();
        let is_in_time = (seconds - want).abs() <= f64::max(want * 0.2, 0.7);
        let is_asked = questions.is_none_or(|asked| *asked == self.questions);
        is_result && is_in_time && is_asked
    }
}

/// Name servers on UDP and TCP that answer by rules, as long as this value lives.
struct Servers {
    log: Arc<Mutex<Questions>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Servers {
    /// Starts them, and what listens at the addresses that they give.
    fn start(rules: &[Rule]) -> Self {
        let servers = Self {
            log: Arc::default(),
            stop: Arc::default(),
        };
        for address in ["10.53.1.1:443", "10.53.1.2:443"] {
            servers.listen(TcpListener::bind(address).unwrap(), |_| ());
        }
        let mut by_server: BTreeMap<u8, Vec<Rule>> = BTreeMap::new();
        for rule in rules {
            by_server.entry(rule.server).or_default().push(rule.clone());
        }
        for (number, rules) in by_server {
            let server = Server {
                address: Ipv4Addr::new(10, 53, 0, number),
                rules,
                log: Arc::clone(&servers.log),
            };
            let socket = UdpSocket::bind((server.address, 53)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            let (stop, of_udp) = (Arc::clone(&servers.stop), server.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut packet = [0; 1500];
                    let Ok((length, from)) = socket.recv_from(&mut packet) else {
                        continue;
                    };
                    if let Some((reply, after)) = of_udp.answer(&packet[..length]) {
                        let socket = socket.try_clone().unwrap();
                        thread::spawn(move || {
                            thread::sleep(after);
                            let _ = socket.send_to(&reply, from);
                        });
                    }
                }
            });
            let listener = TcpListener::bind((server.address, 53)).unwrap();
            servers.listen(listener, move |mut stream| {
                let mut length = [0; 2];
                // Both questions may come over one connection.
                while stream.read_exact(&mut length).is_ok() {
                    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut packet).unwrap();
                    if let Some((reply, after)) = server.answer(&packet) {
                        thread::sleep(after);
                        let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                        let _ = stream.write_all(&[&length[..], &reply].concat());
                    }
                }
            });
        }
        servers
    }

    fn listen(
        &self,
        listener: TcpListener,
        work: impl Fn(std::net::TcpStream) + Clone + Send + 'static,
    ) {
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::clone(&self.stop);
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        stream
                            .set_read_timeout(Some(Duration::from_secs(40)))
                            .unwrap();
                        let work = work.clone();
                        thread::spawn(move || work(stream));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
    }
}

#[derive(Clone)]
struct Server {
    address: Ipv4Addr,
    rules: Vec<Rule>,
    log: Arc<Mutex<Questions>>,
}

impl Server {
    /// The reply to a question (RFC 1035, 4.1) and its delay; `None`: silence.
    fn answer(&self, packet: &[u8]) -> Option<(Vec<u8>, Duration)> {
        let (mut at, mut name) = (12, String::new());
        while packet[at] != 0 {
            let end = at + 1 + usize::from(packet[at]);
            name += &String::from_utf8_lossy(&packet[at + 1..end]).to_ascii_lowercase();
            name.push('.');
            at = end;
        }
        let question = &packet[12..at + 5];
        let kind = match packet[at + 2] {
            1 => "A",
            28 => "AAAA",
            other => panic!("a question of type {other}"),
        };
        let line = format!("{} {name}", self.address);
        self.log.lock().unwrap().entry(kind).or_default().push(line);
        let name = name.trim_end_matches('.');
        let is_of = |rule: &&Rule| match rule.name.strip_prefix('*') {
            Some(suffix) => name.ends_with(suffix),
            None => rule.name == name,
        };
        let mut of_name = self.rules.iter().filter(is_of).peekable();
        let is_known = of_name.peek().is_some();
        let rule = of_name.find(|rule| rule.kind == "*" || rule.kind == kind);
        let answer = match rule {
            Some(rule) => rule.answer.as_str(),
            None if is_known => "NODATA",
            None => "NXDOMAIN",
        };
        let after = rule.map_or(Duration::ZERO, |rule| rule.after);
        let (code, address) = match answer {
            "DROP" => return None,
            "NODATA" => (0, None),
            "FORMERR" => (1, None),
            "SERVFAIL" => (2, None),
            "NXDOMAIN" => (3, None),
            "NOTIMP" => (4, None),
            "REFUSED" => (5, None),
            address => (0, Some(address.parse::<Ipv4Addr>().unwrap())),
        };
        let mut reply = packet[..2].to_vec();
        let count = u8::from(address.is_some());
        reply.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        reply.extend(question);
        if let Some(address) = address {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(address.octets());
        }
        Some((reply, after))
    }
}
