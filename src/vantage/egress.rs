//! Observes the source address that other hosts see. Requests are sent only to the HTTP echos in the configuration.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use super::clients::NetworkClients;
use crate::config::{EchoUrl, Egress};
use crate::model::endpoint::Host;
use crate::model::network::{EgressMethod, EgressTrial, ObservedEgress};
use crate::model::resolve::Family;
use crate::model::step::Step;
use crate::model::units::Bytes;
use crate::net::api::{ApiClient, ApiFault};

/// Upper bound of an answer: it is one address, or a small JSON document.
const MAX_ANSWER: Bytes = Bytes(16 << 10);

/// Sends requests to all echos at the same time, each over a new connection, and over both address families if the host
/// has both.
pub(super) async fn ask(egress: &Egress, means: &NetworkClients) -> Vec<EgressTrial> {
    let samples = egress
        .echo
        .iter()
        .flat_map(|url| (0..egress.samples.0).map(move |_| by_echo(url, means)));
    join_all(samples).await.into_iter().flatten().collect()
}

/// The first address of each family.
///
/// # Errors
/// If the host does not resolve.
async fn addresses(host: &Host, means: &NetworkClients) -> Result<Vec<IpAddr>, String> {
    let found = means.resolve(host).await?;
    let first = |family| found.iter().copied().find(|a| Family::of(*a) == family);
    Ok([Family::V4, Family::V6]
        .into_iter()
        .filter_map(first)
        .collect())
}

async fn by_echo(url: &EchoUrl, means: &NetworkClients) -> Vec<EgressTrial> {
    let start = Instant::now();
    let host = Host::new(url.0.host_str().unwrap_or_default());
    let port = url.0.port_or_known_default().unwrap_or(443);
    let trial = |outcome| EgressTrial {
        method: EgressMethod::HttpEcho,
        server: format!("{host}:{port}"),
        outcome,
    };
    let addresses = match addresses(&host, means).await {
        Ok(addresses) => addresses,
        Err(fault) => {
            let took = start.elapsed();
            return vec![trial(Step::failed(fault, took))];
        }
    };
    let mut trials = Vec::new();
    for address in addresses {
        let start = Instant::now();
        let result = echo_at(url, &host, address, means).await;
        trials.push(trial(Step::from_result(result, start.elapsed())));
    }
    trials
}

async fn echo_at(
    url: &EchoUrl,
    host: &Host,
    at: IpAddr,
    means: &NetworkClients,
) -> Result<ObservedEgress, String> {
    let words = |fault: ApiFault| fault.to_string();
    // A new client, so that the connection is new.
    let client = ApiClient::new(host, at, &means.tls, means.wait).map_err(words)?;
    let limit = means.wait * 2;
    let sent = client.send(
        Method::GET,
        url.0.as_str(),
        HeaderMap::new(),
        limit,
        MAX_ANSWER,
    );
    let answer = sent.await.map_err(words)?;
    if answer.status != StatusCode::OK {
        return Err(format!("HTTP {}", answer.status.as_u16()));
    }
    let (address, port) = read_echo(&String::from_utf8_lossy(&answer.body))
        .ok_or_else(|| "the answer contains no IP address".to_owned())?;
    Ok(ObservedEgress {
        address,
        port,
        local: answer.local,
    })
}

/// The address in an answer: alone, with a port after a colon or a blank, or in one of the JSON fields that echo
/// servers use. `None`: there is none.
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
    let port = match value.get("port") {
        Some(Value::String(port)) => port.parse().ok(),
        port => port.and_then(|port| port.as_u64()?.try_into().ok()),
    };
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
            (
                r#"{"ip_addr": "121.36.1.2", "port": "40000"}"#,
                Some(("121.36.1.2", Some(40000))),
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
