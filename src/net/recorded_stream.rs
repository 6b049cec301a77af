//! A stream that records what passes through it, so that a later failure can be explained by what happened on the wire
//! instead of by the text of a library.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::own_limit::OwnLimit;
use crate::own;

/// The number of first bytes kept: enough for `HTTP/1.1 400 Bad`, `SSH-2.0-OpenSSH_` or a TLS record.
const FIRST: usize = 16;

/// How a stream ended.
#[derive(Clone, Debug)]
pub enum End {
    /// The peer, or a device on its behalf, sent RST. A later write gives EPIPE.
    Reset,
    /// The peer closed the connection; over TLS with or without `close_notify`.
    Close,
    /// Sent data was not acknowledged until the kernel gave up.
    Timeout,
    /// A limit of this process.
    OwnLimit(OwnLimit),
    /// Another error, as text.
    Io(String),
    /// The TLS layer below failed.
    Tls(rustls::Error),
}

impl End {
    pub(super) fn of(error: &io::Error) -> Self {
        if let Some(limit) = own::limit_of(error) {
            return Self::OwnLimit(limit);
        }
        let tls = error.get_ref().and_then(|e| e.downcast_ref());
        match (tls, error.kind()) {
            (Some(tls), _) => Self::Tls(rustls::Error::clone(tls)),
            (
                _,
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe,
            ) => Self::Reset,
            (_, ErrorKind::UnexpectedEof) => Self::Close,
            (_, ErrorKind::TimedOut) => Self::Timeout,
            _ => Self::Io(error.to_string()),
        }
    }
}

/// What was recorded since the last [`Recording::restart`].
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The number of bytes received.
    pub received: u64,
    /// The first of them, at most 16 bytes.
    pub first: Vec<u8>,
    /// How the stream ended; `None` while it is open.
    pub end: Option<End>,
}

/// The record of a [`RecordedStream`], shared with its users.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Recorded>>);

impl Recording {
    /// A copy of the record so far.
    pub fn recorded(&self) -> Recorded {
        self.lock().clone()
    }

    /// Starts counting again, for another request. The end stays.
    pub fn restart(&self) {
        let mut recorded = self.lock();
        recorded.received = 0;
        recorded.first.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        // Nothing panics while the lock is held; even a poisoned one would hold whole values.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn received(&self, bytes: &[u8]) {
        let mut recorded = self.lock();
        let room = FIRST.saturating_sub(recorded.first.len()).min(bytes.len());
        recorded.first.extend_from_slice(&bytes[..room]);
        recorded.received += bytes.len() as u64;
    }

    fn ended(&self, end: End) {
        let mut recorded = self.lock();
        // The first end is the cause, and later ones follow from it. But a TLS error explains more than the RST that
        // came with it.
        let better = matches!(end, End::Tls(_)) && !matches!(recorded.end, Some(End::Tls(_)));
        if recorded.end.is_none() || better {
            recorded.end = Some(end);
        }
    }
}

/// A stream that records what passes through it.
#[derive(Debug)]
pub struct RecordedStream<S> {
    inner: S,
    record: Recording,
}

impl<S> RecordedStream<S> {
    /// Wraps a stream; the record is shared with the returned [`Recording`].
    pub fn new(inner: S) -> (Self, Recording) {
        let record = Recording::default();
        let watched = Self {
            inner,
            record: record.clone(),
        };
        (watched, record)
    }

    fn note<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &poll {
            self.record.ended(End::of(error));
        }
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RecordedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let asked = buffer.remaining() > 0;
        let poll = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = &poll {
            match &buffer.filled()[before..] {
                [] if asked => self.record.ended(End::Close),
                bytes => self.record.received(bytes),
            }
        }
        self.note(poll)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RecordedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.note(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.note(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.note(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_are_counted_the_first_kept_and_the_end_seen() {
        let (mut peer, near) = tokio::io::duplex(64);
        let (mut watched, record) = RecordedStream::new(near);
        peer.write_all(b"0123456789abcdefXYZ").await.unwrap();
        let mut buffer = [0; 10];
        watched.read_exact(&mut buffer).await.unwrap();
        assert_eq!(record.recorded().received, 10);
        drop(peer);
        watched.read_to_end(&mut Vec::new()).await.unwrap();
        let recorded = record.recorded();
        assert_eq!(
            (recorded.received, recorded.first.as_slice()),
            (19, &b"0123456789abcdef"[..])
        );
        assert!(matches!(recorded.end, Some(End::Close)));
    }

    #[test]
    fn an_alert_tells_more_than_the_reset_that_came_with_it() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let record = Recording::default();
        record.ended(End::of(&io::ErrorKind::ConnectionReset.into()));
        assert!(matches!(record.recorded().end, Some(End::Reset)));
        record.ended(End::of(&io::Error::new(io::ErrorKind::InvalidData, alert)));
        record.ended(End::Close);
        assert!(matches!(record.recorded().end, Some(End::Tls(_))));
    }
}
