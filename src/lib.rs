//! Pullpath tells how a container image gets to a node, and why it doesn't.
//!
//! Data flows one way, and the modules are floors; a floor uses only those below it:
//!
//! | floor | module | what it does |
//! |---|---|---|
//! | 9 | [`cli`] | arguments → check; exit code |
//! | 8 | [`daemon`] | checks again and again, within budgets; metrics, page, API |
//! | 8 | [`cluster`] | what needs the whole cluster: real pulls, by Events; one replica by a Lease |
//! | 7 | [`report`] | evidence + verdict, and all faces of it |
//! | 7 | [`serving`] | what programs that stay share: metrics, HTTP, reading again |
//! | 6 | [`probe`] | walks one pull, leg by leg; returns evidence, never an error |
//! | 6 | [`vantage`] | what kernel, cloud and egress show of this node: a vantage |
//! | 6 | [`lint`] | what is wrong with workloads and their Secrets before anybody pulls |
//! | 5 | [`credentials`] | reads secrets and docker configs into a keyring |
//! | 5 | [`config`] | what the operator says of the network |
//! | 5 | [`kubernetes`] | follows what the cluster's API tells of this node |
//! | 5 | [`containerd`] | what the node's containerd is set to: mirrors, proxies |
//! | 4 | [`pulls`] | pure: kubelets' Events of real pulls → causes and tallies |
//! | 3 | [`diagnose`] | pure: evidence → verdict; the catalogue of causes |
//! | 3 | [`net`] | edges to the world: one input, one observation or typed fault |
//! | 3 | [`registry`] | the OCI distribution protocol without I/O |
//! | 3 | [`workload`] | pure: Kubernetes manifests → the images they pull, and how |
//! | 2 | [`pull_secret`] | pure: the kubelet's reading of pull secrets, and which credential is for an image |
//! | 2 | [`redact`] | pure: keeps secrets out of what is shown |
//! | 1 | [`model`] | the nouns |
//! | 1 | [`trust`] | pure: whether Go trusts a certificate |

pub mod cli;
pub mod cluster;
pub mod config;
pub mod containerd;
pub mod credentials;
pub mod daemon;
pub mod diagnose;
pub mod kubernetes;
pub mod lint;
pub mod model;
pub mod net;
pub mod probe;
pub mod pull_secret;
pub mod pulls;
pub mod redact;
pub mod registry;
pub mod report;
pub mod serving;
pub mod trust;
pub mod vantage;
pub mod workload;

/// This version, as `--version` prints it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit this was built from; `unknown` outside a checkout.
pub const COMMIT: &str = env!("PULLPATH_COMMIT");
