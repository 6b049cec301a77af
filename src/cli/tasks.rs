//! Much that is done at the same time, with the results in order.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::error::Error;

/// Runs all of these, so many at a time; their results, in the order given.
pub(super) async fn in_order<T: Send + 'static>(
    at_once: usize,
    all: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Result<Vec<T>, Error> {
    let turns = Arc::new(Semaphore::new(at_once));
    let spawned = all.into_iter().map(|one| {
        let turns = Arc::clone(&turns);
        tokio::spawn(async move {
            let _turn = turns.acquire().await;
            one.await
        })
    });
    let joined = join_all(spawned).await.into_iter();
    joined
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Panicked)
}
