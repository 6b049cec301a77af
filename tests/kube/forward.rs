//! What a kubelet is needed for, beside a real API server: port-forward. It stands before the API server
//! and hands everything on to it; a port-forward it lets the API server judge (who may, and of which pod),
//! and then carries it itself, in the protocol that kubelets speak over WebSocket (`v4.channel.k8s.io`:
//! each message begins with its channel, two channels for each port, data and errors, each of which
//! begins with the port).

#![allow(dead_code, reason = "each test uses a part")]
#![allow(unreachable_pub, reason = "shared by tests, which are no libraries")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::kube::Cluster;

/// Who is behind the port of a pod.
#[derive(Clone, Copy, Debug)]
pub enum Behind {
    Daemon(SocketAddr),
    /// Nothing listens.
    NoListener,
    /// Somebody who never answers.
    Mute,
}

/// Ends with the runtime.
pub struct Forwarder {
    address: SocketAddr,
    behind: Arc<Mutex<BTreeMap<String, Behind>>>,
    /// Port-forwards that were let in, by pod.
    pub made: Arc<Mutex<Vec<String>>>,
}

impl Forwarder {
    pub async fn start(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forwarder = Self {
            address: listener.local_addr().unwrap(),
            behind: Arc::default(),
            made: Arc::default(),
        };
        let server = Server {
            api: cluster.url().trim_start_matches("https://").to_owned(),
            tls: trusting(&cluster.folder().join("server/apiserver.crt")),
            behind: Arc::clone(&forwarder.behind),
            made: Arc::clone(&forwarder.made),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        forwarder
    }

    pub fn pod(&self, name: &str, behind: Behind) {
        self.behind.lock().unwrap().insert(name.to_owned(), behind);
    }

    /// A kubeconfig of a user, by way of this.
    pub fn kubeconfig(&self, cluster: &Cluster, user: &str) -> PathBuf {
        let own = std::fs::read_to_string(cluster.kubeconfig(user)).unwrap();
        let text = own.replace(&cluster.url(), &format!("http://{}", self.address));
        let path = cluster
            .folder()
            .join(format!("{user}.forwarded.kubeconfig"));
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn trusting(path: &std::path::Path) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).unwrap() {
        let _ = roots.add(certificate.unwrap());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[derive(Clone)]
struct Server {
    api: String,
    tls: TlsConnector,
    behind: Arc<Mutex<BTreeMap<String, Behind>>>,
    made: Arc<Mutex<Vec<String>>>,
}

/// The head of a request, and what came behind it.
struct Head {
    lines: Vec<String>,
    rest: Vec<u8>,
}

impl Head {
    fn value(&self, name: &str) -> Option<&str> {
        self.lines.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// One request for each connection, and no upgrade.
    fn plain(&self) -> String {
        let dropped = ["connection", "upgrade", "sec-websocket"];
        let kept = self.lines.iter().filter(|line| {
            let line = line.to_ascii_lowercase();
            !dropped.iter().any(|name| line.starts_with(name))
        });
        let kept: Vec<&str> = kept.map(String::as_str).collect();
        format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n"))
    }
}

async fn head(stream: &mut TcpStream) -> Option<Head> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        let read = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        assert!(bytes.len() < 64 << 10, "a head without an end");
    };
    let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
    Some(Head {
        lines: text.split("\r\n").map(ToOwned::to_owned).collect(),
        rest: bytes[end + 4..].to_vec(),
    })
}

impl Server {
    async fn serve(&self, mut stream: TcpStream) {
        let Some(head) = head(&mut stream).await else {
            return;
        };
        let path = head.lines[0].split(' ').nth(1).unwrap().to_owned();
        let is_forward = path.split('?').next().unwrap().ends_with("/portforward");
        let mut api = self.api().await;
        api.write_all(head.plain().as_bytes()).await.unwrap();
        api.write_all(&head.rest).await.unwrap();
        if !is_forward {
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut api).await;
            return;
        }
        // It would speak to a kubelet next, and there is none.
        let mut answer = Vec::new();
        let _ = api.read_to_end(&mut answer).await;
        let status = String::from_utf8_lossy(&answer);
        let status = status.split(' ').nth(1).unwrap_or_default().to_owned();
        if ["401", "403", "404"].contains(&status.as_str()) {
            let _ = stream.write_all(&answer).await;
            return;
        }
        let pod = path.split('/').rev().nth(1).unwrap().to_owned();
        let port: u16 = path.rsplit("ports=").next().unwrap().parse().unwrap();
        self.made.lock().unwrap().push(pod.clone());
        let behind = self.behind.lock().unwrap().get(&pod).copied();
        carry(stream, &head, port, behind.unwrap_or(Behind::NoListener)).await;
    }

    async fn api(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let stream = TcpStream::connect(&self.api).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        self.tls.connect(name, stream).await.unwrap()
    }
}

async fn carry(mut stream: TcpStream, head: &Head, port: u16, behind: Behind) {
    let offered = head.value("sec-websocket-protocol").unwrap();
    assert!(offered.contains("v4.channel.k8s.io"), "{offered}");
    let accept = derive_accept_key(head.value("sec-websocket-key").unwrap().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let (mut sink, mut source) = socket.split();
    let message = |channel: u8, bytes: &[u8]| {
        let mut whole = vec![channel];
        whole.extend_from_slice(bytes);
        Message::binary(whole)
    };
    for channel in [0, 1] {
        let _ = sink.send(message(channel, &port.to_le_bytes())).await;
    }
    let address = match behind {
        Behind::Daemon(address) => address,
        Behind::Mute => {
            while let Some(Ok(_)) = source.next().await {}
            return;
        }
        Behind::NoListener => {
            // What was sent first is read first: a socket that ends with bytes unread takes its own
            // last words with it.
            let _ = source.next().await;
            let text = format!(
                "an error occurred forwarding {port} -> {port}: dial tcp4 127.0.0.1:{port}: connect: connection refused"
            );
            let _ = sink.send(message(1, text.as_bytes())).await;
            let _ = sink.close().await;
            while let Some(Ok(_)) = source.next().await {}
            return;
        }
    };
    let daemon = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = daemon.into_split();
    let back = tokio::spawn(async move {
        let mut buffer = [0; 8192];
        while let Ok(read) = from.read(&mut buffer).await
            && read > 0
        {
            let mut whole = vec![0];
            whole.extend_from_slice(&buffer[..read]);
            if sink.send(Message::binary(whole)).await.is_err() {
                break;
            }
        }
        let _ = sink.close().await;
    });
    while let Some(Ok(received)) = source.next().await {
        if let Message::Binary(bytes) = received
            && bytes.first() == Some(&0)
            && to.write_all(&bytes[1..]).await.is_err()
        {
            break;
        }
    }
    back.abort();
}
