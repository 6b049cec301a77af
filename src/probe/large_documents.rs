//! Which checks may read a large document now: a manifest or a configuration of more than 1 MiB. Each takes memory for as
//! long as it is read, so few are read at the same time: one of a registry, and [`AT_ONCE`] in all. A server that sends
//! its document slowly holds up others for a bounded time, and then its own check has no result.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::own;

/// Large documents that are read at the same time.
const AT_ONCE: usize = 2;

/// A check waits so many times the wait for an answer until it may read. In that time, so many slow servers give up
/// their turn one after the other.
const LONGEST_WAIT: u32 = 6;

/// The queues for large documents.
#[derive(Debug)]
pub struct LargeDocuments {
    all: Arc<Queue>,
    registries: Mutex<BTreeMap<String, Weak<Queue>>>,
}

/// The right to read one.
#[derive(Debug)]
pub(super) struct DocumentTurn {
    _permits: [OwnedSemaphorePermit; 2],
    queues: [Arc<Queue>; 2],
    /// So long it lasts if others wait.
    lasts: Duration,
}

#[derive(Debug)]
struct Queue {
    free: Arc<Semaphore>,
    /// How many wait.
    waiting: watch::Sender<usize>,
}

impl Default for LargeDocuments {
    fn default() -> Self {
        Self {
            all: Arc::new(Queue::new(AT_ONCE)),
            registries: Mutex::default(),
        }
    }
}

impl LargeDocuments {
    /// Waits for a turn. `wait` is the bound of a single wait on the network. `None`: others took too long.
    pub(super) async fn take(&self, registry: &str, wait: Duration) -> Option<DocumentTurn> {
        let queues = [self.of_registry(registry), Arc::clone(&self.all)];
        // One that waits for its registry is in no other queue, so a registry has one place in the queue of all.
        let permits = async {
            let first = queues[0].take().await?;
            Some([first, queues[1].take().await?])
        };
        let permits = own::within(wait * LONGEST_WAIT, permits).await;
        let permits = permits.ok()??;
        Some(DocumentTurn {
            _permits: permits,
            queues,
            lasts: wait,
        })
    }

    fn of_registry(&self, registry: &str) -> Arc<Queue> {
        let mut known = self
            .registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, queue| queue.strong_count() > 0);
        if let Some(queue) = known.get(registry).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::new(Queue::new(1));
        known.insert(registry.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

impl DocumentTurn {
    /// Reads during this turn; `None`: it took too long for those that wait.
    pub(super) async fn read<T>(&self, read: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            made = read => Some(made),
            () = self.has_to_end() => None,
        }
    }

    async fn has_to_end(&self) {
        tokio::time::sleep(self.lasts).await;
        let [registry, all] = &self.queues;
        tokio::select! {
            () = registry.is_waited_for() => {}
            () = all.is_waited_for() => {}
        }
    }
}

impl Queue {
    fn new(places: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(places)),
            waiting: watch::Sender::new(0),
        }
    }

    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        let _waits = Waits::new(&self.waiting);
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    async fn is_waited_for(&self) {
        let mut waiting = self.waiting.subscribe();
        let _ = waiting.wait_for(|count| *count > 0).await;
    }
}

/// One that waits, until it is dropped.
struct Waits<'a>(&'a watch::Sender<usize>);

impl<'a> Waits<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const WAIT: Duration = Duration::from_millis(300);
    /// No test takes so long.
    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn one_of_a_registry_and_two_in_all_are_read_at_once() {
        let documents = LargeDocuments::default();
        let one = documents.take("a", LONG).await.unwrap();
        assert!(documents.take("a", WAIT / 10).await.is_none());
        let other = documents.take("b", LONG).await.unwrap();
        assert!(documents.take("c", WAIT / 10).await.is_none());
        drop(one);
        let third = documents.take("c", LONG).await.unwrap();
        drop((other, third));
        assert!(documents.take("a", LONG).await.is_some());
        assert_eq!(documents.registries.lock().unwrap().len(), 1);
    }

    /// Six other checks hold what they got, or wait in front.
    #[tokio::test]
    async fn servers_that_send_slowly_give_up_their_turns() {
        let documents = Arc::new(LargeDocuments::default());
        let mut slow = Vec::new();
        for registry in ["a", "b", "c", "d", "e", "f"] {
            let documents = Arc::clone(&documents);
            slow.push(tokio::spawn(async move {
                let turn = documents.take(registry, WAIT).await.unwrap();
                turn.read(pending::<()>()).await
            }));
        }
        tokio::task::yield_now().await;
        let turn = documents.take("healthy", WAIT).await.unwrap();
        assert_eq!(turn.read(async { 1 }).await, Some(1));
        drop(turn);
        let ended = slow.iter().filter(|one| one.is_finished()).count();
        assert!(ended >= 4, "{ended}");
        slow.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_turn_that_is_not_waited_for_does_not_end() {
        let documents = LargeDocuments::default();
        let turn = documents.take("a", WAIT / 10).await.unwrap();
        let slow = turn.read(tokio::time::sleep(WAIT));
        assert_eq!(slow.await, Some(()));
        // One that waited and left is not waited for.
        assert!(documents.take("a", WAIT / 10).await.is_none());
        assert_eq!(turn.read(tokio::time::sleep(WAIT)).await, Some(()));
    }
}
