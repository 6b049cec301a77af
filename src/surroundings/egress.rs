//! The address that our packets come from, as other hosts see it. Only hosts that the operator named
//! are asked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes as Body;
use http::Request;
use serde_json::Value;
use tokio::task::JoinSet;

use super::Means;
use crate::config::{EchoUrl, Egress, HostPort};
use crate::model::endpoint::Host;
use crate::model::evidence::{Family, Step};
use crate::model::network::{EgressMethod, EgressSeen, EgressTrial};
use crate::model::stun::{Mapping, StunFault};
use crate::model::units::Bytes;
use crate::net::http::HttpConnection;
use crate::net::stream::Stream;
use crate::net::{dns, stun, tcp};

/// An answer is one address, or a small page of JSON.
const MAX_ANSWER: Bytes = Bytes(16 << 10);

/// Asks all of them at the same time: each of both families, where it has them.
pub(super) async fn ask(egress: &Egress, means: &Arc<Means>) -> Vec<EgressTrial> {
    let mut tasks = JoinSet::new();
    for server in &egress.stun {
        for (turn, method) in turns(
            egress.samples.0,
            EgressMethod::StunUdp,
            EgressMethod::StunTcp,
        ) {
            let (server, means) = (server.0.clone(), Arc::clone(means));
            tasks.spawn(async move { (turn, by_stun(&server, method, &means).await) });
        }
    }
    for url in &egress.echo {
        for turn in 0..egress.samples.0 {
            let (url, means) = (url.clone(), Arc::clone(means));
            tasks.spawn(async move { (turn, by_echo(&url, &means).await) });
        }
    }
    let mut trials = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        if let Ok((turn, found)) = joined {
            trials.extend(found.into_iter().map(|trial| (turn, trial)));
        }
    }
    trials.sort_by(|(a, one), (b, other)| {
        let key = |trial: &EgressTrial| (trial.server.clone(), trial.method.as_str());
        (key(one), a).cmp(&(key(other), b))
    });
    trials.into_iter().map(|(_, trial)| trial).collect()
}

/// One question over UDP, whose answer may be another than that over TCP, and the samples over TCP,
/// which is what a pull uses.
fn turns(
    samples: u8,
    once: EgressMethod,
    often: EgressMethod,
) -> impl Iterator<Item = (u8, EgressMethod)> {
    std::iter::once((0, once)).chain((0..samples).map(move |turn| (turn, often)))
}

/// The first address of each family; or why there is none.
async fn addresses(host: &Host, means: &Means) -> Result<Vec<IpAddr>, String> {
    let resolve = dns::resolve(host, &means.resolver, &[], means.families, means.wait).await;
    let Some(found) = resolve.outcome.done() else {
        let fault = resolve.outcome.fault().map(ToString::to_string);
        return Err(fault.unwrap_or_else(|| "not resolved".to_owned()));
    };
    let first = |family| {
        let mut all = found.addresses.iter().copied();
        all.find(|a| Family::of(*a) == family)
    };
    Ok([Family::V4, Family::V6]
        .into_iter()
        .filter_map(first)
        .collect())
}

async fn by_stun(server: &HostPort, method: EgressMethod, means: &Means) -> Vec<EgressTrial> {
    let start = Instant::now();
    let trial = |outcome| EgressTrial {
        method,
        server: server.to_string(),
        outcome,
    };
    let addresses = match addresses(&Host::new(&server.host), means).await {
        Ok(addresses) => addresses,
        Err(fault) => {
            let took = start.elapsed();
            return vec![trial(Step::Failed { fault, took })];
        }
    };
    let mut trials = Vec::new();
    for address in addresses {
        let to = SocketAddr::new(address, server.port);
        let step = match method {
            EgressMethod::StunTcp => stun::binding_tcp(to, means.wait).await,
            _ => stun::binding_udp(to, means.wait).await,
        };
        trials.push(trial(seen(step)));
    }
    trials
}

fn seen(step: Step<Mapping, StunFault>) -> Step<EgressSeen, String> {
    match step {
        Step::Done { value, took } => Step::Done {
            value: EgressSeen {
                address: value.mapped.ip().to_canonical(),
                port: Some(value.mapped.port()),
                local: Some(value.local),
            },
            took,
        },
        Step::Failed { fault, took } => Step::Failed {
            fault: fault.to_string(),
            took,
        },
        Step::Skipped { reason } => Step::Skipped { reason },
    }
}

async fn by_echo(url: &EchoUrl, means: &Means) -> Vec<EgressTrial> {
    let start = Instant::now();
    let host = Host::new(url.0.host_str().unwrap_or_default());
    let server = HostPort {
        host: host.to_string(),
        port: url.0.port_or_known_default().unwrap_or(443),
    };
    let trial = |outcome| EgressTrial {
        method: EgressMethod::HttpEcho,
        server: server.to_string(),
        outcome,
    };
    let addresses = match addresses(&host, means).await {
        Ok(addresses) => addresses,
        Err(fault) => {
            let took = start.elapsed();
            return vec![trial(Step::Failed { fault, took })];
        }
    };
    let mut trials = Vec::new();
    for address in addresses {
        let start = Instant::now();
        let result = echo_at(url, &host, SocketAddr::new(address, server.port), means).await;
        trials.push(trial(Step::from_result(result, start.elapsed())));
    }
    trials
}

async fn echo_at(
    url: &EchoUrl,
    host: &Host,
    to: SocketAddr,
    means: &Means,
) -> Result<EgressSeen, String> {
    let dialed = tcp::connect(&[to.ip()], to.port(), means.wait).await;
    let Some(stream) = dialed.stream else {
        let fault = dialed.connect.outcome.fault().map(ToString::to_string);
        return Err(fault.unwrap_or_else(|| "no connection".to_owned()));
    };
    let local = stream.local_addr().ok();
    let stream = if url.0.scheme() == "https" {
        let secured = means.tls.handshake(host, stream, means.wait).await;
        let Some(stream) = secured.stream else {
            let fault = secured.tls.outcome.fault().map(ToString::to_string);
            return Err(fault.unwrap_or_else(|| "no TLS".to_owned()));
        };
        Stream::Tls(Box::new(stream))
    } else {
        Stream::Plain(stream)
    };
    let words = |fault: crate::model::fault::HttpFault| fault.to_string();
    let mut connection = HttpConnection::open(stream).await.map_err(words)?;
    let mut request = Request::new(Body::new());
    *request.uri_mut() = url.0.as_str().parse().map_err(|_| "not a URL".to_owned())?;
    let response = connection.send(request, means.wait).await.map_err(words)?;
    let status = response.status.as_u16();
    let body = response.read(MAX_ANSWER, means.wait).await.map_err(words)?;
    if status != 200 {
        return Err(format!("HTTP {status}"));
    }
    let (address, port) = read_echo(&String::from_utf8_lossy(&body))
        .ok_or_else(|| "the answer holds no address".to_owned())?;
    Ok(EgressSeen {
        address,
        port,
        local,
    })
}

/// The address in an answer: alone, with a port behind a colon or a blank, or in one of the fields
/// that such servers have.
fn read_echo(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_canonical(), None));
    }
    if let Ok(both) = text.parse::<SocketAddr>() {
        return Some((both.ip().to_canonical(), Some(both.port())));
    }
    if let Some((address, port)) = text.split_once(' ')
        && let (Ok(address), Ok(port)) = (address.parse::<IpAddr>(), port.parse())
    {
        return Some((address.to_canonical(), Some(port)));
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let address = ["ip", "address", "origin", "query", "ip_addr"]
        .iter()
        .find_map(|field| value.get(field)?.as_str()?.parse::<IpAddr>().ok())?;
    let port = value
        .get("port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok());
    Some((address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_read_in_the_forms_that_servers_have() {
        for (text, want) in [
            ("121.36.1.2\n", Some(("121.36.1.2", None))),
            ("121.36.1.2:40000", Some(("121.36.1.2", Some(40000)))),
            ("121.36.1.2 40000\n", Some(("121.36.1.2", Some(40000)))),
            ("::ffff:121.36.1.2", Some(("121.36.1.2", None))),
            (r#"{"ip": "2600:1f18::1"}"#, Some(("2600:1f18::1", None))),
            (
                r#"{"origin": "121.36.1.2", "port": 7}"#,
                Some(("121.36.1.2", Some(7))),
            ),
            ("<html>121.36.1.2</html>", None),
            (r#"{"ip": 7}"#, None),
            ("", None),
        ] {
            let want = want.map(|(a, p): (&str, Option<u16>)| (a.parse().unwrap(), p));
            assert_eq!(read_echo(text), want, "{text}");
        }
    }
}
