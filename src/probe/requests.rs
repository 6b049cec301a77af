//! Limits the number of HTTP requests of a check, whatever the servers answer.
//!
//! The rules for repeating, redirecting, challenging and resuming a request are bounded each (`session.rs`,
//! `content.rs`), but together they would allow a server to cause several hundred thousand requests. So every request
//! is counted, for each host and for each image; if none is left, nothing is sent, and the result that depends on it is
//! undecided (`probe_limit`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::fault::HttpFault;

/// Requests for one host that containerd queries, including its token service and its storage.
pub const MAX_REQUESTS_PER_HOST: usize = 256;
/// Requests for all hosts of an image, in one pass. A check makes one pass, and one more for each other release line
/// and without the proxy.
pub const MAX_REQUESTS_PER_IMAGE: usize = 1024;
/// Factor for both limits if all layers are read.
const FULL: usize = 8;

/// The remaining requests for one host, and for its image.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    per_host: usize,
    host: Arc<AtomicUsize>,
    image: Arc<AtomicUsize>,
}

impl Requests {
    /// The limit for all hosts of one pass.
    pub(super) fn of_image(reads_all: bool) -> Self {
        let times = if reads_all { FULL } else { 1 };
        let per_host = MAX_REQUESTS_PER_HOST * times;
        Self {
            per_host,
            host: Arc::new(AtomicUsize::new(per_host)),
            image: Arc::new(AtomicUsize::new(MAX_REQUESTS_PER_IMAGE * times)),
        }
    }

    /// The limit for another host of the same image.
    pub(super) fn of_host(&self) -> Self {
        Self {
            host: Arc::new(AtomicUsize::new(self.per_host)),
            ..self.clone()
        }
    }

    /// Counts one request, before it is sent.
    ///
    /// # Errors
    /// If no request is left.
    pub(super) fn spend(&self) -> Result<(), HttpFault> {
        let one = |left: usize| left.checked_sub(1);
        for left in [&self.host, &self.image] {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one)
                .map_err(|_| HttpFault::RequestLimit {
                    limit: self.per_host,
                })?;
        }
        Ok(())
    }
}

/// Bytes of a response to `/v2/` that are read: registries' error bodies are below 1 KiB, login pages of other servers
/// several tens of KiB.
pub(super) const SMALL_BODY: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_an_image_have_their_bounds() {
        let image = Requests::of_image(false);
        let spend_all = || {
            let host = image.of_host();
            (0..2 * MAX_REQUESTS_PER_IMAGE)
                .take_while(|_| host.spend().is_ok())
                .count()
        };
        for _ in 0..MAX_REQUESTS_PER_IMAGE / MAX_REQUESTS_PER_HOST {
            assert_eq!(spend_all(), MAX_REQUESTS_PER_HOST);
        }
        assert_eq!(spend_all(), 0);
    }
}
