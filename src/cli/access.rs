//! Options for access to a cluster and to the daemons that run in it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube::Client;

use super::args::duration;
use super::error::Error;
use crate::kubernetes::client::connect;
use crate::model::workload::{Namespaced, is_name};

#[derive(Args, Debug)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterArgs {
    /// The kubeconfig for access to the cluster [default: KUBECONFIG, the pod's service account, ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig [default: the current context]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    /// Whether an option selects the cluster.
    pub(super) fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// A client with the rights of the user who runs this command.
    pub(super) async fn connect(&self) -> Result<Client, Error> {
        Ok(connect(self.kubeconfig.as_deref(), self.context.as_deref()).await?)
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Daemons")]
pub(super) struct DaemonArgs {
    /// The namespace of Pullpath's daemons
    #[arg(
        long,
        value_name = "NAME",
        env = "PULLPATH_NAMESPACE",
        default_value = "pullpath"
    )]
    pub(super) pullpath_namespace: String,

    /// The port of the daemons' admin listener in their pods (admin_listen)
    #[arg(long, value_name = "PORT", default_value_t = 9798, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) admin_port: u16,

    /// Timeout for the answer of one node
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = duration)]
    pub(super) node_timeout: Duration,
}

/// Parses `NAMESPACE/NAME`.
pub(super) fn namespaced(text: &str) -> Result<Namespaced, String> {
    let wrong = || "write NAMESPACE/NAME, for instance shop/pull".to_owned();
    let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
    if !is_name(namespace) || !is_name(name) {
        return Err(wrong());
    }
    Ok(Namespaced {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_and_a_name_are_both_wanted() {
        let read = namespaced("shop/pull").unwrap();
        assert_eq!((&*read.namespace, &*read.name), ("shop", "pull"));
        for wrong in [
            "pull",
            "/pull",
            "shop/",
            "a/b/c",
            "Shop/pull",
            "shop/pu ll",
            "",
        ] {
            assert!(namespaced(wrong).is_err(), "{wrong}");
        }
    }
}
