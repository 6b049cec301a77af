//! What the fuzz target `http_request` does: bytes of a client for each listener of both roles, over a real connection.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener as StdListener, TcpStream};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use pullpath::cluster::serve::App as ClusterApp;
use pullpath::cluster::state::{ClusterState, Role, Shared};
use pullpath::daemon::http::serve::App;
use pullpath::daemon::on_demand::Refused as NotProbed;
use pullpath::daemon::runner::command::{Command, Refused};
use pullpath::daemon::store::targets::TargetStore;
use pullpath::model::vantage::NetworkView;
use pullpath::pulls::tally::Tally;
use pullpath::serving::listener::{Listeners, start};
use pullpath::serving::reload::Reload;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longer than any bound of the listener for a client that has closed its side.
const WAIT: Duration = Duration::from_mins(1);

/// One byte for the listener; then what the client sends before it closes its side.
pub(crate) fn http_request(data: &[u8]) {
    let (choice, data) = data.split_at(data.len().min(1));
    let of = choice.first().map_or(0, |b| usize::from(*b));
    let addresses = addresses();
    let address = addresses[of % addresses.len()];
    let answer = ask(address, data, true);
    if !answer.is_empty() {
        let head = String::from_utf8_lossy(&answer[..answer.len().min(64)]).into_owned();
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .or(head.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
        let status = status.unwrap_or_else(|| panic!("no answer of HTTP: {head}"));
        assert!((100..600).contains(&status) && status != 500, "{head}");
    }
    assert!(
        !HAS_PANICKED.load(Ordering::SeqCst),
        "a handler has panicked"
    );
    // Whatever one client sends, the next one is answered.
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let health = ask(address, request, false);
    assert!(
        health.starts_with(b"HTTP/1.1 200 OK\r\n"),
        "{}",
        health.escape_ascii()
    );
}

/// Everything that the server answers. It may close the connection before it has read everything. `is_last`: nothing
/// follows the request; a client that wants an answer does not say so.
fn ask(address: SocketAddr, request: &[u8], is_last: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the listener accepts");
    stream.set_read_timeout(Some(WAIT)).expect("a timeout");
    stream.set_write_timeout(Some(WAIT)).expect("a timeout");
    let _ = stream.write_all(request);
    if is_last {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let is_late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(
            !is_late,
            "the connection stays open: {}",
            request.escape_ascii()
        );
    }
    answer
}

static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// The public and the admin listener of the daemon, and the listener of the cluster role. They serve until the
/// program ends.
fn addresses() -> &'static [SocketAddr; 3] {
    static ADDRESSES: OnceLock<[SocketAddr; 3]> = OnceLock::new();
    ADDRESSES.get_or_init(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            if thread.name().is_some_and(|name| name == "serving") {
                HAS_PANICKED.store(true, Ordering::SeqCst);
            }
            before(info);
        }));
        serve()
    })
}

fn serve() -> [SocketAddr; 3] {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    let listener = || {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        (
            TcpListener::from_std(listener).expect("a listener"),
            address,
        )
    };
    let [(public, a), (admin, b), (cluster, c)] = [(); 3].map(|()| listener());
    let stop = CancellationToken::new();
    let (commands, received) = mpsc::channel(16);
    std::thread::spawn(move || answer(received));
    let began = Timestamp::from_second(1_700_000_000).expect("a time");
    let store = TargetStore::new("node-a", NetworkView::Node, began);
    let listeners = Listeners::of_process();
    let names = vec!["node-a".to_owned()];
    let store = Arc::new(RwLock::new(store));
    let app = App::new(store, commands, stop.clone(), listeners.clone(), names);
    let state = Shared::new(ClusterState {
        identity: "pullpath-cluster-1".to_owned(),
        lease: "pullpath/pullpath-cluster".to_owned(),
        role: Role::Active { since: began },
        events: None,
        tally: Tally::default(),
        lint: None,
        reload: Reload::begin(began),
    });
    let of_cluster = Listeners::of_process().public;
    let cluster_app = ClusterApp::new(
        state,
        CancellationToken::new(),
        stop.clone(),
        Arc::clone(&of_cluster),
    );
    let served = vec![
        (public, app.public(), listeners.public),
        (admin, app.admin(), listeners.admin),
        (cluster, cluster_app.public(), of_cluster),
    ];
    let ended = start(served, stop).expect("a thread");
    drop(ended);
    [a, b, c]
}

/// The runner, which makes no check here.
fn answer(mut received: mpsc::Receiver<Command>) {
    while let Some(command) = received.blocking_recv() {
        match command {
            Command::Reload(done) => drop(done.send(Ok(()))),
            Command::Check { done, .. } => drop(done.send(Err(Refused::NoSuchTarget))),
            Command::Probe { done, .. } => drop(done.send(Err(NotProbed::Busy))),
            Command::Known { done, .. } => drop(done.send(Ok(None))),
        }
    }
}
