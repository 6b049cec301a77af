//! Which pulls have begun to fail, or fail in another way than before: what a node looks at out of turn.
//! Pure.

use std::collections::BTreeMap;

use super::pod::{Container, Pod, ReasonMessage};
use super::reasons::STARTING;
use crate::model::workload::ContainerKind;

/// A pod's UID, and of it a container or image volume: one of each kind may have the same name.
pub type ContainerKey = (String, ContainerKind, String);

/// Containers that wait for their image, and how their pull failed last. As many as wait on this node.
#[derive(Debug, Default)]
pub struct Waiting {
    known: BTreeMap<ContainerKey, Failure>,
}

#[derive(Debug, PartialEq)]
struct Failure {
    image: String,
    /// `None`: only that it waits for the next try is known.
    reason: Option<String>,
    said: Option<u64>,
}

/// The state between two tries.
const BACK_OFF: &str = "ImagePullBackOff";

impl Waiting {
    /// Takes the pods of now, by UID; those containers whose pull has begun to fail, or fails otherwise.
    pub fn news<'a>(
        &mut self,
        pods: impl IntoIterator<Item = (&'a String, &'a Pod)>,
    ) -> Vec<ContainerKey> {
        let mut before = std::mem::take(&mut self.known);
        let mut news = Vec::new();
        for (uid, pod) in pods {
            if pod.is_over {
                continue;
            }
            for container in &pod.containers {
                let key = (uid.clone(), container.kind, container.name.clone());
                let known = before
                    .remove(&key)
                    .filter(|known| known.image == container.image);
                let (failure, is_news) = next(known, container);
                if is_news {
                    news.push(key.clone());
                }
                if let Some(failure) = failure {
                    self.known.insert(key, failure);
                }
            }
        }
        news
    }
}

/// What is known of a container's pull now, and whether that is worth a look.
fn next(known: Option<Failure>, container: &Container) -> (Option<Failure>, bool) {
    let said = container.waits();
    let reason = said.map(|said| said.reason.as_str());
    if !container.waits_for_image() {
        // It is tried again, or it is there.
        let goes_on = !container.is_present && reason.is_some_and(|one| STARTING.contains(&one));
        return (known.filter(|_| goes_on), false);
    }
    let now = Failure {
        image: container.image.clone(),
        reason: reason
            .filter(|reason| *reason != BACK_OFF)
            .map(str::to_owned),
        said: said.and_then(ReasonMessage::of_try),
    };
    let Some(known) = known else {
        return (Some(now), true);
    };
    // Between two tries, nothing is new.
    if now.reason.is_none() {
        return (Some(known), false);
    }
    let is_same = known.reason.is_none() || known.reason == now.reason;
    let says_same = known.said.is_none() || now.said.is_none() || known.said == now.said;
    let merged = Failure {
        said: now.said.or(known.said.filter(|_| is_same)),
        ..now
    };
    (Some(merged), !(is_same && says_same))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::pod::ContainerState;

    fn pod(image: &str, waits: Option<&str>, said: Option<u64>) -> Pod {
        Pod {
            namespace: "shop".to_owned(),
            name: "a".to_owned(),
            containers: vec![Container {
                name: "app".to_owned(),
                kind: ContainerKind::Container,
                image: image.to_owned(),
                policy: None,
                is_sidecar: false,
                is_present: waits.is_none(),
                state: waits.map_or(ContainerState::Running, |reason| {
                    let text = |number: u64| (0..number).map(|_| 'x').collect();
                    let message: String = said.map_or_else(String::new, text);
                    ContainerState::Waiting(ReasonMessage::new(reason, &message))
                }),
            }],
            ..Pod::default()
        }
    }

    /// One pod through these states: in which of them a look is worth while.
    fn looks(states: &[(Option<&str>, Option<u64>)]) -> Vec<bool> {
        let mut waiting = Waiting::default();
        let uid = "u1".to_owned();
        states
            .iter()
            .map(|(waits, said)| {
                let pod = pod("r.test/app:1", *waits, *said);
                !waiting.news([(&uid, &pod)]).is_empty()
            })
            .collect()
    }

    #[test]
    fn tries_and_waits_in_turn_are_one_failure() {
        let (tried, backs_off) = (Some("ErrImagePull"), Some("ImagePullBackOff"));
        assert_eq!(
            looks(&[
                (Some("ContainerCreating"), None),
                (tried, Some(1)),
                (backs_off, None),
                (tried, Some(1)),
                (Some("ContainerCreating"), None),
                (tried, Some(1)),
                (backs_off, None),
            ]),
            [false, true, false, false, false, false, false]
        );
        // Seen from its middle on.
        assert_eq!(
            looks(&[(backs_off, None), (tried, Some(1)), (backs_off, None)]),
            [true, false, false]
        );
    }

    #[test]
    fn another_way_to_fail_is_news() {
        let (tried, backs_off) = (Some("ErrImagePull"), Some("ImagePullBackOff"));
        assert_eq!(
            looks(&[
                (tried, Some(1)),
                (backs_off, None),
                (tried, Some(2)),
                (Some("RegistryUnavailable"), None),
                (backs_off, None),
                (Some("RegistryUnavailable"), None),
            ]),
            [true, false, true, true, false, false]
        );
        // It was there in between: it fails anew.
        assert_eq!(
            looks(&[(tried, Some(1)), (None, None), (tried, Some(1))]),
            [true, false, true]
        );
    }

    #[test]
    fn each_pod_and_each_image_counts_by_itself_and_who_is_gone_is_forgotten() {
        let mut waiting = Waiting::default();
        let (one, two) = ("u1".to_owned(), "u2".to_owned());
        let first = pod("r.test/app:1", Some("ErrImagePull"), Some(1));
        assert_eq!(waiting.news([(&one, &first)]).len(), 1);
        let both = [(&one, &first), (&two, &first)];
        let other = ("u2".to_owned(), ContainerKind::Container, "app".to_owned());
        assert_eq!(waiting.news(both), [other]);
        let other = pod("r.test/app:2", Some("ImagePullBackOff"), None);
        assert_eq!(waiting.news([(&one, &other)]).len(), 1);
        let mut over = other.clone();
        over.is_over = true;
        assert!(waiting.news([(&one, &over)]).is_empty());
        assert!(waiting.known.is_empty());
    }
}
