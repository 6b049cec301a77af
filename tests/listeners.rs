//! The bounds of the HTTP listeners, in both roles: smaller versions of the attacks of docs/security.md. What is
//! asserted are states: who is served, refused or closed.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod operated;
mod support;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use operated::{Answer, Daemon, ask, eventually_within, kubeconfig};
use pullpath::serving::bounds::{Limits, connection_limits};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// Longer than any bound on time.
const ENOUGH: Duration = Duration::from_mins(3);

fn limits() -> Limits {
    connection_limits(1024).public
}

/// The daemon, and the cluster role with an API server that does not answer.
fn roles() -> [Daemon; 2] {
    // A thousand connections are open in this process.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let text = "listen: 127.0.0.1:0\nlog: {format: json}\n";
    let run = format!(
        "{text}admin_listen: 127.0.0.1:0\nvantage: {{node: n1}}\nnetwork: {{metadata: off}}\n"
    );
    let folder = Arc::new(TempDir::new().unwrap());
    let kubeconfig = kubeconfig(folder.path(), "http://127.0.0.1:1", &json!({}));
    let cluster = format!(
        "{text}kubernetes: {{kubeconfig: '{}'}}\n",
        kubeconfig.display()
    );
    [
        Daemon::start(&run),
        Daemon::start_as(&["cluster", "--identity", "a"], &cluster, folder),
    ]
}

/// A connection from an address of loopback; its receive buffer is small, so that little is read unasked.
fn connect(to: SocketAddr, from: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, from), 0);
    socket.set_recv_buffer_size(2048).unwrap();
    socket.bind(&SocketAddr::V4(from).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ENOUGH)).unwrap();
    stream
}

fn connections(to: SocketAddr, count: usize, first: &[u8]) -> Vec<TcpStream> {
    let new = |_| {
        let mut stream = connect(to, 1);
        // It may be closed at once.
        let _ = stream.write_all(first);
        stream
    };
    (0..count).map(new).collect()
}

/// What is read until the other side closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn get(to: SocketAddr, from: u8, path: &str) -> String {
    let mut stream = connect(to, from);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    rest(&mut stream)
}

fn open(daemon: &Daemon) -> f64 {
    let name = "pullpath_http_connections{listener=\"public\"}";
    daemon.metrics().value(name).unwrap()
}

fn limited(daemon: &Daemon, listener: &str, reason: &str) -> f64 {
    let name =
        format!("pullpath_http_limited_total{{listener=\"{listener}\",reason=\"{reason}\"}}");
    daemon.metrics().value(&name).unwrap_or(0.0)
}

fn is_served(daemon: &Daemon) {
    // The address of the others, and another one.
    for from in [1, 9] {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = get(daemon.public, from, path);
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn most() -> f64 {
    let limits = limits();
    (limits.waiting.all + limits.answers.all + limits.vital.all) as f64
}

#[test]
fn idle_connections_have_a_bound_and_the_oldest_goes() {
    for daemon in roles() {
        for first in [b"".as_slice(), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            let mut all = connections(daemon.public, 900, first);
            is_served(&daemon);
            assert!(open(&daemon) <= most(), "{}", open(&daemon));
            for stream in &mut all[..700] {
                let answer = rest(stream);
                assert!(
                    answer.is_empty() || answer.starts_with("HTTP/1.1 "),
                    "{answer}"
                );
            }
            is_served(&daemon);
        }
        assert!(limited(&daemon, "public", "evicted") >= 1400.0);
        eventually_within("connections are given up", ENOUGH, || open(&daemon) <= 2.0);
    }
}

#[test]
fn a_head_has_a_time_and_a_size() {
    for daemon in roles() {
        let slow = connections(daemon.public, 300, b"GET / HTTP/1.1\r\nHost: loc");
        let mut slow: Vec<TcpStream> = slow.into_iter().rev().take(20).collect();
        // Each sends a byte a second, as long as it is let.
        let is_closed = |stream: &mut TcpStream| stream.write_all(b"a").is_err();
        eventually_within("all are closed", ENOUGH, || {
            is_served(&daemon);
            std::thread::sleep(Duration::from_secs(1));
            slow.retain_mut(|stream| !is_closed(stream));
            slow.is_empty()
        });
        assert!(limited(&daemon, "public", "slow_request") > 0.0);
        for head in [
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
                "x".repeat(40_000)
            ),
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                "X: y\r\n".repeat(200)
            ),
            format!(
                "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "x".repeat(40_000)
            ),
        ] {
            let mut stream = connect(daemon.public, 1);
            let _ = stream.write_all(head.as_bytes());
            let answer = rest(&mut stream);
            let status = answer.split(' ').nth(1);
            assert!(
                [None, Some("431"), Some("414")].contains(&status),
                "{answer}"
            );
        }
        let mut preface = connect(daemon.public, 1);
        preface
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        assert!(!rest(&mut preface).contains("200 OK"));
        is_served(&daemon);
    }
}

/// Requests whose answers are not read.
const UNREAD: usize = 2000;

#[test]
fn readers_have_a_rate_and_leave_room_for_others() {
    for daemon in roles() {
        let limits = limits();
        for path in ["/", "/metrics"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(UNREAD);
            let connection = || {
                let mut stream = connect(daemon.public, 1);
                stream
                    .set_write_timeout(Some(Duration::from_millis(50)))
                    .unwrap();
                let _ = stream.write_all(request.as_bytes());
                stream
            };
            let all: Vec<TcpStream> = (0..limits.answers.by_peer + 8)
                .map(|_| connection())
                .collect();
            if path == "/" {
                eventually_within("a peer that has all of its places", ENOUGH, || {
                    get(daemon.public, 1, "/").starts_with("HTTP/1.1 503")
                });
                let other = get(daemon.public, 9, "/");
                assert!(other.starts_with("HTTP/1.1 200"), "{other}");
            }
            is_served(&daemon);
            drop(all);
        }
        assert!(limited(&daemon, "public", "refused") > 0.0);
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(UNREAD);
        let mut one = connect(daemon.public, 1);
        one.set_write_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let _ = one.write_all(request.as_bytes());
        eventually_within("the slow reader is closed", ENOUGH, || {
            limited(&daemon, "public", "slow_reader") > 0.0
        });
        rest(&mut one);
    }
}

#[test]
fn a_body_has_a_time_and_a_half_closed_connection_no_place() {
    for daemon in roles() {
        let half: Vec<TcpStream> = connections(daemon.public, 100, b"GET / HT");
        for stream in &half {
            // It may be closed already.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        eventually_within("they are closed", ENOUGH, || open(&daemon) <= 2.0);
        drop(half);
        let (at, path, listener) = if daemon.admin == daemon.public {
            (daemon.public, "/explain", "public")
        } else {
            (daemon.admin, "/-/probe", "admin")
        };
        for (header, body) in [
            ("Content-Length: 1000", ""),
            ("Transfer-Encoding: chunked", "1\r\na\r\n"),
        ] {
            let mut stream = connect(at, 1);
            let kind = "Content-Type: application/x-www-form-urlencoded";
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{header}\r\n\r\n{body}"
            );
            stream.write_all(head.as_bytes()).unwrap();
            assert_eq!(rest(&mut stream), "");
        }
        assert!(limited(&daemon, listener, "slow_request") >= 2.0);
        is_served(&daemon);
    }
}

#[test]
fn without_files_the_process_still_answers() {
    for daemon in roles() {
        let files = || {
            let folder = format!("/proc/{}/fd", daemon.child.id());
            fs::read_dir(folder).unwrap().count()
        };
        // The listener has taken its reserve.
        std::thread::sleep(Duration::from_secs(2));
        is_served(&daemon);
        let idle = connections(daemon.public, 20, b"");
        eventually_within("they are accepted", ENOUGH, || open(&daemon) >= 21.0);
        let pid = daemon.child.id().to_string();
        let limit = format!("--nofile={0}:{0}", files());
        let mut prlimit = Command::new("prlimit");
        let set = prlimit.args(["--pid", &pid, &limit]).status().unwrap();
        assert!(set.success());
        let _more = connections(daemon.public, 50, b"");
        eventually_within("/healthz is answered", ENOUGH, || {
            get(daemon.public, 1, "/healthz").starts_with("HTTP/1.1 200")
        });
        eventually_within("/metrics is answered", ENOUGH, || {
            get(daemon.public, 9, "/metrics").starts_with("HTTP/1.1 200")
        });
        eventually_within("it is counted", ENOUGH, || {
            limited(&daemon, "public", "no_files") > 0.0
        });
        drop(idle);
    }
}

#[test]
fn the_admin_listener_refuses_web_pages_and_names_of_others() {
    let [daemon, _] = roles();
    let status = |headers: &str| {
        let mut stream = connect(daemon.admin, 1);
        let head = format!("GET /-/node HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let answer = rest(&mut stream);
        let is_read = answer.contains("\"node\"");
        let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(is_read, status == 200, "{answer}");
        status
    };
    let port = daemon.admin.port();
    for headers in [
        "Host: localhost\r\n".to_owned(),
        format!("Host: 127.0.0.1:{port}\r\nSec-Fetch-Site: none\r\n"),
        "Host: n1\r\n".to_owned(),
    ] {
        assert_eq!(status(&headers), 200, "{headers}");
    }
    for headers in [
        String::new(),
        format!("Host: evil.example:{port}\r\n"),
        "Host: localhost\r\nHost: evil.example\r\n".to_owned(),
        "Host: localhost\r\nOrigin: null\r\n".to_owned(),
        "Host: localhost\r\nSec-Fetch-Site: same-origin\r\n".to_owned(),
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n".to_owned(),
    ] {
        assert_eq!(status(&headers), 403, "{headers}");
    }
    let reload: Answer = ask(
        daemon.admin,
        "POST",
        "/-/reload",
        "Sec-Fetch-Site: same-site\r\n",
    );
    assert_eq!(reload.status, 403);
    assert_eq!(daemon.order("/-/reload").status, 200);
}

/// Checks that one address has made leave some to another one, while their registry does not answer.
#[test]
fn one_peer_does_not_have_all_checks_on_demand() {
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = registry.local_addr().unwrap().port();
    let targets = (0..6).map(|number| {
        format!(
            "  - {{name: t{number}, image: '127.0.0.1:{port}/a{number}:1', plain_http: true}}\n"
        )
    });
    let daemon = Daemon::start(&format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nlog: {{format: json}}\nnetwork: {{metadata: off}}\nschedule: {{first_check: 1h, timeout: 1m, check_timeout: 5m}}\ntargets:\n{}",
        targets.collect::<String>()
    ));
    let begin = |from, number| {
        let mut stream = connect(daemon.public, from);
        let request = format!("GET /probe?target=t{number} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        // Its check has begun.
        (stream, registry.accept().unwrap())
    };
    let _of_one: Vec<_> = (0..4).map(|number| begin(1, number)).collect();
    let refused = get(daemon.public, 1, "/probe?target=t4");
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    let _of_other = begin(9, 5);
}
