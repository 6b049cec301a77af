//! What is spoken over: TCP, TLS on it, or TLS within TLS, where the proxy before a server has it too.

use std::fmt::Debug;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::recorded_stream::RecordedStream;

/// A secure stream over a connection whose bytes are counted.
pub type TlsStream = tokio_rustls::client::TlsStream<RecordedStream<Stream>>;

/// Any of them.
pub type Stream = Box<dyn Duplex>;

/// What reads and writes.
pub trait Duplex: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin> Duplex for T {}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Box::new(stream)
    }
}
