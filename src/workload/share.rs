//! Shares of what a node has little of, among the namespaces of its pods. Pure.
//!
//! Places are given in turns, one to each namespace that still wants one. So no namespace gets more than its share
//! while another waits, and what one does not want goes to the others.

use std::collections::{BTreeMap, VecDeque};

/// One that wants a place.
#[derive(Clone, Debug)]
pub struct Claim<'a, R> {
    /// The namespaces that want it; usually one. It takes the turn of one of them.
    pub namespaces: Vec<&'a str>,
    /// The smallest is first in the turns of its namespace.
    pub rank: R,
}

/// The indexes of the claims that get one of `most` places, in the order in which they get them. Within a turn, a
/// namespace whose claim has a smaller rank is first.
pub fn places<R: Ord>(claims: &[Claim<'_, R>], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|index| (&claims[*index].rank, *index));
    let mut wanting: BTreeMap<&str, VecDeque<usize>> = BTreeMap::new();
    for index in order {
        for namespace in &claims[index].namespaces {
            wanting.entry(namespace).or_default().push_back(index);
        }
    }
    let mut is_placed = vec![false; claims.len()];
    let mut places = Vec::new();
    while places.len() < most {
        // What has got its place in another namespace's turn wants none.
        for queue in wanting.values_mut() {
            while queue.front().is_some_and(|index| is_placed[*index]) {
                queue.pop_front();
            }
        }
        let heads = wanting
            .iter()
            .filter_map(|(name, queue)| Some((*queue.front()?, *name)));
        let mut turn: Vec<(usize, &str)> = heads.collect();
        if turn.is_empty() {
            break;
        }
        turn.sort_by_key(|(index, name)| (&claims[*index].rank, *name));
        for (index, _) in turn {
            if places.len() < most && !is_placed[index] {
                is_placed[index] = true;
                places.push(index);
            }
        }
    }
    places
}

/// Whether a namespace may have one more of `most` things in a period, of which `taken` are taken, `own` by itself. For
/// what can't wait: the last three of ten are for namespaces that have none.
pub fn may_take(most: usize, taken: usize, own: usize) -> bool {
    let kept = most * 3 / 10;
    taken < most && (own == 0 || taken + kept < most)
}

/// The part of a budget that only those may use who have had less than their share of it.
pub const KEPT: f64 = 0.3;

/// What one of `sharers` may still use of a budget of `most`, of which `used` is used, `own` by itself: all of its share,
/// and more as long as three tenths are left for the others.
pub fn left(most: u64, used: u64, own: u64, sharers: usize) -> u64 {
    let free = most.saturating_sub(used);
    if sharers <= 1 {
        return free;
    }
    let share = most / u64::try_from(sharers).unwrap_or(u64::MAX);
    let of_share = share.saturating_sub(own).min(free);
    of_share.max(free.saturating_sub(most / 10 * 3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(namespace: &str, rank: usize) -> Claim<'_, usize> {
        Claim {
            namespaces: vec![namespace],
            rank,
        }
    }

    fn by_namespace<'a>(claims: &[Claim<'a, usize>], most: usize) -> BTreeMap<&'a str, usize> {
        let mut counts = BTreeMap::new();
        for index in places(claims, most) {
            *counts.entry(claims[index].namespaces[0]).or_default() += 1;
        }
        counts
    }

    #[test]
    fn one_namespace_with_many_leaves_the_others_theirs() {
        let mut claims: Vec<_> = (0..60).map(|rank| claim("big", rank)).collect();
        for name in ["a", "b", "z"] {
            claims.extend((0..6).map(|rank| claim(name, 100 + rank)));
        }
        let counts = by_namespace(&claims, 50);
        assert_eq!(
            counts,
            BTreeMap::from([("a", 6), ("b", 6), ("big", 32), ("z", 6)])
        );
        // With fewer places than namespaces, the smallest ranks get them.
        assert_eq!(places(&claims, 2), [0, 60]);
        assert_eq!(places(&claims, 0), [0; 0]);
    }

    #[test]
    fn what_two_namespaces_want_takes_one_place() {
        let shared = Claim {
            namespaces: vec!["a", "b"],
            rank: 0,
        };
        let claims = [shared, claim("a", 1), claim("b", 1), claim("b", 2)];
        assert_eq!(places(&claims, 3), [0, 1, 2]);
        assert_eq!(places(&claims, 9), [0, 1, 2, 3]);
    }

    #[test]
    fn the_last_of_a_minute_are_for_those_who_had_none() {
        for (taken, own, may) in [
            (6, 6, true),
            (7, 7, false),
            (7, 0, true),
            (9, 0, true),
            (9, 1, false),
            (10, 0, false),
        ] {
            assert_eq!(may_take(10, taken, own), may, "{taken} {own}");
        }
        assert!(may_take(1, 0, 0) && !may_take(1, 1, 0));
    }

    proptest! {
        #[test]
        fn no_namespace_has_more_than_its_share_while_another_waits(
            wanted in proptest::collection::vec((0_usize..6, 0_usize..9), 0..60),
            most in 0_usize..40,
        ) {
            const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
            let claims: Vec<_> = wanted.iter().map(|(name, rank)| claim(NAMES[*name], *rank)).collect();
            let placed = places(&claims, most);
            prop_assert_eq!(placed.len(), most.min(claims.len()));
            let mut unique = placed.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), placed.len());
            let counts = by_namespace(&claims, most);
            let wants = |name: &str| claims.iter().filter(|one| one.namespaces[0] == name).count();
            for (name, has) in NAMES.map(|name| (name, counts.get(name).copied().unwrap_or_default())) {
                let waits = has < wants(name);
                // One more is the remainder of the division.
                prop_assert!(!waits || counts.values().all(|other| *other <= has + 1), "{name} {counts:?}");
            }
            // Inside a namespace, none is passed over for one with a greater rank.
            for (index, one) in claims.iter().enumerate().filter(|(index, _)| !placed.contains(index)) {
                let worse = |other: &usize| claims[*other].namespaces == one.namespaces && claims[*other].rank > one.rank;
                prop_assert!(!placed.iter().any(worse), "{index}");
            }
        }

        /// Whatever one takes, each of the others has its share or a part of what is kept.
        #[test]
        fn a_budget_is_used_up_by_none_alone(
            most in 0_u64..1000,
            sharers in 2_usize..9,
            takes in proptest::collection::vec(1_u64..400, 0..60),
        ) {
            let (mut own, share) = (0, most / sharers as u64);
            for take in takes {
                own += take.min(left(most, own, own, sharers));
            }
            prop_assert!(own <= share.max(most - most / 10 * 3));
            prop_assert!(left(most, own, 0, sharers) >= share.min(most / 10 * 3));
            prop_assert_eq!(left(most, own, own, 1), most - own);
        }

        /// A namespace that wants places later takes none from one that has no more than its share.
        #[test]
        fn places_within_the_share_are_kept(old in 1_usize..10, new in 0_usize..60) {
            let most = 20;
            let mut claims: Vec<_> = (0..old).map(|rank| claim("old", rank)).collect();
            claims.extend((0..new).map(|rank| claim("new", rank)));
            let placed = places(&claims, most);
            prop_assert!((0..old).all(|index| placed.contains(&index)));
        }
    }
}
