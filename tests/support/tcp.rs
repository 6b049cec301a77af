//! Peers below HTTP and TLS: they reset, hang, refuse, or speak something else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What a peer does with each connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Behaviour {
    /// RST as soon as it is accepted.
    Reset,
    /// RST after the first bytes (the ClientHello), as filters by server name do.
    ResetAfterHello,
    /// FIN as soon as it is accepted.
    Close,
    /// FIN after the first bytes.
    CloseAfterHello,
    /// Not a byte, the connection open.
    Hang,
    /// These bytes as soon as it is accepted, then nothing: an SSH server, an SMTP server.
    Greet(Vec<u8>),
    /// These bytes after the first ones came, then nothing.
    Answer(Vec<u8>),
    /// These bytes after the first ones came, then FIN.
    AnswerAndClose(Vec<u8>),
}

impl Behaviour {
    pub fn ssh() -> Self {
        Self::Greet(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec())
    }

    /// What a web server without TLS says to a ClientHello.
    pub fn plain_http() -> Self {
        let page = "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Type: text/html\r\n\
                    Content-Length: 15\r\nConnection: close\r\n\r\n400 Bad Request";
        Self::AnswerAndClose(page.into())
    }

    /// A fatal alert (RFC 8446, 6.2): 40 `handshake_failure`, 70 `protocol_version`,
    /// 112 `unrecognized_name`.
    pub fn alert(number: u8) -> Self {
        Self::AnswerAndClose(vec![21, 3, 3, 0, 2, 2, number])
    }

    /// The head of a ServerHello record of 4096 bytes and 16 of them: the rest got lost on the way.
    pub fn part_of_server_hello() -> Self {
        let mut bytes = vec![22, 3, 3, 0x10, 0, 2, 0, 0x0f, 0xfc, 3, 3];
        bytes.resize(5 + 16, 0x5a);
        Self::Answer(bytes)
    }
}

/// The peer; it stops when dropped.
pub struct Peer {
    pub addr: SocketAddr,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

/// An idle connection ends after this.
const PATIENCE: Duration = Duration::from_mins(1);

impl Peer {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let task = {
            let received = received.clone();
            tokio::spawn(async move {
                let mut connections = JoinSet::new();
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        continue;
                    };
                    while connections.try_join_next().is_some() {}
                    let (behaviour, received) = (behaviour.clone(), received.clone());
                    connections.spawn(async move {
                        let talk = meet(stream, behaviour, received);
                        let _ = tokio::time::timeout(PATIENCE, talk).await;
                    });
                }
            })
        };
        Self {
            addr,
            received,
            task,
        }
    }

    /// The first bytes of each connection that sent some.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn meet(mut stream: TcpStream, behaviour: Behaviour, received: Arc<Mutex<Vec<Vec<u8>>>>) {
    let waits = !matches!(
        behaviour,
        Behaviour::Reset | Behaviour::Close | Behaviour::Greet(_)
    );
    if waits {
        let mut hello = vec![0; 16 << 10];
        let length = stream.read(&mut hello).await.unwrap_or(0);
        hello.truncate(length);
        received.lock().unwrap().push(hello);
    }
    let _ = match &behaviour {
        Behaviour::Greet(bytes) | Behaviour::Answer(bytes) | Behaviour::AnswerAndClose(bytes) => {
            stream.write_all(bytes).await
        }
        _ => Ok(()),
    };
    match behaviour {
        Behaviour::Reset | Behaviour::ResetAfterHello => {
            // With no time to linger, close(2) sends RST (socket(7)).
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        }
        Behaviour::Close | Behaviour::CloseAfterHello | Behaviour::AnswerAndClose(_) => {
            let _ = stream.shutdown().await;
        }
        Behaviour::Hang | Behaviour::Greet(_) | Behaviour::Answer(_) => {}
    }
    // Bytes left unread would turn the FIN into an RST.
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
}

/// A port that is taken and has no listener: connections are refused.
pub struct Closed {
    pub addr: SocketAddr,
    _socket: Socket,
}

impl Closed {
    pub fn new() -> Self {
        let (socket, addr) = bound();
        Self {
            addr,
            _socket: socket,
        }
    }
}

/// A port whose queue is full: Linux drops each further SYN, as a firewall does.
pub struct Blackhole {
    pub addr: SocketAddr,
    _listener: Socket,
    _fill: Vec<TcpStream>,
}

impl Blackhole {
    pub async fn new() -> Self {
        let (listener, addr) = bound();
        listener.listen(0).unwrap();
        let mut fill = Vec::new();
        // A queue of 0 takes one connection; the first that can't be had shows that it is full.
        for _ in 0..8 {
            let attempt = TcpStream::connect(addr);
            match tokio::time::timeout(Duration::from_millis(300), attempt).await {
                Ok(stream) => fill.push(stream.unwrap()),
                Err(_) => {
                    return Self {
                        addr,
                        _listener: listener,
                        _fill: fill,
                    };
                }
            }
        }
        panic!("the queue of a listener with backlog 0 took 8 connections");
    }
}

fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// Passes connections to an address and port on to a server.
pub struct Relay {
    task: JoinHandle<()>,
}

impl Relay {
    /// From this address of loopback and this port.
    pub async fn start((address, port, to): (&str, u16, SocketAddr)) -> Self {
        let listener = TcpListener::bind((address, port)).await.unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A balancer before a server: connections take turns, and get what their turn has, `None` being the server.
pub struct Balancer {
    pub addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Balancer {
    /// Listens on a free port of 127.0.0.1.
    pub async fn before(server: SocketAddr, turns: Vec<Option<Behaviour>>) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), server, turns).await
    }

    pub async fn at(at: SocketAddr, server: SocketAddr, turns: Vec<Option<Behaviour>>) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for turn in turns.into_iter().cycle() {
                let (mut client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(async move {
                    let Some(behaviour) = turn else {
                        let mut server = TcpStream::connect(server).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        return;
                    };
                    let talk = meet(client, behaviour, Arc::default());
                    let _ = tokio::time::timeout(PATIENCE, talk).await;
                });
            }
        });
        Self {
            addr,
            accepted,
            task,
        }
    }

    /// The number of connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a filter does with a ClientHello that is larger than it expects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TooLarge {
    /// Not a byte of it is passed on, and nothing is answered.
    Drop,
    /// RST.
    Reset,
}

/// A filter before a TLS server: it passes on what begins with a ClientHello of `limit` bytes at most.
pub struct HelloFilter {
    pub addr: SocketAddr,
    refused: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl HelloFilter {
    /// Listens on 127.0.0.2, on the port that the server has on its own address.
    pub async fn before(server: SocketAddr, limit: usize, then: TooLarge) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), server.port()));
        let listener = listener.await.unwrap();
        let addr = listener.local_addr().unwrap();
        let refused = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&refused);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                connections.spawn(filter(stream, server, limit, then, count));
            }
        });
        Self {
            addr,
            refused,
            task,
        }
    }

    /// How many were too large.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for HelloFilter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn filter(
    mut client: TcpStream,
    server: SocketAddr,
    limit: usize,
    then: TooLarge,
    count: Arc<AtomicUsize>,
) {
    let mut head = [0; 5];
    if client.read_exact(&mut head).await.is_err() {
        return;
    }
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    if head.len() + length > limit {
        count.fetch_add(1, Ordering::Relaxed);
        match then {
            TooLarge::Drop => tokio::time::sleep(PATIENCE).await,
            TooLarge::Reset => {
                let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
            }
        }
        return;
    }
    let mut server = TcpStream::connect(server).await.unwrap();
    server.write_all(&head).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
