//! A forward proxy that knows `CONNECT` only (RFC 9110, 9.3.6) or SOCKS5 only (RFC 1928, 1929), and resolves by our
//! own zone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
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
        Self::of_kind(dns, Kind::Connect { limit: None }).await
    }

    /// Closes a tunnel that has carried this many bytes to the client.
    pub async fn cutting(dns: &Dns, limit: u64) -> Self {
        Self::of_kind(dns, Kind::Connect { limit: Some(limit) }).await
    }

    /// Speaks SOCKS5, with this user and password if there is one, and refuses these hosts by its rules.
    pub async fn socks(dns: &Dns, login: Option<(&str, &str)>, refuses: &[&str]) -> Self {
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let refuses = refuses.iter().map(|&host| host.to_owned()).collect();
        Self::of_kind(dns, Kind::Socks { login, refuses }).await
    }

    async fn of_kind(dns: &Dns, kind: Kind) -> Self {
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
                    let (kind, resolve, targets) = (kind.clone(), resolve.clone(), targets.clone());
                    tunnels.spawn(async move {
                        match kind {
                            Kind::Connect { limit } => {
                                tunnel(stream, limit, resolve, targets).await
                            }
                            Kind::Socks { login, refuses } => {
                                socks(stream, login, &refuses, resolve, targets).await
                            }
                        }
                    });
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

#[derive(Clone)]
enum Kind {
    Connect {
        limit: Option<u64>,
    },
    Socks {
        login: Option<(String, String)>,
        refuses: Vec<String>,
    },
}

/// One connection by SOCKS5. Only names are taken, since Go leaves resolving to the proxy.
async fn socks(
    mut client: TcpStream,
    login: Option<(String, String)>,
    refuses: &[String],
    resolve: Arc<impl Fn(&str) -> Option<IpAddr>>,
    targets: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let broken = || std::io::Error::other("not SOCKS5");
    if client.read_u8().await? != 5 {
        return Err(broken());
    }
    let mut methods = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut methods).await?;
    let method = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return client.write_all(&[5, 255]).await;
    }
    client.write_all(&[5, method]).await?;
    if let Some((user, password)) = login {
        let version = client.read_u8().await?;
        let mut got = Vec::new();
        for _ in 0..2 {
            let mut text = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut text).await?;
            got.push(text);
        }
        let is_right = version == 1 && got == [user.into_bytes(), password.into_bytes()];
        client.write_all(&[1, u8::from(!is_right)]).await?;
        if !is_right {
            return Ok(());
        }
    }
    let mut head = [0; 5];
    client.read_exact(&mut head).await?;
    let [5, 1, 0, 3, length] = head else {
        return Err(broken());
    };
    let mut host = vec![0; usize::from(length)];
    client.read_exact(&mut host).await?;
    let (host, port) = (String::from_utf8(host).unwrap(), client.read_u16().await?);
    targets.lock().unwrap().push(format!("{host}:{port}"));
    let is_allowed = !refuses.contains(&host);
    let address = resolve(&host).filter(|_| is_allowed);
    let server = match address {
        Some(address) => TcpStream::connect((address, port)).await.ok(),
        None => None,
    };
    let Some(mut server) = server else {
        let reply = if is_allowed { 4 } else { 2 };
        return client.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    };
    // Its own address as a name: every kind of address is allowed.
    client
        .write_all(b"\x05\x00\x00\x03\x05proxy\x00\x01")
        .await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// One tunnel, from its request to its end; an error of either side ends it.
async fn tunnel(
    client: TcpStream,
    limit: Option<u64>,
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
    let Some(limit) = limit else {
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    };
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (from_server, mut to_server) = server.split();
    let mut limited = from_server.take(limit);
    tokio::select! {
        copied = tokio::io::copy(&mut limited, &mut to_client) => drop(copied?),
        copied = tokio::io::copy(&mut from_client, &mut to_server) => drop(copied?),
    }
    to_client.shutdown().await
}
