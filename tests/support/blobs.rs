//! The object store behind a registry: another host, URLs that carry their own signature.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::Method;
use rustls::ServerConfig;

use super::image::hex_sha256;
use super::web::{Flow, Manners, Reply, Seen, Server};

/// Layers and configs by digest, shared by the registry and its object store.
pub type Blobs = Arc<Mutex<HashMap<String, Bytes>>>;

/// How a blob is handed out; a registry that does not redirect has these too.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// 200 and the whole blob, whatever `Range` says.
    pub ignore_range: bool,
    pub flow: Flow,
    /// Bytes that were not pushed, of the right length.
    pub corrupt: bool,
    /// `Content-Encoding` as written here, whatever the blob is.
    pub encoding: Option<String>,
    /// All of that for blobs larger than this only: the configuration of an image has below 1 KiB.
    pub above: usize,
    /// This status while another blob is being sent.
    pub one_at_a_time: Option<(u16, Arc<()>)>,
}

/// A body that is known to be on its way as long as a part of it is.
struct OnItsWay {
    body: Bytes,
    _held: Arc<()>,
}

impl AsRef<[u8]> for OnItsWay {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[derive(Clone, Debug, Default)]
pub struct BlobKnobs {
    pub manners: Manners,
    pub serving: Serving,
    /// Further redirects on this host before the blob comes.
    pub hops: usize,
    /// Every URL leads to itself.
    pub redirect_loop: bool,
    /// 403 `AccessDenied` in XML, as for a request that is signed too late or from the wrong network.
    pub access_denied: bool,
}

/// The store. When dropped, it fails a test in which it was sent a credential.
pub struct BlobHost {
    pub server: Server,
    pub knobs: Arc<Mutex<BlobKnobs>>,
    leaks: Arc<Mutex<Vec<Seen>>>,
}

impl BlobHost {
    pub async fn start(tls: Option<Arc<ServerConfig>>, blobs: Blobs) -> Self {
        let knobs = Arc::<Mutex<BlobKnobs>>::default();
        let leaks = Arc::<Mutex<Vec<Seen>>>::default();
        let server = {
            let (knobs, leaks) = (knobs.clone(), leaks.clone());
            let answer = move |seen: &Seen| {
                if seen.headers.contains_key("authorization") {
                    leaks.lock().unwrap().push(seen.clone());
                }
                let mut knobs = knobs.lock().unwrap();
                let reply = knobs.manners.intercept(seen, true);
                let reply = reply.unwrap_or_else(|| answer(&knobs, &blobs, seen));
                knobs.manners.finish(reply.header("server", "AmazonS3"))
            };
            Server::start(tls, answer).await
        };
        Self {
            server,
            knobs,
            leaks,
        }
    }

    pub fn knobs(&self) -> MutexGuard<'_, BlobKnobs> {
        self.knobs.lock().unwrap()
    }

    /// Requests that carried `Authorization`: never right here. Taking them forgives them.
    pub fn take_leaks(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.leaks.lock().unwrap())
    }
}

impl Drop for BlobHost {
    fn drop(&mut self) {
        let leaks = self.take_leaks();
        assert!(
            leaks.is_empty() || std::thread::panicking(),
            "the blob host was sent a credential: {} {}",
            leaks[0].method,
            leaks[0].path
        );
    }
}

/// The path and query of a URL for one blob and one method, good for 20 minutes by its own words.
pub fn signed_path(method: &Method, digest: &str) -> String {
    let path = blob_path(digest);
    format!(
        "{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIATESTTESTTESTTEST%2F20260102%2Ftest-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20260102T030405Z&X-Amz-Expires=1200&X-Amz-SignedHeaders=host\
         &X-Amz-Signature={}",
        signature(method, &path)
    )
}

/// Serves a blob, or the part of it that `Range` asks for (RFC 9110, 14).
pub(super) fn serve(bytes: &Bytes, serving: &Serving, seen: &Seen) -> Reply {
    let healthy = Serving::default();
    let serving = if bytes.len() > serving.above {
        serving
    } else {
        &healthy
    };
    let bytes = if serving.corrupt {
        bytes.iter().map(|b| !b).collect()
    } else {
        bytes.clone()
    };
    let bytes = match &serving.one_at_a_time {
        Some((status, held)) if Arc::strong_count(held) > 1 => return Reply::new(*status),
        Some((_, held)) => Bytes::from_owner(OnItsWay {
            body: bytes,
            _held: held.clone(),
        }),
        None => bytes,
    };
    let length = bytes.len();
    let reply = |status, body: Bytes| {
        let reply = Reply::new(status).body("application/octet-stream", body);
        let reply = reply.flow(serving.flow);
        let reply = match &serving.encoding {
            Some(encoding) => reply.header("content-encoding", encoding),
            None => reply,
        };
        if serving.ignore_range {
            reply
        } else {
            reply.header("accept-ranges", "bytes")
        }
    };
    // Range has a meaning for GET only (RFC 9110, 14.2).
    let wanted = seen
        .header("range")
        .filter(|_| seen.method == Method::GET && !serving.ignore_range)
        .and_then(|range| parse_range(range, length));
    match wanted {
        None => reply(200, bytes),
        Some(Ok((first, last))) => reply(206, bytes.slice(first..=last))
            .header("content-range", format!("bytes {first}-{last}/{length}")),
        Some(Err(())) => Reply::new(416).header("content-range", format!("bytes */{length}")),
    }
}

fn answer(knobs: &BlobKnobs, blobs: &Blobs, seen: &Seen) -> Reply {
    if knobs.access_denied {
        return Reply::s3_error(403, "AccessDenied", "Access Denied");
    }
    let here = format!("{}?{}", seen.path, seen.query);
    if knobs.redirect_loop {
        return Reply::redirect(307, &here);
    }
    // `/hop/2/bucket/…` leads to `/hop/1/bucket/…`, and that to `/bucket/…`.
    let (left, path) = match seen
        .path
        .strip_prefix("/hop/")
        .and_then(|p| p.split_once('/'))
    {
        Some((left, rest)) => (left.parse().unwrap_or(0), format!("/{rest}")),
        None => (knobs.hops, seen.path.clone()),
    };
    if left > 0 {
        let next = match left - 1 {
            // A hop of 0 distinguishes the last step from the first.
            0 => format!("/hop/0{path}?{}", seen.query),
            more => format!("/hop/{more}{path}?{}", seen.query),
        };
        return Reply::redirect(307, &next);
    }
    let signatures = seen.parameters("X-Amz-Signature");
    if seen.headers.contains_key("authorization") && !signatures.is_empty() {
        return Reply::s3_error(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature \
             query string parameter or the Authorization header should be specified",
        );
    }
    match &signatures[..] {
        [] => return Reply::s3_error(403, "AccessDenied", "Access Denied"),
        [one] if *one == signature(&seen.method, &path) => {}
        _ => {
            return Reply::s3_error(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            );
        }
    }
    let found = path
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split('/').nth(1))
        .and_then(|hex| blobs.lock().unwrap().get(&format!("sha256:{hex}")).cloned());
    match found {
        Some(bytes) => serve(&bytes, &knobs.serving, seen),
        None => Reply::s3_error(404, "NoSuchKey", "The specified key does not exist."),
    }
}

const PREFIX: &str = "/bucket/docker/registry/v2/blobs/sha256/";

/// Where distribution's storage drivers keep a blob.
fn blob_path(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    format!("{PREFIX}{}/{hex}/data", hex.get(..2).unwrap_or("00"))
}

/// Not AWS' own, yet as there: another method or path needs another one.
fn signature(method: &Method, path: &str) -> String {
    hex_sha256(format!("{method} {path} secret of the test store").as_bytes())
}

/// The first and last byte wanted; `Err` when nothing of it exists; `None` when it can't be read.
fn parse_range(range: &str, length: usize) -> Option<Result<(usize, usize), ()>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = length.checked_sub(1)?;
    let (first, last) = match (first, last) {
        ("", suffix) => (length.saturating_sub(suffix.parse().ok()?), end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, last.parse::<usize>().ok()?.min(end)),
    };
    Some(if first <= last {
        Ok((first, last))
    } else {
        Err(())
    })
}
