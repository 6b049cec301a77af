//! How many HTTP requests a check makes at most, whatever is answered.
//!
//! A request is repeated, redirected, challenged and taken up again by rules that are bounded each
//! (`session.rs`, `content.rs`), and by themselves allow a server to cause some hundred
//! thousand requests. So what is sent is counted, at each host and for each image; where nothing is
//! left, nothing is sent, and what hangs on it is undecided (`probe_limit`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::fault::HttpFault;

/// At one host that containerd asks, with its token service and its storage.
pub const MAX_REQUESTS_PER_HOST: usize = 256;
/// At all hosts of an image, in one walk. A walk is made once, and once more for each other line of
/// releases and without the proxy.
pub const MAX_REQUESTS_PER_IMAGE: usize = 1024;
/// So many times as much where all layers are read.
const FULL: usize = 8;

/// What is left for one host, and for its image.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    per_host: usize,
    host: Arc<AtomicUsize>,
    image: Arc<AtomicUsize>,
}

impl Requests {
    /// For all hosts of one walk.
    pub(super) fn of_image(reads_all: bool) -> Self {
        let times = if reads_all { FULL } else { 1 };
        let per_host = MAX_REQUESTS_PER_HOST * times;
        Self {
            per_host,
            host: Arc::new(AtomicUsize::new(per_host)),
            image: Arc::new(AtomicUsize::new(MAX_REQUESTS_PER_IMAGE * times)),
        }
    }

    /// For another host of the same image.
    pub(super) fn of_host(&self) -> Self {
        Self {
            host: Arc::new(AtomicUsize::new(self.per_host)),
            ..self.clone()
        }
    }

    /// Counts one request, before it is sent.
    ///
    /// # Errors
    /// When it must not be sent.
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

/// An answer to `/v2/` is read up to this: error bodies of registries are below 1 KiB, login pages
/// of things that are no registry are some tens.
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
