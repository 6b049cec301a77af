//! A forward proxy that knows `CONNECT` only (RFC 9110, 9.3.6) and resolves by our own zone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::dns::Dns;

/// The proxy; it stops when dropped.
pub struct Proxy {
    pub addr: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(dns: &Dns) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let targets = Arc::<Mutex<Vec<String>>>::default();
        let task = {
            let targets = targets.clone();
            let resolve = Arc::new(dns.resolver());
            tokio::spawn(async move {
                let mut tunnels = JoinSet::new();
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        continue;
                    };
                    while tunnels.try_join_next().is_some() {}
                    tunnels.spawn(tunnel(stream, resolve.clone(), targets.clone()));
                }
            })
        };
        Self {
            addr,
            targets,
            task,
        }
    }

    /// The `host:port` of each tunnel asked for.
    pub fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One tunnel, from its request to its end; an error of either side ends it.
async fn tunnel(
    client: TcpStream,
    resolve: Arc<impl Fn(&str) -> Option<IpAddr>>,
    targets: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        let length = client.read_line(&mut line).await?;
        if length <= 2 {
            break;
        }
        head.push(line);
    }
    let request = head.first().cloned().unwrap_or_default();
    let mut words = request.split(' ');
    let (Some("CONNECT"), Some(target)) = (words.next(), words.next()) else {
        return client
            .write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            .await;
    };
    targets.lock().unwrap().push(target.to_owned());
    let address = target
        .rsplit_once(':')
        .and_then(|(host, port)| Some(SocketAddr::new(resolve(host)?, port.parse().ok()?)));
    let server = match address {
        Some(address) => TcpStream::connect(address).await.ok(),
        None => None,
    };
    let Some(mut server) = server else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    };
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
