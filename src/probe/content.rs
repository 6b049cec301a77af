//! Reads the body of content as containerd does: from the first host that answers, resumed if it ends early, decoded,
//! and compared with its descriptor (`fetcher.go`, `httpreadseeker.go`, `content/helpers.go`).

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes as Body, BytesMut};
use flate2::write::{DeflateDecoder, MultiGzDecoder};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::session::ResponseHead;
use crate::model::evidence::ContentRead;
use crate::model::fault::HttpFault;
use crate::model::text::{hex, printable};
use crate::model::units::Bytes;
use crate::net::http::{Response, WHOLE_BODY, slow};
use crate::redact::Scrubber;
use crate::registry::error;
use crate::registry::manifest::Descriptor;

/// How often in a row a body that ends early is resumed without a byte of progress.
const MAX_RETRIES: usize = 3;
/// How often in total a body that ends early is resumed; containerd has no such bound.
const MAX_RESUMED: usize = 32;

/// How much of content is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReadExtent {
    /// To its end, within a bound.
    Whole { max: u64 },
    /// The same for a layer, but reading stops if it is slow: slow is not a fault.
    Small { max: u64 },
    /// Only the beginning.
    First { bytes: u64 },
}

impl ReadExtent {
    /// How many bytes will be kept, by the size in the descriptor.
    fn expected(self, size: i64) -> usize {
        let (Self::Whole { max } | Self::Small { max }) = self else {
            return 0;
        };
        let size = u64::try_from(size).unwrap_or(0).min(max);
        usize::try_from(size).unwrap_or(0)
    }
}

/// Content while it is read.
pub(super) struct Reader {
    digest: String,
    size: i64,
    extent: ReadExtent,
    hash: Context,
    keep: BytesMut,
    /// The first bytes, to recognize an HTML page.
    start: Vec<u8>,
    got: u64,
    retries: usize,
    resumed: usize,
    is_text: bool,
    /// `Content-Encoding`, if there was one.
    coding: Option<String>,
    /// Reading stopped early because the content was too slow, which is not a fault.
    left: bool,
}

/// The result of reading one body.
#[derive(Debug)]
pub(super) enum Part {
    /// Everything that was requested has arrived.
    Done,
    /// It ended early: request the rest from [`Reader::offset`].
    EndedEarly {
        want: Option<Bytes>,
    },
    Failed(HttpFault),
    /// Unusable, as detected before the first byte that is needed: containerd tries the next host. Either it is not
    /// encoded as its header states (containerd 2), or a response to a request for a part ends before that part.
    NextHost(HttpFault),
}

impl Reader {
    pub(super) fn new(descriptor: &Descriptor, extent: ReadExtent) -> Self {
        Self {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            extent,
            hash: Context::new(&SHA256),
            keep: BytesMut::with_capacity(extent.expected(descriptor.size)),
            start: Vec::new(),
            got: 0,
            retries: 0,
            resumed: 0,
            is_text: false,
            coding: None,
            left: false,
        }
    }

    /// The offset of the next request.
    pub(super) fn offset(&self) -> u64 {
        self.got
    }

    /// Whether the requested part, or as much as will be read, has arrived.
    fn is_enough(&self) -> bool {
        self.left || matches!(self.extent, ReadExtent::First { bytes } if self.got >= bytes)
    }

    /// Reads one body, from where the last one ended.
    pub(super) async fn read(
        &mut self,
        got: &mut ResponseHead,
        is_decoded: bool,
        wait: Duration,
    ) -> Part {
        let headers = got.headers().clone();
        self.is_text |= is_page_type(&headers);
        let coding = headers.get(CONTENT_ENCODING).and_then(|v| v.to_str().ok());
        if let Some(coding) = coding.filter(|coding| *coding != "identity") {
            self.coding = Some(printable(coding));
        }
        let was = self.got;
        let mut decoder = match Decoder::of(&headers, is_decoded, was > 0) {
            Ok(decoder) => decoder,
            Err(fault @ HttpFault::Encoding { .. }) => return Part::NextHost(fault),
            Err(fault) => return Part::Failed(fault),
        };
        let skip = if was > 0 && got.status() != StatusCode::PARTIAL_CONTENT {
            was
        } else {
            0
        };
        let part = self
            .read_body(&mut got.pending.response, &mut decoder, skip, wait)
            .await;
        // A missing header is detected before anything else is read.
        if let Part::Failed(fault @ HttpFault::NotEncoded { .. }) = &part
            && is_decoded
            && decoder.lacks_header()
        {
            return Part::NextHost(fault.clone());
        }
        if let Part::EndedEarly { .. } = part {
            // If all of it has arrived, containerd detects that and accepts the content.
            if u64::try_from(self.size).is_ok_and(|size| self.got >= size) {
                return Part::Done;
            }
            self.retries = if self.got > was { 0 } else { self.retries + 1 };
            self.resumed += 1;
        }
        part
    }

    /// Whether it was resumed too often without progress.
    pub(super) fn gives_up(&self) -> bool {
        self.retries > MAX_RETRIES
    }

    /// The fault if it was resumed so often that the result of a pull is undecided.
    pub(super) fn over_limit(&self) -> Option<HttpFault> {
        (self.resumed > MAX_RESUMED).then_some(HttpFault::ResumedTooOften {
            limit: MAX_RESUMED,
            got: Bytes(self.got),
        })
    }

    async fn read_body(
        &mut self,
        response: &mut Response,
        decoder: &mut Decoder,
        mut skip: u64,
        wait: Duration,
    ) -> Part {
        let mut raw = 0u64;
        let too_short = || {
            let reason =
                "the server sent the whole content instead of a part, and ended before that part";
            Part::NextHost(HttpFault::malformed(reason))
        };
        let whole = match self.extent {
            ReadExtent::Whole { .. } => wait * WHOLE_BODY,
            ReadExtent::Small { .. } | ReadExtent::First { .. } => wait * 2,
        };
        let deadline = Instant::now() + whole;
        loop {
            if Instant::now() > deadline && self.got > 0 {
                if matches!(self.extent, ReadExtent::Whole { .. }) {
                    return Part::Failed(slow(whole, raw, None));
                }
                self.left = true;
            }
            if self.is_enough() {
                return Part::Done;
            }
            match response.next(raw, wait).await {
                Ok(Some(data)) => {
                    raw += data.len() as u64;
                    for piece in decoder.pieces(data) {
                        let mut data = match decoder.push(piece) {
                            Ok(data) => data,
                            Err(fault) => return Part::Failed(fault),
                        };
                        let skipped = skip.min(data.len() as u64);
                        skip -= skipped;
                        let _ = data.split_to(usize::try_from(skipped).unwrap_or(usize::MAX));
                        if let Err(fault) = self.take(&data) {
                            return Part::Failed(fault);
                        }
                    }
                }
                Ok(None) | Err(HttpFault::Truncated { .. }) if skip > 0 => return too_short(),
                Ok(None) => {
                    return match decoder.finish().and_then(|data| self.take(&data)) {
                        Ok(()) => Part::Done,
                        // Cut off within its encoding; as below.
                        Err(HttpFault::NotEncoded { encoding }) if decoder.has_begun() => {
                            Part::Failed(HttpFault::EncodingUnread { encoding })
                        }
                        Err(fault) => Part::Failed(fault),
                    };
                }
                Err(HttpFault::Truncated { .. }) if decoder.is_coded() => {
                    // Whether containerd resumes it depends on how much was decoded.
                    return Part::Failed(HttpFault::EncodingUnread {
                        encoding: decoder.coding().to_owned(),
                    });
                }
                Err(HttpFault::Truncated { want, .. }) => {
                    return Part::EndedEarly { want };
                }
                Err(fault) => return Part::Failed(fault),
            }
        }
    }

    fn take(&mut self, data: &Body) -> Result<(), HttpFault> {
        self.got += data.len() as u64;
        if let ReadExtent::Whole { max } | ReadExtent::Small { max } = self.extent
            && self.got > max
        {
            return Err(HttpFault::TooLarge { limit: Bytes(max) });
        }
        self.hash.update(data);
        let missing = START.saturating_sub(self.start.len()).min(data.len());
        self.start.extend_from_slice(&data[..missing]);
        self.keep.extend_from_slice(data);
        Ok(())
    }

    /// Compares the content with its descriptor.
    ///
    /// # Errors
    /// If it differs.
    pub(super) fn conclude(self, scrub: &Scrubber) -> Result<(ContentRead, Body), HttpFault> {
        let mut read = ContentRead {
            bytes: Bytes(self.got),
            verified: false,
            resumed: self.resumed,
        };
        let size = u64::try_from(self.size).ok();
        // More of it would have followed.
        if self.is_enough() && size.is_none_or(|size| self.got < size) {
            return if self.looks_like_a_page() {
                Err(self.page(scrub))
            } else {
                Ok((read, Body::new()))
            };
        }
        let got = format!("sha256:{}", hex(self.hash.clone().finish().as_ref()));
        let fault = if size != Some(self.got) {
            HttpFault::WrongSize {
                expected: self.size,
                got: Bytes(self.got),
            }
        } else if got != self.digest {
            HttpFault::WrongDigest {
                expected: printable(&self.digest),
                got,
            }
        } else {
            read.verified = true;
            return Ok((read, self.keep.freeze()));
        };
        Err(match self.coding {
            _ if self.looks_like_a_page() => self.page(scrub),
            Some(encoding) => HttpFault::Encoding { encoding },
            None => fault,
        })
    }

    fn looks_like_a_page(&self) -> bool {
        error::is_page(&self.start)
            || (self.is_text && self.start.trim_ascii_start().starts_with(b"<"))
    }

    fn page(&self, scrub: &Scrubber) -> HttpFault {
        HttpFault::Page {
            title: error::page_title(&self.start).map(|title| scrub.clean(&title)),
        }
    }
}

/// Bytes of content that are kept to find the title of a page.
const START: usize = 16 << 10;

fn is_page_type(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .to_ascii_lowercase()
            .starts_with(b"text/html")
    })
}

/// `Accept-Encoding` of a request for content: containerd 2's own, or Go's default if no part is requested.
pub(super) fn accept_encoding(decodes: bool, is_part: bool) -> Option<HeaderValue> {
    if decodes {
        return Some(HeaderValue::from_static(
            "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5",
        ));
    }
    (!is_part).then(|| HeaderValue::from_static("gzip"))
}

/// Decodes a content encoding.
enum Decoder {
    Plain,
    Gzip {
        decoder: Box<MultiGzDecoder<Vec<u8>>>,
        /// The first bytes as they arrived.
        head: Vec<u8>,
    },
    Deflate(Box<DeflateDecoder<Vec<u8>>>),
    /// Decoded when all of it has arrived.
    Zstd(BytesMut),
}

impl Decoder {
    /// containerd 2 decodes what the header lists. For older releases Go decodes gzip, unless a part was requested, and
    /// everything else is taken as it arrives.
    fn of(headers: &HeaderMap, decodes: bool, is_part: bool) -> Result<Self, HttpFault> {
        let value = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let value = String::from_utf8_lossy(value.unwrap_or_default()).to_ascii_lowercase();
        let codings: Vec<&str> = value
            .split([' ', '\t', ','])
            .filter(|coding| !coding.is_empty())
            .collect();
        if !decodes {
            return Ok(match codings.as_slice() {
                ["gzip"] if !is_part => Self::gzip(),
                _ => Self::Plain,
            });
        }
        let shown = || printable(&value);
        match codings.as_slice() {
            [] | ["identity"] => Ok(Self::Plain),
            ["gzip"] => Ok(Self::gzip()),
            ["deflate"] => Ok(Self::Deflate(Box::new(DeflateDecoder::new(Vec::new())))),
            ["zstd"] => Ok(Self::Zstd(BytesMut::new())),
            codings
                if codings
                    .iter()
                    .all(|c| matches!(*c, "gzip" | "deflate" | "zstd" | "identity")) =>
            {
                Err(HttpFault::EncodingUnread { encoding: shown() })
            }
            _ => Err(HttpFault::Encoding { encoding: shown() }),
        }
    }

    fn gzip() -> Self {
        Self::Gzip {
            decoder: Box::new(MultiGzDecoder::new(Vec::new())),
            head: Vec::new(),
        }
    }

    fn coding(&self) -> &'static str {
        match self {
            Self::Plain => "identity",
            Self::Gzip { .. } => "gzip",
            Self::Deflate(_) => "deflate",
            Self::Zstd(_) => "zstd",
        }
    }

    /// Whether a gzip header has arrived (RFC 1952): Go's reader opens with that alone.
    fn has_header(&self) -> bool {
        matches!(self, Self::Gzip { head, .. } if head.len() == GZIP_HEADER && head.starts_with(&[0x1f, 0x8b, 8]))
    }

    /// Whether the data so far is encoded as its header states.
    fn has_begun(&self) -> bool {
        self.has_header() || matches!(self, Self::Deflate(_))
    }

    fn lacks_header(&self) -> bool {
        matches!(self, Self::Gzip { .. }) && !self.has_header()
    }

    fn is_coded(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// The parts in which data is decoded. Each may have a thousand times its size, so the bounds are checked between two.
    fn pieces(&self, mut data: Body) -> impl Iterator<Item = Body> + use<> {
        let piece = if self.is_coded() { PIECE } else { usize::MAX };
        std::iter::from_fn(move || {
            let length = piece.min(data.len());
            (length > 0).then(|| data.split_to(length))
        })
    }

    fn push(&mut self, data: Body) -> Result<Body, HttpFault> {
        let decoded = match self {
            Self::Plain => return Ok(data),
            Self::Gzip { decoder, head } => {
                let missing = GZIP_HEADER.saturating_sub(head.len()).min(data.len());
                head.extend_from_slice(&data[..missing]);
                decoder
                    .write_all(&data)
                    .map(|()| std::mem::take(decoder.get_mut()))
            }
            Self::Deflate(decoder) => inflate(decoder, &data),
            Self::Zstd(all) => {
                if all.len() + data.len() > MAX_ZSTD {
                    return Err(HttpFault::EncodingUnread {
                        encoding: "zstd".to_owned(),
                    });
                }
                all.extend_from_slice(&data);
                return Ok(Body::new());
            }
        };
        decoded
            .map(Body::from)
            .map_err(|_| not_encoded(self.coding()))
    }

    fn finish(&mut self) -> Result<Body, HttpFault> {
        let decoded = match self {
            Self::Plain => return Ok(Body::new()),
            Self::Gzip { decoder, .. } => decoder
                .try_finish()
                .map(|()| std::mem::take(decoder.get_mut())),
            Self::Deflate(decoder) => decoder
                .try_finish()
                .map(|()| std::mem::take(decoder.get_mut())),
            Self::Zstd(all) => unpack_zstd(all, MAX_ZSTD as u64),
        };
        decoded
            .map(Body::from)
            .map_err(|_| not_encoded(self.coding()))
    }
}

/// The fixed part of a gzip header, in bytes.
const GZIP_HEADER: usize = 10;

/// Bytes that are decoded at once.
const PIECE: usize = 1 << 10;

/// Bytes of content with zstd that is decoded in memory.
const MAX_ZSTD: usize = 16 << 20;

/// Decodes zstd (RFC 8878): one frame after the other.
pub(super) struct ZstdReader<'b> {
    rest: &'b [u8],
    frame: Option<StreamingDecoder<&'b [u8], FrameDecoder>>,
}

impl<'b> ZstdReader<'b> {
    pub(super) fn new(packed: &'b [u8]) -> Self {
        Self {
            rest: packed,
            frame: None,
        }
    }
}

impl Read for ZstdReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let read = frame.read(to)?;
                if read > 0 || to.is_empty() {
                    return Ok(read);
                }
                self.rest = *frame.get_ref();
                self.frame = None;
            }
            if self.rest.is_empty() {
                return Ok(0);
            }
            let frame = StreamingDecoder::new(self.rest);
            self.frame = Some(frame.map_err(|_| std::io::ErrorKind::InvalidData)?);
        }
    }
}

/// Decodes zstd, up to a bound for the result.
fn unpack_zstd(packed: &[u8], max: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    ZstdReader::new(packed)
        .take(max + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

/// Raw deflate (RFC 1951). Data after its last block is ignored, as Go's reader does.
fn inflate(decoder: &mut DeflateDecoder<Vec<u8>>, mut data: &[u8]) -> std::io::Result<Vec<u8>> {
    while !data.is_empty() {
        match decoder.write(data)? {
            0 => break,
            taken => data = &data[taken..],
        }
    }
    Ok(std::mem::take(decoder.get_mut()))
}

fn not_encoded(coding: &str) -> HttpFault {
    HttpFault::NotEncoded {
        encoding: coding.to_owned(),
    }
}

/// Reads the whole body of a response, decoded as Go's client does automatically.
pub(super) async fn collect(
    response: &mut Response,
    max: u64,
    wait: Duration,
) -> Result<Body, HttpFault> {
    let mut decoder = Decoder::of(&response.headers.clone(), false, false)?;
    let mut content = BytesMut::new();
    let mut raw = 0;
    let deadline = Instant::now() + wait * WHOLE_BODY;
    while let Some(data) = response.next(raw, wait).await? {
        raw += data.len() as u64;
        if Instant::now() > deadline {
            return Err(slow(wait * WHOLE_BODY, raw, None));
        }
        for piece in decoder.pieces(data) {
            content.extend_from_slice(&decoder.push(piece)?);
            if content.len() as u64 > max {
                return Err(HttpFault::TooLarge { limit: Bytes(max) });
            }
        }
    }
    content.extend_from_slice(&decoder.finish()?);
    Ok(content.freeze())
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    #[test]
    fn what_follows_the_last_block_of_deflate_is_passed_over() {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"{\"schemaVersion\": 2}").unwrap();
        let mut coded = encoder.finish().unwrap();
        let ends = coded.len();
        coded.extend_from_slice(b"\n \n");
        for cut in [1, ends - 1, ends, ends + 1] {
            let mut decoder = DeflateDecoder::new(Vec::new());
            let mut content = inflate(&mut decoder, &coded[..cut]).unwrap();
            content.extend(inflate(&mut decoder, &coded[cut..]).unwrap());
            decoder.try_finish().unwrap();
            content.extend(decoder.get_ref());
            assert_eq!(content, b"{\"schemaVersion\": 2}", "{cut}");
        }
        let mut decoder = DeflateDecoder::new(Vec::new());
        assert!(inflate(&mut decoder, &[0xff; 8]).is_err());
    }
}
