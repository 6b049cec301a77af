//! The byte streams that connections use: TCP, TLS over TCP, or TLS within TLS if the proxy before a server uses TLS
//! too.

use std::fmt::Debug;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::recorded_stream::RecordedStream;

/// A TLS stream over a connection whose bytes are counted.
pub type TlsStream = tokio_rustls::client::TlsStream<RecordedStream<Stream>>;

/// Any byte stream.
pub type Stream = Box<dyn Duplex>;

/// Reads and writes bytes.
pub trait Duplex: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin> Duplex for T {}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Box::new(stream)
    }
}
