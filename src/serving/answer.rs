//! Answers of any size in little memory: a text is compressed while it is written, and decompressed chunk by chunk as
//! the client reads it. That takes longer than to write it, so one text of each address may be in memory as it is.

use std::fmt::{self, Display};
use std::io::{self, Cursor, Read as _, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The most bytes of a text that are in memory as they are sent. A shorter text is not compressed.
const CHUNK: usize = 16 << 10;

/// The most bytes of a text that is not compressed although it is longer than a chunk: the metrics of a thousand targets
/// have less.
const WHOLE: usize = 4 << 20;

/// Chunks that a connection gets before others have their turn.
const TURN: usize = 4;

/// A text that is being written.
#[derive(Debug, Default)]
pub struct Writer {
    /// What is not compressed yet.
    tail: Vec<u8>,
    packed: Option<DeflateEncoder<Vec<u8>>>,
    size: u64,
    /// The most bytes that are not compressed.
    room: usize,
}

impl Writer {
    fn new(room: usize) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    fn pack(&mut self) -> io::Result<()> {
        let new = || DeflateEncoder::new(Vec::new(), Compression::fast());
        self.packed.get_or_insert_with(new).write_all(&self.tail)?;
        self.tail.clear();
        if self.room > CHUNK {
            self.tail.shrink_to(CHUNK);
            self.room = CHUNK;
        }
        Ok(())
    }

    /// The whole text.
    ///
    /// # Errors
    /// If it can't be compressed.
    fn finish(mut self) -> io::Result<Content> {
        if self.packed.is_none() {
            return Ok(Content::Text(Arc::new(self.tail)));
        }
        self.pack()?;
        let packed = self.packed.map(DeflateEncoder::finish).transpose()?;
        Ok(Content::Packed {
            bytes: packed.unwrap_or_default().into(),
            size: self.size,
        })
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.tail.len() + bytes.len() > self.room {
            self.pack()?;
        }
        let taken = bytes.len().min(CHUNK);
        self.tail.extend_from_slice(&bytes[..taken]);
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// A text that was written.
#[derive(Clone, Debug)]
pub enum Content {
    /// A short one, or one that nobody else has.
    Text(Arc<Vec<u8>>),
    /// Compressed (RFC 1951).
    Packed {
        /// The compressed bytes.
        bytes: Arc<[u8]>,
        /// The size of the text.
        size: u64,
    },
}

impl Content {
    /// The text that `write` writes.
    ///
    /// # Errors
    /// That of `write`, or if the text can't be compressed.
    pub fn written<E: Display>(
        write: impl FnOnce(&mut Writer) -> Result<(), E>,
    ) -> Result<Self, String> {
        Self::written_in(CHUNK, write)
    }

    fn written_in<E: Display>(
        room: usize,
        write: impl FnOnce(&mut Writer) -> Result<(), E>,
    ) -> Result<Self, String> {
        let mut text = Writer::new(room);
        write(&mut text).map_err(|error| error.to_string())?;
        text.finish().map_err(|error| error.to_string())
    }

    /// The body of an answer with it, whose length is known.
    pub fn into_body(self) -> Body {
        match self {
            Self::Text(text) => {
                let text = Bytes::from_owner(Shared(text));
                let size = text.len();
                let chunks = (0..size).step_by(CHUNK);
                let part = move |at| Part::Text(text.slice(at..size.min(at + CHUNK)));
                Body::new(Streamed {
                    size: Some(size as u64),
                    ..Streamed::of(chunks.map(part))
                })
            }
            Self::Packed { bytes, size } => Body::new(Streamed {
                size: Some(size),
                ..Streamed::of(std::iter::once(Part::Packed(bytes)))
            }),
        }
    }
}

/// A text that answers share.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A part of an answer.
#[derive(Clone, Debug)]
pub enum Part {
    /// A short text.
    Text(Bytes),
    /// A compressed text (RFC 1951).
    Packed(Arc<[u8]>),
}

/// The body of an answer with these parts, each made when those before it were sent.
pub fn streamed(parts: impl Iterator<Item = Part> + Send + 'static) -> Body {
    Body::new(Streamed::of(parts))
}

struct Streamed {
    parts: Box<dyn Iterator<Item = Part> + Send>,
    packed: Option<DeflateDecoder<Cursor<Arc<[u8]>>>>,
    size: Option<u64>,
    in_turn: usize,
}

impl Streamed {
    fn of(parts: impl Iterator<Item = Part> + Send + 'static) -> Self {
        Self {
            parts: Box::new(parts),
            packed: None,
            size: None,
            in_turn: 0,
        }
    }

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(packed) = &mut self.packed {
                let mut chunk = Vec::with_capacity(CHUNK);
                match packed.take(CHUNK as u64).read_to_end(&mut chunk) {
                    Ok(0) => self.packed = None,
                    Ok(_) => return Some(Ok(chunk.into())),
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.parts.next()? {
                Part::Text(text) => return Some(Ok(text)),
                Part::Packed(bytes) => {
                    self.packed = Some(DeflateDecoder::new(Cursor::new(bytes)));
                }
            }
        }
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.in_turn == TURN {
            self.in_turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.in_turn += 1;
        let chunk = self.next();
        if let (Some(size), Some(Ok(chunk))) = (&mut self.size, &chunk) {
            *size -= chunk.len() as u64;
        }
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.size
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The newest text of an address. Requests that arrive while it is written get the next one together: however many
/// there are, one is written at a time, on a thread for such work.
#[derive(Clone, Debug, Default)]
pub struct Newest(Arc<Mutex<Kept>>);

/// The text that was written last.
#[derive(Debug, Default)]
struct Kept {
    /// When it was begun, and the text or the reason why there is none; `None`: before the first, or if it is `whole`.
    content: Option<(Instant, Result<Content, String>)>,
    /// A text that is not compressed is kept only by the answers with it.
    whole: Option<(Instant, Weak<Vec<u8>>)>,
}

impl Kept {
    /// A text that was begun at this time or later.
    fn since(&self, asked: Instant) -> Option<Result<Content, String>> {
        if let Some((_, content)) = self.content.as_ref().filter(|(begun, _)| *begun >= asked) {
            return Some(content.clone());
        }
        let (_, text) = self.whole.as_ref().filter(|(begun, _)| *begun >= asked)?;
        Some(Ok(Content::Text(text.upgrade()?)))
    }

    /// Writes the next text.
    fn write<E: Display>(
        &mut self,
        write: impl FnOnce(&mut Writer) -> Result<(), E>,
    ) -> Result<Content, String> {
        let begun = Instant::now();
        let is_free = |(_, text): &(_, Weak<_>)| text.strong_count() == 0;
        let room = if self.whole.as_ref().is_none_or(is_free) {
            WHOLE
        } else {
            CHUNK
        };
        let content = Content::written_in(room, write);
        self.content = None;
        match &content {
            Ok(Content::Text(text)) if text.len() > CHUNK => {
                self.whole = Some((begun, Arc::downgrade(text)));
            }
            other => self.content = Some((begun, other.clone())),
        }
        content
    }
}

impl Newest {
    /// A text that was begun after this call.
    ///
    /// # Errors
    /// That of `write`.
    pub async fn get<E: Display>(
        &self,
        write: impl FnOnce(&mut Writer) -> Result<(), E> + Send + 'static,
    ) -> Result<Content, String> {
        let asked = Instant::now();
        let kept = Arc::clone(&self.0).lock_owned().await;
        if let Some(content) = kept.since(asked) {
            return content;
        }
        // A client that leaves does not start another one: the lock is held until this one is written.
        alone(kept, move |kept| kept.write(write))
            .await
            .unwrap_or_else(|| Err("the answer can't be written".to_owned()))
    }
}

/// Works on a thread for such work while the lock is held, also if the client leaves; `None` if the work panicked.
pub async fn alone<T: Send + 'static, R: Send + 'static>(
    mut lock: OwnedMutexGuard<T>,
    work: impl FnOnce(&mut OwnedMutexGuard<T>) -> R + Send + 'static,
) -> Option<R> {
    tokio::task::spawn_blocking(move || work(&mut lock))
        .await
        .ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fmt::Write as _;

    use axum::body::to_bytes;

    use super::*;

    fn written(lines: usize) -> Content {
        Content::written(|to| {
            (0..lines).try_for_each(|line| to.write_str(&format!("line {line}\n")))
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_text_of_any_size_arrives_as_it_was_written() {
        for lines in [0, 1, 1000, 2000, 100_000] {
            let expected: String = (0..lines).fold(String::new(), |text, line| {
                text + "line " + &line.to_string() + "\n"
            });
            let content = written(lines);
            let is_packed = matches!(content, Content::Packed { .. });
            assert_eq!(is_packed, expected.len() > CHUNK, "{lines}");
            let body = content.into_body();
            assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
            let text = to_bytes(body, usize::MAX).await.unwrap();
            assert!(text == expected, "{lines}");
        }
        // One write longer than a chunk.
        let long = "é".repeat(3 * CHUNK);
        let content = Content::written(|to| to.write_str(&long)).unwrap();
        let text = to_bytes(content.into_body(), usize::MAX).await.unwrap();
        assert!(text == long);
    }

    #[tokio::test]
    async fn parts_are_made_when_they_are_read_and_a_damaged_one_ends_the_answer() {
        let Content::Packed { bytes, .. } = written(100_000) else {
            panic!("it is long");
        };
        let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let parts = std::iter::repeat_with(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Part::Packed(Arc::clone(&bytes))
        });
        let mut body = streamed(parts.take(3));
        let mut size = 0;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        {
            size += frame.unwrap().into_data().unwrap().len();
            assert!(made.load(std::sync::atomic::Ordering::SeqCst) <= 1 + size / 1_000_000);
        }
        assert_eq!(size, 3 * 1_088_890);
        let damaged = [
            Part::Text(Bytes::from_static(b"[")),
            Part::Packed(Arc::new([0xff; 9])),
        ];
        let body = streamed(damaged.into_iter());
        assert!(to_bytes(body, usize::MAX).await.is_err());
    }

    #[tokio::test]
    async fn one_text_is_not_compressed_while_nobody_else_has_one() {
        let newest = Newest::default();
        let text = "line\n".repeat(CHUNK);
        let get = || {
            let text = text.clone();
            newest.get(move |to| to.write_str(&text))
        };
        let is_packed = |content: &Content| matches!(content, Content::Packed { .. });
        let arrives = async |content: Content| {
            let body = content.into_body();
            assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
            assert!(to_bytes(body, usize::MAX).await.unwrap() == text);
        };
        let (first, second) = (get().await.unwrap(), get().await.unwrap());
        assert_eq!((is_packed(&first), is_packed(&second)), (false, true));
        arrives(first).await;
        arrives(second).await;
        let third = get().await.unwrap();
        assert!(!is_packed(&third), "the first is gone");
        let body = third.into_body();
        assert!(is_packed(&get().await.unwrap()), "it is being sent");
        drop(body);
        let long = "x".repeat(WHOLE);
        let long = newest.get(move |to| (0..2).try_for_each(|_| to.write_str(&long)));
        assert!(is_packed(&long.await.unwrap()));
    }

    #[tokio::test]
    async fn those_who_wait_share_what_is_written_next() {
        let newest = Newest::default();
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let get = || {
            let count = Arc::clone(&count);
            newest.get(move |_| {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(20));
                Ok::<_, Infallible>(())
            })
        };
        let all = futures_util::future::join_all((0..50).map(|_| get())).await;
        assert!(all.iter().all(Result::is_ok));
        let first = count.load(std::sync::atomic::Ordering::SeqCst);
        assert!(first <= 2, "{first}");
        get().await.unwrap();
        assert_eq!(
            count.load(std::sync::atomic::Ordering::SeqCst),
            first + 1,
            "never an old one"
        );
        let failed = newest.get(|_| Err("no")).await;
        assert_eq!(failed.unwrap_err(), "no");
    }
}
