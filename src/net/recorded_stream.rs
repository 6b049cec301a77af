//! A stream that remembers what came through it, so that a failure further up can be told by what
//! the wire did and not by the words of a library.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes kept of the beginning: enough for `HTTP/1.1 400 Bad`, `SSH-2.0-OpenSSH_` or a TLS record.
const FIRST: usize = 16;

/// How a stream ended.
#[derive(Clone, Debug)]
pub enum End {
    /// The peer, or something that speaks in its name, sent RST. A write after it gives EPIPE.
    Reset,
    /// The peer closed; over TLS with or without `close_notify`.
    Close,
    /// What was sent stayed without acknowledgement until the kernel gave up.
    Timeout,
    /// Another error, in its words.
    Io(String),
    /// The TLS layer below gave up.
    Tls(rustls::Error),
}

impl End {
    pub(super) fn of(error: &io::Error) -> Self {
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

/// What was seen since the last [`Recording::restart`].
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    pub received: u64,
    /// The first of them, at most 16 bytes.
    pub first: Vec<u8>,
    pub end: Option<End>,
}

/// The memory of a [`RecordedStream`] stream, shared with whoever wants to know.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Recorded>>);

impl Recording {
    pub fn seen(&self) -> Recorded {
        self.lock().clone()
    }

    /// Counts from here on, as for a further request.
    pub fn restart(&self) {
        let mut seen = self.lock();
        seen.received = 0;
        seen.first.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        // Nothing panics while the lock is held; a poisoned one would still hold whole values.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn received(&self, bytes: &[u8]) {
        let mut seen = self.lock();
        let room = FIRST.saturating_sub(seen.first.len()).min(bytes.len());
        seen.first.extend_from_slice(&bytes[..room]);
        seen.received += bytes.len() as u64;
    }

    fn ended(&self, end: End) {
        let mut seen = self.lock();
        // The first end is the cause, later ones follow from it; but an alert tells more than the
        // RST that came with it.
        let better = matches!(end, End::Tls(_)) && !matches!(seen.end, Some(End::Tls(_)));
        if seen.end.is_none() || better {
            seen.end = Some(end);
        }
    }
}

#[derive(Debug)]
pub struct RecordedStream<S> {
    inner: S,
    record: Recording,
}

impl<S> RecordedStream<S> {
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
        assert_eq!(record.seen().received, 10);
        drop(peer);
        watched.read_to_end(&mut Vec::new()).await.unwrap();
        let seen = record.seen();
        assert_eq!(
            (seen.received, seen.first.as_slice()),
            (19, &b"0123456789abcdef"[..])
        );
        assert!(matches!(seen.end, Some(End::Close)));
    }

    #[test]
    fn an_alert_tells_more_than_the_reset_that_came_with_it() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let record = Recording::default();
        record.ended(End::of(&io::ErrorKind::ConnectionReset.into()));
        assert!(matches!(record.seen().end, Some(End::Reset)));
        record.ended(End::of(&io::Error::new(io::ErrorKind::InvalidData, alert)));
        record.ended(End::Close);
        assert!(matches!(record.seen().end, Some(End::Tls(_))));
    }
}
