//! How the queries of one lookup share the sockets of their check: a server that does not answer leaves some to the
//! others.

use tokio::sync::watch;

/// Queries to each server that wait for an answer.
#[derive(Debug)]
pub(super) struct Places {
    held: watch::Sender<Vec<usize>>,
    /// Of all servers together; `None`: unbounded.
    most: Option<usize>,
}

/// The place of one query.
#[derive(Debug)]
pub(super) struct Held<'a> {
    places: &'a Places,
    server: usize,
}

/// So many of each server can always be under way: both families, and one repetition.
const KEPT: usize = 4;

impl Places {
    pub(super) fn new(servers: usize, most: Option<usize>) -> Self {
        Self {
            held: watch::Sender::new(vec![0; servers]),
            most,
        }
    }

    /// Waits for a place for a query to a server, by its index.
    pub(super) async fn take(&self, server: usize) -> Held<'_> {
        let mut changes = self.held.subscribe();
        let is_taken = |held: &mut Vec<usize>| {
            let may = self.most.is_none_or(|most| may_take(held, server, most));
            held[server] += usize::from(may);
            may
        };
        while !self.held.send_if_modified(is_taken) {
            // The sender is not dropped before `self`.
            let _ = changes.changed().await;
        }
        Held {
            places: self,
            server,
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.places.held.send_modify(|held| held[self.server] -= 1);
    }
}

/// Whether one more query to a server may take one of `most` places.
fn may_take(held: &[usize], server: usize, most: usize) -> bool {
    let kept = KEPT.min(most / held.len().max(1)).max(1);
    let used_or_kept: usize = held.iter().map(|held| kept.max(*held)).sum();
    held[server] < kept || used_or_kept < most
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_server_has_some_places_whatever_the_others_hold(
            servers in 1_usize..=3,
            most in 3_usize..40,
            wanted in proptest::collection::vec(0_usize..3, 0..120),
        ) {
            let mut held = vec![0; servers];
            for server in wanted.into_iter().map(|one| one % servers) {
                if may_take(&held, server, most) {
                    held[server] += 1;
                }
            }
            prop_assert!(held.iter().sum::<usize>() <= most, "{held:?}");
            let kept = KEPT.min(most / servers);
            for (server, has) in held.iter().enumerate() {
                prop_assert!(*has >= kept || may_take(&held, server, most), "{held:?}");
            }
        }
    }

    #[test]
    fn one_server_alone_has_all_places() {
        assert!(may_take(&[19], 0, 20));
        assert!(!may_take(&[20], 0, 20));
        assert!(may_take(&[15, 0], 0, 20));
        assert!(!may_take(&[16, 0], 0, 20));
    }

    #[tokio::test]
    async fn a_place_that_is_free_again_goes_to_one_that_waits() {
        let places = Places::new(1, Some(1));
        let one = places.take(0).await;
        let other = places.take(0);
        let freed = async {
            tokio::task::yield_now().await;
            drop(one);
        };
        let (other, ()) = tokio::join!(other, freed);
        assert_eq!(*places.held.borrow(), [1]);
        drop(other);
        assert_eq!(*places.held.borrow(), [0]);
    }
}
