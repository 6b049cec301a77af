//! Runs tasks at the same time and returns their results in order.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::error::Error;

/// Runs all futures, at most `at_once` at a time; the results are in the order given.
pub(super) async fn in_order<T: Send + 'static>(
    at_once: usize,
    all: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Result<Vec<T>, Error> {
    let permits = Arc::new(Semaphore::new(at_once));
    let spawned = all.into_iter().map(|one| {
        let permits = Arc::clone(&permits);
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            one.await
        })
    });
    let joined = join_all(spawned).await.into_iter();
    joined
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Panicked)
}
