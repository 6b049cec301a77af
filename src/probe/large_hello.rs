//! Tests whether a ClientHello of two packets is answered too. containerd's fits into one packet today; clients that
//! offer a post-quantum share send two, which some filters drop.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::io::AsyncWriteExt as _;

use super::network::ProbeNetwork;
use crate::model::connect::Session;
use crate::model::endpoint::Host;
use crate::model::evidence::{Evidence, LargeHello, Leg};
use crate::model::fault::TlsFault;
use crate::model::step::Step;
use crate::net::tcp;
use crate::net::tls::TlsClient;
use crate::own;

/// Whether the trial is meaningful for a leg: its connection leads to the server itself, and its handshake has
/// succeeded.
pub fn applies(leg: &Leg) -> bool {
    address(leg).is_some()
}

fn address(leg: &Leg) -> Option<SocketAddr> {
    // A proxy may divide the data into other packets.
    let is_direct = leg.proxy_route.proxy().is_none();
    leg.tls.outcome.done().filter(|_| is_direct)?;
    leg.connect.outcome.done().map(|connected| connected.to)
}

/// Which further handshakes use the large hello: servers that take turns behind the address, one of them dead, would
/// lose and answer others than these.
const AGAIN: [bool; LargeHello::MOST_HANDSHAKES as usize - 2] = [false, true, true];

/// How long an answer to one of these may take, at least.
const SHORTEST: Duration = Duration::from_secs(3);

/// Tests each leg, all at the same time.
pub async fn add(evidence: &mut Evidence, probe_network: &ProbeNetwork) {
    let legs = &mut evidence.walk.legs;
    let trials = join_all(legs.iter().map(|leg| trial(leg, probe_network))).await;
    for (leg, trial) in legs.iter_mut().zip(trials) {
        leg.large_hello = trial;
    }
}

/// One more handshake, with a large hello; if that is not answered, another with the normal hello; and if that is,
/// some more of both, until the size does not explain one. Each connection is closed at once. `None`: the trial does not apply, or no connection could be opened.
pub async fn trial(leg: &Leg, probe_network: &ProbeNetwork) -> Option<LargeHello> {
    let to = address(leg)?;
    let host = &leg.endpoint.host;
    let wait = probe_network.wait;
    let usual = TlsClient::for_trials();
    let client = usual.clone().with_large_hello();
    let mut trial = LargeHello {
        at: Timestamp::now(),
        to,
        bytes: client.hello_size(host)?,
        large: handshake(&client, host, to, wait).await?,
        short: None,
        in_a_row: 0,
    };
    if trial.is_unanswered() {
        trial.short = handshake(&usual, host, to, wait).await;
    }
    let usual_time = trial
        .short
        .as_ref()
        .and_then(Step::took)
        .unwrap_or_default();
    let limit = wait.min(SHORTEST.max(usual_time * 8));
    for is_large in AGAIN {
        if !trial.is_dropped() {
            break;
        }
        if is_large {
            trial.large = handshake(&client, host, to, limit).await?;
        } else {
            trial.short = handshake(&usual, host, to, limit).await;
        }
    }
    trial.in_a_row = u32::from(trial.is_dropped());
    Some(trial)
}

async fn handshake(
    client: &TlsClient,
    host: &Host,
    to: SocketAddr,
    wait: Duration,
) -> Option<Step<Session, TlsFault>> {
    let dialed = tcp::connect(&[to.ip()], to.port(), wait).await;
    let secured = client.handshake(host, dialed.stream?, wait).await;
    if let Some(mut stream) = secured.stream {
        let _ = own::within(wait, stream.shutdown()).await;
    }
    Some(secured.tls.outcome)
}
