//! Pullpath finds out why a Kubernetes node can't pull an image, and what to change.
//!
//! Data flows one way. The modules have dependency levels: a module uses only levels below its own.
//!
//! | level | module | what it does |
//! |---|---|---|
//! | 10 | [`cli`] | the commands: arguments → check; result and exit status |
//! | 9 | [`daemon`] | `pullpath run`: checks on a schedule, within budgets; metrics, page, API |
//! | 9 | [`cluster`] | `pullpath cluster`: real pulls from Events, and lint; one active replica, by a Lease |
//! | 8 | [`report`] | evidence and verdict as JSON and text |
//! | 8 | [`serving`] | shared by the long-running commands: metrics, HTTP, reload |
//! | 7 | [`probe`] | makes the requests of one pull, leg by leg; returns evidence, never an error |
//! | 7 | [`vantage`] | observes the vantage point: kernel, cloud, egress |
//! | 7 | [`lint`] | finds problems of workloads and their Secrets before any image is pulled |
//! | 7 | [`doctor`] | pure: judges an installation, part by part, with the line that fixes it |
//! | 6 | [`credentials`] | reads Secrets and docker configs into a keyring |
//! | 6 | [`config`] | the configuration file |
//! | 6 | [`kubernetes`] | reads and watches objects through the cluster's API |
//! | 6 | [`containerd`] | the settings of the node's containerd: mirrors, proxies |
//! | 5 | [`pulls`] | pure: kubelets' Events of real pulls → causes and counts |
//! | 4 | [`diagnose`] | pure: evidence → verdict; the catalogue of causes |
//! | 4 | [`net`] | network I/O: one input, one observation or typed fault |
//! | 4 | [`registry`] | the OCI distribution protocol without I/O |
//! | 4 | [`workload`] | pure: Kubernetes manifests → the images they pull, and how |
//! | 3 | [`files`] | reads files that others write, within bounds of bytes and time |
//! | 3 | [`pull_secret`] | pure: reads pull secrets as the kubelet does, and finds the credentials for an image |
//! | 2 | [`own`] | the limits of this process: what a check misses because of one is no fault of the network |
//! | 2 | [`redact`] | pure: keeps secrets out of all output |
//! | 2 | [`resolver`] | pure: what a lookup by Go's resolver or libc's gives and costs |
//! | 1 | [`model`] | the basic types |
//! | 1 | [`trust`] | pure: whether Go trusts a certificate |

pub mod cli;
pub mod cluster;
pub mod config;
pub mod containerd;
pub mod credentials;
pub mod daemon;
pub mod diagnose;
pub mod doctor;
pub mod files;
pub mod kubernetes;
pub mod lint;
pub mod model;
pub mod net;
pub mod own;
pub mod probe;
pub mod pull_secret;
pub mod pulls;
pub mod redact;
pub mod registry;
pub mod report;
pub mod resolver;
pub mod serving;
pub mod trust;
pub mod vantage;
pub mod workload;

/// The version of this crate, as `--version` prints it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The Git commit that this was built from: 12 hex digits, or `PULLPATH_COMMIT` of the build; `unknown` outside
/// a checkout.
pub const COMMIT: &str = env!("PULLPATH_COMMIT");
