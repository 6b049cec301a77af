//! Clients from outside that want nothing good: idle connections, heads without an end, readers that do not read,
//! requests for pages and checks without a pause.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// What a connection sends: nothing, a part of a head, many requests whose answers are not read, half a request that ends.
const KINDS: [&[u8]; 5] = [
    b"",
    b"GET /metrics HTTP/1.1\r\nX: ",
    b"GET /api/v1/reports HTTP/1.1\r\nHost: a\r\n\r\nGET /api/v1/targets HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /probe?target=healthy-0 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
];

/// Connections that each client has at the same time.
const AT_ONCE: usize = 150;

/// It ends with this.
pub struct Flood {
    stop: Arc<AtomicBool>,
    pub opened: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Flood {
    /// From five addresses, against two listeners.
    pub fn start(to: [SocketAddr; 2]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let opened = Arc::<AtomicU64>::default();
        let clients = (11..16).map(|last| {
            let (stop, opened) = (Arc::clone(&stop), Arc::clone(&opened));
            let from = Ipv4Addr::new(10, 77, 0, last);
            std::thread::spawn(move || client(from, to, &stop, &opened))
        });
        let clients = clients.collect();
        Self {
            stop,
            opened,
            clients,
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

fn client(from: Ipv4Addr, to: [SocketAddr; 2], stop: &AtomicBool, opened: &AtomicU64) {
    let mut open: Vec<TcpStream> = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        for _ in 0..10 {
            number += 1;
            let Ok(mut stream) = connect(from, to[number % 2]) else {
                continue;
            };
            opened.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(KINDS[number % KINDS.len()]);
            open.push(stream);
        }
        // A byte more of each head, and a little of each answer.
        for stream in &mut open {
            let _ = stream.write(b"a");
            let _ = stream.read(&mut [0; 16]);
        }
        if open.len() > AT_ONCE {
            open.drain(..AT_ONCE / 2);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(1))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(2048)?;
    Ok(socket.into())
}
