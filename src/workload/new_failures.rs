//! Finds the pulls that have started to fail, or fail for another reason than before. A node checks them at once, ahead
//! of its schedule. Pure.

use std::collections::BTreeMap;

use super::pod::{Container, Pod, ReasonMessage};
use super::reasons::STARTING;
use crate::model::workload::ContainerKind;

/// Identifies a container or image volume: the pod's UID, the kind and the name. A name is unique only within its kind.
pub type ContainerKey = (String, ContainerKind, String);

/// The containers of this node that wait for their image, each with its last failure.
#[derive(Debug, Default)]
pub struct Waiting {
    known: BTreeMap<ContainerKey, Failure>,
}

#[derive(Debug, PartialEq)]
struct Failure {
    image: String,
    /// `None`: it has only been observed in back-off.
    reason: Option<String>,
    /// Hash of the message ([`ReasonMessage::of_try`]).
    message: Option<u64>,
}

/// The reason between two attempts.
const BACK_OFF: &str = "ImagePullBackOff";

impl Waiting {
    /// Takes the current pods, by UID. Returns the containers whose pull has started to fail or fails for another
    /// reason than before.
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

/// The failure to remember for a container, and whether it is new.
fn next(known: Option<Failure>, container: &Container) -> (Option<Failure>, bool) {
    let why = container.waits();
    let reason = why.map(|why| why.reason.as_str());
    if !container.waits_for_image() {
        // The next attempt is running, or the image is present.
        let is_retry = !container.is_present && reason.is_some_and(|one| STARTING.contains(&one));
        return (known.filter(|_| is_retry), false);
    }
    let now = Failure {
        image: container.image.clone(),
        reason: reason
            .filter(|reason| *reason != BACK_OFF)
            .map(str::to_owned),
        message: why.and_then(ReasonMessage::of_try),
    };
    let Some(known) = known else {
        return (Some(now), true);
    };
    // In back-off there is nothing new.
    if now.reason.is_none() {
        return (Some(known), false);
    }
    let is_same = known.reason.is_none() || known.reason == now.reason;
    let has_same_message =
        known.message.is_none() || now.message.is_none() || known.message == now.message;
    let merged = Failure {
        message: now.message.or(known.message.filter(|_| is_same)),
        ..now
    };
    (Some(merged), !(is_same && has_same_message))
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

    /// One pod in these states, one after the other: in which of them its failure is new.
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
        // Observed from the middle on.
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
        // The image was present in between, so this is a new failure.
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
