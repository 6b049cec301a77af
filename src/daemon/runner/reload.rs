//! What is created for each configuration, and what stays the same for all of them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::config::Config;
use crate::daemon::check::{CheckContext, StartError};
use crate::daemon::cluster::Cluster;
use crate::daemon::coordination::coordinator::Coordinator;
use crate::daemon::schedule::large_hello::LargeHellos;
use crate::daemon::schedule::state::{self, StateFile};
use crate::daemon::store::targets::EventCounts;
use crate::kubernetes::client::ConnectError;
use crate::model::units::Bytes;
use crate::net::netlink::Netlink;
use crate::probe::manifest::KnownManifests;
use crate::serving::reload::Loader;

/// Creates the parts for a configuration, and keeps what all configurations share.
pub(super) struct Reload {
    load: Loader<Config>,
    pub(super) node: String,
    netlink: Option<Arc<Netlink>>,
    known: Arc<KnownManifests>,
    large_hellos: Arc<Mutex<LargeHellos>>,
    pub(super) events: EventCounts,
}

/// A valid configuration, and the parts that were created for it. `None`: the part in use stays.
pub(super) struct Prepared {
    pub(super) world: CheckContext,
    pub(super) cluster: Option<Cluster>,
    pub(super) coordinator: Option<Coordinator>,
    pub(super) config: Config,
}

impl Reload {
    /// Opens `state_dir` of the first configuration.
    pub(super) async fn start(
        node: String,
        config: &Config,
        load: Loader<Config>,
    ) -> Result<(Self, Option<StateFile>), StartError> {
        let (file, known) = match &config.state_dir {
            None => (None, KnownManifests::default()),
            Some(folder) => in_folder(folder, config.state_size.0.0)?,
        };
        let reload = Self {
            load,
            netlink: crate::vantage::node_settings::NodeSettings::netlink().await,
            known: Arc::new(known),
            large_hellos: Arc::new(Mutex::new(LargeHellos::new(&node))),
            events: EventCounts::default(),
            node,
        };
        Ok((reload, file))
    }

    pub(super) fn world(
        &self,
        config: &Config,
        cluster: &Cluster,
    ) -> Result<CheckContext, StartError> {
        CheckContext::load(
            config,
            self.netlink.clone(),
            Arc::clone(&self.known),
            cluster,
            Arc::clone(&self.large_hellos),
        )
    }

    pub(super) async fn cluster(&self, config: &Config) -> Result<Cluster, ConnectError> {
        Cluster::start(&config.kubernetes, &self.node, self.events.clone()).await
    }

    /// Reads the configuration again, and creates what it needs while the old one is still in force.
    pub(super) async fn again(
        &self,
        before: &Config,
        cluster: &Cluster,
    ) -> Result<Prepared, StartError> {
        let config = (self.load)().map_err(StartError::Config)?;
        let next_cluster = if before.kubernetes == config.kubernetes {
            None
        } else {
            Some(self.cluster(&config).await?)
        };
        let is_shared_alike = before.spread == config.spread
            && before.kubernetes.kubeconfig == config.kubernetes.kubeconfig
            && before.schedule.check_timeout == config.schedule.check_timeout;
        let coordinator = if is_shared_alike {
            None
        } else {
            Some(Coordinator::start(&config, &self.node).await?)
        };
        Ok(Prepared {
            world: self.world(&config, next_cluster.as_ref().unwrap_or(cluster))?,
            cluster: next_cluster,
            coordinator,
            config,
        })
    }
}

fn in_folder(folder: &Path, max: Bytes) -> Result<(Option<StateFile>, KnownManifests), StartError> {
    let failed = |source| StartError::StateDir {
        path: folder.display().to_string(),
        source,
    };
    let file = StateFile::in_folder(folder).map_err(failed)?;
    let left = max.0.saturating_sub(state::MAX_BYTES);
    let known = KnownManifests::in_folder(&folder.join("manifests"), left).map_err(failed)?;
    Ok((Some(file), known))
}
