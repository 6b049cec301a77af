//! The bounds of `/probe`: checks that clients of the public port have made at the same time.

use std::sync::{Arc, Mutex, PoisonError};

use crate::serving::bounds::Peer;

/// Maximum of requests that are served at the same time.
const AT_ONCE: usize = 6;

/// The same of one peer. Prometheus scrapes from one address.
const BY_PEER: usize = 4;

/// The peers whose requests are being served.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    served: Arc<Mutex<Vec<Peer>>>,
}

/// The place of one request.
#[derive(Debug)]
pub(super) struct ProbePlace {
    of: Probes,
    peer: Peer,
}

impl Probes {
    /// A place for a request of this peer; `None`: there are too many.
    pub(super) fn take(&self, peer: Peer) -> Option<ProbePlace> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if !may(&served, peer) {
            return None;
        }
        served.push(peer);
        let of = self.clone();
        Some(ProbePlace { of, peer })
    }
}

impl Drop for ProbePlace {
    fn drop(&mut self) {
        let served = self.of.served.lock();
        let mut served = served.unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = served.iter().position(|peer| *peer == self.peer) {
            served.swap_remove(index);
        }
    }
}

fn may(served: &[Peer], peer: Peer) -> bool {
    let own = served.iter().filter(|one| **one == peer).count();
    served.len() < AT_ONCE && own < BY_PEER
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn one_peer_does_not_have_all_places() {
        let peer = |address: &str| Peer::from(address.parse::<IpAddr>().unwrap());
        let (one, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        let probes = Probes::default();
        let mut all: Vec<ProbePlace> = (0..BY_PEER).map(|_| probes.take(one).unwrap()).collect();
        assert!(probes.take(one).is_none());
        let rest = BY_PEER..AT_ONCE;
        let rest: Vec<ProbePlace> = rest.map(|_| probes.take(other).unwrap()).collect();
        assert!(!rest.is_empty() && probes.take(other).is_none());
        all.pop();
        assert!(probes.take(one).is_some());
        assert!(probes.take(other).is_some());
    }
}
